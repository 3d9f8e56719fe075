"""What all routes answer with: Structs past the framework, and the refusals that the host's exceptions come to."""

from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.datastructures import ResponseSpec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from alphapack.api.problems import PROBLEM_JSON, Problem, Refused, shown
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

AnyRequest = Request[Any, Any, Any]


class Encoded(ASGIResponse):
    """A Struct as JSON, past the framework's response building: that costs a third of a polled request."""

    def __init__(self, answer: msgspec.Struct) -> None:
        self.body = msgspec.json.encode(answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def encoded(answer: type[msgspec.Struct]) -> dict[int, ResponseSpec]:
    """Describe the answer of a route that returns ``Encoded``."""
    return {200: ResponseSpec(answer, generate_examples=False, description="the answer")}


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
