"""Binance's frames as the venue documents and really sends them, and everything else refused in one line."""

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.events import (
    Candle,
    Candles,
    DepthDiff,
    DepthSnapshot,
    FrameError,
    FundingRate,
    Ignored,
    Listing,
    TopOfBook,
    Trade,
    WireEvent,
)
from alphapack.domain.market import Verdict
from alphapack.venues import binance
from alphapack.venues.binance import BinanceCodec, nanos

E_MS = 1_723_161_256_299
MARKETS = ("spot", "usdm", "coinm")
DIFF = {"e": "depthUpdate", "E": E_MS, "s": "BTCUSDT", "U": 157, "u": 160, "pu": 149, "b": [["0.0024", "10"]], "a": [["0.0026", "100"]]}
TRADE = {"e": "trade", "E": E_MS, "T": E_MS - 1, "s": "BTCUSDT", "t": 12345, "p": "0.001", "q": "100", "m": True}
AGGREGATE = {"e": "aggTrade", "E": E_MS, "T": E_MS - 1, "s": "BTCUSDT", "a": 26129, "p": "0.001", "q": "100", "f": 100, "l": 105, "m": True}
TICKER = {"u": 400900217, "s": "BTCUSDT", "b": "25.35190000", "B": "31.21000000", "a": "25.36520000", "A": "40.66000000"}
SNAPSHOT = {"lastUpdateId": 160, "bids": [["0.0024", "10"]], "asks": [["0.0026", "100"]]}
CANDLE = {
    "e": "kline", "E": E_MS, "s": "BTCUSDT",
    "k": {"t": 1638747660000, "T": 1638747719999, "s": "BTCUSDT", "i": "1m", "f": 100, "L": 200, "o": "0.0010", "c": "0.0020",
          "h": "0.0025", "l": "0.0015", "v": "1000", "n": 100, "x": False, "q": "1", "V": "500", "Q": "0.5", "B": "1"},
}  # fmt: skip
MESSAGES = {"depth": DIFF, "trade": TRADE, "aggTrade": AGGREGATE, "bookTicker": TICKER, "snapshot": SNAPSHOT, "kline": CANDLE}


def pack(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def read(message: object, market: str = "usdm", symbol: str = "") -> WireEvent:
    payload = message if isinstance(message, bytes) else pack(message)
    (event,) = BinanceCodec(market).decode(payload, symbol)
    return event


def wrapped(message: object, stream: str = "btcusdt@any") -> dict[str, object]:
    return {"stream": stream, "data": message}


@pytest.fixture(scope="session")
def samples(data: Path) -> list[dict[str, Any]]:
    with gzip.open(data / "captures" / "wire_samples.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


# Every kind of message


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("wrap", [False, True])
def test_every_kind_of_message_is_read_in_every_market_with_and_without_a_wrapper(market: str, wrap: bool) -> None:
    name, now = f"binance-{market}:BTCUSDT", E_MS * 10**6
    wanted = {
        "depth": DepthDiff(name, now, 157, 160, 149, b'[["0.0024","10"]]', b'[["0.0026","100"]]'),
        "trade": Trade(name, now - 10**6, 12345, 12345, b'"0.001"', b'"100"', False),
        "aggTrade": Trade(name, now - 10**6, 100, 105, b'"0.001"', b'"100"', False, 26129),
        "bookTicker": TopOfBook(name, 0, 400900217, b'"25.35190000"', b'"31.21000000"', b'"25.36520000"', b'"40.66000000"'),
        "snapshot": DepthSnapshot(name, 0, 160, b'[["0.0024","10"]]', b'[["0.0026","100"]]'),
        "kline": Candle(name, now, 1638747660000, 1638747719999, "1m", "0.0010", "0.0025", "0.0015", "0.0020", "1000", False),
    }
    for kind, message in MESSAGES.items():
        assert read(wrapped(message) if wrap else message, market, "BTCUSDT") == wanted[kind], kind


def test_the_venues_own_samples_are_read(samples: list[dict[str, Any]]) -> None:
    found = {Path(one["file"]).stem: read(one["message"]) for one in samples if one["venue"] == "binance" and "e" in one["message"]}
    assert len(found) == 9
    kinds = {"agg_trade_stream": Trade, "trade_stream": Trade, "book_ticker_stream": TopOfBook, "depth_update_stream": DepthDiff}
    kinds["mark_price_stream"] = FundingRate
    for name, event in found.items():
        assert type(event) is kinds.get(name, Candle if "kline" in name else Ignored), name
    assert found["depth_update_stream"] == DepthDiff(
        "binance-usdm:BTCUSDT", 123456789 * 10**6, 157, 160, 149, b'[["0.0024","10"]]', b'[["0.0026","100"]]'
    )
    assert found["kline_stream_closed"].closed
    assert not found["kline_stream_open"].closed
    assert not found["trade_stream"].buyer_is_taker


@pytest.mark.parametrize("message", [TRADE, AGGREGATE])
def test_the_aggressor_is_the_seller_where_the_buyer_was_the_maker(message: dict[str, object]) -> None:
    assert read({**message, "m": True}).buyer_is_taker is False
    assert read({**message, "m": False}).buyer_is_taker is True


@pytest.mark.parametrize("kind", MESSAGES)
def test_unknown_keys_change_nothing(kind: str) -> None:
    more = {"ps": "BTCUSD", "st": 1, "X": "MARKET", "M": True, "new": {"deep": [[[1]]]}, "e2": None}
    assert read({**more, **MESSAGES[kind], **more}, symbol="BTCUSDT") == read(MESSAGES[kind], symbol="BTCUSDT")


@pytest.mark.parametrize(
    ("time", "wanted"),
    [(0, 0), (E_MS, E_MS * 10**6), (E_MS * 1_000 + 7, (E_MS * 1_000 + 7) * 1_000), (9 * 10**12, 9 * 10**18), (10**14, 10**17)],
)
def test_milli_and_microseconds_are_told_apart_by_size(time: int, wanted: int) -> None:
    assert nanos(time) == wanted
    assert read({**DIFF, "E": time}).venue_ns == wanted


@pytest.mark.parametrize("time", [-1, 4 * 10**15, 10**18, 10**30])
def test_a_time_outside_the_calendar_is_refused(time: int) -> None:
    for message in (DIFF, {**TRADE, "T": time}, CANDLE, TICKER):
        with pytest.raises(FrameError, match="expected a time"):
            read({**message, "E": time})


def test_a_snapshot_names_its_symbol_or_takes_that_of_its_frame() -> None:
    assert read(SNAPSHOT, symbol="btcusdt").symbol == "binance-usdm:BTCUSDT"
    dated = {**SNAPSHOT, "E": E_MS, "T": E_MS, "symbol": "BTCUSD_PERP", "pair": "BTCUSD"}
    assert read(dated, "coinm", "OTHER").symbol == "binance-coinm:BTCUSD_PERP"
    assert read(dated, "coinm", "OTHER").venue_ns == E_MS * 10**6
    with pytest.raises(FrameError, match="name of a symbol"):
        read(SNAPSHOT)


@pytest.mark.parametrize("depth", [5, 10, 20])
@pytest.mark.parametrize("message", [SNAPSHOT, DIFF], ids=["spot form", "futures form"])
@pytest.mark.parametrize("pace", ["", "@100ms", "@500ms"])
def test_a_partial_depth_stream_is_no_book(depth: int, message: dict[str, object], pace: str) -> None:
    """Its levels replace each other and never name a removed one; on futures it comes as a ``depthUpdate`` too."""
    assert isinstance(read(wrapped(message, f"btcusdt@depth{depth}{pace}"), symbol="BTCUSDT"), Ignored)


@pytest.mark.parametrize("pace", ["", "@0ms", "@100ms", "@500ms", "@250ms"])
def test_a_diff_depth_stream_of_any_pace_is_one(pace: str) -> None:
    assert isinstance(read(wrapped(DIFF, f"btcusdt@depth{pace}")), DepthDiff)


@pytest.mark.parametrize(
    "message",
    [
        {"result": None, "id": 1},
        {"result": None, "id": "abc"},
        {"result": ["btcusdt@depth"], "id": 3},
        {"code": 2, "msg": "Invalid request: unknown variant"},
        {"e": "serverShutdown", "E": E_MS},
        wrapped({"e": "serverShutdown", "E": E_MS}, "!serverShutdown"),
        {"e": "24hrTicker", "E": E_MS, "s": "BTCUSDT", "p": "-1.4", "o": "1", "h": "2", "l": "16456.51", "v": "3", "q": "4", "F": 3},
        {"e": "24hrMiniTicker", "E": E_MS, "s": "BTCUSDT", "c": "0.0025", "o": "0.0010", "h": "0.0025", "l": "0.0010", "v": "10"},
        {"e": "forceOrder", "E": E_MS, "o": {"s": "BTCUSDT", "S": "SELL", "l": "0.014", "T": E_MS}},
        {"e": "compositeIndex", "E": E_MS, "s": "DEFIUSDT", "p": "554.41", "C": "baseAsset", "c": [{"b": "BAL", "q": "USDT", "w": "1"}]},
    ],
    ids=lambda message: str(message)[:30],
)  # fmt: skip
def test_what_says_nothing_about_the_book_is_passed_over(message: dict[str, object]) -> None:
    assert isinstance(read(message), Ignored)


# What is refused


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *[("depth", key) for key in ("s", "U", "u", "pu", "b", "a")],
        *[("trade", key) for key in ("s", "t", "p", "q", "m")],
        *[("aggTrade", key) for key in ("s", "f", "l", "p", "q", "m")],
        *[("bookTicker", key) for key in ("s", "u", "b", "B", "a", "A")],
        *[("snapshot", key) for key in ("lastUpdateId", "bids", "asks")],
        *[("kline", key) for key in ("s", "k")],
    ],
)
def test_a_message_without_a_field_that_it_needs_is_refused(kind: str, key: str) -> None:
    short = {name: value for name, value in MESSAGES[kind].items() if name != key}
    for message in (short, wrapped(short)):
        with pytest.raises(FrameError, match=r"^expected .*found"):
            read(message, symbol="BTCUSDT")


def test_spot_differences_have_no_previous_id() -> None:
    spot = {name: value for name, value in DIFF.items() if name != "pu"}
    assert read(spot, "spot").previous is None


@pytest.mark.parametrize("venue", ["bybit", "okx", "coinbase", "hyperliquid"])
def test_messages_of_another_venue_are_refused(samples: list[dict[str, Any]], venue: str) -> None:
    messages = [one["message"] for one in samples if one["venue"] == venue]
    assert len(messages) >= 2
    for message in messages:
        for market in MARKETS:
            with pytest.raises(FrameError, match=r"^expected "):
                read(message, market)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b" ", b"null", b"0", b'""', b"{}", b"pong", b"{", b'{"e":', b"\xff\xfe", b"\x00" * 40, b"\xef\xbb\xbf{}",
        b'{"e":"trade"}}',
        b"[" * 5_000, b'{"data":' * 5_000, b'{"a":' * 5_000, b'{"unknown":' + b"[" * 5_000,
        b'{"stream":"x","data":' * 5_000 + b"1" + b"}" * 5_000, pack(wrapped(wrapped(DIFF))), pack(wrapped(wrapped(wrapped(SNAPSHOT)))),
        pack({"data": None}), pack({"data": []}), pack({"e": 5}), pack({"code": "60012", "msg": "x"}),
        *(pack(DIFF).replace(*one) for one in ((b"BTCUSDT", b"\xff\xfe"), (b"BTCUSDT", b"\\ud800"), (b"157", b"1" * 5_000))),
        *(pack({**DIFF, "s": name}) for name in ("", "B" * 41, "A:B", "A B", "A/../B", "A\n", "\u202e", 5)),
        *(pack({**DIFF, "E": time}) for time in ("1", 1.5, None)),
        *(pack({**DIFF, "u": last}) for last in ("160", 160.5, 156, -1)), pack({**DIFF, "U": -1}), pack({**DIFF, "pu": "149"}),
        *(pack({**TRADE, "m": maker}) for maker in ("true", None, 1)), pack({**TRADE, "t": -5}), pack({**AGGREGATE, "f": 106}),
        pack({**CANDLE, "k": {}}), pack({**CANDLE, "k": []}),
        pack({**SNAPSHOT, "lastUpdateId": -1}), pack({**SNAPSHOT, "lastUpdateId": "160"}),
    ],
    ids=lambda payload: repr(payload[:40]),
)  # fmt: skip
def test_malformed_frames_are_refused_in_one_short_line(payload: bytes) -> None:
    for market in MARKETS:
        with pytest.raises(FrameError) as error:
            read(payload, market, "BTCUSDT")
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("number", [2**64, 10**26])
@pytest.mark.parametrize(
    ("message", "key"),
    [(DIFF, "u"), (TRADE, "t"), (AGGREGATE, "l"), (TICKER, "u"), (SNAPSHOT, "lastUpdateId")],
    ids=["depth", "trade", "aggTrade", "bookTicker", "snapshot"],
)
def test_an_id_of_more_than_64_bits_is_refused_because_no_checkpoint_could_hold_it(
    message: dict[str, object], key: str, number: int
) -> None:
    with pytest.raises(FrameError):
        read({**message, key: number}, symbol="BTCUSDT")


@settings(max_examples=250)
@given(st.sampled_from(sorted(MESSAGES)), st.integers(0, 400), st.binary(max_size=4), st.integers(0, 4), st.booleans())
def test_any_damage_is_read_as_something_or_refused(kind: str, at: int, piece: bytes, width: int, wrap: bool) -> None:
    payload = bytearray(pack(wrapped(MESSAGES[kind]) if wrap else MESSAGES[kind]))
    payload[at % len(payload) : at % len(payload) + width] = piece
    try:
        event = read(bytes(payload), symbol="BTCUSDT")
    except FrameError:
        return
    assert isinstance(event, DepthDiff | DepthSnapshot | Trade | TopOfBook | Candle | Ignored)
    assert event.symbol.startswith("binance-usdm")


def test_invented_names_do_not_fill_the_memory() -> None:
    codec = BinanceCodec("spot")
    for i in range(10_500):
        codec.decode(b'{"u":1,"s":"N%d","b":"1","B":"1","a":"2","A":"1"}' % i, "")
    assert len(codec._names) <= 10_000
    (event,) = codec.decode(b'{"u":1,"s":"n10499","b":"1","B":"1","a":"2","A":"1"}', "")
    assert event.symbol == "binance-spot:N10499"


# Continuity, by the numbered rules


def verdict(market: str, first: int, last: int, previous: int | None, book: int, *, after_snapshot: bool) -> Verdict:
    diff = DepthDiff(f"binance-{market}:X", 0, first, last, previous, b"[]", b"[]")
    return BinanceCodec(market).verdict(diff, book, first_after_snapshot=after_snapshot)


APPLY, DUPLICATE, GAP = Verdict.APPLY, Verdict.DUPLICATE, Verdict.GAP


@pytest.mark.parametrize(
    ("rule", "first", "last", "wanted"),
    [
        ("2: u before lastUpdateId", 90, 99, DUPLICATE),
        ("2: u at lastUpdateId", 95, 100, DUPLICATE),
        ("3: bridges U = lastUpdateId + 1", 101, 105, APPLY),
        ("3: bridges U inside", 95, 105, APPLY),
        ("3: single update", 101, 101, APPLY),
        ("3: overlaps by one", 100, 101, APPLY),
        ("4: one missing", 102, 105, GAP),
        ("4: many missing", 1_000, 1_001, GAP),
    ],
)
@pytest.mark.parametrize("after_snapshot", [True, False])
def test_the_rule_of_spot(rule: str, first: int, last: int, wanted: Verdict, after_snapshot: bool) -> None:
    assert verdict("spot", first, last, None, 100, after_snapshot=after_snapshot) is wanted, rule


@pytest.mark.parametrize("market", ["usdm", "coinm"])
@pytest.mark.parametrize(
    ("rule", "first", "last", "previous", "after_snapshot", "wanted"),
    [
        ("2: u before lastUpdateId", 90, 99, 89, True, DUPLICATE),
        ("3: u at lastUpdateId", 95, 100, 89, True, APPLY),
        ("3: U at lastUpdateId", 100, 105, 89, True, APPLY),
        ("3: bridges", 95, 105, 89, True, APPLY),
        ("3: goes on directly, pu == lastUpdateId", 110, 120, 100, True, APPLY),
        ("3: pu == lastUpdateId, U just behind", 101, 120, 100, True, APPLY),
        ("3: beyond, pu elsewhere", 101, 120, 99, True, GAP),
        ("3: far beyond", 500, 520, 499, True, GAP),
        ("4: pu is the last u", 157, 160, 100, False, APPLY),
        ("4: ids need not be contiguous", 5_000, 6_000, 100, False, APPLY),
        ("4: pu behind the last u", 95, 160, 99, False, GAP),
        ("4: pu beyond the last u", 157, 160, 101, False, GAP),
        ("a duplicate", 95, 100, 90, False, DUPLICATE),
        ("an old one again", 80, 90, 79, False, DUPLICATE),
    ],
)
def test_the_rule_of_futures(market: str, rule: str, first: int, last: int, previous: int, after_snapshot: bool, wanted: Verdict) -> None:
    assert verdict(market, first, last, previous, 100, after_snapshot=after_snapshot) is wanted, rule


def test_contract_values() -> None:
    by_market = {codec.venue: codec.contract_value for codec in binance.codecs()}
    assert [by_market[f"binance-{market}"]("BTCUSD_PERP") for market in MARKETS] == [None, None, 100.0]
    assert by_market["binance-coinm"]("ETHUSD_PERP") == by_market["binance-coinm"]("BTCDOMUSD_PERP") == 10.0


# REST answers


def rest_row(at: int = 1_638_747_660_000, **changed: Any) -> list[Any]:
    values = {"t": at, "o": "0.0010", "h": "0.0025", "l": "0.0005", "c": "0.0020", "v": "1000", "T": at + 59_999, **changed}
    return [*values.values(), "1", 100, "500", "0.5", "0"]


def all_of(message: object, market: str = "usdm", symbol: str = "") -> tuple[WireEvent, ...]:
    return BinanceCodec(market).decode(message if isinstance(message, bytes) else pack(message), symbol)


@pytest.mark.parametrize("market", MARKETS)
def test_candles_of_the_past_are_read_in_every_market(market: str) -> None:
    at = 1_638_747_660_000
    wanted = Candles(
        f"binance-{market}:BTCUSDT",
        0,
        60_000,
        ((at, "0.0010", "0.0025", "0.0005", "0.0020", "1000"), (at + 60_000, "0.0010", "0.0025", "0.0005", "0.0020", "7")),
    )
    assert read([rest_row(), rest_row(at + 60_000, v="7")], market, "btcusdt") == wanted
    hour = read([rest_row(T=at + 3_600_000 - 1)], market, "BTCUSDT")
    assert isinstance(hour, Candles) and hour.interval_ms == 3_600_000


def test_an_answer_without_candles_says_nothing() -> None:
    assert read([], symbol="BTCUSDT") == Ignored("binance-usdm:BTCUSDT", 0, "no candles")


def test_as_many_candles_as_an_answer_may_hold_are_read_and_no_more() -> None:
    rows = [rest_row(60_000 * i) for i in range(binance.CANDLES_MAX + 1)]
    event = read(rows[1:], symbol="BTCUSDT")
    assert isinstance(event, Candles) and len(event.rows) == binance.CANDLES_MAX
    with pytest.raises(FrameError, match="expected at most 1500 candles, found 1501"):
        read(rows, symbol="BTCUSDT")


@pytest.mark.parametrize(
    "rows",
    [
        [1], [[]], [rest_row()[:11]], [[*rest_row(), "more"]], [rest_row(o=1.5)], [rest_row(o=None)], [rest_row(t="1")], [rest_row(t=1.5)],
        [rest_row(t=True)], [rest_row(t=-60_000, T=-1)], [rest_row(t=10**400, T=10**400 + 59_999)], [rest_row(T=10**300)],
        [rest_row(T=1_638_747_659_999)], [rest_row(T=0)], [rest_row(), rest_row(T=1_638_747_660_000 + 3_599_999)], {"rows": [rest_row()]},
        [rest_row(), None], [[rest_row()]],
    ],
    ids=lambda rows: repr(rows)[:50],
)  # fmt: skip
def test_what_is_no_answer_of_candles_is_refused(rows: object) -> None:
    with pytest.raises(FrameError, match=r"^expected ") as error:
        read(rows, symbol="BTCUSDT")
    assert "\n" not in str(error.value)


def test_candles_need_the_name_of_their_symbol() -> None:
    with pytest.raises(FrameError, match="name of a symbol"):
        read([rest_row()])


@pytest.mark.parametrize("key", ["t", "T"])
@pytest.mark.parametrize("time", [-1, 10**18, 10**400])
def test_a_candle_of_a_time_outside_the_calendar_is_refused(key: str, time: int) -> None:
    with pytest.raises(FrameError, match="expected a time in milli- or microseconds"):
        read({**CANDLE, "k": {**CANDLE["k"], key: time}})


PRICE = {"filterType": "PRICE_FILTER", "minPrice": "0.10", "maxPrice": "1000000", "tickSize": "0.10"}
LOT = {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.00100000"}
OTHERS = [
    {"filterType": "MARKET_LOT_SIZE", "minQty": "0", "maxQty": "100", "stepSize": "0.00000000"},
    {"filterType": "MAX_NUM_ORDERS", "limit": 200},
    {"filterType": "PERCENT_PRICE", "multiplierUp": "1.05", "multiplierDown": "0.95", "multiplierDecimal": "4"},
    {"filterType": "ICEBERG_PARTS", "limit": 10},
]
LISTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # As each market writes its entry; what is read of it.
    "spot": (
        {"symbol": "BTCUSDT", "status": "TRADING", "filters": [PRICE, LOT, *OTHERS, {"filterType": "NOTIONAL", "minNotional": "5.0"}]},
        {"tick": "0.1", "lot": "0.001", "min_notional": 5.0},
    ),
    "usdm": (
        {
            "symbol": "BTCUSDT",
            "contractType": "PERPETUAL",
            "filters": [*OTHERS, LOT, PRICE, {"filterType": "MIN_NOTIONAL", "notional": "100"}],
        },
        {"tick": "0.1", "lot": "0.001", "min_notional": 100.0},
    ),
    "coinm": (
        {"symbol": "ETHUSD_PERP", "contractSize": 10, "contractStatus": "TRADING", "filters": [PRICE, {**LOT, "stepSize": "1"}]},
        {"tick": "0.1", "lot": "1", "contract_value": 10.0},
    ),
}


@pytest.mark.parametrize("market", MARKETS)
def test_a_listing_is_read_in_every_market(market: str) -> None:
    entry, said = LISTED[market]
    name = f"binance-{market}:{entry['symbol']}"
    info = {"timezone": "UTC", "serverTime": E_MS, "rateLimits": [], "symbols": [entry]}
    assert all_of(info, market) == (Listing(name, 0, **said),)
    assert all_of(info, market, "OTHER") == (Listing(name, 0, **said),), "it names its symbols itself"


def test_a_listing_of_many_is_an_event_for_each_in_order() -> None:
    names = [f"S{i}USDT" for i in range(300)]
    assert [event.symbol for event in all_of({"symbols": [{"symbol": name} for name in names]})] == [f"binance-usdm:{n}" for n in names]
    assert all_of({"symbols": []}) == ()
    with pytest.raises(FrameError, match="expected at most 10000 instruments, found 10001"):
        all_of({"symbols": [{"symbol": f"S{i}"} for i in range(10_001)]})


def test_what_a_venue_does_not_state_is_left_open() -> None:
    zero = [{**PRICE, "tickSize": "0.00000000"}, {**LOT, "stepSize": "0"}, {"filterType": "NOTIONAL"}]
    for filters in ([], zero):
        assert all_of({"symbols": [{"symbol": "BTCUSDT", "filters": filters}]}) == (Listing("binance-usdm:BTCUSDT", 0),)


@pytest.mark.parametrize(
    ("maker", "taker", "wanted"),
    [
        ("0.0002", "0.0005", (2.0, 5.0)),
        ("-0.00025", "0", (-2.5, 0.0)),
        ("0.1", "-0.1", (1_000.0, -1_000.0)),
        ("0.00017", None, (1.7, None)),
    ],
)
def test_commissions_are_fractions_in_the_wire_and_basis_points_here(maker: str, taker: str | None, wanted: tuple[float, float]) -> None:
    entry = {"symbol": "BTCUSDT", "makerCommission": maker, **({} if taker is None else {"takerCommission": taker})}
    (event,) = all_of({"symbols": [entry]})
    assert isinstance(event, Listing) and (event.maker_fee_bps, event.taker_fee_bps) == wanted


@pytest.mark.parametrize("size", [0, -10, 1e12, None])
def test_a_contract_of_no_size_is_the_codecs_own(size: float | None) -> None:
    (event,) = all_of({"symbols": [{"symbol": "BTCUSD_PERP", "contractSize": size}]}, "coinm")
    assert isinstance(event, Listing) and event.contract_value is None


def test_only_inverse_contracts_have_a_value() -> None:
    for market in ("spot", "usdm"):
        (event,) = all_of({"symbols": [{"symbol": "BTCUSDT", "contractSize": 100}]}, market)
        assert isinstance(event, Listing) and event.contract_value is None


@pytest.mark.parametrize(
    "entry",
    [
        5, None, {}, {"symbol": ""}, {"symbol": "A:B"}, {"symbol": "A" * 41}, {"symbol": 5}, {"symbol": "X", "filters": {}},
        {"symbol": "X", "filters": [5]}, {"symbol": "X", "filters": [{}]}, {"symbol": "X", "filters": [{"filterType": 5}]},
        *({"symbol": "X", "filters": [{**PRICE, "tickSize": tick}]} for tick in ("-0.1", "x", "", "nan", "1e-3", "inf", 0.1, "9" * 19)),
        *({"symbol": "X", "filters": [{**LOT, "stepSize": lot}]} for lot in ("-1", "0.1.1", " ", True)),
        *({"symbol": "X", "filters": [{"filterType": "NOTIONAL", "minNotional": least}]} for least in ("-5", "nan", "inf", "x", 5)),
        *({"symbol": "X", "makerCommission": fee} for fee in ("nan", "--0.1", "0.2", "-0.2", "x", "-", "", 0.1, "inf", "-inf")),
        {"symbol": "X", "contractSize": "10"},
    ],
    ids=lambda entry: repr(entry)[:90],
)  # fmt: skip
def test_a_listing_with_one_that_is_none_is_refused_in_one_short_line(entry: object) -> None:
    for market in MARKETS:
        with pytest.raises(FrameError, match=r"^expected .*found ") as error:
            all_of({"symbols": [{"symbol": "BTCUSDT"}, entry]}, market)
        assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("symbols", [5, "BTCUSDT", {}, True, None])
def test_symbols_that_are_no_list_are_refused(symbols: object) -> None:
    with pytest.raises(FrameError, match=r"^expected "):
        all_of({"symbols": symbols})


@settings(max_examples=200)
@given(st.sampled_from(["listing", "candles"]), st.integers(0, 600), st.binary(max_size=4), st.integers(0, 4))
def test_any_damage_of_an_answer_is_read_as_something_or_refused(kind: str, at: int, piece: bytes, width: int) -> None:
    payload = bytearray(pack([rest_row(), rest_row(1_638_747_720_000)] if kind == "candles" else {"symbols": [LISTED["spot"][0]]}))
    payload[at % len(payload) : at % len(payload) + width] = piece
    try:
        events = BinanceCodec("spot").decode(bytes(payload), "BTCUSDT")
    except FrameError:
        return
    assert all(event.symbol.startswith("binance-spot") for event in events)


# Another source that speaks the wire


def test_the_simulator_is_read_as_the_venue_whose_wire_it_speaks() -> None:
    codec, own = BinanceCodec("usdm", "sim"), BinanceCodec("usdm")
    assert codec.venue == "sim" and codec.frame_format == own.frame_format
    for kind, message in {**MESSAGES, "candles": [rest_row()], "listing": {"symbols": [LISTED["usdm"][0]]}}.items():
        for event, wanted in zip(codec.decode(pack(message), "BTCUSDT"), own.decode(pack(message), "BTCUSDT"), strict=True):
            assert event == msgspec.structs.replace(wanted, symbol="sim:BTCUSDT"), kind
    assert codec.contract_value("BTCUSD_PERP") is None
    with pytest.raises(FrameError, match="expected a sim message"):
        codec.decode(b"garbage", "")
    assert [one.venue for one in binance.codecs()] == ["binance-spot", "binance-usdm", "binance-coinm", "sim"]
