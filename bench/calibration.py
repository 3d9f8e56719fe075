"""Q3: win probabilities after a drift, and what an outcome costs to learn.

The stream is the yardstick beside the recordings: forecasts too sure of themselves for 25,000 outcomes, then too timid and shifted. What
counts are outcomes 28,000 to 50,000, on seeds that nothing was tuned on. scikit-learn is fitted anew to the newest 3,000 outcomes every
500, and once to the first 5,000; where it is not installed its rows say so.
"""

import importlib.util
import sys
from collections.abc import Callable
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
from peers import one_core, times
from report import DATA, Row, median, show

from alphapack.models.calibration import Calibrator

YARDSTICK = DATA.parent / "yardsticks"
SEEDS = range(10)
JUDGED, BINS = slice(28_000, 50_000), 15
WINDOW, EVERY, STATIC = 3_000, 500, 5_000
TIMED, RUNS, POLICIES = 20_000, 5, 6
POLICY = "momentum"
ERROR_GOAL, ECE_GOAL, BRIER_GOAL = 0.012, 0.003, 0.003

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Made = tuple[Floats, Floats, Floats]
"""Forecasts, outcomes, true probabilities."""
Fit = Callable[[Floats, Floats], Callable[[Floats], Floats]]


class Judged(NamedTuple):
    """One side on one seed: mean distance from the truth, ECE above the truth's own, Brier score over the truth's own."""

    error: float
    ece: float
    brier: float


def stream() -> Callable[[int], Made] | None:
    """Return the yardstick's maker of streams."""
    if not (YARDSTICK / "calibration_stream.py").is_file():
        return None
    sys.path.insert(0, str(YARDSTICK))
    from calibration_stream import make

    made: Callable[[int], Made] = make
    return made


def ece(p: Floats, won: Floats) -> float:
    parts = np.array_split(np.argsort(p, kind="stable"), BINS)
    return sum(len(part) * abs(float(p[part].mean() - won[part].mean())) for part in parts) / len(p)


def judged(found: Floats, won: Floats, truth: Floats) -> Judged:
    found, won, truth = found[JUDGED], won[JUDGED], truth[JUDGED]
    brier = float(np.mean((found - won) ** 2) / np.mean((truth - won) ** 2)) - 1.0
    return Judged(float(np.abs(found - truth).mean()), ece(found, won) - ece(truth, won), brier)


# Sides


def ours(p: Floats, won: Floats) -> Floats:
    one, found = Calibrator(), np.empty(len(p))
    for i, (forecast, came) in enumerate(zip(p.tolist(), won.tolist(), strict=True)):
        found[i] = one.calibrate(forecast, POLICY)
        one.learn(forecast, came > 0.5, POLICY)
    return found


def platt(p: Floats, won: Floats) -> Callable[[Floats], Floats]:
    from sklearn.linear_model import LogisticRegression

    def logit(q: Floats) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        return (np.log(q) - np.log(1.0 - q))[:, None]

    model = LogisticRegression(C=1e6).fit(logit(p), won)
    return lambda q: np.asarray(model.predict_proba(logit(q))[:, 1])


def isotonic(p: Floats, won: Floats) -> Callable[[Floats], Floats]:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=1e-4, y_max=1.0 - 1e-4, out_of_bounds="clip").fit(p, won)
    return lambda q: np.asarray(model.predict(q))


def rolling(fit: Fit) -> Callable[[Floats, Floats], Floats]:
    def side(p: Floats, won: Floats) -> Floats:
        found = p.copy()
        for at in range(WINDOW, len(p), EVERY):
            found[at : at + EVERY] = fit(p[at - WINDOW : at], won[at - WINDOW : at])(p[at : at + EVERY])
        return found

    return side


def static(p: Floats, won: Floats) -> Floats:
    return platt(p[:STATIC], won[:STATIC])(p)


PEERS: dict[str, Callable[[Floats, Floats], Floats]] = {
    f"scikit-learn Platt, once on {STATIC:,}": static,
    f"scikit-learn Platt, {WINDOW:,} every {EVERY}": rolling(platt),
    f"scikit-learn isotonic, {WINDOW:,} every {EVERY}": rolling(isotonic),
}


# Rows


def quality(make: Callable[[int], Made]) -> list[Row]:
    made = [make(seed) for seed in SEEDS]
    found = [judged(ours(p, won), won, truth) for p, won, truth in made]
    what = f"calibration after a drift, seeds {SEEDS.start}-{SEEDS.stop - 1}"
    rows = []
    for name, goal, said in (
        ("error", ERROR_GOAL, "mean abs(p - truth)"),
        ("ece", ECE_GOAL, "ECE above the truth's"),
        ("brier", BRIER_GOAL, "Brier above the truth's, share"),
    ):
        values = [getattr(one, name) for one in found]
        told = f"{np.mean(values):.4f}, worst {max(values):.4f}"
        rows.append(Row("Q3", f"{what}: {said}", told, f"<= {goal}, every seed", max(values) <= goal))
    raw = [judged(p, won, truth) for p, won, truth in made]
    rows.append(peer_row("as it comes", raw, found))
    for name, side in PEERS.items():
        if importlib.util.find_spec("sklearn") is None:
            rows.append(Row("Q3", f"  {name}", "", "", None, "not installed"))
            continue
        rows.append(peer_row(name, [judged(side(p, won), won, truth) for p, won, truth in made], found))
    return rows


def peer_row(name: str, theirs: list[Judged], found: list[Judged]) -> Row:
    error, ece_above, brier = np.mean(theirs, axis=0)
    told = f"{error:.4f}, ECE {ece_above:+.4f}, Brier {100.0 * brier:+.2f} %"
    return Row("Q3", f"  {name}", "", "", None, told, times(error / float(np.mean([one.error for one in found]))))


def cost() -> list[Row]:
    chance = np.random.default_rng(1)
    p, won = chance.uniform(0.2, 0.8, TIMED).tolist(), (chance.random(TIMED) < 0.5).tolist()
    policies = [f"policy {i % POLICIES}" for i in range(TIMED)]
    one = Calibrator()
    taken: dict[str, list[float]] = {"learn": [], "calibrate": []}
    for _ in range(RUNS):
        start = perf_counter_ns()
        for forecast, came, policy in zip(p, won, policies, strict=True):
            one.learn(forecast, came, policy)
        between = perf_counter_ns()
        for forecast, policy in zip(p, policies, strict=True):
            one.calibrate(forecast, policy)
        taken["learn"].append((between - start) / TIMED)
        taken["calibrate"].append((perf_counter_ns() - between) / TIMED)
    return [
        Row("Q3", f"calibration: {name}, one call from Python, {POLICIES} policies", f"{median(found):,.0f} ns", "", None)
        for name, found in taken.items()
    ]


def run() -> list[Row]:
    make = stream()
    if make is None:
        return [Row("Q3", "calibration after a drift", "the yardstick is not here", "-", None), *cost()]
    with one_core():
        return [*quality(make), *cost()]


if __name__ == "__main__":
    show(run(), None)
    sys.exit(0)
