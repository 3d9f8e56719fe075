"""P8, slice by slice: fits of SVI slices, their speed and how near they come to the best fit there is.

Speed: against QuantLib's SviInterpolatedSmileSection and scipy's least_squares from three starts, where they are installed; all of them
fit total variance, or volatility in QuantLib's case, to the same 41 strikes. Quality: against the best of many starts of scipy within the
same bounds, on synthetic slices, on hostile ones and on recorded Deribit chains.

``python bench/svi.py --slices 1000`` runs the study of quality at length.
"""

import argparse
import csv
import lzma
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from time import perf_counter

import numpy as np
from report import DATA, Row, median, quantile, show

from alphapack.arrays import Float64Array1D
from alphapack.models import svi
from alphapack.models.svi import Svi

Slice = tuple[str, Float64Array1D, Float64Array1D]
X = np.linspace(-1.5, 1.5, 41)
VOGT = Svi(-0.0410, 0.1331, 0.3060, 0.3586, 0.4153)
CLEAN = Svi(0.04, 0.1, -0.4, 0.05, 0.3)
CHAINS = DATA / "options" / "deribit_chains_20260115-20260315.csv.xz"
ROUNDS, QUICK, STARTS = 301, 60, 8
GOAL_US, WITHIN, EXACT = 50.0, 1.01, 1e-8
"""Microseconds a slice; what a fit may be above the best, and, as a part of the largest variance, what counts as an exact fit."""


def noisy() -> Float64Array1D:
    """Return the clean slice with 30 basis points of noise in volatility, t = 1."""
    return (np.sqrt(CLEAN.total_variance(X)) + 0.003 * np.random.default_rng(0).standard_normal(len(X))) ** 2


def timed(work: Callable[[], object], rounds: int) -> float:
    """Return the median of microseconds."""
    work()
    times = []
    for _ in range(rounds):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return 1e6 * median(times)


def volatility_error(found: Callable[[Float64Array1D], Float64Array1D], w: Float64Array1D) -> float:
    """Return the root mean squared error of volatility, in basis points, t = 1."""
    return 1e4 * math.sqrt(float(((np.sqrt(found(X)) - np.sqrt(w)) ** 2).mean()))


def quantlib(w: Float64Array1D) -> tuple[Callable[[], object], Callable[[Float64Array1D], Float64Array1D]]:
    """Return a fit by QuantLib and its total variances."""
    import QuantLib  # type: ignore[import-not-found]

    today = QuantLib.Date(1, 1, 2026)
    QuantLib.Settings.instance().evaluationDate = today
    strikes, vols = np.exp(X).tolist(), np.sqrt(w).tolist()
    start = (float(w.min()) / 2, 0.1, 0.2, 0.0, 0.1)

    def fitted() -> object:
        free = (False,) * 5
        section = QuantLib.SviInterpolatedSmileSection(today + 365, 1.0, strikes, False, vols[20], vols, *start, *free, False)
        section.rmsError()
        return section

    def found(x: Float64Array1D) -> Float64Array1D:
        section = fitted()
        return np.array([section.variance(float(k)) for k in np.exp(x)])  # type: ignore[attr-defined]

    return fitted, found


def scipy_three(w: Float64Array1D) -> tuple[Callable[[], object], Callable[[Float64Array1D], Float64Array1D]]:
    """Return a fit by scipy from three starts and its total variances."""
    from scipy.optimize import least_squares

    def model(q: Float64Array1D, x: Float64Array1D) -> Float64Array1D:
        a, b, rho, m, sigma = q
        return a + b * (rho * (x - m) + np.sqrt((x - m) ** 2 + sigma * sigma))

    def fitted() -> object:
        tries = [
            least_squares(
                lambda q: model(q, X) - w,
                (float(w.min()) / 2, 0.1, rho, 0.0, sigma),
                bounds=((-1.0, 0.0, -0.999, -3.0, 1e-4), (2.0, 2.0, 0.999, 3.0, 5.0)),
            )
            for rho, sigma in ((-0.5, 0.1), (0.0, 0.3), (0.5, 0.5))
        ]
        return min(tries, key=lambda one: one.cost).x

    return fitted, lambda x: model(fitted(), x)  # type: ignore[arg-type]


PEERS = {"QuantLib": ("QuantLib", quantlib), "scipy x3": ("scipy", scipy_three)}


def speed() -> list[Row]:
    rows = []
    for name, w in (("clean", CLEAN.total_variance(X)), ("30 bp of noise", noisy()), ("Vogt", VOGT.total_variance(X))):
        ours = timed(lambda w=w: svi.fit(X, w), ROUNDS)  # type: ignore[misc]
        error = volatility_error(svi.fit(X, w).total_variance, w)
        what, told = f"SVI fit of 41 strikes, {name}", f"{ours:.0f} us, {error:.4f} bp"
        rows.append(Row("P8", what, told, f"<= {GOAL_US:.0f} us", ours <= GOAL_US))
        for peer, (package, make) in PEERS.items():
            if find_spec(package) is None:
                rows.append(Row("P8", what, "", "", None, f"{package} is not installed"))
                continue
            fitted, found = make(w)
            theirs, other = timed(fitted, 9), volatility_error(found, w)
            met = error <= WITHIN * other + 1e-4
            rows.append(Row("P8", what, told, "no worse", met, f"{peer}: {theirs:.0f} us, {other:.4f} bp", f"{theirs / ours:.0f}x"))
    arbitrage = timed(lambda: VOGT.arbitrage(), ROUNDS)
    ends = VOGT.arbitrage()
    met = len(ends) == 1 and abs(ends[0][0] - 0.642408) < 1e-6 and abs(ends[0][1] - 1.256913) < 1e-6
    rows.append(Row("P8", "Vogt's slice, arbitrage on the whole line", f"{ends}, {arbitrage:.0f} us", ".642408 to 1.256913", met))
    later = Svi(CLEAN.a + 0.01, CLEAN.b, CLEAN.rho, CLEAN.m, CLEAN.sigma)
    calendar = timed(lambda: svi.calendar_free(CLEAN, later, -1.0, 1.0), ROUNDS)
    rows.append(Row("P8", "calendar check of two slices", f"{calendar:.0f} us", "", None))
    return rows


def synthetic(seed: int) -> Slice:
    """Return 5 to 41 points of a drawn slice: as it is, with 1% or 10% of noise, or of a shape that no slice has."""
    chance = np.random.default_rng(seed)
    n = int(chance.choice([5, 6, 7, 8, 12, 20, 41]))
    half = 10.0 ** chance.uniform(-1.5, 0.3)
    x = np.sort(chance.uniform(-half, half, n)) + chance.uniform(-0.5, 0.5) * half
    rho, m, sigma = chance.uniform(-0.95, 0.95), half * chance.uniform(-1, 1), half * 10.0 ** chance.uniform(-1.5, 0.7)
    b = chance.uniform(0.01, 1.0)
    least = 10.0 ** chance.uniform(-4, -1)
    w = Svi(least - b * sigma * math.sqrt(1.0 - rho * rho), b, rho, m, sigma).total_variance(x)
    kind = ("clean", "1% noise", "10% noise", "hostile")[seed % 4]
    if kind == "hostile":
        w = np.abs(w - w.mean()) + 1e-4 if seed % 8 == 3 else w * np.exp(chance.standard_normal(n))
    elif kind != "clean":
        w = w * np.exp((0.02 if kind == "1% noise" else 0.2) * chance.standard_normal(n))
    return kind, x, w


def recorded(every: int) -> Iterator[Slice]:
    """Yield out-of-the-money marks of some recorded chains, expiry by expiry."""
    with lzma.open(CHAINS, "rt") as file:
        chains = defaultdict(list)
        for row in csv.DictReader(file):
            chains[int(row["snapshot_ms"])].append(row)
    for snapshot_ms in sorted(chains)[::every]:
        expiries: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
        for row in chains[snapshot_ms]:
            coin, expiry, strike, kind = row["instrument_name"].split("-")
            x = math.log(float(strike) / float(row["underlying_price"]))
            t = (datetime.strptime(expiry, "%d%b%y").replace(hour=8, tzinfo=UTC).timestamp() - snapshot_ms / 1e3) / (365 * 86_400)
            if (x >= 0.0) == (kind == "C") and t > 0.0 and float(row["mark_iv"] or 0.0) > 0.0:
                expiries[coin, expiry][x] = float(row["mark_iv"]) ** 2 * t
        for quotes in expiries.values():
            if len(quotes) >= svi.POINTS_MIN:
                x = np.array(sorted(quotes))
                yield "Deribit", x, np.array([quotes[one] for one in x.tolist()])


def best_of_many(x: Float64Array1D, w: Float64Array1D) -> float:
    """Return the least root mean squared residual of scipy from many starts, within the bounds of a fit."""
    from scipy.optimize import least_squares

    middle, half, unit = (x.max() + x.min()) / 2, np.ptp(x) / 2, w.max()
    at, y, steepest = (x - middle) / half, w / unit, math.sqrt(2 * half / unit)

    def residuals(q: Float64Array1D) -> Float64Array1D:
        least, p, t, m, log_sigma = q
        u, s = at - m, math.exp(log_sigma)
        return least + s * (t - p) ** 2 / 2 + (t * t - p * p) / 2 * u + (t * t + p * p) / 2 * (np.sqrt(u * u + s * s) - s) - y

    def slopes(q: Float64Array1D) -> Float64Array1D:
        _, p, t, m, log_sigma = q
        u, s = at - m, math.exp(log_sigma)
        h = np.sqrt(u * u + s * s)
        slope, bend = (t * t - p * p) / 2, (t * t + p * p) / 2
        by_sigma = s * ((t - p) ** 2 / 2 + bend * (s / h - 1))
        return np.stack((np.ones(len(u)), p * (h - s - u) - s * (t - p), t * (h - s + u) + s * (t - p), -slope - bend * u / h, by_sigma), 1)

    chance, found = np.random.default_rng(1), math.inf
    bounds = ((0, 0, 0, -3, math.log(1e-4)), (np.inf, steepest, steepest, 3, math.log(100)))
    for _ in range(STARTS):
        roots = np.minimum(np.sqrt(chance.exponential(0.5, 2)), 0.9 * steepest)
        start = (chance.uniform(), *roots, chance.uniform(-1.2, 1.2), math.log(10) * chance.uniform(-1.8, 0.5))
        tried = least_squares(residuals, start, jac=slopes, bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=300)
        found = min(found, tried.cost)
    return float(unit * math.sqrt(2 * found / len(x)))


def study(slices: list[Slice]) -> list[Row]:
    """Compare fits with the best of many starts, and tell how long they took."""
    short: dict[str, int] = defaultdict(int)
    ahead: dict[str, int] = defaultdict(int)
    times: dict[str, list[float]] = defaultdict(list)
    for kind, x, w in slices:
        found = svi.fit(x, w).rmse
        for _ in range(3):
            start = perf_counter()
            svi.fit(x, w)
            took = perf_counter() - start
        times[kind].append(1e6 * took)
        if find_spec("scipy") is not None:
            best, exact = best_of_many(x, w), EXACT * float(w.max())
            short[kind] += found > WITHIN * best + exact
            ahead[kind] += best > WITHIN * found + exact
    rows = []
    for kind, taken in times.items():
        what = f"{len(taken)} slices, {kind}: above the best of {STARTS} starts of scipy by > 1%"
        told = f"{median(taken):.0f} us, p95 {quantile(taken, 0.95):.0f}"
        if find_spec("scipy") is None:
            rows.append(Row("P8", what, told, "0", None, "scipy is not installed"))
        else:
            rows.append(Row("P8", what, f"{short[kind]}; {told}", "0", short[kind] == 0, f"scipy above ours: {ahead[kind]}"))
    return rows


def run(slices: int = QUICK) -> list[Row]:
    chains = list(recorded(every=40)) if CHAINS.exists() else []
    return [*speed(), *study([synthetic(seed) for seed in range(slices)] + chains[:slices])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=QUICK, help="how many synthetic and how many recorded slices to study")
    show(run(parser.parse_args().slices), None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
