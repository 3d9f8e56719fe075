"""A book kept order by order (L3), and what every event did to its level.

A venue's codec turns lines or frames into ``OrderEvent``; ``OrderBook.apply`` answers with ``LevelChange``. A fall is known there to
be an execution or a cancel, which the sizes of levels alone (L2) never tell.

A book begins with orders it has not seen come. They stand in their level as a size without names (``set_level``), and an event
that names one of them takes from that size.
"""

import enum
from bisect import bisect_left, bisect_right, insort

import msgspec

from alphapack.domain.events import FrameError
from alphapack.models.book import CrossedBook

ORDERS_MAX = 1_000_000
"""Orders kept; a busy venue's whole book has a tenth of that."""
LEVELS_MAX = 200_000
"""Levels kept a side."""
TAKERS_MAX = 1_000
"""Marketable orders kept aside: a venue matches them within a second."""
EARLY_MAX = 1_024
"""Orders remembered whose end, or change, came before their beginning."""
NUMBER_MAX = 1 << 52
"""Largest price, size or level, as for books of levels."""

BID, ASK = 1, -1


class OrderKind(enum.IntEnum):
    """What an order event says."""

    ADD = 0
    """A new order."""
    REDUCE = 1
    """Part of an order was cancelled."""
    DELETE = 2
    """What was left of an order was cancelled."""
    EXECUTE = 3
    """An order that the book shows was executed, in part or whole."""
    EXECUTE_HIDDEN = 4
    """An order that no book shows was executed: a trade, and no change of a level."""


class OrderEvent(msgspec.Struct, frozen=True, gc=False):
    """One event of one order. ``price`` in ticks, ``size`` in lots, ``side`` ``BID`` or ``ASK``, of the order that rests.

    ``remaining`` tells which of two customs the venue follows: ``size`` is what is left of the order, not what left it.
    """

    ts_ns: int
    kind: OrderKind
    order_id: int
    side: int
    price: int
    size: int
    remaining: bool = False


class LevelChange(msgspec.Struct, frozen=True, gc=False):
    """What one event did to one level, sizes in lots.

    ``key`` is the price in ticks, negative for an ask, so that the best level of either side has the largest. ``executed`` is how
    much of the fall is known to have been traded. ``rank`` counts the better levels of that side before the event: the level
    was, or would have been, among the best ``k`` where ``rank < k``.
    """

    ts_ns: int
    key: int
    old: int
    new: int
    executed: int
    rank: int

    @property
    def removed(self) -> int:
        """Size that left the level, in lots; 0 where it grew."""
        return max(0, self.old - self.new)

    @property
    def cancelled(self) -> int:
        """Size that left the level without a trade, in lots."""
        return self.removed - self.executed


class Level:
    """One price of one side: ``size`` in lots, of which ``orders`` names ``known``, oldest first; the rest has no names."""

    __slots__ = ("known", "orders", "size")

    def __init__(self) -> None:
        self.size = 0
        self.known = 0
        self.orders: dict[int, int] = {}


class OrderBook:
    """Orders by id, levels by price; 0 <= named size <= size of its level, and the best bid is below the best ask.

    ``takers_shown`` is for venues whose feed shows a marketable order before its matches: such an order is kept aside, in no
    level, until it is filled or cancelled, or no longer marketable. Elsewhere a marketable order means that events were lost:
    ``CrossedBook``.

    ``partial`` is for feeds that tell of the best levels alone: orders leave unseen while theirs is not one of them. An event of an
    unknown order then shows that a named one has left, so none of the level keeps its name.
    """

    def __init__(self, *, takers_shown: bool = False, partial: bool = False) -> None:
        self.unknown = 0
        """Events of orders that neither the book nor the nameless size of their level could account for."""
        self.early = 0
        """Orders whose end, or change, came before their beginning: venues do mix up the order of one millisecond."""
        self._takers_shown, self._partial = takers_shown, partial
        self._keys: dict[int, int] = {}
        """Order id to the key of its level; orders kept aside are there too."""
        self._levels: dict[int, Level] = {}
        self._sorted: dict[int, list[int]] = {BID: [], ASK: []}
        """Keys of each side, best last."""
        self._aside: dict[int, int] = {}
        """Order id to size of marketable orders."""
        self._early: dict[int, int] = {}
        """Order id to what is left of it, of orders that may yet begin."""

    # What happens to the book

    def apply(self, event: OrderEvent) -> list[LevelChange]:
        """Take one event; return the levels it changed: none, one, or more where an order moved or one kept aside came to rest.

        Raises ``FrameError`` where the event contradicts the book, ``CrossedBook`` where it crosses it; the book is then as before.
        """
        check_event(event)
        if event.kind is OrderKind.EXECUTE_HIDDEN:
            return []
        if event.kind is OrderKind.ADD:
            changes = self._add(event)
        elif event.order_id in self._keys:
            changes = self._known(event)
        else:
            changes = self._nameless(event)
        return changes + self._settle(event.ts_ns) if self._aside else changes

    def set_level(self, ts_ns: int, side: int, price: int, size: int) -> list[LevelChange]:
        """Make ``size`` lots what stands at ``price``, as a venue's own list of levels says; return the levels that changed.

        Where the named orders are more than that, some left unseen: none of the level keeps its name.
        """
        if side not in (BID, ASK) or not 0 < price <= NUMBER_MAX or not 0 <= size <= NUMBER_MAX:
            raise FrameError(f"expected a side of 1 or -1, a price above zero and a size, found {side}, {price}, {size}")
        key = side * price
        if size and self._crosses(key):
            raise CrossedBook(f"expected a level that does not cross the book, found {describe(key)}")
        level = self._levels.get(key)
        if size and level is None and len(self._sorted[side]) >= LEVELS_MAX:
            raise FrameError(f"expected at most {LEVELS_MAX} levels a side, found one more")
        if level is not None and level.known > size:
            self._forget(level)
        old = level.size if level else 0
        changes = [self._resize(ts_ns, key, size - old, 0)] if size != old else []
        return changes + self._settle(ts_ns) if self._aside else changes

    # What is known of it

    def __len__(self) -> int:
        return len(self._keys)

    def levels(self, side: int, depth: int) -> list[tuple[int, int]]:
        """Return up to ``depth`` levels of a side, best first, as (ticks, lots)."""
        return [(abs(key), self._levels[key].size) for key in self._sorted[side][: -depth - 1 : -1]]

    def level(self, side: int, price: int) -> int:
        """Return the lots at a price, 0 if there are none."""
        found = self._levels.get(side * price)
        return found.size if found else 0

    def order(self, order_id: int) -> tuple[int, int, int] | None:
        """Return (side, ticks, lots) of an order, None if it is not known."""
        key = self._keys.get(order_id)
        if key is None:
            return None
        size = self._aside.get(order_id)
        return BID if key > 0 else ASK, abs(key), self._levels[key].orders[order_id] if size is None else size

    def ahead(self, order_id: int) -> int | None:
        """Return the lots that stand before an order in its level's queue, the nameless ones first; None if it rests in none."""
        key = self._keys.get(order_id)
        if key is None or order_id in self._aside:
            return None
        level = self._levels[key]
        lots = level.size - level.known
        for other, size in level.orders.items():
            if other == order_id:
                break
            lots += size
        return lots

    # Inside

    def _add(self, event: OrderEvent) -> list[LevelChange]:
        if event.order_id in self._keys:
            raise FrameError(f"expected a new order, found id {event.order_id} in the book")
        if len(self._keys) >= ORDERS_MAX:
            raise FrameError(f"expected at most {ORDERS_MAX} orders, found one more")
        left = self._early.get(event.order_id, event.size)
        changes = self._place(event.ts_ns, event.order_id, event.side * event.price, left) if left else []
        if event.order_id in self._early:
            del self._early[event.order_id]
            self.early += 1
        return changes

    def _place(self, ts_ns: int, order_id: int, key: int, size: int) -> list[LevelChange]:
        """Let an order rest, or keep it aside; nothing is changed where it is refused."""
        if self._crosses(key):
            if not self._takers_shown:
                raise CrossedBook(f"expected an order that rests, found {describe(key)} across the book")
            if len(self._aside) >= TAKERS_MAX:
                raise FrameError(f"expected at most {TAKERS_MAX} marketable orders at once, found one more")
            self._keys[order_id] = key
            self._aside[order_id] = size
            return []
        level = self._levels.get(key)
        if level is None and len(self._sorted[BID if key > 0 else ASK]) + len(self._aside) >= LEVELS_MAX:
            raise FrameError(f"expected at most {LEVELS_MAX} levels a side, found one more")
        if level is not None and level.size + size > NUMBER_MAX:
            raise FrameError(f"expected a level of at most {NUMBER_MAX} lots, found {level.size + size} at {describe(key)}")
        return [self._rest(ts_ns, order_id, key, size)]

    def _rest(self, ts_ns: int, order_id: int, key: int, size: int) -> LevelChange:
        change = self._resize(ts_ns, key, size, 0)
        level = self._levels[key]
        level.orders[order_id] = size
        level.known += size
        self._keys[order_id] = key
        return change

    def _known(self, event: OrderEvent) -> list[LevelChange]:
        order_id, key = event.order_id, self._keys[event.order_id]
        aside = order_id in self._aside
        old = self._aside[order_id] if aside else self._levels[key].orders[order_id]
        if event.side * key < 0:
            raise FrameError(f"expected an event of the {'bid' if key > 0 else 'ask'} {order_id}, found the other side")
        if abs(key) != event.price:
            return self._move(event)
        gone = old - event.size if event.remaining else event.size
        if not 0 <= gone <= old:
            raise FrameError(f"expected at most the {old} lots that order {order_id} has, found {gone}")
        if event.kind is OrderKind.DELETE:
            gone = old
        if aside:
            self._aside[order_id] -= gone
            if gone == old:
                del self._aside[order_id], self._keys[order_id]
            return []
        if gone == 0:
            return []
        level = self._levels[key]
        level.orders[order_id] -= gone
        level.known -= gone
        if gone == old:
            del level.orders[order_id], self._keys[order_id]
        return [self._resize(event.ts_ns, key, -gone, gone if event.kind is OrderKind.EXECUTE else 0)]

    def _move(self, event: OrderEvent) -> list[LevelChange]:
        """Put an order at the price that the event names: a market order that walks the book is told this way."""
        if not event.remaining:
            raise FrameError(f"expected the price of order {event.order_id}, found {event.price}")
        order_id, key = event.order_id, self._keys[event.order_id]
        stays = event.size > 0 and event.kind is not OrderKind.DELETE
        was_aside = self._aside.pop(order_id, None)
        try:
            changes = self._place(event.ts_ns, order_id, event.side * event.price, event.size) if stays else []
        except (FrameError, CrossedBook):
            if was_aside is not None:
                self._aside[order_id] = was_aside
            raise
        if not stays:
            del self._keys[order_id]
        if was_aside is None:
            level = self._levels[key]
            gone = level.orders.pop(order_id)
            level.known -= gone
            changes.append(self._resize(event.ts_ns, key, -gone, 0))
        return changes

    def _nameless(self, event: OrderEvent) -> list[LevelChange]:
        """Take from the nameless size of the level; what is left of an order never seen does not say how much left it."""
        key = event.side * event.price
        level = self._levels.get(key)
        if self._partial and level is not None and level.size - level.known < event.size <= level.size:
            self._forget(level)
        if level is None or event.remaining or event.size > level.size - level.known:
            self.unknown += 1
            if event.remaining or event.kind is OrderKind.DELETE:
                self._early[event.order_id] = event.size if event.remaining else 0
                if len(self._early) > EARLY_MAX:
                    del self._early[next(iter(self._early))]
            return []
        return [self._resize(event.ts_ns, key, -event.size, event.size if event.kind is OrderKind.EXECUTE else 0)]

    def _forget(self, level: Level) -> None:
        for order_id in level.orders:
            del self._keys[order_id]
        level.orders.clear()
        level.known = 0

    def _settle(self, ts_ns: int) -> list[LevelChange]:
        """Let the orders kept aside rest that are no longer marketable."""
        changes = []
        for order_id in [one for one in self._aside if not self._crosses(self._keys[one])]:
            changes.append(self._rest(ts_ns, order_id, self._keys[order_id], self._aside.pop(order_id)))
        return changes

    def _crosses(self, key: int) -> bool:
        others = self._sorted[ASK if key > 0 else BID]
        return bool(others) and key + others[-1] >= 0

    def _resize(self, ts_ns: int, key: int, by: int, executed: int) -> LevelChange:
        """Change a level's size; a level without size is no level."""
        keys = self._sorted[BID if key > 0 else ASK]
        rank = len(keys) - bisect_right(keys, key)
        level = self._levels.get(key)
        old = level.size if level else 0
        if level is None:
            level = self._levels[key] = Level()
            insort(keys, key)
        level.size += by
        if level.size == 0:
            del self._levels[key]
            del keys[bisect_left(keys, key)]
        return LevelChange(ts_ns, key, old, old + by, executed, rank)


def check_event(event: OrderEvent) -> None:
    """Refuse an event that no book could hold."""
    least = 0 if event.remaining and event.kind is not OrderKind.ADD else 1
    if event.side not in (BID, ASK):
        raise FrameError(f"expected side 1 or -1, found {event.side}")
    if not 0 < event.price <= NUMBER_MAX:
        raise FrameError(f"expected a price of 1 to {NUMBER_MAX} ticks, found {event.price}")
    if not least <= event.size <= NUMBER_MAX:
        raise FrameError(f"expected a size of {least} to {NUMBER_MAX} lots, found {event.size}")


def describe(key: int) -> str:
    """Return a level's side and price in words."""
    return f"{'bid' if key > 0 else 'ask'} at {abs(key)} ticks"
