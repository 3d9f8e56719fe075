"""The z-score of a risk reversal against its own month."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models.skew import HOUR_MS, OBSERVATIONS_MIN, SD_MIN, WINDOW_MS, Z_MAX, SkewHistory

START_MS = 1_770_000_000_000


def _noted(values: list[float], step_ms: int = HOUR_MS) -> SkewHistory:
    history = SkewHistory()
    for i, value in enumerate(values):
        history.note(START_MS + i * step_ms, value)
    return history


@given(st.lists(st.floats(-0.3, 0.3), min_size=OBSERVATIONS_MIN, max_size=60), st.floats(-0.3, 0.3))
def test_options_smile_z_is_the_textbook_one(values: list[float], now: float) -> None:
    z = _noted(values).z(START_MS + len(values) * HOUR_MS, now)
    sd = statistics.stdev(values)
    if sd < SD_MIN * 0.999:
        assert z is None
    elif sd > SD_MIN * 1.001:
        assert z == pytest.approx(max(-Z_MAX, min(Z_MAX, (now - statistics.fmean(values)) / sd)), abs=1e-9)


def test_options_smile_z_needs_twenty_observations_that_deviate() -> None:
    values = [0.01 * (i % 3) for i in range(OBSERVATIONS_MIN)]
    end_ms = START_MS + OBSERVATIONS_MIN * HOUR_MS
    assert _noted(values[:-1]).z(end_ms, 0.0) is None
    assert _noted(values).z(end_ms, 0.0) is not None
    assert _noted([0.05] * 40).z(START_MS + 40 * HOUR_MS, 0.3) is None


def test_options_smile_z_leaves_out_the_current_one_and_what_came_after_it() -> None:
    values = [0.01 * (i % 5) for i in range(30)]
    history = _noted(values)
    before = history.z(START_MS + 29 * HOUR_MS, 0.02)
    assert before == pytest.approx((0.02 - statistics.fmean(values[:29])) / statistics.stdev(values[:29]))


def test_options_smile_z_is_clipped() -> None:
    history = _noted([0.001 * (i % 2) for i in range(30)])
    assert history.z(START_MS + 30 * HOUR_MS, 5.0) == Z_MAX
    assert history.z(START_MS + 30 * HOUR_MS, -5.0) == -Z_MAX


def test_options_smile_history_takes_one_observation_an_hour() -> None:
    history = _noted([float(i) for i in range(25)], HOUR_MS // 4)
    assert [value for _, value in history.observations] == [0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0]
    history.note(START_MS, 9.0)
    assert history.observations[-1][1] == 24.0, "an older chain that comes late is no observation"


def test_options_smile_history_forgets_what_is_older_than_thirty_days() -> None:
    history = _noted([float(i % 7) for i in range(1_000)])
    assert len(history.observations) == WINDOW_MS // HOUR_MS + 1
    assert history.observations[0][0] == START_MS + (999 - WINDOW_MS // HOUR_MS) * HOUR_MS
