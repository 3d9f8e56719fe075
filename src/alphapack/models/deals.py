"""What became of a decision that was given a size: its way into a position and out of it."""

import msgspec

from alphapack.domain.trading import Decision
from alphapack.models import planner
from alphapack.models.book import FeatureBook
from alphapack.models.planner import Plan
from alphapack.models.sleeves import Sleeve
from alphapack.models.tca import LegFill


class Leg(msgspec.Struct):
    """The way of a sleeve into its position, or out of it."""

    kind: str
    side: int
    lots: int
    from_lots: int
    """What the sleeve held at its start, signed."""
    start_ns: int
    horizon_s: float
    decision_mid: int
    """In half ticks."""
    plan: Plan | None
    """None: take it all at once, for there is no time or nothing to plan with."""
    flow: tuple[float, float]
    """What the market had traded at its start: lots, and lots times ticks."""
    fills: list[LegFill] = []
    end_flow: tuple[float, float] | None = None
    horizon_mid: int | None = None


class Deal(msgspec.Struct):
    """One decision that was given a size, and what became of it."""

    decision: Decision
    size_lots: int
    until_ns: int
    probe: bool
    legs: list[Leg]
    sleeve: Sleeve | None = None
    """As it was when it closed."""

    def refine(self, by_price: int, by_lot: int) -> None:
        """Count in finer steps. A sleeve that is open is the portfolio's, which counts it."""
        self.size_lots *= by_lot
        if self.sleeve is not None:
            self.sleeve.filled_lots *= by_lot
            self.sleeve.crossed_lots *= by_lot
        for leg in self.legs:
            leg.lots *= by_lot
            leg.from_lots *= by_lot
            leg.decision_mid *= by_price
            leg.horizon_mid = None if leg.horizon_mid is None else leg.horizon_mid * by_price
            try:
                leg.plan = None if leg.plan is None else planner.refined(leg.plan, by_lot)
            except ValueError:  # More lots than can be planned: what is left is taken at once.
                leg.plan = None
            leg.flow = leg.flow[0] * by_lot, leg.flow[1] * by_price * by_lot
            leg.end_flow = None if leg.end_flow is None else (leg.end_flow[0] * by_lot, leg.end_flow[1] * by_price * by_lot)
            leg.fills = [fill.refined(by_price, by_lot) for fill in leg.fills]


def flow_of(book: FeatureBook) -> tuple[float, float]:
    """Return what a symbol's market has ever traded: lots, and the sum of lots times ticks."""
    bought, sold, value = book.flow
    return bought + sold, value
