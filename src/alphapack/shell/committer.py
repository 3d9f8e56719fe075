"""The committer: one thread that makes inputs durable, then ledger rows, then says so.

The order is the law of this file: for a batch that ends at seq S the journal is durable through S before the ledger
is, the ledger before ``durable_seq`` is S, and ``durable_seq`` before anybody is told. A checkpoint is written only
after all of that for its own seq.

When the disk refuses, inputs are given up rather than waited for: the market goes on, decisions must not. The way
back leads through a checkpoint, which covers the inputs that the journal lacks.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from alphapack.domain.inputs import AnyInput
from alphapack.engine.ports import CheckpointStore, Journal, Ledger, LedgerRow

BATCH_INPUTS_MAX = 4_096
BACKLOG_MAX = 200_000
"""Inputs that may wait for a disk that is slower than they come, before they are given up."""
KEPT_ROWS_MAX = 10_000
"""Ledger rows kept while the disk refuses."""

_NEXT_STEP = "inputs are not recorded until the disk can be written again: free space or see to the disk; it is tried every second"
_log = logging.getLogger(__name__)


class Put(NamedTuple):
    """An input that was stepped, and the ledger rows it caused."""

    entry: AnyInput
    rows: Sequence[LedgerRow]


class _Checkpoint(NamedTuple):
    seq: int
    state: bytes


class Committer:
    """Group commit behind a queue; the event loop puts, the callbacks come on the committer's own thread.

    ``durable_seq`` is where recovery ended when that is beyond the journal (a checkpoint after a hole). ``degraded``
    is told once each time the disk begins to refuse, ``recovered`` each time it works again: the answer to it is
    ``checkpoint``.
    """

    def __init__(
        self,
        journal: Journal,
        ledger: Ledger,
        checkpoints: CheckpointStore,
        *,
        published: Callable[[int], None],
        degraded: Callable[[str], None],
        recovered: Callable[[], None],
        linger_s: float = 0.002,
        retain_bytes: int | None = None,
        durable_seq: int | None = None,
        retry_s: float = 1.0,
        backlog_max: int = BACKLOG_MAX,
    ) -> None:
        self._journal, self._ledger, self._checkpoints = journal, ledger, checkpoints
        self._published, self._degraded, self._recovered = published, degraded, recovered
        self._linger_s, self._retain_bytes, self._retry_s, self._backlog_max = linger_s, retain_bytes, retry_s, backlog_max
        self._durable_seq = self._put_seq = journal.last_seq if durable_seq is None else durable_seq
        self._state: Literal["ok", "degraded"] = "ok"
        self._detail: str | None = None
        self._queue: deque[Put | _Checkpoint] = deque()
        self._kept: list[LedgerRow] = []
        self._lost_rows = 0
        self._dropping = False  # Puts are given up: the disk refuses, or was too slow.
        self._awaiting = False  # The disk works again; the runner owes a checkpoint.
        self._hopeless = False  # Not the disk's refusal but an error that trying again cannot heal.
        self._busy = False
        self._closing = False
        self._began_s = self._retry_at_s = 0.0
        lock = threading.Lock()
        self._wake, self._settled = threading.Condition(lock), threading.Condition(lock)
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    @property
    def durable_seq(self) -> int:
        """Inputs and ledger rows at or before this seq are safe (or covered by a checkpoint)."""
        return self._durable_seq

    @property
    def backlog(self) -> int:
        """Inputs put that are not durable yet."""
        return self._put_seq - self._durable_seq

    @property
    def state(self) -> Literal["ok", "degraded"]:
        """Whether what is put becomes durable."""
        return self._state

    @property
    def detail(self) -> str | None:
        """Why it does not, and what to do; None while it does."""
        return self._detail

    @property
    def lost_rows(self) -> int:
        """Ledger rows given up because the disk refused for long."""
        return self._lost_rows

    def put(self, entry: AnyInput, rows: Sequence[LedgerRow]) -> None:
        """Hand over an input that was stepped and the rows it caused; returns at once."""
        self.put_all([Put(entry, rows)])

    def put_all(self, puts: Sequence[Put]) -> None:
        """Hand over inputs in their order, waking the committer once for all of them; returns at once."""
        with self._wake:
            self._check_open()
            for put in puts:
                if put.entry.seq != self._put_seq + 1:
                    raise ValueError(f"expected input seq {self._put_seq + 1}, found {put.entry.seq}")
                self._put_seq = put.entry.seq
                if len(self._queue) >= self._backlog_max:
                    self._dropping = True
                if self._dropping:
                    self._keep(put.rows)
                else:
                    self._queue.append(put)
            self._wake.notify()

    def checkpoint(self, seq: int, state: bytes) -> None:
        """Hand over the whole state as of the input put last; it is written once everything before it is durable.

        While degraded it is ignored, except as the answer to ``recovered``.
        """
        with self._wake:
            self._check_open()
            if seq != self._put_seq:
                raise ValueError(f"expected the state as of the input put last, seq {self._put_seq}, found seq {seq}")
            if self._dropping and not self._awaiting:
                return
            self._dropping = self._awaiting = False
            self._queue.append(_Checkpoint(seq, state))
            self._wake.notify()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put is durable; False when that takes longer, or at once while degraded."""
        with self._settled:
            self._settled.wait_for(lambda: self._dropping or self._is_settled(), timeout_s)
            return self._is_settled()

    def close(self, timeout_s: float) -> bool:
        """Flush, then end the thread; False when not every input became durable. The stores stay open.

        Where the last checkpoint alone takes too long, all is durable, and the next start has more to replay.
        """
        until_s = time.monotonic() + timeout_s
        self.flush(timeout_s)
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(max(0.0, until_s - time.monotonic()))
        if self._thread.is_alive() and self.backlog == 0:
            _log.warning("the disk was too slow for the last checkpoint: the next start replays from the one before it")
        return self.backlog == 0

    @property
    def closing(self) -> bool:
        """Whether it takes no more."""
        return self._closing

    def _check_open(self) -> None:
        if self._closing:
            raise RuntimeError("expected an open committer, found it closed")

    def _is_settled(self) -> bool:
        return not self._queue and not self._busy and not self._dropping

    def _run(self) -> None:
        while self._wait():
            try:
                if self._state == "ok":
                    self._commit()
                else:
                    self._retry()
            except Exception as error:  # The thread must not die unseen; whoever waits on durability must be told.
                _log.exception("the committer stops")
                self._hopeless = True
                self._degrade(f"{type(error).__name__}: {error}; restart once the cause is removed", ())
            with self._settled:
                self._busy = False
                self._settled.notify_all()

    def _wait(self) -> bool:
        """Sleep until there is something to do; False when the thread should end."""
        with self._wake:
            if self._state == "ok":
                self._wake.wait_for(lambda: self._queue or self._closing or self._dropping)
            else:
                self._wake.wait_for(lambda: self._queue or self._closing, max(0.0, self._retry_at_s - time.monotonic()))
            self._busy = bool(self._queue) or not self._closing
            return self._busy

    def _commit(self) -> None:
        pause_s = self._began_s + self._linger_s - time.monotonic()
        if pause_s > 0 and not self._closing:  # A lone input goes at once; in a stream a commit gathers what comes meanwhile.
            time.sleep(pause_s)
        self._began_s = time.monotonic()
        puts, checkpoint = self._take()
        if not puts and checkpoint is None:
            self._degrade(f"the disk is slower than the inputs come: more than {self._backlog_max} waited", ())
            return
        rows = [row for put in puts for row in put.rows]
        try:
            if puts:
                self._journal.append([put.entry for put in puts], allow_gap=self._journal.last_seq < self._durable_seq)
                if rows:
                    self._ledger.append(rows)
                    rows = []
                self._publish(puts[-1].entry.seq)
            if checkpoint is not None:
                self._checkpoints.write(*checkpoint)
                self._retain()
        except OSError as error:
            self._degrade(f"{error}; {_NEXT_STEP}", rows)

    def _take(self) -> tuple[list[Put], _Checkpoint | None]:
        """Return the next inputs, up to a checkpoint, and the checkpoint that ends them."""
        puts: list[Put] = []
        with self._wake:
            while self._queue and len(puts) < BATCH_INPUTS_MAX:
                item = self._queue.popleft()
                if isinstance(item, _Checkpoint):
                    return puts, item
                puts.append(item)
        return puts, None

    def _publish(self, seq: int) -> None:
        self._durable_seq = seq
        self._tell(self._published, seq)

    def _retain(self) -> None:
        if self._retain_bytes is not None and self._journal.size_bytes > self._retain_bytes:
            self._journal.drop_through(self._checkpoints.oldest_kept)

    def _degrade(self, reason: str, rows: Sequence[LedgerRow]) -> None:
        """Give up what waits, keep its rows, and say so once."""
        with self._wake:
            news = self._state == "ok"
            self._dropping, self._awaiting = True, False
            self._keep(rows)
            for item in self._queue:
                if isinstance(item, Put):
                    self._keep(item.rows)
            self._queue.clear()
            self._state, self._detail = "degraded", reason
            self._retry_at_s = time.monotonic() + self._retry_s
        if news:
            self._tell(self._degraded, reason)

    def _keep(self, rows: Sequence[LedgerRow]) -> None:
        room = max(0, KEPT_ROWS_MAX - len(self._kept))
        self._kept.extend(rows[:room])
        self._lost_rows += len(rows[room:])

    def _retry(self) -> None:
        """Ask the disk whether it works again; with the runner's checkpoint at hand, come back."""
        with self._wake:
            item = self._queue.popleft() if self._queue else None
            self._retry_at_s = time.monotonic() + self._retry_s
            idle = self._awaiting or self._hopeless or self._closing
        try:
            if isinstance(item, _Checkpoint):
                self._come_back(item)
            elif not idle:
                self._journal.probe()
                self._ledger.probe()
                with self._wake:
                    self._awaiting = True
                self._tell(self._recovered)
        except OSError as error:
            self._degrade(f"{error}; {_NEXT_STEP}", ())

    def _come_back(self, checkpoint: _Checkpoint) -> None:
        """Cover the inputs that the journal lacks by a checkpoint, keep the rows that waited, and go on after it."""
        self._checkpoints.write(*checkpoint)
        with self._wake:
            rows = sorted((row for row in self._kept if row.seq <= checkpoint.seq), key=lambda row: (row.seq, row.ordinal))
        self._ledger.append(self._ledger.reconcile(rows))
        with self._wake:
            self._kept = [row for row in self._kept if row.seq > checkpoint.seq]
            self._state, self._detail = "ok", None
        self._publish(checkpoint.seq)

    def _tell(self, callback: Callable[..., None], *values: object) -> None:
        try:
            callback(*values)
        except Exception:  # A listener that is gone (a loop that was closed) must not stop what makes things durable.
            _log.exception("a listener of the committer failed")
