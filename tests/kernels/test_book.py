"""One side's levels against a dict: any depth, any price, near the window, far below it and beyond it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.arrays import Int64Array1D
from alphapack.kernels import book
from interpreted import modules

ROOM = 64
SIDES = (book.BID, book.ASK)
W = book.WINDOW

Held = dict[int, int]
Change = tuple[int, int]


def blank(room: int = ROOM) -> Int64Array1D:
    """Return two empty sides with room for so many far levels each."""
    levels = np.zeros(book.FAR_FROM + 4 * room, np.int64)
    for side, at in ((book.BID, book.FAR_FROM), (book.ASK, book.FAR_FROM + 2 * room)):
        levels[side + book.FAR_AT], levels[side + book.ROOM] = at, room
        book.clear(levels, side)
    return levels


def collected(levels: Int64Array1D, side: int, depth: int) -> list[Change]:
    out = np.full(2 * depth + 1, -7, np.int64)
    n = book.collect(levels, side, depth, out, 0, depth)
    assert set(out[n:depth].tolist()) | set(out[depth + n :].tolist()) <= {-7}, "nothing is written beyond what there is"
    return list(zip(out[:n].tolist(), out[depth : depth + n].tolist(), strict=True))


def check(levels: Int64Array1D, side: int, held: Held) -> None:
    """Hold what is read against the dict, and the invariants against the arrays."""
    best = sorted(held.items(), reverse=True)
    for depth in {1, 5, len(held), len(held) + 3} - {0}:
        assert collected(levels, side, depth) == best[:depth]
    head = levels[side : side + book.SIDE].tolist()
    ring = levels[book.ring_of(side) : book.ring_of(side) + W]
    words = levels[book.bits_of(side) : book.bits_of(side) + book.WORDS]
    occupied = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
    assert occupied.tolist() == np.flatnonzero(ring).tolist()
    assert (head[book.NEAR], head[book.NEAR] + head[book.FAR]) == (len(occupied), len(held))
    far = levels[head[book.FAR_AT] : head[book.FAR_AT] + head[book.FAR]].tolist()
    assert far == sorted(set(far)) and all(key <= head[book.HIGH] - W for key in far)
    assert all(head[book.HIGH] - W < key <= min(head[book.HIGH], head[book.BOUND]) for key in held.keys() - set(far))


def check_top(levels: Int64Array1D, side: int, held: Held) -> None:
    best = sorted(held.items(), reverse=True)[: book.TOP]
    assert levels[side + book.TOP_N] == len(best)
    padded = best + [(book.LOWEST, 0)] * (book.TOP - len(best))
    assert levels[side + book.KEYS : side + book.KEYS + book.TOP].tolist() == [key for key, _ in padded]
    assert levels[side + book.LOTS : side + book.LOTS + book.TOP].tolist() == [lots for _, lots in padded]
    for depth in (1, 5, book.TOP):
        assert book.size(levels, side, depth) == sum(lots for _, lots in best[:depth])


# Next to each other, over a word of the bitmap, at every edge of the window and beyond it, both ways.
AWAY = [0, 1, 2, 3, 9, 62, 63, 64, 65, 66, 127, 128, 200, W // 4 - 1, W // 4, W // 4 + 1, W // 2, 3 * W // 4, W - 1, W, W + 1, 2 * W, 9 * W]
PLACES = st.one_of(st.sampled_from([*AWAY, *(-away for away in AWAY)]), st.integers(-80, 80), st.integers(-(2**40), 2**40))
BASES = st.sampled_from([617_342, -617_342, 3 * W, -3 * W, 2**52 - 1, -(2**52), 2**45 + 17])
LOTS = st.sampled_from([0, 0, 1, 2, 2**52])
MESSAGES = st.lists(st.lists(st.tuples(PLACES, LOTS), max_size=4), max_size=10)


def put(levels: Int64Array1D, side: int, held: Held, key: int, lots: int) -> None:
    assert book.put(levels, side, key, lots) == held.get(key, 0)
    held[key] = lots
    if lots == 0:
        del held[key]


@settings(max_examples=150)
@given(BASES, MESSAGES, st.sampled_from(SIDES))
def test_levels_equal_a_dict_whatever_comes(base: int, messages: list[list[Change]], side: int) -> None:
    levels, held = blank(), {}
    other = levels[side ^ book.SIDE : (side ^ book.SIDE) + book.SIDE].copy()
    for message in messages:
        before = levels[side + book.KEYS : side + book.OLD_KEYS].copy()
        for away, lots in message:
            put(levels, side, held, base + away, lots)
            check(levels, side, held)
        book.walk(levels, side)
        check(levels, side, held)
        check_top(levels, side, held)
        assert levels[side + book.OLD_KEYS : side + book.OLD_KEYS + 2 * book.TOP].tolist() == before.tolist()
    assert (levels[side ^ book.SIDE : (side ^ book.SIDE) + book.SIDE] == other).all(), "the other side is as it was"


@settings(max_examples=60)
@given(BASES, st.lists(st.tuples(PLACES, st.sampled_from([1, 2, 2**52])), max_size=30), st.lists(PLACES, max_size=4))
def test_moving_the_window_changes_nothing_that_is_read(base: int, changes: list[Change], moves: list[int]) -> None:
    levels, held = blank(), {}
    for away, lots in changes:
        put(levels, book.BID, held, base + away, lots)
    book.walk(levels, book.BID)
    best = max(held, default=base)
    for move in moves:
        high = best + abs(move) % (1 << 20)
        step = book.raise_window if high > levels[book.BID + book.HIGH] else book.lower_window
        if held:
            step(levels, book.BID, high)
        check(levels, book.BID, held)
        book.settle(levels, book.BID)
        check(levels, book.BID, held)


@pytest.mark.parametrize("up", [1, W // 4, 3 * W // 4 - 1, 3 * W // 4, 3 * W // 4 + 1, 7 * W // 4 - 1, 7 * W // 4, 7 * W // 4 + 1, 5 * W])
@pytest.mark.parametrize("base", [0, 1, 63, 64, 617_342, -617_342])
def test_a_jump_of_any_width_puts_each_level_where_it_belongs(base: int, up: int) -> None:
    """A jump by three quarters of the window brings its new end to the place of the level it came from."""
    levels, held = blank(), {}
    for key in (base, base - 1, base - 64, base - W // 2, base - 3 * W // 4 + 1, base + up, base + up - W // 4):
        put(levels, book.ASK, held, key, 7 + key % 5)
        check(levels, book.ASK, held)
    book.walk(levels, book.ASK)
    check_top(levels, book.ASK, held)


def test_a_best_that_falls_is_followed_down_and_one_that_jumps_up() -> None:
    levels, held = blank(), {}
    for key in (1_000_000, 1_000_000 - 3 * W, 1_000_000 - 3 * W - 70):
        put(levels, book.ASK, held, key, 5)
    book.walk(levels, book.ASK)
    assert levels[book.ASK + book.FAR] == 2
    put(levels, book.ASK, held, 1_000_000, 0)
    book.walk(levels, book.ASK)
    assert (levels[book.ASK + book.NEAR], levels[book.ASK + book.FAR]) == (2, 0), "what is best is near"
    check_top(levels, book.ASK, held)
    put(levels, book.ASK, held, 2**50, 1)
    book.walk(levels, book.ASK)
    assert (levels[book.ASK + book.NEAR], levels[book.ASK + book.FAR]) == (1, 2)
    check_top(levels, book.ASK, held)


@pytest.mark.parametrize("first", [5_000, -5_000, 2**52])
def test_a_side_that_was_emptied_is_filled_anew_anywhere(first: int) -> None:
    levels, held = blank(), {}
    for key in (first, first - 1, first - W, first - 2 * W):
        put(levels, book.BID, held, key, 1)
    for key in list(held):
        put(levels, book.BID, held, key, 0)
    book.walk(levels, book.BID)
    check_top(levels, book.BID, {})
    for key in (-first, first - 4 * W, first + 4 * W):
        put(levels, book.BID, held, key, 3)
        book.walk(levels, book.BID)
        check(levels, book.BID, held)
        check_top(levels, book.BID, held)
    book.clear(levels, book.BID)
    check(levels, book.BID, {})
    check_top(levels, book.BID, {})
    assert not levels[book.HEAD : book.FAR_FROM].any()


def test_what_is_not_there_can_be_removed_anywhere() -> None:
    levels, held = blank(), {}
    for key in (5, 2**52, -(2**52)):
        assert book.put(levels, book.BID, key, 0) == 0
    put(levels, book.BID, held, 100, 1)
    for key in (99, 101, 100 - 9 * W, 100 + 9 * W):
        assert book.put(levels, book.BID, key, 0) == 0
        check(levels, book.BID, held)


@settings(max_examples=60)
@given(BASES, st.dictionaries(PLACES, st.sampled_from([1, 2, 2**52]), max_size=ROOM), st.integers(1, 3))
def test_a_side_filled_at_once_is_the_side_filled_level_by_level(base: int, found: dict[int, int], times: int) -> None:
    """Also into a larger room, which is how a book grows."""
    held = {base + away: lots for away, lots in found.items()}
    levels = blank(ROOM * times)
    book.put(levels, book.BID, base + 77 * W, 9)  # What was there before is gone.
    pairs = np.array([*sorted(held), *(held[key] for key in sorted(held))], np.int64)
    book.fill(levels, book.BID, pairs, len(held))
    check(levels, book.BID, held)
    check_top(levels, book.BID, held)
    single, put_one = blank(), {}
    for key, lots in held.items():
        put(single, book.BID, put_one, key, lots)
    assert collected(single, book.BID, ROOM) == collected(levels, book.BID, ROOM)


def test_thousands_of_levels_over_many_windows_are_walked_in_order() -> None:
    levels, held = blank(8_192), {}
    for i in range(6_000):
        put(levels, book.BID, held, 10**9 - (i * 7_919) % 6_000 * 173, i + 1)
    book.walk(levels, book.BID)
    check(levels, book.BID, held)
    check_top(levels, book.BID, held)


@settings(max_examples=60)
@given(st.lists(st.integers(-(2**52), 2**52), unique=True, max_size=20).map(sorted), st.integers(-(2**52), 2**52))
def test_find_gives_the_first_index_at_or_above(keys: list[int], key: int) -> None:
    padded = np.array([-5, *keys, -99, -98, -97], np.int64)  # What lies beside the levels is never looked at.
    for one in (key, *keys[:2]):
        assert book.find(padded, 1, len(keys), one) == sum(other < one for other in keys)


@settings(max_examples=25)
@given(BASES, MESSAGES)
def test_compiled_and_interpreted_levels_are_equal(base: int, messages: list[list[Change]]) -> None:
    plain: Any = modules()["book"]
    one, two = blank(), blank()
    for message in messages:
        for away, lots in message:
            assert book.put(one, book.BID, base + away, lots) == plain.put(two, book.BID, base + away, lots)
        book.walk(one, book.BID)
        plain.walk(two, book.BID)
        assert (one == two).all()
