"""The kernels of impact against plain sums, and the gradients against differences."""

import math

import numpy as np
import pytest

from alphapack.kernels import impact as k
from interpreted import bits, modules

compiled = pytest.mark.skipif(not hasattr(k.levels, "py_func"), reason="kernels are interpreted here")
LOG_K, A, SCALE, THRESHOLD = 4.9, 0.55, 1.3, 1.345


def sample(n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log shares, costs of any sign with outliers, and noise."""
    chance = np.random.default_rng(1)
    logs = chance.uniform(-12.0, -4.0, n)
    noise = chance.uniform(0.5, 2.0, n)
    return logs, np.exp(LOG_K + A * logs) + noise * chance.standard_t(2, n), noise


def levels(log_k: float = LOG_K, a: float = A, threshold: float = THRESHOLD) -> np.ndarray:
    sums = np.full(k.SUMS, 7.0)
    k.levels(*sample(), SCALE, log_k, a, threshold, sums)
    return sums


def proportions(log_k: float = LOG_K, a: float = A) -> np.ndarray:
    logs, costs, _ = sample()
    sums = np.full(k.SUMS, 7.0)
    k.proportions(logs, np.abs(costs), SCALE, log_k, a, sums)
    return sums


def outer(scores: np.ndarray, logs: np.ndarray) -> list[float]:
    return [math.fsum(scores * logs**power) for power in range(3)]


@pytest.mark.parametrize("threshold", [THRESHOLD, math.inf])
def test_execution_planner_impact_levels_equal_plain_sums(threshold: float) -> None:
    logs, costs, noise = sample()
    impact = np.exp(LOG_K + A * logs)
    pull, residual = impact / (SCALE * noise), (costs - impact) / (SCALE * noise)
    inside = np.abs(residual) <= threshold
    assert inside.all() == math.isinf(threshold)
    loss = np.where(inside, residual**2 / 2, THRESHOLD * (np.abs(residual) - THRESHOLD / 2))
    weight = np.where(inside, 1.0, THRESHOLD / np.abs(residual))
    score = weight * residual * pull
    curvature = np.where(inside, pull**2, 0.0) - score
    expected = [
        loss.sum(),
        *outer(score, logs)[:2],
        *outer(curvature, logs),
        *outer(weight * pull**2, logs),
        *outer(score**2, logs),
        np.sum(residual**2),
    ]
    np.testing.assert_allclose(levels(threshold=threshold), expected, rtol=1e-12)


def test_execution_planner_impact_proportions_equal_plain_sums() -> None:
    logs, costs, _ = sample()
    ratio = np.abs(costs) / np.exp(LOG_K + A * logs)
    residual = (ratio - 1.0) / SCALE
    score = residual / SCALE
    loss = np.sum(ratio + LOG_K + A * logs) / SCALE**2
    expected = [
        loss,
        *outer(score, logs)[:2],
        *outer(ratio / SCALE**2, logs),
        *outer(np.full(len(logs), SCALE**-2), logs),
        *outer(score**2, logs),
        np.sum(residual**2),
    ]
    np.testing.assert_allclose(proportions(), expected, rtol=1e-12)


@pytest.mark.parametrize("sums", [levels, proportions])
def test_execution_planner_impact_scores_are_minus_the_gradient_of_the_loss(sums: object) -> None:
    assert callable(sums)
    step = 1e-5
    by_k = (sums(LOG_K + step)[k.LOSS] - sums(LOG_K - step)[k.LOSS]) / (2.0 * step)
    by_a = (sums(a=A + step)[k.LOSS] - sums(a=A - step)[k.LOSS]) / (2.0 * step)
    np.testing.assert_allclose(sums()[k.SCORE : k.CURVATURE], [-by_k, -by_a], rtol=1e-6)


@pytest.mark.parametrize("sums", [levels, proportions])
def test_execution_planner_impact_curvature_is_minus_the_change_of_the_scores(sums: object) -> None:
    assert callable(sums)
    step = 1e-6
    by_k = (sums(LOG_K - step) - sums(LOG_K + step))[k.SCORE : k.CURVATURE] / (2.0 * step)
    by_a = (sums(a=A - step) - sums(a=A + step))[k.SCORE : k.CURVATURE] / (2.0 * step)
    uu, ua, aa = sums()[k.CURVATURE : k.INFORMATION]
    np.testing.assert_allclose([by_k, by_a], [[uu, ua], [ua, aa]], rtol=1e-5)


def test_execution_planner_impact_information_is_the_curvature_of_a_model_that_fits() -> None:
    logs, _, noise = sample()
    sums = np.zeros(k.SUMS)
    k.levels(logs, np.array([math.exp(LOG_K + A * log) for log in logs.tolist()]), noise, SCALE, LOG_K, A, THRESHOLD, sums)
    np.testing.assert_allclose(sums[k.CURVATURE : k.INFORMATION], sums[k.INFORMATION : k.OUTER], rtol=1e-12)
    assert sums[k.LOSS] < 1e-24


@compiled
def test_execution_planner_impact_kernels_give_the_same_bits_compiled_and_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interpreted.NAMES", ("impact",))
    plain = modules()["impact"]
    logs, costs, noise = sample()
    first, second = np.zeros(k.SUMS), np.zeros(k.SUMS)
    for threshold in (THRESHOLD, math.inf):
        k.levels(logs, costs, noise, SCALE, LOG_K, A, threshold, first)
        plain.levels(logs, costs, noise, SCALE, LOG_K, A, threshold, second)
        assert bits(first) == bits(second)
    k.proportions(logs, np.abs(costs), SCALE, LOG_K, A, first)
    plain.proportions(logs, np.abs(costs), SCALE, LOG_K, A, second)
    assert bits(first) == bits(second)
