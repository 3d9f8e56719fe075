"""What one call a frame takes, what it declines with nothing changed, and that both ways end in the same state."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alphapack.domain.market import Step
from alphapack.jit import address
from alphapack.kernels import flow, frames, wire
from alphapack.kernels import marks as m
from alphapack.models.book import CONTRADICTED, DECLINED, FEATURES, QUIET, TAKEN, FeatureBook

NOW_NS = 1_723_161_300 * m.NS_PER_S
E_MS = NOW_NS // 1_000_000 - 250

Frame = bytes


BID = b'["100.00","1.500"]'


def depth(first: int, last: int, bids: bytes = BID, asks: bytes = b"", *, previous: int | None = None, time: int = E_MS) -> Frame:
    pu = b"" if previous is None else b'"pu":%d,' % previous
    return b'{"e":"depthUpdate","E":%d,"s":"BTCUSDT","U":%d,"u":%d,%b"b":[%b],"a":[%b]}' % (time, first, last, pu, bids, asks)


def trade(number: int, price: bytes = b"100.00", quantity: bytes = b"0.500", *, maker: bytes = b"true", time: int = E_MS) -> Frame:
    return b'{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,"p":"%b","q":"%b","T":%d,"m":%b}' % (time, number, price, quantity, time, maker)


def aggregate(number: int, first: int, last: int) -> Frame:
    ids = (number, first, last)
    return b'{"e":"aggTrade","E":%d,"s":"BTCUSDT","a":%d,"p":"100.00","q":"0.500","f":%d,"l":%d,"T":%d,"m":true}' % (E_MS, *ids, E_MS)


def ticker(update: int, bid: bytes = b"100.00", bid_quantity: bytes = b"2.000") -> Frame:
    said = (update, bid, bid_quantity, E_MS)
    return b'{"e":"bookTicker","u":%d,"s":"BTCUSDT","b":"%b","B":"%b","a":"101.00","A":"1.000","E":%d}' % said


def opened(frame_format: int = wire.BINANCE_SPOT, contract: float | None = None) -> FeatureBook:
    """Return a LIVE book at update 10 after trade 5 and aggregate 70."""
    one = FeatureBook(Step(1, 2), Step(1, 3), contract)
    one.listen("BTCUSDT", frame_format)
    one.snapshot(b'[["100.00","2"],["99.00","3"]]', b'[["101.00","1"],["102.00","5"]]')
    one.start(NOW_NS - 40 * m.NS_PER_S)
    one.last_update, one.live = 10, True
    one.trade_id, one.aggregate_id = 5, 70
    one.features(NOW_NS)
    return one


def futures() -> FeatureBook:
    return opened(wire.BINANCE_FUTURES)


def aggregated() -> FeatureBook:
    """Return one that has not seen an aggregate yet."""
    one = opened()
    one.aggregate_id = -1
    return one


def plain() -> FeatureBook:
    one = opened()
    one.plain_trades = True
    return one


def asleep() -> FeatureBook:
    one = opened()
    one.live = False
    return one


def nameless() -> FeatureBook:
    one = opened()
    one.listen("ETHUSDT", wire.BINANCE_SPOT)
    return one


def unknown() -> FeatureBook:
    return opened(wire.NO_FORMAT)


DECLINED_FRAMES: list[tuple[str, Callable[[], FeatureBook], Frame]] = [
    ("not proven", asleep, depth(11, 12)),
    ("not proven", asleep, trade(6)),
    ("not proven", asleep, ticker(10)),
    ("another name", nameless, depth(11, 12)),
    ("no format", unknown, depth(11, 12, previous=10)),
    ("a gap", opened, depth(12, 13)),
    ("seen before", opened, depth(9, 10)),
    ("ids out of order", opened, depth(12, 11)),
    ("a gap", futures, depth(11, 12, previous=9)),
    ("a gap", futures, depth(11, 12, previous=11)),
    ("no previous", futures, depth(11, 12)),
    ("seen before", futures, depth(9, 10, previous=10)),
    ("a time of no clock", opened, depth(11, 12, time=10**13)),
    ("a time of no clock", opened, depth(11, 12, time=4 * 10**15)),
    ("off the grid", opened, depth(11, 12, b'["100.005","1.500"]')),
    ("off the grid", opened, depth(11, 12, b'["100.00","1.5005"]')),
    ("a price of zero", opened, depth(11, 12, b'["0.00","1.500"]')),
    ("a negative size", opened, depth(11, 12, b'["100.00","-1"]')),
    ("no list", opened, depth(11, 12).replace(b"[[", b"[")),
    ("no asks", opened, depth(11, 12).replace(b',"a":[]', b',"X":"no asks"')),
    ("no ids", opened, depth(11, 12).replace(b'"U":11,"u":12,', b'"X":"no ids",')),
    ("seen before", opened, trade(5)),
    ("an absurd id", opened, trade(6 + frames.TRADE_ID_JUMP_MAX)),
    ("a trade that was missed", opened, trade(7)),
    ("an aggregate that was missed", opened, aggregate(72, 7, 9)),
    ("an aggregate that was missed", opened, aggregate(72, 6, 9)),
    ("no id", opened, aggregate(71, 6, 9).replace(b'"a":71,', b"")),
    ("no id", opened, aggregate(71, 6, 9).replace(b'"a":71,', b'"a":true,')),
    ("no id", aggregated, aggregate(0, 6, 9).replace(b'"a":0,', b'"a":[],')),
    ("no id", aggregated, aggregate(0, 6, 9).replace(b'"a":0,', b'"a":"1.00",')),
    ("an absurd id", opened, aggregate(71, 6, 6 + frames.TRADE_ID_JUMP_MAX)),
    ("no id", opened, trade(6).replace(b'"t":6,', b"")),
    ("no maker", opened, trade(6).replace(b'"m":true', b'"M":true')),
    ("nothing traded", opened, trade(6, quantity=b"0.000")),
    ("a price of zero", opened, trade(6, price=b"0.00")),
    ("off the grid", opened, trade(6, price=b"100.001")),
    ("off the grid", opened, trade(6, quantity=b"0.0001")),
    ("a time of no clock", opened, trade(6, time=10**13)),
    ("aggregates say nothing new", plain, aggregate(71, 6, 7)),
    ("seen before", opened, aggregate(70, 4, 5)),
    ("seen before", opened, aggregate(70, 6, 6)),
    ("seen before", opened, aggregate(71, 4, 5)),
    ("ids out of order", opened, aggregate(71, 8, 7)),
    ("off the grid", opened, ticker(10, bid=b"100.005")),
    ("no price", opened, ticker(10).replace(b'"b":"100.00",', b"")),
    ("a price without quotes", opened, ticker(10).replace(b'"b":"100.00"', b'"b":100')),
    ("an ask that is no price", opened, ticker(10).replace(b'"a":"101.00"', b'"a":true')),
    ("a list for a price", opened, ticker(10).replace(b'"b":"100.00"', b'"b":[]')),
    ("no update", opened, ticker(10).replace(b'"u":10,', b"")),
    ("another kind", opened, depth(11, 12).replace(b"depthUpdate", b"depthUpdatf")),
    ("garbage", opened, b"x" * 100),
    ("garbage", opened, b"}" * 100),
    ("nothing", opened, b""),
    ("too short", opened, b"{}"),
]


@pytest.mark.parametrize(("why", "make", "raw"), DECLINED_FRAMES)
def test_what_is_declined_changes_nothing(why: str, make: Callable[[], FeatureBook], raw: Frame) -> None:
    for text in (raw, b'{"stream":"btcusdt@some","data":%b}' % raw):
        one = make()
        before, row = one.save(), one.row.tobytes()
        assert one.frame(NOW_NS, text) == DECLINED, why
        assert (one.save(), one.row.tobytes()) == (before, row)


def test_a_volume_beyond_counting_is_declined_with_no_more_than_time_passed() -> None:
    one, other = opened(), opened()
    for number in range(6, 6 + 2_000):
        status = one.frame(NOW_NS, trade(number, quantity=b"1000000000000.000"))
        if status == DECLINED:
            break
        assert other.frame(NOW_NS, trade(number, quantity=b"1000000000000.000")) == TAKEN
    coins = FeatureBook(Step(1, 2), Step(1, 0), 10.0)
    coins.listen("BTCUSDT", wire.BINANCE_SPOT)
    coins.snapshot(b'[["100.00","2"]]', b'[["101.00","1"]]')
    coins.start(NOW_NS)
    coins.last_update, coins.live = 10, True
    before = coins.save()
    assert coins.frame(NOW_NS, trade(6, price=b"0.01", quantity=b"4503599627370496")) == DECLINED
    assert coins.save() == before
    assert one.save() == other.save()


TAKEN_FRAMES: list[tuple[Callable[[], FeatureBook], Frame, int]] = [
    (opened, depth(11, 12), TAKEN),
    (opened, depth(3, 12), TAKEN),
    (opened, depth(11, 11, b"", b"").replace(b',"a":[]', b',"a":[],"Z":"room for the name to be read"'), TAKEN),
    (futures, depth(11, 12, previous=10), TAKEN),
    (futures, depth(900, 900, previous=10), TAKEN),
    (opened, depth(11, 12, time=E_MS * 1_000), TAKEN),
    (opened, depth(11, 12, b'["90.00","1"],["100.00","0.000"]', b'["101.00","0"],["100.50","2"]'), TAKEN),
    (opened, trade(6), TAKEN),
    (opened, trade(6, maker=b"false"), TAKEN),
    (opened, aggregate(71, 6, 9), TAKEN),
    (opened, aggregate(71, 3, 9), TAKEN),
    (opened, aggregate(71, 8, 9), TAKEN),  # 6 and 7 are of a kind that is not aggregated.
    (aggregated, aggregate(500, 8, 9), TAKEN),
    (opened, ticker(10), QUIET),
    (opened, ticker(9, bid=b"1.00"), QUIET),
    (opened, ticker(12, bid=b"1.00"), QUIET),
    (opened, ticker(10, bid=b"99.00"), CONTRADICTED),
    (opened, ticker(10, bid_quantity=b"0.000"), CONTRADICTED),
    (opened, depth(11, 12, b'["101.00","1"]'), flow.CROSSED),
    (opened, depth(11, 12, b"", b'["99.50","1"]'), flow.CROSSED),
]


@pytest.mark.parametrize(("make", "raw", "status"), TAKEN_FRAMES)
def test_what_is_taken_says_so(make: Callable[[], FeatureBook], raw: Frame, status: int) -> None:
    one = make()
    before, row = one.save(), one.row.tobytes()
    assert one.frame(NOW_NS + 1, raw) == status
    assert one.save() != before
    if status == TAKEN:
        taken = one.row.tobytes()
        assert one.features(NOW_NS + 1).tobytes() == taken, "the row is as of the frame"
    elif status == QUIET:
        assert one.row.tobytes() == row
    else:
        assert one.fault(status)


def test_the_chain_goes_on_by_each_venues_rule() -> None:
    one = opened()
    for ids, status in (((11, 12), TAKEN), ((11, 13), TAKEN), ((14, 14), TAKEN), ((16, 16), DECLINED), ((15, 16), TAKEN)):
        assert one.frame(NOW_NS, depth(*ids)) == status
    assert one.last_update == 16
    one = futures()
    for first, last, previous, status in ((11, 12, 10, TAKEN), (5, 99, 12, TAKEN), (100, 101, 98, DECLINED), (100, 101, 99, TAKEN)):
        assert one.frame(NOW_NS, depth(first, last, previous=previous)) == status
    assert one.last_update == 101


def test_trades_are_one_stream_and_each_is_taken_once() -> None:
    one = opened()
    numbers = [
        aggregate(71, 6, 7),
        aggregate(71, 6, 7),
        aggregate(72, 8, 8),
        trade(8),
        trade(9),
        aggregate(73, 10, 10),
        trade(9),
        trade(10),
    ]
    assert [one.frame(NOW_NS, raw) for raw in numbers] == [TAKEN, DECLINED, TAKEN, DECLINED, TAKEN, DECLINED, DECLINED, TAKEN]
    assert (one.trade_id, one.aggregate_id, one.plain_trades, one.row[FEATURES.index("ti_n")]) == (10, 72, True, 4)


def test_tickers_that_came_before_their_update_are_held_against_it() -> None:
    one = opened()
    assert one.frame(NOW_NS, ticker(11, bid_quantity=b"1.500")) == QUIET
    assert one.frame(NOW_NS, ticker(12, bid_quantity=b"7.000")) == QUIET
    assert one.frame(NOW_NS, depth(11, 11)) == TAKEN and one.ticker_checked == 1
    assert one.frame(NOW_NS, depth(12, 12, b'["100.00","1.600"]')) == CONTRADICTED and one.ticker_checked == 2
    assert "at update 12" in one.fault(CONTRADICTED)


def test_times_and_counts_of_what_was_taken() -> None:
    one = opened()
    for raw in (depth(11, 12), depth(13, 13), aggregate(71, 6, 6), trade(7), ticker(13, bid_quantity=b"1.500")):
        assert one.frame(NOW_NS, raw) >= 0
    assert [one.seen(kind) for kind in (m.DEPTHS_SEEN, m.AGGREGATES_SEEN, m.TRADES_SEEN, m.TICKERS_SEEN)] == [2, 1, 1, 1]
    assert (one.depth_ns, one.lag_ns) == (NOW_NS, 250_000_000)
    late = depth(14, 14).replace(b'"E":%d,' % E_MS, b"")
    assert one.frame(NOW_NS + 9, late) == TAKEN
    assert (one.depth_ns, one.lag_ns) == (NOW_NS + 9, 250_000_000), "a message without a time says nothing of the lag"


def test_rooms_that_are_full_are_told_before_anything_changes() -> None:
    take: Any = frames.take
    one, update = opened(), 11
    while True:
        raw = depth(update, update, b",".join(b'["%d.%02d","1.000"]' % divmod(1 + 1_000 * (update - 11) + j, 100) for j in range(1_000)))
        before = one.save()
        status = take(NOW_NS, address(raw), 0, len(raw), one.marks, one.reals, one.levels)
        if status != TAKEN:
            break
        update += 1
    assert (status, update) == (wire.NO_ROOM, 11 + 8)
    assert one.save() == before
    assert one.frame(NOW_NS, raw) == TAKEN, "room is made, and the frame is taken once"
    assert len(one.side("bids", 99_999)) == 9_002

    one = opened()
    for number in range(6, 6 + 1_024):
        assert take(NOW_NS, address(trade(number)), 0, len(trade(number)), one.marks, one.reals, one.levels) == TAKEN
    before = one.save()
    raw = trade(6 + 1_024)
    assert take(NOW_NS, address(raw), 0, len(raw), one.marks, one.reals, one.levels) == flow.RING_FULL
    assert one.save() == before
    assert one.frame(NOW_NS, raw) == TAKEN and one.row[FEATURES.index("ti_n")] == 1_025


def test_a_book_that_may_grow_no_more_declines() -> None:
    one, update = opened(), 11
    one.snapshot(b"[]", b'[["9000000.00","1"]]')
    while True:
        raw = depth(update, update, b",".join(b'["%d.%02d","1"]' % divmod(1 + (update - 11) * 1_024 + j, 100) for j in range(1_024)))
        before = one.save()
        if one.frame(NOW_NS, raw) != TAKEN:
            break
        update += 1
    assert one.save() == before and update == 11 + 200_000 // 1_024
    with pytest.raises(ValueError, match="more than 200000 levels"):
        one.diff(NOW_NS, b"[" + raw.partition(b'"b":[')[2].partition(b'],"a"')[0] + b"]", b"[]")


# Many at once


def buffer(raws: list[Frame]) -> tuple[bytes, Any]:
    return b"".join(raws), np.cumsum([len(raw) for raw in raws])


def stream() -> list[Frame]:
    found = []
    for i in range(60):
        found.append(depth(11 + i, 11 + i, b'["%d.00","%d.000"]' % (95 + i % 6, i % 4), b'["%d.00","%d.000"]' % (101 + i % 5, (i + 1) % 3)))
        found.append(trade(6 + i, maker=b"true" if i % 2 else b"false"))
        found.append(ticker(500 + i))
    return found


def test_many_frames_in_one_call_are_one_frame_a_call() -> None:
    raws = stream()
    whole, single = opened(), opened()
    times = NOW_NS + 37_000_000 * np.arange(len(raws))
    rows, statuses = np.zeros((len(raws), len(FEATURES))), np.zeros(len(raws), np.int64)
    raw, ends = buffer(raws)
    assert whole.frames(times, raw, ends, rows, statuses) == len(raws)
    for ts_ns, one, row, status in zip(times.tolist(), raws, rows, statuses.tolist(), strict=True):
        assert single.frame(ts_ns, one) == status
        assert single.row.tobytes() == row.tobytes()
    assert whole.save() == single.save()
    assert set(statuses.tolist()) == {TAKEN, QUIET}


@pytest.mark.parametrize("at", [0, 1, 50])
@pytest.mark.parametrize(("bad", "status", "done"), [(trade(5), DECLINED, 0), (depth(11, 99, b'["200.00","1"]'), flow.CROSSED, 1)])
def test_many_frames_stop_before_what_is_declined_and_after_what_is_wrong(at: int, bad: Frame, status: int, done: int) -> None:
    raws = [raw for raw in stream() if b"depthUpdate" in raw][:at]
    raws += [bad.replace(b'"U":11', b'"U":%d' % (11 + at)), trade(6)]
    one, other = opened(), opened()
    rows, statuses = np.zeros((len(raws), len(FEATURES))), np.zeros(len(raws), np.int64)
    raw, ends = buffer(raws)
    assert one.frames(np.full(len(raws), NOW_NS), raw, ends, rows, statuses) == at + done
    assert statuses[at] == status
    assert [other.frame(NOW_NS, raw) for raw in raws[: at + done]] == statuses[: at + done].tolist()
    assert one.save() == other.save()
    assert not rows[at + done :].any()


def test_no_frames_are_nothing() -> None:
    one = opened()
    before = one.save()
    assert one.frames(np.zeros(0, np.int64), b"", np.zeros(0, np.int64), np.zeros((0, len(FEATURES)))) == 0
    assert one.save() == before
