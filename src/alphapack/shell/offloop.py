"""Work that the core asks for, done outside its step; the answer comes back as an input.

Live, a thread does it and the answer enters when it is ready. In a backtest it is done on the spot and enters a fixed
delay after the request, so that the outcome does not depend on the machine. A replay of a journal does no work at all:
the recorded answers are among its inputs.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import msgspec

from alphapack.domain.events import Record, WorkRequested
from alphapack.domain.inputs import AnyInput, Result
from alphapack.engine.engine import Engine

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


def steps(engine: Engine, inputs: Iterable[AnyInput], works: Mapping[str, Work], delay_ns: int) -> Iterator[tuple[AnyInput, list[Record]]]:
    """Step a recording; work is answered ``delay_ns`` after its request, as an input in its place of the one order."""
    waiting: list[tuple[int, int, str, bytes]] = []

    def stepped(entry: AnyInput) -> tuple[AnyInput, list[Record]]:
        records = engine.step(entry)
        for record in records:
            if type(record) is WorkRequested and record.work in works:
                heapq.heappush(waiting, (entry.ts_ns + delay_ns, record.request_id, record.work, record.body))
        return entry, records

    for entry in inputs:
        while waiting and waiting[0][0] <= entry.ts_ns:
            due_ns, request_id, work, body = heapq.heappop(waiting)
            yield stepped(Result(engine.seq + 1, due_ns, request_id, work, *done(works[work], body)))
        yield stepped(entry if entry.seq == engine.seq + 1 else msgspec.structs.replace(entry, seq=engine.seq + 1))
