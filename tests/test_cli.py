import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import alphapack
from alphapack import cli
from alphapack.app import ChainSummary
from alphapack.config import Settings
from alphapack.domain.events import SmileChanged
from alphapack.domain.inputs import Frame
from alphapack.domain.readings import SymbolHealth
from alphapack.domain.simulation import SimulationRefused
from alphapack.shell.captures import CaptureError
from alphapack.shell.folders import EngineFolder, Lock
from alphapack.shell.journal import FileJournal
from alphapack.shell.mock import MockSettings

COMMANDS = ["serve", "record", "mock", "replay", "convert", "init", "config", "doctor", "reset"]
HEALTH = SymbolHealth("LIVE", 1, -2.5, 12, 1, 2, 3, 4, 503, 5, 6, 7)
SUMMARY = SimpleNamespace(
    inputs=1_000,
    frames=900,
    seconds=0.5,
    digest="00ff" * 8,
    symbols={"sim:X": HEALTH},
    kinds={"sim:X": {"depth": 6_551, "trade": 213}},
    complaints=2,
    span_s=344.8,
    chains={
        "BTC": ChainSummary(238, 190_000, 7, 1, SmileChanged("BTC", "recorded", 1, 800, 0, 30.0, 0.5123, -0.0644, 0.0123, None, -9.61))
    },
)


class FakeApp(ModuleType):
    """Stands for ``alphapack.app`` and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__("alphapack.app")
        self.calls: list[tuple[object, ...]] = []
        self.error: Exception | None = None
        self.code = 0

    def recorded(
        self, settings: Settings, captures: list[Path], speed: float, venue: str | None, history: tuple[str, ...], shifted: bool
    ) -> object:
        return (captures, speed, venue, history, shifted) if history else (captures, speed, venue)

    def market(self, settings: Settings, names: tuple[tuple[str, str], ...], *, past: bool = True, history: tuple[str, ...] = ()) -> object:
        return (names, past, history) if history else (names, past)

    def simulated_at_once(self, settings: Settings, start_ns: int | None, seconds: float) -> object:
        return start_ns, seconds

    def prepared(self, settings: Settings) -> Settings:
        return settings

    def serve(self, settings: Settings, source: object) -> int:
        self.calls.append((settings, source))
        if self.error:
            raise self.error
        return self.code

    def replay(self, settings: Settings, paths: list[Path], *, venue: str | None, progress: object, complain: object) -> object:
        self.calls.append((settings, paths, venue))
        assert callable(progress)
        assert callable(complain)
        progress(1, 2)
        complain("sim_X.raw:3: expected sense")
        if self.error:
            raise self.error
        return SUMMARY


@pytest.fixture(autouse=True)
def folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    (home / "sim_X.raw").write_bytes(b"1 [1]\n2 [2]\n")
    return home


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> FakeApp:
    fake = FakeApp()
    monkeypatch.setitem(sys.modules, "alphapack.app", fake)
    monkeypatch.setattr(alphapack, "app", fake, raising=False)
    return fake


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(alphapack.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "alphapack", *arguments],
        env={**os.environ, "PYTHONPATH": source, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must end as bad usage, and return its one line."""
    assert cli.main(arguments) == cli.USAGE
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    heavy = "{'numba', 'numpy', 'litestar', 'structlog'}"
    code = f"import sys; from alphapack.cli import main; main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(alphapack.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [name for name in COMMANDS if f" {name} " not in done.stdout] == []
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == cli.DONE
    assert f"Example: alphapack {name}" in capsys.readouterr().out


def test_the_process_ends_with_the_exit_code_and_names_the_nearest_key() -> None:
    done = run("config", ALPHAPACK__API__PROT="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: environment ALPHAPACK__API__PROT: unknown key in [api]: 'prot'; the nearest is 'port'\n"


def test_config_says_where_each_value_came_from(folder: Path) -> None:
    (folder / "alphapack.toml").write_text("[api]\nport = 1\nbody_max_bytes = 9\n")
    done = run("config", "--port", "3", ALPHAPACK__API__PORT="2", ALPHAPACK__API__HOST="::1", ALPHAPACK__API__TOKEN="sesame-open")
    assert done.returncode == 0
    assert {
        "api.port = 3  # command line",
        'api.host = "::1"  # environment ALPHAPACK__API__HOST',
        "api.body_max_bytes = 9  # alphapack.toml",
        "core.seed = 7  # default",
        'api.token = "***"  # environment ALPHAPACK__API__TOKEN',
        "storage.data_dir = not set  # default",
    } <= set(done.stdout.splitlines())
    assert "sesa" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["bogus"], "bogus"),
        (["replay"], "PATHS"),
        (["replay", "sim_X.raw", "--bogus", "1"], "--bogus"),
        (["replay", "nowhere.raw"], "nowhere.raw"),
        (["config", "--port", "x"], "--port"),
        (["config", "--port", "70000"], "<= 65535"),
        (["config", "--config", "nowhere.toml"], "nowhere.toml"),
        (["serve", "--venue", "binance-usdm"], "--symbols BTCUSDT"),
        (["serve", "--symbols", "BTCUSDT,binance-spot:BTCUSDT"], "two commands"),
        (["serve", "--symbols", ":"], "VENUE:SYMBOL"),
        (["serve", "--speed", "2"], "--capture"),
        (["serve", "--history-shift"], "--capture and --history"),
        (["serve", "--capture", "sim_X.raw", "--history-shift"], "--capture and --history"),
        (["serve", "--venue", "sim", "--symbols", "X", "--history", "X.csv", "--history-shift"], "--capture and --history"),
        (["serve", "--edge", "11"], "<= 10"),
        (["serve", "--symbols", "x-y"], "2 to 20 capital letters"),
        (["record", "--symbols", "BTCUSDT"], "--output"),
        (["record", "--seconds", "0", "-o", "x"], "above 0"),
        (["record", "--seconds", "inf", "-o", "x"], "ten years"),
        (["record", "--seconds", "5e9", "--speed", "max", "-o", "x"], "ten years"),
        (["record", "--start", "2026-01-01", "-o", "x"], "--speed max"),
        (["record", "--speed", "max", "-o", "x"], "--seconds"),
        (["record", "--speed", "max", "--seconds", "5", "--start", "soon", "-o", "x"], "2026-01-01T00:00:00Z"),
        (["record", "--speed", "max", "--seconds", "5", "--start", "2200-01-01", "-o", "x"], "before 2100, found '2200-01-01' and 5"),
        (["record", "--speed", "max", "--seconds", "5", "--start", "1969-12-31T23:59:59Z", "-o", "x"], "--start from 1970 on"),
        (["record", "--speed", "max", "--seconds", "61", "--start", "2099-12-31T23:59:00Z", "-o", "x"], "before 2100"),
        (["mock", "--venue", "binance-spot", "--symbols", "binance-usdm:BTCUSDT"], "symbols of binance-spot, found 'binance-usdm:BTCUSDT'"),
        (["mock", "--capture", "sim_X.raw", "--symbols", "X"], "--symbols of the simulator alone"),
        (["mock", "--ws-url", "ws://127.0.0.1"], "--ws-url"),
        (["serve", "--capture", "nowhere.raw"], "nowhere.raw"),
        (["serve", "--capture", "sim_X.raw", "--speed", "fast"], "capture.speed"),
        (["serve", "--capture", "sim_X.raw", "--speed", "0"], "> 0"),
        (["serve", "--capture", "sim_X.raw", "--speed", "inf"], "finite"),
        (["serve", "--capture", "sim_X.raw", "--speed", "nan"], "capture.speed"),
        (["convert", "sim_X.raw"], "--output"),
        (["convert", "sim_X.raw", "-o", "out.csv"], "out.csv"),
        (["convert", "sim_X.raw", "-o", "sim_X.raw"], "other than the inputs"),
        (["convert", "sim_X.raw", "-o", "no/where.parquet"], "folder"),
    ],
)
def test_bad_usage_is_code_2_with_a_line_of_sense(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str], app: FakeApp
) -> None:
    assert word in failed(capsys, *arguments)
    assert app.calls == []


def test_serve_hands_over_settings_files_and_speed(app: FakeApp, folder: Path) -> None:
    (folder / "sim_Y.raw").write_bytes(b"1 [1]\n")
    arguments = "serve --capture sim_X.raw sim_Y.raw --speed max --port 5001 --host ::1 --data-dir state --symbols x,other:y"
    assert cli.main(arguments.split()) == cli.DONE
    ((settings, source),) = app.calls
    assert isinstance(settings, Settings)
    assert source == ([Path("sim_X.raw"), Path("sim_Y.raw")], float("inf"), None)
    assert (settings.api.port, settings.api.host, settings.storage.data_dir) == (5001, "::1", "state")
    assert settings.core.symbols == ("sim:X", "other:Y")


def test_serve_hands_over_history(app: FakeApp) -> None:
    assert cli.main(["serve", "--capture", "sim_X.raw", "--history", "a.csv", "X=b.parquet", "--history-shift"]) == cli.DONE
    assert cli.main(["serve", "--capture", "sim_X.raw", "--history", "a.csv", "--history", "b.csv"]) == cli.DONE
    assert cli.main(["serve", "--venue", "binance-usdm", "--symbols", "BTCUSDT", "--history", "a.csv"]) == cli.DONE
    assert [source for _, source in app.calls] == [
        ([Path("sim_X.raw")], 1.0, None, ("a.csv", "X=b.parquet"), True),
        ([Path("sim_X.raw")], 1.0, None, ("a.csv", "b.csv"), False),
        ((("binance-usdm", "BTCUSDT"),), True, ("a.csv",)),
    ]


def test_serve_returns_what_the_application_does(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHAPACK__CAPTURE__SPEED", "10")
    app.code = 1
    assert cli.main(["serve", "--capture", "sim_X.raw", "--venue", "other"]) == 1
    assert app.calls[0][1] == ([Path("sim_X.raw")], 10.0, "other")


@pytest.mark.parametrize(
    ("arguments", "names", "simulated"),
    [
        ("", (), ("BTCUSDT", "ETHUSDT", "SOLUSDT")),
        ("--symbols btcusdt,XRPUSDT", (("sim", "BTCUSDT"), ("sim", "XRPUSDT")), ("BTCUSDT", "XRPUSDT")),
        ("--venue binance-usdm --symbols BTCUSDT", (("binance-usdm", "BTCUSDT"),), ("BTCUSDT", "ETHUSDT", "SOLUSDT")),
        (
            "--symbols binance-spot:ethbtc binance-coinm:BTCUSD_PERP",
            (("binance-spot", "ETHBTC"), ("binance-coinm", "BTCUSD_PERP")),
            ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
        ),
    ],
)
def test_serve_without_a_recording_follows_a_market(app: FakeApp, arguments: str, names: object, simulated: object) -> None:
    assert cli.main(f"serve --seed 9 --edge 0 {arguments}".split()) == cli.DONE
    ((settings, source),) = app.calls
    assert isinstance(settings, Settings)
    assert source == (names, True)
    assert (settings.simulator.seed, settings.simulator.edge, settings.simulator.symbols) == (9, 0.0, simulated)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("--venue sim", "expected a venue of binance-spot, binance-usdm, binance-coinm, found 'sim'"),
        ("--symbols BTCUSD_PERP", "expected a symbol such as BTCUSDT, found BTCUSD_PERP"),
        ("--venue binance-coinm --symbols BTCUSDT", "expected a perpetual of COIN-M such as BTCUSD_PERP, found BTCUSDT"),
        ("--fault-kinds drp", "expected faults of the kinds drop, duplicate,"),
        ("--fault-kinds drop,drp", "http_429, http_418, found 'drp'"),
        ("--port 70000", "expected a port of 0 to 65535, found 70000"),
        ("--fault-every -1 --symbols BTCUSDT", "expected"),
    ],
)
def test_a_mock_exchange_that_cannot_be_is_code_2_with_a_line_of_sense(
    arguments: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found in failed(capsys, "mock", *arguments.split())


def test_the_seed_is_of_the_faults_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(tape: object, settings: MockSettings) -> None:
        assert (settings.market, settings.seed, settings.port, settings.fault_kinds) == ("spot", 9, 5001, ("drop",))
        raise ValueError("expected no exchange here")

    monkeypatch.setattr("alphapack.shell.mock.MockExchange", refuse)
    arguments = "--venue binance-spot --symbols binance-spot:btcusdt --seed 9 --fault-kinds drop"
    assert failed(capsys, "mock", *arguments.split()) == "error: mock: expected no exchange here\n"


def test_a_taken_port_of_the_mock_exchange_is_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        error = failed(capsys, "mock", "--symbols", "BTCUSDT", "--port", str(port))
    assert error == f"error: port {port} of 127.0.0.1 is in use; choose another with --port {port + 1}\n"


def test_the_help_of_the_mock_exchange_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mock", "--help"]) == cli.DONE
    text = " ".join(re.sub(r"[│╭╰─╮╯]", " ", capsys.readouterr().out).split())
    assert "5001 if left out" in text and "binance-usdm (the default), binance-spot or binance-coinm" in text
    assert "--ws-url" not in text and "--rest-url" not in text and " sim," not in text


def test_errors_of_the_world_have_their_codes(app: FakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    from alphapack.api.server import CannotListen, RefusedBind
    from alphapack.shell.folders import AlreadyRunning
    from alphapack.shell.journal import JournalDamaged
    from alphapack.shell.ledger import LedgerError

    cases: list[tuple[Exception, int]] = [
        (CaptureError("unknown venue 'x'"), 2),
        (AlreadyRunning(Path("state"), 7), 2),
        (RefusedBind("public"), 2),
        (CannotListen("port taken"), 2),
        (SimulationRefused("no such symbol"), 2),
        (JournalDamaged("byte 7"), 1),
        (LedgerError("row 7"), 1),
        (OSError(28, "No space left on device"), 1),
    ]
    for error, code in cases:
        app.error = error
        assert cli.main(["serve", "--capture", "sim_X.raw"]) == code
        assert capsys.readouterr().err == f"error: {error}\n"
    app.error = KeyError("ours")
    with pytest.raises(KeyError):
        cli.main(["serve", "--capture", "sim_X.raw"])


def test_replay_prints_counts_gaps_digest_and_rate(app: FakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", "sim_X.raw", "--symbols", "X", "--venue", "sim"]) == cli.DONE
    captured = capsys.readouterr()
    row = re.sub(r" +", " ", next(line for line in captured.out.splitlines() if line.strip().startswith("sim:X"))).strip()
    assert row == "sim:X LIVE 1 2 3 4 503 5 6 7"
    assert "sim:X: depth 6,551, trade 213\n" in captured.out
    options = re.sub(r" +", " ", next(line for line in captured.out.splitlines() if line.strip().startswith("BTC"))).strip()
    assert options == "BTC 238 1 190,000 7 0.5123 -0.0644 0.0123 - -9.6100"
    assert "2,000 events/s" in captured.out
    assert f"digest {SUMMARY.digest}" in captured.out
    assert captured.err == "warning: sim_X.raw:3: expected sense\n"
    ((settings, paths, venue),) = app.calls
    assert isinstance(settings, Settings)
    assert (paths, venue, settings.core.symbols) == ([Path("sim_X.raw")], "sim", ("sim:X",))


def test_replay_in_json_is_one_document(app: FakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", "sim_X.raw", "sim_X.raw", "--json"]) == cli.DONE
    document = json.loads(capsys.readouterr().out)
    assert document["events_per_s"] == 2_000
    assert (document["inputs"], document["digest"], document["complaints"]) == (1_000, SUMMARY.digest, 2)
    assert document["symbols"]["sim:X"]["gaps"] == 1
    assert document["symbols"]["sim:X"]["kinds"] == {"depth": 6_551, "trade": 213}
    assert (document["chains"]["BTC"]["rejected"], document["chains"]["BTC"]["last"]["skew_z"]) == (7, -9.61)


def test_a_bare_symbol_of_a_journal_needs_its_venue(app: FakeApp, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "journal").mkdir()
    assert "VENUE:SYMBOL" in failed(capsys, "replay", "journal", "--symbols", "X")


def test_convert_writes_and_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sim_X_trades.raw").write_bytes(b"1 [3]\nbad\n")
    assert cli.main(["convert", "sim_X.raw", "sim_X_trades.raw", "-o", "sim_X_20240808.raw.gz"]) == cli.DONE
    captured = capsys.readouterr()
    assert captured.out.startswith("3 messages in sim_X_20240808.raw.gz")
    assert "sim_X_trades.raw:2: expected" in captured.err
    assert "1 complaints" in captured.err


def test_convert_keeps_the_symbols_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = FileJournal(folder / "journal")
    journal.append([Frame(1, 1, "sim", "X", b"[1]"), Frame(2, 2, "sim", "Y", b"[2]")])
    journal.close()
    assert "found one of sim_Y" in failed(capsys, "convert", "journal", "-o", "sim_X.raw.gz")
    for symbols in ("y", "SIM:Y,sim:z"):
        assert cli.main(["convert", "journal", "-o", "sim_Y.raw", "--symbols", symbols]) == cli.DONE
        assert (folder / "sim_Y.raw").read_bytes() == b"2 [2]\n"


def test_init_writes_a_private_file_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init"]) == cli.DONE
    path = folder / "alphapack.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    written = path.read_text()
    assert "#port = 5000" in written
    assert cli.main(["config"]) == cli.DONE
    capsys.readouterr()
    assert "alphapack.toml" in failed(capsys, "init")
    assert path.read_text() == written


def state(folder: Path) -> EngineFolder:
    engine = EngineFolder.of(folder / "state", "main")
    engine.create()
    engine.ledger.write_bytes(b"no database" * 1_000)
    return engine


def test_reset_erases_with_yes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = state(folder)
    assert cli.main(["reset", "--data-dir", "state", "--yes"]) == cli.DONE
    assert not engine.journal.exists()
    assert not engine.ledger.exists()
    capsys.readouterr()
    assert cli.main(["reset", "--data-dir", "state", "--yes"]) == cli.DONE
    assert "nothing to erase" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "code", "kept"), [("y", 0, False), ("YES", 0, False), ("", 1, True), ("n", 1, True)])
def test_reset_asks(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, kept: bool) -> None:
    engine = state(folder)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert cli.main(["reset", "--data-dir", "state"]) == code
    assert engine.ledger.exists() is kept


def test_reset_is_refused_without_an_answer_and_while_an_engine_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = state(folder)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    assert "--yes" in failed(capsys, "reset", "--data-dir", "state")
    with Lock(engine.lock):
        assert str(os.getpid()) in failed(capsys, "reset", "--data-dir", "state", "--yes")
    assert engine.ledger.exists()


def test_doctor_checks_and_fails_on_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["doctor", "--data-dir", "state", "--port", "0"]) == cli.DONE
    out = capsys.readouterr().out
    assert [name for name in ("settings", "versions", "clock", "data folder", "kernel cache", "port 0") if name not in out] == []
    assert "FAILED" not in out
    state(folder)
    assert cli.main(["doctor", "--data-dir", "state", "--port", "0"]) == cli.FAILED, "the ledger is no database"
    assert re.search(r"ledger of main +FAILED", capsys.readouterr().out)
    monkeypatch.setenv("ALPHAPACK__API__PROT", "1")
    assert cli.main(["doctor", "--data-dir", "elsewhere"]) == cli.FAILED
    assert re.search(r"settings +FAILED .*nearest is 'port'", capsys.readouterr().out)


def test_doctor_names_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert cli.main(["doctor", "--data-dir", "state", "--port", str(port)]) == cli.FAILED
    assert re.search(rf"port {port} +FAILED .*--port", capsys.readouterr().out)


def test_doctor_leaves_a_running_engine_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Lock(state(folder).lock):
        assert cli.main(["doctor", "--data-dir", "state", "--port", "0"]) == cli.DONE
    assert f"in use by process {os.getpid()}" in capsys.readouterr().out
