"""Plans: every cell of the table, slices that add up, costs and risks worked by hand, and hurry that only ever brings forward."""

import itertools
import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alphapack.models import planner
from alphapack.models.impact import Impact, prior
from alphapack.models.planner import Cell, Market, Plan, Slice

IMPACT = Impact(k=100.0, a=0.5, k_stderr=0.7, a_stderr=0.1, source="prior", n=0)
MARKET = Market(
    mid=50_000.0,
    spread_bps=0.02,
    tick=0.1,
    lot=0.001,
    depth=4.0,
    micro_vol=1e-4,
    sigma=1e-3,
    adv=2_880.0,
    volume_profile=(2.0, 2.0, 2.0, 2.0, 2.0),
    least_lots=2,
    taker_fee_bps=5.0,
)

# Urgency, spread, depth, micro_vol: the answer. One letter each: low, medium, high; tight, wide; deep, thin (shallow); calm, rough.
DECIDED = """
ltdc TWAP uniform         ltdr TWAP almgren_chriss  ltsc VWAP volume          ltsr POV volume
lwdc TWAP uniform         lwdr TWAP almgren_chriss  lwsc VWAP volume          lwsr POV volume
mtdc TWAP almgren_chriss  mtdr TWAP almgren_chriss  mtsc POV volume           mtsr POV volume
mwdc TWAP uniform         mwdr TWAP almgren_chriss  mwsc VWAP volume          mwsr POV volume
htdc IMMEDIATE uniform    htdr IMMEDIATE uniform    htsc IMMEDIATE uniform    htsr IMMEDIATE uniform
hwdc TWAP almgren_chriss  hwdr TWAP almgren_chriss  hwsc POV volume           hwsr POV volume
"""
WORDS = DECIDED.split()
CELLS = list(zip(WORDS[::3], WORDS[1::3], WORDS[2::3], strict=True))


def planned(
    lots: int = 1_000, urgency: float = 0.5, horizon_s: float = 300.0, impact: Impact = IMPACT, side: int = 1, **more: object
) -> Plan:
    market = msgspec.structs.replace(MARKET, **more)
    return planner.plan(side=side, lots=lots, urgency=urgency, horizon_s=horizon_s, market=market, impact=impact)


def in_cell(letters: str, **more: object) -> Plan:
    """Plan an order of 1 base unit in a market of that cell."""
    urgency, spread, depth, micro_vol = letters
    seen = {
        "spread_bps": {"t": 0.02, "w": 1.2}[spread],
        "depth": {"d": 5.0, "s": 1.5}[depth],
        "micro_vol": {"c": 1e-4, "r": 5e-4}[micro_vol],
    }
    return planned(urgency={"l": 0.1, "m": 0.5, "h": 0.9}[urgency], **(seen | more))


def done(plan: Plan, t_s: float) -> int:
    return planner.due(plan, t_s)


# The table


def test_execution_planner_has_every_cell() -> None:
    assert len({letters for letters, _, _ in CELLS}) == len(planner.TABLE) == 24
    assert set(planner.TABLE) == set(
        itertools.starmap(Cell, itertools.product(("low", "medium", "high"), ("tight", "wide"), ("deep", "thin"), ("calm", "rough")))
    )


@pytest.mark.parametrize(("letters", "style", "schedule"), CELLS)
def test_execution_planner_decides_each_cell(letters: str, style: str, schedule: str) -> None:
    plan = in_cell(letters)
    assert (plan.style, plan.schedule) == (style, schedule)
    assert "".join(word[0] for word in plan.cell) == letters.replace("s", "t")
    assert all(f"{name} {word}" in plan.reason for name, word in plan.cell._asdict().items())
    assert plan.aggressive == (style == "IMMEDIATE") == (len(plan.slices) == 1)


@pytest.mark.parametrize(("letters", "style", "schedule"), CELLS)
@pytest.mark.parametrize("profile", [None, (0.0,) * 5, (1e-5,) * 5])
def test_execution_planner_says_what_replaces_volume_that_is_not_foreseen(
    letters: str, style: str, schedule: str, profile: tuple[float, ...] | None
) -> None:
    plan = in_cell(letters, volume_profile=profile)
    if schedule == "volume":
        assert (plan.style, plan.schedule) == ("TWAP", "almgren_chriss")
        assert f"no volume is foreseen, so not {style}" in plan.reason
    else:
        assert (plan.style, plan.schedule) == (style, schedule)
        assert "foreseen, so" not in plan.reason


@pytest.mark.parametrize(
    ("name", "value", "more", "word"),
    [
        ("urgency", 0.33, {"urgency": 0.33}, "low"),
        ("urgency", 1 / 3, {"urgency": 1 / 3}, "medium"),
        ("urgency", 0.66, {"urgency": 0.66}, "medium"),
        ("urgency", 2 / 3, {"urgency": 2 / 3}, "high"),
        ("spread", 1.0, {"spread_bps": 1.0}, "tight"),
        ("spread", 1.01, {"spread_bps": 1.01}, "wide"),
        ("spread", 4.0, {"spread_bps": 4.0, "tick": 20.0}, "tight"),  # One coarse tick.
        ("spread", 8.0, {"spread_bps": 8.0, "tick": 20.0}, "wide"),
        ("depth", 4.0, {"lots": 1_000, "depth": 4.0}, "deep"),
        ("depth", 3.9, {"lots": 1_000, "depth": 3.9}, "thin"),
        ("depth", 0.0, {"depth": 0.0}, "thin"),
        ("micro_vol", 0.0, {"micro_vol": 0.0}, "calm"),
        ("micro_vol", 2.0, {"micro_vol": 2.0 * 1e-3 * math.sqrt(5 / 300)}, "calm"),
        ("micro_vol", 2.1, {"micro_vol": 2.1 * 1e-3 * math.sqrt(5 / 300)}, "rough"),
    ],
)
def test_execution_planner_judges_by_its_thresholds(name: str, value: float, more: dict[str, object], word: str) -> None:
    assert getattr(planned(**more).cell, name) == word, value  # type: ignore[arg-type]


def test_execution_planner_takes_no_more_at_once_than_is_displayed() -> None:
    assert planned(4_000, urgency=1.0).style == "IMMEDIATE"
    beyond = planned(4_001, urgency=1.0)
    assert (beyond.style, beyond.cell) == ("POV", Cell("high", "wide", "thin", "calm"))
    assert "until the order widens it" in beyond.reason


def test_execution_planner_plans_the_orders_that_users_begin_with() -> None:
    small, urgent, big = planned(20), planned(20, urgency=1.0), planned(20_000, urgency=0.0)
    assert (urgent.style, urgent.slices) == ("IMMEDIATE", (Slice(0.0, 20),))
    assert big.style != "IMMEDIATE" and len(big.slices) == 60
    assert "2 of the volume foreseen, more than 0.1" in big.reason
    assert big.cost.impact_bps > small.cost.impact_bps
    for plan in (small, urgent, big):
        assert plan.cost.bps == plan.cost.half_spread_bps + plan.cost.impact_bps > 0.0
        assert plan.cost.half_spread_bps == plan.market.spread_bps / 2


# Cost


def test_execution_planner_costs_by_hand() -> None:
    # 2.88 of 2,880 a day is a thousandth: 100 sqrt(.001) = 3.1623 bps, and half of .02.
    cost = planned(2_880, urgency=1.0).cost
    assert cost.impact_bps == pytest.approx(3.16227766, rel=1e-8)
    assert cost.bps == pytest.approx(3.17227766, rel=1e-8)
    assert cost.quote == pytest.approx(2.88 * 50_000 * 3.17227766e-4, abs=1e-6)
    assert cost.quote == round(cost.quote, 8)
    assert (cost.fees_bps, cost.timing_risk_bps) == (5.0, 0.0)


def test_execution_planner_risk_of_waiting_by_hand() -> None:
    # Four even slices of 300 s: 3/4, 2/4 and 1/4 are left for 75 s each; sigma is 10 bps.
    even = planned(8, urgency=0.0)
    assert [(one.t_s, one.lots) for one in even.slices] == [(0.0, 2), (75.0, 2), (150.0, 2), (225.0, 2)]
    assert even.cost.timing_risk_bps == pytest.approx(10.0 * math.sqrt((9 + 4 + 1) / 16 / 4))
    assert even.cost.bps == even.cost.half_spread_bps + even.cost.impact_bps


def test_execution_planner_waits_in_full_for_volume_that_begins_late() -> None:
    late = planned(2_000, urgency=0.0, least_lots=1_000, volume_profile=(0.0, 0.0, 4.0, 0.0, 4.0))
    assert late.slices == (Slice(120.0, 1_000), Slice(240.0, 1_000))
    assert late.cost.timing_risk_bps == pytest.approx(10.0 * math.sqrt((120 + 0.25 * 120) / 300))


@given(st.integers(2, 2_000_000), st.integers(2, 2_000_000), st.floats(0.0, 1.0))
def test_execution_planner_cost_grows_with_size(one: int, other: int, urgency: float) -> None:
    small, large = (planned(lots, urgency).cost for lots in sorted((one, other)))
    assert small.bps <= large.bps and small.impact_bps <= large.impact_bps and small.quote <= large.quote


def test_execution_planner_costs_the_same_on_either_side() -> None:
    buy, sell = planned(side=1), planned(side=-1)
    assert msgspec.structs.replace(sell, side=1) == buy


# Slices

profiles = st.lists(st.floats(0.0, 50.0) | st.just(0.0), min_size=20, max_size=20).map(tuple) | st.none()
markets = st.fixed_dictionaries(
    {
        "spread_bps": st.floats(0.0, 3.0),
        "depth": st.floats(0.0, 2_000.0),
        "micro_vol": st.floats(0.0, 1e-3),
        "sigma": st.floats(1e-5, 0.1),
        "least_lots": st.integers(1, 50),
        "volume_profile": profiles,
    }
)


@given(st.integers(50, 100_000), st.floats(0.0, 1.0), st.floats(1.0, 1_200.0), markets)
def test_execution_planner_slices_add_up_in_order_and_keep_the_least_order(
    lots: int, urgency: float, horizon_s: float, market: dict[str, object]
) -> None:
    plan = planned(lots, urgency, horizon_s, **market)
    times, sizes = [one.t_s for one in plan.slices], [one.lots for one in plan.slices]
    assert sum(sizes) == lots
    assert min(sizes) >= plan.market.least_lots
    assert times == sorted(set(times)) and times[0] >= 0.0 and times[-1] < horizon_s
    assert len(sizes) <= max(1, min(60, horizon_s / 5.0))
    if plan.schedule != "volume":
        assert times[0] == 0.0
    assert 0.0 <= plan.cost.timing_risk_bps <= 1e4 * plan.market.sigma * (1 + 1e-12)
    assert all(map(math.isfinite, (plan.participation, plan.cost.bps, plan.cost.quote)))
    assert done(plan, horizon_s) == lots
    assert [done(plan, t_s) for t_s in times] == list(itertools.accumulate(sizes))
    assert done(plan, -1.0) == 0


@given(st.integers(50, 100_000), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(5.0, 1_200.0), markets)
def test_execution_planner_urgency_only_brings_forward(
    lots: int, one: float, other: float, horizon_s: float, market: dict[str, object]
) -> None:
    patient, hasty = (planned(lots, urgency, horizon_s, **market) for urgency in sorted((one, other)))
    # A slice is due at the beginning of its time, so that a plan of few slices is ahead by up to one of them.
    slack = max(one.lots for one in patient.slices) + patient.market.least_lots
    for t_s in np.linspace(0.0, horizon_s, 37).tolist():
        assert done(hasty, t_s) >= done(patient, t_s) - slack
    assert (hasty.style == "IMMEDIATE") >= (patient.style == "IMMEDIATE")


def test_execution_planner_front_loads_by_urgency_and_spreads_what_is_large() -> None:
    def half_done(lots: int, urgency: float) -> float:
        plan = planned(lots, urgency, spread_bps=2.0, depth=1e9)
        assert plan.schedule == "almgren_chriss"
        return next(one.t_s for one in plan.slices if 2 * done(plan, one.t_s) >= lots)

    assert half_done(1_000, 0.9) < half_done(1_000, 0.7) < 140.0
    assert half_done(1_000, 0.9) < half_done(1_000_000, 0.9) < 150.0


def test_execution_planner_follows_almgren_and_chriss() -> None:
    # 2 (cosh(kappa tau) - 1) / tau^2 = lambda sigma^2 / eta, all in bps and seconds: sigma^2 = 100 / 300, eta = 300 I, lambda = .05.
    plan = planned(1_000_000, 0.5, depth=1e9)
    impact_bps = 100.0 * math.sqrt(1_000 / 2_880)
    kappa = math.acosh(1.0 + 25.0 / 2.0 * 0.05 * (100.0 / 300.0) / (300.0 * impact_bps)) / 5.0
    for j in (1, 7, 30, 59):
        left = math.sinh(kappa * (300.0 - 5.0 * j)) / math.sinh(kappa * 300.0)
        assert 1_000_000 - done(plan, 5.0 * j - 0.1) == pytest.approx(1_000_000 * left, abs=1.0)


@given(st.integers(1_600, 200_000), st.lists(st.floats(0.0, 500.0), min_size=5, max_size=5), st.booleans())
def test_execution_planner_follows_the_volume(lots: int, profile: list[float], rough: bool) -> None:
    assume(sum(profile) > 1.0)
    plan = planned(lots, 0.0, micro_vol=5e-4 if rough else 0.0, depth=1.0, volume_profile=tuple(profile))
    assert plan.style == ("POV" if rough else "VWAP")
    total, base = math.fsum(profile), lots / 1_000
    until = min(total, base / 0.1) if rough else total
    biggest = max(one.lots for one in plan.slices)
    for one in plan.slices:
        minute = int(one.t_s // 60)
        traded = math.fsum(profile[:minute]) + profile[minute] * (one.t_s / 60 - minute)
        assert done(plan, one.t_s) - biggest - 1 <= lots * traded / until <= done(plan, one.t_s) + 1
    if rough and base < 0.1 * total:
        assert plan.participation < 0.1 and "more than" not in plan.reason


def test_execution_planner_takes_a_tenth_of_the_volume_or_what_the_horizon_needs() -> None:
    # 20 a minute: a tenth of a minute's is 2, of 30 s 1.
    part = planned(1_000, 0.5, depth=2.0, volume_profile=(20.0,) * 5)
    assert (part.style, len(part.slices), part.slices[-1].t_s) == ("POV", 6, 25.0)
    whole = planned(20_000, 0.0, depth=2.0, micro_vol=1.0, volume_profile=(20.0,) * 5)
    assert (whole.style, len(whole.slices), round(whole.slices[-1].t_s, 9), whole.participation) == ("POV", 60, 295.0, 0.2)
    assert "0.2 of the volume foreseen, more than 0.1" in whole.reason


def test_execution_planner_trades_what_cannot_be_cut_in_one() -> None:
    for plan in (planned(3), planned(1_000, horizon_s=9.9)):
        assert len(plan.slices) == 1 and plan.slices[0].t_s == 0.0 and "in one" in plan.reason and not plan.aggressive


def test_execution_planner_counts_in_finer_lots() -> None:
    plan = planned(1_000)
    fine = planner.refined(plan, 10)
    assert fine.lots == 10_000 and fine.market.least_lots == 20 and fine.market.lot == 1e-4
    assert [10 * one.lots for one in plan.slices] == [one.lots for one in fine.slices]
    assert done(fine, 100.0) == 10 * done(plan, 100.0)
    with pytest.raises(ValueError, match="by_lot of 1 or more, found 0"):
        planner.refined(plan, 0)


def test_execution_planner_saves_and_loads() -> None:
    for letters, _, _ in CELLS:
        plan = in_cell(letters, horizon_s=60.0)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


# Refusals


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"lots": 0}, "expected a size from 0.002, the least order, to 2880, the volume of a day, found 0"),
        ({"lots": -5}, "found -0.005"),
        ({"lots": 1}, "expected a size from 0.002"),
        ({"lots": 2_880_001}, "found 2880"),
        ({"lots": 1 << 53, "adv": 1e300}, "expected a size"),
        ({"side": 0}, r"expected side \+1 or -1, found 0"),
        ({"urgency": 1.01}, "expected an urgency from 0 to 1, found 1.01"),
        ({"urgency": math.nan}, "found nan"),
        ({"horizon_s": 0.5}, "expected a horizon_s from 1 to 86400, found 0.5"),
        ({"horizon_s": 86_401.0}, "found 86401"),
        ({"horizon_s": 301.0}, "expected volumes of 6 minutes to the horizon, found 5"),
        ({"mid": 0.0}, "expected mid above 0 and finite, found 0"),
        ({"sigma": math.nan}, "expected sigma above 0"),
        ({"adv": math.inf}, "expected adv above 0"),
        ({"depth": -1.0}, "expected depth of 0 or more"),
        ({"micro_vol": math.nan}, "expected micro_vol of 0 or more"),
        ({"least_lots": 0}, "expected least_lots from 1"),
        ({"taker_fee_bps": math.inf}, "expected a finite taker_fee_bps"),
        ({"volume_profile": (1.0, -1.0, 1.0, 1.0, 1.0)}, "expected volumes of 0 or more"),
        ({"volume_profile": (1.0, math.nan, 1.0, 1.0, 1.0)}, "expected volumes of 0 or more"),
    ],
)
def test_execution_planner_refuses(more: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        planned(**more)  # type: ignore[arg-type]


def test_execution_planner_plans_by_what_is_believed_at_first() -> None:
    assert planned(2_880, impact=prior(0.01)).cost.impact_bps == pytest.approx(0.9 * 100.0 * math.sqrt(0.001))


def test_execution_planner_documents_its_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "PLANNER.md").read_text()
    rows = re.findall(r"^\| (low|medium|high) \| (\w+) \| (\w+) \| (\w+) \| (\w+) \| (\w+) \|$", text, re.M)
    assert {Cell(*row[:4]): row[4:] for row in rows} == planner.TABLE and len(rows) == 24
