"""Chance without a state: a uniform depends on a seed, the name of its stream and its place there, and on nothing else."""

import hashlib
import struct
from functools import lru_cache

PER_BLOCK = 8
_UNIT = 2.0**-53
_WORDS = struct.Struct("<8Q")


def block(seed: int, name: str, number: int) -> tuple[float, ...]:
    """Return the ``PER_BLOCK`` uniforms of a stream from place ``PER_BLOCK`` x ``number`` on: in [0, 1), of 53 random bits."""
    words = hashlib.blake2b(number.to_bytes(8, "little"), key=_key(seed, name), digest_size=64).digest()
    return tuple([(word >> 11) * _UNIT for word in _WORDS.unpack(words)])


@lru_cache(maxsize=1_024)
def _key(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=32).digest()
