"""LOBSTER's two files: each form of line, what is refused, and a whole day against its own levels."""

import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.events import FrameError
from alphapack.models.orders import ASK, BID, OrderBook, OrderEvent, OrderKind
from alphapack.venues import lobster

MIDNIGHT_NS = 1_340_251_200 * 10**9
DAY = "lobster_AMZN_2012-06-21"


def test_each_type_of_message_is_read() -> None:
    for kind, wanted in zip(b"12345", OrderKind, strict=True):
        line = b"34200.18961,%c,11885113,21,2238100,-1\r\n" % kind
        assert lobster.decode(line, MIDNIGHT_NS) == OrderEvent(MIDNIGHT_NS + 34_200_189_610_000, wanted, 11885113, ASK, 2238100, 21)


def test_times_are_read_to_the_nanosecond_and_both_line_ends_are() -> None:
    for end in (b"", b"\n", b"\r\n"):
        event = lobster.decode(b"34200.017459617,1,7,18,5853300,1" + end, 0)
        assert event is not None
        assert (event.ts_ns, event.side) == (34_200_017_459_617, BID)
    event = lobster.decode(b"34200,1,7,18,5853300,1", 5)
    assert event is not None and event.ts_ns == 34_200 * 10**9 + 5


@pytest.mark.parametrize(
    "line",
    [b"Time,Type,OrderId,Size,Price,Direction\r\n", b"57600.1,6,0,500,2206300,1\n", b"34713.68,7,0,0,-1,-1\n", b"34713.68,7,0,0,0,-1\n"],
)
def test_headers_auctions_and_halts_are_of_no_order(line: bytes) -> None:
    assert lobster.decode(line, 0) is None


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"34200.1,8,7,18,5853300,1", b"34200.1,1,7,18,5853300", b"34200.1,1,7,18,5853300,0", b"34200.1,1,7,0,5853300,1",
        b"34200.1,1,7,18,0,1", b"34200.1,1,7,18,-5853300,1", b"34200.1,1,7,1e3,5853300,1", b"nan,1,7,18,5853300,1",
        b"34200.1234567891,1,7,18,5853300,1", b"34200.1,1,7,18,5853300,1\n\n", b"34200.1,1,\xd9\xa7,18,5853300,1",
    ],
)  # fmt: skip
def test_other_lines_are_refused(line: bytes) -> None:
    with pytest.raises(FrameError, match="expected"):
        lobster.decode(line, 0)


def test_levels_are_read_and_empty_ones_left_out() -> None:
    assert lobster.levels(b"2239500,100,2231800,100\r\n") == [(ASK, 2239500, 100), (BID, 2231800, 100)]
    two = b"2239500,100,2231800,100,9999999999,0,2231700,40\n"
    assert lobster.levels(two) == [(ASK, 2239500, 100), (BID, 2231800, 100), (BID, 2231700, 40)]
    assert lobster.levels(b"9999999999,0,-9999999999,0") == []
    assert lobster.levels(b"BestAsk,BestAskVolume,BestBid,BestBidVolume\r\n") is None


@pytest.mark.parametrize("line", [b"", b"1,2,3", b"1,2,3,4,5,6", b"1,2,3,x", b"1,2,3,-4", b"1,0,3,4", b"-1,2,3,4"])
def test_other_levels_are_refused(line: bytes) -> None:
    with pytest.raises(FrameError, match="expected"):
        lobster.levels(line)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_event_nothing_or_one_line_of_complaint(line: bytes) -> None:
    for read in (lambda: lobster.decode(line, 0), lambda: lobster.levels(line)):
        try:
            read()
        except FrameError as error:
            assert "\n" not in str(error)


def test_a_whole_day_gives_its_own_levels_and_its_exact_cancels(data: Path) -> None:
    """Each event is applied to the touch of the row before; the row after then agrees, or its level was behind an emptied one."""
    book, kinds, sizes, agreed, unchanged = OrderBook(partial=True), Counter(), Counter(), Counter(), Counter()
    before: dict[int, tuple[int, int]] = {}
    removed = cancelled = 0
    with gzip.open(data / "l3" / f"{DAY}_message_1.csv.gz") as messages, gzip.open(data / "l3" / f"{DAY}_orderbook_1.csv.gz") as rows:
        for message, row in zip(messages, rows, strict=True):
            event, levels = lobster.decode(message, MIDNIGHT_NS), lobster.levels(row)
            if event is None or levels is None:
                continue
            kinds[event.kind] += 1
            sizes[event.kind] += event.size
            changes = book.apply(event)
            assert len(changes) == (event.kind is not OrderKind.EXECUTE_HIDDEN)
            assert all(change.rank == 0 for change in changes)
            removed += sum(change.removed for change in changes)
            cancelled += sum(change.cancelled for change in changes)
            touch = {side: (price, size) for side, price, size in levels}
            same = all(book.levels(side, 1) == [touch[side]] for side in touch)
            agreed["equal" if same else "emptied" if changes and changes[0].new == 0 else "first" if not before else "other"] += 1
            if before and event.side == BID and touch[BID][0] == before[BID][0] and event.kind is not OrderKind.EXECUTE_HIDDEN:
                by = touch[BID][1] - before[BID][1]
                unchanged[event.kind, by == (event.size if event.kind is OrderKind.ADD else -event.size)] += 1
            before = touch
            for side, (price, _) in touch.items():
                while (best := book.levels(side, 1)) and side * (best[0][0] - price) > 0:
                    book.set_level(event.ts_ns, side, best[0][0], 0)
            for side, (price, size) in touch.items():
                book.set_level(event.ts_ns, side, price, size)
    assert [kinds[kind] for kind in OrderKind] == [27_845, 16, 18_235, 8_974, 2_445]
    assert sizes[OrderKind.ADD] == 2_670_322
    assert sizes[OrderKind.REDUCE] + sizes[OrderKind.DELETE] == cancelled == 1_667_509
    assert sizes[OrderKind.EXECUTE] == removed - cancelled == 613_248
    assert agreed == {"equal": 49_347, "emptied": 8_167, "first": 1}
    assert unchanged[OrderKind.ADD, True] == 6_383
    assert unchanged[OrderKind.REDUCE, True] + unchanged[OrderKind.DELETE, True] == 4_105
    assert not any(unchanged[kind, False] for kind in OrderKind)
    assert (book.unknown, book.early) == (0, 0)
