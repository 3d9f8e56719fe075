"""A seeded market of several instruments that speaks Binance's wire format.

Nothing here is asked of the world: equal settings, start, market, history and prices give equal bytes, however the time is
sliced. Of each symbol there is an efficient price with clustered volatility, jumps and a day's rhythm; a book of price levels; and
order flow with memory. The planted edge is a slow pressure of buyers: order signs and the book lean with it whatever ``edge`` is,
and at ``edge`` above 0 the efficient price drifts with it too. ``kernels/simulation.py`` has the model.
"""

import hashlib
import math
from collections.abc import Mapping
from decimal import Decimal
from operator import itemgetter
from typing import NamedTuple

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Int64Array1D, Int64Array2D
from alphapack.domain.market import NANOS_PER_MS, BinanceMarket, Step
from alphapack.domain.simulation import SimulatorSettings
from alphapack.kernels import simulation as k

START_NS_MAX = 1 << 62
HISTORY_MINUTES_MAX = 100_000
MINUTES_AT_ONCE = 1_440
"""Candles made in one call: a kernel keeps the interpreter's lock, which others want meanwhile."""
CANDLES_MAX = 10_000_000
"""Candles kept of all symbols together."""
FLOW_MINUTES_KEPT = 10_080
"""Closed minutes of order flow that stay readable beside the history: a week."""
SNAPSHOT_LEVELS_MAX = 5_000
KLINES_MAX = 50_000
PRICE_TICKS_MIN, PRICE_TICKS_MAX = 1_000, 10**9
ADVANCE_NS_MAX = k.MINUTES_DAY * k.MINUTE_NS
LOG_ROOM = 1 << 18
KLINES_AT_ONCE = LOG_ROOM // k.HEAD
_WHOLE_MASK = (1 << 62) - 1


class Known(NamedTuple):
    """What a coin is like: price in USD, standard deviation of a minute's return in bps, tick and lot of its perpetual."""

    price: float
    minute_bps: float
    tick: str
    lot: str


COINS = {
    "BTC": Known(60_000.0, 4.0, "0.10", "0.001"),
    "ETH": Known(2_500.0, 5.5, "0.01", "0.001"),
    "SOL": Known(150.0, 7.0, "0.0100", "0.01"),
}
SPOT_LOTS = {"BTC": "0.00001", "ETH": "0.0001", "SOL": "0.001"}
QUOTES = ("USDT", "USDC", "FDUSD", "USD")
MIN_NOTIONAL = {"spot": "5.00000000", "usdm": "5"}
FEES = {"spot": ("0.001", "0.001"), "usdm": ("0.0002", "0.0005"), "coinm": ("0.0002", "0.0005")}
"""Maker's and taker's fee, as fractions of what is traded."""
LEVEL_QUOTE, ORDER_QUOTE = 12_000.0, 2_500.0
"""Medians of a limit order and of a market order, in USD."""
COMMON_LOAD = 0.9
"""Correlation with what all symbols share; that of two symbols is its square."""


class Terms(NamedTuple):
    """What a symbol is on its venue; decimals are those of the wire."""

    name: str
    base: str
    quote: str
    price: float
    minute_bps: float
    tick: Step
    price_decimals: int
    lot: Step
    lot_decimals: int
    contract: int

    @property
    def tick_text(self) -> str:
        """The tick as the venue writes it."""
        return _padded(self.tick, self.price_decimals)

    @property
    def lot_text(self) -> str:
        """The lot as the venue writes it."""
        return _padded(self.lot, self.lot_decimals)


class _Symbol:
    """State of one symbol: the kernels' arrays."""

    def __init__(self, terms: Terms, ints: Int64Array1D, reals: Float64Array1D, candles: Int64Array1D, texts: k.Bytes) -> None:
        self.terms, self.ints, self.reals, self.candles, self.texts = terms, ints, reals, candles, texts

    def settle(self) -> None:
        """Draw all that reverts to a mean from where it may be found at any time."""
        shared = [k.normal(int(self.ints[k.COMMON]), k.SHARED_DRAWS * int(self.ints[k.MINUTE]) + k.SETTLED + j) for j in range(3)]
        own = [k.shock(self.ints) for _ in range(9)]
        for j in range(3):
            self.reals[k.SLOW + j] = k.SLOW_SD[j] * (k.SLOW_SHARED * shared[j] + k.SLOW_OWN * own[j])
        self.reals[k.FAST] = k.FAST_SD * own[3]
        self.reals[k.PRESSURE : k.PRESSURE + 5] = own[4:]

    def open_book(self) -> None:
        """Fill both sides around the efficient price; nothing of it counts as an update."""
        self.reals[k.QUOTES_AT] = self.reals[k.FAIR]
        self.reals[k.TILTS : k.TILTS + 2] = 1.0
        floor = int(self.reals[k.FAIR])
        for side, best in ((k.BID, floor), (k.ASK, -floor - 1)):
            self.ints[k.BEST + side], self.ints[k.END + side] = best, best + 1
            k.extend(side, self.ints, self.reals)
            k.put(side, best, k.size(side, k.QUOTE_FACTOR, self.ints, self.reals), self.ints)
        self.ints[k.TOUCHED_N : k.TOUCHED_N + 2] = 0
        self.ints[k.GENERATION] += 1
        self.ints[k.SENT] = self.ints[k.UPDATE]

    def levels(self, side: int, limit: int) -> Int64Array2D:
        """Return prices in ticks and quantities in lots of a side's levels, best first, a row each."""
        keys = np.arange(self.ints[k.BEST + side], self.ints[k.END + side] - 1, -1)
        lots = self.ints[k.QUANTITIES + side * k.WINDOW + (keys & (k.WINDOW - 1))]
        rows: Int64Array2D = np.column_stack((np.abs(keys), lots))[lots > 0][:limit]
        return rows


class Simulator:
    """A market of one venue's kind, from ``start_ns`` on.

    Parameters
    ----------
    settings : SimulatorSettings
    start_ns : int
        Where the order flow that is handed out begins, nanoseconds since 1970.
    market : "spot", "usdm" or "coinm"
        Whose wire format is spoken. Names of COIN-M end in ``_PERP`` and no others do.
    history_minutes : int
        Whole minutes of candles before the minute of ``start_ns``.
    prices : Mapping[str, float]
        Prices at which symbols begin; others begin at their own.

    Raises
    ------
    ValueError
        Where an argument is out of its range.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        start_ns: int,
        *,
        market: BinanceMarket = "usdm",
        history_minutes: int = 0,
        prices: Mapping[str, float] | None = None,
    ) -> None:
        if market not in FEES:
            raise ValueError(f"expected one of the markets {', '.join(FEES)}, found {market!r}")
        if not 0 <= history_minutes <= HISTORY_MINUTES_MAX:
            raise ValueError(f"expected 0 to {HISTORY_MINUTES_MAX} minutes of history, found {history_minutes}")
        if not history_minutes * k.MINUTE_NS <= start_ns < START_NS_MAX:
            raise ValueError(f"expected a start from the end of {history_minutes} minutes after 1970 on, found {start_ns} ns")
        rows = history_minutes + FLOW_MINUTES_KEPT
        if rows * len(settings.symbols) > CANDLES_MAX:
            raise ValueError(f"expected at most {CANDLES_MAX} candles to keep, found {rows} for each of {len(settings.symbols)} symbols")
        unknown = sorted(set(prices or ()) - set(settings.symbols))
        if unknown:
            raise ValueError(f"expected prices of the symbols followed, found one of {unknown[0][:60]!r}")
        self.settings, self.market = settings, market
        minute = start_ns // k.MINUTE_NS
        self.now_ns = minute * k.MINUTE_NS
        self._log: Int64Array1D = np.zeros(k.LOG_STEP_MAX + LOG_ROOM, np.int64)
        self._out: k.Bytes = np.zeros(len(self._log) * k.WORD_BYTES_MAX, np.uint8)
        self._frames: Int64Array1D = np.zeros(2 * len(self._log) // k.HEAD, np.int64)
        self._symbols: dict[str, _Symbol] = {}
        for name in settings.symbols:
            terms = terms_of(name, market)
            price = (prices or {}).get(name, terms.price)
            one = _opened(settings, terms, market, price, minute - history_minutes, rows, start_ns)
            for made in range(0, history_minutes, MINUTES_AT_ONCE):
                k.history(min(MINUTES_AT_ONCE, history_minutes - made), one.ints, one.reals, one.candles)
            one.ints[k.STEP] = minute * k.STEPS_MINUTE
            one.open_book()
            self._symbols[name] = one
        self.advance(start_ns)

    def advance(self, until_ns: int) -> list[tuple[int, bytes]]:
        """Return what is sent after ``now_ns`` and up to ``until_ns``, in order of time; ``now_ns`` becomes ``until_ns``.

        All of it is made at once: an hour of three symbols is about 60 MB. A day is the most.
        """
        if not self.now_ns <= until_ns <= self.now_ns + ADVANCE_NS_MAX:
            raise ValueError(f"expected a time from {self.now_ns} ns to a day later, found {until_ns}")
        sent: list[tuple[int, bytes]] = []
        for one in self._symbols.values():
            done = False
            while not done:
                done = k.flow(until_ns, one.ints, one.reals, self._log, one.candles)
                n = int(one.ints[k.RECORDS])
                raw = self._written(one, n)
                ends = self._frames[1 : 2 * n : 2].tolist()
                sent.extend(zip(self._frames[0 : 2 * n : 2].tolist(), map(raw.__getitem__, map(slice, [0, *ends[:-1]], ends)), strict=True))
        sent.sort(key=itemgetter(0))  # Stable: what one symbol sends at one instant stays in its order.
        self.now_ns = until_ns
        return sent

    def snapshot(self, symbol: str, limit: int = 1_000) -> bytes:
        """Return the body of the REST depth snapshot as of ``now_ns``, ``limit`` levels a side at most."""
        if not 1 <= limit <= SNAPSHOT_LEVELS_MAX:
            raise ValueError(f"expected a limit from 1 to {SNAPSHOT_LEVELS_MAX}, found {limit}")
        one = self._one(symbol)
        sides = [one.levels(side, limit) for side in (k.BID, k.ASK)]
        pairs = np.concatenate(sides)
        log = self._log
        log[: k.HEAD] = 0
        log[k.TEXT], log[k.AT_NS], log[k.SLOTS + k.LAST_ID] = k.SNAPSHOT_TEXT, self.now_ns, one.ints[k.UPDATE]
        log[k.LISTED : k.LISTED + 2] = list(map(len, sides))
        log[k.HEAD : k.HEAD + pairs.size] = pairs.ravel()
        return self._written(one, 1)

    def klines(self, symbol: str, start_ms: int, end_ms: int, limit: int) -> bytes:
        """Return the body of REST 1-minute klines: the first ``limit`` closed minutes that open from ``start_ms`` to ``end_ms``."""
        if not 1 <= limit <= KLINES_MAX:
            raise ValueError(f"expected a limit from 1 to {KLINES_MAX}, found {limit}")
        one = self._one(symbol)
        minute_ms = k.MINUTE_NS // NANOS_PER_MS
        oldest = max(int(one.ints[k.FIRST_MINUTE]), int(one.ints[k.MINUTE]) - len(one.candles) // k.CANDLE_WIDTH)
        first = max(oldest, -(-start_ms // minute_ms))
        n = min(limit, end_ms // minute_ms + 1 - first, int(one.ints[k.MINUTE]) - first)
        texts = []
        for minute in range(first, first + n, KLINES_AT_ONCE):
            minutes = np.arange(minute, min(minute + KLINES_AT_ONCE, first + n))
            rows = one.candles.reshape(-1, k.CANDLE_WIDTH)[(minutes - one.ints[k.FIRST_MINUTE]) % (len(one.candles) // k.CANDLE_WIDTH)]
            records = self._log[: len(minutes) * k.HEAD].reshape(-1, k.HEAD)
            records[:] = 0
            records[:, k.TEXT], records[:, k.AT_NS] = k.CANDLE_TEXT, minutes * k.MINUTE_NS
            values = records[:, k.SLOTS :]
            values[:, k.TRADES_N] = rows[:, k.COUNT]
            values[:, k.PRICES : k.PRICES + 4] = rows[:, k.OPEN : k.CLOSE + 1]
            values[:, k.QUANTITY : k.QUANTITY + 2] = rows[:, [k.LOTS, k.BOUGHT]]
            values[:, k.WORTHS : k.WORTHS + 2] = rows[:, [k.WORTH, k.BOUGHT_WORTH]]
            texts.append(self._written(one, len(minutes)))
        return b"[" + b"".join(texts)[:-1] + b"]"

    def exchange_info(self) -> bytes:
        """Return the body of REST exchangeInfo: what the symbols are, and their fees as fractions."""
        symbols = [_described(one.terms, self.market) for one in self._symbols.values()]
        body = {"timezone": "UTC", "serverTime": self.now_ns // NANOS_PER_MS, "rateLimits": [], "exchangeFilters": [], "symbols": symbols}
        return msgspec.json.encode(body)

    def levels(self, symbol: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return the whole book as of ``now_ns``: bids and asks, best first, as prices in ticks and quantities in lots."""
        one = self._one(symbol)
        bids, asks = ([(price, lots) for price, lots in one.levels(side, k.WINDOW).tolist()] for side in (k.BID, k.ASK))
        return bids, asks

    def terms(self, symbol: str) -> Terms:
        """Return what a symbol is: tick, lot and the like."""
        return self._one(symbol).terms

    def _written(self, one: _Symbol, records: int) -> bytes:
        """Return the first records of the log on the wire; ``_frames`` has their times and ends."""
        return self._out[: k.write(records, self._log, one.ints, one.texts, self._out, self._frames)].tobytes()

    def _one(self, symbol: str) -> _Symbol:
        one = self._symbols.get(symbol)
        if one is None:
            raise ValueError(f"expected one of {', '.join(self._symbols)}, found {symbol[:60]!r}")
        return one


def terms_of(name: str, market: BinanceMarket) -> Terms:
    """Return what a symbol of a market is; one that is not known is given terms by its name, always the same."""
    if (market == "coinm") != name.endswith("_PERP"):
        wanted = "a perpetual of COIN-M such as BTCUSD_PERP" if market == "coinm" else "a symbol such as BTCUSDT"
        raise ValueError(f"expected {wanted}, found {name}")
    pair = name.removesuffix("_PERP")
    quote = next((one for one in QUOTES if pair.endswith(one) and len(pair) > len(one)), "USDT" if market != "coinm" else "USD")
    base = pair.removesuffix(quote) or pair
    known = COINS.get(base) or _drawn(base)
    tick_text, lot_text = known.tick, known.lot
    contract = 0
    if market == "spot":
        lot_text = SPOT_LOTS.get(base, known.lot)
    elif market == "coinm":
        contract = 100 if base == "BTC" else 10
        tick_text, lot_text = "0.1" if base == "BTC" else known.tick, "1"
    tick, lot = Step.parse(tick_text), Step.parse(lot_text)
    if market == "spot":
        return Terms(name, base, quote, known.price, known.minute_bps, tick, 8, lot, 8, contract)
    decimals = (len(tick_text.partition(".")[2]), len(lot_text.partition(".")[2]))
    return Terms(name, base, quote, known.price, known.minute_bps, tick, decimals[0], lot, decimals[1], contract)


def _drawn(base: str) -> Known:
    """Return what a coin is like that nobody has described: by its name."""
    draw = hashlib.blake2b(base.encode(), digest_size=8).digest()
    price = 10.0 ** (-1.0 + 3.5 * int.from_bytes(draw[:4], "little") / 2**32)
    decimals = 4 - math.floor(math.log10(price))  # A tick of .1 to 1 bps.
    lot_decimals = max(0, min(4, math.floor(math.log10(price)) + 1))
    tick = str(Decimal(1).scaleb(-decimals))
    lot = str(Decimal(1).scaleb(-lot_decimals))
    return Known(float(f"{price:.3g}"), 6.0 + 6.0 * draw[4] / 255, tick, lot)


def _opened(
    settings: SimulatorSettings, terms: Terms, market: BinanceMarket, price: float, minute: int, rows: int, start_ns: int
) -> _Symbol:
    """Return a symbol at its first minute."""
    tick, lot = terms.tick, terms.lot
    ticks = price / float(tick.size) if math.isfinite(price) else math.nan
    if not PRICE_TICKS_MIN <= ticks <= PRICE_TICKS_MAX:
        low, high = float(tick.size * PRICE_TICKS_MIN), float(tick.size * PRICE_TICKS_MAX)
        raise ValueError(f"expected a price of {terms.name} from {low:g} to {high:g}, found {price}")
    ints: Int64Array1D = np.zeros(k.INTS, np.int64)
    reals: Float64Array1D = np.zeros(k.REALS)
    candles: Int64Array1D = np.zeros(rows * k.CANDLE_WIDTH, np.int64)
    # A session's own draws are its own: a market that is begun anew must not repeat what it did the last time.
    ints[k.KEY], ints[k.CLOCK] = _key(settings.seed, f"own {terms.name} {start_ns}"), _key(settings.seed, f"clock {terms.name}")
    ints[k.COMMON], ints[k.COMMON_STEPS] = _key(settings.seed, "minutes"), _key(settings.seed, "steps")
    ints[k.MINUTE] = ints[k.FIRST_MINUTE] = minute
    ints[k.DEPTH_STEPS] = settings.depth_ms * NANOS_PER_MS // k.STEP_NS
    ints[k.UPDATE] = ints[k.TRADE] = start_ns // 1_000  # A later session's ids lie above an earlier one's.
    ints[k.GENERATION] = 1
    ints[k.CANDLE : k.CANDLE + k.CLOSE + 1] = round(ticks)
    ints[k.PRICE_UNITS : k.WORTH_DECIMALS + 1] = _units(terms)
    reals[k.FAIR] = ticks
    reals[k.BASE_SIGMA] = terms.minute_bps * 1e-4 / math.sqrt(60.0)
    reals[k.EDGE], reals[k.ACTIVITY] = settings.edge, settings.activity
    reals[k.COMMON_LOAD], reals[k.OWN_LOAD] = COMMON_LOAD, math.sqrt(1.0 - COMMON_LOAD**2)
    lot_quote = float(terms.contract) if terms.contract else price * float(lot.size)
    reals[k.LEVEL_LOTS], reals[k.ORDER_LOTS] = LEVEL_QUOTE / lot_quote, ORDER_QUOTE / lot_quote
    half = k.ORDER_SD * math.sqrt(0.75)  # The mean of exp(ORDER_SD z), z the sum of four uniform numbers of variance 1/4.
    reals[k.ORDER_LOTS_MEAN] = reals[k.ORDER_LOTS] * (math.sinh(half) / half) ** 4
    if terms.contract:
        reals[k.INVERSE] = terms.contract * 1e8 / float(tick.size)
    texts = _texts(terms, market, settings.depth_ms)
    ends = np.cumsum([0, *map(len, texts)])
    for i in range(len(texts)):
        ints[k.TEXTS + 2 * i : k.TEXTS + 2 * i + 2] = ends[i : i + 2]
    one = _Symbol(terms, ints, reals, candles, np.frombuffer(b"".join(texts), np.uint8))
    one.settle()
    return one


def _units(terms: Terms) -> tuple[int, int, int, int, int, int]:
    """Return units and decimals on the wire of a tick, of a lot, and of their product (or of 1e-8 coins)."""
    tick, lot = terms.tick, terms.lot
    price = tick.units * 10 ** (terms.price_decimals - tick.decimals), terms.price_decimals
    quantity = lot.units * 10 ** (terms.lot_decimals - lot.decimals), terms.lot_decimals
    if terms.contract:
        return *price, *quantity, 1, 8
    return *price, *quantity, tick.units * lot.units, tick.decimals + lot.decimals


def _padded(step: Step, decimals: int) -> str:
    return f"{Decimal(step.units).scaleb(-step.decimals):.{decimals}f}"


def _key(seed: int, stream: str) -> int:
    """Return the key of a stream of chance."""
    digest = hashlib.blake2b(f"{seed}\0{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & _WHOLE_MASK


def _slot(number: int) -> bytes:
    return bytes([k.SLOT + number])


def _texts(terms: Terms, market: BinanceMarket, depth_ms: int) -> list[bytes]:
    """Return the market's messages with slots where values stand, in the order of the kernels."""
    name, stream = terms.name.encode(), terms.name.lower().encode()
    ms, first, last, previous = _slot(k.MS), _slot(k.FIRST_ID), _slot(k.LAST_ID), _slot(k.PREVIOUS_ID)
    price, price_2, quantity, quantity_2 = _slot(k.PRICES), _slot(k.PRICES + 1), _slot(k.QUANTITY), _slot(k.QUANTITY + 1)
    bids, asks = _slot(k.SIDES), _slot(k.SIDES + 1)
    pair = terms.name.removesuffix("_PERP").encode()
    futures, paired = market != "spot", b'"ps":"%b",' % pair if market == "coinm" else b""

    def wrapped(kind: bytes, data: bytes) -> bytes:
        return b'{"stream":"%b@%b","data":{%b}}' % (stream, kind, data)

    matched = b'"T":%b,' % ms if futures else b""
    chained = b'"pu":%b,' % previous if futures else b""
    depth = b'"e":"depthUpdate","E":%b,%b"s":"%b",%b"U":%b,"u":%b,%b"b":[%b],"a":[%b]'
    depth %= ms, matched, name, paired, first, last, chained, bids, asks
    quotes = b'"b":"%b","B":"%b","a":"%b","A":"%b"' % (price, quantity, price_2, quantity_2)
    if market == "spot":
        ticker = b'"u":%b,"s":"%b",%b' % (last, name, quotes)
    elif market == "usdm":
        ticker = b'"e":"bookTicker","u":%b,"s":"%b",%b,"T":%b,"E":%b' % (last, name, quotes, ms, ms)
    else:
        ticker = b'"u":%b,"e":"bookTicker","s":"%b",%b%b,"T":%b,"E":%b' % (last, name, paired, quotes, ms, ms)

    def trade(maker: bytes) -> bytes:
        deal = b'"t":%b,"p":"%b","q":"%b"' % (first, price, quantity)
        if futures:
            return b'"e":"trade","E":%b,"T":%b,"s":"%b",%b,"X":"MARKET","m":%b' % (ms, ms, name, deal, maker)
        return b'"e":"trade","E":%b,"s":"%b",%b,"T":%b,"m":%b,"M":true' % (ms, name, deal, ms, maker)

    prices = b",".join(b'"%b"' % _slot(k.PRICES + i) for i in range(4))
    candle = b'[%b,%b,"%b",%b,"%b",%b,"%b","%b","0"],'
    candle %= ms, prices, quantity, _slot(k.MS_END), _slot(k.WORTHS), _slot(k.TRADES_N), quantity_2, _slot(k.WORTHS + 1)
    stamped = b'"E":%b,"T":%b,' % (ms, ms) if futures else b""
    named = b'"symbol":"%b","pair":"%b",' % (name, pair) if market == "coinm" else b""
    book = b'{"lastUpdateId":%b,%b%b"bids":[%b],"asks":[%b]}' % (last, stamped, named, bids, asks)
    return [
        wrapped(b"depth@%dms" % depth_ms, depth),
        wrapped(b"bookTicker", ticker),
        wrapped(b"trade", trade(b"true")),
        wrapped(b"trade", trade(b"false")),
        candle,
        book,
    ]


def _described(terms: Terms, market: BinanceMarket) -> dict[str, object]:
    """Return a symbol's entry of exchangeInfo."""
    maker, taker = FEES[market]
    common: dict[str, object] = {"symbol": terms.name, "status": "TRADING", "baseAsset": terms.base, "quoteAsset": terms.quote}
    fees: dict[str, object] = {"makerCommission": maker, "takerCommission": taker}
    low, high = _padded(terms.tick, terms.price_decimals), "1000000"
    filters: list[dict[str, object]] = [
        {"filterType": "PRICE_FILTER", "minPrice": low, "maxPrice": high, "tickSize": terms.tick_text},
        {"filterType": "LOT_SIZE", "minQty": terms.lot_text, "maxQty": "1000000", "stepSize": terms.lot_text},
    ]
    if market == "spot":
        filters.append({"filterType": "NOTIONAL", "minNotional": MIN_NOTIONAL[market], "applyMinToMarket": True, "avgPriceMins": 5})
        return common | {"orderTypes": ["LIMIT", "MARKET"], "isSpotTradingAllowed": True} | fees | {"filters": filters}
    futures: dict[str, object] = {
        "pair": terms.name.removesuffix("_PERP"),
        "contractType": "PERPETUAL",
        "marginAsset": terms.base if market == "coinm" else terms.quote,
        "pricePrecision": terms.price_decimals,
        "quantityPrecision": terms.lot_decimals,
    }
    if market == "coinm":
        del common["status"]
        futures |= {"contractStatus": "TRADING", "contractSize": terms.contract}
    else:
        filters.append({"filterType": "MIN_NOTIONAL", "notional": MIN_NOTIONAL[market]})
    return common | futures | fees | {"filters": filters}


def warm() -> None:
    """Load or compile what a simulator calls, in seconds that its first steps would otherwise take."""
    Simulator(SimulatorSettings(symbols=("BTCUSDT",)), k.MINUTE_NS + NANOS_PER_MS, history_minutes=1).snapshot("BTCUSDT")
