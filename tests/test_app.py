"""The program as it is run: served, stopped, told what is wrong."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

import alphapack
from alphapack import app, cli, config
from alphapack.config import Settings
from alphapack.domain.feeds import UnknownVenue
from alphapack.domain.inputs import CoreSettings
from alphapack.domain.simulation import SimulationRefused, SimulatorSettings
from alphapack.shell.candle_files import CandleFileError
from alphapack.shell.captures import COMPLAINTS_A_FILE, CaptureError
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.journal import FileJournal, read_journal
from alphapack.shell.ledger import SqliteLedger
from rig import BTC, MS, PATIENCE_S, START_NS, Line, Live, S, head, market_lines, script, spoil, stepped, write_capture

kill = script("kill")
CAPTURE = "binance-usdm_BTCUSDT_20240808T2354.raw.gz"
STOP_S = 3.0
"""Promised of a stop, however it is asked for."""


def ready(health: dict[str, Any]) -> bool:
    return bool(health["status"] == "ready")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute with much for the ledger."""
    return write_capture(tmp_path_factory.mktemp("capture"), spoil(market_lines(3_000, names=("BTCUSDT", "ETHUSDT")), every=60))


@pytest.fixture(scope="module")
def running(capture: Path) -> Iterator[Any]:
    """A server that is in use, at its recording's own pace."""
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "state"
        data.mkdir()
        with kill.Served([capture], data, "1") as served:
            served.wait(ready)
            served.data = data
            yield served


def command(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(alphapack.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "alphapack", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": source, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Served


def test_port_0_takes_a_free_one_and_answers_from_there(running: Any) -> None:
    status, headers, health = running.get()
    assert status == 200 and health["status"] == "ready"
    assert health["source"].endswith(".raw") and health["ledger"]["ok"] is True
    assert 0 < int(headers["x-alphapack-durable-seq"]) <= int(headers["x-alphapack-seq"])
    assert set(health["symbols"]) == {"BTCUSDT", "ETHUSDT"}
    for path in ("/api/microstructure/btcusdt", "/api/book/binance-usdm:BTCUSDT?depth=3", "/api/history/microstructure/BTCUSDT"):
        assert running.get(path)[0] in (200, 503), path
    assert running.get("/api/microstructure/SOLUSDT")[0] == 404


def test_a_second_process_on_the_same_state_is_refused_and_told_who_holds_it(running: Any, capture: Path) -> None:
    ran = command("serve", "--capture", capture, "--data-dir", running.data, "--port", "0")
    assert ran.returncode == 2
    assert f"process {running.process.pid}" in ran.stderr and "--data-dir" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert running.get()[0] == 200


def test_a_taken_port_is_named_with_its_holder_and_the_way_out(running: Any, capture: Path, tmp_path: Path) -> None:
    port = running._port
    ran = command("serve", "--capture", capture, "--data-dir", tmp_path, "--port", str(port))
    assert ran.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in ran.stderr and f"--port {port + 1}" in ran.stderr
    if sys.platform == "linux":
        assert f"process {running.process.pid}" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


# Stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_order(capture: Path, tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "state"
    data.mkdir()
    with kill.Served([capture], data, "10") as served:
        served.wait(lambda health: ready(health) and health["ledger"]["rows"] > 3)
        assert served.stop(number, STOP_S) == 0
        stopped = next(line for line in served.lines if line["event"] == "stopped")
    folder = next(folder for folder in data.iterdir() if folder.is_dir())
    entries = list(read_journal(folder / "journal", report=lambda text: pytest.fail(text)))
    assert entries[-1].seq == stopped["seq"] == stopped["durable_seq"], "the journal holds everything"
    newest = FileCheckpoints(folder / "checkpoints").newest()
    assert newest is not None and newest[0] == stopped["seq"], "a checkpoint was written"
    engine = app.build()
    engine.load(newest[1])
    assert engine.hexdigest() == stopped["digest"]
    ledger = SqliteLedger(folder / "ledger.sqlite", engine=folder.name)
    ledger.verify()
    rows = list(ledger.rows())
    ledger.close()
    assert rows == [row for row in kill.Truth.of([capture]).rows if row.seq <= stopped["seq"]]


def test_a_signal_while_it_starts_stops_it_too(capture: Path, tmp_path: Path) -> None:
    data = tmp_path / "state"
    data.mkdir()
    with kill.Served([capture], data, "1") as served:
        while not any(line["event"] == "serving" for line in served.lines):
            assert served.process.poll() is None
        code = served.stop(signal.SIGTERM, STOP_S)
    assert code in (0, -signal.SIGTERM), "in order, or at once where nothing was begun"


SLOW_START = """
import os, signal, sys, time
from pathlib import Path
from alphapack import app, config

def warm():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)

app.book.warm = warm
settings = config.read(None, os.environ, {"storage.data_dir": sys.argv[2], "api.port": 0}).settings
sys.exit(app.serve(settings, app.recorded(settings, [Path(sys.argv[1])], 1.0, None)))
"""


def test_a_signal_does_not_wait_for_kernels_to_be_compiled(capture: Path, tmp_path: Path) -> None:
    source = str(Path(alphapack.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_START, str(capture), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.wait(STOP_S + 3.0) == 0, "with what the imports take"
    finally:
        process.kill()
        process.wait()


# Where state goes


def test_without_a_home_that_can_be_written_it_serves_from_a_temporary_folder_and_says_so(capture: Path, tmp_path: Path) -> None:
    home = {name: "/dev/null/home" for name in ("HOME", "XDG_DATA_HOME")}
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with kill.Served([capture], tmp_path / "state", "1", named=False, TMPDIR=str(temporary), **home) as served:
        served.wait(ready)
        told = [line for line in served.lines if line["event"] == "storage"]
        assert "cannot be written" in told[0]["detail"] and "--data-dir" in told[0]["detail"]
        where = next(Path(line["data"]) for line in served.lines if line["event"] == "serving")
        assert where.is_relative_to(temporary) and (where / "journal").is_dir()
        assert served.stop() == 0


def test_a_data_folder_that_cannot_be_is_refused(capture: Path) -> None:
    ran = command("serve", "--capture", capture, "--port", "0", "--data-dir", "/dev/null/state")
    assert ran.returncode == 2 and "expected a writable data folder" in ran.stderr and "Traceback" not in ran.stderr


@pytest.fixture
def stopped(capture: Path, tmp_path: Path) -> Path:
    """State whose ledger is whole, and whose journal lost all but its first inputs."""
    data, recording = tmp_path / "state", app.record_of([capture], Settings(), None, lambda text: None)
    assert recording.capture is not None
    folder = data / f"capture-{recording.capture.fingerprint()}"
    journal, ledger = FileJournal(folder / "journal"), SqliteLedger(folder / "ledger.sqlite", engine=folder.name)
    journal.append(list(islice(recording, 100)))
    ledger.append(kill.Truth.of([capture]).rows)
    ledger.close()
    journal.close()
    return data


def test_state_that_cannot_be_taken_up_is_told_in_a_line(stopped: Path, capture: Path) -> None:
    ran = command("serve", "--capture", capture, "--port", "0", "--data-dir", stopped)
    assert ran.returncode == 1
    assert "inputs that were acknowledged are missing" in ran.stderr and "alphapack reset" in ran.stderr
    assert "Traceback" not in ran.stderr


# Recordings with something wrong in them


LINES = market_lines(300)


def replayed(path: Path) -> tuple[app.ReplaySummary, list[str]]:
    complaints: list[str] = []
    return app.replay(Settings(), [path], complain=complaints.append), complaints


def spot(lines: list[Line]) -> list[Line]:
    """Differences as the spot market sends them, without the id of the one before."""
    return [(ts_ns, payload.replace(b'"pu":', b'"was":')) for ts_ns, payload in lines]


def with_line(lines: list[Line], at: int, content: bytes) -> list[Line]:
    return [*lines[:at], (lines[at][0], content), *lines[at:]]


BAD: dict[str, tuple[Callable[[], list[Line]], int, str]] = {
    # How the lines are made, number of the bad line, what is said of it.
    "no JSON": (lambda: with_line(LINES, 99, b"hello"), 100, "expected a binance-usdm message, found b'hello'"),
    "cut JSON": (lambda: with_line(LINES, 99, LINES[99][1][:30]), 100, "expected a binance-usdm message"),
    "another message": (lambda: with_line(LINES, 99, b'{"channel":"book"}'), 100, "expected a binance-usdm market message"),
    "no number": (lambda: with_line(LINES, 99, LINES[99][1].replace(b'"E":', b'"E":-')), 100, "expected a time in milli- or microseconds"),
    "nothing": (lambda: with_line(LINES, 99, b""), 100, "expected '<receive_time_ns> <JSON>'"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_is_named_by_file_line_and_reason_and_the_rest_counts(tmp_path: Path, what: str) -> None:
    make, number, reason = BAD[what]
    good, _ = replayed(write_capture(tmp_path, LINES))
    path = write_capture(tmp_path, make(), "binance-usdm_BTCUSDT_20240102.raw")
    summary, complaints = replayed(path)
    assert len(complaints) == summary.complaints == 1
    assert complaints[0].startswith(f"{path}:{number}: ") and reason in complaints[0], complaints
    assert summary.kinds == good.kinds
    assert summary.symbols[BTC].state == good.symbols[BTC].state == "LIVE"
    assert (summary.gaps, summary.crossed) == (0, 0)


def test_a_line_without_a_time_is_named(tmp_path: Path) -> None:
    path = write_capture(tmp_path, LINES)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:7], b"yesterday {}\n", *lines[7:]]))
    summary, complaints = replayed(path)
    assert complaints == [f"{path}:8: expected '<receive_time_ns> <JSON>', found 'yesterday {{}}': left out"]
    assert summary.frames == 300


def test_lines_out_of_order_are_named_and_no_time_runs_back(tmp_path: Path) -> None:
    swapped = [*LINES[:150], (LINES[150][0] - 5 * S, LINES[150][1]), *LINES[151:]]
    path = write_capture(tmp_path, swapped)
    summary, complaints = replayed(path)
    assert complaints == [
        f"{path}:151: expected times that do not run back, found a step of {5 * S - 20 * MS} ns back: set to the line before"
    ]
    assert summary.frames == 300 and summary.gaps == 0, "the order of the lines is the order of the messages"


def test_lines_that_changed_places_are_named_and_the_book_is_lost_until_a_snapshot(tmp_path: Path) -> None:
    depth = [i for i, (_, payload) in enumerate(LINES) if b"depthUpdate" in payload]
    one, other = depth[40], depth[41]
    lines = LINES[:]
    lines[one], lines[other] = lines[other], lines[one]
    path = write_capture(tmp_path, lines)
    summary, complaints = replayed(path)
    assert [complaint.partition(": ")[0] for complaint in complaints] == [f"{path}:{place + 1}" for place in range(one + 1, other + 1)]
    assert summary.gaps == 1 and summary.symbols[BTC].resyncs == 1 and summary.frames == 300


def test_the_content_of_another_venue_is_named_line_by_line_up_to_a_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_capture(tmp_path, spot(LINES))
    summary, complaints = replayed(path)
    depth = [i for i, (_, payload) in enumerate(LINES, start=1) if b"depthUpdate" in payload]
    assert summary.complaints == len(depth) > COMPLAINTS_A_FILE
    *named, last = complaints
    assert [complaint.partition(": ")[0] for complaint in named] == [f"{path}:{number}" for number in depth[:COMPLAINTS_A_FILE]]
    assert last == f"and {len(depth) - COMPLAINTS_A_FILE} more lines that cannot be used"
    assert "expected pu in a binance-usdm depthUpdate, found none" in complaints[0]
    assert summary.kinds[BTC]["trade"] > 0, "what can be read is"
    assert cli.main(["replay", str(path)]) == 0
    shown = capsys.readouterr()
    assert f"{path}:{depth[0]}: expected pu" in shown.err and f"complaints {len(depth)}" in shown.out


def test_a_recording_of_which_nothing_can_be_used_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_capture(tmp_path, [(ts_ns, b'{"topic":"orderbook"}') for ts_ns, _ in LINES])
    assert cli.main(["replay", str(path)]) == 1
    assert "none of 300 frames could be used; is the venue right?" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.02])
def test_a_cut_gzip_is_named_and_what_came_before_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: float) -> None:
    path = write_capture(tmp_path, LINES, "binance-usdm_BTCUSDT_20240103.raw.gz")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    summary, complaints = replayed(path)
    assert any(complaint.startswith(f"{path}: expected a whole gz stream, found its end missing") for complaint in complaints), complaints
    assert 0 <= summary.frames < 300
    if kept > 0.1:
        whole, _ = replayed(write_capture(tmp_path, LINES[: summary.frames]))
        assert summary.kinds == whole.kinds and summary.symbols[BTC].state == "LIVE"
    cli.main(["replay", str(path)])
    assert f"{path}: expected a whole gz stream" in capsys.readouterr().err


def test_a_damaged_gzip_is_named(tmp_path: Path) -> None:
    path = write_capture(tmp_path, market_lines(3_000), "binance-usdm_BTCUSDT_20240103.raw.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    path.write_bytes(content)
    summary, complaints = replayed(path)
    assert any(complaint.startswith(f"{path}: expected a whole gz stream") for complaint in complaints), complaints
    assert summary.frames < 3_000


def test_an_empty_recording_is_told(tmp_path: Path) -> None:
    path = tmp_path / "binance-usdm_BTCUSDT_20240101.raw"
    path.write_bytes(b"")
    summary, complaints = replayed(path)
    assert (summary.inputs, summary.frames, summary.symbols, len(complaints)) == (0, 0, {}, 1)
    assert complaints[0].startswith(f"{path}: ")


def test_a_real_recording_with_holes_is_told_of_by_gaps(data: Path, tmp_path: Path) -> None:
    path = head(data / "captures" / CAPTURE, 3_000, tmp_path)
    whole, complaints = replayed(path)
    assert (whole.frames, whole.gaps, whole.crossed, complaints) == (3_000, 0, 0, [])
    lines = path.read_bytes().splitlines(keepends=True)
    depth = [i for i, line in enumerate(lines) if b"depthUpdate" in line]
    path.write_bytes(b"".join(line for i, line in enumerate(lines) if i != depth[-10]))
    holed, complaints = replayed(path)
    assert (holed.frames, holed.gaps, complaints) == (2_999, 1, [])
    assert holed.symbols[BTC].state == "SYNCING" and whole.symbols[BTC].state == "LIVE"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("binance-usdn_BTCUSDT_20240101.raw", "unknown venue 'binance-usdn'.*the nearest is 'binance-usdm'"),
        ("recording.raw", "expected a file name that begins with its venue"),
    ],
)
def test_a_recording_whose_venue_is_not_known_is_refused(tmp_path: Path, name: str, expected: str) -> None:
    path = write_capture(tmp_path, LINES, name)
    with pytest.raises(CaptureError, match=expected):
        replayed(path)


def test_the_command_prints_what_the_function_returns(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary, complaints = replayed(capture)
    assert cli.main(["replay", str(capture), "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (document["digest"], document["inputs"], document["frames"]) == (summary.digest, summary.inputs, summary.frames)
    assert document["complaints"] == summary.complaints > 0
    assert shown.err.count("warning: ") == len(complaints)


def test_several_recordings_merge(tmp_path: Path) -> None:
    lines = market_lines(600, names=("BTCUSDT", "ETHUSDT"))
    both = write_capture(tmp_path, lines)
    parts = [
        write_capture(tmp_path, [line for line in lines if name in line[1]], f"binance-usdm_{name.decode()}_20240101.raw.gz")
        for name in (b"BTCUSDT", b"ETHUSDT")
    ]
    merged = app.replay(Settings(), parts, complain=pytest.fail)
    assert merged.kinds == replayed(both)[0].kinds
    assert {name: one.state for name, one in merged.symbols.items()} == {BTC: "LIVE", BTC.replace("BTC", "ETH"): "LIVE"}
    again = app.replay(Settings(), parts[::-1], complain=pytest.fail)
    assert again.symbols == merged.symbols


def test_a_served_journal_is_refused_with_the_way_to_look_into_it(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal")
    journal.append(list(app.record_of([write_capture(tmp_path, LINES)], Settings(), None, pytest.fail)))
    journal.close()
    with pytest.raises(CaptureError, match="found a journal: look into it with alphapack replay"):
        app.recorded(Settings(), [tmp_path / "journal"], 1.0, None)


def test_the_progress_of_a_replay_ends_at_the_whole(data: Path, tmp_path: Path) -> None:
    path = head(data / "captures" / CAPTURE, 4_500, tmp_path)
    seen: list[tuple[int, int]] = []
    app.replay(Settings(), [path], progress=lambda *done: seen.append(done), complain=pytest.fail)
    size = path.stat().st_size
    assert seen == sorted(seen) and {total for _, total in seen} == {size} and 0 < seen[0][0] <= seen[-1][0] <= size


def test_every_venue_has_one_codec() -> None:
    assert app.venues() == list(app.build().codecs) and len(set(app.venues())) == len(app.venues())


# With a past

ETH = "binance-usdm:ETHUSDT"


def minutes_of(folder: Path, name: str, *minutes: int, price: float = 60_000.0) -> str:
    """A file of candles of these minutes, counted from the one in which recordings begin."""
    begin_ms = START_NS // MS // 60_000 * 60_000
    path = folder / name
    path.write_text(
        "ts_ms,open,high,low,close,volume\n" + "".join(f"{begin_ms + 60_000 * at},{price},{price},{price},{price},1\n" for at in minutes)
    )
    return str(path)


def followed(source: app.Source, folder: Path) -> Any:
    """The engine that served a market whole, or went on with what is in the folder."""

    async def follow() -> Any:
        async with Live(folder) as host:
            await asyncio.wait_for(source.follow(host.runner), PATIENCE_S)
            await host.settle()
            return host.engine

    return asyncio.run(follow())


def test_a_recording_is_served_with_the_candles_from_before_it(tmp_path: Path) -> None:
    capture = write_capture(tmp_path, market_lines(30))
    history = minutes_of(tmp_path, "binance-spot_BTCUSDT_1m_2023.csv", *range(-5, 3))
    source = app.recorded(Settings(), [capture], float("inf"), None, [history])
    engine = followed(source, tmp_path / "state")
    begin_ms = START_NS // MS // 60_000 * 60_000
    assert ((engine.candles.rows(BTC)[:, 0] - begin_ms) // 60_000).tolist() == [-5, -4, -3, -2, -1], "its own time is left out"
    assert engine.candles.sources(BTC) == {"file": 5} and engine.candles.shift_ms(BTC) == 0
    plain = app.recorded(Settings(), [capture], float("inf"), None)
    assert source.folder != plain.folder and source.text == plain.text
    assert app.recorded(Settings(), [capture], 1.0, None, [f"BTCUSDT={history}"]).folder == source.folder
    other = minutes_of(tmp_path, "BTCUSDT_1m.csv", -3, -2)
    shifted = app.recorded(Settings(), [capture], 1.0, None, [other], True)
    assert len({source.folder, shifted.folder, app.recorded(Settings(), [capture], 1.0, None, [other]).folder}) == 3
    entries = list(read_journal(tmp_path / "state" / "journal", report=pytest.fail))
    assert stepped(entries)[0].hexdigest() == engine.hexdigest(), "the journal has it all"


def test_candles_of_another_time_are_moved_to_where_the_recording_begins_if_asked_for(tmp_path: Path) -> None:
    capture = write_capture(tmp_path, market_lines(3))
    history = minutes_of(tmp_path, "BTCUSDT_1m.csv", *range(1_000, 1_010))
    with pytest.raises(CandleFileError, match=f"expected candles of {BTC} from before the recording, found none: give --history-shift"):
        app.recorded(Settings(), [capture], 1.0, None, [history])
    engine = followed(app.recorded(Settings(), [capture], float("inf"), None, [history], True), tmp_path / "state")
    begin_ms = START_NS // MS // 60_000 * 60_000
    assert engine.candles.rows(BTC)[[0, -1], 0].tolist() == [begin_ms - 600_000, begin_ms - 60_000]
    assert engine.candles.shift_ms(BTC) == -1_010 * 60_000


@pytest.mark.parametrize("done", [0, 2, 3, 4, 20])
def test_a_recording_that_is_taken_up_again_loads_its_past_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int) -> None:
    monkeypatch.setattr("alphapack.shell.candle_files.HISTORY_ROWS_MAX", 2)
    capture = write_capture(tmp_path, market_lines(200))
    history = [minutes_of(tmp_path, "BTCUSDT_1m.csv", *range(-5, 0))]
    whole = followed(app.recorded(Settings(), [capture], float("inf"), None, history), tmp_path / "whole")
    recording = app.record_of([capture], Settings(), None, pytest.fail)
    assert recording.capture is not None
    recording.history = app._history_of(recording.capture, CoreSettings(), history, False)
    assert len(recording.history) == 3

    async def begin() -> None:
        async with Live(tmp_path / "state") as host:
            for entry in islice(recording, done):
                host.submit(entry)
            await host.settle()

    asyncio.run(begin())
    again = followed(app.recorded(Settings(), [capture], float("inf"), None, history), tmp_path / "state")
    assert (again.hexdigest(), again.seq) == (whole.hexdigest(), whole.seq) and again.save() == whole.save()


def test_each_symbol_of_a_recording_may_have_a_past(tmp_path: Path) -> None:
    captures = [write_capture(tmp_path, market_lines(9, names=(name,)), f"binance-usdm_{name}.raw") for name in ("BTCUSDT", "ETHUSDT")]
    files = [minutes_of(tmp_path, f"{name}_1m.csv", *range(-3, 0)) for name in ("ETHUSDT", "BTCUSDT")]
    engine = followed(app.recorded(Settings(), captures, float("inf"), None, files), tmp_path / "state")
    assert {symbol: engine.candles.count(symbol) for symbol in (BTC, ETH)} == {BTC: 3, ETH: 3}
    followed_alone = Settings(core=CoreSettings(symbols=(ETH,)))
    with pytest.raises(CandleFileError, match=f"expected history of {ETH}, found a name that says BTCUSDT"):
        app.recorded(followed_alone, captures, 1.0, None, files)
    with pytest.raises(CandleFileError, match=r"at most 1 symbols \(core.symbols_max\), found 2"):
        app.recorded(Settings(core=CoreSettings(symbols_max=1)), captures, 1.0, None, files)
    both = write_capture(tmp_path, market_lines(9, names=("BTCUSDT", "ETHUSDT")), "binance-usdm_all.raw")
    engine = followed(app.recorded(Settings(), [both], float("inf"), None, files), tmp_path / "both")
    assert {symbol: engine.candles.count(symbol) for symbol in (BTC, ETH)} == {BTC: 3, ETH: 3}


def test_the_simulator_has_a_past_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(SimulationRefused, match="expected no history for the simulator, which makes its own"):
        chosen(history=[minutes_of(tmp_path, "BTCUSDT_1m.csv", -1)])


# Which market is served


def chosen(*names: tuple[str, str], settings: Settings | None = None, **options: Any) -> app.Source:
    return app.market(settings or Settings(), names, **options)


def test_without_names_it_is_the_simulator() -> None:
    for source in (chosen(), chosen(("sim", "BTCUSDT"))):
        assert (source.text, source.default_venue) == ("simulator, seed 7", "sim")
        assert source.clock is not None and source.folder.startswith("sim-")


def test_symbols_of_venues_are_followed_live() -> None:
    source = chosen(("binance-usdm", "BTCUSDT"), ("binance-spot", "ETHUSDT"), ("binance-usdm", "SOLUSDT"))
    assert (source.folder, source.default_venue) == ("live-binance-spot+binance-usdm", "binance-usdm")
    assert source.text == "binance-usdm BTCUSDT SOLUSDT, binance-spot ETHUSDT"
    assert source.clock is not None


def test_what_comes_from_elsewhere_has_a_folder_of_its_own() -> None:
    symbols = ["binance-usdm:BTCUSDT"]
    addresses = [config.LiveSection(), config.LiveSection(ws_url="ws://127.0.0.1:1"), config.LiveSection(rest_url="http://127.0.0.1:1")]
    folders = [app.live(Settings(live=live), symbols).folder for live in addresses]
    assert folders[0] == "live-binance-usdm" and len(set(folders)) == 3


@pytest.mark.parametrize("venue", ["kraken", "binance", "Binance-usdm", ""])
def test_a_venue_that_cannot_be_followed_is_refused_and_the_others_are_named(venue: str) -> None:
    with pytest.raises(UnknownVenue, match=f"expected a venue of binance-spot, binance-usdm, binance-coinm, or sim, found '{venue}'"):
        chosen(("binance-usdm", "BTCUSDT"), (venue, "BTCUSDT"))


def test_the_folder_of_the_simulator_is_named_by_its_own_settings_and_by_nothing_else() -> None:
    """What is read of a market, and how long a past it has, changes nothing in which market it is."""
    same = [
        Settings(),
        Settings(core=CoreSettings(seed=99, symbols=("sim:ETHUSDT",), history_rows=5)),
        Settings(api=msgspec.structs.replace(Settings().api, port=1)),
        Settings(storage=msgspec.structs.replace(Settings().storage, checkpoint_inputs=5)),
    ]
    folders = {chosen(settings=one, past=past).folder for one in same for past in (True, False)}
    assert len(folders) == 1
    changed = {"seed": 8, "symbols": ("BTCUSDT",), "edge": 0.0, "activity": 2.0, "depth_ms": 500}
    assert changed.keys() == set(SimulatorSettings.__struct_fields__), "every setting makes another market"
    for name, value in changed.items():
        settings = Settings(simulator=msgspec.structs.replace(SimulatorSettings(), **{name: value}))
        folders.add(chosen(settings=settings).folder)
    assert len(folders) == 1 + len(changed)


def test_a_live_market_is_stale_sooner_unless_the_user_says_otherwise() -> None:
    core = app._live_core(Settings())
    assert core == msgspec.structs.replace(CoreSettings(), stale_after_ms=app.LIVE_STALE_MS) and core.stale_after_ms == 2_000
    said = CoreSettings(stale_after_ms=700, seed=5)
    assert app._live_core(Settings(core=said)) is said


def test_so_many_seconds_of_the_simulator_begin_where_they_are_told_to() -> None:
    source = app.simulated_at_once(Settings(), START_NS, 90.0)
    assert source.clock is not None and source.clock.now_ns() == START_NS + 90 * S
    now = app.simulated_at_once(Settings(), None, 90.0)
    assert now.clock is not None and now.clock.now_ns() == now.clock.now_ns() > START_NS, "they end now, and now stands still"
