"""Recordings in another form: captures and journals to Parquet, or to one capture file."""

import gzip
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import zstandard

from alphapack.domain.inputs import AnyInput, Frame
from alphapack.domain.market import NAME_WITHIN
from alphapack.shell.captures import Line, source_name

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 65_536
BATCH_BYTES = 32_000_000
CAPTURE_SUFFIXES = (".raw", ".raw.gz", ".raw.zst")
_NAME = re.compile(rb'"s":"([^"]{1,40})"')
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 10


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


class ConversionError(ValueError):
    """A conversion that cannot be done as it was asked for."""


def lines_of(inputs: Iterable[AnyInput]) -> Iterator[Line]:
    """Yield the venue messages among a journal's inputs, stamped with the engine's time."""
    for entry in inputs:
        if isinstance(entry, Frame):
            yield Line(entry.ts_ns, entry.venue, entry.symbol, entry.payload, 0, entry.seq)


def named(line: Line) -> str:
    """Return the venue's name of the symbol that a message is about: its own word, else its file's; empty where neither says."""
    found = _NAME.search(line.payload, 0, NAME_WITHIN)
    return found[1].decode(errors="replace") if found is not None else line.symbol


def one_line(payload: bytes) -> bytes:
    """Return a message without line ends, which between the parts of a JSON document are spaces, and inside of them not allowed."""
    return payload.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in payload or b"\r" in payload else payload


def packed(content: bytes, suffix: str) -> bytes:
    """Return a part of a capture file, compressed as the file's suffix says: parts are read one after another as one stream."""
    if suffix == ".gz":
        return gzip.compress(content, _GZIP_LEVEL, mtime=0)
    if suffix == ".zst":
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compress(content)
    return content


def convert(lines: Iterable[Line], out: Path) -> int:
    """Write the messages in the form that the name of ``out`` states and return their number; ``out`` appears when it is whole."""
    if out.suffix == ".parquet":
        return to_parquet(lines, out)
    if out.name.endswith(CAPTURE_SUFFIXES):
        return to_capture(lines, out)
    raise ConversionError(f"expected an output named *.parquet, *.raw.gz, *.raw.zst or *.raw, found {out.name!r}")


def to_parquet(lines: Iterable[Line], out: Path) -> int:
    """Write columns ``receive_ns, venue, symbol, payload``."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConversionError('Parquet needs pyarrow, which is not installed: pip install "alphapack[parquet]"') from error
    name = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    schema = pyarrow.schema(
        [
            pyarrow.field("receive_ns", pyarrow.int64(), nullable=False),
            pyarrow.field("venue", name, nullable=False),
            pyarrow.field("symbol", name, nullable=False),
            pyarrow.field("payload", pyarrow.binary(), nullable=False),
        ]
    )
    rows = 0
    with whole(out) as partial, parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in _batches(lines):
            writer.write_batch(_record_batch(batch, schema))
            rows += len(batch)
    return rows


def to_capture(lines: Iterable[Line], out: Path) -> int:
    """Write one capture file. It holds one venue's and symbol's messages, because its name is all that states them."""
    stated = source_name(out)
    rows = 0
    with whole(out) as partial, compressing(partial, out.suffix) as stream:
        for line in lines:
            symbol = named(line)
            if line.venue != stated[0] or symbol not in ("", stated[1]):
                found = f"{line.venue}_{symbol}".rstrip("_")
                raise ConversionError(
                    f"expected messages of {'_'.join(stated).rstrip('_')}, as {out.name!r} says, found one of {found}: "
                    f"name the output {found}_DATE.raw.gz, keep one of several symbols by --symbols, or convert to Parquet"
                )
            stream.write(b"%d %b\n" % (line.receive_ns, one_line(line.payload)))
            rows += 1
    return rows


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Name a file to write beside ``out``, which takes its place when all went well and is removed otherwise."""
    partial = out.with_name(f".{out.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def compressing(path: Path, suffix: str) -> Iterator[_Sink]:
    """Open a file to write, compressed as its suffix says."""
    with path.open("wb") as raw:
        if suffix == ".gz":
            # No name and no time in the head, so that equal messages make equal files.
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as packed:
                yield packed
        elif suffix == ".zst":
            with zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(raw, closefd=False) as packing:
                yield packing
        else:
            yield raw


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    batch_bytes = 0
    for line in lines:
        batch.append(line)
        batch_bytes += len(line.payload)
        if len(batch) >= BATCH_ROWS or batch_bytes >= BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def _record_batch(batch: list[Line], schema: "pyarrow.Schema") -> Any:
    import pyarrow

    columns = [
        [line.receive_ns for line in batch],
        [line.venue for line in batch],
        [line.symbol for line in batch],
        [line.payload for line in batch],
    ]
    arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pyarrow.record_batch(arrays, schema=schema)
