"""P8: a chain of 12 expiries x 50 strikes -> a smile each, risk reversal and butterfly; then recorded chains and very long ones.

What users have is rows, what a fit wants is arrays: both are timed, to say what reading the rows costs. Volatilities have errors of
thirty basis points, so that no slice is fitted at once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from peers import clock, one_core
from report import DATA, Row, median

from alphapack.models import chain, smile
from alphapack.shell.chain_files import snapshots

GOAL_MS = 2.0
LONG_GOAL_S = 5.0
RUNS = 100
NOW_MS = 1_770_370_516_484
FORWARD = 70_000.0
DAYS = (1, 2, 3, 7, 14, 21, 30, 60, 90, 180, 270, 360)
STRIKES = 50
NOISE = 0.003
LONG = 100_000
RECORDED = DATA / "options" / "deribit_chain_full_20260206T093516Z.csv.gz"
Fields = dict[str, Any]


def made() -> list[Fields]:
    """Return rows of all expiries, strikes within 2.5 standard deviations, with skew, wings and errors."""
    errors = np.random.default_rng(8).normal(0.0, NOISE, (len(DAYS), STRIKES))
    rows = []
    for days, of_expiry in zip(DAYS, errors.tolist(), strict=True):
        deviation = 0.6 * math.sqrt(days / 365)
        for z, error in zip(np.linspace(-2.5, 2.5, STRIKES).tolist(), of_expiry, strict=True):
            iv = 0.6 - 0.03 * z + 0.04 * (math.sqrt(1.0 + z * z) - 1.0) + error
            rows.append({"k": FORWARD * math.exp(z * deviation), "tenor": f"{days}d", "type": "call" if z > 0 else "put", "iv": iv})
    return rows


def ms(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median milliseconds of some work that was done before."""
    work()
    taken = []
    with one_core():
        for _ in range(runs):
            start = clock()
            work()
            taken.append(clock() - start)
    return 1e3 * median(taken)


def recorded() -> tuple[int, Sequence[Fields]]:
    """Return the time and the rows of a recorded chain."""
    ts_ms, _, raw = next(snapshots(RECORDED))
    return ts_ms, [msgspec.json.decode(row) for row in chain.read(raw).chain]


def run() -> list[Row]:
    rows = made()
    surface = chain.build(rows, NOW_MS, forward=FORWARD)
    if any(one.quality not in ("full", "extrapolated") for one in surface.tenors) or surface.rr25 is None or surface.rejected_count:
        raise AssertionError(f"expected {len(DAYS)} smiles by SVI and a headline, found {surface}")
    slices = [(np.array(one.strikes), np.array(one.ivs), one.t, FORWARD) for one in surface.tenors]
    raw = chain.read(msgspec.json.encode({"chain": rows})).chain
    from_rows = ms(lambda: chain.build(rows, NOW_MS, forward=FORWARD))
    from_arrays = ms(lambda: [smile.fit(*one) for one in slices])
    from_json = ms(lambda: chain.build(raw, NOW_MS, forward=FORWARD))
    size = f"{len(DAYS)} expiries x {STRIKES} strikes"
    found = [
        Row("P8", f"{size}: arrays -> SVI, rr25, fly25", f"{from_arrays:.2f} ms", f"<= {GOAL_MS:g} ms", from_arrays <= GOAL_MS),
        Row("P8", f"{size}: rows -> checked surface", f"{from_rows:.2f} ms", f"<= {GOAL_MS:g} ms", from_rows <= GOAL_MS),
        Row("P8", f"{size}: JSON rows -> checked surface", f"{from_json:.2f} ms", "", None),
    ]
    ts_ms, deribit = recorded()
    prices = [{name: row.get(name) for name in ("instrument_name", "underlying_price", "mark_price")} for row in deribit]
    for what, of in (("its volatilities", deribit), ("prices alone, inverted", prices)):
        taken = ms(lambda of=of: chain.build(of, ts_ms))
        found.append(Row("P8", f"Deribit's BTC chain, {len(of)} rows, {what}", f"{taken:.2f} ms", "", None))
    names = ("call", "put")
    long = [
        {"k": 40_000.0 + 60 * (i % 1_000), "tenor": f"{1 + i // 2_000}w", "type": names[i // 1_000 % 2], "iv": 0.5} for i in range(LONG)
    ]
    taken = ms(lambda: chain.build(long, NOW_MS, forward=FORWARD), 3) / 1e3
    found.append(Row("P8", f"{LONG:,} rows, 50 expiries", f"{taken:.2f} s", f"<= {LONG_GOAL_S:g} s", taken <= LONG_GOAL_S))
    return found


if __name__ == "__main__":
    for row in run():
        print(row)
