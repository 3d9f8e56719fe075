"""Hold the simulated market against recorded ones, fact by fact, and write the tables of docs/SIMULATOR.md and its pictures.

Both go through the engine and are measured by the same code, simulated flow in pieces as long as a recording. The text of the page
stays as it is, and the same recordings, seed and hours give the same bytes.
"""

import argparse
import gzip
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from report import DATA, FOUR, PROJECT
from research import BPS, WIDTH, Panel, legend, number, page, picture, point, table, text, title
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from alphapack import app
from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D
from alphapack.domain.inputs import Configure, CoreSettings, Frame, Heartbeat, SessionStart
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.domain.simulation import SimulatorSettings
from alphapack.kernels import marks as m
from alphapack.kernels import simulation
from alphapack.models import book, prediction, simulator
from alphapack.models.book import FEATURES
from alphapack.models.prediction import Fit
from alphapack.models.simulator import Simulator
from alphapack.services.microstructure import Market
from alphapack.shell.captures import Capture

EXAMPLE = "example: python bench/stylised.py --hours 1 --edge-hours 6 --out page"
PAGE = PROJECT / "docs" / "SIMULATOR.md"
CANDLES = [DATA / "candles" / f"binance-spot_{pair}_1m_20250520-20250818.csv.gz" for pair in ("BTCUSDT", "ETHUSDT")]
VENUE = "sim"
START_NS = 1_755_475_200 * NANOS_PER_S
"""18 August 2025, 00:00 UTC: about where the recorded candles end, so that simulated ones cover the same days."""
CANDLE_MINUTES = 69 * 1_440
KLINES_MAX = 1_000
GRID_NS = 100 * NANOS_PER_MS
MINUTE_NS, HOUR_NS = 60 * NANOS_PER_S, 3_600 * NANOS_PER_S
OPENING_NS = 3 * NANOS_PER_S
PIECE_S = 600.0
CANCEL_WINDOW_S = 5
LEVELS = 20
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
COLUMNS = ("mid", "bid", "ask", "obi_1", "obi", "ofi", "ti", "ti_30s", "cancel_rate", "queue_rate")
FORECASTERS = ("ti_30s", "ti", "ofi", "obi", "obi_1")
HORIZONS_S = (1, 10, 60, 300, 900)
DECISION_S = 300
EDGES = (0.0, 1.0)
FAR = 2.0
"""A simulated value this many times beyond all recorded ones is far from them."""

Message = tuple[int, str, str, bytes]
"""Time in ns, venue, the venue's symbol where the payload does not say it, payload."""


# Measuring: one engine, one grid


@dataclass(frozen=True)
class Grid:
    """One market's features at the instants of a grid, from the moment its book was LIVE."""

    name: str
    step_s: float
    columns: Mapping[str, Float64Array1D]
    """NaN where unknown."""

    @property
    def mid_log(self) -> Float64Array1D:
        return np.log(self.columns["mid"])

    def steps(self, seconds: float) -> int:
        return max(1, round(seconds / self.step_s))


@dataclass(frozen=True)
class Flow(Grid):
    """Its messages too."""

    tick: float
    rates: Mapping[str, float]
    """Messages a second by kind: ``depth``, ``trade``, ``bookTicker``."""
    profile: Float64Array1D
    """Share of each of the best levels in the size of all of them: mean over seconds and both sides."""
    reach_ticks: float
    """Mean distance from the best price to the last of these levels."""
    touch: float
    """Mean size of a best level."""
    cancel_share: float
    """Of all that left the top levels, what no trade explains."""
    trade_s: Float64Array1D
    """When each trade came, in seconds from the first instant of the grid."""
    trade_ms: Int64Array1D
    """When the venue says it happened."""
    sizes: Float64Array1D
    signs: Float64Array1D
    """1 where the buyer took, -1 where the seller did."""

    @property
    def span_s(self) -> float:
        return len(self.columns["mid"]) * self.step_s

    def returns(self, seconds: float) -> Float64Array1D:
        """Return the moves in bps over windows side by side."""
        return BPS * np.diff(self.mid_log[:: self.steps(seconds)])

    def pieces(self) -> "list[Flow]":
        """Return the flow cut into pieces as long as a recording; one that is shorter stays whole."""
        width = self.steps(PIECE_S)
        return [self.cut(first, first + width) for first in range(0, len(self.columns["mid"]) - width + 1, width)] or [self]

    def cut(self, first: int, end: int) -> "Flow":
        """Return what is between two instants of the grid."""
        there = slice(*np.searchsorted(self.trade_s, (first * self.step_s, end * self.step_s)))
        columns = {name: values[first:end] for name, values in self.columns.items()}
        trades = {name: getattr(self, name)[there] for name in ("trade_s", "trade_ms", "sizes", "signs")}
        return replace(self, columns=columns, **trades)


@dataclass
class Note:
    """What is noted of one market while the engine runs."""

    market: Market
    counts: Counter[str] = field(default_factory=Counter)
    instants: list[int] = field(default_factory=list)
    rows: list[Float64Array1D] = field(default_factory=list)
    sizes: list[Float64Array1D] = field(default_factory=list)
    """Sizes of the best levels, once a second, bids before asks."""
    reaches: list[float] = field(default_factory=list)
    cancels: list[tuple[int, int]] = field(default_factory=list)
    """What left the top levels in each window, and what of it no trade explains, in lots."""
    trades: list[tuple[int, int, float, float]] = field(default_factory=list)

    def take(self, ts_ns: int, payload: bytes) -> None:
        """Note one of its messages, once there is a row before it."""
        if not self.rows:
            return
        kind = payload[: payload.find(b'"', 11)].rpartition(b"@")[2].decode() if payload.startswith(b'{"stream":"') else "snapshot"
        kind = "depth" if b"@depth" in payload[:40] else kind
        self.counts[kind] += 1
        if kind == "trade":
            trade = _trade.decode(payload).data
            self.trades.append((ts_ns, trade.T, float(trade.q), -1.0 if trade.m else 1.0))

    def look(self, now_ns: int, row: Float64Array1D) -> None:
        """Note where the market is at an instant of the grid; before it is LIVE there is nothing to note."""
        if not self.market.book.live and not self.rows:
            return
        self.instants.append(now_ns)
        self.rows.append(row[_PLACES])
        if now_ns % NANOS_PER_S == 0:
            self._look_deep()
        if now_ns % (CANCEL_WINDOW_S * NANOS_PER_S) == 0:
            removed, unexplained = (int(self.market.book.marks[m.DEPTHS_5S + i]) for i in (1, 2))
            self.cancels.append((removed, unexplained))

    def _look_deep(self) -> None:
        sides = [self.market.book.side(which, LEVELS) for which in ("bids", "asks")]
        if min(map(len, sides)) == LEVELS:
            self.sizes.append(np.array([size for side in sides for _, size in side]))
            self.reaches.append(float(np.mean([abs(side[-1][0] - side[0][0]) for side in sides])))

    def flow(self) -> Flow:
        """Return all of it.

        Raises
        ------
        ValueError
            Where the book was not LIVE at each instant after the first.
        """
        columns = dict(zip(COLUMNS, np.array(self.rows).reshape(-1, len(COLUMNS)).T, strict=True))
        symbol = self.market.facts.symbol
        if not len(self.rows) or not np.isfinite(columns["mid"]).all():
            raise ValueError(f"expected a book that stays LIVE, found {symbol} without a mid")
        tick = self.market.book.tick
        assert tick is not None, "a book that is LIVE has seen prices"
        tick_size = float(tick.number(1))
        levels = np.array(self.sizes).reshape(-1, 2, LEVELS)
        trades = np.array(self.trades).reshape(-1, 4).T
        removed, unexplained = (sum(window[i] for window in self.cancels) for i in (0, 1))
        return Flow(
            name=label(symbol),
            step_s=GRID_NS / NANOS_PER_S,
            tick=tick_size,
            rates={kind: count * NANOS_PER_S / (len(self.rows) * GRID_NS) for kind, count in self.counts.items()},
            columns=columns,
            profile=np.mean(levels / levels.sum(axis=2, keepdims=True), axis=(0, 1)) if len(levels) else np.full(LEVELS, np.nan),
            reach_ticks=float(np.mean(self.reaches)) / tick_size if self.reaches else math.nan,
            touch=float(np.mean(levels[:, :, 0])) if len(levels) else math.nan,
            cancel_share=unexplained / removed if removed else math.nan,
            trade_s=np.array([(trade[0] - self.instants[0]) / NANOS_PER_S for trade in self.trades]),
            trade_ms=np.array([trade[1] if trade[1] < 10**14 else trade[1] // 1_000 for trade in self.trades], np.int64),
            sizes=trades[2],
            signs=trades[3],
        )


class _Trade(msgspec.Struct):
    T: int
    q: str
    m: bool


class _TradeLine(msgspec.Struct):
    data: _Trade


_trade = msgspec.json.Decoder(_TradeLine)
_PLACES = [FEATURES.index(name) for name in COLUMNS]


def label(symbol: str) -> str:
    """Return a market's name for tables: ``usdm BTCUSDT``."""
    venue, _, pair = symbol.partition(":")
    return f"{venue.removeprefix('binance-')} {pair}"


def observed(messages: Iterable[Message]) -> list[Flow]:
    """Step messages through an engine and look at every market at each instant of the grid, after what came at it.

    Raises
    ------
    ValueError
        Where a message is rejected, or a book falls out of LIVE.
    """
    book.warm()
    engine, notes = app.build(), dict[str, Note]()
    due_ns = seq = 0
    for ts_ns, venue, symbol, payload in messages:
        if not seq:
            engine.step(Configure(1, ts_ns, CoreSettings()))
            engine.step(SessionStart(2, ts_ns, "facts"))
            seq, due_ns = 2, -(-ts_ns // GRID_NS) * GRID_NS
        while due_ns < ts_ns:
            seq += 1
            engine.step(Heartbeat(seq, due_ns))
            for note in notes.values():
                note.look(due_ns, engine.microstructure.features(note.market))
            due_ns += GRID_NS
        seq += 1
        engine.step(Frame(seq, ts_ns, venue, symbol, payload))
        if engine.rejection is not None:
            raise ValueError(f"expected messages that can be read, found {engine.rejection}")
        touched = engine.microstructure.touched
        if touched is not None:
            name = touched.facts.symbol
            if name not in notes:
                notes[name] = Note(touched)
            notes[name].take(ts_ns, payload)
    return [notes[name].flow() for name in sorted(notes)]


def recorded(path: Path) -> Iterator[Message]:
    """Yield the messages of a capture."""
    capture = Capture([path], report=lambda complaint: print(complaint, file=sys.stderr), venues=app.venues())
    venue, symbol = capture.names[0]
    for ts_ns, _, _, payload in capture.rows():
        yield ts_ns, venue, symbol, payload


def opened(settings: SimulatorSettings) -> tuple[Simulator, list[Message]]:
    """Return a simulated market and its first seconds: flow, a snapshot of each symbol after one second, flow that links to it."""
    market = Simulator(settings, START_NS)
    messages = [(ts_ns, VENUE, "", payload) for ts_ns, payload in market.advance(START_NS + NANOS_PER_S)]
    messages += [(market.now_ns, VENUE, symbol, market.snapshot(symbol)) for symbol in settings.symbols]
    return market, [*messages, *((ts_ns, VENUE, "", payload) for ts_ns, payload in market.advance(START_NS + OPENING_NS))]


def simulated(settings: SimulatorSettings, hours: float, tell: Callable[[float], None]) -> Iterator[Message]:
    """Yield so many hours of simulated flow; ``tell`` hears of each part that is done, in hours."""
    market, messages = opened(settings)
    yield from messages
    for ts_ns in minutes_of(hours):
        for sent_ns, payload in market.advance(ts_ns):
            yield sent_ns, VENUE, "", payload
        tell(MINUTE_NS / HOUR_NS)


def minutes_of(hours: float) -> range:
    """Return the ends of the minutes of so many hours of flow."""
    return range(START_NS + MINUTE_NS, START_NS + round(hours * HOUR_NS) + 1, MINUTE_NS)


def looked_up(settings: SimulatorSettings, hours: float, tell: Callable[[float], None]) -> list[Grid]:
    """Return so many hours of simulated flow on a grid of one second.

    An engine brings the books to LIVE. From there on they take a minute in one call each, which is the engine's own kernel without
    the engine around it. Tickers move no feature and are left out.

    Raises
    ------
    ValueError
        Where a book does not take a message.
    """
    book.warm()
    market, messages = opened(settings)
    engine, books = app.build(), dict[str, Market]()
    engine.step(Configure(1, messages[0][0], CoreSettings()))
    engine.step(SessionStart(2, messages[0][0], "facts"))
    for seq, (ts_ns, venue, symbol, payload) in enumerate(messages, 3):
        engine.step(Frame(seq, ts_ns, venue, symbol, payload))
        if engine.microstructure.touched is not None:
            books[engine.microstructure.touched.facts.symbol] = engine.microstructure.touched
    starts = {b'{"stream":"%b@' % name.partition(":")[2].lower().encode(): name for name in books}
    last = {name: one.book.features(market.now_ns).copy() for name, one in books.items()}
    found: dict[str, list[Float64Array2D]] = {name: [] for name in books}
    for end_ns in minutes_of(hours):
        since_ns, taken = market.now_ns, {name: list[tuple[int, bytes]]() for name in books}
        for ts_ns, payload in market.advance(end_ns):
            if b"@bookTicker" not in payload[:40]:
                taken[starts[payload[: payload.find(b"@") + 1]]].append((ts_ns, payload))
        instants = np.arange(since_ns // NANOS_PER_S + 1, end_ns // NANOS_PER_S + 1) * NANOS_PER_S
        for name, frames in taken.items():
            times, ends = np.array([ts_ns for ts_ns, _ in frames], np.int64), np.cumsum([len(payload) for _, payload in frames])
            rows: Float64Array2D = np.empty((len(frames), len(FEATURES)))
            done = books[name].book.frames(times, b"".join(payload for _, payload in frames), ends, rows)
            if done < len(frames):
                raise ValueError(f"expected messages that the book of {name} takes, found {frames[done][1][:200].decode()}")
            rows = np.vstack((last[name], rows))
            found[name].append(rows[np.searchsorted(times, instants, "right")][:, _PLACES])
            last[name] = rows[-1]
        tell(MINUTE_NS / HOUR_NS)
    return [Grid(label(name), 1.0, dict(zip(COLUMNS, np.concatenate(found[name]).T, strict=True))) for name in sorted(books)]


# Candles


@dataclass(frozen=True)
class Candles:
    """Candles of one minute without a gap."""

    name: str
    ts_ms: Int64Array1D
    close: Float64Array1D
    volume: Float64Array1D

    def returns(self, minutes: int = 1) -> Float64Array1D:
        """Return the moves in bps from close to close over windows side by side."""
        return BPS * np.diff(np.log(self.close[::minutes]))

    def hours(self) -> Int64Array1D:
        """Return the hour of the day, UTC, of each move of one minute."""
        hours: Int64Array1D = self.ts_ms[1:] // 3_600_000 % 24
        return hours


def candles_of(name: str, rows: Sequence[Sequence[float]] | np.ndarray) -> Candles:
    """Return rows of time, open, high, low, close, volume as candles."""
    columns = np.array(rows, float).T
    ts_ms = columns[0].astype(np.int64)
    if len(ts_ms) < 2 or (np.diff(ts_ms) != 60_000).any():
        raise ValueError(f"expected candles of one minute without a gap, found {len(ts_ms)} of {name} with gaps or too few")
    return Candles(name, ts_ms, columns[4], columns[5])


def recorded_candles(path: Path) -> Candles:
    venue, symbol, *_ = path.name.split("_")
    with gzip.open(path, "rt") as lines:
        return candles_of(label(f"{venue}:{symbol}"), np.loadtxt(lines, delimiter=",", skiprows=1))


def simulated_candles(settings: SimulatorSettings, minutes: int) -> list[Candles]:
    """Return the candles before the flow begins, asked for as a client of the venue would."""
    market, end_ms, found = Simulator(settings, START_NS, history_minutes=minutes), START_NS // NANOS_PER_MS, []
    for symbol in settings.symbols:
        rows, since_ms = list[list[float]](), end_ms - 60_000 * minutes
        while since_ms < end_ms:
            answer = msgspec.json.decode(market.klines(symbol, since_ms, end_ms - 1, KLINES_MAX))
            if not answer:
                raise ValueError(f"expected candles of {symbol} from {since_ms} on, found none")
            rows += [[float(value) for value in row[:6]] for row in answer]
            since_ms = int(rows[-1][0]) + 60_000
        found.append(candles_of(label(f"{VENUE}:{symbol}"), rows))
    return found


# Facts


def autocorrelation(values: Float64Array1D, lags: int) -> Float64Array1D:
    """Return the autocorrelations at lags 1 to ``lags`` as float64[lags]; NaN where there are too few values or they do not vary."""
    n = len(values)
    if n <= lags + 1 or np.ptp(values) == 0.0:
        return np.full(lags, np.nan)
    spectrum = np.fft.rfft(values - values.mean(), 1 << (2 * n - 1).bit_length())
    covariances = np.fft.irfft(spectrum * spectrum.conj())[: lags + 1]
    found: Float64Array1D = covariances[1:] / covariances[0]
    return found


def binned(values: Float64Array1D, count: int) -> list[tuple[float, float]]:
    """Return values at lags 1, 2, ... as about ``count`` means over lags that grow evenly in logarithm."""
    edges = np.unique(np.round(np.geomspace(1, len(values) + 1, count + 1)).astype(int))
    return [(math.sqrt(first * (end - 1)), float(values[first - 1 : end - 1].mean())) for first, end in pairwise(edges.tolist())]


def kurtosis(values: Float64Array1D) -> float:
    """Return the kurtosis, 3 for a normal distribution; NaN where there are fewer than 30 values or they do not vary."""
    if len(values) < 30 or np.ptp(values) == 0.0:
        return math.nan
    squares = np.square(values - values.mean())
    return float(np.mean(squares * squares) / np.mean(squares) ** 2)


def tail_exponent(values: Float64Array1D, share: float = 0.02) -> float:
    """Return Hill's estimate from the largest ``share`` of the values; NaN where they are fewer than 20."""
    largest = np.sort(values)[::-1][: int(share * len(values)) + 1]
    if len(largest) < 20 or largest[-1] <= 0.0:
        return math.nan
    excess = float(np.mean(np.log(largest[:-1] / largest[-1])))
    return 1.0 / excess if excess > 0.0 else math.nan


def volatility(flow: Flow, seconds: float) -> float:
    """Return the root of the realised variance at a sampling interval, in bps for one second, over every grid of that interval."""
    width = flow.steps(seconds)
    moves = BPS * (flow.mid_log[width:] - flow.mid_log[:-width])
    return math.sqrt(float(np.mean(np.square(moves))) / seconds) if len(moves) else math.nan


def orders(flow: Flow) -> tuple[Float64Array1D, Float64Array1D]:
    """Return signs and sizes of takers' orders: trades of one millisecond and side, next to each other, are one."""
    if not len(flow.signs):
        return flow.signs, flow.sizes
    first = np.concatenate(([True], (np.diff(flow.trade_ms) != 0) | (np.diff(flow.signs) != 0.0)))
    return flow.signs[first], np.add.reduceat(flow.sizes, np.flatnonzero(first))


def waits(flow: Flow) -> Float64Array1D:
    """Return the venue's time between trades of different milliseconds, over its mean."""
    gaps = np.diff(flow.trade_ms)
    gaps = gaps[gaps > 0]
    return gaps / gaps.mean() if len(gaps) else gaps.astype(float)


def spread_ticks(flow: Flow) -> Int64Array1D:
    ticks: Int64Array1D = np.round((flow.columns["ask"] - flow.columns["bid"]) / flow.tick).astype(np.int64)
    return ticks


def forecast(flow: Grid, feature: str, seconds: float) -> tuple[Float64Array1D, Float64Array1D]:
    """Return a feature and the move in bps that follows it, NaN where it is not known yet."""
    width, log = flow.steps(seconds), flow.mid_log
    moves = np.full(len(log), np.nan)
    moves[:-width] = BPS * (log[width:] - log[:-width])
    return flow.columns[feature], moves


def ic(flow: Flow, feature: str, seconds: float) -> float:
    return prediction.rank_ic(*forecast(flow, feature, seconds), flow.steps(seconds)).slope


def same_time_r2(flow: Flow, feature: str, seconds: float) -> float:
    """Return the share of the variance of the moves that a feature's own window explains."""
    width, log = flow.steps(seconds), flow.mid_log
    return prediction.regress(flow.columns[feature][width:], BPS * (log[width:] - log[:-width]), width).r2


def at(values: Float64Array1D, lag: int) -> float:
    return float(values[lag - 1]) if lag <= len(values) else math.nan


def rate(kind: str, flow: Flow) -> float:
    return flow.rates.get(kind, 0.0)


def memory_of_signs(lag: int, flow: Flow) -> float:
    return at(autocorrelation(orders(flow)[0], lag), lag)


def memory_of_sizes(lag: int, span: Any, market: Flow | Candles) -> float:
    """Return the autocorrelation of the sizes of moves over ``span``, which is in seconds of flow and in minutes of candles."""
    return at(autocorrelation(np.abs(market.returns(span)), lag), lag)


@dataclass(frozen=True)
class Fact:
    """A number that is measured of every market: of a ``Flow``, or of ``Candles``."""

    name: str
    of: Callable[[Any], float]
    decimals: int = 2


BOOK_FACTS = (
    Fact("spread, ticks: mean", lambda flow: float(spread_ticks(flow).mean())),
    Fact("spread of one tick, share of time", lambda flow: float(np.mean(spread_ticks(flow) == 1))),
    Fact("spread, bps: mean", lambda flow: float(np.mean(BPS * (flow.columns["ask"] / flow.columns["bid"] - 1.0))), 3),
    Fact("best level, share of the size of 20", lambda flow: float(flow.profile[0])),
    Fact("best 5 levels, share of the size of 20", lambda flow: float(flow.profile[:5].sum())),
    Fact("ticks from the best level to the 20th", lambda flow: flow.reach_ticks, 0),
    Fact("size of the best level over that of a mean trade", lambda flow: flow.touch / float(flow.sizes.mean()), 1),
    Fact("cancel share: sum of cancelled over sum of removed", lambda flow: flow.cancel_share, 3),
    Fact("`cancel_rate`, mean", lambda flow: float(np.nanmean(flow.columns["cancel_rate"])), 3),
    Fact("`queue_rate`, mean, 1/s", lambda flow: float(np.nanmean(flow.columns["queue_rate"])), 1),
    Fact("`obi_1`, standard deviation", lambda flow: float(np.nanstd(flow.columns["obi_1"]))),
    Fact("`obi`, autocorrelation over 1 s", lambda flow: at(autocorrelation(flow.columns["obi"], flow.steps(1.0)), flow.steps(1.0))),
)
RATE_FACTS = tuple(
    Fact(f"{words} a second", partial(rate, kind), 1)
    for kind, words in (("depth", "depth messages"), ("bookTicker", "tickers"), ("trade", "trades"))
)
TRADE_FACTS = (
    Fact("trades of one order of a taker", lambda flow: len(flow.signs) / len(orders(flow)[0])),
    Fact("size of a trade: median over mean", lambda flow: float(np.median(flow.sizes) / flow.sizes.mean()), 3),
    Fact("size of a trade: 99th percentile over mean", lambda flow: float(np.quantile(flow.sizes, 0.99) / flow.sizes.mean()), 1),
    Fact("tail exponent of the size of an order", lambda flow: tail_exponent(orders(flow)[1])),
    Fact("time between trades: standard deviation over mean", lambda flow: float(np.std(waits(flow)))),
    *(Fact(f"signs of orders, autocorrelation at lag {lag}", partial(memory_of_signs, lag)) for lag in (1, 10, 50)),
    Fact("R2 of `ti` for the move of its own 5 s", lambda flow: same_time_r2(flow, "ti", 5.0)),
    Fact("R2 of `ofi` for the move of its own 1 s", lambda flow: same_time_r2(flow, "ofi", 1.0)),
    Fact("rank IC of `obi_1` for the next 1 s", lambda flow: ic(flow, "obi_1", 1.0)),
    Fact("rank IC of `ofi` for the next 1 s", lambda flow: ic(flow, "ofi", 1.0)),
    Fact("rank IC of `ti` for the next 1 s", lambda flow: ic(flow, "ti", 1.0)),
)
MOVE_FACTS = (
    Fact("steps of 0.1 s with a move, share", lambda flow: float(np.mean(np.diff(flow.mid_log) != 0.0))),
    Fact("standard deviation of 1 s, bps", lambda flow: float(np.std(flow.returns(1.0)))),
    Fact("volatility sampled at 0.1 s over that at 10 s", lambda flow: volatility(flow, 0.1) / volatility(flow, 10.0)),
    Fact("volatility sampled at 1 s over that at 10 s", lambda flow: volatility(flow, 1.0) / volatility(flow, 10.0)),
    Fact("kurtosis of 1 s", lambda flow: kurtosis(flow.returns(1.0)), 1),
    Fact("kurtosis of 10 s", lambda flow: kurtosis(flow.returns(10.0)), 1),
    Fact("moves of 1 s, autocorrelation at lag 1", lambda flow: at(autocorrelation(flow.returns(1.0), 1), 1)),
    *(Fact(f"size of moves of 1 s, autocorrelation at lag {lag}", partial(memory_of_sizes, lag, 1.0)) for lag in (1, 10, 60)),
)
CANDLE_FACTS = (
    Fact("standard deviation of 1 min, bps", lambda one: float(np.std(one.returns()))),
    Fact("kurtosis of 1 min", lambda one: kurtosis(one.returns()), 1),
    Fact("kurtosis of 10 min", lambda one: kurtosis(one.returns(10)), 1),
    Fact("kurtosis of 1 h", lambda one: kurtosis(one.returns(60)), 1),
    Fact("tail exponent of the size of moves of 1 min", lambda one: tail_exponent(np.abs(one.returns()))),
    Fact("moves of 1 min, autocorrelation at lag 1", lambda one: at(autocorrelation(one.returns(), 1), 1), 3),
    *(
        Fact(f"size of moves of 1 min, autocorrelation at {words}", partial(memory_of_sizes, lag, 1))
        for words, lag in (("1 min", 1), ("1 h", 60), ("12 h", 720), ("24 h", 1_440))
    ),
    Fact("busiest hour of the day over the quietest, size of moves", lambda one: max(day(one)) / min(day(one))),
    Fact("volume and size of the move, rank correlation", lambda one: prediction.rank_ic(one.volume[1:], np.abs(one.returns()), 1).slope),
    Fact("volume, autocorrelation at 1 min", lambda one: at(autocorrelation(np.log1p(one.volume), 1), 1)),
)


def day(one: Candles) -> list[float]:
    """Return the mean size of the moves of each hour of the day, UTC, over that of all."""
    sizes, hours = np.abs(one.returns()), one.hours()
    return [float(sizes[hours == hour].mean() / sizes.mean()) for hour in range(24)]


# The edge


@dataclass(frozen=True)
class Edge:
    """What features say of the next moves at one strength of the planted edge."""

    strength: float
    hours: float
    fits: Mapping[tuple[str, str, int], Fit]
    """Rank ICs by feature, market (empty: all of them together) and horizon in seconds."""


def pooled(pairs: Sequence[tuple[Float64Array1D, Float64Array1D]], overlap: int) -> Fit:
    """Return the rank IC over several markets that were looked at together, at the same instants.

    Ranks are each market's own. The scores of one instant are added up before the error is taken, so markets that move together
    do not count as independent ones (Driscoll and Kraay 1998, Review of Economics and Statistics 80, 549-560).
    """
    known = [np.isfinite(x) & np.isfinite(y) for x, y in pairs]
    ranked = [[standard(values, there) for values in pair] for pair, there in zip(pairs, known, strict=True)]
    xx, yy, xy = (sum(float(np.sum(pair[i] * pair[j])) for pair in ranked) for i, j in ((0, 0), (1, 1), (0, 1)))
    slope, span = xy / xx, int(np.flatnonzero(np.logical_or.reduce(known))[-1]) + 1
    scores = np.sum([x * (y - slope * x) for x, y in ranked], axis=0)[:span]
    n, lag = int(sum(there.sum() for there in known)), prediction.newey_west_lag(span, overlap)
    variance, long_run = prediction.long_run_variance(scores, 0), prediction.long_run_variance(scores, lag)
    return Fit(
        n=n,
        lag=lag,
        slope=slope,
        error=math.sqrt(span * long_run) / xx,
        r2=xy * xy / (xx * yy),
        critical=prediction.critical_value(lag, span),
        n_effective=n * variance / long_run,
    )


def standard(values: Float64Array1D, known: np.ndarray[Any, np.dtype[np.bool_]]) -> Float64Array1D:
    """Return ranks with mean 0 and variance 1, and 0 where unknown."""
    ranked = prediction.ranks(np.where(known, values, np.nan))
    return np.where(known, (ranked - np.nanmean(ranked)) / np.nanstd(ranked), 0.0)


def edge_of(strength: float, hours: float, flows: Sequence[Grid]) -> Edge:
    fits: dict[tuple[str, str, int], Fit] = {}
    for feature in FORECASTERS:
        for horizon_s in HORIZONS_S:
            pairs = [forecast(flow, feature, horizon_s) for flow in flows]
            overlap = flows[0].steps(horizon_s)
            fits |= {(feature, flow.name, horizon_s): prediction.rank_ic(*pair, overlap) for flow, pair in zip(flows, pairs, strict=True)}
            fits[feature, "", horizon_s] = pooled(pairs, overlap)
    return Edge(strength, hours, fits)


# Side by side


@dataclass(frozen=True)
class Line:
    """A fact of every market; of simulated ones the median over pieces."""

    fact: Fact
    recorded: Sequence[float]
    simulated: Sequence[float]

    @property
    def beyond(self) -> float:
        """How the simulated markets stand to the recorded ones' range: above 1 all above it, below 1 all below it, by this factor.

        1 where any of them is within it, NaN where a ratio says nothing because signs differ.
        """
        low, high, least, most = min(self.recorded), max(self.recorded), min(self.simulated), max(self.simulated)
        if not np.isfinite((low, high, least, most)).all() or (least <= high and most >= low):
            return 1.0
        if least > high:
            return least / high if high > 0.0 else math.nan
        return most / low if most > 0.0 else math.nan

    @property
    def verdict(self) -> str:
        if self.beyond == 1.0:
            return ""
        if math.isnan(self.beyond):
            return "above" if min(self.simulated) > max(self.recorded) else "below"
        return f"{number(self.beyond, 1 if self.beyond > 1.0 else 2)}x"

    @property
    def is_far(self) -> bool:
        return self.verdict != "" and not 1.0 / FAR < self.beyond < FAR


@dataclass(frozen=True)
class Facts:
    """All that is measured."""

    recorded: Sequence[Flow]
    simulated: Sequence[Flow]
    recorded_candles: Sequence[Candles]
    simulated_candles: Sequence[Candles]
    edges: Sequence[Edge]
    seed: int
    hours: float

    def lines(self, facts: Iterable[Fact]) -> list[Line]:
        pieces = [flow.pieces() for flow in self.simulated]
        return [
            Line(
                fact,
                [fact.of(flow) for flow in self.recorded],
                [float(np.nanmedian([fact.of(piece) for piece in of_one])) for of_one in pieces],
            )
            for fact in facts
        ]

    def candle_lines(self) -> list[Line]:
        return [
            Line(fact, [fact.of(one) for one in self.recorded_candles], [fact.of(one) for one in self.simulated_candles])
            for fact in CANDLE_FACTS
        ]

    def every(self) -> list[Line]:
        return [*self.lines((*BOOK_FACTS, *RATE_FACTS, *TRADE_FACTS, *MOVE_FACTS)), *self.candle_lines()]


# The page

PARAMETERS = {
    "STEP_S": "length of a step, s",
    "SLOW_PHI": "what the slow parts of the log volatility keep in a minute",
    "SLOW_SD": "their standard deviations",
    "SLOW_SHARED": "weight of what all symbols share in their shocks",
    "FAST_S": "time constant of the fast part, s",
    "FAST_SD": "its standard deviation",
    "DAY": "first harmonic of the day in the log volatility",
    "HALF_DAY": "second harmonic",
    "PEAK_MINUTE": "minute of the day, UTC, with the most volatility",
    "COMMON_LOAD": "`k`: correlation of a symbol with what all share",
    "MOVE_P": "chance that a step brings news",
    "HIT_P": "chance that news is traded on before the quotes follow",
    "JUMPS_SHARED": "chance in a minute that all symbols jump",
    "JUMPS_OWN": "chance in a minute that one symbol jumps",
    "JUMP_LEAST": "least size of a jump, in standard deviations of a minute",
    "JUMP_MORE": "mean of what comes on top",
    "PRESSURE_S": "time constant of the pressure of buyers, s",
    "DRIFT": "drift at edge 1 and pressure 1, in standard deviations of a second's return a second",
    "ORDERS_S": "market orders a second beside those on news",
    "EXCITED_SHARE": "share of them that earlier ones bring about",
    "EXCITED_KEPT": "what is left of an order's effect after a step",
    "INTENSITY_POWER": "power of the volatility's level by which orders come more often",
    "LEAN_PRESSURE": "weight of the pressure in the sign of an order",
    "LEANING_WEIGHTS": "weights of the memories",
    "LEANING_PHI": "what the memories (three) and the book's own leaning (one) keep in a second",
    "ORDER_QUOTE": "median of a market order at mean volatility, USD",
    "ORDER_SD": "standard deviation of its logarithm",
    "SIZE_POWER": "power of the volatility by which it is larger",
    "SPLIT_P": "chance that a trade is a part of what the order could take from a level",
    "DEPTH": "ticks behind the best level that are filled",
    "OCCUPIED": "share of the levels of a new stretch of the book that hold something",
    "PLACED_S": "limit orders a second and side",
    "CANCELLED_S": "cancels a second and side; those that find no level do nothing",
    "CANCEL_WHOLE": "chance that a cancel takes the whole level",
    "LEVEL_QUOTE": "median of a limit order, USD",
    "LEVEL_SD": "standard deviation of its logarithm",
    "QUOTE_FACTOR": "size of a new best quote over that of another limit order",
    "SPREAD_TICKS": "mean distance of a new best quote from the efficient price, ticks",
    "TILT_PRESSURE": "weight of the pressure in the log size of a bid",
    "TILT_OWN": "weight of the book's own leaning",
}
"""Names of ``kernels.simulation`` and ``models.simulator``, and what they mean."""


def side_by_side(lines: Sequence[Line], markets: Sequence[Flow | Candles]) -> list[str]:
    rows = []
    for line in lines:
        values = [number(value, line.fact.decimals) for value in (*line.recorded, *line.simulated)]
        rows.append((line.fact.name, *values, f"**{line.verdict}**" if line.is_far else line.verdict))
    return table(("fact", *(market.name for market in markets), "beyond"), rows)


def facts_section(which: Sequence[Fact]) -> Callable[[Facts], list[str]]:
    return lambda facts: side_by_side(facts.lines(which), [*facts.recorded, *facts.simulated])


def candles_section(facts: Facts) -> list[str]:
    return side_by_side(facts.candle_lines(), [*facts.recorded_candles, *facts.simulated_candles])


def data_section(facts: Facts) -> list[str]:
    rows = [
        (flow.name, kind, f"{flow.span_s:,.0f}", str(len(flow.pieces())), f"{flow.tick:g}", f"{len(flow.signs):,}")
        for kind, flows in (("recorded", facts.recorded), ("simulated", facts.simulated))
        for flow in flows
    ]
    rows += [
        (one.name, f"{kind} candles", f"{60 * len(one.ts_ms):,}", "-", "-", "-")
        for kind, candles in (("recorded", facts.recorded_candles), ("simulated", facts.simulated_candles))
        for one in candles
    ]
    said = f"Seed {facts.seed}, edge 1, activity 1, {facts.hours:g} h of flow, {CANDLE_MINUTES // 1_440} days of candles."
    return [said, "", *table(("market", "what", "s", "pieces", "tick", "trades"), rows, words=2)]


def parameters_section(_: Facts) -> list[str]:
    """Return the parameters of the model as the code has them."""
    code, rows = vars(simulation) | vars(simulator), []
    for name, meaning in PARAMETERS.items():
        value = code[name]
        values = value if isinstance(value, tuple) else (value,)
        rows.append((f"`{name}`", ", ".join(f"{one:,.5g}" for one in values), meaning))
    return table(("parameter", "value", "meaning"), rows, words=3)


def findings_section(facts: Facts) -> list[str]:
    """Return sentences that hold whatever the numbers are."""
    lines = facts.every()
    within = sum(line.verdict == "" for line in lines)
    points = [point(f"{within} of {len(lines)} facts: the simulated markets reach into the range of the recorded ones.")]
    for edge in facts.edges:
        found = {feature: edge.fits[feature, "", DECISION_S] for feature in FORECASTERS}
        words = ", ".join(f"`{name}` {number(fit.slope, 3, plus=True)} (t {number(fit.t, 1, plus=True)})" for name, fit in found.items())
        points.append(point(f"Edge {edge.strength:g}: rank IC with the move of the next {DECISION_S} s: {words}."))
    return points


def differences_section(facts: Facts) -> list[str]:
    rows = []
    for line in facts.every():
        if line.is_far:
            ranges = [[number(of(values), line.fact.decimals) for of in (min, max)] for values in (line.recorded, line.simulated)]
            rows.append((line.fact.name, *(" to ".join(one) for one in ranges), line.verdict))
    head = ("fact", "recorded", "simulated", "beyond")
    return table(head, rows) if rows else [f"No fact is {FAR:g} times or more beyond the range of the recorded ones."]


def ceiling(horizon_s: float) -> float:
    """Return the correlation of the pressure with the next move at edge 1, for a volatility that stays as it is."""
    time_s, share = simulation.PRESSURE_S, horizon_s / simulation.PRESSURE_S
    told = simulation.DRIFT * time_s * (1.0 - math.exp(-share))
    drift = 2.0 * (simulation.DRIFT * time_s) ** 2 * (share - 1.0 + math.exp(-share))
    return told / math.sqrt(horizon_s + drift)


def ic_text(fit: Fit) -> str:
    """Return a rank IC and its t, bold beyond the 5% point."""
    words = f"{number(fit.slope, 3, plus=True)} ({number(fit.t, 1, plus=True)})"
    return f"**{words}**" if fit.is_significant else words


def edge_section(facts: Facts) -> list[str]:
    rows = []
    for feature in FORECASTERS:
        for edge in facts.edges:
            rows.append((f"`{feature}`", f"{edge.strength:g}", *(ic_text(edge.fits[feature, "", horizon_s]) for horizon_s in HORIZONS_S)))
    first = facts.edges[0].fits[FORECASTERS[0], "", DECISION_S]
    said = (
        f"{facts.edges[0].hours:g} h of {len(facts.simulated)} symbols, {first.n:,} forecasts, one a second and symbol. "
        f"Whoever saw the pressure itself would have a correlation of about {ceiling(DECISION_S):.2f} over {DECISION_S} s at edge 1."
    )
    return [said, "", *table(("feature", "edge", *(f"{horizon_s} s" for horizon_s in HORIZONS_S)), rows)]


def symbols_section(facts: Facts) -> list[str]:
    rows = []
    for flow in facts.simulated:
        for edge in facts.edges:
            fits = [edge.fits[feature, flow.name, DECISION_S] for feature in FORECASTERS]
            rows.append((flow.name, f"{edge.strength:g}", *map(ic_text, fits)))
    return table(("market", "edge", *(f"`{feature}`" for feature in FORECASTERS)), rows)


SECTIONS: Mapping[str, Callable[[Facts], list[str]]] = {
    "findings": findings_section,
    "parameters": parameters_section,
    "data": data_section,
    "edge": edge_section,
    "symbols": symbols_section,
    "book": facts_section(BOOK_FACTS),
    "rates": facts_section(RATE_FACTS),
    "trades": facts_section(TRADE_FACTS),
    "moves": facts_section(MOVE_FACTS),
    "candles": candles_section,
    "differences": differences_section,
}
"""What the page's text leaves to the command: each stands between ``<!-- name -->`` and ``<!-- end -->``."""


# Pictures

RECORDED_DASHES = ("none", "8 3", "2 3", "9 3 2 3")
Points = Sequence[tuple[float, float]]


class Scale(NamedTuple):
    """One direction of a plot: its marks, of which the first and the last are its ends, and what it counts."""

    marks: Sequence[float]
    name: str = ""
    is_log: bool = True


@dataclass(frozen=True)
class Axes(Panel):
    """A plot with a scale of its own across."""

    across: Scale

    def x(self, value: float) -> float:
        first, last = self.across.marks[0], self.across.marks[-1]
        value = min(max(value, first), last)
        share = math.log(value / first) / math.log(last / first) if self.across.is_log else (value - first) / (last - first)
        return self.left + self.width * share

    def axes(self, name: str, up: Sequence[float]) -> list[str]:
        """Return its lines, its numbers and its names."""
        parts, bottom = [title(self.left - 30, self.top - 12, name)], self.top + self.height
        for mark in up:
            parts.append(f'<path class="{"zero" if mark == 0.0 else "grid"}" d="M{self.left:.1f} {self.y(mark):.1f}h{self.width:.1f}"/>')
            parts.append(text(self.left - 6, self.y(mark) + 4, f"{mark:g}", size=10, anchor="end"))
        for mark in self.across.marks:
            parts.append(f'<path class="grid" d="M{self.x(mark):.1f} {self.top:.1f}v{self.height:.1f}"/>')
            parts.append(text(self.x(mark), bottom + 14, f"{mark:,g}", size=10, anchor="middle"))
        return [*parts, text(self.left + self.width / 2, bottom + 29, self.across.name, size=11, anchor="middle")]

    def lines(self, points: Points, look: str, dash: str = "none") -> list[str]:
        """Return a curve, with holes where there is nothing within the axes to show."""
        runs: list[list[tuple[float, float]]] = [[]]
        for place, value in points:
            if math.isfinite(value) and self.low <= value <= self.high and self.across.marks[0] <= place <= self.across.marks[-1]:
                runs[-1].append((place, value))
            elif runs[-1]:
                runs.append([])
        return [self.curve(run, look, dash) for run in runs if len(run) > 1]


@dataclass(frozen=True)
class Plot:
    """What a plot shows: its name, its scales, and a curve for each market, a ``Flow`` or ``Candles``."""

    name: str
    across: Scale
    up: Scale
    points: Callable[[Any], Points]
    of_candles: bool = False


def exceeded(values: Float64Array1D, places: Sequence[float]) -> Points:
    """Return the share of the values that is above each place."""
    ordered = np.sort(values)
    return [(place, 1.0 - float(np.searchsorted(ordered, place, "right")) / max(1, len(ordered))) for place in places]


def mean_of_pieces(of: Callable[[Flow], Points]) -> Callable[[Flow], Points]:
    """Return what draws a curve as the mean of the pieces' curves."""

    def mean(flow: Flow) -> Points:
        curves = np.array([of(piece) for piece in flow.pieces()])
        return [(float(place), float(value)) for place, value in zip(curves[0, :, 0], np.nanmean(curves[:, :, 1], axis=0), strict=True)]

    return mean


def sizes_exceeded(values: Float64Array1D) -> Points:
    """Return the share of moves that are larger than so many standard deviations."""
    return exceeded(np.abs(values) / float(np.std(values)), DEVIATIONS)


SHARES = Scale((0.0001, 0.001, 0.01, 0.1, 1.0))
OVER_MEAN = np.geomspace(0.01, 100.0, 81).tolist()
DEVIATIONS = np.geomspace(0.1, 20.0, 81).tolist()
INTERVALS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
HORIZONS_MIN = (1, 2, 5, 10, 20, 30, 60, 120, 240, 480, 1_440)

BOOK_PLOTS = (
    Plot(
        "Spread of so much or more, share of time",
        Scale((1, 2, 5, 10, 20, 50), "ticks"),
        SHARES,
        lambda flow: exceeded(spread_ticks(flow).astype(np.float64) + 0.5, list(range(1, 51))),
    ),
    Plot(
        "Share of size by level",
        Scale((1, 5, 10, 15, 20), "level, mean of both sides", is_log=False),
        Scale((0.0, 0.1, 0.2, 0.3, 0.4), is_log=False),
        lambda flow: [(i + 1.0, float(share)) for i, share in enumerate(flow.profile)],
    ),
    Plot(
        "cancel_rate, share of time below",
        Scale((0.0, 0.25, 0.5, 0.75, 1.0), "cancel_rate", is_log=False),
        Scale((0.0, 0.25, 0.5, 0.75, 1.0), is_log=False),
        lambda flow: [(x, 1.0 - y) for x, y in exceeded(known(flow.columns["cancel_rate"]), np.linspace(0.0, 1.0, 101).tolist())],
    ),
)
TRADE_PLOTS = (
    Plot(
        "Size of an order, share above",
        Scale((0.01, 0.1, 1, 10, 100), "size over mean size"),
        SHARES,
        lambda flow: exceeded(orders(flow)[1] / orders(flow)[1].mean(), OVER_MEAN),
    ),
    Plot(
        "Signs of orders, autocorrelation",
        Scale((1, 10, 100), "lag, orders"),
        Scale((0.001, 0.01, 0.1, 1.0)),
        mean_of_pieces(lambda piece: binned(autocorrelation(orders(piece)[0], 100), 12)),
    ),
    Plot(
        "Time between trades, share above",
        Scale((0.01, 0.1, 1, 10, 100), "time over mean time"),
        SHARES,
        lambda flow: exceeded(waits(flow), OVER_MEAN),
    ),
)
MOVE_PLOTS = (
    Plot(
        "Volatility over the sampling interval",
        Scale((0.1, 1, 10, 30), "interval, s; 1 at 10 s"),
        Scale((0.0, 0.5, 1.0, 1.5, 2.0), is_log=False),
        mean_of_pieces(lambda piece: [(s, volatility(piece, s) / volatility(piece, 10.0)) for s in INTERVALS_S]),
    ),
    Plot(
        "Moves of 1 s, autocorrelation",
        Scale((1, 5, 10, 15, 20), "lag, s", is_log=False),
        Scale((-0.2, -0.1, 0.0, 0.1, 0.2), is_log=False),
        mean_of_pieces(lambda piece: list(enumerate(autocorrelation(piece.returns(1.0), 20).tolist(), 1))),
    ),
    Plot(
        "Size of moves of 1 s, autocorrelation",
        Scale((1, 10, 60), "lag, s"),
        Scale((-0.1, 0.0, 0.1, 0.2, 0.3, 0.4), is_log=False),
        mean_of_pieces(lambda piece: binned(autocorrelation(np.abs(piece.returns(1.0)), 60), 12)),
    ),
    Plot(
        "Size of moves of 1 min, autocorrelation",
        Scale((1, 10, 100, 1_440, 10_000), "lag, minutes; a day is 1,440"),
        Scale((0.01, 0.1, 1.0)),
        lambda one: binned(autocorrelation(np.abs(one.returns()), 10_000), 60),
        of_candles=True,
    ),
    Plot(
        "Kurtosis over the horizon",
        Scale((1, 10, 60, 240, 1_440), "minutes; normal: 3"),
        Scale((1, 3, 10, 30, 100)),
        lambda one: [(float(minutes), kurtosis(one.returns(minutes))) for minutes in HORIZONS_MIN],
        of_candles=True,
    ),
    Plot(
        "Size of moves by hour, over the mean",
        Scale((0, 6, 12, 18, 23), "hour of the day, UTC", is_log=False),
        Scale((0.0, 0.5, 1.0, 1.5, 2.0), is_log=False),
        lambda one: [(float(hour), mean) for hour, mean in enumerate(day(one))],
        of_candles=True,
    ),
    Plot("Moves of 1 s, share larger", Scale((0.1, 1, 10), "standard deviations"), SHARES, lambda flow: sizes_exceeded(flow.returns(1.0))),
    Plot(
        "Moves of 1 min, share larger",
        Scale((0.1, 1, 10), "standard deviations"),
        SHARES,
        lambda one: sizes_exceeded(one.returns()),
        of_candles=True,
    ),
    Plot(
        "Moves of 1 h, share larger",
        Scale((0.1, 1, 10), "standard deviations"),
        SHARES,
        lambda one: sizes_exceeded(one.returns(60)),
        of_candles=True,
    ),
)


def known(values: Float64Array1D) -> Float64Array1D:
    return values[np.isfinite(values)]


def places(plots: Sequence[Plot]) -> tuple[list[Axes], float]:
    """Return a place for each plot, three a line, and the height of a picture that holds them."""
    left, top, gap, height, line = 56.0, 124.0, 56.0, 180.0, 264.0
    width = (WIDTH - left - 24.0 - 2 * gap) / 3
    found = []
    for i, plot in enumerate(plots):
        low, high = plot.up.marks[0], plot.up.marks[-1]
        x, y = left + (i % 3) * (width + gap), top + (i // 3) * line
        found.append(Axes(x, y, width, height, low, high, plot.up.is_log, plot.across))
    return found, found[-1].top + height + 44.0


def plots_picture(name: str, note: str, plots: Sequence[Plot]) -> Callable[[Facts], str]:
    """Return what draws these plots: recorded markets in grey, simulated ones in colour."""

    def drawn(facts: Facts) -> str:
        entries = [(flow.name, "cost", dash) for flow, dash in zip(facts.recorded, RECORDED_DASHES, strict=False)]
        parts = legend([*entries, *((flow.name, f"s{i}", "none") for i, flow in enumerate(facts.simulated))])
        found, height = places(plots)
        for axes, plot in zip(found, plots, strict=True):
            parts += axes.axes(plot.name, plot.up.marks)
            real: Sequence[Flow | Candles] = facts.recorded_candles if plot.of_candles else facts.recorded
            made: Sequence[Flow | Candles] = facts.simulated_candles if plot.of_candles else facts.simulated
            dashes = RECORDED_DASHES[1:3] if plot.of_candles else RECORDED_DASHES  # Candles are spot's two.
            for market, dash in zip(real, dashes, strict=False):
                parts += axes.lines(plot.points(market), "cost", dash)
            for i, market in enumerate(made):
                parts += axes.lines(plot.points(market), f"s{i}")
        return picture(name, note, height, parts)

    return drawn


def edge_picture(facts: Facts) -> str:
    """Return IC over the horizon at each strength of the edge, with the bands of their errors."""
    parts = legend([(f"edge {edge.strength:g}", f"s{i}", "none") for i, edge in enumerate(facts.edges)])
    most = max(fit.slope + fit.critical * fit.error for edge in facts.edges for (_, market, _), fit in edge.fits.items() if not market)
    marks = [tenths / 10.0 for tenths in range(-1, max(2, math.ceil(10.0 * most)) + 1)]
    across, up = Scale(HORIZONS_S, "horizon, s"), Scale(marks, is_log=False)
    plots = [Plot(name, across, up, lambda _: []) for name in FORECASTERS]
    found, height = places(plots)
    for axes, plot in zip(found, plots, strict=True):
        parts += axes.axes(plot.name, up.marks)
        for i, edge in enumerate(facts.edges):
            fits = [(float(horizon_s), edge.fits[plot.name, "", horizon_s]) for horizon_s in HORIZONS_S]
            band = [(h, fit.slope + fit.critical * fit.error) for h, fit in fits]
            band += [(h, fit.slope - fit.critical * fit.error) for h, fit in reversed(fits)]
            parts.append(f'<path class="f{i}" d="{axes.path(band)}Z" fill-opacity="0.14"/>')
            parts += axes.lines([(h, fit.slope) for h, fit in fits], f"s{i}")
    note = "Rank IC with the next move, all symbols together. Bands: what its error allows, at 5%."
    return picture("The planted edge", note, height, parts)


PICTURES: Mapping[str, Callable[[Facts], str]] = {
    "stylised_edge.svg": edge_picture,
    "stylised_book.svg": plots_picture("The book", "Grey: recorded. Colour: simulated.", BOOK_PLOTS),
    "stylised_trades.svg": plots_picture("Trades", "Grey: recorded. Colour: simulated. Both ways logarithmic.", TRADE_PLOTS),
    "stylised_moves.svg": plots_picture("Moves", "Grey: recorded. Colour: simulated. In minutes and hours: candles.", MOVE_PLOTS),
}


# The command


def write(facts: Facts, out: Path) -> list[Path]:
    """Write page and pictures and return what was written."""
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    own = out / PAGE.name
    written = {own: page((own if own.is_file() else PAGE).read_text(encoding="utf-8"), facts, SECTIONS)}
    written |= {out / "pictures" / name: drawn(facts) for name, drawn in PICTURES.items()}
    for path, content in written.items():
        path.write_text(content, encoding="utf-8")
    return list(written)


def gathered(seed: int, hours: float, edge_hours: float, tell: Callable[[str, float], None]) -> Facts:
    """Measure everything; ``tell`` hears what is done and how many hours of simulated flow that was."""
    real = []
    for path in FOUR:
        real += observed(recorded(path))
        tell(f"measuring {path.name}", 0.0)
    settings = SimulatorSettings(seed=seed, symbols=SYMBOLS)
    made = observed(simulated(settings, hours, lambda done: tell("simulating flow", done)))
    edges = []
    for strength in EDGES:
        market, told = msgspec.structs.replace(settings, edge=strength), f"simulating flow with edge {strength:g}"
        edges.append(edge_of(strength, edge_hours, looked_up(market, edge_hours, partial(tell, told))))
    real_candles = [recorded_candles(path) for path in CANDLES]
    return Facts(real, made, real_candles, simulated_candles(settings, CANDLE_MINUTES), edges, seed, hours)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="hours of simulated flow that are held against the recordings; 2")
    parser.add_argument("--edge-hours", type=float, default=24.0, help="hours of simulated flow in which the edge is measured; 24")
    parser.add_argument("--seed", type=int, default=7, help="seed of the simulated market; 7")
    parser.add_argument("--out", type=Path, default=PAGE.parent, metavar="FOLDER", help="where to write; by default docs")
    options = parser.parse_args(arguments)
    missing = [path for path in (*FOUR, *CANDLES) if not path.is_file()]
    if missing:
        print(f"error: expected a recording, found none at {missing[0]}; set ALPHAPACK_DATA", file=sys.stderr)
        return 2
    if not (0.5 <= options.hours <= 48.0 and 1.0 <= options.edge_hours <= 480.0):
        print(
            f"error: expected 0.5 to 48 hours and 1 to 480 edge hours, found {options.hours:g} and {options.edge_hours:g}", file=sys.stderr
        )
        return 2
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=options.hours + len(EDGES) * options.edge_hours)
        facts = gathered(
            options.seed, options.hours, options.edge_hours, lambda what, done: progress.update(task, description=what, advance=done)
        )
    for path in write(facts, options.out):
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
