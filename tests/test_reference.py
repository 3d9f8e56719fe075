"""The twin itself, on cases small enough to work out by hand."""

import json
import math
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import GRID_NS, MS, SECOND, Adjustment, Row, Twin, twin_of, twin_rows, units

T0 = 1_700_000_000 * SECOND
Levels = Sequence[tuple[str, str]]


def frame(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def snapshot(last: int, bids: Levels, asks: Levels) -> bytes:
    return frame(lastUpdateId=last, bids=bids, asks=asks)


def diff(first: int, last: int, bids: Levels = (), asks: Levels = (), previous: int | None = None, symbol: str = "X") -> bytes:
    fields: dict[str, Any] = {"e": "depthUpdate", "E": 1, "s": symbol, "U": first, "u": last, "b": bids, "a": asks}
    return frame(**fields, **({} if previous is None else {"pu": previous}))


def trade(trade_id: int, price: str, quantity: str, seller: bool, symbol: str = "X") -> bytes:
    return frame(e="trade", E=1, s=symbol, t=trade_id, p=price, q=quantity, T=1, m=seller)


def aggregate(first: int, last: int, price: str, quantity: str, seller: bool) -> bytes:
    return frame(e="aggTrade", E=1, s="X", a=1, f=first, l=last, p=price, q=quantity, T=1, m=seller)


def ticker(update: int, bid: tuple[str, str], ask: tuple[str, str]) -> bytes:
    return frame(u=update, s="X", b=bid[0], B=bid[1], a=ask[0], A=ask[1])


BIDS = [("100", "3"), ("99", "1"), ("98", "1"), ("97", "1"), ("96", "1"), ("95", "20")]
ASKS = [("101", "1"), ("102", "1"), ("103", "1"), ("104", "1"), ("105", "1"), ("106", "20")]


def live(ts_ns: int = T0, *, bids: Levels = BIDS, asks: Levels = ASKS, **options: Any) -> Twin:
    """Return a spot twin that is LIVE since ``ts_ns`` at update 11."""
    twin = Twin("binance-spot", "X", **options)
    assert twin.feed(ts_ns, snapshot(10, bids, asks)).state == "SYNCING"
    assert twin.feed(ts_ns, diff(11, 11)).state == "LIVE"
    return twin


def keep_alive(twin: Twin, ts_ns: int) -> Row:
    """Feed the next difference, which changes nothing."""
    assert twin.last is not None
    return twin.feed(ts_ns, diff(twin.last + 1, twin.last + 1))


# The chain.


def test_spot_drops_what_the_snapshot_holds_and_bridges_from_the_buffer() -> None:
    twin = Twin("binance-spot", "X")
    twin.feed(T0, diff(5, 8, bids=[("50", "9")]))
    twin.feed(T0, diff(9, 12, bids=[("100", "4")]))
    twin.feed(T0, diff(13, 14, bids=[("99", "0")]))
    row = twin.feed(T0 + MS, snapshot(10, BIDS, ASKS))
    assert (row.state, twin.dropped, twin.gaps, twin.last) == ("LIVE", 1, 0, 14)
    assert twin.levels("bid")[:2] == [(Fraction(100), Fraction(4)), (Fraction(98), Fraction(1))]
    assert (row.changes, row.removed) == (0, Fraction(0))


def test_spot_snapshot_older_than_the_buffer_stays_syncing_and_keeps_it() -> None:
    twin = Twin("binance-spot", "X")
    twin.feed(T0, diff(12, 13))
    assert twin.feed(T0, snapshot(10, BIDS, ASKS)).state == "SYNCING"
    assert twin.feed(T0, snapshot(11, BIDS, ASKS)).state == "LIVE"
    assert (twin.gaps, twin.last) == (0, 13)


@pytest.mark.parametrize(("first", "last", "state"), [(10, 11, "LIVE"), (11, 15, "LIVE"), (9, 10, "SYNCING"), (12, 15, "SYNCING")])
def test_spot_first_rule(first: int, last: int, state: str) -> None:
    twin = Twin("binance-spot", "X")
    twin.feed(T0, snapshot(10, BIDS, ASKS))
    assert twin.feed(T0, diff(first, last)).state == state
    assert twin.gaps == 0


@pytest.mark.parametrize(
    ("first", "last", "previous", "state"),
    [(8, 12, 7, "LIVE"), (8, 10, 7, "LIVE"), (12, 14, 10, "LIVE"), (8, 9, 7, "SYNCING"), (11, 14, 9, "SYNCING")],
)
def test_futures_first_rule(first: int, last: int, previous: int, state: str) -> None:
    twin = Twin("binance-usdm", "X")
    twin.feed(T0, snapshot(10, BIDS, ASKS))
    assert twin.feed(T0, diff(first, last, previous=previous)).state == state


def test_spot_duplicate_overlap_and_gap() -> None:
    twin = live()
    assert twin.feed(T0, diff(10, 11, bids=[("100", "9")])).bid == 100
    assert (twin.duplicates, twin.levels("bid")[0][1]) == (1, Fraction(3))
    assert twin.feed(T0, diff(9, 12, bids=[("100", "9")])).state == "LIVE"
    assert twin.levels("bid")[0][1] == 9
    row = twin.feed(T0, diff(14, 15, bids=[("100", "8")]))
    assert (row.state, row.bid, row.ti_n, twin.gaps, twin.levels("bid")) == ("SYNCING", None, None, 1, [])
    # The difference that revealed the gap is the first one of the next synchronisation.
    assert twin.feed(T0, snapshot(13, BIDS, ASKS)).state == "LIVE"
    assert (twin.last, twin.levels("bid")[0][1], twin.live_entries) == (15, Fraction(8), 2)


def test_futures_chain_links_on_the_previous_id_alone() -> None:
    twin = Twin("binance-usdm", "X")
    twin.feed(T0, snapshot(10, BIDS, ASKS))
    twin.feed(T0, diff(5, 20, previous=4))
    assert twin.feed(T0, diff(900, 950, previous=20)).state == "LIVE"
    assert twin.feed(T0, diff(951, 960, previous=949)).state == "SYNCING"
    assert twin.gaps == 1


def test_gap_inside_the_buffer() -> None:
    twin = Twin("binance-spot", "X")
    for first in (11, 13):
        twin.feed(T0, diff(first, first))
    assert twin.feed(T0, snapshot(10, BIDS, ASKS)).state == "SYNCING"
    assert (twin.gaps, [held.first for held in twin.buffer]) == (1, [13])


def test_crossed_book_is_given_up() -> None:
    twin = live()
    assert twin.feed(T0, diff(12, 12, bids=[("101", "1")])).state == "SYNCING"
    assert (twin.crossed, twin.buffer) == (1, [])
    assert twin.feed(T0, snapshot(20, [("5", "1")], [("5", "1")])).state == "SYNCING"
    assert twin.crossed == 2


def test_snapshot_while_live_is_ignored() -> None:
    twin = live()
    assert twin.feed(T0, snapshot(500, [("1", "1")], [("2", "1")])).bid == 100
    assert keep_alive(twin, T0).state == "LIVE"


def test_ticker_is_compared_whichever_comes_second_and_only_at_the_same_update() -> None:
    twin = live()
    twin.feed(T0, ticker(11, ("100.00", "3.0"), ("101", "1")))
    twin.feed(T0, ticker(13, ("100", "7"), ("101", "1")))
    twin.feed(T0, diff(12, 12))
    assert (twin.ticker_checked, twin.ticker_mismatched) == (1, 0)
    assert twin.feed(T0, diff(13, 13, bids=[("100", "7")])).state == "LIVE"
    assert (twin.ticker_checked, twin.ticker_mismatched) == (2, 0)
    assert twin.feed(T0, ticker(13, ("100", "6"), ("101", "1"))).state == "SYNCING"
    assert (twin.ticker_checked, twin.ticker_mismatched, twin.crossed) == (3, 1, 0)


# Staleness.


def test_stale_on_the_grid_frozen_and_live_again() -> None:
    start = T0 + 37 * MS
    twin = live(start)
    twin.feed(start + MS, trade(1, "101", "2", seller=False))
    due = T0 + 3_100 * MS
    assert twin.row(due - 1).state == "LIVE"
    stale = twin.feed(due, trade(2, "101", "2", seller=False))
    assert (stale.state, stale.bid, stale.ti_1s, stale.ti_n) == ("STALE", 100, 0, 1)
    assert twin.row(due + 60 * SECOND) == Row(**{**{n: getattr(stale, n) for n in Row.__slots__}, "ts_ns": due + 60 * SECOND})
    again = twin.feed(due + 61 * SECOND, diff(12, 12, bids=[("100", "1")]))
    assert (again.state, again.ti_n, again.ti_1s, again.changes, twin.live_entries) == ("LIVE", 0, None, 0, 2)
    assert twin.row(due + 62 * SECOND).ti_1s == 0


def test_nothing_from_before_crosses_into_a_new_live_entry() -> None:
    twin = Twin("binance-spot", "X", stale_after_ms=100)
    twin.feed(T0, snapshot(10, BIDS, ASKS))
    twin.feed(T0, diff(11, 11, bids=[("98", "0")]))
    twin.feed(T0 + MS, diff(12, 12, bids=[("99", "0.5")]))
    row = twin.feed(T0 + 2 * MS, trade(1, "100", "1", seller=True))
    assert (row.ti_n, row.changes, row.cancel_n) == (1, 1, 1)
    assert twin.row(T0 + 200 * MS).state == "STALE"
    row = twin.feed(T0 + 201 * MS, diff(13, 13))
    assert (row.state, row.ti_n, row.changes, row.cancel_n) == ("LIVE", 0, 0, 0)
    row = twin.feed(T0 + 202 * MS, diff(14, 14, bids=[("100", "2")]))
    assert (row.removed, row.unexplained) == (Fraction(1), Fraction(1))


def test_gap_while_stale_is_a_gap() -> None:
    twin = live()
    assert twin.row(T0 + 4 * SECOND).state == "STALE"
    assert twin.feed(T0 + 4 * SECOND, diff(20, 20)).state == "SYNCING"
    assert twin.gaps == 1


# The book's features.


def test_book_features_by_hand() -> None:
    row = live().row(T0)
    assert (row.bid, row.ask, row.mid) == (100, 101, 100.5)
    assert row.microprice == float(Fraction(100 * 1 + 101 * 3, 4))
    assert row.spread_bps == float(10_000 / Fraction(201, 2))
    assert (row.obi_1, row.obi, row.obi_10) == (0.5, 2 / 12, 2 / 52)
    assert (row.depth_bid, row.depth_ask) == (7, 5)
    assert (row.depth_bid_quote, row.depth_ask_quote) == (300 + 99 + 98 + 97 + 96, 101 + 102 + 103 + 104 + 105)


def test_one_side_empty() -> None:
    twin = live(asks=[("101", "1")])
    row = twin.feed(T0, diff(12, 12, asks=[("101", "0")]))
    assert row.state == "LIVE"
    assert (row.obi, row.mid, row.microprice, row.spread_bps, row.ask) == (None, None, None, None, None)
    assert (row.bid, row.depth_bid, row.depth_ask) == (100, 7, 0)


def test_inverse_sizes_are_base() -> None:
    twin = Twin("binance-coinm", "ETHUSD_PERP")
    twin.feed(T0, snapshot(10, [("2000", "3")], [("2500", "5")]))
    row = twin.feed(T0, diff(10, 10, previous=9, symbol="ETHUSD_PERP"))
    assert (row.depth_bid, row.depth_ask) == (0.015, 0.02)
    assert (row.depth_bid_quote, row.depth_ask_quote) == (30, 50)
    assert row.obi == float(Fraction(15 - 20, 35))
    row = twin.feed(T0, trade(1, "3000", "1", seller=True, symbol="ETHUSD_PERP"))
    assert row.sell_volume == Fraction(1, 300)
    assert Twin("binance-coinm", "BTCUSD_PERP").contract_value == 100


def test_rounding_of_inverse_volume_is_half_even() -> None:
    assert [round(Fraction(n, 2)) for n in (1, 3, 5)] == [0, 2, 2]


# Trades.


def test_trade_imbalance_windows() -> None:
    twin = live()
    twin.feed(T0 + 500 * MS, trade(1, "101", "3", seller=False))
    assert twin.row(T0 + SECOND - 1).ti_1s is None
    assert twin.row(T0 + SECOND).ti_1s == 1
    twin.feed(T0 + 1_400 * MS, trade(2, "100", "1", seller=True))
    assert twin.row(T0 + 1_500 * MS - 1).ti_1s == 0.5
    assert twin.row(T0 + 1_500 * MS).ti_1s == -1
    for second in (2, 3, 4, 5):
        keep_alive(twin, T0 + second * SECOND)
    row = twin.row(T0 + 5 * SECOND)
    assert (row.ti, row.ti_n, row.ti_30s, row.buy_volume, row.sell_volume) == (0.5, 2, None, Fraction(3), Fraction(1))
    assert (twin.row(T0 + 6_400 * MS).ti, twin.row(T0 + 6_400 * MS).ti_n) == (0, 0)


def test_one_trade_stream_without_duplicates() -> None:
    twin = live()
    twin.feed(T0, aggregate(5, 7, "101", "1", seller=False))
    twin.feed(T0, aggregate(5, 7, "101", "1", seller=False))
    assert twin.feed(T0, aggregate(8, 9, "101", "1", seller=False)).ti_n == 2
    assert twin.feed(T0, trade(9, "101", "1", seller=False)).ti_n == 2
    assert twin.feed(T0, trade(10, "101", "1", seller=False)).ti_n == 3
    assert twin.feed(T0, aggregate(11, 11, "101", "1", seller=False)).ti_n == 3
    assert twin.feed(T0, trade(11, "101", "1", seller=False)).ti_n == 4
    assert twin.trade_duplicates == 2


def test_ids_are_tracked_before_live() -> None:
    twin = Twin("binance-spot", "X")
    twin.feed(T0, trade(9, "101", "1", seller=False))
    twin.feed(T0, snapshot(10, BIDS, ASKS))
    twin.feed(T0, diff(11, 11))
    assert twin.feed(T0, trade(9, "101", "1", seller=False)).ti_n == 0
    assert twin.feed(T0, trade(10, "101", "1", seller=False)).ti_n == 1


# Cancels and queue.


def test_cancel_is_what_trades_do_not_explain() -> None:
    twin = live()
    twin.feed(T0 + 1, trade(1, "100", "1.25", seller=True))
    twin.feed(T0 + 2, trade(2, "100", "5", seller=False))
    row = twin.feed(T0 + 3, diff(12, 12, bids=[("100", "1")], asks=[("101", "0.5")]))
    assert (row.removed, row.unexplained, row.cancel_n, row.changes) == (Fraction("2.5"), Fraction("1.25"), 2, 2)
    assert row.cancel_rate is None
    row = twin.feed(T0 + 4, diff(13, 13, bids=[("100", "0.5")]))
    assert (row.removed, row.unexplained) == (Fraction(3), Fraction("1.75"))
    for second in (2, 4):
        keep_alive(twin, T0 + second * SECOND)
    row = twin.row(T0 + 5 * SECOND + 2)
    assert (row.cancel_rate, row.cancel_n, row.queue_rate) == (1.75 / 3, 3, 0.6)
    row = twin.row(T0 + 5 * SECOND + 4)
    assert (row.cancel_rate, row.cancel_n, row.queue_rate) == (0, 0, 0)


@pytest.mark.parametrize(("age_ms", "unexplained"), [(249, 0), (250, 1), (251, 1)])
def test_trades_are_held_for_250_ms(age_ms: int, unexplained: int) -> None:
    twin = live()
    twin.feed(T0 + MS, trade(1, "100", "2", seller=True))
    row = twin.feed(T0 + MS + age_ms * MS, diff(12, 12, bids=[("100", "2")]))
    assert (row.removed, row.unexplained) == (Fraction(1), Fraction(unexplained))


def test_any_change_of_a_level_uses_its_trades_up() -> None:
    twin = live()
    twin.feed(T0, trade(1, "100", "1", seller=True))
    twin.feed(T0, diff(12, 12, bids=[("100", "3.0")]))
    row = twin.feed(T0, diff(13, 13, bids=[("100", "4")]))
    assert (row.changes, row.cancel_n) == (1, 0)
    row = twin.feed(T0, diff(14, 14, bids=[("100", "3")]))
    assert (row.removed, row.unexplained) == (Fraction(1), Fraction(1))


def test_inside_is_judged_before_the_message() -> None:
    twin = live()
    # The fifth bid is 96 before the message, although 99.5 makes it the sixth within it; 95 is outside either way.
    row = twin.feed(T0, diff(12, 12, bids=[("99.5", "1"), ("96", "0"), ("95", "0"), ("10", "1")]))
    assert (row.changes, row.removed) == (2, Fraction(1))
    twin = live(bids=BIDS[:4])
    assert twin.feed(T0, diff(12, 12, bids=[("10", "1"), ("9", "1"), ("8", "1")])).changes == 3


# Micro-volatility.


def test_micro_vol_samples_the_previous_mid_on_the_epoch_grid() -> None:
    start = T0 + 50 * MS
    twin = live(start)
    twin.feed(start + 10 * MS, diff(12, 12, bids=[("100.4", "1")]))
    twin.feed(T0 + 300 * MS, diff(13, 13, bids=[("100.6", "1")]))
    twin.feed(T0 + 301 * MS, diff(14, 14, bids=[("100.8", "1")]))
    row = twin.row(start + SECOND)
    # The first instant after LIVE, T0 + 100 ms, has no mid 100 ms before it.
    log = [math.log(mid) for mid in (100.7, 100.8, 100.9)]
    assert row.micro_vol_1s == pytest.approx(math.hypot(log[1] - log[0], log[2] - log[1]), rel=1e-12)
    assert twin.row(T0 + 1_300 * MS - 1).micro_vol_1s == row.micro_vol_1s
    assert twin.row(T0 + 1_300 * MS).micro_vol_1s == pytest.approx(log[2] - log[1], rel=1e-9)
    assert twin.row(T0 + 1_400 * MS).micro_vol_1s == 0


def test_events_at_the_very_instant_count_for_it() -> None:
    twin = live()
    twin.feed(T0 + SECOND, diff(12, 12, bids=[("100.4", "1")]))
    row = twin.feed(T0 + SECOND, diff(13, 13, bids=[("100.6", "1")]))
    assert row.micro_vol_1s == pytest.approx(math.log(100.8 / 100.5), rel=1e-12)
    assert twin.row(T0 + SECOND + 1).micro_vol_1s == row.micro_vol_1s
    twin.feed(T0 + 1_100 * MS + 1, diff(14, 14, bids=[("100.8", "1")]))
    assert twin.row(T0 + 1_200 * MS - 1).micro_vol_1s == row.micro_vol_1s


# Order flow.


def test_order_flow_by_hand() -> None:
    twin = live()
    # Best bid 3 -> 5: +2. Best ask gone: all five asks are one place dearer, each loses its old size of 1: -(-5). Best level: 2 + 1.
    twin.feed(T0 + 100 * MS, diff(12, 12, bids=[("100", "5")], asks=[("101", "0")]))
    # A new best bid: five places are dearer and bring their new sizes: 4 + 5 + 1 + 1 + 1. Best level: 4.
    row = twin.feed(T0 + 200 * MS, diff(13, 13, bids=[("100.5", "4")]))
    assert (row.ofi, row.ofi_1) == (None, None)
    assert twin.row(T0 + SECOND - 1).ofi is None
    # Depth is now 4 + 5 + 1 + 1 + 1 = 12 bids and 1 + 1 + 1 + 1 + 20 = 24 asks: 18 a side.
    row = twin.row(T0 + SECOND)
    assert (row.ofi, row.ofi_1) == (19 / 5 / 18, 3 + 4)
    row = twin.row(T0 + 1_100 * MS)
    assert (row.ofi, row.ofi_1) == (12 / 5 / 18, 4)
    row = twin.row(T0 + 1_200 * MS)
    assert (row.ofi, row.ofi_1) == (0, 0)


@pytest.mark.parametrize(
    ("bids", "asks", "total", "best"),
    [
        ([("100", "1")], [], -2, -2),  # 3 -> 1.
        ([("100", "0")], [], -3 - 1 - 1 - 1 - 1, -3),  # All five bids are cheaper: their old sizes.
        ([], [("100.5", "2")], -(2 + 1 + 1 + 1 + 1), -2),  # All five asks are cheaper: their new sizes.
        ([("98", "4")], [("103", "3")], 3 - 2, 0),  # Places 3 alone.
        ([("96", "0")], [], -1, 0),  # 95 is in its place, cheaper: the old size.
        ([("95", "1")], [("106", "1")], 0, 0),  # Sixth places.
        ([("100", "3.0")], [], 0, 0),  # Nothing changed.
    ],
)
def test_order_flow_of_one_message(bids: Levels, asks: Levels, total: int, best: int) -> None:
    twin = live()
    twin.feed(T0 + SECOND, diff(12, 12, bids=bids, asks=asks))
    row = twin.row(T0 + SECOND)
    assert row.ofi is not None and row.depth_bid is not None and row.depth_ask is not None
    assert row.ofi == pytest.approx(total / 5 / ((row.depth_bid + row.depth_ask) / 2), rel=1e-15)
    assert row.ofi_1 == best


def test_an_absent_level_has_the_worst_price_and_no_size() -> None:
    twin = live(bids=[("100", "3")], asks=[("101", "1")])
    # Bid place 2 appears: +7. Ask place 1 goes: its price rises: -(-1).
    row = twin.feed(T0 + SECOND, diff(12, 12, bids=[("99", "7")], asks=[("101", "0")]))
    assert (row.ofi, row.ofi_1) == (8 / 5 / (10 / 2), 1)
    # Both sides go: -3 - 7. Nothing is left to measure the flow by.
    row = twin.feed(T0 + SECOND, diff(13, 13, bids=[("100", "0"), ("99", "0")]))
    assert (row.ofi, row.ofi_1) == (None, 1 - 3)


def test_order_flow_begins_with_the_book_that_went_live() -> None:
    twin = Twin("binance-spot", "X")
    twin.feed(T0, diff(11, 11, bids=[("100", "9")]))
    twin.feed(T0, diff(12, 12, bids=[("100", "8")]))
    assert twin.feed(T0, snapshot(10, BIDS, ASKS)).state == "LIVE"
    assert twin.row(T0 + SECOND - 1).ofi_1 is None
    twin.feed(T0 + SECOND - 1, diff(13, 13, bids=[("100", "6")]))
    assert twin.row(T0 + SECOND).ofi_1 == -2
    # Silent for long: STALE. The difference that shows it LIVE again is dropped too.
    assert twin.row(T0 + 5 * SECOND).state == "STALE"
    twin.feed(T0 + 5 * SECOND, diff(14, 14, bids=[("100", "1")]))
    assert twin.row(T0 + 6 * SECOND).ofi_1 == 0
    twin.feed(T0 + 6 * SECOND, diff(15, 15, bids=[("100", "2")]))
    assert twin.row(T0 + 6 * SECOND).ofi_1 == 1


def test_inverse_order_flow_is_in_coins_at_each_level_s_own_price() -> None:
    twin = Twin("binance-coinm", "ETHUSD_PERP")
    twin.feed(T0, snapshot(10, [("2000", "3")], [("2500", "5")]))
    twin.feed(T0, diff(10, 10, previous=9, symbol="ETHUSD_PERP"))
    # Contracts of 10. Bid: 2 x 10 / 2000 = 0.01 more. Ask: 6 x 10 / 2400 = 0.025 now best, 5 x 10 / 2500 = 0.02 now second.
    changed = diff(11, 11, bids=[("2000", "5")], asks=[("2400", "6")], previous=10, symbol="ETHUSD_PERP")
    row = twin.feed(T0 + SECOND, changed)
    # Depth 0.025 and 0.045: 0.035 a side. (0.01 - 0.045) / 5 / 0.035.
    assert (row.ofi, row.ofi_1) == (-0.2, -0.015)


# The volume clock.


def test_trade_rate() -> None:
    twin = live(stale_after_ms=60_000)
    for second, number in ((1, 1), (3, 2), (4, 3)):
        twin.feed(T0 + second * SECOND, trade(number, "101", "3", seller=False))
    assert twin.row(T0 + 5 * SECOND - 1).trade_rate is None
    assert twin.row(T0 + 5 * SECOND).trade_rate == 3 / 5
    assert twin.row(T0 + 6 * SECOND).trade_rate == 2 / 5
    assert twin.row(T0 + 9 * SECOND).trade_rate == 0


def test_vpin_of_fixed_buckets_by_hand() -> None:
    twin = live(vpin_bucket=Fraction(2))
    numbers = iter(range(1, 99))

    def after(quantity: str, *, seller: bool) -> tuple[float | None, int | None]:
        row = twin.feed(T0, trade(next(numbers), "101", quantity, seller=seller))
        return row.vpin, row.vpin_n

    assert twin.row(T0).vpin_n == 0
    assert after("3", seller=False) == (None, 1)  # |2 - 0|; 1 bought in the second.
    assert after("0.5", seller=True) == (None, 1)  # |1 - 0.5| so far.
    assert after("4.5", seller=True) == (None, 4)  # |1 - 1|, |0 - 2|, |0 - 2|.
    assert after("90.5", seller=False) == (None, 49)  # 45 times |2 - 0|, 0.5 in the 50th.
    assert after("1.49999999", seller=True) == (None, 49)
    assert after("0.00000001", seller=True) == ((2 + 0 + 2 + 2 + 45 * 2 + 1) / 100, 50)  # |0.5 - 1.5|
    assert after("2", seller=True) == ((0 + 2 + 2 + 45 * 2 + 1 + 2) / 100, 50)


def test_vpin_buckets_are_a_50th_of_the_day_before() -> None:
    day = 86_400 * SECOND
    twin = live(stale_after_ms=10**9)
    twin.feed(T0, trade(1, "101", "100", seller=False))
    twin.feed(T0 + day - 1, trade(2, "101", "99", seller=True))
    assert (twin.clock.size, twin.clock.bought) == (None, Fraction())
    # A day old. The slot of the first trade is no longer one of the newest 144: 99 + 1.5 = 100.5.
    twin.feed(T0 + day, trade(3, "101", "1.5", seller=False))
    assert (twin.clock.size, twin.clock.bought) == (Fraction("2.01") * 10**8, Fraction(150_000_000))
    # An open bucket keeps its size: 0.51 fills it. The next ones are of the day with this trade: (100.5 + 3.5) / 50 = 2.08, and
    # the rest of 2.99 fills one and leaves 0.91.
    row = twin.feed(T0 + day, trade(4, "101", "3.5", seller=True))
    assert (row.vpin_n, twin.clock.size, twin.clock.sold) == (2, Fraction("2.08") * 10**8, Fraction(91_000_000))
    assert list(twin.clock.full) == [(Fraction(99_000_000), Fraction(201_000_000)), (Fraction(208_000_000), Fraction(208_000_000))]


def test_neither_tape_nor_buckets_run_while_the_book_is_not_live() -> None:
    twin = live(vpin_bucket=Fraction(2))
    assert twin.feed(T0, trade(1, "101", "3", seller=False)).vpin_n == 1
    assert twin.feed(T0, diff(20, 20)).state == "SYNCING"
    twin.feed(T0, trade(2, "101", "50", seller=False))
    assert sum(twin.clock.tape.slots.values()) == 3 * 10**8
    twin.feed(T0, snapshot(20, BIDS, ASKS))
    # The bucket that was half full is filled by what comes after.
    assert twin.feed(T0, diff(21, 21)).vpin_n == 1
    assert twin.feed(T0, trade(3, "101", "1", seller=True)).vpin_n == 2


def test_inverse_volume_clock_counts_coins() -> None:
    twin = Twin("binance-coinm", "ETHUSD_PERP", vpin_bucket=Fraction("0.01"))
    twin.feed(T0, snapshot(10, [("2000", "3")], [("2500", "5")]))
    twin.feed(T0, diff(10, 10, previous=9, symbol="ETHUSD_PERP"))
    # 5 contracts of 10 at 2500 are 0.02 coins.
    assert twin.feed(T0, trade(1, "2500", "5", seller=False, symbol="ETHUSD_PERP")).vpin_n == 2


# Kyle's lambda.


def quoted(twin: Twin, ts_ns: int, number: int, quantity: str, *, seller: bool = False) -> None:
    twin.feed(ts_ns, trade(number, "100", quantity, seller=seller))


def test_kyle_lambda_by_hand() -> None:
    twin = live(stale_after_ms=10**9)
    # Thirty seconds with a purchase of 100 x 20000 = 2 million, in each the mid rises by 0.005: from 100.5 to 100.65.
    for second in range(30):
        quoted(twin, T0 + second * SECOND + 1, second + 1, "20000")
        update = 12 + second
        twin.feed(T0 + (second + 1) * SECOND, diff(update, update, bids=[(f"100.{second + 1:02}", "1")]))
    # In one of the 270 others it falls to 100.55, without a trade.
    twin.feed(T0 + 200 * SECOND, diff(42, 42, bids=[(f"100.{cents:02}", "0") for cents in range(11, 31)]))
    assert twin.row(T0 + 300 * SECOND - 1).kyle_lambda is None
    # The slope through two clouds is the difference of their means: y over x of 2 and of 0 million.
    rise, fall = 1e4 * math.log(100.65 / 100.5), 1e4 * math.log(100.55 / 100.65)
    row = twin.row(T0 + 300 * SECOND)  # Its own second is not closed yet: 299 observations.
    assert row.kyle_lambda == pytest.approx((rise / 30 - fall / 269) / 2, rel=1e-12)
    row = twin.row(T0 + 300 * SECOND + 1)
    assert row.kyle_lambda == pytest.approx((rise / 30 - fall / 270) / 2, rel=1e-12)
    assert row.kyle_n == 30
    # The first second leaves: 29 with trades are too few.
    assert twin.row(T0 + 301 * SECOND).kyle_n == 30
    row = twin.row(T0 + 301 * SECOND + 1)
    assert (row.kyle_lambda, row.kyle_n) == (None, 29)


def test_kyle_signs_and_sums_the_trades_of_a_second() -> None:
    twin = live(stale_after_ms=10**9)
    # Even seconds: 1 - 3 = -2 million net and no change. Odd seconds: +2 million, the mid goes by turns to 100.55 and to 100.6.
    update = 12
    for second in range(60):
        begin = T0 + second * SECOND
        if second % 2:
            quoted(twin, begin + SECOND, 3 * second + 1, "20000")
            twin.feed(begin + SECOND, diff(update, update, bids=[("100.2", "1" if second % 4 == 1 else "0"), ("100.1", "1")]))
            update += 1
        else:
            quoted(twin, begin + 1, 3 * second + 1, "10000")
            quoted(twin, begin + SECOND, 3 * second + 2, "30000", seller=True)
    # Changes: 100.5 -> 100.6 once, then 15 falls to 100.55 and 14 rises to 100.6: 100.55 at last. x: 30 of 2, 30 of -2, 240 of 0.
    # Slope = (300 x 2 x sum y) / (300 x 60 x 4), for the sum of x is 0.
    row = twin.row(T0 + 300 * SECOND + 1)
    assert row.kyle_lambda == pytest.approx(2 * 1e4 * math.log(100.55 / 100.5) / 240, rel=1e-12)
    assert row.kyle_n == 60


def test_kyle_begins_at_the_first_grid_second_of_the_live_book() -> None:
    twin = live(T0 + 500 * MS, stale_after_ms=10**9)
    quoted(twin, T0 + SECOND, 1, "1")  # In the part second: not used.
    assert twin.row(T0 + SECOND + 1).kyle_n == 0
    quoted(twin, T0 + SECOND + 1, 2, "1")
    assert twin.row(T0 + 2 * SECOND).kyle_n == 0
    assert twin.row(T0 + 2 * SECOND + 1).kyle_n == 1
    on_the_grid = live(T0)
    quoted(on_the_grid, T0 + 1, 1, "1")
    assert on_the_grid.row(T0 + SECOND + 1).kyle_n == 1


def test_kyle_without_variance_is_null() -> None:
    twin = live(stale_after_ms=10**9)
    for second in range(301):
        quoted(twin, T0 + second * SECOND + 1, second + 1, "1")
    row = twin.row(T0 + 301 * SECOND)
    assert (row.kyle_lambda, row.kyle_n) == (None, 300)


def test_kyle_needs_a_mid_at_both_ends() -> None:
    twin = live(asks=[], stale_after_ms=10**9)
    quoted(twin, T0 + 1, 1, "1")
    twin.feed(T0 + 1_500 * MS, diff(12, 12, asks=[("101", "1")]))
    quoted(twin, T0 + 1_600 * MS, 2, "1")
    quoted(twin, T0 + 2_600 * MS, 3, "1")
    # Seconds 1 and 2 begin without a mid, second 3 with that of the second side's return.
    assert twin.row(T0 + 3 * SECOND + 1).kyle_n == 1


# The fitted microprice.


def test_fitted_microprice_by_hand() -> None:
    shift = [[bucket + spread / 10 for spread in range(1, 5)] for bucket in range(10)]
    twin = live()
    assert twin.row(T0).microprice_stoikov is None
    twin.adjust(Adjustment(Fraction("0.5"), shift))
    # Imbalance 3 / 4: bucket 7. Spread 1 = 2 ticks. 100.5 + 0.5 x 7.2.
    assert twin.row(T0).microprice_stoikov == 104.1
    # 9 / 10: bucket 9. Spread 6 = 12 ticks: as 4.
    row = twin.feed(T0, diff(12, 12, bids=[("100", "180")], asks=[(price, "0") for price, _ in ASKS[:5]]))
    assert row.microprice_stoikov == 103 + 0.5 * 9.4
    # Equal sizes lean to no side.
    row = twin.feed(T0, diff(13, 13, bids=[("100", "20")]))
    assert row.microprice_stoikov == 103


# Against the whole past, summed anew.


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from("dt"), st.integers(0, 3), st.integers(0, 4)), min_size=20, max_size=80))
def test_running_windows_equal_sums_over_the_whole_past(steps: list[tuple[int, str, int, int]]) -> None:
    twin = live()
    now = T0
    trades: list[tuple[int, int, int]] = []
    mids = [(T0, 100.5)]
    update = 11
    for gap_ms, what, level, size in steps:
        now += gap_ms * MS
        if what == "t":
            quantity = size + 1
            side = 1 if level % 2 else -1
            row = twin.feed(now, trade(len(trades), "100" if side < 0 else "101", str(quantity), seller=side < 0))
            trades.append((now, side, quantity))
        else:
            update += 1
            row = twin.feed(now, diff(update, update, bids=[(f"100.{level}", str(size))]))
            bid = twin.levels("bid")[0][0]
            mids.append((now, float((bid + 101) / 2)))
        if row.state != "LIVE":
            return  # 3 s of trades alone
        for seconds, found in ((1, row.ti_1s), (5, row.ti), (30, row.ti_30s)):
            inside = [(side, quantity) for ts, side, quantity in trades if now - seconds * SECOND < ts <= now]
            total = sum(quantity for _, quantity in inside)
            expected = sum(side * quantity for side, quantity in inside) / total if total else 0
            assert found == (expected if now - T0 >= seconds * SECOND else None)
        for seconds, found in ((1, row.micro_vol_1s), (5, row.micro_vol)):
            if now - T0 < seconds * SECOND:
                assert found is None
                continue
            squares = 0.0
            for instant in range(T0 + GRID_NS, now + 1, GRID_NS):
                if instant > now - seconds * SECOND:
                    after = [mid for ts, mid in mids if ts <= instant][-1]
                    before = [mid for ts, mid in mids if ts <= instant - GRID_NS][-1]
                    squares += math.log(after / before) ** 2
            assert found == pytest.approx(math.sqrt(squares), rel=1e-9, abs=1e-15)


# Captures and edges.


def test_units_are_exact() -> None:
    assert units("0.00000001") == 1
    with pytest.raises(ValueError, match="at most 8 places"):
        units("0.000000001")


def test_time_does_not_go_back() -> None:
    twin = live()
    with pytest.raises(ValueError, match="not to go back"):
        twin.tick(T0 - 1)


def test_capture_names() -> None:
    def named(name: str) -> tuple[str, str]:
        twin = twin_of(Path(name))
        return twin.venue, twin.symbol

    assert named("binance-coinm_ETHUSD_PERP_20240808T2354.raw.gz") == ("binance-coinm", "ETHUSD_PERP")
    assert named("binance-spot_BTCUSDT_trades_20201101T09.raw.gz") == ("binance-spot", "BTCUSDT")


def test_a_recorded_capture_chains_and_agrees_with_its_tickers() -> None:
    data = Path(os.environ.get("ALPHAPACK_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = data / "captures" / "binance-spot_NKNUSDT_20211012.raw.gz"
    if not path.exists():
        assert "CI" not in os.environ, f"expected the recorded data at {data}; set ALPHAPACK_DATA"
        pytest.skip(f"no recorded data at {data}; set ALPHAPACK_DATA")
    twin = twin_of(path)
    rows = list(twin_rows(path, twin))
    assert (len(rows), twin.messages["depthUpdate"], rows[-1].state) == (227, 150, "LIVE")
    assert (twin.gaps, twin.crossed, twin.ticker_mismatched) == (0, 0, 0)
    assert twin.ticker_checked > 0
