"""The kernels of SVI: compiled as interpreted, derivatives against differences, the elimination against a solver, roots against a grid."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import interpreted
from alphapack.kernels import svi as k

NONE = np.zeros(0)
KINDS = ("clean", "noisy", "wild", "concave", "line", "flat")


def sample(seed: int, n: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    x = np.sort(chance.uniform(-0.5, 0.7, n))
    w = 0.02 + 0.2 * (-0.4 * (x - 0.05) + np.sqrt((x - 0.05) ** 2 + 0.04))
    if kind == "noisy":
        w = w * np.exp(0.05 * chance.standard_normal(n))
    elif kind == "wild":
        w = np.exp(chance.standard_normal(n)) * 0.1
    elif kind == "concave":
        w = 0.3 - w
    elif kind == "line":
        w = 0.1 + 0.05 * x
    elif kind == "flat":
        w = np.full(n, 0.04)
    return x, w, chance.uniform(0.1, 1.0, n)


def prepared(x: np.ndarray, w: np.ndarray, weights: np.ndarray, m: float, sigma: float) -> np.ndarray:
    """Return the scratch with the trial point solved for and derived."""
    work = np.zeros(k.SAMPLE + 3 * len(x))
    assert k.normalise(x, w, weights, work)
    work[k.TRIAL + k.M], work[k.TRIAL + k.SIGMA], work[k.EXACT] = m, sigma, 1.0
    k.eliminate(work, len(x))
    k.derive(work, len(x))
    return work


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [5, 41])
def test_options_smile_svi_kernels_are_equal_to_the_bit_compiled_and_interpreted(
    monkeypatch: pytest.MonkeyPatch, kind: str, n: int
) -> None:
    monkeypatch.setattr(interpreted, "NAMES", ("svi",))
    plain = interpreted.modules()["svi"]
    x, w, weights = sample(n, n, kind)
    for module_weights in (NONE, weights):
        results = []
        for module in (k, plain):
            work, out = np.zeros(k.SAMPLE + 3 * n), np.zeros(6)
            assert module.fit(x, w, module_weights, work, out)
            scratch, ends, there, g = np.zeros(k.ARBITRAGE_WORK), np.zeros(2 * k.INTERVALS_MAX), np.zeros(n), np.zeros(n)
            count = module.arbitrage(out, scratch, ends)
            module.total_variances(out, x, there)
            module.durrlemans(out, x, g)
            results.append(interpreted.bits((out, work, int(count), ends, there, g)))
        assert results[0] == results[1]


@pytest.mark.parametrize("kind", ["noisy", "wild", "concave"])
@pytest.mark.parametrize(("m", "sigma"), [(0.1, 0.3), (-0.7, 0.05), (1.5, 2.0)])
def test_options_smile_svi_derivatives_are_those_of_differences(kind: str, m: float, sigma: float) -> None:
    x, w, weights = sample(3, 12, kind)
    work = prepared(x, w, weights, m, sigma)
    n = len(x)
    at, y, heavy = work[k.SAMPLE :][:n], work[k.SAMPLE + n :][:n], work[k.SAMPLE + 2 * n :][:n]

    def half(q: np.ndarray) -> float:
        least, p, t, m, log_sigma = q
        u, s = at - m, math.exp(log_sigma)
        model = least + s * (t - p) ** 2 / 2 + (t * t - p * p) / 2 * u + (t * t + p * p) / 2 * (np.sqrt(u * u + s * s) - s)
        return float(np.sum(heavy * (model - y) ** 2)) / 2.0

    slope, bend, level = work[k.TRIAL + k.SLOPE], work[k.TRIAL + k.BEND], work[k.TRIAL + k.LEVEL]
    p, t = math.sqrt(max(bend - slope, 0.0)), math.sqrt(max(bend + slope, 0.0))
    here = np.array([level - sigma * (t - p) ** 2 / 2, p, t, m, math.log(sigma)])
    assert work[k.TRIAL + k.SSE] == pytest.approx(2.0 * half(here), rel=1e-11)
    h, units = 1e-4, np.eye(5)
    gradient = [(half(here + h * e) - half(here - h * e)) / (2 * h) for e in units]
    np.testing.assert_allclose(work[k.GRADIENT :][:5], gradient, atol=2e-6 * (1.0 + np.abs(gradient).max()))
    hessian = [
        [
            (half(here + h * (e + f)) - half(here + h * (e - f)) - half(here - h * (e - f)) + half(here - h * (e + f))) / (4 * h * h)
            for f in units
        ]
        for e in units
    ]
    found = work[k.HESSIAN :][:25].reshape(5, 5)
    np.testing.assert_allclose(found, hessian, atol=1e-5 * (1.0 + np.abs(hessian).max()))
    assert (found == found.T).all()


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.floats(-2.5, 2.5), st.floats(0.01, 5.0), st.sampled_from([0.002, 0.1, 1.0]))
def test_options_smile_svi_eliminates_as_well_as_a_constrained_solver(seed: int, kind: str, m: float, sigma: float, tight: float) -> None:
    x, w, weights = sample(seed, 9, kind)
    work = np.zeros(k.SAMPLE + 3 * len(x))
    assert k.normalise(x, w, weights, work)
    work[k.STEEPEST] = min(work[k.STEEPEST], tight * 3.0)
    work[k.TRIAL + k.M], work[k.TRIAL + k.SIGMA] = m, sigma
    k.eliminate(work, len(x))
    k.derive(work, len(x))
    steepest, n = work[k.STEEPEST], len(x)
    level, slope, bend = work[k.TRIAL : k.TRIAL + 3]
    assert abs(slope) <= bend * (1 + 1e-12) and bend + abs(slope) <= steepest * (1 + 1e-12)
    assert work[k.MEAN] + level - sigma * (bend - math.sqrt(max(bend**2 - slope**2, 0.0))) >= -1e-12
    at, y, heavy = work[k.SAMPLE :][:n] - m, work[k.SAMPLE + n :][:n], work[k.SAMPLE + 2 * n :][:n]
    q = np.sqrt(at**2 + sigma**2) - sigma

    def model(z: np.ndarray) -> np.ndarray:
        least, p, t = z
        return -work[k.MEAN] + least + sigma * (t - p) ** 2 / 2 + (t * t - p * p) / 2 * at + (t * t + p * p) / 2 * q

    root = math.sqrt(steepest)
    others = [
        minimize(lambda z: np.sum(heavy * (model(z) - y) ** 2), start, bounds=[(0, None), (0, root), (0, root)], method="L-BFGS-B").fun
        for start in ([work[k.MEAN], 0.3 * root, 0.3 * root], [0.1, 0.1 * root, 0.8 * root])
    ]
    assert work[k.TRIAL + k.SSE] <= min(others) * (1 + 1e-7) + 1e-12


@settings(max_examples=60)
@given(
    st.floats(-0.5, 0.5),
    st.floats(0.001, 3.0),
    st.floats(-1.0, 1.0),
    st.floats(-1.0, 1.0),
    st.floats(0.005, 2.0),
)
def test_options_smile_svi_arbitrage_is_what_a_grid_sees(a: float, b: float, rho: float, m: float, sigma: float) -> None:
    params, ends = np.array((a, b, rho, m, sigma)), np.zeros(2 * k.INTERVALS_MAX)
    count = k.arbitrage(params, np.zeros(k.ARBITRAGE_WORK), ends)
    intervals = ends[: 2 * count].reshape(-1, 2)
    flat = intervals.ravel()
    assert (np.diff(flat) > 0.0).all()
    x = m + sigma * np.sinh(np.linspace(-14.0, 14.0, 4_001))
    w, g = np.zeros(len(x)), np.zeros(len(x))
    k.total_variances(params, x, w)
    with np.errstate(all="ignore"):
        for i in range(len(x)):
            g[i] = k.durrleman(params, x[i]) if w[i] != 0.0 else -1.0
    inside = np.zeros(len(x), bool)
    for low, high in intervals:
        inside |= (x > low) & (x < high)
    # What is as near to zero as rounding may be on either side.
    clear = (np.abs(g) > 1e-9 * (1.0 + x * x)) & (np.abs(w) > 1e-9)
    assert (inside == ((w <= 0.0) | (g < 0.0)))[clear].all()
