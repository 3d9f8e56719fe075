"""The routes of trading on paper: plans, sizes, orders, fills, the portfolio and its trades, and fills of an outside executor.

A list is newest first; a page's ``next`` is the cursor of the page behind it. A cursor is the id of the last row seen and
not a count, so that what is new meanwhile shifts no row from one page to another.
"""

import math
from typing import Annotated, get_args

from litestar import get, post
from litestar.params import JSONBody, PathParameter, QueryParameter

from alphapack.api.answers import (
    EXACT_INT_MAX,
    ID_LENGTH_MAX,
    ROWS_DEFAULT,
    AnyRequest,
    Cursor,
    Encoded,
    Limit,
    Symbol,
    TakesFields,
    before,
    encoded,
    host_of,
    is_id,
    named,
    no_data,
    not_taken,
    problems,
    require,
    require_one_of,
    resolved,
)
from alphapack.api.problems import Refused, shown
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
from alphapack.engine.ports import IngestRefused, NoData, ReportRefused

HORIZON_S_MAX = 86_400
"""A week, as of the forecasts of volatility."""
ORDER_STATES: tuple[str, ...] = ("open", *get_args(OrderState))
"""Open: sent or working."""
TRADE_STATES = ("open", "closed")


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
    require(
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
    name = named(host, symbol)
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
    require_one_of("state", in_state, ORDER_STATES)
    host = host_of(request)
    return Encoded(host.orders(named(host, symbol), in_state, before(cursor), limit))


@get(
    "/api/exec/fills",
    operation_id="listFills",
    summary="Fills of the paper exchange, newest first",
    responses=encoded(Fills) | problems(404, 422),
)
async def fills(request: AnyRequest, symbol: Symbol = None, limit: Limit = ROWS_DEFAULT, cursor: Cursor = None) -> Encoded:
    """Answer a page of fills."""
    host = host_of(request)
    return Encoded(host.fills(named(host, symbol), before(cursor), limit))


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
    require(
        ("decisionId", is_id(data.decision_id), text, data.decision_id),
        ("clientFillId", is_id(data.client_fill_id), text, data.client_fill_id),
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
    found = host_of(request).plans(decision_id) if is_id(decision_id) else None
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
    require_one_of("state", in_state, TRADE_STATES)
    host = host_of(request)
    return Encoded(host.trades(named(host, symbol), in_state, before(cursor), limit))


TRADING_ROUTES = (simulate, sizing, orders, fills, report_fill, plans, portfolio, trades)
