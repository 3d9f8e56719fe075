"""Features made comparable: less their location, over their scale, both learnt from what came before and robust to outliers.

An observation beyond BEND scales counts as one at BEND, so that none moves anything by more than a bounded step. Location and scale are
Huber's proposal 2 (1964, Annals of Mathematical Statistics 35, 73-101), followed by stochastic approximation: steps fall as 1/n until
they are those of an exponential memory. Of a normal feature they are its median and 1.4826 times its median absolute deviation. See
docs/STANDARDISING.md.
"""

from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.models.features import FEATURES, Feature

VERSION = 1
Z_MAX = 5.0
HALF_LIFE = 1_080
"""Observations until one counts half: six hours of one every 20 s. Shorter than a day, so that its seasons are followed."""
PRIOR_WEIGHT = 30.0
"""Observations that the table's centre and scale count as."""
PACE = 2.0
"""Steps are PACE/n: a table that is far off is left much sooner than by 1/n, for an error that is larger by a seventh."""
_GAIN_MIN = 1.0 - 0.5 ** (1.0 / HALF_LIFE)
FLOOR = 1e-3
"""Least scale, as a share of the table's."""
BEND = 1.5
_SQUARE = 0.7784652
"""Mean of min(z^2, BEND^2) of a standard normal z: what the scale makes it."""
_CENTRE_SLOPE = 0.8663856
"""How much the mean of z within +-BEND changes with the location, and below that of its square with the log of the scale."""
_SCALE_SLOPE = 0.9556656


class _Saved(msgspec.Struct, array_like=True):
    version: int
    features: list[str]
    learnt: int
    at_ns: int
    rows: bytes


class Standardiser:
    """Standardises the features of one symbol.

    Parameters
    ----------
    features
        What the places of every array mean, and what is believed of each before any was seen.
    """

    def __init__(self, features: Sequence[Feature] = FEATURES) -> None:
        self._names = [feature.name for feature in features]
        self._unsigned = np.array([not feature.signed for feature in features])
        self._floor: Float64Array1D = FLOOR * np.array([feature.scale for feature in features])
        self._centre: Float64Array1D = np.array([feature.centre for feature in features])
        self._scale: Float64Array1D = np.array([feature.scale for feature in features])
        self._seen: Float64Array1D = np.full(len(features), PRIOR_WEIGHT)
        self._at_ns = -(2**63)
        self.version = 0
        """Observations learnt: what was standardised by equal versions was standardised alike."""

    @property
    def centre(self) -> Float64Array1D:
        """Location of each feature, shape (n,), in its unit; 0 where it is signed."""
        return self._centre.copy()

    @property
    def scale(self) -> Float64Array1D:
        """Scale of each feature, shape (n,), in its unit, above 0."""
        return self._scale.copy()

    def z(self, values: Float64Array1D) -> Float64Array1D:
        """Return the features by what was learnt before.

        Parameters
        ----------
        values
            Shape (n,), in the order of the table; NaN where unknown.

        Returns
        -------
        float64[n]
            Within +-5; NaN where the value is. Of a signed feature it has the sign of the value.
        """
        return np.clip(self._deviation(values), -Z_MAX, Z_MAX)

    def learn(self, values: Float64Array1D, ts_ns: int) -> None:
        """Take in an observation: shape (n,); what is NaN or infinite teaches nothing.

        Observations count, not the time between them. Raises ``ValueError`` where ``ts_ns`` is not later than that of the one before.
        """
        if ts_ns <= self._at_ns:
            raise ValueError(f"expected an observation after {self._at_ns}, found one at {ts_ns}")
        self._at_ns = ts_ns
        known = np.isfinite(values)
        bent = np.clip(self._deviation(values), -BEND, BEND)
        if not known.any():
            return
        self.version += 1
        gain = np.maximum(PACE / self._seen, _GAIN_MIN)
        moves = known & self._unsigned
        # A signed feature that is exactly 0, such as an imbalance without a trade, does not say how large it is where it is not.
        widens = known & (self._unsigned | (values != 0.0))
        self._centre[moves] += (gain * self._scale * bent / _CENTRE_SLOPE)[moves]
        self._scale[widens] *= (1.0 + gain * (bent * bent - _SQUARE) / _SCALE_SLOPE)[widens]
        np.maximum(self._scale, self._floor, out=self._scale)
        self._seen[widens] += 1.0

    def save(self) -> bytes:
        """Return everything that later values depend on."""
        rows = np.stack([self._centre, self._scale, self._seen])
        return msgspec.msgpack.encode(_Saved(VERSION, self._names, self.version, self._at_ns, rows.tobytes()))

    @classmethod
    def load(cls, state: bytes | memoryview, features: Sequence[Feature] = FEATURES) -> Self:
        """Return what ``save`` made these bytes of. Raises ``ValueError`` for those of another version, or of other features."""
        saved = msgspec.msgpack.decode(state, type=_Saved)
        one = cls(features)
        if saved.version != VERSION or saved.features != one._names:
            raise ValueError(
                f"expected the state of a standardiser of version {VERSION} of {one._names}, "
                f"found one of version {saved.version} of {saved.features}"
            )
        one.version, one._at_ns = saved.learnt, saved.at_ns
        one._centre, one._scale, one._seen = np.frombuffer(saved.rows).reshape(3, -1).copy()
        return one

    def _deviation(self, values: Float64Array1D) -> Float64Array1D:
        if values.shape != self._centre.shape:
            raise ValueError(f"expected the values of {len(self._centre)} features, found an array of shape {values.shape}")
        with np.errstate(over="ignore"):  # What is too large for a float is clipped like any outlier.
            return (values - self._centre) / self._scale
