"""Volume by the time of day: how a symbol's trading is spread over the minutes to come."""

import math

import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.models.candles import MINUTE_MS

DAY_MINUTES = 1_440
DAYS_MIN = 3
"""Days of candles that a profile needs: of fewer it would be that of one or two busy minutes."""
HALF_WIDTH = 15
"""Minutes on either side that tell of a minute too: single minutes are noise."""


def profile(rows: Float64Array2D, from_ms: int, minutes: int) -> Float64Array1D | None:
    """Return the mean volume of each of the next minutes by what was traded at that time on the days before.

    Parameters
    ----------
    rows
        Candles ``(ts_ms, open, high, low, close, volume)``, oldest first, shape (n, 6).
    from_ms
        Time from which on to tell; its own minute is the first.
    minutes
        How many, 1 to 1,440.

    Returns
    -------
    float64[minutes]
        Base volume a minute, above 0 in sum; None where fewer than ``DAYS_MIN`` days of candles are known, or nothing was traded then.
    """
    if not 1 <= minutes <= DAY_MINUTES:
        raise ValueError(f"expected 1 to {DAY_MINUTES} minutes, found {minutes}")
    if len(rows) < DAYS_MIN * DAY_MINUTES:
        return None
    at = (rows[:, 0] // MINUTE_MS).astype(np.int64) % DAY_MINUTES
    sums = np.bincount(at, rows[:, 5], DAY_MINUTES)
    counts = np.bincount(at, minlength=DAY_MINUTES)
    width = 2 * HALF_WIDTH + 1
    around = np.concatenate((np.arange(-HALF_WIDTH, 0), np.arange(minutes + HALF_WIDTH))) + from_ms // MINUTE_MS
    places = around % DAY_MINUTES
    kernel = np.ones(width)
    volumes = np.convolve(sums[places], kernel, "valid")
    known = np.convolve(counts[places], kernel, "valid")
    means: Float64Array1D = np.divide(volumes, known, out=np.zeros(minutes), where=known > 0)
    return means if math.fsum(means) > 0.0 else None
