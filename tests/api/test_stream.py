"""The event stream over a real server: what is told, to whom, when, and what becomes of readers that do not read."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from fake_host import BTC, ETH, FakeHost, ask, features, serve
from litestar import Litestar
from uvicorn.protocols.http.flow_control import FlowControl

from alphapack.api.server import ApiSettings, Connection, Server, create_app
from alphapack.api.stream import KINDS, RECORD_KINDS, STREAMS_MAX, Streams
from alphapack.domain.events import BookStateChanged, FrameRejected, InstrumentChanged, Record, SessionStarted
from alphapack.domain.market import BookState
from alphapack.engine.ports import LedgerRow
from alphapack.shell.news import NewsRing

HEALTH_REQUEST = b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Event(NamedTuple):
    kind: str
    id: str
    data: Any


class Reader:
    """A client of one stream, as a browser reads it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status, self.fields, self.retry, self.last_id, self.comments = 0, dict[bytes, bytes](), "", "", 0
        self.ended = False
        self.events = self._events()

    @classmethod
    async def open(cls, port: int, query: str = "", headers: str = "", *, window: int | None = None, behind: bytes = b"") -> "Reader":
        """Ask for a stream; ``window`` bounds what the system reads ahead, ``behind`` is sent behind the request."""
        connection = socket.socket()
        if window is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=4_096 if window else 1 << 20)
        self = cls(reader, writer)
        writer.write(f"GET /api/stream?{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode() + behind)
        head = await reader.readuntil(b"\r\n\r\n")
        self.status = int(head.split()[1])
        self.fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        return self

    async def problem(self) -> Any:
        return msgspec.json.decode(await self.reader.readexactly(int(self.fields[b"content-length"])))

    async def lines(self) -> AsyncIterator[str]:
        """Yield the lines of the stream until it ends as HTTP has it."""
        rest = b""
        while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
            rest += (await self.reader.readexactly(size + 2))[:-2]
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line.decode()
        assert rest == b"", "an event is whole"
        self.ended = True

    async def _events(self) -> AsyncIterator[Event]:
        kind, data = "message", []
        async for line in self.lines():
            field, _, value = line.partition(": ")
            match field:
                case "event":
                    kind = value
                case "data":
                    data.append(value)
                case "id":
                    self.last_id = value
                case "retry":
                    self.retry = value
                case "":
                    if data:
                        yield Event(kind, self.last_id, msgspec.json.decode("\n".join(data)))
                    kind, data = "message", []
                case _:
                    assert line == ":"
                    self.comments += 1

    async def take(self, count: int) -> list[Event]:
        """Return the next events."""
        return [await anext(self.events) for _ in range(count)]

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Desk:
    """A host, its application and what happens on it."""

    def __init__(self, **options: Any) -> None:
        self.host = FakeHost(news=NewsRing(**options))
        self.seq = 0

    def tell(self, *records: Record, durable: bool = True) -> int:
        """Let records happen in one step."""
        self.seq += 1
        self.host.news.add(
            LedgerRow(
                self.seq,
                i,
                self.seq * 1_000_000,
                str(record.__struct_config__.tag),
                getattr(record, "symbol", ""),
                msgspec.json.encode(record),
            )
            for i, record in enumerate(records)
        )
        if durable:
            self.host.news.publish(self.seq)
        return self.seq

    def move(self, obi: float) -> None:
        """Let the market move."""
        self.host.seq += 1
        self.host.reading = features(obi=obi)

    def run(self, talk: Callable[[int, Streams], Awaitable[None]], **settings: Any) -> None:
        limits = ApiSettings(port=0, **settings)
        app = create_app(self.host, limits)
        serve(limits, lambda port: talk(port, app.state.streams), app)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes to be; the server's own timeout is against its never coming."""
    while not condition():
        await asyncio.sleep(0.005)


def change(symbol: str = BTC, reason: str = "a gap") -> BookStateChanged:
    return BookStateChanged(symbol, BookState.LIVE, BookState.CORRUPT, reason)


def test_features_come_at_once_and_again_when_they_changed() -> None:
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        reader = await Reader.open(port, "interval_ms=50")
        assert reader.status == 200 and reader.fields[b"content-type"] == b"text/event-stream"
        assert reader.fields[b"cache-control"] == b"no-store" and reader.fields[b"x-accel-buffering"] == b"no"
        assert b"x-alphapack-seq" in reader.fields and b"content-length" not in reader.fields
        (first,) = await reader.take(1)
        assert (first.kind, first.data) == ("features", msgspec.to_builtins(features())) and reader.retry == "1000"
        readings = desk.host.readings
        desk.host.seq += 1
        desk.host.reading = msgspec.structs.replace(features(), ts_ms=1_700_000_000_999, age_ms=900, seq=99)
        await until(lambda: desk.host.readings > readings)  # Looked at, and nothing but time has passed.
        desk.move(0.5)
        (second,) = await reader.take(1)
        assert second.data["obi"] == 0.5
        await reader.close()

    desk.run(talk)


def test_every_kind_of_record_is_typed_and_in_order() -> None:
    desk = Desk()
    records = (
        SessionStarted("sim"),
        change(),
        InstrumentChanged(BTC, "0.1", "0.001"),
        FrameRejected("binance-usdm", "", 'a "quote"\nand a line', 3),
    )

    async def talk(port: int, streams: Streams) -> None:
        reader = await Reader.open(port, f"kinds={','.join(RECORD_KINDS)}")
        desk.tell(*records[:2])
        desk.tell(*records[2:])
        told = await reader.take(4)
        assert [event.kind for event in told] == ["session_started", "book_state", "instrument", "frame_rejected"]
        assert [event.id for event in told] == ["1.0", "1.1", "2.0", "2.1"]
        assert told[1].data == {
            "seq": 1, "ts_ms": 1, "kind": "book_state", "symbol": BTC, "before": "LIVE", "after": "CORRUPT", "reason": "a gap"
        }  # fmt: skip
        assert told[3].data["reason"] == 'a "quote"\nand a line'
        await reader.close()

    desk.run(talk)


def test_a_reader_gets_the_kinds_and_symbols_that_it_asked_for() -> None:
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        plain, of_eth, health = await asyncio.gather(
            Reader.open(port), Reader.open(port, "symbols=ethusdt&kinds=book_state,frame_rejected"), Reader.open(port, "kinds=health")
        )
        assert (await health.take(1))[0].data["status"] == "ready"
        desk.tell(SessionStarted("sim"), change(BTC), change(ETH), FrameRejected("binance-usdm", "ETHUSDT", "?", 1))
        desk.tell(change(BTC, "again"), change(ETH, "again"))
        assert [event.id for event in await of_eth.take(3)] == ["1.2", "1.3", "2.1"]
        told = await plain.take(5)
        assert {event.kind for event in told} == {"features", "book_state"}
        assert [event.id for event in told if event.kind == "book_state"] == ["1.1", "1.2", "2.0", "2.1"]
        for reader in (plain, of_eth, health):
            await reader.close()

    desk.run(talk)


def test_records_wait_for_durability() -> None:
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        reader = await Reader.open(port, "kinds=book_state,features&interval_ms=50")
        await reader.take(1)
        desk.tell(change(reason="first"), durable=False)
        desk.tell(change(reason="second"), durable=False)
        desk.move(0.5)
        (event,) = await reader.take(1)
        assert event.kind == "features", "state may be newer than the disk, news may not"
        desk.host.news.publish(1)
        assert (await reader.take(1))[0].data["reason"] == "first"
        desk.move(0.75)
        assert (await reader.take(1))[0].kind == "features"
        desk.host.news.publish(2)
        assert (await reader.take(1))[0].data["reason"] == "second"
        await reader.close()

    desk.run(talk)


def test_a_reader_goes_on_behind_the_last_record_it_has_seen() -> None:
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        for i in range(6):
            desk.tell(change(reason=f"{i}"), change(ETH, reason=f"{i}"))
        reader = await Reader.open(port, "kinds=book_state", "Last-Event-ID: 4.0\r\n")
        assert [event.id for event in await reader.take(5)] == ["4.1", "5.0", "5.1", "6.0", "6.1"]
        fresh = await Reader.open(port, "kinds=book_state")
        desk.tell(change(reason="new"))
        (event,) = await fresh.take(1)
        assert event.data["reason"] == "new", "who comes new is not told what was"
        await reader.close()
        await fresh.close()

    desk.run(talk)


def test_a_reader_cut_off_before_its_first_record_can_resume() -> None:
    desk = Desk()
    desk.tell(change(reason="before"))

    async def talk(port: int, streams: Streams) -> None:
        first = await Reader.open(port, "kinds=book_state,health")
        await first.take(1)
        await first.close()
        await until(lambda: streams.open == 0)
        desk.tell(change(reason="meanwhile"))
        assert first.last_id == "1.0"
        second = await Reader.open(port, "kinds=book_state", f"Last-Event-ID: {first.last_id}\r\n")
        assert (await second.take(1))[0].data["reason"] == "meanwhile"
        await second.close()

    desk.run(talk)


def test_a_reader_that_was_away_too_long_is_told_so_and_goes_on() -> None:
    desk = Desk(rows_max=3)

    async def talk(port: int, streams: Streams) -> None:
        for i in range(10):
            desk.tell(change(reason=f"{i}"))
        reader = await Reader.open(port, "kinds=book_state", "Last-Event-ID: 2.0\r\n")
        told = await reader.take(4)
        assert (told[0].kind, told[0].data) == ("missed", {"records": None})
        assert [event.id for event in told[1:]] == ["8.0", "9.0", "10.0"]
        await reader.close()

    desk.run(talk)


@pytest.mark.parametrize("event_id", ["x", "1", "1.", ".1", "-1.0", "1.0.0", "9" * 30 + ".0", "1.0 "])
def test_an_event_id_that_is_none_is_422(event_id: str) -> None:
    app = create_app(FakeHost(), ApiSettings())
    answer = asyncio.run(ask(app, "GET", "/api/stream", headers={"last-event-id": event_id}))
    assert answer.status == 422 and "Last-Event-ID" in answer.json["detail"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("kinds=tea", 422),
        ("kinds=", 422),
        ("kinds=features,", 422),
        ("kinds=request", 422),
        ("kinds=missed", 422),
        ("kinds=FEATURES", 422),
        ("symbols=DOGE", 404),
        ("symbols=", 404),
        ("symbols=BTCUSDT,DOGE", 404),
        ("symbols=" + ",".join(map(str, range(1_001))), 422),
        ("symbols=" + ",".join(map(str, range(1_000))), 404),
        ("interval_ms=49", 422),
        ("interval_ms=10001", 422),
        ("interval_ms=x", 422),
        ("interval=100", 422),
        ("kinds=features&kinds=health", 422),
    ],
)
def test_what_cannot_be_streamed_is_refused_before_the_stream_begins(query: str, status: int) -> None:
    app = create_app(FakeHost(), ApiSettings())
    answer = asyncio.run(ask(app, "GET", "/api/stream", query=query.encode()))
    assert answer.status == answer.json["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("unknown symbol" if status == 404 else "expected") in answer.json["detail"].lower()


def test_a_wrong_kind_is_told_the_right_ones() -> None:
    answer = asyncio.run(ask(create_app(FakeHost(), ApiSettings()), "GET", "/api/stream", query=b"kinds=features,tea"))
    assert all(kind in answer.json["detail"] for kind in KINDS) and "'tea'" in answer.json["detail"]


def test_head_is_answered_without_a_stream() -> None:
    app = create_app(FakeHost(), ApiSettings())
    answer = asyncio.run(asyncio.wait_for(ask(app, "HEAD", "/api/stream"), 10))
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream", b"")


def test_one_stream_too_many_is_503_and_place_is_made_when_one_leaves() -> None:
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        readers = [await Reader.open(port) for _ in range(3)]
        refused = await Reader.open(port)
        assert (refused.status, refused.fields[b"retry-after"]) == (503, b"5")
        assert (await refused.problem())["detail"] == "all 3 streams are taken; try again"
        await readers.pop().close()
        await until(lambda: streams.open == 2)
        readers.append(await Reader.open(port))
        assert readers[-1].status == 200
        for reader in (*readers, refused):
            await reader.close()
        await until(lambda: streams.open == 0)

    desk.run(talk, connections_max=6)


def test_streams_leave_connections_for_others() -> None:
    assert Streams(FakeHost())._streams_max == STREAMS_MAX == 64
    for connections, streams in ((256, 64), (40, 20), (1, 1)):
        assert create_app(FakeHost(), ApiSettings(connections_max=connections)).state.streams._streams_max == streams


def test_a_quiet_stream_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphapack.api.stream.KEEP_ALIVE_S", 0.02)
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        reader = await Reader.open(port, "kinds=book_state")
        comments = 0
        async for line in reader.lines():
            comments += line == ":"
            if comments == 3:
                break
        await reader.close()

    desk.run(talk)


def test_health_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphapack.api.stream.HEALTH_S", 0.02)
    monkeypatch.setattr("alphapack.api.stream.SHARED_S", 0.0)
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        reader = await Reader.open(port, "kinds=health")
        await reader.take(2)
        desk.host.status = "degraded"
        while (await reader.take(1))[0].data["status"] != "degraded":
            pass
        await reader.close()

    desk.run(talk)


def connections(streams: Streams, server: Server) -> list[Any]:
    assert server._server is not None
    return list(server._server.server_state.connections)


def run_beside(desk: Desk, talk: Callable[[int, Streams, Server], Awaitable[None]], **settings: Any) -> None:
    """Run a server that the test may look into."""
    limits = ApiSettings(port=0, **settings)

    async def main() -> None:
        app: Litestar = create_app(desk.host, limits)
        server = Server(limits)
        serving = asyncio.create_task(server.serve(app))
        try:
            async with asyncio.timeout(20):
                await talk(server.port, app.state.streams, server)
        finally:
            server.stop()
            await serving

    asyncio.run(main())


LONG = "v" * 40_000
"""Makes a features event fill a socket soon."""


def test_a_reader_that_does_not_read_is_conflated_and_gets_the_newest_in_the_end() -> None:
    desk = Desk()
    desk.host.reading = msgspec.structs.replace(features(obi=0.0), venue=LONG)

    async def talk(port: int, streams: Streams, server: Server) -> None:
        slow = await Reader.open(port, "interval_ms=50&kinds=features", window=4_096)
        (connection,) = connections(streams, server)
        moves = 0

        def move() -> int:
            desk.move(moves / 1e6)
            desk.host.reading = msgspec.structs.replace(desk.host.reading, venue=LONG)
            return moves + 1

        while not connection.flow.write_paused:
            moves = move()
            await asyncio.sleep(0.01)
        paused = moves - 1
        beside = await Reader.open(port, "interval_ms=50&kinds=features&symbols=BTCUSDT")
        await beside.take(1)
        readings = desk.host.readings
        for _ in range(20):
            moves = move()
            (event,) = await beside.take(1)
        assert event.data["obi"] == (moves - 1) / 1e6, "another reader is served meanwhile"
        assert desk.host.readings - readings <= 21, "nothing is computed for one that does not read"
        assert connection.transport.get_write_buffer_size() < 65_536 + 2 * len(LONG)
        told = 0
        async for event in slow.events:
            told += 1
            assert event.data["obi"] <= paused / 1e6 or event.data["obi"] == (moves - 1) / 1e6, "made while it did not read"
            if event.data["obi"] == (moves - 1) / 1e6:
                break
        assert told < moves
        await slow.close()
        await beside.close()

    run_beside(desk, talk)


def test_a_reader_that_has_stopped_reading_is_closed() -> None:
    desk = Desk()
    desk.host.reading = msgspec.structs.replace(features(obi=0.0), venue=LONG)

    async def talk(port: int, streams: Streams, server: Server) -> None:
        stuck = await Reader.open(port, "interval_ms=50&kinds=features", window=4_096)
        i = 0
        while streams.open:
            i += 1
            desk.move(i / 1e6)
            desk.host.reading = msgspec.structs.replace(desk.host.reading, venue=LONG)
            await asyncio.sleep(0.01)
        await stuck.close()

    run_beside(desk, talk, idle_timeout_s=0.2)


class Clockwork:
    """A loop whose time stands still, and a transport with so many bytes unsent."""

    def __init__(self) -> None:
        self.now_s, self.unsent_bytes, self.aborted = 0.0, 100_000, False
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, seconds: float, call: Callable[[], None]) -> "Clockwork":
        self.due.append((self.now_s + seconds, call))
        return self

    def cancel(self) -> None:
        self.due.clear()

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def abort(self) -> None:
        self.aborted = True

    def go_on(self) -> None:
        self.now_s, call = self.due.pop(0)
        call()


def test_a_reader_that_reads_slowly_is_not_closed() -> None:
    world, connection = Clockwork(), Connection.__new__(Connection)
    connection.loop = connection.transport = world  # type: ignore[assignment]
    connection.flow, connection._stall, connection._settings = FlowControl(world), None, ApiSettings(idle_timeout_s=30.0)  # type: ignore[arg-type]
    connection.pause_writing()
    for i in range(40):
        world.unsent_bytes -= 1_000 * (i % 3 == 0)  # One thousand bytes in twenty seconds.
        world.go_on()
    assert world.now_s == 300.0 and not world.aborted
    connection.resume_writing()
    assert world.due == []
    connection.pause_writing()
    while not world.aborted:
        world.go_on()
    assert world.now_s == 330.0 and world.due == []


def test_a_stream_is_not_idle_and_makes_no_room_for_others() -> None:
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        reader = await Reader.open(port, "kinds=book_state")
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        await asyncio.sleep(0.3)
        desk.tell(change())
        assert (await reader.take(1))[0].kind == "book_state"
        for _, writer in silent:
            writer.close()
        await reader.close()

    desk.run(talk, connections_max=4, header_timeout_s=0.1, idle_timeout_s=0.1)


def test_a_client_that_leaves_is_noticed() -> None:
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        quiet = await Reader.open(port, "kinds=book_state")
        half = await Reader.open(port, "kinds=book_state")
        reset = await Reader.open(port, "kinds=book_state")
        assert streams.open == 3
        quiet.writer.close()
        half.writer.write_eof()
        reset.writer.transport.abort()
        await until(lambda: streams.open == 0)
        await half.close()

    desk.run(talk)


def test_a_request_behind_a_stream_hides_no_client_that_leaves(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        reader = await Reader.open(port, "interval_ms=50", behind=HEALTH_REQUEST)
        await reader.take(1)
        reader.writer.transport.abort()
        i = 0
        while streams.open:
            i += 1
            desk.move(i / 1e6)
            await asyncio.sleep(0.01)

    desk.run(talk)
    assert caplog.records == []


def test_streams_do_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.host.reading = msgspec.structs.replace(features(obi=0.0), venue=LONG)
    readers: list[Reader] = []

    async def talk(port: int, streams: Streams, server: Server) -> None:
        readers.extend([await Reader.open(port), await Reader.open(port, "kinds=book_state")])
        stuck = await Reader.open(port, "interval_ms=50&kinds=features", window=4_096)
        i = 0
        while not any(one.flow.write_paused for one in connections(streams, server)):
            i += 1
            desk.move(i / 1e6)
            desk.host.reading = msgspec.structs.replace(desk.host.reading, venue=LONG)
            await asyncio.sleep(0.01)
        server.stop()
        for reader in readers:
            async for _ in reader.events:
                pass
            assert reader.ended, "the end of a stream is the end of an answer"
        await until(lambda: not connections(streams, server))
        for reader in (*readers, stuck):
            await reader.close()

    with caplog.at_level(logging.INFO, logger="uvicorn.error"):
        run_beside(desk, talk)
    assert not any("timeout graceful shutdown exceeded" in record.getMessage() for record in caplog.records)


def test_a_server_that_stops_begins_no_stream() -> None:
    async def main() -> None:
        app = create_app(FakeHost(), ApiSettings())
        app.state.streams.close()
        answer = await ask(app, "GET", "/api/stream")
        assert (answer.status, answer.json["detail"]) == (503, "the server is stopping")

    asyncio.run(main())


def test_a_failure_ends_the_stream_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()

    async def talk(port: int, streams: Streams) -> None:
        reader = await Reader.open(port, "interval_ms=50")
        await reader.take(1)
        desk.host.failure = RuntimeError("the-secret-of-the-engine")
        desk.host.seq += 1
        with pytest.raises(StopAsyncIteration):
            await anext(reader.events)
        assert reader.ended and streams.open == 0
        await reader.close()

    desk.run(talk)
    assert [record.name for record in caplog.records] == ["alphapack.api"] and "the-secret" in caplog.text


def test_all_streams_together_are_told_so_many_events_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def main() -> None:
        streams, now_s = Streams(FakeHost()), [100.0]
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s[0])

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            now_s[0] += seconds

        monkeypatch.setattr(asyncio, "sleep", sleep)
        for _ in range(1_000):
            await streams.turn()
            streams.spend(100)
        monkeypatch.undo()

    asyncio.run(main())
    assert sum(slept) == pytest.approx(1_000 * 100 / 10_000, abs=0.02)


def test_a_reading_is_made_once_for_all_readers() -> None:
    async def main() -> None:
        host = FakeHost()
        streams = Streams(host)
        told = [streams.features(BTC) for _ in range(5)]
        assert host.readings == 1 and len(set(told)) == 1 and told[0][0] == 1
        assert streams.features(ETH) == (0, b"")
        host.seq += 1
        host.reading = msgspec.structs.replace(features(), ts_ms=5)
        version, event = streams.features(BTC)
        assert version == 1 and b'"ts_ms":5' in event, "who comes new gets the newest, who was told it is not told again"

    asyncio.run(main())
