"""How long an answer may take, told by a clock of the test's own."""

import pytest

from alphapack.shell.watch import SLOW_NS, STALLED_NS, STRIKES, Watch


class Clock:
    """Stands still but for what is asked."""

    def __init__(self) -> None:
        self.now_ns = 5

    def __call__(self) -> int:
        return self.now_ns

    def takes(self, took_ns: int) -> int:
        self.now_ns += took_ns
        return took_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(clock)


def asked(watch: Watch, clock: Clock, took_ns: int, name: str = "mine", what: str = "alpha") -> None:
    assert watch(name, what, lambda: clock.takes(took_ns)) == took_ns, "the answer is the answer, however late"


def test_router_alpha_aware_answers_in_time_are_not_told_of(watch: Watch, clock: Clock) -> None:
    for took_ns in (0, 1, SLOW_NS) * 10:
        asked(watch, clock, took_ns)
    assert watch.slow == {}


def test_router_alpha_aware_slow_answers_are_told_of_when_too_many_follow_each_other(watch: Watch, clock: Clock) -> None:
    for _ in range(STRIKES):
        for _ in range(STRIKES - 1):
            asked(watch, clock, SLOW_NS + 1)
        asked(watch, clock, 1)
    asked(watch, clock, 1, what="policy")
    assert watch.slow == {}
    for _ in range(STRIKES):
        asked(watch, clock, SLOW_NS + 1, what="policy")
    assert watch.slow == {("policy", "mine"): "expected an answer within 20 ms, found it to take 3 times more than that"}


def test_router_alpha_aware_the_first_answer_is_free_for_it_may_compile(watch: Watch, clock: Clock) -> None:
    asked(watch, clock, 100 * STALLED_NS)
    assert watch.slow == {}


def test_router_alpha_aware_one_stalled_answer_is_enough(watch: Watch, clock: Clock) -> None:
    asked(watch, clock, 1)
    asked(watch, clock, STALLED_NS + 1)
    assert watch.slow == {("alpha", "mine"): "expected an answer within 20 ms, found it to take more than 250 ms"}


def test_router_alpha_aware_an_answer_of_the_longest_time_is_but_slow(watch: Watch, clock: Clock) -> None:
    asked(watch, clock, STALLED_NS)
    assert watch.slow == {}


def test_router_alpha_aware_what_is_slow_is_counted_by_name(watch: Watch, clock: Clock) -> None:
    for name in ("one", "other"):
        asked(watch, clock, 1, name)
    for _ in range(STRIKES - 1):
        for name in ("one", "other"):
            asked(watch, clock, SLOW_NS + 1, name)
    asked(watch, clock, SLOW_NS + 1, "other")
    assert [name for _, name in watch.slow] == ["other"]


def test_router_alpha_aware_a_failure_is_raised_and_its_time_counts(watch: Watch, clock: Clock) -> None:
    def fails() -> float:
        clock.takes(STALLED_NS + 1)
        return 1 / 0

    asked(watch, clock, 1)
    with pytest.raises(ZeroDivisionError):
        watch("mine", "alpha", fails)
    assert [name for _, name in watch.slow] == ["mine"]


def test_router_alpha_aware_a_quick_failure_is_raised_and_nothing_else(watch: Watch) -> None:
    with pytest.raises(ZeroDivisionError):
        watch("mine", "alpha", lambda: 1 / 0)
    assert watch.slow == {}


def test_router_alpha_aware_what_was_told_of_is_told_again_where_it_is_still_asked(watch: Watch, clock: Clock) -> None:
    asked(watch, clock, 1)
    asked(watch, clock, STALLED_NS + 1)
    watch.slow.clear()
    asked(watch, clock, 1)
    assert watch.slow == {}
    asked(watch, clock, STALLED_NS + 1)
    assert [name for _, name in watch.slow] == ["mine"]


def test_router_alpha_aware_a_watch_has_a_clock_of_its_own() -> None:
    watch = Watch()
    assert watch("mine", "alpha", lambda: "answer") == "answer"
