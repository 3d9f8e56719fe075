import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from alphapack import app
from alphapack.config import Settings
from alphapack.domain.events import WorkFailed, WorkRequested
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Frame, Heartbeat, Result, SessionStart
from alphapack.engine.engine import Engine
from alphapack.models import microprice
from alphapack.shell.journal import read_journal
from alphapack.shell.offloop import REASON_BYTES_MAX, Delayed, Work, Worker, done, steps
from rig import BTC, MS, PATIENCE_S, START_NS, VENUE, FakeClock, Live, S, market_lines, recorded, stepped, until, write_capture

DELAY_NS = 50 * MS
ASKED_NS = START_NS + 10 * MS


def doubled(body: bytes) -> bytes:
    return b"%d" % (2 * int(body))


def fail(body: bytes) -> bytes:
    raise ValueError(f"expected a number, found {body!r}")


def not_again(body: bytes) -> bytes:
    raise AssertionError("a replay does no work")


def curious(bodies: Sequence[bytes] = (b"1", b"2", b"3"), work: str = "double") -> Engine:
    """An engine that asks once for each body, 10 ms after the other, and takes the answers into its digest."""
    engine = app.build()

    def ask(place: str) -> None:
        engine.request(work, bodies[int(place)])

    def take(result: Result) -> None:
        engine.observe(b"%d %d %d %b" % (engine.now_ns, result.request_id, result.ok, result.body))

    engine.register(timer=("ask", ask), result=(work, take))
    for place in range(len(bodies)):
        engine.after(ASKED_NS + place * 10 * MS, "ask", str(place))
    return engine


def beats(count: int, step_ns: int = 10 * MS) -> list[AnyInput]:
    entries: list[AnyInput] = [Configure(1, START_NS, CoreSettings()), SessionStart(2, START_NS, "test")]
    return entries + [Heartbeat(2 + i, START_NS + i * step_ns) for i in range(1, count + 1)]


def answers(entries: Sequence[AnyInput]) -> list[Result]:
    return [entry for entry in entries if isinstance(entry, Result)]


# On the spot


def test_work_is_an_answer_and_so_is_its_failure() -> None:
    assert done(doubled, b"21") == (True, b"42")
    assert done(fail, b"x") == (False, b"ValueError: expected a number, found b'x'")
    ok, reason = done(fail, bytes(10_000))
    assert not ok and len(reason) == REASON_BYTES_MAX


@pytest.mark.parametrize("pause", [lambda: None, lambda: threading.Event().wait(0.002)])
def test_in_a_recording_an_answer_comes_a_fixed_delay_after_the_request_however_long_the_work_takes(pause: Callable[[], object]) -> None:
    def slowly(body: bytes) -> bytes:
        pause()
        return doubled(body)

    engine = curious()
    played = list(steps(engine, beats(20), {"double": slowly}, DELAY_NS))
    entries = [entry for entry, _ in played]
    asked = {record.request_id: entry.ts_ns for entry, records in played for record in records if isinstance(record, WorkRequested)}
    assert asked == {i: START_NS + i * 10 * MS for i in (1, 2, 3)}
    assert [(one.request_id, one.ts_ns, one.ok, one.body) for one in answers(entries)] == [
        (i, asked[i] + DELAY_NS, True, b"%d" % (2 * i)) for i in (1, 2, 3)
    ]
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.ts_ns for entry in entries] == sorted(entry.ts_ns for entry in entries)
    at = entries.index(answers(entries)[0])
    assert entries[at + 1].ts_ns == answers(entries)[0].ts_ns, "an answer comes before the input of its instant"


def test_failing_work_in_a_recording_is_told_and_the_engine_goes_on() -> None:
    entries = [entry for entry, _ in steps(curious(), beats(20), {"double": fail}, DELAY_NS)]
    assert [one.ok for one in answers(entries)] == [False] * 3
    assert answers(entries)[0].body == b"ValueError: expected a number, found b'1'"
    assert isinstance(entries[-1], Heartbeat)


def test_an_answer_may_lead_to_the_next_request() -> None:
    engine = curious((b"1",))
    engine.register(result=("double", lambda result: None if result.request_id > 3 else _ask(engine, result.body)))
    entries = [entry for entry, _ in steps(engine, beats(30), {"double": doubled}, DELAY_NS)]
    assert [(one.ts_ns - START_NS, one.body) for one in answers(entries)] == [
        (t * MS, b) for t, b in ((60, b"2"), (110, b"4"), (160, b"8"), (210, b"16"))
    ]


def _ask(engine: Engine, body: bytes) -> None:
    engine.request("double", body)


def test_what_nobody_has_means_for_stays_unanswered() -> None:
    played = list(steps(curious(work="snapshot"), beats(20), {"double": not_again}, DELAY_NS))
    assert answers([entry for entry, _ in played]) == []
    assert sum(isinstance(record, WorkRequested) for _, records in played for record in records) == 3


def test_a_recording_with_its_answers_replays_without_any_work() -> None:
    engine = curious()
    entries = [entry for entry, _ in steps(engine, beats(20), {"double": doubled}, DELAY_NS)]
    replayed, _ = stepped(entries, curious())
    assert replayed.hexdigest() == engine.hexdigest()
    again = curious()
    assert [entry for entry, _ in steps(again, entries, {}, DELAY_NS)] == entries
    assert again.hexdigest() == engine.hexdigest()


# Taken up again


def resumed(engine: Engine) -> Engine:
    """The engine of a process that began after this one was killed."""
    other = curious()
    other.load(engine.save())
    return other


@pytest.mark.parametrize("cut", range(25))
def test_a_restart_anywhere_between_request_and_answer_changes_nothing(cut: int) -> None:
    whole = curious()
    entries = [entry for entry, _ in steps(whole, beats(22), {"double": doubled}, DELAY_NS)]
    assert len(answers(entries)) == 3
    engine = curious()
    before = [entry for entry, _ in steps(engine, beats(22)[:cut], {"double": doubled}, DELAY_NS)]
    engine = resumed(engine)
    after = [entry for entry, _ in steps(engine, beats(22)[cut:], {"double": doubled}, DELAY_NS)]
    assert before + after == entries
    assert engine.hexdigest() == whole.hexdigest() and engine.save() == whole.save()


def test_what_a_recording_left_unanswered_is_answered_when_it_goes_on_however_late() -> None:
    engine = curious()
    for entry in beats(4):
        engine.step(entry)
    assert sorted(engine.outstanding) == [1, 2, 3]
    delayed = Delayed(resumed(engine), {"double": doubled}, DELAY_NS)
    assert list(delayed.answers(ASKED_NS + DELAY_NS - 1)) == []
    (first,) = delayed.answers(ASKED_NS + DELAY_NS)
    assert first == Result(engine.seq + 1, ASKED_NS + DELAY_NS, 1, "double", True, b"2")
    rest = list(delayed.answers(START_NS + S))
    assert [(one.request_id, one.ts_ns) for one in rest] == [(2, ASKED_NS + DELAY_NS + 10 * MS), (3, ASKED_NS + DELAY_NS + 20 * MS)]
    assert list(delayed.answers(START_NS + 2 * S)) == [], "each is answered once"


def test_an_answer_never_comes_before_what_the_engine_has_seen() -> None:
    engine = curious()
    for entry in beats(30):
        engine.step(entry)
    late = list(Delayed(engine, {"double": doubled}, DELAY_NS).answers(engine.now_ns))
    assert [one.ts_ns for one in late] == [engine.now_ns] * 3
    assert [one.request_id for one in late] == [1, 2, 3]


def test_requests_without_means_or_that_nobody_waits_for_are_not_kept() -> None:
    engine = curious()
    delayed = Delayed(engine, {"another": not_again}, DELAY_NS)
    for entry in beats(10):
        delayed.note(engine.step(entry))
    assert list(delayed.answers(START_NS + S)) == []
    engine = app.build()
    delayed = Delayed(engine, {"snapshot": not_again}, DELAY_NS)
    for entry in recorded_lines(20):
        delayed.note(engine.step(entry))
    assert list(delayed.answers(START_NS + 60 * S)) == [] and engine.outstanding == {}, "the core takes no snapshots as results"


# A market whose microprice is fitted


def recorded_lines(count: int, step_ns: int = 20 * MS) -> list[AnyInput]:
    """The inputs of a market in which, after 40 s, Stoikov's microprice is fitted."""
    entries: list[AnyInput] = [Configure(1, START_NS, CoreSettings()), SessionStart(2, START_NS, "test")]
    return entries + [Frame(3 + i, ts_ns, VENUE, "BTCUSDT", raw) for i, (ts_ns, raw) in enumerate(market_lines(count, step_ns=step_ns))]


MARKET = recorded_lines(1_000, 50 * MS)
WORKS = {"microprice": microprice.work}


def test_a_recording_that_is_served_ends_as_one_that_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that the core asks for is answered at the same instants, and a journal holds the answers already."""
    path = write_capture(tmp_path, market_lines(1_000, step_ns=50 * MS))

    async def serve() -> Live:
        async with Live(tmp_path / "state") as host:
            await host.play(recorded(path), works=app.WORKS, delay_ns=app.WORK_DELAY_NS)
            return host

    host = asyncio.run(serve())
    fits = answers([entry for entry, _ in host.seen])
    assert [(one.work, one.ok) for one in fits] == [("microprice", True)]
    now = host.engine.microstructure.microstructure(BTC)
    assert now is not None and now.microprice_stoikov is not None and now.bid is not None and now.ask is not None
    assert now.bid <= now.microprice_stoikov <= now.ask
    assert host.engine.outstanding == {}
    assert app.replay(Settings(), [path], complain=lambda text: None).digest == host.engine.hexdigest()
    monkeypatch.setattr(app, "WORKS", {"microprice": not_again})
    assert app.replay(Settings(), [tmp_path / "state" / "journal"], complain=lambda text: None).digest == host.engine.hexdigest()


@pytest.fixture(scope="module")
def whole() -> tuple[Engine, list[AnyInput]]:
    engine = app.build()
    return engine, [entry for entry, _ in steps(engine, MARKET, WORKS, DELAY_NS)]


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize("away", [(-1,), (0,), (1,), (-300, -1, 0, 1, 40)])
def test_a_served_recording_that_was_killed_about_its_answer_ends_as_if_it_had_not_been(
    tmp_path: Path, whole: tuple[Engine, list[AnyInput]], away: tuple[int, ...], checkpoint: bool
) -> None:
    engine, entries = whole
    (fit,) = answers(entries)
    sources = [entry for entry in entries if not isinstance(entry, Result)]
    place = next(i for i, entry in enumerate(sources) if entry.ts_ns >= fit.ts_ns)  # The answer comes right before this one.

    async def live(stop: int | None) -> Live:
        host = Live(tmp_path / "state", checkpoint_inputs=77)
        await host.play(itertools.islice(MARKET, stop), works=WORKS, delay_ns=DELAY_NS)
        host.close(checkpoint=checkpoint)
        return host

    for one in away:
        asyncio.run(live(place + one))
    host = asyncio.run(live(None))
    assert host.engine.hexdigest() == engine.hexdigest()
    assert list(read_journal(tmp_path / "state" / "journal")) == entries
    assert host.engine.save() == engine.save()


@pytest.mark.parametrize("work", [fail, lambda body: b"no table", lambda body: b"", lambda body: b"\xff" * 5_000, lambda body: b"[]"])
def test_a_fit_that_cannot_be_used_is_told_and_leaves_all_else_as_it_is(work: Work) -> None:
    engine, told = app.build(), list[WorkFailed]()
    for _, records in steps(engine, MARKET, {"microprice": work}, DELAY_NS):
        told += [record for record in records if isinstance(record, WorkFailed)]
    (failed,) = told
    assert (failed.work, failed.symbol) == ("microprice", BTC) and 0 < len(failed.reason) < 1_000
    now = engine.microstructure.microstructure(BTC)
    assert now is not None and now.microprice_stoikov is None and now.mid is not None


# Live


async def lived(folder: Path, work: Work, count: int = 3) -> Live:
    """Run the engine until it has its answers."""
    clock = FakeClock()
    async with Live(folder, clock=clock, build=curious) as host:
        runner = host.runner
        worker = Worker({"double": work}, runner.answered)
        runner.executor = worker
        try:
            runner.submit(lambda seq, ts_ns: Configure(seq, ts_ns, CoreSettings()))
            for _ in range(4):
                clock.at_ns += 10 * MS
                runner.submit(Heartbeat)
            await until(lambda: len(answers([entry for entry, _ in host.seen])) == count)
            clock.at_ns += 10 * MS
            runner.submit(Heartbeat)
            await host.settle()
        finally:
            worker.close()
        return host


@pytest.mark.parametrize("work", [doubled, fail])
def test_live_the_answer_is_an_input_and_its_journal_replays_without_the_work(tmp_path: Path, work: Work) -> None:
    host = asyncio.run(lived(tmp_path, work))
    entries = list(read_journal(tmp_path / "journal"))
    assert [(one.request_id, one.work, one.ok) for one in answers(entries)] == [(i, "double", work is doubled) for i in (1, 2, 3)]
    assert [one.body for one in answers(entries)] == [done(work, b"%d" % i)[1] for i in (1, 2, 3)]
    replayed, _ = stepped(entries, curious())
    assert replayed.hexdigest() == host.engine.hexdigest()
    again = curious()
    assert [entry for entry, _ in steps(again, entries, {}, DELAY_NS)] == entries


def test_the_loop_does_not_wait_for_the_work(tmp_path: Path) -> None:
    gate = threading.Event()

    def held(body: bytes) -> bytes:
        assert gate.wait(PATIENCE_S)
        return doubled(body)

    async def live() -> None:
        clock = FakeClock()
        async with Live(tmp_path, clock=clock, build=curious) as host:
            worker = Worker({"double": held}, host.runner.answered)
            host.runner.executor = worker
            host.runner.submit(lambda seq, ts_ns: Configure(seq, ts_ns, CoreSettings()))
            for _ in range(50):
                clock.at_ns += 10 * MS
                host.runner.submit(Heartbeat)
            assert host.engine.seq == 51 and answers([entry for entry, _ in host.seen]) == []
            gate.set()
            await until(lambda: len(answers([entry for entry, _ in host.seen])) == 3)
            worker.close()
            assert {one.ts_ns for one in answers([entry for entry, _ in host.seen])} == {clock.at_ns}

    asyncio.run(live())


def test_a_worker_that_closes_drops_what_has_not_begun() -> None:
    gate, begun = threading.Event(), threading.Event()
    finished: list[int] = []

    def held(body: bytes) -> bytes:
        begun.set()
        assert gate.wait(PATIENCE_S)
        return body

    worker = Worker({"hold": held}, lambda request, ok, body: finished.append(request.request_id))
    for request_id in (1, 2, 3):
        worker.start(WorkRequested(request_id, "hold", b""))
    worker.start(WorkRequested(4, "unknown", b""))
    assert begun.wait(PATIENCE_S)
    closing = threading.Thread(target=worker.close)
    closing.start()
    while worker._pool._work_queue.qsize() > 1:  # Until the requests that wait are cancelled, the gate stays shut.
        threading.Event().wait(0.001)
    gate.set()
    closing.join(PATIENCE_S)
    assert finished == [1]
