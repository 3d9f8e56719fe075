"""What paper orders cost: a message with orders resting at it, an order's arrival, and a step of the engine that trades.

Orders rest at the best prices of the USD-M capture and behind them, and are laid anew every ``RENEW`` messages. The quotes of
``fills`` then go through the whole engine, and through hftbacktest, which keeps two books and computes no features.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import fills
from peers import clock, real
from report import Row, median, quantile

from alphapack import app
from alphapack.domain.events import Filled, OrderChanged, Record
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings
from alphapack.domain.simulation import SimulatorSettings
from alphapack.domain.trading import ExecutionSettings
from alphapack.models import book, matching
from alphapack.models.book import FeatureBook
from alphapack.models.matching import PaperBook, Refused
from alphapack.models.volatility import MINUTES_MIN
from alphapack.shell.clock import SetClock
from alphapack.shell.runner import Runner
from alphapack.shell.simulated import SimulatedMarket

RUNS = 5
RESTING = (1, 4, 16)
LOTS = 1_000
RENEW = 200
PAST_S, END_NS = 600, 1_795_000_000 * fills.S
ns = time.perf_counter_ns


class Laid:
    """So many resting orders, with the times of what is done to them."""

    def __init__(self, orders: int) -> None:
        self.orders, self.paper = orders, PaperBook()
        self.ids = itertools.count(1)
        self.messages: list[int] = []
        self.placed: list[int] = []

    def renew(self, market: FeatureBook, ts_ns: int) -> None:
        """Lay them anew: bids and asks in turn, each pair a tick behind the last."""
        for order in self.paper.orders:
            self.paper.cancel(order)
        best = market.best()
        for i in range(self.orders):
            price = best[i % 2]
            assert price is not None, "the capture's book has two sides"
            key = price - i // 2 if i % 2 == 0 else -(price + i // 2)
            start = ns()
            try:
                self.paper.place(market, ts_ns, next(self.ids), key, LOTS, post_only=True)
            except Refused:
                continue
            self.placed.append(ns() - start)

    def on_message(self, market: FeatureBook, ts_ns: int) -> None:
        if len(self.paper) == self.orders:
            start = ns()
            self.paper.on_message(market, ts_ns)
            self.messages.append(ns() - start)
        else:
            self.paper.on_message(market, ts_ns)


def us(taken: Sequence[int]) -> str:
    return f"{median(taken) / 1e3:.2f} us (p99 {quantile(taken, 0.99) / 1e3:.1f})"


def of_a_message() -> list[Row]:
    """Return what a message costs with orders resting, each of them counted while all are there, and what an arrival costs."""
    engine, laid, steps = app.build(), [Laid(orders) for orders in RESTING], []
    from_ns = int(real().stamps_ns[0]) + fills.BEGIN_NS
    for entry in fills.inputs([], "risk_averse"):
        start = ns()
        engine.step(entry)
        steps.append(ns() - start)
        if entry.ts_ns >= from_ns:
            market = fills.market_of(engine)
            for one in laid:
                if entry.seq % RENEW == 0:
                    one.renew(market, entry.ts_ns)
                else:
                    one.on_message(market, entry.ts_ns)
    rows = [Row("matching", "Engine.step of the same messages, without orders", us(steps), "-", None)]
    for one in laid:
        share = f"{median(one.messages) / median(steps):.2f} of a step"
        rows.append(Row("matching", f"PaperBook.on_message, {one.orders} resting", us(one.messages), "-", None, "", share))
    rows += [Row("matching", f"PaperBook.place, post-only, up to {one.orders} resting", us(one.placed), "-", None) for one in laid]
    return rows


def of_the_capture() -> list[Row]:
    """Return what the engine and hftbacktest take for the capture, without orders and with the smaller quotes."""
    quotes = next(iter(fills.orders().values()))
    nothing, with_orders = fills.inputs([], "risk_averse"), fills.inputs(quotes, "risk_averse")
    sides: dict[str, Callable[[], float]] = {"none": lambda: stepped(nothing, []), "quotes": lambda: stepped(with_orders, quotes)}
    if not fills.HFTBACKTEST.missing():
        events = fills.at_receipt()
        fills.hftbacktest(quotes, "risk_averse", fills.PARTS, events)  # Compiled before it is timed.
        sides["peer, none"] = lambda: backtested(quotes[:1], events)
        sides["peer, quotes"] = lambda: backtested(quotes, events)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _, (name, side) in itertools.product(range(RUNS), sides.items()):
        taken[name].append(side())
    cost = {name: 1e6 * median(found) / len(real().frames) for name, found in taken.items()}
    rows = []
    for what, ours, theirs in (("no orders", "none", "peer, none"), (f"{len(quotes)} quotes", "quotes", "peer, quotes")):
        peer = f"{cost[theirs]:.2f} us ({fills.HFTBACKTEST.label()})" if theirs in cost else "not installed"
        ratio = f"{cost[theirs] / cost[ours]:.3f}x" if theirs in cost else ""
        rows.append(Row("matching", f"a message of the capture, {what}: the whole engine", f"{cost[ours]:.2f} us", "-", None, peer, ratio))
    return rows


def stepped(entries: Sequence[AnyInput], asked: Sequence[fills.Asked]) -> float:
    """Return the seconds of an engine for its inputs, the orders sent at their heartbeats."""
    engine = app.build()
    engine.exchange.listener = None
    due = fills.schedule(asked)
    start = clock()
    for entry in entries:
        engine.step(entry)
        for send in due.get(entry.ts_ns, ()):
            send(engine.exchange)
    return clock() - start


def backtested(asked: Sequence[fills.Asked], events: object) -> float:
    """Return the seconds of hftbacktest, without those for its set-up."""
    drive, backtest, arrays = fills.prepared(asked, "risk_averse", fills.PARTS, events)
    start = clock()
    drive(backtest, *arrays)
    seconds = clock() - start
    backtest.close()
    return seconds


def of_trading() -> list[Row]:
    """Return the rate of the engine on the simulated market with trading and without, in turn."""
    entries = asyncio.run(simulated())
    taken: dict[bool, list[float]] = {True: [], False: []}
    said: list[Record] = []
    for _, trade in itertools.product(range(RUNS), taken):
        engine, said = app.build(), said if not trade else []
        start = clock()
        for entry in entries:
            if isinstance(entry, Configure):
                entry = Configure(entry.seq, entry.ts_ns, CoreSettings(execution=ExecutionSettings(trade=trade)))
            records = engine.step(entry)
            if trade:
                said += records
        taken[trade].append(clock() - start)
    orders = len({one.order for one in said if isinstance(one, OrderChanged)})
    fills_n = sum(isinstance(one, Filled) for one in said)
    rates = {trade: len(entries) / median(found) for trade, found in taken.items()}
    what = f"{len(entries):,} inputs of a simulated market, {PAST_S} s, 2 symbols, {orders} orders, {fills_n} fills"
    return [
        Row("matching", f"Engine.step: {what}", f"{rates[True]:,.0f} /s", "-", None),
        Row("matching", "  the same without trading", f"{rates[False]:,.0f} /s", "-", None, "", f"{rates[True] / rates[False]:.3f}"),
    ]


async def simulated() -> list[AnyInput]:
    """Return the inputs of a simulated market that is made at once, with candles enough for forecasts."""
    runner, entries = Runner(app.build(), source="bench", config=dict), list[AnyInput]()
    step = runner.engine.step

    def kept(entry: AnyInput) -> list[Record]:
        entries.append(entry)
        return step(entry)

    runner.engine.step = kept  # type: ignore[method-assign]
    settings = SimulatorSettings(seed=7, symbols=("BTCUSDT", "ETHUSDT"))
    minutes = MINUTES_MIN + 60
    market = SimulatedMarket(
        settings, CoreSettings(), SetClock(END_NS), app.WORKS, app.WORK_DELAY_NS, past_ns=PAST_S * fills.S, history_minutes=minutes
    )
    await market.make(runner)
    return entries


def run() -> list[Row]:
    book.warm()
    matching.warm()
    return [*of_a_message(), *of_the_capture(), *of_trading()]
