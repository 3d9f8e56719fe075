import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alphapack.domain.inputs import AnyInput, Heartbeat
from alphapack.engine.ports import LedgerRow
from alphapack.shell import committer as committer_module
from alphapack.shell import journal as journal_module
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.committer import Committer
from alphapack.shell.journal import FileJournal
from alphapack.shell.ledger import SqliteLedger

PATIENCE_S = 20.0
"""How long a test waits for what must come; never how long anything may take."""


class Disk:
    """What every fake store asks before it keeps anything; it records the order and refuses on demand."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.failing: set[str] = set()
        self.error: Exception = OSError(28, "No space left on device")
        self.gate = threading.Event()
        self.gate.set()

    def write(self, store: str, *what: Any) -> None:
        assert self.gate.wait(PATIENCE_S)
        if store in self.failing:
            raise self.error
        self.log.append((store, *what))


class MemoryJournal:
    def __init__(self, disk: Disk) -> None:
        self.disk, self.entries, self.gapped, self.dropped_through = disk, list[AnyInput](), list[int](), 0

    @property
    def last_seq(self) -> int:
        return self.entries[-1].seq if self.entries else 0

    @property
    def size_bytes(self) -> int:
        return 100 * len(self.entries)

    def append(self, entries: Iterable[AnyInput], *, allow_gap: bool = False) -> None:
        batch = list(entries)
        self.disk.write("journal", batch[-1].seq)
        if batch[0].seq != self.last_seq + 1:
            assert allow_gap
            self.gapped.append(batch[0].seq)
        self.entries += batch

    def drop_through(self, seq: int) -> None:
        self.disk.write("drop", seq)
        self.dropped_through = seq

    def probe(self) -> None:
        self.disk.write("journal")


class MemoryLedger:
    def __init__(self, disk: Disk) -> None:
        self.disk, self.kept = disk, list[LedgerRow]()

    def append(self, rows: Iterable[LedgerRow]) -> None:
        batch = list(rows)
        self.disk.write("ledger", batch[-1].seq if batch else None)
        keys = [(row.seq, row.ordinal) for row in self.kept + batch]
        assert keys == sorted(set(keys))
        self.kept += batch

    def reconcile(self, rows: Iterable[LedgerRow]) -> list[LedgerRow]:
        return [row for row in rows if row not in self.kept]

    def probe(self) -> None:
        self.disk.write("ledger")


class MemoryCheckpoints:
    def __init__(self, disk: Disk) -> None:
        self.disk, self.states = disk, dict[int, bytes]()

    @property
    def oldest_kept(self) -> int:
        return min(self.states, default=0)

    def write(self, seq: int, state: bytes) -> None:
        self.disk.write("checkpoint", seq)
        self.states[seq] = state


class Runner:
    """Stands for the event loop: puts inputs and remembers what it was told."""

    def __init__(self, journal: Any, ledger: Any, checkpoints: Any, log: list[tuple[Any, ...]], **options: Any) -> None:
        self.log, self.reasons, self.recoveries = log, list[str](), 0
        self.changed = threading.Condition()
        self.seq = options.get("durable_seq", journal.last_seq)
        self.committer = Committer(
            journal,
            ledger,
            checkpoints,
            published=lambda seq: self._told(lambda: self.log.append(("published", seq))),
            degraded=lambda reason: self._told(lambda: self.reasons.append(reason)),
            recovered=lambda: self._told(self._count_recovery),
            retry_s=0.002,
            **options,
        )

    def _count_recovery(self) -> None:
        self.recoveries += 1

    def _told(self, note: Callable[[], None]) -> None:
        with self.changed:
            note()
            self.changed.notify_all()

    def wait(self, what: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(what, PATIENCE_S), "expected news from the committer, none came"

    def put(self, count: int = 1) -> None:
        for _ in range(count):
            self.seq += 1
            self.committer.put(Heartbeat(self.seq, self.seq), rows_of(self.seq))

    def checkpoint(self) -> None:
        self.committer.checkpoint(self.seq, b"state %d" % self.seq)


def rows_of(seq: int) -> list[LedgerRow]:
    """Every third input causes two rows."""
    return [LedgerRow(seq, ordinal, seq, "book_state", "sim:X", b"{}") for ordinal in range(2 if seq % 3 == 0 else 0)]


def rows_through(seq: int) -> list[LedgerRow]:
    return [row for each in range(1, seq + 1) for row in rows_of(each)]


class Memory:
    def __init__(self, **options: Any) -> None:
        self.disk = Disk()
        self.journal, self.ledger, self.checkpoints = MemoryJournal(self.disk), MemoryLedger(self.disk), MemoryCheckpoints(self.disk)
        self.runner = Runner(self.journal, self.ledger, self.checkpoints, self.disk.log, **options)
        self.committer = self.runner.committer

    @property
    def seqs(self) -> list[int]:
        return [entry.seq for entry in self.journal.entries]


@pytest.fixture
def made() -> Iterator[list[Memory]]:
    made: list[Memory] = []
    yield made
    for memory in made:
        memory.disk.gate.set()
        memory.committer.close(PATIENCE_S)


@pytest.fixture
def memory(made: list[Memory]) -> Memory:
    made.append(Memory(linger_s=0.0))
    return made[-1]


def test_everything_put_becomes_durable_in_order(memory: Memory) -> None:
    memory.runner.put(500)
    assert memory.committer.flush(PATIENCE_S)
    assert memory.seqs == list(range(1, 501)) and memory.ledger.kept == rows_through(500)
    assert (memory.committer.durable_seq, memory.committer.backlog, memory.committer.state) == (500, 0, "ok")


def test_journal_then_ledger_then_published_and_the_checkpoint_after_all(memory: Memory) -> None:
    memory.disk.gate.clear()
    memory.runner.put(3)
    memory.runner.checkpoint()
    memory.runner.put(6)
    memory.disk.gate.set()
    assert memory.committer.flush(PATIENCE_S)
    log = memory.disk.log
    for seq in (3, 9):
        assert log.index(("journal", seq)) < log.index(("ledger", seq)) < log.index(("published", seq))
    assert log.index(("published", 3)) < log.index(("checkpoint", 3)) < log.index(("journal", 9))


def test_what_waits_is_committed_as_a_group(memory: Memory) -> None:
    memory.disk.gate.clear()
    memory.runner.put(1000)
    assert memory.committer.backlog == 1000 and not memory.committer.flush(0.0)
    memory.disk.gate.set()
    assert memory.committer.flush(PATIENCE_S)
    assert len([entry for entry in memory.disk.log if entry[0] == "journal"]) <= 3


def test_wrong_order_is_refused_where_it_happens(memory: Memory) -> None:
    memory.runner.put(2)
    with pytest.raises(ValueError, match="expected input seq 3, found 5"):
        memory.committer.put(Heartbeat(5, 5), ())
    with pytest.raises(ValueError, match="put last, seq 2, found seq 1"):
        memory.committer.checkpoint(1, b"")
    assert memory.committer.close(PATIENCE_S)
    with pytest.raises(RuntimeError, match="closed"):
        memory.runner.put()


@pytest.mark.parametrize("failing", ["journal", "ledger", "checkpoint"])
def test_a_refusing_disk_degrades_and_a_checkpoint_leads_back(memory: Memory, failing: str) -> None:
    memory.runner.put(9)
    assert memory.committer.flush(PATIENCE_S)
    memory.disk.failing = {"journal", "ledger", "checkpoint"} if failing == "journal" else {failing}
    memory.runner.put(3)
    if failing == "checkpoint":
        memory.runner.checkpoint()
    memory.runner.wait(lambda: bool(memory.runner.reasons))
    assert memory.committer.state == "degraded" and "No space left" in str(memory.committer.detail)
    assert not memory.committer.flush(PATIENCE_S), "a degraded committer makes nobody wait"
    memory.runner.put(6)  # 13 to 18 are given up.
    if failing == "journal":
        memory.runner.checkpoint()  # Nobody asked for it yet.
        assert memory.checkpoints.states == {} and memory.committer.state == "degraded"
    memory.disk.failing = set()
    memory.runner.wait(lambda: memory.runner.recoveries == 1)
    memory.runner.put(2)  # 19 and 20 come before the runner could answer: the checkpoint covers them.
    memory.runner.checkpoint()
    memory.runner.put(4)
    assert memory.committer.flush(PATIENCE_S)
    recorded = 9 if failing == "journal" else 12
    assert memory.seqs == [*range(1, recorded + 1), *range(21, 25)] and memory.journal.gapped == [21]
    assert memory.checkpoints.states == {20: b"state 20"}
    assert memory.ledger.kept == rows_through(24), "rows wait for the disk"
    assert (memory.committer.state, memory.committer.detail, memory.committer.backlog) == ("ok", None, 0)
    assert len(memory.runner.reasons) == 1 and memory.committer.lost_rows == 0
    log = memory.disk.log
    assert log.index(("checkpoint", 20)) < log.index(("published", 20)) < log.index(("journal", 24))
    assert [entry[1] for entry in log if entry[0] == "published"] == sorted(entry[1] for entry in log if entry[0] == "published")


def test_a_checkpoint_that_fails_on_the_way_back_is_asked_for_again(memory: Memory) -> None:
    memory.disk.failing = {"journal", "checkpoint"}
    memory.runner.put(6)
    memory.runner.wait(lambda: bool(memory.runner.reasons))
    memory.disk.failing = {"checkpoint"}
    memory.runner.wait(lambda: memory.runner.recoveries == 1)
    memory.runner.checkpoint()
    memory.runner.put(6)
    memory.runner.wait(lambda: memory.runner.recoveries == 2)
    memory.disk.failing = set()
    memory.runner.checkpoint()
    memory.runner.put(1)
    assert memory.committer.flush(PATIENCE_S)
    assert memory.seqs == [13] and memory.ledger.kept == rows_through(13) and len(memory.runner.reasons) == 1


def test_it_degrades_anew_each_time_the_disk_refuses(memory: Memory) -> None:
    for episode in (1, 2):
        memory.disk.failing = {"journal"}
        memory.runner.put(3)
        memory.runner.wait(lambda: len(memory.runner.reasons) == episode)  # noqa: B023 - called before the next round
        memory.disk.failing = set()
        memory.runner.wait(lambda: memory.runner.recoveries == episode)  # noqa: B023 - called before the next round
        memory.runner.checkpoint()
        memory.runner.put(3)
        assert memory.committer.flush(PATIENCE_S)
    assert memory.seqs == [4, 5, 6, 10, 11, 12] and memory.journal.gapped == [4, 10]


def test_rows_that_wait_are_bounded_and_the_others_counted(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "KEPT_ROWS_MAX", 5)
    memory.disk.failing = {"journal"}
    memory.runner.put(1)
    memory.runner.wait(lambda: bool(memory.runner.reasons))
    memory.runner.put(14)
    assert memory.committer.lost_rows == len(rows_through(15)) - 5
    memory.disk.failing = set()
    memory.runner.wait(lambda: memory.runner.recoveries == 1)
    memory.runner.checkpoint()
    assert memory.committer.flush(PATIENCE_S)
    assert memory.ledger.kept == rows_through(15)[:5]


def test_a_disk_that_is_too_slow_degrades_after_what_waited_is_durable(made: list[Memory]) -> None:
    memory = Memory(linger_s=0.0, backlog_max=10)
    made.append(memory)
    memory.disk.gate.clear()
    memory.runner.put(40)
    memory.disk.gate.set()
    memory.runner.wait(lambda: memory.runner.recoveries == 1)
    assert "slower than the inputs" in memory.runner.reasons[0]
    held = memory.committer.durable_seq
    assert 10 <= held < 40 and memory.seqs == list(range(1, held + 1))
    memory.runner.checkpoint()
    memory.runner.put(2)
    assert memory.committer.flush(PATIENCE_S)
    assert memory.seqs == [*range(1, held + 1), 41, 42] and memory.ledger.kept == rows_through(42)


def test_a_last_checkpoint_that_takes_too_long_leaves_all_inputs_durable(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    memory.runner.put(7)
    assert memory.committer.flush(PATIENCE_S)
    memory.disk.gate.clear()
    memory.runner.checkpoint()
    assert memory.committer.close(0.05), "every input is safe"
    assert "too slow for the last checkpoint" in caplog.text and memory.checkpoints.states == {}
    memory.disk.gate.set()


def test_inputs_that_are_not_durable_in_time_are_told(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    memory.disk.gate.clear()
    memory.runner.put(7)
    assert not memory.committer.close(0.05) and memory.committer.closing
    assert "checkpoint" not in caplog.text
    memory.disk.gate.set()


def test_an_error_that_trying_again_cannot_heal_stays(memory: Memory) -> None:
    memory.disk.failing, memory.disk.error = {"ledger"}, ValueError("expected a key after (9, 1)")
    memory.runner.put(3)
    memory.runner.wait(lambda: bool(memory.runner.reasons))
    memory.disk.failing = set()
    memory.runner.put(3)
    memory.runner.checkpoint()
    assert not memory.committer.close(PATIENCE_S)
    assert "ValueError: expected a key" in memory.runner.reasons[0] and "restart" in memory.runner.reasons[0]
    assert memory.runner.recoveries == 0 and memory.checkpoints.states == {} and memory.committer.durable_seq == 0


def test_a_listener_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def gone(seq: int) -> None:
        raise RuntimeError("Event loop is closed")

    disk = Disk()
    journal = MemoryJournal(disk)
    committer = Committer(
        journal, MemoryLedger(disk), MemoryCheckpoints(disk), published=gone, degraded=lambda reason: None, recovered=lambda: None
    )
    committer.put(Heartbeat(1, 1), ())
    assert committer.flush(PATIENCE_S)
    committer.put(Heartbeat(2, 2), ())
    assert committer.close(PATIENCE_S) and journal.last_seq == 2
    assert "listener" in caplog.text


def test_retention_goes_by_the_oldest_checkpoint_and_only_beyond_the_limit(made: list[Memory]) -> None:
    memory = Memory(linger_s=0.0, retain_bytes=1000)
    made.append(memory)
    memory.runner.put(9)
    memory.runner.checkpoint()
    assert memory.committer.flush(PATIENCE_S) and memory.journal.dropped_through == 0
    memory.runner.put(9)
    memory.runner.checkpoint()
    assert memory.committer.flush(PATIENCE_S) and memory.journal.dropped_through == 9
    log = memory.disk.log
    assert log.index(("checkpoint", 18)) < log.index(("drop", 9))


class Stores:
    """The real stores of one engine below a folder."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.reports: list[str] = []
        self.journal = FileJournal(folder / "journal", segment_bytes=2000, report=self.reports.append)
        self.ledger = SqliteLedger(folder / "ledger.db", engine="main")
        self.checkpoints = FileCheckpoints(folder / "checkpoints", report=self.reports.append)
        self.runner = Runner(self.journal, self.ledger, self.checkpoints, [], **options)

    def close(self) -> None:
        self.runner.committer.close(PATIENCE_S)
        self.journal.close()
        self.ledger.close()


def test_the_real_stores_keep_what_was_put_and_retention_keeps_what_recovery_needs(tmp_path: Path) -> None:
    stores = Stores(tmp_path, retain_bytes=3000)
    for _ in range(6):
        for _ in range(20):
            stores.runner.put(5)
            assert stores.runner.committer.flush(PATIENCE_S)
        stores.runner.checkpoint()
    assert stores.runner.committer.flush(PATIENCE_S)
    stores.close()
    again = Stores(tmp_path)
    assert again.reports == [] and again.checkpoints.newest() == (600, b"state 600")
    assert (again.journal.last_seq, again.ledger.last_key, again.runner.committer.durable_seq) == (600, (600, 1), 600)
    assert 1 < again.journal.first_seq <= again.checkpoints.oldest_kept + 1 == 401
    assert [entry.seq for entry in again.journal.read(400)] == list(range(401, 601))
    assert list(again.ledger.rows()) == rows_through(600)
    again.close()


def test_the_real_journal_comes_back_after_a_full_disk_and_a_kill_before_the_next_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    stores = Stores(tmp_path)
    stores.runner.put(9)
    assert stores.runner.committer.flush(PATIENCE_S)
    with monkeypatch.context() as disk:
        disk.setattr(journal_module, "sync_file", refuse)
        stores.runner.put(3)
        stores.runner.wait(lambda: bool(stores.runner.reasons))
        stores.runner.put(3)
    stores.runner.wait(lambda: stores.runner.recoveries == 1)
    stores.runner.checkpoint()
    assert stores.runner.committer.flush(PATIENCE_S)
    stores.close()  # As a kill here would leave it: a checkpoint of 15, a journal that ends at 9.

    assert FileCheckpoints(tmp_path / "checkpoints").newest() == (15, b"state 15")
    again = Stores(tmp_path, durable_seq=15)
    assert again.reports == [] and list(again.journal.read(15)) == []
    again.runner.put(3)
    assert again.runner.committer.flush(PATIENCE_S)
    assert [entry.seq for entry in again.journal.read()] == [*range(1, 10), *range(16, 19)]
    assert again.journal.gaps() == [(10, 15)] and list(again.ledger.rows()) == rows_through(18)
    again.close()
