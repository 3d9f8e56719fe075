"""The router in a simulated market whose edge one alpha reads: it follows that alpha while it is right, and its opposite once it is not."""

from typing import Any

import pytest

from rig import script

flip = script("flip")
SEED = 31
TERMS = flip.Terms(before_s=4_500, after_s=3_600, edge=10.0, taker_bps=0.3)
"""An edge ten times the simulator's own, so that little more than two hours are enough."""


@pytest.fixture(scope="module")
def played() -> Any:
    return flip.play(SEED, TERMS)


def test_router_alpha_aware_follows_an_alpha_while_it_is_right(played: Any) -> None:
    decided = flip.settled(played, TERMS)[flip.FOLLOW]
    assert len(decided) > 80
    assert flip.mean(decided, flip.FOLLOW) > max(0.3, 1.5 * flip.mean(decided, flip.FADE))


def test_router_alpha_aware_turns_to_the_opposite_policy_when_the_alpha_turns(played: Any) -> None:
    decided = flip.settled(played, TERMS)[flip.FADE]
    assert len(decided) > 60
    assert flip.mean(decided, flip.FADE) > max(0.3, 1.5 * flip.mean(decided, flip.FOLLOW))
    seconds, rewards = flip.shift(played)
    assert seconds < TERMS.after_s / 2 and rewards > 0


def test_router_alpha_aware_learns_a_policy_that_follows_a_signal_both_ways(played: Any) -> None:
    for asked, name in ((played.before, flip.FOLLOW), (played.after, flip.FADE)):
        chosen = {one.signal: getattr(one, name) for one in asked}
        assert chosen[-1.0] == pytest.approx(chosen[1.0], abs=1e-6), "what is learned of one side is known of the other"
        assert chosen[1.0] > 0.3 and chosen[1.0] > chosen[0.05], "where little is said, little is expected"
