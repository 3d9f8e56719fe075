"""A feed against a venue of its own on loopback that misbehaves as real ones do; time passes when the test says so."""

import asyncio
import itertools
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import structlog
from aiohttp import WSMsgType, web
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.feeds import FeedSettings, UnknownSymbol
from alphapack.shell import feed as feed_module
from alphapack.shell import rest, turns
from alphapack.shell.feed import STREAMS_PER_CONNECTION, STREAMS_PER_MESSAGE, Feed, Silence
from alphapack.shell.rest import RestError
from alphapack.venues.binance_api import BinanceApi
from rig import PATIENCE_S
from rig import until as happens

BTC, ETH = "BTCUSDT", "ETHUSDT"
DEPTH = {BTC: "btcusdt@depth@100ms", ETH: "ethusdt@depth@100ms"}
HOUR_S = 3_600.0
PUMP_S = 0.005
QUIET_S = 0.05
"""What does not happen in this time is taken not to happen."""


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "TICK_S", 0.004)
    monkeypatch.setattr(feed_module, "TICK_S", 0.004)


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Socket:
    """One client as the venue sees it."""

    def __init__(self, number: int, path: str, ws: web.WebSocketResponse) -> None:
        self.number, self.path, self.ws = number, path, ws
        self.streams: set[str] = set()
        self.messages: list[dict[str, Any]] = []
        self.closed = False


class Venue:
    """A Binance with what a test needs: numbered frames of every stream subscribed, and faults on demand."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.log: list[tuple[str, int]] = []
        """What happened to which socket: open, data (its first frame), close."""
        self.muted: set[str] = set()
        self.dead = False
        """Whether nothing is sent at all."""
        self.deaf = False
        """Whether control messages stay unanswered."""
        self.pongs = True
        self.refuses: set[str] = set()
        self.handshakes: deque[tuple[int, dict[str, str]]] = deque()
        self.tried = 0
        self.listed = [BTC, ETH]
        self.answers: dict[str, deque[web.Response]] = {"depth": deque(), "klines": deque(), "exchangeInfo": deque()}
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None
        self.counts: Counter[str] = Counter()
        self.base_url = ""
        self.clock = Clock()

    def open(self, path: str | None = None) -> list[Socket]:
        return [one for one in self.sockets if not one.closed and path in (None, one.path)]

    def messages(self, method: str) -> list[list[str]]:
        return [message["params"] for socket in self.sockets for message in socket.messages if message["method"] == method]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.tried += 1
        if self.handshakes:
            status, headers = self.handshakes.popleft()
            return web.Response(status=status, headers=headers)
        ws = web.WebSocketResponse(autoping=self.pongs)
        await ws.prepare(request)
        socket = Socket(len(self.sockets), request.path, ws)
        self.sockets.append(socket)
        self.log.append(("open", socket.number))
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    await self.control(socket, json.loads(message.data))
        finally:
            socket.closed = True
            self.log.append(("close", socket.number))
        return ws

    async def control(self, socket: Socket, message: dict[str, Any]) -> None:
        socket.messages.append(message)
        names = set(message["params"])
        if self.deaf:
            return
        if names & self.refuses:
            await socket.ws.send_json({"code": 2, "msg": "Invalid request: no such stream", "id": message["id"]})
            return
        await socket.ws.send_json({"result": None, "id": message["id"]})
        if message["method"] == "SUBSCRIBE":
            socket.streams |= names
        else:
            socket.streams -= names

    async def pump(self) -> None:
        """One frame of every stream again and again, the same to every client."""
        while True:
            await asyncio.sleep(PUMP_S)
            if self.dead:
                continue
            for name in sorted(set().union(*(one.streams for one in self.open())) - self.muted):
                self.counts[name] += 1
                frame = json.dumps({"stream": name, "data": {"u": self.counts[name]}}, separators=(",", ":"))
                for socket in self.open():
                    if name in socket.streams:
                        with suppress(ConnectionError):
                            await socket.ws.send_str(frame)
                        if ("data", socket.number) not in self.log:
                            self.log.append(("data", socket.number))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        self.asked.append(f"{kind}?{request.query_string}")
        if self.gate is not None and kind == "depth":
            await self.gate.wait()
        if self.answers[kind]:
            return self.answers[kind].popleft()
        if kind == "exchangeInfo":
            return web.json_response({"symbols": [{"symbol": name, "status": "TRADING"} for name in self.listed]})
        if kind == "klines":
            return web.json_response([[int(request.query["startTime"])]])
        return web.json_response({"lastUpdateId": len(self.asked), "bids": [], "asks": []})

    def count(self, kind: str) -> int:
        return sum(one.startswith(kind) for one in self.asked)


@asynccontextmanager
async def venue() -> AsyncIterator[Venue]:
    here = Venue()
    application = web.Application()
    for path in ("/stream", "/public/stream", "/market/stream"):
        application.router.add_get(path, here.stream)
    for api in ("/api/v3", "/fapi/v1", "/dapi/v1"):
        application.router.add_get(api + "/{kind}", here.answer)
    runner = web.AppRunner(application, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    pump = asyncio.create_task(here.pump())
    try:
        yield here
    finally:
        pump.cancel()
        for socket in here.open():
            await socket.ws.close()
        await runner.cleanup()


class Followed:
    """A feed that runs, and what it handed over."""

    def __init__(self, here: Venue, market: str, symbols: Sequence[str], **settings: float) -> None:
        self.venue, self.clock = here, here.clock
        self.frames: list[tuple[str, bytes]] = []
        self.chance = 0.0
        quick = {"overlap_s": 0.02, "rotate_jitter_s": 0.0, "heartbeat_s": 60.0, **settings}
        self.feed = Feed(
            BinanceApi(market),
            symbols,
            self.receive,
            clock=here.clock,
            chance=lambda: self.chance,
            settings=FeedSettings(ws_url=here.base_url, rest_url=here.base_url, **quick),
        )
        self.task = asyncio.create_task(self.feed.run())

    def receive(self, symbol: str, payload: bytes) -> None:
        self.frames.append((symbol, payload))

    def numbers(self, stream: str) -> list[int]:
        """The numbers of a stream's frames in the order handed over."""
        prefix = b'{"stream":"%b",' % stream.encode()
        return [json.loads(payload)["data"]["u"] for _, payload in self.frames if payload.startswith(prefix)]

    def bodies(self, symbol: str) -> list[Any]:
        return [json.loads(payload) for name, payload in self.frames if name == symbol]

    async def flows(self, *streams: str) -> None:
        """Wait until each of these has sent something from now on."""
        before = {name: len(self.numbers(name)) for name in streams}
        await happens(lambda: all(len(self.numbers(name)) > before[name] for name in streams))

    async def passes(self, seconds: float) -> None:
        """Let time pass in steps, in each of which everything that flows is heard."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s = min(end_s, self.clock.now_s + 1.0)
            await asyncio.sleep(4 * PUMP_S)


Test = Callable[[Venue, Callable[..., Followed]], Awaitable[None]]


def play(test: Test, *, ends: bool = True) -> None:
    async def within() -> None:
        async with asyncio.timeout(PATIENCE_S):
            async with venue() as here:
                followed: list[Followed] = []

                def follow(market: str = "usdm", symbols: Sequence[str] = (BTC, ETH), **settings: float) -> Followed:
                    followed.append(Followed(here, market, symbols, **settings))
                    return followed[-1]

                await test(here, follow)
                for one in followed:
                    if ends:
                        assert not one.task.done() or one.task.cancelled(), "the feed runs until it is cancelled"
                    one.task.cancel()
                    await asyncio.gather(one.task, return_exceptions=True)
                    assert not ends or one.task.cancelled()
                    assert one.feed.health().connections == 0
                await happens(lambda: not here.open())
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(within())


# What arrives


def test_the_listing_comes_first_and_then_every_stream_from_its_own_address() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow()
        await one.flows(*DEPTH.values(), "btcusdt@bookTicker", "ethusdt@aggTrade")
        assert json.loads(one.frames[0][1]) == {"symbols": [{"symbol": name, "status": "TRADING"} for name in (BTC, ETH)]}
        assert {symbol for symbol, _ in one.frames} == {""}
        assert all(payload.startswith((b'{"stream":"', b'{"symbols"')) for _, payload in one.frames), "acknowledgements stay here"
        assert {(socket.path, name.partition("@")[2]) for socket in here.sockets for name in socket.streams} == {
            ("/public/stream", "depth@100ms"),
            ("/public/stream", "bookTicker"),
            ("/market/stream", "aggTrade"),
            ("/market/stream", "markPrice"),
        }
        health = one.feed.health()
        assert (health.venue, health.connections, health.attempts, health.reconnects, health.reason) == ("binance-usdm", 2, 2, 0, "")
        assert health.frames >= len(one.frames) - 1 and health.bytes >= sum(len(payload) for _, payload in one.frames[1:])

    play(test)


@pytest.mark.parametrize(("market", "trades"), [("spot", "btcusdt@trade"), ("coinm", "btcusdt@aggTrade")])
def test_other_markets_have_one_address(market: str, trades: str) -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow(market, [BTC])
        await one.flows(DEPTH[BTC], "btcusdt@bookTicker", trades)
        assert [socket.path for socket in here.sockets] == ["/stream"]

    play(test)


def test_many_streams_are_subscribed_in_portions_at_a_bounded_rate_and_share_connections() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.listed = [f"S{i}USDT" for i in range(70)]
        one = follow("spot", here.listed)
        await happens(lambda: len(here.messages("SUBSCRIBE")) == 2)
        await asyncio.sleep(QUIET_S)
        assert len(here.messages("SUBSCRIBE")) == 2, "spot bears five messages a second, so two and a half are sent"
        for sent in (3, 4, 5):
            here.clock.now_s += 0.39
            await asyncio.sleep(QUIET_S)
            assert len(here.messages("SUBSCRIBE")) == sent - 1
            here.clock.now_s += 0.02
            await happens(lambda: len(here.messages("SUBSCRIBE")) == sent)  # noqa: B023 - Waited for here.
        assert [len(socket.messages) for socket in here.sockets] in ([4, 1], [1, 4])
        assert max(len(params) for params in here.messages("SUBSCRIBE")) == STREAMS_PER_MESSAGE
        await happens(lambda: sum(len(socket.streams) for socket in here.sockets) == 210)
        assert max(len(socket.streams) for socket in here.sockets) == STREAMS_PER_CONNECTION
        await one.flows("s0usdt@trade", "s69usdt@trade")

    play(test)


def test_a_stream_that_is_refused_is_named_and_dropped_and_the_others_flow() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.refuses = {DEPTH[ETH]}
        with structlog.testing.capture_logs() as lines:
            one = follow(silence_s=5.0)
            for _ in range(8):  # Halving takes a message each time, and these are paced.
                here.clock.now_s += 0.3
                await asyncio.sleep(QUIET_S)
            await one.flows(DEPTH[BTC], "btcusdt@bookTicker", "ethusdt@bookTicker", "ethusdt@aggTrade")
        assert one.feed.health().refused == (DEPTH[ETH],)
        (line,) = [line for line in lines if "refused" in line["event"]]
        assert line["stream"] == DEPTH[ETH] and line["reason"] == "2: Invalid request: no such stream" and line["log_level"] == "warning"
        await one.passes(8.0)
        assert here.messages("UNSUBSCRIBE") == [], "what is refused is not missed"

    play(test)


@pytest.mark.parametrize(
    ("kind", "frame"),
    [
        (WSMsgType.BINARY, b'{"stream":"btcusdt@depth@100ms","data":{"u":0}}'),
        (WSMsgType.BINARY, bytes(range(256))),
        (WSMsgType.TEXT, b"\xff\xfe\x00 not utf-8"),
        (WSMsgType.TEXT, b"garbage"),
        (WSMsgType.TEXT, b""),
        (WSMsgType.TEXT, b"[" * 50_000),
        (WSMsgType.TEXT, b'{"stream":"nobody@asked","data":{}}'),
        (WSMsgType.TEXT, b'{"stream":"'),
        (WSMsgType.TEXT, b"x" * 1_000_000),
    ],
)
def test_hostile_frames_are_handed_over_as_they_are(kind: WSMsgType, frame: bytes) -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow()
        await one.flows(DEPTH[BTC])
        await here.open("/public/stream")[0].ws.send_frame(frame, kind)
        await happens(lambda: ("", frame) in one.frames)
        await one.flows(*DEPTH.values())
        assert one.feed.health().reconnects == 0

    play(test)


@pytest.mark.parametrize("notice", [b'{"result":null,"id":999}', b'{"code":2,"msg":"x"}', b'{"error":{"code":2,"msg":"x"},"id":1}'])
def test_answers_to_nothing_change_nothing(notice: bytes) -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow()
        await one.flows(DEPTH[BTC])
        await here.open("/public/stream")[0].ws.send_frame(notice, WSMsgType.TEXT)
        await one.flows(*DEPTH.values())
        assert ("", notice) not in one.frames and one.feed.health().reconnects == 0

    play(test)


def test_a_frame_beyond_the_limit_ends_the_connection_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MESSAGE_BYTES_MAX", 10_000)

    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow()
        await one.flows(DEPTH[BTC])
        await here.open("/public/stream")[0].ws.send_str("x" * 20_000)
        await happens(lambda: one.feed.health().reconnects == 1)
        assert "socket failed: WebSocketError" in one.feed.health().reason
        await one.flows(*DEPTH.values())

    play(test)


# Connections that end


@pytest.mark.parametrize("how", ["close", "cut"])
def test_a_connection_that_ends_is_followed_by_another(how: str) -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow()
        await one.flows(*DEPTH.values())
        socket = here.open("/public/stream")[0]
        if how == "close":
            await socket.ws.close(code=1001)
        else:
            assert socket.ws._req is not None and socket.ws._req.transport is not None
            socket.ws._req.transport.abort()
        await happens(lambda: one.feed.health().reconnects == 1)
        assert one.feed.health().reason == ("closed by the venue with code 1001" if how == "close" else "ended without a close frame")
        await one.flows(*DEPTH.values())
        assert len(here.open("/market/stream")) == 1 and here.tried == 3, "the other connection is left alone"

    play(test)


def test_failures_in_a_row_are_further_and_further_apart_until_a_connection_has_held() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC])
        await one.flows(DEPTH[BTC])
        one.chance = 1.0
        for wait_s in (0.5, 1.0, 2.0, 4.0):
            await here.open()[0].ws.close()
            tried = here.tried
            await happens(lambda: here.open() == [] and one.feed.health().connections == 0)
            here.clock.now_s += wait_s - 0.05
            await asyncio.sleep(QUIET_S)
            assert here.tried == tried
            here.clock.now_s += 0.1
            await one.flows(DEPTH[BTC])
        await one.passes(61.0)
        await here.open()[0].ws.close()
        await happens(lambda: one.feed.health().connections == 0)
        here.clock.now_s += 0.55
        await one.flows(DEPTH[BTC])

    play(test)


@pytest.mark.parametrize(("status", "header", "wait_s"), [(429, "7", 7.0), (418, None, 300.0), (503, "7", 0.0)])
def test_a_refused_handshake_waits_as_long_as_the_venue_says(status: int, header: str | None, wait_s: float) -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.handshakes.append((status, {"Retry-After": header} if header else {}))
        one = follow("spot", [BTC])
        await happens(lambda: here.tried >= 1)
        if wait_s:
            await happens(lambda: one.feed.health().retry_after_s == wait_s)
            here.clock.now_s += wait_s - 0.1
            await asyncio.sleep(QUIET_S)
            assert here.tried == 1
            here.clock.now_s += 0.2
        await one.flows(DEPTH[BTC])
        assert here.tried == 2 and f"handshake refused with HTTP {status}" in one.feed.health().reason

    play(test)


def test_a_ban_by_rest_holds_new_connections_too() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC])
        await one.flows(DEPTH[BTC])
        here.answers["depth"].append(web.Response(status=418, headers={"Retry-After": "100"}))
        one.feed.snapshot(BTC)
        await happens(lambda: one.feed.health().retry_after_s > 0.0)
        await here.open()[0].ws.close()
        await happens(lambda: one.feed.health().connections == 0)
        here.clock.now_s += 99.0
        await asyncio.sleep(QUIET_S)
        assert here.tried == 1
        here.clock.now_s += 2.0
        await one.flows(DEPTH[BTC])

    play(test)


def test_attempts_are_counted_and_never_too_many() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.handshakes.extend([(503, {})] * 1_000)
        follow("spot", [BTC])  # Without any backoff: chance is 0.
        await happens(lambda: here.tried == 240)
        await asyncio.sleep(QUIET_S)
        assert here.tried == 240, "80% of 300 in five minutes"
        here.handshakes.clear()
        here.clock.now_s += 301.0
        await happens(lambda: here.tried == 241)

    play(test)


def test_a_socket_that_is_half_open_fails_its_ping() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.pongs, here.dead = False, True
        one = follow("spot", [BTC], heartbeat_s=0.2)
        await happens(lambda: "No PONG received" in one.feed.health().reason)
        here.pongs, here.dead = True, False
        await one.flows(DEPTH[BTC])

    play(test)


def test_a_venue_that_does_not_answer_subscriptions_is_left() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.deaf = True
        one = follow("spot", [BTC])
        await happens(lambda: len(here.messages("SUBSCRIBE")) == 1)
        here.clock.now_s += 7.9
        await asyncio.sleep(QUIET_S)
        assert here.tried == 1
        here.deaf = False
        here.clock.now_s += 0.2
        await one.flows(DEPTH[BTC])
        assert one.feed.health().reason == "no answer to a control message in 8 s"

    play(test)


# Silence


def test_a_connection_that_sends_nothing_is_replaced() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC])
        await happens(lambda: len(here.messages("SUBSCRIBE")) == 1)
        await one.flows(DEPTH[BTC])
        here.dead = True
        await asyncio.sleep(QUIET_S)
        await one.passes(4.9)
        assert here.tried == 1 and here.messages("UNSUBSCRIBE") == []
        await one.passes(0.2)  # Its depth stream is subscribed anew meanwhile, to no avail.
        await happens(lambda: len(here.messages("UNSUBSCRIBE")) == 1)
        await one.passes(4.7)
        assert here.tried == 1
        await one.passes(0.4)
        await happens(lambda: here.tried == 2)
        here.dead = False
        await one.flows(DEPTH[BTC])
        await happens(lambda: len(here.open()) == 1)
        assert here.open()[0].number == 1

    play(test)


def test_trades_alone_that_do_not_flow_are_a_silent_connection() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.muted = {"btcusdt@aggTrade"}
        one = follow("usdm", [BTC])
        await one.flows(DEPTH[BTC], "btcusdt@markPrice")  # Which goes on, and says nothing of trades.
        await one.passes(9.0)
        assert here.tried == 2
        await one.passes(3.0)
        assert [socket.path for socket in here.sockets[2:]] == ["/market/stream"]
        assert "nothing came for" in one.feed.health().reason
        here.muted = set()
        await one.flows(DEPTH[BTC], "btcusdt@aggTrade")
        assert one.feed.health().resubscribes == 0

    play(test)


def test_a_market_that_hardly_trades_is_not_connected_to_without_end() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.muted = {"btcusdt@aggTrade"}
        one = follow("usdm", [BTC])
        await one.flows(DEPTH[BTC])
        await one.passes(120.0)
        assert 4 <= here.tried - 1 <= 7, "and not a dozen"

    play(test)


def test_a_depth_stream_that_is_silent_is_subscribed_anew_and_then_its_connection_is_replaced() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow()
        await one.flows(*DEPTH.values())
        here.muted = {DEPTH[BTC]}
        await one.passes(4.0)
        assert here.messages("UNSUBSCRIBE") == []
        await one.passes(2.0)
        await happens(lambda: here.messages("UNSUBSCRIBE") == [[DEPTH[BTC]]])
        here.clock.now_s += 0.3
        await happens(lambda: [DEPTH[BTC]] in here.messages("SUBSCRIBE"))
        here.muted = set()
        await one.flows(*DEPTH.values())
        assert here.tried == 2 and one.feed.health().resubscribes == 1

        here.muted = {DEPTH[BTC]}
        await one.passes(12.0)
        await happens(lambda: len([one for one in here.sockets if one.path == "/public/stream"]) == 2)
        await one.flows(DEPTH[ETH])
        assert one.feed.health().reason == f"{DEPTH[BTC]} stayed silent"
        await happens(lambda: len(here.open()) == 2)
        here.muted = set()
        await one.flows(*DEPTH.values())
        assert here.tried == 3

    play(test)


def test_a_stale_book_has_its_streams_subscribed_anew_at_once_but_not_again_and_again() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot")
        await one.flows(*DEPTH.values(), "btcusdt@trade", "btcusdt@bookTicker")
        here.muted = {DEPTH[BTC], "btcusdt@trade"}
        await one.passes(3.0)
        for _ in range(3):
            one.feed.stale(BTC)
        one.feed.stale("NOBODY")
        await happens(lambda: len(here.messages("UNSUBSCRIBE")) == 1)
        assert here.messages("UNSUBSCRIBE") == [[DEPTH[BTC], "btcusdt@trade"]], "its ticker flows and is left alone"
        await one.passes(1.0)
        await happens(lambda: here.messages("SUBSCRIBE")[-1] == [DEPTH[BTC], "btcusdt@trade"])
        assert one.feed.health().resubscribes == 2 and here.tried == 1
        await one.passes(5.0)
        await happens(lambda: here.tried == 2)  # That brought nothing.
        await one.flows(DEPTH[ETH])

    play(test)


def test_a_stale_book_while_there_is_no_connection_is_nothing() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.handshakes.append((429, {}))
        one = follow("spot", [BTC])
        one.feed.stale(BTC)
        await happens(lambda: one.feed.health().retry_after_s > 0)  # The refusal was read.
        one.feed.stale(BTC)
        here.clock.now_s += 61.0
        await one.flows(DEPTH[BTC])
        assert one.feed.health().resubscribes == 0

    play(test)


def test_a_process_that_stood_still_blames_nobody() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow()
        await one.flows(*DEPTH.values(), "btcusdt@aggTrade")
        here.dead = True
        here.clock.now_s += HOUR_S
        await asyncio.sleep(QUIET_S)
        assert here.tried == 2 and here.messages("UNSUBSCRIBE") == []
        await one.passes(6.0)
        assert here.messages("UNSUBSCRIBE") != [], "but who is silent from then on is"

    play(test)


@given(st.lists(st.tuples(st.floats(0.1, 30.0), st.booleans()), max_size=200), st.floats(1.0, 10.0), st.floats(1.0, 300.0))
def test_patience_stays_in_its_bounds_and_nothing_is_done_too_early(steps: list[tuple[float, bool]], base_s: float, max_s: float) -> None:
    now_s = heard_s = acted_s = 0.0
    silence = Silence(base_s, max_s, now_s)
    for step_s, speaks in steps:
        now_s += step_s
        if speaks:
            silence.heard(now_s)
            heard_s = now_s
        elif silence.due(now_s):
            assert now_s - heard_s >= base_s and now_s - acted_s >= base_s
            silence.act(now_s)
            acted_s = now_s
        assert base_s <= silence.patience_s <= max(base_s, max_s)


def test_patience_grows_with_what_is_done_and_comes_back_in_a_calm_minute() -> None:
    silence, acts = Silence(5.0, 300.0, 0.0), []
    for now_s in range(1, 1_000):
        if silence.due(now_s):
            silence.act(now_s)
            acts.append(now_s)
    assert acts == [5, 10, 15, 20, 30, 50, 90, 170, 330, 630, 930]
    for now_s in range(1_000, 1_061):
        silence.heard(now_s)
        assert silence.patience_s == (300.0 if now_s < 1_060 else 5.0)
    for now_s in itertools.islice(itertools.count(1_061), 0, 2_000, 8):  # Slower than the patience, without an end.
        if silence.due(now_s - 1):
            silence.act(now_s - 1)
        silence.heard(now_s)
    assert silence.patience_s == 10.0


# One connection takes over from another


def number(value: int, stream: str = DEPTH[BTC]) -> str:
    return json.dumps({"stream": stream, "data": {"u": value}}, separators=(",", ":"))


def unseen(numbers: Sequence[int]) -> list[int]:
    """What the core takes of numbers that follow each other: those beyond the last one, of which none may be left out."""
    taken: list[int] = []
    for one in numbers:
        if not taken or one > taken[-1]:
            taken.append(one)
    return taken


def _overlaps(log: list[tuple[str, int]], older: int, newer: int) -> bool:
    return log.index(("open", newer)) < log.index(("data", newer)) < log.index(("close", older))


@pytest.mark.parametrize("cause", ["age", "raw notice", "wrapped notice"])
def test_the_new_connection_delivers_before_the_old_one_ends_and_nothing_is_missed(cause: str) -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", rotate_s=23 * HOUR_S)
        await one.flows(*DEPTH.values())
        if cause == "age":
            here.clock.now_s += 23 * HOUR_S - 1.0
            await one.flows(*DEPTH.values())
            assert here.tried == 1
            here.clock.now_s += 2.0
        else:
            notice = {"e": "serverShutdown", "E": 1}
            await here.open()[0].ws.send_json(notice if cause == "raw notice" else {"stream": "!serverShutdown", "data": notice})
        await happens(lambda: ("close", 0) in here.log)
        assert _overlaps(here.log, 0, 1)
        await one.flows(*DEPTH.values())
        for stream in DEPTH.values():
            numbers = one.numbers(stream)
            assert unseen(numbers) == list(range(numbers[0], max(numbers) + 1)), "duplicates do no harm, holes and disorder would"
            assert len(numbers) > len(set(numbers)), "both delivered for a while"
        assert ("hours old" if cause == "age" else "goes down") in one.feed.health().reason
        assert here.tried == 2 and len(here.open()) == 1

    play(test)


async def two_lines(here: Venue, one: Followed) -> int:
    """Have a connection replaced by another that holds its frames, with nothing sent but by the test; returns the last number."""
    await one.flows(DEPTH[BTC])
    here.dead = True
    await asyncio.sleep(QUIET_S)
    await happens(lambda: all(one.numbers(name)[-1:] == [count] for name, count in here.counts.items()))
    before = one.feed.frames
    await here.sockets[0].ws.send_json({"e": "serverShutdown", "E": 1})
    await happens(lambda: len(here.sockets) == 2 and DEPTH[BTC] in here.sockets[1].streams)
    await happens(lambda: one.feed.frames == before + 2)  # The notice, and the answer to the subscription.
    return one.numbers(DEPTH[BTC])[-1]


async def send(here: Venue, one: Followed, line: int, *numbers: int) -> None:
    """Send by one line, and wait until all of it was read."""
    before = one.feed.frames
    for value in numbers:
        await here.sockets[line].ws.send_str(number(value))
    await happens(lambda: one.feed.frames == before + len(numbers))


async def falls_silent(here: Venue, one: Followed) -> None:
    await happens(lambda: not any(connection._heard for connection in one.feed.open_connections))
    here.clock.now_s += 5.1


ORDERS = [
    [(1, 3), (0, 1), (0, 2), (0, 3), (1, 4), (0, 4), (1, 5)],  # The new line is ahead.
    [(0, 1), (0, 2), (0, 3), (1, 2), (0, 4), (1, 3), (1, 4), (1, 5), (1, 6)],  # It is behind.
    [(1, 1), (1, 2), (1, 3), (0, 1), (1, 4), (1, 5)],  # The old one never gets so far.
    [(0, 1), (1, 2), (1, 3)],  # One goes on where the other stops.
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("end", ["closed", "silence", "full"])
def test_of_two_lines_in_any_order_nothing_is_lost_and_nothing_out_of_order(
    order: list[tuple[int, int]], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = sum(line for line, _ in order)
    if end == "full":
        monkeypatch.setattr(feed_module, "HELD_FRAMES_MAX", held)

    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC], overlap_s=60.0)
        last = await two_lines(here, one)
        delivered = last
        for line, value in order:
            assert one.numbers(DEPTH[BTC])[-1] == delivered, "what the new line sends is held"
            await send(here, one, line, last + value)
            delivered = delivered if line else last + value
        if end == "closed":
            await here.sockets[0].ws.close()
        elif end == "silence":
            await falls_silent(here, one)
        newest = last + max(value for _, value in order)
        await happens(lambda: one.numbers(DEPTH[BTC])[-1] == newest)
        await send(here, one, 1, newest + 1, newest + 2)
        await happens(lambda: one.numbers(DEPTH[BTC])[-1] == newest + 2)
        numbers = unseen(one.numbers(DEPTH[BTC]))
        assert numbers == list(range(numbers[0], newest + 3)), "none is missing and none came before its turn"
        assert len(one.numbers(DEPTH[BTC])) == last - numbers[0] + 1 + len(order) + 2, "each line's frames were handed over once"
        await happens(lambda: [socket.number for socket in here.open()] == [1])

    play(test)


@pytest.mark.parametrize("how", ["dead", "silent"])
def test_where_the_old_line_says_nothing_the_new_one_is_not_held_back(how: str) -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC], overlap_s=60.0)
        last = await two_lines(here, one)
        if how == "dead":
            await here.sockets[0].ws.close()
        else:
            await falls_silent(here, one)
        for value in (1, 2, 3):
            await here.sockets[1].ws.send_str(number(last + value))
            await happens(lambda: one.numbers(DEPTH[BTC])[-1] == last + value)  # noqa: B023 - Waited for here.
        await happens(lambda: [socket.number for socket in here.open()] == [1])

    play(test)


def test_more_than_a_turn_is_released_in_order_with_what_comes_meanwhile() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC], overlap_s=60.0)
        last = await two_lines(here, one)
        await send(here, one, 1, *range(last + 1, last + 1_001))
        assert one.numbers(DEPTH[BTC])[-1] == last
        await here.sockets[0].ws.close()
        for value in range(last + 1_001, last + 1_501):
            await here.sockets[1].ws.send_str(number(value))
        await happens(lambda: one.numbers(DEPTH[BTC])[-1] == last + 1_500)
        numbers = one.numbers(DEPTH[BTC])
        assert numbers == list(range(numbers[0], last + 1_501))

    play(test)


def test_a_new_line_that_fails_leaves_the_old_one_and_what_it_held_is_not_handed_over() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC], overlap_s=60.0)
        last = await two_lines(here, one)
        await send(here, one, 1, last + 2, last + 3)
        await here.sockets[1].ws.close()
        await happens(lambda: len(here.sockets) == 3)
        for value in (last + 1, last + 2):
            await here.sockets[0].ws.send_str(number(value))
            await happens(lambda: one.numbers(DEPTH[BTC])[-1] == value)  # noqa: B023 - Waited for here.
        numbers = one.numbers(DEPTH[BTC])
        assert numbers == list(range(numbers[0], last + 3))

    play(test)


def test_reading_leaves_the_loop_to_others_while_frames_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that came all at once are read without a wait between them."""
    monkeypatch.setattr(turns, "SLICE_S", 0.0)
    monkeypatch.setattr(turns, "SLICE_MAX_S", 0.0)

    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC])
        await one.flows(DEPTH[BTC])
        here.dead = True
        await asyncio.sleep(QUIET_S)
        seen: list[int] = []
        sent = 600
        before = len(one.frames)

        async def look() -> None:
            while len(one.frames) < before + sent:
                seen.append(len(one.frames))
                await asyncio.sleep(0)

        transport = here.sockets[0].ws._req.transport  # type: ignore[union-attr]
        frame = number(1).encode()
        assert len(frame) < 126
        transport.write((bytes((0x81, len(frame))) + frame) * sent)
        await look()
        steps = [after - at for at, after in itertools.pairwise([*seen, before + sent])]
        assert max(steps) <= 2, "here a slice is over with its first frame"

    play(test)


def test_the_old_connection_stays_while_no_new_one_can_be_had() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", rotate_s=23 * HOUR_S)
        await one.flows(*DEPTH.values())
        here.handshakes.extend([(500, {})] * 3 + [(429, {"Retry-After": "60"})])
        here.clock.now_s += 23 * HOUR_S + 1.0
        await happens(lambda: here.tried == 5)
        await one.flows(*DEPTH.values())
        assert len(here.open()) == 1
        await one.passes(62.0)
        await happens(lambda: ("close", 0) in here.log)
        assert _overlaps(here.log, 0, 1)
        numbers = one.numbers(DEPTH[BTC])
        assert sorted(set(numbers)) == list(range(numbers[0], max(numbers) + 1))

    play(test)


def test_a_new_connection_that_never_delivers_is_given_up_for_the_next_and_the_old_one_stays_meanwhile() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC])
        await one.flows(DEPTH[BTC])
        here.dead = True
        for older in (0, 1):
            await here.sockets[older].ws.send_json({"e": "serverShutdown", "E": 1})
            await happens(lambda: len(here.messages("SUBSCRIBE")) == older + 2)  # noqa: B023 - Waited for here.
        await happens(lambda: [socket.number for socket in here.open()] == [0, 2])
        here.dead = False
        await happens(lambda: [socket.number for socket in here.open()] == [2])
        await one.flows(DEPTH[BTC])

    play(test)


def test_a_server_that_goes_down_again_and_again_is_not_hammered() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC])
        await one.flows(DEPTH[BTC])
        one.chance = 1.0
        for tried, wait_s in enumerate((0.5, 1.0, 2.0), start=1):
            await one.flows(DEPTH[BTC])
            await here.open()[-1].ws.send_str('{"e":"serverShutdown","E":1}')
            await asyncio.sleep(QUIET_S)
            here.clock.now_s += wait_s - 0.05
            await asyncio.sleep(QUIET_S)
            assert here.tried == tried
            here.clock.now_s += 0.1
            await happens(lambda: here.tried == tried + 1)  # noqa: B023 - Waited for here.
            await happens(lambda: len(here.open()) == 1)

    play(test)


# REST answers


def test_one_snapshot_of_a_symbol_is_on_its_way_and_one_more_follows_what_is_asked_meanwhile() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.gate = asyncio.Event()
        one = follow()
        for _ in range(5):
            one.feed.snapshot(BTC)  # Not sent yet: one answers them all.
        await happens(lambda: here.count("depth") == 1)
        for _ in range(5):
            one.feed.snapshot(BTC)
        one.feed.snapshot(ETH)
        await happens(lambda: here.count("depth") == 2)
        await asyncio.sleep(QUIET_S)
        assert sorted(one for one in here.asked if one.startswith("depth")) == [f"depth?symbol={name}&limit=1000" for name in (BTC, ETH)]
        here.gate.set()
        await happens(lambda: len(one.bodies(BTC)) == 2 and len(one.bodies(ETH)) == 1)
        await asyncio.sleep(QUIET_S)
        assert here.count("depth") == 3 == one.feed.health().snapshots
        one.feed.snapshot(BTC)
        await happens(lambda: len(one.bodies(BTC)) == 3)

    play(test)


def test_a_snapshot_is_asked_for_until_it_is_there() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.answers["depth"].extend(
            [
                web.Response(status=500),
                web.Response(status=429, headers={"Retry-After": "5"}),
                web.Response(status=400, text='{"code":-1121,"msg":"Invalid symbol."}'),
                web.Response(text='{"lastUpdateId":1,"bids":['),
            ]
        )
        one = follow("spot", [BTC])
        await one.flows(DEPTH[BTC])
        one.feed.snapshot(BTC)
        await one.passes(50.0)
        assert one.bodies(BTC) == [{"lastUpdateId": 6, "bids": [], "asks": []}]
        assert here.count("depth") == 5

    play(test)


def test_a_book_that_never_links_up_does_not_eat_the_budget() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC])
        await one.flows(DEPTH[BTC])
        for answered in range(1, 6):
            one.feed.snapshot(BTC)
            await happens(lambda: len(one.bodies(BTC)) == answered)  # noqa: B023 - Waited for here.
        one.feed.snapshot(BTC)
        await asyncio.sleep(QUIET_S)
        assert here.count("depth") == 5
        here.clock.now_s += 10.1
        await happens(lambda: here.count("depth") == 6)

    play(test)


def test_a_snapshot_of_what_is_not_followed_is_not_fetched() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow("spot", [BTC])
        one.feed.snapshot(ETH)
        await one.flows(DEPTH[BTC])
        await asyncio.sleep(QUIET_S)
        assert here.count("depth") == 0

    play(test)


def test_candles_come_page_by_page_and_empty_pages_are_left_out() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.answers["klines"].append(web.Response(text=" []\n"))
        one = follow()
        await one.feed.klines(BTC, 0, 2_500 * 60_000)
        assert one.bodies(BTC) == [[[60_000_000]], [[120_000_000]]]
        assert here.count("klines") == 3
        here.answers["klines"].append(web.Response(status=400, text='{"code":-1121,"msg":"Invalid symbol."}'))
        with pytest.raises(RestError, match="Invalid symbol"):
            await one.feed.klines(BTC, 0, 60_000)
        await one.feed.klines(BTC, 60_000, 60_000)
        assert len(one.bodies(BTC)) == 2

    play(test)


# Begin and end


def test_a_symbol_that_is_not_listed_ends_the_feed_before_it_connects() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow(symbols=[BTC, "ETHUSD"])
        with pytest.raises(UnknownSymbol, match="expected symbols that binance-usdm lists, found ETHUSD: the nearest are ETHUSDT"):
            await one.task
        assert here.tried == 0 and one.frames == []

    play(test, ends=False)


def test_a_venue_that_will_not_serve_us_ends_the_feed() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.answers["exchangeInfo"].append(web.Response(status=451, text="restricted location"))
        with pytest.raises(RestError, match="HTTP 451: b'restricted location'"):
            await follow().task

    play(test, ends=False)


def test_a_listing_that_is_none_is_asked_for_again() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.answers["exchangeInfo"].extend([web.Response(text='{"symbols":7}'), web.Response(status=502)])
        one = follow("spot", [BTC])
        await one.flows(DEPTH[BTC])
        assert here.count("exchangeInfo") == 3

    play(test)


def test_what_the_receiver_raises_ends_the_feed_and_closes_everything() -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        one = follow()
        await one.flows(DEPTH[BTC])

        def refuse(symbol: str, payload: bytes) -> None:
            raise AssertionError("expected nothing more, found a frame")

        one.feed.receive = refuse
        await here.open("/public/stream")[0].ws.send_str("not of a stream")
        with pytest.raises(AssertionError, match="expected nothing more"):
            await one.task
        await happens(lambda: not here.open())

    play(test, ends=False)


@pytest.mark.parametrize("moment", ["at once", "listing", "refused", "subscribing", "flowing", "two of them", "snapshot", "history"])
def test_cancelled_at_any_moment_it_leaves_nothing_behind(moment: str) -> None:
    async def test(here: Venue, follow: Callable[..., Followed]) -> None:
        here.gate = asyncio.Event()
        here.deaf = moment == "subscribing"
        if moment == "listing":
            here.answers["exchangeInfo"].extend([web.Response(status=500)] * 9)
        if moment == "refused":
            here.handshakes.extend([(429, {})] * 9)
        one = follow(overlap_s=60.0)
        others: list[asyncio.Task[None]] = []
        if moment == "listing":
            await happens(lambda: here.count("exchangeInfo") > 0)
        elif moment == "refused":
            await happens(lambda: here.tried > 0)
        elif moment == "subscribing":
            await happens(lambda: len(here.messages("SUBSCRIBE")) == 2)
        elif moment != "at once":
            await one.flows(*DEPTH.values(), "btcusdt@aggTrade")
        if moment == "two of them":
            await here.open("/public/stream")[0].ws.send_str('{"e":"serverShutdown","E":1}')
            await happens(lambda: len(here.open("/public/stream")) == 2 and ("data", 2) in here.log)
        if moment == "snapshot":
            one.feed.snapshot(BTC)
            await happens(lambda: here.count("depth") == 1)
        if moment == "history":
            here.answers["klines"].extend([web.Response(status=500)] * 9)
            others.append(asyncio.create_task(one.feed.klines(BTC, 0, 60_000)))
            await happens(lambda: here.count("klines") > 0)
        codes = [socket.ws for socket in here.open()]
        one.task.cancel()
        await asyncio.gather(one.task, *others, return_exceptions=True)
        assert one.task.cancelled() and all(other.cancelled() for other in others)
        await happens(lambda: not here.open())
        assert {ws.close_code for ws in codes} <= {1000}, "with a close frame"
        here.gate.set()

    play(test)


@pytest.mark.parametrize("symbols", [[], [BTC, BTC]])
def test_symbols_are_given_once_each(symbols: list[str]) -> None:
    with pytest.raises(ValueError, match="expected symbols, each once, found"):
        Feed(BinanceApi("spot"), symbols, lambda *_: None, clock=Clock(), chance=lambda: 0.0)
