"""Strict byte parser of level lists and quoted decimals; what it does not know it leaves to the general decoder.

Numbers become int64 multiples of a step ``units * 10**-decimals`` without passing through a float, so a price that is
not on the grid is noticed, never rounded.
"""

from alphapack.arrays import Int64Array1D
from alphapack.jit import njit

UNFAMILIAR = -1
"""Not the plain shape that venues send: whitespace, an exponent, a sign, a missing quote."""
OFF_GRID = -2
"""A well-formed number that is no multiple of the step."""
TOO_LARGE = -3
"""More than ``LARGEST`` steps."""
NO_ROOM = -4
"""More levels than the output arrays hold."""

LARGEST = 1 << 52
"""Steps in one number: 2,048 of them still add up within an int64, and each is exact as a float64."""

QUOTE, COMMA, DOT, ZERO, NINE, OPEN, CLOSE = 34, 44, 46, 48, 57, 91, 93
DIGITS_MAX = 18
"""Decimal digits that always fit an int64."""
MANTISSA_MAX = 10 ** (DIGITS_MAX - 1)
"""From here on a mantissa takes no further digit. Looked at before it grows: an int64 wraps silently."""


@njit
def multiple(raw: bytes, start: int, units: int, decimals: int) -> tuple[int, int]:
    """Read the quoted decimal at ``raw[start]``.

    Returns
    -------
    (value, after) : int, int
        Multiple of the step (>= 0) and the index after the closing quote; or a negative status and ``start``.
    """
    end = len(raw)
    i = start
    if i >= end or raw[i] != QUOTE:
        return UNFAMILIAR, start
    i += 1
    first = i
    mantissa = 0
    while i < end and ZERO <= raw[i] <= NINE:
        if mantissa >= MANTISSA_MAX:
            return TOO_LARGE, start
        mantissa = mantissa * 10 + (raw[i] - ZERO)
        i += 1
    if i == first:
        return UNFAMILIAR, start
    scale = 0
    if i < end and raw[i] == DOT:
        i += 1
        first = i
        while i < end and ZERO <= raw[i] <= NINE:
            digit = raw[i] - ZERO
            i += 1
            if scale < decimals:
                if mantissa >= MANTISSA_MAX:
                    return TOO_LARGE, start
                mantissa = mantissa * 10 + digit
                scale += 1
            elif digit != 0:
                return OFF_GRID, start
        if i == first:
            return UNFAMILIAR, start
    if i >= end or raw[i] != QUOTE:
        return UNFAMILIAR, start
    while scale < decimals:
        if mantissa >= MANTISSA_MAX:
            return TOO_LARGE, start
        mantissa *= 10
        scale += 1
    if mantissa % units != 0:
        return OFF_GRID, start
    value = mantissa // units
    if value > LARGEST:
        return TOO_LARGE, start
    return value, i + 1


@njit
def levels(raw: bytes, tick: Int64Array1D, lot: Int64Array1D, sign: int, keys: Int64Array1D, quantities: Int64Array1D) -> int:
    """Read ``[["price","quantity"],...]`` into ``keys`` (``sign`` * ticks) and ``quantities`` (lots).

    Parameters
    ----------
    raw : bytes
        The JSON array exactly as sent, without whitespace.
    tick, lot : int64[2]
        Units and decimals of the two steps.
    sign : int
        +1 for bids, -1 for asks: the best level has the highest key on either side.
    keys, quantities : int64[m]
        Filled from the start.

    Returns
    -------
    int
        Number of levels read, or a negative status. A price of zero is ``UNFAMILIAR``.
    """
    end = len(raw)
    if end < 2 or raw[0] != OPEN:
        return UNFAMILIAR
    if raw[1] == CLOSE:
        return 0 if end == 2 else UNFAMILIAR
    i = 1
    n = 0
    while True:
        if i >= end or raw[i] != OPEN:
            return UNFAMILIAR
        if n == len(keys):
            return NO_ROOM
        price, i = multiple(raw, i + 1, tick[0], tick[1])
        if price <= 0:
            return price if price < 0 else UNFAMILIAR
        if i >= end or raw[i] != COMMA:
            return UNFAMILIAR
        quantity, i = multiple(raw, i + 1, lot[0], lot[1])
        if quantity < 0:
            return quantity
        keys[n] = sign * price
        quantities[n] = quantity
        n += 1
        if i >= end or raw[i] != CLOSE:
            return UNFAMILIAR
        i += 1
        if i >= end:
            return UNFAMILIAR
        if raw[i] == CLOSE:
            return n if i + 1 == end else UNFAMILIAR
        if raw[i] != COMMA:
            return UNFAMILIAR
        i += 1
