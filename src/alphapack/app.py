"""Composition root: the only module that names concrete parts."""

import asyncio
import functools
import gc
import hashlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack
from os import _exit, environ
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog

from alphapack import jit
from alphapack.alphas import ALPHAS
from alphapack.api import server
from alphapack.config import Settings, SettingsError, masked
from alphapack.domain.backtest import Backtest
from alphapack.domain.events import Record, SmileChanged, WorkFailed
from alphapack.domain.feeds import FeedPlan, UnknownVenue
from alphapack.domain.inputs import AnyInput, CoreSettings, Frame, History
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, SIMULATOR, BinanceMarket, name_of, symbol_id, venue_of
from alphapack.domain.readings import SymbolHealth
from alphapack.domain.simulation import SimulationRefused
from alphapack.engine.engine import Engine
from alphapack.models import (
    arms,
    bandit,
    book,
    calibration,
    chain,
    evaluation,
    impact_work,
    matching,
    microprice,
    shapley,
    simulator,
    sweep,
    volatility,
)
from alphapack.models.registry import Registry
from alphapack.policies import POLICIES
from alphapack.services.microstructure import MICROPRICE
from alphapack.shell import audit, captures, folders, offloop, plugins, recorder
from alphapack.shell import backtest as backtests
from alphapack.shell.backtest import Tally
from alphapack.shell.candle_files import CandleFileError, load
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.clock import Clock, SetClock, SystemClock
from alphapack.shell.committer import Committer
from alphapack.shell.journal import FileJournal
from alphapack.shell.ledger import SqliteLedger
from alphapack.shell.recovery import recover
from alphapack.shell.runner import Runner
from alphapack.shell.simulated import HISTORY_MINUTES, SimulatedMarket
from alphapack.venues import binance, binance_api

if TYPE_CHECKING:
    from alphapack.shell.mock import MockExchange

_T = TypeVar("_T")

LIVE_STALE_MS = 2_000
"""Silence after which a book of a live market is STALE: its depth streams send ten times a second."""
WORK_DELAY_NS = 50_000_000
"""How long after its request off-loop work answers in a replay of a recording."""
PROGRESS_EVERY = 2_000
CLOSE_TIMEOUT_S = 20.0
SWITCH_S = 0.0005
"""How long the committer's thread may keep the interpreter while the loop wants it (Python's own 5 ms is our whole budget)."""
WORKS: Mapping[str, offloop.Work] = {
    MICROPRICE: microprice.work,
    volatility.WORK: volatility.work,
    chain.WORK: chain.work,
    impact_work.WORK: impact_work.work,
}
"""Off-loop work that a recording has means for. Its snapshots are in it."""

_log = structlog.get_logger("alphapack")


BUILT_IN = Registry(ALPHAS, POLICIES)


def build(registry: Registry = BUILT_IN) -> Engine:
    """Return a fresh engine with every codec there is."""
    return Engine(binance.codecs(), registry)


@functools.lru_cache(maxsize=8)
def _loaded(files: tuple[str, ...], packages: bool, contents: tuple[bytes, ...]) -> Registry:
    """Load plugins, once for what their files hold."""
    found = plugins.load([Path(name) for name in files], packages=packages)
    return Registry(found.alphas, found.policies, found.fingerprint)


def registry_of(settings: Settings) -> Registry:
    """Return the alphas and policies that settings name; their files are executed once. Raises ``PluginError``."""
    files = settings.plugins.files
    contents = tuple(hashlib.blake2b(path.read_bytes()).digest() if (path := Path(name)).is_file() else b"" for name in files)
    return _loaded(files, settings.plugins.packages, contents)


def prepared(settings: Settings) -> Settings:
    """Return settings that say by which plugins an engine computes. Raises ``PluginError``, ``SettingsError`` for names that are none."""
    registry = registry_of(settings)
    try:
        registry.without(settings.core.router.without)
    except ValueError as error:
        raise SettingsError(f"[router] without: {error}") from None
    return msgspec.structs.replace(settings, core=msgspec.structs.replace(settings.core, plugins=registry.plugins))


def venues() -> list[str]:
    """Return the names of the venues that can be read."""
    return [codec.venue for codec in binance.codecs()]


class ReplaySummary(msgspec.Struct, frozen=True):
    """What a replay counted."""

    inputs: int
    frames: int
    seconds: float
    span_s: float
    digest: str
    gaps: int
    crossed: int
    complaints: int
    symbols: dict[str, SymbolHealth]
    kinds: dict[str, dict[str, int]]
    chains: dict[str, "ChainSummary"]
    """Of each base asset with option chains."""


class ChainSummary(msgspec.Struct):
    """What the option chains of one base asset came to."""

    chains: int = 0
    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    """Chains that could not be read."""
    last: SmileChanged | None = None


def record_of(paths: list[Path], settings: Settings, venue: str | None, complain: Callable[[str], None]) -> captures.Recording:
    """Open captures, or one journal, as the input stream that they are."""
    return captures.open_inputs(paths, settings.core, venue=venue, report=lambda one: complain(str(one)), venues=venues())


def steps(engine: Engine, recording: captures.Recording) -> Iterator[tuple[AnyInput, list[Record]]]:
    """Step a recording to its end, complaining of each line that cannot be used."""
    for entry, records in offloop.steps(engine, recording, WORKS if recording.capture is not None else {}, WORK_DELAY_NS):
        if engine.rejection is not None:
            recording.reject(engine.rejection, entry.seq)
        yield entry, records


def replay(
    settings: Settings,
    paths: list[Path],
    *,
    venue: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    complain: Callable[[str], None],
) -> ReplaySummary:
    """Step recordings as fast as the machine allows and return what was counted."""
    book.warm()
    engine, recording = build(registry_of(settings)), record_of(paths, settings, venue, complain)
    frames, first_ns = 0, 0
    chains: dict[str, ChainSummary] = {}
    clock = SystemClock()
    started_ns = clock.now_ns()
    for entry, records in steps(engine, recording):
        for record in records:
            _count_chain(chains, record)
        if type(entry) is Frame:
            frames += 1
        if not first_ns:
            first_ns = entry.ts_ns
        if progress is not None and engine.seq % PROGRESS_EVERY == 0:
            progress(recording.bytes_read, recording.bytes_total)
    if recording.capture is not None and recording.capture.complaints_suppressed:
        complain(f"and {recording.capture.complaints_suppressed:,} more lines that cannot be used")
    seconds = (clock.now_ns() - started_ns) / NANOS_PER_S
    market = engine.microstructure
    symbols = healths(engine)
    return ReplaySummary(
        inputs=engine.seq,
        frames=frames,
        seconds=seconds,
        span_s=(engine.now_ns - first_ns) / NANOS_PER_S,
        digest=engine.hexdigest(),
        gaps=sum(one.gaps for one in symbols.values()),
        crossed=sum(one.crossed for one in symbols.values()),
        complaints=recording.complaints,
        symbols=symbols,
        kinds={name: market.kinds(name) for name in market.symbols()},
        chains=chains,
    )


QUEUES = ("risk_averse", "optimistic")
"""What is believed of the queue ahead of a resting order at the two bounds: cancels are behind it, or before it."""


def backtest(
    settings: Settings,
    paths: list[Path],
    *,
    venue: str | None = None,
    history: Sequence[str] = (),
    shifted: bool = False,
    progress: Callable[[int, int], None] | None = None,
    complain: Callable[[str], None],
) -> Backtest:
    """Trade recordings on paper, once with the queue as it is set and once for each bound, and return what came of it.

    ``history`` and ``shifted`` are as ``recorded`` has them; ``progress`` is told the bytes read, of all runs together.
    """
    book.warm()
    clock = SystemClock()
    started_ns = clock.now_ns()
    queues = list(dict.fromkeys((settings.core.execution.queue, *QUEUES)))
    tallies: list[Tally] = []
    for nth, queue in enumerate(queues):
        execution = msgspec.structs.replace(settings.core.execution, queue=queue)
        run = msgspec.structs.replace(settings, core=msgspec.structs.replace(settings.core, execution=execution))
        engine, recording = build(registry_of(run)), record_of(paths, run, venue, complain if nth == 0 else lambda text: None)
        if recording.capture is None:
            raise captures.CaptureError(
                "expected captures to trade on, found a journal, which has its own settings: look into it with replay"
            )
        if history:
            recording.history = _history_of(recording.capture, run.core, history, shifted)

        def tell(engine: Engine = engine, recording: captures.Recording = recording, before: int = nth) -> None:
            if progress is not None and engine.seq % PROGRESS_EVERY == 0:
                progress(before * recording.bytes_total + recording.bytes_read, len(queues) * recording.bytes_total)

        tallies.append(backtests.run(engine, steps(engine, recording), tell))
    bounds = [backtests.bound(tally, queue) for tally, queue in zip(tallies, queues, strict=True) if queue in QUEUES]
    seconds = (clock.now_ns() - started_ns) / NANOS_PER_S
    return backtests.result(tallies[0], bounds, settings.core, [path.name for path in paths], seconds, _notes(tallies[0], history, shifted))


def evaluate(settings: Settings, path: Path, tried: Mapping[str, Mapping[str, float]]) -> tuple[list[evaluation.Row], audit.Audit]:
    """Return what other settings of the router would have earned by a ledger's decisions; ``tried`` changes those that are set.

    Raises ``AuditError``, and ``SettingsError`` where one cannot be.
    """
    log = audit.read(path)
    candidates = {}
    for name, changed in tried.items():
        try:
            candidates[name] = arms.beliefs(msgspec.structs.replace(settings.core.router, **changed), log.alphas)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"candidate {name}: {error}") from None
    try:
        return evaluation.evaluate(log.decisions, candidates, pooled=True), log
    except ValueError as error:
        raise audit.AuditError(str(error)) from None


def _notes(tally: Tally, history: Sequence[str], shifted: bool) -> list[str]:
    """Return what a reader should know before believing a backtest."""
    notes = []
    if shifted:
        notes.append("Candles of another time were moved to where the recording begins: volatilities are of that time.")
    if not tally.informed:
        notes.append("Nothing was decided: a forecast of volatility needs candles of a week before the recording, given with --history.")
    elif not tally.trades:
        notes.append("No trade closed.")
    minutes = (tally.to_ns - tally.from_ns) / (60 * NANOS_PER_S)
    if minutes < 24 * 60:
        notes.append(f"The recording is of {minutes:.1f} minutes: no number here tells a skill from chance.")
    return notes


def _count_chain(chains: dict[str, ChainSummary], record: Record) -> None:
    if isinstance(record, SmileChanged):
        one = chains.setdefault(record.symbol, ChainSummary())
        one.chains, one.accepted, one.rejected = one.chains + 1, one.accepted + record.accepted, one.rejected + record.rejected
        one.last = record
    elif isinstance(record, WorkFailed) and record.work == chain.WORK:
        chains.setdefault(record.symbol, ChainSummary()).failed += 1


class Source(msgspec.Struct, frozen=True):
    """A market to serve: how it is named, and what follows it once the engine stands."""

    folder: str
    """Name of the engine's folder."""
    text: str
    default_venue: str
    follow: Callable[[Runner], Coroutine[None, None, None]]
    """Returns at the end of a market that has one."""
    clock: Clock | None = None
    """None: the market's own times are the engine's."""
    warm: Callable[[], None] = lambda: None
    """Loads the kernels that this market alone needs, or compiles them."""


def recorded(
    settings: Settings,
    capture_paths: list[Path],
    speed: float,
    venue: str | None = None,
    history: Sequence[str] = (),
    shifted: bool = False,
) -> Source:
    """Return recordings as a market, at ``speed`` times their own pace.

    ``history`` names files of candles from before, as ``candle_files.load`` takes them; ``shifted``: they are of another time,
    and are moved so that they end where the recordings begin.
    """
    recording = record_of(capture_paths, settings, venue, lambda text: _log.warning("capture", detail=text))
    if recording.capture is None:
        raise captures.CaptureError("expected captures to serve, found a journal: look into it with alphapack replay")
    folder = f"capture-{recording.capture.fingerprint()}"
    if history:
        recording.history = _history_of(recording.capture, settings.core, history, shifted)
        digest = hashlib.blake2b(folder.encode(), digest_size=8)
        for page in recording.history:
            digest.update(msgspec.msgpack.encode(page))
        folder = f"capture-{digest.hexdigest()}"  # Another past is another course of events.

    capture = recording.capture

    async def follow(runner: Runner) -> None:
        runner.starting("reading option chains")
        await asyncio.to_thread(capture.load)
        await runner.play(recording, speed, lambda reason: recording.reject(reason, runner.engine.seq), WORKS, WORK_DELAY_NS)

    text = f"capture {', '.join(path.name for path in recording.capture.paths)}"
    return Source(folder, text, next((venue for venue, _ in recording.capture.names), ""), follow)


def _history_of(capture: captures.Capture, core: CoreSettings, files: Sequence[str], shifted: bool) -> list[History]:
    """Return what files say of the time before a recording, as inputs; of what it holds itself nothing may be known before."""
    named = dict.fromkeys(symbol_id(venue, name) for venue, name in capture.names if name)
    unnamed = dict.fromkeys(venue for venue, name in capture.names if not name)
    pasts = load(files, core.symbols or list(named), () if core.symbols else list(unnamed))
    if len(pasts) > core.symbols_max:
        raise CandleFileError(f"expected history of at most {core.symbols_max} symbols (core.symbols_max), found {len(pasts)}")
    start_ms = (capture.start_ns() or 0) // NANOS_PER_MS
    pages: list[History] = []
    for past in pasts:
        used = past.shifted(start_ms) if shifted else past.before(start_ms)
        if len(used.rows) == 0:
            raise CandleFileError(
                f"expected candles of {past.symbol} from before the recording, found none: "
                "give --history-shift to move candles of another time to where it begins"
            )
        left_out, shift_min = len(past.rows) - len(used.rows), used.shift_ms // 60_000
        _log.info("history", symbol=past.symbol, candles=len(used.rows), left_out=left_out, shift_min=shift_min)
        pages += used.pages()
    return pages


def simulated_at_once(settings: Settings, start_ns: int | None, seconds: float) -> Source:
    """Return so many seconds of the market that comes with the engine, made as fast as the machine allows.

    They begin at ``start_ns``; None: so long ago that they end now.
    """
    past_ns = round(seconds * NANOS_PER_S)
    clock = SetClock(start_ns + past_ns) if start_ns is not None else SetClock(SystemClock().now_ns())
    market = SimulatedMarket(settings.simulator, _live_core(settings), clock, WORKS, WORK_DELAY_NS, past_ns=past_ns, history_minutes=0)
    return Source("", f"simulator, seed {settings.simulator.seed}", SIMULATOR, market.make, market, simulator.warm)


def simulated(settings: Settings, *, past: bool = True) -> Source:
    """Return the market that comes with the engine, with an hour of order flow and thirty days of candles behind it if asked for."""
    clock = SystemClock()
    lengths = {} if past else {"past_ns": 0, "history_minutes": 0}
    market = SimulatedMarket(settings.simulator, _live_core(settings), clock, WORKS, WORK_DELAY_NS, **lengths)
    name = hashlib.blake2b(msgspec.msgpack.encode(settings.simulator), digest_size=8).hexdigest()
    return Source(f"{SIMULATOR}-{name}", f"simulator, seed {settings.simulator.seed}", SIMULATOR, market.run, market, simulator.warm)


def live(settings: Settings, symbols: Sequence[str], history: Sequence[str] = ()) -> Source:
    """Return the venues of ``symbols``, full names, as a market; ``history`` names files of candles from before."""
    from alphapack.shell.live import LiveMarkets  # HTTP clients are for those who go to a venue.

    clock = SystemClock()
    core = msgspec.structs.replace(_live_core(settings), symbols=tuple(symbols))
    names: dict[str, list[str]] = {}
    for symbol in symbols:
        names.setdefault(venue_of(symbol), []).append(name_of(symbol))
    plans = {plan.venue: plan for plan in binance_api.plans()}
    unknown = sorted(set(names) - set(plans))
    if unknown:
        raise UnknownVenue(f"expected a venue of {', '.join(plans)}, or {SIMULATOR}, found {unknown[0]!r}")
    followed: dict[FeedPlan, tuple[str, ...]] = {plans[venue]: tuple(named) for venue, named in names.items()}
    pasts = load(history, tuple(symbols))
    markets = LiveMarkets(followed, settings.live.feed, core, clock, WORKS, int(settings.live.history_days * 1_440), pasts=pasts)
    text = ", ".join(f"{venue} {' '.join(named)}" for venue, named in names.items())
    folder = f"live-{'+'.join(sorted(names))}"
    if elsewhere := [
        url for url in (settings.live.ws_url, settings.live.rest_url) if url
    ]:  # What a mock exchange sends is no past of the venue.
        folder += f"-{hashlib.blake2b(' '.join(elsewhere).encode(), digest_size=4).hexdigest()}"
    return Source(folder, text, next(iter(names)), markets.run, clock)


def market(settings: Settings, names: tuple[tuple[str, str], ...], *, past: bool = True, history: Sequence[str] = ()) -> Source:
    """Return the market of ``names``, pairs of venue and name; without any it is the simulator.

    ``past``: whether the simulator has one behind it at the start. ``history`` names files of candles for any other market.
    """
    if all(venue == SIMULATOR for venue, _ in names):
        if history:
            raise SimulationRefused("expected no history for the simulator, which makes its own: give it with --capture, or with a venue")
        return simulated(settings, past=past)
    return live(settings, [symbol_id(venue, name) for venue, name in names], history)


def _live_core(settings: Settings) -> CoreSettings:
    """Return the core's settings for a market whose depth comes ten times a second, unless the user set them otherwise."""
    if settings.core.stale_after_ms != CoreSettings().stale_after_ms:
        return settings.core
    return msgspec.structs.replace(settings.core, stale_after_ms=LIVE_STALE_MS)


def record(
    settings: Settings,
    source: Source,
    symbols: tuple[tuple[str, str], ...],
    out: Path,
    seconds: float | None,
    tell: Callable[[float], None],
) -> Engine:
    """Write down what a market sends, until its end, for ``seconds`` or until a signal; returns the engine that followed along.

    ``symbols`` are pairs of venue and name; ``tell`` is told the seconds done.
    """
    with ExitStack() as stack:
        sink = recorder.sink_of(out, symbols, stack)
        engine, failed = _run(_record(settings, source, sink, seconds, tell))
    if failed is not None:  # What came before is kept.
        raise failed
    return engine


async def _record(
    settings: Settings, source: Source, sink: recorder.Sink, seconds: float | None, tell: Callable[[float], None]
) -> tuple[Engine, Exception | None]:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await _make_kernels_ready(source.warm)
    runner = Runner(build(registry_of(settings)), source=source.text, clock=source.clock, config=lambda: dict(masked(settings)))
    try:
        await recorder.record(runner, source.follow, sink, seconds, stopping, tell)
    except Exception as error:
        return runner.engine, error
    return runner.engine, None


def healths(engine: Engine) -> dict[str, SymbolHealth]:
    """Return how well the data of each symbol holds together."""
    return {name: engine.microstructure.health(name) for name in engine.microstructure.symbols()}


def mock(settings: Settings, venue: str, capture_paths: list[Path], options: Mapping[str, object]) -> int:
    """Play an exchange on this machine until a signal stops it; ``options`` are those of ``MockSettings``."""
    from alphapack.shell.faults import KINDS
    from alphapack.shell.mock import MockExchange, MockSettings, PortTaken
    from alphapack.shell.tapes import CaptureTape, Tape, TapeError

    codecs = {codec.venue: codec for codec in binance.codecs()}
    if not venue.startswith("binance-") or venue not in codecs:
        known = ", ".join(name for name in codecs if name != SIMULATOR)
        raise UnknownVenue(f"expected a venue of {known}, found {venue!r}")
    kind = msgspec.convert(venue.removeprefix("binance-"), BinanceMarket)
    kinds = options.get("fault_kinds", ())
    unknown = [one for one in kinds if one not in KINDS] if isinstance(kinds, list | tuple) else []
    if unknown:
        raise TapeError(f"expected faults of the kinds {', '.join(KINDS)}, found {unknown[0]!r}")
    try:
        played = msgspec.convert({**options, "market": kind, "seed": settings.simulator.seed}, MockSettings)
    except msgspec.ValidationError as error:
        raise TapeError(f"mock: {error}") from None
    if capture_paths:
        found = captures.Capture(capture_paths, venue=venue, report=lambda one: _log.warning("capture", detail=str(one)), venues=venues())
        tape: Tape = CaptureTape(found, codecs[venue], kind)
    else:
        try:
            tape = simulator.Simulator(settings.simulator, SystemClock().now_ns(), market=kind, history_minutes=HISTORY_MINUTES)
        except ValueError as error:
            raise SimulationRefused(str(error)) from None
    try:
        exchange = MockExchange(tape, played)
    except ValueError as error:
        raise TapeError(f"mock: {error}") from None
    try:
        return _run(_mock(exchange, venue))
    except PortTaken as error:
        raise server.CannotListen(str(error)) from None


async def _mock(exchange: "MockExchange", venue: str) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with exchange:
        at = f"127.0.0.1:{exchange.port}"
        command = f"alphapack serve --venue {venue} --symbols {','.join(exchange.symbols)} --ws-url ws://{at} --rest-url http://{at}"
        _log.info("mock exchange", venue=venue, url=f"http://{at}", follow_it=command)
        playing, told = asyncio.create_task(exchange.run()), asyncio.create_task(stopping.wait())
        await asyncio.wait({playing, told}, return_when=asyncio.FIRST_COMPLETED)
        playing.cancel()
        failed = (await asyncio.gather(playing, return_exceptions=True))[0]
        told.cancel()
        if isinstance(failed, Exception):
            raise failed
    return 0


def serve(settings: Settings, source: Source) -> int:
    """Serve a market until a signal stops it; returns the exit code."""
    api = server.ApiSettings(**msgspec.structs.asdict(settings.api))
    listener = server.Server(api)  # Before all else: a taken port is the commonest reason not to start.
    sys.setswitchinterval(SWITCH_S)
    with ExitStack() as stack:
        stack.callback(listener.close)
        data = folders.data_dir(settings.storage.data_dir, environ, lambda text: _log.warning("storage", detail=text))
        folder = folders.EngineFolder.of(data, source.folder)
        folder.create()
        stack.enter_context(folders.Lock(folder.lock))
        return _run(_serve(settings, source, folder, listener, api))


def _run(main: Coroutine[None, None, _T]) -> _T:
    """Run the loop: on uvloop a request takes a quarter of the time that it takes on asyncio's own."""
    import uvloop

    return uvloop.run(main)


async def _serve(settings: Settings, source: Source, folder: folders.EngineFolder, listener: server.Server, api: server.ApiSettings) -> int:
    """Answer from the first moment, recover, follow the market, and stop in order when told to."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():  # Told twice: what is durable stays so, the rest is given up.
            _exit(1)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    _log.info("serving", url=f"http://{api.host}:{listener.port}", data=str(folder.root))
    runner = Runner(
        build(registry_of(settings)),
        source=source.text,
        clock=source.clock,
        config=lambda: dict(masked(settings)),
        default_venue=source.default_venue,
        accepts=source.clock is not None,
        checkpoint_inputs=settings.storage.checkpoint_inputs,
        checkpoint_s=settings.storage.checkpoint_s,
    )
    lag = asyncio.create_task(runner.measure_lag())
    http = asyncio.create_task(listener.serve(server.create_app(runner, api)))
    told = asyncio.create_task(stopping.wait())
    with ExitStack() as stack:
        start = asyncio.create_task(_start(stack, settings, source, folder, runner))
        await asyncio.wait({told, http, start}, return_when=asyncio.FIRST_COMPLETED)
        if told.done() and not start.done():
            _log.info("stopped while starting")
            _exit(0)  # A thread that compiles cannot be stopped, and nothing has been acknowledged.
        committer = await start
        gc.freeze()  # Modules and kernels live as long as the process: a collection that walks them holds the loop for long.
        following = asyncio.create_task(source.follow(runner))
        beating = asyncio.create_task(runner.beat()) if source.clock is not None else None
        ends: list[asyncio.Future[Any]] = [told, http, runner.fault, *([beating] if beating is not None else [])]
        done, _ = await asyncio.wait({following, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if done == {following} and following.exception() is None:  # What was played stays to be looked at.
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        failed = await runner.end(following, *([beating] if beating is not None else []))
        if failed is None:  # A state that could not be stepped on is none to go on from.
            runner.checkpoint()
        whole = await asyncio.to_thread(committer.close, CLOSE_TIMEOUT_S)
        listener.stop()
        await http
        for task in (lag, told):
            task.cancel()
        _log.info("stopped", seq=runner.engine.seq, durable_seq=committer.durable_seq, digest=runner.engine.hexdigest())
        if failed is not None:
            raise failed
        return 0 if whole else 1


async def _start(stack: ExitStack, settings: Settings, source: Source, folder: folders.EngineFolder, runner: Runner) -> Committer:
    """Do what ready needs on a thread, so that health is answered meanwhile."""
    runner.starting("loading kernels" if _are_compiled() else "compiling kernels, which takes half a minute and is done once")
    await _make_kernels_ready(source.warm)
    runner.starting("recovering the state on disk")
    return await asyncio.to_thread(_open_storage, stack, settings, folder, runner)


def _are_compiled() -> bool:
    return jit.is_cached("frames.frame")


async def _make_kernels_ready(warm: Callable[[], None]) -> None:
    """Load the kernels, and by ``warm`` the source's own; where they must be compiled, half of them in a process of their own."""
    child = None
    if jit.CACHE is not None and not _are_compiled():
        code = "from alphapack.models import book, volatility; volatility.warm(); book.warm_frame()"
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        await asyncio.to_thread(book.warm_general)
        for ready in (chain.warm, matching.warm, sweep.warm, impact_work.warm, bandit.warm, calibration.warm, shapley.warm, warm):
            await asyncio.to_thread(ready)
        if child is not None:
            await child.wait()
    finally:
        if child is not None and child.returncode is None:
            child.kill()
    await asyncio.to_thread(book.warm)  # What the child could not do is done here.
    await asyncio.to_thread(volatility.warm)


def _open_storage(stack: ExitStack, settings: Settings, folder: folders.EngineFolder, runner: Runner) -> Committer:
    """Open what is on disk, bring the engine to where it was, and put the committer behind the runner."""

    def report(text: str) -> None:
        _log.warning("storage", detail=text)

    journal = FileJournal(folder.journal, segment_bytes=settings.storage.segment_mb << 20, report=report)
    stack.callback(journal.close)
    ledger = SqliteLedger(folder.ledger, engine=folder.root.name)
    stack.callback(ledger.close)
    checkpoints = FileCheckpoints(folder.checkpoints, report=report)
    engine = recover(lambda: build(registry_of(settings)), journal, ledger, checkpoints, lambda text: _log.info("recovery", detail=text))
    committer = Committer(
        journal,
        ledger,
        checkpoints,
        published=runner.published,
        degraded=lambda reason: _log.error("inputs are not journaled", reason=reason),
        recovered=runner.recovered,
        retain_bytes=int(settings.storage.retain_gb * (1 << 30)),
        durable_seq=engine.seq,
    )
    stack.callback(committer.close, CLOSE_TIMEOUT_S)
    runner.take_over(engine, committer, lambda: ledger.count, max(checkpoints.seqs(), default=0), ledger.last_key)
    return committer
