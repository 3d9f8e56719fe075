"""A book of orders against a plain list of orders, the rules it keeps, and its changes through the features."""

import gzip
import lzma
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.events import FrameError
from alphapack.models import orders
from alphapack.models.book import FEATURES, CrossedBook, FeatureBook
from alphapack.models.orders import ASK, BID, LevelChange, OrderBook, OrderEvent, OrderKind
from alphapack.venues import bitstamp, lobster

ADD, REDUCE, DELETE, EXECUTE, HIDDEN = OrderKind


def event(kind: OrderKind, order_id: int, side: int, price: int, size: int, *, remaining: bool = False, ts_ns: int = 7) -> OrderEvent:
    return OrderEvent(ts_ns, kind, order_id, side, price, size, remaining)


def filled(*placed: tuple[int, int, int, int], takers_shown: bool = False, partial: bool = False) -> OrderBook:
    """Return a book of orders (id, side, price, size)."""
    book = OrderBook(takers_shown=takers_shown, partial=partial)
    for one in placed:
        book.apply(event(ADD, *one))
    return book


# What each kind of event does


def test_each_kind_of_event_changes_its_level_and_says_what_was_traded() -> None:
    book = filled((1, BID, 100, 5), (2, BID, 100, 3), (3, ASK, 103, 9))
    for one, wanted in (
        (event(ADD, 4, BID, 99, 2), LevelChange(7, 99, 0, 2, 0, 1)),
        (event(ADD, 5, BID, 101, 2), LevelChange(7, 101, 0, 2, 0, 0)),
        (event(REDUCE, 1, BID, 100, 1), LevelChange(7, 100, 8, 7, 0, 1)),
        (event(EXECUTE, 5, BID, 101, 2), LevelChange(7, 101, 2, 0, 2, 0)),
        (event(EXECUTE, 1, BID, 100, 3), LevelChange(7, 100, 7, 4, 3, 0)),
        (event(DELETE, 1, BID, 100, 1), LevelChange(7, 100, 4, 3, 0, 0)),
        (event(EXECUTE, 3, ASK, 103, 4), LevelChange(7, -103, 9, 5, 4, 0)),
        (event(DELETE, 4, BID, 99, 2), LevelChange(7, 99, 2, 0, 0, 1)),
    ):
        assert book.apply(one) == [wanted]
    assert book.levels(BID, 5) == [(100, 3)]
    assert book.levels(ASK, 5) == [(103, 5)]
    assert (book.order(2), book.order(1), book.level(BID, 99), len(book)) == ((BID, 100, 3), None, 0, 2)


def test_a_hidden_execution_changes_no_level() -> None:
    book = filled((1, BID, 100, 5), (2, ASK, 103, 5))
    assert book.apply(event(HIDDEN, 0, ASK, 102, 50)) == []
    assert (book.levels(BID, 5), book.levels(ASK, 5), book.unknown) == ([(100, 5)], [(103, 5)], 0)


def test_removed_and_cancelled_are_two_parts_of_a_fall_and_nothing_of_a_rise() -> None:
    assert (LevelChange(0, 1, 9, 4, 3, 0).removed, LevelChange(0, 1, 9, 4, 3, 0).cancelled) == (5, 2)
    assert (LevelChange(0, 1, 4, 9, 0, 0).removed, LevelChange(0, 1, 4, 9, 0, 0).cancelled) == (0, 0)


def test_a_delete_takes_all_that_is_left_and_what_is_left_can_be_what_the_venue_names() -> None:
    book = filled((1, BID, 100, 5))
    assert book.apply(event(EXECUTE, 1, BID, 100, 2, remaining=True)) == [LevelChange(7, 100, 5, 2, 3, 0)]
    assert book.apply(event(EXECUTE, 1, BID, 100, 2, remaining=True)) == []
    assert book.apply(event(DELETE, 1, BID, 100, 1)) == [LevelChange(7, 100, 2, 0, 0, 0)]
    assert (len(book), book.levels(BID, 1)) == (0, [])


def test_the_queue_before_an_order_is_the_nameless_and_the_older() -> None:
    book = filled((1, BID, 100, 5), (2, BID, 100, 3), (3, BID, 100, 4))
    book.set_level(8, BID, 100, 20)
    assert [book.ahead(order_id) for order_id in (1, 2, 3, 4)] == [8, 13, 16, None]
    book.apply(event(EXECUTE, 1, BID, 100, 2))
    book.apply(event(DELETE, 2, BID, 100, 3))
    assert [book.ahead(order_id) for order_id in (1, 2, 3)] == [8, None, 11]


# Orders that were never seen to come


def test_an_unknown_order_takes_from_the_nameless_size_of_its_level_alone() -> None:
    book = filled((1, BID, 100, 5))
    book.set_level(8, BID, 100, 9)
    assert book.apply(event(DELETE, 77, BID, 100, 3)) == [LevelChange(7, 100, 9, 6, 0, 0)]
    assert book.apply(event(EXECUTE, 78, BID, 100, 1)) == [LevelChange(7, 100, 6, 5, 1, 0)]
    assert book.unknown == 0
    assert book.apply(event(DELETE, 79, BID, 100, 1)) == []
    assert book.apply(event(DELETE, 80, BID, 98, 1)) == []
    assert book.apply(event(EXECUTE, 81, BID, 100, 1, remaining=True)) == []
    assert (book.unknown, book.levels(BID, 2)) == (3, [(100, 5)])


def test_where_only_the_best_levels_are_told_an_unknown_order_proves_that_a_named_one_left() -> None:
    book = filled((1, BID, 100, 5), (2, BID, 100, 5), partial=True)
    assert book.apply(event(DELETE, 77, BID, 100, 6)) == [LevelChange(7, 100, 10, 4, 0, 0)]
    assert (book.order(1), len(book), book.unknown) == (None, 0, 0)
    assert book.apply(event(EXECUTE, 1, BID, 100, 4)) == [LevelChange(7, 100, 4, 0, 4, 0)]


def test_a_stated_level_below_its_named_orders_keeps_no_names() -> None:
    book = filled((1, BID, 100, 5), (2, BID, 100, 3))
    assert book.set_level(8, BID, 100, 8) == []
    assert book.order(1) == (BID, 100, 5)
    assert book.set_level(8, BID, 100, 7) == [LevelChange(8, 100, 8, 7, 0, 0)]
    assert (book.order(1), book.levels(BID, 1), len(book)) == (None, [(100, 7)], 0)
    assert book.set_level(8, BID, 100, 0) == [LevelChange(8, 100, 7, 0, 0, 0)]
    assert book.levels(BID, 1) == []


@pytest.mark.parametrize(
    ("first", "left"),
    [
        (event(DELETE, 5, BID, 100, 3), 0),
        (event(EXECUTE, 5, BID, 100, 0, remaining=True), 0),
        (event(EXECUTE, 5, BID, 100, 2, remaining=True), 2),
    ],
)
def test_an_order_whose_end_or_change_came_before_its_beginning_has_what_is_left_of_it(first: OrderEvent, left: int) -> None:
    book = filled((1, BID, 99, 4))
    assert book.apply(first) == []
    assert [change.new for change in book.apply(event(ADD, 5, BID, 100, 3))] == ([left] if left else [])
    assert (book.level(BID, 100), book.unknown, book.early) == (left, 1, 1)


def test_what_is_remembered_of_orders_that_never_begin_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "EARLY_MAX", 2)
    book = OrderBook()
    for order_id in (1, 2, 3):
        book.apply(event(DELETE, order_id, BID, 100, 3))
    assert [bool(book.apply(event(ADD, order_id, BID, 100, 3))) for order_id in (1, 2, 3)] == [True, False, False]


# Marketable orders


def test_a_marketable_order_stands_in_no_level_until_it_no_longer_is_one() -> None:
    book = filled((1, ASK, 101, 5), (2, ASK, 102, 5), (3, BID, 99, 1), takers_shown=True)
    assert book.apply(event(ADD, 9, BID, 101, 8)) == []
    assert (book.order(9), book.ahead(9), book.levels(BID, 1)) == ((BID, 101, 8), None, [(99, 1)])
    assert book.apply(event(EXECUTE, 9, BID, 101, 3, remaining=True)) == []
    resting = [LevelChange(7, -101, 5, 0, 5, 0), LevelChange(7, 101, 0, 3, 0, 0)]
    assert book.apply(event(EXECUTE, 1, ASK, 101, 0, remaining=True)) == resting
    assert book.levels(BID, 2) == [(101, 3), (99, 1)]
    assert book.levels(ASK, 2) == [(102, 5)]


def test_a_marketable_order_may_be_filled_cancelled_or_moved() -> None:
    book = filled((1, ASK, 101, 5), (2, ASK, 102, 5), takers_shown=True)
    for order_id, end in ((7, event(DELETE, 7, BID, 101, 8)), (8, event(EXECUTE, 8, BID, 101, 0, remaining=True))):
        book.apply(event(ADD, order_id, BID, 101, 8))
        assert book.apply(end) == []
        assert book.order(order_id) is None
    book.apply(event(ADD, 9, BID, 101, 8))
    assert book.apply(event(EXECUTE, 9, BID, 102, 7, remaining=True)) == []
    assert book.order(9) == (BID, 102, 7)
    assert book.apply(event(EXECUTE, 9, BID, 100, 7, remaining=True)) == [LevelChange(7, 100, 0, 7, 0, 0)]
    assert book.apply(event(EXECUTE, 9, BID, 99, 6, remaining=True)) == [LevelChange(7, 99, 0, 6, 0, 1), LevelChange(7, 100, 7, 0, 0, 0)]
    assert book.apply(event(EXECUTE, 9, BID, 103, 6, remaining=True)) == [LevelChange(7, 99, 6, 0, 0, 0)]
    assert (book.levels(BID, 9), book.order(9)) == ([], (BID, 103, 6))
    assert book.apply(event(DELETE, 9, BID, 100, 0, remaining=True)) == []
    assert len(book) == 2


# What is refused


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (event(ADD, 1, BID, 100, 5), "a new order"),
        (event(ADD, 9, BID, 101, 5), "an order that rests"),
        (event(ADD, 9, BID, 100, 0), "a size of 1"),
        (event(ADD, 9, BID, 0, 5), "a price"),
        (event(ADD, 9, 0, 100, 5), "side 1 or -1"),
        (event(ADD, 9, BID, 1 << 53, 5), "a price"),
        (event(ADD, 9, BID, 100, (1 << 53)), "a size"),
        (event(ADD, 9, BID, 100, (1 << 52)), "a level of at most"),
        (event(REDUCE, 1, BID, 100, 6), "at most the 5 lots"),
        (event(DELETE, 1, BID, 100, 6), "at most the 5 lots"),
        (event(EXECUTE, 1, BID, 100, 6), "at most the 5 lots"),
        (event(EXECUTE, 1, BID, 100, 6, remaining=True), "at most the 5 lots"),
        (event(EXECUTE, 1, BID, 100, -1, remaining=True), "a size of 0"),
        (event(EXECUTE, 1, BID, 99, 1), "the price of order 1"),
        (event(EXECUTE, 1, BID, 101, 1, remaining=True), "an order that rests"),
        (event(EXECUTE, 1, ASK, 100, 1), "an event of the bid 1"),
    ],
)
def test_what_contradicts_the_book_is_refused_and_changes_nothing(bad: OrderEvent, said: str) -> None:
    book = filled((1, BID, 100, 5), (2, ASK, 101, 5))
    with pytest.raises((FrameError, CrossedBook), match=said):
        book.apply(bad)
    assert (book.levels(BID, 5), book.levels(ASK, 5), len(book), book.order(1)) == ([(100, 5)], [(101, 5)], 2, (BID, 100, 5))


@pytest.mark.parametrize(
    ("stated", "error"), [((BID, 101, 1), CrossedBook), ((BID, 0, 1), FrameError), ((0, 9, 1), FrameError), ((BID, 9, -1), FrameError)]
)
def test_a_stated_level_must_fit(stated: tuple[int, int, int], error: type[Exception]) -> None:
    book = filled((1, BID, 100, 5), (2, ASK, 101, 5))
    with pytest.raises(error, match="expected"):
        book.set_level(8, *stated)
    assert (book.levels(BID, 5), book.levels(ASK, 5)) == ([(100, 5)], [(101, 5)])


@pytest.mark.parametrize(("limit", "most"), [("ORDERS_MAX", 2), ("LEVELS_MAX", 2), ("TAKERS_MAX", 2)])
def test_everything_kept_is_bounded(limit: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, limit, most)
    book = filled((1, ASK, 100, 5), takers_shown=True)
    with pytest.raises(FrameError, match=f"at most {most}"):
        for order_id in (2, 3, 4):
            book.apply(event(ADD, order_id, BID if limit == "TAKERS_MAX" else ASK, 100 + order_id, 5))


def test_a_refused_move_leaves_a_marketable_order_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    book = filled((1, ASK, 100, 5), (2, BID, 90, 5), takers_shown=True)
    book.apply(event(ADD, 3, BID, 100, 8))
    monkeypatch.setattr(orders, "LEVELS_MAX", 1)
    with pytest.raises(FrameError, match="levels a side"):
        book.apply(event(EXECUTE, 3, BID, 95, 8, remaining=True))
    assert book.order(3) == (BID, 100, 8)


# Against a plain list


@dataclass
class Plain:
    """Orders in a dict, nothing kept beside them; every event that comes is one that fits."""

    orders: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    removed: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    cancelled: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """By rank of the level before the event."""

    def levels(self, side: int) -> list[tuple[int, int]]:
        sizes: dict[int, int] = defaultdict(int)
        for which, price, size in self.orders.values():
            if which == side:
                sizes[price] += size
        return sorted(sizes.items(), key=lambda level: -side * level[0])

    def take(self, one: OrderEvent) -> None:
        if one.kind is ADD:
            self.orders[one.order_id] = (one.side, one.price, one.size)
            return
        side, price, size = self.orders.pop(one.order_id)
        gone = size - one.size if one.remaining else one.size
        rank = [at for at, _ in [*self.levels(side), (price, 0)] if side * (at - price) > 0]
        self.removed[len(rank)] += gone
        self.cancelled[len(rank)] += 0 if one.kind is EXECUTE else gone
        if gone < size:
            self.orders[one.order_id] = (side, price, size - gone)


@given(
    st.lists(st.tuples(st.sampled_from([ADD, REDUCE, DELETE, EXECUTE]), st.integers(0, 99), st.integers(1, 9), st.booleans()), max_size=80)
)
def test_any_stream_of_orders_gives_the_levels_and_cancels_of_a_plain_list(draws: list[tuple[OrderKind, int, int, bool]]) -> None:
    book, plain = OrderBook(), Plain()
    removed: dict[int, int] = defaultdict(int)
    cancelled: dict[int, int] = defaultdict(int)
    for i, (kind, pick, size, remaining) in enumerate(draws):
        if kind is ADD or not plain.orders:
            side = BID if pick % 2 else ASK
            one = event(ADD, i, side, 50 - side * (1 + pick % 9), size)
        else:
            order_id = sorted(plain.orders)[pick % len(plain.orders)]
            side, price, old = plain.orders[order_id]
            gone = old if kind is DELETE else min(size, old)
            one = event(kind, order_id, side, price, old - gone if remaining else gone, remaining=remaining)
        for change in book.apply(one):
            removed[change.rank] += change.removed
            cancelled[change.rank] += change.cancelled
        plain.take(one)
        for side in (BID, ASK):
            assert book.levels(side, 99) == plain.levels(side)
    assert {rank: lots for rank, lots in removed.items() if lots} == plain.removed
    assert {rank: lots for rank, lots in cancelled.items() if lots} == {rank: lots for rank, lots in plain.cancelled.items() if lots}
    assert len(book) == len(plain.orders)


# Through the features

WINDOW_NS = 5 * 10**9


class Tally:
    """Exact cancel rate of 5 s windows, one after the other, from level changes alone."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.windows: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])

    def take(self, change: LevelChange) -> None:
        if change.removed and change.rank < self.depth:
            window = self.windows[-(-change.ts_ns // WINDOW_NS)]
            for i, lots in enumerate((change.removed, change.cancelled, 1)):
                window[i] += lots

    def rate(self, window: int) -> tuple[float, int]:
        removed, cancelled, count = self.windows[window]
        return (float(Fraction(cancelled, removed)) if removed else 0.0), count


def bitstamp_changes(path: Path, features: FeatureBook) -> Iterator[tuple[int, list[LevelChange]]]:
    """Yield what the log's events do; the levels before it are known where it names their orders."""
    with lzma.open(path) as lines:
        log = [one for line in lines if b" order_book " not in line for one in [bitstamp.decode(line)] if isinstance(one, OrderEvent)]
    book = OrderBook(takers_shown=True)
    begun = {one.order_id for one in log if one.kind is ADD}
    for one in log:
        if one.order_id not in begun and one.size:
            begun.add(one.order_id)
            for change in book.apply(event(ADD, one.order_id, one.side, one.price, one.size)):
                features.order(log[0].ts_ns, change.key, change.new, 0)
    features.start(log[0].ts_ns)
    for one in log:
        yield one.ts_ns, book.apply(one)


def lobster_changes(folder: Path, features: FeatureBook) -> Iterator[tuple[int, list[LevelChange]]]:
    """Yield what the day's messages do; before each, the features are shown the touch of the row before, and nothing else."""
    book = OrderBook(partial=True)
    name = "lobster_AMZN_2012-06-21"
    started = False
    with gzip.open(folder / f"{name}_message_1.csv.gz") as messages, gzip.open(folder / f"{name}_orderbook_1.csv.gz") as rows:
        for message, row in zip(messages, rows, strict=True):
            one, levels = lobster.decode(message, 0), lobster.levels(row)
            if one is None or levels is None:
                continue
            if not started:
                features.start(one.ts_ns)
            started = True
            yield one.ts_ns, book.apply(one)
            for side, price, _ in levels:
                while (best := book.levels(side, 1)) and side * (best[0][0] - price) > 0:
                    book.set_level(one.ts_ns, side, best[0][0], 0)
            for side, price, size in levels:
                book.set_level(one.ts_ns, side, price, size)
            features.clear()
            for side, price, size in levels:
                features.order(one.ts_ns, side * price, size, 0)


@pytest.mark.parametrize(("venue", "depth"), [("bitstamp", 5), ("lobster", 1)])
def test_the_features_say_the_exact_cancel_rate_of_a_recording(venue: str, depth: int, data: Path) -> None:
    tally = Tally(depth)
    if venue == "bitstamp":
        features = FeatureBook(bitstamp.TICK, bitstamp.LOT, None)
        changes = bitstamp_changes(data / "l3" / "bitstamp_BTCUSD_20150501.log.xz", features)
    else:
        features = FeatureBook(lobster.TICK, lobster.LOT, None)
        changes = lobster_changes(data / "l3", features)
    rate, count = FEATURES.index("cancel_rate"), FEATURES.index("cancel_n")
    found: dict[int, tuple[float, float]] = {}
    window = 0
    for ts_ns, some in changes:
        if window and ts_ns > window * WINDOW_NS:
            row = features.features(window * WINDOW_NS)
            found[window] = (float(row[rate]), float(row[count]))
        window = -(-ts_ns // WINDOW_NS)
        for change in some:
            tally.take(change)
            features.order(ts_ns, change.key, change.new, change.executed)
    known = {one: values for one, values in found.items() if not np.isnan(values[0])}
    assert len(known) > 3_000
    assert known == {one: tally.rate(one) for one in known}
    assert sum(1 for value, _ in known.values() if 0 < value < 1) > 100
