"""Strict reader of Binance's market messages: depthUpdate, trade, aggTrade, bookTicker, in a stream wrapper or without.

It takes flat JSON objects without whitespace, in any order of keys, and is sure of all it takes: anything else is
``UNFAMILIAR`` and is for the general decoder to judge.
"""

import numpy as np

from alphapack.arrays import Int64Array1D
from alphapack.jit import Text, load_byte, load_word, njit, trailing_zeros
from alphapack.kernels import marks as m
from alphapack.kernels import wire
from alphapack.kernels.wire import COMMA, END, HIGH_BITS, LOW_BYTES, NINE, OPEN, QUOTE, UNFAMILIAR, WORD_BYTES, ZERO

COLON, BACKSLASH, SPACE, AT, OPEN_BRACE = 58, 92, 32, 64, 123
LOWER_E, LOWER_F, LOWER_L, LOWER_M, LOWER_P, LOWER_Q, LOWER_S, LOWER_T, LOWER_U = 101, 102, 108, 109, 112, 113, 115, 116, 117
LOWER_A, LOWER_B, UPPER_A, UPPER_B, UPPER_E, UPPER_T, UPPER_U, UPPER_Z = 97, 98, 65, 66, 69, 84, 85, 90
PREVIOUS = 1
"""Place among the fields of ``pu``, the one key of two letters that matters."""
NO_QUOTE = -2
"""In place of the number of levels: what stood there is a whole number, such as the id of an aggregate."""
FRAME_BYTES = 64
"""No message of ours is shorter; it makes room to look ahead by words."""

DEPTH, TRADE, AGGREGATE, TICKER = 1, 2, 3, 4


def word_of(text: str) -> int:
    """Return up to eight bytes of text as a word, the first lowest."""
    return int.from_bytes(text.encode().ljust(WORD_BYTES, b"\0"), "little", signed=True)


LOW_3, LOW_4, LOW_5, LOW_6, LOW_7 = ((1 << 8 * n) - 1 for n in range(3, 8))
WRAPPER, WRAPPER_REST = word_of('{"stream'), word_of('":"')
DATA, DATA_REST = word_of('","data"'), word_of(":{")
PARTIAL = word_of("@depth")
KIND_TRADE, KIND_DEPTH, KIND_DEPTH_REST = word_of('"trade"'), word_of('"depthUp'), word_of('date"')
KIND_TICKER, KIND_TICKER_REST, KIND_AGGREGATE, KIND_AGGREGATE_REST = map(word_of, ('"bookTic', 'ker"', '"aggTrad', 'e"'))
LOW_2 = (1 << 16) - 1
TRUE, FALSE = word_of("true"), word_of("false")
KEY, KEY_MASK = word_of('"\0":'), 0xFFFF00FF
"""A one-letter key: quote, letter, quote, colon."""
PREVIOUS_KEY, PAIR_KEY, STREAM_TYPE_KEY, FIVE_MASK = word_of('"pu":'), word_of('"ps":'), word_of('"st":'), (1 << 40) - 1
"""Keys of two letters: the update before, and two that say nothing of the market."""


INTEGER, PRICE, QUANTITY, QUOTE_SIDE, NAME, KIND, TRUTH, IGNORED = range(1, 9)
MEANINGS = np.zeros(m.FIELDS_N, np.int64)
"""What stands behind a one-letter key; 0: it is not ours. Capitals that Binance may add are ignored."""
MEANINGS[UPPER_A : UPPER_Z + 1] = IGNORED
for _meaning, _keys in ((INTEGER, "ETUutfl"), (PRICE, "p"), (QUANTITY, "qBA"), (QUOTE_SIDE, "ba"), (NAME, "s"), (KIND, "e"), (TRUTH, "m")):
    MEANINGS[list(_keys.encode())] = _meaning
ONES, SPACES, QUOTES, BACKSLASHES, ATS = (byte * 0x0101010101010101 for byte in (1, SPACE, QUOTE, BACKSLASH, AT))
BRACES_DISTANCE = 3 * ONES
"""Added to a byte, it sets the high bit of all from the closing brace on."""


@njit
def equal_to(word: int, eight: int) -> int:
    """Return high bits at the bytes of a word that equal those of ``eight``; above the lowest there may be others."""
    differs = word ^ eight
    return (differs - ONES) & ~differs & HIGH_BITS


@njit
def text_end(raw: Text, start: int, end: int) -> int:
    """Return where the plain text from ``start`` on meets its closing quote, or ``UNFAMILIAR``: plain is ASCII without escapes."""
    i = start
    while i + WORD_BYTES <= end:
        word = load_word(raw, i)
        special = ((word - SPACES) & ~word) | (word + BRACES_DISTANCE) | word | equal_to(word, QUOTES) | equal_to(word, BACKSLASHES)
        plain = trailing_zeros(special & HIGH_BITS) >> 3
        if plain < WORD_BYTES:
            i += plain
            return i if load_byte(raw, i) == QUOTE else UNFAMILIAR
        i += WORD_BYTES
    while i < end and SPACE <= load_byte(raw, i) < END and load_byte(raw, i) != QUOTE and load_byte(raw, i) != BACKSLASH:
        i += 1
    return i if i < end and load_byte(raw, i) == QUOTE else UNFAMILIAR


@njit
def wrapped(raw: Text, start: int, end: int) -> int:
    """Return where the data of the stream wrapper at ``start`` begins, or ``UNFAMILIAR``.

    So are streams of partial depth: they hold no differences, whatever their messages say.
    """
    first = start + 11
    last = text_end(raw, first, end)
    if last < 0 or last + 2 * WORD_BYTES > end or load_word(raw, last) != DATA:
        return UNFAMILIAR
    for i in range(first, last, WORD_BYTES):
        marks_at = equal_to(load_word(raw, i), ATS)
        while trailing_zeros(marks_at) < 8 * WORD_BYTES:
            at = i + (trailing_zeros(marks_at) >> 3)
            if load_word(raw, at) & LOW_6 == PARTIAL and ZERO <= load_byte(raw, at + 6) <= NINE:
                return UNFAMILIAR
            marks_at &= marks_at - 1
    return last + 9 if load_word(raw, last + WORD_BYTES) & LOW_2 == DATA_REST else UNFAMILIAR


@njit
def named(raw: Text, start: int, end: int, marks: Int64Array1D) -> tuple[int, int]:
    """Read the quoted name at ``raw[start]``: 0 and the index after it where it is this book's; or ``UNFAMILIAR`` first."""
    n = marks[m.NAME_N]
    if load_byte(raw, start) != QUOTE or start + 2 + m.NAME_MAX > end:
        return UNFAMILIAR, start
    i = start + 1
    for word in range((n - 1) // WORD_BYTES):
        if load_word(raw, i) != marks[m.NAME + word]:
            return UNFAMILIAR, start
        i += WORD_BYTES
    word = (n - 1) // WORD_BYTES
    rest = start + 1 + n - i
    if load_word(raw, i) & int(LOW_BYTES[rest]) != marks[m.NAME + word] or load_byte(raw, i + rest) != QUOTE:
        return UNFAMILIAR, start
    return 0, i + rest + 1


@njit
def kind_of(raw: Text, start: int, end: int) -> tuple[int, int]:
    """Read the quoted kind at ``raw[start]``: kind and the index after it; or ``UNFAMILIAR`` first."""
    if start + 2 * WORD_BYTES > end:
        return UNFAMILIAR, start
    word, rest = load_word(raw, start), load_word(raw, start + WORD_BYTES)
    if word & LOW_7 == KIND_TRADE:
        return TRADE, start + 7
    if word == KIND_DEPTH and rest & LOW_5 == KIND_DEPTH_REST:
        return DEPTH, start + 13
    if word == KIND_TICKER and rest & LOW_4 == KIND_TICKER_REST:
        return TICKER, start + 12
    if word == KIND_AGGREGATE and rest & LOW_2 == KIND_AGGREGATE_REST:
        return AGGREGATE, start + 10
    return UNFAMILIAR, start


@njit
def truth(raw: Text, start: int, end: int) -> tuple[int, int]:
    """Read ``true`` or ``false``: 1 or 0 and the index after it; or ``UNFAMILIAR`` first."""
    if start + 6 > end:  # Some byte follows, at least the brace.
        return (1, start + 4) if start + 5 == end and four(raw, start) == TRUE else (UNFAMILIAR, start)
    if four(raw, start) == TRUE:
        return 1, start + 4
    if four(raw, start) == FALSE & LOW_4 and load_byte(raw, start + 4) == LOWER_E:
        return 0, start + 5
    return UNFAMILIAR, start


@njit
def four(raw: Text, start: int) -> int:
    """Return the four bytes at ``raw[start]`` as a number, the first lowest."""
    low, high = load_byte(raw, start) | load_byte(raw, start + 1) << 8, load_byte(raw, start + 2) | load_byte(raw, start + 3) << 8
    return low | high << 16


@njit
def skip(raw: Text, start: int, end: int) -> tuple[int, int]:
    """Read past a value that nobody asks for: plain text, a whole number or a truth value; or ``UNFAMILIAR`` first."""
    if load_byte(raw, start) == QUOTE:
        after = text_end(raw, start + 1, end) + 1
        return (0, after) if after > 0 else (UNFAMILIAR, start)
    if ZERO <= load_byte(raw, start) <= NINE:
        value, after = wire.integer(raw, start, end)
        return min(value, 0), after
    value, after = truth(raw, start, end)
    return min(value, 0), after


@njit
def quote_side(key: int, raw: Text, start: int, end: int, marks: Int64Array1D) -> tuple[int, int]:
    """Read the value of ``b`` or ``a``: levels of a difference, the best price of a ticker, or an id of a trade's."""
    if load_byte(raw, start) == OPEN:
        at, room, sign = marks[m.SCRATCH], marks[m.SCRATCH + 1], 1
        if key == LOWER_A:
            at, sign = at + 2 * room, -1
        n, after = wire.levels(raw, start, end, sign, marks, marks, at, room)
        marks[m.BIDS_N if key == LOWER_B else m.ASKS_N] = n
        return min(n, 0), after
    if load_byte(raw, start) == QUOTE:
        return wire.multiple(raw, start, end, marks[m.TICK_UNITS], marks[m.TICK_DECIMALS])
    marks[m.BIDS_N if key == LOWER_B else m.ASKS_N] = NO_QUOTE
    return wire.integer(raw, start, end)


@njit
def read(raw: Text, start: int, end: int, marks: Int64Array1D) -> int:
    """Read the message ``raw[start:end]`` into the fields and the scratch of ``marks``.

    Fields that the message does not have are -1. Returns its kind, or ``UNFAMILIAR``; either way the book and its windows
    are as before. A key that comes twice is unfamiliar.
    """
    if end - start < FRAME_BYTES or load_byte(raw, end - 1) != END:
        return UNFAMILIAR
    i = start
    if load_word(raw, i) == WRAPPER and load_word(raw, i + WORD_BYTES) & LOW_3 == WRAPPER_REST:
        end -= 1
        i = wrapped(raw, start, end)
        if i < 0 or load_byte(raw, end - 1) != END:
            return UNFAMILIAR
    if load_byte(raw, i) != OPEN_BRACE:
        return UNFAMILIAR
    for field in range(m.FIELDS + UPPER_A, m.FIELDS + m.FIELDS_N):
        marks[field] = -1
    marks[m.FIELDS + PREVIOUS] = marks[m.BIDS_N] = marks[m.ASKS_N] = -1
    while load_byte(raw, i) != END:
        i += 1
        if i + 6 > end:  # The shortest key, a value, and the brace.
            return UNFAMILIAR
        word = load_word(raw, i) if i + WORD_BYTES <= end else four(raw, i)
        if word & KEY_MASK == KEY:
            key = (word >> 8) & 0xFF
            if key >= m.FIELDS_N or marks[m.FIELDS + key] >= 0:
                return UNFAMILIAR
            meaning = MEANINGS[key]
            if meaning == INTEGER:
                value, i = wire.integer(raw, i + 4, end)
            elif meaning == PRICE:
                value, i = wire.multiple(raw, i + 4, end, marks[m.TICK_UNITS], marks[m.TICK_DECIMALS])
            elif meaning == QUANTITY:
                value, i = wire.multiple(raw, i + 4, end, marks[m.LOT_UNITS], marks[m.LOT_DECIMALS])
            elif meaning == QUOTE_SIDE:
                value, i = quote_side(key, raw, i + 4, end, marks)
            elif meaning == NAME:
                value, i = named(raw, i + 4, end, marks)
            elif meaning == KIND:
                value, i = kind_of(raw, i + 4, end)
            elif meaning == TRUTH:
                value, i = truth(raw, i + 4, end)
            elif meaning == IGNORED:
                value, i = skip(raw, i + 4, end)
            else:
                return UNFAMILIAR
            marks[m.FIELDS + key] = value
        elif word & FIVE_MASK == PREVIOUS_KEY:
            if marks[m.FIELDS + PREVIOUS] >= 0:
                return UNFAMILIAR
            value, i = wire.integer(raw, i + 5, end)
            marks[m.FIELDS + PREVIOUS] = value
        elif word & FIVE_MASK in (PAIR_KEY, STREAM_TYPE_KEY):
            value, i = skip(raw, i + 5, end)
        else:
            return UNFAMILIAR
        if value < 0 or (load_byte(raw, i) != COMMA and load_byte(raw, i) != END):
            return UNFAMILIAR
    if i + 1 != end or marks[m.FIELDS + LOWER_S] < 0:
        return UNFAMILIAR
    kind = marks[m.FIELDS + LOWER_E]
    return kind if kind > 0 else TICKER  # Spot's tickers do not say what they are.
