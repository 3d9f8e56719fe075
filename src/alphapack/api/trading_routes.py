"""The routes of trading on paper: plans, sizes, orders, fills, the portfolio and its trades, and fills of an outside executor.

A list is newest first; a page's ``next`` is the cursor of the page behind it. A cursor is the id of the last row seen and
not a count, so that what is new meanwhile shifts no row from one page to another.
"""

import math
import re
from dataclasses import dataclass
from typing import Annotated, get_args

from litestar import get, post
from litestar.openapi.spec import Operation, RequestBody
from litestar.params import JSONBody, PathParameter, QueryParameter

from alphapack.api.answers import EXACT_INT_MAX, AnyRequest, Encoded, encoded, host_of, no_data, not_taken, problems, resolved
from alphapack.api.problems import FieldError, Refused, shown
from alphapack.domain.trading import OrderState
from alphapack.domain.trading_readings import (
    DecisionPlans,
    FillReport,
    FillReportTaken,
    Fills,
    Orders,
    Plan,
    Portfolio,
    SimulateRequest,
    Sizing,
    Trades,
)
from alphapack.engine.ports import Host, IngestRefused, NoData, ReportRefused

ROWS_MAX, ROWS_DEFAULT = 500, 100
HORIZON_S_MAX = 86_400
"""A week, as of the forecasts of volatility."""
ID_LENGTH_MAX = 64
ORDER_STATES: tuple[str, ...] = ("open", *get_args(OrderState))
"""Open: sent or working."""
TRADE_STATES = ("open", "closed")

_CURSOR = re.compile(r"0|[1-9][0-9]{0,15}")

Symbol = Annotated[str | None, QueryParameter(description="left out: all symbols")]
Limit = Annotated[int, QueryParameter(ge=1, le=ROWS_MAX, description="rows at most")]
Cursor = Annotated[str | None, QueryParameter(description="the next of the page before; left out: the newest rows")]


@dataclass
class TakesFields(Operation):
    """An operation whose body is a Struct."""

    def __post_init__(self) -> None:
        assert isinstance(self.request_body, RequestBody), "made of the handler's data"
        self.request_body.description = "these fields and no other"


@post(
    "/api/exec/simulate",
    status_code=200,
    operation_id="simulateOrder",
    operation_class=TakesFields,
    summary="How an order would be traded, and what that is expected to cost; nothing is sent",
    responses=encoded(Plan) | problems(400, 401, 403, 404, 413, 415, 422, 429, 503),
)
async def simulate(request: AnyRequest, data: JSONBody[SimulateRequest]) -> Encoded:
    """Answer the plan of an order and its cost."""
    _require(
        ("size", 0.0 < data.size < math.inf, "base units above 0", data.size),
        ("urgency", 0.0 <= data.urgency <= 1.0, "0 to 1", data.urgency),
        ("horizon_s", 1.0 <= data.horizon_s <= HORIZON_S_MAX, f"seconds from 1 to {HORIZON_S_MAX}", data.horizon_s),
    )
    host = host_of(request)
    name = resolved(host, data.symbol)
    try:
        return Encoded(host.simulate(name, data))
    except NoData as missing:
        raise no_data(missing, name) from None
    except IngestRefused as refused:
        raise not_taken(refused) from None


@get(
    "/api/exec/sizing/last",
    operation_id="getSizing",
    summary="Every step from the last decision's exposure to a size",
    responses=encoded(Sizing) | problems(404, 422, 503),
)
async def sizing(
    request: AnyRequest, symbol: Annotated[str | None, QueryParameter(description="left out: the newest of any symbol")] = None
) -> Encoded:
    """Answer the last sizing."""
    host = host_of(request)
    name = _named(host, symbol)
    try:
        return Encoded(host.sizing(name))
    except NoData as missing:
        raise no_data(missing, name) from None


@get(
    "/api/exec/orders",
    operation_id="listOrders",
    summary="Orders as their sender knows them, newest first",
    responses=encoded(Orders) | problems(404, 422),
)
async def orders(
    request: AnyRequest,
    symbol: Symbol = None,
    in_state: Annotated[str | None, QueryParameter(name="state", description=f"one of {', '.join(ORDER_STATES)}; left out: all")] = None,
    limit: Limit = ROWS_DEFAULT,
    cursor: Cursor = None,
) -> Encoded:
    """Answer a page of orders."""
    _require_state(in_state, ORDER_STATES)
    host = host_of(request)
    return Encoded(host.orders(_named(host, symbol), in_state, _before(cursor), limit))


@get(
    "/api/exec/fills",
    operation_id="listFills",
    summary="Fills of the paper exchange, newest first",
    responses=encoded(Fills) | problems(404, 422),
)
async def fills(request: AnyRequest, symbol: Symbol = None, limit: Limit = ROWS_DEFAULT, cursor: Cursor = None) -> Encoded:
    """Answer a page of fills."""
    host = host_of(request)
    return Encoded(host.fills(_named(host, symbol), _before(cursor), limit))


@post(
    "/api/exec/fills",
    status_code=200,
    operation_id="reportFill",
    operation_class=TakesFields,
    summary="Take a fill of an outside executor, once; answers once it is durable",
    responses=encoded(FillReportTaken) | problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def report_fill(request: AnyRequest, data: JSONBody[FillReport]) -> Encoded:
    """Answer what the decision holds by all that was reported of it."""
    text = f"1 to {ID_LENGTH_MAX} printable characters"
    _require(
        ("decisionId", _is_id(data.decision_id), text, data.decision_id),
        ("clientFillId", _is_id(data.client_fill_id), text, data.client_fill_id),
        ("price", 0.0 < data.price < math.inf, "a finite number above 0", data.price),
        ("size", math.isfinite(data.size) and data.size != 0.0, "a finite number other than 0", data.size),
        ("fee", math.isfinite(data.fee), "a finite number", data.fee),
        ("ts_ms", 0 <= data.ts_ms <= EXACT_INT_MAX, f"UTC milliseconds from 0 to {EXACT_INT_MAX}", data.ts_ms),
    )
    try:
        return Encoded(await host_of(request).report_fill(data))
    except (IngestRefused, ReportRefused) as refused:
        raise not_taken(refused) from None


@get(
    "/api/exec/plans/{decisionId:str}",
    operation_id="getPlans",
    summary="The plans of a decision, and what became of each",
    responses=encoded(DecisionPlans) | problems(404, 422),
)
async def plans(
    request: AnyRequest, decision_id: Annotated[str, PathParameter(name="decisionId", description="as trades and orders have it")]
) -> Encoded:
    """Answer the plans of a decision."""
    found = host_of(request).plans(decision_id) if _is_id(decision_id) else None
    if found is None:
        raise Refused(404, f"unknown decision {shown(decision_id)}; GET /api/trades lists those that traded")
    return Encoded(found)


@get(
    "/api/portfolio",
    operation_id="getPortfolio",
    summary="Positions, cash, equity, exposure, limits and their use",
    responses=encoded(Portfolio) | problems(422, 503),
)
async def portfolio(request: AnyRequest) -> Encoded:
    """Answer the whole paper portfolio."""
    try:
        return Encoded(host_of(request).portfolio())
    except NoData as missing:
        raise no_data(missing) from None


@get(
    "/api/trades",
    operation_id="listTrades",
    summary="Trades, the newest decision first",
    responses=encoded(Trades) | problems(404, 422),
)
async def trades(
    request: AnyRequest,
    symbol: Symbol = None,
    in_state: Annotated[str | None, QueryParameter(name="state", description=f"{' or '.join(TRADE_STATES)}; left out: both")] = None,
    limit: Limit = ROWS_DEFAULT,
    cursor: Cursor = None,
) -> Encoded:
    """Answer a page of trades."""
    _require_state(in_state, TRADE_STATES)
    host = host_of(request)
    return Encoded(host.trades(_named(host, symbol), in_state, _before(cursor), limit))


TRADING_ROUTES = (simulate, sizing, orders, fills, report_fill, plans, portfolio, trades)


def _named(host: Host, symbol: str | None) -> str | None:
    return None if symbol is None else resolved(host, symbol)


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not _CURSOR.fullmatch(cursor):
        raise Refused(422, f"'cursor': expected the next of another page, found {shown(cursor)}")
    return int(cursor)


def _is_id(text: str) -> bool:
    return 0 < len(text) <= ID_LENGTH_MAX and text.isprintable()


def _require_state(state: str | None, known: tuple[str, ...]) -> None:
    if state is not None and state not in known:
        raise Refused(422, f"'state': expected one of {', '.join(known)}, found {shown(state)}")


def _require(*checks: tuple[str, bool, str, float | str]) -> None:
    """Refuse a body unless every field is good, given with what was expected and what came."""
    errors = [FieldError(key, f"expected {expected}, found {shown(str(found))}") for key, is_good, expected, found in checks if not is_good]
    if errors:
        raise Refused(422, "; ".join(f"{shown(item.key)}: {item.message}" for item in errors), errors)
