"""Timers that fire inside ``Engine.step``, in order of due time, then of when they were set."""

import heapq

Timer = tuple[int, int, str, str, int]
"""(due_ns, order, name, argument, period_ns); a period of 0 fires once."""


class Timers:
    """A heap of what is due when; its state is plain data."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._order = 0

    @property
    def next_due_ns(self) -> int:
        """Due time of the next timer; far beyond every clock where there is none."""
        return self._heap[0][0] if self._heap else 1 << 63

    def add(self, due_ns: int, name: str, argument: str = "", period_ns: int = 0) -> None:
        """Set a timer; a periodic one fires again at every later multiple of its period."""
        self._order += 1
        heapq.heappush(self._heap, (due_ns, self._order, name, argument, period_ns))

    def pop(self) -> tuple[int, str, str]:
        """Take the next timer, setting a periodic one again, and return ``(due_ns, name, argument)``."""
        due_ns, _, name, argument, period_ns = heapq.heappop(self._heap)
        if period_ns:
            self.add((due_ns // period_ns + 1) * period_ns, name, argument, period_ns)
        return due_ns, name, argument

    def rebase(self, ts_ns: int) -> None:
        """Move what fell due while no session ran to its start, so that a long pause is not fired through one by one."""
        late = [timer for timer in self._heap if timer[0] < ts_ns]
        if late:
            self._heap = [timer for timer in self._heap if timer[0] >= ts_ns]
            self._heap += [(ts_ns, order, name, argument, period_ns) for _, order, name, argument, period_ns in late]
            heapq.heapify(self._heap)

    def save(self) -> tuple[int, list[Timer]]:
        """Return the order counter and all timers."""
        return self._order, sorted(self._heap)

    def load(self, order: int, timers: list[Timer]) -> None:
        """Replace all timers."""
        self._order, self._heap = order, timers
        heapq.heapify(self._heap)
