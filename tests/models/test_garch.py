"""GARCH(1,1): published digits, maxima that other optimisers cannot better, bounds, missing steps, forecasts, refusals."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.arrays import Float64Array1D
from alphapack.kernels import garch as kernel
from alphapack.models import garch
from alphapack.models.garch import Garch, Parameters


def simulated(seed: int, n: int, omega: float, alpha: float, beta: float, freedom: float = math.inf, scale: float = 1.0) -> Float64Array1D:
    chance = np.random.default_rng(seed)
    z = chance.standard_normal(n) if freedom == math.inf else chance.standard_t(freedom, n) * math.sqrt((freedom - 2.0) / freedom)
    h, path = omega / max(1.0 - alpha - beta, 1e-3), np.empty(n)
    for t in range(n):
        path[t] = math.sqrt(h) * z[t]
        h = omega + alpha * path[t] ** 2 + beta * h
    return scale * path


def loglik(returns: Float64Array1D, presample: float, mu: float, omega: float, alpha: float, beta: float, valid=None) -> float:
    """Return the log-likelihood, minute by minute."""
    h, total = omega + (alpha + beta) * presample, 0.0
    for t, r in enumerate(returns.tolist()):
        if valid is None or valid[t]:
            total -= 0.5 * (math.log(2.0 * math.pi * h) + (r - mu) ** 2 / h)
            h = omega + alpha * (r - mu) ** 2 + beta * h
        else:
            h = omega + (alpha + beta) * h
    return total


@pytest.fixture
def dem2gbp(data: Path) -> Float64Array1D:
    return np.loadtxt(data / "econ" / "dem2gbp.csv", skiprows=1)


TSP = {"mu": -0.00619040837994, "omega": 0.010761397852, "alpha": 0.153134061820, "beta": 0.805973670305}
ERRORS = {
    "im": ((0.00837628562687, 0.00192880806004, 0.019401185516, 0.021839872164), 1e-9),
    "bw": ((0.00873092468675, 0.00312363750618, 0.027321933999, 0.030150885923), 1e-9),
    "hessian": ((0.00846212, 0.00285271, 0.0265228, 0.0335527), 2e-6),
    "opg": ((0.00843359, 0.00132298, 0.0139737, 0.0165604), 1e-5),
    "white": ((0.00918935, 0.00649319, 0.053532, 0.072461), 1e-5),
}


def test_vol_models_dem2gbp_has_the_published_coefficients(dem2gbp: Float64Array1D) -> None:
    fitted = garch.fit(dem2gbp, "constant", "ssr")
    assert fitted.converged
    assert fitted.params == pytest.approx(TSP, rel=1e-9)
    assert round(fitted.loglik, 5) == -1106.60788
    assert (fitted.n, fitted.boundary) == (1974, ())


@pytest.mark.parametrize("kind", ERRORS)
def test_vol_models_dem2gbp_has_the_published_standard_errors(kind: garch.Kind, dem2gbp: Float64Array1D) -> None:
    values, tolerance = ERRORS[kind]
    assert garch.fit(dem2gbp, "constant").stderr(kind) == pytest.approx(dict(zip(TSP, values, strict=True)), rel=tolerance)


def test_vol_models_dem2gbp_has_known_likelihoods_by_presample(dem2gbp: Float64Array1D) -> None:
    residual = float(((dem2gbp - dem2gbp.mean()) ** 2).mean())
    assert garch.fit(dem2gbp).loglik == pytest.approx(-1106.87561580, abs=1e-7)
    assert garch.fit(dem2gbp, "constant", "ewma").loglik == pytest.approx(-1104.52140179, abs=1e-7)
    assert garch.fit(dem2gbp, "zero", "ewma").loglik == pytest.approx(-1104.78723439, abs=1e-7)
    assert garch.fit(dem2gbp, "constant", residual).loglik == pytest.approx(-1106.60664956, abs=1e-7)


def test_vol_models_likelihood_variances_and_forecast_are_those_of_a_plain_loop() -> None:
    returns = simulated(3, 400, 0.05, 0.1, 0.85) + 0.1
    valid = np.random.default_rng(3).random(400) > 0.1
    holed = np.where(valid, returns, math.nan)
    for mean, missing in itertools.product(("zero", "constant"), (None, valid)):
        fitted = garch.fit(holed if missing is not None else returns, mean, valid=missing)
        there = returns if missing is None else returns[missing]
        presample = float(((there - fitted.mu) ** 2).mean())
        told = (presample, fitted.mu, fitted.omega, fitted.alpha, fitted.beta)
        assert fitted.converged
        assert fitted.n == len(there)
        assert fitted.loglik == pytest.approx(loglik(returns, *told, missing), rel=1e-12)
        variances = fitted.variances()
        assert variances[0] == pytest.approx(fitted.omega + fitted.persistence * presample, rel=1e-12)
        left = returns - fitted.mu
        following = garch.filtered(left, missing, variances[0], fitted.omega, fitted.alpha, fitted.beta)
        assert following == pytest.approx(fitted.next_variance, rel=1e-12)
        assert garch.filtered(left[:77], None if missing is None else missing[:77], variances[0], *told[2:]) == pytest.approx(variances[77])
        assert fitted.forecast() == fitted.next_variance
        x, total = fitted.next_variance, 0.0
        for _ in range(60):
            total, x = total + x, fitted.omega + fitted.persistence * x
        assert fitted.forecast(60) == pytest.approx(total, rel=1e-13)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.9, 0.99, 0.9999]), st.sampled_from([3.0, 6.0, math.inf]), st.booleans())
def test_vol_models_no_point_nearby_has_a_greater_likelihood(seed: int, persistence: float, freedom: float, constant: bool) -> None:
    returns = simulated(seed, 300, 1.0 - persistence, 0.1 * persistence, 0.9 * persistence, freedom, 6e-4)
    fitted = garch.fit(returns, "constant" if constant else "zero", float((returns**2).mean()))
    assert fitted.converged
    assert 0.0 <= fitted.gradient <= 1e-6
    assert fitted.omega > 0.0
    best = np.array((fitted.mu, fitted.omega, fitted.alpha, fitted.beta))
    presample = float((returns**2).mean())
    size = np.array((math.sqrt(presample) / 30.0 if constant else 0.0, 0.05 * presample, 0.05, 0.05))
    chance = np.random.default_rng(seed)
    for reach in (1.0, 0.1, 0.01, 0.001):
        mu, omega, alpha, beta = best + reach * size * chance.standard_normal(4)
        if omega > 1e-13 and alpha >= 0.0 and 0.0 <= beta <= 1.0:
            assert loglik(returns, presample, mu, omega, alpha, beta) <= fitted.loglik + 1e-9 * abs(fitted.loglik)


@pytest.mark.parametrize(("seed", "lower"), [(48, 22.0), (83, 9.9), (98, 11.0)])
def test_vol_models_the_highest_of_several_maxima_is_found(seed: int, lower: float) -> None:
    """Outliers give the likelihood several maxima: an ascent from (0.1, 0.1, 0.8) ends at one that is lower."""
    returns = simulated(seed, 600, 0.02, 0.05, 0.93, 3.0)
    fitted = garch.fit(returns)
    ends = []
    for omega, alpha, beta in ((0.1, 0.1, 0.8), (0.1, 0.4, 0.5), (0.005, 0.01, 0.985), (0.5, 0.05, 0.4), (0.3, 0.7, 0.0)):
        work = np.zeros(kernel.WORK)
        work[kernel.PRESAMPLE] = math.nan
        assert kernel.moments(returns, np.zeros(0, np.uint8), work)
        work[:4] = 0.0, omega * work[kernel.SQUARE], alpha, beta
        assert kernel.climb(returns, np.zeros(0, np.uint8), work, kernel.FISHER, 1e-9)
        ends.append(work[kernel.LOGLIK] - 300.0 * math.log(2.0 * math.pi) + 600.0 * math.log(work[kernel.SCALE]))
    assert fitted.converged
    assert ends[0] < fitted.loglik - lower
    assert max(ends) <= fitted.loglik + 1e-8


def equal(one: Garch, other: Garch, scale: float, tolerance: float) -> None:
    assert other.mu == pytest.approx(scale * one.mu, rel=tolerance, abs=0.0)
    assert other.omega == pytest.approx(scale * scale * one.omega, rel=tolerance, abs=0.0)
    assert [other.alpha, other.beta] == pytest.approx([one.alpha, one.beta], rel=tolerance, abs=0.0)
    assert other.next_variance == pytest.approx(scale * scale * one.next_variance, rel=tolerance, abs=0.0)
    assert other.loglik == pytest.approx(one.loglik - one.n * math.log(scale), rel=1e-12)
    for name, error in one.stderr("white").items():
        unit = scale if name == "mu" else scale * scale if name == "omega" else 1.0
        assert other.stderr("white")[name] == pytest.approx(unit * error, rel=1e-6)


@pytest.mark.parametrize("presample", ["ssr", "ewma"])
def test_vol_models_a_fit_scales_with_its_returns(presample: garch.Presample) -> None:
    returns = simulated(1, 600, 0.05, 0.1, 0.85) + 0.02
    one = garch.fit(returns, "constant", presample)
    assert one.converged
    for power in (-300, -20, 1, 300):
        equal(one, garch.fit(2.0**power * returns, "constant", presample), 2.0**power, 1e-15)
    for scale in (6e-4, 1e-90, 3.0, 1e90):
        equal(one, garch.fit(scale * returns, "constant", presample), scale, 1e-7)


def test_vol_models_a_mean_far_from_zero_costs_no_digits() -> None:
    returns = simulated(2, 500, 0.05, 0.1, 0.85)
    near, far = garch.fit(returns, "constant"), garch.fit(returns + 2.0**20, "constant")
    assert far.converged
    assert far.mu - 2.0**20 == pytest.approx(near.mu, abs=1e-8)
    assert far.alpha == pytest.approx(near.alpha, rel=1e-6)


def test_vol_models_warm_and_cold_fits_meet() -> None:
    returns = simulated(4, 1_040, 0.02, 0.08, 0.9, 6.0)
    last = garch.fit(returns[:1_000])
    for first in range(0, 40, 8):
        window = returns[first : first + 1_000]
        warm, cold = garch.fit(window, start=last.parameters), garch.fit(window)
        assert warm.converged
        assert warm.iterations < cold.iterations
        assert warm.params == pytest.approx(cold.params, rel=1e-8)
        assert warm.loglik == pytest.approx(cold.loglik, rel=1e-13)
        last = warm


def test_vol_models_a_hopeless_start_ends_where_a_cold_fit_does() -> None:
    returns = simulated(4, 500, 0.02, 0.08, 0.9)
    cold = garch.fit(returns)
    for start in (Parameters(1e-300, 0.0, 1.0), Parameters(1e12, 0.0, 0.0), Parameters(1.0, 50.0, 1.0)):
        warm = garch.fit(returns, start=start)
        assert warm.converged
        assert warm.params == pytest.approx(cold.params, rel=1e-7)


def test_vol_models_a_long_sample_ends_where_its_whole_likelihood_does() -> None:
    returns = simulated(6, 12_000, 0.01, 0.05, 0.94, 6.0)
    long = garch.fit(returns)
    again = garch.fit(returns, start=long.parameters)
    assert long.converged
    assert again.params == pytest.approx(long.params, rel=1e-9)
    assert long.beta == pytest.approx(0.94, abs=0.03)


# Bounds


def test_vol_models_a_constant_variance_has_no_news_and_no_memory() -> None:
    chance = np.random.default_rng(0)
    signs = np.where(chance.random(400) > 0.5, 1.0, -1.0)
    fitted = garch.fit(signs * (1.0 + 0.01 * np.tile((1.0, -1.0), 200)))
    assert fitted.converged
    assert fitted.alpha == 0.0
    assert "alpha" in fitted.boundary
    assert set(fitted.stderr("hessian")).isdisjoint(fitted.boundary)


def test_vol_models_arch_without_memory_stands_at_the_bound_of_beta() -> None:
    fitted = garch.fit(simulated(8, 800, 1.0, 0.5, 0.0))
    assert fitted.converged
    assert (fitted.beta, fitted.boundary) == (0.0, ("beta",))
    assert fitted.alpha == pytest.approx(0.5, abs=0.15)
    assert list(fitted.stderr("white")) == ["omega", "alpha"]


def test_vol_models_persistence_may_exceed_one() -> None:
    fitted = garch.fit(simulated(2, 1_500, 0.001, 0.35, 0.68))
    assert fitted.converged
    assert fitted.persistence > 1.0
    assert "beta" in fitted.stderr("bw")


@pytest.mark.parametrize(("seed", "rising"), [(0, True), (0, False), (1, True), (1, False)])
def test_vol_models_a_trend_of_the_variance_is_found_where_there_is_no_news(seed: int, rising: bool) -> None:
    trend = np.linspace(0.2, 2.0, 600)
    returns = np.sqrt(trend if rising else trend[::-1]) * np.random.default_rng(seed).standard_normal(600)
    presample = float((returns[:60] ** 2).mean())
    fitted = garch.fit(returns, presample=presample)
    assert fitted.converged
    steps = [(0.003, 1.0), (0.0, 0.9975)] if rising else [(0.0, 0.997), (0.0, 0.998), (0.0003, 0.997)]
    for omega, beta in steps:
        assert fitted.loglik > loglik(returns, presample, 0.0, max(omega, 1e-9), 0.0, beta)


# Forecasts


def recursion(h: float, omega: float, persistence: float, factors: Float64Array1D) -> float:
    terms = []
    for factor in factors.tolist():
        terms.append(factor * h)
        h = omega + persistence * h
    return math.fsum(terms)


@settings(max_examples=40)
@given(
    st.floats(1e-8, 10.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 0.5),
    st.floats(0.0, 0.5),
    st.integers(1, 500),
    st.one_of(st.none(), st.sampled_from([0.5, 0.9999, 1.0])),
)
def test_vol_models_aggregates_are_sums_of_the_recursion(
    h: float, omega: float, alpha: float, beta: float, horizon: int, cap: float | None
) -> None:
    persistence = alpha + beta if cap is None else min(alpha + beta, cap)
    flat = recursion(h, omega, persistence, np.ones(horizon))
    assert garch.aggregate(h, omega, alpha, beta, horizon, cap) == pytest.approx(flat, rel=1e-12)
    assert garch.weighted_aggregate(h, omega, alpha, beta, np.ones(horizon), cap) == pytest.approx(flat, rel=1e-12)
    factors = np.linspace(0.2, 1.8, horizon)
    seasonal = recursion(h, omega, persistence, factors)
    assert garch.weighted_aggregate(h, omega, alpha, beta, factors, cap) == pytest.approx(seasonal, rel=1e-12)


def test_vol_models_a_cap_moves_beta_and_keeps_omega() -> None:
    h, omega, horizon = 2.0, 0.01, 1_440
    for persistence in (0.99995, 1.0, 1.05):
        capped = garch.aggregate(h, omega, 0.05, persistence - 0.05, horizon, 0.9999)
        assert capped == garch.aggregate(h, omega, 0.0, 0.9999, horizon)
        assert capped < garch.aggregate(h, omega, 0.05, persistence - 0.05, horizon)
    assert garch.aggregate(h, omega, 0.05, 0.9, horizon, 0.9999) == garch.aggregate(h, omega, 0.05, 0.9, horizon)
    assert garch.aggregate(h, omega, 0.5, 1.5, 1, 0.9999) == h


def test_vol_models_missing_minutes_step_as_forecasts_do() -> None:
    nothing, hidden = np.zeros(10, np.uint8), np.full(10, math.nan)
    following = garch.filtered(hidden, nothing, 2.0, 0.1, 0.1, 0.8)
    assert following == pytest.approx(garch.aggregate(2.0, 0.1, 0.1, 0.8, 11) - garch.aggregate(2.0, 0.1, 0.1, 0.8, 10), rel=1e-12)
    assert garch.filtered(np.zeros(0), None, 2.0, 0.1, 0.1, 0.8) == 2.0
    assert garch.filtered(np.array((3.0,)), None, 2.0, 0.1, 0.1, 0.8) == pytest.approx(0.1 + 0.1 * 9.0 + 0.8 * 2.0)


# Refusals

GOOD = simulated(0, 100, 0.1, 0.1, 0.8)
HOLE = np.where(np.arange(100) == 7, math.nan, GOOD)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"returns": GOOD[:49]}, "expected 50 to 16777216 returns in one dimension, found shape \\(49,\\)"),
        ({"returns": GOOD.reshape(2, 50)}, "found shape \\(2, 50\\)"),
        ({"returns": np.zeros(100)}, "expected returns that vary by more than 1e-100, found 0.0 to 0.0"),
        ({"returns": np.full(100, 0.1), "mean": "constant"}, "expected returns that vary"),
        ({"returns": 1e-200 * GOOD}, "expected returns that vary"),
        ({"returns": HOLE}, "expected finite returns of at most 1e\\+100, found nan and 0 more"),
        ({"returns": np.where(np.arange(100) == 7, math.inf, GOOD)}, "found inf and 0 more"),
        ({"returns": 1e150 * GOOD}, "expected finite returns"),
        ({"returns": GOOD, "mean": "none"}, 'expected a mean "zero" or "constant", found \'none\''),
        ({"returns": GOOD, "presample": "own"}, "expected a presample"),
        ({"returns": GOOD, "presample": 0.0}, "expected a presample"),
        ({"returns": GOOD, "presample": math.nan}, "expected a presample"),
        ({"returns": GOOD, "start": Parameters(0.0, 0.1, 0.8)}, "expected a start with omega > 0"),
        ({"returns": GOOD, "start": Parameters(0.1, 0.1, 1.1)}, "expected a start with omega > 0"),
        (
            {"returns": GOOD, "valid": np.ones(99, bool)},
            "expected valid as bool or uint8 of shape \\(100,\\), found bool of shape \\(99,\\)",
        ),
        ({"returns": GOOD, "valid": np.ones(100)}, "found float64"),
        ({"returns": GOOD, "valid": np.arange(100) < 40}, "expected at least 50 returns that are not missing, found 40"),
        ({"returns": HOLE, "valid": np.arange(100) != 8}, "found nan and 0 more"),
    ],
)
def test_vol_models_what_cannot_be_fitted_is_refused(arguments: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        garch.fit(**arguments)


def test_vol_models_what_cannot_be_forecast_is_refused() -> None:
    good = (1.0, 0.1, 0.1, 0.8)
    for at, wrong in itertools.product(range(4), (math.nan, math.inf, -1.0)):
        bad = [wrong if i == at else value for i, value in enumerate(good)]
        with pytest.raises(ValueError, match="expected a positive variance and parameters"):
            garch.aggregate(*bad, 60)
        with pytest.raises(ValueError, match="expected a positive variance and parameters"):
            garch.filtered(GOOD, None, *bad)
    for horizon in (0, -1, garch.HORIZON_MAX + 1):
        with pytest.raises(ValueError, match="expected a horizon from 1"):
            garch.aggregate(*good, horizon)
    for cap in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected a greatest persistence"):
            garch.aggregate(*good, 60, cap)
    with pytest.raises(ValueError, match="expected a variance that a float holds"):
        garch.aggregate(1.0, 0.1, 1.0, 1.0, 10_080)
    for factors in (np.zeros(0), np.ones((2, 2))):
        with pytest.raises(ValueError, match="factors in one dimension"):
            garch.weighted_aggregate(*good, factors)
    for value in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="finite and not negative"):
            garch.weighted_aggregate(*good, np.array((1.0, value)))
    with pytest.raises(ValueError, match="expected finite returns where they are not missing"):
        garch.filtered(HOLE, None, *good)
    with pytest.raises(ValueError, match="found shape \\(2, 50\\)"):
        garch.filtered(GOOD.reshape(2, 50), None, *good)


def test_vol_models_an_unknown_kind_of_standard_error_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a kind of standard error"):
        garch.fit(GOOD).stderr("robust")  # type: ignore[arg-type]


# Another program


@pytest.mark.parametrize("seed", range(4))
def test_vol_models_arch_finds_nothing_better(seed: int) -> None:
    arch = pytest.importorskip("arch", reason="arch is an oracle of tests, and not installed")
    returns = simulated(seed, 1_000, 0.02, 0.08, 0.9, 6.0)
    other = arch.arch_model(returns, mean="Zero", rescale=False).fit(disp="off")
    fitted = garch.fit(returns, presample="ewma")
    assert fitted.loglik >= other.loglikelihood - 1e-6 * abs(other.loglikelihood)
    assert fitted.forecast(60) == pytest.approx(other.forecast(horizon=60).variance.to_numpy()[-1].sum(), rel=1e-2)
