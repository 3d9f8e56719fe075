import hashlib
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from alphapack import app
from alphapack.domain.inputs import Configure, CoreSettings, Heartbeat
from alphapack.engine.draws import Draws
from alphapack.engine.engine import Engine

# Made with OpenSSL's BLAKE2BMAC over block numbers 0 and 1, the key being the BLAKE2b-256 of "7\0router\0binance-usdm:BTCUSDT".
GOLDEN = [
    *(0.9179471126460758, 0.34558128310163194, 0.7915021154081384, 0.2887805760969788),
    *(0.24754900656849688, 0.0792843467197134, 0.47477654877573994, 0.8850487673469627),
    *(0.6696600463001852, 0.048638981498422496, 0.9419571864637896, 0.7971224041955188),
]
NAMES = st.tuples(st.sampled_from(["router", "api", "simulator"]), st.sampled_from(["", "binance-usdm:BTCUSDT", "binance-spot:BTCUSDT"]))


def by_definition(seed: int, stream: str, symbol: str, count: int) -> float:
    """Word ``count`` of the keyed hashes of the block numbers, its upper 53 bits as a fraction."""
    key = hashlib.blake2b(f"{seed}\0{stream}\0{symbol}".encode(), digest_size=32).digest()
    words = hashlib.blake2b((count // 8).to_bytes(8, "little"), key=key, digest_size=64).digest()
    word = words[count % 8 * 8 :][:8]
    return (int.from_bytes(word, "little") // 2**11) / 2**53


def test_golden_values() -> None:
    assert list(islice(Draws(7).uniforms("router", "binance-usdm:BTCUSDT"), len(GOLDEN))) == GOLDEN


@given(st.integers(0, 2**63 - 1), NAMES, st.integers(0, 10**12), st.integers(1, 20))
def test_a_draw_depends_on_seed_stream_symbol_and_count_alone(seed: int, name: tuple[str, str], drawn: int, count: int) -> None:
    draws = Draws(seed)
    draws.counts["\0".join(name)] = drawn
    values = list(islice(draws.uniforms(*name), count))
    assert values == [by_definition(seed, *name, drawn + i) for i in range(count)]
    assert draws.counts == {"\0".join(name): drawn + count}


@given(st.lists(NAMES, max_size=60))
def test_drawing_from_one_stream_never_changes_another(order: list[tuple[str, str]]) -> None:
    together = Draws(7)
    found: dict[tuple[str, str], list[float]] = {}
    for name in order:
        found.setdefault(name, []).append(next(together.uniforms(*name)))
    for name, values in found.items():
        assert values == list(islice(Draws(7).uniforms(*name), len(values)))


def test_two_readers_of_one_stream_share_its_counter() -> None:
    draws = Draws(7)
    one, other = draws.uniforms("router"), draws.uniforms("router")
    values = [next(reader) for reader in (one, other, other, one) * 5]
    assert values == list(islice(Draws(7).uniforms("router"), 20))


def test_draws_are_uniform_in_the_half_open_unit_interval() -> None:
    values = sorted(islice(Draws(7).uniforms("router"), 20_000))
    assert values[0] >= 0.0 and values[-1] < 1.0
    distance = max(max(abs(value - i / 20_000), abs(value - (i + 1) / 20_000)) for i, value in enumerate(values))
    assert distance < 1.63 / 20_000**0.5, "Kolmogorov-Smirnov at 1 %, for a stream that is always the same"


def test_another_seed_is_another_stream() -> None:
    one, other = (list(islice(Draws(seed).uniforms("router"), 50)) for seed in (7, 8))
    assert set(one).isdisjoint(other)


def test_the_counters_are_saved_and_the_seed_is_a_setting() -> None:
    def started() -> Engine:
        engine = Engine([], app.BUILT_IN)
        engine.step(Configure(1, 0, CoreSettings(seed=11)))
        return engine

    engine = started()
    first = [next(engine.draws("router", "a:X")) for _ in range(5)]
    next(engine.draws("api"))
    resumed = Engine([], app.BUILT_IN)
    resumed.load(engine.save())
    for _ in range(3):
        resumed.step(Heartbeat(resumed.seq + 1, resumed.now_ns))
        resumed.hexdigest()
    rest = [next(resumed.draws("router", "a:X")) for _ in range(5)]
    assert first + rest == [by_definition(11, "router", "a:X", i) for i in range(10)]
    assert next(resumed.draws("api")) == by_definition(11, "api", "", 1)
