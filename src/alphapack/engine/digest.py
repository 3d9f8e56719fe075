"""A 128-bit digest of everything that entered and was computed, chained by blocks so that it can be saved and resumed."""

import hashlib

BLOCK_BYTES = 1 << 16
SIZE_BYTES = 16


class Digest:
    """Blake2b over blocks: each block's hash covers the hash before it.

    Blocks end after the update that fills them, so they fall alike whenever the updates are alike, and a state saved
    between two updates goes on exactly as if nothing had happened.
    """

    def __init__(self) -> None:
        self._chain = bytes(SIZE_BYTES)
        self._block = bytearray()

    def update(self, data: bytes) -> None:
        """Add bytes; the caller sees to it that their boundaries can be told."""
        self._block += data
        if len(self._block) >= BLOCK_BYTES:
            self._chain = self._hash()
            self._block.clear()

    def hexdigest(self) -> str:
        """Return the digest of all updates so far, without ending a block."""
        return self._hash().hex()

    def _hash(self) -> bytes:
        state = hashlib.blake2b(self._chain, digest_size=SIZE_BYTES)
        state.update(self._block)
        return state.digest()

    def save(self) -> tuple[bytes, bytes]:
        """Return the chain and the block that is not full yet."""
        return self._chain, bytes(self._block)

    def load(self, chain: bytes, block: bytes) -> None:
        """Go on from what ``save`` returned."""
        self._chain, self._block = chain, bytearray(block)
