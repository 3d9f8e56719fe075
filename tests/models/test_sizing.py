"""Sizes: worked by hand, limits in their order, probes, and what holds of every one."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.market import Step
from alphapack.domain.money import UNITS
from alphapack.models.schedules import LOTS_MAX
from alphapack.models.sizing import Allowance, Cap, Kelly, Sizing, sigma_used, size

P_ONE_SD = 0.8413447460685429
"""Phi(1): z is 1."""
# 300 s of which 105,120 make a year: their root is 324.222. sigma = .001 is then 32.4222 % a year.
GIVEN: dict[str, Any] = {
    "decision": 7,
    "ts_ns": 1,
    "symbol": "sim:BTCUSDT",
    "exposure": 1.0,
    "win_probability": P_ONE_SD,
    "horizon_s": 300,
    "sigma_har": 0.001,
    "sigma_garch": 0.0008,
    "har_weight": 0.5,
    "rule": "max",
    "equity": 100_000 * UNITS,
    "lot_value": 50 * UNITS,
    "lot": Step.parse("0.001"),
    "sleeves_max": 5,
    "target_vol": 0.2,
    "kelly_fraction": 0.25,
    "kelly_cap": 2.0,
    "room": [("gross", 200_000 * UNITS), ("symbol", 100_000 * UNITS)],
    "size_factor": 1.0,
    "least_lots": 2,
    "probe": True,
}


def sized(**more: Any) -> Sizing:
    return size(**(GIVEN | more))


def test_execution_planner_sizes_by_the_volatility_target_by_hand() -> None:
    # L_vol = .2 / .324222 = .616861, L_kelly = min(2, .25 / .001) = 2; .616861 100,000 / (50,000 5) = .246744.
    one = sized()
    assert one.kelly == Kelly(pytest.approx(1.0), pytest.approx(0.001), pytest.approx(1e-6), 0.25, 2.0, 2.0)
    assert one.vol_leverage == pytest.approx(0.2 / (0.001 * math.sqrt(105_120)))
    assert one.raw_size == pytest.approx(0.246744, abs=1e-6)
    assert (one.size, one.lots, one.probe, one.caps, one.reason, one.h) == (0.246, 246, False, (), "", 5)


def test_execution_planner_sizes_by_kelly_by_hand() -> None:
    # z = .0025069 at p = .501: .25 .0025069 / .001 = .626721, above the target's .616861; at .5005 half of it.
    assert sized(win_probability=0.501).raw_size == sized().raw_size
    half = sized(win_probability=0.5005)
    assert half.kelly.z == pytest.approx(0.00125331, abs=1e-8)
    assert half.kelly.leverage == pytest.approx(0.3133286, abs=1e-6)
    assert half.raw_size == pytest.approx(0.3133286 * 0.4, abs=1e-6)


def test_execution_planner_sizes_by_kelly_as_a_normal_gain_has_it() -> None:
    # Mean over variance of a normal gain that is above 0 with probability p.
    one = sized(win_probability=0.55, kelly_fraction=1.0, kelly_cap=1e9)
    assert one.kelly.leverage == pytest.approx(one.kelly.edge / one.kelly.variance)


@pytest.mark.parametrize(("rule", "used"), [("max", 0.001), ("min", 0.0008), ("blend", math.sqrt(0.25 * 1e-6 + 0.75 * 0.64e-6))])
def test_execution_planner_sizes_by_the_rule(rule: str, used: float) -> None:
    one = sized(rule=rule, har_weight=0.25)
    assert one.sigma_used == pytest.approx(used, rel=1e-12)
    assert (one.sigma_har, one.sigma_garch, one.rule) == (0.001, 0.0008, rule)
    assert one.vol_leverage * used * math.sqrt(105_120) == pytest.approx(0.2)


@pytest.mark.parametrize(("horizon_s", "h"), [(1, 1), (60, 1), (61, 2), (300, 5), (86_400, 1_440)])
def test_execution_planner_sizes_to_the_horizon_in_minutes_rounded_up(horizon_s: int, h: int) -> None:
    one = sized(horizon_s=horizon_s)
    assert one.h == h
    assert one.vol_leverage == pytest.approx(200.0 / math.sqrt(31_536_000 / horizon_s))


def test_execution_planner_sizes_sell_as_they_buy() -> None:
    long, short = sized(exposure=0.5), sized(exposure=-0.5)
    assert (short.size, short.lots) == (-long.size, -long.lots) == (-0.123, -123)
    assert short.raw_size == long.raw_size > 0.0
    assert sized(exposure=-0.001).lots == -2


def test_execution_planner_sizes_under_limits_in_their_order() -> None:
    # 246.7 lots: a quarter is 61.7; 2,000 are 40 lots, 3,000 would be 60.
    one = sized(size_factor=0.25, room=[("gross", 9_000 * UNITS), ("symbol", 2_000 * UNITS), ("volatility", 3_000 * UNITS)])
    assert [cap.name for cap in one.caps] == ["brake", "symbol"]
    assert one.caps[0] == Cap("brake", 0.25, pytest.approx(0.246744 / 4, abs=1e-6))
    assert one.caps[1] == Cap("symbol", 2_000.0, pytest.approx(0.040))
    assert (one.lots, one.raw_size, one.probe) == (40, sized().raw_size, False)


def test_execution_planner_trades_a_probe_of_what_is_too_small() -> None:
    small = sized(exposure=0.001)
    assert (small.lots, small.size, small.probe) == (2, 0.002, True)
    assert small.raw_size < small.size and small.reason == "0.246 lots are less than the least order of 2; a probe"
    bad = sized(win_probability=0.4)
    assert (bad.raw_size, bad.kelly.leverage, bad.lots, bad.probe) == (0.0, 0.0, 2, True)
    assert bad.kelly.z < 0.0 and bad.reason == "the win probability is not above a half; a probe"
    assert sized(size_factor=0.001).probe and sized(size_factor=0.001).caps[0].name == "brake"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"exposure": 0.0}, "the exposure is 0"),
        ({"equity": 0}, "no equity is left: 0.00"),
        ({"equity": -150 * UNITS}, "no equity is left: -150.00"),
        ({"win_probability": 0.5, "probe": False}, "the win probability is not above a half; no probe: probes are off"),
        ({"exposure": 0.001, "probe": False}, "0.246 lots are less than the least order of 2; no probe: probes are off"),
        ({"room": [("symbol", 100 * UNITS - 1)]}, "1.999 lots are less than the least order of 2; no probe: symbol leaves less"),
        ({"room": [("gross", UNITS**2), ("long only", 0)]}, "0 lots are less than the least order of 2; no probe: long only leaves less"),
        ({"size_factor": 0.0}, "0 lots are less than the least order of 2; no probe: brake is on"),
    ],
)
def test_execution_planner_says_why_a_size_is_0(more: dict[str, Any], reason: str) -> None:
    one = sized(**more)
    assert (one.lots, one.size, one.probe, one.reason) == (0, 0.0, False, reason)


def test_execution_planner_trades_a_probe_that_just_fits() -> None:
    assert sized(exposure=0.001, room=[("symbol", 100 * UNITS)]).lots == 2
    assert sized(room=[("symbol", 100 * UNITS)]).probe is False


money = st.integers(0, 10**15)


@given(
    st.floats(-1.0, 1.0),
    st.floats(1e-9, 1.0, exclude_max=True),
    st.tuples(st.floats(1e-9, 10.0), st.floats(1e-9, 10.0), st.floats(0.0, 1.0), st.sampled_from(["max", "min", "blend"])),
    st.integers(1, 86_400),
    st.integers(-(10**15), 10**15),
    st.integers(10**4, 10**12),
    st.lists(money, max_size=4),
    st.floats(0.0, 1.0),
    st.integers(1, 1_000),
    st.booleans(),
)
def test_execution_planner_sizes_hold(
    exposure: float,
    win_probability: float,
    forecast: tuple[float, float, float, str],
    horizon_s: int,
    equity: int,
    lot_value: int,
    room: list[int],
    size_factor: float,
    least_lots: int,
    probe: bool,
) -> None:
    har, garch, har_weight, rule = forecast
    given_ = {
        "exposure": exposure,
        "win_probability": win_probability,
        "sigma_har": har,
        "sigma_garch": garch,
        "har_weight": har_weight,
        "rule": rule,
        "horizon_s": horizon_s,
        "equity": equity,
        "lot_value": lot_value,
        "room": [(f"limit {i}", one) for i, one in enumerate(room)],
        "size_factor": size_factor,
        "least_lots": least_lots,
        "probe": probe,
    }
    one = sized(**given_)
    low, high = sorted((har, garch))
    assert low * (1 - 1e-9) <= one.sigma_used <= high * (1 + 1e-9)
    assert one.probe or abs(one.size) <= one.raw_size * (1 + 1e-9)
    assert one.lots == 0 or (abs(one.lots) >= least_lots and (one.lots > 0) == (exposure > 0))
    assert abs(one.lots) * lot_value <= min(room, default=math.inf)
    assert (one.lots == 0 or one.probe) == bool(one.reason)
    assert not one.probe or (probe and abs(one.lots) == least_lots and size_factor > 0.0)
    sizes = [one.raw_size, *(cap.size for cap in one.caps)]
    assert sizes == sorted(sizes, reverse=True)
    assert one.size == pytest.approx(one.lots * 0.001)
    document = msgspec.json.decode(msgspec.json.encode(one))
    assert {"sigmaHAR", "sigmaGARCH", "sigmaUsed", "targetVol", "winProb", "rawSize", "caps", "kelly", "probe", "rule", "h"} <= set(
        document
    )
    assert all(math.isfinite(value) for value in [*document.values(), *document["kelly"].values()] if isinstance(value, float))
    assert msgspec.json.decode(msgspec.json.encode(one), type=Sizing) == one
    if not one.probe:
        smaller = sized(**given_ | {"exposure": exposure / 2, "probe": False})
        assert abs(smaller.lots) <= abs(one.lots)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"exposure": 1.01}, "expected exposure from -1 to 1, found 1.01"),
        ({"exposure": math.nan}, "found nan"),
        ({"win_probability": 0.0}, "expected a win_probability above 0 and below 1, found 0.0"),
        ({"win_probability": 1.0}, "found 1.0"),
        ({"win_probability": math.nan}, "found nan"),
        ({"horizon_s": 0}, "expected horizon_s from 1 to 86400, found 0"),
        ({"sigma_har": 0.0}, "expected sigma_har from 1e-09 to 10, found 0.0"),
        ({"sigma_garch": math.inf}, "expected sigma_garch"),
        ({"har_weight": -0.1}, "expected har_weight from 0 to 1"),
        ({"lot_value": 0}, "expected lot_value above 0 and finite, found 0"),
        ({"sleeves_max": 0}, "expected sleeves_max from 1"),
        ({"target_vol": 0.0}, "expected target_vol above 0"),
        ({"kelly_cap": math.inf}, "expected kelly_cap above 0 and finite"),
        ({"kelly_fraction": 1.1}, "expected a kelly_fraction above 0 and up to 1, found 1.1"),
        ({"size_factor": 1.1}, "expected size_factor from 0 to 1, found 1.1"),
        ({"least_lots": 0}, "expected least_lots from 1"),
        ({"room": [("gross", -1)]}, "expected room of 0 or more by gross, found -1e-08"),
        ({"equity": 10**18, "lot_value": 1, "kelly_cap": 1e9, "sigma_har": 1e-9, "sigma_garch": 1e-9}, f"at most {LOTS_MAX:,} lots"),
    ],
)
def test_execution_planner_refuses_what_cannot_be_sized(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sized(**more)


def test_execution_planner_uses_the_sigma_of_forecasts() -> None:
    assert sigma_used("max", 0.002, 0.003, 0.5) == pytest.approx(0.003)
    assert sigma_used("blend", 0.003, 0.004, 0.5) == pytest.approx(math.sqrt(12.5e-6))


def test_alpha_attribution_a_probe_of_a_quote_is_one_least_order_on_the_side_with_more_of_it() -> None:
    small = Allowance(full_lots=2.0, factor=1.0, room_lots=100.0, least_lots=3, probes=True)
    assert small.sides(1.0, 0.98) == (3, 0) and small.sides(0.2, 0.9) == (0, 3) and small.sides(0.7, 0.7) == (3, 3)
    large = Allowance(full_lots=200.0, factor=1.0, room_lots=100.0, least_lots=3, probes=True)
    assert large.sides(0.4, 0.2) == (80, 40) and large.sides(1.0, 0.01) == (100, 0) and large.sides(0.0, 0.1) == (0, 20)
    silent = Allowance(full_lots=2.0, factor=1.0, room_lots=100.0, least_lots=3, probes=False)
    assert silent.sides(1.0, 1.0) == (0, 0)
