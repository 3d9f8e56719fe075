"""How volatile each minute of the week is, against the mean of the week.

``E r_t^2 = s(t) v_t`` with ``s`` of mean 1: a log-Fourier form of the minute of the day (Andersen and Bollerslev 1997, Journal of
Empirical Finance 4, 115-158), times a factor of the weekend. The profile is fitted to squared returns over their own day's mean, so
that wild days do not outweigh calm ones, by the quasi-likelihood of exponential variables: ``ln s`` solves
``sum (y_t / s_t - 1) X_t = 0``, which minutes without a move do not disturb as they would a regression of logarithms.
"""

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D
from alphapack.models.minutes import MinuteGrid

DAY = 1_440
WEEK = 10_080
ORDER = 6
"""Pairs of sine and cosine a day: of the hours at which markets open none is missed, and noise of a month stays below 5%."""
DAYS_MIN = 5
"""Fewer whole days give no profile."""
DAY_COVERAGE = 0.9
SHARE_MAX = 20.0
"""One minute's part in its day, in mean minutes, is counted up to here: a single jump must not draw a bump."""
FACTOR_MIN = 0.05
"""Least factor of a minute against the mean: where hardly anything is traded, one trade must not weigh like a hundred."""
WEEKEND_T2 = 4.0
"""The weekend's factor is shrunk by ``t^2 / (t^2 + 4)``: a month has eight such days."""
WEEKEND_LOG_MAX = 1.5
EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday; the week begins on Monday."""
ROUNDS = 25
DECIMALS = 12
"""Of a factor: coarser than the last bits in which linear algebra libraries differ."""


class Diurnal(msgspec.Struct, frozen=True, array_like=True):
    """Factors of the minutes of a day, mean 1 over the week, and of a weekend against them."""

    minutes: tuple[float, ...]
    """Of the 1,440 minutes of a weekday, UTC."""
    weekend: float
    """Factor of Saturday and Sunday over the same minute of a weekday."""

    def weights(self) -> Float64Array1D:
        """Return what brings the returns of a week's minutes to one volatility, one over the root of the factor; shape (10080,)."""
        weights: Float64Array1D = 1.0 / np.sqrt(self.week())
        return weights

    def week(self) -> Float64Array1D:
        """Return the factors of a week's minutes from Monday 00:00 UTC, shape (10080,), mean 1."""
        day = np.array(self.minutes)
        return np.concatenate([day] * 5 + [day * self.weekend] * 2)


FLAT = Diurnal((1.0,) * DAY, 1.0)
"""No minute is unlike another."""


def minute_of_week(minute: int) -> int:
    """Return the place of a minute of the epoch in a week that begins on Monday, 00:00 UTC."""
    return (minute + EPOCH_WEEKDAY * DAY) % WEEK


def fit(grid: MinuteGrid) -> Diurnal:
    """Return the factors of a grid's minutes; flat where it has fewer than ``DAYS_MIN`` whole days that moved."""
    squares, known, days = _by_day(grid)
    counts = known.sum(axis=1)
    means = np.divide(squares.sum(axis=1), counts, out=np.zeros(len(days)), where=counts > 0)
    whole = (counts >= DAY_COVERAGE * DAY) & (means > 0.0)
    if np.count_nonzero(whole) < DAYS_MIN:
        return FLAT
    shares = np.minimum(squares[whole] / means[whole, None], SHARE_MAX)
    seen = known[whole].sum(axis=0)
    profile = np.divide(shares.sum(axis=0), seen, out=np.zeros(DAY), where=seen > 0)
    day = np.exp(_log_profile(profile, seen.astype(np.float64)))
    day = np.maximum(day / day.mean(), FACTOR_MIN)
    day /= day.mean()
    adjusted = (squares / day).sum(axis=1)[whole] / counts[whole]
    weekend = _weekend(np.log(adjusted), days[whole] % 7 >= 5)
    day *= 7.0 / (5.0 + 2.0 * weekend)
    return Diurnal(tuple(np.round(day, DECIMALS).tolist()), round(weekend, DECIMALS))


def _by_day(grid: MinuteGrid) -> tuple[Float64Array2D, Float64Array2D, Int64Array1D]:
    """Return squared returns and what is known of them, a row a day, and each row's day (0: a Monday)."""
    before = grid.first % DAY
    after = -(before + grid.n) % DAY
    squares = np.concatenate((np.zeros(before), grid.returns * grid.returns, np.zeros(after))).reshape(-1, DAY)
    known = np.concatenate((np.zeros(before), grid.known.astype(np.float64), np.zeros(after))).reshape(-1, DAY)
    return squares, known, np.arange(len(squares), dtype=np.int64) + (grid.first // DAY + EPOCH_WEEKDAY)


def _log_profile(profile: Float64Array1D, weights: Float64Array1D) -> Float64Array1D:
    """Return ``ln s`` of each minute: Fourier terms by Fisher scoring from a constant."""
    phase = 2.0 * np.pi * (np.arange(DAY) + 0.5) / DAY
    terms = [np.ones(DAY), *(wave(k * phase) for k in range(1, ORDER + 1) for wave in (np.sin, np.cos))]
    design = np.column_stack(terms)
    information = design.T @ (design * weights[:, None])
    logs: Float64Array1D = np.full(DAY, np.log(np.average(profile, weights=weights)))
    scale = 1.0
    for _ in range(ROUNDS):
        step = np.linalg.solve(information, design.T @ (weights * (profile * np.exp(-logs) - 1.0)))
        scale = min(1.0, 1.0 / float(np.abs(step).sum()) if step.any() else 1.0)  # Half a day without trades must not throw it off.
        logs = logs + scale * (design @ step)
        if np.abs(step).max() < 1e-12:
            break
    centred: Float64Array1D = logs - logs.mean()
    return centred


def _weekend(logs: Float64Array1D, is_weekend: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    """Return the factor of weekend days, shrunk towards 1 by how little is known of it."""
    free, work = logs[is_weekend], logs[~is_weekend]
    if len(free) < 2 or len(work) < 2:
        return 1.0
    gap = float(free.mean() - work.mean())
    error2 = float(free.var(ddof=1) / len(free) + work.var(ddof=1) / len(work))
    if gap == 0.0:
        return 1.0
    shrunk = gap * gap * gap / (gap * gap + WEEKEND_T2 * error2)
    return float(np.exp(np.clip(shrunk, -WEEKEND_LOG_MAX, WEEKEND_LOG_MAX)))
