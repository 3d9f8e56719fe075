"""The option chain of the simulated market: a smile that is known, and comes back from its quotes."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.models import chain, simulated_chain, smile
from alphapack.models.instruments import DAY_MS, EXPIRY_MS, YEAR_MS, instrument
from alphapack.models.simulated_chain import MARGIN_MS
from alphapack.models.svi import Svi, calendar_free

T0 = 1_770_000_000_000
USUAL = 0.45
times = st.integers(1_600_000_000_000, 2_000_000_000_000)


def truth(ts_ms: int, t: float, seed: int = 7, base: str = "BTC") -> Svi:
    return Svi(*simulated_chain.smile(seed, base, ts_ms, t, USUAL).tolist(), 0.0)


@given(times)
@settings(max_examples=40)
def test_options_smile_simulated_surface_is_free_of_arbitrage(ts_ms: int) -> None:
    before = None
    for expiry_ms in simulated_chain.expiries(ts_ms):
        one = truth(ts_ms, (expiry_ms - ts_ms) / YEAR_MS)
        assert one.butterfly_free
        assert before is None or calendar_free(before, one, -1.0, 1.0)
        before = one


@given(times)
def test_options_smile_simulated_expiries_are_days_fridays_and_months(ts_ms: int) -> None:
    listed = simulated_chain.expiries(ts_ms)
    days = [expiry_ms // DAY_MS for expiry_ms in listed]
    assert listed == sorted(set(listed)) and all(expiry_ms % DAY_MS == EXPIRY_MS for expiry_ms in listed)
    assert listed[0] - ts_ms >= MARGIN_MS and listed[1] - listed[0] <= DAY_MS
    assert sum(day % 7 == 1 for day in days) >= 6, "1970-01-02 was a Friday"
    assert (listed[0] - ts_ms) < 7 * DAY_MS and listed[-1] - ts_ms > 30 * DAY_MS, "seven and thirty days are between tenors"


@pytest.mark.parametrize(("base", "price"), [("BTC", 60_000.0), ("ETH", 2_512.37), ("SOL", 151.2), ("DOGE", 0.1234)])
def test_options_smile_comes_back_from_the_quotes(base: str, price: float) -> None:
    body = chain.read(simulated_chain.body(7, base, T0, price, USUAL))
    surface = chain.build(body.chain, T0, base=base, iv_unit=body.iv_unit)
    assert surface.rejected == [] and surface.ts_ms == body.ts_ms == T0
    assert [one.expiry_ms for one in surface.tenors] == simulated_chain.expiries(T0)
    for one in surface.tenors:
        known = truth(T0, one.t, base=base)
        assert one.svi is not None and one.atm is not None and one.rr25 is not None and one.fly25 is not None
        x = np.linspace(-1.3, 1.3, 41) * one.atm * np.sqrt(one.t)
        vols = np.sqrt(known.total_variance(x) / one.t)
        strikes = one.forward * np.exp(x)
        exact = smile.fit(strikes, vols, one.t, one.forward)
        assert exact.atm is not None and exact.rr25 is not None and exact.fly25 is not None
        assert (one.atm, one.rr25, one.fly25) == pytest.approx((exact.atm, exact.rr25, exact.fly25), abs=3e-4), one.tenor
        assert one.butterfly_free and one.calendar_free


def test_options_smile_simulated_quotes_are_around_their_marks() -> None:
    rows = msgspec.json.decode(simulated_chain.body(7, "BTC", T0, 60_000.0, USUAL))["chain"]
    assert len(rows) > 100
    for row in rows:
        assert (row["bid_price"] or 0.0) <= row["mark_price"] <= row["ask_price"]
        assert instrument(row["instrument_name"]).base == "BTC"
        assert round(row["ask_price"] * 1e4) == pytest.approx(row["ask_price"] * 1e4, abs=1e-9), "in ticks of .0001 coin"


def test_options_smile_simulated_chain_is_a_function_of_its_arguments() -> None:
    one = simulated_chain.body(7, "BTC", T0, 60_000.0, USUAL)
    assert one == simulated_chain.body(7, "BTC", T0, 60_000.0, USUAL)
    others = [(8, "BTC", T0, 60_000.0), (7, "ETH", T0, 60_000.0), (7, "BTC", T0 + DAY_MS, 60_000.0), (7, "BTC", T0, 60_001.0)]
    assert len({one, *(simulated_chain.body(*other, USUAL) for other in others)}) == 5


def test_options_smile_simulated_skew_moves_slowly_and_both_ways() -> None:
    rhos = [float(simulated_chain.smile(7, "BTC", T0 + hour * 3_600_000, 30 / 365, USUAL)[2]) for hour in range(24 * 60)]
    assert -0.5 <= min(rhos) < -0.25 and -0.05 < max(rhos) <= 0.2
    assert max(abs(b - a) for a, b in pairwise(rhos)) < 0.05
