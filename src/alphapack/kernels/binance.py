"""Strict reader of Binance's market messages: depthUpdate, trade, aggTrade, bookTicker, in a stream wrapper or without.

It takes flat JSON objects without whitespace, in any order of keys, and is sure of all it takes: anything else is
``UNFAMILIAR`` and is for the general decoder to judge.
"""

from alphapack.arrays import Int64Array1D
from alphapack.jit import load_byte, load_word, njit
from alphapack.kernels import marks as m
from alphapack.kernels import wire
from alphapack.kernels.wire import COMMA, END, LOW_BYTES, NINE, OPEN, QUOTE, UNFAMILIAR, WORD_BYTES, ZERO

COLON, BACKSLASH, SPACE, AT, OPEN_BRACE = 58, 92, 32, 64, 123
LOWER_E, LOWER_F, LOWER_L, LOWER_M, LOWER_P, LOWER_Q, LOWER_S, LOWER_T, LOWER_U = 101, 102, 108, 109, 112, 113, 115, 116, 117
LOWER_A, LOWER_B, UPPER_A, UPPER_B, UPPER_E, UPPER_T, UPPER_U, UPPER_Z = 97, 98, 65, 66, 69, 84, 85, 90
PREVIOUS = 1
"""Place among the fields of ``pu``, the one key of two letters that matters."""
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
TWO_LETTERS, TWO_MASK = word_of('"p\0":'), 0xFFFF00FFFF
"""A key of two letters of which the first is a p."""


@njit
def wrapped(raw: bytes, start: int, end: int) -> int:
    """Return where the data of the stream wrapper at ``start`` begins, or ``UNFAMILIAR``.

    So are streams of partial depth: they hold no differences, whatever their messages say.
    """
    i = start + 11
    while i + 2 * WORD_BYTES < end:
        byte = load_byte(raw, i)
        if byte == QUOTE:
            rest = load_word(raw, i + WORD_BYTES)
            return i + 9 if load_word(raw, i) == DATA and rest & LOW_2 == DATA_REST else UNFAMILIAR
        if byte == AT and load_word(raw, i) & LOW_6 == PARTIAL and ZERO <= load_byte(raw, i + 6) <= NINE:
            return UNFAMILIAR
        if byte == BACKSLASH or not SPACE <= byte < END:
            return UNFAMILIAR
        i += 1
    return UNFAMILIAR


@njit
def named(raw: bytes, start: int, end: int, marks: Int64Array1D) -> tuple[int, int]:
    """Read the quoted name at ``raw[start]``: 0 and the index after it where it is this book's; or ``UNFAMILIAR`` first."""
    n = marks[m.NAME_N]
    if raw[start] != QUOTE or start + 2 + m.NAME_MAX > end:
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
def kind_of(raw: bytes, start: int, end: int) -> tuple[int, int]:
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
def truth(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """Read ``true`` or ``false``: 1 or 0 and the index after it; or ``UNFAMILIAR`` first."""
    if start + 6 > end:  # Some byte follows, at least the brace.
        return (1, start + 4) if start + 5 == end and four(raw, start) == TRUE else (UNFAMILIAR, start)
    if four(raw, start) == TRUE:
        return 1, start + 4
    if four(raw, start) == FALSE & LOW_4 and load_byte(raw, start + 4) == LOWER_E:
        return 0, start + 5
    return UNFAMILIAR, start


@njit
def four(raw: bytes, start: int) -> int:
    """Return the four bytes at ``raw[start]`` as a number, the first lowest."""
    low, high = load_byte(raw, start) | load_byte(raw, start + 1) << 8, load_byte(raw, start + 2) | load_byte(raw, start + 3) << 8
    return low | high << 16


@njit
def skip_text(raw: bytes, start: int) -> tuple[int, int]:
    """Read the plain text whose opening quote is ``raw[start]``: 0 and the index after it; or ``UNFAMILIAR`` first."""
    i = start + 1
    while SPACE <= raw[i] < END and raw[i] != QUOTE and raw[i] != BACKSLASH:
        i += 1
    return (0, i + 1) if raw[i] == QUOTE else (UNFAMILIAR, start)


@njit
def skip(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """Read past a value that nobody asks for: plain text, a whole number or a truth value; or ``UNFAMILIAR`` first."""
    if raw[start] == QUOTE:
        return skip_text(raw, start)
    if ZERO <= raw[start] <= NINE:
        value, after = wire.integer(raw, start)
        return min(value, 0), after
    value, after = truth(raw, start, end)
    return min(value, 0), after


@njit
def quote_side(key: int, raw: bytes, start: int, end: int, marks: Int64Array1D) -> tuple[int, int]:
    """Read the value of ``b`` or ``a``: levels of a difference, the best price of a ticker, or an order id of a trade."""
    if raw[start] == OPEN:
        at, room, sign = marks[m.SCRATCH], marks[m.SCRATCH + 1], 1
        if key == LOWER_A:
            at, sign = at + 2 * room, -1
        n, after = wire.levels(raw, start, sign, marks, marks, at, room)
        marks[m.BIDS_N if key == LOWER_B else m.ASKS_N] = n
        return min(n, 0), after
    if raw[start] == QUOTE:
        return wire.multiple(raw, start, marks[m.TICK_UNITS], marks[m.TICK_DECIMALS])
    return skip(raw, start, end)


@njit
def value_of(key: int, raw: bytes, start: int, end: int, marks: Int64Array1D) -> tuple[int, int]:
    """Read the value of a one-letter key: what is kept of it and the index after it; or a negative status first."""
    if key in (LOWER_B, LOWER_A):
        return quote_side(key, raw, start, end, marks)
    if key == LOWER_P:
        return wire.multiple(raw, start, marks[m.TICK_UNITS], marks[m.TICK_DECIMALS])
    if key in (LOWER_Q, UPPER_B, UPPER_A):
        return wire.multiple(raw, start, marks[m.LOT_UNITS], marks[m.LOT_DECIMALS])
    if key == LOWER_S:
        return named(raw, start, end, marks)
    if key == LOWER_E:
        return kind_of(raw, start, end)
    if key == LOWER_M:
        return truth(raw, start, end)
    if key in (UPPER_E, UPPER_T, UPPER_U, LOWER_U, LOWER_T, LOWER_F, LOWER_L):
        return wire.integer(raw, start)
    if UPPER_A <= key <= UPPER_Z:
        return skip(raw, start, end)
    return UNFAMILIAR, start


@njit
def read(raw: bytes, start: int, end: int, marks: Int64Array1D) -> int:
    """Read the message ``raw[start:end]`` into the fields and the scratch of ``marks``.

    Fields that the message does not have are -1. Returns its kind, or ``UNFAMILIAR``; either way the book and its windows
    are as before. A key that comes twice is unfamiliar.
    """
    if end - start < FRAME_BYTES or raw[end - 1] != END:
        return UNFAMILIAR
    i = start
    if load_word(raw, i) == WRAPPER and load_word(raw, i + WORD_BYTES) & LOW_3 == WRAPPER_REST:
        end -= 1
        i = wrapped(raw, start, end)
        if i < 0 or raw[end - 1] != END:
            return UNFAMILIAR
    if raw[i] != OPEN_BRACE:
        return UNFAMILIAR
    for field in range(m.FIELDS + UPPER_A, m.FIELDS + m.FIELDS_N):
        marks[field] = -1
    marks[m.FIELDS + PREVIOUS] = marks[m.BIDS_N] = marks[m.ASKS_N] = -1
    while load_byte(raw, i) != END:
        i += 1
        if i + 6 > end:  # The shortest key, a value, and the brace.
            return UNFAMILIAR
        word = load_word(raw, i) if i + WORD_BYTES <= len(raw) else four(raw, i)
        if word & KEY_MASK == KEY:
            key = (word >> 8) & 0xFF
            if key >= m.FIELDS_N or marks[m.FIELDS + key] >= 0:
                return UNFAMILIAR
            value, i = value_of(key, raw, i + 4, end, marks)
            marks[m.FIELDS + key] = value
        elif word & TWO_MASK == TWO_LETTERS and (word >> 16) & 0xFF == LOWER_U:
            if marks[m.FIELDS + PREVIOUS] >= 0:
                return UNFAMILIAR
            value, i = wire.integer(raw, i + 5)
            marks[m.FIELDS + PREVIOUS] = value
        elif word & TWO_MASK == TWO_LETTERS and (word >> 16) & 0xFF == LOWER_S:
            value, i = skip(raw, i + 5, end)
        else:
            return UNFAMILIAR
        if value < 0 or (load_byte(raw, i) != COMMA and load_byte(raw, i) != END):
            return UNFAMILIAR
    if i + 1 != end or marks[m.FIELDS + LOWER_S] < 0:
        return UNFAMILIAR
    kind = marks[m.FIELDS + LOWER_E]
    return kind if kind > 0 else TICKER  # Spot's tickers do not say what they are.
