"""Bitstamp: the raw order events of its first public feed, one ``<ms> <channel> <json>`` a line.

What the venue says, as recordings show it:

1. ``order_created``: a new order, ``amount`` its size; ``order_type`` 0 buys, 1 sells. A marketable order is shown too, before it
   is matched, and a market order bears a far price.
2. ``order_changed``: ``amount`` is what is left. At the same price it was executed in part. At another price it moved: a market
   order that walks the book is given the next price before each match, and a buying one, whose budget is quote currency, also
   a new amount.
3. ``order_deleted``: with an amount above zero that much was cancelled, with 0 the order was filled.
4. ``trade``: both orders' events come first, the print some ten milliseconds later with the same amount and the resting
   order's price. It names neither order nor side. Its numbers are floats, so they are rounded to the grid.
5. ``order_book``: the best 20 levels, which lag the events.
"""

import msgspec

from alphapack.domain.events import FrameError
from alphapack.domain.market import NANOS_PER_MS, Step
from alphapack.models import steps
from alphapack.models.orders import ASK, BID, NUMBER_MAX, OrderEvent, OrderKind

TICK = Step(1, 2)
LOT = Step(1, 8)
MS_MAX = 9 * 10**12
"""The year 2255: in nanoseconds it still fits an int64."""
BOOK_LEVELS_MAX = 1_000


class Print(msgspec.Struct, frozen=True, gc=False):
    """One trade: ``price`` in ticks, ``size`` in lots."""

    ts_ns: int
    trade_id: int
    price: int
    size: int


class Levels(msgspec.Struct, frozen=True):
    """The best levels as the venue lists them, best first, as (ticks, lots)."""

    ts_ns: int
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


class _Order(msgspec.Struct):
    id: int
    price: msgspec.Raw
    amount: msgspec.Raw
    order_type: int


class _Trade(msgspec.Struct):
    id: int
    price: float
    amount: float


class _Book(msgspec.Struct):
    bids: msgspec.Raw
    asks: msgspec.Raw


_order = msgspec.json.Decoder(_Order)
_trade = msgspec.json.Decoder(_Trade)
_book = msgspec.json.Decoder(_Book)


def decode(line: bytes) -> OrderEvent | Print | Levels:
    """Return what one line says."""
    ms, _, rest = line.partition(b" ")
    channel, _, body = rest.partition(b" ")
    if not ms.isdigit() or len(ms) > 13 or int(ms) > MS_MAX:
        raise FrameError(f"expected milliseconds, a channel and JSON, found {line[:60]!r}")
    ts_ns = int(ms) * NANOS_PER_MS
    try:
        if channel == b"trade":
            trade = _trade.decode(body)
            return Print(ts_ns, trade.id, rounded(trade.price, TICK), rounded(trade.amount, LOT))
        if channel == b"order_book":
            book = _book.decode(body)
            return Levels(ts_ns, _side(bytes(book.bids)), _side(bytes(book.asks)))
        wire = _order.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"expected a Bitstamp message, found {line[:60]!r}: {error}") from None
    if wire.order_type not in (0, 1):
        raise FrameError(f"expected order_type 0 or 1, found {wire.order_type}")
    side = ASK if wire.order_type else BID
    price, size = on_grid(bytes(wire.price), TICK), on_grid(bytes(wire.amount), LOT)
    match channel:
        case b"order_created":  # 1
            return OrderEvent(ts_ns, OrderKind.ADD, wire.id, side, price, size)
        case b"order_changed":  # 2
            return OrderEvent(ts_ns, OrderKind.EXECUTE, wire.id, side, price, size, remaining=True)
        case b"order_deleted" if size:  # 3
            return OrderEvent(ts_ns, OrderKind.DELETE, wire.id, side, price, size)
        case b"order_deleted":  # 3
            return OrderEvent(ts_ns, OrderKind.EXECUTE, wire.id, side, price, 0, remaining=True)
    raise FrameError(f"expected order_created, order_changed, order_deleted, trade or order_book, found {channel[:40]!r}")


def _side(raw: bytes) -> list[tuple[int, int]]:
    pairs = steps.pairs(raw)
    if len(pairs) > BOOK_LEVELS_MAX:
        raise FrameError(f"expected at most {BOOK_LEVELS_MAX} levels a side, found {len(pairs)}")
    levels = [(steps.multiple(price, TICK), steps.multiple(size, LOT)) for price, size in pairs]
    found = [(price, size) for price, size in levels if price is not None and size is not None]
    if len(found) < len(levels):
        raise FrameError(f"expected prices in steps of {TICK} and amounts in steps of {LOT}, found {raw[:60]!r}")
    return found


def on_grid(raw: bytes, step: Step) -> int:
    """Return a quoted decimal in steps; one that lies between two steps is refused."""
    found = steps.multiple(steps.single(raw), step)
    if found is None:
        raise FrameError(f"expected a number in steps of {step}, found {raw[:40]!r}")
    return found


def rounded(value: float, step: Step) -> int:
    """Return the nearest number of steps to a float above zero."""
    scale: float = 10**step.decimals / step.units
    if not 0.0 < value <= NUMBER_MAX / scale:
        raise FrameError(f"expected a number above zero in steps of {step}, found {value}")
    return round(value * scale)
