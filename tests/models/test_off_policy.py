"""Off-policy estimates against recorded goldens, hand numbers and simulated truth; how often their intervals hold it."""

import csv
import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models.off_policy import OffPolicy, TooLittle, doubly_robust, off_policy

ITEMS = 80
LOGS, ROWS = 2_000, 800
CONTEXTS, ACTIONS = 8, 4


class Recorded(NamedTuple):
    clicks: np.ndarray
    propensities: np.ndarray


def recorded(folder: Path, name: str) -> Recorded:
    """Read a log of the Open Bandit Dataset."""
    path = folder / "bandit" / f"obd_{name}_all.csv.gz"
    if not path.is_file():
        pytest.skip(f"expected the recorded log {path}, found no such file")
    with gzip.open(path, "rt") as lines:
        rows = [(float(row["click"]), float(row["propensity_score"])) for row in csv.DictReader(lines)]
    return Recorded(*np.array(rows).T)


class Logs(NamedTuple):
    """Many logs of one world, a row each, and the target's true mean reward."""

    rewards: np.ndarray
    logged: np.ndarray
    target: np.ndarray
    contexts: np.ndarray
    actions: np.ndarray
    means: np.ndarray
    """Mean reward of each context and action."""
    policy: np.ndarray
    """The target's propensities of each context and action."""
    truth: float


def simulated() -> Logs:
    chance = np.random.default_rng(2024)
    means = chance.normal(0.0, 1.0, (CONTEXTS, ACTIONS))
    logging, target = (
        0.9 * np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True) + 0.1 / ACTIONS
        for scores in (chance.normal(0.0, 1.0, means.shape), 0.7 * means + chance.normal(0.0, 0.5, means.shape))
    )
    contexts = chance.integers(0, CONTEXTS, (LOGS, ROWS))
    edges = np.cumsum(logging, axis=1)
    actions = (chance.random((LOGS, ROWS))[..., None] > edges[contexts, :-1]).sum(axis=2)
    rewards = means[contexts, actions] + chance.standard_t(5, (LOGS, ROWS))
    truth = float(np.mean(np.sum(target * means, axis=1)))
    return Logs(rewards, logging[contexts, actions], target[contexts, actions], contexts, actions, means, target, truth)


@pytest.fixture(scope="module")
def logs() -> Logs:
    return simulated()


@pytest.fixture(scope="module")
def estimates(logs: Logs) -> list[OffPolicy]:
    return [off_policy(*log) for log in zip(logs.rewards, logs.logged, logs.target, strict=True)]


def share_within(bounds: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in bounds]))


def test_router_alpha_aware_off_policy_of_uniform_on_the_recorded_thompson_log(data: Path) -> None:
    clicks, propensities = recorded(data, "bts")
    found = off_policy(clicks, propensities, np.full(len(clicks), 1.0 / ITEMS))
    assert (len(clicks), clicks.mean()) == (10_000, 0.0042)
    assert found.n == 10_000
    assert (round(found.ips, 6), round(found.snips, 6), round(found.ess)) == (0.002360, 0.002334, 340)
    weights = 1.0 / ITEMS / propensities
    assert found.ips == pytest.approx(math.fsum(weights * clicks) / 10_000, rel=1e-12)
    assert found.snips == pytest.approx(math.fsum(weights * clicks) / math.fsum(weights), rel=1e-12)
    assert found.ess == pytest.approx(math.fsum(weights) ** 2 / math.fsum(weights**2), rel=1e-12)
    assert found.ips_low < 0.0038 < found.ips_high  # What the uniform policy earned in its own log.


def test_router_alpha_aware_off_policy_of_the_logs_own_policy_is_its_mean(data: Path) -> None:
    for name, mean in (("random", 0.0038), ("bts", 0.0042)):
        clicks, propensities = recorded(data, name)
        found = off_policy(clicks, propensities, propensities)
        assert found.ips == found.snips == pytest.approx(mean, rel=1e-12)
        assert found.ess == 10_000
        half = 1.959963984540054 * np.std(clicks, ddof=1) / 100.0
        np.testing.assert_allclose([found.ips_low, found.ips_high], [mean - half, mean + half], rtol=1e-9)
        np.testing.assert_allclose([found.snips_low, found.snips_high], [mean - half, mean + half], rtol=1e-9)


def test_router_alpha_aware_off_policy_by_hand() -> None:
    found = off_policy([1.0, 0.0, 2.0], [0.5, 0.5, 0.25], [1.0, 0.5, 0.5], refuse=False)
    # Weights 2, 1, 2.
    assert (found.n, found.ips, found.snips) == (3, 2.0, 1.2)
    assert found.ess == pytest.approx(25.0 / 9.0)
    error = math.sqrt(((2 - 2) ** 2 + (0 - 2) ** 2 + (4 - 2) ** 2) / 2.0 / 3.0)
    assert found.ips_high - found.ips == pytest.approx(1.959963984540054 * error)
    parts = [2 * (1 - 1.2), 1 * (0 - 1.2), 2 * (2 - 1.2)]
    error = math.sqrt(sum(part**2 for part in parts) / 2.0 / 3.0) / (5.0 / 3.0)
    assert found.snips - found.snips_low == pytest.approx(1.959963984540054 * error)


def test_router_alpha_aware_off_policy_intervals_hold_the_truth(logs: Logs, estimates: list[OffPolicy]) -> None:
    for bounds in ([(one.ips_low, one.ips_high) for one in estimates], [(one.snips_low, one.snips_high) for one in estimates]):
        assert 0.93 <= share_within(bounds, logs.truth) <= 0.97
        assert 0.93 <= share_within(bounds[:500], logs.truth) <= 0.97


def test_router_alpha_aware_off_policy_has_no_bias(logs: Logs, estimates: list[OffPolicy]) -> None:
    for values in ([one.ips for one in estimates], [one.snips for one in estimates]):
        assert abs(np.mean(values) - logs.truth) < 4.0 * np.std(values) / math.sqrt(LOGS)
    assert abs(np.mean(logs.rewards) - logs.truth) > 0.3  # What was logged earned another reward.


@pytest.mark.parametrize("quality", ["right", "wrong"])
def test_router_alpha_aware_doubly_robust_intervals_hold_the_truth(logs: Logs, estimates: list[OffPolicy], quality: str) -> None:
    model = logs.means if quality == "right" else 0.5 - 0.6 * logs.means
    predicted = model[logs.contexts, logs.actions], np.sum(logs.policy * model, axis=1)[logs.contexts]
    found = [doubly_robust(*log) for log in zip(logs.rewards, logs.logged, logs.target, *predicted, strict=True)]
    assert 0.93 <= share_within([(one.dr_low, one.dr_high) for one in found], logs.truth) <= 0.97
    assert 0.93 <= share_within([(one.dr_low, one.dr_high) for one in found[:500]], logs.truth) <= 0.97
    values = [one.dr for one in found]
    assert abs(np.mean(values) - logs.truth) < 4.0 * np.std(values) / math.sqrt(LOGS)
    narrower = np.mean([one.dr_high - one.dr_low for one in found]) < np.mean([one.ips_high - one.ips_low for one in estimates])
    assert narrower == (quality == "right")
    assert [one.ess for one in found] == [one.ess for one in estimates]


def test_router_alpha_aware_doubly_robust_of_a_model_of_nothing_is_inverse_propensities(logs: Logs) -> None:
    log = logs.rewards[0], logs.logged[0], logs.target[0]
    found, plain = doubly_robust(*log, np.zeros(ROWS), np.zeros(ROWS)), off_policy(*log)
    assert (found.n, found.ess, found.dr, found.dr_low, found.dr_high) == (plain.n, plain.ess, plain.ips, plain.ips_low, plain.ips_high)


def test_router_alpha_aware_off_policy_blocks_widen_intervals_of_rows_that_depend() -> None:
    """Forty rows share half of their noise: rows taken for independent promise too much, blocks do not."""
    chance = np.random.default_rng(8)
    blocks = np.repeat(np.arange(40), 40)
    held = {"rows": 0, "blocks": 0}
    for _ in range(400):
        rewards = chance.normal(0.0, 1.0, 40)[blocks] + chance.normal(0.0, 1.0, len(blocks))
        logged = chance.uniform(0.3, 0.7, len(blocks))
        for name, given_blocks in (("rows", None), ("blocks", blocks)):
            found = off_policy(rewards, logged, np.full(len(blocks), 0.5), blocks=given_blocks)
            held[name] += found.snips_low <= 0.0 <= found.snips_high
    assert held["rows"] / 400 < 0.6
    assert 0.91 <= held["blocks"] / 400 <= 0.97


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_router_alpha_aware_off_policy_blocks_of_one_row_change_nothing(rows: list[tuple[float, float, float]]) -> None:
    rewards, logged, target = map(np.array, zip(*rows, strict=True))
    alone = off_policy(rewards, logged, target, refuse=False)
    blocked = off_policy(rewards, logged, target, blocks=np.arange(len(rows))[::-1] * 7 - 3, refuse=False)
    for name in OffPolicy.__struct_fields__:
        assert getattr(alone, name) == pytest.approx(getattr(blocked, name), rel=1e-9, abs=1e-12, nan_ok=True)
    assert 0.0 <= alone.ess <= len(rows)
    if alone.ess > 0.0:
        assert min(rewards) - 1e-9 <= alone.snips <= max(rewards) + 1e-9


def test_router_alpha_aware_off_policy_refuses_a_handful_of_weights() -> None:
    rewards, logged = np.ones(1_000), np.full(1_000, 0.5)
    target = np.where(np.arange(1_000) < 49, 0.5, 0.0)
    with pytest.raises(TooLittle, match=r"expected at least 50 effective rows, found 49\.0 of 1000"):
        off_policy(rewards, logged, target)
    with pytest.raises(TooLittle):
        doubly_robust(rewards, logged, target, rewards, rewards)
    assert off_policy(rewards, logged, target, refuse=False).ess == pytest.approx(49.0)
    target[49] = 0.5
    assert off_policy(rewards, logged, target).ess == pytest.approx(50.0)
    assert issubclass(TooLittle, ValueError)


def test_router_alpha_aware_off_policy_without_a_common_action_tells_nothing() -> None:
    found = off_policy([1.0, 2.0], [0.5, 0.5], [0.0, 0.0], refuse=False)
    assert (found.ess, found.ips, found.ips_low) == (0.0, 0.0, 0.0)
    assert math.isnan(found.snips)
    assert math.isnan(found.snips_high)
    assert math.isnan(off_policy([1.0], [0.5], [0.5], refuse=False).ips_low)


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        (0, [1.0, math.nan, 0.0], "expected rewards from -1e.50 to 1e.50, found nan in row 1"),
        (0, [math.inf, 0.0, 0.0], "found inf in row 0"),
        (0, [], "expected rewards to be numbers in one dimension, found float64 of shape"),
        (0, [[1.0, 2.0, 3.0]], "one dimension"),
        (0, ["a", "b", "c"], "expected rewards to be numbers"),
        (1, [0.5, 0.0, 0.5], "expected logged_propensities from 1e-50 to 1, found 0.0 in row 1"),
        (1, [0.5, 0.5, 1.1], "found 1.1 in row 2"),
        (1, [0.5, 0.5], "expected logged_propensities to be 3 numbers"),
        (2, [0.5, -0.1, 0.5], "expected target_propensities from 0 to 1, found -0.1 in row 1"),
        (2, [0.5, 0.5, math.nan], "found nan in row 2"),
    ],
)
def test_router_alpha_aware_off_policy_refuses_what_is_no_log(column: int, values: list[float], reason: str) -> None:
    columns: list[object] = [[1.0, 0.0, 1.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    columns[column] = values
    with pytest.raises(ValueError, match=reason):
        off_policy(*columns, refuse=False)  # type: ignore[arg-type]


def test_router_alpha_aware_off_policy_refuses_what_is_no_block_or_prediction() -> None:
    log = [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]
    for blocks in ([1], [1.5, 2.5]):
        with pytest.raises(ValueError, match="expected 2 whole numbers of blocks"):
            off_policy(*log, blocks=blocks, refuse=False)
    with pytest.raises(ValueError, match="expected predicted_target"):
        doubly_robust(*log, [0.0, 0.0], [0.0, math.nan], refuse=False)
    with pytest.raises(ValueError, match="expected predicted_logged to be 2 numbers"):
        doubly_robust(*log, [0.0], [0.0, 0.0], refuse=False)


def test_router_alpha_aware_off_policy_stays_finite_at_the_edge() -> None:
    found = off_policy([1e50, -1e50], [1e-50, 1e-50], [1.0, 1.0], refuse=False)
    assert all(math.isfinite(getattr(found, name)) for name in OffPolicy.__struct_fields__)
