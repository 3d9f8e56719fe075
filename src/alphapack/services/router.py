"""The router: every so often it asks each policy about each symbol, and lets what they earned before choose between them, or nothing.

Contextual Thompson sampling: of each policy's expected reward, given the context, one value is drawn from its posterior; the highest is
followed where it is above 0, and nothing is held where none is. What a decision came to is learnt once, at its horizon.

Advice that is asked for from outside is decided the same way, with chance of its own, orders nothing, and teaches only what is reported
back.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.domain.context import Context
from alphapack.domain.events import AlphaDisabled, DecisionMade, RewardLearnt
from alphapack.domain.inputs import Choose, Disable, Reward
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.domain.trading import Decision, Proposal, Quote, Target
from alphapack.models import arms
from alphapack.models.alpha import AlphaContext
from alphapack.models.bandit import Bank, Choice, choose, exceedance
from alphapack.models.calibration import Calibrator
from alphapack.models.policy import (
    FLAT,
    Policy,
    PolicyFailed,
    exposure_of,
    is_nothing,
    owned,
    propose_safely,
    side_of_proposal,
    sides_of,
)
from alphapack.models.registry import Registry

TIMER = "router"
SPACING_NS = 10 * NANOS_PER_MS
"""Between two symbols' decisions: each takes some milliseconds, and the market goes on meanwhile."""
ENGINE, API = "engine", "api"
TARGET_MAX = 6.0
"""A reward is learnt up to so many volatilities to the horizon."""
MASKED = (1.0, 0.0, 1.0, 8.0)
"""Stands where there is no distribution to draw from: nothing follows from it."""
DECISIONS_KEPT = 200
ADVICE_KEPT = 2_000
"""Pieces of advice whose rewards may still be reported."""
PROBABILITY_MIN = 1e-6
"""No win probability is taken to be nearer to 0 or 1."""
REASON_LENGTH_MAX = 300


class Look(Protocol):
    """A context, and what the alphas say of it: what ``services.alphas`` calls a look."""

    @property
    def raw(self) -> dict[str, float]:
        """All that is known."""
        ...

    @property
    def sources(self) -> dict[str, str]:
        """Where each feature came from."""
        ...

    @property
    def standardised(self) -> dict[str, float]:
        """Features as far as they are known."""
        ...

    @property
    def standardiser(self) -> int:
        """Observations by which they were standardised."""
        ...

    @property
    def signals(self) -> list[float | None]:
        """In the order of the registry."""
        ...

    @property
    def weights(self) -> list[float]:
        """In the order of the registry."""
        ...

    @property
    def sigma(self) -> float | None:
        """Volatility to the horizon."""
        ...


class Known(Protocol):
    """What the router asks about a symbol."""

    def tradable(self) -> list[str]:
        """Return the symbols with a LIVE book that takes orders, in order of name."""
        ...

    def long_only(self, symbol: str) -> bool:
        """Tell whether it is owned rather than held long or short."""
        ...

    def has_room(self, symbol: str, side: int) -> bool:
        """Tell whether limits leave room for a least order, +1 to buy and -1 to sell."""
        ...


class Frozen(msgspec.Struct, frozen=True):
    """What it takes to ask a policy again what it would have wanted of other signals."""

    policy: str
    symbol: str
    ts_ns: int
    raw: dict[str, float]
    standardised: dict[str, float]
    signals: list[float | None]
    weights: list[float]


class Kept(msgspec.Struct, frozen=True):
    """A decision and when it was made."""

    seq: int
    ts_ns: int
    made: DecisionMade


class _Pending(msgspec.Struct, array_like=True):
    """A decision whose reward is not known yet."""

    symbol: str
    policy: str
    origin: str
    x: list[float]
    offset: float
    sigma: float
    win_raw: float


class _Saved(msgspec.Struct, array_like=True):
    version: int
    registry: list[str]
    made: int
    pending: dict[int, _Pending]
    advice: dict[int, _Pending]
    rewarded: list[int]
    kept: list[Kept]
    frozen: dict[int, Frozen]
    disabled: dict[str, str]
    beliefs: tuple[float, float, int]


class _Arm(msgspec.Struct):
    """One policy's part of a decision."""

    proposal: Proposal | None = None
    side: int = 0
    blend: float = 0.0
    offset: float = 0.0
    enabled: bool = False
    x: Float64Array1D | None = None


class Router:
    """Owns the posteriors, the calibration of win probabilities, and the decisions."""

    def __init__(self, ctx: Context, registry: Registry, known: Known, look: Callable[[str, Mapping[str, float] | None], Look]) -> None:
        """``look`` returns a symbol's context now, some of it overridden."""
        self._ctx, self._known, self._look = ctx, known, look
        self.decided: Callable[[Decision], None] = lambda decision: None
        """Told of each decision that is to be traded, flat ones too."""
        self.watch: Callable[[str, str, Callable[[], Proposal]], Proposal] = lambda name, what, ask: ask()
        self.halted = False
        """Nothing is decided meanwhile."""
        self._made = 0
        self.take(registry)

    def take(self, registry: Registry) -> None:
        """Begin anew with these policies and alphas; ids of decisions go on."""
        self.registry = registry
        self.disabled: dict[str, str] = {}
        """Policies that are asked no more, and why."""
        self._pending: dict[int, _Pending] = {}
        self._advice: dict[int, _Pending] = {}
        self._rewarded: dict[int, None] = {}
        self._kept: dict[str, deque[Kept]] = {origin: deque(maxlen=DECISIONS_KEPT) for origin in (ENGINE, API)}
        """The newest decisions by origin."""
        self._frozen: dict[int, Frozen] = {}
        self._calibrator = Calibrator()
        self._begin()

    def _begin(self) -> None:
        settings = self._ctx.settings.router
        self._beliefs = self._believed()
        n = len(self.registry.alphas)
        self._bank = Bank(len(self.registry.policies), len(arms.names([""] * n)), arms.beliefs(settings, n))
        self._hashes: list[str | None] = [None] * len(self.registry.policies)

    def on_configure(self) -> None:
        """Take the settings: other beliefs begin the posteriors anew; so does another horizon, as rewards of two cannot be compared."""
        if self._believed() != self._beliefs:
            self._pending, self._advice = {}, {}
            self._calibrator = Calibrator()
            self._begin()
        self._bank.draw_by(self._ctx.settings.router.scale)

    def _believed(self) -> tuple[float, float, int]:
        settings = self._ctx.settings.router
        return settings.prior_edge, settings.prior_effect, settings.horizon_s

    def start(self) -> None:
        """Set the first timer; done once in an engine's life."""
        self._wait()

    # Decisions

    def on_timer(self, symbol: str) -> None:
        """Decide for a symbol; with none named, begin with the first and set the timers of the others."""
        if not symbol:
            self._wait()
        if self.halted or not self._ctx.settings.execution.trade:
            return
        tradable = self._known.tradable()
        if symbol:
            if symbol in tradable:
                self._decide(symbol, ENGINE, None)
            return
        for place, one in enumerate(tradable):
            if place == 0:
                self._decide(one, ENGINE, None)
            else:
                self._ctx.after(place * SPACING_NS, TIMER, one)

    def _wait(self) -> None:
        interval_ns = self._ctx.settings.router.interval_s * NANOS_PER_S
        self._ctx.after(interval_ns - self._ctx.now_ns % interval_ns, TIMER)

    def on_choose(self, entry: Choose) -> None:
        """Decide as advice."""
        self._decide(entry.symbol, API, entry.context)

    def _decide(self, symbol: str, origin: str, overrides: Mapping[str, float] | None) -> None:
        look = self._look(symbol, overrides)
        policies = self.registry.policies
        room = {side: self._known.has_room(symbol, side) for side in (1, -1)}
        every = [self._arm(symbol, policy, look, room, overrides is not None) for policy in policies]
        memories = len(self._bank.settings.discounts)
        mixtures = np.array([[MASKED] * memories] * len(policies))
        mixtures[:, :, 0] = 1.0 / memories
        for place, arm in enumerate(every):
            if arm.enabled and arm.x is not None:
                mixtures[place] = self._bank.predict(place, arm.x, arm.offset)
        enabled = np.array([arm.enabled for arm in every], dtype=np.bool_)
        draws = self._ctx.draws("router" if origin == ENGINE else "advice", symbol)
        uniforms = np.array([next(draws) for _ in range(2 * len(policies) + 2)])
        floor = self._ctx.settings.router.floor
        choice = choose(mixtures, enabled, uniforms, floor, flat=True)
        self._made += 1
        decision, raw, made = self._record(symbol, origin, look, every, mixtures, uniforms, choice)
        self._kept[origin].append(Kept(self._ctx.seq, self._ctx.now_ns, made))
        self._ctx.emit(made)
        if choice.arm < len(policies):
            arm = every[choice.arm]
            assert arm.x is not None, "it was enabled"
            pending = _Pending(symbol, decision.policy, origin, arm.x.tolist(), arm.offset, look.sigma or 0.0, raw)
            if origin == API:
                self._advice[decision.id] = pending
                if len(self._advice) > ADVICE_KEPT:
                    del self._advice[next(iter(self._advice))]
            else:
                self._pending[decision.id] = pending
                self._frozen[decision.id] = Frozen(
                    decision.policy, symbol, self._ctx.now_ns, look.raw, look.standardised, look.signals, look.weights
                )
        if origin == ENGINE:
            self.decided(decision)

    def _arm(self, symbol: str, policy: Policy, look: Look, room: Mapping[int, bool], is_asked: bool) -> _Arm:
        """Ask a policy, and put together what its posterior sees; one that proposes nothing, or what cannot be had, cannot be chosen.

        Where somebody asks what it would propose in a context of his own, failing is proposing nothing.
        """
        arm = _Arm(blend=sum(((look.signals[place] or 0.0) * look.weights[place] for place in self.registry.listening(policy)), 0.0))
        spread_bps = look.raw.get("spread_bps")
        if policy.name in self.disabled or look.sigma is None or spread_bps is None:
            return arm
        seen = AlphaContext(symbol, self._ctx.now_ns, look.raw, look.standardised, None)
        try:
            if is_asked:
                proposal = propose_safely(policy, seen, arm.blend)
            else:
                proposal = self.watch(policy.name, "policy", lambda: propose_safely(policy, seen, arm.blend))
        except PolicyFailed as failed:
            if not is_asked:
                self._disable(policy.name, str(failed))
            return arm
        arm.proposal = proposal = owned(proposal) if self._known.long_only(symbol) else proposal
        if is_nothing(proposal):
            return arm
        arm.side = side_of_proposal(proposal)
        arm.enabled = all(room[side] for side in sides_of(proposal))
        maker_bps, taker_bps = look.raw.get("maker_fee_bps", 0.0), look.raw.get("taker_fee_bps", 0.0)
        quoted = isinstance(proposal, Quote)
        cost_bps = 0.5 * spread_bps + maker_bps + taker_bps if quoted else spread_bps + 2.0 * taker_bps
        arm.offset = -cost_bps / (1e4 * look.sigma)
        arm.x = arms.vector(look.standardised, look.signals, arm.blend, arm.side)
        return arm

    def _record(
        self, symbol: str, origin: str, look: Look, every: list[_Arm], mixtures: np.ndarray, uniforms: Float64Array1D, choice: Choice
    ) -> tuple[Decision, float, DecisionMade]:
        """Return a decision, its win probability before calibration, and all that is to be known of it."""
        names, settings = [policy.name for policy in self.registry.policies], self._ctx.settings.router
        options = [*names, FLAT]
        policy, raw, calibrated, proposal = options[choice.arm], 0.5, 0.5, None
        if choice.arm < len(names):
            arm = every[choice.arm]
            assert arm.x is not None and arm.proposal is not None, "it was enabled"
            proposal = arm.proposal
            raw = exceedance(self._bank.predict_reward(choice.arm, arm.x, arm.offset))
            raw = max(PROBABILITY_MIN, min(1.0 - PROBABILITY_MIN, raw))
            calibrated = max(PROBABILITY_MIN, min(1.0 - PROBABILITY_MIN, self._calibrator.calibrate(raw, policy)))
        target = proposal if isinstance(proposal, Target) else None
        decision = Decision(
            id=self._made,
            ts_ns=self._ctx.now_ns,
            symbol=symbol,
            policy=policy,
            exposure=0.0 if proposal is None else exposure_of(proposal),
            urgency=0.0 if target is None else target.urgency,
            horizon_s=settings.horizon_s,
            win_probability=calibrated,
            features=look.raw,
            quote=proposal if isinstance(proposal, Quote) else None,
            plan_s=0 if target is None else min(target.horizon_s, settings.horizon_s),
        )
        made = DecisionMade(
            decision=decision.id,
            symbol=symbol,
            origin=origin,
            policy=policy,
            exposure=decision.exposure,
            quote=decision.quote,
            urgency=decision.urgency,
            horizon_s=decision.horizon_s,
            plan_s=decision.plan_s,
            win_probability=calibrated,
            win_probability_raw=raw,
            features=look.raw,
            sources=look.sources,
            standardised=look.standardised,
            standardiser=look.standardiser,
            signals={alpha.id: signal for alpha, signal in zip(self.registry.alphas, look.signals, strict=True)},
            weights={alpha.id: weight for alpha, weight in zip(self.registry.alphas, look.weights, strict=True)},
            blends={name: arm.blend for name, arm in zip(names, every, strict=True)},
            proposals={name: 0.0 if arm.proposal is None else exposure_of(arm.proposal) for name, arm in zip(names, every, strict=True)},
            sides={name: arm.side for name, arm in zip(names, every, strict=True)},
            enabled={name: arm.enabled for name, arm in zip(names, every, strict=True)},
            sigma=look.sigma or 0.0,
            offsets={name: arm.offset for name, arm in zip(names, every, strict=True)},
            mixtures={name: rows.tolist() for name, rows in zip(names, mixtures, strict=True)},
            uniforms=uniforms.tolist(),
            floor=settings.floor,
            scores={
                **{name: score if score == score else None for name, score in zip(names, choice.scores.tolist(), strict=True)},
                FLAT: 0.0,
            },
            propensities=dict(zip(options, choice.propensities.tolist(), strict=True)),
            explored=choice.explored,
            posterior={name: self._hash(place) for place, name in enumerate(names)},
            learnt={name: self._bank.n(place) for place, name in enumerate(names)},
        )
        return decision, raw, made

    def _hash(self, arm: int) -> str:
        found = self._hashes[arm]
        if found is None:
            found = self._hashes[arm] = self._bank.hash(arm)
        return found

    def on_disable(self, entry: Disable) -> None:
        """Ask a policy no more."""
        if any(policy.name == entry.name for policy in self.registry.policies):
            self._disable(entry.name, entry.reason)

    def _disable(self, name: str, reason: str) -> None:
        if name not in self.disabled:
            self.disabled[name] = reason[:REASON_LENGTH_MAX]
            self._ctx.emit(AlphaDisabled(name, "policy", self.disabled[name]))

    # What comes of them

    def on_matured(self, decision: int, reward_bps: float, filled: bool) -> None:
        """Learn what a decision that was traded came to at its horizon."""
        pending = self._pending.pop(decision, None)
        if pending is not None:
            self._learn(decision, pending, reward_bps, reward_bps > 0.0 if filled else None)

    def on_unsized(self, decision: int) -> None:
        """Forget a decision of which nothing came: it teaches nothing."""
        self._pending.pop(decision, None)
        self._frozen.pop(decision, None)

    def on_reward(self, entry: Reward) -> None:
        """Learn what advice came to, once."""
        pending = self._advice.pop(entry.decision, None)
        if pending is None:
            return
        self._rewarded[entry.decision] = None
        if len(self._rewarded) > ADVICE_KEPT:
            del self._rewarded[next(iter(self._rewarded))]
        self._learn(entry.decision, pending, entry.reward_bps, entry.reward_bps > 0.0)

    def _learn(self, decision: int, pending: _Pending, reward_bps: float, won: bool | None) -> None:
        target = arms.shrunk(reward_bps / (1e4 * pending.sigma), TARGET_MAX)
        place = next(place for place, policy in enumerate(self.registry.policies) if policy.name == pending.policy)
        self._bank.learn(place, np.array(pending.x), target, pending.offset)
        self._hashes[place] = None
        if won is not None:
            self._calibrator.learn(pending.win_raw, won, pending.policy)
        self._ctx.emit(RewardLearnt(decision, pending.symbol, pending.policy, pending.origin, reward_bps, target, won))

    def frozen(self, decision: int) -> Frozen | None:
        """Hand out, once, what it takes to ask a decision's policy again."""
        return self._frozen.pop(decision, None)

    # Answers

    def last(self, symbol: str | None, origin: str | None) -> Kept | None:
        """Return the newest decision, of a symbol or an origin where one is given."""
        return next(iter(self.kept(symbol, origin)), None)

    def kept(self, symbol: str | None, origin: str | None) -> Iterable[Kept]:
        """Return the decisions that are kept, newest first."""
        found = [one for name, kept in self._kept.items() if origin in (None, name) for one in kept if symbol in (None, one.made.symbol)]
        return sorted(found, key=lambda one: -one.made.decision)

    def decision(self, decision: int) -> Kept | None:
        """Return a decision; None where none of that id is kept."""
        return next((one for kept in self._kept.values() for one in kept if one.made.decision == decision), None)

    def made_at(self, seq: int) -> Kept:
        """Return the decision that the input of ``seq``, which asked for one and was the last, came to."""
        kept = self._kept[API][-1]
        assert kept.seq == seq, "it was the last"
        return kept

    def learnt(self, policy: str) -> int:
        """Return how many rewards the posterior of a policy has seen."""
        return self._bank.n(next(place for place, one in enumerate(self.registry.policies) if one.name == policy))

    def advised(self, decision: int) -> str:
        """Return the policy of advice whose reward may be reported."""
        return self._advice[decision].policy

    def awaits(self, decision: int) -> bool:
        """Tell whether the reward of advice may be reported."""
        return decision in self._advice

    def is_rewarded(self, decision: int) -> bool:
        """Tell whether the reward of advice was reported."""
        return decision in self._rewarded

    # State

    def save(self) -> list[memoryview]:
        """Return the posteriors, the calibration, and the decisions that are kept."""
        saved = _Saved(
            1,
            _named(self.registry),
            self._made,
            self._pending,
            self._advice,
            list(self._rewarded),
            [one for kept in self._kept.values() for one in kept],
            self._frozen,
            self.disabled,
            self._beliefs,
        )
        return [memoryview(piece) for piece in (msgspec.msgpack.encode(saved), self._bank.save(), self._calibrator.save())]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned; of other alphas or policies than there are now only the count of decisions."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        self.take(self.registry)
        self._made = saved.made
        if saved.registry != _named(self.registry):
            return
        self._pending, self._advice, self._rewarded = saved.pending, saved.advice, dict.fromkeys(saved.rewarded)
        for one in saved.kept:
            self._kept[one.made.origin].append(one)
        self._frozen, self.disabled = saved.frozen, saved.disabled
        self._beliefs = saved.beliefs
        self._bank, self._calibrator = Bank.load(bytes(pieces[1])), Calibrator.load(bytes(pieces[2]))
        self._hashes = [None] * len(self.registry.policies)


def moments(mixture: Iterable[Iterable[float]]) -> tuple[float, float]:
    """Return mean and standard deviation of a mixture of rows of weight, location, scale and degrees of freedom, these above 2."""
    rows = [tuple(row) for row in mixture]
    mean = sum(weight * location for weight, location, _, _ in rows)
    square = sum(weight * (location**2 + scale**2 * dof / (dof - 2.0)) for weight, location, scale, dof in rows)
    return mean, math.sqrt(max(0.0, square - mean**2))


def _named(registry: Registry) -> list[str]:
    return [*(alpha.id for alpha in registry.alphas), "/", *(policy.name for policy in registry.policies)]
