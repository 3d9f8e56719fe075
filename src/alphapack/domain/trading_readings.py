"""What a reader is answered about trading: sizes, plans, orders, fills, the portfolio and its trades.

Money is a whole number of 1e-8 of the settlement currency, signed from the trader's side: paid is below zero. Sizes are in base units.
``None`` where a number is not known. Ids are texts; those of orders and fills grow with time.
"""

from typing import Literal

import msgspec


class Page(msgspec.Struct, frozen=True):
    """Base of a page of a list, newest first."""

    next: str | None
    """Cursor of the page behind this one; null: there is none."""


class Kelly(msgspec.Struct, frozen=True):
    """Kelly-lite: what an edge is worth."""

    z: float
    """Standard normal quantile of the win probability."""
    edge: float
    variance: float
    fraction: float
    cap: float
    leverage: float


class Cap(msgspec.Struct, frozen=True):
    """A limit that made a size smaller, and what it left."""

    name: str
    limit: float
    size: float


class Sizing(msgspec.Struct, frozen=True):
    """Every step from an exposure to a size."""

    ts_ms: int
    symbol: str
    decision_id: str = msgspec.field(name="decisionId")
    exposure: float
    h: int
    """Horizon of the forecasts, in minutes."""
    sigma_har: float = msgspec.field(name="sigmaHAR")
    sigma_garch: float = msgspec.field(name="sigmaGARCH")
    sigma_used: float = msgspec.field(name="sigmaUsed")
    rule: str
    target_vol: float = msgspec.field(name="targetVol")
    vol_leverage: float
    kelly: Kelly
    win_probability: float = msgspec.field(name="winProb")
    equity: int
    sleeves_max: int
    raw_size: float = msgspec.field(name="rawSize")
    caps: list[Cap]
    probe: bool
    size: float
    """Signed."""
    reason: str
    """Why it is 0, or a probe; empty otherwise."""


class Cost(msgspec.Struct, frozen=True):
    """What an order is expected to cost; ``bps = half_spread_bps + impact_bps``."""

    bps: float
    quote: float
    half_spread_bps: float
    impact_bps: float
    fees_bps: float
    timing_risk_bps: float
    """A standard deviation; no part of the cost."""


class SimulateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order to be planned and priced, not sent."""

    symbol: str
    size: float
    """In base units, above 0."""
    side: Literal["buy", "sell"] = "buy"
    urgency: float = 0.5
    horizon_s: float = 300.0


class Slice(msgspec.Struct, frozen=True):
    """A part of an order, and when it begins, in seconds from the start."""

    t_s: float
    size: float


class PlanInputs(msgspec.Struct, frozen=True):
    """What a plan was made of."""

    mid: float
    spread_bps: float
    depth: float
    micro_vol: float
    sigma: float
    adv: float
    k: float
    a: float
    k_stderr: float
    """Of log k."""
    a_stderr: float
    impact_source: str
    """prior, sweeps, bars or fills: the last that k and a rest on."""


class Plan(msgspec.Struct, frozen=True):
    """How an order would be traded, and what that is expected to cost."""

    symbol: str
    size: float
    side: str
    urgency: float
    horizon_s: float
    style: str
    schedule: str
    reason: str
    participation: float
    """Size over the volume that is foreseen meanwhile."""
    cost: Cost
    slices: list[Slice]
    inputs: PlanInputs


class Costs(msgspec.Struct, frozen=True):
    """What trading a leg has cost so far, in money, paid above zero: ``slippage = delay + timing + spread + impact``. See docs/TCA.md."""

    filled: float
    average_price: float | None
    arrival_mid: float | None
    market_vwap: float | None
    slippage: int
    delay: int
    timing: int
    spread: int
    impact: int
    own_impact: int
    """Of the impact: the charge for what own fills before had done to the price."""
    fees: int
    opportunity: int | None
    """Of what was not filled; null before the horizon."""
    shortfall: int | None
    """Slippage, opportunity and fees."""
    bps: dict[str, float | None]
    """The same of what was ordered, in basis points."""


class DecisionPlan(msgspec.Struct, frozen=True):
    """One leg of a decision: its plan, and what became of it."""

    leg: str
    """entry or exit."""
    ts_ms: int
    size: float
    """Signed."""
    plan: Plan | None
    """Null: there was too little to plan with, and it is taken at once."""
    costs: Costs


class DecisionPlans(msgspec.Struct, frozen=True):
    """All plans of a decision."""

    decision_id: str = msgspec.field(name="decisionId")
    symbol: str
    policy: str
    state: str
    plans: list[DecisionPlan]


class OrderReading(msgspec.Struct, frozen=True):
    """One order as its sender knows it."""

    id: str
    client_id: str
    symbol: str
    side: str
    type: str
    price: float
    size: float
    filled: float
    average_price: float | None
    state: str
    reason: str
    queue_ahead: float | None
    fees: int
    impact: int
    sent_ms: int
    ended_ms: int | None
    decisions: dict[str, float]
    """Signed sizes that it was sent for, by decision."""


class Orders(Page, frozen=True):
    """A page of orders."""

    orders: list[OrderReading]


class FillReading(msgspec.Struct, frozen=True):
    """One fill."""

    id: str
    order_id: str
    symbol: str
    side: str
    price: float
    size: float
    maker: bool
    cause: str
    """swept, printed, through or crossed: see docs/MATCHING.md."""
    ts_ms: int
    """When it happened, on the engine's clock."""
    value: int
    fee: int
    impact: int
    available: float
    """What was there to be filled from."""
    mid: float | None
    markouts_bps: dict[str, float | None]
    """Gain against the mid 1, 5 and 60 s later; null until then."""


class Fills(Page, frozen=True):
    """A page of fills."""

    fills: list[FillReading]


class TradeReading(msgspec.Struct, frozen=True):
    """The sleeve of one decision."""

    trade_id: str = msgspec.field(name="tradeId")
    decision_id: str = msgspec.field(name="decisionId")
    symbol: str
    policy: str
    state: str
    """open or closed."""
    size: float
    """What it was sized to, signed."""
    position: float
    pnl: int | None
    """Of one that is open: at the last mid; null where that is not known."""
    fees: int
    impact: int
    funding: int
    turnover: int
    crossed: float
    opened_ms: int
    closed_ms: int | None
    probe: bool


class Trades(Page, frozen=True):
    """A page of trades."""

    trades: list[TradeReading]


class Position(msgspec.Struct, frozen=True):
    """What is held of one symbol."""

    symbol: str
    size: float
    average_price: float | None
    mid: float | None
    value: int | None
    realised: int
    unrealised: int | None
    cash: int
    fees: int
    impact: int
    funding: int
    sleeves: int
    house: float
    """What no decision ordered, in base units."""
    house_pnl: int | None
    """Of the house."""
    closed_pnl: int
    """Of all trades that were closed."""


class LimitUse(msgspec.Struct, frozen=True):
    """A limit and how much of it is used, both as multiples of equity or as volatility a year."""

    name: str
    limit: float
    used: float


class MeanMarkout(msgspec.Struct, frozen=True):
    """What fills gained against the mid some time later, in the mean by value; below zero: the market went against them."""

    kind: str
    """maker or taker."""
    horizon_s: int
    n: int
    missed: int
    """Those of which it is not known."""
    bps: float | None


class Portfolio(msgspec.Struct, frozen=True):
    """The whole paper portfolio."""

    ts_ms: int
    settlement: str
    capital: int
    cash: int
    equity: int
    realised: int
    unrealised: int
    fees: int
    impact: int
    funding: int
    turnover: int
    gross: int
    net: int
    peak_equity: int
    drawdown: float
    brake: bool
    bar_s: int
    positions: list[Position]
    limits: list[LimitUse]
    markouts: list[MeanMarkout]
    open_orders: int
    not_trading: str | None
    """Why nothing can be traded now; null where something can."""


class FillReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fill of an outside executor, as it reports it."""

    decision_id: str = msgspec.field(name="decisionId")
    client_fill_id: str = msgspec.field(name="clientFillId")
    price: float
    size: float
    """In base units; below 0 where it was sold."""
    fee: float
    """In units of the settlement currency; paid below 0."""
    ts_ms: int


class FillReportTaken(msgspec.Struct, frozen=True):
    """A reported fill that is safe on disk."""

    decision_id: str = msgspec.field(name="decisionId")
    client_fill_id: str = msgspec.field(name="clientFillId")
    position: float
    """What the decision holds outside by all that was reported, in base units."""
    fills: int
    seq: int
    durable_seq: int
