"""Candles through the engine's one door: as a venue's answers, as its stream, of its trades, as history, and as none of them."""

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack import app
from alphapack.arrays import Float64Array2D
from alphapack.domain.events import FrameRejected, Record, TradesMissed
from alphapack.domain.inputs import HISTORY_ROWS_MAX, Configure, CoreSettings, Frame, Heartbeat, History, SessionStart, Shed
from alphapack.domain.simulation import SimulatorSettings
from alphapack.engine.engine import Engine
from alphapack.kernels import marks as m
from alphapack.models.candles import COLUMNS, MINUTE_MS
from alphapack.models.simulator import Simulator
from alphapack.services import candles as candles_module
from alphapack.services.candles import CandleStore

T0 = 1_723_161_240_000
NOW_NS = (T0 + 3_600_000) * 1_000_000
BTC = "binance-usdm:BTCUSDT"


def row(minute: int, price: str = "100.5", **changed: Any) -> list[Any]:
    """A candle as a REST answer states it; minutes are counted from ``T0``."""
    at = T0 + minute * MINUTE_MS
    fields = {"t": at, "o": price, "h": "9000", "l": "0.5", "c": price, "v": "12.25", "T": at + MINUTE_MS - 1, **changed}
    return [*fields.values(), "1", 5, "1", "1", "0"]


def kline(minute: int, *, closed: bool = True, **changed: Any) -> dict[str, Any]:
    """A candle as the stream sends it."""
    at = T0 + minute * MINUTE_MS
    k = {"t": at, "T": at + MINUTE_MS - 1, "s": "BTCUSDT", "i": "1m", "o": "7", "c": "8", "h": "9", "l": "6", "v": "2", "x": closed}
    return {"e": "kline", "E": T0, "s": "BTCUSDT", "k": {**k, **changed}}


def begun(**core: Any) -> Engine:
    engine = app.build()
    engine.step(Configure(1, NOW_NS, CoreSettings(**core)))
    return engine


def send(engine: Engine, message: object, symbol: str = "", venue: str = "binance-usdm") -> list[Record]:
    payload = message if isinstance(message, bytes) else json.dumps(message, separators=(",", ":")).encode()
    return engine.step(Frame(engine.seq + 1, engine.now_ns, venue, symbol, payload))


def minutes(engine: Engine, symbol: str = BTC) -> list[int]:
    return [(int(ts or 0) - T0) // MINUTE_MS for ts in engine.candles.history(symbol, 0, 10_000)["ts_ms"]]


def rejected(engine: Engine) -> str:
    assert engine.rejection is not None, "the frame was taken"
    return engine.rejection


def test_an_answer_about_the_past_is_kept() -> None:
    engine = begun()
    assert send(engine, [row(0), row(1, "101.25")], "BTCUSDT") == []
    assert (engine.candles.count(BTC), engine.candles.last_ms(BTC), engine.candles.last_close(BTC)) == (2, T0 + MINUTE_MS, 101.25)
    assert engine.candles.history(BTC, 0, 1) == {
        "ts_ms": [T0], "open": [100.5], "high": [9000.0], "low": [0.5], "close": [100.5], "volume": [12.25],
    }  # fmt: skip
    assert engine.microstructure.symbols() == [], "candles alone begin no book"


def test_of_a_symbol_that_is_not_known_there_is_nothing() -> None:
    engine = begun()
    assert (engine.candles.count(BTC), engine.candles.last_ms(BTC), engine.candles.last_close(BTC)) == (0, None, None)
    assert engine.candles.history(BTC, 0, 9) == {"ts_ms": [], **{name: [] for name in COLUMNS}}
    assert send(engine, b"[]", "BTCUSDT") == [] and engine.rejection is None and engine.candles.count(BTC) == 0


def test_of_a_stream_only_closed_minutes_are_kept() -> None:
    engine = begun()
    hour = {"T": T0 + 60 * MINUTE_MS - 1, "i": "1h"}
    for message in (kline(0), kline(1, closed=False), kline(3), kline(0, **hour)):
        assert send(engine, message) == []
    assert minutes(engine) == [0, 3] and engine.candles.last_close(BTC) == 8.0


def test_a_candle_that_comes_again_replaces_the_one_before() -> None:
    engine = begun()
    send(engine, [row(0), row(1), row(2)], "BTCUSDT")
    send(engine, kline(1))
    assert minutes(engine) == [0, 1, 2] and engine.candles.history(BTC, 0, 9)["close"] == [100.5, 8.0, 100.5]


def test_each_venue_and_symbol_has_its_own() -> None:
    engine = begun()
    send(engine, [row(0)], "BTCUSDT")
    send(engine, [row(5)], "ethusdt")
    send(engine, [row(9)], "BTCUSDT", "sim")
    assert [minutes(engine, name) for name in (BTC, "binance-usdm:ETHUSDT", "sim:BTCUSDT")] == [[0], [5], [9]]


def test_only_the_symbols_asked_for_are_kept() -> None:
    engine = begun(symbols=("binance-usdm:ETHUSDT",))
    assert send(engine, [row(0)], "BTCUSDT") == [] and engine.rejection is None
    send(engine, [row(0)], "ETHUSDT")
    assert (engine.candles.count(BTC), engine.candles.count("binance-usdm:ETHUSDT")) == (0, 1)


def test_more_symbols_than_allowed_are_refused_with_the_name_of_the_setting() -> None:
    engine = begun(symbols_max=1)
    send(engine, [row(0)], "BTCUSDT")
    caused = send(engine, [row(0)], "ETHUSDT")
    assert "core.symbols_max" in rejected(engine) and isinstance(caused[-1], FrameRejected)
    send(engine, [row(1)], "BTCUSDT")
    assert engine.rejection is None and engine.candles.count(BTC) == 2


@pytest.mark.parametrize(
    "bad",
    [
        row(1, "nan"), row(1, "inf"), row(1, "-1"), row(1, "0"), row(1, "x"), row(1, ""), row(1, "1e400"), row(1, h="50"), row(1, l="200"),
        row(1, v="-0.1"), row(1, v="nan"), row(1, t=T0 + MINUTE_MS + 1, T=T0 + 2 * MINUTE_MS), row(1, T=T0 + MINUTE_MS),
        row(1, t=-MINUTE_MS, T=-1), row(1, t=10**30, T=10**30 + MINUTE_MS - 1), row(1, T="late"), row(1)[:6],
    ],
    ids=lambda bad: ",".join(map(str, bad[:7])),
)  # fmt: skip
def test_of_an_answer_with_one_that_is_no_candle_nothing_is_taken(bad: list[Any]) -> None:
    engine = begun()
    send(engine, [row(0)], "BTCUSDT")
    before = [bytes(piece) for piece in engine.candles.save()]
    send(engine, [row(1), bad], "BTCUSDT")
    assert "expected" in rejected(engine) or "could not convert" in rejected(engine)
    assert "\n" not in rejected(engine) and [bytes(piece) for piece in engine.candles.save()] == before


@pytest.mark.parametrize("minute_ms", [MINUTE_MS * 3, MINUTE_MS * 60, 1_000])
def test_candles_of_another_length_are_refused(minute_ms: int) -> None:
    engine = begun()
    send(engine, [row(0, T=T0 + minute_ms - 1)], "BTCUSDT")
    assert f"expected candles of {MINUTE_MS} ms, found candles of {minute_ms} ms" in rejected(engine)
    assert engine.candles.count(BTC) == 0


@pytest.mark.parametrize("time", [-MINUTE_MS, 10**30, 10**400, 9 * 10**18 // MINUTE_MS * MINUTE_MS])
def test_a_candle_of_a_time_outside_the_calendar_is_refused(time: int) -> None:
    """A time that no float holds would stop the engine, and one far ahead would pass for the newest candle for ever."""
    engine = begun()
    send(engine, kline(0, t=time, T=time + MINUTE_MS - 1))
    assert "expected a time in milli- or microseconds" in rejected(engine)
    assert engine.candles.count(BTC) == 0


def test_the_newest_are_kept_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candles_module, "ROWS_MAX", 5)
    engine = begun()
    for minute in (3, 4, 5, 0, 6, 1, 7, 8):
        send(engine, [row(minute)], "BTCUSDT")
    assert minutes(engine) == [4, 5, 6, 7, 8]
    again = begun()
    again.candles.load(engine.candles.save())
    send(again, [row(9)], "BTCUSDT")
    assert minutes(again) == [5, 6, 7, 8, 9], "the bound holds after a restart too"


@given(
    st.lists(st.tuples(st.sampled_from(["BTCUSDT", "ETHUSDT"]), st.integers(0, 20), st.integers(1, 99)), max_size=12), st.integers(0, 12)
)
def test_a_store_that_was_saved_and_loaded_goes_on_alike(sent: list[tuple[str, int, int]], cut: int) -> None:
    engine = begun()
    for name, minute, price in sent[:cut]:
        send(engine, [row(minute, str(price))], name)
    again = app.build()
    again.load(engine.save())
    assert again.save() == engine.save()
    for name, minute, price in sent[cut:]:
        assert send(again, [row(minute, str(price))], name) == send(engine, [row(minute, str(price))], name)
    assert again.save() == engine.save() and again.hexdigest() == engine.hexdigest()


def test_what_was_held_before_is_gone_after_a_load() -> None:
    engine, empty = begun(), begun()
    send(engine, [row(0)], "BTCUSDT")
    assert isinstance(engine.candles, CandleStore)
    engine.candles.load(empty.candles.save())
    assert engine.candles.count(BTC) == 0 and engine.candles.save() == empty.candles.save()


def test_a_minute_that_has_not_ended_is_left_out_until_it_has() -> None:
    engine = begun()
    send(engine, [row(58), row(59), row(60), row(100_000)], "BTCUSDT")
    assert minutes(engine) == [58, 59], "engine time is the end of minute 59"
    engine.step(Frame(engine.seq + 1, engine.now_ns + MINUTE_MS * 1_000_000, "binance-usdm", "BTCUSDT", json.dumps([row(60)]).encode()))
    assert minutes(engine) == [58, 59, 60]


def test_candles_of_the_future_alone_leave_the_symbol_unknown() -> None:
    engine = begun()
    send(engine, [row(100_000)], "BTCUSDT")
    assert engine.candles.symbols() == [] and engine.candles.last_ms(BTC) is None


# Where they came from, and who is told


def test_readers_get_rows_sources_and_a_version_and_are_told_of_every_change() -> None:
    engine, told = begun(), []
    engine.candles.merged = told.append
    assert engine.candles.rows(BTC).shape == (0, 6) and engine.candles.sources(BTC) == {} and engine.candles.version(BTC) == 0
    send(engine, [row(0), row(1)], "BTCUSDT")
    send(engine, [row(1), row(3)], "BTCUSDT")
    assert told == [BTC, BTC] and engine.candles.version(BTC) == 0, "a last one that comes again and is the same is no change"
    send(engine, [row(1)], "BTCUSDT")
    send(engine, [row(100_000)], "BTCUSDT")
    assert told == [BTC, BTC]
    send(engine, [row(2)], "BTCUSDT")
    assert told == [BTC, BTC, BTC] and engine.candles.version(BTC) == 1 and minutes(engine) == [0, 1, 2, 3]
    assert engine.candles.rows(BTC)[1].tolist() == [T0 + MINUTE_MS, 100.5, 9000.0, 0.5, 100.5, 12.25]
    assert engine.candles.sources(BTC) == {"venue": 4}


def candles(*at: int, price: float = 7.0) -> Float64Array2D:
    return np.array([(T0 + minute * MINUTE_MS, price, price, price, price, 1.0) for minute in at])


def past(engine: Engine, *at: int, symbol: str = BTC, shift_ms: int = 0, rows: bytes | None = None) -> list[Record]:
    return engine.step(History(engine.seq + 1, engine.now_ns, symbol, shift_ms, candles(*at).tobytes() if rows is None else rows))


def test_a_venue_stands_before_the_tape_and_the_tape_before_a_file() -> None:
    engine = begun()
    past(engine, 0, 1, 2, 3)
    engine.candles.on_tape(BTC, candles(1, 2, price=8.0))
    send(engine, [row(2)], "BTCUSDT")
    engine.candles.on_tape(BTC, candles(2, price=8.0))
    past(engine, 0, 1, 2, 4)
    assert engine.candles.rows(BTC)[:, 4].tolist() == [7.0, 8.0, 100.5, 7.0, 7.0]
    assert engine.candles.sources(BTC) == {"venue": 1, "tape": 1, "file": 3}
    assert engine.candles.last_ms(BTC) == T0 + 2 * MINUTE_MS, "the venue is asked for what it did not say itself"
    again = app.build()
    again.load(engine.save())
    assert again.save() == engine.save() and again.candles.sources(BTC) == engine.candles.sources(BTC)
    for one in (engine, again):
        one.candles.on_tape_refuted(BTC, T0)
        assert minutes(one) == [0, 2, 3, 4]


# History


def test_history_says_how_far_it_was_moved_and_counts_as_an_input_of_the_source() -> None:
    engine = begun()
    assert engine.candles.shift_ms(BTC) is None
    before, digest = engine.source_inputs, engine.hexdigest()
    assert past(engine, 0, 1, shift_ms=-3 * MINUTE_MS) == [] and engine.rejection is None
    assert engine.candles.shift_ms(BTC) == -3 * MINUTE_MS and engine.candles.shift_ms("binance-usdm:ETHUSDT") is None
    assert engine.source_inputs == before + 1 and engine.hexdigest() != digest
    again = app.build()
    again.load(engine.save())
    assert again.candles.shift_ms(BTC) == -3 * MINUTE_MS


def test_history_is_for_the_symbols_followed_and_as_many_as_are_allowed() -> None:
    engine = begun(symbols=(BTC,))
    assert past(engine, 0, symbol="binance-usdm:ETHUSDT") == [] and engine.candles.symbols() == []
    engine = begun(symbols_max=1)
    past(engine, 0)
    caused = past(engine, 0, symbol="binance-usdm:ETHUSDT")
    assert "core.symbols_max" in rejected(engine) and isinstance(caused[-1], FrameRejected)
    assert engine.candles.symbols() == [BTC] and engine.candles.shift_ms("binance-usdm:ETHUSDT") is None


@pytest.mark.parametrize("rows", [b"1", b"\x00" * 48, candles(0).tobytes()[:-8], candles(*range(HISTORY_ROWS_MAX + 1)).tobytes()])
def test_history_that_is_no_page_of_candles_changes_nothing(rows: bytes) -> None:
    engine = begun()
    past(engine, rows=rows)
    assert "expected" in rejected(engine) and engine.candles.symbols() == [] and engine.candles.shift_ms(BTC) is None


# Of the trades

START_MS = T0 + 12_345
SECOND_MS = 1_000


class Traded(NamedTuple):
    """A trade: when it came on our clock, when it was on the venue's, and what it was."""

    ms: int
    venue_ms: int
    id: int
    price: str
    quantity: str


class Tape:
    """One symbol of a venue whose clock is ``ahead_ms`` of ours, with a difference of its depth twice a second.

    ``spaced`` writes trades with spaces between the parts of the JSON: the kernel leaves them to the general decoder.
    """

    def __init__(self, *, ahead_ms: int = 0, spaced: bool = False, settings: CoreSettings | None = None) -> None:
        self.engine = app.build()
        self.ahead_ms, self.spaced, self.update, self.ms = ahead_ms, spaced, 10, START_MS
        self.records: list[Record] = []
        self.engine.step(Configure(1, self.ms * 1_000_000, settings or CoreSettings()))
        self.engine.step(SessionStart(2, self.ms * 1_000_000, "test"))
        self.resync()

    def resync(self) -> None:
        """Let the book be LIVE: a snapshot and the difference that links."""
        snapshot = {"lastUpdateId": self.update, "symbol": "BTCUSDT", "bids": [["99.0", "1.000"]], "asks": [["201.0", "1.000"]]}
        self.send(json.dumps(snapshot))
        self.diff()

    def send(self, text: str) -> None:
        self.records += self.engine.step(Frame(self.engine.seq + 1, self.ms * 1_000_000, "binance-usdm", "BTCUSDT", text.encode()))

    def diff(self) -> None:
        before, self.update = self.update, self.update + 1
        ids = f'"U":{self.update},"u":{self.update},"pu":{before}'
        self.send(
            f'{{"e":"depthUpdate","E":{self.ms + self.ahead_ms},"s":"BTCUSDT",{ids},"b":[["98.5","{self.update % 9 + 1}.000"]],"a":[]}}'
        )

    def run(self, to_ms: int) -> None:
        """Let time pass, with depth."""
        while (next_ms := (self.ms // 500 + 1) * 500) <= to_ms:
            self.ms = next_ms
            self.diff()
        self.ms = to_ms
        self.records += self.engine.step(Heartbeat(self.engine.seq + 1, to_ms * 1_000_000))

    def trade(self, one: Traded, kind: str = "trade", **changed: object) -> None:
        self.run(one.ms)
        ids: dict[str, object] = {"t": one.id} if kind == "trade" else {"a": one.id, "f": 2 * one.id, "l": 2 * one.id + 1}
        message = {"e": kind, "E": one.venue_ms, "T": one.venue_ms, "s": "BTCUSDT", **ids, "p": one.price, "q": one.quantity, "m": True}
        self.send(json.dumps(message | changed, separators=(", ", ": ") if self.spaced else (",", ":")))

    def at(self, second: float, id: int, price: str = "100.0", quantity: str = "1.000") -> Traded:
        """A trade that comes so many seconds after the first whole minute, and was then on the venue's clock."""
        ms = T0 + MINUTE_MS + round(second * SECOND_MS)
        return Traded(ms, ms + self.ahead_ms, id, price, quantity)

    def until(self, second: float) -> None:
        self.run(T0 + MINUTE_MS + round(second * SECOND_MS))

    @property
    def rows(self) -> list[list[float]]:
        """Minute, counted from the first whole one, open, high, low, close, volume."""
        found = self.engine.candles.rows(BTC)
        assert set(self.engine.candles.sources(BTC)) <= {"tape"}
        return [[(one[0] - T0) / MINUTE_MS - 1, *one[1:]] for one in found.tolist()]

    @property
    def minutes(self) -> list[int]:
        return [int(one[0]) for one in self.rows]

    @property
    def late(self) -> int:
        return self.engine.microstructure._markets[BTC].book.trades_late


@pytest.fixture(params=["kernel", "general"])
def tape(request: pytest.FixtureRequest) -> Tape:
    return Tape(spaced=request.param == "general")


def test_a_minute_becomes_a_candle_two_seconds_after_its_end(tape: Tape) -> None:
    for second, id, price in ((-5, 1, "100.0"), (0, 2, "101.5"), (10, 3, "99.5"), (59.999, 4, "100.5"), (60, 5, "102.0")):
        tape.trade(tape.at(second, id, price, "0.250"))
    tape.until(61.9)
    assert tape.rows == []
    tape.until(62.1)
    assert tape.rows == [[0, 101.5, 101.5, 99.5, 100.5, 0.75]], "the minute of the first trade is none"
    tape.until(125)
    assert tape.rows[1:] == [[1, 102.0, 102.0, 102.0, 102.0, 0.25]] and tape.late == 0


@pytest.mark.parametrize("ahead_ms", [-40_000, -1_270, 1_270, 59_000])
def test_minutes_are_those_of_the_venue(ahead_ms: int) -> None:
    tape = Tape(ahead_ms=ahead_ms)
    shift = -ahead_ms / 1_000  # Our clock shows another time when a minute of the venue begins.
    for second, id in ((59, 1), (60, 2), (119.9, 3), (120, 4)):
        tape.trade(tape.at(second + shift, id, "100.0", "1.000"))
    tape.until(121.9 + shift)
    assert tape.rows == []
    tape.until(122.1 + shift)
    assert tape.rows == [[1, 100.0, 100.0, 100.0, 100.0, 2.0]]


def test_a_late_trade_counts_for_its_minute_until_that_has_closed(tape: Tape) -> None:
    tape.trade(tape.at(-1, 1))
    tape.trade(tape.at(30, 2))
    tape.trade(tape.at(60.5, 3, "105.0"))
    tape.trade(tape.at(61.9, 4, "107.0")._replace(venue_ms=T0 + 2 * MINUTE_MS - 1))
    tape.trade(tape.at(62.8, 5, "109.0")._replace(venue_ms=T0 + 2 * MINUTE_MS - 1))
    tape.until(130)
    assert tape.rows == [[0, 100.0, 107.0, 100.0, 107.0, 2.0], [1, 105.0, 105.0, 105.0, 105.0, 1.0]] and tape.late == 1


def test_a_later_trade_closes_a_minute_before_the_clock_looks(tape: Tape) -> None:
    """Its own time says that the minute ended two seconds ago, though the messages before it were slow."""
    tape.trade(tape.at(-1, 1))
    tape.trade(tape.at(30, 2))
    tape.trade(tape.at(61.01, 3)._replace(venue_ms=T0 + 2 * MINUTE_MS + 2 * SECOND_MS))
    tape.trade(tape.at(61.02, 4, "109.0")._replace(venue_ms=T0 + 2 * MINUTE_MS - 1))
    tape.until(63)
    assert tape.rows == [[0, 100.0, 100.0, 100.0, 100.0, 1.0]] and tape.late == 1


def test_an_empty_minute_carries_the_last_close_with_volume_zero(tape: Tape) -> None:
    tape.trade(tape.at(-1, 1, "100.0"))
    tape.trade(tape.at(-0.5, 2, "103.5"))
    tape.trade(tape.at(130, 3, "104.0"))
    tape.until(200)
    carried = [[minute, 103.5, 103.5, 103.5, 103.5, 0.0] for minute in (0, 1)]
    assert tape.rows == [*carried, [2, 104.0, 104.0, 104.0, 104.0, 1.0]]


def test_minutes_in_which_trades_were_missed_are_unknown_also_those_that_had_been_made(tape: Tape) -> None:
    told: list[str] = []
    for second, id in ((-1, 1), (5, 2), (65, 3), (85, 4)):
        tape.trade(tape.at(second, id))
    tape.until(250)
    assert tape.minutes == [0, 1, 2, 3], "as far as anybody knows"
    tape.engine.candles.merged = told.append
    version = tape.engine.candles.version(BTC)
    tape.trade(tape.at(250, 6))
    assert tape.minutes == [0] and told == [BTC] and tape.engine.candles.version(BTC) > version
    assert tape.records[-1] == TradesMissed(BTC, 5, 5)
    tape.trade(tape.at(310, 7))
    tape.until(370)
    assert tape.minutes == [0, 5], "the minute after the gap may lack what came before the trade that shows it"


def test_aggregates_make_candles_too_and_a_hole_in_their_ids_breaks_them(tape: Tape) -> None:
    for second, id in ((-1, 10), (5, 11), (65, 12), (66, 14), (130, 15), (190, 16)):
        tape.trade(tape.at(second, id), "aggTrade")
    tape.until(260)
    assert tape.minutes == [0, 2, 3] and tape.rows[0] == [0, 100.0, 100.0, 100.0, 100.0, 1.0]


def test_doubles_and_aggregates_beside_trades_count_once(tape: Tape) -> None:
    for second, id in ((-1, 1), (5, 2), (6, 2), (7, 1), (8, 3)):
        tape.trade(tape.at(second, id))
    tape.trade(tape.at(9, 1, "150.0"), "aggTrade")
    tape.until(63)
    assert tape.rows == [[0, 100.0, 100.0, 100.0, 100.0, 2.0]]


BREAKS: dict[str, Any] = {
    "a session": lambda tape: tape.engine.step(SessionStart(tape.engine.seq + 1, tape.ms * 1_000_000, "test")),
    "shed frames": lambda tape: tape.engine.step(Shed(tape.engine.seq + 1, tape.ms * 1_000_000, BTC, 5)),
    "silence": lambda tape: tape.engine.step(Heartbeat(tape.engine.seq + 1, (tape.ms + 4_000) * 1_000_000)),
    "a crossed book": lambda tape: tape.send(
        f'{{"e":"depthUpdate","E":{tape.ms},"s":"BTCUSDT","U":{tape.update + 1},"u":{tape.update + 1},"pu":{tape.update},'
        '"b":[["300.0","1.000"]],"a":[]}'
    ),
    "a trade of an unknown time": lambda tape: tape.trade(tape.at(90, 3)._replace(venue_ms=0)),
    "a trade of an absurd time": lambda tape: tape.trade(tape.at(90, 3)._replace(venue_ms=T0 + 10**10)),
    "a trade of long ago": lambda tape: tape.trade(tape.at(90, 3)._replace(venue_ms=T0 - 10**7)),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_minute_of_which_part_is_not_known_is_no_candle(tape: Tape, what: str) -> None:
    tape.trade(tape.at(-1, 1))
    tape.trade(tape.at(10, 2))
    tape.until(90)
    BREAKS[what](tape)
    tape.ms = max(tape.ms, tape.engine.now_ns // 1_000_000)
    if tape.engine.microstructure.health(BTC).state == "SYNCING":
        tape.resync()
    tape.until(100)
    next_id = tape.engine.microstructure._markets[BTC].book.trade_id + 1
    for id, second in enumerate((100, 110, 130, 190, 250), next_id or 9):
        tape.trade(tape.at(second, id))
    tape.until(255)
    assert tape.engine.microstructure.health(BTC).state == "LIVE"
    assert tape.minutes == [0, 2, 3]


def test_what_a_message_says_of_the_time_is_believed_within_bounds(tape: Tape) -> None:
    """A clock that one message throws into another century closes nothing."""
    tape.trade(tape.at(-1, 1))
    tape.trade(tape.at(10, 2))
    tape.send('{"e":"bookTicker","u":1,"s":"BTCUSDT","b":"99.0","B":"1.000","a":"201.0","A":"1.000","E":4102444800000}')
    tape.engine.step(Heartbeat(tape.engine.seq + 1, (tape.ms + 400) * 1_000_000))
    assert tape.engine.microstructure.health(BTC).lag_ms < -(10**9) and tape.rows == []
    tape.ms += 400
    tape.trade(tape.at(50, 3, "110.0"))
    tape.until(63)
    assert tape.rows == [[0, 100.0, 110.0, 100.0, 110.0, 2.0]]


def test_a_finer_lot_and_tick_change_no_candle(tape: Tape) -> None:
    tape.trade(tape.at(-1, 1))
    for second, id, price, quantity in ((1, 2, "100.1", "0.001"), (2, 3, "100.123", "0.0000001"), (3, 4, "100.05", "2")):
        tape.trade(tape.at(second, id, price, quantity))
    tape.until(63)
    assert tape.rows == [[0, 100.1, 100.123, 100.05, 100.05, 2.0010001]]


def test_a_volume_beyond_counting_makes_no_candle_and_no_fault(tape: Tape) -> None:
    tape.trade(tape.at(-1, 1))
    book = tape.engine.microstructure._markets[BTC].book
    tape.trade(tape.at(1, 2))
    book.marks[m.MINUTE_LOTS + (T0 // MINUTE_MS + 1) % 2] = m.SUM_MAX
    tape.trade(tape.at(2, 3))
    assert tape.engine.rejection is None
    tape.trade(tape.at(61, 4))
    tape.trade(tape.at(121, 5))
    tape.until(190)
    assert tape.minutes == [2]


def test_of_more_symbols_than_are_kept_the_tape_makes_no_candles() -> None:
    tape = Tape(settings=CoreSettings(symbols_max=1))
    tape.engine.step(History(tape.engine.seq + 1, tape.engine.now_ns, "binance-usdm:ETHUSDT", 0, candles(0).tobytes()))
    for second, id in ((-1, 1), (1, 2), (70, 3)):
        tape.trade(tape.at(second, id))
    assert tape.engine.candles.symbols() == ["binance-usdm:ETHUSDT"] and tape.engine.rejection is None


# Against the slow twin


def by_hand(trades: Sequence[Traded], ahead_ms: int, end_ms: int) -> list[list[float]]:
    """Candles of a tape without a hole, by the rule: the minute of the first trade is cut; each next one closes at the first
    multiple of 100 ms, or at the first trade, at which the venue's clock shows two seconds beyond its end."""
    messages = sorted(
        [(ms, ms + ahead_ms) for ms in range((START_MS // 500 + 1) * 500, end_ms + 1, 500)] + [(one.ms, one.venue_ms) for one in trades]
    )
    made, close = [], Decimal(trades[0].price)
    first = trades[0].venue_ms // MINUTE_MS
    for minute in range(first, end_ms // MINUTE_MS + 2):
        due_ms = (minute + 1) * MINUTE_MS + 2 * SECOND_MS
        closed_ms = next((one.ms for one in trades if one.venue_ms >= due_ms), end_ms + 1)
        for tick_ms in range(max(START_MS, due_ms - 60 * SECOND_MS) // 100 * 100, end_ms + 1, 100):
            heard = [message for message in messages if message[0] < tick_ms]
            if heard and tick_ms - (heard[-1][0] - heard[-1][1]) >= due_ms:
                closed_ms = min(closed_ms, tick_ms)
                break
        if closed_ms > end_ms:
            break
        taken = [one for one in trades if one.venue_ms // MINUTE_MS == minute and one.ms < closed_ms]
        prices = [Decimal(one.price) for one in taken] or [close]
        close = prices[-1]
        if minute > first:
            volume = sum((Decimal(one.quantity) for one in taken), Decimal(0))
            made.append([float(x) for x in (minute - T0 // MINUTE_MS - 1, prices[0], max(prices), min(prices), close, volume)])
    return made


def some_trades(draw: random.Random, ahead_ms: int) -> Iterator[Traded]:
    """A tape of some minutes: bursts and lulls, now and then a trade that is late, or one that comes from far ahead."""
    ms = START_MS + 700
    for id in range(1, draw.randrange(20, 60)):
        ms += draw.choice((1, 40, 300, 2_000, 9_000, 70_000 if id % 9 == 0 else 100)) + draw.randrange(50) * 7
        skew = draw.choice((0, 0, 0, -1_500, -2_500, 1_800))
        quantity = f"{draw.randrange(1, 2_000) / 1_000:.3f}"
        yield Traded(ms + (ms % 500 == 0), ms + ahead_ms + skew, id, f"{draw.randrange(1_000, 2_000) / 10:.1f}", quantity)


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([0, 1_270, -2_400]))
def test_a_tape_equals_the_slow_twin_by_either_way_and_across_restarts(seed: int, ahead_ms: int) -> None:
    trades = list(some_trades(random.Random(seed), ahead_ms))
    end_ms = trades[-1].ms + 3 * MINUTE_MS + 17
    taken: list[Tape] = []
    for spaced, restarts in ((False, False), (True, False), (False, True)):
        tape = Tape(ahead_ms=ahead_ms, spaced=spaced)
        for one in trades:
            if restarts and one.id % 3 == 0:
                state, tape.engine = tape.engine.save(), app.build()
                tape.engine.load(state)
                assert tape.engine.save() == state
            tape.trade(one)
        tape.run(end_ms)
        taken.append(tape)
    plain, general, resumed = taken
    assert plain.rows == by_hand(trades, ahead_ms, end_ms)
    assert resumed.engine.hexdigest() == plain.engine.hexdigest() and resumed.engine.save() == plain.engine.save()
    assert general.rows == plain.rows and general.late == plain.late
    state, other = (tape.engine.microstructure._markets[BTC].book.save() for tape in (plain, general))
    assert state == other


def test_the_tape_of_a_market_makes_the_candles_that_the_market_states_itself() -> None:
    start_ns = T0 * 1_000_000
    market = Simulator(SimulatorSettings(symbols=("BTCUSDT",)), start_ns, history_minutes=0)
    engine = app.build()
    engine.step(Configure(1, start_ns, CoreSettings()))
    for until_ns in (start_ns + 10**9, start_ns + 4 * MINUTE_MS * 1_000_000 + 3 * 10**9):
        for ts_ns, payload in market.advance(until_ns):
            engine.step(Frame(engine.seq + 1, max(ts_ns, engine.now_ns), "sim", "", payload))
        engine.step(Frame(engine.seq + 1, engine.now_ns, "sim", "BTCUSDT", market.snapshot("BTCUSDT")))
    made = engine.candles.rows("sim:BTCUSDT")
    stated = json.loads(market.klines("BTCUSDT", T0 + MINUTE_MS, T0 + 4 * MINUTE_MS - 1, 10))
    assert made.tolist() == [[float(x) for x in one[:6]] for one in stated] and len(made) == 3
    version = engine.candles.version("sim:BTCUSDT")
    send(engine, stated, "BTCUSDT", "sim")
    assert engine.candles.sources("sim:BTCUSDT") == {"venue": 3} and engine.candles.version("sim:BTCUSDT") == version


@pytest.mark.parametrize(
    ("name", "inverse"),
    [("binance-usdm_BTCUSDT_20240808T2354", False), ("binance-coinm_ETHUSD_PERP_20240808T2354", True)],
)
def test_candles_of_a_recording_are_those_of_its_raw_trades(data: Path, name: str, inverse: bool) -> None:
    path = data / "captures" / f"{name}.raw.gz"
    engine = app.build()
    traded: dict[int, list[tuple[Decimal, Decimal]]] = {}
    venue, _, symbol = name.removesuffix("_20240808T2354").partition("_")
    with gzip.open(path) as stream:
        for line in stream:
            stamp, _, payload = line.rstrip(b"\n").partition(b" ")
            if not engine.seq:
                engine.step(Configure(1, int(stamp), CoreSettings()))
                engine.step(SessionStart(2, int(stamp), "capture"))
            engine.step(Frame(engine.seq + 1, int(stamp), venue, symbol, payload))
            if b'"e":"trade"' in payload:
                said = json.loads(payload)["data"]
                traded.setdefault(said["T"] // MINUTE_MS, []).append((Decimal(said["p"]), Decimal(said["q"])))
    whole = sorted(traded)[1:-1]
    expected = [
        [minute * MINUTE_MS, prices[0], max(prices), min(prices), prices[-1], sum(quantities)]
        for minute, (prices, quantities) in ((minute, tuple(zip(*traded[minute], strict=True))) for minute in whole)
    ]
    full = f"{venue}:{symbol}"
    assert engine.candles.rows(full).tolist() == [[float(x) for x in one] for one in expected]
    assert len(whole) >= 4 and engine.candles.sources(full) == {"tape": len(whole)}
    assert (engine.microstructure._markets[full].book.contract is not None) == inverse, "volume is in contracts all the same"
    again = app.build()
    again.load(engine.save())
    assert again.save() == engine.save() and again.candles.rows(full).tobytes() == engine.candles.rows(full).tobytes()
