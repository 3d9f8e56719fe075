"""Rows of other programs' files, read in blocks: what every importer stands on.

Files come from elsewhere, so nothing about them is trusted: a block, a line, a message and the growth of what is
compressed are bounded, a bad row is a complaint, and the rest goes on.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Protocol

from alphapack.shell.captures import COMPLAINTS_A_FILE, CaptureError, Complaint
from alphapack.shell.inflation import gunzip

LINE_BYTES_MAX = 1 << 16
MESSAGE_LEVELS_MAX = 10_000
"""Levels of one message; what goes beyond follows as a difference."""
GROWTH_MAX = 250
"""Bytes that a byte of a compressed file may become; such data comes nowhere near."""
MEMBER_NAME_MAX = 1_024

INTEGER = rb"(0|[1-9]\d{0,17})"
DECIMAL = rb"((?:0|[1-9]\d{0,17})(?:\.\d{1,18})?)"
NAME = rb"((?:[!$&-+\--.0-9;->@A-Z\[\]-~]|[\xe3-\xe9][\x80-\xbf]{2}){1,40})"
"""A symbol's name in UTF-8 that stands in JSON as it is and that codecs take; some of Binance's are Chinese."""

_READ_BYTES = 1 << 18
_INFLATED_BYTES_MAX = 1 << 20
_GROWTH_FROM_BYTES = 1 << 26
_TIME_NS_MIN, _TIME_NS_MAX = 10**17, 4_102_444_800 * 10**9  # 1973 to 2100, as recordings have it.
_EXPONENT = re.compile(rb"(?<![^,])(\d+(?:\.\d+)?[eE][+-]?\d{1,2})(?![^,\r])")
_ZERO = re.compile(rb"[0.]*")
_TOO_LONG = b"<a line of more than %d bytes>" % LINE_BYTES_MAX
_GZIP, _ZIP, _DESCRIPTOR = b"\x1f\x8b", b"PK\x03\x04", b"PK\x07\x08"
_STORED, _DEFLATED = 0, 8

PLAIN, DIFFERENCE, SNAPSHOT, CLEARED, TRADE = range(5)
"""What a message is: whole as it stands; one that takes its place in a chain of updates; a book that is no longer known;
a trade without an id."""


Message = tuple[int, int, int, str, int, bytes, bytes]
"""What one or more rows of a file say: time of receipt in nanoseconds (0: that of the first message that has one), file, row,
symbol, kind, and the payload before and after the ids that it is given when its place is known. Tuples, because they merge at
the speed of C."""


class ForeignError(CaptureError):
    """A file of another program that cannot be read as it was named."""


class Damaged(Exception):
    """The rest of a file cannot be read."""


class Reader(Protocol):
    """One form of file."""

    venue: str

    def messages(self, source: "Source") -> Iterator[Message]:
        """Yield what the file says, in its order."""
        ...


class Source:
    """One file while it is read."""

    def __init__(self, path: Path, file: int, report: Callable[[Complaint], None]) -> None:
        self.path, self.file = path, file
        self.bytes_read = self.complaints = 0
        self._report = report
        self._previous_ns = 0

    def complain(self, row: int, reason: str) -> None:
        """Report what is wrong with a row, up to a bounded number a file, and count it."""
        self.complaints += 1
        if self.complaints <= COMPLAINTS_A_FILE:
            self._report(Complaint(str(self.path), row, reason))

    def refuse(self, row: int, expected: str, line: bytes) -> None:
        """Complain of a row that is left out."""
        self.complain(row, f"expected {expected}, found {line[:80].decode(errors='backslashreplace')!r}: left out")

    def in_order(self, row: int, receive_ns: int) -> int:
        """Return the time, or that of the row before where it runs back."""
        if receive_ns < self._previous_ns:
            back_ns = self._previous_ns - receive_ns
            self.complain(row, f"expected times that do not run back, found a step of {back_ns} ns back: set to the row before")
            return self._previous_ns
        self._previous_ns = receive_ns
        return receive_ns

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of a text; what cannot be read is a complaint, and what came before it is kept."""
        rest, skipping, row = b"", False, 0
        whole = True
        try:
            for block in self.blocks():
                lines = (rest + block).split(b"\n")
                rest = lines.pop()
                if skipping and lines:
                    lines[0], skipping = _TOO_LONG, False
                row += len(lines)
                yield from lines
                if skipping or len(rest) > LINE_BYTES_MAX:
                    rest, skipping = b"", True
        except Damaged as error:
            whole = False
            self.complain(row + 1, f"expected a whole file, found {error}: what came before is kept")
        if skipping:
            yield _TOO_LONG
        elif rest and whole and _compressed(self.path):
            yield rest
        elif rest:  # Half a number is a number too, so that a cut line cannot be told from a whole one.
            self.refuse(row + 1, "a newline at the end", rest)

    def rows(self) -> Iterator[bytes]:
        """Yield the file's bytes, and complain where they end too early."""
        try:
            yield from self.blocks()
        except Damaged as error:
            self.complain(0, f"expected a whole file, found {error}: what came before is kept")

    def blocks(self) -> Iterator[bytes]:
        """Yield the file's bytes: those of a gzip stream, or of the first file of a zip, inflated. Raises ``Damaged``."""
        with self.path.open("rb") as stream:
            start = stream.read(4)
            stream.seek(0)
            if start[:2] == _GZIP:
                yield from self._bounded(_gunzip(self._counted(stream)))
            elif start == _ZIP:
                member = _Member(stream)
                self.bytes_read = stream.tell()
                yield from self._bounded(member.blocks(self._counted(stream)))
            else:
                yield from self._counted(stream)

    def _counted(self, stream: BinaryIO) -> Iterator[bytes]:
        while block := stream.read(_READ_BYTES):
            self.bytes_read += len(block)
            yield block

    def _bounded(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        grown = 0
        for block in blocks:
            grown += len(block)
            if grown > _GROWTH_FROM_BYTES and grown > GROWTH_MAX * self.bytes_read:
                raise Damaged(f"one that grows to more than {GROWTH_MAX} times its size")
            yield block


def member_name(path: Path) -> str:
    """Return the name of the first file of a zip, or "" where there is none. Raises ``Damaged``."""
    with path.open("rb") as stream:
        return _Member(stream).name if stream.read(4) == _ZIP and stream.seek(0) == 0 else ""


def named(symbol: str, path: Path) -> str:
    """Return the symbol that a file's name or its user states, if it can be one."""
    if re.fullmatch(NAME, symbol.encode(errors="replace")) is None:
        raise ForeignError(f"expected the name of a symbol, such as BTCUSDT, for {path.name!r}, found {symbol[:60]!r}")
    return symbol


def receive_ns(time: int) -> int:
    """Return a time in milli- or microseconds in nanoseconds, 0 where it is neither."""
    ns = time * 1_000_000 if time < 10**13 else time * 1_000
    return ns if _TIME_NS_MIN <= ns <= _TIME_NS_MAX else 0


def is_time_ns(time: int) -> bool:
    """Tell whether a number is a time in nanoseconds that a recording may have."""
    return _TIME_NS_MIN <= time <= _TIME_NS_MAX


def without_exponents(line: bytes) -> bytes:
    """Write numbers such as 1e-7 as plain decimals; small ones are printed so."""
    return _EXPONENT.sub(lambda found: format(Decimal(found[1].decode()), "f").encode(), line)


class Book:
    """Rows that are one message: a whole book, or new quantities at some prices."""

    def __init__(self, whole: bool, row: int, receive_ns: int, event_us: bytes, name: bytes) -> None:
        self.whole, self.row, self.receive_ns, self.event_us, self.name = whole, row, receive_ns, event_us, name
        self.bids: list[bytes] = []
        self.asks: list[bytes] = []

    def __len__(self) -> int:
        return len(self.bids) + len(self.asks)

    def add(self, is_bid: bool, price: bytes, quantity: bytes) -> None:
        """Take a level; one with nothing in it is no part of a whole book."""
        if not (self.whole and _ZERO.fullmatch(quantity)):
            (self.bids if is_bid else self.asks).append(b'["%b","%b"]' % (price, quantity))

    def message(self, file: int) -> Message:
        """Return what the rows say."""
        bids, asks, name = b",".join(self.bids), b",".join(self.asks), self.name.decode()
        if self.whole:
            tail = b'"E":%b,"symbol":"%b","bids":[%b],"asks":[%b]}' % (self.event_us, self.name, bids, asks)
            return self.receive_ns, file, self.row, name, SNAPSHOT, b"{", tail
        head = b'{"e":"depthUpdate","E":%b,"s":"%b",' % (self.event_us, self.name)
        return self.receive_ns, file, self.row, name, DIFFERENCE, head, b'"b":[%b],"a":[%b]}' % (bids, asks)


def _compressed(path: Path) -> bool:
    """Tell a stream that proves itself whole from one that may have been cut anywhere."""
    with path.open("rb") as stream:
        start = stream.read(4)
    return start[:2] == _GZIP or start == _ZIP


def _gunzip(source: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from gunzip(source)
    except zlib.error as error:
        raise Damaged(f"a gzip stream that is damaged ({error})") from None
    except EOFError:
        raise Damaged("a gzip stream that was cut") from None


class _Member:
    """The first file of a zip, by the head before it: the directory at the end is missing where a download was cut."""

    def __init__(self, stream: BinaryIO) -> None:
        head = stream.read(30)
        if len(head) < 30 or head[:4] != _ZIP:
            raise Damaged("a zip without a whole head")
        number = [int.from_bytes(head[at : at + n], "little") for at, n in ((6, 2), (8, 2), (14, 4), (18, 4), (26, 2), (28, 2))]
        self._flags, self._method, self._crc, self._size, name_bytes, extra_bytes = number
        name, extra = stream.read(name_bytes), stream.read(extra_bytes)
        if name_bytes > MEMBER_NAME_MAX or len(name) < name_bytes or len(extra) < extra_bytes:
            raise Damaged("a zip without a whole head")
        self.name = name.decode(errors="backslashreplace")
        if self._flags & 1 or self._method not in (_STORED, _DEFLATED):
            raise Damaged("a zip that is encrypted, or packed by another method than deflate")
        while len(extra) >= 4:  # Sizes that need 64 bits stand in a field of their own: inflated, then packed.
            kind, size = (int.from_bytes(extra[at : at + 2], "little") for at in (0, 2))
            if kind == 1 and size >= 16 and self._size == 0xFFFFFFFF:
                self._size = int.from_bytes(extra[12:20], "little")
            extra = extra[4 + size :]
        if self._method == _STORED and self._flags & 8:
            raise Damaged("a zip that does not say how long its file is")

    def blocks(self, source: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the file's bytes and check them against its checksum."""
        crc, after = 0, b""
        if self._method == _STORED:
            left = self._size
            while left:
                data = next(source, b"")
                if not data:
                    raise Damaged("a zip that was cut")
                block, after = data[:left], data[left:]
                left -= len(block)
                crc = zlib.crc32(block, crc)
                yield block
        else:
            stream = zlib.decompressobj(wbits=-15)
            while not stream.eof:
                data = stream.unconsumed_tail or next(source, b"")
                if not data:
                    yield stream.flush()
                    raise Damaged("a zip that was cut")
                try:
                    block = stream.decompress(data, _INFLATED_BYTES_MAX)
                except zlib.error as error:
                    raise Damaged(f"a zip that is damaged ({error})") from None
                crc = zlib.crc32(block, crc)
                yield block
            after = stream.unused_data
        if len(after) < 24:
            after += next(source, b"")
        if self._flags & 8:
            start = 4 if after[:4] == _DESCRIPTOR else 0
            self._crc = int.from_bytes(after[start : start + 4], "little")
            after = after[start + 12 :]
        if crc != self._crc:
            raise Damaged("a zip whose checksum is another")
        if after.startswith(_ZIP) or (self._flags & 8 and after[8:].startswith(_ZIP)):  # Sizes may have 64 bits there.
            raise Damaged("more than one file in a zip, of which the first is taken")
