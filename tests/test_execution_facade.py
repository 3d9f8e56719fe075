"""``ap.almgren_chriss`` and ``ap.impact_cost`` as a notebook calls them; their models are tested beside them."""

import pytest

import alphapack as ap


def test_execution_planner_almgren_chriss_of_the_paper() -> None:
    schedule = ap.almgren_chriss(1e6, 5, 0.30 * 50 / 250**0.5, 0.0625, 2.5e-6, 2.5e-7, 1e-6)
    assert schedule.holdings == pytest.approx([1_000_000.0, 542_380.7, 290_295.1, 148_216.1, 62_303.2, 0.0], abs=0.05)
    assert schedule.trades == pytest.approx([457_619.3, 252_085.6, 142_079.0, 85_912.9, 62_303.2], abs=0.05)
    assert schedule.cost == pytest.approx(910_477.8, abs=0.05)
    assert schedule.variance == pytest.approx(363_868.0e6, rel=5e-7)
    assert schedule.kappa == pytest.approx(0.6063, abs=5e-5) and schedule.half_life == pytest.approx(1.6495, abs=1e-4)


def test_execution_planner_impact_cost_is_impact_and_half_the_spread() -> None:
    assert ap.impact_cost(0.01, 200.0, 0.5, 3.0) == pytest.approx(21.5)
    assert ap.impact_cost(0.0, 200.0, 0.5, 3.0) == 1.5
    with pytest.raises(ValueError, match="expected share from 0 to 1000, found -1"):
        ap.impact_cost(-1.0, 200.0, 0.5, 3.0)
