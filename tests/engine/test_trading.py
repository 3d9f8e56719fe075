"""Trading end to end, over a simulated and a recorded market: the money adds up after every input, and every fill has its evidence."""

import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import msgspec
import pytest

from alphapack import app
from alphapack.domain.events import (
    BookStateChanged,
    Crossed,
    DecisionMade,
    Filled,
    FundingPaid,
    InstrumentChanged,
    OrderChanged,
    Record,
    Sized,
    TradeClosed,
)
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Frame, Halt, InstrumentSettings, OutsideFill, SessionStart, Shed
from alphapack.domain.market import BookState, Step, symbol_id
from alphapack.domain.simulation import SimulatorSettings
from alphapack.domain.trading import ExecutionSettings, Queue, RouterSettings
from alphapack.domain.trading_readings import FillReport
from alphapack.engine import answers
from alphapack.engine.engine import Engine
from alphapack.engine.known import Known
from alphapack.engine.ports import Busy, Invalid
from alphapack.models.sleeves import HOUSE
from alphapack.models.volatility import MINUTES_MIN
from alphapack.services.outside import OUTSIDE_FILLS_MAX
from alphapack.shell import candle_files, captures
from alphapack.shell.clock import SetClock
from alphapack.shell.offloop import steps
from alphapack.shell.runner import Runner
from alphapack.shell.simulated import SimulatedMarket

S = 1_000_000_000
END_NS = 1_795_000_000 * S
BTC = "binance-usdm:BTCUSDT"
CAPTURE, CANDLES = "binance-usdm_BTCUSDT_20240808T2354.raw.gz", "binance_BTCUSDT_1m_20220615-20220719.csv.gz"
LINES = 45_000
CENT = Decimal("1e-8")
PRINTS = ("printed", "through")
FILLS_AT_ONCE_MAX = 50
CHEAP = tuple(InstrumentSettings(f"sim:{name}", maker_fee_bps=0.0, taker_fee_bps=0.2) for name in ("BTCUSDT", "ETHUSDT"))
"""What costs as much as it may earn is hardly ever traded."""
SIMULATED = {
    7: (CoreSettings(router=RouterSettings(interval_s=30, floor=0.05), instruments=CHEAP), 840),
    11: (
        CoreSettings(
            router=RouterSettings(interval_s=15, horizon_s=60, floor=0.05),
            execution=ExecutionSettings(capital=2_000_000.0),
            instruments=CHEAP,
        ),
        420,
    ),
}
"""Of a seed of the market: the settings, and its seconds."""
Said = TypeVar("Said", bound=Record)


class Run(NamedTuple):
    """Inputs and what each caused, and the engine after them."""

    entries: list[AnyInput]
    records: list[list[Record]]
    engine: Engine

    def said(self, kind: type[Said]) -> list[Said]:
        return [one for caused in self.records for one in caused if isinstance(one, kind)]


class Bookkeeper:
    """Holds the portfolio after every input against the sums of what was said."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.lots: Counter[str] = Counter()
        self.cash: Counter[str] = Counter()
        self.steps: dict[str, Fraction] = {}

    def note(self, records: Iterable[Record]) -> None:
        for one in records:
            if isinstance(one, Filled):
                side = 1 if one.side == "buy" else -1
                self.lots[one.symbol] += side * one.lots
                self.cash[one.symbol] += one.fee + one.impact - side * one.value
            elif isinstance(one, FundingPaid):
                self.cash[one.symbol] += one.paid
            elif isinstance(one, InstrumentChanged):
                lot = Step.parse(one.lot).size
                finer = self.steps.get(one.symbol, lot) / lot
                assert finer.denominator == 1
                self.lots[one.symbol] *= finer.numerator
        portfolio = self.engine.execution.portfolio
        if portfolio is not None:
            portfolio.check()
            for symbol, account in portfolio.accounts.items():
                assert (account.position_lots, account.cash) == (self.lots[symbol], self.cash[symbol])
                self.steps[symbol] = account.sleeves.lot.size


@cache
def simulated(seed: int) -> Run:
    """A market of two symbols that was made at once, and traded."""
    return asyncio.run(make(seed))


async def make(seed: int) -> Run:
    core, seconds = SIMULATED[seed]
    runner = Runner(app.build(), source="test", config=dict)
    run = Run([], [], runner.engine)
    step, keeper = run.engine.step, Bookkeeper(run.engine)

    def witnessed(entry: AnyInput) -> list[Record]:
        caused = step(entry)
        run.entries.append(entry)
        run.records.append(caused)
        keeper.note(caused)
        return caused

    run.engine.step = witnessed  # type: ignore[method-assign]
    market = SimulatedMarket(
        SimulatorSettings(seed=seed, symbols=("BTCUSDT", "ETHUSDT")),
        core,
        SetClock(END_NS),
        app.WORKS,
        app.WORK_DELAY_NS,
        past_ns=seconds * S,
        history_minutes=MINUTES_MIN + 60,
    )
    await market.make(runner)
    return run


@cache
def recorded(folder: Path, queue: Queue) -> Run:
    """The recorded market, with candles of another time before it, decided on so often that something happens."""
    core = CoreSettings(
        router=RouterSettings(interval_s=10, horizon_s=40, floor=0.05),
        execution=ExecutionSettings(queue=queue),
        instruments=(InstrumentSettings(BTC, maker_fee_bps=0.0, taker_fee_bps=0.2),),
    )
    complaints: list[object] = []
    capture = captures.Capture([folder / "captures" / CAPTURE], report=complaints.append)
    (past,) = candle_files.load([f"{BTC}={folder / 'candles' / CANDLES}"], [BTC])
    shifted = past.shifted((capture.start_ns() or 0) // 1_000_000)
    pages = shifted._replace(rows=shifted.rows[-MINUTES_MIN - 60 :]).pages()
    run = Run([], [], app.build())
    keeper = Bookkeeper(run.engine)
    lines = itertools.islice(captures.inputs(capture, core, history=list(pages)), LINES)
    for entry, caused in steps(run.engine, lines, app.WORKS, app.WORK_DELAY_NS):
        run.entries.append(entry)
        run.records.append(caused)
        keeper.note(caused)
    assert complaints == []
    return run


def again(run: Run, until: int | None = None, **execution: Any) -> Run:
    """Step the inputs of a run once more, under other settings of execution where some are given."""
    engine = app.build()
    entries = [changed(one, **execution) for one in run.entries[:until]] if execution else run.entries[:until]
    return Run(entries, [engine.step(entry) for entry in entries], engine)


def changed(entry: AnyInput, **execution: Any) -> AnyInput:
    if not isinstance(entry, Configure):
        return entry
    settings = msgspec.structs.replace(entry.settings, execution=msgspec.structs.replace(entry.settings.execution, **execution))
    return msgspec.structs.replace(entry, settings=settings)


# Evidence


class Shown:
    """One symbol's market in ticks and lots, read from its frames by nothing but the venue's rules, and what was taken of it."""

    def __init__(self, tick: float, lot: float) -> None:
        self.tick, self.lot = tick, lot
        self.sides: dict[int, dict[int, int]] = {1: {}, -1: {}}
        """Bids by 1, asks by -1: lots by price."""
        self.taken: dict[tuple[int, int], int] = {}
        self.waiting: list[dict[str, Any]] = []
        self.is_known = False
        self.prints: list[tuple[int, int, int]] = []
        """Trades of this instant: the side that was hit, price, lots."""

    def apply(self, said: dict[str, Any]) -> None:
        if "lastUpdateId" in said and not self.is_known:
            self.is_known = True
            self._fold(said["bids"], said["asks"])
            for one in self.waiting:
                if one["u"] > said["lastUpdateId"]:
                    self._fold(one["b"], one["a"])
        elif said.get("e") == "depthUpdate" and self.is_known:
            self._fold(said["b"], said["a"])
        elif said.get("e") == "depthUpdate":
            self.waiting.append(said)
        elif said.get("e") == "trade":
            self.prints.append((1 if said["m"] else -1, round(float(said["p"]) / self.tick), round(float(said["q"]) / self.lot)))

    def _fold(self, bids: list[list[str]], asks: list[list[str]]) -> None:
        for side, levels in ((1, bids), (-1, asks)):
            for price, quantity in levels:
                ticks, lots = round(float(price) / self.tick), round(float(quantity) / self.lot)
                if lots:
                    self.sides[side][ticks] = lots
                else:
                    self.sides[side].pop(ticks, None)
        self.taken = {at: min(lots, self.sides[at[0]].get(at[1], 0)) for at, lots in self.taken.items()}

    def left(self, side: int, ticks: int) -> int:
        return self.sides[side].get(ticks, 0) - self.taken.get((side, ticks), 0)

    def take(self, side: int, ticks: int, fill: Filled) -> None:
        """Fill from a displayed level: at most what is there and not ours already, and whatever is better was ours before."""
        assert fill.lots <= fill.available_lots <= self.left(side, ticks), (fill, self.left(side, ticks))
        assert all((side, better) in self.taken for better in self.sides[side] if side * better > side * ticks), fill
        self.taken[side, ticks] = self.taken.get((side, ticks), 0) + fill.lots

    def cross(self, fill: Filled) -> bool:
        """Fill a resting order from quotes of the other side that came to its price; False where they did not yet."""
        other = -1 if fill.side == "buy" else 1
        reached = [one for one in self.sides[other] if other * one >= other * fill.ticks and self.left(other, one) >= fill.available_lots]
        if reached:
            self.take(other, max(reached, key=lambda one: other * one), fill)
        return bool(reached)


def check_evidence(run: Run) -> Counter[str]:
    """Hold every fill against the frames, which are read here again; returns how many there are of each cause."""
    assert all(one.after is BookState.LIVE for one in run.said(BookStateChanged)), "expected books that stay proven"
    causes: Counter[str] = Counter()
    limits = {one.order: one for one in run.said(OrderChanged) if one.state == "sent"}
    said: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for entry in run.entries:
        if isinstance(entry, Frame):
            body = json.loads(entry.payload)
            body = body.get("data", body) if isinstance(body, dict) else {}
            said[symbol_id(entry.venue, body.get("s") or body.get("symbol") or entry.symbol)].append((entry.ts_ns, body))
    for fill in run.said(Filled):
        causes[fill.cause] += 1
        sent = limits[fill.order]
        assert fill.maker is (sent.type != "immediate") is (fill.cause != "swept") and 0 < fill.lots <= fill.available_lots
        assert fill.maker or (sent.ticks - fill.ticks) * (1 if fill.side == "buy" else -1) >= 0, "no worse than its limit"
    for symbol in {fill.symbol for fill in run.said(Filled)}:
        fills = sorted((fill for fill in run.said(Filled) if fill.symbol == symbol), key=lambda fill: fill.fill)
        assert fills == sorted(fills, key=lambda fill: fill.exchange_ns)
        terms = run.engine.known.terms(symbol)
        assert terms is not None
        market = Shown(float(terms.tick.size), float(terms.lot.size))
        for ts_ns, frames in itertools.groupby(said[symbol], key=lambda one: one[0]):
            while fills and not fills[0].maker and fills[0].exchange_ns <= ts_ns:  # Timers fire before an input of their time.
                fill = fills.pop(0)
                market.take(-1 if fill.side == "buy" else 1, fill.ticks, fill)
            market.prints = []
            now = [fill for fill in fills[:FILLS_AT_ONCE_MAX] if fill.exchange_ns == ts_ns]
            crossed = [fill for fill in now if fill.cause == "crossed"]
            for _, body in frames:
                market.apply(body)
                while crossed and market.cross(crossed[0]):
                    fills.remove(crossed.pop(0))
            printed = [fill for fill in now if fill.cause in PRINTS]
            for fill in printed:
                side = 1 if fill.side == "buy" else -1
                evidence = sum(lots for hit, at, lots in market.prints if hit == side and side * at <= side * fill.ticks)
                told = sum(one.lots for one in printed if one.side == fill.side and side * one.ticks >= side * fill.ticks)
                assert told <= evidence, (fill, market.prints)
                fills.remove(fill)
            assert not fills or fills[0].exchange_ns > ts_ns, fills[0]
        assert not fills, "every fill found its place among the frames"
    return causes


def check_money(run: Run) -> None:
    """Value and fee of every fill by decimals, and orders that add up."""
    filled: Counter[int] = Counter()
    settings = run.engine.settings.execution
    for fill in run.said(Filled):
        terms = run.engine.known.terms(fill.symbol)
        assert terms is not None
        tick, lot = Decimal(str(terms.tick)), Decimal(str(terms.lot))
        value = (fill.ticks * tick * fill.lots * lot).quantize(CENT, ROUND_HALF_EVEN)
        bps = terms.maker_fee_bps if fill.maker else terms.taker_fee_bps
        assert fill.value == int(value / CENT)
        assert fill.fee == int((-value * Decimal(str(bps)) / 10_000).quantize(CENT, ROUND_HALF_EVEN) / CENT)
        assert -fill.value <= fill.impact <= 0
        filled[fill.order] += fill.lots
    last = {one.order: one for one in run.said(OrderChanged)}
    assert set(filled) <= set(last)
    assert all(one.filled_lots == filled[order] <= one.lots for order, one in last.items() if one.state not in ("sent", "working"))
    for one in run.said(Crossed):
        assert sum(one.lots.values()) == 0 and min(one.lots.values()) < 0 < max(one.lots.values())
    portfolio = run.engine.execution.portfolio
    assert portfolio is not None and portfolio.capital == round(settings.capital * 10**8)
    for symbol, account in portfolio.accounts.items():
        closed = sum(one.pnl for one in run.said(TradeClosed) if one.symbol == symbol)
        still = sum(one.cash for one in account.sleeves.by_decision.values())
        assert closed + still == account.cash
        late_ns = run.engine.now_ns - (run.engine.settings.router.horizon_s + 60) * S
        assert all(one.opened_ns > late_ns for one in account.sleeves.by_decision.values() if one.decision != HOUSE)


def check_course(run: Run, cut: int) -> None:
    """A replay, saved and loaded at an input of it, is the same course of events."""
    head = again(run, cut)
    assert head.records == run.records[:cut]
    tail = app.build()
    tail.load(head.engine.save())
    assert [tail.step(entry) for entry in run.entries[cut:]] == run.records[cut:]
    assert tail.hexdigest() == run.engine.hexdigest() and tail.save() == run.engine.save()


def check_queues(run: Run, other: Run) -> None:
    """Under another belief of the queue the same is decided and traded until the fills differ; then rewards do."""
    fills = list(zip(run.said(Filled), other.said(Filled), strict=False))
    common = next((i for i, (one, two) in enumerate(fills) if one != two), len(fills))
    differs_ns = min((one.exchange_ns for run in (run, other) for one in run.said(Filled)[common : common + 1]), default=1 << 63)

    def before(run: Run, kind: type[Said]) -> list[Said]:
        stepped = zip(run.entries, run.records, strict=True)
        return [one for entry, caused in stepped if entry.ts_ns < differs_ns for one in caused if isinstance(one, kind)]

    assert before(run, DecisionMade)
    for kind in (DecisionMade, Sized, OrderChanged, Filled, Crossed, TradeClosed):
        assert before(run, kind) == before(other, kind)


def sums(run: Run) -> Counter[str]:
    return Counter(type(one).__name__ for caused in run.records for one in caused)


# Over the simulator


@pytest.mark.parametrize("seed", SIMULATED)
def test_execution_planner_a_simulated_market_is_traded_and_every_unit_and_fill_accounted_for(seed: int) -> None:
    run = simulated(seed)
    said = sums(run)
    assert min(said[name] for name in ("Filled", "TradeClosed", "Crossed", "Planned")) > 0 and said["Filled"] > 30, said
    check_money(run)
    causes = check_evidence(run)
    assert causes["swept"] > 10 and causes["printed"] + causes["through"] + causes["crossed"] > 0, causes


@pytest.mark.parametrize("seed", SIMULATED)
def test_execution_planner_trading_replays_and_goes_on_from_a_checkpoint_at_any_input(seed: int) -> None:
    run = simulated(seed)
    first = next(i for i, caused in enumerate(run.records) if any(isinstance(one, Filled) for one in caused))
    check_course(run, random.Random(seed).randrange(first, len(run.entries)))


def test_execution_planner_beliefs_of_the_queue_change_nothing_before_they_change_a_fill() -> None:
    run = simulated(11)
    other = again(run, queue="optimistic")
    check_queues(run, other)
    check_money(other)
    check_evidence(other)


def test_execution_planner_hash_seeds_change_no_trade() -> None:
    code = "import test_trading; print(test_trading.simulated(11).engine.hexdigest())"
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(app.__file__).parent.parent)])
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split()[-1] == simulated(11).engine.hexdigest()


def disturbed(run: Run, seed: int) -> list[AnyInput]:
    """The inputs of a run with sessions, lost frames, halts, other latencies, finer lots and outside fills in between."""
    chance = random.Random(seed)
    begin = next(i for i, caused in enumerate(run.records) if any(isinstance(one, Sized) for one in caused))
    found: list[AnyInput] = list(run.entries[:begin])
    settings, mids = run.engine.settings, {one.decision: one.features["mid"] for one in run.said(DecisionMade)}
    for at, entry in enumerate(run.entries[begin:], begin):
        what, ts_ns = chance.random(), entry.ts_ns
        if what < 2e-4:
            found.append(SessionStart(0, ts_ns, "again"))
        elif what < 3e-4 and at > 0.8 * len(run.entries):
            found.append(Shed(0, ts_ns, "sim:ETHUSDT", 3))
        elif what < 5e-4:
            found.append(Halt(0, ts_ns, chance.random() < 0.3))
        elif what < 8e-4:
            slow = {f"{name}_latency_ms": chance.choice((0.0, 3.0, 400.0, 5_000.0)) for name in ("feed", "order", "ack")}
            execution = msgspec.structs.replace(settings.execution, **slow, queue=chance.choice(("optimistic", "risk_averse")))
            found.append(Configure(0, ts_ns, msgspec.structs.replace(settings, execution=execution)))
        elif what < 30e-4:
            decision = chance.randrange(30)
            price = mids.get(decision, 100.0) * chance.choice((0.999, 1.0, 1.001, 1.6))
            found.append(OutsideFill(0, ts_ns, decision, f"f{chance.randrange(9)}", price, 0.5, -0.01, ts_ns // 1_000_000))
        if isinstance(entry, Frame) and b'"e":"trade"' in entry.payload and chance.random() < 1e-3:
            before, quantity, after = entry.payload.partition(b'"q":"')
            digits, quote, rest = after.partition(b'"')
            entry = msgspec.structs.replace(entry, payload=before + quantity + digits + b"01" + quote + rest)
        found.append(entry)
    return [msgspec.structs.replace(entry, seq=seq) for seq, entry in enumerate(found, 1)]


@pytest.mark.parametrize("seed", range(2))
def test_execution_planner_whatever_happens_every_unit_is_accounted_for_and_a_restart_changes_nothing(seed: int) -> None:
    run = simulated(11)
    entries = disturbed(run, seed)
    engine = app.build()
    keeper = Bookkeeper(engine)
    cut = random.Random(seed).randrange(len(entries) // 2, len(entries))
    state, restarted = b"", app.build()
    records: list[list[Record]] = []
    for at, entry in enumerate(entries):
        if at == cut:
            state = engine.save()
        records.append(engine.step(entry))
        keeper.note(records[-1])
    said = sums(Run(entries, records, engine))
    assert min(said[name] for name in ("Filled", "TradeClosed", "InstrumentChanged", "TradingHalted", "OutsideFilled")) > 0, said
    assert said["SessionStarted"] > 1, said
    restarted.load(state)
    assert [restarted.step(entry) for entry in entries[cut:]] == records[cut:]
    assert restarted.hexdigest() == engine.hexdigest()


@pytest.mark.parametrize(("har", "garch", "is_known"), [(1e-6, 2e-6, True), (1e-20, 1e-6, False), (1e-6, 0.0, False), (1e-6, 101.0, False)])
def test_execution_planner_a_forecast_that_nothing_can_be_sized_by_is_none(har: float, garch: float, is_known: bool) -> None:
    class FakeVolatility:
        def forecast_vol(self, symbol: str, horizon: int) -> Any:
            return SimpleNamespace(har=har, garch=garch)

        def har_weight(self, symbol: str, horizon: int) -> float:
            return 0.5

    engine = app.build()
    volatility: Any = FakeVolatility()
    known = Known(
        engine, engine.microstructure, engine.candles, volatility, engine.impacts, frozenset(), lambda: "USDT", lambda symbol, side: True
    )
    assert (known.forecast(BTC, 5) is not None) is is_known


# What is asked, and what is said from outside


def test_execution_planner_symbols_that_take_orders_are_counted_while_their_books_are_not_proven() -> None:
    run = simulated(11)
    live = next(
        i for i in range(1, len(run.entries)) if isinstance(run.entries[i], Frame) and run.entries[i].ts_ns > run.entries[0].ts_ns + S
    )
    engine = again(run, live + 2_000).engine
    every = ["sim:BTCUSDT", "sim:ETHUSDT"]
    assert engine.known.tradable() == engine.known.taking_orders() == every
    engine.step(Shed(engine.seq + 1, engine.now_ns, "sim:ETHUSDT", 3))
    assert (engine.known.tradable(), engine.known.taking_orders()) == (every[:1], every)


def test_execution_planner_a_changed_currency_changes_nothing_and_another_first_one_takes_no_orders() -> None:
    run = simulated(11)
    first = next(i for i, caused in enumerate(run.records) if any(isinstance(one, Filled) for one in caused))
    engine = app.build()
    engine.load(again(run, first + 1).engine.save())
    settings = engine.settings
    changed_settings = msgspec.structs.replace(settings, execution=msgspec.structs.replace(settings.execution, settlement="USDC"))
    engine.step(Configure(engine.seq + 1, engine.now_ns, changed_settings))
    restarted = app.build()
    restarted.load(engine.save())
    for one in (engine, restarted):
        terms = one.known.terms("sim:BTCUSDT")
        assert terms is not None and terms.refusal == "" and answers.portfolio(one).settlement == "USDT"
    tail = [msgspec.structs.replace(entry, seq=entry.seq + 1) for entry in run.entries[first + 1 : first + 12_000]]
    found = Run(tail, [restarted.step(entry) for entry in tail], restarted)
    plain = Run(tail, run.records[first + 1 : first + 12_000], run.engine)
    assert found.said(Filled) == plain.said(Filled) != [] and found.said(TradeClosed) == plain.said(TradeClosed) != []
    other = again(run, first + 1, settlement="USDC")
    terms = other.engine.known.terms("sim:BTCUSDT")
    assert terms is not None and terms.refusal == "it settles in USDT, the portfolio in USDC"
    assert other.said(Filled) == [] and "the portfolio in USDC" in str(answers.portfolio(other.engine).not_trading)


def decimal(steps: int, step: Step) -> float:
    return float(Decimal(steps) * Decimal(str(step)))


@pytest.mark.parametrize("seed", SIMULATED)
def test_execution_planner_what_is_answered_is_exact_and_adds_up(seed: int) -> None:
    engine = simulated(seed).engine
    terms = {symbol: engine.known.terms(symbol) for symbol in engine.known.taking_orders()}
    orders = {str(one.id): one for one in engine.exchange.orders()}
    for order in answers.orders(engine, None, None, None, 10**6).orders:
        kept = orders[order.id]
        known = terms[kept.symbol]
        assert known is not None
        assert (order.price, order.size) == (decimal(kept.ticks, known.tick), decimal(kept.lots, known.lot))
        assert order.filled == decimal(kept.filled_lots, known.lot)
        assert order.decisions == {str(decision): decimal(lots, known.lot) for decision, lots in kept.shares.items()}
    fills = {str(one.id): one for one in engine.exchange.fills()}
    for fill in answers.fills(engine, None, None, 10**6).fills:
        met = fills[fill.id]
        known = terms[met.symbol]
        assert known is not None and (fill.price, fill.size) == (decimal(met.ticks, known.tick), decimal(met.lots, known.lot))
    for deal, _ in engine.execution.deals():
        told, known = answers.plans(engine, deal.decision.id), terms[deal.decision.symbol]
        assert told is not None and known is not None
        for leg, plan in zip(deal.legs, told.plans, strict=True):
            assert plan.size == decimal(leg.side * leg.lots, known.lot)
            if leg.plan is not None and plan.plan is not None:
                assert plan.plan.size == decimal(leg.plan.lots, known.lot)
                assert [one.size for one in plan.plan.slices] == [decimal(one.lots, known.lot) for one in leg.plan.slices]
    whole = answers.portfolio(engine)
    assert whole.not_trading is None
    for position in whole.positions:
        account = engine.execution.account(f"sim:{position.symbol}")
        assert account is not None and position.house_pnl is not None and position.unrealised is not None and position.value is not None
        still = sum(one.cash + account.value(one.lots) for one in account.sleeves.by_decision.values() if one.decision != HOUSE)
        total = position.cash + position.value
        assert total == position.realised + position.unrealised
        assert abs(position.house_pnl + position.closed_pnl + still - total) <= len(account.sleeves.by_decision), "each value is rounded"
        assert position.closed_pnl == sum(one.pnl for one in simulated(seed).said(TradeClosed) if one.symbol == account.symbol)


def test_execution_planner_why_nothing_is_traded_is_told() -> None:
    run = simulated(11)
    engine = app.build()
    engine.load(run.engine.save())
    assert answers.portfolio(engine).not_trading is None
    engine.step(Halt(engine.seq + 1, engine.now_ns, True))
    assert "expected a disk that keeps what is decided" in str(answers.portfolio(engine).not_trading)
    engine.step(Halt(engine.seq + 1, engine.now_ns, False))
    off = msgspec.structs.replace(engine.settings, execution=msgspec.structs.replace(engine.settings.execution, trade=False))
    engine.step(Configure(engine.seq + 1, engine.now_ns, off))
    assert "set execution.trade" in str(answers.portfolio(engine).not_trading)


async def refused(settled: Engine, decisions: list[DecisionMade], monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(app.build(), source="test", config=dict)
    runner.engine.load(settled.save())
    monkeypatch.setattr(runner, "_admit", lambda what: None)
    outside, now_ns = runner.engine.outside, runner.engine.now_ns
    mid = decisions[0].features["mid"]

    async def report(decision: DecisionMade, **said: Any) -> None:
        usual = {"price": decision.features["mid"], "size": 0.5, "fee": -0.01, "ts_ms": now_ns // 1_000_000, "client_fill_id": "new"}
        await runner.report_fill(FillReport(decision_id=str(decision.decision), **{**usual, **said}))

    for said in ({"price": 1.51 * mid}, {"price": 0.49 * mid}, {"size": -2e12}, {"fee": 2e12}, {"ts_ms": 0}):
        with pytest.raises(Invalid, match="expected a fill of the decision: a price within half of its mid"):
            await report(decisions[0], **said)
    for n in range(OUTSIDE_FILLS_MAX):
        outside.on_fill(OutsideFill(0, now_ns, decisions[0].decision, f"f{n}", mid, 0.5, -0.01, now_ns // 1_000_000))
    with pytest.raises(Invalid, match="expected at most 100 fills of a decision"):
        await report(decisions[0])
    monkeypatch.setattr("alphapack.shell.runner.OUTSIDE_FILLS_IN_ALL", outside.fills())
    with pytest.raises(Busy, match="reported fills of the decisions that are kept"):
        await report(decisions[1])


def test_execution_planner_fills_from_outside_are_refused_beyond_belief_and_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    run = simulated(11)
    asyncio.run(refused(run.engine, run.said(DecisionMade)[-2:], monkeypatch))


# Over a recorded market


@pytest.mark.parametrize("queue", ["risk_averse", "optimistic"])
def test_execution_planner_a_recorded_market_is_traded_and_every_unit_and_fill_accounted_for(data: Path, queue: Queue) -> None:
    run = recorded(data, queue)
    said = sums(run)
    assert said["Filled"] > 5 and said["TradeClosed"] > 2, said
    check_money(run)
    assert check_evidence(run)["swept"] > 3


def test_execution_planner_a_recorded_market_replays_from_a_checkpoint_and_beliefs_change_no_decision(data: Path) -> None:
    run, other = recorded(data, "risk_averse"), recorded(data, "optimistic")
    check_queues(run, other)
    first = next(i for i, caused in enumerate(run.records) if any(isinstance(one, OrderChanged) for one in caused))
    check_course(run, random.Random(1).randrange(first, len(run.entries)))
