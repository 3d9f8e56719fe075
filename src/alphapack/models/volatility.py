"""From one-minute candles to the variance of the next h minutes, for any h from one to a week.

Three models are fitted to the same minutes and served side by side: the diurnal log-HAR cascade, the plain HAR of periods of
length h, and GARCH(1,1) on returns over the root of their diurnal factor. A fit is a value: what it forecasts follows from it and
from the minutes since. See docs/VOLATILITY.md.
"""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.models import cascade, diurnal, garch, har
from alphapack.models.cascade import TARGETS_MIN, Cascade, NotEnough, rounded
from alphapack.models.diurnal import DAY, WEEK, Diurnal, minute_of_week
from alphapack.models.har import Har
from alphapack.models.minutes import MINUTE_MS, MinuteGrid

HORIZON_MAX = WEEK
SAMPLE_MINUTES = 30 * DAY
"""A fit looks at the newest thirty days."""
MINUTES_MIN = WEEK + TARGETS_MIN
"""Minutes of candles without which there is no direct fit of even one minute."""
PLAIN_PERIODS = (1, 5, 22)
PERSISTENCE_MAX = 0.9999
"""GARCH's alpha + beta in forecasts of more than one minute."""
PHI_MAX = 0.999
WORK = "volatility"
"""Work requested of the shell: fit a symbol's models."""
Rule = Literal["max", "min", "blend"]
_FLAT: Float64Array1D = np.ones(WEEK)


class Garch(msgspec.Struct, frozen=True, array_like=True):
    """GARCH(1,1) of returns over the root of their diurnal factor, in squared fractions a minute."""

    omega: float
    alpha: float
    beta: float
    next_variance: float
    """Of the minute after the sample."""
    loglik: float
    converged: bool
    n: int

    @property
    def persistence(self) -> float:
        """``alpha + beta``, as it was estimated."""
        return self.alpha + self.beta


class Direct(msgspec.Struct, frozen=True, array_like=True):
    """The two regressions behind one horizon, each on the longest horizon up to it that its sample allows."""

    cascade: Cascade
    plain: Har


class Fit(msgspec.Struct, frozen=True, array_like=True):
    """All that was estimated from the minutes ``first .. asof``."""

    first: int
    asof: int
    """Newest minute of the epoch that was looked at."""
    n_obs: int
    """Known returns among them."""
    diurnal: Diurnal
    mean_adjusted: float
    """Mean squared return over its diurnal factor."""
    mean: float
    """Mean squared return."""
    directs: dict[int, Direct]
    garch: Garch


class Forecast(msgspec.Struct, frozen=True):
    """Variances of the log return over the next ``horizon`` minutes, in squared fractions."""

    horizon: int
    har: float
    plain: float | None
    """None where too little is known of its windows, which are longer."""
    garch: float
    rolling: float
    """The last day's mean, for comparison."""
    extrapolated: bool
    """Whether the cascade was fitted to a shorter horizon and brought on from there."""
    next_variance: float
    """GARCH's, of the next minute, over its diurnal factor."""
    direct: Direct


def check_horizon(horizon: int) -> int:
    """Return a horizon in minutes; raise ``ValueError`` unless it is a whole number from 1 to a week."""
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or not 1 <= horizon <= HORIZON_MAX:
        raise ValueError(f"expected a horizon of 1 to {HORIZON_MAX:,} whole minutes, found {horizon!r}")
    return int(horizon)


def check_enough(candles: int) -> None:
    """Raise ``NotEnough`` where there are too few candles for any fit."""
    if candles < MINUTES_MIN:
        raise NotEnough(
            f"expected at least {MINUTES_MIN:,} one-minute candles (a week and {TARGETS_MIN} minutes), found {candles:,}: "
            f"{MINUTES_MIN - candles:,} more are missing"
        )


def fit(grid: MinuteGrid, horizons: Sequence[int], start: garch.Parameters | None = None) -> Fit:
    """Fit all models to the newest ``SAMPLE_MINUTES`` of a grid.

    Parameters
    ----------
    grid
        Minute returns.
    horizons
        Those whose regressions are wanted at once; any other can be had of ``direct`` later.
    start
        Where the search for GARCH's parameters begins: those of the fit before.

    Raises
    ------
    NotEnough
        Fewer than ``MINUTES_MIN`` minutes, too many of them not known, or prices that hardly move.
    """
    grid = sample_of(grid)
    check_enough(grid.n)
    n = grid.known_n
    known = grid.known.astype(bool)
    squares = grid.returns * grid.returns
    if np.count_nonzero(squares) < MINUTES_MIN // 100:
        moves = np.count_nonzero(squares)
        raise NotEnough(f"expected prices that move in at least one minute of a hundred, found {moves:,} moves in {n:,} minutes")
    factors = diurnal.fit(grid)
    weights = factors.weights()
    adjusted = cascade.adjusted(grid, weights)
    prefix = cascade.sample(grid, weights)
    estimated = garch.fit(adjusted, valid=grid.known, start=start)
    kept = Garch(
        omega=estimated.omega,
        alpha=estimated.alpha,
        beta=estimated.beta,
        next_variance=estimated.next_variance,
        loglik=estimated.loglik,
        converged=bool(estimated.converged),
        n=n,
    )
    return Fit(
        first=grid.first,
        asof=grid.end - 1,
        n_obs=n,
        diurnal=factors,
        mean_adjusted=rounded(float(np.mean(adjusted[known] ** 2))),
        mean=rounded(float(np.mean(squares[known]))),
        directs={horizon: _direct(grid, prefix, horizon) for horizon in horizons},
        garch=kept,
    )


def sample_of(grid: MinuteGrid) -> MinuteGrid:
    """Return what a fit looks at."""
    return grid.part(grid.end - SAMPLE_MINUTES, grid.end)


def direct(grid: MinuteGrid, fitted: Fit, horizon: int) -> Direct:
    """Return the regressions of a horizon as the fit would have had them: from its minutes and with its factors."""
    known = fitted.directs.get(horizon)
    if known is not None:
        return known
    part = grid.part(fitted.first, fitted.asof + 1)
    return _direct(part, cascade.sample(part, fitted.diurnal.weights()), horizon)


def _direct(grid: MinuteGrid, prefix: cascade.Sample, horizon: int) -> Direct:
    longest = max(1, (grid.n - WEEK) // TARGETS_MIN)
    shorter = max(1, grid.n // (TARGETS_MIN + PLAIN_PERIODS[-1]))
    return Direct(_longest(prefix, min(horizon, longest)), _plain(grid, min(horizon, shorter)))


def _longest(prefix: cascade.Sample, horizon: int) -> Cascade:
    """Fit the cascade to a horizon, or to the longest of three quarters of it, and so on, for which outages leave enough targets."""
    while True:
        try:
            return cascade.fit(prefix, horizon)
        except NotEnough:
            if horizon == 1:
                raise
            horizon = max(1, 3 * horizon // 4)


def _plain(grid: MinuteGrid, horizon: int) -> Har:
    """Fit the plain regression as ``_longest`` does the cascade."""
    squares = grid.returns * grid.returns
    while True:
        lags = tuple(periods * horizon for periods in PLAIN_PERIODS)
        step = max(1, horizon // cascade.ROWS_A_HORIZON)
        try:
            found = har.fit(squares, lags, "plain", horizon=horizon, step=step, valid=grid.known)
            if -(-found.n * step // horizon) >= TARGETS_MIN:
                return found
            short = f"expected {TARGETS_MIN} spans of {horizon:,} minutes, nine tenths of each known, found fewer"
        except ValueError as error:
            short = str(error)
        if horizon == 1:
            raise NotEnough(f"the plain regression: {short}")
        horizon = max(1, 3 * horizon // 4)


class Forecaster:
    """What a fit says after a minute: the factors of the week and GARCH's filter, brought on from where the fit ended.

    Everything follows from the fit and the grid; how often it was asked, or whether it was loaded, changes no bit.
    """

    def __init__(self, fitted: Fit) -> None:
        self.fit = fitted
        week = fitted.diurnal.week()
        self._weights = fitted.diurnal.weights()
        self._twice = np.concatenate((week, week))
        self._sums = np.concatenate(([0.0], np.cumsum(self._twice)))  # One after the other, whatever the machine.
        self._variance = fitted.garch.next_variance
        self._at = fitted.asof
        self._directs: dict[int, Direct] = {}

    def direct(self, grid: MinuteGrid, horizon: int) -> Direct:
        """Return the regressions of a horizon; those that the fit has not are made when first asked for."""
        if horizon in self.fit.directs:
            return self.fit.directs[horizon]
        if horizon not in self._directs:
            self._directs[horizon] = direct(grid, self.fit, horizon)
        return self._directs[horizon]

    def variance(self, grid: MinuteGrid, at: int) -> float:
        """Return GARCH's adjusted variance of the minute after ``at``, which is not before the fit's end."""
        if at < self.fit.asof:
            raise NotEnough("expected candles up to the newest minute of the fit, found that they end before it")
        if at < self._at:
            self._variance, self._at = self.fit.garch.next_variance, self.fit.asof
        span = slice(self._at + 1 - grid.first, at + 1 - grid.first)
        if span.start < span.stop:
            place = (minute_of_week(self._at + 1) + np.arange(span.stop - span.start)) % WEEK
            adjusted = grid.returns[span] * self._weights[place]
            model = self.fit.garch
            self._variance = garch.filtered(adjusted, grid.known[span], self._variance, model.omega, model.alpha, model.beta)
            self._at = at
        return self._variance

    def forecast(self, grid: MinuteGrid, at: int, horizon: int) -> Forecast:
        """Forecast minutes ``at + 1 .. at + horizon``; ``NotEnough`` where too little is known of the minutes up to ``at``."""
        pair = self.direct(grid, horizon)
        begin = minute_of_week(at + 1)
        total = float(self._sums[begin + horizon] - self._sums[begin])
        level = pair.cascade.predict(cascade.logs_at(grid, self._weights, at, pair.cascade.horizon))
        level = _brought_on(level, self.fit.mean_adjusted, pair.cascade.horizon, horizon, pair.cascade.persistence)
        plain = _plain_level(grid, at, pair.plain)
        if plain is not None:
            plain = horizon * _brought_on(plain, self.fit.mean, pair.plain.horizon, horizon, pair.plain.persistence)
        variance = self.variance(grid, at)
        day = cascade.windows(grid, _FLAT, at, (DAY,)).tolist()
        return Forecast(
            horizon=horizon,
            har=level * total,
            plain=plain,
            garch=min(max(self._aggregate(variance, begin, horizon), pair.cascade.low * total), pair.cascade.high * total),
            rolling=day[0][0] / day[1][0] * horizon,
            extrapolated=pair.cascade.horizon < horizon,
            next_variance=variance,
            direct=pair,
        )

    def _aggregate(self, variance: float, begin: int, horizon: int) -> float:
        """Return GARCH's variance of the next ``horizon`` minutes, the first of which has the place ``begin`` in its week."""
        model, factors = self.fit.garch, self._twice[begin : begin + horizon]
        omega, beta = model.omega, model.beta
        if horizon > 1 and model.persistence > PERSISTENCE_MAX:
            # What hardly reverts states no level of its own: it reverts to the mean of the sample.
            beta = max(0.0, PERSISTENCE_MAX - model.alpha)
            omega = self.fit.mean_adjusted * max(0.0, 1.0 - model.alpha - beta)
        return garch.weighted_aggregate(variance, omega, model.alpha, beta, factors)


def _plain_level(grid: MinuteGrid, at: int, fitted: Har) -> float | None:
    sums = cascade.windows(grid, _FLAT, at, tuple(fitted.lags)).tolist()
    for lag, count in zip(fitted.lags, sums[1], strict=True):
        if count < cascade.COVERAGE_SERVED * lag:
            return None
    return fitted.predict(np.array([total / count for total, count in zip(sums[0], sums[1], strict=True)]))


def _brought_on(level: float, mean: float, fitted: int, horizon: int, persistence: float) -> float:
    """Return a mean variance over ``horizon``, given that over the first ``fitted`` minutes, as it returns to the mean of all."""
    if fitted >= horizon:
        return level
    phi, n = min(max(persistence, 0.0), PHI_MAX), horizon / fitted
    kept = -math.expm1(n * math.log(phi)) / (n * (1.0 - phi)) if phi > 0.0 else 1.0 / n
    return mean + (level - mean) * kept


def sigma(rule: Rule, har_variance: float, garch_variance: float, weight: float) -> float:
    """Return the standard deviation that a rule makes of two forecasts; ``weight`` is the HAR's in a blend of variances."""
    if rule == "blend":
        return math.sqrt(weight * har_variance + (1.0 - weight) * garch_variance)
    pick = max if rule == "max" else min
    return math.sqrt(pick(har_variance, garch_variance))


def warm() -> None:
    """Compile, or load from the cache, every kernel of a fit and of a forecast."""
    closes = np.exp(np.cumsum(np.sin(np.arange(200.0) ** 2)) / 1e3)
    grid = MinuteGrid(np.column_stack([MINUTE_MS * np.arange(200.0)] + [closes] * 5))
    model = garch.fit(grid.returns, valid=grid.known)
    garch.filtered(grid.returns, grid.known, model.next_variance, model.omega, model.alpha, model.beta)
    garch.weighted_aggregate(model.next_variance, model.omega, model.alpha, model.beta, _FLAT[:2], PERSISTENCE_MAX)
    cascade.windows(grid, _FLAT, grid.end - 1, (1,))
    _plain(grid, 1)


# Off the loop


class Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a request."""

    symbol: str
    first: int
    returns: bytes
    """float64, one a minute from ``first`` on; NaN where not known."""
    horizons: tuple[int, ...]
    start: tuple[float, float, float] | None
    """GARCH's parameters of the fit before."""
    scored: tuple[int, ...]
    """Horizons of which forecasts of the last days are wanted too, made by a fit to what was before them."""


class Scored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One forecast that can be held against what came."""

    at: int
    """Minute after which it was made."""
    har: float
    plain: float
    garch: float
    rolling: float
    realised: float | None = None
    """What came, where that was known when it was made, afterwards, to be scored."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The body of an answer."""

    fit: Fit
    scored: dict[int, list[Scored]]


_request = msgspec.msgpack.Decoder(Request)
_answer = msgspec.msgpack.Decoder(Answer)
SCORED_MINUTES = 2 * DAY


def cadence(horizon: int) -> int:
    """Return how often, in minutes, a forecast of a horizon is kept to be scored."""
    return max(5, horizon // cascade.ROWS_A_HORIZON)


def request(grid: MinuteGrid, symbol: str, horizons: Sequence[int], before: Fit | None, scored: Sequence[int]) -> bytes:
    """Return the body of a request for a fit."""
    part = sample_of(grid)
    returns = np.where(part.known == 1, part.returns, np.nan)
    start = (before.garch.omega, before.garch.alpha, before.garch.beta) if before is not None else None
    return msgspec.msgpack.encode(Request(symbol, part.first, returns.tobytes(), tuple(horizons), start, tuple(scored)))


def work(body: bytes) -> bytes:
    """Fit what ``request`` asked for and return what ``answer`` reads; off the loop."""
    asked = _request.decode(body)
    returns = np.frombuffer(asked.returns)
    grid = MinuteGrid.of(asked.first, returns)
    start = garch.Parameters(*asked.start) if asked.start is not None else None
    fitted = fit(grid, asked.horizons, start)
    scored = _past(grid, asked.scored) if asked.scored else {}
    return msgspec.msgpack.encode(Answer(fitted, scored))


def _past(grid: MinuteGrid, horizons: Sequence[int]) -> dict[int, list[Scored]]:
    """Return forecasts of the last days by models that have not seen them; none where what was before them is too short."""
    before = grid.part(grid.first, grid.end - SCORED_MINUTES)
    try:
        forecaster = Forecaster(fit(before, horizons))
    except NotEnough:
        return {}
    past: dict[int, list[Scored]] = {horizon: [] for horizon in horizons}
    for at in range(before.end, grid.end):
        for horizon in horizons:
            if (at + 1) % cadence(horizon) == 0:
                try:
                    made = scored_of(forecaster.forecast(grid, at, horizon), at)
                except NotEnough:
                    continue
                came = realised(grid, at, horizon) if at + horizon < grid.end else None
                past[horizon].append(msgspec.structs.replace(made, realised=came))
    return past


def scored_of(made: Forecast, at: int) -> Scored:
    """Return what is kept of a forecast made after minute ``at``; ``NotEnough`` where not all models have one."""
    if made.plain is None:
        raise NotEnough("expected a forecast of the plain regression, found too little known for it")
    return Scored(at, made.har, made.plain, made.garch, made.rolling)


def answer(body: bytes) -> Answer:
    """Return the answer that a result holds; raises ``ValueError`` where it is none, since answers come from outside the core."""
    try:
        found = _answer.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected a fit of volatility models, found: {error}") from None
    _check(found)
    return found


def _check(found: Answer) -> None:
    """Raise ``ValueError`` where an answer has a number that no fit can have."""
    fitted, model = found.fit, found.fit.garch
    positive = [fitted.mean_adjusted, fitted.mean, fitted.diurnal.weekend, *fitted.diurnal.minutes, model.omega, model.next_variance]
    known = [model.alpha, model.beta, model.loglik]
    for one in fitted.directs.values():
        positive += [one.cascade.smearing, one.cascade.low, one.cascade.high]
        known += [one.cascade.constant, *one.cascade.slopes, *one.plain.params.values()]
    for row in (row for rows in found.scored.values() for row in rows):
        positive += [row.har, row.plain, row.garch]
        known += [row.rolling, row.realised or 0.0]
    if not all(0.0 < one < math.inf for one in positive) or not all(math.isfinite(one) for one in known):
        raise ValueError("expected a fit of volatility models in finite numbers, found one without")
    if len(fitted.diurnal.minutes) != DAY or model.alpha < 0.0 or model.beta < 0.0:
        raise ValueError(f"expected {DAY} diurnal factors and GARCH parameters from zero up, found others")


def realised(grid: MinuteGrid, at: int, horizon: int) -> float | None:
    """Return the realised variance of minutes ``at + 1 .. at + horizon``; None where fewer than nine tenths of them are known."""
    total, count = cascade.windows(grid, _FLAT, at + horizon, (horizon,))[:2, 0].tolist()
    return total / count * horizon if count >= cascade.COVERAGE_FIT * horizon else None
