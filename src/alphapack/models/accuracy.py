"""How good forecasts of variance have been: losses, calibration, and whether one model beats another.

QLIKE is ``y / f - ln(y / f) - 1``: zero for a perfect forecast, robust to noise in what was realised (Patton 2011, Journal of
Econometrics 160, 246-256). Mincer and Zarnowitz (1969) regress what came on what was forecast: a line with intercept 0 and slope 1 is
calibrated. Diebold and Mariano (1995, Journal of Business and Economic Statistics 13, 253-263) compare two models by the mean
difference of their losses over its Newey-West error, since forecasts of overlapping spans are nearly one.
"""

import math
from typing import NamedTuple

import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.models import prediction
from alphapack.models.volatility import Scored

MODELS = ("har", "plain", "garch", "blend", "rolling")
ROWS_MAX = 2_016
"""Forecasts kept of one horizon: a week of them at one every five minutes."""
HALF_LIFE_MINUTES = 1_440.0
LOSS_MAX = 10.0
"""A forecast counts at most so much in the weights of a blend: one halt of a market must not settle them for a month."""
MATURED_MIN = 48
"""Fewer forecasts that have come due say nothing about which model is to be believed."""
_AT, _REALISED = 0, 1 + len(MODELS)
_WIDTH = 2 + len(MODELS)


class Comparison(NamedTuple):
    """One model against what was realised, and against the last day's mean."""

    n: int
    unmoved: int
    """Of them, those after which no price moved: they count for the line, and have no loss."""
    qlike: float
    intercept: float
    intercept_error: float
    slope: float
    slope_error: float
    r2: float
    dm_t: float
    """Of its loss less that of the rolling variance: below zero it is the better one."""


def qlike(realised: float, forecast: float) -> float:
    """Return the loss of one forecast of variance, at least 0; both above 0, in the same unit."""
    ratio = realised / forecast
    return ratio - math.log(ratio) - 1.0


def losses(realised: Float64Array1D, forecast: Float64Array1D) -> Float64Array1D:
    """Return the losses of many; see ``qlike``."""
    ratio = realised / forecast
    lost: Float64Array1D = ratio - np.log(ratio) - 1.0
    return lost


def diebold_mariano(difference: Float64Array1D, overlap: int) -> float:
    """Return the t statistic of a mean difference of losses, shape (n,); each forecast extends over ``overlap`` of the next ones.

    NaN where there are too few, or no difference at all.
    """
    n = len(difference)
    if n < prediction.PAIRS_MIN:
        return math.nan
    mean = float(np.mean(difference))
    variance = prediction.long_run_variance(difference - mean, prediction.newey_west_lag(n, overlap))
    return mean / math.sqrt(variance / n) if variance > 0.0 else math.nan


def mincer_zarnowitz(forecast: Float64Array1D, realised: Float64Array1D, overlap: int) -> tuple[float, float, float, float, float]:
    """Return intercept, its error, slope, its error and R2 of ``realised = a + b forecast``, with Newey-West errors."""
    n = len(forecast)
    line = prediction.regress(forecast, realised, overlap)
    centre = float(np.mean(forecast)) if n else math.nan
    if not math.isfinite(line.slope):
        return math.nan, math.nan, math.nan, math.nan, math.nan
    intercept = float(np.mean(realised)) - line.slope * centre
    spread = float(np.mean((forecast - centre) ** 2))
    scores = (realised - intercept - line.slope * forecast) * (1.0 - centre * (forecast - centre) / spread)
    error = math.sqrt(prediction.long_run_variance(scores, line.lag) / n)
    return intercept, error, line.slope, line.error, line.r2


class ForecastLog:
    """Forecasts of one horizon, those that came due with what was realised, and the weight that follows for a blend."""

    def __init__(self, horizon: int, cadence: int) -> None:
        self.horizon, self.cadence = horizon, cadence
        self._held: Float64Array2D = np.empty((2 * ROWS_MAX, _WIDTH))
        self._clear()

    def _clear(self) -> None:
        """Begin without a forecast."""
        self._begin = self._open = self._end = 0
        self.matured = 0
        """Forecasts that came due so far."""
        self.seeded = 0
        """Those of them made afterwards, by a fit to what was before them."""
        self._lost = [0.0, 0.0]
        self._weight = 0.0
        self._scored_at = 0

    @property
    def _rows(self) -> Float64Array2D:
        """Forecasts kept, oldest first; what was realised is NaN until they come due, and -1 where it is not known."""
        return self._held[self._begin : self._end]

    @property
    def har_weight(self) -> float:
        """Weight of the HAR in a blend of variances: by inverse mean loss, newer ones counting more; a half while little is known."""
        if self.matured < MATURED_MIN or self._weight <= 0.0:
            return 0.5
        har, garch = self._lost
        return garch / (har + garch) if har + garch > 0.0 else 0.5

    @property
    def is_empty(self) -> bool:
        """Whether no forecast is kept."""
        return self._begin == self._end

    def note(self, made: Scored) -> None:
        """Keep a forecast made after a minute later than those before."""
        if self._end == len(self._held):  # The newer half moves to the front, so that a row costs little.
            kept = self._rows.copy()
            self._held[: len(kept)] = kept
            self._begin, self._open, self._end = 0, self._open - self._begin, len(kept)
        blend = self.har_weight * made.har + (1.0 - self.har_weight) * made.garch
        self._held[self._end] = made.at, made.har, made.plain, made.garch, blend, made.rolling, math.nan
        self._end += 1
        self._begin = max(self._begin, self._end - ROWS_MAX)
        self._open = max(self._open, self._begin)

    def due(self, newest: int) -> list[int]:
        """Return the minutes after which forecasts were made that have come due by minute ``newest``, oldest first."""
        due = []
        for row in range(self._open, self._end):
            at = int(self._held[row, _AT])
            if at + self.horizon > newest:
                break
            due.append(at)
        return due

    def mature(self, realised: float | None) -> None:
        """Hold the oldest open forecast against what was realised; None: that is not known."""
        row = self._held[self._open]
        self._open += 1
        if realised is None or row[1 + MODELS.index("rolling")] <= 0.0:
            row[_REALISED] = -1.0
            return
        row[_REALISED] = realised
        at = int(row[_AT])
        self.matured += 1
        if realised <= 0.0:
            return
        faded = math.exp(-math.log(2.0) * max(0, at - self._scored_at) / HALF_LIFE_MINUTES)
        for i, model in enumerate(("har", "garch")):
            lost = min(LOSS_MAX, qlike(realised, float(row[1 + MODELS.index(model)])))
            self._lost[i] = faded * self._lost[i] + lost
        self._weight = faded * self._weight + 1.0
        self._scored_at = at

    def seed(self, past: list[Scored]) -> None:
        """Put forecasts that were made afterwards before those that are kept, as if they had been there all the time."""
        kept = self._rows.tolist()
        first = kept[0][_AT] if kept else math.inf
        rows = [(made, made.realised) for made in past if made.at < first]
        seeds = len(rows)
        for at, har, plain, garch, _, rolling, realised in kept:
            rows.append((Scored(int(at), har, plain, garch, rolling), realised if realised >= 0.0 else None))
        came = {made.at: realised for made, realised in rows}
        self._clear()
        for i, (made, _) in enumerate(rows):
            for at in self.due(made.at):
                self.mature(came[at])
            if i <= seeds:
                self.seeded = self.matured
            self.note(made)

    def compare(self) -> tuple[dict[str, Comparison], float]:
        """Return every model against what was realised, and the t statistic of the HAR's loss less GARCH's."""
        known = self._rows[self._rows[:, _REALISED] >= 0.0]
        rows = known[known[:, _REALISED] > 0.0]
        realised, overlap = rows[:, _REALISED], -(-self.horizon // self.cadence)
        lost = {name: losses(realised, rows[:, 1 + i]) for i, name in enumerate(MODELS)}
        compared = {}
        for i, name in enumerate(MODELS):
            line = mincer_zarnowitz(known[:, 1 + i], known[:, _REALISED], overlap)
            t = diebold_mariano(lost[name] - lost["rolling"], overlap)
            mean = float(np.mean(lost[name])) if len(rows) else math.nan
            compared[name] = Comparison(len(known), len(known) - len(rows), mean, *line, t)
        return compared, diebold_mariano(lost["har"] - lost["garch"], overlap)

    def save(self) -> tuple[list[float], bytes]:
        """Return all of it."""
        numbers = [self.matured, self.seeded, *self._lost, self._weight, self._scored_at, self._open - self._begin]
        return [float(one) for one in numbers], self._rows.tobytes()

    def load(self, numbers: list[float], rows: bytes) -> None:
        """Replace everything by what ``save`` returned."""
        matured, seeded, har, garch, self._weight, scored_at, opened = numbers
        self.matured, self.seeded, self._lost, self._scored_at = int(matured), int(seeded), [har, garch], int(scored_at)
        kept = np.frombuffer(rows).reshape(-1, _WIDTH)
        self._held[: len(kept)] = kept
        self._begin, self._open, self._end = 0, int(opened), len(kept)
