"""Binance's addresses, streams, requests and limits: what to ask for, without a connection to ask on.

By the venue's documentation: combined streams at ``/stream``, on USD-M split since 2026-04 into ``/public/stream`` (books and
their tickers) and ``/market/stream`` (trades). Spot serves single trades, futures aggregated ones. A connection may send 5
messages a second on spot and 10 on futures, pings and pongs among them, and is closed after 24 hours. Requests weigh 6,000 a
minute on spot, 2,400 on futures. A server that goes down says ``serverShutdown`` first.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from alphapack.domain.feeds import Acknowledged, Limits, Request, ShuttingDown, Stream, UnknownSymbol
from alphapack.domain.market import BinanceMarket

DEPTH_LIMIT = 1_000
"""Levels a side of a snapshot: the most of futures, and on spot a fifth of the weight of the most."""
KLINES_LIMIT = 1_000
"""Candles a request: the most of spot, and on futures the most candles for the weight."""
MINUTE_MS = 60_000
NOTICE_BYTES_MAX = 65_536
"""Largest frame read as an acknowledgement; what a venue says of 200 streams stays below."""
_PREFIX = b'{"stream":"'
_WEIGHT_HEADER = "X-MBX-USED-WEIGHT-1M"


class _Site(msgspec.Struct, frozen=True):
    ws_url: str
    rest_url: str
    book_path: str
    trade_path: str
    trade: str
    api: str
    limits: Limits


_SITES: dict[BinanceMarket, _Site] = {
    "spot": _Site(
        *("wss://stream.binance.com:9443", "https://api.binance.com", "/stream", "/stream", "trade", "/api/v3"),
        Limits(weight_per_minute=6_000, weight_header=_WEIGHT_HEADER, messages_per_s=5.0),
    ),
    "usdm": _Site(
        *("wss://fstream.binance.com", "https://fapi.binance.com", "/public/stream", "/market/stream", "aggTrade", "/fapi/v1"),
        Limits(weight_per_minute=2_400, weight_header=_WEIGHT_HEADER, messages_per_s=10.0),
    ),
    "coinm": _Site(
        *("wss://dstream.binance.com", "https://dapi.binance.com", "/stream", "/stream", "aggTrade", "/dapi/v1"),
        Limits(weight_per_minute=2_400, weight_header=_WEIGHT_HEADER, messages_per_s=10.0),
    ),
}


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Notice(msgspec.Struct, rename={"kind": "e", "request_id": "id"}):
    stream: str = ""
    kind: str = ""
    request_id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: _Error | None = None
    code: int | None = None
    msg: str = ""


class _Info(msgspec.Struct):
    symbols: list[msgspec.Raw]


class _Named(msgspec.Struct):
    symbol: str


class BinanceApi:
    """One market of Binance as a feed's plan."""

    def __init__(self, market: BinanceMarket, *, depth_limit: int = DEPTH_LIMIT) -> None:
        """Plan for ``market``; ``depth_limit`` is the number of levels a side of a snapshot, one that the venue offers."""
        if not 5 <= depth_limit <= (5_000 if market == "spot" else 1_000):
            raise ValueError(f"expected a depth limit of 5 to {5_000 if market == 'spot' else 1_000}, found {depth_limit}")
        site = _SITES[market]
        self.venue, self.ws_url, self.rest_url, self.limits = f"binance-{market}", site.ws_url, site.rest_url, site.limits
        self._market, self._site, self._depth_limit = market, site, depth_limit
        self._notice = msgspec.json.Decoder(_Notice)

    def streams(self, symbol: str) -> tuple[Stream, ...]:
        """Return depth, ticker and trades of a symbol, and where it pays funding its mark price, which tells the rate."""
        name, site = symbol.lower(), self._site
        streams = (
            Stream(f"{name}@depth@100ms", symbol, site.book_path, steady=True),
            Stream(f"{name}@bookTicker", symbol, site.book_path),
            Stream(f"{name}@{site.trade}", symbol, site.trade_path),
        )
        return streams if self._market == "spot" else (*streams, Stream(f"{name}@markPrice", symbol, site.trade_path, aside=True))

    def subscribe(self, streams: Sequence[Stream], request_id: int) -> str:
        """Return the message that begins the streams."""
        return _control("SUBSCRIBE", streams, request_id)

    def unsubscribe(self, streams: Sequence[Stream], request_id: int) -> str:
        """Return the message that ends the streams."""
        return _control("UNSUBSCRIBE", streams, request_id)

    def stream_of(self, payload: bytes) -> bytes:
        """Return the name in a combined stream's wrapper, empty where the frame does not begin with one."""
        return payload[11 : payload.find(b'"', 11)] if payload.startswith(_PREFIX) else b""

    def notice(self, payload: bytes) -> Acknowledged | ShuttingDown | None:
        """Read an acknowledgement, an error or ``serverShutdown``; None for anything else, hostile bytes among it."""
        if len(payload) > NOTICE_BYTES_MAX:
            return None
        try:
            said = self._notice.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if said.kind == "serverShutdown" or said.stream == "!serverShutdown":
            return ShuttingDown()
        request_id = said.request_id if isinstance(said.request_id, int) else None
        if said.error is not None:
            return Acknowledged(request_id, _shown(said.error.code, said.error.msg))
        if said.code is not None:
            return Acknowledged(request_id, _shown(said.code, said.msg))
        return Acknowledged(request_id) if bytes(said.result) and request_id is not None else None

    def snapshot(self, symbol: str) -> Request:
        """Return the request of the best ``depth_limit`` levels a side."""
        limit = self._depth_limit
        if self._market == "spot":
            weight = 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1_000 else 250
        else:
            weight = 2 if limit <= 50 else 5 if limit <= 100 else 10 if limit <= 500 else 20
        return Request(f"{self._site.api}/depth", (("symbol", symbol), ("limit", str(limit))), weight, b'"lastUpdateId"')

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Iterator[Request]:
        """Yield the requests of the minutes that open in ``[start_ms, end_ms)``: a window of time each, so that they end."""
        if not 0 <= start_ms <= end_ms:
            raise ValueError(f"expected candles from a time to a later one, found {start_ms} to {end_ms} ms")
        return self._pages(symbol, start_ms, end_ms)

    def _pages(self, symbol: str, start_ms: int, end_ms: int) -> Iterator[Request]:
        for at_ms in range(start_ms, end_ms, KLINES_LIMIT * MINUTE_MS):
            until_ms = min(at_ms + KLINES_LIMIT * MINUTE_MS, end_ms)
            limit = -(-(until_ms - at_ms) // MINUTE_MS)
            parameters = {"symbol": symbol, "interval": "1m", "startTime": at_ms, "endTime": until_ms - 1, "limit": limit}
            weight = 2 if self._market == "spot" else 1 if limit < 100 else 2 if limit < 500 else 5
            stated = tuple((key, str(value)) for key, value in parameters.items())
            yield Request(f"{self._site.api}/klines", stated, weight, b"[", bulk=True)

    def listing(self) -> Request:
        """Return the request of ``exchangeInfo``; on spot without the permissions, which are most of it."""
        if self._market == "spot":
            return Request(f"{self._site.api}/exchangeInfo", (("showPermissionSets", "false"),), 20, b'"symbols"')
        return Request(f"{self._site.api}/exchangeInfo", (), 1, b'"symbols"')

    def cut(self, body: bytes, symbols: Iterable[str]) -> bytes:
        """Return ``{"symbols":[...]}`` with these alone, in the order asked for, each as the venue wrote it.

        Raises ``UnknownSymbol`` where one is not listed, ``ValueError`` where the body is no ``exchangeInfo``.
        """
        try:
            listed = msgspec.json.decode(body, type=_Info).symbols
            named = {msgspec.json.decode(one, type=_Named).symbol: bytes(one) for one in listed}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"expected exchangeInfo of {self.venue}, found {body[:60]!r}: {error}") from None
        found = []
        for symbol in symbols:
            if symbol not in named:
                near = difflib.get_close_matches(symbol.upper(), list(named), n=3, cutoff=0.5)
                hint = f"the nearest are {', '.join(near)}" if near else f"it lists {len(named)}, none of them near"
                raise UnknownSymbol(f"expected symbols that {self.venue} lists, found {symbol}: {hint}")
            found.append(named[symbol])
        return b'{"symbols":[' + b",".join(found) + b"]}"


def _control(method: str, streams: Sequence[Stream], request_id: int) -> str:
    return msgspec.json.encode({"method": method, "params": [one.name for one in streams], "id": request_id}).decode()


def _shown(code: int, text: str) -> str:
    return f"{code}: {''.join(c if c.isprintable() else '?' for c in text[:200])}"


def plans() -> list[BinanceApi]:
    """Return the plan of each market."""
    return [BinanceApi("spot"), BinanceApi("usdm"), BinanceApi("coinm")]
