"""Smiles over log-moneyness: total variance, delta, and the strikes that have a delta where volatility depends on the strike.

Time is nowhere: ``x = ln K/F``, ``w`` is total variance and ``s`` its root. A smile is a ``kind`` and a ``curve``: of SVI the parameters
(a, b, rho, m, sigma), of LINEAR the x of its nodes, ascending, and behind them their w, linear between nodes and flat beyond them.

``role`` is 1 for a call, -1 for a put, 0 for the delta-neutral straddle. With ``d1, d2 = -x/s +- s/2`` the size of a delta, not
discounted, is N(role d1), or premium-adjusted (K/F) N(role d2): D. Reiswich, U. Wystup, "FX volatility smile construction" (2010).
"""

import math

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D
from alphapack.jit import njit
from alphapack.kernels import svi

SVI, LINEAR = 0, 1
X, W, WEIGHT, WEIGHT_W = range(4)
"""Rows of the quotes of a smile: x, ascending, w, the weight of a squared error of volatility, and that of one of w."""

PRICE_MIN, PRICE_MAX = 1e-50, 1e50
SD_MIN, SD_MAX = 1e-8, 10.0
"""Of prices and given weights, and of s: within these nothing overflows, and no rounding is felt."""
VEGA_MIN = 1e-3
"""Least weight of a strike by its vega, where that of the greatest vega is 1."""

WITHIN = 12.0
"""Strikes are looked for up to this many standard deviations, and half a variance more, from the forward."""
STEPS = 32
"""Of the search, in one standard deviation: what crosses a delta twice within a step is not seen."""
HALVINGS = 64
"""Of a step, or of the whole search: what is left is below the rounding of deltas."""
VARIANCE_MIN = 1e-300
"""In place of the variance 0 that a curve may touch: dividing by its root is then in range."""
PEAK_MAX = 10.0
"""No d2 of a greatest delta is larger while s is at least 1e-8."""


@njit
def prepare(
    strike: Float64Array1D, s: Float64Array1D, weights: Float64Array1D, order: Int64Array1D, forward: float, quotes: Float64Array2D
) -> bool:
    """Write the quotes of a smile, which come with the ``order`` of their strikes; False where one is out of range or comes twice.

    Without ``weights`` they are squared vegas, which go as exp(-d1^2), relative to the greatest. An error of w is one of s times 2 s.
    """
    least = math.inf
    for i in range(len(order)):
        here, size = strike[order[i]], s[order[i]]
        if not (PRICE_MIN <= here <= PRICE_MAX and SD_MIN <= size <= SD_MAX):
            return False
        x = math.log(here / forward)
        if i > 0 and not x > quotes[X, i - 1]:
            return False
        d = 0.5 * size - x / size
        least = min(least, d * d)
        quotes[X, i], quotes[W, i], quotes[WEIGHT, i] = x, size * size, d * d
    for i in range(len(order)):
        weight = max(math.exp(least - quotes[WEIGHT, i]), VEGA_MIN)
        if len(weights) > 0:
            weight = weights[order[i]]
            if not PRICE_MIN <= weight <= PRICE_MAX:
                return False
        quotes[WEIGHT, i], quotes[WEIGHT_W, i] = weight, weight / quotes[W, i]
    return True


@njit
def miss(kind: int, curve: Float64Array1D, quotes: Float64Array2D) -> tuple[float, float]:
    """Return the weighted root mean square of the errors of s, and the weighted mean of s."""
    squares = level = total = 0.0
    for i in range(quotes.shape[1]):
        s = math.sqrt(quotes[W, i])
        error = math.sqrt(max(variance_at(kind, curve, quotes[X, i]), 0.0)) - s
        squares += quotes[WEIGHT, i] * error * error
        level += quotes[WEIGHT, i] * s
        total += quotes[WEIGHT, i]
    return math.sqrt(squares / total), level / total


@njit
def variance_at(kind: int, curve: Float64Array1D, x: float) -> float:
    """Return the total variance at a log-moneyness, not NaN."""
    if kind == SVI:
        return svi.total_variance(curve, x)
    n = len(curve) // 2
    low, high = 0, n - 1
    if x <= curve[low]:
        return float(curve[n])
    if x >= curve[high]:
        return float(curve[n + high])
    while high - low > 1:
        middle = (low + high) // 2
        if curve[middle] <= x:
            low = middle
        else:
            high = middle
    share = (x - curve[low]) / (curve[high] - curve[low])
    return float(curve[n + low] + share * (curve[n + high] - curve[n + low]))


@njit
def variances(kind: int, curve: Float64Array1D, x: Float64Array1D, out: Float64Array1D) -> None:
    """Write the total variance at each log-moneyness."""
    for i in range(len(x)):
        out[i] = variance_at(kind, curve, x[i])


@njit
def size(x: float, s: float, role: int, adjusted: bool) -> float:
    """Return the size of the delta of a call or put, that of a straddle its d1, or d2 where premium-adjusted."""
    d = -x / s - 0.5 * s if adjusted else -x / s + 0.5 * s
    if role == 0:
        return d
    probability = 0.5 * math.erfc(-role * d * math.sqrt(0.5))
    return probability * math.exp(x) if adjusted else probability


@njit
def deltas(x: Float64Array1D, s: Float64Array1D, role: Float64Array1D, adjusted: bool, discount: float, out: Float64Array1D) -> None:
    """Write signed deltas, discounted; ``role`` is 1.0 or -1.0."""
    for i in range(len(x)):
        out[i] = role[i] * discount * size(x[i], s[i], int(role[i]), adjusted)


@njit
def size_at(kind: int, curve: Float64Array1D, x: float, role: int, adjusted: bool) -> float:
    """Return the size of a delta on a smile."""
    return size(x, math.sqrt(max(variance_at(kind, curve, x), VARIANCE_MIN)), role, adjusted)


@njit
def halved(kind: int, curve: Float64Array1D, role: int, adjusted: bool, target: float, inner: float, outer: float) -> float:
    """Return where the size falls through ``target``, being at least that at ``inner`` and less at ``outer``."""
    for _ in range(HALVINGS):
        middle = 0.5 * (inner + outer)
        if size_at(kind, curve, middle, role, adjusted) >= target:
            inner = middle
        else:
            outer = middle
    return inner


@njit
def crossing_between(curve: Float64Array1D, role: int, adjusted: bool, target: float, near: float, far: float) -> float:
    """Return what ``crossing`` looks for between two neighbours of its scan on a linear smile, NaN where there is none.

    Such a smile has kinks where its quotes are, and may cross twice around one: it is looked at in each that lies between.
    """
    kind, n, turn = LINEAR, len(curve) // 2, 1 if far > near else -1
    is_outward = (far - near) * (1 if role >= 0 else -1) > 0.0
    first, last = 0, n
    while first < last:
        middle = (first + last) // 2
        if curve[middle] > near if far > near else curve[middle] >= near:
            last = middle
        else:
            first = middle + 1
    at = first if turn > 0 else first - 1
    before, size_before = near, size_at(kind, curve, near, role, adjusted)
    is_inside = True
    while is_inside:
        is_inside = 0 <= at < n and (curve[at] - far) * turn < 0.0
        x = curve[at] if is_inside else far
        beyond = size_at(kind, curve, x, role, adjusted)
        if is_outward and size_before >= target > beyond:
            return halved(kind, curve, role, adjusted, target, before, x)
        if not is_outward and beyond >= target > size_before:
            return halved(kind, curve, role, adjusted, target, x, before)
        before, size_before = x, beyond
        at += turn
    return math.nan


@njit
def crossing(kind: int, curve: Float64Array1D, role: int, adjusted: bool, target: float) -> float:
    """Return the x nearest the forward at which the size falls through ``target`` on the way out of the money, NaN where none is.

    Away from the money is up for a call and for the straddle, down for a put. A premium-adjusted call has less delta again at low
    strikes, so sizes that rise through the target on the way out are passed over.
    """
    s = math.sqrt(max(variance_at(kind, curve, 0.0), VARIANCE_MIN))
    step = s / STEPS
    if role < 0:
        step = -step
    outward = inward = size_at(kind, curve, 0.0, role, adjusted)
    for i in range(1, int((WITHIN + 0.5 * s) * STEPS) + 1):
        found, near, far = math.nan, step * (i - 1), step * i
        beyond = size_at(kind, curve, far, role, adjusted)
        if kind == LINEAR:
            found = crossing_between(curve, role, adjusted, target, near, far)
        elif outward >= target > beyond:
            found = halved(kind, curve, role, adjusted, target, near, far)
        outward = beyond
        if not math.isnan(found):
            return found
        beyond = size_at(kind, curve, -far, role, adjusted)
        if kind == LINEAR:
            found = crossing_between(curve, role, adjusted, target, -near, -far)
        elif beyond >= target > inward:
            found = halved(kind, curve, role, adjusted, target, -far, -near)
        inward = beyond
        if not math.isnan(found):
            return found
    return math.nan


@njit
def pillars(kind: int, curve: Float64Array1D, adjusted: bool, target: float, out: Float64Array1D) -> None:
    """Write x of the put with delta ``target``, of the straddle and of the call, and behind them their total variances; NaN for none."""
    for role in range(-1, 2):
        x = crossing(kind, curve, role, adjusted, target if role != 0 else 0.0)
        out[role + 1] = x
        out[role + 4] = math.nan if math.isnan(x) else variance_at(kind, curve, x)


@njit
def peak(s: float) -> float:
    """Return the x at which the premium-adjusted delta of a call is greatest at one volatility: there ``s N(d2) = n(d2)``."""
    low, high = -s, PEAK_MAX
    for _ in range(HALVINGS):
        d = 0.5 * (low + high)
        if math.exp(-0.5 * d * d) / math.sqrt(2.0 * math.pi) > 0.5 * s * math.erfc(-d * math.sqrt(0.5)):
            low = d
        else:
            high = d
    return -s * low - 0.5 * s * s
