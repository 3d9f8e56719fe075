"""The factors of a week's minutes: found where they were planted, flat where nothing is known."""

import numpy as np
import pytest

from alphapack.models import diurnal
from alphapack.models.diurnal import DAY, FLAT, WEEK, minute_of_week
from alphapack.models.minutes import MinuteGrid

MONDAY = 4 * DAY
"""1970-01-05."""


def planted(days: int, seed: int, weekend: float = 1.0) -> tuple[MinuteGrid, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    phase = 2 * np.pi * (np.arange(DAY) + 0.5) / DAY
    day = np.exp(0.6 * np.sin(phase) + 0.3 * np.cos(3 * phase))
    week = np.concatenate([day] * 5 + [day * weekend] * 2)
    week /= week.mean()
    rng = np.random.default_rng(seed)
    levels = np.exp(rng.normal(0, 0.5, days)).repeat(DAY)
    returns = rng.standard_normal(days * DAY) * np.sqrt(1e-7 * levels * np.tile(week, days // 7 + 1)[: days * DAY])
    return MinuteGrid.of(MONDAY, returns), week


def test_vol_models_find_the_planted_profile_of_a_day() -> None:
    grid, week = planted(35, 1)
    found = diurnal.fit(grid).week()
    assert abs(found.mean() - 1.0) < 1e-9
    # 35 days of chi-squared noise leave 13 coefficients an error of about 1.2% each.
    assert np.sqrt(np.mean(np.log(found / week) ** 2)) < 0.08
    assert np.corrcoef(np.log(found[:DAY]), np.log(week[:DAY]))[0, 1] > 0.99


def test_vol_models_find_a_calm_weekend_and_shrink_what_may_be_chance() -> None:
    found = diurnal.fit(planted(70, 2, weekend=0.4)[0]).weekend
    assert 0.2 < found < 0.8
    by_chance = diurnal.fit(planted(70, 3)[0]).weekend
    assert abs(np.log(by_chance)) < 0.2


def test_vol_models_do_not_let_one_jump_draw_the_day() -> None:
    grid, _ = planted(30, 4)
    before = diurnal.fit(grid).week()
    jumped = grid.returns.copy()
    jumped[10 * DAY + 700] = 0.2
    after = diurnal.fit(MinuteGrid.of(MONDAY, jumped)).week()
    assert np.abs(np.log(after / before)).max() < 0.25


def test_vol_models_of_too_few_or_constant_days_are_flat() -> None:
    grid, _ = planted(4, 5)
    assert diurnal.fit(grid) == FLAT
    assert diurnal.fit(MinuteGrid.of(MONDAY, np.zeros(20 * DAY))) == FLAT


def test_vol_models_give_factors_where_nothing_is_traded_for_half_of_each_day() -> None:
    rng = np.random.default_rng(6)
    returns = rng.standard_normal(20 * DAY) * 1e-4
    returns[np.arange(20 * DAY) % DAY < 700] = 0.0
    week = diurnal.fit(MinuteGrid.of(MONDAY, returns)).week()
    assert np.isfinite(week).all()
    assert (week > 0).all()
    assert week[900] > 20 * week[300]


@pytest.mark.parametrize(("minute", "place"), [(0, 3 * DAY), (MONDAY, 0), (MONDAY + WEEK - 1, WEEK - 1), (MONDAY + WEEK, 0)])
def test_vol_models_know_that_the_epoch_began_on_a_thursday(minute: int, place: int) -> None:
    assert minute_of_week(minute) == place
