"""Chance without a state: a uniform depends on a seed, the name of its stream and its place there, and on nothing else."""

import hashlib
import struct
from functools import lru_cache

import numpy as np

from alphapack.arrays import Float64Array1D

PER_BLOCK = 8
_UNIT = 2.0**-53
_WORDS = struct.Struct("<8Q")


def block(seed: int, name: str, number: int) -> tuple[float, ...]:
    """Return the ``PER_BLOCK`` uniforms of a stream from place ``PER_BLOCK`` x ``number`` on: in [0, 1), of 53 random bits."""
    return tuple([(word >> 11) * _UNIT for word in _WORDS.unpack(_words(seed, name, number))])


def blocks(seed: int, name: str, first: int, count: int) -> Float64Array1D:
    """Return the uniforms of so many blocks, one after the other."""
    words = np.frombuffer(b"".join([_words(seed, name, number) for number in range(first, first + count)]), "<u8")
    uniforms: Float64Array1D = (words >> 11).astype(np.float64) * _UNIT
    return uniforms


def _words(seed: int, name: str, number: int) -> bytes:
    return hashlib.blake2b(number.to_bytes(8, "little"), key=_key(seed, name), digest_size=64).digest()


@lru_cache(maxsize=1_024)
def _key(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=32).digest()
