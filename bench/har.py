"""P6: a series of variances -> HAR(1,5,22) with Newey-West errors, against other projects.

All sides get the same 43,222 values, hence 43,200 observations. Ours and arch's begin with the series and end with coefficients,
their errors and R2; the others are handed the finished regressors, which is the smaller part of the work.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
from peers import RUNS, clock, one_core, times
from report import Row, median

from alphapack.models import har

ROWS = 43_200
LAGS = (1, 5, 22)
GOAL = 25.0
DIGITS = 1e-9
OURS = "ours"
ARCH = "arch HARX(...).fit()"

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Side = Callable[[], Floats]
"""Does the work and returns the coefficients, constant first."""


def series() -> Floats:
    """Return 43,222 variances with a slow logarithm."""
    draws = np.random.default_rng(22)
    noise = draws.standard_normal(ROWS + LAGS[-1] + 499)
    kernel = 0.995 ** np.arange(500)
    return np.exp(0.1 * np.convolve(noise, kernel, "valid")) * draws.chisquare(3, ROWS + LAGS[-1]) / 3.0


def design(values: Floats) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], Floats]:
    """Return regressors and target, each mean a plain sum."""
    means = [np.lib.stride_tricks.sliding_window_view(values, lag).mean(axis=1)[LAGS[-1] - lag : -1] for lag in LAGS]
    return np.column_stack((np.ones(ROWS), *means)), values[LAGS[-1] :]


def sides(values: Floats) -> dict[str, Side]:
    """Return what is installed, by what it does."""
    x, y = design(values)
    found: dict[str, Side] = {
        OURS: lambda: np.array(har.fit(values, LAGS, errors=False).coefficients),
        "ours with Newey-West errors": lambda: np.array(har.fit(values, LAGS).coefficients),
        "numpy linalg.lstsq, regressors given, no errors": lambda: np.linalg.lstsq(x, y, rcond=None)[0],
    }
    if importlib.util.find_spec("arch"):
        from arch.univariate import HARX

        model = HARX(values, lags=list(LAGS), rescale=False)
        found[ARCH] = lambda: HARX(values, lags=list(LAGS), rescale=False).fit(disp="off").params.to_numpy()[:-1]
        found["arch fit() alone, of a model that is made"] = lambda: model.fit(disp="off").params.to_numpy()[:-1]
    if importlib.util.find_spec("statsmodels"):
        from statsmodels.api import OLS

        lag = har.newey_west_lag(ROWS, 1)
        found[f"statsmodels OLS, HAC of lag {lag}, regressors given"] = lambda: (
            OLS(y, x).fit(cov_type="HAC", cov_kwds={"maxlags": lag}).params
        )
    return found


def measure() -> dict[str, float]:
    """Return the median seconds of each side, in turn, again and again."""
    values = series()
    entrants = sides(values)
    expected = np.linalg.lstsq(*design(values), rcond=None)[0]
    for name, side in entrants.items():  # Also warms up.
        if not np.allclose(side(), expected, rtol=DIGITS, atol=0.0):
            raise AssertionError(f"expected coefficients {expected} of {name}, found {side()}")
    taken: dict[str, list[float]] = {name: [] for name in entrants}
    with one_core():
        for _ in range(3 * RUNS):
            for name, side in entrants.items():
                start = clock()
                side()
                taken[name].append(clock() - start)
    return {name: median(found) for name, found in taken.items()}


def run() -> list[Row]:
    # In a process of its own, where linear algebra has one thread: two on one core would wait for each other, to arch's harm.
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], env=environ, capture_output=True, text=True, check=True)
    seconds: dict[str, float] = json.loads(done.stdout)
    ours, against = seconds.pop(OURS), seconds.get(ARCH)
    what = f"HAR{LAGS} of {ROWS:,} observations, from the series to coefficients; equal to {DIGITS:.0e}"
    rows = [Row("P6", what, f"{ours * 1e3:.2f} ms", f">= {times(GOAL)} arch", None if against is None else against >= GOAL * ours)]
    for name, other in seconds.items():
        rows.append(Row("P6", f"  {name}", "", "", None, f"{other * 1e3:.2f} ms", times(other / ours)))
    if against is None:
        rows.append(Row("P6", f"  {ARCH}", "", "", None, "not installed"))
    return rows


if __name__ == "__main__":
    print(json.dumps(measure()))
