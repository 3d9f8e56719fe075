"""Win probabilities that are right on average, learnt online from what came of each.

A beta calibration curve for all policies and an offset for each. See ``kernels.calibration`` for the arithmetic and docs/CALIBRATION.md for
the reasons.
"""

from typing import Self

import msgspec
import numpy as np

from alphapack.arrays import Float64Array2D
from alphapack.kernels import calibration as kernel

POLICIES_MAX = kernel.POLICIES_MAX
VERSION = 1


class _Saved(msgspec.Struct, array_like=True):
    version: int
    policies: list[str]
    learnt: int
    restarts: int
    state: bytes


class Calibrator:
    """Calibrates forecasts of an event, by what came of earlier ones."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._state: Float64Array2D = np.zeros((kernel.ROWS, kernel.WIDTH))
        self._state[kernel.EVIDENCE, 0] = kernel.EVIDENCE_MIN
        self.learnt = 0
        """Outcomes learnt."""
        self.restarts = 0
        """How often the long memory was given up for the short one."""

    def calibrate(self, p: float, policy: str) -> float:
        """Return the calibrated probability, strictly inside (0, 1) and never falling as ``p`` rises.

        Parameters
        ----------
        p
            The forecast, 0 to 1. Before anything is learnt it is returned, to 1e-12.
        policy
            Whose forecast it is. One that never had an outcome gets the common curve.

        Raises
        ------
        ValueError
            Where ``p`` is not a probability.
        """
        return float(kernel.calibrate(_probability(p), self._places.get(policy, -1), self._state))

    def learn(self, p: float, won: bool, policy: str) -> None:
        """Take in what came of a forecast ``p``, 0 to 1, as it was before it was calibrated.

        Raises ``ValueError`` where ``p`` is not a probability, or the policy is one too many.
        """
        p, place = _probability(p), self._places.get(policy)
        if place is None:
            if len(self._places) == POLICIES_MAX:
                raise ValueError(f"expected outcomes of at most {POLICIES_MAX} policies, found another: {policy!r}")
            place = self._places[policy] = len(self._places)
        self.learnt += 1
        self.restarts += bool(kernel.learn(p, bool(won), place, len(self._places), self._state))

    def save(self) -> bytes:
        """Return everything that later values depend on."""
        used = kernel.POLICIES + kernel.POLICY * len(self._places)
        return msgspec.msgpack.encode(_Saved(VERSION, list(self._places), self.learnt, self.restarts, self._state[:, :used].tobytes()))

    @classmethod
    def load(cls, state: bytes | memoryview) -> Self:
        """Return what ``save`` made these bytes of. Raises ``ValueError`` for those of another version."""
        saved = msgspec.msgpack.decode(state, type=_Saved)
        if saved.version != VERSION:
            raise ValueError(f"expected the state of a calibrator of version {VERSION}, found {saved.version}")
        one = cls()
        one._places = {policy: place for place, policy in enumerate(saved.policies)}
        one.learnt, one.restarts = saved.learnt, saved.restarts
        used = np.frombuffer(saved.state).reshape(kernel.ROWS, -1)
        one._state[:, : used.shape[1]] = used
        return one


def _probability(p: float) -> float:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"expected a probability, 0 to 1, found {p}")
    return float(p)


def warm() -> None:
    """Compile, or load from the cache, what forecasts are calibrated with."""
    one = Calibrator()
    one.learn(0.5, True, "")
    one.calibrate(0.5, "")
