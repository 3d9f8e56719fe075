"""Venues as a source: what is asked of their feeds, and what comes of it."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alphapack import app
from alphapack.domain.events import BookStateChanged, WorkRequested
from alphapack.domain.feeds import FeedHealth, FeedSettings, UnknownSymbol
from alphapack.domain.inputs import CoreSettings, Frame, Heartbeat, History, Result, SessionStart
from alphapack.domain.simulation import SimulatorSettings
from alphapack.models.simulator import Simulator
from alphapack.services import microstructure
from alphapack.shell import live as live_module
from alphapack.shell.candle_files import Past
from alphapack.shell.feed import Receive
from alphapack.shell.journal import read_journal
from alphapack.shell.live import LiveMarkets
from alphapack.shell.mock import Limits, MockExchange, MockSettings
from alphapack.shell.rest import RestError
from alphapack.venues.binance_api import BinanceApi
from rig import BTC, MS, PATIENCE_S, START_NS, VENUE, FakeClock, FakeMarket, Live, S, stepped, until

MINUTE_MS = 60_000
START_MS = START_NS // MS
CLOSED_MS = (START_MS - live_module.CANDLE_DELAY_MS) // MINUTE_MS * MINUTE_MS
"""Where the minute that runs at the start began: what opened before is closed."""
HISTORY_MINUTES = 30
LISTING = json.dumps(
    {"symbols": [{"symbol": "BTCUSDT", "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.10"}]}]}, separators=(",", ":")
).encode()


class FakeFeed:
    """Notes what it is asked for; the candles that it is asked for it has, unless it is told to fail."""

    every: list["FakeFeed"]
    begins_with: Exception | None
    refusals: deque[RestError]
    """What the next requests of candles are refused with."""

    def __init__(self, plan: BinanceApi, symbols: Sequence[str], receive: Receive, **options: Any) -> None:
        self.plan, self.symbols, self.receive = plan, symbols, receive
        self.asked: list[tuple[str, ...]] = []
        self.candles: list[tuple[str, int, int]] = []
        self.every.append(self)

    async def run(self) -> None:
        if self.begins_with is not None:
            raise self.begins_with
        self.receive("", LISTING)
        await asyncio.Event().wait()

    def snapshot(self, symbol: str) -> None:
        self.asked.append(("snapshot", symbol))

    def stale(self, symbol: str) -> None:
        self.asked.append(("stale", symbol))

    async def klines(self, symbol: str, start_ms: int, end_ms: int) -> None:
        self.candles.append((symbol, start_ms, end_ms))
        if self.refusals:
            raise self.refusals.popleft()
        rows = [
            [at, "100", "102", "99", "101", "5", at + MINUTE_MS - 1, "1", 1, "1", "1", "0"] for at in range(start_ms, end_ms, MINUTE_MS)
        ]
        self.receive(symbol, json.dumps(rows).encode())

    def health(self) -> FeedHealth:
        return FeedHealth(self.plan.venue, 1, 1, 0, 0, 0, 0, 0, (), "", "", 0, 0.0)


@pytest.fixture(autouse=True)
def _fake_feed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeFeed.every, FakeFeed.begins_with, FakeFeed.refusals = [], None, deque()
    if "real_feed" not in request.fixturenames:
        monkeypatch.setattr(live_module, "Feed", FakeFeed)


@pytest.fixture
def real_feed() -> None:
    """Follow by real sockets."""


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> Iterator["Minutes"]:
    """A time that passes where candles are waited for, and not otherwise."""
    world = Minutes()
    monkeypatch.setattr(live_module, "asyncio", SimpleNamespace(sleep=world.sleep, TaskGroup=asyncio.TaskGroup))
    yield world
    assert not world.early, "a minute was asked for before it had closed"


class Minutes:
    """A clock whose sleepers wait until they are let go."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sleepers: list[asyncio.Future[None]] = []
        self.slept: list[float] = []
        self.early = False

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleepers.append(sleeper)
        await sleeper
        self.early |= self.clock.at_ns % (60 * S) < 2 * S

    async def next(self) -> None:
        """Let everyone who sleeps sleep to his end."""
        await until(lambda: bool(self.sleepers))
        await asyncio.sleep(0.01)  # All that came is stepped.
        sleepers, self.sleepers = self.sleepers, []
        self.clock.at_ns += round(max(self.slept[-len(sleepers) :]) * S)
        for sleeper in sleepers:
            sleeper.set_result(None)
        await until(lambda: bool(self.sleepers))
        await asyncio.sleep(0.01)


def markets_of(
    clock: FakeClock,
    *symbols: str,
    market: str = "usdm",
    core: CoreSettings | None = None,
    works: dict[str, Any] | None = None,
    pasts: Sequence[Past] = (),
) -> LiveMarkets:
    names = symbols or ("BTCUSDT",)
    core = core or CoreSettings(symbols=tuple(f"binance-{market}:{name}" for name in names), stale_after_ms=2_000)
    return LiveMarkets({BinanceApi(market): names}, FeedSettings(), core, clock, works or {}, HISTORY_MINUTES, pasts=pasts)


class Following:
    """Markets that are followed into a runner with real stores."""

    def __init__(self, folder: Path, clock: FakeClock, markets: LiveMarkets) -> None:
        self.clock, self.markets = clock, markets
        self.host = Live(folder, clock=clock)
        self.runner, self.engine = self.host.runner, self.host.engine
        self.task = asyncio.create_task(markets.run(self.runner))

    @property
    def feed(self) -> FakeFeed:
        return FakeFeed.every[-1]

    async def settle(self) -> None:
        """Let all that was received be stepped and be safe; the listing is what comes first."""
        await until(
            lambda: self.task.done() or (not self.runner.intake.frames and any(type(entry) is Frame for entry, _ in self.host.seen))
        )
        await self.host.settle()

    async def receive(self, *payloads: bytes, symbol: str = "") -> None:
        for payload in payloads:
            self.feed.receive(symbol, payload)
        await self.settle()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.host.close()


def follow(folder: Path, test: Callable[[Following], Awaitable[None]], clock: FakeClock | None = None, **options: Any) -> None:
    async def within() -> None:
        at = clock or FakeClock()
        one = Following(folder, at, markets_of(at, **options))
        try:
            await asyncio.wait_for(one.settle(), PATIENCE_S)
            await asyncio.wait_for(test(one), PATIENCE_S)
        finally:
            await one.stop()

    asyncio.run(within())


# The beginning and the end


def test_a_session_begins_with_the_settings_and_what_the_venue_lists(tmp_path: Path) -> None:
    async def test(one: Following) -> None:
        kinds = [entry for entry, _ in one.host.seen[:3]]
        assert isinstance(kinds[1], SessionStart) and kinds[1] == SessionStart(2, START_NS, VENUE)
        assert kinds[2] == Frame(3, START_NS, VENUE, "", LISTING)
        assert one.engine.settings.symbols == (BTC,) and one.feed.symbols == ("BTCUSDT",)
        assert one.runner.health().detail == "no book is proven yet: a depth snapshot and the differences that follow it are awaited"
        assert [health.venue for health in one.markets.health()] == [VENUE]

    follow(tmp_path, test)


@pytest.mark.parametrize("error", [UnknownSymbol("expected a symbol, found BTCUSTD: the nearest is BTCUSDT"), RestError("HTTP 451")])
def test_what_a_feed_cannot_begin_with_comes_out_as_itself(tmp_path: Path, error: Exception) -> None:
    FakeFeed.begins_with = error

    async def test() -> None:
        clock = FakeClock()
        async with Live(tmp_path, clock=clock) as host:
            with pytest.raises(type(error), match=str(error)) as raised:
                await asyncio.wait_for(markets_of(clock, "BTCUSDT", "ETHUSDT").run(host.runner), PATIENCE_S)
            assert raised.value is error
            assert host.runner.executor is None and host.runner.went_stale is None, "nothing is asked of what has ended"

    asyncio.run(test())


def test_each_venue_has_its_feed(tmp_path: Path) -> None:
    async def test() -> None:
        clock = FakeClock()
        plans = {BinanceApi("spot"): ("BTCUSDT", "ETHUSDT"), BinanceApi("coinm"): ("BTCUSD_PERP",)}
        markets = LiveMarkets(plans, FeedSettings(), CoreSettings(), clock, {}, HISTORY_MINUTES)
        one = Following(tmp_path, clock, markets)
        try:
            await asyncio.wait_for(one.settle(), PATIENCE_S)
            spot, coinm = FakeFeed.every
            assert (spot.symbols, coinm.symbols) == (("BTCUSDT", "ETHUSDT"), ("BTCUSD_PERP",))
            market = FakeMarket("BTCUSD_PERP")
            coinm.receive("", market.diff(START_NS))
            await one.settle()
            assert (spot.asked, coinm.asked) == ([], [("snapshot", "BTCUSD_PERP")])
            assert one.engine.microstructure.symbols() == ["binance-coinm:BTCUSD_PERP"]
            assert [name for name, *_ in spot.candles] == ["BTCUSDT", "ETHUSDT"]
        finally:
            await one.stop()

    asyncio.run(test())


# What the core asks for


def test_a_snapshot_that_the_core_asks_for_is_asked_of_the_feed(tmp_path: Path) -> None:
    async def test(one: Following) -> None:
        market = FakeMarket()
        await one.receive(market.diff(START_NS))
        assert one.feed.asked == [("snapshot", "BTCUSDT")]
        await one.receive(market.snapshot(), symbol="BTCUSDT")
        await one.receive(market.diff(START_NS))
        assert one.engine.microstructure.health(BTC).state == "LIVE"
        market.diff(START_NS)  # It is lost.
        await one.receive(market.diff(START_NS))
        assert one.feed.asked == [("snapshot", "BTCUSDT")] * 2

    follow(tmp_path, test)


def test_a_book_that_goes_stale_is_told_to_the_feed(tmp_path: Path) -> None:
    async def test(one: Following) -> None:
        market = FakeMarket()
        await one.receive(market.diff(START_NS), market.snapshot(), market.diff(START_NS))
        one.clock.at_ns += 1_900 * MS
        one.runner.submit(Heartbeat)
        assert ("stale", "BTCUSDT") not in one.feed.asked
        one.clock.at_ns += 200 * MS
        one.runner.submit(Heartbeat)
        assert one.feed.asked.count(("stale", "BTCUSDT")) == 1

    follow(tmp_path, test)


def test_symbols_that_are_not_followed_are_asked_of_nobody(tmp_path: Path) -> None:
    core = CoreSettings(stale_after_ms=2_000)  # Whatever is posted is followed by the engine.

    async def test(one: Following) -> None:
        for name, venue in (("DOGEUSDT", VENUE), ("BTCUSDT", "binance-spot"), ("BTCUSDT", "sim")):
            market = FakeMarket(name)
            lines = [market.diff(START_NS), market.snapshot(), market.diff(START_NS)]
            done = await one.runner.ingest(venue, name, lines)
            assert done.rejected_count == 0
            assert one.engine.microstructure.health(f"{venue}:{name}").state == "LIVE"
        one.clock.at_ns += 5 * S
        one.runner.submit(Heartbeat)
        states = {one.engine.microstructure.health(name).state for name in one.engine.microstructure.symbols()}
        assert states == {"STALE"} and one.feed.asked == []

    follow(tmp_path, test, core=core)


def test_a_restart_asks_again_for_what_it_lacks(tmp_path: Path) -> None:
    """Whoever was asked for a snapshot is gone; and of a book that was LIVE nobody knows what passed."""
    clock, market = FakeClock(), FakeMarket()

    async def first(one: Following) -> None:
        await one.receive(market.diff(START_NS))

    async def second(one: Following) -> None:
        assert one.feed.asked == [("snapshot", "BTCUSDT")]
        await one.receive(market.snapshot(), market.diff(START_NS))
        assert one.engine.microstructure.health(BTC).state == "LIVE"

    async def third(one: Following) -> None:
        assert one.feed.asked == [("stale", "BTCUSDT")]
        for _ in range(3):
            market.diff(START_NS)
        await one.receive(market.diff(START_NS))
        assert one.feed.asked == [("stale", "BTCUSDT"), ("snapshot", "BTCUSDT")]
        await one.receive(market.snapshot(), market.diff(START_NS))
        assert one.engine.microstructure.health(BTC).state == "LIVE"

    for test in (first, second, third):
        follow(tmp_path, test, clock)
        clock.at_ns += 10 * S
    entries = list(read_journal(tmp_path / "journal"))
    assert len([entry for entry in entries if isinstance(entry, SessionStart)]) == 3
    _, records = stepped(entries)
    changes = [one.after.name for caused in records for one in caused if isinstance(one, BookStateChanged)]
    assert changes == ["LIVE", "STALE", "CORRUPT", "SYNCING", "LIVE"]


def test_work_is_done_on_a_thread_and_what_a_former_process_asked_for_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microstructure, "FIT_MOVES", 1)
    clock, market = FakeClock(START_NS // (60 * S) * 60 * S), FakeMarket()

    async def first(one: Following) -> None:
        lines = [market.diff(START_NS), market.snapshot(), *(market.diff(START_NS) for _ in range(40))]
        await one.receive(*lines)
        for _ in range(61):  # Silence stops no timer, but a book that is STALE has no fit to ask for.
            clock.at_ns += S
            await one.receive(market.diff(START_NS))
        assert len(one.engine.outstanding) == 1, "nobody does it"

    async def second(one: Following) -> None:
        await until(lambda: not one.engine.outstanding)
        assert [type(entry) for entry, _ in one.host.seen].count(Result) == 1

    follow(tmp_path, first, clock)
    follow(tmp_path, second, clock, works=dict(app.WORKS))


# Candles


def test_the_candles_of_the_past_are_fetched_and_then_each_minute_once_it_has_closed(tmp_path: Path, minutes: Minutes) -> None:
    async def test(one: Following) -> None:
        await until(lambda: one.engine.candles.count(BTC) == HISTORY_MINUTES)
        assert one.feed.candles == [("BTCUSDT", CLOSED_MS - HISTORY_MINUTES * MINUTE_MS, CLOSED_MS)]
        for i in range(3):
            await minutes.next()
            assert one.feed.candles[1 + i :] == [("BTCUSDT", CLOSED_MS + (i - 1) * MINUTE_MS, CLOSED_MS + (i + 1) * MINUTE_MS)]
        assert one.engine.candles.count(BTC) == HISTORY_MINUTES + 3
        assert all(1.0 <= slept <= 60.0 for slept in minutes.slept)

    follow(tmp_path, test, minutes.clock)


def test_a_past_from_files_comes_before_what_is_fetched_and_a_restart_loads_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphapack.shell.candle_files.HISTORY_ROWS_MAX", 40)
    at = [*range(-100, -60), *range(-50, 3)]  # Some of them lie in what is fetched, some have not ended.
    rows = np.array([(CLOSED_MS + minute * MINUTE_MS, 7.0, 7.0, 7.0, 7.0, 1.0) for minute in at])
    pasts = (Past(BTC, rows),)

    async def first(one: Following) -> None:
        await until(lambda: one.engine.candles.sources(BTC).get("venue", 0) == HISTORY_MINUTES)
        assert [type(entry) for entry, _ in one.host.seen[1:6]] == [SessionStart, History, History, History, Frame]
        assert one.feed.candles == [("BTCUSDT", CLOSED_MS - HISTORY_MINUTES * MINUTE_MS, CLOSED_MS)], (
            "the venue's own are wanted all the same"
        )
        assert one.engine.candles.sources(BTC) == {"venue": HISTORY_MINUTES, "file": 60} and one.engine.candles.shift_ms(BTC) == 0
        assert one.engine.candles.rows(BTC)[-1, 0] == CLOSED_MS - MINUTE_MS

    async def second(one: Following) -> None:
        await until(lambda: bool(one.feed.candles))
        assert not any(type(entry) is History for entry, _ in one.host.seen)

    follow(tmp_path, first, pasts=pasts)
    follow(tmp_path, second, pasts=pasts)


def test_a_restart_fetches_the_candles_that_it_lacks_and_the_last_one_again(tmp_path: Path, minutes: Minutes) -> None:
    async def first(one: Following) -> None:
        await until(lambda: one.engine.candles.count(BTC) == HISTORY_MINUTES)

    def second(missing: int) -> Callable[[Following], Awaitable[None]]:
        async def test(one: Following) -> None:
            await until(lambda: bool(one.feed.candles) or bool(minutes.sleepers))
            now_ms = CLOSED_MS + round(away_s / 60) * MINUTE_MS
            assert one.feed.candles == [("BTCUSDT", now_ms - missing * MINUTE_MS, now_ms)]
            await one.settle()

        return test

    follow(tmp_path, first, minutes.clock)
    for away_s, missing in ((0, 1), (7 * 60, 8), (600 * 60, HISTORY_MINUTES)):
        at_ns = START_NS + away_s * S
        minutes.clock.at_ns, minutes.sleepers = at_ns, []
        follow(tmp_path, second(missing), minutes.clock)
    engine, _ = stepped(list(read_journal(tmp_path / "journal")))
    assert engine.candles.count(BTC) == 2 * HISTORY_MINUTES + 7


def test_candles_that_are_refused_are_asked_for_again_from_the_same_minute_on(tmp_path: Path, minutes: Minutes) -> None:
    FakeFeed.refusals = deque([RestError("HTTP 418"), RestError("HTTP 400")])

    async def test(one: Following) -> None:
        await until(lambda: len(minutes.sleepers) == 1)
        assert one.engine.candles.count(BTC) == 0
        await minutes.next()
        await minutes.next()
        assert [start for _, start, _ in one.feed.candles] == [CLOSED_MS + (i - HISTORY_MINUTES) * MINUTE_MS for i in range(3)]
        assert one.engine.candles.count(BTC) == HISTORY_MINUTES, "the history moves on with the time"
        await minutes.next()
        assert one.feed.candles[3:] == [("BTCUSDT", CLOSED_MS + MINUTE_MS, CLOSED_MS + 3 * MINUTE_MS)]
        assert not one.task.done()

    follow(tmp_path, test, minutes.clock)


@pytest.mark.parametrize("years", [-40, 200])
def test_an_absurd_time_of_the_venue_does_not_decide_when_candles_are_asked_for(tmp_path: Path, minutes: Minutes, years: int) -> None:
    """Its clock is believed to be a minute from ours at most."""

    async def test(one: Following) -> None:
        await until(lambda: one.engine.candles.count(BTC) == HISTORY_MINUTES)
        market = FakeMarket()
        await one.receive(market.diff(START_NS), market.snapshot(), market.diff(START_NS + years * 365 * 86_400 * S))
        for _ in range(3):
            await minutes.next()
        now_ms = minutes.clock.at_ns // MS
        assert len(one.feed.candles) > 1, "and they are asked for all the same"
        assert all(CLOSED_MS - MINUTE_MS * HISTORY_MINUTES <= start < end <= now_ms + MINUTE_MS for _, start, end in one.feed.candles)
        assert all(1.0 <= slept <= 122.0 for slept in minutes.slept)
        minutes.early = False  # A venue whose clock is ahead closes its minutes before ours.

    follow(tmp_path, test, minutes.clock)


# Over sockets


class TapeClock(FakeClock):
    """The time of the market that the exchange plays."""

    def __init__(self, tape: Simulator) -> None:
        self.tape = tape

    def now_ns(self) -> int:
        return self.tape.now_ns


@pytest.mark.usefixtures("real_feed")
@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
def test_an_exchange_is_followed_to_live_books_and_candles_and_replays_alike(tmp_path: Path, market: str) -> None:
    name = "BTCUSD_PERP" if market == "coinm" else "BTCUSDT"
    full = f"binance-{market}:{name}"
    tape = Simulator(SimulatorSettings(symbols=(name,)), START_NS, market=market, history_minutes=HISTORY_MINUTES)  # type: ignore[arg-type]
    easy = Limits(messages_per_s=1_000, weight_per_minute=6_000, ping_s=1_000.0, pong_s=1_000.0)

    async def test() -> str:
        async with MockExchange(tape, MockSettings(market=market, speed=5.0, limits=easy)) as exchange:  # type: ignore[arg-type]
            playing = asyncio.create_task(exchange.run())
            at = f"127.0.0.1:{exchange.port}"
            settings = FeedSettings(ws_url=f"ws://{at}", rest_url=f"http://{at}")
            clock, core = TapeClock(tape), CoreSettings(symbols=(full,), stale_after_ms=60_000)
            markets = LiveMarkets({BinanceApi(market): (name,)}, settings, core, clock, {}, HISTORY_MINUTES)
            one = Following(tmp_path, clock, markets)
            try:
                engine = one.engine
                await until(lambda: one.task.done() or (full in engine.microstructure.symbols()))
                await until(lambda: one.task.done() or engine.microstructure.health(full).state == "LIVE")
                await until(lambda: one.task.done() or engine.candles.count(full) >= HISTORY_MINUTES - 1)
                await until(lambda: one.task.done() or engine.microstructure.health(full).messages > 100)
                assert not one.task.done()
                health, info = engine.microstructure.health(full), engine.microstructure.info(full)
                assert (health.gaps, health.crossed, health.ticker_mismatched, health.rejected) == (0, 0, 0, 0)
                terms = tape.terms(name)
                assert (info.tick, info.lot) == (float(terms.tick_text), float(terms.lot_text))
                assert info.contract_value == (100.0 if market == "coinm" else None)
                assert {"depth", "bookTicker", "snapshot"} <= engine.microstructure.kinds(full).keys()
                feed = one.runner.feeds()[0]
                assert feed.snapshots >= 1 and feed.frames > 100
                await one.host.settle()
            finally:
                playing.cancel()
                await one.stop()
            return one.engine.hexdigest()

    digest = asyncio.run(test())
    entries = list(read_journal(tmp_path / "journal"))
    engine, records = stepped(entries)
    assert engine.hexdigest() == digest
    assert any(isinstance(record, WorkRequested) and record.body == full.encode() for caused in records for record in caused)
