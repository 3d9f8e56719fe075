"""Ticks and lots where nobody has stated them: the coarsest grid that every number seen so far lies on."""

import math
import re
from collections.abc import Iterable
from decimal import Decimal

import msgspec

from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.kernels import wire

DECIMALS_MAX = 18

_pairs = msgspec.json.Decoder(list[tuple[msgspec.Raw, msgspec.Raw]])
_number = msgspec.json.Decoder(str)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
"""What venues write for a number, in quotes or without; Decimal itself takes underscores, spaces and digits of any script."""


def pairs(raw: bytes) -> list[tuple[Decimal, Decimal]]:
    """Decode a level list of any JSON shape that means pairs of numbers; the exact and slow way."""
    try:
        decoded = _pairs.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"expected a list of [price, quantity], found {raw[:60]!r}: {error}") from None
    levels = [(single(bytes(price)), single(bytes(quantity))) for price, quantity in decoded]
    if any(price == 0 for price, _ in levels):
        raise FrameError("expected a price above zero, found 0")
    return levels


def single(raw: bytes) -> Decimal:
    """Decode one JSON number or quoted decimal; finite, zero or more, of a length that can be counted in steps."""
    try:
        text = _number.decode(raw) if raw.lstrip().startswith(b'"') else raw.decode().strip()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameError(f"expected a decimal number, found {raw[:60]!r}: {error}") from None
    if _NUMBER.fullmatch(text) is None:
        raise FrameError(f"expected a decimal number, found {raw[:60]!r}")
    value = Decimal(text)
    if value.is_signed() and value != 0:
        raise FrameError(f"expected a number of zero or more, found {value}")
    digits, exponent = value.as_tuple().digits, value.as_tuple().exponent
    # Looked at before any arithmetic: 1e999 must not be expanded.
    if len(digits) > 30 or not isinstance(exponent, int) or not -30 <= exponent <= DECIMALS_MAX:
        raise FrameError(f"expected a number of at most {DECIMALS_MAX} digits, found {text[:40]}")
    return value


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
