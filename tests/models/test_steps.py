"""Steps inferred from numbers: the coarsest grid, exactly, and nothing that is not a number of the market."""

import contextlib
import json
import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.kernels import wire
from alphapack.models import steps

DECIMALS = st.builds(lambda mantissa, places: Decimal(mantissa).scaleb(-places), st.integers(0, 10**12), st.integers(0, 18))
HOSTILE = [
    b'"nan"', b'"NaN"', b'"sNaN"', b'"inf"', b'"-Infinity"', b'"-1"', b"-1", b'"0x10"', b'""', b'" "', b'"1.2.3"', b'"1,2"',
    b"1e308", b"1e400", b'"1e999999999"', b"1e999999999", b'"1e-999999999"', b'"1e99999999999999999999"', b'"' + b"1" * 40 + b'"',
    b"1" * 40, b"1" * 5_000, b"0." + b"0" * 40 + b"1", b"true", b"null", b"[]", b"{}", b"[" * 5_000, b'"\xff"', b'"\\ud800"',
    b"", b"1 2", b'"1',
]  # fmt: skip


@given(st.lists(DECIMALS, max_size=8), st.one_of(st.none(), st.builds(Step, st.integers(1, 1_000), st.integers(0, 8))))
def test_the_common_step_is_the_greatest_that_divides_all(values: list[Decimal], given_step: Step | None) -> None:
    numbers = [Fraction(value) for value in values] + ([given_step.size] if given_step else [])
    found = steps.common(values, given_step)
    scale = math.lcm(*(number.denominator for number in numbers))
    greatest = Fraction(math.gcd(*(int(number * scale) for number in numbers)), scale)
    assert (found.size if found else 0) == greatest
    for value in values:
        assert found is None or (Fraction(value) / found.size).denominator == 1


@given(DECIMALS, st.builds(Step, st.integers(1, 1_000), st.integers(0, 18)))
def test_a_multiple_is_exact_or_none_or_refused(value: Decimal, step: Step) -> None:
    wanted = Fraction(value) / step.size
    try:
        found = steps.multiple(value, step)
    except FrameError:
        assert wanted > wire.LARGEST
        return
    assert found == (wanted if wanted.denominator == 1 else None)


@given(st.lists(st.tuples(DECIMALS.filter(bool), DECIMALS), max_size=6), st.booleans(), st.sampled_from([None, 1]))
def test_pairs_are_exact_in_every_shape_of_json(levels: list[tuple[Decimal, Decimal]], quoted: bool, indent: int | None) -> None:
    if quoted:
        raw = json.dumps([[str(price), str(quantity)] for price, quantity in levels], indent=indent)
    else:  # Digits as they stand: a float in between would round them.
        raw = "[" + ", ".join(f"[{price}, {quantity}]" for price, quantity in levels) + "]"
    assert steps.pairs(raw.encode()) == levels


@pytest.mark.parametrize("raw", HOSTILE, ids=lambda raw: repr(raw[:24]))
def test_what_is_no_number_of_the_market_is_refused_in_one_line(raw: bytes) -> None:
    for read in (
        steps.single,
        lambda one: steps.pairs(b'[["1","1"],[' + one + b',"1"]]'),
        lambda one: steps.pairs(b'[["1",' + one + b"]]"),
    ):
        with pytest.raises(FrameError, match=r"^expected .*, found ") as error:
            read(raw)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"{}", b'"[]"', b"[1]", b'[["1"]]', b'[["1","2","3"]]', b'[["1","2"]', b'[["0","1"]]', b'[["-0","1"]]', b"[[]]"]
)
def test_what_is_no_level_list_is_refused(raw: bytes) -> None:
    with pytest.raises(FrameError, match=r"^expected "):
        steps.pairs(raw)


@pytest.mark.parametrize(("raw", "wanted"), [(b'"1_000"', "1000"), (b'" 1"', "1"), (b'"1 "', "1"), ('"\uff11\uff12"'.encode(), "12")])
def test_what_is_hardly_a_number_is_exact_or_refused(raw: bytes, wanted: str) -> None:
    with contextlib.suppress(FrameError):
        assert steps.single(raw) == Decimal(wanted)


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b'"1e-5"', "0.00001"),
        (b"1E2", "100"),
        (b"0.1", "0.1"),
        (b'"0.10"', "0.1"),
        (b'"\\u0031"', "1"),
        (b'"-0"', "0"),
        (b"0e-9", "0"),
        (b"1e18", "1000000000000000000"),
    ],
)
def test_unusual_forms_of_a_number_are_exact(raw: bytes, wanted: str) -> None:
    assert steps.single(raw) == Decimal(wanted)


def test_more_than_eighteen_decimals_are_refused() -> None:
    assert steps.common([steps.single(b'"0.000000000000000001"')]) == Step(1, 18)
    with pytest.raises(FrameError):
        steps.common([Decimal("0.0000000000000000001")])


def test_zeros_alone_name_no_step() -> None:
    assert steps.common([Decimal(0), Decimal("0.00")]) is None
    assert steps.common([Decimal(0)], Step(5, 1)) == Step(5, 1)
    assert steps.multiple(Decimal("0.000"), Step(5, 1)) == 0
