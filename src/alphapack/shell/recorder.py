"""What a source sends, written down as it comes: one symbol's capture file, or a journal of all.

An engine follows along, because a book that breaks must ask for a snapshot, and what it says of gaps is worth knowing at once.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from alphapack.domain.inputs import AnyInput, Frame
from alphapack.shell.captures import source_name
from alphapack.shell.convert import CAPTURE_SUFFIXES, ConversionError, compressing, one_line, whole
from alphapack.shell.journal import FileJournal
from alphapack.shell.runner import Runner

FLUSH_S = 0.5
JOURNAL_INPUTS = 4_096


class Sink(Protocol):
    """Where inputs are written down."""

    def put(self, entry: AnyInput) -> None:
        """Take an input in."""
        ...

    def flush(self) -> None:
        """Write what was taken in."""
        ...


class CaptureSink:
    """One capture file, complete when it is closed; frames of ``venue`` and ``symbol`` alone fit its name."""

    def __init__(self, out: Path, stack: ExitStack) -> None:
        """Begin the file; ``stack`` closes it, and removes what is not whole."""
        self.venue, self.symbol = source_name(out)
        self._stream = stack.enter_context(compressing(stack.enter_context(whole(out)), out.suffix))
        self._lines: list[bytes] = []

    def put(self, entry: AnyInput) -> None:
        """Take a frame in; what else the engine steps is not of the venue."""
        if isinstance(entry, Frame):
            self._lines.append(b"%d %b\n" % (entry.ts_ns, one_line(entry.payload)))

    def flush(self) -> None:
        """Write the lines taken in."""
        if self._lines:
            self._stream.write(b"".join(self._lines))
            self._lines = []


class JournalSink:
    """A journal folder: every input, so that a replay of it is what was recorded to the bit."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """Begin the journal, which must not be there yet."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConversionError(f"expected a new folder to record into, found {folder} there already")
        self._journal = FileJournal(folder)
        stack.callback(self._journal.close)
        self._entries: list[AnyInput] = []

    def put(self, entry: AnyInput) -> None:
        """Take an input in."""
        self._entries.append(entry)
        if len(self._entries) >= JOURNAL_INPUTS:
            self.flush()

    def flush(self) -> None:
        """Make what was taken in durable."""
        if self._entries:
            self._journal.append(self._entries)
            self._entries = []


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
    began = time.monotonic()
    try:
        while not any(one.done() for one in ends):
            left_s = FLUSH_S if seconds is None else min(FLUSH_S, seconds - (time.monotonic() - began))
            if left_s <= 0:
                break
            await asyncio.wait(ends, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            sink.flush()
            tell(time.monotonic() - began)
    finally:
        failed = await runner.end(following, beating, told)
        runner.tap = None
        sink.flush()
    if failed is not None:
        raise failed
