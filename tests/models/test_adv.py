"""A day's volume from candles that may not cover a day."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.models.minutes import MINUTE_MS
from alphapack.models.volumes import DAY_MINUTES, KNOWN_MINUTES_MIN, adv

T0 = 1_723_161_600_000


def candles(minutes: np.ndarray, volume: float | np.ndarray = 2.0) -> np.ndarray:
    rows = np.full((len(minutes), 6), 100.0)
    rows[:, 0] = T0 + MINUTE_MS * minutes
    rows[:, 5] = volume
    return rows


def test_execution_planner_adv_is_the_volume_of_the_last_day() -> None:
    rows = candles(np.arange(3 * DAY_MINUTES), np.repeat([7.0, 5.0, 3.0], DAY_MINUTES))
    assert adv(rows) == 3.0 * DAY_MINUTES
    assert adv(rows[:-1]) == 3.0 * (DAY_MINUTES - 1) + 5.0


@settings(max_examples=25)
@given(st.sets(st.integers(0, DAY_MINUTES - 1), min_size=KNOWN_MINUTES_MIN, max_size=400))
def test_execution_planner_adv_is_scaled_up_by_what_is_known(minutes: set[int]) -> None:
    assert adv(candles(np.array(sorted(minutes)))) == pytest.approx(2.0 * DAY_MINUTES, rel=1e-12)


def test_execution_planner_adv_of_less_than_an_hour_is_not_known() -> None:
    assert adv(candles(np.arange(KNOWN_MINUTES_MIN - 1))) is None
    assert adv(candles(np.arange(KNOWN_MINUTES_MIN))) is not None
    assert adv(np.empty((0, 6))) is None
    long_ago = np.append(np.arange(500), np.arange(30) + 10 * DAY_MINUTES)
    assert adv(candles(long_ago)) is None, "only the last thirty are of the last day"


def test_execution_planner_adv_of_nothing_is_not_known() -> None:
    assert adv(candles(np.arange(DAY_MINUTES), 0.0)) is None
    assert adv(candles(np.arange(DAY_MINUTES), np.append(np.zeros(DAY_MINUTES - 1), 1.0))) == 1.0
