"""The journal on disk: every input, in order, durable before anything that it caused is shown.

A folder of segments, each named by the first ``seq`` in it::

    segment = header line, block*
    header  = "alphapack-journal 1 inputs <version> first <seq> after <seq> check <blake2b>\\n"
    block   = u32 length, u64 first seq, u64 last seq, 16 bytes blake2b, one zstd frame of msgpack records

``after`` is the last seq that the journal held when the segment was begun, so a hole in the order (left while the
disk was full, and covered by a checkpoint) is on record. One block is one durable write: only the last block of the
last segment can be torn, and only that is ever cut. Any other damage stops the reader.
"""

import fcntl
import logging
import mmap
import os
import struct
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import zstandard

from alphapack.domain.inputs import INPUT_VERSION, AnyInput

FORMAT_VERSION = 1
SEGMENT_BYTES = 256 << 20
BLOCK_BYTES = 4 << 20
"""A batch that encodes to more is written as several blocks, so that a reader holds little at a time."""
RECORD_BYTES_MAX = 256 << 20
PROBE_BYTES = 256 << 10


def _without_trading(record: list[Any]) -> list[Any]:
    """Settings that say nothing of trading are of a time when nothing was traded, and a replay must do the same."""
    if record[0] == "configure":
        record[3].setdefault("execution", {"trade": False})
    return record


UPCASTERS: dict[int, Callable[[list[Any]], list[Any]]] = {1: _without_trading, 2: lambda record: record}
"""By stored input version: one record as plain msgpack values, to the same record of the next version."""

_MAGIC = b"alphapack-journal "
_HEADER_BYTES_MAX = 256
_BLOCK = struct.Struct("<IQQ16s")
_BLOCK_FIELDS = struct.Struct("<IQQ")
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_COMPRESSION_LEVEL = 1
_log = logging.getLogger(__name__)


class JournalError(Exception):
    """A journal that cannot be used as asked; the message says what to do."""


class JournalDamaged(JournalError):
    """Bytes that are not what was written, in a place where no crash can have left them."""


class JournalTooNew(JournalError):
    """A journal that a later version of the program wrote."""


class JournalLocked(JournalError):
    """A journal that another process writes."""


def sync_file(fd: int) -> None:
    """Return when the bytes of the open file are on the device."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # There fsync alone leaves them in the drive's cache.
    else:
        os.fdatasync(fd)


def sync_folder(folder: Path) -> None:
    """Return when the folder's entries (files created, renamed, removed) are on the device."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes) -> None:
    """Write every byte; the kernel may take fewer at a time."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def is_journal(path: Path) -> bool:
    """Tell whether the path is a journal folder or one of its segments."""
    if path.is_dir():
        return bool(_segment_paths(path))
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_journal(path: Path, after_seq: int = 0, *, report: Callable[[str], None] = _log.warning) -> Iterator[AnyInput]:
    """Yield the inputs with ``seq > after_seq`` of a journal folder or one segment file.

    Changes and locks nothing, so it may read a journal that is being written; a torn end is reported and ends the
    reading. Raises ``JournalDamaged`` for damage anywhere else.
    """
    paths = _segment_paths(path) if path.is_dir() else [path]
    if not paths or not paths[-1].is_file():
        raise JournalError(f"expected a journal folder with *.seg files or one such file, found none at {path}")
    paths = paths[_segment_of(paths, after_seq + 1) :]
    last = None
    for place, segment_path in enumerate(paths):
        try:
            segment = _Segment.open(segment_path)
            last = yield from _inputs(segment, segment.size_bytes, last, after_seq)
        except _Broken as broken:
            if place < len(paths) - 1 or _good_block_follows(segment_path, broken.offset):
                raise _damaged(segment_path, broken) from None
            torn = segment_path.stat().st_size - broken.offset
            report(f"{segment_path}: reading ends at byte {broken.offset}, the last {torn} bytes are torn ({broken.why})")


class FileJournal:
    """A journal folder that this process alone appends to; appends come from one thread, reads from any."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, report: Callable[[str], None] = _log.warning) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._report = report
        self._segments: list[_Segment] = []
        self._last_seq = 0
        self._fd = -1
        self._unsure = False
        self._unfinished: Path | None = None
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        self._lock_fd = _lock(folder)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    @property
    def first_seq(self) -> int:
        """The first seq that is still held; 0 while the journal is empty."""
        return self._segments[0].first_seq if self._segments else 0

    @property
    def last_seq(self) -> int:
        """The last seq that is durable; 0 while the journal is empty."""
        return self._last_seq

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size_bytes for segment in self._segments)

    def gaps(self) -> list[tuple[int, int]]:
        """Return ``(first missing, last missing)`` of every hole between or before the segments held, oldest first."""
        return [(s.after_seq + 1, s.first_seq - 1) for s in self._segments if s.first_seq > s.after_seq + 1]

    def append(self, entries: Iterable[AnyInput], *, allow_gap: bool = False) -> None:
        """Make the entries durable before returning.

        Their seqs rise by one, from the last one held; ``allow_gap`` lets the first leave a hole, which begins a
        segment. Raises ``OSError`` when the disk refuses; what was already durable stays so, and the next append
        first takes back what was half written.
        """
        batch = list(entries)
        if not batch:
            return
        expected = self._last_seq + 1
        may_skip = allow_gap or not self._segments
        if batch[0].seq < expected or (batch[0].seq > expected and not may_skip):
            raise ValueError(f"expected seq {expected} after the last one in {self.folder}, found {batch[0].seq}")
        for place, entry in enumerate(batch, start=batch[0].seq):
            if entry.seq != place:
                raise ValueError(f"expected seqs that rise by one, found {entry.seq} where {place} was due")
        self._repair()
        for first, last, block in _blocks(batch):
            current = self._segments[-1] if self._segments else None
            if (
                current is None
                or first != self._last_seq + 1
                or current.version != INPUT_VERSION
                or current.size_bytes + len(block) > self._segment_bytes
            ):
                self._begin(first, block)
            else:
                self._unsure = True
                write_all(self._fd, block)
                sync_file(self._fd)
                self._unsure = False
                current.size_bytes += len(block)
            self._last_seq = last

    def read(self, after_seq: int = 0) -> Iterator[AnyInput]:
        """Yield the inputs with ``seq > after_seq`` that are durable now, in order, a block in memory at a time."""
        segments = self._segments[:]
        sizes = [segment.size_bytes for segment in segments]
        start = _segment_of([segment.path for segment in segments], after_seq + 1)
        last = None
        for segment, size in zip(segments[start:], sizes[start:], strict=True):
            try:
                last = yield from _inputs(segment, size, last, after_seq)
            except _Broken as broken:
                raise _damaged(segment.path, broken) from None

    def drop_through(self, seq: int) -> None:
        """Delete the whole segments that hold nothing after ``seq``, never the newest."""
        dropped = False
        while len(self._segments) > 1 and self._segments[1].after_seq <= seq:
            self._segments[0].path.unlink()
            del self._segments[0]
            dropped = True
        if dropped:
            sync_folder(self.folder)

    def probe(self) -> None:
        """Raise ``OSError`` unless the folder can be written durably again; take back what was half written."""
        self._repair()
        path = self.folder / "probe"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_all(fd, bytes(PROBE_BYTES))
            sync_file(fd)
        finally:
            os.close(fd)
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the journal up; everything appended is already durable."""
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1

    def _load(self) -> None:
        paths = _segment_paths(self.folder)
        may_be_torn = True
        while paths and not self._segments:
            path = paths.pop()
            last, end, broken = _scan(path)
            if broken is not None and (not may_be_torn or _good_block_follows(path, broken.offset)):
                raise _damaged(path, broken)
            if last == 0:
                self._set_aside(path, broken)
                may_be_torn = False  # That a newer segment was begun proves that the older one was whole.
                continue
            segment = _Segment.open(path)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            if broken is not None:
                self._cut(segment, end, last, broken)
            self._segments, self._last_seq = [segment], last
        for path in reversed(paths):
            try:
                segment = _Segment.open(path)
            except _Broken as broken:
                raise _damaged(path, broken) from None
            self._segments.insert(0, segment)

    def _cut(self, segment: "_Segment", end: int, last: int, broken: "_Broken") -> None:
        self._report(
            f"{segment.path}: cut a torn tail of {segment.size_bytes - end} bytes at byte {end} ({broken.why}); "
            f"the last good input is seq {last}"
        )
        os.ftruncate(self._fd, end)
        os.fsync(self._fd)
        segment.size_bytes = end

    def _set_aside(self, path: Path, broken: "_Broken | None") -> None:
        why = broken.why if broken is not None else "it holds no block"
        aside = path.with_suffix(".torn")
        self._report(f"{path}: set aside as {aside.name}, a segment whose first block was never finished ({why}); no input was in it")
        path.replace(aside)
        sync_folder(self.folder)

    def _begin(self, first: int, block: bytes) -> None:
        header = _header(first, self._last_seq)
        path = self.folder / f"{first:020d}.seg"
        self._unfinished = path
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            write_all(fd, header + block)
            sync_file(fd)
            sync_folder(self.folder)
        except BaseException:
            os.close(fd)
            with suppress(OSError):  # The next append tries again; until then nothing else can be written.
                self._drop_unfinished()
            raise
        self._unfinished = None
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        size = len(header) + len(block)
        self._segments.append(_Segment(path, INPUT_VERSION, first, self._last_seq, len(header), size))

    def _drop_unfinished(self) -> None:
        if self._unfinished is not None:
            self._unfinished.unlink(missing_ok=True)
            sync_folder(self.folder)
            self._unfinished = None

    def _repair(self) -> None:
        """Take back a write that failed: whether its bytes are on the device, nobody knows."""
        self._drop_unfinished()
        if self._unsure:
            os.ftruncate(self._fd, self._segments[-1].size_bytes)
            os.fsync(self._fd)
            self._unsure = False


class _Broken(Exception):
    """The first place of a segment that is not as written."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(why)
        self.offset = offset
        self.why = why


@dataclass(slots=True)
class _Segment:
    path: Path
    version: int
    first_seq: int
    after_seq: int
    header_bytes: int
    size_bytes: int

    @classmethod
    def open(cls, path: Path) -> "_Segment":
        with path.open("rb") as file:
            return cls.read(path, file)

    @classmethod
    def read(cls, path: Path, file: BinaryIO) -> "_Segment":
        line = file.readline(_HEADER_BYTES_MAX)
        text, _, check = line.rpartition(b" check ")
        if not line.startswith(_MAGIC) or check != _line_check(text) + b"\n":
            raise _Broken(0, f"expected a journal header line with a right checksum, found {line[:40]!r}")
        words = text.split()
        if int(words[1]) > FORMAT_VERSION or int(words[3]) > INPUT_VERSION:
            raise JournalTooNew(
                f"{path}: expected journal format {FORMAT_VERSION} with inputs {INPUT_VERSION} or older, found {text.decode()!r}: "
                f"a later alphapack wrote it; upgrade alphapack to read it"
            )
        segment = cls(path, int(words[3]), int(words[5]), int(words[7]), len(line), os.fstat(file.fileno()).st_size)
        if path.stem.isdigit() and int(path.stem) != segment.first_seq:
            raise _Broken(0, f"expected a segment that begins at seq {int(path.stem)} as its name says, found {segment.first_seq}")
        return segment


def _segment_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.seg"))


def _segment_of(paths: list[Path], seq: int) -> int:
    """Return the place of the last segment that begins at or before ``seq``."""
    return max((place for place, path in enumerate(paths) if path.stem.isdigit() and int(path.stem) <= seq), default=0)


def _line_check(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).hexdigest().encode()


def _header(first_seq: int, after_seq: int) -> bytes:
    text = _MAGIC + b"%d inputs %d first %020d after %020d" % (FORMAT_VERSION, INPUT_VERSION, first_seq, after_seq)
    return text + b" check " + _line_check(text) + b"\n"


def _blocks(batch: list[AnyInput]) -> Iterator[tuple[int, int, bytes]]:
    payload = msgspec.msgpack.encode(batch)
    if len(payload) > BLOCK_BYTES and len(batch) > 1:
        half = len(batch) // 2
        yield from _blocks(batch[:half])
        yield from _blocks(batch[half:])
        return
    first, last = batch[0].seq, batch[-1].seq
    if len(payload) > RECORD_BYTES_MAX:
        raise ValueError(f"expected an input of at most {RECORD_BYTES_MAX} bytes, found {len(payload)} in seq {first}")
    frame = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(payload)
    check = _block_check(_BLOCK_FIELDS.pack(len(frame), first, last), frame)
    yield first, last, _BLOCK.pack(len(frame), first, last, check) + frame


def _block_check(fields: bytes, frame: bytes) -> bytes:
    check = blake2b(fields, digest_size=16)
    check.update(frame)
    return check.digest()


def _walk(file: BinaryIO, offset: int, size: int, expected: int, after_seq: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield ``(end offset, last seq, frame)`` of each block; those that end at or before ``after_seq`` are hopped over."""
    while offset < size:
        file.seek(offset)
        head = file.read(min(_BLOCK.size, size - offset))
        if len(head) < _BLOCK.size:
            raise _Broken(offset, f"expected a block header of {_BLOCK.size} bytes, found {len(head)}")
        length, first, last, check = _BLOCK.unpack(head)
        end = offset + _BLOCK.size + length
        if end > size or first != expected or last < first:
            raise _Broken(offset, f"expected a block from seq {expected} on, found {length} bytes of seq {first} to {last}")
        frame = b""
        if last > after_seq:
            frame = file.read(length)
            if _block_check(head[: _BLOCK_FIELDS.size], frame) != check:
                raise _Broken(offset, f"expected the checksum of a block of {length} bytes, found another")
        yield end, last, frame
        offset, expected = end, last + 1


def _scan(path: Path) -> tuple[int, int, _Broken | None]:
    """Verify a whole segment: the last good seq (0 for none), where its block ends, and what is broken behind it."""
    last = end = 0
    try:
        with path.open("rb") as file:
            segment = _Segment.read(path, file)
            for end, last, _ in _walk(file, segment.header_bytes, segment.size_bytes, segment.first_seq, 0):  # noqa: B007 - the last values are the result
                pass
    except _Broken as broken:
        return last, end, broken
    return last, end, None


def _inputs(segment: _Segment, size: int, previous: int | None, after_seq: int) -> Generator[AnyInput, None, int]:
    """Yield the inputs of a segment and return its last seq; ``previous`` is that of the segment before, where it was read."""
    if previous not in (None, segment.after_seq):
        raise _Broken(0, f"expected the segment begun after seq {previous}, found one begun after seq {segment.after_seq}")
    last = 0
    with segment.path.open("rb", buffering=1 << 20) as file:
        for end, last, frame in _walk(file, segment.header_bytes, size, segment.first_seq, after_seq):
            if frame:
                entries = _decode(segment, frame, end - len(frame))
                yield from entries[max(0, len(entries) - (last - after_seq)) :]
    return last


def _decode(segment: _Segment, frame: bytes, offset: int) -> list[AnyInput]:
    try:
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= max(RECORD_BYTES_MAX, BLOCK_BYTES):
            raise _Broken(offset, f"expected a frame of at most {RECORD_BYTES_MAX} bytes, found {size}")
        payload = zstandard.ZstdDecompressor().decompress(frame)
        if segment.version == INPUT_VERSION:
            return _DECODER.decode(payload)
        records = msgspec.msgpack.decode(payload)
        for version in range(segment.version, INPUT_VERSION):
            if version not in UPCASTERS:
                raise JournalError(
                    f"{segment.path}: expected an upcaster of input version {version}, found none; read it with the alphapack that wrote it"
                )
            records = [UPCASTERS[version](record) for record in records]
        return msgspec.convert(records, list[AnyInput], builtin_types=(bytes,))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise _Broken(offset, f"expected inputs of version {segment.version}, found content that is none ({error})") from None


_DECODER = msgspec.msgpack.Decoder(list[AnyInput])


def _good_block_follows(path: Path, offset: int) -> bool:
    """Tell whether a whole block stands anywhere behind a broken place: then no crash tore it."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.find(_FRAME_MAGIC, offset + _BLOCK.size + 1)
            while at >= 0:
                head = content[at - _BLOCK.size : at]
                length, first, last, check = _BLOCK.unpack(head)
                if first <= last and at + length <= len(content):
                    found = _block_check(head[: _BLOCK_FIELDS.size], content[at : at + length])
                    if found == check:
                        return True
                at = content.find(_FRAME_MAGIC, at + 1)
    return False


def _damaged(path: Path, broken: _Broken) -> JournalDamaged:
    return JournalDamaged(
        f"{path}: damaged at byte {broken.offset}: {broken.why}. Nothing was changed. Restore this file from a copy, "
        f"or move the folder {path.parent} away to begin a new journal"
    )


def _lock(folder: Path) -> int:
    path = folder / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise JournalLocked(
            f"expected {folder} to be free, found it in use by process {holder}; stop that one or choose another --data-dir"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd
