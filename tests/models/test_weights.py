"""Weights of alphas: the exact solution at any time, bounded, held to what is believed, and the same again after a restart."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models.weights import GROUP_MAX, HALF_LIFE, KAPPA, Weights, solved, within_one

NAMES = ["flow", "trend", "skew"]
INIT = np.array([0.1, 0.0, -0.05])
OVERLAP = 15
"""Observations, one every 20 s, that share a horizon of 300 s."""


def observations(w: list[float], n: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated signals, shape (n, 3), and what followed them."""
    chance = np.random.default_rng(seed)
    common = chance.normal(size=(n, 1))
    signals = np.tanh(0.5 * chance.normal(size=(n, len(w))) + 0.3 * common)
    return signals, signals @ w + noise * chance.normal(size=n)


def overlapping(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return slow signals, and returns over a horizon that have nothing to do with them: each shares all but one step with the next."""
    chance = np.random.default_rng(seed)
    signals, steps = np.empty((n, len(NAMES))), chance.normal(size=n + OVERLAP)
    state = np.zeros(len(NAMES))
    for i in range(n):
        state = 0.99 * state + math.sqrt(1.0 - 0.99**2) * chance.normal(size=len(NAMES))
        signals[i] = np.tanh(0.6 * state)
    return signals, np.convolve(steps, np.ones(OVERLAP), "valid")[:n] / math.sqrt(OVERLAP)


def taught(signals: np.ndarray, y: np.ndarray, **settings: float) -> Weights:
    one = Weights(NAMES, INIT, **settings)
    for said, came in zip(signals, y.tolist(), strict=True):
        one.learn(said, came)
    return one


def oracle(signals: np.ndarray, y: np.ndarray, half_life: float, kappa: float, init: np.ndarray) -> np.ndarray:
    """Return the least squares of all the data and the belief, as rows of one problem."""
    root = np.sqrt(0.5 ** (np.arange(len(y))[::-1] / half_life))
    held = math.sqrt(kappa)
    rows = np.concatenate([root[:, None] * np.nan_to_num(signals), held * np.eye(len(init))])
    return np.linalg.lstsq(rows, np.concatenate([root * y, held * init]), rcond=None)[0]


# The solution


@pytest.mark.parametrize(("half_life", "kappa"), [(50.0, 3.0), (math.inf, 40.0), (HALF_LIFE, KAPPA)])
def test_alpha_attribution_weights_are_least_squares_of_all_that_was_seen(half_life: float, kappa: float) -> None:
    signals, y = observations([0.2, -0.1, 0.1], 700, 1)
    signals[::7, 1] = math.nan
    one = taught(signals, y, half_life=half_life, kappa=kappa)
    expected = oracle(signals, y, half_life, kappa, INIT)
    assert np.abs(expected).sum() < 1.0
    np.testing.assert_allclose(one.values, expected, rtol=0.0, atol=1e-9)
    assert one.learnt == 700


def test_alpha_attribution_weights_are_what_is_believed_before_anything_was_seen() -> None:
    assert Weights(NAMES, INIT).values.tolist() == pytest.approx(INIT.tolist(), abs=1e-15)


def test_alpha_attribution_weights_find_what_is_planted() -> None:
    one = taught(*observations([0.3, 0.0, -0.2], 12_000, 2), half_life=1e6, kappa=15.0)
    assert one.values.tolist() == pytest.approx([0.3, 0.0, -0.2], abs=0.05)


def test_alpha_attribution_weights_of_noise_stay_near_what_is_believed() -> None:
    signals, y = overlapping(8_000, 3)
    one = taught(signals, y)
    assert np.abs(one.values - INIT).max() < 0.15
    free = taught(signals, y, kappa=1e-6)
    assert np.linalg.norm(one.values - INIT) < 0.6 * np.linalg.norm(free.values - INIT)


def test_alpha_attribution_weights_turn_with_the_half_life() -> None:
    before, after = observations([0.4, 0.0, 0.0], 6_000, 4, 0.5), observations([-0.4, 0.0, 0.0], 6_000, 5, 0.5)
    one = taught(*before, half_life=1_000.0, kappa=1e-3)
    assert one.values[0] == pytest.approx(0.4, abs=0.06)
    found = []
    for said, came in zip(after[0], after[1].tolist(), strict=True):
        one.learn(said, came)
        found.append(float(one.values[0]) if one.learnt % 1_000 == 0 else 0.0)
    assert found[999] == pytest.approx(0.0, abs=0.06), "after one half-life both count alike"
    assert found[1_999] == pytest.approx(-0.2, abs=0.06)
    assert found[5_999] == pytest.approx(-0.4, abs=0.06)


def test_alpha_attribution_alphas_that_say_the_same_share_the_weight() -> None:
    signals, y = observations([0.4, 0.0, 0.0], 4_000, 6)
    signals[:, 1] = signals[:, 0]
    one = Weights(NAMES, np.zeros(3), kappa=50.0)
    for said, came in zip(signals, y.tolist(), strict=True):
        one.learn(said, came)
    assert one.values[0] == pytest.approx(one.values[1], rel=1e-9)
    assert one.values[0] + one.values[1] == pytest.approx(0.4, abs=0.06)


@given(st.lists(st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4), min_size=1, max_size=8), st.floats(1e-3, 10.0))
def test_alpha_attribution_the_solver_solves(rows: list[list[float]], ridge: float) -> None:
    left = np.array(rows)
    matrix = left.T @ left + ridge * np.eye(4)
    right = left.sum(axis=0)
    x = np.array(solved(matrix.tolist(), right.tolist()))
    np.testing.assert_allclose(matrix @ x, right, atol=1e-9)


# The bound


def test_alpha_attribution_weights_are_the_nearest_that_sum_to_one() -> None:
    assert within_one([0.5, -0.5]) == [0.5, -0.5]
    assert within_one([2.0, 0.5]) == [1.0, 0.0]
    assert within_one([0.9, -0.7, 0.1]) == pytest.approx([0.6, -0.4, 0.0])
    signals, y = observations([3.0, -2.0, 0.1], 2_000, 7)
    values = taught(signals, y, kappa=1.0).values
    assert np.abs(values).sum() == pytest.approx(1.0, abs=1e-12)
    assert values[0] > 0.0 > values[1]


@given(st.lists(st.floats(-5.0, 5.0), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_alpha_attribution_no_weights_within_the_bound_are_nearer(weights: list[float], seed: int) -> None:
    found = np.array(within_one(weights))
    assert np.abs(found).sum() <= 1.0 + 1e-12
    others = np.random.default_rng(seed).laplace(size=(50, len(weights)))
    others /= np.maximum(1.0, np.abs(others).sum(axis=1))[:, None]
    assert ((others - weights) ** 2).sum(axis=1).min() >= ((found - weights) ** 2).sum() - 1e-9


# Which there are


def test_alpha_attribution_without_an_alpha_the_others_are_as_if_it_were_not_there() -> None:
    signals, y = observations([0.2, 0.2, -0.1], 500, 8)
    one = taught(signals, y, half_life=200.0, kappa=5.0)
    all_of_them = one.values.tolist()
    one.disable("trend")
    assert one.enabled == ("flow", "skew")
    values = one.values
    assert values[1] == 0.0
    np.testing.assert_allclose(values[[0, 2]], oracle(signals[:, [0, 2]], y, 200.0, 5.0, INIT[[0, 2]]), atol=1e-9)
    one.enable("trend")
    assert one.values.tolist() == all_of_them
    for name in NAMES:
        one.disable(name)
    assert one.values.tolist() == [0.0, 0.0, 0.0]
    for ask in (one.disable, one.enable):
        with pytest.raises(ValueError, match=r"expected one of \['flow', 'trend', 'skew'\], found 'nobody'"):
            ask("nobody")


def test_alpha_attribution_weights_are_kept_when_alphas_come_and_go() -> None:
    signals, y = observations([0.2, 0.2, -0.1], 500, 9)
    one = taught(signals, y, half_life=200.0, kappa=5.0)
    one.disable("skew")
    other = Weights(["new", "skew", "flow"], np.array([0.0, -0.05, 0.1]), 200.0, 5.0)
    assert other.adopt(one.save()) == ("skew", "flow")
    assert other.enabled == ("new", "flow")
    other.enable("skew")
    both = oracle(signals[:, [2, 0]], y, 200.0, 5.0, INIT[[2, 0]])
    np.testing.assert_allclose(other.values, [0.0, *both], atol=1e-9)
    for said, came in zip(*observations([0.1, 0.1, 0.1], 50, 10), strict=True):
        other.learn(said, float(came))
    assert other.learnt == 550 and other.values[0] != 0.0


# State


def test_alpha_attribution_weights_go_on_after_a_restart_as_if_there_was_none() -> None:
    signals, y = observations([0.2, 0.2, -0.1], 400, 11)
    one = taught(signals[:200], y[:200], half_life=100.0)
    one.disable("skew")
    other = Weights.load(memoryview(one.save()), NAMES)
    assert other.save() == one.save() and other.names == tuple(NAMES)
    for said, came in zip(signals[200:], y[200:].tolist(), strict=True):
        one.learn(said, came)
        other.learn(said, came)
    assert other.save() == one.save()
    assert other.values.tobytes() == one.values.tobytes()


def test_alpha_attribution_weights_of_others_are_refused() -> None:
    saved = Weights(NAMES, INIT).save()
    with pytest.raises(
        ValueError, match=r"expected the weights of \['flow', 'skew', 'trend'\], found those of \['flow', 'trend', 'skew'\]"
    ):
        Weights.load(saved, sorted(NAMES))
    version, *rest = msgspec.msgpack.decode(saved)
    later = msgspec.msgpack.encode([version + 1, *rest])
    for ask in (Weights.load, Weights(NAMES, INIT).adopt):
        with pytest.raises(ValueError, match="expected weights of version 1, found 2"):
            ask(later)


# What is refused


@pytest.mark.parametrize(
    ("names", "init", "half_life", "kappa", "message"),
    [
        ([], [], 1.0, 1.0, f"expected 1 to {GROUP_MAX} different names, found \\[\\]"),
        (["a", "a"], [0.0, 0.0], 1.0, 1.0, "different names, found"),
        ([str(i) for i in range(GROUP_MAX + 1)], [0.0] * (GROUP_MAX + 1), 1.0, 1.0, "different names, found"),
        (["a", "b"], [0.0], 1.0, 1.0, r"expected 2 finite weights, found \[0.\]"),
        (["a"], [math.nan], 1.0, 1.0, "expected 1 finite weights"),
        (["a"], [0.0], 0.0, 1.0, "expected a half-life and a kappa above 0, found 0.0 and 1.0"),
        (["a"], [0.0], 1.0, 0.0, "above 0, found 1.0 and 0.0"),
        (["a"], [0.0], math.nan, 1.0, "above 0, found nan"),
    ],
)
def test_alpha_attribution_weights_refuse_what_makes_no_sense(
    names: list[str], init: list[float], half_life: float, kappa: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Weights(names, np.array(init), half_life, kappa)


@pytest.mark.parametrize(
    ("signals", "y"), [([0.1, 0.2], 1.0), ([0.1, 0.2, 1.1], 1.0), ([0.1, 0.2, math.inf], 1.0), ([0.1, 0.2, 0.3], math.nan)]
)
def test_alpha_attribution_weights_refuse_other_observations(signals: list[float], y: float) -> None:
    one = Weights(NAMES, INIT)
    with pytest.raises(ValueError, match=r"expected 3 signals in \[-1, 1\] and a finite return, found"):
        one.learn(np.array(signals), y)
    assert one.save() == Weights(NAMES, INIT).save()
