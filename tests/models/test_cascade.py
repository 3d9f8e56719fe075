"""The log cascade against a twin that sums every window anew, and what it says where little is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.arrays import Float64Array1D
from alphapack.models import cascade
from alphapack.models.cascade import BORROWED, COVERAGE_FIT, NotEnough, bipower_lags_of, lags_of
from alphapack.models.diurnal import DAY, WEEK, minute_of_week
from alphapack.models.minutes import MinuteGrid

FIRST = 29_000_000
N = WEEK + 3_000


def varying(n: int = N, seed: int = 0) -> Float64Array1D:
    """Returns whose volatility wanders."""
    rng = np.random.default_rng(seed)
    level = np.zeros(n)
    for scale, kept in ((0.05, 0.99), (0.02, 0.999)):
        shocks, x = rng.normal(0, scale, n), 0.0
        for i in range(n):
            x = kept * x + shocks[i]
            level[i] += x
    returns: Float64Array1D = rng.standard_normal(n) * 6e-4 * np.exp(level)
    return returns


def week_of(seed: int = 3) -> Float64Array1D:
    week = np.exp(np.random.default_rng(seed).normal(0, 0.3, WEEK))
    return week / week.mean()


def gappy(returns: Float64Array1D) -> Float64Array1D:
    holed = returns.copy()
    holed[500:520] = np.nan
    holed[N - 2_000 : N - 1_990] = np.nan
    holed[::97] = np.nan
    return holed


def slow_logs(returns: Float64Array1D, week: Float64Array1D, at: int, horizon: int) -> list[float]:
    """Return the logarithms of the windows that end at place ``at``, each summed for itself."""
    factors = np.array([week[minute_of_week(FIRST + i)] for i in range(at - WEEK + 1, at + 1)])
    size = np.abs(returns[at - WEEK + 1 : at + 1]) / np.sqrt(factors)
    pairs = np.concatenate(([np.nan], size[1:] * size[:-1]))
    day = np.nanmean(size[-DAY:] ** 2)
    logs = []
    for lag in lags_of(horizon):
        mean = np.nanmean(size[-lag:] ** 2) if np.isfinite(size[-lag:]).any() else 0.0
        logs.append(math.log((lag * mean + BORROWED * day) / (lag + BORROWED) if lag < DAY else mean))
    for lag in bipower_lags_of(horizon):
        within = pairs[-(lag - 1) :]
        mean = math.pi / 2 * np.nanmean(within) if np.isfinite(within).any() else day
        logs.append(math.log((lag * mean + BORROWED * day) / (lag + BORROWED)))
    return logs


@pytest.mark.parametrize("horizon", [1, 7, 60, 400])
def test_vol_models_take_windows_as_the_slow_twin_does(horizon: int) -> None:
    returns, week = gappy(varying()), week_of()
    grid = MinuteGrid.of(FIRST, returns)
    for at in (WEEK + 5, N - 1_900, N - 1):
        found = cascade.logs_at(grid, 1 / np.sqrt(week), FIRST + at, horizon)
        np.testing.assert_allclose(found, slow_logs(returns, week, at, horizon), rtol=1e-11)


@pytest.mark.parametrize("horizon", [1, 60])
def test_vol_models_learn_from_the_windows_that_they_forecast_from(horizon: int) -> None:
    """The design of a fit, from prefix sums, and the windows of a forecast, summed in a kernel, are the same numbers."""
    returns, week = gappy(varying()), week_of()
    grid = MinuteGrid.of(FIRST, returns)
    prefix = cascade.sample(grid, 1 / np.sqrt(week))
    at = np.array([WEEK + 5, N - 1_500, N - 1])
    day = cascade._mean(prefix.squares, prefix.counts, at + 1 - DAY, at + 1)
    design = cascade._design(prefix, at, horizon, day)
    for row, place in zip(design, at.tolist(), strict=True):
        np.testing.assert_allclose(row, cascade.logs_at(grid, 1 / np.sqrt(week), FIRST + place, horizon), rtol=1e-8)


def test_vol_models_fit_the_cascade_as_plain_least_squares_does_where_no_slope_is_negative() -> None:
    returns = gappy(varying())
    week = week_of()
    prefix = cascade.sample(MinuteGrid.of(FIRST, returns), 1 / np.sqrt(week))
    fitted = cascade.fit(prefix, 60)
    rows, y, target = [], [], []
    factors = np.array([week[minute_of_week(FIRST + i)] for i in range(N)])
    adjusted = returns**2 / factors
    for at in range(N - 61, WEEK - 2, -5):
        windows = [adjusted[at + 1 - lag : at + 1] for lag in lags_of(60)] + [adjusted[at + 1 : at + 61]]
        if all(np.isfinite(one).mean() >= COVERAGE_FIT for one in windows):
            day = np.nanmean(windows[lags_of(60).index(DAY)])
            rows.append(slow_logs(returns, week, at, 60))
            target.append(np.nanmean(windows[-1]))
            y.append(math.log((60 * target[-1] + BORROWED * day) / (60 + BORROWED)))
    assert fitted.n == len(rows)
    free = [i for i, slope in enumerate(fitted.slopes) if slope > 0]
    design = np.column_stack([np.ones(len(rows)), np.array(rows)[:, free]])
    expected, *_ = np.linalg.lstsq(design, np.array(y), rcond=None)
    np.testing.assert_allclose([fitted.constant, *(fitted.slopes[i] for i in free)], expected, rtol=1e-7)
    smearing = np.mean(np.array(target) / np.exp(design @ expected))
    assert fitted.smearing == pytest.approx(smearing, rel=1e-9)
    assert fitted.low == pytest.approx(min(target) / cascade.RANGE, rel=1e-9)
    assert fitted.high == pytest.approx(max(target) * cascade.RANGE, rel=1e-9)
    assert 0.0 < fitted.r2 < 1.0


@given(seed=st.integers(0, 10_000), k=st.integers(1, 8), tilt=st.floats(-2, 2))
def test_vol_models_have_slopes_that_no_change_within_bounds_improves(seed: int, k: int, tilt: float) -> None:
    """Karush, Kuhn and Tucker: a free slope has no pull left, a slope at zero is pulled below."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((60, 1))
    x = 0.8 * common + rng.standard_normal((60, k))
    y = x @ rng.normal(tilt, 1, k) + rng.standard_normal(60)
    constant, slopes, r2 = cascade._least_squares(x, y)
    pull = x.T @ (y - constant - x @ slopes) / 60
    assert (slopes >= 0).all()
    assert np.abs(pull[slopes > 0]).max(initial=0) < 1e-8
    assert pull[slopes == 0].max(initial=-1) < 1e-8
    assert abs(np.mean(y - constant - x @ slopes)) < 1e-9
    assert -1e-9 <= r2 <= 1.0


def test_vol_models_sum_windows_of_more_than_a_week() -> None:
    returns, week = gappy(varying()), week_of()
    size = np.nan_to_num(returns) / np.sqrt([week[minute_of_week(FIRST + i)] for i in range(N)])
    sums = cascade.windows(MinuteGrid.of(FIRST, returns), 1 / np.sqrt(week), FIRST + N - 1, (1, WEEK + 2_500, 2 * N))
    assert sums[0].tolist() == pytest.approx([size[-1] ** 2, np.sum(size[-WEEK - 2_500 :] ** 2), np.sum(size**2)], rel=1e-12)
    assert sums[1].tolist() == [1, np.isfinite(returns[-WEEK - 2_500 :]).sum(), np.isfinite(returns).sum()]


def test_vol_models_scale_with_the_price_moves() -> None:
    """Returns times ten have variances times a hundred, at every horizon."""
    returns = varying()
    week = np.ones(WEEK)
    for factor in (10.0, 1e-3):
        small, large = MinuteGrid.of(FIRST, returns), MinuteGrid.of(FIRST, factor * returns)
        one = cascade.fit(cascade.sample(small, week), 30)
        other = cascade.fit(cascade.sample(large, week), 30)
        at = FIRST + N - 1
        low = one.predict(cascade.logs_at(small, week, at, 30))
        high = other.predict(cascade.logs_at(large, week, at, 30))
        assert high == pytest.approx(factor**2 * low, rel=1e-6)


def test_vol_models_keep_forecasts_within_what_was_seen() -> None:
    grid = MinuteGrid.of(FIRST, varying())
    fitted = cascade.fit(cascade.sample(grid, np.ones(WEEK)), 60)
    logs = cascade.logs_at(grid, np.ones(WEEK), FIRST + N - 1, 60)
    assert fitted.predict([log + 50 for log in logs]) == pytest.approx(fitted.high, rel=1e-12)
    assert fitted.predict([log - 50 for log in logs]) == pytest.approx(fitted.low, rel=1e-12)
    assert 0.0 < fitted.low < fitted.high


@given(
    constant=st.floats(-1e3, 1e3),
    slopes=st.lists(st.floats(0, 1e3), min_size=1, max_size=8),
    log=st.floats(-60, 60),
    smearing=st.floats(1e-3, 1e3),
    low=st.floats(1e-20, 1e-3),
    range_=st.floats(1, 1e6),
)
def test_vol_models_forecast_within_their_range_whatever_the_slopes(
    constant: float, slopes: list[float], log: float, smearing: float, low: float, range_: float
) -> None:
    fitted = cascade.Cascade(60, tuple(range(1, len(slopes) + 1)), (), constant, tuple(slopes), smearing, low, low * range_, 0.5, 100)
    assert low <= fitted.predict([log] * len(slopes)) <= low * range_


def test_vol_models_forecast_from_windows_without_a_move_but_not_from_a_day_without() -> None:
    returns = varying()
    returns[-300:] = 0.0
    calm = MinuteGrid.of(FIRST, returns)
    assert all(math.isfinite(log) for log in cascade.logs_at(calm, np.ones(WEEK), calm.end - 1, 5))
    returns[-DAY:] = 0.0
    dead = MinuteGrid.of(FIRST, returns)
    with pytest.raises(NotEnough, match="moved within the last day, found a constant one"):
        cascade.logs_at(dead, np.ones(WEEK), dead.end - 1, 5)


def test_vol_models_refuse_windows_of_which_too_little_is_known() -> None:
    returns = varying()
    returns[-40:-5] = np.nan
    grid = MinuteGrid.of(FIRST, returns)
    with pytest.raises(NotEnough, match="half of the last 15 minutes, found 5"):
        cascade.logs_at(grid, np.ones(WEEK), grid.end - 1, 60)
    assert cascade.logs_at(grid, np.ones(WEEK), grid.end - 1, 1)


def test_vol_models_say_how_many_targets_a_fit_lacks() -> None:
    grid = MinuteGrid.of(FIRST, varying(WEEK + 30 * 60 - 60))
    with pytest.raises(NotEnough, match=r"expected 30 spans of 60 minutes .* found 2\d"):
        cascade.fit(cascade.sample(grid, np.ones(WEEK)), 60)
    grid = MinuteGrid.of(FIRST, np.zeros(N))
    with pytest.raises(NotEnough, match="moving prices"):
        cascade.fit(cascade.sample(grid, np.ones(WEEK)), 60)


@pytest.mark.parametrize(
    ("horizon", "lags", "bipower"),
    [
        (1, (1, 4, 1_440, 10_080), (4,)),
        (60, (15, 60, 240, 1_440, 10_080), (15, 60, 240)),
        (360, (90, 360, 1_440, 10_080), (90, 360, 1_440)),
    ],
)
def test_vol_models_drop_windows_that_are_there_already(horizon: int, lags: tuple[int, ...], bipower: tuple[int, ...]) -> None:
    assert lags_of(horizon) == lags
    assert bipower_lags_of(horizon) == bipower
