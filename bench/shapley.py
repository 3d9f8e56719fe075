"""P10: exact Shapley values of one trade's signals, against other projects; and what off-policy estimates cost.

All sides get the same game: what a trade earns when only some of the signals enter its exposure. Ours begins with the values of the
coalitions, and once more with the function that makes them, as the others do; how far their answers differ is in the row.
"""

import csv
import gzip
import math
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
from peers import one_core, times
from report import DATA, Row, median, quantile

from alphapack.models import off_policy, shapley

PLAYERS = {12: 60.0, 16: 1_000.0}
"""Signals, and the goal in microseconds."""
LONG = 20
RUNS, RUNS_SLOW, RUNS_ROUTE = 1_000, 20, 200
DIGITS = 1e-9
LOG = DATA / "bandit" / "obd_bts_all.csv.gz"
ITEMS = 80
ns = time.perf_counter_ns

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


class Trade:
    """What one trade earns in bps when only some of its signals enter the blend: they share an exposure, and its cost is not linear."""

    def __init__(self, signals: int) -> None:
        self.signals = signals
        self.weighed = np.random.default_rng(signals).normal(0.0, 0.4, signals)

    def __call__(self, masks: np.ndarray) -> Floats:
        """Return the values of many coalitions, a row of zeros and ones each."""
        position = np.tanh(np.asarray(masks, np.float64) @ self.weighed)
        earned: Floats = 1e4 * (position * 0.0021 - 0.0004 * np.abs(position) ** 1.5 - 0.00005)
        return earned

    def masks(self) -> np.ndarray:
        return ((np.arange(2**self.signals)[:, None] >> np.arange(self.signals)) & 1).astype(np.float64)


def taken(work: Callable[[], object], runs: int) -> list[int]:
    work()
    found = []
    for _ in range(runs):
        start = ns()
        work()
        found.append(ns() - start)
    return found


def us(found: list[int]) -> str:
    return f"{median(found) / 1e3:,.1f} us (p99 {quantile(found, 0.99) / 1e3:,.0f})"


def of_a_trade(signals: int, goal_us: float) -> list[Row]:
    trade = Trade(signals)
    masks = trade.masks()
    value = trade(masks)
    exact = shapley.shapley(value, signals)
    gap = abs(math.fsum(exact) - (value[-1] - value[0]))
    ours = taken(lambda: shapley.shapley(value, signals), RUNS)
    what = f"exact Shapley of {signals} signals, one trade, values given; sum off by {gap:.0e} of {value[-1] - value[0]:.2f} bps"
    theirs = shap_exact(trade)
    met = median(ours) <= 1e3 * goal_us
    if theirs is None:
        return [Row("P10", what, us(ours), f"<= {goal_us:,.0f} us", met, "not installed")]
    answers, explain = theirs
    off = np.max(np.abs(answers - exact))
    if off > DIGITS:
        raise AssertionError(f"expected shap's values to be ours within {DIGITS}, found {off}")
    explained = taken(explain, RUNS_SLOW)
    function = median(taken(lambda: trade(masks), RUNS_ROUTE))
    whole = taken(lambda: shapley.shapley(trade(masks), signals), RUNS_ROUTE)
    alone = median(explained) - function
    peer = f"{alone / 1e3:,.0f} us (shap {version('shap')} Exact, less the function)"
    said = f"  with the function that makes the values; answers differ by {off:.0e}"
    return [
        Row("P10", what, us(ours), f"<= {goal_us:,.0f} us", met, peer, times(alone / median(ours))),
        Row("P10", said, us(whole), "", None, us(explained), times(median(explained) / median(whole))),
    ]


def shap_exact(trade: Trade) -> tuple[Floats, Callable[[], object]] | None:
    """Return the answers of shap's exact explainer and a call that explains once more; None where it is not installed."""
    if not find_spec("shap"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap

    explainer = shap.explainers.Exact(trade, np.zeros((1, trade.signals)))
    row = np.ones((1, trade.signals))
    return explainer(row, max_evals=2**trade.signals, silent=True).values[0], lambda: explainer(
        row, max_evals=2**trade.signals, silent=True
    )


def of_many_signals() -> Row:
    value = np.random.default_rng(LONG).normal(size=2**LONG)
    found = taken(lambda: shapley.shapley(value, LONG), RUNS_SLOW)
    return Row("P10", f"exact Shapley of {LONG} players, a random game", f"{median(found) / 1e6:.1f} ms", "-", None)


def of_money() -> Row:
    values = np.random.default_rng(1).normal(0.0, 1e9, 12)
    total = round(math.fsum(values))
    return Row("P10", "in_money of 12 values, whole units that add up", us(taken(lambda: shapley.in_money(values, total), RUNS)), "-", None)


def of_a_log() -> Row:
    with gzip.open(LOG, "rt") as lines:
        rows = [(float(row["click"]), float(row["propensity_score"])) for row in csv.DictReader(lines)]
    clicks, propensities = (np.array(column) for column in zip(*rows, strict=True))
    target = np.full(len(rows), 1.0 / ITEMS)
    ours = taken(lambda: off_policy.off_policy(clicks, propensities, target), RUNS_ROUTE)

    def plain() -> tuple[float, float]:
        weights = target / propensities
        return float(np.mean(weights * clicks)), float(np.sum(weights * clicks) / np.sum(weights))

    bare = taken(plain, RUNS_ROUTE)
    what = f"off_policy: IPS, SNIPS, intervals, ESS of {len(rows):,} rows; peer: two lines of NumPy, no checks, no intervals"
    return Row("ope", what, us(ours), "-", None, us(bare), times(median(bare) / median(ours)))


def run() -> list[Row]:
    shapley.warm()
    with one_core():
        found = [row for signals, goal_us in PLAYERS.items() for row in of_a_trade(signals, goal_us)]
        return [*found, of_many_signals(), of_money(), of_a_log()]


if __name__ == "__main__":
    for row in run():
        print(row.id, row.what, "|", row.ours, "|", row.goal, row.met, "|", row.peer, row.ratio)
