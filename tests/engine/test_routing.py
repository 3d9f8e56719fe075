"""Decisions end to end, over a simulated market: each follows from its record, what it earns is learnt once, and every trade adds up."""

import math
from collections import Counter
from itertools import islice, pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from test_trading import Run, again, simulated

from alphapack import app
from alphapack.domain.events import AlphaDisabled, Attributed, DecisionMade, Record, RewardLearnt, Sized, TradeClosed, WeightsLearnt
from alphapack.domain.inputs import AnyInput, Choose, Configure, Disable, Reward
from alphapack.domain.trading import Quote, Target
from alphapack.engine import routing_answers
from alphapack.engine.engine import Engine, OtherPlugins
from alphapack.models.alpha import Alpha, AlphaContext
from alphapack.models.bandit import choose
from alphapack.models.policy import FLAT, Policy
from alphapack.models.registry import Registry
from alphapack.services import router
from alphapack.services.alphas import GRID_S

S = 1_000_000_000
SEED = 11
BTC_SIM = "sim:BTCUSDT"


class Said(NamedTuple):
    ts_ns: int
    record: Record


def told(run: Run) -> list[Said]:
    return [Said(entry.ts_ns, one) for entry, caused in zip(run.entries, run.records, strict=True) for one in caused]


def stepped(engine: Engine, run: Run, until: int | None = None) -> list[Record]:
    return [one for entry in run.entries[:until] for one in engine.step(entry)]


def asked(engine: Engine, symbol: str, **context: float) -> DecisionMade:
    (made,) = engine.step(Choose(engine.seq + 1, engine.now_ns, symbol, context))
    assert isinstance(made, DecisionMade)
    return made


@pytest.fixture(scope="module")
def end() -> bytes:
    """The state of an engine that has traded a while."""
    return simulated(SEED).engine.save()


@pytest.fixture
def engine(end: bytes) -> Engine:
    fresh = app.build()
    fresh.load(end)
    return fresh


def test_router_alpha_aware_every_decision_recomputes_from_the_row_of_the_ledger() -> None:
    decisions = simulated(SEED).said(DecisionMade)
    assert len(decisions) > 40
    for made in decisions:
        row = msgspec.json.decode(msgspec.json.encode(made), type=DecisionMade)
        assert row == made and routing_answers.recomputes(row)
        assert abs(sum(made.propensities.values()) - 1.0) < 1e-9 and made.propensities[made.policy] > 0.0
        assert min(made.propensities[name] for name, enabled in made.enabled.items() if enabled) >= made.floor * (1 - 1e-12)
        assert all(made.propensities[name] == 0.0 and made.scores[name] is None for name, enabled in made.enabled.items() if not enabled)
        assert all(made.offsets[name] < 0.0 for name, enabled in made.enabled.items() if enabled), "a round trip costs"


def test_router_alpha_aware_a_record_that_was_changed_does_not_recompute() -> None:
    made = next(one for one in simulated(SEED).said(DecisionMade) if sum(one.enabled.values()) > 1)
    name = next(name for name, enabled in made.enabled.items() if enabled)
    assert not routing_answers.recomputes(msgspec.structs.replace(made, propensities={**made.propensities, name: 0.5}))
    weight, location, scale, dof = made.mixtures[name][0]
    changed = {**made.mixtures, name: [[weight, location + 1.0, scale, dof], *made.mixtures[name][1:]]}
    assert not routing_answers.recomputes(msgspec.structs.replace(made, mixtures=changed))


def test_router_alpha_aware_what_a_decision_earned_is_learnt_once_at_its_horizon_and_flat_teaches_nothing() -> None:
    run = simulated(SEED)
    made = {one.record.decision: one for one in told(run) if isinstance(one.record, DecisionMade)}
    learnt = [one for one in told(run) if isinstance(one.record, RewardLearnt)]
    sizes = {one.decision: one.sizing["lots"] for one in run.said(Sized)}
    horizon_ns = run.engine.settings.router.horizon_s * S
    assert len(learnt) > 10 and len({one.record.decision for one in learnt}) == len(learnt)
    for ts_ns, reward in learnt:
        assert isinstance(reward, RewardLearnt)
        decision = made[reward.decision]
        assert isinstance(decision.record, DecisionMade)
        assert decision.record.policy == reward.policy != FLAT and sizes[reward.decision] != 0
        assert abs(ts_ns - decision.ts_ns - horizon_ns) < S, "the inputs that follow both"
        target = reward.reward_bps / (1e4 * decision.record.sigma)
        assert reward.target == math.copysign(min(abs(target), 6.0), target)
    counts = Counter(one.record.policy for one in learnt if isinstance(one.record, RewardLearnt))
    names = [policy.name for policy in run.engine.router.registry.policies]
    assert {name: run.engine.router.learnt(name) for name in names} == {name: counts[name] for name in names}


def test_alpha_attribution_sums_to_the_ledger_on_every_trade_of_a_run() -> None:
    run = simulated(SEED)
    trades = {one.decision: one for one in run.said(TradeClosed)}
    attributed = run.said(Attributed)
    assert len(attributed) > 10 and {one.decision for one in attributed} == set(trades)
    for one in attributed:
        assert one.pnl == trades[one.decision].pnl and one.fees == trades[one.decision].fees
        assert one.base + sum(part.shapley for part in one.contributions) + one.execution + one.fees == one.pnl
        for part in one.contributions:
            assert part.signal is None or -1.0 <= part.signal <= 1.0
            assert part.shapley == 0 or (part.signal or 0.0) * part.weight != 0.0, "who said nothing is owed nothing"
    assert any(part.shapley for one in attributed for part in one.contributions)


def weighing(alpha: Alpha, *, weight: float) -> Alpha:
    """Return an alpha with another weight to begin with."""
    return Alpha(alpha.id, alpha.desc, alpha.inputs, weight, alpha.transform, alpha.group, alpha.source, alpha.reason)


def test_alpha_attribution_without_alphas_all_is_base_execution_and_fees() -> None:
    run = simulated(SEED)
    silent = Registry(tuple(weighing(one, weight=0.0) for one in app.BUILT_IN.alphas), app.BUILT_IN.policies)
    engine = Engine(app.binance.codecs(), silent)
    records = [one for one in stepped(engine, run) if isinstance(one, Attributed)]
    for one in records:
        assert one.base + sum(part.shapley for part in one.contributions) + one.execution + one.fees == one.pnl


def test_router_alpha_aware_advice_overrides_features_orders_nothing_and_changes_no_later_draw(engine: Engine, end: bytes) -> None:
    orders, sleeves = engine.exchange.save(), engine.execution.save()
    made = asked(engine, BTC_SIM, obi=0.25, ti=-0.5)
    assert made.origin == "api" and (made.features["obi"], made.features["ti"]) == (0.25, -0.5)
    assert made.sources["obi"] == made.sources["ti"] == "request" and made.sources["cancel_rate"] == "live"
    assert (engine.exchange.save(), engine.execution.save()) == (orders, sleeves)
    assert engine.router.last(BTC_SIM, "api") is not None
    other = app.build()
    other.load(end)
    draws, again_draws = engine.draws("router", BTC_SIM), other.draws("router", BTC_SIM)
    assert [next(draws) for _ in range(9)] == [next(again_draws) for _ in range(9)], "advice has chance of its own"


def test_router_alpha_aware_propensities_depend_on_the_context(engine: Engine) -> None:
    up = asked(engine, BTC_SIM, obi=0.9, ti=0.9, ti_30s=0.9, ofi=3.0)
    down = asked(engine, BTC_SIM, obi=-0.9, ti=-0.9, ti_30s=-0.9, ofi=-3.0)
    assert max(abs(up.propensities[name] - down.propensities[name]) for name in up.propensities) > 1e-4
    assert up.proposals["momentum"] > down.proposals["momentum"]


def test_router_alpha_aware_logged_choices_follow_their_propensities(engine: Engine) -> None:
    names = [*(policy.name for policy in engine.router.registry.policies), FLAT]
    seen, expected, spread = Counter[str](), Counter[str](), Counter[str]()
    for _ in range(400):
        made = asked(engine, BTC_SIM)
        seen[made.policy] += 1
        expected.update(made.propensities)
        spread.update({name: p * (1.0 - p) for name, p in made.propensities.items()})
    assert all(abs(seen[name] - expected[name]) <= 5.0 * math.sqrt(spread[name]) + 1e-9 for name in names)


def test_router_alpha_aware_a_reward_of_advice_is_learnt_once_and_of_nothing_else(engine: Engine) -> None:
    made = next(one for one in (asked(engine, BTC_SIM) for _ in range(2_000)) if one.policy != FLAT)
    before = engine.router.learnt(made.policy)
    (learnt,) = engine.step(Reward(engine.seq + 1, engine.now_ns, made.decision, 12.5))
    assert isinstance(learnt, RewardLearnt) and learnt.origin == "api" and learnt.won is True
    assert learnt.target == 12.5 / (1e4 * made.sigma) and engine.router.learnt(made.policy) == before + 1
    assert engine.router.is_rewarded(made.decision) and not engine.router.awaits(made.decision)
    assert engine.step(Reward(engine.seq + 1, engine.now_ns, made.decision, 12.5)) == []
    assert engine.step(Reward(engine.seq + 1, engine.now_ns, 10**9, 1.0)) == []
    traded = simulated(SEED).said(DecisionMade)[-1].decision
    assert engine.step(Reward(engine.seq + 1, engine.now_ns, traded, 1.0)) == [], "what was traded on is rewarded by the market alone"


def test_router_alpha_aware_a_restart_changes_no_later_choice(end: bytes) -> None:
    first, second = app.build(), app.build()
    first.load(end)
    second.load(end)
    for turn in range(300):
        a, b = asked(first, BTC_SIM, obi=(turn % 7 - 3) / 3.0), asked(second, BTC_SIM, obi=(turn % 7 - 3) / 3.0)
        assert a == b
        if a.policy != FLAT:
            for engine in (first, second):
                engine.step(Reward(engine.seq + 1, engine.now_ns, a.decision, float(turn % 11 - 5)))
        if turn % 60 == 30:
            state, second = second.save(), app.build()
            second.load(state)
    assert first.save() == second.save() and first.hexdigest() == second.hexdigest()


def test_router_alpha_aware_advice_waits_for_its_reward_within_bounds(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "ADVICE_KEPT", 3)
    made = (asked(engine, BTC_SIM) for _ in range(2_000))
    given = list(islice((one.decision for one in made if one.policy != FLAT), 5))
    assert [engine.router.awaits(one) for one in given] == [False, False, True, True, True]


def test_router_alpha_aware_weights_change_once_a_minute_and_every_change_is_told() -> None:
    run = simulated(SEED)
    changes = [one for one in told(run) if isinstance(one.record, WeightsLearnt)]
    assert len(changes) > 3
    assert all(after.ts_ns - before.ts_ns > 55 * S for before, after in pairwise(changes))
    last = changes[-1].record
    assert isinstance(last, WeightsLearnt) and list(last.weights.values()) == run.engine.alphas.in_force
    assert sum(abs(one) for one in last.weights.values()) > 0.0
    counts = [one.record.observations for one in changes if isinstance(one.record, WeightsLearnt)]
    assert counts == sorted(counts) and counts[-1] <= 2 * 420 // GRID_S


# What is not built in


def nothing(ctx: object, blend: float) -> Target:
    return Target(0.0)


def with_more(alphas: tuple[Alpha, ...] = (), policies: tuple[Policy, ...] = (), plugins: tuple[str, ...] = ()) -> Engine:
    built = app.BUILT_IN
    return Engine(app.binance.codecs(), Registry((*built.alphas, *alphas), (*built.policies, *policies), plugins))


def raising(ctx: object, *more: object) -> float:
    raise ZeroDivisionError("no luck")


def leaving(ctx: object) -> float:
    raise SystemExit(7)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (raising, "no luck"),
        (leaving, "SystemExit: 7"),
        (lambda ctx: math.nan, "nan"),
        (lambda ctx: 1.5, "1.5"),
        (lambda ctx: "0.5", "0.5"),
    ],
)
def test_router_alpha_aware_an_alpha_that_fails_is_asked_no_more_and_the_market_goes_on(transform: object, reason: str) -> None:
    run = simulated(SEED)
    bad = Alpha("bad_one", "fails", ("obi",), 0.1, transform)  # type: ignore[arg-type]
    engine = with_more((bad,))
    records = stepped(engine, run, 30_000)
    (disabled,) = [one for one in records if isinstance(one, AlphaDisabled)]
    assert (disabled.name, disabled.what) == ("bad_one", "alpha") and reason in disabled.reason
    (reading,) = [one for one in routing_answers.alphas(engine) if one.id == "bad_one"]
    assert (reading.enabled, reading.weight) == (False, 0.0) and reason in reading.status
    assert any(isinstance(one, DecisionMade) for one in records)
    other = with_more((bad,))
    other.load(engine.save())
    assert other.save() == engine.save() and other.alphas.disabled == engine.alphas.disabled


def test_router_alpha_aware_a_question_disables_nothing() -> None:
    def timid(ctx: AlphaContext) -> float:
        return 0.5 if ctx["obi"] <= 1.0 and ctx["spread_bps"] < 5_000.0 else 1.0 / 0.0

    def shy(ctx: AlphaContext, blend: float) -> Target:
        return Target(0.5 if ctx["spread_bps"] < 5_000.0 else 2.0)

    timid_one = Alpha("timid", "fails on what never is", ("obi", "spread_bps"), 0.1, timid)
    engine = with_more((timid_one,), (Policy("shy", "fails on what never is", "making", shy),))
    stepped(engine, simulated(SEED), 30_000)
    made = asked(engine, BTC_SIM, spread_bps=9_000.0)
    assert made.signals["timid"] is None and not made.enabled["shy"]
    assert engine.alphas.disabled == {} and engine.router.disabled == {}
    again_made = asked(engine, BTC_SIM)
    assert again_made.signals["timid"] == 0.5 and again_made.enabled["shy"]


def test_router_alpha_aware_costs_and_volatility_are_those_of_the_question(engine: Engine) -> None:
    usual = asked(engine, BTC_SIM)
    dear, wild = asked(engine, BTC_SIM, taker_fee_bps=50.0), asked(engine, BTC_SIM, sigmaHAR=0.05, sigmaGARCH=0.05)
    names = [name for name, enabled in usual.enabled.items() if enabled and dear.enabled[name]]
    assert names and all(dear.offsets[name] < usual.offsets[name] for name in names)
    assert wild.sigma == 0.05 != usual.sigma


def test_router_alpha_aware_limits_without_room_mask_every_arm() -> None:
    made = [one for one in again(simulated(SEED), symbol_max=0.001, gross_max=0.001, capital=1_000.0).said(DecisionMade)]
    assert made and all(not any(one.enabled.values()) and one.policy == FLAT for one in made)


def test_router_alpha_aware_another_horizon_begins_anew_and_another_scale_does_not(engine: Engine) -> None:
    before = {name: engine.router.learnt(name) for name in ("momentum", "spread_capture")}
    assert sum(before.values()) > 0 and engine.alphas.observations > 0

    def configured(**changed: float) -> None:
        settings = msgspec.structs.replace(engine.settings, router=msgspec.structs.replace(engine.settings.router, **changed))
        engine.step(Configure(engine.seq + 1, engine.now_ns, settings))

    configured(scale=0.5)
    assert {name: engine.router.learnt(name) for name in before} == before and engine.alphas.observations > 0
    configured(horizon_s=120)
    assert all(engine.router.learnt(name) == 0 for name in before) and engine.alphas.observations == 0
    state = engine.save()
    other = app.build()
    other.load(state)
    assert other.save() == state


def test_router_alpha_aware_nothing_is_kept_of_decisions_that_are_over() -> None:
    run = simulated(SEED)
    held = run.engine.execution.portfolio
    assert held is not None
    still = {decision for account in held.accounts.values() for decision in account.sleeves.by_decision}
    assert set(run.engine.router._frozen) <= still


def test_alpha_attribution_of_a_trade_whose_alphas_are_gone_all_is_base() -> None:
    run, engine, said = simulated(SEED), app.build(), []
    middle = next(at for at, caused in enumerate(run.records) if at > 20_000 and any(isinstance(one, Sized) for one in caused))
    for entry in run.entries[:middle]:
        engine.step(entry)
    left = msgspec.structs.replace(engine.settings.router, without=("smirk",))
    said += engine.step(Configure(engine.seq + 1, engine.now_ns, msgspec.structs.replace(engine.settings, router=left)))
    for entry in run.entries[middle:]:
        said += engine.step(msgspec.structs.replace(entry, seq=engine.seq + 1))
    trades = {one.decision: one.pnl for one in said if isinstance(one, TradeClosed)}
    attributed = {one.decision: one for one in said if isinstance(one, Attributed)}
    assert set(trades) == set(attributed)
    for decision, one in attributed.items():
        assert one.base + sum(part.shapley for part in one.contributions) + one.execution + one.fees == one.pnl == trades[decision]
    assert any(not one.contributions for one in attributed.values()), "some were open at the change"


def test_router_alpha_aware_a_policy_that_fails_is_asked_no_more() -> None:
    engine = with_more(policies=(Policy("unlucky", "fails", "continuation", raising),))  # type: ignore[arg-type]
    records = stepped(engine, simulated(SEED), 30_000)
    (disabled,) = [one for one in records if isinstance(one, AlphaDisabled)]
    assert (disabled.name, disabled.what) == ("unlucky", "policy") and "no luck" in disabled.reason
    decisions = [one for one in records if isinstance(one, DecisionMade)]
    assert decisions and all(one.propensities["unlucky"] == 0.0 for one in decisions)


def test_router_alpha_aware_what_takes_too_long_is_disabled_by_an_input(engine: Engine) -> None:
    name = engine.alphas.registry.alphas[0].id
    said, weights = engine.step(Disable(engine.seq + 1, engine.now_ns, name, "alpha", "slow"))
    assert said == AlphaDisabled(name, "alpha", "slow") and engine.alphas.in_force[0] == 0.0
    assert isinstance(weights, WeightsLearnt) and list(weights.weights.values()) == engine.alphas.in_force, "every change is told"
    assert engine.step(Disable(engine.seq + 1, engine.now_ns, name, "alpha", "slow again")) == []
    assert asked(engine, BTC_SIM).signals[name] is None


def test_router_alpha_aware_a_quote_on_both_sides_is_a_choice_like_any_other() -> None:
    both = Policy("both_sides", "quotes as much on both sides", "making", lambda ctx, blend: Quote(0.5, 0.5))
    engine = with_more(policies=(both,))
    made = [one for one in stepped(engine, simulated(SEED), 40_000) if isinstance(one, DecisionMade)]
    assert made and all(one.enabled["both_sides"] and one.sides["both_sides"] == 0 for one in made)
    chosen = [one for one in made if one.policy == "both_sides"]
    assert all(one.quote == Quote(0.5, 0.5) and one.exposure == 0.0 for one in chosen)


def test_router_alpha_aware_other_plugins_than_the_inputs_were_recorded_with_are_refused(engine: Engine) -> None:
    run = simulated(SEED)
    other = with_more(plugins=("mine.py 0123456789abcdef",))
    with pytest.raises(OtherPlugins, match=r"expected the plugins \[\].*found \['mine.py 0123456789abcdef'\]"):
        other.step(run.entries[0])
    other.load(engine.save())
    assert other.relearns and other.router.learnt("momentum") == 0 and other.alphas.observations == 0
    settings = msgspec.structs.replace(other.settings, plugins=("mine.py 0123456789abcdef",))
    other.step(Configure(other.seq + 1, other.now_ns, settings))
    assert not other.relearns


def test_router_alpha_aware_what_is_left_out_by_the_settings_is_not_asked() -> None:
    run = simulated(SEED)

    def without(entry: AnyInput) -> AnyInput:
        if not isinstance(entry, Configure):
            return entry
        left = msgspec.structs.replace(entry.settings.router, without=("momentum", app.BUILT_IN.alphas[0].id))
        return msgspec.structs.replace(entry, settings=msgspec.structs.replace(entry.settings, router=left))

    engine = app.build()
    made = [one for entry in run.entries[:20_000] for one in engine.step(without(entry)) if isinstance(one, DecisionMade)]
    assert made and all("momentum" not in one.propensities and app.BUILT_IN.alphas[0].id not in one.signals for one in made)


def test_router_alpha_aware_a_replay_is_the_same_to_the_bit() -> None:
    run = simulated(SEED)
    assert again(run).said(DecisionMade) == run.said(DecisionMade)


def test_router_alpha_aware_masked_arms_are_never_chosen() -> None:
    mixtures = np.full((2, 3, 4), (1 / 3, 5.0, 1.0, 8.0))
    chosen = choose(mixtures, np.array([False, False]), np.full(6, 0.9), 0.01, flat=True)
    assert chosen.arm == 2 and chosen.propensities.tolist() == [0.0, 0.0, 1.0]
