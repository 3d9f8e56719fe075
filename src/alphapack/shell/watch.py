"""How long alphas and policies take: one that holds the engine up is told of, and the engine is told by an input to ask it no more."""

import time
from collections.abc import Callable
from typing import TypeVar

SLOW_NS = 20_000_000
"""Of one answer, of the processor's time; the market waits meanwhile."""
STALLED_NS = 250_000_000
WALL = 5
"""Times as long by the clock on the wall: who sleeps holds the market up too, but the machine may have been elsewhere."""
STRIKES = 3
"""Slow answers one after the other before it is asked no more; a stalled one is enough by itself. The first answer of all is free."""

_T = TypeVar("_T")


class Watch:
    """Times answers by the thread's own time, so that what the machine does besides does not count; and by the wall's, less strictly."""

    def __init__(self, clock_ns: Callable[[], int] = time.thread_time_ns, wall_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns, self._wall_ns = clock_ns, wall_ns
        self._strikes: dict[tuple[str, str], int] = {}
        """Slow answers without a quick one in between, by alpha or policy and name; none of what has not answered yet."""
        self.slow: dict[tuple[str, str], str] = {}
        """What is to be asked no more, and why."""

    def __call__(self, name: str, what: str, ask: Callable[[], _T]) -> _T:
        """Return what ``ask`` returns, or raise what it raises."""
        started_ns, from_ns = self._clock_ns(), self._wall_ns()
        try:
            return ask()
        finally:
            took_ns, one = max(self._clock_ns() - started_ns, (self._wall_ns() - from_ns) // WALL), (what, name)
            if took_ns > SLOW_NS and one in self._strikes:  # The first answer may have had to compile something.
                self._strike(one, took_ns)
            else:
                self._strikes[one] = 0

    def _strike(self, one: tuple[str, str], took_ns: int) -> None:
        self._strikes[one] = strikes = self._strikes[one] + 1
        if strikes >= STRIKES or took_ns > STALLED_NS:
            found = f"more than {STALLED_NS // 1_000_000} ms" if took_ns > STALLED_NS else f"{strikes} times more than that"
            self.slow[one] = f"expected an answer within {SLOW_NS // 1_000_000} ms, found it to take {found}"
