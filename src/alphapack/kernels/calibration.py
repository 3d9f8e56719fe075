"""Beta calibration learnt online: two Kalman filters of one curve, a fast one and a slow one, of which the slow may begin anew.

The curve is ``logit p' = logit p + a b + d t + c + o_k``: b is the logit of p within +-LOGIT_MAX, and ``t = ln q + ln(1 - q) + 2 ln 2`` of
the probability q with that logit. That is beta calibration (Kull, Silva Filho and Flach 2017, AISTATS, PMLR 54, 623-631) with slope 1 + a,
tilt d and level c in place of its two powers; o_k is what policy k has on top. All zero is the identity.

``state`` is float64[ROWS, WIDTH]. Rows FAST and SLOW hold a filter each: the curve (a, d, c), the faded sums of information, and four
numbers a policy: the three sums of information that its own outcomes add, and its offset. Of row EVIDENCE only the first place is used.
An outcome's regressors are (b, t, 1), and 1 for its policy. So what an offset has in common with the curve is its policy's own part of the
sums, and the system of all is solved by eliminating each offset by itself: in time linear in their number.
"""

import math

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.jit import njit

FAST, SLOW, EVIDENCE, ROWS = range(4)
CURVE, INFORMATION, POLICIES, POLICY = 0, 3, 9, 4
"""Places in a row: the curve, its information (bb, bt, b, tt, t, 1), the first policy; how many places a policy has."""
OFFSET = 3
"""Place of its offset in those of a policy."""
POLICIES_MAX = 32
WIDTH = POLICIES + POLICY * POLICIES_MAX
LOGIT_MAX = 6.0
"""A forecast beyond it teaches no more about the slope than one at it: a single wrong certainty must not turn the curve."""
P_MIN = 1e-13
FAST_KEPT, SLOW_KEPT = 0.997, 0.9998
"""What an observation counts once another has come: memories of about 333 and 5,000."""
SLOPE_SD, TILT_SD, LEVEL_SD, OFFSET_SD = 0.5, 0.25, 0.5, 0.25
"""What is believed of a, d, c and o_k before anything is known, and never more vaguely than that."""
EVIDENCE_MIN, EVIDENCE_MAX = -4.0, 7.0
"""Log of the odds of the fast filter: never so low that it is forgotten; above, the slow one begins anew where the fast one is."""


@njit
def bounded(p: float) -> float:
    """Return a probability strictly inside (0, 1)."""
    return max(P_MIN, min(1.0 - P_MIN, p))


@njit
def logistic(logit: float) -> float:
    """Return the probability of a logit, without overflow."""
    if logit >= 0.0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


@njit
def logit_of(p: float) -> float:
    """Return ``ln p - ln(1 - p)``."""
    return math.log(p) - math.log(1.0 - p)


@njit
def tilt_of(logit: float) -> float:
    """Return ``ln q + ln(1 - q) + 2 ln 2`` of the probability q of a logit: 0 at a half, below 0 elsewhere."""
    q = logistic(logit)
    return math.log(q) + math.log(1.0 - q) + 2.0 * math.log(2.0)


@njit
def forecast(filtered: Float64Array1D, policy: int, logit: float, slope_x: float, tilt_x: float) -> float:
    """Return the probability that one filter gives; ``policy`` is -1 for one that it knows nothing of."""
    logit += filtered[CURVE] * slope_x + filtered[CURVE + 1] * tilt_x + filtered[CURVE + 2]
    if policy >= 0:
        logit += filtered[POLICIES + POLICY * policy + OFFSET]
    return bounded(logistic(logit))


@njit
def calibrate(p: float, policy: int, state: Float64Array2D) -> float:
    """Return the calibrated probability, inside (0, 1): the mean of both filters by their odds.

    Parameters
    ----------
    p
        The forecast, 0 to 1.
    policy
        Its place, -1 for one without an outcome so far.
    state
        Shape (ROWS, WIDTH).
    """
    logit = logit_of(bounded(p))
    slope_x = max(-LOGIT_MAX, min(LOGIT_MAX, logit))
    tilt_x = tilt_of(slope_x)
    fast = logistic(state[EVIDENCE, 0])
    found = fast * forecast(state[FAST], policy, logit, slope_x, tilt_x)
    return bounded(found + (1.0 - fast) * forecast(state[SLOW], policy, logit, slope_x, tilt_x))


@njit
def learn(p: float, won: bool, policy: int, policies: int, state: Float64Array2D) -> bool:
    """Take in what came of a forecast; return whether the slow filter began anew.

    Parameters
    ----------
    p
        The forecast, 0 to 1, before it was calibrated.
    won
        Whether the event came.
    policy, policies
        Its place, at least 0, and how many places are taken.
    state
        Shape (ROWS, WIDTH), changed.
    """
    logit = logit_of(bounded(p))
    slope_x = max(-LOGIT_MAX, min(LOGIT_MAX, logit))
    tilt_x = tilt_of(slope_x)
    evidence = state[EVIDENCE, 0]
    for row in range(EVIDENCE):
        forecasted = forecast(state[row], policy, logit, slope_x, tilt_x)
        score = math.log(forecasted if won else 1.0 - forecasted)
        evidence += score if row == FAST else -score
        fade(FAST_KEPT if row == FAST else SLOW_KEPT, policies, state[row])
        add(forecasted * (1.0 - forecasted), slope_x, tilt_x, policy, state[row])
        step((1.0 if won else 0.0) - forecasted, slope_x, tilt_x, policy, policies, state[row])
    if evidence <= EVIDENCE_MAX:
        state[EVIDENCE, 0] = max(EVIDENCE_MIN, evidence)
        return False
    for place in range(POLICIES + POLICY * policies):
        state[SLOW, place] = state[FAST, place]
    state[EVIDENCE, 0] = EVIDENCE_MIN
    return True


@njit
def fade(kept: float, policies: int, filtered: Float64Array1D) -> None:
    """Let every sum of information count less."""
    for place in range(INFORMATION, POLICIES):
        filtered[place] *= kept
    for policy in range(policies):
        at = POLICIES + POLICY * policy
        for place in range(at, at + OFFSET):
            filtered[place] *= kept


@njit
def add(weight: float, slope_x: float, tilt_x: float, policy: int, filtered: Float64Array1D) -> None:
    """Add the information of one outcome, whose variance is ``weight``."""
    filtered[INFORMATION] += weight * slope_x * slope_x
    filtered[INFORMATION + 1] += weight * slope_x * tilt_x
    filtered[INFORMATION + 2] += weight * slope_x
    filtered[INFORMATION + 3] += weight * tilt_x * tilt_x
    filtered[INFORMATION + 4] += weight * tilt_x
    filtered[INFORMATION + 5] += weight
    at = POLICIES + POLICY * policy
    filtered[at] += weight * slope_x
    filtered[at + 1] += weight * tilt_x
    filtered[at + 2] += weight


@njit
def step(error: float, slope_x: float, tilt_x: float, policy: int, policies: int, filtered: Float64Array1D) -> None:
    """Move the curve and the offsets by the filter's gain times ``error``, the outcome less its forecast."""
    bb, bt, b1 = filtered[INFORMATION] + 1.0 / (SLOPE_SD * SLOPE_SD), filtered[INFORMATION + 1], filtered[INFORMATION + 2]
    tt, t1 = filtered[INFORMATION + 3] + 1.0 / (TILT_SD * TILT_SD), filtered[INFORMATION + 4]
    one = filtered[INFORMATION + 5] + 1.0 / (LEVEL_SD * LEVEL_SD)
    b, t, c = error * slope_x, error * tilt_x, error
    least = 1.0 / (OFFSET_SD * OFFSET_SD)
    for place in range(policies):
        at = POLICIES + POLICY * place
        gb, gt, g1 = filtered[at], filtered[at + 1], filtered[at + 2]
        share = 1.0 / (g1 + least)
        bb, bt, b1 = bb - share * gb * gb, bt - share * gb * gt, b1 - share * gb * g1
        tt, t1, one = tt - share * gt * gt, t1 - share * gt * g1, one - share * g1 * g1
        if place == policy:
            b, t, c = b - share * gb * error, t - share * gt * error, c - share * g1 * error
    # Elimination of a positive definite system of three, level last.
    f, g = bt / bb, b1 / bb
    tt, t1, one = tt - f * bt, t1 - f * b1, one - g * b1
    t, c = t - f * b, c - g * b
    h = t1 / tt
    level = (c - h * t) / (one - h * t1)
    tilt = (t - t1 * level) / tt
    slope = (b - bt * tilt - b1 * level) / bb
    for place in range(policies):
        at = POLICIES + POLICY * place
        own = (error if place == policy else 0.0) - filtered[at] * slope - filtered[at + 1] * tilt - filtered[at + 2] * level
        filtered[at + OFFSET] += own / (filtered[at + 2] + least)
    # A calibrated probability never falls where the forecast rises: powers of beta calibration are not below zero.
    filtered[CURVE] = max(-1.0, filtered[CURVE] + slope)
    rising = 1.0 + filtered[CURVE]
    filtered[CURVE + 1] = max(-rising, min(rising, filtered[CURVE + 1] + tilt))
    filtered[CURVE + 2] += level
