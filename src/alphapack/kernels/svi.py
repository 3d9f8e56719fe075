"""Raw SVI of one slice: ``w(x) = a + b (rho (x - m) + sqrt((x - m)^2 + sigma^2))``, its fit and where it admits arbitrage.

Here ``u = x - m``, ``h = sqrt(u^2 + sigma^2)``, ``q = h - sigma``. A fit writes the slice as ``w = level + slope u + bend q`` with
``bend = b``, ``slope = b rho``, ``level = a + b sigma``, and the slopes of the wings as ``left = b (1 - rho)``,
``right = b (1 + rho)``. For a given (m, sigma) that is linear (S. De Marco, C. Martini, "Quasi-explicit calibration of Gatheral's SVI
model", Zeliade 2009), and all that a slice must keep is convex: both wings from 0 to 2 (R. Lee, "The moment formula", 2004) and a
least variance ``level - sigma (sqrt(right) - sqrt(left))^2 / 2`` that is not negative. So the three are found exactly, by elimination,
and the search is in two dimensions: a grid of starts, then Gauss-Newton and Newton steps on what the elimination leaves.

A fit sees x less its mean in units of half its range, and w less its mean in units of about its largest. All it needs lies in one
float64 array, ``work``, whose places have names here; from ``SAMPLE`` on it holds x, w and weights, n of each.
"""

import math

from alphapack.arrays import Float64Array1D
from alphapack.jit import njit

A, B, RHO, M, SIGMA = range(5)
"""Parameters of a slice in their order; a point of the search has its m and sigma in the same places."""
LEVEL, SLOPE, BEND, SSE, PINNED = 0, 1, 2, 5, 6
POINT = 8
"""Of a point besides: the linear unknowns, the weighted sum of squared residuals, 1.0 where the least variance is at its bound."""

TRIAL, HERE, BEST = 0, POINT, 2 * POINT
"""Points: what a descent tries, which comes first and so has its numbers at their names; where it stands; the end of the best one."""
CENTER, HALF, MEAN, FLOOR, UNIT, WEIGHT, XX, XY, YY, STEEPEST, LOW = range(3 * POINT, 3 * POINT + 11)
"""Of the sample: mean and half range of x; mean of w above the least that a slice may have, and that, in units of w; the unit; sum of
weights; sums of squares and products of x and w; largest slope of a wing and least x, both in units."""
Q, QQ, XQ, QY = range(LOW + 1, LOW + 5)
"""Of the trial point: weighted mean of q and centred sums of its products."""
GRADIENT = QY + 1
HESSIAN = GRADIENT + 5
SLOPES = HESSIAN + 25
"""Derivatives of half the sum of squares in (least, root of left, root of right, m, ln sigma); then those that elimination leaves, by m,
ln sigma, m twice, both, ln sigma twice."""
STARTS, COLUMNS = SLOPES + 5, 7
"""The best start of every m: sum of squares, m, sigma."""
EXACT = STARTS + 3 * COLUMNS
"""1.0 where second derivatives of w are part of the Hessian."""
SAMPLE = EXACT + 1

POINTS_MIN, POINTS_MAX = 5, 1 << 16
X_MAX = 1_500.0
"""No logarithm of a ratio of two floats is farther from 0."""
W_MIN, W_MAX, WEIGHT_MIN, WEIGHT_MAX, RANGE_MIN = 1e-30, 1e10, 1e-100, 1e100, 1e-6
"""Beyond any market, and within what fourth powers of parameters leave to floats."""
SLOPE_MAX = 2.0 * (1.0 - 1e-9)
"""Lee's bound on the slopes of the wings, less what rounding may add."""
LEAST = 1e-9
"""Least variance of a slice as a part of the largest quoted, so that no variance rounds to one that is negative."""
RHO_MAX = 1.0 - 1e-9
BEYOND = 2.0
"""How far m may lie outside the quotes, in half ranges."""
SIGMA_MIN, SIGMA_MAX = 1e-4, 1e2
"""In half ranges: a slice that is sharper is a corner, one that is wider a parabola, to all the quotes can tell."""
START_SIGMA = (0.6, 0.2, 0.05, 0.01, 2.0)
"""Of the grid of starts, which has the middle of COLUMNS equal parts of the range for m."""
DESCENTS, STEPS_MAX = 2, 150
"""How many starts are gone on from, the best of each m first, and for how many steps at most."""
RADIUS, CORNER, SECULAR = 1.0, 0.05, 4
"""First region of trust, in which m counts in units of sigma and this; refinements of the damping that keeps a step within it."""
NEAR, PERFECT, GAIN, GAIN_PERFECT = 0.1, 1e-20, 1e-12, 1e-24
"""A descent ends this near to a better end (in sigma), a search at this part of the sum of squares about the mean, and a descent too
where a step promises no more than these parts of the sum of squares and of that about the mean."""
SHRINK, GROW, ENOUGH = 0.25, 0.75, 1e-3
"""Parts of the promised gain: below the first the region shrinks, above the second it grows, above the third a step is taken."""
RHOS = (-1.0, -0.92, -0.7, -0.4, 0.0, 0.4, 0.7, 0.92, 1.0)
FALSE_POSITIONS, PRECISE, TOUCHING = 30, 1e-14, 1e-12
"""Where rho is looked for with the least variance at its bound, and how far; a slope is at its bound within the last part of it."""

DEGREE, ROOTS_MAX, INTERVALS_MAX = 10, 10, 8
COEFFICIENTS = 0
ROOTS = COEFFICIENTS + DEGREE + 1
STACK = ROOTS + ROOTS_MAX + 2
"""Of the search for arbitrage: N, its roots and those of w, intervals of z that are still to be looked at."""
LOWER, WIDTH, FRAME = DEGREE + 1, DEGREE + 2, DEGREE + 3
"""Of an interval, behind its Bernstein coefficients: its lower end and width; length of all."""
DEPTH = 52
NARROW = 2.0 ** (1 - DEPTH)
ROOT_HALVINGS = 200
ARBITRAGE_WORK = STACK + (DEPTH + 2) * FRAME


@njit
def total_variance(params: Float64Array1D, x: float) -> float:
    """Return ``w(x)``; ``params`` are a, b, rho, m, sigma."""
    u = x - params[M]
    return float(params[A] + params[B] * (params[RHO] * u + math.sqrt(u * u + params[SIGMA] * params[SIGMA])))


@njit
def total_variances(params: Float64Array1D, x: Float64Array1D, out: Float64Array1D) -> None:
    """Write ``w`` at every x."""
    for i in range(len(x)):
        out[i] = total_variance(params, x[i])


@njit
def durrleman(params: Float64Array1D, x: float) -> float:
    """Return Durrleman's ``g(x) = (1 - x w' / (2 w))^2 - w'^2 / 4 (1 / w + 1 / 4) + w'' / 2``, at w > 0 the sign of the density."""
    u = x - params[M]
    h = math.sqrt(u * u + params[SIGMA] * params[SIGMA])
    w = params[A] + params[B] * (params[RHO] * u + h)
    slope = params[B] * (params[RHO] + u / h)
    bend = params[B] * (params[SIGMA] / h) * (params[SIGMA] / h) / h
    first = 1.0 - 0.5 * x * slope / w
    return float(first * first - 0.25 * slope * slope * (1.0 / w + 0.25) + 0.5 * bend)


@njit
def durrlemans(params: Float64Array1D, x: Float64Array1D, out: Float64Array1D) -> None:
    """Write ``g`` at every x."""
    for i in range(len(x)):
        out[i] = durrleman(params, x[i])


@njit
def fit(x: Float64Array1D, w: Float64Array1D, weights: Float64Array1D, work: Float64Array1D, out: Float64Array1D) -> bool:
    """Fit a slice to total variances by weighted least squares.

    Parameters
    ----------
    x, w, weights
        Shape (n,): logarithms of strike over forward in any order, positive total variances, positive weights of squared residuals.
        Without any weights all are 1.
    work
        Scratch of ``SAMPLE + 3 n``.
    out
        Shape (6,): a, b, rho, m, sigma and the root of the weighted mean of squared residuals.

    Returns
    -------
    bool
        False where the sample has a number out of its range or fewer than five different x; then nothing was fitted.
    """
    if not normalise(x, w, weights, work):
        return False
    grid(work, len(x))
    work[BEST + SSE] = math.inf
    for _ in range(DESCENTS):
        # From the middle, where a flat smile stays.
        start = STARTS + 3 * (COLUMNS // 2)
        for column in range(COLUMNS):
            if work[STARTS + 3 * column] < work[start]:
                start = STARTS + 3 * column
        if work[start] == math.inf or work[BEST + SSE] <= PERFECT * work[YY]:
            break
        work[start] = math.inf
        descend(work, len(x), work[start + 1], work[start + 2])
        if work[HERE + SSE] < work[BEST + SSE]:
            for i in range(POINT):
                work[BEST + i] = work[HERE + i]
    denormalise(work, out)
    return True


@njit
def normalise(x: Float64Array1D, w: Float64Array1D, weights: Float64Array1D, work: Float64Array1D) -> bool:
    """Take the sample over in its own units; False where a number is out of its range or fewer than five x differ."""
    n = len(x)
    low, high, most, heaviest, different = math.inf, -math.inf, 0.0, 0.0, 0
    for i in range(n):
        weight = 1.0 if len(weights) == 0 else weights[i]
        # A NaN is in no range.
        if not (abs(x[i]) <= X_MAX and W_MIN <= w[i] <= W_MAX and WEIGHT_MIN <= weight <= WEIGHT_MAX):
            return False
        low, high = min(low, x[i]), max(high, x[i])
        most, heaviest = max(most, w[i]), max(heaviest, weight)
        if different < POINTS_MIN:
            new = True
            for j in range(different):
                new = new and work[SAMPLE + j] != x[i]
            if new:
                work[SAMPLE + different] = x[i]
                different += 1
    if different < POINTS_MIN or not high - low >= RANGE_MIN:
        return False
    half = 0.5 * (high - low)
    unit = math.ldexp(1.0, math.frexp(most)[1])
    total, sum_x, sum_y = 0.0, 0.0, 0.0
    for i in range(n):
        weight = 1.0 if len(weights) == 0 else weights[i] / heaviest
        work[SAMPLE + i] = (x[i] - low) / half
        # Less the first, so that equal variances leave exact zeros.
        work[SAMPLE + n + i] = (w[i] - w[0]) / unit
        work[SAMPLE + 2 * n + i] = weight
        total += weight
        sum_x += weight * work[SAMPLE + i]
        sum_y += weight * work[SAMPLE + n + i]
    mean_x, mean_y = sum_x / total, sum_y / total
    xx, xy, yy = 0.0, 0.0, 0.0
    for i in range(n):
        work[SAMPLE + i] -= mean_x
        work[SAMPLE + n + i] -= mean_y
        weight = work[SAMPLE + 2 * n + i]
        xx += weight * work[SAMPLE + i] * work[SAMPLE + i]
        xy += weight * work[SAMPLE + i] * work[SAMPLE + n + i]
        yy += weight * work[SAMPLE + n + i] * work[SAMPLE + n + i]
    work[CENTER], work[HALF], work[LOW] = low + half * mean_x, half, -mean_x
    work[UNIT], work[FLOOR] = unit, LEAST * (most / unit)
    work[MEAN] = w[0] / unit + mean_y - work[FLOOR]
    work[WEIGHT], work[XX], work[XY], work[YY] = total, xx, xy, yy
    work[STEEPEST] = SLOPE_MAX * half / unit
    return True


@njit
def denormalise(work: Float64Array1D, out: Float64Array1D) -> None:
    """Write the parameters of the best point in the units of the sample, and the root mean squared residual."""
    half, unit = work[HALF], work[UNIT]
    bend, sigma = work[BEST + BEND], work[BEST + SIGMA]
    out[B] = unit / half * bend
    out[RHO] = min(max(work[BEST + SLOPE] / bend, -RHO_MAX), RHO_MAX) if out[B] > 0.0 else 0.0
    out[M], out[SIGMA] = work[CENTER] + half * work[BEST + M], half * sigma
    out[A] = unit * (work[MEAN] + work[FLOOR] + work[BEST + LEVEL] - bend * sigma)
    out[5] = unit * math.sqrt(work[BEST + SSE] / work[WEIGHT])


@njit
def grid(work: Float64Array1D, n: int) -> None:
    """Write the best start of every m."""
    for column in range(COLUMNS):
        start = STARTS + 3 * column
        work[start] = math.inf
        m = work[LOW] + 2.0 * (column + 0.5) / COLUMNS
        for sigma in START_SIGMA:
            work[M], work[SIGMA] = m, sigma
            eliminate(work, n)
            if work[SSE] < work[start]:
                work[start], work[start + 1], work[start + 2] = work[SSE], m, sigma


@njit
def eliminate(work: Float64Array1D, n: int) -> None:
    """Find the best level, slope and bend of the trial point for its m and sigma; its sum of squares is not free of cancellation."""
    m, sigma = work[M], work[SIGMA]
    square = sigma * sigma
    sum_q, qq, xq, qy = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        x = work[SAMPLE + i]
        u = x - m
        q = u * u / (math.sqrt(u * u + square) + sigma)
        heavy = work[SAMPLE + 2 * n + i] * q
        sum_q += heavy
        qq += heavy * q
        xq += heavy * x
        qy += heavy * work[SAMPLE + n + i]
    mean = sum_q / work[WEIGHT]
    work[Q], work[QQ], work[XQ], work[QY] = mean, qq - sum_q * mean, xq, qy
    wings(work)
    slope, bend = work[SLOPE], work[BEND]
    work[LEVEL] = slope * m - bend * mean
    least = work[MEAN] + work[LEVEL] - sigma * (bend - math.sqrt(max((bend - slope) * (bend + slope), 0.0)))
    work[PINNED] = 0.0
    if least < 0.0:
        pin(work)


@njit
def wings(work: Float64Array1D) -> None:
    """Find the best slopes of both wings within Lee's bounds, for any level."""
    xx, xq, qq, steepest = work[XX], work[XQ], work[QQ], work[STEEPEST]
    left_left, right_right, left_right = 0.25 * (qq - 2.0 * xq + xx), 0.25 * (qq + 2.0 * xq + xx), 0.25 * (qq - xx)
    to_left, to_right = 0.5 * (work[QY] - work[XY]), 0.5 * (work[QY] + work[XY])
    determinant = left_left * right_right - left_right * left_right
    left = right = -1.0
    if determinant > 1e-14 * left_left * right_right:
        left = (to_left * right_right - to_right * left_right) / determinant
        right = (to_right * left_left - to_left * left_right) / determinant
    best = math.inf
    if 0.0 <= left <= steepest and 0.0 <= right <= steepest:
        best = -to_left * left - to_right * right
    else:
        # The best of a convex function within a box lies on one of its edges when it is not inside.
        for edge in range(4):
            one = steepest if edge & 1 else 0.0
            if edge < 2:
                other = (to_right - left_right * one) / right_right if right_right > 0.0 else 0.0
                other = min(max(other, 0.0), steepest)
                p, t = one, other
            else:
                other = (to_left - left_right * one) / left_left if left_left > 0.0 else 0.0
                other = min(max(other, 0.0), steepest)
                p, t = other, one
            value = left_left * p * p + 2.0 * left_right * p * t + right_right * t * t - 2.0 * (to_left * p + to_right * t)
            if value < best:
                best, left, right = value, p, t
    work[SLOPE], work[BEND], work[SSE] = 0.5 * (right - left), 0.5 * (right + left), work[YY] + best


@njit
def pin(work: Float64Array1D) -> None:
    """Find the best slope and bend with the least variance at its bound: rho by the rule of false position, the bend in closed form."""
    best, at = math.inf, 0
    for i in range(len(RHOS)):
        pinned(work, RHOS[i])
        if work[SSE] < best:
            best, at = work[SSE], i
    low, rho, high = RHOS[max(at - 1, 0)], RHOS[at], RHOS[min(at + 1, len(RHOS) - 1)]
    # How the sum changes at both ends; where that is not known it is the opposite of the other end, which halves the interval.
    falling, rising, side = 0.0, 0.0, 0
    for _ in range(FALSE_POSITIONS):
        turn = pinned(work, rho)
        if abs(turn) <= PRECISE * work[YY]:
            break
        # An end that stays a second time counts half (Illinois), or it would stay for good.
        if turn < 0.0:
            rising = -turn if rising == 0.0 else 0.5 * rising if side < 0 else rising
            low, falling, side = rho, turn, -1
        else:
            falling = -turn if falling == 0.0 else 0.5 * falling if side > 0 else falling
            high, rising, side = rho, turn, 1
        rho = (low * rising - high * falling) / (rising - falling)
        if not low < rho < high:
            break
    work[PINNED] = 1.0


@njit
def pinned(work: Float64Array1D, rho: float) -> float:
    """Take the trial point over with its least variance at the bound; return how half its sum of squares changes with arccos(-rho)."""
    sine = math.sqrt((1.0 - rho) * (1.0 + rho))
    m, sigma, weight, level = work[M], work[SIGMA], work[WEIGHT], work[MEAN]
    # Of a slice with a bend of 1: its mean, its product with the sample and its square; then how they change with the angle.
    mean = sigma * (1.0 - sine) - m * rho + work[Q]
    along = weight * mean * level + work[XY] * rho + work[QY]
    square = weight * mean * mean + (work[XX] * rho + 2.0 * work[XQ]) * rho + work[QQ]
    turned = sigma * rho - m * sine
    along_turned = weight * turned * level + work[XY] * sine
    square_turned = 2.0 * (weight * mean * turned + (work[XX] * rho + work[XQ]) * sine)
    steepest = work[STEEPEST] / (1.0 + abs(rho))
    bend = max(along / square, 0.0) if square > 0.0 else 0.0
    bend_turned = 0.0
    if bend > steepest:
        bend, bend_turned = steepest, -math.copysign(steepest * sine / (1.0 + abs(rho)), rho)
    work[LEVEL], work[SLOPE], work[BEND] = bend * sigma * (1.0 - sine) - level, bend * rho, bend
    work[SSE] = weight * level * level + work[YY] + bend * (bend * square - 2.0 * along)
    return float(bend * (0.5 * bend * square_turned - along_turned) + bend_turned * (bend * square - along))


@njit
def derive(work: Float64Array1D, n: int) -> None:
    """Take the sum of squares of the trial point; half of its gradient and Hessian in (least, p, t, m, ln sigma).

    With ``left = p^2`` and ``right = t^2`` all bounds are boxes, and ``level = least + sigma (t - p)^2 / 2`` is smooth. The Hessian is
    exact, or without the second derivatives of w (Gauss-Newton).
    """
    level, slope, bend = work[LEVEL], work[SLOPE], work[BEND]
    m, sigma, exact = work[M], work[SIGMA], work[EXACT]
    square, scaled = sigma * sigma, sigma * bend
    p, t = math.sqrt(max(bend - slope, 0.0)), math.sqrt(max(bend + slope, 0.0))
    lift = sigma * (t - p)
    height = 0.5 * lift * (t - p)
    sse, v0, p0, t0, m0, s0 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    vp, vt, vm, vs, pp, pt, pm, ps = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    tt, tm, ts, mm, ms, ss = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        weight = work[SAMPLE + 2 * n + i]
        u = work[SAMPLE + i] - m
        h = math.sqrt(u * u + square)
        q = u * u / (h + sigma)
        inverse = 1.0 / h
        cosine, sine = u * inverse, sigma * inverse
        residual = level + slope * u + bend * q - work[SAMPLE + n + i]
        by_p, by_t, by_m, by_s = p * (q - u) - lift, t * (q + u) + lift, -slope - bend * cosine, height + scaled * (sine - 1.0)
        e = weight * residual
        sse += e * residual
        v0 += e
        p0 += e * by_p
        t0 += e * by_t
        m0 += e * by_m
        s0 += e * by_s
        e *= exact
        curved = e * bend * inverse
        heavy_p, heavy_t, heavy_m = weight * by_p, weight * by_t, weight * by_m
        vp += heavy_p
        vt += heavy_t
        vm += heavy_m
        vs += weight * by_s
        pp += heavy_p * by_p + e * (sigma + q - u)
        pt += heavy_p * by_t - e * sigma
        pm += heavy_p * by_m + e * p * (1.0 - cosine)
        ps += heavy_p * by_s + e * (p * sigma * (sine - 1.0) - lift)
        tt += heavy_t * by_t + e * (sigma + q + u)
        tm += heavy_t * by_m - e * t * (1.0 + cosine)
        ts += heavy_t * by_s + e * (t * sigma * (sine - 1.0) + lift)
        mm += heavy_m * by_m + curved * sine * sine
        ms += heavy_m * by_s + curved * sigma * sine * cosine
        ss += weight * by_s * by_s + e * by_s + curved * square * cosine * cosine
    work[SSE] = sse
    work[GRADIENT], work[GRADIENT + 1], work[GRADIENT + 2], work[GRADIENT + 3], work[GRADIENT + 4] = v0, p0, t0, m0, s0
    vv = work[WEIGHT]
    at = HESSIAN
    for one in (vv, vp, vt, vm, vs, vp, pp, pt, pm, ps, vt, pt, tt, tm, ts, vm, pm, tm, mm, ms, vs, ps, ts, ms, ss):
        work[at] = one
        at += 1


@njit
def reduce(work: Float64Array1D) -> None:
    """Eliminate the first three unknowns, so far as they are not at a bound, from gradient and Hessian of the last two."""
    slope, bend, steepest = work[SLOPE], work[BEND], work[STEEPEST]
    for k in range(3):
        pivot = work[HESSIAN + 6 * k]
        if k == 0:
            free = work[PINNED] == 0.0
        else:
            wing = bend - slope if k == 1 else bend + slope
            free = TOUCHING * bend < wing < (1.0 - TOUCHING) * steepest
        if not (free and pivot > 0.0):
            continue
        for i in range(k + 1, 5):
            factor = work[HESSIAN + 5 * i + k] / pivot
            for j in range(k + 1, 5):
                work[HESSIAN + 5 * i + j] -= factor * work[HESSIAN + 5 * k + j]
            work[GRADIENT + i] -= factor * work[GRADIENT + k]
    work[SLOPES], work[SLOPES + 1] = work[GRADIENT + 3], work[GRADIENT + 4]
    work[SLOPES + 2], work[SLOPES + 3], work[SLOPES + 4] = work[HESSIAN + 18], work[HESSIAN + 19], work[HESSIAN + 24]


@njit
def descend(work: Float64Array1D, n: int, m: float, sigma: float) -> None:
    """Walk down from a start by steps in (m, ln sigma) within a region of trust; the end is ``HERE``."""
    lowest, highest = work[LOW] - BEYOND, work[LOW] + 2.0 + BEYOND
    log_lowest, log_highest = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    log_sigma, radius = math.log(sigma), RADIUS
    next_m, next_s, length, gain, sse = m, log_sigma, 0.0, 0.0, math.inf
    work[EXACT] = 0.0
    for _ in range(STEPS_MAX):
        work[M], work[SIGMA] = next_m, math.exp(next_s)
        eliminate(work, n)
        derive(work, n)
        trial = work[SSE]
        if sse - trial < SHRINK * gain:
            radius = 0.25 * length
        elif sse - trial > GROW * gain:
            radius = max(radius, 2.0 * length)
        if sse - trial > ENOUGH * gain:
            # While Gauss-Newton steps halve the sum at least, second derivatives of w would not help.
            work[EXACT] = 1.0 if trial > 0.5 * sse else 0.0
            m, log_sigma, sse = next_m, next_s, trial
            for i in range(POINT):
                work[HERE + i] = work[i]
            reduce(work)
            apart = max(abs(m - work[BEST + M]), abs(work[HERE + SIGMA] - work[BEST + SIGMA]))
            if sse >= work[BEST + SSE] and apart < NEAR * work[BEST + SIGMA]:
                break
        # m counts in units of sigma, but not of a corner's.
        unit = CORNER + work[HERE + SIGMA]
        g, h = work[SLOPES] * unit, work[SLOPES + 1]
        gg, gh, hh = work[SLOPES + 2] * unit * unit, work[SLOPES + 3] * unit, work[SLOPES + 4]
        spread = math.sqrt(0.25 * (gg - hh) * (gg - hh) + gh * gh)
        least, most = 0.5 * (gg + hh) - spread, 0.5 * (gg + hh) + spread
        if not max(abs(least), abs(most)) > 0.0:
            break
        shift = damping(g, h, gg, gh, hh, least, most, radius)
        determinant = (least + shift) * (most + shift)
        if not determinant > 0.0:
            break
        step_m, step_s = (gh * h - (hh + shift) * g) / determinant, (gh * g - (gg + shift) * h) / determinant
        next_m = min(max(m + unit * step_m, lowest), highest)
        next_s = min(max(log_sigma + step_s, log_lowest), log_highest)
        if next_m != m + unit * step_m and hh + shift > 0.0:
            step_m = (next_m - m) / unit
            next_s = min(max(log_sigma - (h + gh * step_m) / (hh + shift), log_lowest), log_highest)
        elif next_s != log_sigma + step_s and gg + shift > 0.0:
            step_s = next_s - log_sigma
            next_m = min(max(m - unit * (g + gh * step_s) / (gg + shift), lowest), highest)
        step_m, step_s = (next_m - m) / unit, next_s - log_sigma
        length = math.sqrt(step_m * step_m + step_s * step_s)
        gain = -2.0 * (g * step_m + h * step_s) - (gg * step_m * step_m + 2.0 * gh * step_m * step_s + hh * step_s * step_s)
        if not gain > GAIN * sse + GAIN_PERFECT * work[YY]:
            break


@njit
def damping(g: float, h: float, gg: float, gh: float, hh: float, least: float, most: float, radius: float) -> float:
    """Return what to add to the eigenvalues so that they are positive and the step is no longer than the radius."""
    # The gradient along both eigenvectors, by projection on the one of the larger eigenvalue.
    x, y = (most - hh, gh) if abs(most - hh) > abs(most - gg) else (gh, most - gg)
    norm = math.sqrt(x * x + y * y)
    x, y = (x / norm, y / norm) if norm > 0.0 else (1.0, 0.0)
    along, across = abs(g * x + h * y), abs(h * x - g * y)
    tiny = 1e-12 * max(abs(least), abs(most))
    shift = max(0.0, tiny - least, across / radius - least, along / radius - most)
    if least > tiny and math.sqrt((across / least) * (across / least) + (along / most) * (along / most)) <= radius:
        return 0.0
    for _ in range(SECULAR):
        one, other = across / (least + shift), along / (most + shift)
        length = math.sqrt(one * one + other * other)
        if not length > radius:
            break
        slope = (one * one / (least + shift) + other * other / (most + shift)) / length
        shift += (length - radius) / slope * (length / radius)
    return shift


@njit
def arbitrage(params: Float64Array1D, work: Float64Array1D, out: Float64Array1D) -> int:
    """Find where on the whole line a slice admits butterfly arbitrage: Durrleman's g < 0, or w <= 0.

    With ``x = m + sigma (y - 1/y) / 2`` and y > 0, g has the sign of a polynomial N of degree 10 in y. Its Bernstein coefficients over
    ``z = y / (1 + y)`` in [0, 1] bound its number of roots by their changes of sign, so intervals are halved until none or one is left.

    Parameters
    ----------
    params
        Shape (5,): b >= 0, |rho| <= 1, sigma > 0, all of a size that their fourth powers are floats.
    work, out
        Scratch of ``ARBITRAGE_WORK``; room for ``INTERVALS_MAX`` pairs of ends, which may be infinite.

    Returns
    -------
    int
        How many intervals were written; they ascend and do not touch.
    """
    first, last = 0.5 * params[SIGMA] * params[B] * (1.0 - params[RHO]), 0.5 * params[SIGMA] * params[B] * (1.0 + params[RHO])
    polynomial(params, work)
    count = positive(params, work, isolate(work))
    found = 0
    for i in range(count + 1):
        low = work[ROOTS + i - 1] if i > 0 else 0.0
        high = work[ROOTS + i] if i < count else math.inf
        inside = 1.0
        if count > 0:
            inside = 0.5 * high if i == 0 else 2.0 * low if i == count else math.sqrt(low) * math.sqrt(high)
        # In y, where nothing cancels as it does in w far out.
        if first + inside * (params[A] + inside * last) > 0.0 and not value(work, inside) < 0.0:
            continue
        low, high = place(params, low), place(params, high)
        if found > 0 and out[2 * found - 1] == low:
            out[2 * found - 1] = high
        elif found < INTERVALS_MAX:
            out[2 * found], out[2 * found + 1] = low, high
            found += 1
    return found


@njit
def place(params: Float64Array1D, y: float) -> float:
    """Return the x of a y."""
    if y == 0.0:
        return -math.inf
    return float(params[M] + 0.5 * params[SIGMA] * (y - 1.0 / y))


@njit
def polynomial(params: Float64Array1D, work: Float64Array1D) -> None:
    """Write the coefficients of N, the lowest first.

    With ``y w = P``, ``w' (1 + y^2) = Q``, ``y x = X``, ``T = 1 + y^2``:
    ``N = 4 w^2 g y^2 T^3 = T (2 P T - X Q)^2 - T Q^2 (y P + P^2 / 4) + 16 (b / sigma) y^3 P^2``.
    """
    left, right = params[B] * (1.0 - params[RHO]), params[B] * (1.0 + params[RHO])
    half, m, middle = 0.5 * params[SIGMA], params[M], params[A]
    first, last = half * left, half * right
    bracket = (first, 2.0 * middle + m * left, 3.0 * (first + last), 2.0 * middle - m * right, last)
    slopes = (left * left, 0.0, -2.0 * left * right, 0.0, right * right)
    squares = (first * first, 2.0 * first * middle, middle * middle + 2.0 * first * last, 2.0 * middle * last, last * last)
    lower = (0.0, first, middle, last, 0.0)
    for i in range(DEGREE + 1):
        work[COEFFICIENTS + i] = 0.0
    for i in range(5):
        for j in range(5):
            term = bracket[i] * bracket[j] - slopes[i] * (lower[j] + 0.25 * squares[j])
            work[COEFFICIENTS + i + j] += term
            work[COEFFICIENTS + i + j + 2] += term
        work[COEFFICIENTS + i + 3] += 8.0 * (params[B] / half) * squares[i]


@njit
def isolate(work: Float64Array1D) -> int:
    """Write the roots of N at y > 0 in ascending order, return how many; ones closer than the arithmetic can tell may be missing."""
    binomial, top = 1.0, STACK
    for i in range(DEGREE + 1):
        work[top + i] = work[COEFFICIENTS + i] / binomial
        binomial = binomial * (DEGREE - i) / (i + 1.0)
    work[top + LOWER], work[top + WIDTH] = 0.0, 1.0
    count = 0
    while top >= STACK:
        changes, before = 0, 0.0
        for i in range(DEGREE + 1):
            value = work[top + i]
            if value != 0.0:
                changes += value * before < 0.0
                before = math.copysign(1.0, value)
        lower, width = work[top + LOWER], work[top + WIDTH]
        if changes == 0 or (changes > 1 and width < NARROW):
            top -= FRAME
        elif changes == 1 and width < 1.0:
            if count < ROOTS_MAX:
                work[ROOTS + count] = root(work, lower, lower + width, before < 0.0)
                count += 1
            top -= FRAME
        else:
            # The upper half stays, the lower one goes on top of it and so comes first.
            above = top + FRAME
            for i in range(DEGREE + 1):
                work[above + i] = work[top]
                for j in range(DEGREE - i):
                    work[top + j] = 0.5 * (work[top + j] + work[top + j + 1])
            work[above + LOWER], work[above + WIDTH] = lower, 0.5 * width
            work[top + LOWER], work[top + WIDTH] = lower + 0.5 * width, 0.5 * width
            top = above
    return count


@njit
def root(work: Float64Array1D, low: float, high: float, falling: bool) -> float:
    """Return the y of the one root of N with z between ``low`` and ``high``, both on one side of 1/2, by halving."""
    # In y to the left of 1, in 1 / y to the right, where z has few digits left.
    right = low >= 0.5
    if right:
        low, high, falling = 1.0 - high, 1.0 - low, not falling
    low, high = low / (1.0 - low), high / (1.0 - high)
    for _ in range(ROOT_HALVINGS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if (value(work, 1.0 / middle if right else middle) > 0.0) == falling:
            low = middle
        else:
            high = middle
    return 1.0 / high if right else high


@njit
def value(work: Float64Array1D, y: float) -> float:
    """Return N at y, divided by y^10 where y > 1."""
    total = 0.0
    if y > 1.0:
        y = 1.0 / y
        for i in range(DEGREE + 1):
            total = total * y + work[COEFFICIENTS + i]
    else:
        for i in range(DEGREE + 1):
            total = total * y + work[COEFFICIENTS + DEGREE - i]
    return total


@njit
def positive(params: Float64Array1D, work: Float64Array1D, count: int) -> int:
    """Put the y where w is 0 among the roots; return how many there are then."""
    first, last = 0.5 * params[SIGMA] * params[B] * (1.0 - params[RHO]), 0.5 * params[SIGMA] * params[B] * (1.0 + params[RHO])
    square = 0.25 * params[A] * params[A] - first * last
    if not (params[A] < 0.0 and square >= 0.0):
        return count
    larger = math.sqrt(square) - 0.5 * params[A]
    for i in range(2):
        y = first / larger if i == 0 else larger / last if last > 0.0 else 0.0
        if y > 0.0:
            at = count
            while at > 0 and work[ROOTS + at - 1] > y:
                work[ROOTS + at] = work[ROOTS + at - 1]
                at -= 1
            work[ROOTS + at] = y
            count += 1
    return count
