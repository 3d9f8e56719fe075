"""Standardised features: usable from the first, robust, right in the long run, finite, and of what was learnt before alone."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alphapack.models.features import FEATURES, NAMES, PLACE, Feature
from alphapack.models.standardise import BEND, FLOOR, HALF_LIFE, PACE, PRIOR_WEIGHT, Z_MAX, Standardiser

N = len(FEATURES)
SIGNED = np.array([feature.signed for feature in FEATURES])
CENTRE = np.array([feature.centre for feature in FEATURES])
SCALE = np.array([feature.scale for feature in FEATURES])
PAIR = (Feature("flow", "microstructure", True, 0.0, 1.0), Feature("level", "microstructure", False, 2.0, 0.5))
"""A signed feature and one that is not."""
VALUES = hnp.arrays(np.float64, 2, elements=st.floats(allow_nan=True, allow_infinity=True))


def taught(rows: np.ndarray, features: tuple[Feature, ...] = PAIR) -> Standardiser:
    one = Standardiser(features)
    for i, row in enumerate(rows):
        one.learn(row, i)
    return one


def normal(n: int, seed: int = 1, level: float = 5.0, scale: float = 2.0) -> np.ndarray:
    """Return n observations of the pair, shape (n, 2)."""
    chance = np.random.default_rng(seed)
    return chance.normal(size=(n, 2)) * scale + [0.0, level]


# From the first observation on


def test_router_alpha_aware_standardised_features_begin_with_the_table() -> None:
    one = Standardiser()
    assert one.z(CENTRE).tolist() == [0.0] * N
    np.testing.assert_allclose(one.z(CENTRE + 2.0 * SCALE), 2.0, rtol=1e-9)
    assert one.version == 0


def test_router_alpha_aware_one_observation_moves_what_is_believed_by_its_part() -> None:
    one = taught(np.array([[3.0, 2.4]]))
    gain = PACE / PRIOR_WEIGHT
    assert one.version == 1
    assert one.centre.tolist() == pytest.approx([0.0, 2.0 + gain * 0.4 / 0.8663856])
    squares = [(BEND**2 - 0.7784652) / 0.9556656, (0.8**2 - 0.7784652) / 0.9556656]
    assert one.scale.tolist() == pytest.approx([1.0 + gain * squares[0], 0.5 * (1.0 + gain * squares[1])])


# In the long run


def test_router_alpha_aware_location_and_scale_become_the_median_and_that_of_the_absolute_deviation() -> None:
    rows = normal(6_000)
    one = taught(rows)
    late = rows[-3_000:]
    median = np.median(late, axis=0)
    deviation = 1.4826 * np.median(np.abs(late - [0.0, median[1]]), axis=0)
    assert one.centre[0] == 0.0
    assert one.centre[1] == pytest.approx(median[1], abs=0.05 * deviation[1])
    assert one.scale.tolist() == pytest.approx(deviation.tolist(), rel=0.05)


def test_router_alpha_aware_standardised_features_follow_a_change_with_the_half_life() -> None:
    before = taught(normal(4_000))
    rows = normal(3 * HALF_LIFE, 2, 8.0, 2.0)
    for i, row in enumerate(rows):
        before.learn(row, 4_000 + i)
        if i == HALF_LIFE - 1:
            assert before.centre[1] == pytest.approx(6.5, abs=0.5), "about half of the way from 5 to 8"
    assert before.centre[1] == pytest.approx(7.75, abs=0.3)


@pytest.mark.parametrize(("level", "scale"), [(100.0, 25.0), (2.01, 0.01)])
def test_router_alpha_aware_a_table_that_is_far_off_is_left_within_hours(level: float, scale: float) -> None:
    one = taught(normal(1_080, 3, level, scale))
    assert abs(one.centre[1] - level) < 0.2 * scale
    assert one.scale.tolist() == pytest.approx([scale, scale], rel=0.2)


# Outliers


@pytest.mark.parametrize("outlier", [1e300, -1e300, 50.0])
def test_router_alpha_aware_one_in_five_outliers_leave_location_and_scale_within_bounds(outlier: float) -> None:
    rows = normal(4_000)
    rows[::5] = outlier
    one = taught(rows)
    assert abs(one.centre[1] - 5.0) < 2.0, "less than a standard deviation off"
    assert (one.scale > 1.8).all() and (one.scale < 4.0).all(), "of 2.0"
    mended = taught(np.concatenate([rows, normal(4_000, 4)]))
    assert mended.centre[1] == pytest.approx(5.0, abs=0.3)


TAUGHT = taught(normal(300)).save()


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_router_alpha_aware_an_outlier_moves_what_is_believed_by_a_bounded_step(flow: float, level: float) -> None:
    one = Standardiser.load(TAUGHT, PAIR)
    centre, scale, gain = one.centre, one.scale, PACE / (PRIOR_WEIGHT + 300.0)
    one.learn(np.array([flow, level]), 300)
    assert np.all(np.abs(one.centre - centre) <= gain * scale * BEND / 0.86)
    assert np.all(np.abs(one.scale / scale - 1.0) <= gain * BEND**2 / 0.95)


# What holds of every value


@given(st.lists(VALUES, max_size=30), st.lists(st.floats(allow_nan=False), min_size=2, max_size=10))
def test_router_alpha_aware_standardised_features_are_bounded_and_rise_with_the_value(seen: list[np.ndarray], asked: list[float]) -> None:
    one = taught(np.array(seen).reshape(-1, 2))
    assert np.isfinite(one.centre).all() and np.isfinite(one.scale).all()
    found = [one.z(np.array([value, value])) for value in sorted(asked)]
    assert np.isfinite(found).all() and (np.abs(found) <= Z_MAX).all()
    assert (np.diff(found, axis=0) >= 0.0).all()
    flows = np.array(found)[:, 0]
    assert all(z * value >= 0.0 for z, value in zip(flows.tolist(), np.sign(sorted(asked)).tolist(), strict=True))


def test_router_alpha_aware_the_unknown_stays_unknown_and_teaches_nothing() -> None:
    rows = normal(500)
    one, other = taught(rows), taught(rows)
    one.learn(np.array([math.nan, math.inf]), 500)
    assert one.version == other.version == 500
    assert (one.centre.tolist(), one.scale.tolist()) == (other.centre.tolist(), other.scale.tolist())
    one.learn(np.array([1.0, math.nan]), 501)
    assert one.version == 501 and one.centre[1] == other.centre[1] and one.scale[1] == other.scale[1] and one.scale[0] != other.scale[0]
    z = one.z(np.array([math.nan, 5.0]))
    assert math.isnan(z[0]) and math.isfinite(z[1])


def test_router_alpha_aware_a_feature_unknown_for_long_is_as_if_it_had_just_begun() -> None:
    rows = normal(600)
    late = rows.copy()
    late[:300, 1] = math.nan
    one, other = taught(late), taught(rows[300:])
    assert (one.centre[1], one.scale[1]) == (other.centre[1], other.scale[1])


def test_router_alpha_aware_a_constant_feature_is_zero() -> None:
    one = taught(np.full((9_500, 2), 7.0))
    z = one.z(np.array([0.0, 7.0]))
    assert z.tolist() == pytest.approx([0.0, 0.0], abs=0.05)
    assert FLOOR * 0.5 <= one.scale[1] < 1.01 * FLOOR * 0.5
    assert one.z(np.array([7.0, 7.0 + FLOOR * 0.5]))[1] == pytest.approx(1.0, abs=0.05)


def test_router_alpha_aware_zeros_of_a_signed_feature_do_not_make_the_others_outliers() -> None:
    rows = normal(6_000)
    rows[np.random.default_rng(5).random(6_000) < 0.9, 0] = 0.0
    assert taught(rows).scale[0] == pytest.approx(2.0, rel=0.1)


# Time


def test_router_alpha_aware_gaps_are_no_observations() -> None:
    rows = normal(50)
    one, other = Standardiser(PAIR), Standardiser(PAIR)
    for i, row in enumerate(rows):
        one.learn(row, i)
        other.learn(row, i * 3_600_000_000_000)
    assert (one.centre.tolist(), one.scale.tolist(), one.version) == (other.centre.tolist(), other.scale.tolist(), other.version)
    with pytest.raises(ValueError, match="expected an observation after 49, found one at 49"):
        one.learn(rows[0], 49)
    assert one.version == 50


def test_router_alpha_aware_what_is_standardised_is_by_what_was_learnt_before() -> None:
    one = taught(normal(100))
    value = np.array([1.0, 1.0])
    before = one.z(value).tolist()
    one.z(np.array([50.0, 50.0]))
    assert one.z(value).tolist() == before
    one.learn(np.array([50.0, 50.0]), 100)
    assert one.z(value).tolist() != before


# State


def test_router_alpha_aware_standardising_goes_on_after_a_restart_as_if_there_was_none() -> None:
    rows = np.random.default_rng(6).normal(size=(400, N)) * SCALE + CENTRE
    one = taught(rows[:200], FEATURES)
    other = Standardiser.load(memoryview(one.save()))
    assert other.save() == one.save() and other.version == 200
    for i in range(200, 400):
        one.learn(rows[i], i)
        other.learn(rows[i], i)
    assert other.save() == one.save()
    assert other.z(rows[0]).tolist() == one.z(rows[0]).tolist()
    with pytest.raises(ValueError, match="expected an observation after 399"):
        other.learn(rows[0], 399)


def test_router_alpha_aware_standardising_refuses_the_state_of_others() -> None:
    saved = Standardiser(PAIR).save()
    with pytest.raises(ValueError, match=r"of version 1 of \['obi'.*found one of version 1 of \['flow', 'level'\]"):
        Standardiser.load(saved)
    version, *rest = msgspec.msgpack.decode(saved)
    with pytest.raises(ValueError, match="found one of version 2"):
        Standardiser.load(msgspec.msgpack.encode([version + 1, *rest]), PAIR)


def test_router_alpha_aware_standardising_refuses_an_array_of_another_shape() -> None:
    one = Standardiser()
    for ask in (one.z, lambda values: one.learn(values, 1)):
        with pytest.raises(ValueError, match=f"expected the values of {N} features, found an array of shape"):
            ask(np.zeros(N - 1))


def test_router_alpha_aware_signed_features_keep_their_sign() -> None:
    rows = np.abs(np.random.default_rng(7).normal(size=(500, N))) * SCALE + 1.0
    one = taught(rows, FEATURES)
    assert (one.centre[SIGNED] == 0.0).all()
    assert (one.z(np.full(N, 1e-9))[SIGNED] > 0.0).all() and one.z(np.full(N, -1e-9))[PLACE["obi"]] < 0.0
    assert len(NAMES) == N
