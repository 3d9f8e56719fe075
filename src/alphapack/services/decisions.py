"""Decisions: every so often a policy looks at each symbol's context and says what exposure it wants."""

from collections.abc import Callable, Iterable

import msgspec

from alphapack.domain.context import Context
from alphapack.domain.events import DecisionMade
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.domain.trading import Decision
from alphapack.models import policy

TIMER = "decisions"
SPACING_NS = 10 * NANOS_PER_MS
"""Between two symbols' decisions: each takes some milliseconds, and the market goes on meanwhile."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    made: int
    last: dict[str, Decision]


class Decisions:
    """Asks the policy for every symbol that may be traded, at whole multiples of the interval."""

    def __init__(self, ctx: Context, symbols: Callable[[], Iterable[str]], context: Callable[[str], dict[str, float]]) -> None:
        """``symbols`` are those that may be traded now, in a fixed order; ``context`` is what a decision about one looks at."""
        self._ctx, self._symbols, self._context = ctx, symbols, context
        self._made = 0
        self._last: dict[str, Decision] = {}
        self.decided: Callable[[Decision], None] = lambda decision: None
        """Told of each decision."""
        self.halted = False
        """Nothing is decided meanwhile."""

    def start(self) -> None:
        """Set the first timer; done once in an engine's life."""
        self._wait()

    def on_timer(self, symbol: str) -> None:
        """Decide for a symbol; with none named, begin with the first and set the timers of the others."""
        if not symbol:
            self._wait()
        if self.halted or not self._ctx.settings.execution.trade:
            return
        tradable = list(self._symbols())
        if symbol:
            if symbol in tradable:
                self._decide(symbol)
            return
        for place, one in enumerate(tradable):
            if place == 0:
                self._decide(one)
            else:
                self._ctx.after(place * SPACING_NS, TIMER, one)

    def _decide(self, symbol: str) -> None:
        features = self._context(symbol)
        target = policy.propose(features)
        if target is None:
            return
        self._made += 1
        decision = Decision(
            id=self._made,
            ts_ns=self._ctx.now_ns,
            symbol=symbol,
            policy=policy.NAME,
            exposure=target.exposure,
            urgency=target.urgency,
            horizon_s=self._ctx.settings.router.horizon_s,
            win_probability=target.win_probability,
            features=features,
        )
        self._last[symbol] = decision
        self._ctx.emit(
            DecisionMade(
                decision.id,
                symbol,
                decision.policy,
                decision.exposure,
                decision.urgency,
                decision.horizon_s,
                decision.win_probability,
                features,
            )
        )
        self.decided(decision)

    def _wait(self) -> None:
        interval_ns = self._ctx.settings.router.interval_s * NANOS_PER_S
        self._ctx.after(interval_ns - self._ctx.now_ns % interval_ns, TIMER)

    def last(self, symbol: str) -> Decision | None:
        """Return the newest decision about a symbol."""
        return self._last.get(symbol)

    # State

    def save(self) -> list[memoryview]:
        """Return how many were made, and the newest of each symbol."""
        return [memoryview(msgspec.msgpack.encode(_Saved(1, self._made, self._last)))]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        self._made, self._last = saved.made, saved.last
