"""The market that comes with the engine, as a source: an hour of it at full speed, then at its own pace.

Each start is a session of the venue. It begins where the engine's own past ends, or an hour ago where that is longer
ago, with candles in between, at the prices that the engine knows. So there is always an hour of order flow and thirty days
of candles behind what is served, and a restart goes on.
"""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import structlog

from alphapack.domain.events import Record, WorkRequested
from alphapack.domain.inputs import Chain, CoreSettings, Frame, InstrumentSettings
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, SIMULATOR, name_of, symbol_id, venue_of
from alphapack.domain.simulation import SimulationRefused, SimulatorSettings
from alphapack.models import simulated_chain
from alphapack.models.candles import MINUTE_MS
from alphapack.models.simulator import Simulator
from alphapack.services.microstructure import SNAPSHOT
from alphapack.shell.clock import Clock
from alphapack.shell.offloop import Delayed, Work, Worker
from alphapack.shell.runner import Runner
from alphapack.shell.turns import SLICE_S

MINUTE_NS = MINUTE_MS * NANOS_PER_MS
FLOW_NS = 61 * MINUTE_NS
"""Order flow before the first answer: an hour, and the minute in which books become proven."""
HISTORY_MINUTES = 30 * 1_440
PAGE = 500
"""Candles of one REST answer: few enough to be stepped in a moment."""
ROLL_NS = NANOS_PER_S
"""How much of a market of three symbols is made at once while it catches up."""
ROLL_NS_MIN = 10_000_000
PACE_S = 0.02
NEAR_NS = NANOS_PER_S // 2
CANDLE_DELAY_NS = 2 * NANOS_PER_S
"""A minute closes this long after its end."""
CHAIN_EVERY_MS = 5 * MINUTE_MS
PAST_CHAIN_EVERY_MS = 1_440 * MINUTE_MS
"""Of the days before the flow a chain a day is enough for a skew to have a past."""

_log = structlog.get_logger("alphapack.simulated")


class SimulatedMarket:
    """Plays a simulator into a runner (source, port ``Executor``, and the ``Clock`` of that runner)."""

    def __init__(
        self,
        settings: SimulatorSettings,
        core: CoreSettings,
        clock: Clock,
        works: Mapping[str, Work],
        delay_ns: int,
        *,
        past_ns: int = FLOW_NS,
        history_minutes: int = HISTORY_MINUTES,
    ) -> None:
        """Make ``past_ns`` of order flow before now, and ``history_minutes`` of candles before that.

        ``works`` answer ``delay_ns`` of the market's time after they are asked for while the past is made, and live as they can.
        """
        self._settings, self._core, self._clock = settings, core, clock
        self._works, self._delay_ns = works, delay_ns
        self._past_ns, self._history_minutes = past_ns, history_minutes
        self._roll_ns = max(ROLL_NS_MIN, min(ROLL_NS, round(3 * ROLL_NS / (len(settings.symbols) * settings.activity))))
        self._wanted: dict[str, None] = {}  # Symbols whose snapshot is asked for, in the order of asking.
        self._worker: Worker | None = None
        self._market: Simulator | None = None
        self._candles_ms = self._chains_ms = 0
        self._delayed: Delayed | None = None  # While the past is made.

    def now_ns(self) -> int:
        """Return how far the market has come: what enters beside it while it catches up must not be stamped ahead of it."""
        return self._market.now_ns if self._market is not None else self._clock.now_ns()

    async def run(self, runner: Runner) -> None:
        """Follow the market until cancelled."""
        self._worker = Worker(self._works, runner.answered)
        self._clock = runner.carried_on(self._clock)
        try:
            while True:
                await self._session(runner)
        finally:
            runner.executor = None
            self._worker.close()

    async def make(self, runner: Runner) -> None:
        """Make the past alone, to the very time that the clock shows."""
        await self._roll(runner, await self._open(runner), 0)

    def start(self, request: WorkRequested) -> None:
        """Begin work that the core asks for while it lives."""
        if request.work == SNAPSHOT:
            self._wanted[request.body.decode()] = None
        else:
            assert self._worker is not None, "work is asked for while the market runs"
            self._worker.start(request)

    async def _session(self, runner: Runner) -> None:
        """Make the past, then live on until the market is an hour behind (the machine slept)."""
        market = await self._open(runner)
        runner.executor = None
        await self._roll(runner, market, NEAR_NS)
        runner.executor = self
        for request_id, asked in runner.engine.outstanding.items():
            self.start(WorkRequested(request_id, asked.work, asked.body))
        runner.checkpoint()  # A past that took long to make need not be stepped again after a crash.
        runner.ready()
        while (behind_ns := self._clock.now_ns() - market.now_ns) < FLOW_NS:
            if behind_ns > 0:
                self._advance(runner, market, min(market.now_ns + self._roll_ns, self._clock.now_ns()))
                runner.hand_over()
            await asyncio.sleep(PACE_S if behind_ns <= NEAR_NS else 0)
        _log.warning("the market stood still and begins a new session", behind_s=behind_ns // NANOS_PER_S)

    async def _open(self, runner: Runner) -> Simulator:
        """Begin a session: what is traded, and the candles between what is known and the flow."""
        engine, names = runner.engine, self._settings.symbols
        start_ns = self._clock.now_ns() - self._past_ns
        if self._history_minutes:
            start_ns = start_ns // MINUTE_NS * MINUTE_NS
        start_ns = max(engine.now_ns, start_ns)  # Not earlier: ids and times must lie beyond those that the engine has seen.
        start_ms = start_ns // MINUTE_NS * MINUTE_MS
        last = [engine.candles.last_ms(symbol_id(SIMULATOR, name)) for name in names]
        known_ms = min((one for one in last if one is not None), default=0) if None not in last else 0
        history = min(self._history_minutes, max(0, (start_ms - known_ms) // MINUTE_MS - 1))
        runner.starting("simulating thirty days of candles")
        try:
            make = partial(Simulator, self._settings, start_ns, history_minutes=history, prices=_prices(runner, names))
            self._market = market = await asyncio.to_thread(make)
        except ValueError as error:
            raise SimulationRefused(str(error)) from None
        runner.begin(self._settled(runner, market, start_ms), SIMULATOR, start_ns)
        self._wanted.clear()
        self._frame(runner, "", market.exchange_info())
        for name in names:
            for from_ms in range(start_ms - history * MINUTE_MS, start_ms, PAGE * MINUTE_MS):
                self._frame(runner, name, market.klines(name, from_ms, min(from_ms + PAGE * MINUTE_MS, start_ms) - 1, PAGE))
                runner.hand_over()
                await asyncio.sleep(0)
                await runner.disk()
        self._candles_ms = self._chains_ms = start_ms
        for one_ms in range(
            -(-(start_ms - history * MINUTE_MS) // PAST_CHAIN_EVERY_MS) * PAST_CHAIN_EVERY_MS, start_ms, PAST_CHAIN_EVERY_MS
        ):
            self._quote(runner, market, one_ms, start_ns, _closes(runner, names, one_ms))
            runner.hand_over()
            await asyncio.sleep(0)
            await runner.disk()
        for name in names:  # Books that were known before this session may not link up with it.
            self._wanted[symbol_id(SIMULATOR, name)] = None
        return market

    def _settled(self, runner: Runner, market: Simulator, start_ms: int) -> CoreSettings:
        """Return the core's settings with a size of VPIN's buckets for each symbol that has none.

        A fiftieth of a day's volume would leave VPIN unknown for a day. Half of a minute's mean volume over the day before the
        first session fills fifty buckets within the hour that is made.
        """
        stated = {one.symbol: one for one in self._core.instruments}
        before = {one.symbol: one for one in runner.engine.settings.instruments}
        for name in self._settings.symbols if self._history_minutes else ():
            symbol = symbol_id(SIMULATOR, name)
            one = stated.get(symbol, InstrumentSettings(symbol))
            if one.vpin_bucket is None:
                bucket = before[symbol].vpin_bucket if symbol in before else _half_minute(market, name, start_ms)
                stated[symbol] = msgspec.structs.replace(one, vpin_bucket=bucket)
        return msgspec.structs.replace(self._core, instruments=tuple(stated.values()))

    async def _roll(self, runner: Runner, market: Simulator, near_ns: int) -> None:
        """Make the past as fast as the machine allows; off-loop work answers after a fixed delay, so that the seed decides all."""
        self._delayed = Delayed(runner.engine, self._works, self._delay_ns)
        began_ns = market.now_ns
        until = time.perf_counter() + SLICE_S
        while (left_ns := self._clock.now_ns() - market.now_ns) > near_ns:
            until_ns = market.now_ns + min(self._roll_ns, left_ns)
            await self._delayed.ready(until_ns)
            self._advance(runner, market, until_ns)
            if time.perf_counter() >= until:
                runner.hand_over()
                done = (market.now_ns - began_ns) / max(1, market.now_ns + left_ns - began_ns)
                runner.starting("simulating the past", done)
                await asyncio.sleep(0)
                await runner.disk()
                until = time.perf_counter() + SLICE_S
        runner.hand_over()
        self._delayed = None

    def _advance(self, runner: Runner, market: Simulator, until_ns: int) -> None:
        """Step what the market sends up to ``until_ns``, then the REST answers that are due."""
        engine = runner.engine
        for ts_ns, payload in market.advance(until_ns):
            if self._delayed is not None:
                for answer in self._delayed.answers(ts_ns):
                    self._see(runner.step(answer))
            if records := runner.step(Frame(engine.seq + 1, max(ts_ns, engine.now_ns), SIMULATOR, "", payload)):
                self._see(records)
        wanted, self._wanted = self._wanted, {}
        for symbol in wanted:
            name = name_of(symbol)
            if venue_of(symbol) == SIMULATOR and name in self._settings.symbols:
                self._frame(runner, name, market.snapshot(name), until_ns)
        if until_ns >= (self._candles_ms + MINUTE_MS) * NANOS_PER_MS + CANDLE_DELAY_NS:
            for name in self._settings.symbols:
                self._frame(runner, name, market.klines(name, self._candles_ms, self._candles_ms, 1), until_ns)
            self._candles_ms += MINUTE_MS
        if until_ns >= (self._chains_ms + CHAIN_EVERY_MS) * NANOS_PER_MS:
            self._chains_ms = until_ns // NANOS_PER_MS // CHAIN_EVERY_MS * CHAIN_EVERY_MS
            self._quote(runner, market, self._chains_ms, until_ns, _prices(runner, self._settings.symbols))

    def _quote(self, runner: Runner, market: Simulator, ts_ms: int, ts_ns: int, prices: Mapping[str, float]) -> None:
        """Step the option chain of every coin with a price as it is at ``ts_ms``."""
        engine = runner.engine
        first: dict[str, str] = {}
        for name in prices:
            first.setdefault(market.terms(name).base, name)
        for base, name in first.items():
            usual = simulated_chain.yearly(market.terms(name).minute_bps)
            body = simulated_chain.body(self._settings.seed, base, ts_ms, prices[name], usual)
            self._see(runner.step(Chain(engine.seq + 1, max(ts_ns, engine.now_ns), base, "simulated", body)))

    def _see(self, records: list[Record]) -> None:
        """Take note of what is asked for while the past is made; whatever was stepped, a timer may have asked in it."""
        if self._delayed is None:
            return  # The runner has told ``start``.
        for record in records:
            if type(record) is WorkRequested and record.work == SNAPSHOT:
                self._wanted[record.body.decode()] = None
        self._delayed.note(records)

    def _frame(self, runner: Runner, name: str, payload: bytes, ts_ns: int = 0) -> None:
        engine = runner.engine
        self._see(runner.step(Frame(engine.seq + 1, max(ts_ns, engine.now_ns), SIMULATOR, name, payload)))


def _half_minute(market: Simulator, name: str, start_ms: int) -> float | None:
    """Return half of the mean volume of a minute in the day before, in two digits; None where there was none."""
    day = msgspec.json.decode(market.klines(name, start_ms - 1_440 * MINUTE_MS, start_ms - 1, 1_440), type=list[tuple[Any, ...]])
    volume = sum(float(candle[5]) for candle in day)
    return float(f"{volume / len(day) / 2:.2g}") if volume else None


def _closes(runner: Runner, names: tuple[str, ...], ts_ms: int) -> dict[str, float]:
    """Return the last close of each symbol before a time."""
    closes = {}
    for name in names:
        rows = runner.engine.candles.rows(symbol_id(SIMULATOR, name))
        known = int(rows[:, 0].searchsorted(ts_ms))
        if known:
            closes[name] = float(rows[known - 1, 4])
    return closes


def _prices(runner: Runner, names: tuple[str, ...]) -> dict[str, float]:
    """Return the last price that the engine knows of each symbol: of its book, else of its candles."""
    prices = {}
    for name in names:
        symbol = symbol_id(SIMULATOR, name)
        price = runner.engine.candles.last_close(symbol)
        if symbol in runner.engine.microstructure.symbols():
            reading = runner.microstructure(symbol)
            price = reading.mid if reading is not None and reading.mid is not None else price
        if price is not None:
            prices[name] = price
    return prices
