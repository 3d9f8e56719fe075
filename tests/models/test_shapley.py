"""Shapley values against games with known answers, the axioms that define them, and a slow twin; money that adds up."""

import math
from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models import shapley as m

GAMES = st.integers(1, 7).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.floats(-1e3, 1e3), min_size=2**n, max_size=2**n).map(np.array))
)


def uniforms(seed: int) -> Iterator[float]:
    chance = np.random.default_rng(seed)
    while True:
        yield chance.random()


def naive(value: np.ndarray, n: int) -> np.ndarray:
    """The mean over coalitions, a player at a time; exact sums."""
    coalitions = np.arange(2**n)
    credits = np.empty(n)
    for player in range(n):
        without = coalitions[coalitions >> player & 1 == 0]
        shares = np.array([1.0 / (n * math.comb(n - 1, size)) for size in range(n)])[np.bitwise_count(without)]
        credits[player] = math.fsum(shares * (value[without | 1 << player] - value[without]))
    return credits


def over_orders(value: np.ndarray, n: int) -> list[float]:
    """The mean over all orders of arrival: the definition in words."""
    added: list[list[float]] = [[] for _ in range(n)]
    for order in permutations(range(n)):
        coalition = 0
        for player in order:
            added[player].append(value[coalition | 1 << player] - value[coalition])
            coalition |= 1 << player
    return [math.fsum(one) / math.factorial(n) for one in added]


def glove(coalition: int) -> float:
    """Players 0 and 1 have a left glove, player 2 a right one; a pair is worth 1."""
    return float(min((coalition & 3).bit_count(), coalition >> 2))


def airport(coalition: int) -> float:
    """Player i needs a runway of cost i + 1; one runway serves all."""
    return float(coalition.bit_length())


def pnl(n: int, seed: int) -> np.ndarray:
    """What a trade earns when only some signals enter its exposure: in bps, with a cost that is not linear."""
    weights = np.random.default_rng(seed).normal(0.0, 0.4, n)
    blend = np.array([sum(weights[i] for i in range(n) if coalition >> i & 1) for coalition in range(2**n)])
    position = np.tanh(blend)
    return 1e4 * (position * 0.0021 - 0.0004 * np.abs(position) ** 1.5 - 0.00005)


@pytest.mark.parametrize(("game", "expected"), [(glove, [1 / 6, 1 / 6, 2 / 3]), (airport, [1 / 3, 5 / 6, 11 / 6])])
def test_alpha_attribution_of_games_with_known_answers(game: object, expected: list[float]) -> None:
    value = [game(coalition) for coalition in range(8)]  # type: ignore[operator]
    np.testing.assert_allclose(m.shapley(value, 3), expected, rtol=1e-15)


def test_alpha_attribution_is_the_mean_over_all_orders() -> None:
    value = np.random.default_rng(1).normal(size=2**6)
    np.testing.assert_allclose(m.shapley(value, 6), over_orders(value, 6), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 12, 16])
def test_alpha_attribution_equals_the_naive_sum(n: int) -> None:
    chance = np.random.default_rng(n)
    for value in (chance.normal(size=2**n), 1e6 + chance.normal(size=2**n)):
        expected = naive(value, n)
        scale = np.max(np.abs(value - value[0]))
        np.testing.assert_allclose(m.shapley(value, n), expected, rtol=0.0, atol=1e-12 * min(scale, np.max(np.abs(expected))))


@pytest.mark.parametrize("n", [4, 12, 17])
def test_alpha_attribution_adds_up_to_the_trade(n: int) -> None:
    value = pnl(n, n)
    assert math.fsum(m.shapley(value, n)) == pytest.approx(value[-1] - value[0], rel=1e-14, abs=1e-14)


@given(GAMES)
def test_alpha_attribution_is_efficient(game: tuple[int, np.ndarray]) -> None:
    n, value = game
    assert math.fsum(m.shapley(value, n)) == pytest.approx(value[-1] - value[0], rel=1e-14, abs=1e-11)


@given(GAMES, st.integers(0, 6), st.floats(-10.0, 10.0))
def test_alpha_attribution_gives_nothing_to_who_adds_nothing(game: tuple[int, np.ndarray], player: int, alone: float) -> None:
    """A player whose arrival changes no coalition gets 0 to the last bit; one who always adds the same gets that."""
    n, value = game
    player %= n
    without = np.arange(2**n) & ~(1 << player)
    assert m.shapley(value[without], n)[player] == 0.0
    paid = value[without] + alone * (np.arange(2**n) >> player & 1)
    assert m.shapley(paid, n)[player] == pytest.approx(alone, abs=1e-11)


@given(GAMES, st.integers(0, 6), st.integers(0, 6))
def test_alpha_attribution_treats_equals_alike(game: tuple[int, np.ndarray], one: int, other: int) -> None:
    n, value = game
    one, other = one % n, other % n
    coalitions = np.arange(2**n)
    differ = (coalitions >> one ^ coalitions >> other) & 1
    exchanged = coalitions ^ (differ << one | differ << other if one != other else 0 * differ)
    symmetric = 0.5 * (value + value[exchanged])
    credits = m.shapley(symmetric, n)
    assert credits[one] == pytest.approx(credits[other], rel=1e-12, abs=1e-11)


@given(GAMES, st.floats(-5.0, 5.0), st.integers(0, 2**32 - 1))
def test_alpha_attribution_is_linear_in_the_game(game: tuple[int, np.ndarray], factor: float, seed: int) -> None:
    n, value = game
    other = np.random.default_rng(seed).normal(0.0, 100.0, 2**n)
    expected = factor * m.shapley(value, n) + m.shapley(other, n)
    np.testing.assert_allclose(m.shapley(factor * value + other, n), expected, rtol=0.0, atol=1e-10)


def test_alpha_attribution_of_one_left_out_does_not_add_up() -> None:
    value = [glove(coalition) for coalition in range(8)]
    np.testing.assert_array_equal(m.leave_one_out(value, 3), [0.0, 0.0, 1.0])
    both = [0.0, 1.0, 1.0, 1.0]  # Either is enough: without one of them nothing is lost.
    np.testing.assert_array_equal(m.leave_one_out(both, 2), [0.0, 0.0])
    np.testing.assert_allclose(m.shapley(both, 2), [0.5, 0.5])


@pytest.mark.parametrize(
    ("value", "n", "reason"),
    [
        ([0.0], 0, "expected from 1 to 20 players, found 0"),
        ([0.0] * 4, 21, "expected from 1 to 20 players, found 21"),
        ([0.0] * 4, 3, r"expected 8 numbers, one a coalition of 3 players, found float64 of shape \(4,\)"),
        ([[0.0] * 4], 2, r"shape \(1, 4\)"),
        (["a"] * 4, 2, "expected 4 numbers"),
        ([0.0, 1.0, math.nan, 0.0], 2, "found nan"),
        ([0.0, 1.0, 0.0, math.inf], 2, "found inf"),
    ],
)
def test_alpha_attribution_refuses_what_is_no_game(value: list[float], n: int, reason: str) -> None:
    for function in (m.shapley, m.leave_one_out):
        with pytest.raises(ValueError, match=reason):
            function(value, n)


def test_alpha_attribution_sampled_equals_exact_within_its_errors() -> None:
    n = 10
    value = pnl(n, 3)
    estimates, errors = m.sampled(lambda coalition: float(value[coalition]), n, 400, uniforms(1))
    exact = m.shapley(value, n)
    assert np.all(np.abs(estimates - exact) < 4.5 * errors)
    assert np.all(errors < 0.2 * np.max(np.abs(exact)))
    assert math.fsum(estimates) == pytest.approx(value[-1] - value[0], rel=1e-12)


def test_alpha_attribution_sampled_errors_are_those_of_repeated_samples() -> None:
    value = np.random.default_rng(5).normal(size=2**6)
    draws = uniforms(2)
    runs = [m.sampled(lambda coalition: float(value[coalition]), 6, 4, draws) for _ in range(2_000)]
    spread = np.std([estimates for estimates, _ in runs], axis=0)
    stated = np.sqrt(np.mean([errors**2 for _, errors in runs], axis=0))
    np.testing.assert_allclose(stated, spread, rtol=0.12)
    centre = np.mean([estimates for estimates, _ in runs], axis=0)
    assert np.all(np.abs(centre - m.shapley(value, 6)) < 4.5 * spread / math.sqrt(2_000))


def test_alpha_attribution_sampled_pairs_cancel_what_is_almost_linear() -> None:
    """With interactions of two players alone, an order and its reverse give the exact value: no error is left."""
    pull = np.random.default_rng(6).normal(size=(40, 40))

    def value(coalition: int) -> float:
        inside = [i for i in range(40) if coalition >> i & 1]
        return float(pull[np.ix_(inside, inside)].sum())

    estimates, errors = m.sampled(value, 40, 4, uniforms(3))
    expected = np.diag(pull) + 0.5 * (pull + pull.T - 2.0 * np.diag(np.diag(pull))).sum(axis=1)
    np.testing.assert_allclose(estimates, expected, atol=1e-11)
    assert np.all(errors < 1e-11)


def test_alpha_attribution_sampled_takes_so_many_uniforms_and_values() -> None:
    asked: list[int] = []

    def value(coalition: int) -> float:
        asked.append(coalition)
        return float(coalition.bit_count())

    draws = iter([0.5] * 122)
    estimates, errors = m.sampled(value, 62, 4, draws)
    assert next(draws, None) is None
    assert len(asked) == 4 * 61 + 2
    np.testing.assert_array_equal(estimates, np.ones(62))
    np.testing.assert_array_equal(errors, np.zeros(62))


def test_alpha_attribution_sampled_refuses_what_it_cannot_use() -> None:
    def flat(coalition: int) -> float:
        return 0.0

    for n, orders, reason in (
        (1, 4, "expected from 2 to 62 players, found 1"),
        (63, 4, "found 63"),
        (5, 3, "expected an even number"),
        (5, 2, "from 4 to 1000000, found 2"),
        (5, 1_000_002, "found 1000002"),
    ):
        with pytest.raises(ValueError, match=reason):
            m.sampled(flat, n, orders, uniforms(0))
    with pytest.raises(ValueError, match=r"expected 4 uniforms in .* found nan"):
        m.sampled(flat, 5, 4, iter([0.1] * 7))
    with pytest.raises(ValueError, match=r"found 1\.0"):
        m.sampled(flat, 5, 4, iter([1.0] * 100))
    with pytest.raises(ValueError, match="found nan of coalition 31"):
        m.sampled(lambda coalition: math.nan if coalition == 31 else 0.0, 5, 4, uniforms(0))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_alpha_attribution_in_money_adds_up_within_one_unit(values: list[float]) -> None:
    total = round(math.fsum(values))
    units = m.in_money(values, total)
    assert sum(units) == total
    assert all(abs(unit - value) <= 1.0 for unit, value in zip(units, values, strict=True))
    assert all(unit == 0 for unit, value in zip(units, values, strict=True) if value == 0.0)


@given(st.integers(1, 12), st.integers(-(2**50), 2**50), st.integers(0, 2**32 - 1))
def test_alpha_attribution_in_money_adds_up_for_large_sums(n: int, total: int, seed: int) -> None:
    """Values with the rounding of a game's own arithmetic, as large as money may be."""
    shares = np.random.default_rng(seed).normal(0.0, 2.0**44, n)
    shares[-1] = total - math.fsum(shares[:-1])
    units = m.in_money(shares, total)
    assert sum(units) == total
    assert all(abs(unit - value) <= 1.0 for unit, value in zip(units, shares.tolist(), strict=True))


def test_alpha_attribution_in_money_gives_the_largest_remainders_first() -> None:
    assert m.in_money([0.5, 0.3, 0.2], 1) == [1, 0, 0]
    assert m.in_money([1.2, -0.7, 2.5], 3) == [1, -1, 3]
    assert m.in_money([0.5, 0.5, 0.0], 1) == [1, 0, 0]
    assert m.in_money([-0.5, -0.5, 0.0], -1) == [0, -1, 0]
    assert m.in_money([0.0, 3.0], 4) == [0, 4]  # Nothing was lost: who has most can bear it best.
    assert m.in_money([0.0, 3.0], 2) == [0, 2]
    assert m.in_money([2.0**53, -(2.0**53)], 0) == [2**53, -(2**53)]
    assert m.in_money([], 0) == []


def test_alpha_attribution_in_money_refuses_a_sum_that_is_another() -> None:
    for values, total in (([0.4, 0.4], 4), ([0.5, 0.5], -1), ([0.5, 0.5], 5), ([], 1), ([10.0] * 12, 133), ([10.0] * 12, 107)):
        with pytest.raises(ValueError, match=f"expected values that add up to {total} within one unit each"):
            m.in_money(values, total)
    with pytest.raises(ValueError, match="found nan"):
        m.in_money([math.nan], 0)
    with pytest.raises(ValueError, match="expected a total of at most"):
        m.in_money([0.0], 2**53 + 1)


def test_alpha_attribution_of_two_thousand_trades_adds_up_in_integers() -> None:
    chance = np.random.default_rng(11)
    for _ in range(2_000):
        n = int(chance.integers(1, 9))
        value = np.round(chance.normal(0.0, 10.0 ** chance.uniform(1.0, 12.0), 2**n))
        total = int(value[-1]) - int(value[0])
        units = m.in_money(m.shapley(value, n), total)
        assert sum(units) == total
