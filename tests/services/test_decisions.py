"""When decisions are made, about what, and that a restart changes none of them."""

import heapq
from typing import Any

import pytest
from test_exchange import FakeContext

from alphapack.domain.events import DecisionMade
from alphapack.domain.inputs import CoreSettings
from alphapack.domain.trading import Decision, ExecutionSettings, RouterSettings
from alphapack.models import policy
from alphapack.services.decisions import SPACING_NS, TIMER, Decisions

S = 1_000_000_000
START_NS = 1_700_000_040 * S
"""At a whole minute."""


class Desk:
    """Decisions about two symbols, whose features a test sets."""

    def __init__(self, start_ns: int = START_NS, **core: Any) -> None:
        self.ctx = FakeContext()
        self.ctx.now_ns = start_ns
        self.ctx.settings = CoreSettings(**core)
        self.features: dict[str, dict[str, float]] = {"x:B": {"obi": 0.5, "ti_30s": 0.5}, "x:A": {"obi": -0.3, "ti_30s": -0.2, "mid": 5.0}}
        self.decided: list[Decision] = []
        self.build()
        self.decisions.start()

    def build(self) -> None:
        self.decisions = Decisions(self.ctx, lambda: sorted(self.features), lambda symbol: dict(self.features[symbol]))
        self.decisions.decided = self.decided.append

    def until(self, s: float) -> None:
        """Let time pass, in seconds from the start and a little more."""
        end_ns = START_NS + round(s * S) + SPACING_NS
        while self.ctx.timers and self.ctx.timers[0][0] <= end_ns:
            self.ctx.now_ns, _, timer, argument = heapq.heappop(self.ctx.timers)
            assert timer == TIMER
            self.decisions.on_timer(argument)
        self.ctx.now_ns = end_ns

    def times(self) -> list[tuple[int, str]]:
        return [((one.ts_ns - START_NS) // S, one.symbol) for one in self.decided]


def test_execution_planner_decisions_are_made_at_whole_multiples_of_the_interval() -> None:
    desk = Desk(START_NS + 17 * S + 3)
    desk.until(59.9)
    assert desk.decided == []
    desk.until(180)
    assert desk.times() == [(s, symbol) for s in (60, 120, 180) for symbol in ("x:A", "x:B")]
    assert [one.id for one in desk.decided] == [1, 2, 3, 4, 5, 6]
    assert [one.ts_ns % (60 * S) for one in desk.decided] == [0, SPACING_NS] * 3, "one after the other, in order of name"


def test_execution_planner_a_late_timer_sets_the_next_one_back_on_the_grid() -> None:
    desk = Desk()
    heapq.heappop(desk.ctx.timers)
    desk.ctx.now_ns = START_NS + 71 * S
    desk.decisions.on_timer("")
    desk.until(120)
    assert desk.times() == [(71, "x:A"), (71, "x:B"), (120, "x:A"), (120, "x:B")]


def test_execution_planner_a_decision_is_what_the_policy_wants_of_what_it_saw() -> None:
    desk = Desk(router=RouterSettings(interval_s=10, horizon_s=90))
    desk.until(10)
    said = [one for one in desk.ctx.records if isinstance(one, DecisionMade)]
    assert len(said) == len(desk.decided) == 2
    for record, decision in zip(said, desk.decided, strict=True):
        target = policy.propose(desk.features[decision.symbol])
        assert target is not None
        assert (decision.exposure, decision.urgency, decision.win_probability) == (target.exposure, target.urgency, target.win_probability)
        assert (decision.horizon_s, decision.policy, decision.features) == (90, policy.NAME, desk.features[decision.symbol])
        assert (record.decision, record.symbol, record.exposure, record.features) == (
            decision.id,
            decision.symbol,
            decision.exposure,
            decision.features,
        )
        assert desk.decisions.last(decision.symbol) is decision
    assert [one.exposure for one in desk.decided] == [-0.5, 1.0]


@pytest.mark.parametrize("features", [{}, {"obi": 0.5}, {"ti_30s": 0.5}, {"obi": float("nan"), "ti_30s": 0.5}])
def test_execution_planner_nothing_is_decided_about_what_is_not_known(features: dict[str, float]) -> None:
    desk = Desk()
    desk.features["x:A"] = features
    desk.until(60)
    assert desk.times() == [(60, "x:B")] and desk.decided[0].id == 1 and desk.decisions.last("x:A") is None


def test_execution_planner_nothing_is_decided_while_trading_is_off_and_the_grid_goes_on() -> None:
    desk = Desk(execution=ExecutionSettings(trade=False))
    desk.until(125)
    assert desk.decided == [] and desk.ctx.records == []
    desk.ctx.settings = CoreSettings()
    desk.until(180)
    assert desk.times() == [(180, "x:A"), (180, "x:B")]


@pytest.mark.parametrize("before_s", [0.0, -0.005])
def test_execution_planner_nothing_is_decided_while_trading_is_halted(before_s: float) -> None:
    desk = Desk()
    desk.until(60 - SPACING_NS / S + before_s)
    desk.decisions.halted = True
    desk.until(60)
    desk.decisions.halted = False
    assert desk.decided == desk.decided[:1] and all(one.symbol == "x:A" for one in desk.decided)
    desk.until(120)
    assert desk.times()[-2:] == [(120, "x:A"), (120, "x:B")]


def test_execution_planner_symbols_come_and_go_between_decisions() -> None:
    desk = Desk()
    desk.until(60)
    desk.features["x:C"] = desk.features.pop("x:A")
    desk.until(119.99)
    assert desk.times()[2:] == [(120, "x:B")], "another takes the first place"
    del desk.features["x:C"]
    desk.until(180)
    assert desk.times()[2:] == [(120, "x:B"), (180, "x:B")], "what is not tradable any more is left out in the middle of a round"
    last = desk.decisions.last("x:A")
    assert last is not None and last.id == 1


def test_execution_planner_decisions_that_are_restarted_at_every_step_are_the_same() -> None:
    plain, restarted = Desk(), Desk()
    for i in range(1, 8):
        for desk in (plain, restarted):
            desk.features["x:A"]["obi"] = 0.1 * i
            desk.until(30 * i)
        state = restarted.decisions.save()
        restarted.build()
        restarted.decisions.load(state)
    assert restarted.decided == plain.decided and len(plain.decided) == 6
    assert [bytes(one) for one in restarted.decisions.save()] == [bytes(one) for one in plain.decisions.save()]
    assert restarted.decisions.last("x:B") == plain.decisions.last("x:B")
