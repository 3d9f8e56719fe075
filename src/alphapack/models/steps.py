"""Ticks and lots where nobody has stated them: the coarsest grid that every number seen so far lies on."""

import math
from collections.abc import Iterable
from decimal import Decimal

import msgspec

from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.kernels import wire

DECIMALS_MAX = 18

_pairs = msgspec.json.Decoder(list[tuple[Decimal, Decimal]])
_single = msgspec.json.Decoder(Decimal)


def pairs(raw: bytes) -> list[tuple[Decimal, Decimal]]:
    """Decode a level list of any JSON shape that means pairs of numbers; the exact and slow way."""
    try:
        levels = _pairs.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"expected a list of [price, quantity], found {raw[:60]!r}: {error}") from None
    for price, quantity in levels:
        _check(price, "price")
        _check(quantity, "quantity")
        if price == 0:
            raise FrameError("expected a price above zero, found 0")
    return levels


def single(raw: bytes) -> Decimal:
    """Decode one JSON number or quoted decimal."""
    try:
        value = _single.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameError(f"expected a decimal number, found {raw[:60]!r}: {error}") from None
    _check(value, "number")
    return value


def _check(value: Decimal, what: str) -> None:
    # as_tuple is looked at before any arithmetic: 1e999999999 is a legal Decimal that must not be expanded.
    if not value.is_finite() or (value.is_signed() and value != 0):
        raise FrameError(f"expected a finite {what} of zero or more, found {value}")
    digits, exponent = value.as_tuple().digits, value.as_tuple().exponent
    assert isinstance(exponent, int)
    if len(digits) > 30 or not -30 <= exponent <= 18:
        raise FrameError(f"expected a {what} of at most {DECIMALS_MAX} digits, found {str(value)[:40]}")


def _significant(value: Decimal) -> tuple[int, int]:
    """Return ``(mantissa, decimals)`` of the shortest form of a number: 1.2300 is (123, 2), 1200 is (1200, 0)."""
    digits, exponent = value.as_tuple().digits, value.as_tuple().exponent
    assert isinstance(exponent, int)
    mantissa = int("".join(map(str, digits)))
    while exponent < 0 and mantissa % 10 == 0 and mantissa:
        mantissa //= 10
        exponent += 1
    if mantissa == 0:
        return 0, 0
    if exponent >= 0:
        return mantissa * 10**exponent, 0
    return mantissa, -exponent


def common(values: Iterable[Decimal], step: Step | None = None) -> Step | None:
    """Return the coarsest step that ``values`` and ``step`` are multiples of; None where all are zero and no step is given."""
    units, decimals = (step.units, step.decimals) if step else (0, 0)
    for value in values:
        mantissa, places = _significant(value)
        if places > DECIMALS_MAX:
            raise FrameError(f"expected at most {DECIMALS_MAX} decimals, found {value}")
        if places > decimals:
            units *= 10 ** (places - decimals)
            decimals = places
        units = math.gcd(units, mantissa * 10 ** (decimals - places))
    if units > wire.LARGEST:
        raise FrameError(f"expected numbers on a grid of at most {wire.LARGEST} units, found {units} of {decimals} decimals")
    return Step(units, decimals) if units else None


def multiple(value: Decimal, step: Step) -> int | None:
    """Return ``value / step`` where that is whole, else None; raises where it is beyond what a book holds."""
    mantissa, places = _significant(value)
    if places > step.decimals:
        return None
    scale: int = 10 ** (step.decimals - places)
    quotient, rest = divmod(mantissa * scale, step.units)
    if rest:
        return None
    if quotient > wire.LARGEST:
        raise FrameError(f"expected at most {wire.LARGEST} steps of {step}, found {value}")
    return quotient
