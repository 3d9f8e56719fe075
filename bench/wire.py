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
    LOTS,
    RUNS,
    TICKS,
    TOP,
    Floats,
    Ints,
    Outcome,
    Peer,
    Real,
    against,
    alternate,
    ccxt_w,
    clock,
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
    tops,
    wickra_imbalance,
    wickra_vpin,
)
from report import Row, median, quantile

from alphapack.domain.events import DepthSnapshot
from alphapack.domain.market import Step
from alphapack.jit import njit
from alphapack.kernels import book, flow, tape
from alphapack.kernels import marks as m
from alphapack.models.book import FEATURES, TAKEN, FeatureBook
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
CODEC = BinanceCodec("usdm")


def begin(target: FeatureBook, data: Real, ts_ns: int) -> None:
    """Go LIVE with the snapshot, linked to the first difference."""
    (snapshot,) = CODEC.decode(data.snapshot, "BTCUSDT")
    assert isinstance(snapshot, DepthSnapshot)
    target.snapshot(snapshot.bids, snapshot.asks)
    target.start(ts_ns)
    target.last_update, target.trade_id = data.previous, -1
    target.live = True


def new_book(name: str = "BTCUSDT") -> FeatureBook:
    target = FeatureBook(Step(1, 1), Step(1, 3), None, BUCKET)
    target.listen(name, CODEC.frame_format)
    return target


def running(data: Real) -> FeatureBook:
    """Return a LIVE book before the first message."""
    target = new_book()
    begin(target, data, int(data.stamps_ns[0]) - REPLAY_NS)
    raw, ends = joined(data)
    all_taken(target.frames(data.stamps_ns - REPLAY_NS, raw, ends, np.zeros((len(ends), len(FEATURES)))), data)
    begin(target, data, int(data.stamps_ns[0]))
    return target


def all_taken(done: int, data: Real) -> None:
    if done != len(data.frames):
        raise AssertionError(f"expected all {len(data.frames)} messages to be taken, found {done}")


@cache
def joined(data: Real) -> tuple[bytes, Ints]:
    """Return the frames as one buffer, and where each ends in it."""
    return b"".join(data.frames), np.cumsum([len(frame) for frame in data.frames])


# Sides


def by_call(data: Real) -> Outcome:
    frame, stamps, done = running(data).frame, data.stamps_ns.tolist(), 0
    start = clock()
    for ts_ns, raw in zip(stamps, data.frames, strict=True):
        if frame(ts_ns, raw) >= TAKEN:
            done += 1
    seconds = clock() - start
    all_taken(done, data)
    return Outcome(seconds, done)


def by_call_with_w(data: Real) -> Outcome:
    target = running(data)
    frame, row, stamps = target.frame, target.row, data.stamps_ns.tolist()
    bid, ask, obi = (FEATURES.index(name) for name in ("bid", "ask", "obi"))
    spread, imbalance = 0.0, 0.0
    start = clock()
    for ts_ns, raw in zip(stamps, data.frames, strict=True):
        frame(ts_ns, raw)
        spread += row[ask] - row[bid]
        imbalance += row[obi]
    return Outcome(clock() - start, len(data.frames), spread * TICKS, imbalance)


def by_buffer(data: Real) -> Outcome:
    target = running(data)
    raw, ends = joined(data)
    rows = np.zeros((len(ends), len(FEATURES)))
    start = clock()
    done = target.frames(data.stamps_ns, raw, ends, rows)
    seconds = clock() - start
    all_taken(done, data)
    return Outcome(seconds, done)


def latencies(data: Real) -> Floats:
    """Return the nanoseconds of each call, with what reading the clock takes."""
    frame, now, stamps, taken = running(data).frame, time.perf_counter_ns, data.stamps_ns.tolist(), []
    for ts_ns, raw in zip(stamps, data.frames, strict=True):
        start = now()
        frame(ts_ns, raw)
        taken.append(now() - start)
    return np.array(taken, np.float64)


def verify(data: Real) -> None:
    """Compare both ways with each other and with the oracle after every message."""
    raw, ends = joined(data)
    rows = np.zeros((len(ends), len(FEATURES)))
    all_taken(running(data).frames(data.stamps_ns, raw, ends, rows), data)
    target = running(data)
    for i, (ts_ns, frame) in enumerate(zip(data.stamps_ns.tolist(), data.frames, strict=True)):
        target.frame(ts_ns, frame)
        if not np.array_equal(target.row, rows[i], equal_nan=True):
            raise AssertionError(f"expected one feature row after message {i}, found {target.row} and {rows[i]}")
    bid, ask, obi = (rows[:, FEATURES.index(name)] for name in ("bid", "ask", "obi"))
    spreads, imbalances = oracle(data)
    if not (np.array_equal(np.rint((ask - bid) * TICKS), spreads) and np.array_equal(obi, imbalances)):
        raise AssertionError("expected the oracle's W after every message, found another")


def of_latency(data: Real) -> list[Row]:
    """Return rows of how long a call takes."""
    with one_core():
        runs = [latencies(data) for _ in range(RUNS)]
    rows = []
    for what, which in (("every message", slice(None)), ("depth messages", data.is_depth), ("trades", ~data.is_depth)):
        p50, p95, p99 = (median([quantile(taken[which].tolist(), q) for taken in runs]) / 1_000 for q in (0.5, 0.95, 0.99))
        goal, met = "-", None
        if not rows:
            goal, met = f"p50 <= {P50_US}, p99 <= {P99_US:.0f}", p50 <= P50_US and p99 <= P99_US
        said = f"p50 {p50:.2f}  p95 {p95:.2f}  p99 {p99:.2f} us"
        rows.append(Row("P1", f"  latency of a call, {what}, clock included", said, goal, met))
    return rows


# One feature alone


@njit
def poured(ts_ns: Ints, volumes: Ints, bought: Ints, marks: Ints, reals: Floats) -> None:
    """Pour trades into VPIN's buckets and nothing else."""
    for i in range(len(ts_ns)):
        tape.take_bucket(ts_ns[i], float(volumes[i]), bought[i], marks, reals)


@njit
def weighed(bids: Ints, asks: Ints, levels: Ints, reals: Floats) -> float:
    """Return the sum of the imbalances of best levels: lots int64[5 n] of each side, five a book."""
    total = 0.0
    for i in range(0, len(bids), TOP):
        for j in range(TOP):
            levels[book.BID + book.LOTS + j] = bids[i + j]
            levels[book.ASK + book.LOTS + j] = asks[i + j]
        total += flow.imbalance(TOP, levels, reals)
    return total


def vpin_alone(data: Real) -> Outcome:
    which, target = ~data.is_depth, new_book()
    at = data.starts[:-1][which]
    stamps_ns, volumes, bought = data.stamps_ns[which], data.lots[at], (data.keys[at] < 0).astype(np.int64)
    start = clock()
    poured(stamps_ns, volumes, bought, target.marks, target.reals)
    seconds = clock() - start
    return Outcome(seconds, len(volumes), value=float(target.reals[m.VPIN_NOW]))


def imbalance_alone(data: Real) -> Outcome:
    target = new_book()
    bids, asks = (np.array([np.rint(np.array(best[side]) * LOTS) for best in tops(data)], np.int64).ravel() for side in (1, 3))
    start = clock()
    total = weighed(bids, asks, target.levels, target.reals)
    return Outcome(clock() - start, len(bids) // TOP, value=total)


ALONE = (
    ("vpin, a trade", vpin_alone, Peer("Vpin.update, called from Python", ("wickra",), wickra_vpin)),
    ("obi, a depth message", imbalance_alone, Peer("OrderBookImbalanceTopN(5).update, called from Python", ("wickra",), wickra_imbalance)),
)


def of_features(data: Real) -> list[Row]:
    """Return rows of what one feature takes within our one call, beside the call of its own that a peer wants."""
    rows = []
    for what, ours, peer in ALONE:
        named = f"  {what}, within the one call"
        with one_core():
            outcomes = alternate({"ours": ours} | ({} if peer.missing() else {"peer": peer.side}), data)
        ns = {name: 1e9 / median([outcome.rate for outcome in found]) for name, found in outcomes.items()}
        if peer.missing():
            rows.append(Row("P1", f"{named}; wickra {peer.what}", f"{ns['ours']:,.1f} ns", "-", None, "not installed"))
            continue
        value, theirs = (found[-1].value for found in outcomes.values())
        same = "equal" if abs(value - theirs) < 1e-6 else f"differ: {value:.6f} and {theirs:.6f}"
        ratio = times(ns["peer"] / ns["ours"])
        rows.append(Row("P1", f"{named}; {peer.label()} ({same})", f"{ns['ours']:,.1f} ns", "-", None, f"{ns['peer']:,.0f} ns", ratio))
    return rows


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
    rows[3:3] = of_latency(data)
    return rows + of_features(data)
