"""The kernels of the bandit: the same interpreted, and cells that are halved where they must be."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alphapack.kernels import bandit as k
from alphapack.kernels import thompson as t
from alphapack.models import bandit
from interpreted import bits

compiled = pytest.mark.skipif(not hasattr(k.fit, "py_func"), reason="kernels are interpreted here")
ARMS, FEATURES = 3, 4


def learned(rewards: int = 40) -> bandit.Bank:
    bank, chance = bandit.Bank(ARMS, FEATURES), np.random.default_rng(5)
    for i in range(rewards):
        bank.learn(i % ARMS, chance.normal(size=FEATURES), float(chance.standard_t(4)))
    return bank


def both(kernel: Callable[..., Any], *arguments: Any) -> None:
    """Check that results and all arrays come out the same, compiled and interpreted."""
    ours, theirs = ([one.copy() if isinstance(one, np.ndarray) else one for one in arguments] for _ in range(2))
    assert bits(kernel(*ours)) == bits(kernel.py_func(*theirs))  # type: ignore[attr-defined]
    assert bits(tuple(ours)) == bits(tuple(theirs))


@compiled
def test_router_alpha_aware_kernels_are_the_same_interpreted() -> None:
    bank = learned()
    x, state, terms, work = np.array([1.0, -0.3, 0.0, 2.1]), bank._state, bank._terms, bank._work
    both(k.fit, state[0, 1], FEATURES, state.shape[1], terms)
    both(k.spread, state[0, 1], x, work[0])
    for noise in (0, 1):
        both(k.predict, state[1], x, -0.2, noise, terms, np.zeros((3, 4)), work[0])
    both(k.predict_each, state, x, terms, np.zeros((ARMS, 3, 4)), work[0])
    both(k.learn, state[2], x, 0.7, terms, work)
    both(k.switch, state[2], k.data_width(FEATURES), 0.01)
    both(k.refit, state, FEATURES, terms)
    mixtures, enabled = bank.predict_each(x), np.array([True, False, True])
    both(t.draw, mixtures, enabled, np.linspace(0.1, 0.9, 2 * ARMS), True, np.zeros(ARMS))
    room = np.zeros((ARMS * 3 + 3 * ARMS + 1, t.NODES + 2))
    for flat in (True, False):
        both(t.propensities, mixtures, enabled, flat, bandit.RULE, room, np.zeros(ARMS + 1))
    both(t.exceedance, mixtures[0], 0.1, np.zeros(16))
    both(t.lift, enabled, True, 0.01, np.array([0.2, 0.0, 0.3, 0.5]))
    both(t.are_mixtures, mixtures, 1e9)
    both(k.are_within, x)
    both(k.are_within, np.array([0.0, np.nan]))
    both(t.are_uniform, x)


def test_router_alpha_aware_a_cell_that_errs_is_halved() -> None:
    """Of many equal distributions the greatest draw is more sharply distributed than each one: the first width does not do."""
    arms = 40
    mixtures = np.tile(np.array([1.0, 0.0, 1.0, 1e6]), (arms, 1, 1))
    out, room = np.zeros(arms + 1), np.zeros((arms + 3 * arms + 1, t.NODES + 2))
    cells = t.propensities(mixtures, np.ones(arms, np.bool_), False, bandit.RULE, room, out)
    few = t.propensities(mixtures[:1], np.ones(1, np.bool_), False, bandit.RULE, room, np.zeros(2))
    assert cells > few and np.abs(out[:arms] - 1.0 / arms).max() < 1e-10


def test_router_alpha_aware_the_rule_integrates_polynomials_up_to_each_node() -> None:
    nodes, weights, up_to = bandit.RULE[0], bandit.RULE[1], bandit.RULE[2:]
    for degree in range(t.NODES):
        assert (nodes**degree) @ up_to == pytest.approx(nodes ** (degree + 1) / (degree + 1), abs=1e-14)
    for degree in range(2 * t.NODES):
        assert (nodes**degree) @ weights == pytest.approx(1.0 / (degree + 1), abs=1e-14)


def test_router_alpha_aware_a_memory_is_as_wide_as_its_parts() -> None:
    assert k.width(FEATURES) == 3 + 4 + 10 + 1 + 4 + 10 and k.data_width(FEATURES) == 3 + 4 + 10
