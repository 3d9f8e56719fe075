import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec
import pytest
from fake_host import FakeHost, app_with_orders, serve

from alphapack.api.server import HEAD_BYTES_MAX, TOKEN_CHARS_MIN, ApiSettings, CannotListen, RefusedBind, Server, create_app

FREE = ApiSettings(port=0)
QUICK = ApiSettings(port=0, header_timeout_s=0.2, idle_timeout_s=0.2)
HEALTH = b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
ORDER = b"POST /api/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"


async def until_closed(reader):
    """Read all that comes; a reset is an end too."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65_536):
            received += part
    return received


async def answer_of(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return int(head.split()[1]), fields, await reader.readexactly(int(fields[b"content-length"]))


async def request(port, sent=HEALTH):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await answer_of(reader)
    writer.close()
    return answer


def test_the_default_is_this_machine_alone():
    assert (ApiSettings().host, ApiSettings().port, ApiSettings().token, ApiSettings().cors_origins) == ("127.0.0.1", 5000, None, ())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "desk.example", ""])
@pytest.mark.parametrize("token", [None, "", "x" * (TOKEN_CHARS_MIN - 1)])
def test_a_public_bind_without_a_long_token_is_refused(host, token):
    with pytest.raises(RefusedBind, match=r"api\.token.*ALPHAPACK__API__TOKEN.*--host 127\.0\.0\.1") as refused:
        Server(ApiSettings(host=host, port=0, token=token))
    assert not token or token not in str(refused.value)


def test_a_public_bind_with_a_long_token_and_a_local_one_without_are_served():
    for settings in (ApiSettings(host="0.0.0.0", port=0, token="x" * TOKEN_CHARS_MIN), FREE, ApiSettings(host="localhost", port=0)):
        server = Server(settings)
        assert server.port > 0
        server.close()


def test_a_taken_port_is_an_error_before_anything_else_and_names_its_holder():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"port {port} of 127\.0\.0\.1 is in use.*--port") as refused:
            Server(ApiSettings(port=port))
    if Path("/proc/net/tcp").exists():
        assert f"(process {os.getpid()})" in str(refused.value)


def test_two_servers_never_share_a_port():
    first = Server(FREE)
    port = first.port
    with pytest.raises(CannotListen):
        Server(ApiSettings(port=port))
    first.close()
    Server(ApiSettings(port=port)).close()


def test_on_macos_the_usual_holder_of_the_port_is_named(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("alphapack.api.server._holder", lambda port: None)
    monkeypatch.setattr("alphapack.api.server._answers", lambda family, where: True)
    with pytest.raises(CannotListen, match=r"port 5000 .*AirPlay Receiver.*--port"):
        Server(ApiSettings())


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1"])
def test_an_address_that_is_not_ours_is_an_error_that_names_the_flag(host):
    with pytest.raises(CannotListen, match="--host"):
        Server(ApiSettings(host=host, port=0, token="x" * TOKEN_CHARS_MIN))


def test_requests_are_answered_and_kept_alive():
    async def talk(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(HEALTH)
            status, fields, body = await answer_of(reader)
            assert (status, msgspec.json.decode(body)) == (200, {"status": "live"})
            assert b"server" not in fields
        writer.write(b"HEAD /api/symbols HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEALTH)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"content-length" in head.lower()
        assert (await answer_of(reader))[0] == 200, "no body stood between the two answers"
        writer.close()

    serve(FREE, talk)


def test_the_limit_on_a_head_is_not_one_on_all_heads_together():
    async def talk(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = HEALTH[:-2] + b"X: " + b"x" * (HEAD_BYTES_MAX // 4) + b"\r\n\r\n"
        for _ in range(6):
            writer.write(sent)
            assert (await answer_of(reader))[0] == 200
        writer.close()

    serve(FREE, talk)


def test_the_server_leaves_the_signals_alone():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    async def talk(port):
        await request(port)
        assert signal.getsignal(signal.SIGTERM) is before[1]

    serve(FREE, talk)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_server_stopped_before_it_began_returns_at_once():
    async def main():
        server = Server(FREE)
        server.stop()
        async with asyncio.timeout(10):
            await server.serve(create_app(FakeHost(), FREE))

    asyncio.run(main())


def test_a_cancelled_server_closes_its_connections_and_its_port():
    async def main():
        server = Server(FREE)
        port = server.port
        serving = asyncio.create_task(server.serve(create_app(FakeHost(), FREE)))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEALTH)
        assert (await answer_of(reader))[0] == 200
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert await until_closed(reader) == b""
        writer.close()
        Server(ApiSettings(port=port)).close()

    asyncio.run(asyncio.wait_for(main(), 20))


SILENT = [
    b"",
    b"G",
    b"GET /api/health/live HTTP/1.1\r\nHost: local",
    HEALTH[:-2],
    ORDER,
    ORDER + b'{"size"',
    HEALTH + b"GET",
    HEALTH + ORDER + b'{"s',
    HEALTH,
]
DRIPPING = [
    (b"", b"\r\n"),
    (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
    (HEALTH, b"\r\n"),
    (HEALTH, b"G"),
    (ORDER.replace(b"11", b"9999"), b" "),
]


def test_a_connection_that_falls_silent_is_closed():
    async def one(port, beginning):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(beginning)
        received = await until_closed(reader)
        assert received.count(b"HTTP/1.1 200") == beginning.count(HEALTH), beginning
        writer.close()

    async def talk(port):
        await asyncio.gather(*[one(port, beginning) for beginning in SILENT])

    serve(QUICK, talk)


def test_a_connection_that_drips_is_closed_all_the_same():
    async def one(port, beginning, drop):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(beginning)

        async def drip():
            with contextlib.suppress(ConnectionError):
                while True:
                    await asyncio.sleep(0.02)
                    writer.write(drop)
                    await writer.drain()

        dripping = asyncio.create_task(drip())
        try:
            await until_closed(reader)
        finally:
            dripping.cancel()
            writer.close()

    async def talk(port):
        await asyncio.gather(*[one(port, beginning, drop) for beginning, drop in DRIPPING])

    serve(QUICK, talk)


def test_a_connection_between_requests_has_the_longer_time():
    async def talk(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(HEALTH)
            assert (await answer_of(reader))[0] == 200
            await asyncio.sleep(0.3)
        writer.close()

    serve(ApiSettings(port=0, header_timeout_s=0.1, idle_timeout_s=60.0), talk)


def test_many_silent_connections_keep_nobody_out():
    settings = ApiSettings(port=0, connections_max=8, header_timeout_s=60.0)

    async def talk(port):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        for _, writer in silent:
            writer.write(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(20):
            assert (await request(port))[0] == 200
        oldest = silent[0][0]
        await until_closed(oldest)
        for _, writer in silent:
            writer.close()

    serve(settings, talk)


def test_where_all_connections_are_at_work_one_more_is_told_so():
    settings = ApiSettings(port=0, connections_max=2)

    async def main():
        app = app_with_orders(settings)
        inner, released, entered = app.asgi_handler, asyncio.Event(), asyncio.Semaphore(0)

        async def slow(scope, receive, send):
            entered.release()
            await released.wait()
            await inner(scope, receive, send)

        app.asgi_handler = slow
        server = Server(settings)
        serving = asyncio.create_task(server.serve(app))
        busy = [asyncio.create_task(request(server.port)) for _ in range(2)]
        for _ in busy:
            await entered.acquire()
        status, fields, body = await request(server.port)
        assert (status, fields[b"content-type"], fields[b"connection"]) == (503, b"application/problem+json", b"close")
        assert msgspec.json.decode(body)["detail"] == "all 2 connections are busy; try again"
        released.set()
        assert [answer[0] for answer in await asyncio.gather(*busy)] == [200, 200]
        server.stop()
        await serving

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_head_over_the_limit_is_refused_before_its_end():
    async def talk(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(HEAD_BYTES_MAX // 1_024 + 2):
                writer.write(b"x" * 1_024)
                await writer.drain()
        status, _, body = await answer_of(reader)
        assert (status, msgspec.json.decode(body)["title"]) == (431, "Request Header Fields Too Large")
        writer.close()

    serve(FREE, talk)


def test_a_body_over_the_limit_is_refused_from_its_announcement():
    async def talk(port):
        status, fields, _ = await request(port, ORDER.replace(b"11", b"41000000"))
        assert (status, fields[b"content-type"]) == (413, b"application/problem+json")

    serve(FREE, talk)


def test_what_is_not_http_gets_a_problem_document():
    async def talk(port):
        status, fields, body = await request(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert (status, fields[b"content-type"], fields[b"connection"]) == (400, b"application/problem+json", b"close")
        assert msgspec.json.decode(body)["status"] == 400

    serve(FREE, talk)


def test_a_websocket_is_not_opened():
    async def talk(port):
        upgrade = HEALTH[:-2] + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
        assert (await request(port, upgrade))[0] == 200

    serve(FREE, talk)


def test_a_client_that_leaves_mid_body_is_no_failure(caplog):
    async def talk(port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ORDER + b'{"si')
        await writer.drain()
        writer.transport.abort()
        assert (await request(port))[0] == 200

    serve(FREE, talk)
    assert caplog.records == []
