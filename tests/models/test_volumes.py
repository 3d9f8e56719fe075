"""The volume of the minutes to come, by the time of day."""

import numpy as np
import pytest

from alphapack.arrays import Float64Array2D
from alphapack.models.volumes import DAY_MINUTES, DAYS_MIN, HALF_WIDTH, profile

START_MS = 1_700_006_400_000  # Midnight, UTC.


def candles(volumes: list[float]) -> Float64Array2D:
    rows = np.ones((len(volumes), 6))
    rows[:, 0] = START_MS + 60_000 * np.arange(len(volumes))
    rows[:, 5] = volumes
    return rows


def test_execution_planner_volume_profile_is_the_mean_of_the_days_before() -> None:
    days = 4
    rng = np.random.default_rng(5)
    volumes = rng.uniform(1.0, 9.0, days * DAY_MINUTES)
    from_ms = START_MS + days * DAY_MINUTES * 60_000 + 600 * 60_000 + 17
    found = profile(candles(volumes.tolist()), from_ms, 5)
    by_day = volumes.reshape(days, DAY_MINUTES)
    wanted = [by_day[:, 600 + i - HALF_WIDTH : 600 + i + HALF_WIDTH + 1].mean() for i in range(5)]
    assert found is not None
    assert found == pytest.approx(wanted, rel=1e-12)


def test_execution_planner_volume_profile_goes_round_midnight() -> None:
    volumes = np.tile(np.arange(DAY_MINUTES) >= DAY_MINUTES // 2, DAYS_MIN).astype(float)
    found = profile(candles(volumes.tolist()), START_MS + DAYS_MIN * DAY_MINUTES * 60_000 - 60_000, 2)
    assert found is not None
    width = 2 * HALF_WIDTH + 1
    assert found == pytest.approx([(HALF_WIDTH + 1) / width, HALF_WIDTH / width])


def test_execution_planner_volume_profile_of_little_or_of_nothing_is_none() -> None:
    assert profile(candles([1.0] * (DAYS_MIN * DAY_MINUTES - 1)), START_MS, 5) is None
    assert profile(candles([0.0] * (DAYS_MIN * DAY_MINUTES)), START_MS, 5) is None


@pytest.mark.parametrize("minutes", [0, DAY_MINUTES + 1])
def test_execution_planner_volume_profile_says_how_many_minutes_it_takes(minutes: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 1440 minutes, found"):
        profile(candles([1.0]), START_MS, minutes)
