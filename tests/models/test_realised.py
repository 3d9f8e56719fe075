"""Realised measures: by hand, against loops that follow the formulas, and on simulated returns with and without a jump."""

import math
import re
import statistics
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.arrays import Float64Array1D
from alphapack.models import realised

Measure = Callable[[Float64Array1D], float]
VARIANCES: tuple[Measure, ...] = (realised.variance, realised.subsampled, realised.bipower, realised.median_variance)
QUARTICITIES: tuple[Measure, ...] = (realised.quarticity, realised.tripower_quarticity, realised.median_quarticity)
RETURNS = st.lists(st.floats(-1.0, 1.0), min_size=9, max_size=40)


@cache
def median_moment(power: int) -> float:
    """Return the mean power of the median of three absolute standard normals, by Simpson's rule over its density ``6 F (1 - F) f``."""
    x = np.linspace(0.0, 12.0, 20_001)
    weights = np.where(np.arange(len(x)) % 2, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    below = np.array([math.erf(one / math.sqrt(2.0)) for one in x])
    density = 6.0 * below * (1.0 - below) * math.sqrt(2.0 / math.pi) * np.exp(-x * x / 2.0)
    return float(np.sum(weights * x**power * density)) * (x[1] - x[0]) / 3.0


def loops(r: list[float], every: int) -> dict[Measure, float]:
    """Return every measure as its formula has it, term by term."""
    n = len(r)
    triples = [sorted(abs(one) for one in r[i - 1 : i + 2]) for i in range(1, n - 1)]
    grids = []
    for offset in range(every):
        sums = [sum(r[i : i + every]) for i in range(offset, n - every + 1, every)]
        grids.append(sum(one * one for one in sums) * n / (every * len(sums)))
    mu = 2.0 ** (2.0 / 3.0) * math.gamma(7.0 / 6.0) / math.gamma(0.5)
    return {
        realised.variance: sum(one**2 for one in r),
        realised.subsampled: statistics.fmean(grids),
        realised.bipower: math.pi / 2 * n / (n - 1) * sum(abs(r[i]) * abs(r[i - 1]) for i in range(1, n)),
        realised.median_variance: n / (n - 2) * sum(middle**2 for _, middle, _ in triples) / median_moment(2),
        realised.quarticity: n / 3 * sum(one**4 for one in r),
        realised.tripower_quarticity: n * mu**-3 * n / (n - 2) * sum(math.prod(triple) ** (4 / 3) for triple in triples),
        realised.median_quarticity: n * n / (n - 2) * sum(middle**4 for _, middle, _ in triples) / median_moment(4),
    }


def test_vol_models_measures_by_hand() -> None:
    r = np.array([1.0, -2.0, 3.0, -4.0])
    assert realised.variance(r) == 30.0
    assert realised.semivariances(r) == (20.0, 10.0)
    assert realised.bipower(r) == pytest.approx(math.pi / 2 * 4 / 3 * (2 + 6 + 12))
    assert realised.median_variance(r) == pytest.approx(2 * (4 + 9) / median_moment(2))
    assert realised.quarticity(r) == pytest.approx(4 / 3 * (1 + 16 + 81 + 256))
    # Grids of two: {1-2, 3-4} covers all four, {-2+3} covers two of four.
    assert realised.subsampled(r, 2) == pytest.approx(((1 + 1) + 1 * 4 / 2) / 2)


def test_vol_models_constants_are_the_published_ones() -> None:
    """Andersen, Dobrev, Schaumburg give MedRV's as 1.42, MedRQ's as 0.92; mu(4/3) is 0.8309."""
    assert (round(realised.MEDIAN, 2), round(realised.MEDIAN_QUARTIC, 2), round(realised.TRIPOWER ** (-1 / 3), 4)) == (1.42, 0.92, 0.8309)


@given(RETURNS, st.integers(1, 5))
def test_vol_models_measures_follow_their_formulas(returns: list[float], every: int) -> None:
    r = np.array(returns)
    for measure, expected in loops(returns, every).items():
        found = realised.subsampled(r, every) if measure is realised.subsampled else measure(r)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-300), measure.__name__
    assert sum(realised.semivariances(r)) == pytest.approx(realised.variance(r))
    assert realised.subsampled(r, 1) == pytest.approx(realised.variance(r))


@given(RETURNS, st.floats(1e-6, 1e6))
def test_vol_models_measures_have_the_unit_they_say(returns: list[float], unit: float) -> None:
    r = np.array(returns)
    for measures, power in ((VARIANCES, 2), (QUARTICITIES, 4)):
        for measure in measures:
            assert measure(unit * r) == pytest.approx(unit**power * measure(r), rel=1e-9, abs=0.0), measure.__name__
            assert measure(-r) == measure(r)


def test_vol_models_measures_estimate_what_they_should_and_some_leave_a_jump_out() -> None:
    """A variance of 2 that doubles halfway, on 200,000 returns; then one of them is a jump of 3."""
    n, draws = 200_000, np.random.default_rng(5)
    spot = np.where(np.arange(n) < n // 2, 4.0 / 3.0, 8.0 / 3.0)
    r = draws.standard_normal(n) * np.sqrt(spot / n)
    integral, integral_square = float(np.mean(spot)), float(np.mean(spot * spot))
    for measures, expected in ((VARIANCES, integral), (QUARTICITIES, integral_square)):
        for measure in measures:
            assert measure(r) == pytest.approx(expected, rel=0.03), measure.__name__
    assert realised.semivariances(r) == pytest.approx((integral / 2, integral / 2), rel=0.03)
    jumped = r.copy()
    jumped[777] = 3.0
    assert realised.variance(jumped) == pytest.approx(integral + 9.0, rel=0.03)
    assert realised.semivariances(jumped)[1] == pytest.approx(integral / 2 + 9.0, rel=0.03)
    for measure in (realised.bipower, realised.median_variance):
        assert measure(jumped) == pytest.approx(integral, rel=0.03), measure.__name__
    assert realised.quarticity(jumped) > 1_000 * integral_square
    assert realised.median_quarticity(jumped) == pytest.approx(integral_square, rel=0.03)


def test_vol_models_measures_of_no_movement_are_zero() -> None:
    for measure in (*VARIANCES, *QUARTICITIES):
        assert measure(np.zeros(12)) == 0.0


@pytest.mark.parametrize(
    ("measure", "least"),
    [
        (realised.variance, 1),
        (realised.subsampled, 9),
        (realised.bipower, 2),
        (realised.median_variance, 3),
        (realised.semivariances, 1),
        (realised.quarticity, 1),
        (realised.tripower_quarticity, 3),
        (realised.median_quarticity, 3),
    ],
)
def test_vol_models_measures_refuse_what_is_too_short_or_no_return(measure: Callable[[Float64Array1D], object], least: int) -> None:
    measure(np.ones(least))
    with pytest.raises(ValueError, match=f"at least {least} returns, found {least - 1}"):
        measure(np.ones(least - 1))
    with pytest.raises(ValueError, match=r"shape \(n,\), found \(3, 4\)"):
        measure(np.ones((3, 4)))  # type: ignore[arg-type]
    for bad in (math.nan, math.inf, -math.inf, 1e51):
        with pytest.raises(ValueError, match=re.escape(f"found {bad} at index 2")):
            measure(np.array([0.0] * 2 + [bad] + [0.0] * 9))


@pytest.mark.parametrize("every", [0, -1, 2.0, True])
def test_vol_models_subsampling_wants_whole_periods(every: int) -> None:
    with pytest.raises(ValueError, match="expected every as a whole number of at least 1"):
        realised.subsampled(np.ones(20), every)
