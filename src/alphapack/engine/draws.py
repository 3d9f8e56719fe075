"""Counter-based randomness: a draw depends on (seed, stream, symbol, how many were drawn there before) and nothing else."""

from collections.abc import Iterator

from alphapack.models.uniforms import PER_BLOCK, block


class Draws:
    """Uniforms of many independent streams, each with a counter of its own."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counts: dict[str, int] = {}

    def uniforms(self, stream: str, symbol: str = "") -> Iterator[float]:
        """Yield uniforms in [0, 1) with 53 random bits; the counter advances by one a value taken."""
        name = f"{stream}\0{symbol}"
        known = -1, self.seed
        values: tuple[float, ...] = ()
        while True:
            count = self.counts.get(name, 0)
            if (count // PER_BLOCK, self.seed) != known:
                known = count // PER_BLOCK, self.seed
                values = block(self.seed, name, known[0])
            self.counts[name] = count + 1
            yield values[count % PER_BLOCK]
