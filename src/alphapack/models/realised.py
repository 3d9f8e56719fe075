"""Realised measures: what the returns within a period say about its variance, its jumps, and how well that variance is measured.

All take the log returns of one period in order of time, shape (n,), in any unit u, and refuse numbers that are not finite, beyond
``RETURN_MAX``, or too few. Measures of variance are in u^2 and estimate the period's total, measures of quarticity are in u^4. With spot
variance ``s`` the former estimate the integral of ``s`` and the latter that of ``s^2``, over a period of length 1.

References
----------
[1] T. G. Andersen, T. Bollerslev, F. X. Diebold, P. Labys, Econometrica 71(2), 2003.
[2] L. Zhang, P. A. Mykland, Y. Ait-Sahalia, Journal of the American Statistical Association 100, 2005, section 3.
[3] O. E. Barndorff-Nielsen, N. Shephard, Journal of Financial Econometrics 2(1), 2004.
[4] O. E. Barndorff-Nielsen, S. Kinnebrock, N. Shephard, in Volatility and Time Series Econometrics, Oxford 2010.
[5] T. G. Andersen, D. Dobrev, E. Schaumburg, Journal of Econometrics 169(1), 2012.
[6] O. E. Barndorff-Nielsen, N. Shephard, Journal of the Royal Statistical Society B 64(2), 2002.
"""

import math

import numpy as np

from alphapack.arrays import Float64Array1D

RETURN_MAX = 1e50
"""Above any return; its fourth power stays far from the largest float."""
MEDIAN = math.pi / (6.0 - 4.0 * math.sqrt(3.0) + math.pi)
MEDIAN_QUARTIC = 3.0 * math.pi / (9.0 * math.pi + 72.0 - 52.0 * math.sqrt(3.0))
"""One over the mean square and the mean fourth power of the median of three absolute standard normals."""
TRIPOWER = 0.25 * (math.gamma(0.5) / math.gamma(7.0 / 6.0)) ** 3
"""One over the cube of the mean of the power 4/3 of an absolute standard normal."""


def variance(returns: Float64Array1D) -> float:
    """Return realised variance, ``sum r_i^2`` [1]: all of it, diffusion and jumps; n >= 1."""
    r = _checked(returns, 1)
    return float(np.sum(r * r))


def subsampled(returns: Float64Array1D, every: int = 5) -> float:
    """Return realised variance of returns over ``every`` periods, averaged over the grids that begin at 0, 1, ..., every - 1 [2].

    A grid at offset ``o`` has ``m = (n - o) // every`` whole returns and covers ``m x every`` of the n periods, so its sum of squares
    is multiplied by ``n / (m x every)``: each estimates the total, whatever it lacks at the ends. Needs ``n >= 2 x every - 1``.
    """
    if isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1:
        raise ValueError(f"expected every as a whole number of at least 1, found {every!r}")
    every = int(every)
    r = _checked(returns, 2 * every - 1)
    total = 0.0
    for offset in range(every):
        m = (len(r) - offset) // every
        longer = r[offset : offset + m * every].reshape(m, every).sum(axis=1)
        total += float(np.sum(longer * longer)) * len(r) / (m * every)
    return total / every


def bipower(returns: Float64Array1D) -> float:
    """Return bipower variation, ``pi/2 n/(n-1) sum |r_i| |r_(i-1)|`` [3]: without jumps; n >= 2."""
    r = np.abs(_checked(returns, 2))
    n = len(r)
    return math.pi / 2.0 * n / (n - 1) * float(np.sum(r[1:] * r[:-1]))


def median_variance(returns: Float64Array1D) -> float:
    """Return MedRV, ``pi / (6 - 4 sqrt(3) + pi) n/(n-2) sum med(|r_(i-1)|, |r_i|, |r_(i+1)|)^2`` [5]: without jumps; n >= 3."""
    middle = _medians(_checked(returns, 3))
    n = len(middle) + 2
    return MEDIAN * n / (n - 2) * float(np.sum(middle * middle))


def semivariances(returns: Float64Array1D) -> tuple[float, float]:
    """Return ``sum r_i^2`` over the negative and over the positive returns [4], which together are the realised variance; n >= 1."""
    r = _checked(returns, 1)
    down, up = np.minimum(r, 0.0), np.maximum(r, 0.0)
    return float(np.sum(down * down)), float(np.sum(up * up))


def quarticity(returns: Float64Array1D) -> float:
    """Return realised quarticity, ``n/3 sum r_i^4`` [6]; twice it, over n, is the variance of the error of realised variance; n >= 1."""
    r = _checked(returns, 1)
    squares = r * r
    return len(r) / 3.0 * float(np.sum(squares * squares))


def tripower_quarticity(returns: Float64Array1D) -> float:
    """Return tripower quarticity, ``n mu^-3 n/(n-2) sum (|r_(i-1)| |r_i| |r_(i+1)|)^(4/3)`` [3]: without jumps; n >= 3.

    ``mu = E|z|^(4/3) = 2^(2/3) Gamma(7/6) / Gamma(1/2)``.
    """
    roots = np.cbrt(np.abs(_checked(returns, 3)))
    products = roots[2:] * roots[1:-1] * roots[:-2]
    squares = products * products
    n = len(roots)
    return TRIPOWER * n * n / (n - 2) * float(np.sum(squares * squares))


def median_quarticity(returns: Float64Array1D) -> float:
    """Return MedRQ, ``3 pi / (9 pi + 72 - 52 sqrt(3)) n n/(n-2) sum med(|r_(i-1)|, |r_i|, |r_(i+1)|)^4`` [5]: without jumps; n >= 3."""
    middle = _medians(_checked(returns, 3))
    squares = middle * middle
    n = len(middle) + 2
    return MEDIAN_QUARTIC * n * n / (n - 2) * float(np.sum(squares * squares))


def _medians(returns: Float64Array1D) -> Float64Array1D:
    """Return the median of each absolute return and its two neighbours; shape (n - 2,)."""
    before, here, after = np.abs(returns[:-2]), np.abs(returns[1:-1]), np.abs(returns[2:])
    medians: Float64Array1D = np.maximum(np.minimum(before, here), np.minimum(np.maximum(before, here), after))
    return medians


def _checked(returns: Float64Array1D, least: int) -> Float64Array1D:
    r = np.asarray(returns, np.float64)
    if r.ndim != 1:
        raise ValueError(f"expected returns of shape (n,), found {r.shape}")
    if len(r) < least:
        raise ValueError(f"expected at least {least} returns, found {len(r)}")
    bad = np.flatnonzero(~(np.abs(r) <= RETURN_MAX))  # Neither is a NaN.
    if bad.size:
        raise ValueError(f"expected returns within {RETURN_MAX:g}, found {r[bad[0]]} at index {bad[0]}")
    return r
