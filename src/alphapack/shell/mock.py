"""A mock exchange: one market of Binance over real sockets, on this machine alone.

Law: a REST answer is never ahead of the streams nor behind them. A tape is released in steps, each step is on its way to
every client before anything else happens, and a snapshot is the book as of the last frame released. So whoever keeps
frames, asks for a snapshot and links the two by the venue's rule succeeds, unless a fault was done to the frames.

The streams are pre-framed and written straight to the transports, one write a client and step: aiohttp does the handshake
and reads what clients say. A client that reads too slowly is cut off, as at the venue. ``/mock/...`` is the control:
``POST /mock/fault``, ``GET /mock/truth``, ``GET /mock/stats``. It is not for the pages of other sites in a browser here.
"""

import asyncio
import errno
import math
import os
import re
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

import msgspec
from aiohttp import WSMsgType, web

from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, BinanceMarket
from alphapack.models.candles import MINUTE_MS
from alphapack.shell.faults import (
    KINDS,
    OF_CONNECTIONS,
    Deed,
    FaultRefused,
    FaultRequest,
    Injector,
    Kind,
    combined,
    data_of,
    stream_of,
)
from alphapack.shell.tapes import Tape, TapeError

HOST = "127.0.0.1"
"""Faults are for the asking here, so nobody else may reach it."""
TICK_S = 0.002
ELAPSED_S_MAX = 1.0
"""After a pause of the process the tape goes on from where it stood, not in one step to where it would be."""
SPAN_NS_MIN, SPAN_NS_MAX = NANOS_PER_MS, 10 * NANOS_PER_S
RELEASES_A_TICK_MAX = 64
SPEED_MAX = 10_000
RATE_MAX = 1_000_000

CLIENTS_MAX = 64
CONTROL_BYTES_MAX = 1 << 16
STREAM_LENGTH_MAX = 100
MUTE_S_MAX = 120.0
"""After it a half-open connection whose client has not noticed is taken down."""
CLOSE_TIMEOUT_S = 1.0
GIANT_BYTES = 20_000_000

IGNORED_429_MAX = 10
"""Refused requests in one minute after which the address is banned."""
BAN_S = 120

_STREAM = re.compile(r"![A-Za-z@_0-9]+|[^@\s!]+@[A-Za-z][A-Za-z0-9_@]*")
_SYMBOL = re.compile(r"[A-Z0-9_.-]{1,20}")
_OWN_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_SPEEDS = frozenset(b"%dms" % interval for interval in (0, 100, 250, 500, 1_000))
_ROUTED = {"public": frozenset({b"depth", b"bookTicker", b"trade"}), "market": frozenset({b"aggTrade", b"markPrice"})}
"""What USD-M sends on each of its addresses."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a market allows one address; the venue's figures are in ``LIMITS``."""

    messages_per_s: int
    """Incoming messages a connection: control, ping and pong."""
    weight_per_minute: int
    ping_s: float
    pong_s: float
    """How long after a ping a connection without a pong is closed."""
    streams_max: int = 1_024
    connections_per_5min: int = 300
    lifetime_s: float = 86_400.0


LIMITS: dict[BinanceMarket, Limits] = {
    "spot": Limits(messages_per_s=5, weight_per_minute=6_000, ping_s=20.0, pong_s=60.0),
    "usdm": Limits(messages_per_s=10, weight_per_minute=2_400, ping_s=180.0, pong_s=600.0),
    "coinm": Limits(messages_per_s=10, weight_per_minute=2_400, ping_s=180.0, pong_s=600.0),
}
_PREFIX: dict[BinanceMarket, str] = {"spot": "/api/v3", "usdm": "/fapi/v1", "coinm": "/dapi/v1"}
_FUTURES_DEPTHS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1_000: 20}
"""Weight by limit; no other limit is taken."""


class MockSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a tape is played, and what is done to it."""

    market: BinanceMarket = "usdm"
    port: int = 0
    """0: any free one."""
    speed: float = 1.0
    """Tape seconds a second."""
    rate: float | None = None
    """Frames a second of the tape, whatever its own times; it takes the place of ``speed``."""
    waits: bool = False
    """Whether the tape stands still while nobody is subscribed."""
    seed: int = 7
    fault_every: int = 0
    """Mean number of frames from one scheduled fault to the next; 0: none but those asked for."""
    fault_kinds: tuple[Kind, ...] = KINDS
    fault_spacing: int = 50
    """Frames of a symbol between two faults of it."""
    send_buffer_bytes: int = 4 << 20
    """What a client may leave unread before it is cut off."""
    limits: Limits | None = None
    """None: the venue's."""

    def __post_init__(self) -> None:
        if not 0 < self.speed <= SPEED_MAX:
            raise ValueError(f"expected a speed above 0 and up to {SPEED_MAX}, found {self.speed}")
        if self.rate is not None and not 0 < self.rate <= RATE_MAX:
            raise ValueError(f"expected a rate above 0 and up to {RATE_MAX} frames a second, found {self.rate}")
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"expected a port of 0 to 65535, found {self.port}")


class PortTaken(Exception):
    """The port cannot be listened on, most often because it belongs to someone else."""


# WebSocket frames


def ws_frame(payload: bytes, opcode: int = 1) -> bytes:
    """Return a whole WebSocket frame as a server sends it: not masked (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


class _Trade(msgspec.Struct, rename={"event_ms": "E", "trade_ms": "T", "symbol": "s", "trade_id": "t", "kind": "X"}):
    event_ms: int
    trade_ms: int
    symbol: str
    trade_id: int
    p: str
    q: str
    m: bool
    kind: str = "MARKET"


class _Listed(msgspec.Struct):
    symbol: str


_trade = msgspec.json.Decoder(_Trade)


def aggregate(data: bytes) -> bytes | None:
    """Return the aggTrade of one trade, None of one that the venue does not aggregate (insurance fund, deleveraging)."""
    one = _trade.decode(data)
    if one.kind != "MARKET":
        return None
    ignored = b',"M":true' if data.endswith(b',"M":true}') else b""
    return b'{"e":"aggTrade","E":%d,"a":%d,"s":"%b","p":"%b","q":"%b","f":%d,"l":%d,"T":%d,"m":%b%b}' % (
        *(one.event_ms, one.trade_id, one.symbol.encode(), one.p.encode(), one.q.encode()),
        *(one.trade_id, one.trade_id, one.trade_ms, b"true" if one.m else b"false", ignored),
    )


# What an address may ask


class Weights:
    """Request weights of one address by the minute: 429 beyond the limit, 418 for whoever does not stop then."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._minute = -1
        self._ignored = 0
        self._refused: tuple[int, float] = (0, -math.inf)
        """Status and end of a ban, or of refusals that were asked for."""
        self.used = 0
        self.used_max = 0
        """The most that was used in one minute."""

    def refuse(self, status: int, seconds: float) -> None:
        """Refuse everything with this status for so long."""
        self._refused = status, self._clock() + seconds

    def standing(self) -> tuple[int, int] | None:
        """Return status and ``Retry-After`` in seconds where nothing is answered at all now."""
        status, until_s = self._refused
        left_s = until_s - self._clock()
        return (status, max(1, math.ceil(left_s))) if left_s > 0 else None

    def charge(self, weight: int) -> tuple[int, int] | None:
        """Take a request's weight; return status and ``Retry-After`` in seconds where it is refused."""
        now_s = self._clock()
        if int(now_s // 60) != self._minute:
            self._minute, self.used, self._ignored = int(now_s // 60), 0, 0
        if refused := self.standing():
            return refused
        if self.used + weight > self._per_minute:
            self._ignored += 1
            if self._ignored > IGNORED_429_MAX:
                self.refuse(418, BAN_S)
                return 418, BAN_S
            return 429, max(1, math.ceil(60 - now_s % 60))
        self.used += weight
        self.used_max = max(self.used_max, self.used)
        return None


class _Refusal(Exception):
    """A REST request that is answered with the venue's error."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status, self.body = status, msgspec.json.encode({"code": code, "msg": message})


class _Call(msgspec.Struct):
    method: str
    params: list[str | bool] = []
    id: int | str | None = None


_call = msgspec.json.Decoder(_Call)
_asked = msgspec.json.Decoder(FaultRequest)
_METHODS = "SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY, GET_PROPERTY"


class _Client:
    """One connection: what it is subscribed to, and what is to be written to it."""

    def __init__(
        self, transport: asyncio.WriteTransport, *, wrapped: bool, routed: frozenset[bytes] | None, now_s: float, room: int
    ) -> None:
        self.transport = transport
        self.wrapped = wrapped
        self.routed = routed
        """Channels that this address serves; None: all."""
        self.streams: dict[str, None] = {}
        self.pending: list[bytes] = []
        self.muted = False
        """Half-open: it is sent nothing, and nothing that it says is answered."""
        self.farewell = False
        """Whether the close frame has been sent."""
        self.told: deque[float] = deque()
        """Times of incoming messages within a second."""
        self.opened_s = self.pinged_s = self.heard_s = now_s
        self.close_s = math.inf
        self.gone = asyncio.Event()
        self._room = self.room = room

    def write(self, data: bytes) -> bool:
        """Hand bytes to the transport; False where the client has left too much unread and was cut off."""
        if not self.reached:
            return True
        unread = self.transport.get_write_buffer_size()
        if unread > self.room:
            self.transport.abort()
            return False
        if unread <= self._room:
            self.room = self._room
        self.transport.write(data)
        return True

    def write_giant(self, data: bytes) -> None:
        """Hand over bytes that do not count against the client: they are its to refuse, not a sign of its slowness."""
        if self.reached:
            self.transport.write(data)
            self.room = self._room + self.transport.get_write_buffer_size()

    def close(self, code: int, reason: str, now_s: float) -> None:
        """Send a close frame after all that was written; the client's own ends the connection, or a second without it."""
        self.write(ws_frame(struct.pack("!H", code) + reason.encode(), 8))
        self.farewell = True
        self.close_s = now_s + CLOSE_TIMEOUT_S

    @property
    def reached(self) -> bool:
        """Whether what is written goes out."""
        return not (self.muted or self.farewell or self.transport.is_closing())


class MockExchange:
    """One market on a loopback socket; ``async with`` opens and closes it, ``run`` plays the tape.

    ``clock`` gives monotonic seconds. Everything is done on the running loop.
    """

    def __init__(self, tape: Tape, settings: MockSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tape, self.settings, self._clock = tape, settings, clock
        self._market = settings.market
        self._limits = settings.limits or LIMITS[settings.market]
        self._weights = Weights(self._limits.weight_per_minute, clock)
        self.faults = Injector(
            settings.seed,
            every=settings.fault_every,
            kinds=settings.fault_kinds,
            spacing=settings.fault_spacing,
            listeners=self._listeners,
        )
        info = msgspec.json.decode(tape.exchange_info(), type=dict[str, msgspec.Raw])
        self._symbols = frozenset(one.symbol for one in msgspec.json.decode(info["symbols"], type=list[_Listed]))
        self._clients: dict[_Client, None] = {}
        self._wanted: dict[bytes, dict[bytes, dict[_Client, None]]] = {}
        """Clients by channel key and by the name of the stream as they asked for it; the empty name: without a wrapper."""
        self._keys: dict[bytes, bytes] = {}
        self._aggregated: set[bytes] = set()
        """Keys of aggregates that the tape has itself."""
        self._stale: dict[str, bytes] = {}
        self._attempts: deque[float] = deque()
        self._counts: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._due_ns = tape.now_ns
        self._due_frames = 0.0
        self._span_ns = 10 * NANOS_PER_MS
        self._runner: web.AppRunner | None = None
        self._watch: asyncio.Task[None] | None = None
        self._closing = False
        self.port = 0
        """The port in use, once it is open."""

    @property
    def symbols(self) -> list[str]:
        """The names that the tape lists, in order."""
        return sorted(self._symbols)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=CONTROL_BYTES_MAX, middlewares=[_guard_control])
        app.add_routes([web.get(f"{_PREFIX[self._market]}/{{call}}", self._rest)])
        app.add_routes([web.post("/mock/fault", self._fault), web.get("/mock/truth", self._truth), web.get("/mock/stats", self._stats)])
        for at in ("/public", "/market") if self._market == "usdm" else ("",):
            app.add_routes([web.get(f"{at}/stream", self._connect), web.get(f"{at}/ws", self._connect)])
            app.add_routes([web.get(f"{at}/ws/{{streams:.+}}", self._connect)])
        try:
            listener = socket.create_server((HOST, self.settings.port))
        except OSError as error:
            raise PortTaken(_why_not(self.settings.port, error)) from None
        self.port = listener.getsockname()[1]
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=CLOSE_TIMEOUT_S / 2)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        self._watch = asyncio.create_task(self._watch_clients())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._runner is not None and self._watch is not None, "closed as often as opened"
        self._closing = True
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch
        for client in self._clients:
            client.gone.set()
            client.close(1001, "", self._clock())
        await self._runner.cleanup()

    # The tape

    async def run(self) -> None:
        """Play the tape at the settings' pace until cancelled; where it ends, the streams fall silent."""
        last_s = self._clock()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = self._clock()
            if not self.settings.waits or self._wanted:
                self.play(min(now_s - last_s, ELAPSED_S_MAX))
            last_s = now_s

    def play(self, elapsed_s: float) -> None:
        """Release what is due after so many more seconds."""
        if self.settings.rate is None:
            self._due_ns = max(self._due_ns, self._tape.now_ns) + int(elapsed_s * self.settings.speed * NANOS_PER_S)
            for _ in range(RELEASES_A_TICK_MAX):
                if self._tape.now_ns < self._due_ns:
                    self.release(min(self._due_ns, self._tape.now_ns + SPAN_NS_MAX))
            self._due_ns = self._tape.now_ns  # Beyond that the machine is too slow for the speed.
            return
        self._due_frames += elapsed_s * self.settings.rate
        for _ in range(RELEASES_A_TICK_MAX):
            if self._due_frames < 1:
                return
            released = self.release(self._tape.now_ns + self._span_ns)
            # The next span is the one that this density of frames asks for.
            wanted = self._span_ns * (max(self._due_frames - released, 1.0) / released if released else 2.0)
            self._span_ns = int(min(max(wanted, SPAN_NS_MIN), SPAN_NS_MAX))
            self._due_frames -= released
        self._due_frames = min(self._due_frames, self.settings.rate * ELAPSED_S_MAX)

    def release(self, until_ns: int) -> int:
        """Release the tape through ``until_ns`` to every client and return its number of frames."""
        frames = self._tape.advance(until_ns)
        self._counts["frames"] += len(frames)
        for item in self.faults.run(frames, until_ns):
            if isinstance(item, Deed):
                self._flush()
                self._do(item)
            else:
                self._route(item[1])
        self._flush()
        return len(frames)

    def _route(self, payload: bytes) -> None:
        """Put a frame before those who asked for it."""
        stream = stream_of(payload)
        key = self._keys.get(stream)
        if key is None:
            key = self._keys[stream] = key_of(stream)
            if key.endswith(b"@aggTrade"):
                self._aggregated.add(key)
        wanted = self._wanted.get(key)
        if wanted is not None:
            data = None
            for name, clients in wanted.items():
                if name == stream:
                    framed = ws_frame(payload)
                else:
                    data = data_of(payload, stream) if data is None else data
                    framed = ws_frame(combined(name, data) if name else data)
                for client in clients:
                    client.pending.append(framed)
        if key.endswith(b"@trade"):
            self._route_aggregate(key[: -len(b"trade")] + b"aggTrade", payload, stream)

    def _route_aggregate(self, key: bytes, payload: bytes, stream: bytes) -> None:
        wanted = self._wanted.get(key)
        if wanted is None or key in self._aggregated:
            return
        try:
            data = aggregate(data_of(payload, stream))
        except (msgspec.MsgspecError, UnicodeDecodeError):  # A fault has been at it: no aggregate comes of what is no trade.
            data = data_of(payload, stream)
        if data is None:
            return
        for name, clients in wanted.items():
            framed = ws_frame(combined(name, data) if name else data)
            for client in clients:
                client.pending.append(framed)

    def _flush(self) -> None:
        """Write what is pending, one write a client."""
        for client in list(self._clients):
            if client.pending:
                data = b"".join(client.pending)
                self._counts["sent"] += len(client.pending)
                self._counts["sent_bytes"] += len(data)
                client.pending = []
                if not client.write(data):
                    self._counts["slow_clients"] += 1

    def _listeners(self, stream: bytes) -> int:
        key = key_of(stream)
        keys = (key, key[: -len(b"trade")] + b"aggTrade") if key.endswith(b"@trade") else (key,)
        return len({client for one in keys for clients in self._wanted.get(one, {}).values() for client in clients if client.reached})

    # Faults of connections and of answers

    def _do(self, deed: Deed) -> None:
        request, seconds = deed.request, (deed.request.ms or 0) / 1_000
        if request.kind in OF_CONNECTIONS:
            deed.record.listeners = sum(client.reached for client in self._clients)
        match request.kind:
            case "giant":
                framed = ws_frame(combined(b"giant", b'"%b"' % (b"x" * GIANT_BYTES)))
                for client in self._clients:
                    client.write_giant(framed)
            case "half_open":
                for client in self._clients:
                    client.muted, client.close_s = True, self._clock() + MUTE_S_MAX
            case "disconnect":
                for client in list(self._clients):
                    if request.code == 1006:
                        client.transport.abort()
                    else:
                        client.close(request.code or 1001, "", self._clock())
            case "server_shutdown":
                data = b'{"e":"serverShutdown","E":%d}' % (self._tape.now_ns // NANOS_PER_MS)
                for client in self._clients:
                    client.write(ws_frame(combined(b"!serverShutdown", data) if client.wrapped else data))
                    client.close_s = self._clock() + seconds
            case "stale_snapshot":
                with suppress(TapeError):
                    self._stale[deed.record.symbol] = self._tape.snapshot(deed.record.symbol)
            case "http_429" | "http_418":
                self._weights.refuse(int(request.kind[-3:]), seconds)

    # Streams

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        """Serve one WebSocket until either side ends it."""
        self._counts["connections"] += 1
        if refused := self._refused_handshake():
            return refused
        names = request.match_info.get("streams") or request.query.get("streams", "")
        streams = [name for name in names.split("/") if name]
        if len(streams) > self._limits.streams_max or any(not _is_stream(name) for name in streams):
            return web.Response(status=400, text="Invalid combined streams")
        ws = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, max_msg_size=CONTROL_BYTES_MAX, timeout=CLOSE_TIMEOUT_S)
        await ws.prepare(request)
        transport = cast("asyncio.WriteTransport | None", request.transport)  # uvloop's own is not registered as one.
        if transport is None:  # It went away while it was being answered.
            return ws
        parts = request.path.split("/")
        routed = _ROUTED.get(parts[1])
        wrapped = "stream" in parts[1:3]
        room = self.settings.send_buffer_bytes
        client = _Client(transport, wrapped=wrapped, routed=routed, now_s=self._clock(), room=room)
        self._clients[client] = None
        self._subscribe(client, streams)
        if self._closing:
            client.close(1001, "", self._clock())
        try:
            await self._listen(client, ws)
        finally:
            self._unsubscribe(client, list(client.streams))
            del self._clients[client]
            # Before aiohttp says a farewell of its own.
            (transport.abort if client.muted else transport.close)()
        return ws

    def _refused_handshake(self) -> web.Response | None:
        now_s = self._clock()
        while self._attempts and now_s - self._attempts[0] >= 300:
            self._attempts.popleft()
        if refused := self._weights.standing():
            return _refused(*refused)
        if len(self._attempts) >= self._limits.connections_per_5min:
            return _refused(429, max(1, math.ceil(300 - (now_s - self._attempts[0]))))
        if len(self._clients) >= CLIENTS_MAX:
            return web.Response(status=503)
        self._attempts.append(now_s)
        return None

    async def _listen(self, client: _Client, ws: web.WebSocketResponse) -> None:
        """Hear a client out until its connection ends."""
        async for message in ws:
            if message.type is WSMsgType.ERROR:
                break
            if not client.reached:
                continue
            self._counts["control_messages"] += 1
            now_s = self._clock()
            while client.told and now_s - client.told[0] >= 1:
                client.told.popleft()
            client.told.append(now_s)
            self._counts["control_messages_s_max"] = max(self._counts["control_messages_s_max"], len(client.told))
            if len(client.told) > self._limits.messages_per_s:
                self._counts["too_many_messages"] += 1
                client.close(1008, "Too many requests", now_s)
                continue
            if message.type is WSMsgType.PING:
                client.write(ws_frame(message.data, 10))
            elif message.type is WSMsgType.PONG:
                client.heard_s = now_s
            elif message.type is WSMsgType.TEXT:
                client.write(ws_frame(self._control(client, message.data)))
            else:
                client.write(ws_frame(_error(3, "Invalid JSON: expected text", None)))
        if client.muted:  # Not even its farewell is answered.
            await client.gone.wait()
        else:
            client.close(1000, "", self._clock())

    def _control(self, client: _Client, text: str) -> bytes:
        """Do what a client asks for and return the answer."""
        try:
            call = _call.decode(text)
        except msgspec.ValidationError as error:
            return _error(2, f"Invalid request: {error}", None)
        except (msgspec.DecodeError, RecursionError):
            return _error(3, "Invalid JSON: expected value at line 1 column 1", None)
        if not self._is_id(call.id):
            return _error(2, "Invalid request: request ID must be an unsigned integer", None)
        names = [one for one in call.params if isinstance(one, str)]
        result: object = None
        match call.method:
            case "SUBSCRIBE" | "UNSUBSCRIBE":
                if len(names) != len(call.params) or not all(map(_is_stream, names)):
                    return _error(2, "Invalid request: invalid stream", call.id)
                if call.method == "UNSUBSCRIBE":
                    self._unsubscribe(client, names)
                elif len(client.streams.keys() | set(names)) > self._limits.streams_max:
                    return _error(2, f"Invalid request: more than {self._limits.streams_max} streams", call.id)
                else:
                    self._subscribe(client, names)
            case "LIST_SUBSCRIPTIONS":
                result = list(client.streams)
            case "SET_PROPERTY" | "GET_PROPERTY" if call.params[:1] != ["combined"]:
                return _error(0, "Unknown property", call.id)
            case "SET_PROPERTY":
                if len(call.params) != 2 or not isinstance(call.params[1], bool):
                    return _error(1, "Invalid value type: expected Boolean", call.id)
                streams = list(client.streams)
                self._unsubscribe(client, streams)
                client.wrapped = call.params[1]
                self._subscribe(client, streams)
            case "GET_PROPERTY":
                result = client.wrapped
            case _:
                return _error(2, f"Invalid request: unknown variant `{call.method[:40]}`, expected one of {_METHODS}", call.id)
        return msgspec.json.encode({"result": result, "id": call.id})

    def _is_id(self, value: int | str | None) -> bool:
        if isinstance(value, int):
            return 0 <= value < 1 << 63
        return self._market == "spot" and (value is None or (len(value) <= 36 and value.isalnum()))

    def _subscribe(self, client: _Client, names: Iterable[str]) -> None:
        """Enter streams; those that do not exist stay silent."""
        for name in names:
            client.streams[name] = None
            key = key_of(name.encode())
            if client.routed is None or key.rpartition(b"@")[2] in client.routed:
                variants = self._wanted.setdefault(key, {})
                variants.setdefault(name.encode() if client.wrapped else b"", {})[client] = None

    def _unsubscribe(self, client: _Client, names: Iterable[str]) -> None:
        for name in names:
            client.streams.pop(name, None)
            key, variant = key_of(name.encode()), name.encode() if client.wrapped else b""
            clients = self._wanted.get(key, {}).get(variant, {})
            if client in clients and not (variant == b"" and any(key_of(other.encode()) == key for other in client.streams)):
                del clients[client]
                if not clients:
                    del self._wanted[key][variant]
                if not self._wanted[key]:
                    del self._wanted[key]

    async def _watch_clients(self) -> None:
        """Ping clients, and end the connections whose time has come."""
        limits = self._limits
        while True:
            await asyncio.sleep(min(0.1, limits.ping_s / 4))
            now_s = self._clock()
            for client in list(self._clients):
                if client.transport.is_closing():
                    client.gone.set()
                elif now_s >= client.close_s:
                    if client.reached:  # The end of a shutdown that was announced.
                        client.close(1001, "", now_s)
                    else:
                        client.transport.abort()
                elif not client.reached:
                    continue
                elif now_s - client.opened_s >= limits.lifetime_s:
                    client.close(1001, "", now_s)
                elif now_s - client.heard_s >= limits.ping_s + limits.pong_s:
                    self._counts["pong_timeouts"] += 1
                    client.close(1008, "Pong timeout", now_s)
                elif now_s - client.pinged_s >= limits.ping_s:
                    client.pinged_s = now_s
                    client.write(ws_frame(b"%d" % (self._tape.now_ns // NANOS_PER_MS), 9))

    # REST

    async def _rest(self, request: web.Request) -> web.Response:
        """Answer one request of the venue's REST API."""
        call, query = request.match_info["call"], request.query
        status = 200
        try:
            weight = self._weight(call, query.get("limit"))
            self._requests[call] += 1
            if refused := self._weights.charge(weight):
                self._requests[f"{call} {refused[0]}"] += 1
                return _refused(*refused, used=self._weights.used)
            body = self._answer(call, query)
        except _Refusal as refusal:
            status, body = refusal.status, refusal.body
        except TapeError as error:
            status, body = 503, msgspec.json.encode({"code": -1001, "msg": str(error)})
        used = {"X-MBX-USED-WEIGHT-1M": str(self._weights.used)}
        return web.Response(body=body, status=status, content_type="application/json", headers=used)

    def _weight(self, call: str, limit: str | None) -> int:
        """Return what a request costs, by the venue's tables."""
        spot, count = self._market == "spot", int(limit) if limit and limit.isascii() and limit.isdigit() and len(limit) < 9 else None
        match call:
            case "depth" if spot:
                return next(weight for most, weight in ((100, 5), (500, 25), (1_000, 50), (math.inf, 250)) if (count or 100) <= most)
            case "depth":
                return _FUTURES_DEPTHS.get(count or 500, 1)
            case "klines":
                bounds = ((99, 1), (499, 2), (1_000, 5), (math.inf, 10))
                return 2 if spot else next(weight for most, weight in bounds if (count or 500) <= most)
            case "exchangeInfo":
                return 20 if spot else 1
            case "ping" | "time":
                return 1
        raise _Refusal(-5000, f"Path {_PREFIX[self._market]}/{call[:40]}, Method GET is invalid", 404)

    def _answer(self, call: str, query: Mapping[str, str]) -> bytes:
        now_ms = self._tape.now_ns // NANOS_PER_MS
        match call:
            case "ping":
                return b"{}"
            case "time":
                return b'{"serverTime":%d}' % now_ms
            case "exchangeInfo":
                return self._tape.exchange_info()
        symbol = self._known(query.get("symbol", ""))
        if call == "depth":
            spot = self._market == "spot"
            limit = _number(query, "limit", 100 if spot else 500)
            if limit < 1 or not (spot or limit in _FUTURES_DEPTHS):
                raise _Refusal(-1130 if spot else -4021, f"limit {limit} is not valid depth limit.")
            self._counts["snapshots"] += 1
            stale = self._stale.pop(symbol, None)
            return stale if stale is not None else self._tape.snapshot(symbol, min(limit, 5_000))
        if query.get("interval") != "1m":
            raise _Refusal(-1120, "Invalid interval.")
        most = 1_000 if self._market == "spot" else 1_500
        limit = min(_number(query, "limit", 500), most)
        if limit < 1:
            raise _Refusal(-1130, f"Data sent for parameter 'limit' is not valid: {limit}.")
        end_ms = _number(query, "endTime", now_ms)
        newest_ms = min(end_ms, now_ms) // MINUTE_MS * MINUTE_MS
        # Without a start the newest are meant; the minute that is still open is none of them.
        newest_ms -= MINUTE_MS if newest_ms + MINUTE_MS > now_ms else 0
        return self._tape.klines(symbol, _number(query, "startTime", newest_ms - (limit - 1) * MINUTE_MS), end_ms, limit)

    def _known(self, symbol: str) -> str:
        if not symbol:
            raise _Refusal(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if _SYMBOL.fullmatch(symbol) is None:
            raise _Refusal(-1100, "Illegal characters found in parameter 'symbol'; legal range is '^[A-Z0-9-_.]{1,20}$'.")
        if symbol not in self._symbols:
            raise _Refusal(-1121, "Invalid symbol.")
        return symbol

    # Control

    async def _fault(self, request: web.Request) -> web.Response:
        """Take a fault to do: ``{"kind": ...}`` as a ``FaultRequest``."""
        try:
            asked = _asked.decode(await request.read())
            if asked.symbol is not None and asked.symbol not in self._symbols:
                raise ValueError(f"expected a symbol of {', '.join(sorted(self._symbols))}, found {asked.symbol!r}")
            number = self.faults.ask(asked)
        except FaultRefused as error:
            return web.json_response({"detail": str(error)}, status=429)
        except (ValueError, RecursionError) as error:
            return web.json_response({"detail": str(error)}, status=422)
        return web.json_response({"asked": number}, status=202)

    async def _truth(self, request: web.Request) -> web.Response:
        """Return the faults so far, a JSON object a line."""
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in self.faults.truth)
        return web.Response(body=lines, content_type="application/x-ndjson")

    async def _stats(self, request: web.Request) -> web.Response:
        """Return what was counted."""
        return web.Response(body=msgspec.json.encode(self.stats()), content_type="application/json")

    def stats(self) -> dict[str, object]:
        """Return what was counted: frames released, frames and bytes sent, clients, requests, faults by kind."""
        return {
            "market": self._market,
            "now_ms": self._tape.now_ns // NANOS_PER_MS,
            "symbols": sorted(self._symbols),
            **{name: self._counts[name] for name in _COUNTED},
            "clients": len(self._clients),
            "streams": sum(len(client.streams) for client in self._clients),
            "requests": dict(self._requests),
            "weight_used": self._weights.used,
            "weight_minute_max": self._weights.used_max,
            "faults": self.faults.faults,
            "faults_waiting": self.faults.waiting,
            "faults_by_kind": dict(Counter(record.kind for record in self.faults.truth)),
        }


_COUNTED = (
    *("frames", "sent", "sent_bytes", "connections", "control_messages", "control_messages_s_max", "too_many_messages"),
    *("slow_clients", "pong_timeouts", "snapshots"),
)


def key_of(stream: bytes) -> bytes:
    """Return what streams of one symbol and kind share: differences of any interval are served at the tape's own."""
    name, _, channel = stream.partition(b"@")
    kind, _, speed = channel.partition(b"@")
    return b"%b@depth" % name if kind == b"depth" and (not speed or speed in _SPEEDS) else stream


@web.middleware
async def _guard_control(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Refuse the control to a page of another site: by its Origin, and by the Host of a name that was bound to this machine."""
    if request.path.startswith("/mock/"):
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        if _OWN_HOST.fullmatch(host) is None:
            return web.json_response({"detail": f"expected a Host header of {HOST} or localhost, found {host[:60]!r}"}, status=403)
        if origin is not None and origin != f"http://{host}":
            return web.json_response({"detail": f"expected no Origin but http://{host}, found {origin[:60]!r}"}, status=403)
    return await handler(request)


def _why_not(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {HOST} is in use; choose another with --port {port + 1 if port < 65_535 else 0}"
    # The text of its own says the address once more.
    return f"cannot listen on {HOST}:{port}: {os.strerror(error.errno or 0)}; choose another with --port"


def _is_stream(name: str) -> bool:
    return len(name) <= STREAM_LENGTH_MAX and _STREAM.fullmatch(name) is not None


def _error(code: int, message: str, request_id: int | str | None) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "msg": message}, "id": request_id})


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise _Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)


def _refused(status: int, retry_after_s: int, used: int | None = None) -> web.Response:
    """Return the answer to one who asks too much."""
    text = "Too many requests." if status == 429 else "Way too many requests; IP banned."
    headers = {"Retry-After": str(retry_after_s)} | ({} if used is None else {"X-MBX-USED-WEIGHT-1M": str(used)})
    return web.json_response({"code": -1003, "msg": text}, status=status, headers=headers)
