"""Rolling order-flow features of one symbol, O(1) a message in the length of the windows and the depth of the book.

State is three arrays that the owner allocates, grows and saves (``kernels.marks`` names their places):

``marks``   int64    counts, positions, running integer sums, steps; behind them the rings
``reals``   float64  mid history on its grids, the seconds of Kyle's lambda, the fitted microprice, and the feature row
``levels``  int64    the book (``kernels.book``)

The rings:

``TRADES``   time, signed base volume (positive: the buyer took)
``DEPTHS``   a row a depth message that moved the top: time, removed, unexplained, removals, changes, ofi of level 1, of all
``WAITING``  trades that may explain a later fall of their level: time, key, lots
``UNUSED``   a table of what waits, by key: key, lots not used up, position from which trades count
``TICKERS``  tops of book as the venue states them for updates to come: update, bid key, lots, ask key, lots

Positions in rings only grow; an element lives at ``place + width * (position & mask)``. Sums are integers, so what enters a
window leaves it exactly. Windows are ``(t - w, t]`` on the engine's clock.
"""

import math

from alphapack.arrays import Float64Array1D, Int64Array1D
from alphapack.jit import njit
from alphapack.kernels import book, tape, wire
from alphapack.kernels import marks as m
from alphapack.kernels.book import ASK, BID, KEYS, LOTS, OLD_KEYS, OLD_LOTS

OK = 0
CROSSED = -5
RING_FULL = -6
CONTRADICTED = -7
"""The venue's own ticker of the update that was just applied states another top of the book."""


# The mid and its grid


@njit
def observe_mid(marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> None:
    """Note the mid after a change of the book; a one-sided book keeps the last one (previous tick)."""
    if levels[BID + book.TOP_N] == 0 or levels[ASK + book.TOP_N] == 0:
        return
    ticks = levels[BID + KEYS] - levels[ASK + KEYS]
    if marks[m.MID_HAS] == 1 and ticks == marks[m.MID_TICKS]:
        return
    marks[m.MID_HAS] = 1
    marks[m.MID_TICKS] = ticks
    reals[m.LOG_MID] = math.log(0.5 * ticks * reals[m.PRICE_UNITS] / reals[m.PRICE_SCALE])


@njit
def squares(at: int, steps: int, reals: Float64Array1D) -> float:
    """Return the sum of the squared log-mid changes of the ``steps`` grid instants up to ``at``."""
    total = 0.0
    for i in range(at - steps + 1, at + 1):
        change = reals[m.CHANGES + (i & (m.GRID_RING - 1))]
        total += change * change
    return total


@njit
def advance_grid(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Record the mid changes of all grid instants before ``ts_ns``; those from the last one on carry the mid as it stands."""
    last = (ts_ns - 1) // m.GRID_NS
    at = marks[m.GRID_AT]
    if last - at > m.GRID_STEPS:  # Nothing moved for longer than the longest window: only the newest instants matter.
        if marks[m.MID_HAS] == 1:
            reals[m.GRID_LOG_MID] = reals[m.LOG_MID]
            marks[m.GRID_HAS] = 1
        for i in range(m.GRID_RING):
            reals[m.CHANGES + i] = 0.0
        at = last - m.GRID_STEPS
    while at < last:
        at += 1
        change = 0.0
        if marks[m.MID_HAS] == 1:
            if marks[m.GRID_HAS] == 1:
                change = reals[m.LOG_MID] - reals[m.GRID_LOG_MID]
            reals[m.GRID_LOG_MID] = reals[m.LOG_MID]
            marks[m.GRID_HAS] = 1
        reals[m.CHANGES + (at & (m.GRID_RING - 1))] = change
    marks[m.GRID_AT] = at
    reals[m.VOL_5S] = math.sqrt(squares(at, m.GRID_STEPS, reals))
    reals[m.VOL_1S] = math.sqrt(squares(at, m.GRID_STEPS // 5, reals))


@njit
def micro_vol_at_instant(steps: int, marks: Int64Array1D, reals: Float64Array1D) -> float:
    """Return micro_vol at a grid instant itself, which is not recorded before time has passed it."""
    total = squares(marks[m.GRID_AT], steps - 1, reals)
    if marks[m.MID_HAS] == 1 and marks[m.GRID_HAS] == 1:
        change = reals[m.LOG_MID] - reals[m.GRID_LOG_MID]
        total += change * change
    return math.sqrt(total)


# Windows


@njit
def expire_trades(ts_ns: int, window: int, width_ns: int, marks: Int64Array1D) -> None:
    """Let trades at or before ``ts_ns - width_ns`` leave the window whose marks start at ``window``."""
    at, mask, head = marks[m.TRADES], marks[m.TRADES + 1], marks[m.TRADES_HEAD]
    tail = marks[window]
    while tail < head:
        row = at + m.TRADES_WIDTH * (tail & mask)
        if marks[row] > ts_ns - width_ns:
            break
        volume = marks[row + 1]
        if volume > 0:
            marks[window + 1] -= volume
        else:
            marks[window + 2] += volume
        tail += 1
    marks[window] = tail


@njit
def expire_depths(ts_ns: int, window: int, width_ns: int, first: int, sums: int, marks: Int64Array1D) -> None:
    """Let depth rows at or before ``ts_ns - width_ns`` leave a window that sums ``sums`` columns from ``first`` on."""
    at, mask, head = marks[m.DEPTHS], marks[m.DEPTHS + 1], marks[m.DEPTHS_HEAD]
    tail = marks[window]
    while tail < head:
        row = at + m.DEPTHS_WIDTH * (tail & mask)
        if marks[row] > ts_ns - width_ns:
            break
        for i in range(sums):
            marks[window + 1 + i] -= marks[row + first + i]
        tail += 1
    marks[window] = tail


@njit
def roll(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Bring every window to ``ts_ns``; rolling twice, or in between, changes nothing that is read later."""
    if (marks[m.GRID_AT] + 1) * m.GRID_NS < ts_ns:
        advance_grid(ts_ns, marks, reals)
    if (marks[m.SECOND_AT] + 1) * m.NS_PER_S < ts_ns:
        tape.close_seconds(ts_ns, marks, reals)
    expire_trades(ts_ns, m.TRADES_1S, m.NS_PER_S, marks)
    expire_trades(ts_ns, m.TRADES_5S, 5 * m.NS_PER_S, marks)
    expire_trades(ts_ns, m.TRADES_30S, 30 * m.NS_PER_S, marks)
    expire_depths(ts_ns, m.DEPTHS_5S, 5 * m.NS_PER_S, 1, 4, marks)
    expire_depths(ts_ns, m.DEPTHS_1S, m.NS_PER_S, 5, 2, marks)
    expire_waiting(ts_ns, marks)


# Trades that wait for the depth message that shows them


@njit
def slot_of(key: int, marks: Int64Array1D) -> int:
    """Return the place of a key's entry in the table of what waits, or of the empty entry (third column -1) where it belongs."""
    at, mask = int(marks[m.UNUSED]), int(marks[m.UNUSED + 1])
    i = (key ^ (key >> 11)) & mask
    while True:
        row = at + m.UNUSED_WIDTH * i
        if marks[row + 2] < 0 or marks[row] == key:
            return row
        i = (i + 1) & mask


@njit
def clear_unused(marks: Int64Array1D) -> None:
    """Empty the table of what waits."""
    at = marks[m.UNUSED]
    for i in range(marks[m.UNUSED + 1] + 1):
        marks[at + m.UNUSED_WIDTH * i + 2] = -1
    marks[m.UNUSED_N] = 0


@njit
def tidy_waiting(marks: Int64Array1D) -> None:
    """Strike what is used up from the waiting trades, and make the table anew from the rest."""
    at, mask = marks[m.WAITING], marks[m.WAITING + 1]
    for position in range(marks[m.WAITING_TAIL], marks[m.WAITING_HEAD]):
        row = at + m.WAITING_WIDTH * (position & mask)
        if position < marks[slot_of(marks[row + 1], marks) + 2]:
            marks[row + 2] = 0
    fill_unused(marks)


@njit
def fill_unused(marks: Int64Array1D) -> None:
    """Make the table of what waits from the waiting trades alone."""
    clear_unused(marks)
    at, mask = marks[m.WAITING], marks[m.WAITING + 1]
    for position in range(marks[m.WAITING_TAIL], marks[m.WAITING_HEAD]):
        row = at + m.WAITING_WIDTH * (position & mask)
        if marks[row + 2] > 0:
            add_unused(marks[row + 1], marks[row + 2], marks)


@njit
def add_unused(key: int, lots: int, marks: Int64Array1D) -> None:
    """Add lots that were traded to what may explain a fall of their level."""
    row = slot_of(key, marks)
    if marks[row + 2] < 0:
        marks[row] = key
        marks[row + 1] = marks[row + 2] = 0
        marks[m.UNUSED_N] += 1
    marks[row + 1] += lots


@njit
def expire_waiting(ts_ns: int, marks: Int64Array1D) -> None:
    """Forget trades that have waited for their depth message for too long."""
    at, mask, head = marks[m.WAITING], marks[m.WAITING + 1], marks[m.WAITING_HEAD]
    tail = marks[m.WAITING_TAIL]
    if tail == head:
        return
    while tail < head:
        row = at + m.WAITING_WIDTH * (tail & mask)
        if marks[row] > ts_ns - m.UNUSED_NS:
            break
        entry = slot_of(marks[row + 1], marks)
        if tail >= marks[entry + 2]:
            marks[entry + 1] -= marks[row + 2]
        tail += 1
    marks[m.WAITING_TAIL] = tail
    if tail == head and marks[m.UNUSED_N] > 0:
        clear_unused(marks)


@njit
def explain(key: int, removed: int, marks: Int64Array1D) -> int:
    """Return how much of ``removed`` lots the waiting trades at ``key`` explain, and use all of them up."""
    entry = slot_of(key, marks)
    if marks[entry + 2] < 0:
        return 0
    traded = int(marks[entry + 1])
    marks[entry + 1] = 0
    marks[entry + 2] = marks[m.WAITING_HEAD]
    return min(traded, removed)


# Depth


@njit
def tally(removed: int, explained: int, marks: Int64Array1D) -> None:
    """Count a change of a level of the top; ``removed`` <= 0 where its quantity did not fall."""
    marks[m.TALLY + 3] += 1
    if removed > 0 and marks[m.TALLY] < m.TALLY_MAX:
        marks[m.TALLY] += removed
        marks[m.TALLY + 1] += removed - explained
        marks[m.TALLY + 2] += 1


@njit
def fold(side: int, at: int, n: int, levels: Int64Array1D, marks: Int64Array1D) -> bool:
    """Apply ``n`` absolute quantities of the scratch at ``at`` and tally what left the top ``K``; tells whether the best moved."""
    room = marks[m.SCRATCH + 1]
    keys, quantities = marks[at : at + n], marks[at + room : at + room + n]
    before = marks[marks[m.SCRATCH] + 4 * room : marks[m.SCRATCH] + 4 * room + n]
    edge = levels[side + KEYS + book.TOP - 1]
    top_edge = levels[side + KEYS + m.K - 1]
    highest = book.put_all(levels, side, keys, quantities, before)
    waits = marks[m.WAITING_TAIL] < marks[m.WAITING_HEAD]
    if not waits and highest < top_edge:
        return bool(highest >= edge)
    moved = False
    for i in range(n):
        key, old, lots = keys[i], before[i], quantities[i]
        if old == lots:
            continue
        explained = explain(key, max(0, old - lots), marks) if waits else 0
        if key >= top_edge:
            tally(old - lots, explained, marks)
        moved = moved or key >= edge
    return moved


@njit
def base_volume(key: int, lots: int, marks: Int64Array1D, reals: Float64Array1D) -> int:
    """Return a quantity in the unit of the windows: lots; or whole base units of the coins that inverse contracts are worth."""
    if reals[m.CONTRACT] == 0.0 or lots == 0:
        return lots
    coins = lots * reals[m.SIZE_UNITS] / reals[m.SIZE_SCALE] * reals[m.CONTRACT] / (abs(key) * reals[m.PRICE_UNITS] / reals[m.PRICE_SCALE])
    volume: float = min(coins * marks[m.BASE_UNITS], float(m.VOLUME_MAX))
    return math.floor(volume + 0.5)


@njit
def order_flow(side: int, level: int, levels: Int64Array1D, marks: Int64Array1D, reals: Float64Array1D) -> int:
    """Return what level ``level`` of a side added to the order flow (Cont, Kukanov, Stoikov 2014, e_n) since the last message."""
    new, old = levels[side + KEYS + level], levels[side + OLD_KEYS + level]
    flow = 0
    if new >= old:
        flow += base_volume(new, levels[side + LOTS + level], marks, reals)
    if new <= old:
        flow -= base_volume(old, levels[side + OLD_LOTS + level], marks, reals)
    return flow


@njit
def note_depth(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> None:
    """Put a depth message that changed the top into the windows of cancels and of order flow."""
    row = marks[m.DEPTHS] + m.DEPTHS_WIDTH * (marks[m.DEPTHS_HEAD] & marks[m.DEPTHS + 1])
    marks[row] = ts_ns
    first = total = 0
    for level in range(m.K):
        flow = 0
        for side in book.SIDES:
            added = order_flow(side, level, levels, marks, reals)
            flow += added if side == BID else -added
        if level == 0:
            first = flow
        total += flow
    for i in range(4):
        marks[row + 1 + i] = marks[m.TALLY + i]
        marks[m.DEPTHS_5S + 1 + i] += marks[m.TALLY + i]
    marks[row + 5] = first
    marks[row + 6] = total
    marks[m.DEPTHS_1S + 1] += first
    marks[m.DEPTHS_1S + 2] += total
    marks[m.DEPTHS_HEAD] += 1


@njit
def top_state(levels: Int64Array1D) -> int:
    """Return the state of the top for Stoikov's microprice, 4 * imbalance bucket + spread bucket; -1 for a one-sided book."""
    bid, ask = int(levels[BID + LOTS]), int(levels[ASK + LOTS])
    if bid == 0 or ask == 0:
        return -1
    spread = -int(levels[ASK + KEYS]) - int(levels[BID + KEYS])
    bucket = min(m.IMBALANCES - 1, m.IMBALANCES * bid // (bid + ask))
    return m.SPREADS * bucket + min(spread, m.SPREADS) - 1


@njit
def best_changed(side: int, levels: Int64Array1D) -> bool:
    """Tell whether price or quantity of a side's best level differ from before the message."""
    return bool(levels[side + KEYS] != levels[side + OLD_KEYS] or levels[side + LOTS] != levels[side + OLD_LOTS])


@njit
def count_move(ticks: int, marks: Int64Array1D, levels: Int64Array1D) -> None:
    """Count the transition of the state of the best quotes, where they changed; ``ticks`` is twice the mid before."""
    if not (best_changed(BID, levels) or best_changed(ASK, levels)):
        return
    state = top_state(levels)
    before = marks[m.TOP_STATE]
    marks[m.TOP_STATE] = state
    if state < 0 or before < 0:
        return
    at = marks[m.COUNTS] + m.STATES * before + state
    jump = marks[m.MID_TICKS] - ticks
    if jump == 0:
        marks[at] += 1
        return
    marks[at + m.STATES * m.STATES] += 1
    marks[marks[m.COUNTS] + 2 * m.STATES * m.STATES + before] += min(max(jump, -1_000_000), 1_000_000)
    marks[m.MOVES] += 1


@njit
def changed(ts_ns: int, moved: bool, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> int:
    """Bring everything up to date with levels that were put and tallied; ``moved`` tells whether the best ``TOP`` may differ."""
    if not moved:
        return OK
    for side in book.SIDES:
        book.walk(levels, side)
    flow = max(abs(marks[m.DEPTHS_1S + 1]), abs(marks[m.DEPTHS_1S + 2]))
    if marks[m.DEPTHS_5S + 1] > m.SUM_MAX - marks[m.TALLY] or flow > m.FLOW_MAX:
        return wire.OFF_GRID
    if marks[m.TALLY + 3] > 0:
        note_depth(ts_ns, marks, reals, levels)
    marks[m.TOUCHED] = 1
    if levels[BID + book.TOP_N] > 0 and levels[ASK + book.TOP_N] > 0 and levels[BID + KEYS] >= -levels[ASK + KEYS]:
        return CROSSED
    ticks = marks[m.MID_TICKS]
    observe_mid(marks, reals, levels)
    if marks[m.TALLY + 3] > 0 and marks[m.MID_HAS] == 1:
        count_move(ticks, marks, levels)
    return OK


@njit
def has_room(bids: int, asks: int, levels: Int64Array1D) -> bool:
    """Tell whether so many more levels a side fit, wherever they fall."""
    bids += levels[BID + book.NEAR] + levels[BID + book.FAR]
    asks += levels[ASK + book.NEAR] + levels[ASK + book.FAR]
    return bool(bids <= levels[BID + book.ROOM] and asks <= levels[ASK + book.ROOM])


@njit
def depth(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> int:
    """Fold the levels in the scratch (``BIDS_N``, ``ASKS_N``) into book and windows, which are rolled to ``ts_ns``.

    Returns OK; NO_ROOM or RING_FULL, which change nothing; or CROSSED or OFF_GRID (sums beyond counting), after which the
    book is no longer to be trusted.
    """
    if not has_room(marks[m.BIDS_N], marks[m.ASKS_N], levels):
        return wire.NO_ROOM
    if marks[m.DEPTHS_HEAD] - marks[m.DEPTHS_5S] > marks[m.DEPTHS + 1]:
        return RING_FULL
    for i in range(4):
        marks[m.TALLY + i] = 0
    at, room = marks[m.SCRATCH], marks[m.SCRATCH + 1]
    moved = False
    for side in book.SIDES:
        first, n = (at, marks[m.BIDS_N]) if side == BID else (at + 2 * room, marks[m.ASKS_N])
        if fold(side, first, n, levels, marks):
            moved = True
    return changed(ts_ns, moved, marks, reals, levels)


@njit
def order(ts_ns: int, key: int, lots: int, explained: int, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> int:
    """Set one level, of whose fall ``explained`` lots are known to be traded; windows are rolled, statuses are those of ``depth``."""
    if not has_room(1, 1, levels):
        return wire.NO_ROOM
    if marks[m.DEPTHS_HEAD] - marks[m.DEPTHS_5S] > marks[m.DEPTHS + 1]:
        return RING_FULL
    for i in range(4):
        marks[m.TALLY + i] = 0
    side = BID if key > 0 else ASK
    edge, top_edge = levels[side + KEYS + book.TOP - 1], levels[side + KEYS + m.K - 1]
    old = book.put(levels, side, key, lots)
    if old != lots and key >= top_edge:
        tally(old - lots, explained, marks)
    return changed(ts_ns, old != lots and key >= edge, marks, reals, levels)


# Tickers


@njit
def contradicts(row: int, marks: Int64Array1D, levels: Int64Array1D) -> bool:
    """Tell whether a ticker states another top than the book's; a quantity of zero states an empty side."""
    marks[m.TICKER_CHECKED] += 1
    for side, at in ((BID, row + 1), (ASK, row + 3)):
        lots = marks[at + 1]
        if lots != levels[side + LOTS] or (lots > 0 and marks[at] != levels[side + KEYS]):
            return True
    return False


@njit
def put_ticker(update: int, marks: Int64Array1D) -> int:
    """Return the place for a ticker of an update to come; later word replaces what was said of this update and of later ones."""
    at, mask, head = int(marks[m.TICKERS]), int(marks[m.TICKERS + 1]), int(marks[m.TICKERS_HEAD])
    while head > marks[m.TICKERS_TAIL] and marks[at + m.TICKERS_WIDTH * ((head - 1) & mask)] >= update:
        head -= 1
    if head - marks[m.TICKERS_TAIL] > mask:
        marks[m.TICKERS_TAIL] += (mask + 1) // 2
    marks[m.TICKERS_HEAD] = head + 1
    row = at + m.TICKERS_WIDTH * (head & mask)
    marks[row] = update
    return row


@njit
def compare_tickers(marks: Int64Array1D, levels: Int64Array1D) -> int:
    """Hold the book against the ticker of its own update, if one came before it, and forget those that it has passed."""
    at, mask = marks[m.TICKERS], marks[m.TICKERS + 1]
    update = marks[m.LAST_UPDATE]
    while marks[m.TICKERS_TAIL] < marks[m.TICKERS_HEAD]:
        row = at + m.TICKERS_WIDTH * (marks[m.TICKERS_TAIL] & mask)
        if marks[row] > update:
            break
        marks[m.TICKERS_TAIL] += 1
        if marks[row] == update and contradicts(row, marks, levels):
            return CONTRADICTED
    return OK


# Trades


@njit
def trade(ts_ns: int, key: int, lots: int, marks: Int64Array1D, reals: Float64Array1D) -> int:
    """Take one trade into the windows, which are rolled to ``ts_ns``.

    Parameters
    ----------
    key : int
        Key of the level that was hit: +ticks of a bid, -ticks of an ask.
    lots : int
        Quantity, > 0.

    Returns
    -------
    int
        OK, RING_FULL, or ``wire.OFF_GRID`` where a sum would leave the integers; nothing changes then.
    """
    if marks[m.TRADES_HEAD] - marks[m.TRADES_30S] > marks[m.TRADES + 1]:
        return RING_FULL
    if marks[m.WAITING_HEAD] - marks[m.WAITING_TAIL] > marks[m.WAITING + 1]:
        return RING_FULL
    if 2 * marks[m.UNUSED_N] > marks[m.UNUSED + 1]:
        tidy_waiting(marks)
    volume = base_volume(key, lots, marks, reals)
    side = 2 if key > 0 else 1
    if volume >= m.VOLUME_MAX or marks[m.TRADES_30S + side] > m.SUM_MAX - volume:
        return wire.OFF_GRID
    for window in (m.TRADES_1S, m.TRADES_5S, m.TRADES_30S):
        marks[window + side] += volume
    row = marks[m.TRADES] + m.TRADES_WIDTH * (marks[m.TRADES_HEAD] & marks[m.TRADES + 1])
    marks[row] = ts_ns
    marks[row + 1] = -volume if key > 0 else volume
    marks[m.TRADES_HEAD] += 1
    row = marks[m.WAITING] + m.WAITING_WIDTH * (marks[m.WAITING_HEAD] & marks[m.WAITING + 1])
    marks[row] = ts_ns
    marks[row + 1] = key
    marks[row + 2] = lots
    marks[m.WAITING_HEAD] += 1
    add_unused(key, lots, marks)
    marks[m.TRADES_TAKEN] += 1
    marks[m.LAST_KEY], marks[m.LAST_LOTS] = key, lots
    reals[m.SOLD if key > 0 else m.BOUGHT] += lots
    reals[m.VALUE] += float(lots) * abs(key)
    size = lots * reals[m.SIZE_UNITS] / reals[m.SIZE_SCALE]
    worth = reals[m.CONTRACT] if reals[m.CONTRACT] > 0.0 else abs(key) * reals[m.PRICE_UNITS] / reals[m.PRICE_SCALE]
    reals[m.SECOND_QUOTE] += -size * worth if key > 0 else size * worth
    reals[m.SECOND_TRADES] += 1.0
    tape.take_slot(ts_ns, float(volume), marks, reals)
    if volume > 0:
        tape.take_bucket(ts_ns, float(volume), 1 if key < 0 else 0, marks, reals)
    return OK


# Features


@njit
def ratio(a: int, b: int) -> float:
    """Return ``(a - b) / (a + b)``, and 0 for an empty window."""
    return (a - b) / (a + b) if a + b > 0 else 0.0


@njit
def base_size(side: int, depth: int, levels: Int64Array1D, reals: Float64Array1D) -> tuple[float, float]:
    """Return base size and quote value of the best ``depth`` levels; contracts of an inverse instrument are converted."""
    base = quote = 0.0
    for i in range(min(depth, levels[side + book.TOP_N])):
        price = abs(levels[side + KEYS + i]) * reals[m.PRICE_UNITS] / reals[m.PRICE_SCALE]
        quantity = levels[side + LOTS + i] * reals[m.SIZE_UNITS] / reals[m.SIZE_SCALE]
        if reals[m.CONTRACT] > 0.0:
            quantity = quantity * reals[m.CONTRACT] / price
        base += quantity
        quote += quantity * price
    return base, quote


@njit
def imbalance(depth: int, levels: Int64Array1D, reals: Float64Array1D) -> float:
    """Return ``(B - A) / (B + A)`` over the best ``depth`` levels; exact in lots where a lot is base currency."""
    if reals[m.CONTRACT] > 0.0:
        bid, _ = base_size(BID, depth, levels, reals)
        ask, _ = base_size(ASK, depth, levels, reals)
        return (bid - ask) / (bid + ask)
    return ratio(book.size(levels, BID, depth), book.size(levels, ASK, depth))


@njit
def touch(marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> None:
    """Write the features that need no window: prices, spread, imbalances, depth."""
    row = m.ROW
    for i in range(m.OBI_10 + 1):
        reals[row + i] = math.nan
    reals[row + m.MICROPRICE_STOIKOV] = math.nan
    reals[row + m.DEPTH_BID], reals[row + m.DEPTH_BID_QUOTE] = base_size(BID, m.K, levels, reals)
    reals[row + m.DEPTH_ASK], reals[row + m.DEPTH_ASK_QUOTE] = base_size(ASK, m.K, levels, reals)
    bid_ticks, ask_ticks = levels[BID + KEYS], -levels[ASK + KEYS]
    has_bid, has_ask = levels[BID + book.TOP_N] > 0, levels[ASK + book.TOP_N] > 0
    if has_bid:
        reals[row + m.BID] = bid_ticks * reals[m.PRICE_UNITS] / reals[m.PRICE_SCALE]
    if has_ask:
        reals[row + m.ASK] = ask_ticks * reals[m.PRICE_UNITS] / reals[m.PRICE_SCALE]
    if not (has_bid and has_ask):
        return
    reals[row + m.MID] = 0.5 * (bid_ticks + ask_ticks) * reals[m.PRICE_UNITS] / reals[m.PRICE_SCALE]
    reals[row + m.SPREAD_BPS] = 10_000.0 * (2.0 * (ask_ticks - bid_ticks) / (bid_ticks + ask_ticks))
    bid_size, _ = base_size(BID, 1, levels, reals)
    ask_size, _ = base_size(ASK, 1, levels, reals)
    reals[row + m.MICROPRICE] = (reals[row + m.BID] * ask_size + reals[row + m.ASK] * bid_size) / (ask_size + bid_size)
    reals[row + m.OBI] = imbalance(m.K, levels, reals)
    reals[row + m.OBI_1] = imbalance(1, levels, reals)
    reals[row + m.OBI_10] = imbalance(book.TOP, levels, reals)
    if reals[m.STOIKOV_FITTED] > 0.0:
        level = levels[BID + LOTS] == levels[ASK + LOTS]  # No side of the buckets is the middle one's.
        ticks = 0.5 * (bid_ticks + ask_ticks) + (0.0 if level else reals[m.STOIKOV + top_state(levels)])
        reals[row + m.MICROPRICE_STOIKOV] = ticks * reals[m.PRICE_UNITS] / reals[m.PRICE_SCALE]


@njit
def ofi(marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> float:
    """Return the mean order flow of the best ``K`` levels as a share of the mean size of the top of a side."""
    flow = marks[m.DEPTHS_1S + 2]
    if reals[m.CONTRACT] == 0.0:
        total = book.size(levels, BID, m.K) + book.size(levels, ASK, m.K)
        return 2.0 * flow / (m.K * total) if total > 0 else math.nan
    coins = reals[m.ROW + m.DEPTH_BID] + reals[m.ROW + m.DEPTH_ASK]
    return 2.0 * (flow / max(marks[m.BASE_UNITS], 1)) / (m.K * coins) if coins > 0.0 else math.nan


@njit
def windows(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> None:
    """Write the features of the (already rolled) windows; those that are not whole since the book became LIVE are NaN."""
    row = m.ROW
    age_ns = ts_ns - marks[m.LIVE_SINCE]
    instant = ts_ns % m.GRID_NS == 0
    reals[row + m.TI_N] = marks[m.TRADES_HEAD] - marks[m.TRADES_5S]
    reals[row + m.CANCEL_N] = marks[m.DEPTHS_5S + 3]
    reals[row + m.VPIN_N] = marks[m.BUCKETS_HEAD] - marks[m.BUCKETS_TAIL]
    reals[row + m.KYLE_SECONDS] = marks[m.KYLE_N]
    if age_ns >= m.NS_PER_S:
        reals[row + m.TI_1S] = ratio(marks[m.TRADES_1S + 1], marks[m.TRADES_1S + 2])
        reals[row + m.MICRO_VOL_1S] = micro_vol_at_instant(m.GRID_STEPS // 5, marks, reals) if instant else reals[m.VOL_1S]
        reals[row + m.OFI] = ofi(marks, reals, levels)
        unit = max(marks[m.BASE_UNITS], 1) if reals[m.CONTRACT] > 0.0 else reals[m.SIZE_SCALE] / reals[m.SIZE_UNITS]
        reals[row + m.OFI_1] = marks[m.DEPTHS_1S + 1] / unit
    if age_ns >= 5 * m.NS_PER_S:
        reals[row + m.TI] = ratio(marks[m.TRADES_5S + 1], marks[m.TRADES_5S + 2])
        reals[row + m.TRADE_RATE] = reals[row + m.TI_N] / 5.0
        reals[row + m.MICRO_VOL] = micro_vol_at_instant(m.GRID_STEPS, marks, reals) if instant else reals[m.VOL_5S]
        removed = marks[m.DEPTHS_5S + 1]
        reals[row + m.CANCEL_RATE] = marks[m.DEPTHS_5S + 2] / removed if removed > 0 else 0.0
        reals[row + m.QUEUE_RATE] = marks[m.DEPTHS_5S + 4] / 5.0
    if age_ns >= 30 * m.NS_PER_S:
        reals[row + m.TI_30S] = ratio(marks[m.TRADES_30S + 1], marks[m.TRADES_30S + 2])
    if marks[m.BUCKETS_HEAD] - marks[m.BUCKETS_TAIL] == m.BUCKETS_N:
        reals[row + m.VPIN] = reals[m.VPIN_NOW]
    enough = marks[m.KYLE_N] >= 30 and age_ns >= m.KYLE_S * m.NS_PER_S
    reals[row + m.KYLE_LAMBDA] = reals[m.KYLE] if enough else math.nan


@njit
def features(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D) -> None:
    """Bring the feature row (``reals[ROW:]``) up to ``ts_ns``, to which the windows are rolled; NaN where it is not known."""
    if marks[m.TOUCHED] == 1:
        touch(marks, reals, levels)
        marks[m.TOUCHED] = 0
    windows(ts_ns, marks, reals, levels)
