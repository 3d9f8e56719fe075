"""Risk of an equity curve: volatility, tail, drawdown and Sharpe ratio, with intervals that serial correlation cannot flatter.

A statistic of n returns moves, to first order, by the mean of its influence function, so that its standard error is the root of
that function's long-run variance over n. One estimate of it, with Bartlett weights and a lag of ``sqrt(n)``, serves the Sharpe ratio and
the expected shortfall alike, needs no chance, and takes O(n). A long lag is what clustered losses need, and costs little where there are
none: ``|t|`` is held against a wider critical value in return. docs/RISK.md has how often the intervals hold the truth.

References
----------
[1] C. Acerbi, D. Tasche, Journal of Banking and Finance 26(7), 2002.
[2] A. W. Lo, Financial Analysts Journal 58(4), 2002.
[3] E. Mertens, Comments on variance of the IID estimator in Lo, 2002.
"""

import math

import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.domain.backtest import Interval, Risk
from alphapack.models.prediction import critical_value, long_run_variance

YEAR_S = 31_536_000
"""365 days: these markets never close."""
RETURN_MAX = 1e100
"""Above any return; its square stays far from the largest float."""
RETURNS_MIN = 30
"""Fewer have no volatility and no Sharpe ratio that could be believed."""
TAIL_MIN, TAIL_INTERVAL_MIN = 1.0, 10.0
"""Returns that the tail of an expected shortfall must have, and those that its interval needs."""
ROUNDING = 1e-12
"""A standard deviation this small beside the mean is what dividing left over."""


def bar_returns(equity: Float64Array1D) -> Float64Array1D:
    """Return ``e_i / e_(i-1) - 1`` as float64[n - 1].

    Raises ``ValueError`` where an equity but the last is not above 0: what is lost then is a fraction of nothing.
    """
    e = _checked(equity, "equity", 1)
    if len(e) > 1 and float(np.min(e[:-1])) <= 0.0:
        raise ValueError(f"expected equities above 0 to divide by, found {float(np.min(e[:-1]))}")
    returns: Float64Array1D = np.diff(e) / e[:-1]
    return returns


def expected_shortfall(returns: Float64Array1D, level: float = 0.95) -> float:
    """Return the mean loss of the worst ``1 - level`` of the returns, above zero where it is a loss.

    The tail has ``k = n (1 - level)`` returns. The last of them counts with the part of it that k has, so that the measure is continuous
    in the level and coherent [1]; of a tail of less than one it is the worst return.

    Parameters
    ----------
    returns : float64[n]
        In any unit and order, n >= 1.
    level : float
        In (0, 1): 0.95 asks for the worst twentieth.

    Returns
    -------
    float
        In the unit of the returns.

    Raises
    ------
    ValueError
        With what was expected and what came.
    """
    return _tail(_checked(returns, "returns", 1), level)[0]


def max_drawdown(equity: Float64Array1D) -> float:
    """Return the largest fall from a highest equity before it, as a fraction of that: 0 where it never falls, above 1 below zero.

    ``equity`` is float64[n] in order of time, n >= 1, the first above 0. Raises ``ValueError`` where it is not.
    """
    e = _checked(equity, "equity", 1)
    if e[0] <= 0.0:
        raise ValueError(f"expected a first equity above 0, found {e[0]}")
    peak = np.maximum.accumulate(e)
    return float(np.max((peak - e) / peak))


def realized_vol(returns: Float64Array1D, bar_s: float) -> float:
    """Return the standard deviation (ddof 1) of n >= 2 returns over ``bar_s`` seconds each, scaled to a year of 365 days."""
    r = _checked(returns, "returns", 2)
    return float(np.std(r, ddof=1)) * math.sqrt(_bars_a_year(bar_s))


def sharpe(returns: Float64Array1D, bar_s: float) -> tuple[float, Interval] | None:
    """Return the Sharpe ratio of a year, and its interval of 95%; None where the returns do not vary.

    The ratio is mean over standard deviation (ddof 1), times the root of the bars in a year; cash earns nothing here. Its variance is that
    of its influence function ``z - S (z^2 - 1) / 2``, z the standardised return: for independent returns
    ``(1 - S skew + S^2 (kurtosis - 1) / 4) / n``, kurtosis 3 = normal [3], which is Lo's ``(1 + S^2 / 2) / n`` for normal ones [2].

    Parameters
    ----------
    returns : float64[n]
        In order of time, n >= 2.
    bar_s : float
        Seconds of one, above 0.
    """
    r = _checked(returns, "returns", 2)
    scale = math.sqrt(_bars_a_year(bar_s))
    mean, deviation = float(np.mean(r)), float(np.std(r))
    if deviation <= ROUNDING * abs(mean):
        return None
    z = (r - mean) / deviation
    ratio = mean / deviation
    half = _half_width(z - 0.5 * ratio * (z * z - 1.0))
    ratio = mean / float(np.std(r, ddof=1))
    return scale * ratio, (scale * (ratio - half), scale * (ratio + half))


def shortfall_interval(returns: Float64Array1D, level: float = 0.95) -> Interval | None:
    """Return the interval of 95% of ``expected_shortfall``; None where the tail does not vary, or may as well be no loss.

    It is symmetric in the logarithm, for the error of a tail's mean leans towards larger losses. Parameters and errors are those of
    ``expected_shortfall``; the returns are in order of time.
    """
    r = _checked(returns, "returns", 1)
    shortfall, edge = _tail(r, level)
    influence = np.maximum(0.0, -r - edge) / (1.0 - level) + edge - shortfall
    half = _half_width(influence - np.mean(influence))
    if not ROUNDING * abs(edge) < half < shortfall:
        return None
    return shortfall * math.exp(-half / shortfall), shortfall * math.exp(half / shortfall)


def turnover(traded: float, equity: Float64Array1D) -> float:
    """Return notional traded, zero or more, over mean equity, which must be above 0; not annualised."""
    e = _checked(equity, "equity", 1)
    mean = float(np.mean(e))
    if not (0.0 <= traded < math.inf and mean > 0.0):
        raise ValueError(f"expected a notional of zero or more and a mean equity above 0, found {traded} and {mean}")
    return traded / mean


def measure(equity: Float64Array1D, bar_s: int, traded: float = 0.0) -> Risk:
    """Return all risk numbers of an equity curve, each None where there is too little to tell.

    Parameters
    ----------
    equity : float64[n]
        One a bar, in order of time; n may be 0. Where it comes to 0 or less, only drawdown and turnover are told.
    bar_s : int
        Seconds of a bar, above 0.
    traded : float
        Notional of all fills meanwhile, in the unit of the equity.

    Raises
    ------
    ValueError
        With what was expected and what came.
    """
    e = _checked(equity, "equity", 0)
    _bars_a_year(bar_s)
    n = max(0, len(e) - 1)
    alive = n > 0 and float(np.min(e)) > 0.0
    returns = bar_returns(e) if alive else np.empty(0)
    enough = len(returns) >= RETURNS_MIN
    ratio = sharpe(returns, bar_s) if enough else None
    return Risk(
        n=n,
        bar_s=bar_s,
        realized_vol=realized_vol(returns, bar_s) if enough else None,
        cvar95=_shortfall_of(returns, 0.95),
        cvar99=_shortfall_of(returns, 0.99),
        cvar_ci=shortfall_interval(returns, 0.95) if len(returns) * (1.0 - 0.95) >= TAIL_INTERVAL_MIN else None,
        max_drawdown=max_drawdown(e) if n > 0 and e[0] > 0.0 else None,
        turnover=turnover(traded, e) if n > 0 and float(np.mean(e)) > 0.0 else None,
        sharpe=None if ratio is None else ratio[0],
        sharpe_ci=None if ratio is None else ratio[1],
    )


def _shortfall_of(returns: Float64Array1D, level: float) -> float | None:
    return expected_shortfall(returns, level) if len(returns) * (1.0 - level) >= TAIL_MIN else None


def _tail(returns: Float64Array1D, level: float) -> tuple[float, float]:
    """Return the expected shortfall and the loss at which its tail begins."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"expected a level between 0 and 1, found {level}")
    k = len(returns) * (1.0 - level)
    whole = min(int(k), len(returns) - 1)
    losses = -np.sort(returns)
    edge = float(losses[whole])
    return (float(np.sum(losses[:whole])) + (k - whole) * edge) / k + 0.0, edge  # + 0.0: no loss is 0, not -0.


def _half_width(influence: Float64Array1D) -> float:
    """Return half the width of an interval of 95%, from an influence function of mean zero."""
    n = len(influence)
    lag = math.isqrt(n - 1)
    return critical_value(lag, n) * math.sqrt(long_run_variance(influence, lag) / n)


def _bars_a_year(bar_s: float) -> float:
    if not 0.0 < bar_s < math.inf:
        raise ValueError(f"expected bars of more than 0 s, found {bar_s}")
    return YEAR_S / bar_s


def _checked(values: Float64Array1D, name: str, least: int) -> Float64Array1D:
    """Return the values as float64, in order, all of them finite and at least so many."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"expected at least {least} values of {name} in one row, found shape {array.shape}")
    if len(array) and not float(np.max(np.abs(array))) <= RETURN_MAX:
        raise ValueError(f"expected {name} within {RETURN_MAX:g} of zero, found NaN or more")
    return array
