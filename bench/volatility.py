"""Forecasts of volatility against what came: Q1 on simulated minutes with a known variance, and recorded candles.

The simulated minutes are those of the yardstick beside the recordings; where it is not there its row says so. Recorded candles are
walked through: a fit to at most thirty days, made anew every day, forecasts what it has not seen. ``python bench/volatility.py`` prints
the tables of docs/VOLATILITY.md and draws its picture.
"""

import argparse
import http.client
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import serve
from report import DATA, PROJECT, Row, median, quantile

from alphapack.arrays import Float64Array1D
from alphapack.models import accuracy, cascade, diurnal, garch, har, volatility
from alphapack.models.accuracy import MODELS, ForecastLog
from alphapack.models.cascade import NotEnough
from alphapack.models.diurnal import DAY, minute_of_week
from alphapack.models.minutes import MinuteGrid
from alphapack.services.volatility import SCORED
from alphapack.shell import candle_files

YARDSTICK = DATA.parent / "yardsticks"
SEEDS = range(6)
H, FIT_DAYS, EVERY = 60, 60, 15
LAGS = (1, 5, 22)
MONDAY = 4 * DAY
CANDLES = {
    "BTC 2025": "binance-spot_BTCUSDT_1m_20250520-20250818.csv.gz",
    "ETH 2025": "binance-spot_ETHUSDT_1m_20250520-20250818.csv.gz",
    "BTC June 2022, a crash": "binance_BTCUSDT_1m_20220615-20220719.csv.gz",
    "BTC 2021, with outages": "binance_BTCUSDT_1m_20210326-20210430_gaps.csv.gz",
}
HORIZONS = (*SCORED, 10_080)
SHOWN = (*MODELS[:-1], "max", MODELS[-1])
FIRST_FIT_DAYS = 14
ROUTE_FITTED = (5, 60, 240, 1_440)
ROUTE_ROUNDS = 500
ROUTE_OTHERS = tuple(range(7, 1_000, 10))
ROUTE_GOAL_MS = 1.0
READY_S = 120.0
PICTURE = PROJECT / "docs" / "pictures" / "volatility.svg"
DRAWN, DRAWN_H, DRAWN_DAYS = "BTC 2025", 60, 7
LEVELS = (5, 10, 20, 40, 80, 160, 320)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 340, 52, 16, 58, 34
INK, SOFT, GRID, CAME = "#1f2430", "#5b6472", "#e3e6eb", "#d3d7de"
LINES = (("GARCH(1,1)", 3, "#d9822b"), ("log-HAR", 1, "#0b63ce"))
REFIT_MINUTES = DAY


# Simulated minutes


def simulated() -> Callable[[int], tuple[Float64Array1D, Float64Array1D]] | None:
    """Return the yardstick's maker of returns and of their true variances."""
    if not (YARDSTICK / "volatility_process.py").is_file():
        return None
    sys.path.insert(0, str(YARDSTICK))
    from volatility_process import make

    made: Callable[[int], tuple[Float64Array1D, Float64Array1D]] = make
    return made


def losses_of(returns: Float64Array1D, variances: Float64Array1D) -> dict[str, float]:
    """Return the mean loss of each model: fitted to the first sixty days, forecasting an hour every quarter of one after that."""
    grid = MinuteGrid.of(MONDAY, returns)
    split, n = FIT_DAYS * DAY, len(returns)
    at = np.arange(split - 1, n - H, EVERY)
    sums = np.concatenate(([0.0], np.cumsum(variances)))
    truth = sums[at + 1 + H] - sums[at + 1]
    past = grid.part(grid.first, grid.first + split)
    factors = diurnal.fit(past)
    week, weights = factors.week(), factors.weights()
    twice = np.concatenate((week, week))
    place = np.array([minute_of_week(grid.first + int(one) + 1) for one in at])
    spans = [twice[one : one + H] for one in place.tolist()]

    squares = returns * returns
    naive = har.fit(squares[:split], LAGS)
    minutes = [naive.predict(one) * H for one in (har.means(squares, None, LAGS, int(i)) for i in at) if one is not None]
    fitted = cascade.fit(cascade.sample(past, weights), H)
    logs = (cascade.logs_at(grid, weights, grid.first + int(i), H) for i in at)
    log_har = [fitted.predict(one) * float(span.sum()) for one, span in zip(logs, spans, strict=True)]
    plain = list(_filtered(returns, split, at, [np.ones(H)] * len(at)))
    adjusted = cascade.adjusted(grid, weights)
    seasonal = list(_filtered(adjusted, split, at, spans))
    found = {"HAR of minutes": minutes, "log-HAR": log_har, "GARCH": plain, "diurnal GARCH": seasonal}
    return {name: float(np.mean(accuracy.losses(truth, np.array(forecast)))) for name, forecast in found.items()}


def _filtered(returns: Float64Array1D, split: int, at: Any, spans: list[Float64Array1D]) -> Iterator[float]:
    """Yield GARCH's forecast after each place, the filter brought on with every minute."""
    model = garch.fit(returns[:split])
    variance, done = model.next_variance, split - 1
    for place, span in zip(at.tolist(), spans, strict=True):
        part = returns[done + 1 : place + 1]
        variance, done = garch.filtered(part, np.ones(len(part), np.uint8), variance, model.omega, model.alpha, model.beta), place
        yield garch.weighted_aggregate(variance, model.omega, model.alpha, model.beta, span, volatility.PERSISTENCE_MAX)


def run() -> list[Row]:
    """Measure Q1 and the route."""
    return quality() + route()


def quality() -> list[Row]:
    make = simulated()
    if make is None:
        return [Row("Q1", "volatility forecasts on simulated minutes", "the yardstick is not here", "-", None)]
    lost = [losses_of(*make(seed)) for seed in SEEDS]
    mean = {name: float(np.mean([one[name] for one in lost])) for name in lost[0]}
    goals = (
        ("log-HAR", "HAR of minutes", 0.45, "log-HAR cascade against HAR(1, 5, 22 minutes) x 60"),
        ("log-HAR", "GARCH", 0.70, "log-HAR cascade against plain GARCH, 60 steps"),
        ("diurnal GARCH", "GARCH", 0.90, "diurnal against plain GARCH, 60 steps"),
    )
    rows = []
    for ours, peer, goal, what in goals:
        ratio = mean[ours] / mean[peer]
        what = f"{what}: mean QLIKE, h = 60, seeds 0-5"
        rows.append(Row("Q1", what, f"{mean[ours]:.4f}", f"<= {goal:.2f}x", ratio <= goal, f"{mean[peer]:.4f}", f"{ratio:.3f}x"))
    return rows


# The route


def route() -> list[Row]:
    """Time the served simulator's answers, asked for one after the other on one connection while its market goes on."""
    with tempfile.TemporaryDirectory() as folder, serve.served([], "1", Path(folder)) as port:
        serve.ready_s(port, READY_S)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        fitted = [_asked_ms(connection, horizon) for horizon in ROUTE_FITTED * ROUTE_ROUNDS]
        others = [_asked_ms(connection, horizon) for horizon in ROUTE_OTHERS]
        again = [_asked_ms(connection, horizon) for horizon in ROUTE_OTHERS]
        connection.close()
    rows = []
    for what, took in (("horizons of the fit", fitted), ("any other, asked for the first time", others), ("the same again", again)):
        said = f"p50 {median(took):.2f}, p95 {quantile(took, 0.95):.2f}, most {max(took):.1f} ms"
        met = quantile(took, 0.95) <= ROUTE_GOAL_MS if took is not others else None
        goal = f"p95 <= {ROUTE_GOAL_MS:g} ms" if took is not others else ""
        rows.append(Row("route", f"GET /api/vol/forecast, client's side, {what}, {len(took):,} requests", said, goal, met))
    return rows


def _asked_ms(connection: http.client.HTTPConnection, horizon: int) -> float:
    start = perf_counter()
    connection.request("GET", f"/api/vol/forecast/BTCUSDT?h={horizon}")
    answer = connection.getresponse()
    body = answer.read()
    took = perf_counter() - start
    if answer.status != 200:
        raise RuntimeError(f"expected 200 for h={horizon}, found {answer.status}: {body[:200]!r}")
    return 1_000 * took


# Recorded candles


@dataclass
class Walked:
    """Forecasts of one horizon and what came."""

    log: ForecastLog
    rows: list[list[float]] = field(default_factory=list)
    """Realised variance, then the forecast of each of ``SHOWN``."""
    ends: list[int] = field(default_factory=list)
    """Minute after which each of them was made."""
    refused: int = 0


def walk(path: Path) -> dict[int, Walked]:
    """Walk through a file of candles, as the engine does but with a fit a day."""
    rows = candle_files.read(path)
    grid = MinuteGrid(rows[:1])
    grid.extend(rows[1:])  # All of them, which is longer than an engine looks back.
    walked = {horizon: Walked(ForecastLog(horizon, volatility.cadence(horizon))) for horizon in HORIZONS}
    open_rows: dict[int, list[tuple[int, list[float]]]] = {horizon: [] for horizon in HORIZONS}
    forecaster: volatility.Forecaster | None = None
    for at in range(grid.first + FIRST_FIT_DAYS * DAY, grid.end):
        if (at - grid.first) % REFIT_MINUTES == 0:
            before = forecaster.fit.garch if forecaster is not None else None
            start = garch.Parameters(before.omega, before.alpha, before.beta) if before is not None else None
            forecaster = volatility.Forecaster(volatility.fit(grid.part(grid.first, at + 1), HORIZONS, start))
        assert forecaster is not None
        for horizon, one in walked.items():
            while open_rows[horizon] and open_rows[horizon][0][0] + horizon <= at:
                made_at, forecasts = open_rows[horizon].pop(0)
                came = volatility.realised(grid, made_at, horizon)
                one.log.mature(came)
                if came:
                    one.rows.append([came, *forecasts])
                    one.ends.append(made_at)
            if (at + 1) % one.log.cadence == 0:
                try:
                    made = forecaster.forecast(grid, at, horizon)
                    kept = volatility.scored_of(made, at)
                except NotEnough:
                    one.refused += 1
                    continue
                weight = walked[min(SCORED, key=lambda scored: max(scored, horizon) / min(scored, horizon))].log.har_weight
                blend, larger = weight * made.har + (1.0 - weight) * made.garch, max(made.har, made.garch)
                open_rows[horizon].append((at, [kept.har, kept.plain, kept.garch, blend, larger, kept.rolling]))
                one.log.note(kept)
    return walked


def table(walked: dict[int, Walked]) -> Iterator[str]:
    """Yield a line a horizon: each model's mean loss and its t against the rolling variance."""
    for horizon, one in walked.items():
        rows = np.array(one.rows)
        lost = [accuracy.losses(rows[:, 0], rows[:, 1 + i]) for i in range(len(SHOWN))]
        overlap = -(-horizon // one.log.cadence)
        cells = []
        for i, name in enumerate(SHOWN):
            t = accuracy.diebold_mariano(lost[i] - lost[-1], overlap)
            cells.append(f"{lost[i].mean():.4f}" + (f" ({t:+.1f})" if name != "rolling" else ""))
        yield f"| {horizon:,} | {len(rows):,} | " + " | ".join(cells) + f" | {one.refused:,} |"


def draw(one: Walked) -> str:
    """Return the last days of one horizon as SVG: annualised volatility forecast and realised, each where the hour begins."""
    ends = np.array(one.ends)
    shown = ends >= ends[-1] - DRAWN_DAYS * DAY
    sigmas = 100 * np.sqrt(np.array(one.rows)[shown] * 525_600 / DRAWN_H)
    x = LEFT + (ends[shown] - ends[-1] + DRAWN_DAYS * DAY) / (DRAWN_DAYS * DAY) * (WIDTH - LEFT - RIGHT)
    down = (HEIGHT - TOP - BOTTOM) / math.log(LEVELS[-1] / LEVELS[0])

    def height(percent: Any) -> Any:
        return HEIGHT - BOTTOM - down * np.log(np.clip(percent, LEVELS[0], LEVELS[-1]) / LEVELS[0])

    def path(values: Any, look: str, end: str = "") -> str:
        points = "L".join(f"{a:.0f} {b:.1f}" for a, b in zip(x, height(values), strict=True))
        return f'<path d="M{points}{end}" {look}/>'

    def text(at: float, y: float, said: str, colour: str = SOFT, anchor: str = "start", more: str = "") -> str:
        return f'<text x="{at:.0f}" y="{y:.0f}" fill="{colour}" text-anchor="{anchor}"{more}>{said}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(
            LEFT,
            22,
            f"Bitcoin, volatility of the next hour: forecast and realised, annualised, {DRAWN_DAYS} days",
            INK,
            more=' font-size="15"',
        ),
    ]
    place = float(LEFT)
    for name, colour in (("realised", CAME), *((name, colour) for name, _, colour in LINES)):
        parts += [f'<rect x="{place:.0f}" y="34" width="14" height="4" fill="{colour}"/>', text(place + 19, 40, name)]
        place += 40 + 7 * len(name)
    for level in LEVELS:
        y = float(height(level))
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>',
            text(LEFT - 6, y + 4, f"{level}%", anchor="end"),
        ]
    for day in range(int(ends[-1]) // DAY - DRAWN_DAYS + 1, int(ends[-1]) // DAY + 1):
        at = LEFT + (day * DAY - ends[-1] + DRAWN_DAYS * DAY) / (DRAWN_DAYS * DAY) * (WIDTH - LEFT - RIGHT)
        date = datetime.fromtimestamp(day * DAY * 60, UTC).strftime("%-d %b")
        parts.append(text(at, HEIGHT - 12, date, anchor="middle"))
    parts.append(path(sigmas[:, 0], f'fill="{CAME}"', f"L{x[-1]:.0f} {HEIGHT - BOTTOM}L{x[0]:.0f} {HEIGHT - BOTTOM}Z"))
    parts += [path(sigmas[:, column], f'fill="none" stroke="{colour}" stroke-width="1.5"') for _, column, colour in LINES]
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", action="store_true", help="draw the picture alone")
    arguments = parser.parse_args()
    if arguments.picture:
        PICTURE.write_text(draw(walk(DATA / "candles" / CANDLES[DRAWN])[DRAWN_H]))
        return 0
    for name, file in CANDLES.items():
        print(f"\n{name}\n\n| h, minutes | forecasts | log-HAR | plain HAR | GARCH | blend | `max` | rolling day | refused |")
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        walked = walk(DATA / "candles" / file)
        for line in table(walked):
            print(line, flush=True)
        if name == DRAWN:
            PICTURE.write_text(draw(walked[DRAWN_H]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
