"""What it costs to sweep the displayed book, at a grid of sizes, as a mean over many books of which old ones fade.

``sums`` has three rows, each with a place a size: WEIGHT, how many books are counted, faded; MEAN, their mean cost in bps of the mid
beyond the best quote; COST, what the book in hand says.
"""

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D
from alphapack.jit import njit
from alphapack.kernels import book

WEIGHT, MEAN, COST, ROWS = range(4)
DEPTH = 500
"""Levels of a side that are looked at: going through them is nearly all of the cost."""
REACH = 0.1
"""What is offered further from the best quote than this share of the mid is no offer."""


@njit
def sample(levels: Int64Array1D, shares: Float64Array1D, day_lots: float, kept: float, scratch: Int64Array1D, sums: Float64Array2D) -> bool:
    """Take a book into the means: of each size that both sides fill, the mean cost of buying and of selling it.

    Parameters
    ----------
    levels
        The book, see ``kernels.book``.
    shares
        Shape (n,), above 0 and ascending: sizes as shares of a day's volume.
    day_lots
        A day's volume in lots, above 0. A size below one lot is no order, and the book says nothing of it.
    kept
        Share of its weight that each book before keeps, 0 to 1.
    scratch
        Shape (2 * DEPTH,), overwritten.
    sums
        Shape (ROWS, n).

    Returns
    -------
    bool
        Whether the book has a mid; else nothing is done.
    """
    bid, ask = levels[book.BID + book.KEYS], -levels[book.ASK + book.KEYS]
    if levels[book.BID + book.TOP_N] == 0 or levels[book.ASK + book.TOP_N] == 0 or bid + ask <= 0:
        return False
    mid = 0.5 * (bid + ask)
    first, last = 0, len(shares)
    while first < last and shares[first] * day_lots < 1.0:
        first += 1
    for i in range(len(shares)):
        sums[COST, i] = 0.0
    for side in book.SIDES:
        last = min(last, add_side(levels, side, shares, day_lots, REACH * mid, first, scratch, sums))
    for i in range(len(shares)):
        sums[WEIGHT, i] *= kept
        if first <= i < last:
            cost = 0.5e4 * sums[COST, i] / mid
            sums[WEIGHT, i] += 1.0
            sums[MEAN, i] += (cost - sums[MEAN, i]) / sums[WEIGHT, i]
    return True


@njit
def add_side(
    levels: Int64Array1D,
    side: int,
    shares: Float64Array1D,
    day_lots: float,
    reach: float,
    first: int,
    scratch: Int64Array1D,
    sums: Float64Array2D,
) -> int:
    """Add to COST what the sizes from ``first`` on pay beyond the best level of a side, ticks a lot; returns the first not filled."""
    n = book.collect(levels, side, DEPTH, scratch, 0, DEPTH)
    best = scratch[0]
    level, taken, paid = 0, 0.0, 0.0
    for i in range(first, len(shares)):
        wanted = shares[i] * day_lots
        while level < n:
            distance, lots = float(best - scratch[level]), float(scratch[DEPTH + level])
            if distance > reach:
                return i
            if taken + lots >= wanted:
                sums[COST, i] += (paid + (wanted - taken) * distance) / wanted
                break
            taken += lots
            paid += lots * distance
            level += 1
        if level == n:
            return i
    return len(shares)
