"""Q4, P5: GARCH(1,1) fits, their accuracy, speed and robustness.

Accuracy: the DEM/GBP benchmark of McCullough and Renfro with the presample convention of Fiorentini, Calzolari and Panattoni; the
reference digits are those of TSP's published example. Speed and robustness: against arch, where it is installed, and against an
independent ascent of the likelihood from many starts, where scipy is.

``python bench/garch.py --series 10000`` runs the study of robustness at length.
"""

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from time import perf_counter, thread_time
from typing import Any

import numpy as np
from report import DATA, Row, median, show

from alphapack.arrays import Float64Array1D
from alphapack.jit import njit
from alphapack.models import garch
from alphapack.models.garch import Kind

COEFFICIENTS = {"mu": -0.00619040837994, "omega": 0.010761397852, "alpha": 0.153134061820, "beta": 0.805973670305}
ERRORS: dict[Kind, tuple[float, ...]] = {
    "im": (0.00837628562687, 0.00192880806004, 0.019401185516, 0.021839872164),
    "bw": (0.00873092468675, 0.00312363750618, 0.027321933999, 0.030150885923),
}
PRINTED: dict[Kind, str] = {
    "hessian": "0.00846212 0.00285271 0.0265228 0.0335527",
    "opg": "0.00843359 0.00132298 0.0139737 0.0165604",
    "white": "0.00918935 0.00649319 0.053532 0.072461",
}
"""As the same example has them in print, with fewer digits."""

ROUNDS = 7
QUICK = 300
RELATIVE = 1e-6
"""What a log-likelihood may lack, as a part of itself."""


def digits(found: float, reference: float) -> float:
    """Return the log relative error, the number of digits that agree."""
    return 16.0 if found == reference else -math.log10(abs(found / reference - 1.0))


def dem2gbp() -> Float64Array1D:
    return np.loadtxt(DATA / "econ" / "dem2gbp.csv", skiprows=1)


def accuracy() -> list[Row]:
    fitted = garch.fit(dem2gbp(), "constant", "ssr")
    rows = []
    least = min(digits(fitted.params[name], value) for name, value in COEFFICIENTS.items())
    rows.append(Row("Q4", "DEM/GBP coefficients, least log relative error", f"{least:.1f} digits", ">= 9", least >= 9.0))
    for kind, values in ERRORS.items():
        least = min(digits(found, value) for found, value in zip(fitted.stderr(kind).values(), values, strict=True))
        rows.append(Row("Q4", f"DEM/GBP standard errors {kind}", f"{least:.1f} digits", ">= 9", least >= 9.0))
    for kind, printed in PRINTED.items():
        last = 0.0
        for found, value in zip(fitted.stderr(kind).values(), printed.split(), strict=True):
            last = max(last, abs(found - float(value)) * 10.0 ** len(value.split(".")[1]))
        # Some of the printed digits are cut off, not rounded.
        rows.append(Row("Q4", f"DEM/GBP standard errors {kind}", f"off by {last:.2f} of the last digit", "as printed", last < 1.0))
    return rows


def simulated(chance: np.random.Generator, n: int, persistence: float, alpha: float, freedom: float) -> Float64Array1D:
    """Return returns of a minute, sd 6e-4, with innovations of t, normal where ``freedom`` is infinite."""
    z = chance.standard_normal(n + 500)
    if math.isfinite(freedom):
        z = chance.standard_t(freedom, n + 500) * math.sqrt((freedom - 2.0) / freedom) if freedom > 2.0 else z
    h, path = 1.0, np.empty(n + 500)
    for t in range(n + 500):
        path[t] = math.sqrt(h) * z[t]
        h = 1.0 - persistence + alpha * path[t] * path[t] + (persistence - alpha) * h
    return 6e-4 * path[500:]


def drawn(seed: int) -> Float64Array1D:
    """Return a series of the study: persistence up to .9999, innovations from normal to t of 3, 500 to 5,000 minutes."""
    chance = np.random.default_rng(seed)
    n = int(math.exp(chance.uniform(math.log(500.0), math.log(5_000.0))))
    persistence = 1.0 - 10.0 ** chance.uniform(-4.0, -0.2)
    alpha = persistence * chance.uniform(0.005, 0.4)
    return simulated(chance, n, persistence, alpha, float(chance.choice([3.0, 4.0, 6.0, 10.0, math.inf])))


@njit
def loglik(e2: Float64Array1D, presample: float, x: Float64Array1D, slope: Float64Array1D) -> float:
    """Return the log-likelihood without its constant and write its gradient, as the textbook has them; ``x`` is omega, alpha, beta."""
    omega, alpha, beta = x[0], x[1], x[2]
    h, hw, ha, hb, total = presample, 0.0, 0.0, 0.0, 0.0
    before = presample
    slope[0] = slope[1] = slope[2] = 0.0
    for t in range(len(e2)):
        hb = h + beta * hb
        ha = before + beta * ha
        hw = 1.0 + beta * hw
        h = omega + alpha * before + beta * h
        before = e2[t]
        total -= 0.5 * (math.log(h) + before / h)
        news = 0.5 * (before / h - 1.0) / h
        slope[0] += news * hw
        slope[1] += news * ha
        slope[2] += news * hb
    return total


STARTS = ((0.05, 0.9), (0.15, 0.75), (0.4, 0.4), (0.02, 0.97), (0.05, 0.4), (0.3, 0.0), (0.005, 0.99))


def ascended(e2: Float64Array1D, presample: float) -> float:
    """Return the best log-likelihood that L-BFGS-B finds from many starts; ``e2`` has mean 1."""
    from scipy.optimize import minimize  # type: ignore[import-not-found]

    slope = np.zeros(3)

    def cost(x: Float64Array1D) -> tuple[float, Float64Array1D]:
        found = loglik(e2, presample, x, slope)
        return (-found, -slope) if math.isfinite(found) and np.isfinite(slope).all() else (1e10, np.zeros(3))

    bounds = ((1e-9, 100.0), (0.0, 5.0), (0.0, 1.0))
    best = math.inf
    for alpha, beta in STARTS:
        start = (max(1.0 - alpha - beta, 0.003), alpha, beta)
        best = min(best, minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds).fun)
    return -best


def arch_fit(returns: Float64Array1D, rescale: bool) -> Any:
    from arch import arch_model  # type: ignore[import-not-found]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return arch_model(returns, mean="Zero", rescale=rescale).fit(disp="off", show_warning=False)


def study(series: int, progress: bool) -> list[Row]:
    """Compare fits with the best of arch and of many starts, all with arch's presample variance."""
    failed, short, ahead, arch_short, worst = 0, 0, 0, 0, 0.0
    several = find_spec("arch") is not None and find_spec("scipy") is not None
    begun = perf_counter()
    for seed in range(series):
        returns = drawn(seed)
        fitted = garch.fit(returns, presample="ewma")
        failed += not fitted.converged
        if several:
            n, scale = len(returns), math.sqrt(float((returns**2).mean()))
            e2 = (returns / scale) ** 2
            shift = -0.5 * n * math.log(2.0 * math.pi) - n * math.log(scale)
            head = returns[:75] ** 2
            weights = 0.94 ** np.arange(len(head))
            presample = float((head * weights).sum() / weights.sum()) / scale**2
            other = arch_fit(returns, True)
            omega, alpha, beta = other.params
            there = np.array((omega / other.scale**2 / scale**2, alpha, beta))
            by_arch = loglik(e2, presample, there, np.zeros(3)) + shift
            best = max(by_arch, ascended(e2, presample) + shift)
            lack = (best - fitted.loglik) / abs(fitted.loglik)
            worst = max(worst, lack)
            short += lack > RELATIVE
            arch_short += (max(best, fitted.loglik) - by_arch) / abs(fitted.loglik) > RELATIVE
            ahead += (fitted.loglik - best) / abs(fitted.loglik) > RELATIVE
            if lack > RELATIVE and progress:
                print(f"series {seed}: lacks {lack:.2g} of {fitted.loglik:.6f}, {fitted.params}", file=sys.stderr, flush=True)
        if progress and seed % 250 == 249:
            told = f"{failed} failed, {short} short, worst {worst:.2g}"
            print(f"{seed + 1} series, {perf_counter() - begun:.0f} s: {told}", file=sys.stderr, flush=True)
    what = f"{series:,} simulated series at the scale of minutes: "
    rows = [Row("Q4", what + "not converged", str(failed), "0", failed == 0)]
    if several:
        rows.append(
            Row(
                "Q4",
                what + "log-likelihood below the best of arch and many starts by > 1e-6 of it",
                f"{short} (most {worst:.1e}); above it {ahead}",
                "0",
                short == 0,
                f"arch below the best: {arch_short}",
            )
        )
    return rows


def alternated(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return medians of this thread's seconds, both sides in turn; what else the machine does is left out."""
    sides: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for times, work in zip(sides, (ours, peer), strict=True):
            start = thread_time()
            work()
            times.append(thread_time() - start)
    return median(sides[0]), median(sides[1])


def against_arch(what: str, returns: Float64Array1D, goal: float | None, rounds: int = ROUNDS) -> Row:
    garch.fit(returns, presample="ewma")
    hoped = "" if goal is None else f">= {goal:.0f}x arch"
    if find_spec("arch") is None:
        start = perf_counter()
        garch.fit(returns, presample="ewma")
        return Row("P5", what, f"{1e3 * (perf_counter() - start):.3f} ms", hoped, None, "arch is not installed")
    other = arch_fit(returns, False)
    fitted = garch.fit(returns, presample="ewma")
    lack = (other.loglikelihood - fitted.loglik) / abs(fitted.loglik)
    ours, peer = alternated(lambda: garch.fit(returns, presample="ewma"), lambda: arch_fit(returns, False), rounds)
    told = f"{1e3 * ours:.3f} ms, log-likelihood {-lack:+.0e} of arch's"
    met = None if goal is None else peer / ours >= goal and lack <= RELATIVE
    return Row("P5", what, told, hoped, met, f"{1e3 * peer:.1f} ms", f"{peer / ours:.0f}x")


def rolling(returns: Float64Array1D, window: int = 2_000, refits: int = 500) -> Row:
    """Refit a rolling window, each fit from the parameters of the one before."""

    def ours() -> None:
        last = None
        for first in range(refits):
            last = garch.fit(returns[first : first + window], presample="ewma", start=last).parameters

    sample = 25
    what, goal = f"{refits} rolling refits of {window:,}, each from the one before", 150.0
    ours()
    if find_spec("arch") is None:
        return Row("P5", what, "", f">= {goal:.0f}x arch", None, "arch is not installed")

    def peer() -> None:
        for first in range(0, refits, refits // sample):
            arch_fit(returns[first : first + window], False)

    mine, other = alternated(ours, peer, 5)
    other *= refits / sample
    told = f"{1e3 * other:.0f} ms, of every {refits // sample}th"
    return Row("P5", what, f"{1e3 * mine:.1f} ms", f">= {goal:.0f}x arch", other / mine >= goal, told, f"{other / mine:.0f}x")


def speed() -> list[Row]:
    chance = np.random.default_rng(1)
    minutes = 1e3 * simulated(chance, 43_200, 0.99, 0.05, 6.0)
    heavy = 1e3 * simulated(chance, 43_200, 0.99, 0.05, 3.5)
    return [
        against_arch("fit of DEM/GBP, 1,974 returns", dem2gbp(), 60.0),
        against_arch("fit of 43,200 simulated minutes, t of 6", minutes, 30.0),
        against_arch("fit of 43,200 simulated minutes, t of 3.5", heavy, None),
        rolling(minutes),
    ]


def exactness() -> Row:
    """Compare the closed form with the recursion, summed without rounding."""
    worst = 0.0
    for gap in (1e-12, 1e-8, 1e-4, 1e-2, 0.05):
        for sign in (-1.0, 0.0, 1.0):
            for horizon in (1, 60, 1_440, 10_080):
                alpha = 0.05
                beta = 1.0 + sign * gap - alpha
                exact, x = np.longdouble(0.0), np.longdouble(2.0)
                persistence = np.longdouble(alpha) + np.longdouble(beta)
                for _ in range(horizon):
                    exact += x
                    x = np.longdouble(0.01) + persistence * x
                found = garch.aggregate(2.0, 0.01, alpha, beta, horizon)
                worst = max(worst, abs(float((np.longdouble(found) - exact) / exact)))
    return Row(
        "Q4", "variance over h = 1..10,080 on both sides of persistence 1", f"relative error {worst:.1e}", "<= 1e-12", worst <= 1e-12
    )


def run() -> list[Row]:
    return [*accuracy(), exactness(), *study(QUICK, False), *speed()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=0, help="how many series to study; without it, all goals are measured")
    series = parser.parse_args().series
    show(study(series, True) if series else run(), None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
