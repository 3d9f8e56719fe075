"""How unusual a risk reversal is beside its own past month."""

import math

HOUR_MS = 3_600_000
WINDOW_MS = 30 * 24 * HOUR_MS
OBSERVATIONS_MIN = 20
SD_MIN = 1e-4
"""A past that hardly moved has no scale: a hundredth of a volatility point."""
Z_MAX = 10.0


class SkewHistory:
    """Risk reversals of one underlying, at most one an hour, of the last thirty days; times are the chains' own."""

    def __init__(self, observations: list[tuple[int, float]] | None = None) -> None:
        """Begin with what was kept: pairs of milliseconds and a risk reversal, oldest first."""
        self.observations = observations or []

    def z(self, ts_ms: int, rr25: float) -> float | None:
        """Return how many standard deviations ``rr25`` is above the mean of the thirty days before ``ts_ms``, within ``Z_MAX``.

        The deviation divides by n - 1. What was observed at ``ts_ms`` or later does not count. None under
        ``OBSERVATIONS_MIN`` observations, or where they deviate by less than ``SD_MIN``.
        """
        past = self.before(ts_ms)
        n = len(past)
        if n < OBSERVATIONS_MIN:
            return None
        mean = math.fsum(past) / n
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in past) / (n - 1))
        if sd < SD_MIN:
            return None
        return max(-Z_MAX, min(Z_MAX, (rr25 - mean) / sd))

    def before(self, ts_ms: int) -> list[float]:
        """Return what was observed in the thirty days before ``ts_ms``."""
        return [value for at_ms, value in self.observations if ts_ms - WINDOW_MS <= at_ms < ts_ms]

    def note(self, ts_ms: int, rr25: float) -> None:
        """Observe a risk reversal, unless one was observed less than an hour before, or later."""
        if self.observations and ts_ms - self.observations[-1][0] < HOUR_MS:
            return
        self.observations.append((ts_ms, rr25))
        while self.observations[0][0] < ts_ms - WINDOW_MS:
            del self.observations[0]
