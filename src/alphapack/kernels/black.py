"""Black's formula and its inverse, for the out-of-the-money side of an option.

Of forward and strike, the gap is ``greater / lesser - 1`` and ``x = ln(1 + gap) >= 0``; a share is a time value over the lesser of the
two, undiscounted, between 0 and 1. With total volatility ``s = sigma sqrt(t)``, here ``u = x / s`` and ``h = s / 2``, and with the scaled
complementary error function ``Y(z) = exp(z^2 / 2) erfc(z / sqrt(2))``:

    share     = exp(-(u - h)^2 / 2) (Y(u - h) - Y(u + h)) / 2
    1 - share = exp(-(u - h)^2 / 2) (Y(h - u) + Y(h + u)) / 2

No exponent ever cancels another, which is what makes the inverse exact for prices of any size. See docs/IMPLIED.md.

References
----------
F. Black, "The pricing of commodity contracts", Journal of Financial Economics 3 (1976).
P. Jaeckel, "Let's be rational", Wilmott (2015): which form of the price is solved in which region, and that of the steps.
A. Householder, "The numerical treatment of a single nonlinear equation" (1970): the step of order five.
"""

import math

from alphapack.arrays import Float64Array1D, Uint8Array1D
from alphapack.jit import njit

SLOPE = 0.7978845608028654
"""sqrt(2 / pi): minus the slope of ``Y`` is ``SLOPE - z Y(z)``, and ``z Y(z)`` tends to SLOPE."""
TURN = 0.675
"""``h - u`` beyond which the complement of a share is the smaller of the two: at most the 75% quantile of the normal distribution."""
FAR = 39.0
"""Standard deviations beyond which a share is smaller than any float."""
NARROW, NEAR = 0.125, 1.0
"""Greatest h and x at which the difference of two neighbouring ``Y`` is summed as a series in h."""
F3, F5, F7, F9, F11 = 1.0 / 6.0, 1.0 / 120.0, 1.0 / 5040.0, 1.0 / 362880.0, 1.0 / 39916800.0
"""Inverse factorials of the series."""
LEAST = 2.2250738585072014e-308
"""Least float with all its digits."""
UNRESOLVED_MAX = 2.0**-50
"""Time value, over a price in the money, of which rounding has left fewer than three bits."""
ROUNDS_MAX = 8
"""Steps at most; one is usual, and three the most that were seen."""
CLOSE = 5e-4
"""Relative step, of the fifth order, behind which nothing is left to correct."""

OK, BELOW_INTRINSIC, AT_INTRINSIC, ABOVE_MAXIMUM, UNRESOLVED, NOT_FINITE, NOT_POSITIVE = range(7)


@njit
def tail(z: float) -> float:
    """Return ``Y(z) = exp(z^2 / 2) erfc(z / sqrt(2))`` for z from -0.75 to 1e20.

    A rational function of degrees 11 and 12, fitted to Y in high precision within 2e-17; rounding makes it 6e-16, 1.2e-16 in the
    mean, and 3e-15 below -0.3, where terms differ in sign.
    """
    z2 = z * z
    z4 = z2 * z2
    above = (
        ((1.0 + z * 1.7339612565941342) + z2 * (1.4925004804664321 + z * 0.8272129852028579))
        + z4 * ((0.3249680034660235 + z * 0.09451636760889628) + z2 * (0.020714066967673573 + z * 0.0034183521920856854))
        + (z4 * z4) * ((0.00041665106099548853 + z * 3.5808211170787054e-05) + z2 * (1.960909758983859e-06 + z * 5.2159385925879463e-08))
    )
    below = (
        ((1.0 + z * 2.5318458173969995) + z2 * (3.0126211685008086 + z * 2.230975514666663))
        + z4 * ((1.1470919005755011 + z * 0.4322284104105637) + z2 * (0.12265386478715525 + z * 0.0264785123633035))
        + (z4 * z4)
        * (
            ((0.004329017321792114 + z * 0.0005246523009958436) + z2 * (4.4944309388101925e-05 + z * 2.457635922934399e-06))
            + z4 * 6.537209577459986e-08
        )
    )
    return above / below


@njit
def width(u: float, h: float, sign: float) -> float:
    """Return ``Y(u - h) - Y(u + h)`` for a sign of 1, ``Y(h - u) + Y(h + u)`` for -1."""
    if sign > 0.0 and h < NARROW and u * h < 0.5 * NEAR:
        # By the even derivatives of Y', all of them polynomials in u^2 times Y' and SLOPE.
        v, w = u * u, h * h
        slope = SLOPE - u * tail(u)
        third, fifth = 3.0 + v, 15.0 + v * (10.0 + v)
        seventh, ninth = 105.0 + v * (105.0 + v * (21.0 + v)), 945.0 + v * (1260.0 + v * (378.0 + v * (36.0 + v)))
        last = 10395.0 + v * (17325.0 + v * (6930.0 + v * (990.0 + v * (55.0 + v))))
        own = F3 * third + w * (F5 * fifth + w * (F7 * seventh + w * (F9 * ninth + w * (F11 * last))))
        fifth, seventh, ninth = 7.0 + v, 57.0 + v * (18.0 + v), 561.0 + v * (285.0 + v * (33.0 + v))
        last = 6555.0 + v * (4680.0 + v * (840.0 + v * (52.0 + v)))
        other = F3 + w * (F5 * fifth + w * (F7 * seventh + w * (F9 * ninth + w * (F11 * last))))
        return 2.0 * h * (slope + w * (slope * own - SLOPE * other))
    return tail(sign * (u - h)) - sign * tail(u + h)


@njit
def share(x: float, s: float) -> float:
    """Return the share of an option with ``x = ln(greater / lesser)`` and total volatility ``s``, neither negative."""
    if s == 0.0:
        return 0.0
    h = 0.5 * s
    z = x / s - h
    if abs(z) > FAR:
        return 0.0 if z > 0.0 else 1.0
    sign = 1.0 if z > -TURN else -1.0
    part = 0.5 * math.exp(-0.5 * z * z) * width(x / s, h, sign)
    return part if sign > 0.0 else 1.0 - part


@njit
def start(x: float, gap: float, part: float) -> float:
    """Return a first total volatility, mostly within 1e-3, for a share up to a half.

    The share of a normally distributed price (Bachelier's) has an inverse of one variable, ``ln(1 + x / price)``, here as a rational
    function within 1.4e-4. What it lacks is added in the first order of s^2.
    """
    price = part / math.sqrt(1.0 + gap)
    a = math.log(min(1.0 + x / price, 1e308)) if price > 0.0 else 709.0
    a2 = a * a
    above = (2.5069561 + a * 0.221116636) + a2 * ((0.0831438672 + a * 0.00255340771) + a2 * (7.96501726e-06 + a * 1.47777897e-09))
    below = (1.0 + a * 0.590353477) + a2 * ((0.152166008 + a * 0.0262617705) + a2 * (0.000267360317 + a * 2.43386344e-07))
    s = (price + x) * above / below
    u, w = x / s, 0.25 * s * s
    return s + s * w * (1.0 + u * (1.88 + u)) / (2.0 * (3.0 + u * (1.88 + u)) * (1.0 + u * (1.2533 + 0.97 * u)))


@njit
def total_volatility(gap: float, part: float, rest: float) -> float:
    """Return the total volatility at which an option has a share.

    Parameters
    ----------
    gap
        ``greater / lesser - 1`` of forward and strike, finite and not negative.
    part, rest
        The share and its complement, both greater than 0; part at least LEAST. Apart from each other, for each has digits of its own.

    Returns
    -------
    float
        ``s > 0``, relative error below 1e-14. An ulp of the lesser of ``part`` and ``rest`` moves it by 1.2 ulp at most.
    """
    x = math.log1p(gap)
    sign, target = (1.0, part) if part <= rest else (-1.0, rest)
    # What h - u is at most, or for the complement at least, bounds the root.
    if sign > 0.0:
        least, most = 0.0, TURN + math.sqrt(TURN * TURN + 2.0 * x)
        s = min(start(x, gap, part), most)
    else:
        least, most = math.sqrt(2.0 * x), math.inf
        # A tail of the normal distribution is less than half of exp(-z^2 / 2): this is no less than the root.
        z = math.sqrt(-2.0 * math.log(rest))
        s = z + math.sqrt(z * z + 2.0 * x)
    for _ in range(ROUNDS_MAX):
        u, h = x / s, 0.5 * s
        v, w, z = u * u, h * h, u - h
        span = width(u, h, sign)
        # First to fourth derivative of the log share in s, each but the first over the first and times a power of s.
        d1 = sign * SLOPE * s / span
        d2 = v - w - d1
        b1 = -3.0 * v - w - d1 * d2
        d3 = d2 * d2 + b1
        d4 = d2 * (d2 * d2 + 3.0 * b1) + 12.0 * v - d1 * d3
        n = (0.5 * z * z - math.log(span / (target + target))) / d1
        move = n * (1.0 + n * (d2 + n * d3 / 6.0)) / (1.0 + n * (1.5 * d2 + n * (d2 * d2 / 4.0 + d3 / 3.0 + n * d4 / 24.0)))
        s = min(max(s + s * min(max(move, -0.5), 1.0), least), most)
        if abs(move) < CLOSE:
            break
    return s


@njit
def implied(
    price: Float64Array1D,
    forward: Float64Array1D,
    strike: Float64Array1D,
    years: Float64Array1D,
    call: Uint8Array1D,
    out: Float64Array1D,
    status: Uint8Array1D,
) -> None:
    """Write implied volatilities, NaN where the status is not OK; all arrays have one length."""
    for i in range(len(price)):
        p, f, k, t = float(price[i]), float(forward[i]), float(strike[i]), float(years[i])
        out[i] = math.nan
        if not (abs(p) < math.inf and abs(f) < math.inf and abs(k) < math.inf and abs(t) < math.inf):
            status[i] = NOT_FINITE
            continue
        if not (f > 0.0 and k > 0.0 and t > 0.0):
            status[i] = NOT_POSITIVE
            continue
        most, other = (f, k) if call[i] != 0 else (k, f)
        lesser = min(f, k)
        gap = (max(f, k) - lesser) / lesser
        value = p - max(most - other, 0.0)
        rest = (most - p) / lesser
        if not gap < math.inf:
            status[i] = NOT_FINITE
        elif value < 0.0:
            status[i] = BELOW_INTRINSIC
        elif value == 0.0:
            status[i] = AT_INTRINSIC
        elif rest <= 0.0:
            status[i] = ABOVE_MAXIMUM
        elif value / lesser < LEAST or (most > other and value < UNRESOLVED_MAX * p):
            status[i] = UNRESOLVED
        else:
            status[i] = OK
            out[i] = total_volatility(gap, value / lesser, rest) / math.sqrt(t)


@njit
def prices(
    forward: Float64Array1D, strike: Float64Array1D, sigma: Float64Array1D, years: Float64Array1D, call: Uint8Array1D, out: Float64Array1D
) -> None:
    """Write undiscounted prices, NaN where an argument is out of its range; all arrays have one length."""
    for i in range(len(forward)):
        f, k, v, t = float(forward[i]), float(strike[i]), float(sigma[i]), float(years[i])
        out[i] = math.nan
        if 0.0 < f < math.inf and 0.0 < k < math.inf and 0.0 <= v < math.inf and 0.0 <= t < math.inf:
            lesser = min(f, k)
            intrinsic = max(f - k if call[i] != 0 else k - f, 0.0)
            out[i] = intrinsic + lesser * share(math.log1p((max(f, k) - lesser) / lesser), v * math.sqrt(t))


@njit
def vegas(forward: Float64Array1D, strike: Float64Array1D, sigma: Float64Array1D, years: Float64Array1D, out: Float64Array1D) -> None:
    """Write the change of the price with sigma, NaN where an argument is out of its range; all arrays have one length."""
    for i in range(len(forward)):
        f, k, v, t = float(forward[i]), float(strike[i]), float(sigma[i]), float(years[i])
        out[i] = math.nan
        if 0.0 < f < math.inf and 0.0 < k < math.inf and 0.0 <= v < math.inf and 0.0 <= t < math.inf:
            lesser, s = min(f, k), v * math.sqrt(t)
            x = math.log1p((max(f, k) - lesser) / lesser)
            z = x / s - 0.5 * s if s > 0.0 else (math.inf if x > 0.0 else 0.0)
            out[i] = 0.5 * SLOPE * lesser * math.sqrt(t) * math.exp(-0.5 * z * z)
