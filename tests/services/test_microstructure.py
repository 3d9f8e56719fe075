"""What is proven about a book, and what is served of it: the whole state machine through the engine's one door."""

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from alphapack import app
from alphapack.domain.events import (
    BookStateChanged,
    FrameRejected,
    InstrumentChanged,
    IntakeOverloaded,
    Record,
    TradesMissed,
    WorkRequested,
)
from alphapack.domain.inputs import Configure, CoreSettings, Frame, Heartbeat, Input, InstrumentSettings, SessionStart, Shed
from alphapack.domain.market import BookState
from alphapack.domain.readings import Microstructure
from alphapack.models.book import FEATURES
from alphapack.services.microstructure import HISTORY
from reference import Twin

MS = 1_000_000
START_MS = 1_723_161_255_000
BTC, ETH = "binance-usdm:BTCUSDT", "binance-usdm:ETHUSDT"
SYNCING, LIVE, STALE, CORRUPT = BookState.SYNCING, BookState.LIVE, BookState.STALE, BookState.CORRUPT
BIDS = [["100.0", "2"], ["99.0", "3"], ["98.0", "1"]]
ASKS = [["101.0", "1"], ["102.0", "5"], ["103.0", "4"]]

Levels = list[list[str]]


def diff(first: int, last: int, previous: int | None, bids: Levels = (), asks: Levels = (), symbol: str = "BTCUSDT") -> dict[str, Any]:
    chain = {} if previous is None else {"pu": previous}
    return {"e": "depthUpdate", "E": START_MS, "s": symbol, "U": first, "u": last, **chain, "b": list(bids), "a": list(asks)}


def snapshot(last: int, bids: Levels = BIDS, asks: Levels = ASKS, symbol: str = "BTCUSDT") -> dict[str, Any]:
    return {"lastUpdateId": last, "symbol": symbol, "bids": list(bids), "asks": list(asks)}


def ticker(update: int, bid: str, bid_quantity: str, ask: str, ask_quantity: str, symbol: str = "BTCUSDT") -> dict[str, Any]:
    return {"e": "bookTicker", "u": update, "s": symbol, "b": bid, "B": bid_quantity, "a": ask, "A": ask_quantity}


def trade(number: int, price: str = "101.0", quantity: str = "1", *, seller: bool = False, symbol: str = "BTCUSDT") -> dict[str, Any]:
    return {"e": "trade", "E": START_MS, "T": START_MS, "s": symbol, "t": number, "p": price, "q": quantity, "m": seller}


def aggregate(number: object, first: int, last: int, price: str = "101.0", *, seller: bool = False) -> dict[str, Any]:
    return {"e": "aggTrade", "E": START_MS, "s": "BTCUSDT", "a": number, "f": first, "l": last, "p": price, "q": "1", "m": seller}


class Feed:
    """An engine and the time that passes for it."""

    def __init__(self, venue: str = "binance-usdm", start_ns: int = START_MS * MS, **core: Any) -> None:
        self.engine, self.venue, self.now_ns = app.build(), venue, start_ns
        self.step(Configure, CoreSettings(**core))
        self.step(SessionStart, "test")

    def step(self, kind: type[Input], *fields: object) -> list[Record]:
        return self.engine.step(kind(self.engine.seq + 1, self.now_ns, *fields))

    def beat(self, ms: float = 0) -> list[Record]:
        """Let time pass in silence."""
        self.now_ns += round(ms * MS)
        return self.step(Heartbeat)

    def send(self, *messages: dict[str, Any] | bytes, symbol: str = "") -> list[Record]:
        """Hand over frames at this very time and return all that they caused."""
        caused = []
        for one in messages:
            payload = one if isinstance(one, bytes) else json.dumps(one, separators=(",", ":")).encode()
            caused += self.step(Frame, self.venue, symbol, payload)
        return caused

    def live(self, symbol: str = "BTCUSDT") -> "Feed":
        """Bring a symbol to LIVE at update 110."""
        self.send(snapshot(100, symbol=symbol), diff(95, 110, 94, symbol=symbol))
        assert self.state(f"{self.venue}:{symbol}") == "LIVE"
        return self

    def state(self, symbol: str = BTC) -> str:
        return self.engine.microstructure.health(symbol).state

    def read(self, symbol: str = BTC) -> Microstructure:
        found = self.engine.microstructure.microstructure(symbol)
        assert found is not None
        assert_finite(self)
        return found

    def levels(self, symbol: str = BTC) -> tuple[list[tuple[float, float]], list[tuple[float, float]]] | None:
        book = self.engine.microstructure.book(symbol, 1_000)
        return None if book is None else (book.bids, book.asks)


def assert_finite(feed: Feed) -> None:
    """Every number of every answer is finite: msgspec writes a NaN as null, so the values themselves are looked at."""

    def check(value: object) -> None:
        if isinstance(value, dict | list | tuple):
            for one in value.values() if isinstance(value, dict) else value:
                check(one)
        elif isinstance(value, float):
            assert math.isfinite(value), value

    market = feed.engine.microstructure
    for symbol in market.symbols():
        answers = [
            market.info(symbol),
            market.health(symbol),
            market.microstructure(symbol),
            market.book(symbol, 20),
            market.history(symbol, 0, 9_999),
        ]
        for answer in answers:
            check(msgspec.to_builtins(answer))
            encoded = msgspec.json.encode(answer)
            assert b"NaN" not in encoded and b"Infinity" not in encoded
            assert json.loads(encoded) == json.loads(json.dumps(msgspec.to_builtins(answer)))


def changes(records: list[Record]) -> list[tuple[str, BookState, BookState]]:
    return [(one.symbol, one.before, one.after) for one in records if isinstance(one, BookStateChanged)]


def requests(records: list[Record]) -> list[bytes]:
    return [one.body for one in records if isinstance(one, WorkRequested) and one.work == "snapshot"]


RESYNC = [(BTC, LIVE, CORRUPT), (BTC, CORRUPT, SYNCING)]


# Coming to LIVE


def test_the_first_message_of_a_symbol_asks_for_its_snapshot_once() -> None:
    feed = Feed()
    assert requests(feed.send(diff(1, 2, 0))) == [BTC.encode()]
    assert requests(feed.send(diff(3, 4, 2), trade(1), ticker(4, "1", "1", "2", "1"))) == []
    assert feed.state() == "SYNCING"
    assert feed.engine.microstructure.microstructure(BTC) is None
    assert feed.engine.microstructure.book(BTC, 5) is None


def test_differences_kept_from_before_the_snapshot_link_up_with_it() -> None:
    feed = Feed()
    feed.send(diff(80, 90, 79, [["99.0", "9"]]), diff(91, 105, 90, [["99.0", "7"]]), diff(106, 110, 105, [["97.0", "1"]]))
    records = feed.send(snapshot(100))
    assert changes(records) == [(BTC, SYNCING, LIVE)]
    assert feed.levels() == ([(100.0, 2.0), (99.0, 7.0), (98.0, 1.0), (97.0, 1.0)], [(101.0, 1.0), (102.0, 5.0), (103.0, 4.0)])


def test_a_snapshot_alone_proves_nothing_until_a_difference_links() -> None:
    feed = Feed()
    assert changes(feed.send(snapshot(100), diff(80, 99, 79, [["99.0", "9"]]))) == []
    assert feed.engine.microstructure.microstructure(BTC) is None
    assert changes(feed.send(diff(100, 104, 99, [["99.0", "8"]]))) == [(BTC, SYNCING, LIVE)]
    assert feed.levels()[0][1] == (99.0, 8.0)


def test_a_snapshot_older_than_what_is_kept_is_dropped_for_a_newer_one() -> None:
    feed = Feed()
    feed.send(diff(201, 210, 200))
    records = feed.send(snapshot(100))
    assert (changes(records), requests(records), feed.state()) == ([], [BTC.encode()], "SYNCING")
    assert changes(feed.send(snapshot(205))) == [(BTC, SYNCING, LIVE)]
    assert feed.engine.microstructure.health(BTC).gaps == 0


def test_a_hole_among_the_kept_differences_is_a_gap_and_asks_again() -> None:
    feed = Feed()
    feed.send(diff(95, 105, 94), diff(108, 110, 107))
    records = feed.send(snapshot(100))
    assert (changes(records), requests(records), feed.state()) == ([], [BTC.encode()], "SYNCING")
    assert feed.engine.microstructure.health(BTC).gaps == 1
    assert changes(feed.send(snapshot(109))) == [(BTC, SYNCING, LIVE)]


def test_a_snapshot_that_nobody_needs_changes_nothing() -> None:
    feed = Feed().live()
    before = feed.levels()
    assert changes(feed.send(snapshot(110, [["50", "1"]], [["60", "1"]]))) == []
    assert feed.levels() == before


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(snapshot(101, [["100.0", "1"]], [["100.0", "1"]]), id="crossed"),
        pytest.param(snapshot(101, [["100.0", "-1"]]), id="negative"),
        pytest.param(snapshot(101, [["nan", "1"]]), id="no number"),
        pytest.param({**snapshot(101), "asks": "none"}, id="no list"),
    ],
)
@pytest.mark.parametrize("after_a_good_one", [True, False])
def test_an_unusable_snapshot_proves_nothing_and_another_is_asked_for(bad: dict[str, Any], after_a_good_one: bool) -> None:
    feed = Feed()
    feed.send(*([snapshot(100)] if after_a_good_one else []), diff(50, 60, 49))
    records = feed.send(bad)
    assert any(isinstance(one, FrameRejected) for one in records)
    feed.send(diff(95, 110, 94, [["97.0", "1"]]))
    assert feed.state() == "SYNCING", "differences were applied to a book that the bad snapshot emptied"
    assert requests(records) == [BTC.encode()]
    feed.send(snapshot(110), diff(111, 112, 110))
    assert feed.levels() == ([(100.0, 2.0), (99.0, 3.0), (98.0, 1.0), (97.0, 1.0)], [(101.0, 1.0), (102.0, 5.0), (103.0, 4.0)])


def test_what_is_kept_while_syncing_is_bounded_and_the_newest() -> None:
    feed = Feed(sync_buffer_frames=10)
    feed.send(diff(1, 1, 0))
    records = feed.send(*[diff(i, i, i - 1) for i in range(2, 40)])
    assert requests(records) and set(requests(records)) == {BTC.encode()}
    assert len(feed.engine.microstructure._markets[BTC].facts.buffer) <= 10
    assert changes(feed.send(snapshot(39))) == [(BTC, SYNCING, LIVE)]


# Losing it


def test_a_gap_corrupts_that_symbol_alone_and_asks_for_a_new_snapshot() -> None:
    feed = Feed().live().live("ETHUSDT")
    kept = feed.levels(ETH)
    records = feed.send(diff(130, 140, 129))
    assert (changes(records), requests(records)) == (RESYNC, [BTC.encode()])
    assert (feed.state(), feed.levels(), feed.state(ETH), feed.levels(ETH)) == ("SYNCING", None, "LIVE", kept)
    health = feed.engine.microstructure.health(BTC)
    assert (health.gaps, health.resyncs, health.crossed) == (1, 1, 0)
    # The difference that showed the gap is kept, so that the new snapshot may link up with it.
    assert changes(feed.send(snapshot(135))) == [(BTC, SYNCING, LIVE)]
    assert feed.engine.microstructure.health(ETH).resyncs == 0


def test_a_duplicate_is_counted_and_changes_nothing() -> None:
    feed = Feed().live()
    before = feed.levels()
    assert feed.send(diff(95, 110, 94, [["99.0", "55"]]), diff(80, 90, 79, [["99.0", "66"]])) == []
    assert (feed.levels(), feed.engine.microstructure.health(BTC).duplicates) == (before, 2)


def test_a_crossed_book_is_corrupt() -> None:
    feed = Feed().live()
    records = feed.send(diff(111, 112, 110, [["101.0", "1"]]))
    assert (changes(records), requests(records)) == (RESYNC, [BTC.encode()])
    assert feed.engine.microstructure.health(BTC).crossed == 1
    assert feed.engine.microstructure.microstructure(BTC) is None


def test_an_unreadable_difference_is_rejected_and_the_book_given_up() -> None:
    feed = Feed().live()
    records = feed.send(diff(111, 112, 110, [["99.0", "x"]]))
    assert changes(records) == RESYNC
    assert requests(records) == [BTC.encode()]
    assert [type(one) for one in records][-1] is FrameRejected
    assert feed.engine.microstructure.health(BTC).rejected == 1


@pytest.mark.parametrize("first", ["ticker", "difference"])
def test_a_ticker_of_the_same_update_that_disagrees_corrupts_the_book(first: str) -> None:
    right, wrong = ticker(112, "100.0", "2", "101.0", "7"), ticker(114, "100.0", "2", "101.0", "8")
    feed = Feed().live()
    for one, change in ((right, diff(111, 112, 110, [], [["101.0", "7"]])), (wrong, diff(113, 114, 112, [], [["101.0", "7.0"]]))):
        records = feed.send(*((one, change) if first == "ticker" else (change, one)))
    assert changes(records) == RESYNC
    health = feed.engine.microstructure.health(BTC)
    assert (health.ticker_checked, health.ticker_mismatched) == (2, 1)


def test_tickers_between_updates_prove_nothing() -> None:
    feed = Feed().live()
    assert feed.send(ticker(109, "1.0", "1", "2.0", "1"), ticker(111, "1.0", "1", "2.0", "1"), diff(111, 112, 110)) == []
    assert feed.engine.microstructure.health(BTC).ticker_checked == 0


@pytest.mark.parametrize("first", ["ticker", "difference"])
def test_a_ticker_of_an_empty_side_agrees_with_a_book_that_has_none(first: str) -> None:
    """The venue writes zeros for a side without orders."""
    feed = Feed().live()
    change = diff(111, 112, 110, [], [["101.0", "0"], ["102.0", "0"], ["103.0", "0"]])
    stated = ticker(112, "100.0", "2", "0.00000000", "0.00000000")
    feed.send(*((stated, change) if first == "ticker" else (change, stated)))
    assert feed.state() == "LIVE"
    assert feed.engine.microstructure.health(BTC).ticker_checked == 1


def test_shed_frames_unprove_a_book() -> None:
    feed = Feed().live().live("ETHUSDT")
    records = feed.step(Shed, BTC, 17)
    assert any(isinstance(one, IntakeOverloaded) and (one.symbol, one.frames) == (BTC, 17) for one in records)
    assert (changes(records), requests(records), feed.state(ETH)) == (RESYNC, [BTC.encode()], "LIVE")
    assert feed.step(Shed, "binance-usdm:NEVER", 1)[0] == IntakeOverloaded("binance-usdm:NEVER", 1, "shed")


# Silence


def test_silence_freezes_what_is_served_until_a_difference_links() -> None:
    feed = Feed().live()
    feed.beat(2_900)
    assert feed.state() == "LIVE"
    feed.send(trade(1))
    records = feed.beat(100)
    assert changes(records) == [(BTC, LIVE, STALE)]
    frozen, levels = feed.read(), feed.levels()
    assert (frozen.state, frozen.age_ms, frozen.ts_ms, frozen.mid, frozen.ti_n) == ("STALE", 3_000, START_MS + 3_000, 100.5, 1)
    feed.beat(7_000)
    feed.send(trade(2, quantity="50"), ticker(500, "1.0", "1", "2.0", "1"))
    later = feed.read()
    assert later.age_ms == 10_000
    assert msgspec.structs.replace(later, age_ms=frozen.age_ms, seq=frozen.seq) == frozen
    assert feed.levels() == levels
    records = feed.send(diff(111, 112, 110, [["99.5", "1"]]))
    assert changes(records) == [(BTC, STALE, LIVE)]
    again = feed.read()
    assert (again.state, again.age_ms, again.ti, again.ti_n, again.windows.ti_1s) == ("LIVE", 0, None, 0, None)


def test_the_silence_that_counts_is_that_of_the_depth_stream() -> None:
    feed = Feed(stale_after_ms=500).live()
    for i in range(5):
        feed.beat(100)
        feed.send(trade(i), ticker(111 + i, "1", "1", "2", "1"))
    assert feed.state() == "STALE"


def test_a_gap_after_silence_corrupts() -> None:
    feed = Feed().live()
    feed.beat(4_000)
    records = feed.send(diff(130, 140, 129))
    assert changes(records) == [(BTC, STALE, CORRUPT), (BTC, CORRUPT, SYNCING)]


def test_a_session_start_freezes_every_live_book_until_its_chain_goes_on() -> None:
    feed = Feed().live().live("ETHUSDT")
    feed.now_ns += 60_000 * MS
    assert changes(feed.step(SessionStart, "again")) == [(BTC, LIVE, STALE), (ETH, LIVE, STALE)]
    assert feed.read().mid == 100.5
    assert changes(feed.send(diff(111, 112, 110))) == [(BTC, STALE, LIVE)]
    assert changes(feed.send(diff(211, 212, 210, symbol="ETHUSDT"))) == [(ETH, STALE, CORRUPT), (ETH, CORRUPT, SYNCING)]


# Which symbols


def test_only_the_symbols_asked_for_are_followed() -> None:
    feed = Feed(symbols=(ETH,))
    assert feed.send(snapshot(100), diff(95, 110, 94), trade(1)) == []
    assert feed.engine.microstructure.touched is None
    feed.live("ETHUSDT")
    assert feed.engine.microstructure.symbols() == [ETH]


def test_more_symbols_than_allowed_are_refused_with_the_name_of_the_setting() -> None:
    feed = Feed(symbols_max=1).live()
    records = feed.send(diff(1, 2, 0, symbol="ETHUSDT"))
    assert "core.symbols_max" in next(one.reason for one in records if isinstance(one, FrameRejected))
    assert feed.engine.microstructure.symbols() == [BTC]
    assert feed.state() == "LIVE"


def test_candles_and_notices_begin_no_symbol() -> None:
    feed = Feed()
    mark = {"e": "markPriceUpdate", "E": START_MS, "s": "BTCUSDT", "p": "60000.5", "r": "0.0001", "T": START_MS}
    assert feed.send(mark, {"result": None, "id": 1}) == []
    assert feed.engine.microstructure.symbols() == []


def test_the_step_that_a_record_tells_is_the_one_in_use() -> None:
    """Whatever taught a finer step, a trade, a ticker or a difference, the last record names the one in use."""
    feed, told = Feed(), {}

    def learn(*messages: dict[str, Any]) -> tuple[str, str]:
        for one in feed.send(*messages):
            if isinstance(one, InstrumentChanged):
                told[one.symbol] = (one.tick, one.lot)
        return told[BTC]

    assert learn(snapshot(100, [["100.0", "2"]], [["101.0", "4"]]), diff(95, 110, 94)) == ("1", "2")
    assert learn(trade(1, "100.5", "1")) == ("0.5", "1")
    assert learn(diff(111, 112, 110, [["99.75", "0.5"]])) == ("0.25", "0.5")
    learn(ticker(112, "100.00", "2", "101.01", "4"))
    info = feed.engine.microstructure.info(BTC)
    assert tuple(map(float, told[BTC])) == (info.tick, info.lot)
    feed.live()
    learn(trade(2, "100.001", "0"))
    info = feed.engine.microstructure.info(BTC)
    assert tuple(map(float, told[BTC])) == (info.tick, info.lot)


def test_what_the_user_states_about_an_instrument_is_used() -> None:
    stated = InstrumentSettings(BTC, tick="0.10", lot="0.001", min_notional=5.0)
    info = Feed(instruments=(stated,)).live().engine.microstructure.info(BTC)
    assert (info.symbol, info.venue, info.tick, info.lot, info.min_notional, info.contract_value) == (
        "BTCUSDT",
        "binance-usdm",
        0.1,
        0.001,
        5.0,
        None,
    )


# Trades


def test_microstructure_features_take_each_trade_once() -> None:
    feed = Feed().live()
    feed.beat(5_000)
    feed.send(diff(111, 112, 110))
    feed.send(trade(7, quantity="3"), trade(7, quantity="3"), trade(6, quantity="3"), trade(8, quantity="1", seller=True))
    assert (feed.read().ti_n, feed.engine.microstructure.health(BTC).duplicates) == (2, 2)


def test_microstructure_features_use_one_trade_stream() -> None:
    """Aggregates count until the first single trade comes; from then on they say nothing new."""
    feed = Feed().live()
    feed.send(aggregate(70, 1, 3), aggregate(71, 4, 4), aggregate(71, 4, 4))
    assert feed.read().ti_n == 2
    feed.send(trade(3), trade(5))
    assert feed.read().ti_n == 3
    feed.send(aggregate(72, 6, 9), trade(6))
    assert (feed.read().ti_n, feed.engine.microstructure.health(BTC).duplicates) == (4, 2)


def test_a_trade_that_cannot_be_read_does_not_use_up_its_id() -> None:
    feed = Feed().live()
    feed.send(trade(1, quantity="x"), trade(1, quantity="0"), trade(1, price="-1"))
    feed.send(trade(1))
    assert (feed.read().ti_n, feed.engine.microstructure.health(BTC).rejected) == (1, 3)


def test_trades_before_live_feed_nothing() -> None:
    feed = Feed()
    feed.send(trade(1), snapshot(100), trade(2), diff(95, 110, 94))
    assert feed.read().ti_n == 0


# What is served


def test_microstructure_features_by_hand() -> None:
    feed = Feed().live()
    feed.beat(0)
    feed.now_ns += 30_000 * MS
    feed.send(diff(111, 112, 110, [], []))
    assert feed.state() == "LIVE"
    one = feed.read()
    assert (one.bid, one.ask, one.mid, one.spread_bps, one.obi_k) == (100.0, 101.0, 100.5, pytest.approx(1e4 / 100.5), 5)
    assert (one.obi, one.windows.obi_1, one.windows.obi_10) == ((6 - 10) / 16, (2 - 1) / 3, (6 - 10) / 16)
    assert one.microprice == pytest.approx((100 * 1 + 101 * 2) / 3)
    assert one.depth == type(one.depth)(6.0, 10.0, 595.0, 1_023.0)
    assert (one.symbol, one.venue, one.ts_ms, one.seq) == ("BTCUSDT", "binance-usdm", START_MS + 30_000, feed.engine.seq)


def test_microstructure_features_are_null_until_their_window_is_full_and_then_zero_if_empty() -> None:
    feed, seen = Feed(stale_after_ms=60_000).live(), {}
    for name, read in {
        "ti_1s": lambda one: one.windows.ti_1s,
        "micro_vol_1s": lambda one: one.windows.micro_vol_1s,
        "ti": lambda one: one.ti,
        "micro_vol": lambda one: one.micro_vol,
        "cancel_rate": lambda one: one.cancel_rate,
        "queue_rate": lambda one: one.queue_rate,
        "ti_30s": lambda one: one.windows.ti_30s,
    }.items():
        seen[name] = read
    full = {"ti_1s": 1_000, "micro_vol_1s": 1_000, "ti_30s": 30_000}
    for at_ms, wait in ((0, 0), (999, 999), (1_000, 1), (4_999, 3_999), (5_000, 1), (29_999, 24_999), (30_000, 1), (45_000, 15_000)):
        feed.beat(wait)
        one = feed.read()
        for name, read in seen.items():
            assert read(one) == (0.0 if at_ms >= full.get(name, 5_000) else None), f"{name} at {at_ms} ms"
        assert (one.ti_n, one.cancel_n) == (0, 0)


def test_microstructure_features_of_a_one_sided_book_are_null() -> None:
    feed = Feed().live()
    feed.send(diff(111, 112, 110, [], [["101.0", "0"], ["102.0", "0"], ["103.0", "0"]]))
    one = feed.read()
    assert (one.state, one.bid, one.ask, one.mid, one.microprice, one.spread_bps) == ("LIVE", 100.0, None, None, None, None)
    assert (one.obi, one.windows.obi_1, one.windows.obi_10, one.depth.bid, one.depth.ask) == (None, None, None, 6.0, 0.0)
    feed.send(diff(113, 114, 112, [["100.0", "0"], ["99.0", "0"], ["98.0", "0"]], []))
    assert feed.levels() == ([], [])
    assert (feed.read().bid, feed.read().depth.bid_quote) == (None, 0.0)
    feed.send(diff(115, 116, 114, BIDS, ASKS))
    assert feed.read().mid == 100.5


def test_microstructure_features_are_none_while_nothing_is_proven() -> None:
    feed = Feed().live()
    feed.send(diff(130, 140, 129))
    market = feed.engine.microstructure
    assert (market.microstructure(BTC), market.book(BTC, 5)) == (None, None)
    assert np.isnan(market.features(market.touched)).all()
    assert market.info(BTC).state == market.health(BTC).state == "SYNCING"
    assert_finite(feed)


def test_microstructure_features_of_the_past_are_served_by_column() -> None:
    feed = Feed(history_rows=5, stale_after_ms=3_000).live()
    assert feed.engine.microstructure.history(BTC, 0, 10) == {name: [] for name in ("ts_ms", *HISTORY)}
    for i in range(8):
        feed.beat(1_000)
        feed.send(diff(111 + i, 111 + i, 110 + i, [["99.0", str(3 + i)]]))
    columns = feed.engine.microstructure.history(BTC, 0, 10)
    assert tuple(columns) == ("ts_ms", *HISTORY)
    assert columns["ts_ms"] == [START_MS + 1_000 * second for second in (4, 5, 6, 7, 8)]
    assert columns["mid"] == [100.5] * 5
    assert columns["depth_bid"] == [8.0, 9.0, 10.0, 11.0, 12.0]  # Noted before the difference of the same instant.
    assert columns["ti"] == [None, 0.0, 0.0, 0.0, 0.0]
    assert feed.engine.microstructure.history(BTC, START_MS + 5_001, 2)["ts_ms"] == [START_MS + 6_000, START_MS + 7_000]
    feed.beat(9_000)  # STALE after three of them: nothing is noted from then on.
    assert feed.engine.microstructure.history(BTC, START_MS + 9_000, 99)["ts_ms"] == [START_MS + 9_000, START_MS + 10_000]
    assert_finite(feed)


def test_a_query_changes_nothing_that_comes_later() -> None:
    digests = []
    for asked in (True, False):
        feed = Feed(stale_after_ms=60_000).live()
        for i in range(40):
            feed.beat(170)
            feed.send(diff(111 + i, 111 + i, 110 + i, [["100.0" if i % 3 else "100.5", str(i % 4)]]), trade(i, seller=bool(i % 2)))
            feed.beat(333)
            if asked:
                feed.read()
        digests.append(feed.engine.hexdigest())
    assert digests[0] == digests[1]


# Saved state


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4)])
def test_a_restored_engine_goes_on_alike_after_the_settings_were_changed(before: int, after: int) -> None:
    """What a running book was begun with goes on for the restored one too, or both take the change: never one alone."""
    coin = "binance-coinm:ETHUSD_PERP"
    feed = Feed("binance-coinm", history_rows=before).live("ETHUSD_PERP")
    changed = CoreSettings(history_rows=after, instruments=(InstrumentSettings(coin, min_notional=9.0, contract_value=50.0),))
    for i in range(5):
        if i == 3:
            feed.step(Configure, changed)
        feed.beat(1_000)
        feed.send(diff(111 + i, 111 + i, 110 + i, [["99.0", str(3 + i)]], symbol="ETHUSD_PERP"))
    other = app.build()
    other.load(feed.engine.save())
    twin = Feed("binance-coinm")
    twin.engine, twin.now_ns = other, feed.now_ns
    for one in (feed, twin):
        one.send(trade(9, symbol="ETHUSD_PERP"))
        one.beat(1_000)
        one.send(diff(116, 116, 115, [["99.0", "1"]], symbol="ETHUSD_PERP"))
    assert twin.read(coin) == feed.read(coin)
    assert twin.engine.hexdigest() == feed.engine.hexdigest()
    assert twin.engine.microstructure.info(coin) == feed.engine.microstructure.info(coin)
    assert twin.engine.microstructure.history(coin, 0, 99) == feed.engine.microstructure.history(coin, 0, 99)


@pytest.mark.parametrize(
    "message",
    [diff(1, 2**70, 0), trade(2**70), ticker(2**70, "1", "1", "2", "1"), snapshot(2**70)],
    ids=["depth", "trade", "ticker", "snapshot"],
)
def test_no_frame_keeps_a_checkpoint_from_being_written(message: dict[str, Any]) -> None:
    feed = Feed()
    feed.send(message)
    other = app.build()
    other.load(feed.engine.save())
    assert other.save() == feed.engine.save()


def test_a_trade_of_a_size_beyond_all_counting_is_rejected() -> None:
    feed = Feed("binance-coinm").live("ETHUSD_PERP")
    records = feed.send(trade(1, "0.00000001", "4503599627370496", symbol="ETHUSD_PERP"))
    assert any(isinstance(one, FrameRejected) for one in records)
    assert feed.state("binance-coinm:ETHUSD_PERP") == "LIVE"


# Against the slow twin, on feeds that lose, repeat and swap

EXACT = ("bid", "ask", "obi", "obi_1", "obi_10", "ti", "ti_1s", "ti_30s", "ti_n", "cancel_rate", "cancel_n", "queue_rate")


class Exchange:
    """The truth about one symbol, and what it sends of it."""

    def __init__(self, venue: str, name: str, seed: int) -> None:
        self.venue, self.name, self.seed = venue, name, seed
        self.sides = {"b": {1_000 - i: 5 for i in range(7)}, "a": {1_001 + i: 5 for i in range(7)}}
        self.last, self.trade_id, self.turn = 1_000 * seed, 0, seed
        self.past = {self.last: self.truth()}

    def text(self, price: int, lots: int) -> list[str]:
        return [f"{price // 10}.{price % 10}", f"{lots // 1_000}.{lots % 1_000:03d}"]

    def truth(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        bids, asks = ([(price / 10, lots / 1_000) for price, lots in sorted(self.sides[side].items())] for side in "ba")
        return bids[::-1], asks

    def change(self, picks: list[int]) -> dict[str, Any]:
        """Move the market and return the difference that says so."""
        before, sent = self.last, {"b": [], "a": []}
        for pick in picks:
            self.turn = (self.turn * 1_103_515_245 + 12_345 + pick) % 2**31
            side, away, lots = "ba"[self.turn >> 8 & 1], self.turn >> 10 & 7, (self.turn >> 14) % 9
            best = {"b": max(self.sides["b"], default=990), "a": min(self.sides["a"], default=1_010)}
            price = min(best["b"] + 1, best["a"] - 1) - away if side == "b" else max(best["a"] - 1, best["b"] + 1) + away
            self.sides[side][price] = lots
            if lots == 0:
                del self.sides[side][price]
            sent[side].append(self.text(price, lots))
        first = before + (1 if self.venue == "binance-spot" else 3)
        self.last = first + len(picks)
        self.past[self.last] = self.truth()
        return diff(first, self.last, None if self.venue == "binance-spot" else before, sent["b"], sent["a"], self.name)

    def snapshot(self) -> dict[str, Any]:
        bids, asks = ([self.text(price, lots) for price, lots in self.sides[side].items()] for side in "ba")
        return snapshot(self.last, bids, asks, self.name)

    def ticker(self) -> dict[str, Any] | None:
        if not self.sides["b"] or not self.sides["a"]:
            return None
        bid, ask = max(self.sides["b"]), min(self.sides["a"])
        return ticker(self.last, *self.text(bid, self.sides["b"][bid]), *self.text(ask, self.sides["a"][ask]), self.name)

    def trade(self, pick: int) -> dict[str, Any]:
        self.trade_id += 1
        seller = bool(pick % 2) if self.sides["b"] and self.sides["a"] else bool(self.sides["b"])
        price = max(self.sides["b"], default=990) if seller else min(self.sides["a"], default=1_010)
        return trade(self.trade_id, f"{price // 10}.{price % 10}", f"0.00{pick % 8 + 1}", seller=seller, symbol=self.name)


ACTIONS = st.tuples(
    st.sampled_from(
        ["diff"] * 10 + ["trade"] * 4 + ["snapshot"] * 3 + ["ticker"] * 2 + ["drop", "repeat", "swap", "again", "wait", "wait"]
    ),
    st.integers(0, 1),
    st.sampled_from([0, 0, 10, 50, 100, 330, 1_000, 3_100]),
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
)


def compare(feed: Feed, twin: Twin, full: str) -> None:
    market = feed.engine.microstructure.touched
    assert market is not None and market.facts.symbol == full
    row = twin.row(feed.now_ns)
    assert market.facts.state.name == row.state
    for name, found in zip(FEATURES, feed.engine.microstructure.features(market).tolist(), strict=True):
        wanted = getattr(row, name)
        if wanted is None:
            assert math.isnan(found), f"{name}: {found} where the twin knows nothing"
        elif name in EXACT:
            assert found == wanted, f"{name}: {found} for {wanted}"
        else:
            assert math.isclose(found, wanted, rel_tol=1e-12, abs_tol=2e-14), f"{name}: {found} for {wanted}"


@pytest.mark.parametrize("venue", ["binance-usdm", "binance-spot"])
@settings(max_examples=30, phases=(Phase.explicit, Phase.generate))  # Shrinking with a slow twin would take minutes.
@given(st.lists(ACTIONS, min_size=20, max_size=60))
def test_microstructure_features_equal_the_slow_twin_on_a_feed_that_loses_repeats_and_swaps(venue: str, actions: list[Any]) -> None:
    """Row by row; and what is LIVE after a depth message is the exchange's own book at that update, so no loss stays unseen."""
    feed = Feed(venue, START_MS * MS + 85_333)
    exchanges = [Exchange(venue, name, seed) for seed, name in enumerate(("BTCUSDT", "ETHUSDT"), 1)]
    twins = [Twin(venue, one.name) for one in exchanges]
    held: list[dict[str, Any] | None] = [None, None]
    sent: list[list[dict[str, Any]]] = [[], []]

    def deliver(at: int, message: dict[str, Any]) -> None:
        full = f"{venue}:{exchanges[at].name}"
        feed.send(message)
        twins[at].feed(feed.now_ns, json.dumps(message).encode())
        compare(feed, twins[at], full)
        if feed.state(full) == "LIVE":
            last = feed.engine.microstructure.touched.book.last_update
            assert feed.levels(full) == exchanges[at].past[last]
            assert_finite(feed)

    for one in range(2):
        deliver(one, exchanges[one].snapshot())
    for kind, at, wait_ms, picks in actions:
        for _ in range(wait_ms // 100):
            feed.beat(100)
        feed.beat(wait_ms % 100)
        for twin in twins:
            twin.tick(feed.now_ns)
        exchange = exchanges[at]
        if kind in ("diff", "drop", "repeat", "swap"):
            message = exchange.change(picks)
            sent[at].append(message)
            if kind == "swap" and held[at] is None:
                held[at] = message
            elif kind != "drop":
                for one in [message, message] if kind == "repeat" else [message]:
                    deliver(at, one)
                if held[at] is not None:
                    late, held[at] = held[at], None
                    deliver(at, late)
        elif kind == "again" and sent[at]:
            deliver(at, sent[at][picks[0] % len(sent[at])])
        elif kind == "snapshot":
            deliver(at, exchange.snapshot())
        elif kind == "ticker" and (stated := exchange.ticker()) is not None:
            deliver(at, stated)
        elif kind == "trade":
            deliver(at, exchange.trade(picks[0]))
    for one in range(2):
        full = f"{venue}:{exchanges[one].name}"
        health, twin = feed.engine.microstructure.health(full), twins[one]
        assert (health.gaps, health.crossed, health.ticker_mismatched) == (twin.gaps, 0, 0)
        assert health.ticker_checked == twin.ticker_checked
        for message in (exchanges[one].change([3]), exchanges[one].snapshot(), exchanges[one].change([4])):
            deliver(one, message)
        assert feed.state(full) == "LIVE", "whatever was lost, a snapshot and what follows it bring the book back"


# Sessions, spares and streams that tell nothing new


def restarted(feed: Feed, *messages: dict[str, Any]) -> list[Record]:
    feed.beat(5_000)
    feed.step(SessionStart, "again")
    return feed.send(*messages)


def test_a_second_session_goes_live_from_the_snapshot_it_begins_with() -> None:
    feed = Feed().live()
    caused = restarted(feed, snapshot(900, [["200.0", "1"]], [["201.0", "2"]]), diff(890, 905, 880))
    assert feed.state() == "LIVE"
    assert [record.after for record in caused if isinstance(record, BookStateChanged)] == [CORRUPT, SYNCING, LIVE]
    assert feed.levels() == ([(200.0, 1.0)], [(201.0, 2.0)])


def test_a_spare_snapshot_that_the_book_has_passed_is_forgotten() -> None:
    feed = Feed().live()
    feed.send(snapshot(111), diff(111, 112, 110), diff(120, 121, 119))
    assert feed.state() == "SYNCING"
    feed.send(snapshot(121), diff(122, 123, 121))
    assert feed.state() == "LIVE"


def test_a_session_start_forgets_which_trades_were_seen() -> None:
    feed = Feed().live()
    feed.send(trade(1_000))
    restarted(feed, snapshot(900), diff(890, 905, 880), aggregate(7, 5, 6))
    assert feed.read().ti_n == 1


def test_an_absurd_trade_id_does_not_make_duplicates_of_what_follows() -> None:
    feed = Feed().live()
    feed.send(trade(10))
    caused = feed.send(trade(2**62))
    assert any(isinstance(record, FrameRejected) and "near 10" in record.reason for record in caused)
    feed.send(trade(11))
    assert feed.read().ti_n == 2


@pytest.mark.parametrize("ms", [3_000, 6_000])
def test_repeated_updates_are_no_sign_of_life(ms: int) -> None:
    feed = Feed().live()
    for _ in range(ms // 500 + 1):
        feed.beat(500)
        feed.send(diff(95, 110, 94))
    assert feed.state() == ("STALE" if ms == 3_000 else "SYNCING")


def test_futures_ids_that_begin_again_lower_lead_to_a_new_snapshot() -> None:
    feed = Feed().live()
    for i in range(20):
        feed.beat(500)
        feed.send(diff(10 + i, 10 + i, 9 + i))
    assert feed.state() == "SYNCING"
    feed.send(snapshot(30), diff(31, 31, 30))
    assert feed.state() == "LIVE"


# Hostile sizes


@pytest.mark.parametrize("previous", [-(10**26), 10**26, -2])
def test_an_id_that_cannot_be_kept_is_refused_and_the_state_can_be_saved(previous: int) -> None:
    feed = Feed()
    caused = feed.send(diff(1, 2, previous))
    assert any(isinstance(record, FrameRejected) for record in caused)
    again = app.build()
    again.load(feed.engine.save())
    assert again.hexdigest() == feed.engine.hexdigest()


def test_more_levels_than_a_venue_sends_are_refused_at_once() -> None:
    feed = Feed().live()
    caused = feed.send(diff(111, 112, 110, [[f"{i}.0", "1"] for i in range(1, 20_002)]))
    assert any(isinstance(record, FrameRejected) and "at most 20000 levels" in record.reason for record in caused)
    assert feed.state() == "SYNCING"


def test_a_read_has_no_say_in_whether_sums_are_too_large() -> None:
    """The guards of the running sums look at windows that were brought to now first, whoever looked in between."""

    def outcome(*, read: bool) -> tuple[str, str]:
        feed, update = Feed(stale_after_ms=60_000).live(), 110
        churn = [level for _ in range(250) for level in (["90.0", str(2**52)], ["90.0", "0"])]
        for ms in (100, 2_400, 2_400, 1):
            feed.beat(ms)
            feed.send(diff(update + 1, update + 1, update, churn))
            update += 1
        feed.beat(250)
        if read:
            feed.engine.microstructure.microstructure(BTC)
        feed.send(diff(update + 1, update + 1, update, churn))
        return feed.state(), feed.engine.hexdigest()

    assert outcome(read=True) == outcome(read=False)


# What venues say of instruments


def listing(symbol: str = "BTCUSDT", tick: str | None = "0.10", lot: str | None = "0.001", **stated: Any) -> dict[str, Any]:
    filters: list[dict[str, str]] = [{"filterType": "MIN_NOTIONAL", "notional": "100"}]
    if tick is not None:
        filters.append({"filterType": "PRICE_FILTER", "tickSize": tick})
    if lot is not None:
        filters.append({"filterType": "LOT_SIZE", "stepSize": lot})
    return {"symbols": [{"symbol": symbol, "filters": filters, "makerCommission": "0.0002", "takerCommission": "0.0005", **stated}]}


def facts(feed: Feed, symbol: str = BTC) -> tuple[object, ...]:
    info = feed.engine.microstructure.info(symbol)
    return info.tick, info.lot, info.min_notional, info.contract_value, info.maker_fee_bps, info.taker_fee_bps


def test_a_listing_that_came_before_its_book_gives_it_tick_lot_and_terms() -> None:
    feed = Feed()
    assert feed.send(listing()) == [] and feed.engine.microstructure.symbols() == [], "a listing alone begins no book"
    caused = feed.send(snapshot(100), diff(95, 110, 94))
    assert not any(isinstance(record, InstrumentChanged) for record in caused), "nothing is learnt that was known"
    assert facts(feed) == (0.1, 0.001, 100.0, None, 2.0, 5.0)


def test_a_listing_that_comes_after_its_book_gives_it_all_but_tick_and_lot() -> None:
    feed = Feed().live()
    before, levels = facts(feed), feed.levels()
    assert before == (1.0, 1.0, None, None, None, None)
    assert feed.send(listing()) == []
    assert facts(feed) == (1.0, 1.0, 100.0, None, 2.0, 5.0) and feed.levels() == levels
    feed.send(listing(makerCommission="-0.0001"))
    assert facts(feed)[4:] == (-1.0, 5.0), "the last one counts"


def test_the_value_of_a_contract_is_the_one_that_is_listed() -> None:
    name = "binance-coinm:ETHUSD_PERP"
    feed = Feed("binance-coinm")
    feed.send(listing("ETHUSD_PERP", "0.01", "1", contractSize=50))
    feed.live("ETHUSD_PERP")
    assert facts(feed, name)[3] == 50.0
    feed.send(listing("ETHUSD_PERP", contractSize=70))
    assert facts(feed, name)[3] == 50.0, "the book counts in it already"
    assert facts(Feed("binance-coinm").live("ETHUSD_PERP"), name)[3] == 10.0


@pytest.mark.parametrize("after", [False, True])
def test_what_the_user_states_goes_before_what_the_venue_does(after: bool) -> None:
    stated = InstrumentSettings(BTC, tick="0.5", maker_fee_bps=-0.5, vpin_bucket=2.0)
    feed = Feed(instruments=(stated,))
    steps = [lambda: feed.send(listing()), feed.live]
    for step in reversed(steps) if after else steps:
        step()  # type: ignore[operator]
    assert facts(feed)[0] == 0.5 and facts(feed)[2:] == (100.0, None, -0.5, 5.0)


def test_listings_are_kept_for_the_symbols_followed_and_never_more_than_may_be() -> None:
    feed = Feed(symbols=(ETH,))
    feed.send(listing("BTCUSDT"), listing("ETHUSDT"))
    assert set(feed.engine.microstructure._listed) == {ETH}
    feed = Feed(symbols_max=2)
    feed.send(*(listing(f"S{i}USDT") for i in range(5)), listing("S1USDT", "0.5"))
    assert [(one.symbol, one.tick) for one in feed.engine.microstructure._listed.values()] == [
        ("binance-usdm:S0USDT", "0.1"),
        ("binance-usdm:S1USDT", "0.5"),
    ]


def test_listings_are_saved_and_loaded() -> None:
    feed, again = Feed().live(), Feed()
    feed.send(listing(), listing("ETHUSDT", "0.05", None))
    again.engine.load(feed.engine.save())
    assert again.engine.save() == feed.engine.save() and facts(again) == facts(feed)
    again.now_ns = feed.now_ns
    again.live("ETHUSDT")
    assert facts(again, ETH) == (0.05, 1.0, 100.0, None, 2.0, 5.0)


# Trades that never came


def missed(records: list[Record]) -> list[tuple[int, int]]:
    assert all(record.symbol == BTC for record in records if isinstance(record, TradesMissed))
    return [(record.first, record.last) for record in records if isinstance(record, TradesMissed)]


def count_missed(feed: Feed) -> int:
    return feed.engine.microstructure.health(BTC).trades_missed


@pytest.mark.parametrize("state", ["LIVE", "STALE", "SYNCING"])
def test_trades_that_never_came_are_told_and_counted_whatever_the_book_is(state: str) -> None:
    feed = Feed()
    if state == "SYNCING":
        feed.send(diff(1, 2, 0))
    else:
        feed.live()
    if state == "STALE":
        feed.beat(5_000)
    assert feed.state() == state
    assert missed(feed.send(trade(1_000), trade(1_001))) == [], "the first one is no sign of others"
    assert missed(feed.send(trade(1_005))) == [(1_002, 1_004)]
    assert missed(feed.send(trade(1_003), trade(1_006), trade(1_008))) == [(1_007, 1_007)], "an older one is no sign either"
    assert (count_missed(feed), feed.engine.microstructure.health(BTC).duplicates) == (4, 1)


def test_aggregates_that_never_came_are_told_by_the_trades_in_them() -> None:
    feed = Feed().live()
    assert missed(feed.send(aggregate(70, 10, 12), aggregate(71, 13, 13))) == []
    assert missed(feed.send(aggregate(73, 20, 25), aggregate(75, 27, 27))) == [(14, 19), (26, 26)]
    assert count_missed(feed) == 7


@pytest.mark.parametrize("state", ["LIVE", "SYNCING"])
def test_trades_that_are_never_aggregated_are_no_aggregates_missed(state: str) -> None:
    feed = Feed()
    if state == "LIVE":
        feed.live()
    assert missed(feed.send(aggregate(70, 10, 12), aggregate(71, 15, 15), aggregate(72, 16, 16))) == [], "13 and 14 are of another kind"
    assert missed(feed.send(aggregate(74, 19, 19), aggregate(74, 19, 19), aggregate(73, 17, 17))) == [(17, 18)]
    assert missed(feed.send(aggregate(76, 20, 20))) == [], "no id is left that a trade of 75 could have"
    assert (count_missed(feed), feed.engine.microstructure.health(BTC).duplicates) == (2, 2)


@pytest.mark.parametrize("number", [None, "71", [], True, -1, 71.5, 2**63 - 1, 2**62, 2**70])
def test_an_aggregate_without_a_credible_id_is_rejected_and_the_next_one_tells_of_the_hole(number: object) -> None:
    feed = Feed().live()
    feed.send(aggregate(70, 10, 12))
    assert missed(feed.send(aggregate(number, 13, 13))) == []
    assert feed.engine.microstructure.health(BTC).rejected == (1 if number == 2**62 else 0), "of the others the symbol is not read"
    assert missed(feed.send(aggregate(72, 14, 14))) == [(13, 13)]


def test_an_aggregate_of_absurd_trades_is_refused_before_they_are_taken_for_a_hole() -> None:
    feed = Feed().live()
    assert missed(feed.send(aggregate(70, 10, 12), aggregate(71, 2**62, 2**62), aggregate(72, 14, 14))) == [(13, 13)]
    assert missed(feed.send(aggregate(73, 1_000, 1_000), aggregate(74, 15, 15), aggregate(76, 17, 17))) == [(16, 16)], "ids fall back"


def test_a_session_start_is_no_aggregate_missed() -> None:
    feed = Feed().live()
    feed.send(aggregate(70, 10, 12))
    assert missed(restarted(feed, aggregate(90, 50, 50), aggregate(92, 52, 52))) == [(51, 51)]


def test_the_last_aggregate_is_saved_and_loaded() -> None:
    feed, again = Feed().live(), Feed()
    feed.send(aggregate(70, 10, 12))
    again.engine.load(feed.engine.save())
    again.now_ns = feed.now_ns
    for one in (feed, again):
        assert missed(one.send(aggregate(71, 15, 15), aggregate(73, 18, 18))) == [(16, 17)]
    assert again.engine.save() == feed.engine.save() and again.engine.hexdigest() == feed.engine.hexdigest()


def test_of_two_streams_of_trades_only_the_one_in_use_can_miss_any() -> None:
    feed = Feed().live()
    feed.send(aggregate(70, 10, 12))
    assert missed(feed.send(trade(13), aggregate(90, 90, 95), trade(14))) == [], "aggregates are passed over from now on"
    assert missed(feed.send(trade(96))) == [(15, 95)]


def test_a_session_start_is_no_trade_missed() -> None:
    feed = Feed().live()
    feed.send(trade(10))
    assert missed(restarted(feed, trade(5_000), trade(5_001), trade(5_003))) == [(5_002, 5_002)]
    assert count_missed(feed) == 1


def test_a_trade_that_cannot_be_read_is_told_among_those_that_are_missed_and_once() -> None:
    feed = Feed().live()
    caused = feed.send(trade(10), trade(13, "x"), trade(14), trade(15))
    assert missed(caused) == [(11, 13)] and count_missed(feed) == 3


def test_an_absurd_trade_id_is_refused_before_it_is_taken_for_a_hole() -> None:
    feed = Feed().live()
    assert missed(feed.send(trade(10), trade(2**62), trade(11))) == [] and count_missed(feed) == 0


def test_what_was_missed_is_saved_and_loaded() -> None:
    feed = Feed().live()
    feed.send(trade(10), trade(13))
    again = Feed()
    again.engine.load(feed.engine.save())
    again.now_ns = feed.now_ns
    assert missed(again.send(trade(15))) == missed(feed.send(trade(15))) == [(14, 14)]
    assert count_missed(again) == count_missed(feed) == 3 and again.engine.hexdigest() == feed.engine.hexdigest()


# Ids that run ahead, and snapshots asked for again


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_id_far_ahead_among_what_is_kept_does_not_keep_a_good_snapshot_from_linking(at: int) -> None:
    """One garbled id would make every later snapshot look too old, and the book would never be LIVE again."""
    feed = Feed()
    messages = [diff(96, 100, 95), diff(101, 105, 100), diff(106, 110, 105, [["99.0", "7"]])]
    messages.insert(at, diff(2**62, 2**62 + 1, 2**62 - 1))
    feed.send(*messages)
    assert len(feed.engine.microstructure._markets[BTC].facts.buffer) == 3
    assert changes(feed.send(snapshot(100))) == [(BTC, SYNCING, LIVE)]
    assert feed.levels()[0][1] == (99.0, 7.0)
    assert feed.engine.microstructure.health(BTC).gaps == 0


def test_an_id_far_ahead_that_comes_last_costs_one_snapshot() -> None:
    feed = Feed()
    feed.send(diff(95, 105, 94), diff(2**62, 2**62 + 1, 2**62 - 1))
    assert requests(feed.send(snapshot(100))) == [BTC.encode()]
    feed.send(diff(106, 110, 105), diff(111, 112, 110))
    assert changes(feed.send(snapshot(108))) == [(BTC, SYNCING, LIVE)]


@pytest.mark.parametrize("venue", ["binance-spot", "binance-usdm"])
def test_bytes_of_what_is_dropped_are_not_counted(venue: str) -> None:
    feed = Feed(venue)
    feed.send(diff(10, 12, 9), *(diff(2**61 + i, 2**61 + i, 2**61 + i - 1, [["1.0", "1"]] * 50) for i in range(5)), diff(13, 15, 12))
    kept = feed.engine.microstructure._markets[f"{venue}:BTCUSDT"].facts
    assert [one.first for one in kept.buffer] == [10, 13]
    assert kept.buffer_bytes == sum(len(one.bids) + len(one.asks) for one in kept.buffer)


def test_a_book_that_syncs_asks_again_when_a_session_begins() -> None:
    feed = Feed().live("ETHUSDT")
    feed.send(diff(1, 2, 0))
    feed.beat(1_000)
    caused = feed.step(SessionStart, "again")
    assert requests(caused) == [BTC.encode()], "a book that was LIVE may still link up"
    assert (feed.state(), feed.state(ETH)) == ("SYNCING", "STALE")
    assert requests(feed.step(SessionStart, "and again")) == [BTC.encode()]
    again = Feed()
    again.engine.load(feed.engine.save())
    again.now_ns = feed.now_ns
    assert requests(again.step(SessionStart, "restored")) == [BTC.encode()]
    again.send(snapshot(100))
    assert changes(again.send(diff(95, 110, 94))) == [(BTC, SYNCING, LIVE)]
