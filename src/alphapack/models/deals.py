"""What became of a decision that was given a size: its way into a position and out of it."""

import math

import msgspec

from alphapack.domain.market import Step
from alphapack.domain.trading import Decision, Proposal, Quote, Target
from alphapack.models import planner
from alphapack.models.book import FeatureBook
from alphapack.models.planner import Plan
from alphapack.models.sizing import Sizing
from alphapack.models.sleeves import Sleeve, finer
from alphapack.models.tca import LegFill

SHARE_MAX = 1e3
"""Days of volume beyond which the modelled impact grows no more: what the model of impact is defined for."""


class Leg(msgspec.Struct):
    """The way of a sleeve into its position, or out of it."""

    kind: str
    """entry or exit; what quotes bring is no leg."""
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


class CostModel(msgspec.Struct, frozen=True):
    """What trading was modelled to cost when a decision was made."""

    half_spread_bps: float
    k_bps: float
    """Impact of one day's volume; 0 where none was known."""
    a: float
    adv_lots: float
    """A day's volume, above 0."""
    taker_fee_bps: float

    def one_way_bps(self, lots: int) -> float:
        """Return half the spread and the impact of lots of either sign, in bps of their value; no fee."""
        share = min(abs(lots) / self.adv_lots, SHARE_MAX)
        return self.half_spread_bps + (self.k_bps * math.pow(share, self.a) if share else 0.0)


class Traded(msgspec.Struct):
    """What was traded in a time: lots that were added, signed, and what was received for them, below zero where it was paid."""

    lots: int = 0
    cash: int = 0
    """In money: of prices alone, without fees and charges."""


class Deal(msgspec.Struct):
    """One decision that was given a size, and what became of it."""

    decision: Decision
    sizing: Sizing
    until_ns: int
    """Its horizon."""
    tick: Step
    lot: Step
    decision_mid: int
    """In half ticks."""
    allocated: int
    """Value of its size at that mid, of a quote of the larger side, in money above 0."""
    cost: CostModel
    long_only: bool = False
    """Whether nothing may be held short."""
    legs: list[Leg] = []
    """A quote has none before its way out."""
    entered: Traded = msgspec.field(default_factory=Traded)
    """Until its horizon, with other sleeves too."""
    left: Traded = msgspec.field(default_factory=Traded)
    """From then on, with other sleeves and the house too."""
    horizon_mid: int | None = None
    """In half ticks, at its horizon; None before."""
    sleeve: Sleeve | None = None
    """As it was when it closed."""

    @property
    def size_lots(self) -> int:
        """What it was given, signed; of a quote the larger side."""
        return self.sizing.lots

    @property
    def probe(self) -> bool:
        """Whether it was given one least order in place of nothing."""
        return self.sizing.probe

    @property
    def way_out(self) -> Leg | None:
        """Its last leg, where that leads out."""
        return self.legs[-1] if self.legs and self.legs[-1].kind == "exit" else None

    @property
    def model_lots(self) -> int:
        """The size by which the model takes it, signed: its own; of a quote the lots of its bid less those of its ask."""
        return self.lots_of(self.proposal)

    @property
    def proposal(self) -> Proposal:
        """What was decided."""
        return self.decision.quote or Target(self.decision.exposure)

    def lots_of(self, proposal: Proposal) -> int:
        """Return the lots that another proposal would have come to, all else held, signed; of a quote those of its bid less its ask."""
        if isinstance(proposal, Quote):
            bid, ask = self.sides(proposal)
            return bid - ask
        return self.sizing.lots_at(max(0.0, proposal.exposure) if self.long_only else proposal.exposure)

    def sides(self, quote: Quote) -> tuple[int, int]:
        """Return the lots that both sides of a quote come to, 0 or more; what is owned is offered only as far as it is held."""
        return self.sizing.sides(quote.bid_share, 0.0 if self.long_only else quote.ask_share)

    def note(self, lots: int, cash: int) -> None:
        """Count what was traded now: signed lots, and money received for them."""
        phase = self.entered if self.horizon_mid is None else self.left
        phase.lots += lots
        phase.cash += cash

    def refine(self, by_price: int, by_lot: int) -> None:
        """Count in finer steps. A sleeve that is open is the portfolio's, which counts it."""
        self.tick, self.lot = finer(self.tick, by_price), finer(self.lot, by_lot)
        self.sizing = self.sizing.refined(by_lot)
        self.decision_mid *= by_price
        self.horizon_mid = None if self.horizon_mid is None else self.horizon_mid * by_price
        self.cost = msgspec.structs.replace(self.cost, adv_lots=self.cost.adv_lots * by_lot)
        quote = self.decision.quote
        if quote is not None:
            quote = msgspec.structs.replace(quote, offset_ticks=quote.offset_ticks * by_price)
            self.decision = msgspec.structs.replace(self.decision, quote=quote)
        for phase in (self.entered, self.left):
            phase.lots *= by_lot
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
