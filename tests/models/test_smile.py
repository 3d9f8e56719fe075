"""Deltas, strikes and smiles against published numbers, plain bisection and recorded chains."""

import csv
import datetime as dt
import gzip
import math
from pathlib import Path
from statistics import NormalDist, median

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alphapack.models import smile
from alphapack.models.smile import Smile
from alphapack.models.svi import Svi

CONVENTIONS = ("forward", "spot", "premium_adjusted", "premium_adjusted_spot")
NORMAL = NormalDist()
WEEK = 7 / 365
SVI = Svi(0.004, 0.05, -0.25, 0.01, 0.12)
STRIKES = np.exp(np.linspace(-0.4, 0.4, 17))


def on(slice_: Svi, strikes: np.ndarray = STRIKES, t: float = 30 / 365, **others: object) -> Smile:
    """Return the smile through quotes taken from a slice."""
    return smile.fit(strikes, np.sqrt(slice_.total_variance(np.log(strikes)) / t), t, **others)


def slow_delta(x: float, w: float, role: int, adjusted: bool) -> float:
    d = -x / math.sqrt(w) + (-0.5 if adjusted else 0.5) * math.sqrt(w)
    return role * NORMAL.cdf(role * d) * (math.exp(x) if adjusted else 1.0)


def slow_price(forward: float, strike: float, vol: float, t: float, role: int) -> float:
    s = vol * math.sqrt(t)
    d1 = math.log(forward / strike) / s + s / 2
    return role * (forward * NORMAL.cdf(role * d1) - strike * NORMAL.cdf(role * (d1 - s)))


# Published numbers


def test_options_smile_two_quotes_a_week_out() -> None:
    found = smile.fit([0.9, 1.1], [0.6, 0.7], WEEK)
    assert (found.quality, found.points, found.svi, found.miss, found.butterfly_free) == ("sparse", 2, None, None, None)
    assert found.reason is None
    assert [found.k25c, found.k25p] == pytest.approx([1.0711797, 0.9466999], abs=1e-7)
    assert [found.atm, found.rr25, found.fly25] == pytest.approx([0.6564544, 0.0608897, 0.0007056], abs=1e-7)


def test_options_smile_castagna_mercurio_2006() -> None:
    foreign, t = 0.9945049, 94 / 365
    found = smile.from_quotes(0.0905, -0.005, 0.0013, t, 1.205 * foreign / 0.9902752, "spot", foreign)
    assert [found.k25p, found.k_atm, found.k25c] == pytest.approx([1.17330, 1.21142, 1.24874], abs=1e-5)
    assert [found.iv25p, found.atm, found.iv25c] == pytest.approx([0.0943, 0.0905, 0.0893], abs=1e-12)


FIRST, SECOND, THIRD, FOURTH = (
    (True, 1.421, 0.997306, 0.992266, 0.1180654, 0.15),
    (True, 122.121, 0.9695434, 0.9872347, 0.0887676, 0.67),
    (False, 3.4582, 0.99979, 0.9250616, 0.3199034, -0.821),
    (False, 103.00, 0.99482, 0.98508, 0.07247845, -0.25),
)
REISWICH = [
    (FIRST, "spot", 1.608080),
    (FIRST, "premium_adjusted_spot", 1.600545),
    (FIRST, "forward", 1.609029),
    (FIRST, "premium_adjusted", 1.601550),
    (SECOND, "spot", 119.8031),
    (SECOND, "premium_adjusted_spot", 117.7096),
    (SECOND, "forward", 120.0592),
    (SECOND, "premium_adjusted", 118.0532),
    (THIRD, "spot", 4.964924),
    (THIRD, "premium_adjusted_spot", 3.778327),
    (THIRD, "forward", 4.51896),
    (THIRD, "premium_adjusted", 3.65728),
    (FOURTH, "spot", 97.47),
    (FOURTH, "premium_adjusted_spot", 97.22),
]
"""Whether a call, spot, domestic and foreign discount factors, standard deviation and delta; convention; strike."""


@pytest.mark.parametrize(("market", "convention", "strike"), REISWICH)
def test_options_smile_reiswichs_table_of_deltas(market: tuple, convention: smile.Convention, strike: float) -> None:
    call, spot, domestic, foreign, sd, expected = market
    forward = spot * foreign / domestic
    assert smile.delta(strike, sd, 1.0, forward, call, convention, foreign)[0] == pytest.approx(expected, abs=2.5e-4)
    assert smile.strike_of_delta(expected, sd, 1.0, forward, call, convention, foreign) == pytest.approx(strike, abs=1e-2)


CLARK_FORWARD, CLARK_DISCOUNT = 1.3465 * math.exp(0.0294 - 0.0346), math.exp(-0.0346)


def test_options_smile_clarks_market_strangle_and_smile_strangle() -> None:
    market = (1.0, CLARK_FORWARD, "spot", CLARK_DISCOUNT)
    assert smile.strangle_strikes(0.1825, 0.0095, *market) == pytest.approx((1.2050, 1.5449), abs=5e-5)
    assert smile.atm_strike(0.1825, *market[:3]) == pytest.approx(1.3620, abs=5e-5)
    assert round(smile.smile_strangle(0.1825, -0.006, 0.0095, *market), 5) == 0.00944


def test_options_smile_a_smile_strangle_costs_what_the_market_strangle_costs(data: Path) -> None:
    years = {"1M": 1 / 12, "2M": 2 / 12, "3M": 0.25, "6M": 0.5, "1Y": 1.0, "2Y": 2.0}
    with (data / "options" / "fx_vol_quotes.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 7
    for row in rows:
        t, spot, domestic, foreign = years[row["tenor"]], *(float(row[name]) for name in ("spot", "r_domestic", "r_foreign"))
        atm, strangle, reversal = (float(row[f"{name}_pct"]) / 100 for name in ("atm_vol", "market_strangle_25d", "risk_reversal_25d"))
        market = (t, spot * math.exp((domestic - foreign) * t), "spot", math.exp(-foreign * t))
        fly = smile.smile_strangle(atm, reversal, strangle, *market)
        assert fly == pytest.approx(strangle, abs=3e-4)
        pillars = smile.from_quotes(atm, reversal, fly, *market)
        nodes = np.log([pillars.k25p, pillars.k_atm, pillars.k25c])
        parabola = np.polynomial.Polynomial.fit(nodes, [pillars.iv25p, pillars.atm, pillars.iv25c], 2)
        strikes = smile.strangle_strikes(atm, strangle, *market)
        on_smile = [slow_price(market[1], k, float(parabola(math.log(k))), t, role) for k, role in zip(strikes, (-1, 1), strict=True)]
        quoted = [slow_price(market[1], k, atm + strangle, t, role) for k, role in zip(strikes, (-1, 1), strict=True)]
        assert sum(on_smile) == pytest.approx(sum(quoted), rel=1e-11)


def test_options_smile_without_a_risk_reversal_both_strangles_are_one() -> None:
    assert smile.smile_strangle(0.1, 0.0, 0.002, 0.5) == pytest.approx(0.002, abs=1e-15)


def test_options_smile_with_a_large_risk_reversal_the_strangles_differ_much() -> None:
    assert smile.smile_strangle(0.11, -0.05, 0.00175, 1.0) > 0.004


def test_options_smile_quotes_that_no_smile_explains_are_refused() -> None:
    with pytest.raises(ValueError, match="expected quotes that some smile explains, found atm"):
        smile.smile_strangle(0.1, 0.5, 0.001, 1.0)
    # Volatilities so high that the put's strike lies above the straddle's.
    with pytest.raises(ValueError, match="expected quotes that some smile explains, found atm"):
        smile.smile_strangle(0.62, -1.45, 0.51, 1.0)


# Deltas and strikes at one volatility


@given(
    st.sampled_from(CONVENTIONS),
    st.booleans(),
    st.floats(-5.0, 5.0),
    st.floats(1e-3, 2.5),
    st.floats(0.01, 3.0),
    st.floats(0.5, 1.5),
    st.floats(1e-3, 1e6),
)
def test_options_smile_a_strike_is_found_again_from_its_delta(
    convention: smile.Convention, call: bool, sds: float, vol: float, t: float, discount: float, forward: float
) -> None:
    s = vol * math.sqrt(t)
    strike = forward * math.exp(sds * s)
    if call and convention.startswith("premium"):
        # Below the greatest delta is the other strike that has it.
        d2 = -sds - s / 2
        assume(math.exp(-d2 * d2 / 2) / math.sqrt(2 * math.pi) < s * NORMAL.cdf(d2))
    delta = float(smile.delta(strike, vol, t, forward, call, convention, discount)[0])
    found = smile.strike_of_delta(delta, vol, t, forward, call, convention, discount)
    assert smile.delta(found, vol, t, forward, call, convention, discount)[0] == pytest.approx(delta, rel=1e-9, abs=1e-15)
    undiscounted = abs(delta) / (discount if convention.endswith("spot") else 1.0)
    if 1e-6 < undiscounted < 1 - 1e-6 and not (call and convention.startswith("premium")):
        assert math.log(found / strike) == pytest.approx(0.0, abs=1e-9 * s)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_options_smile_a_straddle_at_the_atm_strike_has_no_delta(convention: smile.Convention) -> None:
    strike = smile.atm_strike(0.8, 0.7, 250.0, convention)
    deltas = smile.delta(strike, 0.8, 0.7, 250.0, [True, False], convention, 0.9)
    assert deltas[0] > 0.0
    assert deltas.sum() == pytest.approx(0.0, abs=1e-15)


def test_options_smile_deltas_are_broadcast() -> None:
    found = smile.delta([90.0, 100.0, 120.0], 0.5, 0.5, 100.0, [True, False, True])
    expected = [slow_delta(math.log(k / 100.0), 0.125, role, False) for k, role in ((90.0, 1), (100.0, -1), (120.0, 1))]
    assert found == pytest.approx(expected, rel=1e-12)
    assert smile.delta(100.0, [0.1, 0.2], 0.5, 100.0).shape == (2,)


def test_options_smile_a_premium_adjusted_delta_is_what_is_left_after_the_premium_in_coin() -> None:
    for role in (1, -1):
        for strike in (40_000.0, 66_000.0, 90_000.0):
            plain = smile.delta(strike, 0.7, 0.3, 66_000.0, role == 1)[0]
            left = plain - slow_price(66_000.0, strike, 0.7, 0.3, role) / 66_000.0
            assert smile.delta(strike, 0.7, 0.3, 66_000.0, role == 1, "premium_adjusted")[0] == pytest.approx(left, abs=1e-14)


def test_options_smile_a_premium_adjusted_call_has_a_greatest_delta_and_the_strike_is_above_it() -> None:
    vol, t = 0.9, 1.0
    grid = np.exp(np.linspace(-4.0, 2.0, 600_001))
    deltas = smile.delta(grid, vol, t, 1.0, True, "premium_adjusted")
    top = int(deltas.argmax())
    just_below = float(deltas[top]) * (1 - 1e-9)
    found = smile.strike_of_delta(just_below, vol, t, 1.0, True, "premium_adjusted")
    assert grid[top] < found < grid[top] * 1.001
    with pytest.raises(ValueError, match=rf"premium_adjusted delta of a call above \S+ and up to {deltas[top]:.5f}\d* in size, found"):
        smile.strike_of_delta(float(deltas[top]) * (1 + 1e-9), vol, t, 1.0, True, "premium_adjusted")


def test_options_smile_the_sign_of_a_puts_delta_may_be_left_out() -> None:
    assert smile.strike_of_delta(0.25, 0.5, 1.0, call=False) == smile.strike_of_delta(-0.25, 0.5, 1.0, call=False)
    found = on(SVI)
    assert found.strike_of(0.25, False) == found.strike_of(-0.25, False) == found.k25p


@pytest.mark.parametrize("delta", [0.0, math.nan, math.inf, -0.25, 1.0, 1.5])
def test_options_smile_a_delta_that_no_call_has_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match=r"expected .* delta .*, found"):
        smile.strike_of_delta(delta, 0.5, 1.0)
    with pytest.raises(ValueError, match=r"expected .* delta .*, found"):
        on(SVI).strike_of(delta, True)


# Smiles


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_options_smile_pillars_are_those_of_plain_bisection(convention: smile.Convention) -> None:
    t, discount = 0.5, 0.97
    found = on(SVI, t=t, delta=convention, discount_foreign=discount)
    adjusted, factor = convention.startswith("premium"), discount if convention.endswith("spot") else 1.0
    for role, strike, vol in ((1, found.k25c, found.iv25c), (-1, found.k25p, found.iv25p)):
        inner, outer = 0.0, 1.0 * role
        for _ in range(60):
            x = (inner + outer) / 2
            w = float(SVI.total_variance(np.array([x]))[0])
            inner, outer = (x, outer) if abs(slow_delta(x, w, role, adjusted)) * factor > 0.25 else (inner, x)
        assert strike == pytest.approx(math.exp(inner), rel=1e-7)
        assert vol == pytest.approx(math.sqrt(float(SVI.total_variance(np.array([inner]))[0]) / t), rel=1e-7)
    x = 0.0
    for _ in range(100):
        x = (-0.5 if adjusted else 0.5) * float(SVI.total_variance(np.array([x]))[0])
    assert found.k_atm == pytest.approx(math.exp(x), rel=1e-7)
    assert found.rr25 == found.iv25c - found.iv25p
    assert found.fly25 == pytest.approx((found.iv25c + found.iv25p) / 2 - found.atm, abs=1e-15)


@pytest.mark.parametrize("points", [2, 3, 4])
def test_options_smile_few_quotes_are_joined_in_variance_and_flat_beyond(points: int) -> None:
    strikes, ivs = np.array([80.0, 95.0, 110.0, 130.0])[:points], np.array([0.9, 0.7, 0.65, 0.8])[:points]
    found = smile.fit(strikes, ivs, 0.25, 100.0)
    assert (found.quality, found.points) == ("sparse", points)
    x = np.linspace(-0.5, 0.5, 41)
    assert found.total_variance(x) == pytest.approx(np.interp(x, np.log(strikes / 100.0), ivs**2 * 0.25), rel=1e-13)
    assert found.vol(strikes) == pytest.approx(ivs, rel=1e-13)
    assert found.vol([1.0, 1e4]) == pytest.approx([ivs[0], ivs[-1]], rel=1e-13)


def test_options_smile_one_quote_tells_the_money_and_nothing_else() -> None:
    found = smile.fit(110.0, 0.6, WEEK, 100.0)
    assert (found.quality, found.points, found.atm) == ("atm", 1, 0.6)
    assert found.reason == "one strike has no slope"
    others = ("rr25", "fly25", "iv25c", "iv25p", "k25c", "k25p", "k_atm", "svi", "butterfly_free")
    assert [getattr(found, name) for name in others] == [None] * len(others)
    assert found.vol([50.0, 200.0]) == pytest.approx([0.6, 0.6], rel=1e-14)
    assert found.strike_of(0.25, True) == pytest.approx(smile.strike_of_delta(0.25, 0.6, WEEK, 100.0), rel=1e-12)


def test_options_smile_qualities_say_what_the_quotes_are_worth() -> None:
    full = on(SVI)
    assert (full.quality, full.butterfly_free, full.reason) == ("full", True, None)
    assert full.miss is not None and full.miss < 1e-6
    assert full.vol(STRIKES) == pytest.approx(np.sqrt(SVI.total_variance(np.log(STRIKES)) * 365 / 30), rel=1e-6)
    narrow = on(SVI, np.exp(np.linspace(-0.4, 0.01, 9)))
    assert (narrow.quality, narrow.svi is None) == ("extrapolated", False)
    assert narrow.k25c is not None and narrow.k25c > math.exp(0.01)
    assert on(SVI, np.exp(np.linspace(-0.01, 0.4, 9))).quality == "extrapolated"
    saw = smile.fit(STRIKES, np.where(np.arange(17) % 2 == 0, 0.6, 0.9), 30 / 365)
    assert (saw.quality, saw.svi, saw.butterfly_free) == ("unfit", None, None)
    assert saw.miss is not None and saw.miss > 0.05
    assert saw.vol(STRIKES) == pytest.approx(np.where(np.arange(17) % 2 == 0, 0.6, 0.9), rel=1e-12)
    assert smile.fit(STRIKES[6:11], np.full(5, 0.5), 30 / 365).quality in ("full", "extrapolated")


def test_options_smile_a_miss_is_told_by_the_greater_of_two_tolerances() -> None:
    # A smile with a tooth: SVI misses it by a part of the tooth's height, in points of volatility at any level.
    def toothed(level: float, height: float) -> Smile:
        return smile.fit(STRIKES, level + height * (np.arange(17) % 2), 30 / 365, weights=np.ones(17))

    small, large = toothed(0.05, 0.008), toothed(0.05, 0.012)
    assert (small.quality, large.quality) == ("full", "unfit")
    assert small.miss is not None and 0.03 * 0.054 < small.miss < 0.005 < (large.miss or 0.0)
    small, large = toothed(1.0, 0.05), toothed(1.0, 0.08)
    assert (small.quality, large.quality) == ("full", "unfit")
    assert small.miss is not None and 0.005 < small.miss < 0.03 < (large.miss or 0.0)


@given(st.floats(0.05, 3.0), st.floats(0.01, 2.0), st.integers(2, 9), st.sampled_from(("forward", "premium_adjusted")))
def test_options_smile_a_flat_symmetric_smile_has_neither_slope_nor_bend(
    vol: float, t: float, points: int, delta: smile.Convention
) -> None:
    assume(vol * math.sqrt(t) < 1.2)
    strikes = np.exp(np.linspace(-0.5, 0.5, points))
    found = smile.fit(strikes, np.full(points, vol), t, delta=delta)
    assert (found.rr25, found.fly25, found.atm) == pytest.approx((0.0, 0.0, vol), abs=1e-7)
    assert found.k_atm == pytest.approx(smile.atm_strike(vol, t, 1.0, delta), rel=1e-7)


@given(st.lists(st.floats(0.2, 1.2), min_size=2, max_size=4, unique=True), st.floats(1e-3, 0.2))
def test_options_smile_a_mirrored_smile_has_the_other_sign(ivs: list[float], t: float) -> None:
    assume(max(ivs) - min(ivs) > 1e-3)
    rising, x = sorted(ivs), np.linspace(-0.6, 0.6, len(ivs))
    up, down = smile.fit(np.exp(x), rising, t), smile.fit(np.exp(-x), rising, t)
    assert up.rr25 is not None and down.rr25 is not None
    assert up.rr25 > 0.0 > down.rr25
    # But for the drift of half a variance the two are mirror images.
    tiny = 1e-8
    up, down = smile.fit(np.exp(x), rising, tiny), smile.fit(np.exp(-x), rising, tiny)
    assert up.rr25 == pytest.approx(-(down.rr25 or 0.0), rel=2e-3)


@given(st.floats(1e-6, 1e6), st.sampled_from(CONVENTIONS))
def test_options_smile_prices_in_another_unit_change_strikes_alone(unit: float, convention: smile.Convention) -> None:
    one = on(SVI, delta=convention, discount_foreign=0.95)
    other = smile.fit(STRIKES * unit, one.vol(STRIKES), one.t, unit, convention, 0.95)
    assert (other.atm, other.rr25, other.fly25) == pytest.approx((one.atm, one.rr25, one.fly25), abs=1e-7)
    assert other.k25c == pytest.approx((one.k25c or 0.0) * unit, rel=1e-7)
    exact = smile.fit(STRIKES * 1024.0, one.vol(STRIKES), one.t, 1024.0, convention, 0.95)
    again = smile.fit(STRIKES, one.vol(STRIKES), one.t, 1.0, convention, 0.95)
    assert (exact.atm, exact.rr25, exact.fly25) == (again.atm, again.rr25, again.fly25)


@given(st.permutations(range(17)))
def test_options_smile_quotes_may_come_in_any_order(order: list[int]) -> None:
    ivs = np.sqrt(SVI.total_variance(np.log(STRIKES)) / WEEK) + 0.01 * np.cos(np.arange(17.0))
    weights = 1.0 + np.arange(17.0)
    assert smile.fit(STRIKES[order], ivs[order], WEEK, weights=weights[order]) == smile.fit(STRIKES, ivs, WEEK, weights=weights)


def test_options_smile_weights_say_which_errors_count() -> None:
    ivs = np.sqrt(SVI.total_variance(np.log(STRIKES)) / WEEK)
    ivs[3] += 0.03
    heavy = np.where(np.arange(17) == 3, 1e6, 1.0)
    errors = [abs(smile.fit(STRIKES, ivs, WEEK, weights=one).vol(STRIKES[3])[0] - ivs[3]) for one in (np.ones(17), heavy, 7.0 * heavy)]
    assert errors[1] < errors[0] / 100
    assert errors[2] == pytest.approx(errors[1], abs=1e-6)
    # By default what hardly moves the price hardly counts.
    wing = np.sqrt(SVI.total_variance(np.log(STRIKES)) / WEEK)
    wing[0] += 0.3
    assert smile.fit(STRIKES, wing, WEEK).quality == "full"
    assert smile.fit(STRIKES, wing, WEEK, weights=np.ones(17)).quality == "unfit"


def test_options_smile_several_strikes_may_have_a_delta_and_the_nearest_is_taken() -> None:
    found = smile.fit(np.exp([0.0, 0.1, 0.11, 0.3]), [0.1, 0.1, 0.63, 0.63], 1.0)
    near = found.strike_of(0.25, True)
    assert 1.0 < near < math.exp(0.1)
    assert near == found.k25c == pytest.approx(smile.strike_of_delta(0.25, 0.1, 1.0), rel=1e-12)
    far = smile.strike_of_delta(0.25, 0.63, 1.0)
    assert smile.delta(far, found.vol(far), 1.0)[0] == pytest.approx(0.25, abs=1e-12)
    assert far > near


def test_options_smile_a_pillar_that_is_not_there_is_none_and_told() -> None:
    found = smile.fit([0.5, 2.0], [1.5, 1.5], 1.0, delta="premium_adjusted")
    assert (found.k25c, found.iv25c, found.rr25, found.fly25, found.quality) == (None, None, None, None, "sparse")
    assert found.atm == pytest.approx(1.5)
    assert found.reason is not None
    assert found.reason.endswith(" to 0.2309 in size")
    assert found.reason.startswith("no call of 25 delta: within 12 standard deviations of the forward they go from ")
    with pytest.raises(ValueError, match=r"expected a delta that the smile has, found 0.25: within"):
        found.strike_of(0.25, True)
    # From five strikes on such a smile is not called full.
    assert smile.fit(STRIKES, np.full(17, 1.5), 1.0, delta="premium_adjusted").quality == "extrapolated"


@settings(max_examples=60)
@given(
    st.dictionaries(st.floats(0.05, 20.0), st.floats(0.01, 6.0), min_size=1, max_size=12),
    st.floats(1e-3, 3.0),
    st.sampled_from(CONVENTIONS),
)
def test_options_smile_no_number_is_ever_nan(quotes: dict[float, float], t: float, convention: smile.Convention) -> None:
    assume(max(quotes.values()) * math.sqrt(t) < 10.0)
    found = smile.fit(list(quotes), list(quotes.values()), t, delta=convention)
    numbers = [getattr(found, name) for name in ("atm", "rr25", "fly25", "iv25c", "iv25p", "k25c", "k25p", "k_atm")]
    assert all(one is None or math.isfinite(one) for one in numbers)
    assert (None in numbers) == (found.reason is not None)
    assert np.isfinite(found.total_variance(np.linspace(-3, 3, 7))).all()
    if found.iv25c is not None:
        size = smile.delta(found.k25c, found.iv25c, t, 1.0, True, convention)[0]
        assert size == pytest.approx(0.25, abs=1e-6)


def test_options_smile_a_smile_is_a_value() -> None:
    for found in (on(SVI), smile.fit([0.9, 1.1], [0.6, 0.7], WEEK), smile.fit(1.0, 0.5, WEEK)):
        assert msgspec.json.decode(msgspec.json.encode(found), type=Smile) == found
        assert hash(found) == hash(msgspec.structs.replace(found))


# Recorded chains


def test_options_smile_a_recorded_chain(data: Path) -> None:
    """Deribit's, of which it publishes deltas too; 25-delta numbers interpolated in those are -.130 and .022 at an ATM of .563."""
    with gzip.open(data / "options" / "deribit_chain_full_20260206T093516Z.csv.gz", "rt") as lines:
        rows = [row for row in csv.DictReader(lines) if row["underlying_name"] == "BTC-27MAR26" and float(row["implied_volatility"]) > 0.0]
    forward, t = median(float(row["underlying"]) for row in rows), float(rows[0]["time_to_maturity"])
    taken = dt.datetime.fromisoformat(rows[0]["timestamp"])
    left = dt.datetime.fromisoformat(rows[0]["expiry_datetime"]) - taken
    assert t == pytest.approx(left.total_seconds() / 365 / 86_400, rel=1e-3)
    vols = {float(row["strike"]): float(row["implied_volatility"]) for row in rows}
    found = smile.fit(list(vols), list(vols.values()), t, forward)
    assert (found.quality, found.reason) == ("full", None)
    assert found.miss is not None and found.miss < 0.005
    assert (found.atm, found.rr25, found.fly25) == pytest.approx((0.563, -0.130, 0.022), abs=0.005)
    columns = {name: [float(row[name]) for row in rows] for name in ("strike", "implied_volatility", "delta", "underlying")}
    calls = [row["option_type"] == "call" for row in rows]
    own = smile.delta(np.divide(columns["strike"], columns["underlying"]), columns["implied_volatility"], t, call=calls)
    assert np.median(np.abs(own - columns["delta"])) < 5e-4
    assert np.abs(own - columns["delta"]).max() < 0.01


# Bad input

STRIKE, IV = [90.0, 100.0, 110.0], [0.6, 0.5, 0.55]
BAD = [
    (dict(strike=[90.0, math.nan, 110.0]), r"expected strikes from 1e-50 to 1e\+50, found nan"),
    (dict(strike=[90.0, 0.0, 110.0]), "expected strikes .* found 0.0"),
    (dict(strike=[90.0, -1.0, 110.0]), "expected strikes .* found -1.0"),
    (dict(strike=[90.0, math.inf, 110.0]), "expected strikes .* found inf"),
    (dict(strike=[90.0, 110.0, 110.0]), "expected every strike once, .* found 110.0 again"),
    (dict(strike=[[90.0, 100.0, 110.0]]), r"expected strikes in one dimension, found shape \(1, 3\)"),
    (dict(strike=[90.0, 100.0]), "expected 1 to 4096 strikes and as many volatilities, found 2 and 3"),
    (dict(strike=[], iv=[]), "expected 1 to 4096 strikes and as many volatilities, found 0 and 0"),
    (dict(strike=np.arange(1.0, 4098.0), iv=np.ones(4097)), "expected 1 to 4096 strikes .* found 4097"),
    (dict(iv=[0.6, math.nan, 0.55]), "expected volatilities .* found nan"),
    (dict(iv=[0.6, 0.0, 0.55]), "expected volatilities .* found 0.0"),
    (dict(iv=[0.6, -0.5, 0.55]), "expected volatilities .* found -0.5"),
    (dict(iv=[0.6, 60.0, 0.55], t=1.0), "expected volatilities from 1e-08 to 10, found 60.0"),
    (dict(t=0.0), "expected t, in years, from .* found 0.0"),
    (dict(t=-1.0), "expected t, in years, .* found -1.0"),
    (dict(t=math.nan), "expected t, in years, .* found nan"),
    (dict(forward=0.0), "expected a forward .* found 0.0"),
    (dict(forward=-5.0), "expected a forward .* found -5.0"),
    (dict(forward=math.nan), "expected a forward .* found nan"),
    (dict(delta="sticky"), "expected a delta convention of forward, spot, premium_adjusted, premium_adjusted_spot, found 'sticky'"),
    (dict(discount_foreign=0.0), "expected a foreign discount factor above 0 and up to 2, found 0.0"),
    (dict(discount_foreign=2.1), "expected a foreign discount factor .* found 2.1"),
    (dict(discount_foreign=math.nan), "expected a foreign discount factor .* found nan"),
    (dict(weights=[1.0, 2.0]), "expected 3 weights, one a strike, found 2"),
    (dict(weights=[1.0, 0.0, 1.0]), "expected weights .* found 0.0"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_options_smile_bad_input_is_refused_with_what_was_expected(changed: dict, message: str) -> None:
    good = dict(strike=STRIKE, iv=IV, t=0.1, forward=100.0)
    assert smile.fit(**good).quality == "sparse"
    with pytest.raises(ValueError, match=message):
        smile.fit(**good | changed)


def test_options_smile_bad_arguments_of_deltas_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected strikes .* found -1.0"):
        smile.delta(-1.0, 0.5, 1.0)
    with pytest.raises(ValueError, match=r"expected volatilities .* found nan"):
        smile.delta(1.0, math.nan, 1.0)
    with pytest.raises(ValueError, match=r"expected calls in one dimension, found shape \(2, 1\)"):
        smile.delta(1.0, 0.5, 1.0, call=[[True], [False]])
    with pytest.raises(ValueError, match=r"expected volatilities .* found 0.0"):
        smile.strike_of_delta(0.25, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"expected a forward .* found 0.0"):
        smile.atm_strike(0.5, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"expected volatilities .* found -0.125"):
        smile.from_quotes(0.25, 0.75, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"expected log-moneynesses .* found nan"):
        on(SVI).total_variance([math.nan])
    with pytest.raises(ValueError, match=r"expected strikes .* found 0.0"):
        on(SVI).vol([0.0])


def test_options_smile_that_dips_between_two_quotes_is_read_linearly() -> None:
    """Hours before an expiry SVI may meet every quote and dip where none is."""
    strikes = np.array([86_000.0, 87_000.0, 88_000.0, 89_000.0, 90_000.0, 91_000.0, 92_000.0])
    forward, t = 89_540.0, 0.0006
    dip = Svi(1e-8, 0.0052, -0.05, math.log(89_560.0 / forward), 1e-4)
    ivs = np.sqrt(dip.total_variance(np.log(strikes / forward)) / t)
    made = smile.fit(strikes, ivs, t, forward)
    at = strikes.searchsorted(made.k_atm)
    assert made.quality == "unfit" and made.svi is None
    assert made.atm is not None and min(ivs[at - 1 : at + 1]) <= made.atm <= max(ivs[at - 1 : at + 1])


def test_options_smile_roots_around_a_kink_are_found() -> None:
    x, vols, t = np.array([0.0367, 0.0609, 0.2936]), np.array([3.23, 0.51, 3.46]), 0.01
    made = smile.fit(np.exp(x), vols, t)
    assert made.k25c is not None
    grid = np.linspace(0.0, 1.5, 2_000_001)
    sizes = smile.delta(np.exp(grid), np.sqrt(made.total_variance(grid) / t), t)
    first = grid[1:][(sizes[:-1] >= 0.25) & (sizes[1:] < 0.25)][0]
    assert math.log(made.k25c) == pytest.approx(first, abs=2e-6)


@pytest.mark.parametrize("number", [np.float64, np.float32, int])
def test_options_smile_of_numpys_scalars_is_of_plain_numbers(number: type) -> None:
    made = smile.fit([0.9, 1.0, 1.1], [0.6, 0.5, 0.7], number(1), number(1))
    assert all(
        type(value) in (float, int, str, tuple, bool, type(None)) for value in msgspec.structs.astuple(made) if value is not made.svi
    )
    assert msgspec.json.decode(msgspec.json.encode(made))["k25c"] == made.k25c
    with pytest.raises(ValueError, match="expected log-moneynesses"):
        made.total_variance([math.inf])
