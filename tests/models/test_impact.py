"""Impact: published tables, the decay of own fills, and what a planted market gives back."""

import math
from collections.abc import Callable
from typing import get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models import impact
from alphapack.models.impact import Impact, Shift

SIGMA_1S_BPS = 4.0 / math.sqrt(60.0)
"""Four bps a minute, as Bitcoin has."""
BELIEVED = impact.prior(4.0 * math.sqrt(1_440.0) / 1e4)
SMALL = 1.2e-5


def tape(seed: int, n: int, k: float, a: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return signed shares, moves and durations of bars whose flow moves the price by ``k x^a``."""
    chance = np.random.default_rng(seed)
    shares = chance.choice([-1.0, 1.0], n) * 10.0 ** chance.uniform(-6.0, -2.0, n)
    durations = chance.choice([1.0, 10.0, 60.0, 300.0], n)
    noise = chance.standard_normal(n) * SIGMA_1S_BPS * np.sqrt(durations)
    return shares, np.sign(shares) * k * np.abs(shares) ** a + noise, durations


def small_fills(seed: int, k: float = BELIEVED.k, a: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return 1,000 equal fills of a minute each."""
    noise = 4.0 * np.random.default_rng(seed).standard_normal(1_000)
    return np.full(1_000, SMALL), k * SMALL**a + noise, np.full(1_000, 60.0), SIGMA_1S_BPS


# What an order costs.


def test_execution_planner_cost_is_half_the_spread_and_a_power_of_size() -> None:
    assert impact.cost_bps(0.01, 137.0, 0.5, 0.25) == pytest.approx(0.25 + 13.7, rel=1e-15)
    assert impact.cost_bps(0.0, 137.0, 0.5, 0.25) == 0.25
    assert impact.cost_bps(4.0, 2.0, 1.0, 0.0) == 8.0


@given(st.floats(1e-9, 1.0), st.floats(0.1, 1e4), st.floats(0.2, 1.0))
def test_execution_planner_cost_grows_with_size_and_is_homogeneous(share: float, k: float, a: float) -> None:
    once = impact.cost_bps(share, k, a, 0.0)
    assert impact.cost_bps(2.0 * share, k, a, 0.0) == pytest.approx(2.0**a * once, rel=1e-12)
    assert impact.cost_bps(share, k, a, 1.0) == 1.0 + once


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ((-0.1, 1.0, 0.5, 0.0), "share from 0 to 1000, found -0.1"),
        ((math.nan, 1.0, 0.5, 0.0), "share"),
        ((0.1, -1.0, 0.5, 0.0), "k from 0"),
        ((0.1, math.inf, 0.5, 0.0), "k from 0"),
        ((0.1, 1.0, 0.0, 0.0), "a above 0"),
        ((0.1, 1.0, math.nan, 0.0), "a above 0"),
        ((0.1, 1.0, 0.5, -1.0), "half_spread_bps"),
    ],
)
def test_execution_planner_cost_refuses_what_is_out_of_range(wrong: tuple[float, float, float, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        impact.cost_bps(*wrong)


# Almgren, Thum, Hauptmann, Li (2005): a tenth of a day's volume of IBM and DRI, over .1, .2 and .5 days.


@pytest.mark.parametrize(
    ("volume", "outstanding", "sigma", "turnover", "normal", "permanent", "costs", "temporary", "printed"),
    [
        (6.561e6, 1_728e6, 0.0157, "263.374", "0.126", "19.86", ["32.22", "24.64", "18.42"], ["22", "15", "8"], ["32", "25", "18"]),
        (1.929e6, 168e6, 0.0226, "87.092", "0.096", "21.68", ["42.93", "32.01", "23.06"], ["32", "21", "12"], ["43", "32", "23"]),
    ],
    ids=["IBM", "DRI"],
)
def test_execution_planner_athl_gives_the_published_table(
    volume: float,
    outstanding: float,
    sigma: float,
    turnover: str,
    normal: str,
    permanent: str,
    costs: list[str],
    temporary: list[str],
    printed: list[str],
) -> None:
    found = [impact.athl(0.1 * volume, volume, outstanding, sigma, days) for days in (0.1, 0.2, 0.5)]
    assert f"{outstanding / volume:.3f}" == turnover
    assert {f"{one.permanent_bps / (1e4 * sigma):.3f}" for one in found} == {normal}
    assert {f"{one.permanent_bps:.2f}" for one in found} == {permanent}
    assert [f"{one.cost_bps:.2f}" for one in found] == costs
    assert [f"{one.temporary_bps:.0f}" for one in found] == temporary
    assert [f"{one.cost_bps:.0f}" for one in found] == printed


@given(st.floats(1.0, 1e9), st.floats(1e3, 1e9), st.floats(1e-3, 0.2), st.floats(0.01, 5.0))
def test_execution_planner_athl_twice_the_size_is_two_to_the_beta_times_the_temporary_part(
    quantity: float, volume: float, sigma: float, days: float
) -> None:
    once, twice = (impact.athl(size, volume, 250.0 * volume, sigma, days) for size in (quantity, 2.0 * quantity))
    assert twice.temporary_bps == pytest.approx(2.0**0.6 * once.temporary_bps, rel=1e-13)
    assert twice.permanent_bps == pytest.approx(2.0 * once.permanent_bps, rel=1e-13)
    slower = impact.athl(quantity, volume, 250.0 * volume, sigma, 2.0 * days)
    assert slower.permanent_bps == once.permanent_bps
    assert slower.temporary_bps == pytest.approx(2.0**-0.6 * once.temporary_bps, rel=1e-13)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_execution_planner_athl_refuses_what_is_not_positive(place: int, wrong: float) -> None:
    arguments = [1e5, 1e6, 1e8, 0.02, 0.5]
    arguments[place] = wrong
    with pytest.raises(ValueError, match="positive and finite"):
        impact.athl(*arguments)


def test_execution_planner_athl_refuses_what_no_float_holds() -> None:
    with pytest.raises(ValueError, match="that a float holds"):
        impact.athl(1e300, 1e-300, 1e300, 1.0, 1.0)
    with pytest.raises(ValueError, match="that a float holds"):
        impact.athl(1e10, 1.0, 1.0, 1.0, 1.0, beta=1e3)


# How own fills fade.


def direct(times: np.ndarray, shares: np.ndarray, k: float, a: float, tau: float, t: float) -> tuple[float, float]:
    """Return the sum over fills up to t and that of its sizes."""
    terms = [
        math.copysign(k * abs(x) ** a, x) * math.exp((at - t) / tau)
        for at, x in zip(times.tolist(), shares.tolist(), strict=True)
        if at <= t
    ]
    return math.fsum(terms), math.fsum(map(abs, terms))


@pytest.mark.parametrize(("n", "tau", "a"), [(1, 60.0, 0.5), (300, 60.0, 0.5), (300, 1.5, 0.8), (300, 1e4, 0.25)])
def test_execution_planner_propagator_equals_the_direct_sum(n: int, tau: float, a: float) -> None:
    chance = np.random.default_rng(n)
    times = np.sort(np.round(chance.uniform(0.0, 600.0, n), 1))  # Some fills share a time.
    shares = chance.standard_normal(n) * 1e-4
    asked = np.sort(np.concatenate((times, chance.uniform(-10.0, 900.0, 200))))
    found = impact.propagator(times, shares, 137.0, a, tau, asked)
    for t, shift in zip(asked.tolist(), found.tolist(), strict=True):
        expected, size = direct(times, shares, 137.0, a, tau, t)
        assert abs(shift - expected) <= 1e-12 * size
    assert (found[asked < times[0]] == 0.0).all()
    np.testing.assert_array_equal(impact.propagator(times, shares, 137.0, a, tau), found[np.searchsorted(asked, times, "right") - 1])


def test_execution_planner_propagator_is_carried_on_from_fill_to_fill() -> None:
    chance = np.random.default_rng(7)
    times, shares = np.cumsum(chance.exponential(3.0, 500)), chance.standard_normal(500) * 1e-4
    state, before = Shift(), []
    for t, share in zip(times.tolist(), shares.tolist(), strict=True):
        before.append(state.at(t))
        state = state.after(t, share, 137.0, 0.5)
    own = np.sign(shares) * 137.0 * np.sqrt(np.abs(shares))
    np.testing.assert_allclose(np.array(before) + own, impact.propagator(times, shares, 137.0, 0.5), rtol=1e-12, atol=1e-12)
    assert state.t_s == times[-1]


def test_execution_planner_propagator_has_signs_and_a_time_constant() -> None:
    bought = Shift().after(10.0, 1e-4, 100.0, 0.5, 60.0)
    assert bought.bps == pytest.approx(1.0, rel=1e-15)
    assert bought.at(70.0, 60.0) == pytest.approx(math.exp(-1.0), rel=1e-15)
    assert Shift().after(10.0, -1e-4, 100.0, 0.5).bps == -bought.bps
    assert bought.after(10.0, -1e-4, 100.0, 0.5) == Shift(10.0, 0.0)
    assert bought.after(10.0, 0.0, 100.0, 0.5).bps == bought.bps


def test_execution_planner_propagator_makes_slicing_cost_and_waiting_pay() -> None:
    whole = impact.propagator(np.zeros(1), np.array([1e-3]), 137.0, 0.5)[-1]
    sliced = impact.propagator(np.zeros(4), np.full(4, 1e-3 / 4.0), 137.0, 0.5)[-1]
    spread = impact.propagator(60.0 * np.arange(4.0), np.full(4, 1e-3 / 4.0), 137.0, 0.5)[-1]
    assert sliced == pytest.approx(2.0 * whole, rel=1e-12)
    assert whole / 2.0 < spread < whole


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([2.0, 1.0], [1.0, 1.0], 1.0, 0.5), "times_s that do not decrease, found 2.0 before 1.0"),
        (([1.0, 2.0], [1.0], 1.0, 0.5), "shares of 2 numbers"),
        (([1.0, math.nan], [1.0, 1.0], 1.0, 0.5), "times_s finite"),
        (([1.0], [math.inf], 1.0, 0.5), "shares finite"),
        (([1.0], [1.0], -1.0, 0.5), "k from 0"),
        (([1.0], [1.0], 1.0, 0.5, 0.0), "tau_s positive"),
        (([1.0], [1.0], 1.0, 0.5, 60.0, [3.0, 2.0]), "at_s that do not decrease"),
        (([[1.0]], [1.0], 1.0, 0.5), "one dimension"),
    ],
)
def test_execution_planner_propagator_refuses_what_is_wrong(arguments: tuple[object, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        impact.propagator(*arguments)  # type: ignore[arg-type]


def test_execution_planner_propagator_does_not_go_back() -> None:
    with pytest.raises(ValueError, match=r"from 10\.0 s on, found 9\.0"):
        Shift().after(10.0, 1e-4, 1.0, 0.5).at(9.0)
    with pytest.raises(ValueError, match="finite time and shift"):
        Shift(0.0, math.nan)
    assert impact.propagator(np.zeros(0), np.zeros(0), 1.0, 0.5).shape == (0,)


# What is believed, and what a planted market gives back.


def test_execution_planner_impact_prior_is_that_of_the_definitions() -> None:
    believed = impact.prior(0.02)
    assert believed == Impact(k=180.0, a=0.5, k_stderr=0.7, a_stderr=0.1, source="prior", n=0, pivot_share=1.0)
    assert believed.log_stderr(1.0) == 0.7
    assert believed.log_stderr(1e-4) == pytest.approx(math.hypot(0.7, 0.1 * math.log(1e4)))


@pytest.mark.parametrize(("k", "a"), [(250.0, 0.6), (90.0, 0.42), (1_500.0, 0.75)])
def test_execution_planner_impact_gives_a_planted_tape_back(k: float, a: float) -> None:
    """The exponent within .02 as it is, k within 2 % of itself, and both within four of the errors told."""
    for seed in range(3):
        shares, moves, durations = tape(seed, 50_000, k, a)
        found = impact.from_bars(shares, moves, BELIEVED, durations)
        assert abs(found.a - a) < min(0.02, 4.0 * found.a_stderr)
        assert abs(math.log(found.k / k)) < min(0.02, 4.0 * found.log_stderr(1.0))
        at_pivot = impact.cost_bps(found.pivot_share, found.k, found.a, 0.0) / impact.cost_bps(found.pivot_share, k, a, 0.0)
        assert abs(math.log(at_pivot)) < 4.0 * found.k_stderr
        assert (found.source, found.n) == ("bars", 50_000)


def test_execution_planner_impact_weighs_bars_by_their_duration() -> None:
    """Without durations a long bar counts as much as a short one: the errors grow, and those told say so."""
    shares, moves, durations = tape(5, 20_000, 250.0, 0.6)
    weighed, alike = impact.from_bars(shares, moves, BELIEVED, durations), impact.from_bars(shares, moves, BELIEVED)
    assert alike.a_stderr > 2.0 * weighed.a_stderr
    idle = np.zeros(100)
    padded = impact.from_bars(
        np.concatenate((shares, idle)), np.concatenate((moves, idle + 50.0)), BELIEVED, np.concatenate((durations, idle + 1.0))
    )
    assert padded == weighed


def test_execution_planner_impact_tells_errors_that_hold_where_noise_grows_with_flow() -> None:
    far, k, a = [], 137.0, 0.6
    for seed in range(40):
        chance = np.random.default_rng(seed)
        shares = chance.choice([-1.0, 1.0], 6_000) * 10.0 ** chance.uniform(-6.0, -3.0, 6_000)
        moved = k * np.abs(shares) ** a
        found = impact.from_bars(shares, np.sign(shares) * moved + 2.0 * moved * chance.standard_normal(6_000), BELIEVED)
        at_pivot = impact.cost_bps(found.pivot_share, found.k, found.a, 0.0) / impact.cost_bps(found.pivot_share, k, a, 0.0)
        far.append(((found.a - a) / found.a_stderr, math.log(at_pivot) / found.k_stderr))
    assert np.sqrt(np.mean(np.square(far), axis=0)).max() < 1.3  # Without White's errors: 1.6 and 2.0.


def test_execution_planner_impact_is_learnt_from_bars_of_which_few_are_a_tick() -> None:
    """Moves of a whole tick, most of them none: the mean holds, where a median would be 0."""
    chance, n, k, a, tick = np.random.default_rng(2), 200_000, 250.0, 0.6, 5.0
    shares = chance.choice([-1.0, 1.0], n) * 10.0 ** chance.uniform(-5.0, -3.0, n)
    moves = np.sign(shares) * tick * (chance.random(n) < k * np.abs(shares) ** a / tick)
    assert np.mean(moves == 0.0) > 0.7
    found = impact.from_bars(shares, moves, BELIEVED)
    assert abs(found.a - a) < 0.02


def test_execution_planner_impact_is_read_off_a_displayed_book() -> None:
    sizes = np.geomspace(1e-6, 1e-3, 16)
    found = impact.from_sweeps(sizes, 300.0 * sizes**0.7, BELIEVED)
    assert abs(found.a - 0.7) < 0.02
    at = sizes[8]
    assert impact.cost_bps(at, found.k, found.a, 0.0) == pytest.approx(300.0 * at**0.7, rel=0.02)
    assert found.k_stderr == pytest.approx(0.1 / math.sqrt(16.0), rel=0.01)  # An exact power counts as one to a tenth.
    assert found.a_stderr < 0.02 and 1e-6 < found.pivot_share < 1e-3
    inside = impact.from_sweeps(sizes, np.where(sizes < 2e-6, 0.0, 300.0 * sizes**0.7), BELIEVED)
    assert found.a < inside.a < 1.0 and inside.a_stderr > found.a_stderr


def test_execution_planner_impact_small_equal_fills_say_nothing_on_the_exponent() -> None:
    """1,000 of them at 4 bps a minute tell k to 27 %, and leave a where it was."""
    assert 4.0 / math.sqrt(1_000.0) / (BELIEVED.k * math.sqrt(SMALL)) == pytest.approx(0.27, abs=0.005)
    errors = []
    for seed in range(60):
        found = impact.from_fills(*small_fills(seed), BELIEVED)
        assert (found.a, found.a_stderr, found.n, found.source) == (0.5, 0.1, 1_000, "fills")
        errors.append(math.log(found.k / BELIEVED.k))
    assert 0.17 < np.std(errors) < 0.29 and abs(np.mean(errors)) < 0.1

    shares, costs, durations, sigma = small_fills(0)
    centred = (costs - costs.mean()) / costs.std()
    level = impact.from_fills(shares, BELIEVED.k * SMALL**0.5 + 4.0 * centred, durations, sigma, BELIEVED)
    assert level.k == pytest.approx(BELIEVED.k, rel=0.05)
    alone = 1.0 / math.sqrt(level.k_stderr**-2 - BELIEVED.k_stderr**-2)
    assert alone == pytest.approx(0.27, abs=0.02)


def test_execution_planner_impact_a_resting_exponent_is_right_at_the_sizes_seen_alone() -> None:
    true = 0.6
    shares, _, durations, _ = small_fills(0)
    found = impact.from_fills(shares, 300.0 * shares**true, durations, 0.01, BELIEVED)
    assert found.a == 0.5
    ratio = [impact.cost_bps(x, found.k, found.a, 0.0) / (300.0 * x**true) for x in (SMALL, 100.0 * SMALL)]
    assert ratio == pytest.approx([1.0, 100.0 ** (0.5 - true)], rel=1e-3)
    assert found.pivot_share == pytest.approx(SMALL, rel=0.01)
    assert found.log_stderr(SMALL) < 0.01 and found.log_stderr(1.0) > 1.0


def test_execution_planner_impact_exponent_moves_only_where_it_is_told_to_a_tenth() -> None:
    """Fills under more and more noise, and a prior that says nothing of k: it neither tells a."""
    chance = np.random.default_rng(4)
    shares = 10.0 ** chance.uniform(-5.0, -3.0, 400)
    draws, durations = chance.standard_normal(400), np.full(400, 1.0)
    believed = msgspec.structs.replace(BELIEVED, k_stderr=1e3)
    rested, alone = [], []
    for sigma in np.geomspace(0.01, 10.0, 200).tolist():
        found = impact.from_fills(shares, 137.0 * shares**0.7 + sigma * draws, durations, sigma, believed)
        rested.append(found.a == 0.5)
        if rested[-1]:
            assert found.a_stderr == 0.1
        else:
            alone.append((found.a_stderr**-2 - 0.1**-2) ** -0.5)
    assert rested == sorted(rested) and not rested[0] and rested[-1]
    assert 0.09 < max(alone) < 0.1


def test_execution_planner_impact_from_fills_is_the_mode_of_prior_times_huber() -> None:
    chance = np.random.default_rng(9)
    shares = 10.0 ** chance.uniform(-5.0, -2.0, 300)
    durations = chance.uniform(0.0, 300.0, 300)
    sigmas = chance.uniform(0.2, 1.0, 300)
    noise = sigmas * np.sqrt(np.maximum(durations, 1.0))
    costs = 200.0 * shares**0.65 + noise * chance.standard_t(3, 300)
    found = impact.from_fills(shares, costs, durations, sigmas, BELIEVED)
    assert found.a != 0.5

    def loss(log_k: float, a: float) -> float:
        size = np.abs(costs - math.exp(log_k) * shares**a) / noise
        lost = np.where(size <= impact.HUBER, size * size / 2.0, impact.HUBER * (size - impact.HUBER / 2.0))
        return float(lost.sum()) + ((log_k - math.log(BELIEVED.k)) / 0.7) ** 2 / 2.0 + ((a - 0.5) / 0.1) ** 2 / 2.0

    here = math.log(found.k), found.a
    for step in (1e-3, 1e-2, 0.1):
        assert loss(*here) < min(loss(here[0] + u * step, here[1] + v * step) for u in (-1, 0, 1) for v in (-1, 0, 1) if u or v)
    for ridge in (-0.5, 0.5):  # Along the ridge too, where k and a make up for each other.
        lean = -math.log(found.pivot_share)
        assert loss(*here) < loss(here[0] + lean * ridge * found.a_stderr, here[1] + ridge * found.a_stderr)


def test_execution_planner_impact_an_outlier_among_fills_hardly_pulls() -> None:
    chance = np.random.default_rng(3)
    shares = 10.0 ** chance.uniform(-5.0, -2.0, 2_000)
    costs = 200.0 * shares**0.6 + 2.0 * chance.standard_normal(2_000)
    plain = impact.from_fills(shares, costs, np.full(2_000, 4.0), 1.0, BELIEVED)
    costs[np.argmax(shares)] = 1e5
    pulled = impact.from_fills(shares, costs, np.full(2_000, 4.0), 1.0, BELIEVED)
    assert abs(pulled.a - plain.a) < plain.a_stderr / 2.0
    assert abs(math.log(pulled.k / plain.k)) < plain.log_stderr(1.0) / 2.0


# One source after another.


def test_execution_planner_impact_of_one_source_is_where_the_next_begins() -> None:
    """A book four times too dear, then a tape and fills that know better."""
    k, a, sizes = 250.0, 0.6, np.geomspace(1e-6, 1e-2, 24)
    displayed = impact.from_sweeps(sizes, 4.0 * k * sizes**a, BELIEVED)
    assert displayed.k == pytest.approx(4.0 * k, rel=0.1)
    shares, moves, durations = tape(1, 20_000, k, a)
    taped = impact.from_bars(shares, moves, displayed, durations)
    assert abs(taped.a - a) < 0.03 and abs(math.log(taped.k / k)) < 0.15
    rested = impact.from_fills(*small_fills(2, k, a), taped)
    assert rested.a == taped.a and rested.a_stderr < 0.1
    assert rested.source == "fills"
    assert abs(math.log(rested.k / taped.k)) < 3.0 * 0.35
    assert rested.k_stderr < impact.from_fills(*small_fills(2, k, a), BELIEVED).k_stderr


def test_execution_planner_impact_fills_can_overrule_a_sharp_tape() -> None:
    """A tape that is sure of twice the impact: a thousand fills, good to 27 %, take most of it back."""
    sure = Impact(k=2.0 * BELIEVED.k, a=0.5, k_stderr=0.001, a_stderr=0.001, source="bars", n=1_000_000, pivot_share=SMALL)
    shares, costs, durations, sigma = small_fills(0)
    costs += BELIEVED.k * math.sqrt(SMALL) - costs.mean()
    taken_back = math.log(sure.k / impact.from_fills(shares, costs, durations, sigma, sure).k) / math.log(2.0)
    assert 0.5 < taken_back < 1.0
    own = msgspec.structs.replace(sure, source="fills")  # The same source goes on where it was.
    assert impact.from_fills(shares, costs, durations, sigma, own).k == pytest.approx(own.k, rel=0.001)


def test_execution_planner_impact_in_two_parts_is_nearly_that_of_the_whole() -> None:
    shares, moves, durations = tape(3, 40_000, 250.0, 0.6)
    whole = impact.from_bars(shares, moves, BELIEVED, durations)
    half = impact.from_bars(shares[:20_000], moves[:20_000], BELIEVED, durations[:20_000])
    parts = impact.from_bars(shares[20_000:], moves[20_000:], half, durations[20_000:])
    assert abs(parts.a - whole.a) < 0.3 * whole.a_stderr
    assert abs(math.log(parts.k / whole.k)) < 0.3 * whole.log_stderr(1.0)
    assert parts.a_stderr == pytest.approx(whole.a_stderr, rel=0.05)
    assert parts.k_stderr == pytest.approx(whole.k_stderr, rel=0.05)


def test_execution_planner_impact_sources_come_in_their_order() -> None:
    last = msgspec.structs.replace(BELIEVED, source="fills", n=1)
    shares, moves, durations = tape(1, 100, 250.0, 0.6)
    with pytest.raises(ValueError, match=r"expected a prior from bars or before .*, found one from fills"):
        impact.from_bars(shares, moves, last, durations)
    with pytest.raises(ValueError, match="expected a prior from sweeps or before"):
        impact.from_sweeps(np.abs(shares), np.abs(moves), last)


@pytest.mark.parametrize(("true", "bound"), [(0.05, 0.2), (1.6, 1.0)])
def test_execution_planner_impact_exponent_stays_within_its_bounds(true: float, bound: float) -> None:
    shares = np.geomspace(1e-5, 1e-2, 200)
    found = impact.from_fills(shares, 500.0 * shares**true, np.ones(200), 0.01, BELIEVED)
    assert found.a == bound


@pytest.mark.parametrize("factor", [0.1, 50.0])
def test_execution_planner_impact_has_no_scale_of_its_own(factor: float) -> None:
    shares, moves, durations = tape(8, 5_000, 250.0, 0.6)
    one = impact.from_bars(shares, moves, BELIEVED, durations)
    other = impact.from_bars(shares, factor * moves, impact.prior(factor * 4.0 * math.sqrt(1_440.0) / 1e4), durations)
    assert other.k == pytest.approx(factor * one.k, rel=1e-6)
    assert (other.a, other.k_stderr, other.a_stderr) == pytest.approx((one.a, one.k_stderr, one.a_stderr), rel=1e-6)
    mirrored = impact.from_bars(-shares, -moves, BELIEVED, durations)
    assert mirrored == one


# What no number gets past.

_wide = st.one_of(st.floats(-1e5, 1e5), st.floats(-1e-3, 1e-3), st.sampled_from([0.0, 1e5, -1e5, 1e-300]))
_size = st.floats(-12.0, 3.0).map(lambda power: min(max(10.0**power, impact.SHARE_MIN), impact.SHARE_MAX))
_believed = st.builds(
    Impact,
    k=st.floats(1e-3, 1e6),
    a=st.floats(0.2, 1.0),
    k_stderr=st.floats(1e-3, 0.7),
    a_stderr=st.floats(1e-3, 0.1),
    source=st.just("prior"),
    n=st.just(0),
    pivot_share=_size,
)


def finite(found: Impact) -> None:
    assert all(math.isfinite(value) for value in (found.k, found.a, found.k_stderr, found.a_stderr, found.pivot_share))
    assert 0.2 <= found.a <= 1.0 and found.k > 0.0


@given(st.lists(st.tuples(_size, _wide, st.floats(0.0, 86_400.0), st.floats(0.01, 1e5)), min_size=1, max_size=30), _believed)
def test_execution_planner_impact_from_any_fills_is_finite(rows: list[tuple[float, float, float, float]], believed: Impact) -> None:
    shares, costs, durations, sigmas = np.array(rows).T
    found = impact.from_fills(shares, costs, durations, sigmas, believed)
    finite(found)
    assert found == impact.from_fills(shares, costs, durations, sigmas, believed)


@given(st.lists(st.tuples(_size, _wide, st.floats(1e-3, 86_400.0)), min_size=20, max_size=40), _believed)
def test_execution_planner_impact_from_any_bars_is_finite(rows: list[tuple[float, float, float]], believed: Impact) -> None:
    shares, moves, durations = np.array(rows).T
    shares[::2] *= -1.0
    finite(impact.from_bars(shares, moves, believed, durations))


@given(st.lists(st.tuples(_size, _wide.map(abs)), min_size=3, max_size=30), _believed)
def test_execution_planner_impact_from_any_sweeps_is_finite(rows: list[tuple[float, float]], believed: Impact) -> None:
    shares, costs = np.array(rows).T
    if costs.any():
        finite(impact.from_sweeps(shares, costs, believed))


BARS = np.tile([1e-4, -1e-4], 10)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: impact.prior(0.0), "sigma_1d"),
        (lambda: impact.prior(math.nan), "sigma_1d"),
        (lambda: impact.from_bars(BARS[:19], BARS[:19], BELIEVED), "shares of 20 to"),
        (lambda: impact.from_bars(np.abs(BARS), np.abs(BARS), BELIEVED), "on both sides and signed, found 20 that bought and 0 that sold"),
        (lambda: impact.from_bars(BARS * 0.0, BARS, BELIEVED), "at least 20 bars with net volume"),
        (lambda: impact.from_bars(BARS, BARS[:-1], BELIEVED), "moves_bps of 20 numbers"),
        (lambda: impact.from_bars(BARS, BARS * math.nan, BELIEVED), "moves_bps finite"),
        (lambda: impact.from_bars(BARS, BARS, BELIEVED, np.abs(BARS) * 0.0), "durations_s finite and from 0.001"),
        (lambda: impact.from_sweeps(np.ones(2), np.ones(2), BELIEVED), "shares of 3 to"),
        (lambda: impact.from_sweeps(np.ones(3), np.zeros(3), BELIEVED), "a cost above 0"),
        (lambda: impact.from_sweeps(np.zeros(3), np.ones(3), BELIEVED), "shares finite and from 1e-12 to 1000, found 0.0 at 0"),
        (lambda: impact.from_sweeps(np.ones(3), -np.ones(3), BELIEVED), "costs_bps finite and from 0"),
        (lambda: impact.from_fills(np.ones(0), np.ones(0), np.ones(0), 1.0, BELIEVED), "shares of 1 to"),
        (lambda: impact.from_fills(np.ones(2), np.ones(2), np.ones(2), 0.0, BELIEVED), "sigma_1s_bps finite and from 0.01"),
        (lambda: impact.from_fills(np.ones(2), np.ones(2), np.ones(2), np.ones(3), BELIEVED), "sigma_1s_bps of 2 numbers"),
        (lambda: impact.from_fills(np.ones(2), np.ones(2), -np.ones(2), 1.0, BELIEVED), "durations_s finite and from 0"),
        (lambda: impact.from_fills(np.ones(2), np.ones(2) * math.inf, np.ones(2), 1.0, BELIEVED), "costs_bps finite"),
        (lambda: BELIEVED.log_stderr(0.0), "share from 1e-12"),
        (lambda: msgspec.structs.replace(BELIEVED, k=math.nan), "k above 0"),
        (lambda: msgspec.structs.replace(BELIEVED, a=0.1), "a from 0.2 to 1.0, found .* and 0.1"),
        (lambda: msgspec.structs.replace(BELIEVED, k_stderr=0.0), "positive and finite"),
        (lambda: msgspec.structs.replace(BELIEVED, pivot_share=0.0), "a pivot"),
        (lambda: msgspec.structs.replace(BELIEVED, source="guess"), f"a source {', '.join(get_args(impact.Source))}"),
    ],
)
def test_execution_planner_impact_says_what_was_expected_and_what_came(call: Callable[[], object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()


def test_execution_planner_impact_of_a_steep_book_is_found_from_wherever_the_fit_begins() -> None:
    sizes = np.geomspace(1e-6, 3.2e-4, 6)
    displayed = 1.4e4 * sizes**0.98
    for sigma_1d in (0.003, 0.02, 0.1):
        found = impact.from_sweeps(sizes, displayed, impact.prior(sigma_1d))
        assert abs(found.a - 0.98) < 0.08
        paid = [impact.cost_bps(size, found.k, found.a, 0.0) for size in sizes]
        assert paid == pytest.approx(displayed, rel=0.25), "the prior still pulls, by a fifth at the ends"
