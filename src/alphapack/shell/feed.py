"""A live feed: one market of one venue, over as many WebSockets as it takes, kept alive.

Every silence has an end that somebody sees to. A socket that is half open fails its ping. A connection that answers pings
but sends nothing is given up. A steady stream that is silent while others flow is subscribed anew, then its connection is
replaced. A connection that grows old, or whose server says that it goes down, is replaced too: the new one hears the market
before the old one ends, so that nothing is missed, and what it hears until then is held and handed over after the last frame of
the old one, so that nothing comes out of order. What both heard comes twice; the core drops the updates and trades that it has
seen. An old one that is further behind than the time both are heard leaves a hole, which the core tells as any other.

All waiting is on the monotonic clock; steps of the wall clock do nothing.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import aiohttp
import structlog

from alphapack.domain.feeds import Acknowledged, FeedHealth, FeedPlan, FeedSettings, ShuttingDown, Stream, UnknownSymbol
from alphapack.shell.rest import REFUSED, TICK_S, Rest, RestError, Window, backoff_s, retry_after_s, until
from alphapack.shell.turns import Turns

STREAMS_PER_CONNECTION = 200
STREAMS_PER_MESSAGE = 50
MESSAGE_BYTES_MAX = 4 << 20
CONTROL_SHARE = 0.5
"""Of the messages that a venue bears, what subscriptions may use; pings and pongs take their part too."""
ATTEMPTS_SHARE = 0.8
SNAPSHOTS_PER_10_S = 5
"""Snapshots of one symbol; a book that still does not link up has to wait."""
CALM_S = 60.0
"""Time without an unusual silence after which patience is what it was."""
ACTS_FREE = 3
"""Times that something is done about a silence before patience grows."""
STILL_S = 2.0
"""A look that comes so late says nothing about the venue."""
CLOSE_S = 1.0
"""Time that the other side has to answer a close frame."""
RELEASE_FRAMES = 32
"""Frames that were held, handed over before whatever else waits for the loop has its turn."""
HELD_FRAMES_MAX = 20_000
HELD_BYTES_MAX = 64 << 20
"""Bounds of what a connection holds while the one before it goes on; beyond them it waits for it no longer."""

Receive = Callable[[str, bytes], None]
"""Where frames go: the venue's name of the symbol for a REST answer, empty for a stream's frame; and the bytes."""

_log = structlog.get_logger("alphapack.feed")


class Silence:
    """How long one source has been silent, and how long it may be before something is done about it.

    Patience doubles where much was done of late, so that a market that hardly trades is not subscribed without end. It falls
    back after a minute without an unusual silence.
    """

    __slots__ = ("_acted_s", "_base_s", "_calm_s", "_heard_s", "_max_s", "_recent", "acts", "patience_s")

    def __init__(self, base_s: float, max_s: float, now_s: float) -> None:
        self._base_s, self._max_s = base_s, max(base_s, max_s)
        self._heard_s = self._acted_s = self._calm_s = now_s
        self._recent = 0
        self.patience_s = base_s
        self.acts = 0
        """What was done since it was last heard."""

    def heard(self, now_s: float) -> None:
        """It spoke."""
        if now_s - self._heard_s >= self._base_s:
            self._calm_s = now_s
        elif now_s - self._calm_s >= CALM_S:
            self.patience_s, self._recent = self._base_s, 0
        self._heard_s, self.acts = now_s, 0

    def begin(self, now_s: float) -> None:
        """Its connection is new: it has all its time again."""
        self._heard_s = self._acted_s = now_s

    def may_act(self, now_s: float) -> bool:
        """Tell whether what was done last has had its time."""
        return self._recent == 0 or now_s - self._acted_s >= self.patience_s

    def due(self, now_s: float) -> bool:
        """Tell whether something is to be done."""
        return min(now_s - self._heard_s, now_s - self._acted_s) >= self.patience_s

    def act(self, now_s: float) -> None:
        """Note that something is done."""
        self._acted_s = self._calm_s = now_s
        self.acts += 1
        self._recent += 1
        if self._recent > ACTS_FREE:
            self.patience_s = min(2.0 * self.patience_s, self._max_s)


class Line:
    """Streams that share a connection, and what is remembered of them from one connection to the next."""

    def __init__(self, path: str, streams: Sequence[Stream], settings: FeedSettings, now_s: float) -> None:
        self.path = path
        self.streams = {one.name.encode(): one for one in streams}
        self.silence = Silence(settings.dead_s, settings.patience_max_s, now_s)
        self.steady = {
            name: Silence(settings.silence_s, settings.patience_max_s, now_s) for name, one in self.streams.items() if one.steady
        }
        self.aside = frozenset(name for name, one in self.streams.items() if one.aside)
        self.connection: Connection | None = None
        """The newest one."""


class Connection:
    """One WebSocket from its handshake to its end."""

    def __init__(self, feed: "Feed", line: Line) -> None:
        self._feed, self._line, self._plan, self._settings, self._clock = feed, line, feed.plan, feed.settings, feed.clock
        loop = asyncio.get_running_loop()
        self.delivering: asyncio.Future[None] = loop.create_future()
        """Done when every stream is subscribed and a frame has come."""
        self.replace: asyncio.Future[str] = loop.create_future()
        """Done, with the reason, when another connection is to take over."""
        self.begun: asyncio.Future[None] = loop.create_future()
        """Done when the first frame has come."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when nothing more is handed over."""
        self.full: asyncio.Future[None] = loop.create_future()
        """Done when no more can be held."""
        self._held: deque[bytes] | None = None
        self._held_bytes = 0
        self.task: asyncio.Task[str] | None = None
        self.opened_s = math.inf
        self.refused: set[str] = set()
        self._heard: set[bytes] = set()
        self._last_s: dict[bytes, float] = {}
        self._commands: deque[tuple[bool, tuple[Stream, ...]]] = deque()
        self._commanded = asyncio.Event()
        self._subscribed = False
        self._pace = Window(1, 1.0 / (self._plan.limits.messages_per_s * CONTROL_SHARE))
        self._request_id = 0
        self._answer: asyncio.Future[str | None] | None = None

    async def run(self, session: aiohttp.ClientSession) -> str:
        """Follow the streams until the connection ends; return why it did."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.handshake_s):
                socket = await session.ws_connect(
                    self._feed.ws_url + self._line.path,
                    heartbeat=settings.heartbeat_s,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                    decode_text=False,
                )
        except aiohttp.WSServerHandshakeError as error:
            if error.status in REFUSED:
                wait_s = self._feed.refuse(error.status, error.headers.get("Retry-After") if error.headers else None)
                return f"handshake refused with HTTP {error.status}, nothing is tried for {wait_s:.0f} s"
            return f"handshake refused with HTTP {error.status}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"no connection: {type(error).__name__}: {error}"
        self._feed.open_connections.add(self)
        self.opened_s = self._clock()
        tasks = {asyncio.create_task(work) for work in (self._read(socket), self._command(socket), self._watch())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ends = [task.result() for task in done]  # What one of them raised goes before what another says.
            return ends[0]
        finally:
            self._end()
            self._feed.open_connections.discard(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await socket.close()

    @property
    def lives(self) -> bool:
        """Whether it has begun and not ended."""
        return self.task is not None and not self.task.done()

    def close(self) -> None:
        """Have it end: from now on it hands nothing over, and its socket closes with a close frame."""
        self._end()
        if self.task is not None:
            self.task.cancel()

    def hold(self) -> None:
        """Keep what comes until ``release``."""
        self._held = deque()

    async def release(self) -> None:
        """Hand over what was held, in the order in which it came, and from then on what comes as it comes."""
        held = self._held
        while held:
            for _ in range(min(RELEASE_FRAMES, len(held))):
                self._feed.receive("", held.popleft())
            await asyncio.sleep(0)
        self._held = None

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _hand_over(self, payload: bytes) -> None:
        if self.ended.done():
            return
        if self._held is None:
            self._feed.receive("", payload)
            return
        self._held.append(payload)
        self._held_bytes += len(payload)
        if (len(self._held) >= HELD_FRAMES_MAX or self._held_bytes >= HELD_BYTES_MAX) and not self.full.done():
            self.full.set_result(None)

    def resubscribe(self, streams: Iterable[Stream]) -> int:
        """Have streams ended and begun again; returns how many, without those for which that waits already."""
        waiting = {one.name for _, group in self._commands for one in group}
        group = tuple(one for one in streams if one.name not in waiting)
        if group and self._subscribed:
            self._commands += [(False, group), (True, group)]
            self._commanded.set()
            return len(group)
        return 0

    def silent(self, name: bytes, for_s: float) -> bool:
        """Tell whether a stream has sent nothing for so long."""
        return name not in self._heard and self._clock() - self._last_s.get(name, -math.inf) >= for_s

    @property
    def mute(self) -> bool:
        """Whether all of it has been silent for so long that nothing need be waited for."""
        last_s = max(self._last_s.values(), default=self.opened_s)
        return not self._heard and self._clock() - last_s >= self._settings.silence_s

    async def _read(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> str:
        """Hand frames over as they come: the path that every frame takes."""
        feed, stream_of, hand_over, next_message = self._feed, self._plan.stream_of, self._hand_over, socket.receive
        streams, heard, text = self._line.streams, self._heard.add, aiohttp.WSMsgType.TEXT
        turns, until_s, begun = Turns(), 0.0, self.begun
        while True:
            if time.perf_counter() >= until_s:
                turns.leave()
                await asyncio.sleep(0)  # Where messages wait already, ``receive`` waits for nothing.
                until_s = time.perf_counter() + turns.slice_s()
            message = await next_message()
            if message.type is not text and message.type is not aiohttp.WSMsgType.BINARY:
                closed = message.type is aiohttp.WSMsgType.CLOSE
                return f"closed by the venue with code {message.data}" if closed else _failure(message.data or socket.exception())
            payload: bytes = message.data
            feed.frames += 1
            feed.bytes += len(payload)
            name = stream_of(payload)
            if name in streams:
                heard(name)
                hand_over(payload)
                if not begun.done():
                    begun.set_result(None)
            else:
                self._take_notice(payload)

    def _take_notice(self, payload: bytes) -> None:
        notice = self._plan.notice(payload)
        if isinstance(notice, Acknowledged):
            if self._answer is not None and not self._answer.done() and notice.request_id in (None, self._request_id):
                self._answer.set_result(notice.error)
        elif isinstance(notice, ShuttingDown):
            self._ask_replacement("the venue's server goes down")
        else:
            self._hand_over(payload)  # Whatever it is, the engine says so and counts it.

    async def _command(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> str:
        """Send subscriptions one after the other, each when the one before is answered."""
        streams = tuple(self._line.streams.values())
        self._commands += [(True, streams[at : at + STREAMS_PER_MESSAGE]) for at in range(0, len(streams), STREAMS_PER_MESSAGE)]
        while True:
            while self._commands:
                begin, group = self._commands.popleft()
                await until(self._clock, self._clock() + self._pace.wait_s(self._clock(), 1))
                self._pace.charge(self._clock(), 1)
                self._request_id += 1
                self._answer = asyncio.get_running_loop().create_future()
                message = (self._plan.subscribe if begin else self._plan.unsubscribe)(group, self._request_id)
                try:
                    await socket.send_str(message)
                except (aiohttp.ClientError, OSError) as error:
                    return _failure(error)
                due_s = self._clock() + self._settings.acknowledge_s
                while not self._answer.done():
                    if self._clock() >= due_s:
                        return f"no answer to a control message in {self._settings.acknowledge_s:g} s"
                    await asyncio.wait({self._answer}, timeout=TICK_S)
                self._settle(begin, group, self._answer.result())
            if not self._subscribed:
                self._subscribed = True
                self._start_watching()
            self._commanded.clear()
            await self._commanded.wait()

    def _settle(self, begin: bool, group: tuple[Stream, ...], error: str | None) -> None:
        """Take the answer in: an error halves the group until the stream at fault stands alone, and is dropped."""
        names = {one.name for one in group}
        if error is None:
            self.refused -= names
        elif len(group) > 1:
            middle = len(group) // 2
            self._commands.extendleft([(begin, group[middle:]), (begin, group[:middle])])
        elif begin:
            self.refused |= names
            _log.warning("a stream was refused and is dropped", venue=self._plan.venue, stream=group[0].name, reason=error)
        else:
            _log.warning("a stream could not be ended", venue=self._plan.venue, stream=group[0].name, reason=error)

    def _start_watching(self) -> None:
        now_s = self._clock()
        self._line.silence.begin(now_s)
        for silence in self._line.steady.values():
            silence.begin(now_s)

    async def _watch(self) -> NoReturn:
        """Look after silences and age a few times a second."""
        settings, line = self._settings, self._line
        rotate_s = self.opened_s + settings.rotate_s + self._feed.chance() * settings.rotate_jitter_s
        now_s = self._clock()
        while True:
            await asyncio.sleep(TICK_S)
            before_s, now_s = now_s, self._clock()
            heard = self._heard - line.aside
            self._heard.clear()
            self._last_s.update(dict.fromkeys(heard, now_s))
            if not self._subscribed:
                continue
            if heard:
                line.silence.heard(now_s)
                if not self.delivering.done():
                    self.delivering.set_result(None)
            if now_s >= rotate_s:
                self._ask_replacement(f"{settings.rotate_s / 3_600.0:.3g} hours old")
            if line.connection is not self:
                continue  # The one that takes over is watched.
            if now_s - before_s >= STILL_S:
                self._start_watching()  # It was this process that stood still: what came meanwhile is still to be read.
            if line.silence.due(now_s):
                line.silence.act(now_s)
                self._ask_replacement(f"nothing came for {now_s - max(self._last_s.values(), default=self.opened_s):.0f} s")
            for name, silence in line.steady.items():
                if name in heard:
                    silence.heard(now_s)
                elif silence.due(now_s) and line.streams[name].name not in self.refused:
                    self._rouse(name, silence, now_s)

    def _rouse(self, name: bytes, silence: Silence, now_s: float) -> None:
        silence.act(now_s)
        stream = self._line.streams[name]
        if silence.acts % 2 == 0:
            self._ask_replacement(f"{stream.name} stayed silent")
            return
        _log.warning("a stream is silent and is subscribed anew", venue=self._plan.venue, stream=stream.name)
        self._feed.resubscribes += self.resubscribe([stream])

    def _ask_replacement(self, reason: str) -> None:
        if not self.replace.done():
            self.replace.set_result(reason)


class Feed:
    """One market of one venue: WebSocket frames and REST answers, as bytes, to one place."""

    def __init__(
        self,
        plan: FeedPlan,
        symbols: Sequence[str],
        receive: Receive,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        settings: FeedSettings | None = None,
    ) -> None:
        """Follow ``symbols`` (the venue's names) by ``plan``.

        ``receive`` is called on the event loop, with an empty name for a stream's frame; what it raises ends ``run``.
        ``clock`` is monotonic seconds, ``chance`` uniform on [0, 1).
        """
        if not symbols or len(set(symbols)) != len(symbols):
            raise ValueError(f"expected symbols, each once, found {list(symbols)}")
        self.plan, self.receive, self.clock, self.chance = plan, receive, clock, chance
        self.settings = settings or FeedSettings()
        self.ws_url = (self.settings.ws_url or plan.ws_url).rstrip("/")
        self._symbols = tuple(symbols)
        self._rest = Rest(self.settings.rest_url or plan.rest_url, plan.limits, settings=self.settings, clock=clock, chance=chance)
        self._lines = _lines(plan, symbols, self.settings, clock())
        self._attempts = Window(int(plan.limits.connections_per_5_min * ATTEMPTS_SHARE), 300.0)
        self._held_until_s = -math.inf
        self._asked: dict[str, None] = {}  # A set in the order of asking.
        self._fetching: set[str] = set()
        self._paces = {symbol: Window(SNAPSHOTS_PER_10_S, 10.0) for symbol in symbols}
        self._snapshot_asked = asyncio.Event()
        self._attempts_made = self._reconnects = self._snapshots = 0
        self._reason = ""
        self.open_connections: set[Connection] = set()
        self.frames = self.bytes = self.resubscribes = 0

    async def run(self) -> None:
        """Follow the market until cancelled: first what the venue lists, then the streams.

        Raises ``UnknownSymbol`` or ``RestError`` at the start, where the venue does not list a symbol or will not serve us.
        """
        async with aiohttp.ClientSession(headers={"User-Agent": "alphapack"}) as session:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._rest.run())
                    await self._list()
                    for line in self._lines:
                        group.create_task(self._keep(line, session, group))
                    while True:
                        await self._fetch_snapshots(group)
            except BaseExceptionGroup as errors:
                raise first_error(errors) from None

    async def instruments(self) -> None:
        """Hand over what the venue says about the symbols followed, as one frame; ``run`` does so at its start."""
        body = await self._rest.get(self.plan.listing())
        self.receive("", self.plan.cut(body, self._symbols))

    async def klines(self, symbol: str, start_ms: int, end_ms: int) -> None:
        """Hand over the 1-minute candles that open in ``[start_ms, end_ms)``, a frame a page, oldest first.

        Comes after snapshots and within half of the budget; ends with ``run``. Raises ``RestError`` where the venue refuses.
        """
        for request in self.plan.klines(symbol, start_ms, end_ms):
            body = await self._rest.get(request)
            if body.strip() != b"[]":  # The symbol was not traded then.
                self.receive(symbol, body)

    def snapshot(self, symbol: str) -> None:
        """Fetch a symbol's book and hand it over, however long that takes; at most one a symbol is on its way."""
        if symbol not in self._paces:
            _log.warning("a snapshot of a symbol that is not followed was asked for", venue=self.plan.venue, symbol=symbol)
            return
        self._asked[symbol] = None
        self._snapshot_asked.set()

    def stale(self, symbol: str) -> None:
        """Take note that a symbol's book is STALE: what is silent of it is subscribed anew, unless that was just done.

        If the steady stream stays silent, its connection is replaced.
        """
        for line in self._lines:
            connection, now_s = line.connection, self.clock()
            steady = [silence for name, silence in line.steady.items() if line.streams[name].symbol == symbol]
            if connection is None or not all(silence.may_act(now_s) for silence in steady):
                continue
            quiet_s = 1.0 if steady else self.settings.silence_s
            mine = [one for name, one in line.streams.items() if one.symbol == symbol and (one.steady or connection.silent(name, quiet_s))]
            if count := connection.resubscribe(mine):
                self.resubscribes += count
                for silence in steady:
                    silence.act(now_s)

    def health(self) -> FeedHealth:
        """Return the counters and how the feed stands."""
        refused = sorted({name for one in self.open_connections for name in one.refused})
        held_s = max(self._rest.retry_after_s, self._held_until_s - self.clock())
        return FeedHealth(
            venue=self.plan.venue,
            connections=len(self.open_connections),
            attempts=self._attempts_made,
            reconnects=self._reconnects,
            resubscribes=self.resubscribes,
            frames=self.frames,
            bytes=self.bytes,
            snapshots=self._snapshots,
            refused=tuple(refused),
            reason=self._reason,
            rest_reason=self._rest.reason,
            weight_used=self._rest.weight_used,
            retry_after_s=max(0.0, held_s),
        )

    def refuse(self, status: int, header: str | None) -> float:
        """Take note of a refused handshake; returns how long nothing is to be tried, in seconds."""
        wait_s = self._rest.refuse(status, header) if status != 429 else retry_after_s(status, header)
        self._held_until_s = max(self._held_until_s, self.clock() + wait_s)
        return wait_s

    async def _list(self) -> None:
        """Hand over the listing, asking again where what came is none."""
        failures = 0
        while True:
            try:
                return await self.instruments()
            except UnknownSymbol:
                raise
            except ValueError as error:
                failures += 1
                _log.warning("the venue's listing cannot be read and is asked for again", venue=self.plan.venue, reason=str(error))
                await self._back_off(failures)

    async def _keep(self, line: Line, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        """Keep a connection open for a line, and for a while two of them where one takes over from the other."""
        failures = 0
        while True:
            await self._may_connect()
            older, connection = line.connection, Connection(self, line)
            connection.task = task = group.create_task(connection.run(session))
            line.connection = connection
            if older is None or await self._takes_over(connection, older):
                older = None
                await _any_of(task, connection.replace)
            else:
                connection.close()  # It never came so far as to take over.
                await _any_of(task)
            reason = connection.replace.result() if connection.replace.done() else task.result()
            if task.done():
                line.connection = older if older is not None and older.lives else None
            failures = 0 if self.clock() - connection.opened_s >= self.settings.held_s else failures + 1
            self._reconnects += 1
            self._reason = reason[:300]
            _log.warning("connecting anew", venue=self.plan.venue, path=line.path, reason=self._reason, failures=failures)
            await self._back_off(failures)

    async def _takes_over(self, connection: Connection, older: Connection) -> bool:
        """Let a connection take the place of an older one, and tell whether it did; it is not to where it fails before.

        The older one goes on for a while beside the new one, which holds its frames meanwhile: what either has ahead of the other
        is neither lost nor out of order.
        """
        assert connection.task is not None, "it was begun"
        connection.hold()
        loop, until_s = asyncio.get_running_loop(), math.inf
        while not older.ended.done():
            if connection.task.done() or connection.replace.done():
                return False
            if connection.full.done() or (connection.begun.done() and older.mute) or loop.time() >= until_s:
                break
            if connection.delivering.done() and until_s == math.inf:
                until_s = loop.time() + self.settings.overlap_s
            signs = (connection.task, connection.replace, connection.begun, connection.delivering, connection.full, older.ended)
            await _any_of(*(one for one in signs if not one.done()), timeout_s=min(TICK_S, max(0.0, until_s - loop.time())))
        older.close()
        await connection.release()
        return True

    async def _back_off(self, failures: int) -> None:
        wait_s = backoff_s(failures, self.chance, self.settings.backoff_s, self.settings.backoff_max_s)
        await until(self.clock, self.clock() + wait_s)

    async def _may_connect(self) -> None:
        """Wait out what the venue has told us to wait, and the limit of attempts; count one."""
        while (
            due_s := max(self._held_until_s, self._rest.banned_until_s, self.clock() + self._attempts.wait_s(self.clock(), 1))
        ) > self.clock():
            await until(self.clock, due_s)
        self._attempts.charge(self.clock(), 1)
        self._attempts_made += 1

    async def _fetch_snapshots(self, group: asyncio.TaskGroup) -> None:
        """Begin what was asked for, but for the symbols whose snapshot is on its way."""
        await self._snapshot_asked.wait()
        self._snapshot_asked.clear()
        for symbol in [one for one in self._asked if one not in self._fetching]:
            self._fetching.add(symbol)
            group.create_task(self._fetch_snapshot(symbol))

    async def _fetch_snapshot(self, symbol: str) -> None:
        pace = self._paces[symbol]

        def sent() -> None:
            self._asked.pop(symbol, None)  # The answer to come is newer than all that was asked for so far.

        try:
            await until(self.clock, self.clock() + pace.wait_s(self.clock(), 1))
            pace.charge(self.clock(), 1)
            while True:
                try:
                    body = await self._rest.get(self.plan.snapshot(symbol), sent)
                    break
                except RestError as error:  # It may be listed again, or served again: never give up, ask seldom.
                    _log.warning("a snapshot was refused and is asked for again", venue=self.plan.venue, symbol=symbol, reason=str(error))
                    await until(self.clock, self.clock() + self.settings.backoff_max_s * (1.0 + self.chance()))
        finally:
            self._fetching.discard(symbol)
        self._snapshots += 1
        if symbol in self._asked:
            self._snapshot_asked.set()
        self.receive(symbol, body)


def _lines(plan: FeedPlan, symbols: Sequence[str], settings: FeedSettings, now_s: float) -> list[Line]:
    """Return the streams of all symbols by path, at most so many a connection, a symbol's side by side."""
    paths: dict[str, list[Stream]] = {}
    for symbol in symbols:
        for stream in plan.streams(symbol):
            paths.setdefault(stream.path, []).append(stream)
    return [
        Line(path, streams[at : at + STREAMS_PER_CONNECTION], settings, now_s)
        for path, streams in paths.items()
        for at in range(0, len(streams), STREAMS_PER_CONNECTION)
    ]


async def _any_of(*futures: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    """Return when one is done, or the time is over; raises nothing of theirs."""
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _failure(error: object) -> str:
    if error is None or isinstance(error, ConnectionError):  # The client's own farewell may be what failed.
        return "ended without a close frame"
    return f"socket failed: {type(error).__name__}: {error}"


def first_error(errors: BaseException) -> BaseException:
    """Return the error that began it: the others were cancelled for it."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
