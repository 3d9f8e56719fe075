"""How an order is spread over time: the schedule of Almgren and Chriss, and slices of whole lots.

A quantity X is traded in N periods of length tau; ``x_j`` of it is still held at ``t_j = j tau``, and ``n_j = x_{j-1} - x_j`` is traded
in the j-th period. With permanent impact ``gamma n``, temporary impact ``epsilon sign(n) + eta n / tau`` and a price that walks by
``sigma sqrt(tau)`` a period, the cost of trading has, with ``eta~ = eta - gamma tau / 2``,

    mean      E = gamma X^2 / 2 + epsilon sum |n_j| + (eta~ / tau) sum n_j^2
    variance  V = sigma^2 tau sum x_j^2

and ``E + lambda V`` is least for ``x_j = X sinh(kappa (T - t_j)) / sinh(kappa T)``, where ``T = N tau`` and
``2 (cosh(kappa tau) - 1) / tau^2 = lambda sigma^2 / eta~``.

Slices of lots are sizes, never negative: the side is the order's. They are found in whole numbers, without rounding on the way, so that
they add up to the order and a tie is a tie on every machine.

References
----------
R. Almgren, N. Chriss, "Optimal execution of portfolio transactions", Journal of Risk 3(2) (2000), equations 4, 5 and 16 to 20.
"""

import math
import operator
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D, Int64Array1D

PERIODS_MAX = 100_000
"""Most periods of a schedule, and most slices of an order."""
LOTS_MAX = 1 << 52
"""Most lots of an order: the greatest size of a level in a book."""
HORIZON_S_MAX = 604_800.0
"""A week: what an order may take at most."""


class Schedule(msgspec.Struct, frozen=True, eq=False):
    """An optimal schedule. All numbers are finite; time is in the unit of ``tau``, money in that of a price times a quantity."""

    holdings: Float64Array1D
    """What is left at the ends of the periods, shape (periods + 1,): from the quantity, exactly, to 0.

    Each is a whole multiple of the last place of the quantity, so that ``trades`` add up to it exactly, in any order.
    """
    trades: Float64Array1D
    """What is traded in each period, shape (periods,), of the quantity's sign or 0."""
    cost: float
    """Mean cost against the price at the start, in money; 0 or more."""
    variance: float
    """Variance of the cost, in money squared."""
    kappa: float
    """Rate at which the holdings decay, per unit of time; 0 for a straight line."""

    @property
    def half_life(self) -> float:
        """``1 / kappa``, the time in which a long schedule trades all but 1/e of its quantity; infinite for a straight line."""
        return 1.0 / self.kappa if self.kappa > 0.0 else math.inf


class Participation(msgspec.Struct, frozen=True, eq=False):
    """Slices of a part of the volume, and what they leave over."""

    slices: Int64Array1D
    """Lots of each slice, shape (n,)."""
    left_lots: int
    """Lots that the volumes do not take at this rate; 0 where the order is done."""


def almgren_chriss(
    quantity: float, periods: int, sigma: float, epsilon: float, eta: float, gamma: float, lam: float, tau: float = 1.0
) -> Schedule:
    """Return the schedule that makes ``E + lam V`` least, under linear impact and without drift.

    Parameters
    ----------
    quantity
        Units to sell, or less than 0 to buy; holdings and trades have its sign, and a buy costs what a sale does.
    periods
        From 1 to ``PERIODS_MAX``.
    sigma
        Volatility in units of price (not a fraction of it) per square root of time; 0 or more.
    epsilon
        Fixed cost of a unit, such as half the spread and the fee, in units of price; 0 or more.
    eta
        Temporary impact: units of price per unit of quantity per unit of time; more than ``gamma tau / 2``.
    gamma
        Permanent impact: units of price per unit of quantity; 0 or more.
    lam
        Aversion to risk, per unit of money; 0 or more. 0 gives a straight line, which costs least.
    tau
        Length of a period in the unit of time of ``sigma`` and ``eta``; above 0.

    Returns
    -------
    Schedule
        Holdings are right to some last places of the quantity, cost, variance and kappa to some of their own, however near to a
        straight line, and however much of the order comes first.

    Raises
    ------
    ValueError
        An argument is out of its range or not finite, or kappa, the cost or the variance is beyond what a float holds.
    """
    n = _whole("periods", periods, 1, PERIODS_MAX)
    # Numbers of numpy would warn of an overflow, which is refused below.
    quantity, sigma, epsilon, eta, gamma, lam, tau = (float(one) for one in (quantity, sigma, epsilon, eta, gamma, lam, tau))
    if not math.isfinite(quantity):
        raise ValueError(f"expected a finite quantity, found {quantity}")
    for name, value in (("sigma", sigma), ("epsilon", epsilon), ("gamma", gamma), ("lam", lam)):
        if not 0.0 <= value < math.inf:
            raise ValueError(f"expected a {name} that is finite and not negative, found {value}")
    if not (0.0 < tau < math.inf and math.isfinite(eta)):
        raise ValueError(f"expected a finite eta and a finite tau above 0, found eta {eta}, tau {tau}")
    effective = eta - 0.5 * gamma * tau
    if not effective > 0.0:
        raise ValueError(f"expected an eta above gamma tau / 2, found eta {eta} and gamma tau / 2 = {0.5 * gamma * tau}")
    # cosh(a) - 1 = 2 sinh(a / 2)^2: no digits cancel where the aversion is small.
    decay = 2.0 * math.asinh(sigma * math.sqrt(lam / effective) * (0.5 * tau))
    shares = _shares(decay, n) if decay < math.inf else [math.nan] * (n + 1)
    risk = sigma * quantity
    variance = risk * risk * tau * math.fsum(share * share for share in shares[1:])
    squares = math.fsum((before - after) * (before - after) for before, after in pairwise(shares))
    cost = 0.5 * gamma * quantity * quantity + epsilon * abs(quantity) + effective / tau * quantity * quantity * squares
    kappa = decay / tau
    if not (kappa < math.inf and cost < math.inf and variance < math.inf):
        raise ValueError(f"expected arguments whose results a float holds, found kappa {kappa}, cost {cost}, variance {variance}")
    place = math.ulp(quantity)
    holdings = np.rint(np.array(shares) * (quantity / place)) * place
    return Schedule(holdings + 0.0, holdings[:-1] - holdings[1:], cost, variance, kappa)


def _shares(decay: float, n: int) -> list[float]:
    """Return ``sinh(decay (n - j)) / sinh(decay n)`` for j from 0 to n, in exponents that are not positive; a straight line for 0."""
    whole = math.expm1(-2.0 * decay * n)
    if whole == 0.0:
        return [(n - j) / n for j in range(n + 1)]
    return [math.exp(-decay * j) * (math.expm1(-2.0 * decay * (n - j)) / whole) for j in range(n + 1)]


def uniform(lots: int, slices: int) -> Int64Array1D:
    """Return slices of equal time for an order of equal pace (TWAP), shape (slices,), with sum ``lots``.

    After each slice the order is within half a lot of its pace, ties ahead of it; no two slices differ by more than a lot.

    Raises
    ------
    ValueError
        Lots are not from 0 to ``LOTS_MAX``, or slices not from 1 to ``PERIODS_MAX``.
    """
    return _following(_lots(lots), list(range(_whole("slices", slices, 1, PERIODS_MAX), -1, -1)))


def along(schedule: Schedule, lots: int) -> Int64Array1D:
    """Return slices in whole lots that follow a schedule, shape (periods,), with sum ``lots``.

    ``lots`` stand for the schedule's quantity, whatever its sign. After each slice the lots that are left are within half a lot of the
    schedule's holdings in lots, ties ahead of it.

    Raises
    ------
    ValueError
        Lots are not from 0 to ``LOTS_MAX``, or the schedule's quantity is 0.
    """
    holdings = np.abs(schedule.holdings)
    if holdings[0] == 0.0:
        raise ValueError("expected a schedule of a quantity other than 0, found 0")
    return _following(_lots(lots), _integers(holdings))


def by_volume(lots: int, weights: Float64Array1D) -> Int64Array1D:
    """Return slices in proportion to weights, such as forecast volumes (VWAP), shape of ``weights``, with sum ``lots``.

    By largest remainder: each slice is its exact share rounded down, and one lot more where the remainder is among the largest, ties to
    the earlier slice. Slices follow their weights alone, not their neighbours: permuted weights permute the slices but for ties. A
    slice of weight 0 gets nothing.

    Parameters
    ----------
    lots
        From 0 to ``LOTS_MAX``.
    weights
        Shape (n,), n from 1 to ``PERIODS_MAX``, finite, not negative and not all 0; of any scale, taken as float64.

    Raises
    ------
    ValueError
        An argument is out of its range.
    """
    size = _lots(lots)
    wholes = _integers(_volumes("weights", weights))
    total = sum(wholes)
    if total == 0:
        raise ValueError(f"expected a weight above 0 among {len(wholes)}, found none")
    quotas = [divmod(size * whole, total) for whole in wholes]
    slices = [quota for quota, _ in quotas]
    # The sort keeps the order of equals: ties go to the earlier slice.
    by_remainder = sorted(range(len(quotas)), key=lambda i: -quotas[i][1])
    for i in by_remainder[: size - sum(slices)]:
        slices[i] += 1
    return np.array(slices, np.int64)


def participation(lots: int, volumes: Float64Array1D, rate: float) -> Participation:
    """Return slices that take part of each forecast volume until the order is done (POV), and what is left over.

    Each slice is ``rate`` times its volume, rounded down to whole lots, or what is still to be done if that is less. What rounding
    leaves is not carried on: no slice ever takes more than its part.

    Parameters
    ----------
    lots
        From 0 to ``LOTS_MAX``.
    volumes
        Forecast of the market's volume in each slice, in lots, shape (n,), n from 1 to ``PERIODS_MAX``, finite and not negative.
    rate
        Part of the volume, above 0 and up to 1.

    Raises
    ------
    ValueError
        An argument is out of its range.
    """
    left = _lots(lots)
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"expected a rate above 0 and up to 1, found {rate}")
    slices = []
    for volume in _volumes("volumes", volumes).tolist():
        slices.append(min(left, math.floor(float(rate) * volume)))
        left -= slices[-1]
    return Participation(np.array(slices, np.int64), left)


def intervals(horizon_s: float, slices: int) -> Float64Array1D:
    """Return where slices of equal length begin and end, in seconds from the start, shape (slices + 1,), ascending.

    Slice i is from ``times[i]`` to ``times[i + 1]``; the first time is 0 and the last exactly ``horizon_s``.

    Raises
    ------
    ValueError
        The horizon is not above 0 and up to ``HORIZON_S_MAX``, or slices are not from 1 to ``PERIODS_MAX``.
    """
    n = _whole("slices", slices, 1, PERIODS_MAX)
    if not 0.0 < horizon_s <= HORIZON_S_MAX:
        raise ValueError(f"expected a horizon above 0 and up to {HORIZON_S_MAX:,.0f} s, found {horizon_s}")
    return float(horizon_s) * (np.arange(n + 1) / n)


def _following(lots: int, holdings: list[int]) -> Int64Array1D:
    """Return the steps of ``lots`` that fall as ``holdings`` fall, rounded to the nearest, half down: so much is left at each."""
    first = holdings[0]
    left = [(2 * lots * holding + first - 1) // (2 * first) for holding in holdings]
    return np.array([before - after for before, after in pairwise(left)], np.int64)


def _integers(values: Float64Array1D) -> list[int]:
    """Return whole numbers in exactly the proportions of floats, which are all fractions of powers of two."""
    ratios = [value.as_integer_ratio() for value in values.tolist()]
    finest = max(denominator for _, denominator in ratios)
    return [numerator * (finest // denominator) for numerator, denominator in ratios]


def _volumes(name: str, values: npt.ArrayLike) -> Float64Array1D:
    """Return finite numbers that are not negative, in one dimension."""
    found: Float64Array1D = np.asarray(values, np.float64)
    if found.ndim != 1 or not 1 <= len(found) <= PERIODS_MAX:
        raise ValueError(f"expected 1 to {PERIODS_MAX:,} {name} in one dimension, found shape {found.shape}")
    if not (found.min() >= 0.0 and found.max() < math.inf):
        raise ValueError(f"expected {name} that are finite and not negative, found {found.min()} to {found.max()}")
    return found


def _lots(lots: int) -> int:
    return _whole("lots", lots, 0, LOTS_MAX)


def _whole(name: str, number: int, least: int, greatest: int) -> int:
    try:
        found = operator.index(number)
    except TypeError:
        found = least - 1
    if not least <= found <= greatest:
        raise ValueError(f"expected {name} as a whole number from {least} to {greatest:,}, found {number!r}")
    return found
