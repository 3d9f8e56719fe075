"""One-minute candles of every symbol: what volatility is made of.

They come from three sources: a venue's own, as its answers about the past or one by one where its stream of candles is
followed; the tape, made here of the trades; and files that the user loads as history. Of one minute the venue's stands
before the tape's, and the tape's before a file's.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from alphapack.arrays import Float64Array2D
from alphapack.domain.context import Context
from alphapack.domain.events import Candle, Candles, FrameError
from alphapack.domain.inputs import HISTORY_ROWS_MAX, History
from alphapack.domain.market import NANOS_PER_MS
from alphapack.models.candles import COLUMNS, MINUTE_MS, CandleSeries, Source

ROWS_MAX = 45 * 1_440
"""Candles kept a symbol: thirty days and half as many again."""
_WIDTH = 1 + len(COLUMNS)
_EMPTY = CandleSeries(ROWS_MAX)


class _Saved(msgspec.Struct, array_like=True):
    version: int
    symbols: list[str]
    versions: list[int]
    shifts: dict[str, int]


class CandleStore:
    """Owns the candles of every symbol."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._series: dict[str, CandleSeries] = {}
        self._shifts: dict[str, int] = {}
        """How far a symbol's history was moved in time, by symbol with a history."""
        self.merged: Callable[[str], None] = lambda symbol: None
        """Told of a symbol after every merge that changed its rows."""
        self.handlers: dict[type, Callable[[Any], None]] = {Candle: self._on_candle, Candles: self._on_candles}
        """Who takes which event."""

    # What enters

    def _on_candle(self, candle: Candle) -> None:
        if candle.closed and candle.close_ms + 1 - candle.open_ms == MINUTE_MS:
            self._take(candle.symbol, ((candle.open_ms, candle.open, candle.high, candle.low, candle.close, candle.volume),))

    def _on_candles(self, candles: Candles) -> None:
        if candles.interval_ms != MINUTE_MS:
            raise FrameError(f"expected candles of {MINUTE_MS} ms, found candles of {candles.interval_ms} ms")
        self._take(candles.symbol, candles.rows)

    def _take(self, symbol: str, rows: tuple[tuple[int, str, str, str, str, str], ...]) -> None:
        """Take what a venue says of its candles."""
        if not self._admits(symbol):
            return
        # A minute that has not ended may still change, and one of the future would keep all others from being asked for.
        ended = [row for row in rows if row[0] + MINUTE_MS <= self._ctx.now_ns // NANOS_PER_MS]
        if not ended:
            return
        try:
            values = np.array(ended, np.float64)
        except ValueError as error:
            raise FrameError(str(error)) from None
        self._merge(symbol, values, Source.VENUE)

    def on_history(self, history: History) -> None:
        """Take a page of a symbol's past that the user loads. A ``FrameError`` changes nothing."""
        if not self._admits(history.symbol):
            return
        size = len(history.rows) // (_WIDTH * 8)
        if len(history.rows) % (_WIDTH * 8) or size > HISTORY_ROWS_MAX:
            raise FrameError(f"expected at most {HISTORY_ROWS_MAX} rows of {_WIDTH} float64, found {len(history.rows)} bytes")
        self._merge(history.symbol, np.frombuffer(history.rows, "<f8").reshape(-1, _WIDTH), Source.FILE)
        self._shifts[history.symbol] = history.shift_ms

    def on_tape(self, symbol: str, rows: Float64Array2D) -> None:
        """Take the minutes that the tape has closed; those of one symbol more than may be kept are left out."""
        if self._has_room(symbol):
            self._merge(symbol, rows, Source.TAPE)

    def on_tape_refuted(self, symbol: str, from_ms: int) -> None:
        """Forget what the tape said of the minutes that open at or after ``from_ms``: trades of theirs are shown to be missing."""
        series = self._series.get(symbol)
        if series is not None and series.withdraw(from_ms, Source.TAPE):
            self.merged(symbol)

    def _admits(self, symbol: str) -> bool:
        settings = self._ctx.settings
        if settings.symbols and symbol not in settings.symbols:
            return False
        if not self._has_room(symbol):
            raise FrameError(f"expected candles of at most {settings.symbols_max} symbols (core.symbols_max), found one more: {symbol}")
        return True

    def _has_room(self, symbol: str) -> bool:
        return symbol in self._series or len(self._series) < self._ctx.settings.symbols_max

    def _merge(self, symbol: str, rows: Float64Array2D, source: Source) -> None:
        series = self._series.get(symbol) or CandleSeries(ROWS_MAX)
        try:
            changed = series.merge(rows, source)
        except ValueError as error:
            raise FrameError(str(error)) from None
        if len(rows):
            self._series[symbol] = series
        if changed:
            self.merged(symbol)

    # What is known

    def symbols(self) -> list[str]:
        """Return every symbol with candles."""
        return list(self._series)

    def count(self, symbol: str) -> int:
        """Return how many candles of a symbol are known."""
        return len(self.rows(symbol))

    def rows(self, symbol: str) -> Float64Array2D:
        """Return ``(ts_ms, open, high, low, close, volume)`` of every minute that is known, shape ``(n, 6)``.

        Oldest first, whole minutes, each once. A minute without a row is not known; volume 0 says that nothing was traded.
        What is returned never changes; it is not to be written to.
        """
        return self._series.get(symbol, _EMPTY).rows

    def sources(self, symbol: str) -> dict[str, int]:
        """Return how many of a symbol's candles came from each source, ``venue``, ``tape`` and ``file``; those without are left out."""
        counts = np.bincount(self._series.get(symbol, _EMPTY).origins, minlength=len(Source))
        return {source.name.lower(): int(counts[source]) for source in reversed(Source) if counts[source]}

    def version(self, symbol: str) -> int:
        """Return a number that grows with every change of a symbol's rows but rows that follow the newest (the oldest may go then)."""
        return self._series.get(symbol, _EMPTY).version

    def shift_ms(self, symbol: str) -> int | None:
        """Return by how much the history of a symbol was moved in time, 0 for one as it is; None where none was loaded."""
        return self._shifts.get(symbol)

    def last_ms(self, symbol: str) -> int | None:
        """Return the opening time of the newest candle that the venue sent itself; None where there is none.

        What lies behind it is to be asked for, also where the tape or a file fills it.
        """
        series = self._series.get(symbol, _EMPTY)
        sent = np.flatnonzero(series.origins == Source.VENUE)
        return int(series.rows[sent[-1], 0]) if len(sent) else None

    def last_close(self, symbol: str) -> float | None:
        """Return the close of a symbol's newest candle; None where none is known."""
        return float(self.rows(symbol)[-1, 4]) if self.count(symbol) else None

    def history(self, symbol: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]]:
        """Return candles by column, oldest first: the first ``limit`` at or after ``from_ms``."""
        return self._series.get(symbol, _EMPTY).columns(from_ms, limit)

    # State

    def save(self) -> list[memoryview]:
        """Return every candle: the symbols, then rows and sources of each as they lie."""
        head = msgspec.msgpack.encode(_Saved(4, list(self._series), [series.version for series in self._series.values()], self._shifts))
        return [memoryview(head), *(part.data for series in self._series.values() for part in (series.rows, series.origins))]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        self._series, self._shifts = {}, saved.shifts
        for symbol, version, rows, origins in zip(saved.symbols, saved.versions, pieces[1::2], pieces[2::2], strict=True):
            series = self._series[symbol] = CandleSeries(ROWS_MAX)
            series.restore(np.frombuffer(rows).reshape(-1, _WIDTH).copy(), np.frombuffer(origins, np.uint8).copy(), version)
