"""Money against exact fractions, by hand and at random."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain import money
from alphapack.domain.market import Step

CENT, GRAM = Step(1, 2), Step(1, 3)
WHOLE = st.integers(-(10**30), 10**30)


@given(WHOLE, st.integers(1, 10**12))
def test_execution_planner_money_rounds_halves_to_the_even_unit(numerator: int, denominator: int) -> None:
    assert money.half_even(numerator, denominator) == round(Fraction(numerator, denominator))


def test_execution_planner_money_rounds_halves_of_both_signs_by_hand() -> None:
    assert [money.half_even(n, 2) for n in (-5, -3, -1, 1, 3, 5)] == [-2, -2, 0, 0, 2, 2]


def test_execution_planner_values_lots_by_hand() -> None:
    assert money.worth(6_812_345, 1_500, CENT, GRAM) == 102_185_175 * 10**5  # 1.5 at 68,123.45 is 102,185.175.
    assert money.worth(6_812_345, -1_500, CENT, GRAM) == -102_185_175 * 10**5
    assert money.worth_at_half_ticks(2 * 6_812_345 + 1, 1_500, CENT, GRAM) == 102_185_182_500_00
    assert money.worth(5, 3, Step(5, 1), Step(2, 0)) == 15 * money.UNITS  # 2.5 for each of 6.
    assert [money.worth(1, n, Step(1, 5), Step(5, 4)) for n in (1, 3, 5)] == [0, 2, 2], "halves of a unit go to the even one"


@given(st.integers(1, 10**9), st.integers(-(10**6), 10**6), st.integers(0, 10), st.integers(0, 10))
def test_execution_planner_values_lots_as_exact_fractions_rounded_once(half_ticks: int, lots: int, tick: int, lot: int) -> None:
    steps = Step(5, tick), Step(2, lot)
    exact = Fraction(half_ticks, 2) * lots * steps[0].size * steps[1].size * money.UNITS
    if abs(exact) > money.MONEY_MAX:
        with pytest.raises(ValueError, match="expected a value of at most"):
            money.worth_at_half_ticks(half_ticks, lots, *steps)
    else:
        assert money.worth_at_half_ticks(half_ticks, lots, *steps) == round(exact)


@given(st.integers(1, 10**9), st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=9))
def test_execution_planner_values_of_parts_sum_to_the_value_of_the_whole(half_ticks: int, lots: list[int]) -> None:
    steps = Step(1, 6), Step(1, 7)
    values = money.worths_at_half_ticks(half_ticks, lots, *steps)
    assert sum(values) == money.worth_at_half_ticks(half_ticks, sum(lots), *steps)
    for value, each in zip(values, lots, strict=True):
        assert abs(value - Fraction(half_ticks, 2) * each * steps[0].size * steps[1].size * money.UNITS) < 1


def test_execution_planner_fees_are_paid_and_rebates_received() -> None:
    value = 10_000 * money.UNITS
    assert money.fee(value, 5.0) == -5 * money.UNITS
    assert money.fee(value, -0.1) == 10**7
    assert money.fee(0, 5.0) == money.fee(value, 0.0) == 0
    assert [money.fee(value, 5.0) for value in (1_000, 3_000, 1_001, 999)] == [0, -2, -1, 0], "half a unit goes to the even one"
    assert money.fee(10**17, 0.1) == -(10**12), "of the decimal 0.1, not of the float beside it"
    with pytest.raises(ValueError):
        money.fee(value, float("nan"))


def test_execution_planner_splits_by_largest_remainder() -> None:
    assert money.split(10, [1, 1, 1]) == [4, 3, 3], "ties by position"
    assert money.split(-10, [1, 1, 1]) == [-4, -3, -3]
    assert money.split(7, [5, 3, 2]) == [4, 2, 1]  # 3.5, 2.1, 1.4.
    assert money.split(1, [1, 0, 5]) == [0, 0, 1]
    assert money.split(2, [0, 1, 1]) == [0, 1, 1]
    assert money.split(0, [3, 4]) == [0, 0]
    for weights in ([], [0, 0], [2, -1]):
        with pytest.raises(ValueError, match="expected weights"):
            money.split(1, weights)


@given(st.integers(-(10**18), 10**18), st.lists(st.integers(0, 10**9), min_size=1, max_size=12).filter(any))
def test_execution_planner_splits_exactly_and_nearly_pro_rata(total: int, weights: list[int]) -> None:
    parts = money.split(total, weights)
    assert sum(parts) == total
    assert money.split(-total, weights) == [-part for part in parts]
    exact = [Fraction(total * weight, sum(weights)) for weight in weights]
    for part, share, weight in zip(parts, exact, weights, strict=True):
        assert abs(part - share) < 1
        assert weight or not part
    raised = sorted((abs(share) % 1, -i) for i, (part, share) in enumerate(zip(parts, exact, strict=True)) if abs(part) > abs(share))
    lowered = sorted((abs(share) % 1, -i) for i, (part, share) in enumerate(zip(parts, exact, strict=True)) if abs(part) < abs(share))
    assert not raised or not lowered or raised[0] > lowered[-1], "who was rounded up had the larger remainder, or came first"
