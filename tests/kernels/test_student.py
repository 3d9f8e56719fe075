"""Student's t against scipy, and draws of it against its distribution."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from alphapack.kernels import student as s
from interpreted import bits

compiled = pytest.mark.skipif(not hasattr(s.tail, "py_func"), reason="kernels are interpreted here")
DOFS = [3.0, 3.1, 4.0, 5.5, 8.0, 13.7, 40.0, 71.2, 73.0, 300.0, 1e4, 1e6, 1e9]


def plain(dof: float, us: list[float]) -> tuple[list[float], list[float]]:
    """Return tails and densities."""
    terms = np.zeros(s.TERMS)
    peak = s.settle(dof, terms)
    return [s.tail(u, dof, peak, terms) for u in us], [s.density(u, dof, peak) for u in us]


@pytest.mark.parametrize("dof", DOFS)
def test_router_alpha_aware_tails_and_densities_of_t_are_those_of_scipy(dof: float) -> None:
    sizes = [0.0, 1e-9, *np.linspace(0.01, 8.0, 150).tolist(), 12.0, 40.0, 1e3, 1e5]
    us = [-u for u in sizes] + sizes
    tails, densities = plain(dof, us)
    assert np.abs(np.array(tails) - stats.t.sf(us, dof)).max() < 1e-11
    assert np.abs(np.array(densities) - stats.t.pdf(us, dof)).max() < 1e-11
    known = stats.t.sf(sizes, dof)
    some = known > 1e-14
    assert np.abs(np.array(tails[len(sizes) :])[some] / known[some] - 1.0).max() < 1e-10, "far out too, as a share of itself"


@given(st.floats(3.0, 1e9), st.floats(0.0, 1e300))
def test_router_alpha_aware_both_tails_of_t_make_one(dof: float, u: float) -> None:
    (upper, lower), densities = plain(dof, [u, -u])
    assert upper + lower == pytest.approx(1.0, abs=1e-15) and 0.0 <= upper <= 0.5 + 1e-15 and densities[0] == densities[1] >= 0.0


@given(st.floats(3.0, 1e7), st.floats(1e-14, 0.49))
def test_router_alpha_aware_no_more_than_the_share_lies_beyond_its_reach(dof: float, share: float) -> None:
    assert 0.0 < stats.t.sf(s.reach(share, dof), dof) <= share * (1.0 + 1e-9)


@pytest.mark.parametrize("dof", [3.0, 5.5, 60.0, 1e6])
def test_router_alpha_aware_draws_of_t_follow_its_distribution(dof: float) -> None:
    chance = np.random.default_rng(3)
    drawn = [s.deviate(first, second, dof) for first, second in chance.random((20_000, 2)).tolist()]
    assert stats.kstest(drawn, "t", (dof,)).pvalue > 0.01
    assert all(math.isfinite(s.deviate(first, 0.0, dof)) for first in (0.0, 1.0 - 2.0**-53))


@compiled
def test_router_alpha_aware_kernels_of_t_are_the_same_interpreted() -> None:
    for dof in DOFS:
        one, other = np.zeros(s.TERMS), np.zeros(s.TERMS)
        peak = s.settle(dof, one)
        assert bits(peak) == bits(s.settle.py_func(dof, other)) and bits(one) == bits(other)
        for u in (-30.0, -1.3, 0.0, 0.2, 2.7, 9.1):
            assert bits(s.tail(u, dof, peak, one)) == bits(s.tail.py_func(u, dof, peak, one))
            assert bits(s.density(u, dof, peak)) == bits(s.density.py_func(u, dof, peak))
        assert bits(s.mills(1.7, one)) == bits(s.mills.py_func(1.7, one))
        assert bits(s.reach(1e-3, dof)) == bits(s.reach.py_func(1e-3, dof))
        assert bits(s.deviate(0.3, 0.6, dof)) == bits(s.deviate.py_func(0.3, 0.6, dof))
