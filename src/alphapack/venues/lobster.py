"""LOBSTER: NASDAQ order events of one day and the levels beside them, row by row.

A line of the message file is ``Time,Type,OrderId,Size,Price,Direction``; by the publisher's description:

1. Time is seconds after midnight; 2. Type: 1 a new limit order, 2 part of an order cancelled, 3 an order deleted, 4 a visible order
executed, 5 a hidden order executed, 6 a cross trade, 7 a halt of trading (price -1: quoting and trading stop, 0: quoting goes on,
1: all goes on); 3. Size is what came or left; 4. Price is dollars times 10,000; 5. Direction is that of the resting order: 1 a buy,
-1 a sell, so an execution with 1 was started by a seller.

Line n of the orderbook file is the book after line n of the message file, ``ask, size, bid, size`` for each level; an empty
level has the price 9999999999 (ask) or -9999999999 (bid). Files with a header and with CRLF are read too.
"""

import re

from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.models.orders import ASK, BID, OrderEvent, OrderKind

TICK = Step(1, 4)
LOT = Step(1, 0)
EMPTY_PRICE = 9_999_999_999

_KINDS = {
    b"1": OrderKind.ADD,
    b"2": OrderKind.REDUCE,
    b"3": OrderKind.DELETE,
    b"4": OrderKind.EXECUTE,
    b"5": OrderKind.EXECUTE_HIDDEN,
}  # 2
_NO_ORDER = (b"6", b"7")
"""An auction's trade and a halt: they are of no order and change no level."""
_MESSAGE = re.compile(rb"(\d{1,5})(?:\.(\d{1,9}))?,([1-7]),(\d{1,18}),(\d{1,15}),(-?\d{1,15}),(-?1)(?:,.{0,64})?\r?\n?")
_LEVELS = re.compile(rb"-?\d{1,15}(?:,-?\d{1,15})*\r?\n?")
_HEADERS = (b"Time,", b"BestAsk,", b"AskPrice")


def decode(line: bytes, midnight_ns: int) -> OrderEvent | None:
    """Return the event of one line of a message file, None for a header, an auction's trade or a halt.

    ``midnight_ns`` is when the day began where the exchange is, in nanoseconds since 1970.
    """
    if line.startswith(_HEADERS):
        return None
    found = _MESSAGE.fullmatch(line)
    if found is None:
        raise FrameError(f"expected Time,Type,OrderId,Size,Price,Direction, found {line[:60]!r}")
    seconds, fraction, kind, order_id, size, price, side = found.groups()
    if kind in _NO_ORDER:
        return None
    ts_ns = midnight_ns + int(seconds) * 10**9 + int((fraction or b"0").ljust(9, b"0"))  # 1
    if int(price) <= 0 or int(size) == 0:
        raise FrameError(f"expected a price and a size above zero, found {line[:60]!r}")
    return OrderEvent(ts_ns, _KINDS[kind], int(order_id), BID if side == b"1" else ASK, int(price), int(size))


def levels(line: bytes) -> list[tuple[int, int, int]] | None:
    """Return the levels of one line of an orderbook file as (side, ticks, lots), as they stand there; None for a header."""
    if line.startswith(_HEADERS):
        return None
    if _LEVELS.fullmatch(line) is None:
        raise FrameError(f"expected ask,size,bid,size for each level, found {line[:60]!r}")
    numbers = [int(number) for number in line.split(b",")]
    if len(numbers) % 4:
        raise FrameError(f"expected four numbers for each level, found {len(numbers)}")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    found = [(BID if i % 2 else ASK, price, size) for i, (price, size) in enumerate(pairs) if abs(price) != EMPTY_PRICE]
    if any(price <= 0 or size <= 0 for _, price, size in found):
        raise FrameError(f"expected prices and sizes above zero, found {line[:60]!r}")
    return found
