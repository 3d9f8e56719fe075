"""Recorded captures: one line a message, ``<receive_time_ns> <venue JSON exactly as received>``; beside them files of option chains.

What comes out is a function of the files alone: lines merge by (receive time, file order, line), and a bad line is
reported and left out, never a reason to stop.
"""

import difflib
import hashlib
import heapq
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from alphapack.domain.inputs import AnyInput, Chain, Configure, CoreSettings, Frame, Heartbeat, History, SessionStart
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.shell.chain_files import Snapshot, is_chain_file, snapshots
from alphapack.shell.inflation import DAMAGED, inflated
from alphapack.shell.journal import is_journal, read_journal

HEARTBEAT_NS = 100 * NANOS_PER_MS
SESSION_GAP_NS = 60 * NANOS_PER_S
LINE_BYTES_MAX = 16_000_000
COMPLAINTS_A_FILE = 20

_READ_BYTES = 1 << 18
_FINGERPRINT_BYTES = 1 << 16
_TIME_NS_MAX = 4_102_444_800 * NANOS_PER_S  # 2100: one damaged time must not drag every later line into the far future.

_SUFFIXES = frozenset({".gz", ".zst", ".xz", ".raw", ".jsonl", ".json", ".ndjson", ".txt", ".log"})
_DATE = re.compile(r"\d{8}([Tt-]?\d{2,6}[Zz]?)?|\d{4}-\d{2}-\d{2}\S*")
_WORDS = frozenset({"all", "book", "books", "capture", "depth", "multi", "raw", "ticker", "tickers", "trade", "trades"})
_VENUE = re.compile(r"[a-z][a-z0-9.-]*")
OR_VENUE = ", or state --venue"
_NAMING = "name it VENUE_SYMBOL_DATE.raw.gz, such as binance-spot_BTCUSDT_20240808.raw.gz"

# Stand-ins for lines that cannot be read; told apart by identity.
_TOO_LONG = b"<too long>"
_CUT = b"<cut>"

Row = tuple[int, int, int, bytes | tuple[str, bytes]]
"""Receive time, file, line, payload (of a chain: its base asset and body): tuples, because they merge at the speed of C."""


class CaptureError(ValueError):
    """A recording that cannot be opened as it was named."""


class Complaint(msgspec.Struct, frozen=True):
    """What is wrong with one line of a file; line 0 is the file as a whole."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


class Line(msgspec.Struct, frozen=True, gc=False):
    """One recorded message; ``file`` counts from 0 in the order given, ``line`` from 1."""

    receive_ns: int
    venue: str
    symbol: str
    payload: bytes
    file: int
    line: int


class Capture:
    """Several recordings read as one, in bounded memory but for option chains; each iteration begins at the start."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        venue: str | None = None,
        report: Callable[[Complaint], None],
        venues: Collection[str] = (),
    ) -> None:
        """Name the files' venues and symbols; ``venues`` are those that exist (empty: not checked)."""
        if not paths:
            raise CaptureError("expected at least one capture file, found none")
        for path in paths:
            if not path.is_file():
                raise CaptureError(f"expected a capture file, found {'a folder' if path.is_dir() else 'nothing'} at {path}")
        chains = [path for path in paths if is_chain_file(path)]
        captures = [path for path in paths if path not in chains]
        self.paths = (*captures, *chains)
        self.names = tuple(source_name(path, venue, venues, otherwise=OR_VENUE) for path in captures)
        """Venue and symbol of each capture; files of option chains stand behind the captures and have none."""
        self.bytes_total = sum(path.stat().st_size for path in self.paths)
        self._report = report
        self._chains: dict[Path, list[Snapshot]] = {}
        self._restart()

    def _restart(self) -> None:
        self.bytes_read = 0
        self._complaints = [0] * len(self.paths)
        self._last: Row | None = None

    @property
    def complaints(self) -> int:
        """How many complaints this iteration has made, reported or not."""
        return sum(self._complaints)

    @property
    def complaints_suppressed(self) -> int:
        """How many complaints of this iteration were counted without being reported."""
        return sum(max(0, count - COMPLAINTS_A_FILE) for count in self._complaints)

    def load(self) -> None:
        """Read the files of option chains, which takes long; without this it is done when the first row is drawn."""
        for path in self.paths[len(self.names) :]:
            if path not in self._chains:
                self._chains[path] = list(snapshots(path))

    def start_ns(self) -> int | None:
        """Return the receive time of the first message, of the first chain where there are chains alone; None where there is none.

        Nothing is reported.
        """
        report, self._report = self._report, lambda complaint: None
        try:
            return next((receive_ns for receive_ns, _, _, payload in self.rows() if isinstance(payload, bytes) or not self.names), None)
        finally:
            self._report = report
            self._restart()

    @property
    def last_position(self) -> tuple[Path, int] | None:
        """File and line of the message handed out last."""
        return (self.paths[self._last[1]], self._last[2]) if self._last else None

    def __iter__(self) -> Iterator[Line]:
        """Yield the messages of all files, merged by (receive time, file order, line)."""
        names = self.names
        for receive_ns, file, line, payload in self.rows():
            if isinstance(payload, tuple):  # A chain is no message of a venue.
                continue
            venue, symbol = names[file]
            yield Line(receive_ns, venue, symbol, payload, file, line)

    def rows(self) -> Iterator[Row]:
        """Yield what ``__iter__`` does as plain tuples."""
        self._restart()
        files = [self._file_rows(file) if file < len(self.names) else self._chain_rows(file) for file in range(len(self.paths))]
        for row in files[0] if len(files) == 1 else heapq.merge(*files):
            self._last = row
            yield row

    def fingerprint(self) -> str:
        """Return 16 hex digits that name these recordings wherever they lie."""
        digest = hashlib.blake2b(repr(self.names).encode(), digest_size=8)
        for path in self.paths:
            name, size = path.name.encode(), path.stat().st_size
            digest.update(b"%d:%b%d:" % (len(name), name, size))
            with path.open("rb") as stream:
                digest.update(stream.read(_FINGERPRINT_BYTES))
                stream.seek(max(0, size - _FINGERPRINT_BYTES))
                digest.update(stream.read(_FINGERPRINT_BYTES))
        return digest.hexdigest()

    def complain(self, file: int, line: int, reason: str) -> None:
        """Report what is wrong with a line, up to a bounded number a file, and count it."""
        self._complaints[file] += 1
        if self._complaints[file] <= COMPLAINTS_A_FILE:
            self._report(Complaint(str(self.paths[file]), line, reason))

    def complain_of_last(self, reason: str) -> None:
        """Report what is wrong with the message that was handed out last."""
        if self._last is not None:
            self.complain(self._last[1], self._last[2], reason)

    def _chain_rows(self, file: int) -> Iterator[Row]:
        self.load()
        self.bytes_read += self.paths[file].stat().st_size  # The rows of a chain may stand anywhere, so that all of it has been read.
        for number, (ts_ms, base, body) in enumerate(self._chains[self.paths[file]], 1):
            yield ts_ms * NANOS_PER_MS, file, number, (base, body)
        if not self._chains[self.paths[file]]:
            self.complain(file, 0, "expected option quotes, found a file without any")

    def _file_rows(self, file: int) -> Iterator[Row]:
        previous_ns = number = 0
        for lines in self._line_blocks(file):
            for line in lines:
                number += 1
                head, _, payload = line.partition(b" ")
                if not payload or not head.isdigit() or len(head) > 19 or (receive_ns := int(head)) > _TIME_NS_MAX:
                    self.complain(file, number, _unreadable(line))
                    continue
                if receive_ns < previous_ns:
                    back_ns = previous_ns - receive_ns
                    self.complain(
                        file, number, f"expected times that do not run back, found a step of {back_ns} ns back: set to the line before"
                    )
                    receive_ns = previous_ns
                previous_ns = receive_ns
                yield receive_ns, file, number, payload
        if number == 0:
            self.complain(file, 0, "expected lines of '<receive_time_ns> <JSON>', found an empty file")

    def _line_blocks(self, file: int) -> Iterator[list[bytes]]:
        """Yield the file's lines in blocks; what cannot be read is a stand-in, so that every line keeps its number."""
        held: list[bytes] = []
        held_bytes = 0
        for chunk in self._chunks(file):
            lines = chunk.split(b"\n")
            if len(lines) > 1:
                if held:
                    lines[0] = b"".join((*held, lines[0])) if held[0] is not _TOO_LONG else _TOO_LONG
                held, held_bytes = [], 0
                rest = lines.pop()
                yield lines
            else:
                rest = chunk
            if rest and not (held and held[0] is _TOO_LONG):
                held.append(rest)
                held_bytes += len(rest)
                if held_bytes > LINE_BYTES_MAX:
                    held = [_TOO_LONG]
        if held:
            last = b"".join(held) if held[0] is not _TOO_LONG else _TOO_LONG
            yield [last if last is _TOO_LONG or _is_whole(last) else _CUT]

    def _chunks(self, file: int) -> Iterator[bytes]:
        """Yield the file's bytes, decompressed; a damaged stream ends with a complaint."""
        path = self.paths[file]
        with path.open("rb") as stream:
            try:
                yield from inflated(path, self._counted(stream))
            except DAMAGED as error:
                self.complain(file, 0, f"expected a whole {path.suffix[1:]} stream, found {error}: what came before it is kept")

    def _counted(self, stream: BinaryIO) -> Iterator[bytes]:
        while chunk := stream.read(_READ_BYTES):
            self.bytes_read += len(chunk)
            yield chunk


def inputs(
    capture: Capture,
    settings: CoreSettings,
    *,
    history: Iterable[History] = (),
    heartbeat_ns: int = HEARTBEAT_NS,
    session_gap_ns: int = SESSION_GAP_NS,
) -> Iterator[AnyInput]:
    """Yield the engine inputs of a recording: a function of its files, its history and the settings alone.

    Pages of history come right after the first session start, at its time. Silences longer than ``heartbeat_ns`` are filled
    with heartbeats, so that timers fire as they would have live; one longer than ``session_gap_ns`` is a new session.
    """
    if heartbeat_ns <= 0 or session_gap_ns < heartbeat_ns:
        raise ValueError(f"expected 0 < heartbeat_ns <= session_gap_ns, found {heartbeat_ns} and {session_gap_ns}")
    names = capture.names
    rows = capture.rows()
    first = next(rows, None)
    if first is None:
        return
    previous_ns = first[0]
    yield Configure(1, previous_ns, settings)
    yield SessionStart(2, previous_ns, "capture")
    seq = 2
    for page in history:
        seq += 1
        yield msgspec.structs.replace(page, seq=seq, ts_ns=previous_ns)
    chain_ns = None
    for receive_ns, file, _, payload in itertools.chain((first,), rows):
        if receive_ns - previous_ns > session_gap_ns:
            seq += 1
            yield SessionStart(seq, receive_ns, "capture")
        elif receive_ns - previous_ns > heartbeat_ns:
            for beat_ns in range(previous_ns + heartbeat_ns, receive_ns, heartbeat_ns):
                seq += 1
                yield Heartbeat(seq, beat_ns)
        seq += 1
        if isinstance(payload, tuple):
            chain_ns = receive_ns
            yield Chain(seq, receive_ns, payload[0], "recorded", payload[1])
        else:
            venue, symbol = names[file]
            yield Frame(seq, receive_ns, venue, symbol, payload)
        previous_ns = receive_ns
    if chain_ns is not None and previous_ns - chain_ns < heartbeat_ns:  # What is made of the last chain comes after it.
        yield Heartbeat(seq + 1, chain_ns + heartbeat_ns)


class Recording:
    """What a replay reads: the inputs of captures or of one journal, behind one door."""

    def __init__(self, source: Capture | Path, settings: CoreSettings, report: Callable[[Complaint], None]) -> None:
        """Stand before the first input; a Path is a journal's, which has its own settings."""
        self.capture = source if isinstance(source, Capture) else None
        self.history: Sequence[History] = ()
        """What a capture's symbols did before it, to be stepped before its first frame."""
        self._source, self._settings, self._report = source, settings, report
        self._journal_bytes = self._journal_complaints = 0

    @property
    def kind(self) -> str:
        """``capture`` or ``journal``."""
        return "journal" if self.capture is None else "capture"

    @property
    def bytes_read(self) -> int:
        """Bytes of the files read so far; of a journal, the bytes of its messages."""
        return self._journal_bytes if self.capture is None else self.capture.bytes_read

    @property
    def bytes_total(self) -> int:
        """Bytes of all files; 0 for a journal, whose messages are not counted beforehand."""
        return 0 if self.capture is None else self.capture.bytes_total

    @property
    def complaints(self) -> int:
        """How many complaints the reading has made, reported or not."""
        return self._journal_complaints if self.capture is None else self.capture.complaints

    @property
    def last_position(self) -> tuple[Path, int] | None:
        """File and line of the frame handed out last; None for a journal, whose inputs say their seq."""
        return None if self.capture is None else self.capture.last_position

    def __iter__(self) -> Iterator[AnyInput]:
        """Yield the inputs, from the first."""
        if isinstance(self._source, Capture):
            yield from inputs(self._source, self._settings, history=self.history)
            return
        self._journal_bytes = self._journal_complaints = 0
        for entry in read_journal(self._source, report=self._complain):
            if isinstance(entry, Frame):
                self._journal_bytes += len(entry.payload)
            yield entry

    def reject(self, reason: str, seq: int) -> None:
        """Complain of the input that was handed out last: by its file and line, or by its seq where a journal has it."""
        if self.capture is None:
            self._complain(f"seq {seq}: {reason}")
        else:
            self.capture.complain_of_last(reason)

    def _complain(self, reason: str) -> None:
        self._journal_complaints += 1
        self._report(Complaint(str(self._source), 0, reason))


def open_inputs(
    paths: Sequence[Path],
    settings: CoreSettings,
    *,
    venue: str | None = None,
    report: Callable[[Complaint], None],
    venues: Collection[str] = (),
) -> Recording:
    """Open captures, which merge, or one journal (its folder, a segment of it, or the folder of its engine)."""
    journals = [path if is_journal(path) else path / "journal" for path in paths if is_journal(path) or is_journal(path / "journal")]
    if not journals:
        return Recording(Capture(paths, venue=venue, report=report, venues=venues), settings, report)
    if len(paths) > 1:
        raise CaptureError(f"expected captures or one journal, found {len(paths)} paths with the journal {journals[0]} among them")
    return Recording(journals[0], settings, report)


def source_name(path: Path, venue: str | None = None, venues: Collection[str] = (), *, otherwise: str = "") -> tuple[str, str]:
    """Return the venue and the fallback symbol that a file name states; ``otherwise`` says what else helps where it states none."""
    stem = path.name
    while (suffix := Path(stem).suffix).lower() in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    parts = [part for part in stem.split("_") if part]
    named = len(parts) > 1 or stem in venues
    while parts and (_DATE.fullmatch(parts[-1]) or parts[-1] in _WORDS):
        parts.pop()
    found = parts[0] if parts and named and _VENUE.fullmatch(parts[0]) else None
    if venue is None:
        if found is None:
            raise CaptureError(f"expected a file name that begins with its venue, found {path.name!r}: {_NAMING}{otherwise}")
        venue = found
        parts = parts[1:]
    elif found is not None and (len(parts) > 1 or found == venue or found in venues):
        parts = parts[1:]
    if venues and venue not in venues:
        near = difflib.get_close_matches(venue, venues, n=1, cutoff=0.0)[0]
        known = ", ".join(sorted(venues))
        raise CaptureError(f"unknown venue {venue!r} for {path.name}: the nearest is {near!r}, the known ones are {known}")
    return venue, "_".join(parts)


def _unreadable(line: bytes) -> str:
    """Return why a line is not ``<receive_time_ns> <JSON>``."""
    if line is _TOO_LONG:
        return f"expected a line of at most {LINE_BYTES_MAX} bytes, found a longer one: left out"
    if line is _CUT:
        return "expected a newline at the end, found a line that was cut: left out"
    head = line.partition(b" ")[0]
    if head.isdigit() and (len(head) > 19 or int(head) > _TIME_NS_MAX):
        return f"expected a receive time in nanoseconds before the year 2100, found {head[:24].decode()}: left out"
    return f"expected '<receive_time_ns> <JSON>', found {line[:60].decode(errors='backslashreplace')!r}: left out"


def _is_whole(line: bytes) -> bool:
    """Tell a last line that only lacks its newline from one that was cut: no part of a JSON document is a document."""
    try:
        msgspec.json.decode(line.partition(b" ")[2], type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True
