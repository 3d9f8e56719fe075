"""Quotes on two sides: what a sleeve is to show, and how its orders come to show it.

A sleeve that quotes bids for what it may yet buy and offers what it may yet sell, each an offset behind the best price of its side::

    bid = bid_lots - bought,   ask = ask_lots - sold

Each side is filled once: who quoted on would trade many times its size until the horizon, and no cost of a round trip would be its cost. A
side that has no lots of its own, as where nothing can be sold short, offers what the other one has brought. What is out never grows
beyond these, and nothing is called back for its size.

An order stands until the best price of its side has come further from it than twice the offset, or right up to it: who kept the same
distance all the time would be met by jumps alone, and lose the place in the queue for each.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from alphapack.domain.trading import Order
from alphapack.models.schedules import LOTS_MAX
from alphapack.models.sleeves import Sleeve

ORDERS_A_SIDE_MAX = 4
"""More than these become one the next time that their price changes."""


class Want(NamedTuple):
    """What one side of a quote is to show."""

    side: int
    ticks: int
    lots: int
    """0 or more."""
    slack: int = 0
    """Ticks by which the price of an order may be another."""


class Moves(NamedTuple):
    """What brings the orders of one side nearer to what is wanted."""

    cancel: list[int]
    replace: list[int]
    """To be moved to the price that is wanted."""
    send_lots: int


def wants(sleeve: Sleeve, offset_ticks: int, bid: int, ask: int) -> list[Want]:
    """Return both sides of a sleeve's quote, the bid first; a price that cannot be had has 0 lots."""
    traded = sleeve.filled_lots + sleeve.crossed_lots
    bought, sold = (traded + sleeve.lots) // 2, (traded - sleeve.lots) // 2
    sides = [
        Want(1, bid - offset_ticks, sleeve.bid_lots - bought if sleeve.bid_lots else -sleeve.lots, offset_ticks),
        Want(-1, ask + offset_ticks, sleeve.ask_lots - sold if sleeve.ask_lots else sleeve.lots, offset_ticks),
    ]
    return [want._replace(lots=max(0, want.lots) if 0 < want.ticks <= LOTS_MAX else 0) for want in sides]


def stands_in_way(side: int, ticks: int, takes: Mapping[int, int]) -> bool:
    """Tell whether an own order that takes would meet a quote; ``takes`` has the limits of such orders in ticks by their side."""
    limit = takes.get(-side)
    return limit is not None and side * (ticks - limit) >= 0


def follow(want: Want, orders: Sequence[Order], takes: Mapping[int, int]) -> Moves:
    """Return what is to be done on one side of a quote.

    Parameters
    ----------
    orders
        The open orders of that sleeve and side.
    takes
        Limits of own orders that take, or are to take, in ticks by their side: quotes that they would meet give way.
    """
    if not want.lots or stands_in_way(want.side, want.ticks, takes):
        return Moves([order.id for order in orders], [], 0)
    wrong = [order for order in orders if abs(order.ticks - want.ticks) > want.slack]
    if wrong:
        if len(orders) > 1:
            return Moves([order.id for order in orders], [], 0)
        return Moves([], [order.id for order in wrong if order.state == "working"], 0)
    if len(orders) >= ORDERS_A_SIDE_MAX or any(order.cancelling for order in orders):
        return Moves([], [], 0)
    return Moves([], [], max(0, want.lots - sum(order.left_lots for order in orders)))
