"""One-minute candles of one symbol, in order of time."""

import numpy as np

from alphapack.arrays import Float64Array2D

COLUMNS = ("open", "high", "low", "close", "volume")
MINUTE_MS = 60_000


class CandleSeries:
    """Rows of ``(ts_ms, open, high, low, close, volume)``, one a minute that is known, the newest of them kept.

    ``ts_ms`` is the opening time on the venue's clock; prices are in quote units, volume in base units (contracts, where
    the instrument is inverse).
    """

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._held: Float64Array2D = np.empty((0, 1 + len(COLUMNS)))
        self._n = 0

    @property
    def rows(self) -> Float64Array2D:
        """All that is kept, oldest first, shape ``(n, 6)``."""
        return self._held[max(0, self._n - self._rows_max) : self._n]

    def merge(self, rows: Float64Array2D) -> None:
        """Take candles in, of any time and in any order; one of a minute that is known replaces it.

        Raises ``ValueError`` for one that is no candle, and then takes none of them.
        """
        check(rows)
        if len(rows) == 0:
            return
        if (self._n == 0 or rows[0, 0] > self._held[self._n - 1, 0]) and np.all(np.diff(rows[:, 0]) > 0):
            self._append(rows)
            return
        both = np.concatenate((self.rows, rows))
        both = both[np.argsort(both[:, 0], kind="stable")]
        last = np.append(both[1:, 0] != both[:-1, 0], True)  # Of equal times the one that came last.
        self._held = both[last]
        self._n = len(self._held)

    def _append(self, rows: Float64Array2D) -> None:
        """Take in rows after all that is kept; room grows by doubling, so that pages of the past cost what they hold."""
        if self._n + len(rows) > len(self._held):
            kept = self.rows
            self._held = np.empty((2 * (len(kept) + len(rows)), 1 + len(COLUMNS)))
            self._held[: len(kept)] = kept
            self._n = len(kept)
        self._held[self._n : self._n + len(rows)] = rows
        self._n += len(rows)

    def columns(self, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]]:
        """Return the first ``limit`` candles at or after ``from_ms``, oldest first, by column."""
        start = int(np.searchsorted(self.rows[:, 0], from_ms))
        rows = self.rows[start : start + limit]
        columns: dict[str, list[int] | list[float | None]] = {"ts_ms": [int(ts) for ts in rows[:, 0]]}
        for i, name in enumerate(COLUMNS, 1):
            columns[name] = list(rows[:, i].tolist())
        return columns


def check(rows: Float64Array2D) -> None:
    """Raise ``ValueError`` where a row is not a one-minute candle."""
    if rows.ndim != 2 or rows.shape[1] != 1 + len(COLUMNS):
        raise ValueError(f"expected rows of {1 + len(COLUMNS)} values, found shape {rows.shape}")
    ts, opened, high, low, closed, volume = rows.T
    with np.errstate(invalid="ignore"):
        good = np.isfinite(rows).all(axis=1) & (ts % MINUTE_MS == 0) & (low > 0) & (volume >= 0)
        good &= (low <= np.minimum(opened, closed)) & (high >= np.maximum(opened, closed))
    if not good.all():
        at = int(np.argmin(good))
        found = ", ".join(f"{name} {value:.15g}" for name, value in zip(("ts_ms", *COLUMNS), rows[at].tolist(), strict=True))
        raise ValueError(f"expected candles of whole minutes with 0 < low <= open, close <= high and volume >= 0, found {found}")
