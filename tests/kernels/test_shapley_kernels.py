"""The Shapley kernels against plain sums and exact fractions, and compiled against interpreted."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import interpreted
from alphapack.kernels import shapley as k
from interpreted import bits, kernels, modules

compiled = pytest.mark.skipif(not hasattr(k.fold, "py_func"), reason="kernels are interpreted here")


def weights(n: int) -> np.ndarray:
    return np.array([0.0, *(math.factorial(s) * math.factorial(n - 1 - s) / math.factorial(n) for s in range(n)), 0.0])


def folded(values: np.ndarray, n: int, kernel: Any = k) -> np.ndarray:
    without, joined, credits = np.full(2**n, 7.0), np.full(2**n, 7.0), np.full(n, 7.0)
    assert kernel.weigh(values, weights(n), without, joined)
    kernel.fold(without, joined, credits)
    return credits


def exact(values: np.ndarray, n: int) -> list[Fraction]:
    """The definition, one subset at a time, in fractions."""
    whole = [Fraction(value) for value in values.tolist()]
    sums = [Fraction(0)] * n
    for player in range(n):
        for coalition in range(2**n):
            if not coalition >> player & 1:
                others = coalition.bit_count()
                share = Fraction(math.factorial(others) * math.factorial(n - 1 - others), math.factorial(n))
                sums[player] += share * (whole[coalition | 1 << player] - whole[coalition])
    return sums


def test_alpha_attribution_kernel_counts_bits() -> None:
    words = [0, 1, 2, 3, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x55555555, *np.random.default_rng(0).integers(0, 2**31, 500).tolist()]
    assert [k.popcount(word) for word in words] == [word.bit_count() for word in words]


@pytest.mark.parametrize("n", range(1, 9))
def test_alpha_attribution_kernel_equals_the_definition_in_fractions(n: int) -> None:
    values = np.random.default_rng(n).normal(0.3, 1.0, 2**n)
    expected = exact(values, n)
    scale = float(max(map(abs, expected)))
    np.testing.assert_allclose(folded(values, n), [float(one) for one in expected], rtol=0.0, atol=1e-14 * scale)


def test_alpha_attribution_kernel_writes_weighed_values() -> None:
    n = 5
    values = np.random.default_rng(9).normal(size=2**n)
    without, joined = np.empty(2**n), np.empty(2**n)
    assert k.weigh(values, weights(n), without, joined)
    for coalition in range(2**n):
        size, value = coalition.bit_count(), values[coalition] - values[0]
        assert without[coalition] == (weights(n)[size + 1] * value if size < n else 0.0)
        assert joined[coalition] == (weights(n)[size] * value if size else 0.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1.01e300])
@pytest.mark.parametrize("at", [0, 3, 15])
def test_alpha_attribution_kernel_refuses_what_is_not_a_value(wrong: float, at: int) -> None:
    values = np.zeros(16)
    values[at] = wrong
    assert not k.weigh(values, weights(4), np.empty(16), np.empty(16))


def test_alpha_attribution_kernel_stays_finite_at_the_edge() -> None:
    values = np.where(np.arange(2**10) % 3 == 0, -k.VALUE_MAX, k.VALUE_MAX)
    assert np.all(np.isfinite(folded(values, 10)))


@compiled
def test_alpha_attribution_kernels_give_the_same_bits_compiled_and_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreted, "NAMES", ("shapley",))
    plain = modules()["shapley"]
    assert kernels(k) == ["popcount", "weigh", "fold"]
    for n in (1, 2, 7, 10):
        values = np.random.default_rng(n).normal(size=2**n)
        assert bits(folded(values, n, plain)) == bits(folded(values, n))
    for word in (0, 0x7FFFFFFF, 0x12345678):
        assert plain.popcount(word) == k.popcount(word)
