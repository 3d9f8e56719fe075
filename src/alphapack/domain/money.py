"""Money: whole units of 1e-8 of the settlement currency, signed from the trader's side, so that what is paid is below zero.

A value is exact until it is rounded, once, half to even. What is split is split by largest remainder, so that the parts sum to the whole.
"""

from collections.abc import Sequence
from fractions import Fraction

from alphapack.domain.market import Step

UNITS = 10**8
"""Units of money in one of the currency."""
MONEY_MAX = 2**63 - 1
"""Largest value at either side of zero: records carry 64 bits."""


def half_even(numerator: int, denominator: int) -> int:
    """Return a fraction as a whole number, halves to the even one; ``denominator`` above 0."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


def apportion(numerators: Sequence[int], denominator: int) -> list[int]:
    """Round fractions of one denominator so that they sum to what their sum is when rounded half to even.

    Each is rounded down; what that leaves goes, one unit each, to the largest remainders, ties by position.
    """
    parts = [one // denominator for one in numerators]
    left = half_even(sum(numerators), denominator) - sum(parts)
    for i in sorted(range(len(parts)), key=lambda i: -(numerators[i] % denominator))[:left]:
        parts[i] += 1
    return parts


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Return ``total`` in whole parts pro rata to ``weights``, by largest remainder, ties by position.

    The parts sum to the total, no part is further than one unit from its exact share, and those of ``-total`` are the same with the other
    sign. Raises ``ValueError`` where a weight is below zero or all are zero.
    """
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0:
        raise ValueError(f"expected weights of zero or more, one of them above it, found {list(weights)[:20]}")
    sign = -1 if total < 0 else 1
    return [sign * part for part in apportion([abs(total) * weight for weight in weights], whole)]


def worth(ticks: int, lots: int, tick: Step, lot: Step) -> int:
    """Return the value of lots at a price of whole ticks, with the sign of their product.

    Raises ``ValueError`` where it is beyond ``MONEY_MAX``.
    """
    return worth_at_half_ticks(2 * ticks, lots, tick, lot)


def worth_at_half_ticks(half_ticks: int, lots: int, tick: Step, lot: Step) -> int:
    """Return the value of lots at a price of half ticks, as a mid is (bid + ask); else as ``worth``."""
    price, denominator = _of_a_lot(half_ticks, tick, lot)
    return _bounded(half_even(price * lots, denominator))


def worths_at_half_ticks(half_ticks: int, lots: Sequence[int], tick: Step, lot: Step) -> list[int]:
    """Return the values of several quantities at one price of half ticks; they sum to the value of the sum; else as ``worth``."""
    price, denominator = _of_a_lot(half_ticks, tick, lot)
    return [_bounded(value) for value in apportion([price * one for one in lots], denominator)]


def fee(worth: int, bps: float) -> int:
    """Return the fee on a value of zero or more: below zero where it is paid, above where a negative rate is a rebate.

    ``bps`` is the decimal that the float prints as. Raises ``ValueError`` where it is not finite.
    """
    rate = Fraction(str(bps)) / 10_000
    return half_even(-worth * rate.numerator, rate.denominator)


def _of_a_lot(half_ticks: int, tick: Step, lot: Step) -> tuple[int, int]:
    """Return the exact money of one lot as a fraction."""
    return half_ticks * tick.units * lot.units * UNITS, 2 * 10 ** (tick.decimals + lot.decimals)


def _bounded(value: int) -> int:
    if abs(value) > MONEY_MAX:
        raise ValueError(f"expected a value of at most {MONEY_MAX} units of 1e-8, found {value}")
    return value
