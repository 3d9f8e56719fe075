"""The kernels of matching one by one: what is displayed, what waits for what, how cancels are shared, who comes first."""

import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.kernels import book
from alphapack.kernels import marks as m
from alphapack.kernels import matching as k
from interpreted import bits, modules

compiled = pytest.mark.skipif(not hasattr(k.follow, "py_func"), reason="kernels are interpreted here")
FAR_ROOM = 64
SIZES = st.integers(0, 1 << 40)


def blank_levels() -> np.ndarray:
    levels = np.zeros(book.FAR_FROM + 4 * FAR_ROOM, np.int64)
    for side, at in ((book.BID, book.FAR_FROM), (book.ASK, book.FAR_FROM + 2 * FAR_ROOM)):
        levels[side + book.FAR_AT], levels[side + book.ROOM] = at, FAR_ROOM
        book.clear(levels, side)
    return levels


def blank_state(room: int = 8) -> np.ndarray:
    return np.zeros(k.FIRST + k.ORDER * room, np.int64)


def blank_work(room: int = 8) -> np.ndarray:
    return np.zeros(k.MATCH * (2 * room + k.TAKEN_MAX) + 2 * k.REACH_MAX, np.int64)


def waiting(state: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the entries of the first order's ring."""
    at = k.FIRST
    places = [k.entry_of(at, position) for position in range(state[at + k.TAIL], state[at + k.HEAD])]
    return [tuple(state[place : place + k.ENTRY].tolist()) for place in places]


@given(st.dictionaries(st.integers(1, 3 * book.WINDOW), st.integers(1, 99), max_size=20), st.data())
@settings(max_examples=60)
def test_execution_planner_displayed_is_what_was_put(held: dict[int, int], data: st.DataObject) -> None:
    levels = blank_levels()
    for side, sign in ((book.BID, 1), (book.ASK, -1)):
        for ticks, lots in held.items():
            book.put(levels, side, sign * ticks, lots)
        book.walk(levels, side)
    for ticks in [*held, *data.draw(st.lists(st.integers(1, 4 * book.WINDOW), max_size=10))]:
        assert k.displayed(ticks, levels) == k.displayed(-ticks, levels) == held.get(ticks, 0)


def test_execution_planner_nothing_is_displayed_in_an_empty_book() -> None:
    levels = blank_levels()
    assert k.displayed(5, levels) == k.displayed(-5, levels) == k.reach(5, levels, blank_work()) == 0


def test_execution_planner_what_waits_is_used_up_oldest_first() -> None:
    state, at = blank_state(), k.FIRST
    for instant, lots in ((1, 4), (1, 1), (2, 3)):
        k.keep(at, instant, lots, state)
    assert waiting(state) == [(1, 5, 0), (2, 3, 0)]
    assert k.pair(at, 9, state) == (0, 0), "prints explain no prints"
    assert k.pair(at, -6, state) == (6, 0)
    assert waiting(state) == [(2, 2, 0)]
    assert k.pair(at, -6, state) == (2, 0)
    assert waiting(state) == []


def test_execution_planner_cuts_are_credited_as_fast_as_falls_are_used_up() -> None:
    state, at = blank_state(), k.FIRST
    for instant, lots, cut in ((1, 10, 0), (2, 10, 8)):
        state[k.keep(at, instant, -lots, state) + 2] += cut
    assert k.pair(at, 6, state) == (6, 6)
    assert waiting(state) == [(1, -4, 0), (2, -10, 2)]
    assert k.pair(at, 6, state) == (6, 2)
    assert waiting(state) == [(2, -8, 0)]


def test_execution_planner_what_waited_a_quarter_of_a_second_is_forgotten() -> None:
    state, at = blank_state(), k.FIRST
    for instant in range(100, 100 + k.WAIT):
        k.keep(at, instant, 1, state)
    k.expire(at, 100 + k.WAIT - 1, state)
    assert len(waiting(state)) == k.WAIT <= k.ENTRIES_MAX
    k.expire(at, 100 + k.WAIT, state)
    assert waiting(state)[0] == (101, 1, 0)
    k.expire(at, 100 + 9 * k.WAIT, state)
    assert waiting(state) == []
    assert not state[at + k.ENTRIES :][: k.ORDER - k.ENTRIES].reshape(-1, k.ENTRY)[:, 1:].any(), "nothing of it is left to be scaled"


@pytest.mark.parametrize(
    ("queue", "power", "ahead", "behind", "part"),
    [
        (k.POWER, 3.0, 20.0, 10.0, 8 / 9),
        (k.POWER, 1.0, 20.0, 10.0, 2 / 3),
        (k.POWER, 2.0, 5.0, 15.0, 0.1),
        (k.POWER, 16.0, 1.0, float(1 << 62), 0.0),
        (k.POWER, 3.0, 5.0, 0.0, 1.0),
        (k.LOG, 3.0, math.e - 1.0, math.e**3 - 1.0, 0.25),
        (k.LOG, 3.0, 1e-30, 1e-30, 0.0),
        (k.LOG, 3.0, 5.0, 0.0, 1.0),
    ],
)
def test_execution_planner_part_ahead(queue: int, power: float, ahead: float, behind: float, part: float) -> None:
    assert k.part_ahead(queue, power, ahead, behind) == pytest.approx(part, rel=1e-12, abs=1e-200)


@pytest.mark.parametrize(
    ("queue", "cut"),
    [(k.RISK_AVERSE, 0), (k.OPTIMISTIC, 6), (k.POWER, math.floor(6 * 8 / 9)), (k.LOG, math.floor(6 * math.log(21) / math.log(21 * 11)))],
)
def test_execution_planner_cancels_are_shared_by_what_stands_before_and_behind(queue: int, cut: int) -> None:
    # 20 ahead, 10 behind: 30 were shown, 24 are left.
    assert k.cut_of(queue, 3.0, 1.0, 20, 24, 6) == cut


@given(st.sampled_from(range(4)), st.floats(0.01, 16.0), st.floats(1e-9, 1e3), SIZES, SIZES, SIZES)
def test_execution_planner_a_cut_leaves_a_queue_that_can_be(
    queue: int, power: float, unit: float, ahead: int, extra: int, cancelled: int
) -> None:
    """No more than was cancelled or stood before; no less than what the rest behind cannot have been."""
    before = ahead + extra
    cancelled = min(cancelled, before)
    cut = k.cut_of(queue, power, unit, ahead, before - cancelled, cancelled)
    assert 0 <= cut <= min(ahead, cancelled)
    assert ahead - cut <= before - cancelled
    assert k.cut_of(k.RISK_AVERSE, power, unit, ahead, before - cancelled, cancelled) <= cut
    assert cut <= k.cut_of(k.OPTIMISTIC, power, unit, ahead, before - cancelled, cancelled)


@given(st.lists(st.sampled_from([-12, -11, -10, 9, 10, 11]), max_size=8))
def test_execution_planner_orders_stand_by_price_then_age(keys: list[int]) -> None:
    state = blank_state()
    for order, key in enumerate(keys):
        at = k.insert(key, state)
        state[at + k.ID], state[at + k.KEY], state[at + k.LEFT] = order, key, 1 + order % 2
    rows = state[k.FIRST :].reshape(-1, k.ORDER)
    expected = sorted(range(len(keys)), key=lambda order: (-keys[order], order))
    assert rows[: state[k.ORDERS], k.ID].tolist() == expected
    rows[rows[:, k.LEFT] == 2, k.LEFT] = 0
    k.compact(state)
    assert rows[: state[k.ORDERS], k.ID].tolist() == [order for order in expected if order % 2 == 0]


def test_execution_planner_what_was_taken_is_forgotten_as_it_is_displayed_no_more() -> None:
    levels, state = blank_levels(), blank_state()
    state[k.TAKEN_N] = 3
    state[k.TAKEN : k.TAKEN + 6] = [-100, 6, -101, 6, -102, 6]
    for key, lots in ((-100, 13), (-102, 4)):
        book.put(levels, book.ASK, key, lots)
    k.renew(levels, state)
    assert state[k.TAKEN : k.TAKEN + k.TAKEN_WIDTH * state[k.TAKEN_N]].tolist() == [-100, 6, -102, 4]


def test_execution_planner_levels_that_cannot_be_remembered_are_not_taken() -> None:
    levels, state, work = blank_levels(), blank_state(), blank_work()
    for ticks in range(1, k.TAKEN_MAX + 10):
        book.put(levels, book.ASK, -ticks, 1)
    book.walk(levels, book.ASK)
    state[k.TAKEN_N] = k.TAKEN_MAX - 2
    state[k.TAKEN : k.FIRST : k.TAKEN_WIDTH] = -(1 << 40)
    at = k.insert(1_000, state)
    state[at + k.KEY], state[at + k.LEFT] = 1_000, 50
    assert k.sweep(at, 0, np.zeros(m.MARKS, np.int64), levels, state, work) == 2
    assert (state[at + k.LEFT], state[k.TAKEN_N]) == (48, k.TAKEN_MAX)


@compiled
def test_execution_planner_matching_gives_the_same_bits_compiled_and_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interpreted.NAMES", ("book", "matching"))
    plain = modules()["matching"]
    chance = np.random.default_rng(7)
    levels, marks, reals = blank_levels(), np.zeros(m.MARKS, np.int64), np.zeros(m.REALS)
    reals[m.SIZE_UNITS], reals[m.SIZE_SCALE] = 1.0, 1_000.0
    runs: list[tuple[ModuleType, np.ndarray, np.ndarray]] = []
    for space in (k, plain):
        runs += [(space, blank_state(32), blank_work(32)) for _ in (k.POWER, k.LOG)]
    for _, state, _ in runs[::2]:
        state[k.QUEUE] = k.POWER
    for _, state, _ in runs[1::2]:
        state[k.QUEUE] = k.LOG
    matches = 0
    for step in range(300):
        side, sign = ((book.BID, 1), (book.ASK, -1))[chance.integers(2)]
        key = sign * int(100 + sign * -chance.integers(0, 4))
        if chance.random() < 0.5:
            book.put(levels, side, key, int(chance.integers(0, 60)))
            book.walk(levels, side)
        else:
            marks[m.TRADES_TAKEN] += 1
            marks[m.LAST_KEY], marks[m.LAST_LOTS] = key, chance.integers(1, 30)
        for space, state, work in runs:
            if step % 4 == 0 and state[k.ORDERS] < 32 and not space.meets_own(key, state):
                at = space.insert(key, state)
                state[at + k.ID], state[at + k.KEY], state[at + k.LEFT], state[at + k.RESTS] = step, key, 20, 1
                state[at + k.AHEAD] = state[at + k.SHOWN] = space.displayed(key, levels)
            matches += space.follow(step * 20_000_000, 3.0, marks, reals, levels, state, work)
        for first, second in zip(runs[:2], runs[2:], strict=True):
            assert bits(first[1]) == bits(second[1]) and bits(first[2]) == bits(second[2])
    assert matches > 100
