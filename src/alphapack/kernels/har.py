"""Heterogeneous autoregressions: windows into a design, least squares, and Newey-West errors.

A ``table`` holds the regression by columns, one a row of the array: 0 the constant, then the regressors, the target last. Its
constant is 1 where an observation counts and 0 where it is left out; everything else is 0 there too, so that it keeps its place in
time and adds nothing. Sums run in lanes, a block of the table at a time: in a fixed order, and fast.
"""

import math

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D, Uint8Array1D
from alphapack.jit import njit

VALUE_MAX = 1e50
"""Above any variance; products of values stay far from the largest float."""
COVERAGE = 0.9
"""Least share of a window's periods that must be known."""
LANES = 64
"""Partial sums that run side by side."""
BLOCK = 4 * LANES
"""Observations that are worked on at a time; a table holds whole blocks."""

HORIZON, FIRST, STEP, ROWS = range(4)
"""Places of a plan: periods of the target, newest period of the oldest observation, periods between observations, how many they are."""

COMPLETE, SHORT, REFUSED = 1, 0, -1
"""What ``means`` found: all windows covered, one that is not, a value that is none."""

MEANS, SCALES, SHIFTS, FITTED, CHANGE, ERRORS, SOLUTION = range(7)
"""Rows of a ``state``, with a column for each of the table's."""
STATE_ROWS = 7
FINE = -1
CONSTANT, COLLINEAR = 0, 100
"""What ``begin`` found; the column at fault is added."""

CENTRED = 16.0
"""A column whose squares are more than so many times its centred ones is centred first, or digits would be lost."""
CENTRINGS = 2
"""One centres all but a column that is its own rounding."""
SPREAD_MIN = 1e-24
"""Centred squares, as a share of all, under which a column is its own rounding."""
PIVOT_MIN = 1e-10
"""Share of a regressor's variance that those before it must leave unexplained."""
ROUNDS = 6
TOLERANCE = 1e-11
"""Refinement ends where it would move a fitted value by less, in standard deviations of the target."""


@njit
def add_up(values: Float64Array1D, valid: Uint8Array1D, prefix: Float64Array2D) -> int:
    """Write prefix sums of the known values, in twice the precision, and of how many they are.

    Parameters
    ----------
    values, valid
        Shape (n,): values of at least 0, read where ``valid`` is not 0.
    prefix
        Shape (3, n + 1): high part, low part, count. Their differences are as good as sums over the window alone. Where all values
        are known, only the last count is written.

    Returns
    -------
    int
        Index of the first value that is negative, NaN or above ``VALUE_MAX``; -1 where there is none.
    """
    highs, lows, counts = prefix[0], prefix[1], prefix[2]
    known = 0
    for i in range(len(values)):
        known += valid[i] != 0
    counts[len(values)] = known
    complete = known == len(values)
    high = low = count = 0.0
    highs[0] = lows[0] = counts[0] = 0.0
    for i in range(len(values)):
        if complete or valid[i] != 0:
            value = values[i]
            total = high + value
            if 0.0 <= value <= high:
                low += value - (total - high)  # Dekker's two-sum: what the addition lost, where the first number is the larger.
            elif 0.0 <= value <= VALUE_MAX:
                low += high - (total - value)
            else:
                return i
            high = total
            count += 1.0
        highs[i + 1], lows[i + 1] = high, low
        if not complete:
            counts[i + 1] = count
    return -1


@njit
def fill(values: Float64Array1D, prefix: Float64Array2D, width: int, at: int, step: int, column: Float64Array1D) -> None:
    """Write means over the windows of ``width`` periods that end at ``at``, ``at + step``, ...; NaN where too little is known."""
    highs, lows, counts = prefix[0], prefix[1], prefix[2]
    share, least, complete = 1.0 / width, COVERAGE * width, counts[len(values)] == len(values)
    if step == 1 and complete:  # All known: loops without a branch, five times as fast.
        if width == 1:
            single = values[at:]
            for j in range(len(column)):
                column[j] = single[j]
            return
        ends, ends_low = highs[at + 1 :], lows[at + 1 :]
        begins, begins_low = highs[at + 1 - width :], lows[at + 1 - width :]
        for j in range(len(column)):
            column[j] = ((ends[j] - begins[j]) + (ends_low[j] - begins_low[j])) * share
        return
    for j in range(len(column)):
        end = at + j * step + 1
        begin = end - width
        known = float(width) if complete else counts[end] - counts[begin]
        if known < least:
            column[j] = math.nan
        elif width == 1:
            column[j] = values[begin]
        else:
            total = (highs[end] - highs[begin]) + (lows[end] - lows[begin])
            column[j] = total * share if known == width else total / known


@njit
def keep(table: Float64Array2D, rows: int, least: float) -> int:
    """Write the constant: 1 where regressors and target are at least ``least``, 0 with all else where one is not; count the former."""
    kept = 0
    for j in range(rows):
        known = 1.0
        for c in range(1, len(table)):
            if not table[c, j] >= least:  # A NaN never passes.
                known = 0.0
        table[0, j] = known
        kept += int(known)
        if known == 0.0:
            for c in range(1, len(table)):
                table[c, j] = 0.0
    return kept


@njit
def design(
    values: Float64Array1D, prefix: Float64Array2D, lags: Int64Array1D, plan: Int64Array1D, least: float, table: Float64Array2D
) -> int:
    """Write constant, regressors and target of the observations; return how many are kept.

    Parameters
    ----------
    values, prefix
        As ``add_up`` takes and leaves them.
    lags, plan
        Lengths of the windows; HORIZON, FIRST, STEP and ROWS.
    least
        What regressors and targets must not be below, at least 0.
    table
        An added regressor is there already, with NaN where it is not known.
    """
    rows, at = int(plan[ROWS]), int(plan[FIRST])
    for c in range(len(lags) + 1):
        column = c + 1
        if c < len(lags):
            width = int(lags[c])
        else:
            width, column = int(plan[HORIZON]), len(table) - 1
            at += width
        fill(values, prefix, width, at, int(plan[STEP]), table[column, :rows])
    if least > 0.0 or prefix[2, len(values)] < len(values):
        return keep(table, rows, least)
    constant = table[0]
    for j in range(rows):
        constant[j] = 1.0
    return rows


@njit
def take_logs(table: Float64Array2D, unit: float) -> None:
    """Replace regressors and target by logarithms of their multiples of ``unit``."""
    constant = table[0]
    for c in range(1, len(table)):
        column = table[c]
        for j in range(len(column)):
            if constant[j] == 1.0:
                column[j] = math.log(column[j] / unit)


@njit
def interact(table: Float64Array2D, kept: int) -> float:
    """Turn the last regressor from quarticity into the centred root of it times the first; return the centre."""
    constant, column, first = table[0], table[len(table) - 2], table[1]
    total = 0.0
    for j in range(len(column)):
        column[j] = math.sqrt(column[j])
        total += column[j]
    centre, spread = total / kept, 0.0
    for j in range(len(column)):
        gap = (column[j] - centre) * constant[j]
        spread = max(spread, abs(gap))
        column[j] = gap * first[j]
    if spread * spread <= SPREAD_MIN * (centre * centre):  # What is left is rounding, in which there is no measurement error to read.
        column[:] = 0.0
    return centre


@njit
def take_jumps(table: Float64Array2D) -> None:
    """Turn the last regressor from bipower variation into the jump part of the first: what it exceeds it by."""
    column, first = table[len(table) - 2], table[1]
    for j in range(len(column)):
        column[j] = max(first[j] - column[j], 0.0)


@njit
def multiply(table: Float64Array2D, begin: int, columns: int, lanes: Float64Array2D) -> None:
    """Add the products of the first columns of a block, with themselves and all before them, to the lanes."""
    pair = 0
    for a in range(columns):
        left = table[a, begin : begin + BLOCK]
        for b in range(a + 1):
            right, sums = table[b, begin : begin + BLOCK], lanes[pair]
            for i in range(LANES):
                j, m, n = i + LANES, i + 2 * LANES, i + 3 * LANES
                sums[i] += (left[i] * right[i] + left[j] * right[j]) + (left[m] * right[m] + left[n] * right[n])
            pair += 1


@njit
def collect(columns: int, lanes: Float64Array2D, moments: Float64Array2D) -> None:
    """Write the lanes' sums into the lower triangle, and zeros into the lanes."""
    pair = 0
    for a in range(columns):
        for b in range(a + 1):
            total = 0.0
            for lane in range(LANES):
                total += lanes[pair, lane]
                lanes[pair, lane] = 0.0
            moments[a, b] = total
            pair += 1


@njit
def gather(table: Float64Array2D, lanes: Float64Array2D, moments: Float64Array2D) -> None:
    """Write the sums of products of all columns into the lower triangle of the moments.

    ``lanes`` is scratch of shape ((k + 1)(k + 2) / 2, LANES) that holds zeros, before and after.
    """
    for begin in range(0, table.shape[1], BLOCK):
        multiply(table, begin, len(table), lanes)
    collect(len(table), lanes, moments)


@njit
def centre(table: Float64Array2D, moments: Float64Array2D, state: Float64Array2D) -> bool:
    """Centre the columns that are far from it; tell whether there was one."""
    n, moved, constant = moments[0, 0], False, table[0]
    for c in range(1, len(table)):
        mean = moments[c, 0] / n
        if CENTRED * (moments[c, c] - mean * moments[c, 0]) < moments[c, c]:
            moved = True
            state[SHIFTS, c] += mean
            column = table[c]
            for j in range(len(column)):
                column[j] -= mean * constant[j]
    return moved


@njit
def solve(factor: Float64Array2D, n: float, state: Float64Array2D, vector: Float64Array1D) -> None:
    """Replace products with the constant and the regressors by the coefficients that give them."""
    k, means, scales = len(factor), state[MEANS], state[SCALES]
    for a in range(1, k):
        vector[a] = (vector[a] - means[a] * vector[0]) / scales[a]
        for c in range(1, a):
            vector[a] -= factor[a, c] * vector[c]
        vector[a] /= factor[a, a]
    vector[0] /= n
    for a in range(k - 1, 0, -1):
        for c in range(a + 1, k):
            vector[a] -= factor[c, a] * (vector[c] * scales[c])
        vector[a] /= factor[a, a] * scales[a]
        vector[0] -= means[a] * vector[a]


@njit
def begin(moments: Float64Array2D, state: Float64Array2D, factor: Float64Array2D) -> int:
    """Write means, scales, the Cholesky factor of the regressors' correlations, and the coefficients that it gives.

    Parameters
    ----------
    moments
        Sums of products of all columns up to the target, centred well enough.
    factor
        Lower triangle, of which row and column 0 stay free.

    Returns
    -------
    int
        ``FINE``, or ``CONSTANT`` or ``COLLINEAR`` plus the column at fault.
    """
    n, target = moments[0, 0], len(factor)
    for c in range(1, target + 1):
        mean, shift = moments[c, 0] / n, state[SHIFTS, c]
        spread = moments[c, c] - mean * moments[c, 0]
        if not spread > SPREAD_MIN * (moments[c, c] + n * shift * shift):
            return CONSTANT + c
        state[MEANS, c], state[SCALES, c] = mean, math.sqrt(spread)
    for a in range(1, target):
        for b in range(1, a + 1):
            total = (moments[a, b] - state[MEANS, a] * moments[b, 0]) / (state[SCALES, a] * state[SCALES, b])
            for c in range(1, b):
                total -= factor[a, c] * factor[b, c]
            if b < a:
                factor[a, b] = total / factor[b, b]
            elif total < PIVOT_MIN:
                return COLLINEAR + a
            else:
                factor[a, a] = math.sqrt(total)
    for c in range(target):
        state[FITTED, c] = moments[target, c]
    solve(factor, n, state, state[FITTED])
    return FINE


@njit
def miss(table: Float64Array2D, lanes: Float64Array2D, moments: Float64Array2D, state: Float64Array2D, left: Float64Array1D) -> None:
    """Write what the coefficients leave of the target, and its products with all regressors.

    Parameters
    ----------
    lanes
        As ``gather`` takes them.
    moments
        On return, row k + 1 has the products with the regressors and, in column k, the squares.
    left
        Shape (n,), on return the residuals.
    """
    k, slopes, squares = len(table) - 1, state[FITTED], lanes[len(table) - 1]
    for begin in range(0, table.shape[1], BLOCK):
        part, target = left[begin : begin + BLOCK], table[k, begin : begin + BLOCK]
        for i in range(BLOCK):
            part[i] = target[i]
        for c in range(k):
            slope, column = slopes[c], table[c, begin : begin + BLOCK]
            for i in range(BLOCK):
                part[i] -= slope * column[i]
        for c in range(k):
            column, sums = table[c, begin : begin + BLOCK], lanes[c]
            for i in range(LANES):
                j, m, n = i + LANES, i + 2 * LANES, i + 3 * LANES
                sums[i] += (part[i] * column[i] + part[j] * column[j]) + (part[m] * column[m] + part[n] * column[n])
        for i in range(LANES):
            j, m, n = i + LANES, i + 2 * LANES, i + 3 * LANES
            squares[i] += (part[i] * part[i] + part[j] * part[j]) + (part[m] * part[m] + part[n] * part[n])
    for c in range(k + 1):
        total = 0.0
        for lane in range(LANES):
            total += lanes[c, lane]
            lanes[c, lane] = 0.0
        moments[k + 1, c] = total


@njit
def refine(moments: Float64Array2D, state: Float64Array2D, factor: Float64Array2D, n: float) -> bool:
    """Add to the coefficients what their residuals still hold of the regressors; tell whether that is next to nothing."""
    k, change, largest = len(factor), state[CHANGE], 0.0
    for c in range(k):
        change[c] = moments[k + 1, c]
    solve(factor, n, state, change)
    for c in range(k):
        state[FITTED, c] += change[c]
        largest = max(largest, abs(change[c]) * state[SCALES, c])
    return bool(largest <= TOLERANCE * state[SCALES, k])


@njit
def score(table: Float64Array2D, begin: int, lag: int, left: Float64Array1D, ring: Float64Array2D, moving: Float64Array2D) -> None:
    """Write a block of the moving sums, over ``lag + 1`` observations, of the columns' products with the residuals.

    Parameters
    ----------
    left
        Residuals of the block that starts at observation ``begin``.
    ring
        Shape (k, whole blocks of at least ``lag + 1``, and one more): running sums of the products, zeros before the first block.
    moving
        Shape (k, BLOCK).
    """
    length = ring.shape[1]
    place = begin % length
    behind = (place - lag - 1) % length
    until_wrap = min(length - behind, BLOCK)
    for c in range(len(moving)):
        column, sums, running = table[c, begin : begin + BLOCK], moving[c], ring[c, place : place + BLOCK]
        for i in range(BLOCK):
            sums[i] = column[i] * left[i]
        total = total_1 = total_2 = total_3 = 0.0
        for i in range(LANES):  # Four quarters side by side, then joined: an addition waits for the one before.
            j, m, n = i + LANES, i + 2 * LANES, i + 3 * LANES
            total += sums[i]
            total_1 += sums[j]
            total_2 += sums[m]
            total_3 += sums[n]
            sums[i] = total
            sums[j] = total_1
            sums[m] = total_2
            sums[n] = total_3
        offset = ring[c, (place - 1) % length]
        for first in range(0, BLOCK, LANES):
            part, joined = sums[first : first + LANES], running[first : first + LANES]
            for i in range(LANES):
                joined[i] = part[i] + offset
            offset = joined[LANES - 1]
        before = ring[c, behind:]
        for i in range(until_wrap):
            sums[i] = running[i] - before[i]
        before, running, sums = ring[c], running[until_wrap:], sums[until_wrap:]
        for i in range(len(sums)):
            sums[i] = running[i] - before[i]


@njit
def run_long(
    table: Float64Array2D,
    left: Float64Array1D,
    lag: int,
    lanes: Float64Array2D,
    moments: Float64Array2D,
    ring: Float64Array2D,
    moving: Float64Array2D,
) -> None:
    """Write ``lag + 1`` times the long-run products of the scores into the lower triangle of the first k rows of the moments.

    With Bartlett's weights they are the products of all moving sums over ``lag + 1``, which takes one pass whatever the lag.

    Parameters
    ----------
    table, left
        Columns and residuals, with at least ``lag`` observations at the end that are left out.
    lanes
        As ``gather`` takes them.
    ring, moving
        As ``score`` takes them, zeros and scratch.
    """
    for begin in range(0, table.shape[1], BLOCK):
        score(table, begin, lag, left[begin : begin + BLOCK], ring, moving)
        multiply(moving, begin - begin, len(ring), lanes)  # A literal 0 would be compiled for anew.
    collect(len(ring), lanes, moments)


@njit
def errors(lag: int, n: float, moments: Float64Array2D, state: Float64Array2D, factor: Float64Array2D) -> None:
    """Write the errors from the long-run products that ``run_long`` left, of columns to which what was subtracted is added again."""
    k, weights = len(factor), state[SOLUTION]
    for c in range(k):
        for a in range(k):
            weights[a] = 0.0
            if c == 0:
                weights[a] = -state[SHIFTS, a]
        weights[c] = 1.0
        solve(factor, n, state, weights)
        total = 0.0
        for a in range(k):
            for b in range(a):
                total += 2.0 * weights[a] * weights[b] * moments[a, b]
            total += weights[a] * weights[a] * moments[a, a]
        state[ERRORS, c] = math.sqrt(max(total, 0.0) / (lag + 1))


@njit
def smear(table: Float64Array2D, left: Float64Array1D, kept: int) -> float:
    """Return the mean exponential of the residuals."""
    total = 0.0
    for j in range(len(left)):
        if table[0, j] == 1.0:
            total += math.exp(left[j])
    return total / kept


@njit
def means(values: Float64Array1D, valid: Uint8Array1D, lags: Int64Array1D, at: int, out: Float64Array1D) -> int:
    """Write the means over the windows that end at ``at``, summed from there backwards: what lies before a window changes no bit of it.

    Parameters
    ----------
    values, valid
        Shape (n,): values of at least 0, read where ``valid`` is not 0.
    lags
        Lengths of the windows, ascending.
    at
        Index of the newest period, in [0, n).
    out
        Shape (len(lags),).

    Returns
    -------
    int
        ``COMPLETE``; ``SHORT`` where a window reaches before index 0 or has too few known periods; ``REFUSED`` where a value
        is negative, NaN or above ``VALUE_MAX``.
    """
    total, known, back = 0.0, 0, 0
    for c in range(len(lags)):
        if lags[c] > at + 1:
            return SHORT
        while back < lags[c]:
            i = at - back
            if valid[i] != 0:
                if not 0.0 <= values[i] <= VALUE_MAX:
                    return REFUSED
                total += values[i]
                known += 1
            back += 1
        if known < COVERAGE * lags[c]:
            return SHORT
        out[c] = total / known
    return COMPLETE
