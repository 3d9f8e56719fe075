"""Simulated orders against a real book: what is displayed, what is printed, and the queue before each order.

One int64 array, ``state``: its head; the levels we took from, ``TAKEN_WIDTH`` numbers each; the orders, ``ORDER`` numbers each, best
price first and the older first at a price, which is their priority. Keys are those of ``kernels.book``: +ticks of a bid, -ticks
of an ask, and of a limit alike. Quantities are lots.

An order keeps what its level has shown of late in a ring of ``ENTRIES_MAX`` entries: prints that wait for the fall they explain
(lots > 0), or falls that no print has explained (lots < 0) with the part of them that its queue was cut by. A print uses up falls,
and a fall prints, the oldest first, before the rest of it is kept: so there are never both.

Matches are written to ``work``, ``MATCH`` numbers each; its end is scratch for levels of the book.
"""

import math

from alphapack.arrays import Float64Array1D, Int64Array1D
from alphapack.jit import njit
from alphapack.kernels import book, flow
from alphapack.kernels import marks as m

# The head, then the levels we took from: key, and how many of the lots displayed there are ours already.
ORDERS, TAKEN_N, TRADES_SEEN, QUEUE = range(4)
TAKEN = 4
TAKEN_MAX, TAKEN_WIDTH = 256, 2
"""On a level beyond so many nothing is filled: it could not be remembered that it was taken."""
RISK_AVERSE, OPTIMISTIC, POWER, LOG = range(4)

# An order. AHEAD: displayed lots that trade before it, our own not counted. OWED: lots printed after them, which went to own orders
# before it. SHOWN: lots displayed at its price when last seen. TRADE: trades taken when it came. DEPTH: depth messages counted when it
# came, -1 after the next one. RESTS: 0 while it arrives.
FIRST = TAKEN + TAKEN_MAX * TAKEN_WIDTH
ID, KEY, LEFT, AHEAD, OWED, SHOWN, SINCE, TRADE, DEPTH, RESTS, TAIL, HEAD, ENTRIES = range(13)
ENTRY, ENTRIES_MAX = 3, 32
"""An entry: its time in ``INSTANT_NS``, signed lots, lots that the queue was cut by. A ring holds every instant that may wait."""
ORDER = ENTRIES + ENTRIES_MAX * ENTRY
INSTANT_NS = 10_000_000
WAIT = m.UNUSED_NS // INSTANT_NS

# A match: order, ticks it is filled at, lots, why, ticks and lots of the level or print it is made against, lots of those left for it.
MATCH = 7
SWEPT, PRINTED, THROUGH, CROSSED = range(4)
REACH_MAX = 256
"""Levels that one order may sweep at once."""


@njit
def displayed(key: int, levels: Int64Array1D) -> int:
    """Return the lots that the book shows at a key."""
    side = book.BID if key > 0 else book.ASK
    below = levels[side + book.HIGH] - key
    if 0 <= below < book.WINDOW:
        return int(levels[book.ring_of(side) + (key & (book.WINDOW - 1))])
    at, n = levels[side + book.FAR_AT], levels[side + book.FAR]
    i = book.find(levels, at, n, key)
    return int(levels[at + levels[side + book.ROOM] + i]) if i < n and levels[at + i] == key else 0


# What a level has shown of late


@njit
def expire(at: int, instant: int, state: Int64Array1D) -> None:
    """Forget what an order's level showed too long ago to explain anything."""
    while state[at + TAIL] < state[at + HEAD]:
        entry = entry_of(at, state[at + TAIL])
        if instant - state[entry] < WAIT:
            break
        state[entry + 1] = state[entry + 2] = 0  # Nothing that is over is ever counted in finer steps.
        state[at + TAIL] += 1


@njit
def entry_of(at: int, position: int) -> int:
    """Return where the entry at a position of an order's ring stands."""
    return at + ENTRIES + ENTRY * (position & (ENTRIES_MAX - 1))


@njit
def pair(at: int, change: int, state: Int64Array1D) -> tuple[int, int]:
    """Use up what waits for a print (``change`` > 0) or a fall (< 0) of so many lots.

    Returns
    -------
    tuple of int
        Lots of it that what waited explains, and lots that the queue was cut by on their account.
    """
    paired = cut = 0
    for position in range(state[at + TAIL], state[at + HEAD]):
        entry = entry_of(at, position)
        if (state[entry + 1] > 0) == (change > 0):
            break
        lots = min(abs(state[entry + 1]), abs(change) - paired)
        paired += lots
        state[entry + 1] += lots if change > 0 else -lots
        # Cuts are used up as fast as falls: those of later falls may count where the earlier ones cut nothing.
        credit = min(state[entry + 2], abs(change) - cut)
        cut += credit
        state[entry + 2] -= credit
    while state[at + TAIL] < state[at + HEAD] and state[entry_of(at, state[at + TAIL]) + 1] == 0:
        state[at + TAIL] += 1
    return paired, cut


@njit
def keep(at: int, instant: int, change: int, state: Int64Array1D) -> int:
    """Let a print (> 0) or a fall (< 0), of which nothing else waits, wait; returns its entry."""
    entry = entry_of(at, state[at + HEAD] - 1)
    if state[at + TAIL] == state[at + HEAD] or state[entry] != instant:
        entry = entry_of(at, state[at + HEAD])
        state[at + HEAD] += 1
        state[entry], state[entry + 1], state[entry + 2] = instant, 0, 0
    state[entry + 1] += change
    return entry


# The queue


@njit
def part_ahead(queue: int, power: float, ahead: float, behind: float) -> float:
    """Return the share of cancels that is before an order: ``f(ahead) / (f(ahead) + f(behind))``, ``ahead`` > 0.

    ``f(x) = x^power`` or, of base units (contracts of an inverse instrument), ``f(x) = log(1 + x)``.
    """
    if behind <= 0.0:
        return 1.0
    if queue == POWER:
        return 1.0 / (1.0 + math.exp(power * (math.log(behind) - math.log(ahead))))
    before, after = math.log(1.0 + ahead), math.log(1.0 + behind)
    return before / (before + after) if before > 0.0 else 0.0


@njit
def cut_of(queue: int, power: float, unit: float, ahead: int, shown: int, cancelled: int) -> int:
    """Return how many of the lots that were cancelled at a level, which shows ``shown`` now, stood before an order."""
    behind = max(0, shown + cancelled - ahead)
    least, most = max(0, cancelled - behind), min(cancelled, ahead)
    if queue == RISK_AVERSE or most == 0:
        return min(least, most)
    if queue == OPTIMISTIC:
        return most
    wanted = math.floor(part_ahead(queue, power, ahead * unit, behind * unit) * cancelled)
    return min(max(wanted, least), most)


@njit
def see(at: int, instant: int, depths: int, power: float, unit: float, levels: Int64Array1D, state: Int64Array1D) -> None:
    """Look at what is displayed at an order's price after ``depths`` depth messages, and bring its queue up to date.

    The first of them since the order came may still show what was added before that: ``RISK_AVERSE`` believes it of all that it adds.
    """
    shown = displayed(state[at + KEY], levels)
    fall = state[at + SHOWN] - shown
    state[at + SHOWN] = shown
    if state[at + DEPTH] >= 0 and state[at + DEPTH] != depths:
        state[at + DEPTH] = -1
        if state[QUEUE] == RISK_AVERSE:
            state[at + AHEAD] += max(0, -fall)
    if fall <= 0:
        return
    expire(at, instant, state)
    explained, _ = pair(at, -fall, state)
    if fall > explained:
        cut = cut_of(state[QUEUE], power, unit, state[at + AHEAD], shown, fall - explained)
        state[at + AHEAD] -= cut
        state[keep(at, instant, explained - fall, state) + 2] += cut


@njit
def advance(at: int, instant: int, lots: int, state: Int64Array1D) -> int:
    """Let a print at an order's price take its queue ahead; returns the lots beyond it."""
    expire(at, instant, state)
    explained, cut = pair(at, lots, state)
    if lots > explained:
        keep(at, instant, lots - explained, state)
    passed = min(lots - cut, state[at + AHEAD])
    state[at + AHEAD] -= passed
    return int(lots - cut - passed)


@njit
def take_print(instant: int, marks: Int64Array1D, state: Int64Array1D, work: Int64Array1D) -> int:
    """Give the last trade to the orders that it reaches, each lot at most once; returns the number of matches."""
    key, lots = int(marks[m.LAST_KEY]), int(marks[m.LAST_LOTS])
    n = given = 0
    for i in range(state[ORDERS]):
        at = FIRST + ORDER * i
        own = state[at + KEY]
        if (own > 0) != (key > 0) or own < key or state[at + TRADE] == marks[m.TRADES_TAKEN]:
            continue
        available = lots - given
        if own == key:
            available = advance(at, instant, lots, state) - given - state[at + OWED]
            state[at + OWED] = max(0, -available)
        else:  # A worse price was paid: nobody is left before it.
            state[at + AHEAD] = state[at + OWED] = 0
        part = min(available, state[at + LEFT])
        if part > 0:
            match = MATCH * n
            work[match], work[match + 1], work[match + 2] = state[at + ID], abs(own), part
            work[match + 3] = PRINTED if own == key else THROUGH
            work[match + 4], work[match + 5], work[match + 6] = abs(key), lots, available
            state[at + LEFT] -= part
            given += part
            n += 1
    return n


# What is displayed on the other side


@njit
def renew(levels: Int64Array1D, state: Int64Array1D) -> None:
    """Forget of what we took whatever is no longer displayed.

    The real book does not know that we took it, and goes on displaying it: what is added comes on top of that, and is free.
    """
    kept = 0
    for i in range(state[TAKEN_N]):
        at, to = TAKEN + TAKEN_WIDTH * i, TAKEN + TAKEN_WIDTH * kept
        key, taken = state[at], min(state[at + 1], displayed(state[at], levels))
        if taken > 0:
            state[to], state[to + 1] = key, taken
            kept += 1
    state[TAKEN_N] = kept


@njit
def taken_of(key: int, state: Int64Array1D) -> int:
    """Return the place of a level among those we took from, or where it would be added."""
    at = TAKEN
    end = TAKEN + TAKEN_WIDTH * state[TAKEN_N]
    while at < end and state[at] != key:
        at += TAKEN_WIDTH
    return at


@njit
def reach(key: int, levels: Int64Array1D, work: Int64Array1D) -> int:
    """Write the other side's levels at or through a limit, best first, to the scratch; returns how many there are."""
    side = book.ASK if key > 0 else book.BID
    if levels[side + book.TOP_N] == 0 or levels[side + book.KEYS] < -key:
        return 0
    depth = min(REACH_MAX, levels[side + book.NEAR] + levels[side + book.FAR])
    at = len(work) - 2 * REACH_MAX
    n = book.collect(levels, side, depth, work, at, len(work) - REACH_MAX - at)
    while work[at + n - 1] < -key:
        n -= 1
    return n


@njit
def printed(key: int, marks: Int64Array1D) -> int:
    """Return the lots that were printed at a level and that it goes on displaying: its fall is yet to be told."""
    if marks[m.WAITING_TAIL] == marks[m.WAITING_HEAD]:
        return 0
    entry = flow.slot_of(key, marks)
    return int(marks[entry + 1]) if marks[entry + 2] >= 0 else 0


@njit
def sweep(at: int, n: int, marks: Int64Array1D, levels: Int64Array1D, state: Int64Array1D, work: Int64Array1D) -> int:
    """Fill an order from what is displayed at or through its limit, after ``n`` matches; returns how many there are then.

    An order that arrives pays what is asked; one that rests is paid its own price. Prints that wait are up to date.
    """
    scratch = len(work) - 2 * REACH_MAX
    for i in range(reach(state[at + KEY], levels, work)):
        if state[at + LEFT] == 0:
            break
        key, shown = work[scratch + i], work[scratch + REACH_MAX + i]
        place = taken_of(key, state)
        if place == TAKEN + TAKEN_WIDTH * state[TAKEN_N]:
            if state[TAKEN_N] == TAKEN_MAX:
                break
            state[place], state[place + 1] = key, 0
            state[TAKEN_N] += 1
        available = shown - state[place + 1] - printed(key, marks)
        part = min(available, state[at + LEFT])
        if part > 0:
            match = MATCH * n
            rests = state[at + RESTS] == 1
            work[match], work[match + 1], work[match + 2] = state[at + ID], abs(state[at + KEY] if rests else key), part
            work[match + 3] = CROSSED if rests else SWEPT
            work[match + 4], work[match + 5], work[match + 6] = abs(key), shown, available
            state[at + LEFT] -= part
            state[place + 1] += part
            n += 1
    return n


# Orders


@njit
def meets_own(key: int, state: Int64Array1D) -> bool:
    """Tell whether a limit is at or through an order of ours on the other side."""
    for i in range(state[ORDERS]):
        own = state[FIRST + ORDER * i + KEY]
        if (own > 0) != (key > 0) and own >= -key:
            return True
    return False


@njit
def insert(key: int, state: Int64Array1D) -> int:
    """Make a place for an order, behind those at its price; returns it. The caller has seen to the room."""
    end = FIRST + ORDER * int(state[ORDERS])
    at = end
    while at > FIRST and state[at - ORDER + KEY] < key:
        at -= ORDER
    for i in range(end - 1, at - 1, -1):
        state[i + ORDER] = state[i]
    for i in range(ORDER):
        state[at + i] = 0
    state[ORDERS] += 1
    return at


@njit
def compact(state: Int64Array1D) -> None:
    """Remove the orders of which nothing is left."""
    kept = 0
    for i in range(state[ORDERS]):
        at, to = FIRST + ORDER * i, FIRST + ORDER * kept
        if state[at + LEFT] > 0:
            if to < at:
                for j in range(ORDER):
                    state[to + j] = state[at + j]
            kept += 1
    state[ORDERS] = kept


@njit
def follow(
    ts_ns: int, power: float, marks: Int64Array1D, reals: Float64Array1D, levels: Int64Array1D, state: Int64Array1D, work: Int64Array1D
) -> int:
    """Bring every order up to date with the message that the book has taken; returns the number of matches.

    Parameters
    ----------
    ts_ns : int
        Engine time.
    power : float
        Exponent of the queue model ``POWER``, in (0, 16].
    marks, reals, levels
        Of the ``FeatureBook``.
    state : int64[FIRST + ORDER * room]
    work : int64[MATCH * (2 * room + TAKEN_MAX) + 2 * REACH_MAX]
        A message matches an order once by a print, and each order or level that a sweep leaves behind is finished.
    """
    n, instant = 0, ts_ns // INSTANT_NS
    if marks[m.TRADES_TAKEN] != state[TRADES_SEEN]:
        state[TRADES_SEEN] = marks[m.TRADES_TAKEN]
        n = take_print(instant, marks, state, work)
    unit = reals[m.SIZE_UNITS] / reals[m.SIZE_SCALE]
    for i in range(state[ORDERS]):
        see(FIRST + ORDER * i, instant, marks[m.DEPTHS_SEEN], power, unit, levels, state)
    renew(levels, state)
    flow.expire_waiting(ts_ns, marks)  # Not every message has rolled the book.
    for i in range(state[ORDERS]):
        n = sweep(FIRST + ORDER * i, n, marks, levels, state, work)
    if n > 0:
        compact(state)
    return n
