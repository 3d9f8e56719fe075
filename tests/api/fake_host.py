"""A host whose answers are set by hand, and a client that speaks ASGI to the application without a server."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import uvloop
from litestar import Litestar, post
from litestar.params import JSONBody

from alphapack.api.server import ApiSettings, Server, create_app
from alphapack.domain.events import Contribution, DecisionMade, FrameError
from alphapack.domain.readings import (
    Blend,
    Book,
    ChainTaken,
    Depth,
    GarchModel,
    HarModel,
    Health,
    LedgerHealth,
    Microstructure,
    PlainModel,
    RejectedRow,
    Sigmas,
    Smile,
    SmileTenor,
    SymbolHealth,
    SymbolInfo,
    VolAccuracy,
    VolForecast,
    VolModels,
    VolScore,
    VolScores,
    Windows,
)
from alphapack.domain.routing_readings import (
    AlphaReading,
    Attribution,
    Choice,
    DecisionAudit,
    DecisionRow,
    Decisions,
    Posterior,
    RewardTaken,
    Snapshot,
)
from alphapack.domain.trading_readings import (
    Cap,
    Cost,
    Costs,
    DecisionPlan,
    DecisionPlans,
    FillReading,
    FillReport,
    FillReportTaken,
    Fills,
    Kelly,
    LimitUse,
    MeanMarkout,
    OrderReading,
    Orders,
    Plan,
    PlanInputs,
    Portfolio,
    Position,
    SimulateRequest,
    Sizing,
    Slice,
    TradeReading,
    Trades,
)
from alphapack.engine.ports import (
    REJECTED_LINES_MAX,
    AlreadyReported,
    Ingested,
    IngestRefused,
    NoData,
    RejectedLine,
    ReportRefused,
    UnknownDecision,
)
from alphapack.shell.news import NewsRing
from alphapack.venues.binance import BinanceCodec

BTC, ETH = "binance-usdm:BTCUSDT", "binance-usdm:ETHUSDT"


def features(symbol: str = BTC, *, obi: float | None = 0.25) -> Microstructure:
    return Microstructure(
        symbol=symbol,
        venue="binance-usdm",
        ts_ms=1_700_000_000_123,
        age_ms=7,
        state="LIVE",
        seq=41,
        bid=100.0,
        ask=100.5,
        mid=100.25,
        microprice=100.3,
        spread_bps=49.875,
        obi=obi,
        obi_k=5,
        ti=-0.5,
        ti_n=12,
        micro_vol=0.0001,
        cancel_rate=None,
        cancel_n=0,
        queue_rate=3.5,
        ofi=-0.125,
        vpin=None,
        vpin_n=7,
        kyle_lambda=1.5,
        kyle_n=40,
        trade_rate=2.4,
        microprice_stoikov=None,
        depth=Depth(bid=10.0, ask=6.0, bid_quote=1000.0, ask_quote=603.0),
        windows=Windows(obi_1=0.1, obi_10=0.2, ti_1s=None, ti_30s=-0.1, micro_vol_1s=0.0002, ofi_1=0.75),
    )


def volatility(symbol: str, horizon: int, variant: str) -> VolForecast:
    params = {"const": 1e-8, f"rv_{horizon}": 0.5}
    return VolForecast(
        symbol=symbol,
        venue="binance-usdm",
        h=horizon,
        sigma_har=0.002,
        sigma_garch=0.003,
        sigma=0.003,
        rule="max",
        blend=Blend(0.6, 0.4),
        annualized=Sigmas(0.187, 0.28, 0.28),
        asof_ms=1_700_000_040_000,
        fitted_ms=1_699_999_980_000,
        n_obs=43_200,
        extrapolated=False,
        candles={"venue": 43_200},
        history_shift_ms=None,
        models=VolModels(
            HarModel(variant, horizon, [horizon], params, 0.5, 8_000),
            PlainModel(0.0021, horizon, [horizon], params, {"const": math.nan}, 0.4, 8_000, False),
            GarchModel(1e-10, 0.05, 0.94, 0.99, True, 0.9999, 1e-8),
        ),
    )


TENOR = SmileTenor(
    tenor="7d",
    t=7 / 365,
    expiry_ms=None,
    forward=1.0,
    forward_source="moneyness",
    atm_iv=0.65,
    rr25=0.06,
    fly25=0.0007,
    iv25c=0.68,
    iv25p=0.62,
    k25c=1.07,
    k25p=0.95,
    k_atm=1.004,
    svi=None,
    points=2,
    quality="sparse",
    reason=None,
    butterfly_free=None,
    calendar_free=True,
    strikes=[0.9, 1.1],
    ivs=[0.6, 0.7],
)


def plan_of(symbol: str, request: SimulateRequest) -> Plan:
    return Plan(
        symbol=symbol,
        size=request.size,
        side=request.side,
        urgency=request.urgency,
        horizon_s=request.horizon_s,
        style="TWAP",
        schedule="uniform",
        reason="patient, and the size is small",
        participation=0.01,
        cost=Cost(bps=1.5, quote=0.9, half_spread_bps=0.5, impact_bps=1.0, fees_bps=5.0, timing_risk_bps=4.0),
        slices=[Slice(0.0, request.size / 2), Slice(request.horizon_s / 2, request.size / 2)],
        inputs=PlanInputs(60_000.0, 1.0, 12.0, 0.0001, 0.002, 9_000.0, 95.0, 0.5, 0.7, 0.1, "prior"),
    )


SIZING = Sizing(
    ts_ms=1_700_000_000_000,
    symbol=BTC,
    decision_id="5",
    exposure=-0.5,
    h=5,
    sigma_har=0.0009,
    sigma_garch=0.001,
    sigma_used=0.001,
    rule="max",
    target_vol=0.2,
    vol_leverage=0.6,
    kelly=Kelly(z=0.05, edge=0.00005, variance=1e-6, fraction=0.25, cap=2.0, leverage=12.5),
    win_probability=0.52,
    equity=10_000_000_000_000,
    sleeves_max=5,
    raw_size=-0.1,
    caps=[Cap("symbol_max", 1.0, -0.08)],
    probe=False,
    size=-0.08,
    reason="",
)

PORTFOLIO = Portfolio(
    ts_ms=1_700_000_000_000,
    settlement="USDT",
    capital=10_000_000_000_000,
    cash=15_000_000_000_000,
    equity=9_999_000_000_000,
    realised=-100_000_000,
    unrealised=-900_000_000,
    fees=-50_000_000,
    impact=-7,
    funding=0,
    turnover=5_000_000_000_000,
    gross=5_000_900_000_000,
    net=-5_000_900_000_000,
    peak_equity=10_000_000_000_000,
    drawdown=0.0001,
    brake=False,
    bar_s=10,
    positions=[Position(BTC, -0.08, 60_000.0, None, None, -100_000_000, None, 480_000_000_000, -50_000_000, -7, 0, 3, 0.0, 0, -70_000_000)],
    limits=[LimitUse("gross", 2.0, 0.5)],
    markouts=[MeanMarkout("maker", 1, 0, 2, math.nan)],
    open_orders=1,
    not_trading=None,
)

COSTS = Costs(
    filled=0.08,
    average_price=59_990.0,
    arrival_mid=60_000.0,
    market_vwap=None,
    slippage=80_000_000,
    delay=0,
    timing=0,
    spread=50_000_000,
    impact=30_000_000,
    own_impact=7,
    fees=240_000_000,
    opportunity=None,
    shortfall=None,
    bps={"slippage": 1.7, "opportunity": None},
)

ORDER_STATES = {5: "working", 4: "sent", 3: "filled", 2: "cancelled", 1: "rejected"}
"""Of the orders that the host knows, by id."""


def symbol_of(number: int) -> str:
    return BTC if number % 2 else ETH


def order_of(number: int) -> OrderReading:
    return OrderReading(
        id=str(number),
        client_id=f"c-{number}",
        symbol=symbol_of(number),
        side="sell",
        type="limit",
        price=60_000.0,
        size=0.02,
        filled=0.0,
        average_price=None,
        state=ORDER_STATES[number],
        reason="",
        queue_ahead=math.nan,
        fees=0,
        impact=0,
        sent_ms=1_700_000_000_000 + number,
        ended_ms=None,
        decisions={"5": -0.03, "4": 0.01},
    )


def fill_of(number: int) -> FillReading:
    return FillReading(
        id=str(number),
        order_id="3",
        symbol=symbol_of(number),
        side="buy",
        price=60_000.0,
        size=0.01,
        maker=True,
        cause="printed",
        ts_ms=1_700_000_000_000 + number,
        value=60_000_000_000,
        fee=-12_000_001,
        impact=0,
        available=0.7,
        mid=60_000.5,
        markouts_bps={"1": 0.5, "5": None, "60": None},
    )


def trade_of(number: int) -> TradeReading:
    is_open = number > 3
    return TradeReading(
        trade_id=str(number),
        decision_id=str(number),
        symbol=symbol_of(number),
        policy="momentum",
        state="open" if is_open else "closed",
        size=0.02,
        position=0.02 if is_open else 0.0,
        pnl=None if is_open else -123_456_789,
        fees=-12,
        impact=0,
        funding=0,
        turnover=2**60,
        crossed=0.0,
        opened_ms=1_700_000_000_000 + number,
        closed_ms=None if is_open else 1_700_000_300_000,
        probe=False,
    )


DECISION_ORIGINS = {5: "api", 4: "engine", 3: "engine", 2: "api", 1: "engine"}
"""Of the decisions that the host knows, by id."""


def decision_of(number: int, symbol: str | None = None, context: Mapping[str, float] | None = None) -> DecisionMade:
    stated = context or {}
    return DecisionMade(
        decision=number,
        symbol=symbol or symbol_of(number),
        origin=DECISION_ORIGINS.get(number, "api"),
        policy="momentum",
        exposure=-0.5,
        quote=None,
        urgency=0.6,
        horizon_s=300,
        plan_s=60,
        win_probability=0.53,
        win_probability_raw=0.56,
        features={"obi": -0.4, "spread_bps": 0.5, **stated},
        sources={"obi": "live", "spread_bps": "live", "ti": "missing", **dict.fromkeys(stated, "request")},
        standardised={"obi": -1.0, "spread_bps": 0.0},
        standardiser=77,
        signals={"obi_pressure": -0.7, "skew_turn": None},
        weights={"obi_pressure": 0.05, "skew_turn": 0.02},
        blends={"momentum": -0.035},
        proposals={"momentum": -0.5},
        sides={"momentum": -1},
        enabled={"momentum": True},
        sigma=0.002,
        offsets={"momentum": -0.55},
        mixtures={"momentum": [[1.0, 0.1, 0.3, 9.0]]},
        uniforms=[0.25, 0.5, 0.75, 0.125],
        floor=0.01,
        scores={"momentum": 0.31, "flat": 0.0},
        propensities={"momentum": 0.625, "flat": 0.375},
        explored=False,
        posterior={"momentum": "0f" * 16},
        learnt={"momentum": 12},
    )


def decision_ts_ms(number: int) -> int:
    return 1_700_000_000_000 + number


def decided(made: DecisionMade) -> dict[str, Any]:
    """Return what advice and a snapshot both tell of a decision."""
    return {
        "decision_id": str(made.decision),
        "ts_ms": decision_ts_ms(made.decision),
        "symbol": made.symbol.partition(":")[2],
        "policy": made.policy,
        "exposure": made.exposure,
        "scores": made.scores,
        "propensities": made.propensities,
        "features": {"ti": None, **made.features},
        "sources": made.sources,
        "signals": made.signals,
        "proposals": made.proposals,
        "win_probability": made.win_probability,
    }


def snapshot_of(number: int) -> Snapshot:
    made = decision_of(number)
    posterior = {"momentum": Posterior(12, 0.1, math.nan), "breakout": Posterior(0, None, None)}
    return Snapshot(
        **decided(made),
        origin=made.origin,
        weights=made.weights,
        blends=made.blends,
        posterior=posterior,
        disabled={"broken": "ZeroDivisionError: no luck"},
    )


def decision_row_of(number: int) -> DecisionRow:
    made = decision_of(number)
    symbol = made.symbol.partition(":")[2]
    return DecisionRow(str(number), decision_ts_ms(number), symbol, made.origin, "momentum", -0.5, 0.625, 0.53, number == 4)


ALPHA_READINGS = [
    AlphaReading(
        id="obi_pressure",
        desc="the deeper side of the book is not filled",
        family="microstructure",
        group="trend",
        policies=["momentum", "breakout"],
        inputs=["obi"],
        weight_init=0.05,
        weight=0.043,
        enabled=True,
        status="ok",
        source="built in",
        ic=0.02,
        ic_t=1.5,
        half_life_s=math.nan,
        turnover=0.3,
        n=400,
    ),
    AlphaReading(
        "mine",
        "one of a plugin",
        "smile",
        "smile",
        [],
        ["rr25"],
        0.01,
        0.0,
        False,
        "division by zero",
        "mine.py",
        None,
        None,
        None,
        None,
        0,
    ),
]

ATTRIBUTION = Attribution(
    trade_id="3",
    decision_id="3",
    symbol="BTCUSDT",
    policy="momentum",
    pnl=-123_456_789,
    base=7,
    fees=-50_000_000,
    execution=-23_456_800,
    contributions=[Contribution("obi_pressure", -0.7, 0.05, -49_999_998, -(2**60)), Contribution("skew_turn", None, 0.02, 2, 0)],
    error=0.0,
)


@dataclass
class FakeHost:
    """Knows BTC, whose book is LIVE, and ETH, whose book never was; takes frames of Binance's USD-M futures.

    Five orders, fills, trades and decisions are known, of BTC those with odd ids; decision 5 takes reports of fills and its reward.
    """

    status: str = "ready"
    seq: int = 42
    durable_seq: int = 40
    reading: Microstructure | None = field(default_factory=features)
    extra_symbols: tuple[str, ...] = ()
    failure: Exception | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)
    news: NewsRing = field(default_factory=NewsRing)
    frames: list[tuple[str, str, bytes]] = field(default_factory=list)
    refusal: IngestRefused | ReportRefused | None = None
    readings: int = 0
    chains: list[tuple[str, bytes]] = field(default_factory=list)
    reports: list[FillReport] = field(default_factory=list)
    rewards: dict[str, float] = field(default_factory=dict)
    unready: bool = False

    def venues(self) -> tuple[str, ...]:
        return ("binance-spot", "binance-usdm")

    async def ingest(self, venue: str, symbol: str, lines: Iterable[bytes]) -> Ingested:
        if self.refusal is not None:
            raise self.refusal
        rejected, codec, before = [], BinanceCodec("usdm"), len(self.frames)
        for number, line in enumerate(lines, 1):
            if number % 100 == 0:
                await asyncio.sleep(0)
            if not line:
                continue
            self.frames.append((venue, symbol, line))
            try:
                codec.decode(line, symbol)
            except FrameError as error:
                rejected.append(RejectedLine(number, str(error)))
        frames = len(self.frames) - before
        self.seq = self.durable_seq = self.seq + frames
        return Ingested(
            venue, frames, frames - len(rejected), rejected[:REJECTED_LINES_MAX], len(rejected), seq=self.seq, durable_seq=self.durable_seq
        )

    def health(self) -> Health:
        return Health(
            status=self.status,
            detail=None,
            version="0.1.0",
            source="sim",
            uptime_s=1.5,
            ts_ms=1_700_000_000_123,
            digest="00" * 16,
            loop_lag_ms=0.1,
            symbols={BTC: SymbolHealth("LIVE", 7, 1.0, 9, 0, 0, 0, 0, 0, 0, 0, 0)},
            ledger=LedgerHealth(ok=True, rows=3, seq=self.seq, durable_seq=self.durable_seq, backlog=0, detail=None),
            feeds=[],
        )

    def resolve(self, text: str) -> str | None:
        known = {BTC.lower(): BTC, "btcusdt": BTC, ETH.lower(): ETH, "ethusdt": ETH}
        return known.get(text.lower())

    def symbols(self) -> list[SymbolInfo]:
        states = {BTC: "LIVE", ETH: "SYNCING", **dict.fromkeys(self.extra_symbols, "SYNCING")}
        return [
            SymbolInfo(name.partition(":")[2] or name, name.partition(":")[0], state, 0.1, 0.001, None, None, None, None, False)
            for name, state in states.items()
        ]

    def microstructure(self, symbol: str) -> Microstructure | None:
        if self.failure is not None:
            raise self.failure
        self.readings += 1
        return self.reading if symbol == BTC else None

    def book(self, symbol: str, depth: int) -> Book | None:
        self.asked.append(("book", symbol, depth))
        if symbol != BTC:
            return None
        return Book(BTC, "binance-usdm", 1_700_000_000_123, 41, 7, "LIVE", [(100.0, 1.0)] * depth, [(100.5, 2.0)] * depth)

    def history(self, kind: str, symbol: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]] | None:
        self.asked.append(("history", kind, symbol, from_ms, limit))
        columns: dict[str, dict[str, list[int] | list[float | None]]] = {
            "microstructure": {"ts_ms": [1, 2], "obi": [0.5, float("nan")]},
            "equity": {"ts_ms": [1, 2], "equity": [10_000_000_000_000, 2**60]},
        }
        return columns.get(kind)

    def vol_forecast(self, symbol: str, horizon: int, variant: str) -> VolForecast:
        self.asked.append(("vol_forecast", symbol, horizon, variant))
        if symbol != BTC:
            raise NoData("expected at least 10,110 one-minute candles, found 7")
        return volatility(symbol, horizon, variant)

    def vol_accuracy(self, symbol: str) -> VolAccuracy:
        if symbol != BTC:
            raise NoData("expected forecasts that came due, found none yet")
        score = VolScore(0.2, 0.0, math.nan, 1.0, 0.1, 0.5, None)
        scores = VolScores(60, 5, 100, 2, 90, -2.5, Blend(0.6, 0.4), {"har": score})
        return VolAccuracy(symbol, "binance-usdm", 1_700_000_040_000, "QLIKE", [scores])

    async def chain(self, symbol: str, body: bytes) -> ChainTaken:
        if self.refusal is not None:
            raise self.refusal
        self.chains.append((symbol, body))
        rejected = [RejectedRow(1, "expected an iv above zero, found -1.0")]
        return ChainTaken(symbol, "BTC", 1_700_000_000_000, 1, rejected, 1, "fraction", [TENOR], self.seq, self.durable_seq)

    def underlying(self, text: str) -> str | None:
        return self.resolve(text) or ("BTC" if text.upper() == "BTC" else None)

    def smile(self, symbol: str) -> Smile:
        if symbol not in (BTC, "BTC"):
            raise NoData("expected an option chain of ETH, found none yet: POST /api/options/chain/ETHUSDT")
        return Smile(
            symbol="BTCUSDT",
            base="BTC",
            ts_ms=1_700_000_000_000,
            age_ms=5,
            source="posted",
            delta_convention="forward",
            ref_tenor_days=7.0,
            atm_iv=0.65,
            rr25=0.06,
            fly25=0.0007,
            iv_term_slope=None,
            skew_z=math.nan,
            skew_n=3,
            tenors=[TENOR],
        )

    def simulate(self, symbol: str, request: SimulateRequest) -> Plan:
        self.asked.append(("simulate", symbol, request))
        if self.refusal is not None:
            raise self.refusal
        if symbol != BTC:
            raise NoData("expected a LIVE book, found it SYNCING")
        return plan_of(symbol, request)

    def sizing(self, symbol: str | None) -> Sizing:
        self.asked.append(("sizing", symbol))
        if symbol == ETH or self.unready:
            raise NoData("expected a decision, found none yet; the next is due within 60 s")
        return SIZING

    def orders(self, symbol: str | None, state: str | None, before: int | None, limit: int) -> Orders:
        self.asked.append(("orders", symbol, state, before, limit))
        states = {"open": {"sent", "working"}, None: set(ORDER_STATES.values())}.get(state, {state})
        following, page = page_of((one for one in ids_of(symbol) if ORDER_STATES[one] in states), before, limit)
        return Orders(following, [order_of(one) for one in page])

    def fills(self, symbol: str | None, before: int | None, limit: int) -> Fills:
        self.asked.append(("fills", symbol, before, limit))
        following, page = page_of(ids_of(symbol), before, limit)
        return Fills(following, [fill_of(one) for one in page])

    async def report_fill(self, report: FillReport) -> FillReportTaken:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        if report.decision_id != "5":
            raise UnknownDecision(f"expected a decision that is known, found {report.decision_id!r}")
        if any(one.client_fill_id == report.client_fill_id for one in self.reports):
            raise AlreadyReported(f"fill {report.client_fill_id!r} was reported before")
        self.reports.append(report)
        self.seq = self.durable_seq = self.seq + 1
        position = sum(one.size for one in self.reports)
        return FillReportTaken("5", report.client_fill_id, position, len(self.reports), self.seq, self.durable_seq)

    async def choose(self, symbol: str, context: Mapping[str, float]) -> Choice:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(("choose", symbol, dict(context)))
        if symbol != BTC:
            raise NoData("expected a LIVE book, found it SYNCING")
        self.seq = self.durable_seq = self.seq + 1
        return Choice(**decided(decision_of(6, symbol, context)), seq=self.seq, durable_seq=self.durable_seq)

    async def reward(self, decision_id: str, reward_bps: float) -> RewardTaken:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        if decision_id != "5":
            raise UnknownDecision(f"expected a decision that is known, found {decision_id!r}")
        if decision_id in self.rewards:
            raise AlreadyReported(f"the reward of {decision_id!r} was reported before")
        self.rewards[decision_id] = reward_bps
        self.seq = self.durable_seq = self.seq + 1
        return RewardTaken(decision_id, "momentum", reward_bps, 13, self.seq, self.durable_seq)

    def snapshot(self, symbol: str | None, origin: str | None) -> Snapshot:
        self.asked.append(("snapshot", symbol, origin))
        known = [] if self.unready else decisions_from(symbol, origin)
        if not known:
            raise NoData("expected a decision, found none yet: one is made every 60 s")
        return snapshot_of(known[0])

    def decisions(self, symbol: str | None, origin: str | None, before: int | None, limit: int) -> Decisions:
        self.asked.append(("decisions", symbol, origin, before, limit))
        following, page = page_of(decisions_from(symbol, origin), before, limit)
        return Decisions(following, [decision_row_of(one) for one in page])

    def decision(self, decision_id: str) -> DecisionAudit | None:
        self.asked.append(("decision", decision_id))
        return DecisionAudit("5", decision_ts_ms(5), decision_of(5), True) if decision_id == "5" else None

    def alphas(self) -> list[AlphaReading]:
        return ALPHA_READINGS

    def attribution(self, trade_id: str) -> Attribution | None:
        self.asked.append(("attribution", trade_id))
        if trade_id == "latest" and self.unready:
            raise NoData("expected a trade that has closed, found none yet")
        return ATTRIBUTION if trade_id in ("latest", "3") else None

    def plans(self, decision_id: str) -> DecisionPlans | None:
        self.asked.append(("plans", decision_id))
        if decision_id != "5":
            return None
        plan = plan_of(BTC, SimulateRequest(BTC, 0.08, "sell"))
        entry = DecisionPlan("entry", 1_700_000_000_000, -0.08, plan, COSTS)
        leave = DecisionPlan("exit", 1_700_000_300_000, 0.08, None, COSTS)
        return DecisionPlans("5", BTC, "momentum", "open", [entry, leave])

    def portfolio(self) -> Portfolio:
        if self.unready:
            raise NoData("expected the settings of a session, found none yet")
        return PORTFOLIO

    def trades(self, symbol: str | None, state: str | None, before: int | None, limit: int) -> Trades:
        self.asked.append(("trades", symbol, state, before, limit))
        following, page = page_of((one for one in ids_of(symbol) if state in (None, trade_of(one).state)), before, limit)
        return Trades(following, [trade_of(one) for one in page])

    def sequence(self) -> tuple[int, int]:
        return self.seq, self.durable_seq

    def config(self) -> dict[str, object]:
        return {"api": {"token": "***", "port": 5000}}

    def counters(self) -> dict[str, float]:
        return {"inputs_total": 42.0, "loop_lag_ms": 0.25}


def ids_of(symbol: str | None) -> list[int]:
    """Return the ids of what is known of a symbol, or of all, newest first."""
    return [one for one in range(5, 0, -1) if symbol in (None, symbol_of(one))]


def decisions_from(symbol: str | None, origin: str | None) -> list[int]:
    """Return the ids of the decisions of a symbol and an origin, or of all, newest first."""
    return [one for one in ids_of(symbol) if origin in (None, DECISION_ORIGINS[one])]


def page_of(ids: Iterable[int], before: int | None, limit: int) -> tuple[str | None, list[int]]:
    """Return the cursor of the next page and the newest ``limit`` ids below ``before``."""
    left = [one for one in ids if before is None or one < before]
    return str(left[limit - 1]) if len(left) > limit else None, left[:limit]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


async def ask(
    app: Litestar,
    method: str,
    path: str,
    *,
    query: bytes = b"",
    headers: dict[str, str] | None = None,
    chunks: tuple[bytes, ...] = (),
    client: str = "127.0.0.1",
    host: str | None = "127.0.0.1:5000",
) -> Answer:
    """Make one request; ``chunks`` are handed over one by one, as a server would."""
    fields = {**({} if host is None else {"host": host}), **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "root_path": "",
        "query_string": query,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
        "client": (client, 50_000),
        "server": ("127.0.0.1", 5000),
        "state": {},
    }
    waiting = list(chunks)
    sent: list[Any] = []
    whole = False

    async def receive() -> dict[str, Any]:
        nonlocal whole
        if whole:
            await asyncio.Event().wait()  # The client says no more, and stays.
        body = waiting.pop(0) if waiting else b""
        whole = not waiting
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)  # type: ignore[arg-type]
    start = sent[0]
    received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
    received["x-test-chunks-unread"] = str(len(waiting))
    return Answer(start["status"], received, b"".join(message.get("body", b"") for message in sent[1:]))


def get(app: Litestar, path: str, query: str = "", **options: Any) -> Answer:
    """Make one GET request."""
    return asyncio.run(ask(app, "GET", path, query=query.encode("latin-1"), **options))


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body of the write route that tests add."""

    size: float
    note: str = ""


@post("/api/orders", status_code=200)
async def orders(data: JSONBody[Order]) -> Order:
    return data


def app_with_orders(settings: ApiSettings | None = None, host: FakeHost | None = None, **options: Any) -> Litestar:
    """Return an application that got a write route after it was made, as a route that forgets every guard would."""
    app = create_app(host or FakeHost(), settings or ApiSettings(), **options)
    app.register(orders)
    return app


def write(app: Litestar, body: bytes = b'{"size": 1.5}', *, headers: dict[str, str] | None = None, **options: Any) -> Answer:
    """Make one POST of JSON to the added route."""
    fields = {"content-type": "application/json", **(headers or {})}
    return asyncio.run(ask(app, options.pop("method", "POST"), "/api/orders", headers=fields, chunks=(body,), **options))


def serve(settings: ApiSettings, talk: Callable[[int], Awaitable[None]], app: Litestar | None = None) -> None:
    """Run a real server on a free loopback port while ``talk`` speaks to it."""

    async def main() -> None:
        server = Server(settings)
        serving = asyncio.create_task(server.serve(app or app_with_orders(settings)))
        try:
            async with asyncio.timeout(20):
                await talk(server.port)
        finally:
            server.stop()
            await serving

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
