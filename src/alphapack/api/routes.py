"""The route table: parse, ask the host, encode. Answers are the Structs of ``domain``; NaN becomes null."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import msgspec
from litestar import Litestar, MediaType, Response, get, post
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath, HeaderParameter, QueryParameter
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from alphapack.api.answers import (
    EXACT_INT_MAX,
    AnyRequest,
    Encoded,
    encoded,
    host_of,
    no_data,
    not_taken,
    problems,
    resolved,
    unknown_symbol,
)
from alphapack.api.docs import PAGE_HEADERS, docs_page, index_page
from alphapack.api.guards import CONSUMES
from alphapack.api.problems import PROBLEM_JSON, Refused, shown
from alphapack.api.routing_routes import ROUTING_ROUTES
from alphapack.api.stream import DEFAULT_KINDS, EVENT_STREAM, KINDS, EventStream, Streams, Wanted, key_of
from alphapack.api.trading_routes import TRADING_ROUTES
from alphapack.domain.market import symbol_id
from alphapack.domain.readings import Book, ChainTaken, Health, Microstructure, Smile, SymbolInfo, VolAccuracy, VolForecast
from alphapack.engine.ports import Host, Ingested, IngestRefused, NoData

API_VERSION = "1"
LEVELS_MAX = 1_000
HISTORY_ROWS_MAX = 3_600
HORIZON_MAX = 10_080
"""A week, in minutes."""
HISTORY_KINDS = "microstructure, candles, vol, smile or equity"
PORTFOLIO = "all"
"""Stands for a symbol where all of them are meant."""
VARIANTS = ("log", "plain")
INTERVAL_MS_MIN, INTERVAL_MS_MAX = 50, 10_000
WIRE_NAME_LENGTH_MAX = 40
STREAM_SYMBOLS_MAX = 1_000
LINES_MAX = 50_000
"""Of one body, so that one request cannot fill the queue in front of the disk; the shortest frames are 60 bytes."""
CHAIN_BYTES_MAX = 8_000_000
"""A hundred thousand quotes; an exchange's whole chain of a coin is a tenth of a megabyte."""
FRAMES = ("application/x-ndjson", "application/jsonl", "text/plain")
"""Content types of raw frames, one a line."""

Columns = dict[str, list[int] | list[float | None]]


class Live(msgspec.Struct, frozen=True):
    """The process answers; whether the engine is ready is what health says."""

    status: str = "live"


@get(
    "/api/health",
    operation_id="getHealth",
    summary="State of the engine; 503 while it is starting",
    responses={503: ResponseSpec(Health, generate_examples=False, description="the engine is starting"), **problems(422)},
)
async def health(request: AnyRequest) -> Response[Health]:
    """Answer the state of the whole; its body is the same whatever the status."""
    answer = host_of(request).health()
    return Response(answer, status_code=503 if answer.status == "starting" else 200)


@get("/api/health/live", operation_id="getLiveness", summary="200 as long as the process answers", responses=problems(422))
async def live() -> Live:
    """Answer that the process lives."""
    return Live()


@get("/api/symbols", operation_id="listSymbols", summary="Every known symbol in order of name", responses=problems(422))
async def symbols(request: AnyRequest) -> list[SymbolInfo]:
    """Answer the known symbols."""
    return host_of(request).symbols()


@get(
    "/api/book/{symbol:str}",
    operation_id="getBook",
    summary="Best levels of one book, best first",
    responses=encoded(Book) | problems(404, 422, 503),
)
async def book(
    request: AnyRequest,
    symbol: FromPath[str],
    depth: Annotated[int, QueryParameter(ge=1, le=LEVELS_MAX, description="levels a side")] = 20,
) -> Encoded:
    """Answer the levels of a proven book."""
    host = host_of(request)
    name = resolved(host, symbol)
    return Encoded(host.book(name, depth) or _missing(host, name))


@get(
    "/api/microstructure/{symbol:str}",
    operation_id="getMicrostructure",
    summary="Features of one symbol now",
    responses=encoded(Microstructure) | problems(404, 422, 503),
)
async def microstructure(request: AnyRequest, symbol: FromPath[str]) -> Encoded:
    """Answer the latest features."""
    host = host_of(request)
    name = resolved(host, symbol)
    return Encoded(host.microstructure(name) or _missing(host, name))


@get(
    "/api/history/{kind:str}/{symbol:str}",
    operation_id="getHistory",
    summary=f"Past values by column, oldest first; kind is {HISTORY_KINDS}",
    responses=problems(404, 422),
)
async def history(
    request: AnyRequest,
    kind: FromPath[str],
    symbol: FromPath[str],
    from_ms: Annotated[int, QueryParameter(ge=0, le=EXACT_INT_MAX, description="first UTC time, in milliseconds")] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=HISTORY_ROWS_MAX, description="rows at most")] = 600,
) -> Columns:
    """Answer the first ``limit`` rows from ``from_ms`` on."""
    host = host_of(request)
    name = _history_of(host, kind, symbol)
    columns = host.history(kind, name, from_ms, limit)
    if columns is None:
        raise Refused(404, f"expected the history kind {HISTORY_KINDS}, found {shown(kind)}")
    return columns


@get(
    "/api/vol/forecast/{symbol:str}",
    operation_id="getVolForecast",
    summary="Volatility of the next h minutes: HAR, GARCH(1,1) and what is made of them",
    responses=encoded(VolForecast) | problems(404, 422, 503),
)
async def vol_forecast(
    request: AnyRequest,
    symbol: FromPath[str],
    h: Annotated[int, QueryParameter(ge=1, le=HORIZON_MAX, description="horizon in minutes, up to a week")] = 60,
    variant: Annotated[
        str | None, QueryParameter(description="the HAR that is served as sigmaHAR: log (the diurnal cascade; default) or plain (1, 5, 22)")
    ] = None,
) -> Encoded:
    """Answer standard deviations of the log return over the next h minutes."""
    if variant is not None and variant not in VARIANTS:
        raise Refused(422, f"'variant': expected {' or '.join(VARIANTS)}, found {shown(variant)}")
    host = host_of(request)
    name = resolved(host, symbol)
    try:
        return Encoded(host.vol_forecast(name, h, variant or VARIANTS[0]))
    except NoData as missing:
        raise no_data(missing, name) from None


@get(
    "/api/vol/accuracy/{symbol:str}",
    operation_id="getVolAccuracy",
    summary="How good the forecasts were: rolling QLIKE, Mincer-Zarnowitz, Diebold-Mariano",
    responses=encoded(VolAccuracy) | problems(404, 422, 503),
)
async def vol_accuracy(request: AnyRequest, symbol: FromPath[str]) -> Encoded:
    """Answer every model's forecasts of variance against what was realised."""
    host = host_of(request)
    name = resolved(host, symbol)
    try:
        return Encoded(host.vol_accuracy(name))
    except NoData as missing:
        raise no_data(missing, name) from None


@dataclass
class TakesFrames(Operation):
    """An operation whose body is raw frames."""

    def __post_init__(self) -> None:
        lines = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
        self.request_body = RequestBody(dict.fromkeys(FRAMES, lines), "raw frames of the venue, one a line; empty lines are skipped", True)


@post(
    "/api/ingest/{venue:str}",
    status_code=200,
    operation_id="ingestFrames",
    operation_class=TakesFrames,
    opt={CONSUMES: FRAMES},
    summary="Take raw frames of a venue by the same door as any other; answers once they are durable",
    responses=encoded(Ingested) | problems(401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def ingest(
    request: AnyRequest,
    venue: FromPath[str],
    symbol: Annotated[str | None, QueryParameter(description="the venue's name of what frames without one are about")] = None,
) -> Encoded:
    """Answer what became of the frames."""
    host = host_of(request)
    name = venue.lower()
    if name not in host.venues():
        raise Refused(404, f"expected a venue of {', '.join(host.venues())}, found {shown(venue)}")
    if symbol is not None and not _is_wire_name(symbol):
        raise Refused(422, f"'symbol': expected the venue's own name of a symbol, such as BTCUSDT, found {shown(symbol)}")
    body = await request.body()
    if not body.strip(b"\r\n"):
        raise Refused(422, "expected raw frames, one a line, found an empty body")
    if (ends := body.count(b"\n")) > LINES_MAX:
        raise Refused(413, f"expected at most {LINES_MAX} lines, found {ends}")
    try:
        return Encoded(await host.ingest(name, symbol or "", _lines(body)))
    except IngestRefused as refused:
        raise not_taken(refused) from None


@dataclass
class TakesChain(Operation):
    """An operation whose body is an option chain."""

    def __post_init__(self) -> None:
        number, text = Schema(type=OpenAPIType.NUMBER), Schema(type=OpenAPIType.STRING)
        row = Schema(
            type=OpenAPIType.OBJECT,
            description="a quote: k, tenor, type and iv, or bid, ask and mark; or an option of Deribit with its instrument_name",
            properties={
                "k": number,
                "tenor": text,
                "type": Schema(enum=["call", "put"]),
                **dict.fromkeys(("iv", "bid", "ask", "mark"), number),
                "instrument_name": text,
            },
        )
        chain = Schema(
            type=OpenAPIType.OBJECT,
            required=["chain"],
            properties={
                "chain": Schema(type=OpenAPIType.ARRAY, items=row),
                "spot": number,
                "forward": number,
                "k_unit": Schema(enum=["strike", "moneyness"]),
                "iv_unit": Schema(enum=["fraction", "percent"]),
                "ts_ms": Schema(type=OpenAPIType.INTEGER),
            },
        )
        self.request_body = RequestBody({"application/json": OpenAPIMediaType(schema=chain)}, "option quotes; see docs/OPTIONS.md", True)


@post(
    "/api/options/chain/{symbol:str}",
    status_code=200,
    operation_id="postOptionChain",
    request_max_body_size=CHAIN_BYTES_MAX,
    operation_class=TakesChain,
    summary="Take an option chain of the symbol's base asset; answers once its smiles are durable",
    responses=encoded(ChainTaken) | problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def option_chain(request: AnyRequest, symbol: FromPath[str]) -> Encoded:
    """Answer which rows were taken, and the smile of each tenor."""
    host = host_of(request)
    name = _underlying(host, symbol)
    try:
        return Encoded(await host.chain(name, await request.body()))
    except IngestRefused as refused:
        raise not_taken(refused) from None


@get(
    "/api/options/smile/{symbol:str}",
    operation_id="getSmile",
    summary="Risk reversal, butterfly, term slope and skew z-score of the newest option chain, and the smile of each tenor",
    responses=encoded(Smile) | problems(404, 422, 503),
)
async def smile(request: AnyRequest, symbol: FromPath[str]) -> Encoded:
    """Answer the smile of a symbol's base asset."""
    host = host_of(request)
    name = _underlying(host, symbol)
    try:
        return Encoded(host.smile(name))
    except NoData as missing:
        raise no_data(missing, name) from None


@get(
    "/api/stream",
    operation_id="streamEvents",
    summary="Server-Sent Events: newest features as fast as the reader takes them, records once they are durable",
    responses={200: ResponseSpec(str, generate_examples=False, description="events without end", media_type=EVENT_STREAM)}
    | problems(404, 422, 503),
)
async def stream(
    request: AnyRequest,
    symbols: Annotated[str | None, QueryParameter(description="symbols, separated by commas; left out: all")] = None,
    kinds: Annotated[str, QueryParameter(description=f"kinds of events, separated by commas, of {', '.join(KINDS)}")] = DEFAULT_KINDS,
    interval_ms: Annotated[
        int, QueryParameter(ge=INTERVAL_MS_MIN, le=INTERVAL_MS_MAX, description="least time between two events of a symbol's features")
    ] = 250,
    last_event_id: Annotated[
        str | None, HeaderParameter(name="Last-Event-ID", description="id of the last record seen, as seq.ordinal: go on behind it")
    ] = None,
) -> EventStream:
    """Answer events until the client leaves."""
    host = host_of(request)
    wanted = frozenset(kinds.split(","))
    if unknown := sorted(wanted - set(KINDS)):
        raise Refused(422, f"'kinds': expected kinds of {', '.join(KINDS)}, separated by commas, found {shown(unknown[0])}")
    asked = dict.fromkeys(symbols.split(",")) if symbols is not None else {}
    if len(asked) > STREAM_SYMBOLS_MAX:
        raise Refused(422, f"'symbols': expected at most {STREAM_SYMBOLS_MAX:,} names, found {len(asked):,}")
    names = None if symbols is None else tuple(dict.fromkeys(resolved(host, text) for text in asked))
    streams: Streams = request.app.state.streams
    return EventStream(streams, Wanted(names, wanted, interval_ms / 1_000, key_of(last_event_id) if last_event_id else None))


@get("/api/config", operation_id="getConfig", summary="Effective settings, secrets masked", responses=problems(422))
async def config(request: AnyRequest) -> dict[str, Any]:
    """Answer the settings in force."""
    return host_of(request).config()


@get("/metrics", operation_id="getMetrics", summary="Prometheus text", media_type="text/plain; version=0.0.4", responses=problems(422))
async def metrics(request: AnyRequest) -> bytes:
    """Answer the engine's counters and those of the process."""
    return generate_latest(request.app.state.metrics)


@get("/openapi.json", include_in_schema=False)
async def openapi() -> Response[bytes]:
    """Answer the schema, as it is committed."""
    return Response(openapi_document(), media_type=MediaType.JSON)


@get("/docs", include_in_schema=False)
async def docs() -> Response[str]:
    """Answer the schema as a page."""
    return Response(_docs_html(), media_type=MediaType.HTML, headers=PAGE_HEADERS)


@get("/", include_in_schema=False)
async def index(request: AnyRequest) -> Response[str]:
    """Answer the start page."""
    host = host_of(request)
    return Response(index_page(host.symbols(), host.health().status), media_type=MediaType.HTML, headers=PAGE_HEADERS)


MARKET_ROUTES = (symbols, book, microstructure, history, vol_forecast, vol_accuracy, option_chain, smile)
ROUTES = (health, live, *MARKET_ROUTES, *TRADING_ROUTES, *ROUTING_ROUTES, ingest, stream, config, metrics, openapi, docs, index)


class EngineMetrics(Collector):
    """The host's counters as Prometheus families; names that end in ``_total`` only ever grow."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def collect(self) -> Iterator[Metric]:
        """Yield one family a counter, read at the time of the scrape."""
        for name, value in self._host.counters().items():
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(f"alphapack_{name}", name.replace("_", " "), value=value)


def metrics_of(host: Host) -> CollectorRegistry:
    """Return a registry of the engine, the process and its garbage collector."""
    registry = CollectorRegistry()
    registry.register(EngineMetrics(host))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


@functools.cache
def openapi_document() -> bytes:
    """Return the OpenAPI document of ``ROUTES`` as it is committed: indented JSON with a final newline."""
    description = (
        "Market data and paper trading of one engine. Numbers are finite or null; times are UTC milliseconds; money is a whole number of "
        "1e-8 of the settlement currency, paid below zero. Every answer under /api carries "
        "X-Alphapack-Seq (inputs it has seen) and X-Alphapack-Durable-Seq (inputs safe on disk). Errors are RFC 9457 problem documents."
    )
    application = Litestar(
        ROUTES, openapi_config=OpenAPIConfig(title="alphapack", version=API_VERSION, description=description), logging_config=None
    )
    document = application.openapi_schema.to_schema()
    for item in document["paths"].values():
        for operation in item.values():
            if PROBLEM_JSON not in operation["responses"].get("400", {}).get("content", {}):
                operation["responses"].pop("400", None)  # The framework's own idea of a validation error, which is never sent.
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


@functools.cache
def _docs_html() -> str:
    return docs_page(msgspec.json.decode(openapi_document()))


def _underlying(host: Host, text: str) -> str:
    name = host.underlying(text)
    if name is None:
        raise unknown_symbol(text)
    return name


def _history_of(host: Host, kind: str, text: str) -> str:
    """Return whose past is asked for: the equity is that of the portfolio, whatever the symbol."""
    if kind == "smile":
        return _underlying(host, text)
    if kind != "equity":
        return resolved(host, text)
    if text.lower() != PORTFOLIO:
        resolved(host, text)
    return PORTFOLIO


def _is_wire_name(text: str) -> bool:
    return 0 < len(text) <= WIRE_NAME_LENGTH_MAX and text.isprintable() and not any(one.isspace() or one in ":/?#%" for one in text)


def _lines(body: bytes) -> Iterator[bytes]:
    """Yield each line without its end, made when it is drawn."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        line, start = (body[start:], len(body)) if end < 0 else (body[start:end], end + 1)
        yield line.removesuffix(b"\r")


def _missing(host: Host, name: str) -> NoReturn:
    """Refuse with what is missing and when it is expected."""
    state = next((info.state for info in host.symbols() if symbol_id(info.venue, info.symbol) == name), "unknown")
    engine = host.health().status
    detail = f"{name} is {state}: no verified book yet; expected as soon as the book is LIVE (engine {engine})"
    raise Refused(503, detail, headers={"Retry-After": "1"})
