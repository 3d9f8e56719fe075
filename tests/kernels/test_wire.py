"""The byte parser of prices and quantities against exact decimals: what it accepts is right, all else it refuses."""

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.kernels import wire
from alphapack.models import steps

STATUSES = {wire.UNFAMILIAR, wire.OFF_GRID, wire.TOO_LARGE, wire.NO_ROOM}
NUMBER = rb'"([0-9]+(?:\.[0-9]+)?)"'
LEVELS = re.compile(rb"\[(?:\[" + NUMBER + rb"," + NUMBER + rb"\](?:,\[" + NUMBER + rb"," + NUMBER + rb"\])*)?\]")
PAIR = re.compile(rb"\[" + NUMBER + rb"," + NUMBER + rb"\]")
ROOM = 3

compiled = pytest.mark.skipif(not hasattr(wire.levels, "py_func"), reason="kernels are interpreted here")


def grid(text: bytes, step: Step) -> int | None:
    """Return the number as a multiple of the step, None where it is none or beyond what a book holds."""
    ratio = Fraction(Decimal(text.decode())) / step.size
    return int(ratio) if ratio.denominator == 1 and ratio <= wire.LARGEST else None


def parsed(kernel, raw: bytes, tick: Step, lot: Step, sign: int) -> int | list[tuple[int, int]]:
    """Return what the parser read as (key, lots), or its status."""
    keys, quantities = np.full(ROOM, -7, np.int64), np.full(ROOM, -7, np.int64)
    pair = [np.array([step.units, step.decimals], np.int64) for step in (tick, lot)]
    n = kernel(raw, *pair, sign, keys, quantities)
    return n if n < 0 else list(zip(keys[:n].tolist(), quantities[:n].tolist(), strict=True))


def expected(raw: bytes, tick: Step, lot: Step, sign: int) -> list[tuple[int, int]] | None:
    """Return what the bytes mean, None where they are not to be accepted."""
    if LEVELS.fullmatch(raw) is None:
        return None
    levels = []
    for price, quantity in PAIR.findall(raw):
        ticks, lots = grid(price, tick), grid(quantity, lot)
        if not ticks or lots is None:
            return None
        levels.append((sign * ticks, lots))
    return levels if len(levels) <= ROOM else None


STEPS = st.sampled_from(
    [Step(1, 0), Step(1, 1), Step(1, 2), Step(5, 1), Step(25, 2), Step(1, 8), Step(125, 8), Step(1, 18), Step(617_342, 1)]
)
EDGES = st.sampled_from([2**52, 2**52 + 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 2**64 + 1, 5 * 2**64, 10**18 - 1, 10**18, 10**19 - 1])
DIGITS = st.one_of(
    st.integers(0, 99_999).map(str),
    st.integers(0, 10**26).map(str),
    EDGES.map(str),
    st.tuples(st.integers(0, 30), st.integers(0, 999)).map(lambda parts: "0" * parts[0] + str(parts[1])),
)


@st.composite
def numbers(draw: st.DrawFn) -> bytes:
    digits = draw(DIGITS)
    point = draw(st.integers(0, len(digits)))
    text = digits if point in (0, len(digits)) else f"{digits[:point]}.{digits[point:]}"
    return (f"{text}00" if "." in text and point % 2 else text).encode()


@st.composite
def level_lists(draw: st.DrawFn) -> bytes:
    pairs = draw(st.lists(st.tuples(numbers(), numbers()), max_size=ROOM + 1))
    return b"[" + b",".join(b'["%b","%b"]' % pair for pair in pairs) + b"]"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(level_lists()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        piece = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b'"', b"[", b"]", b",", b".", b"0", b" ", b"-", b"e5", b"]]", b'""']))
        )
        raw[at : at + draw(st.integers(0, 2))] = piece
    return bytes(raw)


def check(raw: bytes, tick: Step, lot: Step, sign: int) -> None:
    found, wanted = parsed(wire.levels, raw, tick, lot, sign), expected(raw, tick, lot, sign)
    if isinstance(found, list):
        assert found == wanted
    else:
        assert found in STATUSES
        if wanted is not None:  # Only the digits that an int64 is sure to hold may be a reason to refuse what is right.
            longest = max(len(text.replace(b".", b"").lstrip(b"0")) for text in re.findall(NUMBER, raw))
            assert longest + max(tick.decimals, lot.decimals) > wire.DIGITS_MAX


@settings(max_examples=150)
@given(level_lists(), STEPS, STEPS, st.sampled_from([1, -1]))
def test_level_lists_are_read_as_exact_decimals_or_refused(raw: bytes, tick: Step, lot: Step, sign: int) -> None:
    check(raw, tick, lot, sign)


@settings(max_examples=150)
@given(mutated(), STEPS, STEPS)
def test_what_is_not_quite_a_level_list_is_refused(raw: bytes, tick: Step, lot: Step) -> None:
    check(raw, tick, lot, 1)


@settings(max_examples=100)
@given(st.binary(max_size=40), STEPS, STEPS)
def test_any_bytes_are_refused_without_reading_beyond_them(raw: bytes, tick: Step, lot: Step) -> None:
    check(raw, tick, lot, 1)


@settings(max_examples=25)
@given(level_lists().filter(lambda raw: len(raw) > 2), STEPS)
def test_every_prefix_of_a_level_list_is_refused(raw: bytes, step: Step) -> None:
    for end in range(len(raw)):
        assert parsed(wire.levels, raw[:end], step, step, 1) in STATUSES


@settings(max_examples=150)
@given(numbers(), STEPS, st.integers(0, 3), st.binary(max_size=2))
def test_a_quoted_decimal_is_exact_and_says_where_it_ends(text: bytes, step: Step, start: int, tail: bytes) -> None:
    raw = b"," * start + b'"' + text + b'"' + tail
    value, after = wire.multiple(raw, start, step.units, step.decimals)
    if value >= 0:
        assert (value, after) == (grid(text, step), start + len(text) + 2)
    else:
        assert (value in STATUSES, after) == (True, start)


@pytest.mark.parametrize(
    "text", ["92233720368547758080", "9223372036854775808", "9999999999999999999", "922337203685477580.80", "0.92233720368547758080"]
)
def test_digits_beyond_an_int64_are_too_large_and_never_wrap(text: str) -> None:
    decimals = len(text.partition(".")[2])
    assert wire.multiple(b'"' + text.encode() + b'"', 0, 1, decimals) == (wire.TOO_LARGE, 0)
    assert parsed(wire.levels, b'[["1","%b"]]' % text.encode(), Step(1, 0), Step(1, decimals), 1) == wire.TOO_LARGE


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b'"12.50"', (1250, 7)),
        (b'"0"', (0, 3)),
        (b'"0.00000000"', (0, 12)),
        (b'"12.505"', (wire.OFF_GRID, 0)),
        (b'"12.5' + b"0" * 24 + b'"', (1250, 30)),
        (b'"45035996273704.96"', (wire.LARGEST, 19)),
        (b'"45035996273704.97"', (wire.TOO_LARGE, 0)),
        *[
            (raw, (wire.UNFAMILIAR, 0))
            for raw in (b"", b'"', b'""', b'"."', b'"1."', b'".5"', b'"1', b"1", b'"-1"', b'"+1"', b'"1e5"', b'" 1"', b'"0x10"', b'"nan"')
        ],
    ],
)
def test_quoted_decimals_by_hand(raw: bytes, wanted: tuple[int, int]) -> None:
    assert wire.multiple(raw, 0, 1, 2) == wanted


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"[]", []),
        (b'[["1.5","2"]]', [(15, 2)]),
        (b'[["1.5","2"],["1.4","0"]]', [(15, 2), (14, 0)]),
        (b'[["0.0","2"]]', wire.UNFAMILIAR),
        (b'[["1.55","2"]]', wire.OFF_GRID),
        (b'[["1.5","2.5"]]', wire.OFF_GRID),
        (b'[["1.5","2","0","1"]]', wire.UNFAMILIAR),
        (b'[["1.5"]]', wire.UNFAMILIAR),
        (b'[["1.5","2"]] ', wire.UNFAMILIAR),
        (b'[["1.5", "2"]]', wire.UNFAMILIAR),
        (b'[["1.5","2"],]', wire.UNFAMILIAR),
        (b"[[]]", wire.UNFAMILIAR),
        (b"[1.5,2]", wire.UNFAMILIAR),
        (b"[" + b",".join([b'["1","1"]'] * ROOM) + b"]", [(10, 1)] * ROOM),
        (b"[" + b",".join([b'["1","1"]'] * (ROOM + 1)) + b"]", wire.NO_ROOM),
    ],
)
def test_level_lists_by_hand(raw: bytes, wanted: int | list[tuple[int, int]]) -> None:
    assert parsed(wire.levels, raw, Step(1, 1), Step(1, 0), 1) == wanted


@settings(max_examples=150)
@given(st.one_of(level_lists(), mutated()), STEPS, STEPS)
def test_the_slow_decoder_agrees_wherever_both_accept(raw: bytes, tick: Step, lot: Step) -> None:
    fast = parsed(wire.levels, raw, tick, lot, 1)
    try:
        slow = steps.pairs(raw)
    except FrameError:
        return
    if isinstance(fast, list):
        wanted = [(Fraction(price), Fraction(quantity)) for price, quantity in slow]
        assert [(key * tick.size, lots * lot.size) for key, lots in fast] == wanted


@compiled
@settings(max_examples=150)
@given(st.one_of(level_lists(), mutated()), STEPS, STEPS)
def test_compiled_and_interpreted_parsers_are_equal(raw: bytes, tick: Step, lot: Step) -> None:
    assert parsed(wire.levels, raw, tick, lot, -1) == parsed(wire.levels.py_func, raw, tick, lot, -1)
    assert wire.multiple(raw, 2, tick.units, tick.decimals) == wire.multiple.py_func(raw, 2, tick.units, tick.decimals)
