import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from yarl import URL

from alphapack.domain.events import DepthDiff, DepthSnapshot
from alphapack.domain.market import BinanceMarket, Verdict
from alphapack.domain.simulation import SimulatorSettings
from alphapack.models.simulator import Simulator
from alphapack.shell import mock
from alphapack.shell.captures import Capture, Line
from alphapack.shell.faults import TapeFrame, combined, data_of, stream_of
from alphapack.shell.mock import Limits, MockExchange, MockSettings, PortTaken, Weights, aggregate, key_of, ws_frame
from alphapack.shell.tapes import CaptureTape, TapeError
from alphapack.venues.binance import BinanceCodec
from rig import MS, PATIENCE_S, START_NS, FakeMarket, S

ALL = ("depth@100ms", "trade", "bookTicker")
EASY = Limits(messages_per_s=1_000, weight_per_minute=2_400, ping_s=1_000.0, pong_s=1_000.0)


class FakeTape:
    """A frame every ten milliseconds, the symbols and their channels in turn; books as of the last frame released."""

    def __init__(self, names: tuple[str, ...] = ("BTCUSDT", "ETHUSDT"), limit_ns: int = 1 << 62) -> None:
        self.now_ns = START_NS
        self.markets = {name: FakeMarket(name) for name in names}
        self.asked: list[tuple[str, int, int, int]] = []
        self._limit_ns = limit_ns
        self._turns = itertools.cycle([(market, channel) for channel in ALL for market in self.markets.values()])

    def advance(self, until_ns: int) -> list[TapeFrame]:
        frames = []
        for ts_ns in range(self.now_ns // (10 * MS) * 10 * MS + 10 * MS, min(until_ns, self._limit_ns) + 1, 10 * MS):
            market, channel = next(self._turns)
            data = {"depth@100ms": market.diff, "trade": market.trade, "bookTicker": market.ticker}[channel](ts_ns)
            frames.append((ts_ns, combined(f"{market.name.lower()}@{channel}".encode(), data)))
        self.now_ns = max(self.now_ns, until_ns)
        return frames

    def snapshot(self, symbol: str, limit: int = 1_000) -> bytes:
        return self.markets[symbol].snapshot()

    def klines(self, symbol: str, start_ms: int, end_ms: int, limit: int) -> bytes:
        self.asked.append((symbol, start_ms, end_ms, limit))
        return b"[]"

    def exchange_info(self) -> bytes:
        return json.dumps({"symbols": [{"symbol": name} for name in self.markets]}).encode()


class FakeSeconds:
    def __init__(self) -> None:
        self.now_s = 30.0

    def __call__(self) -> float:
        return self.now_s


class Client:
    """What the tests speak to an exchange with."""

    def __init__(self, exchange: MockExchange, session: aiohttp.ClientSession) -> None:
        self.exchange, self._session = exchange, session

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.exchange.port}{path}"

    async def get(self, path: str) -> tuple[int, Any, Any]:
        async with self._session.get(self.url(path)) as response:
            return response.status, json.loads(await response.read()), response.headers

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        async with self._session.post(self.url(path), data=json.dumps(body)) as response:
            return response.status, await response.json()

    async def ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, Any]:
        body = b'{"kind":"drop"}' if method == "POST" else None
        async with self._session.request(method, URL(self.url(path), encoded=True), headers=headers, data=body) as response:
            return response.status, json.loads(await response.read() or b"null")

    async def truth(self) -> list[Any]:
        async with self._session.get(self.url("/mock/truth")) as response:
            return [json.loads(line) for line in (await response.read()).splitlines()]

    async def open(self, path: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        return await self._session.ws_connect(self.url(path), decode_text=False, max_msg_size=1 << 24, **options)


async def answer(ws: aiohttp.ClientWebSocketResponse, **call: object) -> Any:
    await ws.send_str(json.dumps(call))
    return json.loads((await heard(ws, 1))[0])


async def heard(ws: aiohttp.ClientWebSocketResponse, count: int) -> list[bytes]:
    """The next messages."""
    return [(await asyncio.wait_for(_data(ws), PATIENCE_S)) for _ in range(count)]


async def _data(ws: aiohttp.ClientWebSocketResponse) -> bytes:
    message = await ws.receive()
    assert message.type is aiohttp.WSMsgType.TEXT, message
    return message.data


async def ended(ws: aiohttp.ClientWebSocketResponse) -> int | None:
    """How a connection ends, once all that was sent before is read."""
    async with asyncio.timeout(PATIENCE_S):
        while (await ws.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG):
            pass
    return ws.close_code


def exchange(
    test: Callable[[Client], Coroutine[Any, Any, None]],
    tape: Any = None,
    clock: Callable[[], float] | None = None,
    on: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
    **options: Any,
) -> None:
    """Run a test against an exchange, and see that nothing of it is left."""

    async def main() -> None:
        before = asyncio.all_tasks()
        options.setdefault("limits", EASY)
        settings = MockSettings(**options)
        async with (
            MockExchange(tape or FakeTape(), settings, **({"clock": clock} if clock else {})) as one,
            aiohttp.ClientSession() as session,
        ):
            await test(Client(one, session))
        assert asyncio.all_tasks() == before

    on(main())


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not what():
            await asyncio.sleep(0.001)


# Streams


def test_a_combined_connection_is_sent_what_the_tape_says() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/stream?streams=btcusdt@depth@100ms/ethusdt@trade")
        twin = FakeTape()
        expected = [
            payload for _, payload in twin.advance(START_NS + S) if stream_of(payload) in (b"btcusdt@depth@100ms", b"ethusdt@trade")
        ]
        assert client.exchange.release(START_NS + S) == 100
        assert await heard(ws, len(expected)) == expected

    exchange(test)


def test_it_serves_on_uvloop_too() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/stream?streams=btcusdt@depth@100ms")
        client.exchange.release(START_NS + 10 * MS)
        assert len(await heard(ws, 1)) == 1

    exchange(test, on=uvloop.run)


def test_a_raw_connection_is_sent_the_data_alone() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/ws/btcusdt@bookTicker")
        client.exchange.release(START_NS + 60 * MS)
        (message,) = await heard(ws, 1)
        assert json.loads(message)["e"] == "bookTicker"
        named = next(payload for _, payload in FakeTape().advance(START_NS + 60 * MS) if stream_of(payload) == b"btcusdt@bookTicker")
        assert message == data_of(named, b"btcusdt@bookTicker")

    exchange(test)


def test_differences_are_served_under_the_name_that_was_asked_for() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/stream?streams=btcusdt@depth")
        client.exchange.release(START_NS + 10 * MS)
        (message,) = await heard(ws, 1)
        assert json.loads(message)["stream"] == "btcusdt@depth"

    exchange(test, market="coinm")


def test_subscriptions_come_and_go() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/stream")
        assert await answer(ws, method="SUBSCRIBE", params=["btcusdt@trade", "nosuch@depth"], id=1) == {"result": None, "id": 1}
        assert await answer(ws, method="LIST_SUBSCRIPTIONS", id=2) == {"result": ["btcusdt@trade", "nosuch@depth"], "id": 2}
        client.exchange.release(START_NS + 60 * MS)
        assert json.loads((await heard(ws, 1))[0])["stream"] == "btcusdt@trade"
        assert await answer(ws, method="UNSUBSCRIBE", params=["btcusdt@trade"], id=3) == {"result": None, "id": 3}
        client.exchange.release(START_NS + S)
        assert await answer(ws, method="LIST_SUBSCRIPTIONS", id=4) == {"result": ["nosuch@depth"], "id": 4}, "and no frame came before it"

    exchange(test)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"method": "SUBSCRIBE", "params": ["not a stream"], "id": 1}, 2),
        ({"method": "SUBSCRIBE", "params": [True], "id": 1}, 2),
        ({"method": "BUY", "params": [], "id": 1}, 2),
        ({"method": "SUBSCRIBE", "params": ["a@depth"], "id": "one"}, 2),
        ({"method": "SUBSCRIBE", "params": ["a@depth"], "id": -1}, 2),
        ({"method": "SUBSCRIBE", "params": "a@depth", "id": 1}, 2),
        ({"params": ["a@depth"], "id": 1}, 2),
        ({"method": "GET_PROPERTY", "params": ["colour"], "id": 1}, 0),
        ({"method": "SET_PROPERTY", "params": ["combined", "yes"], "id": 1}, 1),
        ({"method": "SUBSCRIBE", "params": [f"s{i}@depth" for i in range(1_025)], "id": 1}, 2),
        ("}", 3),
    ],
)
def test_what_is_no_request_is_told_so(call: Any, code: int) -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/ws")
        await ws.send_str(call if isinstance(call, str) else json.dumps(call))
        error = json.loads((await heard(ws, 1))[0])["error"]
        assert error["code"] == code and error["msg"]
        assert (await answer(ws, method="LIST_SUBSCRIPTIONS", id=9))["result"] == []

    exchange(test)


def test_the_wrapper_is_a_property_of_the_connection() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/ws/btcusdt@depth@100ms")
        assert await answer(ws, method="GET_PROPERTY", params=["combined"], id=1) == {"result": False, "id": 1}
        assert await answer(ws, method="SET_PROPERTY", params=["combined", True], id="x2") == {"result": None, "id": "x2"}
        client.exchange.release(START_NS + 10 * MS)
        assert json.loads((await heard(ws, 1))[0])["stream"] == "btcusdt@depth@100ms"

    exchange(test, market="spot")


def test_trades_are_aggregated_where_asked() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/market/stream?streams=btcusdt@aggTrade/btcusdt@depth@100ms")
        client.exchange.release(START_NS + 60 * MS)
        trade = next(json.loads(payload)["data"] for _, payload in FakeTape().advance(START_NS + 60 * MS) if b"btcusdt@trade" in payload)
        (message,) = await heard(ws, 1)
        assert json.loads(message) == {
            "stream": "btcusdt@aggTrade",
            "data": {"e": "aggTrade", "a": trade["t"], "f": trade["t"], "l": trade["t"], **{key: trade[key] for key in "EspqTm"}},
        }
        (event,) = BinanceCodec("usdm").decode(message, "")
        assert (event.first_id, event.last_id, event.aggregate) == (trade["t"], trade["t"], True)  # type: ignore[union-attr]
        listed = await answer(ws, method="LIST_SUBSCRIPTIONS", id=1)
        assert listed["result"] == ["btcusdt@aggTrade", "btcusdt@depth@100ms"], "differences are not routed there: silence, no error"

    exchange(test)


def test_what_the_venue_does_not_aggregate_makes_no_aggregate() -> None:
    trade = b'{"e":"trade","E":1,"T":1,"s":"A","t":5,"p":"1","q":"2","X":"%b","m":true%b}'
    assert aggregate(trade % (b"INSURANCE_FUND", b"")) is None
    assert json.loads(aggregate(trade % (b"MARKET", b',"M":true')) or b"")["M"] is True


def test_usdm_is_not_served_on_its_retired_addresses() -> None:
    async def test(client: Client) -> None:
        for path in ("/stream?streams=btcusdt@trade", "/ws/btcusdt@trade"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await client.open(path)
            assert error.value.status == 404

    exchange(test)


@pytest.mark.parametrize(("stream", "key"), [("a@depth", "a@depth"), ("a@depth@500ms", "a@depth"), ("a@depth5@100ms", "a@depth5@100ms")])
def test_differences_of_any_interval_are_one_channel(stream: str, key: str) -> None:
    assert key_of(stream.encode()) == key.encode()


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_are_as_the_protocol_has_them(size: int) -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/ws")
        next(iter(client.exchange._clients)).write(ws_frame(b"x" * size))
        assert await heard(ws, 1) == [b"x" * size]

    exchange(test)


# Limits of a connection


@pytest.mark.parametrize(("market", "allowed"), [("spot", 5), ("usdm", 10)])
def test_who_says_too_much_is_closed(market: BinanceMarket, allowed: int) -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/ws/a@trade" if market == "spot" else "/public/ws/a@trade")
        for number in range(allowed):
            await answer(ws, method="LIST_SUBSCRIPTIONS", id=number)
        await ws.send_str('{"method":"LIST_SUBSCRIPTIONS","id":99}')
        assert await ended(ws) == 1008
        _, stats, _ = await client.get("/mock/stats")
        assert (stats["too_many_messages"], stats["control_messages_s_max"]) == (1, allowed + 1)

    exchange(test, clock=FakeSeconds(), market=market, limits=None)


def test_messages_are_counted_by_the_second() -> None:
    clock = FakeSeconds()

    async def test(client: Client) -> None:
        ws = await client.open("/public/ws")
        for number in range(30):
            assert (await answer(ws, method="LIST_SUBSCRIPTIONS", id=number))["id"] == number
            clock.now_s += 0.101

    exchange(test, clock=clock, limits=None)


def test_pings_are_answered_and_count() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/ws", autoping=False)
        for number in range(10):
            await ws.ping(b"%d" % number)
            message = await asyncio.wait_for(ws.receive(), PATIENCE_S)
            assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"%d" % number)
        await ws.ping(b"one more")
        assert await ended(ws) == 1008

    exchange(test, clock=FakeSeconds(), limits=None)


def test_a_client_that_does_not_answer_pings_is_closed() -> None:
    clock = FakeSeconds()

    async def test(client: Client) -> None:
        deaf, well = await client.open("/public/ws", autoping=False), await client.open("/public/ws")
        clock.now_s += 20
        message = await asyncio.wait_for(deaf.receive(), PATIENCE_S)
        assert message.type is aiohttp.WSMsgType.PING
        hearing = asyncio.create_task(ended(well))  # Whoever reads answers pings.
        await until(lambda: any(one.heard_s == clock.now_s for one in client.exchange._clients))
        clock.now_s += 59
        assert await ended(deaf) == 1008
        assert not hearing.done()
        hearing.cancel()

    exchange(test, clock=clock, limits=Limits(messages_per_s=10, weight_per_minute=100, ping_s=20.0, pong_s=58.0))


def test_a_connection_lives_a_day() -> None:
    clock = FakeSeconds()

    async def test(client: Client) -> None:
        ws = await client.open("/public/ws")
        clock.now_s += 86_400
        assert await ended(ws) == 1001

    exchange(test, clock=clock, limits=Limits(10, 100, ping_s=1e6, pong_s=1e6))


def test_who_connects_too_often_must_wait() -> None:
    clock = FakeSeconds()

    async def test(client: Client) -> None:
        for _ in range(3):
            await (await client.open("/public/ws")).close()
            clock.now_s += 1
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await client.open("/public/ws")
        assert (error.value.status, error.value.headers and error.value.headers["Retry-After"]) == (429, "297")
        clock.now_s += 297
        await client.open("/public/ws")

    exchange(test, clock=clock, limits=Limits(10, 100, ping_s=1e6, pong_s=1e6, connections_per_5min=3))


def test_names_that_are_no_streams_are_refused_at_the_door() -> None:
    async def test(client: Client) -> None:
        for streams in ("nothing", "/".join(f"s{i}@depth" for i in range(1_025))):
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await client.open(f"/public/stream?streams={streams}")
            assert error.value.status == 400

    exchange(test)


def test_a_slow_client_is_cut_off_and_the_others_are_not() -> None:
    async def test(client: Client) -> None:
        names = "/".join(f"{name}@{channel}" for name in ("btcusdt", "ethusdt") for channel in ALL)
        slow, quick = await client.open(f"/public/stream?streams={names}"), await client.open("/public/stream?streams=btcusdt@depth@100ms")
        first = next(iter(client.exchange._clients))
        first.transport.pause_reading()  # Nothing more is read of it, and nothing of what it is sent is taken by the test.
        assert slow._conn is not None and slow._conn.transport is not None
        slow._conn.transport.pause_reading()  # type: ignore[attr-defined]
        until_ns = START_NS
        async with asyncio.timeout(PATIENCE_S):
            while client.exchange.stats()["slow_clients"] == 0:
                until_ns += 20 * S
                client.exchange.release(until_ns)
                await asyncio.sleep(0)
        slow._conn.transport.resume_reading()  # type: ignore[attr-defined]
        assert await ended(slow) == 1006
        last = client.exchange.stats()["sent"]
        client.exchange.release(until_ns + S)
        assert client.exchange.stats()["sent"] > last, "the other one is served on"  # type: ignore[operator]
        await quick.close()

    exchange(test, send_buffer_bytes=1 << 16)


def test_what_was_left_open_is_closed_in_order() -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            async with MockExchange(FakeTape(), MockSettings()) as one:
                ws = await Client(one, session).open("/public/stream?streams=btcusdt@trade")
                hearing = asyncio.create_task(ended(ws))
            assert await hearing == 1001
            with pytest.raises(aiohttp.ClientConnectionError):
                await Client(one, session).open("/public/ws")

    asyncio.run(main())


# REST


@pytest.mark.parametrize(("market", "prefix"), [("spot", "/api/v3"), ("usdm", "/fapi/v1"), ("coinm", "/dapi/v1")])
def test_each_market_has_its_paths(market: BinanceMarket, prefix: str) -> None:
    async def test(client: Client) -> None:
        client.exchange.release(START_NS + S)
        assert (await client.get(f"{prefix}/ping"))[1] == {}
        assert (await client.get(f"{prefix}/time"))[1] == {"serverTime": START_NS // MS + 1_000}
        assert [one["symbol"] for one in (await client.get(f"{prefix}/exchangeInfo"))[1]["symbols"]] == ["BTCUSDT", "ETHUSDT"]
        assert (await client.get(f"{prefix}/depth?symbol=BTCUSDT&limit=1000"))[1]["lastUpdateId"] > 0
        assert (await client.get(f"{prefix}/account"))[0] == 404

    exchange(test, market=market, limits=mock.LIMITS[market])


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("depth?symbol=NOSUCH", -1121),
        ("depth", -1102),
        ("depth?symbol=btcusdt", -1100),
        ("depth?symbol=BTCUSDT&limit=7", -4021),
        ("depth?symbol=BTCUSDT&limit=many", -1100),
        ("klines?symbol=BTCUSDT&interval=1h", -1120),
        ("klines?symbol=BTCUSDT&interval=1m&startTime=-5", -1100),
        ("klines?symbol=NOSUCH&interval=1m", -1121),
    ],
)
def test_a_wrong_request_is_told_the_venues_code(query: str, code: int) -> None:
    async def test(client: Client) -> None:
        status, body, _ = await client.get(f"/fapi/v1/{query}")
        assert (status, body["code"]) == (400, code) and body["msg"]

    exchange(test)


def test_klines_are_asked_of_the_tape_newest_first_where_no_start_is_named() -> None:
    tape = FakeTape()
    minute_ms = START_NS // MS // 60_000 * 60_000

    async def test(client: Client) -> None:
        client.exchange.release(START_NS + 60 * S)
        await client.get("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=3")
        await client.get("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&startTime=60000&endTime=180000&limit=9000")

    exchange(test, tape)
    now_ms = START_NS // MS + 60_000
    assert tape.asked == [("BTCUSDT", minute_ms - 2 * 60_000, now_ms, 3), ("BTCUSDT", 60_000, 180_000, 1_500)]


@pytest.mark.parametrize(
    ("market", "query", "weight"),
    [
        *[("spot", f"depth?symbol=BTCUSDT&limit={limit}", weight) for limit, weight in ((100, 5), (101, 25), (1_000, 50), (5_000, 250))],
        *[("usdm", f"depth?symbol=BTCUSDT&limit={limit}", weight) for limit, weight in ((5, 2), (100, 5), (500, 10), (1_000, 20))],
        *[
            ("usdm", f"klines?symbol=BTCUSDT&interval=1m&limit={limit}", weight)
            for limit, weight in ((99, 1), (100, 2), (1_000, 5), (1_500, 10))
        ],
        ("spot", "klines?symbol=BTCUSDT&interval=1m&limit=1000", 2),
        ("spot", "exchangeInfo", 20),
        ("coinm", "exchangeInfo", 1),
    ],
)
def test_requests_weigh_what_the_venue_says(market: BinanceMarket, query: str, weight: int) -> None:
    async def test(client: Client) -> None:
        prefix = {"spot": "/api/v3", "usdm": "/fapi/v1", "coinm": "/dapi/v1"}[market]
        status, _, headers = await client.get(f"{prefix}/{query}")
        assert (status, headers["X-MBX-USED-WEIGHT-1M"]) == (200, str(weight))

    exchange(test, market=market, clock=FakeSeconds())


def test_beyond_the_weight_comes_429_then_418_then_time() -> None:
    clock = FakeSeconds()

    async def test(client: Client) -> None:
        depth = "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
        for _ in range(2):
            assert (await client.get(depth))[0] == 200
        status, body, headers = await client.get(depth)
        assert (status, body["code"], headers["Retry-After"], headers["X-MBX-USED-WEIGHT-1M"]) == (429, -1003, "30", "40")
        for _ in range(9):
            assert (await client.get(depth))[0] == 429
        assert (await client.get(depth))[0] == 418
        clock.now_s += 31
        status, _, headers = await client.get("/fapi/v1/ping")
        assert (status, headers["Retry-After"]) == (418, "89"), "a ban outlasts the minute"
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await client.open("/public/ws")
        assert error.value.status == 418
        clock.now_s += 89
        assert (await client.get(depth))[0] == 200
        assert (await client.get("/mock/stats"))[1]["weight_minute_max"] == 40

    exchange(test, clock=clock, limits=Limits(10, weight_per_minute=50, ping_s=1e6, pong_s=1e6))


def test_a_minute_of_weight_ends() -> None:
    clock = FakeSeconds()
    weights = Weights(10, clock)
    assert weights.charge(10) is None and weights.charge(1) == (429, 30)
    clock.now_s = 60.0
    assert weights.charge(10) is None


# Snapshots and the streams


class Follower:
    """A client's book by the venue's rule: differences are kept until a snapshot comes."""

    def __init__(self, market: BinanceMarket, name: str) -> None:
        self.codec, self.name = BinanceCodec(market), name
        self.kept: list[DepthDiff] = []
        self.sides: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
        self.last, self.fresh = -1, True
        self.verdicts: list[Verdict] = []

    def take(self, payload: bytes) -> None:
        (event,) = self.codec.decode(payload, self.name)
        if isinstance(event, DepthSnapshot):
            self.last, self.fresh = event.last, True
            self.sides = ({}, {})
            self._put(event.bids, event.asks)
            kept, self.kept = self.kept, []
            for diff in kept:
                self._judge(diff)
        elif isinstance(event, DepthDiff):
            if self.last < 0:
                self.kept.append(event)
            else:
                self._judge(event)

    def _judge(self, diff: DepthDiff) -> None:
        self.verdicts.append(self.codec.verdict(diff, self.last, first_after_snapshot=self.fresh))
        if self.verdicts[-1] is Verdict.APPLY:
            self.last, self.fresh = diff.last, False
            self._put(diff.bids, diff.asks)

    def _put(self, *sides: bytes) -> None:
        for held, levels in zip(self.sides, sides, strict=True):
            for price, quantity in json.loads(levels):
                held.pop(price, None)
                if float(quantity):
                    held[price] = quantity


def test_a_snapshot_links_to_the_streams_at_any_moment() -> None:
    async def test(client: Client) -> None:
        for moment in range(1, 40, 3):
            ws = await client.open("/public/stream?streams=btcusdt@depth@100ms")
            follower = Follower("usdm", "BTCUSDT")
            begin_ns = client.exchange._tape.now_ns
            for step in range(1, 8):
                client.exchange.release(begin_ns + step * moment * 10 * MS)
                if step == 4:
                    _, body, _ = await client.get("/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
            client.exchange.release(begin_ns + 100 * moment * 10 * MS)
            _, final, _ = await client.get("/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
            frames = []
            while not frames or json.loads(frames[-1])["data"]["u"] < final["lastUpdateId"]:
                frames += await heard(ws, 1)
            for frame in frames[:2]:
                follower.take(frame)
            follower.take(json.dumps(body).encode())
            for frame in frames[2:]:
                follower.take(frame)
            assert Verdict.GAP not in follower.verdicts and Verdict.APPLY in follower.verdicts
            assert [{price: quantity for price, quantity in final[side]} for side in ("bids", "asks")] == list(follower.sides)
            await ws.close()

    exchange(test)


# Control and faults


CONTROL = [("GET", "/mock/stats"), ("GET", "/mock/truth"), ("POST", "/mock/fault"), ("GET", "/mock/none"), ("GET", "/%6dock/stats")]


@pytest.mark.parametrize(("method", "path"), CONTROL)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:5001"},
        {"Host": "10.0.0.1"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
def test_the_control_is_not_for_pages_of_other_sites(method: str, path: str, headers: dict[str, str]) -> None:
    async def test(client: Client) -> None:
        status, body = await client.ask(method, path, headers)
        assert status == 403 and body["detail"].startswith("expected ")
        assert client.exchange.faults.waiting == 0

    exchange(test)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_the_control_is_for_those_of_this_machine(host: str) -> None:
    async def test(client: Client) -> None:
        for name in (host, f"{host}:{client.exchange.port}"):
            for headers in ({"Host": name}, {"Host": name, "Origin": f"http://{name}"}):
                assert (await client.ask("GET", "/mock/stats", headers))[0] == 200
                assert (await client.ask("POST", "/mock/fault", headers))[0] == 202

    exchange(test)


def test_a_taken_port_is_named_with_another() -> None:
    async def test(client: Client) -> None:
        port = client.exchange.port
        with pytest.raises(PortTaken, match=rf"^port {port} of 127.0.0.1 is in use; choose another with --port {port + 1}$"):
            async with MockExchange(FakeTape(), MockSettings(port=port)):
                pass

    exchange(test)


def test_a_fault_is_asked_for_done_and_told() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/stream?streams=btcusdt@depth@100ms")
        assert await client.post("/mock/fault", {"kind": "drop", "symbol": "BTCUSDT", "frames": 2}) == (202, {"asked": 1})
        client.exchange.release(START_NS + S)
        (message,) = await heard(ws, 1)
        (record,) = await client.truth()
        payloads = [payload for _, payload in FakeTape().advance(START_NS + S) if b"btcusdt@depth" in payload]
        dropped = [json.loads(payload)["data"] for payload in payloads[:2]]
        assert message == payloads[2]
        assert {key: record[key] for key in ("kind", "symbol", "frames", "first", "last", "expect", "detectable", "listeners", "done")} == {
            **{"kind": "drop", "symbol": "BTCUSDT", "frames": 2, "first": dropped[0]["U"], "last": dropped[1]["u"]},
            **{"expect": "gap", "detectable": True, "listeners": 1, "done": True},
        }
        assert (await client.get("/mock/stats"))[1]["faults_by_kind"] == {"drop": 1}

    exchange(test)


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "earthquake"},
        {"kind": "drop", "frames": 6},
        {"kind": "drop", "symbol": "NOSUCH"},
        {"kind": "drop", "ms": 5},
        {"kind": "drop", "x": 1},
        [],
        "drop",
    ],
)
def test_a_fault_that_is_none_is_refused(body: Any) -> None:
    async def test(client: Client) -> None:
        status, answered = await client.post("/mock/fault", body)
        assert status == 422 and answered["detail"]
        client.exchange.release(START_NS + S)
        assert await client.truth() == []

    exchange(test)


@pytest.mark.parametrize("code", [1001, 1006])
def test_a_disconnect_ends_every_connection(code: int) -> None:
    async def test(client: Client) -> None:
        ws = [await client.open("/public/stream?streams=btcusdt@trade") for _ in range(2)]
        await client.post("/mock/fault", {"kind": "disconnect", "code": code})
        client.exchange.release(START_NS + 10 * MS)
        assert [await ended(one) for one in ws] == [code, code]
        assert [record["listeners"] for record in await client.truth()] == [2]
        again = await client.open("/public/stream?streams=btcusdt@trade")
        client.exchange.release(START_NS + S)
        assert await heard(again, 1)

    exchange(test)


def test_a_half_open_connection_is_silent_and_answers_no_ping_until_its_client_goes() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/stream?streams=btcusdt@depth@100ms", autoping=False, timeout=aiohttp.ClientWSTimeout(ws_close=0.05))
        await client.post("/mock/fault", {"kind": "half_open"})
        client.exchange.release(START_NS + S)
        await ws.ping()
        with pytest.raises(asyncio.TimeoutError):
            await ws.receive(timeout=0.1)
        second = await client.open("/public/stream?streams=btcusdt@depth@100ms")
        client.exchange.release(START_NS + 2 * S)
        assert await heard(second, 1), "a new connection is well"
        await ws.close()
        await until(lambda: len(client.exchange._clients) == 1)

    exchange(test)


def test_a_shutdown_is_announced_then_done() -> None:
    clock = FakeSeconds()

    async def test(client: Client) -> None:
        wrapped, raw = await client.open("/public/stream"), await client.open("/public/ws")
        await client.post("/mock/fault", {"kind": "server_shutdown", "ms": 5_000})
        client.exchange.release(START_NS + 10 * MS)
        event = {"e": "serverShutdown", "E": START_NS // MS + 10}
        assert json.loads((await heard(wrapped, 1))[0]) == {"stream": "!serverShutdown", "data": event}
        assert json.loads((await heard(raw, 1))[0]) == event
        clock.now_s += 4.9
        assert await answer(raw, method="LIST_SUBSCRIPTIONS", id=1) == {"result": [], "id": 1}
        clock.now_s += 0.2
        assert [await ended(wrapped), await ended(raw)] == [1001, 1001]

    exchange(test, clock=clock)


def test_a_giant_frame_is_the_clients_to_refuse() -> None:
    async def test(client: Client) -> None:
        ws = await client.open("/public/stream?streams=btcusdt@depth@100ms")
        await client.post("/mock/fault", {"kind": "giant"})
        client.exchange.release(START_NS + 10 * MS)
        assert await ended(ws) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        assert client.exchange.stats()["slow_clients"] == 0

    exchange(test)


@pytest.mark.parametrize("status", [429, 418])
def test_refusals_pass(status: int) -> None:
    clock = FakeSeconds()

    async def test(client: Client) -> None:
        await client.post("/mock/fault", {"kind": f"http_{status}", "ms": 2_500})
        client.exchange.release(START_NS + 10 * MS)
        found, _, headers = await client.get("/fapi/v1/ping")
        assert (found, headers["Retry-After"]) == (status, "3")
        assert (await client.get("/mock/stats"))[0] == 200
        clock.now_s += 2.5
        assert (await client.get("/fapi/v1/ping"))[0] == 200

    exchange(test, clock=clock)


def test_a_stale_snapshot_is_served_once() -> None:
    async def test(client: Client) -> None:
        await client.post("/mock/fault", {"kind": "stale_snapshot", "symbol": "BTCUSDT"})
        client.exchange.release(START_NS + 60 * MS)
        client.exchange.release(START_NS + 60 * S)
        ids = [(await client.get("/fapi/v1/depth?symbol=BTCUSDT"))[1]["lastUpdateId"] for _ in range(3)]
        assert ids[0] < ids[1] == ids[2]
        assert (await client.get("/fapi/v1/depth?symbol=ETHUSDT"))[0] == 200

    exchange(test)


@pytest.mark.parametrize("form", ["truncated", "damaged", "utf8", "text"])
def test_garbage_goes_where_its_frame_would_have_gone(form: str) -> None:
    async def test(client: Client) -> None:
        wrapped = await client.open("/public/stream?streams=btcusdt@trade")
        raw, other = await client.open("/public/ws/btcusdt@trade"), await client.open("/public/ws/ethusdt@trade")
        aggregated = await client.open("/market/ws/btcusdt@aggTrade")
        await client.post("/mock/fault", {"kind": "garbage", "symbol": "BTCUSDT", "channel": "trade", "form": form})
        client.exchange.release(START_NS + 60 * MS)
        for ws in (wrapped, raw, aggregated):
            with pytest.raises(ValueError):
                json.loads((await heard(ws, 1))[0])
        assert json.loads((await heard(other, 1))[0])["s"] == "ETHUSDT"

    exchange(test)


def test_equal_tapes_and_seeds_have_equal_faults() -> None:
    def truth(slice_ns: int, seed: int) -> list[str]:
        one = MockExchange(FakeTape(), MockSettings(seed=seed, fault_every=12, fault_spacing=5), clock=FakeSeconds())
        for until_ns in range(START_NS, START_NS + 15 * S + 1, slice_ns):
            one.release(until_ns)
        return [repr(record) for record in one.faults.truth]

    finely = truth(10 * MS, 7)
    assert len(finely) > 25
    assert finely == truth(5 * S, 7) != truth(5 * S, 8)


# Pace


def test_the_pace_follows_the_clock_or_the_count() -> None:
    def released(**options: Any) -> list[int]:
        one = MockExchange(FakeTape(), MockSettings(**options), clock=FakeSeconds())
        counts = []
        for _ in range(20):
            one.play(0.5)
            counts.append(one.stats()["frames"])
        return counts  # type: ignore[return-value]

    assert released() == [50 * (i + 1) for i in range(20)]
    assert released(speed=10.0) == [500 * (i + 1) for i in range(20)]
    for count, wanted in zip(released(rate=3_000.0), itertools.count(1_500, 1_500)):
        assert abs(count - wanted) <= 15, "to within a hundredth of what is due"


def test_a_tape_never_runs_back_and_is_released_in_bounded_steps() -> None:
    tape = FakeTape(limit_ns=START_NS)
    tape.now_ns = START_NS + 1
    steps: list[int] = []
    advance = tape.advance

    def witnessed(until_ns: int) -> list[TapeFrame]:
        steps.append(until_ns - tape.now_ns)
        return advance(until_ns)

    tape.advance = witnessed  # type: ignore[method-assign]
    one = MockExchange(tape, MockSettings(speed=100.0), clock=FakeSeconds())
    one.play(0.0)
    one.play(1e-9)
    one.release(START_NS + 5 * S)
    one.play(1.0)
    one.play(1.0)
    assert min(steps) > 0 and max(steps) <= 10 * S
    assert tape.now_ns == START_NS + 205 * S


def test_the_run_waits_for_a_subscriber_where_it_is_told_to() -> None:
    async def test(client: Client) -> None:
        play = asyncio.create_task(client.exchange.run())
        await client.open("/public/ws")
        await asyncio.sleep(0.02)
        assert client.exchange.stats()["frames"] == 0
        ws = await client.open("/public/ws/btcusdt@depth@100ms")
        first = json.loads((await heard(ws, 1))[0])
        assert first["E"] == START_NS // MS + 10, "from the tape's first frame on"
        play.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await play

    exchange(test, waits=True, rate=1_000.0)


@pytest.mark.parametrize("options", [{"speed": 0.0}, {"rate": -1.0}, {"speed": float("nan")}, {"port": 70_000}, {"fault_every": -1}])
def test_settings_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        MockExchange(FakeTape(), MockSettings(**options))


# A recording as a tape


def recorded_lines(count: int = 400, *, wrapped: bool = True, snapshot_at: int = 30) -> list[Line]:
    """One symbol; a snapshot comes late, after differences that it does not have, as where it was asked for over REST."""
    market = FakeMarket()
    lines = []
    early = b""
    for number in range(count):
        ts_ns = START_NS + number * 10 * MS
        if number == snapshot_at:
            lines.append(Line(ts_ns, "binance-usdm", "BTCUSDT", early, 0, number))
            continue
        channel, make = [("depth@100ms", market.diff), ("trade", market.trade), ("bookTicker", market.ticker)][number % 3]
        data = make(ts_ns)
        if number == snapshot_at // 2 // 3 * 3:
            early = market.snapshot()
        lines.append(Line(ts_ns, "binance-usdm", "", combined(f"btcusdt@{channel}".encode(), data) if wrapped else data, 0, number))
    return lines


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_recording_is_a_tape_whose_snapshots_are_right(wrapped: bool) -> None:
    lines = recorded_lines(wrapped=wrapped)
    tape = CaptureTape(lines, BinanceCodec("usdm"), "usdm")
    follower = Follower("usdm", "BTCUSDT")
    follower.take(tape.snapshot("BTCUSDT"))
    payloads: list[bytes] = []
    while not tape.ended:
        for ts_ns, payload in tape.advance(tape.now_ns + 70 * MS):
            assert ts_ns <= tape.now_ns
            payloads.append(payload)
            follower.take(payload)
        snapshot = json.loads(tape.snapshot("BTCUSDT", 5_000))
        assert snapshot["lastUpdateId"] == follower.last
        assert [dict(map(tuple, snapshot[side])) for side in ("bids", "asks")] == list(follower.sides)
        assert [[float(price) for price, _ in snapshot[side]] for side in ("bids", "asks")] == [
            sorted(map(float, follower.sides[0]), reverse=True),
            sorted(map(float, follower.sides[1])),
        ]
    assert Verdict.GAP not in follower.verdicts
    assert payloads == [line.payload for line in recorded_lines()[-len(payloads) :]] and len(payloads) > 300


def test_a_recording_with_a_hole_has_no_book_until_its_next_snapshot() -> None:
    lines = recorded_lines()
    second = FakeMarket()
    for number in range(400):
        [second.diff, second.trade, second.ticker][number % 3](0)
    tape = CaptureTape([line for line in lines if line.line != 99], BinanceCodec("usdm"), "usdm")
    tape.advance(START_NS + 2 * S)
    assert tape.gaps == 1
    with pytest.raises(TapeError, match="found none that is known now"):
        tape.snapshot("BTCUSDT")

    async def test(client: Client) -> None:
        status, body, _ = await client.get("/fapi/v1/depth?symbol=BTCUSDT")
        assert (status, body["code"]) == (503, -1001)

    exchange(test, tape)


def test_lines_that_cannot_be_read_are_left_out() -> None:
    lines = recorded_lines()
    lines.insert(60, Line(lines[60].receive_ns, "binance-usdm", "", b'{"e":"depthUpdate"', 0, 0))
    tape = CaptureTape(lines, BinanceCodec("usdm"), "usdm")
    assert len(tape.advance(START_NS + 10 * S)) > 300
    assert (tape.unreadable, tape.gaps) == (1, 0)


def test_a_recording_that_cannot_be_played_says_why() -> None:
    with pytest.raises(TapeError, match="expected a depth snapshot"):
        CaptureTape([line for line in recorded_lines() if line.line != 30], BinanceCodec("usdm"), "usdm")
    with pytest.raises(TapeError, match="expected messages of binance-spot alone, found one of binance-usdm"):
        CaptureTape(recorded_lines(), BinanceCodec("spot"), "spot")


def trade_line(second: float, price: str, quantity: str, *, number: int, market: str = "usdm", name: str = "BTCUSDT") -> Line:
    ts_ns = START_NS + int(second * S)
    data = f'{{"e":"trade","E":{ts_ns // MS},"T":{ts_ns // MS},"s":"{name}","t":{number},"p":"{price}","q":"{quantity}","m":false}}'
    return Line(ts_ns, f"binance-{market}", "", data.encode(), 0, number)


def test_minutes_of_a_recording_are_made_of_its_trades() -> None:
    trades = [(40, "10.0", "1"), (45, "12.5", "2.5"), (50, "9.0", "1"), (59, "11.0", "0.5"), (280, "20.0", "1"), (350, "21.0", "1")]
    lines = recorded_lines() + [trade_line(*trade, number=number) for number, trade in enumerate(trades)]
    tape = CaptureTape(lines, BinanceCodec("usdm"), "usdm")
    tape.advance(START_NS + 340 * S)
    minute_ms = START_NS // MS // 60_000 * 60_000  # START_NS is twenty seconds into its minute.
    rows = json.loads(tape.klines("BTCUSDT", minute_ms + 60_000, 1 << 60, 100))
    assert [row[:6] for row in rows] == [
        [minute_ms + 60_000, "10.0", "12.5", "9.0", "11.0", "5.0"],
        *([minute_ms + minutes * 60_000, "11.0", "11.0", "11.0", "11.0", "0"] for minutes in (2, 3, 4)),
        [minute_ms + 300_000, "20.0", "20.0", "20.0", "20.0", "1"],
    ]
    assert rows[0][6:] == [minute_ms + 119_999, "55.75", 4, "5.0", "55.75", "0"]
    assert json.loads(tape.klines("BTCUSDT", minute_ms + 60_000, minute_ms + 120_000, 1)) == rows[:1]


@pytest.mark.parametrize(
    "name",
    [
        "binance-spot_BTCUSDT_20240808T2354.raw.gz",
        "binance-usdm_BTCUSDT_20240808T2354.raw.gz",
        "binance-coinm_ETHUSD_PERP_20240808T2354.raw.gz",
        "binance-spot_ETHBTC_20201101T09.raw.gz",
    ],
)
def test_a_follower_of_a_real_recording_never_sees_a_gap(data: Path, name: str) -> None:
    market: BinanceMarket = name.split("_")[0].removeprefix("binance-")  # type: ignore[assignment]
    symbol = "ETHUSD_PERP" if "PERP" in name else name.split("_")[1]
    capture = Capture([data / "captures" / name], report=lambda one: pytest.fail(str(one)))
    tape = CaptureTape(itertools.islice(capture, 4_000), BinanceCodec(market), market)
    info = json.loads(tape.exchange_info())["symbols"]
    assert [one["symbol"] for one in info] == [symbol]
    follower = Follower(market, symbol)
    follower.take(tape.snapshot(symbol, 5_000))
    since = 0
    while not tape.ended:
        for _, payload in tape.advance(tape.now_ns + S):
            follower.take(payload)
            since += 1
        if since < 300:
            continue
        since = 0
        snapshot = json.loads(tape.snapshot(symbol, 100_000))
        assert snapshot["lastUpdateId"] == follower.last
        assert [dict(map(tuple, snapshot[side])) for side in ("bids", "asks")] == list(follower.sides)
    assert Verdict.GAP not in follower.verdicts and follower.verdicts.count(Verdict.APPLY) > 100


# The simulator as a tape


@pytest.mark.parametrize(("market", "name"), [("spot", "BTCUSDT"), ("usdm", "ETHUSDT"), ("coinm", "BTCUSD_PERP")])
def test_a_follower_of_the_simulator_never_sees_a_gap(market: BinanceMarket, name: str) -> None:
    async def test(client: Client) -> None:
        ws = await client.open(f"{'/public' if market == 'usdm' else ''}/stream?streams={name.lower()}@depth@100ms")
        follower = Follower(market, name)
        prefix = {"spot": "/api/v3", "usdm": "/fapi/v1", "coinm": "/dapi/v1"}[market]
        for second in range(1, 40):
            client.exchange.play(0.273)
            _, body, _ = await client.get(f"{prefix}/depth?symbol={name}&limit=1000")
            if second == 3:
                follower.take(json.dumps(body).encode())
            sent = client.exchange.stats()["sent"]
            while taken[0] < sent:  # type: ignore[operator]
                follower.take((await heard(ws, 1))[0])
                taken[0] += 1
        assert Verdict.GAP not in follower.verdicts and follower.verdicts.count(Verdict.APPLY) > 50
        best = [sorted(map(float, side)) for side in follower.sides]
        assert [best[0][-1], best[1][0]] == [float(body["bids"][0][0]), float(body["asks"][0][0])]
        assert {one["symbol"] for one in (await client.get(f"{prefix}/exchangeInfo"))[1]["symbols"]} == {name}

    taken = [0]
    exchange(test, Simulator(SimulatorSettings(symbols=(name,)), START_NS, market=market), market=market)
