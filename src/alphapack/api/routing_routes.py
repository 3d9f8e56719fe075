"""The routes of decisions: advice and what it came to, beliefs and records, alphas, and who is to be thanked for a trade."""

import math
from typing import Annotated

from litestar import get, post
from litestar.params import JSONBody, PathParameter, QueryParameter

from alphapack.api.answers import (
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
from alphapack.api.problems import FieldError, Refused, shown
from alphapack.domain.routing_readings import (
    AlphaReading,
    Attribution,
    Choice,
    ChooseRequest,
    DecisionAudit,
    Decisions,
    RewardRequest,
    RewardTaken,
    Snapshot,
)
from alphapack.engine.ports import IngestRefused, NoData, ReportRefused
from alphapack.models.book import FEATURES
from alphapack.models.features import BY_NAME, nearest

ORIGINS = ("engine", "api")
REWARD_BPS_MAX = 1e6
_KNOWN = tuple(dict.fromkeys((*BY_NAME, *FEATURES)))

Origin = Annotated[str | None, QueryParameter(description="engine: traded on; api: advice; left out: both")]


@post(
    "/api/router/choose",
    status_code=200,
    operation_id="choose",
    operation_class=TakesFields,
    summary="Decide now as advice, some features overridden; nothing is ordered",
    responses=encoded(Choice) | problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def choose(request: AnyRequest, data: JSONBody[ChooseRequest]) -> Encoded:
    """Answer what the router chooses in a context."""
    symbol, context = _context(data)
    host = host_of(request)
    name = resolved(host, symbol)
    try:
        return Encoded(await host.choose(name, context))
    except NoData as missing:
        raise no_data(missing, name) from None
    except IngestRefused as refused:
        raise not_taken(refused) from None


@post(
    "/api/router/reward",
    status_code=200,
    operation_id="reward",
    operation_class=TakesFields,
    summary="Take what advice came to, once; answers once it is durable",
    responses=encoded(RewardTaken) | problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def reward(request: AnyRequest, data: JSONBody[RewardRequest]) -> Encoded:
    """Answer what the posterior has seen now."""
    require(
        ("decisionId", is_id(data.decision_id), f"1 to {ID_LENGTH_MAX} printable characters", data.decision_id),
        ("reward_bps", abs(data.reward_bps) <= REWARD_BPS_MAX, f"bps within {REWARD_BPS_MAX:g}", data.reward_bps),
    )
    try:
        return Encoded(await host_of(request).reward(data.decision_id, data.reward_bps))
    except (IngestRefused, ReportRefused) as refused:
        raise not_taken(refused) from None


@get(
    "/api/router/snapshot",
    operation_id="getRouterSnapshot",
    summary="The newest decision, with the beliefs that it was made by",
    responses=encoded(Snapshot) | problems(404, 422, 503),
)
async def snapshot(request: AnyRequest, symbol: Symbol = None, origin: Origin = None) -> Encoded:
    """Answer the newest decision."""
    require_one_of("origin", origin, ORIGINS)
    host = host_of(request)
    name = named(host, symbol)
    try:
        return Encoded(host.snapshot(name, origin))
    except NoData as missing:
        raise no_data(missing, name) from None


@get(
    "/api/router/decisions",
    operation_id="listDecisions",
    summary="Decisions that are kept, newest first",
    responses=encoded(Decisions) | problems(404, 422),
)
async def decisions(
    request: AnyRequest, symbol: Symbol = None, origin: Origin = None, limit: Limit = ROWS_DEFAULT, cursor: Cursor = None
) -> Encoded:
    """Answer a page of decisions."""
    require_one_of("origin", origin, ORIGINS)
    host = host_of(request)
    return Encoded(host.decisions(named(host, symbol), origin, before(cursor), limit))


@get(
    "/api/router/decisions/{decisionId:str}",
    operation_id="getDecision",
    summary="All that it takes to make a decision again",
    responses=encoded(DecisionAudit) | problems(404, 422),
)
async def decision(
    request: AnyRequest, decision_id: Annotated[str, PathParameter(name="decisionId", description="as the list has it")]
) -> Encoded:
    """Answer a decision's audit record."""
    found = host_of(request).decision(decision_id) if is_id(decision_id) else None
    if found is None:
        raise Refused(
            404, f"unknown decision {shown(decision_id)}; GET /api/router/decisions lists those that are kept, the ledger has all"
        )
    return Encoded(found)


@get(
    "/api/alpha/registry",
    operation_id="listAlphas",
    summary="Alphas, their weights, and how each has done",
    responses=encoded(AlphaReading, many=True) | problems(422),
)
async def registry(request: AnyRequest) -> Encoded:
    """Answer every alpha."""
    return Encoded(host_of(request).alphas())


@get(
    "/api/alpha/attribution",
    operation_id="getAttribution",
    summary="Who is to be thanked for a trade; its parts sum to its profit, to the unit",
    responses=encoded(Attribution) | problems(404, 422, 503),
)
async def attribution(
    request: AnyRequest, trade_id: Annotated[str, QueryParameter(name="tradeId", description="latest, or as trades have it")] = "latest"
) -> Encoded:
    """Answer the attribution of a trade."""
    try:
        found = host_of(request).attribution(trade_id) if is_id(trade_id) else None
    except NoData as missing:
        raise no_data(missing) from None
    if found is None:
        raise Refused(404, f"unknown trade {shown(trade_id)}; GET /api/trades?state=closed lists those that closed lately")
    return Encoded(found)


ROUTING_ROUTES = (choose, reward, snapshot, decisions, decision, registry, attribution)


def _context(data: ChooseRequest) -> tuple[str, dict[str, float]]:
    """Return symbol and features of a context; raises ``Refused`` with each field that cannot be one, and what is nearest."""
    if len(data.context) > len(_KNOWN) + 1:
        raise Refused(422, f"'context': expected a symbol and at most {len(_KNOWN)} features, found {len(data.context)} names")
    errors, context, symbol = [], {}, data.context.get("symbol")
    if not isinstance(symbol, str):
        errors.append(FieldError("context.symbol", f"expected the name of a symbol, found {'none' if symbol is None else 'a number'}"))
    for name, value in data.context.items():
        key, feature = f"context.{name[:ID_LENGTH_MAX]}", BY_NAME.get(name)
        if name == "symbol":
            continue
        if name not in _KNOWN:
            near = nearest(name[:ID_LENGTH_MAX], _KNOWN)
            errors.append(FieldError(key, f"expected a feature, found {shown(name)}" + (f"; the nearest is {near!r}" if near else "")))
        elif isinstance(value, str) or not math.isfinite(value):
            errors.append(FieldError(key, f"expected a finite number, found {shown(str(value))}"))
        elif feature is not None and not feature.low <= value <= feature.high:
            errors.append(FieldError(key, f"expected {feature.low:g} to {feature.high:g}, found {value!r}"))
        else:
            context[name] = float(value)
    if errors or not isinstance(symbol, str):
        raise Refused(422, "; ".join(f"{shown(item.key)}: {item.message}" for item in errors), errors)
    return symbol, context
