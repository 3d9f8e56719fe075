"""One-minute candles of every symbol: what volatility is made of.

They come as a venue's own: as its answers about the past, and one by one where its stream of candles is followed.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from alphapack.domain.context import Context
from alphapack.domain.events import Candle, Candles, FrameError
from alphapack.domain.market import NANOS_PER_MS
from alphapack.models.candles import COLUMNS, MINUTE_MS, CandleSeries

ROWS_MAX = 45 * 1_440
"""Candles kept a symbol: thirty days and half as many again."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    symbols: list[str]


class CandleStore:
    """Owns the candles of every symbol."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._series: dict[str, CandleSeries] = {}
        self.handlers: dict[type, Callable[[Any], None]] = {Candle: self._on_candle, Candles: self._on_candles}
        """Who takes which event."""

    def _on_candle(self, candle: Candle) -> None:
        if candle.closed and candle.close_ms + 1 - candle.open_ms == MINUTE_MS:
            self._merge(candle.symbol, ((candle.open_ms, candle.open, candle.high, candle.low, candle.close, candle.volume),))

    def _on_candles(self, candles: Candles) -> None:
        if candles.interval_ms != MINUTE_MS:
            raise FrameError(f"expected candles of {MINUTE_MS} ms, found candles of {candles.interval_ms} ms")
        self._merge(candles.symbol, candles.rows)

    def _merge(self, symbol: str, rows: tuple[tuple[int, str, str, str, str, str], ...]) -> None:
        settings = self._ctx.settings
        if settings.symbols and symbol not in settings.symbols:
            return
        if symbol not in self._series and len(self._series) >= settings.symbols_max:
            raise FrameError(f"expected candles of at most {settings.symbols_max} symbols (core.symbols_max), found one more: {symbol}")
        # A minute that has not ended may still change, and one of the future would keep all others from being asked for.
        ended = [row for row in rows if row[0] + MINUTE_MS <= self._ctx.now_ns // NANOS_PER_MS]
        if not ended:
            return
        try:
            values = np.array(ended, np.float64)
            series = self._series.get(symbol) or CandleSeries(ROWS_MAX)
            series.merge(values)
        except ValueError as error:
            raise FrameError(str(error)) from None
        self._series[symbol] = series

    def symbols(self) -> list[str]:
        """Return every symbol with candles."""
        return list(self._series)

    def count(self, symbol: str) -> int:
        """Return how many candles of a symbol are known."""
        series = self._series.get(symbol)
        return len(series.rows) if series is not None else 0

    def last_ms(self, symbol: str) -> int | None:
        """Return the opening time of a symbol's newest candle; None where none is known."""
        return int(self._series[symbol].rows[-1, 0]) if self.count(symbol) else None

    def last_close(self, symbol: str) -> float | None:
        """Return the close of a symbol's newest candle; None where none is known."""
        return float(self._series[symbol].rows[-1, 4]) if self.count(symbol) else None

    def history(self, symbol: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]]:
        """Return candles by column, oldest first: the first ``limit`` at or after ``from_ms``."""
        return (self._series.get(symbol) or CandleSeries(ROWS_MAX)).columns(from_ms, limit)

    def save(self) -> list[memoryview]:
        """Return every candle: the symbols, then the rows of each as they lie."""
        head = msgspec.msgpack.encode(_Saved(3, list(self._series)))
        return [memoryview(head), *(series.rows.data for series in self._series.values())]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        self._series = {}
        for symbol, rows in zip(saved.symbols, pieces[1:], strict=True):
            self._series[symbol] = CandleSeries(ROWS_MAX)
            self._series[symbol].merge(np.frombuffer(rows).reshape(-1, 1 + len(COLUMNS)))
