"""What a reader is answered about decisions, alphas and who is to be thanked for a trade.

Money is a whole number of 1e-8 of the settlement currency, signed from the trader's side. ``None`` where a number is not known.
"""

import msgspec

from alphapack.domain.events import Contribution, DecisionMade
from alphapack.domain.trading_readings import Page


class ChooseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A context to decide in: ``symbol``, and any feature that is to be other than it is."""

    context: dict[str, str | float]


class Choice(msgspec.Struct, frozen=True):
    """What was decided, as advice."""

    decision_id: str = msgspec.field(name="decisionId")
    ts_ms: int
    symbol: str
    policy: str
    exposure: float
    scores: dict[str, float | None]
    """Drawn from the posteriors, in volatilities to the horizon; of flat 0; null where it could not be chosen."""
    propensities: dict[str, float]
    """Exact probabilities of the choice, the floor in them."""
    features: dict[str, float | None]
    """In raw units."""
    sources: dict[str, str]
    """request, live or missing."""
    signals: dict[str, float | None]
    proposals: dict[str, float]
    """Exposure that each policy proposed."""
    win_probability: float = msgspec.field(name="winProb")
    seq: int
    durable_seq: int


class RewardRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What advice came to."""

    decision_id: str = msgspec.field(name="decisionId")
    reward_bps: float
    """Of the notional with which it was followed, after costs."""


class RewardTaken(msgspec.Struct, frozen=True):
    """A reward that was learnt and is safe on disk."""

    decision_id: str = msgspec.field(name="decisionId")
    policy: str
    reward_bps: float
    n: int
    """Rewards that the policy's posterior has seen."""
    seq: int
    durable_seq: int


class Posterior(msgspec.Struct, frozen=True):
    """What is believed of a policy's reward in a context, in volatilities to the horizon; null where it could not be chosen."""

    n: int
    """Rewards seen."""
    mean: float | None
    sd: float | None


class Snapshot(msgspec.Struct, frozen=True):
    """The newest decision, with the beliefs that it was made by."""

    decision_id: str = msgspec.field(name="decisionId")
    ts_ms: int
    symbol: str
    origin: str
    policy: str
    exposure: float
    scores: dict[str, float | None]
    propensities: dict[str, float]
    features: dict[str, float | None]
    sources: dict[str, str]
    signals: dict[str, float | None]
    weights: dict[str, float]
    blends: dict[str, float]
    proposals: dict[str, float]
    win_probability: float = msgspec.field(name="winProb")
    posterior: dict[str, Posterior]
    disabled: dict[str, str]
    """Policies that are asked no more, and why."""


class DecisionRow(msgspec.Struct, frozen=True):
    """One decision in a list."""

    decision_id: str = msgspec.field(name="decisionId")
    ts_ms: int
    symbol: str
    origin: str
    policy: str
    exposure: float
    propensity: float
    """Of what was chosen."""
    win_probability: float = msgspec.field(name="winProb")
    explored: bool


class Decisions(Page, frozen=True):
    """A page of decisions, newest first."""

    decisions: list[DecisionRow]


class DecisionAudit(msgspec.Struct, frozen=True):
    """A decision with all that it takes to make it again: see docs/ROUTER.md."""

    decision_id: str = msgspec.field(name="decisionId")
    ts_ms: int
    record: DecisionMade
    """As the ledger has it."""
    recomputed: bool
    """Whether policy, scores and propensities follow from the record alone, to the bit."""


class AlphaReading(msgspec.Struct, frozen=True):
    """One alpha of the registry."""

    id: str
    desc: str
    family: str
    group: str
    """Policies that listen to it are of this group."""
    policies: list[str]
    inputs: list[str]
    weight_init: float
    weight: float
    enabled: bool
    status: str
    """ok, or why it is not asked any more."""
    source: str
    ic: float | None
    """Rank correlation of its signal with the return of the mid to the horizon."""
    ic_t: float | None
    half_life_s: float | None
    turnover: float | None
    """Mean change of its signal from one look to the next."""
    n: int
    """Looks behind these numbers."""


class Attribution(msgspec.Struct, frozen=True):
    """Who is to be thanked for a trade: ``pnl = base + sum of shapley + execution + fees``, to the unit."""

    trade_id: str = msgspec.field(name="tradeId")
    decision_id: str = msgspec.field(name="decisionId")
    symbol: str
    policy: str
    pnl: int
    base: int
    fees: int
    execution: int
    contributions: list[Contribution]
    error: float
