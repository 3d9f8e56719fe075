"""Bitstamp's raw order log: each kind of line, what is refused, and five hours against the venue's own lists of levels."""

import json
import lzma
import statistics
from collections import Counter, deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.events import FrameError
from alphapack.models.orders import ASK, BID, OrderBook, OrderEvent, OrderKind
from alphapack.venues import bitstamp
from alphapack.venues.bitstamp import Levels, Print

MS = 1_430_438_404_518
NS = MS * 10**6
ORDER = {"price": "236.47", "amount": "2.00000000", "datetime": "1430438404", "id": 65595247, "order_type": 0}


def line(channel: str, body: object = None, **fields: object) -> bytes:
    message = body if body is not None else {**ORDER, **fields}
    return f"{MS} {channel} {json.dumps(message)}\n".encode()


def test_each_kind_of_line_is_read() -> None:
    whole = 2 * 10**8
    for read, wanted in (
        (line("order_created"), OrderEvent(NS, OrderKind.ADD, 65595247, BID, 23647, whole)),
        (line("order_created", order_type=1), OrderEvent(NS, OrderKind.ADD, 65595247, ASK, 23647, whole)),
        (line("order_changed", amount="1.78855669"), OrderEvent(NS, OrderKind.EXECUTE, 65595247, BID, 23647, 178855669, True)),
        (line("order_deleted"), OrderEvent(NS, OrderKind.DELETE, 65595247, BID, 23647, whole)),
        (line("order_deleted", amount="0.00000000"), OrderEvent(NS, OrderKind.EXECUTE, 65595247, BID, 23647, 0, True)),
        (line("trade", {"price": 236.61000000000001, "amount": 8.8351857299999992, "id": 8111043}), Print(NS, 8111043, 23661, 883518573)),
        (line("order_book", {"bids": [["236.47", "1.5"]], "asks": []}), Levels(NS, [(23647, 150000000)], [])),
    ):
        assert bitstamp.decode(read) == wanted


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"\n", b"x order_created {}", b"-5 order_created {}", line("order_created")[13:],
        b"99999999999999" + line("order_created")[13:], line("order_gone"), line("order_created", order_type=2),
        line("order_created", price="236.471"), line("order_created", price="nan"),
        line("order_created", price="-1.00"), line("order_created", amount="0.000000001"), line("order_created", amount=None),
        line("order_created", id="x"), line("order_created", [1, 2]), line("trade", {"price": 236.61, "amount": 0, "id": 1}),
        line("trade", {"price": -1, "amount": 1, "id": 1}), line("trade", {"price": 1e300, "amount": 1, "id": 1}),
        line("order_book", {"bids": [["0", "1"]], "asks": []}), line("order_book", {"bids": [["236.471", "1"]], "asks": []}),
        line("order_book", {"bids": [["236.47", "1"]] * 1_001, "asks": []}), line("order_book", {"bids": []}),
        f"{MS} order_created {'[' * 10_000}".encode(), f"{MS} trade \xff".encode("latin-1"),
    ],
)  # fmt: skip
def test_other_lines_are_refused(bad: bytes) -> None:
    with pytest.raises(FrameError, match="expected"):
        bitstamp.decode(bad)


@given(st.sampled_from(["order_created", "trade", "order_book", ""]), st.binary(max_size=60))
def test_any_bytes_are_an_event_or_a_complaint(channel: str, body: bytes) -> None:
    try:
        bitstamp.decode(f"{MS} {channel} ".encode() + body)
    except FrameError as error:
        assert str(error).startswith("expected")


@pytest.fixture(scope="module")
def log(data: Path) -> list[OrderEvent | Print | Levels]:
    with lzma.open(data / "l3" / "bitstamp_BTCUSD_20150501.log.xz") as lines:
        return [bitstamp.decode(one) for one in lines]


def test_the_recorded_log_holds_what_is_known_of_it(log: list[OrderEvent | Print | Levels]) -> None:
    kinds = Counter(one.kind if isinstance(one, OrderEvent) else type(one) for one in log)
    events = [one for one in log if isinstance(one, OrderEvent)]
    created = {one.order_id: one.ts_ns for one in events if one.kind is OrderKind.ADD}
    changed = [one for one in events if one.kind is OrderKind.EXECUTE and one.size]
    assert (len(created), kinds[OrderKind.ADD], len(changed), kinds[Print], kinds[Levels]) == (24_894, 24_894, 602, 575, 5_011)
    assert kinds[OrderKind.DELETE] + kinds[OrderKind.EXECUTE] - len(changed) == 24_918
    begun: set[int] = set()
    lives_s: dict[int, float] = {}
    filled = 0
    for one in events:
        if one.kind is OrderKind.ADD:
            begun.add(one.order_id)
        elif one.order_id in begun and one.kind is OrderKind.DELETE:
            lives_s.setdefault(one.order_id, (one.ts_ns - created[one.order_id]) / 1e9)
        elif one.order_id in begun and one.size == 0:
            filled += 1
    assert (len(lives_s), filled) == (24_153, 557)
    assert statistics.median(lives_s.values()) == pytest.approx(9.0, abs=0.05)


def test_events_of_orders_that_no_book_holds_are_counted(log: list[OrderEvent | Print | Levels]) -> None:
    book = OrderBook(takers_shown=True)
    for one in log:
        if isinstance(one, OrderEvent):
            book.apply(one)
    assert (book.unknown, book.early) == (213, 5)


def test_with_the_orders_from_before_it_the_log_gives_the_venues_own_lists_of_levels(log: list[OrderEvent | Print | Levels]) -> None:
    """A list lags the events, so it is looked for among the tops of the five seconds before it."""
    book, found, prints = OrderBook(takers_shown=True), Counter(), Counter()
    events = [one for one in log if isinstance(one, OrderEvent)]
    begun = {one.order_id for one in events if one.kind is OrderKind.ADD}
    for i, one in enumerate(log):
        if isinstance(one, OrderEvent) and one.order_id not in begun:  # Its size is what it ended with, or what was traded then.
            begun.add(one.order_id)
            size = one.size
            if one.kind is OrderKind.EXECUTE:
                size += next(other.size for other in log[i:] if isinstance(other, Print) and other.price == one.price)
            assert book.apply(OrderEvent(log[0].ts_ns, OrderKind.ADD, one.order_id, one.side, one.price, size))
    tops: deque[tuple[int, list[tuple[int, int]], list[tuple[int, int]]]] = deque()
    executed: deque[tuple[int, int, int]] = deque()
    for one in log:
        if isinstance(one, OrderEvent):
            changes = book.apply(one)
            assert all(change.rank == 0 for change in changes if change.executed)
            executed += [(one.ts_ns, abs(change.key), change.executed) for change in changes if change.executed]
            tops.append((one.ts_ns, book.levels(BID, 5), book.levels(ASK, 5)))
            while tops[0][0] < one.ts_ns - 5 * 10**9:
                tops.popleft()
        elif isinstance(one, Levels):
            found["best"] += any(bids[:1] == one.bids[:1] and asks[:1] == one.asks[:1] for _, bids, asks in tops)
            found["five"] += any(bids == one.bids[:5] and asks == one.asks[:5] for _, bids, asks in tops)
    assert found == {"best": 5_007, "five": 4_972}
    assert len(executed) == 629
    for one in log:
        if isinstance(one, Print):
            pair = next((fall for fall in executed if fall[1:] == (one.price, one.size) and abs(fall[0] - one.ts_ns) < 3 * 10**9), None)
            prints["paired" if pair else "alone"] += 1
            if pair:
                executed.remove(pair)
    assert prints == {"paired": 575}
    assert (book.unknown, book.early) == (27, 5)
