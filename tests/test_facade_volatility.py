"""``ap.garch``, ``ap.har`` and ``ap.forecast_vol`` as a notebook calls them, on published numbers and recorded candles."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alphapack as ap
from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.models.minutes import MINUTE_MS
from alphapack.shell import candle_files

FIRST_MS = 1_700_000_040_000
N = 12_000


def column(path: Path, name: str) -> Float64Array1D:
    with path.open() as file:
        return np.array([float(row[name]) for row in csv.DictReader(file)])


def candles(n: int = N, seed: int = 0) -> Float64Array2D:
    rng = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(rng.standard_normal(n) * 5e-4 * np.exp(0.3 * np.sin(np.arange(n) / 200))))
    rows = np.empty((n, 6))
    rows[:, 0] = FIRST_MS // MINUTE_MS * MINUTE_MS + MINUTE_MS * np.arange(n)
    rows[:, 1:5] = closes[:, None]
    rows[:, 5] = 1.0
    return rows


def test_vol_models_have_the_published_garch_of_the_mark_and_the_pound(data: Path) -> None:
    """Fiorentini, Calzolari and Panattoni's benchmark, to the eleven digits on which the TSP programme's methods agree."""
    fit = ap.garch(column(data / "econ" / "dem2gbp.csv", "return_pct"), mean="constant", presample="ssr")
    published = {"mu": -0.00619040837994, "omega": 0.010761397852, "alpha": 0.153134061820, "beta": 0.805973670305}
    for name, value in published.items():
        assert fit.params[name] == pytest.approx(value, rel=1e-9)
    assert (fit.mu, fit.omega, fit.alpha, fit.beta) == tuple(fit.params[name] for name in published)
    assert fit.loglik == pytest.approx(-1106.60788, abs=1e-5)
    assert fit.converged is True
    bollerslev_wooldridge = {"mu": 0.00873092468675, "omega": 0.00312363750618, "alpha": 0.027321933999, "beta": 0.030150885923}
    for name, value in bollerslev_wooldridge.items():
        assert fit.stderr(kind="bw")[name] == pytest.approx(value, rel=1e-9)
    assert fit.forecast(10) > fit.forecast(1) > 0


def test_vol_models_have_the_regression_of_the_sp500(data: Path) -> None:
    fit = ap.har(column(data / "econ" / "sp500_rm_1997_2013.csv", "RV"))
    assert list(fit.params) == ["const", "rv_1", "rv_5", "rv_22"]
    np.testing.assert_allclose(list(fit.params.values()), [0.11231, 0.22734, 0.49035, 0.18638], atol=5e-6)
    assert fit.r2 == pytest.approx(0.52243, abs=5e-6)
    assert fit.n == 4_074
    assert fit.forecast() > 0
    assert set(fit.stderr()) == set(fit.params)


@pytest.mark.parametrize("variant", ["log", "harq", "harj"])
def test_vol_models_have_the_variants_of_the_regression(data: Path, variant: Any) -> None:
    path = data / "econ" / "sp500_rm_1997_2013.csv"
    extra = {"harq": {"rq": column(path, "RQ")}, "harj": {"bpv": column(path, "BPV")}}.get(variant, {})
    fit = ap.har(column(path, "RV"), variant=variant, **extra)
    assert 0.4 < fit.r2 < 0.8
    assert fit.forecast() > 0


def test_vol_models_take_lists_and_integers() -> None:
    returns = np.random.default_rng(1).standard_normal(300)
    assert ap.garch(returns.tolist()).params == ap.garch(returns).params
    assert ap.har(list(range(1, 40)) * 3).n == 117 - 22


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ap.garch("ab"), "expected returns as a row of numbers, found"),
        (lambda: ap.garch(np.ones((3, 3))), r"found float64 of shape \(3, 3\)"),
        (lambda: ap.har([[1.0]]), "expected rv as a row of numbers"),
        (lambda: ap.garch(np.zeros(500)), "expected"),
        (lambda: ap.garch([math.nan] * 500), "expected"),
        (lambda: ap.har([1.0] * 500), "expected"),
    ],
)
def test_vol_models_say_what_they_expected(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


class Table(dict[str, Any]):
    """Columns by name, as a data frame has them."""


def test_vol_models_take_candles_in_any_form() -> None:
    rows = candles()
    names = ("ts_ms", "open", "high", "low", "close", "volume")
    expected = ap.forecast_vol(rows, 60)
    assert all(0 < sigma < 0.1 for sigma in expected)
    table = Table({name: rows[:, i] for i, name in enumerate(names)}, extra=["x"] * N)
    structured = np.zeros(N, [(name, np.float64) for name in names])
    for i, name in enumerate(names):
        structured[name] = rows[:, i]
    shuffled = rows[np.random.default_rng(2).permutation(N)]
    doubled = np.concatenate((rows, rows[-500:]))
    for form in (table, structured, shuffled, doubled, rows.tolist()):
        assert ap.forecast_vol(form, 60) == expected


def test_vol_models_forecast_an_hour_of_bitcoin(data: Path) -> None:
    rows = candle_files.read(data / "candles" / "binance-spot_BTCUSDT_1m_20250520-20250818.csv.gz")
    known, came = rows[:50_000], rows[49_999:50_060]
    realised = math.sqrt(float(np.sum(np.diff(np.log(came[:, 4])) ** 2)))
    for sigma in ap.forecast_vol(known, 60):
        assert 0.4 < sigma / realised < 2.5


def without(rows: Float64Array2D, change: Callable[[Float64Array2D], None]) -> Float64Array2D:
    changed = rows.copy()
    change(changed)
    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.__setitem__((7, 4), math.nan), "expected candles of whole minutes .*close nan"),
        (lambda rows: rows.__setitem__((7, 0), rows[7, 0] + 1), "expected candles of whole minutes"),
        (lambda rows: rows.__setitem__((7, slice(1, 5)), -1.0), "0 < low"),
        (lambda rows: rows.__setitem__((7, 0), rows[6, 0]), "expected one candle a minute, found two that contradict"),
        (lambda rows: rows.__setitem__((slice(None), slice(1, 5)), 5.0), "expected prices that move"),
    ],
)
def test_vol_models_refuse_candles_that_are_none(change: Callable[[Float64Array2D], None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ap.forecast_vol(without(candles(), change), 60)


def test_vol_models_take_the_least_number_of_candles_and_no_candle_of_another_century() -> None:
    rows = candles(10_110)
    assert all(sigma > 0 for sigma in ap.forecast_vol(rows, 1))
    with pytest.raises(ValueError, match="1 more are missing"):
        ap.forecast_vol(rows[1:], 1)
    rows[-1, 0] += MINUTE_MS * 60 * 24 * 365 * 100
    with pytest.raises(ValueError, match="expected at least 10,110 one-minute candles"):
        ap.forecast_vol(rows, 1)


def test_vol_models_refuse_too_few_candles_and_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"expected at least 10,110 one-minute candles .*, found 10,000: 110 more are missing"):
        ap.forecast_vol(candles(10_000), 60)
    with pytest.raises(ValueError, match=r"expected candles of shape \(n, 6\) or columns ts_ms, open"):
        ap.forecast_vol(np.ones((500, 5)), 60)
    with pytest.raises(ValueError, match="found none of volume"):
        ap.forecast_vol({name: [1.0] for name in ("ts_ms", "open", "high", "low", "close")}, 60)
    for horizon in (0, 10_081, 1.5, True):
        with pytest.raises(ValueError, match=r"expected a horizon of 1 to 10,080 whole minutes"):
            ap.forecast_vol(candles(), horizon)  # type: ignore[arg-type]


def test_vol_models_outlive_one_absurd_candle_in_a_file() -> None:
    rows = candles()
    before = ap.forecast_vol(rows, 60)
    rows[N - 100, 1:5] *= 1e4
    for sigma, sane in zip(ap.forecast_vol(rows, 60), before, strict=True):
        assert sigma == pytest.approx(sane, rel=0.2)
