"""Price levels of both sides: dense near the touch, sorted beyond it, any depth and any price range.

A key is +ticks of a bid and -ticks of an ask, so that on either side the best level has the highest key. A side is

- a ring of ``WINDOW`` quantities (lots), the key's at ``key & (WINDOW - 1)``: the keys in ``(high - WINDOW, high]``;
- a bitmap of the ring's occupied places, a word of 64 at a time;
- the far levels, keys at or below ``high - WINDOW``, in two arrays sorted ascending;
- the best ``TOP`` levels, copied out, best first.

Nothing lies above ``high``. A walk down the levels goes on from the ring into the far ones, so what is read never depends
on which of them holds a level; ``settle`` moves the window when the best has drifted from it, for speed alone.

All of it is one int64 array: the heads of the two sides at 0 and ``SIDE``, then their rings, their bitmaps, and the far levels,
whose place the heads tell.
"""

import numpy as np

from alphapack.arrays import Int64Array1D
from alphapack.jit import leading_zeros, njit

WINDOW = 1 << 16
WORDS = WINDOW // 64
TOP = 10
"""Levels copied out: the deepest that a feature looks at."""
LOWEST = -(1 << 62)
"""Key of a level that is not there."""

# A side's head.
HIGH, BOUND, NEAR, FAR, FAR_AT, ROOM = 0, 1, 2, 3, 4, 5
"""Highest key of the window; no key is above BOUND; levels in the ring; far levels; where far keys begin; room for far levels
(their quantities begin at FAR_AT + ROOM)."""
TOP_N, KEYS, LOTS = 6, 7, 7 + TOP
OLD_KEYS, OLD_LOTS = 7 + 2 * TOP, 7 + 3 * TOP
"""The best levels as they were before the message."""
SIDE = 64
BID, ASK = 0, SIDE
SIDES = (BID, ASK)
"""To go through in a loop: what is called with a constant is compiled for that constant alone, and again for the other."""
HEAD = 2 * SIDE
FAR_FROM = HEAD + 2 * WINDOW + 2 * WORDS
"""Where the far levels of the first side begin."""


@njit
def ring_of(side: int) -> int:
    """Return where a side's ring begins."""
    return HEAD + side * (WINDOW // SIDE)


@njit
def bits_of(side: int) -> int:
    """Return where a side's bitmap begins."""
    return HEAD + 2 * WINDOW + side * (WORDS // SIDE)


@njit
def clear(levels: Int64Array1D, side: int) -> None:
    """Remove every level of a side."""
    ring, bits = ring_of(side), bits_of(side)
    for word in range(WORDS):
        if levels[bits + word] != 0:
            levels[bits + word] = 0
            for i in range(64):
                levels[ring + 64 * word + i] = 0
    levels[side + NEAR] = levels[side + FAR] = levels[side + TOP_N] = 0
    levels[side + HIGH] = levels[side + BOUND] = LOWEST
    for i in range(TOP):
        levels[side + KEYS + i] = LOWEST
        levels[side + LOTS + i] = 0


@njit
def find(levels: Int64Array1D, at: int, n: int, key: int) -> int:
    """Return the first index of the ``n`` ascending keys at ``at`` whose key is >= ``key`` (``n`` if there is none)."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if levels[at + middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit
def put_far(levels: Int64Array1D, side: int, key: int, lots: int) -> int:
    """Make ``lots`` the quantity at a far key; returns the old one. The caller has seen to the room."""
    at, n = levels[side + FAR_AT], levels[side + FAR]
    i = find(levels, at, n, key)
    # What lies from the key on, with a place more: slices of their own, because only their moves become moves of whole blocks.
    keys, quantities = levels[at + i : at + n + 1], levels[at + levels[side + ROOM] + i : at + levels[side + ROOM] + n + 1]
    last = len(keys) - 1
    if last > 0 and keys[0] == key:
        old = int(quantities[0])
        if lots != 0:
            quantities[0] = lots
            return old
        for j in range(last):
            keys[j] = keys[j + 1]
        for j in range(last):
            quantities[j] = quantities[j + 1]
        levels[side + FAR] = n - 1
        return old
    if lots != 0:
        for j in range(last, 0, -1):
            keys[j] = keys[j - 1]
        for j in range(last, 0, -1):
            quantities[j] = quantities[j - 1]
        keys[0] = key
        quantities[0] = lots
        levels[side + FAR] = n + 1
    return 0


@njit
def put_near(levels: Int64Array1D, side: int, key: int, lots: int) -> int:
    """Make ``lots`` the quantity at a key of the window; returns the old one."""
    place = key & (WINDOW - 1)
    at = ring_of(side) + place
    old = int(levels[at])
    levels[at] = lots
    now, was = int(lots != 0), int(old != 0)  # No branch: whether a level comes or goes cannot be predicted.
    levels[bits_of(side) + (place >> 6)] ^= np.int64(now ^ was) << (place & 63)
    levels[side + NEAR] += now - was
    if now > was and key > levels[side + BOUND]:
        levels[side + BOUND] = key
    return old


@njit
def put(levels: Int64Array1D, side: int, key: int, lots: int) -> int:
    """Make ``lots`` the quantity at a key, zero to remove it; returns the old quantity.

    The caller has seen to room for ``NEAR + FAR + 1`` far levels, and brings the best levels up to date with ``walk``.
    """
    below = levels[side + HIGH] - key
    if 0 <= below < WINDOW:
        return put_near(levels, side, key, lots)
    return put_beyond(levels, side, key, lots)


@njit
def put_beyond(levels: Int64Array1D, side: int, key: int, lots: int) -> int:
    """Do what ``put`` does at a key outside the window."""
    if key < levels[side + HIGH]:
        return put_far(levels, side, key, lots)
    if lots == 0:
        return 0
    raise_window(levels, side, key + WINDOW // 4)
    return put_near(levels, side, key, lots)


@njit
def put_all(levels: Int64Array1D, side: int, keys: Int64Array1D, lots: Int64Array1D, old: Int64Array1D) -> int:
    """Make ``lots`` the quantities at ``keys``, one after the other, as ``put`` does.

    Parameters
    ----------
    keys, lots, old : int64[n]
        ``old`` is filled with the quantities before.

    Returns
    -------
    int
        The highest of the keys, ``LOWEST`` where there are none.
    """
    ring = levels[ring_of(side) : ring_of(side) + WINDOW]
    bits = levels[bits_of(side) : bits_of(side) + WORDS]
    high, near, highest = levels[side + HIGH], 0, LOWEST
    for i in range(len(keys)):
        key, quantity = keys[i], lots[i]
        highest = max(highest, key)
        if 0 <= high - key < WINDOW:
            place = key & (WINDOW - 1)
            before = ring[place]
            ring[place] = quantity
            now, was = int(quantity != 0), int(before != 0)  # No branch: whether a level comes or goes cannot be predicted.
            bits[place >> 6] ^= np.int64(now ^ was) << (place & 63)
            near += now - was
            old[i] = before
        else:
            levels[side + NEAR] += near
            near = 0
            old[i] = put_beyond(levels, side, key, quantity)
            high = levels[side + HIGH]
    levels[side + NEAR] += near
    levels[side + BOUND] = max(levels[side + BOUND], min(highest, levels[side + HIGH]))
    return highest


@njit
def raise_window(levels: Int64Array1D, side: int, high: int) -> None:
    """Move the window up to end at ``high``; what falls out of it becomes far."""
    old = levels[side + HIGH]
    if levels[side + NEAR] > 0:
        ring, bits = ring_of(side), bits_of(side)
        at, n = levels[side + FAR_AT], levels[side + FAR]
        quantities = at + levels[side + ROOM]
        key = old - WINDOW + 1
        last = min(high - WINDOW, old)
        while key <= last:
            place = key & (WINDOW - 1)
            if levels[bits + (place >> 6)] == 0:
                key += 64 - (place & 63)
                continue
            if levels[ring + place] != 0:  # Ascending, and above every far key there is: they go to the end.
                levels[at + n] = key
                levels[quantities + n] = levels[ring + place]
                n += 1
                levels[ring + place] = 0
                levels[bits + (place >> 6)] ^= np.int64(1) << (place & 63)
                levels[side + NEAR] -= 1
            key += 1
        levels[side + FAR] = n
    levels[side + HIGH] = high


@njit
def lower_window(levels: Int64Array1D, side: int, high: int) -> None:
    """Move the window down to end at ``high``, which no key is above; far levels that it reaches become near."""
    levels[side + HIGH] = high
    at, n = levels[side + FAR_AT], levels[side + FAR]
    quantities = at + levels[side + ROOM]
    while n > 0 and levels[at + n - 1] > high - WINDOW:
        n -= 1
        put_near(levels, side, levels[at + n], levels[quantities + n])
    levels[side + FAR] = n


@njit
def settle(levels: Int64Array1D, side: int) -> None:
    """Bring the window back to a best level that has fallen far below it, where far levels wait to be near."""
    best = levels[side + KEYS]
    if levels[side + FAR] > 0 and best < levels[side + HIGH] - WINDOW // 2:
        lower_window(levels, side, best + WINDOW // 4)
        levels[side + BOUND] = best


@njit
def collect(levels: Int64Array1D, side: int, depth: int, out: Int64Array1D, at: int, room: int) -> int:
    """Write the best ``depth`` levels, best first: keys to ``out[at:]``, lots to ``out[at + room:]``; returns how many there are."""
    ring, bits = ring_of(side), bits_of(side)
    near = min(levels[side + NEAR], depth)
    key = levels[side + BOUND]
    n = 0
    while n < near:
        place = key & (WINDOW - 1)
        rest = levels[bits + (place >> 6)] << (63 - (place & 63))
        if rest == 0:
            key -= (place & 63) + 1
            continue
        key -= leading_zeros(rest)
        out[at + n] = key
        out[at + room + n] = levels[ring + (key & (WINDOW - 1))]
        n += 1
        key -= 1
    far = levels[side + FAR]
    far_at = levels[side + FAR_AT]
    quantities = far_at + levels[side + ROOM]
    for i in range(far - 1, max(far - 1 - (depth - n), -1), -1):
        out[at + n] = levels[far_at + i]
        out[at + room + n] = levels[quantities + i]
        n += 1
    return n


@njit
def walk(levels: Int64Array1D, side: int) -> None:
    """Copy the best ``TOP`` levels out, those before them beside, and keep the window near the best."""
    for i in range(2 * TOP):
        levels[side + OLD_KEYS + i] = levels[side + KEYS + i]
    n = collect(levels, side, TOP, levels, side + KEYS, TOP)
    for i in range(n, TOP):
        levels[side + KEYS + i] = LOWEST
        levels[side + LOTS + i] = 0
    levels[side + TOP_N] = n
    levels[side + BOUND] = levels[side + KEYS]
    settle(levels, side)


@njit
def fill(levels: Int64Array1D, side: int, pairs: Int64Array1D, n: int) -> None:
    """Replace a side by ``n`` levels: keys ascending in ``pairs[:n]``, lots after them; the caller has seen to the room."""
    clear(levels, side)
    if n == 0:
        return
    high = pairs[n - 1] + WINDOW // 4
    levels[side + HIGH] = high
    at = levels[side + FAR_AT]
    quantities = at + levels[side + ROOM]
    for i in range(n):
        if pairs[i] > high - WINDOW:
            put_near(levels, side, pairs[i], pairs[n + i])
        else:
            levels[at + levels[side + FAR]] = pairs[i]
            levels[quantities + levels[side + FAR]] = pairs[n + i]
            levels[side + FAR] += 1
    walk(levels, side)


@njit
def size(levels: Int64Array1D, side: int, depth: int) -> int:
    """Return the lots of the best ``depth`` <= ``TOP`` levels."""
    total = 0
    for i in range(depth):
        total += levels[side + LOTS + i]
    return total
