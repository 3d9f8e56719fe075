"""Counter-based randomness: a draw depends on (seed, stream, symbol, how many were drawn there before) and nothing else."""

import hashlib
from collections.abc import Iterator

PER_BLOCK = 8
_UNIT = 2.0**-53


class Draws:
    """Uniforms of many independent streams, each with a counter of its own."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counts: dict[str, int] = {}

    def uniforms(self, stream: str, symbol: str = "") -> Iterator[float]:
        """Yield uniforms in [0, 1) with 53 random bits; the counter advances by one a value taken."""
        name = f"{stream}\0{symbol}"
        block, words = (-1, self.seed), b""
        while True:
            count = self.counts.get(name, 0)
            if (count // PER_BLOCK, self.seed) != block:
                block = count // PER_BLOCK, self.seed
                key = hashlib.blake2b(f"{self.seed}\0{name}".encode(), digest_size=32).digest()
                words = hashlib.blake2b(block[0].to_bytes(8, "little"), key=key, digest_size=64).digest()
            at = 8 * (count % PER_BLOCK)
            self.counts[name] = count + 1
            yield (int.from_bytes(words[at : at + 8], "little") >> 11) * _UNIT
