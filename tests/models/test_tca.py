"""Costs by hand and as exact sums, both ways alike; markouts at their time and no other."""

import math
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alphapack.domain.market import NANOS_PER_S, Step
from alphapack.domain.money import UNITS, worth, worth_at_half_ticks
from alphapack.domain.trading import Fill
from alphapack.models import tca
from alphapack.models.sleeves import Share, Sleeves
from alphapack.models.tca import Analysis, Costs, LegFill, Markouts, analyse, combine

CENT, ONE = Step(1, 2), Step(1, 0)
DUST_TICK, DUST_LOT = Step(3, 9), Step(7, 4)
"""Half a tick of one lot is worth a small part of a unit of money: every value is rounded."""
COSTS = ("delay", "timing", "spread", "impact")


def units(amount: str) -> int:
    exact = Fraction(amount) * UNITS
    assert exact.denominator == 1
    return int(exact)


def fill(**more: Any) -> Fill:
    known: dict[str, Any] = {
        "id": 1, "order": 1, "symbol": "sim:A", "side": 1, "ticks": 10_000, "lots": 1, "maker": False, "cause": "swept", "exchange_ns": 0,
        "value": 1, "fee": 0, "impact": 0, "available_lots": 1, "mid": None, "best": None, "met_mid": None,
    }  # fmt: skip
    return Fill(**(known | more))


# A parent order by hand

TAKEN = LegFill(
    lots=400, price=20_010, best=20_008, mid=20_006, arrival_mid=20_004, value=units("40020"), fee=-units("20.01"), impact=-units("2")
)
MADE = LegFill(lots=300, price=20_010, best=20_010, mid=20_012, arrival_mid=20_012, value=units("30015"), fee=-units("6.003"), impact=0)


def bought(**more: Any) -> Analysis:
    known: dict[str, Any] = {"side": 1, "lots": 1_000, "decision_mid": 20_000, "fills": [TAKEN, MADE], "tick": CENT, "lot": ONE}
    return analyse(**(known | more))


def test_execution_planner_shortfall_of_a_purchase_by_hand() -> None:
    """1,000 at a mid of 100.00; 400 taken at 100.05, 300 made at 100.05, the rest never; the mid ends at 100.10."""
    made = bought(horizon_mid=20_020, market=(5_000.0, 5_000 * 10_004.5))
    costs = made.costs
    assert (costs.ordered, costs.filled) == (units("100000"), units("70000"))
    assert costs.delay == units("26")  # 400 x .02 + 300 x .06
    assert costs.timing == units("4")  # 400 x .01
    assert costs.spread == units("1")  # 400 x .01 - 300 x .01
    assert costs.impact == units("6")  # 400 x .01 and the charge of 2
    assert costs.own_impact == units("2")
    assert costs.slippage == units("37")
    assert costs.fees == units("26.013")
    assert costs.opportunity == units("30")  # 300 x .10
    paper = 1_000 * (Fraction("100.10") - 100)
    real = 700 * Fraction("100.10") - 40_020 - 30_015 - 2 - Fraction("26.013")
    assert costs.shortfall == (paper - real) * UNITS == units("93.013")
    assert costs.against_arrival == units("11")
    assert costs.against_vwap == units("5.5")  # 700 x .005 and the charge of 2
    assert costs.at_vwap == units("70031.5")
    assert (made.lots, made.average_price, made.market_vwap, costs.carried) == (700, 100.05, 100.045, 0)
    assert made.arrival_mid == float((400 * Fraction("100.02") + 300 * Fraction("100.06")) / 700)
    ordered, filled = costs.bps(), costs.bps("filled")
    assert ordered["shortfall"] == pytest.approx(9.3013, rel=1e-12)
    assert ordered["slippage"] == pytest.approx(3.7, rel=1e-12)
    assert filled["slippage"] == pytest.approx(37 / 7, rel=1e-12)
    assert ordered["vwap"] == filled["vwap"] == pytest.approx(1e4 * 5.5 / 70_031.5, rel=1e-12)


def test_execution_planner_shortfall_of_a_sale_by_hand() -> None:
    """10 at a mid of 50.005, sold by a taker at 49.99 with the mid unmoved since its order came: all that moved is delay, then spread."""
    sold = LegFill(lots=10, price=9_998, best=9_998, mid=9_999, arrival_mid=9_999, value=units("499.9"), fee=units("0.05"), impact=0)
    made = analyse(side=-1, lots=10, decision_mid=10_001, fills=[sold], tick=CENT, lot=ONE)
    costs = made.costs
    assert [getattr(costs, name) for name in COSTS] == [units("0.1"), 0, units("0.05"), 0]
    assert (costs.slippage, costs.opportunity, costs.fees, costs.shortfall) == (units("0.15"), 0, -units("0.05"), units("0.1"))
    assert (made.market_vwap, costs.at_vwap, costs.against_vwap, costs.bps()["vwap"]) == (None, 0, 0, None)


def test_execution_planner_costs_where_nothing_was_filled() -> None:
    waiting = bought(fills=[])
    assert (waiting.lots, waiting.average_price, waiting.arrival_mid) == (0, None, None)
    assert waiting.costs.slippage == waiting.costs.fees == waiting.costs.filled == 0
    assert waiting.costs.opportunity is None and waiting.costs.shortfall is None
    assert waiting.costs.bps()["shortfall"] is None and waiting.costs.bps()["slippage"] == 0.0
    assert set(waiting.costs.bps("filled").values()) == {None}
    missed = bought(fills=[], horizon_mid=19_990).costs
    assert missed.opportunity == missed.shortfall == -units("50")  # The price fell: not buying was a gain.


def test_execution_planner_costs_carry_the_last_price_that_is_known() -> None:
    unknown = msgspec.structs.replace(TAKEN, arrival_mid=None, mid=None, best=None)
    made = bought(fills=[unknown])
    assert [getattr(made.costs, name) for name in COSTS] == [0, 0, 0, units("22")]
    assert (made.costs.carried, made.arrival_mid) == (1, None)
    half = bought(fills=[msgspec.structs.replace(TAKEN, mid=None), MADE])
    assert [getattr(half.costs, name) for name in COSTS] == [units("26"), 0, units("5"), units("6")]
    assert (half.costs.carried, half.costs.slippage) == (1, bought().costs.slippage)


@pytest.mark.parametrize("market", [None, (0.0, 0.0), (-5.0, -1.0)])
def test_execution_planner_costs_have_no_vwap_without_trades(market: tuple[float, float] | None) -> None:
    made = bought(market=market)
    assert (made.market_vwap, made.costs.bps()["vwap"]) == (None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"side": 0},
        {"side": 2},
        {"lots": 0},
        {"lots": 699},
        {"decision_mid": 0},
        {"fills": [msgspec.structs.replace(TAKEN, lots=0)]},
        {"fills": [msgspec.structs.replace(TAKEN, price=0)]},
    ],
)
def test_execution_planner_costs_refuse_what_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^expected .*, found "):
        bought(**wrong)


# Parts of orders


def test_execution_planner_costs_take_a_sleeves_part_of_a_fill() -> None:
    sleeves = Sleeves(CENT, ONE)
    for decision, lots in ((1, 5), (2, 2)):
        sleeves.open(decision, 0, lots)
    sleeves.submit(9, {1: 5, 2: 2})
    whole = fill(ticks=10_001, lots=4, value=worth(10_001, 4, CENT, ONE), fee=-7, impact=-3, mid=20_001, best=10_001, met_mid=20_000)
    first, second = sleeves.fill(9, whole.lots, whole.value, whole.fee, whole.impact)
    parts = [LegFill.of(whole, share) for share in (first, second)]
    assert parts[0] == LegFill(3, 20_002, 20_002, 20_001, 20_000, -first.cash, first.fee, first.impact)
    assert [sum(getattr(part, name) for part in parts) for name in ("lots", "value", "fee", "impact")] == [4, whole.value, -7, -3]
    made = LegFill.of(msgspec.structs.replace(whole, maker=True, best=10_003), first)
    assert made.best == made.price == 20_002
    assert LegFill.of(fill(best=None), first).best is None


def test_execution_planner_costs_of_a_cross_are_delay_alone() -> None:
    sleeves = Sleeves(DUST_TICK, DUST_LOT)
    for decision, lots in ((1, 5), (2, -3), (3, -4)):
        sleeves.open(decision, 0, lots)
    cross = sleeves.cross(1_003)
    assert cross is not None
    for share in cross.shares:
        part = LegFill.crossed(share, cross.mid_half_ticks)
        side = 1 if share.lots > 0 else -1
        costs = analyse(side=side, lots=9, decision_mid=999, fills=[part], tick=DUST_TICK, lot=DUST_LOT).costs
        assert (costs.timing, costs.spread, costs.impact, costs.fees, costs.carried) == (0, 0, 0, 0, 0)
        assert costs.slippage == costs.delay == side * (abs(share.cash) - worth_at_half_ticks(999, part.lots, DUST_TICK, DUST_LOT))


# Exact sums

prices = st.integers(1, 10**6)
known_or_not = st.none() | prices


@st.composite
def parents(draw: st.DrawFn, tick: Step, lot: Step) -> dict[str, Any]:
    fills = []
    for _ in range(draw(st.integers(0, 6))):
        lots, price = draw(st.integers(1, 10**6)), draw(prices)
        value = worth_at_half_ticks(price, lots, tick, lot)
        money = draw(st.integers(-(10**9), 10**9)), draw(st.integers(-(10**9), 0))
        fills.append(LegFill(lots, price, draw(known_or_not), draw(known_or_not), draw(known_or_not), value, *money))
    return {
        "side": draw(st.sampled_from((1, -1))),
        "lots": sum(one.lots for one in fills) + draw(st.integers(0 if fills else 1, 10**6)),
        "decision_mid": draw(prices),
        "fills": fills,
        "tick": tick,
        "lot": lot,
        "horizon_mid": draw(prices),
        "market": draw(st.none() | st.tuples(st.floats(1, 1e12), st.floats(1, 1e15))),
    }


@given(parents(DUST_TICK, DUST_LOT))
def test_execution_planner_costs_sum_to_what_was_booked(parent: dict[str, Any]) -> None:
    costs, fills, side = analyse(**parent).costs, parent["fills"], parent["side"]
    paid = sum(side * one.value - one.impact for one in fills)
    assert costs.delay + costs.timing + costs.spread + costs.impact == costs.slippage == paid - side * costs.filled
    assert costs.slippage == costs.delay + costs.against_arrival
    assert costs.shortfall == costs.slippage + costs.opportunity + costs.fees  # type: ignore[operator]
    half_tick = Fraction(UNITS) * parent["tick"].size * parent["lot"].size / 2
    lots, left = parent["lots"], parent["lots"] - sum(one.lots for one in fills)
    paper = side * lots * (parent["horizon_mid"] - parent["decision_mid"]) * half_tick
    real = side * (lots - left) * parent["horizon_mid"] * half_tick - paid + sum(one.fee for one in fills)
    assert costs.shortfall is not None
    assert abs(costs.shortfall - (paper - real)) <= Fraction(len(fills) + 2, 2), "each value is rounded once"


@given(parents(CENT, ONE))
def test_execution_planner_costs_are_the_same_both_ways(parent: dict[str, Any]) -> None:
    """The market turned over around a price: who sold pays what who bought did."""
    around = 2 * 10**6

    def turned(price: int | None) -> int | None:
        return None if price is None else around - price

    fills = [
        msgspec.structs.replace(
            one,
            price=around - one.price,
            best=turned(one.best),
            mid=turned(one.mid),
            arrival_mid=turned(one.arrival_mid),
            value=worth_at_half_ticks(around - one.price, one.lots, CENT, ONE),
        )
        for one in parent["fills"]
    ]
    mids = {name: around - parent[name] for name in ("decision_mid", "horizon_mid")}
    one, other = analyse(**parent).costs, analyse(**(parent | mids | {"fills": fills, "side": -parent["side"]})).costs
    for name in (*COSTS, "own_impact", "fees", "opportunity", "slippage", "shortfall", "carried"):
        assert getattr(one, name) == getattr(other, name)


@given(parents(DUST_TICK, DUST_LOT), st.integers(1, 100), st.integers(1, 100))
def test_execution_planner_costs_are_the_same_in_finer_steps(parent: dict[str, Any], by_price: int, by_lot: int) -> None:
    tick, lot = Step(3 * 100, 11), Step(7 * 100, 6)
    coarse = parent | {"tick": Step(tick.units * by_price, tick.decimals), "lot": Step(lot.units * by_lot, lot.decimals)}
    finer = coarse | {
        "tick": tick,
        "lot": lot,
        "lots": parent["lots"] * by_lot,
        "decision_mid": parent["decision_mid"] * by_price,
        "horizon_mid": parent["horizon_mid"] * by_price,
        "fills": [one.refined(by_price, by_lot) for one in parent["fills"]],
        "market": None,
    }
    one, other = analyse(**(coarse | {"market": None})), analyse(**finer)
    assert one.costs == other.costs
    assert one.lots * by_lot == other.lots
    assert one.arrival_mid == other.arrival_mid and one.average_price == other.average_price


@given(st.lists(parents(DUST_TICK, DUST_LOT), min_size=1, max_size=5))
def test_execution_planner_costs_of_many_are_means_by_notional(many: list[dict[str, Any]]) -> None:
    # What is worth less than a unit of money has no notional to weigh it by.
    every = [costs for parent in many if (costs := analyse(**parent).costs).ordered]
    assume(every)
    whole = combine(every)
    assert whole.shortfall == sum(one.shortfall for one in every if one.shortfall is not None)
    for name, found in whole.bps().items():
        weights = [one.at_vwap if name == "vwap" else one.ordered for one in every]
        pairs = [(weight, one.bps()[name]) for weight, one in zip(weights, every, strict=True) if weight]
        size = sum(weight * abs(bps or 0.0) for weight, bps in pairs)
        wanted = math.fsum(weight * bps for weight, bps in pairs if bps is not None)
        assert found is None if not pairs else found == pytest.approx(wanted / sum(weights), rel=1e-9, abs=1e-9 * size / sum(weights))


def test_execution_planner_costs_of_many_are_unknown_where_one_is() -> None:
    known, unknown = bought(horizon_mid=20_020).costs, bought().costs
    both = combine([known, unknown])
    assert (both.opportunity, both.shortfall) == (None, None)
    assert both.slippage == 2 * known.slippage
    assert combine([]) == Costs(*[0] * len(Costs.__struct_fields__))


# Markouts


def hold(markouts: Markouts, number: int, at_s: float, **more: Any) -> bool:
    return markouts.note(fill(id=number, exchange_ns=round(at_s * NANOS_PER_S), **more))


def test_execution_planner_markouts_by_hand() -> None:
    markouts = Markouts()
    assert markouts.next_ns is None and markouts.due(10**18) == []
    hold(markouts, 7, 0.0, side=1, value=100)
    hold(markouts, 8, 0.5, side=-1, maker=True, value=100)
    hold(markouts, 9, 4.0, side=1, value=300)
    assert markouts.next_ns == NANOS_PER_S
    assert [(one.fill, one.horizon_s) for one in markouts.due(1 * NANOS_PER_S - 1)] == []
    assert [(one.due_ns / NANOS_PER_S, one.fill, one.horizon_s) for one in markouts.due(5 * NANOS_PER_S)] == [
        (1.0, 7, 1), (1.5, 8, 1), (5.0, 7, 5), (5.0, 9, 1),
    ]  # fmt: skip
    assert markouts.take(7, 1, 20_002) == pytest.approx(1.0, rel=1e-12)  # Bought at 100, the mid 100.01.
    assert markouts.take(8, 1, 20_002) == pytest.approx(-1.0, rel=1e-12)
    assert markouts.take(7, 5, None) is None
    assert markouts.take(9, 1, 19_999) == pytest.approx(-0.5, rel=1e-12)
    assert (markouts.takers[0].n, markouts.takers[0].missed, markouts.takers[1].missed) == (2, 0, 1)
    assert markouts.takers[0].bps == pytest.approx((100 * 1.0 - 300 * 0.5) / 400, rel=1e-12)
    assert markouts.makers[0].bps == pytest.approx(-1.0, rel=1e-12) and markouts.takers[1].bps is None
    assert markouts.next_ns == round(5.5 * NANOS_PER_S)
    for due in markouts.due(100 * NANOS_PER_S):
        markouts.take(due.fill, due.horizon_s, 20_000)
    assert (markouts.pending, markouts.next_ns) == ({}, None)


@pytest.mark.parametrize(("number", "horizon_s"), [(2, 1), (1, 5), (1, 60), (3, 1), (1, 2)])
def test_execution_planner_markouts_are_taken_in_turn(number: int, horizon_s: int) -> None:
    markouts = Markouts()
    for at in (1, 2):
        hold(markouts, at, 0.0)
    with pytest.raises(ValueError, match=r"^expected .*, found "):
        markouts.take(number, horizon_s, 20_000)
    assert markouts == msgspec.structs.replace(markouts, taken=[0, 0, 0])
    with pytest.raises(ValueError, match=r"^expected a fill at 0 ns or later, found one at -1"):
        markouts.note(fill(exchange_ns=-1))


def test_execution_planner_markouts_are_bounded() -> None:
    markouts = Markouts()
    assert all(hold(markouts, number, 0.0) for number in range(tca.PENDING_MAX))
    assert not hold(markouts, tca.PENDING_MAX, 0.0)
    assert (len(markouts.pending), markouts.left_out) == (tca.PENDING_MAX, 1)
    for horizon_s in tca.HORIZONS_S:
        markouts.take(0, horizon_s, 20_000)
    assert hold(markouts, tca.PENDING_MAX, 0.0)


def test_execution_planner_markouts_follow_finer_ticks() -> None:
    markouts = Markouts()
    hold(markouts, 1, 0.0)
    hold(markouts, 2, 0.0, symbol="sim:B")
    markouts.refine("sim:A", 10)
    assert markouts.take(1, 1, 200_020) == markouts.take(2, 1, 20_002) == pytest.approx(1.0, rel=1e-12)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.none() | st.integers(19_000, 21_000)), max_size=40), st.integers(0, 40))
def test_execution_planner_markouts_equal_a_plain_twin_and_survive_a_save(steps: list[tuple[int, bool, int | None]], cut: int) -> None:
    """Mids change once a second; fills come at whole seconds."""
    markouts, at, noted = Markouts(), 0, list[tuple[int, int, bool]]()
    mids: list[int | None] = []
    found: dict[tuple[int, int], float | None] = {}

    def live(until: int) -> None:
        for due in markouts.due(until * NANOS_PER_S):
            found[due.fill, due.horizon_s] = markouts.take(due.fill, due.horizon_s, mids[due.due_ns // NANOS_PER_S])

    for number, (wait, buys, mid) in enumerate(steps):
        mids.extend([mid] * max(1, wait))
        at += wait
        mids.extend([mid] * (at + 1 - len(mids)))
        live(at)
        hold(markouts, number, at, side=1 if buys else -1, maker=buys)
        noted.append((number, at, buys))
        if number == cut:
            markouts = msgspec.msgpack.decode(msgspec.msgpack.encode(markouts), type=Markouts)
    mids.extend([20_000] * 70)
    live(at + 60)
    assert list(found) and len(found) == 3 * len(noted) if noted else not found
    for number, at, buys in noted:
        for horizon_s in tca.HORIZONS_S:
            mid = mids[at + horizon_s]
            gain = None if mid is None else (1 if buys else -1) * 1e4 * (mid - 20_000) / 20_000
            assert found[number, horizon_s] == (None if gain is None else pytest.approx(gain, rel=1e-12))
    assert not markouts.pending
    assert sum(mean.n + mean.missed for mean in markouts.makers + markouts.takers) == 3 * len(noted)


def test_execution_planner_a_share_keeps_no_sign() -> None:
    assert LegFill.crossed(Share(4, -3, 90, 0, 0), 30) == LegFill(3, 30, 30, 30, 30, 90, 0, 0)
