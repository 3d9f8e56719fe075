"""The kernels of GARCH(1,1) against plain loops, complex steps and decimal arithmetic."""

import cmath
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interpreted
from alphapack.kernels import garch as g

NONE = np.zeros(0, np.uint8)


def simulated(seed: int, n: int, omega: float = 0.05, alpha: float = 0.1, beta: float = 0.85) -> np.ndarray:
    chance, h, path = np.random.default_rng(seed), omega / (1.0 - alpha - beta), np.empty(n)
    for t in range(n):
        path[t] = math.sqrt(h) * chance.standard_normal()
        h = omega + alpha * path[t] ** 2 + beta * h
    return path


def gaps(seed: int, n: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) > 0.2).astype(np.uint8)


def slow(z, valid, theta, presample):
    """Return log-likelihood (without its constant), scores minute by minute and variances; parameters may be complex."""
    mu, omega, alpha, beta = theta
    there = [t for t in range(len(z)) if len(valid) == 0 or valid[t]]
    h = sum((z[t] - mu) ** 2 for t in there) / len(there) if math.isnan(presample) else presample
    h, logliks, variances = omega + (alpha + beta) * h, [], []
    for t in range(len(z)):
        variances.append(h)
        if len(valid) == 0 or valid[t]:
            e2 = (z[t] - mu) ** 2
            logliks.append(-0.5 * (cmath.log(h) + e2 / h))
            h = omega + alpha * e2 + beta * h
        else:
            h = omega + (alpha + beta) * h
    return logliks, variances, h


def scores(z, valid, theta, presample):
    """Return the score of every minute, by complex steps: exact to rounding."""
    columns = []
    for i in range(4):
        moved = [complex(one, 1e-30 if i == j else 0.0) for j, one in enumerate(theta)]
        columns.append([one.imag / 1e-30 for one in slow(z, valid, moved, presample)[0]])
    return np.array(columns).T


def evaluated(z, valid, theta, presample, kind, constant=True):
    work = np.zeros(g.WORK)
    work[g.CONSTANT] = constant
    assert g.moments(z, valid, work)
    work[g.SCALE], work[g.CENTER] = 1.0, 0.0
    there = z if len(valid) == 0 else z[valid != 0]
    work[g.MEAN], work[g.SQUARE], work[g.PRESAMPLE] = there.mean(), (there**2).mean(), presample
    work[:4] = theta
    g.evaluate(z, valid, work, 0, kind)
    curvature = np.zeros((4, 4))
    curvature[np.tril_indices(4)] = work[g.CURVATURE : g.CURVATURE + 10]
    return work, curvature + np.tril(curvature, -1).T


THETA = (0.03, 0.07, 0.12, 0.8)
CASES = [(n, missing, presample) for n in (50, 64, 200) for missing in (False, True) for presample in (math.nan, 0.7)]


@pytest.mark.parametrize(("n", "missing", "presample"), CASES)
def test_vol_models_likelihood_gradient_and_curvatures_are_those_of_a_slow_twin(n: int, missing: bool, presample: float) -> None:
    z, valid = simulated(n, n), gaps(n, n) if missing else NONE
    logliks, _, following = slow(z, valid, THETA, presample)
    work, hessian = evaluated(z, valid, THETA, presample, g.EXACT)
    assert work[g.LOGLIK] == pytest.approx(sum(logliks).real, rel=1e-13)
    assert work[g.NEXT] == pytest.approx(following, rel=1e-13)
    each = scores(z, valid, THETA, presample)
    np.testing.assert_allclose(work[g.SCORE : g.SCORE + 4], each.sum(axis=0), rtol=1e-10, atol=1e-10)
    for i in range(4):
        step = 1e-4
        beside = [[one + (k * step if i == j else 0.0) for j, one in enumerate(THETA)] for k in (-2, -1, 1, 2)]
        far_down, down, up, far_up = (scores(z, valid, theta, presample).sum(axis=0) for theta in beside)
        bend = (far_down - 8.0 * down + 8.0 * up - far_up) / (12.0 * step)
        np.testing.assert_allclose(hessian[i], -bend, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(evaluated(z, valid, THETA, presample, g.OUTER)[1], each.T @ each, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("missing", [False, True])
def test_vol_models_fisher_information_is_that_of_fcp(missing: bool) -> None:
    z, valid = simulated(5, 150), gaps(5, 150) if missing else NONE
    slopes = []
    for i in range(4):
        moved = [complex(one, 1e-30 if i == j else 0.0) for j, one in enumerate(THETA)]
        slopes.append([h.imag / 1e-30 for h in slow(z, valid, moved, math.nan)[1]])
    variances = np.array([h.real for h in slow(z, valid, [complex(one) for one in THETA], math.nan)[1]])
    there = np.ones(150, bool) if len(valid) == 0 else valid != 0
    relative = (np.array(slopes) / variances)[:, there]
    expected = 0.5 * relative @ relative.T
    expected[0, 0] += (1.0 / variances[there]).sum()
    expected[0, 1:] = expected[1:, 0] = 0.0
    np.testing.assert_allclose(evaluated(z, valid, THETA, math.nan, g.FISHER)[1], expected, rtol=1e-11)


def test_vol_models_a_zero_mean_leaves_mu_out() -> None:
    z = simulated(1, 200)
    with_mean, curved = evaluated(z, NONE, (0.0, *THETA[1:]), math.nan, g.EXACT)
    without, plain = evaluated(z, NONE, (0.0, *THETA[1:]), math.nan, g.EXACT, constant=False)
    assert without[g.LOGLIK] == with_mean[g.LOGLIK]
    assert without[g.SCORE : g.SCORE + 4].tolist() == [0.0, *with_mean[g.SCORE + 1 : g.SCORE + 4].tolist()]
    assert plain[1:, 1:].tolist() == curved[1:, 1:].tolist()


def prepared(constant: float, presample: float = math.nan) -> np.ndarray:
    work = np.zeros(g.WORK)
    work[g.CONSTANT], work[g.PRESAMPLE] = constant, presample
    return work


@pytest.mark.parametrize("constant", [0.0, 1.0])
@pytest.mark.parametrize("missing", [False, True])
def test_vol_models_compiled_and_interpreted_kernels_agree_to_the_bit(
    constant: float, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreted, "NAMES", ("garch",))
    plain = interpreted.modules()["garch"]
    r, valid = 6e-4 * simulated(2, 90), gaps(2, 90) if missing else NONE
    compiled, slowly = prepared(constant, -1.0), prepared(constant, -1.0)
    compiled[:4] = slowly[:4] = 1e-5, 2e-8, 0.1, 0.8
    with np.errstate(all="ignore"):
        assert g.fit(r, valid, compiled, True) == plain.fit(r, valid, slowly, True)
    assert interpreted.bits(compiled) == interpreted.bits(slowly)
    factors = np.linspace(0.5, 1.5, 70)
    for h in (1e-7, 3.0):
        for one in ((1e-9, 0.05, 0.94), (0.0, 0.1, 0.95)):
            assert interpreted.bits(g.aggregated(h, *one, 61)) == interpreted.bits(plain.aggregated(h, *one, 61))
            assert interpreted.bits(g.weighted(h, *one, factors)) == interpreted.bits(plain.weighted(h, *one, factors))
            first, second = np.empty(90), np.empty(90)
            found = g.walk(r, valid, 0.0, *one, h, first), plain.walk(r, valid, 0.0, *one, h, second)
            assert interpreted.bits(found[0]) == interpreted.bits(found[1])
            assert interpreted.bits(first) == interpreted.bits(second)


PERSISTENCES = st.one_of(
    st.floats(0.0, 1.05),
    st.sampled_from([0.0, 0.5, 1.0 - 1e-4, 1.0 - 1e-8, 1.0 - 1e-12, 1.0, 1.0 + 1e-12, 1.0 + 1e-8, 1.05]),
)


@settings(max_examples=60)
@given(
    PERSISTENCES,
    st.floats(0.0, 1.0),
    st.one_of(st.just(0.0), st.floats(1e-12, 10.0)),
    st.floats(1e-9, 1e3),
    st.one_of(st.integers(1, 10_080), st.sampled_from([1, 2, 60, 1_440, 10_080])),
)
def test_vol_models_aggregate_is_the_summed_recursion(persistence: float, share: float, omega: float, h: float, horizon: int) -> None:
    alpha = share * persistence
    beta = persistence - alpha
    with localcontext() as context:
        context.prec = 40
        p, w, x, total = Decimal(alpha) + Decimal(beta), Decimal(omega), Decimal(h), Decimal(0)
        for _ in range(horizon):
            total += x
            x = w + p * x
    assert g.aggregated(h, omega, alpha, beta, horizon) == pytest.approx(float(total), rel=1e-12)


def test_vol_models_double_products_keep_twice_the_digits() -> None:
    with localcontext() as context:
        context.prec = 60
        for a, b in ((0.1, 0.3), (1.0 + 2.0**-52, 1.0 - 2.0**-53), (1.05, 1.05), (123.456, 1e-200)):
            high, low = g.product(a, 0.0, b, 0.0)
            exact = Decimal(a) * Decimal(b)
            assert abs(Decimal(high) + Decimal(low) - exact) <= exact * Decimal(2) ** -100
