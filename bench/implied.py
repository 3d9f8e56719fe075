"""P7: implied volatilities of 100,000 options, their speed and exactness, against other projects.

Two sets, all out of the money, forward 1. *chain*: one hour to a year, up to 2.3 standard deviations from the forward. *deep*: 15
minutes to two days, 3 to 12 standard deviations away, prices down to 2e-35. Time is taken over options drawn at random; exactness over
fewer, whose prices are made in decimal arithmetic and rounded once.
"""

import importlib
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from peers import RUNS, one_core, times
from report import Row, median, show

from alphapack.models import black

clock = time.process_time
"""Time of the processor for all threads: some sides start their own."""
TIMED, EXACT, LOOPED = 100_000, 2_000, 2_000
"""Options whose time is taken, whose price is exact, and which sides that loop in Python get."""
GOAL_NS, GOAL_ERROR, WRONG = 250.0, 1e-13, 1e-3
DIGITS = 160

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
Side = Callable[["Options"], Floats]


@dataclass(frozen=True)
class Options:
    """Of one forward, 1.0; calls first, which some sides want apart from puts."""

    price: Floats
    strike: Floats
    years: Floats
    sigma: Floats
    call: Bools

    def __len__(self) -> int:
        return len(self.price)

    @property
    def kinds(self) -> list[tuple[bool, slice]]:
        calls = int(self.call.sum())
        return [(True, slice(0, calls)), (False, slice(calls, None))]


def drawn(name: str, seed: int, n: int) -> Options:
    """Return options with prices as precise as ours are."""
    chance = np.random.default_rng(seed)
    sign = np.where(np.arange(n) < n // 2, 1.0, -1.0)
    sigma = chance.uniform(0.2, 1.5, n)
    if name == "chain":
        years, z = np.exp(chance.uniform(math.log(1.0 / 8_760.0), 0.0, n)), chance.uniform(0.0, 2.3, n)
    else:
        years, z = np.exp(chance.uniform(math.log(1.0 / 35_040.0), math.log(2.0 / 365.0), n)), chance.uniform(3.0, 12.0, n)
    strike, call = np.exp(sign * z * sigma * np.sqrt(years)), sign > 0.0
    return Options(black.price(1.0, strike, sigma, years, call), strike, years, sigma, call)


def pi() -> Decimal:
    """Return pi by Machin's formula."""
    total = Decimal(0)
    for inverse, factor in ((5, 16), (239, -4)):
        power, n = Decimal(factor) / inverse, 1
        while abs(power) > Decimal(10) ** -DIGITS:
            total, power, n = total + power / n, -power / (inverse * inverse), n + 2
    return total


def exact(options: Options) -> Options:
    """Return the same options at their exact prices, rounded to floats."""
    with localcontext() as context:
        context.prec = DIGITS
        norm = (2 * pi()).sqrt()

        def upper(z: Decimal) -> Decimal:
            term = total = z
            n = 1
            while abs(term) > Decimal(10) ** -DIGITS:
                n += 2
                term = term * z * z / n
                total += term
            return Decimal("0.5") - (-z * z / 2).exp() / norm * total

        prices = []
        for strike, years, sigma, call in zip(
            *(one.tolist() for one in (options.strike, options.years, options.sigma, options.call)), strict=True
        ):
            s, k = Decimal(sigma) * Decimal(years).sqrt(), Decimal(strike)
            d1 = -k.ln() / s + s / 2
            prices.append(float(upper(-d1) - k * upper(s - d1) if call else k * upper(d1 - s) - upper(d1)))
    return Options(np.array(prices), options.strike, options.years, options.sigma, options.call)


# Other projects


def ours(options: Options) -> Floats:
    return black.implied_vol(options.price, 1.0, options.strike, options.years, options.call)[0]


def by_kind(options: Options, solve: Callable[[bool, slice], Any]) -> Floats:
    return np.concatenate([np.asarray(solve(call, part)) for call, part in options.kinds])


def lbriv(module: Any) -> Side:
    def side(o: Options) -> Floats:
        total = by_kind(o, lambda call, at: module.vectorized_implied_vol_strikes(o.price[at], 1.0, o.strike[at], 1 if call else -1))
        return total / np.sqrt(o.years)

    return side


def iv_engine(module: Any) -> Side:
    return lambda o: by_kind(
        o, lambda call, at: module.implied_volatilities(o.price[at], np.ones(len(o.price[at])), o.strike[at], o.years[at], call, False)
    )


def pyvolr(module: Any) -> Side:
    solve = module.black76.implied_vol
    return lambda o: by_kind(
        o,
        lambda call, at: solve(
            o.price[at], "c" if call else "p", 1.0, o.strike[at], o.years[at], 0.0, return_as="numpy", on_error="ignore"
        ),
    )


def py_vollib_vectorized(module: Any) -> Side:
    solve = module.vectorized_implied_volatility_black
    return lambda o: by_kind(
        o,
        lambda call, at: solve(
            o.price[at], 1.0, o.strike[at], 0.0, o.years[at], "c" if call else "p", on_error="ignore", return_as="numpy"
        ),
    )


def quantlib(module: Any) -> Side:
    def one(kind: int, strike: float, price: float) -> float:
        try:
            return float(module.blackFormulaImpliedStdDev(kind, strike, 1.0, price, 1.0, 0.0, module.nullDouble(), 1e-14, 1_000))
        except RuntimeError:
            return math.nan

    def side(o: Options) -> Floats:
        kinds = np.where(o.call, module.Option.Call, module.Option.Put).tolist()
        return np.array(list(map(one, kinds, o.strike.tolist(), o.price.tolist()))) / np.sqrt(o.years)

    return side


def vollib(module: Any) -> Side:
    solve = importlib.import_module("vollib.black.implied_volatility").implied_volatility_of_undiscounted_option_price
    return lambda o: np.array(
        [
            solve(p, 1.0, k, t, "c" if call else "p")
            for p, k, t, call in zip(*(x.tolist() for x in (o.price, o.strike, o.years, o.call)), strict=True)
        ]
    )


PEERS: dict[str, tuple[Callable[[Any], Side], int]] = {
    "lbriv": (lbriv, TIMED),
    "iv_engine": (iv_engine, TIMED),
    "pyvolr": (pyvolr, TIMED),
    "py_vollib_vectorized": (py_vollib_vectorized, TIMED),
    "QuantLib": (quantlib, LOOPED),
    "vollib": (vollib, LOOPED),
}
"""How each is called, and with how many options."""


def sides() -> dict[str, tuple[Side, int]]:
    """Return what is installed."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    found: dict[str, tuple[Side, int]] = {"ours": (ours, TIMED)}
    for name, (side, n) in PEERS.items():
        if importlib.util.find_spec(name):
            found[name] = side(importlib.import_module(name)), n
    return found


def measured(name: str, entrants: dict[str, tuple[Side, int]]) -> dict[str, tuple[float, float, int]]:
    """Return of each side nanoseconds an option, the greatest relative error of those that are not wrong, and how many are."""
    many, few = drawn(name, 1, TIMED), exact(drawn(name, 2, EXACT))
    some = drawn(name, 3, LOOPED)
    taken: dict[str, list[float]] = {side: [] for side in entrants}
    errors = {}
    for side, (solve, _) in entrants.items():  # Also warms up.
        error = np.nan_to_num(np.abs(solve(few) / few.sigma - 1.0), nan=math.inf)
        errors[side] = float(error[error <= WRONG].max()), int((error > WRONG).sum())
    for _ in range(RUNS):
        for side, (solve, n) in entrants.items():
            start = clock()
            solve(many if n == TIMED else some)
            taken[side].append((clock() - start) / n)
    return {side: (1e9 * median(found), *errors[side]) for side, found in taken.items()}


def run() -> list[Row]:
    rows = []
    with one_core():
        entrants = sides()
        for name in ("chain", "deep"):
            found = measured(name, entrants)
            ns, error, wrong = found.pop("ours")
            what = f"implied volatility, {name}"
            rows.append(Row("P7", f"{what}: an option, of {TIMED:,}", f"{ns:.0f} ns", f"<= {GOAL_NS:.0f} ns", ns <= GOAL_NS))
            goal = f"<= {GOAL_ERROR:.0e}, 0 wrong"
            told = f"{error:.1e}, {wrong} wrong"
            rows.append(Row("P7", f"{what}: relative error, of {EXACT:,}", told, goal, error <= GOAL_ERROR and wrong == 0))
            for side in PEERS:
                if side not in found:
                    rows.append(Row("P7", f"  {side}", "", "", None, "not installed"))
                    continue
                other, error, wrong = found[side]
                rows.append(Row("P7", f"  {side} (error {error:.1e}, {wrong} wrong)", "", "", None, f"{other:,.0f} ns", times(other / ns)))
    return rows


if __name__ == "__main__":
    show(run(), None)
    sys.exit(0)
