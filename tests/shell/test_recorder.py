"""Recording: what came is written down as it came, whatever becomes of the source, and a replay of it equals it."""

import asyncio
import errno
import gzip
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from alphapack import app
from alphapack.config import Settings
from alphapack.domain.inputs import CoreSettings, Frame, Heartbeat, SessionStart
from alphapack.domain.simulation import SimulatorSettings
from alphapack.shell import journal as journal_module
from alphapack.shell import recorder
from alphapack.shell.captures import Capture
from alphapack.shell.convert import ConversionError
from alphapack.shell.journal import read_journal, write_all
from alphapack.shell.recorder import CaptureSink, JournalSink, sink_of
from alphapack.shell.runner import Runner
from rig import BTC, MS, PATIENCE_S, START_NS, VENUE, FakeClock, S, market_lines, stepped

NAME = f"{VENUE}_BTCUSDT_20240101.raw"
SYMBOLS = ((VENUE, "BTCUSDT"),)
LINES = market_lines(300)


class Market:
    """A source that pushes lines at their own times, by a clock of its own, and then ends, waits or fails."""

    def __init__(self, *, ends: bool = True, error: Exception | None = None) -> None:
        self.clock = FakeClock()
        self.ends, self.error = ends, error
        self.runner: Runner | None = None

    async def follow(self, runner: Runner) -> None:
        self.runner = runner
        runner.begin(CoreSettings(), "test", self.clock.at_ns)
        runner.ready()
        for self.clock.at_ns, payload in LINES:
            runner.receive(VENUE, "", payload)
            await asyncio.sleep(0)
        while runner.intake.frames:
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if not self.ends:
            await asyncio.Event().wait()

    def source(self) -> app.Source:
        return app.Source("test", "test", VENUE, self.follow, self.clock)


def record(
    out: Path, market: Market, *, seconds: float | None = None, stop_after: int | None = None, tell: Callable[[float], None] | None = None
) -> Runner:
    """Record a market as the composition root does, without its signals; stops when ``stop_after`` times were told."""
    told: list[float] = []

    async def within() -> Runner:
        stopping = asyncio.Event()

        def note(done: float) -> None:
            told.append(done)
            if tell is not None:
                tell(done)
            if stop_after is not None and len(told) >= stop_after:
                stopping.set()

        runner = Runner(app.build(), source="test", clock=market.clock, config=dict)
        try:
            await asyncio.wait_for(recorder.record(runner, market.follow, sink, seconds, stopping, note), PATIENCE_S)
        finally:
            assert runner.tap is None, "the runner is done with the sink"
        return runner

    with ExitStack() as stack:
        sink = sink_of(out, SYMBOLS, stack)
        runner = asyncio.run(within())
    assert told == sorted(told) and all(done >= 0 for done in told)
    return runner


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "TELL_S", 0.01)
    monkeypatch.setattr(recorder, "FLUSH_S", 0.0)


# What is written


@pytest.mark.parametrize("suffix", [".raw", ".raw.gz", ".raw.zst"])
def test_a_capture_file_holds_the_frames_with_the_times_at_which_they_came(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / NAME.replace(".raw", suffix)
    engine = record(path, Market()).engine
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    replayed = app.replay(Settings(), [path], complain=pytest.fail)
    assert (replayed.frames, replayed.gaps, replayed.complaints) == (len(LINES), 0, 0)
    assert replayed.kinds == {BTC: engine.microstructure.kinds(BTC)}
    if suffix != ".raw.zst":
        content = gzip.decompress(path.read_bytes()) if suffix == ".raw.gz" else path.read_bytes()
        assert content == b"".join(b"%d %b\n" % line for line in LINES)


def test_a_journal_holds_every_input_and_replays_to_the_same_digest(tmp_path: Path) -> None:
    engine = record(tmp_path / "recording", Market()).engine
    entries = list(read_journal(tmp_path / "recording", report=pytest.fail))
    assert [entry.seq for entry in entries] == list(range(1, engine.seq + 1))
    assert isinstance(entries[1], SessionStart) and sum(isinstance(entry, Frame) for entry in entries) == len(LINES)
    assert stepped(entries)[0].hexdigest() == engine.hexdigest()
    summary = app.replay(Settings(), [tmp_path / "recording"], complain=pytest.fail)
    assert (summary.digest, summary.inputs) == (engine.hexdigest(), engine.seq)


def test_silence_is_recorded_too(tmp_path: Path) -> None:
    market = Market(ends=False)

    def wait_a_while(done: float) -> None:
        market.clock.at_ns += 30 * MS

    engine = record(tmp_path / "recording", market, stop_after=60, tell=wait_a_while).engine
    beats = [entry for entry in read_journal(tmp_path / "recording") if isinstance(entry, Heartbeat)]
    assert len(beats) >= 2 and engine.now_ns > LINES[-1][0]
    record(tmp_path / NAME, Market())
    assert (tmp_path / NAME).read_bytes().count(b"\n") == len(LINES), "a capture is of the venue's messages alone"


def test_a_journal_is_written_in_portions_that_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "JOURNAL_INPUTS", 16)
    with ExitStack() as stack:
        sink = sink_of(tmp_path / "recording", SYMBOLS, stack)
        assert isinstance(sink, JournalSink)
        for seq in range(1, 40):
            sink.put(Heartbeat(seq, START_NS))
            assert len(sink._entries) < 16
        assert [entry.seq for entry in read_journal(tmp_path / "recording")] == list(range(1, 33)), "what was taken in is on disk"
        sink.flush()
    assert len(list(read_journal(tmp_path / "recording"))) == 39


# How it ends


def test_it_ends_when_it_is_told_to(tmp_path: Path) -> None:
    assert record(tmp_path / NAME, Market(ends=False), stop_after=5).engine.seq > 0


def test_it_ends_after_its_seconds(tmp_path: Path) -> None:
    told: list[float] = []
    record(tmp_path / NAME, Market(ends=False), seconds=0.2, tell=told.append)
    assert max(told) >= 0.19


@pytest.mark.parametrize("out", [NAME, "recording"])
def test_a_source_that_fails_leaves_what_came(tmp_path: Path, out: str) -> None:
    market = Market(error=ConnectionError("the venue went away"))
    told: list[float] = []
    with pytest.raises(ConnectionError, match="the venue went away"):
        app.record(Settings(), market.source(), SYMBOLS, tmp_path / out, None, told.append)
    assert told != [] and market.runner is not None
    replayed = app.replay(Settings(), [tmp_path / out], complain=pytest.fail)
    assert replayed.frames == len(LINES) and replayed.kinds == {BTC: market.runner.engine.microstructure.kinds(BTC)}
    if out == "recording":
        assert replayed.digest == market.runner.engine.hexdigest()


@pytest.mark.parametrize("suffix", [".raw", ".raw.gz", ".raw.zst"])
def test_what_was_flushed_is_readable_while_the_recording_goes_on(tmp_path: Path, suffix: str) -> None:
    """A process that is killed leaves the file as it is at that moment."""
    path, copy = tmp_path / NAME.replace(".raw", suffix), tmp_path / "copies" / NAME.replace(".raw", suffix)
    copy.parent.mkdir()
    sizes: list[int] = []

    def look(done: float) -> None:
        if path.stat().st_size not in (0, *sizes):
            sizes.append(path.stat().st_size)
            copy.write_bytes(path.read_bytes())
            lines = list(Capture([copy], report=lambda one: pytest.fail(str(one))))
            assert [(line.receive_ns, line.payload) for line in lines] == LINES[: len(lines)] != []
        assert path.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o022))

    record(path, Market(ends=False), stop_after=5, tell=look)
    assert sizes != []


@pytest.mark.parametrize("suffix", [".raw", ".raw.gz", ".raw.zst"])
def test_a_portion_that_was_torn_costs_itself_alone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / NAME.replace(".raw", suffix)
    ends = []
    with ExitStack() as stack:
        sink = sink_of(path, SYMBOLS, stack)
        for number, (ts_ns, payload) in enumerate(LINES, 1):
            sink.put(Frame(number, ts_ns, VENUE, "", payload))
            if number % 100 == 0:
                sink.flush()
                ends.append(path.stat().st_size)
    for size in (ends[1] + 3, (ends[1] + ends[2]) // 2, ends[2] - 1):
        os.truncate(path, size)
        complaints: list[str] = []
        summary = app.replay(Settings(), [path], complain=complaints.append)
        assert 200 <= summary.frames < 300 and (summary.gaps, summary.complaints) == (0, len(complaints))
        assert len(complaints) in (1, 2) or (suffix == ".raw" and size == ends[2] - 1), "a last line may lack its newline alone"
        path.write_bytes(path.read_bytes() + bytes(ends[2] - size))  # Longer again, for the next cut.


@pytest.mark.parametrize("suffix", [".raw", ".raw.gz", ".raw.zst"])
def test_a_full_disk_ends_the_recording_and_leaves_what_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / NAME.replace(".raw", suffix)
    sizes: list[int] = []

    def fill_up(fd: int, content: bytes) -> None:
        if len(sizes) == 2:
            write_all(fd, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(fd, content)
        sizes.append(path.stat().st_size)

    monkeypatch.setattr(recorder, "write_all", fill_up)
    monkeypatch.setattr(recorder, "CAPTURE_BYTES", 1_000)
    with pytest.raises(OSError, match=f"No space left on device; what was recorded before is kept in {path}") as error:
        app.record(Settings(), Market().source(), SYMBOLS, path, None, lambda done: None)
    assert error.value.errno == errno.ENOSPC
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.stat().st_size == sizes[1]
    replayed = app.replay(Settings(), [path], complain=pytest.fail)
    assert 0 < replayed.frames < len(LINES) and replayed.complaints == 0


@pytest.mark.parametrize("out", [NAME, "recording"])
def test_where_nothing_came_nothing_is_left(tmp_path: Path, out: str) -> None:
    class Refused(Market):
        async def follow(self, runner: Runner) -> None:
            raise ConnectionError("no such symbol")

    with pytest.raises(ConnectionError):
        app.record(Settings(), Refused().source(), SYMBOLS, tmp_path / out, None, lambda done: None)
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_is_gone_costs_nothing_of_what_came(tmp_path: Path) -> None:
    def stumble(done: float) -> None:
        raise ZeroDivisionError("the terminal is gone")

    with pytest.raises(ZeroDivisionError):
        record(tmp_path / NAME, Market(ends=False), tell=stumble)
    lines = list(Capture([tmp_path / NAME], report=lambda one: pytest.fail(str(one))))
    assert [(line.receive_ns, line.payload) for line in lines] == LINES[: len(lines)] != []


def test_lines_are_held_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "CAPTURE_BYTES", 1_000)
    with ExitStack() as stack:
        sink = sink_of(tmp_path / NAME, SYMBOLS, stack)
        written = 0
        for number, (ts_ns, payload) in enumerate(LINES, 1):
            sink.put(Frame(number, ts_ns, VENUE, "", payload))
            written += len(b"%d %b\n" % (ts_ns, payload))
            assert written - (tmp_path / NAME).stat().st_size < 1_000


def test_a_disk_that_refuses_ends_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module, "sync_file", refuse)
    with pytest.raises(OSError, match=f"No space left on device; nothing was recorded in {tmp_path / 'recording'}"):
        record(tmp_path / "recording", Market(ends=False))


# What fits where


@pytest.mark.parametrize(
    ("out", "symbols", "reason"),
    [
        (
            "sim_BTCUSDT.raw.gz",
            SYMBOLS,
            "named by its one venue and symbol, found 'sim_BTCUSDT.raw.gz' for 1: name it binance-usdm_BTCUSDT",
        ),
        (f"{VENUE}_ETHUSDT.raw", SYMBOLS, "named by its one venue and symbol"),
        (NAME, (*SYMBOLS, (VENUE, "ETHUSDT")), "for 2: a folder \\(a journal\\) holds several symbols"),
        ("recording.parquet", SYMBOLS, "expected a folder, or a file named"),
        ("recording.gz", SYMBOLS, "expected a folder, or a file named"),
    ],
)
def test_a_name_that_cannot_hold_the_symbols_is_refused(
    tmp_path: Path, out: str, symbols: tuple[tuple[str, str], ...], reason: str
) -> None:
    with ExitStack() as stack, pytest.raises(ConversionError, match=reason):
        sink_of(tmp_path / out, symbols, stack)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    record(tmp_path / "recording", Market())
    before = {path.name: path.read_bytes() for path in (tmp_path / "recording").iterdir()}
    (tmp_path / "file").write_bytes(b"mine")
    for out in ("recording", "file"):
        with ExitStack() as stack, pytest.raises(ConversionError, match="expected a new folder to record into"):
            sink_of(tmp_path / out, SYMBOLS, stack)
    assert {path.name: path.read_bytes() for path in (tmp_path / "recording").iterdir()} == before
    assert (tmp_path / "file").read_bytes() == b"mine"
    with ExitStack() as stack, pytest.raises(ConversionError, match=f"expected a new file to record into, found .*{NAME} there already"):
        (tmp_path / NAME).write_bytes(b"mine")
        sink_of(tmp_path / NAME, SYMBOLS, stack)
    assert (tmp_path / NAME).read_bytes() == b"mine"
    with ExitStack() as stack, pytest.raises(ConversionError, match="expected a folder to record into, found none"):
        sink_of(tmp_path / "no" / NAME, SYMBOLS, stack)
    (tmp_path / "empty").mkdir()
    with ExitStack() as stack:
        assert isinstance(sink_of(tmp_path / "empty", SYMBOLS, stack), JournalSink)


@pytest.mark.parametrize("name", [NAME, f"{VENUE}_BTCUSDT.raw", f"{VENUE}_BTCUSDT_20240101T0000.raw.zst"])
def test_a_file_named_by_its_symbol_is_a_capture(tmp_path: Path, name: str) -> None:
    with ExitStack() as stack:
        sink = sink_of(tmp_path / name, SYMBOLS, stack)
        assert isinstance(sink, CaptureSink) and (sink.venue, sink.symbol) == SYMBOLS[0]


# The simulator, recorded


def test_the_simulator_recorded_at_once_is_the_same_to_the_byte(tmp_path: Path) -> None:
    settings = Settings(simulator=SimulatorSettings(symbols=("BTCUSDT",)))
    digests = []
    for name in ("one", "two"):
        source = app.simulated_at_once(settings, START_NS, 45.0)
        engine = app.record(settings, source, (("sim", "BTCUSDT"),), tmp_path / name, None, lambda done: None)
        assert START_NS + 44 * S < engine.now_ns <= START_NS + 45 * S
        digests.append(engine.hexdigest())
        assert app.replay(Settings(), [tmp_path / name], complain=pytest.fail).digest == engine.hexdigest()
    assert digests[0] == digests[1]
    files = []
    for path in (tmp_path / "sim_BTCUSDT_20240101.raw", tmp_path / "sim_BTCUSDT_20240102.raw"):
        source = app.simulated_at_once(settings, START_NS, 45.0)
        app.record(settings, source, (("sim", "BTCUSDT"),), path, None, lambda done: None)
        files.append(path.read_bytes())
    assert files[0] == files[1] != b""
    replayed = app.replay(Settings(), [tmp_path / "sim_BTCUSDT_20240101.raw"], complain=pytest.fail)
    assert (replayed.gaps, replayed.crossed, replayed.symbols["sim:BTCUSDT"].state) == (0, 0, "LIVE")
