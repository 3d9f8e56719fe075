"""What readers are answered about trading, put together from the exchange and from execution."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from alphapack.domain import trading_readings as readings
from alphapack.domain.market import NANOS_PER_MS, Step, name_of
from alphapack.domain.money import UNITS
from alphapack.domain.trading import Fill, Order, side_of
from alphapack.engine.engine import Engine
from alphapack.models.deals import Deal, Leg, flow_of
from alphapack.models.planner import Plan
from alphapack.models.portfolio import Account, Portfolio
from alphapack.models.sizing import Sizing
from alphapack.models.sleeves import HOUSE, Sleeve
from alphapack.models.tca import HORIZONS_S, Markouts, analyse
from alphapack.services.execution import Refused

_T = TypeVar("_T")


def sizing(engine: Engine, symbol: str | None) -> readings.Sizing:
    """Return every step of the newest sizing of a symbol, or of any. Raises ``Refused``."""
    one = engine.execution.sizing(symbol)
    if one is None:
        raise Refused(_why_not(engine) or f"expected a decision, found none yet: one is made every {engine.settings.router.interval_s} s")
    return _sizing(one)


def plan(engine: Engine, symbol: str, request: readings.SimulateRequest) -> readings.Plan:
    """Return how an order would be traded now, and at what cost. Raises ``Refused``, and ``ValueError`` for one that cannot be planned."""
    side = 1 if request.side == "buy" else -1
    made = engine.execution.simulate(symbol, side, request.size, request.urgency, request.horizon_s)
    terms = engine.known.terms(symbol)
    assert terms is not None, "what was planned has terms"
    return _plan(symbol, side, request.urgency, request.horizon_s, made, terms.lot)


def plans(engine: Engine, decision: int) -> readings.DecisionPlans | None:
    """Return the plans of a decision that was given a size, and what became of them; None where none is kept."""
    deal = engine.execution.deal(decision)
    if deal is None:
        return None
    symbol = deal.decision.symbol
    return readings.DecisionPlans(
        decision_id=str(decision),
        symbol=name_of(symbol),
        policy=deal.decision.policy,
        state="open" if deal.sleeve is None else "closed",
        plans=[_leg(engine, deal, leg) for leg in deal.legs],
    )


def orders(engine: Engine, symbol: str | None, state: str | None, before: int | None, limit: int) -> readings.Orders:
    """Return orders, newest first: those of a symbol, in a state (``open``: sent or working), with ids below ``before``."""

    def wanted(order: Order) -> bool:
        in_state = state is None or order.state == state or (state == "open" and order.is_open)
        return in_state and (symbol is None or order.symbol == symbol)

    page, more = _page(engine.exchange.orders(), lambda order: order.id, wanted, before, limit)
    return readings.Orders(more, [_order(engine, order) for order in page])


def fills(engine: Engine, symbol: str | None, before: int | None, limit: int) -> readings.Fills:
    """Return fills, newest first: those of a symbol, with ids below ``before``."""
    page, more = _page(engine.exchange.fills(), lambda fill: fill.id, lambda fill: symbol in (None, fill.symbol), before, limit)
    return readings.Fills(more, [_fill(engine, fill) for fill in page])


def trades(engine: Engine, symbol: str | None, state: str | None, before: int | None, limit: int) -> readings.Trades:
    """Return trades, newest first: sleeves of decisions that something was traded for."""
    found = [(deal, sleeve) for deal, sleeve in engine.execution.deals() if sleeve.is_trade]

    def wanted(one: tuple[Deal, Sleeve]) -> bool:
        in_state = state is None or (state == "closed") == (one[0].sleeve is not None)
        return in_state and symbol in (None, one[0].decision.symbol)

    page, more = _page(found, lambda one: one[0].decision.id, wanted, before, limit)
    return readings.Trades(more, [_trade(engine, *one) for one in page])


def portfolio(engine: Engine) -> readings.Portfolio:
    """Return the portfolio. Raises ``Refused`` before the settings are known."""
    held = engine.execution.portfolio
    if held is None:
        raise Refused("expected settings, found none yet: the engine is starting")
    accounts = list(held.accounts.values())
    equity = held.equity
    return readings.Portfolio(
        ts_ms=engine.now_ns // NANOS_PER_MS,
        settlement=held.currency,
        capital=held.capital,
        cash=held.cash,
        equity=equity,
        realised=sum(account.realised for account in accounts),
        unrealised=sum(account.unrealised for account in accounts),
        fees=sum(account.fees for account in accounts),
        impact=sum(account.impact for account in accounts),
        funding=sum(account.funding for account in accounts),
        turnover=sum(account.turnover for account in accounts),
        gross=held.gross,
        net=sum(account.exposure for account in accounts),
        peak_equity=held.peak,
        drawdown=held.drawdown,
        brake=held.braked,
        bar_s=held.bar_s,
        positions=[_position(account) for account in sorted(accounts, key=lambda account: account.symbol)],
        limits=_limits(engine, held, equity),
        markouts=_markouts(engine.execution.markouts()),
        open_orders=sum(order.is_open for order in engine.exchange.orders()),
        not_trading=_why_not(engine),
    )


def _why_not(engine: Engine) -> str | None:
    """Return why nothing can be traded now."""
    if not engine.settings.execution.trade:
        return "expected trading on paper, found it switched off: set execution.trade"
    if engine.halted:
        return "expected a disk that keeps what is decided, found it refusing: trading stands still until it takes again"
    live = [symbol for symbol, _ in engine.microstructure.live()]
    tradable = engine.known.tradable()
    if not tradable:
        refusals = [f"{symbol}: {terms.refusal}" for symbol in live if (terms := engine.known.terms(symbol)) is not None and terms.refusal]
        return f"expected a LIVE book that takes orders, found none{': ' + '; '.join(refusals[:3]) if refusals else ''}"
    horizon_s = engine.settings.router.horizon_s
    if all(engine.known.forecast(symbol, -(-horizon_s // 60)) is None for symbol in tradable):
        return "expected a forecast of volatility to size by, found none yet: it needs candles; a recording's are loaded with --history"
    return None


def _page(
    found: Iterable[_T], key: Callable[[_T], int], wanted: Callable[[_T], bool], before: int | None, limit: int
) -> tuple[list[_T], str | None]:
    """Return a page of what is wanted, whose keys fall, and the cursor of the next."""
    left = [one for one in found if (before is None or key(one) < before) and wanted(one)]
    return left[:limit], str(key(left[limit - 1])) if len(left) > limit else None


def _sizing(one: Sizing) -> readings.Sizing:
    return readings.Sizing(
        ts_ms=one.ts_ns // NANOS_PER_MS,
        symbol=name_of(one.symbol),
        decision_id=str(one.decision),
        exposure=one.exposure,
        h=one.h,
        sigma_har=one.sigma_har,
        sigma_garch=one.sigma_garch,
        sigma_used=one.sigma_used,
        rule=one.rule,
        target_vol=one.target_vol,
        vol_leverage=one.vol_leverage,
        kelly=readings.Kelly(one.kelly.z, one.kelly.edge, one.kelly.variance, one.kelly.fraction, one.kelly.cap, one.kelly.leverage),
        win_probability=one.win_probability,
        equity=one.equity,
        sleeves_max=one.sleeves_max,
        raw_size=one.raw_size,
        caps=[readings.Cap(cap.name, cap.limit, cap.size) for cap in one.caps],
        probe=one.probe,
        size=one.size,
        reason=one.reason,
    )


def _order(engine: Engine, order: Order) -> readings.OrderReading:
    tick, lot = _steps(engine, order.symbol)
    ahead = engine.exchange.queue_ahead(order.id)
    return readings.OrderReading(
        id=str(order.id),
        client_id=order.client_id,
        symbol=name_of(order.symbol),
        side=side_of(order.side),
        type=order.kind,
        price=tick.number(order.ticks),
        size=lot.number(order.lots),
        filled=lot.number(order.filled_lots),
        average_price=order.value / UNITS / lot.number(order.filled_lots) if order.filled_lots else None,
        state=order.state,
        reason=order.reason,
        queue_ahead=None if ahead is None else lot.number(ahead),
        fees=order.fees,
        impact=order.impact,
        sent_ms=order.sent_ns // NANOS_PER_MS,
        ended_ms=order.ended_ns // NANOS_PER_MS if order.ended_ns else None,
        decisions={str(decision): lot.number(lots) for decision, lots in order.shares.items()},
    )


def _fill(engine: Engine, fill: Fill) -> readings.FillReading:
    tick, lot = _steps(engine, fill.symbol)
    marked = engine.execution.markouts_of(fill.id)
    return readings.FillReading(
        id=str(fill.id),
        order_id=str(fill.order),
        symbol=name_of(fill.symbol),
        side=side_of(fill.side),
        price=tick.number(fill.ticks),
        size=lot.number(fill.lots),
        maker=fill.maker,
        cause=fill.cause,
        ts_ms=fill.exchange_ns // NANOS_PER_MS,
        value=fill.value,
        fee=fill.fee,
        impact=fill.impact,
        available=lot.number(fill.available_lots),
        mid=tick.number(fill.mid) / 2 if fill.mid is not None else None,
        markouts_bps={str(horizon_s): marked.get(horizon_s) for horizon_s in HORIZONS_S},
    )


def _steps(engine: Engine, symbol: str) -> tuple[Step, Step]:
    """Return tick and lot in which a symbol's orders are counted."""
    account = engine.execution.account(symbol)
    if account is not None:
        return account.sleeves.tick, account.sleeves.lot
    found = engine.microstructure.market(symbol)
    assert found is not None and found[0].tick is not None and found[0].lot is not None, "orders are of symbols whose steps are known"
    return found[0].tick, found[0].lot


def _trade(engine: Engine, deal: Deal, sleeve: Sleeve) -> readings.TradeReading:
    decision = deal.decision
    account = engine.execution.account(decision.symbol)
    assert account is not None, "a deal has one"
    lot = account.sleeves.lot
    known = account.mid_half_ticks is not None or not sleeve.lots
    return readings.TradeReading(
        trade_id=str(decision.id),
        decision_id=str(decision.id),
        symbol=name_of(decision.symbol),
        policy=decision.policy,
        state="open" if deal.sleeve is None else "closed",
        size=lot.number(deal.size_lots),
        position=lot.number(sleeve.lots),
        pnl=sleeve.cash + account.value(sleeve.lots) if known else None,
        fees=sleeve.fees,
        impact=sleeve.impact,
        funding=sleeve.funding,
        turnover=sleeve.turnover,
        crossed=lot.number(sleeve.crossed_lots),
        opened_ms=sleeve.opened_ns // NANOS_PER_MS,
        closed_ms=sleeve.closed_ns // NANOS_PER_MS if sleeve.closed_ns is not None else None,
        probe=deal.probe,
    )


def _position(account: Account) -> readings.Position:
    tick, lot, house = account.sleeves.tick, account.sleeves.lot, account.sleeves.by_decision[HOUSE]
    size, mid = lot.number(account.position_lots), account.mid_half_ticks
    return readings.Position(
        symbol=name_of(account.symbol),
        size=size,
        average_price=account.basis / UNITS / size if account.position_lots else None,
        mid=tick.number(mid) / 2 if mid is not None else None,
        value=account.exposure if mid is not None else None,
        realised=account.realised,
        unrealised=account.unrealised if mid is not None else None,
        cash=account.cash,
        fees=account.fees,
        impact=account.impact,
        funding=account.funding,
        sleeves=len(account.sleeves.by_decision) - 1,
        house=lot.number(house.lots),
        house_pnl=house.cash + account.value(house.lots) if mid is not None or not house.lots else None,
        closed_pnl=account.sleeves.settled,
    )


def _limits(engine: Engine, held: Portfolio, equity: int) -> list[readings.LimitUse]:
    """Return the limits and their use; that of the volatility budget where every forecast that it needs is known."""
    whole = max(1, equity)
    largest = max((abs(account.exposure) for account in held.accounts.values()), default=0)
    limits = held.limits
    found = [
        readings.LimitUse("gross", limits.gross_max, held.gross / whole),
        readings.LimitUse("symbol", limits.symbol_max, largest / whole),
        readings.LimitUse("drawdown", limits.brake_drawdown, held.drawdown),
    ]
    sigmas = engine.execution.sigmas
    if all(account.symbol in sigmas for account in held.accounts.values() if account.position_lots):
        found.append(readings.LimitUse("volatility", limits.vol_budget, held.risk(sigmas) / whole))
    return found


def _plan(symbol: str, side: int, urgency: float, horizon_s: float, plan: Plan, lot: Step) -> readings.Plan:
    market = plan.market
    return readings.Plan(
        symbol=name_of(symbol),
        size=lot.number(plan.lots),
        side=side_of(side),
        urgency=urgency,
        horizon_s=horizon_s,
        style=plan.style,
        schedule=plan.schedule,
        reason=plan.reason,
        participation=plan.participation,
        cost=readings.Cost(
            plan.cost.bps,
            plan.cost.quote,
            plan.cost.half_spread_bps,
            plan.cost.impact_bps,
            plan.cost.fees_bps,
            plan.cost.timing_risk_bps,
        ),
        slices=[readings.Slice(one.t_s, lot.number(one.lots)) for one in plan.slices],
        inputs=readings.PlanInputs(
            mid=market.mid,
            spread_bps=market.spread_bps,
            depth=market.depth,
            micro_vol=market.micro_vol,
            sigma=market.sigma,
            adv=market.adv,
            k=plan.impact.k,
            a=plan.impact.a,
            k_stderr=plan.impact.k_stderr,
            a_stderr=plan.impact.a_stderr,
            impact_source=plan.impact.source,
        ),
    )


def _leg(engine: Engine, deal: Deal, leg: Leg) -> readings.DecisionPlan:
    symbol = deal.decision.symbol
    account = engine.execution.account(symbol)
    assert account is not None, "a deal has one"
    found = engine.microstructure.market(symbol)
    flow = leg.end_flow or (flow_of(found[0]) if found is not None else None)
    market = (flow[0] - leg.flow[0], flow[1] - leg.flow[1]) if flow is not None else None
    analysis = analyse(
        side=leg.side,
        lots=leg.lots,
        decision_mid=leg.decision_mid,
        fills=leg.fills,
        tick=account.sleeves.tick,
        lot=account.sleeves.lot,
        horizon_mid=leg.horizon_mid,
        market=market,
    )
    costs = analysis.costs
    return readings.DecisionPlan(
        leg=leg.kind,
        ts_ms=leg.start_ns // NANOS_PER_MS,
        size=account.sleeves.lot.number(leg.side * leg.lots),
        plan=_plan(symbol, leg.side, leg.plan.urgency, leg.horizon_s, leg.plan, account.sleeves.lot) if leg.plan is not None else None,
        costs=readings.Costs(
            filled=account.sleeves.lot.number(analysis.lots),
            average_price=analysis.average_price,
            arrival_mid=analysis.arrival_mid,
            market_vwap=analysis.market_vwap,
            slippage=costs.slippage,
            delay=costs.delay,
            timing=costs.timing,
            spread=costs.spread,
            impact=costs.impact,
            own_impact=costs.own_impact,
            fees=costs.fees,
            opportunity=costs.opportunity,
            shortfall=costs.shortfall,
            bps=costs.bps(),
        ),
    )


def _markouts(markouts: Markouts) -> list[readings.MeanMarkout]:
    return [
        readings.MeanMarkout(kind, horizon_s, mean.n, mean.missed, mean.bps)
        for kind, means in (("maker", markouts.makers), ("taker", markouts.takers))
        for horizon_s, mean in zip(HORIZONS_S, means, strict=True)
    ]
