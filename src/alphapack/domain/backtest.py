"""What a backtest says: every trade, the equity, who is to be thanked for it, and how much to believe.

Money is a whole number of 1e-8 of the settlement currency, signed from the trader's side: what is paid is below zero. Sizes are in base
units. ``None`` where a number is not known. Three sums hold exactly::

    trade.pnl = trade.base + trade.alphas + trade.execution + trade.fees
    total     = base + sum of alpha_pnl + execution + fees
    change    = total + open_pnl_change + house
"""

import msgspec

Interval = tuple[float, float]
"""Lower and upper bound, of 95%."""


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """One decision that traded, from its first fill to where nothing of it was left."""

    decision: int
    symbol: str
    policy: str
    probe: bool
    """Whether it was a least order in place of nothing."""
    opened_ns: int
    closed_ns: int
    side: str
    """buy, sell, or quote."""
    size: float
    """What it was sized to, signed."""
    notional: int
    """Value of that at its decision, above 0."""
    pnl: int
    base: int
    """What its policy would have made without any alpha, by the model."""
    alphas: int
    """What all alphas together added to that."""
    execution: int
    """Prices against the model's; own impact and funding are in it."""
    fees: int
    funding: int
    """Of the execution."""
    win_probability: float
    """As it was when it was decided."""
    reward_bps: float | None
    """What the router learned from it; None where it learned nothing."""


class AlphaPnl(msgspec.Struct, frozen=True):
    """What one alpha added: the sum of its Shapley values."""

    id: str
    pnl: int
    trades: int
    """Those in which it had a part."""
    share: float | None
    """``pnl / sum |pnl|`` over all alphas, in [-1, 1]; None where all are 0."""


class PolicyPnl(msgspec.Struct, frozen=True):
    """What one policy made."""

    policy: str
    trades: int
    pnl: int
    decisions: int


class Equity(msgspec.Struct, frozen=True):
    """Equity at the end of each bar, evenly spaced but for pauses; three lists of one length, oldest first."""

    ts_ms: list[int] = []
    equity: list[int] = []
    drawdown: list[float] = []
    """What is missing to the highest equity before, as a fraction of it."""


class Mids(msgspec.Struct, frozen=True):
    """Mid of one symbol through time, to draw its fills on; two lists of one length, oldest first."""

    symbol: str
    ts_ms: list[int]
    mid: list[float]


class Fill(msgspec.Struct, frozen=True):
    """One fill."""

    ts_ns: int
    symbol: str
    side: str
    """buy or sell."""
    price: float
    size: float
    """Above 0."""
    maker: bool
    cause: str
    """swept, printed, through or crossed: see docs/MATCHING.md."""
    fee: int


class Costs(msgspec.Struct, frozen=True):
    """What trading cost. The bps are of notional, paid above zero: ``mean_bps`` is the sum of the four before it."""

    delay_bps: float | None
    """From the mid of the decision to the mid that the order met."""
    spread_bps: float | None
    impact_bps: float | None
    opportunity_bps: float | None
    """What was not filled, by how the mid moved to the horizon."""
    mean_bps: float | None
    fees: int
    self_impact: int
    """Charge for what own fills had done to the price before."""
    funding: int


class Bin(msgspec.Struct, frozen=True):
    """Outcomes with about the same win probability."""

    p: float
    """Mean of what was said."""
    won: float
    """Share that came true."""
    n: int


class Calibration(msgspec.Struct, frozen=True):
    """How true the win probabilities were."""

    n: int = 0
    brier: float | None = None
    """Mean of ``(p - won)^2``: 0 is perfect, 0.25 is a half said each time."""
    ece: float | None = None
    """Mean distance of what was said from what came true, over the bins."""
    ece_floor: float | None = None
    """What the same outcomes would have by chance were every probability true."""
    bins: list[Bin] = []


class Bound(msgspec.Struct, frozen=True):
    """The same backtest under one belief about the queue ahead of a resting order."""

    queue: str
    """risk_averse: every cancel was behind us, the fewest fills; optimistic: before us, the most."""
    pnl: int
    """Change of equity."""
    trades: int
    fills: int
    equity: Equity | None = None


class Decisions(msgspec.Struct, frozen=True):
    """How often the router decided, and for what."""

    n: int = 0
    by_policy: dict[str, int] = {}
    """``flat``, to do nothing, is one of them."""


class Risk(msgspec.Struct, frozen=True):
    """Risk of an equity curve, as docs/RISK.md has it; None where there are too few bars, never NaN."""

    n: int
    """Returns, one a bar."""
    bar_s: int
    realized_vol: float | None
    """Standard deviation of the return of a year."""
    cvar95: float | None
    """Mean loss of the worst 5% of bars, as a fraction of equity; above zero where lost."""
    cvar99: float | None
    cvar_ci: Interval | None
    """Of ``cvar95``."""
    max_drawdown: float | None
    """Largest fall from a highest equity, as a fraction of it, zero or more."""
    turnover: float | None
    """What was traded over mean equity; not annualised."""
    sharpe: float | None
    """Mean over standard deviation, of a year."""
    sharpe_ci: Interval | None


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """All that one backtest found."""

    title: str
    paths: list[str]
    symbols: list[str]
    from_ms: int
    to_ms: int
    inputs: int
    seconds: float
    """How long it ran, on the clock of the machine."""
    digest: str
    """Of all inputs and of all that followed from them: another run of the same code has the same."""
    settings: dict[str, str]
    """What was chosen, as texts."""
    capital: int
    currency: str
    trades: list[Trade]
    """Closed, oldest first."""
    equity: Equity
    alpha_pnl: list[AlphaPnl]
    base: int
    fees: int
    execution: int
    house: int
    """What no decision ordered."""
    open_pnl_change: int
    """Of what was not closed."""
    total: int
    """Of the trades that closed."""
    policies: list[PolicyPnl]
    risk: Risk
    costs: Costs
    calibration: Calibration
    decisions: Decisions
    fills: list[Fill]
    mids: list[Mids] = []
    bounds: list[Bound] = []
    notes: list[str] = []
    """What a reader should know before believing the numbers."""

    @property
    def change(self) -> int:
        """Change of equity: what closed, what is open, and what no decision ordered."""
        return self.total + self.open_pnl_change + self.house

    @property
    def unexplained(self) -> int:
        """What is missing between ``total`` and its parts; 0 in every backtest whose attribution is right."""
        return self.total - (self.base + sum(one.pnl for one in self.alpha_pnl) + self.execution + self.fees)
