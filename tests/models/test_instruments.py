"""Names of options and tenors, and the days on which they expire."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models.instruments import DAY_MS, YEARS_MAX, Instrument, date_ms, instrument, tenor_years

NOW_MS = 1_770_370_516_484  # 6 February 2026, 09:35 UTC.
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("BTC-27MAR26-70000-C", Instrument("BTC", None, 1_774_598_400_000, 70_000.0, True)),
        ("ETH-9FEB26-2800-P", Instrument("ETH", None, 1_770_624_000_000, 2_800.0, False)),
        ("XRP_USDC-26JUN26-1d35-C", Instrument("XRP", "USDC", 1_782_460_800_000, 1.35, True)),
        ("BTC_USDC-25DEC26-100000-P", Instrument("BTC", "USDC", 1_798_185_600_000, 100_000.0, False)),
        ("DOGE_USDC-9FEB26-0d095-C", Instrument("DOGE", "USDC", 1_770_624_000_000, 0.095, True)),
    ],
)
def test_options_smile_a_name_of_an_option_is_read(name: str, found: Instrument) -> None:
    assert instrument(name) == found


@pytest.mark.parametrize(
    "name",
    [
        *("", "BTC", "BTC-PERPETUAL", "BTC-27MAR26", "BTC-27MAR26-70000", "BTC-27MAR26-70000-X", "btc-27MAR26-70000-C"),
        *("BTC-27MAR2026-70000-C", "BTC-31FEB26-70000-C", "BTC-27MRZ26-70000-C", "BTC-0MAR26-70000-C", "BTC-27MAR26-0-C"),
        *("BTC-27MAR26--5-C", "BTC-27MAR26-1.35-C", "BTC-27MAR26-1d-C", "BTC-27MAR26-70000-C ", "BTC-27MAR26-\u0667-C", "X" * 200),
    ],
)
def test_options_smile_what_is_no_name_of_an_option_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected .* found"):
        instrument(name)


@given(st.dates(date(2000, 1, 1), date(2099, 12, 31)))
def test_options_smile_a_date_expires_at_eight(day: date) -> None:
    expiry_ms = int(datetime(day.year, day.month, day.day, 8, tzinfo=UTC).timestamp()) * 1_000
    assert date_ms(f"{day.day}{MONTHS[day.month - 1]}{day.year % 100:02d}") == expiry_ms
    assert date_ms(f"{day.day:02d}{MONTHS[day.month - 1].lower()}{day.year % 100:02d}") == expiry_ms
    assert date_ms(day.isoformat()) == expiry_ms


def test_options_smile_every_day_from_1970_is_one_after_the_day_before() -> None:
    day, expected_ms = date(1970, 1, 1), date_ms("1970-01-01")
    assert expected_ms == 8 * 3_600_000
    while day.year < 2101:
        assert date_ms(day.isoformat()) == expected_ms
        day, expected_ms = day + timedelta(1), expected_ms + DAY_MS


@pytest.mark.parametrize("text", ["29FEB26", "2026-02-29", "32JAN26", "2026-13-01", "2026-00-10", "1969-12-31", "27MAR", "27MAR2026", "x"])
def test_options_smile_a_day_that_no_calendar_has_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected a da"):
        date_ms(text)


@pytest.mark.parametrize(
    ("text", "days"), [("7d", 7), ("7D", 7), ("2w", 14), ("1m", 30), ("1M", 30), ("1y", 365), ("0.5d", 0.5), ("1.5W", 10.5), ("30d", 30)]
)
def test_options_smile_a_span_is_days_of_a_year_of_365(text: str, days: float) -> None:
    assert tenor_years(text, NOW_MS) == (pytest.approx(days / 365, rel=1e-15), None)


def test_options_smile_a_date_is_a_tenor_from_the_time_of_the_chain() -> None:
    expected = pytest.approx((1_774_598_400_000 - NOW_MS) / (365 * 86_400_000), rel=1e-15)
    for text in ("27MAR26", "27mar26", "2026-03-27"):
        assert tenor_years(text, NOW_MS) == (expected, 1_774_598_400_000)
    assert tenor_years("5FEB26", NOW_MS)[0] < 0.0


@pytest.mark.parametrize(
    "text", ["", "d", "7", "7x", "-7d", "7 d", "1e3d", "7h", "next friday", "27MRZ26", "27-03-2026", "9999999d", "101y"]
)
def test_options_smile_what_is_no_tenor_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected .* found"):
        tenor_years(text, NOW_MS)
    assert tenor_years(f"{YEARS_MAX:g}y", NOW_MS)[0] == YEARS_MAX
