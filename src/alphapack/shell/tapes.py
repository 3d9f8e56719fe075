"""What a mock exchange plays: a market's past, or the simulator, released step by step, with REST answers of that very moment."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Protocol

import msgspec

from alphapack.domain.events import DepthDiff, DepthSnapshot, FrameError, TopOfBook, Trade
from alphapack.domain.market import NANOS_PER_MS, BinanceMarket, Verdict, name_of
from alphapack.engine.ports import Codec
from alphapack.models.book import CrossedBook, FeatureBook
from alphapack.models.candles import MINUTE_MS
from alphapack.shell.captures import Line
from alphapack.shell.faults import TapeFrame, combined

CANDLES_MAX = 10_000
PRIMED_FRAMES_MAX = 20_000
WAITING_DIFFS_MAX = 10_000
_LEVEL = re.compile(rb'"\d+\.?(\d*)","\d+\.?(\d*)"')


class Tape(Protocol):
    """A market's past or a simulator, released step by step."""

    @property
    def now_ns(self) -> int:
        """Tape time: everything at or before it has been released."""
        ...

    def advance(self, until_ns: int) -> list[TapeFrame]:
        """Return the stream frames in ``(now_ns, until_ns]`` in time order, in the combined form."""
        ...

    def snapshot(self, symbol: str, limit: int = 1_000) -> bytes:
        """Return the body of REST depth as of the last frame released; raise ``TapeError`` where the book is not known."""
        ...

    def klines(self, symbol: str, start_ms: int, end_ms: int, limit: int) -> bytes:
        """Return the body of REST klines: closed minutes that open in ``start_ms..end_ms``, the first ``limit`` of them."""
        ...

    def exchange_info(self) -> bytes:
        """Return the body of REST exchangeInfo."""
        ...


class TapeError(ValueError):
    """A recording that cannot be played to clients, or an answer that it does not hold."""


# A recording as a tape


class _Candle(msgspec.Struct):
    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = Decimal(0)
    turnover: Decimal = Decimal(0)
    trades: int = 0
    bought: Decimal = Decimal(0)
    bought_turnover: Decimal = Decimal(0)

    def row(self) -> list[int | str]:
        """Return Binance's twelve columns."""
        prices = [str(price) for price in (self.open, self.high, self.low, self.close, self.volume)]
        sums = [f"{amount:f}" for amount in (self.bought, self.bought_turnover)]
        return [self.open_ms, *prices, self.open_ms + MINUTE_MS - 1, f"{self.turnover:f}", self.trades, *sums, "0"]


class _Recorded:
    """One symbol of a recording: its book by the venue's rule, and its candles."""

    def __init__(self, name: str, contract_value: float | None) -> None:
        self.name = name
        self.book = FeatureBook(None, None, contract_value)
        self.contract = Decimal(str(contract_value)) if contract_value else None
        self.last = -1
        self.known = False
        """Whether the book links from a snapshot to the last difference."""
        self.fresh = False
        self.decimals = (0, 0)
        """Of prices and quantities as the venue writes them: a level has one name on the streams and in a snapshot."""
        self.gaps = 0
        self.candles: deque[_Candle] = deque(maxlen=CANDLES_MAX)
        self._waiting: deque[DepthDiff] = deque(maxlen=WAITING_DIFFS_MAX)
        self._aggregates: bool | None = None

    def snapshot(self, event: DepthSnapshot, codec: Codec) -> None:
        """Begin from a snapshot, with the differences that came before it was received."""
        if self.known:
            return
        try:
            self.book.snapshot(event.bids, event.asks)
        except (FrameError, CrossedBook):
            return
        self.last, self.known, self.fresh = event.last, True, True
        if level := _LEVEL.search(event.bids) or _LEVEL.search(event.asks):
            self.decimals = len(level[1]), len(level[2])
        waiting, self._waiting = self._waiting, deque(maxlen=WAITING_DIFFS_MAX)
        for diff in waiting:
            self.diff(diff, codec)

    def diff(self, event: DepthDiff, codec: Codec) -> None:
        """Apply a difference where it links; where something is missing, wait for the next snapshot."""
        if not self.known:
            self._waiting.append(event)
            return
        verdict = codec.verdict(event, self.last, first_after_snapshot=self.fresh)
        if verdict is Verdict.DUPLICATE:
            return
        try:
            if verdict is Verdict.GAP:
                raise CrossedBook("differences are missing")
            self.book.diff(event.venue_ns, event.bids, event.asks)
        except (FrameError, CrossedBook):
            self.known = False
            self.gaps += 1
            self._waiting.append(event)
            return
        self.last, self.fresh = event.last, False

    def trade(self, event: Trade) -> None:
        """Take a trade into its minute; a recording of trades and of their aggregates has each trade twice."""
        if self._aggregates is None:
            self._aggregates = event.aggregate
        if event.aggregate is not self._aggregates:
            return
        price, quantity = (Decimal(raw.decode().strip('"')) for raw in (event.price, event.quantity))
        if not price or not quantity:
            return
        open_ms = event.venue_ns // NANOS_PER_MS // MINUTE_MS * MINUTE_MS
        self._open(open_ms, price)
        candle = self.candles[-1]
        candle.high, candle.low, candle.close = max(candle.high, price), min(candle.low, price), price
        turnover = quantity * price if self.contract is None else (quantity * self.contract / price).quantize(Decimal("1e-8"))
        candle.volume += quantity
        candle.turnover += turnover
        candle.trades += event.last_id - event.first_id + 1
        if event.buyer_is_taker:
            candle.bought += quantity
            candle.bought_turnover += turnover

    def _open(self, open_ms: int, price: Decimal) -> None:
        """See to the candle of a minute; minutes without a trade stand where the last one closed."""
        if not self.candles or open_ms - self.candles[-1].open_ms > CANDLES_MAX * MINUTE_MS:
            self.candles.clear()
            self.candles.append(_Candle(open_ms, price, price, price, price))
        while self.candles[-1].open_ms < open_ms:
            last = self.candles[-1]
            opens = price if last.open_ms + MINUTE_MS == open_ms else last.close
            self.candles.append(_Candle(last.open_ms + MINUTE_MS, opens, opens, opens, opens))


class CaptureTape:
    """A recording of one market, with the books behind it, so that snapshots are right at any moment.

    It begins where the book of every symbol met until then is known: frames before that are read and not released. Times
    in the payloads stay those of the recording. Raises ``TapeError`` for a recording without a snapshot near its start.
    """

    def __init__(self, lines: Iterable[Line], codec: Codec, market: BinanceMarket) -> None:
        self._codec, self._market = codec, market
        self._symbols: dict[str, _Recorded] = {}
        self._lines = iter(lines)
        self._next: Line | None = next(self._lines, None)
        self.now_ns = 0
        """Tape time: everything at or before it has been released."""
        self.unreadable = 0
        """Lines left out because they are not what the venue's protocol promises."""
        self._prime()

    @property
    def ended(self) -> bool:
        """Whether all of the recording has been released."""
        return self._next is None

    @property
    def gaps(self) -> int:
        """Differences that the recording itself lacks; such a book is not known until its next snapshot."""
        return sum(one.gaps for one in self._symbols.values())

    def advance(self, until_ns: int) -> list[TapeFrame]:
        """Return the frames in ``(now_ns, until_ns]`` in the combined form; the recording's snapshots are not among them."""
        frames = [frame for frame in self._read(until_ns) if frame is not None]
        self.now_ns = max(self.now_ns, until_ns)
        return frames

    def snapshot(self, symbol: str, limit: int = 1_000) -> bytes:
        """Return the body of REST depth as of the last frame released; ``TapeError`` where the recording lacks a difference."""
        recorded = self._symbols.get(symbol)
        if recorded is None or not recorded.known:
            raise TapeError(f"expected a recorded book of {symbol}, found none that is known now")
        book = recorded.book
        assert book.tick is not None and book.lot is not None
        decimals = max(recorded.decimals[0], book.tick.decimals), max(recorded.decimals[1], book.lot.decimals)
        sides = (
            ",".join(f'["{price:.{decimals[0]}f}","{quantity:.{decimals[1]}f}"]' for price, quantity in book.side(which, limit))
            for which in ("bids", "asks")
        )
        stamp = "" if self._market == "spot" else '"E":{0},"T":{0},'.format(self.now_ns // NANOS_PER_MS)
        names = f'"symbol":"{symbol}",' if self._market == "coinm" else ""
        return '{{"lastUpdateId":{},{}{}"bids":[{}],"asks":[{}]}}'.format(recorded.last, stamp, names, *sides).encode()

    def klines(self, symbol: str, start_ms: int, end_ms: int, limit: int) -> bytes:
        """Return the closed minutes of the trades released, those that open in ``start_ms..end_ms``."""
        recorded = self._symbols.get(symbol)
        candles = recorded.candles if recorded is not None else ()
        closed_ms = self.now_ns // NANOS_PER_MS - MINUTE_MS
        rows = [one.row() for one in candles if start_ms <= one.open_ms <= min(end_ms, closed_ms)]
        return msgspec.json.encode(rows[:limit])

    def exchange_info(self) -> bytes:
        """Return the symbols whose books are known, with the tick and lot that the recording shows."""
        symbols = [self._instrument(one) for one in self._symbols.values() if one.book.tick is not None]
        return msgspec.json.encode({"timezone": "UTC", "serverTime": self.now_ns // NANOS_PER_MS, "symbols": symbols})

    def _instrument(self, one: _Recorded) -> dict[str, object]:
        filters = [
            {"filterType": "PRICE_FILTER", "tickSize": str(one.book.tick)},
            {"filterType": "LOT_SIZE", "stepSize": str(one.book.lot)},
        ]
        facts: dict[str, object] = {"symbol": one.name, "status": "TRADING", "filters": filters}
        if self._market != "spot":
            facts["contractType"] = "PERPETUAL"
        if one.contract is not None:
            facts["contractSize"] = int(one.contract)
        return facts

    def _prime(self) -> None:
        for _ in range(PRIMED_FRAMES_MAX):
            if self._next is None:
                break
            for _ in self._read(self._next.receive_ns, only_one=True):
                pass
            if self._symbols and all(one.known and not one.fresh for one in self._symbols.values()):
                return
        if not any(one.known for one in self._symbols.values()):
            raise TapeError(
                f"expected a depth snapshot, and differences that link to it, within the first {PRIMED_FRAMES_MAX} messages "
                f"of the recording, found none: without it a mock exchange cannot answer for a book"
            )

    def _read(self, until_ns: int, *, only_one: bool = False) -> Iterator[TapeFrame | None]:
        while (line := self._next) is not None and line.receive_ns <= until_ns:
            self._next = next(self._lines, None)
            self.now_ns = max(self.now_ns, line.receive_ns)
            yield self._take(line)
            if only_one:
                return

    def _take(self, line: Line) -> TapeFrame | None:
        if line.venue != self._codec.venue:
            raise TapeError(f"expected messages of {self._codec.venue} alone, found one of {line.venue}")
        try:
            (event,) = self._codec.decode(line.payload, line.symbol)
            self._learn(event)
        except FrameError:
            self.unreadable += 1
            return None
        if isinstance(event, DepthSnapshot):
            return None
        if line.payload.startswith(b'{"stream":"'):
            return line.receive_ns, line.payload
        channel = _channel(event)
        if channel is None or b'"data"' in line.payload[:64]:
            return None
        return line.receive_ns, combined(f"{name_of(event.symbol).lower()}@{channel}".encode(), line.payload)

    def _learn(self, event: object) -> None:
        if isinstance(event, DepthDiff):
            self._symbol(event.symbol).diff(event, self._codec)
        elif isinstance(event, DepthSnapshot):
            self._symbol(event.symbol).snapshot(event, self._codec)
        elif isinstance(event, Trade):
            known = self._symbols.get(name_of(event.symbol))
            if known is not None:
                known.trade(event)

    def _symbol(self, full: str) -> _Recorded:
        name = name_of(full)
        if name not in self._symbols:
            self._symbols[name] = _Recorded(name, self._codec.contract_value(name))
        return self._symbols[name]


def _channel(event: object) -> str | None:
    """Return the channel of a message that was recorded without its stream."""
    if isinstance(event, DepthDiff):
        return "depth@100ms"
    if isinstance(event, Trade):
        return "aggTrade" if event.aggregate else "trade"
    return "bookTicker" if isinstance(event, TopOfBook) else None
