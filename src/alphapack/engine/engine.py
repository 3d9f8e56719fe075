"""The engine: one door for inputs, one dispatch table, run to completion.

The law: what ``step`` returns, and every later answer, is a function of the inputs so far and of nothing else.
"""

import functools
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from alphapack.domain.events import (
    AnyWireEvent,
    FrameError,
    FrameRejected,
    FundingRate,
    IntakeOverloaded,
    Record,
    SessionStarted,
    TradingHalted,
    WorkRequested,
)
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
    History,
    OutsideFill,
    Result,
    Reward,
    SessionStart,
    Shed,
)
from alphapack.domain.market import NANOS_PER_S, base_of, name_of, symbol_id, venue_of
from alphapack.domain.trading import Decision
from alphapack.engine.digest import Digest
from alphapack.engine.draws import Draws
from alphapack.engine.known import Known
from alphapack.engine.ports import Codec, Service
from alphapack.engine.timers import Timer, Timers
from alphapack.models.chain import WORK as CHAIN
from alphapack.models.deals import Deal
from alphapack.models.impact_work import WORK as IMPACT
from alphapack.models.outcomes import Matured, lines, model_at
from alphapack.models.registry import Registry
from alphapack.models.volatility import WORK as VOLATILITY
from alphapack.services.alphas import TIMER as ALPHAS_TIMER
from alphapack.services.alphas import Alphas
from alphapack.services.attribution import Attribution, Outcome
from alphapack.services.candles import CandleStore
from alphapack.services.exchange import TIMER as EXCHANGE_TIMER
from alphapack.services.exchange import Exchange
from alphapack.services.execution import TIMER as EXECUTION_TIMER
from alphapack.services.execution import Execution
from alphapack.services.impact import TIMER as IMPACT_TIMER
from alphapack.services.impact import Impacts
from alphapack.services.microstructure import MICROPRICE, TICK_NS, Judge, Microstructure
from alphapack.services.options import Options
from alphapack.services.outside import TIMER as OUTSIDE_TIMER
from alphapack.services.outside import Outside
from alphapack.services.router import TIMER as ROUTER_TIMER
from alphapack.services.router import Router
from alphapack.services.volatility import TIMER as VOLATILITY_TIMER
from alphapack.services.volatility import Volatility

STATE_VERSION = 9
REASON_LENGTH_MAX = 300
REJECTIONS_NS = NANOS_PER_S
"""A venue's unusable frames are reported at most this often, with their count, so that garbage cannot flood the ledger."""

_frame_head = struct.Struct("<QqIQ")
_request_head = struct.Struct("<QIQ")
_encode = msgspec.msgpack.Encoder().encode
_encode_record = msgspec.json.Encoder().encode


@functools.lru_cache(maxsize=4_096)
def _origin(venue: str, symbol: str) -> bytes:
    return f"{venue}:{symbol}".encode()


class OtherPlugins(ValueError):
    """Inputs that were recorded with other plugins than there are."""


class _Rejections(msgspec.Struct, array_like=True):
    frames: int
    last_ns: int


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """Work that was asked for and whose ``Result`` has not come."""

    ts_ns: int
    work: str
    body: bytes


class _Version(msgspec.Struct, array_like=True):
    """The beginning of every state there ever was."""

    version: int


class _Saved(msgspec.Struct, array_like=True):
    version: int
    seq: int
    now_ns: int
    source_inputs: int
    records_kept: int
    settings: CoreSettings | None
    halted: bool
    digest: tuple[bytes, bytes]
    timers: tuple[int, list[Timer]]
    draws: dict[str, int]
    requests: int
    outstanding: dict[int, Asked]
    rejections: dict[str, _Rejections]
    services: list[list[memoryview]]
    """What each of them saved, in its pieces."""


class Engine:
    """Steps inputs through the services; also the ``Context`` that they see."""

    def __init__(self, codecs: Sequence[Codec], registry: Registry) -> None:
        """``registry`` has the alphas and policies that there are; settings may leave some of them out."""
        self._registry = registry
        self.codecs = {codec.venue: codec for codec in codecs}
        self.seq = 0
        self.now_ns = 0
        self.source_inputs = 0
        """Inputs that came from the market source rather than from a user: where a recording is taken up again."""
        self.records_kept = 0
        """Records said so far that belong in the ledger: all but requests for work."""
        self.settings = CoreSettings()
        self.configured = False
        self.halted = False
        """Whether trading stands still, because what it would do could not be kept."""
        self._digest = Digest()
        self._timers = Timers()
        self.decoded: tuple[AnyWireEvent, ...] = ()
        """What the last input said, if it was a frame that could be read."""
        self.rejection: str | None = None
        """Why the last input, a frame, could not be used."""
        self._draws = Draws(self.settings.seed)
        self._requests = 0
        self.outstanding: dict[int, Asked] = {}
        """Work asked for, of the kinds whose results someone waits for, by request; what a restart must ask for again."""
        self._rejections: dict[str, _Rejections] = {}
        self._records: list[Record] = []
        self.microstructure = Microstructure(
            self,
            {codec.venue: _judge(codec) for codec in codecs},
            {codec.venue: codec.contract_value for codec in codecs},
            {codec.venue: codec.frame_format for codec in codecs},
        )
        self.candles = CandleStore(self)
        self.microstructure.minutes_closed = self.candles.on_tape
        self.microstructure.minutes_refuted = self.candles.on_tape_refuted
        self.volatility = Volatility(self, self.candles.rows, self.candles.version)
        self.candles.merged = self.volatility.on_candles
        self.options = Options(self)
        self.impacts = Impacts(self, self.microstructure.live, lambda symbol: known.sigma_1d(symbol), lambda symbol: known.adv(symbol))
        self.known = known = Known(
            self,
            self.microstructure,
            self.candles,
            self.volatility,
            self.impacts,
            frozenset(codec.venue for codec in codecs if codec.spot),
            lambda: self.execution.currency,
            lambda symbol, side: self.execution.has_room(symbol, side),
        )
        self.exchange = Exchange(self, known.market, known.terms, known.impact_of_lots)
        self.execution = Execution(self, self.exchange, known)
        self.exchange.listener = self.execution
        self.outside = Outside(self, known.adv)
        self.outside.learnt = self.impacts.on_fill
        self.alphas = Alphas(self, registry, known.tradable, self.decision_context, known.sigma_of)
        self.router = Router(self, registry, known, self.alphas.look)
        self.router.decided = self._on_decision
        self.attribution = Attribution(self, registry)
        self.execution.matured = self._on_matured
        self.execution.unsized = self.router.on_unsized
        self.execution.closed = self._on_closed
        self.microstructure.broke = self.exchange.on_broken
        self.microstructure.refined = self._on_refined
        self._services: list[Service] = [
            self.microstructure,
            self.candles,
            self.volatility,
            self.options,
            self.impacts,
            self.exchange,
            self.execution,
            self.outside,
            self.alphas,
            self.router,
            self.attribution,
        ]
        self._timer_handlers: dict[str, Callable[[str], None]] = {
            "microstructure": lambda _: self.microstructure.on_tick(),
            VOLATILITY_TIMER: self.volatility.on_timer,
            IMPACT_TIMER: self.impacts.on_timer,
            EXCHANGE_TIMER: self.exchange.on_timer,
            EXECUTION_TIMER: self.execution.on_timer,
            ALPHAS_TIMER: self.alphas.on_timer,
            ROUTER_TIMER: self.router.on_timer,
            OUTSIDE_TIMER: self.outside.on_timer,
        }
        self._handlers: dict[type, Callable[[AnyInput], None]] = {
            Configure: self._on_configure,
            SessionStart: self._on_session,
            Frame: self._on_frame,
            Heartbeat: self._on_heartbeat,
            Shed: self._on_shed,
            Conflated: self._on_conflated,
            Halt: self._on_halt,
            Result: self._on_result,
            History: self._on_history,
            Chain: self._on_chain,
            OutsideFill: self._on_outside_fill,
            Choose: self._on_choose,
            Reward: self._on_reward,
            Disable: self._on_disable,
        }
        self._result_handlers: dict[str, Callable[[Result], None]] = {
            MICROPRICE: self.microstructure.on_result,
            VOLATILITY: self.volatility.on_result,
            CHAIN: self.options.on_result,
            IMPACT: self.impacts.on_result,
        }

    # The door

    def step(self, entry: AnyInput) -> list[Record]:
        """Handle one input to completion and return everything that it, and the timers due before it, caused."""
        assert entry.seq == self.seq + 1, f"inputs are totally ordered: expected seq {self.seq + 1}, found {entry.seq}"
        assert entry.ts_ns >= self.now_ns, f"time never runs back: at {self.now_ns}, found {entry.ts_ns}"
        self.seq = entry.seq
        self._records = []
        self.microstructure.touched = None
        self.decoded = ()
        self.rejection = None
        kind = type(entry)
        if kind is SessionStart:  # Precedes all timers: what fell due in between is late, not past.
            self._timers.rebase(entry.ts_ns)
        else:
            while self._timers.next_due_ns <= entry.ts_ns:
                self.now_ns, name, argument = self._timers.pop()
                self._timer_handlers[name](argument)
        self.now_ns = entry.ts_ns
        if kind is Frame:
            assert isinstance(entry, Frame)
            origin, payload = _origin(entry.venue, entry.symbol), entry.payload
            self._digest.update(_frame_head.pack(entry.seq, entry.ts_ns, len(origin), len(payload)) + origin + payload)
        elif kind is Chain:
            assert isinstance(entry, Chain)
            origin, payload = _origin(entry.source, entry.base), entry.body
            self._digest.update(_frame_head.pack(entry.seq, entry.ts_ns, len(origin), len(payload)) + origin)
            self._digest.update(payload)
        else:
            self._digest.update(_encode(entry))
        self._handlers[kind](entry)
        return self._records

    # The context

    def emit(self, record: Record) -> None:
        """Take a record into the result of this step and into the digest."""
        self._records.append(record)
        self.records_kept += 1
        self._digest.update(_encode_record(record))

    def observe(self, values: bytes) -> None:
        """Take computed values into the digest."""
        self._digest.update(values)

    def request(self, work: str, body: bytes) -> int:
        """Ask the shell for work off the loop; its ``Result`` is an input, so a replay needs no shell."""
        self._requests += 1
        if work in self._result_handlers:
            self.outstanding[self._requests] = Asked(self.now_ns, work, body)
        self._records.append(WorkRequested(self._requests, work, body))
        self._digest.update(_request_head.pack(self._requests, len(work), len(body)) + work.encode())
        self._digest.update(body)  # As it is: a body may be megabytes.
        return self._requests

    def after(self, delay_ns: int, timer: str, argument: str = "") -> None:
        """Set a timer that fires once."""
        self._timers.add(self.now_ns + delay_ns, timer, argument)

    def draws(self, stream: str, symbol: str = "") -> Iterator[float]:
        """Return uniforms of one stream."""
        return self._draws.uniforms(stream, symbol)

    def register(
        self, *, timer: tuple[str, Callable[[str], None]] | None = None, result: tuple[str, Callable[[Result], None]] | None = None
    ) -> None:
        """Give a handler to a timer's name or to the results of a kind of work; done once, while the engine is built."""
        if timer is not None:
            self._timer_handlers[timer[0]] = timer[1]
        if result is not None:
            self._result_handlers[result[0]] = result[1]

    # The inputs

    def _on_configure(self, entry: AnyInput) -> None:
        assert isinstance(entry, Configure)
        self._take_registry(entry.settings)
        self.settings = entry.settings
        self._draws.seed = entry.settings.seed
        first, self.configured = not self.configured, True
        if first:
            self._timers.add((entry.ts_ns // TICK_NS + 1) * TICK_NS, "microstructure", period_ns=TICK_NS)
        self.microstructure.on_configure(entry.settings)
        self.execution.on_configure()
        self.alphas.on_configure()
        self.router.on_configure()
        if first:
            self.impacts.start()
            self.alphas.start()
            self.router.start()

    def _take_registry(self, settings: CoreSettings) -> None:
        """Take the alphas and policies that settings leave; where they are others than before, all that was learnt of them is forgotten."""
        if settings.plugins != self._registry.plugins:
            raise OtherPlugins(
                f"expected the plugins {list(settings.plugins)}, as the inputs were recorded with, found {list(self._registry.plugins)}: "
                "give them with --plugin. A plugin may be changed after a clean stop alone: else go back to that file, or erase the state "
                "with: alphapack reset"
            )
        registry = self._registry.without(settings.router.without)
        if registry != self.alphas.registry:
            self.alphas.take(registry)
            self.router.take(registry)
            self.attribution.registry = registry

    def _on_session(self, entry: AnyInput) -> None:
        assert isinstance(entry, SessionStart)
        self.source_inputs += 1
        self.emit(SessionStarted(entry.source))
        self.microstructure.on_session()
        self.exchange.on_session()

    def _on_frame(self, entry: AnyInput) -> None:
        assert isinstance(entry, Frame)
        self.source_inputs += 1
        codec = self.codecs.get(entry.venue)
        if codec is not None and self.microstructure.on_frame(entry.venue, entry.payload):
            self._meet_orders()
            return
        try:
            if codec is None:
                raise FrameError(f"expected a venue of {sorted(self.codecs)}, found {entry.venue[:40]!r}")
            self.decoded = codec.decode(entry.payload, entry.symbol)
            for event in self.decoded:
                self.microstructure.on_event(event)
                self._meet_orders()
                if (handle := self.candles.handlers.get(type(event))) is not None:
                    self._hand_candles(handle, event)
                elif type(event) is FundingRate:
                    self.execution.on_funding(event)
        except FrameError as error:
            self._reject(entry.venue, entry.symbol, str(error))

    def _meet_orders(self) -> None:
        """Let the orders that rest at a symbol see what its message has changed."""
        touched = self.microstructure.touched
        if touched is not None and touched.facts.symbol in self.exchange.resting:
            self.exchange.on_market(touched.facts.symbol)

    def _on_decision(self, decision: Decision) -> None:
        self.outside.on_decision(decision)
        self.execution.on_decision(decision)

    def _on_matured(self, matured: Matured) -> None:
        self.router.on_matured(matured.decision, matured.reward_bps, matured.filled)

    def _on_closed(self, deal: Deal) -> None:
        frozen, measured = self.router.frozen(deal.decision.id), lines(deal)
        self.attribution.on_closed(
            deal.decision,
            frozen,
            Outcome(
                deal.decision.id,
                measured.pnl,
                measured.model,
                measured.execution,
                measured.fees,
                lambda proposal: model_at(deal, proposal),
            ),
        )

    def _on_choose(self, entry: AnyInput) -> None:
        assert isinstance(entry, Choose)
        self.router.on_choose(entry)

    def _on_reward(self, entry: AnyInput) -> None:
        assert isinstance(entry, Reward)
        self.router.on_reward(entry)

    def _on_disable(self, entry: AnyInput) -> None:
        assert isinstance(entry, Disable)
        if entry.what == "alpha":
            self.alphas.on_disable(entry)
        else:
            self.router.on_disable(entry)

    def _on_refined(self, symbol: str) -> None:
        """Count orders and positions of a symbol in the steps that its book has now, where these are parts of those before."""
        account = self.execution.account(symbol)
        terms = self.known.terms(symbol)
        if account is None or terms is None:
            return
        by_price, by_lot = account.sleeves.tick.size / terms.tick.size, account.sleeves.lot.size / terms.lot.size
        if by_price.denominator == 1 and by_lot.denominator == 1:
            self.exchange.on_steps(symbol, by_price.numerator, by_lot.numerator)
            self.execution.on_steps(symbol, by_price.numerator, by_lot.numerator)

    def _on_outside_fill(self, entry: AnyInput) -> None:
        assert isinstance(entry, OutsideFill)
        self.outside.on_fill(entry)

    def _hand_candles(self, handle: Callable[[Any], None], event: AnyWireEvent) -> None:
        try:
            handle(event)
        except FrameError:
            self.microstructure.on_rejected(event.symbol)
            raise

    def _on_heartbeat(self, entry: AnyInput) -> None:
        self.source_inputs += 1

    def _on_shed(self, entry: AnyInput) -> None:
        assert isinstance(entry, Shed)
        self.emit(IntakeOverloaded(entry.symbol, entry.frames, "shed"))
        self.microstructure.on_shed(entry.symbol, entry.frames)

    def _on_conflated(self, entry: AnyInput) -> None:
        assert isinstance(entry, Conflated)
        self.emit(IntakeOverloaded(entry.symbol, entry.frames, "conflated"))

    def _on_halt(self, entry: AnyInput) -> None:
        assert isinstance(entry, Halt)
        self._halt(entry.on)
        self.emit(TradingHalted(entry.on))
        if entry.on:
            self.execution.call_back_all()

    def _halt(self, on: bool) -> None:
        self.halted = self.router.halted = self.execution.halted = on

    def _on_result(self, entry: AnyInput) -> None:
        assert isinstance(entry, Result)
        self.outstanding.pop(entry.request_id, None)
        handler = self._result_handlers.get(entry.work)
        if handler is not None:
            handler(entry)

    def _on_history(self, entry: AnyInput) -> None:
        assert isinstance(entry, History)
        self.source_inputs += 1
        try:
            self.candles.on_history(entry)
        except FrameError as error:
            self._reject(venue_of(entry.symbol), name_of(entry.symbol), str(error))

    def _on_chain(self, entry: AnyInput) -> None:
        assert isinstance(entry, Chain)
        self.source_inputs += entry.source != POSTED
        self.options.on_chain(entry)

    def _reject(self, venue: str, symbol: str, reason: str) -> None:
        self.rejection = reason = reason[:REASON_LENGTH_MAX]
        if symbol and not self.decoded:  # What was decoded was counted where its symbol is known.
            self.microstructure.on_rejected(symbol_id(venue, symbol))
        told = self._rejections.setdefault(venue, _Rejections(0, -REJECTIONS_NS))
        told.frames += 1
        if self.now_ns - told.last_ns >= REJECTIONS_NS:
            self.emit(FrameRejected(venue, symbol, reason, told.frames))
            told.frames, told.last_ns = 0, self.now_ns

    # Answers

    def decision_context(self, symbol: str) -> dict[str, float]:
        """Return all that a decision about a full symbol name looks at, raw, as far as it is known: features, forecasts, smile."""
        features = self.microstructure.context(symbol)
        return {
            **features,
            **self.known.costs(symbol, features.get("mid")),
            **self.volatility.context(symbol, -(-self.settings.router.horizon_s // 60)),
            **self.options.context(base_of(symbol)),
        }

    @property
    def relearns(self) -> bool:
        """Whether the state is one that was computed with other plugins than there are."""
        return self.settings.plugins != self._registry.plugins

    # State

    def hexdigest(self) -> str:
        """Return the digest of all inputs and of all that followed from them."""
        return self._digest.hexdigest()

    def save(self) -> bytes:
        """Return the whole state: loading it and stepping the tail equals stepping everything."""
        return msgspec.msgpack.encode(
            _Saved(
                STATE_VERSION,
                self.seq,
                self.now_ns,
                self.source_inputs,
                self.records_kept,
                self.settings if self.configured else None,
                self.halted,
                self._digest.save(),
                self._timers.save(),
                self._draws.counts,
                self._requests,
                self.outstanding,
                self._rejections,
                [service.save() for service in self._services],
            )
        )

    def load(self, state: bytes) -> None:
        """Replace the whole state by what ``save`` returned."""
        version = msgspec.msgpack.decode(state, type=_Version).version
        if version != STATE_VERSION:
            raise ValueError(f"expected a state of version {STATE_VERSION}, found {version}")
        saved = msgspec.msgpack.decode(state, type=_Saved)
        self.seq, self.now_ns = saved.seq, saved.now_ns
        self.source_inputs, self.records_kept = saved.source_inputs, saved.records_kept
        self.configured = saved.settings is not None
        self.settings = saved.settings or CoreSettings()
        if self.settings.plugins == self._registry.plugins:
            self._take_registry(self.settings)
        self._halt(saved.halted)
        self._draws.seed, self._draws.counts = self.settings.seed, saved.draws
        self._digest.load(*saved.digest)
        self._timers.load(*saved.timers)
        self._requests, self.outstanding, self._rejections = saved.requests, saved.outstanding, saved.rejections
        self.microstructure.on_configure(self.settings)
        for service, one in zip(self._services, saved.services, strict=True):
            service.load(one)
        if self.relearns:  # What was learnt of other files is not known of these.
            self.alphas.take(self._registry)
            self.router.take(self._registry)


def _judge(codec: Codec) -> Judge:
    return lambda diff, last, first: codec.verdict(diff, last, first_after_snapshot=first)
