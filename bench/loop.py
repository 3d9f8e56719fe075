"""P3: the whole engine over the USD-M capture: journal, step, features, a decision every 100 ms, paper orders, ledger.

Depth and trades of the capture, with candles of another time before them as its past, and advice asked for every 100 ms of the capture's
time: each piece of it is a whole decision, journaled and in the ledger. The router itself trades on paper every ten seconds. Advice
every second and none at all show what a decision has to do with it. NautilusTrader's backtest engine keeps the same book and a strategy
reads its best quote: it decides nothing and keeps nothing.
"""

import gc
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from peers import Peer, alternate, clock, nautilus_engine, one_core, oracle, real, times
from report import DATA, USDM, Row, median, quantile, show

from alphapack import app
from alphapack.domain.events import DecisionMade, Filled
from alphapack.domain.inputs import AnyInput, Choose, CoreSettings, Frame, InstrumentSettings
from alphapack.domain.market import NANOS_PER_MS, symbol_id
from alphapack.domain.trading import RouterSettings
from alphapack.engine.engine import Engine
from alphapack.models import bandit, book, matching
from alphapack.models.volatility import MINUTES_MIN
from alphapack.shell import candle_files, captures
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.committer import Committer
from alphapack.shell.journal import FileJournal
from alphapack.shell.ledger import SqliteLedger
from alphapack.shell.offloop import steps
from alphapack.shell.recovery import ledger_rows

SYMBOL = symbol_id("binance-usdm", "BTCUSDT")
CANDLES = DATA / "candles" / "binance_BTCUSDT_1m_20220615-20220719.csv.gz"
CORE = CoreSettings(
    router=RouterSettings(interval_s=10, horizon_s=40, floor=0.05),
    instruments=(InstrumentSettings(SYMBOL, maker_fee_bps=0.0, taker_fee_bps=0.2),),
)
"""At the usual fees hardly anything is traded within minutes."""
ADVICE_MS = {"a decision every 100 ms": 100, "a decision every second": 1_000, "those of the router alone": 0}
RUNS = 3
BACKLOG_MAX = 20_000
FLUSH_S = 60.0
GOAL = 150_000.0
NAUTILUS = Peer("backtest engine, a strategy that reads the best quote", ("nautilus-trader",), nautilus_engine, published=82_000.0)
ns = time.perf_counter_ns


class Tape(NamedTuple):
    """Inputs to step, and what came of them: frames of the market, decisions, those with a choice, fills, rows of the ledger."""

    entries: list[AnyInput]
    frames: int
    decisions: int
    chosen: int
    fills: int
    rows: int
    digest: str


class Durable(NamedTuple):
    """Seconds until all was on disk, and the most inputs that waited for it."""

    seconds: float
    backlog: int


def market(engine: Engine, advice_ms: int) -> Iterator[AnyInput]:
    """Yield the capture's depth and trades behind its past, and requests for advice once forecasts are known; seqs are to be set."""
    capture = captures.Capture([USDM], report=print)
    (past,) = candle_files.load([f"{SYMBOL}={CANDLES}"], [SYMBOL])
    shifted = past.shifted((capture.start_ns() or 0) // NANOS_PER_MS)
    pages = shifted._replace(rows=shifted.rows[-MINUTES_MIN - 60 :]).pages()
    due_ns = 0
    for entry in captures.inputs(capture, CORE, history=pages):
        if isinstance(entry, Frame) and b'"bookTicker"' in entry.payload:
            continue
        if advice_ms and engine.known.sigma(SYMBOL) is not None and SYMBOL in engine.known.tradable():
            step_ns = advice_ms * NANOS_PER_MS
            due_ns = max(due_ns, -(-engine.now_ns // step_ns) * step_ns)
            while due_ns <= entry.ts_ns:
                yield Choose(0, due_ns, SYMBOL, {})
                due_ns += step_ns
        yield entry


def tape(advice_ms: int) -> Tape:
    """Return all inputs, those that answer the engine's own requests among them."""
    engine = app.build()
    entries, frames, made, fills, rows = [], 0, [], 0, 0
    for entry, records in steps(engine, market(engine, advice_ms), app.WORKS, app.WORK_DELAY_NS):
        entries.append(entry)
        frames += isinstance(entry, Frame)
        made += [one for one in records if isinstance(one, DecisionMade)]
        fills += sum(isinstance(one, Filled) for one in records)
        rows += len(ledger_rows(entry, records))
    return Tape(entries, frames, len(made), sum(any(one.enabled.values()) for one in made), fills, rows, engine.hexdigest())


def stepped(one: Tape) -> float:
    """Return the seconds of the processor for all inputs."""
    engine = app.build()
    start = clock()
    for entry in one.entries:
        engine.step(entry)
    seconds = clock() - start
    assert engine.hexdigest() == one.digest, "every run of one recording gives one digest"
    return seconds


def decided(one: Tape) -> list[int]:
    """Return the nanoseconds of each step that asked for advice."""
    engine, taken = app.build(), []
    for entry in one.entries:
        start = ns()
        engine.step(entry)
        if type(entry) is Choose:
            taken.append(ns() - start)
    return taken


def durable(one: Tape, folder: Path) -> Durable:
    """Step all inputs with journal and ledger behind them, in files, until the last is safe."""
    engine, backlog = app.build(), 0
    journal = FileJournal(folder / "journal")
    ledger = SqliteLedger(folder / "ledger.sqlite", engine="bench")
    nothing = {"published": lambda seq: None, "degraded": print, "recovered": lambda: None}
    committer = Committer(journal, ledger, FileCheckpoints(folder / "checkpoints"), **nothing)
    try:
        start = time.perf_counter()
        for entry in one.entries:
            committer.put(entry, ledger_rows(entry, engine.step(entry)))
            backlog = max(backlog, committer.backlog)
            while committer.backlog > BACKLOG_MAX:
                time.sleep(0.0005)
        assert committer.flush(FLUSH_S), "the disk takes all"
        seconds = time.perf_counter() - start
        assert (journal.last_seq, ledger.count, engine.hexdigest()) == (len(one.entries), one.rows, one.digest)
    finally:
        committer.close(10)
        journal.close()
        ledger.close()
    return Durable(seconds, backlog)


def spreads() -> float:
    """Return the sum of the spreads, in ticks, of the snapshot and after each difference."""
    bids, _, asks, _ = real().book
    return float(oracle(real())[0][real().is_depth].sum() - asks[-1] - bids[-1])


def us(taken: list[int]) -> str:
    return f"p50 {median(taken) / 1e3:,.0f} us, p99 {quantile(taken, 0.99) / 1e3:,.0f} us"


def run() -> list[Row]:
    for warm in (book.warm, matching.warm, bandit.warm):
        warm()
    tapes = {what: tape(advice_ms) for what, advice_ms in ADVICE_MS.items()}
    in_memory: dict[str, list[float]] = {what: [] for what in tapes}
    on_disk: dict[str, list[Durable]] = {what: [] for what in tapes}
    theirs: list[float] = []
    taken: list[int] = []
    nautilus = {} if NAUTILUS.missing() else {NAUTILUS.label(): nautilus_engine}
    for _, (what, one) in itertools.product(range(RUNS), tapes.items()):  # Alternating, so that the machine's drift falls on all alike.
        gc.collect()
        gc.freeze()
        with one_core():
            in_memory[what].append(one.frames / stepped(one))
        with tempfile.TemporaryDirectory(prefix="alphapack-loop-") as folder:
            on_disk[what].append(durable(one, Path(folder)))
        if what == next(iter(tapes)):
            taken += decided(one)
            with one_core():
                found = alternate(nautilus, real(), 1).values()
            for (outcome,) in found:
                assert abs(outcome.value - spreads()) < 1.0, "the best quotes are those of the capture"
                theirs.append(outcome.rate)
        gc.unfreeze()
    rows = [row for what, one in tapes.items() for row in rows_of(what, one, in_memory[what], on_disk[what])]
    rows.append(Row("P3", f"  a step that asks for advice: a whole decision ({len(taken) // RUNS:,} in a run)", us(taken), "-", None))
    return [*rows, peer_row(next(iter(in_memory.values())), theirs)]


def rows_of(what: str, one: Tape, in_memory: list[float], on_disk: list[Durable]) -> list[Row]:
    """Return how fast a tape is stepped, in messages of the market a second, and how fast with all of it on disk."""
    rate = median(in_memory)
    told = (
        f"Engine.step, {what}: {one.frames:,} messages, {one.decisions:,} decisions, {one.chosen:,} of them with a choice, "
        f"{one.fills:,} fills, {one.rows:,} rows, median of {RUNS}"
    )
    every_ms = ADVICE_MS[what] == min(filter(None, ADVICE_MS.values()))
    goal, met = (f">= {GOAL:,.0f} /s", rate >= GOAL) if every_ms else ("-", None)
    kept = median([one.frames / found.seconds for found in on_disk])
    waited = f"{kept:,.0f} /s, at most {max(found.backlog for found in on_disk):,} inputs waiting"
    return [
        Row("P3", told, f"{rate:,.0f} /s", goal, met),
        Row("P3", "  the same, journaled and in the ledger to the end", waited, "-", None, "step", f"{kept / rate:.2f}"),
    ]


def peer_row(ours: list[float], theirs: list[float]) -> Row:
    if not theirs:
        return Row("P3", f"  nautilus-trader {NAUTILUS.what}", "", "", None, "not installed")
    ratio, least = median(ours) / median(theirs), GOAL / (NAUTILUS.published or GOAL)
    what = f"  {NAUTILUS.label()} ({len(real().frames):,} messages, objects made before)"
    return Row("P3", what, "", f">= {times(least)}", ratio >= least, f"{median(theirs):,.0f} /s", times(ratio))


if __name__ == "__main__":
    show(run(), None)
    sys.exit(0)
