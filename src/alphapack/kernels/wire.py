"""Strict byte parser of quoted decimals, level lists and integers; what it does not know it leaves to the general decoder.

Numbers become int64 multiples of a step ``units * 10**-decimals`` without passing through a float, so a price that is
not on the grid is noticed, never rounded.

Law: the text ends with ``}``. No number, string or list of ours contains one, so a scan stops there at the
latest, and nothing has to ask at each byte whether there is another.
"""

import numpy as np

from alphapack.arrays import Int64Array1D
from alphapack.jit import Text, load_byte, load_word, njit, trailing_zeros

UNFAMILIAR = -1
"""Not the plain shape that venues send: whitespace, an exponent, a sign, a missing quote, a very long number."""
OFF_GRID = -2
"""A well-formed number that is no multiple of the step, or is more than ``LARGEST`` steps."""
NO_ROOM = -3
"""More levels than the output holds."""

NO_FORMAT, BINANCE_SPOT, BINANCE_FUTURES = 0, 1, 2
"""Formats of frames, each with its rule of continuity, that a kernel takes whole (``kernels.frames``)."""

MILLISECONDS_MAX = 9 * 10**12
"""The year 2255: in nanoseconds it still fits an int64."""
MICROSECONDS_FROM = 10**14
"""A time this large cannot be milliseconds (the year 5138) and is no microseconds before 1973."""
TIME_MAX = 4 * 10**15

LARGEST = 1 << 52
"""Steps in one number: 2,048 of them still add up within an int64, and each is exact as a float64."""
DIGITS_MAX = 18
"""Decimal digits that always fit an int64."""

WORD_BYTES = 8
LEVEL_BYTES = 5 * WORD_BYTES + 16
"""More than a level of numbers of up to eight figures a part takes."""
THREE_BYTES, BETWEEN = 0xFFFFFF, 0x222C22
"""What stands between price and quantity: quote, comma, quote."""
ZEROS = 0x3030303030303030
"""Eight zeros as text: what is left of a digit without them is its value."""
NINES = 0x7676767676767676
"""Added to a byte, it sets the high bit of all above nine."""
HIGH_BITS = -0x7F7F7F7F7F7F7F80
POWERS = 10 ** np.arange(WORD_BYTES + 1)
LOW_BYTES = np.array([*((1 << 8 * n) - 1 for n in range(WORD_BYTES)), -1])

FIGURES_MAX = 29
"""Characters of a number beyond which the general decoder looks twice too."""

QUOTE, COMMA, DOT, ZERO, NINE, OPEN, CLOSE, END = 34, 44, 46, 48, 57, 91, 93, 125


@njit
def figures(word: int, n: int) -> int:
    """Return the number that the lowest ``n`` <= 8 bytes of a word spell, which are digits 0 to 9, the first lowest."""
    spare = 32 - 4 * n
    word = word << spare << spare  # In two steps: one of 64 is no shift at all.
    word = (word * 10 + (word >> 8)) & 0x00FF00FF00FF00FF
    word = (word * 100 + (word >> 16)) & 0x0000FFFF0000FFFF
    return (word * 10_000 + (word >> 32)) & 0xFFFFFFFF


@njit
def others(word: int) -> int:
    """Return high bits at a word's bytes that are no digits 0 to 9; those above the lowest of them may be wrong."""
    return ((word + NINES) | word) & HIGH_BITS


@njit
def spliced(whole: int, n: int, part: int, k: int, decimals: int) -> int:
    """Return the decimal of ``n`` figures of a word before the dot and ``k`` of another behind it, or ``OFF_GRID``.

    In units of ``10**-decimals``, for ``n + decimals <= 8`` and ``1 <= decimals <= k``.
    """
    word = (((whole & int(LOW_BYTES[n])) << (64 - 8 * n)) >> (8 * decimals)) | (part << (64 - 8 * decimals))
    word = (word * 10 + (word >> 8)) & 0x00FF00FF00FF00FF
    word = (word * 100 + (word >> 16)) & 0x0000FFFF0000FFFF
    value = (word * 10_000 + (word >> 32)) & 0xFFFFFFFF
    if k > decimals and (part >> (8 * decimals)) & int(LOW_BYTES[k - decimals]) != 0:
        return OFF_GRID
    return value


@njit
def multiple_slowly(raw: Text, start: int, units: int, decimals: int) -> tuple[int, int]:
    """Read what ``multiple`` does byte by byte: near the end of the text, and numbers of more than eight figures a part."""
    i = start + 1
    mantissa = 0
    while ZERO <= load_byte(raw, i) <= NINE:
        mantissa = mantissa * 10 + (load_byte(raw, i) - ZERO)
        i += 1
        if i - start > DIGITS_MAX:
            return UNFAMILIAR, start
    if i == start + 1 or i - start - 1 + decimals > DIGITS_MAX:
        return UNFAMILIAR, start
    missing = decimals
    if load_byte(raw, i) == DOT:
        i += 1
        if not ZERO <= load_byte(raw, i) <= NINE:
            return UNFAMILIAR, start
        while missing > 0 and ZERO <= load_byte(raw, i) <= NINE:
            mantissa = mantissa * 10 + (load_byte(raw, i) - ZERO)
            missing -= 1
            i += 1
        while load_byte(raw, i) == ZERO and i - start <= FIGURES_MAX:
            i += 1
        if ZERO < load_byte(raw, i) <= NINE:
            return OFF_GRID, start
    if load_byte(raw, i) != QUOTE:
        return UNFAMILIAR, start
    while missing > 0:
        mantissa *= 10
        missing -= 1
    if units != 1:
        if mantissa % units != 0:
            return OFF_GRID, start
        mantissa //= units
    return (mantissa, i + 1) if mantissa <= LARGEST else (OFF_GRID, start)


@njit
def multiple(raw: Text, start: int, end: int, units: int, decimals: int) -> tuple[int, int]:
    """Read the quoted decimal whose opening quote is ``raw[start]``.

    Returns
    -------
    (value, after) : int, int
        Multiple of the step (>= 0) and the index after the closing quote; or a negative status and ``start``.
    """
    if load_byte(raw, start) != QUOTE:
        return UNFAMILIAR, start
    if start + 2 * WORD_BYTES + 2 < end and decimals <= WORD_BYTES:
        whole = load_word(raw, start + 1) ^ ZEROS
        n = trailing_zeros(others(whole)) >> 3
        i = start + 1 + n
        if n > 0 and load_byte(raw, i) == DOT:
            part = load_word(raw, i + 1) ^ ZEROS
            k = trailing_zeros(others(part)) >> 3
            i += 1 + k
            if load_byte(raw, i) == QUOTE and units == 1 and n + decimals <= WORD_BYTES and 1 <= decimals <= k:
                value = spliced(whole, n, part, k, decimals)
                return (value, i + 1) if value >= 0 else (value, start)
    return multiple_slowly(raw, start, units, decimals)


@njit
def integer(raw: Text, start: int, end: int) -> tuple[int, int]:
    """Read the JSON integer at ``raw[start]``: ``(value, after)`` with value >= 0, or ``UNFAMILIAR`` and ``start``."""
    i = start
    value = 0
    if start + 2 * WORD_BYTES < end:
        word = load_word(raw, i) ^ ZEROS
        n = trailing_zeros(others(word)) >> 3
        value = figures(word, n)
        i += n
        if n == WORD_BYTES:
            word = load_word(raw, i) ^ ZEROS
            n = trailing_zeros(others(word)) >> 3
            value = value * int(POWERS[n]) + figures(word, n)
            i += n
    while ZERO <= load_byte(raw, i) <= NINE:
        value = value * 10 + (load_byte(raw, i) - ZERO)
        i += 1
        if i - start > DIGITS_MAX:
            return UNFAMILIAR, start
    if i == start or (load_byte(raw, start) == ZERO and i > start + 1):
        return UNFAMILIAR, start
    return value, i


@njit
def levels(raw: Text, start: int, end: int, sign: int, steps: Int64Array1D, out: Int64Array1D, at_out: int, room: int) -> tuple[int, int]:
    """Read ``[["price","quantity"],...]`` at ``raw[start]`` into ``out``.

    Parameters
    ----------
    raw : bytes or their address
        Text without whitespace that ends with ``}``.
    end : int
        How far ``raw`` may be read: at least the end of the text.
    sign : int
        +1 for bids, -1 for asks: the best level has the highest key on either side.
    steps : int64[>= 4]
        Units and decimals of the tick, then of the lot.
    out : int64[...]
        Keys (``sign`` * ticks) go to ``out[at_out:]``, quantities (lots) to ``out[at_out + room:]``.

    Returns
    -------
    (n, after) : int, int
        Number of levels and the index after the list; or a negative status and ``start``. A price of zero is ``UNFAMILIAR``.
    """
    if load_byte(raw, start) != OPEN:
        return UNFAMILIAR, start
    if load_byte(raw, start + 1) == CLOSE:
        return 0, start + 2
    if load_byte(raw, start + 1) != OPEN:
        return UNFAMILIAR, start
    tick_decimals, lot_decimals = steps[1], steps[3]
    quick = steps[0] == 1 and steps[2] == 1 and 1 <= min(tick_decimals, lot_decimals) <= max(tick_decimals, lot_decimals) < WORD_BYTES
    last = end - LEVEL_BYTES
    keys, quantities = out[at_out : at_out + room], out[at_out + room : at_out + 2 * room]
    # Numbers of a list are mostly alike in form: figures before and behind the dot of the price, then of the quantity. Looking
    # where those of the level before had their dots and quotes, the processor need not wait for a count to go on.
    a, b, c, d = 1, tick_decimals, 1, lot_decimals
    i = start + 2
    n = 0
    while True:
        if n == room:
            return NO_ROOM, start
        price = quantity = UNFAMILIAR
        tries = 2 if quick and i < last and load_byte(raw, i) == QUOTE else 0
        while tries > 0:
            tries -= 1
            word_a = load_word(raw, i + 1) ^ ZEROS
            at = i + 2 + a
            word_b = load_word(raw, at) ^ ZEROS
            word_c = load_word(raw, at + b + 3) ^ ZEROS
            behind = at + b + 4 + c
            word_d = load_word(raw, behind) ^ ZEROS
            if (
                load_byte(raw, at - 1) == DOT
                and load_word(raw, at + b) & THREE_BYTES == BETWEEN
                and load_byte(raw, behind - 1) == DOT
                and load_byte(raw, behind + d) == QUOTE
                and (others(word_a) & int(LOW_BYTES[a])) | (others(word_b) & int(LOW_BYTES[b])) == 0
                and (others(word_c) & int(LOW_BYTES[c])) | (others(word_d) & int(LOW_BYTES[d])) == 0
            ):
                price = spliced(word_a, a, word_b, b, tick_decimals)
                quantity = spliced(word_c, c, word_d, d, lot_decimals)
                i = behind + d + 1
                break
            a = min(trailing_zeros(others(word_a)) >> 3, WORD_BYTES - tick_decimals)
            at = i + 2 + a
            b = trailing_zeros(others(load_word(raw, at) ^ ZEROS)) >> 3
            c = min(trailing_zeros(others(load_word(raw, at + b + 3) ^ ZEROS)) >> 3, WORD_BYTES - lot_decimals)
            d = trailing_zeros(others(load_word(raw, at + b + 4 + c) ^ ZEROS)) >> 3
            if min(a, c) < 1 or b < tick_decimals or d < lot_decimals:
                a, b, c, d = 1, tick_decimals, 1, lot_decimals
                break
        if price == UNFAMILIAR:
            price, after = multiple(raw, i, end, steps[0], tick_decimals)
            if price < 0 or load_byte(raw, after) != COMMA:
                return min(price, UNFAMILIAR), start
            quantity, i = multiple(raw, after + 1, end, steps[2], lot_decimals)
        if price <= 0 or quantity < 0:
            return min(price, quantity, UNFAMILIAR), start
        keys[n] = sign * price
        quantities[n] = quantity
        n += 1
        if load_byte(raw, i) != CLOSE:
            return UNFAMILIAR, start
        if load_byte(raw, i + 1) == CLOSE:
            return n, i + 2
        if load_byte(raw, i + 1) != COMMA or load_byte(raw, i + 2) != OPEN:
            return UNFAMILIAR, start
        i += 3


@njit
def nanos(time: int) -> int:
    """Return a venue's milli- or microseconds >= 0, told apart by size, in nanoseconds; ``UNFAMILIAR`` where they fit no clock."""
    if time >= TIME_MAX or MILLISECONDS_MAX < time < MICROSECONDS_FROM:
        return UNFAMILIAR
    return time * 1_000 if time >= MICROSECONDS_FROM else time * 1_000_000
