"""Rank IC, line and Newey-West error: against their definitions, written out, and on data whose answer was planted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.arrays import Float64Array1D
from alphapack.models import prediction

VALUES = st.lists(st.one_of(st.integers(-9, 9).map(float), st.just(math.nan)), min_size=0, max_size=40)
PAIRS = st.lists(st.tuples(st.integers(-50, 50).map(float), st.integers(-50, 50).map(float)), min_size=8, max_size=60)


def written_out(x: Float64Array1D, y: Float64Array1D, lag: int) -> tuple[float, float, float]:
    """Return slope, its error and R2 of the known pairs: normal equations, and the sandwich as a double sum over pairs of times."""
    at = [i for i in range(len(x)) if math.isfinite(x[i]) and math.isfinite(y[i])]
    design = np.array([[1.0, x[i]] for i in at])
    target = np.array([y[i] for i in at])
    bread = np.linalg.inv(design.T @ design)
    beta = bread @ design.T @ target
    residual = target - design @ beta
    meat = np.zeros((2, 2))
    for i, time in enumerate(at):
        for j, other in enumerate(at):
            weight = max(0.0, 1.0 - abs(time - other) / (lag + 1.0))
            meat += weight * residual[i] * residual[j] * np.outer(design[i], design[j])
    centred = target - target.mean()
    return beta[1], math.sqrt((bread @ meat @ bread)[1, 1]), 1.0 - float(residual @ residual) / float(centred @ centred)


def planted(seed: int, n: int, overlap: int, slope: float) -> tuple[Float64Array1D, Float64Array1D]:
    """Return a slow feature and overlapping sums of returns that follow it by ``slope`` a step."""
    draws = np.random.default_rng(seed)
    feature = np.zeros(n)
    for i, shock in enumerate(draws.standard_normal(n - 1)):
        feature[i + 1] = 0.9 * feature[i] + shock
    steps = slope * feature + draws.standard_normal(n)
    total = np.concatenate(([0.0], np.cumsum(steps)))
    moves = np.full(n, np.nan)
    moves[: n - overlap + 1] = total[overlap:] - total[:-overlap]
    return feature, moves


@given(VALUES)
def test_ranks_count_smaller_values_and_share_ties(values: list[float]) -> None:
    found = prediction.ranks(np.array(values))
    known = [value for value in values if not math.isnan(value)]
    for value, rank in zip(values, found, strict=True):
        expected = sum(other < value for other in known) + 0.5 * (sum(other == value for other in known) + 1)
        assert math.isnan(rank) if math.isnan(value) else rank == expected


@pytest.mark.parametrize(
    ("n", "overlap", "lag"), [(100, 1, 4), (100, 10, 9), (1_000, 1, 6), (3_600, 5, 8), (3_600, 600, 599), (5, 60, 4), (1, 3, 0), (0, 1, 0)]
)
def test_the_lag_is_the_longer_of_overlap_and_rule_and_shorter_than_the_sample(n: int, overlap: int, lag: int) -> None:
    assert prediction.newey_west_lag(n, overlap) == lag


@given(st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=40), st.integers(0, 39))
def test_the_long_run_variance_is_the_weighted_sum_of_autocovariances(scores: list[float], lag: int) -> None:
    n, lag = len(scores), min(lag, len(scores) - 1)
    expected = sum((1.0 - abs(i - j) / (lag + 1.0)) * scores[i] * scores[j] / n for i in range(n) for j in range(n) if abs(i - j) <= lag)
    found = prediction.long_run_variance(np.array(scores), lag)
    assert found >= 0.0
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(PAIRS, st.integers(1, 12), st.sets(st.integers(0, 59), max_size=6))
def test_a_fit_is_the_sandwich_written_out_and_unknown_pairs_keep_their_place(
    pairs: list[tuple[float, float]], overlap: int, unknown: set[int]
) -> None:
    x, y = (np.array(column) for column in zip(*pairs, strict=True))
    for i in sorted(unknown):
        (x if i % 2 else y)[i % len(x)] = math.nan
    known = np.isfinite(x) & np.isfinite(y)
    fit = prediction.regress(x, y, overlap)
    assert fit.n == known.sum()
    if fit.n < prediction.PAIRS_MIN or np.ptp(x[known]) == 0.0:
        assert math.isnan(fit.slope) and math.isnan(fit.t) and not fit.is_significant
        return
    if np.ptp(y[known]) == 0.0:
        assert (fit.slope, math.isnan(fit.r2), fit.is_significant) == (0.0, True, False)
        return
    slope, error, r2 = written_out(x, y, fit.lag)
    assert fit.slope == pytest.approx(slope, rel=1e-9, abs=1e-9)
    assert fit.error == pytest.approx(error, rel=1e-6, abs=1e-7)
    assert fit.r2 == pytest.approx(r2, rel=1e-9, abs=1e-9)


def test_leading_and_trailing_unknown_pairs_change_nothing() -> None:
    x, y = planted(3, 400, 5, 0.1)
    edge = np.full(50, np.nan)
    padded = prediction.regress(np.concatenate((edge, x, edge)), np.concatenate((edge, y, edge)), 5)
    assert padded == prediction.regress(x, y, 5)


@given(PAIRS, st.integers(1, 12))
def test_an_ic_is_the_correlation_of_ranks_and_only_the_order_matters(pairs: list[tuple[float, float]], overlap: int) -> None:
    x, y = (np.array(column) for column in zip(*pairs, strict=True))
    fit = prediction.rank_ic(x, y, overlap)
    if np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        assert math.isnan(fit.slope) and math.isnan(fit.t)
        return
    expected = np.corrcoef(prediction.ranks(x), prediction.ranks(y))[0, 1]
    assert fit.slope == pytest.approx(expected, abs=1e-12)
    assert -1.0 - 1e-12 <= fit.slope <= 1.0 + 1e-12
    assert prediction.rank_ic(np.arctan(x), y**3, overlap) == fit
    turned = prediction.rank_ic(-x, y, overlap)
    assert (turned.slope, turned.error) == pytest.approx((-fit.slope, fit.error), abs=1e-9)


def test_only_pairs_that_are_known_are_ranked() -> None:
    x, y = planted(4, 200, 5, 0.3)
    x[::3] += 100.0
    y[::3] = math.nan
    known = np.isfinite(y)
    expected = np.corrcoef(prediction.ranks(x[known]), prediction.ranks(y[known]))[0, 1]
    assert prediction.rank_ic(x, y, 5).slope == pytest.approx(expected, abs=1e-12)


def test_a_planted_slope_is_found_within_its_error() -> None:
    found = []
    for seed in range(60):
        fit = prediction.regress(*planted(seed, 2_000, 1, 0.2), 1)
        assert fit.is_significant
        found.append((fit.slope - 0.2) / fit.error)
    assert np.mean(np.abs(found) < 2.0) > 0.85
    assert 0.8 < np.std(found) < 1.25


def test_without_a_relation_overlap_alone_is_rarely_taken_for_one() -> None:
    fits = [prediction.rank_ic(*planted(seed, 3_000, 50, 0.0), 50) for seed in range(200)]
    naive = [math.sqrt(fit.n) * fit.slope for fit in fits]
    assert np.mean(np.abs(naive) > 1.96) > 0.4
    assert np.mean([fit.is_significant for fit in fits]) < 0.12
    assert all(50 < fit.n_effective < 0.2 * fit.n for fit in fits)


def test_critical_values_are_those_of_a_simulated_mean() -> None:
    """The distribution is that of the mean of independent draws over its own Bartlett error, whatever is drawn."""
    draws = np.random.default_rng(7)
    n = 300
    for share in (0.02, 0.1, 0.3, 1.0):
        lag = int(share * n) - 1
        t = []
        for _ in range(4_000):
            scores = draws.standard_normal(n)
            mean = scores.mean()
            t.append(abs(mean) / math.sqrt(prediction.long_run_variance(scores - mean, lag) / n))
        assert np.mean(np.array(t) > prediction.critical_value(lag, n)) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(("share", "value"), [(0.1, 2.2606), (0.5, 3.4822), (1.0, 4.8130)])
def test_critical_values_are_those_published(share: float, value: float) -> None:
    assert prediction.critical_value(round(1_000 * share) - 1, 1_000) == pytest.approx(value, abs=1e-4)


def test_a_line_that_misses_nothing_has_an_infinite_t() -> None:
    x = np.arange(16.0)
    fit = prediction.regress(x, -2.0 * x, 1)
    assert (fit.slope, fit.error, fit.r2, fit.t) == (-2.0, 0.0, 1.0, -math.inf)
    assert fit.is_significant
