"""The kernels of smiles against dense searches in plain Python, and compiled against interpreted, bit for bit."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import interpreted
from alphapack.kernels import smile as k

compiled = pytest.mark.skipif(not hasattr(k.crossing, "py_func"), reason="kernels are interpreted here")
NORMAL = NormalDist()
SVI = np.array((0.01, 0.08, -0.3, 0.02, 0.15))
STEEP = np.array((0.002, 0.4, -0.8, 0.05, 0.05))


def linear(*nodes: tuple[float, float]) -> np.ndarray:
    return np.array([x for x, _ in nodes] + [w for _, w in nodes])


FLAT = linear((0.0, 0.04))
SKEWED = linear((-0.3, 0.09), (-0.1, 0.05), (0.0, 0.04), (0.2, 0.045), (0.5, 0.12))
FOLDED = linear((0.0, 0.01), (0.1, 0.01), (0.11, 0.4), (0.3, 0.4), (0.31, 0.05))
"""Its calls fall below a quarter, rise above it again where volatility jumps up, and fall once more."""
NARROW = linear((0.0, 0.01), (0.078, 0.01), (0.085, 0.4), (0.3, 0.4), (0.31, 0.05))
"""The same, with a first fall no wider than a twentieth of a standard deviation."""
CURVES = [(k.SVI, SVI), (k.SVI, STEEP), *((k.LINEAR, nodes) for nodes in (FLAT, SKEWED, FOLDED, NARROW))]


def variance(kind: int, curve: np.ndarray, x: float) -> float:
    if kind == k.SVI:
        a, b, rho, m, sigma = curve
        return a + b * (rho * (x - m) + math.hypot(x - m, sigma))
    n = len(curve) // 2
    return float(np.interp(x, curve[:n], curve[n:]))


def slow_size(kind: int, curve: np.ndarray, x: float, role: int, adjusted: bool) -> float:
    s = math.sqrt(variance(kind, curve, x))
    d = -x / s + (-s / 2 if adjusted else s / 2)
    if role == 0:
        return d
    return NORMAL.cdf(role * d) * (math.exp(x) if adjusted else 1.0)


def slow_crossings(kind: int, curve: np.ndarray, role: int, adjusted: bool, target: float) -> list[float]:
    """Return all strikes at which the size falls through the target on the way out of the money, found on a grid of 8,000."""
    out = -1 if role < 0 else 1
    grid = out * np.linspace(-3.0, 3.0, 8_002)
    sizes = [slow_size(kind, curve, float(x), role, adjusted) for x in grid]
    found = []
    for i in range(len(grid) - 1):
        if sizes[i] >= target > sizes[i + 1]:
            inner, outer = float(grid[i]), float(grid[i + 1])
            for _ in range(60):
                middle = (inner + outer) / 2
                if slow_size(kind, curve, middle, role, adjusted) >= target:
                    inner = middle
                else:
                    outer = middle
            found.append(inner)
    return found


def prepared(strikes: list[float], s: list[float], weights: list[float], forward: float) -> np.ndarray | None:
    quotes = np.empty((4, len(strikes)))
    done = k.prepare(np.array(strikes), np.array(s), np.array(weights), np.argsort(strikes), forward, quotes)
    return quotes if done else None


def test_options_smile_quotes_are_prepared_in_the_order_of_strikes() -> None:
    strikes, s, forward = [110.0, 60.0, 100.0, 400.0], [0.3, 0.5, 0.2, 0.4], 102.0
    quotes = prepared(strikes, s, [], forward)
    assert quotes is not None
    d = [math.log(forward / strike) / one + one / 2 for strike, one in zip(strikes, s, strict=True)]
    vegas = [NORMAL.pdf(one) ** 2 for one in d]
    order = [1, 2, 0, 3]
    assert quotes[k.X] == pytest.approx([math.log(strikes[i] / forward) for i in order], rel=1e-14)
    assert quotes[k.W] == pytest.approx([s[i] ** 2 for i in order], rel=1e-14)
    assert quotes[k.WEIGHT] == pytest.approx([max(vegas[i] / max(vegas), 1e-3) for i in order], rel=1e-12)
    assert quotes[k.WEIGHT, 3] == 1e-3
    assert quotes[k.WEIGHT_W] == pytest.approx(quotes[k.WEIGHT] / quotes[k.W], rel=1e-14)
    given = prepared(strikes, s, [1.0, 2.0, 3.0, 4.0], forward)
    assert given is not None
    assert given[k.WEIGHT].tolist() == [2.0, 3.0, 1.0, 4.0]


@pytest.mark.parametrize(
    ("strikes", "s", "weights"),
    [
        ([1.0, 1.0], [0.1, 0.1], []),
        ([1.0, math.nextafter(1.0, 2.0)], [0.1, 0.1], []),
        ([1.0, math.nan], [0.1, 0.1], []),
        ([0.0, 1.0], [0.1, 0.1], []),
        ([1.0, math.inf], [0.1, 0.1], []),
        ([1.0, 2.0], [0.1, math.nan], []),
        ([1.0, 2.0], [0.1, 10.1], []),
        ([1.0, 2.0], [0.0, 0.1], []),
        ([1.0, 2.0], [0.1, 0.1], [1.0, math.nan]),
        ([1.0, 2.0], [0.1, 0.1], [0.0, 1.0]),
    ],
)
def test_options_smile_quotes_out_of_range_or_twice_are_not_prepared(strikes: list[float], s: list[float], weights: list[float]) -> None:
    # Strikes so near to each other that they round to one x are one.
    assert prepared(strikes, s, weights, 1e10) is None


def test_options_smile_a_miss_is_the_weighted_error_of_volatility() -> None:
    quotes = prepared([0.8, 1.0, 1.2], [0.3, 0.25, 0.28], [1.0, 3.0, 2.0], 1.0)
    assert quotes is not None
    error, level = k.miss(k.LINEAR, FLAT, quotes)
    errors = [0.2 - one for one in (0.3, 0.25, 0.28)]
    assert error == pytest.approx(math.sqrt((errors[0] ** 2 + 3 * errors[1] ** 2 + 2 * errors[2] ** 2) / 6), rel=1e-13)
    assert level == pytest.approx((0.3 + 3 * 0.25 + 2 * 0.28) / 6, rel=1e-14)


@given(st.sampled_from(CURVES), st.floats(-2.0, 2.0))
def test_options_smile_variance_is_svi_or_linear_and_flat_beyond_the_nodes(curve: tuple[int, np.ndarray], x: float) -> None:
    assert k.variance_at(*curve, x) == pytest.approx(variance(*curve, x), rel=1e-13)


def test_options_smile_variance_at_a_node_is_the_nodes() -> None:
    n = len(SKEWED) // 2
    out = np.empty(n)
    k.variances(k.LINEAR, SKEWED, SKEWED[:n].copy(), out)
    assert out.tolist() == SKEWED[n:].tolist()


@given(st.sampled_from(CURVES), st.floats(-1.0, 1.0), st.sampled_from([-1, 0, 1]), st.booleans())
def test_options_smile_sizes_are_those_of_the_normal_distribution(
    curve: tuple[int, np.ndarray], x: float, role: int, adjusted: bool
) -> None:
    assert k.size_at(*curve, x, role, adjusted) == pytest.approx(slow_size(*curve, x, role, adjusted), rel=1e-11, abs=1e-15)


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("role", [-1, 0, 1])
@pytest.mark.parametrize("curve", range(len(CURVES)))
def test_options_smile_crossing_is_the_one_nearest_the_forward_of_all(curve: int, role: int, adjusted: bool) -> None:
    kind, nodes = CURVES[curve]
    for target in (0.0,) if role == 0 else (0.25, 0.1):
        every = slow_crossings(kind, nodes, role, adjusted, target)
        assert k.crossing(kind, nodes, role, adjusted, target) == pytest.approx(min(every, key=abs), rel=1e-10, abs=1e-13)


def test_options_smile_a_folded_smile_has_several_crossings_and_the_nearest_is_taken() -> None:
    for curve, wall in ((FOLDED, 0.11), (NARROW, 0.085)):
        every = slow_crossings(k.LINEAR, curve, 1, False, 0.25)
        assert len(every) == 2
        assert k.crossing(k.LINEAR, curve, 1, False, 0.25) == pytest.approx(every[0], rel=1e-10)
        assert every[0] < wall < every[1]


def test_options_smile_a_crossing_leaves_no_more_than_rounding() -> None:
    for kind, nodes in CURVES:
        for role in (-1, 1):
            x = k.crossing(kind, nodes, role, False, 0.25)
            assert k.size_at(kind, nodes, x, role, False) == pytest.approx(0.25, abs=5e-15)


def test_options_smile_no_crossing_is_nan() -> None:
    assert math.isnan(k.crossing(k.LINEAR, FLAT, 1, False, 1.0 + 1e-12))
    assert math.isnan(k.crossing(k.LINEAR, linear((0.0, 1.5**2)), 1, True, 0.25))
    assert not math.isnan(k.crossing(k.LINEAR, linear((0.0, 1.5**2)), 1, False, 0.25))


def test_options_smile_no_variance_at_the_forward_is_the_limit_of_little() -> None:
    touching = np.array((-0.0625, 0.25, 0.0, 0.0, 0.25))
    assert k.variance_at(k.SVI, touching, 0.0) == 0.0
    assert 0.0 < k.crossing(k.SVI, touching, 1, False, 0.25) < 1e-140


@pytest.mark.parametrize("curve", range(len(CURVES)))
def test_options_smile_pillars_are_the_three_crossings_and_their_variances(curve: int) -> None:
    kind, nodes = CURVES[curve]
    out = np.empty(6)
    k.pillars(kind, nodes, False, 0.25, out)
    crossings = [k.crossing(kind, nodes, role, False, 0.25 if role else 0.0) for role in (-1, 0, 1)]
    assert out.tolist() == crossings + [k.variance_at(kind, nodes, x) for x in crossings]


def test_options_smile_pillars_that_are_not_there_are_nan() -> None:
    out = np.zeros(6)
    k.pillars(k.LINEAR, linear((0.0, 1.5**2)), True, 0.25, out)
    assert np.isnan(out).tolist() == [False, False, True, False, False, True]


@given(st.one_of(st.floats(1e-8, 10.0), st.sampled_from([1e-8, 1e-4, 1.0, 10.0])))
def test_options_smile_peak_is_where_the_adjusted_delta_of_a_call_is_greatest(s: float) -> None:
    x = k.peak(s)
    d = -x / s - s / 2
    density = math.exp(-d * d / 2) / math.sqrt(2 * math.pi)
    assert density == pytest.approx(s * math.erfc(-d / math.sqrt(2)) / 2, rel=1e-7)
    top = k.size(x, s, 1, True)
    assert top >= k.size(x + 0.01 * s, s, 1, True)
    assert top >= k.size(x - 0.01 * s, s, 1, True)


@compiled
def test_options_smile_kernels_give_the_same_bits_compiled_and_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreted, "NAMES", ("svi", "smile"))
    plain = interpreted.modules()["smile"]
    for kind, nodes in CURVES:
        for adjusted in (False, True):
            first, second = np.empty(6), np.empty(6)
            k.pillars(kind, nodes, adjusted, 0.25, first)
            plain.pillars(kind, nodes, adjusted, 0.25, second)
            assert interpreted.bits(first) == interpreted.bits(second)
        x = np.linspace(-0.6, 0.6, 13)
        first, second = np.empty(13), np.empty(13)
        k.variances(kind, nodes, x, first)
        plain.variances(kind, nodes, x, second)
        assert interpreted.bits(first) == interpreted.bits(second)
        s, role = np.sqrt(first), np.where(x > 0.0, 1.0, -1.0)
        k.deltas(x, s, role, True, 0.97, first)
        plain.deltas(x, s, role, True, 0.97, second)
        assert interpreted.bits(first) == interpreted.bits(second)
    strikes, sds, order = np.array((1.1, 0.7, 0.9)), np.array((0.2, 0.3, 0.25)), np.array((1, 2, 0))
    for weights in (np.zeros(0), strikes):
        left, right = np.empty((4, 3)), np.empty((4, 3))
        assert k.prepare(strikes, sds, weights, order, 1.0, left) == plain.prepare(strikes, sds, weights, order, 1.0, right)
        assert interpreted.bits(left) == interpreted.bits(right)
        assert interpreted.bits(k.miss(k.SVI, SVI, left)) == interpreted.bits(plain.miss(k.SVI, SVI, left))
    for s in (1e-8, 0.2, 1.3, 10.0):
        assert interpreted.bits(k.peak(s)) == interpreted.bits(plain.peak(s))
        flat = linear((0.0, s * s))
        ends = (3.0 * s, -3.0 * s)
        assert interpreted.bits(k.halved(k.LINEAR, flat, -1, True, 0.2, *ends)) == interpreted.bits(
            plain.halved(k.LINEAR, flat, -1, True, 0.2, *ends)
        )
