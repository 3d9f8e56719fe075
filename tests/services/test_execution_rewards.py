"""Rewards by hand, who is told of what and when, and trades whose lines sum to their profit however they came about."""

import asyncio
import math
import random
from fractions import Fraction

import msgspec
import pytest
from test_execution import BTC, DEEP, SIXTH, START_NS, Floor, S, drive

from alphapack import app
from alphapack.domain.events import Crossed, HouseTook, Sized, TradeClosed
from alphapack.domain.inputs import CoreSettings
from alphapack.domain.market import BookState
from alphapack.domain.simulation import SimulatorSettings
from alphapack.domain.trading import Decision, Quote, RouterSettings
from alphapack.models import outcomes
from alphapack.models.deals import Deal
from alphapack.models.volatility import MINUTES_MIN
from alphapack.services.execution import Forecast
from alphapack.shell.clock import SetClock
from alphapack.shell.runner import Runner
from alphapack.shell.simulated import SimulatedMarket

HALF_SPREAD_BPS = 1e4 / 2001
"""A tick of 1000.5, halved."""


def impact_bps(lots: int) -> float:
    return math.sqrt(lots / 1e12)


def test_alpha_attribution_a_reward_is_what_was_traded_at_the_horizons_mid_less_the_modelled_way_out() -> None:
    floor = Floor()
    decision = floor.decide(1.0)
    floor.until(299)
    floor.show({1010: DEEP}, {1011: DEEP})
    assert floor.matured == []
    floor.before(300)
    floor.fire()
    (one,) = floor.matured
    assert (one.decision, one.symbol, one.policy, one.ts_ns, one.mid_half_ticks) == (decision, BTC, "test", START_NS + 300 * S, 2021)
    held = 5 * 2021 * SIXTH
    way_out = held * (HALF_SPREAD_BPS + impact_bps(SIXTH) + 5.0) / 1e4
    assert one.net == round(held - 10 * 1001 * SIXTH - 41_687 - way_out)
    assert one.allocated == 5 * 2001 * SIXTH and one.reward_bps == 1e4 * one.net / one.allocated and one.filled
    floor.show({500: DEEP}, {501: DEEP})
    floor.until(303)
    assert floor.matured == [one] and len(floor.closed) == 1, "what comes after the horizon changes it no more"


def test_alpha_attribution_a_reward_takes_the_last_mid_where_the_book_is_not_proven_at_the_horizon() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.until(200)
    floor.show({1004: DEEP}, {1005: DEEP})
    floor.until(202)
    floor.known.state = BookState.STALE
    floor.show({700: DEEP}, {701: DEEP})
    floor.until(310)
    (one,) = floor.matured
    assert (one.mid_half_ticks, one.ts_ns) == (2009, START_NS + 300 * S)
    floor.known.state = BookState.LIVE
    floor.until(312)
    (deal,) = floor.closed
    assert deal.horizon_mid == 2009 and floor.matured == [one], "the trade is held against the same mid"


def test_alpha_attribution_a_reward_does_not_depend_on_other_sleeves() -> None:
    alone, crossed = Floor(), Floor()
    crossed.decide(1.0)
    for floor in (alone, crossed):
        floor.before(300)
        floor.decide(1.0)
        floor.until(598)
    lots = {floor.said(Sized)[-1].sizing["lots"] for floor in (alone, crossed)}
    assert len(crossed.said(Crossed)) == 1 and max(lots) - min(lots) <= 20
    for floor in (alone, crossed):
        floor.show({1003: DEEP}, {1004: DEEP})
        floor.before(600)
        floor.fire()
    mine, theirs = alone.matured[-1], crossed.matured[-1]
    assert mine.decision == 1 and theirs.decision == 2
    assert mine.reward_bps == pytest.approx(theirs.reward_bps, abs=0.02), "impact, and the fee of a half tick"
    second = crossed.account.sleeves.by_decision[2]
    way_in = second.crossed * (HALF_SPREAD_BPS + impact_bps(second.crossed_lots) + 5.0) / 1e4
    held = 5 * 2007 * second.lots
    way_out = held * (HALF_SPREAD_BPS + impact_bps(second.lots) + 5.0) / 1e4
    assert theirs.net == pytest.approx(held + second.cash - way_in - way_out, abs=1)


def test_alpha_attribution_a_decision_without_a_size_is_told_of_at_once_and_has_no_reward() -> None:
    floor = Floor()
    floor.decide(0.0)
    floor.known.vol = None
    floor.decide(1.0)
    floor.known.vol, floor.known.state = Forecast(0.001, 0.001, 0.5), BookState.STALE
    floor.decide(1.0)
    assert floor.unsized == [1, 2, 3]
    floor.until(400)
    assert floor.matured == []


def test_alpha_attribution_a_trade_is_told_of_after_its_record() -> None:
    floor = Floor()
    heard: list[tuple[int, int]] = []
    floor.execution.closed = lambda deal: heard.append((deal.decision.id, len(floor.said(TradeClosed))))
    floor.decide(1.0)
    floor.until(303)
    assert heard == [(1, 1)]


def test_alpha_attribution_a_cost_is_that_of_the_decisions_own_time() -> None:
    floor = Floor(taker_fee_bps=7.0)
    floor.show({1000: DEEP}, {1004: DEEP})
    floor.decide(1.0)
    floor.until(1)
    floor.show({1000: DEEP}, {1001: DEEP})
    floor.until(310)
    (deal,) = floor.closed
    cost = deal.cost
    assert (cost.half_spread_bps, cost.k_bps, cost.a, cost.adv_lots, cost.taker_fee_bps) == (1e4 * 4 / 2004, 1.0, 0.5, 1e12, 7.0)
    assert (deal.decision_mid, deal.sizing.lots) == (2004, deal.entered.lots)


def test_alpha_attribution_without_an_impact_the_model_has_none() -> None:
    floor = Floor()
    floor.known.impact = lambda symbol: None  # type: ignore[method-assign]
    floor.decide(1.0)
    floor.until(303)
    (deal,) = floor.closed
    assert deal.cost.one_way_bps(10**9) == pytest.approx(HALF_SPREAD_BPS)


def test_alpha_attribution_a_plan_of_a_policys_own_horizon_takes_its_share() -> None:
    plans = []
    for plan_s in (0, 300, 120):
        floor = Floor()
        floor.known.spread_bps = 50.0
        floor.decide(1.0, urgency=0.5, plan_s=plan_s)
        deal = floor.execution.deal(1)
        assert deal is not None
        plans.append(deal.legs[0].horizon_s)
    assert plans == [60.0, 60.0, 24.0]


def test_alpha_attribution_lines_sum_to_the_profit_however_a_trade_came_about() -> None:
    """The floor holds each closed trade against its lines, as fractions and as whole units."""
    floors = [drive(seed, restarts=False) for seed in range(2, 6)]
    closed = [deal for floor in floors for deal in floor.closed]
    sleeves = [deal.sleeve for deal in closed if deal.sleeve is not None]
    assert len(closed) > 40 and any(deal.decision.quote is not None for deal in closed)
    assert any(one.crossed_lots for one in sleeves) and any(one.funding for one in sleeves) and any(one.filled_lots for one in sleeves)
    assert any(floor.said(HouseTook) for floor in floors)
    assert any(deal.entered.lots not in (0, deal.size_lots) for deal in closed), "some came to a part of their size"


def test_alpha_attribution_lines_are_refused_before_a_trade_is_closed() -> None:
    floor = Floor()
    floor.decide(1.0)
    floor.until(10)
    deal = floor.execution.deal(1)
    assert deal is not None
    for asked in (outcomes.lines, outcomes.execution_line):
        with pytest.raises(ValueError, match="a trade that is closed, found decision 1 open"):
            asked(deal)


async def trade(seed: int) -> tuple[list[Deal], list[outcomes.Matured]]:
    """Trade a simulated market of two symbols, a third of the decisions as quotes."""
    runner = Runner(app.build(), source="test", config=dict)
    execution = runner.engine.execution
    closed: list[Deal] = []
    matured: list[outcomes.Matured] = []
    decide, chance = execution.on_decision, random.Random(seed)

    def some_quoted(decision: Decision) -> None:
        if chance.random() < 0.4:
            quote = Quote(chance.choice((0.5, 1.0)), 1.0, chance.choice((0, 0, 2)))
            decision = msgspec.structs.replace(decision, quote=quote, exposure=quote.bid_share - quote.ask_share)
        decide(decision)

    execution.on_decision, execution.closed, execution.matured = some_quoted, closed.append, matured.append  # type: ignore[method-assign]
    core = CoreSettings(router=RouterSettings(interval_s=10, horizon_s=30))
    market = SimulatedMarket(
        SimulatorSettings(seed=seed, symbols=("BTCUSDT", "ETHUSDT")),
        core,
        SetClock(1_795_000_000 * S),
        app.WORKS,
        app.WORK_DELAY_NS,
        past_ns=150 * S,
        history_minutes=MINUTES_MIN + 60,
    )
    await market.make(runner)
    assert execution.portfolio is not None
    execution.portfolio.check()
    return closed, matured


def test_alpha_attribution_lines_sum_to_the_profit_of_every_trade_of_a_simulated_market() -> None:
    closed, matured = asyncio.run(trade(11))
    quoted = [deal for deal in closed if deal.decision.quote is not None]
    assert len(closed) > 5 and quoted
    rewards = {one.decision: one for one in matured}
    assert len(rewards) == len(matured)
    for deal in closed:
        assert deal.sleeve is not None and deal.horizon_mid is not None
        exact = outcomes.model_value(deal.model_lots, deal.decision_mid, deal.horizon_mid, deal.tick, deal.lot, deal.cost)
        assert deal.sleeve.cash == exact + outcomes.execution_line(deal) + deal.sleeve.fees
        told = outcomes.lines(deal)
        assert told.pnl == told.model + told.execution + told.fees and abs(told.model - exact) <= Fraction(1, 2)
        assert rewards[deal.decision.id].filled and rewards[deal.decision.id].mid_half_ticks == deal.horizon_mid
