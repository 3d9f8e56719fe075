import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alphapack import app
from alphapack.domain.events import WorkRequested
from alphapack.domain.inputs import AnyInput, Configure, Conflated, CoreSettings, Frame, Halt, Heartbeat, SessionStart, Shed
from alphapack.domain.market import BookState
from alphapack.engine.ports import REJECTED_LINES_MAX, Ingested, NotAccepting, NotDurable, NotReady, RejectedLine
from alphapack.shell import journal as journal_module
from alphapack.shell import runner as runner_module
from alphapack.shell import turns as turns_module
from alphapack.shell.clock import SystemClock, carried_on
from alphapack.shell.intake import Intake
from alphapack.shell.journal import read_journal
from alphapack.shell.runner import Runner
from rig import BTC, MS, START_NS, VENUE, FakeClock, FakeMarket, Live, S, market_lines, recorded, spoil, stepped, until, write_capture


def run(main: Callable[[], object]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


@pytest.fixture
def entries(tmp_path: Path) -> list[AnyInput]:
    return recorded(write_capture(tmp_path, spoil(market_lines(500, names=("BTCUSDT", "ETHUSDT")), every=80)))


# Inputs


def test_inputs_are_stamped_by_the_clock_and_never_go_back(tmp_path: Path) -> None:
    async def live() -> None:
        clock = FakeClock()
        async with Live(tmp_path, clock=clock) as host:
            assert host.runner.submit(lambda seq, ts_ns: Configure(seq, ts_ns, CoreSettings())) == 1
            for jump in (5, 0, -1_000, 990, 6):
                clock.at_ns += jump
                host.runner.submit(Heartbeat)
        assert [entry.ts_ns - START_NS for entry, _ in host.seen] == [0, 5, 5, 5, 5, 5 + 1 - 1]

    run(live)


def test_the_system_clock_starts_at_the_wall_and_follows_a_steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SimpleNamespace(time_ns=lambda: START_NS, clock_gettime_ns=lambda which: 70)
    monkeypatch.setattr("alphapack.shell.clock.time", world)
    clock = SystemClock()
    world.time_ns = lambda: START_NS - 3_600 * S
    world.clock_gettime_ns = lambda which: 95
    assert clock.now_ns() == START_NS + 25, "a step of the wall clock does not matter"


def test_a_clock_that_was_set_back_between_two_sessions_goes_on_from_where_the_engine_was() -> None:
    behind = FakeClock(START_NS - 7_200 * S)
    carried = carried_on(behind, START_NS)
    assert carried.now_ns() == START_NS
    behind.at_ns += 5 * S
    assert carried.now_ns() == START_NS + 5 * S
    assert carried_on(behind, START_NS - 8_000 * S) is behind


def test_candles_alone_make_a_symbol_known(tmp_path: Path) -> None:
    row = f'[[{START_NS // MS // 60_000 * 60_000 - 60_000},"1","2","1","2","5",{START_NS // MS // 60_000 * 60_000 - 1},"1",1,"1","1","0"]]'

    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock()) as host:
            host.runner.begin(CoreSettings(), "test", START_NS)
            host.runner.step(Frame(host.engine.seq + 1, START_NS, VENUE, "BTCUSDT", row.encode()))
            assert host.runner.resolve("btcusdt") == BTC
            assert host.runner.microstructure(BTC) is None and host.runner.book(BTC, 5) is None
            assert host.runner.history("microstructure", BTC, 0, 5) == {"ts_ms": []}
            columns = host.runner.history("candles", BTC, 0, 5)
            assert columns is not None and columns["close"] == [2.0]

    run(live)


def test_the_clock_of_a_recording_is_where_its_engine_stands(tmp_path: Path, entries: list[AnyInput]) -> None:
    async def live() -> None:
        async with Live(tmp_path) as host:
            await host.play(entries)
            host.runner.submit(Heartbeat)
            assert host.seen[-1][0] == Heartbeat(len(entries) + 1, entries[-1].ts_ns)

    run(live)


def test_frames_of_the_intake_are_taken_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        clock = FakeClock()
        async with Live(tmp_path, clock=clock) as host:
            runner = host.runner
            runner.submit(lambda seq, ts_ns: Configure(seq, ts_ns, CoreSettings()))
            ticks = iter(range(10_000))
            monkeypatch.setattr(runner_module, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * 0.0004, monotonic_ns=lambda: 0))
            market = FakeMarket()
            for _ in range(7):
                runner.intake.offer(VENUE, "", market.diff(START_NS))
            counts = []
            while runner.drain():
                counts.append(runner.messages)
            assert counts == [2, 4, 6], "a slice ends after a millisecond, here after two frames"
            assert runner.messages == 7 and runner.intake.frames == 0

    run(live)


# A source that pushes


async def drained(host: Live) -> None:
    """Let the loop step all that was received."""
    await until(lambda: not host.runner.intake.frames and not host.runner._draining)


def configured(host: Live) -> Runner:
    host.runner.begin(CoreSettings(), "test", START_NS)
    host.runner.hand_over()
    host.runner.ready()
    return host.runner


def test_a_frame_received_is_takensoon_and_stamped_with_the_time_at_which_it_came(tmp_path: Path) -> None:
    async def live() -> None:
        clock, market = FakeClock(), FakeMarket()
        async with Live(tmp_path, clock=clock) as host:
            runner = configured(host)
            payloads = [market.diff(START_NS) for _ in range(4)]
            for payload, jump in zip(payloads, (0, 70, -50, 5), strict=True):
                clock.at_ns += jump
                runner.receive(VENUE, "", payload)
            assert host.engine.seq == 2, "not within the source's own turn"
            clock.at_ns += 1_000_000
            await drained(host)
            frames = [entry for entry, _ in host.seen if isinstance(entry, Frame)]
            assert [entry.payload for entry in frames] == payloads
            assert [entry.ts_ns - START_NS for entry in frames] == [0, 70, 70, 70], "when it came, and never back"
            runner.receive(VENUE, "btcusdt", market.snapshot())
            await drained(host)
            await host.settle()
            assert host.seen[-1][0] == Frame(7, clock.at_ns, VENUE, "btcusdt", market.snapshot())
            assert runner.sequence() == (7, 7)

    run(live)


def test_much_that_is_received_is_taken_in_slices_with_other_work_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLICE_S", "SLICE_MAX_S"):
        monkeypatch.setattr(turns_module, name, 1e-9)

    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock()) as host:
            runner, market = configured(host), FakeMarket()
            for _ in range(50):
                runner.receive(VENUE, "", market.diff(START_NS))
            turns = 0
            while runner.messages < 50 and turns < 10_000:
                await asyncio.sleep(0)
                turns += 1
            assert turns >= 10, "the loop had its turns"

    monkeypatch.setattr(runner_module, "time", SimpleNamespace(perf_counter=Ticks(), monotonic_ns=lambda: 0))
    run(live)


class Ticks:
    """A time that goes on by .4 us with every look."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 4e-7
        return self.now_s


def test_what_the_intake_gave_up_is_an_input_before_the_next_frame(tmp_path: Path) -> None:
    async def live() -> None:
        clock = FakeClock()
        async with Live(tmp_path, clock=clock) as host:
            runner, market = configured(host), FakeMarket()
            runner.intake = Intake(host.engine.codecs, frames_max=4, conflate_from=2)
            for payload in (market.diff(START_NS), market.ticker(START_NS), market.ticker(START_NS), market.ticker(START_NS)):
                runner.receive(VENUE, "", payload)
            await drained(host)
            assert [type(entry) for entry, _ in host.seen[2:]] == [Conflated, Frame, Frame]
            assert host.seen[2][0] == Conflated(3, START_NS, BTC, 2)
            for _ in range(6):
                runner.receive(VENUE, "", market.diff(START_NS))
            await drained(host)
            assert Shed(6, START_NS, BTC, 5) in [entry for entry, _ in host.seen]
            await host.settle()
        assert stepped(list(read_journal(tmp_path / "journal")))[0].hexdigest() == host.engine.hexdigest()

    run(live)


def test_a_session_begins_with_the_settings_where_they_are_new(tmp_path: Path) -> None:
    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock()) as host:
            other = CoreSettings(seed=9)
            for settings, ts_ns in ((CoreSettings(), 5), (CoreSettings(), 9), (other, 7), (other, 12)):
                host.runner.begin(settings, "test", ts_ns)
            assert [entry for entry, _ in host.seen] == [
                Configure(1, 5, CoreSettings()),
                SessionStart(2, 5, "test"),
                SessionStart(3, 9, "test"),
                Configure(4, 9, other),
                SessionStart(5, 9, "test"),
                SessionStart(6, 12, "test"),
            ]

    run(live)


def test_what_a_source_stamps_itself_goes_to_the_disk_with_the_slice(tmp_path: Path) -> None:
    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock(at_ns=1)) as host:
            runner, market = host.runner, FakeMarket()
            runner.begin(CoreSettings(), "test", START_NS)
            records = runner.step(Frame(3, START_NS + 7, VENUE, "", market.diff(START_NS)))
            assert [type(record) for record in records] == [WorkRequested]
            assert host.committer is not None and host.committer.backlog == 0 and runner.sequence() == (3, 0)
            runner.hand_over()
            await host.settle()
            assert runner.sequence() == (3, 3)
        assert [entry.ts_ns for entry in read_journal(tmp_path / "journal")] == [START_NS, START_NS, START_NS + 7]

    run(live)


def test_the_engines_clock_goes_on_where_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        clock, market = FakeClock(START_NS + 30 * MS), FakeMarket()
        async with Live(tmp_path, clock=clock) as host:
            runner = host.runner
            beats: list[float] = []

            async def sleep(delay_s: float) -> None:
                beats.append(delay_s)
                clock.at_ns += round(delay_s * S)
                if len(beats) in (5, 6):  # Frames keep the clock going themselves.
                    runner.submit(lambda seq, ts_ns: Frame(seq, ts_ns, VENUE, "", market.diff(START_NS)))
                if len(beats) == 8:  # What came first is stepped first.
                    runner.intake.offer(VENUE, "", market.diff(START_NS), clock.at_ns - 1)
                if len(beats) == 10:
                    runner.drain()
                if len(beats) == 13:
                    raise asyncio.CancelledError
                await asyncio.sleep(0)

            monkeypatch.setattr(
                runner_module,
                "asyncio",
                SimpleNamespace(sleep=sleep, CancelledError=asyncio.CancelledError, ensure_future=asyncio.ensure_future, wait=asyncio.wait),
            )
            runner.begin(CoreSettings(), "test", START_NS)
            with pytest.raises(asyncio.CancelledError):
                beating = asyncio.create_task(runner.beat())
                while len(beats) < 2:
                    await asyncio.sleep(0)
                assert len(host.seen) == 2, "while the source starts, its own times are the engine's"
                runner.ready()
                await beating
            assert beats[0] == pytest.approx(0.07) and beats[1:] == [0.1] * 12, "at whole tenths"
            shown = [(type(entry), (entry.ts_ns - START_NS) // MS) for entry, _ in host.seen[2:]]
            waited = 100 * 8 - 1
            assert shown == [
                *((Heartbeat, ms) for ms in (200, 300, 400)),
                *((Frame, ms) for ms in (500, 600)),
                (Heartbeat, 700),
                (Frame, waited),
                *((Heartbeat, ms) for ms in (1_000, 1_100, 1_200)),
            ]

    run(live)


def test_each_input_that_was_takenis_told_to_the_tap(tmp_path: Path, entries: list[AnyInput]) -> None:
    async def live() -> None:
        async with Live(tmp_path) as host:
            told: list[AnyInput] = []
            host.runner.tap = told.append
            await host.play(entries)
            assert told == entries

    run(live)


def test_a_book_that_goes_stale_is_told_with_its_symbol(tmp_path: Path) -> None:
    async def live() -> None:
        clock, market = FakeClock(), FakeMarket()
        async with Live(tmp_path, clock=clock) as host:
            runner, stale = configured(host), list[str]()
            runner.went_stale = stale.append
            for payload in (market.diff(START_NS), market.snapshot(), market.diff(START_NS)):
                runner.submit(lambda seq, ts_ns, payload=payload: Frame(seq, ts_ns, VENUE, "", payload))  # type: ignore[misc]
            clock.at_ns += 10 * S
            runner.submit(Heartbeat)
            runner.submit(Heartbeat)
            assert stale == [BTC]
            runner.submit(lambda seq, ts_ns: Frame(seq, ts_ns, VENUE, "", market.diff(START_NS)))
            runner.submit(lambda seq, ts_ns: SessionStart(seq, ts_ns, "again"))
            assert stale == [BTC, BTC]

    run(live)


def test_news_are_told_once_they_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        clock, market = FakeClock(), FakeMarket()
        async with Live(tmp_path, clock=clock) as host:
            runner = configured(host)
            await host.settle()
            await until(lambda: not runner.news.pending)
            cursor, first = runner.news.page(0, 99).cursor, runner.news.page(0, 99).rows
            assert [row.kind for row in first] == ["session_started"]
            with monkeypatch.context() as patch:
                patch.setattr(journal_module, "sync_file", _refuse)
                for payload in (market.diff(START_NS), market.snapshot(), market.diff(START_NS)):
                    runner.receive(VENUE, "", payload)
                await drained(host)
                await until(lambda: runner.health().status == "degraded")
                assert runner.news.pending and runner.news.page(cursor, 99).rows == []
            beyond = asyncio.create_task(runner.news.beyond(cursor))
            await asyncio.wait_for(beyond, 20)
            await until(lambda: not runner.news.pending)
            assert "book_state" in [row.kind for row in runner.news.page(cursor, 99).rows]
            assert first + runner.news.page(cursor, 99).rows == list(host.ledger.rows())

    run(live)


# Frames from outside


def test_lines_are_taken_as_frames_and_durable_when_that_returns(tmp_path: Path) -> None:
    async def live() -> None:
        clock, market = FakeClock(), FakeMarket()
        async with Live(tmp_path, clock=clock) as host:
            runner = configured(host)
            clock.at_ns += 5
            lines = [
                market.diff(START_NS),
                b"",
                b"garbage",
                market.snapshot().replace(b'"symbol":"BTCUSDT",', b""),
                b"",
                market.diff(START_NS),
            ]
            done = await runner.ingest(VENUE, "BTCUSDT", lines)
            reason = "expected a binance-usdm message, found b'garbage': JSON is malformed: invalid character (byte 0)"
            assert done == Ingested(VENUE, 4, 3, [RejectedLine(3, reason)], 1, 6, 6)
            assert runner.sequence() == (6, 6)
            taken = [entry for entry, _ in host.seen[2:]]
            assert taken == [Frame(3 + i, clock.at_ns, VENUE, "BTCUSDT", line) for i, line in enumerate(line for line in lines if line)]
            assert host.engine.microstructure.health(BTC).state == "LIVE"
            assert runner.venues() == tuple(sorted(app.venues())) and VENUE in runner.venues()
        assert list(read_journal(tmp_path / "journal"))[2:] == taken

    run(live)


def test_of_many_rejected_lines_the_first_are_named_and_all_are_counted(tmp_path: Path) -> None:
    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock()) as host:
            done = await configured(host).ingest(VENUE, "", (b"%d" % i for i in range(REJECTED_LINES_MAX + 50)))
            assert (done.frames, done.accepted, done.rejected_count) == (REJECTED_LINES_MAX + 50, 0, REJECTED_LINES_MAX + 50)
            assert [one.line for one in done.rejected] == list(range(1, REJECTED_LINES_MAX + 1))
            assert done.rejected[7].reason.startswith("expected a binance-usdm message, found b'7'")

    run(live)


def test_of_no_lines_nothing_is_stepped(tmp_path: Path) -> None:
    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock()) as host:
            done = await configured(host).ingest(VENUE, "", [b"", b""])
            assert (done.frames, done.accepted, done.rejected, done.seq, done.durable_seq) == (0, 0, [], 2, 2)

    run(live)


def test_many_lines_are_drawn_in_slices_between_which_others_have_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "SLICE_S", 0.0)

    async def live() -> None:
        clock, market = FakeClock(), FakeMarket()
        async with Live(tmp_path, clock=clock) as host:
            runner, turns, drawn_at = configured(host), 0, []

            def lines() -> Iterator[bytes]:
                for _ in range(40):
                    drawn_at.append(turns)
                    yield market.diff(START_NS)

            ingesting = asyncio.create_task(runner.ingest(VENUE, "", lines()))
            while not ingesting.done():
                turns += 1
                clock.at_ns += 1
                await asyncio.sleep(0)
            assert (await ingesting).accepted == 40
            assert len(set(drawn_at)) > 20, "they are drawn as they are needed"
            stamps = [entry.ts_ns for entry, _ in host.seen[2:]]
            assert stamps == sorted(stamps) and stamps[-1] > stamps[0]

    run(live)


def test_those_who_post_at_once_are_taken_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "SLICE_S", 0.0)

    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock()) as host:
            runner = configured(host)
            posted = [[b"%d" % (100 * i + j) for j in range(5)] for i in range(3)]
            done = await asyncio.gather(*(runner.ingest(VENUE, "", lines) for lines in posted))
            assert [one.frames for one in done] == [5, 5, 5]
            taken = [entry.payload for entry, _ in host.seen[2:] if type(entry) is Frame]
            assert taken == [line for lines in posted for line in lines]

    run(live)


def test_what_was_received_is_stepped_at_the_end_and_nothing_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "SLICE_S", 2e-5)

    async def live() -> None:
        market = FakeMarket()
        async with Live(tmp_path, clock=FakeClock()) as host:
            runner = configured(host)
            posting = asyncio.create_task(runner.ingest(VENUE, "", (b"%d" % i for i in range(1_000))))
            while host.engine.seq < 20:
                await asyncio.sleep(0)
            for _ in range(50):
                runner.receive(VENUE, "", market.diff(START_NS))
            assert await runner.end() is None
            ended = host.engine.seq
            frames = [entry.payload for entry, _ in host.seen if type(entry) is Frame]
            assert sum(b"depthUpdate" in payload for payload in frames) == 50
            with pytest.raises(NotReady, match=f"found one that stops; {len(frames) - 50} frames of this request were taken"):
                await posting
            runner.receive(VENUE, "", market.diff(START_NS))
            runner.answered(WorkRequested(1, "none", b""), True, b"")
            await asyncio.sleep(0.01)
            with pytest.raises(NotReady, match="found one that stops"):
                await runner.ingest(VENUE, "", [b"{}"])
            assert host.engine.seq == ended
            assert await asyncio.to_thread(host.committer.close, 20.0)
            runner.recovered()
            await asyncio.sleep(0.01)
        assert [entry.seq for entry in read_journal(tmp_path / "journal")] == list(range(1, ended + 1))

    run(live)


def test_nothing_is_taken_before_the_engine_is_ready(tmp_path: Path) -> None:
    async def live() -> None:
        bare = Runner(app.build(), source="test", clock=FakeClock(), config=dict)
        bare.ready()
        with pytest.raises(NotReady, match="expected a ready engine"):
            await bare.ingest(VENUE, "", [b"{}"])
        async with Live(tmp_path, clock=FakeClock()) as host:
            host.runner.starting("compiling kernels")
            with pytest.raises(NotReady, match="found one that is compiling kernels"):
                await host.runner.ingest(VENUE, "", [b"{}"])
            assert host.seen == []

    run(live)


def test_a_recording_takes_nothing_from_outside(tmp_path: Path, entries: list[AnyInput]) -> None:
    async def live() -> None:
        async with Live(tmp_path, accepts=False) as host:
            await host.play(entries)
            with pytest.raises(NotAccepting, match="found a recording"):
                await host.runner.ingest(VENUE, "", [b"{}"])
            assert len(host.seen) == len(entries)

    run(live)


def test_what_cannot_be_made_safe_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock()) as host:
            runner, market = configured(host), FakeMarket()
            await host.settle()
            with monkeypatch.context() as patch:
                patch.setattr(journal_module, "sync_file", _refuse)
                with pytest.raises(NotDurable, match=r"were stepped and are not safe on disk: .*No space left"):
                    await asyncio.wait_for(runner.ingest(VENUE, "", [market.diff(START_NS)]), 20)
                assert host.engine.seq == 3
                with pytest.raises(NotDurable, match=r"found it refusing: .*No space left.*; nothing was taken"):
                    await runner.ingest(VENUE, "", [market.diff(START_NS)])
                assert host.engine.seq == 3
            await until(lambda: runner.health().ledger.ok)
            assert (await runner.ingest(VENUE, "", [market.diff(START_NS)])).durable_seq >= 4

    run(live)


# Playing


def test_playing_lets_other_tasks_run(tmp_path: Path, entries: list[AnyInput], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "SLICE_S", 0.0)

    async def live() -> None:
        async with Live(tmp_path) as host:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while not host.runner.ended:
                    turns += 1
                    await asyncio.sleep(0)

            beside = asyncio.create_task(other())
            await host.play(entries)
            await beside
            assert turns > len(entries) / 2

    run(live)


def test_going_on_where_a_recording_was_left_lets_other_tasks_run(
    tmp_path: Path, entries: list[AnyInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was played already must be read again to be passed over; that may take long, and is no reason to be deaf."""
    monkeypatch.setattr(runner_module, "SLICE_S", 0.0)

    async def live() -> None:
        async with Live(tmp_path) as host:
            await host.play(entries[:-1])
        async with Live(tmp_path) as host:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while not host.runner.ended:
                    turns += 1
                    await asyncio.sleep(0)

            beside = asyncio.create_task(other())
            await asyncio.sleep(0)
            await host.play(entries)
            await beside
            assert turns > 10

    run(live)


class World:
    """A time in which sleeping takes exactly as long as it should."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        self.slept: list[float] = []
        monkeypatch.setattr(
            runner_module, "time", SimpleNamespace(perf_counter=lambda: self.now_s, monotonic_ns=lambda: int(self.now_s * S))
        )
        monkeypatch.setattr(
            runner_module,
            "asyncio",
            SimpleNamespace(sleep=self.sleep, get_running_loop=asyncio.get_running_loop, Lock=asyncio.Lock),
        )

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.now_s += delay_s
        await asyncio.sleep(0)


@pytest.mark.parametrize("speed", [1.0, 10.0, 0.5])
def test_a_recording_is_played_at_its_own_pace_times_the_speed(
    tmp_path: Path, entries: list[AnyInput], monkeypatch: pytest.MonkeyPatch, speed: float
) -> None:
    async def live() -> None:
        world = World(monkeypatch)
        began_s = world.now_s
        async with Live(tmp_path) as host:

            def paced() -> Iterator[AnyInput]:
                for entry in entries:
                    yield entry
                    due_s = began_s + (entry.ts_ns - entries[0].ts_ns) / S / speed
                    assert world.now_s == pytest.approx(due_s, abs=1e-6), f"seq {entry.seq}"

            await host.play(paced(), speed)  # type: ignore[arg-type]
        span_s = (entries[-1].ts_ns - entries[0].ts_ns) / S
        assert sum(world.slept) == pytest.approx(span_s / speed)

    run(live)


def test_a_loop_that_was_late_catches_up(tmp_path: Path, entries: list[AnyInput], monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        world = World(monkeypatch)
        async with Live(tmp_path) as host:

            def stalled() -> Iterator[AnyInput]:
                for entry in entries:
                    if entry.seq == 100:
                        world.now_s += 1.0
                    yield entry

            began_s = world.now_s
            await host.play(stalled(), 1.0)  # type: ignore[arg-type]
            assert world.now_s - began_s == pytest.approx((entries[-1].ts_ns - entries[0].ts_ns) / S)

    run(live)


def test_as_fast_as_it_goes_waits_for_nothing(tmp_path: Path, entries: list[AnyInput], monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        world = World(monkeypatch)
        async with Live(tmp_path) as host:
            await host.play(entries)
        assert sum(world.slept) == 0.0

    run(live)


def test_a_recording_is_held_back_while_much_waits_for_the_disk(
    tmp_path: Path, entries: list[AnyInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "SLICE_S", 0.0)
    monkeypatch.setattr(runner_module, "BACKLOG_MAX", 20)
    backlogs: list[int] = []

    async def live() -> None:
        async with Live(tmp_path) as host:

            def watched() -> Iterator[AnyInput]:
                for entry in entries:
                    assert host.committer is not None
                    backlogs.append(host.committer.backlog)
                    yield entry

            await host.play(watched())  # type: ignore[arg-type]

    run(live)
    assert max(backlogs) <= 22


def test_the_market_goes_on_while_nothing_can_be_journaled(
    tmp_path: Path, entries: list[AnyInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "SLICE_S", 0.0)
    monkeypatch.setattr(runner_module, "BACKLOG_MAX", 20)
    monkeypatch.setattr(journal_module, "sync_file", _refuse)

    async def live() -> None:
        async with Live(tmp_path) as host:
            await asyncio.wait_for(host.runner.play(entries, float("inf"), lambda reason: None), 2.0)
            market = [entry for entry, _ in host.seen if type(entry) is not Halt]
            assert [(type(entry), entry.ts_ns) for entry in market] == [(type(entry), entry.ts_ns) for entry in entries]
            assert host.runner.health().status == "degraded" and host.engine.halted

    run(live)


def test_a_rejected_line_of_a_recording_is_told_with_its_reason(tmp_path: Path, entries: list[AnyInput]) -> None:
    async def live() -> None:
        async with Live(tmp_path) as host:
            told = await host.play(entries)
            expected = []
            engine = app.build()
            for entry in entries:
                engine.step(entry)
                if engine.rejection is not None:
                    expected.append(engine.rejection)
            assert told == expected != []

    run(live)


# Resuming


def replayed(folder: Path) -> str:
    return stepped(list(read_journal(folder / "journal")))[0].hexdigest()


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize("stops", [[1], [2], [250], [3, 4, 200, 201, 499]])
def test_a_recording_that_was_left_and_taken_up_again_ends_as_if_it_had_not_been(
    tmp_path: Path, entries: list[AnyInput], stops: list[int], checkpoint: bool
) -> None:
    async def live(stop: int | None) -> Live:
        host = Live(tmp_path / "state", checkpoint_inputs=77)
        await host.play(islice(entries, stop))  # type: ignore[arg-type]
        host.close(checkpoint=checkpoint)
        return host

    for stop in stops:
        asyncio.run(live(stop))
    host = asyncio.run(live(None))
    whole, _ = stepped(entries)
    assert host.runner.ended
    assert host.engine.hexdigest() == whole.hexdigest() == replayed(tmp_path / "state")
    assert host.engine.source_inputs == whole.source_inputs
    again = asyncio.run(live(None))
    assert (again.engine.hexdigest(), again.seen, again.runner.ended) == (whole.hexdigest(), [], True), "an ended one stays ended"


def test_settings_changed_between_starts_are_an_input(tmp_path: Path, entries: list[AnyInput]) -> None:
    assert isinstance(entries[0], Configure)
    changed = CoreSettings(stale_after_ms=150, seed=99)
    other = [Configure(1, entries[0].ts_ns, changed), *entries[1:]]

    async def live(recording: list[AnyInput], stop: int | None) -> Live:
        async with Live(tmp_path / "state") as host:
            await host.play(islice(recording, stop))  # type: ignore[arg-type]
        return host

    asyncio.run(live(entries, 200))
    host = asyncio.run(live(other, 300))
    assert host.seen[0][0] == Configure(201, entries[199].ts_ns, changed)
    assert host.engine.settings == changed
    rest = asyncio.run(live(other, None))
    journal = list(read_journal(tmp_path / "state" / "journal"))
    assert [entry.seq for entry in journal if isinstance(entry, Configure)] == [1, 201], "and only where they changed"
    assert [entry for entry in journal if isinstance(entry, Frame)] == [
        entry if entry.seq <= 200 else Frame(entry.seq + 1, entry.ts_ns, entry.venue, entry.symbol, entry.payload)
        for entry in entries
        if isinstance(entry, Frame)
    ], "nothing is played twice or passed over"
    assert rest.engine.hexdigest() == replayed(tmp_path / "state") != stepped(entries)[0].hexdigest()


def test_user_inputs_between_do_not_count_as_played(tmp_path: Path, entries: list[AnyInput]) -> None:
    async def live(stop: int | None, beats: int) -> Live:
        async with Live(tmp_path / "state") as host:
            await host.play(islice(entries, stop))  # type: ignore[arg-type]
            for _ in range(beats):
                host.runner.submit(lambda seq, ts_ns: Configure(seq, ts_ns, CoreSettings()))
            await host.settle()
        return host

    asyncio.run(live(200, 3))
    host = asyncio.run(live(None, 0))
    assert host.engine.seq == len(entries) + 3
    frames = [entry.payload for entry in read_journal(tmp_path / "state" / "journal") if isinstance(entry, Frame)]
    assert frames == [entry.payload for entry in entries if isinstance(entry, Frame)]


# Durability


def _refuse(fd: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_refuses_degrades_and_a_checkpoint_leads_back(
    tmp_path: Path, entries: list[AnyInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def live() -> str:
        async with Live(tmp_path / "state") as host:
            runner = host.runner
            await host.play(entries[:100])
            with monkeypatch.context() as patch:
                patch.setattr(journal_module, "sync_file", _refuse)
                for entry in entries[100:200]:
                    host.submit(entry)
                await until(lambda: runner.health().status == "degraded")
                health = runner.health()
                assert "not journaled" in str(health.detail) and "No space left on device" in str(health.ledger.detail)
                assert not health.ledger.ok
                assert 200 <= runner.sequence()[0] <= 201 and 100 <= runner.sequence()[1] < 200
                assert runner.counters()["ledger_ok"] == 0.0 and runner.counters()["journal_backlog"] > 0
                for entry in entries[200:300]:
                    host.submit(entry)
                assert runner.sequence()[0] == 301, "the market goes on, after an input that halts trading"
            await until(lambda: runner.health().ledger.ok)
            assert runner.sequence() == (301, 301) and host.checkpoints.seqs()[-1] == 301
            for entry in entries[300:]:
                host.submit(entry)
            await host.settle()
            assert host.reasons != [] and len(host.reasons) == 1
            seen = [entry for entry, _ in host.seen]
            halts = [entry for entry in seen if type(entry) is Halt]
            assert [entry.on for entry in halts] == [True, False] and 101 < halts[0].seq <= 202 and halts[1].seq == 303
            assert len(seen) == len(entries) + 2
            assert stepped(seen)[0].hexdigest() == host.engine.hexdigest()
            return host.engine.hexdigest()

    digest = asyncio.run(live())

    async def again() -> str:
        async with Live(tmp_path / "state") as host:
            return host.engine.hexdigest()

    assert asyncio.run(again()) == digest


def test_waiting_for_durability_ends_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock()) as host:
            runner = host.runner
            seq = runner.submit(lambda seq, ts_ns: Configure(seq, ts_ns, CoreSettings()))
            waiting = [asyncio.create_task(runner.wait_durable(seq)) for _ in range(3)]
            await asyncio.wait_for(asyncio.gather(*waiting), 20)
            assert runner.sequence() == (1, 1)
            late = asyncio.create_task(runner.wait_durable(2))
            await asyncio.sleep(0.01)
            assert not late.done(), "what was not submitted is not durable"
            runner.submit(Heartbeat)
            await asyncio.wait_for(late, 20)

    run(live)


def test_checkpoints_come_by_inputs_and_by_time(tmp_path: Path, entries: list[AnyInput], monkeypatch: pytest.MonkeyPatch) -> None:
    async def by_inputs() -> list[int]:
        async with Live(tmp_path / "inputs", checkpoint_inputs=200) as host:
            await host.play(entries)
        return host.checkpoints.seqs()

    async def by_time() -> list[int]:
        world = SimpleNamespace(now_ns=0)
        monkeypatch.setattr(runner_module, "time", SimpleNamespace(perf_counter=lambda: 0.0, monotonic_ns=lambda: world.now_ns))
        async with Live(tmp_path / "time", checkpoint_s=1.0) as host:
            for entry in entries[:30]:
                world.now_ns += S // 10
                host.submit(entry)
        return host.checkpoints.seqs()

    assert asyncio.run(by_inputs()) == [*range(200, len(entries), 200), len(entries)], "and one where the recording ends"
    assert asyncio.run(by_time()) == [10, 20, 30]


# Answers


@pytest.fixture
def venues(tmp_path: Path) -> list[AnyInput]:
    """BTCUSDT at two venues, ETHUSDT at one."""
    entries: list[AnyInput] = [Configure(1, START_NS, CoreSettings()), SessionStart(2, START_NS, "test")]
    for venue, name in (("binance-usdm", "BTCUSDT"), ("binance-spot", "BTCUSDT"), ("binance-usdm", "ETHUSDT")):
        trade = FakeMarket(name).trade(START_NS)
        entries.append(Frame(len(entries) + 1, START_NS, venue, "", trade))
    return entries


RESOLVED = {
    "BTCUSDT": "binance-spot:BTCUSDT",
    "btcUsdt": "binance-spot:BTCUSDT",
    "ETHUSDT": "binance-usdm:ETHUSDT",
    "ethusdt": "binance-usdm:ETHUSDT",
    "binance-usdm:BTCUSDT": "binance-usdm:BTCUSDT",
    "BINANCE-usdm:btcusdt": "binance-usdm:BTCUSDT",
    "binance-spot:ETHUSDT": None,
    "binance-coinm:BTCUSDT": None,
    "SOLUSDT": None,
    "": None,
    ":": None,
    ":BTCUSDT": None,
    "binance-usdm:": None,
    "binance-usdm:BTCUSDT:": None,
    "BTC": None,
    " BTCUSDT": None,
}


def test_a_symbol_that_comes_in_is_found_from_then_on(tmp_path: Path, venues: list[AnyInput]) -> None:
    async def live() -> None:
        async with Live(tmp_path / "state") as host:
            assert host.runner.resolve("BTCUSDT") is None
            await host.play(venues)
            assert host.runner.resolve("BTCUSDT") == "binance-spot:BTCUSDT"

    run(live)


@pytest.mark.parametrize("default", ["binance-spot", "binance-usdm", "", "kraken"])
def test_symbols_resolve_by_name_or_venue_and_name_in_any_case(tmp_path: Path, venues: list[AnyInput], default: str) -> None:
    async def live() -> None:
        async with Live(tmp_path / "state", default_venue=default) as host:
            await host.play(venues)
            expected = {text: name for text, name in RESOLVED.items()}
            if default == "binance-usdm":
                expected |= {"BTCUSDT": BTC, "btcUsdt": BTC}
            assert {text: host.runner.resolve(text) for text in RESOLVED} == expected
            assert set(host.runner.health().symbols) == {BTC, "binance-spot:BTCUSDT", "ETHUSDT"}, "a bare name where one venue has it"
            assert [(info.venue, info.symbol) for info in host.runner.symbols()] == [
                ("binance-spot", "BTCUSDT"),
                ("binance-usdm", "BTCUSDT"),
                ("binance-usdm", "ETHUSDT"),
            ]

    run(live)


@settings(max_examples=100)
@given(st.text(max_size=20))
@example("\u0130")
@example("binance-usdm:\ufb01")
def test_no_text_breaks_resolving(text: str) -> None:
    async def ask() -> None:
        assert Runner(app.build(), source="test", config=dict).resolve(text) is None

    run(ask)


def test_the_log_has_once_what_a_start_waits_for(tmp_path: Path) -> None:
    async def live() -> None:
        bare = Runner(app.build(), source="test", config=dict)
        with structlog.testing.capture_logs() as lines:
            bare.starting("compiling kernels")
            for share in (0.0, 0.5):
                bare.starting("simulating the past", share)
            assert bare.health().detail == "simulating the past: 50%"
            bare.ready()
            bare.ready()
        said = [(line["event"], line.get("what")) for line in lines]
        assert said == [("starting", "compiling kernels"), ("starting", "simulating the past"), ("ready", None)]

    run(live)


def test_health_goes_from_starting_to_ready_to_ended(tmp_path: Path, entries: list[AnyInput]) -> None:
    async def live() -> None:
        bare = Runner(app.build(), source="test", config=dict)
        assert (bare.health().status, bare.health().ledger.ok) == ("starting", False)
        bare.starting("compiling kernels")
        assert bare.health().detail == "compiling kernels"
        async with Live(tmp_path) as host:
            statuses: list[str] = []

            def watched() -> Iterator[AnyInput]:
                for entry in entries:
                    yield entry
                    health = host.runner.health()
                    statuses.append(health.status)
                    proven = any(one.state != BookState.SYNCING.name for one in health.symbols.values())
                    assert (health.status == "ready") == proven

            await host.play(watched())  # type: ignore[arg-type]
            assert statuses[0] == "starting" and "ready" in statuses
            health = host.runner.health()
            assert (health.status, health.digest, health.ledger.seq) == ("ended", host.engine.hexdigest(), len(entries))
            assert health.ledger.rows == host.ledger.count > 0 and health.ledger.backlog == 0
            assert health.ts_ms == entries[-1].ts_ns // MS
            counters = host.runner.counters()
            assert counters["inputs_total"] == len(entries) and counters["messages_total"] == sum(isinstance(e, Frame) for e in entries)
            assert counters["gaps_total"] == sum(one.gaps for one in health.symbols.values()) > 0
            assert counters["books_live"] + counters["books_syncing"] + counters["books_stale"] == 2

    run(live)


def test_only_the_history_that_is_kept_is_answered(tmp_path: Path, entries: list[AnyInput]) -> None:
    async def live() -> None:
        async with Live(tmp_path) as host:
            await host.play(entries)
            assert host.runner.history("tea", BTC, 0, 10) is None
            columns = host.runner.history("microstructure", BTC, 0, 10)
            assert columns is not None and len(columns["ts_ms"]) > 0

    run(live)


def test_the_lag_of_the_loop_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        world = World(monkeypatch)
        runner = Runner(app.build(), source="test", config=dict)
        measuring = asyncio.create_task(runner.measure_lag())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert runner.health().loop_lag_ms == pytest.approx(0.0, abs=1e-6)
        world.now_s += 0.25  # The loop was busy while the measurement slept.
        for _ in range(4):
            await asyncio.sleep(0)
        assert runner.health().loop_lag_ms == pytest.approx(250.0, abs=1e-6)
        measuring.cancel()

    run(live)


def test_a_pushed_frame_that_cannot_be_stepped_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        async with Live(tmp_path, clock=FakeClock()) as host:
            runner = host.runner

            def broken(entry: AnyInput) -> list[object]:
                raise RuntimeError("a fault of ours")

            monkeypatch.setattr(runner.engine, "step", broken)
            follower = asyncio.create_task(asyncio.sleep(60))
            runner.receive(VENUE, "", b"{}")
            await until(runner.fault.done)
            failed = await runner.end(follower)
            assert isinstance(failed, RuntimeError) and follower.cancelled()

    run(live)
