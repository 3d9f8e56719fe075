"""Live, replay and resumption are one course of events: equal digests, equal records, equal states."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

import alphapack
from alphapack import app
from alphapack.config import Settings
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Frame, Heartbeat, Result, SessionStart, Shed
from alphapack.engine.engine import Engine
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.journal import FileJournal, read_journal
from alphapack.shell.ledger import SqliteLedger
from alphapack.shell.recovery import recover
from rig import (
    BTC,
    MS,
    START_NS,
    VENUE,
    FakeClock,
    FakeMarket,
    Live,
    S,
    head,
    market_lines,
    recorded,
    rows_of,
    spoil,
    stepped,
    until,
    write_capture,
)

UNSHRUNK = (Phase.explicit, Phase.generate)
"""Shrinking steps whole recordings over and over, and a cut is a small example as it is."""
CAPTURE = "binance-usdm_BTCUSDT_20240808T2354.raw.gz"
NAMES = ("BTCUSDT", "ETHUSDT")
ACTIONS = (
    "frame",
    "frame",
    "frame",
    "frame",
    "frames",
    "lose",
    "garble",
    "beat",
    "session",
    "shed",
    "result",
    "configure",
    "read",
    "checkpoint",
)
JUMPS_NS = (0, 0, 1, 50 * MS, 100 * MS, 250 * MS, 3_500 * MS, 61 * S, -1, -1 * S, -3_600 * S)


def read_everything(host: Live) -> None:
    """Ask all that the API may ask."""
    runner = host.runner
    runner.health()
    runner.counters()
    for info in runner.symbols():
        name = f"{info.venue}:{info.symbol}"
        runner.microstructure(name)
        runner.book(name, 50)
        runner.history("microstructure", name, 0, 3_600)
    host.engine.save()
    host.engine.hexdigest()


def no_complaint(text: str) -> None:
    raise AssertionError(text)


# Live is replay


class Day:
    """A live session driven by a list of actions, on a clock that does what real clocks do."""

    def __init__(self, host: Live, clock: FakeClock) -> None:
        self.host, self.clock = host, clock
        self.feeds = [FakeMarket(name).messages(lambda: self.clock.at_ns) for name in NAMES]
        self.turn = 0

    def do(self, action: str) -> None:
        runner = self.host.runner
        if action == "frame":
            self.offer(next(self.feeds[self.turn]))
        elif action == "frames":
            for _ in range(20):
                self.offer(next(self.feeds[self.turn]), drain=False)
            self.drain()
        elif action == "lose":
            next(self.feeds[self.turn])
        elif action == "garble":
            self.offer(next(self.feeds[self.turn])[:-7])
        elif action == "beat":
            runner.submit(Heartbeat)
        elif action == "session":
            runner.submit(lambda seq, ts_ns: SessionStart(seq, ts_ns, "live"))
        elif action == "shed":
            runner.submit(lambda seq, ts_ns: Shed(seq, ts_ns, BTC, 3))
        elif action == "result":
            runner.submit(lambda seq, ts_ns: Result(seq, ts_ns, 1, "snapshot", False, b"no network"))
        elif action == "configure":
            runner.submit(lambda seq, ts_ns: Configure(seq, ts_ns, CoreSettings(seed=seq, stale_after_ms=500 + seq)))
        elif action == "checkpoint":
            runner.checkpoint()
        else:
            read_everything(self.host)
        self.turn = 1 - self.turn

    def offer(self, payload: bytes, *, drain: bool = True) -> None:
        self.host.runner.intake.offer(VENUE, "", payload)
        if drain:
            self.drain()

    def drain(self) -> None:
        while self.host.runner.drain():
            pass


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(JUMPS_NS), st.sampled_from(ACTIONS)), max_size=60))
@example([(0, "frames"), (3_600 * S, "beat"), (-7_200 * S, "frames"), (0, "session"), (1, "frames"), (8_000 * S, "frames"), (0, "frames")])
@example(
    [(10 * MS, "frames"), (10 * MS, "frames"), (0, "lose"), (0, "lose"), (0, "frames"), (-5, "checkpoint"), (0, "frames"), (0, "frames")]
)
def test_a_live_session_on_an_unruly_clock_replays_from_its_journal(actions: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        async def live() -> Live:
            clock = FakeClock()
            async with Live(folder, clock=clock) as host:
                day = Day(host, clock)
                host.runner.submit(lambda seq, ts_ns: Configure(seq, ts_ns, CoreSettings()))
                host.runner.submit(lambda seq, ts_ns: SessionStart(seq, ts_ns, "live"))
                for jump_ns, action in actions:
                    clock.at_ns += jump_ns
                    day.do(action)
                await host.settle()
                assert host.runner.health().ledger.ok
                return host

        host = asyncio.run(live())
        entries = list(read_journal(folder / "journal", report=no_complaint))
        assert entries == [entry for entry, _ in host.seen]
        times = [entry.ts_ns for entry in entries]
        assert times == sorted(times), "time never runs back, whatever the clock does"
        replayed, records = stepped(entries)
        assert records == [caused for _, caused in host.seen]
        assert replayed.hexdigest() == host.engine.hexdigest()
        assert replayed.save() == host.engine.save()
        ledger = SqliteLedger(folder / "ledger.sqlite", engine="test")
        assert list(ledger.rows()) == rows_of(entries, records)
        journal = FileJournal(folder / "journal")
        reports: list[str] = []
        recovered = recover(app.build, journal, ledger, FileCheckpoints(folder / "checkpoints"), reports.append)
        ledger.close()
        journal.close()
        assert (recovered.hexdigest(), recovered.save()) == (host.engine.hexdigest(), host.engine.save())


# A checkpoint and the tail are the whole


def spoilt(folder: Path) -> Path:
    return write_capture(folder, spoil(market_lines(1_500, names=NAMES), every=60))


def thinned(data: Path, folder: Path) -> Path:
    """The beginning of a real recording without some of its lines, so that the book is lost; it has but one snapshot."""
    path = head(data / "captures" / CAPTURE, 3_000, folder)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for i, line in enumerate(lines) if i % 1_301 != 1_300))
    return path


SOURCES: dict[str, Callable[[Path, Path], Path]] = {
    "recorded": lambda data, folder: head(data / "captures" / CAPTURE, 3_000, folder),
    "recorded inverse": lambda data, folder: head(data / "captures" / "binance-coinm_ETHUSD_PERP_20240808T2354.raw.gz", 2_000, folder),
    "recorded with holes": thinned,
    "two spoilt symbols": lambda data, folder: spoilt(folder),
}


@pytest.fixture(scope="module")
def recordings(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[AnyInput]]:
    return {name: recorded(make(data, tmp_path_factory.mktemp("source"))) for name, make in SOURCES.items()}


@pytest.mark.parametrize("source", SOURCES)
def test_a_state_loaded_anywhere_and_the_tail_equal_everything_from_the_first_input(
    recordings: dict[str, list[AnyInput]], source: str
) -> None:
    entries = recordings[source]

    @settings(max_examples=6, phases=UNSHRUNK)
    @given(st.lists(st.integers(0, len(entries)), min_size=1, max_size=3, unique=True).map(sorted))
    @example([1, 2, 3])
    def check(cuts: list[int]) -> None:
        engine, records = Engine([], app.BUILT_IN), []
        for start, end in zip([0, *cuts], [*cuts, len(entries)], strict=True):
            state = engine.save() if start else None
            engine = app.build()
            if state is not None:
                engine.load(state)
                assert engine.save() == state, "what was loaded is what is saved"
            records += [engine.step(entry) for entry in entries[start:end]]
        assert engine.hexdigest() == whole.hexdigest()
        assert records == caused
        assert engine.save() == whole.save()

    whole, caused = stepped(entries)
    check()


def test_a_level_that_left_the_book_has_no_say_before_or_after_a_restart() -> None:
    """Sides grow and shrink in place; what lies beyond their ends is not state."""

    def change(update: int, bids: bytes) -> bytes:
        return b'{"e":"depthUpdate","E":0,"s":"BTCUSDT","U":%d,"u":%d,"pu":%d,"b":%b,"a":[]}' % (update, update, update - 1, bids)

    frames = [
        b'{"lastUpdateId":1,"symbol":"BTCUSDT","bids":[["10.0","1.000"],["10.1","4000000000000.000"]],"asks":[["11.0","1.000"]]}',
        change(2, b'[["10.1","0"]]'),
        change(3, b'[["9.9","1.0000001"]]'),
    ]
    entries: list[AnyInput] = [Configure(1, START_NS, CoreSettings())]
    entries += [Frame(seq, START_NS, VENUE, "BTCUSDT", payload) for seq, payload in enumerate(frames, start=2)]
    whole, records = stepped(entries)
    first, _ = stepped(entries[:3])
    resumed = app.build()
    resumed.load(first.save())
    assert resumed.step(entries[3]) == records[3]
    assert resumed.hexdigest() == whole.hexdigest()
    assert whole.microstructure.health(BTC).state == "LIVE"


@pytest.fixture(scope="module")
def played(recordings: dict[str, list[AnyInput]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of engines that played a recording, with three checkpoints on the way."""
    folders = {}
    for source, entries in recordings.items():
        folder = folders[source] = tmp_path_factory.mktemp("played")

        async def play(folder: Path = folder, entries: list[AnyInput] = entries) -> None:
            async with Live(folder, checkpoint_inputs=len(entries) // 4 - 1) as host:
                await host.play(entries)
                # Inputs are durable before the checkpoint at the end is written and the oldest one dropped.
                await until(lambda: len(seqs := host.checkpoints.seqs()) == 3 and seqs[-1] == host.engine.seq)

        asyncio.run(play())
    return folders


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_recovery_from_any_checkpoint_equals_a_replay_from_the_first_input(
    recordings: dict[str, list[AnyInput]], played: dict[str, Path], tmp_path: Path, source: str, lost: int
) -> None:
    folder = shutil.copytree(played[source], tmp_path / "copy")
    for path in sorted((folder / "checkpoints").iterdir(), reverse=True)[:lost]:
        path.unlink()
    whole, records = stepped(recordings[source])
    journal, ledger = FileJournal(folder / "journal"), SqliteLedger(folder / "ledger.sqlite", engine="test")
    reports: list[str] = []
    engine = recover(app.build, journal, ledger, FileCheckpoints(folder / "checkpoints"), reports.append)
    rows = list(ledger.rows())
    ledger.close()
    journal.close()
    assert (engine.hexdigest(), engine.seq) == (whole.hexdigest(), whole.seq)
    assert engine.save() == whole.save()
    assert rows == rows_of(recordings[source], records)


# A replay is a replay


def digest_of(path: Path) -> str:
    complaints: list[str] = []
    return app.replay(Settings(), [path], complain=complaints.append).digest


def test_two_replays_are_equal(data: Path, tmp_path: Path) -> None:
    path = head(data / "captures" / CAPTURE, 3_000, tmp_path)
    one, other = (app.replay(Settings(), [path], complain=no_complaint) for _ in range(2))
    assert msgspec.structs.replace(one, seconds=0.0) == msgspec.structs.replace(other, seconds=0.0)
    assert len(one.digest) == 32 and one.frames == 3_000


def replayed_elsewhere(path: Path, **environ: str) -> subprocess.Popen[bytes]:
    source = str(Path(alphapack.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "alphapack", "replay", str(path), "--json"],
        env={**os.environ, "PYTHONPATH": source, **environ},
        cwd=path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def document(process: subprocess.Popen[bytes]) -> dict[str, object]:
    try:
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0
    summary: dict[str, object] = json.loads(out)
    return {key: value for key, value in summary.items() if key not in ("seconds", "events_per_s")}


def test_hash_seed_time_zone_locale_and_threads_change_nothing(data: Path, tmp_path: Path) -> None:
    path = head(data / "captures" / CAPTURE, 3_000, tmp_path)
    processes = [
        replayed_elsewhere(
            path, PYTHONHASHSEED="1", TZ="Pacific/Chatham", LC_ALL="tr_TR.UTF-8", NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1"
        ),
        replayed_elsewhere(path, PYTHONHASHSEED="4242", TZ="America/St_Johns", LC_ALL="C", NUMBA_NUM_THREADS="2", OMP_NUM_THREADS="2"),
    ]
    one, other = [document(process) for process in processes]
    assert one == other
    assert one["digest"] == digest_of(path)


def test_compiled_and_interpreted_kernels_are_equal(data: Path, tmp_path: Path) -> None:
    path = head(data / "captures" / CAPTURE, 700, tmp_path)
    assert document(replayed_elsewhere(path, NUMBA_DISABLE_JIT="1"))["digest"] == digest_of(path)


def test_the_journal_of_a_served_recording_replays_to_the_digest_of_the_recording(tmp_path: Path) -> None:
    path = spoilt(tmp_path)

    async def play() -> str:
        async with Live(tmp_path / "state") as host:
            assert await host.play(recorded(path)) != []
            return host.engine.hexdigest()

    assert asyncio.run(play()) == digest_of(path) == digest_of(tmp_path / "state" / "journal")


def test_reading_changes_nothing(data: Path, tmp_path: Path) -> None:
    entries = recorded(head(data / "captures" / CAPTURE, 1_200, tmp_path))
    quiet, records = stepped(entries)

    async def read() -> Live:
        async with Live(tmp_path / "state") as host:

            def interrupted() -> Iterator[AnyInput]:
                for i, entry in enumerate(entries):
                    yield entry
                    if i % 5 == 0:
                        read_everything(host)

            await host.play(interrupted())  # type: ignore[arg-type]
            return host

    asked = asyncio.run(read())
    assert asked.engine.hexdigest() == quiet.hexdigest()
    assert [caused for _, caused in asked.seen] == records
    assert asked.engine.save() == quiet.save()
