"""Fills that outside executors report of the decisions: kept apart from the paper portfolio, and a lesson for the impact model."""

from collections.abc import Callable

import msgspec

from alphapack.domain.context import Context
from alphapack.domain.events import OutsideFilled
from alphapack.domain.inputs import OutsideFill
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.domain.trading import Decision

TIMER = "outside"
DECISIONS_KEPT = 2_000
"""Decisions of which an outside executor may report fills."""
OUTSIDE_FILLS_MAX = 100
"""Of one decision."""
OUTSIDE_FILLS_IN_ALL = 20_000
OUTSIDE_MAX = 1e12
"""Price, size or fee beyond it is none."""
OUTSIDE_EARLY_MS = 60_000
"""How far the clock of an outside executor may be behind."""
PRICE_OFF_MAX = 0.5
"""A price further from the decision's mid is not believed."""


class Recent(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a decision so that an outside executor may report its fills."""

    symbol: str
    ts_ms: int
    mid: float
    """In units of price; 0 where it was not known."""
    half_spread_bps: float


class Side(msgspec.Struct):
    """What an outside executor has reported of one decision on one side."""

    size: float = 0.0
    value: float = 0.0
    last_ms: int = 0


class Reported(msgspec.Struct):
    """What an outside executor has reported of one decision."""

    position: float = 0.0
    """In base units."""
    fills: list[str] = []
    """Ids of the fills, the executor's own."""
    sides: list[Side] = msgspec.field(default_factory=lambda: [Side(), Side()])
    """Sold, bought."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    recent: dict[int, Recent]
    reported: dict[int, Reported]


class Outside:
    """Owns what was reported, by decision."""

    def __init__(self, ctx: Context, adv: Callable[[str], float | None]) -> None:
        """``adv`` returns the base volume of a symbol's day; None: not known."""
        self._ctx, self._adv = ctx, adv
        self._recent: dict[int, Recent] = {}
        self._reported: dict[int, Reported] = {}
        self.learnt: Callable[[str, float, float, float], object] = lambda symbol, share, cost_bps, duration_s: None
        """Told what an execution outside cost against the decision's mid beyond half the spread, by its share of a day's volume."""

    def on_decision(self, decision: Decision) -> None:
        """Keep what fills of a decision will be held against."""
        features = decision.features
        half_spread_bps = 0.5 * features.get("spread_bps", 0.0)
        self._recent[decision.id] = Recent(decision.symbol, decision.ts_ns // NANOS_PER_MS, features.get("mid", 0.0), half_spread_bps)
        if len(self._recent) > DECISIONS_KEPT:
            oldest = next(iter(self._recent))
            del self._recent[oldest]
            self._reported.pop(oldest, None)

    def on_fill(self, entry: OutsideFill) -> None:
        """Take a fill that an outside executor reports; what was reported before, or is of no decision that is kept, changes nothing."""
        recent = self._recent.get(entry.decision)
        if recent is None or self.is_reported(entry.decision, entry.client_fill_id):
            return
        if not self.is_believable(entry.decision, entry.price, entry.size, entry.fee, entry.venue_ms):
            return
        if entry.decision not in self._reported:
            self._reported[entry.decision] = Reported()
            self._ctx.after(self._ctx.settings.router.horizon_s * NANOS_PER_S, TIMER, str(entry.decision))
        outside = self._reported[entry.decision]
        outside.fills.append(entry.client_fill_id)
        outside.position += entry.size
        side = outside.sides[entry.size > 0.0]
        side.size, side.value = side.size + abs(entry.size), side.value + abs(entry.size) * entry.price
        side.last_ms = max(side.last_ms, entry.venue_ms)
        self._ctx.emit(
            OutsideFilled(entry.decision, entry.client_fill_id, recent.symbol, entry.price, entry.size, entry.fee, entry.venue_ms)
        )

    def is_believable(self, decision: int, price: float, size: float, fee: float, venue_ms: int) -> bool:
        """Tell whether a fill outside can be one of a decision: not from before it, near its mid, of a size that can be added up."""
        recent = self._recent[decision]
        near = recent.mid <= 0.0 or abs(price / recent.mid - 1.0) <= PRICE_OFF_MAX
        return near and max(price, abs(size), abs(fee)) <= OUTSIDE_MAX and venue_ms >= recent.ts_ms - OUTSIDE_EARLY_MS

    def on_timer(self, argument: str) -> None:
        """Teach what a decision has cost outside, all its fills of a side together: one execution."""
        recent, outside = self._recent.get(int(argument)), self._reported.get(int(argument))
        adv = self._adv(recent.symbol) if recent is not None else None
        if recent is None or outside is None or adv is None or recent.mid <= 0.0:
            return
        for sign, side in zip((-1.0, 1.0), outside.sides, strict=True):
            if side.size > 0.0:
                cost_bps = sign * 1e4 * (side.value / side.size / recent.mid - 1.0) - recent.half_spread_bps
                self.learnt(recent.symbol, side.size / adv, cost_bps, max(0.0, (side.last_ms - recent.ts_ms) / 1e3))

    # Answers

    def knows(self, decision: int) -> bool:
        """Tell whether fills of a decision can be reported."""
        return decision in self._recent

    def is_reported(self, decision: int, client_fill_id: str) -> bool:
        """Tell whether a fill was reported before."""
        return decision in self._reported and client_fill_id in self._reported[decision].fills

    def of(self, decision: int) -> Reported:
        """Return what was reported of a decision."""
        return self._reported.get(decision) or Reported()

    def fills(self) -> int:
        """Return how many reported fills are kept."""
        return sum(len(outside.fills) for outside in self._reported.values())

    # State

    def save(self) -> list[memoryview]:
        """Return the decisions that are kept, and what was reported of them."""
        return [memoryview(msgspec.msgpack.encode(_Saved(1, self._recent, self._reported)))]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        self._recent, self._reported = saved.recent, saved.reported
