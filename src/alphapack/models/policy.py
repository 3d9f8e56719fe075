"""A fixed policy: it follows what the book shows and what takers do, and learns nothing.

Its score is the mean of ``obi`` and ``ti_30s``, both in [-1, 1]: who queues deeper, and who has taken more in the last 30 s. Order flow
and the imbalance of a book lead prices over seconds (Cont, Kukanov and Stoikov 2014, Journal of Financial Econometrics 12, 47-88); in the
simulated market they do so over minutes, for that is the edge planted in it. Nothing says that a market without a planted edge pays for it.
"""

from collections.abc import Mapping

import msgspec

NAME = "imbalance"
HORIZON_S = 300
"""Time in which the planted pressure of buyers fades to 1/e."""
FLAT_BELOW = 0.2
"""A score nearer to 0 asks for nothing: about two in five are."""
FULL_SCORE = 0.5
"""A score from which the exposure is whole: about one decision in seven."""
PROBABILITY_GAIN = 0.05
"""What a whole exposure adds to a win probability of a half."""


class Target(msgspec.Struct, frozen=True):
    """What a policy wants of a symbol from now on."""

    exposure: float
    """-1 to 1: of the size that is allowed; 0: nothing is to be held."""
    urgency: float
    """0 to 1: how soon."""
    horizon_s: int
    win_probability: float
    """0 to 1: that the mid moves its way, before costs; a half where the exposure is 0."""


def propose(features: Mapping[str, float]) -> Target | None:
    """Return what the policy wants where the features of a decision are these.

    Parameters
    ----------
    features
        By name, as ``Engine.decision_context`` gives them; ``obi`` and ``ti_30s`` in [-1, 1] are looked at.

    Returns
    -------
    Target | None
        None where one of the two is not known: a NaN, or absent, as with a book that is not LIVE. Its sign changes with theirs,
        and nothing else does.
    """
    score = 0.5 * (features.get("obi", float("nan")) + features.get("ti_30s", float("nan")))
    if score != score:
        return None
    exposure = 0.0 if abs(score) < FLAT_BELOW else max(-1.0, min(1.0, score / FULL_SCORE))
    strength = abs(exposure)
    return Target(exposure, urgency=strength, horizon_s=HORIZON_S, win_probability=0.5 + PROBABILITY_GAIN * strength)
