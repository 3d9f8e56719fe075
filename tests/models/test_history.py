"""A ring of rows against a list of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models.history import History

NAMES = ("mid", "obi")


def noted(rows: int, count: int) -> History:
    history = History(NAMES, rows)
    for i in range(count):
        history.note(1_000 * i, [float(i), -i / 2])
    return history


def wanted(rows: int, count: int) -> list[list[float]]:
    return [[1_000.0 * i, float(i), -i / 2] for i in range(count)][-rows:]


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 6, 7, 8, 14, 23])
def test_the_newest_rows_are_kept_oldest_first(rows: int, count: int) -> None:
    history = noted(rows, count)
    assert history.past().tolist() == wanted(rows, count)
    assert history.written == count


@given(st.lists(st.one_of(st.just(-1), st.integers(1, 9)), max_size=40))
def test_the_room_may_change_at_any_time(steps: list[int]) -> None:
    """-1 notes a row, anything else is the new room."""
    history, rows, kept, count = History(NAMES, 5), 5, list[list[float]](), 0
    for step in steps:
        if step < 0:
            history.note(count, [float(count), math.nan])
            kept.append([float(count), float(count)])
            count += 1
        else:
            rows = step
            history.keep(rows)
        kept = kept[-rows:]
        assert history.past()[:, :2].tolist() == kept
        assert np.isnan(history.past()[:, 2]).all()


def test_columns_begin_at_a_time_and_end_at_a_limit() -> None:
    history = noted(7, 10)
    history.note(10_000, [math.nan, 1.0])
    columns = history.columns(4_001, 3)
    assert columns == {"ts_ms": [5_000, 6_000, 7_000], "mid": [5.0, 6.0, 7.0], "obi": [-2.5, -3.0, -3.5]}
    assert history.columns(5_000, 1)["ts_ms"] == [5_000]
    assert history.columns(0, 100)["ts_ms"] == [4_000, 5_000, 6_000, 7_000, 8_000, 9_000, 10_000]
    assert history.columns(9_500, 100) == {"ts_ms": [10_000], "mid": [None], "obi": [1.0]}, "what was not known is null"
    assert history.columns(10_001, 100) == {"ts_ms": [], "mid": [], "obi": []} == History(NAMES, 3).columns(0, 9)
    assert history.columns(0, 0)["ts_ms"] == []


@pytest.mark.parametrize("count", [0, 3, 7, 12])
@pytest.mark.parametrize("rows", [1, 3, 7, 20])
def test_what_was_saved_goes_on_in_another_room(count: int, rows: int) -> None:
    history, other = noted(7, count), noted(rows, 2)
    other.load(history.written, history.past().data)
    assert other.written == count
    assert other.past().tolist() == wanted(min(rows, 7), count)
    if rows == 7:
        assert other.past().tobytes() == history.past().tobytes()
    for one in (history, other):
        one.note(99_000, [1.0, 2.0])
    assert other.past()[-1].tolist() == history.past()[-1].tolist() == [99_000.0, 1.0, 2.0]


def test_what_was_noted_does_not_change_with_the_array_it_came_in() -> None:
    history, values = History(NAMES, 3), np.array([1.0, 2.0])
    history.note(5, values)
    values[:] = 9.0
    assert history.past().tolist() == [[5.0, 1.0, 2.0]]
    history.past()[:] = 7.0
    assert history.past().tolist() == [[5.0, 1.0, 2.0]]
