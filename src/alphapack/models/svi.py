"""One expiry's smile as a raw SVI slice: its fit, its forms, and what arbitrage it admits.

``w(x) = a + b (rho (x - m) + sqrt((x - m)^2 + sigma^2))`` with x = ln K/F and total variance w = iv^2 t. See docs/SVI.md.

References
----------
J. Gatheral, A. Jacquier, "Arbitrage-free SVI volatility surfaces", Quantitative Finance 14 (2014).
S. De Marco, C. Martini, "Quasi-explicit calibration of Gatheral's SVI model", Zeliade Systems white paper (2009).
R. Lee, "The moment formula for implied volatility at extreme strikes", Mathematical Finance 14 (2004).
"""

import math
from typing import Protocol

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.kernels import svi as kernel

POINTS_MIN = kernel.POINTS_MIN
POINTS_MAX = kernel.POINTS_MAX
SIZE_MAX = 1e12
GRID, FINER, ZOOMS = 513, 17, 6
"""Of ``calendar_free``: points on its interval, points around a small difference, how often those are drawn closer."""
CALENDAR_ABSOLUTE, CALENDAR_RELATIVE = 1e-12, 1e-9
_NONE = np.zeros(0)


class Slice(Protocol):
    """A smile of one expiry."""

    def total_variance(self, x: Float64Array1D) -> Float64Array1D:
        """Return iv^2 t at every x = ln K/F."""
        ...


class Svi(msgspec.Struct, frozen=True):
    """A raw SVI slice; b and a in units of total variance, m and sigma in units of x.

    Raises
    ------
    ValueError
        A parameter is not finite or larger than 1e12, b is negative, rho outside of [-1, 1], or sigma below 1e-12.
    """

    a: float
    b: float
    rho: float
    m: float
    sigma: float
    rmse: float = 0.0
    """Root of the (weighted) mean of squared residuals of TOTAL VARIANCE; 0 for a slice that was given, not fitted."""

    def __post_init__(self) -> None:
        """Refuse what is no slice."""
        sizes = abs(self.a) <= SIZE_MAX and abs(self.m) <= SIZE_MAX and 0.0 <= self.b <= SIZE_MAX
        if not (sizes and abs(self.rho) <= 1.0 and 1.0 / SIZE_MAX <= self.sigma <= SIZE_MAX):
            raise ValueError(f"expected a slice with b >= 0, rho from -1 to 1, sigma > 0 and no number beyond {SIZE_MAX:g}, found {self}")

    @property
    def params(self) -> Float64Array1D:
        """Parameters a, b, rho, m, sigma; a new array."""
        return np.array((self.a, self.b, self.rho, self.m, self.sigma))

    @property
    def least(self) -> float:
        """Least total variance, ``a + b sigma sqrt(1 - rho^2)``."""
        return self.a + self.b * self.sigma * math.sqrt((1.0 - self.rho) * (1.0 + self.rho))

    def total_variance(self, x: Float64Array1D) -> Float64Array1D:
        """Return w at every x = ln K/F; shape (n,)."""
        points = _line("x", x)
        out = np.empty(len(points))
        kernel.total_variances(self.params, points, out)
        return out

    def durrleman(self, x: Float64Array1D) -> Float64Array1D:
        """Return ``g(x) = (1 - x w' / (2 w))^2 - w'^2 / 4 (1 / w + 1 / 4) + w'' / 2`` at every x; shape (n,).

        The density of x is ``g / sqrt(2 pi w) exp(-d2^2 / 2)``, with ``d2 = -x / sqrt(w) - sqrt(w) / 2``.

        Raises
        ------
        ValueError
            The least total variance is not positive: there is no such density.
        """
        if not self.least > 0.0:
            raise ValueError(f"expected a slice with a positive least variance, found {self.least} in {self}")
        points = _line("x", x)
        out = np.empty(len(points))
        kernel.durrlemans(self.params, points, out)
        return out

    def arbitrage(self) -> tuple[tuple[float, float], ...]:
        """Return the intervals of x, ascending, where butterflies have a negative price: g < 0, or w <= 0; ends may be infinite.

        The whole line is searched, wings included: g has the sign of a polynomial of degree 10, whose roots are isolated, not sampled.
        No interval is missed and none is invented, but for ones where g dips below zero by no more than rounding (about 1e-13 of the
        terms that make it up). Ends are exact to about 1e-12.
        """
        work, out = np.empty(kernel.ARBITRAGE_WORK), np.empty(2 * kernel.INTERVALS_MAX)
        count = kernel.arbitrage(self.params, work, out)
        ends = out[: 2 * count].tolist()
        return tuple(zip(ends[::2], ends[1::2], strict=True))

    @property
    def butterfly_free(self) -> bool:
        """True where no butterfly has a negative price: ``arbitrage`` finds nothing."""
        return not self.arbitrage()

    def to_jw(self, t: float) -> dict[str, float]:
        """Return the jump-wings form for a time of ``t`` years (Gatheral and Jacquier, section 3.2).

        ``v`` is the variance iv^2 at the money, ``psi`` the skew there (d iv / dx times sqrt(t)), ``p`` and ``c`` the slopes of the left
        and right wing in w over its root at the money, ``vtilde`` the least variance.

        Raises
        ------
        ValueError
            The time, or the total variance at the money, is not positive.
        """
        root = math.hypot(self.m, self.sigma)
        w = self.a + self.b * (root - self.rho * self.m)
        if not (0.0 < t < math.inf and w > 0.0):
            raise ValueError(f"expected a positive time and a positive variance at the money, found t {t} and w {w}")
        size = math.sqrt(w)
        return {
            "v": w / t,
            "psi": 0.5 * self.b * (self.rho - self.m / root) / size,
            "p": self.b * (1.0 - self.rho) / size,
            "c": self.b * (1.0 + self.rho) / size,
            "vtilde": self.least / t,
        }


def fit(x: Float64Array1D, w: Float64Array1D, weights: Float64Array1D | None = None) -> Svi:
    """Fit a slice by least squares of total variance.

    Parameters
    ----------
    x
        Shape (n,), n from 5 to 65,536: ln K/F in any order, at least five of them different.
    w
        Shape (n,): total variances iv^2 t, positive.
    weights
        Shape (n,): weights of the squared residuals, positive; only their ratios count.

    Returns
    -------
    Svi
        A slice with b >= 0, |rho| < 1, a least variance above zero, slopes of both wings below 2 (Lee), m within one range of the
        quotes and sigma from 1e-4 to 100 of half the range. It may still admit butterfly arbitrage: see ``Svi.arbitrage``.

    Raises
    ------
    ValueError
        A shape is wrong, a number out of its range, or fewer than five x are different.
    """
    points, variances = _line("x", x), _line("w", w)
    known = _NONE if weights is None else _line("weights", weights)
    n = len(points)
    if not POINTS_MIN <= n <= POINTS_MAX or len(variances) != n or (weights is not None and len(known) != n):
        found = f"{n} x, {len(variances)} w" + ("" if weights is None else f" and {len(known)} weights")
        raise ValueError(f"expected {POINTS_MIN} to {POINTS_MAX} points, as many x as w and weights, found {found}")
    out = np.empty(6)
    if not kernel.fit(points, variances, known, np.empty(kernel.SAMPLE + 3 * n), out):
        raise ValueError(_refusal(points, variances, known))
    return Svi(*out.tolist())


def _line(name: str, values: Float64Array1D) -> Float64Array1D:
    """Return the values as the kernels take them."""
    if np.ndim(values) != 1:
        raise ValueError(f"expected {name} in one dimension, found shape {np.shape(values)}")
    return np.ascontiguousarray(values, dtype=np.float64)


def _refusal(x: Float64Array1D, w: Float64Array1D, weights: Float64Array1D) -> str:
    """Say why a sample was refused."""
    bounds = (
        ("x", x, -kernel.X_MAX, kernel.X_MAX),
        ("w", w, kernel.W_MIN, kernel.W_MAX),
        ("weights", weights, kernel.WEIGHT_MIN, kernel.WEIGHT_MAX),
    )
    for name, values, low, high in bounds:
        wrong = np.flatnonzero(~((values >= low) & (values <= high)))
        if wrong.size:
            return f"expected {name} from {low:g} to {high:g}, found {values[wrong[0]]} and {wrong.size - 1} more out of that range"
    found = f"{len(np.unique(x))} from {x.min()} to {x.max()}"
    return f"expected at least {POINTS_MIN} different x over a range of at least {kernel.RANGE_MIN:g}, found {found}"


def calendar_free(earlier: Slice, later: Slice, low: float, high: float) -> bool:
    """Tell whether total variance does not fall from an expiry to a later one, at any x in [low, high].

    A fall of up to 1e-12 + 1e-9 of the earlier variance counts as none. Looked at are 513 points; then, wherever the difference is lower
    than beside it and may reach zero between the points, 17 finer ones, six times over. A fall is missed only where the difference turns
    more than once between two neighbours of the 513.

    Raises
    ------
    ValueError
        The interval is empty or not finite, or a slice has no variance at some point of it.
    """
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"expected an interval with low < high, both finite, found {low} to {high}")
    x = np.linspace(low, high, GRID)
    spare = _spare(earlier, later, x)
    if spare.min() < 0.0:
        return False
    padded = np.concatenate((spare[2:0:-1], spare, spare[-2:-4:-1]))
    # What is left may be used up within a step where it changes by as much over the two steps beside.
    reach = np.maximum(np.abs(padded[:-4] - spare), np.abs(padded[4:] - spare))
    lowest = np.flatnonzero((spare <= padded[1:-3]) & (spare <= padded[3:-1]) & (spare <= 2.0 * reach))
    for at in lowest.tolist():
        left, right = float(x[max(at - 1, 0)]), float(x[min(at + 1, GRID - 1)])
        for _ in range(ZOOMS):
            finer = np.linspace(left, right, FINER)
            spare = _spare(earlier, later, finer)
            least = int(spare.argmin())
            if spare[least] < 0.0:
                return False
            left, right = float(finer[max(least - 1, 0)]), float(finer[min(least + 1, FINER - 1)])
    return True


def _spare(earlier: Slice, later: Slice, x: Float64Array1D) -> Float64Array1D:
    """Return by how much the later variance exceeds the least allowed."""
    spare = later.total_variance(x) - (1.0 - CALENDAR_RELATIVE) * earlier.total_variance(x) + CALENDAR_ABSOLUTE
    if np.isnan(spare).any():
        raise ValueError(f"expected variances from {x[0]} to {x[-1]}, found a NaN at {x[np.isnan(spare)][0]}")
    return spare
