"""Paper orders by hand, against a slow twin on random markets, and against a recorded market."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack import app
from alphapack.config import Settings
from alphapack.domain.market import BookState, Step
from alphapack.domain.trading import Queue
from alphapack.kernels import book as b
from alphapack.kernels import matching as k
from alphapack.kernels import wire
from alphapack.models.book import DEPTH, TAKEN, FeatureBook
from alphapack.models.matching import ORDERS_MAX, Match, PaperBook, Refused, Resting

MS = 1_000_000
Fill = tuple[int, int, int, str]
"""Order, ticks, lots, cause."""
QUEUES: tuple[Queue, ...] = ("risk_averse", "power", "log", "optimistic")
UNITS = Step(1, 0)


class Desk:
    """A real book in whole ticks and lots, and paper books that follow it, a millisecond a message."""

    update = 0

    def __init__(self, *queues: Queue, bids: dict[int, int] | None = None, asks: dict[int, int] | None = None) -> None:
        self.book = FeatureBook(UNITS, UNITS, None)
        self.book.snapshot(quoted(bids or {100: 10, 99: 20}), quoted(asks or {102: 10, 103: 20}))
        self.book.start(0)
        self.papers = [PaperBook(queue) for queue in queues or ("risk_averse",)]
        self.ns = 0

    @property
    def paper(self) -> PaperBook:
        return self.papers[0]

    def place(self, order: int, key: int, lots: int, **how: bool) -> list[Match]:
        """Place with every paper book; returns the matches of the first."""
        found = [paper.place(self.book, self.ns, order, key, lots, **how) for paper in self.papers]
        return found[0]

    def show(self, key: int, lots: int, after_ms: int = 1) -> list[Match]:
        """Let a level show so many lots."""
        return self.depth({key: lots}, after_ms)

    def depth(self, levels: dict[int, int], after_ms: int = 1) -> list[Match]:
        """Let a depth message come, as the general decoder takes it."""
        self.ns += after_ms * MS
        self.update += 1
        self.book.count(DEPTH)
        self.book.diff(self.ns, *(quoted({abs(key): lots for key, lots in levels.items() if key * side > 0}) for side in (1, -1)))
        self.book.last_update = self.update
        return self.follow()

    def trade(self, key: int, lots: int, after_ms: int = 1) -> list[Match]:
        """Print a trade that hits a level."""
        self.print(key, lots, after_ms)
        return self.follow()

    def print(self, key: int, lots: int, after_ms: int = 1) -> None:
        """Print a trade that nobody follows yet."""
        self.ns += after_ms * MS
        self.book.trade(self.ns, b"%d" % abs(key), b"%d" % lots, buyer_is_taker=key < 0)

    def miss(self, key: int, lots: int, after_ms: int = 1) -> None:
        """Print a trade while the book is not proven."""
        self.print(key, lots, after_ms)
        for paper in self.papers:
            paper.pass_over(self.book)

    def pause(self, after_ms: int) -> list[Match]:
        """Let a message come that says nothing, and rolls nothing: a ticker."""
        self.ns += after_ms * MS
        return self.follow()

    def follow(self) -> list[Match]:
        found = [paper.on_message(self.book, self.ns) for paper in self.papers]
        return found[0]

    def ahead(self, order: int) -> list[int]:
        return [paper.queue_ahead(order) for paper in self.papers]


def quoted(levels: dict[int, int]) -> bytes:
    return b"[%b]" % b",".join(b'["%d","%d"]' % level for level in levels.items())


def fills(matches: list[Match]) -> list[Fill]:
    return [(match.order, match.ticks, match.lots, match.cause) for match in matches]


# By hand


def test_execution_planner_an_order_takes_what_is_displayed_within_its_limit_and_rests() -> None:
    desk = Desk()
    assert desk.place(1, 103, 35) == [
        Match(1, 102, 10, False, "swept", 102, 10, 10),
        Match(1, 103, 20, False, "swept", 103, 20, 20),
    ]
    assert desk.paper.resting() == [Resting(1, 103, 5, 0, 0)]
    assert (len(desk.paper), desk.paper.left(1), desk.paper.cancel(1), desk.paper.cancel(1), len(desk.paper)) == (1, 5, 5, 0, 0)


def test_execution_planner_a_sale_takes_bids_from_the_best_down() -> None:
    assert fills(Desk().place(1, -99, 12)) == [(1, 100, 10, "swept"), (1, 99, 2, "swept")]


def test_execution_planner_what_an_immediate_order_does_not_take_is_dropped() -> None:
    desk = Desk()
    assert fills(desk.place(1, 102, 15, immediate=True)) == [(1, 102, 10, "swept")]
    assert (len(desk.paper), desk.place(2, 101, 5, immediate=True)) == (0, [])


def test_execution_planner_what_was_taken_is_not_there_again_until_it_is_added() -> None:
    desk = Desk()
    desk.place(1, 102, 7, immediate=True)
    assert desk.place(2, 102, 9, immediate=True) == [Match(2, 102, 3, False, "swept", 102, 10, 3)]
    desk.show(-102, 14)
    assert fills(desk.place(3, 102, 9, immediate=True)) == [(3, 102, 4, "swept")]
    desk.show(-102, 6)
    assert desk.place(4, 102, 9, immediate=True) == []
    desk.show(-102, 0)
    desk.show(-102, 6)
    assert fills(desk.place(5, 102, 9, immediate=True)) == [(5, 102, 6, "swept")]


def test_execution_planner_messages_that_nobody_followed_only_leave_less_to_take() -> None:
    desk = Desk()
    desk.place(1, 102, 10, immediate=True)
    desk.book.diff(1, b"[]", quoted({102: 0}))
    desk.book.diff(2, b"[]", quoted({102: 12}))
    assert fills(desk.place(2, 102, 12, immediate=True)) == [(2, 102, 2, "swept")]


def test_execution_planner_prints_fill_what_is_beyond_the_queue() -> None:
    desk = Desk()
    desk.place(1, 100, 5)
    assert desk.ahead(1) == [10]
    assert desk.trade(100, 8) == []
    assert desk.trade(100, 4) == [Match(1, 100, 2, True, "printed", 100, 4, 2)]
    assert desk.trade(-102, 50) == desk.trade(101, 50) == []
    assert desk.trade(100, 50) == [Match(1, 100, 3, True, "printed", 100, 50, 50)]
    assert len(desk.paper) == 0


def test_execution_planner_a_print_older_than_an_order_is_not_its_own() -> None:
    desk = Desk()
    desk.ns += MS
    desk.book.trade(desk.ns, b"100", b"50", buyer_is_taker=False)
    desk.place(1, 100, 5)
    assert desk.follow() == []
    assert desk.ahead(1) == [10]


def test_execution_planner_a_print_through_the_price_fills_whatever_the_queue() -> None:
    desk = Desk()
    desk.place(1, 100, 5)
    desk.place(2, 100, 5)
    assert desk.trade(99, 7) == [Match(1, 100, 5, True, "through", 99, 7, 7), Match(2, 100, 2, True, "through", 99, 7, 2)]
    assert desk.ahead(2) == [0]


def test_execution_planner_a_print_and_the_fall_it_causes_advance_the_queue_once() -> None:
    for first_print in (True, False):
        desk = Desk(*QUEUES)
        desk.place(1, 100, 5)
        if first_print:
            desk.trade(100, 4)
            assert desk.ahead(1) == [6, 6, 6, 6]
            desk.show(100, 6)
        else:
            desk.show(100, 6)
            assert desk.ahead(1) == [6, 6, 6, 6], "nobody was behind, so all models agree"
            desk.trade(100, 4)
        assert desk.ahead(1) == [6, 6, 6, 6]


def test_execution_planner_models_differ_on_a_fall_that_no_print_explains() -> None:
    desk = Desk(*QUEUES)
    desk.place(1, 100, 5)
    desk.depth({})
    desk.show(100, 20)
    desk.show(100, 14)
    assert desk.ahead(1) == [10, 7, 7, 4], "half of the six is before it where 10 are before and 10 behind"
    desk.show(100, 6)
    assert desk.ahead(1)[0] == 6, "no queue is longer than what is displayed"
    desk.show(100, 0)
    assert desk.ahead(1) == [0, 0, 0, 0]


def test_execution_planner_a_fall_that_a_print_explains_later_advances_the_queue_by_the_print_alone() -> None:
    desk = Desk(*QUEUES)
    desk.place(1, 100, 5)
    desk.depth({})
    desk.show(100, 20)
    desk.show(100, 14)
    desk.trade(100, 6)
    assert desk.ahead(1) == [4, 4, 4, 4]
    desk.show(100, 8)
    assert desk.ahead(1)[::3] == [4, 0], "the print is used up: this fall is one of its own"


def test_execution_planner_the_life_of_a_resting_order_is_that_of_the_document() -> None:
    desk = Desk("risk_averse", "optimistic")
    steps: tuple[tuple[Callable[[], object], list[int], list[int]], ...] = (
        (lambda: desk.place(1, 100, 4), [10, 10], [4, 4]),
        (lambda: desk.show(100, 12), [12, 10], [4, 4]),
        (lambda: desk.show(100, 22), [12, 10], [4, 4]),
        (lambda: desk.show(100, 16), [12, 4], [4, 4]),
        (lambda: desk.trade(100, 6), [6, 4], [4, 4]),
        (lambda: desk.trade(100, 5), [1, 0], [4, 3]),
        (lambda: desk.show(100, 11), [1, 0], [4, 3]),
        (lambda: desk.trade(99, 2), [0, 0], [2, 1]),
    )
    for step, ahead, left in steps:
        step()
        assert (desk.ahead(1), [paper.left(1) for paper in desk.papers]) == (ahead, left)
    assert show(desk, -100, 8, 1) == [Match(1, 100, 2, True, "crossed", 100, 8, 8)]
    assert [len(paper) for paper in desk.papers] == [0, 0]
    taken = [paper.place(desk.book, desk.ns, 2, 100, 9, immediate=True) for paper in desk.papers]
    assert [fills(one) for one in taken] == [[(2, 100, 6, "swept")], [(2, 100, 7, "swept")]]


def test_execution_planner_a_quarter_of_a_second_later_a_fall_is_not_the_prints() -> None:
    desk = Desk("optimistic")
    desk.place(1, 100, 5)
    desk.trade(100, 4, after_ms=9)
    desk.show(100, 9, after_ms=240)
    assert desk.ahead(1) == [6], "explained"
    desk.show(100, 7, after_ms=1)
    assert desk.ahead(1) == [4], "the other three waited until 250 ms of the grid had passed"


def test_execution_planner_own_orders_at_a_price_share_no_print() -> None:
    desk = Desk()
    desk.place(1, 100, 4)
    desk.depth({})
    desk.show(100, 13)
    desk.place(2, 100, 9)
    assert desk.ahead(2) == [13]
    # 10 lots stand before order 1, three between it and order 2.
    assert fills(desk.trade(100, 12)) == [(1, 100, 2, "printed")]
    assert fills(desk.trade(100, 4)) == [(1, 100, 2, "printed")]
    assert desk.ahead(2) == [0]
    assert desk.trade(100, 1) == [], "sixteen printed: 10 before both, 4 for order 1, two of the three between"
    assert fills(desk.trade(100, 6)) == [(2, 100, 6, "printed")]


def test_execution_planner_the_better_own_price_goes_first() -> None:
    desk = Desk()
    desk.place(1, 100, 4)
    desk.place(2, 101, 4)
    assert desk.paper.orders == [2, 1]
    assert fills(desk.trade(100, 16)) == [(2, 101, 4, "through"), (1, 100, 2, "printed")]


def test_execution_planner_quotes_that_come_to_an_order_fill_it_at_its_price() -> None:
    desk = Desk()
    desk.place(1, 101, 8)
    assert desk.show(-101, 3) == [Match(1, 101, 3, True, "crossed", 101, 3, 3)]
    assert desk.show(-101, 3) == []
    assert fills(desk.show(-101, 4)) == [(1, 101, 1, "crossed")]
    desk.show(100, 0)
    assert desk.show(-100, 9) == [Match(1, 101, 4, True, "crossed", 100, 9, 9)]
    assert fills(desk.place(2, 100, 9, immediate=True)) == [(2, 100, 5, "swept")], "the other four are taken"


def test_execution_planner_refused_orders_change_nothing() -> None:
    desk = Desk()
    desk.place(1, 100, 4)
    before = desk.paper.save()
    for order, key, how, refusal in (
        (2, -100, {}, "self_trade"),
        (2, -99, {"post_only": True}, "self_trade"),
        (2, 102, {"post_only": True}, "post_only"),
    ):
        with pytest.raises(Refused, match="expected") as refused:
            desk.place(order, key, 4, **how)
        assert refused.value.refusal == refusal
    assert desk.paper.save() == before
    assert desk.place(2, -101, 4, post_only=True) == []


def test_execution_planner_a_post_only_order_is_refused_by_whatever_is_displayed() -> None:
    desk = Desk()
    desk.place(1, 102, 6, immediate=True)
    desk.trade(-102, 4)
    assert desk.place(2, 102, 5, immediate=True) == [], "six are ours, four were printed"
    with pytest.raises(Refused, match="it would match at once"):
        desk.place(3, 102, 5, post_only=True)
    desk.show(-102, 0)
    assert desk.place(3, 102, 5, post_only=True) == []
    assert fills(desk.show(-102, 2)) == [(3, 102, 2, "crossed")]


# What the tape says is gone


def test_execution_planner_what_was_printed_is_not_there_to_take_though_it_is_displayed() -> None:
    desk = Desk(asks={1001: 100, 1002: 30})
    desk.trade(-1001, 100)
    desk.ns += 50 * MS
    assert desk.place(1, 1001, 100, immediate=True) == []
    assert desk.place(2, 1002, 100, immediate=True) == [Match(2, 1002, 30, False, "swept", 1002, 30, 30)]


def test_execution_planner_ours_and_what_was_printed_are_both_gone_until_the_level_tells() -> None:
    desk = Desk(asks={102: 100})
    desk.place(1, 102, 30, immediate=True)
    desk.trade(-102, 45)
    desk.trade(-102, 5)
    desk.trade(102, 7)
    assert desk.place(2, 102, 99, immediate=True) == [Match(2, 102, 20, False, "swept", 102, 100, 20)]
    assert desk.place(3, 102, 99, immediate=True) == []
    desk.show(-102, 60)
    assert fills(desk.place(4, 102, 99, immediate=True)) == [(4, 102, 10, "swept")], "50 of the 60 are ours, and the prints are told"


def test_execution_planner_a_print_without_a_fall_is_believed_for_a_quarter_of_a_second() -> None:
    for after_ms, taken in ((249, 4), (250, 10)):
        desk = Desk()
        desk.trade(-102, 6)
        desk.ns += after_ms * MS
        assert fills(desk.place(1, 102, 99, immediate=True)) == [(1, 102, taken, "swept")]


def test_execution_planner_prints_before_a_book_began_anew_are_nothing_of_it() -> None:
    desk = Desk()
    desk.trade(-102, 6)
    desk.book.start(desk.ns)
    desk.trade(100, 1)
    assert fills(desk.place(1, 102, 99, immediate=True)) == [(1, 102, 10, "swept")]


def test_execution_planner_prints_are_deducted_in_finer_steps_too() -> None:
    desk = Desk()
    desk.trade(-102, 6)
    desk.book.refine([Decimal("0.1")], [Decimal("0.01")])
    assert fills(desk.place(1, 1_020, 9_900, immediate=True)) == [(1, 1_020, 400, "swept")]


def test_execution_planner_quotes_that_are_printed_away_do_not_come_to_an_order() -> None:
    desk = Desk()
    desk.trade(-102, 6)
    desk.place(1, 102, 12)
    assert desk.paper.left(1) == 8, "four of ten"
    assert desk.pause(100) == []
    assert desk.pause(150) == [Match(1, 102, 6, True, "crossed", 102, 10, 6)], "after a quarter of a second they are quotes like any"


# What nobody could follow


def test_execution_planner_a_print_that_was_passed_over_never_fills() -> None:
    desk = Desk(*QUEUES)
    desk.place(1, 100, 5)
    desk.miss(99, 50)
    desk.miss(100, 50)
    assert desk.pause(1) == desk.show(100, 8) == []
    assert desk.ahead(1) == [8, 8, 8, 8], "a fall that nobody was told the reason of"
    assert desk.trade(99, 2) == [Match(1, 100, 2, True, "through", 99, 2, 2)], "the next one is a print like any"


def test_execution_planner_a_saved_book_knows_what_was_passed_over() -> None:
    desk = Desk()
    desk.place(1, 100, 5)
    desk.miss(99, 50)
    other = PaperBook()
    other.load(desk.paper.save())
    assert other.on_message(desk.book, desk.ns) == []


# What was added before an order came


def test_execution_planner_what_the_first_depth_message_adds_stands_before_a_risk_averse_order() -> None:
    desk = Desk(*QUEUES)
    desk.place(1, 100, 5)
    assert desk.trade(100, 3) == []
    assert desk.ahead(1) == [7, 7, 7, 7]
    desk.show(100, 14)
    assert desk.ahead(1) == [11, 7, 7, 7], "four more are displayed, and may have come before it"
    desk.show(100, 20)
    assert desk.ahead(1) == [11, 7, 7, 7], "these came after it"
    desk.place(2, 100, 5)
    desk.show(100, 22)
    assert (desk.ahead(1)[0], desk.ahead(2)[0]) == (11, 22), "each order has a first one of its own"
    assert fills(desk.trade(100, 12)) == [(1, 100, 1, "printed")]


def test_execution_planner_a_first_depth_message_of_other_levels_says_that_nothing_was_added() -> None:
    desk = Desk()
    desk.place(1, 100, 5)
    desk.show(-103, 7)
    desk.show(100, 14)
    assert desk.ahead(1) == [10]
    desk.place(2, 100, 5)
    desk.show(100, 12)
    desk.show(100, 20)
    assert desk.ahead(2) == [12], "nor does one that shows a fall"


def test_execution_planner_the_first_depth_message_is_the_same_in_a_frame() -> None:
    for by_frame in (True, False):
        desk = Desk()
        desk.book.listen("BTCUSDT", wire.BINANCE_SPOT)
        desk.book.live = True
        desk.show(100, 12)
        desk.place(1, 100, 5)
        for update, lots in ((2, 15), (3, 19)):
            if by_frame:
                head = b'{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":%d,"u":%d,' % (update, update)
                assert desk.book.frame(desk.ns, head + b'"b":[["100","%d"]],"a":[]}' % lots) == TAKEN
                desk.follow()
            else:
                desk.show(100, lots)
            assert desk.ahead(1) == [15]


def test_execution_planner_a_book_of_orders_grows_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphapack.models.matching.ORDERS_MAX", 128)
    desk = Desk()
    for order in range(128):
        desk.place(order, 100, 1)
    with pytest.raises(Refused, match="expected at most") as refused:
        desk.place(128, 100, 1)
    assert (refused.value.refusal, len(desk.paper), ORDERS_MAX) == ("full", 128, 4_096)
    assert fills(desk.trade(100, 74)) == [(order, 100, 1, "printed") for order in range(64)]


def test_execution_planner_finer_steps_change_no_fill() -> None:
    plain, fine = Desk("power"), Desk("power")
    for desk in (plain, fine):
        desk.place(1, 100, 4)
        desk.place(2, 102, 3, immediate=True)
        desk.show(100, 20)
        desk.show(100, 16)
    fine.book.refine([Decimal("0.1")], [Decimal("0.01")])
    fine.paper.refine(10, 100)
    assert fine.paper.resting() == [Resting(1, 1_000, 400, 100 * plain.ahead(1)[0], 0)]
    for desk, prices, lots in ((plain, 1, 1), (fine, 10, 100)):
        desk.ns += MS
        desk.book.trade(desk.ns, b"100", b"14", buyer_is_taker=False)
        assert desk.follow() == [Match(1, 100 * prices, 4 * lots, True, "printed", 100 * prices, 14 * lots, 4 * lots)]
        assert fills(desk.place(3, 102 * prices, 9 * lots, immediate=True)) == [(3, 102 * prices, 7 * lots, "swept")]


def test_execution_planner_steps_too_fine_are_refused_and_change_nothing() -> None:
    desk = Desk()
    desk.place(1, 100, 1 << 52)
    before = desk.paper.save()
    with pytest.raises(ValueError, match="expected steps in which 4503599627370496 old ones can be counted"):
        desk.paper.refine(1, 10**4)
    assert desk.paper.save() == before


def test_execution_planner_a_cleared_book_tells_what_was_there_and_remembers_nothing() -> None:
    desk = Desk()
    desk.place(1, 102, 12)
    assert desk.paper.clear() == [Resting(1, 102, 2, 0, 0)]
    assert (len(desk.paper), fills(desk.place(2, 102, 99, immediate=True))) == (0, [(2, 102, 10, "swept")])


def test_execution_planner_misuse_is_told() -> None:
    with pytest.raises(ValueError, match="expected a power above 0"):
        PaperBook("power", 0.0)
    with pytest.raises(ValueError, match="expected a queue model"):
        PaperBook("hopeful")  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="expected one of the orders"):
        PaperBook().queue_ahead(1)
    desk = Desk()
    desk.place(1, 100, 1)
    for order, key, lots in ((1, 100, 1), (2, 0, 1), (2, 100, 0)):
        with pytest.raises(AssertionError):
            desk.place(order, key, lots)


# Against a slow twin


class Shown:
    """What a real book displays, by key."""

    def __init__(self, book: FeatureBook) -> None:
        self.book = book

    def __getitem__(self, key: int) -> int:
        return k.displayed(key, self.book.levels)

    def best(self) -> list[int]:
        """Return the keys of the best ten levels of both sides."""
        heads = (self.book.levels[side : side + b.SIDE] for side in b.SIDES)
        return [key for head in heads for key in head[b.KEYS : b.KEYS + head[b.TOP_N]].tolist()]


class Tape:
    """Prints of the last quarter of a second whose levels have not changed since, kept as a list of all of them."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.prints: list[tuple[int, int, int, int]] = []
        """Time, key, lots, and what the level showed then."""

    def take(self, ns: int, trade: tuple[int, int] | None) -> None:
        """Take a message: a trade, or a change of levels."""
        self.prints = [one for one in self.prints if self.shown[one[1]] == one[3]]
        if trade is not None:
            self.prints.append((ns, *trade, self.shown[trade[0]]))

    def __call__(self, ns: int, key: int) -> int:
        """Return the lots printed at a level that it may go on displaying."""
        return sum(lots for at, level, lots, _ in self.prints if level == key and ns - at < 250 * MS)


@dataclass
class Kept:
    """An order of the twin, with all that its level ever showed and printed."""

    order: int
    key: int
    left: int
    joined: int
    update: int
    owed: int = 0
    history: list[tuple[int, str, int]] = field(default_factory=list)


class Twin:
    """The rules again, told from the whole history of an order each time."""

    def __init__(self, queue: Queue, shown: Shown) -> None:
        self.queue, self.shown, self.tape = queue, shown, Tape(shown)
        self.orders: list[Kept] = []
        self.taken: dict[int, int] = {}

    def look_back(self, kept: Kept) -> tuple[int, int]:
        """Return the queue ahead, and what of the last print went beyond it."""
        ahead, shown, beyond = kept.joined, kept.joined, 0
        prints, falls, cuts = list[list[int]](), list[list[int]](), list[list[int]]()
        for instant, kind, lots in kept.history:
            prints, falls, cuts = ([one for one in ring if instant - one[0] < 25] for ring in (prints, falls, cuts))
            if kind == "print":
                prints.append([instant, lots - use(falls, lots)])
                rest = lots - use(cuts, lots)
                ahead, beyond = max(0, ahead - rest), max(0, rest - ahead)
            elif kind == "through":
                ahead = 0
            else:
                fall, shown = shown - lots, lots
                if kind == "first" and self.queue == "risk_averse":
                    ahead += max(0, -fall)
                if fall > 0:
                    cancelled = fall - use(prints, fall)
                    cut = self.cut(ahead, lots + cancelled - ahead, cancelled)
                    ahead -= cut
                    falls.append([instant, cancelled])
                    cuts.append([instant, cut])
        return ahead, beyond

    def cut(self, ahead: int, behind: int, cancelled: int) -> int:
        least, most = max(0, cancelled - max(0, behind)), min(cancelled, ahead)
        if self.queue in ("risk_averse", "optimistic") or most == 0:
            return least if self.queue == "risk_averse" else most
        # The share itself is held against its formula beside the kernels.
        part = k.part_ahead({"power": k.POWER, "log": k.LOG}[self.queue], 3.0, float(ahead), float(behind))
        return min(max(int(part * cancelled), least), most)

    def forget(self) -> None:
        self.taken = {key: min(taken, self.shown[key]) for key, taken in self.taken.items()}

    def sweep(self, ns: int, kept: Kept, rests: bool) -> list[Fill]:
        found = []
        for key in sorted((key for key in self.shown.best() if (key > 0) != (kept.key > 0) and key >= -kept.key), reverse=True):
            part = min(kept.left, self.shown[key] - self.taken.get(key, 0) - self.tape(ns, key))
            if part > 0:
                kept.left -= part
                self.taken[key] = self.taken.get(key, 0) + part
                found.append((kept.order, abs(kept.key if rests else key), part, "crossed" if rests else "swept"))
        return found

    def place(self, ns: int, order: int, key: int, lots: int, immediate: bool) -> list[Fill]:
        self.forget()
        kept = Kept(order, key, lots, self.shown[key], self.shown.book.last_update)
        found = self.sweep(ns, kept, rests=False)
        if kept.left and not immediate:
            self.orders = sorted([*self.orders, kept], key=lambda one: -one.key)
        return found

    def message(self, ns: int, trade: tuple[int, int] | None) -> list[Fill]:
        found, instant, given = list[Fill](), ns // (10 * MS), 0
        self.tape.take(ns, trade)
        for kept in self.orders:
            if trade is None or (kept.key > 0) != (trade[0] > 0) or kept.key < trade[0]:
                continue
            at_price = kept.key == trade[0]
            kept.history.append((instant, "print" if at_price else "through", trade[1]))
            claim = self.look_back(kept)[1] - kept.owed - given if at_price else trade[1] - given
            kept.owed = max(0, -claim) if at_price else 0
            part = min(max(0, claim), kept.left)
            if part:
                found.append((kept.order, abs(kept.key), part, "printed" if at_price else "through"))
            kept.left -= part
            given += part
        for kept in self.orders:
            looks = [(kind, lots) for _, kind, lots in kept.history if kind in ("first", "shown")]
            if not looks and self.shown.book.last_update != kept.update:
                kept.history.append((instant, "first", self.shown[kept.key]))
            elif looks and looks[-1][1] != self.shown[kept.key]:
                kept.history.append((instant, "shown", self.shown[kept.key]))
        self.forget()
        for kept in self.orders:
            found += self.sweep(ns, kept, rests=True)
        self.orders = [kept for kept in self.orders if kept.left]
        return found


def use(ring: list[list[int]], lots: int) -> int:
    """Use up to so many lots of what waits, oldest first; returns how many there were."""
    used = 0
    for one in ring:
        part = min(one[1], lots - used)
        one[1] -= part
        used += part
    return used


@dataclass
class Audited:
    """An order, and what its level showed and printed since it came."""

    key: int
    left: int
    joined: int
    shown: int
    fallen: int = 0
    printed: int = 0
    by_print: int = 0
    passed: bool = False


class Auditor:
    """Bounds that no fill may pass, counted from the market alone, whatever the queue model."""

    def __init__(self, shown: Shown) -> None:
        self.shown, self.tape, self.ns = shown, Tape(shown), 0
        self.orders: dict[int, Audited] = {}
        self.levels: dict[int, tuple[int, int]] = {}
        """Of levels that were taken from: lots shown when last seen; those that were offered since, less those taken."""

    def look(self, ns: int, trade: tuple[int, int] | None = None) -> None:
        """Note what a message did to the levels taken from and to those of the orders."""
        self.ns = ns
        self.tape.take(ns, trade)
        for key, (before, free) in self.levels.items():
            self.levels[key] = self.shown[key], free + max(0, self.shown[key] - before)
        for order in self.orders.values():
            now = self.shown[order.key]
            order.fallen, order.shown = order.fallen + max(0, order.shown - now), now
            if trade and (order.key > 0) == (trade[0] > 0) and order.key >= trade[0]:
                order.printed += trade[1]
                order.passed |= order.key > trade[0]

    def place(self, ns: int, order: int, key: int, lots: int) -> None:
        self.ns = ns
        self.orders[order] = Audited(key, lots, self.shown[key], self.shown[key])

    def check(self, matches: list[Match], trade: tuple[int, int] | None = None) -> None:
        for match in matches:
            order = self.orders[match.order]
            order.left -= match.lots
            assert 0 < match.lots <= match.available <= match.seen_lots and order.left >= 0
            assert match.maker == (match.cause != "swept")
            assert match.ticks == (abs(order.key) if match.maker else match.seen_ticks)
            if match.cause in ("swept", "crossed"):
                level = -match.seen_ticks if order.key > 0 else match.seen_ticks
                assert level >= -order.key and match.seen_lots == self.shown[level]
                assert match.lots <= match.seen_lots - self.tape(self.ns, level), "the tape says that it is gone"
                shown, free = self.levels.get(level, (match.seen_lots, match.seen_lots))
                assert match.lots <= free, "more than was offered there since it was first taken from"
                self.levels[level] = shown, free - match.lots
                continue
            assert trade is not None and (match.seen_ticks, match.seen_lots) == (abs(trade[0]), trade[1])
            order.by_print += match.lots
            before = 0 if order.passed else max(0, order.joined - order.fallen)
            assert order.by_print <= order.printed - before, "a queue passes by prints and falls alone"
        assert trade is None or sum(match.lots for match in matches if match.cause in ("printed", "through")) <= trade[1]
        self.orders = {number: order for number, order in self.orders.items() if order.left}


GAPS_MS = (0, 1, 9, 60, 130, 251)
TICKS = st.integers(98, 103)
SIDES = st.sampled_from((1, -1))
STEPS = st.one_of(
    st.tuples(st.just("show"), SIDES, TICKS, st.integers(0, 30), st.sampled_from(GAPS_MS)),
    st.tuples(st.just("trade"), SIDES, st.integers(99, 102), st.integers(1, 15), st.sampled_from(GAPS_MS)),
    st.tuples(
        st.sampled_from(("place", "place", "take", "cancel", "miss", "pause")),
        SIDES,
        st.integers(100, 102),
        st.integers(1, 12),
        st.sampled_from(GAPS_MS),
    ),
)
Steps = list[tuple[str, int, int, int, int]]


def show(desk: Desk, key: int, lots: int, gap_ms: int) -> list[Match]:
    """Let a level show so many lots; what of the other side it meets is gone."""
    met = [other for other in Shown(desk.book).best() if (other > 0) != (key > 0) and other >= -key and lots]
    return desk.depth({key: lots, **dict.fromkeys(met, 0)}, gap_ms)


def happen(desk: Desk, kind: str, key: int, lots: int, gap_ms: int) -> list[Match]:
    """Let the market do a step of it; orders are nothing of it."""
    if kind == "show":
        return show(desk, key, lots, gap_ms)
    if kind == "trade":
        return desk.trade(key, lots, gap_ms)
    if kind == "miss":
        desk.miss(key, lots, gap_ms)
    return desk.pause(gap_ms) if kind == "pause" else []


def live(queue: Queue, steps: Steps, saved_at: int = -1) -> tuple[Desk, list[list[Match]]]:
    """Live through a market; returns the desk and the matches of each step. At a step the paper book goes through its saved state."""
    desk, found = Desk(queue), list[list[Match]]()
    for number, (kind, side, ticks, lots, gap_ms) in enumerate(steps):
        if number == saved_at:
            state = desk.paper.save()
            desk.papers[0] = PaperBook("risk_averse", 1.0)
            desk.papers[0].load(state)
        matches = list[Match]()
        if kind == "cancel":
            desk.paper.cancel(next(iter(desk.paper.orders), 0))
        elif kind not in ("place", "take"):
            matches = happen(desk, kind, side * ticks, lots, gap_ms)
        elif not k.meets_own(side * ticks, desk.paper._state):
            matches = desk.place(number, side * ticks, lots, immediate=kind == "take")
        found.append(matches)
    return desk, found


def busy(seed: int, steps: int) -> Steps:
    """Return a market in which many orders rest at few prices, and prints, falls and cancels come within milliseconds."""
    chance = random.Random(seed)
    made: Steps = []
    for _ in range(steps):
        kind = chance.choices(("show", "trade", "place", "take", "cancel", "miss", "pause"), (32, 37, 18, 4, 4, 2, 3))[0]
        side = chance.choice((1, -1))
        away = chance.choices((-2, 0, 1, 2), (2, 60, 30, 8) if kind != "show" else (1, 60, 30, 9))[0]
        ticks = 100 - away if side > 0 else 102 + away
        lots = chance.randrange(31) if kind == "show" else chance.randrange(1, 9)
        made.append((kind, side, ticks, lots, chance.choice((0, 1, 1, 3, 9, 40, 251))))
    return made


@pytest.mark.parametrize("queue", QUEUES)
def test_execution_planner_matching_equals_the_slow_twin_in_a_busy_market(queue: Queue) -> None:
    for seed in range(6):
        compare(queue, busy(seed, 250))


@given(st.sampled_from(QUEUES), st.lists(STEPS, max_size=60))
@settings(max_examples=100)
def test_execution_planner_matching_equals_the_slow_twin(queue: Queue, steps: Steps) -> None:
    compare(queue, steps)


def compare(queue: Queue, steps: Steps) -> None:
    """Live through a market beside the twin, under the auditor's eyes."""
    desk = Desk(queue)
    shown = Shown(desk.book)
    twin, auditor = Twin(queue, shown), Auditor(shown)
    for number, (kind, side, ticks, lots, gap_ms) in enumerate(steps):
        key, trade = side * ticks, None
        if kind == "cancel":
            order = next(iter(desk.paper.orders), 0)
            left = desk.paper.left(order)
            assert desk.paper.cancel(order) == left == sum(kept.left for kept in twin.orders if kept.order == order)
            twin.orders = [kept for kept in twin.orders if kept.order != order]
            continue
        if kind == "miss":
            desk.miss(key, lots, gap_ms)
            for tape in (twin.tape, auditor.tape):
                tape.take(desk.ns, (key, lots))
            continue
        if kind in ("place", "take"):
            desk.ns += gap_ms * MS
            if any((kept.key > 0) != (key > 0) and kept.key >= -key for kept in twin.orders):
                with pytest.raises(Refused, match="own order"):
                    desk.place(number, key, lots)
                continue
            matches, expected = (
                desk.place(number, key, lots, immediate=kind == "take"),
                twin.place(desk.ns, number, key, lots, kind == "take"),
            )
            auditor.place(desk.ns, number, key, lots)
        else:
            trade = (key, lots) if kind == "trade" else None
            matches = happen(desk, kind, key, lots, gap_ms)
            expected = twin.message(desk.ns, trade)
            auditor.look(desk.ns, trade)
        assert fills(matches) == expected
        auditor.check(matches, trade)
        assert [(one.order, one.left, one.queue_ahead) for one in desk.paper.resting()] == [
            (kept.order, kept.left, twin.look_back(kept)[0]) for kept in twin.orders
        ]


@given(st.lists(STEPS, max_size=60))
@settings(max_examples=100)
def test_execution_planner_queues_are_bounded_by_the_two_bounds(steps: Steps) -> None:
    desk = Desk(*QUEUES)
    for number, (kind, side, ticks, lots, gap_ms) in enumerate(steps):
        happen(desk, kind, side * ticks, lots, gap_ms)
        if kind == "place" and not any(k.meets_own(side * ticks, paper._state) for paper in desk.papers):
            desk.place(number, side * ticks, lots)
        aheads = [{one.order: one.queue_ahead for one in paper.resting()} for paper in desk.papers]
        for order in set.intersection(*map(set, aheads)):
            averse, power, log, optimistic = (ahead[order] for ahead in aheads)
            assert averse >= max(power, log) >= min(power, log) >= optimistic >= 0


@given(SIDES, TICKS, st.integers(1, 12), st.lists(STEPS, max_size=60))
@settings(max_examples=100)
def test_execution_planner_fills_of_an_order_are_bounded_by_the_two_bounds(side: int, ticks: int, lots: int, steps: Steps) -> None:
    desk = Desk(*QUEUES)
    desk.place(1, side * ticks, lots)
    for kind, side, ticks, lots, gap_ms in steps:
        happen(desk, kind, side * ticks, lots, gap_ms)
        averse, power, log, optimistic = (paper.left(1) for paper in desk.papers)
        assert averse >= max(power, log) >= min(power, log) >= optimistic


@given(st.sampled_from(QUEUES), st.lists(STEPS, max_size=40), st.integers(0, 39))
@settings(max_examples=60)
def test_execution_planner_a_saved_book_goes_on_as_if_never_saved(queue: Queue, steps: Steps, saved_at: int) -> None:
    whole, found = live(queue, steps)
    again, found_again = live(queue, steps, saved_at)
    assert found_again == found
    assert again.paper.save() == whole.paper.save()


def test_execution_planner_many_orders_are_saved_and_loaded() -> None:
    desk = Desk()
    for order in range(150):
        desk.place(order, 100, 1)
    other = PaperBook()
    other.load(memoryview(desk.paper.save()))
    assert other.resting() == desk.paper.resting()
    other.place(desk.book, 0, 150, 100, 1)
    assert len(other) == 151


# Against a recorded market


@pytest.mark.parametrize("queue", ["risk_averse", "power"])
def test_execution_planner_fills_on_a_recorded_market_keep_the_rules(data: Path, queue: Queue) -> None:
    """Every two hundredth message an order comes and the oldest goes; the twin and the auditor watch every fill."""
    path, chance = data / "captures" / "binance-usdm_BTCUSDT_20240808T2354.raw.gz", random.Random(1)
    engine, complaints = app.build(), list[str]()
    paper, causes, trades = PaperBook(queue), Counter[str](), 0
    twin: Twin | None = None
    for number, (_, _) in enumerate(islice(app.steps(engine, app.record_of([path], Settings(), None, complaints.append)), 9_000)):
        market = engine.microstructure.touched
        if market is None or market.facts.state is not BookState.LIVE:
            continue
        book = market.book
        if twin is None:
            shown = Shown(book)
            twin, auditor = Twin(queue, shown), Auditor(shown)
            trades = book.trades_taken
        trade, trades = (book.last_trade if book.trades_taken > trades else None), book.trades_taken
        auditor.look(engine.now_ns, trade)
        matches, expected = paper.on_message(book, engine.now_ns), twin.message(engine.now_ns, trade)
        assert fills(matches) == expected, f"message {number}"
        auditor.check(matches, trade)
        causes.update(match.cause for match in matches)
        if number % 200 == 0:
            for order in sorted(paper.orders)[:-8]:
                paper.cancel(order)
            twin.orders = [kept for kept in twin.orders if paper.left(kept.order)]
            auditor.orders = {order: audited for order, audited in auditor.orders.items() if paper.left(order)}
            side, best = chance.choice(((1, book.top()[0]), (-1, book.top()[1])))
            assert best is not None
            key, lots = side * best[0] + chance.choice((2, 0, 0, -1, -3)), chance.randrange(1, 3_000)
            if not k.meets_own(key, paper._state):
                ns = engine.now_ns
                matches, expected = paper.place(book, ns, number, key, lots), twin.place(ns, number, key, lots, False)
                assert fills(matches) == expected
                auditor.place(ns, number, key, lots)
                auditor.check(matches)
                causes.update(match.cause for match in matches)
    assert complaints == []
    assert causes["printed"] >= 5 and causes["through"] >= 5, causes
