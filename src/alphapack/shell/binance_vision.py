"""Tables of data.binance.vision: trades, aggregated trades, book tickers and klines, as Binance's own messages.

Columns by the venue's description (binance-public-data). Spot tables have one column more than those of futures (whether
the price was the best), and microseconds from 2025 on; futures tables begin with a header since 2022. Numbers are kept as
they stand. The time of receipt is the event's: nothing says when it would have arrived.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from alphapack.shell import tables
from alphapack.shell.tables import DECIMAL, INTEGER, PLAIN, ForeignError, Message, Source, receive_ns, without_exponents

VENUES = ("binance-spot", "binance-usdm", "binance-coinm")
NAMES = "SYMBOL-aggTrades-DATE, SYMBOL-trades-DATE, SYMBOL-bookTicker-DATE or SYMBOL-1m-DATE"

_NAME = re.compile(r"([^-/\\]{1,40})-([A-Za-z]+|\d+(?:s|m|h|d|w|mo))-\d{4}-\d{2}(?:-\d{2})?\.(?:zip|csv)")
_INTERVAL = re.compile(r"\d+[a-z]{1,2}")
_FLAG = rb"([Tt]rue|[Ff]alse)"
_KLINE_FIELDS = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"

Fields = tuple[bytes, ...]
# Rows are millions: parts are joined where each is a message, for a format of bytes is slower.
Build = Callable[[Fields, bytes, bytes], tuple[int, bytes] | None]
"""From a row's fields, the symbol and the interval: time of receipt and payload, or None where the row contradicts itself."""


class _Table(NamedTuple):
    header: str
    fields: tuple[bytes, ...]
    build: Build


def _agg_trade(fields: Fields, name: bytes, _: bytes) -> tuple[int, bytes] | None:
    trade, price, quantity, first, last, time, maker, best = fields
    if first != last and int(first) > int(last):
        return None
    parts = (
        *(b'{"e":"aggTrade","E":', time, b',"s":"', name, b'","a":', trade, b',"p":"', price, b'","q":"', quantity),
        *(b'","f":', first, b',"l":', last, b',"T":', time, b',"m":', maker.lower()),
        b',"M":%b}' % best.lower() if best else b"}",
    )
    return receive_ns(int(time)), b"".join(parts)


def _trade(fields: Fields, name: bytes, _: bytes) -> tuple[int, bytes] | None:
    trade, price, quantity, _quote, time, maker, best = fields
    parts = (
        *(b'{"e":"trade","E":', time, b',"s":"', name, b'","t":', trade, b',"p":"', price, b'","q":"', quantity),
        *(b'","T":', time, b',"m":', maker.lower()),
        b',"M":%b}' % best.lower() if best else b"}",
    )
    return receive_ns(int(time)), b"".join(parts)


def _ticker(fields: Fields, name: bytes, _: bytes) -> tuple[int, bytes] | None:
    update, bid, bid_quantity, ask, ask_quantity, transaction, event = fields
    parts = (
        *(b'{"e":"bookTicker","u":', update, b',"s":"', name, b'","b":"', bid, b'","B":"', bid_quantity, b'","a":"', ask),
        *(b'","A":"', ask_quantity, b'","T":', transaction, b',"E":', event, b"}"),
    )
    return receive_ns(int(event)), b"".join(parts)


def _kline(fields: Fields, name: bytes, interval: bytes) -> tuple[int, bytes] | None:
    """A candle is known once its last millisecond is over: one that came sooner would tell of the future."""
    begin, first, high, low, last, volume, end, quote, count, taker, taker_quote, _ = fields
    begin_ns, end_ns = receive_ns(int(begin)), receive_ns(int(end))
    if not 0 < begin_ns < end_ns:
        return None
    begin_ms, end_ms = begin_ns // 1_000_000, end_ns // 1_000_000
    payload = (
        b'{"e":"kline","E":%d,"s":"%b","k":{"t":%d,"T":%d,"s":"%b","i":"%b","o":"%b","c":"%b","h":"%b","l":"%b","v":"%b",'
        b'"n":%b,"x":true,"q":"%b","V":"%b","Q":"%b"}}'
    ) % (
        *(end_ms + 1, name, begin_ms, end_ms, name, interval, first, last, high, low, volume),
        *(count, quote, taker, taker_quote),
    )
    return (end_ms + 1) * 1_000_000, payload


_BEST = rb"(?:,([Tt]rue|[Ff]alse))?"
_TABLES = {
    "aggTrades": _Table(
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker",
        (INTEGER, DECIMAL, DECIMAL, INTEGER, INTEGER, INTEGER, _FLAG + _BEST),
        _agg_trade,
    ),
    "trades": _Table(
        "id,price,qty,quote_qty,time,is_buyer_maker",
        (INTEGER, DECIMAL, DECIMAL, DECIMAL, INTEGER, _FLAG + _BEST),
        _trade,
    ),
    "bookTicker": _Table(
        "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time",
        (INTEGER, DECIMAL, DECIMAL, DECIMAL, DECIMAL, INTEGER, INTEGER),
        _ticker,
    ),
    "klines": _Table(
        _KLINE_FIELDS,
        (INTEGER, DECIMAL, DECIMAL, DECIMAL, DECIMAL, DECIMAL, INTEGER, DECIMAL, INTEGER, DECIMAL, DECIMAL, rb"([^,]*)"),
        _kline,
    ),
}
_ROWS = {kind: re.compile(b",".join(table.fields) + rb"\r?") for kind, table in _TABLES.items()}
_HEADERS = {table.header: kind for kind, table in _TABLES.items()}
_REFUSED = {
    "bookDepth": "bookDepth tells how much stands within some per cent of the price, which is no order book",
    "metrics": "metrics are no messages of a market-data stream",
    "fundingRate": "funding rates are no messages of a market-data stream that is read here",
    "liquidationSnapshot": "liquidations are no messages of a market-data stream that is read here",
}


class VisionReader:
    """One table."""

    def __init__(self, venue: str, symbol: str, kind: str, interval: str) -> None:
        self.venue = venue
        self._symbol, self._kind, self._interval = symbol, kind, interval

    def messages(self, source: Source) -> Iterator[Message]:
        """Yield a message a row."""
        symbol, file = self._symbol, source.file
        name, interval = symbol.encode(), self._interval.encode()
        match, table = _ROWS[self._kind].fullmatch, _TABLES[self._kind]
        build, in_order = table.build, source.in_order
        for row, line in enumerate(source.lines(), 1):
            found = match(line) or match(without_exponents(line))
            built = build(found.groups(b""), name, interval) if found else None
            if built is None or not built[0]:
                if row > 1 or _kind_of(line) is None:
                    source.refuse(row, f"the columns {table.header}", line)
                continue
            yield in_order(row, built[0]), file, row, symbol, PLAIN, built[1], b""


def open_vision(path: Path, member: str, first: bytes, venue: str | None, symbol: str | None) -> VisionReader | None:
    """Return the reader of a table, by the names of file and member and by its first line; None where it is none of these."""
    named = _NAME.fullmatch(member) or _NAME.fullmatch(path.name)
    kind = _kind_of(first)
    if kind is None and named is not None:
        kind = "klines" if _INTERVAL.fullmatch(named[2]) else named[2]
        if kind in _REFUSED:
            raise ForeignError(f"cannot read {path.name}: {_REFUSED[kind]}")
        if kind in _TABLES and not _ROWS[kind].fullmatch(without_exponents(first)):
            raise ForeignError(f"expected the columns {_TABLES[kind].header} in {path.name}, found {_shown(first)}")
    if kind == "bookDepth":
        raise ForeignError(f"cannot read {path.name}: {_REFUSED[kind]}")
    if kind not in _TABLES:
        return None
    if named is None and symbol is None:
        raise ForeignError(f"expected a name such as BTCUSDT-{kind}-2024-08-08.zip, or --symbols, found {path.name!r}")
    if named is not None and symbol is not None and named[1].upper() != symbol.upper():
        raise ForeignError(f"expected a table of {symbol}, as --symbols says, found {path.name!r}")
    name = tables.named(named[1] if named is not None else symbol or "", path)
    interval = named[2].replace("mo", "M") if named is not None and _INTERVAL.fullmatch(named[2]) else ""
    if kind == "klines" and not interval:
        raise ForeignError(f"expected a name that states the interval, such as BTCUSDT-1m-2024-08.zip, found {path.name!r}")
    return VisionReader(_venue(path, kind, name, first, venue), name, kind, interval)


def _kind_of(header: bytes) -> str | None:
    """Return the kind of table that begins with this header."""
    text = header.strip().decode(errors="replace").removesuffix(",is_best_match").replace("base_qty", "quote_qty")
    return "bookDepth" if text == "timestamp,percentage,depth,notional" else _HEADERS.get(text)


def _venue(path: Path, kind: str, symbol: str, first: bytes, stated: str | None) -> str:
    """Return the venue that the columns or the symbol settle, or the stated one where they leave it open."""
    columns = first.count(b",") + 1
    if kind in ("aggTrades", "trades") and columns == _TABLES[kind].header.count(",") + 2:
        possible: tuple[str, ...] = VENUES[:1]
    elif b"base_qty" in first or symbol.endswith("_PERP"):
        possible = VENUES[2:]
    else:
        possible = VENUES[1:] if kind == "bookTicker" else VENUES
    if stated is None and len(possible) == 1:
        return possible[0]
    if stated not in possible:
        found = "none" if stated is None else stated
        raise ForeignError(f"expected --venue {' or '.join(possible)} for {path.name}, whose rows do not say more, found {found}")
    return stated


def _shown(line: bytes) -> str:
    return repr(line[:160].decode(errors="backslashreplace"))
