"""Files of other programs as recordings: their rows become Binance's own messages, merged by time of receipt.

What a file does not have, its messages are given here, where their place among all is known: ids of updates, and of trades
without any. An update's id is the microsecond of its receipt, or one more than the id before, so that each follows the one
before by every market's rule, and files that are converted one by one still fit together.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from alphapack.shell.binance_vision import NAMES as VISION_NAMES
from alphapack.shell.binance_vision import open_vision
from alphapack.shell.captures import Complaint, Line
from alphapack.shell.hftbacktest import NAMES as EVENTS_NAMES
from alphapack.shell.hftbacktest import open_events
from alphapack.shell.tables import (
    CLEARED,
    LINE_BYTES_MAX,
    PLAIN,
    SNAPSHOT,
    TRADE,
    Damaged,
    ForeignError,
    Message,
    Reader,
    Source,
    member_name,
)
from alphapack.shell.tardis import NAMES as TARDIS_NAMES
from alphapack.shell.tardis import open_tardis

_SUFFIXES = (".csv", ".csv.gz", ".zip", ".npz")
_UNDATED_MAX = 1_000
"""Messages without a time that wait for the first one that has one."""


class Foreign:
    """Files of other programs read as one, in bounded memory; each iteration begins at the start."""

    def __init__(self, paths: Sequence[Path], readers: Sequence[Reader], report: Callable[[Complaint], None]) -> None:
        """Read each file by its reader; ``report`` is told of what is wrong, a bounded number a file."""
        self.paths = tuple(paths)
        self.bytes_total = sum(path.stat().st_size for path in paths)
        self._readers, self._report = tuple(readers), report
        self._restart()

    def _restart(self) -> None:
        self._sources = [Source(path, file, self._report) for file, path in enumerate(self.paths)]
        self._chains: dict[tuple[str, str], _Chain] = {}
        self._ended: set[int] = set()

    @property
    def bytes_read(self) -> int:
        """Bytes of the files read so far."""
        return sum(source.bytes_read for source in self._sources)

    @property
    def complaints(self) -> int:
        """How many complaints this iteration has made, reported or not."""
        return sum(source.complaints for source in self._sources)

    def __iter__(self) -> Iterator[Line]:
        """Yield the messages of all files, merged by (receive time, file order, row)."""
        self._restart()
        undated: list[Message] = []
        files = [self._messages(source) for source in self._sources]
        for message in files[0] if len(files) == 1 else heapq.merge(*files):
            if message[0] == 0:
                if len(undated) < _UNDATED_MAX:
                    undated.append(message)
                else:
                    self._sources[message[1]].complain(message[2], f"expected {_UNDATED_MAX} messages without a time at most: left out")
                continue
            if undated:
                for early in undated:
                    if (line := self._line((message[0], *early[1:]))) is not None:
                        yield line
                undated = []
            if (line := self._line(message)) is not None:
                yield line
        for _, file, row, *_ in undated:
            self._sources[file].complain(row, "expected a message with a time beside one without, found none: left out")

    def _messages(self, source: Source) -> Iterator[Message]:
        yield from self._readers[source.file].messages(source)
        self._ended.add(source.file)

    def _line(self, message: Message) -> Line | None:
        """Return what is recorded of a message, with the ids of its place; None where nothing is."""
        receive_ns, file, row, symbol, kind, head, tail = message
        venue = self._readers[file].venue
        if kind == PLAIN:
            return Line(receive_ns, venue, symbol, head, file, row)
        chain = self._chains.get((venue, symbol))
        if chain is None:
            chain = self._chains[venue, symbol] = _Chain()
        if kind == TRADE:
            return Line(receive_ns, venue, symbol, head + chain.trade(receive_ns) + tail, file, row)
        if chain.file != file and chain.file is not None and chain.file not in self._ended:
            reason = f"expected one book of {symbol} at a time, found another while {self.paths[chain.file].name} goes on: left out"
            self._sources[file].complain(row, reason)
            return None
        chain.file = file
        if kind == CLEARED:
            chain.update += 1
            return None
        ids = chain.snapshot(receive_ns) if kind == SNAPSHOT else chain.difference(receive_ns, linked=venue != "binance-spot")
        return Line(receive_ns, venue, symbol, head + ids + tail, file, row)


class _Chain:
    """The ids of one symbol. A snapshot leaves one out, so that the engine sees that it begins anew."""

    def __init__(self) -> None:
        self.file: int | None = None
        """Where the book comes from now."""
        self.update = self.trade_id = 0

    def difference(self, receive_ns: int, *, linked: bool) -> bytes:
        """Return the ids of a difference that follows what was before."""
        last = max(self.update + 1, receive_ns // 1_000)
        before, self.update = self.update or last - 1, last
        ids = b'"U":%d,"u":%d,' % (before + 1, last)
        return ids + b'"pu":%d,' % before if linked else ids

    def snapshot(self, receive_ns: int) -> bytes:
        """Return the id of a snapshot that the next difference follows, and that does not follow the one before."""
        self.update = max(self.update + 1, receive_ns // 1_000)
        return b'"lastUpdateId":%d,' % self.update

    def trade(self, receive_ns: int) -> bytes:
        """Return the id of a trade: the first is its millisecond, and no other leaves one out, for that would be a trade missed."""
        self.trade_id = self.trade_id + 1 if self.trade_id else receive_ns // 1_000_000
        return b'"t":%d,' % self.trade_id


def open_foreign(paths: Sequence[Path], venue: str | None, symbol: str | None, report: Callable[[Complaint], None]) -> Foreign | None:
    """Open tables of Binance's archive and of Tardis, and event files of hftbacktest.

    Parameters
    ----------
    paths : paths
        Files; None is returned where none is of such a form.
    venue : str or None
        ``binance-spot``, ``binance-usdm`` or ``binance-coinm``, for files that do not settle it.
    symbol : str or None
        For files whose name and rows do not state it.
    report : callable
        Told of rows that cannot be used, at most 20 a file.

    Raises
    ------
    ForeignError
        Where a file is none of the forms that its name promises, or is not said to be of a venue or a symbol.
    """
    readers = [_reader(path, venue, symbol) if path.is_file() else None for path in paths]
    found = [reader for reader in readers if reader is not None]
    if not found:
        return None
    if len(found) < len(readers):
        other = paths[readers.index(None)]
        raise ForeignError(f"expected files of other programs alone, or recordings alone, found {other} among files of other programs")
    return Foreign(paths, found, report)


def _reader(path: Path, venue: str | None, symbol: str | None) -> Reader | None:
    """Return the reader of one file; None where it promises to be nothing of what is read here."""
    promised = path.name.lower().endswith(_SUFFIXES)
    try:
        member = member_name(path)
        if member.endswith(".npy"):
            return open_events(path, member, venue, symbol)
        lines = _first_lines(path)
    except Damaged as error:
        if not promised:
            return None
        raise ForeignError(f"{_expected()}, found {error} in {path.name}") from None
    first = lines[0] if lines else b""
    reader = open_tardis(path, lines, venue) or open_vision(path, member, first, venue, symbol)
    if reader is None and (promised or member):
        raise ForeignError(f"{_expected()}, found {first[:160].decode(errors='backslashreplace')!r} in {path.name}")
    return reader


def _first_lines(path: Path) -> list[bytes]:
    """Return the first two lines of a text, or what there is of them. Raises ``Damaged`` where there is nothing."""
    start = b""
    try:
        for block in Source(path, 0, lambda _: None).blocks():
            start += block
            if start.count(b"\n") > 1 or len(start) > 2 * LINE_BYTES_MAX:
                break
    except Damaged:
        if not start:  # Else the reading tells of it, and keeps what came before.
            raise
    return [line for line in start.split(b"\n")[:2] if line]


def _expected() -> str:
    return f"expected {VISION_NAMES} of data.binance.vision, {TARDIS_NAMES}, or {EVENTS_NAMES}"
