import hashlib

from hypothesis import given
from hypothesis import strategies as st

from alphapack.engine.digest import BLOCK_BYTES, SIZE_BYTES, Digest

SIZES = st.one_of(st.integers(0, 64), st.integers(BLOCK_BYTES // 2, 2 * BLOCK_BYTES), st.sampled_from([BLOCK_BYTES - 1, BLOCK_BYTES]))
UPDATES = st.lists(st.builds(lambda size, fill: bytes([fill]) * size, SIZES, st.integers(0, 255)), max_size=8)


def fed(updates: list[bytes]) -> Digest:
    digest = Digest()
    for update in updates:
        digest.update(update)
    return digest


def by_definition(updates: list[bytes]) -> str:
    """Blocks that end after the update which fills them, each hashed behind the hash before it."""
    chain, block = b"\0" * SIZE_BYTES, b""
    for update in updates:
        block += update
        if len(block) >= BLOCK_BYTES:
            chain, block = hashlib.blake2b(chain + block, digest_size=SIZE_BYTES).digest(), b""
    return hashlib.blake2b(chain + block, digest_size=SIZE_BYTES).hexdigest()


@given(UPDATES)
def test_it_is_the_chain_of_block_hashes(updates: list[bytes]) -> None:
    assert fed(updates).hexdigest() == by_definition(updates)


@given(UPDATES, st.data())
def test_a_saved_digest_goes_on_as_if_nothing_had_happened(updates: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(updates)))
    first = fed(updates[:cut])
    resumed = Digest()
    resumed.update(b"of another life")
    resumed.load(*first.save())
    assert resumed.hexdigest() == first.hexdigest()
    for update in updates[cut:]:
        resumed.update(update)
    assert resumed.hexdigest() == fed(updates).hexdigest()
    assert resumed.save() == fed(updates).save()


@given(UPDATES)
def test_asking_for_it_ends_no_block(updates: list[bytes]) -> None:
    asked = Digest()
    for update in updates:
        asked.update(update)
        asked.hexdigest()
        asked.save()
    assert asked.hexdigest() == fed(updates).hexdigest()


@given(st.binary(min_size=1, max_size=200), st.data())
def test_every_bit_counts(content: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[at // 8] ^= 1 << at % 8
    assert fed([bytes(flipped)]).hexdigest() != fed([content]).hexdigest()


def test_order_counts_across_blocks() -> None:
    one, two = b"1" * BLOCK_BYTES, b"2" * BLOCK_BYTES
    assert fed([one, two]).hexdigest() != fed([two, one]).hexdigest()
    assert len(fed([one, two]).hexdigest()) == 32


def test_what_it_holds_is_bounded() -> None:
    digest = Digest()
    for _ in range(300):
        digest.update(bytes(1_000))
        chain, block = digest.save()
        assert len(chain) == SIZE_BYTES and len(block) < BLOCK_BYTES


def test_a_saved_state_is_not_changed_by_what_comes_later() -> None:
    digest = fed([b"before"])
    state = digest.save()
    digest.update(b"after")
    resumed = Digest()
    resumed.load(*state)
    resumed.update(b"other")
    assert digest.hexdigest() == fed([b"before", b"after"]).hexdigest()
    assert resumed.hexdigest() == fed([b"before", b"other"]).hexdigest()
