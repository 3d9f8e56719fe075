"""``alphapack backtest`` and plugins on the command line, over a simulated market that the command line has recorded itself."""

import io
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import alphapack as ap
from alphapack import app, cli
from alphapack.alphas import ALPHAS
from alphapack.config import Settings
from alphapack.domain.backtest import Backtest
from alphapack.domain.inputs import Frame
from alphapack.domain.money import UNITS
from alphapack.domain.simulation import SimulatorSettings
from alphapack.models.candles import MINUTE_MS
from alphapack.models.simulator import Simulator
from alphapack.models.volatility import MINUTES_MIN
from alphapack.shell.backtest_report import html
from alphapack.shell.journal import FileJournal
from rig import S

SYMBOL = "sim:BTCUSDT"
START, START_NS = "2026-01-01T00:00:00Z", 1_767_225_600 * S
SECONDS, SEED = 240, 7
SETTINGS: dict[str, dict[str, object]] = {
    "router": {"interval_s": 10, "horizon_s": 40, "floor": 0.05},
    "core": {"instruments": [{"symbol": SYMBOL, "maker_fee_bps": 0.0, "taker_fee_bps": 0.2}]},
}
"""What costs as much as it may earn is hardly ever traded, and a recording is short."""
FILE = f"""[router]
interval_s = 10
horizon_s = 40
floor = 0.05
[core]
instruments = [{{ symbol = "{SYMBOL}", maker_fee_bps = 0.0, taker_fee_bps = 0.2 }}]
[log]
level = "warning"
"""
PLUGIN = """
from alphapack.plugin import Target, alpha, policy

@alpha(id="{0}", desc="d", inputs=("obi",), weight_init=0.2, group="own")
def signal(ctx):
    return ctx["obi"]

@policy(name="{0}_way", desc="d", listens="own")
def go(ctx, blend):
    return Target(max(-1.0, min(1.0, 10.0 * blend)))
"""


class Market(NamedTuple):
    """A recording, and the candles from before it."""

    capture: Path
    candles: Path


def market(factory: pytest.TempPathFactory) -> Market:
    """Return the recorded market of this session of tests, which is made once."""
    folder = factory.getbasetemp() / "recorded-market"
    made = Market(folder / "sim_BTCUSDT_20260101.raw.zst", folder / "BTCUSDT_1m.csv")
    if not folder.exists():
        folder.mkdir()
        arguments = ["record", "--symbols", "BTCUSDT", "--seed", str(SEED), "--seconds", str(SECONDS), "--speed", "max", "--start", START]
        assert cli.main([*arguments, "-o", str(made.capture)]) == cli.DONE
        made.candles.write_text(candles(MINUTES_MIN + 60))
    return made


def candles(minutes: int) -> str:
    """Return so many minutes of candles before the recording, as a file has them."""
    simulator = Simulator(SimulatorSettings(seed=SEED, symbols=("BTCUSDT",)), START_NS, history_minutes=minutes)
    end_ms = START_NS // 1_000_000
    lines = ["ts_ms,open,high,low,close,volume"]
    for from_ms in range(end_ms - minutes * MINUTE_MS, end_ms, 500 * MINUTE_MS):
        page = simulator.klines("BTCUSDT", from_ms, min(from_ms + 500 * MINUTE_MS, end_ms) - 1, 500)
        lines += [",".join(map(str, row[:6])) for row in msgspec.json.decode(page, type=list[tuple[Any, ...]])]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return market(tmp_path_factory)


@cache
def traded(made: Market) -> Backtest:
    """Return the backtest of that market as Python has it."""
    return ap.backtest(made.capture, SETTINGS, history=made.candles)


@pytest.fixture(scope="module")
def own(simulated: Market) -> Backtest:
    return traded(simulated)


@pytest.fixture(autouse=True)
def folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    (home / "alphapack.toml").write_text(FILE)
    return home


def failed(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = cli.USAGE) -> str:
    """Run a command that must fail, and return its one line."""
    assert cli.main([str(one) for one in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


def timeless(found: Backtest) -> Backtest:
    return msgspec.structs.replace(found, seconds=0.0)


# What comes out of it


def test_alpha_attribution_a_backtest_says_the_same_as_json_as_a_page_and_in_python(
    simulated: Market, own: Backtest, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = folder / "out.html"
    arguments = ["backtest", str(simulated.capture), "--history", str(simulated.candles)]
    assert cli.main([*arguments, "--json", "--report", str(page)]) == cli.DONE
    captured = capsys.readouterr()
    assert captured.err == "", "no progress where nobody watches, and nothing to complain of"
    told = msgspec.json.decode(captured.out, type=Backtest)
    assert len(told.trades) > 5 and timeless(told) == timeless(own), "two runs, two doors, one result"
    assert page.read_text() == html(told)
    assert told.digest in page.read_text()
    assert (told.paths, told.symbols, told.capital) == ([simulated.capture.name], [SYMBOL], 100_000 * UNITS)
    assert 0.9 * SECONDS * 1_000 < told.to_ms - told.from_ms <= (SECONDS + 1) * 1_000 and told.from_ms == START_NS // 1_000_000


def test_alpha_attribution_a_backtest_prints_tables_that_add_up(
    simulated: Market, own: Backtest, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = folder / "out.html"
    arguments = ["backtest", str(simulated.capture), "--history", f"BTCUSDT={simulated.candles}", "--report", str(page)]
    assert cli.main(arguments) == cli.DONE
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line}

    def is_money(text: str, value: int) -> bool:
        return abs(float(text.replace(",", "")) - value / UNITS) <= 0.005 and "e" not in text

    for one in own.policies:
        assert rows[one.policy][:2] == [f"{one.decisions:,}", f"{one.trades:,}"] and is_money(rows[one.policy][2], one.pnl)
    for alpha in own.alpha_pnl:
        assert (alpha.id in rows) is (alpha.trades > 0)
        assert alpha.id not in rows or (rows[alpha.id][0] == f"{alpha.trades:,}" and is_money(rows[alpha.id][1], alpha.pnl))
    for name, value in (("base", own.base), ("execution", own.execution), ("fees", own.fees)):
        assert len(rows[name]) == 1 and is_money(rows[name][0], value)
    assert rows["total"][:-1] == ["of", "closed", "trades", f"{len(own.trades):,}"] and is_money(rows["total"][-1], own.total)
    told = {line[1]: line for line in lines if line[:1] == ["queue"]}
    for bound in own.bounds:
        line = told[f"{bound.queue}:"]
        assert is_money(line[3], bound.pnl) and line[4:] == ["USDT,", "trades", f"{bound.trades:,},", "fills", f"{bound.fills:,}"]
    assert rows["digest"] == [own.digest] and rows["report"] == [str(page)]
    assert any(line[:1] == ["note:"] and "minutes:" in line for line in lines)


def test_alpha_attribution_without_history_nothing_is_traded_and_notes_say_so(
    simulated: Market, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["backtest", str(simulated.capture), "--json"]) == cli.DONE
    found = msgspec.json.decode(capsys.readouterr().out, type=Backtest)
    assert (found.trades, found.fills, found.change, found.unexplained) == ([], [], 0, 0)
    assert set(found.decisions.by_policy) <= {"flat"} and [bound.pnl for bound in found.bounds] == [0, 0]
    assert found.symbols == [SYMBOL] and len(found.notes) == 2
    assert cli.main(["backtest", str(simulated.capture)]) == cli.DONE
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")] == [f"note: {one}" for one in found.notes]


def test_alpha_attribution_moved_history_is_noted(
    simulated: Market, own: Backtest, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = folder / "BTCUSDT_1m.csv"
    head, *rows = simulated.candles.read_text().splitlines()
    times = [row.split(",", 1) for row in rows]
    late.write_text("\n".join([head, *(f"{int(ts) + 10**9 * 60},{rest}" for ts, rest in times)]))
    error = failed(capsys, "backtest", simulated.capture, "--history", late)
    assert "from before the recording, found none: give --history-shift" in error
    assert cli.main(["backtest", str(simulated.capture), "--history", str(late), "--history-shift", "--json"]) == cli.DONE
    moved = msgspec.json.decode(capsys.readouterr().out, type=Backtest)
    assert moved.notes[0].startswith("Candles of another time were moved")
    assert (moved.trades, moved.fills, moved.equity) == (own.trades, own.fills, own.equity), "a whole number of minutes, to the end"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_alpha_attribution_progress_is_shown_on_a_terminal_alone(
    simulated: Market, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["backtest", str(simulated.capture), "--json"]
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", terminal)
    assert cli.main(arguments) == cli.DONE
    assert "backtest" in terminal.getvalue() and "\x1b[" in terminal.getvalue()
    assert json.loads(capsys.readouterr().out)["symbols"] == [SYMBOL], "the document is alone on the output"


# What cannot be


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nowhere.raw"], "expected a file, found nothing at nowhere.raw"),
        ([], "PATHS"),
        (["CAPTURE", "--history-shift"], "expected --history-shift with --history, found it alone"),
        (["CAPTURE", "--report", "no/where.html"], "expected a file in a folder that exists for the report, found no/where.html"),
        (["CAPTURE", "--history", "nowhere.csv"], "expected a file of candles, found nothing at nowhere.csv"),
        (["CAPTURE", "--history", "ETHUSDT=CANDLES"], "ETHUSDT"),
        (["CAPTURE", "--venue", "nowhere"], "nowhere"),
        (["CAPTURE", "--plugin", "nowhere.py"], "expected a Python file, found none to read"),
        (["CAPTURE", "--config", "nowhere.toml"], "nowhere.toml"),
        (["CAPTURE", "--speed", "2"], "--speed"),
        (["CANDLES"], "expected"),
    ],
)
def test_alpha_attribution_a_backtest_that_cannot_be_ends_with_a_line(
    simulated: Market, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stated = [one.replace("CAPTURE", str(simulated.capture)).replace("CANDLES", str(simulated.candles)) for one in arguments]
    assert word in failed(capsys, "backtest", *stated)


def test_alpha_attribution_a_journal_is_no_recording_to_trade_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = FileJournal(folder / "journal")
    journal.append([Frame(1, START_NS, "sim", "BTCUSDT", b"{}")])
    journal.close()
    assert "expected captures to trade on, found a journal" in failed(capsys, "backtest", "journal")


def test_alpha_attribution_a_setting_that_is_none_is_refused(
    simulated: Market, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALPHAPACK__ROUTER__HORIZON", "40")
    assert "unknown key in [router]: 'horizon'; the nearest is 'horizon_s'" in failed(capsys, "backtest", simulated.capture)
    monkeypatch.delenv("ALPHAPACK__ROUTER__HORIZON")
    (folder / "alphapack.toml").write_text('[router]\nwithout = ["momentun"]\n')
    assert "found 'momentun'; the nearest is 'momentum'" in failed(capsys, "backtest", simulated.capture)
    (folder / "alphapack.toml").write_text("[router]\ninterval_s = 60\nhorizon_s = 30\n")
    assert "expected 1 <= interval_s <= horizon_s" in failed(capsys, "backtest", simulated.capture)


def test_alpha_attribution_a_line_that_cannot_be_used_is_complained_of_once(
    simulated: Market, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "sim_X_20260101.raw").write_bytes(b"1767225600000000000 {}\nno line\n")
    assert cli.main(["backtest", str(simulated.capture), "sim_X_20260101.raw", "--json"]) == cli.DONE
    captured = capsys.readouterr()
    assert captured.err.count("sim_X_20260101.raw:2:") == 1, "each run reads it, one complains"
    assert "sim_X_20260101.raw" in msgspec.json.decode(captured.out, type=Backtest).paths


# Plugins on the command line


def written(path: Path, name: str) -> Path:
    path.write_text(PLUGIN.format(name))
    return path


def test_router_alpha_aware_a_plugin_takes_part_in_a_backtest(
    simulated: Market, own: Backtest, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = written(folder / "first.py", "first"), written(folder / "second.py", "second")
    arguments = ["backtest", str(simulated.capture), "--history", str(simulated.candles), "--json"]
    assert cli.main([*arguments, "--plugin", str(first), "--plugin", str(second)]) == cli.DONE
    found = msgspec.json.decode(capsys.readouterr().out, type=Backtest)
    assert [one.id for one in found.alpha_pnl[-2:]] == ["first", "second"] and found.unexplained == 0
    assert {"first_way", "second_way"} <= {one.policy for one in found.policies}
    assert "first.py" in found.settings["plugins"] and "second.py" in found.settings["plugins"]
    settings: dict[str, dict[str, object]] = {**SETTINGS, "plugins": {"files": [str(first), str(second)]}}
    assert timeless(found) == timeless(ap.backtest(simulated.capture, settings, history=[simulated.candles]))
    assert own.digest != found.digest and own.settings["plugins"] == "none"


def test_router_alpha_aware_a_replay_knows_its_plugins(simulated: Market, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = written(folder / "mine.py", "mine")
    digests = []
    for more in ([], ["--plugin", str(plugin)], ["--plugin", str(plugin)]):
        assert cli.main(["replay", str(simulated.capture), "--json", *more]) == cli.DONE
        digests.append(json.loads(capsys.readouterr().out)["digest"])
    assert digests[0] != digests[1] == digests[2]


def test_router_alpha_aware_a_journal_is_replayed_with_the_plugins_of_its_time_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = written(folder / "mine.py", "mine")
    (folder / "alphapack.toml").write_text(f'[plugins]\nfiles = ["{plugin.name}"]\n[log]\nlevel = "warning"\n')
    arguments = ["record", "--symbols", "BTCUSDT", "--seconds", "5", "--speed", "max", "--start", START, "-o", "journal"]
    assert cli.main(arguments) == cli.DONE
    recorded = capsys.readouterr().out.split()[-1]
    assert cli.main(["replay", "journal", "--json"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)["digest"] == recorded
    (folder / "alphapack.toml").unlink()
    error = failed(capsys, "replay", "journal")
    assert "mine.py" in error and "give them with --plugin" in error
    (folder / "changed").mkdir()
    (folder / "changed" / plugin.name).write_text(plugin.read_text() + "# changed\n")
    assert "expected the plugins" in failed(capsys, "replay", "journal", "--plugin", "changed/mine.py")
    assert cli.main(["replay", "journal", "--json", "--plugin", "mine.py"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)["digest"] == recorded


def test_router_alpha_aware_what_is_served_knows_its_plugins(simulated: Market, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []

    def serve(settings: Settings, source: app.Source) -> int:
        served.append(settings)
        return cli.DONE

    monkeypatch.setattr(app, "serve", serve)
    plugin = written(folder / "mine.py", "mine")
    assert cli.main(["serve", "--capture", str(simulated.capture), "--plugin", str(plugin)]) == cli.DONE
    assert cli.main(["serve", "--plugin", str(plugin)]) == cli.DONE
    for settings in served:
        (stated,) = settings.core.plugins
        assert settings.plugins.files == (str(plugin),) and stated.startswith("mine.py ")
        registry = app.registry_of(settings)
        assert registry.plugins == (stated,) and registry.alphas[-1].id == "mine" and registry.policies[-1].name == "mine_way"
    assert len(served) == 2


@pytest.mark.parametrize("command", [["replay", "CAPTURE"], ["backtest", "CAPTURE"], ["serve", "--capture", "CAPTURE"]])
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("def broken(:\n", "bad.py, line 1: expected Python, found a fault"),
        ("raise RuntimeError('no luck')\n", "bad.py: expected to be executed without an error: line 1: RuntimeError: no luck"),
        ("x = 1\n", "bad.py: expected an alpha or a policy in it, found neither"),
        (PLUGIN.format("mine").replace("mine_way", "momentum"), "expected a policy of a new name, found 'momentum'"),
    ],
)
def test_router_alpha_aware_a_plugin_that_cannot_be_used_ends_every_command_with_a_line(
    simulated: Market, folder: Path, command: list[str], text: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.py").write_text(text)
    stated = [one.replace("CAPTURE", str(simulated.capture)) for one in command]
    assert word in failed(capsys, *stated, "--plugin", "bad.py")


def test_router_alpha_aware_a_new_alpha_is_written_and_works(simulated: Market, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "alpha", "my_alpha"]) == cli.DONE
    assert capsys.readouterr().out == "my_alpha.py written: edit it, then alphapack serve --plugin my_alpha.py\n"
    assert cli.main(["new", "alpha", "other", "-o", "elsewhere.py"]) == cli.DONE
    capsys.readouterr()
    arguments = ["backtest", str(simulated.capture), "--history", str(simulated.candles), "--json"]
    assert cli.main([*arguments, "--plugin", "my_alpha.py", "--plugin", "elsewhere.py"]) == cli.DONE
    found = msgspec.json.decode(capsys.readouterr().out, type=Backtest)
    assert [one.id for one in found.alpha_pnl] == [*(one.id for one in ALPHAS), "my_alpha", "other"] and found.unexplained == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["new", "alpha"], "NAME"),
        (["new", "alpha", "My Alpha"], "expected a name of small letters, digits and _"),
        (["new", "alpha", "../out"], "expected a name of small letters, digits and _"),
        (["new", "alpha", ALPHAS[0].id], "expected a new name"),
        (["new", "alpha", "here"], "expected no file yet, found here.py"),
        (["new", "beta", "x"], "beta"),
    ],
)
def test_router_alpha_aware_a_new_alpha_that_cannot_be_is_refused(
    folder: Path, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "here.py").write_text("mine\n")
    assert word in failed(capsys, *arguments)
    assert (folder / "here.py").read_text() == "mine\n" and {path.name for path in folder.iterdir()} == {"alphapack.toml", "here.py"}


@pytest.mark.parametrize("name", [["backtest"], ["evaluate"], ["new", "alpha"]])
def test_router_alpha_aware_help_has_an_example(name: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name, "--help"]) == cli.DONE
    assert f"Example: alphapack {' '.join(name)}" in capsys.readouterr().out


def test_alpha_attribution_a_report_never_overwrites_what_was_read(
    simulated: Market, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = folder / simulated.capture.name
    capture.write_bytes(simulated.capture.read_bytes())
    error = failed(capsys, "backtest", capture, "--report", capture)
    assert "other than" in error and capture.read_bytes() == simulated.capture.read_bytes()


def test_alpha_attribution_without_history_a_note_says_why_nothing_is_traded(simulated: Market) -> None:
    notes = ap.backtest(simulated.capture, SETTINGS).notes
    assert notes[0].startswith("Nothing was decided: a forecast of volatility needs candles of a week")


def test_alpha_attribution_a_recording_of_which_nothing_can_be_used_fails_as_a_replay_does(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "sim_X.raw").write_bytes(b'1767225600000000000 {"a":1}\n')
    assert cli.main(["replay", "sim_X.raw"]) == cli.main(["backtest", "sim_X.raw"]) == cli.FAILED


def test_router_alpha_aware_a_new_alpha_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a folder to write to" in failed(capsys, "new", "alpha", "zz", "-o", "no/where.py")
