"""``ap.implied_vol``, ``ap.smile`` and ``ap.chain`` as a notebook calls them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alphapack as ap
from alphapack.models import black
from alphapack.models.black import Status

ORDER = [{"k": 0.9, "tenor": "7d", "type": "call", "iv": 0.6}, {"k": 1.1, "tenor": "7d", "type": "put", "iv": 0.7}]
T0 = 1_770_370_516_484


def test_options_smile_implied_vol_inverts_prices() -> None:
    strikes, vols = np.array([0.5, 0.9, 1.0, 1.3, 2.0]), np.array([0.9, 0.6, 0.5, 0.55, 0.8])
    prices = black.price(1.0, strikes, vols, 0.25, strikes >= 1.0)
    assert ap.implied_vol(prices, 1.0, strikes, 0.25, strikes >= 1.0) == pytest.approx(vols, rel=1e-13)


def test_options_smile_implied_vol_says_why_there_is_none() -> None:
    prices = [0.05, 1.2, -0.1, math.nan, 0.0]
    vols, status = ap.implied_vol(prices, 1.0, 1.1, 0.5, True, return_status=True)
    assert np.isnan(vols).tolist() == [False, True, True, True, True]
    assert [Status(one) for one in status.tolist()][:4] == [Status.OK, Status.ABOVE_MAXIMUM, Status.BELOW_INTRINSIC, Status.NOT_FINITE]
    assert all(Status(one).text for one in status.tolist())
    with pytest.raises(ValueError, match="expected"):
        ap.implied_vol([1.0, 2.0], [1.0, 2.0, 3.0], 1.0, 1.0, True)


def test_options_smile_of_two_quotes_is_the_one_by_hand() -> None:
    made = ap.smile([1.1, 0.9], [0.7, 0.6], 7 / 365)
    assert (made.atm, made.rr25, made.fly25) == pytest.approx((0.6564544, 0.0608897, 0.0007056), abs=1e-6)
    assert (made.quality, made.svi, made.butterfly_free) == ("sparse", None, None)
    adjusted = ap.smile([0.9, 1.1], [0.6, 0.7], 7 / 365, delta="premium_adjusted")
    assert adjusted.atm != made.atm
    assert ap.smile([90, 110], [0.6, 0.7], 7 / 365, forward=100.0).rr25 == pytest.approx(made.rr25, rel=1e-12)
    spot = ap.smile([0.9, 1.1], [0.6, 0.7], 7 / 365, delta="spot", discount_foreign=0.99)
    assert spot.rr25 != made.rr25 and spot.atm == made.atm


def test_options_smile_of_a_chain_of_rows() -> None:
    made = ap.chain(
        [*ORDER, {"k": 1.0, "tenor": "7d", "type": "call", "iv": 0.0}, {"k": np.float64(1.0), "tenor": "30d", "type": "P", "iv": 0.6}]
    )
    assert (made.rr25, made.fly25) == pytest.approx((0.0608897, 0.0007056), abs=1e-6)
    assert [(one.index, one.reason.split(",")[0]) for one in made.rejected] == [(2, made.rejected[0].reason.split(",")[0])]
    assert [(one.tenor, one.quality) for one in made.tenors] == [("7d", "sparse"), ("30d", "atm")]
    assert made.tenors[1].forward == 1.0 and made.iv_term_slope is not None


def test_options_smile_of_a_chain_is_as_of_its_rows() -> None:
    row: dict[str, Any] = {"instrument_name": "BTC-27MAR26-70000-C", "underlying_price": 66_000.0, "mark_iv": 56.3, "timestamp": T0}
    other = {**row, "instrument_name": "BTC-27MAR26-60000-P", "mark_iv": 65.0, "timestamp": T0 + 700}
    made = ap.chain([row, other])
    assert (made.ts_ms, made.iv_unit, made.tenors[0].forward) == (T0 + 700, "percent", 66_000.0)
    assert ap.chain([row, other], T0).ts_ms == T0
    assert ap.chain([row, other], base="ETH").rejected[0].reason.startswith("expected an option on ETH")


def test_options_smile_of_deribits_recorded_chain(data: Path) -> None:
    import csv
    import gzip

    with gzip.open(data / "options" / "deribit_chain_full_20260206T093516Z.csv.gz", "rt") as stream:
        rows = [
            {
                "instrument_name": one["instrument_name"],
                "underlying_price": float(one["underlying"]),
                "mark_iv": float(one["implied_volatility"]),
                "mark_price": float(one["mark_price"]),
            }
            for one in csv.DictReader(stream)
            if one["currency"] == "BTC"
        ]
    made = ap.chain(rows, T0)
    march = next(one for one in made.tenors if one.tenor == "27MAR26")
    assert (march.atm, march.rr25, march.fly25) == pytest.approx((0.563, -0.130, 0.022), abs=0.004)
    assert made.ref_tenor_days == 30.0 and made.rejected == [] and made.iv_unit == "fraction"


def test_options_smile_of_a_chain_needs_a_time_that_is_one() -> None:
    row: dict[str, Any] = {"instrument_name": "BTC-27MAR26-70000-C", "underlying_price": 66_000.0, "mark_iv": 56.3}
    assert ap.chain([{**row, "snapshot_ms": np.int64(T0)}]).ts_ms == ap.chain([{**row, "timestamp": float(T0)}]).ts_ms == T0
    for stamp in ("2026-02-06T09:35:16Z", 1.5, math.nan, True):
        with pytest.raises(ValueError, match=r"expected timestamp of a row in whole milliseconds, found .*: give ts_ms"):
            ap.chain([{**row, "timestamp": stamp}])
