"""Attribution: who is to be thanked for a trade.

``v(S)`` is what the policy would have made had it heard the alphas of ``S`` alone: the same sizing and limits, the mid's way from the
decision to the horizon, the modelled spread and impact both ways, no fees. ``v`` of none is the *base*; the alphas share what is above
it by Shapley's values. What the fills made of it is measured by itself, from the fills, and so are the fees: their sum is the profit.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.domain.context import Context
from alphapack.domain.events import Attributed, Contribution
from alphapack.domain.trading import Decision, Proposal
from alphapack.models.alpha import AlphaContext
from alphapack.models.policy import Policy, PolicyFailed, propose_safely
from alphapack.models.registry import Registry
from alphapack.models.shapley import in_money, leave_one_out, sampled, shapley

EXACT_MAX = 16
"""Alphas up to which every coalition is looked at."""
PERMUTATIONS = 500
KEPT = 300
FLOAT_BITS = 52
"""Whole numbers of so many bits are exact in a float, and so are their halves."""


class Frozen(Protocol):
    """What it takes to ask a policy again: what ``services.router`` keeps of a decision."""

    @property
    def policy(self) -> str:
        """Its name."""
        ...

    @property
    def symbol(self) -> str:
        """In full."""
        ...

    @property
    def ts_ns(self) -> int:
        """When it was asked."""
        ...

    @property
    def raw(self) -> dict[str, float]:
        """All that was known."""
        ...

    @property
    def standardised(self) -> dict[str, float]:
        """Features as far as they were known."""
        ...

    @property
    def signals(self) -> list[float | None]:
        """In the order of the registry."""
        ...

    @property
    def weights(self) -> list[float]:
        """In the order of the registry."""
        ...


class Outcome(msgspec.Struct, frozen=True):
    """What a closed trade came to, in money: ``pnl`` is what its sleeve has; ``execution`` and ``fees`` are measured from its fills."""

    decision: int
    pnl: int
    model: int
    """What the model says of the size that was decided: the value of all alphas together."""
    execution: int
    fees: int
    value: Callable[[Proposal], int]
    """What the model says of another proposal, all else held."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    kept: list[Attributed]


class Attribution:
    """Owns what was attributed of the newest trades."""

    def __init__(self, ctx: Context, registry: Registry) -> None:
        self._ctx, self.registry = ctx, registry
        self._kept: deque[Attributed] = deque(maxlen=KEPT)

    def on_closed(self, decision: Decision, frozen: Frozen | None, outcome: Outcome) -> None:
        """Share what a trade made among the alphas that its policy heard; where these are no longer there, all of it is base."""
        policy = next((one for one in self.registry.policies if frozen is not None and one.name == frozen.policy), None)
        if frozen is None or policy is None:
            self._keep(decision, outcome, outcome.model, [], 0.0)
            return
        heard = self.registry.listening(policy)
        active = [place for place in heard if (frozen.signals[place] or 0.0) * frozen.weights[place] != 0.0]
        parts = [(frozen.signals[place] or 0.0) * frozen.weights[place] for place in active]
        value = self._game(policy, frozen, outcome, parts)
        n = len(active)
        base, error = value(0), 0.0
        if n == 0:
            shares, alone = np.zeros(0), np.zeros(0)
        elif n <= EXACT_MAX:
            values = np.array([value(coalition) - base for coalition in range(1 << n)], dtype=np.float64)
            shares, alone = shapley(values, n), leave_one_out(values, n)
        else:
            draws: Iterator[float] = self._ctx.draws("attribution", frozen.symbol)
            shares, errors = sampled(lambda coalition: float(value(coalition) - base), n, PERMUTATIONS, draws)
            whole = (1 << n) - 1
            alone = np.array([float(value(whole) - value(whole & ~(1 << place))) for place in range(n)])
            error = float(np.max(errors))
        money = _in_money(shares, outcome.model - base) if n else []
        found = dict(zip(active, zip(money, alone.tolist(), strict=True), strict=True))
        contributions = []
        for place in heard:
            share, lone = found.get(place, (0, 0.0))
            contributions.append(
                Contribution(self.registry.alphas[place].id, frozen.signals[place], frozen.weights[place], share, round(lone))
            )
        self._keep(decision, outcome, base, contributions, error)

    def _keep(self, decision: Decision, outcome: Outcome, base: int, contributions: list[Contribution], error: float) -> None:
        made = Attributed(
            outcome.decision,
            decision.symbol,
            decision.policy,
            outcome.pnl,
            base,
            outcome.execution,
            outcome.fees,
            contributions,
            error,
        )
        self._kept.append(made)
        self._ctx.emit(made)

    def _game(self, policy: Policy, frozen: Frozen, outcome: Outcome, parts: list[float]) -> Callable[[int], int]:
        """Return ``v`` of a coalition, whose bit i says whether the i-th alpha of ``parts`` was heard."""
        seen = AlphaContext(frozen.symbol, frozen.ts_ns, frozen.raw, frozen.standardised, None)
        whole = (1 << len(parts)) - 1

        def value(coalition: int) -> int:
            if coalition == whole:
                return outcome.model
            blend = sum((part for place, part in enumerate(parts) if coalition >> place & 1), 0.0)
            try:
                return outcome.value(propose_safely(policy, seen, blend))
            except PolicyFailed:  # It has nothing to say of these alone, so it would have done nothing.
                return 0

        return value

    # Answers

    def of(self, decision: int | None) -> Attributed | None:
        """Return what was attributed of a trade, or of the newest; None where none is kept."""
        return next((one for one in reversed(self._kept) if decision is None or one.decision == decision), None)

    # State

    def save(self) -> list[memoryview]:
        """Return what is kept."""
        return [memoryview(msgspec.json.encode(_Saved(1, list(self._kept))))]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned."""
        self._kept = deque(msgspec.json.decode(pieces[0], type=_Saved).kept, KEPT)


def _in_money(shares: Float64Array1D, total: int) -> list[int]:
    """Return shares in whole units that sum to a total; where that is beyond what floats count, in units so many times larger."""
    larger = max(1, 2 ** (max(abs(total), *(int(abs(share)) for share in shares)).bit_length() - FLOAT_BITS))
    money = [larger * part for part in in_money(shares / larger, round(total / larger))]
    money[max(range(len(money)), key=lambda place: abs(money[place]))] += total - sum(money)
    return money
