"""Losses and comparisons of forecasts against hand numbers, direct formulas and simulated truth."""

import math

import numpy as np
import pytest

from alphapack.models import accuracy
from alphapack.models.accuracy import HALF_LIFE_MINUTES, MATURED_MIN, ROWS_MAX, ForecastLog
from alphapack.models.volatility import Scored


def scored(at: int, har: float = 2.0, garch: float = 3.0, rolling: float = 1.5) -> Scored:
    return Scored(at, har, 2.5, garch, rolling)


def test_vol_models_lose_nothing_by_a_perfect_forecast() -> None:
    assert accuracy.qlike(2.0, 2.0) == 0.0
    assert accuracy.qlike(2.0, 1.0) == pytest.approx(2 - math.log(2) - 1)
    assert accuracy.qlike(1.0, 2.0) < accuracy.qlike(2.0, 1.0)  # Too little feared costs more than too much.
    np.testing.assert_allclose(accuracy.losses(np.array([2.0, 1.0]), np.array([1.0, 2.0])), [1 - math.log(2), math.log(2) - 0.5])


def test_vol_models_compare_losses_by_diebold_and_mariano() -> None:
    difference = np.random.default_rng(0).normal(0.1, 1.0, 400)
    centred = difference - difference.mean()
    lag = 11
    variance = np.mean(centred**2) + 2 * sum((1 - j / (lag + 1)) * np.sum(centred[j:] * centred[:-j]) / 400 for j in range(1, lag + 1))
    assert accuracy.diebold_mariano(difference, 12) == pytest.approx(difference.mean() / math.sqrt(variance / 400), rel=1e-12)
    assert math.isnan(accuracy.diebold_mariano(difference[:5], 1))
    assert math.isnan(accuracy.diebold_mariano(np.zeros(100), 1))


def test_vol_models_are_calibrated_where_mincer_and_zarnowitz_find_the_diagonal() -> None:
    rng = np.random.default_rng(1)
    forecast = np.exp(rng.normal(0, 0.5, 3_000))
    realised = forecast * rng.chisquare(20, 3_000) / 20
    a, a_error, b, b_error, r2 = accuracy.mincer_zarnowitz(forecast, realised, 1)
    assert abs(a / a_error) < 3
    assert abs((b - 1) / b_error) < 3
    assert 0.5 < r2 < 1
    design = np.column_stack([np.ones(3_000), forecast])
    expected, *_ = np.linalg.lstsq(design, realised, rcond=None)
    np.testing.assert_allclose([a, b], expected, rtol=1e-10)
    assert all(math.isnan(one) for one in accuracy.mincer_zarnowitz(np.ones(50), realised[:50], 1))


def test_vol_models_have_errors_of_intercepts_as_the_sandwich_gives_them() -> None:
    rng = np.random.default_rng(2)
    x = np.exp(rng.normal(0, 0.5, 500))
    y = 0.2 + 0.7 * x + x * rng.standard_normal(500)
    _, a_error, _, b_error, _ = accuracy.mincer_zarnowitz(x, y, 1)
    design = np.column_stack([np.ones(500), x])
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    scores = design * (y - design @ coefficients)[:, None]
    lag = int(4 * (500 / 100) ** (2 / 9))
    long_run = scores.T @ scores + sum(
        (1 - j / (lag + 1)) * (scores[j:].T @ scores[:-j] + scores[:-j].T @ scores[j:]) for j in range(1, lag + 1)
    )
    bread = np.linalg.inv(design.T @ design)
    np.testing.assert_allclose([a_error, b_error], np.sqrt(np.diag(bread @ long_run @ bread)), rtol=1e-9)


def test_vol_models_weigh_a_blend_by_inverse_loss_with_a_half_life_of_a_day() -> None:
    log = ForecastLog(60, 5)
    lost = {"har": 0.0, "garch": 0.0}
    for i in range(MATURED_MIN + 20):
        at = 5 * i
        assert (log.har_weight == 0.5) == (i < MATURED_MIN)
        log.note(scored(at))
        log.mature(2.2 + 0.1 * (i % 3))
        for model, forecast in (("har", 2.0), ("garch", 3.0)):
            lost[model] = lost[model] * 0.5 ** (5 / HALF_LIFE_MINUTES) + accuracy.qlike(2.2 + 0.1 * (i % 3), forecast)
    assert log.har_weight == pytest.approx(lost["garch"] / (lost["har"] + lost["garch"]), rel=1e-12)
    assert log.har_weight > 0.5


def test_vol_models_hold_a_forecast_until_it_is_due_and_drop_what_cannot_be_judged() -> None:
    log = ForecastLog(10, 5)
    for at in (5, 10, 15):
        log.note(scored(at))
    assert log.due(14) == []
    assert log.due(20) == [5, 10]
    log.mature(1.0)
    log.mature(None)
    assert log.due(99) == [15]
    log.mature(0.0)
    assert log.due(99) == []
    compared, _ = log.compare()
    assert (log.matured, compared["har"].n, compared["har"].unmoved) == (2, 2, 1)


def test_vol_models_count_a_halt_for_no_more_than_it_is() -> None:
    log = ForecastLog(5, 5)
    for i in range(100):
        log.note(scored(5 * i, har=1.0, garch=1.0 if i != 50 else 1e-9))
        log.mature(1.2)
    assert 0.5 < log.har_weight < 0.95


def test_vol_models_keep_a_bounded_past() -> None:
    log = ForecastLog(5, 5)
    for i in range(ROWS_MAX + 50):
        log.note(scored(5 * i))
        log.mature(1.0)
    compared, _ = log.compare()
    assert compared["plain"].n == ROWS_MAX
    assert log.matured == ROWS_MAX + 50


def test_vol_models_go_on_from_saved_scores_as_if_nothing_had_been() -> None:
    one, other = ForecastLog(10, 5), ForecastLog(10, 5)
    for log in (one, other):
        for i in range(60):
            log.note(scored(5 * i, har=1.0 + i / 60))
            for _ in log.due(5 * i):
                log.mature(1.5)
    other = ForecastLog(10, 5)
    other.load(*one.save())
    for log in (one, other):
        log.note(scored(400))
        log.mature(1.1)
    assert one.har_weight == other.har_weight
    assert repr(one.compare()) == repr(other.compare())


def test_vol_models_tell_the_better_of_two() -> None:
    log, rng = ForecastLog(5, 5), np.random.default_rng(3)
    for i in range(500):
        truth = math.exp(rng.normal(0, 0.5))
        log.note(Scored(5 * i, truth * math.exp(rng.normal(0, 0.1)), 1.0, truth * math.exp(rng.normal(0, 0.4)), 1.0))
        log.mature(truth * rng.chisquare(30) / 30)
    compared, har_garch = log.compare()
    assert har_garch < -3
    assert compared["har"].dm_t < -3
    assert compared["har"].qlike < compared["garch"].qlike < compared["rolling"].qlike
    assert abs(compared["har"].slope - 1) < 0.1
