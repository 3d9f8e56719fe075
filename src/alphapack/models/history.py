"""The recent past of a few values: a ring of rows in memory."""

import numpy as np

from alphapack.arrays import Float64Array2D


class History:
    """Rows of a time in milliseconds and its values, the newest of them kept; NaN where a value was not known."""

    def __init__(self, names: tuple[str, ...], rows: int) -> None:
        self._names = names
        self._ring: Float64Array2D = np.full((rows, 1 + len(names)), np.nan)
        self.written = 0
        """Rows ever written."""
        self._held = 0

    def note(self, ts_ms: int, values: Float64Array2D | list[float]) -> None:
        """Write a row."""
        row = self._ring[self.written % len(self._ring)]
        row[0] = ts_ms
        row[1:] = values
        self.written += 1
        self._held = min(self._held + 1, len(self._ring))

    def past(self) -> Float64Array2D:
        """Return the rows, oldest first, the time before the values."""
        rows: Float64Array2D = self._ring[np.arange(self.written - self._held, self.written) % len(self._ring)]
        return rows

    def keep(self, rows: int) -> None:
        """Keep so many rows from now on."""
        if rows != len(self._ring):
            self._hold(rows, self.past())

    def columns(self, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]]:
        """Return the first ``limit`` rows at or after ``from_ms``, oldest first, by column."""
        rows = self.past()
        rows = rows[rows[:, 0] >= from_ms][:limit]
        columns: dict[str, list[int] | list[float | None]] = {"ts_ms": [int(ts) for ts in rows[:, 0]]}
        for i, name in enumerate(self._names, 1):
            columns[name] = [None if x != x else x for x in rows[:, i].tolist()]
        return columns

    def load(self, written: int, past: memoryview) -> None:
        """Replace everything by what ``past`` returned when so many rows were written, as far as it fits."""
        self.written = written
        self._hold(len(self._ring), np.frombuffer(past).reshape(-1, 1 + len(self._names)))

    def _hold(self, rows: int, past: Float64Array2D) -> None:
        past = past[-rows:]
        self._held = len(past)
        self._ring = np.full((rows, 1 + len(self._names)), np.nan)
        self._ring[np.arange(self.written - len(past), self.written) % rows] = past
