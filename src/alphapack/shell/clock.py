"""The engine's time: wall clock at the start of a session plus a clock that never runs back since."""

import time
from typing import Protocol

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that goes on while the machine sleeps, which Linux's monotonic one does not."""


class Clock(Protocol):
    """Where the runner takes stamps from."""

    def now_ns(self) -> int:
        """Return the time now; it may stall, and the runner guards against a step back."""
        ...


class SystemClock:
    """Wall time once, then a steady clock: later steps of the wall clock do not matter."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(_STEADY)

    def now_ns(self) -> int:
        """Return nanoseconds since 1970 as of the session's start, carried on by the steady clock."""
        return self._offset_ns + time.clock_gettime_ns(_STEADY)


class SetClock:
    """Shows one time: for a market that is made at once, up to then."""

    def __init__(self, at_ns: int) -> None:
        self._at_ns = at_ns

    def now_ns(self) -> int:
        """Return that time."""
        return self._at_ns


class CarriedClock:
    """Another clock, set forward: where the wall clock was set back between two sessions, time goes on from where it was."""

    def __init__(self, clock: Clock, ahead_ns: int) -> None:
        self._clock, self.ahead_ns = clock, ahead_ns

    def now_ns(self) -> int:
        """Return the other clock's time and the difference."""
        return self._clock.now_ns() + self.ahead_ns


def carried_on(clock: Clock, at_ns: int) -> Clock:
    """Return the clock itself, or, where it is behind ``at_ns``, one that goes on from there."""
    behind_ns = at_ns - clock.now_ns()
    return CarriedClock(clock, behind_ns) if behind_ns > 0 else clock
