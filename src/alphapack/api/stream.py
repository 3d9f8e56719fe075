"""The event stream: state as fast as its reader takes it, news in order and only once it is durable.

The law of this file: no reader makes the engine wait or the memory grow. Before anything is computed for a reader, its
socket must have taken what it was sent before; then it gets the newest there is. All readers together are told so many events
a second as cost a small part of the loop, and between two small batches the loop does other things.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterator
from typing import NamedTuple, get_args

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import HTTPResponseBodyEvent, HTTPResponseStartEvent, Receive, Scope, Send

from alphapack.api.guards import is_head
from alphapack.api.problems import Refused, shown
from alphapack.domain.events import AnyRecord, BookStateChanged, WorkRequested
from alphapack.domain.market import base_of, name_of, symbol_id
from alphapack.domain.readings import Microstructure
from alphapack.engine.ports import Host, LedgerRow

STREAMS_MAX = 64
EVENTS_PER_S_MAX = 10_000
"""Of all streams together; at about 20 us an event a fifth of a core."""
BURST_S = 0.005
BATCH_EVENTS_MAX = 16
"""Events between two turns of the loop: a third of a millisecond."""
BATCH_BYTES_MAX = 32_768
NEWS_ROWS_MAX = 256
RETRY_MS = 1_000
KEEP_ALIVE_S = 15.0
HEALTH_S = 5.0
SHARED_S = 1.0
"""For so long the streams share one list of symbols and one reading of the health."""

FEATURES, HEALTH, MISSED = "features", "health", "missed"
RECORD_KINDS = tuple(str(record.__struct_config__.tag) for record in get_args(AnyRecord) if record is not WorkRequested)
KINDS = (FEATURES, HEALTH, *RECORD_KINDS)
DEFAULT_KINDS = f"{FEATURES},{BookStateChanged.__struct_config__.tag}"

EVENT_STREAM = "text/event-stream"
_START: HTTPResponseStartEvent = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", EVENT_STREAM.encode()), (b"x-accel-buffering", b"no")],
}
_READY: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": True}
"""Sends nothing, but only once the client's socket takes more."""
_END: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}
_log = logging.getLogger("alphapack.api")
_EVENT_ID = re.compile(r"([0-9]{1,16})\.([0-9]{1,9})")


class Missed(msgspec.Struct, frozen=True):
    """Records that a reader was too slow for, or too long away: how many of any kind, null where that is not known."""

    records: int | None


class Wanted(NamedTuple):
    """What one reader asked for."""

    symbols: tuple[str, ...] | None
    """Full names; None: all there are."""
    kinds: frozenset[str]
    interval_s: float
    after: tuple[int, int] | None
    """Key of the last record that the reader has seen."""


def key_of(event_id: str) -> tuple[int, int]:
    """Return the key that a ``Last-Event-ID`` names."""
    match = _EVENT_ID.fullmatch(event_id)
    if match is None:
        raise Refused(422, f"expected a Last-Event-ID of the form seq.ordinal, found {shown(event_id)}")
    return int(match[1]), int(match[2])


class _Latest:
    """The newest features of one symbol, made once for all readers."""

    __slots__ = ("event", "reading", "seq", "version")

    def __init__(self) -> None:
        self.seq = -1
        self.version = 0
        self.reading: Microstructure | None = None
        self.event: bytes | None = None


class Streams:
    """The streams of one server: how many there are, what they share, and their end."""

    def __init__(self, host: Host, streams_max: int = STREAMS_MAX) -> None:
        """Serve at most ``streams_max`` readers at once."""
        self.host = host
        self._streams_max = streams_max
        self._pumps: set[asyncio.Task[None]] = set()
        self._closed = False
        self._latest: dict[str, _Latest] = {}
        self._names: tuple[float, tuple[str, ...]] = (-SHARED_S, ())
        self._health: tuple[float, bytes] = (-SHARED_S, b"")
        self._free_s = 0.0

    @property
    def open(self) -> int:
        """Streams that are being served."""
        return len(self._pumps)

    def admit(self) -> None:
        """Refuse one stream too many."""
        if self._closed:
            raise Refused(503, "the server is stopping", headers={"Retry-After": "1"})
        if self.open >= self._streams_max:
            raise Refused(503, f"all {self._streams_max} streams are taken; try again", headers={"Retry-After": "5"})

    def track(self, pump: asyncio.Task[None]) -> None:
        """Count a stream for as long as its task runs."""
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)

    def close(self) -> None:
        """End all streams, and admit none any more."""
        self._closed = True
        for pump in self._pumps:
            pump.cancel()

    async def turn(self) -> None:
        """Wait until the streams may use the loop again."""
        loop = asyncio.get_running_loop()
        while (wait_s := self._free_s - loop.time()) > BURST_S:
            await asyncio.sleep(wait_s)

    def spend(self, events: int) -> None:
        """Count events against what the streams may use."""
        self._free_s = max(self._free_s, asyncio.get_running_loop().time()) + events / EVENTS_PER_S_MAX

    def names(self) -> tuple[str, ...]:
        """Return the full names of all symbols, as of the last second."""
        now = asyncio.get_running_loop().time()
        if now - self._names[0] >= SHARED_S:
            self._names = now, tuple(symbol_id(info.venue, info.symbol) for info in self.host.symbols())
        return self._names[1]

    def health(self) -> bytes:
        """Return the event that tells the health, as of the last second."""
        now = asyncio.get_running_loop().time()
        if now - self._health[0] >= SHARED_S:
            self._health = now, _event(HEALTH, msgspec.json.encode(self.host.health()))
        return self._health[1]

    def features(self, symbol: str) -> tuple[int, bytes]:
        """Return the event that tells a symbol's newest features, with a number that changes when they do; 0 before the first."""
        latest = self._latest.setdefault(symbol, _Latest())
        seq = self.host.sequence()[0]
        if latest.seq != seq:
            latest.seq = seq
            reading = self.host.microstructure(symbol)
            if reading is not None and reading != latest.reading:
                latest.version += latest.reading is None or _timeless(reading) != _timeless(latest.reading)
                latest.reading, latest.event = reading, None
        if latest.event is None:
            latest.event = b"" if latest.reading is None else _event(FEATURES, msgspec.json.encode(latest.reading))
        return latest.version, latest.event


class EventStream(ASGIResponse):
    """An answer that goes on until its reader leaves or the server stops."""

    def __init__(self, streams: Streams, wanted: Wanted) -> None:
        self._streams, self._news = streams, streams.host.news
        self._symbols, self._kinds, self._interval_s, self._after = wanted
        self._follows = not self._kinds.isdisjoint(RECORD_KINDS)
        # A frame that could not be read is told under the name that the venue has for its symbol.
        self._about = None if self._symbols is None else {"", *self._symbols, *map(name_of, self._symbols), *map(base_of, self._symbols)}
        self._cursor = 0
        self._told: dict[str, int] = {}
        self._features_s = self._health_s = self._said_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client is gone or the streams are closed; raise ``Refused`` where there are too many.

        A failure of ours ends the stream in order, as the server's end does: its client comes back.
        """
        if is_head(scope):
            await send(_START)
            await send(_END)
            return
        self._streams.admit()
        pump = asyncio.create_task(self._pump(send))
        self._streams.track(pump)
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            is_gone = gone.done()
        finally:
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)
        if not pump.cancelled():
            _log.error("the stream failed", exc_info=pump.exception())
        if not is_gone:
            await send(_END)

    async def _pump(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        await send(_START)
        await send({"type": "http.response.body", "body": self._greeting(), "more_body": True})
        self._features_s = loop.time() if FEATURES in self._kinds else float("inf")
        self._health_s = loop.time() if HEALTH in self._kinds else float("inf")
        self._said_s = loop.time()
        while True:
            due, more = self._due(), True
            while more:
                await send(_READY)
                await self._streams.turn()
                batch, more = self._batch(due)
                if batch:
                    self._said_s = loop.time()
                    await send({"type": "http.response.body", "body": batch, "more_body": True})
                await asyncio.sleep(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(self._features_s, self._health_s, self._said_s + KEEP_ALIVE_S)):
                    await (self._news.beyond(self._cursor) if self._follows else loop.create_future())

    def _greeting(self) -> bytes:
        """Return how to come back, and find the place from which records are told."""
        greeting = b"retry: %d\n" % RETRY_MS
        if not self._follows:
            return greeting + b"\n"
        if self._after is None:
            self._after = self._news.latest  # Named, so that a reader that is cut off before the first record can resume.
            greeting += _id(*self._after)
        cursor = self._news.cursor(self._after)
        self._cursor = self._news.oldest if cursor is None else cursor
        return greeting + b"\n" + (_missed(None) if cursor is None else b"")

    def _batch(self, due: Iterator[bytes]) -> tuple[bytes, bool]:
        """Draw a batch of what is due; False where there was no more."""
        batch, events, more = bytearray(), 0, False
        for event in due:
            batch += event
            events += 1
            if events >= BATCH_EVENTS_MAX or len(batch) >= BATCH_BYTES_MAX:
                more = True
                break
        self._streams.spend(events)
        return bytes(batch), more

    def _due(self) -> Iterator[bytes]:
        """Yield what there is to tell now, each made when it is drawn; nothing where something looked at did not change."""
        now = asyncio.get_running_loop().time()
        if self._follows:
            yield from self._records()
        if now >= self._health_s:
            self._health_s = now + HEALTH_S
            yield self._streams.health()
        if now >= self._features_s:
            self._features_s = now + self._interval_s
            for symbol in self._streams.names() if self._symbols is None else self._symbols:
                version, event = self._streams.features(symbol)
                changed = version != self._told.get(symbol, 0)
                self._told[symbol] = version
                yield event if changed else b""
        if now - self._said_s >= KEEP_ALIVE_S:
            yield b":\n\n"

    def _records(self) -> Iterator[bytes]:
        rows, self._cursor, missed = self._news.page(self._cursor, NEWS_ROWS_MAX)
        if missed:
            yield _missed(missed)
        for row in rows:
            yield _record(row) if row.kind in self._kinds and (self._about is None or row.symbol in self._about) else b""


async def _disconnected(receive: Receive) -> None:
    """Return once the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(kind: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


def _id(seq: int, ordinal: int) -> bytes:
    return b"id: %d.%d\n" % (seq, ordinal)


def _missed(records: int | None) -> bytes:
    return _event(MISSED, msgspec.json.encode(Missed(records)))


def _record(row: LedgerRow) -> bytes:
    """Return the event of a record: as it is kept, behind its place and time, and with states by their names."""
    body = row.body
    if row.kind == BookStateChanged.__struct_config__.tag:
        change = msgspec.json.decode(body, type=BookStateChanged)
        body = msgspec.json.encode({**msgspec.to_builtins(change), "before": change.before.name, "after": change.after.name})
    return _id(row.seq, row.ordinal) + _event(row.kind, b'{"seq":%d,"ts_ms":%d,%s' % (row.seq, row.ts_ns // 1_000_000, body[1:]))


def _timeless(reading: Microstructure) -> Microstructure:
    return msgspec.structs.replace(reading, ts_ms=0, age_ms=0, seq=0)
