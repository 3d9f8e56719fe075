"""What other settings of the router would have earned, from the log of its decisions.

Every candidate walks the log in time with a bank of its own. At each decision it has learnt the logged outcomes that were known before, and
its propensities over the same options are what it would have done then. Rewards are those of the logged policy, weighed by ``off_policy``.
What is estimated is therefore each candidate's choice at the logged decisions, after the logged experience: a candidate that explores
elsewhere would have learnt other things, and that no log can tell.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.models.bandit import BanditSettings, Bank, choose
from alphapack.models.off_policy import DoublyRobust, OffPolicy, TooLittle, doubly_robust, off_policy

FOLDS = 5
BLOCK_SPANS = 4
"""Length of a block of time, in spans of a reward: two neighbours share little of it."""
BLOCKS_MIN = 20
"""Fewer say too little about how sums of blocks vary."""
RIDGE = BanditSettings(discounts=(1.0,))
"""The reward model: the mean of one posterior that forgets nothing is a ridge regression towards the offset."""
AS_LOGGED, UNIFORM, ALWAYS = "as logged", "uniform", "always "


class Logged(msgspec.Struct, frozen=True):
    """A decision of the router as its audit record has it, and what came of it.

    There are K arms, and one more option that has no posterior: flat, whose index is K and whose reward is exactly 0.
    """

    ts_ns: int
    symbol: str
    arms: tuple[str, ...]
    """Names of the policies, K of them."""
    enabled: tuple[bool, ...]
    """Which arms could be chosen; flat always can."""
    x: tuple[tuple[float, ...], ...]
    """Context vector of each arm."""
    offsets: tuple[float, ...]
    """Prior mean of each arm's reward."""
    chosen: int
    propensities: tuple[float, ...]
    """Of all K + 1 options, at the time."""
    reward: float | None = None
    """In the unit that the posterior learns; None where it is not known, and of flat."""
    reward_ns: int | None = None
    """When it became known."""
    advice: bool = False
    """It was asked for, and nobody had to follow it: its reward teaches, and it is no part of what is estimated."""

    def __post_init__(self) -> None:
        arms = len(self.arms)
        lengths = (len(self.enabled), len(self.x), len(self.offsets), len(self.propensities) - 1)
        if arms == 0 or lengths != (arms,) * 4:
            raise ValueError(f"expected enabled, x, offsets and propensities (one more) of {arms} arms, found {lengths}")
        if not 0 <= self.chosen <= arms or (self.chosen < arms and not self.enabled[self.chosen]):
            raise ValueError(f"expected an enabled arm or {arms} for flat, found {self.chosen}")
        if not 0.0 < self.propensities[self.chosen] <= 1.0:
            raise ValueError(f"expected the chosen option's propensity above 0 and up to 1, found {self.propensities[self.chosen]}")
        if (self.reward is None) != (self.reward_ns is None):
            raise ValueError(f"expected a reward with the time it became known, found {self.reward} at {self.reward_ns}")
        if self.reward is not None and not math.isfinite(self.reward):
            raise ValueError(f"expected a finite reward, found {self.reward}")
        if self.reward_ns is not None and self.reward_ns < self.ts_ns:
            raise ValueError(f"expected a reward no earlier than its decision at {self.ts_ns}, found one at {self.reward_ns}")

    @property
    def is_flat(self) -> bool:
        """Whether nothing was chosen."""
        return self.chosen == len(self.arms)


class Row(msgspec.Struct, frozen=True):
    """One candidate's estimates; in the unit of the rewards."""

    name: str
    n: int
    """Decisions whose outcome is known."""
    ess: float
    """Of them, in effect: see ``OffPolicy``."""
    logged: float
    """Mean reward of the log; NaN without a decision."""
    ips_snips: OffPolicy | None
    """None where ``reason`` says why."""
    dr: DoublyRobust | None
    reason: str = ""


def evaluate(decisions: Sequence[Logged], settings: Mapping[str, BanditSettings], *, pooled: bool = False) -> list[Row]:
    """Compare settings of the router by what they would have chosen in a log.

    Decisions without a known outcome are left out: those that were blocked, and all of the end of the log, whose outcomes were still to
    come. Intervals take rewards of spans that overlap for dependent.

    Parameters
    ----------
    decisions
        In any order, of one list of arms and one length of context.
    settings
        Candidates by name.
    pooled
        Whether one bank serves all symbols; else each symbol has its own.

    Returns
    -------
    list of Row
        As logged; uniform over the options; always one arm, flat where it is masked, for each arm; then the candidates, in order. A row
        of fewer than 50 effective decisions, or of fewer than 20 blocks of time, gives its reason in place of estimates.

    Raises
    ------
    ValueError
        Of no decisions, of decisions that do not fit each other, or of a candidate with the name of a baseline.
    """
    log = _in_order(decisions)
    arms = log[0].arms
    targets = {AS_LOGGED: _table(log, lambda one: one.propensities), UNIFORM: _table(log, _uniform)}
    targets |= {ALWAYS + arm: _table(log, _always(i)) for i, arm in enumerate(arms)}
    taken = sorted(set(settings) & set(targets))
    if taken:
        raise ValueError(f"expected settings with names of their own, found {', '.join(taken)}")
    targets |= {name: propensities(log, candidate, pooled=pooled) for name, candidate in settings.items()}
    span_ns = max((one.reward_ns - one.ts_ns for one in log if one.reward_ns is not None and not one.advice), default=0)
    known = np.flatnonzero([not one.advice and _is_known(one, log[-1].ts_ns - span_ns) for one in log])
    if len(known) == 0:
        return [Row(name, 0, 0.0, math.nan, None, None, "expected decisions whose outcome is known, found none") for name in targets]
    told = [log[i] for i in known]
    if not any(one.reward is not None for one in told):
        reason = "expected rewards that are known, found none: what was never followed tells nothing"
        return [Row(name, len(told), 0.0, 0.0, None, None, reason) for name in targets]
    predicted = cross_fitted(told)
    since_ns = np.array([one.ts_ns - told[0].ts_ns for one in told])
    blocks = since_ns // max(1, BLOCK_SPANS * span_ns)
    return [_row(name, told, target[known], predicted, blocks) for name, target in targets.items()]


def propensities(decisions: Sequence[Logged], settings: BanditSettings, *, pooled: bool = False) -> Float64Array2D:
    """Return what one candidate would have chosen, shape (n, K + 1), in the order of time: flat is last.

    With the settings of the log itself, and a log from the first decision on, these are the logged propensities again.
    """
    log = _in_order(decisions)
    arms, width = len(log[0].arms), len(log[0].x[0])
    outcomes = sorted((one.reward_ns, i) for i, one in enumerate(log) if one.reward_ns is not None and not one.is_flat)
    banks: dict[str, Bank] = {}
    table, unused, learnt = np.empty((len(log), arms + 1)), np.full(2 * arms + 2, 0.5), 0
    for i, one in enumerate(log):
        end = bisect_left(outcomes, (one.ts_ns, -1), lo=learnt)
        for _, past in outcomes[learnt:end]:
            _learn(_bank(banks, log[past], settings, width, pooled), log[past])
        learnt = end
        bank = _bank(banks, one, settings, width, pooled)
        mixtures = np.stack([bank.predict(arm, _vector(one.x[arm]), one.offsets[arm]) for arm in range(arms)])
        table[i] = choose(mixtures, np.array(one.enabled, np.bool_), unused, settings.floor, flat=True).propensities
    return table


def cross_fitted(told: Sequence[Logged]) -> Float64Array2D:
    """Return a reward model's mean reward of every option, shape (n, K + 1); that of flat is 0.

    The decisions, in the order of time, are cut into five spans. The model of each was fitted to the others, less what was held while
    that span was decided or came due: it has seen nothing of the rewards that it is to predict.
    """
    arms = len(told[0].arms)
    predicted = np.zeros((len(told), arms + 1))
    for fold in range(FOLDS):
        begin, end = fold * len(told) // FOLDS, (fold + 1) * len(told) // FOLDS
        if begin == end:
            continue
        from_ns, to_ns = told[begin].ts_ns, max(_due_ns(one) for one in told[begin:end])
        model = Bank(arms, len(told[0].x[0]), RIDGE)
        for one in told:
            if one.reward_ns is not None and not one.is_flat and (one.reward_ns < from_ns or one.ts_ns > to_ns):
                _learn(model, one)
        for i in range(begin, end):
            for arm in range(arms):
                predicted[i, arm] = model.predict(arm, _vector(told[i].x[arm]), told[i].offsets[arm])[0, 1]
    return predicted


def _in_order(decisions: Sequence[Logged]) -> list[Logged]:
    """Return the decisions in the order of time, which is checked to be one log."""
    if not decisions:
        raise ValueError("expected at least one decision, found none")
    first = decisions[0]
    for one in decisions:
        if one.arms != first.arms or {len(x) for x in one.x} != {len(first.x[0])}:
            raise ValueError(f"expected the arms {first.arms} with {len(first.x[0])} features, found {one.arms} at {one.ts_ns}")
    return sorted(decisions, key=lambda one: one.ts_ns)


def _is_known(one: Logged, until_ns: int) -> bool:
    """Tell whether an outcome is known; flat ones of the end are left out with those that wait, lest they count too much."""
    return one.ts_ns <= until_ns and (one.is_flat or one.reward is not None)


def _table(log: Sequence[Logged], row: Callable[[Logged], Sequence[float]]) -> Float64Array2D:
    return np.array([row(one) for one in log], np.float64)


def _uniform(one: Logged) -> list[float]:
    options = [*one.enabled, True]
    return [float(option) / sum(options) for option in options]


def _always(arm: int) -> Callable[[Logged], list[float]]:
    def row(one: Logged) -> list[float]:
        chosen = arm if one.enabled[arm] else len(one.arms)
        return [float(option == chosen) for option in range(len(one.arms) + 1)]

    return row


def _bank(banks: dict[str, Bank], one: Logged, settings: BanditSettings, width: int, pooled: bool) -> Bank:
    name = "" if pooled else one.symbol
    if name not in banks:
        banks[name] = Bank(len(one.arms), width, settings)
    return banks[name]


def _learn(bank: Bank, one: Logged) -> None:
    assert one.reward is not None and not one.is_flat, "only outcomes of arms are learnt"
    bank.learn(one.chosen, _vector(one.x[one.chosen]), one.reward, one.offsets[one.chosen])


def _vector(x: Sequence[float]) -> Float64Array1D:
    return np.array(x, np.float64)


def _due_ns(one: Logged) -> int:
    return one.ts_ns if one.reward_ns is None else one.reward_ns


def _row(name: str, told: Sequence[Logged], target: Float64Array2D, predicted: Float64Array2D, blocks: npt.NDArray[np.int64]) -> Row:
    """Return the estimates of one target policy."""
    rows, chosen = np.arange(len(told)), np.array([one.chosen for one in told])
    rewards = np.array([0.0 if one.is_flat or one.reward is None else one.reward for one in told])
    logged = np.array([one.propensities[one.chosen] for one in told])
    aimed = np.minimum(target[rows, chosen], 1.0)
    predicted_logged: Float64Array1D = predicted[rows, chosen]
    predicted_target: Float64Array1D = np.sum(target * predicted, axis=1)
    plain = off_policy(rewards, logged, aimed, blocks=blocks, refuse=False)
    mean, found = float(np.mean(rewards)), len(np.unique(blocks))
    if found < BLOCKS_MIN:
        reason = f"expected at least {BLOCKS_MIN} blocks of time of {BLOCK_SPANS} horizons, found {found}"
        return Row(name, len(told), plain.ess, mean, None, None, reason)
    try:
        robust = doubly_robust(rewards, logged, aimed, predicted_logged, predicted_target, blocks=blocks)
    except TooLittle as refusal:
        return Row(name, len(told), plain.ess, mean, None, None, str(refusal))
    return Row(name, len(told), plain.ess, mean, plain, robust)
