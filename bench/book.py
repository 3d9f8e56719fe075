"""P4: structured events -> book -> W, against the books of other projects.

W = best bid and ask, spread, top-5 imbalance, read after every message. All sides get the same events as their own objects or
arrays, made beforehand; what is timed is the book alone.
"""

from itertools import pairwise

import numpy as np
from peers import (
    TOP,
    TRADE,
    Ints,
    Outcome,
    Peer,
    Real,
    against,
    bisect_events,
    clock,
    hftbacktest_roi,
    is_early,
    nautilus_cython,
    nautilus_pyo3,
    oracle,
    order_book_c,
    real,
)
from report import Row

from alphapack.jit import njit
from alphapack.kernels import book

GOAL = 100e6
ROOM = 1 << 14
"""Levels a side for which the book has room; the capture needs 5,020."""

PEERS = (
    Peer("two lists and bisect, plain Python", (), bisect_events),
    Peer(
        "ROIVector depth, qty_at_tick in a compiled loop",
        ("hftbacktest",),
        hftbacktest_roi,
        note="keeps two books",
        published=14.7e6,
    ),
    Peer("OrderBook of nautilus_pyo3, apply_deltas and bids(5)", ("nautilus-trader",), nautilus_pyo3, published=3.35e6),
    Peer("OrderBook of its strategies, bids()[:5]", ("nautilus-trader",), nautilus_cython, is_early, "the first 2,000 messages"),
    Peer("SortedDict in C, index()", ("order-book",), order_book_c),
)


@njit
def replayed(starts: Ints, sides: Ints, keys: Ints, lots: Ints, levels: Ints, old: Ints) -> tuple[int, float]:
    """Apply the events of every message to the book and return the sums of W: spread in ticks, imbalance.

    ``starts`` int64[messages + 1], the rest int64[events] as in ``Real``; ``levels`` is a book of ``alphapack.kernels.book``, ``old``
    has room for a message.
    """
    spread, imbalance = 0, 0.0
    for message in range(len(starts) - 1):
        first, end = starts[message], starts[message + 1]
        while first < end:  # A run of one side at a time: its bids, its asks, or trades, which move no book.
            side, last = sides[first], first + 1
            while last < end and sides[last] == side:
                last += 1
            if side != TRADE:
                at = side * book.SIDE
                highest = book.put_all(levels, at, keys[first:last], lots[first:last], old)
                if highest >= levels[at + book.KEYS + book.TOP - 1]:
                    book.walk(levels, at)
            first = last
        bid, ask = book.size(levels, book.BID, TOP), book.size(levels, book.ASK, TOP)
        spread -= levels[book.ASK + book.KEYS] + levels[book.BID + book.KEYS]
        imbalance += (bid - ask) / (bid + ask)
    return spread, imbalance


def filled(data: Real) -> Ints:
    """Return a book that holds the snapshot."""
    levels = np.zeros(book.FAR_FROM + 4 * ROOM, np.int64)
    sides = ((book.BID, book.FAR_FROM, *data.book[:2]), (book.ASK, book.FAR_FROM + 2 * ROOM, *data.book[2:]))
    for side, at, keys, lots in sides:
        levels[side + book.FAR_AT], levels[side + book.ROOM] = at, ROOM
        book.fill(levels, side, np.concatenate((keys, lots)), len(keys))
    return levels


def our_book(data: Real) -> Outcome:
    levels = filled(data)
    start = clock()
    spread, imbalance = replayed(data.starts, data.sides, data.keys, data.lots, levels, np.empty(ROOM, np.int64))
    return Outcome(clock() - start, data.events, spread, imbalance)


def verify(data: Real) -> None:
    """Compare the book with two bisect lists after every single message."""
    levels = filled(data)
    spreads, imbalances = oracle(data)
    for i, (first, end) in enumerate(pairwise(data.starts.tolist())):
        starts = np.array((0, end - first))
        found = replayed(starts, data.sides[first:end], data.keys[first:end], data.lots[first:end], levels, np.empty(ROOM, np.int64))
        if found != (spreads[i], imbalances[i]):
            raise AssertionError(f"expected W {spreads[i]} {imbalances[i]} after message {i}, found {found}")


def run() -> list[Row]:
    verify(real())
    goal = f">= {GOAL / 1e6:.0f}M"
    return against("P4", "events", {"structured events -> book -> W a message; W verified at each": (our_book, goal, GOAL)}, PEERS)
