"""Candles through the engine's one door: as a venue's answers, as its stream, and as what is none of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack import app
from alphapack.domain.events import FrameRejected, Record
from alphapack.domain.inputs import Configure, CoreSettings, Frame
from alphapack.engine.engine import Engine
from alphapack.models.candles import COLUMNS, MINUTE_MS
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
