"""What a source sends, written down as it comes: one symbol's capture file, or a journal of all.

Law: what was flushed is on disk and readable, however the recording ends.

An engine follows along, because a book that breaks must ask for a snapshot, and what it says of gaps is worth knowing at once.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from alphapack.domain.inputs import AnyInput, Frame
from alphapack.shell.captures import source_name
from alphapack.shell.convert import CAPTURE_SUFFIXES, ConversionError, one_line, packed
from alphapack.shell.journal import FileJournal, sync_file, sync_folder, write_all
from alphapack.shell.runner import Runner

TELL_S = 0.5
FLUSH_S = 2.0
"""What a killed process or a lost machine may cost: shorter portions compress worse."""
JOURNAL_INPUTS = 4_096
CAPTURE_BYTES = 2 << 20
"""Bytes of lines that are flushed at once, whenever they came."""


class Sink(Protocol):
    """Where inputs are written down."""

    def put(self, entry: AnyInput) -> None:
        """Take an input in."""
        ...

    def flush(self) -> None:
        """Make what was taken in durable."""
        ...


class CaptureSink:
    """One new capture file, in portions that are each complete; frames of ``venue`` and ``symbol`` alone fit its name."""

    def __init__(self, out: Path, stack: ExitStack) -> None:
        """Begin the file, which must not be there yet; ``stack`` closes it, and removes it where nothing was written."""
        self.venue, self.symbol = source_name(out)
        if not out.parent.is_dir():
            raise ConversionError(f"expected a folder to record into, found none at {out.parent}")
        try:
            self._fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            raise ConversionError(f"expected a new file to record into, found {out} there already") from None
        stack.callback(self._close)
        sync_folder(out.parent)
        self._out = out
        self._size = 0
        self._lines: list[bytes] = []
        self._held_bytes = 0

    def put(self, entry: AnyInput) -> None:
        """Take a frame in; what else the engine steps is not of the venue."""
        if isinstance(entry, Frame):
            line = b"%d %b\n" % (entry.ts_ns, one_line(entry.payload))
            self._lines.append(line)
            self._held_bytes += len(line)
            if self._held_bytes >= CAPTURE_BYTES:
                self.flush()

    def flush(self) -> None:
        """Make the lines taken in durable, as a compressed stream of their own; of a portion that fails nothing is left behind."""
        if not self._lines:
            return
        portion = packed(b"".join(self._lines), self._out.suffix)
        with _naming(self._out, self._size > 0):
            try:
                write_all(self._fd, portion)
                sync_file(self._fd)
            except OSError:
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
                raise
        self._size += len(portion)
        self._lines, self._held_bytes = [], 0

    def _close(self) -> None:
        os.close(self._fd)
        if not self._size:
            self._out.unlink(missing_ok=True)


class JournalSink:
    """A journal folder: every input, so that a replay of it is what was recorded to the bit."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """Begin the journal, which must not be there yet; ``stack`` closes it, and removes it where nothing was written."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConversionError(f"expected a new folder to record into, found {folder} there already")
        self._folder = folder
        self._is_new = not folder.exists()
        self._journal = FileJournal(folder)
        stack.callback(self._close)
        self._entries: list[AnyInput] = []
        self._is_begun = False

    def put(self, entry: AnyInput) -> None:
        """Take an input in."""
        self._entries.append(entry)
        if len(self._entries) >= JOURNAL_INPUTS:
            self.flush()

    def flush(self) -> None:
        """Make what was taken in durable."""
        if self._entries:
            with _naming(self._folder, self._is_begun):
                self._journal.append(self._entries)
            self._is_begun = True
            self._entries = []

    def _close(self) -> None:
        self._journal.close()
        if not self._is_begun:
            (self._folder / "lock").unlink(missing_ok=True)
            if self._is_new:
                with suppress(OSError):  # What the disk took of a first portion stays to be looked at.
                    self._folder.rmdir()


@contextmanager
def _naming(out: Path, begun: bool) -> Iterator[None]:
    """Say in an error of the disk where what was written before it is."""
    try:
        yield
    except OSError as error:
        kept = f"what was recorded before is kept in {out}" if begun else f"nothing was recorded in {out}"
        raise OSError(error.errno, f"{error.strerror}; {kept}") from error


def sink_of(out: Path, symbols: tuple[tuple[str, str], ...], stack: ExitStack) -> Sink:
    """Return where to record ``symbols``, pairs of venue and name, as the name of ``out`` says.

    Raises ``ConversionError`` where it cannot hold them.
    """
    if not out.name.endswith(CAPTURE_SUFFIXES):
        if out.suffix:
            raise ConversionError(f"expected a folder, or a file named *{', *'.join(CAPTURE_SUFFIXES)}, found {out.name!r}")
        return JournalSink(out, stack)
    if len(symbols) != 1 or source_name(out) != symbols[0]:
        venue, name = symbols[0]
        advice = "a folder (a journal) holds several symbols" if len(symbols) > 1 else f"name it {venue}_{name}_DATE{CAPTURE_SUFFIXES[-1]}"
        raise ConversionError(f"expected a capture file named by its one venue and symbol, found {out.name!r} for {len(symbols)}: {advice}")
    return CaptureSink(out, stack)


async def record(
    runner: Runner,
    follow: Callable[[Runner], Coroutine[None, None, None]],
    sink: Sink,
    seconds: float | None,
    stopping: asyncio.Event,
    tell: Callable[[float], None],
) -> None:
    """Follow a source into a sink until it ends, ``seconds`` have passed or ``stopping`` is set; ``tell`` is told the seconds done."""
    runner.tap = sink.put
    following = asyncio.create_task(follow(runner))
    beating = asyncio.create_task(runner.beat())
    told = asyncio.create_task(stopping.wait())
    ends: list[asyncio.Future[Any]] = [told, following, beating, runner.fault]
    began = flushed = time.monotonic()
    try:
        while not any(one.done() for one in ends):
            left_s = TELL_S if seconds is None else min(TELL_S, seconds - (time.monotonic() - began))
            if left_s <= 0:
                break
            await asyncio.wait(ends, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            now = time.monotonic()
            if now - flushed >= FLUSH_S:
                sink.flush()
                flushed = now
            tell(now - began)
    finally:
        failed = await runner.end(following, beating, told)
        runner.tap = None
        sink.flush()
    if failed is not None:
        raise failed
