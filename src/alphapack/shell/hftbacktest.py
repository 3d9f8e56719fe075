"""Event files of hftbacktest (npz, array ``data``): depth and trades of one symbol, as Binance's own messages.

An event has its kind in the lowest byte of ``ev`` and flags above it. Those with LOCAL_EVENT are taken, at ``local_ts``:
the others are the exchange's own view of the same. Times are nanoseconds. Prices and quantities are floats and become the
shortest decimals that read back as them. Consecutive rows of the book with equal times are one message. A snapshot is a
whole book. A clear without one leaves a book of which nothing is known, so the chain of updates breaks there.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np

from alphapack.shell import tables
from alphapack.shell.tables import CLEARED, MESSAGE_LEVELS_MAX, TRADE, Book, Damaged, ForeignError, Message, Source

NAMES = "NAME.npz of hftbacktest with the array data"
MEMBER = "data.npy"

DEPTH_EVENT, TRADE_EVENT, DEPTH_CLEAR_EVENT, DEPTH_SNAPSHOT_EVENT = 1, 2, 3, 4
LOCAL_EVENT, BUY_EVENT, SELL_EVENT = 1 << 30, 1 << 29, 1 << 28
EVENT = np.dtype(
    [
        *(("ev", "<u8"), ("exch_ts", "<i8"), ("local_ts", "<i8"), ("px", "<f8"), ("qty", "<f8")),
        *(("order_id", "<u8"), ("ival", "<i8"), ("fval", "<f8")),
    ]
)
_KIND = 0xFF
_HEADER_BYTES_MAX = 10_000
_SMALLEST, _LARGEST = 1e-12, 1e15
_TEXTS_MAX = 1 << 16
# Compared, never evaluated: it is a text of Python.
_HEADER = re.compile(
    rb"\{'descr':%b,'fortran_order':(?:False|True),'shape':\((\d{1,18}),\),?\}" % re.escape("".join(str(EVENT.descr).split())).encode()
)
_NAME = re.compile(r"(?:binance-[a-z]+_)?([A-Za-z0-9]+(?:_(?:PERP|perp|\d{6}(?!\d)))?)(?:[_-].*)?")


class EventsReader:
    """One file of one symbol."""

    def __init__(self, venue: str, symbol: str) -> None:
        self.venue = venue
        self._symbol = symbol
        self._texts: dict[float, bytes] = {}

    def messages(self, source: Source) -> Iterator[Message]:
        """Yield the messages that the events are."""
        file, symbol, name = source.file, self._symbol, self._symbol.encode()
        held: tuple[bool, int, int] | None = None
        book: Book | None = None
        dated = False
        for row, (ev, event_ns, local_ns, price, quantity) in _events(source):
            kind = ev & _KIND
            if not ev & LOCAL_EVENT and kind <= DEPTH_SNAPSHOT_EVENT:
                continue
            fault = _fault(kind, ev, event_ns, local_ns, price, quantity, dated=dated)
            if fault is not None:
                source.complain(row, f"expected {fault}: left out")
                continue
            dated = dated or local_ns > 0
            event_us = b"%d" % (event_ns // 1_000)
            key = None if kind == TRADE_EVENT else (kind != DEPTH_EVENT, event_ns, local_ns)
            if book is not None and (key != held or len(book) >= MESSAGE_LEVELS_MAX):
                yield self._message(source, book)
                book = None
            if key is None:
                head = b'{"e":"trade","E":%b,"s":"%b",' % (event_us, name)
                maker = b"false" if ev & BUY_EVENT else b"true"
                tail = b'"p":"%b","q":"%b","T":%b,"m":%b}' % (self._text(price), self._text(quantity), event_us, maker)
                yield source.in_order(row, local_ns), file, row, symbol, TRADE, head, tail
            elif book is None:
                whole = key[0] and key != held  # What a snapshot has beyond the bound follows as a difference.
                book = Book(whole, row, source.in_order(row, local_ns), event_us, name)
            held = key
            if book is not None and kind != DEPTH_CLEAR_EVENT:
                book.add(ev & BUY_EVENT != 0, self._text(price), self._text(quantity))
        if book is not None:
            yield self._message(source, book)

    def _message(self, source: Source, book: Book) -> Message:
        """Return what rows say of the book; one that was cleared, and of which nothing came, is not known."""
        if len(book) or not book.whole:
            return book.message(source.file)
        source.complain(book.row, "expected a snapshot after the book was cleared, found none: nothing is known of it until one comes")
        return book.receive_ns, source.file, book.row, self._symbol, CLEARED, b"", b""

    def _text(self, number: float) -> bytes:
        """Return the shortest decimal of a float."""
        text = self._texts.get(number)
        if text is None:
            if len(self._texts) >= _TEXTS_MAX:
                self._texts.clear()
            text = self._texts[number] = format(Decimal(repr(abs(number))), "f").removesuffix(".0").encode()
        return text


def open_events(path: Path, member: str, venue: str | None, symbol: str | None) -> EventsReader | None:
    """Return the reader of an event file; None where the first file in the zip is no array."""
    if not member.endswith(".npy"):
        return None
    if member != MEMBER:
        raise ForeignError(f"expected {NAMES}, found the array {member.removesuffix('.npy')[:60]!r} first in {path.name}")
    try:
        _header(_Blocks(Source(path, 0, lambda _: None).blocks()))
    except Damaged as error:
        raise ForeignError(f"expected {NAMES}, found {error} in {path.name}") from None
    if venue not in ("binance-spot", "binance-usdm", "binance-coinm"):
        stated = "none" if venue is None else venue
        raise ForeignError(
            f"expected --venue binance-spot, binance-usdm or binance-coinm for {path.name}, which names none, found {stated}"
        )
    found = _NAME.fullmatch(path.name.removesuffix(".npz"))
    if symbol is None and found is None:
        raise ForeignError(f"expected a name such as BTCUSDT_20240808.npz, or --symbols, found {path.name!r}")
    return EventsReader(venue, tables.named((symbol or (found[1] if found else "")).upper(), path))


class _Blocks:
    """Bytes by number, from blocks."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, b""

    def take(self, count: int) -> bytes:
        """Return so many bytes, or fewer at the end."""
        while len(self._rest) < count and (block := next(self._blocks, b"")):
            self._rest += block
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def rest(self) -> Iterator[bytes]:
        """Yield what is left, in blocks."""
        yield self._rest
        yield from self._blocks


def _header(blocks: _Blocks) -> int:
    """Read an array's header and return how many events follow. Raises ``Damaged``."""
    start = blocks.take(8)
    length = int.from_bytes(blocks.take(4 if start[6:7] > b"\1" else 2), "little")
    if start[:6] != b"\x93NUMPY" or length > _HEADER_BYTES_MAX:
        raise Damaged("no header of an array")
    header = b"".join(blocks.take(length).split())
    found = _HEADER.fullmatch(header)
    if found is None:
        raise Damaged(f"no array of events ({', '.join(EVENT.names or ())}) in one dimension but {header[:300].decode(errors='replace')}")
    return int(found[1])


def _events(source: Source) -> Iterator[tuple[int, tuple[int, int, int, float, float]]]:
    """Yield row numbers from 1, and the fields of each event that are read."""
    blocks = _Blocks(source.rows())
    try:
        expected = _header(blocks)
    except Damaged as error:
        source.complain(0, f"expected {NAMES}, found {error}")
        return
    row, rest = 0, b""
    for block in blocks.rest():
        data = rest + block
        count = max(0, min(len(data) // EVENT.itemsize, expected - row))
        rest = data[count * EVENT.itemsize :] if row + count < expected else b""
        if not count:
            continue
        events = np.frombuffer(data, EVENT, count)
        columns = [events[field].tolist() for field in ("ev", "exch_ts", "local_ts", "px", "qty")]
        yield from enumerate(zip(*columns, strict=True), row + 1)
        row += count
    if row < expected:
        source.complain(row, f"expected {expected} events, found {row}")


def _fault(kind: int, ev: int, event_ns: int, local_ns: int, price: float, quantity: float, *, dated: bool) -> str | None:
    """Return what an event should have been, or None where it is one."""
    if not DEPTH_EVENT <= kind <= DEPTH_SNAPSHOT_EVENT:
        return f"an event of depth or of a trade (1 to 4), found {kind}"
    if kind == DEPTH_CLEAR_EVENT:
        price = quantity = 1.0
    elif not ev & (BUY_EVENT | SELL_EVENT):
        return "the side of an event, found none"
    if not (_SMALLEST <= price < _LARGEST and (quantity == 0 or _SMALLEST <= quantity < _LARGEST)):
        return f"a price and a quantity, found {price} and {quantity}"
    undated = not dated and kind in (DEPTH_CLEAR_EVENT, DEPTH_SNAPSHOT_EVENT) and local_ns == event_ns == 0
    if not undated and not (tables.is_time_ns(local_ns) and tables.is_time_ns(event_ns)):
        return f"times in nanoseconds since 1970, found {event_ns} and {local_ns}"
    return None
