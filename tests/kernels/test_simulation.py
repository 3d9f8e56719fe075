"""Chance, numbers as text, and the simulated market compiled against interpreted, bit for bit."""

from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import interpreted
from alphapack.domain.market import BinanceMarket
from alphapack.domain.simulation import SimulatorSettings
from alphapack.kernels import simulation
from alphapack.models import simulator
from alphapack.models.simulator import Simulator
from interpreted import bits, kernels, modules

S = 1_000_000_000
START_NS = 1_760_000_040 * S
KEYS = st.integers(0, 2**62 - 1)
COUNTERS = st.integers(0, 2**60 - 1)
compiled = pytest.mark.skipif(not hasattr(simulation.word, "py_func"), reason="kernels are interpreted here")


def slow_word(key: int, n: int) -> int:
    """Two rounds of a mix of 32 bits, as numbers without end."""
    x = (n ^ key) % 2**32
    for _ in range(2):
        x = (x + key // 2**32 + 0x5BD1E995 * (n // 2**32)) % 2**32
        x = (x ^ x >> 16) * 0x21F0AAAD % 2**32
        x = (x ^ x >> 15) * 0x735A2D97 % 2**32
        x ^= x >> 15
    return x


@given(KEYS, COUNTERS)
def test_a_word_is_a_function_of_key_and_counter(key: int, n: int) -> None:
    assert simulation.word(key, n) == slow_word(key, n)


@pytest.mark.parametrize("key", [0, 1, 2**31, 2**62 - 1, 0x1234_5678_9ABC_DEF0])
def test_words_look_random(key: int) -> None:
    n = 65_536
    words = np.array([simulation.word(key, i) for i in range(n)], np.uint64)
    for shift in range(0, 32, 8):  # Each byte takes each value equally often: chi square of 255 degrees, mean 255, deviation 23.
        found = np.bincount((words >> np.uint64(shift)).astype(np.int64) & 255, minlength=256)
        assert np.sum((found - n / 256) ** 2) / (n / 256) == pytest.approx(255, abs=5 * 23)
    u = words / 2.0**32
    for lag in (1, 2, 3, 1_000):
        assert np.corrcoef(u[:-lag], u[lag:])[0, 1] == pytest.approx(0, abs=5 / np.sqrt(n))
    other = np.array([simulation.word(key ^ 1 << 40, i) for i in range(n)]) / 2.0**32
    assert np.corrcoef(u, other)[0, 1] == pytest.approx(0, abs=5 / np.sqrt(n))


def test_normal_numbers_have_mean_0_and_variance_1() -> None:
    n = 40_000
    found = np.array([simulation.normal(5, i) for i in range(n)])
    assert found.mean() == pytest.approx(0, abs=5 / np.sqrt(n))
    assert found.var() == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    assert abs(found).max() < 3.4642
    assert np.mean(abs(found) < 1) == pytest.approx(0.673, abs=0.015)
    uniforms = np.array([simulation.uniform(5, i) for i in range(n)])
    assert uniforms.min() > 0 and uniforms.max() < 1 and uniforms.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * n))


@given(st.integers(0, 2**63 - 1), st.integers(0, 18))
def test_numbers_are_written_exactly(value: int, decimals: int) -> None:
    out = np.full(64, 7, np.uint8)
    end = simulation.number(value, decimals, out, 3)
    assert out[3:end].tobytes().decode() == f"{Decimal(value).scaleb(-decimals):.{decimals}f}"
    assert (out[:3] == 7).all() and (out[end:] == 7).all()


@compiled
@pytest.mark.parametrize("market", ["usdm", "coinm"])
def test_every_kernel_gives_the_same_bits_compiled_and_interpreted(monkeypatch: pytest.MonkeyPatch, market: BinanceMarket) -> None:
    """A market whose calls run both ways, on equal arguments."""
    monkeypatch.setattr(interpreted, "NAMES", ("simulation",))
    calls: Counter[str] = Counter()
    plain: Any = modules(calls)["simulation"]

    class Both:
        def __getattr__(self, name: str) -> Any:
            found = getattr(simulation, name)
            if not hasattr(found, "py_func"):
                return found

            def both(*arguments: Any) -> Any:
                copies = [one.copy() if isinstance(one, np.ndarray) else one for one in arguments]
                second, first = getattr(plain, name)(*copies), found(*arguments)
                assert bits(first) == bits(second), name
                for i, (one, other) in enumerate(zip(arguments, copies, strict=True)):
                    assert bits(one) == bits(other), f"argument {i} of {name}"
                return first

            return both

    monkeypatch.setattr(simulator, "k", Both())
    name = "ETHUSD_PERP" if market == "coinm" else "ETHUSDT"
    one = Simulator(SimulatorSettings(symbols=(name,), activity=2.0), START_NS, market=market, history_minutes=300)
    one.advance(START_NS + 4 * S)
    one.advance(START_NS + 61 * S)
    one.snapshot(name, 50)
    one.klines(name, 0, 2**50, 5)
    assert set(calls) == {f"simulation.{kernel}" for kernel in kernels(simulation)}, "every kernel was run"
