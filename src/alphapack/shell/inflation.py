"""Compressed files as streams of bytes: gzip, Zstandard and xz, in bounded memory."""

import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

_INFLATED_BYTES_MAX = 1 << 20
_ZSTD_SLICE_BYTES = 1 << 14  # Its decompressor cannot bound the output of a call, so the input is bounded instead.


def gunzip(source: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate gzip members; raises ``zlib.error`` where they are damaged, ``EOFError`` where the last one was cut."""
    stream = None
    for data in source:
        while data:
            if stream is None:
                data = data.lstrip(b"\0")  # Padding between members is legal.
                if not data:
                    break
                stream = zlib.decompressobj(wbits=31)
            yield stream.decompress(data, _INFLATED_BYTES_MAX)
            data = stream.unconsumed_tail
            if stream.eof:
                data, stream = stream.unused_data, None
    if stream is not None:
        yield stream.flush()
        if not stream.eof:
            raise EOFError("its end missing (the file was cut)")


def _unzstd(source: Iterator[bytes]) -> Iterator[bytes]:
    stream = None
    for block in source:
        for start in range(0, len(block), _ZSTD_SLICE_BYTES):
            data = block[start : start + _ZSTD_SLICE_BYTES]
            while data:
                if stream is None:
                    stream = zstandard.ZstdDecompressor().decompressobj()
                yield stream.decompress(data)
                data = b""
                if stream.eof:
                    data, stream = stream.unused_data, None
    if stream is not None:
        raise EOFError("its end missing (the file was cut)")


def _unxz(source: Iterator[bytes]) -> Iterator[bytes]:
    stream = None
    for data in source:
        while data:
            if stream is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                stream = lzma.LZMADecompressor()
            yield stream.decompress(data, _INFLATED_BYTES_MAX)
            while not stream.eof and not stream.needs_input:
                yield stream.decompress(b"", _INFLATED_BYTES_MAX)
            data = b""
            if stream.eof:
                data, stream = stream.unused_data, None
    if stream is not None:
        raise EOFError("its end missing (the file was cut)")


_INFLATE: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {".gz": gunzip, ".zst": _unzstd, ".xz": _unxz}
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What ``inflated`` raises for a stream that is damaged or was cut."""


def inflated(path: Path, source: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a file, decompressed if its name says that they are compressed. Raises one of ``DAMAGED``."""
    inflate = _INFLATE.get(path.suffix.lower())
    return source if inflate is None else inflate(source)
