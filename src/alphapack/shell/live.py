"""Venues as a source: their feeds, what the core asks of them, and the candles of the past."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import structlog

from alphapack.domain.events import WorkRequested
from alphapack.domain.feeds import FeedHealth, FeedPlan, FeedSettings
from alphapack.domain.inputs import CoreSettings
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, name_of, symbol_id, venue_of
from alphapack.models.candles import MINUTE_MS
from alphapack.services.candles import ROWS_MAX
from alphapack.services.microstructure import SNAPSHOT
from alphapack.shell.candle_files import Past
from alphapack.shell.clock import Clock
from alphapack.shell.feed import Feed, first_error
from alphapack.shell.offloop import Work, Worker
from alphapack.shell.rest import RestError
from alphapack.shell.runner import Runner

LAG_MS_MAX = 60_000.0
"""A venue whose clock is further from ours is asked as if it were not."""
CANDLE_DELAY_MS = 2_000
"""A minute closes this long after its end."""

_log = structlog.get_logger("alphapack.live")


class LiveMarkets:
    """Follows feeds into a runner (source and port ``Executor``)."""

    def __init__(
        self,
        plans: Mapping[FeedPlan, tuple[str, ...]],
        settings: FeedSettings,
        core: CoreSettings,
        clock: Clock,
        works: Mapping[str, Work],
        history_minutes: int,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        pasts: Sequence[Past] = (),
    ) -> None:
        """``plans`` come with the venue's names of the symbols to follow; ``chance`` spreads attempts in time and decides no number.

        ``pasts`` are candles that are known beforehand; those that the venue sends stand before them.
        """
        self._plans, self._settings, self._monotonic, self._chance = plans, settings, monotonic, chance
        self._feeds: dict[str, tuple[Feed, tuple[str, ...]]] = {}
        self._core, self._clock, self._works = core, clock, works
        self._history_ms = history_minutes * MINUTE_MS
        self._pasts = pasts
        self._worker: Worker | None = None

    async def run(self, runner: Runner) -> None:
        """Follow the markets until cancelled; raises what a feed cannot begin with."""
        self._worker = Worker(self._works, runner.answered)
        self._clock = runner.clock = runner.carried_on(self._clock)
        for plan, names in self._plans.items():
            receive = partial(runner.receive, plan.venue)
            feed = Feed(plan, names, receive, clock=self._monotonic, chance=self._chance, settings=self._settings)
            self._feeds[plan.venue] = feed, names
        runner.executor, runner.went_stale, runner.feeds = self, self.stale, self.health
        try:
            for request_id, asked in runner.engine.outstanding.items():
                self.start(WorkRequested(request_id, asked.work, asked.body))
            runner.begin(self._core, ", ".join(self._feeds), self._clock.now_ns())
            runner.hand_over()
            await self._load_pasts(runner)
            runner.ready()
            async with asyncio.TaskGroup() as group:
                for feed, names in self._feeds.values():
                    group.create_task(feed.run())
                    group.create_task(self._follow_candles(runner, feed, names))
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            runner.executor, runner.went_stale, runner.feeds = None, None, list
            self._worker.close()

    async def _load_pasts(self, runner: Runner) -> None:
        """Step what is known beforehand of minutes of which nothing is known yet: a restart loads nothing twice."""
        engine = runner.engine
        now_ms = engine.now_ns // NANOS_PER_MS
        for past in self._pasts:
            used = past.before(now_ms, now_ms - ROWS_MAX * MINUTE_MS).without(engine.candles.rows(past.symbol)[:, 0])
            _log.info("history", symbol=past.symbol, candles=len(used.rows), left_out=len(past.rows) - len(used.rows))
            for page in used.pages():
                runner.step(msgspec.structs.replace(page, seq=engine.seq + 1, ts_ns=engine.now_ns))
                runner.hand_over()
                await asyncio.sleep(0)
                await runner.disk()

    def start(self, request: WorkRequested) -> None:
        """Begin work that the core asks for."""
        if request.work == SNAPSHOT:
            symbol = request.body.decode()
            followed = self._feeds.get(venue_of(symbol))
            if followed is not None and name_of(symbol) in followed[1]:
                followed[0].snapshot(name_of(symbol))
            return
        assert self._worker is not None, "work is asked for while the markets are followed"
        self._worker.start(request)

    def stale(self, symbol: str) -> None:
        """Have the feed see to a symbol whose book went STALE."""
        followed = self._feeds.get(venue_of(symbol))
        if followed is not None and name_of(symbol) in followed[1]:
            followed[0].stale(name_of(symbol))

    def health(self) -> list[FeedHealth]:
        """Return how each feed stands."""
        return [feed.health() for feed, _ in self._feeds.values()]

    def _lag_ns(self, runner: Runner, feed: Feed, names: tuple[str, ...]) -> int:
        """Return how far the venue's clock is behind ours by the messages that came last, 0 before the first; late ones count too."""
        market = runner.engine.microstructure
        known = (market.health(symbol).lag_ms for name in names if market.knows(symbol := symbol_id(feed.plan.venue, name)))
        lags = [lag_ms for lag_ms in known if lag_ms is not None]
        lag_ms = min(lags, default=0.0)
        return round(max(-LAG_MS_MAX, min(LAG_MS_MAX, lag_ms)) * NANOS_PER_MS)  # One absurd time must not decide when we ask.

    async def _follow_candles(self, runner: Runner, feed: Feed, names: tuple[str, ...]) -> None:
        """Fetch the candles that are not known, then those of every minute once it has closed."""
        while True:
            now_ms = (self._clock.now_ns() - self._lag_ns(runner, feed, names)) // NANOS_PER_MS
            closed_ms = (now_ms - CANDLE_DELAY_MS) // MINUTE_MS * MINUTE_MS
            for name in names:
                last_ms = runner.engine.candles.last_ms(symbol_id(feed.plan.venue, name))
                from_ms = max(closed_ms - self._history_ms, last_ms or 0)  # The last one again: it may have come before its end.
                if from_ms < closed_ms:
                    try:
                        await feed.klines(name, from_ms, closed_ms)
                    except RestError as error:
                        _log.warning("candles are missing", venue=feed.plan.venue, symbol=name, reason=str(error))
            next_ms = closed_ms + MINUTE_MS + CANDLE_DELAY_MS
            await asyncio.sleep(max(1.0, next_ms / 1_000 - self._clock.now_ns() / NANOS_PER_S))
