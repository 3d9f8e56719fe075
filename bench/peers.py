"""Other projects on the same recorded messages, each behind one small function.

A side takes the messages (``Real``), prepares what its project would have at hand by then, and times the rest alone. The
work is W: best bid and ask, spread and top-5 imbalance after every message; the sums over all messages tell whether two sides
did the same. Nothing of this is imported by the package, and a peer that is not installed is only said to be missing:
``requirements/peers.txt`` locks them all for one environment.
"""

import asyncio
import gc
import gzip
import importlib.metadata
import itertools
import logging
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
import numpy as np
from report import USDM, Row, median

clock = time.thread_time
"""Time of the processor for this thread: no side waits or has helpers, and what else the machine does is left out."""
RUNS = 5
TICK, LOT = "0.1", "0.001"
TICKS, LOTS = 10, 1_000
"""In a unit of price, and of quantity."""
PRICES = (50_000.0, 75_000.0)
"""Range of interest, which hftbacktest wants to know; it drops what lies outside."""
TOP = 5
BID, ASK, TRADE = 0, 1, 2
"""Sides of a structured event."""
SLOW = 2_000
"""Messages for a side that would take a minute over all of them."""
CRYPTOFEED_PAIR, CCXT_PAIR = "BTC-USDT-PERP", "BTC/USDT:USDT"

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]


# The messages


class Levels(msgspec.Struct):
    """What is read of a message here: letters are the venue's."""

    u: int = 0
    pu: int = 0
    b: list[tuple[Decimal, Decimal]] = []
    a: list[tuple[Decimal, Decimal]] = []
    p: Decimal = Decimal(0)
    q: Decimal = Decimal(0)
    m: bool = False


class Wrapped(msgspec.Struct):
    data: Levels


class Rest(msgspec.Struct):
    last: int = msgspec.field(name="lastUpdateId")
    bids: list[tuple[Decimal, Decimal]]
    asks: list[tuple[Decimal, Decimal]]


@dataclass(frozen=True, eq=False)
class Real:
    """Depth and trade messages of the USD-M capture after alignment with its snapshot, raw and as structured events.

    ``frames`` and ``stamps_ns`` are one a message. Message i is the events ``starts[i]:starts[i + 1]`` of ``sides`` (``BID``,
    ``ASK``, ``TRADE``), ``keys`` (+ticks of a bid, -ticks of an ask; a trade has the key of what it took) and ``lots``. ``book``
    is the snapshot: keys and lots of its bids, then of its asks, ascending; ``update`` is its id, and ``previous`` the id that the
    first difference names as the one before it.
    """

    snapshot: bytes
    update: int
    previous: int
    frames: list[bytes]
    stamps_ns: Ints
    is_depth: Bools
    starts: Ints
    sides: Ints
    keys: Ints
    lots: Ints
    book: tuple[Ints, Ints, Ints, Ints]

    @property
    def events(self) -> int:
        return len(self.keys)

    def raw_pairs(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return the snapshot's bids and asks as sent."""
        rest = msgspec.json.decode(self.snapshot)
        return rest["bids"], rest["asks"]


@cache
def real() -> Real:
    """Read the capture; times begin at the snapshot's, for what a live book takes in one after the other."""
    entries = []
    with gzip.open(USDM) as lines:
        for line in lines:
            stamp, _, payload = line.rstrip(b"\n").partition(b" ")
            if b"@bookTicker" not in payload[:64]:
                entries.append((int(stamp), payload))
    at = next(i for i, (_, payload) in enumerate(entries) if payload.startswith(b'{"lastUpdateId"'))
    snapshot_ns, snapshot = entries.pop(at)
    rest, decoder = msgspec.json.decode(snapshot, type=Rest), msgspec.json.Decoder(Wrapped)
    frames, stamps, is_depth, starts, events, previous = [], [], [], [0], [], 0
    for ts_ns, payload in entries:
        data = decoder.decode(payload).data
        if data.u:
            if data.u < rest.last:
                continue
            previous = previous or data.pu
            events += [(BID, ticks(p), lots(q)) for p, q in data.b] + [(ASK, -ticks(p), lots(q)) for p, q in data.a]
        else:
            events.append((TRADE, ticks(data.p) if data.m else -ticks(data.p), lots(data.q)))
        frames.append(payload)
        stamps.append(max(ts_ns, snapshot_ns))
        is_depth.append(bool(data.u))
        starts.append(len(events))
    bids = sorted((ticks(p), lots(q)) for p, q in rest.bids)
    asks = sorted((-ticks(p), lots(q)) for p, q in rest.asks)
    sides, keys, sizes = np.array(events, np.int64).T.copy()
    book = (*np.array(bids, np.int64).T.copy(), *np.array(asks, np.int64).T.copy())
    stamps_ns, marks = np.array(stamps, np.int64), np.array(starts, np.int64)
    return Real(snapshot, rest.last, previous, frames, stamps_ns, np.array(is_depth), marks, sides, keys, sizes, book)


def ticks(price: Decimal) -> int:
    return int(price * TICKS)


def lots(quantity: Decimal) -> int:
    return int(quantity * LOTS)


# What a side says


@dataclass(frozen=True)
class Outcome:
    """Seconds for so many messages or events, and the sums of W: spread in ticks, imbalance. Without a book they are None.

    ``value`` is what a side that makes one feature ends with, or the sum of it.
    """

    seconds: float
    count: int
    spread: float | None = None
    imbalance: float | None = None
    value: float = 0.0

    @property
    def rate(self) -> float:
        return self.count / self.seconds


Side = Callable[[Real], Outcome]


@dataclass(frozen=True)
class Peer:
    """A side of another project. ``packages`` must be installed; ``reads`` tells after which messages it reads W.

    ``published`` is the rate beside which the goal was set: the ratio of the two is the goal on any machine.
    """

    what: str
    packages: tuple[str, ...]
    side: Side
    reads: Callable[[Real], Any] = field(default=lambda data: slice(None))
    note: str = ""
    published: float | None = None

    def missing(self) -> list[str]:
        found = {name.lower().replace("_", "-") for name in installed()}
        return [name for name in self.packages if name not in found]

    def label(self) -> str:
        versions = " + ".join(f"{name} {importlib.metadata.version(name)}" for name in self.packages)
        return " ".join(filter(None, (versions, self.what)))


@cache
def installed() -> frozenset[str]:
    return frozenset(found.metadata["Name"] for found in importlib.metadata.distributions())


@cache
def oracle(data: Real) -> tuple[Ints, Floats]:
    """Return spread in ticks and top-5 imbalance after every message, by two bisect lists."""
    spreads, imbalances = np.zeros(len(data.frames), np.int64), np.zeros(len(data.frames))
    for i, (bids, bid_lots, asks, ask_lots) in enumerate(walked(data)):
        bid, ask = sum(bid_lots[-TOP:]), sum(ask_lots[-TOP:])
        spreads[i], imbalances[i] = -asks[-1] - bids[-1], (bid - ask) / (bid + ask)
    return spreads, imbalances


def verdict(data: Real, peer: Peer, outcome: Outcome) -> str:
    """Say whether the sums of W are the oracle's for the messages after which the peer reads them."""
    if outcome.spread is None or outcome.imbalance is None:
        return ""
    which = peer.reads(data)
    spreads, imbalances = oracle(data)
    spread, imbalance = float(spreads[which].sum()), float(imbalances[which].sum())
    if abs(outcome.spread - spread) < 0.5 and abs(outcome.imbalance - imbalance) < 1e-6:
        return "W equal"
    return f"W differs: {outcome.spread:.0f} / {outcome.imbalance:.6f} for {spread:.0f} / {imbalance:.6f}"


# Runs and rows


@contextmanager
def one_core() -> Iterator[None]:
    """Stay on one core, as every side does."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def alternate(sides: Mapping[str, Side], data: Real, runs: int = RUNS) -> dict[str, list[Outcome]]:
    """Run every side in turn, again and again, so that the machine's drift falls on all alike."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in sides}
    for _, (name, side) in itertools.product(range(runs), sides.items()):
        gc.collect()
        gc.freeze()  # What one side holds is no work for another's collector.
        outcomes[name].append(side(data))
        gc.unfreeze()
    return outcomes


def against(id_: str, unit: str, ours: Mapping[str, tuple[Side, str, float | None]], peers: Sequence[Peer]) -> list[Row]:
    """Measure both kinds in one process, alternating, and return a row for each of ours and each peer.

    ``ours`` gives a side, the goal's text and the rate that meets it. Ratios are those of the first.
    """
    data = real()
    oracle(data)
    here = [peer for peer in peers if not peer.missing()]
    sides = {what: side for what, (side, _, _) in ours.items()} | {peer.label(): peer.side for peer in here}
    with one_core():
        outcomes = alternate(sides, data)
    rates = {name: median([outcome.rate for outcome in found]) for name, found in outcomes.items()}
    rows = []
    for what, (_, goal, least) in ours.items():
        met = None if least is None else rates[what] >= least
        rows.append(Row(id_, f"{what} ({outcomes[what][0].count:,} {unit})", f"{rates[what]:,.0f} {unit}/s", goal, met))
    first, (_, _, least) = next(iter(ours.items()))
    for peer in peers:
        if peer.missing():
            rows.append(Row(id_, f"  {' + '.join(peer.packages)} {peer.what}", "", "", None, "not installed"))
            continue
        rate, last = rates[peer.label()], outcomes[peer.label()][-1]
        said = "; ".join(filter(None, (verdict(data, peer, last), peer.note)))
        what = f"  {peer.label()} ({said})" if said else f"  {peer.label()}"
        ratio, goal, met = rates[first] / rate, "", None
        if least is not None and peer.published is not None:
            goal, met = f">= {times(least / peer.published)}", ratio >= least / peer.published
        rows.append(Row(id_, what, "", goal, met, f"{rate:,.0f} {unit}/s", times(ratio)))
    return rows


def times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 100.0 else f"{ratio:.1f}x" if ratio >= 10.0 else f"{ratio:.2f}x"


def is_depth(data: Real) -> Bools:
    return data.is_depth


def is_early(data: Real) -> slice:
    return slice(SLOW)


# Two lists and the bisect module: what a book costs in plain Python


Held = tuple[list[Any], list[Any], list[Any], list[Any]]
"""Keys and sizes of the bids, then of the asks, ascending."""


def held(data: Real) -> Held:
    bid_keys, bid_lots, ask_keys, ask_lots = data.book
    return bid_keys.tolist(), bid_lots.tolist(), ask_keys.tolist(), ask_lots.tolist()


def put(keys: list[Any], sizes: list[Any], key: Any, size: Any) -> None:
    i = bisect_left(keys, key)
    if i < len(keys) and keys[i] == key:
        if size:
            sizes[i] = size
        else:
            del keys[i], sizes[i]
    elif size:
        keys.insert(i, key)
        sizes.insert(i, size)


def walked(data: Real) -> Iterator[Held]:
    """Return the four lists after every message; what is read of the messages is at hand before the first."""
    bids, bid_lots, asks, ask_lots = lists = held(data)
    sides, keys, sizes, starts = data.sides.tolist(), data.keys.tolist(), data.lots.tolist(), data.starts.tolist()

    def after_each() -> Iterator[Held]:
        for first, end in itertools.pairwise(starts):
            for i in range(first, end):
                if sides[i] == BID:
                    put(bids, bid_lots, keys[i], sizes[i])
                elif sides[i] == ASK:
                    put(asks, ask_lots, keys[i], sizes[i])
            yield lists

    return after_each()


def bisect_events(data: Real) -> Outcome:
    spread, imbalance, messages = 0, 0.0, walked(data)
    start = clock()
    for bids, bid_lots, asks, ask_lots in messages:
        bid, ask = sum(bid_lots[-TOP:]), sum(ask_lots[-TOP:])
        spread -= asks[-1] + bids[-1]
        imbalance += (bid - ask) / (bid + ask)
    return Outcome(clock() - start, data.events, spread, imbalance)


def orjson_bisect(data: Real) -> Outcome:
    import orjson

    bids, bid_sizes, asks, ask_sizes = held(data)
    bids, asks = [key / TICKS for key in bids], [key / TICKS for key in asks]
    bid_sizes, ask_sizes = [size / LOTS for size in bid_sizes], [size / LOTS for size in ask_sizes]
    last, spread, imbalance = data.update, 0.0, 0.0
    start = clock()
    for frame in data.frames:
        message = orjson.loads(frame)["data"]
        if message["e"] == "depthUpdate":
            if message["pu"] != last and not message["U"] <= last <= message["u"]:
                raise AssertionError("expected differences that link up")
            last = message["u"]
            for price, size in message["b"]:
                put(bids, bid_sizes, float(price), float(size))
            for price, size in message["a"]:
                put(asks, ask_sizes, -float(price), float(size))
        bid, ask = sum(bid_sizes[-TOP:]), sum(ask_sizes[-TOP:])
        spread -= asks[-1] + bids[-1]
        imbalance += (bid - ask) / (bid + ask)
    return Outcome(clock() - start, len(data.frames), spread * TICKS, imbalance)


# Decoders alone


def orjson_alone(data: Real) -> Outcome:
    from orjson import loads

    start = clock()
    for frame in data.frames:
        loads(frame)
    return Outcome(clock() - start, len(data.frames))


class _Typed(msgspec.Struct, gc=False):
    e: str
    E: int
    T: int
    s: str
    U: int = 0
    u: int = 0
    pu: int = 0
    b: list[tuple[str, str]] = []
    a: list[tuple[str, str]] = []
    t: int = 0
    p: str = ""
    q: str = ""
    m: bool = False


class _WrappedTyped(msgspec.Struct, gc=False):
    stream: str
    data: _Typed


def msgspec_alone(data: Real) -> Outcome:
    decode = msgspec.json.Decoder(_WrappedTyped).decode
    start = clock()
    for frame in data.frames:
        decode(frame)
    return Outcome(clock() - start, len(data.frames))


# Feed handlers


def cryptofeed_feed(data: Real, callbacks: Mapping[str, Any]) -> Any:
    """Return a feed with the snapshot's book and no network."""
    logging.getLogger("feedhandler").setLevel(logging.ERROR)
    from cryptofeed.defines import L2_BOOK, TRADES
    from cryptofeed.exchanges import BinanceFutures
    from cryptofeed.symbols import Symbols
    from cryptofeed.types import OrderBook

    Symbols.set(BinanceFutures.id, {CRYPTOFEED_PAIR: "BTCUSDT"}, {"instrument_type": {CRYPTOFEED_PAIR: "perpetual"}, "tick_size": {}})
    feed = BinanceFutures(symbols=[CRYPTOFEED_PAIR], channels=[L2_BOOK, TRADES], callbacks=dict(callbacks))
    feed._reset()
    bids, asks = ({Decimal(p): Decimal(q) for p, q in pairs} for pairs in data.raw_pairs())
    feed._l2_book[CRYPTOFEED_PAIR] = OrderBook(feed.id, CRYPTOFEED_PAIR, max_depth=0, bids=bids, asks=asks)
    feed.last_update_id[CRYPTOFEED_PAIR] = data.update
    return feed


@cache
def as_aggregate_trades(data: Real) -> list[str]:
    """Return the messages with trades in the form of ``aggTrade``, the only one that cryptofeed reads."""
    texts = [frame.decode() for frame in data.frames]
    renamed = (text.replace('"e":"trade"', '"e":"aggTrade"').replace('"t":', '"a":') for text in texts)
    return [text if depth else other for text, other, depth in zip(texts, renamed, data.is_depth, strict=True)]


async def handled(handler: Any, texts: list[str], stamps: list[float]) -> float:
    start = clock()
    for text, stamp in zip(texts, stamps, strict=True):
        await handler(text, None, stamp)
    return clock() - start


def cryptofeed_empty(data: Real) -> Outcome:
    from cryptofeed.defines import L2_BOOK, TRADES

    async def nothing(_: Any, __: float) -> None: ...

    feed = cryptofeed_feed(data, {L2_BOOK: nothing, TRADES: nothing})
    stamps = (data.stamps_ns / 1e9).tolist()
    return Outcome(asyncio.run(handled(feed.message_handler, as_aggregate_trades(data), stamps)), len(data.frames))


def cryptofeed_w(data: Real) -> Outcome:
    from cryptofeed.defines import L2_BOOK, TRADES

    spread, imbalance = Decimal(0), 0.0

    async def nothing(_: Any, __: float) -> None: ...

    async def read(book: Any, _: float) -> None:
        nonlocal spread, imbalance
        bids, asks = book.book.bids, book.book.asks
        bid, ask = sum(bids.index(i)[1] for i in range(TOP)), sum(asks.index(i)[1] for i in range(TOP))
        spread += asks.index(0)[0] - bids.index(0)[0]
        imbalance += float((bid - ask) / (bid + ask))

    feed = cryptofeed_feed(data, {L2_BOOK: read, TRADES: nothing})
    seconds = asyncio.run(handled(feed.message_handler, as_aggregate_trades(data), (data.stamps_ns / 1e9).tolist()))
    return Outcome(seconds, len(data.frames), float(spread * TICKS), imbalance)


def ccxt_w(data: Real) -> Outcome:
    return asyncio.run(_ccxt_w(data))


async def _ccxt_w(data: Real) -> Outcome:
    import ccxt.pro

    exchange = ccxt.pro.binanceusdm()
    market = {"id": "BTCUSDT", "symbol": CCXT_PAIR, "base": "BTC", "quote": "USDT", "settle": "USDT", "type": "swap", "spot": False}
    market |= {"swap": True, "future": False, "option": False, "contract": True, "linear": True, "inverse": False, "contractSize": 1.0}
    market |= {"precision": {"price": float(TICK), "amount": float(LOT)}, "limits": {}, "info": {}, "active": True, "margin": False}
    exchange.set_markets([market])
    client = exchange.client("wss://fstream.binance.com/ws/0")
    pairs = [[[float(p), float(q)] for p, q in side] for side in data.raw_pairs()]
    book = exchange.order_book({"symbol": CCXT_PAIR, "bids": pairs[0], "asks": pairs[1], "nonce": data.update})
    exchange.orderbooks[CCXT_PAIR] = book
    texts = [frame.decode() for frame in data.frames]
    spread, imbalance = 0.0, 0.0
    receive = client.handle_text_or_binary_message
    start = clock()
    for text in texts:
        receive(text)
        bids, asks = book["bids"], book["asks"]
        bid, ask = sum(level[1] for level in bids[:TOP]), sum(level[1] for level in asks[:TOP])
        spread += asks[0][0] - bids[0][0]
        imbalance += (bid - ask) / (bid + ask)
    seconds = clock() - start
    if exchange.orderbooks.get(CCXT_PAIR) is not book or book["nonce"] == data.update:
        raise AssertionError("expected ccxt to keep its book through the recording")
    await exchange.close()
    return Outcome(seconds, len(texts), spread * TICKS, imbalance)


# Books fed with structured events


def order_book_c(data: Real) -> Outcome:
    from order_book import OrderBook

    bid_keys, bid_lots, ask_keys, ask_lots = held(data)
    book = OrderBook()
    book.bids = dict(zip(bid_keys, bid_lots, strict=True))
    book.asks = {-key: size for key, size in zip(ask_keys, ask_lots, strict=True)}
    bids, asks = book.bids, book.asks
    sides, prices, sizes, starts = data.sides.tolist(), np.abs(data.keys).tolist(), data.lots.tolist(), data.starts.tolist()
    spread, imbalance = 0, 0.0
    start = clock()
    for first, end in itertools.pairwise(starts):
        for i in range(first, end):
            if sides[i] == TRADE:
                continue
            side = bids if sides[i] == BID else asks
            if sizes[i]:
                side[prices[i]] = sizes[i]
            elif prices[i] in side:
                del side[prices[i]]
        bid, ask = sum(bids.index(i)[1] for i in range(TOP)), sum(asks.index(i)[1] for i in range(TOP))
        spread += asks.index(0)[0] - bids.index(0)[0]
        imbalance += (bid - ask) / (bid + ask)
    return Outcome(clock() - start, data.events, spread, imbalance)


@cache
def nautilus_messages(data: Real, names: Any) -> list[Any]:
    """Return the messages as nautilus takes them, the snapshot first, None for a trade; building them is not timed."""
    instrument, stamps = names.InstrumentId.from_str("BTCUSDT-PERP.BINANCE"), data.stamps_ns.tolist()
    bid_keys, bid_lots, ask_keys, ask_lots = held(data)
    whole = [(BID, key, size) for key, size in zip(bid_keys, bid_lots, strict=True)]
    whole += [(ASK, key, size) for key, size in zip(ask_keys, ask_lots, strict=True)]

    def deltas(events: list[tuple[int, int, int]], n: int) -> Any:
        made: list[Any] = []
        for side, key, size in events:
            order = names.BookOrder(
                names.OrderSide.BUY if side == BID else names.OrderSide.SELL,
                names.Price(abs(key) / TICKS, 1),
                names.Quantity(size / LOTS, 3),
                0,
            )
            action = names.BookAction.UPDATE if size else names.BookAction.DELETE
            flags = 128 if len(made) == len(events) - 1 else 0  # The last of its message.
            made.append(names.OrderBookDelta(instrument, action, order, flags, n, stamps[n - 1], stamps[n - 1]))
        return names.OrderBookDeltas(instrument, made)

    sides, keys, sizes = data.sides.tolist(), data.keys.tolist(), data.lots.tolist()
    messages = [deltas(whole, 1)]
    for n, (first, end) in enumerate(itertools.pairwise(data.starts.tolist()), 1):
        events = list(zip(sides[first:end], keys[first:end], sizes[first:end], strict=True))
        messages.append(deltas(events, n) if events[0][0] != TRADE else None)
    return messages


def nautilus_pyo3(data: Real) -> Outcome:
    from nautilus_trader.core import nautilus_pyo3 as names

    messages = nautilus_messages(data, names)
    book = names.OrderBook(names.InstrumentId.from_str("BTCUSDT-PERP.BINANCE"), names.BookType.L2_MBP)
    book.apply_deltas(messages[0])
    spread, imbalance = 0.0, 0.0
    start = clock()
    for message in itertools.islice(messages, 1, None):
        if message is not None:
            book.apply_deltas(message)
        bids, asks = book.bids(TOP), book.asks(TOP)
        bid, ask = sum([level.size() for level in bids]), sum([level.size() for level in asks])
        spread += asks[0].price.as_double() - bids[0].price.as_double()
        imbalance += (bid - ask) / (bid + ask)
    return Outcome(clock() - start, data.events, spread * TICKS, imbalance)


class _Cython:
    """The names of nautilus' older objects, where its Python strategies find them."""

    def __init__(self) -> None:
        from nautilus_trader.model import book, data, enums, identifiers, objects

        self.InstrumentId = identifiers.InstrumentId
        self.OrderBook, self.BookType = book.OrderBook, enums.BookType
        self.BookOrder, self.OrderBookDelta, self.OrderBookDeltas = data.BookOrder, data.OrderBookDelta, data.OrderBookDeltas
        self.OrderSide, self.BookAction = enums.OrderSide, enums.BookAction
        self.Price, self.Quantity = objects.Price, objects.Quantity


cython_names = cache(_Cython)


def nautilus_cython(data: Real) -> Outcome:
    names = cython_names()
    messages = nautilus_messages(data, names)
    book = names.OrderBook(names.InstrumentId.from_str("BTCUSDT-PERP.BINANCE"), names.BookType.L2_MBP)
    book.apply_deltas(messages[0])
    spread, imbalance = 0.0, 0.0
    start = clock()
    for message in itertools.islice(messages, 1, SLOW + 1):
        if message is not None:
            book.apply_deltas(message)
        bids, asks = book.bids()[:TOP], book.asks()[:TOP]
        bid, ask = sum([level.size() for level in bids]), sum([level.size() for level in asks])
        spread += asks[0].price.as_double() - bids[0].price.as_double()
        imbalance += (bid - ask) / (bid + ask)
    return Outcome(clock() - start, int(data.starts[SLOW]), spread * TICKS, imbalance)


@cache
def nautilus_tape(data: Real) -> list[Any]:
    """Return all messages, trades too, as nautilus' engine takes them."""
    from nautilus_trader.model import data as kinds
    from nautilus_trader.model.enums import AggressorSide
    from nautilus_trader.model.identifiers import TradeId

    names = cython_names()
    instrument = names.InstrumentId.from_str("BTCUSDT-PERP.BINANCE")
    tape, keys, sizes = nautilus_messages(data, names).copy(), data.keys.tolist(), data.lots.tolist()
    for n, (at, stamp) in enumerate(zip(data.starts.tolist(), data.stamps_ns.tolist(), strict=False), 1):
        if tape[n] is None:
            price, size = names.Price(abs(keys[at]) / TICKS, 1), names.Quantity(sizes[at] / LOTS, 3)
            side = AggressorSide.BUYER if keys[at] < 0 else AggressorSide.SELLER
            tape[n] = kinds.TradeTick(instrument, price, size, side, TradeId(str(n)), stamp, stamp)
    return tape


@cache
def nautilus_reader() -> Any:
    from nautilus_trader.model.enums import BookType
    from nautilus_trader.model.identifiers import InstrumentId
    from nautilus_trader.trading.strategy import Strategy

    class Reader(Strategy):
        """Reads the best quote after each difference, and is told of each trade."""

        def on_start(self) -> None:
            self.instrument, self.spread = InstrumentId.from_str("BTCUSDT-PERP.BINANCE"), 0.0
            self.subscribe_order_book_deltas(self.instrument, BookType.L2_MBP)
            self.subscribe_trade_ticks(self.instrument)

        def on_order_book_deltas(self, deltas: Any) -> None:
            book = self.cache.order_book(self.instrument)
            self.spread += float(book.best_ask_price()) - float(book.best_bid_price())

        def on_trade_tick(self, tick: Any) -> None: ...

    return Reader


def nautilus_engine(data: Real) -> Outcome:
    """Run its backtest engine over the messages; ``value`` is the sum of the spreads in ticks, the snapshot's too."""
    from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.model.currencies import USDT
    from nautilus_trader.model.enums import AccountType, BookType, OmsType
    from nautilus_trader.model.identifiers import Venue
    from nautilus_trader.model.objects import Money
    from nautilus_trader.test_kit.providers import TestInstrumentProvider

    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
    engine.add_venue(Venue("BINANCE"), OmsType.NETTING, AccountType.MARGIN, [Money(1_000_000, USDT)], book_type=BookType.L2_MBP)
    engine.add_instrument(TestInstrumentProvider.btcusdt_perp_binance())
    engine.add_data(nautilus_tape(data), sort=False)
    reader = nautilus_reader()()
    engine.add_strategy(reader)
    start = clock()
    engine.run()
    seconds = clock() - start
    spread = reader.spread
    engine.dispose()
    return Outcome(seconds, len(data.frames), value=spread * TICKS)


@cache
def hftbacktest_loop() -> Any:
    from numba import njit

    @njit
    def loop(backtest: Any) -> tuple[int, float, float]:
        count, spread, imbalance = 0, 0.0, 0.0
        while backtest.wait_next_feed(False, 1 << 60) == 2:
            depth = backtest.depth(0)
            best_bid, best_ask = depth.best_bid_tick, depth.best_ask_tick
            bid, seen, tick = 0.0, 0, best_bid
            while seen < 5:
                size = depth.bid_qty_at_tick(tick)
                if size > 0.0:
                    bid += size
                    seen += 1
                tick -= 1
            ask, seen, tick = 0.0, 0, best_ask
            while seen < 5:
                size = depth.ask_qty_at_tick(tick)
                if size > 0.0:
                    ask += size
                    seen += 1
                tick += 1
            count += 1
            spread += best_ask - best_bid
            imbalance += (bid - ask) / (bid + ask)
        return count, spread, imbalance

    return loop


@cache
def hftbacktest_events(data: Real) -> tuple[Any, Any]:
    """Return snapshot and messages as its event arrays.

    The events of a message share their times, so that it shows their outcome alone. A trade stands at the end: a backtest is
    over with its last event, and what that did is not shown.
    """
    import hftbacktest as hbt

    both = hbt.EXCH_EVENT | hbt.LOCAL_EVENT
    message = np.append(np.repeat(np.arange(len(data.frames)), np.diff(data.starts)), len(data.frames))
    sides, keys, sizes = np.append(data.sides, TRADE), np.append(data.keys, data.keys[-1]), np.append(data.lots, data.lots[-1])
    depth = np.where(sides == BID, hbt.BUY_EVENT, hbt.SELL_EVENT) | hbt.DEPTH_EVENT
    trade = np.where(keys < 0, hbt.BUY_EVENT, hbt.SELL_EVENT) | hbt.TRADE_EVENT
    events = np.zeros(len(message), hbt.types.event_dtype)
    events["ev"] = np.where(sides == TRADE, trade, depth) | both
    events["exch_ts"] = 1_000_000 + 1_000 * message
    events["local_ts"] = events["exch_ts"] + 1
    events["px"], events["qty"] = np.abs(keys) / TICKS, sizes / LOTS
    bid_keys, bid_lots, ask_keys, ask_lots = data.book
    snapshot = np.zeros(len(bid_keys) + len(ask_keys), hbt.types.event_dtype)
    is_bid = np.arange(len(snapshot)) < len(bid_keys)
    snapshot["ev"] = hbt.DEPTH_SNAPSHOT_EVENT | both | np.where(is_bid, hbt.BUY_EVENT, hbt.SELL_EVENT)
    snapshot["px"] = np.concatenate((bid_keys, -ask_keys)) / TICKS
    snapshot["qty"] = np.concatenate((bid_lots, ask_lots)) / LOTS
    return snapshot, events


def hftbacktest_of(snapshot: Any, events: Any) -> Any:
    """Return a backtest at its beginning; both may be arrays or names of files with one."""
    import hftbacktest as hbt

    asset = hbt.BacktestAsset().data(events).initial_snapshot(snapshot).linear_asset(1.0).constant_order_latency(0, 0)
    asset = asset.risk_adverse_queue_model().no_partial_fill_exchange().trading_value_fee_model(0.0, 0.0)
    return hbt.ROIVectorMarketDepthBacktest([asset.tick_size(float(TICK)).lot_size(float(LOT)).roi_lb(PRICES[0]).roi_ub(PRICES[1])])


def hftbacktest_roi(data: Real) -> Outcome:
    loop, inputs = hftbacktest_loop(), hftbacktest_events(data)
    if not loop.signatures:
        loop(hftbacktest_of(*inputs))
    backtest = hftbacktest_of(*inputs)
    start = clock()
    _, spread, imbalance = loop(backtest)
    seconds = clock() - start
    backtest.close()
    return Outcome(seconds, data.events, spread, imbalance)


# Features alone


def wickra_vpin(data: Real) -> Outcome:
    from wickra import Vpin

    which = data.sides == TRADE
    prices, sizes = (np.abs(data.keys[which]) / TICKS).tolist(), (data.lots[which] / LOTS).tolist()
    buys, update = (data.keys[which] < 0).tolist(), Vpin(10.0, 50).update
    value = None
    start = clock()
    for price, size, is_buy in zip(prices, sizes, buys, strict=True):
        value = update(price, size, is_buy)
    return Outcome(clock() - start, len(prices), value=value or 0.0)


@cache
def tops(data: Real) -> list[tuple[list[float], ...]]:
    """Return prices and sizes of the best bids, then of the best asks, after every depth message."""
    units = (TICKS, LOTS, -TICKS, LOTS)
    return [
        tuple([x / unit for x in side[: -TOP - 1 : -1]] for side, unit in zip(lists, units, strict=True))
        for lists, depth in zip(walked(data), data.is_depth, strict=True)
        if depth
    ]


def wickra_imbalance(data: Real) -> Outcome:
    from wickra import OrderBookImbalanceTopN

    update, books, value = OrderBookImbalanceTopN(TOP).update, tops(data), 0.0
    start = clock()
    for bid_prices, bid_sizes, ask_prices, ask_sizes in books:
        value += update(bid_prices, bid_sizes, ask_prices, ask_sizes)
    return Outcome(clock() - start, len(books), value=value)
