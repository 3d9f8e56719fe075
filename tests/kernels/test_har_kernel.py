"""Windows, sums and least squares under HAR: against exact numbers and loops, and compiled against interpreted, bit for bit."""

import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import interpreted
from alphapack.kernels import har as k
from alphapack.models import har
from interpreted import bits, kernels, modules

compiled = pytest.mark.skipif(not hasattr(k.solve, "py_func"), reason="kernels are interpreted here")
PERIODS = st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(-25, 25), st.booleans()), min_size=12, max_size=40)


@given(PERIODS, st.integers(1, 6), st.integers(1, 4))
def test_vol_models_windows_are_exact_whatever_stands_beside_them(periods: list[tuple[float, int, bool]], width: int, step: int) -> None:
    """Values of any size: a sum over small ones must not show what large ones came before."""
    values = np.array([number * 10.0**power for number, power, _ in periods])
    valid = np.array([one for _, _, one in periods], np.uint8)
    prefix = np.empty((3, len(values) + 1))
    assert k.add_up(values, valid, prefix) == -1
    ends = np.arange(width - 1, len(values), step)
    column = np.empty(len(ends))
    k.fill(values, prefix, width, width - 1, step, column)
    for end, found in zip(ends.tolist(), column.tolist(), strict=True):
        span = [Fraction(values[i]) for i in range(end - width + 1, end + 1) if valid[i]]
        if len(span) < 0.9 * width:
            assert math.isnan(found)
        else:
            # What is lost is 2^-100 of the largest value anywhere.
            assert found == pytest.approx(float(sum(span) / len(span)), rel=1e-15, abs=1e-30 * float(values.max()))


@pytest.mark.parametrize("bad", [-1e-300, math.nan, math.inf, 2e50])
def test_vol_models_sums_name_the_first_value_that_is_none(bad: float) -> None:
    values, prefix = np.array([1.0, 0.0, bad, 1.0, bad]), np.empty((3, 6))
    valid = np.array([1, 1, 1, 1, 1], np.uint8)
    assert k.add_up(values, valid, prefix) == 2
    valid[2] = 0
    assert k.add_up(values, valid, prefix) == 4
    valid[4] = 0
    assert k.add_up(values, valid, prefix) == -1
    assert prefix[:, -1].tolist() == [2.0, 0.0, 3.0]


@pytest.mark.parametrize("lag", [0, 1, 63, 64, 255, 256, 300])
def test_vol_models_moving_sums_reach_over_blocks(lag: int) -> None:
    n = 4 * k.BLOCK
    draws = np.random.default_rng(lag)
    table, left = draws.standard_normal((2, n)), draws.standard_normal(n)
    ring, moving, found = np.zeros((2, (lag // k.BLOCK + 2) * k.BLOCK)), np.empty((2, k.BLOCK)), []
    for begin in range(0, n, k.BLOCK):
        k.score(table, begin, lag, left[begin : begin + k.BLOCK], ring, moving)
        found.append(moving.copy())
    scores = table * left
    expected = [[math.fsum(row[max(0, i - lag) : i + 1]) for i in range(n)] for row in scores.tolist()]
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=1e-12)


def test_vol_models_products_leave_no_trace_in_the_lanes() -> None:
    table = np.random.default_rng(1).standard_normal((3, 3 * k.BLOCK))
    lanes, moments = np.zeros((6, k.LANES)), np.full((4, 3), 7.0)
    k.gather(table, lanes, moments)
    lower = np.tril_indices(3)
    np.testing.assert_allclose(moments[lower], (table @ table.T)[lower], rtol=1e-12)
    assert not lanes.any()


@compiled
def test_vol_models_kernels_give_the_same_bits_compiled_and_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits whose kernel calls run both ways, on equal arguments."""
    monkeypatch.setattr(interpreted, "NAMES", ("har",))
    calls: Counter[str] = Counter()
    plain: Any = modules(calls)["har"]

    class Both:
        def __getattr__(self, name: str) -> Any:
            found = getattr(k, name)
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

    monkeypatch.setattr(har, "k", Both())
    draws = np.random.default_rng(3)
    values = np.exp(np.convolve(draws.standard_normal(330), np.ones(30) / 5.0, "valid"))
    valid = draws.random(len(values)) < 0.97
    extra = values * draws.uniform(0.5, 1.5, len(values))
    har.fit(values, (1, 5, 22))
    har.fit(values + 1_000.0, (1, 5), horizon=3)
    har.fit(values, (2, 10), "log", horizon=4, step=2, valid=valid)
    har.fit(values, (1, 10), "harq", quarticity=extra * extra, step=3, valid=valid)
    har.fit(values, (1, 5), "harj", bipower=extra)
    missing = sorted({f"har.{name}" for name in kernels(k)} - set(calls))
    assert not missing, f"never called: {missing}"
