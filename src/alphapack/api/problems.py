"""Errors as RFC 9457 problem documents: one line on what was expected and what came, never the engine's insides."""

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    ClientException,
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.types import Send

PROBLEM_JSON = "application/problem+json"
SHOWN_CHARS_MAX = 80

_log = logging.getLogger("alphapack.api")


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one parameter or body field."""

    key: str
    message: str


class Problem(msgspec.Struct, frozen=True):
    """The body of every error answer."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | msgspec.UnsetType = msgspec.UNSET


class Refused(Exception):
    """A request that is answered with a problem document."""

    def __init__(self, status: int, detail: str, errors: Iterable[FieldError] = (), headers: Mapping[str, str] | None = None) -> None:
        """Keep the answer's status, its one line, and the fields at fault where they are known."""
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, list(errors), dict(headers or {})

    @property
    def body(self) -> bytes:
        """The problem document."""
        title = HTTPStatus(self.status).phrase
        return msgspec.json.encode(Problem("about:blank", title, self.status, self.detail, self.errors or msgspec.UNSET))

    async def send(self, send: Send) -> None:
        """Answer an ASGI request outside the application."""
        body = self.body
        headers = [(b"content-type", PROBLEM_JSON.encode()), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def shown(text: str) -> str:
    """Return what a client sent as it may stand in an error line: quoted, cut, and always encodable."""
    cut = text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "..."
    return repr(cut.encode("utf-8", "replace").decode())


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Turn whatever a route or the router raised into a problem document."""
    refused = _refused(request, error)
    return Response(refused.body, status_code=refused.status, media_type=PROBLEM_JSON, headers=refused.headers)


def _refused(request: Request[Any, Any, Any], error: Exception) -> Refused:
    method, path = request.scope["method"], request.scope["path"]
    match error:
        case Refused():
            return error
        case NotFoundException():
            return Refused(404, f"no route {shown(path)}; GET /docs lists the routes")
        case MethodNotAllowedException():
            allowed = {name for name in (error.headers or {}).get("allow", "").split(", ") if name}
            allowed |= {"HEAD"} if "GET" in allowed else set()
            allow = ", ".join(sorted(allowed))
            return Refused(405, f"expected {allow}, found {method}", headers={"Allow": allow})
        case ValidationException():
            return _invalid(request, error)
        case ClientException():
            return Refused(error.status_code, _client_detail(error))
        case InternalServerException(detail="client disconnected prematurely"):
            return Refused(400, "the body ended early")  # Nobody reads it; an unfinished upload is no failure of ours.
        case HTTPException() if error.status_code in (503, 507):
            return Refused(error.status_code, error.detail)
    _log.error("%s %s failed", method, shown(path), exc_info=error)
    return Refused(500, "the request failed unexpectedly; the server's log says why")


def _client_detail(error: ClientException) -> str:
    if error.status_code == 413:
        return "the body is larger than this route accepts"
    return error.detail


def _invalid(request: Request[Any, Any, Any], error: ValidationException) -> Refused:
    found = request.query_params
    errors = []
    for item in error.extra if isinstance(error.extra, list) else []:
        key, message = item.get("key", ""), item["message"]
        if key == "data":  # Every other body than none is read, and refused, by ``StrictRequest``.
            message = "expected a JSON body, found none"
        errors.append(FieldError(key, f"{message}, found {shown(found[key])}" if key in found else message))
    return Refused(422, "; ".join(f"{item.key}: {item.message}" for item in errors) or error.detail, errors)
