from pathlib import Path

import msgspec
import pytest

from alphapack import app
from alphapack.domain.events import FrameRejected, IntakeOverloaded, SessionStarted, WorkRequested
from alphapack.domain.inputs import (
    AnyInput,
    Configure,
    Conflated,
    CoreSettings,
    Frame,
    Heartbeat,
    InstrumentSettings,
    Result,
    SessionStart,
    Shed,
)
from alphapack.domain.market import BookState
from alphapack.engine.engine import STATE_VERSION, Asked, Engine
from rig import BTC, MS, START_NS, VENUE, S, market_lines, recorded, spoil, stepped, write_capture

SETTINGS = CoreSettings()


class Diary:
    """A service that writes down when its timer fired and what it was answered."""

    def __init__(self, engine: Engine, *, work: str = "double") -> None:
        self.engine, self.work = engine, work
        self.fired: list[tuple[int, int, str]] = []
        self.answers: list[Result] = []
        engine.register(timer=("diary", self.on_timer), result=(work, self.answers.append))

    def on_timer(self, argument: str) -> None:
        self.fired.append((self.engine.now_ns, self.engine.seq, argument))
        if argument == "again":
            self.engine.after(5, "diary", "once more")


def started(at_ns: int = START_NS) -> Engine:
    engine = app.build()
    engine.step(Configure(1, at_ns, SETTINGS))
    return engine


# Order


@pytest.mark.parametrize("seq", [0, 1, 3, 100])
def test_a_hole_or_a_repetition_in_the_order_stops(seq: int) -> None:
    engine = started()
    state = engine.save()
    with pytest.raises(AssertionError, match=f"expected seq 2, found {seq}"):
        engine.step(Heartbeat(seq, START_NS))
    assert engine.save() == state, "a refused input leaves no trace"


def test_time_that_runs_back_stops() -> None:
    engine = started()
    state = engine.save()
    with pytest.raises(AssertionError, match="time never runs back"):
        engine.step(Heartbeat(2, START_NS - 1))
    assert engine.save() == state
    engine.step(Heartbeat(2, START_NS))
    assert (engine.seq, engine.now_ns) == (2, START_NS), "it may stand still"


# Timers


def test_timers_fire_before_the_input_and_see_the_time_they_were_due() -> None:
    engine = started()
    diary = Diary(engine)
    engine.after(30, "diary", "c")
    engine.after(10, "diary", "again")
    engine.after(30, "diary", "d")
    engine.after(31, "diary", "not yet")
    engine.step(Heartbeat(2, START_NS + 30))
    due = [(10, "again"), (15, "once more"), (30, "c"), (30, "d")]
    assert diary.fired == [(START_NS + at, 2, argument) for at, argument in due]
    assert engine.now_ns == START_NS + 30


def test_a_session_start_precedes_the_timers_of_the_pause_which_then_fire_once() -> None:
    engine = started()
    diary = Diary(engine)
    engine.after(10 * MS, "diary", "late")
    beats: list[int] = []
    engine.register(timer=("microstructure", lambda _: beats.append(engine.now_ns)))
    back = START_NS + 3_600 * S + 7
    assert engine.step(SessionStart(2, back, "again")) == [SessionStarted("again")]
    assert (diary.fired, beats) == ([], []), "a session start precedes all timers"
    engine.step(Heartbeat(3, back + 100 * MS))
    assert diary.fired == [(back, 3, "late")]
    grid = (back // (100 * MS) + 1) * 100 * MS
    assert beats == [back, grid], "what fell due in the pause fires once, and goes on along the grid of the epoch"


def test_the_tick_runs_on_the_epoch_grid_and_is_set_up_once() -> None:
    engine = app.build()
    beats: list[int] = []
    engine.register(timer=("microstructure", lambda _: beats.append(engine.now_ns - START_NS)))
    engine.step(Configure(1, START_NS + 42 * MS, SETTINGS))
    engine.step(Configure(2, START_NS + 42 * MS, CoreSettings(seed=8)))
    engine.step(Heartbeat(3, START_NS + 420 * MS))
    assert beats == [100 * MS, 200 * MS, 300 * MS, 400 * MS]


def test_timers_are_saved() -> None:
    engine = started()
    Diary(engine)
    engine.after(10, "diary", "again")
    resumed = app.build()
    diary = Diary(resumed)
    resumed.load(engine.save())
    resumed.step(Heartbeat(2, START_NS + 20))
    assert diary.fired == [(START_NS + 10, 2, "again"), (START_NS + 15, 2, "once more")]


# Inputs


def test_a_frame_of_an_unknown_venue_or_without_sense_is_an_event_not_an_error() -> None:
    engine = started()
    records = engine.step(Frame(2, START_NS, "okx", "BTC", b"{}"))
    assert isinstance(records[0], FrameRejected) and records[0].venue == "okx"
    assert "expected a venue of ['binance-coinm', 'binance-spot', 'binance-usdm', 'sim'], found 'okx'" in records[0].reason
    records = engine.step(Frame(3, START_NS, VENUE, "BTCUSDT", b"\xff\x00"))
    assert isinstance(records[0], FrameRejected) and (records[0].venue, records[0].symbol) == (VENUE, "BTCUSDT")
    assert engine.rejection == records[0].reason and engine.decoded == ()
    engine.step(Heartbeat(4, START_NS))
    assert engine.rejection is None


def test_garbage_cannot_flood_the_records_of_its_venue_and_is_counted() -> None:
    engine = started()
    told = []
    for i in range(250):
        told += engine.step(Frame(engine.seq + 1, START_NS + i * 10 * MS, VENUE, "", b"%d" % i))
        assert engine.rejection is not None
    rejections = [record for record in told if isinstance(record, FrameRejected)]
    assert [(record.frames, record.venue) for record in rejections] == [(1, VENUE), (100, VENUE), (100, VENUE)]
    assert len(told) == 3


def test_an_unusable_message_of_a_known_symbol_counts_once(tmp_path: Path) -> None:
    engine, _ = stepped(recorded(write_capture(tmp_path, market_lines(20))))
    for wire_symbol in ("", "BTCUSDT"):
        before = engine.microstructure.health(BTC).rejected
        bad = b'{"e":"trade","E":1,"T":1,"s":"BTCUSDT","t":900%d,"p":"1.0","q":"0","m":true}' % len(wire_symbol)
        engine.step(Frame(engine.seq + 1, engine.now_ns, VENUE, wire_symbol, bad))
        assert engine.rejection is not None and "more than nothing" in engine.rejection
        assert engine.microstructure.health(BTC).rejected == before + 1, f"symbol {wire_symbol!r} beside the frame"


def test_losses_of_the_intake_are_told() -> None:
    engine = started()
    assert engine.step(Shed(2, START_NS, "x:Y", 7)) == [IntakeOverloaded("x:Y", 7, "shed")]
    assert engine.step(Conflated(3, START_NS, "x:Y", 3)) == [IntakeOverloaded("x:Y", 3, "conflated")]


def test_work_that_someone_waits_for_is_outstanding_until_its_result_comes() -> None:
    engine = started()
    diary = Diary(engine)
    assert [engine.request(work, b"x") for work in ("double", "snapshot", "double")] == [1, 2, 3]
    wanted = {1: Asked(START_NS, "double", b"x"), 3: Asked(START_NS, "double", b"x")}
    assert engine.outstanding == wanted, "nobody waits for a snapshot: it comes as a frame"
    engine.step(Result(2, START_NS + 7, 99, "double", True, b""))  # Never asked for.
    assert engine.outstanding == wanted
    resumed = app.build()
    Diary(resumed)
    resumed.load(engine.save())
    assert resumed.outstanding == wanted
    for one in (engine, resumed):
        one.step(Result(3, START_NS + 8, 3, "double", False, b"reason"))
        assert list(one.outstanding) == [1]
        one.step(Result(4, START_NS + 9, 1, "double", True, b""))
        assert one.outstanding == {}
    assert resumed.hexdigest() == engine.hexdigest() and resumed.save() == engine.save()
    assert [one.request_id for one in diary.answers] == [99, 3, 1]


def test_a_request_is_a_record_and_its_result_reaches_the_handler_of_that_work() -> None:
    engine = started()
    diary = Diary(engine)

    def ask(body: str) -> None:
        engine.request("double", body.encode())

    engine.register(timer=("ask", ask))
    engine.after(10, "ask", "21")
    engine.after(20, "ask", "22")
    assert engine.step(Heartbeat(2, START_NS + 20)) == [WorkRequested(1, "double", b"21"), WorkRequested(2, "double", b"22")]
    answer = Result(3, START_NS + 20, 2, "double", True, b"44")
    engine.step(answer)
    engine.step(Result(4, START_NS + 20, 1, "another", True, b""))
    assert diary.answers == [answer], "an answer that nobody waits for is let pass"
    resumed = app.build()
    resumed.load(engine.save())
    assert resumed.request("double", b"") == 3, "the numbers of requests go on"


def test_every_input_and_every_record_counts_in_the_digest() -> None:
    variants: list[AnyInput] = [
        Heartbeat(2, START_NS),
        Heartbeat(2, START_NS + 1),
        Frame(2, START_NS, VENUE, "A", b"x"),
        Frame(2, START_NS, VENUE, "", b"Ax"),
        Frame(2, START_NS, VENUE, "A", b"y"),
        SessionStart(2, START_NS, "a"),
        SessionStart(2, START_NS, "b"),
        Configure(2, START_NS, CoreSettings(seed=8)),
        Shed(2, START_NS, "a:A", 1),
        Conflated(2, START_NS, "a:A", 1),
        Result(2, START_NS, 1, "w", True, b""),
        Result(2, START_NS, 1, "w", False, b""),
    ]
    digests = set()
    for entry in variants:
        engine = started()
        engine.step(entry)
        digests.add(engine.hexdigest())
    assert len(digests) == len(variants)
    engine = started()
    before = engine.hexdigest()
    engine.observe(b"\0")
    assert engine.hexdigest() != before
    before = engine.hexdigest()
    engine.emit(SessionStarted("x"))
    assert engine.hexdigest() != before


def test_only_what_comes_from_the_source_counts_as_played() -> None:
    engine = started()
    for make in (
        lambda seq: SessionStart(seq, START_NS, "x"),
        lambda seq: Frame(seq, START_NS, VENUE, "", b"{}"),
        lambda seq: Heartbeat(seq, START_NS),
        lambda seq: Shed(seq, START_NS, "a:A", 1),
        lambda seq: Conflated(seq, START_NS, "a:A", 1),
        lambda seq: Result(seq, START_NS, 1, "w", True, b""),
        lambda seq: Configure(seq, START_NS, SETTINGS),
    ):
        engine.step(make(engine.seq + 1))
    assert (engine.seq, engine.source_inputs) == (8, 3)


def test_a_step_returns_its_own_records_alone() -> None:
    engine = started()
    first = engine.step(SessionStart(2, START_NS, "x"))
    second = engine.step(Heartbeat(3, START_NS))
    assert first == [SessionStarted("x")] and second == []


def test_a_shed_symbol_goes_back_to_syncing_and_no_other(tmp_path: Path) -> None:
    lines = market_lines(200, names=("BTCUSDT", "ETHUSDT"))
    engine, _ = stepped(recorded(write_capture(tmp_path, lines)))
    other = BTC.replace("BTC", "ETH")
    market = engine.microstructure
    assert [market.health(name).state for name in (BTC, other)] == ["LIVE", "LIVE"]
    before = market.microstructure(other), market.book(other, 50)
    records = engine.step(Shed(engine.seq + 1, engine.now_ns, BTC, 12))
    assert [market.health(name).state for name in (BTC, other)] == ["SYNCING", "LIVE"]
    assert market.microstructure(BTC) is None and market.book(BTC, 5) is None
    assert msgspec.structs.replace(before[0], seq=engine.seq) == market.microstructure(other)  # type: ignore[type-var]
    assert before[1].bids == market.book(other, 50).bids  # type: ignore[union-attr]
    assert [record for record in records if isinstance(record, WorkRequested)][-1].body == BTC.encode(), "a snapshot is asked for"


# State


def test_a_fresh_engine_saves_and_loads() -> None:
    engine, resumed = app.build(), app.build()
    resumed.load(engine.save())
    assert resumed.save() == engine.save() and not resumed.configured
    for each in (engine, resumed):
        each.step(Configure(1, START_NS, SETTINGS))
    assert resumed.hexdigest() == engine.hexdigest() and resumed.save() == engine.save()


def test_saving_changes_nothing_and_loading_twice_is_loading_once() -> None:
    engine = started()
    assert engine.save() == engine.save()
    resumed = started()
    resumed.load(engine.save())
    resumed.load(engine.save())
    assert resumed.save() == engine.save()


@pytest.mark.parametrize("fields", [1, 5, 16])
def test_a_state_of_another_version_is_refused_whatever_else_is_in_it(fields: int) -> None:
    state = msgspec.msgpack.decode(started().save())
    for version in (STATE_VERSION - 1, STATE_VERSION + 1):
        with pytest.raises(ValueError, match=f"expected a state of version {STATE_VERSION}, found {version}"):
            app.build().load(msgspec.msgpack.encode([version, *([*state, 1, 2, 3][1:fields])]))


CHANGES = {
    "shorter history": CoreSettings(history_rows=20),
    "longer history": CoreSettings(history_rows=200),
    "stated instrument": CoreSettings(
        history_rows=50, instruments=(InstrumentSettings(BTC, tick="0.01", min_notional=5.0, contract_value=100.0),)
    ),
    "other symbols": CoreSettings(history_rows=50, symbols=("binance-usdm:ETHUSDT",)),
    "other seed and patience": CoreSettings(history_rows=50, seed=99, stale_after_ms=500, sync_buffer_frames=3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_saved_after_a_change_of_settings_is_the_whole_state(tmp_path: Path, change: str) -> None:
    """Whatever the settings do to books that exist already, a loaded engine must be in the state of the one that was saved."""
    lines = spoil(market_lines(400, step_ns=250 * MS), every=80)
    entries = recorded(write_capture(tmp_path, lines), CoreSettings(history_rows=50))
    engine, _ = stepped(entries[:300])
    engine.step(Configure(engine.seq + 1, engine.now_ns, CHANGES[change]))
    resumed = app.build()
    resumed.load(engine.save())
    assert resumed.save() == engine.save()
    assert resumed.microstructure.history(BTC, 0, 3_600) == engine.microstructure.history(BTC, 0, 3_600)
    assert resumed.microstructure.symbols() == engine.microstructure.symbols()
    assert resumed.microstructure.info(BTC) == engine.microstructure.info(BTC)
    for entry in entries[300:]:
        moved = msgspec.structs.replace(entry, seq=entry.seq + 1)
        assert resumed.step(moved) == engine.step(moved)
    assert resumed.hexdigest() == engine.hexdigest()
    assert resumed.microstructure.history(BTC, 0, 3_600) == engine.microstructure.history(BTC, 0, 3_600)
    assert resumed.save() == engine.save()


def test_books_are_stale_after_a_session_start_until_a_difference_links(tmp_path: Path) -> None:
    entries = recorded(write_capture(tmp_path, market_lines(200)))
    engine, _ = stepped(entries[:150])
    engine.step(SessionStart(engine.seq + 1, engine.now_ns, "again"))
    assert engine.microstructure.health(BTC).state == BookState.STALE.name
    for entry in entries[150:]:
        engine.step(msgspec.structs.replace(entry, seq=engine.seq + 1))
    assert engine.microstructure.health(BTC).state == BookState.LIVE.name
