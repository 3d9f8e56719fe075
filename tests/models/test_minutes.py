"""Minute returns: what is known, what is not, and that a grid that grew is the grid made at once."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alphapack.arrays import Float64Array2D
from alphapack.models.minutes import MINUTE_MS, MINUTES_MAX, RETURN_MAX, MinuteGrid

FIRST = 29_000_000


def candles(minutes: list[int], closes: list[float]) -> Float64Array2D:
    rows = np.ones((len(minutes), 6))
    rows[:, 0] = (FIRST + np.array(minutes)) * MINUTE_MS
    rows[:, 1:5] = np.array(closes)[:, None]
    return rows


def test_vol_models_take_returns_between_neighbouring_minutes() -> None:
    grid = MinuteGrid(candles([0, 1, 2], [100.0, 101.0, 101.0]))
    assert grid.first == FIRST
    assert grid.end == FIRST + 3
    np.testing.assert_allclose(grid.returns, [0.0, np.log(1.01), 0.0], rtol=1e-15)
    assert grid.known.tolist() == [0, 1, 1]


def test_vol_models_know_nothing_of_a_missing_minute_or_of_the_return_that_spans_it() -> None:
    grid = MinuteGrid(candles([0, 1, 4, 5], [100.0, 101.0, 150.0, 151.0]))
    assert grid.known.tolist() == [0, 1, 0, 0, 0, 1]
    assert grid.returns[2:5].tolist() == [0.0, 0.0, 0.0]


def test_vol_models_leave_out_an_absurd_candle_and_the_way_back() -> None:
    grid = MinuteGrid(candles([0, 1, 2, 3], [100.0, 1_000.0, 100.0, 101.0]))
    assert grid.known.tolist() == [0, 0, 0, 1]
    edge = MinuteGrid(candles([0, 1], [100.0, 100.0 * np.exp(RETURN_MAX * 0.999)]))
    assert edge.known.tolist() == [0, 1]


def test_vol_models_look_back_no_further_than_they_may() -> None:
    grid = MinuteGrid(candles([-MINUTES_MAX - 5, 0, 1, 2], [1.0, 100.0, 101.0, 102.0]))
    assert (grid.first, grid.n) == (FIRST, 3)


def test_vol_models_of_no_candles_have_no_minutes() -> None:
    grid = MinuteGrid(np.empty((0, 6)))
    assert (grid.n, grid.known_n) == (0, 0)


@given(
    steps=st.lists(st.sampled_from([1, 1, 1, 2, 7]), min_size=2, max_size=60),
    cuts=st.lists(st.integers(1, 60), max_size=5),
    seed=st.integers(0, 99),
)
def test_vol_models_do_not_depend_on_how_candles_arrive(steps: list[int], cuts: list[int], seed: int) -> None:
    minutes = np.cumsum(steps).tolist()
    rows = candles(minutes, np.exp(np.random.default_rng(seed).normal(0, 0.01, len(minutes)).cumsum()).tolist())
    whole = MinuteGrid(rows)
    edges = [0, *sorted({cut for cut in cuts if cut < len(rows)}), len(rows)]
    grown = MinuteGrid(rows[: edges[1]])
    for begin, end in pairwise(edges[1:]):
        grown.extend(rows[begin:end])
    assert (grown.first, grown.end) == (whole.first, whole.end)
    assert grown.returns.tobytes() == whole.returns.tobytes()
    assert grown.known.tobytes() == whole.known.tobytes()


def test_vol_models_see_a_part_of_a_grid_as_it_is() -> None:
    grid = MinuteGrid(candles([0, 1, 2, 4, 5], [1.0, 2.0**0.1, 1.0, 1.0, 1.01]))
    part = grid.part(FIRST + 2, FIRST + 99)
    assert (part.first, part.end) == (FIRST + 2, FIRST + 6)
    assert part.returns.tolist() == grid.returns[2:].tolist()
    assert part.known.tolist() == grid.known[2:].tolist()
    assert grid.part(FIRST + 50, FIRST + 60).n == 0
