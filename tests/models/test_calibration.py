"""Calibrated probabilities: the identity at first, right after a drift, per policy, never falling, the same again after a restart."""

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alphapack.kernels import calibration as k
from alphapack.models.calibration import POLICIES_MAX, Calibrator
from interpreted import bits, modules

PROBABILITY = st.floats(0.0, 1.0)
OUTCOME = st.tuples(PROBABILITY, st.booleans(), st.sampled_from(["momentum", "reversion", "breakout"]))
N, HALF, LATE = 50_000, 25_000, slice(28_000, 50_000)


def logistic(logit: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logit))


def drifting(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return forecasts that are too sure for the first half and too timid and low for the second, outcomes, and what is true."""
    chance = np.random.default_rng(seed)
    logit = chance.normal(0.0, 0.6, N)
    first = np.arange(N) < HALF
    truth = logistic(logit)
    return logistic(np.where(first, 1.8 * logit + 0.15, 0.6 * logit - 0.35)), chance.random(N) < truth, truth


def followed(one: Calibrator, p: np.ndarray, won: np.ndarray, policy: str = "momentum") -> np.ndarray:
    """Return each forecast calibrated by what came of those before it."""
    found = np.empty(len(p))
    for i, (forecast, came) in enumerate(zip(p.tolist(), won.tolist(), strict=True)):
        found[i] = one.calibrate(forecast, policy)
        one.learn(forecast, came, policy)
    return found


def ece(p: np.ndarray, won: np.ndarray) -> float:
    """Return the expected calibration error over 15 bins of equal count."""
    return sum(len(part) * abs(p[part].mean() - won[part].mean()) for part in np.array_split(np.argsort(p, kind="stable"), 15)) / len(p)


# Before anything is known


@example(0.0)
@example(1.0)
@given(PROBABILITY)
def test_router_alpha_aware_calibration_is_the_identity_at_first(p: float) -> None:
    found = Calibrator().calibrate(p, "momentum")
    assert 0.0 < found < 1.0
    assert abs(found - p) <= 1e-12


# What is learnt


def test_router_alpha_aware_calibration_is_right_again_after_a_drift() -> None:
    p, won, truth = drifting(2_001)
    one = Calibrator()
    found = followed(one, p, won)
    assert np.abs(found - truth)[5_000:HALF].mean() <= 0.012
    assert np.abs(found - truth)[LATE].mean() <= 0.012
    assert np.abs(p - truth)[LATE].mean() > 0.08
    assert ece(found[LATE], won[LATE]) <= ece(truth[LATE], won[LATE]) + 0.003
    assert np.mean((found - won)[LATE] ** 2) <= 1.003 * np.mean((truth - won)[LATE] ** 2)
    assert one.restarts == 1 and one.learnt == N


def test_router_alpha_aware_calibration_leaves_alone_what_is_calibrated() -> None:
    _, won, truth = drifting(2_003)
    one = Calibrator()
    found = followed(one, truth, won)
    assert np.abs(found - truth).mean() <= 0.012
    assert one.restarts == 0


def test_router_alpha_aware_calibration_bends_what_is_wrong_on_one_side_alone() -> None:
    chance = np.random.default_rng(2_004)
    p = logistic(chance.normal(0.0, 1.0, 20_000))
    truth = p**0.5 / (p**0.5 + (1.0 - p) ** 1.5)  # Powers .5 and 1.5: slope 1, tilt -.5.
    found = followed(Calibrator(), p, chance.random(len(p)) < truth)
    assert np.abs(found - truth)[10_000:].mean() <= 0.015
    assert np.abs(p - truth)[10_000:].mean() >= 0.09


def test_router_alpha_aware_calibration_gives_each_policy_its_offset() -> None:
    chance = np.random.default_rng(2_005)
    one, offsets = Calibrator(), {"momentum": 0.5, "reversion": -0.5}
    for policy in [*offsets] * 4_000:
        logit = chance.normal(0.0, 0.5)
        one.learn(float(logistic(logit)), bool(chance.random() < logistic(logit + offsets[policy])), policy)
    for policy, offset in offsets.items():
        assert one.calibrate(0.5, policy) == pytest.approx(float(logistic(np.float64(offset))), abs=0.03)
    assert one.calibrate(0.5, "breakout") == pytest.approx(0.5, abs=0.03), "a new one has what is common to all"


def test_router_alpha_aware_calibration_pools_policies() -> None:
    one = Calibrator()
    for i in range(4_000):
        one.learn(0.5, i % 10 < 7, "momentum")
    common = one.calibrate(0.5, "reversion")
    assert 0.6 < common < one.calibrate(0.5, "momentum"), "most of it is common"
    assert one.calibrate(0.5, "momentum") == pytest.approx(0.7, abs=0.03)
    one.learn(0.5, False, "reversion")
    assert common - 0.03 < one.calibrate(0.5, "reversion") < common, "one outcome says little"


def twin(outcomes: list[tuple[float, bool, int]], policies: int, kept: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the forecasts and the last state of one filter, solved densely; its tilt never comes to a bound here."""
    prior = np.diag([k.SLOPE_SD**-2, k.TILT_SD**-2, k.LEVEL_SD**-2, *[k.OFFSET_SD**-2] * policies])
    theta, information, found = np.zeros(3 + policies), np.zeros_like(prior), []
    for p, won, policy in outcomes:
        logit = math.log(p / (1.0 - p))
        x = np.zeros(3 + policies)
        x[:3], x[3 + policy] = (logit, math.log(4.0 * p * (1.0 - p)), 1.0), 1.0
        forecast = float(logistic(logit + theta @ x))
        information = kept * information + forecast * (1.0 - forecast) * np.outer(x, x)
        theta = theta + np.linalg.solve(prior + information, x * (won - forecast))
        found.append(forecast)
    return np.array(found), theta


def test_router_alpha_aware_calibration_is_that_of_two_dense_filters() -> None:
    chance = np.random.default_rng(2_006)
    policies = 5
    outcomes = [(p, bool(chance.random() < p), int(chance.integers(policies))) for p in logistic(chance.normal(0.0, 0.7, 600)).tolist()]
    state = np.zeros((k.ROWS, k.WIDTH))
    state[k.EVIDENCE, 0] = k.EVIDENCE_MIN
    for p, won, policy in outcomes:
        assert not k.learn(p, won, policy, policies, state)
    evidence = k.EVIDENCE_MIN
    forecasts = []
    for row, kept in ((k.FAST, k.FAST_KEPT), (k.SLOW, k.SLOW_KEPT)):
        found, theta = twin(outcomes, policies, kept)
        np.testing.assert_allclose(state[row, :3], theta[:3], rtol=1e-9, atol=1e-12)
        offsets = state[row, k.POLICIES : k.POLICIES + k.POLICY * policies].reshape(policies, k.POLICY)[:, k.OFFSET]
        np.testing.assert_allclose(offsets, theta[3:], rtol=1e-9, atol=1e-12)
        forecasts.append(found)
    for (_, won, _), fast, slow in zip(outcomes, *forecasts, strict=True):
        evidence = max(k.EVIDENCE_MIN, evidence + math.log(fast / slow if won else (1.0 - fast) / (1.0 - slow)))
    assert state[k.EVIDENCE, 0] == pytest.approx(evidence, abs=1e-9)


# Bounds


@given(st.lists(OUTCOME, max_size=60), st.lists(PROBABILITY, min_size=2, max_size=20))
def test_router_alpha_aware_calibration_stays_inside_and_never_falls(outcomes: list[tuple[float, bool, str]], asked: list[float]) -> None:
    one = Calibrator()
    for p, won, policy in outcomes:
        one.learn(p, won, policy)
    for policy in ("momentum", "flat"):
        found = [one.calibrate(p, policy) for p in sorted(asked)]
        assert all(0.0 < p < 1.0 for p in found)
        assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(found))


def test_router_alpha_aware_calibration_outlives_certainties_that_were_wrong() -> None:
    one = Calibrator()
    for i in range(400):
        one.learn(float(i % 2), i % 2 == 0, "momentum")
    assert 0.2 < one.calibrate(0.5, "momentum") < 0.8
    assert 0.0 < one.calibrate(0.0, "momentum") < one.calibrate(1.0, "momentum") < 1.0


def test_router_alpha_aware_calibration_of_forecasts_that_point_the_wrong_way_is_flat() -> None:
    chance = np.random.default_rng(2_007)
    p = logistic(chance.normal(0.0, 0.8, 8_000))
    one = Calibrator()
    followed(one, p, chance.random(len(p)) < 1.0 - p)
    assert one.calibrate(0.8, "momentum") - one.calibrate(0.2, "momentum") == pytest.approx(0.0, abs=0.02)


def test_router_alpha_aware_calibration_takes_a_bounded_number_of_policies() -> None:
    one = Calibrator()
    for i in range(POLICIES_MAX):
        one.learn(0.5, True, f"policy {i}")
    one.learn(0.5, False, "policy 0")
    before = one.save()
    with pytest.raises(ValueError, match=f"at most {POLICIES_MAX} policies, found another: 'one more'"):
        one.learn(0.5, True, "one more")
    assert one.save() == before and 0.0 < one.calibrate(0.5, "one more") < 1.0


@pytest.mark.parametrize("p", [-0.01, 1.01, math.nan, math.inf])
def test_router_alpha_aware_calibration_refuses_what_is_no_probability(p: float) -> None:
    one = Calibrator()
    with pytest.raises(ValueError, match="expected a probability, 0 to 1, found"):
        one.calibrate(p, "momentum")
    with pytest.raises(ValueError, match="expected a probability, 0 to 1, found"):
        one.learn(p, True, "momentum")
    assert one.save() == Calibrator().save()


# State


def test_router_alpha_aware_calibration_goes_on_after_a_restart_as_if_there_was_none() -> None:
    p, won, _ = drifting(2_008)
    chosen = [f"policy {i % 3}" for i in range(N)]
    one = Calibrator()
    found = []
    for again in (False, True):
        for i in range(24_000 + 1_500 * again, 25_500 + 1_500 * again):
            one.learn(float(p[i]), bool(won[i]), chosen[i])
        if not again:
            other = Calibrator.load(memoryview(one.save()))
            assert other.save() == one.save()
    for i in range(25_500, 27_000):
        other.learn(float(p[i]), bool(won[i]), chosen[i])
        found.append(other.calibrate(float(p[i]), chosen[i]))
    assert other.save() == one.save()
    assert found[-1] == one.calibrate(float(p[26_999]), chosen[26_999])


def test_router_alpha_aware_calibration_refuses_a_state_of_another_version() -> None:
    saved = msgspec.msgpack.decode(Calibrator().save())
    with pytest.raises(ValueError, match="expected the state of a calibrator of version 1, found 2"):
        Calibrator.load(msgspec.msgpack.encode([2, *saved[1:]]))


@pytest.mark.skipif(not hasattr(k.learn, "py_func"), reason="kernels are interpreted here")
def test_router_alpha_aware_calibration_compiled_and_interpreted_agree_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interpreted.NAMES", ("calibration",))
    plain = modules()["calibration"]
    p, won, _ = drifting(2_009)
    states = []
    for kernel in (k, plain):
        state = np.zeros((k.ROWS, k.WIDTH))
        state[k.EVIDENCE, 0] = 6.5
        found = []
        for i in range(2_000):
            place = i % 4
            found.append(kernel.calibrate(float(p[i]), place, state))
            found.append(kernel.learn(float(p[i]), bool(won[i]), place, 4, state))
        states.append(bits((state, np.array(found, float))))
    assert states[0] == states[1]
