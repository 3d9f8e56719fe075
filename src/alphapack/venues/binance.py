"""Binance: spot, USD-M and COIN-M futures.

The local book, by the venue's documentation (numbers are used in ``verdict``):

spot
    1. keep the differences that come while a snapshot is fetched; 2. drop those with u <= lastUpdateId; 3. the first kept one
    has U <= lastUpdateId + 1 <= u; 4. afterwards U must not lie beyond the last u + 1 (beyond: something was missed);
    an event with u at or before the last one is ignored.
futures
    2. drop those with u < lastUpdateId; 3. the first kept one has U <= lastUpdateId <= u (in practice a stream may also go
    on directly with pu == lastUpdateId); 4. afterwards pu is the u of the event before. Ids are not contiguous there, so
    U says nothing in steady state.

Quantities are absolute, zero removes a level, removing an absent level is normal. ``m`` true: the buyer was the maker, so
the seller took. Times are milliseconds, or microseconds where the stream was asked for them: told apart by size.
"""

import re
from typing import Literal

import msgspec

from alphapack.domain.events import AnyWireEvent, Candle, DepthDiff, DepthSnapshot, FrameError, Ignored, TopOfBook, Trade
from alphapack.domain.market import Verdict, symbol_id
from alphapack.kernels.wire import BINANCE_FUTURES, BINANCE_SPOT, MICROSECONDS_FROM, MILLISECONDS_MAX, TIME_MAX

Market = Literal["spot", "usdm", "coinm"]
NAME_LENGTH_MAX = 40
"""Longest name taken for a symbol; delivery contracts and multiplied tokens stay far below."""
ID_MAX = (1 << 63) - 1
_PARTIAL_DEPTH = re.compile(r"@depth(5|10|20)(@|$)")
"""Streams of the best few levels again and again: no differences, though futures call them depthUpdate."""


class _Kline(msgspec.Struct, rename={"open_ms": "t", "close_ms": "T", "interval": "i", "closed": "x"}):
    open_ms: int
    close_ms: int
    interval: str
    closed: bool
    o: str
    h: str
    l: str  # noqa: E741 - Binance's own letter
    c: str
    v: str


class _Wire(msgspec.Struct, rename={"kind": "e", "event": "E", "trade_time": "T", "name": "s", "first": "U", "last": "u"}):
    """Any market message: field letters are Binance's. Values that need exactness stay raw; unknown keys are ignored."""

    stream: str = ""
    data: "_Wire | None" = None
    kind: str = ""
    event: int = 0
    trade_time: int = 0
    name: str = ""
    first: int = -1
    last: int = -1
    pu: int | None = None
    b: msgspec.Raw = msgspec.Raw(b"")
    a: msgspec.Raw = msgspec.Raw(b"")
    B: msgspec.Raw = msgspec.Raw(b"")
    A: msgspec.Raw = msgspec.Raw(b"")
    t: int = -1
    p: msgspec.Raw = msgspec.Raw(b"")
    q: msgspec.Raw = msgspec.Raw(b"")
    m: bool | None = None
    f: int = -1
    l: int | str = -1  # noqa: E741 - Binance's own letter; an id, or the low of a ticker that is not read
    k: _Kline | None = None
    lastUpdateId: int = -1
    bids: msgspec.Raw = msgspec.Raw(b"")
    asks: msgspec.Raw = msgspec.Raw(b"")
    symbol: str = ""
    result: msgspec.Raw = msgspec.Raw(b"")
    id: msgspec.Raw = msgspec.Raw(b"")
    code: int = 0
    msg: str = ""


class BinanceCodec:
    """One market of Binance; holds only the reusable decoder and the names it has met."""

    def __init__(self, market: Market) -> None:
        self.venue = f"binance-{market}"
        self._market = market
        self.frame_format = BINANCE_SPOT if market == "spot" else BINANCE_FUTURES
        self._decoder = msgspec.json.Decoder(_Wire)
        self._names: dict[str, str] = {}

    def decode(self, payload: bytes, symbol: str) -> tuple[AnyWireEvent, ...]:
        """Return what one message says: one event. ``symbol`` names the book of a REST snapshot, which does not itself."""
        try:
            wire = self._decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FrameError(f"expected a {self.venue} message, found {payload[:60]!r}: {error}") from None
        except RecursionError:
            raise FrameError(f"expected a {self.venue} message, found JSON nested beyond any of them") from None
        stream = wire.stream
        if wire.data is not None:
            wire = wire.data
            if wire.data is not None:
                raise FrameError(f"expected one stream wrapper, found one in another in {stream[:40]!r}")
        if stream and _PARTIAL_DEPTH.search(stream):
            return (Ignored(self.venue, 0, "partial depth"),)
        read = self._readers.get(wire.kind)
        if read is not None:
            return (read(self, wire),)
        return (self._unnamed(wire, symbol, payload),)

    def verdict(self, diff: DepthDiff, last: int, *, first_after_snapshot: bool) -> Verdict:
        """Judge ``diff`` against the last update id of the book by this market's rule (numbers in the module's text)."""
        if self._market == "spot":
            if diff.last <= last:  # 2 and 4
                return Verdict.DUPLICATE
            return Verdict.APPLY if diff.first <= last + 1 else Verdict.GAP  # 3 and 4
        if first_after_snapshot:
            if diff.last < last:  # 2
                return Verdict.DUPLICATE
            return Verdict.APPLY if diff.first <= last or diff.previous == last else Verdict.GAP  # 3
        if diff.last <= last:
            return Verdict.DUPLICATE
        return Verdict.APPLY if diff.previous == last else Verdict.GAP  # 4

    def contract_value(self, symbol: str) -> float | None:
        """COIN-M contracts are worth 100 USD for BTC and 10 USD for every other coin; the rest is linear."""
        if self._market != "coinm":
            return None
        return 100.0 if symbol.startswith("BTCUSD_") else 10.0

    # One reader a kind of message

    def _depth(self, wire: _Wire) -> AnyWireEvent:
        bids, asks = bytes(wire.b), bytes(wire.a)
        if wire.last < 0 or wire.first < 0 or not bids or not asks:
            raise FrameError("expected U, u, b and a in a depthUpdate, found some missing")
        if not wire.first <= wire.last <= ID_MAX or not -1 <= (wire.pu or 0) <= ID_MAX:
            raise FrameError(f"expected U <= u in a depthUpdate, found U {wire.first} u {wire.last}")
        if self._market != "spot" and wire.pu is None:
            raise FrameError(f"expected pu in a {self.venue} depthUpdate, found none")
        return DepthDiff(self._symbol(wire.name), nanos(wire.event), wire.first, wire.last, wire.pu, bids, asks)

    def _trade(self, wire: _Wire) -> AnyWireEvent:
        aggregate = wire.kind == "aggTrade"
        first, last = (wire.f, wire.l) if aggregate else (wire.t, wire.t)
        price, quantity = bytes(wire.p), bytes(wire.q)
        if wire.m is None or first < 0 or not isinstance(last, int) or not first <= last <= ID_MAX or not price or not quantity:
            raise FrameError(f"expected ids, p, q and m in a {wire.kind}, found some missing or out of order")
        time = nanos(wire.trade_time or wire.event)
        return Trade(self._symbol(wire.name), time, first, last, price, quantity, not wire.m, aggregate)

    def _ticker(self, wire: _Wire) -> AnyWireEvent:
        prices = bytes(wire.b), bytes(wire.B), bytes(wire.a), bytes(wire.A)
        if not 0 <= wire.last <= ID_MAX or not all(prices):
            raise FrameError("expected u, b, B, a and A in a bookTicker, found some missing")
        return TopOfBook(self._symbol(wire.name), nanos(wire.event), wire.last, *prices)

    def _kline(self, wire: _Wire) -> AnyWireEvent:
        k = wire.k
        if k is None:
            raise FrameError("expected k in a kline, found none")
        name = self._symbol(wire.name)
        return Candle(name, nanos(wire.event), k.open_ms, k.close_ms, k.interval, k.o, k.h, k.l, k.c, k.v, k.closed)

    _readers = {"depthUpdate": _depth, "trade": _trade, "aggTrade": _trade, "bookTicker": _ticker, "kline": _kline}  # noqa: RUF012

    def _unnamed(self, wire: _Wire, symbol: str, payload: bytes) -> AnyWireEvent:
        """Read a message without a kind of ours: spot bookTicker, REST snapshot, acknowledgement, another stream."""
        if wire.kind:
            return Ignored(self.venue, nanos(wire.event), wire.kind[:40])
        if wire.lastUpdateId >= 0:
            bids, asks = bytes(wire.bids), bytes(wire.asks)
            if not bids or not asks or wire.lastUpdateId > ID_MAX:
                raise FrameError("expected bids and asks beside lastUpdateId, found some missing")
            return DepthSnapshot(self._symbol(wire.symbol or symbol), nanos(wire.event), wire.lastUpdateId, bids, asks)
        if wire.last >= 0 and wire.name:
            return self._ticker(wire)
        if bytes(wire.result) or bytes(wire.id):
            return Ignored(self.venue, 0, "acknowledgement")
        if wire.msg:
            return Ignored(self.venue, 0, f"error {wire.code}: {wire.msg[:80]}")
        raise FrameError(f"expected a {self.venue} market message, found {payload[:60]!r}")

    def _symbol(self, name: str) -> str:
        known = self._names.get(name)
        if known is not None:
            return known
        if not 0 < len(name) <= NAME_LENGTH_MAX or not name.isprintable() or any(c.isspace() or c in ":/?#%" for c in name):
            raise FrameError(f"expected the name of a symbol, found {name[:60]!r}")
        full = symbol_id(self.venue, name)
        if len(self._names) < 10_000:  # Venue bytes are hostile: invented names must not fill the memory.
            self._names[name] = full
        return full


def nanos(time: int) -> int:
    """Return a venue time in nanoseconds, given milliseconds or microseconds (told apart by size); 0 where none was given."""
    if not 0 <= time < TIME_MAX or MILLISECONDS_MAX < time < MICROSECONDS_FROM:
        raise FrameError(f"expected a time in milli- or microseconds since 1970, found {time}")
    return time * 1_000 if time >= MICROSECONDS_FROM else time * 1_000_000


def codecs() -> list[BinanceCodec]:
    """Return a codec for each market."""
    return [BinanceCodec("spot"), BinanceCodec("usdm"), BinanceCodec("coinm")]
