"""One call a frame: raw bytes in, book, windows and feature row up to date.

Takes what a proven book may take without a question: the next difference of the chain, the next trade, a ticker that agrees.
All else is ``DECLINED``, with nothing changed, for the general decoder and the state machine behind it; both ways end in the
same state.
"""

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D
from alphapack.jit import Text, address, njit
from alphapack.kernels import binance, flow, tape, wire
from alphapack.kernels import marks as m
from alphapack.kernels.binance import (
    AGGREGATE,
    DEPTH,
    LOWER_A,
    LOWER_B,
    LOWER_F,
    LOWER_L,
    LOWER_M,
    LOWER_P,
    LOWER_Q,
    LOWER_T,
    LOWER_U,
    NO_QUOTE,
    PREVIOUS,
    TRADE,
    UPPER_A,
    UPPER_B,
    UPPER_E,
    UPPER_T,
    UPPER_U,
)

DECLINED = -8
QUIET = 1
"""Taken, and no feature moved but by the time that passed."""

TRADE_ID_JUMP_MAX = 10**9
"""No venue skips so many trades: one absurd id must not make duplicates of all that follow."""


@njit
def note_lag(ts_ns: int, venue_ns: int, marks: Int64Array1D) -> None:
    """Note how far the venue's clock is behind ours, where it tells the time."""
    if venue_ns > 0:
        marks[m.LAG_NS] = ts_ns - venue_ns


@njit
def links(marks: Int64Array1D) -> bool:
    """Tell whether the difference in hand is the next of the chain by the venue's rule."""
    last, fields = marks[m.LAST_UPDATE], m.FIELDS
    if not 0 <= marks[fields + UPPER_U] <= marks[fields + LOWER_U] or marks[fields + LOWER_U] <= last:
        return False
    if marks[m.FORMAT] == wire.BINANCE_SPOT:
        return bool(marks[fields + UPPER_U] <= last + 1)
    return bool(marks[m.FORMAT] == wire.BINANCE_FUTURES and marks[fields + PREVIOUS] == last)


@njit
def take_depth(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> int:
    """Take the difference in hand."""
    venue_ns = wire.nanos(max(marks[m.FIELDS + UPPER_E], 0))
    if venue_ns < 0 or not links(marks) or marks[m.BIDS_N] < 0 or marks[m.ASKS_N] < 0:
        return DECLINED
    flow.roll(ts_ns, marks, reals)
    status = flow.depth(ts_ns, marks, reals, levels)
    if status == wire.NO_ROOM or status == flow.RING_FULL:
        return status
    marks[m.DEPTHS_SEEN] += 1
    note_lag(ts_ns, venue_ns, marks)
    if status != flow.OK:
        return status
    marks[m.LAST_UPDATE] = marks[m.FIELDS + LOWER_U]
    marks[m.DEPTH_NS] = ts_ns
    return flow.compare_tickers(marks, levels)


@njit
def take_trade(ts_ns: int, kind: int, marks: Int64Array1D, reals: Float64Array1D) -> int:
    """Take the trade in hand; an aggregate where no single trades are sent."""
    fields = m.FIELDS
    known, first, last = marks[m.TRADE_ID], marks[fields + LOWER_T], marks[fields + LOWER_T]
    if kind == AGGREGATE:
        first, last = marks[fields + LOWER_F], marks[fields + LOWER_L]
        awaited = marks[m.AGGREGATE_NEXT]
        if marks[m.PLAIN_TRADES] == 1 or marks[m.ASKS_N] != NO_QUOTE or (awaited > 0 and marks[fields + LOWER_A] != awaited):
            return DECLINED
    elif known >= 0 and first > known + 1:  # Some were missed, which somebody must be told.
        return DECLINED
    time = marks[fields + UPPER_T] if marks[fields + UPPER_T] > 0 else max(marks[fields + UPPER_E], 0)
    venue_ns = wire.nanos(time)
    price, lots, maker = marks[fields + LOWER_P], marks[fields + LOWER_Q], marks[fields + LOWER_M]
    if venue_ns < 0 or not 0 <= first <= last or maker < 0 or price <= 0 or lots <= 0 or last <= known:
        return DECLINED
    if known >= 0 and last - known > TRADE_ID_JUMP_MAX:
        return DECLINED
    flow.roll(ts_ns, marks, reals)
    status = flow.trade(ts_ns, price if maker == 1 else -price, lots, marks, reals)
    if status != flow.OK:
        return status if status == flow.RING_FULL else DECLINED
    tape.take_minute(ts_ns, venue_ns, price, lots, marks, reals)
    marks[m.TRADES_SEEN if kind == TRADE else m.AGGREGATES_SEEN] += 1
    note_lag(ts_ns, venue_ns, marks)
    marks[m.TRADE_ID] = last
    if kind == TRADE:
        marks[m.PLAIN_TRADES] = 1
    else:
        marks[m.AGGREGATE_NEXT] = marks[fields + LOWER_A] + 1
    return flow.OK


@njit
def take_ticker(ts_ns: int, marks: Int64Array1D, levels: Int64Array1D) -> int:
    """Take the ticker in hand: hold it against the book of its update, or keep it until the book gets there."""
    fields = m.FIELDS
    update, venue_ns = marks[fields + LOWER_U], wire.nanos(max(marks[fields + UPPER_E], 0))
    bid, bid_lots, ask, ask_lots = marks[fields + LOWER_B], marks[fields + UPPER_B], marks[fields + LOWER_A], marks[fields + UPPER_A]
    if venue_ns < 0 or update < 0 or min(bid, bid_lots, ask, ask_lots) < 0 or marks[m.BIDS_N] != -1 or marks[m.ASKS_N] != -1:
        return DECLINED
    marks[m.TICKERS_SEEN] += 1
    note_lag(ts_ns, venue_ns, marks)
    if update < marks[m.LAST_UPDATE]:
        return QUIET
    row = flow.put_ticker(update, marks)
    marks[row + 1], marks[row + 2], marks[row + 3], marks[row + 4] = bid, bid_lots, -ask, ask_lots
    status = flow.compare_tickers(marks, levels)
    return QUIET if status == flow.OK else status


@njit
def take(ts_ns: int, raw: Text, start: int, end: int, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> int:
    """Take the frame ``raw[start:end]``.

    Returns OK, with the feature row written; QUIET; DECLINED, NO_ROOM or RING_FULL, with nothing changed; or a status of
    ``flow`` that says what the frame has shown to be wrong with the book.
    """
    if marks[m.LIVE] == 0:
        return DECLINED
    kind = binance.read(raw, start, end, marks)
    if kind < 0:
        return DECLINED
    if kind == DEPTH:
        status = take_depth(ts_ns, marks, reals, levels)
    elif kind in (TRADE, AGGREGATE):
        status = take_trade(ts_ns, kind, marks, reals)
    else:
        return take_ticker(ts_ns, marks, levels)
    if status == flow.OK:
        flow.features(ts_ns, marks, reals, levels)
    return status


@njit
def frame(ts_ns: int, raw: bytes, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> int:
    """Take one frame; see ``take``."""
    return take(ts_ns, address(raw), 0, len(raw), marks, reals, levels)


@njit
def frames(
    ts_ns: Int64Array1D,
    raw: bytes,
    ends: Int64Array1D,
    first: int,
    marks: Int64Array1D,
    reals: Float64Array1D,
    levels: Int64Array1D,
    rows: Float64Array2D,
    statuses: Int64Array1D,
) -> int:
    """Take recorded frames from ``first`` on, the i-th of which ends at ``ends[i]``, and write their feature rows and statuses.

    Stops before the first that is not taken, or after one that shows the book to be wrong; returns where.
    """
    start = ends[first - 1] if first > 0 else 0
    text = address(raw)
    for i in range(first, len(ends)):
        status = take(ts_ns[i], text, start, ends[i], marks, reals, levels)
        statuses[i] = status
        if status == DECLINED or status == wire.NO_ROOM or status == flow.RING_FULL:
            return i
        start = ends[i]
        for j in range(m.FEATURES):
            rows[i, j] = reals[m.ROW + j]
        if status < 0:
            return i + 1
    return len(ends)
