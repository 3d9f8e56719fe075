from hypothesis import given
from hypothesis import strategies as st

from alphapack.engine.timers import Timers

SET = st.tuples(st.integers(0, 50), st.sampled_from([0, 0, 7, 10]))
"""Due time and period."""


def fired(timers: Timers, through_ns: int) -> list[tuple[int, str, str]]:
    found = []
    while timers.next_due_ns <= through_ns:
        found.append(timers.pop())
    return found


def made(sets: list[tuple[int, int]]) -> Timers:
    timers = Timers()
    for i, (due_ns, period_ns) in enumerate(sets):
        timers.add(due_ns, "t", str(i), period_ns)
    return timers


@given(st.lists(st.integers(0, 5), max_size=30))
def test_they_fire_by_due_time_then_in_the_order_they_were_set(dues: list[int]) -> None:
    timers = made([(due, 0) for due in dues])
    assert fired(timers, 5) == [(due, "t", str(i)) for due, i in sorted((due, i) for i, due in enumerate(dues))]
    assert timers.next_due_ns > 1 << 62, "there is none left"


@given(st.lists(SET, max_size=8), st.integers(0, 120))
def test_a_periodic_one_fires_at_every_later_multiple_and_the_others_once(sets: list[tuple[int, int]], through_ns: int) -> None:
    found = fired(made(sets), through_ns)
    assert [due for due, _, _ in found] == sorted(due for due, _, _ in found)
    for i, (due, period) in enumerate(sets):
        grid = [due, *range((due // period + 1) * period, through_ns + 1, period)] if period else [due]
        assert [at for at, _, argument in found if argument == str(i)] == [at for at in grid if at <= through_ns]


def test_of_two_periodic_ones_due_together_the_one_set_first_fires_first() -> None:
    timers = made([(10, 10), (5, 5)])
    assert [(due, argument) for due, _, argument in fired(timers, 20)] == [(5, "1"), (10, "0"), (10, "1"), (15, "1"), (20, "0"), (20, "1")]


@given(st.lists(SET, max_size=8), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_saved_timers_go_on_as_if_nothing_had_happened(sets: list[tuple[int, int]], cut_ns: int, added_ns: int, through_ns: int) -> None:
    whole, first = made(sets), made(sets)
    assert fired(whole, cut_ns) == fired(first, cut_ns)
    resumed = Timers()
    resumed.add(1, "of another life")
    resumed.load(*first.save())
    for timers in (whole, resumed):
        timers.add(added_ns, "later")
    assert fired(whole, through_ns) == fired(resumed, through_ns)
    assert whole.save() == resumed.save()


@given(st.lists(SET, min_size=1, max_size=8), st.integers(0, 10_000))
def test_what_fell_due_in_a_pause_fires_once_at_the_session_start(sets: list[tuple[int, int]], start_ns: int) -> None:
    timers = made(sets)
    timers.rebase(start_ns)
    found = fired(timers, start_ns)
    late = [(due, i) for i, (due, _) in enumerate(sets) if due <= start_ns]
    assert sorted(argument for _, _, argument in found) == sorted(str(i) for _, i in late)
    assert {due for due, _, _ in found} <= {start_ns}
    for i, (due, period) in enumerate(sets):
        if period and due <= start_ns:
            assert [at for at, _, argument in fired(made([(due, period)]), start_ns)], "it was due"
            again = next(at for at, _, _, _, p in timers.save()[1] if p == period and at > start_ns)
            assert again == (start_ns // period + 1) * period, f"back on its grid after {i}"


def test_a_rebase_keeps_the_order_in_which_they_were_set_and_leaves_what_is_not_late() -> None:
    timers = made([(9, 0), (3, 0), (40, 0), (30, 0), (6, 5)])
    timers.rebase(30)
    assert [argument for _, _, argument in fired(timers, 30)] == ["0", "1", "3", "4"]
    assert fired(timers, 40) == [(35, "t", "4"), (40, "t", "2"), (40, "t", "4")]
