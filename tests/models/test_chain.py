"""A chain becomes a surface: the definitions' numbers, every bad row with its reason, recorded chains of Deribit."""

import csv
import json
import lzma
import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.models import black, chain, smile
from alphapack.models.chain import Surface, at_maturity, build
from alphapack.models.instruments import YEAR_MS, instrument
from alphapack.shell.chain_files import snapshots

NOW_MS = 1_770_370_516_484  # 6 February 2026, 09:35 UTC.
ORDER = [{"k": 0.9, "tenor": "7d", "type": "call", "iv": 0.6}, {"k": 1.1, "tenor": "7d", "type": "put", "iv": 0.7}]
Fields = dict[str, Any]


def volatility(x: float, t: float) -> float:
    """A smile with skew, on which SVI is exact: total variance of a slice at x."""
    return math.sqrt((0.01 * t + 0.3 * t**0.9 * (0.4 + -0.2 * x + math.hypot(x - 0.05, 0.3))) / t)


def quotes(days: float = 30.0, n: int = 21, forward: float = 70_000.0) -> list[Fields]:
    """Return rows of strikes around a forward, calls above and puts below."""
    strikes = [forward * math.exp(-0.5 + i / (n - 1)) for i in range(n)]
    of_type = {True: "call", False: "put"}
    t = days / 365
    return [{"k": k, "tenor": f"{days:g}d", "type": of_type[k >= forward], "iv": volatility(math.log(k / forward), t)} for k in strikes]


def named(row: Fields, forward: float, quote: str = "", expiry: str = "27MAR26") -> Fields:
    """Return a row of Deribit that says what a plain one does, with its mark price."""
    call = row["type"] == "call"
    found = instrument(f"BTC{quote}-{expiry}-{row['k']:.0f}-{'C' if call else 'P'}")
    t = (found.expiry_ms - NOW_MS) / YEAR_MS
    price = float(black.price(forward, found.strike, row["iv"], t, call)[0])
    name = f"BTC{quote}-{expiry}-{found.strike:.0f}-{'C' if call else 'P'}"
    return {"instrument_name": name, "underlying_price": forward, "mark_price": price if quote else price / forward, "mark_iv": row["iv"]}


def reasons(made: Surface) -> dict[int, str]:
    assert made.rejected_count == len(made.rejected)
    return {one.index: one.reason for one in made.rejected}


def same(one: Surface, other: Surface, tolerance: float = 1e-9) -> None:
    """Assert that two surfaces say the same."""
    for name in ("rr25", "fly25", "atm", "iv_term_slope"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=tolerance)
    for a, b in zip(one.tenors, other.tenors, strict=True):
        assert (a.points, a.quality) == (b.points, b.quality)
        assert (a.t, a.forward, a.atm, a.rr25) == pytest.approx((b.t, b.forward, b.atm, b.rr25), rel=tolerance, abs=tolerance)


# The definitions


def test_options_smile_the_order_s_chain_gives_the_numbers_of_the_definitions() -> None:
    made = build(ORDER, NOW_MS)
    (tenor,) = made.tenors
    assert tenor.t == 7 / 365 and tenor.tenor == "7d" and tenor.expiry_ms is None
    assert (tenor.forward, tenor.forward_source) == (1.0, "moneyness")
    assert (tenor.k25c, tenor.k25p) == pytest.approx((1.0711797, 0.9466999), abs=1e-6)
    assert (tenor.atm, tenor.rr25, tenor.fly25) == pytest.approx((0.6564544, 0.0608897, 0.0007056), abs=1e-6)
    assert (made.atm, made.rr25, made.fly25) == (tenor.atm, pytest.approx(tenor.rr25), pytest.approx(tenor.fly25))
    assert made.iv_term_slope is None and tenor.quality == "sparse" and tenor.svi is None
    assert (made.ref_tenor_days, made.iv_unit, made.delta_convention) == (7.0, "fraction", "forward")
    assert (made.accepted, made.rejected_count, tenor.points, tenor.calendar_free) == (2, 0, 2, True)
    assert (tenor.strikes, tenor.ivs) == ([0.9, 1.1], [0.6, 0.7])


def test_options_smile_types_and_tenors_are_read_in_any_case() -> None:
    loud = [row | {"type": row["type"].upper(), "tenor": "7D"} for row in ORDER]
    short = [row | {"type": row["type"][0], "tenor": "1W"} for row in ORDER]
    same(build(loud, NOW_MS), build(ORDER, NOW_MS), 0.0)
    same(build(short, NOW_MS), build(ORDER, NOW_MS), 0.0)
    assert len(build([*loud, short[0] | {"k": 1.0}], NOW_MS).tenors) == 1


def test_options_smile_another_delta_convention_is_handed_on() -> None:
    made = build(quotes(), NOW_MS, forward=70_000.0, delta="premium_adjusted")
    tenor = made.tenors[0]
    expected = smile.fit(tenor.strikes, tenor.ivs, tenor.t, 70_000.0, "premium_adjusted")
    assert (made.delta_convention, tenor.rr25, tenor.k_atm) == ("premium_adjusted", expected.rr25, expected.k_atm)
    assert tenor.rr25 != build(quotes(), NOW_MS, forward=70_000.0).tenors[0].rr25


def test_options_smile_k_is_a_strike_where_spot_forward_or_a_name_is_there() -> None:
    plain = build(ORDER, NOW_MS)
    scaled = [row | {"k": row["k"] * 70_000.0} for row in ORDER]
    for made, source in ((build(scaled, NOW_MS, forward=70_000.0), "request"), (build(scaled, NOW_MS, spot=70_000.0), "spot")):
        assert made.tenors[0].forward_source == source and made.tenors[0].forward == 70_000.0
        assert made.rr25 == pytest.approx(plain.rr25, abs=1e-12)
    stated = build(ORDER, NOW_MS, forward=70_000.0, k_unit="moneyness")
    assert stated.rr25 == pytest.approx(plain.rr25, abs=1e-12) and stated.tenors[0].strikes == pytest.approx([63_000.0, 77_000.0])
    with_name = build([*scaled, named({"k": 70_000, "type": "call", "iv": 0.6}, 70_000.0)], NOW_MS)
    assert with_name.accepted == 3 and with_name.tenors[0].forward is None and with_name.tenors[1].forward == 70_000.0


def test_options_smile_a_tenor_without_a_forward_keeps_its_place_and_says_why() -> None:
    made = build([row | {"k": 70_000.0 * row["k"]} for row in ORDER], NOW_MS, k_unit="strike")
    (tenor,) = made.tenors
    assert (tenor.quality, tenor.forward, tenor.atm, tenor.calendar_free, made.accepted) == ("none", None, None, None, 2)
    assert tenor.reason is not None and tenor.reason.startswith("expected a forward, found no underlying_price")
    assert (made.rr25, made.atm, made.ref_tenor_days) == (None, None, None)


# Rows


BAD: list[tuple[Fields, str]] = [
    ({"iv": "0.6"}, "expected iv as a number, found '0.6'"),
    ({"iv": True}, "expected iv as a number, found True"),
    ({"iv": [0.6]}, "expected iv as a number, found a value of the type list"),
    ({"k": "1"}, "expected k as a number, found '1'"),
    ({"tenor": 7}, "expected tenor as text, found 7"),
    ({"type": 1}, "expected type as text, found 1"),
    ({"vol": 0.6}, "expected fields of k, tenor, type, iv, bid, ask, mark, found 'vol'"),
    ({"iv": 0.0}, "expected iv above zero, found 0"),
    ({"iv": -0.6}, "expected iv above zero, found -0.6"),
    ({"iv": 60.0}, "expected iv as a fraction of at most 10, found 60: it looks like percent"),
    ({"iv": 700}, "expected iv as a fraction of at most 10, found 700: it looks like percent"),
    ({"iv": None}, "expected iv, mark, or both bid and ask above zero, found none"),
    ({"iv": None, "ask": 0.02}, "expected iv, mark, or both bid and ask above zero, found no bid and an ask 0.02"),
    ({"iv": None, "bid": 0.0, "ask": 0.02}, "expected iv, mark, or both bid and ask above zero, found no bid and an ask 0.02"),
    ({"iv": None, "bid": 0.02, "ask": 0}, "expected iv, mark, or both bid and ask above zero, found no ask and a bid 0.02"),
    ({"iv": None, "mark": 0.0}, "expected iv, mark, or both bid and ask above zero, found none"),
    ({"bid": -0.01}, "expected bid of zero or above, found -0.01"),
    ({"mark": -1}, "expected mark of zero or above, found -1"),
    ({"bid": 0.03, "ask": 0.02}, "expected bid at or below ask, found 0.03 above 0.02: crossed"),
    ({"k": None}, "expected k, the strike or its moneyness, found none"),
    ({"k": 0}, "expected k above zero, found 0"),
    ({"k": -1.0}, "expected k above zero, found -1"),
    ({"k": 70_000}, "expected k as moneyness of .01 to 100, found 70000: for strikes give spot, forward or k_unit"),
    ({"type": None}, "expected type as call or put, found none"),
    ({"type": "straddle"}, "expected type as call or put, found 'straddle'"),
    ({"tenor": None}, "expected a tenor such as 7d or 27MAR26, found none"),
    ({"tenor": "7x"}, "expected a tenor such as 7d, 2w, 1m, 1y, 27MAR26 or 2026-03-27, found '7x'"),
    ({"tenor": "31FEB26"}, "expected a day of the calendar from 1970 on, found '31FEB26'"),
    ({"tenor": "0d"}, f"expected a tenor that ends after ts_ms {NOW_MS}, found 0d"),
    ({"tenor": "5FEB26"}, f"expected a tenor that ends after ts_ms {NOW_MS}, found 5FEB26, which expired 1.07 days before"),
    ({"iv": None, "mark": 2.0}, "expected a price that has an implied volatility, found 2: price at or above its maximum"),
    ({"iv": None, "mark": 0.05, "k": 0.9}, "expected a price that has an implied volatility, found 0.05: price below the intrinsic value"),
]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(("change", "reason"), BAD)
def test_options_smile_a_bad_row_is_left_out_with_its_reason(change: Fields, reason: str, raw: bool) -> None:
    bad = {"k": 1.0, "tenor": "7d", "type": "call", "iv": 0.6} | change
    rows: list[Any] = [ORDER[0], bad, ORDER[1]]
    if raw:
        rows = [msgspec.Raw(json.dumps(row).encode()) for row in rows]
    made = build(rows, NOW_MS)
    assert list(reasons(made)) == [1] and made.rejected[0].reason.startswith(reason)
    assert made.accepted == 2
    assert next(one for one in made.tenors if one.tenor == "7d").rr25 == pytest.approx(0.0608897, abs=1e-6)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_options_smile_infinity_is_no_number(value: float) -> None:
    for name in ("k", "iv", "bid", "mark"):
        made = build([*ORDER, {"k": 1.0, "tenor": "7d", "type": "c", "iv": 0.6} | {name: value}], NOW_MS)
        assert reasons(made)[2].startswith(f"expected {name} as a finite number, found")


@pytest.mark.parametrize("row", [5, None, "row", [1, 2], True])
def test_options_smile_what_is_no_object_is_no_row(row: object) -> None:
    for rows in ([ORDER[0], row, ORDER[1]], [msgspec.Raw(json.dumps(one).encode()) for one in (ORDER[0], row, ORDER[1])]):
        made = build(rows, NOW_MS)  # type: ignore[arg-type]
        assert reasons(made)[1].startswith("expected a row of named fields, found") and made.accepted == 2


@pytest.mark.parametrize("raw", [b'{"k":1e400}', b'{"k":1' + b"0" * 6_000 + b"}", b"[" * 5_000 + b"]" * 5_000])
def test_options_smile_json_beyond_all_bounds_is_a_bad_row(raw: bytes) -> None:
    rows = [msgspec.Raw(json.dumps(ORDER[0]).encode()), msgspec.Raw(raw), msgspec.Raw(json.dumps(ORDER[1]).encode())]
    made = build(rows, NOW_MS)
    assert list(reasons(made)) == [1] and made.accepted == 2 and len(made.rejected[0].reason) < 400


def test_options_smile_numpy_s_scalars_and_nan_are_welcome() -> None:
    rows = [{name: np.float64(value) if isinstance(value, float) else np.str_(value) for name, value in row.items()} for row in ORDER]
    rows.append({"k": np.int64(1), "tenor": "7d", "type": "c", "iv": math.nan, "mark": np.float32(0.03), "bid": np.nan})
    made = build(rows, NOW_MS)
    assert made.accepted == 3
    assert made.tenors[0].ivs[1] == pytest.approx(black.implied_vol(np.float32(0.03), 1.0, 1.0, 7 / 365, True)[0][0], rel=1e-12)


def test_options_smile_a_repeated_row_is_left_out_and_says_whom_it_repeats() -> None:
    rows = [*ORDER, ORDER[1] | {"iv": 0.9}, ORDER[0] | {"type": "put", "iv": 0.61}, ORDER[1] | {"iv": 0.8}]
    made = build(rows, NOW_MS)
    assert reasons(made) == {at: "expected one row a tenor, strike and type, found row 1 again" for at in (2, 4)}
    assert (made.accepted, made.tenors[0].ivs) == (3, [0.61, 0.7])


def test_options_smile_one_row_out_of_range_costs_its_tenor_nothing() -> None:
    rows = [
        *ORDER,
        {"k": 1.05, "tenor": "7d", "type": "call", "iv": 1e-9},
        {"k": 0.9 * (1 + 1e-15), "tenor": "7d", "type": "put", "iv": 0.6},
    ]
    made = build(rows, NOW_MS)
    assert list(reasons(made)) == [2] and reasons(made)[2].startswith("expected iv from 7.22e-08 to 72.2 for its tenor, found 1e-09")
    assert (made.accepted, made.tenors[0].points, made.tenors[0].quality) == (3, 2, "sparse")


def test_options_smile_an_empty_chain_is_an_empty_surface() -> None:
    for made in (build([], NOW_MS), build([{}], NOW_MS, spot=1.0)):
        assert (made.tenors, made.accepted, made.rr25, made.atm, made.iv_term_slope, made.ref_tenor_days) == ([], 0, None, None, None, None)


def test_options_smile_a_bad_row_is_not_what_another_repeats() -> None:
    made = build([ORDER[0] | {"iv": -1.0}, *ORDER], NOW_MS)
    assert list(reasons(made)) == [0] and made.accepted == 2


def test_options_smile_of_a_call_and_a_put_the_one_out_of_the_money_counts() -> None:
    rows = [{"k": k, "tenor": "30d", "type": kind, "iv": iv} for k in (0.9, 1.0, 1.1) for kind, iv in (("call", 0.5), ("put", 0.6))]
    made = build(rows, NOW_MS)
    assert made.accepted == 6 and made.tenors[0].points == 3
    assert made.tenors[0].ivs == [0.6, 0.5, 0.5]


def test_options_smile_instruments_of_another_base_are_left_out() -> None:
    rows = [named(row, 70_000.0) for row in quotes()]
    rows[3]["instrument_name"] = "ETH-27MAR26-2800-P"
    made = build(rows, NOW_MS, base="btc")
    assert reasons(made) == {3: "expected an option on BTC, found ETH-27MAR26-2800-P"}
    assert len(made.tenors) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"instrument_name": "BTC-PERPETUAL"}, "expected the name of an option such as BTC-27MAR26-70000-C, found 'BTC-PERPETUAL'"),
        ({"instrument_name": 5}, "expected instrument_name as text, found 5"),
        ({"instrument_name": "BTC-5FEB26-70000-C"}, "expected a tenor that ends after ts_ms"),
        ({"underlying_price": 0.0}, "expected underlying_price above zero, found 0"),
        ({"mark_iv": "0.6"}, "expected mark_iv as a number, found '0.6'"),
        ({"bid_price": 0.2, "ask_price": 0.1}, "expected bid at or below ask, found 0.2 above 0.1: crossed"),
        ({"bid_iv": 0.7, "ask_iv": 0.6}, "expected bid_iv at or below ask_iv, found 0.7 above 0.6: crossed"),
        (
            {"mark_iv": None, "mark_price": None, "ask_price": 0.1},
            "expected iv, mark, or both bid and ask above zero, found no bid and an ask",
        ),
        ({"instrument_name": "BTC-27MAR26-7-C"}, "expected a strike within a hundredfold of the forward 70000, found 7"),
    ],
)
def test_options_smile_a_bad_row_of_deribit_is_left_out_with_its_reason(change: Fields, reason: str) -> None:
    rows = [named(row, 70_000.0) for row in quotes()]
    rows[12] |= change
    made = build(rows, NOW_MS)
    assert list(reasons(made)) == [12] and made.rejected[0].reason.startswith(reason)
    assert made.accepted == 20 and made.rr25 is not None


def test_options_smile_other_fields_of_deribit_are_of_no_matter() -> None:
    rows = [named(row, 70_000.0) for row in quotes()]
    more = [row | {"greeks": {"delta": 0.5}, "state": "open", "open_interest": "much", "volume": None} for row in rows]
    same(build(more, NOW_MS), build(rows, NOW_MS), 0.0)


def test_options_smile_moneyness_that_was_stated_is_no_strike_of_an_instrument() -> None:
    made = build([*ORDER, named({"k": 70_000, "type": "call", "iv": 0.6}, 70_000.0)], NOW_MS, k_unit="moneyness")
    assert reasons(made) == {2: "expected k as moneyness, as stated, found an instrument 70000"}


def test_options_smile_moneyness_among_strikes_is_named() -> None:
    made = build(ORDER, NOW_MS, spot=70_000.0)
    expected = "expected a strike within a hundredfold of the forward 70000, found 0.9: for moneyness give k_unit"
    assert reasons(made)[0] == expected
    assert made.tenors[0].quality == "none" and made.tenors[0].reason == "expected at least one good row, found none"


def test_options_smile_tenors_and_strikes_beyond_the_most_are_left_out() -> None:
    made = build([{"k": 1.0, "tenor": f"{1 + i}d", "type": "c", "iv": 0.6} for i in range(70)], NOW_MS)
    assert len(made.tenors) == 64 and made.rejected_count == 6
    assert made.rejected[0] == chain.Rejected(64, "expected at most 64 tenors, found 65d beyond them")
    strikes = [{"k": 60_000.0 + i, "tenor": "30d", "type": kind, "iv": 0.6} for i in range(1_200) for kind in ("c", "p")]
    made = build(strikes, NOW_MS, forward=60_000.0)
    assert made.accepted == 2_000 and made.tenors[0].strikes == [60_000.0 + i for i in range(1_000)]
    assert made.rejected[0] == chain.Rejected(
        2_000, "expected at most 1,000 strikes a tenor, found 1,200: those nearest the forward are kept"
    )


def test_options_smile_a_hundred_thousand_rows_are_read_and_a_thousand_reasons_kept() -> None:
    rows = [
        {"k": 50_000.0 + 40 * (i % 1_000), "tenor": f"{1 + i // 2_000}w", "type": "cp"[i // 1_000 % 2], "iv": 0.5 if i % 10 else -1.0}
        for i in range(100_000)
    ]
    made = build(rows, NOW_MS, forward=70_000.0)
    assert (made.accepted, made.rejected_count, len(made.rejected), len(made.tenors)) == (90_000, 10_000, 1_000, 50)
    assert all(one.quality in ("full", "extrapolated") and one.points == 900 for one in made.tenors)
    assert [one.index for one in made.rejected] == list(range(0, 10_000, 10))
    with pytest.raises(ValueError, match="expected at most 200,000 rows in a chain, found 200,001"):
        build([rows[0]] * 200_001, NOW_MS)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"spot": 0.0}, "expected spot as a finite number above zero, found 0"),
        ({"spot": math.nan}, "expected spot"),
        ({"forward": math.inf}, "expected forward"),
        ({"forward": "70000"}, "expected forward as a finite number above zero, found '70000'"),
        ({"k_unit": "delta"}, "expected k_unit as one of strike, moneyness, found 'delta'"),
        ({"iv_unit": "bps"}, "expected iv_unit as one of fraction, percent, found 'bps'"),
        ({"delta": "sticky"}, "expected delta as one of .*forward.*, found 'sticky'"),
    ],
)
def test_options_smile_arguments_that_hold_for_all_rows_are_checked(arguments: Fields, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build(ORDER, NOW_MS, **arguments)


Junk = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
Names = st.sampled_from(
    ["k", "tenor", "type", "iv", "bid", "ask", "mark", "instrument_name", "underlying_price", "mark_iv", "mark_price", "x"]
)
Near = st.fixed_dictionaries(
    {"k": st.floats(0.5, 2.0), "tenor": st.sampled_from(["7d", "1m", "27MAR26"]), "type": st.sampled_from(["c", "put"])},
    optional={"iv": st.floats(-1, 20), "bid": st.floats(-0.1, 1), "ask": st.floats(0, 1), "mark": st.floats(0, 1)},
)


Wild = st.fixed_dictionaries(
    {"instrument_name": st.sampled_from([f"BTC{quote}-27MAR26-{k}-{kind}" for quote in ("", "_USDC") for k in (60, 70) for kind in "CP"])},
    optional={
        name: st.floats() for name in ("underlying_price", "index_price", "mark_iv", "bid_price", "ask_price", "mark_price", "bid_iv")
    },
)


@given(st.lists(Near | Wild | st.dictionaries(Names, Junk, max_size=5) | Junk, max_size=12), st.none() | st.floats(1e-300, 1e300))
def test_options_smile_no_row_makes_a_chain_fail(rows: list[Any], spot: float | None) -> None:
    made = build(rows, NOW_MS, spot=spot)
    assert made.accepted + made.rejected_count == len(rows)
    assert chain.answer(msgspec.msgpack.encode(made)) == made  # All numbers are finite.
    assert all(one.reason.startswith("expected ") or "JSON" in one.reason for one in made.rejected)


# Volatilities and their unit


def test_options_smile_prices_give_the_volatilities_that_they_are_made_of() -> None:
    rows = quotes(forward=1.0)
    t = 30 / 365
    marks = [float(black.price(1.0, row["k"], row["iv"], t, row["type"] == "call")[0]) for row in rows]
    plain = [{name: row[name] for name in ("k", "tenor", "type")} for row in rows]
    by_iv = build(rows, NOW_MS)
    by_mark = build([row | {"mark": mark} for row, mark in zip(plain, marks, strict=True)], NOW_MS)
    by_middle = build([row | {"bid": 0.9 * mark, "ask": 1.1 * mark, "mark": 9.0} for row, mark in zip(plain, marks, strict=True)], NOW_MS)
    assert by_mark.tenors[0].ivs == pytest.approx(by_iv.tenors[0].ivs, rel=1e-12)
    assert by_middle.tenors[0].ivs == pytest.approx(by_iv.tenors[0].ivs, rel=1e-12)
    scaled = [row | {"k": 70_000 * row["k"], "mark": 70_000 * mark} for row, mark in zip(plain, marks, strict=True)]
    assert build(scaled, NOW_MS, forward=70_000.0).tenors[0].ivs == pytest.approx(by_iv.tenors[0].ivs, rel=1e-11)
    in_units_of_forward = [row | {"mark": mark} for row, mark in zip(plain, marks, strict=True)]
    stated = build(in_units_of_forward, NOW_MS, forward=70_000.0, k_unit="moneyness")
    assert stated.tenors[0].ivs == pytest.approx(by_iv.tenors[0].ivs, rel=1e-11)


@pytest.mark.parametrize("quote", ["", "_USDC"])
def test_options_smile_premiums_are_in_coin_or_in_the_quote_that_the_name_says(quote: str) -> None:
    rows = [named(row, 70_000.0, quote) for row in quotes()]
    priced = [{name: value for name, value in row.items() if name != "mark_iv"} for row in rows]
    assert build(priced, NOW_MS).tenors[0].ivs == pytest.approx(build(rows, NOW_MS).tenors[0].ivs, rel=1e-10)


def test_options_smile_a_given_volatility_comes_before_quotes_and_quotes_before_prices() -> None:
    row = named({"k": 70_000, "type": "call", "iv": 0.6}, 70_000.0)
    ivs = {"mark_iv": 0.5, "bid_iv": 0.5, "ask_iv": 0.56}
    assert build([row | ivs], NOW_MS).tenors[0].ivs == [0.5]
    assert build([row | ivs | {"mark_iv": None}], NOW_MS).tenors[0].ivs == [pytest.approx(0.53)]
    assert build([row | ivs | {"mark_iv": None, "bid_iv": 0.0}], NOW_MS).tenors[0].ivs == [pytest.approx(0.6)]


@pytest.mark.parametrize("priced", [True, False])
def test_options_smile_percent_and_fractions_are_told_apart(priced: bool) -> None:
    rows = [named(row, 70_000.0) for row in quotes()]
    if not priced:
        rows = [row | {"mark_price": None} for row in rows]
    percent = [row | {"mark_iv": 100 * row["mark_iv"]} for row in rows]
    fractions, percents = build(rows, NOW_MS), build(percent, NOW_MS)
    assert (fractions.iv_unit, percents.iv_unit) == ("fraction", "percent")
    same(percents, fractions, 1e-12)
    same(build(percent, NOW_MS, iv_unit="percent"), fractions, 1e-12)
    assert build([row | {"iv": 100 * row["iv"]} for row in ORDER], NOW_MS, iv_unit="percent").rr25 == pytest.approx(0.0608897, abs=1e-6)


def test_options_smile_a_price_tells_a_volatility_of_seven_percent_from_seven_hundred() -> None:
    calm = [named(row | {"iv": 0.07}, 70_000.0) for row in quotes(n=41) if 66_000 < row["k"] < 74_000]
    wild = [named(row | {"iv": 7.0}, 70_000.0) for row in quotes(n=41)]
    assert build([row | {"mark_iv": 7.0} for row in calm], NOW_MS).iv_unit == "percent"
    assert build(wild, NOW_MS).iv_unit == "fraction"
    assert build(wild, NOW_MS).atm == pytest.approx(7.0, rel=1e-6)


@pytest.mark.parametrize("priced", [True, False])
def test_options_smile_rows_in_another_unit_than_the_chain_are_left_out(priced: bool) -> None:
    fractions = [named(row, 70_000.0) | ({} if priced else {"mark_price": None}) for row in quotes()]
    percents = [row | {"mark_iv": 100 * row["mark_iv"]} for row in fractions]
    made = build([*percents[:12], fractions[12], *percents[13:]], NOW_MS)
    assert (made.iv_unit, list(reasons(made))) == ("percent", [12])
    assert made.rejected[0].reason.startswith("expected iv in the unit of the chain, percent, found mixed units:")
    made = build([*fractions[:12], percents[12], *fractions[13:]], NOW_MS)
    assert (made.iv_unit, list(reasons(made))) == ("fraction", [12])


def test_options_smile_a_true_volatility_far_above_the_others_stays() -> None:
    rows = [named(row | {"iv": 0.3}, 70_000.0) for row in quotes()] + [named({"k": 20_000, "type": "put", "iv": 6.5}, 70_000.0)]
    assert build(rows, NOW_MS).rejected_count == 0


# Forwards


def test_options_smile_a_forward_is_the_rows_own_before_the_request_s() -> None:
    rows = [named(row, 70_000.0) for row in quotes()]
    for at, row in enumerate(rows):
        row["underlying_price"] = 70_000.0 + at
    made = build(rows, NOW_MS, forward=60_000.0, spot=50_000.0)
    assert (made.tenors[0].forward, made.tenors[0].forward_source) == (70_010.0, "row")
    bare = [{name: value for name, value in row.items() if name != "underlying_price"} for row in rows]
    asked = build(bare, NOW_MS, forward=60_000.0).tenors[0]
    assert (asked.forward, asked.forward_source) == (60_000.0, "request")


@pytest.mark.parametrize("quote", ["", "_USDC"])
def test_options_smile_calls_and_puts_of_one_strike_give_the_forward(quote: str) -> None:
    both = [named(row | {"type": kind}, 70_123.0, quote) for row in quotes() for kind in ("call", "put")]
    bare = [{name: value for name, value in row.items() if name != "underlying_price"} for row in both]
    tenor = build(bare, NOW_MS, spot=50_000.0).tenors[0]
    assert tenor.forward_source == "parity" and tenor.forward == pytest.approx(70_123.0, rel=1e-9)
    one_side = [row for row in bare if row["instrument_name"].endswith("C")]
    assert build(one_side, NOW_MS, spot=50_000.0).tenors[0].forward_source == "spot"
    index = build([row | {"index_price": 69_000.0} for row in one_side], NOW_MS).tenors[0]
    assert (index.forward, index.forward_source) == (69_000.0, "spot")


def test_options_smile_plain_rows_have_a_forward_by_parity_too() -> None:
    prices = {
        k: (float(black.price(105.0, k, 0.5, 0.5, True)[0]), float(black.price(105.0, k, 0.5, 0.5, False)[0])) for k in (90, 100, 110)
    }
    rows = [
        {"k": k, "tenor": "182.5d", "type": kind, "bid": price - 0.5, "ask": price + 0.5}
        for k, pair in prices.items()
        for kind, price in zip(("call", "put"), pair, strict=True)
    ]
    tenor = build(rows, NOW_MS, k_unit="strike").tenors[0]
    assert (tenor.forward, tenor.forward_source) == (pytest.approx(105.0), "parity")
    assert tenor.ivs == pytest.approx([0.5] * 3)


def test_options_smile_a_price_without_a_forward_is_left_out() -> None:
    made = build([{"k": 100.0, "tenor": "7d", "type": "call", "mark": 3.0}], NOW_MS, k_unit="strike")
    assert reasons(made)[0].startswith("expected a forward to read a price by, found no underlying_price")


# Constant maturity


def test_options_smile_total_variance_is_linear_between_tenors() -> None:
    curve = [(0.05, (0.5, 0.4)), (0.15, (0.7, 0.6))]
    found = at_maturity(curve, 0.1)
    assert found is not None and found[0] == 0.1
    by_hand = [math.sqrt((0.5 * a * a * 0.05 + 0.5 * b * b * 0.15) / 0.1) for a, b in ((0.5, 0.7), (0.4, 0.6))]
    assert found[1] == pytest.approx(by_hand, rel=1e-14)
    assert at_maturity(curve, 0.05) == (0.05, [0.5, 0.4]) and at_maturity(curve, 0.15) == (0.15, [0.7, 0.6])
    assert at_maturity(curve, 0.01) == (0.05, [0.5, 0.4]) and at_maturity(curve, 9.0) == (0.15, [0.7, 0.6])
    assert at_maturity([], 0.1) is None


def test_options_smile_the_headline_and_the_slope_are_of_constant_maturity() -> None:
    made = build([*quotes(20), *quotes(50), *quotes(5)], NOW_MS, forward=70_000.0)
    five, twenty, fifty = made.tenors
    assert (five.tenor, twenty.tenor, fifty.tenor) == ("5d", "20d", "50d")

    def between(name: str, early: chain.Tenor, late: chain.Tenor, days: float) -> float:
        a, b = getattr(early, name) ** 2 * early.t, getattr(late, name) ** 2 * late.t
        share = (days / 365 - early.t) / (late.t - early.t)
        return math.sqrt((a + share * (b - a)) / (days / 365))

    call, put, middle = (between(name, twenty, fifty, 30) for name in ("iv25c", "iv25p", "atm"))
    assert (made.rr25, made.fly25, made.atm) == pytest.approx((call - put, (call + put) / 2 - middle, middle), rel=1e-12)
    assert made.ref_tenor_days == pytest.approx(30.0)
    slope = (middle - between("atm", five, twenty, 7)) / (math.sqrt(30 / 365) - math.sqrt(7 / 365))
    assert made.iv_term_slope == pytest.approx(slope, rel=1e-12)


def test_options_smile_the_nearest_tenors_stand_in_for_a_month_and_a_week() -> None:
    made = build([*quotes(10), *quotes(20)], NOW_MS, forward=70_000.0)
    ten, twenty = made.tenors
    assert made.ref_tenor_days == pytest.approx(20.0) and made.rr25 == pytest.approx(twenty.rr25)
    assert ten.atm is not None and twenty.atm is not None
    assert made.iv_term_slope == pytest.approx((twenty.atm - ten.atm) / (math.sqrt(30 / 365) - math.sqrt(7 / 365)))
    near = build([*quotes(7), *quotes(7.00001)], NOW_MS, forward=70_000.0)
    assert near.iv_term_slope == pytest.approx(0.0, abs=1e-3), "two tenors that are nearly one have no slope to speak of"
    assert build(quotes(60) + quotes(90), NOW_MS, forward=70_000.0).iv_term_slope is None  # Both ends would be the tenor of 60 days.


def test_options_smile_a_tenor_of_one_strike_serves_the_slope_alone() -> None:
    made = build([*quotes(20), {"k": 70_000.0, "tenor": "30d", "type": "call", "iv": 0.9}], NOW_MS, forward=70_000.0)
    twenty, thirty = made.tenors
    assert (thirty.quality, thirty.atm, thirty.rr25, thirty.fly25) == ("atm", 0.9, None, None)
    assert (made.atm, made.rr25, made.ref_tenor_days) == (twenty.atm, pytest.approx(twenty.rr25), pytest.approx(20.0)), "of one maturity"
    assert twenty.atm is not None
    assert made.iv_term_slope == pytest.approx((0.9 - twenty.atm) / (math.sqrt(30 / 365) - math.sqrt(7 / 365)))


def test_options_smile_total_variance_that_falls_is_no_free_calendar() -> None:
    low = [row | {"iv": row["iv"] / 3} for row in quotes(40)]
    made = build([*quotes(20), *low, *quotes(80)], NOW_MS, forward=70_000.0)
    assert [one.calendar_free for one in made.tenors] == [True, False, True]
    apart = [row | {"k": row["k"] * 20} for row in quotes(40)]
    assert [one.calendar_free for one in build([*quotes(20), *apart], NOW_MS, forward=70_000.0).tenors] == [True, None]


def test_options_smile_a_calendar_that_touches_between_two_points_is_seen() -> None:
    x = np.linspace(-0.4, 0.4, 17)
    base = 0.02 + 0.1 * np.hypot(x, 0.1)
    dip = 0.0201 + 0.1 * np.hypot(x, 0.1) - 0.02 * np.maximum(0.0, 0.05 - np.abs(x - 0.325))
    rows = [
        {"k": math.exp(a), "tenor": f"{days}d", "type": "c", "iv": math.sqrt(w / (days / 365))}
        for days, curve in ((30, base), (31, dip))
        for a, w in zip(x.tolist(), curve.tolist(), strict=True)
    ]
    assert [one.calendar_free for one in build(rows, NOW_MS).tenors] == [True, False]


# Envelope, and work off the loop


def test_options_smile_a_posted_chain_is_read() -> None:
    body = chain.read(json.dumps({"chain": ORDER, "spot": 1, "k_unit": "moneyness", "ts_ms": NOW_MS}).encode())
    assert (len(body.chain), body.spot, body.forward, body.k_unit, body.iv_unit, body.ts_ms) == (2, 1.0, None, "moneyness", None, NOW_MS)


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `chain`"),
        (b'{"chain":{}}', r"Expected `array`, got `object` - at `\$.chain`"),
        (b'{"chain":[],"spots":1}', "unknown field `spots`"),
        (b'{"chain":[],"spot":"1"}', r"`\$.spot`"),
        (b'{"chain":[],"spot":0}', "expected spot as a finite number above zero, found 0"),
        (b'{"chain":[],"forward":-1}', "expected forward as a finite number above zero, found -1"),
        (b'{"chain":[],"k_unit":"x"}', "k_unit"),
        (b'{"chain":[],"ts_ms":1}', "expected ts_ms in milliseconds from 1973 to 2100, found 1"),
        (b'{"chain":[NaN]}', "malformed"),
        (b'{"chain":' + b"[" * 100_000, "nested too deep|truncated|malformed"),
        (b'{"chain":[' + b"1," * 200_000 + b"1]}", "expected rows of named fields, found values of less than 8 bytes each"),
        (b'{"chain":[' + b"{}," * 200_000 + b"{}]}", "expected at most 200,000 rows in a chain, found more"),
        (b'{"chain":[' + b"12345678," * 200_000 + b"1]}", "expected at most 200,000 rows in a chain, found 200,001"),
    ],
)
def test_options_smile_a_wrong_envelope_is_an_error(raw: bytes, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        chain.read(raw)


def test_options_smile_work_off_the_loop_gives_the_same_surface() -> None:
    rows = [*quotes(20), *quotes(50), {"k": "x"}]
    body = json.dumps({"chain": rows, "forward": 70_000.0}).encode()
    made = chain.answer(chain.work(chain.request(NOW_MS, "BTC", body, "forward")))
    assert made == build(rows, NOW_MS, base="BTC", forward=70_000.0) and made.tenors[0].svi is not None
    later = json.dumps({"chain": rows, "forward": 70_000.0, "ts_ms": NOW_MS + 5}).encode()
    assert chain.answer(chain.work(chain.request(NOW_MS, "BTC", later, "forward"))).ts_ms == NOW_MS + 5


def test_options_smile_an_answer_that_is_no_surface_is_an_error() -> None:
    made = build(ORDER, NOW_MS)
    for wrong in (b"", b"\x93\x01\x02\x03", msgspec.msgpack.encode(msgspec.structs.replace(made, rr25=math.nan))):
        with pytest.raises(ValueError, match="expected the surface of a chain"):
            chain.answer(wrong)


# Recorded chains


@pytest.fixture(scope="module")
def crash(data: Path) -> Surface:
    """BTC on 6 February 2026."""
    return next(_built(data / "options" / "deribit_chain_full_20260206T093516Z.csv.gz", lambda base: base == "BTC"))


def _built(path: Path, wanted: Callable[[str], bool]) -> Iterator[Surface]:
    for ts_ms, base, raw in snapshots(path):
        if wanted(base):
            body = chain.read(raw)
            yield build(body.chain, ts_ms, base=base, spot=body.spot)


def test_options_smile_a_recorded_chain_gives_the_known_numbers(crash: Surface) -> None:
    tenor = next(one for one in crash.tenors if one.tenor == "27MAR26")
    assert (tenor.atm, tenor.rr25, tenor.fly25) == pytest.approx((0.563, -0.130, 0.022), abs=0.003)
    assert crash.rejected_count == 0 and crash.iv_unit == "fraction"
    assert len(crash.tenors) == 12 and all(one.quality == "full" for one in crash.tenors)
    assert crash.ref_tenor_days == pytest.approx(30.0) and crash.rr25 is not None and -0.16 < crash.rr25 < -0.13


def test_options_smile_recorded_marks_and_deltas_are_those_of_black(data: Path) -> None:
    with lzma.open(data / "options" / "deribit_chains_20260115-20260315.csv.xz", "rt") as stream:
        rows = list(islice(csv.DictReader(stream), 20_000))
    names = [instrument(row["instrument_name"]) for row in rows]
    strike, call = np.array([one.strike for one in names]), np.array([one.call for one in names])
    t = np.array([(one.expiry_ms - int(row["snapshot_ms"])) / YEAR_MS for one, row in zip(names, rows, strict=True)])
    columns = ("underlying_price", "mark_iv", "mark_price", "delta")
    forward, sigma, mark, delta = (np.array([float(row[name]) for row in rows]) for name in columns)
    assert np.median(np.abs(black.price(forward, strike, sigma, t, call) / forward - mark)) < 1.6e-5
    d1 = np.log(forward / strike) / (sigma * np.sqrt(t)) + sigma * np.sqrt(t) / 2
    apart = np.abs(np.array([0.5 * math.erfc(-one / math.sqrt(2)) for one in d1]) - ~call - delta)
    assert np.median(apart) < 6.5e-4 and np.quantile(apart, 0.99) <= 0.017


def test_options_smile_recorded_chains_read_alike_in_percent_from_marks_and_by_parity(data: Path, crash: Surface) -> None:
    path = data / "options" / "deribit_chain_full_20260206T093516Z.csv.gz"
    rows = next([msgspec.json.decode(row) for row in chain.read(raw).chain] for _, base, raw in snapshots(path) if base == "BTC")
    percent = build([row | {"mark_iv": 100 * row["mark_iv"]} for row in rows], NOW_MS)
    assert percent.iv_unit == "percent"
    same(percent, crash, 1e-9)
    marks = build([{name: row[name] for name in ("instrument_name", "underlying_price", "mark_price")} for row in rows], NOW_MS)
    assert (marks.atm, marks.rr25, marks.fly25) == pytest.approx((crash.atm, crash.rr25, crash.fly25), abs=1e-3)
    bare = build([{name: value for name, value in row.items() if name != "underlying_price"} for row in rows], NOW_MS)
    for one, other in zip(bare.tenors, crash.tenors, strict=True):
        assert one.forward_source == "parity" and one.forward == pytest.approx(other.forward, rel=1e-3)


def test_options_smile_a_nested_recording_of_eight_expiries_is_a_surface(data: Path) -> None:
    (made,) = _built(data / "options" / "deribit_BTC_8expiries_20260207.json.gz", lambda base: True)
    assert len(made.tenors) == 8 and made.rejected_count == 0 and all(one.quality in ("full", "extrapolated") for one in made.tenors)
    assert made.tenors[-1].forward == pytest.approx(69_692.44) and made.rr25 is not None and made.rr25 < 0.0


def test_options_smile_every_tenor_of_two_recorded_months_has_a_smile_or_a_reason(data: Path) -> None:
    path = data / "options" / "deribit_chains_20260115-20260315.csv.xz"
    made = [build(chain.read(raw).chain, ts_ms, base=base) for at, (ts_ms, base, raw) in enumerate(snapshots(path)) if at % 48 < 2]
    assert len(made) == 20 and sum(len(one.tenors) for one in made) > 200
    for surface in made:
        assert surface.rejected_count == 0 and surface.iv_unit == "fraction" and surface.rr25 is not None
        for tenor in surface.tenors:
            assert tenor.quality in ("full", "extrapolated", "unfit", "sparse") or tenor.reason
            assert tenor.atm is not None and 0.1 < tenor.atm < 5.0


def test_options_smile_repeated_rows_cost_no_more_than_others() -> None:
    n = 100_000
    made = build([{"k": 1.0, "tenor": "7d", "type": "call", "iv": 0.5}] * n, NOW_MS)
    assert (made.accepted, made.rejected_count) == (1, n - 1)
    assert made.rejected[-1].reason == "expected one row a tenor, strike and type, found row 0 again"


def test_options_smile_a_chain_is_of_one_underlying() -> None:
    rows = [
        {"instrument_name": f"{base}-27MAR26-{strike}-C", "underlying_price": price, "mark_iv": 0.5}
        for base, price in (("BTC", 66_000.0), ("ETH", 1_900.0))
        for strike in (int(price), int(1.1 * price))
    ]
    made = build([{"instrument_name": "nonsense"}, *rows], NOW_MS)
    assert made.tenors[0].forward == 66_000.0 and [one.index for one in made.rejected] == [0, 3, 4]
    assert made.rejected[1].reason == "expected an option on BTC, found ETH-27MAR26-1900-C"


@pytest.mark.parametrize("name", ["garbage", "ETH-27MAR26-1900-C", "BTC-1JAN20-60000-C"])
def test_options_smile_a_named_row_that_is_rejected_says_nothing_of_the_unit_of_k(name: str) -> None:
    order = [{"k": 0.9, "tenor": "7d", "type": "call", "iv": 0.6}, {"k": 1.1, "tenor": "7d", "type": "put", "iv": 0.7}]
    made = build([*order, {"instrument_name": name}], NOW_MS, base="BTC")
    assert made.rr25 == pytest.approx(0.0608897, abs=1e-6) and made.rejected_count == 1


def test_options_smile_mixed_units_are_rejected_whatever_unit_was_stated() -> None:
    rows = [{"k": k, "tenor": "7d", "type": "call", "iv": iv} for k, iv in ((0.9, 60.0), (1.0, 0.55), (1.1, 70.0))]
    made = build(rows, NOW_MS, iv_unit="percent")
    assert [(one.index, one.reason) for one in made.rejected] == [
        (1, "expected iv in the unit of the chain, percent, found mixed units: 0.55")
    ]
    assert made.tenors[0].ivs == [0.6, 0.7]


def test_options_smile_a_named_row_may_call_its_volatility_iv() -> None:
    made = build([{"instrument_name": "BTC-27MAR26-60000-C", "underlying_price": 60_000.0, "iv": 0.5}], NOW_MS)
    assert made.accepted == 1 and made.tenors[0].ivs == [0.5]


def test_options_smile_spot_deltas_of_a_chain_are_refused() -> None:
    with pytest.raises(ValueError, match="expected delta as one of forward, premium_adjusted, found 'spot'"):
        build([], NOW_MS, delta="spot")
    with pytest.raises(ValueError, match="expected forward as a finite number above zero"):
        build([], NOW_MS, forward=10**400)


def test_options_smile_level_of_the_headline_is_of_its_maturity() -> None:
    made = build(
        [{"k": 1.0, "tenor": "30d", "type": "call", "iv": 0.9}, *({"k": k, "tenor": "60d", "type": "call", "iv": 0.5} for k in (0.9, 1.1))],
        NOW_MS,
    )
    assert made.ref_tenor_days == pytest.approx(60.0) and made.atm == pytest.approx(0.5)
