"""Facts derived from inputs.

Two families. *Wire events* are what a codec reads out of one frame; they carry the level lists as the venue's bytes,
and prices and quantities as its quoted decimals,
because kernels parse them exactly. *Records* are what the engine says happened: they are returned by
``Engine.step``, hashed into the digest and, where people care, kept in the ledger.
"""

import msgspec

from alphapack.domain.market import BookState


class FrameError(ValueError):
    """A frame that is not what the venue's protocol promises: one line on what was expected and what came."""


class WireEvent(msgspec.Struct, frozen=True, gc=False):
    """Base of what a codec makes of a frame; flat, so that the collector need not look at it.

    ``symbol`` is the full name, ``venue_ns`` 0 where the venue says no time.
    """

    symbol: str
    venue_ns: int


class DepthDiff(WireEvent, frozen=True, gc=False):
    """Absolute quantities at changed prices; ``first..last`` and ``previous`` are the venue's update ids."""

    first: int
    last: int
    previous: int | None
    bids: bytes
    asks: bytes


class DepthSnapshot(WireEvent, frozen=True, gc=False):
    """A whole book as of update ``last``."""

    last: int
    bids: bytes
    asks: bytes


class Trade(WireEvent, frozen=True, gc=False):
    """One trade, or an aggregate of trades ``first_id..last_id`` of one taker order at one price.

    Aggregates have ids of their own, ``aggregate_id``: these follow each other, even where trades of kinds that are never
    aggregated took ids in between. Of a single trade it is -1.
    """

    first_id: int
    last_id: int
    price: bytes
    quantity: bytes
    buyer_is_taker: bool
    aggregate_id: int = -1

    @property
    def aggregate(self) -> bool:
        """Whether it is of a stream of aggregates."""
        return self.aggregate_id >= 0


class TopOfBook(WireEvent, frozen=True, gc=False):
    """Best bid and ask as the venue states them for update ``update``."""

    update: int
    bid: bytes
    bid_quantity: bytes
    ask: bytes
    ask_quantity: bytes


class Candle(WireEvent, frozen=True, gc=False):
    """One candle; only a ``closed`` one is final. Times are the venue's, in milliseconds."""

    open_ms: int
    close_ms: int
    interval: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    closed: bool


class Candles(WireEvent, frozen=True):
    """Closed candles of the past, as a venue's REST answer states them, oldest first."""

    interval_ms: int
    rows: tuple[tuple[int, str, str, str, str, str], ...]
    """Venue's opening time in milliseconds; open, high, low, close; volume."""


class Listing(WireEvent, frozen=True):
    """What a venue states about an instrument; None where it says nothing."""

    tick: str | None = None
    lot: str | None = None
    min_notional: float | None = None
    contract_value: float | None = None
    maker_fee_bps: float | None = None
    taker_fee_bps: float | None = None


class Ignored(WireEvent, frozen=True, gc=False):
    """A well-formed message that says nothing about the market (an acknowledgement, a notice)."""

    what: str


AnyWireEvent = DepthDiff | DepthSnapshot | Trade | TopOfBook | Candle | Candles | Listing | Ignored


class Record(msgspec.Struct, frozen=True, tag_field="kind"):
    """Base of what the engine says happened."""


class SessionStarted(Record, frozen=True, tag="session_started"):
    """A session began; books that were LIVE are STALE until proven again."""

    source: str


class BookStateChanged(Record, frozen=True, tag="book_state"):
    """A book went from one state to another, and why."""

    symbol: str
    before: BookState
    after: BookState
    reason: str


class InstrumentChanged(Record, frozen=True, tag="instrument"):
    """The tick or lot of a symbol became known, or finer, from what the venue sent."""

    symbol: str
    tick: str
    lot: str


class TradesMissed(Record, frozen=True, tag="trades_missed"):
    """Trades ``first..last`` of a symbol's one trade stream never came: what is summed over trades lacks them."""

    symbol: str
    first: int
    last: int


class FrameRejected(Record, frozen=True, tag="frame_rejected"):
    """A frame that could not be used; ``frames`` counts those since the last such record of this venue."""

    venue: str
    symbol: str
    reason: str
    frames: int


class IntakeOverloaded(Record, frozen=True, tag="overload"):
    """Frames were given up before the journal."""

    symbol: str
    frames: int
    how: str


class WorkRequested(Record, frozen=True, tag="request"):
    """Work for the shell to do off the loop; its answer comes back as a ``Result`` or as frames."""

    request_id: int
    work: str
    body: bytes


class WorkFailed(Record, frozen=True, tag="work_failed"):
    """Work off the loop came to nothing, and why."""

    request_id: int
    work: str
    symbol: str
    reason: str


class SmileChanged(Record, frozen=True, tag="smile"):
    """A chain of options was taken, and what its smile says; null where that is not known."""

    symbol: str
    """The base asset."""
    source: str
    venue_ms: int
    accepted: int
    rejected: int
    ref_tenor_days: float | None
    atm_iv: float | None
    rr25: float | None
    fly25: float | None
    iv_term_slope: float | None
    skew_z: float | None


AnyRecord = (
    SessionStarted
    | BookStateChanged
    | InstrumentChanged
    | TradesMissed
    | FrameRejected
    | IntakeOverloaded
    | WorkRequested
    | WorkFailed
    | SmileChanged
)
