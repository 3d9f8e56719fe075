"""The ring of recent records: what is told, when, and what a reader that was slow is told instead."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.engine.ports import LedgerRow, News
from alphapack.shell.news import NewsRing


def row(seq: int, ordinal: int = 0, body: bytes = b"{}") -> LedgerRow:
    return LedgerRow(seq, ordinal, seq * 1_000, "book_state", "sim:BTCUSDT", body)


def keys(rows: list[LedgerRow]) -> list[tuple[int, int]]:
    return [(one.seq, one.ordinal) for one in rows]


def test_nothing_is_told_before_it_is_durable() -> None:
    news = NewsRing()
    news.add([row(3), row(3, 1), row(5)])
    assert news.pending and news.page(0, 10) == ([], 0, 0) and news.latest == (0, 0)
    news.publish(4)
    assert keys(news.page(0, 10).rows) == [(3, 0), (3, 1)] and news.latest == (3, 1) and news.pending
    news.publish(5)
    assert keys(news.page(0, 10).rows) == [(3, 0), (3, 1), (5, 0)] and news.latest == (5, 0) and not news.pending


def test_pages_follow_each_other() -> None:
    ring = NewsRing()
    news: News = ring
    ring.add(row(seq) for seq in range(1, 8))
    ring.publish(7)
    cursor, seen = 0, []
    for _ in range(4):
        rows, cursor, missed = news.page(cursor, 3)
        seen += keys(rows)
        assert missed == 0 and len(rows) <= 3
    assert seen == [(seq, 0) for seq in range(1, 8)] and cursor == 7


def test_a_reader_that_was_slow_is_told_how_many_it_missed() -> None:
    news = NewsRing(rows_max=4)
    news.add(row(seq) for seq in range(1, 11))
    news.publish(10)
    rows, cursor, missed = news.page(2, 10)
    assert (keys(rows), cursor, missed) == ([(7, 0), (8, 0), (9, 0), (10, 0)], 10, 4)
    assert news.page(cursor, 10) == ([], 10, 0)


def test_a_key_is_found_while_what_followed_it_is_kept() -> None:
    news = NewsRing(rows_max=3)
    news.add([row(2), row(2, 1), row(4), row(9)])
    news.publish(9)
    assert news.cursor((2, 0)) == 1, "given up itself, but what followed it is all there"
    assert keys(news.page(1, 9).rows) == [(2, 1), (4, 0), (9, 0)]
    assert news.cursor((1, 0)) is None
    assert [news.cursor(key) for key in ((2, 1), (3, 7), (4, 0), (9, 0), (99, 0))] == [2, 2, 3, 4, 4]


def test_what_was_before_the_process_is_known_to_be_gone() -> None:
    news = NewsRing()
    assert (news.cursor((0, 0)), news.latest) == (0, (0, 0))
    news.follow((50, 2))
    assert news.latest == (50, 2)
    assert [news.cursor(key) for key in ((50, 1), (50, 2), (51, 0))] == [None, 0, 0]
    news.add([row(60)])
    with pytest.raises(AssertionError):
        news.follow((60, 0))


def test_bytes_are_bounded_too() -> None:
    news = NewsRing(rows_max=1_000, bytes_max=10_000)
    for seq in range(1, 101):
        news.add([row(seq, body=b"x" * 1_000)])
        assert news._end - news._first <= 9
    news.publish(100)
    assert keys(news.page(0, 1_000).rows)[-1] == (100, 0)
    news.add([row(101, body=b"x" * 50_000)])
    news.publish(101)
    assert keys(news.page(0, 1_000).rows) == [(101, 0)]


def test_what_is_given_up_before_it_is_durable_is_missed() -> None:
    news = NewsRing(rows_max=2)
    news.add(row(seq) for seq in range(1, 6))
    assert news.page(0, 9) == ([], 3, 3), "the disk refuses: the oldest went untold"
    news.publish(4)
    assert keys(news.page(3, 9).rows) == [(4, 0)]


def test_who_waits_is_woken_by_what_is_durable_and_by_nothing_else() -> None:
    async def main() -> None:
        news = NewsRing()
        waiting = [asyncio.create_task(news.beyond(cursor)) for cursor in (0, 1)]
        gone = asyncio.create_task(news.beyond(0))
        await asyncio.sleep(0)
        news.add([row(1), row(2)])
        for _ in range(3):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        news.publish(1)
        for _ in range(3):
            await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True, False]
        news.publish(2)
        await asyncio.wait_for(waiting[1], 5)
        await asyncio.wait_for(news.beyond(1), 5)
        assert news._waiting == set()

    asyncio.run(main())


@given(
    st.integers(1, 6),
    st.lists(st.one_of(st.tuples(st.just("add"), st.integers(1, 4)), st.tuples(st.just("publish"), st.integers(0, 3))), max_size=30),
    st.integers(1, 5),
)
def test_a_reader_sees_every_record_once_or_is_told_that_it_missed_it(rows_max: int, steps: list[tuple[str, int]], limit: int) -> None:
    news, seq, durable, cursor = NewsRing(rows_max=rows_max), 0, 0, 0
    seen: list[int] = []
    missed = 0
    for what, much in steps:
        if what == "add":
            news.add(row(seq + i) for i in range(1, much + 1))
            seq += much
        else:
            durable = min(seq, durable + much)
            news.publish(durable)
        page = news.page(cursor, limit)
        cursor, missed = page.cursor, missed + page.missed
        seen += [one.seq for one in page.rows]
        assert all(one.seq <= durable for one in page.rows)
    assert len(seen) + missed == cursor and seen == sorted(set(seen))
    assert news.page(cursor, limit).missed == 0
