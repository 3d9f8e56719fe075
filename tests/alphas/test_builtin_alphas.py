"""The built-in alphas: what each says by hand, that all keep their range and the mirror, and that groups are what they claim to be."""

import ast
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import alphapack
from alphapack.alphas import ALPHAS
from alphapack.models.alpha import Alpha, AlphaContext, check_alphas, evaluate
from alphapack.models.features import BY_NAME, SIGNED
from alphapack.models.policy import check_policies
from alphapack.policies import POLICIES

BY_ID = {one.id: one for one in ALPHAS}
Features = dict[str, tuple[float, float]]
"""Raw and standardised, by name."""


def say(one: Alpha, features: Features) -> float | None:
    raw, standard = ({name: pair[i] for name, pair in features.items()} for i in (0, 1))
    return evaluate(one, AlphaContext("sim:BTCUSDT", 0, raw, standard, one.inputs))


def flipped(features: Features) -> Features:
    """The same market with buyers and sellers changed."""
    return {name: (-pair[0], -pair[1]) if name in SIGNED else pair for name, pair in features.items()}


@st.composite
def asked(draw: st.DrawFn) -> tuple[Alpha, Features]:
    one = draw(st.sampled_from(ALPHAS))
    features = {}
    for name in one.inputs:
        low, high = max(BY_NAME[name].low, -1e12), min(BY_NAME[name].high, 1e12)
        features[name] = (draw(st.floats(low, high)), draw(st.floats(-5.0, 5.0)))
    return one, features


@given(asked())
def test_router_alpha_aware_every_builtin_alpha_keeps_its_range_and_the_mirror(case: tuple[Alpha, Features]) -> None:
    one, features = case
    signal, mirrored = say(one, features), say(one, flipped(features))
    assert signal is not None and -1.0 <= signal <= 1.0
    assert mirrored == -signal


@pytest.mark.parametrize("one", ALPHAS, ids=lambda one: one.id)
def test_router_alpha_aware_every_builtin_alpha_says_something_and_where_it_comes_from(one: Alpha) -> None:
    typical = {name: (BY_NAME[name].centre + BY_NAME[name].scale, 1.0) for name in one.inputs}
    signals = []
    for unsigned in (-1.0, 1.0):
        signals.append(say(one, {name: (raw, z if name in SIGNED else unsigned) for name, (raw, z) in typical.items()}))
    assert any(signal is not None and abs(signal) > 0.05 for signal in signals)
    assert set(one.inputs) & SIGNED
    assert one.reason and one.desc and any(character.isdigit() for character in one.source)
    assert 0.05 <= one.weight_init <= 0.3


def test_router_alpha_aware_builtin_alphas_are_enough_of_every_family_and_fit_together() -> None:
    families = Counter(one.family for one in ALPHAS)
    assert families["microstructure"] >= 6 and families["volatility"] >= 4 and families["smile"] >= 4
    assert [one.name for one in POLICIES] == ["momentum", "mean_reversion", "spread_capture", "breakout", "smile_tilt"]
    check_alphas(ALPHAS)
    check_policies(POLICIES, ALPHAS)
    for group in {one.group for one in ALPHAS}:
        assert sum(abs(one.weight_init) for one in ALPHAS if one.group == group) <= 1.0
    assert {one.listens for one in POLICIES} == {one.group for one in ALPHAS}


def test_router_alpha_aware_momentum_and_mean_reversion_look_at_different_things() -> None:
    listens = {one.name: one.listens for one in POLICIES}
    goes, comes = (
        {name for one in ALPHAS if one.group == listens[policy] for name in one.inputs} for policy in ("momentum", "mean_reversion")
    )
    assert goes and comes and not goes & comes


@pytest.mark.parametrize(
    ("id", "features", "signal"),
    [
        ("book_imbalance", {"obi": (0.6, 1.5)}, 0.75),
        ("book_imbalance", {"obi": (1.0, 4.0)}, 1.0),
        ("taker_flow", {"ti_30s": (-0.4, -1.0)}, -0.5),
        ("order_flow", {"ofi": (1.0, 1.0)}, 0.5),
        ("agreement", {"obi": (0.6, 1.5), "ti_30s": (0.4, 1.0)}, 0.5),
        ("agreement", {"obi": (0.6, 1.5), "ti_30s": (-0.4, -1.0)}, 0.0),
        ("short_reversal", {"ret_60s_bps": (6.0, 1.5)}, -0.5),
        ("range_edge", {"range_place": (0.5, 0.8)}, -0.125),
        ("crowded_move", {"ret_20s_bps": (3.0, 1.5), "trade_rate": (15.0, 2.0)}, -0.5),
        ("crowded_move", {"ret_20s_bps": (3.0, 1.5), "trade_rate": (0.0, -2.0)}, 0.0),
        ("micro_lean", {"stoikov_gap_bps": (0.1, 1.0)}, 0.5),
        ("touch_imbalance", {"obi_1": (-0.5, -1.0)}, -0.5),
        ("toxic_flow", {"ti": (0.6, 1.0), "vpin": (0.5, 2.0)}, 0.5),
        ("toxic_flow", {"ti": (0.6, 1.0), "vpin": (0.3, 0.0)}, 0.25),
        ("toxic_flow", {"ti": (0.6, 1.0), "vpin": (0.1, -2.0)}, 0.0),
        ("calm_trend", {"ret_300s_bps": (12.0, 1.5), "sigmaHAR": (1e-3, -1.0)}, 0.375),
        ("calm_trend", {"ret_300s_bps": (12.0, 1.5), "sigmaHAR": (4e-3, 2.0)}, 0.0),
        ("stress_reversal", {"ret_60s_bps": (6.0, 1.5), "sigmaGARCH": (4e-3, 2.0)}, -0.5),
        ("range_break", {"range_place": (1.0, 1.6), "vol_ratio": (1.4, 1.0)}, 0.5),
        ("range_break", {"range_place": (1.0, 1.6), "vol_ratio": (0.8, -0.5)}, 0.0),
        ("wild_trend", {"ret_300s_bps": (12.0, 1.5), "vol_ratio": (1.4, 1.0)}, 0.25),
        ("fresh_shock", {"ret_60s_bps": (6.0, 1.5), "sigma_gap": (-0.2, -1.0)}, 0.25),
        ("fresh_shock", {"ret_60s_bps": (6.0, 1.5), "sigma_gap": (0.2, 1.0)}, 0.0),
        ("smirk", {"rr25": (-0.05, -1.0)}, -0.5),
        ("skew_news", {"skew_z": (1.5, 1.5)}, 0.5),
        ("dear_skew", {"rr25": (0.05, 1.0), "iv_gap": (0.2, 2.0)}, 0.5),
        ("panic_fade", {"skew_z": (-1.5, -1.5), "iv_term_slope": (-0.2, -1.0)}, 0.25),
        ("panic_fade", {"skew_z": (-1.5, -1.5), "iv_term_slope": (0.2, 1.0)}, 0.0),
    ],
)
def test_router_alpha_aware_what_a_builtin_alpha_says_by_hand(id: str, features: Features, signal: float) -> None:
    found = say(BY_ID[id], features)
    assert found is not None and math.isclose(found, signal, abs_tol=1e-12)


def test_router_alpha_aware_builtin_plugins_use_what_third_parties_use_and_nothing_else() -> None:
    package = Path(alphapack.__file__).parent
    for folder in ("alphas", "policies"):
        for path in (package / folder).glob("*.py"):
            named = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
            assert named <= {"alphapack.plugin", f"alphapack.{folder}", "math"}, path
            assert not any(isinstance(node, ast.Import) for node in ast.walk(ast.parse(path.read_text()))), path
