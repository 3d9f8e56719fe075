"""Candles of one symbol as a value: merged in any order, the newest kept, and nothing taken that is no candle."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.arrays import Float64Array2D
from alphapack.models.candles import COLUMNS, MINUTE_MS, CandleSeries, Source, check

T0 = 1_700_000_040_000
"""A whole minute."""


def candles(*minutes: int, price: float = 100.0) -> Float64Array2D:
    """Candles of these minutes, counted from ``T0``."""
    return np.array([(T0 + i * MINUTE_MS, price, price + 2.0, price - 2.0, price + 1.0, 3.0) for i in minutes], np.float64).reshape(-1, 6)


def minutes_of(series: CandleSeries) -> list[int]:
    return [int(ts - T0) // MINUTE_MS for ts in series.rows[:, 0]]


@given(st.lists(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9)), max_size=6), max_size=8), st.integers(1, 15))
def test_a_series_is_the_last_candle_of_each_minute_and_the_newest_minutes(batches: list[list[tuple[int, int]]], rows_max: int) -> None:
    """The slow twin is a dict; what it forgets, an old candle that comes late may not bring back over a newer one."""
    series, twin = CandleSeries(rows_max), dict[int, float]()
    for batch in batches:
        rows = np.concatenate([candles(minute, price=10.0 * price) for minute, price in batch] or [candles()])
        series.merge(rows, Source.VENUE)
        twin |= {minute: 10.0 * price for minute, price in batch}
        twin = dict(sorted(twin.items())[-rows_max:])
        assert dict(zip(minutes_of(series), series.rows[:, 1].tolist(), strict=True)) == twin
        assert minutes_of(series) == sorted(twin)


@given(
    st.lists(st.tuples(st.sampled_from(Source), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), max_size=5)), max_size=9),
    st.integers(1, 12),
)
def test_of_one_minute_the_higher_source_stays_and_the_version_tells_what_is_no_appending(
    batches: list[tuple[Source, list[tuple[int, int]]]], rows_max: int
) -> None:
    """The slow twin is a dict again; a minute that it forgot may come back with any source."""
    series, twin = CandleSeries(rows_max), dict[int, tuple[Source, float]]()
    for source, batch in batches:
        version, held, copy = series.version, series.rows, series.rows.copy()
        before = [(minute, price) for minute, (_, price) in twin.items()]
        changed = series.merge(np.concatenate([candles(minute, price=10.0 * price) for minute, price in batch] or [candles()]), source)
        for minute, price in batch:
            if minute not in twin or twin[minute][0] <= source:
                twin[minute] = source, 10.0 * price
        twin = dict(sorted(twin.items())[-rows_max:])
        assert dict(zip(minutes_of(series), zip(series.origins.tolist(), series.rows[:, 1].tolist(), strict=True), strict=True)) == twin
        after = [(minute, price) for minute, (_, price) in twin.items()]
        known = [row for row in after if before and row[0] <= before[-1][0]]
        assert changed == (after != before)
        assert (series.version > version) == (known != before[len(before) - len(known) :])
        assert np.array_equal(held, copy), "what was handed out never changes"


def test_what_the_tape_said_can_be_withdrawn() -> None:
    series = CandleSeries(10)
    for source, minutes in ((Source.FILE, (0, 5)), (Source.TAPE, (1, 2, 3, 6)), (Source.VENUE, (2, 7))):
        series.merge(candles(*minutes), source)
    assert not series.withdraw(T0 + 7 * MINUTE_MS, Source.TAPE)
    held, version = series.rows, series.version
    copy = held.copy()
    assert series.withdraw(T0 + 2 * MINUTE_MS, Source.TAPE) and series.version == version + 1
    assert minutes_of(series) == [0, 1, 2, 5, 7] and np.array_equal(held, copy)
    assert series.origins.tolist() == [Source.FILE, Source.TAPE, Source.VENUE, Source.FILE, Source.VENUE]
    series.merge(candles(8), Source.TAPE)
    assert minutes_of(series) == [0, 1, 2, 5, 7, 8] and series.version == version + 1


def test_a_source_that_says_the_same_changes_no_row() -> None:
    series = CandleSeries(10)
    series.merge(candles(0, 1), Source.TAPE)
    rows = series.rows
    assert not series.merge(candles(0, 1), Source.VENUE) and not series.merge(candles(1), Source.FILE)
    assert series.origins.tolist() == [Source.VENUE] * 2 and series.version == 0 and series.rows.tobytes() == rows.tobytes()
    assert series.merge(candles(1, 2), Source.VENUE) and series.version == 0, "the last one again, and one more"
    assert series.merge(candles(1, price=50.0), Source.VENUE) and series.version == 1


def test_the_order_in_which_pages_come_does_not_matter() -> None:
    pages = [candles(*range(i, i + 7), price=50.0) for i in range(0, 70, 7)]
    whole = CandleSeries(100)
    whole.merge(candles(*range(70), price=50.0), Source.VENUE)
    for seed in range(3):
        shuffled, series = pages[:], CandleSeries(100)
        random.Random(seed).shuffle(shuffled)
        for page in shuffled:
            series.merge(page, Source.VENUE)
        assert series.rows.tobytes() == whole.rows.tobytes()


def test_what_was_handed_out_is_not_changed_by_what_comes_later() -> None:
    series = CandleSeries(10)
    series.merge(candles(0, 1), Source.VENUE)
    held, copy = series.rows, series.rows.copy()
    series.merge(candles(1, price=7.0), Source.VENUE)
    series.merge(candles(2), Source.VENUE)
    assert np.array_equal(held, copy)


BAD = {
    "not finite": (1, np.inf),
    "no number": (4, np.nan),
    "no whole minute": (0, T0 + 1.0),
    "a price of zero": (3, 0.0),
    "low above open": (3, 100.5),
    "high below close": (2, 100.5),
    "volume below zero": (5, -1.0),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_of_candles_one_of_which_is_none_nothing_is_taken(what: str, at: int) -> None:
    column, value = BAD[what]
    series = CandleSeries(10)
    series.merge(candles(5), Source.VENUE)
    before, rows = series.rows.tobytes(), candles(6, 7, 8)
    rows[at, column] = value
    with pytest.raises(ValueError, match=r"^expected candles of whole minutes .* found ts_ms [^\n]*$"):
        series.merge(rows, Source.VENUE)
    assert series.rows.tobytes() == before


def test_the_error_names_the_values_found() -> None:
    rows = candles(0, 1)
    rows[1, 2] = 1.5
    with pytest.raises(ValueError, match=f"found ts_ms {T0 + MINUTE_MS}, open 100, high 1.5, low 98, close 101, volume 3"):
        check(rows)


@pytest.mark.parametrize("shape", [(6,), (2, 5), (2, 7), (1, 2, 6)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected rows of 6 values, found shape"):
        CandleSeries(10).merge(np.ones(shape), Source.VENUE)


def test_a_candle_without_trades_or_moves_is_one() -> None:
    series = CandleSeries(10)
    series.merge(np.array([(T0, 5.0, 5.0, 5.0, 5.0, 0.0)]), Source.VENUE)
    assert minutes_of(series) == [0]


def test_columns_begin_at_a_time_and_are_limited() -> None:
    series = CandleSeries(10)
    assert series.columns(0, 5) == {"ts_ms": [], **{name: [] for name in COLUMNS}}
    series.merge(candles(0, 1, 3), Source.VENUE)
    every = {"ts_ms": [T0, T0 + MINUTE_MS, T0 + 3 * MINUTE_MS], "open": [100.0] * 3, "high": [102.0] * 3}
    assert series.columns(0, 9).items() >= every.items() and list(series.columns(0, 9)) == ["ts_ms", *COLUMNS]
    assert series.columns(T0 + 1, 1)["ts_ms"] == [T0 + MINUTE_MS]
    assert series.columns(T0 + MINUTE_MS, 1)["ts_ms"] == [T0 + MINUTE_MS]
    assert series.columns(T0 + 2 * MINUTE_MS, 9)["ts_ms"] == [T0 + 3 * MINUTE_MS]
    assert series.columns(T0 + 4 * MINUTE_MS, 9)["ts_ms"] == []
    assert all(type(ts) is int for ts in series.columns(0, 9)["ts_ms"]), "times are whole numbers on the wire"
