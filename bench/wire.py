"""P1 and P2: raw JSON bytes -> verified book -> every feature, against feed handlers and decoders of other projects.

One call a message from Python (P1), or one over a recorded buffer (P2). A book has been through the recording once before its
time is taken, so that its rings are as long as they need to be; then it takes a new snapshot, links and goes LIVE. It must take
every message itself: none may be left to the general decoder.
"""

import time
from dataclasses import replace
from functools import cache

import numpy as np
from peers import (
    RUNS,
    TICKS,
    Floats,
    Outcome,
    Peer,
    Real,
    against,
    alternate,
    ccxt_w,
    cryptofeed_empty,
    cryptofeed_w,
    is_depth,
    msgspec_alone,
    one_core,
    oracle,
    orjson_alone,
    orjson_bisect,
    real,
    times,
    verdict,
    wickra_imbalance,
    wickra_vpin,
)
from report import Row, median, quantile

from alphapack.domain.events import DepthSnapshot
from alphapack.domain.market import Step
from alphapack.models.book import DEPTH, FEATURES, TAKEN, TRADE, FeatureBook
from alphapack.venues.binance import BinanceCodec

GOAL, GOAL_BUFFER = 800e3, 1.5e6
P50_US, P99_US = 0.8, 12.0
BUCKET = 10.0
"""Base units of a bucket of VPIN: the recording is too short for a day's volume."""
REPLAY_NS = 600 * 1_000_000_000
"""How much earlier the book began."""

PEERS = (
    Peer("loads alone", ("orjson",), orjson_alone, published=591e3),
    Peer("typed decoding alone", ("msgspec",), msgspec_alone),
    Peer("and two bisect lists, plain Python", ("orjson",), orjson_bisect),
    Peer("BinanceFutures.message_handler, callbacks that do nothing", ("cryptofeed", "order-book"), cryptofeed_empty, published=50e3),
    Peer("BinanceFutures.message_handler with W", ("cryptofeed", "order-book"), cryptofeed_w, is_depth, "read after depth alone", 3.2e3),
    Peer("pro binanceusdm.handle_message with W", ("ccxt", "orjson"), ccxt_w, published=24e3),
)
FEATURE_PEERS = (
    (TRADE, "trade", Peer("Vpin.update alone", ("wickra",), wickra_vpin)),
    (DEPTH, "depth message", Peer("OrderBookImbalanceTopN(5).update alone, best levels at hand", ("wickra",), wickra_imbalance, is_depth)),
)
CODEC = BinanceCodec("usdm")


def begin(book: FeatureBook, data: Real, ts_ns: int) -> None:
    """Go LIVE with the snapshot, linked to the first difference."""
    (snapshot,) = CODEC.decode(data.snapshot, "BTCUSDT")
    assert isinstance(snapshot, DepthSnapshot)
    book.snapshot(snapshot.bids, snapshot.asks)
    book.start(ts_ns)
    book.last_update, book.trade_id = data.previous, -1
    book.live = True


def running(data: Real) -> FeatureBook:
    """Return a LIVE book before the first message."""
    book = FeatureBook(Step(1, 1), Step(1, 3), None, BUCKET)
    book.listen("BTCUSDT", CODEC.frame_format)
    begin(book, data, int(data.stamps_ns[0]) - REPLAY_NS)
    raw, ends = joined(data)
    all_taken(book.frames(data.stamps_ns - REPLAY_NS, raw, ends, np.zeros((len(ends), len(FEATURES)))), data)
    begin(book, data, int(data.stamps_ns[0]))
    return book


def all_taken(done: int, data: Real) -> None:
    if done != len(data.frames):
        raise AssertionError(f"expected all {len(data.frames)} messages to be taken, found {done}")


@cache
def joined(data: Real) -> tuple[bytes, "np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    """Return the frames as one buffer, and where each ends in it."""
    return b"".join(data.frames), np.cumsum([len(frame) for frame in data.frames])


# Sides


def by_call(data: Real) -> Outcome:
    frame, stamps, done = running(data).frame, data.stamps_ns.tolist(), 0
    start = time.perf_counter()
    for ts_ns, raw in zip(stamps, data.frames, strict=True):
        if frame(ts_ns, raw) >= TAKEN:
            done += 1
    seconds = time.perf_counter() - start
    all_taken(done, data)
    return Outcome(seconds, done)


def by_call_with_w(data: Real) -> Outcome:
    book = running(data)
    frame, row, stamps = book.frame, book.row, data.stamps_ns.tolist()
    bid, ask, obi = (FEATURES.index(name) for name in ("bid", "ask", "obi"))
    spread, imbalance = 0.0, 0.0
    start = time.perf_counter()
    for ts_ns, raw in zip(stamps, data.frames, strict=True):
        frame(ts_ns, raw)
        spread += row[ask] - row[bid]
        imbalance += row[obi]
    return Outcome(time.perf_counter() - start, len(data.frames), spread * TICKS, imbalance)


def by_buffer(data: Real) -> Outcome:
    book = running(data)
    raw, ends = joined(data)
    rows = np.zeros((len(ends), len(FEATURES)))
    start = time.perf_counter()
    done = book.frames(data.stamps_ns, raw, ends, rows)
    seconds = time.perf_counter() - start
    all_taken(done, data)
    return Outcome(seconds, done)


def latencies(data: Real) -> Floats:
    """Return the nanoseconds of each call, with what reading the clock takes."""
    frame, clock, stamps, taken = running(data).frame, time.perf_counter_ns, data.stamps_ns.tolist(), []
    for ts_ns, raw in zip(stamps, data.frames, strict=True):
        start = clock()
        frame(ts_ns, raw)
        taken.append(clock() - start)
    return np.array(taken, np.float64)


def verify(data: Real) -> None:
    """Compare both ways with each other and with the oracle after every message."""
    raw, ends = joined(data)
    rows = np.zeros((len(ends), len(FEATURES)))
    all_taken(running(data).frames(data.stamps_ns, raw, ends, rows), data)
    book = running(data)
    for i, (ts_ns, frame) in enumerate(zip(data.stamps_ns.tolist(), data.frames, strict=True)):
        book.frame(ts_ns, frame)
        if not np.array_equal(book.row, rows[i], equal_nan=True):
            raise AssertionError(f"expected one feature row after message {i}, found {book.row} and {rows[i]}")
    bid, ask, obi = (rows[:, FEATURES.index(name)] for name in ("bid", "ask", "obi"))
    spreads, imbalances = oracle(data)
    if not (np.array_equal(np.rint((ask - bid) * TICKS), spreads) and np.array_equal(obi, imbalances)):
        raise AssertionError("expected the oracle's W after every message, found another")


def of_latency(data: Real) -> tuple[list[Row], dict[int, float]]:
    """Return rows of latency, and the median nanoseconds of a message by kind."""
    with one_core():
        runs = [latencies(data) for _ in range(RUNS)]
    rows, middle = [], {}
    for kind, what, which in (
        (None, "every message", slice(None)),
        (DEPTH, "depth messages", data.is_depth),
        (TRADE, "trades", ~data.is_depth),
    ):
        p50, p95, p99 = (median([quantile(taken[which].tolist(), q) for taken in runs]) / 1_000 for q in (0.5, 0.95, 0.99))
        said = f"p50 {p50:.2f}  p95 {p95:.2f}  p99 {p99:.2f} us"
        met = (p50 <= P50_US and p99 <= P99_US) if kind is None else None
        goal = f"p50 <= {P50_US}, p99 <= {P99_US:.0f}" if kind is None else "-"
        rows.append(Row("P1", f"  latency of a call, {what}, clock included", said, goal, met))
        if kind is not None:
            middle[kind] = 1_000 * p50
    return rows, middle


def of_feature(data: Real, peer: Peer, what: str, ours_ns: float) -> Row:
    """Return a row that holds one feature of a peer beside a whole message of ours."""
    if peer.missing():
        return Row("P1", f"  {peer.packages[0]} {peer.what}, {what}", "", "", None, "not installed")
    with one_core():
        outcomes = alternate({"peer": peer.side}, data)["peer"]
    peer_ns = 1e9 / median([outcome.rate for outcome in outcomes])
    said = f", {verdict(data, peer, outcomes[-1])}" if outcomes[-1].spread is not None else ""
    ours = f"{ours_ns:,.0f} ns for the message and all features"
    return Row("P1", f"  {peer.label()}, {what}{said}", ours, "", None, f"{peer_ns:,.0f} ns", times(peer_ns / ours_ns))


def run() -> list[Row]:
    data = real()
    verify(data)
    ours = {
        f"raw bytes -> book -> {len(FEATURES)} features, one call a message": (by_call, f">= {GOAL / 1e3:.0f}k", GOAL),
        "  the same, W read back in Python": (by_call_with_w, "-", None),
        "  the same over a recorded buffer, one call": (by_buffer, f">= {GOAL_BUFFER / 1e6}M", GOAL_BUFFER),
    }
    rows = against("P1", "messages", ours, PEERS)
    rows[2] = replace(rows[2], id="P2")
    latency, middle = of_latency(data)
    rows[3:3] = latency
    return rows + [of_feature(data, peer, f"a {name}", middle[kind]) for kind, name, peer in FEATURE_PEERS]
