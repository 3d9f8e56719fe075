"""SVI slices: Vogt's numbers, recovery, bounds on hostile data, the best of many starts, densities, calendar, refusals."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, least_squares
from scipy.special import ndtr

from alphapack.models import svi
from alphapack.models.svi import Svi

VOGT = Svi(a=-0.0410, b=0.1331, rho=0.3060, m=0.3586, sigma=0.4153)
"""Axel Vogt's slice, t = 1, of Gatheral and Jacquier's section 3.1."""
X = np.linspace(-1.5, 1.5, 41)


def noisy(seed: int, n: int = 41, size: float = 0.003) -> tuple[np.ndarray, np.ndarray]:
    """Return a slice of about 60% volatility and half a year, with 30 basis points of noise in volatility."""
    chance = np.random.default_rng(seed)
    x = np.sort(chance.uniform(-0.8, 0.6, n))
    w = Svi(0.02, 0.35, -0.35, 0.02, 0.25).total_variance(x)
    return x, 0.5 * (np.sqrt(w / 0.5) + size * chance.standard_normal(n)) ** 2


def wild(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    return np.sort(chance.uniform(-0.5, 0.5, n)), 0.1 * np.exp(chance.standard_normal(n))


def wings(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a slice as a week of coin options: dense at the money, sparse and steep far out, rounded to quotes of 10 basis points."""
    chance = np.random.default_rng(seed)
    x = np.concatenate((np.linspace(-0.15, 0.12, 15), [-1.2, -0.8, -0.5, -0.3, 0.25, 0.4, 0.7]))
    w = Svi(0.001, 0.045 * chance.uniform(0.8, 1.2), -0.2, 0.01, 0.06).total_variance(x)
    return x, (np.round(np.sqrt(w * 365 / 7) * (1 + 0.004 * chance.standard_normal(len(x))), 3)) ** 2 * 7 / 365


def best_of_many(x: np.ndarray, w: np.ndarray, weights: np.ndarray | None = None, starts: int = 10) -> float:
    """Return the least root mean squared residual of scipy from many starts, within the bounds of a fit."""
    middle, half, unit = (x.max() + x.min()) / 2, np.ptp(x) / 2, w.max()
    at, y, steepest = (x - middle) / half, w / unit, math.sqrt(2 * half / unit)
    heavy = np.ones(len(x)) if weights is None else np.sqrt(weights / weights.mean())

    def residuals(q: np.ndarray) -> np.ndarray:
        least, p, t, m, log_sigma = q
        u, s = at - m, math.exp(log_sigma)
        return heavy * (least + s * (t - p) ** 2 / 2 + (t * t - p * p) / 2 * u + (t * t + p * p) / 2 * (np.sqrt(u * u + s * s) - s) - y)

    chance = np.random.default_rng(1)
    bounds = ([0, 0, 0, -3, math.log(1e-4)], [np.inf, steepest, steepest, 3, math.log(100)])
    found = math.inf
    for _ in range(starts):
        slopes = np.minimum(np.sqrt(chance.exponential(0.5, 2)), 0.9 * steepest)
        start = [chance.uniform(), *slopes, chance.uniform(-1.2, 1.2), math.log(10) * chance.uniform(-1.8, 0.5)]
        found = min(found, least_squares(residuals, start, bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=200).cost)
    return float(unit * math.sqrt(2 * found / len(x)))


def test_options_smile_vogts_slice_is_recovered_and_refused() -> None:
    found = svi.fit(X, VOGT.total_variance(X))
    np.testing.assert_allclose(found.params, VOGT.params, atol=1e-6)
    assert found.rmse < 1e-10
    for slice_ in (VOGT, found):
        ((low, high),) = slice_.arbitrage()
        assert (low, high) == (pytest.approx(0.642408, abs=1e-6), pytest.approx(1.256913, abs=1e-6))
        assert not slice_.butterfly_free
    x = np.linspace(0.8, 1.0, 20_001)
    g = VOGT.durrleman(x)
    assert (g.min(), x[g.argmin()]) == (pytest.approx(-0.0328635, abs=1e-7), pytest.approx(0.879, abs=5e-4))


def test_options_smile_ends_of_arbitrage_are_roots_of_g_to_1e_12() -> None:
    def g(x: float) -> float:
        return float(VOGT.durrleman(np.array([x]))[0])

    ((low, high),) = VOGT.arbitrage()
    assert low == pytest.approx(brentq(g, 0.5, 0.8, xtol=1e-15), abs=1e-12)
    assert high == pytest.approx(brentq(g, 1.0, 1.5, xtol=1e-15), abs=1e-12)


def test_options_smile_jump_wings_of_vogts_slice() -> None:
    expected = {"v": 0.0174262526, "psi": -0.1752111408, "p": 0.6997381041, "c": 1.3167982190, "vtilde": 0.0116249032}
    assert VOGT.to_jw(1.0) == pytest.approx(expected, abs=1e-10)
    half = VOGT.to_jw(0.5)
    assert half == pytest.approx(expected | {"v": 2 * expected["v"], "vtilde": 2 * expected["vtilde"]}, abs=1e-9)
    with pytest.raises(ValueError, match="positive time and a positive variance at the money, found t 0"):
        VOGT.to_jw(0.0)


@settings(max_examples=50)
@given(
    rho=st.floats(-0.9, 0.9),
    m=st.floats(-0.6, 0.6),
    sigma=st.floats(0.05, 1.5),
    steep=st.floats(0.02, 0.95),
    least=st.floats(0.001, 0.5),
    n=st.sampled_from([7, 12, 41]),
)
def test_options_smile_feasible_slices_are_recovered_from_clean_variances(
    rho: float, m: float, sigma: float, steep: float, least: float, n: int
) -> None:
    b = 2.0 * steep / (1.0 + abs(rho))
    true = Svi(least - b * sigma * math.sqrt(1.0 - rho * rho), b, rho, m, sigma)
    x = np.linspace(-1.0, 1.0, n)
    w = true.total_variance(x)
    found = svi.fit(x, w)
    assert found.rmse < 1e-9 * w.max()
    between = np.linspace(-1.0, 1.0, 301)
    np.testing.assert_allclose(found.total_variance(between), true.total_variance(between), rtol=1e-6)
    np.testing.assert_allclose(found.params, true.params, rtol=1e-4, atol=1e-4)


HOSTILE: list[Callable[[], tuple[np.ndarray, np.ndarray]]] = [
    lambda: (X, np.full(41, 0.04)),
    lambda: (X[:5], np.full(5, 1e-9)),
    lambda: (X, 0.05 + 0.01 * X),
    lambda: (X, 0.05 + 0.01 * X + 1e-14 * np.cos(40 * X)),
    lambda: (X, 0.5 - 0.1 * X**2),
    lambda: (X, 5.0 * np.abs(X) + 0.01),
    lambda: (X, 0.01 + X**2),
    lambda: (X, np.maximum(1e-6, X)),
    lambda: (X, np.maximum(1e-6, X**2 - 0.5)),
    lambda: (X, np.where(np.arange(41) == 20, 10.0, 0.01)),
    lambda: (X, np.where(np.arange(41) == 20, 1e-8, 1.0)),
    lambda: (X * 1e-3, 0.04 + 5.0 * np.abs(X) ** 0.5),
    lambda: (X * 900.0, 0.04 + np.abs(X)),
    lambda: (X, np.exp(10.0 * X)),
    lambda: (np.repeat(X[::8], 3), np.tile([0.1, 0.2, 0.3], 6)),
    lambda: (np.array([0.0, 1e-6, 2e-6, 3e-6, 1.0]), np.array([0.1, 0.3, 0.1, 0.2, 0.1])),
    *[lambda seed=seed: wild(seed, 5 + seed) for seed in range(12)],
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_options_smile_hostile_data_get_a_finite_slice_within_the_bounds(hostile: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
    x, w = hostile()
    for sign in (1.0, -1.0):
        found = svi.fit(sign * x, w)
        assert all(map(math.isfinite, (*found.params, found.rmse)))
        assert found.b >= 0.0 and abs(found.rho) < 1.0 and found.sigma > 0.0
        assert found.b * (1.0 + abs(found.rho)) <= 2.0
        assert found.least >= 0.0
        far = np.concatenate((np.linspace(-5, 5, 501), sign * x))
        assert (found.total_variance(far) > 0.0).all()
        rms = math.sqrt(np.mean((found.total_variance(sign * x) - w) ** 2))
        assert rms == pytest.approx(found.rmse, rel=1e-6, abs=1e-9 * w.max())
        # A constant is a slice too.
        assert found.rmse <= w.std() * (1.0 + 1e-9) + 1e-9 * w.max()
        found.arbitrage()


CASES = {
    **{f"noisy {n} {seed}": noisy(seed, n) for n in (5, 6, 8, 12, 41) for seed in range(2)},
    **{f"wild {n}": wild(n, n) for n in (5, 7, 9, 12, 20)},
    **{f"wings {seed}": wings(seed) for seed in range(3)},
    "vogt": (X, VOGT.total_variance(X) * np.exp(0.01 * np.cos(50 * X))),
    "steep": (X, 1.8 * np.abs(X) + 0.05 * np.cos(9 * X) + 0.1),
    "low": (X, np.maximum(X * X - 0.2, 0.003)),
}


@pytest.mark.parametrize("case", CASES)
def test_options_smile_fits_are_within_a_per_cent_of_the_best_of_many_starts(case: str) -> None:
    x, w = CASES[case]
    assert svi.fit(x, w).rmse <= 1.01 * best_of_many(x, w) + 1e-10


@pytest.mark.parametrize("seed", range(3))
def test_options_smile_weighted_fits_are_within_a_per_cent_of_the_best_of_many_starts(seed: int) -> None:
    x, w = noisy(seed, 15, 0.02)
    weights = np.random.default_rng(seed).uniform(0.01, 5.0, len(x))
    assert svi.fit(x, w, weights).rmse <= 1.01 * best_of_many(x, w, weights) + 1e-10


@pytest.mark.parametrize("seed", range(4))
def test_options_smile_a_weight_is_worth_as_many_points(seed: int) -> None:
    x, w = noisy(seed, 12, 0.01)
    times = np.random.default_rng(seed).integers(1, 4, len(x))
    weighted = svi.fit(x, w, 0.7 * times)
    repeated = svi.fit(np.repeat(x, times), np.repeat(w, times))
    np.testing.assert_allclose(weighted.params, repeated.params, rtol=1e-6)
    assert weighted.rmse == pytest.approx(repeated.rmse, rel=1e-9)
    np.testing.assert_allclose(svi.fit(x, w, np.full(12, 3.0)).params, svi.fit(x, w).params, rtol=1e-6)


@settings(max_examples=30)
@given(st.integers(0, 1_000), st.floats(-0.7, 0.7), st.floats(0.2, 3.0), st.floats(0.001, 2.0), st.booleans())
def test_options_smile_fits_move_scale_and_mirror_with_the_data(seed: int, shift: float, wide: float, high: float, mirror: bool) -> None:
    x, w = noisy(seed, 15, 0.01)
    one = svi.fit(x, w)
    sign = -1.0 if mirror else 1.0
    other = svi.fit((sign * wide * x + shift)[::-1], high * w[::-1])
    expected = (high * one.a, high / wide * one.b, sign * one.rho, sign * wide * one.m + shift, wide * one.sigma)
    if expected[1] * (1.0 + abs(expected[2])) < 1.99:
        np.testing.assert_allclose(other.params, expected, rtol=1e-5, atol=1e-7)
        assert other.rmse == pytest.approx(high * one.rmse, rel=1e-9)


@pytest.mark.parametrize("slice_", [VOGT, Svi(0.01, 0.2, -0.6, 0.1, 0.2), Svi(0.001, 1.5, 0.2, -0.3, 0.01)])
def test_options_smile_durrlemans_g_is_that_of_differences(slice_: Svi) -> None:
    x = np.linspace(-2.0, 2.0, 81)
    h = 1e-4
    w, up, down = slice_.total_variance(x), slice_.total_variance(x + h), slice_.total_variance(x - h)
    slope, bend = (up - down) / (2 * h), (up - 2 * w + down) / h**2
    g = (1 - x * slope / (2 * w)) ** 2 - slope**2 / 4 * (1 / w + 0.25) + bend / 2
    near = slice_.sigma * 0.1 + np.abs(x - slice_.m) > 20 * h
    np.testing.assert_allclose(slice_.durrleman(x)[near], g[near], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("slice_", [VOGT, Svi(0.01, 0.2, -0.6, 0.1, 0.2)])
def test_options_smile_g_gives_the_density_that_black_prices_imply(slice_: Svi) -> None:
    strike, h = np.linspace(0.5, 4.0, 71), 1e-3

    def call(k: np.ndarray) -> np.ndarray:
        x = np.log(k)
        root = np.sqrt(slice_.total_variance(x))
        return ndtr(-x / root + root / 2) - k * ndtr(-x / root - root / 2)

    density = (call(strike + h) - 2 * call(strike) + call(strike - h)) / h**2
    x = np.log(strike)
    w = slice_.total_variance(x)
    d2 = -x / np.sqrt(w) - np.sqrt(w) / 2
    expected = slice_.durrleman(x) * np.exp(-d2 * d2 / 2) / np.sqrt(2 * math.pi * w) / strike
    np.testing.assert_allclose(density, expected, rtol=1e-3, atol=1e-4)


def test_options_smile_arbitrage_covers_the_whole_line() -> None:
    assert Svi(0.04, 0.1, -0.3, 0.0, 0.1).arbitrage() == ()
    assert Svi(0.04, 0.0, 0.0, 0.0, 0.1).butterfly_free
    assert Svi(-0.04, 0.0, 0.0, 0.0, 0.1).arbitrage() == ((-math.inf, math.inf),)
    # A wing above Lee's bound is arbitrage however far out; one at rest below zero is too.
    assert Svi(1.0, 1.7, -0.2, 0.0, 0.5).arbitrage()[0][0] == -math.inf
    assert Svi(1.0, 1.7, 0.2, 0.0, 0.5).arbitrage()[-1][1] == math.inf
    assert Svi(-0.001, 0.1, 1.0, 0.0, 0.1).arbitrage()[0][0] == -math.inf
    below = Svi(-0.04, 0.1, -0.3, 0.0, 0.1)
    x = np.linspace(-0.25, 0.5, 10)
    assert (below.total_variance(x) <= 0.0).all()
    assert any(low <= -0.25 and high >= 0.5 for low, high in below.arbitrage())
    with pytest.raises(ValueError, match="positive least variance, found -0"):
        below.durrleman(x)


def test_options_smile_calendar_spreads_are_seen_where_they_cross() -> None:
    earlier, later = Svi(0.02, 0.1, -0.3, 0.0, 0.1), Svi(0.03, 0.12, -0.3, 0.0, 0.15)
    assert svi.calendar_free(earlier, later, -1.0, 1.0)
    assert svi.calendar_free(earlier, earlier, -1.0, 1.0)
    assert not svi.calendar_free(later, earlier, -1.0, 1.0)
    flatter = Svi(0.06, 0.05, -0.3, 0.0, 0.15)
    assert svi.calendar_free(earlier, flatter, -0.3, 0.3)
    assert not svi.calendar_free(earlier, flatter, -2.0, 0.3)


class Dip:
    """A later smile that dips below an earlier one between the points of any coarse grid."""

    def __init__(self, at: float, depth: float) -> None:
        self.at, self.depth = at, depth

    def total_variance(self, x: np.ndarray) -> np.ndarray:
        return 0.1 + 0.3 * np.abs(x - self.at) - self.depth


def test_options_smile_calendar_spreads_are_seen_between_the_points() -> None:
    flat = Svi(0.1, 0.0, 0.0, 0.0, 0.1)
    for at in (0.0003, 0.12345, -0.777, 0.9995):
        assert not svi.calendar_free(flat, Dip(at, 1e-7), -1.0, 1.0)
        assert svi.calendar_free(flat, Dip(at, -1e-9), -1.0, 1.0)
        assert svi.calendar_free(flat, Dip(at, 1e-11), -1.0, 1.0)  # Within the tolerance.


def test_options_smile_calendar_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match=r"low < high, both finite, found 1.0 to 1.0"):
        svi.calendar_free(VOGT, VOGT, 1.0, 1.0)
    with pytest.raises(ValueError, match="found a NaN at"):
        svi.calendar_free(VOGT, Dip(math.nan, 0.0), -1.0, 1.0)


W = VOGT.total_variance(X)


@pytest.mark.parametrize(
    ("x", "w", "weights", "match"),
    [
        (X[:4], W[:4], None, "expected 5 to 65536 points, as many x as w and weights, found 4 x, 4 w"),
        (X, W[:-1], None, "found 41 x, 40 w"),
        (X, W, np.ones(40), "found 41 x, 41 w and 40 weights"),
        (X.reshape(1, 41), W, None, r"expected x in one dimension, found shape \(1, 41\)"),
        (X, W[0], None, "expected w in one dimension"),
        (np.where(X[3] == X, np.nan, X), W, None, "expected x from -1500 to 1500, found nan and 0 more"),
        (X, np.where(X < 0, -W, W), None, "expected w from 1e-30 to 1e.10, found -0.*and 19 more"),
        (X, np.where(X < 0, np.inf, W), None, "expected w from 1e-30 to 1e.10, found inf"),
        (X, np.where(X < -1.4, 0.0, W), None, "expected w from 1e-30 to 1e.10, found 0.0"),
        (X, W, np.zeros(41), "expected weights from 1e-100 to 1e.100, found 0.0 and 40 more"),
        (X, W, np.where(X < 0, -1.0, 1.0), "expected weights from 1e-100 to 1e.100, found -1.0"),
        (np.repeat(X[:4], 2), np.repeat(W[:4], 2), None, "expected at least 5 different x over a range of at least 1e-06, found 4 from"),
    ],
)
def test_options_smile_fit_says_what_it_expected(x: np.ndarray, w: np.ndarray, weights: np.ndarray | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        svi.fit(x, w, weights)


def test_options_smile_fit_takes_points_in_any_order() -> None:
    x, w = noisy(5, 20)
    order = np.random.default_rng(0).permutation(20)
    np.testing.assert_allclose(svi.fit(x[order], w[order]).params, svi.fit(x, w).params, rtol=1e-6)
    assert svi.fit(x, w) == svi.fit(x.copy(), w.copy())


@pytest.mark.parametrize(
    "wrong", [(0.1, -0.1, 0.0, 0.0, 0.1), (0.1, 0.1, 1.1, 0.0, 0.1), (0.1, 0.1, 0.0, 0.0, 0.0), (math.nan, 0.1, 0.0, 0.0, 0.1)]
)
def test_options_smile_what_is_no_slice_is_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected a slice with b >= 0, rho from -1 to 1, sigma > 0"):
        Svi(*wrong)
