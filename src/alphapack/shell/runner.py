"""Stamp, step, hand to the committer: the engine's life in the world, and its answers to the API.

One task steps inputs in slices of at most a millisecond, so that the same loop answers HTTP in between. An input is stepped in
memory before it is on disk, but nothing of it is acknowledged before: what is not durable yet is told by ``durable_seq`` behind
``seq``. Nothing that was journaled is dropped.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec
import structlog

import alphapack
from alphapack.domain import readings, routing_readings, trading_readings
from alphapack.domain.events import (
    AlphaDisabled,
    BookStateChanged,
    FrameRejected,
    IntakeOverloaded,
    Record,
    SessionStarted,
    WorkFailed,
    WorkRequested,
)
from alphapack.domain.feeds import FeedHealth
from alphapack.domain.inputs import (
    POSTED,
    AnyInput,
    Chain,
    Choose,
    Configure,
    Conflated,
    CoreSettings,
    Disable,
    Frame,
    Halt,
    Heartbeat,
    OutsideFill,
    Result,
    Reward,
    SessionStart,
    Shed,
)
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, BookState, base_of, name_of, venue_of
from alphapack.engine import answers, routing_answers
from alphapack.engine.engine import Engine
from alphapack.engine.ports import (
    REJECTED_LINES_MAX,
    AlreadyReported,
    Busy,
    Executor,
    Ingested,
    Invalid,
    Malformed,
    NoData,
    NotAccepting,
    NotDurable,
    NotReady,
    RejectedLine,
    UnknownDecision,
)
from alphapack.models import chain
from alphapack.models.cascade import NotEnough
from alphapack.services.execution import Refused
from alphapack.services.options import BASES_MAX, NoSmile, taken
from alphapack.services.outside import DECISIONS_KEPT, OUTSIDE_FILLS_IN_ALL, OUTSIDE_FILLS_MAX
from alphapack.services.router import ADVICE_KEPT, API
from alphapack.shell.clock import Clock, carried_on
from alphapack.shell.committer import Committer, Put
from alphapack.shell.intake import Intake
from alphapack.shell.news import NewsRing
from alphapack.shell.offloop import Delayed, Work
from alphapack.shell.recovery import ledger_rows
from alphapack.shell.turns import SLICE_S, Turns
from alphapack.shell.watch import Watch

BACKLOG_MAX = 50_000
"""Inputs that may wait for the disk before a recording is held back; live frames wait in the intake instead."""
BEAT_NS = 100 * NANOS_PER_MS
"""Longest silence of the engine's clock while a market is followed: windows and timers move on."""
CHAINS_MAX = 8
"""Posted chains that may be read at the same time: each may be megabytes."""
CHAIN_TIMEOUT_S = 60.0
AHEAD_MS = 60_000
"""How far the clock of what is posted may be ahead of the engine's."""
DECISION_DIGITS_MAX = 18
LATEST = "latest"
"""Names the newest trade."""
NO_WORKS: Mapping[str, Work] = {}
SAFE_EVERY_S = 0.05
LAG_EVERY_S = 0.05
LAG_SAMPLES = 20
_STOPPING = "expected a ready engine, found one that stops"

_log = structlog.get_logger("alphapack.runner")


class Runner:
    """Drives one engine and answers for it (ports ``Host`` and what the sources call)."""

    def __init__(
        self,
        engine: Engine,
        *,
        source: str,
        clock: Clock | None = None,
        config: Callable[[], dict[str, object]],
        default_venue: str = "",
        accepts: bool = True,
        checkpoint_inputs: int = 100_000,
        checkpoint_s: float = 60.0,
    ) -> None:
        self._watch = Watch()
        self._follow(engine)
        self.source = source
        self.committer: Committer | None = None
        self.executor: Executor | None = None
        self.feeds: Callable[[], list[FeedHealth]] = list
        """How the feeds of a live market stand."""
        self.tap: Callable[[AnyInput], None] | None = None
        """Told of each input that was stepped."""
        self.went_stale: Callable[[str], None] | None = None
        """Told of each symbol whose book went STALE."""
        self.intake = Intake(engine.codecs)
        self.news = NewsRing()
        self.ended = False
        self.messages = 0
        self._stepped: list[Put] = []
        self._rows: Callable[[], int] = lambda: 0
        self.clock = clock
        self._config = config
        self._default_venue = default_venue
        self._accepts = accepts
        self._draining = self._stopping = False
        self._turns = Turns()
        self._names: dict[str, list[str]] = {}
        self._names_n = 0
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Holds the error of an input that came by itself and could not be stepped: a fault of ours, by which all must end."""
        self._checkpoint_inputs, self._checkpoint_ns = checkpoint_inputs, int(checkpoint_s * NANOS_PER_S)
        self._checkpoint_seq, self._checkpoint_at_ns = engine.seq, time.monotonic_ns()
        self._started_ns = time.monotonic_ns()
        self._lags: list[float] = [0.0] * LAG_SAMPLES
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._one_ingests = asyncio.Lock()
        self._chains: dict[int, asyncio.Future[Result]] = {}  # Posted ones that are being read, by the request.
        self._checks = 0
        self._one_checks = asyncio.Lock()
        self._starting: str | None = "starting"
        self._told = ""
        self._was_ready = False

    # Inputs

    def submit(self, make: Callable[[int, int], AnyInput]) -> int:
        """Stamp an input, step it and hand it to the committer; returns its seq. Called on the loop."""
        entry = make(self.engine.seq + 1, self._now_ns())
        self._take(entry)
        self._hand_over()
        return entry.seq

    def receive(self, venue: str, symbol: str, payload: bytes) -> None:
        """Take a frame that a source pushes; it is stepped soon, and stamped with the time at which it came.

        ``symbol`` is the venue's name of what a frame is about that does not say so itself. Called on the loop.
        """
        assert self.clock is not None, "a source that pushes needs a clock"
        self.intake.offer(venue, symbol, payload, self.clock.now_ns())
        if not self._draining:
            self._draining = True
            self._loop.call_soon(self._drain_on)

    def _drain_on(self) -> None:
        """Step what waits, a slice at a time, with other work of the loop in between."""
        try:
            self._draining = not self._stopping and self.drain(self._turns.slice_s())
        except Exception as error:  # Nobody awaits what comes by itself.
            self._fail(error)
            return
        if self._draining:
            self._turns.leave()
            self._loop.call_soon(self._drain_on)
        else:
            self._turns.rest()

    async def end(self, *tasks: "asyncio.Future[Any]") -> Exception | None:
        """End what follows the market, step what it had received, and take nothing from then on.

        Returns the error by which any of it ended before, None where all went well.
        """
        for task in tasks:
            task.cancel()
        for waiting in self._chains.values():
            if not waiting.done():
                waiting.set_exception(NotReady(f"{_STOPPING}; the chain was taken, and will be read when it starts again"))
                waiting.exception()  # Nobody may be waiting any more, which is no fault.
        ended: list[object] = [*await asyncio.gather(*tasks, return_exceptions=True)]
        self._stopping = True
        try:
            while not self.fault.done() and self.drain():
                await asyncio.sleep(0)
        except Exception as error:
            self._fail(error)
        if self.fault.done():
            ended.append(self.fault.exception())
        return next((one for one in ended if isinstance(one, Exception)), None)

    def _fail(self, error: Exception) -> None:
        if not self.fault.done():
            self.fault.set_exception(error)

    def drain(self, slice_s: float = SLICE_S) -> bool:
        """Step what waits in the intake for at most ``slice_s``; True where more waits."""
        until = time.perf_counter() + slice_s
        more = True
        while more and time.perf_counter() < until:
            if self.intake.lost:
                for how, symbol, frames in self.intake.losses(self._now_ns()):
                    kind = Shed if how == "shed" else Conflated
                    self._take(kind(self.engine.seq + 1, self.engine.now_ns, symbol, frames))
            waiting = self.intake.take()
            more = waiting is not None
            if waiting is not None:
                ts_ns = max(waiting.receive_ns, self.engine.now_ns)
                self._take(Frame(self.engine.seq + 1, ts_ns, waiting.venue, waiting.wire_symbol, cast("bytes", waiting.payload)))
        self._hand_over()
        return more

    def begin(self, settings: CoreSettings, source: str, ts_ns: int) -> None:
        """Begin to follow a market: its settings, where they are new, and a session of it."""
        if not self.engine.configured or self.engine.settings != settings:
            self.step(Configure(self.engine.seq + 1, max(ts_ns, self.engine.now_ns), settings))
        self.step(SessionStart(self.engine.seq + 1, max(ts_ns, self.engine.now_ns), source))

    def step(self, entry: AnyInput) -> list[Record]:
        """Step an input that a source has stamped itself; it is handed to the disk with the next ``hand_over``."""
        return self._take(entry)

    def ready(self) -> None:
        """Say that what the source had to do before its first answer is done."""
        if self._starting is not None:
            _log.info("ready", after_s=round((time.monotonic_ns() - self._started_ns) / NANOS_PER_S, 1))
        self._starting, self._told = None, ""

    def carried_on(self, clock: Clock) -> Clock:
        """Return a source's clock, set forward where it is behind the engine's time."""
        carried = carried_on(clock, self.engine.now_ns)
        if carried is not clock:
            behind_s = (self.engine.now_ns - clock.now_ns()) / NANOS_PER_S
            _log.warning("the wall clock is behind the engine's time, which goes on from where it was", behind_s=round(behind_s, 3))
        return carried

    async def beat(self) -> None:
        """Let the engine's clock go on for ever where nothing comes."""
        assert self.clock is not None, "time passes by a clock"
        while True:
            now_ns = self.clock.now_ns()
            if self._starting is None and now_ns - self.engine.now_ns >= BEAT_NS and not self.intake.frames:
                self.submit(Heartbeat)
            await asyncio.sleep((BEAT_NS - now_ns % BEAT_NS) / NANOS_PER_S)

    async def ingest(self, venue: str, symbol: str, lines: Iterable[bytes]) -> Ingested:
        """Step each line that is not empty as a frame of a venue; returns once all are on disk (port ``Host``)."""
        self._admit("frames")
        rejected: list[RejectedLine] = []
        frames = rejected_count = 0
        async with self._one_ingests:  # However many post, the loop is held for one slice a turn.
            until = time.perf_counter() + SLICE_S
            for number, line in enumerate(lines, 1):
                if time.perf_counter() >= until:
                    self._hand_over()
                    await asyncio.sleep(0)
                    await self.disk()
                    until = time.perf_counter() + SLICE_S
                if self._stopping:
                    raise NotReady(f"{_STOPPING}; {frames:,} frames of this request were taken")
                if not line:
                    continue
                try:
                    self._take(Frame(self.engine.seq + 1, self._now_ns(), venue, symbol, line))
                except Exception as error:  # A state that is half stepped is none to go on from, whoever sent the frame.
                    self._fail(error)
                    raise
                frames += 1
                if self.engine.rejection is not None:
                    rejected_count += 1
                    if len(rejected) < REJECTED_LINES_MAX:
                        rejected.append(RejectedLine(number, self.engine.rejection))
            seq = self.engine.seq
            self._hand_over()
        await self._safe(seq)
        return Ingested(venue, frames, frames - rejected_count, rejected, rejected_count, seq, self.sequence()[1])

    def _admit(self, what: str) -> None:
        """Raise where nothing from outside can be taken now."""
        if self._starting is not None or self.committer is None:
            raise NotReady(f"expected a ready engine, found one that is {self._starting or 'starting'}")
        if self._stopping:
            raise NotReady(_STOPPING)
        if not self._accepts:
            raise NotAccepting(f"expected a market that takes {what} from outside, found a recording, whose inputs are its own")
        if self.committer.state != "ok":
            raise NotDurable(f"expected a journal that can be written, found it refusing: {self.committer.detail}; nothing was taken")

    async def chain(self, symbol: str, body: bytes) -> readings.ChainTaken:
        """Step a posted option chain; returns once what was made of it is on disk (port ``Host``)."""
        self._admit("option chains")
        if self._checks + len(self._chains) >= CHAINS_MAX:
            raise Busy(f"expected at most {CHAINS_MAX} option chains at once, found as many being read: try again")
        self._checks += 1
        try:
            async with self._one_checks:  # One after the other: reading JSON keeps all else from running.
                await asyncio.to_thread(_check_chain, body, self._now_ns() // NANOS_PER_MS)
        finally:
            self._checks -= 1
        self._admit("option chains")  # Reading it took its time.
        return await self._take_chain(symbol, body)

    async def _take_chain(self, symbol: str, body: bytes) -> readings.ChainTaken:
        base = _base(symbol)
        if not self.engine.options.takes(base):
            raise Busy(f"expected smiles of at most {BASES_MAX} base assets, found that as many are kept")
        try:
            records = self._take(Chain(self.engine.seq + 1, self._now_ns(), base, POSTED, body))
        except Exception as error:
            self._fail(error)
            raise
        request_id = next(record.request_id for record in records if type(record) is WorkRequested and record.work == chain.WORK)
        answer = self._chains[request_id] = self._loop.create_future()
        self._hand_over()
        seq = self.engine.seq
        try:
            async with asyncio.timeout(CHAIN_TIMEOUT_S):
                result = await asyncio.shield(answer)  # It keeps its place until it was read, whoever waits for it.
        except TimeoutError:
            await self._safe(seq)
            raise Busy("the chain was taken and is safe, and will be read after what is before it") from None
        await self._safe(result.seq)
        if not result.ok:
            raise Invalid(result.body.decode(errors="replace").partition(": ")[2])
        try:
            return taken(name_of(symbol) or symbol, base, chain.answer(result.body), result.seq, self.sequence()[1])
        except ValueError as error:
            raise Invalid(str(error)) from None

    def venues(self) -> tuple[str, ...]:
        """Return the venues whose frames can be read, in order of name."""
        return tuple(sorted(self.engine.codecs))

    def _now_ns(self) -> int:
        """Return the engine's time now; a recording's clock is where its engine stands."""
        return max(self.clock.now_ns() if self.clock is not None else 0, self.engine.now_ns)

    async def play(
        self,
        inputs: Iterable[AnyInput],
        speed: float,
        reject: Callable[[str], None],
        works: Mapping[str, Work] = NO_WORKS,
        delay_ns: int = 0,
    ) -> None:
        """Step a recording from where the engine stands, at ``speed`` times its own pace (``inf``: as fast as it goes).

        ``reject`` is told why the input that was drawn last could not be used; ``works`` answer ``delay_ns`` after they
        are asked for.
        """
        self.ready()
        pace = _Pace(speed)
        delayed = Delayed(self.engine, works, delay_ns)
        until = time.perf_counter() + SLICE_S
        for entry in self._rest(inputs):
            if entry is None:
                if time.perf_counter() >= until:
                    await asyncio.sleep(0)
                    until = time.perf_counter() + SLICE_S
                continue
            wait_s = pace.wait_s(entry.ts_ns)
            if wait_s > 0:
                self._hand_over()
                await asyncio.sleep(wait_s)
                until = time.perf_counter() + SLICE_S
            elif time.perf_counter() >= until:
                self._hand_over()
                await asyncio.sleep(0)
                await self.disk()
                until = time.perf_counter() + SLICE_S
            if delayed.is_waiting:
                await delayed.ready(entry.ts_ns)
            for answer in delayed.answers(entry.ts_ns):
                delayed.note(self._take(answer))
            seq = self.engine.seq + 1
            delayed.note(self._take(entry if entry.seq == seq else msgspec.structs.replace(entry, seq=seq)))
            if self.engine.rejection is not None:
                reject(self.engine.rejection)
        self.checkpoint()  # Looking at what ended is then as quick as the start of the process.
        self.ended = True
        _log.info("the recording ended", seq=self.engine.seq, digest=self.engine.hexdigest())

    def _rest(self, inputs: Iterable[AnyInput]) -> Iterator[AnyInput | None]:
        """Yield what the engine has not stepped of a recording, numbered on from where it stands."""
        stream = iter(inputs)
        first = next(stream, None)
        if first is None:
            return
        assert isinstance(first, Configure), "a recording's inputs begin with the settings"
        if not self.engine.configured:
            yield first
        elif self.engine.settings != first.settings:
            yield Configure(self.engine.seq + 1, self.engine.now_ns, first.settings)
        for _ in itertools.islice(stream, self.engine.source_inputs):
            yield None  # Stepped before: only read, which may take long, so that the loop must get its turns.
        yield from stream

    def _take(self, entry: AnyInput) -> list[Record]:
        try:
            records = self.engine.step(entry)
        except BaseException:  # What the engine cannot step is a fault of ours, and the journal must be able to show it.
            self._stepped.append(Put(entry, ()))
            self._put()
            raise
        if type(entry) is Frame:
            self.messages += 1
        elif type(entry) is Result and (asked := self._chains.pop(entry.request_id, None)) is not None and not asked.done():
            asked.set_result(entry)
        if self.tap is not None:
            self.tap(entry)
        if self.committer is not None:
            rows = ledger_rows(entry, records) if records else ()
            if rows:
                self.news.add(rows)
            self._stepped.append(Put(entry, rows))
            due = entry.seq - self._checkpoint_seq >= self._checkpoint_inputs
            if due or time.monotonic_ns() - self._checkpoint_at_ns >= self._checkpoint_ns:
                self.checkpoint()
        for record in records:
            self._tell(record)
        return records

    def hand_over(self) -> None:
        """Give the committer what was stepped; a source does so at the end of each slice."""
        self._hand_over()

    async def disk(self) -> None:
        """Wait while more inputs than may be lost wait for the disk: what is made, not received, is held back."""
        while self.committer is not None and self.committer.state == "ok" and self.committer.backlog > BACKLOG_MAX:
            await asyncio.sleep(0.002)

    def _hand_over(self) -> None:
        """Give the committer what was stepped; where it can no longer keep that, or can again, tell the engine by an input.

        Whoever trades on what is not kept would know of orders that a crash makes never to have been.
        """
        self._put()
        committer = self.committer
        if committer is not None and not committer.closing and self.engine.configured:
            refuses = committer.state != "ok"
            if refuses != self.engine.halted:
                _log.warning("trading stands still" if refuses else "trading goes on")
                self._take(Halt(self.engine.seq + 1, self.engine.now_ns, refuses))
                self._put()
        for what, name in list(self._watch.slow):
            reason = self._watch.slow.pop((what, name))
            self._take(Disable(self.engine.seq + 1, self.engine.now_ns, name, "alpha" if what == "alpha" else "policy", reason))
            self._put()

    def _put(self) -> None:
        """Done once a slice, because waking the thread that writes costs more than a step."""
        if self.committer is not None and self._stepped:
            self.committer.put_all(self._stepped)
            self._stepped = []

    def _tell(self, record: Record) -> None:
        if type(record) is WorkRequested:
            if self.executor is not None:
                self.executor.start(record)
        elif type(record) is BookStateChanged:
            say = _log.info if record.after is BookState.LIVE else _log.warning
            if record.after is BookState.STALE and self.went_stale is not None:
                self.went_stale(record.symbol)
            say("book", symbol=record.symbol, before=record.before.name, after=record.after.name, reason=record.reason)
        elif type(record) is AlphaDisabled:
            _log.warning("asked no more", **{record.what: record.name}, reason=record.reason)
        elif isinstance(record, FrameRejected | IntakeOverloaded | WorkFailed):
            _log.warning(str(record.__struct_config__.tag), **msgspec.structs.asdict(record))
        elif type(record) is SessionStarted:
            _log.info("a session begins", source=record.source)

    def answered(self, request: WorkRequested, ok: bool, body: bytes) -> None:
        """Take the answer of off-loop work as an input; called on any thread."""

        def enter() -> None:
            if self._stopping:  # A restart asks again.
                return
            try:
                self.submit(lambda seq, ts_ns: Result(seq, ts_ns, request.request_id, request.work, ok, body))
            except Exception as error:
                self._fail(error)

        self._loop.call_soon_threadsafe(enter)

    # Durability

    def checkpoint(self) -> None:
        """Hand the whole state to the committer; a restart goes on from it."""
        if self.committer is not None and not self.committer.closing:
            self._hand_over()
            self.committer.checkpoint(self.engine.seq, self.engine.save())
        self._checkpoint_seq, self._checkpoint_at_ns = self.engine.seq, time.monotonic_ns()

    def published(self, _seq: int) -> None:
        """Wake those who wait for durability; called on the committer's thread."""
        if self._waiting or self.news.pending:
            self._loop.call_soon_threadsafe(self._wake)

    def recovered(self) -> None:
        """Cover what could not be journaled by a checkpoint; called on the committer's thread."""
        self._loop.call_soon_threadsafe(self.checkpoint)

    def _wake(self) -> None:
        durable_seq = self.sequence()[1]
        self.news.publish(durable_seq)
        for seq, waiter in self._waiting:
            if seq <= durable_seq and not waiter.done():
                waiter.set_result(None)
        self._waiting = [(seq, waiter) for seq, waiter in self._waiting if not waiter.done()]

    async def wait_durable(self, seq: int) -> None:
        """Return once everything up to ``seq`` is on disk: what is acknowledged waits here first."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((seq, waiter))
        self._wake()  # It may be durable already, and then nothing else would say so.
        await waiter

    async def _safe(self, seq: int) -> None:
        """Return once everything up to ``seq`` is on disk; raise ``NotDurable`` where the disk refuses."""
        waiting = asyncio.ensure_future(self.wait_durable(seq))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=SAFE_EVERY_S)
                committer = self.committer
                if not waiting.done() and committer is not None and committer.state != "ok":
                    raise NotDurable(f"the frames were stepped and are not safe on disk: {committer.detail}")
        finally:
            waiting.cancel()

    async def measure_lag(self) -> None:
        """Measure for ever how late the loop wakes up."""
        for i in itertools.count():
            before = time.perf_counter()
            await asyncio.sleep(LAG_EVERY_S)
            self._lags[i % LAG_SAMPLES] = max(0.0, time.perf_counter() - before - LAG_EVERY_S)

    def take_over(
        self,
        engine: Engine,
        committer: Committer,
        rows: Callable[[], int],
        checkpoint_seq: int | None = None,
        last_key: tuple[int, int] | None = None,
    ) -> None:
        """Go on with a recovered engine and the committer behind it.

        ``rows`` counts the ledger, whose last record is ``last_key``; ``checkpoint_seq`` is the newest checkpoint's, where
        the engine went on from it.
        """
        if last_key is not None:
            self.news.follow(last_key)
        self._rows = rows
        self._checkpoint_seq = engine.seq if checkpoint_seq is None else checkpoint_seq
        self._checkpoint_at_ns = time.monotonic_ns()
        self._follow(engine)
        self.committer = committer
        self._names_n = 0
        self.intake = Intake(engine.codecs)

    def _follow(self, engine: Engine) -> None:
        """Step this engine from now on; alphas and policies that hold it up are told of."""
        self.engine = engine
        engine.alphas.watch = engine.router.watch = self._watch

    def starting(self, what: str, share: float | None = None) -> None:
        """Say what keeps the engine from being ready, and how much of it is done; the log has it once."""
        if what != self._told:
            _log.info("starting", what=what)
        self._told = what
        self._starting = what if share is None else f"{what}: {share:.0%}"

    # Answers

    def sequence(self) -> tuple[int, int]:
        """Return ``(seq, durable_seq)``."""
        return self.engine.seq, self.committer.durable_seq if self.committer is not None else 0

    def health(self) -> readings.Health:
        """Return the state of the whole."""
        market = self.engine.microstructure
        symbols = {name: market.health(name) for name in market.symbols()}
        status, detail = self._status(symbols)
        seq, durable_seq = self.sequence()
        committer = self.committer
        ok = committer is not None and committer.state == "ok"
        return readings.Health(
            status=status,
            detail=detail,
            version=alphapack.__version__,
            source=self.source,
            uptime_s=(time.monotonic_ns() - self._started_ns) / NANOS_PER_S,
            ts_ms=self.engine.now_ns // NANOS_PER_MS,
            digest=self.engine.hexdigest(),
            loop_lag_ms=1_000 * max(self._lags),
            symbols={self._short(name, symbols): one for name, one in symbols.items()},
            ledger=readings.LedgerHealth(
                ok=ok,
                rows=self._rows(),
                seq=seq,
                durable_seq=durable_seq,
                backlog=committer.backlog if committer is not None else 0,
                detail=committer.detail if committer is not None else "not opened yet",
            ),
            feeds=self.feeds(),
        )

    def _status(self, symbols: dict[str, readings.SymbolHealth]) -> tuple[str, str | None]:
        if self.committer is not None and self.committer.state == "degraded":
            return "degraded", f"inputs are not journaled: {self.committer.detail}"
        if self.ended:
            return "ended", "the recording is over; the clock stands still"
        if self._starting is not None:
            return "starting", self._starting
        syncing = [name for name, one in symbols.items() if one.state == BookState.SYNCING.name]
        if len(syncing) == len(symbols) and not self._was_ready:
            return "starting", "no book is proven yet: a depth snapshot and the differences that follow it are awaited"
        self._was_ready = True
        return "ready", f"awaiting snapshots of {', '.join(syncing)}" if syncing else None

    def _short(self, name: str, symbols: Iterable[str]) -> str:
        """Return the bare name where only one venue has it."""
        bare = name.partition(":")[2]
        return bare if sum(other.partition(":")[2] == bare for other in symbols) == 1 else name

    def resolve(self, text: str) -> str | None:
        """Return the full name that ``BTCUSDT`` or ``venue:SYMBOL`` means; a bare name on several venues is the default venue's."""
        venue, colon, bare = text.partition(":")
        named = self._named().get((bare if colon else text).upper(), [])
        if colon:
            return next((name for name in named if venue_of(name) == venue.lower()), None)
        return next((name for name in named if venue_of(name) == self._default_venue), next(iter(named), None))

    def _named(self) -> dict[str, list[str]]:
        """Return every symbol with a book or candles by its bare name, in order of name; made anew where one came in."""
        known = (*self.engine.microstructure.symbols(), *self.engine.candles.symbols())
        if len(known) != self._names_n:
            self._names, self._names_n = {}, len(known)
            for name in sorted(set(known)):
                self._names.setdefault(name_of(name), []).append(name)
        return self._names

    def symbols(self) -> list[readings.SymbolInfo]:
        """Return every known symbol in order of name."""
        market, options = self.engine.microstructure, self.engine.options
        return [msgspec.structs.replace(market.info(name), has_options=options.knows(base_of(name))) for name in market.symbols()]

    def microstructure(self, symbol: str) -> readings.Microstructure | None:
        """Return the features of a full symbol name."""
        market = self.engine.microstructure
        return market.microstructure(symbol) if market.knows(symbol) else None

    def book(self, symbol: str, depth: int) -> readings.Book | None:
        """Return the best levels of a full symbol name."""
        market = self.engine.microstructure
        return market.book(symbol, depth) if market.knows(symbol) else None

    def history(self, kind: str, symbol: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]] | None:
        """Return noted values by column; None for a kind that is not kept."""
        if kind == "candles":
            return self.engine.candles.history(symbol, from_ms, limit)
        if kind == "vol":
            return self.engine.volatility.past(symbol, from_ms, limit)
        if kind == "smile":
            return self.engine.options.past(_base(symbol), from_ms, limit)
        if kind == "equity":
            return self.engine.execution.past(from_ms, limit)
        if kind != "microstructure":
            return None
        market = self.engine.microstructure
        return market.history(symbol, from_ms, limit) if market.knows(symbol) else {"ts_ms": []}

    def vol_forecast(self, symbol: str, horizon: int, variant: str) -> readings.VolForecast:
        """Return the volatility of the next ``horizon`` minutes."""
        candles = self.engine.candles
        try:
            return self.engine.volatility.forecast(symbol, horizon, variant, candles.sources(symbol), candles.shift_ms(symbol))
        except NotEnough as error:
            load = "; a recording is served: --history FILE loads the candles before it" if self.clock is None else ""
            raise NoData(f"{error}{load}") from None

    def vol_accuracy(self, symbol: str) -> readings.VolAccuracy:
        """Return how good the forecasts of volatility have been."""
        try:
            return self.engine.volatility.accuracy(symbol)
        except NotEnough as error:
            raise NoData(str(error)) from None

    def underlying(self, text: str) -> str | None:
        """Return the full name that ``text`` means, or itself where it is a base asset of which there is a smile."""
        name = self.resolve(text)
        return text.upper() if name is None and self.engine.options.knows(text.upper()) else name

    def smile(self, symbol: str) -> readings.Smile:
        """Return what the newest chain of a symbol's base asset says."""
        try:
            return self.engine.options.smile(name_of(symbol) or symbol, _base(symbol))
        except NoSmile as error:
            raise NoData(str(error)) from None

    def simulate(self, symbol: str, request: trading_readings.SimulateRequest) -> trading_readings.Plan:
        """Return how an order would be traded now, and at what cost."""
        try:
            return answers.plan(self.engine, symbol, request)
        except Refused as error:
            load = "; a recording is served: --history FILE loads the candles before it" if self.clock is None else ""
            raise NoData(f"{error}{load}") from None
        except ValueError as error:
            raise Invalid(str(error)) from None

    def sizing(self, symbol: str | None) -> trading_readings.Sizing:
        """Return the newest sizing of a symbol, or of any."""
        try:
            return answers.sizing(self.engine, symbol)
        except Refused as error:
            raise NoData(str(error)) from None

    def orders(self, symbol: str | None, state: str | None, before: int | None, limit: int) -> trading_readings.Orders:
        """Return orders, newest first."""
        return answers.orders(self.engine, symbol, state, before, limit)

    def fills(self, symbol: str | None, before: int | None, limit: int) -> trading_readings.Fills:
        """Return fills, newest first."""
        return answers.fills(self.engine, symbol, before, limit)

    def plans(self, decision_id: str) -> trading_readings.DecisionPlans | None:
        """Return the plans of a decision; None where none is kept."""
        decision = _decision(decision_id)
        return answers.plans(self.engine, decision) if decision is not None else None

    def portfolio(self) -> trading_readings.Portfolio:
        """Return the paper portfolio."""
        try:
            return answers.portfolio(self.engine)
        except Refused as error:
            raise NoData(str(error)) from None

    def trades(self, symbol: str | None, state: str | None, before: int | None, limit: int) -> trading_readings.Trades:
        """Return trades, newest first."""
        return answers.trades(self.engine, symbol, state, before, limit)

    async def report_fill(self, report: trading_readings.FillReport) -> trading_readings.FillReportTaken:
        """Step a fill that an outside executor reports; returns once it is on disk (port ``Host``)."""
        self._admit("fills")
        outside, decision = self.engine.outside, _decision(report.decision_id)
        if decision is None or not outside.knows(decision):
            raise UnknownDecision(f"expected a decision of the last {DECISIONS_KEPT:,}, found {report.decision_id!r}")
        if outside.is_reported(decision, report.client_fill_id):
            raise AlreadyReported(f"expected a fill that was not reported before, found {report.client_fill_id!r} of decision {decision}")
        early = report.ts_ms <= self._now_ns() // NANOS_PER_MS + AHEAD_MS
        if not early or not outside.is_believable(decision, report.price, report.size, report.fee, report.ts_ms):
            raise Invalid(
                "expected a fill of the decision: a price within half of its mid, ts_ms from then to now, numbers up to 1e12, "
                f"found price {report.price:g}, size {report.size:g}, fee {report.fee:g}, ts_ms {report.ts_ms}"
            )
        if outside.fills() >= OUTSIDE_FILLS_IN_ALL:
            raise Busy(f"expected at most {OUTSIDE_FILLS_IN_ALL:,} reported fills of the decisions that are kept, found as many")
        if len(outside.of(decision).fills) >= OUTSIDE_FILLS_MAX:
            raise Invalid(f"expected at most {OUTSIDE_FILLS_MAX:,} fills of a decision, found one more")
        entry = OutsideFill(
            self.engine.seq + 1, self._now_ns(), decision, report.client_fill_id, report.price, report.size, report.fee, report.ts_ms
        )
        self._step_posted(entry)
        reported = outside.of(decision)
        position, fills = reported.position, len(reported.fills)
        await self._safe(entry.seq)
        return trading_readings.FillReportTaken(report.decision_id, report.client_fill_id, position, fills, entry.seq, self.sequence()[1])

    async def choose(self, symbol: str, context: Mapping[str, float]) -> routing_readings.Choice:
        """Decide as advice; returns once that is on disk (port ``Host``)."""
        self._admit("contexts")
        if (missing := routing_answers.missing(self.engine, symbol)) is not None:
            raise NoData(missing)
        entry = Choose(self.engine.seq + 1, self._now_ns(), symbol, dict(context))
        self._step_posted(entry)
        kept = self.engine.router.made_at(entry.seq)
        await self._safe(entry.seq)
        return routing_answers.choice(kept, entry.seq, self.sequence()[1])

    async def reward(self, decision_id: str, reward_bps: float) -> routing_readings.RewardTaken:
        """Learn what advice came to; returns once it is on disk (port ``Host``)."""
        self._admit("rewards")
        router, decision = self.engine.router, _decision(decision_id)
        if decision is not None and router.is_rewarded(decision):
            raise AlreadyReported(f"expected a decision whose reward was not reported before, found {decision}")
        if decision is None or not router.awaits(decision):
            raise UnknownDecision(
                f"expected one of the last {ADVICE_KEPT:,} decisions of POST /api/router/choose that was not flat, found {decision_id!r}"
            )
        entry, policy = Reward(self.engine.seq + 1, self._now_ns(), decision, reward_bps), router.advised(decision)
        self._step_posted(entry)
        n = router.learnt(policy)
        await self._safe(entry.seq)
        return routing_readings.RewardTaken(decision_id, policy, reward_bps, n, entry.seq, self.sequence()[1])

    def _step_posted(self, entry: AnyInput) -> None:
        """Step what was posted, and hand it to the disk."""
        try:
            self._take(entry)
        except Exception as error:
            self._fail(error)
            raise
        self._hand_over()

    def snapshot(self, symbol: str | None, origin: str | None) -> routing_readings.Snapshot:
        """Return the newest decision with the beliefs that it was made by."""
        kept = self.engine.router.last(symbol, origin)
        if kept is None:
            how = (
                "POST /api/router/choose asks for one" if origin == API else f"one is made every {self.engine.settings.router.interval_s} s"
            )
            raise NoData(f"expected a decision, found none yet: {how}")
        return routing_answers.snapshot(kept, self.engine.router.disabled)

    def decisions(self, symbol: str | None, origin: str | None, before: int | None, limit: int) -> routing_readings.Decisions:
        """Return decisions, newest first."""
        return routing_answers.decisions(self.engine, symbol, origin, before, limit)

    def decision(self, decision_id: str) -> routing_readings.DecisionAudit | None:
        """Return the audit record of a decision; None where none is kept."""
        decision = _decision(decision_id)
        kept = self.engine.router.decision(decision) if decision is not None else None
        return routing_answers.audit(kept) if kept is not None else None

    def alphas(self) -> list[routing_readings.AlphaReading]:
        """Return every alpha."""
        return routing_answers.alphas(self.engine)

    def attribution(self, trade_id: str) -> routing_readings.Attribution | None:
        """Return who is to be thanked for a trade; None where nothing is kept of it."""
        if trade_id == LATEST:
            made = routing_answers.attribution(self.engine, None)
            if made is None:
                raise NoData("expected a trade that has closed, found none yet")
            return made
        decision = _decision(trade_id)
        return routing_answers.attribution(self.engine, decision) if decision is not None else None

    def config(self) -> dict[str, object]:
        """Return the effective settings, secrets masked."""
        return self._config()

    def counters(self) -> dict[str, float]:
        """Return totals and gauges for Prometheus."""
        health = self.health()
        values = {
            "inputs_total": self.engine.seq,
            "messages_total": self.messages,
            "durable_seq": health.ledger.durable_seq,
            "journal_backlog": health.ledger.backlog,
            "ledger_rows_lost_total": self.committer.lost_rows if self.committer is not None else 0,
            "ledger_rows": health.ledger.rows,
            "ledger_ok": float(health.ledger.ok),
            "loop_lag_seconds": health.loop_lag_ms / 1_000,
            "uptime_seconds": health.uptime_s,
            "intake_frames": self.intake.frames,
            "symbols": len(health.symbols),
            "smiles": len(self.engine.options.bases()),
        }
        for name in ("gaps", "crossed", "resyncs", "duplicates", "rejected", "trades_missed"):
            values[f"{name}_total"] = sum(getattr(one, name) for one in health.symbols.values())
        for name in ("frames", "attempts", "reconnects", "resubscribes", "snapshots"):
            values[f"feed_{name}_total"] = sum(getattr(one, name) for one in health.feeds)
        for state in BookState:
            values[f"books_{state.name.lower()}"] = sum(one.state == state.name for one in health.symbols.values())
        return {name: float(value) for name, value in values.items()}


def _base(symbol: str) -> str:
    """Return the base asset of what ``Runner.underlying`` returned: a full name, or the base asset itself."""
    return base_of(symbol) if ":" in symbol else symbol


def _decision(text: str) -> int | None:
    """Return the decision that an id names; None where it can name none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DECISION_DIGITS_MAX else None


def _check_chain(body: bytes, now_ms: int) -> None:
    """Raise where a posted chain is none; called on a thread."""
    try:
        ts_ms = chain.read(body).ts_ms
        if ts_ms is not None and ts_ms > now_ms + AHEAD_MS:
            raise ValueError(f"expected ts_ms of now, {now_ms}, or before, found {ts_ms}: in the future")
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from None
    except msgspec.DecodeError as error:
        raise Malformed(f"expected a JSON body: {error}") from None
    except ValueError as error:
        raise Invalid(str(error)) from None


class _Pace:
    """When an input of a recording is due."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start: tuple[float, int] | None = None

    def wait_s(self, ts_ns: int) -> float:
        """Return how long to wait for the instant ``ts_ns`` of the recording; 0 or less: it is due."""
        if math.isinf(self._speed):
            return 0.0
        now = time.perf_counter()
        if self._start is None:
            self._start = now, ts_ns
        return self._start[0] + (ts_ns - self._start[1]) / NANOS_PER_S / self._speed - now
