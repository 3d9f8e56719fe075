"""Minute returns of one symbol on a grid without holes: what is not known is said to be so, and is never a zero.

``r_k = ln(close_k / close_(k-1))`` of minutes ``k`` of the epoch, closes of trades. A minute in which nothing was traded has a
candle that carries the close before, and the return 0. A minute without a candle is not known, and neither is the return
after it, which spans both.
"""

import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D, Uint8Array1D
from alphapack.kernels import variance

MINUTE_MS = 60_000
MINUTES_MAX = 64 * 1_440
"""A grid begins at most so long before its newest minute: one stray time must not make it as long as the years between."""
RETURN_MAX = 0.5
"""A price that changes by a factor of 1.65 within a minute is taken for an error of the data, not for volatility."""


class MinuteGrid:
    """Returns of ``first .. end - 1``, minutes of the epoch."""

    def __init__(self, rows: Float64Array2D) -> None:
        """Take candles, oldest first, one a minute at most; those of the newest ``MINUTES_MAX`` count."""
        if len(rows) and rows[-1, 0] - rows[0, 0] >= MINUTES_MAX * MINUTE_MS:
            rows = rows[rows[:, 0] > rows[-1, 0] - MINUTES_MAX * MINUTE_MS]
        self._last: Float64Array2D = rows[-1:].copy()
        n = 0 if len(rows) == 0 else int(rows[-1, 0] - rows[0, 0]) // MINUTE_MS + 1
        self.first = int(rows[0, 0]) // MINUTE_MS if len(rows) else 0
        self._returns: Float64Array1D = np.zeros(max(n, 1) * 9 // 8)
        self._known: Uint8Array1D = np.zeros(len(self._returns), np.uint8)
        self.n = n
        if n:
            variance.returns(rows, self.first, RETURN_MAX, self._returns, self._known)

    @property
    def returns(self) -> Float64Array1D:
        """Log returns as fractions, shape (n,); 0 where not known."""
        return self._returns[: self.n]

    @property
    def known(self) -> Uint8Array1D:
        """1 where the return is known, shape (n,)."""
        return self._known[: self.n]

    @property
    def end(self) -> int:
        """The minute after the newest."""
        return self.first + self.n

    def extend(self, rows: Float64Array2D) -> None:
        """Take candles of minutes after the newest."""
        n = int(rows[-1, 0]) // MINUTE_MS + 1 - self.first
        if n > len(self._returns):
            room = n * 9 // 8
            self._returns = np.concatenate((self.returns, np.zeros(room - self.n)))
            self._known = np.concatenate((self.known, np.zeros(room - self.n, np.uint8)))
        variance.returns(np.concatenate((self._last, rows)), self.first, RETURN_MAX, self._returns, self._known)
        self._last, self.n = rows[-1:].copy(), n

    @classmethod
    def of(cls, first: int, returns: Float64Array1D) -> "MinuteGrid":
        """Return a grid of returns that are at hand, from minute ``first`` on; NaN where not known."""
        grid = cls(np.empty((0, 6)))
        known = np.isfinite(returns)
        grid.first, grid.n, grid._returns, grid._known = first, len(returns), np.where(known, returns, 0.0), known.astype(np.uint8)
        return grid

    def part(self, begin: int, end: int) -> "MinuteGrid":
        """Return minutes ``begin .. end - 1`` of it as a grid of their own."""
        begin, end = max(begin, self.first), min(end, self.end)
        span = slice(begin - self.first, max(begin, end) - self.first)
        return MinuteGrid.of(begin, np.where(self.known[span] == 1, self.returns[span], np.nan))

    @property
    def known_n(self) -> int:
        """How many returns are known."""
        return int(np.count_nonzero(self.known))
