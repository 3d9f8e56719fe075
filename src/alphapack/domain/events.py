"""Facts derived from inputs.

Two families. *Wire events* are what a codec reads out of one frame; they carry the level lists as the venue's bytes,
and prices and quantities as its quoted decimals,
because kernels parse them exactly. *Records* are what the engine says happened: they are returned by
``Engine.step``, hashed into the digest and, where people care, kept in the ledger.
"""

from typing import Any

import msgspec

from alphapack.domain.market import BookState
from alphapack.domain.trading import Quote


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


class FundingRate(WireEvent, frozen=True, gc=False):
    """What a perpetual is about to pay: at ``next_ms`` of the venue, who is long pays ``rate`` of the value at ``mark``."""

    mark: str
    rate: str
    next_ms: int


class Ignored(WireEvent, frozen=True, gc=False):
    """A well-formed message that says nothing about the market (an acknowledgement, a notice)."""

    what: str


AnyWireEvent = DepthDiff | DepthSnapshot | Trade | TopOfBook | Candle | Candles | Listing | FundingRate | Ignored


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


class DecisionMade(Record, frozen=True, tag="decision"):
    """What was decided about a symbol, and all that it takes to decide it again and to judge another router by it.

    What is by policy has every policy but flat, unless it says otherwise.
    """

    decision: int
    symbol: str
    origin: str
    """engine: it was traded on; api: it was asked for as advice."""
    policy: str
    exposure: float
    """-1 to 1: of the size that is allowed; of a quote: the share of its bid less that of its ask."""
    quote: Quote | None
    urgency: float
    horizon_s: int
    plan_s: int
    win_probability: float
    """As outcomes known before have calibrated it; a half where it is flat."""
    win_probability_raw: float
    """That the reward of the chosen arm is above 0, by its posterior alone."""
    features: dict[str, float]
    """What was known of the context, in raw units."""
    sources: dict[str, str]
    """Of each feature of the table: live, request or missing."""
    standardised: dict[str, float]
    """Those of the table that were known, by what was learnt before; signed ones have kept their sign."""
    standardiser: int
    """Observations by which they were standardised."""
    signals: dict[str, float | None]
    weights: dict[str, float]
    blends: dict[str, float]
    """By policy."""
    proposals: dict[str, float]
    """Exposure that each policy proposed."""
    sides: dict[str, int]
    """By policy: what its signed features were multiplied by; 0 where it proposed none."""
    enabled: dict[str, bool]
    """Which policies could be chosen."""
    sigma: float
    """Volatility to the horizon, a fraction; 0: not known."""
    offsets: dict[str, float]
    """What each policy's round trip costs, below 0, in volatilities to the horizon: the prior mean of its reward."""
    mixtures: dict[str, list[list[float]]]
    """The distribution from which each score was drawn: rows of weight, location, scale and degrees of freedom of a Student t."""
    uniforms: list[float]
    """All the chance there was in it."""
    floor: float
    scores: dict[str, float | None]
    """Of every policy and flat; null where it could not be chosen."""
    propensities: dict[str, float]
    explored: bool
    """Whether the floor chose rather than the scores."""
    posterior: dict[str, str]
    """Digest of the posterior of each policy."""
    learnt: dict[str, int]
    """Rewards that each posterior had seen."""


class RewardLearnt(Record, frozen=True, tag="reward"):
    """What a decision came to at its horizon, and what the router made of it."""

    decision: int
    symbol: str
    policy: str
    origin: str
    reward_bps: float
    """Of the notional allocated, after costs."""
    target: float
    """In volatilities to the horizon, cut to 6 on both sides: what the posterior learnt."""
    won: bool | None
    """Whether it was above 0, as the win probability is about; null where nothing was filled."""


class WeightsLearnt(Record, frozen=True, tag="weights"):
    """The weights of the alphas from now on."""

    weights: dict[str, float]
    observations: int


class AlphaDisabled(Record, frozen=True, tag="alpha_disabled"):
    """An alpha, or a policy, failed or took too long, and is asked no more."""

    name: str
    what: str
    """alpha or policy."""
    reason: str


class Contribution(msgspec.Struct, frozen=True):
    """What one alpha did for a trade. Money."""

    id: str
    signal: float | None
    weight: float
    shapley: int
    leave_one_out: int = msgspec.field(name="leaveOneOut")
    """What the trade would have lacked without it alone; these do not sum to anything."""


class Attributed(Record, frozen=True, tag="attribution"):
    """Who is to be thanked for a trade: ``pnl = base + sum of shapley + execution + fees``. Money, paid below zero."""

    decision: int
    symbol: str
    policy: str
    pnl: int
    base: int
    """What the policy would have made without alphas."""
    execution: int
    """Arrival and fill prices against the model's, measured by themselves; funding too."""
    fees: int
    contributions: list[Contribution]
    error: float
    """Largest standard error of a share, in money; 0 where they are exact."""


class Sized(Record, frozen=True, tag="sizing"):
    """Every step from an exposure to a size; the body is that of ``readings.Sizing``."""

    decision: int
    symbol: str
    sizing: dict[str, Any]


class Planned(Record, frozen=True, tag="plan"):
    """How a change of a sleeve is to be traded."""

    decision: int
    symbol: str
    leg: str
    """entry or exit."""
    side: str
    lots: int
    style: str
    schedule: str
    reason: str
    cost_bps: float
    slices: int


class OrderChanged(Record, frozen=True, tag="order"):
    """An order entered a state, as its sender learns of it."""

    order: int
    client_id: str
    symbol: str
    side: str
    type: str
    ticks: int
    """The limit."""
    lots: int
    filled_lots: int
    state: str
    reason: str
    shares: dict[int, int]
    """Signed lots that it was sent for, by decision; fills are split by what is left of them."""


class Filled(Record, frozen=True, tag="fill"):
    """Lots of an order were filled, as its sender learns of it. Money is in units of 1e-8, paid below zero."""

    fill: int
    order: int
    symbol: str
    side: str
    ticks: int
    lots: int
    maker: bool
    cause: str
    """swept, printed, through or crossed: see docs/MATCHING.md."""
    exchange_ns: int
    """Engine time at which it happened."""
    value: int
    """Price times quantity, never below zero."""
    fee: int
    impact: int
    """Charge for what own fills before had done to the price."""
    available_lots: int
    """What was there to be filled from: displayed and not taken, or traded beyond the queue."""


class Crossed(Record, frozen=True, tag="cross"):
    """Sleeves that wanted opposite things traded with each other, at the mid and free of fees."""

    symbol: str
    mid_half_ticks: int
    lots: dict[int, int]
    """Signed, by decision; their sum is 0."""


class HouseTook(Record, frozen=True, tag="house"):
    """What a sleeve still held was too little to be ordered: the house took it for its value at the mid."""

    decision: int
    symbol: str
    lots: int
    """Signed."""
    mid_half_ticks: int
    value: int
    """What the house paid for it, with the sign of the lots."""


class FundingPaid(Record, frozen=True, tag="funding"):
    """Funding of a position was booked. Money is in units of 1e-8, paid below zero."""

    symbol: str
    lots: int
    """Held, signed."""
    mark: str
    rate: str
    funding_ms: int
    """When it fell due, on the venue's clock."""
    paid: int


class TradeClosed(Record, frozen=True, tag="trade"):
    """A sleeve is flat again: what came of its decision. Money is in units of 1e-8, paid below zero."""

    decision: int
    symbol: str
    policy: str
    pnl: int
    fees: int
    impact: int
    funding: int
    turnover: int
    opened_ns: int
    probe: bool


class TradingHalted(Record, frozen=True, tag="halt"):
    """Trading stands still, because nothing can be kept on disk; or, with ``on`` false, it goes on."""

    on: bool


class OutsideFilled(Record, frozen=True, tag="outside_fill"):
    """An outside executor reported a fill of a decision; the paper portfolio is not touched by it."""

    decision: int
    client_fill_id: str
    symbol: str
    price: float
    size: float
    fee: float
    venue_ms: int


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
    | DecisionMade
    | RewardLearnt
    | WeightsLearnt
    | AlphaDisabled
    | Attributed
    | Sized
    | Planned
    | OrderChanged
    | Filled
    | Crossed
    | HouseTook
    | FundingPaid
    | TradeClosed
    | OutsideFilled
    | TradingHalted
)
