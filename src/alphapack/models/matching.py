"""One symbol's paper book: simulated orders matched against what the real book displays and the tape prints.

Rules, queue models and their formulas stand in docs/MATCHING.md. An order is here from the moment it meets the exchange's book;
latencies, fees and its life before and after are the exchange's (``services.exchange``).
"""

from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np

from alphapack.arrays import Int64Array1D, Int64Array2D
from alphapack.domain.trading import Queue
from alphapack.kernels import marks as m
from alphapack.kernels import matching as k
from alphapack.kernels import wire
from alphapack.models.book import FeatureBook

Cause = Literal["swept", "printed", "through", "crossed"]
"""Why an order was filled: it took what was displayed; a print at its price went beyond its queue; a print at a worse price had to
pass it; the other side's quotes came to its price."""
Refusal = Literal["post_only", "self_trade", "full"]

ORDERS_FIRST, ORDERS_MAX = 64, 4_096
POWER_MAX = 16.0
"""Beyond it, shares of the queue could leave the floats."""
STEPS_MAX = 1 << 62

_CAUSES: tuple[Cause, ...] = get_args(Cause)
_QUEUES: dict[Queue, int] = {"risk_averse": k.RISK_AVERSE, "optimistic": k.OPTIMISTIC, "power": k.POWER, "log": k.LOG}
_REASONS: dict[Refusal, str] = {
    "post_only": "expected an order that rests, it would match at once",
    "self_trade": "expected no own order to match with, there is one at or through the limit",
    "full": f"expected at most {ORDERS_MAX} orders of a symbol, they are there already",
}


class Refused(Exception):
    """An order that the book does not take; ``refusal`` names the rule, the message explains it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(_REASONS[refusal])
        self.refusal = refusal


class Match(NamedTuple):
    """A part of an order that is filled, and the evidence for it: prices in ticks, quantities in lots."""

    order: int
    ticks: int
    lots: int
    maker: bool
    cause: Cause
    seen_ticks: int
    """Price of the displayed level or of the print that it is made against."""
    seen_lots: int
    """Quantity of that level or print."""
    available: int
    """What of that quantity was left for this order: of a level, less what we took and what prints say is gone; of a print, what went
    beyond its queue."""


class Resting(NamedTuple):
    """An order in the book."""

    order: int
    key: int
    """+ticks of a buy, -ticks of a sale."""
    left: int
    queue_ahead: int
    since_ns: int


class _Saved(msgspec.Struct, array_like=True):
    queue: Queue
    power: float
    head: bytes
    taken: bytes
    orders: bytes


class PaperBook:
    """Simulated orders of one symbol, in the ticks and lots of its ``FeatureBook``.

    ``queue`` says where cancels at the price of a resting order are believed to happen; ``power``, in (0, 16], is the exponent of
    the model of that name.
    """

    def __init__(self, queue: Queue = "risk_averse", power: float = 3.0) -> None:
        if queue not in _QUEUES:
            raise ValueError(f"expected a queue model of {', '.join(_QUEUES)}, found {queue!r}")
        if not 0.0 < power <= POWER_MAX:
            raise ValueError(f"expected a power above 0 and at most {POWER_MAX:g}, found {power}")
        self.queue, self.power = queue, float(power)
        self._lay_out(ORDERS_FIRST)
        self._state[k.QUEUE] = _QUEUES[queue]

    def _lay_out(self, room: int) -> None:
        self._room = room
        self._state: Int64Array1D = np.zeros(k.FIRST + k.ORDER * room, np.int64)
        self._work: Int64Array1D = np.zeros(k.MATCH * (2 * room + k.TAKEN_MAX) + 2 * k.REACH_MAX, np.int64)

    def _make_room(self) -> None:
        old = self._state
        self._lay_out(2 * self._room)
        self._state[: len(old)] = old

    # What happens to it

    def place(
        self, book: FeatureBook, ts_ns: int, order: int, key: int, lots: int, *, immediate: bool = False, post_only: bool = False
    ) -> list[Match]:
        """Let an order meet the book: it takes what is displayed at or better than its limit, and the rest of it rests.

        Parameters
        ----------
        ts_ns : int
            Engine time.
        order : int
            Its id, not that of an order here.
        key : int
            Its limit: +ticks of a buy, -ticks of a sale.
        lots : int
            Its quantity, 1 to 2^52.
        immediate : bool
            What does not match at once is dropped.
        post_only : bool
            Nothing may match at once: no level may be displayed at or through the limit, even one that is printed or taken already.

        Returns
        -------
        list of Match
            What it took, best price first. What is left of it then is ``left``.

        Raises
        ------
        Refused
            ``post_only``: it would match at once. ``self_trade``: an own order of the other side is at or through its limit.
            ``full``: ``ORDERS_MAX`` orders are here. Nothing has changed then.
        """
        assert not (immediate and post_only), "an order that may not rest must be free to match"
        assert 0 < abs(key) <= wire.LARGEST and 0 < lots <= wire.LARGEST, f"expected ticks and lots of 1 to 2^52, found {key} and {lots}"
        assert self._find(order) is None, f"order {order} is here already"
        book.roll(ts_ns)
        k.renew(book.levels, self._state)
        if k.meets_own(key, self._state):
            raise Refused("self_trade")
        if post_only and k.reach(key, book.levels, self._work) > 0:
            raise Refused("post_only")
        if len(self) == self._room:
            if self._room == ORDERS_MAX:
                raise Refused("full")
            self._make_room()
        at, state = k.insert(key, self._state), self._state
        shown = k.displayed(key, book.levels)
        state[at + k.ID], state[at + k.KEY], state[at + k.LEFT] = order, key, lots
        state[at + k.AHEAD] = state[at + k.SHOWN] = shown
        state[at + k.SINCE], state[at + k.TRADE], state[at + k.DEPTH] = ts_ns, book.trades_taken, book.marks[m.DEPTHS_SEEN]
        n = k.sweep(at, 0, book.marks, book.levels, state, self._work)
        state[at + k.RESTS] = 1
        if immediate:
            state[at + k.LEFT] = 0
        k.compact(state)
        return self._matches(n)

    def cancel(self, order: int) -> int:
        """Take an order out; returns the lots that were left of it, 0 for one that is not here."""
        at = self._find(order)
        if at is None:
            return 0
        left = int(self._state[at + k.LEFT])
        self._state[at + k.LEFT] = 0
        k.compact(self._state)
        return left

    def on_message(self, book: FeatureBook, ts_ns: int) -> list[Match]:
        """Bring every order up to date with the message that ``book`` has just taken: a change of its levels, or one trade.

        Due after every message while orders are here. Of several trades since the last call the newest alone is known, and fills.
        """
        n = k.follow(ts_ns, self.power, book.marks, book.reals, book.levels, self._state, self._work)
        return self._matches(n) if n else []

    def pass_over(self, book: FeatureBook) -> None:
        """Let a message pass that ``on_message`` must not see, for the book is not proven: what it printed never fills an order."""
        self._state[k.TRADES_SEEN] = book.trades_taken

    def clear(self) -> list[Resting]:
        """Forget all orders and all that was taken, as is due when the real book begins anew; returns what was there."""
        there = self.resting()
        self._state[k.ORDERS] = self._state[k.TAKEN_N] = 0
        return there

    def refine(self, by_price: int, by_lot: int) -> None:
        """Count everything in finer steps, of which the old ones are so many; due as soon as the ``FeatureBook`` counts in them.

        Raises ``ValueError`` where quantities or prices are too much to count then; nothing is changed.
        """
        rows = self._rows()
        entries = rows[:, k.ENTRIES :].reshape(len(rows), k.ENTRIES_MAX, k.ENTRY)
        taken = self._state[k.TAKEN : k.TAKEN + k.TAKEN_WIDTH * self._state[k.TAKEN_N]].reshape(-1, k.TAKEN_WIDTH)
        prices = [rows[:, k.KEY], taken[:, 0]]
        quantities = [rows[:, k.LEFT : k.SHOWN + 1], taken[:, 1:], entries[:, :, 1:]]
        for by, numbers in ((by_price, prices), (by_lot, quantities)):
            largest = max(int(np.abs(one).max(initial=0)) for one in numbers)
            if largest * by > STEPS_MAX:
                raise ValueError(f"expected steps in which {largest} old ones can be counted, found them {by} times finer")
        for one in prices:
            one *= by_price
        for one in quantities:
            one *= by_lot

    # What is there

    def __len__(self) -> int:
        return int(self._state[k.ORDERS])

    @property
    def orders(self) -> list[int]:
        """Ids of the orders here, in their priority: buys before sales, the better price first, then the older."""
        return [int(order) for order in self._rows()[:, k.ID]]

    def resting(self) -> list[Resting]:
        """Return the orders here, in their priority."""
        return [Resting(*row) for row in self._rows()[:, [k.ID, k.KEY, k.LEFT, k.AHEAD, k.SINCE]].tolist()]

    def left(self, order: int) -> int:
        """Return the lots that are left of an order, 0 for one that is not here."""
        at = self._find(order)
        return 0 if at is None else int(self._state[at + k.LEFT])

    def queue_ahead(self, order: int) -> int:
        """Return the displayed lots that trade before an order, own ones not counted. Raises ``KeyError`` for one that is not here."""
        at = self._find(order)
        if at is None:
            raise KeyError(f"expected one of the orders {self.orders}, found {order}")
        return int(self._state[at + k.AHEAD])

    # State

    def save(self) -> bytes:
        """Return everything that later matches depend on."""
        state = self._state
        taken = state[k.TAKEN : k.TAKEN + k.TAKEN_WIDTH * state[k.TAKEN_N]]
        saved = _Saved(self.queue, self.power, state[: k.TAKEN].tobytes(), taken.tobytes(), self._rows().tobytes())
        return msgspec.msgpack.encode(saved)

    def load(self, state: bytes | memoryview) -> None:
        """Replace everything, the queue model too, by what ``save`` returned."""
        saved = msgspec.msgpack.decode(state, type=_Saved)
        head, taken, rows = (np.frombuffer(part, np.int64) for part in (saved.head, saved.taken, saved.orders))
        room = ORDERS_FIRST
        while k.ORDER * room < len(rows):
            room *= 2
        self.queue, self.power = saved.queue, saved.power
        self._lay_out(room)
        for at, part in ((0, head), (k.TAKEN, taken), (k.FIRST, rows)):
            self._state[at : at + len(part)] = part

    # Inside

    def _rows(self) -> Int64Array2D:
        n = len(self)
        return self._state[k.FIRST : k.FIRST + k.ORDER * n].reshape(n, k.ORDER)

    def _find(self, order: int) -> int | None:
        found = np.flatnonzero(self._rows()[:, k.ID] == order)
        return k.FIRST + k.ORDER * int(found[0]) if len(found) else None

    def _matches(self, n: int) -> list[Match]:
        return [
            Match(order, ticks, lots, cause != k.SWEPT, _CAUSES[cause], seen_ticks, seen_lots, available)
            for order, ticks, lots, cause, seen_ticks, seen_lots, available in self._work[: k.MATCH * n].reshape(n, k.MATCH).tolist()
        ]


def warm() -> None:
    """Compile, or load from the cache, every kernel a paper book needs."""
    book, paper = FeatureBook(None, None, None), PaperBook()
    book.snapshot(b'[["10.0","1.0"]]', b'[["11.0","2.5"]]')
    paper.place(book, 0, 1, 1, 1, post_only=True)
    paper.on_message(book, 1)
