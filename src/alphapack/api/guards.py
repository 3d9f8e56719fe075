"""What a request must be before a route sees it: from a host, an origin and a caller that we serve, and strictly typed."""

import contextlib
import functools
import hmac
import ipaddress
import math
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.enums import HttpMethod, ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from alphapack.api.problems import FieldError, Refused, shown
from alphapack.engine.ports import Host

PATH_BYTES_MAX = 1_024
QUERY_FIELDS_MAX = 16
BAD_TOKENS_MAX, BAD_TOKENS_WINDOW_S, CLIENTS_REMEMBERED_MAX = 10, 60.0, 1_024

READS = frozenset({"GET", "HEAD"})
BODIES = frozenset({"POST", "PUT", "PATCH"})
CONSUMES = "consumes"
"""Key of a route's options: the content types that it takes, where they are not JSON alone."""
JSON_ALONE = ("application/json",)

Stamps = list[tuple[bytes, bytes]]
"""Response headers."""

_HEAD = "alphapack.head"
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{1,5})?")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,15}")


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that an IP literal names, None for a host name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener bound to ``host``."""
    address = address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def is_head(scope: Scope) -> bool:
    """Tell whether a request that came as a HEAD wants the headers of its answer alone."""
    return _HEAD in (scope.get("extensions") or {})


class Gate:
    """The one wrapper around the whole application, so that no route, error or later addition can be outside it.

    Host names are checked against DNS rebinding, origins against other sites' pages, tokens where one is set.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: Host,
        *,
        bind: str,
        allowed_hosts: Iterable[str],
        cors_origins: Iterable[str],
        token: str | None,
        clock: Callable[[], float],
    ) -> None:
        """Wrap ``app``; ``clock`` gives monotonic seconds."""
        self._app, self._host = app, host
        self._token = token.encode() if token else None
        self._origins = frozenset(origin.encode() for origin in cors_origins)
        self._names = frozenset({"localhost", bind.lower(), *(name.lower() for name in allowed_hosts)})
        bound = address_of(bind)
        self._any_address = bound is not None and bound.is_unspecified
        self._stamps: Stamps = [(b"x-content-type-options", b"nosniff"), *([(b"vary", b"Origin")] if self._origins else [])]
        exposed = (b"access-control-expose-headers", b"X-Alphapack-Seq, X-Alphapack-Durable-Seq")
        self._stamps_by_origin: dict[bytes | None, Stamps] = {
            allowed: [*self._stamps, (b"access-control-allow-origin", allowed), exposed] for allowed in self._origins
        }
        self._bad_tokens = BadTokens(clock)
        self._is_own_host = functools.lru_cache(256)(self._parse_host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a problem document."""
        if scope["type"] == ScopeType.WEBSOCKET:
            await send({"type": "websocket.close", "code": 1008, "reason": "no WebSocket is served here"})
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        stamps = self._stamps_by_origin.get(origin, self._stamps)
        is_api = scope["path"].startswith("/api/")

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *stamps, *(self._sequence_stamps() if is_api else ())]
            await send(message)

        method = scope["method"]
        try:
            self._admit(scope, headers, method, origin)
        except Refused as refused:
            await refused.send(stamped)
            return
        if method == "OPTIONS" and b"access-control-request-method" in headers and origin in self._origins:
            await _preflight(stamped)
            return
        if method == "HEAD":
            scope = scope.copy()
            scope["method"] = HttpMethod.GET  # The server drops the body of the HEAD that it saw.
            scope["extensions"] = {**(scope.get("extensions") or {}), _HEAD: {}}
        await self._app(scope, receive, stamped)

    def _sequence_stamps(self) -> Stamps:
        seq, durable_seq = self._host.sequence()
        return [(b"cache-control", b"no-store"), (b"x-alphapack-seq", b"%d" % seq), (b"x-alphapack-durable-seq", b"%d" % durable_seq)]

    def _admit(self, scope: Scope, headers: dict[bytes, bytes], method: str, origin: bytes | None) -> None:
        host = headers.get(b"host", b"")
        if not self._is_own_host(host):
            found = shown(host.decode("latin-1"))
            raise Refused(421, f"expected a Host header that names this server, found {found}; add the name to api.allowed_hosts")
        if len(scope["path"]) > PATH_BYTES_MAX:
            raise Refused(404, f"expected a path of at most {PATH_BYTES_MAX} characters, found {len(scope['path'])}")
        if method in READS:
            return
        if origin is not None and origin not in self._origins and origin not in (b"http://" + host, b"https://" + host):
            found = shown(origin.decode("latin-1"))
            raise Refused(403, f"expected this server's own Origin, found {found}; add it to api.cors_origins to allow it")
        if self._token is not None and method != "OPTIONS":
            self._check_token(scope, headers.get(b"authorization"))

    def _check_token(self, scope: Scope, authorization: bytes | None) -> None:
        assert self._token is not None, "only called where a token is set"
        client = scope.get("client")
        address = client[0] if client else ""
        wait_s = self._bad_tokens.wait_s(address)
        if wait_s > 0.0:
            detail = f"more than {BAD_TOKENS_MAX} wrong tokens within a minute; try again in {math.ceil(wait_s)} s"
            raise Refused(429, detail, headers={"Retry-After": str(math.ceil(wait_s))})
        challenge = {"WWW-Authenticate": "Bearer"}
        scheme, _, token = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer":
            raise Refused(401, "expected an Authorization: Bearer header with the configured api.token", headers=challenge)
        if not hmac.compare_digest(token.strip(), self._token):
            self._bad_tokens.add(address)
            raise Refused(401, "expected the configured api.token, found another one", headers=challenge)

    def _parse_host(self, header: bytes) -> bool:
        match = _HOST.fullmatch(header.decode("latin-1").lower())
        if match is None:
            return False
        name = match["v6"] or match["name"]
        address = address_of(name)
        return name in self._names or (address is not None and (address.is_loopback or self._any_address))


class BadTokens:
    """Counts wrong tokens a client address, for so many addresses as are bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with no address known."""
        self._clock = clock
        self._times_s: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, client: str) -> None:
        """Remember a wrong token of ``client``."""
        times_s = self._times_s.setdefault(client, deque(maxlen=BAD_TOKENS_MAX))
        times_s.append(self._clock())
        self._times_s.move_to_end(client)
        if len(self._times_s) > CLIENTS_REMEMBERED_MAX:
            self._times_s.popitem(last=False)

    def wait_s(self, client: str) -> float:
        """Return for how long ``client`` may not try again; zero or less: it may."""
        times_s = self._times_s.get(client)
        if times_s is None or len(times_s) < BAD_TOKENS_MAX:
            return 0.0
        return times_s[0] + BAD_TOKENS_WINDOW_S - self._clock()


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, HEAD, POST"),
        (b"access-control-allow-headers", b"Authorization, Content-Type"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is decoded into the route's own type, with no coercion of strings to numbers."""

    async def json(self) -> Any:
        """Return the body as the type of the handler's ``data``."""
        body = await self.body()
        field = self.route_handler.parsed_data_field
        assert field is not None, "a handler takes its body as data: JSONBody[...]"
        try:
            try:
                return msgspec.json.decode(body, type=field.annotation)
            except msgspec.ValidationError as error:
                with contextlib.suppress(msgspec.ValidationError):  # A number beyond all measure is JSON.
                    msgspec.json.decode(body)  # What is no JSON further on, or nested too deep, is that before it is of the wrong type.
                message, _, key = str(error).partition(" - at `$")
                raise Refused(422, str(error), [FieldError(key.rstrip("`").lstrip("."), message)]) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(400, f"expected a JSON body: {error}") from None
        except RecursionError:
            raise Refused(400, "expected a JSON body, found one nested too deep") from None


async def admit(request: Request[Any, Any, Any]) -> None:
    """Refuse a body that is not declared as what the route takes, and every query parameter that it does not name or type."""
    if request.scope["method"] in BODIES:
        consumes = request.route_handler.opt.get(CONSUMES, JSON_ALONE)
        if request.content_type[0] not in consumes:
            raise Refused(415, f"expected Content-Type {' or '.join(consumes)}, found {shown(request.content_type[0])}")
    raw = request.scope["query_string"]
    if not raw:
        return
    known = _query_types(request.route_handler)
    expected = ", ".join(known) or "none"
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX
        )
    except ValueError:
        raise Refused(422, f"expected query parameters as name=value ({expected}), found {shown(raw.decode('latin-1'))}") from None
    errors = []
    seen: set[str] = set()
    for key, value in pairs:
        if key not in known:
            errors.append(FieldError(key, f"expected one of the query parameters ({expected}), found {shown(key)}"))
        elif key in seen:
            errors.append(FieldError(key, "expected once, found again"))
        elif known[key] is int and not _INTEGER.fullmatch(value):
            errors.append(FieldError(key, f"expected a whole number in digits, found {shown(value)}"))
        seen.add(key)
    if errors:
        raise Refused(422, "; ".join(f"{shown(item.key)}: {item.message}" for item in errors), errors)


@functools.lru_cache(256)
def _query_types(handler: HTTPRouteHandler) -> dict[str, Any]:
    """Return the query parameters that a handler declares, with their types."""
    fields = handler.parsed_fn_signature.parameters.items()
    return {kwarg.name or name: field.annotation for name, field in fields if isinstance(kwarg := field.kwarg_definition, QueryParameter)}
