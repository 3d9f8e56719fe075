"""How long work that must keep up holds the event loop before others have their turn.

What follows the market shares the loop with the API. If each turn of the loop gave it a slice of a fixed length, requests, which
take what they need in each turn, could hold the market back for as long as they keep coming. So where work waits for its next
turn, that lasts as long as the others took.
"""

import time

SLICE_S = 0.001
"""Longest time that work takes while nobody else wants the loop for longer."""
SLICE_MAX_S = 0.008


class Turns:
    """The turns of one piece of work."""

    def __init__(self) -> None:
        self._left_s: float | None = None

    def slice_s(self) -> float:
        """Return how long the turn that begins may last, in seconds."""
        return SLICE_S if self._left_s is None else min(SLICE_MAX_S, max(SLICE_S, time.perf_counter() - self._left_s))

    def leave(self) -> None:
        """End a turn while there is more to do."""
        self._left_s = time.perf_counter()

    def rest(self) -> None:
        """End a turn with nothing left to do."""
        self._left_s = None
