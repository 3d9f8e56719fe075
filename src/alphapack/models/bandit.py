"""Which policy to listen to: linear rewards learned under several memories, Thompson sampling, and exact propensities.

Every arm has a normal-inverse-gamma posterior of its linear reward for each discount, and these are averaged by how likely each one held
the rewards that came (docs/BANDIT.md). Nothing here asks for chance: uniforms come in.
"""

import hashlib
import math
from itertools import pairwise
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.kernels import bandit as k
from alphapack.kernels import student, thompson
from alphapack.kernels.thompson import BoolArray1D, Float64Array3D
from alphapack.models.uniforms import PER_BLOCK, blocks

ARMS_MAX, FEATURES_MAX, MEMORIES_MAX = 64, 128, 8
REWARD_MAX = k.REWARD_MAX
SUM_ERROR_MAX = 1e-9
HASH_BYTES = 16

BANK, BANDIT = b"BANK0001", b"BNDT0001"
"""What begins a saved one: kind and version."""

_S = TypeVar("_S")
_FLOAT64 = np.dtype(np.float64)


class BanditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rewards are believed to behave, and how much is tried out."""

    discounts: tuple[float, ...] = (1.0, 0.997, 0.97)
    """Of an arm's data at each of its rewards, the longest memory first; in (0, 1]."""
    switching: float = 1e-4
    """Probability at each reward that another memory becomes the right one."""
    scale: float = 0.25
    """Of the spread of what is expected that Thompson sampling draws from, in (0, 1]: 1 is the posterior itself."""
    floor: float = 0.001
    """Least probability of each option; with the whole of it, options are tried at random."""
    prior_sd: float | tuple[float, ...] = 0.2
    """Believed standard deviation of each coefficient, in those of the noise."""
    noise_sd: float = 1.0
    """Believed of a reward."""
    noise_dof: float = 4.0
    """How many rewards that belief is worth."""
    reward_dof: float = 8.0
    """Degrees of freedom of rewards, at most: their tails are never taken to be lighter."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.discounts) <= MEMORIES_MAX:
            raise ValueError(f"expected 1 to {MEMORIES_MAX} discounts, found {len(self.discounts)}")
        if any(not longer > shorter for longer, shorter in pairwise(self.discounts)):
            raise ValueError(f"expected discounts from the greatest down, no two equal, found {self.discounts}")
        deviations = self.prior_sd if isinstance(self.prior_sd, tuple) else (self.prior_sd,)
        if not 1 <= len(deviations) <= FEATURES_MAX:
            raise ValueError(f"expected a prior_sd, or one for each of at most {FEATURES_MAX} features, found {len(deviations)}")
        for name, value, low, high in (
            *(("discounts", discount, 0.5, 1.0) for discount in self.discounts),
            *(("prior_sd", deviation, 1e-6, 1e3) for deviation in deviations),
            ("switching", self.switching, 0.0, 0.5),
            ("scale", self.scale, 1e-3, 1.0),
            ("floor", self.floor, 0.0, 1.0),
            ("noise_sd", self.noise_sd, 1e-6, 1e6),
            ("noise_dof", self.noise_dof, 3.0, 1e6),
            ("reward_dof", self.reward_dof, 3.0, 1e6),
        ):
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"expected {name} from {low:g} to {high:g}, found {value}")


class Choice(NamedTuple):
    """One option of several, and with which probability each of them was to be chosen."""

    arm: int
    """K where it is none of the K arms but ``flat``."""
    scores: Float64Array1D
    """float64[K]: drawn of each arm; NaN where it was not enabled."""
    propensities: Float64Array1D
    """float64[K], with ``flat`` float64[K + 1], which is last; they sum to 1."""
    explored: bool
    """Whether it was taken at random, whatever the scores."""


class _SavedBank(msgspec.Struct, array_like=True):
    arms: int
    features: int
    settings: BanditSettings
    counts: list[int]
    data: bytes


class _SavedBandit(msgspec.Struct, array_like=True):
    seed: int
    drawn: int
    bank: bytes


class Bank:
    """Posteriors of ``n_arms`` arms whose rewards are linear in ``n_features`` features."""

    def __init__(self, n_arms: int, n_features: int, settings: BanditSettings | None = None) -> None:
        _check_range("n_arms", n_arms, 1, ARMS_MAX)
        _check_range("n_features", n_features, 1, FEATURES_MAX)
        self.settings = settings = settings or BanditSettings()
        self.n_arms, self.n_features = n_arms, n_features
        deviations = settings.prior_sd if isinstance(settings.prior_sd, tuple) else (settings.prior_sd,) * n_features
        if len(deviations) != n_features:
            raise ValueError(f"expected one prior_sd or {n_features}, one a feature, found {len(deviations)}")
        memories = len(settings.discounts)
        shape, rate = 0.5 * settings.noise_dof, 0.5 * settings.noise_dof * settings.noise_sd * settings.noise_sd
        precisions = [1.0 / (deviation * deviation) for deviation in deviations]
        believed = [shape, rate, settings.scale, settings.reward_dof, settings.switching]
        self._terms = np.array([*believed, *settings.discounts, *precisions], np.float64)
        self._work = np.zeros((memories + 1, max(n_features, student.TERMS)), np.float64)
        self._scratch = self._work[0]
        self._state: Float64Array3D = np.zeros((n_arms, memories, k.width(n_features)), np.float64)
        self._state[:, :, k.WEIGHT] = 1.0 / memories
        self._arms = list(self._state)
        self._shape = (n_features,)
        self._counts = [0] * n_arms
        k.refit(self._state, n_features, self._terms)

    def predict(self, arm: int, x: Float64Array1D, offset: float = 0.0) -> Float64Array2D:
        """Return the distribution of the expected reward of an arm, from which Thompson sampling draws.

        Parameters
        ----------
        arm : int
        x : float64[d]
            Features, finite.
        offset : float
            Is added to the locations: what the reward is believed to be before anything was learned.

        Returns
        -------
        float64[J, 4]
            A row for each memory: weight, location, scale (already narrowed by ``settings.scale``) and degrees of freedom of a Student t.

        Raises
        ------
        ValueError
            An arm, a shape or a number that cannot be.
        """
        return self._predicted(arm, x, offset, 0)

    def predict_reward(self, arm: int, x: Float64Array1D, offset: float = 0.0) -> Float64Array2D:
        """Return the distribution of the reward itself, noise included and nothing narrowed, in the form of ``predict``."""
        return self._predicted(arm, x, offset, 1)

    def _predicted(self, arm: int, x: Float64Array1D, offset: float, noise: int) -> Float64Array2D:
        _check_range("arm", arm, 0, self.n_arms - 1)
        self._check_features(x)
        _check_number("offset", offset)
        out: Float64Array2D = np.empty((self._state.shape[1], 4), np.float64)
        if not k.predict(self._arms[arm], x, float(offset), noise, self._terms, out, self._scratch):
            raise _beyond(x)
        return out

    def predict_each(self, x: Float64Array1D) -> Float64Array3D:
        """Return what ``predict`` gives for each arm at one and the same ``x``, float64[K, J, 4]."""
        self._check_features(x)
        out: Float64Array3D = np.empty((self.n_arms, self._state.shape[1], 4), np.float64)
        if not k.predict_each(self._state, x, self._terms, out, self._scratch):
            raise _beyond(x)
        return out

    def learn(self, arm: int, x: Float64Array1D, reward: float, offset: float = 0.0) -> None:
        """Learn what an arm earned at ``x``; ``offset``, as it was when predicted, is taken off."""
        _check_range("arm", arm, 0, self.n_arms - 1)
        self._check_features(x)
        _check_number("reward", reward)
        _check_number("offset", offset)
        if not k.learn(self._arms[arm], x, float(reward) - float(offset), self._terms, self._work):
            raise _beyond(x)
        self._counts[arm] += 1

    def draw_by(self, scale: float) -> None:
        """Draw by another part of the spread from now on; what was learned stays. ValueError where it is out of range."""
        self.settings = settings = msgspec.structs.replace(self.settings, scale=scale)
        self._terms[k.SCALE] = settings.scale

    def n(self, arm: int) -> int:
        """Return how many rewards of an arm were learned."""
        _check_range("arm", arm, 0, self.n_arms - 1)
        return self._counts[arm]

    def weights(self, arm: int) -> Float64Array1D:
        """Return how much each memory of an arm counts, float64[J], the longest first; they sum to 1."""
        _check_range("arm", arm, 0, self.n_arms - 1)
        return self._arms[arm][:, k.WEIGHT].copy()

    def coefficients(self, arm: int) -> tuple[Float64Array2D, Float64Array2D]:
        """Return mean and standard deviation of the coefficients under each memory of an arm, float64[J, d] both."""
        _check_range("arm", arm, 0, self.n_arms - 1)
        d, memories = self.n_features, self._state.shape[1]
        mean, deviation = np.empty((memories, d)), np.empty((memories, d))
        at = k.data_width(d)
        for j in range(memories):
            row = self._state[arm, j]
            shape = float(self._terms[k.SHAPE_0]) + 0.5 * float(row[k.COUNT])
            mean[j] = row[at + 1 : at + 1 + d]
            for i in range(d):
                unit = np.zeros(d, np.float64)
                unit[i] = 1.0
                deviation[j, i] = math.sqrt(float(row[at]) / (shape - 1.0) * k.spread(row, unit, self._work[0]))
        return mean, deviation

    def hash(self, arm: int) -> str:
        """Return 128 bits, as hex, of all that an arm knows."""
        count = self.n(arm).to_bytes(8, "little")
        return hashlib.blake2b(count + self._data(slice(arm, arm + 1)), digest_size=HASH_BYTES).hexdigest()

    def save(self) -> bytes:
        """Return everything: what ``load`` makes of it goes on as this one would."""
        saved = _SavedBank(self.n_arms, self.n_features, self.settings, self._counts, self._data(slice(None)))
        return _sealed(BANK, saved)

    @classmethod
    def load(cls, state: bytes | memoryview) -> "Bank":
        """Return the bank that was saved; ValueError where it is not whole, or not one."""
        saved = _unsealed(state, BANK, _SavedBank)
        bank = cls(saved.arms, saved.features, saved.settings)
        part = bank._state[:, :, : k.data_width(saved.features)]
        if len(saved.data) != part.size * 8 or len(saved.counts) != saved.arms:
            raise ValueError(f"expected {part.size} numbers of {saved.arms} arms, found {len(saved.data) // 8} of {len(saved.counts)}")
        part[:] = np.frombuffer(saved.data, "<f8").reshape(part.shape)
        bank._counts = saved.counts
        k.refit(bank._state, bank.n_features, bank._terms)
        return bank

    def _data(self, arms: slice) -> bytes:
        return self._state[arms, :, : k.data_width(self.n_features)].astype("<f8").tobytes()

    def _check_features(self, x: Float64Array1D) -> None:
        if type(x) is not np.ndarray or x.shape != self._shape or x.dtype != _FLOAT64:
            found = f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
            raise ValueError(f"expected features of float64[{self.n_features}], found {found}")


def exceedance(mixture: Float64Array2D, threshold: float = 0.0) -> float:
    """Return the probability that a mixture, float64[J, 4] as ``Bank.predict_reward`` gives it, is above a threshold."""
    _check_mixtures(mixture[np.newaxis] if isinstance(mixture, np.ndarray) else mixture)
    _check_number("threshold", threshold)
    return thompson.exceedance(mixture, float(threshold), np.empty(student.TERMS, np.float64))


def best_of(mixtures: Float64Array3D, enabled: BoolArray1D, *, flat: bool = False) -> Float64Array1D:
    """Return with which probability a draw of each mixture is the greatest, before any floor.

    Parameters
    ----------
    mixtures : float64[K, J, 4]
        Rows of weight, location, scale and degrees of freedom, as ``Bank.predict`` gives them; drawn independently of each other.
    enabled : bool[K]
        The other ones have probability 0.
    flat : bool
        There is one more option, which is the best where no draw is above 0.

    Returns
    -------
    float64[K], with ``flat`` float64[K + 1]
        They sum to 1 within 1e-9: nothing is rescaled.

    Raises
    ------
    ValueError
        A shape or number that cannot be, or no option.
    """
    _check_options(mixtures, enabled, flat)
    return _best_of(mixtures, enabled, flat)[: len(mixtures) + flat]


def choose(mixtures: Float64Array3D, enabled: BoolArray1D, uniforms: Float64Array1D, floor: float, flat: bool = False) -> Choice:
    """Choose by Thompson sampling: the enabled arm whose draw is the greatest, but any option at random with the floor's probability.

    It depends on what is given alone, so that a logged decision can be made again.

    Parameters
    ----------
    mixtures, enabled, flat
        As ``best_of`` takes them.
    uniforms : float64[2 K + 2]
        In [0, 1): two for each arm, one whether to take an option at random, one which.
    floor : float
        Probability given to each option whatever its draw; floor x options may be at most 1.

    Raises
    ------
    ValueError
        A shape or number that cannot be, or no option.
    """
    _check_options(mixtures, enabled, flat)
    arms = len(mixtures)
    if not isinstance(uniforms, np.ndarray) or uniforms.dtype != np.float64 or uniforms.shape != (2 * arms + 2,):
        raise ValueError(f"expected float64[{2 * arms + 2}] of uniforms, found {getattr(uniforms, 'shape', type(uniforms).__name__)}")
    if not thompson.are_uniform(uniforms):
        raise ValueError(f"expected uniforms of at least 0 and below 1, found {uniforms.tolist()}")
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"expected a floor from 0 to 1, found {floor}")
    return _chosen(mixtures, enabled, uniforms, float(floor), flat)


class Bandit:
    """Chooses between policies for a context, learns from their rewards, and depends on nothing but its seed and what it is told."""

    def __init__(self, n_policies: int, n_features: int, seed: int = 0, settings: BanditSettings | None = None) -> None:
        _check_range("n_policies", n_policies, 1, ARMS_MAX)
        _check_range("seed", seed, 0, 2**63 - 1)
        self.seed, self.drawn = seed, 0
        self.bank = Bank(n_policies, n_features, settings)
        if self.bank.settings.floor * n_policies > 1.0:
            raise ValueError(f"expected a floor of at most 1/{n_policies}, one over the policies, found {self.bank.settings.floor}")
        self._enabled: BoolArray1D = np.ones(n_policies, np.bool_)

    def choose(self, x: npt.ArrayLike) -> tuple[int, Float64Array1D, Float64Array1D]:
        """Return a policy for a context, float64[d], what was drawn of each policy, float64[K], and their propensities, float64[K]."""
        mixtures = self.bank.predict_each(_row(x))
        chosen = _chosen(mixtures, self._enabled, self._uniforms(), self.bank.settings.floor, False)
        self.drawn += 1
        return chosen.arm, chosen.scores, chosen.propensities

    def update(self, policy: int, x: npt.ArrayLike, reward: float) -> None:
        """Learn what a policy earned in a context, float64[d]."""
        _check_range("policy", policy, 0, self.bank.n_arms - 1)
        self.bank.learn(policy, _row(x), reward)

    def save(self) -> bytes:
        """Return everything, as ``load`` takes it."""
        return _sealed(BANDIT, _SavedBandit(self.seed, self.drawn, self.bank.save()))

    @classmethod
    def load(cls, state: bytes | memoryview) -> "Bandit":
        """Return the bandit that was saved: its choices go on as if it had never stopped; ValueError where it is not whole, or not one."""
        saved = _unsealed(state, BANDIT, _SavedBandit)
        bank = Bank.load(saved.bank)
        bandit = cls(bank.n_arms, bank.n_features, saved.seed, bank.settings)
        bandit.bank, bandit.drawn = bank, saved.drawn
        return bandit

    def _uniforms(self) -> Float64Array1D:
        wanted = 2 * self.bank.n_arms + 2
        count = -(-wanted // PER_BLOCK)
        return blocks(self.seed, "bandit\0", self.drawn * count, count)[:wanted]


def warm() -> None:
    """Compile, or load from the cache, every kernel a bandit needs."""
    bandit = Bandit(2, 1)
    x: Float64Array1D = np.ones(1, np.float64)
    policy, _, _ = bandit.choose(x)
    bandit.update(policy, x, 0.5)
    exceedance(bandit.bank.predict_reward(0, x))
    bandit.bank.coefficients(0)


def _rule() -> Float64Array2D:
    """Return the nodes of Gauss and Legendre on (0, 1), their weights, and for each node what it adds to the integral up to each node.

    The polynomial that is 1 at node j and 0 at the others is sum_n (2 n + 1) w_j P_n(x_j) P_n(x) with weights of (0, 1), and the
    integral of P_n up to x is (P_{n+1}(x) - P_{n-1}(x)) / (2 (2 n + 1)).
    """
    n = thompson.NODES
    rule: Float64Array2D = np.empty((n + 2, n), np.float64)
    values = []
    for i in range(n):
        x = -math.cos(math.pi * (i + 0.75) / (n + 0.5))
        for _ in range(8):  # Newton's method doubles its digits each time.
            p = _legendre(x)
            slope = n * (x * p[n] - p[n - 1]) / (x * x - 1.0)
            x -= p[n] / slope
        values.append(_legendre(x))
        rule[0, i], rule[1, i] = 0.5 * (1.0 + x), 1.0 / ((1.0 - x * x) * slope * slope)
    for i, up_to in enumerate(values):
        for j, at in enumerate(values):
            total = 1.0 + up_to[1]
            for degree in range(1, n):
                total += at[degree] * (up_to[degree + 1] - up_to[degree - 1])
            rule[2 + j, i] = 0.5 * rule[1, j] * total
    return rule


def _legendre(x: float) -> list[float]:
    """Return the polynomials of Legendre of degree 0 to ``NODES`` at ``x``."""
    values = [1.0, x]
    for n in range(1, thompson.NODES):
        values.append(((2 * n + 1) * x * values[n] - n * values[n - 1]) / (n + 1))
    return values


RULE = _rule()


def _chosen(mixtures: Float64Array3D, enabled: BoolArray1D, uniforms: Float64Array1D, floor: float, flat: bool) -> Choice:
    arms = len(mixtures)
    probabilities = _best_of(mixtures, enabled, flat)
    options = thompson.lift(enabled, flat, floor, probabilities)
    if floor * options > 1.0:
        raise ValueError(f"expected a floor of at most 1/{options} for as many options, found {floor}")
    scores: Float64Array1D = np.empty(arms, np.float64)
    arm = thompson.draw(mixtures, enabled, uniforms, flat, scores)
    explored = float(uniforms[2 * arms]) < floor * options
    if explored:
        arm = [*np.flatnonzero(enabled).tolist(), arms][int(uniforms[2 * arms + 1] * options)]
    probabilities = probabilities if flat else probabilities[:arms]
    return Choice(arm, scores, probabilities, explored)


def _best_of(mixtures: Float64Array3D, enabled: BoolArray1D, flat: bool) -> Float64Array1D:
    arms, memories, _ = mixtures.shape
    out: Float64Array1D = np.empty(arms + 1, np.float64)
    work: Float64Array2D = np.empty((arms * memories + 3 * arms + 1, max(student.TERMS, thompson.NODES + 2)), np.float64)
    cells = thompson.propensities(mixtures, enabled, flat, RULE, work, out)
    total = float(out.sum())
    if cells < 0 or not abs(total - 1.0) <= SUM_ERROR_MAX:
        raise ValueError(f"expected distributions whose propensities sum to 1, found {total} of {mixtures.tolist()}")
    return out


def _check_options(mixtures: Float64Array3D, enabled: BoolArray1D, flat: bool) -> None:
    _check_mixtures(mixtures)
    if not isinstance(enabled, np.ndarray) or enabled.dtype != np.bool_ or enabled.shape != (len(mixtures),):
        raise ValueError(f"expected bool[{len(mixtures)}], whether each arm is enabled, found {enabled!r}")
    if not (flat or enabled.any()):
        raise ValueError("expected at least one option, found no arm enabled and no flat")


def _check_mixtures(mixtures: Float64Array3D) -> None:
    shape = mixtures.shape if isinstance(mixtures, np.ndarray) else ()
    if len(shape) != 3 or shape[2] != 4 or mixtures.dtype != np.float64 or not (0 < shape[0] <= ARMS_MAX and 0 < shape[1] <= MEMORIES_MAX):
        raise ValueError(
            f"expected mixtures of float64[up to {ARMS_MAX}, up to {MEMORIES_MAX}, 4], found {shape or type(mixtures).__name__}"
        )
    if not thompson.are_mixtures(mixtures, REWARD_MAX * REWARD_MAX):
        raise ValueError(
            "expected rows of a weight from 0 on that sum to 1, a location, a scale above 0 and degrees of freedom from "
            f"{student.DOF_MIN:g} to {student.DOF_MAX:g}, found {mixtures.tolist()}"
        )


def _row(x: npt.ArrayLike) -> Float64Array1D:
    """Return a context as the kernels take it, whatever row of numbers it is."""
    if isinstance(x, np.ndarray) and x.dtype == np.float64:
        return x
    found = np.asarray(x)
    if found.dtype.kind not in "fiu":
        raise ValueError(f"expected a row of numbers, found {found.dtype} of shape {found.shape}")
    return np.ascontiguousarray(found, np.float64)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if type(value) is int and low <= value <= high:  # Spares most callers what follows, which takes longer.
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise ValueError(f"expected {name} from {low} to {high}, found {value!r}")


def _beyond(x: Float64Array1D) -> ValueError:
    return ValueError(f"expected features from {-REWARD_MAX:g} to {REWARD_MAX:g}, found {x.tolist()}")


def _check_number(name: str, value: float) -> None:
    if not -REWARD_MAX <= value <= REWARD_MAX:
        raise ValueError(f"expected {name} from {-REWARD_MAX:g} to {REWARD_MAX:g}, found {value}")


def _sealed(kind: bytes, saved: msgspec.Struct) -> bytes:
    body = msgspec.msgpack.encode(saved)
    return kind + hashlib.blake2b(kind + body, digest_size=HASH_BYTES).digest() + body


def _unsealed(state: bytes | memoryview, kind: bytes, into: type[_S]) -> _S:
    raw = bytes(state)
    head = len(kind)
    if raw[:head] != kind:
        raise ValueError(f"expected a state that begins with {kind!r}, found {raw[:head]!r}")
    body = raw[head + HASH_BYTES :]
    if raw[head : head + HASH_BYTES] != hashlib.blake2b(kind + body, digest_size=HASH_BYTES).digest():
        raise ValueError(f"expected a whole state, found {len(raw)} bytes that do not fit their checksum")
    try:
        return msgspec.msgpack.decode(body, type=into)
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected a {into.__name__}, found another state: {error}") from None
