"""How much of an instrument is traded in a day."""

import math

import numpy as np

from alphapack.arrays import Float64Array2D
from alphapack.models.minutes import MINUTE_MS

DAY_MINUTES = 1_440
KNOWN_MINUTES_MIN = 60
"""An hour says what a day's volume is to within a small factor: hours of a day differ by as much."""


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
