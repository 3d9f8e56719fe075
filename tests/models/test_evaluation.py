"""Settings of the router compared on simulated logs whose truth is known, and what a candidate may know at each decision."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from alphapack.models.bandit import BanditSettings, Bank, choose
from alphapack.models.evaluation import BLOCKS_MIN, FOLDS, RIDGE, Logged, Row, cross_fitted, evaluate, propensities

SECOND = 1_000_000_000
INTERVAL_NS, HORIZON_NS = 60 * SECOND, 300 * SECOND
ARMS = ("with", "against", "never")
MEANS = np.array([[0.0, 0.6, 0.0], [0.0, -0.6, 0.0], [-0.5, 0.0, 0.1]])
"""Coefficients of each arm's mean reward: a constant, a signal whose sign says which arm is right, and another."""
OFFSET = -0.05
EXPLORING = BanditSettings(floor=0.12)
SETTLED, WANDERING = BanditSettings(floor=0.002), BanditSettings(floor=0.22)


def mean_rewards(one: Logged) -> np.ndarray:
    """True mean reward of every option; flat is last."""
    return np.append(np.sum(MEANS * np.array(one.x), axis=1) + OFFSET, 0.0)


def simulated(seed: int, n: int = 600, settings: BanditSettings = EXPLORING, symbols: Sequence[str] = ("BTCUSDT",)) -> list[Logged]:
    """Return a log of the router as it runs: rewards come a horizon later, and are learnt just after the decision of that time."""
    chance = np.random.default_rng(seed)
    log: list[Logged] = []
    for symbol in symbols:
        bank, due = Bank(len(ARMS), 3, settings), list[Logged]()
        signal = 0.0
        for i in range(n):
            ts_ns = i * INTERVAL_NS
            while due and due[0].reward_ns is not None and due[0].reward_ns < ts_ns:
                past = due.pop(0)
                assert past.reward is not None
                bank.learn(past.chosen, np.array(past.x[past.chosen]), past.reward, past.offsets[past.chosen])
            signal = 0.9 * signal + math.sqrt(1.0 - 0.81) * chance.normal()
            x = tuple((1.0, signal, float(other)) for other in chance.normal(size=3))
            enabled = (True, True, bool(chance.random() < 0.8))
            mixtures = np.stack([bank.predict(arm, np.array(x[arm]), OFFSET) for arm in range(3)])
            choice = choose(mixtures, np.array(enabled), chance.random(8), settings.floor, flat=True)
            one = Logged(ts_ns, symbol, ARMS, enabled, x, (OFFSET,) * 3, choice.arm, tuple(choice.propensities.tolist()))
            if choice.arm < 3:
                reward = float(np.clip(mean_rewards(one)[choice.arm] + chance.normal(), -6.0, 6.0))
                one = msgspec.structs.replace(one, reward=reward, reward_ns=ts_ns + HORIZON_NS)
                due.append(one)
            log.append(one)
    return log


def truth(log: Sequence[Logged], row: Row, settings: dict[str, BanditSettings]) -> float:
    """Mean over the decisions that count of what the row's policy is truly worth there."""
    ordered = sorted(log, key=lambda one: one.ts_ns)
    own = settings.get(row.name)
    table = np.array([baseline(row.name)(one) for one in ordered]) if own is None else propensities(ordered, own)
    worth = np.array([mean_rewards(one) for one in ordered])
    kept = [one.ts_ns <= ordered[-1].ts_ns - HORIZON_NS for one in ordered]
    return float(np.mean(np.sum(table * worth, axis=1)[kept]))


def baseline(name: str) -> Callable[[Logged], np.ndarray]:
    def row(one: Logged) -> np.ndarray:
        if name == "as logged":
            return np.array(one.propensities)
        options = np.array([*one.enabled, True], np.float64)
        if name == "uniform":
            return options / options.sum()
        arm = ARMS.index(name.removeprefix("always "))
        return np.eye(4)[arm if one.enabled[arm] else 3]

    return row


def decision(ts_ns: int = 0, **changed: Any) -> Logged:
    fields: dict[str, Any] = {
        "ts_ns": ts_ns,
        "symbol": "BTCUSDT",
        "arms": ("a", "b"),
        "enabled": (True, True),
        "x": ((1.0,), (1.0,)),
        "offsets": (0.0, 0.0),
        "chosen": 0,
        "propensities": (0.5, 0.25, 0.25),
    }
    return Logged(**(fields | changed))


def outcome(i: int, **changed: Any) -> Logged:
    """A decision that came due after a horizon."""
    ts_ns = i * INTERVAL_NS
    return decision(ts_ns, **({"reward": 0.5, "reward_ns": ts_ns + HORIZON_NS} | changed))


@pytest.fixture(scope="module")
def log() -> list[Logged]:
    return simulated(1, symbols=("BTCUSDT", "ETHUSDT"))


def test_router_alpha_aware_evaluation_finds_the_better_settings(log: list[Logged]) -> None:
    candidates = {"wandering": WANDERING, "settled": SETTLED}
    rows = {row.name: row for row in evaluate(log, candidates)}
    assert list(rows) == ["as logged", "uniform", "always with", "always against", "always never", "wandering", "settled"]
    settled, wandering, logged = rows["settled"], rows["wandering"], rows["as logged"]
    for row in (settled, wandering, logged):
        assert row.reason == ""
        assert row.dr is not None and row.ips_snips is not None
        assert row.n == row.dr.n == row.ips_snips.n == 2 * (600 - 5)
        assert row.ess == row.dr.ess == row.ips_snips.ess >= 50.0
        worth = truth(log, row, candidates)
        assert row.dr.dr_low < worth < row.dr.dr_high
        assert row.ips_snips.snips_low < worth < row.ips_snips.snips_high
        assert row.ips_snips.ips_low < worth < row.ips_snips.ips_high
    assert settled.dr is not None and wandering.dr is not None
    assert settled.dr.dr_low > wandering.dr.dr_high
    assert logged.ips_snips is not None
    assert logged.ips_snips.ips == logged.ips_snips.snips == pytest.approx(logged.logged, rel=1e-12)
    assert logged.ess == pytest.approx(logged.n)


def test_router_alpha_aware_evaluation_intervals_hold_the_truth() -> None:
    candidates = {"settled": SETTLED}
    held = []
    for seed in range(100, 105):
        one = simulated(seed, 430)
        for row in evaluate(one, candidates):
            if row.dr is not None and row.ips_snips is not None:
                worth = truth(one, row, candidates)
                held.append(row.dr.dr_low <= worth <= row.dr.dr_high)
                held.append(row.ips_snips.snips_low <= worth <= row.ips_snips.snips_high)
    assert len(held) >= 40
    assert np.mean(held) >= 0.88


def test_router_alpha_aware_evaluation_of_the_logs_own_settings_gives_its_propensities(log: list[Logged]) -> None:
    """Given again from the logged vectors and rewards alone, to the last bit."""
    ordered = sorted(log, key=lambda one: one.ts_ns)
    np.testing.assert_array_equal(propensities(log, EXPLORING), [one.propensities for one in ordered])
    of_btc = [one for one in log if one.symbol == "BTCUSDT"]
    np.testing.assert_array_equal(propensities(of_btc[::-1], EXPLORING), [one.propensities for one in of_btc])


def test_router_alpha_aware_evaluation_learns_only_what_was_known_before() -> None:
    one = simulated(2, 60)
    at = next(i for i, found in enumerate(one) if found.reward is not None)
    known = one[at].ts_ns + HORIZON_NS
    other = [*one[:at], msgspec.structs.replace(one[at], reward=5.9), *one[at + 1 :]]
    differ = np.any(propensities(one, SETTLED) != propensities(other, SETTLED), axis=1)
    times = np.array([found.ts_ns for found in one])
    assert not differ[times <= known].any()  # A reward of the same nanosecond comes too late.
    assert differ[times > known].any()


def test_router_alpha_aware_evaluation_keeps_symbols_apart_unless_pooled() -> None:
    both = simulated(3, 60, symbols=("BTCUSDT", "ETHUSDT"))
    other = [msgspec.structs.replace(one, reward=-5.0) if one.symbol == "BTCUSDT" and one.reward is not None else one for one in both]
    ordered = sorted(both, key=lambda one: one.ts_ns)
    of_eth = [i for i, one in enumerate(ordered) if one.symbol == "ETHUSDT"]
    for pooled in (False, True):
        same = propensities(both, SETTLED, pooled=pooled)[of_eth] == propensities(other, SETTLED, pooled=pooled)[of_eth]
        assert same.all() == (not pooled)


def test_router_alpha_aware_evaluation_models_rewards_without_those_of_the_fold() -> None:
    one = [found for found in simulated(4, 300) if found.chosen == 3 or found.reward is not None]
    base = cross_fitted(one)
    assert base.shape == (len(one), 4)
    assert not base[:, 3].any()
    fold = len(one) // FOLDS
    at = next(i for i in range(2 * fold, 3 * fold) if one[i].reward is not None)
    changed = cross_fitted([*one[:at], msgspec.structs.replace(one[at], reward=6.0), *one[at + 1 :]])
    own = slice(2 * len(one) // FOLDS, 3 * len(one) // FOLDS)
    np.testing.assert_array_equal(changed[own], base[own])
    assert (changed[: own.start] != base[: own.start]).any()
    # One that is still held when the fold begins is kept from its model as well.
    before = next(i for i in range(own.start - 1, 0, -1) if one[i].reward is not None)
    changed = cross_fitted([*one[:before], msgspec.structs.replace(one[before], reward=6.0), *one[before + 1 :]])
    np.testing.assert_array_equal(changed[own], base[own])


def test_router_alpha_aware_evaluation_models_rewards_as_they_are() -> None:
    one = simulated(5, 1_500, BanditSettings(floor=0.25))
    told = [found for found in one if found.chosen == 3 or found.reward is not None]
    worth = np.array([mean_rewards(found) for found in told])
    away = cross_fitted(told) - worth
    assert math.sqrt(np.mean(away**2)) < 0.25 * np.std(worth)


def test_router_alpha_aware_evaluation_models_rewards_by_ridge_regression() -> None:
    """The last fold's model, solved here at once from all that came due before the fold began."""
    told = [one for one in simulated(6, 100) if one.chosen == 3 or one.reward is not None]
    at = len(told) - 1
    begin = (FOLDS - 1) * len(told) // FOLDS
    for arm in range(3):
        seen = [one for one in told[:begin] if one.chosen == arm and one.reward_ns is not None and one.reward_ns < told[begin].ts_ns]
        x = np.array([one.x[arm] for one in seen])
        y = np.array([one.reward for one in seen], np.float64) - OFFSET
        assert isinstance(RIDGE.prior_sd, float)
        coefficients = np.linalg.solve(x.T @ x + np.eye(3) / RIDGE.prior_sd**2, x.T @ y)
        assert cross_fitted(told)[at, arm] == pytest.approx(OFFSET + coefficients @ np.array(told[at].x[arm]), rel=1e-10)


def test_router_alpha_aware_evaluation_gives_reasons_in_place_of_numbers() -> None:
    masked = [outcome(i, enabled=(True, False)) for i in range(400)]
    rows = {row.name: row for row in evaluate(masked, {})}
    assert list(rows) == ["as logged", "uniform", "always a", "always b"]
    assert "expected at least 50 effective rows, found 0.0 of 395" in rows["always b"].reason  # Flat, which was never chosen.
    assert (rows["always b"].dr, rows["always b"].ips_snips, rows["always b"].ess) == (None, None, 0.0)
    always = rows["always a"].ips_snips
    assert always is not None
    assert (always.ips, always.snips) == (pytest.approx(1.0), pytest.approx(0.5))
    few = evaluate([outcome(i // 10) for i in range(600)], {"any": SETTLED})
    assert all(row.reason == f"expected at least {BLOCKS_MIN} blocks of time of 4 horizons, found 3" for row in few)
    assert all(row.dr is None and row.logged == 0.5 for row in few)


def test_router_alpha_aware_evaluation_leaves_out_what_is_not_known() -> None:
    blocked = [outcome(i, reward=None, reward_ns=None) if i % 10 == 0 else outcome(i) for i in range(600)]
    assert {row.n for row in evaluate(blocked, {})} == {595 - 60}
    flat = [outcome(i, chosen=2, reward=None, reward_ns=None) if i % 2 else outcome(i) for i in range(600)]
    (row, *_) = evaluate(flat, {})
    assert row.n == 595  # Those of the last horizon wait with the others, though theirs is known.
    assert row.logged == pytest.approx(0.5 * 298 / 595)
    unknown = evaluate([decision(i) for i in range(3)], {"any": SETTLED})
    assert [(row.n, row.reason) for row in unknown] == [(0, "expected decisions whose outcome is known, found none")] * 5


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"arms": ()}, "expected enabled, x, offsets and propensities"),
        ({"offsets": (0.0,)}, "of 2 arms"),
        ({"propensities": (0.5, 0.5)}, "of 2 arms"),
        ({"chosen": 3}, "expected an enabled arm or 2 for flat, found 3"),
        ({"chosen": -1}, "found -1"),
        ({"enabled": (False, True)}, "found 0"),
        ({"propensities": (0.0, 0.5, 0.5)}, "expected the chosen option's propensity above 0 and up to 1"),
        ({"reward": 1.0}, "expected a reward with the time it became known"),
        ({"reward_ns": 1}, "found None at 1"),
        ({"reward": math.nan, "reward_ns": 1}, "expected a finite reward, found nan"),
        ({"reward": 1.0, "reward_ns": -1}, "no earlier than its decision at 0, found one at -1"),
    ],
)
def test_router_alpha_aware_evaluation_refuses_what_is_no_decision(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decision(**changed)


def test_router_alpha_aware_evaluation_refuses_what_is_no_log() -> None:
    with pytest.raises(ValueError, match="expected at least one decision"):
        evaluate([], {})
    with pytest.raises(ValueError, match=r"expected the arms \('a', 'b'\) with 1 features, found \('a', 'c'\) at 7"):
        evaluate([decision(), decision(7, arms=("a", "c"))], {})
    with pytest.raises(ValueError, match="with 1 features"):
        evaluate([decision(), decision(x=((1.0,), (1.0, 2.0)))], {})
    with pytest.raises(ValueError, match="expected settings with names of their own, found uniform"):
        evaluate([decision()], {"uniform": SETTLED})


def test_router_alpha_aware_evaluation_survives_being_written_down() -> None:
    one = outcome(3)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Logged) == one
    with pytest.raises(msgspec.ValidationError, match="expected an enabled arm"):
        msgspec.json.decode(msgspec.json.encode(one).replace(b'"chosen":0', b'"chosen":9'), type=Logged)


def test_router_alpha_aware_evaluation_takes_advice_for_a_lesson_and_for_nothing_else(log: list[Logged]) -> None:
    """Advice that nobody reported on is mostly flat: counted, it would speak for flat; reported late, it would stretch every block."""
    asked = [msgspec.structs.replace(one, ts_ns=one.ts_ns + 1, reward=None, reward_ns=None, advice=True) for one in log]
    late = msgspec.structs.replace(next(one for one in log if one.reward is not None), advice=True)
    late = msgspec.structs.replace(late, reward_ns=late.ts_ns + 500 * HORIZON_NS)
    assert evaluate([*log, *asked, late], {}) == evaluate(log, {})
    own = {"own": EXPLORING}
    assert evaluate([*log, *asked], own) == evaluate(log, own), "what was never rewarded teaches nothing"
    assert all(row.ips_snips is None and row.reason for row in evaluate(asked, {}))
