"""Measure what each feature says of the mid's next moves, and write the tables of docs/RESEARCH.md and its pictures.

The text of the page stays as it is, and the same recordings give the same bytes. Without --captures the five recordings of
Binance below ALPHAPACK_DATA are read.
"""

import argparse
import gzip
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from report import DATA, FOUR, PROJECT
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from alphapack import app
from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D
from alphapack.config import Settings
from alphapack.domain.inputs import CoreSettings, InstrumentSettings
from alphapack.domain.market import NANOS_PER_S, BookState
from alphapack.facade import ROW
from alphapack.models import book, prediction
from alphapack.models.prediction import Fit
from alphapack.shell.captures import CaptureError

EXAMPLE = "example: python bench/research.py --captures binance-usdm_BTCUSDT_20240808T2354.raw.gz --out page"
CAPTURES = [*FOUR, DATA / "captures" / "binance-spot_ETHBTC_20201101T09.raw.gz"]
PAGE = PROJECT / "docs" / "RESEARCH.md"
STEP_NS = 100_000_000
SLOW_STEP_NS = NANOS_PER_S
"""Step of the grid where a recording has fewer than ``SLOW_RATE`` messages a second: its book changes once a second."""
SLOW_RATE = 5.0
HORIZONS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
SHORT_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
KNOWN_S_MIN = 60.0
WINDOWS_MIN = 30
"""A cell over fewer windows that do not overlap is shown and not judged."""
SHIFTS = 40
CLEARANCE_S = 30.0
"""A shifted label is at least its horizon and the longest window apart from its own time."""
FEE_BPS = 5.0
BPS = 1e4
ALIKE = 0.7

SIGNED = ("obi_1", "obi", "obi_10", "microprice", "microprice_stoikov", "ofi", "ofi_1", "ti_1s", "ti", "ti_30s")
"""Features with a direction, held against the move."""
UNSIGNED = (
    "spread_bps",
    "micro_vol_1s",
    "micro_vol",
    "trade_rate",
    "queue_rate",
    "cancel_rate",
    "cancel_n",
    "depth",
    "vpin",
    "kyle_lambda",
)
"""Features without one, held against the size of the move."""
WINDOW_S = {"ofi": 1.0, "ofi_1": 1.0, "ti_1s": 1.0, "ti": 5.0, "ti_30s": 30.0}
"""What looks back over a window has a move of the same time beside the next one."""
ABSENT = {
    "vpin": "needs 50 buckets",
    "kyle_lambda": "needs 300 s of LIVE and 30 seconds with trades",
    "microprice_stoikov": "needs a fit, for which the mid must have moved often enough",
}
VPIN_BUCKETS = {
    "binance-usdm:BTCUSDT": 16.0,
    "binance-spot:BTCUSDT": 3.0,
    "binance-spot:ETHUSDT": 28.0,
    "binance-coinm:ETHUSD_PERP": 11.0,
    "binance-spot:ETHBTC": 25.0,
}
"""In base units: about a 150th of what each recording trades; no recording fills a fiftieth of a day's volume."""
STATED = {
    CAPTURES[0].name.split(".")[0]: {
        "flow": {0.1: 0.40, 1.0: 0.41, 5.0: 0.46, 10.0: 0.52},
        "volume": {0.1: 0.53, 1.0: 0.44, 5.0: 0.34, 10.0: 0.44},
    }
}
"""An earlier measurement of the same recording: one grid that begins at its first ``bookTicker``."""
DRAWN = ("obi_1", "ofi", "ti_1s", "ti_30s")

Rows = np.ndarray[Any, np.dtype[np.void]]
Key = tuple[str, float]


# Sampling


@dataclass(frozen=True)
class Ticker:
    """Top of the book as ``bookTicker`` tells it, on the grid; sums run from the start of the recording."""

    mid_log: Float64Array1D
    flow: Float64Array1D
    """Sum of the order flow imbalance of the best level, in the venue's units."""
    volume: Float64Array1D
    """Sum of what takers bought less what they sold."""
    imbalance: Float64Array1D
    """Of the sizes of best bid and ask, in [-1, 1]."""


@dataclass(frozen=True)
class Sample:
    """A recording on a grid of engine time: at each instant the last row at or before it; NaN where the book is not LIVE."""

    name: str
    symbol: str
    start_ns: int
    step_ns: int
    messages: int
    mid_log: Float64Array1D
    breaks: Int64Array1D
    """Rows so far whose book was not LIVE: two instants with equal numbers have none between them."""
    columns: dict[str, Float64Array1D]
    absent: dict[str, str] = field(default_factory=dict)
    """Why a feature is not among the columns."""
    ticker: Ticker | None = None

    @property
    def live_s(self) -> float:
        """Seconds of the grid with a LIVE book."""
        return float(np.isfinite(self.mid_log).sum()) * self.step_ns / NANOS_PER_S

    def steps(self, seconds: float) -> int:
        """Return how many steps of the grid these are; 0 where they are less than one."""
        return int(seconds * NANOS_PER_S) // self.step_ns

    def move(self, seconds: float, *, after_s: float = 0.0, mid_log: Float64Array1D | None = None) -> Float64Array1D:
        """Return the move in bps over ``(t + after_s, t + after_s + seconds]``; NaN unless LIVE from ``t`` to its end."""
        log = self.mid_log if mid_log is None else mid_log
        first, end = self.steps(after_s), self.steps(after_s) + self.steps(seconds)
        moves = np.full(len(log), np.nan)
        there = np.flatnonzero(self.breaks[end:] == self.breaks[: max(0, len(log) - end)])
        moves[there] = BPS * (log[there + end] - log[there + first])
        return moves


def grid_of(rows: Rows) -> tuple[Int64Array1D, Int64Array1D, int]:
    """Return the instants from the first LIVE row on, the row each shows, and the step in ns."""
    live = np.flatnonzero(rows["state"] == BookState.LIVE)
    if not len(live):
        raise ValueError("expected a recording with a LIVE book, found none")
    first_ns, last_ns = int(rows["ts_ns"][live[0]]), int(rows["ts_ns"][-1])
    slow = len(rows) - live[0] < SLOW_RATE * (last_ns - first_ns) / NANOS_PER_S
    step_ns = SLOW_STEP_NS if slow else STEP_NS
    instants = np.arange(-(-first_ns // step_ns), last_ns // step_ns + 1) * step_ns
    return instants, np.searchsorted(rows["ts_ns"], instants, "right") - 1, step_ns


def values_of(name: str, rows: Rows) -> Float64Array1D | None:
    """Return a feature in the form in which it is measured, one value a row; None where the rows do not have it."""
    if name == "depth":
        depth: Float64Array1D = rows["depth_bid"] + rows["depth_ask"]
        return depth
    if name not in (rows.dtype.names or ()):
        return None
    values: Float64Array1D = rows[name]
    return BPS * (values / rows["mid"] - 1.0) if name.startswith("microprice") else values


def sample_of(name: str, symbol: str, rows: Rows) -> Sample:
    """Put one symbol's rows on the grid."""
    instants, at, step_ns = grid_of(rows)
    live = rows["state"] == BookState.LIVE
    shown = live[at]
    columns: dict[str, Float64Array1D] = {}
    absent: dict[str, str] = {}
    for feature in (*SIGNED, *UNSIGNED):
        values = values_of(feature, rows)
        column = np.full(len(at), np.nan) if values is None else np.where(shown, values[at], np.nan)
        known_s = float(np.isfinite(column).sum()) * step_ns / NANOS_PER_S
        if values is None:
            absent[feature] = "not among the engine's columns"
        elif known_s < KNOWN_S_MIN:
            absent[feature] = f"known for {known_s:.0f} s, fewer than {KNOWN_S_MIN:.0f}" + (
                f"; {ABSENT[feature]}" if feature in ABSENT else ""
            )
        else:
            columns[feature] = column
    mid_log = np.where(shown, np.log(rows["mid"][at]), np.nan)
    return Sample(name, symbol, int(instants[0]), step_ns, len(rows), mid_log, np.cumsum(~live)[at], columns, absent)


class _Top(msgspec.Struct):
    b: str
    B: str
    a: str
    A: str


class _Trade(msgspec.Struct):
    q: str
    m: bool


class _Line(msgspec.Struct):
    stream: str
    data: msgspec.Raw


_line, _top, _trade = msgspec.json.Decoder(_Line), msgspec.json.Decoder(_Top), msgspec.json.Decoder(_Trade)


def ticker_of(capture: Path, sample: Sample) -> Ticker | None:
    """Read ``bookTicker`` and ``trade`` of a capture straight from its lines; None where it has no such streams."""
    tops: list[tuple[int, float, float, float, float]] = []
    trades: list[tuple[int, float]] = []
    with gzip.open(capture) as lines:
        for line in lines:
            stamp, _, payload = line.partition(b" ")
            if not payload.startswith(b'{"stream"'):
                continue
            told = _line.decode(payload)
            if told.stream.endswith("@bookTicker"):
                top = _top.decode(told.data)
                tops.append((int(stamp), float(top.b), float(top.B), float(top.a), float(top.A)))
            elif told.stream.endswith("@trade"):
                trade = _trade.decode(told.data)
                trades.append((int(stamp), -float(trade.q) if trade.m else float(trade.q)))
    if not tops or not trades:
        return None
    ts_ns, (bid, bid_size, ask, ask_size) = np.array([top[0] for top in tops]), np.array([top[1:] for top in tops]).T
    up, down = np.diff(bid), -np.diff(ask)
    buying = np.where(up > 0.0, bid_size[1:], np.where(up < 0.0, -bid_size[:-1], np.diff(bid_size)))
    selling = np.where(down > 0.0, ask_size[1:], np.where(down < 0.0, -ask_size[:-1], np.diff(ask_size)))
    flow = np.concatenate(([0.0, 0.0], np.cumsum(buying - selling)))
    volume = np.concatenate(([0.0], np.cumsum([quantity for _, quantity in trades])))
    instants = sample.start_ns + sample.step_ns * np.arange(len(sample.mid_log))
    at = np.searchsorted(ts_ns, instants, "right")
    mid_log, imbalance = np.log(0.5 * (bid + ask)), (bid_size - ask_size) / (bid_size + ask_size)
    mid_log, imbalance = (np.where(at > 0, values[at - 1], np.nan) for values in (mid_log, imbalance))
    return Ticker(mid_log, flow[at], volume[np.searchsorted([stamp for stamp, _ in trades], instants, "right")], imbalance)


# Measuring


@dataclass(frozen=True)
class Cell:
    """A feature against the move over one horizon."""

    ic: Fit
    line: Fit
    """Move in bps for one standard deviation of the feature."""
    windows: int
    """Windows of the horizon that fit side by side."""
    shifted: tuple[Fit, ...] = ()
    """ICs for labels of another time: there is nothing to find in them."""

    @property
    def is_judged(self) -> bool:
        """Whether there is enough of it to say anything."""
        return self.windows >= WINDOWS_MIN and bool(np.isfinite(self.ic.t))


@dataclass(frozen=True)
class Study:
    """All that is measured of one recording."""

    sample: Sample
    cells: dict[Key, Cell]


@dataclass(frozen=True)
class Research:
    """All recordings together."""

    studies: Sequence[Study]

    @property
    def fine(self) -> list[Study]:
        """The recordings on the fine grid, or all where there are none."""
        return [study for study in self.studies if study.sample.step_ns == STEP_NS] or list(self.studies)

    @cached_property
    def hurdles(self) -> dict[Key, float]:
        """Of each feature and horizon, the ``|t|`` / critical value that 5% of all shifted cells exceed, at least 1."""
        shifted: dict[Key, list[float]] = {}
        for study in self.studies:
            for key, cell in study.cells.items():
                shifted.setdefault(key, []).extend(excess(fit) for fit in cell.shifted)
        return {key: max(1.0, float(np.quantile(found, 0.95))) for key, found in shifted.items() if found}

    @cached_property
    def correlations(self) -> tuple[list[str], Float64Array2D]:
        """Features, and their rank correlations at one time: mean over the recordings on the fine grid that know both."""
        samples = [study.sample for study in self.fine]
        names = [name for name in (*SIGNED, *UNSIGNED) if any(name in sample.columns for sample in samples)]
        matrix = np.full((len(names), len(names)), np.nan)
        for i, one in enumerate(names):
            for j, other in enumerate(names[:i]):
                both = [sample.columns for sample in samples if one in sample.columns and other in sample.columns]
                found = np.array([prediction.rank_ic(columns[one], columns[other], 1).slope for columns in both])
                if np.isfinite(found).any():
                    matrix[i, j] = float(np.nanmean(found))
        return names, matrix

    def is_significant(self, key: Key, cell: Cell) -> bool:
        """Whether a judged cell's ``t`` is beyond both its critical value and what labels of another time give."""
        return cell.is_judged and key in self.hurdles and excess(cell.ic) > self.hurdles[key]

    def features(self, names: Iterable[str]) -> list[str]:
        """Return those of the features that any recording knows."""
        return [name for name in names if any(name in study.sample.columns for study in self.studies)]


def excess(fit: Fit) -> float:
    """Return ``|t|`` over its critical value."""
    return abs(fit.t) / fit.critical


def target(feature: str, move: Float64Array1D) -> Float64Array1D:
    """Return what a feature is held against: the move, or its size."""
    return move if feature in SIGNED else np.abs(move)


def measured(x: Float64Array1D, y: Float64Array1D, overlap: int) -> Cell:
    """Return both measures of ``x`` for ``y``."""
    ic = prediction.rank_ic(x, y, overlap)
    deviation = float(np.std(x[np.isfinite(x) & np.isfinite(y)])) if ic.n else 0.0
    return Cell(ic, prediction.regress(x / deviation if deviation > 0.0 else x, y, overlap), -(-ic.n // overlap))


def shifted_of(sample: Sample, x: Float64Array1D, y: Float64Array1D, horizon_s: float) -> tuple[Fit, ...]:
    """Return the ICs of ``x`` for labels shifted in a circle, evenly, away from their own time."""
    known = np.isfinite(x) & np.isfinite(y)
    n, apart, overlap = int(known.sum()), sample.steps(horizon_s + CLEARANCE_S), sample.steps(horizon_s)
    if n <= 2 * apart + SHIFTS:
        return ()
    ordered, wanted = prediction.ranks(x[known]), prediction.ranks(y[known])
    shifts = [int(shift) for shift in np.linspace(apart, n - apart, SHIFTS)]
    return tuple(prediction.regress(ordered, np.roll(wanted, shift), overlap) for shift in shifts)


def study_of(sample: Sample, advance: Callable[[], None]) -> Study:
    """Measure every feature over every horizon, and judged ones against shifted labels."""
    cells: dict[Key, Cell] = {}
    for horizon_s in HORIZONS_S:
        overlap = sample.steps(horizon_s)
        move = sample.move(horizon_s)
        for feature, x in sample.columns.items() if overlap else ():
            y = target(feature, move)
            cell = measured(x, y, overlap)
            cells[feature, horizon_s] = replace(cell, shifted=shifted_of(sample, x, y, horizon_s)) if cell.is_judged else cell
        advance()
    return Study(sample, cells)


def out_of_sample(sample: Sample, features: Sequence[str], horizon_s: float) -> tuple[float, float]:
    """Return R2 in the first half, where a line in all the features is fitted, and in the second, against a forecast of no move.

    Features are held within the range of 98% of their first half, so that one wide spread does not make the line.
    """
    y = sample.move(horizon_s)
    x = np.column_stack([sample.columns[feature] for feature in features])
    known, times = np.isfinite(y) & np.isfinite(x).all(axis=1), np.arange(len(y))
    first = known & (times < len(y) // 2 - sample.steps(horizon_s))  # No label of the first half reaches into the second.
    second = known & (times >= len(y) // 2)
    if min(first.sum(), second.sum()) < 10 * (len(features) + 1):
        return np.nan, np.nan
    x = np.clip(x, *np.quantile(x[first], (0.01, 0.99), axis=0))
    deviation = x[first].std(axis=0)
    design = np.column_stack((np.ones(len(y)), (x - x[first].mean(axis=0)) / np.where(deviation > 0.0, deviation, 1.0)))
    weights = np.linalg.lstsq(design[first], y[first], rcond=None)[0]
    errors = np.square(y - design @ weights)
    within, beyond = (1.0 - float(errors[part].sum() / np.square(y[part]).sum()) for part in (first, second))
    return within, beyond


def phases(cause: Float64Array1D, mid_log: Float64Array1D, width: int, *, is_state: bool) -> list[Fit]:
    """Return the line for the move of a window, windows side by side, on each grid of ``width`` steps there is.

    In what a running sum gained in the window, or, of a state, in what it was when the window began.
    """
    fits = []
    for phase in range(width):
        values, moves = cause[phase::width], np.diff(mid_log[phase::width])
        fits.append(prediction.regress(values[:-1] if is_state else np.diff(values), moves, 1))
    return [fit for fit in fits if np.isfinite(fit.r2)]


# The page


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> list[str]:
    """Return a Markdown table; its first columns hold words, the others numbers."""
    ruler = ["---"] * words + ["---:"] * (len(head) - words)
    return [*("| " + " | ".join(cells) + " |" for cells in (head, ruler, *rows)), ""]


def point(*words: str) -> str:
    """Return one point of a list."""
    return "- " + " ".join(words)


def number(value: float, decimals: int = 2, *, plus: bool = False) -> str:
    """Return a number, a dash where it is unknown; never a negative zero."""
    if not np.isfinite(value):
        return "-"
    rounded = round(value, decimals) + 0.0
    return f"{rounded:{'+' if plus and rounded else ''}.{decimals}f}"


def bps(value: float) -> str:
    """Return bps with a sign."""
    return number(value, plus=True)


def times(values: Iterable[float]) -> list[str]:
    return [f"{value:g} s" for value in values]


def shown(text: str, *, is_judged: bool, is_significant: bool) -> str:
    """Return a cell's text: bold where it is significant, in italics where it is not judged."""
    if not is_judged:
        return f"*{text}*"
    return f"**{text}**" if is_significant else text


def day_of(sample: Sample) -> str:
    return datetime.fromtimestamp(sample.start_ns // NANOS_PER_S, UTC).strftime("%Y-%m-%d %H:%M")


def half_spread_of(sample: Sample) -> float:
    return 0.5 * float(np.nanmean(sample.columns["spread_bps"]))


def data_section(research: Research) -> list[str]:
    rows = []
    for sample in (study.sample for study in research.studies):
        moves = sample.move(sample.step_ns / NANOS_PER_S)
        rows.append(
            (
                sample.symbol,
                day_of(sample),
                f"{sample.messages:,}",
                f"{sample.live_s:,.0f}",
                str(int(sample.live_s / HORIZONS_S[-1])),
                f"{sample.step_ns / NANOS_PER_S:g} s",
                f"{100.0 * float(np.mean(moves[np.isfinite(moves)] != 0.0)):.0f}%",
                number(float(np.nanstd(sample.move(1.0)))),
                number(half_spread_of(sample), 3),
            )
        )
    head = (
        "recording",
        "from, UTC",
        "messages",
        "LIVE, s",
        "windows of 60 s",
        "grid",
        "steps with a move",
        "sd of 1 s, bps",
        "half spread, bps",
    )
    return table(head, rows, words=2)


def findings_section(research: Research) -> list[str]:
    """Return sentences that hold whatever the numbers are."""
    fine = research.fine

    def ics(feature: str, horizon_s: float) -> list[float]:
        return [study.cells[feature, horizon_s].ic.slope for study in fine if (feature, horizon_s) in study.cells]

    best = max(research.features(SIGNED), key=lambda name: abs(float(np.nanmean([*ics(name, 1.0), 0.0]))))
    lasting = [
        f"{horizon_s:g} s"
        for horizon_s in HORIZONS_S
        if all((key := (best, horizon_s)) in study.cells and research.is_significant(key, study.cells[key]) for study in fine)
    ]
    judged = [(key, cell, study.sample) for study in research.studies for key, cell in study.cells.items() if cell.is_judged]
    kinds = []
    for kind, name in ((SIGNED, "with a direction"), (UNSIGNED, "without one")):
        of_kind = [research.is_significant(key, cell) for key, cell, _ in judged if key[0] in kind]
        kinds.append(f"{sum(of_kind)} of {len(of_kind)} for features {name}")
    key, cell, sample = max(
        ((key, cell, sample) for key, cell, sample in judged if key[0] in SIGNED), key=lambda one: (abs(one[1].line.slope), one[0])
    )
    average = f"IC {np.mean(ics(best, 1.0)):+.2f} on average over {len(fine)} recording{'s' * (len(fine) > 1)} on the fine grid"
    return [
        point(
            f"Among features with a direction, `{best}` orders the moves of the next second best: {average},",
            f"{min(ics(best, 1.0)):+.2f} to {max(ics(best, 1.0)):+.2f}.",
            f"It is significant in each of them at {', '.join(lasting)}." if lasting else "It is significant in all of them at no horizon.",
        ),
        point(f"Significant among the judged cells: {' and '.join(kinds)}; by chance it would be one in twenty."),
        point(
            f"The largest move that one standard deviation of a feature predicts, in a judged cell, is {abs(cell.line.slope):.2f} bps",
            f"(`{key[0]}`, {key[1]:g} s, {sample.symbol}). A taker pays {half_spread_of(sample) + FEE_BPS:.2f} bps there for each side.",
        ),
    ]


def summary_section(research: Research) -> list[str]:
    rows = []
    for feature in research.features((*SIGNED, *UNSIGNED)):
        texts = []
        for key in ((feature, horizon_s) for horizon_s in HORIZONS_S):
            cells = [study.cells[key] for study in research.fine if key in study.cells]
            ics = np.array([cell.ic.slope for cell in cells])
            if not np.isfinite(ics).any():
                texts.append("-")
                continue
            text = f"{number(float(np.nanmean(ics)))} ({number(float(np.nanmin(ics)))}, {number(float(np.nanmax(ics)))})"
            texts.append(shown(text, is_judged=True, is_significant=all(research.is_significant(key, cell) for cell in cells)))
        rows.append((f"`{feature}`", *texts))
    return table(("feature", *times(HORIZONS_S)), rows)


def decay_section(research: Research) -> list[str]:
    slices = list(pairwise((0.0, *HORIZONS_S)))
    rows = []
    for sample in (study.sample for study in research.studies):
        for feature in (name for name in DRAWN if name in sample.columns):
            texts = []
            for after_s, end_s in slices:
                if sample.steps(after_s) * sample.step_ns != round(after_s * NANOS_PER_S) or not sample.steps(end_s):
                    texts.append("-")  # The grid is too coarse for this slice.
                    continue
                overlap = sample.steps(end_s) - sample.steps(after_s)
                move = sample.move(overlap * sample.step_ns / NANOS_PER_S, after_s=after_s)
                cell = measured(sample.columns[feature], move, overlap)
                texts.append(shown(bps(cell.ic.slope), is_judged=cell.is_judged, is_significant=cell.ic.is_significant))
            rows.append((sample.symbol, f"`{feature}`", *texts))
    return table(("recording", "feature", *(f"{after_s:g} to {end_s:g} s" for after_s, end_s in slices)), rows, words=2)


def same_time_section(research: Research) -> list[str]:
    rows = []
    for sample in (study.sample for study in research.studies):
        for feature, window_s in WINDOW_S.items():
            if feature in sample.columns:
                width, move = sample.steps(window_s), sample.move(window_s)
                past = np.concatenate((np.full(width, np.nan), move[:-width]))
                fits = [prediction.regress(sample.columns[feature], y, width) for y in (past, move)]
                texts = [text for fit in fits for text in (number(100.0 * fit.r2, 1), number(fit.t, 1, plus=True))]
                rows.append((sample.symbol, f"`{feature}`", f"{window_s:g} s", *texts))
    return table(("recording", "feature", "window", "same window: R2, %", "t", "next window: R2, %", "t"), rows, words=2)


def ticker_section(research: Research) -> list[str]:
    widths_s, rows = (0.1, 1.0, 5.0, 10.0), []
    for sample in (study.sample for study in research.studies):
        if (ticker := sample.ticker) is None:
            continue
        causes = (("flow", "order flow, R2", ticker.flow), ("volume", "signed volume, R2", ticker.volume))
        for key, name, cause in (*causes, ("imbalance", "imbalance, correlation with the next move", ticker.imbalance)):
            texts = []
            for width_s in widths_s:
                fits = phases(cause, ticker.mid_log, sample.steps(width_s), is_state=key == "imbalance")
                found = np.array([math.copysign(math.sqrt(fit.r2), fit.slope) if key == "imbalance" else fit.r2 for fit in fits])
                text = number(float(np.median(found))) if fits else "-"
                if len(fits) > 1:
                    text += f" ({number(float(found.min()))} to {number(float(found.max()))})"
                stated = STATED.get(sample.name, {}).get(key, {}).get(width_s)
                texts.append(text + (f"; stated {stated:.2f}" if stated else ""))
            rows.append((sample.symbol, name, *texts))
    return table(("recording", "cause", *times(widths_s)), rows, words=2)


def delay_section(research: Research) -> list[str]:
    horizons_s, rows = (0.1, 1.0, 5.0), []
    for sample in (study.sample for study in research.studies):
        if (ticker := sample.ticker) is None:
            continue
        for feature in (name for name in DRAWN[:3] if name in sample.columns):
            texts = []
            for horizon_s in horizons_s:
                for log in (sample.mid_log, ticker.mid_log):
                    cell = measured(sample.columns[feature], sample.move(horizon_s, mid_log=log), max(1, sample.steps(horizon_s)))
                    texts.append(f"{bps(cell.ic.slope)}, {number(100.0 * cell.line.r2, 1)}%")
            rows.append((sample.symbol, f"`{feature}`", *texts))
    head = ("recording", "feature", *(f"{horizon_s:g} s, {mid}" for horizon_s in horizons_s for mid in ("book", "ticker")))
    return table(head, rows, words=2)


def chance_section(research: Research) -> list[str]:
    rows = []
    for name, kind in (("with a direction", SIGNED), ("without one", UNSIGNED)):
        for horizon_s in HORIZONS_S:
            keys = [(feature, horizon_s) for feature in kind]
            judged = [
                (key, study.cells[key]) for study in research.studies for key in keys if key in study.cells and study.cells[key].is_judged
            ]
            if not judged:
                continue
            fits = [cell.ic for _, cell in judged]
            shifted = [fit for _, cell in judged for fit in cell.shifted]
            rates = [fit.is_significant for fit in shifted]
            rows.append(
                (
                    name,
                    f"{horizon_s:g} s",
                    str(len(judged)),
                    number(0.05 * len(judged), 1),
                    f"{np.median([fit.n_effective for fit in fits]):,.0f}",
                    str(sum(fit.is_significant for fit in fits)),
                    f"{100.0 * float(np.mean(rates)):.0f}% of {len(rates):,}" if rates else "-",
                    number(float(np.quantile([abs(fit.t) for fit in shifted], 0.95)), 1) if shifted else "-",
                    str(sum(research.is_significant(key, cell) for key, cell in judged)),
                    number(max(abs(fit.t) for fit in fits), 1),
                    number(max((abs(fit.t) for fit in shifted), default=np.nan), 1),
                )
            )
    head = ("feature", "horizon", "judged cells", "by chance", "effective n, median", "beyond the 5% point", "shifted: beyond it")
    return table((*head, "shifted: 5% exceed", "significant", "largest t", "shifted: largest t"), rows, words=2)


def stability_section(research: Research) -> list[str]:
    rows = []
    for sample in (study.sample for study in research.studies):
        known = [name for name in SIGNED if name in sample.columns and name != "microprice_stoikov"]
        for label, features in (("`obi_1`", known[:1]), (f"all {len(known)}", known)):
            texts = []
            for horizon_s in SHORT_S:
                within, beyond = out_of_sample(sample, features, horizon_s) if sample.steps(horizon_s) else (np.nan, np.nan)
                texts.append(f"{number(100.0 * within, 1)} / {number(100.0 * beyond, 1)}" if np.isfinite(within) else "-")
            rows.append((sample.symbol, label, *texts))
    return table(("recording", "features", *times(SHORT_S)), rows, words=2)


def correlation_section(research: Research) -> list[str]:
    names, matrix = research.correlations
    pairs = [(names[j], names[i], float(matrix[i, j])) for i in range(len(names)) for j in range(i) if abs(matrix[i, j]) >= ALIKE]
    alike = [f"`{one}` and `{other}` {value:+.2f}" for one, other, value in sorted(pairs, key=lambda pair: (-abs(pair[2]), pair))]
    return [f"Pairs at {ALIKE:g} or more: {', '.join(alike)}." if alike else f"No pair is at {ALIKE:g} or more."]


def cost_section(research: Research) -> list[str]:
    rows = []
    for study in research.studies:
        texts, most, cost = [], np.nan, half_spread_of(study.sample) + FEE_BPS
        for horizon_s in HORIZONS_S:
            cells = [(abs(cell.line.slope), key[0]) for key, cell in study.cells.items() if key[1] == horizon_s and cell.is_judged]
            found = [one for one in cells if one[1] in SIGNED]
            if found:
                most, feature = max(found)
            texts.append(f"{most:.2f} `{feature}`" if found else "-")
        rows.append((study.sample.symbol, *texts, number(cost), number(cost / most, 0)))
    return table(("recording", *times(HORIZONS_S), "one side costs", "sd to pay for it"), rows)


def study_section(research: Research, study: Study) -> list[str]:
    """Return the two full tables of a recording, folded away."""
    horizons = [horizon_s for horizon_s in HORIZONS_S if study.sample.steps(horizon_s)]
    orders, lines = [], []
    for feature in study.sample.columns:
        row = [((feature, horizon_s), study.cells[feature, horizon_s]) for horizon_s in horizons]
        orders.append([f"`{feature}`"])
        for key, cell in row:
            text = f"{bps(cell.ic.slope)} ({number(cell.ic.t, 1, plus=True)})"
            orders[-1].append(shown(text, is_judged=cell.is_judged, is_significant=research.is_significant(key, cell)))
        lines.append([f"`{feature}`"])
        lines[-1] += [f"{number(100.0 * cell.line.r2, 1)}; {bps(cell.line.slope)} ({number(cell.line.error)})" for _, cell in row]
    return [
        f"<details><summary>{study.sample.symbol}, {day_of(study.sample)} UTC</summary>",
        "",
        "Rank IC (t):",
        "",
        *table(("feature", *times(horizons)), orders),
        "R2 of the line in %; bps that one standard deviation of the feature predicts (its standard error):",
        "",
        *table(("feature", *times(horizons)), lines),
        "</details>",
        "",
    ]


def cells_section(research: Research) -> list[str]:
    return [line for study in research.studies for line in study_section(research, study)]


def absent_section(research: Research) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for sample in (study.sample for study in research.studies):
        for feature, reason in sample.absent.items():
            reasons.setdefault((feature, reason), []).append(sample.symbol)
    lines = []
    for (feature, reason), symbols in reasons.items():
        where = "every recording" if len(symbols) == len(research.studies) else ", ".join(symbols)
        lines.append(point(f"`{feature}`, {where}: {reason}."))
    return lines or [point("Nothing is left out.")]


SECTIONS: dict[str, Callable[[Research], list[str]]] = {
    "data": data_section,
    "findings": findings_section,
    "ic": summary_section,
    "decay": decay_section,
    "same time": same_time_section,
    "ticker": ticker_section,
    "delay": delay_section,
    "chance": chance_section,
    "halves": stability_section,
    "correlation": correlation_section,
    "cost": cost_section,
    "all": cells_section,
    "absent": absent_section,
}
"""What the page's text leaves to the command: each stands between ``<!-- name -->`` and ``<!-- end -->``."""


def page(text: str, measured: Any, sections: Mapping[str, Callable[[Any], list[str]]] = SECTIONS) -> str:
    """Return the page with all its sections written anew from what was measured.

    Raises
    ------
    ValueError
        Where the page does not have each of the sections once.
    """
    found = re.findall(r"<!-- (.+?) -->\n.*?<!-- end -->\n", text, re.S)
    if sorted(found) != sorted(sections):
        raise ValueError(f"expected the sections {', '.join(sections)} in the page, each once, found {', '.join(found) or 'none'}")

    def filled(match: re.Match[str]) -> str:
        lines = "\n".join(sections[match[1]](measured)).strip("\n")
        return f"<!-- {match[1]} -->\n\n{lines}\n\n<!-- end -->\n"

    return re.sub(r"<!-- (.+?) -->\n.*?<!-- end -->\n", filled, text, flags=re.S)


# Pictures

STYLE = """<style>
.card{fill:#ffffff}.ink{fill:#1f2430}.soft{fill:#5b6472}.grid{stroke:#e3e6eb}.zero{stroke:#9aa3b0}.cost{stroke:#5b6472}
.up{fill:#2f7fe0}.down{fill:#dd6b2c}
.s0{stroke:#0b63ce}.s1{stroke:#a3214f}.s2{stroke:#0a7d62}.s3{stroke:#b3541e}
.f0{fill:#0b63ce}.f1{fill:#a3214f}.f2{fill:#0a7d62}.f3{fill:#b3541e}
@media (prefers-color-scheme: dark){
.card{fill:#14181f}.ink{fill:#e8ebf0}.soft{fill:#a3adbb}.grid{stroke:#2a313c}.zero{stroke:#667080}.cost{stroke:#a3adbb}
.up{fill:#3f8cf0}.down{fill:#e8743a}
.s0{stroke:#6cb0ff}.s1{stroke:#ff8fb3}.s2{stroke:#4fd0ae}.s3{stroke:#ffb070}
.f0{fill:#6cb0ff}.f1{fill:#ff8fb3}.f2{fill:#4fd0ae}.f3{fill:#ffb070}}
</style>"""
WIDTH = 960


def text(x: float, y: float, what: str, *, size: int = 12, anchor: str = "start", look: str = "soft", turn: int = 0) -> str:
    """Return a line of text; a name in ink at the left edge of something is bold."""
    at = f'x="{x:.1f}" y="{y:.1f}"' + (f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else "")
    return f'<text class="{look}" {at} font-size="{size}" text-anchor="{anchor}">{escape(what)}</text>'


def title(x: float, y: float, what: str, *, size: int = 12) -> str:
    """Return a line of bold text."""
    return f'<text class="ink" x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="bold">{escape(what)}</text>'


def square(x: float, y: float, width: float, height: float, value: float, full: float) -> str:
    """Return a rectangle around a point, its colour the sign of ``value``, its strength the magnitude up to ``full``."""
    side, strength = "up" if value > 0.0 else "down", min(1.0, 0.06 + 0.94 * abs(value) / full)
    place = f'x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{side}" {place} fill-opacity="{strength:.2f}"/>'


def picture(name: str, note: str, height: float, parts: Iterable[str]) -> str:
    """Return the SVG of these parts; it has its own ground, light or dark as the reader's screen, and so reads on any page."""
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    font = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"'
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">', STYLE, f"<title>{escape(name)}</title>")
    ground = ('<rect class="card" width="100%" height="100%"/>', title(16, 28, name, size=16), text(16, 48, note))
    return "\n".join((*head, *ground, *parts, "</svg>\n"))


def heat_picture(research: Research) -> str:
    """Return a block for each recording: features down, horizons across, colour by IC; a small square is not significant."""
    studies, features = research.studies, research.features((*SIGNED, *UNSIGNED))
    left, top, row, gap, full = 140.0, 108.0, 21.0, 14.0, 0.5
    block = (WIDTH - left - 16.0 - gap * (len(studies) - 1)) / len(studies)
    column = block / len(HORIZONS_S)
    bottom = top + row * len(features)
    parts = [text(left - 8, top + row * (i + 0.5) + 4, name, anchor="end", look="ink") for i, name in enumerate(features)]
    for j, study in enumerate(studies):
        x0 = left + j * (block + gap)
        venue, _, pair = study.sample.symbol.partition(":")
        parts += [title(x0, top - 28, pair), text(x0, top - 13, f"{venue}, {study.sample.live_s:,.0f} s", size=11)]
        for k, horizon_s in enumerate(HORIZONS_S):
            x = x0 + column * (k + 0.5)
            parts.append(text(x, bottom + 16, f"{horizon_s:g}".removeprefix("0"), size=10, anchor="middle"))
            for i, name in enumerate(features):
                y, key = top + row * (i + 0.5), (name, horizon_s)
                cell = study.cells.get(key)
                if cell is None or not np.isfinite(cell.ic.slope):
                    parts.append(f'<path class="grid" d="M{x - 3:.1f} {y:.1f}h6"/>')
                else:
                    share = 1.0 if research.is_significant(key, cell) else 0.4
                    parts.append(square(x, y, share * (column - 2.0), share * (row - 2.0), cell.ic.slope, full))
    y = top + row * sum(name in SIGNED for name in features)
    parts.append(f'<path class="zero" d="M16 {y:.1f}H{WIDTH - 16}"/>')
    parts.append(text(left - 8, bottom + 16, "horizon, s", size=10, anchor="end"))
    for i, value in enumerate((-0.5, -0.3, -0.1, 0.1, 0.3, 0.5)):
        x = left + 62.0 * i
        parts += [square(x + 8, bottom + 38, 16, 14, value, full), text(x + 21, bottom + 42, f"{value:+.1f}", size=11)]
    parts.append(text(left + 390, bottom + 42, "small: not significant, or too few windows to judge", size=11))
    note = "Above the line: features with a direction, for the move. Below it: those without one, for the size of the move."
    return picture("Rank IC by feature and horizon", note, bottom + 62, parts)


@dataclass(frozen=True)
class Panel:
    """One plot over the horizon; both ways logarithmic, or across alone."""

    left: float
    top: float
    width: float
    height: float
    low: float
    high: float
    is_log: bool

    def x(self, horizon_s: float) -> float:
        return self.left + self.width * math.log(horizon_s / HORIZONS_S[0]) / math.log(HORIZONS_S[-1] / HORIZONS_S[0])

    def y(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        share = math.log(value / self.low) / math.log(self.high / self.low) if self.is_log else (value - self.low) / (self.high - self.low)
        return self.top + self.height * (1.0 - share)

    def ground(self, sample: Sample, marks: Sequence[float]) -> list[str]:
        """Return its axes and its name."""
        parts = [title(self.left, self.top - 10, sample.symbol)]
        for mark in marks:
            parts.append(f'<path class="{"zero" if mark == 0.0 else "grid"}" d="M{self.left:.1f} {self.y(mark):.1f}h{self.width:.1f}"/>')
            parts.append(text(self.left - 6, self.y(mark) + 4, f"{mark:g}", size=10, anchor="end"))
        for horizon_s in (0.1, 1.0, 10.0, 60.0):
            parts.append(f'<path class="grid" d="M{self.x(horizon_s):.1f} {self.top:.1f}v{self.height:.1f}"/>')
            parts.append(text(self.x(horizon_s), self.top + self.height + 14, f"{horizon_s:g} s", size=10, anchor="middle"))
        return parts

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.x(horizon_s):.1f} {self.y(value):.1f}" for horizon_s, value in points)

    def curve(self, points: Iterable[tuple[float, float]], look: str, dash: str = "none") -> str:
        return f'<path class="{look}" d="{self.path(points)}" fill="none" stroke-width="1.8" stroke-dasharray="{dash}"/>'


def panels(count: int, low: float, high: float, *, is_log: bool) -> tuple[list[Panel], float]:
    """Return so many plots, three a line, and the height of a picture that holds them."""
    left, top, gap, height, line = 52.0, 112.0, 50.0, 190.0, 252.0
    width = (WIDTH - left - 24.0 - 2 * gap) / 3
    places = [Panel(left + (i % 3) * (width + gap), top + (i // 3) * line, width, height, low, high, is_log) for i in range(count)]
    return places, places[-1].top + height + 34.0


def legend(entries: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return a line of (name, class of its stroke, dashes)."""
    parts, x = [], 16.0
    for name, look, dash in entries:
        parts.append(f'<path class="{look}" d="M{x:.0f} 68h24" stroke-width="2.2" stroke-dasharray="{dash}"/>')
        parts.append(text(x + 30, 72, name))
        x += 48.0 + 6.6 * len(name)
    return parts


def decay_picture(research: Research) -> str:
    """Return IC over the horizon, each with the band of its error."""
    names = research.features(DRAWN)
    parts = legend([(name, f"s{i}", "none") for i, name in enumerate(names)])
    places, height = panels(len(research.studies), -0.6, 0.6, is_log=False)
    for panel, study in zip(places, research.studies, strict=True):
        parts += panel.ground(study.sample, (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6))
        for i, name in enumerate(names):
            fits = [(h, study.cells[name, h].ic) for h in HORIZONS_S if (name, h) in study.cells and np.isfinite(study.cells[name, h].ic.t)]
            if fits:
                upper = [(h, ic.slope + ic.critical * ic.error) for h, ic in fits]
                lower = [(h, ic.slope - ic.critical * ic.error) for h, ic in fits]
                band = upper + lower[::-1]
                parts.append(f'<path class="f{i}" d="{panel.path(band)}Z" fill-opacity="0.14"/>')
                parts.append(panel.curve([(h, ic.slope) for h, ic in fits], f"s{i}"))
    note = "Bands: what the error of the IC allows, at 5%. Where a band holds zero there may be no relation."
    return picture("Rank IC over the horizon", note, height, parts)


def cost_picture(research: Research) -> str:
    """Return the predicted move of one standard deviation beside the spread, the fee and the move itself."""
    names = research.features(DRAWN[:3])
    known = [("sd of the move", "cost", "2 3"), ("half spread", "cost", "7 4"), (f"half spread and fee of {FEE_BPS:g} bps", "cost", "none")]
    parts = legend([*((name, f"s{i}", "none") for i, name in enumerate(names)), *known])
    places, height = panels(len(research.studies), 0.001, 30.0, is_log=True)
    for panel, study in zip(places, research.studies, strict=True):
        parts += panel.ground(study.sample, (0.001, 0.01, 0.1, 1.0, 10.0))
        horizons, half_spread = [h for h in HORIZONS_S if study.sample.steps(h)], half_spread_of(study.sample)
        for level, dash in ((half_spread, "7 4"), (half_spread + FEE_BPS, "none")):
            parts.append(panel.curve([(HORIZONS_S[0], level), (HORIZONS_S[-1], level)], "cost", dash))
        parts.append(panel.curve([(h, float(np.nanstd(study.sample.move(h)))) for h in horizons], "cost", "2 3"))
        for i, name in enumerate(names):
            cells = [(h, study.cells[name, h]) for h in horizons if (name, h) in study.cells and study.cells[name, h].is_judged]
            if cells:
                parts.append(panel.curve([(h, abs(cell.line.slope)) for h, cell in cells], f"s{i}"))
    note = "Bps that one standard deviation of a feature predicts, where it is judged, and what one side of a trade costs a taker."
    return picture("Predicted move and cost", note, height, parts)


def correlation_picture(research: Research) -> str:
    """Return the lower triangle of the correlations."""
    names, matrix = research.correlations
    left, top = 140.0, 84.0
    cell = min(44.0, (WIDTH - left - 90.0) / len(names))
    parts = []
    for i, name in enumerate(names):
        y = top + cell * (i + 0.5)
        parts.append(text(left - 8, y + 4, name, anchor="end", look="ink"))
        parts.append(text(left + cell * (i + 1) + 6, y + 4, name, size=11, turn=-35) if i < len(names) - 1 else "")
        for j in range(i):
            value, x = float(matrix[i, j]), left + cell * (j + 0.5)
            if np.isfinite(value):
                parts.append(square(x, y, cell - 2, cell - 2, value, 1.3))
                parts.append(text(x, y + 4, number(value).replace("0.", ".", 1), size=10, anchor="middle", look="ink"))
        parts.append(f'<path class="zero" d="M{left + cell * i + 1:.1f} {top + cell * (i + 1) - 1:.1f}l{cell - 2:.1f} {2 - cell:.1f}"/>')
    note = f"Rank correlation at one time, mean over {len(research.fine)} recording{'s' * (len(research.fine) > 1)} on the fine grid."
    return picture("Features that repeat each other", note, top + cell * len(names) + 16, [part for part in parts if part])


PICTURES: dict[str, Callable[[Research], str]] = {
    "research_ic.svg": heat_picture,
    "research_decay.svg": decay_picture,
    "research_correlation.svg": correlation_picture,
    "research_cost.svg": cost_picture,
}


# The command


def replayed(capture: Path) -> tuple[str, Rows]:
    """Return a capture's first symbol and its rows, as ``ap.replay`` gives them but with VPIN's buckets fixed."""
    book.warm()
    stated = tuple(InstrumentSettings(symbol, vpin_bucket=size) for symbol, size in VPIN_BUCKETS.items())
    engine, complaints = app.build(), list[str]()
    recording = app.record_of([capture], Settings(core=CoreSettings(instruments=stated)), None, complaints.append)
    symbol, rows = "", []
    for entry, _ in app.steps(engine, recording):
        market = engine.microstructure.touched
        if market is not None and symbol in ("", market.facts.symbol):
            symbol = market.facts.symbol
            rows.append((entry.seq, entry.ts_ns, 0, market.facts.state, *engine.microstructure.features(market)))
    if complaints:
        raise ValueError(f"expected a recording that can be read, found {complaints[0]}")
    return symbol, np.array(rows, ROW)


def read(capture: Path) -> Sample:
    """Replay a capture and return its first symbol on the grid."""
    sample = sample_of(capture.name.split(".")[0], *replayed(capture))
    if sample.live_s < 2 * KNOWN_S_MIN:
        raise ValueError(f"expected {2 * KNOWN_S_MIN:.0f} s of a LIVE book, found {sample.live_s:.0f} s in {capture.name}")
    return replace(sample, ticker=ticker_of(capture, sample))


def write(research: Research, out: Path) -> list[Path]:
    """Write page and pictures and return what was written."""
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    own = out / PAGE.name
    written = {own: page((own if own.is_file() else PAGE).read_text(encoding="utf-8"), research)}
    written |= {out / "pictures" / name: drawn(research) for name, drawn in PICTURES.items()}
    for path, content in written.items():
        path.write_text(content, encoding="utf-8")
    return list(written)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", nargs="+", type=Path, default=CAPTURES, metavar="FILE", help="recordings; by default the usual five")
    parser.add_argument("--out", type=Path, default=PAGE.parent, metavar="FOLDER", help="where to write; by default docs")
    options = parser.parse_args(arguments)
    missing = [path for path in options.captures if not path.is_file()]
    if missing:
        print(f"error: expected a capture, found none at {missing[0]}; name one with --captures, or set ALPHAPACK_DATA", file=sys.stderr)
        return 2
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"), TimeElapsedColumn())
    studies = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(options.captures) * (1 + len(HORIZONS_S)))
        for capture in options.captures:
            progress.update(task, description=f"replaying {capture.name}")
            try:
                sample = read(capture)
            except (CaptureError, ValueError) as error:
                progress.stop()
                print(f"error: {error}", file=sys.stderr)
                return 2
            progress.update(task, description=f"measuring {sample.symbol}", advance=1)
            studies.append(study_of(sample, lambda: progress.advance(task)))
    for path in write(Research(studies), options.out):
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
