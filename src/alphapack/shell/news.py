"""The ring of recent records behind the event stream (port ``News``): bounded in records and in bytes, never waits for a reader.

Records are added as they happen and told once they are durable. What the ring gives up, a reader that was slow is told
the number of; what happened before the process began is on disk alone.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable

from alphapack.engine.ports import LedgerRow, NewsPage

ROWS_MAX = 10_000
BYTES_MAX = 8_000_000
ROW_OVERHEAD_BYTES = 200
"""What a record takes in memory beside its body, about."""


class NewsRing:
    """Recent records by cursor; every method is called on the loop, and ``pending`` on any thread."""

    def __init__(self, *, rows_max: int = ROWS_MAX, bytes_max: int = BYTES_MAX) -> None:
        """Keep at most ``rows_max`` records of ``bytes_max`` bytes together."""
        self._rows: list[LedgerRow | None] = [None] * rows_max
        self._bytes_max, self._bytes = bytes_max, 0
        self._first = self._told = self._end = 0  # Cursors: the oldest kept, the first that is not durable, the next to come.
        self._before = (0, 0)
        self._waiting: set[asyncio.Future[None]] = set()

    def follow(self, last: tuple[int, int]) -> None:
        """Say which record was the last before the first that will be added; told once, after the state is recovered."""
        assert self._end == 0, "the ring begins where the recovered state ends"
        self._before = last

    def add(self, rows: Iterable[LedgerRow]) -> None:
        """Take in records, in order of their keys."""
        for row in rows:
            self._bytes += len(row.body) + ROW_OVERHEAD_BYTES
            while self._end - self._first >= len(self._rows) or (self._bytes > self._bytes_max and self._first < self._end):
                self._drop_oldest()
            self._rows[self._end % len(self._rows)] = row
            self._end += 1

    def publish(self, durable_seq: int) -> None:
        """Tell what is durable now."""
        before = self._told
        while self._told < self._end and self._row(self._told).seq <= durable_seq:
            self._told += 1
        if self._told > before:
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)

    @property
    def pending(self) -> bool:
        """Whether there is anything that ``publish`` may have to tell."""
        return self._told < self._end

    @property
    def oldest(self) -> int:
        """The cursor of the oldest record kept."""
        return self._first

    @property
    def latest(self) -> tuple[int, int]:
        """The key of the last record that may be told, also where it is no longer kept; ``(0, 0)`` before the first."""
        return self._key(self._told - 1) if self._told > self._first else self._before

    def cursor(self, key: tuple[int, int]) -> int | None:
        """Return the place behind the record of ``key``; None where what followed it may be gone."""
        if key < self._before:
            return None
        return self._first + bisect_right(range(self._first, self._end), key, key=self._key)

    def page(self, cursor: int, limit: int) -> NewsPage:
        """Return at most ``limit`` durable records from ``cursor`` on."""
        begin = max(cursor, self._first)
        end = max(begin, min(begin + limit, self._told))
        return NewsPage([self._row(i) for i in range(begin, end)], end, begin - cursor)

    async def beyond(self, cursor: int) -> None:
        """Return once there is a durable record at ``cursor`` or behind it."""
        while self._told <= cursor:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)

    def _drop_oldest(self) -> None:
        row, self._before = self._row(self._first), self._key(self._first)
        self._bytes -= len(row.body) + ROW_OVERHEAD_BYTES
        self._rows[self._first % len(self._rows)] = None
        self._first += 1
        self._told = max(self._told, self._first)

    def _row(self, cursor: int) -> LedgerRow:
        row = self._rows[cursor % len(self._rows)]
        assert row is not None, "between the oldest and the next every place is taken"
        return row

    def _key(self, cursor: int) -> tuple[int, int]:
        row = self._row(cursor)
        return row.seq, row.ordinal
