"""Rolling order-flow features of one symbol, O(1) a message in the length of the windows.

State is a handful of arrays that the owner allocates, grows and saves:

``marks``    int64[MARKS]      counts, positions, running integer sums and the steps; indices are the constants below
``reals``    float64[REALS]    mid history on the 100 ms grid and the sizes of the steps
``trades``   int64[2^a, 2]     ring: receive time, signed base volume (positive: the buyer took)
``cancels``  int64[2^b, 5]     ring, one row a depth message: time, removed, unexplained, removals, changes
``pending``  int64[2^c, 3]     ring of trades that may explain a later fall of their level: time, key, lots unused

Positions in rings only grow; an element lives at ``position & (size - 1)``. Sums are integers, so what enters a window
leaves it exactly. Windows are ``(t - w, t]`` on the engine's clock.
"""

import math

from alphapack.arrays import Float64Array1D, Int64Array1D, Int64Array2D
from alphapack.jit import njit
from alphapack.kernels import book, wire

OK = 0
CROSSED = -5
RING_FULL = -6

NS_PER_S = 1_000_000_000
GRID_NS = 100_000_000
"""Spacing of the grid on which mids are compared for micro_vol."""
GRID_STEPS = 50
PENDING_NS = 250_000_000
"""How long a trade may wait for the depth message that shows its effect (DEFINITIONS: 250 ms)."""
LOWEST = -(1 << 62)
SUM_MAX = 1 << 62
"""Bound of the running sums: reached only by hostile quantities, and checked before it is passed."""
TALLY_MAX = 1 << 60

# marks: counts and steps
BIDS, ASKS = 0, 1
TICK, LOT = 2, 4  # each: units, decimals
LIVE_SINCE = 6
GRID_AT, GRID_HAS, MID_HAS, MID_TICKS = 7, 8, 9, 10
# marks: trade ring: head, then for 1, 5 and 30 s: tail, bought, sold
TRADE_HEAD, TRADE_1S, TRADE_5S, TRADE_30S = 11, 12, 15, 18
# marks: cancel ring: head, tail, then sums of removed, unexplained, removals, changes
CANCEL_HEAD, CANCEL_TAIL, CANCEL_SUMS = 21, 22, 23
PENDING_HEAD, PENDING_TAIL = 27, 28
TALLY = 29  # removed, unexplained, removals, changes of the message being folded
MARKS = 33

# reals
LOG_MID, GRID_LOG_MID, PRICE_UNITS, PRICE_SCALE, LOT_UNITS, LOT_SCALE, CONTRACT, CHANGES = 0, 1, 2, 3, 4, 5, 6, 7
REALS = CHANGES + GRID_STEPS

K = 5
"""Levels of obi, depth, cancel_rate and queue_rate."""
(BID, ASK, MID, MICROPRICE, SPREAD_BPS, OBI, OBI_1, OBI_10, TI, TI_1S, TI_30S, TI_N, MICRO_VOL, MICRO_VOL_1S) = range(14)
(CANCEL_RATE, CANCEL_N, QUEUE_RATE, DEPTH_BID, DEPTH_ASK, DEPTH_BID_QUOTE, DEPTH_ASK_QUOTE) = range(14, 21)
FEATURES = 21


@njit
def observe_mid(marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array2D) -> None:
    """Note the mid after a change of the book; a one-sided book keeps the last one (previous tick)."""
    if marks[BIDS] == 0 or marks[ASKS] == 0:
        return
    ticks = levels[0, marks[BIDS] - 1] - levels[2, marks[ASKS] - 1]
    if marks[MID_HAS] == 1 and ticks == marks[MID_TICKS]:
        return
    marks[MID_HAS] = 1
    marks[MID_TICKS] = ticks
    reals[LOG_MID] = math.log(0.5 * ticks * reals[PRICE_UNITS] / reals[PRICE_SCALE])


@njit
def advance_grid(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Record the mid changes of all grid instants before ``ts_ns``; those from the last one on carry the mid as it stands."""
    last = (ts_ns - 1) // GRID_NS
    at = marks[GRID_AT]
    if last - at > GRID_STEPS:  # Nothing moved for longer than the longest window: only the newest instants matter.
        step_over = last - GRID_STEPS
        if marks[MID_HAS] == 1:
            reals[GRID_LOG_MID] = reals[LOG_MID]
            marks[GRID_HAS] = 1
        for i in range(GRID_STEPS):
            reals[CHANGES + i] = 0.0
        at = step_over
    while at < last:
        at += 1
        change = 0.0
        if marks[MID_HAS] == 1:
            if marks[GRID_HAS] == 1:
                change = reals[LOG_MID] - reals[GRID_LOG_MID]
            reals[GRID_LOG_MID] = reals[LOG_MID]
            marks[GRID_HAS] = 1
        reals[CHANGES + at % GRID_STEPS] = change
    marks[GRID_AT] = at


@njit
def micro_vol(ts_ns: int, steps: int, marks: Int64Array1D, reals: Float64Array1D) -> float:
    """Return the root of the sum of squared 100 ms log-mid changes at the ``steps`` newest grid instants <= ``ts_ns``."""
    at = marks[GRID_AT]  # All instants before ts_ns are recorded, so ts_ns itself is the only one that can be missing.
    total = 0.0
    if ts_ns % GRID_NS == 0:
        steps -= 1
    for i in range(at - steps + 1, at + 1):
        change = reals[CHANGES + i % GRID_STEPS]
        total += change * change
    if ts_ns % GRID_NS == 0 and marks[MID_HAS] == 1 and marks[GRID_HAS] == 1:
        change = reals[LOG_MID] - reals[GRID_LOG_MID]
        total += change * change
    return math.sqrt(total)


@njit
def expire_trades(ts_ns: int, window: int, width_ns: int, marks: Int64Array1D, trades: Int64Array2D) -> None:
    """Let trades at or before ``ts_ns - width_ns`` leave the window whose marks start at ``window``."""
    mask = trades.shape[0] - 1
    tail = marks[window]
    while tail < marks[TRADE_HEAD] and trades[tail & mask, 0] <= ts_ns - width_ns:
        volume = trades[tail & mask, 1]
        if volume > 0:
            marks[window + 1] -= volume
        else:
            marks[window + 2] += volume
        tail += 1
    marks[window] = tail


@njit
def expire_pending(ts_ns: int, marks: Int64Array1D, pending: Int64Array2D) -> None:
    """Forget trades that have waited for their depth message for too long."""
    mask = pending.shape[0] - 1
    while marks[PENDING_TAIL] < marks[PENDING_HEAD] and pending[marks[PENDING_TAIL] & mask, 0] <= ts_ns - PENDING_NS:
        marks[PENDING_TAIL] += 1


@njit
def roll(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D, trades: Int64Array2D, cancels: Int64Array2D) -> None:
    """Bring every window to ``ts_ns``; rolling twice, or in between, changes nothing that is read later."""
    advance_grid(ts_ns, marks, reals)
    expire_trades(ts_ns, TRADE_1S, NS_PER_S, marks, trades)
    expire_trades(ts_ns, TRADE_5S, 5 * NS_PER_S, marks, trades)
    expire_trades(ts_ns, TRADE_30S, 30 * NS_PER_S, marks, trades)
    mask = cancels.shape[0] - 1
    while marks[CANCEL_TAIL] < marks[CANCEL_HEAD] and cancels[marks[CANCEL_TAIL] & mask, 0] <= ts_ns - 5 * NS_PER_S:
        for i in range(4):
            marks[CANCEL_SUMS + i] -= cancels[marks[CANCEL_TAIL] & mask, 1 + i]
        marks[CANCEL_TAIL] += 1


@njit
def explain(key: int, removed: int, marks: Int64Array1D, pending: Int64Array2D) -> int:
    """Return how much of ``removed`` lots the pending trades at ``key`` explain, and use all of them up."""
    mask = pending.shape[0] - 1
    traded = 0
    for i in range(marks[PENDING_TAIL], marks[PENDING_HEAD]):
        if pending[i & mask, 1] == key:
            traded += pending[i & mask, 2]
            pending[i & mask, 2] = 0
    return min(traded, removed)


@njit
def fold(
    side: Int64Array2D, n: int, keys: Int64Array1D, quantities: Int64Array1D, m: int, marks: Int64Array1D, pending: Int64Array2D
) -> int:
    """Apply ``m`` absolute quantities to a side of ``n`` levels and tally what left its top ``K``; returns the new count."""
    edge = side[0, n - K] if n >= K else LOWEST
    for i in range(m):
        key, quantity = keys[i], quantities[i]
        at = book.find(side[0], n, key)
        known = at < n and side[0, at] == key
        old = side[1, at] if known else 0
        if quantity == old:
            continue
        explained = 0
        if marks[PENDING_TAIL] < marks[PENDING_HEAD]:
            explained = explain(key, max(0, old - quantity), marks, pending)
        if key >= edge:
            marks[TALLY + 3] += 1
            if quantity < old and marks[TALLY] < TALLY_MAX:
                marks[TALLY] += old - quantity
                marks[TALLY + 1] += old - quantity - explained
                marks[TALLY + 2] += 1
        if quantity == 0:
            n = book.drop(side, n, at)
        elif known:
            side[1, at] = quantity
        else:
            n = book.put(side, n, at, key, quantity)
    return n


@njit
def parse(bids: bytes, asks: bytes, marks: Int64Array1D, scratch: Int64Array2D) -> int:
    """Read both level lists into ``scratch`` (rows: bid keys, bid lots, ask keys, ask lots).

    Returns the counts packed as ``bids << 32 | asks``, or a negative status of ``kernels.wire``.
    """
    m = wire.levels(bids, marks[TICK : TICK + 2], marks[LOT : LOT + 2], 1, scratch[0], scratch[1])
    if m < 0:
        return m
    k = wire.levels(asks, marks[TICK : TICK + 2], marks[LOT : LOT + 2], -1, scratch[2], scratch[3])
    return k if k < 0 else (m << 32) | k


@njit
def depth(
    ts_ns: int,
    counts: int,
    scratch: Int64Array2D,
    levels: Int64Array2D,
    marks: Int64Array1D,
    reals: Float64Array1D,
    cancels: Int64Array2D,
    pending: Int64Array2D,
) -> int:
    """Fold a parsed depth difference into book and windows.

    ``levels`` holds the bid side in rows 0-1 and the ask side in rows 2-3. Returns OK; NO_ROOM or RING_FULL, which change
    nothing; or CROSSED or ``wire.TOO_LARGE``, after which the book is no longer to be trusted.
    """
    m, k = counts >> 32, counts & 0xFFFFFFFF
    if marks[BIDS] + m > levels.shape[1] or marks[ASKS] + k > levels.shape[1]:
        return wire.NO_ROOM
    if marks[CANCEL_HEAD] - marks[CANCEL_TAIL] >= cancels.shape[0]:
        return RING_FULL
    advance_grid(ts_ns, marks, reals)
    expire_pending(ts_ns, marks, pending)
    marks[TALLY : TALLY + 4] = 0
    marks[BIDS] = fold(levels[0:2], marks[BIDS], scratch[0], scratch[1], m, marks, pending)
    marks[ASKS] = fold(levels[2:4], marks[ASKS], scratch[2], scratch[3], k, marks, pending)
    if marks[CANCEL_SUMS] > SUM_MAX - marks[TALLY]:
        return wire.TOO_LARGE
    if marks[TALLY + 3] > 0:
        row = marks[CANCEL_HEAD] & (cancels.shape[0] - 1)
        cancels[row, 0] = ts_ns
        for i in range(4):
            cancels[row, 1 + i] = marks[TALLY + i]
            marks[CANCEL_SUMS + i] += marks[TALLY + i]
        marks[CANCEL_HEAD] += 1
    if marks[BIDS] > 0 and marks[ASKS] > 0 and levels[0, marks[BIDS] - 1] >= -levels[2, marks[ASKS] - 1]:
        return CROSSED
    observe_mid(marks, reals, levels)
    return OK


@njit
def trade(ts_ns: int, key: int, lots: int, volume: int, marks: Int64Array1D, trades: Int64Array2D, pending: Int64Array2D) -> int:
    """Take one trade into the windows.

    Parameters
    ----------
    key : int
        Key of the level that was hit: +ticks of a bid, -ticks of an ask.
    lots, volume : int
        Quantity in lots, and base volume in the unit of this symbol's windows, both > 0.

    Returns
    -------
    int
        OK, RING_FULL, or ``wire.TOO_LARGE`` where a window's sum would leave the integers; nothing changes then.
    """
    oldest = min(marks[TRADE_1S], marks[TRADE_5S], marks[TRADE_30S])
    if marks[TRADE_HEAD] - oldest >= trades.shape[0] or marks[PENDING_HEAD] - marks[PENDING_TAIL] >= pending.shape[0]:
        return RING_FULL
    side = 2 if key > 0 else 1
    if marks[TRADE_30S + side] > SUM_MAX - volume:
        return wire.TOO_LARGE
    for window in (TRADE_1S, TRADE_5S, TRADE_30S):
        marks[window + side] += volume
    row = marks[TRADE_HEAD] & (trades.shape[0] - 1)
    trades[row, 0] = ts_ns
    trades[row, 1] = -volume if key > 0 else volume
    marks[TRADE_HEAD] += 1
    row = marks[PENDING_HEAD] & (pending.shape[0] - 1)
    pending[row, 0] = ts_ns
    pending[row, 1] = key
    pending[row, 2] = lots
    marks[PENDING_HEAD] += 1
    return OK


@njit
def ratio(a: int, b: int) -> float:
    """Return ``(a - b) / (a + b)``, and 0 for an empty window."""
    return (a - b) / (a + b) if a + b > 0 else 0.0


@njit
def base_size(side: Int64Array2D, n: int, depth: int, reals: Float64Array1D) -> tuple[float, float]:
    """Return base size and quote value of the best ``depth`` levels; contracts of an inverse instrument are converted."""
    base = quote = 0.0
    for i in range(n - 1, max(n - depth, 0) - 1, -1):
        price = abs(side[0, i]) * reals[PRICE_UNITS] / reals[PRICE_SCALE]
        quantity = side[1, i] * reals[LOT_UNITS] / reals[LOT_SCALE]
        if reals[CONTRACT] > 0.0:
            quantity = quantity * reals[CONTRACT] / price
        base += quantity
        quote += quantity * price
    return base, quote


@njit
def imbalance(levels: Int64Array2D, marks: Int64Array1D, reals: Float64Array1D, depth: int) -> float:
    """Return ``(B - A) / (B + A)`` over the best ``depth`` levels; exact in lots where a lot is base currency."""
    if reals[CONTRACT] > 0.0:
        bid, _ = base_size(levels[0:2], marks[BIDS], depth, reals)
        ask, _ = base_size(levels[2:4], marks[ASKS], depth, reals)
        return (bid - ask) / (bid + ask)
    return ratio(book.size(levels[0:2], marks[BIDS], depth), book.size(levels[2:4], marks[ASKS], depth))


@njit
def touch(levels: Int64Array2D, marks: Int64Array1D, reals: Float64Array1D, row: Float64Array1D) -> None:
    """Write the features that need no window: prices, spread, imbalances, depth."""
    n, m = marks[BIDS], marks[ASKS]
    row[DEPTH_BID], row[DEPTH_BID_QUOTE] = base_size(levels[0:2], n, K, reals)
    row[DEPTH_ASK], row[DEPTH_ASK_QUOTE] = base_size(levels[2:4], m, K, reals)
    if n > 0:
        row[BID] = levels[0, n - 1] * reals[PRICE_UNITS] / reals[PRICE_SCALE]
    if m > 0:
        row[ASK] = -levels[2, m - 1] * reals[PRICE_UNITS] / reals[PRICE_SCALE]
    if n == 0 or m == 0:
        return
    bid_ticks, ask_ticks = levels[0, n - 1], -levels[2, m - 1]
    row[MID] = 0.5 * (bid_ticks + ask_ticks) * reals[PRICE_UNITS] / reals[PRICE_SCALE]
    row[SPREAD_BPS] = 10_000.0 * (2.0 * (ask_ticks - bid_ticks) / (bid_ticks + ask_ticks))
    bid_size, _ = base_size(levels[0:2], n, 1, reals)
    ask_size, _ = base_size(levels[2:4], m, 1, reals)
    row[MICROPRICE] = (row[BID] * ask_size + row[ASK] * bid_size) / (ask_size + bid_size)
    row[OBI] = imbalance(levels, marks, reals, K)
    row[OBI_1] = imbalance(levels, marks, reals, 1)
    row[OBI_10] = imbalance(levels, marks, reals, 10)


@njit
def windows(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D, row: Float64Array1D) -> None:
    """Write the features of the (already rolled) windows that are whole since the book became LIVE."""
    age_ns = ts_ns - marks[LIVE_SINCE]
    if age_ns >= NS_PER_S:
        row[TI_1S] = ratio(marks[TRADE_1S + 1], marks[TRADE_1S + 2])
        row[MICRO_VOL_1S] = micro_vol(ts_ns, GRID_STEPS // 5, marks, reals)
    if age_ns >= 30 * NS_PER_S:
        row[TI_30S] = ratio(marks[TRADE_30S + 1], marks[TRADE_30S + 2])
    if age_ns < 5 * NS_PER_S:
        return
    row[TI] = ratio(marks[TRADE_5S + 1], marks[TRADE_5S + 2])
    row[MICRO_VOL] = micro_vol(ts_ns, GRID_STEPS, marks, reals)
    removed, unexplained = marks[CANCEL_SUMS], marks[CANCEL_SUMS + 1]
    row[CANCEL_RATE] = unexplained / removed if removed > 0 else 0.0
    row[QUEUE_RATE] = marks[CANCEL_SUMS + 3] / 5.0


@njit
def features(
    ts_ns: int,
    levels: Int64Array2D,
    marks: Int64Array1D,
    reals: Float64Array1D,
    trades: Int64Array2D,
    cancels: Int64Array2D,
    row: Float64Array1D,
) -> None:
    """Roll to ``ts_ns`` and write every feature into ``row`` (float64[FEATURES]); NaN where it is not known."""
    roll(ts_ns, marks, reals, trades, cancels)
    row[:] = math.nan
    row[TI_N] = marks[TRADE_HEAD] - marks[TRADE_5S]
    row[CANCEL_N] = marks[CANCEL_SUMS + 2]
    touch(levels, marks, reals, row)
    windows(ts_ns, marks, reals, row)
    for i in range(FEATURES):
        row[i] += 0.0  # -0.0 becomes 0.0: one bit pattern a value.
