"""Names of options and of tenors: what they say, and when they expire.

Deribit names an option ``BTC-27MAR26-70000-C``: underlying, day of expiry, strike, call or put. ``XRP_USDC-26JUN26-1d35-C`` is
linear, its premium in USDC, and its strike is 1.35. All expire at 08:00 UTC. A year has 365 days.
"""

import re
from functools import lru_cache

import msgspec

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
EXPIRY_MS = 8 * 3_600_000
"""Time of the day at which options expire, UTC."""
YEARS_MAX = 100.0
NAMES_KEPT = 1 << 14
"""Parsed names that are kept: some times what an exchange lists."""
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = {"d": 1, "w": 7, "m": 30, "y": 365}
_NAME = re.compile(r"([A-Z0-9]{1,20})(?:_([A-Z0-9]{1,20}))?-([0-9]{1,2}[A-Z]{3}[0-9]{2})-([0-9]{1,15}(?:d[0-9]{1,15})?)-([CP])")
_DATE = re.compile(r"([0-9]{1,2})([A-Z]{3})([0-9]{2})")
_ISO = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_SPAN = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,5})?)([dwmy])")
_EXPECTED_NAME = "the name of an option such as BTC-27MAR26-70000-C"
_EXPECTED_TENOR = "a tenor such as 7d, 2w, 1m, 1y, 27MAR26 or 2026-03-27"


class Instrument(msgspec.Struct, frozen=True, gc=False):
    """What the name of an option says."""

    base: str
    quote: str | None
    """Currency of the premium; None where it is paid in the coin itself."""
    expiry_ms: int
    strike: float
    call: bool


@lru_cache(maxsize=NAMES_KEPT)
def instrument(name: str) -> Instrument:
    """Return what Deribit's name of an option says. Raises ``ValueError`` where it is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"expected {_EXPECTED_NAME}, found {name[:60]!r}")
    base, quote, date, strike, kind = found.groups()
    price = float(strike.replace("d", "."))
    if price == 0.0:
        raise ValueError(f"expected {_EXPECTED_NAME}, found the strike 0 in {name!r}")
    return Instrument(base, quote, date_ms(date), price, kind == "C")


def date_ms(text: str) -> int:
    """Return when options of a day such as ``27MAR26`` or ``2026-03-27`` expire, in ms of the epoch. Raises ``ValueError``."""
    if found := _DATE.fullmatch(text.upper()):
        day, month, year = int(found[1]), _MONTHS.index(found[2]) + 1 if found[2] in _MONTHS else 0, 2000 + int(found[3])
    elif found := _ISO.fullmatch(text):
        year, month, day = int(found[1]), int(found[2]), int(found[3])
    else:
        raise ValueError(f"expected a date such as 27MAR26 or 2026-03-27, found {text[:60]!r}")
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= _days_of(year, month)):
        raise ValueError(f"expected a day of the calendar from 1970 on, found {text!r}")
    return _days_before(year, month, day) * DAY_MS + EXPIRY_MS


def date_text(expiry_ms: int) -> str:
    """Return the day of an expiry as Deribit writes it, such as ``6FEB26``: what ``date_ms`` reads, from 2000 to 2099."""
    day = expiry_ms // DAY_MS
    year = 1970 + day // 366  # Never too late, and corrected year by year.
    while _days_before(year + 1, 1, 1) <= day:
        year += 1
    month = 1
    while month < 12 and _days_before(year, month + 1, 1) <= day:
        month += 1
    return f"{day - _days_before(year, month, 1) + 1}{_MONTHS[month - 1]}{year % 100:02}"


def tenor_years(text: str, ts_ms: int) -> tuple[float, int | None]:
    """Return the years from ``ts_ms`` to a tenor's end, and when that is if it is a date.

    Spans are ``7d``, ``2w``, ``1m`` (30 days), ``1y`` (365 days), decimals such as ``0.5d`` too, in small or capital letters;
    dates are those of ``date_ms``. The years of a date that is past are zero or below. Raises ``ValueError`` for any other text
    and for more than ``YEARS_MAX``.
    """
    if found := _SPAN.fullmatch(text.lower()):
        expiry_ms, years = None, float(found[1]) * _DAYS[found[2]] / 365.0
    elif _DATE.fullmatch(text.upper()) or _ISO.fullmatch(text):
        expiry_ms = date_ms(text)
        years = (expiry_ms - ts_ms) / YEAR_MS
    else:
        raise ValueError(f"expected {_EXPECTED_TENOR}, found {text[:60]!r}")
    if years > YEARS_MAX:
        raise ValueError(f"expected a tenor of at most {YEARS_MAX:g} years, found {text!r}")
    return years, expiry_ms


def _days_of(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _days_before(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a day of the Gregorian calendar."""
    full = year - 1
    leap_days = full // 4 - full // 100 + full // 400 - 477  # Of the years 1970 to the one before; 477 came earlier.
    return 365 * (year - 1970) + leap_days + sum(_days_of(year, before) for before in range(1, month)) + day - 1
