"""From decisions to money by hand: sizes, plans, orders, sleeves and trades, with a real exchange and a book that tests move."""

import heapq
import random
from typing import Any, TypeVar

import pytest
from test_exchange import FakeContext, quoted

from alphapack.domain.events import Crossed, Filled, OrderChanged, OutsideFilled, Planned, Record, Sized, TradeClosed
from alphapack.domain.inputs import CoreSettings, OutsideFill
from alphapack.domain.market import BookState, Step
from alphapack.domain.trading import Decision, ExecutionSettings, RouterSettings, Terms
from alphapack.models import sleeves
from alphapack.models.book import FeatureBook
from alphapack.models.impact import Impact
from alphapack.models.portfolio import Account
from alphapack.models.sleeves import HOUSE
from alphapack.services import execution as service
from alphapack.services.exchange import Exchange
from alphapack.services.execution import Execution, Forecast, Refused

MS, S = 1_000_000, 1_000_000_000
START_NS = 1_700_000_000 * S
BTC = "x:BTCUSDT"
TICK, LOT = Step(1, 1), Step(1, 6)
"""Of a lot at a price of a tick: ten units of money."""
HORIZON_S = 300
FIFTH = 9_995
"""Lots of a fifth of the capital, 1 USDT, at the first mid of 100.05."""
DEEP = 1_000_000
Said = TypeVar("Said", bound=Record)


class FakeKnown:
    """What is known of one market, as a test says."""

    def __init__(self, ctx: FakeContext, book: FeatureBook) -> None:
        self.ctx, self.book, self.state = ctx, book, BookState.LIVE
        self.least, self.spot = 0, False
        self.spread_bps = 1.0
        self.vol: Forecast | None = Forecast(0.001, 0.001, 0.5)

    def market(self, symbol: str) -> tuple[FeatureBook, BookState] | None:
        return (self.book, self.state) if symbol == BTC else None

    def terms(self, symbol: str) -> Terms | None:
        if symbol != BTC or self.book.tick is None or self.book.lot is None:
            return None
        fees = self.ctx.settings.execution
        return Terms(self.book.tick, self.book.lot, fees.maker_fee_bps, fees.taker_fee_bps, self.least)

    def long_only(self, symbol: str) -> bool:
        return self.spot

    def tradable(self) -> list[str]:
        return [BTC]

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
    """All of trading on one market; a decision may hold a fifth of the capital, 5 USDT, unless limits are set."""

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
        self.build()
        self.execution.on_configure()

    def build(self) -> None:
        self.exchange = Exchange(self.ctx, self.known.market, self.known.terms, lambda symbol: None)
        self.execution = Execution(self.ctx, self.exchange, self.known)
        self.exchange.listener = self.execution

    def restart(self) -> None:
        """Go on with what was saved."""
        states = self.exchange.save(), self.execution.save()
        self.build()
        self.exchange.load(states[0])
        self.execution.load(states[1])

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
        (self.exchange if timer == "exchange" else self.execution).on_timer(argument)
        self.check()

    def check(self) -> None:
        """Hold the accounts against the records."""
        portfolio = self.execution.portfolio
        assert portfolio is not None
        portfolio.check()
        for one in self.ctx.records[self.checked :]:
            if isinstance(one, Filled):
                side = 1 if one.side == "buy" else -1
                self.lots += side * one.lots
                self.cash += one.fee + one.impact - side * one.value
        self.checked = len(self.ctx.records)
        for account in portfolio.accounts.values():
            assert account.cash == self.cash and (self.refined or account.position_lots == self.lots)

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

    def decide(self, exposure: float, urgency: float = 1.0, horizon_s: int = HORIZON_S) -> int:
        self.decisions += 1
        decision = Decision(self.decisions, self.ctx.now_ns, BTC, "test", exposure, urgency, horizon_s, 0.9, {"mid": 100.05})
        self.execution.on_decision(decision)
        self.check()
        return decision.id

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
    assert (sized.sizing["lots"], sized.sizing["sleeves_max"], sized.sizing["caps"]) == (FIFTH, 5, ())
    assert [(one.leg, one.side, one.lots, one.style) for one in floor.said(Planned)] == [("entry", "buy", FIFTH, "IMMEDIATE")]
    assert floor.sent() == [("buy", "immediate", FIFTH, 1002)]
    floor.until(10)
    bought = 10 * 1001 * FIFTH
    assert (floor.account.position_lots, floor.account.cash) == (FIFTH, -bought - 50_025), "5 bps are 50,024.975"
    floor.show({1010: DEEP}, {1011: DEEP})
    floor.until(299.9)
    assert len(floor.sent()) == 1, "it holds its size until its horizon"
    floor.until(300)
    assert floor.sent()[1:] == [("sell", "immediate", FIFTH, 1009)]
    floor.until(301)
    sold = 10 * 1010 * FIFTH
    (closed,) = floor.said(TradeClosed)
    assert (closed.pnl, closed.fees, closed.turnover) == (sold - bought - 50_025 - 50_475, -100_500, sold + bought)
    assert closed.pnl == 799_050 and (floor.account.position_lots, floor.account.cash) == (0, 799_050)
    portfolio = floor.execution.portfolio
    assert portfolio is not None and portfolio.equity == 500_799_050
    deal = floor.execution.deal(1)
    assert deal is not None and deal.sleeve is not None and [leg.kind for leg in deal.legs] == ["entry", "exit"]


def test_execution_planner_a_short_trade_is_a_long_ones_mirror() -> None:
    floor = Floor()
    floor.decide(-0.5)
    floor.until(299)
    assert floor.account.position_lots == -FIFTH // 2 + 1
    floor.until(302)
    (closed,) = floor.said(TradeClosed)
    assert closed.pnl == -10 * (FIFTH // 2) + closed.fees, "it sold at 100.0 and bought at 100.1"


def test_execution_planner_opposite_decisions_cross_inside_at_the_mid_and_free() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.before(300)
    floor.decide(1.0)
    (cross,) = floor.said(Crossed)
    lots = cross.lots[2]
    assert 0 < lots < FIFTH and cross.lots == {1: -lots, 2: lots} and cross.mid_half_ticks == 2001
    assert lots == floor.said(Sized)[1].sizing["lots"], "the whole of the new one is had from the old one"
    assert floor.account.position_lots == FIFTH, "nothing was traded outside"
    assert floor.sent()[1:] == [("sell", "immediate", FIFTH - lots, 999)]
    floor.until(302)
    (closed,) = floor.said(TradeClosed)
    left = FIFTH - lots
    fee = round(10 * 1000 * left * 5e-4)
    assert closed.pnl == 5 * 2001 * lots + 10 * 1000 * left - 10 * 1001 * FIFTH - 50_025 - fee
    second = floor.account.sleeves.by_decision[2]
    assert (second.lots, second.cash, second.fees, second.crossed_lots, second.filled_lots) == (lots, -5 * 2001 * lots, 0, lots, 0)


# Plans and orders


def slow(**execution: Any) -> Floor:
    """A floor on which a decision of medium urgency is traded by the clock, a sixtieth every five seconds."""
    floor = Floor(**execution)
    floor.known.spread_bps = 50.0
    floor.decide(1.0, urgency=0.5)
    (planned,) = floor.said(Planned)
    assert (planned.style, planned.schedule, planned.slices) == ("TWAP", "uniform", 60)
    return floor


def test_execution_planner_slices_rest_first_and_what_is_late_is_taken() -> None:
    floor = slow()
    first = FIFTH // 60
    assert [(kind, ticks) for _, kind, _, ticks in floor.sent()] == [("post_only", 1000)]
    assert abs(floor.sent()[0][2] - first) <= 1
    floor.until(9)
    assert {kind for _, kind, _, _ in floor.sent()} == {"post_only"} and floor.account.position_lots == 0
    deal = floor.execution.deal(1)
    assert deal is not None and deal.legs[0].plan is not None
    plan = deal.legs[0].plan
    for s in range(10, 300):
        floor.until(s)
        due = sum(one.lots for one in plan.slices if one.t_s <= s - 13)
        assert due <= floor.account.position_lots <= sum(one.lots for one in plan.slices if one.t_s <= s), s
    assert floor.account.position_lots > FIFTH * 0.9
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
    floor = slow(order_latency_ms=latency_ms, ack_latency_ms=2 * latency_ms)
    floor.until(299.5)
    held = floor.account.position_lots
    assert floor.account.sleeves.by_decision[1].working_lots > 0
    floor.until(300.2)
    if latency_ms:
        floor.trade(999, DEEP - 1)
        assert all(side == "buy" for side, *_ in floor.sent())
    floor.until(360)
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
    assert floor.sent() == [("buy", "immediate", FIFTH, 1002), *[("buy", "immediate", FIFTH - 4_000, 1002)] * 2]
    assert floor.account.position_lots == 4_000, "nothing was added to what is displayed"
    floor.show({1000: DEEP}, {1002: 10_000})
    floor.until(4)
    assert floor.account.position_lots == FIFTH


def test_execution_planner_nothing_is_sent_to_a_book_that_is_not_proven() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.until(1)
    floor.known.state = BookState.STALE
    floor.decide(1.0)
    floor.until(400)
    assert len(floor.sent()) == 1 and len(floor.said(Sized)) == 1 and floor.account.position_lots == FIFTH
    floor.known.state = BookState.LIVE
    floor.until(402)
    assert floor.account.position_lots == 0 and len(floor.said(TradeClosed)) == 1


# Dust


def test_execution_planner_dust_falls_to_the_house_and_is_crossed_away_later() -> None:
    floor = Floor()
    floor.known.least = 50_000_000
    floor.decide(1.0)
    floor.until(299)
    floor.show({1000: 7_000}, {1001: DEEP})
    floor.until(302)
    left = FIFTH - 7_000
    (closed,) = floor.said(TradeClosed)
    house = floor.account.sleeves.by_decision[HOUSE]
    assert (house.lots, floor.account.position_lots) == (left, left)
    assert house.cash == -5 * 2001 * left, "it is taken over at the mid"
    assert closed.pnl == 10 * 1000 * 7_000 + 5 * 2001 * left - 10 * 1001 * FIFTH + closed.fees
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
    floor.known.least = 10 * 900 * FIFTH
    floor.until(310)
    assert len(floor.said(TradeClosed)) == 1, "at the mid it is enough, at the price of an order it is not"
    left = floor.account.sleeves.by_decision[HOUSE].lots
    assert left == (FIFTH if side > 0 else 0), "what is bid is too little, what is asked is not"


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
    assert len(floor.account.sleeves.by_decision) - 1 == 5


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
    assert floor.ctx.records == [] and floor.execution.sizing(BTC) is None and floor.execution.knows(1)
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


def test_execution_planner_another_settlement_never_enters_the_accounts() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.until(1)
    usual = floor.ctx.settings
    changed = ExecutionSettings(settlement="USDC", feed_latency_ms=0.0)
    floor.ctx.settings = CoreSettings(execution=changed)
    floor.execution.on_configure()
    floor.decide(1.0)
    floor.until(310)
    assert len(floor.sent()) == 1 and floor.account.position_lots == FIFTH
    floor.ctx.settings = usual
    floor.until(312)
    assert floor.account.position_lots == 0


# What is reported from outside


def test_execution_planner_fills_from_outside_count_once_and_touch_nothing_else() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.until(1)
    state = [bytes(one) for one in floor.execution.portfolio.save()] if floor.execution.portfolio is not None else []

    def report(decision: int, client: str, size: float) -> None:
        floor.execution.on_outside_fill(OutsideFill(1, floor.ctx.now_ns, decision, client, 100.0, size, -0.01, 1_700_000_000_000))

    report(99, "a", 1.0)
    assert floor.said(OutsideFilled) == [] and not floor.execution.knows(99)
    report(1, "a", 0.5)
    report(1, "a", 0.5)
    report(1, "a", 0.7)
    report(1, "b", -0.2)
    assert [(one.decision, one.client_fill_id, one.size) for one in floor.said(OutsideFilled)] == [(1, "a", 0.5), (1, "b", -0.2)]
    assert floor.execution.outside(1).position == pytest.approx(0.3) and floor.execution.outside(2).fills == []
    assert floor.execution.portfolio is not None and [bytes(one) for one in floor.execution.portfolio.save()] == state
    floor.restart()
    assert floor.execution.is_reported(1, "a") and floor.execution.outside(1).fills == ["a", "b"]


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
