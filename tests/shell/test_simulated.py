"""The market that comes with the engine: the same from the same seed and clock, and going on where it was left."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alphapack import app
from alphapack.domain.events import BookStateChanged, WorkFailed, WorkRequested
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Frame, Result, SessionStart
from alphapack.domain.simulation import SimulatorSettings
from alphapack.engine.ports import NotReady
from alphapack.models import book, chain, simulated_chain, simulator
from alphapack.models.simulator import Simulator, terms_of
from alphapack.models.skew import OBSERVATIONS_MIN
from alphapack.models.svi import Svi
from alphapack.services import microstructure
from alphapack.services.microstructure import MICROPRICE
from alphapack.shell import simulated
from alphapack.shell.journal import read_journal
from alphapack.shell.offloop import Work
from alphapack.shell.simulated import FLOW_NS, MINUTE_NS, SimulatedMarket
from rig import MS, PATIENCE_S, START_NS, FakeClock, Live, S, stepped, until

BTC = "sim:BTCUSDT"
MINUTE_MS = 60_000
SETTINGS = SimulatorSettings(symbols=("BTCUSDT",))
CORE = CoreSettings(stale_after_ms=2_000)
PAST_NS = 2 * MINUTE_NS
HISTORY_MINUTES = 20
DELAY_NS = 50 * MS
WORKS = app.WORKS


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "PACE_S", 0.001)


class Clock(FakeClock):
    """Shows what the test sets, and counts how often it was looked at; ``TICK_NS`` pass with each of the first ``ticks`` looks."""

    TICK_NS = 7 * MS

    def __init__(self, at_ns: int = START_NS, ticks: int = 0) -> None:
        super().__init__(at_ns)
        self.ticks, self.looks = ticks, 0

    def now_ns(self) -> int:
        self.looks += 1
        self.at_ns += self.TICK_NS * (self.looks <= self.ticks)
        return self.at_ns


def market_of(
    clock: Clock,
    *,
    settings: SimulatorSettings = SETTINGS,
    works: Mapping[str, Work] = WORKS,
    delay_ns: int = DELAY_NS,
    past_ns: int = PAST_NS,
    history_minutes: int = HISTORY_MINUTES,
) -> SimulatedMarket:
    return SimulatedMarket(settings, CORE, clock, works, delay_ns, past_ns=past_ns, history_minutes=history_minutes)


class Running:
    """A market that plays into a runner with real stores."""

    def __init__(self, folder: Path, clock: Clock, market: SimulatedMarket) -> None:
        self.folder, self.clock, self.market = folder, clock, market
        self.host = Live(folder, clock=market)
        self.runner, self.engine = self.host.runner, self.host.engine
        self.task = asyncio.create_task(market.run(self.runner))

    async def when(self, what: Callable[[], bool]) -> None:
        await until(lambda: self.task.done() or what())
        if self.task.done():
            self.task.result()

    async def ready(self) -> None:
        await self.when(lambda: self.runner.health().status == "ready")

    async def passes(self, seconds: float) -> None:
        """Let time pass at once, and the market follow to that very time."""
        self.clock.at_ns += round(seconds * S)
        await self.when(lambda: self.engine.now_ns > self.clock.at_ns - S)
        looks = self.clock.looks
        await self.when(lambda: self.clock.looks >= looks + 6)  # A second at most is left, which takes three.

    async def stop(self, *, checkpoint: bool = False) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.host.close(checkpoint=checkpoint)
        assert self.task.cancelled()


@asynccontextmanager
async def running(folder: Path, clock: Clock, *, checkpoint: bool = False, **options: Any) -> AsyncIterator[Running]:
    one = Running(folder, clock, market_of(clock, **options))
    try:
        yield one
    finally:
        await one.stop(checkpoint=checkpoint)


def play(test: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        await asyncio.wait_for(test(), 3 * PATIENCE_S)

    asyncio.run(within())


def journal_of(folder: Path) -> list[AnyInput]:
    return list(read_journal(folder / "journal", report=pytest.fail))


def sessions(entries: list[AnyInput]) -> list[SessionStart]:
    return [entry for entry in entries if isinstance(entry, SessionStart)]


def stream(entries: list[AnyInput], channel: str) -> list[tuple[int, dict[str, Any]]]:
    """Receive times and messages of one kind of stream."""
    marked = b"@%b" % channel.encode()
    found = [(entry.ts_ns, entry.payload) for entry in entries if isinstance(entry, Frame) and marked in entry.payload[:50]]
    return [(ts_ns, json.loads(payload)["data"]) for ts_ns, payload in found]


def assert_sound(folder: Path, *, drift: float = 0.01) -> None:
    """Assert what holds of every journal of this market, however often it was begun: replay, ids, times, candles, books."""
    entries = journal_of(folder)
    engine, _ = stepped(entries)
    trades, depth = stream(entries, "trade"), stream(entries, "depth")
    assert all(later["t"] > earlier["t"] for (_, earlier), (_, later) in pairwise(trades)), "trade ids rise over all sessions"
    assert all(later["U"] > earlier["u"] for (_, earlier), (_, later) in pairwise(depth)), "update ids rise over all sessions"
    assert all(0 <= ts_ns - one["E"] * MS < 2 * MS for ts_ns, one in trades + depth), "no frame comes late"
    rows = engine.candles.history(BTC, 0, 1 << 20)
    assert {later - earlier for earlier, later in pairwise(rows["ts_ms"])} <= {MINUTE_MS}, "no minute is missing"  # type: ignore[operator]
    steps = [opened / closed - 1.0 for closed, opened in zip(rows["close"], rows["open"][1:], strict=False)]  # type: ignore[operator]
    assert max(map(abs, steps), default=0.0) < drift, "a minute begins where the one before ended"
    health = engine.microstructure.health(BTC)
    assert (health.crossed, health.ticker_mismatched, health.rejected, health.duplicates, health.trades_missed) == (0, 0, 0, 0, 0)
    assert health.gaps < len(sessions(entries)), "a chain breaks where a session begins and nowhere else"


# One session


def test_the_past_is_there_before_the_first_answer(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, Clock()) as one:
            await one.ready()
            engine = one.engine
            assert START_NS - simulated.NEAR_NS - S < engine.now_ns <= START_NS
            begins_ms = (START_NS - PAST_NS) // MINUTE_NS * MINUTE_MS
            rows = engine.candles.history(BTC, 0, 1_000)["ts_ms"]
            assert rows[0] == begins_ms - HISTORY_MINUTES * MINUTE_MS and rows[-1] == START_NS // MINUTE_NS * MINUTE_MS - MINUTE_MS
            assert len(engine.microstructure.history(BTC, 0, 9_999)["ts_ms"]) > 120, "features of every second since the book is proven"
            info = engine.microstructure.info(BTC)
            assert None not in (info.tick, info.lot, info.min_notional, info.maker_fee_bps, info.taker_fee_bps), "as the listing states"
        assert_sound(tmp_path)
        first = journal_of(tmp_path)[:4]
        assert [type(entry) for entry in first] == [Configure, SessionStart, Frame, Frame]
        assert sessions(journal_of(tmp_path)) == [SessionStart(2, begins_ms * MS, "sim")]

    play(test)


def test_the_candles_of_the_flow_are_the_simulators_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, Clock()) as one:
            await one.ready()
            await one.passes(65.0)
            kept = one.engine.candles.history(BTC, 0, 1_000)
        twin = Simulator(SETTINGS, (START_NS - PAST_NS) // MINUTE_NS * MINUTE_NS, history_minutes=HISTORY_MINUTES)
        twin.advance(one.clock.at_ns)
        stated = json.loads(twin.klines("BTCUSDT", 0, 1 << 50, 1_000))
        assert kept["ts_ms"] == [row[0] for row in stated]
        for i, name in enumerate(("open", "high", "low", "close", "volume"), 1):
            assert kept[name] == [float(row[i]) for row in stated], name

    play(test)


async def _lived(folder: Path, seed: int) -> str:
    """A market whose past is made while the clock goes on with every look, and that then lives through steps of any size."""
    settings = SimulatorSettings(seed=seed, symbols=("BTCUSDT",))
    async with running(folder, Clock(ticks=50), settings=settings, works={}) as one:  # Without work that a thread does.
        await one.ready()
        for seconds in (0.0, 0.3, 0.05, 3.0, 44.4):
            await one.passes(seconds)
        return one.engine.hexdigest()


def test_equal_seeds_and_readings_of_the_clock_make_equal_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the loop's time is sliced: with a turn after each second that is made, and with none."""
    monkeypatch.setattr(simulated, "SLICE_S", 0.0)
    digest = asyncio.run(_lived(tmp_path / "sliced", 7))
    monkeypatch.setattr(simulated, "SLICE_S", 1_000.0)
    assert asyncio.run(_lived(tmp_path / "whole", 7)) == digest
    assert asyncio.run(_lived(tmp_path / "other", 8)) != digest
    assert stepped(journal_of(tmp_path / "sliced"))[0].hexdigest() == digest
    assert_sound(tmp_path / "sliced")


def test_a_past_that_is_made_at_once_ends_at_the_clock(tmp_path: Path) -> None:
    async def made(folder: Path, past_ns: int = 90 * S) -> str:
        clock = Clock()
        market = market_of(clock, past_ns=past_ns, history_minutes=0)
        async with Live(folder, clock=market) as host:
            await market.make(host.runner)
            await host.settle()
            assert sessions(journal_of(folder))[0].ts_ns == clock.at_ns - past_ns, "to the very nanosecond"
            assert clock.at_ns - S < host.engine.now_ns <= clock.at_ns
            assert host.engine.microstructure.health(BTC).state == "LIVE" and host.engine.candles.count(BTC) == 2
            return host.engine.hexdigest()

    async def test() -> None:
        digest = await made(tmp_path / "a")
        assert await made(tmp_path / "b") == digest == stepped(journal_of(tmp_path / "a"))[0].hexdigest()
        assert await made(tmp_path / "c", past_ns=90 * S + 1) != digest
        assert_sound(tmp_path / "a")

    play(test)


def test_it_is_starting_until_the_past_is_made_and_takes_nothing_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "SLICE_S", 0.0)

    async def test() -> None:
        async with running(tmp_path, Clock()) as one:
            await one.when(lambda: one.engine.now_ns > START_NS - PAST_NS // 2)
            health = one.runner.health()
            assert health.status == "starting" and str(health.detail).startswith("simulating the past: ") and "%" in str(health.detail)
            with pytest.raises(NotReady, match="simulating the past"):
                await one.runner.ingest("binance-usdm", "", [b"{}"])
            await one.ready()
            done = await one.runner.ingest("binance-usdm", "", [b"{}"])
            assert done.frames == 1 and done.durable_seq >= done.seq

    play(test)


def test_a_snapshot_of_another_venues_symbol_is_not_the_simulators_to_give(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, Clock()) as one:
            await one.ready()
            snapshots = one.engine.microstructure.kinds(BTC)["snapshot"]
            depth = b'{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,"b":[],"a":[]}'
            await one.runner.ingest("binance-usdm", "", [depth])
            await one.passes(2.0)
            assert one.engine.microstructure.health("binance-usdm:BTCUSDT").state == "SYNCING"
            assert one.engine.microstructure.kinds(BTC)["snapshot"] == snapshots

    play(test)


def test_a_book_that_breaks_is_given_a_snapshot(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, Clock()) as one:
            await one.ready()
            await one.passes(0.0)
            lost = b'{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":9000000000000000,"u":9000000000000001,"pu":8,"b":[],"a":[]}'
            await one.runner.ingest("sim", "", [lost])
            assert one.engine.microstructure.health(BTC).state == "SYNCING"
            await one.passes(2.0)
            health = one.engine.microstructure.health(BTC)
            assert (health.state, health.gaps, health.resyncs) == ("LIVE", 1, 1)

    play(test)


# Session after session


@pytest.mark.parametrize(("away_s", "checkpoint"), [(0.0, False), (3.0, True), (38.0, False), (130.0, True), (1_000.0, False)])
def test_a_restart_goes_on_where_the_first_ended(tmp_path: Path, away_s: float, checkpoint: bool) -> None:
    """Within the same minute, in the next, while the past to be made is longer than the absence, and after that."""
    clock = Clock()

    async def first() -> float:
        async with running(tmp_path, clock, checkpoint=checkpoint) as one:
            await one.ready()
            await one.passes(5.0)
            reading = one.runner.microstructure(BTC)
            assert reading is not None and reading.mid is not None
            return reading.mid

    async def second(mid: float) -> None:
        ended = journal_of(tmp_path)
        clock.at_ns += round(away_s * S)
        async with running(tmp_path, clock) as one:
            await one.ready()
            begun = next(entry.ts_ns for entry, _ in one.host.seen if isinstance(entry, SessionStart))
            assert begun >= ended[-1].ts_ns
            trades = stream([entry for entry, _ in one.host.seen], "trade")
            await one.passes(65.0)
            reading = one.runner.microstructure(BTC)
            assert reading is not None and reading.mid == pytest.approx(mid, rel=0.05)
            if trades:
                assert float(trades[0][1]["p"]) == pytest.approx(mid, rel=0.02)
            assert one.engine.microstructure.health(BTC).state == "LIVE"
            assert one.engine.candles.last_ms(BTC) == clock.at_ns // MINUTE_NS * MINUTE_MS - MINUTE_MS
            assert one.engine.candles.count(BTC) >= HISTORY_MINUTES + 3 + away_s // 60
        assert_sound(tmp_path)
        assert len(sessions(journal_of(tmp_path))) == 2

    asyncio.run(second(asyncio.run(first())))


def test_the_first_session_begins_at_the_price_that_is_known(tmp_path: Path) -> None:
    """A restart at the simulator's own first price would look right where that is near."""
    known_ms = (START_NS - PAST_NS) // MINUTE_NS * MINUTE_MS - 10 * MINUTE_MS

    async def test() -> None:
        clock = Clock()
        async with Live(tmp_path, clock=clock) as host:
            candle = [known_ms, "12345", "12350", "12340", "12345", "1", known_ms + MINUTE_MS - 1, "1", 1, "1", "1", "0"]
            host.runner.submit(lambda seq, ts_ns: Configure(seq, START_NS - 2 * PAST_NS, CORE))
            clock.at_ns = START_NS - 2 * PAST_NS
            host.runner.submit(lambda seq, ts_ns: Frame(seq, ts_ns, "sim", "BTCUSDT", json.dumps([candle]).encode()))
            await host.settle()
        clock.at_ns = START_NS
        async with running(tmp_path, clock) as one:
            await one.ready()
            assert one.engine.candles.history(BTC, 0, 1)["ts_ms"] == [known_ms]
            reading = one.runner.microstructure(BTC)
            assert reading is not None and reading.mid == pytest.approx(12_345.0, rel=0.05)
        assert_sound(tmp_path)

    play(test)


@pytest.mark.parametrize(("inputs", "away_s"), [(1, 5.0), (2, 5.0), (3, 100.0), (4, 5.0), (4, 100.0), (400, 0.0), (400, 5.0), (400, 100.0)])
def test_a_kill_in_the_middle_of_the_past_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: int, away_s: float
) -> None:
    clock = Clock(START_NS + 25 * S)  # So late in its minute that the past to be made begins in the same minute still.

    async def killed() -> None:
        async with Live(tmp_path, clock=clock) as host:
            step = host.engine.step

            def until_killed(entry: AnyInput) -> Any:
                if entry.seq > inputs:
                    raise KilledError
                return step(entry)

            host.engine.step = until_killed  # type: ignore[method-assign]
            with pytest.raises(KilledError):
                await market_of(clock).run(host.runner)
            host.runner._stepped.clear()  # What was not stepped is no input.
            host.engine.step = step  # type: ignore[method-assign]

    monkeypatch.setattr(simulated, "SLICE_S", 0.0)
    asyncio.run(killed())
    clock.at_ns += round(away_s * S)

    async def test() -> None:
        async with running(tmp_path, clock) as one:
            await one.ready()
            await one.passes(65.0)
            assert one.engine.microstructure.health(BTC).state == "LIVE"
            assert one.engine.candles.last_ms(BTC) == clock.at_ns // MINUTE_NS * MINUTE_MS - MINUTE_MS
        assert_sound(tmp_path)

    play(test)


class KilledError(Exception):
    """The process ended here."""


@pytest.mark.parametrize("away_ns", [FLOW_NS, 3 * 3_600 * S])
def test_a_clock_that_went_on_for_hours_begins_a_new_session(tmp_path: Path, away_ns: int) -> None:
    """The machine slept: what is followed again has its past behind it, and the candles in between."""

    async def test() -> None:
        async with running(tmp_path, Clock(), history_minutes=240) as one:
            beating = asyncio.create_task(one.runner.beat())
            await one.ready()
            await one.passes(5.0)
            began_ms = one.engine.candles.history(BTC, 0, 1)["ts_ms"]
            await one.passes(away_ns / S)
            await one.ready()
            beating.cancel()
            begun = sessions([entry for entry, _ in one.host.seen])
            assert len(begun) == 2 and 0 <= one.clock.at_ns - PAST_NS - begun[1].ts_ns < MINUTE_NS
            assert one.engine.microstructure.health(BTC).state == "LIVE"
            assert one.engine.candles.history(BTC, 0, 1)["ts_ms"] == began_ms
        assert_sound(tmp_path)

    play(test)


def test_a_nap_is_caught_up_with_at_the_markets_own_times(tmp_path: Path) -> None:
    """Neither the beat of the engine nor the answers of work may go ahead of frames that are still to be made."""

    async def test() -> None:
        async with running(tmp_path, Clock()) as one:
            beating = asyncio.create_task(one.runner.beat())
            await one.ready()
            await one.passes(600.0)
            beating.cancel()
            assert len(sessions([entry for entry, _ in one.host.seen])) == 1
            changes = [record.after.name for _, records in one.host.seen for record in records if isinstance(record, BookStateChanged)]
            assert changes == ["LIVE"]
        assert_sound(tmp_path)

    play(test)


def test_a_clock_that_was_set_back_stands_still_until_it_is_there_again(tmp_path: Path) -> None:
    clock = Clock()

    async def test() -> None:
        async with running(tmp_path, clock) as one:
            await one.ready()
            await one.passes(5.0)
            seq, before_ns = one.engine.seq, clock.at_ns
            clock.at_ns -= 3_600 * S
            await one.when(lambda looks=clock.looks: clock.looks > looks + 5)  # type: ignore[misc]
            assert one.engine.seq == seq
            clock.at_ns = before_ns
            await one.passes(5.0)
            assert one.engine.seq > seq
        clock.at_ns -= 30 * S
        async with running(tmp_path, clock) as one:
            await one.when(lambda looks=clock.looks: clock.looks > looks + 5)  # type: ignore[misc]
            await one.passes(35.0)
            await one.ready()
        assert_sound(tmp_path)

    play(test)


# Work off the loop


def asked_and_answered(one: Running) -> tuple[dict[int, int], dict[int, int]]:
    """When each fit was asked for, and when it was answered, by request."""
    asked = {
        record.request_id: entry.ts_ns
        for entry, records in one.host.seen
        for record in records
        if isinstance(record, WorkRequested) and record.work == MICROPRICE
    }
    return asked, {entry.request_id: entry.ts_ns for entry, _ in one.host.seen if isinstance(entry, Result)}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit every minute, however seldom the mid moves."""
    monkeypatch.setattr(microstructure, "FIT_MOVES", 1)


@pytest.mark.usefixtures("often")
def test_work_is_answered_after_its_delay_while_the_past_is_made_and_by_a_thread_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, Clock()) as one:
            await one.ready()
            past, answered = asked_and_answered(one)
            assert len(past) >= 2 and answered.keys() == past.keys()
            for request, asked_ns in past.items():  # Asked by a timer at the minute, which fires when the next input comes.
                assert answered[request] == asked_ns // MINUTE_NS * MINUTE_NS + DELAY_NS
            await one.passes(45.0)
            asked, _ = asked_and_answered(one)
            assert asked.keys() > past.keys()
            await one.when(lambda: asked_and_answered(one)[1].keys() == asked.keys())
            assert one.engine.outstanding == {}
        assert_sound(tmp_path)

    play(test)


@pytest.mark.usefixtures("often")
def test_what_is_unanswered_at_the_seam_is_answered_after_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, Clock(), delay_ns=3_600 * S) as one:
            await one.when(lambda: one.engine.now_ns > START_NS - S)
            await one.when(lambda: bool(asked_and_answered(one)[1]) and not one.engine.outstanding)
            asked, answered = asked_and_answered(one)
            assert len(asked) >= 1 and answered.keys() == asked.keys(), "each once"
        assert_sound(tmp_path)

    play(test)


@pytest.mark.usefixtures("often")
def test_what_was_unanswered_when_the_process_ended_is_answered_by_the_next(tmp_path: Path) -> None:
    async def test() -> None:
        clock = Clock()
        async with running(tmp_path, clock, works={}) as one:
            await one.ready()
            unanswered = set(one.engine.outstanding)
            assert unanswered
        async with running(tmp_path, clock) as one:
            await one.when(lambda: not one.engine.outstanding)
            assert unanswered <= asked_and_answered(one)[1].keys()
        assert_sound(tmp_path)

    play(test)


@pytest.mark.usefixtures("often")
def test_work_that_fails_is_an_answer_too(tmp_path: Path) -> None:
    def fail(body: bytes) -> bytes:
        raise ArithmeticError("no fit")

    async def test() -> None:
        async with running(tmp_path, Clock(), works={MICROPRICE: fail}) as one:
            await one.ready()
            await one.passes(45.0)
            await one.when(lambda: not one.engine.outstanding)
            failed = [record.reason for _, records in one.host.seen for record in records if isinstance(record, WorkFailed)]
            assert len(failed) >= 3 and set(failed) == {"ArithmeticError: no fit"}

    play(test)


# Options


@pytest.fixture
def warm() -> None:
    """Kernels compiled before anything is waited for."""
    for one in (book, chain, simulator):
        one.warm()


@pytest.mark.usefixtures("warm")
def test_options_smile_of_the_simulator_is_known_and_has_a_past_at_the_first_answer(tmp_path: Path) -> None:
    async def test() -> None:
        days = OBSERVATIONS_MIN + 1  # A chain a day.
        works = {chain.WORK: chain.work}
        settings = SimulatorSettings(symbols=("BTCUSDT", "ETHUSDT", "BTCUSDC"))
        async with running(tmp_path, Clock(), settings=settings, works=works, history_minutes=days * 1_440, past_ns=7 * MINUTE_NS) as one:
            await one.ready()
            options, prices = one.engine.options, {}
            assert options.bases() == ["BTC", "ETH"], "of each coin one chain"
            for base in options.bases():
                said = one.runner.smile(f"sim:{base}USDT")
                assert said.source == "simulated" and said.age_ms < simulated.CHAIN_EVERY_MS + 1_000
                assert said.skew_z is not None and said.iv_term_slope is not None and said.ref_tenor_days == 30.0
                assert {tenor.quality for tenor in said.tenors} == {"full"}
                usual = simulated_chain.yearly(terms_of(f"{base}USDT", "usdm").minute_bps)
                for tenor in said.tenors:
                    known = Svi(*simulated_chain.smile(settings.seed, base, said.ts_ms, tenor.t, usual).tolist(), 0.0)
                    x = math.log(tenor.k_atm / tenor.forward)
                    assert tenor.atm_iv == pytest.approx(math.sqrt(known.total_variance(np.array([x]))[0] / tenor.t), abs=5e-4)
                prices[base] = said.tenors[0].forward
                assert "skew_z" in one.engine.decision_context(f"sim:{base}USDT")
            assert prices["BTC"] == pytest.approx(one.runner.microstructure(BTC).mid, rel=0.01)  # type: ignore[union-attr]
            seen = one.engine.options.past("BTC", 0, 100)["ts_ms"]
            assert len(seen) >= days and all(later > earlier for earlier, later in pairwise(seen))  # type: ignore[operator]
            await one.passes(301.0)
            await one.when(
                lambda: one.runner.smile(BTC).ts_ms == START_NS // MS // simulated.CHAIN_EVERY_MS * simulated.CHAIN_EVERY_MS + 300_000
            )
        engine, _ = stepped(journal_of(tmp_path))
        assert engine.hexdigest() == one.engine.hexdigest()

    play(test)


@pytest.mark.usefixtures("warm")
def test_options_smile_of_a_restarted_simulator_goes_on_with_its_past(tmp_path: Path) -> None:
    async def test() -> None:
        clock = Clock()
        options = {"history_minutes": (OBSERVATIONS_MIN + 1) * 1_440}
        async with running(tmp_path, clock, **options) as one:
            await one.ready()
            await one.when(lambda: not one.engine.outstanding)
            before = one.engine.options.past("BTC", 0, 100)
        clock.at_ns += 60 * S
        async with running(tmp_path, clock, **options) as one:
            assert one.engine.options.past("BTC", 0, 100) == before
            await one.ready()
            await one.passes(300.0)
            await one.when(lambda: not one.engine.outstanding)
            after = one.engine.options.past("BTC", 0, 100)
            assert after["ts_ms"][: len(before["ts_ms"])] == before["ts_ms"] and len(after["ts_ms"]) > len(before["ts_ms"])
            assert after["skew_z"][-1] is not None

    play(test)
