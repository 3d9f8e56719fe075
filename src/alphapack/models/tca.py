"""Transaction cost analysis: what trading a parent order cost, and why, from its fills.

Perold (1988, Journal of Portfolio Management 14(3), 4-9) holds a real portfolio against one that trades at once, all of it and for
nothing, at the price of the decision. What the real one falls short by is parted at the prices that each fill passed on its way::

    decision mid -> mid that its order met -> mid at the fill -> best price -> price of the fill
               delay                     timing             spread        impact

Every part is a difference of neighbours, so the parts sum to the whole exactly. All are costs: what is paid is above zero, unlike in the
accounts. Prices are in half ticks, as a mid is (bid + ask); money is in units of 1e-8.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import msgspec

from alphapack.domain.market import NANOS_PER_S, Step
from alphapack.domain.money import UNITS, worth_at_half_ticks
from alphapack.domain.trading import Fill
from alphapack.models.sleeves import Share

BPS = 10_000
HORIZONS_S = (1, 5, 60)
"""When after a fill its markouts are due."""
PENDING_MAX = 4_096
"""Fills that wait for a markout at once, 68 a second for a minute; more are counted and left out."""


class LegFill(msgspec.Struct, frozen=True):
    """What one parent order has of a fill, and the prices on the way to it."""

    lots: int
    price: int
    best: int | None
    """Best price that could be taken, for a taker; a maker's own price."""
    mid: int | None
    """Just before the fill."""
    arrival_mid: int | None
    """As its order met the book."""
    value: int
    """Price times quantity, as it was booked."""
    fee: int
    impact: int
    """Charge for what own fills before had done to the price; both below zero where paid, as in the accounts."""

    @classmethod
    def of(cls, fill: Fill, share: Share) -> "LegFill":
        """Return what a sleeve has of an order's fill."""
        price = 2 * fill.ticks
        best = price if fill.maker else None if fill.best is None else 2 * fill.best
        return cls(abs(share.lots), price, best, fill.mid, fill.met_mid, abs(share.cash), share.fee, share.impact)

    @classmethod
    def crossed(cls, share: Share, mid: int) -> "LegFill":
        """Return what a sleeve traded with others at the mid, which costs nothing but the delay until then."""
        return cls(abs(share.lots), mid, mid, mid, mid, abs(share.cash), share.fee, share.impact)

    def refined(self, by_price: int, by_lot: int) -> "LegFill":
        """Return the same in steps that are so many times finer."""
        best, mid, arrival_mid = (None if one is None else one * by_price for one in (self.best, self.mid, self.arrival_mid))
        return msgspec.structs.replace(
            self, lots=self.lots * by_lot, price=self.price * by_price, best=best, mid=mid, arrival_mid=arrival_mid
        )


class Costs(msgspec.Struct, frozen=True):
    """Costs of one parent order, or of several together: money, paid above zero. All but ``opportunity`` is of what was filled."""

    ordered: int
    """What was to be traded, at the decision mid; above zero."""
    filled: int
    """What was traded, at the decision mid."""
    delay: int
    """From the decision to when orders met the book, by how the mid moved."""
    timing: int
    """From there to the fill, by how the mid moved."""
    spread: int
    """From the mid to the best price; below zero where it was earned by a maker."""
    impact: int
    """From the best price to that of the fill, and ``own_impact``."""
    own_impact: int
    """Of the impact: the charge for what own fills before had done to the price."""
    fees: int
    opportunity: int | None
    """Of what was not filled, by how the mid moved to the horizon; None where that is not known yet."""
    against_vwap: int
    """Paid beyond the market's mean price, ``own_impact`` included; 0 where that is not known."""
    at_vwap: int
    """What was traded, at the market's mean price; 0 where that is not known."""
    carried: int
    """Fills of which a price on the way is not known, and the one before it stands for it."""

    @property
    def slippage(self) -> int:
        """``delay + timing + spread + impact``: the price paid against the mid of the decision."""
        return self.delay + self.timing + self.spread + self.impact

    @property
    def against_arrival(self) -> int:
        """``timing + spread + impact``: the price paid against the mids that the orders met."""
        return self.timing + self.spread + self.impact

    @property
    def shortfall(self) -> int | None:
        """``slippage + opportunity + fees``: what the portfolio falls short of one that trades at once and free."""
        return None if self.opportunity is None else self.slippage + self.opportunity + self.fees

    def bps(self, of: Literal["ordered", "filled"] = "ordered") -> dict[str, float | None]:
        """Return every cost by its name in bps of what was ordered, or of what was filled.

        All have one denominator and add up as the money does. ``vwap`` alone has its own, ``at_vwap``. None where a cost is not known,
        or its denominator is 0.
        """
        base = self.ordered if of == "ordered" else self.filled
        costs = {
            "slippage": self.slippage,
            "delay": self.delay,
            "timing": self.timing,
            "spread": self.spread,
            "impact": self.impact,
            "opportunity": self.opportunity,
            "fees": self.fees,
            "shortfall": self.shortfall,
            "arrival": self.against_arrival,
        }
        return {name: _bps(cost, base) for name, cost in costs.items()} | {"vwap": _bps(self.against_vwap, self.at_vwap)}


class Analysis(msgspec.Struct, frozen=True):
    """Costs of one parent order, and the prices that they follow from; None where a price is not known."""

    costs: Costs
    lots: int
    """Filled."""
    average_price: float | None
    """Of the fills, as booked: without fees and ``own_impact``."""
    arrival_mid: float | None
    """Mean of the mids that the orders met, each by what was filled of it."""
    market_vwap: float | None
    """Mean price of what the market traded meanwhile."""


def analyse(
    *,
    side: int,
    lots: int,
    decision_mid: int,
    fills: Sequence[LegFill],
    tick: Step,
    lot: Step,
    horizon_mid: int | None = None,
    market: tuple[float, float] | None = None,
) -> Analysis:
    """Return what a parent order cost, so far or in all.

    Parameters
    ----------
    side
        +1 to buy, -1 to sell.
    lots
        What was ordered, above 0.
    decision_mid
        In half ticks, above 0.
    fills
        All of it, in any order; together at most ``lots``.
    horizon_mid
        Mid of the order's end in half ticks; None: not there yet.
    market
        What the market traded from the decision to the end: lots, and the sum of lots times ticks. None or no lots: no VWAP.

    Raises
    ------
    ValueError
        A number is out of its range, or more was filled than was ordered.
    """
    filled = sum(fill.lots for fill in fills)
    if side not in (1, -1) or lots <= 0 or decision_mid <= 0:
        raise ValueError(f"expected a side of 1 or -1, lots and a decision mid above 0, found {side}, {lots} and {decision_mid}")
    if filled > lots or any(fill.lots <= 0 or fill.price <= 0 for fill in fills):
        raise ValueError(f"expected fills above 0 of at most {lots} lots at prices above 0, found {filled} lots in {len(fills)} fills")
    passed = [_passed(fill, decision_mid, tick, lot) for fill in fills]
    decision, arrival, mid, best, value = map(sum, zip(*passed, strict=True)) if passed else (0,) * 5
    own = -sum(fill.impact for fill in fills)
    vwap = _vwap(market)
    at_vwap = 0 if vwap is None else round(filled * vwap * tick.size * lot.size * UNITS)
    left, opportunity = lots - filled, None
    if left == 0:
        opportunity = 0
    elif horizon_mid is not None:
        opportunity = side * (worth_at_half_ticks(horizon_mid, left, tick, lot) - worth_at_half_ticks(decision_mid, left, tick, lot))
    costs = Costs(
        ordered=worth_at_half_ticks(decision_mid, lots, tick, lot),
        filled=decision,
        delay=side * (arrival - decision),
        timing=side * (mid - arrival),
        spread=side * (best - mid),
        impact=side * (value - best) + own,
        own_impact=own,
        fees=-sum(fill.fee for fill in fills),
        opportunity=opportunity,
        against_vwap=side * (value - at_vwap) + own if at_vwap else 0,
        at_vwap=at_vwap,
        carried=sum(None in (fill.arrival_mid, fill.mid, fill.best) for fill in fills),
    )
    met = [(fill.lots, fill.arrival_mid) for fill in fills if fill.arrival_mid is not None]
    return Analysis(
        costs,
        filled,
        average_price=float(Fraction(value, UNITS) / (filled * lot.size)) if filled else None,
        arrival_mid=float(Fraction(sum(n * price for n, price in met), 2 * sum(n for n, _ in met)) * tick.size) if met else None,
        market_vwap=None if vwap is None else float(vwap * tick.size),
    )


def combine(costs: Iterable[Costs]) -> Costs:
    """Return the costs of several orders of one currency together, whose bps are the means of theirs, each by its notional.

    ``opportunity`` is None where that of one is. None at all have costs of 0.
    """
    every = list(costs)

    def total(name: str) -> Any:
        column = [getattr(one, name) for one in every]
        return None if None in column else sum(column)

    return Costs(**{name: total(name) for name in Costs.__struct_fields__})


def _passed(fill: LegFill, decision_mid: int, tick: Step, lot: Step) -> tuple[int, ...]:
    """Return what the lots of a fill were worth at each price on the way to it, and what was paid."""
    values, price = [], decision_mid
    for known in (decision_mid, fill.arrival_mid, fill.mid, fill.best):
        price = price if known is None else known
        # A split value may be off by a unit from its lots' own: where the price is the same, so is the value.
        values.append(fill.value if price == fill.price else worth_at_half_ticks(price, fill.lots, tick, lot))
    return *values, fill.value


def _vwap(market: tuple[float, float] | None) -> Fraction | None:
    """Return the market's mean price in ticks."""
    if market is None or market[0] <= 0.0:
        return None
    return Fraction(market[1]) / Fraction(market[0])


def _bps(cost: int | None, base: int) -> float | None:
    return None if cost is None or base == 0 else BPS * cost / base


class Due(NamedTuple):
    """A fill whose markout is due."""

    due_ns: int
    fill: int
    symbol: str
    horizon_s: int


class Waiting(msgspec.Struct, array_like=True):
    """What is kept of a fill until its last markout."""

    fill: int
    symbol: str
    ts_ns: int
    side: int
    ticks: int
    value: int
    maker: bool

    def due_ns(self, horizon_s: int) -> int:
        """Return when its markout is due."""
        return self.ts_ns + horizon_s * NANOS_PER_S


class Mean(msgspec.Struct):
    """Mean markout of many fills, each by its value."""

    n: int = 0
    missed: int = 0
    """Those whose book was not LIVE when they came due."""
    value: int = 0
    gained: float = 0.0
    """Sum of value times bps."""

    @property
    def bps(self) -> float | None:
        """None before the first."""
        return self.gained / self.value if self.value else None


class Markouts(msgspec.Struct):
    """What fills gained against the mid some time later: below zero for one that the market then went against.

    ``side (mid(t + h) - price) / price`` in bps, h of ``HORIZONS_S``. Whoever owns it asks what is due, and tells the mid of that very
    time. Saved as it is.
    """

    pending: dict[int, Waiting] = msgspec.field(default_factory=dict)
    """By a running number, oldest first."""
    noted: int = 0
    taken: list[int] = msgspec.field(default_factory=lambda: [0] * len(HORIZONS_S))
    """Fills that had their markout, for each horizon; they have it in the order in which they were noted."""
    makers: list[Mean] = msgspec.field(default_factory=lambda: [Mean() for _ in HORIZONS_S])
    takers: list[Mean] = msgspec.field(default_factory=lambda: [Mean() for _ in HORIZONS_S])
    left_out: int = 0

    def note(self, fill: Fill) -> bool:
        """Wait for the markouts of a fill, as it happens; False where ``PENDING_MAX`` wait already.

        Raises ``ValueError`` where it happened before the one noted last.
        """
        if len(self.pending) >= PENDING_MAX:
            self.left_out += 1
            return False
        last_ns = self.pending[self.noted - 1].ts_ns if self.pending else fill.exchange_ns
        if fill.exchange_ns < last_ns:
            raise ValueError(f"expected a fill at {last_ns} ns or later, found one at {fill.exchange_ns}")
        self.pending[self.noted] = Waiting(fill.id, fill.symbol, fill.exchange_ns, fill.side, fill.ticks, fill.value, fill.maker)
        self.noted += 1
        return True

    @property
    def next_ns(self) -> int | None:
        """When the next markout is due; None where none waits."""
        heads = zip(self.taken, HORIZONS_S, strict=True)
        return min((self.pending[n].due_ns(horizon_s) for n, horizon_s in heads if n < self.noted), default=None)

    def due(self, ts_ns: int) -> list[Due]:
        """Return the markouts that are due by ``ts_ns`` and not taken, by time and then by fill."""
        found = []
        for n, horizon_s in zip(self.taken, HORIZONS_S, strict=True):
            while n < self.noted and (due_ns := self.pending[n].due_ns(horizon_s)) <= ts_ns:
                found.append(Due(due_ns, self.pending[n].fill, self.pending[n].symbol, horizon_s))
                n += 1
        return sorted(found)

    def take(self, fill: int, horizon_s: int, mid: int | None) -> float | None:
        """Return the markout of a fill in bps, by the mid in half ticks when it was due; None where that was not known.

        Raises ``ValueError`` where it is not the next at this horizon, or is still to have one at a shorter horizon.
        """
        if horizon_s not in HORIZONS_S:
            raise ValueError(f"expected a horizon of {HORIZONS_S} s, found {horizon_s}")
        place = HORIZONS_S.index(horizon_s)
        n = self.taken[place]
        if n >= min(self.taken[:place], default=self.noted) or self.pending[n].fill != fill:
            raise ValueError(f"expected the markout that is due next, found that of fill {fill} after {horizon_s} s")
        waiting = self.pending[n]
        self.taken[place] += 1
        if place == len(HORIZONS_S) - 1:
            del self.pending[n]
        mean = (self.makers if waiting.maker else self.takers)[place]
        if mid is None:
            mean.missed += 1
            return None
        bps = BPS * waiting.side * (mid - 2 * waiting.ticks) / (2 * waiting.ticks)
        mean.n, mean.value, mean.gained = mean.n + 1, mean.value + waiting.value, mean.gained + waiting.value * bps
        return bps

    def refine(self, symbol: str, by_price: int) -> None:
        """Count the prices of a symbol in ticks that are so many times finer."""
        for waiting in self.pending.values():
            if waiting.symbol == symbol:
                waiting.ticks *= by_price
