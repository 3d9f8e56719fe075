"""What Binance is asked for, on which address, and what it says that is no market data."""

import json
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.feeds import Acknowledged, FeedPlan, ShuttingDown, UnknownSymbol
from alphapack.venues import binance_api
from alphapack.venues.binance import BinanceCodec
from alphapack.venues.binance_api import KLINES_LIMIT, MINUTE_MS, BinanceApi

MARKETS = ("spot", "usdm", "coinm")
DAY_MS = 86_400_000
LISTING = (
    b'{"timezone":"UTC","symbols":[{"symbol":"BTCUSDT","filters":[{"filterType":"LOT_SIZE",  "stepSize":"0.001"}]},{"symbol":"ETHUSDT"}]}'
)


def api(market: str) -> BinanceApi:
    (plan,) = [one for one in binance_api.plans() if one.venue == f"binance-{market}"]
    return plan


def test_every_market_is_a_plan_on_its_own_hosts() -> None:
    plans: list[FeedPlan] = list(binance_api.plans())
    assert [plan.venue for plan in plans] == [BinanceCodec(market).venue for market in MARKETS]
    assert {urlsplit(plan.ws_url).scheme for plan in plans} == {"wss"} and {urlsplit(plan.rest_url).scheme for plan in plans} == {"https"}
    assert [urlsplit(plan.rest_url).hostname for plan in plans] == ["api.binance.com", "fapi.binance.com", "dapi.binance.com"]
    assert [(plan.limits.weight_per_minute, plan.limits.messages_per_s) for plan in plans] == [(6000, 5), (2400, 10), (2400, 10)]


@pytest.mark.parametrize(
    ("market", "name", "wanted"),
    [
        ("spot", "BTCUSDT", {"btcusdt@depth@100ms": "/stream", "btcusdt@bookTicker": "/stream", "btcusdt@trade": "/stream"}),
        (
            *("usdm", "BTCUSDT"),
            {"btcusdt@depth@100ms": "/public/stream", "btcusdt@bookTicker": "/public/stream", "btcusdt@aggTrade": "/market/stream"}
            | {"btcusdt@markPrice": "/market/stream"},
        ),
        (
            *("coinm", "BTCUSD_PERP"),
            {"btcusd_perp@depth@100ms": "/stream", "btcusd_perp@bookTicker": "/stream", "btcusd_perp@aggTrade": "/stream"}
            | {"btcusd_perp@markPrice": "/stream"},
        ),
    ],
)
def test_a_symbol_is_its_depth_ticker_and_trades(market: str, name: str, wanted: dict[str, str]) -> None:
    streams = api(market).streams(name)
    assert {one.name: one.path for one in streams} == wanted
    assert {one.symbol for one in streams} == {name}
    assert [one.name for one in streams if one.steady] == [f"{name.lower()}@depth@100ms"]


def test_control_messages_are_the_documented_ones() -> None:
    plan = api("spot")
    streams = plan.streams("BTCUSDT")
    names = ["btcusdt@depth@100ms", "btcusdt@bookTicker", "btcusdt@trade"]
    assert json.loads(plan.subscribe(streams, 3)) == {"method": "SUBSCRIBE", "params": names, "id": 3}
    assert json.loads(plan.unsubscribe(streams[:1], 4)) == {"method": "UNSUBSCRIBE", "params": names[:1], "id": 4}


# Frames


def test_the_stream_is_cut_out_of_a_combined_frame_and_out_of_nothing_else() -> None:
    plan = api("usdm")
    assert plan.stream_of(b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate"}}') == b"btcusdt@depth@100ms"
    for frame in (b"", b"{", b'{"result":null,"id":1}', b'{"e":"trade"}', b'{"data":{},"stream":"a@b"}', b"\xff\x00"):
        assert plan.stream_of(frame) == b""


@given(st.binary(max_size=200) | st.builds(lambda rest: b'{"stream":"' + rest, st.binary(max_size=50)))
def test_no_bytes_break_what_looks_at_frames(frame: bytes) -> None:
    plan = api("spot")
    assert isinstance(plan.stream_of(frame), bytes)
    notice = plan.notice(frame)
    assert notice is None or isinstance(notice, Acknowledged | ShuttingDown)


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        (b'{"result":null,"id":7}', Acknowledged(7)),
        (b'{"result":["a@trade"],"id":8}', Acknowledged(8)),
        (b'{"code":2,"msg":"Invalid request: no","id":7}', Acknowledged(7, "2: Invalid request: no")),
        (b'{"error":{"code":3,"msg":"Invalid JSON"},"id":7}', Acknowledged(7, "3: Invalid JSON")),
        (b'{"code":1,"msg":"a\\u001b[31m\\nb"}', Acknowledged(None, "1: a?[31m?b")),
        (b'{"error":{"code":1,"msg":"x"},"id":"text"}', Acknowledged(None, "1: x")),
        (b'{"e":"serverShutdown","E":1}', ShuttingDown()),
        (b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}', ShuttingDown()),
        (b'{"stream":"btcusdt@trade","data":{"e":"trade"}}', None),
        (b'{"e":"trade","s":"BTCUSDT","p":"1"}', None),
        (b"[" * 100_000, None),
        (b"[" * 10_000, None),
        (b'{"result":null,"id":7' + b" " * 70_000 + b"}", None),
        (b"\xff\xfe", None),
        (b"null", None),
    ],
)
def test_notices_are_told_from_market_data(frame: bytes, wanted: object) -> None:
    assert api("usdm").notice(frame) == wanted


# Requests


@pytest.mark.parametrize(
    ("market", "limit", "weight"),
    [("spot", 100, 5), ("spot", 500, 25), ("spot", 1000, 50), ("spot", 5000, 250), ("usdm", 50, 2), ("usdm", 100, 5), ("coinm", 1000, 20)],
)
def test_a_snapshot_weighs_what_its_limit_costs(market: str, limit: int, weight: int) -> None:
    request = BinanceApi(market, depth_limit=limit).snapshot("BTCUSDT")
    assert dict(request.parameters) == {"symbol": "BTCUSDT", "limit": str(limit)} and request.weight == weight
    assert request.path == {"spot": "/api/v3/depth", "usdm": "/fapi/v1/depth", "coinm": "/dapi/v1/depth"}[market]
    assert not request.bulk


@pytest.mark.parametrize(("market", "limit"), [("spot", 5001), ("usdm", 1001), ("usdm", 4), ("coinm", 0)])
def test_a_limit_that_no_venue_offers_is_refused(market: str, limit: int) -> None:
    with pytest.raises(ValueError, match=r"^expected a depth limit of 5 to (5000|1000), found \d+$"):
        BinanceApi(market, depth_limit=limit)


@given(st.sampled_from(MARKETS), st.integers(0, 2 * 10**12), st.integers(0, 40 * DAY_MS))
def test_pages_of_candles_follow_each_other_without_gap_or_overlap(market: str, start_ms: int, span_ms: int) -> None:
    requests = list(api(market).klines("BTCUSDT", start_ms, start_ms + span_ms))
    at_ms = start_ms
    for request in requests:
        said = dict(request.parameters)
        assert said["symbol"] == "BTCUSDT" and said["interval"] == "1m" and request.bulk
        assert int(said["startTime"]) == at_ms
        at_ms = int(said["endTime"]) + 1
        minutes = -(-(at_ms - int(said["startTime"])) // MINUTE_MS)
        assert 1 <= minutes == int(said["limit"]) <= KLINES_LIMIT
    assert at_ms == start_ms + span_ms
    assert len(requests) == -(-span_ms // (KLINES_LIMIT * MINUTE_MS))


def test_a_month_of_candles_fits_into_a_minutes_budget() -> None:
    weights = [request.weight for request in api("usdm").klines("BTCUSDT", 0, 30 * DAY_MS)]
    assert len(weights) == 44 and weights[:43] == [5] * 43 and weights[43] == 2  # 200 candles.
    assert {request.weight for request in api("spot").klines("BTCUSDT", 0, 30 * DAY_MS)} == {2}
    assert [request.weight for request in api("coinm").klines("BTCUSD_PERP", 0, MINUTE_MS)] == [1]


@pytest.mark.parametrize(("start_ms", "end_ms"), [(-1, 5), (5, 4)])
def test_candles_of_no_time_are_refused(start_ms: int, end_ms: int) -> None:
    with pytest.raises(ValueError, match="expected candles from a time to a later one"):
        api("spot").klines("BTCUSDT", start_ms, end_ms)


@pytest.mark.parametrize(("market", "path", "weight"), [("spot", "/api/v3", 20), ("usdm", "/fapi/v1", 1), ("coinm", "/dapi/v1", 1)])
def test_the_listing_is_asked_for_whole(market: str, path: str, weight: int) -> None:
    request = api(market).listing()
    assert request.path == f"{path}/exchangeInfo" and request.weight == weight
    assert "symbol" not in dict(request.parameters)  # Else a name that is not listed could not be told from its neighbours.


# What is listed


def test_the_cut_keeps_the_venues_own_objects_in_the_order_asked_for() -> None:
    plan = api("usdm")
    btc = b'{"symbol":"BTCUSDT","filters":[{"filterType":"LOT_SIZE",  "stepSize":"0.001"}]}'
    assert plan.cut(LISTING, ["BTCUSDT"]) == b'{"symbols":[' + btc + b"]}"
    assert plan.cut(LISTING, ["ETHUSDT", "BTCUSDT"]) == b'{"symbols":[{"symbol":"ETHUSDT"},' + btc + b"]}"


@pytest.mark.parametrize(
    ("symbols", "said"),
    [
        (["BTCUSD"], r"lists, found BTCUSD: the nearest are BTCUSDT"),
        (["BTCUSDT", "btcusdt"], r"lists, found btcusdt: the nearest are BTCUSDT"),
        (["0000000"], r"lists, found 0000000: it lists 2, none of them near$"),
    ],
)
def test_a_symbol_that_is_not_listed_is_told_with_its_neighbours(symbols: Iterable[str], said: str) -> None:
    with pytest.raises(UnknownSymbol, match=said):
        api("usdm").cut(LISTING, symbols)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"symbols":1}', b'{"symbols":[1]}', b'{"symbols":[{}]}', b"\xff", b"[" * 100_000])
def test_what_is_no_listing_is_an_error_but_no_unknown_symbol(body: bytes) -> None:
    with pytest.raises(ValueError, match=re.escape("expected exchangeInfo of binance-usdm, found ")) as raised:
        api("usdm").cut(body, ["BTCUSDT"])
    assert not isinstance(raised.value, UnknownSymbol)
