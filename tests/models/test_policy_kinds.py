"""How a function becomes a policy, what a proposal may be, and what it comes to."""

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.domain.trading import Proposal, Quote, Target
from alphapack.models.alpha import Alpha, AlphaContext
from alphapack.models.policy import (
    POLICIES_MAX,
    Policy,
    PolicyFailed,
    check_policies,
    exposure_of,
    is_nothing,
    owned,
    policies_of,
    policy,
    propose_safely,
    side_of_proposal,
    sides_of,
)

CTX = AlphaContext("sim:BTCUSDT", 17, {"obi": 0.4}, {"obi": 1.0}, None)
GOOD: dict[str, Any] = {"name": "one", "desc": "what it does", "listens": "making"}


def still(ctx: AlphaContext, blend: float) -> Target:
    return Target(0.0)


def wanting(proposal: Any, horizon_s: int = 300) -> Policy:
    return Policy("one", "what it does", "making", lambda ctx, blend: proposal, horizon_s)


def proposed(proposal: Any, horizon_s: int = 300) -> Proposal:
    return propose_safely(wanting(proposal, horizon_s), CTX, 0.1)


def test_router_alpha_aware_a_function_stays_itself_and_is_a_policy_of_its_module() -> None:
    made = ModuleType("made")
    text = """
from alphapack.plugin import Target, policy

@policy(name="second", desc="d", listens="", horizon_s=60)
def one(ctx, blend):
    return Target(ctx.z("obi") * blend)

@policy(name="first", desc="d", listens="smile")
def one(ctx, blend):
    return Target(blend)
"""
    exec(text, vars(made))
    second, first = policies_of(made)
    assert (second.name, second.listens, second.horizon_s, first.name, first.horizon_s) == ("second", "", 60, "first", 300)
    assert first.propose is made.one
    assert propose_safely(second, CTX, 0.25) == Target(0.25, 0.5, 60)
    assert policies_of(ModuleType("empty")) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "flat"}, "not to be 'flat'"),
        ({"name": "Not"}, "name of a policy"),
        ({"desc": ""}, "one: expected desc"),
        ({"listens": "no good"}, "one: expected listens"),
        ({"listens": None}, "one: expected listens"),
        ({"horizon_s": 0}, "one: expected horizon_s to be a whole number from 1 to 86,400, found 0"),
        ({"horizon_s": 300.0}, "one: expected horizon_s"),
        ({"horizon_s": True}, "one: expected horizon_s"),
    ],
)
def test_router_alpha_aware_what_a_policy_may_not_be_is_said(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        policy(**(GOOD | change))(still)
    with pytest.raises(TypeError, match="one: expected a function of 2 arguments"):
        policy(**GOOD)(lambda ctx: Target(0.0))  # type: ignore[type-var, arg-type, misc]


def test_router_alpha_aware_policies_fit_together_or_it_is_said_why_not() -> None:
    one = wanting(Target(0.0))
    heard = Alpha("heard", "d", ("obi",), 0.1, lambda ctx: 0.0, "making")
    check_policies([one], [heard])
    with pytest.raises(ValueError, match="'one' more than once"):
        check_policies([one, one], [])
    with pytest.raises(ValueError, match=f"1 to {POLICIES_MAX} policies, found 0"):
        check_policies([], [])
    with pytest.raises(ValueError, match=f"1 to {POLICIES_MAX} policies, found 17"):
        check_policies([replace(one, name=f"p{i}") for i in range(17)], [])
    with pytest.raises(ValueError, match=r"alpha heard: expected a group to which a policy listens \(making\), found 'makin'; the nearest"):
        check_policies([one, replace(one, name="deaf", listens="")], [replace(heard, group="makin")])


@pytest.mark.parametrize(
    ("proposal", "checked"),
    [
        (Target(0.5, 0.25, 120), Target(0.5, 0.25, 120)),
        (Target(np.float32(0.5), 1, 300), Target(0.5, 1.0, 180)),  # type: ignore[arg-type]
        (Target(-1.0 - 1e-10, 1.0 + 1e-10, 1), Target(-1.0, 1.0, 1)),
        (Quote(1, 0.5, 2), Quote(1.0, 0.5, 2)),
        (Quote(0.0, 0.0), Quote(0.0, 0.0)),
    ],
)
def test_router_alpha_aware_a_proposal_comes_in_plain_numbers_and_no_later_than_its_policy(proposal: Proposal, checked: Proposal) -> None:
    found = proposed(proposal, 180)
    assert found == checked
    assert all(type(getattr(found, name)) is type(getattr(checked, name)) for name in checked.__struct_fields__)


@pytest.mark.parametrize(
    ("proposal", "expected"),
    [
        (None, "expected a Target or a Quote, found a NoneType"),
        (0.5, "found a float"),
        (Target(1.01), "exposure from -1 to 1, found 1.01"),
        (Target(math.nan), "exposure from -1 to 1, found nan"),
        (Target(True), "exposure from -1 to 1, found True"),
        (Target("1"), "exposure from -1 to 1, found '1'"),  # type: ignore[arg-type]
        (Target(0.5, -0.1), "urgency from 0 to 1, found -0.1"),
        (Target(0.5, 0.5, 0), "horizon_s that is a whole number from 1"),
        (Target(0.5, 0.5, 60.0), "horizon_s that is a whole number from 1"),  # type: ignore[arg-type]
        (Quote(-0.1, 0.5), "shares from 0 to 1, found -0.1 and 0.5"),
        (Quote(0.5, 1.1), "shares from 0 to 1, found 0.5 and 1.1"),
        (Quote(0.5, 0.5, -1), "offset_ticks to be a whole number from 0 to 100,000, found -1"),
        (Quote(0.5, 0.5, 100_001), "offset_ticks"),
        (Quote(0.5, 0.5, 0.0), "offset_ticks"),  # type: ignore[arg-type]
    ],
)
def test_router_alpha_aware_what_is_no_proposal_is_refused(proposal: Any, expected: str) -> None:
    with pytest.raises(PolicyFailed, match=expected):
        proposed(proposal)


def test_router_alpha_aware_what_a_policy_raises_is_its_failure_and_an_interrupt_is_not() -> None:
    def raising(error: BaseException) -> Policy:
        def propose(ctx: AlphaContext, blend: float) -> Target:
            raise error

        return replace(wanting(None), propose=propose)

    with pytest.raises(PolicyFailed, match=r"^ZeroDivisionError: at 0x\.\.$"):
        propose_safely(raising(ZeroDivisionError("at 0x1f")), CTX, 0.0)
    with pytest.raises(KeyboardInterrupt):
        propose_safely(raising(KeyboardInterrupt()), CTX, 0.0)


SHARES = st.floats(0.0, 1.0)


@given(st.one_of(st.builds(Target, st.floats(-1.0, 1.0), SHARES), st.builds(Quote, SHARES, SHARES)))
def test_router_alpha_aware_side_and_exposure_of_a_proposal_agree(proposal: Proposal) -> None:
    exposure, side = exposure_of(proposal), side_of_proposal(proposal)
    assert -1.0 <= exposure <= 1.0
    assert side == (0 if exposure == 0.0 else math.copysign(1.0, exposure))
    assert not (is_nothing(proposal) and side != 0)


def test_router_alpha_aware_quotes_of_both_sides_have_no_side_and_are_still_something() -> None:
    both, none = Quote(0.5, 0.5), Quote(0.0, 0.0)
    assert (exposure_of(both), side_of_proposal(both), is_nothing(both)) == (0.0, 0, False)
    assert (exposure_of(none), side_of_proposal(none), is_nothing(none)) == (0.0, 0, True)
    assert (exposure_of(Quote(0.25, 1.0)), side_of_proposal(Quote(0.25, 1.0))) == (-0.75, -1)
    assert (is_nothing(Target(0.0)), is_nothing(Target(-0.1)), side_of_proposal(Target(-0.1))) == (True, False, -1)


def test_router_alpha_aware_what_is_not_owned_is_not_proposed() -> None:
    assert owned(Target(-0.5, 0.3, 60)) == Target(0.0, 0.3, 60) and owned(Target(0.5)) == Target(0.5)
    assert owned(Quote(0.4, 1.0, 3)) == Quote(0.4, 0.0, 3) and is_nothing(owned(Quote(0.0, 1.0)))
    assert [sides_of(one) for one in (Target(-0.1), Target(0.0), Quote(0.5, 0.1), Quote(0.0, 0.1))] == [(-1,), (), (1, -1), (-1,)]
