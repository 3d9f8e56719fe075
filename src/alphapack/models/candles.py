"""One-minute candles of one symbol, in order of time, and where each came from."""

import enum

import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D, Uint8Array1D

COLUMNS = ("open", "high", "low", "close", "volume")
MINUTE_MS = 60_000
EXPECTED = "candles of whole minutes with 0 < low <= open, close <= high and volume >= 0"
BoolArray1D = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Source(enum.IntEnum):
    """Where a candle came from; of one minute the higher is believed."""

    FILE = 0
    """Loaded by the user as history."""
    TAPE = 1
    """Made here, of the trades."""
    VENUE = 2
    """The venue's own."""


class CandleSeries:
    """Rows of ``(ts_ms, open, high, low, close, volume)``, one a minute that is known, the newest of them kept.

    ``ts_ms`` is the opening time on the venue's clock; prices are in quote units, volume in base units (contracts, where
    the instrument is inverse). A minute without a row is not known; one without trades has a row with volume 0.
    """

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._held: Float64Array2D = np.empty((0, 1 + len(COLUMNS)))
        self._origins: Uint8Array1D = np.empty(0, np.uint8)
        self._n = 0
        self.version = 0
        """Grows with every change of the rows but one that appends to them (the oldest may go then)."""

    @property
    def rows(self) -> Float64Array2D:
        """All that is kept, oldest first, shape ``(n, 6)``; what is handed out never changes."""
        return self._held[max(0, self._n - self._rows_max) : self._n]

    @property
    def origins(self) -> Uint8Array1D:
        """The ``Source`` of each row, shape ``(n,)``; it changes with the next merge."""
        return self._origins[max(0, self._n - self._rows_max) : self._n]

    def merge(self, rows: Float64Array2D, source: Source) -> bool:
        """Take candles in, of any time and in any order; tells whether rows changed.

        Of two of one minute the one of the higher source stays, of equal sources the one that comes last. Raises
        ``ValueError`` for one that is no candle, and then takes none of them.
        """
        check(rows)
        if len(rows) == 0:
            return False
        held = self.rows
        origins: Uint8Array1D = np.full(len(rows), source, np.uint8)
        if (len(held) == 0 or rows[0, 0] > held[-1, 0]) and np.all(np.diff(rows[:, 0]) > 0):
            self._append(rows, origins)
            return True
        at = int(np.searchsorted(held[:, 0], rows[:, 0].min()))  # What is older stays as it is.
        both, ranks = np.concatenate((held[at:], rows)), np.concatenate((self.origins[at:], origins))
        order = np.lexsort((ranks, both[:, 0]))
        order = order[np.append(np.diff(both[order, 0]) > 0, True)][-self._rows_max :]
        both, ranks = both[order], ranks[order]
        newer = int(np.count_nonzero(both[:, 0] > held[-1, 0])) if len(held) else len(both)
        same = len(both) - newer  # So many must be rows that are held, or this is no appending.
        if same <= len(held) - at and np.array_equal(both[:same], held[len(held) - same :]):
            self.origins[len(held) - same :] = ranks[:same]
            if newer:
                self._append(both[same:], ranks[same:])
            return newer > 0
        self.restore(np.concatenate((held[:at], both)), np.concatenate((self.origins[:at], ranks)), self.version + 1)
        return True

    def withdraw(self, from_ms: int, source: Source) -> bool:
        """Forget the candles of ``source`` that open at or after ``from_ms``; tells whether there were any."""
        rows, origins = self.rows, self.origins
        stays = (rows[:, 0] < from_ms) | (origins != source)
        if stays.all():
            return False
        self.restore(rows[stays], origins[stays], self.version + 1)
        return True

    def restore(self, rows: Float64Array2D, origins: Uint8Array1D, version: int) -> None:
        """Hold these arrays, which are the series' own from now on, and nothing else."""
        self._held, self._origins, self._n, self.version = rows, origins, len(rows), version

    def _append(self, rows: Float64Array2D, origins: Uint8Array1D) -> None:
        """Take in rows after all that is kept; room grows by doubling, so that pages of the past cost what they hold."""
        if self._n + len(rows) > len(self._held):
            kept, ranks = self.rows, self.origins
            room = 2 * (len(kept) + len(rows))
            self._held, self._origins = np.empty((room, 1 + len(COLUMNS))), np.empty(room, np.uint8)
            self._held[: len(kept)], self._origins[: len(kept)] = kept, ranks
            self._n = len(kept)
        self._held[self._n : self._n + len(rows)] = rows
        self._origins[self._n : self._n + len(rows)] = origins
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
    good = whole(rows)
    if not good.all():
        at = int(np.argmin(good))
        raise ValueError(f"expected {EXPECTED}, found {named(rows[at])}")


def whole(rows: Float64Array2D) -> BoolArray1D:
    """Tell of each row whether it is a one-minute candle, shape ``(n,)``."""
    ts, opened, high, low, closed, volume = rows.T
    with np.errstate(invalid="ignore"):
        good: BoolArray1D = np.isfinite(rows).all(axis=1) & (ts % MINUTE_MS == 0) & (low > 0) & (volume >= 0)
        good &= (low <= np.minimum(opened, closed)) & (high >= np.maximum(opened, closed))
    return good


def named(row: Float64Array1D) -> str:
    """Return the values of a row with their names."""
    return ", ".join(f"{name} {value:.15g}" for name, value in zip(("ts_ms", *COLUMNS), row.tolist(), strict=True))


def in_order(rows: Float64Array2D) -> Float64Array2D:
    """Return candles oldest first, each minute once. Raises ``ValueError`` for one that is no candle and for two that contradict."""
    check(rows)
    ordered: Float64Array2D = rows[np.argsort(rows[:, 0], kind="stable")]
    again = np.flatnonzero(ordered[1:, 0] == ordered[:-1, 0])
    for at in again.tolist():
        if not np.array_equal(ordered[at], ordered[at + 1]):
            raise ValueError(f"expected one candle a minute, found two that contradict: {named(ordered[at])} and {named(ordered[at + 1])}")
    kept: Float64Array2D = np.delete(ordered, again, axis=0)
    return kept
