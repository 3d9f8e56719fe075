"""Funding rates of perpetuals as they are told, and when one of them is to be paid.

A venue tells again and again what will be paid next and when. Once a later time is told, the one before has passed: whoever holds then
pays by the last rate and mark that were told before it.
"""

from collections.abc import Mapping
from fractions import Fraction

from alphapack.domain.events import FrameError, FundingRate
from alphapack.domain.market import NANOS_PER_MS

RATE_MAX = Fraction(1, 10)
"""No venue takes more of a position's value at once."""
AHEAD_MS = 2 * 86_400_000
MARK_OFF_MAX = Fraction(1, 2)
"""A mark further from the mid is not believed."""


def check(event: FundingRate, mid: Fraction | None) -> None:
    """Raise ``FrameError`` for what is no funding rate; ``mid`` is that of the symbol, in its currency, where it is known."""
    rate, mark, now_ms = Fraction(event.rate), Fraction(event.mark), event.venue_ns // NANOS_PER_MS
    if abs(rate) > RATE_MAX or not mark:
        raise FrameError(f"expected a funding rate within {RATE_MAX} and a mark above 0, found {event.rate} and {event.mark}")
    if event.next_ms > now_ms + AHEAD_MS:
        raise FrameError(f"expected a funding time within {AHEAD_MS} ms of {now_ms}, found {event.next_ms}")
    if mid is not None and abs(mark - mid) > MARK_OFF_MAX * mid:
        raise FrameError(f"expected a mark within {MARK_OFF_MAX} of the mid, {float(mid)}, found {event.mark}")


def note(known: Mapping[str, FundingRate], event: FundingRate) -> tuple[FundingRate | None, bool]:
    """Return the rate that is to be paid now, None where none is, and whether the event is to stand in its place: not where it is older."""
    before = known.get(event.symbol)
    if before is None:
        return None, True
    has_passed = before.next_ms < event.next_ms and before.next_ms <= event.venue_ns // NANOS_PER_MS
    return (before if has_passed else None), before.next_ms <= event.next_ms
