import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from alphapack import app
from alphapack.config import Settings
from alphapack.domain.events import WorkRequested
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Heartbeat, Result, SessionStart
from alphapack.engine.engine import Engine
from alphapack.shell.journal import read_journal
from alphapack.shell.offloop import REASON_BYTES_MAX, Work, Worker, done, steps
from rig import MS, PATIENCE_S, START_NS, FakeClock, Live, market_lines, recorded, stepped, until, write_capture

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


def test_a_journal_is_replayed_without_doing_the_work_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the core asks of a recording's means is answered there; a journal holds the answers already."""
    path = write_capture(tmp_path, market_lines(100))

    async def serve() -> str:
        async with Live(tmp_path / "state") as host:
            await host.play([entry for entry, _ in steps(app.build(), recorded(path), {"snapshot": doubled}, DELAY_NS)])
            assert answers([entry for entry, _ in host.seen]) != []
            return host.engine.hexdigest()

    digest = asyncio.run(serve())
    monkeypatch.setattr(app, "WORKS", {"snapshot": doubled})
    assert app.replay(Settings(), [path], complain=lambda text: None).digest == digest
    monkeypatch.setattr(app, "WORKS", {"snapshot": not_again})
    assert app.replay(Settings(), [tmp_path / "state" / "journal"], complain=lambda text: None).digest == digest


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
