"""What all routes share: Structs past the framework, parameters and their checks, and what the host's exceptions come to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Operation, RequestBody
from litestar.params import QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from alphapack.api.problems import PROBLEM_JSON, FieldError, Problem, Refused, shown
from alphapack.engine.ports import (
    AlreadyReported,
    Busy,
    Host,
    IngestRefused,
    Invalid,
    Malformed,
    NoData,
    NotAccepting,
    NotDurable,
    NotReady,
    ReportRefused,
    UnknownDecision,
)

EXACT_INT_MAX = 2**53 - 1
"""Beyond it JSON readers that use doubles lose digits."""
NO_DATA_RETRY_S = "60"
"""Volatility and decisions change once a minute."""
REFUSAL_STATUS: dict[type[IngestRefused | ReportRefused], int] = {
    Malformed: 400,
    UnknownDecision: 404,
    NotAccepting: 409,
    AlreadyReported: 409,
    Invalid: 422,
    NotReady: 503,
    Busy: 503,
    NotDurable: 507,
}

ROWS_MAX, ROWS_DEFAULT = 500, 100
ID_LENGTH_MAX = 64

_CURSOR = re.compile(r"0|[1-9][0-9]{0,15}")

AnyRequest = Request[Any, Any, Any]
Symbol = Annotated[str | None, QueryParameter(description="left out: all symbols")]
Limit = Annotated[int, QueryParameter(ge=1, le=ROWS_MAX, description="rows at most")]
Cursor = Annotated[str | None, QueryParameter(description="the next of the page before; left out: the newest rows")]


@dataclass
class TakesFields(Operation):
    """An operation whose body is a Struct."""

    def __post_init__(self) -> None:
        assert isinstance(self.request_body, RequestBody), "made of the handler's data"
        self.request_body.description = "these fields and no other"


class Encoded(ASGIResponse):
    """A Struct as JSON, past the framework's response building: that costs a third of a polled request."""

    def __init__(self, answer: msgspec.Struct | Sequence[msgspec.Struct]) -> None:
        self.body = msgspec.json.encode(answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def encoded(answer: type[msgspec.Struct], *, many: bool = False) -> dict[int, ResponseSpec]:
    """Describe the answer of a route that returns ``Encoded``, ``many`` of them as a list."""
    described: Any = list[answer] if many else answer  # type: ignore[valid-type]  # A type made here is none to a checker.
    return {200: ResponseSpec(described, generate_examples=False, description="the answer")}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe the problem documents that a route answers."""
    said = {
        400: "the body ended early, or is not what it is declared as",
        401: "a token is set, and the request has none or another one",
        403: "the Origin of another site",
        404: "unknown symbol, kind, venue or decision",
        409: "a recording is served, whose inputs are its own; or it was reported before",
        413: "the body is larger than is accepted",
        415: "the body is declared as something else",
        422: "a value or parameter that is not accepted",
        429: "too many wrong tokens",
        503: "not now: there is no data yet, or no place; Retry-After says when to try again",
        507: "the disk refuses; the detail says what became of what was posted",
    }
    return {
        status: ResponseSpec(Problem, generate_examples=False, description=said[status], media_type=PROBLEM_JSON) for status in statuses
    }


def host_of(request: AnyRequest) -> Host:
    """Return whom a route may ask."""
    host: Host = request.app.state.host
    return host


def resolved(host: Host, text: str) -> str:
    """Return the full name of a symbol; raises ``Refused`` with 404 where it is unknown."""
    name = host.resolve(text)
    if name is None:
        raise unknown_symbol(text)
    return name


def unknown_symbol(text: str) -> Refused:
    """Return the refusal of a name that no symbol has."""
    return Refused(404, f"unknown symbol {shown(text)}; GET /api/symbols lists the known ones")


def no_data(missing: NoData, symbol: str | None = None) -> Refused:
    """Return the refusal of a question, about ``symbol`` where it is about one, of which too little is known."""
    return Refused(503, f"{symbol}: {missing}" if symbol else str(missing), headers={"Retry-After": NO_DATA_RETRY_S})


def not_taken(refused: IngestRefused | ReportRefused) -> Refused:
    """Return the refusal of what was posted."""
    status = REFUSAL_STATUS[type(refused)]
    return Refused(status, str(refused), headers={"Retry-After": "1"} if status == 503 else None)


def named(host: Host, symbol: str | None) -> str | None:
    """Return the full name of a symbol that was given; raises ``Refused`` with 404 where it is unknown."""
    return None if symbol is None else resolved(host, symbol)


def before(cursor: str | None) -> int | None:
    """Return the id behind which a page begins; raises ``Refused`` for what is no cursor."""
    if cursor is None:
        return None
    if not _CURSOR.fullmatch(cursor):
        raise Refused(422, f"'cursor': expected the next of another page, found {shown(cursor)}")
    return int(cursor)


def is_id(text: str) -> bool:
    """Tell whether a text can be an id."""
    return 0 < len(text) <= ID_LENGTH_MAX and text.isprintable()


def require_one_of(key: str, value: str | None, known: tuple[str, ...]) -> None:
    """Refuse a parameter that is given and none of what is known."""
    if value is not None and value not in known:
        raise Refused(422, f"'{key}': expected one of {', '.join(known)}, found {shown(value)}")


def require(*checks: tuple[str, bool, str, float | str]) -> None:
    """Refuse a body unless every field is good, given with what was expected and what came."""
    errors = [FieldError(key, f"expected {expected}, found {shown(str(found))}") for key, is_good, expected, found in checks if not is_good]
    if errors:
        raise Refused(422, "; ".join(f"{shown(item.key)}: {item.message}" for item in errors), errors)
