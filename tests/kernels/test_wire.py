"""The byte parser of prices and quantities against exact decimals: what it accepts is right, all else it refuses, and nothing
outside the text is read."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.jit import trailing_zeros
from alphapack.kernels import wire
from alphapack.models import steps
from alphapack.venues import binance
from interpreted import Text, modules

STATUSES = {wire.UNFAMILIAR, wire.OFF_GRID, wire.NO_ROOM}
PLAIN = re.compile(r"[0-9]+(\.[0-9]+)?")
NUMBER = rb'"([0-9]+(?:\.[0-9]+)?)"'
LEVELS = re.compile(rb"\[(?:\[" + NUMBER + rb"," + NUMBER + rb"\](?:,\[" + NUMBER + rb"," + NUMBER + rb"\])*)?\]")
PAIR = re.compile(rb"\[" + NUMBER + rb"," + NUMBER + rb"\]")
ROOM = 4
WORDS_AWAY = range(wire.LEVEL_BYTES + 4)
"""Bytes behind what is read: with none of them nothing can be read by words, with all of them everything can."""

interpreted: Any = modules()["wire"]


def tail(n: int) -> bytes:
    """Return ``n`` bytes of what may follow in a frame, and the brace that ends it."""
    return (b',"a":[["0.5","7"],[1' * 4)[:n] + b"}"


def grid(text: bytes, step: Step) -> int | None:
    """Return the number as a multiple of the step, None where it is none or beyond what a book holds."""
    ratio = Fraction(Decimal(text.decode())) / step.size
    return int(ratio) if ratio.denominator == 1 and ratio <= wire.LARGEST else None


def number(text: bytes, step: Step) -> int:
    """Return what a quoted number is to be read as, or the status with which it is to be refused."""
    if PLAIN.fullmatch(text.decode("latin1")) is None or len(text.partition(b".")[0]) + step.decimals > wire.DIGITS_MAX:
        return wire.UNFAMILIAR
    found = grid(text, step)
    return wire.OFF_GRID if found is None else found


def parsed(kernels: Any, raw: bytes, tick: Step, lot: Step, sign: int, behind: bytes = b"}") -> int | tuple[list[tuple[int, int]], int]:
    """Return what the parser read as (key, lots) and where it ended, or its status."""
    out = np.full(2 * ROOM + 3, -7, np.int64)
    both = np.array([tick.units, tick.decimals, lot.units, lot.decimals], np.int64)
    text = raw + behind if kernels is wire else Text(raw + behind)
    n, after = kernels.levels(text, 0, len(text), sign, both, out, 1, ROOM)
    assert (out[0], *out[1 + 2 * ROOM :]) == (-7, -7, -7), "nothing is written beyond the room"
    if n < 0:
        assert after == 0
        return int(n)
    return list(zip(out[1 : 1 + n].tolist(), out[1 + ROOM : 1 + ROOM + n].tolist(), strict=True)), int(after)


def expected(raw: bytes, tick: Step, lot: Step, sign: int) -> list[tuple[int, int]] | None:
    """Return what the bytes mean, None where they are not to be accepted."""
    if LEVELS.fullmatch(raw) is None:
        return None
    levels = []
    for price, quantity in PAIR.findall(raw):
        ticks, lots = number(price, tick), number(quantity, lot)
        if ticks <= 0 or lots < 0:
            return None
        levels.append((sign * ticks, lots))
    return levels if len(levels) <= ROOM else None


def check(raw: bytes, tick: Step, lot: Step, sign: int, behind: bytes = b"}") -> None:
    found, wanted = parsed(wire, raw, tick, lot, sign, behind), expected(raw, tick, lot, sign)
    assert found == parsed(interpreted, raw, tick, lot, sign, behind)
    if wanted is not None:
        assert found == (wanted, len(raw))
    elif isinstance(found, tuple):  # A list may end before the bytes do: the caller looks at where.
        end = found[1]
        assert end < len(raw) and found[0] == expected(raw[:end], tick, lot, sign)
    else:
        assert found in STATUSES


STEPS = st.sampled_from(
    [Step(1, 0), Step(1, 1), Step(1, 2), Step(1, 3), Step(5, 1), Step(25, 2), Step(1, 8), Step(125, 8), Step(1, 18), Step(617_342, 1)]
)
EDGES = st.sampled_from([2**52, 2**52 + 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 2**64 + 1, 5 * 2**64, 10**18 - 1, 10**18, 10**19 - 1])
DIGITS = st.one_of(
    st.integers(0, 99_999).map(str),
    st.integers(0, 10**10).map(str),
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


PRICES = st.builds(lambda whole, part: b"%d.%03d" % (whole, part), st.integers(0, 99_999), st.integers(0, 99).map(lambda n: 10 * n))
"""What venues send: a dot, a few figures, zeros behind them."""


@st.composite
def level_lists(draw: st.DrawFn) -> bytes:
    pairs = draw(st.lists(st.tuples(*[st.one_of(PRICES, PRICES, numbers())] * 2), max_size=ROOM + 1))
    return b"[" + b",".join(b'["%b","%b"]' % pair for pair in pairs) + b"]"


PIECES = [b'"', b"[", b"]", b",", b".", b"0", b" ", b"-", b"e5", b"]]", b'""', b"}", b"\xb0", b"\x00", b"/", b":", b'","', b'"],["']


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(level_lists()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 2))] = draw(st.one_of(st.binary(max_size=3), st.sampled_from(PIECES)))
    return bytes(raw)


# Level lists


@settings(max_examples=150)
@given(level_lists(), STEPS, STEPS, st.sampled_from([1, -1]), st.sampled_from([0, 60]))
def test_level_lists_are_read_as_exact_decimals_or_refused(raw: bytes, tick: Step, lot: Step, sign: int, behind: int) -> None:
    check(raw, tick, lot, sign, tail(behind))


@settings(max_examples=200)
@given(mutated(), STEPS, STEPS, st.sampled_from([0, 60]))
def test_what_is_not_quite_a_level_list_is_refused(raw: bytes, tick: Step, lot: Step, behind: int) -> None:
    check(raw, tick, lot, 1, tail(behind))


@settings(max_examples=100)
@given(st.binary(max_size=90), STEPS, STEPS)
def test_any_bytes_are_refused_without_reading_beyond_them(raw: bytes, tick: Step, lot: Step) -> None:
    for start in (raw, b"[" + raw, b"[[" + raw, b'[["1.0","' + raw):
        check(start, tick, lot, 1)


@settings(max_examples=25)
@given(level_lists().filter(lambda raw: len(raw) > 2), STEPS)
def test_every_prefix_of_a_level_list_is_refused(raw: bytes, step: Step) -> None:
    for end in range(len(raw)):
        assert parsed(wire, raw[:end], step, step, 1) == parsed(interpreted, raw[:end], step, step, 1)
        assert parsed(wire, raw[:end], step, step, 1) in STATUSES


@settings(max_examples=15)
@given(st.one_of(level_lists(), mutated()), st.sampled_from([(Step(1, 1), Step(1, 3)), (Step(1, 2), Step(1, 0)), (Step(5, 1), Step(1, 8))]))
def test_a_level_list_is_the_same_at_every_distance_from_the_end(raw: bytes, pair: tuple[Step, Step]) -> None:
    alone = parsed(wire, raw, *pair, 1)
    if b"}" in raw or (isinstance(alone, int) and expected(raw, *pair, 1) is None):
        return  # What is refused may be refused for what comes first, and a brace ends the text.
    for n in WORDS_AWAY:
        assert parsed(wire, raw, *pair, 1, tail(n)) == alone


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"[]", []),
        (b'[["1.5","2"]]', [(15, 2)]),
        (b'[["1.5","2"],["1.4","0"]]', [(15, 2), (14, 0)]),
        (b'[["1.5","2.0"],["123456.40","0.000"],["1.4","12345678.0"]]', [(15, 2), (1_234_564, 0), (14, 12_345_678)]),
        (b'[["0.0","2"]]', wire.UNFAMILIAR),
        (b'[["0.0","2.0"],["1.0","2.0"]]', wire.UNFAMILIAR),
        (b'[["1.55","2"]]', wire.OFF_GRID),
        (b'[["1.55","2.00"]]', wire.OFF_GRID),
        (b'[["1.5","2.5"]]', wire.OFF_GRID),
        (b'[["1.5","2","0","1"]]', wire.UNFAMILIAR),
        (b'[["1.5"]]', wire.UNFAMILIAR),
        (b'[["1.5","2"]', wire.UNFAMILIAR),
        (b'[["1.5", "2"]]', wire.UNFAMILIAR),
        (b'[["1.5" ,"2"]]', wire.UNFAMILIAR),
        (b'[["1.5","2"],]', wire.UNFAMILIAR),
        (b'[["1.5","2"]["1.4","2"]]', wire.UNFAMILIAR),
        (b"[[]]", wire.UNFAMILIAR),
        (b"[1.5,2]", wire.UNFAMILIAR),
        (b"", wire.UNFAMILIAR),
        (b"[", wire.UNFAMILIAR),
        (b"[" + b",".join([b'["1","1"]'] * ROOM) + b"]", [(10, 1)] * ROOM),
        (b"[" + b",".join([b'["1","1"]'] * (ROOM + 1)) + b"]", wire.NO_ROOM),
    ],
)
@pytest.mark.parametrize("behind", [0, 60])
def test_level_lists_by_hand(raw: bytes, wanted: int | list[tuple[int, int]], behind: int) -> None:
    found = parsed(wire, raw, Step(1, 1), Step(1, 0), 1, tail(behind))
    assert found == (wanted if isinstance(wanted, int) else (wanted, len(raw)))


@pytest.mark.parametrize("lot", [Step(1, 0), Step(1, 1), Step(1, 3)])
def test_every_length_of_number_is_read_after_every_other(lot: Step) -> None:
    """What was found of the form of the number before must not be taken for the form of this one."""
    numbers = [b"%b.%b" % (b"1234567890"[:whole], b"5000000000"[:part]) for whole in range(1, 11) for part in (1, 2, 3, 7, 8, 9)]
    for before in numbers:
        for one in (*numbers[:: len(numbers) // 6], b"7", b"12345678"):
            raw = b'[["%b","%b"],["%b","%b"],["%b","%b"]]' % (before, before, one, before, before, one)
            found = parsed(wire, raw, Step(1, 1), lot, 1, tail(60))
            wanted = expected(raw, Step(1, 1), lot, 1)
            assert found == ((wanted, len(raw)) if wanted is not None else wire.OFF_GRID)


@settings(max_examples=150)
@given(st.one_of(level_lists(), mutated()), STEPS, STEPS)
def test_the_slow_decoder_agrees_wherever_both_accept(raw: bytes, tick: Step, lot: Step) -> None:
    fast = parsed(wire, raw, tick, lot, 1)
    if not isinstance(fast, tuple) or fast[1] != len(raw):
        return
    slow = steps.pairs(raw)  # A FrameError here: the parser has accepted what is no list of levels.
    wanted = [(Fraction(price), Fraction(quantity)) for price, quantity in slow]
    assert [(key * tick.size, lots * lot.size) for key, lots in fast[0]] == wanted


# Quoted decimals


@settings(max_examples=250)
@given(st.one_of(numbers(), PRICES), STEPS, st.integers(0, 3), st.integers(0, 30))
def test_a_quoted_decimal_is_exact_and_says_where_it_ends(text: bytes, step: Step, start: int, behind: int) -> None:
    raw = b"," * start + b'"' + text + b'"' + tail(behind)
    wanted = number(text, step)
    found = (wanted, start + len(text) + 2 if wanted >= 0 else start)
    assert wire.multiple(raw, start, len(raw), step.units, step.decimals) == found
    assert wire.multiple_slowly(raw, start, step.units, step.decimals) == found
    assert interpreted.multiple(Text(raw), start, len(raw), step.units, step.decimals) == found


@settings(max_examples=150)
@given(st.one_of(numbers(), PRICES), st.integers(0, 30), st.sampled_from(PIECES), STEPS, st.integers(0, 30))
def test_words_and_bytes_refuse_the_same(text: bytes, at: int, piece: bytes, step: Step, behind: int) -> None:
    raw = b'"' + text[:at] + piece + text[at:] + b'"' + tail(behind)
    value, after = wire.multiple(raw, 0, len(raw), step.units, step.decimals)
    slowly = wire.multiple_slowly(raw, 0, step.units, step.decimals)
    assert (value, after) == slowly == interpreted.multiple(Text(raw), 0, len(raw), step.units, step.decimals)
    if value >= 0:
        assert raw[after - 1 : after] == b'"' and value == number(raw[1 : after - 1], step)
    else:
        assert (value in STATUSES, after) == (True, 0)


@pytest.mark.parametrize(
    "text", ["92233720368547758080", "9223372036854775808", "9999999999999999999", "922337203685477580.80", "0.92233720368547758080"]
)
def test_digits_beyond_an_int64_never_wrap(text: str) -> None:
    decimals = len(text.partition(".")[2])
    for behind in (0, 30, 60):
        raw = b'"' + text.encode() + b'"' + tail(behind)
        assert wire.multiple(raw, 0, len(raw), 1, decimals) == (wire.UNFAMILIAR, 0)
        assert parsed(wire, b'[["1","%b"]]' % text.encode(), Step(1, 0), Step(1, decimals), 1, tail(behind)) == wire.UNFAMILIAR


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b'"12.50"', (1250, 7)),
        (b'"0"', (0, 3)),
        (b'"0.00000000"', (0, 12)),
        (b'"12.505"', (wire.OFF_GRID, 0)),
        (b'"12.5' + b"0" * 24 + b'"', (1250, 30)),
        (b'"45035996273704.96"', (wire.LARGEST, 19)),
        (b'"45035996273704.97"', (wire.OFF_GRID, 0)),
        *[
            (raw, (wire.UNFAMILIAR, 0))
            for raw in (b"", b'"', b'""', b'"."', b'"1."', b'".5"', b'"1', b"1", b'"-1"', b'"+1"', b'"1e5"', b'" 1"', b'"0x10"', b'"nan"')
        ],
    ],
)
def test_quoted_decimals_by_hand(raw: bytes, wanted: tuple[int, int]) -> None:
    for behind in (0, 30):
        if raw.count(b'"') != 1 or not behind:  # An open quote would be closed by what follows.
            whole = raw + tail(behind)
            assert wire.multiple(whole, 0, len(whole), 1, 2) == interpreted.multiple(Text(whole), 0, len(whole), 1, 2) == wanted


# Integers and times


@pytest.mark.parametrize("behind", [0, 1, 7, 8, 15, 16, 17, 30])
def test_integers_are_read_up_to_eighteen_digits_and_refused_beyond(behind: int) -> None:
    end = b",9}" if not behind else b',"7' + tail(behind)
    for digits in range(1, 26):
        for text in (b"1" + b"0" * (digits - 1), b"9" * digits, b"1234567890123456789012345"[:digits]):
            wanted = (int(text), digits) if digits <= wire.DIGITS_MAX else (wire.UNFAMILIAR, 0)
            raw = text + end
            assert wire.integer(raw, 0, len(raw)) == interpreted.integer(Text(raw), 0, len(raw)) == wanted


@given(st.integers(0, 10**18 - 1), st.sampled_from([b",", b"}", b"]", b" ", b".5,", b"e5,", b'"', b"/", b":", b"\xb1"]), st.integers(0, 30))
def test_an_integer_ends_where_its_digits_do(value: int, stop: bytes, behind: int) -> None:
    raw = b"," + str(value).encode() + stop + tail(behind)
    assert wire.integer(raw, 1, len(raw)) == interpreted.integer(Text(raw), 1, len(raw)) == (value, 1 + len(str(value)))


@pytest.mark.parametrize("text", [b"", b"00", b"01", b"007", b"-1", b"+1", b" 1", b'"1"', b"null", b".5", b"x", b"0" * 19])
@pytest.mark.parametrize("behind", [0, 30])
def test_what_is_no_json_integer_is_refused(text: bytes, behind: int) -> None:
    raw = text + b"," + tail(behind)
    assert wire.integer(raw, 0, len(raw)) == interpreted.integer(Text(raw), 0, len(raw)) == (wire.UNFAMILIAR, 0)


@given(st.one_of(st.integers(0, 2**60), st.sampled_from([0, 9 * 10**12, 9 * 10**12 + 1, 10**14 - 1, 10**14, 4 * 10**15 - 1, 4 * 10**15])))
def test_a_time_is_what_the_codec_reads(time: int) -> None:
    try:
        wanted = binance.nanos(time)
    except FrameError:
        wanted = wire.UNFAMILIAR
    assert wire.nanos(time) == interpreted.nanos(time) == wanted


# Words


@settings(max_examples=200)
@given(st.text("0123456789", max_size=8), st.binary(min_size=8, max_size=8))
def test_the_digits_that_a_word_begins_with_are_counted_and_read(digits: str, rest: bytes) -> None:
    raw = (digits.encode() + rest)[:8]
    word = int.from_bytes(raw, "little", signed=True) ^ wire.ZEROS
    n = next((i for i, byte in enumerate(raw) if not 48 <= byte <= 57), 8)
    assert trailing_zeros(wire.others(word)) >> 3 == n
    assert wire.figures(word, n) == (int(raw[:n]) if n else 0)


@given(st.text("0123456789", min_size=1, max_size=7), st.text("0123456789", min_size=1, max_size=8), st.data())
def test_figures_around_a_dot_are_spliced_exactly(whole: str, part: str, data: st.DataObject) -> None:
    decimals = data.draw(st.integers(1, max(1, min(len(part), 8 - len(whole)))))
    words = [int.from_bytes(text.encode().ljust(8, b'"'), "little", signed=True) ^ wire.ZEROS for text in (whole, part)]
    wanted = wire.OFF_GRID if part[decimals:].strip("0") else int(whole + part[:decimals])
    assert wire.spliced(words[0], len(whole), words[1], len(part), decimals) == wanted
