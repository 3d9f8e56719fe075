"""Funding rates: read out of Binance's mark prices, and paid by what is held when their time has passed."""

from fractions import Fraction
from typing import Any

import pytest

from alphapack import app
from alphapack.domain.events import FrameError, FundingPaid, FundingRate, Ignored
from alphapack.domain.inputs import Configure, CoreSettings, Frame
from alphapack.domain.market import Step
from alphapack.engine.engine import Engine
from alphapack.venues.binance import BinanceCodec

SYMBOL = "binance-usdm:BTCUSDT"
T_MS = 1_795_449_600_000
HELD, TICK, LOT = 250, Step(1, 1), Step(1, 3)


def update(rate: str = "0.00010000", mark: str = "61000.50", next_ms: int = T_MS, at_ms: int = T_MS - 3_000) -> bytes:
    said = f'"p":"{mark}","P":"61001.0","i":"61002.1","r":"{rate}","T":{next_ms}'
    return f'{{"e":"markPriceUpdate","E":{at_ms},"s":"BTCUSDT",{said}}}'.encode()


class Fed:
    """An engine that holds a quarter of a coin, bought for 60,000."""

    def __init__(self) -> None:
        self.engine: Engine = app.build()
        self.engine.step(Configure(1, T_MS * 1_000_000, CoreSettings()))
        portfolio = self.engine.execution.portfolio
        assert portfolio is not None
        account = portfolio.add(SYMBOL, TICK, LOT)
        portfolio.mark(SYMBOL, 1_200_000)
        account.sleeves.open(1, 0, HELD)
        account.sleeves.submit(1, {1: HELD})
        portfolio.fill(SYMBOL, 1, HELD, 15_000 * 10**8, 0, 0)
        self.portfolio, self.account = portfolio, account

    def take(self, frame: bytes) -> list[Any]:
        return self.engine.step(Frame(self.engine.seq + 1, self.engine.now_ns, "binance-usdm", "", frame))


def test_execution_planner_funding_is_read_from_a_mark_price() -> None:
    (read,) = BinanceCodec("usdm").decode(update(), "")
    assert read == FundingRate(SYMBOL, (T_MS - 3_000) * 1_000_000, "61000.50", "0.00010000", T_MS)
    (delivery,) = BinanceCodec("usdm").decode(update(rate="", next_ms=0), "")
    assert isinstance(delivery, Ignored)


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (update(rate="1e3"), "found p b'\"61000.50\"', r '1e3'"),
        (update(rate="nan"), "r 'nan'"),
        (update(mark="-1"), "p b'\"-1\"'"),
        (update(at_ms=0), "E 0"),
        (update().replace(b'"r":"0.00010000",', b""), "r ''"),
    ],
)
def test_execution_planner_funding_that_is_none_is_refused(frame: bytes, found: str) -> None:
    with pytest.raises(FrameError, match="expected E, p, r and T in a markPriceUpdate") as caught:
        BinanceCodec("usdm").decode(frame, "")
    assert found in str(caught.value)


def test_execution_planner_funding_is_paid_once_its_time_has_passed_by_the_last_rate_before() -> None:
    fed = Fed()
    assert fed.take(update("0.00020000", "61000.00", at_ms=T_MS - 6_000)) == []
    assert fed.take(update("0.00010000", "61000.50")) == []
    (paid,) = fed.take(update("0.00030000", "61010.00", next_ms=T_MS + 28_800_000, at_ms=T_MS + 3_000))
    exact = -Fraction(HELD, 1_000) * Fraction("61000.50") * Fraction("0.0001") * 10**8
    assert exact == -152_501_250
    assert paid == FundingPaid(SYMBOL, HELD, "61000.50", "0.00010000", T_MS, -152_501_250)
    assert fed.account.funding == -152_501_250 == fed.account.sleeves.by_decision[1].funding
    assert fed.portfolio.equity == fed.portfolio.capital - 152_501_250
    fed.portfolio.check()
    assert fed.take(update("0.00030000", "61010.00", next_ms=T_MS + 28_800_000, at_ms=T_MS + 6_000)) == []


def test_execution_planner_funding_is_not_paid_before_its_time_or_for_an_older_word() -> None:
    fed = Fed()
    fed.take(update())
    assert fed.take(update(next_ms=T_MS + 28_800_000, at_ms=T_MS - 1)) == [], "a later time was told before this one came"
    fed = Fed()
    fed.take(update())
    assert fed.take(update(next_ms=T_MS - 28_800_000, at_ms=T_MS + 1)) == []
    assert len(fed.take(update(next_ms=T_MS + 28_800_000, at_ms=T_MS + 2))) == 1


def test_execution_planner_funding_beyond_belief_is_refused() -> None:
    fed = Fed()
    fed.take(update(rate="0.5"))
    assert fed.engine.rejection is not None and "expected a funding rate within 1/10" in fed.engine.rejection
    fed.take(update(mark="0"))
    assert fed.engine.rejection is not None and "a mark above 0" in fed.engine.rejection


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"mark": "90000.1"}, "expected a mark within 1/2 of the mid, 60000.0, found 90000.1"),
        ({"mark": "29999.9"}, "expected a mark within 1/2 of the mid, 60000.0, found 29999.9"),
        ({"next_ms": T_MS + 2 * 86_400_000 + 1, "at_ms": T_MS}, "expected a funding time within 172800000 ms"),
    ],
)
def test_execution_planner_funding_far_from_the_market_or_from_now_is_refused_and_forgotten(said: dict[str, Any], found: str) -> None:
    fed = Fed()
    fed.take(update())
    fed.take(update(**said))
    assert fed.engine.rejection is not None and found in fed.engine.rejection
    (paid,) = fed.take(update(next_ms=T_MS + 28_800_000, at_ms=T_MS + 1))
    assert (paid.mark, paid.rate, paid.paid) == ("61000.50", "0.00010000", -152_501_250)


@pytest.mark.parametrize("said", [{"mark": "90000"}, {"mark": "30000"}, {"next_ms": T_MS + 2 * 86_400_000, "at_ms": T_MS}])
def test_execution_planner_funding_at_the_limits_of_belief_is_taken(said: dict[str, Any]) -> None:
    fed = Fed()
    fed.take(update(**said))
    assert fed.engine.rejection is None
    paid = fed.take(update(next_ms=T_MS + 2 * 86_400_000 + 1, at_ms=T_MS + 2 * 86_400_000))
    assert [one.mark for one in paid] == [said.get("mark", "61000.50")]


def test_execution_planner_funding_is_paid_among_sleeves_that_hold_opposite_things() -> None:
    fed = Fed()
    fed.account.sleeves.open(2, 0, -HELD)
    fed.account.sleeves.submit(2, {2: -HELD})
    fed.portfolio.fill(SYMBOL, 2, HELD, 15_000 * 10**8, 0, 0)
    fed.take(update())
    (paid,) = fed.take(update(next_ms=T_MS + 28_800_000, at_ms=T_MS + 1))
    assert paid == FundingPaid(SYMBOL, 0, "61000.50", "0.00010000", T_MS, 0)
    sleeves = fed.account.sleeves.by_decision
    assert (sleeves[1].funding, sleeves[2].funding, fed.account.funding) == (-152_501_250, 152_501_250, 0)
    fed.portfolio.check()


def test_execution_planner_funding_of_a_symbol_that_holds_nothing_is_not_paid() -> None:
    fed = Fed()
    fed.account.sleeves.submit(2, {1: -HELD})
    fed.portfolio.fill(SYMBOL, 2, HELD, 15_000 * 10**8, 0, 0)
    fed.take(update())
    assert fed.take(update(next_ms=T_MS + 28_800_000, at_ms=T_MS + 1)) == []


def test_execution_planner_funding_that_is_awaited_survives_a_restart() -> None:
    fed = Fed()
    fed.take(update())
    restored = app.build()
    restored.load(fed.engine.save())
    later = update(next_ms=T_MS + 28_800_000, at_ms=T_MS + 1)
    frame = Frame(fed.engine.seq + 1, fed.engine.now_ns, "binance-usdm", "", later)
    assert restored.step(frame) == fed.engine.step(frame) != []
    assert restored.hexdigest() == fed.engine.hexdigest()
