"""How well a feature orders what the market does next, and how much of that a line explains, with errors that overlap cannot flatter.

Moves over ``h`` samples overlap when one begins at every sample, and features are slow: neighbours are nearly one observation.
Errors are therefore those of Newey and West (1987, Econometrica 55, 703-708): Bartlett weights, lag
``max(h - 1, floor(4 (n / 100)^(2/9)))``.

A pair with a value that is not finite is unknown. It adds nothing and keeps its place in time.
"""

import math
from dataclasses import dataclass

import numpy as np

from alphapack.arrays import Float64Array1D

PAIRS_MIN = 8
"""Fewer known pairs give no result."""
CRITICAL = (1.9600, 2.9694, 0.4160, -0.5324)
"""97.5% point of a t statistic with Bartlett weights, a cubic in bandwidth / samples (Kiefer and Vogelsang 2005, Econometric
Theory 21, 1130-1164)."""


@dataclass(frozen=True)
class Fit:
    """The line ``y = a + slope x`` by least squares. What the pairs do not allow is NaN."""

    n: int
    """Known pairs."""
    lag: int
    """Lag of the error, in samples."""
    slope: float
    """Change of y for one unit of x."""
    error: float
    """Newey-West standard error of the slope, without a correction for small samples."""
    r2: float
    """Share of the variance of y that the line explains, in [0, 1]."""
    critical: float
    """``|t|`` is beyond this in 5% of samples in which y does not depend on x: 1.96, more where the lag is long for the samples."""
    n_effective: float
    """Independent pairs that would fix the slope as well: n x variance / long-run variance of the scores."""

    @property
    def t(self) -> float:
        """The slope in standard errors; infinite where the line misses nothing."""
        if self.error == 0.0 and self.slope != 0.0:
            return math.copysign(math.inf, self.slope)
        return self.slope / self.error if self.error > 0.0 else math.nan

    @property
    def is_significant(self) -> bool:
        """Whether ``|t|`` is beyond ``critical``; no where either is unknown."""
        return abs(self.t) > self.critical


def ranks(values: Float64Array1D) -> Float64Array1D:
    """Return ranks 1 to n as float64[n]; equal values share the mean of theirs, NaN stays NaN and is not counted."""
    known = ~np.isnan(values)
    _, place, count = np.unique(values[known], return_inverse=True, return_counts=True)
    ranked = np.full(len(values), np.nan)
    ranked[known] = (np.cumsum(count) - 0.5 * (count - 1.0))[place]
    return ranked


def newey_west_lag(n: int, overlap: int) -> int:
    """Return the lag, in [0, n), for ``n`` samples of which each extends over ``overlap``."""
    return max(0, min(n - 1, max(overlap - 1, int(4.0 * (n / 100.0) ** (2.0 / 9.0)))))


def critical_value(lag: int, n: int) -> float:
    """Return what ``|t|`` of ``n`` samples exceeds once in twenty where there is nothing to find; rises from 1.96 with ``lag / n``."""
    share = (lag + 1) / n
    a, b, c, d = CRITICAL
    return a + share * (b + share * (c + share * d))


def long_run_variance(scores: Float64Array1D, lag: int) -> float:
    """Return the sum over ``|j| <= lag`` of ``(1 - |j| / (lag + 1)) c_j``, where ``c_j`` is the mean of ``s_i s_(i+j)``.

    Parameters
    ----------
    scores : float64[n]
        Of mean zero, evenly spaced in time; 0 where unknown.
    lag : int
        ``0 <= lag < n``; 0 gives the plain variance.

    Returns
    -------
    float
        Square of the unit of the scores, never negative. With Bartlett's weights it is the mean square of all moving sums of
        ``lag + 1`` scores over ``lag + 1``, which takes n additions whatever the lag.
    """
    width = lag + 1
    total = np.concatenate((np.zeros(width), np.cumsum(scores)))
    total = np.concatenate((total, np.full(lag, total[-1])))
    sums = total[width:] - total[:-width]
    return float(np.sum(sums * sums)) / (width * len(scores))


def regress(x: Float64Array1D, y: Float64Array1D, overlap: int) -> Fit:
    """Fit ``y = a + slope x``.

    Parameters
    ----------
    x, y : float64[n]
        Evenly spaced in time; pairs with a value that is not finite are left out.
    overlap : int
        Samples over which one ``y`` extends, at least 1.

    Returns
    -------
    Fit
        Without numbers where fewer than ``PAIRS_MIN`` pairs are known or x is constant; without ``r2`` where y is.
    """
    known = np.isfinite(x) & np.isfinite(y)
    places = np.flatnonzero(known)
    n, lag = len(places), newey_west_lag(len(places), overlap)
    if n < PAIRS_MIN or np.ptp(x[places]) == 0.0:
        return Fit(n, lag, math.nan, math.nan, math.nan, math.nan, math.nan)
    span = slice(int(places[0]), int(places[-1]) + 1)
    dx = np.where(known[span], x[span] - np.mean(x[places]), 0.0)
    dy = np.where(known[span], y[span] - np.mean(y[places]), 0.0)
    xx, yy, xy = float(np.sum(dx * dx)), float(np.sum(dy * dy)), float(np.sum(dx * dy))
    slope = xy / xx
    scores = dx * (dy - slope * dx)
    variance, long_run = long_run_variance(scores, 0), long_run_variance(scores, lag)
    return Fit(
        n=n,
        lag=lag,
        slope=slope,
        error=math.sqrt(len(scores) * long_run) / xx,
        r2=xy * xy / (xx * yy) if np.ptp(y[places]) > 0.0 else math.nan,
        critical=critical_value(lag, len(scores)),
        n_effective=n * variance / long_run if long_run > 0.0 else math.nan,
    )


def rank_ic(x: Float64Array1D, y: Float64Array1D, overlap: int) -> Fit:
    """Return the information coefficient of ``x`` for ``y``: the correlation of their ranks, as ``slope``, in [-1, 1].

    It is the line between ranks brought to variance 1, so that its error is Newey-West's too. Parameters and missing values
    are those of ``regress``; NaN also where y is constant.
    """
    known = np.isfinite(x) & np.isfinite(y)
    return regress(_standard_ranks(np.where(known, x, np.nan)), _standard_ranks(np.where(known, y, np.nan)), overlap)


def _standard_ranks(values: Float64Array1D) -> Float64Array1D:
    ranked = ranks(values)
    if np.isnan(ranked).all():
        return ranked
    deviation = float(np.nanstd(ranked))
    standard: Float64Array1D = (ranked - np.nanmean(ranked)) / deviation if deviation > 0.0 else np.full(len(ranked), np.nan)
    return standard
