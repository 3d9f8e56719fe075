"""The bandit against closed forms and draws; what it saves; what it refuses."""

import math
import struct
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alphapack.models.bandit import Bandit, BanditSettings, Bank, Choice, best_of, choose, exceedance
from alphapack.models.uniforms import block, blocks

ONE = BanditSettings(discounts=(1.0,), scale=1.0, prior_sd=0.5, noise_sd=1.3, noise_dof=5.0, reward_dof=1e6)


def rewards(count: int = 60, features: int = 3, rank: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(11)
    x = chance.normal(size=(count, features))
    if rank is not None:
        x[:, rank:] = x[:, :1]
    return x, x @ np.linspace(-0.5, 0.4, features) + chance.standard_t(4, count)


def posterior(x: np.ndarray, y: np.ndarray, weights: np.ndarray, s: BanditSettings) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return mean, covariance over the noise variance, shape and rate of the normal-inverse-gamma posterior, by linear algebra."""
    precision = np.eye(x.shape[1]) / s.prior_sd**2 + (x.T * weights) @ x
    mean = np.linalg.solve(precision, (x.T * weights) @ y)
    shape = 0.5 * (s.noise_dof + weights.sum())
    rate = 0.5 * s.noise_dof * s.noise_sd**2 + 0.5 * (weights @ (y * y) - mean @ precision @ mean)
    return mean, np.linalg.inv(precision), shape, float(rate)


def learned(settings: BanditSettings, x: np.ndarray, y: np.ndarray, offset: float = 0.0) -> Bank:
    bank = Bank(2, x.shape[1], settings)
    for row, reward in zip(x, y, strict=True):
        bank.learn(1, row, float(reward), offset)
    return bank


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("rank", [None, 1])
def test_router_alpha_aware_the_posterior_is_that_of_all_data_at_once(discount: float, rank: int | None) -> None:
    x, y = rewards(rank=rank)
    spec = BanditSettings((discount,), scale=1.0, prior_sd=0.5, noise_sd=1.3, noise_dof=5.0, reward_dof=1e6)
    mean, covariance, shape, rate = posterior(x, y, discount ** np.arange(len(y))[::-1], spec)
    bank, at = learned(spec, x, y + 0.7, offset=0.7), np.array([1.0, -2.0, 0.3])
    weight, location, scale, dof = bank.predict(1, at, 0.25)[0]
    assert weight == 1.0 and dof == pytest.approx(2.0 * shape, rel=1e-10)
    assert location == pytest.approx(0.25 + at @ mean, rel=1e-10)
    assert scale == pytest.approx(math.sqrt(rate / shape * (at @ covariance @ at)), rel=1e-10)
    noisy = bank.predict_reward(1, at, 0.25)[0]
    assert noisy[2] == pytest.approx(math.sqrt(rate / shape * (1.0 + at @ covariance @ at)), rel=1e-10)
    means, deviations = bank.coefficients(1)
    assert means[0] == pytest.approx(mean, rel=1e-9) and bank.n(1) == 60 and bank.n(0) == 0
    assert deviations[0] == pytest.approx(np.sqrt(rate / (shape - 1.0) * np.diag(covariance)), rel=1e-10)
    assert exceedance(noisy[np.newaxis], 0.4) == pytest.approx(stats.t.sf((0.4 - noisy[1]) / noisy[2], noisy[3]), abs=1e-10)


def test_router_alpha_aware_forgetting_never_fades_the_prior() -> None:
    bank, x = Bank(1, 2, BanditSettings(discounts=(0.9,), scale=1.0)), np.array([1.0, 0.0])
    before = bank.predict(0, np.array([0.0, 1.0]))[0, 2]
    for _ in range(2_000):
        bank.learn(0, x, 0.0)
    unseen = bank.predict(0, np.array([0.0, 1.0]))[0]
    assert unseen[2] < before and unseen[1] == 0.0, "what was never measured is no less known than at first"
    assert unseen[3] == pytest.approx(4.0 + 1.0 / (1.0 - 0.9))


def test_router_alpha_aware_weights_follow_the_predictive_densities() -> None:
    spec = BanditSettings(discounts=(1.0, 0.9), switching=0.0, reward_dof=1e6)
    x, y = rewards()
    bank, weights = Bank(1, 3, spec), np.array([0.5, 0.5])
    for row, reward in zip(x, y, strict=True):
        held = bank.predict_reward(0, row)
        weights *= stats.t.pdf((reward - held[:, 1]) / held[:, 2], held[:, 3]) / held[:, 2]
        bank.learn(0, row, float(reward))
    assert bank.weights(0) == pytest.approx(weights / weights.sum(), rel=1e-8)


def test_router_alpha_aware_the_long_memory_begins_anew_after_a_change() -> None:
    def after_a_change(switching: float) -> np.ndarray:
        bank, chance, x = Bank(1, 1, BanditSettings(discounts=(1.0, 0.95), switching=switching)), np.random.default_rng(2), np.ones(1)
        for t in range(900):
            bank.learn(0, x, float(chance.normal() + (1.5 if t < 600 else -1.5)))
        return bank.predict(0, x)

    stays, begins = after_a_change(0.0), after_a_change(1e-3)
    assert stays[0, 1] > 0.2 and stays[0, 0] < 1e-6, "without it the long memory is lost for good"
    assert begins[0, 1] == pytest.approx(-1.5, abs=0.2) and begins[0, 0] > 0.9


def test_router_alpha_aware_tails_of_rewards_are_as_heavy_as_set() -> None:
    bank = Bank(1, 1, BanditSettings(discounts=(1.0,), reward_dof=6.0))
    for i in range(200):
        bank.learn(0, np.ones(1), float(i % 2))
    row, free = (
        bank.predict_reward(0, np.ones(1))[0],
        learned(BanditSettings((1.0,), reward_dof=1e6), np.ones((200, 1)), np.arange(200) % 2.0),
    )
    wide = free.predict_reward(1, np.ones(1))[0]
    assert row[3] == 6.0 and row[2] ** 2 * 6.0 / 4.0 == pytest.approx(wide[2] ** 2 * wide[3] / (wide[3] - 2.0))


# Propensities


def mixtures_of(chance: np.random.Generator, arms: int, memories: int) -> np.ndarray:
    found = np.empty((arms, memories, 4))
    found[..., 0] = chance.dirichlet(np.full(memories, chance.choice([0.05, 1.0])), arms)
    found[..., 1] = chance.normal(size=(arms, memories)) * 10 ** chance.uniform(-6, 3)
    found[..., 2] = 10 ** chance.uniform(*sorted(chance.uniform(-6, 3, 2)), size=(arms, memories))
    found[..., 3] = 3 * 10 ** chance.uniform(0, 5.5, (arms, memories))
    return found


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 5), st.booleans())
@settings(max_examples=200)
def test_router_alpha_aware_propensities_sum_to_one(seed: int, arms: int, memories: int, flat: bool) -> None:
    found = best_of(mixtures_of(np.random.default_rng(seed), arms, memories), np.ones(arms, np.bool_), flat=flat)
    assert abs(found.sum() - 1.0) < 1e-9 and found.min() >= -1e-12 and len(found) == arms + flat


@pytest.mark.parametrize("narrow", [1.0, 1e-6])
def test_router_alpha_aware_two_normal_arms_have_a_closed_form(narrow: float) -> None:
    for apart in (0.0, 0.3, 2.0, 30.0):
        mixtures = np.array([[[1.0, apart, 1.0, 1e9]], [[1.0, 0.0, narrow, 1e9]]])
        expected = stats.norm.cdf(apart / math.hypot(1.0, narrow))
        assert best_of(mixtures, np.ones(2, np.bool_)) == pytest.approx([expected, 1.0 - expected], abs=1e-9)


def test_router_alpha_aware_flat_has_what_lies_below_zero() -> None:
    mixtures = np.array([[[0.4, 0.5, 1.0, 5.0], [0.6, -1.0, 0.1, 50.0]], [[1.0, -0.2, 0.5, 7.0], [0.0, 9.0, 1.0, 3.0]]])
    below = [sum(w * stats.t.cdf(-m / s, n) for w, m, s, n in arm) for arm in mixtures]
    found = best_of(mixtures, np.ones(2, np.bool_), flat=True)
    assert found[2] == pytest.approx(below[0] * below[1], abs=1e-10)
    alone = best_of(mixtures, np.array([True, False]), flat=True)
    assert alone == pytest.approx([1.0 - below[0], 0.0, below[0]], abs=1e-10)
    assert best_of(mixtures, np.array([False, False]), flat=True).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("flat", [False, True])
def test_router_alpha_aware_propensities_are_those_of_four_million_draws(flat: bool) -> None:
    chance, draws = np.random.default_rng(7), 4_000_000
    mixtures = np.empty((4, 2, 4))
    mixtures[..., 0] = [[0.9, 0.1], [0.5, 0.5], [0.999, 0.001], [1.0, 0.0]]
    mixtures[..., 1] = chance.normal(size=(4, 2)) * 0.3
    mixtures[..., 2] = [[0.1, 0.5], [0.3, 0.02], [0.05, 2.0], [0.4, 1.0]]
    mixtures[..., 3] = [[3.0, 60.0], [8.0, 1e3], [5.0, 3.0], [30.0, 4.0]]
    best, chosen = np.full(draws, 0.0 if flat else -np.inf), np.full(draws, 4)
    for arm in range(4):
        first = chance.random(draws) < mixtures[arm, 0, 0]
        scores = np.empty(draws)
        for memory, which in ((0, first), (1, ~first)):
            _, location, scale, dof = mixtures[arm, memory]
            scores[which] = location + scale * chance.standard_t(dof, int(which.sum()))
        chosen[scores > best] = arm
        best = np.maximum(best, scores)
    expected = best_of(mixtures, np.ones(4, np.bool_), flat=flat)
    shares = np.bincount(chosen, minlength=5)[: len(expected)] / draws
    assert (np.abs(shares - expected) < 5.0 * np.sqrt(expected * (1.0 - expected) / draws)).all()


# Choices


@cache
def chosen(count: int, enabled: tuple[bool, ...], floor: float, flat: bool) -> list[Choice]:
    mixtures = np.array(
        [[[0.7, 0.1, 0.3, 8.0], [0.3, 0.0, 1.0, 4.0]], [[1.0, 0.2, 0.2, 30.0], [0.0, 0.0, 1.0, 3.0]], [[1.0, 0.2, 0.2, 30.0]] * 2]
    )
    mixtures[2, :, 0] = 0.5
    uniforms = np.random.default_rng(13).random((count, 8))
    return [choose(mixtures, np.array(enabled), row, floor, flat) for row in uniforms]


@pytest.mark.parametrize(("enabled", "flat"), [([True, True, True], True), ([True, False, True], False)])
def test_router_alpha_aware_choices_follow_the_logged_propensities(enabled: list[bool], flat: bool) -> None:
    log = chosen(100_000 if flat else 20_000, tuple(enabled), 0.05, flat)
    expected = log[0].propensities * len(log)
    counts = np.bincount([one.arm for one in log], minlength=len(expected))
    options = expected > 0.0
    assert stats.chisquare(counts[options], expected[options]).pvalue > 0.01 and counts[~options].sum() == 0
    scores = np.array([one.scores for one in log])
    for arm, is_enabled in enumerate(enabled):
        assert np.isnan(scores[:, arm]).all() != is_enabled and (log[0].propensities[arm] >= 0.05) == is_enabled
    assert abs(log[0].propensities.sum() - 1.0) < 1e-12 and np.mean([one.explored for one in log]) == pytest.approx(
        sum(enabled) * 0.05 + flat * 0.05, abs=0.01
    )
    for one in log[:500]:
        assert one.explored or one.arm == (int(np.nanargmax(scores := one.scores)) if not flat or np.nanmax(one.scores) > 0.0 else 3)


def test_router_alpha_aware_arms_are_drawn_independently() -> None:
    scores = np.array([one.scores for one in chosen(100_000, (True, True, True), 0.05, True)])
    ranks = stats.rankdata(scores, axis=0)
    assert np.abs(np.corrcoef(ranks.T) - np.eye(3)).max() < 0.01
    assert stats.ks_2samp(scores[:, 1], scores[:, 2]).pvalue > 0.01, "equal distributions, though not of the same draws"


def test_router_alpha_aware_a_logged_decision_is_made_again() -> None:
    mixtures, uniforms = mixtures_of(np.random.default_rng(1), 5, 3), np.random.default_rng(2).random(12)
    one, other = (choose(mixtures.copy(), np.ones(5, np.bool_), uniforms.copy(), 0.01, True) for _ in range(2))
    assert (
        one.arm == other.arm
        and one.scores.tobytes() == other.scores.tobytes()
        and one.propensities.tobytes() == other.propensities.tobytes()
    )


# Going on


def go(bandit: Bandit, count: int) -> list[tuple[int, bytes, bytes]]:
    chance, log = np.random.default_rng(bandit.drawn), []
    for _ in range(count):
        x = chance.normal(size=3)
        policy, scores, propensities = bandit.choose(x)
        bandit.update(policy, x, float(x[0] * (policy - 1) + chance.normal()))
        log.append((policy, scores.tobytes(), propensities.tobytes()))
    return log


def test_router_alpha_aware_ten_thousand_choices_after_a_restart_are_those_without() -> None:
    bandit = Bandit(3, 3, seed=5)
    go(bandit, 300)
    saved = bandit.save()
    resumed = Bandit.load(saved)
    assert resumed.save() == saved and [resumed.bank.hash(arm) for arm in range(3)] == [bandit.bank.hash(arm) for arm in range(3)]
    assert go(bandit, 10_000) == go(resumed, 10_000) and bandit.save() == resumed.save() != saved


def test_router_alpha_aware_another_seed_draws_otherwise() -> None:
    assert go(Bandit(3, 3, seed=5), 50) == go(Bandit(3, 3, seed=5), 50) != go(Bandit(3, 3, seed=6), 50)


def test_router_alpha_aware_uniforms_are_the_same_by_block_and_at_once() -> None:
    one_by_one = [value for number in range(3, 8) for value in block(7, "router\0", number)]
    assert blocks(7, "router\0", 3, 5).tolist() == one_by_one and len(set(one_by_one)) == 40


def test_router_alpha_aware_a_hash_is_of_one_arm() -> None:
    bank = Bank(2, 2)
    before = bank.hash(0), bank.hash(1)
    bank.learn(1, np.ones(2), 0.5)
    assert bank.hash(0) == before[0] and bank.hash(1) != before[1] and len(before[0]) == 32


@given(st.data())
@settings(max_examples=150)
def test_router_alpha_aware_a_corrupt_state_is_refused(data: st.DataObject) -> None:
    bandit = Bandit(2, 2)
    go_x = np.ones(2)
    bandit.update(0, go_x, 0.3)
    for saved, load in ((bandit.save(), Bandit.load), (bandit.bank.save(), Bank.load)):
        at, flip = data.draw(st.integers(0, len(saved) - 1)), data.draw(st.integers(1, 255))
        broken = saved[:at] + bytes([saved[at] ^ flip]) + saved[at + 1 :]
        for state in (broken, saved[:at]):
            with pytest.raises(ValueError, match="expected"):
                load(state)
    with pytest.raises(ValueError, match="begins with"):
        Bank.load(bandit.save())


# What is refused


@pytest.mark.parametrize(
    "bad",
    [
        {"discounts": ()},
        {"discounts": (0.9, 1.0)},
        {"discounts": (1.0, 1.0)},
        {"discounts": (1.1,)},
        {"switching": 0.6},
        {"scale": 0.0},
        {"floor": -0.1},
        {"prior_sd": math.nan},
        {"prior_sd": (0.1, 0.0)},
        {"noise_sd": 0.0},
        {"noise_dof": 2.0},
        {"reward_dof": 2.0},
    ],
)
def test_router_alpha_aware_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected .*found"):
        BanditSettings(**bad)


def test_router_alpha_aware_what_cannot_be_is_refused() -> None:
    bank, x = Bank(2, 2), np.ones(2)
    good = bank.predict_each(x)
    every, uniforms = np.ones(2, np.bool_), np.full(6, 0.5)
    wrong = good.copy()
    wrong[0, 0, 2] = 0.0
    light = good.copy()
    light[0, 0, 0] = 0.0
    for call in (
        lambda: Bank(0, 2),
        lambda: Bank(2, 2, BanditSettings(prior_sd=(0.1, 0.1, 0.1))),
        lambda: bank.predict(2, x),
        lambda: bank.predict(0, np.ones(3)),
        lambda: bank.predict(0, [1.0, 2.0]),  # type: ignore[arg-type]
        lambda: bank.predict(0, np.array([1.0, math.nan])),
        lambda: bank.learn(0, x, math.inf),
        lambda: bank.learn(0, x, 0.0, math.nan),
        lambda: exceedance(good[0], math.nan),
        lambda: best_of(wrong, every),
        lambda: best_of(light, every),
        lambda: best_of(good, np.zeros(2, np.bool_)),
        lambda: best_of(good, np.ones(3, np.bool_)),
        lambda: choose(good, every, np.full(5, 0.5), 0.0),
        lambda: choose(good, every, np.full(6, 1.0), 0.0),
        lambda: choose(good, every, np.full(6, math.nan), 0.0),
        lambda: choose(good, every, uniforms, 0.6),
        lambda: choose(good, every, uniforms, math.nan),
        lambda: Bandit(2, 2, seed=-1),
        lambda: Bandit(3, 2, settings=BanditSettings(floor=0.5)),
    ):
        with pytest.raises(ValueError, match=r"expected .*found"):
            call()


def test_router_alpha_aware_a_context_of_zeros_is_as_good_as_known() -> None:
    bandit = Bandit(2, 2)
    _, scores, propensities = bandit.choose(np.zeros(2))
    assert np.abs(scores).max() < 1e-9 and propensities == pytest.approx([0.5, 0.5])
    assert struct.unpack("<d", bandit.bank.predict(0, np.zeros(2))[0, 1].tobytes()) == (0.0,)
