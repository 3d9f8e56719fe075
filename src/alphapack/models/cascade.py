"""Log-HAR on the diurnally adjusted cascade: the mean variance of the next ``h`` minutes from windows of ``{h/4, h, 4h, day, week}``.

    ln y_t = c + sum_w a_w ln rv_(t,w) + sum_(2 <= w <= min(4h, day)) b_w ln bv_(t,w) + e_t,      a, b >= 0

``y_t`` is the mean adjusted squared return of minutes ``t+1 .. t+h``, ``rv`` that of the ``w`` minutes up to ``t``, ``bv`` their
bipower variation. The forecast is ``exp(fit) x mean(y / exp(fit))`` (Duan's smearing).

- One regression for each horizon, on the horizon itself: never a minute's forecast times h, never iterated.
- Slopes are not negative, by Lawson and Hanson's active set: calm now never means turmoil later, and a month of overlapping
  targets must not let the week's window say so by chance.
- Bipower variation beside the realised one lets jumps count for less than what goes on.
- Windows shorter than a day, and the target, take in half a minute of the day's mean: a minute without a move is a small number
  and not an infinite surprise.

References
----------
F. Corsi, "A simple approximate long-memory model of realized volatility", Journal of Financial Econometrics 7(2), 2009.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D
from alphapack.kernels import variance
from alphapack.models.diurnal import DAY, WEEK, minute_of_week
from alphapack.models.minutes import MinuteGrid

TARGETS_MIN = 30
"""Targets that do not overlap, after the longest window, of which a fit is made."""
COVERAGE_FIT = 0.9
COVERAGE_SERVED = 0.5
"""Share of a window's minutes that must be known: to learn from it, and to forecast from it."""
BORROWED = 0.5
"""Minutes of the day's mean in each window shorter than a day."""
RANGE = 2.0
"""A forecast beyond so many times the largest target that was seen, or below that part of the smallest, is brought back to there."""
ROWS_A_HORIZON = 12
DIGITS = 12
"""Significant digits of what is fitted: coarser than the last bits in which linear algebra libraries differ."""
_BIPOWER = math.pi / 2.0


class NotEnough(ValueError):
    """Too little is known for a fit or a forecast; the text says what is missing."""


class Cascade(msgspec.Struct, frozen=True, array_like=True):
    """The fit of one horizon. Variances are means a minute, of returns over the root of their diurnal factor."""

    horizon: int
    lags: tuple[int, ...]
    """Windows of realised variance, ascending, in minutes."""
    bipower_lags: tuple[int, ...]
    """Windows of bipower variation."""
    constant: float
    slopes: tuple[float, ...]
    """Of the realised variances, then of the bipower variations."""
    smearing: float
    low: float
    high: float
    """Least and largest forecast."""
    r2: float
    """Share of the variance of ``ln y`` that is explained, within the sample."""
    n: int
    """Rows, one every ``max(1, horizon // 12)`` minutes."""

    @property
    def params(self) -> dict[str, float]:
        """Constant first, then ``rv_<minutes>`` and ``bv_<minutes>``."""
        names = [f"rv_{lag}" for lag in self.lags] + [f"bv_{lag}" for lag in self.bipower_lags]
        return {"const": self.constant, **dict(zip(names, self.slopes, strict=True))}

    @property
    def persistence(self) -> float:
        """By what share a level of all windows goes on into the target: the sum of the slopes."""
        return sum(self.slopes)

    def predict(self, logs: list[float]) -> float:
        """Return the mean variance of the next ``horizon`` minutes from the logarithms of the windows, as ``Windows`` has them."""
        total = self.constant + math.log(self.smearing)
        for slope, log in zip(self.slopes, logs, strict=True):
            total += slope * log
        total = min(max(total, math.log(self.low)), math.log(self.high))  # A steep slope may lead beyond what exp can take.
        return min(max(math.exp(total), self.low), self.high)


def lags_of(horizon: int) -> tuple[int, ...]:
    """Return the windows for a horizon: a quarter, once, four times, a day, a week; none twice."""
    return tuple(sorted({max(1, horizon // 4), horizon, 4 * horizon, DAY, WEEK}))


def bipower_lags_of(horizon: int) -> tuple[int, ...]:
    """Return which of the windows have bipower variation beside: those with a pair of minutes, up to four times the horizon."""
    return tuple(lag for lag in lags_of(horizon) if 2 <= lag <= min(4 * horizon, DAY))


def windows(grid: MinuteGrid, weights: Float64Array1D, at: int, lags: tuple[int, ...]) -> Float64Array2D:
    """Return sums over the windows that end with minute ``at`` of the epoch; see ``kernels.variance.windows``."""
    out: Float64Array2D = np.empty((4, len(lags)))
    place = at - grid.first
    variance.windows(grid.returns, grid.known, weights, place, minute_of_week(at), np.array(lags, np.float64), out)
    return out


def logs_at(grid: MinuteGrid, weights: Float64Array1D, at: int, horizon: int) -> list[float]:
    """Return the logarithms from which a forecast after minute ``at`` is made; ``NotEnough`` where too little is known."""
    lags = lags_of(horizon)
    sums = windows(grid, weights, at, lags).tolist()
    for lag, count in zip(lags, sums[1], strict=True):
        if count < COVERAGE_SERVED * lag:
            raise NotEnough(f"expected candles of at least half of the last {lag:,} minutes, found {int(count):,}")
    day = sums[0][lags.index(DAY)] / sums[1][lags.index(DAY)]
    if day <= 0.0:
        raise NotEnough("expected a price that moved within the last day, found a constant one")
    logs = []
    for i, lag in enumerate(lags):
        mean = sums[0][i] / sums[1][i]
        logs.append(math.log((lag * mean + BORROWED * day) / (lag + BORROWED) if lag < DAY else mean))
    for lag in bipower_lags_of(horizon):
        i = lags.index(lag)
        count = sums[3][i]
        mean = _BIPOWER * sums[2][i] / count if count > 0 else day
        logs.append(math.log((lag * mean + BORROWED * day) / (lag + BORROWED)))
    return logs


class Sample(NamedTuple):
    """Prefix sums of a grid, from which every window's mean is a difference."""

    squares: Float64Array1D
    counts: Float64Array1D
    products: Float64Array1D
    pairs: Float64Array1D


def adjusted(grid: MinuteGrid, weights: Float64Array1D) -> Float64Array1D:
    """Return a grid's returns times the weights of their minutes of the week, shape (n,)."""
    place = (minute_of_week(grid.first) + np.arange(grid.n)) % WEEK
    weighted: Float64Array1D = grid.returns * weights[place]
    return weighted


def sample(grid: MinuteGrid, weights: Float64Array1D) -> Sample:
    """Return the prefix sums of a grid's adjusted squares and products; shape (n + 1,) each."""
    size = np.abs(adjusted(grid, weights))
    known = grid.known.astype(np.float64)
    pairs = np.concatenate(([0.0], known[1:] * known[:-1]))
    products = np.concatenate(([0.0], size[1:] * size[:-1])) * pairs
    return Sample(*(np.concatenate(([0.0], np.cumsum(one))) for one in (size * size, known, products, pairs)))


def rows_of(n: int, horizon: int, longest: int) -> Int64Array1D:
    """Return the places at which windows end that a fit looks at: the newest whose target is known, and back from there."""
    step = max(1, horizon // ROWS_A_HORIZON)
    return np.arange(n - 1 - horizon, longest - 2, -step)[::-1]


def fit(prefix: Sample, horizon: int) -> Cascade:
    """Fit one horizon, in minutes; ``NotEnough`` where fewer than ``TARGETS_MIN`` targets that do not overlap are known."""
    lags, n = lags_of(horizon), len(prefix.squares) - 1
    at = rows_of(n, horizon, lags[-1])
    covered = prefix.counts[at + 1 + horizon] - prefix.counts[at + 1] >= COVERAGE_FIT * horizon
    for lag in lags:
        covered &= prefix.counts[at + 1] - prefix.counts[at + 1 - lag] >= COVERAGE_FIT * lag
    at = at[covered]
    day = _mean(prefix.squares, prefix.counts, at + 1 - DAY, at + 1)
    at, day = at[day > 0.0], day[day > 0.0]
    targets = -(-len(at) * max(1, horizon // ROWS_A_HORIZON) // horizon)
    if targets < TARGETS_MIN:
        raise NotEnough(
            f"expected {TARGETS_MIN} spans of {horizon:,} minutes with moving prices after the first {lags[-1]:,} minutes, "
            f"nine tenths of each known, found {targets}"
        )
    target = _mean(prefix.squares, prefix.counts, at + 1, at + 1 + horizon)
    design = _design(prefix, at, horizon, day)
    logs = np.log((horizon * target + BORROWED * day) / (horizon + BORROWED))
    constant, slopes, r2 = _least_squares(design, logs)
    fitted = np.exp(constant + design @ slopes)
    low = float(target[target > 0.0].min()) if target.any() else float(fitted.min())
    numbers = (constant, float(np.mean(target / fitted)), low / RANGE, RANGE * float(max(target.max(), low)), r2)
    constant, smearing, low, high, r2 = (rounded(one) for one in numbers)
    return Cascade(
        horizon=horizon,
        lags=lags,
        bipower_lags=bipower_lags_of(horizon),
        constant=constant,
        slopes=tuple(rounded(one) for one in slopes),
        smearing=smearing,
        low=low,
        high=high,
        r2=r2,
        n=len(at),
    )


def rounded(value: float) -> float:
    """Return a number to ``DIGITS`` significant digits."""
    return float(f"{float(value):.{DIGITS}g}")


def _mean(sums: Float64Array1D, counts: Float64Array1D, begin: Int64Array1D, end: Int64Array1D) -> Float64Array1D:
    n = counts[end] - counts[begin]
    means: Float64Array1D = np.divide(sums[end] - sums[begin], n, out=np.zeros(len(n)), where=n > 0)
    return np.maximum(means, 0.0)  # The difference of two large sums may fall below zero by a rounding.


def _design(prefix: Sample, at: Int64Array1D, horizon: int, day: Float64Array1D) -> Float64Array2D:
    """Return the logarithms of the windows that end at the places ``at``, as ``logs_at`` has them; shape (len(at), slopes)."""
    lags = lags_of(horizon)
    columns = []
    for lag in lags:
        mean = _mean(prefix.squares, prefix.counts, at + 1 - lag, at + 1)
        columns.append(np.log((lag * mean + BORROWED * day) / (lag + BORROWED) if lag < DAY else mean))
    for lag in bipower_lags_of(horizon):
        begin, end = at + 2 - lag, at + 1  # The pairs within the window.
        pairs = prefix.pairs[end] - prefix.pairs[begin]
        mean = np.where(pairs > 0, _BIPOWER * _mean(prefix.products, prefix.pairs, begin, end), day)
        columns.append(np.log((lag * mean + BORROWED * day) / (lag + BORROWED)))
    return np.column_stack(columns)


def _least_squares(design: Float64Array2D, y: Float64Array1D) -> tuple[float, Float64Array1D, float]:
    """Return constant, slopes and R2 of the regression whose slopes are not negative (Lawson and Hanson 1974, chapter 23)."""
    centres, mean = design.mean(axis=0), float(y.mean())
    x, z = design - centres, y - mean
    gram, moment = x.T @ x / len(y), x.T @ z / len(y)
    slopes, free = np.zeros(len(moment)), np.zeros(len(moment), bool)
    tolerance = 1e-10 * float(np.abs(moment).max(initial=0.0))
    for _ in range(3 * len(moment)):
        pull = np.where(free, -np.inf, moment - gram @ slopes)
        if pull.max() <= tolerance:
            break
        free[int(np.argmax(pull))] = True
        while True:
            trial = np.zeros(len(moment))
            trial[free] = np.linalg.lstsq(gram[np.ix_(free, free)], moment[free], rcond=None)[0]
            if (trial[free] > 0.0).all():
                break
            leaving = free & (trial <= 0.0)
            share = float(np.min(slopes[leaving] / np.maximum(slopes[leaving] - trial[leaving], 1e-300)))
            slopes = slopes + share * (trial - slopes)
            free &= slopes > 1e-14
            slopes[~free] = 0.0
        slopes = trial
    explained = float(2.0 * slopes @ moment - slopes @ gram @ slopes)
    total = float(np.mean(z * z))
    return mean - float(centres @ slopes), slopes, explained / total if total > 0.0 else 0.0
