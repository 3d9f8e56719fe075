"""Mean costs of sweeping one symbol's books: a planted curve is told, old books fade, thin ones say nothing of large sizes."""

import numpy as np
import pytest

from alphapack.domain.market import Step
from alphapack.models.book import FeatureBook
from alphapack.models.sweep import BOOKS_MIN, HALF_LIFE_NS, SHARES, SweepCosts

S = 1_000_000_000
ADV = 1_000.0
ENOUGH = int(BOOKS_MIN)


def side(price: float, sign: int, levels: list[tuple[float, float]]) -> bytes:
    return ("[" + ",".join(f'["{price + sign * away:.2f}","{size:.3f}"]' for away, size in levels) + "]").encode()


def book(levels: list[tuple[float, float]], lot: Step | None = None) -> FeatureBook:
    """A book about 100 with the same distances and sizes on either side."""
    one = FeatureBook(Step(1, 2), lot or Step(1, 3), None)
    one.snapshot(side(99.99, -1, levels), side(100.01, 1, levels))
    return one


STEEP, FLAT = [(0.0, 0.01), (0.4, 100.0)], [(0.0, 0.01), (0.2, 100.0)]
THIN = [(0.0, 0.01), (0.4, 0.25)]


def noted(costs: SweepCosts, one: FeatureBook, n: int, from_s: int = 0, adv: float = ADV) -> SweepCosts:
    for i in range(n):
        assert costs.note((from_s + i) * S, one, adv)
    return costs


def test_execution_planner_sweep_costs_are_told_once_enough_books_were_seen() -> None:
    costs = noted(SweepCosts(), book(STEEP), ENOUGH)
    assert [len(one) for one in costs.means()] == [0, 0], "the first has faded a little"
    noted(costs, book(STEEP), 1, ENOUGH)
    shares, means = costs.means()
    assert shares.tolist() == SHARES.tolist()
    expected = [40.0 * max(0.0, 1.0 - 0.01 / (share * ADV)) for share in SHARES.tolist()]
    np.testing.assert_allclose(means, expected, rtol=1e-9, atol=1e-9)


def test_execution_planner_sweep_costs_of_old_books_fade_by_half_in_an_hour() -> None:
    costs = noted(SweepCosts(), book(STEEP), 100)
    before = costs.books
    hour = HALF_LIFE_NS // S
    noted(costs, book(FLAT), 1, 99 + hour)
    assert costs.books == pytest.approx(before / 2 + 1.0, rel=1e-12)
    _, means = costs.means()
    largest = SHARES[-1] * ADV
    beyond = 1.0 - 0.01 / largest
    assert means[-1] == pytest.approx((before / 2 * 40.0 + 20.0) * beyond / (before / 2 + 1.0), rel=1e-9)


def test_execution_planner_sweep_costs_of_a_size_that_many_books_cannot_fill_are_not_told() -> None:
    costs = noted(SweepCosts(), book(STEEP), 200)
    noted(costs, book(THIN), 15, 200)
    assert costs.means()[0].tolist() == SHARES.tolist(), "more than nine tenths filled it"
    noted(costs, book(THIN), 30, 215)
    shares, _ = costs.means()
    assert shares.tolist() == [share for share in SHARES.tolist() if share * ADV <= 0.26]


def test_execution_planner_sweep_costs_of_less_than_a_lot_are_not_told() -> None:
    costs = noted(SweepCosts(), book([(0.0, 1.0), (0.4, 100.0)], Step(1, 0)), 60)
    assert costs.means()[0].tolist() == [share for share in SHARES.tolist() if share * ADV >= 1.0]


def test_execution_planner_sweep_costs_do_not_depend_on_the_steps() -> None:
    coarse, fine = book(STEEP), book(STEEP)
    fine.refine_for([b'"100.00001"'], [b'"0.000001"'])
    assert fine.tick != coarse.tick and fine.lot != coarse.lot
    first, second = (noted(SweepCosts(), one, 60).means() for one in (coarse, fine))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_execution_planner_sweep_costs_of_an_empty_side_change_nothing() -> None:
    costs = noted(SweepCosts(), book(STEEP), 60)
    state = costs.save()
    empty = FeatureBook(Step(1, 2), Step(1, 3), None)
    assert not costs.note(60 * S, empty, ADV)
    assert not costs.note(60 * S, FeatureBook(None, None, None), ADV)
    assert costs.save() == state


def test_execution_planner_sweep_costs_go_on_after_they_were_saved() -> None:
    whole = noted(SweepCosts(), book(STEEP), 50)
    other = noted(SweepCosts(), book(FLAT), 7)
    other.load(whole.save())
    noted(whole, book(FLAT), 50, 50)
    noted(other, book(FLAT), 50, 50)
    assert whole.save() == other.save()
    assert [one.tobytes() for one in whole.means()] == [one.tobytes() for one in other.means()]
