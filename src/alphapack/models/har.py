"""Heterogeneous autoregressions of realised variance, fitted to the horizon that they forecast. See docs/HAR.md.

    mean of v_(t+1) .. v_(t+h) = const + sum over w of b_w x mean of v_(t-w+1) .. v_t + e_t

``v`` is the realised variance of a period: a day in Corsi's regression, where ``h = 1`` and ``w`` is 1, 5 and 22; a squared return
where periods are minutes.

References
----------
F. Corsi, "A simple approximate long-memory model of realized volatility", Journal of Financial Econometrics 7(2), 2009.
T. G. Andersen, T. Bollerslev, F. X. Diebold, "Roughing it up", Review of Economics and Statistics 89(4), 2007 (HAR-J).
T. Bollerslev, A. J. Patton, R. Quaedvlieg, "Exploiting the errors", Journal of Econometrics 192(1), 2016 (HARQ, the insanity filter).
N. Duan, "Smearing estimate", Journal of the American Statistical Association 78, 1983.
W. K. Newey, K. D. West, Econometrica 55, 1987.
"""

import math
import operator
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D, Uint8Array1D
from alphapack.kernels import har as k
from alphapack.models.prediction import newey_west_lag as newey_west_lag

Variant = Literal["plain", "log", "harq", "harj"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
Valid = Uint8Array1D | np.ndarray[tuple[int], np.dtype[np.bool_]]

LAGS_MAX = 8
LAG_MAX = 1 << 30
MEAN_MIN = 1e-50
"""Products of smaller values would come near the smallest float."""
ROWS_A_PARAMETER = 2
"""Fewer observations for each parameter give no fit."""
_EXTRAS = {"harq": ("quarticity", "rq"), "harj": ("bipower", "jump")}
"""What a variant takes beside the values, and what its regressor is called."""


class Har(msgspec.Struct, frozen=True):
    """A fitted regression, a value that can be stored. Variances are means a period, in the unit of the values."""

    variant: Variant
    lags: tuple[int, ...]
    """Lengths of the windows, in periods, ascending."""
    horizon: int
    """Periods ahead over which the target is the mean."""
    step: int
    """Periods between observations."""
    coefficients: tuple[float, ...]
    """Constant, slopes of the windows, and of what the variant adds."""
    errors: tuple[float, ...]
    """Newey-West standard errors of the coefficients, without a correction for small samples; empty where none were wanted."""
    lag: int
    """Of those errors, in observations."""
    n: int
    """Observations."""
    rows_left_out: int
    """Observations with a window, or target, that was known too little; in the log variant also those that were zero."""
    r2: float
    """Share of the target's variance that is explained within the sample; of its logarithm in the log variant."""
    smearing: float
    """Mean of target / exp(fit) in the log variant, else 1."""
    low: float
    """Least positive target."""
    high: float
    """Largest target."""
    centre: float
    """Mean root of the quarticity over the observations in HARQ, else 0."""
    latest: tuple[float, ...]
    """What ``predict`` takes, at the end of the sample; empty where too little is known there."""

    def __post_init__(self) -> None:
        """Refuse what no fit is, since values come back from disk."""
        names = len(self.names)
        if len(self.coefficients) != names or len(self.errors) not in (0, names) or len(self.latest) not in (0, names - 1):
            raise ValueError(f"expected {names} coefficients and errors and {names - 1} regressors, found {self!r}")
        numbers = (*self.coefficients, *self.errors, *self.latest, self.r2, self.centre, self.high)
        if not all(map(math.isfinite, numbers)) or not 0.0 < self.low <= self.high or not 0.0 < self.smearing < math.inf:
            raise ValueError(f"expected finite numbers, a positive range and a positive smearing, found {self!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """``const``, ``rv_<periods>`` of each window, and ``rq`` (HARQ) or ``jump`` (HAR-J)."""
        return _names(self.variant, self.lags)

    @property
    def params(self) -> dict[str, float]:
        """Coefficients by name, constant first."""
        return dict(zip(self.names, self.coefficients, strict=True))

    @property
    def persistence(self) -> float:
        """By how much a level of all windows goes on into the target: the sum of the windows' slopes.

        In HARQ that is at the mean root of the quarticity, in HAR-J in the absence of jumps, in the log variant of logarithms.
        """
        return sum(self.coefficients[1 : len(self.lags) + 1])

    def stderr(self) -> dict[str, float]:
        """Return the Newey-West standard errors by name; ``ValueError`` where the fit was made without."""
        if not self.errors:
            raise ValueError("expected a fit with standard errors, found one that was made without")
        return dict(zip(self.names, self.errors, strict=True))

    def forecast(self) -> float:
        """Return the mean variance a period over the ``horizon`` periods that follow the sample.

        Raises
        ------
        ValueError
            Too little is known at the end of the sample, or nothing moved there in the log variant.
        """
        if not self.latest:
            raise ValueError(f"expected at least {k.COVERAGE:.0%} of the last {self.lags[-1]} periods of the sample, found fewer")
        return self.predict(np.array(self.latest))

    def predict(self, means: Float64Array1D) -> float:
        """Return the mean variance a period over the next ``horizon`` periods, within ``low`` and ``high``, so never 0 or less.

        Parameters
        ----------
        means
            Shape (len(lags),): mean values over the windows, as ``means`` of this module gives them; one more in HARQ and HAR-J: the mean
            quarticity or bipower variation over the first window. Levels, whatever the variant.

        Raises
        ------
        ValueError
            Another number of them, one that is negative or not finite, or a zero of which the log variant would take the logarithm.
        """
        levels = np.asarray(means, np.float64).tolist()
        if len(levels) != len(self.coefficients) - 1:
            raise ValueError(f"expected {len(self.coefficients) - 1} means, found {len(levels)}")
        for level in levels:
            if not 0.0 <= level <= k.VALUE_MAX or (level == 0.0 and self.variant == "log"):
                least = "above 0" if self.variant == "log" else "of at least 0"
                raise ValueError(f"expected means {least} and at most {k.VALUE_MAX:g}, found {level}")
        if self.variant == "log":
            levels = [math.log(level) for level in levels]
        elif self.variant == "harq":
            levels[-1] = (math.sqrt(levels[-1]) - self.centre) * levels[0]
        elif self.variant == "harj":
            levels[-1] = max(levels[0] - levels[-1], 0.0)
        total = self.coefficients[0]
        for slope, level in zip(self.coefficients[1:], levels, strict=True):
            total += slope * level
        if self.variant == "log":
            # Beyond the range it is cut anyway, and exp must not overflow before.
            total = self.smearing * math.exp(min(total, math.log(self.high / self.smearing)))
        return min(max(total, self.low), self.high)


def fit(
    values: Float64Array1D,
    lags: Sequence[int] = (1, 5, 22),
    variant: Variant = "plain",
    *,
    quarticity: Float64Array1D | None = None,
    bipower: Float64Array1D | None = None,
    horizon: int = 1,
    step: int = 1,
    valid: Valid | None = None,
    lag: int | None = None,
    errors: bool = True,
) -> Har:
    """Fit the mean of the next ``horizon`` values to the means over the windows before.

    Observations lie ``step`` periods apart, the newest at the last period whose target is known, the oldest where all
    windows fit in. A window's mean is over its known periods, of which it needs 90%; an observation that lacks one is left out, and so
    is, in the log variant, one with a window or target of zeros.

    Parameters
    ----------
    values
        Shape (n,): realised variance of each period, at least 0, in any unit; read where ``valid``.
    lags
        Lengths of the windows in periods, ascending.
    variant
        ``plain``: levels. ``log``: logarithms of the means, brought back by Duan's smearing. ``harq``: adds the root of the
        quarticity, centred on its mean over the observations, times the first window. ``harj``: adds what the first window exceeds
        its bipower variation by, where it does.
    quarticity, bipower
        Shape (n,), of each period: for ``harq`` and ``harj``, and for these alone.
    horizon, step
        Periods of the target, and between observations.
    valid
        Shape (n,): which periods are known; all, where left out.
    lag
        Of the standard errors, in observations; by default ``newey_west_lag(observations, ceil(horizon / step))``.

    errors
        Whether standard errors are wanted: a third of the work.

    Raises
    ------
    ValueError
        Values that are none, too few observations, or regressors that do not vary or follow from each other: which, is in the text.
    """
    lengths = _lengths(lags)
    horizon, step = _whole("horizon", horizon, 1), _whole("step", step, 1)
    lag = None if lag is None else _whole("lag", lag, 0)
    if variant not in VARIANTS:
        raise ValueError(f"expected a variant of {', '.join(VARIANTS)}, found {variant!r}")
    values = _series("values", values)
    known = _known(valid, len(values))
    extra = _extra(variant, len(values), quarticity=quarticity, bipower=bipower)

    rows = (len(values) - horizon - int(lengths[-1])) // step + 1
    terms = 1 + len(lengths) + (extra is not None)
    needed = ROWS_A_PARAMETER * terms
    if rows < needed:
        periods = int(lengths[-1]) + horizon + (needed - 1) * step
        raise ValueError(f"expected at least {periods} values for {needed} observations of {terms} parameters, found {len(values)}")
    overlap = -(-horizon // step)
    room = rows + (newey_west_lag(rows, overlap) if lag is None else min(lag, rows))
    # What stands behind the observations is left out: room for the moving sums of the errors.
    table: Float64Array2D = np.empty((terms + 1, -(-room // k.BLOCK) * k.BLOCK))
    kept, mean = _observe(values, known, extra, lengths, (horizon, step, rows), variant, table)
    if kept < needed:
        raise ValueError(f"expected at least {needed} observations with enough known periods for {terms} parameters, found {kept}")
    low, high = _range(table[terms, :rows])
    unit, centre = 0.0, 0.0
    if variant == "log":
        # Logarithms near 1: beside them, what varies by rounding alone is seen not to vary.
        k.take_logs(table, mean / math.e)
        unit = math.log(mean / math.e)
    elif variant == "harq":
        centre = k.interact(table, kept)
    elif variant == "harj":
        k.take_jumps(table)
    lag = newey_west_lag(kept, overlap) if lag is None else min(lag, kept - 1)
    names = (*_names(variant, lengths.tolist()), "the target")
    fitted = _regress(table, kept, lag if errors else None, unit, names)
    return Har(
        variant=variant,
        lags=tuple(lengths.tolist()),
        horizon=horizon,
        step=step,
        coefficients=fitted.coefficients,
        errors=fitted.errors,
        lag=lag,
        n=kept,
        rows_left_out=rows - kept,
        r2=fitted.r2,
        smearing=k.smear(table, fitted.left, kept) if variant == "log" else 1.0,
        low=low,
        high=high,
        centre=centre,
        latest=_latest(values, known, lengths, extra),
    )


def means(values: Float64Array1D, valid: Valid | None, lags: Sequence[int], at: int) -> Float64Array1D | None:
    """Return mean values over the windows that end at a period: what ``Har.predict`` takes.

    Sums run backwards from ``at``, so that equal windows give equal bits wherever the array begins.

    Parameters
    ----------
    values, valid
        Shape (n,), as ``fit`` takes them.
    lags
        Lengths of the windows in periods, ascending.
    at
        Index of the newest period of the windows, from 0 to n - 1.

    Returns
    -------
    float64[len(lags)] or None
        None where a window reaches before the first period, or fewer than 90% of its periods are known.
    """
    series = _series("values", values)
    if not 0 <= operator.index(at) < len(series):
        raise ValueError(f"expected an index from 0 to {len(series) - 1}, found {at}")
    return _means(series, _known(valid, len(series)), _lengths(lags), at)


def warm() -> None:
    """Compile, or load from the cache, the kernels of a plain fit and of its forecasts."""
    fit(np.arange(64.0) % 7.0, (1, 3))


def _names(variant: str, lags: Sequence[int]) -> tuple[str, ...]:
    extra = (_EXTRAS[variant][1],) if variant in _EXTRAS else ()
    return ("const", *(f"rv_{lag}" for lag in lags), *extra)


class _Regression(NamedTuple):
    """A regression, as ``Har`` has it."""

    coefficients: tuple[float, ...]
    errors: tuple[float, ...]
    r2: float
    left: Float64Array1D
    """What it leaves of the target of each row of the table."""


def _observe(
    values: Float64Array1D,
    known: Uint8Array1D,
    extra: Float64Array1D | None,
    lengths: Int64Array1D,
    spans: tuple[int, int, int],
    variant: Variant,
    table: Float64Array2D,
) -> tuple[int, float]:
    """Write the observations as levels; return how many are kept, and the mean of the known values."""
    horizon, step, rows = spans
    first = len(values) - 1 - horizon - (rows - 1) * step
    table[:, rows:] = 0.0
    prefix: Float64Array2D = np.empty((3, len(values) + 1))
    if extra is not None:
        _add_up(_EXTRAS[variant][0], extra, known, prefix)
        k.fill(extra, prefix, int(lengths[0]), first, step, table[-2, :rows])
    _add_up("values", values, known, prefix)
    mean = float((prefix[0, -1] + prefix[1, -1]) / max(prefix[2, -1], 1.0))
    if mean < MEAN_MIN:
        raise ValueError(f"expected values with a mean of at least {MEAN_MIN:g}, found {mean:g}")
    least = math.ulp(0.0) if variant == "log" else 0.0
    return k.design(values, prefix, lengths, np.array((horizon, first, step, rows)), least, table), mean


def _regress(table: Float64Array2D, kept: int, lag: int | None, unit: float, names: Sequence[str]) -> _Regression:
    """Fit the target of a table from whose columns ``unit`` was subtracted; with errors where a lag is given."""
    terms = len(table) - 1
    lanes, moments = np.zeros(((terms + 1) * (terms + 2) // 2, k.LANES)), np.empty((terms + 2, terms + 1))
    state, factor = np.zeros((k.STATE_ROWS, terms + 1)), np.empty((terms, terms))
    state[k.SHIFTS, 1:] = unit
    for _ in range(k.CENTRINGS):
        k.gather(table, lanes, moments)
        if not k.centre(table, moments, state):
            break
    found = k.begin(moments, state, factor)
    if found >= k.COLLINEAR:
        raise ValueError(f"expected regressors that do not follow from each other, found that {names[found - k.COLLINEAR]} does")
    if found != k.FINE:
        raise ValueError(f"expected numbers that vary, found {names[found - k.CONSTANT]} the same in all observations")
    left = np.empty(table.shape[1])
    for _ in range(k.ROUNDS):
        k.miss(table, lanes, moments, state, left)
        if k.refine(moments, state, factor, float(kept)):
            break
    if lag is not None:
        ring, moving = np.zeros((terms, (lag // k.BLOCK + 2) * k.BLOCK)), np.empty((terms, k.BLOCK))
        k.run_long(table, left, lag, lanes, moments, ring, moving)
        k.errors(lag, float(kept), moments, state, factor)
    slopes, shifts = state[k.FITTED, 1:terms].tolist(), state[k.SHIFTS].tolist()
    constant = float(state[k.FITTED, 0]) + shifts[terms]
    for slope, shift in zip(slopes, shifts[1:terms], strict=True):
        constant -= slope * shift
    return _Regression(
        coefficients=(constant, *slopes),
        errors=tuple(state[k.ERRORS, :terms].tolist()) if lag is not None else (),
        r2=1.0 - float(moments[terms + 1, terms]) / float(state[k.SCALES, terms]) ** 2,
        left=left,
    )


def _means(values: Float64Array1D, known: Uint8Array1D, lengths: Int64Array1D, at: int) -> Float64Array1D | None:
    out = np.empty(len(lengths))
    found = k.means(values, known, lengths, at, out)
    if found == k.REFUSED:
        raise ValueError(f"expected values from 0 to {k.VALUE_MAX:g}, found others among the {lengths[-1]} up to index {at}")
    return out if found == k.COMPLETE else None


def _latest(values: Float64Array1D, known: Uint8Array1D, lengths: Int64Array1D, extra: Float64Array1D | None) -> tuple[float, ...]:
    """Return what ``predict`` takes at the end of the sample, nothing where too little is known."""
    at = len(values) - 1
    parts = [_means(values, known, lengths, at)]
    if extra is not None:
        parts.append(_means(extra, known, lengths[:1], at))
    return tuple(level for part in parts if part is not None for level in part.tolist()) if all(part is not None for part in parts) else ()


def _range(targets: Float64Array1D) -> tuple[float, float]:
    """Return the least that is positive and the largest; 0 stands for what was left out too."""
    low, high = float(targets.min()), float(targets.max())
    return float(targets[targets > 0.0].min(initial=math.inf)) if low <= 0.0 else low, high


def _add_up(name: str, values: Float64Array1D, known: Uint8Array1D, prefix: Float64Array2D) -> None:
    bad = k.add_up(values, known, prefix)
    if bad >= 0:
        raise ValueError(f"expected {name} from 0 to {k.VALUE_MAX:g} in known periods, found {values[bad]} at index {bad}")


def _extra(variant: str, n: int, **given: Float64Array1D | None) -> Float64Array1D | None:
    """Return the series that the variant takes beside the values; refuse one that it does not take."""
    wanted = _EXTRAS[variant][0] if variant in _EXTRAS else None
    for name, series in given.items():
        if (series is not None) != (name == wanted):
            there = "was given" if series is not None else "was not"
            raise ValueError(f"expected {wanted or 'no other series'} with variant {variant}, found that {name} {there}")
    return _series(wanted, given[wanted], n) if wanted is not None else None


def _series(name: str, values: Float64Array1D | None, n: int | None = None) -> Float64Array1D:
    # Kernels are compiled for one kind of array; another kind, such as a read-only one, would be compiled for anew.
    series: Float64Array1D = np.asarray(values, np.float64)
    if series.ndim != 1 or n not in (None, len(series)):
        raise ValueError(f"expected {name} of shape ({'n' if n is None else n},), found {series.shape}")
    return series if series.flags.carray else series.copy()


def _known(valid: Valid | None, n: int) -> Uint8Array1D:
    if valid is None:
        return np.ones(n, np.uint8)
    if valid.shape != (n,) or valid.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"expected valid as bool or uint8 of shape ({n},), found {valid.dtype} of shape {valid.shape}")
    return (valid if valid.flags.carray else valid.copy()).view(np.uint8)


def _lengths(lags: Sequence[int]) -> Int64Array1D:
    try:
        lengths = [operator.index(one) for one in lags]
    except TypeError:
        lengths = []
    if not 1 <= len(lengths) <= LAGS_MAX or lengths != sorted(set(lengths)) or not 1 <= lengths[0] <= lengths[-1] <= LAG_MAX:
        raise ValueError(f"expected 1 to {LAGS_MAX} whole lags, ascending, from 1 to {LAG_MAX:,}, found {lags!r}")
    return np.array(lengths, np.int64)


def _whole(name: str, number: int, least: int) -> int:
    try:
        found = operator.index(number)
    except TypeError:
        found = least - 1
    if found < least:
        raise ValueError(f"expected {name} as a whole number of at least {least}, found {number!r}")
    return found
