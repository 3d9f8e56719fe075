"""Minute returns and sums over windows of them, in one order of addition whatever came before the window."""

import math

from alphapack.arrays import Float64Array1D, Float64Array2D, Uint8Array1D
from alphapack.jit import njit

MINUTE_MS = 60_000.0


@njit
def returns(rows: Float64Array2D, first: int, limit: float, out: Float64Array1D, known: Uint8Array1D) -> None:
    """Write log returns between neighbouring minutes.

    Parameters
    ----------
    rows
        Candles, oldest first, of which columns 0 and 4 are the opening time in ms and the close.
    first
        Minute of the epoch of ``out[0]``.
    limit
        A larger move, up or down, is no price of a market and its return is not known.
    out, known
        Returns as fractions, 0 where not known; 1 where the minute and the one before have a close.
    """
    for i in range(1, len(rows)):
        minute = int(rows[i, 0] // MINUTE_MS)
        if int(rows[i - 1, 0] // MINUTE_MS) != minute - 1:
            continue
        move = math.log(rows[i, 4] / rows[i - 1, 4])
        if abs(move) <= limit:
            out[minute - first] = move
            known[minute - first] = 1


@njit
def windows(
    returns: Float64Array1D, known: Uint8Array1D, weights: Float64Array1D, at: int, phase: int, lags: Float64Array1D, out: Float64Array2D
) -> None:
    """Sum squared returns and products of neighbours, each return times its weight, over the windows that end at minute ``at``.

    Parameters
    ----------
    weights
        Of a week's minutes: one over the root of their diurnal factor. ``phase`` is the place of minute ``at`` in it.
    lags
        Lengths of the windows, ascending; what lies before the first minute is not known.
    out
        Shape (4, len(lags)): sum of ``(w r)^2`` and of how many, sum of ``|w_t r_t| |w_(t-1) r_(t-1)|`` and of how many.
    """
    squares = products = squares_n = products_n = 0.0
    later, later_known = 0.0, 0.0
    back, place = 0, phase
    for lag in range(len(lags)):
        for i in range(at - back, max(at - int(lags[lag]), -1), -1):
            known_here = float(known[i])
            size = abs(returns[i]) * weights[place] * known_here
            place = place - 1 if place > 0 else len(weights) - 1
            squares += size * size
            squares_n += known_here
            products += later * size
            products_n += later_known * known_here
            later, later_known = size, known_here
        back = min(int(lags[lag]), at + 1)
        out[0, lag], out[1, lag], out[2, lag], out[3, lag] = squares, squares_n, products, products_n
