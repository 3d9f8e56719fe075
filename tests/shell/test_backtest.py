"""A recording traded on paper: every sum of the result holds to the unit, against itself and against what the engine says."""

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

import alphapack as ap
from alphapack import app, config
from alphapack.domain.backtest import Backtest, Bound
from alphapack.domain.events import Attributed, DecisionMade, Filled, FundingPaid, Record, RewardLearnt, TradeClosed
from alphapack.domain.money import UNITS
from alphapack.domain.trading import Queue
from alphapack.models.policy import FLAT
from alphapack.shell import backtest
from alphapack.shell.candle_files import load
from rig import head
from test_backtest_cli import SETTINGS, SYMBOL, Market, market, traded

BTC = "binance-usdm:BTCUSDT"
CAPTURE, CANDLES = "binance-usdm_BTCUSDT_20240808T2354.raw.gz", "binance_BTCUSDT_1m_20220615-20220719.csv.gz"
LINES = 9_000
QUICK: dict[str, dict[str, object]] = {
    "router": {"interval_s": 3, "horizon_s": 6, "floor": 0.05},
    "core": {"instruments": [{"symbol": BTC, "maker_fee_bps": 0.0, "taker_fee_bps": 0.2}]},
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return market(tmp_path_factory)


@pytest.fixture(scope="module")
def found(simulated: Market) -> Backtest:
    return traded(simulated)


@pytest.fixture(scope="module")
def recorded(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    capture = head(data / "captures" / CAPTURE, LINES, tmp_path_factory.mktemp("recorded"))
    return ap.backtest([capture], QUICK, history=[data / "candles" / CANDLES], history_shift=True)


def said(simulated: Market, queue: Queue) -> list[Record]:
    """What an engine says of the same inputs, stepped here."""
    settings = app.prepared(config.stated({**SETTINGS, "execution": {"queue": queue}}))
    complaints: list[str] = []
    recording = app.record_of([simulated.capture], settings, None, complaints.append)
    recording.history = [page for past in load([str(simulated.candles)], [SYMBOL]) for page in past.pages()]
    records = [one for _, caused in app.steps(app.build(app.registry_of(settings)), recording) for one in caused]
    assert complaints == []
    return records


def of_kind(records: Iterable[Record], kind: type[Record]) -> int:
    return sum(isinstance(one, kind) for one in records)


def check_sums(one: Backtest) -> None:
    """Hold the three sums of ``domain.backtest``, and all that is told twice, to the unit."""
    assert one.unexplained == 0
    for trade in one.trades:
        assert trade.pnl == trade.base + trade.alphas + trade.execution + trade.fees
        assert trade.notional > 0 and trade.closed_ns >= trade.opened_ns and 0.0 < trade.win_probability < 1.0
    assert one.total == sum(trade.pnl for trade in one.trades) == sum(policy.pnl for policy in one.policies)
    assert one.base == sum(trade.base for trade in one.trades) and one.fees == sum(trade.fees for trade in one.trades)
    assert one.execution == sum(trade.execution for trade in one.trades)
    assert sum(alpha.pnl for alpha in one.alpha_pnl) == sum(trade.alphas for trade in one.trades)
    assert one.change == one.total + one.open_pnl_change + one.house
    assert one.change == one.equity.equity[-1] - one.capital, "what closed, what is open and the house are all there is"
    assert len(one.equity.ts_ms) == len(one.equity.equity) == len(one.equity.drawdown) and one.equity.ts_ms[-1] == one.to_ms
    assert one.equity.ts_ms == sorted(set(one.equity.ts_ms)) and all(0.0 <= fall < 1.0 for fall in one.equity.drawdown)
    assert Counter(trade.policy for trade in one.trades) == {p.policy: p.trades for p in one.policies if p.trades}
    assert one.decisions.n == sum(one.decisions.by_policy.values()) == sum(policy.decisions for policy in one.policies)
    assert one.costs.fees == sum(fill.fee for fill in one.fills)
    assert [fill.ts_ns for fill in one.fills] == sorted(fill.ts_ns for fill in one.fills)
    shares = [alpha.share for alpha in one.alpha_pnl]
    assert all(share is None for share in shares) or abs(sum(abs(share or 0.0) for share in shares) - 1.0) < 1e-12
    told = one.costs
    if told.mean_bps is not None:
        parts = (told.delay_bps, told.spread_bps, told.impact_bps, told.opportunity_bps)
        assert told.mean_bps == pytest.approx(sum(part or 0.0 for part in parts), abs=1e-9)


def check_bounds(one: Backtest) -> None:
    """The two beliefs are there, and the run itself is one of them."""
    assert [bound.queue for bound in one.bounds] == list(app.QUEUES) == ["risk_averse", "optimistic"]
    for bound in one.bounds:
        assert bound.equity is not None and bound.pnl == bound.equity.equity[-1] - one.capital
    first = one.bounds[0]
    assert first == Bound("risk_averse", one.change, len(one.trades), len(one.fills), one.equity)


def test_alpha_attribution_every_sum_of_a_backtest_holds_over_a_simulated_market(found: Backtest) -> None:
    check_sums(found)
    check_bounds(found)
    assert found.costs.mean_bps is not None and found.costs.self_impact < 0
    assert len(found.trades) > 5 and len({trade.policy for trade in found.trades}) > 1 and any(one.pnl for one in found.alpha_pnl)


def test_alpha_attribution_every_sum_of_a_backtest_holds_over_a_recorded_market(recorded: Backtest) -> None:
    check_sums(recorded)
    check_bounds(recorded)
    assert recorded.symbols == [BTC] and len(recorded.trades) > 1 and len(recorded.fills) > 4
    assert recorded.notes[0].startswith("Candles of another time were moved") and "minutes: no number here" in recorded.notes[-1]


def test_alpha_attribution_what_the_house_took_and_what_is_still_open_are_in_the_sums(simulated: Market) -> None:
    coarse = {"symbol": SYMBOL, "maker_fee_bps": 0.0, "taker_fee_bps": 0.2, "min_notional": 500.0}
    dusty = ap.backtest(simulated.capture, {**SETTINGS, "core": {"seed": 2, "instruments": [coarse]}}, history=simulated.candles)
    check_sums(dusty)
    assert dusty.house != 0 and dusty.open_pnl_change != 0, "what is too little to be ordered is the house's"


def test_alpha_attribution_what_a_backtest_counts_is_what_the_engine_says(simulated: Market, found: Backtest) -> None:
    records = said(simulated, "risk_averse")
    made = {one.decision: one for one in records if isinstance(one, DecisionMade)}
    closed = {one.decision: one for one in records if isinstance(one, TradeClosed)}
    rewards = {one.decision: one for one in records if isinstance(one, RewardLearnt)}
    attributed = [one for one in records if isinstance(one, Attributed)]
    fills = [one for one in records if isinstance(one, Filled)]
    assert [trade.decision for trade in found.trades] == [one.decision for one in attributed]
    for trade, one in zip(found.trades, attributed, strict=True):
        decision, end = made[trade.decision], closed[trade.decision]
        assert (trade.symbol, trade.policy, trade.pnl) == (decision.symbol, decision.policy, end.pnl) == (SYMBOL, one.policy, one.pnl)
        assert (trade.opened_ns, trade.fees, trade.funding) == (end.opened_ns, end.fees, end.funding)
        assert trade.alphas == sum(part.shapley for part in one.contributions)
        assert trade.win_probability == decision.win_probability
        assert trade.reward_bps == (rewards[trade.decision].reward_bps if trade.decision in rewards else None)
        side = "quote" if decision.quote is not None else "buy" if decision.exposure > 0.0 else "sell"
        assert (trade.side == side and (trade.size > 0.0) is (side == "buy")) or side == "quote"
    assert Counter(one.policy for one in made.values()) == found.decisions.by_policy
    told = [(one.exchange_ns, one.side, one.maker, one.cause, one.fee) for one in fills]
    assert [(one.ts_ns, one.side, one.maker, one.cause, one.fee) for one in found.fills] == told
    for traded_at, fill in zip(found.fills, fills, strict=True):
        assert round(traded_at.price * traded_at.size * UNITS) == pytest.approx(fill.value, abs=1)
    assert found.costs.self_impact == sum(one.impact for one in fills)
    assert found.costs.funding == sum(one.paid for one in records if isinstance(one, FundingPaid))
    for alpha in found.alpha_pnl:
        parts = [part.shapley for one in attributed for part in one.contributions if part.id == alpha.id]
        assert (alpha.pnl, alpha.trades) == (sum(parts), sum(part != 0 for part in parts))
    won = [(made[at].win_probability, one.won) for at, one in rewards.items() if one.won is not None]
    assert found.calibration.n == len(won) == sum(one.n for one in found.calibration.bins)
    assert found.calibration.brier == pytest.approx(sum((p - is_won) ** 2 for p, is_won in won) / len(won))
    assert sum(one.won * one.n for one in found.calibration.bins) == pytest.approx(sum(is_won for _, is_won in won))


def test_alpha_attribution_another_belief_is_a_whole_run_of_its_own(simulated: Market, found: Backtest) -> None:
    records = said(simulated, "optimistic")
    (bound,) = [one for one in found.bounds if one.queue == "optimistic"]
    assert (bound.trades, bound.fills) == (of_kind(records, Attributed), of_kind(records, Filled))


def test_alpha_attribution_a_belief_between_the_bounds_is_run_beside_them(simulated: Market, found: Backtest) -> None:
    between = ap.backtest(simulated.capture, {**SETTINGS, "execution": {"queue": "log"}}, history=simulated.candles)
    check_sums(between)
    assert between.bounds == found.bounds and between.settings["execution.queue"] == "log" and between.digest != found.digest


def test_alpha_attribution_the_belief_that_is_set_is_the_one_reported(simulated: Market, found: Backtest) -> None:
    hopeful = ap.backtest(simulated.capture, {**SETTINGS, "execution": {"queue": "optimistic"}}, history=simulated.candles)
    check_sums(hopeful)
    assert {bound.queue: bound for bound in hopeful.bounds} == {bound.queue: bound for bound in found.bounds}
    assert hopeful.change == next(bound.pnl for bound in found.bounds if bound.queue == "optimistic")


def test_alpha_attribution_two_runs_are_the_same_and_nothing_from_outside_enters(
    simulated: Market, found: Backtest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "alphapack.toml").write_text("[router]\ninterval_s = 20\n")
    monkeypatch.chdir(home)
    monkeypatch.setenv("ALPHAPACK__ROUTER__FLOOR", "0.01")
    again = ap.backtest([str(simulated.capture)], SETTINGS, history=[str(simulated.candles)])
    assert msgspec.structs.replace(again, seconds=0.0) == msgspec.structs.replace(found, seconds=0.0)
    told = {name: found.settings[name] for name in ("router.interval_s", "router.horizon_s", "router.floor", "core.seed", "plugins")}
    assert told == {"router.interval_s": "10", "router.horizon_s": "40", "router.floor": "0.05", "core.seed": "7", "plugins": "none"}
    other = ap.backtest(simulated.capture, {**SETTINGS, "execution": {"capital": 50_000.0}}, history=simulated.candles)
    assert other.digest != found.digest and other.capital == 50_000 * UNITS


def test_alpha_attribution_without_trading_nothing_is_decided(simulated: Market) -> None:
    idle = ap.backtest(simulated.capture, {**SETTINGS, "execution": {"trade": False}}, history=simulated.candles)
    assert (idle.trades, idle.fills, idle.decisions.n, idle.change, idle.unexplained) == ([], [], 0, 0, 0)
    assert idle.calibration.n == 0 and idle.costs.mean_bps is None and idle.risk.sharpe is None


def test_alpha_attribution_mids_are_thinned_and_keep_both_ends(simulated: Market, found: Backtest, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = found.mids
    monkeypatch.setattr(backtest, "MIDS_MAX", 40)
    (thin,) = ap.backtest(simulated.capture, SETTINGS, history=simulated.candles).mids
    assert whole.symbol == thin.symbol == SYMBOL and len(whole.ts_ms) == len(whole.mid) > 200
    assert 20 <= len(thin.ts_ms) <= 41 and set(zip(thin.ts_ms, thin.mid, strict=True)) <= set(zip(whole.ts_ms, whole.mid, strict=True))
    assert thin.ts_ms[0] == whole.ts_ms[0] and thin.ts_ms == sorted(thin.ts_ms)
    assert whole.ts_ms[-1] - thin.ts_ms[-1] < 20_000


def test_alpha_attribution_progress_is_that_of_all_runs_together(simulated: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(app, "PROGRESS_EVERY", 500)
    settings = app.prepared(config.stated(SETTINGS))
    app.backtest(settings, [simulated.capture], progress=lambda done, total: told.append((done, total)), complain=pytest.fail)
    size = simulated.capture.stat().st_size
    assert len(told) > 10 and {total for _, total in told} == {2 * size}
    assert [done for done, _ in told] == sorted(done for done, _ in told) and told[-1][0] <= 2 * size


@pytest.mark.parametrize("n", [1, 3, 10, 11, 27])
def test_alpha_attribution_calibration_bins_hold_as_many_each(n: int) -> None:
    outcomes = [((i * 7 % n + 0.5) / n, i % 3 == 0) for i in range(n)]
    made = backtest._calibration(outcomes)
    assert made.n == n and sum(one.n for one in made.bins) == n and len(made.bins) == min(n, backtest.BINS)
    assert max(one.n for one in made.bins) - min(one.n for one in made.bins) <= 1
    assert all(one.p < other.p for one, other in itertools.pairwise(made.bins))
    assert made.ece == pytest.approx(sum(one.n * abs(one.p - one.won) for one in made.bins) / n)
    assert backtest._calibration([]).brier is None


def test_alpha_attribution_flat_decisions_are_counted_and_earn_nothing(found: Backtest) -> None:
    (flat,) = [one for one in found.policies if one.policy == FLAT]
    assert flat.decisions == found.decisions.by_policy[FLAT] > 0 and (flat.trades, flat.pnl) == (0, 0)
    assert [one.policy for one in found.policies if one is not flat] == [policy.name for policy in app.BUILT_IN.policies]


def test_alpha_attribution_the_error_of_calibration_stands_beside_what_chance_makes_of_it(simulated: Market) -> None:
    found = ap.backtest(simulated.capture, SETTINGS, history=simulated.candles)
    assert found.calibration.n > 0 and found.calibration.ece_floor is not None
