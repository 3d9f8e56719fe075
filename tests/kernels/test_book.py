"""One side's sorted levels against a dict."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.kernels import book

compiled = pytest.mark.skipif(not hasattr(book.put, "py_func"), reason="kernels are interpreted here")

KEYS = st.one_of(st.integers(-6, 6), st.integers(-(2**52), 2**52), st.sampled_from([-(2**52), 2**52, 2**52 - 1]))
CHANGES = st.lists(st.tuples(KEYS, st.sampled_from([0, 0, 1, 2, 2**52])), max_size=40)


def change(side: np.ndarray, n: int, key: int, quantity: int) -> int:
    """Make ``quantity`` what stands at ``key``, as a difference does."""
    at = book.find(side[0], n, key)
    known = at < n and side[0, at] == key
    if quantity == 0:
        return book.drop(side, n, at) if known else n
    if known:
        side[1, at] = quantity
        return n
    return book.put(side, n, at, key, quantity)


@settings(max_examples=150)
@given(CHANGES)
def test_levels_stay_sorted_and_equal_a_dict(changes: list[tuple[int, int]]) -> None:
    side, n, held = np.zeros((2, 64), np.int64), 0, {}
    for key, quantity in changes:
        n = change(side, n, key, quantity)
        held[key] = quantity
        if quantity == 0:
            del held[key]
        assert list(zip(side[0, :n].tolist(), side[1, :n].tolist(), strict=True)) == sorted(held.items())
        for depth in (1, 5, 64):
            assert book.size(side, n, depth) == sum(lots for _, lots in sorted(held.items(), reverse=True)[:depth])


@settings(max_examples=100)
@given(st.lists(KEYS, unique=True, max_size=20).map(sorted), KEYS)
def test_find_gives_the_first_index_at_or_above(keys: list[int], key: int) -> None:
    padded = np.array([*keys, -99, -98, -97], np.int64)  # What lies behind the last level is never looked at.
    assert book.find(padded, len(keys), key) == sum(one < key for one in keys)


@pytest.mark.parametrize("at", [0, 2, 4])
def test_put_and_drop_undo_each_other_and_touch_nothing_behind(at: int) -> None:
    side = np.array([[1, 3, 5, 7, 0, -1], [10, 30, 50, 70, 0, -1]], np.int64)
    before = side.copy()
    assert book.put(side, 4, at, 2 * at, 9) == 5
    assert side[:, at].tolist() == [2 * at, 9]
    assert side[:, 5].tolist() == [-1, -1]
    assert book.drop(side, 5, at) == 4
    assert (side[:, :4] == before[:, :4]).all()


@compiled
@settings(max_examples=50)
@given(CHANGES)
def test_compiled_and_interpreted_levels_are_equal(changes: list[tuple[int, int]]) -> None:
    one, two, n = np.zeros((2, 64), np.int64), np.zeros((2, 64), np.int64), 0
    for key, quantity in changes:
        at = book.find(one[0], n, key)
        assert book.find.py_func(two[0], n, key) == at
        known = at < n and one[0, at] == key
        if quantity == 0 and known:
            assert book.drop(one, n, at) == book.drop.py_func(two, n, at)
            n -= 1
        elif quantity and not known:
            assert book.put(one, n, at, key, quantity) == book.put.py_func(two, n, at, key, quantity)
            n += 1
        assert one.tobytes() == two.tobytes()
        assert book.size(one, n, 5) == book.size.py_func(two, n, 5)
