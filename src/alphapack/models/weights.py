"""The weights of a group of alphas: ridge regression, with forgetting, of what the mid did on what the alphas said.

``w = argmin sum lambda^(T-t) (y_t - w's_t)^2 + kappa |w - w_init|^2``: the data fade, the belief does not. Only sums are kept, so that the
solution is exact at any time. See docs/WEIGHTS.md for the sizes of memory and belief.
"""

import math
from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D

VERSION = 1
GROUP_MAX = 64
"""Alphas of a group."""
HALF_LIFE = 12_960.0
"""Observations until one counts half: three days of one every 20 s."""
KAPPA = 1_500.0
"""Overlap over the variance of what is believed: 15 observations share a horizon, and weights lie about .1 from what they are at first."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    names: list[str]
    disabled: list[str]
    init: list[float]
    half_life: float
    kappa: float
    learnt: int
    products: bytes
    responses: bytes


class Weights:
    """Learns the weights of one group jointly, so that alphas that say the same share what it is worth.

    Parameters
    ----------
    names
        Of the alphas, 1 to 64, in the order of every array.
    init
        Shape (n,): what the weights are before anything is known.
    half_life
        Observations until one counts half, above 0.
    kappa
        How strongly the weights are held to ``init``, above 0.
    """

    def __init__(self, names: Sequence[str], init: Float64Array1D, half_life: float = HALF_LIFE, kappa: float = KAPPA) -> None:
        if not 0 < len(names) <= GROUP_MAX or len(set(names)) < len(names):
            raise ValueError(f"expected 1 to {GROUP_MAX} different names, found {list(names)}")
        if init.shape != (len(names),) or not np.isfinite(init).all():
            raise ValueError(f"expected {len(names)} finite weights, found {init}")
        if not (half_life > 0.0 and 0.0 < kappa < math.inf):
            raise ValueError(f"expected a half-life and a kappa above 0, found {half_life} and {kappa}")
        self.names = tuple(names)
        self.half_life, self.kappa = float(half_life), float(kappa)
        self.learnt = 0
        """Observations learnt."""
        self._init = init.astype(np.float64)
        self._disabled: set[str] = set()
        self._products: Float64Array2D = np.zeros((len(names), len(names)))
        self._responses: Float64Array1D = np.zeros(len(names))
        self._values: Float64Array1D | None = None

    @property
    def values(self) -> Float64Array1D:
        """The weights now, shape (n,): their absolute values sum to at most 1; 0 of those that are disabled."""
        if self._values is None:
            self._values = self._solved()
        return self._values.copy()

    @property
    def enabled(self) -> tuple[str, ...]:
        """Names of those that have a weight, in order."""
        return tuple(name for name in self.names if name not in self._disabled)

    def learn(self, signals: Float64Array1D, y: float) -> None:
        """Take in what came of signals.

        Parameters
        ----------
        signals
            Shape (n,), in [-1, 1]; NaN of an alpha that said nothing counts as 0. Those of disabled alphas are learnt from too, for the day
            on which they are enabled.
        y
            Return of the mid over the horizon, in volatilities of the horizon; known by now.

        Raises
        ------
        ValueError
            Where the shape, a signal or ``y`` is another.
        """
        if signals.shape != self._init.shape or (np.abs(signals) > 1.0).any() or not math.isfinite(y):
            raise ValueError(f"expected {len(self.names)} signals in [-1, 1] and a finite return, found {signals} and {y}")
        said = np.where(np.isnan(signals), 0.0, signals)
        kept = 0.5 ** (1.0 / self.half_life)
        self._products *= kept
        self._products += said[:, None] * said
        self._responses *= kept
        self._responses += said * y
        self.learnt += 1
        self._values = None

    def disable(self, name: str) -> None:
        """Give a name no weight: the others are as if it were not there. Raises ``ValueError`` where there is no such name."""
        self._place(name)
        self._disabled.add(name)
        self._values = None

    def enable(self, name: str) -> None:
        """Give a name a weight again. Raises ``ValueError`` where there is no such name."""
        self._place(name)
        self._disabled.discard(name)
        self._values = None

    def save(self) -> bytes:
        """Return everything that later values depend on."""
        saved = _Saved(
            VERSION,
            list(self.names),
            sorted(self._disabled),
            self._init.tolist(),
            self.half_life,
            self.kappa,
            self.learnt,
            self._products.tobytes(),
            self._responses.tobytes(),
        )
        return msgspec.msgpack.encode(saved)

    @classmethod
    def load(cls, state: bytes | memoryview, names: Sequence[str] | None = None) -> Self:
        """Return what ``save`` made these bytes of.

        Raises ``ValueError`` for bytes of another version, and where ``names`` are given and are others: see ``adopt``.
        """
        saved = _read(state)
        if names is not None and list(names) != saved.names:
            raise ValueError(f"expected the weights of {list(names)}, found those of {saved.names}")
        one = cls(saved.names, np.array(saved.init), saved.half_life, saved.kappa)
        one._disabled, one.learnt = set(saved.disabled), saved.learnt
        one._products[:], one._responses[:] = _sums(saved)
        return one

    def adopt(self, state: bytes | memoryview) -> tuple[str, ...]:
        """Take over what other weights had learnt of the names that are here too, in place of all that was learnt; return those names.

        ``state`` is what ``save`` of the others returned; their half-life, kappa and initial weights are not taken over. A name that is new
        counts as having said nothing. Raises ``ValueError`` for bytes of another version.
        """
        saved = _read(state)
        common = tuple(name for name in self.names if name in saved.names)
        here, there = [self._place(name) for name in common], [saved.names.index(name) for name in common]
        products, responses = _sums(saved)
        self._products[:] = self._responses[:] = 0.0
        self._products[np.ix_(here, here)] = products[np.ix_(there, there)]
        self._responses[here] = responses[there]
        self._disabled = set(common) & set(saved.disabled)
        self.learnt = saved.learnt
        self._values = None
        return common

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"expected one of {list(self.names)}, found {name!r}")
        return self.names.index(name)

    def _solved(self) -> Float64Array1D:
        places = [self._place(name) for name in self.enabled]
        matrix = [[float(self._products[i, j]) + (self.kappa if i == j else 0.0) for j in places] for i in places]
        right = [float(self._responses[i] + self.kappa * self._init[i]) for i in places]
        values = np.zeros(len(self.names))
        values[places] = within_one(solved(matrix, right))
        return values


def solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Return x of ``matrix x = right`` by Cholesky's factors; ``matrix`` is symmetric and positive definite, n by n. One order of sums."""
    n = len(right)
    lower: list[list[float]] = []
    x: list[float] = []
    for i in range(n):
        row: list[float] = []
        for j in range(i):
            row.append((matrix[i][j] - dot(row, lower[j])) / lower[j][j])
        row.append(math.sqrt(matrix[i][i] - dot(row, row)))
        lower.append(row)
        x.append((right[i] - dot(row, x)) / row[i])
    for i in range(n - 1, -1, -1):
        x[i] = (x[i] - dot([lower[j][i] for j in range(i + 1, n)], x[i + 1 :])) / lower[i][i]
    return x


def dot(left: list[float], right: list[float]) -> float:
    """Return the sum of products, first to last, over the shorter of the two."""
    total = 0.0
    for one, other in zip(left, right, strict=False):
        total += one * other
    return total


def within_one(weights: list[float]) -> list[float]:
    """Return the nearest weights whose absolute values sum to at most 1 (Duchi et al. 2008, ICML, 272-279)."""
    if sum(map(abs, weights)) <= 1.0:
        return weights
    total = threshold = 0.0
    for n, size in enumerate(sorted(map(abs, weights), reverse=True), 1):
        total += size
        if size * n <= total - 1.0:
            break
        threshold = (total - 1.0) / n
    return [math.copysign(max(0.0, abs(one) - threshold), one) for one in weights]


def _read(state: bytes | memoryview) -> _Saved:
    saved = msgspec.msgpack.decode(state, type=_Saved)
    if saved.version != VERSION:
        raise ValueError(f"expected weights of version {VERSION}, found {saved.version}")
    return saved


def _sums(saved: _Saved) -> tuple[Float64Array2D, Float64Array1D]:
    n = len(saved.names)
    return np.frombuffer(saved.products).reshape(n, n), np.frombuffer(saved.responses)
