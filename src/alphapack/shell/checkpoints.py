"""Checkpoints on disk: whole engine states, one file each, the newest three kept.

A file is ``magic, version, seq, length, zstd frame, blake2b of all before``. It gets its name only after it was
written, made durable and read back equal, and older ones go only after that.
"""

import logging
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import zstandard

from alphapack.shell.journal import sync_file, sync_folder, write_all

FORMAT_VERSION = 1
KEPT = 3

_MAGIC = b"APCKPT\r\n"  # The line end shows a transfer that changed line ends.
_HEADER = struct.Struct("<8sIQQ")
_CHECK_BYTES = 32
_COMPRESSION_LEVEL = 3
_log = logging.getLogger(__name__)


class CheckpointDamaged(Exception):
    """A checkpoint file that is not what was written."""


class FileCheckpoints:
    """A folder of checkpoints; one thread writes, any reads."""

    def __init__(self, folder: Path, *, report: Callable[[str], None] = _log.warning) -> None:
        self.folder = folder
        self._report = report
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob("*.ckpt.part"):
            unfinished.unlink()

    @property
    def oldest_kept(self) -> int:
        """The seq of the oldest checkpoint, 0 without any: only what is at or before it may leave the journal."""
        return min(self.seqs(), default=0)

    def seqs(self) -> list[int]:
        """Return the seqs of the checkpoints, oldest first; whether they are readable only reading shows."""
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.ckpt"))

    def write(self, seq: int, state: bytes) -> None:
        """Keep a state durably, verify it by reading it back, and drop all but the newest three.

        A checkpoint of a later seq belongs to a course of events that was given up, and goes too. Raises ``OSError``
        when the disk refuses or returns something else; the older checkpoints then stay.
        """
        path = self._path(seq)
        part = path.with_suffix(".ckpt.part")
        try:
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                write_all(fd, _encoded(seq, state))
                sync_file(fd)
            finally:
                os.close(fd)
            try:
                same = _decoded(part, seq) == state
            except CheckpointDamaged as damage:
                raise OSError(f"the checkpoint of seq {seq} did not read back: {damage}") from None
            if not same:
                raise OSError(f"{part}: expected the state of seq {seq} to read back as written, found another; check the disk")
            part.replace(path)
            sync_folder(self.folder)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        older = [kept for kept in self.seqs() if kept < seq]
        later = [kept for kept in self.seqs() if kept > seq]
        for dropped in [*older[: max(0, len(older) - (KEPT - 1))], *later]:
            self._path(dropped).unlink(missing_ok=True)

    def newest(self, *, before_seq: int | None = None) -> tuple[int, bytes] | None:
        """Return the newest readable state (with ``seq < before_seq`` where given); damaged ones are reported and skipped."""
        for seq in reversed(self.seqs()):
            if before_seq is not None and seq >= before_seq:
                continue
            try:
                return seq, _decoded(self._path(seq), seq)
            except (CheckpointDamaged, OSError) as damage:
                self._report(f"checkpoint of seq {seq} is skipped: {damage}; going back to the one before it and replaying from there")
        return None

    def _path(self, seq: int) -> Path:
        return self.folder / f"{seq:020d}.ckpt"


def _encoded(seq: int, state: bytes) -> bytes:
    frame = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(state)
    content = _HEADER.pack(_MAGIC, FORMAT_VERSION, seq, len(state)) + frame
    return content + blake2b(content, digest_size=_CHECK_BYTES).digest()


def _decoded(path: Path, seq: int) -> bytes:
    content = path.read_bytes()
    if len(content) < _HEADER.size + _CHECK_BYTES:
        raise CheckpointDamaged(f"{path}: expected at least {_HEADER.size + _CHECK_BYTES} bytes, found {len(content)}")
    body, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
    if blake2b(body, digest_size=_CHECK_BYTES).digest() != check:
        raise CheckpointDamaged(f"{path}: expected the checksum of its {len(body)} bytes, found another")
    magic, version, found_seq, length = _HEADER.unpack_from(body)
    if magic != _MAGIC or version != FORMAT_VERSION or found_seq != seq:
        raise CheckpointDamaged(
            f"{path}: expected a checkpoint of format {FORMAT_VERSION} and seq {seq}, "
            f"found {magic!r} of format {version} and seq {found_seq}"
        )
    try:
        return zstandard.ZstdDecompressor().decompress(body[_HEADER.size :], max_output_size=length)
    except zstandard.ZstdError as error:
        raise CheckpointDamaged(f"{path}: expected one zstd frame of {length} bytes, found {error}") from None
