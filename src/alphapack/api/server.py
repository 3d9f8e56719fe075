"""Serves the routes inside the engine's event loop, on a socket that is bound before anything else starts."""

import asyncio
import contextlib
import errno
import re
import socket
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from litestar import Litestar
from litestar.datastructures import State
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from alphapack.api.guards import Gate, StrictRequest, address_of, admit, is_loopback
from alphapack.api.problems import PROBLEM_JSON, Refused, answer
from alphapack.api.routes import ROUTES, metrics_of
from alphapack.api.stream import STREAMS_MAX, Streams
from alphapack.engine.ports import Host

TOKEN_CHARS_MIN = 32
HEAD_BYTES_MAX = 65_536
"""A request line with its headers; node allows 16 KiB, nginx 32, Tomcat 8."""
BACKLOG = 1_024
UNSENT_BYTES = 16_384
"""What waits in the kernel for a slow reader, where the system lets us say so: the less, the newer is what it reads next."""
SHUTDOWN_TIMEOUT_S = 2

_ORIGIN = re.compile(r"https?://[^/\s]+")


class ApiSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where and to whom the API is served."""

    host: str = "127.0.0.1"
    port: int = 5000
    token: str | None = None
    """Required of every write where it is set."""
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    """Host names beside localhost, the loopback addresses and ``host`` itself."""
    body_max_bytes: int = 1_000_000
    connections_max: int = 256
    header_timeout_s: float = 5.0
    idle_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"api.cors_origins: expected origins such as 'https://desk.example', found {origin!r}")


class RefusedBind(Exception):
    """A listener that would be open to others without a secret."""


class CannotListen(Exception):
    """The address cannot be listened on, most often because its port belongs to someone else."""


def create_app(host: Host, settings: ApiSettings, clock: Callable[[], float] | None = None) -> Litestar:
    """Return the application; ``clock`` gives monotonic seconds, by default those of the running loop."""
    streams = Streams(host, min(STREAMS_MAX, max(1, settings.connections_max // 2)))  # Others must be answered beside them.
    app = Litestar(
        ROUTES,
        state=State({"host": host, "metrics": metrics_of(host), "streams": streams}, deep_copy=False),
        before_request=admit,
        exception_handlers={Exception: answer},
        request_class=StrictRequest,
        request_max_body_size=settings.body_max_bytes,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    app.asgi_handler = Gate(
        app.asgi_handler,
        host,
        bind=settings.host,
        allowed_hosts=settings.allowed_hosts,
        cors_origins=settings.cors_origins,
        token=settings.token,
        clock=clock or (lambda: asyncio.get_running_loop().time()),
    )
    return app


class Server:
    """A bound socket, and the HTTP server behind it once ``serve`` runs."""

    def __init__(self, settings: ApiSettings) -> None:
        """Bind and listen; raise ``RefusedBind`` or ``CannotListen`` where that cannot be."""
        check_bind(settings)
        self._settings = settings
        self._socket = _listen(settings.host, settings.port)
        self._server: _EmbeddedServer | None = None
        self._stopped = False

    @property
    def port(self) -> int:
        """The port in use, also where 0 asked for a free one."""
        port: int = self._socket.getsockname()[1]
        return port

    async def serve(self, app: Litestar) -> None:
        """Answer requests in the running loop until ``stop`` is called or the task is cancelled."""
        config = _Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        )
        config.settings = self._settings
        self._server = _EmbeddedServer(config)
        self._server.streams = app.state.streams
        self._server.should_exit = self._stopped
        try:
            await self._server.serve(sockets=[self._socket])
        except asyncio.CancelledError:
            if self._server.started:
                await self._server.shutdown(sockets=[self._socket])
            raise
        finally:
            self.close()

    def stop(self) -> None:
        """Ask ``serve`` to finish the requests in flight and return."""
        self._stopped = True
        if self._server is not None:
            self._server.should_exit = True

    def close(self) -> None:
        """Give the socket back; ``serve`` does so itself."""
        self._socket.close()


class _Config(uvicorn.Config):
    """Carries our settings to each connection."""

    settings: ApiSettings


class _EmbeddedServer(uvicorn.Server):
    """Leaves the signals of the process to the composition root, and waits for no stream."""

    streams: Streams

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, which have no end of their own, then finish what is in flight."""
        self.streams.close()
        await super().shutdown(sockets)


class Connection(HttpToolsProtocol):
    """One client connection, bounded in time, in size and in number.

    A request's head has ``header_timeout_s`` from its first byte (a new connection: from its start), its body
    ``idle_timeout_s`` from the end of the head. Where more than ``connections_max`` are open, the one that has waited
    longest without a whole request makes room, so that silent connections never keep others out. A client that is being
    answered may take as long as it goes on reading; one that takes nothing for ``idle_timeout_s`` is closed.
    """

    def __init__(
        self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, _Config), "served by Server"
        self._settings = config.settings
        self.timeout_keep_alive = self._settings.idle_timeout_s  # type: ignore[assignment]  # Declared int, used as seconds.
        self._in_head = self._in_body = False
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_of = ""
        self._waiting_since_s = 0.0
        self._answering: RequestResponseCycle | None = None
        self._unsent_bytes, self._taken_s = 0, 0.0
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As the base class has it.
        """Start the clock on the first head, and make room where too many are connected."""
        super().connection_made(transport)
        self._waiting_since_s = self.loop.time()
        self._watch()
        if len(self.connections) > self._settings.connections_max:
            waiting = [other for other in self.connections if isinstance(other, Connection) and other is not self and other._is_waiting]
            if waiting:
                oldest = min(waiting, key=lambda other: other._waiting_since_s)
                self.connections.discard(oldest)
                oldest.transport.abort()
            else:
                self._refuse(503, f"all {self._settings.connections_max} connections are busy; try again")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines, and tell the request in flight, which is not the last one where more were sent behind it."""
        self._disarm()
        self._forget_stall()
        super().connection_lost(exc)
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse, then see whether the request is whole or a deadline must run."""
        if self.transport.is_closing():
            return
        if not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse(431, f"expected a request line and headers of at most {HEAD_BYTES_MAX} bytes, found more")
        self._watch()

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Note that the head is whole."""
        self._in_head, self._in_body, self._head_bytes = False, True, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._in_head = self._in_body = False
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to take what it was sent."""
        self._waiting_since_s = self.loop.time()
        super().on_response_complete()
        if self.transport.is_closing():
            self._arm("flush", self._settings.idle_timeout_s)

    def pause_writing(self) -> None:
        """Watch whether the client goes on reading."""
        super().pause_writing()
        self._unsent_bytes, self._taken_s = self.transport.get_write_buffer_size(), self.loop.time()
        self._watch_unsent()

    def resume_writing(self) -> None:
        """Note that it has read enough."""
        self._forget_stall()
        super().resume_writing()

    def shutdown(self) -> None:
        """Finish the request in flight, but not where its client does not take what it is sent."""
        super().shutdown()
        if self._is_answering and self.flow.write_paused:
            self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection even if its client no longer reads."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem document."""
        self._refuse(400, msg)

    @property
    def _is_waiting(self) -> bool:
        return self._in_head or self._in_body or not self._is_answering

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _watch_unsent(self) -> None:
        unsent_bytes, now_s = self.transport.get_write_buffer_size(), self.loop.time()
        if unsent_bytes < self._unsent_bytes:
            self._unsent_bytes, self._taken_s = unsent_bytes, now_s
        elif now_s - self._taken_s >= self._settings.idle_timeout_s:
            self.transport.abort()
            return
        self._stall = self.loop.call_later(self._settings.idle_timeout_s / 4, self._watch_unsent)

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _watch(self) -> None:
        """Run the deadline of what is awaited from the client; none runs while it awaits us."""
        if self._in_body:
            self._arm("body", self._settings.idle_timeout_s)
        elif self._in_head or not self._is_answering:
            # Also without a head begun: blank lines before one would otherwise keep a connection for ever.
            self._arm("head", self._settings.header_timeout_s)

    def _arm(self, what: str, seconds: float) -> None:
        if self._deadline is not None and self._deadline_of == what:
            return
        self._disarm()
        self._deadline, self._deadline_of = self.loop.call_later(seconds, self.transport.abort), what

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int, detail: str) -> None:
        body = Refused(status, detail).body
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {PROBLEM_JSON}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._arm("flush", self._settings.header_timeout_s)


def check_bind(settings: ApiSettings) -> None:
    """Raise ``RefusedBind`` for a listener that others can reach and no token protects."""
    if is_loopback(settings.host) or len(settings.token or "") >= TOKEN_CHARS_MIN:
        return
    found = f"one of {len(settings.token)} characters" if settings.token else "none"
    raise RefusedBind(
        f"api.host {settings.host} is open to other machines: expected api.token of at least {TOKEN_CHARS_MIN} characters, found {found}; "
        "set ALPHAPACK__API__TOKEN, or serve this machine alone with --host 127.0.0.1"
    )


def _listen(host: str, port: int) -> socket.socket:
    address = address_of(host)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(str(address or host), port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise CannotListen(f"api.host {host!r}: {error.strerror}; name an address of this machine with --host") from None
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "darwin" and port and _answers(family, where):
            raise OSError(errno.EADDRINUSE, "in use")  # BSDs let a specific address be bound beside a wildcard listener.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)  # Connections inherit it.
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(_why_not(host, port, error)) from None
    listener.setblocking(False)
    return listener


def _answers(family: int, where: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(where) == 0


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno != errno.EADDRINUSE:
        return f"cannot listen on {host}:{port}: {error.strerror}; choose another address with --host or port with --port"
    holder = _holder(port)
    if holder is None and sys.platform == "darwin" and port == 5000:
        holder = "probably AirPlay Receiver, which System Settings > General > AirDrop & Handoff turns off"
    by = f" by {holder}" if holder else ""
    return f"port {port} of {host} is in use{by}; choose another with --port {port + 1 if port < 65_535 else 0}"


def _holder(port: int) -> str | None:
    """Return the name and id of the process that listens on ``port``, where this system shows it."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()) in inodes:
                process = descriptor.parent.parent
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return None
