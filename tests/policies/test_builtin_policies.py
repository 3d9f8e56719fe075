"""The built-in policies: what each proposes by hand, that all keep the mirror, and what they do without alphas."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.trading import Proposal, Quote, Target
from alphapack.models.alpha import AlphaContext
from alphapack.models.features import BY_NAME, NAMES, SIGNED
from alphapack.models.policy import Policy, exposure_of, is_nothing, propose_safely
from alphapack.policies import POLICIES

BY_NAME_OF_POLICY = {one.name: one for one in POLICIES}
BLENDS = st.floats(-1.0, 1.0)


def seen(raw: dict[str, float], standard: dict[str, float] | None = None) -> AlphaContext:
    """A context; what is not stated in standard deviations is at its mean."""
    return AlphaContext("sim:BTCUSDT", 0, raw, {**dict.fromkeys(raw, 0.0), **(standard or {})}, None)


def propose(name: str, blend: float, raw: dict[str, float], standard: dict[str, float] | None = None) -> Proposal:
    return propose_safely(BY_NAME_OF_POLICY[name], seen(raw, standard), blend)


@st.composite
def markets(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, float]]:
    raw, standard = {}, {}
    for name in draw(st.sets(st.sampled_from(NAMES))):
        raw[name] = draw(st.floats(max(BY_NAME[name].low, -1e9), min(BY_NAME[name].high, 1e9)))
        standard[name] = draw(st.floats(-5.0, 5.0))
    return raw, standard


def flipped(values: dict[str, float]) -> dict[str, float]:
    return {name: -value if name in SIGNED else value for name, value in values.items()}


def mirrored(proposal: Proposal) -> Proposal:
    if isinstance(proposal, Quote):
        return Quote(proposal.ask_share, proposal.bid_share, proposal.offset_ticks)
    return Target(0.0 - proposal.exposure, proposal.urgency, proposal.horizon_s)


@settings(max_examples=40)
@given(st.sampled_from(POLICIES), markets(), BLENDS)
def test_router_alpha_aware_every_builtin_policy_is_the_same_both_ways_and_every_time(
    one: Policy, market: tuple[dict[str, float], dict[str, float]], blend: float
) -> None:
    raw, standard = market
    proposal = propose_safely(one, seen(raw, standard), blend)
    assert propose_safely(one, seen(raw, standard), blend) == proposal
    assert propose_safely(one, seen(flipped(raw), flipped(standard)), -blend) == mirrored(proposal)


@settings(max_examples=40)
@given(st.sampled_from(POLICIES), markets(), BLENDS, st.floats(0.0, 1.0))
def test_router_alpha_aware_a_greater_blend_is_never_a_smaller_exposure(
    one: Policy, market: tuple[dict[str, float], dict[str, float]], blend: float, more: float
) -> None:
    ctx = seen(*market)
    assert exposure_of(propose_safely(one, ctx, min(1.0, blend + more))) >= exposure_of(propose_safely(one, ctx, blend))


@settings(max_examples=40)
@given(markets())
def test_router_alpha_aware_without_alphas_targets_are_of_nothing(market: tuple[dict[str, float], dict[str, float]]) -> None:
    for name in ("momentum", "mean_reversion", "breakout", "smile_tilt"):
        assert is_nothing(propose_safely(BY_NAME_OF_POLICY[name], seen(*market), 0.0))


@settings(max_examples=40)
@given(st.sampled_from(POLICIES), BLENDS)
def test_router_alpha_aware_where_nothing_is_known_only_a_blend_is_followed(one: Policy, blend: float) -> None:
    proposal = propose_safely(one, seen({}), blend)
    if one.name not in ("momentum", "mean_reversion"):
        assert is_nothing(proposal)
    assert exposure_of(proposal) * blend >= 0.0


@pytest.mark.parametrize(
    ("blend", "expected"),
    [
        (0.0, Target(0.0)),
        (0.049, Target(0.0)),
        (0.05, Target(0.2, 0.48)),
        (-0.125, Target(-0.5, 0.6)),
        (0.25, Target(1.0, 0.8)),
        (-0.9, Target(-1.0, 0.8)),
    ],
)
def test_router_alpha_aware_momentum_grows_with_its_blend_from_a_threshold_on(blend: float, expected: Target) -> None:
    found = propose("momentum", blend, {})
    assert isinstance(found, Target) and found.horizon_s == 300
    assert (found.exposure, found.urgency) == pytest.approx((expected.exposure, expected.urgency))


@pytest.mark.parametrize(
    ("blend", "vol_ratio_z", "exposure"),
    [(0.029, 0.0, 0.0), (0.06, 0.0, 0.5), (0.06, -3.0, 0.5), (0.06, 1.0, 0.25), (-0.12, 1.0, -0.5), (0.12, 2.0, 0.0), (0.5, 0.0, 1.0)],
)
def test_router_alpha_aware_mean_reversion_stands_aside_as_volatility_expands(blend: float, vol_ratio_z: float, exposure: float) -> None:
    found = propose("mean_reversion", blend, {"vol_ratio": 1.0}, {"vol_ratio": vol_ratio_z})
    assert isinstance(found, Target) and found.exposure == pytest.approx(exposure)
    if exposure:
        assert (found.urgency, found.horizon_s) == (0.2, 180)


CALM = {"spread_bps": 0.5, "micro_vol": 1e-4, "vpin": 0.3, "tick_bps": 0.1, "maker_fee_bps": 2.0}


@pytest.mark.parametrize(
    ("blend", "standard", "expected"),
    [
        (0.0, {}, Quote(1.0, 1.0, 23)),
        (0.1, {}, Quote(1.0, 0.5, 23)),
        (-0.2, {}, Quote(0.0, 1.0, 23)),
        (0.0, {"micro_vol": -4.0, "vpin": -4.0}, Quote(1.0, 1.0, 23)),
        (0.0, {"micro_vol": 0.5}, Quote(0.75, 0.75, 23)),
        (0.0, {"micro_vol": 1.0}, Quote(0.5, 0.5, 23)),
        (0.1, {"vpin": 1.0}, Quote(0.5, 0.25, 23)),
        (0.0, {"vpin": 2.0}, Quote(0.0, 0.0, 23)),
        (0.2, {"micro_vol": 5.0}, Quote(0.0, 0.0, 23)),
    ],
)
def test_router_alpha_aware_spread_capture_leans_and_steps_back(blend: float, standard: dict[str, float], expected: Quote) -> None:
    found = propose("spread_capture", blend, CALM, standard)
    assert isinstance(found, Quote) and found.offset_ticks == expected.offset_ticks
    assert (found.bid_share, found.ask_share) == pytest.approx((expected.bid_share, expected.ask_share))


@pytest.mark.parametrize(
    ("market", "offset_ticks"),
    [
        ({"spread_bps": 5.0}, 0),
        ({"maker_fee_bps": -0.5}, 0),
        ({"spread_bps": 0.0, "tick_bps": 2.5}, 1),
        ({"tick_bps": 0.0001}, None),
    ],
)
def test_router_alpha_aware_spread_capture_stands_as_far_out_as_fees_demand(market: dict[str, float], offset_ticks: int | None) -> None:
    found = propose("spread_capture", 0.0, CALM | market)
    assert isinstance(found, Quote)
    assert is_nothing(found) if offset_ticks is None else found == Quote(1.0, 1.0, offset_ticks)


@pytest.mark.parametrize("missing", ["spread_bps", "micro_vol", "tick_bps", "maker_fee_bps"])
def test_router_alpha_aware_spread_capture_quotes_nothing_into_the_unknown(missing: str) -> None:
    assert is_nothing(propose("spread_capture", 0.1, {name: value for name, value in CALM.items() if name != missing}))
    assert not is_nothing(propose("spread_capture", 0.1, {name: value for name, value in CALM.items() if name != "vpin"}))


@pytest.mark.parametrize(
    ("blend", "place", "vol_ratio_z", "exposure"),
    [
        (0.05, 0.9, 1.0, 0.5),
        (-0.05, 0.9, 1.0, -0.5),
        (-0.2, -1.0, 0.5, -1.0),
        (0.05, 0.79, 1.0, 0.0),
        (0.05, 0.9, 0.49, 0.0),
        (0.019, 0.9, 1.0, 0.0),
    ],
)
def test_router_alpha_aware_breakout_waits_for_the_edge_and_for_expansion(
    blend: float, place: float, vol_ratio_z: float, exposure: float
) -> None:
    found = propose("breakout", blend, {"range_place": place, "vol_ratio": 1.0}, {"vol_ratio": vol_ratio_z})
    assert isinstance(found, Target) and found.exposure == pytest.approx(exposure)
    if exposure:
        assert (found.urgency, found.horizon_s) == (0.9, 120)


@pytest.mark.parametrize(
    ("blend", "standard", "exposure"),
    [
        (0.0, {"iv_gap": 2.0}, 0.0),
        (0.05, {"iv_gap": 2.0}, 0.5),
        (0.05, {"iv_gap": -3.0}, 0.25),
        (-0.05, {}, -0.25),
        (0.019, {}, 0.0),
        (0.3, {"iv_gap": 2.0}, 1.0),
    ],
)
def test_router_alpha_aware_smile_tilt_follows_its_blend_and_more_where_options_are_dear(
    blend: float, standard: dict[str, float], exposure: float
) -> None:
    found = propose("smile_tilt", blend, {"rr25": 0.01, "skew_z": 0.1, "iv_gap": 0.0}, standard)
    assert isinstance(found, Target) and found.exposure == pytest.approx(exposure)
    assert is_nothing(propose("smile_tilt", 0.9, {"iv_gap": 0.3}, {"iv_gap": 2.0}))
