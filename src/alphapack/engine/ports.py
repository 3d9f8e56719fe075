"""What the core and its shell ask of each other, drawn so that other stores can stand behind the same words."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import msgspec

from alphapack.domain.events import AnyWireEvent, DepthDiff, WorkRequested
from alphapack.domain.inputs import AnyInput
from alphapack.domain.market import Verdict
from alphapack.domain.readings import Book, ChainTaken, Health, Microstructure, Smile, SymbolInfo, VolAccuracy, VolForecast
from alphapack.domain.routing_readings import (
    AlphaReading,
    Attribution,
    Choice,
    DecisionAudit,
    Decisions,
    RewardTaken,
    Snapshot,
)
from alphapack.domain.trading_readings import (
    DecisionPlans,
    FillReport,
    FillReportTaken,
    Fills,
    Orders,
    Plan,
    Portfolio,
    SimulateRequest,
    Sizing,
    Trades,
)


class Codec(Protocol):
    """A venue's wire format and continuity rule; holds no connection, clock or file."""

    venue: str
    spot: bool
    """Whether its market trades what is owned, so that nothing can be sold short."""
    frame_format: int
    """The format of ``kernels.wire`` in which this venue's frames may be taken whole by a kernel."""

    def decode(self, payload: bytes, symbol: str) -> tuple[AnyWireEvent, ...]:
        """Return what the frame says; ``symbol`` is the venue's name where the payload has none.

        Raises ``FrameError`` with one line on what was expected and what came.
        """
        ...

    def glance(self, payload: bytes) -> tuple[str, bool]:
        """Return the venue's name in a frame, empty where it shows none, and whether it is a top-of-book ticker; never raises.

        For a frame that says what it is not, the answer may be wrong.
        """
        ...

    def verdict(self, diff: DepthDiff, last: int, *, first_after_snapshot: bool) -> Verdict:
        """Judge a difference against the book's last update id by the venue's rule."""
        ...

    def contract_value(self, symbol: str) -> float | None:
        """Return the quote value of one contract of an inverse instrument, None for a linear one."""
        ...


class Service(Protocol):
    """Owner of one slice of state; the engine saves, loads and feeds it."""

    def save(self) -> list[memoryview]:
        """Return the whole state, versioned, in pieces: what is large is copied once, by the engine, before the next input."""
        ...

    def load(self, pieces: list[memoryview]) -> None:
        """Replace the whole state by one that ``save`` returned."""
        ...


class Journal(Protocol):
    """Append-only inputs; what is in it is what happened."""

    @property
    def last_seq(self) -> int:
        """The last durable seq; 0 while there is none."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes held."""
        ...

    def append(self, entries: Iterable[AnyInput], *, allow_gap: bool = False) -> None:
        """Make the entries durable before returning; only with ``allow_gap`` may their first seq leave a hole."""
        ...

    def read(self, after_seq: int = 0) -> Iterator[AnyInput]:
        """Yield the inputs with ``seq > after_seq`` in order."""
        ...

    def drop_through(self, seq: int) -> None:
        """Delete what is wholly at or before ``seq``, as far as that is cheap."""
        ...

    def probe(self) -> None:
        """Raise ``OSError`` unless it can be written."""
        ...


class LedgerRow(msgspec.Struct, frozen=True):
    """One record as it is kept: keyed (engine, seq, ordinal)."""

    seq: int
    ordinal: int
    ts_ns: int
    kind: str
    symbol: str
    body: bytes
    """The record as JSON."""


class Ledger(Protocol):
    """Append-only, hash-chained rows about what people care for."""

    def append(self, rows: Iterable[LedgerRow]) -> None:
        """Make the rows durable before returning."""
        ...

    def rows(self, after_seq: int = 0) -> Iterator[LedgerRow]:
        """Yield the rows with ``seq > after_seq`` in key order."""
        ...

    def reconcile(self, rows: Iterable[LedgerRow]) -> list[LedgerRow]:
        """Return those of the rows that are not kept yet; raise where a kept one differs."""
        ...

    def probe(self) -> None:
        """Raise ``OSError`` unless it can be written."""
        ...


class CheckpointStore(Protocol):
    """Whole engine states, newest last; each is verified when written and when read."""

    @property
    def oldest_kept(self) -> int:
        """The seq of the oldest one; 0 where there is none."""
        ...

    def write(self, seq: int, state: bytes) -> None:
        """Keep a state durably, verify it by reading it back, and drop all but the newest three."""
        ...

    def newest(self, *, before_seq: int | None = None) -> tuple[int, bytes] | None:
        """Return the newest readable state (with ``seq < before_seq`` where given), skipping damaged ones."""
        ...


class Executor(Protocol):
    """Does what the core requested, off the loop, and hands the answer to the runner as an input."""

    def start(self, request: WorkRequested) -> None:
        """Begin the work and return at once."""
        ...


class NewsPage(NamedTuple):
    """Records in the order in which they happened."""

    rows: list[LedgerRow]
    cursor: int
    """Where the next page begins."""
    missed: int
    """Records between the cursor that was asked for and the first row, which are no longer kept."""


class News(Protocol):
    """The recent records, for those who follow what happens; only what is durable is told.

    A cursor is a place in it, valid as long as the process lives; a key, ``(seq, ordinal)``, names a record for ever.
    """

    @property
    def oldest(self) -> int:
        """The cursor of the oldest record kept."""
        ...

    @property
    def latest(self) -> tuple[int, int]:
        """The key of the last record that may be told, also where it is no longer kept; ``(0, 0)`` before the first."""
        ...

    def cursor(self, key: tuple[int, int]) -> int | None:
        """Return the place behind the record of ``key``; None where what followed it may be gone."""
        ...

    def page(self, cursor: int, limit: int) -> NewsPage:
        """Return at most ``limit`` durable records from ``cursor`` on."""
        ...

    async def beyond(self, cursor: int) -> None:
        """Return once there is a durable record at ``cursor`` or behind it."""
        ...


class RejectedLine(msgspec.Struct, frozen=True):
    """A frame that could not be used: which line it was, counted from 1, and why."""

    line: int
    reason: str


class Ingested(msgspec.Struct, frozen=True):
    """What became of frames that were posted; ``frames = accepted + rejected_count``."""

    venue: str
    frames: int
    accepted: int
    rejected: list[RejectedLine]
    """The first ``REJECTED_LINES_MAX`` of them."""
    rejected_count: int
    seq: int
    """The seq of the last frame."""
    durable_seq: int
    """At or beyond ``seq``: all of it is safe on disk."""


REJECTED_LINES_MAX = 100


class IngestRefused(Exception):
    """Frames, chains or fills that are not taken; the text says why in one line."""


class NotReady(IngestRefused):
    """The engine is starting and has taken none of them."""


class NotAccepting(IngestRefused):
    """What is served takes no inputs from outside and has taken none of them."""


class NotDurable(IngestRefused):
    """The disk refuses: none were taken, or they were stepped and are not safe; the text says which."""


class Malformed(IngestRefused):
    """A body that is not JSON; none of it was taken."""


class Invalid(IngestRefused):
    """JSON that is not what was asked for; none of it was taken."""


class Busy(IngestRefused):
    """As much of the kind as may wait is waiting already; none of it was taken."""


class ReportRefused(Exception):
    """A report of a fill that cannot be counted; the text says why in one line."""


class UnknownDecision(ReportRefused):
    """A report about a decision that was never made, or is no longer kept."""


class AlreadyReported(ReportRefused):
    """A fill whose client id was reported before; it counts once."""


class NoData(Exception):
    """A question about a known symbol of which too little is known; the text says in one line what is missing."""


class Host(Protocol):
    """What the HTTP layer may ask of the running engine, on the engine's loop; all that are not ``async`` return at once."""

    @property
    def news(self) -> News:
        """The recent records; the same object for as long as the host lives."""
        ...

    def venues(self) -> tuple[str, ...]:
        """Return the venues whose frames can be read, in order of name."""
        ...

    async def ingest(self, venue: str, symbol: str, lines: Iterable[bytes]) -> Ingested:
        """Take each line that is not empty as a frame of one of ``venues`` and return once all are durable.

        Lines are stamped, stepped and journaled as any frame is, in slices between which the loop does other things;
        they are drawn as they are needed. ``symbol`` is the venue's name of what a frame without one is about, or empty.
        Raises ``NotReady``, ``NotAccepting`` or ``NotDurable``.
        """
        ...

    def health(self) -> Health:
        """Return the state of the whole."""
        ...

    def resolve(self, text: str) -> str | None:
        """Return the full name of the symbol that ``BTCUSDT`` or ``venue:SYMBOL`` (any case) names, None if unknown."""
        ...

    def symbols(self) -> list[SymbolInfo]:
        """Return every known symbol in order of name."""
        ...

    def microstructure(self, symbol: str) -> Microstructure | None:
        """Return the features of a full symbol name, None while its book has never been LIVE."""
        ...

    def book(self, symbol: str, depth: int) -> Book | None:
        """Return the best ``depth`` levels, None while the book has never been LIVE."""
        ...

    def history(self, kind: str, symbol: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]] | None:
        """Return columns, oldest row first: the first ``limit`` rows with ``ts_ms >= from_ms``; None for an unknown kind.

        The kind ``equity`` is the portfolio's; its symbol is ``all``.
        """
        ...

    def vol_forecast(self, symbol: str, horizon: int, variant: str) -> VolForecast:
        """Return the volatility of the next ``horizon`` minutes, 1 to 10080; ``variant`` is log or plain. Raises ``NoData``."""
        ...

    def vol_accuracy(self, symbol: str) -> VolAccuracy:
        """Return how good the forecasts of volatility have been. Raises ``NoData``."""
        ...

    async def chain(self, symbol: str, body: bytes) -> ChainTaken:
        """Take an option chain of a full symbol name's base asset; returns once it was read, inverted and made durable.

        ``body`` is JSON as ``POST /api/options/chain`` has it. Raises ``Malformed``, ``Invalid``, ``Busy``, ``NotReady``,
        ``NotAccepting`` or ``NotDurable``.
        """
        ...

    def underlying(self, text: str) -> str | None:
        """Return the full name of a symbol, or a base asset of which there is a smile, that ``text`` names; None if unknown."""
        ...

    def smile(self, symbol: str) -> Smile:
        """Return what the newest chain of an ``underlying`` says. Raises ``NoData``."""
        ...

    def simulate(self, symbol: str, request: SimulateRequest) -> Plan:
        """Return how an order of a full symbol name would be traded; nothing is sent.

        ``request`` is in range field by field; its own ``symbol`` is as it was written. Raises ``NoData``, or ``Invalid`` where
        so much cannot be planned.
        """
        ...

    def sizing(self, symbol: str | None) -> Sizing:
        """Return the last sizing of a full symbol name, or the newest of any. Raises ``NoData``."""
        ...

    def orders(self, symbol: str | None, state: str | None, before: int | None, limit: int) -> Orders:
        """Return the newest ``limit`` orders whose id is below ``before``; None asks for all.

        ``state`` is one of sent, working, filled, cancelled, rejected, or open for sent and working.
        """
        ...

    def fills(self, symbol: str | None, before: int | None, limit: int) -> Fills:
        """Return the newest ``limit`` fills whose id is below ``before``; None asks for all."""
        ...

    async def report_fill(self, report: FillReport) -> FillReportTaken:
        """Take a fill of an outside executor, in range field by field; returns once it is durable.

        Raises ``UnknownDecision``, ``AlreadyReported``, ``Invalid``, ``NotReady``, ``NotAccepting`` or ``NotDurable``.
        """
        ...

    async def choose(self, symbol: str, context: Mapping[str, float]) -> Choice:
        """Decide about a full symbol name as advice, some features overridden; returns once that is durable.

        Raises ``NoData``, ``Busy``, ``NotReady``, ``NotAccepting`` or ``NotDurable``.
        """
        ...

    async def reward(self, decision_id: str, reward_bps: float) -> RewardTaken:
        """Learn what advice came to; returns once it is durable.

        Raises ``UnknownDecision``, ``AlreadyReported``, ``NotReady``, ``NotAccepting`` or ``NotDurable``.
        """
        ...

    def snapshot(self, symbol: str | None, origin: str | None) -> Snapshot:
        """Return the newest decision, of a full symbol name and an origin (engine or api) where given. Raises ``NoData``."""
        ...

    def decisions(self, symbol: str | None, origin: str | None, before: int | None, limit: int) -> Decisions:
        """Return the newest ``limit`` decisions whose id is below ``before``; None asks for all."""
        ...

    def decision(self, decision_id: str) -> DecisionAudit | None:
        """Return the audit record of a decision, None where it is unknown or no longer kept."""
        ...

    def alphas(self) -> list[AlphaReading]:
        """Return every alpha, in the order of the registry."""
        ...

    def attribution(self, trade_id: str) -> Attribution | None:
        """Return who is to be thanked for a trade, or for the newest, ``latest``; None where it is unknown or no longer kept.

        Raises ``NoData`` where no trade has closed yet.
        """
        ...

    def plans(self, decision_id: str) -> DecisionPlans | None:
        """Return the plans of a decision, None if it is unknown; the id is any text of 1 to 64 printable characters."""
        ...

    def portfolio(self) -> Portfolio:
        """Return the whole paper portfolio. Raises ``NoData``."""
        ...

    def trades(self, symbol: str | None, state: str | None, before: int | None, limit: int) -> Trades:
        """Return the newest ``limit`` trades whose decision is below ``before``; None asks for all. ``state`` is open or closed."""
        ...

    def sequence(self) -> tuple[int, int]:
        """Return ``(seq, durable_seq)``."""
        ...

    def config(self) -> dict[str, object]:
        """Return the effective settings, secrets masked."""
        ...

    def counters(self) -> dict[str, float]:
        """Return monotonic totals and gauges by Prometheus metric name without prefix."""
        ...
