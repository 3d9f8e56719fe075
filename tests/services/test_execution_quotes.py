"""Quotes by hand: what is shown, how it follows the market and what was traded, what gives way to what, and how it ends."""

import random
from typing import Any

import pytest
from test_execution import BTC, DEEP, HORIZON_S, SIXTH, Floor

from alphapack.domain.events import Crossed, Filled, OrderChanged, Planned, Sized, TradeClosed
from alphapack.domain.market import BookState
from alphapack.domain.trading import Order
from alphapack.models.sleeves import HOUSE


def shown(floor: Floor, decision: int | None = None) -> list[tuple[int, int, int]]:
    """Side, price and lots of the open orders that rest, or of those of a decision, bids first."""
    orders = [one for one in floor.exchange.open_orders(BTC) if decision is None or decision in one.shares]
    assert all(one.kind == "post_only" for one in orders)
    return sorted(((one.side, one.ticks, one.left_lots) for one in orders), reverse=True)


def order_of(floor: Floor, side: int) -> Order:
    (found,) = (one for one in floor.exchange.open_orders(BTC) if one.side == side)
    return found


def test_execution_planner_a_quote_rests_on_both_sides_and_is_sized_by_the_larger_one() -> None:
    floor = Floor()
    decision = floor.quote(0.5, 1.0, offset_ticks=2)
    (sized,) = floor.said(Sized)
    assert (sized.sizing["exposure"], sized.sizing["lots"]) == (-1.0, -SIXTH)
    half = SIXTH // 2
    assert shown(floor) == [(1, 998, half), (-1, 1003, SIXTH)]
    (planned,) = floor.said(Planned)
    assert (planned.style, planned.leg, planned.side, planned.lots) == ("QUOTE", "entry", "sell", SIXTH)
    deal = floor.execution.deal(decision)
    assert deal is not None and deal.legs == [] and deal.allocated == 5 * 2001 * SIXTH
    assert (deal.size_lots, deal.model_lots) == (-SIXTH, half - SIXTH), "the model takes it by the lots of its bid less those of its ask"
    floor.until(30)
    assert len(floor.sent()) == 2 and floor.account.position_lots == 0, "it stands where it stood"


def test_execution_planner_each_side_of_a_quote_is_filled_once() -> None:
    floor = Floor()
    decision = floor.quote(1.0, 0.5)
    half = SIXTH // 2
    floor.until(0.5)
    floor.trade(999, 3_000)
    floor.until(1)
    sleeve = floor.account.sleeves.by_decision[decision]
    assert (sleeve.lots, sleeve.residual_lots) == (3_000, 0)
    assert shown(floor) == [(1, 1000, SIXTH - 3_000), (-1, 1001, half)], "what stands keeps its place"
    floor.trade(-1002, half + 3_000)
    floor.until(2)
    assert sleeve.lots == 3_000 - half and shown(floor) == [(1, 1000, SIXTH - 3_000)], "each side is filled once"
    assert all(fill.maker for fill in floor.said(Filled))


def test_execution_planner_what_the_only_side_of_a_quote_brings_is_offered() -> None:
    floor = Floor()
    floor.quote(1.0, 0.0)
    floor.until(0.5)
    floor.trade(999, 3_000)
    floor.until(1)
    assert shown(floor) == [(1, 1000, SIXTH - 3_000), (-1, 1001, 3_000)]
    floor.trade(-1002, 3_000)
    floor.until(2)
    assert shown(floor) == [(1, 1000, SIXTH - 3_000)] and floor.account.position_lots == 0


def test_execution_planner_a_quote_follows_the_best_price_only_when_it_must() -> None:
    floor = Floor()
    floor.quote(1.0, 0.0, offset_ticks=1)
    bid = order_of(floor, 1)
    floor.show({1000: DEEP - 5, 997: 3}, {1001: DEEP})
    floor.until(3)
    assert bid.ticks == 999 and len(floor.sent()) == 1
    for s, (best, shown_at) in enumerate(((1001, 999), (1002, 1001), (1001, 1001), (1004, 1003)), 4):
        floor.show({best: DEEP}, {best + 1: DEEP})
        floor.tell()
        floor.until(s + 0.2)
        assert shown(floor) == [(1, shown_at, SIXTH)], "it stands until the best is more than two offsets away"
    assert len(floor.sent()) == 1 and floor.said(Filled) == []


def test_execution_planner_several_orders_of_a_side_become_one_when_the_price_moves() -> None:
    floor = Floor()
    floor.quote(1.0, 0.0)
    for i in range(8):
        floor.until(i + 0.5)
        floor.trade(999, 10)
    floor.until(8.5)
    asks = [lots for side, _, lots in shown(floor) if side < 0]
    assert asks == [10, 10, 10, 10], "more of them wait"
    floor.show({1000: DEEP}, {1002: DEEP})
    floor.tell()
    floor.until(11)
    assert shown(floor) == [(1, 1000, SIXTH - 80), (-1, 1002, 80)]


def test_execution_planner_a_quote_ends_at_its_horizon_and_what_it_holds_is_closed() -> None:
    floor = Floor()
    decision = floor.quote(1.0, 1.0)
    floor.until(1)
    floor.trade(999, 2_000)
    floor.until(HORIZON_S - 0.1)
    assert len(shown(floor)) == 2
    floor.show({1010: DEEP}, {1011: DEEP})
    floor.before(HORIZON_S)
    floor.fire()  # The horizon comes before the look of the same time.
    assert [one.decision for one in floor.matured] == [decision]
    floor.until(HORIZON_S + 2)
    assert floor.exchange.open_orders(BTC) == [] and floor.account.position_lots == 0
    (closed,) = floor.said(TradeClosed)
    (deal,) = floor.closed
    assert [leg.kind for leg in deal.legs] == ["exit"] and floor.sent()[-1] == ("sell", "immediate", 2_000, 1009)
    maker = round(10 * 1000 * 2_000 * 2e-4)
    assert closed.pnl == 10 * (1010 - 1000) * 2_000 - maker - round(10 * 1010 * 2_000 * 5e-4)
    assert (deal.entered.lots, deal.left.lots, deal.model_lots) == (2_000, -2_000, 0)


def test_execution_planner_quotes_end_at_the_horizon_itself_and_not_at_the_next_look() -> None:
    floor = Floor()
    floor.until(0.25)
    floor.quote(1.0, 1.0, horizon_s=10)
    floor.until(10.2)
    assert len(shown(floor)) == 2
    floor.until(10.3)
    assert shown(floor) == [] and floor.account.sleeves.by_decision[1].quoting, "the look of 11 s will end it"


def test_execution_planner_nothing_is_closed_before_both_sides_of_a_quote_have_come_home() -> None:
    floor = Floor(order_latency_ms=1_500.0)
    floor.quote(0.5, 0.0, horizon_s=10)
    floor.until(3)
    floor.trade(999, SIXTH // 4)
    floor.until(9)
    sleeve = floor.account.sleeves.by_decision[1]
    half = SIXTH // 4
    assert shown(floor) == [(1, 1000, half), (-1, 1001, half)] and (sleeve.lots, sleeve.working_lots) == (half, 0)
    floor.until(11.2)
    assert floor.said(Planned)[1:] == [], "a look has passed, and both are still out"
    floor.trade(-1002, half)
    floor.until(20)
    assert floor.account.position_lots == 0 and len(floor.closed) == 1 and floor.closed[0].legs == []


def test_execution_planner_a_quote_that_nobody_meets_is_no_trade() -> None:
    floor = Floor()
    floor.quote(1.0, 1.0, offset_ticks=5, horizon_s=10)
    floor.until(13)
    assert floor.said(TradeClosed) == [] and set(floor.account.sleeves.by_decision) == {HOUSE} and floor.closed == []
    (matured,) = floor.matured
    assert (matured.filled, matured.reward_bps, matured.net) == (False, 0.0, 0)


@pytest.mark.parametrize("bid", [1.0, 0.4])
def test_execution_planner_what_is_owned_is_offered_only_as_far_as_a_quote_holds_it(bid: float) -> None:
    floor = Floor(spot=True)
    decision = floor.quote(bid, 1.0)
    (sized,) = floor.said(Sized)
    lots = sized.sizing["lots"]
    assert sized.sizing["exposure"] == bid and shown(floor) == [(1, 1000, lots)]
    floor.until(0.5)
    floor.trade(999, 100)
    floor.until(1.5)
    assert shown(floor) == [(1, 1000, lots - 100), (-1, 1001, 100)]
    floor.trade(-1002, DEEP)
    floor.until(2.5)
    assert floor.account.sleeves.by_decision[decision].lots == 0 == floor.account.position_lots


def test_execution_planner_nothing_is_quoted_of_what_is_owned_where_only_an_ask_is_wanted() -> None:
    floor = Floor(spot=True)
    decision = floor.quote(0.0, 1.0)
    assert floor.sent() == [] and floor.unsized == [decision] and floor.said(Sized)[0].sizing["lots"] == 0


@pytest.mark.parametrize("how", ["stale", "halted"])
def test_execution_planner_quotes_are_called_back_when_trading_stands_still_and_come_back_after(how: str) -> None:
    floor = Floor()
    floor.quote(1.0, 1.0)
    floor.until(2)
    if how == "stale":
        floor.known.state = BookState.STALE
    else:
        floor.execution.halted = True
        floor.execution.call_back_all()
    floor.until(5)
    assert floor.exchange.open_orders(BTC) == [] and len(floor.sent()) == 2
    floor.known.state, floor.execution.halted = BookState.LIVE, False
    floor.until(7)
    assert shown(floor) == [(1, 1000, SIXTH), (-1, 1001, SIXTH)]


@pytest.mark.parametrize("latency_ms", [0.0, 300.0])
def test_execution_planner_a_quote_gives_way_to_an_own_order_that_takes_and_comes_back(latency_ms: float) -> None:
    floor = Floor(order_latency_ms=latency_ms)
    quoting = floor.quote(1.0, 1.0)
    floor.until(5)
    floor.decide(1.0)
    assert [kind for _, kind, _, _ in floor.sent()] == ["post_only"] * 2, "the ask that it would meet is called back first"
    floor.until(10)
    rejected = [one for one in floor.said(OrderChanged) if one.state == "rejected"]
    assert rejected == [] and floor.said(Crossed) == []
    assert floor.account.sleeves.by_decision[2].lots == floor.said(Sized)[1].sizing["lots"]
    assert floor.account.sleeves.by_decision[quoting].lots == 0
    assert shown(floor) == [(1, 1000, SIXTH), (-1, 1001, SIXTH)], "the bid stood all the while"
    assert [side for side, *_ in floor.sent()] == ["buy", "sell", "buy", "sell"]


def test_execution_planner_a_resting_net_order_and_quotes_stand_side_by_side() -> None:
    floor = Floor()
    floor.quote(1.0, 1.0)
    floor.known.spread_bps = 50.0
    floor.decide(1.0, urgency=0.5)
    floor.until(3)
    assert [one for one in shown(floor, 1)] == [(1, 1000, SIXTH), (-1, 1001, SIXTH)]
    (resting,) = shown(floor, 2)
    assert resting[:2] == (1, 1000)


def test_execution_planner_two_quotes_stand_beside_each_other_and_neither_crosses() -> None:
    floor = Floor()
    floor.quote(1.0, 1.0)
    floor.quote(0.5, 0.5, offset_ticks=1)
    floor.until(3)
    assert shown(floor, 1) == [(1, 1000, SIXTH), (-1, 1001, SIXTH)]
    assert [(side, ticks) for side, ticks, _ in shown(floor, 2)] == [(1, 999), (-1, 1002)]
    floor.trade(999, DEEP)
    floor.until(4)
    assert floor.said(Crossed) == [] and floor.account.sleeves.by_decision[1].lots == SIXTH


def test_execution_planner_a_side_of_a_quote_that_is_too_little_is_not_ordered() -> None:
    floor = Floor()
    floor.known.least = 30_000_000
    floor.quote(1.0, 0.2)
    assert shown(floor) == [(1, 1000, SIXTH)], "a fifth is worth 16,660,000"
    for s, ask in enumerate(([], [(-1, 1001, 4_000)])):
        floor.until(s + 0.5)
        floor.trade(999, 2_000)
        floor.until(s + 1.4)
        assert shown(floor) == [(1, 1000, SIXTH - 2_000 * (s + 1)), *ask]


def test_execution_planner_a_price_below_the_first_tick_is_not_quoted() -> None:
    floor = Floor()
    floor.quote(1.0, 1.0, offset_ticks=1_000)
    assert shown(floor) == [(-1, 2001, SIXTH)]


def test_execution_planner_a_quote_leaves_no_more_room_than_both_sides_have() -> None:
    floor = Floor(symbol_max=0.2)
    floor.decide(1.0)
    floor.until(1)
    floor.quote(1.0, 1.0)
    caps = floor.said(Sized)[1].sizing["caps"]
    assert [cap["name"] for cap in caps] == ["symbol"] and floor.said(Sized)[1].sizing["lots"] < SIXTH // 4


def test_execution_planner_finer_steps_in_the_middle_of_a_quote_change_no_money() -> None:
    made: list[Any] = []
    for refined in (False, True):
        floor = Floor()
        floor.quote(1.0, 0.5, offset_ticks=1)
        floor.until(10)
        floor.trade(998, 1_000)
        floor.until(12.5)
        if refined:
            floor.refined = True
            floor.book.diff(floor.ctx.now_ns, b'[["0.01","0.0000001"]]', b"[]")
            floor.exchange.on_steps(BTC, 10, 10)
            floor.execution.on_steps(BTC, 10, 10)
        floor.until(340)
        (deal,) = floor.closed
        by = 10 if refined else 1
        assert (deal.size_lots, deal.model_lots, deal.entered.lots) == (SIXTH * by, (SIXTH - SIXTH // 2) * by, 1_000 * by)
        made.append((floor.said(TradeClosed), outcome(floor)))
    assert made[0] == made[1]


def outcome(floor: Floor) -> list[tuple[float, int]]:
    return [(one.reward_bps, one.allocated) for one in floor.matured]


@pytest.mark.parametrize("seed", range(3))
def test_execution_planner_quotes_of_many_sleeves_in_a_wild_market_stay_within_what_they_may(seed: int) -> None:
    """The floor holds every quote against what may yet be traded, and every closed trade against its lines, after every step."""
    chance = random.Random(seed)
    floor = Floor(spot=seed == 2, order_latency_ms=chance.choice((0.0, 5.0, 900.0)), ack_latency_ms=chance.choice((0.0, 400.0)))
    floor.known.least = 3_000_000
    bid = 1000
    for i in range(1, 500):
        if chance.random() < 0.06 and i < 400:
            floor.quote(
                chance.choice((0.0, 0.3, 1.0)), chance.choice((0.1, 0.3, 1.0)), chance.choice((0, 0, 1, 3)), chance.choice((20, 60))
            )
        if chance.random() < 0.04 and i < 400:
            floor.decide(chance.choice((-1.0, 0.4, 1.0)), chance.random(), 30)
        if chance.random() < 0.3:
            bid += chance.choice((-1, 1))
            floor.show({bid: chance.randrange(1, 30_000), bid - 2: 40_000}, {bid + 1: chance.randrange(1, 30_000), bid + 2: 40_000})
            floor.tell()
        if chance.random() < 0.4:
            floor.trade(chance.choice((bid, bid - 1, -bid - 1, -bid - 2)), chance.randrange(1, 30_000))
        if chance.random() < 0.02:
            floor.known.state = BookState.STALE
        elif chance.random() < 0.4:
            floor.known.state = BookState.LIVE
        floor.until(i / 2)
    makers = [fill for fill in floor.said(Filled) if fill.maker]
    assert len(makers) > 5 and len(floor.closed) > 5
    assert any(deal.decision.quote is not None for deal in floor.closed)
    sized = [one.decision for one in floor.said(Sized) if one.sizing["lots"]]
    assert sorted(one.decision for one in floor.matured) == sized, "each is told of once"
    assert sorted({*floor.unsized, *sized}) == list(range(1, floor.decisions + 1))
    assert {*floor.unsized}.isdisjoint(deal.decision.id for deal in floor.closed), "of those nothing came"
