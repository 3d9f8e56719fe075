"""Outcomes by hand: what the model says of a size, rewards, and lines that sum exactly whatever was traded."""

import math
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.market import Step
from alphapack.domain.money import UNITS, worth_at_half_ticks
from alphapack.domain.trading import Decision, Quote, Target
from alphapack.models.deals import CostModel, Deal, Traded
from alphapack.models.outcomes import execution_line, lines, model_at, model_value, reward
from alphapack.models.sizing import Allowance, Sizing, size
from alphapack.models.sleeves import Sleeve

TICK, LOT = Step(1, 1), Step(1, 3)
"""A lot at a price of a tick: 10,000 units of money."""
COST = CostModel(half_spread_bps=2.0, k_bps=100.0, a=0.5, adv_lots=1e6, taker_fee_bps=5.0)
MID = 1_000_000
"""50,000.0 in half ticks; a lot is worth 50."""
LOT_VALUE = 50 * UNITS


def sizing(exposure: float = 1.0, **more: Any) -> Sizing:
    return size(
        **{
            "decision": 7,
            "ts_ns": 1,
            "symbol": "x:BTCUSDT",
            "exposure": exposure,
            "win_probability": 0.84,
            "horizon_s": 300,
            "sigma_har": 0.001,
            "sigma_garch": 0.0008,
            "har_weight": 0.5,
            "rule": "max",
            "equity": 100_000 * UNITS,
            "lot_value": LOT_VALUE,
            "lot": LOT,
            "sleeves_max": 5,
            "target_vol": 0.2,
            "kelly_fraction": 0.25,
            "kelly_cap": 2.0,
            "room": [("gross", 10_000 * UNITS), ("symbol", 20_000 * UNITS)],
            "size_factor": 1.0,
            "least_lots": 2,
            "probe": True,
            **more,
        }
    )


def deal(exposure: float = 1.0, quote: Quote | None = None, **more: Any) -> Deal:
    sized = sizing(exposure if quote is None else max(quote.bid_share, quote.ask_share))
    decision = Decision(7, 0, "x:BTCUSDT", "test", exposure, 0.5, 300, 0.84, {}, quote)
    allocated = worth_at_half_ticks(MID, abs(sized.lots), TICK, LOT)
    return Deal(decision, sized, 300, TICK, LOT, MID, allocated, COST, **more)


# What another exposure would have come to


def test_alpha_attribution_another_exposure_is_sized_by_the_same_numbers_and_limits() -> None:
    one = sizing(0.5)  # Of 246.7 lots; 10,000 are 200.
    assert one.lots == 123
    assert [one.lots_at(exposure) for exposure in (0.0, 0.25, 0.5, 0.8, 0.9, 1.0)] == [0, 61, 123, 197, 200, 200]
    assert [one.lots_at(exposure) for exposure in (0.004, 0.0081, 0.0122, 1e-300)] == [2, 2, 3, 2], "a probe where it is too small"
    silent = sizing(0.5, probe=False)
    assert [silent.lots_at(exposure) for exposure in (0.004, 0.0082)] == [0, 2]
    assert [sizing(0.5, size_factor=0.5).lots_at(exposure) for exposure in (0.5, 1.0)] == [61, 123]
    with pytest.raises(ValueError, match=r"expected exposure from -1 to 1, found 1\.5"):
        one.lots_at(1.5)


@given(
    st.floats(-1.0, 1.0),
    st.floats(-1.0, 1.0),
    st.floats(0.05, 0.95),
    st.floats(0.0, 1.0),
    st.integers(1, 300),
    st.integers(0, 20_000 * UNITS),
    st.booleans(),
)
def test_alpha_attribution_lots_at_the_sized_exposure_are_the_sized_lots_and_odd(
    exposure: float, other: float, p: float, factor: float, least: int, room: int, probe: bool
) -> None:
    one = sizing(exposure, win_probability=p, size_factor=factor, least_lots=least, room=[("gross", room)], probe=probe)
    assert one.lots_at(exposure) == one.lots and one.lots_at(-exposure) == -one.lots
    assert one.lots_at(other) == -one.lots_at(-other) and one.lots_at(0.0) == 0
    assert one.lots_at(other) == sizing(other, **{**given_of(one), "win_probability": p, "room": [("gross", room)]}).lots
    finer = one.refined(10)
    assert finer.lots == 10 * one.lots and finer.lots_at(other) == 10 * one.lots_at(other)


def given_of(one: Sizing) -> dict[str, Any]:
    kept: Allowance = one.allowance
    return {"size_factor": kept.factor, "least_lots": kept.least_lots, "probe": kept.probes}


# What the model says


def test_alpha_attribution_the_model_pays_spread_and_impact_both_ways() -> None:
    # 400 lots of 50 are 20,000; impact 100 sqrt(400 / 1e6) = 2 bps and half the spread 2 bps: 4 bps each way.
    assert COST.one_way_bps(400) == COST.one_way_bps(-400) == 4.0
    up = MID + 2_000  # 50,100.0: a gain of 40.
    paid = Fraction(4, 10_000) * (20_000 + 20_040) * UNITS
    assert model_value(400, MID, up, TICK, LOT, COST) == 40 * UNITS - paid
    assert model_value(-400, MID, up, TICK, LOT, COST) == -40 * UNITS - paid
    assert model_value(0, MID, up, TICK, LOT, COST) == 0
    finer = CostModel(2.0, 100.0, 0.5, 1e7, 5.0)
    assert model_value(4_000, 10 * MID, 10 * up, Step(1, 2), Step(1, 4), finer) == 40 * UNITS - paid


def test_alpha_attribution_the_modelled_impact_is_bounded() -> None:
    assert CostModel(1.0, 100.0, 0.5, 1e-9, 5.0).one_way_bps(10**15) == 1.0 + 100.0 * math.sqrt(1e3)
    assert CostModel(1.0, 0.0, 1.0, 1.0, 5.0).one_way_bps(10**15) == 1.0


# Rewards


def test_alpha_attribution_a_reward_by_hand() -> None:
    # 100 bought for 5,010, fee 2.505; 50 sold for 2,520, fee 1.26; at 50,500 the other 50 are worth 2,525.
    one = deal()
    held = Sleeve(7, 0, lots=50, filled_lots=150, cash=-501_000_000_000 + 252_000_000_000 - 376_500_000, fees=-376_500_000)
    found = reward(one, held, 1_010_000, 9)
    way_out = Fraction(2_525 * UNITS) * (Fraction(COST.one_way_bps(50)) + 5) / 10_000
    assert found.net == round(252_500_000_000 - 249_376_500_000 - way_out)
    assert (found.allocated, found.filled, found.ts_ns, found.mid_half_ticks) == (200 * LOT_VALUE, True, 9, 1_010_000)
    assert found.reward_bps == 1e4 * found.net / found.allocated


def test_alpha_attribution_what_was_crossed_is_charged_as_if_it_had_been_taken() -> None:
    one, value = deal(), 20 * LOT_VALUE
    crossed = Sleeve(7, 0, lots=20, crossed_lots=20, crossed=value, cash=-value)
    rate = (Fraction(COST.one_way_bps(20)) + 5) / 10_000
    assert reward(one, crossed, MID, 0).net == round(-2 * value * rate), "in, and the way out"
    gone = Sleeve(7, 0, lots=0, crossed_lots=40, crossed=2 * value)
    assert reward(one, gone, MID, 0).net == round(-2 * value * (Fraction(COST.one_way_bps(40)) + 5) / 10_000)
    nothing = reward(one, Sleeve(7, 0), MID, 0)
    assert (nothing.net, nothing.reward_bps, nothing.filled) == (0, 0.0, False)


# Lines


UNSURE = st.integers(-(10**9), 10**9)
TRADES = st.lists(st.tuples(st.integers(-300, 300).filter(bool), st.integers(-5_000, 5_000), UNSURE, UNSURE), max_size=12)


@given(
    st.floats(-1.0, 1.0),
    st.none() | st.tuples(st.floats(0.0, 1.0), st.floats(0.01, 1.0)),
    TRADES,
    TRADES,
    st.integers(-(10**9), 10**9),
    st.integers(-20_000, 20_000),
    st.integers(0, 24),
)
def test_alpha_attribution_lines_sum_to_the_profit_of_any_trade(
    exposure: float, shares: Any, before: Any, after: Any, funding: int, move: int, refined_after: int
) -> None:
    quote = None if shares is None else Quote(*shares)
    one = deal(exposure if quote is None else quote.bid_share - quote.ask_share, quote)
    sleeve, by, end = Sleeve(7, 0, funding=funding, cash=funding), 1, MID + move
    close = (-sum(lots for lots, *_ in (*before, *after)), 77, -5, 0)
    for n, (lots, off, fee, charge) in enumerate([*before, (0, 0, 0, 0), *after, close]):
        if n == len(before):
            one.horizon_mid = end * by
        if n == refined_after:
            one.refine(5, 2)
            by = 5
        if not lots:
            continue
        price = (end if n >= len(before) else MID) + off
        cash = -worth_at_half_ticks(price, lots, TICK, LOT) + n % 2  # A unit of rounding, as a share of a fill has it.
        one.note(lots * (2 if by > 1 else 1), cash)
        sleeve.cash += cash + fee + charge
        sleeve.fees += fee
        sleeve.impact += charge
    one.sleeve = sleeve
    assert one.entered.lots + one.left.lots == 0
    exact = model_value(one.model_lots, one.decision_mid, end * by, one.tick, one.lot, one.cost)
    assert sleeve.cash == exact + execution_line(one) + sleeve.fees
    told = lines(one)
    assert told.pnl == sleeve.cash == told.model + told.execution + told.fees and told.fees == sleeve.fees
    assert abs(told.model - exact) <= Fraction(1, 2) and told.model == model_at(one, one.proposal)


def test_alpha_attribution_execution_is_what_the_fills_were_worse_than_the_model() -> None:
    # 200 lots; 150 bought at 50,010 and sold at the horizon's 50,100 less 20; nothing was asked of the other 50.
    one = deal(horizon_mid=MID + 2_000, entered=Traded(150, -750_150_000_000), left=Traded(-150, 751_200_000_000))
    one.sleeve = Sleeve(7, 0, cash=1_050_000_000 - 700, fees=-600, impact=-100)
    modelled = 200 * 10_000 * Fraction(COST.one_way_bps(200)) / 10_000 * Fraction(2 * MID + 2_000, 2)
    late_and_early = -150 * 10 * 100_000 - 150 * 20 * 100_000
    missed = -50 * 100 * 100_000
    assert execution_line(one) == late_and_early + missed + modelled - 100
    assert lines(one).pnl == 1_050_000_000 - 700


def test_alpha_attribution_a_perfect_trade_leaves_nothing_to_execution() -> None:
    one = deal(horizon_mid=MID + 2_000)
    cost = [Fraction(COST.one_way_bps(200)) / 10_000 * worth_at_half_ticks(mid, 200, TICK, LOT) for mid in (MID, MID + 2_000)]
    for side, mid, paid in ((1, MID, cost[0]), (-1, MID + 2_000, cost[1])):
        phase = one.entered if side > 0 else one.left
        phase.lots, phase.cash = 200 * side, -side * worth_at_half_ticks(mid, 200, TICK, LOT) - round(paid)
    one.sleeve = Sleeve(7, 0, cash=one.entered.cash + one.left.cash)
    assert abs(execution_line(one)) <= 1


def test_alpha_attribution_the_model_of_what_is_owned_is_never_short() -> None:
    short = deal(-0.5, Quote(0.5, 1.0), long_only=True, horizon_mid=MID)
    assert model_at(short, Target(-0.5)) == 0 and short.lots_of(Target(0.5)) == 123
    assert short.model_lots == short.lots_of(Quote(0.5, 0.0)) == 123, "of a quote the bid alone"
    assert deal(-0.5, Quote(0.5, 1.0)).model_lots == 123 - 200


def test_alpha_attribution_a_deal_is_what_it_was_when_read_back() -> None:
    one = deal(0.25, Quote(0.75, 0.5, 3), horizon_mid=MID, entered=Traded(5, -(10**30)), sleeve=Sleeve(7, 0, lots=3))
    assert msgspec.json.decode(msgspec.json.encode(one), type=Deal) == one
    one.refine(5, 2)
    assert one.decision.quote == Quote(0.75, 0.5, 15) and (one.tick, one.lot) == (Step(2, 2), Step(5, 4))


@pytest.mark.parametrize(("lots", "model"), [(1, 3), (-1, -2)])
def test_alpha_attribution_halves_are_rounded_so_that_the_lines_still_sum(lots: int, model: int) -> None:
    # At this lot half a tick is worth half a unit: five of them are 2.5.
    one = deal(1.0, horizon_mid=MID + 5)
    one.tick, one.lot, one.cost = Step(1, 8), Step(1, 0), CostModel(0.0, 0.0, 1.0, 1.0, 0.0)
    one.decision = msgspec.structs.replace(one.decision, exposure=float(lots))
    one.sizing = msgspec.structs.replace(one.sizing, allowance=Allowance(1.0, 1.0, 1.0, 1, False))
    one.sleeve = Sleeve(7, 0)
    assert model_value(one.model_lots, MID, MID + 5, one.tick, one.lot, one.cost) == Fraction(5 * lots, 2)
    assert lines(one) == (0, model, -model, 0)
