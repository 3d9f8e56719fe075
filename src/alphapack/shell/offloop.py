"""Work that the core asks for, done outside its step; the answer comes back as an input.

Live, a thread does it and the answer enters when it is ready. In a backtest it is done on the spot and enters a fixed
delay after the request, so that the outcome does not depend on the machine. A replay of a journal does no work at all:
the recorded answers are among its inputs.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import msgspec

from alphapack.domain.events import Record, WorkRequested
from alphapack.domain.inputs import AnyInput, Result
from alphapack.engine.engine import Asked, Engine

Work = Callable[[bytes], bytes]
"""What is done with a request's body; an exception becomes a ``Result`` with ``ok`` false and the reason as its body."""
REASON_BYTES_MAX = 1_000


def done(work: Work, body: bytes) -> tuple[bool, bytes]:
    """Do the work; a failure is an answer too."""
    try:
        return True, work(body)
    except Exception as error:  # Whatever it raises, the core is told and goes on.
        return False, f"{type(error).__name__}: {error}".encode()[:REASON_BYTES_MAX]


class Answered(Protocol):
    """How an answer reaches the runner."""

    def __call__(self, request: WorkRequested, ok: bool, body: bytes) -> None:
        """Submit the answer; called on the worker's thread."""
        ...


class Worker:
    """Does requests one after the other on a thread of its own (port ``Executor``)."""

    def __init__(self, works: Mapping[str, Work], answered: Answered) -> None:
        self._works, self._answered = works, answered
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="alphapack-work")

    def start(self, request: WorkRequested) -> None:
        """Begin the work; a kind that this source has no means for is left unanswered."""
        work = self._works.get(request.work)
        if work is None:
            return
        future: Future[tuple[bool, bytes]] = self._pool.submit(done, work, request.body)
        future.add_done_callback(lambda finished: None if finished.cancelled() else self._answered(request, *finished.result()))

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Delayed:
    """Work of a recording: each answer enters a fixed delay of the recording's own time after its request.

    It is done on a thread meanwhile. The thread ends with the process, or when nobody has this any more.
    """

    def __init__(self, engine: Engine, works: Mapping[str, Work], delay_ns: int) -> None:
        """Stand ready, with what the engine had asked for before it was saved and never got."""
        self._engine, self._works, self._delay_ns = engine, works, delay_ns
        self._waiting: list[tuple[int, int, str, Future[tuple[bool, bytes]]]] = []
        self._pool: ThreadPoolExecutor | None = None
        for request_id, asked in engine.outstanding.items():
            self._wait(request_id, asked)

    def note(self, records: Iterable[Record]) -> None:
        """See what a step asked for."""
        for record in records:
            if type(record) is WorkRequested and record.request_id in self._engine.outstanding:
                self._wait(record.request_id, self._engine.outstanding[record.request_id])

    def answers(self, ts_ns: int) -> Iterator[Result]:
        """Yield the answers that are due at or before ``ts_ns``; each must be stepped before the next is drawn."""
        while self._waiting and self._waiting[0][0] <= ts_ns:
            due_ns, request_id, work, answer = heapq.heappop(self._waiting)
            at_ns = max(due_ns, self._engine.now_ns)  # The timer that asked may have fired late.
            yield Result(self._engine.seq + 1, at_ns, request_id, work, *answer.result())

    @property
    def is_waiting(self) -> bool:
        """Whether any answer is still to come."""
        return bool(self._waiting)

    async def ready(self, ts_ns: int) -> None:
        """Return once ``answers`` has nothing to wait for, so that the loop has its turns meanwhile."""
        for due_ns, _, _, answer in tuple(self._waiting):
            if due_ns <= ts_ns and not answer.done():
                await asyncio.wrap_future(answer)

    def _wait(self, request_id: int, asked: Asked) -> None:
        if asked.work in self._works:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="alphapack-work")
            answer = self._pool.submit(done, self._works[asked.work], asked.body)
            heapq.heappush(self._waiting, (asked.ts_ns + self._delay_ns, request_id, asked.work, answer))


def steps(engine: Engine, inputs: Iterable[AnyInput], works: Mapping[str, Work], delay_ns: int) -> Iterator[tuple[AnyInput, list[Record]]]:
    """Step a recording; work is answered ``delay_ns`` after its request, as an input in its place of the one order."""
    delayed = Delayed(engine, works, delay_ns)
    for entry in inputs:
        for answer in delayed.answers(entry.ts_ns):
            records = engine.step(answer)
            delayed.note(records)
            yield answer, records
        own = entry if entry.seq == engine.seq + 1 else msgspec.structs.replace(entry, seq=engine.seq + 1)
        records = engine.step(own)
        delayed.note(records)
        yield own, records
