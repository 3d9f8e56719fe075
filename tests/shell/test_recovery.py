import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from alphapack import app
from alphapack.config import Settings
from alphapack.domain.events import WorkRequested
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Heartbeat
from alphapack.domain.trading import ExecutionSettings
from alphapack.engine.engine import STATE_VERSION, Engine
from alphapack.engine.ports import LedgerRow
from alphapack.shell import journal as journal_module
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.journal import FileJournal
from alphapack.shell.ledger import LedgerMismatch, SqliteLedger
from alphapack.shell.recovery import RecoveryError, ledger_rows, recover
from rig import MS, Live, market_lines, recorded, rows_of, spoil, stepped, until, write_capture

COUNT = 600


class State:
    """The files of an engine that was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports: list[str] = []

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("*.ckpt"))

    def recover(self) -> tuple[Engine, list[LedgerRow]]:
        self.reports.clear()
        journal, ledger = FileJournal(self.folder / "journal"), SqliteLedger(self.folder / "ledger.sqlite", engine="test")
        try:
            engine = recover(app.build, journal, ledger, FileCheckpoints(self.folder / "checkpoints"), self.reports.append)
            ledger.verify()
            return engine, list(ledger.rows())
        finally:
            ledger.close()
            journal.close()

    def rewrite_ledger(self, rows: list[LedgerRow]) -> None:
        """Another ledger, whole by its own chain."""
        for path in self.folder.glob("ledger.sqlite*"):
            path.unlink()
        ledger = SqliteLedger(self.folder / "ledger.sqlite", engine="test")
        ledger.append(rows)
        ledger.close()


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[AnyInput]:
    return recorded(write_capture(tmp_path_factory.mktemp("capture"), spoil(market_lines(COUNT))))


@pytest.fixture(scope="module")
def whole(entries: list[AnyInput]) -> tuple[Engine, list[LedgerRow]]:
    """The engine that never stopped, and its ledger."""
    engine, records = stepped(entries)
    return engine, rows_of(entries, records)


@pytest.fixture(scope="module")
def left(entries: list[AnyInput], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left")

    async def play() -> None:
        async with Live(folder, checkpoint_inputs=150) as host:
            await host.play(entries)

    asyncio.run(play())
    return folder


@pytest.fixture
def state(left: Path, tmp_path: Path) -> State:
    return State(shutil.copytree(left, tmp_path / "state"))


def assert_as_if_never_stopped(state: State, whole: tuple[Engine, list[LedgerRow]]) -> None:
    engine, rows = state.recover()
    assert (engine.seq, engine.hexdigest()) == (whole[0].seq, whole[0].hexdigest())
    assert rows == whole[1]


def test_everything_is_as_if_it_had_never_stopped(state: State, whole: tuple[Engine, list[LedgerRow]]) -> None:
    assert len(state.checkpoints) == 3 and len(whole[1]) > 20
    assert_as_if_never_stopped(state, whole)
    newest = int(state.checkpoints[-1].stem)
    assert state.reports == [f"recovered to seq {whole[0].seq}: checkpoint at {newest}, {whole[0].seq - newest} inputs replayed"]
    assert_as_if_never_stopped(state, whole)


def test_an_empty_folder_is_a_fresh_engine(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    state = State(tmp_path / "new")
    engine, rows = state.recover()
    assert (engine.seq, engine.configured, rows, state.reports) == (0, False, [], [])


@pytest.mark.parametrize("lost", [0, 1, 3, 1_000])
def test_rows_that_a_crash_kept_from_being_written_are_appended(state: State, whole: tuple[Engine, list[LedgerRow]], lost: int) -> None:
    for path in state.checkpoints:
        path.unlink()
    state.rewrite_ledger(whole[1][: max(0, len(whole[1]) - lost)])
    assert_as_if_never_stopped(state, whole)


def changed(rows: list[LedgerRow], at: int) -> list[LedgerRow]:
    return [*rows[:at], msgspec.structs.replace(rows[at], body=rows[at].body + b" "), *rows[at + 1 :]]


def swapped_symbol(rows: list[LedgerRow], at: int) -> list[LedgerRow]:
    return [*rows[:at], msgspec.structs.replace(rows[at], symbol="a:B"), *rows[at + 1 :]]


def dropped(rows: list[LedgerRow], at: int) -> list[LedgerRow]:
    return [*rows[:at], *rows[at + 1 :]]


def invented(rows: list[LedgerRow], at: int) -> list[LedgerRow]:
    return [*rows[:at], msgspec.structs.replace(rows[at - 1], ordinal=rows[at - 1].ordinal + 9), *rows[at:]]


@pytest.mark.parametrize("forgery", [changed, swapped_symbol, dropped, invented])
@pytest.mark.parametrize("at", [1, 10, -2])
def test_a_row_that_is_not_what_the_inputs_cause_refuses_to_start(
    state: State, whole: tuple[Engine, list[LedgerRow]], forgery: object, at: int
) -> None:
    for path in state.checkpoints:
        path.unlink()
    place = at % len(whole[1])
    state.rewrite_ledger(forgery(whole[1], place))  # type: ignore[operator]
    with pytest.raises(LedgerMismatch, match=r"expected .* as the replay computes it"):
        state.recover()


def test_a_row_among_inputs_that_cause_none_refuses_to_start(entries: list[AnyInput], tmp_path: Path) -> None:
    async def play() -> None:
        async with Live(tmp_path) as host:
            await host.play(entries[:100])
            host.runner.checkpoint()
            for _ in range(5):
                host.runner.submit(Heartbeat)
            await host.settle()
            host.ledger.append([LedgerRow(host.engine.seq - 2, 0, host.engine.now_ns, "fill", "a:B", b"{}")])

    asyncio.run(play())
    with pytest.raises(LedgerMismatch, match="expected no row as the replay computes it"):
        State(tmp_path).recover()


def test_a_ledger_ahead_of_the_journal_refuses_to_start(state: State, whole: tuple[Engine, list[LedgerRow]]) -> None:
    beyond = whole[0].seq + 1
    state.rewrite_ledger([*whole[1], LedgerRow(beyond, 0, whole[0].now_ns, "fill", "a:B", b"{}")])
    with pytest.raises(RecoveryError, match=f"the ledger reaches seq {beyond}, the journal only {whole[0].seq}.*alphapack reset"):
        state.recover()


def test_a_lost_journal_beside_a_ledger_refuses_to_start(state: State) -> None:
    shutil.rmtree(state.folder / "journal")
    shutil.rmtree(state.folder / "checkpoints")
    with pytest.raises(RecoveryError, match="inputs that were acknowledged are missing"):
        state.recover()


@pytest.mark.parametrize("damaged", [1, 2, 3])
@pytest.mark.parametrize("how", ["cut", "flipped", "another state", "no state"])
def test_damaged_checkpoints_are_passed_over(state: State, whole: tuple[Engine, list[LedgerRow]], damaged: int, how: str) -> None:
    store = FileCheckpoints(state.folder / "checkpoints")
    for path in state.checkpoints[-damaged:]:
        if how == "cut":
            path.write_bytes(path.read_bytes()[:-20])
        elif how == "flipped":
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 4
            path.write_bytes(content)
        else:  # Whole as a file, but the engine cannot take it up.
            later = {other: other.read_bytes() for other in state.checkpoints}
            store.write(int(path.stem), b"\x90" if how == "no state" else b"\x9c\x01" + bytes(40))
            for other, content in later.items():
                if other != path:
                    other.write_bytes(content)
    assert_as_if_never_stopped(state, whole)
    assert len(state.reports) >= 1 + (damaged if how in ("another state", "no state") else 0)


def test_without_a_checkpoint_a_journal_whose_beginning_is_gone_refuses_to_start(
    entries: list[AnyInput], whole: tuple[Engine, list[LedgerRow]], tmp_path: Path
) -> None:
    journal = FileJournal(tmp_path / "journal", segment_bytes=4_096)
    for start in range(0, len(entries), 50):
        journal.append(entries[start : start + 50])
    engine, _ = stepped(entries[:300])
    journal.drop_through(300)
    assert 1 < journal.first_seq <= 301
    journal.close()
    FileCheckpoints(tmp_path / "checkpoints").write(300, engine.save())
    state = State(tmp_path)
    state.rewrite_ledger(whole[1])
    assert_as_if_never_stopped(state, whole)
    state.checkpoints[0].unlink()
    with pytest.raises(RecoveryError, match="no usable checkpoint, and the journal begins only at seq"):
        state.recover()


# After inputs that could not be journaled


@pytest.fixture
def holed(entries: list[AnyInput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[State, Live]]:
    """State with a hole: 200 inputs, and one that halted trading, were stepped while the disk refused, then a checkpoint covered them."""

    async def play() -> Live:
        async with Live(tmp_path / "state") as host:
            await host.play(entries[:200])
            host.runner.checkpoint()
            await host.settle()
            with monkeypatch.context() as patch:
                patch.setattr(journal_module, "sync_file", _refuse)
                for entry in entries[200:400]:
                    host.submit(entry)
                await until(lambda: host.committer is not None and host.committer.state == "degraded")
                assert host.runner.health().status == "degraded"
            await until(lambda: host.committer is not None and host.committer.state == "ok")
            for entry in entries[400:500]:
                host.submit(entry)
            await host.settle()
            return host

    yield State(tmp_path / "state"), asyncio.run(play())


def _refuse(fd: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_checkpoint_covers_what_the_journal_lacks(holed: tuple[State, Live]) -> None:
    state, host = holed
    journal = FileJournal(state.folder / "journal")
    assert journal.gaps() == [(201, 401)] and journal.last_seq == 502
    journal.close()
    engine, rows = state.recover()
    assert (engine.seq, engine.hexdigest()) == (502, host.engine.hexdigest())
    seen = [entry for entry, _ in host.seen], [records for _, records in host.seen]
    assert rows == rows_of(*seen), "rows outlive the hole"


def test_a_hole_that_no_checkpoint_covers_refuses_to_start(holed: tuple[State, Live]) -> None:
    """The checkpoint before the hole is of no use: inputs that were acknowledged lie in the hole."""
    state, _ = holed
    state.checkpoints[-1].unlink()
    assert int(state.checkpoints[-1].stem) == 200
    with pytest.raises(RecoveryError, match=r"200|201"):
        state.recover()


def test_a_checkpoint_ahead_of_the_journal_is_where_it_goes_on(holed: tuple[State, Live]) -> None:
    state, host = holed
    newest = sorted((state.folder / "journal").glob("*.seg"))[-1]
    newest.unlink()
    with closing(sqlite3.connect(state.folder / "ledger.sqlite")) as ledger:
        kept = ledger.execute("SELECT count(*) FROM rows WHERE seq <= 401").fetchone()[0]
    rows = rows_of([entry for entry, _ in host.seen], [records for _, records in host.seen])
    state.rewrite_ledger(rows[:kept])
    engine, found = state.recover()
    assert engine.seq == 401 and found == rows[:kept]


@pytest.mark.parametrize("lost", [1, 9])
def test_rows_from_before_the_checkpoint_are_made_again_from_the_first_input(
    state: State, whole: tuple[Engine, list[LedgerRow]], lost: int
) -> None:
    oldest = int(state.checkpoints[0].stem)
    for path in state.checkpoints[1:]:
        path.unlink()
    before = [row for row in whole[1] if row.seq <= oldest]
    state.rewrite_ledger(before[:-lost])
    assert_as_if_never_stopped(state, whole)
    assert f"the ledger lacks {lost} rows" in state.reports[0]


def test_rows_that_were_lost_in_a_hole_are_told_and_no_reason_to_stop(holed: tuple[State, Live]) -> None:
    state, host = holed
    rows = rows_of([entry for entry, _ in host.seen], [records for _, records in host.seen])
    kept = [row for row in rows if not 201 <= row.seq <= 401]
    assert len(kept) < len(rows)
    state.rewrite_ledger(kept)
    engine, found = state.recover()
    assert (engine.hexdigest(), found) == (host.engine.hexdigest(), kept)
    assert f"lacks {len(rows) - len(kept)} rows" in state.reports[0]


def test_a_journal_with_a_hole_can_still_be_looked_into(holed: tuple[State, Live]) -> None:
    state, host = holed
    summary = app.replay(Settings(), [state.folder / "journal"], complain=lambda text: None)
    assert (summary.inputs, summary.digest == host.engine.hexdigest()) == (301, False)


def test_requests_for_work_are_no_rows(entries: list[AnyInput]) -> None:
    _, records = stepped(entries)
    asked = [(entry, caused) for entry, caused in zip(entries, records, strict=True) if any(type(one) is WorkRequested for one in caused)]
    assert asked != []
    for entry, caused in asked:
        rows = ledger_rows(entry, caused)
        assert [row.ordinal for row in rows] == [i for i, one in enumerate(caused) if type(one) is not WorkRequested]
        assert {row.seq for row in rows} <= {entry.seq} and "request" not in {row.kind for row in rows}


# After an upgrade


class FirstConfigure(msgspec.Struct, array_like=True, tag_field="kind", tag="configure"):
    """``Configure`` as version 1 wrote it: settings that know nothing of trading."""

    seq: int
    ts_ns: int
    settings: dict[str, object]


def test_execution_planner_does_not_trade_in_a_past_that_knew_no_trading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the version before: its checkpoint is refused, its journal replayed, and the ledger's rows come out equal."""
    capture = write_capture(tmp_path, market_lines(1_000, step_ns=200 * MS))
    untraded = recorded(capture, CoreSettings(execution=ExecutionSettings(trade=False)))
    engine, records = stepped(untraded)
    rows = rows_of(untraded, records)
    first = untraded[0]
    assert isinstance(first, Configure)
    settings = msgspec.to_builtins(first.settings)
    del settings["execution"], settings["router"]
    with monkeypatch.context() as past:
        past.setattr(journal_module, "INPUT_VERSION", 1)
        journal = FileJournal(tmp_path / "journal")
        journal.append([FirstConfigure(first.seq, first.ts_ns, settings), *untraded[1:]])  # type: ignore[list-item]
        journal.close()
    FileCheckpoints(tmp_path / "checkpoints").write(500, msgspec.msgpack.encode([STATE_VERSION - 1, 500]))
    state = State(tmp_path)
    state.rewrite_ledger(rows)
    upgraded, kept = state.recover()
    assert kept == rows and upgraded.seq == engine.seq and not upgraded.settings.execution.trade
    assert f"expected a state of version {STATE_VERSION}, found {STATE_VERSION - 1}" in state.reports[0]
    assert state.reports[1].endswith(f"checkpoint at 0, {engine.seq} inputs replayed")
    traded = recorded(capture)
    assert "decision" in {row.kind for row in rows_of(traded, stepped(traded)[1])}, "it would have been traded"
