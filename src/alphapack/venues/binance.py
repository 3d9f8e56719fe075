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

import math
import re
from typing import Any

import msgspec

from alphapack.domain.events import (
    AnyWireEvent,
    Candle,
    Candles,
    DepthDiff,
    DepthSnapshot,
    FrameError,
    FundingRate,
    Ignored,
    Listing,
    TopOfBook,
    Trade,
)
from alphapack.domain.inputs import FEE_BPS_MAX
from alphapack.domain.market import NAME_WITHIN, SIMULATOR, BinanceMarket, Step, Verdict, symbol_id
from alphapack.kernels.wire import BINANCE_FUTURES, BINANCE_SPOT, MICROSECONDS_FROM, MILLISECONDS_MAX, TIME_MAX

_DECIMAL = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,18})?")
_QUOTED = re.compile(rb'"[0-9]{1,12}(\.[0-9]{1,18})?"')
_NAME = re.compile(rb'"s":"([^"]{1,40})"')
NAME_LENGTH_MAX = 40
"""Longest name taken for a symbol; delivery contracts and multiplied tokens stay far below."""
ID_MAX = (1 << 63) - 1
CANDLES_MAX = 1_500
"""Candles of one REST answer, by the venue's documentation."""
LISTINGS_MAX = 10_000
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
    r: str | None = None
    f: int = -1
    l: int | str = -1  # noqa: E741 - Binance's own letter; an id, or the low of a ticker that is not read
    k: _Kline | None = None
    lastUpdateId: int = -1
    bids: msgspec.Raw = msgspec.Raw(b"")
    asks: msgspec.Raw = msgspec.Raw(b"")
    symbols: msgspec.Raw = msgspec.Raw(b"")
    symbol: str = ""
    result: msgspec.Raw = msgspec.Raw(b"")
    id: msgspec.Raw = msgspec.Raw(b"")
    code: int = 0
    msg: str = ""


class _Filter(msgspec.Struct, rename={"kind": "filterType", "tick": "tickSize", "lot": "stepSize", "least": "minNotional"}):
    kind: str
    tick: str | None = None
    lot: str | None = None
    least: str | None = None
    notional: str | None = None


class _Listed(msgspec.Struct, rename={"contract": "contractSize", "maker": "makerCommission", "taker": "takerCommission"}):
    symbol: str
    filters: list[_Filter] = []
    contract: float | None = None
    maker: str | None = None
    taker: str | None = None


class _Info(msgspec.Struct):
    symbols: list[_Listed]


_id_decoder = msgspec.json.Decoder(int)
_Row = tuple[int, str, str, str, str, str, int, Any, Any, Any, Any, Any]
"""A REST candle: opening time, open, high, low, close, volume, closing time, and what is not read."""


class BinanceCodec:
    """One market of Binance; holds only the reusable decoder and the names it has met."""

    def __init__(self, market: BinanceMarket, venue: str | None = None) -> None:
        """Read the wire of ``market``; ``venue`` names another source that speaks it."""
        self.venue = venue or f"binance-{market}"
        self._market = market
        self.spot = market == "spot"
        self.frame_format = BINANCE_SPOT if market == "spot" else BINANCE_FUTURES
        self._decoder = msgspec.json.Decoder(_Wire)
        self._info_decoder = msgspec.json.Decoder(_Info)
        self._rows_decoder = msgspec.json.Decoder(list[_Row])
        self._names: dict[str, str] = {}

    def decode(self, payload: bytes, symbol: str) -> tuple[AnyWireEvent, ...]:
        """Return what one message says: one event, or the listings of many instruments.

        ``symbol`` names what a REST answer is about, where that does not name itself.
        """
        if payload[:1] == b"[":
            return (self._candles(payload, symbol),)
        wire: _Wire = self._decoded(self._decoder, payload)
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
        if bytes(wire.symbols):
            return self._listings(payload)
        return (self._unnamed(wire, symbol, payload),)

    def glance(self, payload: bytes) -> tuple[str, bool]:
        """Look at the first bytes: the name behind ``"s"``, and whether ``bookTicker`` stands there or, on spot, ``u`` comes first."""
        found = _NAME.search(payload, 0, NAME_WITHIN)
        ticker = payload.find(b"bookTicker", 0, NAME_WITHIN) >= 0 or payload.startswith(b'{"u":')
        return (found[1].decode(errors="replace") if found is not None else ""), ticker

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
        aggregate_id = self._decoded(_id_decoder, bytes(wire.a) or b"-1") if aggregate else -1
        price, quantity = bytes(wire.p), bytes(wire.q)
        if aggregate and not 0 <= aggregate_id < ID_MAX:
            raise FrameError(f"expected the id of an aggregate below {ID_MAX}, found a {bytes(wire.a)[:40]!r}")
        if wire.m is None or first < 0 or not isinstance(last, int) or not first <= last <= ID_MAX or not price or not quantity:
            raise FrameError(f"expected ids, p, q and m in a {wire.kind}, found some missing or out of order")
        time = nanos(wire.trade_time or wire.event)
        return Trade(self._symbol(wire.name), time, first, last, price, quantity, not wire.m, aggregate_id)

    def _ticker(self, wire: _Wire) -> AnyWireEvent:
        prices = bytes(wire.b), bytes(wire.B), bytes(wire.a), bytes(wire.A)
        if not 0 <= wire.last <= ID_MAX or not all(prices):
            raise FrameError("expected u, b, B, a and A in a bookTicker, found some missing")
        return TopOfBook(self._symbol(wire.name), nanos(wire.event), wire.last, *prices)

    def _mark(self, wire: _Wire) -> AnyWireEvent:
        """Read a markPriceUpdate; of delivery contracts, which pay no funding, the rate is empty."""
        mark, rate = bytes(wire.p), wire.r
        if rate == "" or (rate is not None and wire.trade_time == 0):
            return Ignored(self._symbol(wire.name), nanos(wire.event), "a mark price without funding")
        if rate is None or not _DECIMAL.fullmatch(rate) or not _QUOTED.fullmatch(mark) or wire.event <= 0:
            raise FrameError(f"expected E, p, r and T in a markPriceUpdate, found p {mark[:40]!r}, r {(rate or '')[:40]!r}, E {wire.event}")
        next_ms = nanos(wire.trade_time) // 1_000_000
        return FundingRate(self._symbol(wire.name), nanos(wire.event), mark[1:-1].decode(), rate, next_ms)

    def _kline(self, wire: _Wire) -> AnyWireEvent:
        k = wire.k
        if k is None:
            raise FrameError("expected k in a kline, found none")
        name = self._symbol(wire.name)
        for time in (k.open_ms, k.close_ms):
            nanos(time)
        return Candle(name, nanos(wire.event), k.open_ms, k.close_ms, k.interval, k.o, k.h, k.l, k.c, k.v, k.closed)

    _readers = {  # noqa: RUF012
        "depthUpdate": _depth,
        "trade": _trade,
        "aggTrade": _trade,
        "bookTicker": _ticker,
        "kline": _kline,
        "markPriceUpdate": _mark,
    }

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

    # REST answers

    def _candles(self, payload: bytes, symbol: str) -> AnyWireEvent:
        rows: list[_Row] = self._decoded(self._rows_decoder, payload)
        if not rows:
            return Ignored(self._symbol(symbol), 0, "no candles")
        if len(rows) > CANDLES_MAX:
            raise FrameError(f"expected at most {CANDLES_MAX} candles, found {len(rows)}")
        interval_ms = rows[0][6] + 1 - rows[0][0]
        for row in rows:
            nanos(row[0])
            if row[6] + 1 - row[0] != interval_ms:
                raise FrameError(f"expected candles of {interval_ms} ms, found one of {row[6] + 1 - row[0]}")
        if not 0 < interval_ms <= 31 * 86_400_000:
            raise FrameError(f"expected candles of a minute to a month, found {interval_ms} ms")
        return Candles(self._symbol(symbol), 0, interval_ms, tuple(row[:6] for row in rows))

    def _listings(self, payload: bytes) -> tuple[Listing, ...]:
        info: _Info = self._decoded(self._info_decoder, payload)
        if len(info.symbols) > LISTINGS_MAX:
            raise FrameError(f"expected at most {LISTINGS_MAX} instruments, found {len(info.symbols)}")
        return tuple(self._listing(one) for one in info.symbols)

    def _listing(self, one: _Listed) -> Listing:
        said = {name: value for entry in one.filters for name, value in _stated(entry) if value is not None}
        return Listing(
            self._symbol(one.symbol),
            0,
            tick=said.get("tick"),
            lot=said.get("lot"),
            min_notional=_number(said.get("least")),
            contract_value=one.contract if self._market == "coinm" and one.contract is not None and 0 < one.contract < 1e12 else None,
            maker_fee_bps=_basis_points(one.maker),
            taker_fee_bps=_basis_points(one.taker),
        )

    def _decoded(self, decoder: "msgspec.json.Decoder[Any]", payload: bytes) -> Any:
        try:
            return decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FrameError(f"expected a {self.venue} message, found {payload[:60]!r}: {error}") from None
        except RecursionError:
            raise FrameError(f"expected a {self.venue} message, found JSON nested beyond any of them") from None

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


def _stated(entry: _Filter) -> list[tuple[str, str | None]]:
    """Return what one filter of an instrument says."""
    if entry.kind == "PRICE_FILTER":
        return [("tick", _step(entry.tick))]
    if entry.kind == "LOT_SIZE":
        return [("lot", _step(entry.lot))]
    if entry.kind in ("NOTIONAL", "MIN_NOTIONAL"):
        return [("least", entry.notional if entry.notional is not None else entry.least)]
    return []


def _step(text: str | None) -> str | None:
    """Return a step without trailing zeros; None where the venue states none (as a step of zero it does)."""
    if text is None:
        return None
    try:
        return str(Step.parse(text))
    except ValueError:
        if _number(text) == 0:
            return None
        raise FrameError(f"expected a step such as '0.01', found {text[:40]!r}") from None


def _number(text: str | None) -> float | None:
    """Return a plain number that is not below zero."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise FrameError(f"expected a number of zero or more, found {text[:40]!r}")
    return number


def _basis_points(text: str | None) -> float | None:
    """Return a commission, stated as a fraction, in basis points; a rebate is below zero."""
    if text is None:
        return None
    fee = (_number(text.removeprefix("-")) or 0.0) * 1e4
    if fee > FEE_BPS_MAX:
        raise FrameError(f"expected a commission below {FEE_BPS_MAX / 1e4}, found {text[:40]!r}")
    return round(-fee if text.startswith("-") else fee, 9)


def nanos(time: int) -> int:
    """Return a venue time in nanoseconds, given milliseconds or microseconds (told apart by size); 0 where none was given."""
    if not 0 <= time < TIME_MAX or MILLISECONDS_MAX < time < MICROSECONDS_FROM:
        raise FrameError(f"expected a time in milli- or microseconds since 1970, found {time}")
    return time * 1_000 if time >= MICROSECONDS_FROM else time * 1_000_000


def codecs() -> list[BinanceCodec]:
    """Return a codec for each market, and one for the simulator, which speaks as USD-M does."""
    return [BinanceCodec("spot"), BinanceCodec("usdm"), BinanceCodec("coinm"), BinanceCodec("usdm", SIMULATOR)]
