"""Momentum in the simulated market: its alphas, weighed as they are believed at first, go with the planted edge and with nothing else."""

import json
import math

import numpy as np

from alphapack.alphas import ALPHAS
from alphapack.domain.simulation import SimulatorSettings
from alphapack.kernels import wire
from alphapack.models.alpha import AlphaContext, evaluate
from alphapack.models.book import FEATURES, FeatureBook
from alphapack.models.features import BY_NAME
from alphapack.models.policy import exposure_of, propose_safely
from alphapack.models.prediction import Fit, rank_ic
from alphapack.models.simulator import Simulator
from alphapack.policies import POLICIES

S = 1_000_000_000
START_NS = 1_760_000_000 * S
STEP_S, STEPS = 20, 240
AHEAD = 300 // STEP_S
MOMENTUM = next(one for one in POLICIES if one.name == "momentum")


def exposure(raw: dict[str, float]) -> float:
    """What momentum wants where scales are those believed before any was seen."""
    standard = {name: (value - BY_NAME[name].centre) / BY_NAME[name].scale for name, value in raw.items()}
    heard = [one for one in ALPHAS if one.group == MOMENTUM.listens and all(name in raw for name in one.inputs)]
    signals = [evaluate(one, AlphaContext("sim:BTCUSDT", 0, raw, standard, one.inputs)) or 0.0 for one in heard]
    blend = sum(one.weight_init * signal for one, signal in zip(heard, signals, strict=True))
    return exposure_of(propose_safely(MOMENTUM, AlphaContext("sim:BTCUSDT", 0, raw, standard, None), blend))


def lived(edge: float) -> tuple[list[float], Fit]:
    """Return the exposures of eighty minutes in a simulated market, and their rank IC with the move of the next 300 s."""
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
    for _ in range(STEPS):
        frames = [frame for frame in market.advance(market.now_ns + STEP_S * S) if b"@bookTicker" not in frame[1][:40]]
        times, ends = np.array([ts_ns for ts_ns, _ in frames], np.int64), np.cumsum([len(payload) for _, payload in frames])
        rows = np.empty((len(frames), len(FEATURES)))
        assert book.frames(times, b"".join(payload for _, payload in frames), ends, rows) == len(frames)
        known = {name: value for name, value in zip(FEATURES, rows[-1].tolist(), strict=True) if value == value}
        exposures.append(exposure({name: value for name, value in known.items() if name in BY_NAME}))
        mids.append(math.log(known["mid"]))
    moves = np.array(mids[AHEAD:]) - np.array(mids[:-AHEAD])
    return exposures, rank_ic(np.array(exposures[:-AHEAD]), moves, AHEAD)


def test_router_alpha_aware_momentum_goes_both_ways_and_with_the_planted_edge_alone() -> None:
    (exposures, strong), (_, null) = lived(10.0), lived(0.0)
    for share in (np.mean(np.array(exposures) > 0), np.mean(np.array(exposures) < 0), np.mean(np.array(exposures) == 0)):
        assert share > 0.1
    assert strong.slope > 0.2 and strong.is_significant
    assert not null.is_significant
