"""Policies: what they are, how a function becomes one, and how one is asked.

A policy is a pure function of the features of one instant and of a blend. The blend is the expected return of the mid over the router's
horizon in standard deviations, made of the alphas in the group that the policy listens to. What a policy proposes is no decision:
the router chooses among proposals, and an outcome in which nothing is done.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

from alphapack.domain.trading import Proposal, Quote, Target
from alphapack.models.alpha import NAME as NAME_PATTERN
from alphapack.models.alpha import TEXT_MAX, Alpha, AlphaContext, plain, reason_of, shown, within
from alphapack.models.features import nearest

POLICIES_MAX = 16
HORIZON_S_MAX = 86_400
OFFSET_TICKS_MAX = 100_000
FLAT = "flat"
"""The outcome in which nothing is done: no policy may take its name."""

_OWN = "__alphapack_policies__"


class PolicyFailed(Exception):
    """A policy that proposed nothing that can be used; the text says why."""


Propose = Callable[[AlphaContext, float], Proposal]
_Propose = TypeVar("_Propose", bound=Propose)


@dataclass(frozen=True, slots=True)
class Policy:
    """A strategy with what is said about it; made by ``policy``, or by hand, and checked either way (ValueError)."""

    name: str
    desc: str
    listens: str
    """Group of the alphas whose blend it is given; empty: it is always given 0."""
    propose: Propose
    horizon_s: int = 300
    """In which its plans are to come to their size, at most; a target may state less."""

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and NAME_PATTERN.fullmatch(self.name) and self.name != FLAT):
            raise ValueError(f"expected the name of a policy to match {NAME_PATTERN.pattern} and not to be {FLAT!r}, found {self.name!r}")
        if not (isinstance(self.desc, str) and 1 <= len(self.desc) <= TEXT_MAX):
            raise ValueError(f"{self.name}: expected desc to be a text of 1 to {TEXT_MAX} characters, found {self.desc!r}")
        if not (isinstance(self.listens, str) and (not self.listens or NAME_PATTERN.fullmatch(self.listens))):
            raise ValueError(f"{self.name}: expected listens to match {NAME_PATTERN.pattern} or to be empty, found {self.listens!r}")
        if not _is_whole(self.horizon_s, 1, HORIZON_S_MAX):
            raise ValueError(f"{self.name}: expected horizon_s to be a whole number from 1 to {HORIZON_S_MAX:,}, found {self.horizon_s!r}")


def policy(*, name: str, desc: str, listens: str, horizon_s: int = 300) -> Callable[[_Propose], _Propose]:
    """Make a function ``propose(ctx: AlphaContext, blend: float) -> Target | Quote`` a policy of its module.

    The function itself stays as it is. Arguments are those of ``Policy``; raises ValueError for what they may not be, and TypeError
    for what is not a plain function of two arguments.
    """

    def made(function: _Propose) -> _Propose:
        checked = plain(function, 2, name)
        checked.__globals__.setdefault(_OWN, []).append(Policy(name, desc, listens, function, horizon_s))
        return function

    return made


def policies_of(module: ModuleType) -> list[Policy]:
    """Return the policies that a module defines, in the order of their definition; those it imports are their own module's."""
    return list(vars(module).get(_OWN, ()))


def check_policies(policies: Iterable[Policy], alphas: Iterable[Alpha]) -> None:
    """Raise ValueError where they cannot be used together: a name twice, too many, or an alpha to which nobody listens."""
    every = list(policies)
    if twice := [name for name, count in Counter(one.name for one in every).items() if count > 1]:
        raise ValueError(f"expected every policy to have a name of its own, found {twice[0]!r} more than once")
    if not 1 <= len(every) <= POLICIES_MAX:
        raise ValueError(f"expected 1 to {POLICIES_MAX} policies, found {len(every)}")
    groups = dict.fromkeys(one.listens for one in every if one.listens)
    for one in alphas:
        if one.group not in groups:
            near = nearest(one.group, groups)
            expected = f"expected a group to which a policy listens ({', '.join(groups)})"
            raise ValueError(f"alpha {one.id}: {expected}, found {one.group!r}" + (f"; the nearest is {near!r}" if near else ""))


def propose_safely(one: Policy, ctx: AlphaContext, blend: float) -> Proposal:
    """Return what a policy proposes, in plain numbers, its horizon at most the policy's.

    Parameters
    ----------
    one, ctx
    blend
        Expected return over the router's horizon in standard deviations, in [-1, 1].

    Raises
    ------
    PolicyFailed
        For any exception in it, for what is neither a ``Target`` nor a ``Quote``, and for one with a value out of its range.
    """
    try:
        proposal = one.propose(ctx, blend)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: no policy ends the process.
        raise PolicyFailed(reason_of(error)) from error
    if type(proposal) is Target:
        return _checked_target(proposal, one.horizon_s)
    if type(proposal) is Quote:
        return _checked_quote(proposal)
    raise PolicyFailed(f"expected a Target or a Quote, found a {type(proposal).__name__}")


def exposure_of(proposal: Proposal) -> float:
    """Return the exposure, in [-1, 1]; of a quote the share of its bid less that of its ask."""
    return proposal.bid_share - proposal.ask_share if isinstance(proposal, Quote) else proposal.exposure


def side_of_proposal(proposal: Proposal) -> int:
    """Return the sign of the exposure: 1, -1, or 0, which a quote may have that shows as much on both sides."""
    exposure = exposure_of(proposal)
    return (exposure > 0.0) - (exposure < 0.0)


def sides_of(proposal: Proposal) -> tuple[int, ...]:
    """Return the sides on which something is to be traded, 1 to buy and -1 to sell."""
    if isinstance(proposal, Quote):
        return (1,) * (proposal.bid_share > 0.0) + (-1,) * (proposal.ask_share > 0.0)
    side = side_of_proposal(proposal)
    return (side,) if side else ()


def owned(proposal: Proposal) -> Proposal:
    """Return what is left of a proposal where nothing can be sold that is not owned."""
    if isinstance(proposal, Quote):
        return Quote(proposal.bid_share, 0.0, proposal.offset_ticks)
    return Target(max(0.0, proposal.exposure), proposal.urgency, proposal.horizon_s)


def is_nothing(proposal: Proposal) -> bool:
    """Tell whether it asks for nothing: no exposure, or no share on either side."""
    if isinstance(proposal, Quote):
        return proposal.bid_share == 0.0 and proposal.ask_share == 0.0
    return proposal.exposure == 0.0


def _checked_target(target: Target, horizon_s_max: int) -> Target:
    exposure, urgency = within(target.exposure, -1.0, 1.0), within(target.urgency, 0.0, 1.0)
    if exposure is None:
        raise PolicyFailed(f"expected an exposure from -1 to 1, found {shown(target.exposure)}")
    if urgency is None:
        raise PolicyFailed(f"expected an urgency from 0 to 1, found {shown(target.urgency)}")
    if not _is_whole(target.horizon_s, 1, HORIZON_S_MAX):
        raise PolicyFailed(f"expected a horizon_s that is a whole number from 1 to {HORIZON_S_MAX:,}, found {shown(target.horizon_s)}")
    return Target(exposure, urgency, min(target.horizon_s, horizon_s_max))


def _checked_quote(quote: Quote) -> Quote:
    bid, ask = within(quote.bid_share, 0.0, 1.0), within(quote.ask_share, 0.0, 1.0)
    if bid is None or ask is None:
        raise PolicyFailed(f"expected shares from 0 to 1, found {shown(quote.bid_share)} and {shown(quote.ask_share)}")
    if not _is_whole(quote.offset_ticks, 0, OFFSET_TICKS_MAX):
        raise PolicyFailed(f"expected offset_ticks to be a whole number from 0 to {OFFSET_TICKS_MAX:,}, found {shown(quote.offset_ticks)}")
    return Quote(bid, ask, quote.offset_ticks)


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high
