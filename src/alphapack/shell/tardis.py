"""Tables of Tardis (downloadable CSV): order books, trades and quotes, as Binance's own messages.

All times are microseconds since 1970: ``timestamp`` is the exchange's, ``local_timestamp`` that of receipt. Rows of a book
with equal times are one message. Numbers are kept as they stand.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from alphapack.shell import tables
from alphapack.shell.tables import DECIMAL, INTEGER, MESSAGE_LEVELS_MAX, NAME, PLAIN, Book, ForeignError, Message, Source, without_exponents

EXCHANGES = {"binance": "binance-spot", "binance-futures": "binance-usdm", "binance-delivery": "binance-coinm"}
NAMES = "incremental_book_L2, book_snapshot_5, book_snapshot_25, trades, quotes or book_ticker of Tardis"

_START = "exchange,symbol,timestamp,local_timestamp,"
_HEADERS = {
    _START + "is_snapshot,side,price,amount": "incremental_book_L2",
    _START + "id,side,price,amount": "trades",
    _START + "ask_amount,ask_price,bid_price,bid_amount": "quotes",
}
_SNAPSHOT = "asks[{0}].price,asks[{0}].amount,bids[{0}].price,bids[{0}].amount"
_HEADERS |= {_START + ",".join(_SNAPSHOT.format(level) for level in range(depth)): "book_snapshot" for depth in (5, 25)}
_SYMBOLS_MAX = 1_000
_ZERO = re.compile(rb"[0.]*")

Sides = tuple[dict[bytes, bytes], dict[bytes, bytes]]


class TardisReader:
    """One table of one exchange."""

    def __init__(self, exchange: str, kind: str, header: str) -> None:
        self.venue = EXCHANGES[exchange]
        self._kind, self._header = kind, header
        self._start = re.escape(exchange.encode()) + b"," + NAME + b"," + INTEGER + b"," + INTEGER + b","

    def messages(self, source: Source) -> Iterator[Message]:
        """Yield the messages that the rows are."""
        return {"incremental_book_L2": self._book, "book_snapshot": self._snapshots, "trades": self._trades, "quotes": self._quotes}[
            self._kind
        ](source)

    def _book(self, source: Source) -> Iterator[Message]:
        """Gather the rows of a message: they begin with the same bytes."""
        level_form = b"(bid|ask)," + DECIMAL + b"," + DECIMAL + rb"\r?"
        match = re.compile(b"(" + self._start + b"(true|false),)" + level_form).fullmatch
        match_level = re.compile(level_form).fullmatch
        held = b""
        book: Book | None = None
        for row, line in enumerate(source.lines(), 1):
            is_full = book is not None and len(book) >= MESSAGE_LEVELS_MAX
            if book is not None and not is_full and line.startswith(held) and (level := match_level(line, len(held))):
                side, price, amount = level.groups()
                book.add(side == b"bid", price, amount)
                continue
            found = match(line) or match(without_exponents(line))
            if found is None:
                self._refuse(source, row, line)
                continue
            head, name, event_us, local_us, whole, side, price, amount = found.groups()
            if book is None or head != held or is_full:
                if book is not None:
                    yield book.message(source.file)
                is_whole = whole == b"true" and head != held  # What a snapshot has beyond the bound follows as a difference.
                receive_ns = self._receive_ns(source, row, line, event_us, local_us)
                held = head
                book = Book(is_whole, row, receive_ns, event_us, name) if receive_ns else None
            if book is not None:
                book.add(side == b"bid", price, amount)
        if book is not None:
            yield book.message(source.file)

    def _snapshots(self, source: Source) -> Iterator[Message]:
        """Make a snapshot of a symbol's first row and differences of the others: a book goes LIVE by differences alone."""
        match = re.compile(self._start + b"((?:[0-9.]*,)*[0-9.]*)" + rb"\r?").fullmatch
        is_level = re.compile(DECIMAL + b"," + DECIMAL).fullmatch
        cells_expected = self._header.count(",") - 3
        books: dict[bytes, Sides] = {}
        for row, line in enumerate(source.lines(), 1):
            found = match(line) or match(without_exponents(line))
            cells = found[4].split(b",") if found else []
            pairs = [(cells[at], cells[at + 1]) for at in range(0, len(cells) - 1, 2)]
            if found is None or len(cells) != cells_expected or not all(is_level(b"%b,%b" % pair) for pair in pairs if pair != (b"", b"")):
                self._refuse(source, row, line)
                continue
            name, event_us, local_us, _ = found.groups()
            receive_ns = self._receive_ns(source, row, line, event_us, local_us)
            if not receive_ns:
                continue
            asks, bids = (dict(pair for pair in pairs[side::2] if not _ZERO.fullmatch(pair[1])) for side in (0, 1))
            before = books.get(name)
            if before is None and len(books) >= _SYMBOLS_MAX:
                source.refuse(row, f"at most {_SYMBOLS_MAX} symbols", line)
                continue
            books[name] = bids, asks
            book = Book(before is None, row, receive_ns, event_us, name)
            for now, was, is_bid in zip((bids, asks), before or ({}, {}), (True, False), strict=True):
                for price, amount in now.items():
                    if was.get(price) != amount:
                        book.add(is_bid, price, amount)
                for price in [price for price in was if price not in now]:
                    book.add(is_bid, price, b"0")
            yield book.message(source.file)

    def _trades(self, source: Source) -> Iterator[Message]:
        match = re.compile(self._start + INTEGER + b",(buy|sell)," + DECIMAL + b"," + DECIMAL + rb"\r?").fullmatch
        for row, line in enumerate(source.lines(), 1):
            found = match(line) or match(without_exponents(line))
            if found is None:
                self._refuse(source, row, line)
                continue
            name, event_us, local_us, trade, side, price, amount = found.groups()
            receive_ns = self._receive_ns(source, row, line, event_us, local_us)
            if receive_ns:
                payload = b'{"e":"trade","E":%b,"s":"%b","t":%b,"p":"%b","q":"%b","T":%b,"m":%b}' % (
                    *(event_us, name, trade, price, amount, event_us),
                    b"false" if side == b"buy" else b"true",
                )
                yield receive_ns, source.file, row, name.decode(), PLAIN, payload, b""

    def _quotes(self, source: Source) -> Iterator[Message]:
        """Yield tickers of the update 0: which one they belong to is not told, and 0 is held against no book."""
        match = re.compile(self._start + b",".join([DECIMAL] * 4) + rb"\r?").fullmatch
        for row, line in enumerate(source.lines(), 1):
            found = match(line) or match(without_exponents(line))
            if found is None:
                self._refuse(source, row, line)
                continue
            name, event_us, local_us, ask_quantity, ask, bid, bid_quantity = found.groups()
            receive_ns = self._receive_ns(source, row, line, event_us, local_us)
            if receive_ns:
                payload = b'{"e":"bookTicker","u":0,"s":"%b","b":"%b","B":"%b","a":"%b","A":"%b","T":%b,"E":%b}' % (
                    *(name, bid, bid_quantity, ask, ask_quantity),
                    *(event_us, event_us),
                )
                yield receive_ns, source.file, row, name.decode(), PLAIN, payload, b""

    def _refuse(self, source: Source, row: int, line: bytes) -> None:
        if row > 1 or line.strip().decode(errors="replace") != self._header:
            source.refuse(row, f"a row of {self.venue} with the columns of {self._kind}", line)

    def _receive_ns(self, source: Source, row: int, line: bytes, event_us: bytes, local_us: bytes) -> int:
        """Return the time of receipt, or 0 after a complaint of a time that is none."""
        local_ns = int(local_us) * 1_000
        if tables.is_time_ns(local_ns) and tables.is_time_ns(int(event_us) * 1_000):
            return source.in_order(row, local_ns)
        source.refuse(row, "times in microseconds since 1970", line)
        return 0


def open_tardis(path: Path, lines: list[bytes], venue: str | None) -> TardisReader | None:
    """Return the reader of a table by its header and its first row; None where the header is no table's."""
    header = lines[0].strip().decode(errors="replace") if lines else ""
    kind = _HEADERS.get(header)
    if kind is None:
        if header.startswith(_START):
            raise ForeignError(f"expected a table {NAMES} in {path.name}, found the columns {header[:160]!r}")
        return None
    if "liquidation" in path.name:  # They have the columns of trades.
        raise ForeignError(f"expected a table {NAMES}, found liquidations in {path.name}")
    if len(lines) < 2:
        raise ForeignError(f"expected rows after the header, found none in {path.name}")
    exchange = lines[1].partition(b",")[0].decode(errors="backslashreplace")
    if exchange not in EXCHANGES:
        known = ", ".join(EXCHANGES)
        raise ForeignError(
            f"expected one of the exchanges {known}, found {exchange[:40]!r} in {path.name}: no other form of messages is read"
        )
    if venue not in (None, EXCHANGES[exchange]):
        raise ForeignError(f"expected --venue {EXCHANGES[exchange]} or none for {path.name}, whose exchange is {exchange}, found {venue}")
    return TardisReader(exchange, kind, header)
