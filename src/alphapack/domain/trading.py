"""What trading on paper is asked to be: when to decide, how to size, what may be risked, and how the paper exchange fills."""

import math
from typing import Literal

import msgspec

from alphapack.domain.market import Step

LATENCY_MS_MAX = 60_000.0
CAPITAL_MAX = 1e10
"""In units of the settlement currency: its money still fits 64 bits many times over."""

Queue = Literal["risk_averse", "optimistic", "power", "log"]
"""What is believed of cancels at the price of a resting order: all behind it, all before it, or shared by a power or by logarithms."""

OrderKind = Literal["limit", "post_only", "immediate"]
"""Takes and rests; rests or is refused; takes and does not rest."""

OrderState = Literal["sent", "working", "filled", "cancelled", "rejected"]


class RouterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When to decide, for how long a decision holds, and what the router believes before it has seen anything."""

    interval_s: int = 60
    horizon_s: int = 300
    floor: float = 0.02
    """Least probability of each option that can be chosen."""
    scale: float = 1.0
    """Width of what scores are drawn from, as a part of the posterior's."""
    prior_edge: float = 0.5
    """Believed standard deviation of a policy's mean reward beyond its costs, in volatilities to the horizon."""
    prior_effect: float = 0.3
    """Believed standard deviation of what one deviation of a feature adds to that."""
    without: tuple[str, ...] = ()
    """Alphas and policies that are not asked."""

    def __post_init__(self) -> None:
        if not 1 <= self.interval_s <= self.horizon_s <= 86_400:
            raise ValueError(f"expected 1 <= interval_s <= horizon_s <= 86400, found {self.interval_s} and {self.horizon_s}")
        for name, low, high in (("floor", 0.0, 0.05), ("scale", 1e-3, 1.0), ("prior_edge", 1e-3, 10.0), ("prior_effect", 1e-3, 10.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"expected {name} from {low:g} to {high:g}, found {value}")


class ExecutionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an exposure becomes orders, what they meet, and what may be risked; money in units of the settlement currency."""

    trade: bool = True
    settlement: str = "USDT"
    capital: float = 100_000.0
    target_vol: float = 0.2
    kelly_fraction: float = 0.25
    kelly_cap: float = 2.0
    probe: bool = True
    gross_max: float = 2.0
    symbol_max: float = 1.0
    vol_budget: float = 0.3
    brake_drawdown: float = 0.1
    brake_release: float = 0.05
    brake_factor: float = 0.25
    feed_latency_ms: float = 1.0
    order_latency_ms: float = 5.0
    ack_latency_ms: float = 5.0
    queue: Queue = "risk_averse"
    min_notional: float = 5.0
    maker_fee_bps: float = 2.0
    taker_fee_bps: float = 5.0
    self_impact: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (
            ("capital", 1.0, CAPITAL_MAX),
            ("target_vol", 1e-4, 10.0),
            ("kelly_fraction", 1e-4, 1.0),
            ("kelly_cap", 1e-3, 100.0),
            ("gross_max", 1e-3, 100.0),
            ("symbol_max", 1e-3, 100.0),
            ("vol_budget", 1e-4, 10.0),
            ("brake_drawdown", 1e-4, 1.0),
            ("brake_release", 0.0, self.brake_drawdown),
            ("brake_factor", 0.0, 1.0),
            ("feed_latency_ms", 0.0, LATENCY_MS_MAX),
            ("order_latency_ms", 0.0, LATENCY_MS_MAX),
            ("ack_latency_ms", 0.0, LATENCY_MS_MAX),
            ("min_notional", 0.0, 1e6),
            ("maker_fee_bps", -1_000.0, 1_000.0),
            ("taker_fee_bps", -1_000.0, 1_000.0),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"expected {name} from {low:g} to {high:g}, found {value}")
        if not (1 <= len(self.settlement) <= 20 and self.settlement.isascii() and self.settlement.isalnum()):
            raise ValueError(f"expected the name of a currency such as USDT, found {self.settlement[:40]!r}")


class Target(msgspec.Struct, frozen=True):
    """What a policy wants to hold of a symbol from now on."""

    exposure: float
    """-1 to 1: of the size that is allowed; 0: nothing is to be held."""
    urgency: float = 0.5
    """0 to 1: how soon."""
    horizon_s: int = 300
    """In which its plan is to come to its size; at most the engine's own."""


class Quote(msgspec.Struct, frozen=True):
    """Prices that a policy wants to show on both sides until the horizon."""

    bid_share: float
    """0 to 1: of the size that is allowed."""
    ask_share: float
    offset_ticks: int = 0
    """How far behind the best price of its side, 0 or more."""


Proposal = Target | Quote


class Decision(msgspec.Struct, frozen=True):
    """One outcome for one symbol: what a policy wants until the horizon."""

    id: int
    ts_ns: int
    symbol: str
    policy: str
    exposure: float
    """-1 to 1; of a quote: the share of its bid less that of its ask."""
    urgency: float
    """0 to 1."""
    horizon_s: int
    win_probability: float
    features: dict[str, float]
    """What was looked at, in raw units."""
    quote: Quote | None = None
    plan_s: int = 0
    """In which its plan is to come to its size; 0: as the horizon has it."""


class Terms(msgspec.Struct, frozen=True):
    """What an order of a symbol must keep to, and what it costs."""

    tick: Step
    lot: Step
    maker_fee_bps: float
    taker_fee_bps: float
    min_notional: int
    """Least value of an order, in money."""
    refusal: str = ""
    """Why the symbol takes no orders; empty where it does."""


class Order(msgspec.Struct):
    """One order as its sender knows it; side is +1 to buy, -1 to sell."""

    id: int
    client_id: str
    symbol: str
    side: int
    kind: OrderKind
    ticks: int
    lots: int
    sent_ns: int
    shares: dict[int, int] = {}
    """Signed lots by the decision that they are for."""
    state: OrderState = "sent"
    reason: str = ""
    filled_lots: int = 0
    value: int = 0
    """Of all that was filled, in money."""
    fees: int = 0
    impact: int = 0
    ended_ns: int = 0
    cancelling: bool = False
    met_mid: int | None = None
    """Mid of the book that it met, in half ticks."""

    @property
    def is_open(self) -> bool:
        """Whether something may still become of it."""
        return self.state in ("sent", "working")

    @property
    def left_lots(self) -> int:
        """What is not filled, as far as is known."""
        return self.lots - self.filled_lots


class Fill(msgspec.Struct, frozen=True):
    """Lots of an order that were filled at one price."""

    id: int
    order: int
    symbol: str
    side: int
    ticks: int
    lots: int
    maker: bool
    cause: str
    """swept: it took what was displayed; printed, through: a trade at its price went beyond its queue, or at a worse price had to pass it;
    crossed: quotes of the other side came to its price."""
    exchange_ns: int
    value: int
    fee: int
    impact: int
    available_lots: int
    mid: int | None
    """Of the book in which it happened, in half ticks."""
    best: int | None
    """Best price of the other side then, in ticks."""
    met_mid: int | None


def side_of(side: int) -> str:
    """Return the word for a side."""
    return "buy" if side > 0 else "sell"
