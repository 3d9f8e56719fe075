"""Risk numbers against published tables, NumPy and sums by hand; intervals against samples whose truth is known."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from alphapack.arrays import Float64Array1D
from alphapack.models import risk

RETURNS = st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=60).map(np.array)
LEVELS = st.floats(0.01, 0.99)


def sample(distribution: Any, mean_above: Callable[[Float64Array1D], Float64Array1D], n: int = 2_000) -> Float64Array1D:
    """Return the means of n equally likely parts of a distribution, of which ``mean_above`` is the integral of ``x f(x)`` above x.

    Its expected shortfall is the distribution's own at every level that falls between two parts.
    """
    above = np.concatenate(([0.0], mean_above(distribution.ppf(np.arange(1, n) / n)), [0.0]))
    numbers: Float64Array1D = n * (above[:-1] - above[1:])
    return numbers


def integral(returns: Float64Array1D, level: float) -> float:
    """Return the mean of the quantile function over the tail, part by part."""
    n, tail = len(returns), 1.0 - level
    parts = [max(0.0, min(tail, (i + 1) / n) - i / n) for i in range(n)]
    return math.fsum(-part * one for part, one in zip(parts, sorted(returns), strict=True)) / tail


# Expected shortfall


@pytest.mark.parametrize(("level", "published"), [(0.95, 2.062713), (0.975, 2.337803), (0.99, 2.665214)])
def test_report_rollups_expected_shortfall_of_the_normal_is_the_published_one(level: float, published: float) -> None:
    assert risk.expected_shortfall(sample(stats.norm, stats.norm.pdf), level) == pytest.approx(published, abs=1e-6)


@pytest.mark.parametrize(("level", "published"), [(0.95, 3.202870), (0.975, 3.993557), (0.99, 5.220584)])
def test_report_rollups_expected_shortfall_knows_fat_tails(level: float, published: float) -> None:
    """A normal with the variance of t4 would say 3.77 at 99%, 28% too little."""
    t4 = stats.t(4)
    assert risk.expected_shortfall(sample(t4, lambda x: (4.0 + x * x) / 3.0 * t4.pdf(x)), level) == pytest.approx(published, abs=1e-6)
    drawn = np.random.default_rng(11).standard_t(4, 400_000)
    assert risk.expected_shortfall(drawn, level) == pytest.approx(published, rel=0.02)


def test_report_rollups_expected_shortfall_counts_a_part_of_the_last() -> None:
    """k = 10 x 0.25 = 2.5: the losses 9 and 5 and half of the loss 4."""
    returns = np.array([1.0, -5.0, 2.0, -9.0, 0.0, 3.0, -4.0, 1.0, 1.0, 2.0])
    assert risk.expected_shortfall(returns, 0.75) == pytest.approx((9.0 + 5.0 + 0.5 * 4.0) / 2.5, rel=1e-14)
    assert risk.expected_shortfall(returns, 0.95) == pytest.approx(9.0, rel=1e-14)
    assert risk.expected_shortfall(np.full(20, 0.5)) == pytest.approx(-0.5, rel=1e-14)
    assert math.copysign(1.0, risk.expected_shortfall(np.zeros(40))) == 1.0


@given(returns=RETURNS, level=LEVELS)
def test_report_rollups_expected_shortfall_is_the_integral_of_the_tail(returns: Float64Array1D, level: float) -> None:
    assert risk.expected_shortfall(returns, level) == pytest.approx(integral(returns, level), rel=1e-12, abs=1e-12)


@given(returns=RETURNS, other=RETURNS, level=LEVELS, factor=st.floats(0.0, 10.0), shift=st.floats(-1.0, 1.0))
def test_report_rollups_expected_shortfall_is_coherent(
    returns: Float64Array1D, other: Float64Array1D, level: float, factor: float, shift: float
) -> None:
    n = min(len(returns), len(other))
    a, b = returns[:n], other[:n]
    apart = risk.expected_shortfall(a, level) + risk.expected_shortfall(b, level)
    assert risk.expected_shortfall(a + b, level) <= apart + 1e-9
    assert risk.expected_shortfall(factor * a + shift, level) == pytest.approx(
        factor * risk.expected_shortfall(a, level) - shift, rel=1e-9, abs=1e-9
    )
    assert risk.expected_shortfall(np.maximum(a, b), level) <= risk.expected_shortfall(a, level) + 1e-12


# Drawdown, volatility, turnover


def test_report_rollups_max_drawdown_by_hand() -> None:
    assert risk.max_drawdown(np.array([100.0, 120.0, 90.0, 130.0, 104.0])) == pytest.approx(0.25, rel=1e-15)
    assert risk.max_drawdown(np.array([5.0])) == 0.0
    assert risk.max_drawdown(np.array([1.0, 2.0, 3.0])) == 0.0
    assert risk.max_drawdown(np.array([100.0, -20.0])) == pytest.approx(1.2, rel=1e-15)


@given(equity=st.lists(st.floats(1.0, 1e6), min_size=1, max_size=40))
def test_report_rollups_max_drawdown_is_that_of_the_worst_pair(equity: list[float]) -> None:
    worst = max((equity[i] - equity[j]) / equity[i] for i in range(len(equity)) for j in range(i, len(equity)))
    assert risk.max_drawdown(np.array(equity)) == pytest.approx(worst, rel=1e-12)


@given(returns=RETURNS, bar_s=st.sampled_from([10, 60, 86_400]))
def test_report_rollups_volatility_is_that_of_365_days(returns: Float64Array1D, bar_s: int) -> None:
    expected = statistics.stdev(returns.tolist()) * math.sqrt(365 * 86_400 / bar_s)
    assert risk.realized_vol(returns, bar_s) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_report_rollups_turnover_is_over_the_mean_equity() -> None:
    assert risk.turnover(600.0, np.array([100.0, 200.0])) == 4.0


# Sharpe


def test_report_rollups_sharpe_is_the_textbook_ratio_and_error() -> None:
    """With a lag of none the error is that of Mertens (2002); the annual factor is not that of 252 days."""
    r = np.random.default_rng(5).standard_t(6, 4_000) * 1e-3 + 1e-4
    ratio = float(np.mean(r) / np.std(r, ddof=1))
    found = risk.sharpe(r, 60)
    assert found is not None
    value, (low, high) = found
    scale = math.sqrt(525_600.0)
    assert value == pytest.approx(ratio * scale, rel=1e-12)
    assert low + high == pytest.approx(2 * value, rel=1e-9)
    skew, kurtosis = float(stats.skew(r)), float(stats.kurtosis(r, fisher=False))
    mertens = math.sqrt((1.0 - skew * ratio + ratio * ratio * (kurtosis - 1.0) / 4.0) / len(r))
    # Independent returns: the long-run variance is the plain one but for the noise of a lag of 63.
    assert (high - low) / 2 == pytest.approx(1.96 * mertens * scale, rel=0.15)


def test_report_rollups_sharpe_error_is_that_of_its_influence_function() -> None:
    """Without lag the long-run variance is the mean square, which is the closed form of Mertens to the last digits."""
    r = np.random.default_rng(6).gamma(2.0, 1.0, 500) - 1.8
    z = (r - np.mean(r)) / np.std(r)
    ratio = float(np.mean(r) / np.std(r))
    influence = z - 0.5 * ratio * (z * z - 1.0)
    skew, kurtosis = float(stats.skew(r)), float(stats.kurtosis(r, fisher=False))
    assert float(np.mean(influence**2)) == pytest.approx(1.0 - skew * ratio + ratio**2 * (kurtosis - 1.0) / 4.0, rel=1e-12)


def test_report_rollups_sharpe_of_what_does_not_vary_is_not_known() -> None:
    assert risk.sharpe(np.zeros(50), 60) is None
    assert risk.sharpe(risk.bar_returns(100.0 * 1.001 ** np.arange(50)), 60) is None


def correlated(rng: np.random.Generator, n: int) -> Float64Array1D:
    """Return AR(1) returns, coefficient 0.3, mean 0.05 and innovations of variance 1."""
    out, x = np.empty(n), 0.0
    for i, shock in enumerate(rng.standard_normal(n)):
        x = 0.3 * x + shock
        out[i] = x + 0.05
    return out


def test_report_rollups_sharpe_interval_holds_the_truth_of_correlated_returns() -> None:
    """An error for independent returns would hold it in 85 of 100 samples."""
    rng, truth, held = np.random.default_rng(8), 0.05 * math.sqrt(1.0 - 0.09), 0
    for _ in range(300):
        found = risk.sharpe(correlated(rng, 360), risk.YEAR_S)
        assert found is not None
        held += found[1][0] <= truth <= found[1][1]
    assert 0.91 <= held / 300 <= 0.98


@pytest.mark.parametrize(("draw", "truth", "least"), [("standard_normal", 2.062713, 0.91), ("standard_t4", 3.202870, 0.87)])
def test_report_rollups_shortfall_interval_holds_the_truth(draw: str, truth: float, least: float) -> None:
    rng, held = np.random.default_rng(9), 0
    for _ in range(300):
        interval = risk.shortfall_interval(rng.standard_t(4, 1_440) if draw == "standard_t4" else rng.standard_normal(1_440))
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert least <= held / 300 <= 0.99


def test_report_rollups_shortfall_has_no_interval_where_it_may_be_no_loss() -> None:
    assert risk.shortfall_interval(np.full(400, -0.01)) is None
    assert risk.shortfall_interval(np.full(400, 0.01)) is None
    assert risk.shortfall_interval(np.zeros(400)) is None
    barely = np.ones(400)
    barely[0] = -20.0
    assert risk.expected_shortfall(barely) == pytest.approx(0.05, rel=1e-9)
    assert risk.shortfall_interval(barely) is None


# All together


def test_report_rollups_risk_is_made_of_its_parts() -> None:
    equity = 1e5 * np.cumprod(1.0 + 1e-4 * np.random.default_rng(3).standard_normal(1_000))
    found, r = risk.measure(equity, 60, 250_000.0), risk.bar_returns(equity)
    assert (found.n, found.bar_s) == (999, 60)
    assert found.realized_vol == risk.realized_vol(r, 60)
    assert (found.cvar95, found.cvar99) == (risk.expected_shortfall(r, 0.95), risk.expected_shortfall(r, 0.99))
    assert found.cvar95 is not None and found.cvar99 is not None and found.cvar_ci is not None
    assert found.cvar_ci[0] < found.cvar95 < found.cvar_ci[1] and found.cvar95 < found.cvar99
    assert (found.sharpe, found.sharpe_ci) == risk.sharpe(r, 60)
    assert found.max_drawdown == risk.max_drawdown(equity)
    assert found.turnover == pytest.approx(250_000.0 / float(np.mean(equity)), rel=1e-15)


@pytest.mark.parametrize(
    ("n", "known"),
    [
        (0, set()),
        (1, set()),
        (2, {"max_drawdown", "turnover"}),
        (21, {"max_drawdown", "turnover", "cvar95"}),
        (31, {"max_drawdown", "turnover", "cvar95", "realized_vol", "sharpe", "sharpe_ci"}),
        (201, {"max_drawdown", "turnover", "cvar95", "cvar99", "cvar_ci", "realized_vol", "sharpe", "sharpe_ci"}),
    ],
)
def test_report_rollups_risk_that_is_not_known_is_none(n: int, known: set[str]) -> None:
    equity = 1e5 * np.cumprod(1.0 + 1e-4 * np.random.default_rng(4).standard_normal(n))
    found = risk.measure(equity, 10, 1.0)
    names = ("realized_vol", "cvar95", "cvar99", "cvar_ci", "max_drawdown", "turnover", "sharpe", "sharpe_ci")
    assert {name for name in names if getattr(found, name) is not None} == known


def test_report_rollups_risk_of_an_account_that_never_traded_or_lost_all() -> None:
    still = risk.measure(np.full(500, 1e5), 60)
    assert (still.realized_vol, still.cvar95, still.max_drawdown, still.turnover) == (0.0, 0.0, 0.0, 0.0)
    assert still.sharpe is None and still.cvar_ci is None
    lost = risk.measure(np.linspace(100.0, -10.0, 60), 60, 50.0)
    assert lost.realized_vol is None and lost.cvar95 is None and lost.sharpe is None
    assert lost.max_drawdown == pytest.approx(1.1, rel=1e-12)


@given(equity=st.lists(st.floats(-1e3, 1e12), max_size=250), traded=st.floats(0.0, 1e15))
def test_report_rollups_risk_is_finite_or_not_known(equity: list[float], traded: float) -> None:
    found = risk.measure(np.array([abs(one) + 1e-3 for one in equity[:1]] + equity[1:]), 60, traded)
    for name in found.__struct_fields__:
        values = getattr(found, name)
        assert all(math.isfinite(one) for one in (values if isinstance(values, tuple) else (values,)) if one is not None), name


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: risk.expected_shortfall(np.empty(0)), "expected at least 1 values of returns"),
        (lambda: risk.expected_shortfall(np.ones((2, 2))), "expected at least 1 values of returns"),
        (lambda: risk.expected_shortfall(np.array([1.0, math.nan])), "expected returns within"),
        (lambda: risk.expected_shortfall(np.array([1.0, math.inf])), "expected returns within"),
        (lambda: risk.expected_shortfall(np.ones(3), 1.0), "expected a level between 0 and 1, found 1.0"),
        (lambda: risk.expected_shortfall(np.ones(3), math.nan), "expected a level between 0 and 1, found nan"),
        (lambda: risk.max_drawdown(np.array([0.0, 1.0])), "expected a first equity above 0, found 0.0"),
        (lambda: risk.bar_returns(np.array([1.0, 0.0, 1.0])), "expected equities above 0 to divide by, found 0.0"),
        (lambda: risk.realized_vol(np.ones(3), 0.0), "expected bars of more than 0 s, found 0.0"),
        (lambda: risk.realized_vol(np.ones(1), 60.0), "expected at least 2 values of returns"),
        (lambda: risk.turnover(-1.0, np.ones(3)), "expected a notional of zero or more"),
        (lambda: risk.turnover(1.0, np.zeros(3)), "mean equity above 0"),
        (lambda: risk.measure(np.ones(3), 0), "expected bars of more than 0 s, found 0"),
    ],
)
def test_report_rollups_what_has_no_risk_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
