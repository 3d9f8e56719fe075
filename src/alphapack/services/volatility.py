"""Volatility of every symbol: fits that are made off the loop, forecasts that follow each closed minute, and how good they were.

A fit is asked for when there are enough candles, and again every hour; what returns is an input. Between fits nothing is
estimated: a forecast is a function of the last fit and of the minutes since, so that a restart changes no bit of it.
"""

import math
import struct
from collections.abc import Callable
from contextlib import suppress

import msgspec

from alphapack.arrays import Float64Array2D
from alphapack.domain import readings
from alphapack.domain.context import Context
from alphapack.domain.events import WorkFailed
from alphapack.domain.inputs import Result
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, name_of, venue_of
from alphapack.models import volatility
from alphapack.models.accuracy import Comparison, ForecastLog
from alphapack.models.cascade import NotEnough
from alphapack.models.history import History
from alphapack.models.minutes import MINUTE_MS, MINUTES_MAX, MinuteGrid
from alphapack.models.volatility import MINUTES_MIN, WORK, Fit, Forecaster

TIMER = "volatility"
SETTLE_NS = NANOS_PER_S
"""Pages of the past follow each other: a fit waits until none came for so long."""
REFIT_MINUTES = 60
REFIT_GROWTH = 1.1
"""A past that grew by this factor is worth a new fit at once."""
CONTEXT_HORIZON = 5
"""Minutes ahead for which decisions look at volatility."""
HISTORY_HORIZON = 60
HISTORY = ("sigmaHAR", "sigmaGARCH", "sigma", "realized")
HISTORY_ROWS = 2_880
SCORED = (5, 60, 240, 1_440)
"""Horizons whose forecasts are held against what came."""
HORIZONS = (1, 5, 10, 15, 30, 60, 120, 240, 480, 1_440)
"""Horizons whose regressions come with a fit; others are made from the same minutes when first asked for."""
CATCH_UP_MINUTES = 60
"""Of minutes that come at once, so many of the newest are forecast one by one."""
STALE_MINUTES = 5
"""A newest candle that ended longer ago says nothing of the next minutes."""
YEAR_MINUTES = 525_600
REASON_LENGTH_MAX = 300
_pair = struct.Struct("<dd")

VARIANTS = ("log", "plain")


class _Facts(msgspec.Struct, array_like=True):
    """All of one symbol's state that is not in its rows."""

    symbol: str
    fit: Fit | None = None
    failure: str = ""
    """Why the last fit came to nothing."""
    awaited: int = 0
    """The request whose result is awaited; 0: none."""
    settling: bool = False
    asked_minute: int = 0
    asked_rows: int = 0
    seen: int = 0
    """Newest minute that was forecast from."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    facts: list[_Facts]
    logs: list[list[tuple[list[float], bytes]]]
    written: list[int]


class _Symbol:
    """One symbol: its fit, and what follows from it and from the candles."""

    def __init__(self, symbol: str) -> None:
        self.facts = _Facts(symbol)
        self.logs = [ForecastLog(horizon, volatility.cadence(horizon)) for horizon in SCORED]
        self.history = History(HISTORY, HISTORY_ROWS)
        self.grid: MinuteGrid | None = None
        self.version = -1
        self.forecaster: Forecaster | None = None

    def log_of(self, horizon: int) -> ForecastLog:
        """Return the scores nearest to a horizon, by ratio."""
        return min(self.logs, key=lambda log: max(horizon, log.horizon) / min(horizon, log.horizon))


class Volatility:
    """Owns fits and forecasts; candles are another's, read through ``rows`` and ``version``."""

    def __init__(self, ctx: Context, rows: Callable[[str], Float64Array2D], version: Callable[[str], int]) -> None:
        self._ctx = ctx
        self._rows = rows
        self._version = version
        self._symbols: dict[str, _Symbol] = {}

    # What enters

    def on_candles(self, symbol: str) -> None:
        """Candles of a symbol changed: forecast from each minute that is new, and see whether a fit is due."""
        one = self._symbols.get(symbol)
        if one is None:
            one = self._symbols[symbol] = _Symbol(symbol)
        rows = self._rows(symbol)
        newest = int(rows[-1, 0]) // MINUTE_MS if len(rows) else 0
        facts = one.facts
        if facts.fit is not None and newest > max(facts.seen, facts.fit.asof):
            grid = self._grid(one)
            for at in range(max(facts.seen, facts.fit.asof, newest - CATCH_UP_MINUTES) + 1, newest + 1):
                self._on_minute(one, grid, at)
            facts.seen = newest
        if not facts.settling and not facts.awaited and self._is_due(facts, newest, len(rows)):
            facts.settling = True
            self._ctx.after(SETTLE_NS, TIMER, symbol)

    def on_timer(self, symbol: str) -> None:
        """Ask for a fit of a symbol whose candles have settled."""
        one = self._symbols[symbol]
        facts = one.facts
        facts.settling = False
        rows = self._rows(symbol)
        if facts.awaited or len(rows) < MINUTES_MIN:
            return
        facts.asked_minute, facts.asked_rows = int(rows[-1, 0]) // MINUTE_MS, len(rows)
        scored = [log.horizon for log in one.logs if not log.seeded]
        facts.awaited = self._ctx.request(WORK, volatility.request(self._grid(one), symbol, HORIZONS, facts.fit, scored))

    def on_result(self, result: Result) -> None:
        """Take a fit."""
        one = next((one for one in self._symbols.values() if one.facts.awaited == result.request_id), None)
        if one is None:
            return
        facts = one.facts
        facts.awaited = 0
        try:
            if not result.ok:
                raise ValueError(result.body.decode(errors="replace").removeprefix("NotEnough: "))
            answer = volatility.answer(result.body)
        except ValueError as error:
            facts.failure = str(error)[:REASON_LENGTH_MAX]
            self._ctx.emit(WorkFailed(result.request_id, WORK, facts.symbol, facts.failure))
            return
        facts.fit, facts.failure, one.forecaster = answer.fit, "", None
        for log in one.logs:
            if past := answer.scored.get(log.horizon):
                log.seed(past)

    def _is_due(self, facts: _Facts, newest: int, rows: int) -> bool:
        if rows < MINUTES_MIN:
            return False
        return not facts.asked_rows or newest - facts.asked_minute >= REFIT_MINUTES or rows >= REFIT_GROWTH * facts.asked_rows

    def _on_minute(self, one: _Symbol, grid: MinuteGrid, at: int) -> None:
        """Forecast from minute ``at``, keep what will be scored, and score what came due."""
        for log in one.logs:
            self._mature(log, grid, at)
        try:
            forecaster = self._forecaster(one)
            near = forecaster.forecast(grid, at, CONTEXT_HORIZON)
            hour = forecaster.forecast(grid, at, HISTORY_HORIZON)
        except NotEnough:
            return
        for log in one.logs:
            if (at + 1) % log.cadence == 0:
                with suppress(NotEnough):
                    log.note(volatility.scored_of(forecaster.forecast(grid, at, log.horizon), at))
        self._ctx.observe(_pair.pack(near.har, near.garch))
        weight = one.log_of(HISTORY_HORIZON).har_weight
        sigma = volatility.sigma(self._ctx.settings.volatility_rule, hour.har, hour.garch, weight)
        past = volatility.realised(grid, at - HISTORY_HORIZON, HISTORY_HORIZON)
        realized = math.sqrt(past) if past is not None else math.nan
        one.history.note((at + 1) * MINUTE_MS, [math.sqrt(hour.har), math.sqrt(hour.garch), sigma, realized])

    def _mature(self, log: ForecastLog, grid: MinuteGrid, newest: int) -> None:
        for made in log.due(newest):
            log.mature(volatility.realised(grid, made, log.horizon))

    def _grid(self, one: _Symbol) -> MinuteGrid:
        """Return the minute returns of a symbol's candles, brought on to the newest."""
        symbol = one.facts.symbol
        rows, version = self._rows(symbol), self._version(symbol)
        newest = int(rows[-1, 0]) // MINUTE_MS if len(rows) else 0
        if one.grid is None or version != one.version or newest - one.grid.first >= 2 * MINUTES_MAX:
            one.grid, one.version, one.forecaster = MinuteGrid(rows), version, None
        elif newest >= one.grid.end:
            one.grid.extend(rows[rows[:, 0].searchsorted(one.grid.end * MINUTE_MS) :])
        return one.grid

    def _forecaster(self, one: _Symbol) -> Forecaster:
        assert one.facts.fit is not None
        if one.forecaster is None:
            one.forecaster = Forecaster(one.facts.fit)
        return one.forecaster

    # Answers

    def forecast_vol(self, symbol: str, horizon: int) -> volatility.Forecast:
        """Return the variances of the next ``horizon`` minutes, from the newest closed minute on.

        Raises ``ValueError`` for a horizon outside 1..10080 and ``NotEnough`` where too little is known, with what is missing.
        """
        volatility.check_horizon(horizon)
        one, rows = self._symbols.get(symbol), self._rows(symbol)
        volatility.check_enough(len(rows))
        if one is None or one.facts.fit is None:
            failure = one.facts.failure if one is not None else ""
            raise NotEnough(failure or "expected a fit of the models, found none yet: it is being made")
        newest = int(rows[-1, 0]) // MINUTE_MS
        behind = self._ctx.now_ns // (NANOS_PER_MS * MINUTE_MS) - (newest + 1)
        if behind > STALE_MINUTES:
            raise NotEnough(f"expected a candle a minute, found that the newest ended {behind:,} minutes ago")
        return self._forecaster_now(one).forecast(self._grid(one), newest, horizon)

    def _forecaster_now(self, one: _Symbol) -> Forecaster:
        self._grid(one)
        return self._forecaster(one)

    def har_weight(self, symbol: str, horizon: int) -> float:
        """Return the weight of HAR's variance in the blend at a horizon; half before anything is known."""
        one = self._symbols.get(symbol)
        return one.log_of(horizon).har_weight if one is not None else 0.5

    def sigma(self, symbol: str, horizon: int) -> float | None:
        """Return what the rule makes of the two volatilities of the next minutes; None where too little is known."""
        try:
            made = self.forecast_vol(symbol, horizon)
        except NotEnough:
            return None
        return volatility.sigma(self._ctx.settings.volatility_rule, made.har, made.garch, self.har_weight(symbol, horizon))

    def context(self, symbol: str, horizon: int = CONTEXT_HORIZON) -> dict[str, float]:
        """Return what a decision looks at: ``sigmaHAR`` and ``sigmaGARCH`` over the next minutes; nothing where they are not known."""
        try:
            made = self.forecast_vol(symbol, horizon)
        except NotEnough:
            return {}
        return {"sigmaHAR": math.sqrt(made.har), "sigmaGARCH": math.sqrt(made.garch)}

    def forecast(self, symbol: str, horizon: int, variant: str, candles: dict[str, int], shift_ms: int | None) -> readings.VolForecast:
        """Return a forecast with all that it was made of; raises as ``forecast_vol`` does."""
        made = self.forecast_vol(symbol, horizon)
        one = self._symbols[symbol]
        fit, grid = one.facts.fit, self._grid(one)
        assert fit is not None
        rule, weight = self._ctx.settings.volatility_rule, one.log_of(horizon).har_weight
        har = made.plain if variant == "plain" else made.har
        if har is None:
            raise NotEnough(f"expected candles of at least half of the last {made.direct.plain.lags[-1]:,} minutes, found fewer")
        sigmas = [math.sqrt(har), math.sqrt(made.garch), volatility.sigma(rule, har, made.garch, weight)]
        yearly = math.sqrt(YEAR_MINUTES / horizon)
        cascade, plain, model = made.direct.cascade, made.direct.plain, fit.garch
        return readings.VolForecast(
            symbol=name_of(symbol),
            venue=venue_of(symbol),
            h=horizon,
            sigma_har=sigmas[0],
            sigma_garch=sigmas[1],
            sigma=sigmas[2],
            rule=rule,
            blend=readings.Blend(weight, 1.0 - weight),
            annualized=readings.Sigmas(*(sigma * yearly for sigma in sigmas)),
            asof_ms=grid.end * MINUTE_MS,
            fitted_ms=(fit.asof + 1) * MINUTE_MS,
            n_obs=fit.n_obs,
            extrapolated=(plain.horizon if variant == "plain" else cascade.horizon) < horizon,
            candles=candles,
            history_shift_ms=shift_ms,
            models=readings.VolModels(
                har=readings.HarModel("plain", plain.horizon, list(plain.lags), plain.params, plain.r2, plain.n)
                if variant == "plain"
                else readings.HarModel("log", cascade.horizon, list(cascade.lags), cascade.params, cascade.r2, cascade.n),
                har_plain=readings.PlainModel(
                    sigma=math.sqrt(made.plain) if made.plain is not None else None,
                    horizon=plain.horizon,
                    lags=list(plain.lags),
                    params=plain.params,
                    stderr=plain.stderr(),
                    r2=plain.r2,
                    n=plain.n,
                    extrapolated=plain.horizon < horizon,
                ),
                garch=readings.GarchModel(
                    omega=model.omega,
                    alpha=model.alpha,
                    beta=model.beta,
                    persistence=model.persistence,
                    converged=model.converged,
                    persistence_cap=volatility.PERSISTENCE_MAX,
                    next_variance=made.next_variance,
                ),
            ),
        )

    def accuracy(self, symbol: str) -> readings.VolAccuracy:
        """Return how good the forecasts have been; raises ``NotEnough`` where none came due yet."""
        one = self._symbols.get(symbol)
        if one is None or not any(log.matured for log in one.logs):
            volatility.check_enough(len(self._rows(symbol)))
            raise NotEnough(f"expected forecasts that came due, found none yet: the first does {SCORED[0]} minutes after it is made")
        return readings.VolAccuracy(
            symbol=name_of(symbol),
            venue=venue_of(symbol),
            asof_ms=self._grid(one).end * MINUTE_MS,
            loss="QLIKE of variances: y / f - ln(y / f) - 1",
            horizons=[_scores(log) for log in one.logs],
        )

    def past(self, symbol: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]]:
        """Return the noted forecasts of an hour by column, oldest first: the first ``limit`` rows at or after ``from_ms``."""
        one = self._symbols.get(symbol) or _Symbol(symbol)
        return one.history.columns(from_ms, limit)

    # State

    def save(self) -> list[memoryview]:
        """Return all that is not a function of the candles: facts and scores, then the history of each symbol."""
        every = list(self._symbols.values())
        logs = [[log.save() for log in one.logs] for one in every]
        saved = _Saved(1, [one.facts for one in every], logs, [one.history.written for one in every])
        return [memoryview(msgspec.msgpack.encode(saved)), *(one.history.past().data for one in every)]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        self._symbols = {}
        for facts, logs, written, past in zip(saved.facts, saved.logs, saved.written, pieces[1:], strict=True):
            one = self._symbols[facts.symbol] = _Symbol(facts.symbol)
            one.facts = facts
            for log, kept in zip(one.logs, logs, strict=True):
                log.load(*kept)
            one.history.load(written, past)


def _scores(log: ForecastLog) -> readings.VolScores:
    compared, har_garch = log.compare()
    return readings.VolScores(
        h=log.horizon,
        every_minutes=log.cadence,
        n=next(iter(compared.values())).n,
        unmoved=next(iter(compared.values())).unmoved,
        seeded=log.seeded,
        dm_har_garch=_finite(har_garch),
        blend=readings.Blend(log.har_weight, 1.0 - log.har_weight),
        models={name: _score(one) for name, one in compared.items()},
    )


def _score(one: Comparison) -> readings.VolScore:
    return readings.VolScore(
        qlike=_finite(one.qlike),
        intercept=_finite(one.intercept),
        intercept_stderr=_finite(one.intercept_error),
        slope=_finite(one.slope),
        slope_stderr=_finite(one.slope_error),
        r2=_finite(one.r2),
        dm_t=_finite(one.dm_t),
    )


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None  # A NaN is below nothing.
