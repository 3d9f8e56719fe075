"""The judges of ``bench/faults.py`` and ``bench/soak.py``: they pass what is right, and find what is planted."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "bench"))  # Commands, and what they share with their neighbours, are no package.

import faults as bench
import live
import soak

from alphapack import app
from alphapack.domain.events import AnyRecord, BookStateChanged, TradesMissed, WorkRequested
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Frame, Heartbeat, SessionStart
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, BookState, name_of
from alphapack.domain.simulation import SimulatorSettings
from alphapack.models.simulator import Simulator
from alphapack.shell.faults import FaultRecord, FaultRequest, Injector, TapeFrame
from alphapack.shell.mock import MockSettings

VENUE = "binance-usdm"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
SETTINGS = SimulatorSettings(symbols=SYMBOLS)
START_NS = 1_790_000_000 * NANOS_PER_S
SLICE_NS = 50 * NANOS_PER_MS
FAULTS = [
    FaultRequest("drop", symbol="BTCUSDT", channel="depth", frames=2),
    FaultRequest("duplicate", symbol="ETHUSDT"),
    FaultRequest("reorder", symbol="ETHUSDT"),
    FaultRequest("garbage", symbol="BTCUSDT", channel="depth"),
    FaultRequest("drop", symbol="ETHUSDT", channel="trade", frames=3),
    FaultRequest("delay", symbol="BTCUSDT", ms=400),
    FaultRequest("stall", symbol="ETHUSDT", ms=2_600, lost=True),
    FaultRequest("garbage", symbol="BTCUSDT", channel="trade"),
]


def followed(seconds: int) -> tuple[list[AnyInput], list[FaultRecord]]:
    """Inputs of a market with the faults above, as an engine that asks for snapshots received them; and the truth."""
    simulator = Simulator(SETTINGS, START_NS)
    injector = Injector(7, spacing=20, listeners=lambda stream: 1)
    engine, inputs = app.build(), list[AnyInput]()
    wanted: dict[str, None] = {}

    def step(entry: AnyInput) -> None:
        inputs.append(entry)
        for record in engine.step(entry):
            if isinstance(record, WorkRequested) and record.work == "snapshot":
                wanted[name_of(record.body.decode())] = None

    step(Configure(1, START_NS, CoreSettings(stale_after_ms=bench.STALE_MS)))
    step(SessionStart(2, START_NS, "test"))
    for i in range(seconds * NANOS_PER_S // SLICE_NS):
        if i == 40:
            for fault in FAULTS:
                injector.ask(fault)
        now_ns = START_NS + (i + 1) * SLICE_NS
        for released in injector.run(simulator.advance(now_ns), now_ns):
            assert isinstance(released, tuple), "no fault of a connection is asked for"
            step(Frame(engine.seq + 1, now_ns, VENUE, "", released[1]))
        for name in wanted:
            step(Frame(engine.seq + 1, now_ns, VENUE, name, simulator.snapshot(name)))
        wanted.clear()
        step(Heartbeat(engine.seq + 1, now_ns))
    assert injector.waiting == 0 and all(record.done for record in injector.truth)
    return inputs, list(injector.truth)


@pytest.fixture(scope="module")
def frames() -> list[TapeFrame]:
    return Simulator(SETTINGS, START_NS).advance(START_NS + 30 * NANOS_PER_S)


@pytest.fixture(scope="module")
def tape(frames: list[TapeFrame]) -> bench.Tape:
    return bench.Tape(frames)


def test_an_engine_that_checks_passes_with_every_fault_told_and_every_book_right(tape: bench.Tape) -> None:
    inputs, truth = followed(25)
    found = bench.judged(inputs, VENUE, tape, truth)
    assert found.judge.violations == found.judge.alarms == []
    tally = found.judge.tally
    assert {kind: one.injected for kind, one in tally.items() if one.injected} == {
        **{"drop": 2, "duplicate": 1, "reorder": 1, "garbage": 2, "delay": 1, "stall": 1}
    }
    told = {kind: one.flagged for kind, one in tally.items() if one.flagged}
    assert told.pop("trades by the way") > 0  # The stall took them.
    assert told == {
        **{"drop": 1, "reorder": 1, "garbage": 1, "stall": 1},
        **{"drop of trades": 1, "garbage frame of depth": 1, "garbage frame of trade": 1},
    }
    assert sum(one.missed + one.disturbed for one in tally.values()) == 0
    assert len(found.judge.resyncs) == found.resync_points == 4
    assert [silence for silence in found.judge.stale_ms if silence >= bench.STALE_MS] == found.judge.stale_ms != []
    assert bench.differing(found.points, tape, Simulator(SETTINGS, START_NS)) == []


def test_a_book_that_is_not_the_venues_is_found(tape: bench.Tape) -> None:
    inputs, truth = followed(25)
    points = bench.judged(inputs, VENUE, tape, truth).points
    symbol, update = next(iter(points))
    wrong = {**points, (symbol, update): bench.fingerprint([(1.0, 1.0)], [])}
    assert bench.differing(wrong, tape, Simulator(SETTINGS, START_NS)) == [f"{symbol} at update {update}"]


def test_books_differ_by_side_and_by_any_level() -> None:
    bids, asks = [(9.0, 1.0), (8.0, 2.0)], [(10.0, 1.0)]
    others = [(bids[:1], asks), (bids, []), (asks, bids), ([(9.0, 1.0), (8.0, 2.5)], asks), ([*bids, *asks], [])]
    assert len({bench.fingerprint(*one) for one in [(bids, asks), *others]}) == 1 + len(others)


class Told:
    """A judge that is told by hand what an engine did, frame by frame of one symbol."""

    def __init__(self, tape: bench.Tape, frames: list[TapeFrame], *truth: FaultRecord) -> None:
        self.judge = bench.Judge(tape, truth)
        self.diffs = [(ts_ns, payload) for ts_ns, payload in frames if bench.named(payload) == ("BTCUSDT", "depth")]
        self.trades = [(ts_ns, payload) for ts_ns, payload in frames if bench.named(payload) == ("BTCUSDT", "trade")]
        self.at = 0

    def see(self, frame: TapeFrame, *records: AnyRecord, rejection: str | None = None, later_ns: int = 0) -> str:
        if found := bench._DEPTH.search(frame[1]):
            self.at = int(found[2])
        return self.judge.see(Frame(1, frame[0] + later_ns, VENUE, "", frame[1]), records, rejection, lambda symbol: self.at)


def changed(before: BookState, after: BookState) -> BookStateChanged:
    return BookStateChanged(f"{VENUE}:BTCUSDT", before, after, "as told")


LIVE = changed(BookState.SYNCING, BookState.LIVE)
CORRUPT = changed(BookState.LIVE, BookState.CORRUPT)
SYNCING = changed(BookState.CORRUPT, BookState.SYNCING)


def lost(frame: TapeFrame, **fields: object) -> FaultRecord:
    ids = bench._DEPTH.search(frame[1])
    assert ids is not None
    given = {"kind": "drop", "expect": "gap", "detectable": True, "listeners": 1, **fields}
    return FaultRecord(1, frame[0], symbol="BTCUSDT", stream="btcusdt@depth@100ms", detail="", first=int(ids[1]), last=int(ids[2]), **given)


def test_a_hole_that_an_engine_passes_over_is_found_with_and_without_the_truth_about_it(tape: bench.Tape, frames: list[TapeFrame]) -> None:
    diffs = Told(tape, frames).diffs
    for truth in ([lost(diffs[1])], []):
        told = Told(tape, frames, *truth)
        assert told.see(diffs[0], LIVE) == "BTCUSDT"
        assert told.judge.violations == []
        told.see(diffs[2])
        assert len(told.judge.violations) == 2
        assert (tally := told.judge.of("drop" if truth else "none logged")).missed == tally.shown == 1


def test_a_hole_that_is_told_in_the_step_that_shows_it_is_right(tape: bench.Tape, frames: list[TapeFrame]) -> None:
    told = Told(tape, frames, lost(Told(tape, frames).diffs[1]))
    told.see(told.diffs[0], LIVE)
    assert told.see(told.diffs[2], CORRUPT, SYNCING) == ""
    assert told.judge.violations == told.judge.alarms == []
    assert told.judge.of("drop").flagged == 1
    assert told.see(told.diffs[3], LIVE) == "BTCUSDT"
    assert told.judge.resyncs == [bench.Resync(told.diffs[2][0], told.diffs[3][0], "BTCUSDT", by_all=False, paced=False)]


def test_a_hole_that_is_told_a_frame_late_is_found(tape: bench.Tape, frames: list[TapeFrame]) -> None:
    told = Told(tape, frames, lost(Told(tape, frames).diffs[1]))
    told.see(told.diffs[0], LIVE)
    told.see(told.diffs[2])
    told.see(told.diffs[3], CORRUPT, SYNCING)
    assert told.judge.of("drop").missed == 1
    assert told.judge.violations


def test_a_book_given_up_without_a_hole_is_an_alarm(tape: bench.Tape, frames: list[TapeFrame]) -> None:
    told = Told(tape, frames, lost(Told(tape, frames).diffs[0], kind="duplicate", expect="none"))
    told.see(told.diffs[0], LIVE)
    told.see(told.diffs[1], CORRUPT, SYNCING)
    assert told.judge.alarms == ["BTCUSDT CORRUPT: as told"]
    assert told.judge.of("duplicate").disturbed == 1
    assert told.judge.violations == []


def test_a_book_given_up_by_a_frame_of_another_symbol_is_an_alarm(tape: bench.Tape, frames: list[TapeFrame]) -> None:
    told = Told(tape, frames)
    told.see(told.diffs[0], LIVE)
    told.see(next(frame for frame in frames if bench.named(frame[1])[0] == "ETHUSDT"), CORRUPT, SYNCING)
    assert told.judge.alarms == ["BTCUSDT CORRUPT: as told"]


@pytest.mark.parametrize(("silence_ms", "alarms"), [(bench.STALE_MS, 0), (bench.STALE_MS - 1, 1)])
def test_a_book_that_is_stale_too_early_is_an_alarm(tape: bench.Tape, frames: list[TapeFrame], silence_ms: int, alarms: int) -> None:
    told = Told(tape, frames)
    told.see(told.diffs[0], LIVE)
    at_ns = told.diffs[0][0] + silence_ms * NANOS_PER_MS
    told.judge.see(Heartbeat(2, at_ns), [changed(BookState.LIVE, BookState.STALE)], None, lambda symbol: told.at)
    assert len(told.judge.alarms) == alarms
    assert told.judge.stale_ms == [silence_ms]


def test_trades_must_be_told_exactly_as_they_were_lost(tape: bench.Tape, frames: list[TapeFrame]) -> None:
    first = int((bench._TRADE.search(Told(tape, frames).trades[0][1]) or [b"", b""])[1])
    for record, missed in (
        (TradesMissed(f"{VENUE}:BTCUSDT", first + 1, first + 2), 0),
        (TradesMissed("", first + 1, first + 1), 1),
        (None, 1),
    ):
        told = Told(tape, frames)
        told.see(told.trades[0])
        told.see(told.trades[3], *([record] if record else []))
        assert told.judge.of("trades by the way").missed == missed
        assert bool(told.judge.violations) is bool(missed)
    told = Told(tape, frames)
    told.see(told.trades[0])
    told.see(told.trades[1], TradesMissed(f"{VENUE}:BTCUSDT", first, first))
    assert len(told.judge.alarms) == 1


def test_garbage_must_be_refused_and_nothing_else(tape: bench.Tape, frames: list[TapeFrame]) -> None:
    told = Told(tape, frames)
    ts_ns, payload = told.diffs[0]
    told.see((ts_ns, payload[:-5]), rejection="not JSON")
    assert told.judge.of("garbage frame of depth").flagged == 1
    told.see((ts_ns, payload[:-5]))
    assert told.judge.of("garbage frame of depth").missed == 1
    told.see((ts_ns, payload), rejection="I do not like it")
    assert len(told.judge.alarms) == 1


def test_a_stale_snapshot_that_makes_a_book_live_is_found(tape: bench.Tape, frames: list[TapeFrame]) -> None:
    for record, missed in ((None, 0), (LIVE, 1)):
        told = Told(tape, frames)
        told.see(told.diffs[0], LIVE)
        old = Frame(2, told.diffs[2][0], VENUE, "BTCUSDT", b'{"lastUpdateId":%d,"bids":[],"asks":[]}' % told.at)
        told.see(told.diffs[2], CORRUPT, SYNCING)
        told.judge.see(old, [record] if record else [], None, lambda symbol, told=told: told.at)
        assert told.judge.of("snapshot from before the hole").missed == missed


def test_a_thinned_tape_keeps_every_difference_one_ticker_in_so_many_and_the_trades_of_one_symbol(frames: list[TapeFrame]) -> None:
    settings = bench.VenueSettings(SETTINGS, MockSettings(), START_NS, keep_tickers_every=5, stamped="ethusdt")
    tape = bench.Thinned(Simulator(SETTINGS, START_NS), settings)
    kept = tape.advance(START_NS + 30 * NANOS_PER_S)
    of = {channel: [frame for frame in frames if bench.named(frame[1])[1] == channel] for channel in ("depth", "trade", "bookTicker")}
    assert [frame for frame in kept if frame in of["depth"]] == of["depth"]
    trades = [frame for frame in of["trade"] if bench.named(frame[1])[0] == "ETHUSDT"]
    assert [frame for frame in kept if b"@trade" in frame[1][:40]] == trades != of["trade"]
    tickers = [frame for frame in kept if b"@bookTicker" in frame[1][:40]]
    assert len(tickers) == len(kept) - len(of["depth"]) - len(trades) <= len(of["bookTicker"]) / 5
    assert [u for u, _ in tape.stamps] == [
        int(found[2]) for _, one in of["depth"] if b"ethusdt" in one and (found := bench._DEPTH.search(one))
    ]


# The soak


def look(i: int, **fields: object) -> soak.Sample:
    sample = soak.Sample(float(i), 100.0, 20, 5, 1.0, 0, 3, 3, 2_000 * i, 0)
    return replace(sample, **fields)  # type: ignore[arg-type]


def test_the_slope_is_that_of_the_line() -> None:
    assert soak.slope_mb_per_hour([look(i, rss_mb=100 + i / 1_800 + (-1) ** i) for i in range(600)]) == pytest.approx(2.0, abs=0.1)


def test_the_longest_outage_is_the_longest_run_of_looks() -> None:
    down = {3, 10, 11, 12, 20, 21}
    assert soak.longest_outage_s([look(i, not_live=int(i in down)) for i in range(30)]) == 3.0
    assert soak.longest_outage_s([look(i) for i in range(30)]) == 0.0


def test_a_soak_is_judged_after_its_warm_up() -> None:
    def met(samples: list[soak.Sample], digest: str = "a") -> list[bool | None]:
        return [row.met for row in soak.rows_of(samples, 100.0, {"drop": 3}, 0.1, "a", digest, 10)]

    growing = [look(i, rss_mb=100.0 + max(0, 100 - i), fds=99 if i < 100 else 20 + i % 3) for i in range(300)]
    assert met(growing) == [True] * 5
    assert met(growing, "b")[4] is False
    assert met([look(i, rss_mb=100 + i / 1_000) for i in range(300)])[0] is False
    assert met([look(i, fds=20 + i // 30) for i in range(300)])[1] is False
    assert met([look(i, lag_ms=50.0 if i % 20 == 0 else 1.0) for i in range(300)])[2] is False


# The load


def test_freshness_is_read_from_the_frames_of_its_phase_alone(tmp_path: Path) -> None:
    at_ns = [10, 20, 30, 40]
    (tmp_path / "at_ns").write_bytes(live.array.array("q", at_ns).tobytes())
    (tmp_path / "waited_us").write_bytes(live.array.array("I", [9_000, 1_000, 3_000, 9_000]).tobytes())
    (tmp_path / "stamps").write_text("1 0\n2 5\n3 6\n")
    (tmp_path / "probed").write_text("1 10\n2 20\n4 30\n")
    found = live.freshness(tmp_path, 15, 35)
    assert found == live.Freshness(2, 1.0, 3.0, 15 / NANOS_PER_MS, 15 / NANOS_PER_MS)
