"""Composition root: the only module that names concrete parts."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, suppress
from os import _exit, environ
from pathlib import Path

import msgspec
import structlog

from alphapack import jit
from alphapack.api import server
from alphapack.config import Settings, masked
from alphapack.domain.events import Record
from alphapack.domain.inputs import AnyInput, Frame
from alphapack.domain.market import NANOS_PER_S
from alphapack.domain.readings import SymbolHealth
from alphapack.engine.engine import Engine
from alphapack.models import book, microprice
from alphapack.services.microstructure import MICROPRICE
from alphapack.shell import captures, folders, offloop
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.clock import SystemClock
from alphapack.shell.committer import Committer
from alphapack.shell.journal import FileJournal
from alphapack.shell.ledger import SqliteLedger
from alphapack.shell.recovery import recover
from alphapack.shell.runner import Runner
from alphapack.venues import binance

WORK_DELAY_NS = 50_000_000
"""How long after its request off-loop work answers in a replay of a recording."""
PROGRESS_EVERY = 2_000
CLOSE_TIMEOUT_S = 2.0
SWITCH_S = 0.0005
"""How long the committer's thread may keep the interpreter while the loop wants it (Python's own 5 ms is our whole budget)."""
WORKS: Mapping[str, offloop.Work] = {MICROPRICE: microprice.work}
"""Off-loop work that a recording has means for. Its snapshots are in it."""

_log = structlog.get_logger("alphapack")


def build() -> Engine:
    """Return a fresh engine with every codec there is."""
    return Engine(binance.codecs())


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
    engine, recording = build(), record_of(paths, settings, venue, complain)
    frames, first_ns = 0, 0
    clock = SystemClock()
    started_ns = clock.now_ns()
    for entry, _ in steps(engine, recording):
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
    symbols = {name: market.health(name) for name in market.symbols()}
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
    )


def serve(settings: Settings, capture_paths: list[Path], speed: float, venue: str | None = None) -> int:
    """Serve recordings until a signal stops it; returns the exit code."""
    recording = record_of(capture_paths, settings, venue, lambda text: _log.warning("capture", detail=text))
    if recording.capture is None:
        raise captures.CaptureError("expected captures to serve, found a journal: look into it with alphapack replay")
    api = server.ApiSettings(**msgspec.structs.asdict(settings.api))
    listener = server.Server(api)  # Before all else: a taken port is the commonest reason not to start.
    sys.setswitchinterval(SWITCH_S)
    with ExitStack() as stack:
        stack.callback(listener.close)
        data = folders.data_dir(settings.storage.data_dir, environ, lambda text: _log.warning("storage", detail=text))
        folder = folders.EngineFolder.of(data, f"capture-{recording.capture.fingerprint()}")
        folder.create()
        stack.enter_context(folders.Lock(folder.lock))
        return _run(_serve(settings, recording, speed, folder, listener, api))


def _run(main: Coroutine[None, None, int]) -> int:
    """Run the loop: on uvloop a request takes a quarter of the time that it takes on asyncio's own."""
    import uvloop

    return uvloop.run(main)


async def _serve(
    settings: Settings,
    recording: captures.Recording,
    speed: float,
    folder: folders.EngineFolder,
    listener: server.Server,
    api: server.ApiSettings,
) -> int:
    """Answer from the first moment, recover, play, and stop in order when told to."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():  # Told twice: what is durable stays so, the rest is given up.
            _exit(1)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    _log.info("serving", url=f"http://{api.host}:{listener.port}", data=str(folder.root))
    assert recording.capture is not None
    runner = Runner(
        build(),
        source=f"capture {', '.join(path.name for path in recording.capture.paths)}",
        config=lambda: dict(masked(settings)),
        default_venue=recording.capture.names[0][0],
        checkpoint_inputs=settings.storage.checkpoint_inputs,
        checkpoint_s=settings.storage.checkpoint_s,
    )
    lag = asyncio.create_task(runner.measure_lag())
    http = asyncio.create_task(listener.serve(server.create_app(runner, api)))
    told = asyncio.create_task(stopping.wait())
    with ExitStack() as stack:
        start = asyncio.create_task(_start(stack, settings, folder, runner))
        await asyncio.wait({told, http, start}, return_when=asyncio.FIRST_COMPLETED)
        if told.done() and not start.done():
            _log.info("stopped while starting")
            _exit(0)  # A thread that compiles cannot be stopped, and nothing has been acknowledged.
        committer = await start
        play = asyncio.create_task(
            runner.play(recording, speed, lambda reason: recording.reject(reason, runner.engine.seq), WORKS, WORK_DELAY_NS)
        )
        done, _ = await asyncio.wait({told, http, play}, return_when=asyncio.FIRST_COMPLETED)
        if done == {play} and play.exception() is None:  # What was played stays to be looked at.
            await asyncio.wait({told, http}, return_when=asyncio.FIRST_COMPLETED)
        play.cancel()
        with suppress(asyncio.CancelledError):
            await play
        runner.checkpoint()
        whole = await asyncio.to_thread(committer.close, CLOSE_TIMEOUT_S)
        listener.stop()
        await http
        for task in (lag, told):
            task.cancel()
        _log.info("stopped", seq=runner.engine.seq, durable_seq=committer.durable_seq, digest=runner.engine.hexdigest())
        return 0 if whole else 1


async def _start(stack: ExitStack, settings: Settings, folder: folders.EngineFolder, runner: Runner) -> Committer:
    """Do what ready needs on a thread, so that health is answered meanwhile."""
    runner.starting("compiling kernels (about fifteen seconds once, then from the cache)")
    await _make_kernels_ready()
    runner.starting("recovering the state on disk")
    return await asyncio.to_thread(_open_storage, stack, settings, folder, runner)


async def _make_kernels_ready() -> None:
    """Load the kernels; where they must be compiled, half of them in a process of their own, into the same cache."""
    child = None
    if jit.CACHE is not None and not jit.is_cached("frames.frame"):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "from alphapack.models import book; book.warm_frame()")
    try:
        await asyncio.to_thread(book.warm_general)
        if child is not None:
            await child.wait()
    finally:
        if child is not None and child.returncode is None:
            child.kill()
    await asyncio.to_thread(book.warm)  # What the child could not do is done here.


def _open_storage(stack: ExitStack, settings: Settings, folder: folders.EngineFolder, runner: Runner) -> Committer:
    """Open what is on disk, bring the engine to where it was, and put the committer behind the runner."""

    def report(text: str) -> None:
        _log.warning("storage", detail=text)

    journal = FileJournal(folder.journal, segment_bytes=settings.storage.segment_mb << 20, report=report)
    stack.callback(journal.close)
    ledger = SqliteLedger(folder.ledger, engine=folder.root.name)
    stack.callback(ledger.close)
    checkpoints = FileCheckpoints(folder.checkpoints, report=report)
    engine = recover(build, journal, ledger, checkpoints, lambda text: _log.info("recovery", detail=text))
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
    runner.take_over(engine, committer, lambda: ledger.count, max(checkpoints.seqs(), default=0))
    return committer
