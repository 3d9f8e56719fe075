"""From decisions to money by hand: sizes, plans, orders, sleeves and trades, with a real exchange and a book that tests move."""

import heapq
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import msgspec
import pytest
from test_exchange import FakeContext, quoted

from alphapack.domain.events import (
    Crossed,
    Filled,
    FundingPaid,
    FundingRate,
    HouseTook,
    OrderChanged,
    OutsideFilled,
    Planned,
    Record,
    Sized,
    TradeClosed,
)
from alphapack.domain.inputs import CoreSettings, OutsideFill
from alphapack.domain.market import BookState, Step
from alphapack.domain.trading import Decision, Quote, RouterSettings, Terms
from alphapack.models import outcomes, sleeves
from alphapack.models.book import FeatureBook
from alphapack.models.deals import Deal
from alphapack.models.impact import Impact
from alphapack.models.portfolio import Account
from alphapack.models.sleeves import HOUSE
from alphapack.services import execution as service
from alphapack.services.exchange import LOTS_MAX, Exchange
from alphapack.services.execution import Execution, Forecast, Refused
from alphapack.services.outside import Outside

MS, S = 1_000_000, 1_000_000_000
START_NS = 1_700_000_000 * S
BTC = "x:BTCUSDT"
TICK, LOT = Step(1, 1), Step(1, 6)
"""Of a lot at a price of a tick: ten units of money."""
HORIZON_S = 300
SIXTH = 8_329
"""Whole lots of a sixth of the capital, 5 / 6 USDT, at the first mid of 100.05: a horizon of 300 s and 30 s to close, every 60 s."""
DEEP = 1_000_000
Said = TypeVar("Said", bound=Record)


class FakeKnown:
    """What is known of one market, as a test says."""

    def __init__(self, ctx: FakeContext, book: FeatureBook) -> None:
        self.ctx, self.book, self.state = ctx, book, BookState.LIVE
        self.least, self.spot = 0, False
        self.currency: Callable[[], str] = lambda: "USDT"
        self.taking = [BTC]
        self.spread_bps = 1.0
        self.vol: Forecast | None = Forecast(0.001, 0.001, 0.5)

    def market(self, symbol: str) -> tuple[FeatureBook, BookState] | None:
        return (self.book, self.state) if symbol == BTC else None

    def terms(self, symbol: str) -> Terms | None:
        if symbol != BTC or self.book.tick is None or self.book.lot is None:
            return None
        fees = self.ctx.settings.execution
        refusal = "" if self.currency() == "USDT" else "it settles in USDT"
        return Terms(self.book.tick, self.book.lot, fees.maker_fee_bps, fees.taker_fee_bps, self.least, refusal)

    def long_only(self, symbol: str) -> bool:
        return self.spot

    def taking_orders(self) -> list[str]:
        return self.taking

    def features(self, symbol: str) -> dict[str, float]:
        return {"spread_bps": self.spread_bps, "micro_vol": 0.0, "depth_bid": 1.0, "depth_ask": 1.0}

    def forecast(self, symbol: str, minutes: int) -> Forecast | None:
        return self.vol

    def impact(self, symbol: str) -> Impact | None:
        return Impact(k=1.0, a=0.5, k_stderr=0.7, a_stderr=0.1, source="prior", n=0)

    def adv(self, symbol: str) -> float | None:
        return 1e6

    def volumes(self, symbol: str, minutes: int) -> list[float] | None:
        return [100.0] * minutes


class Floor:
    """All of trading on one market; a decision may hold a sixth of the capital, 5 USDT, unless limits are set."""

    def __init__(self, spot: bool = False, router: RouterSettings | None = None, **execution: Any) -> None:
        usual: dict[str, Any] = {
            **{"capital": 5.0, "target_vol": 10.0, "kelly_cap": 1.0, "vol_budget": 10.0, "self_impact": False, "probe": False},
            **{"feed_latency_ms": 0.0, "order_latency_ms": 0.0, "ack_latency_ms": 0.0},
        }
        self.ctx = FakeContext(**{**usual, **execution})
        if router is not None:
            self.ctx.settings = CoreSettings(router=router, execution=self.ctx.settings.execution)
        self.book = FeatureBook(TICK, LOT, None)
        self.show({1000: DEEP}, {1001: DEEP})
        self.book.start(START_NS)
        self.book.live = True
        self.known = FakeKnown(self.ctx, self.book)
        self.known.spot = spot
        self.decisions = 0
        self.checked = self.lots = self.cash = 0
        """Records that were held against the accounts, and what they come to."""
        self.refined = False
        """Whether records from before count in other lots."""
        self.matured: list[outcomes.Matured] = []
        self.closed: list[Deal] = []
        self.unsized: list[int] = []
        self.build()
        self.execution.on_configure()

    def build(self) -> None:
        self.exchange = Exchange(self.ctx, self.known.market, self.known.terms, lambda symbol: None)
        self.execution = Execution(self.ctx, self.exchange, self.known)
        self.exchange.listener = self.execution
        self.execution.matured, self.execution.closed = self.matured.append, self.close
        self.execution.unsized = self.unsized.append
        self.outside = Outside(self.ctx, self.known.adv)
        self.known.currency = lambda: self.execution.currency

    def restart(self) -> None:
        """Go on with what was saved."""
        states = self.exchange.save(), self.execution.save(), self.outside.save()
        self.build()
        self.exchange.load(states[0])
        self.execution.load(states[1])
        self.outside.load(states[2])

    # Time and the market

    def until(self, s: float) -> None:
        """Let time pass, and timers fire, up to and with a moment, in seconds from the start; the books add up after each."""
        self.before(s)
        while self.ctx.timers and self.ctx.timers[0][0] <= self.ctx.now_ns:
            self.fire()

    def before(self, s: float) -> None:
        """Let time pass up to a moment whose own timers are still to fire."""
        end_ns = START_NS + round(s * S)
        while self.ctx.timers and self.ctx.timers[0][0] < end_ns:
            self.fire()
        self.ctx.now_ns = end_ns

    def fire(self) -> None:
        self.ctx.now_ns, _, timer, argument = heapq.heappop(self.ctx.timers)
        {"exchange": self.exchange, "execution": self.execution, "outside": self.outside}[timer].on_timer(argument)
        self.check()

    def close(self, deal: Deal) -> None:
        """Take a closed trade: what it made is what the model says, what the fills made of that, and fees, to the last fraction."""
        assert deal.sleeve is not None and deal.horizon_mid is not None
        exact = outcomes.model_value(deal.model_lots, deal.decision_mid, deal.horizon_mid, deal.tick, deal.lot, deal.cost)
        assert deal.sleeve.cash == exact + outcomes.execution_line(deal) + deal.sleeve.fees
        told = outcomes.lines(deal)
        assert told.pnl == deal.sleeve.cash == told.model + told.execution + told.fees and abs(told.model - exact) <= Fraction(1, 2)
        assert told.model == outcomes.model_at(deal, deal.proposal)
        assert deal.entered.lots + deal.left.lots == 0
        assert sum(one.decision == deal.decision.id for one in self.matured) == 1
        self.closed.append(deal)

    def check(self) -> None:
        """Hold the accounts against the records, and quotes against what may yet be traded."""
        portfolio = self.execution.portfolio
        assert portfolio is not None
        portfolio.check()
        for one in self.ctx.records[self.checked :]:
            if isinstance(one, Filled):
                side = 1 if one.side == "buy" else -1
                self.lots += side * one.lots
                self.cash += one.fee + one.impact - side * one.value
            elif isinstance(one, FundingPaid):
                self.cash += one.paid
        self.checked = len(self.ctx.records)
        for account in portfolio.accounts.values():
            assert account.cash == self.cash and (self.refined or account.position_lots == self.lots)
            for sleeve in account.sleeves.by_decision.values():
                if sleeve.quoting:
                    out = [shares[sleeve.decision] for shares in account.sleeves.orders.values() if sleeve.decision in shares]
                    assert sleeve.lots + sum(lots for lots in out if lots > 0) <= sleeve.bid_lots
                    assert sleeve.lots + sum(lots for lots in out if lots < 0) >= -sleeve.ask_lots

    def show(self, bids: dict[int, int], asks: dict[int, int]) -> None:
        """Show these levels and no others."""
        self.book.snapshot(quoted(bids), quoted(asks))

    def trade(self, key: int, lots: int) -> None:
        """Print a trade that hits a level: +ticks of a bid, -ticks of an ask."""
        self.book.trade(self.ctx.now_ns, b"%d.%d" % divmod(abs(key), 10), b"0.%06d" % lots, buyer_is_taker=key < 0)
        self.tell()

    def tell(self) -> None:
        if BTC in self.exchange.resting:
            self.exchange.on_market(BTC)
        self.check()

    # Decisions and what comes of them

    def decide(self, exposure: float, urgency: float = 1.0, horizon_s: int = HORIZON_S, quote: Quote | None = None, plan_s: int = 0) -> int:
        self.decisions += 1
        decision = Decision(self.decisions, self.ctx.now_ns, BTC, "test", exposure, urgency, horizon_s, 0.9, {"mid": 100.05}, quote, plan_s)
        self.outside.on_decision(decision)
        self.execution.on_decision(decision)
        self.check()
        return decision.id

    def quote(self, bid: float, ask: float, offset_ticks: int = 0, horizon_s: int = HORIZON_S) -> int:
        return self.decide(bid - ask, 0.5, horizon_s, Quote(bid, ask, offset_ticks))

    def fund(self, rate: str) -> None:
        """Tell of a funding rate, which is paid when the next one is told."""
        at_ms = self.ctx.now_ns // MS
        self.execution.on_funding(FundingRate(BTC, at_ms * MS, "100.0", rate, at_ms + 1))
        self.check()

    def said(self, kind: type[Said]) -> list[Said]:
        return [one for one in self.ctx.records if isinstance(one, kind)]

    def sent(self) -> list[tuple[str, str, int, int]]:
        """Side, kind, lots and limit of every order."""
        return [(one.side, one.type, one.lots, one.ticks) for one in self.said(OrderChanged) if one.state == "sent"]

    @property
    def account(self) -> Account:
        account = self.execution.account(BTC)
        assert account is not None
        return account


# A trade


def test_execution_planner_a_trade_is_the_same_money_by_hand_to_the_unit() -> None:
    floor = Floor()
    floor.decide(1.0)
    (sized,) = floor.said(Sized)
    assert (sized.sizing["lots"], sized.sizing["sleeves_max"], sized.sizing["caps"]) == (SIXTH, 6, ())
    assert [(one.leg, one.side, one.lots, one.style) for one in floor.said(Planned)] == [("entry", "buy", SIXTH, "IMMEDIATE")]
    assert floor.sent() == [("buy", "immediate", SIXTH, 1002)]
    floor.until(10)
    bought = 10 * 1001 * SIXTH
    assert (floor.account.position_lots, floor.account.cash) == (SIXTH, -bought - 41_687), "5 bps are 41,686.645"
    floor.show({1010: DEEP}, {1011: DEEP})
    floor.until(299.9)
    assert len(floor.sent()) == 1, "it holds its size until its horizon"
    floor.until(300)
    assert floor.sent()[1:] == [("sell", "immediate", SIXTH, 1009)]
    floor.until(301)
    sold = 10 * 1010 * SIXTH
    (closed,) = floor.said(TradeClosed)
    assert (closed.pnl, closed.fees, closed.turnover) == (sold - bought - 41_687 - 42_061, -83_748, sold + bought)
    assert closed.pnl == 665_862 and (floor.account.position_lots, floor.account.cash) == (0, 665_862)
    portfolio = floor.execution.portfolio
    assert portfolio is not None and portfolio.equity == 500_665_862
    deal = floor.execution.deal(1)
    assert deal is not None and deal.sleeve is not None and [leg.kind for leg in deal.legs] == ["entry", "exit"]


def test_execution_planner_a_leg_is_held_against_the_market_of_its_own_time() -> None:
    floor = Floor()
    floor.trade(1000, 7)
    floor.decide(1.0)
    floor.until(0.5)
    floor.trade(1000, 100)
    floor.until(1.5)
    floor.trade(1000, 5_000)
    deal = floor.execution.deal(1)
    assert deal is not None
    (entry,) = deal.legs
    assert (entry.flow, entry.end_flow, entry.horizon_mid) == ((7.0, 7_000.0), (107.0, 107_000.0), None), "it was done within a second"
    floor.until(299)
    floor.show({1010: 8_000}, {1011: DEEP})
    floor.until(300.5)
    _, exit_leg = deal.legs
    assert (entry.end_flow, entry.horizon_mid) == ((107.0, 107_000.0), 2021)
    assert (exit_leg.flow, exit_leg.end_flow) == ((5_107.0, 5_107_000.0), None), "329 lots found nobody"
    floor.trade(1010, 50)
    floor.show({1020: DEEP}, {1021: DEEP})
    floor.until(302)
    assert deal.sleeve is not None and (exit_leg.end_flow, exit_leg.horizon_mid) == ((5_157.0, 5_157_500.0), 2041)
    assert entry.horizon_mid == 2021


def test_execution_planner_a_short_trade_is_a_long_ones_mirror() -> None:
    floor = Floor()
    floor.decide(-0.5)
    floor.until(299)
    assert floor.account.position_lots == -SIXTH // 2 + 1
    floor.until(302)
    (closed,) = floor.said(TradeClosed)
    assert closed.pnl == -10 * (SIXTH // 2) + closed.fees, "it sold at 100.0 and bought at 100.1"


def test_execution_planner_opposite_decisions_cross_inside_at_the_mid_and_free() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.before(300)
    floor.decide(1.0)
    (cross,) = floor.said(Crossed)
    lots = cross.lots[2]
    assert 0 < lots < SIXTH and cross.lots == {1: -lots, 2: lots} and cross.mid_half_ticks == 2001
    assert lots == floor.said(Sized)[1].sizing["lots"], "the whole of the new one is had from the old one"
    assert floor.account.position_lots == SIXTH, "nothing was traded outside"
    assert floor.sent()[1:] == [("sell", "immediate", SIXTH - lots, 999)]
    floor.until(302)
    (closed,) = floor.said(TradeClosed)
    left = SIXTH - lots
    fee = round(10 * 1000 * left * 5e-4)
    assert closed.pnl == 5 * 2001 * lots + 10 * 1000 * left - 10 * 1001 * SIXTH - 41_687 - fee
    second = floor.account.sleeves.by_decision[2]
    assert (second.lots, second.cash, second.fees, second.crossed_lots, second.filled_lots) == (lots, -5 * 2001 * lots, 0, lots, 0)


# Plans and orders


def slow(**execution: Any) -> Floor:
    """A floor on which a decision of medium urgency is traded by the clock: a twelfth every five seconds of the first minute."""
    floor = Floor(**execution)
    floor.known.spread_bps = 50.0
    floor.decide(1.0, urgency=0.5)
    (planned,) = floor.said(Planned)
    assert (planned.style, planned.schedule, planned.slices) == ("TWAP", "uniform", 12)
    return floor


def test_execution_planner_slices_rest_first_and_what_is_late_is_taken() -> None:
    floor = slow()
    first = SIXTH // 12
    assert [(kind, ticks) for _, kind, _, ticks in floor.sent()] == [("post_only", 1000)]
    assert floor.said(OrderChanged)[0].shares == {1: first}
    assert abs(floor.sent()[0][2] - first) <= 1
    floor.until(9)
    assert {kind for _, kind, _, _ in floor.sent()} == {"post_only"} and floor.account.position_lots == 0
    deal = floor.execution.deal(1)
    assert deal is not None and deal.legs[0].plan is not None
    plan = deal.legs[0].plan
    assert [one.t_s for one in plan.slices] == [5.0 * i for i in range(12)], "a fifth of its time: later it would be bought to be sold"
    for s in range(10, 300):
        floor.until(s)
        due = sum(one.lots for one in plan.slices if one.t_s <= s - 13)
        assert due <= floor.account.position_lots <= sum(one.lots for one in plan.slices if one.t_s <= s), s
        assert s < 68 or floor.account.position_lots == SIXTH
    assert {(fill.maker, fill.ticks) for fill in floor.said(Filled)} == {(False, 1001)}


def test_execution_planner_a_resting_slice_is_filled_as_maker_and_not_ordered_again() -> None:
    floor = slow()
    lots = floor.sent()[0][2]
    floor.until(0.5)
    floor.trade(999, lots)
    floor.until(4.5)
    assert len(floor.sent()) == 1 and [(one.maker, one.ticks, one.fee) for one in floor.said(Filled)] == [(True, 1000, -2 * lots)]


def test_execution_planner_an_order_left_behind_follows_the_best_price() -> None:
    floor = slow()
    floor.until(0.5)
    floor.show({1005: DEEP}, {1006: DEEP})
    floor.until(1.5)
    (order,) = floor.exchange.open_orders(BTC)
    assert (order.id, order.ticks) == (1, 1005)
    floor.show({1003: DEEP}, {1004: DEEP})
    floor.until(2.5)
    assert order.ticks == 1005 and order.state == "working", "one that is ahead stays"


def test_execution_planner_an_opposite_want_calls_resting_orders_back_before_anything_is_sent() -> None:
    floor = slow()
    floor.until(1)
    floor.decide(-1.0)
    assert [side for side, *_ in floor.sent()] == ["buy"]
    floor.until(2)
    assert floor.said(Crossed)[0].lots[1] > 0, "what rested is crossed with what is wanted the other way"
    assert [side for side, *_ in floor.sent()] == ["buy", "sell"]


@pytest.mark.parametrize("latency_ms", [0.0, 700.0, 3_000.0])
def test_execution_planner_orders_that_are_out_at_the_horizon_come_home_before_the_exit(latency_ms: float) -> None:
    floor = Floor(order_latency_ms=latency_ms, ack_latency_ms=2 * latency_ms)
    floor.known.spread_bps = 50.0
    floor.decide(1.0, urgency=0.5, horizon_s=10)
    floor.until(5)
    floor.trade(999, 100)
    floor.until(9.5)
    held = floor.account.position_lots
    assert held == (100 if latency_ms < 1_000.0 else 0), "ordered in 2 s, rests for 10, and is told of 2 latencies later"
    assert floor.account.sleeves.by_decision[1].working_lots == SIXTH - held
    floor.until(10.2)
    if latency_ms:
        floor.trade(999, DEEP - 1)
        assert all(side == "buy" for side, *_ in floor.sent())
    floor.until(70)
    assert floor.account.position_lots == 0 and len(floor.said(TradeClosed)) == 1
    bought = sum(one.lots for one in floor.said(Filled) if one.side == "buy")
    assert bought > held if latency_ms else bought == held
    assert not floor.exchange.open_orders(BTC)


def test_execution_planner_what_is_not_filled_at_once_is_tried_again_and_never_doubled() -> None:
    floor = Floor()
    floor.show({1000: DEEP}, {1001: 4_000})
    floor.decide(1.0)
    floor.until(0.9)
    assert floor.account.position_lots == 4_000
    floor.until(2.9)
    assert floor.sent() == [("buy", "immediate", SIXTH, 1002), *[("buy", "immediate", SIXTH - 4_000, 1002)] * 2]
    assert floor.account.position_lots == 4_000, "nothing was added to what is displayed"
    floor.show({1000: DEEP}, {1002: 10_000})
    floor.until(4)
    assert floor.account.position_lots == SIXTH


def test_execution_planner_nothing_is_sent_to_a_book_that_is_not_proven() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.until(1)
    floor.known.state = BookState.STALE
    floor.decide(1.0)
    floor.until(400)
    assert len(floor.sent()) == 1 and len(floor.said(Sized)) == 1 and floor.account.position_lots == SIXTH
    floor.known.state = BookState.LIVE
    floor.until(402)
    assert floor.account.position_lots == 0 and len(floor.said(TradeClosed)) == 1


@pytest.mark.parametrize("halted", [False, True])
@pytest.mark.parametrize("latency_ms", [0.0, 1_200.0])
def test_execution_planner_all_orders_are_called_back_while_the_book_is_not_proven(latency_ms: float, halted: bool) -> None:
    floor = slow(order_latency_ms=latency_ms)
    floor.until(0.5)
    assert len(floor.exchange.open_orders(BTC)) == 1
    floor.known.state, floor.execution.halted = BookState.STALE, halted
    if latency_ms:  # The order arrives at a proven book after all, and its end is asked for again.
        floor.until(1.1)
        floor.known.state = BookState.LIVE
        floor.until(1.5)
        floor.known.state = BookState.STALE
    floor.until(1 + 3 * latency_ms / 1e3)
    assert floor.exchange.open_orders(BTC) == [] and floor.account.sleeves.by_decision[1].working_lots == 0
    assert len(floor.sent()) == 1 and floor.said(OrderChanged)[-1].state == "cancelled"


@pytest.mark.parametrize(
    ("least", "sent"),
    [
        (5_000_000, [("buy", "post_only", 694, 1000)]),
        (8_000_000, [("buy", "immediate", 329 + 694, 1002)]),
        (11_000_000, []),
    ],
)
def test_execution_planner_what_rests_is_not_taken_for_the_sake_of_what_is_too_little(least: int, sent: list[Any]) -> None:
    floor = Floor()
    floor.show({1000: DEEP}, {1001: 8_000})
    floor.decide(1.0)
    floor.known.spread_bps = 50.0
    floor.decide(1.0, urgency=0.5)
    floor.until(4.9)
    assert floor.account.position_lots == 8_000, "329 lots are late, of the other decision 694 are to rest at 0 s and at 5 s"
    before = len(floor.sent())
    floor.known.least = least
    floor.until(5.5)
    assert floor.sent()[before:] == sent
    if sent:
        shares = [one.shares for one in floor.said(OrderChanged) if one.state == "sent"][-1]
        assert shares == ({2: 694} if sent[0][1] == "post_only" else {1: 329, 2: 694})
    assert floor.said(HouseTook) == [], "neither is to end"


# Dust


def test_execution_planner_dust_falls_to_the_house_and_is_crossed_away_later() -> None:
    floor = Floor()
    floor.known.least = 50_000_000
    floor.decide(1.0)
    floor.until(299)
    floor.show({1000: 7_000}, {1001: DEEP})
    floor.until(302)
    left = SIXTH - 7_000
    (closed,) = floor.said(TradeClosed)
    house = floor.account.sleeves.by_decision[HOUSE]
    assert (house.lots, floor.account.position_lots) == (left, left)
    assert house.cash == -5 * 2001 * left, "it is taken over at the mid"
    assert floor.said(HouseTook) == [HouseTook(1, BTC, left, 2001, 5 * 2001 * left)]
    assert closed.pnl == 10 * 1000 * 7_000 + 5 * 2001 * left - 10 * 1001 * SIXTH + closed.fees
    floor.until(310)
    assert floor.sent()[2:] == [], "too little to be ordered"
    floor.decide(1.0)
    assert floor.said(Crossed)[0].lots == {HOUSE: -left, 2: left}
    floor.until(311)
    assert (house.lots, floor.account.position_lots) == (0, floor.said(Sized)[1].sizing["lots"])


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_execution_planner_no_sleeve_is_held_for_ever_in_a_wide_book_by_the_least_order(side: float) -> None:
    floor = Floor()
    floor.decide(side)
    floor.until(299)
    floor.show({600: DEEP}, {1400: DEEP})
    floor.known.least = 10 * 900 * SIXTH
    floor.until(310)
    assert len(floor.said(TradeClosed)) == 1, "at the mid it is enough, at the price of an order it is not"
    left = floor.account.sleeves.by_decision[HOUSE].lots
    assert left == (SIXTH if side > 0 else 0), "what is bid is too little, what is asked is not"


# Limits


def test_execution_planner_the_brake_shrinks_new_sizes_until_it_is_released() -> None:
    floor = Floor(brake_drawdown=0.05, brake_release=0.02, brake_factor=0.25)
    floor.decide(1.0)
    floor.until(1)
    floor.show({700: DEEP}, {701: DEEP})
    floor.until(2)
    portfolio = floor.execution.portfolio
    assert portfolio is not None and portfolio.braked and portfolio.drawdown > 0.05
    floor.decide(1.0)
    braked = floor.said(Sized)[1].sizing
    assert [cap["name"] for cap in braked["caps"]] == ["brake"]
    assert braked["lots"] == int(0.25 * braked["rawSize"] / 1e-6)
    floor.show({1000: DEEP}, {1001: DEEP})
    floor.until(3)
    floor.decide(1.0)
    assert floor.said(Sized)[2].sizing["caps"] == ()


def test_execution_planner_limits_cut_what_may_be_held_however_many_decisions_there_are() -> None:
    floor = Floor(symbol_max=0.5, kelly_cap=2.0)
    for i in range(5):
        floor.decide(1.0)
        floor.until(i + 1)
        assert floor.account.exposure <= 0.5 * 500_000_000
    names = [[cap["name"] for cap in one.sizing["caps"]] for one in floor.said(Sized)]
    assert names[0] == [] and names[1] == ["symbol"] and floor.account.exposure > 0.49 * 500_000_000


def test_execution_planner_what_is_late_to_close_keeps_others_from_opening() -> None:
    floor = slow()
    for _ in range(10):
        floor.decide(1.0, urgency=0.5)
    assert sorted(floor.account.sleeves.by_decision) == [HOUSE, 1, 2, 3, 4, 5, 6]
    told = [one.sizing for one in floor.said(Sized)]
    assert [one["lots"] for one in told] == [*[SIXTH] * 6, *[0] * 5]
    assert all(one["size"] == 0.0 and not one["probe"] and "late to close" in one["reason"] for one in told[6:])
    assert len(floor.said(Planned)) == 6
    sized = floor.execution.sizing(BTC)
    assert sized is not None and (sized.decision, sized.lots) == (11, 0)


def test_execution_planner_a_size_beyond_what_money_can_count_is_told_and_not_traded() -> None:
    floor = Floor(capital=1e10, kelly_cap=40.0, symbol_max=100.0, gross_max=100.0, vol_budget=10.0)
    floor.decide(1.0)
    (sized,) = floor.said(Sized)
    assert (sized.sizing["lots"], sized.sizing["size"]) == (0, 0.0) and "beyond what can be counted" in sized.sizing["reason"]
    assert sized.sizing["rawSize"] > 0.0 and set(floor.account.sleeves.by_decision) == {HOUSE} and floor.sent() == []


def test_execution_planner_every_symbol_that_takes_orders_has_its_part_of_the_capital() -> None:
    floor = Floor()
    floor.known.taking = [BTC, "x:ETHUSDT", "x:SOLUSDT"]
    floor.decide(1.0)
    (sized,) = floor.said(Sized)
    assert (sized.sizing["sleeves_max"], sized.sizing["lots"]) == (18, 500_000_000 // (18 * 10_005))


def test_execution_planner_more_decisions_than_sleeves_may_be_are_not_traded(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (service, sleeves):
        monkeypatch.setattr(module, "SLEEVES_MAX", 4)
    floor = Floor(router=RouterSettings(interval_s=1, horizon_s=HORIZON_S))
    for _ in range(6):
        floor.decide(1.0)
    assert sorted(floor.account.sleeves.by_decision) == [HOUSE, 1, 2, 3]


def test_execution_planner_a_symbol_without_forecast_makes_no_size() -> None:
    floor = Floor()
    floor.known.vol = None
    floor.decide(1.0)
    floor.until(5)
    assert floor.ctx.records == [] and floor.execution.sizing(BTC) is None and floor.outside.knows(1)
    with pytest.raises(Refused, match="a forecast of volatility"):
        floor.execution.simulate(BTC, 1, 0.001, 0.5, 300.0)


def test_execution_planner_spot_is_never_short_whatever_is_decided() -> None:
    floor = Floor(spot=True)
    chance = random.Random(5)
    floor.decide(-1.0)
    (sized,) = floor.said(Sized)
    assert sized.sizing["lots"] == 0 and "long only" in [cap["name"] for cap in sized.sizing["caps"]]
    for i in range(1, 600):
        floor.until(i)
        if i % 20 == 0:
            floor.known.spread_bps = chance.choice((1.0, 50.0))
            floor.decide(chance.uniform(-1.0, 1.0), urgency=chance.random(), horizon_s=60)
            floor.show({1000: chance.randrange(1, 9_000)}, {1001: chance.randrange(1, 9_000)})
            floor.tell()
        out = sum(order.left_lots for order in floor.exchange.open_orders(BTC) if order.side < 0)
        assert 0 <= out <= floor.account.position_lots
    assert any(one.side == "sell" for one in floor.said(Filled))


# A hostile market


def test_execution_planner_a_price_beyond_belief_breaks_nothing_and_is_not_believed() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.until(1)
    portfolio = floor.execution.portfolio
    assert portfolio is not None
    before = portfolio.equity
    far = 4 * 10**15
    floor.show({far: 1}, {far + 1: 1})
    floor.until(10)
    floor.decide(-1.0)
    floor.until(400)
    assert portfolio.equity == before and len(floor.sent()) == 1
    floor.show({1000: DEEP}, {1001: DEEP})
    floor.until(402)
    assert len(floor.said(TradeClosed)) == 1


def test_execution_planner_the_first_price_of_all_may_be_beyond_belief() -> None:
    floor = Floor()
    far = 4 * 10**15
    floor.show({far: 1}, {far + 1: 1})
    floor.book.lot = Step(1, 0)
    floor.decide(1.0)
    floor.until(5)
    assert floor.ctx.records == []


@pytest.mark.parametrize("lot", [Step(1, 12), Step(1, 18)])
def test_execution_planner_a_lot_worth_nothing_is_not_sized(lot: Step) -> None:
    floor = Floor(capital=1e10, kelly_cap=100.0)
    floor.book.lot = lot
    floor.decide(1.0)
    floor.until(5)
    assert floor.ctx.records == []


def test_execution_planner_a_least_order_beyond_all_lots_is_not_sized() -> None:
    floor = Floor()
    floor.known.least = 2**62
    floor.book.lot = Step(1, 11)
    floor.decide(1.0)
    assert floor.ctx.records == []


def test_execution_planner_finer_steps_in_the_middle_of_a_trade_change_no_money() -> None:
    plain, refined = slow(), slow()
    for floor in (plain, refined):
        floor.until(17.5)
        if floor is refined:
            floor.refined = True
            floor.book.diff(floor.ctx.now_ns, b'[["0.01","0.0000001"]]', b"[]")
            floor.exchange.on_steps(BTC, 10, 10)
            floor.execution.on_steps(BTC, 10, 10)
        floor.until(340)
    (one,), (other,) = plain.said(TradeClosed), refined.said(TradeClosed)
    assert (one.pnl, one.fees, one.turnover) == (other.pnl, other.fees, other.turnover)


@pytest.mark.parametrize("restarts", [False, True])
def test_execution_planner_the_currency_is_that_of_the_first_start_and_what_is_held_is_sold_in_it(restarts: bool) -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.until(1)
    changed = msgspec.structs.replace(floor.ctx.settings.execution, settlement="USDC", capital=7.0)
    floor.ctx.settings = CoreSettings(execution=changed)
    floor.execution.on_configure()
    if restarts:
        floor.restart()
    portfolio = floor.execution.portfolio
    assert portfolio is not None
    assert (floor.execution.currency, portfolio.currency, portfolio.capital) == ("USDT", "USDT", 500_000_000)
    floor.decide(1.0)
    assert len(floor.sent()) == 2
    floor.until(312)
    assert floor.account.position_lots == 0 and len(floor.said(TradeClosed)) == 2


def test_execution_planner_before_the_first_start_the_currency_is_the_settings() -> None:
    floor = Floor(settlement="USDC")
    assert floor.execution.currency == "USDC"
    floor.decide(1.0)
    assert floor.ctx.records == [], "what settles in another currency takes no orders"


# Finer steps than can be planned


FINER = 10**11


def refine(floor: Floor) -> None:
    """Let a quantity far from the best price tell of lots of which 45,036 old ones are more than an order takes."""
    floor.refined = True
    floor.show({1000: 30_000, 999: 30_000}, {1001: 30_000, 1002: 30_000})
    floor.book.diff(floor.ctx.now_ns, b'[["0.1","0.%017d"]]' % 1, b"[]")
    floor.exchange.on_steps(BTC, 1, FINER)
    floor.execution.on_steps(BTC, 1, FINER)


def test_execution_planner_more_lots_than_an_order_takes_are_sent_in_parts() -> None:
    floor = Floor(capital=50.0)
    for _ in range(2):
        floor.decide(0.5)
    floor.until(200)
    refine(floor)
    half = 41_645 * FINER
    assert floor.account.position_lots == 2 * half > LOTS_MAX > half
    floor.until(300)
    first = [one for one in floor.said(OrderChanged) if one.state == "sent"][-1]
    assert floor.sent()[2:] == [("sell", "immediate", LOTS_MAX, 999)] and first.shares == {1: -LOTS_MAX // 2, 2: -LOTS_MAX // 2}
    floor.show({1010: 30_000, 1009: 30_000}, {1011: 30_000})
    floor.until(301)
    assert floor.sent()[3:] == [("sell", "immediate", 2 * half - LOTS_MAX, 1009)]
    floor.until(302)
    assert floor.account.position_lots == 0 and len(floor.said(TradeClosed)) == 2


def test_execution_planner_a_plan_that_cannot_be_counted_in_finer_lots_is_taken_at_once() -> None:
    floor = Floor(capital=50.0)
    floor.known.spread_bps, floor.known.least = 50.0, 10_005 * 45_000
    floor.decide(1.0, urgency=0.5)
    deal = floor.execution.deal(1)
    assert deal is not None and deal.legs[0].plan is not None and deal.legs[0].plan.market.least_lots == 45_450
    floor.until(1.5)
    assert floor.sent() == [("buy", "post_only", 83_291, 1000)]
    refine(floor)
    assert deal.legs[0].plan is None, "its least order is 45,450e11 lots, more than 2**52"
    floor.until(3)
    assert floor.sent()[1:] == [("buy", "immediate", LOTS_MAX, 1002)]


def test_execution_planner_a_size_beyond_all_lots_cannot_be_simulated() -> None:
    floor = Floor()
    for size in (1e300, 2.0**53 * 1e-6, 4e-7, float("nan")):
        with pytest.raises(ValueError, match=r"expected a size from one lot, 0.000001, to 2\*\*52") as caught:
            floor.execution.simulate(BTC, 1, size, 0.5, 300.0)
        assert caught.type is ValueError
    assert floor.execution.simulate(BTC, 1, 6e-7, 0.5, 300.0).lots == 1


# What is reported from outside


def test_execution_planner_fills_from_outside_count_once_and_touch_nothing_else() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.until(1)
    state = [bytes(one) for one in floor.execution.portfolio.save()] if floor.execution.portfolio is not None else []

    def report(decision: int, client: str, size: float) -> None:
        floor.outside.on_fill(OutsideFill(1, floor.ctx.now_ns, decision, client, 100.0, size, -0.01, 1_700_000_000_000))

    report(99, "a", 1.0)
    assert floor.said(OutsideFilled) == [] and not floor.outside.knows(99)
    report(1, "a", 0.5)
    report(1, "a", 0.5)
    report(1, "a", 0.7)
    report(1, "b", -0.2)
    assert [(one.decision, one.client_fill_id, one.size) for one in floor.said(OutsideFilled)] == [(1, "a", 0.5), (1, "b", -0.2)]
    assert floor.outside.of(1).position == pytest.approx(0.3) and floor.outside.of(2).fills == []
    assert floor.execution.portfolio is not None and [bytes(one) for one in floor.execution.portfolio.save()] == state
    floor.restart()
    assert floor.outside.is_reported(1, "a") and floor.outside.of(1).fills == ["a", "b"]


def outside(floor: Floor, client: str, size: float = 0.5, price: float = 100.0, fee: float = -0.01, late_ms: int = 0) -> bool:
    """Report a fill of the first decision; tells whether it was taken."""
    before = len(floor.said(OutsideFilled))
    floor.outside.on_fill(OutsideFill(1, floor.ctx.now_ns, 1, client, price, size, fee, START_NS // MS + late_ms))
    return len(floor.said(OutsideFilled)) > before


def test_execution_planner_fills_from_outside_are_believed_within_reason() -> None:
    floor = Floor()
    floor.decide(1.0)
    for strange in (
        {"price": 50.0},
        {"price": 150.1},
        {"size": 1.1e12},
        {"size": -1.1e12},
        {"fee": -1.1e12},
        {"late_ms": -60_001},
    ):
        assert not outside(floor, "strange", **strange), strange
    assert floor.outside.of(1).fills == [] and floor.outside.fills() == 0 and not floor.outside.is_reported(1, "strange")
    for n, usual in enumerate(({"price": 50.1}, {"price": 150.0}, {"size": 1e12}, {"size": -1e12}, {"fee": 1e12}, {"late_ms": -60_000})):
        assert outside(floor, f"usual{n}", **usual), usual
    assert floor.outside.fills() == 6


@pytest.mark.parametrize("restarts", [False, True])
def test_execution_planner_what_fills_outside_cost_is_taught_once_a_side_as_one_execution(restarts: bool) -> None:
    floor = Floor()
    taught: list[tuple[str, float, float, float]] = []
    floor.decide(1.0)
    floor.until(10)
    outside(floor, "a", 1.0, 100.25, late_ms=4_000)
    outside(floor, "b", 3.0, 100.35, late_ms=9_000)
    outside(floor, "c", -2.0, 100.00, late_ms=-500)
    floor.until(309.9)
    if restarts:
        floor.restart()
    floor.outside.learnt = lambda *told: taught.append(told)
    assert taught == []
    floor.until(310)
    (symbol, *sold), (_, *bought) = taught
    assert symbol == BTC and sold == pytest.approx([2e-6, 1e4 * (1 - 100.00 / 100.05), 0.0])
    assert bought == pytest.approx([4e-6, 1e4 * (100.325 / 100.05 - 1), 9.0]), "the mean price of both, and the last of them"
    outside(floor, "d", 1.0, 100.25, late_ms=310_000)
    floor.until(700)
    assert len(taught) == 2


# Restarts


def drive(seed: int, *, restarts: bool) -> Floor:
    """A random course of decisions and market; with ``restarts`` everything is saved and loaded again and again."""
    chance = random.Random(seed)
    floor = Floor(
        feed_latency_ms=1.0,
        order_latency_ms=chance.choice((5.0, 900.0)),
        ack_latency_ms=chance.choice((0.0, 400.0)),
        brake_drawdown=0.002,
        brake_release=0.001,
    )
    floor.known.least = 3_000_000
    bid = 1000
    for i in range(1, 400):
        if chance.random() < 0.08:
            floor.known.spread_bps = chance.choice((1.0, 50.0))
            floor.decide(chance.choice((-1.0, -0.3, 0.0, 0.02, 0.4, 1.0)), chance.random(), chance.choice((20, 60, 120)))
        if chance.random() < 0.04:
            shares = chance.choice(((1.0, 1.0), (0.3, 0.8), (0.0, 0.5), (0.7, 0.0)))
            floor.quote(*shares, offset_ticks=chance.choice((0, 0, 1)), horizon_s=chance.choice((20, 60, 120)))
        if chance.random() < 0.02:
            floor.fund(chance.choice(("0.0005", "-0.0007")))
        if chance.random() < 0.3:
            bid += chance.choice((-1, 1))
            floor.show({bid: chance.randrange(1, 30_000), bid - 2: 40_000}, {bid + 1: chance.randrange(1, 30_000), bid + 2: 40_000})
            floor.tell()
        if chance.random() < 0.3:
            floor.trade(chance.choice((bid, bid - 1, -bid - 1, -bid - 2)), chance.randrange(1, 30_000))
        if chance.random() < 0.01:
            floor.known.state = BookState.SYNCING
            floor.exchange.on_broken(BTC)
        elif chance.random() < 0.3:
            floor.known.state = BookState.LIVE
        if chance.random() < 0.005:
            floor.exchange.on_session()
        if restarts:
            floor.restart()
        floor.until(i / 2)
    return floor


@pytest.mark.parametrize("seed", range(2))
def test_execution_planner_a_floor_that_is_restarted_at_every_step_trades_the_same(seed: int) -> None:
    plain, restarted = drive(seed, restarts=False), drive(seed, restarts=True)
    assert len(plain.said(Filled)) > 10 and len(plain.said(TradeClosed)) > 3
    assert restarted.ctx.records == plain.ctx.records
    for one, other in ((plain.exchange, restarted.exchange), (plain.execution, restarted.execution)):
        assert [bytes(piece) for piece in one.save()] == [bytes(piece) for piece in other.save()]


@pytest.mark.parametrize("seed", range(2, 6))
def test_execution_planner_no_sleeve_outlives_its_horizon_for_long(seed: int) -> None:
    floor = drive(seed, restarts=False)
    floor.known.state = BookState.LIVE
    for i in range(400, 700):
        floor.show({1000: 30_000 + i}, {1001: 30_000 + i})
        floor.tell()
        floor.until(i / 2)
    account = floor.account
    assert set(account.sleeves.by_decision) == {HOUSE} and not floor.exchange.open_orders(BTC)
    assert account.position_lots == account.sleeves.by_decision[HOUSE].lots
    assert abs(account.exposure) < 3_030_000, "what is left is less than an order"
    assert sum(one.pnl for one in floor.said(TradeClosed)) + account.sleeves.by_decision[HOUSE].cash == account.cash
    opened = [one.decision for one in floor.said(Sized) if one.sizing["lots"]]
    assert {one.decision for one in floor.said(TradeClosed)} <= set(opened)
    for one, sleeve in floor.execution.deals():
        assert sleeve.lots == 0 and all(sum(fill.lots for fill in leg.fills) <= leg.lots for leg in one.legs)
