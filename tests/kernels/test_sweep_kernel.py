"""The cost of sweeping a book against exact sums over its levels, and compiled against interpreted."""

from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.market import Step
from alphapack.kernels import sweep
from alphapack.models.book import FeatureBook
from interpreted import bits, modules

compiled = pytest.mark.skipif(not hasattr(sweep.sample, "py_func"), reason="kernels are interpreted here")
SHARES = np.array([1e-4, 1e-3, 1e-2, 1e-1])
Levels = list[tuple[int, int]]
"""Distances from the best level, and lots."""
LEVELS = st.dictionaries(st.integers(0, 150), st.integers(1, 60), min_size=1, max_size=12).map(lambda held: sorted(held.items()))
BID = 1_000


def book(bids: Levels, asks: Levels, spread: int = 1) -> FeatureBook:
    one = FeatureBook(Step(1, 0), Step(1, 0), None)
    sides = (
        ",".join(f'["{price}","{lots}"]' for price, lots in side)
        for side in ([(BID - away, lots) for away, lots in bids], [(BID + spread + away, lots) for away, lots in asks])
    )
    one.snapshot(*(f"[{side}]".encode() for side in sides))
    return one


def swept(one: FeatureBook, day_lots: float, shares: np.ndarray = SHARES, sums: np.ndarray | None = None, kept: float = 1.0) -> np.ndarray:
    out = np.zeros((sweep.ROWS, len(shares))) if sums is None else sums
    sweep.sample(one.levels, shares, day_lots, kept, np.full(2 * sweep.DEPTH, -7, np.int64), out)
    return out


def beyond_best(side: Levels, wanted: float, mid: Fraction) -> Fraction | None:
    """Mean ticks beyond the best level; None where the side has too little within reach."""
    left, paid = Fraction(wanted), Fraction(0)
    for away, lots in side:
        if away - side[0][0] > Fraction(sweep.REACH) * mid:
            return None
        taken = min(left, Fraction(lots))
        left, paid = left - taken, paid + taken * (away - side[0][0])
        if left == 0:
            return paid / Fraction(wanted)
    return None


@given(LEVELS, LEVELS, st.integers(1, 5), st.sampled_from([30.0, 900.0, 12_345.0, 1e6]))
def test_execution_planner_sweep_costs_what_the_levels_say(bids: Levels, asks: Levels, spread: int, day_lots: float) -> None:
    best_bid, best_ask = BID - bids[0][0], BID + spread + asks[0][0]
    mid = Fraction(best_bid + best_ask, 2)
    found = swept(book(bids, asks, spread), day_lots)
    for i, share in enumerate(SHARES.tolist()):
        wanted = share * day_lots
        both = [beyond_best(side, wanted, mid) for side in (bids, asks)]
        if wanted < 1.0 or None in both:
            assert found[sweep.WEIGHT, i] == 0.0
        else:
            assert found[sweep.WEIGHT, i] == 1.0
            expected = 10_000 * sum(Fraction(one or 0) for one in both) / 2 / mid
            assert found[sweep.MEAN, i] == pytest.approx(float(expected), rel=1e-12, abs=1e-12)


def test_execution_planner_sweep_worked_out_by_hand() -> None:
    one = book([(0, 10), (2, 10)], [(0, 20)], spread=2)  # Mid 1001.
    found = swept(one, 100.0, np.array([0.05, 0.15, 0.2, 0.25]))
    buying_and_selling = [0.0, (5 * 2 / 15 + 0) / 2, (10 * 2 / 20 + 0) / 2]
    np.testing.assert_allclose(found[sweep.MEAN, :3], [1e4 * ticks / 1001 for ticks in buying_and_selling], rtol=1e-14)
    assert found[sweep.WEIGHT].tolist() == [1.0, 1.0, 1.0, 0.0]


def test_execution_planner_sweep_means_are_weighted_by_what_each_book_kept() -> None:
    first, second = book([(0, 10), (4, 90)], [(0, 100)]), book([(0, 10), (8, 90)], [(0, 100)])
    shares, day_lots = np.array([0.2]), 100.0
    costs = [float(swept(one, day_lots, shares)[sweep.MEAN, 0]) for one in (first, second)]
    sums = swept(first, day_lots, shares)
    swept(second, day_lots, shares, sums, 0.25)
    assert sums[sweep.WEIGHT, 0] == 1.25
    assert sums[sweep.MEAN, 0] == pytest.approx((0.25 * costs[0] + costs[1]) / 1.25, rel=1e-14)


def test_execution_planner_sweep_looks_at_so_many_levels_and_no_more() -> None:
    one = FeatureBook(Step(1, 4), Step(1, 0), None)
    n = sweep.DEPTH + 5
    for side, sign in ((b"bids", -1), (b"asks", 1)):
        levels = ",".join(f'["{100 + sign * (i + 1) * 1e-4:.4f}","1"]' for i in range(n))
        one.diff(1, *((f"[{levels}]".encode(), b"[]") if side == b"bids" else (b"[]", f"[{levels}]".encode())))
    found = swept(one, 1.0, np.array([float(sweep.DEPTH), sweep.DEPTH + 1.0]))
    assert found[sweep.WEIGHT].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("bids", "asks"), [([], [(0, 5)]), ([(0, 5)], []), ([], [])])
def test_execution_planner_sweep_of_an_empty_side_does_nothing(bids: Levels, asks: Levels) -> None:
    one, sums = book(bids, asks), np.full((sweep.ROWS, len(SHARES)), 3.0)
    assert not sweep.sample(one.levels, SHARES, 100.0, 0.5, np.zeros(2 * sweep.DEPTH, np.int64), sums)
    assert (sums == 3.0).all()


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    """The kernels as plain Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interpreted.NAMES", ("book", "sweep"))
        return modules()["sweep"]


@compiled
@given(bids=LEVELS, asks=LEVELS, day_lots=st.floats(1.0, 1e5), kept=st.floats(0.0, 1.0))
def test_execution_planner_sweep_gives_the_same_bits_compiled_and_interpreted(
    plain: ModuleType, bids: Levels, asks: Levels, day_lots: float, kept: float
) -> None:
    one, scratch = book(bids, asks), np.zeros(2 * sweep.DEPTH, np.int64)
    first, second = np.full((2, sweep.ROWS, len(SHARES)), 0.7)
    assert sweep.sample(one.levels, SHARES, day_lots, kept, scratch, first)
    assert plain.sample(one.levels, SHARES, day_lots, kept, scratch, second)
    assert bits(first) == bits(second)
