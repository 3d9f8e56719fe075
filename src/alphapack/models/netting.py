"""How the orders of one symbol follow what its sleeves lack and what their quotes are to show.

What sleeves lack is of one sign after they have crossed, and is ordered together: what is late is taken, the rest rests at the best price.
Orders that rest on the other side are called back before anything is sent. Quotes are orders of one sleeve alone, and stand on both sides;
where an order that takes would meet one, the quote gives way first, for no order may meet an own one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from alphapack.domain.market import NANOS_PER_S
from alphapack.domain.money import worth
from alphapack.domain.trading import Order, OrderKind, Terms
from alphapack.models import quoting
from alphapack.models.schedules import LOTS_MAX
from alphapack.models.sleeves import HOUSE, ORDERS_MAX, Sleeves

REST_NS = 10 * NANOS_PER_S
"""How long an order rests before what is left of it is taken."""
TAKE_BPS = 10.0
"""How far beyond the best price what is taken at once may go."""
QUOTE_ORDERS_MAX = ORDERS_MAX // 2
"""Open orders of a symbol beyond which no quote is sent: the rest is for those who must come in and out."""


class Send(NamedTuple):
    """An order that is to be sent for the decisions of ``shares``, signed lots of one side."""

    side: int
    ticks: int
    kind: OrderKind
    shares: dict[int, int]


class Moves(NamedTuple):
    """What brings the orders of a symbol nearer to what is wanted, to be done in this order."""

    cancel: list[int]
    replace: list[tuple[int, int]]
    """Orders, and the limits to which they move, in ticks."""
    send: list[Send]
    is_dust: bool
    """Whether what is lacking is too little to be ordered."""


def follow(
    sleeves: Sleeves,
    offsets: dict[int, int],
    orders: Sequence[Order],
    late: set[int],
    bid: int,
    ask: int,
    terms: Terms,
    now_ns: int,
) -> Moves:
    """Return what is to be done about the orders of a symbol.

    Parameters
    ----------
    sleeves
        What opposes has crossed.
    offsets
        How far behind the best prices the sleeves that quote stand, in ticks, by decision.
    orders
        All that are open, oldest first.
    late
        Decisions whose wants are taken at once.
    bid, ask
        Best prices in ticks.
    """
    net = sleeves.net()
    side = 1 if sum(net.values()) > 0 else -1
    moves = Moves([], [], [], False)
    quotes: dict[int, list[Order]] = {decision: [] for decision in offsets}
    takes: dict[int, int] = {}
    opposed = False
    for order in orders:
        if order.kind != "post_only":
            takes[order.side] = _wider(order.side, order.ticks, takes.get(order.side))
            continue
        quoted = next((decision for decision in order.shares if decision in quotes), None)
        if quoted is not None:
            quotes[quoted].append(order)
            continue
        best = bid if order.side > 0 else ask
        if net and order.side != side:
            opposed = True
            moves.cancel.append(order.id)
        elif now_ns - order.sent_ns >= REST_NS or late.intersection(order.shares) - {HOUSE}:
            moves.cancel.append(order.id)
        elif order.state == "working" and order.side * (best - order.ticks) > 0:
            moves.replace.append((order.id, best))
    limits: dict[OrderKind, int] = {"immediate": _taking(bid, ask, side), "post_only": bid if side > 0 else ask}
    groups = _groups(net, late, limits, terms) if net and not opposed else {}
    if "immediate" in groups:
        takes[side] = _wider(side, limits["immediate"], takes.get(side))
    in_way = any(quoting.stands_in_way(one.side, one.ticks, takes) for every in quotes.values() for one in every)
    moves.send.extend(Send(side, limits[kind], kind, shares) for kind, shares in groups.items() if kind != "immediate" or not in_way)
    for decision, offset_ticks in offsets.items():
        for want in quoting.wants(sleeves.by_decision[decision], offset_ticks, bid, ask):
            made = quoting.follow(want, [order for order in quotes[decision] if order.side == want.side], takes)
            moves.cancel.extend(made.cancel)
            moves.replace.extend((order, want.ticks) for order in made.replace)
            lots = min(made.send_lots, LOTS_MAX)
            is_enough = lots and worth(want.ticks, lots, terms.tick, terms.lot) >= terms.min_notional
            if is_enough and len(sleeves.orders) + len(moves.send) < QUOTE_ORDERS_MAX:
                moves.send.append(Send(want.side, want.ticks, "post_only", {decision: want.side * lots}))
    return moves._replace(is_dust=bool(net) and not opposed and not groups)


def _groups(net: dict[int, int], late: set[int], limits: dict[OrderKind, int], terms: Terms) -> dict[OrderKind, dict[int, int]]:
    """Return what is taken and what rests of the net, as far as it is enough to be ordered."""

    def is_enough(kind: OrderKind, shares: dict[int, int]) -> bool:
        return worth(limits[kind], abs(sum(shares.values())), terms.tick, terms.lot) >= terms.min_notional

    groups: dict[OrderKind, dict[int, int]] = {"immediate": {}, "post_only": {}}
    for decision, lots in net.items():
        groups["immediate" if decision in late else "post_only"][decision] = lots
    enough = {kind: shares for kind, shares in groups.items() if shares and is_enough(kind, shares)}
    return enough or ({"immediate": net} if net and is_enough("immediate", net) else {})


def _wider(side: int, ticks: int, known: int | None) -> int:
    """Return the limit of two that goes further on a side."""
    return ticks if known is None else side * max(side * ticks, side * known)


def _taking(bid: int, ask: int, side: int) -> int:
    """Return the limit of an order that takes at once, in ticks."""
    beyond = TAKE_BPS / 1e4
    return ask + int(ask * beyond) if side > 0 else max(1, bid - int(bid * beyond))
