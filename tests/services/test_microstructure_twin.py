"""The features against the slow twin, on whole recordings."""

import math
from pathlib import Path

import pytest

import alphapack as ap
from alphapack.domain.market import BookState
from alphapack.models.book import FEATURES
from reference import twin_of, twin_rows

ROUNDING = {"micro_vol": 2e-14, "obi": 1e-15, "ti": 5e-11, "ti_30s": 5e-11}
"""Absolute room where a difference of near numbers cancels: each 100 ms change is one of logarithms near 11, whose last bit
is 1.8e-15; the imbalance of converted contracts is one of sums whose quotient is near 0, and in ``ti`` each inverse trade's base
volume was rounded to a whole number of units, 5e-11 of itself at the most."""

CAPTURES = (
    # file, frames, depth messages whose top was compared with the venue's ticker of the same update
    ("binance-usdm_BTCUSDT_20240808T2354", 93_954, 503),
    ("binance-spot_BTCUSDT_20240808T2354", 99_574, 1_072),
    ("binance-spot_ETHUSDT_20240808T2354", 79_744, 1_056),
    ("binance-coinm_ETHUSD_PERP_20240808T2354", 78_314, 2_278),
    ("binance-spot_ETHBTC_20201101T09", 5_337, 0),
    ("binance-spot_NKNUSDT_20211012", 227, 19),
    ("binance-spot_BTCUSDT_trades_20201101T09", 18_054, 0),
)
EXACT = {"bid", "ask", "obi", "obi_1", "obi_10", "ti", "ti_1s", "ti_30s", "ti_n", "cancel_rate", "cancel_n", "queue_rate"}
"""One correctly rounded operation on exact integers (or the parse of a decimal): equal to the last bit where a lot is base currency."""


@pytest.mark.parametrize(("name", "frames", "compared"), CAPTURES, ids=[name for name, _, _ in CAPTURES])
def test_microstructure_features_equal_the_slow_twin_on_a_whole_capture(data: Path, name: str, frames: int, compared: int) -> None:
    """Every feature after every message: exact for integer sums, 1e-12 relative for the rest."""
    path = data / "captures" / f"{name}.raw.gz"
    replay = ap.replay(path)
    rows = replay.to_numpy()
    twin = twin_of(path)
    assert len(rows) == frames
    inverse = twin.contract_value is not None
    columns = {feature: rows[feature].tolist() for feature in FEATURES}
    states, times = rows["state"].tolist(), rows["ts_ns"].tolist()
    for i, expected in enumerate(twin_rows(path, twin)):
        assert (times[i], BookState(states[i]).name) == (expected.ts_ns, expected.state), f"row {i}"
        for feature, column in columns.items():
            wanted, found = getattr(expected, feature), column[i]
            if wanted is None:
                assert math.isnan(found), f"row {i} {feature}: {found} where the twin knows nothing"
            elif feature in EXACT and not (inverse and feature.startswith(("obi", "ti"))):
                assert found == wanted, f"row {i} {feature}: {found} for {wanted}"
            else:
                absolute = ROUNDING.get(feature.partition("_1")[0], 0.0)
                assert math.isclose(found, wanted, rel_tol=1e-12, abs_tol=absolute), f"row {i} {feature}: {found} for {wanted}"
    assert i + 1 == frames
    assert (replay.gaps, replay.crossed, replay.complaints) == (0, 0, [])
    assert (twin.gaps, twin.crossed, twin.ticker_mismatched) == (0, 0, 0)
    health = replay.health()
    for one in health.values():
        assert (one.ticker_checked, one.ticker_mismatched) == (twin.ticker_checked, 0)
        assert one.ticker_checked >= compared
