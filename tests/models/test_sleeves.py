"""Sleeves by hand: targets, crosses, orders and what is shared of them."""

from fractions import Fraction

import msgspec
import pytest

from alphapack.domain.market import Step
from alphapack.models import sleeves as module
from alphapack.models.sleeves import HOUSE, Share, Sleeves

# One lot at one tick is worth 1,000 units of money, at half a tick 500.
TICK, LOT = Step(1, 2), Step(1, 3)
MID = 20_001


def opened(**targets: int) -> Sleeves:
    sleeves = Sleeves(TICK, LOT)
    for name, lots in targets.items():
        sleeves.open(int(name[1:]), 0, lots)
    return sleeves


def test_execution_planner_sleeves_cross_what_opposes_at_the_mid() -> None:
    sleeves = opened(d2=3, d1=5, d3=-4)
    cross = sleeves.cross(MID)
    # Four of eight wanted: two and a half to the first, one and a half to the second; the tie goes to the lower id.
    assert cross is not None and (cross.lots, cross.value) == (4, 4 * MID * 500)
    price = MID * 500
    assert cross.shares == [Share(1, 3, -3 * price, 0, 0), Share(2, 1, -price, 0, 0), Share(3, -4, 4 * price, 0, 0)]
    assert sleeves.net() == {1: 2, 2: 2}
    assert sleeves.cross(MID) is None
    assert [(sleeves.by_decision[d].lots, sleeves.by_decision[d].crossed_lots) for d in (1, 2, 3)] == [(3, 3), (1, 1), (-4, 4)]
    sleeves.check(0, 0)


def test_execution_planner_sleeves_cross_without_losing_a_unit() -> None:
    sleeves = Sleeves(Step(1, 5), Step(1, 4))  # A lot at a half tick is worth .05 units.
    for decision, lots in ((1, 5), (2, 5), (3, 5), (4, -7), (5, -8)):
        sleeves.open(decision, 0, lots)
    cross = sleeves.cross(7)
    assert cross is not None and cross.value == 5  # 15 x 7 x .05 = 5.25.
    assert [share.cash for share in cross.shares] == [-2, -2, -1, 2, 3]
    sleeves.check(0, 0)


def test_execution_planner_sleeves_that_oppose_are_not_ordered() -> None:
    sleeves = opened(d1=5, d2=-3)
    with pytest.raises(ValueError, match="of one sign"):
        sleeves.net()
    assert sleeves.residuals() == {1: 5, 2: -3}


def test_execution_planner_fills_are_shared_by_what_is_not_filled() -> None:
    sleeves = opened(d7=1, d2=1, d5=4)
    sleeves.submit(9, {7: 1, 5: 4, 2: 1})
    assert sleeves.residuals() == {}
    # A third of six: .33, 1.33, .33; nobody but the sleeve of four has a whole lot, and the tie goes to the lowest id.
    assert sleeves.fill(9, 2, 1_001, -3, -1) == [Share(2, 1, -501, -2, -1), Share(5, 1, -500, -1, 0)]
    assert sleeves.orders == {9: {5: 3, 7: 1}}
    assert sleeves.fill(9, 3, 900, 5, 0) == [Share(5, 2, -600, 3, 0), Share(7, 1, -300, 2, 0)]
    assert sleeves.end(9) == 1
    assert sleeves.end(9) == 0
    assert sleeves.net() == {5: 1}
    two, five, seven = (sleeves.by_decision[d] for d in (2, 5, 7))
    assert (two.cash, two.fees, two.impact, two.turnover, two.filled_lots) == (-504, -2, -1, 501, 1)
    assert (five.cash, five.fees, five.turnover, five.working_lots) == (-1_098, 2, 1_100, 0)
    assert (seven.lots, seven.working_lots) == (1, 0)
    sleeves.check(5, -1_900)


def test_execution_planner_sales_are_shared_with_the_other_sign() -> None:
    sleeves = opened(d1=-2, d2=-1)
    sleeves.submit(1, {1: -2, 2: -1})
    assert sleeves.fill(1, 3, 3_000, -3, 0) == [Share(1, -2, 2_000, -2, 0), Share(2, -1, 1_000, -1, 0)]
    assert sleeves.orders == {}
    sleeves.check(-3, 2_997)


def test_execution_planner_orders_are_refused_with_what_was_expected() -> None:
    sleeves = opened(d1=5, d2=-5)
    sleeves.submit(1, {1: 5})
    for shares, expected in (({}, "one sign"), ({1: 0}, "one sign"), ({1: 1, 2: -1}, "one sign")):
        with pytest.raises(ValueError, match=expected):
            sleeves.submit(2, shares)
    with pytest.raises(ValueError, match="that is new"):
        sleeves.submit(1, {1: 1})
    with pytest.raises(KeyError, match="open sleeve"):
        sleeves.submit(2, {3: 1, 1: 1})
    for lots, value in ((0, 1), (6, 1), (1, -1)):
        with pytest.raises(ValueError, match="expected 1 to 5 lots"):
            sleeves.fill(1, lots, value, 0, 0)
    with pytest.raises(KeyError, match="open order"):
        sleeves.fill(2, 1, 1, 0, 0)
    with pytest.raises(ValueError, match="no sleeve"):
        sleeves.open(1, 0)
    with pytest.raises(ValueError, match="the house"):
        sleeves.set_target(HOUSE, 1)
    with pytest.raises(KeyError, match="open sleeve"):
        sleeves.set_target(3, 1)
    with pytest.raises(KeyError, match="open sleeve"):
        sleeves.expire(3)
    sleeves.check(0, 0)
    assert sleeves.by_decision[1].working_lots == 5


def test_execution_planner_sleeves_and_orders_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLEEVES_MAX", 3)
    monkeypatch.setattr(module, "ORDERS_MAX", 1)
    sleeves = opened(d1=1, d2=1)
    with pytest.raises(ValueError, match="at most 3"):
        sleeves.open(3, 0)
    sleeves.submit(1, {1: 1})
    with pytest.raises(ValueError, match="at most 1"):
        sleeves.submit(2, {2: 1})


def test_execution_planner_what_is_owned_is_never_sold_short() -> None:
    sleeves = Sleeves(TICK, LOT, long_only=True)
    with pytest.raises(ValueError, match="held short"):
        sleeves.open(1, 0, -1)
    sleeves.open(1, 0, 5)
    with pytest.raises(ValueError, match="held short"):
        sleeves.set_target(1, -1)
    sleeves.submit(1, {1: 5})
    sleeves.fill(1, 3, 3_000, 0, 0)
    sleeves.submit(2, {1: -2})
    with pytest.raises(ValueError, match="sell at most the 3 lots"):
        sleeves.submit(3, {1: -2})
    sleeves.submit(3, {1: -1})


def test_execution_planner_a_sleeve_closes_once_and_its_cash_is_its_profit() -> None:
    sleeves = opened(d1=2, d2=2)
    sleeves.submit(1, {1: 2})
    sleeves.fill(1, 2, 2_000, -2, 0)
    sleeves.expire(1)
    assert sleeves.closed(5) == [], "it holds something"
    sleeves.submit(2, {1: -2})
    sleeves.fill(2, 1, 1_100, -1, 0)
    assert sleeves.closed(6) == []
    sleeves.fill(2, 1, 1_100, -1, 0)
    sleeves.expire(2)
    closed = sleeves.closed(7)
    assert [(one.decision, one.cash, one.closed_ns, one.is_trade) for one in closed] == [(1, 196, 7, True), (2, 0, 7, False)]
    assert sleeves.closed(8) == [] and list(sleeves.by_decision) == [HOUSE]
    sleeves.check(0, 196)


def test_execution_planner_a_sleeve_may_go_to_its_size_and_back_in_steps() -> None:
    sleeves = opened(d1=10)
    sleeves.set_target(1, 0)
    assert sleeves.net() == {} and sleeves.closed(1) == [], "nothing is due yet"
    sleeves.set_target(1, 4)
    assert sleeves.net() == {1: 4} and sleeves.by_decision[1].committed_lots == 10
    sleeves.submit(1, sleeves.net())
    sleeves.fill(1, 4, 4_000, 0, 0)
    sleeves.expire(1)
    assert sleeves.net() == {1: -4}
    sleeves.set_target(1, 3)
    assert sleeves.net() == {1: -1} and sleeves.by_decision[1].committed_lots == 3


def test_execution_planner_a_sleeve_whose_orders_work_is_not_closed() -> None:
    sleeves = opened(d1=0)
    sleeves.submit(1, {1: 2})
    sleeves.submit(2, {1: -2})
    assert sleeves.by_decision[1].working_lots == 0 and sleeves.closed(1) == []
    assert (sleeves.end(1), sleeves.end(2)) == (2, -2)
    assert [one.decision for one in sleeves.closed(2)] == [1]


def test_execution_planner_the_house_takes_dust_for_its_value() -> None:
    sleeves = opened(d1=3)
    sleeves.submit(1, {1: 3})
    sleeves.fill(1, 3, 30_000_000, 0, 0)
    assert sleeves.move_to_house(1, MID) == 3
    assert [one.cash for one in sleeves.closed(1)] == [3 * MID * 500 - 30_000_000]
    assert sleeves.net() == {HOUSE: -3}, "it wants to be rid of it"
    assert sleeves.pnl(MID) == {HOUSE: 0}
    sleeves.check(3, -30_000_000)


def test_execution_planner_funding_leaves_its_rest_to_the_house() -> None:
    sleeves = opened(d1=1, d2=1, d3=-5)
    for decision in (1, 2):
        sleeves.submit(decision, {decision: 1})
        sleeves.fill(decision, 1, 0, 0, 0)
    assert sleeves.fund(Fraction(-4, 10)) == -1  # Of two lots; each alone pays less than half a unit.
    assert {one.decision: one.funding for one in sleeves.by_decision.values()} == {HOUSE: -1, 1: 0, 2: 0, 3: 0}
    sleeves.check(2, -1)
    sleeves.submit(3, {3: -5})
    sleeves.fill(3, 5, 0, 0, 0)
    assert sleeves.fund(Fraction(-27, 10)) == 8  # 8.1 of three lots short.
    assert {one.decision: one.cash for one in sleeves.by_decision.values()} == {HOUSE: -1, 1: -3, 2: -3, 3: 14}
    sleeves.check(-3, 7)


def test_execution_planner_open_profits_sum_to_that_of_the_symbol() -> None:
    sleeves = Sleeves(Step(1, 5), Step(1, 4))  # A lot at a half tick is worth .05 units.
    for decision in (1, 2, 3):
        sleeves.open(decision, 0, 7)
        sleeves.submit(decision, {decision: 7})
        sleeves.fill(decision, 7, 3, 0, 0)
    assert sleeves.pnl(9) == {HOUSE: 0, 1: 0, 2: 0, 3: 0}  # 3.15 each, 9.45 in all.
    assert sleeves.pnl(10) == {HOUSE: 0, 1: 1, 2: 0, 3: 0}  # 3.5 each, 10.5 in all, which is 10.


def test_execution_planner_finer_steps_change_counts_and_no_money() -> None:
    sleeves = opened(d1=5, d2=4, d3=-2)
    sleeves.cross(MID)
    sleeves.submit(1, {1: 2, 2: 2})
    sleeves.fill(1, 1, 10_000_000, -5, 0)
    before = sleeves.pnl(MID)
    sleeves.refine(5, 20)
    assert (sleeves.tick, sleeves.lot) == (Step(2, 3), Step(5, 5))
    assert sleeves.pnl(5 * MID) == before
    assert sleeves.orders == {1: {1: 20, 2: 40}}
    two = sleeves.by_decision[2]
    assert (two.size_lots, two.target_lots, two.lots, two.working_lots, two.residual_lots, two.crossed_lots) == (80, 80, 20, 40, 20, 20)
    sleeves.check(20, -10_000_005)
    sleeves.refine(1, 1)
    assert (sleeves.tick, sleeves.lot) == (Step(2, 3), Step(5, 5))
    for by in (0, 3):
        with pytest.raises(ValueError, match="a decimal number can name"):
            sleeves.refine(by, 1)


@pytest.mark.parametrize("field", ["lots", "cash", "working_lots"])
def test_execution_planner_a_unit_too_many_is_found(field: str) -> None:
    sleeves = opened(d1=5)
    sleeves.submit(1, {1: 5})
    sleeves.fill(1, 3, 300, 0, 0)
    sleeves.check(3, -300)
    setattr(sleeves.by_decision[1], field, getattr(sleeves.by_decision[1], field) + 1)
    with pytest.raises(AssertionError, match=r"\+1$" if field != "working_lots" else "orders have out"):
        sleeves.check(3, -300)


def test_execution_planner_sleeves_are_what_they_were_when_read_back() -> None:
    sleeves = opened(d2=5, d1=-1)
    sleeves.cross(MID)
    sleeves.submit(3, {2: 4})
    sleeves.fill(3, 1, 10**30, -1, 0)
    assert msgspec.json.decode(msgspec.json.encode(sleeves), type=Sleeves) == sleeves


def quoting(bid_lots: int = 5, ask_lots: int = 3) -> Sleeves:
    sleeves = Sleeves(TICK, LOT)
    sleeves.open_quote(1, 0, bid_lots, ask_lots)
    return sleeves


def test_execution_planner_a_sleeve_that_quotes_lacks_nothing_and_crosses_with_nobody() -> None:
    sleeves = quoting()
    sleeves.open(2, 0, -4)
    assert sleeves.cross(MID) is None and sleeves.net() == {2: -4}
    sleeves.submit(1, {1: 5})
    sleeves.submit(2, {1: -3})
    sleeve = sleeves.by_decision[1]
    assert sleeve.quoting and (sleeve.working_lots, sleeve.residual_lots) == (2, 0) and sleeves.has_orders(1)
    sleeves.fill(1, 2, 2_000, 0, 0)
    assert (sleeve.lots, sleeve.residual_lots, sleeve.may_hold(1), sleeve.may_hold(-1)) == (2, 0, 5, 3)
    sleeves.check(2, -2_000)


def test_execution_planner_a_quote_whose_sides_are_both_out_is_not_closed_before_they_have_come_home() -> None:
    sleeves = quoting(3, 3)
    sleeves.submit(1, {1: 3})
    sleeves.submit(2, {1: -3})
    sleeves.expire(1)
    sleeve = sleeves.by_decision[1]
    assert not sleeve.quoting and sleeve.working_lots == 0 and sleeves.closed(1) == [] and sleeves.has_orders(1)
    sleeves.end(1)
    sleeves.fill(2, 1, 1_000, 0, 0)
    sleeves.end(2)
    assert not sleeves.has_orders(1) and sleeves.net() == {1: 1} and sleeves.closed(2) == []


def test_execution_planner_what_a_quote_may_come_to_hold_counts_on_its_side() -> None:
    assert [quoting(5, 3).by_decision[1].may_hold(side) for side in (1, -1)] == [5, 3]
    assert [quoting(5, 3).by_decision[1].committed_lots, quoting(3, 5).by_decision[1].committed_lots] == [5, -5]
    target = opened(d1=4).by_decision[1]
    assert [target.may_hold(side) for side in (1, -1)] == [4, -4]


@pytest.mark.parametrize("lots", [(0, 0), (-1, 3), (3, -1)])
def test_execution_planner_a_quote_of_nothing_is_refused(lots: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected lots of 0 or more on both sides, and more on one"):
        quoting(*lots)


def test_execution_planner_a_quote_of_what_is_owned_has_no_ask_of_its_own() -> None:
    sleeves = Sleeves(TICK, LOT, long_only=True)
    with pytest.raises(ValueError, match="held short"):
        sleeves.open_quote(1, 0, 5, 3)
    assert sleeves.open_quote(1, 0, 5, 0).quoting


def test_execution_planner_finer_lots_are_quoted_in_finer_lots() -> None:
    sleeves = quoting()
    sleeves.refine(1, 10)
    sleeve = sleeves.by_decision[1]
    assert (sleeve.bid_lots, sleeve.ask_lots, sleeve.size_lots, sleeve.target_lots) == (50, 30, 50, 0)
