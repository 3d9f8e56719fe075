"""Price levels of one side, sorted in place: any depth, any price range.

A side is two rows of an int64 array: keys ascending (+ticks for bids, -ticks for asks) and quantities in lots, so that
on either side the best level is the last one and a change near the touch moves few elements.
"""

from alphapack.arrays import Int64Array1D, Int64Array2D
from alphapack.jit import njit


@njit
def find(keys: Int64Array1D, n: int, key: int) -> int:
    """Return the first index of the ``n`` ascending ``keys`` whose key is >= ``key`` (``n`` if there is none)."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit
def put(side: Int64Array2D, n: int, at: int, key: int, quantity: int) -> int:
    """Insert a level at index ``at`` of ``n`` levels; returns the new count. The caller has seen to the room."""
    for i in range(n, at, -1):
        side[0, i] = side[0, i - 1]
        side[1, i] = side[1, i - 1]
    side[0, at] = key
    side[1, at] = quantity
    return n + 1


@njit
def drop(side: Int64Array2D, n: int, at: int) -> int:
    """Remove the level at index ``at`` of ``n`` levels; returns the new count."""
    for i in range(at, n - 1):
        side[0, i] = side[0, i + 1]
        side[1, i] = side[1, i + 1]
    return n - 1


@njit
def size(side: Int64Array2D, n: int, depth: int) -> int:
    """Return the lots of the best ``min(depth, n)`` levels."""
    total = 0
    for i in range(n - 1, max(n - depth, 0) - 1, -1):
        total += side[1, i]
    return total
