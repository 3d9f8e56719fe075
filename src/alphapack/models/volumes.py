"""How much of a symbol is traded in a day, and how that is spread over the minutes to come."""

import math

import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.models.candles import MINUTE_MS

DAY_MINUTES = 1_440
KNOWN_MINUTES_MIN = 60
"""An hour says what a day's volume is to within a small factor: hours of a day differ by as much."""
DAYS_MIN = 3
"""Days of candles that a profile needs: of fewer it would be that of one or two busy minutes."""
HALF_WIDTH = 15
"""Minutes on either side that tell of a minute too: single minutes are noise."""


def adv(rows: Float64Array2D) -> float | None:
    """Return the volume of the 24 hours that end with the newest candle, scaled up where not all of their minutes are known.

    Parameters
    ----------
    rows
        Shape (n, 6), one-minute candles ``(ts_ms, open, high, low, close, volume)``, oldest first, each minute once.

    Returns
    -------
    float or None
        In the candles' unit of volume. None where fewer than ``KNOWN_MINUTES_MIN`` minutes are known, and where nothing was traded
        in any of them: no size is a share of nothing.
    """
    if len(rows) < KNOWN_MINUTES_MIN:
        return None
    day = rows[-DAY_MINUTES:]
    day = day[day[:, 0] > rows[-1, 0] - DAY_MINUTES * MINUTE_MS]
    if len(day) < KNOWN_MINUTES_MIN:
        return None
    total = float(np.cumsum(day[:, 5])[-1])  # One after the other, whatever the machine.
    volume = total * (DAY_MINUTES / len(day))
    return volume if 0.0 < volume < math.inf else None


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
    width, span = 2 * HALF_WIDTH + 1, minutes + 2 * HALF_WIDTH
    first = from_ms // MINUTE_MS - HALF_WIDTH
    oldest = int(rows[0, 0]) // MINUTE_MS
    begins = np.arange(first - DAY_MINUTES, oldest - 1, -DAY_MINUTES)
    traded, times = np.zeros(span), np.zeros(span)
    edges = rows[:, 0].searchsorted(np.stack((begins, begins + span)) * MINUTE_MS)
    for begin, low, high in zip(begins.tolist(), *edges.tolist(), strict=True):
        places = (rows[low:high, 0] // MINUTE_MS).astype(np.int64) - begin
        traded[places] += rows[low:high, 5]
        times[places] += 1.0
    around = np.ones(width)
    volumes, known = np.convolve(traded, around, "valid"), np.convolve(times, around, "valid")
    means: Float64Array1D = np.divide(volumes, known, out=np.zeros(minutes), where=known > 0)
    return means if math.fsum(means) > 0.0 else None
