"""The engine's time: wall clock at the start of a session plus the monotonic clock since, so that it never runs back."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where the runner takes stamps from."""

    def now_ns(self) -> int:
        """Return the time now; it may stall, and the runner guards against a step back."""
        ...


class SystemClock:
    """Wall time once, then the monotonic clock: later steps of the wall clock do not matter."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return nanoseconds since 1970 as of the session's start, carried on by the monotonic clock."""
        return self._offset_ns + time.monotonic_ns()


class SetClock:
    """Shows one time: for a market that is made at once, up to then."""

    def __init__(self, at_ns: int) -> None:
        self._at_ns = at_ns

    def now_ns(self) -> int:
        """Return that time."""
        return self._at_ns
