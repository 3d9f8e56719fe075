"""The command line. Exit codes: 0 done, 1 failed, 2 bad usage or configuration.

What is heavy (kernels, the HTTP server, tables) is imported by the command that needs it, so that help comes at once.
"""

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from cyclopts import App, CycloptsError, Parameter

import alphapack
from alphapack import config
from alphapack.config import Effective

if TYPE_CHECKING:
    from alphapack.app import ReplaySummary
    from alphapack.domain.backtest import Backtest
    from alphapack.models.evaluation import Row

_T = TypeVar("_T")

DONE, FAILED, USAGE = 0, 1, 2
INTERRUPTED = 130
MOCK_PORT = 5001
BELIEFS = ("scale", "floor", "prior_edge", "prior_effect")
"""Settings of the router that can be judged by its log."""
SECONDS_MAX = 3_652 * 86_400
_FILE_COLUMNS = 200  # Where no terminal sets a width, a row is a line.

app = App(
    name="alphapack",
    help="Deterministic engine of microstructure and volatility signals for order-book markets.",
    version=lambda: alphapack.__version__,
    help_format="markdown",
    default_parameter=Parameter(show_default=False),
)


class UsageError(ValueError):
    """A command line that cannot be carried out as it stands."""


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command that reads the settings."""

    config: Annotated[Path | None, Parameter(help="Settings file; alphapack.toml in this folder if left out.")] = None

    def read(self, **overrides: object) -> Effective:
        """Return the effective settings; overrides are named ``section__key``. Set the log up and print warnings."""
        effective = config.read(self.config, os.environ, {name.replace("__", "."): value for name, value in overrides.items()})
        for warning in effective.warnings:
            _warn(warning)
        return effective


@Parameter(name="*")
@dataclass(frozen=True)
class Stateful(Common):
    """Options of every command that keeps state, or looks after it."""

    data_dir: Annotated[str | None, Parameter(help="Folder of all state; the user's data folder if left out.")] = None

    def read(self, **overrides: object) -> Effective:
        """Return the effective settings, as ``Common`` does."""
        return super().read(storage__data_dir=self.data_dir, **overrides)


@Parameter(name="*")
@dataclass(frozen=True)
class Address:
    """Where the HTTP server listens."""

    host: Annotated[str | None, Parameter(help="Address to listen on; a public one needs api.token.")] = None
    port: Annotated[int | None, Parameter(help="Port to listen on.")] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Market:
    """Which market to follow where no recording is given."""

    venue: Annotated[
        str | None, Parameter(help="sim, binance-spot, binance-usdm or binance-coinm; of recordings: what their names begin with.")
    ] = None
    symbols: Annotated[
        tuple[str, ...],
        Parameter(help="Symbols such as BTCUSDT,ETHUSDT or binance-usdm:BTCUSDT.", consume_multiple=True, negative=()),
    ] = ()
    seed: Annotated[int | None, Parameter(help="Seed of the simulated market.")] = None
    edge: Annotated[float | None, Parameter(help="Strength of the edge planted in it; 0: none.")] = None
    ws_url: Annotated[str | None, Parameter(help="Base address of the venue's WebSockets, such as a mock exchange's.")] = None
    rest_url: Annotated[str | None, Parameter(help="Base address of the venue's REST.")] = None

    def names(self) -> tuple[tuple[str, str], ...]:
        """Return the symbols as pairs of venue and name; a bare one is of ``venue``, else of the simulator."""
        from alphapack.domain.market import SIMULATOR, name_of, venue_of

        pairs = []
        for symbol in _separate(self.symbols):
            venue = venue_of(symbol).lower() if ":" in symbol else (self.venue or SIMULATOR)
            name = (name_of(symbol) or symbol).upper()
            if not name or not venue:
                raise UsageError(f"expected SYMBOL or VENUE:SYMBOL, found {symbol!r}")
            pairs.append((venue, name))
        if self.venue not in (None, SIMULATOR) and not pairs:
            raise UsageError(f"expected symbols to follow at {self.venue}, found none: give --symbols BTCUSDT")
        return tuple(dict.fromkeys(pairs))

    def overrides(self) -> dict[str, object]:
        """Return what these options set."""
        from alphapack.domain.market import SIMULATOR

        names = self.names()
        simulated = tuple(name for venue, name in names if venue == SIMULATOR)
        if simulated and len(simulated) < len(names):
            raise UsageError("expected symbols of the simulator or of venues, found both: serve them with two commands")
        return {
            "simulator__seed": self.seed,
            "simulator__edge": self.edge,
            "simulator__symbols": simulated or None,
            "live__ws_url": self.ws_url,
            "live__rest_url": self.rest_url,
        }


Plugin = Annotated[
    tuple[str, ...], Parameter(help="Python file of alphas or policies, which is executed; may be given again.", negative=())
]
Venue = Annotated[str | None, Parameter(help="Venue of the files; what their names begin with if left out.")]
Symbols = Annotated[
    tuple[str, ...],
    Parameter(help="Symbols to keep, such as BTCUSDT,ETHUSDT or binance-usdm:BTCUSDT.", consume_multiple=True, negative=()),
]
Paths = Annotated[tuple[Path, ...], Parameter(help="Capture files, or one journal.", required=True)]


@app.command
def serve(
    *,
    capture: Annotated[tuple[Path, ...], Parameter(help="Recordings to serve, merged by time.", consume_multiple=True, negative=())] = (),
    speed: Annotated[str | None, Parameter(help='Times real time (1, 10, ...), or "max".')] = None,
    history: Annotated[
        tuple[str, ...],
        Parameter(help="Candles from before, FILE or SYMBOL=FILE: CSV or Parquet, a row a minute.", consume_multiple=True, negative=()),
    ] = (),
    history_shift: Annotated[bool, Parameter(help="Move them so that they end where the recording begins.", negative=())] = False,
    plugin: Plugin = (),
    market: Market = Market(),
    address: Address = Address(),
    common: Stateful = Stateful(),
) -> int:
    """Serve a market: engine and HTTP API. Without options it is the simulator, which needs no network.

    Example: `alphapack serve`

    Live: `alphapack serve --venue binance-usdm --symbols BTCUSDT,ETHUSDT`

    A recording: `alphapack serve --capture binance-usdm_BTCUSDT_20240808.raw.gz --speed 10`

    With a past: `alphapack serve --capture binance-usdm_BTCUSDT_20240808.raw.gz --history BTCUSDT_1m.csv.gz --history-shift`
    """
    if history_shift and not (history and capture):
        raise UsageError("expected --history-shift with --capture and --history, found it without: what is live has its own time")
    if capture:
        more: dict[str, object] = {
            "core__symbols": _full_names(market.symbols, capture, market.venue) or None,
            "capture__venue": market.venue,
        }
    else:
        if speed is not None:
            raise UsageError("expected --speed with a recording alone, found no --capture: a market goes at its own pace")
        more = market.overrides()
    effective = common.read(
        api__host=address.host, api__port=address.port, capture__speed=_speed(speed), plugins__files=plugin or None, **more
    )
    _check_files(capture)
    from alphapack import app as application
    from alphapack.shell import logs

    settings = application.prepared(effective.settings)
    logs.set_up(settings.log.level, json=settings.log.json)
    if capture:
        source = application.recorded(settings, list(capture), settings.capture.pace, settings.capture.venue, history, history_shift)
    else:
        source = application.market(settings, market.names(), history=history)
    code: int = application.serve(settings, source)
    return code


@app.command
def record(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Capture file VENUE_SYMBOL[_DATE].raw.zst, or a new folder.")],
    seconds: Annotated[float | None, Parameter(help="How long; until interrupted if left out.")] = None,
    speed: Annotated[str | None, Parameter(help='"max": make the simulated market as fast as the machine allows.')] = None,
    start: Annotated[str | None, Parameter(help="With --speed max: when it begins, such as 2026-01-01T00:00:00Z.")] = None,
    plugin: Plugin = (),
    market: Market = Market(),
    common: Common = Common(),
) -> int:
    """Record a market's raw messages, without an API and without trading.

    A file holds one symbol; a folder (a journal) holds everything, and a replay of it is what was recorded, to the bit.

    Example: `alphapack record --symbols BTCUSDT --seconds 60 -o sim_BTCUSDT.raw.zst`

    Live: `alphapack record --venue binance-usdm --symbols BTCUSDT,ETHUSDT -o recording`
    """
    if seconds is not None and not 0 < seconds <= SECONDS_MAX:
        raise UsageError(f"expected --seconds above 0 and up to {SECONDS_MAX} (ten years), found {seconds:g}")
    from alphapack.domain.market import SIMULATOR

    settings = common.read(plugins__files=plugin or None, **market.overrides()).settings
    from alphapack import app as application
    from alphapack.shell import logs

    settings = application.prepared(settings)

    logs.set_up(settings.log.level, json=settings.log.json)
    names = market.names() or tuple((SIMULATOR, name) for name in settings.simulator.symbols)
    if speed is None:
        if start is not None:
            raise UsageError("expected --start with --speed max, found it alone")
        source = application.market(settings, names, past=False)
    else:
        if speed != "max" or seconds is None or names[0][0] != SIMULATOR:
            raise UsageError("expected --speed max with --seconds and the simulator: what is live has a pace of its own")
        source = application.simulated_at_once(settings, _start_ns(start, seconds), seconds)
    with _progress("record", unit="s") as advance:
        engine = application.record(
            settings, source, names, output, seconds if speed is None else None, lambda done: advance(round(done), round(seconds or 0))
        )
    for name, health in application.healths(engine).items():
        print(f"{name}: {health.messages:,} messages, {health.gaps} gaps, {health.resyncs} resyncs, state {health.state}")
    print(f"{engine.source_inputs:,} inputs in {output}, digest {engine.hexdigest()}")
    return DONE if engine.source_inputs else _fail(FAILED, "nothing came")


@app.command
def mock(
    *,
    capture: Annotated[
        tuple[Path, ...], Parameter(help="Recordings to play in place of the simulator.", consume_multiple=True, negative=())
    ] = (),
    venue: Annotated[
        str, Parameter(help="Whose wire it speaks: binance-usdm (the default), binance-spot or binance-coinm.")
    ] = "binance-usdm",
    symbols: Annotated[
        tuple[str, ...], Parameter(help="Symbols of the simulator, such as BTCUSDT,ETHUSDT.", consume_multiple=True, negative=())
    ] = (),
    seed: Annotated[int | None, Parameter(help="Seed of the simulated market and of the faults.")] = None,
    edge: Annotated[float | None, Parameter(help="Strength of the edge planted in that market; 0: none.")] = None,
    port: Annotated[
        int, Parameter(help=f"Port to listen on, of this machine alone; {MOCK_PORT} if left out, 0 takes a free one.")
    ] = MOCK_PORT,
    speed: Annotated[float, Parameter(help="Times real time.")] = 1.0,
    rate: Annotated[float | None, Parameter(help="Messages a second, in place of a pace.")] = None,
    fault_every: Annotated[int, Parameter(help="Messages from one injected fault to the next, in the mean; 0: none.")] = 0,
    fault_kinds: Annotated[tuple[str, ...], Parameter(help="Kinds of faults; all if left out.", consume_multiple=True, negative=())] = (),
    common: Common = Common(),
) -> int:
    """Play an exchange on this machine that speaks Binance's wire, to try things out against, with faults if asked for.

    Example: `alphapack mock --venue binance-usdm --fault-every 5000`
    """
    if capture and symbols:
        raise UsageError("expected --symbols of the simulator alone, found it with --capture: a recording is played whole")
    names = tuple(_name_at(venue, symbol) for symbol in _separate(symbols))
    if not names and venue == "binance-coinm":
        names = ("BTCUSD_PERP", "ETHUSD_PERP")
    settings = common.read(simulator__seed=seed, simulator__edge=edge, simulator__symbols=names or None).settings
    _check_files(capture)
    from alphapack import app as application
    from alphapack.shell import logs

    logs.set_up(settings.log.level, json=settings.log.json)
    code: int = application.mock(
        settings,
        venue,
        list(capture),
        {
            "port": port,
            "speed": speed,
            "rate": rate,
            "fault_every": fault_every,
            **({"fault_kinds": _separate(fault_kinds)} if fault_kinds else {}),
        },
    )
    return code


@app.command
def replay(
    paths: Paths,
    /,
    *,
    venue: Venue = None,
    symbols: Symbols = (),
    plugin: Plugin = (),
    json: Annotated[bool, Parameter(help="Print one JSON document in place of tables.", negative=())] = False,
    common: Common = Common(),
) -> int:
    """Replay captures, files of option chains, or a journal, as fast as the machine allows; print counts, gaps, digest and events/s.

    Example: `alphapack replay binance-usdm_BTCUSDT_20240808.raw.gz`

    Option chains, as CSV, Parquet or JSON: `alphapack replay deribit_chains_2026.csv.xz`
    """
    effective = common.read(capture__venue=venue, core__symbols=_full_names(symbols, paths, venue) or None, plugins__files=plugin or None)
    _check_files(paths)
    from alphapack import app as application
    from alphapack.shell import logs

    settings = application.prepared(effective.settings)
    logs.set_up(settings.log.level, json=settings.log.json)
    with _progress("replay") as advance:
        summary = application.replay(settings, list(paths), venue=settings.capture.venue, progress=advance, complain=_warn)
    if json:
        print(msgspec.json.encode(_summary_document(summary)).decode())
    else:
        _print_summary(summary)
    if not summary.symbols and not summary.chains:
        return _fail(FAILED, f"none of {summary.frames:,} frames could be used; is the venue right?")
    return DONE


@app.command
def backtest(
    paths: Annotated[tuple[Path, ...], Parameter(help="Capture files, merged by time.", required=True)],
    /,
    *,
    report: Annotated[Path | None, Parameter(help="HTML file to write.")] = None,
    history: Annotated[
        tuple[str, ...],
        Parameter(help="Candles from before, FILE or SYMBOL=FILE: CSV or Parquet, a row a minute.", consume_multiple=True, negative=()),
    ] = (),
    history_shift: Annotated[bool, Parameter(help="Move them so that they end where the recording begins.", negative=())] = False,
    venue: Venue = None,
    symbols: Symbols = (),
    plugin: Plugin = (),
    json: Annotated[bool, Parameter(help="Print one JSON document in place of tables.", negative=())] = False,
    common: Common = Common(),
) -> int:
    """Trade recordings on paper: alphas, router, sizes, plans, fills; say who is to be thanked, and bound it by the queue.

    Example: `alphapack backtest binance-usdm_BTCUSDT_20240808.raw.gz --history BTCUSDT_1m.csv.gz --history-shift --report out.html`
    """
    if history_shift and not history:
        raise UsageError("expected --history-shift with --history, found it alone")
    effective = common.read(capture__venue=venue, core__symbols=_full_names(symbols, paths, venue) or None, plugins__files=plugin or None)
    _check_files(paths)
    if report is not None:
        if report.exists() and any(report.samefile(path) for path in paths):
            raise UsageError(f"expected a report other than the recordings, found {report} among them")
        if report.is_dir() or not report.parent.is_dir():
            raise UsageError(f"expected a file in a folder that exists for the report, found {report}")
    from alphapack import app as application
    from alphapack.shell import logs

    settings = application.prepared(effective.settings)
    logs.set_up(settings.log.level, json=settings.log.json)
    with _progress("backtest") as advance:
        found = application.backtest(
            settings,
            list(paths),
            venue=settings.capture.venue,
            history=history,
            shifted=history_shift,
            progress=advance,
            complain=_warn,
        )
    if report is not None:
        from alphapack.shell.backtest_report import html

        report.write_text(html(found), encoding="utf-8")
    if json:
        print(msgspec.json.encode({"change": found.change, "unexplained": found.unexplained, **msgspec.structs.asdict(found)}).decode())
    else:
        _print_backtest(found)
        if report is not None:
            print(f"report {report}")
    return DONE if found.symbols else _fail(FAILED, "no frame could be used; is the venue right?")


@app.command
def evaluate(
    ledger: Annotated[Path, Parameter(help="Ledger of an engine, or its folder.")],
    /,
    *,
    candidate: Annotated[
        tuple[str, ...],
        Parameter(help="NAME:KEY=VALUE,... of [router]: scale, floor, prior_edge, prior_effect; may be given again.", negative=()),
    ] = (),
    json: Annotated[bool, Parameter(help="Print one JSON document in place of a table.", negative=())] = False,
    common: Common = Common(),
) -> int:
    """Compare settings of the router by the decisions in a ledger: what each would have earned, with its interval.

    Without candidates: the settings as they are, and half and a quarter of their scale.

    Example: `alphapack evaluate ./state/sim-1a2b3c4d --candidate bold:scale=1 --candidate timid:scale=0.1,floor=0.02`
    """
    settings = common.read().settings
    tried = _candidates(candidate) or {
        "as set": {},
        "half the scale": {"scale": max(1e-3, 0.5 * settings.router.scale)},
        "a quarter of it": {"scale": max(1e-3, 0.25 * settings.router.scale)},
    }
    from alphapack import app as application

    rows, log = application.evaluate(settings, ledger, tried)
    if json:
        print(msgspec.json.encode({"decisions": len(log.decisions), "left_out": log.left_out, "rows": rows}).decode())
        return DONE
    _print_evaluation(rows)
    print(f"{len(log.decisions):,} decisions; rewards in volatilities to the horizon; intervals of 95%")
    if log.left_out:
        print(f"left out: {log.left_out:,} decisions with other alphas or policies")
    return DONE


@app.command
def convert(
    paths: Paths,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="File to write: .parquet, .raw.gz, .raw.zst or .raw.")],
    venue: Venue = None,
    symbols: Symbols = (),
    common: Common = Common(),
) -> int:
    """Convert recordings (captures, merged by time, or a journal) to Parquet or to one capture file.

    Files of data.binance.vision (zip), Tardis (csv.gz) and hftbacktest (npz) are read too.

    Example: `alphapack convert binance-usdm_BTCUSDT_20240808.raw.gz -o btcusdt.parquet`

    Of another program: `alphapack convert BTCUSDT-aggTrades-2024-08-08.zip --venue binance-usdm -o binance-usdm_BTCUSDT_20240808.raw.zst`
    """
    settings = common.read(capture__venue=venue).settings
    _check_files(paths)
    if output.exists() and any(output.samefile(path) for path in paths):
        raise UsageError(f"expected an output other than the inputs, found {output} among them")
    if not output.parent.is_dir():
        raise UsageError(f"expected a folder to write to, found none at {output.parent}")
    from alphapack.shell.captures import Line, Recording, open_inputs
    from alphapack.shell.convert import convert as write
    from alphapack.shell.convert import lines_of, named
    from alphapack.shell.importers import Foreign, open_foreign

    def report(complaint: object) -> None:
        _warn(str(complaint))

    keep = {name.upper() for name in _separate(symbols)}
    alone = next(iter(keep)).rpartition(":")[2] if len(keep) == 1 else None
    source: Foreign | Recording | None = open_foreign(list(paths), settings.capture.venue, alone, report)
    if isinstance(source, Foreign):
        every: Iterator[Line] = iter(source)
    else:
        source = open_inputs(list(paths), settings.core, venue=settings.capture.venue, report=report)
        every = lines_of(source)
    with _progress("convert") as advance:
        lines = (
            line
            for line in _counting(every, lambda: advance(source.bytes_read, source.bytes_total))
            if not keep or (name := named(line).upper()) in keep or not name or f"{line.venue}:{name}".upper() in keep
        )
        rows = write(lines, output)
    if not rows:
        return _fail(FAILED, "no message was written: none is of the symbols to keep" if keep else "no message was found")
    print(f"{rows} messages in {output}, {output.stat().st_size} bytes")
    if source.complaints:
        _warn(f"{source.complaints} complaints about the input")
    return DONE


@app.command
def init(path: Annotated[Path, Parameter(help="File to write.")] = Path(config.FILE_NAME), /) -> int:
    """Write a settings file in which every setting stands commented at its default.

    Example: `alphapack init`
    """
    try:
        # It may come to hold a token, so nobody else may read it from the start.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"expected no settings file yet, found {path}: name another one, or move it away") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(config.example_toml())
    print(f"{path} written: remove the # before a key to change it")
    return DONE


new = App(name="new", help="Write a file to begin with.", default_parameter=Parameter(show_default=False))
app.command(new)


@new.command(name="alpha")
def new_alpha(
    name: Annotated[str, Parameter(help="Its id: small letters, digits and _.")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="File to write; NAME.py if left out.")] = None,
) -> int:
    """Write a working plugin with one alpha, to edit.

    Example: `alphapack new alpha my_alpha`, then `alphapack serve --plugin my_alpha.py`
    """
    from alphapack.shell.plugins import new_alpha as text_of

    text, path = text_of(name), output or Path(f"{name}.py")
    if not path.parent.is_dir():
        raise UsageError(f"expected a folder to write to, found none at {path.parent}")
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UsageError(f"expected no file yet, found {path}: name another one with --output") from None
    print(f"{path} written: edit it, then alphapack serve --plugin {path}")
    return DONE


@app.command(name="config")
def show_config(*, address: Address = Address(), common: Stateful = Stateful()) -> int:
    """Print the effective settings, secrets masked, each with its source.

    Example: `alphapack config --port 5001`
    """
    effective = common.read(api__host=address.host, api__port=address.port)
    for section, values in config.masked(effective.settings).items():
        for key, value in values.items():
            name = f"{section}.{key}"
            text = msgspec.json.encode(value).decode() if value is not None else "not set"
            print(f"{name} = {text}  # {effective.sources.get(name, 'default')}")
    return DONE


@app.command
def doctor(*, address: Address = Address(), common: Stateful = Stateful()) -> int:
    """Check settings, state, clock, disk, versions and port.

    Example: `alphapack doctor`
    """
    from rich.console import Console
    from rich.table import Table

    from alphapack.shell.doctor import Check, examine
    from alphapack.shell.folders import FolderError, data_dir

    checks: list[Check] = []
    try:
        effective = common.read(api__host=address.host, api__port=address.port)
        checks.append(Check("settings", True, f"{len(effective.sources)} set, the rest at their defaults"))
        settings = effective.settings
    except config.SettingsError as error:
        checks.append(Check("settings", False, str(error)))
        settings = config.Settings()
    try:
        checks += examine(data_dir(settings.storage.data_dir, os.environ, _warn), settings.api.host, settings.api.port)
    except FolderError as error:
        checks.append(Check("data folder", False, str(error)))
    table = Table("check", "", "found", box=None)
    for check in checks:
        table.add_row(check.name, "[green]ok" if check.ok else "[red]FAILED", _literal(check.detail))
    Console(width=None if sys.stdout.isatty() else _FILE_COLUMNS).print(table)
    return DONE if all(check.ok for check in checks) else FAILED


@app.command
def reset(
    *,
    yes: Annotated[bool, Parameter(help="Do not ask.", negative=())] = False,
    common: Stateful = Stateful(),
) -> int:
    """Erase the state of every engine in the data folder, after asking; refused while one runs.

    Example: `alphapack reset --data-dir ./state`
    """
    from alphapack.shell import folders

    data = folders.data_dir(common.read().settings.storage.data_dir, os.environ, _warn)
    found = list(folders.engines(data))
    if not found:
        print(f"nothing to erase in {data}")
        return DONE
    with contextlib.ExitStack() as probes:  # Refuse before asking, and before the first of several is gone.
        for folder in found:
            probes.enter_context(folders.Lock(folder.lock))
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("expected somebody to ask, found no terminal: give --yes to erase without asking")
        names = ", ".join(folder.root.name for folder in found)
        if input(f"Erase journal, checkpoints and ledger of {names} in {data}? [y/N] ").strip().lower() not in {"y", "yes"}:
            print("nothing erased")
            return FAILED
    for folder in found:
        for path in folders.reset(folder):
            print(f"erased {path}")
    return DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        see = " ".join(["alphapack", *(error.command_chain or ())])
        return _fail(USAGE, f"{error} (see {see} --help)")
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, "interrupted")
    except (UsageError, config.SettingsError) as error:
        return _fail(USAGE, str(error))
    except BrokenPipeError:  # Whoever read our output has enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        code = _code_of(error)
        if code is None:
            raise  # A fault of ours: its trace is what a report needs, and Python's exit code is FAILED.
        return _fail(code, str(error))
    return code if isinstance(code, int) else DONE


def _code_of(error: Exception) -> int | None:
    """Return the exit code of an error that a user can act on, None for any other."""
    from alphapack.api.server import CannotListen, RefusedBind
    from alphapack.domain.feeds import UnknownSymbol, UnknownVenue
    from alphapack.domain.simulation import SimulationRefused
    from alphapack.engine.engine import OtherPlugins
    from alphapack.shell.audit import AuditError
    from alphapack.shell.candle_files import CandleFileError
    from alphapack.shell.captures import CaptureError
    from alphapack.shell.chain_files import ChainFileError
    from alphapack.shell.convert import ConversionError
    from alphapack.shell.folders import AlreadyRunning, FolderError
    from alphapack.shell.journal import JournalError, JournalLocked
    from alphapack.shell.ledger import LedgerError
    from alphapack.shell.plugins import PluginError
    from alphapack.shell.recovery import RecoveryError
    from alphapack.shell.rest import RestError
    from alphapack.shell.tapes import TapeError

    usage = (
        *(CaptureError, ConversionError, FolderError, AlreadyRunning, JournalLocked, RefusedBind, CannotListen),
        *(UnknownSymbol, UnknownVenue, SimulationRefused, TapeError, CandleFileError, ChainFileError, PluginError, OtherPlugins),
        *(AuditError,),
    )
    if isinstance(error, usage):
        return USAGE
    return FAILED if isinstance(error, OSError | JournalError | LedgerError | RecoveryError | RestError) else None


def _fail(code: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _check_files(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise UsageError(f"expected a file, found nothing at {path}")


def _speed(text: str | None) -> float | str | None:
    """Return what the setting takes: a number, or ``max``; anything else is for the settings to refuse."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _full_names(symbols: Sequence[str], paths: Sequence[Path], venue: str | None) -> tuple[str, ...]:
    """Return full names; a bare one is meant at every venue that the files name."""
    if not symbols:
        return ()
    from alphapack.domain.market import name_of, symbol_id, venue_of
    from alphapack.shell.captures import OR_VENUE, source_name

    _check_files(paths)
    venues = sorted({source_name(path, venue, otherwise=OR_VENUE)[0] for path in paths if path.is_file()})
    names: list[str] = []
    for symbol in _separate(symbols):
        stated = [venue_of(symbol).lower()] if ":" in symbol else venues
        if not stated:
            raise UsageError(f"expected VENUE:SYMBOL for a journal, which names no venue, found {symbol!r}")
        names += [symbol_id(of, name_of(symbol) or symbol) for of in stated]
    return tuple(dict.fromkeys(names))


def _start_ns(text: str | None, seconds: float) -> int | None:
    """Return a UTC time such as ``2026-01-01T00:00:00Z`` in nanoseconds, from which ``seconds`` must end before 2100."""
    from datetime import datetime, timedelta

    epoch, end = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"expected a UTC time such as 2026-01-01T00:00:00Z, found {text!r}") from None
    time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    if not epoch <= time < end or seconds > (end - time).total_seconds():
        raise UsageError(f"expected --start from 1970 on, and --seconds that end before 2100, found {text!r} and {seconds:g}")
    return (time - epoch) // timedelta(microseconds=1) * 1_000


def _name_at(venue: str, symbol: str) -> str:
    """Return the name of SYMBOL or VENUE:SYMBOL, which must be of ``venue``."""
    stated, _, name = symbol.rpartition(":")
    if not name or stated.lower() not in ("", venue):
        raise UsageError(f"expected symbols of {venue}, found {symbol!r}: an exchange is of one --venue")
    return name.upper()


def _separate(symbols: Sequence[str]) -> list[str]:
    """Return the symbols of ``A,B C`` one by one."""
    return [symbol for text in symbols for symbol in text.split(",") if symbol]


def _counting(items: Iterator[_T], tell: Callable[[], None], every: int = 10_000) -> Iterator[_T]:
    for count, item in enumerate(items):
        if count % every == 0:
            tell()
        yield item


@contextlib.contextmanager
def _progress(what: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error where it is a terminal; the callable takes what is done and in all (0: not known).

    ``unit`` empty counts bytes.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    counted: tuple[ProgressColumn, ...] = (DownloadColumn(), TransferSpeedColumn())
    if unit:
        counted = (TextColumn(f"{{task.completed}} {unit}"),)
    columns = (TextColumn("{task.description}"), BarColumn(), *counted, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _literal(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _rate(summary: "ReplaySummary") -> float | None:
    return summary.inputs / summary.seconds if summary.seconds > 0.0 else None


def _summary_document(summary: "ReplaySummary") -> dict[str, object]:
    return {
        "inputs": summary.inputs,
        "frames": summary.frames,
        "seconds": summary.seconds,
        "events_per_s": _rate(summary),
        "span_s": summary.span_s,
        "complaints": summary.complaints,
        "digest": summary.digest,
        "symbols": {
            name: {**msgspec.to_builtins(health), "kinds": summary.kinds.get(name, {})} for name, health in summary.symbols.items()
        },
        "chains": msgspec.to_builtins(summary.chains),
    }


def _print_summary(summary: "ReplaySummary") -> None:
    if summary.symbols or not summary.chains:
        _print_books(summary)
    if summary.chains:
        _print_chains(summary)
    rate = _rate(summary)
    speed = f"{rate:,.0f} events/s" if rate is not None and math.isfinite(rate) else "no rate"
    print(f"inputs {summary.inputs:,}, frames {summary.frames:,}, complaints {summary.complaints:,}")
    print(f"span {summary.span_s:,.1f} s in {summary.seconds:.2f} s, {speed}")
    print(f"digest {summary.digest}")


def _print_books(summary: "ReplaySummary") -> None:
    rows = []
    for name, health in sorted(summary.symbols.items()):
        numbers = (
            health.gaps,
            health.crossed,
            health.resyncs,
            health.duplicates,
            health.ticker_checked,
            health.ticker_mismatched,
            health.rejected,
            health.trades_missed,
        )
        rows.append((name, health.state, *(f"{number:,}" for number in numbers)))
    _print_table(("symbol", "state"), ("gaps", "crossed", "resyncs", "doubles", "checked", "differ", "rejected", "missed"), rows)
    print("(doubles: updates seen before; checked, differ: tops of book compared with the venue's ticker; missed: trades)")
    for name, kinds in sorted(summary.kinds.items()):
        print(f"{name}: {', '.join(f'{kind} {count:,}' for kind, count in sorted(kinds.items()))}")


def _candidates(texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return what ``NAME:KEY=VALUE,...`` says, by name."""
    found: dict[str, dict[str, float]] = {}
    for text in texts:
        name, colon, rest = text.partition(":")
        try:
            pairs = {key.strip(): float(value) for key, value in (pair.split("=") for pair in rest.split(","))}
        except ValueError:
            pairs = {}
        if not name or not colon or not pairs or name in found or not set(pairs) <= set(BELIEFS):
            raise UsageError(f"expected NAME:KEY=VALUE,... with a new name, keys of {', '.join(BELIEFS)} and numbers, found {text!r}")
        found[name] = pairs
    return found


def _print_evaluation(rows: Sequence["Row"]) -> None:
    def interval(value: float, low: float, high: float) -> str:
        return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"

    table = []
    for row in rows:
        if row.ips_snips is None or row.dr is None:
            table.append((row.name, f"{row.ess:,.0f}", row.reason, "", ""))
            continue
        ips, dr = row.ips_snips, row.dr
        table.append(
            (
                row.name,
                f"{row.ess:,.0f}",
                interval(ips.ips, ips.ips_low, ips.ips_high),
                interval(ips.snips, ips.snips_low, ips.snips_high),
                interval(dr.dr, dr.dr_low, dr.dr_high),
            )
        )
    _print_table(("policy",), ("effective rows", "IPS", "SNIPS", "doubly robust"), table)


def _print_backtest(found: "Backtest") -> None:
    from alphapack.domain.money import UNITS

    def money(value: int) -> str:
        return f"{value / UNITS:,.2f}" if not value or abs(value) >= UNITS else f"{value / UNITS:.6f}"

    for note in found.notes:
        print(f"note: {note}")
    _print_table(
        ("policy",),
        ("decisions", "trades", "pnl"),
        [(one.policy, f"{one.decisions:,}", f"{one.trades:,}", money(one.pnl)) for one in found.policies],
    )
    rows = [(one.id, f"{one.trades:,}", money(one.pnl)) for one in found.alpha_pnl if one.trades]
    rows += [(name, "", money(value)) for name, value in (("base", found.base), ("execution", found.execution), ("fees", found.fees))]
    _print_table(
        ("alpha",), ("trades", f"pnl, {found.currency}"), [*rows, ("total of closed trades", f"{len(found.trades):,}", money(found.total))]
    )
    for one in found.bounds:
        print(f"queue {one.queue}: pnl {money(one.pnl)} {found.currency}, trades {one.trades:,}, fills {one.fills:,}")
    minutes = (found.to_ms - found.from_ms) / 60_000
    print(f"{found.inputs:,} inputs, {minutes:,.1f} minutes in {found.seconds:.1f} s, all runs together")
    print(f"digest {found.digest}")


def _print_chains(summary: "ReplaySummary") -> None:
    rows = []
    for base, one in sorted(summary.chains.items()):
        counts = (one.chains, one.failed, one.accepted, one.rejected)
        last = (one.last.atm_iv, one.last.rr25, one.last.fly25, one.last.iv_term_slope, one.last.skew_z) if one.last else (None,) * 5
        rows.append((base, *(f"{count:,}" for count in counts), *("-" if value is None else f"{value:.4f}" for value in last)))
    _print_table(("options",), ("chains", "failed", "rows", "rejected", "atm_iv", "rr25", "fly25", "iv_term_slope", "skew_z"), rows)
    print("(failed: chains that could not be read; rows, rejected: quotes of the others; the rest: as the last chain says)")


def _print_table(names: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", overflow="fold")  # A cut number would be a wrong one.
    for row in rows:
        table.add_row(*map(_literal, row))
    Console(width=None if sys.stdout.isatty() else _FILE_COLUMNS).print(table)
