"""The fixed policy: it follows imbalance both ways alike, and wants nothing where it knows nothing."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.simulation import SimulatorSettings
from alphapack.kernels import wire
from alphapack.models import policy
from alphapack.models.book import FEATURES, FeatureBook
from alphapack.models.policy import Target, propose
from alphapack.models.prediction import Fit, rank_ic
from alphapack.models.simulator import Simulator

S = 1_000_000_000
START_NS = 1_760_000_000 * S
DECISION_S = 20
DECISIONS = 360
IMBALANCES = st.floats(-1.0, 1.0)


@pytest.mark.parametrize(
    ("obi", "ti_30s", "wanted"),
    [
        (0.0, 0.0, Target(0.0, 0.0, 300, 0.5)),
        (0.38, 0.0, Target(0.0, 0.0, 300, 0.5)),
        (0.5, 0.0, Target(0.5, 0.5, 300, 0.525)),
        (0.25, 0.25, Target(0.5, 0.5, 300, 0.525)),
        (-0.25, -0.25, Target(-0.5, 0.5, 300, 0.525)),
        (0.75, -0.75, Target(0.0, 0.0, 300, 0.5)),
        (1.0, 1.0, Target(1.0, 1.0, 300, 0.55)),
        (-0.9, -0.9, Target(-1.0, 1.0, 300, 0.55)),
    ],
)
def test_execution_planner_policy_follows_the_mean_of_displayed_and_traded_imbalance(obi: float, ti_30s: float, wanted: Target) -> None:
    assert propose({"obi": obi, "ti_30s": ti_30s, "ofi": 9.0, "mid": 60_000.0}) == wanted


@pytest.mark.parametrize(
    "features",
    [{}, {"obi": 1.0}, {"ti_30s": 1.0}, {"obi": math.nan, "ti_30s": 1.0}, {"obi": 1.0, "ti_30s": math.nan}, {"ti": 1.0, "obi_1": 1.0}],
)
def test_execution_planner_policy_wants_nothing_where_it_knows_nothing(features: dict[str, float]) -> None:
    assert propose(features) is None


@given(IMBALANCES, IMBALANCES)
def test_execution_planner_policy_is_bounded_and_the_same_both_ways(obi: float, ti_30s: float) -> None:
    one, other = propose({"obi": obi, "ti_30s": ti_30s}), propose({"obi": -obi, "ti_30s": -ti_30s})
    assert one is not None and other is not None
    assert one.exposure == -other.exposure
    assert (one.urgency, one.horizon_s, one.win_probability) == (other.urgency, other.horizon_s, other.win_probability)
    assert -1.0 <= one.exposure <= 1.0 and 0.0 <= one.urgency <= 1.0
    assert 0.5 <= one.win_probability <= 0.5 + policy.PROBABILITY_GAIN
    assert one.exposure * (obi + ti_30s) >= 0.0


@given(IMBALANCES, IMBALANCES, st.floats(0.0, 1.0))
def test_execution_planner_policy_never_wants_less_for_more_pressure(obi: float, ti_30s: float, more: float) -> None:
    less, stronger = propose({"obi": obi, "ti_30s": ti_30s}), propose({"obi": min(1.0, obi + more), "ti_30s": ti_30s})
    assert less is not None and stronger is not None
    assert stronger.exposure >= less.exposure


def lived(edge: float) -> tuple[list[float], Fit]:
    """Return the exposures of two hours of decisions in a simulated market, and their rank IC with the move of the next 300 s."""
    market = Simulator(SimulatorSettings(seed=5, symbols=("BTCUSDT",), edge=edge, depth_ms=1_000), START_NS, history_minutes=3)
    terms = market.terms("BTCUSDT")
    book = FeatureBook(terms.tick, terms.lot, None)
    book.listen("BTCUSDT", wire.BINANCE_FUTURES)
    frames = market.advance(market.now_ns + S)
    while not frames or b"@depth" not in frames[-1][1]:
        frames = market.advance(market.now_ns + 1_000_000)
    snapshot = json.loads(market.snapshot("BTCUSDT", 1_000), parse_float=str)
    book.snapshot(json.dumps(snapshot["bids"]).encode(), json.dumps(snapshot["asks"]).encode())
    book.start(market.now_ns)
    book.last_update, book.live = snapshot["lastUpdateId"], True
    exposures, mids = [], []
    for i in range(DECISIONS):
        frames = [frame for frame in market.advance(market.now_ns + DECISION_S * S) if b"@bookTicker" not in frame[1][:40]]
        times, ends = np.array([ts_ns for ts_ns, _ in frames], np.int64), np.cumsum([len(payload) for _, payload in frames])
        rows = np.empty((len(frames), len(FEATURES)))
        assert book.frames(times, b"".join(payload for _, payload in frames), ends, rows) == len(frames)
        features = {name: value for name, value in zip(FEATURES, rows[-1].tolist(), strict=True) if value == value}
        target = propose(features)
        assert (target is None) == (i == 0), "30 s of trades are known from the second decision on"
        exposures.append(math.nan if target is None else target.exposure)
        mids.append(math.log(features["mid"]))
    ahead = 300 // DECISION_S
    moves = np.array(mids[ahead:]) - np.array(mids[:-ahead])
    return exposures[1:], rank_ic(np.array(exposures[:-ahead]), moves, ahead)


def test_execution_planner_policy_goes_both_ways_and_with_the_planted_edge_alone() -> None:
    (exposures, strong), (_, null) = lived(10.0), lived(0.0)
    for share in (np.mean(np.array(exposures) > 0), np.mean(np.array(exposures) < 0), np.mean(np.array(exposures) == 0)):
        assert share > 0.1
    assert strong.slope > 0.2 and strong.is_significant
    assert not null.is_significant
