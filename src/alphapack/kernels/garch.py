"""GARCH(1,1) with the Gaussian quasi-likelihood: filter, likelihood with exact derivatives, the whole fit, forecasts.

``h[t+1] = omega + alpha e[t]^2 + beta h[t]`` with ``e[t] = r[t] - mu``. A missing minute takes the expectation of ``e^2``, hence
``h[t+1] = omega + (alpha + beta) h[t]``, and adds nothing to the likelihood; before the first minute stands a missing one that has the
presample variance. Derivatives are exact and follow the same recursion: Fiorentini, Calzolari, Panattoni, "Analytic derivatives and
the computation of GARCH estimates", Journal of Applied Econometrics 11 (1996), from here on FCP.

A fit sees ``z = SCALE (r - CENTER)``; the scale is a power of two, so it rounds nothing. All else it needs lies in one float64 array,
``work``, whose places have names here. A point is four parameters (mu, omega, alpha, beta) and what is known there. ``valid`` has a
byte a minute, 0 where it is missing, or none at all where none is.
"""

import math

from alphapack.arrays import Float64Array1D, Uint8Array1D
from alphapack.jit import njit, njit_off_loop

MU, OMEGA, ALPHA, BETA = range(4)
LOGLIK, SCORE, CURVATURE, NEXT = 4, 5, 9, 19
"""Of a point, behind its parameters: log-likelihood of z, gradient, 4x4 curvature (lower triangle by rows), variance of the next z."""
POINT = 20

HERE, THERE, BEST = 0, POINT, 2 * POINT
STEP = 3 * POINT
FACTOR = STEP + 4
FREE = FACTOR + 10
"""Step from a point, Cholesky factor behind it, and which parameters it moves (1.0) or leaves at their bound (0.0)."""

SCALE, CENTER, MEAN, SQUARE, PRESAMPLE, CONSTANT, COUNT = range(78, 85)
"""Of the sample: scale, center, mean and mean square of z, presample variance (NaN: mean of e^2), 1.0 with a mean, minutes not missing."""
GRADIENT, ROUNDS, CERTIFIED, BEST_GRADIENT, HEADED = range(85, 90)
"""Of the fit: length of the last step in standard errors, points looked at, 1.0 where the certificate holds, the length at BEST,
log-likelihood at which the first ascent over the head ended.
"""
PLACE, LOGS, FOURTH, WEIGHTS = 90, 91, 92, 93
"""Of the point being looked at: where it is, the sum of log h, the mean of (e^2 / h)^2, what makes up the curvature."""
FACTS = 101
"""Length of what is worth keeping of the array."""

BLOCK, LANES = 64, 8
ROW = BLOCK + LANES
H, HW, HA, HB, HWA, HWB, HAA, HAB, HBB, HU, HUU, HUA, HUB, E, RATIO = range(128, 128 + 15 * ROW, ROW)
"""A block of minutes by rows: the inverse of the variance h, derivatives of h (u, w, a, b are the parameters), residual e, e^2 / h.

Behind its minutes a row has its value at the minute to come, H the variance itself.
"""
INVERSE = H
X, XX, GU, GW, GA, GB, UU, UW, WW, UA, WA, AA, UB, WB, AB, BB = range(RATIO + ROW, RATIO + ROW + 16 * LANES, LANES)
WORK = BB + LANES
"""Sums in lanes, of e^2 / h, its square, gradient and curvature; then the length of the array."""

OF_EXACT = (-0.5, 1.0, 0.0, 0.5, 1.0, 0.0, 1.0, 1.0)
OF_FISHER = (0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OF_OUTER = (0.25, -0.5, 0.25, 0.0, -0.5, 0.5, 0.0, 1.0)
EXACT, FISHER, OUTER = range(3)
"""Curvatures: negative Hessian, Fisher information (FCP, block diagonal in mu), outer products of scores."""

START_OMEGA = (0.1, 0.1, 0.005, 0.003, 0.048, 0.01, 0.07, 0.65, 0.6, 1e-5, 1e-5, 1.0)
START_ALPHA = (0.1, 0.4, 0.01, 0.002, 0.002, 0.05, 0.03, 0.05, 0.4, 0.0, 0.0, 0.0)
START_BETA = (0.8, 0.5, 0.985, 0.995, 0.95, 0.94, 0.9, 0.3, 0.0, 0.9999, 1.0, 0.0)
"""Where ascents start, omega in mean squares of z: first where maxima usually are, last a falling, a rising and a constant variance."""
HEAD, SAME = 5_000, 0.05
"""Minutes that ascents over more than twice as many begin with; what ends there no farther from the first in log-likelihood is the same."""
BESIDE = 0.5
"""Distance from the best maximum so far, in standard errors, at which an ascent that stands lower is given up."""
TAILS, CLEAR, PLAIN, ENOUGH, WARM = 8.0, 100.0, 150.0, 3, 40.0
"""When an ascent is believed: the first where the mean of (e^2 / h)^2 is at most TAILS and the log-likelihood CLEAR above that of a
constant variance, ENOUGH of them where it is PLAIN above, one from the parameters before where it is WARM above."""
CERTIFICATE = 1e-6
"""Longest Newton step, in standard errors, from a point that is called a maximum."""
ROUNDS_MAX = 100
"""Points looked at from one start."""

LARGEST = 1e100
"""No return is larger, and some are farther apart than its inverse: squares would leave the range of floats."""
FLOOR = 1e-12
"""Least omega in the units of z, whose mean square is between 1/2 and 2; it keeps variances above zero."""
LEAST, MOST = (-math.inf, FLOOR, 0.0, 0.0), (math.inf, math.inf, math.inf, 1.0)
"""Bounds of mu, omega, alpha, beta; the diagonal of the curvature is at i (i + 3) / 2."""


@njit
def moments(returns: Float64Array1D, valid: Uint8Array1D, work: Float64Array1D) -> bool:
    """Take center, scale and mean square of a sample; False where a return is not finite or too large, or where all are alike."""
    low, high, total, count = math.inf, -math.inf, 0.0, 0
    for t in range(len(returns)):
        if len(valid) == 0 or valid[t] != 0:
            r = returns[t]
            if not abs(r) <= LARGEST:  # Neither is a NaN.
                return False
            low = min(low, r)
            high = max(high, r)
            total += r
            count += 1
    work[COUNT] = count
    if not high - low >= 1.0 / LARGEST:
        return False
    work[CENTER] = min(max(total / count, low), high) if work[CONSTANT] == 1.0 else 0.0
    # First by the largest return, so that no square overflows or vanishes.
    reach = max(high - work[CENTER], work[CENTER] - low)
    scale = math.ldexp(1.0, -math.frexp(reach)[1])
    total = squares = 0.0
    for t in range(len(returns)):
        if len(valid) == 0 or valid[t] != 0:
            z = (returns[t] - work[CENTER]) * scale
            total += z
            squares += z * z
    again = math.ldexp(1.0, -(math.frexp(squares / count)[1] // 2))
    work[SCALE] = scale * again
    work[MEAN] = total / count * again
    work[SQUARE] = squares / count * again * again
    return True


@njit
def evaluate(returns: Float64Array1D, valid: Uint8Array1D, work: Float64Array1D, at: int, kind: int) -> None:
    """Take log-likelihood, gradient, curvature of a kind and next variance of the point at ``at``.

    A block of minutes at a time: first the recursions, one minute after the other, then all sums, several minutes side by side.
    """
    work[PLACE] = at
    weigh(work, kind)
    open_sums(work)
    for first in range(0, len(returns), BLOCK):
        recur(returns, valid, work, first)
        gather(work)
        if work[CONSTANT] == 1.0:
            recur_mean(valid, work, first)
            gather_mean(work)
    close_sums(work, at)


@njit
def open_sums(work: Float64Array1D) -> None:
    """Set the recursions to the first minute, one step behind the presample variance, and the sums to zero."""
    at = int(work[PLACE])
    mu = work[at]
    persistence = work[at + ALPHA] + work[at + BETA]
    h, slope, bend = work[PRESAMPLE], 0.0, 0.0
    if math.isnan(h):
        h = work[SQUARE] + mu * (mu - 2.0 * work[MEAN])
        slope = 2.0 * (mu - work[MEAN])
        bend = 2.0
    for i in range(H, WORK):
        work[i] = 0.0
    work[H + BLOCK] = work[at + OMEGA] + persistence * h
    work[HW + BLOCK] = 1.0
    work[HA + BLOCK] = work[HB + BLOCK] = h
    work[HU + BLOCK] = persistence * slope
    work[HUU + BLOCK] = persistence * bend
    work[HUA + BLOCK] = work[HUB + BLOCK] = slope
    work[LOGS] = 0.0


@njit
def recur(returns: Float64Array1D, valid: Uint8Array1D, work: Float64Array1D, first: int) -> None:
    """Write the block of minutes from ``first`` on; a missing one, or one beyond the last, has no e, no e^2 / h and no 1 / h."""
    at = int(work[PLACE])
    mu, omega, alpha, beta = work[at], work[at + OMEGA], work[at + ALPHA], work[at + BETA]
    center = work[CENTER]
    scale = work[SCALE]
    p = alpha + beta
    end = BLOCK
    h = work[H + end]
    hw = work[HW + end]
    ha = work[HA + end]
    hb = work[HB + end]
    hwa = work[HWA + end]
    hwb = work[HWB + end]
    haa = work[HAA + end]
    hab = work[HAB + end]
    hbb = work[HBB + end]
    logs = work[LOGS]
    product = 1.0
    for i in range(end):
        if first + i >= len(returns):
            work[E + i] = work[RATIO + i] = work[INVERSE + i] = 0.0
            continue
        work[HW + i] = hw
        work[HA + i] = ha
        work[HB + i] = hb
        work[HWA + i] = hwa
        work[HWB + i] = hwb
        work[HAA + i] = haa
        work[HAB + i] = hab
        work[HBB + i] = hbb
        if len(valid) == 0 or valid[first + i] != 0:
            e = (returns[first + i] - center) * scale - mu
            square = e * e
            inverse = 1.0 / h
            work[E + i] = e
            work[RATIO + i] = square * inverse
            work[INVERSE + i] = inverse
            product *= h
            if not 1e-150 < product < 1e150:  # A logarithm costs as much as all the rest.
                logs += math.log(product)
                product = 1.0
            hbb = beta * hbb + 2.0 * hb
            hab = beta * hab + ha
            haa = beta * haa
            hwb = beta * hwb + hw
            hwa = beta * hwa
            hb = beta * hb + h
            ha = beta * ha + square
            hw = beta * hw + 1.0
            h = beta * h + (alpha * square + omega)
        else:
            work[E + i] = work[RATIO + i] = work[INVERSE + i] = 0.0
            hbb = p * hbb + 2.0 * hb
            hab = p * hab + ha + hb
            haa = p * haa + 2.0 * ha
            hwb = p * hwb + hw
            hwa = p * hwa + hw
            hb = p * hb + h
            ha = p * ha + h
            hw = p * hw + 1.0
            h = p * h + omega
    work[LOGS] = logs + math.log(product)
    work[H + end] = h
    work[HW + end] = hw
    work[HA + end] = ha
    work[HB + end] = hb
    work[HWA + end] = hwa
    work[HWB + end] = hwb
    work[HAA + end] = haa
    work[HAB + end] = hab
    work[HBB + end] = hbb


@njit
def gather(work: Float64Array1D) -> None:
    """Add a block to the sums of omega, alpha and beta.

    With ``x = e^2 / h``, the curvature is the sum of ``(k0 + k1 x + k2 x^2) / h^2 dh dh'`` and, for the exact one, of second derivatives.
    """
    k0, k1, k2 = work[WEIGHTS], work[WEIGHTS + 1], work[WEIGHTS + 2]
    curved = work[WEIGHTS + 3]
    for i in range(0, BLOCK, LANES):
        for lane in range(LANES):
            t = i + lane
            x = work[RATIO + t]
            inverse = work[INVERSE + t]
            hw = work[HW + t]
            ha = work[HA + t]
            hb = work[HB + t]
            c = (x - 1.0) * inverse
            d = curved * c
            q = (k0 + x * (k1 + x * k2)) * inverse * inverse
            qw = q * hw
            qa = q * ha
            work[X + lane] += x
            work[XX + lane] += x * x
            work[GW + lane] += c * hw
            work[GA + lane] += c * ha
            work[GB + lane] += c * hb
            work[WW + lane] += qw * hw
            work[WA + lane] += qw * ha - d * work[HWA + t]
            work[AA + lane] += qa * ha - d * work[HAA + t]
            work[WB + lane] += qw * hb - d * work[HWB + t]
            work[AB + lane] += qa * hb - d * work[HAB + t]
            work[BB + lane] += q * hb * hb - d * work[HBB + t]


@njit
def recur_mean(valid: Uint8Array1D, work: Float64Array1D, first: int) -> None:
    """Write the derivatives of the variances of a block that involve mu, behind ``recur``."""
    at = int(work[PLACE])
    alpha, beta = work[at + ALPHA], work[at + BETA]
    p = alpha + beta
    end = BLOCK
    hu = work[HU + end]
    huu = work[HUU + end]
    hua = work[HUA + end]
    hub = work[HUB + end]
    for i in range(end):
        work[HU + i] = hu
        work[HUU + i] = huu
        work[HUA + i] = hua
        work[HUB + i] = hub
        if first + i >= len(valid) or valid[first + i] != 0:
            e = 2.0 * work[E + i]
            hua = beta * hua - e
            hub = beta * hub + hu
            huu = beta * huu + 2.0 * alpha
            hu = beta * hu - alpha * e
        else:
            hua = p * hua + hu
            hub = p * hub + hu
            huu = p * huu
            hu = p * hu
    work[HU + end] = hu
    work[HUU + end] = huu
    work[HUA + end] = hua
    work[HUB + end] = hub


@njit
def gather_mean(work: Float64Array1D) -> None:
    """Add a block to the sums of mu, behind ``gather``; ``(r0 + r1 x) e / h^2`` is where mu and the variance meet."""
    k0, k1, k2 = work[WEIGHTS], work[WEIGHTS + 1], work[WEIGHTS + 2]
    curved, r0, r1 = work[WEIGHTS + 3], work[WEIGHTS + 4], work[WEIGHTS + 5]
    own, cross = work[WEIGHTS + 6], work[WEIGHTS + 7]
    for i in range(0, BLOCK, LANES):
        for lane in range(LANES):
            t = i + lane
            x = work[RATIO + t]
            inverse = work[INVERSE + t]
            hu = work[HU + t]
            score = work[E + t] * inverse
            c = (x - 1.0) * inverse
            d = curved * c
            q = (k0 + x * (k1 + x * k2)) * inverse * inverse
            r = (r0 + r1 * x) * score * inverse
            mixed = cross * (q * hu + r)
            work[GU + lane] += score + 0.5 * c * hu
            work[UU + lane] += (q * hu + 2.0 * r) * hu - d * work[HUU + t] + (own + (1.0 - own) * x) * inverse
            work[UW + lane] += mixed * work[HW + t]
            work[UA + lane] += mixed * work[HA + t] - d * work[HUA + t]
            work[UB + lane] += mixed * work[HB + t] - d * work[HUB + t]


@njit
def weigh(work: Float64Array1D, kind: int) -> None:
    """Set what makes up a curvature of this kind: k0, k1, k2, second derivatives, r0, r1, 1 / h in place of x / h, mu with the rest."""
    for i in range(8):
        if kind == EXACT:
            work[WEIGHTS + i] = OF_EXACT[i]
        elif kind == FISHER:
            work[WEIGHTS + i] = OF_FISHER[i]
        else:
            work[WEIGHTS + i] = OF_OUTER[i]


@njit
def close_sums(work: Float64Array1D, at: int) -> None:
    """Write the sums to the point."""
    for i in range(X, WORK, LANES):
        for lane in range(1, LANES):
            work[i] += work[i + lane]
    work[at + LOGLIK] = -0.5 * (work[LOGS] + work[X])
    work[FOURTH] = work[XX] / work[COUNT]
    for j in range(4):
        work[at + SCORE + j] = work[GU + j * LANES] if j == 0 else 0.5 * work[GU + j * LANES]
    for j in range(10):
        work[at + CURVATURE + j] = work[UU + j * LANES]
    work[at + NEXT] = work[H + BLOCK]


@njit
def factorise(work: Float64Array1D) -> bool:
    """Factorise the curvature of the free parameters at HERE; False where it is not positive definite."""
    for i in range(4):
        for j in range(i + 1):
            total = 0.0
            if work[FREE + i] * work[FREE + j] == 1.0:
                total = work[HERE + CURVATURE + i * (i + 1) // 2 + j]
            for k in range(j):
                total -= work[FACTOR + i * (i + 1) // 2 + k] * work[FACTOR + j * (j + 1) // 2 + k]
            if i > j:
                work[FACTOR + i * (i + 1) // 2 + j] = total / work[FACTOR + j * (j + 1) // 2 + j]
            elif work[FREE + i] == 0.0:
                work[FACTOR + i * (i + 1) // 2 + i] = 1.0
            elif not total > 1e-13 * work[HERE + CURVATURE + i * (i + 3) // 2]:  # Neither is a NaN.
                return False
            else:
                work[FACTOR + i * (i + 1) // 2 + i] = math.sqrt(total)
    return True


@njit
def solve(work: Float64Array1D) -> float:
    """Take the Newton step of the free parameters; return its length in standard errors, the square root of twice what it gains."""
    length = 0.0
    for i in range(4):
        total = work[FREE + i] * work[HERE + SCORE + i]
        for k in range(i):
            total -= work[FACTOR + i * (i + 1) // 2 + k] * work[STEP + k]
        work[STEP + i] = total / work[FACTOR + i * (i + 1) // 2 + i]
        length += work[STEP + i] * work[STEP + i]
    for i in range(3, -1, -1):
        total = work[STEP + i]
        for k in range(i + 1, 4):
            total -= work[FACTOR + k * (k + 1) // 2 + i] * work[STEP + k]
        work[STEP + i] = total / work[FACTOR + i * (i + 1) // 2 + i]
    return math.sqrt(length)


@njit
def direct(work: Float64Array1D) -> float:
    """Choose which parameters are free at HERE and take the Newton step; return its length, NaN without a positive curvature.

    At a bound a parameter is free where the likelihood rises inward, and by more than rounding.
    """
    for i in range(4):
        at, rise = work[HERE + i], work[HERE + SCORE + i]
        slack = 1e-7 * math.sqrt(abs(work[HERE + CURVATURE + i * (i + 3) // 2]))
        held = (at <= LEAST[i] and rise <= slack) or (at >= MOST[i] and rise >= -slack) or (i == MU and work[CONSTANT] == 0.0)
        work[FREE + i] = 0.0 if held else 1.0
    for _ in range(4):
        if not factorise(work):
            return math.nan
        length = solve(work)
        outward = -1
        for i in range(4):
            at, step = work[HERE + i], work[STEP + i]
            if (at <= LEAST[i] and step < 0.0) or (at >= MOST[i] and step > 0.0):
                outward = i
        if outward < 0:
            return length
        work[FREE + outward] = 0.0
    return length


@njit
def room(work: Float64Array1D) -> float:
    """Return the part of the step, up to 1, that stays within the bounds.

    Far from a bound nine tenths of the way to it are taken: the first steps overshoot, and a bound is hard to leave.
    """
    part = 1.0
    for i in range(4):
        at, step = work[HERE + i], work[STEP + i]
        bound = LEAST[i] if step < 0.0 else MOST[i]
        if step != 0.0 and math.isfinite(bound) and part * abs(step) > abs(bound - at):
            part = abs(bound - at) / abs(step)
            if abs(bound - at) > 1e-3:
                part *= 0.9
    return part


@njit
def propose(work: Float64Array1D, part: float) -> float:
    """Put THERE at a part of the step from HERE; return what the gradient promises for it."""
    slope = 0.0
    for i in range(4):
        at = work[HERE + i] + part * work[STEP + i]
        if at - LEAST[i] < 1e-15:  # Rounding must not leave a parameter a hair off the bound it was led to.
            at = LEAST[i]
        if MOST[i] - at < 1e-15:
            at = MOST[i]
        work[THERE + i] = at
        slope += (work[THERE + i] - work[HERE + i]) * work[HERE + SCORE + i]
    return slope


@njit
def beside(work: Float64Array1D) -> bool:
    """Tell whether HERE lies on the slope of the maximum at BEST; never where that is at a bound, where slopes mislead."""
    if work[CERTIFIED] == 0.0 or not work[HERE + LOGLIK] < work[BEST + LOGLIK]:
        return False
    distance = 0.0
    for i in range(4):
        gap = work[HERE + i] - work[BEST + i]
        if i != MU and (work[BEST + i] <= LEAST[i] or work[BEST + i] >= MOST[i]):
            return False
        for j in range(i + 1):
            part = work[BEST + CURVATURE + i * (i + 1) // 2 + j] * gap * (work[HERE + j] - work[BEST + j])
            distance += part if i == j else 2.0 * part
    return distance < BESIDE * BESIDE


@njit
def climb(returns: Float64Array1D, valid: Uint8Array1D, work: Float64Array1D, kind: int, enough: float) -> bool:
    """Ascend from HERE to a maximum; True where the certificate holds there, or where a step is shorter than ``enough``.

    FCP's mixed algorithm: Fisher scoring at first and wherever the likelihood is not concave, Newton elsewhere. A step is shortened
    until the log-likelihood rises by a ten-thousandth of what the gradient promises; where the promise is below rounding, it is taken.
    """
    trial, part, slope, length, last = 0, 0.0, 0.0, math.inf, math.inf
    for _ in range(ROUNDS_MAX):
        evaluate(returns, valid, work, trial * THERE, kind)
        work[ROUNDS] += 1.0
        if trial == 1:
            gain = work[THERE + LOGLIK] - work[HERE + LOGLIK]
            if not (gain >= 1e-4 * slope or (length < 1e-4 and gain > -1e-9)):
                bend = 0.5 * slope / (slope - gain) if math.isfinite(gain) else 0.1
                part *= min(max(bend, 0.1), 0.5)
                if part < 1e-9:
                    return False
                slope = propose(work, part)
                continue
            for i in range(POINT):
                work[HERE + i] = work[THERE + i]
            trial, last = 0, length
        length = direct(work)
        work[GRADIENT] = length
        if math.isnan(length):
            if kind == FISHER:
                return False
            kind = FISHER
            continue
        if kind == EXACT and (length <= enough or (length <= CERTIFICATE and length >= 0.5 * last)):
            return True
        if beside(work):
            return False
        part = room(work)
        slope = propose(work, part)
        trial, kind = 1, EXACT
    return False


@njit
def start(work: Float64Array1D, turn: int) -> None:
    """Put HERE at a start, with the mean of the sample."""
    work[HERE + MU] = work[MEAN] if work[CONSTANT] == 1.0 else 0.0
    work[HERE + OMEGA] = work[SQUARE] * START_OMEGA[turn]
    work[HERE + ALPHA] = START_ALPHA[turn]
    work[HERE + BETA] = START_BETA[turn]


@njit
def backcast(returns: Float64Array1D, valid: Uint8Array1D, work: Float64Array1D) -> float:
    """Return the presample variance of the package arch: squares about the mean of the first 75 minutes, weighted by 0.94^t."""
    total, weights, weight = 0.0, 0.0, 1.0
    for t in range(min(75, len(returns))):
        if len(valid) == 0 or valid[t] != 0:
            e = (returns[t] - work[CENTER]) * work[SCALE] - (work[MEAN] if work[CONSTANT] == 1.0 else 0.0)
            total += weight * e * e
            weights += weight
        weight *= 0.94
    return total / weights if total > 0.0 else work[SQUARE]


@njit
def keep(work: Float64Array1D, certified: bool) -> None:
    """Remember the point at HERE where it is the best so far; one that is certified is better than any that is not."""
    mark = 1.0 if certified else 0.0
    if mark < work[CERTIFIED] or (mark == work[CERTIFIED] and not work[HERE + LOGLIK] > work[BEST + LOGLIK]):
        return
    work[CERTIFIED], work[BEST_GRADIENT] = mark, work[GRADIENT]
    for i in range(POINT):
        work[BEST + i] = work[HERE + i]


@njit
def prepare(returns: Float64Array1D, valid: Uint8Array1D, work: Float64Array1D) -> None:
    """Bring what the caller wrote in units of r, the presample variance and the parameters at HERE, into those of z."""
    square = work[SCALE] * work[SCALE]
    if work[PRESAMPLE] < 0.0:
        work[PRESAMPLE] = backcast(returns, valid, work)
    else:
        work[PRESAMPLE] *= square
    work[HERE + MU] = (work[HERE + MU] - work[CENTER]) * work[SCALE]
    work[HERE + OMEGA] = max(work[HERE + OMEGA] * square, FLOOR)


@njit
def believed(work: Float64Array1D, turn: int, gain: float) -> bool:
    """Tell whether the best maximum may be taken for the highest, after this ascent (-1 from the parameters before)."""
    if turn < 0:
        return gain > WARM
    return gain > PLAIN if turn >= ENOUGH - 1 else turn == 0 and gain > CLEAR and work[FOURTH] <= TAILS


@njit_off_loop
def fit(returns: Float64Array1D, valid: Uint8Array1D, work: Float64Array1D, warm: bool) -> bool:
    """Fit a sample; False where ``moments`` refuses it.

    The caller has set CONSTANT and PRESAMPLE (NaN: mean of e^2 at the current mu; negative: ``backcast``) and, with ``warm``, the
    parameters at HERE, from where the first ascent goes. The maximum is at BEST. Over a long sample every ascent begins with its head.
    Where the gain over a constant variance is small, the likelihood may have many maxima: then all starts are tried.
    """
    work[BEST + LOGLIK], work[CERTIFIED], work[ROUNDS], work[HEADED] = -math.inf, 0.0, 0.0, math.inf
    if not moments(returns, valid, work):
        return False
    prepare(returns, valid, work)
    flat = -0.5 * work[COUNT] * (math.log(work[SQUARE]) + 1.0)
    rough, fine = 0.1, 1e-9
    for turn in range(-1 if warm else 0, len(START_ALPHA)):
        kind, known = EXACT, False
        if turn >= 0:
            start(work, turn)
            kind = FISHER
        if turn >= 0 and len(returns) > 2 * HEAD:
            if climb(returns[:HEAD], valid, work, kind, rough) and work[HERE + ALPHA] > 0.0:
                kind = EXACT
                known = abs(work[HERE + LOGLIK] - work[HEADED]) < SAME
                if turn == 0:
                    work[HEADED] = work[HERE + LOGLIK]
            else:  # What the head knows nothing of, the rest may know.
                start(work, turn)
        if not known:
            certified = climb(returns, valid, work, kind, fine)
            keep(work, certified)
        if work[CERTIFIED] == 1.0 and believed(work, turn, work[BEST + LOGLIK] - flat):
            break
    return True


@njit
def walk(
    returns: Float64Array1D, valid: Uint8Array1D, mu: float, omega: float, alpha: float, beta: float, h: float, variances: Float64Array1D
) -> float:
    """Step through minutes from ``h``, the variance of the first; return that of the one after the last.

    Where ``variances`` has room, it takes those of the minutes on the way.
    """
    for t in range(len(returns)):
        if t < len(variances):
            variances[t] = h
        if len(valid) == 0 or valid[t] != 0:
            e = returns[t] - mu
            h = beta * h + (alpha * e * e + omega)
        else:
            h = (alpha + beta) * h + omega
    return h


@njit
def product(a: float, a_low: float, b: float, b_low: float) -> tuple[float, float]:
    """Return a product in twice the precision, as two floats: T. J. Dekker, Numerische Mathematik 18 (1971)."""
    split = 134_217_729.0  # 2^27 + 1
    a_high = split * a - (split * a - a)
    b_high = split * b - (split * b - b)
    a_rest, b_rest = a - a_high, b - b_high
    high = a * b
    low = ((a_high * b_high - high) + a_high * b_rest + a_rest * b_high) + a_rest * b_rest + (a * b_low + a_low * b)
    return high + low, low - ((high + low) - high)


@njit
def aggregated(h: float, omega: float, alpha: float, beta: float, horizon: int) -> float:
    """Return the expected sum of the next ``horizon`` variances, of which ``h`` is the first.

    With p = alpha + beta: ``h G(n) + omega T(n)``, G(n) the sum of p^k and T(n) that of G(k) over k < n, by doubling n. All terms are
    positive, so nothing cancels on either side of p = 1; the power alone would lose digits, and is kept in twice the precision.
    """
    p = alpha + beta
    p_low = (alpha - (p - beta)) + (beta - (p - (p - beta)))
    power, power_low, geometric, double = 1.0, 0.0, 0.0, 0.0
    n, bit = 0, 1
    while bit <= horizon // 2:
        bit *= 2
    while bit > 0:
        double += power * double + n * geometric
        geometric += power * geometric
        power, power_low = product(power, power_low, power, power_low)
        n *= 2
        if horizon & bit:
            double += geometric
            geometric += power
            power, power_low = product(power, power_low, p, p_low)
            n += 1
        bit //= 2
    return h * geometric + omega * double


@njit
def weighted(h: float, omega: float, alpha: float, beta: float, factors: Float64Array1D) -> float:
    """Return the expected sum of the next variances, of which ``h`` is the first, each times its factor."""
    total = 0.0
    for k in range(len(factors)):
        total += factors[k] * h
        h = (alpha + beta) * h + omega
    return total
