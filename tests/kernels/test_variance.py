"""Returns and windows: compiled as interpreted, to the bit, and as numpy sums them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapack.arrays import Float64Array1D, Float64Array2D, Uint8Array1D
from alphapack.kernels import variance

windows = getattr(variance.windows, "py_func", variance.windows)
returns = getattr(variance.returns, "py_func", variance.returns)


def sample(seed: int, n: int, gaps: float) -> tuple[Float64Array1D, Uint8Array1D, Float64Array1D]:
    rng = np.random.default_rng(seed)
    moves = rng.standard_normal(n) * 1e-3
    known = (rng.random(n) >= gaps).astype(np.uint8)
    return moves * known, known, np.exp(rng.normal(0, 0.2, 50))


@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 120),
    gaps=st.sampled_from([0.0, 0.2, 1.0]),
    lags=st.lists(st.integers(1, 200), min_size=1, max_size=4, unique=True).map(sorted),
    phase=st.integers(0, 49),
)
def test_vol_models_sum_windows_compiled_as_interpreted(seed: int, n: int, gaps: float, lags: list[int], phase: int) -> None:
    moves, known, weights = sample(seed, n, gaps)
    at = n - 1
    compiled: Float64Array2D = np.empty((4, len(lags)))
    interpreted = compiled.copy()
    variance.windows(moves, known, weights, at, phase, np.array(lags, np.float64), compiled)
    windows(moves, known, weights, at, phase, np.array(lags, np.float64), interpreted)
    assert compiled.tobytes() == interpreted.tobytes()
    size = np.abs(moves) * weights[(phase - (at - np.arange(n))) % 50]
    for i, lag in enumerate(lags):
        part, there = size[max(0, n - lag) :], known[max(0, n - lag) :]
        pairs = there[1:] * there[:-1]
        expected = [np.sum(part**2), there.sum(), np.sum(part[1:] * part[:-1] * pairs), pairs.sum()]
        np.testing.assert_allclose(compiled[:, i], expected, rtol=1e-12, atol=1e-300)


def test_vol_models_sum_a_window_alike_wherever_the_array_begins() -> None:
    moves, known, weights = sample(7, 500, 0.1)
    one: Float64Array2D = np.empty((4, 2))
    other = one.copy()
    lags = np.array([10.0, 200.0])
    variance.windows(moves, known, weights, 499, 13, lags, one)
    variance.windows(moves[250:].copy(), known[250:].copy(), weights, 249, 13, lags, other)
    assert one.tobytes() == other.tobytes()


def test_vol_models_take_returns_compiled_as_interpreted() -> None:
    rng = np.random.default_rng(3)
    minutes = np.cumsum(rng.choice([1, 1, 1, 2, 5], 200))
    rows = np.ones((200, 6))
    rows[:, 0] = minutes * variance.MINUTE_MS
    rows[:, 4] = 100 * np.exp(rng.normal(0, 0.3, 200).cumsum())
    out = np.zeros(int(minutes[-1]) + 1)
    known = np.zeros(len(out), np.uint8)
    same, same_known = out.copy(), known.copy()
    variance.returns(rows, 0, 0.5, out, known)
    returns(rows, 0, 0.5, same, same_known)
    assert out.tobytes() == same.tobytes()
    assert known.tobytes() == same_known.tobytes()
    moves = np.diff(np.log(rows[:, 4]))
    kept = (np.diff(minutes) == 1) & (np.abs(moves) <= 0.5)
    assert known.sum() == kept.sum()
    assert out[known == 1] == pytest.approx(moves[kept], rel=1e-12)
