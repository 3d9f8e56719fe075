"""Schedules: published numbers, the optimum by other means, limits, and slices of lots that add up."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alphapack.models.schedules import LOTS_MAX, PERIODS_MAX, Schedule, almgren_chriss, along, by_volume, intervals, participation, uniform

X = 1e6
EPSILON, ETA, GAMMA = 0.0625, 2.5e-6, 2.5e-7
DAILY = 0.30 * 50.0 / math.sqrt(250.0)
"""Of a share of 50 at 30% a year; the published frontier rounds it to 0.95."""

# Almgren and Chriss's example as lakshmiDRIP/DROP prints it (sample/almgrenchriss, EfficientFrontierNoDrift and
# TrajectoryComparisonNoDrift): lambda in 1e-6, mean in X, variance in X^2, mean + lambda variance in X, half-life in days.
FRONTIER = [
    (0.001, 0.6625, 1.0812, 0.6636, 51.30),
    (0.002, 0.6625, 1.0794, 0.6647, 36.27),
    (0.003, 0.6625, 1.0776, 0.6657, 29.62),
    (0.004, 0.6625, 1.0758, 0.6668, 25.65),
    (0.005, 0.6625, 1.0740, 0.6679, 22.94),
    (0.006, 0.6625, 1.0722, 0.6690, 20.94),
    (0.007, 0.6625, 1.0704, 0.6700, 19.39),
    (0.008, 0.6626, 1.0687, 0.6711, 18.14),
    (0.009, 0.6626, 1.0669, 0.6722, 17.10),
    (0.250, 0.6996, 0.7513, 0.8875, 3.26),
    (0.500, 0.7681, 0.5634, 1.0498, 2.31),
    (0.750, 0.8412, 0.4448, 1.1748, 1.89),
    (1.000, 0.9112, 0.3641, 1.2754, 1.65),
    (1.250, 0.9761, 0.3061, 1.3588, 1.48),
    (1.500, 1.0358, 0.2626, 1.4296, 1.35),
    (1.750, 1.0904, 0.2288, 1.4909, 1.26),
    (2.000, 1.1407, 0.2019, 1.5446, 1.18),
    (2.250, 1.1871, 0.1801, 1.5922, 1.12),
    (2.500, 1.2300, 0.1620, 1.6349, 1.06),
    (2.750, 1.2699, 0.1468, 1.6735, 1.02),
    (3.000, 1.3071, 0.1338, 1.7085, 0.98),
    (3.250, 1.3418, 0.1227, 1.7405, 0.94),
    (3.500, 1.3745, 0.1130, 1.7700, 0.91),
    (3.750, 1.4052, 0.1045, 1.7971, 0.88),
    (4.000, 1.4341, 0.0970, 1.8223, 0.86),
]
# Lambda in 1e-6, and holdings in hundredths of X after days 1 to 4, at the unrounded volatility.
TRAJECTORIES = [
    (0.001, 79.955, 59.939, 39.947, 19.970),
    (0.250, 70.550, 47.784, 29.545, 14.104),
    (0.500, 63.724, 39.522, 22.809, 10.418),
    (0.750, 58.467, 33.551, 18.171, 7.955),
    (1.000, 54.238, 29.030, 14.822, 6.230),
    (1.250, 50.728, 25.486, 12.315, 4.979),
    (1.500, 47.747, 22.634, 10.387, 4.044),
    (1.750, 45.169, 20.291, 8.870, 3.331),
    (2.000, 42.907, 18.333, 7.654, 2.775),
    (2.250, 40.900, 16.674, 6.664, 2.336),
    (2.500, 39.103, 15.251, 5.848, 1.984),
    (2.750, 37.480, 14.019, 5.167, 1.698),
    (3.000, 36.005, 12.942, 4.593, 1.464),
    (3.250, 34.656, 11.994, 4.105, 1.270),
    (3.500, 33.417, 11.154, 3.687, 1.108),
    (3.750, 32.272, 10.406, 3.326, 0.972),
    (4.000, 31.212, 9.734, 3.013, 0.857),
]

lots_of_orders = st.integers(0, 2_000) | st.integers(0, LOTS_MAX)
volumes_of_slices = st.lists(st.integers(0, 9) | st.floats(0.0, 1e12), min_size=1, max_size=40)


def example_of(lam: float, sigma: float = 0.95, quantity: float = X, periods: int = 5) -> Schedule:
    return almgren_chriss(quantity, periods, sigma, EPSILON, ETA, GAMMA, lam)


def optimum(quantity: float, n: int, sigma: float, eta: float, gamma: float, lam: float, tau: float) -> np.ndarray:
    """Return the trades of the least E + lam V by least squares, the last of them being what the others leave."""
    effective = eta - gamma * tau / 2
    last_as_others = np.vstack((np.eye(n - 1), -np.ones(n - 1)))
    left = np.tril(np.ones((n - 1, n - 1)))
    risk = math.sqrt(lam * tau) * sigma
    design = np.vstack((math.sqrt(effective / tau) * last_as_others, risk * left))
    wanted = np.concatenate((np.zeros(n - 1), [-math.sqrt(effective / tau) * quantity], np.full(n - 1, risk * quantity)))
    trades = np.linalg.lstsq(design, wanted, rcond=None)[0]
    return np.append(trades, quantity - trades.sum())


def exact_shares(decay: float, n: int) -> list[Decimal]:
    """Return ``sinh(decay (n - j)) / sinh(decay n)`` in a hundred digits."""
    with localcontext(prec=100):
        growth = Decimal(decay).exp()
        sinh = [growth**m - growth**-m for m in range(n, -1, -1)]
        return [one / sinh[0] for one in sinh]


def sums(keys: list[Fraction], sizes: list[int]) -> dict[Fraction, int]:
    """Return the sum of the sizes of each key."""
    return {key: sum(size for size, other in zip(sizes, keys, strict=True) if other == key) for key in set(keys)}


def test_execution_planner_gives_the_published_trajectory_to_every_digit() -> None:
    found = example_of(1e-6, DAILY)
    assert [f"{x:.1f}" for x in found.holdings] == ["1000000.0", "542380.7", "290295.1", "148216.1", "62303.2", "0.0"]
    assert [f"{x:.1f}" for x in found.trades] == ["457619.3", "252085.6", "142079.0", "85912.9", "62303.2"]
    assert f"{found.cost:.1f}" == "910477.8"
    assert f"{found.variance / 1e6:.1f}" == "363868.0"
    assert f"{math.sqrt(found.variance):.1f}" == "603214.7"
    assert (f"{found.kappa:.4f}", f"{found.half_life:.4f}") == ("0.6063", "1.6495")


def test_execution_planner_gives_the_published_numbers_of_the_rounded_volatility() -> None:
    found = example_of(1e-6)
    assert [f"{x:.1f}" for x in found.holdings[1:5]] == ["541955.6", "289854.2", "147897.5", "62141.8"]
    assert (f"{found.cost:.1f}", f"{math.sqrt(found.variance):.1f}") == ("911227.0", "603430.7")
    straight = example_of(0.0)
    assert (f"{straight.cost:.1f}", f"{math.sqrt(straight.variance):.0f}") == ("662500.0", "1040673")


@pytest.mark.parametrize(("lam", "mean", "variance", "penalty", "half_life"), FRONTIER)
def test_execution_planner_lies_on_the_published_frontier(
    lam: float, mean: float, variance: float, penalty: float, half_life: float
) -> None:
    found = example_of(lam * 1e-6)
    assert f"{found.cost / X:.4f}" == f"{mean:.4f}"
    assert f"{found.variance / X / X:.4f}" == f"{variance:.4f}"
    assert f"{(found.cost + lam * 1e-6 * found.variance) / X:.4f}" == f"{penalty:.4f}"
    assert f"{found.half_life:.2f}" == f"{half_life:.2f}"


@pytest.mark.parametrize(("lam", "first", "second", "third", "fourth"), TRAJECTORIES)
def test_execution_planner_holds_what_the_published_trajectories_hold(
    lam: float, first: float, second: float, third: float, fourth: float
) -> None:
    found = example_of(lam * 1e-6, DAILY).holdings[1:5] / X * 100.0
    assert [f"{x:.3f}" for x in found] == [f"{x:.3f}" for x in (first, second, third, fourth)]


@pytest.mark.parametrize("periods", [2, 3, 7, 50])
@pytest.mark.parametrize("tau", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("lam", [0.0, 1e-8, 1e-6, 3e-5])
def test_execution_planner_finds_the_optimum_that_least_squares_find(periods: int, tau: float, lam: float) -> None:
    found = almgren_chriss(X, periods, 0.95, EPSILON, ETA, GAMMA, lam, tau)
    trades = optimum(X, periods, 0.95, ETA, GAMMA, lam, tau)
    assert np.abs(found.trades - trades).max() < 1e-9 * X
    left = X - np.cumsum(trades)
    # The last holding is rounding alone.
    assert found.variance == pytest.approx(0.95**2 * tau * float(left[:-1] @ left[:-1]), rel=1e-9)
    cost = GAMMA * X * X / 2 + EPSILON * X + (ETA - GAMMA * tau / 2) / tau * float(trades @ trades)
    assert found.cost == pytest.approx(cost, rel=1e-9)


@given(
    decay_log10=st.floats(-12.0, 1.2),
    periods=st.integers(1, 25),
    tau=st.sampled_from([1 / 60, 1.0, 7.0]),
    quantity=st.floats(-1e9, 1e9),
)
def test_execution_planner_is_right_to_the_last_places_of_the_quantity(
    decay_log10: float, periods: int, tau: float, quantity: float
) -> None:
    decay = 10.0**decay_log10
    lam = (2.0 * math.sinh(decay / 2.0) / tau) ** 2
    found = almgren_chriss(quantity, periods, 1.0, 0.0, 1.0, 0.0, lam, tau)
    assert found.kappa * tau == pytest.approx(decay, rel=1e-14)
    shares = exact_shares(found.kappa * tau, periods)
    tolerance = 4.0 * math.ulp(quantity)
    assert all(abs(x - float(share * Decimal(quantity))) <= tolerance for x, share in zip(found.holdings.tolist(), shares, strict=True))
    squares = sum((a - b) ** 2 for a, b in pairwise(shares))
    assert found.cost == pytest.approx(float(squares) * quantity * quantity / tau, rel=1e-12)
    assert found.variance == pytest.approx(float(sum(one * one for one in shares[1:])) * quantity * quantity * tau, rel=1e-12)


@given(
    quantity=st.floats(-1e12, 1e12) | st.floats(-1e-300, 1e-300),
    periods=st.integers(1, 200),
    sigma=st.floats(0.0, 1e3),
    lam=st.floats(0.0, 1.0) | st.floats(0.0, 1e-6),
)
@example(quantity=-(2.0**53 - 1), periods=3, sigma=1.0, lam=0.0)
@example(quantity=5e-324, periods=7, sigma=1.0, lam=1e-9)
def test_execution_planner_trades_the_quantity_exactly_and_never_turns(quantity: float, periods: int, sigma: float, lam: float) -> None:
    found = almgren_chriss(quantity, periods, sigma, 0.01, 1e-6, 1e-7, lam)
    assert found.holdings.shape == (periods + 1,)
    assert found.trades.shape == (periods,)
    assert found.holdings[0] == quantity
    assert math.copysign(1.0, found.holdings[-1]) == 1.0
    assert found.holdings[-1] == 0.0
    assert sum(found.trades.tolist()) == math.fsum(found.trades) == float(found.trades.sum()) == quantity
    assert (found.holdings[:-1] - found.trades == found.holdings[1:]).all()
    assert (found.trades * math.copysign(1.0, quantity) >= 0.0).all()


@given(lam=st.floats(0.0, 1e-4), quantity=st.floats(1.0, 1e9), periods=st.integers(1, 60), scale=st.sampled_from([0.25, 2.0, 1024.0]))
def test_execution_planner_buys_as_it_sells_and_scales(lam: float, quantity: float, periods: int, scale: float) -> None:
    sale, buy = (example_of(lam, quantity=sign * quantity, periods=periods) for sign in (1.0, -1.0))
    assert (sale.holdings == -buy.holdings).all()
    assert (sale.trades == -buy.trades).all()
    assert (sale.cost, sale.variance, sale.kappa) == (buy.cost, buy.variance, buy.kappa)
    larger = example_of(lam, quantity=scale * quantity, periods=periods)
    assert (larger.holdings == scale * sale.holdings).all()
    assert larger.variance == scale * scale * sale.variance
    # Other units of time: sigma per root of one, eta per one, and the same money.
    minutes = almgren_chriss(quantity, periods, 0.95 / math.sqrt(60.0), EPSILON, ETA * 60.0, GAMMA, lam, 60.0)
    assert np.abs(minutes.holdings - sale.holdings).max() <= 1e-12 * quantity
    assert (minutes.cost, minutes.variance) == pytest.approx((sale.cost, sale.variance), rel=1e-11)
    assert minutes.kappa * 60.0 == pytest.approx(sale.kappa, rel=1e-12)


def test_execution_planner_tends_to_a_straight_line_without_a_jump() -> None:
    straight = example_of(0.0, periods=1_000)
    assert np.abs(straight.holdings - X * np.arange(1_000, -1, -1) / 1_000).max() <= math.ulp(X)
    assert straight.kappa == 0.0
    assert straight.half_life == math.inf
    for lam in (5e-324, 1e-300, 1e-40, 1e-28):
        near = example_of(lam, periods=1_000)
        assert np.abs(near.holdings - straight.holdings).max() <= 2.0 * math.ulp(X)
        assert (near.cost, near.variance) == pytest.approx((straight.cost, straight.variance), rel=1e-12)
    # To second order x = X u (1 - (kappa T)^2 (1 - u^2) / 6), u the part of the time that is left: 1e-9 of a bend is seen.
    bent = example_of(1e-18, periods=1_000)
    u = np.arange(1_000, -1, -1) / 1_000
    bend = (bent.kappa * 1_000) ** 2 * u * (1.0 - u * u) / 6.0
    assert bend.max() > 1e-8
    assert np.abs((straight.holdings - bent.holdings) / X - bend).max() < 1e-14


@pytest.mark.parametrize("lam", [1e2, 1e20, 1e200])
def test_execution_planner_trades_all_at_once_where_risk_is_feared_without_end(lam: float) -> None:
    found = example_of(lam, periods=2_000)
    assert found.kappa * 2_000 > 1_000.0
    assert found.trades[0] == pytest.approx(X, rel=1e-7)
    assert (np.diff(found.holdings) <= 0.0).all()
    assert found.cost == pytest.approx(GAMMA * X * X / 2 + EPSILON * X + (ETA - GAMMA / 2) * X * X, rel=1e-6)
    # What is left after one period decides the risk: x_1 = X / (2 cosh kappa), nearly.
    assert found.variance == pytest.approx((0.95 * X * math.exp(-found.kappa)) ** 2, rel=1e-6)


def test_execution_planner_of_one_period_has_no_risk_and_of_nothing_no_cost() -> None:
    at_once = example_of(1e-6, periods=1)
    assert at_once.holdings.tolist() == [X, 0.0]
    assert at_once.variance == 0.0
    assert at_once.cost == pytest.approx(0.125e6 + 0.0625e6 + 2.375e6, rel=1e-14)
    nothing = example_of(1e-6, quantity=0.0)
    assert nothing.holdings.tolist() == [0.0] * 6
    assert (nothing.cost, nothing.variance) == (0.0, 0.0)


def test_execution_planner_takes_numbers_of_numpy_and_gives_plain_ones() -> None:
    found = almgren_chriss(np.float64(X), np.int64(5), *np.array([DAILY, EPSILON, ETA, GAMMA, 1e-6]))  # type: ignore[arg-type]
    plain = example_of(1e-6, DAILY)
    assert (found.holdings == plain.holdings).all()
    assert [(type(one), one) for one in (found.cost, found.variance, found.kappa)] == [
        (float, one) for one in (plain.cost, plain.variance, plain.kappa)
    ]
    with pytest.raises(ValueError, match="a float holds"):
        almgren_chriss(np.float64(1e200), 5, *np.array([DAILY, EPSILON, ETA, GAMMA, 1e-6]))


def test_execution_planner_takes_the_most_periods_there_are() -> None:
    found = example_of(1e-17, periods=PERIODS_MAX)
    assert (np.diff(found.holdings) < 0.0).all()
    assert sum(found.trades.tolist()) == X


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"periods": 0}, "periods as a whole number from 1 to 100,000, found 0"),
        ({"periods": PERIODS_MAX + 1}, "found 100001"),
        ({"periods": 2.5}, "found 2.5"),
        ({"quantity": math.nan}, "finite quantity, found nan"),
        ({"quantity": -math.inf}, "finite quantity, found -inf"),
        ({"sigma": -1e-9}, "sigma that is finite and not negative, found -1e-09"),
        ({"sigma": math.inf}, "sigma that is finite"),
        ({"epsilon": math.nan}, "epsilon that is finite"),
        ({"gamma": -1e-9}, "gamma that is finite"),
        ({"lam": -1e-30}, "lam that is finite"),
        ({"tau": 0.0}, "finite tau above 0, found eta 2.5e-06, tau 0.0"),
        ({"eta": math.inf}, "finite eta"),
        ({"eta": math.nan}, "finite eta"),
        ({"tau": 32.0}, "eta above gamma tau / 2, found eta 2.5e-06 and gamma tau / 2 = 4e-06"),
        ({"eta": 0.0, "gamma": 0.0}, "eta above gamma tau / 2"),
        ({"sigma": 1e308, "lam": 1e300}, "results a float holds, found kappa inf"),
        ({"quantity": 1e160}, "results a float holds"),
        ({"lam": 0.0, "gamma": 0.0, "epsilon": 0.0, "quantity": 1e150, "sigma": 1e10}, "variance inf"),
    ],
)
def test_execution_planner_refuses_schedules_that_make_no_sense(change: dict[str, float], message: str) -> None:
    arguments = {"quantity": X, "periods": 5, "sigma": 0.95, "epsilon": EPSILON, "eta": ETA, "gamma": GAMMA, "lam": 1e-6} | change
    with pytest.raises(ValueError, match="expected") as refused:
        almgren_chriss(**arguments)  # type: ignore[arg-type]
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("lots", "slices", "expected"),
    [
        (12, 4, [3, 3, 3, 3]),
        (10, 4, [3, 2, 3, 2]),
        (1, 1, [1]),
        (1, 2, [1, 0]),
        (1, 3, [0, 1, 0]),
        (2, 5, [0, 1, 0, 1, 0]),
        (0, 3, [0, 0, 0]),
        (LOTS_MAX, 3, [1501199875790165, 1501199875790166, 1501199875790165]),
    ],
)
def test_execution_planner_slices_time_evenly(lots: int, slices: int, expected: list[int]) -> None:
    found = uniform(lots, slices)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@given(lots=lots_of_orders, slices=st.integers(1, 300))
def test_execution_planner_keeps_an_even_pace_to_half_a_lot(lots: int, slices: int) -> None:
    found = uniform(lots, slices).tolist()
    assert sum(found) == lots
    assert max(found) - min(found) <= 1
    done = 0
    for i, size in enumerate(found, 1):
        done += size
        assert -1 < 2 * (done - Fraction(lots * i, slices)) <= 1


@pytest.mark.parametrize(
    ("lots", "weights", "expected"),
    [
        (10, [1.0, 1.0, 1.0], [4, 3, 3]),
        (11, [1.0, 1.0, 1.0], [4, 4, 3]),
        (3, [1.0, 2.0, 3.0], [1, 1, 1]),
        (4, [1.0, 4.0, 7.0], [1, 1, 2]),
        (7, [0.0, 5.0, 0.0, 5.0], [0, 4, 0, 3]),
        (100, [0.1, 0.2, 0.7], [10, 20, 70]),
        (5, [1e-300, 1e300], [0, 5]),
        (2, [5e-324, 5e-324], [1, 1]),
        (0, [1.0, 2.0], [0, 0]),
        (LOTS_MAX, [1.0, 2.0], [1501199875790165, 3002399751580331]),
    ],
)
def test_execution_planner_slices_by_volume_with_the_largest_remainders(lots: int, weights: list[float], expected: list[int]) -> None:
    found = by_volume(lots, np.array(weights))
    assert found.dtype == np.int64
    assert found.tolist() == expected


@given(lots=lots_of_orders, weights=volumes_of_slices.filter(any), data=st.data())
def test_execution_planner_shares_an_order_by_volume_as_exactly_as_lots_allow(lots: int, weights: list[float], data: st.DataObject) -> None:
    found = by_volume(lots, np.array(weights, np.float64)).tolist()
    total = sum(Fraction(weight) for weight in weights)
    over = [size - lots * Fraction(weight) / total for size, weight in zip(found, weights, strict=True)]
    assert sum(found) == lots
    assert all(-1 < one < 1 for one in over)
    assert all(size == 0 for size, weight in zip(found, weights, strict=True) if weight == 0)
    # Who was rounded up had at least the remainder of who was rounded down, and came first where they had the same.
    up = [(1 - one, -i) for i, one in enumerate(over) if one > 0]
    down = [(-one, -i) for i, one in enumerate(over) if one < 0]
    assert not up or not down or min(up) > max(down)

    order = data.draw(st.permutations(range(len(weights))))
    again = by_volume(lots, np.array([weights[i] for i in order], np.float64)).tolist()
    # Only who had the same remainder may have changed places.
    remainders = [one % 1 for one in over]
    assert sums(remainders, found) == sums([remainders[i] for i in order], again)
    assert by_volume(lots, 4.0 * np.array(weights, np.float64)).tolist() == found


@pytest.mark.parametrize(
    ("lots", "volumes", "rate", "expected", "left"),
    [
        (10, [20.0, 40.0, 100.0], 0.1, [2, 4, 4], 0),
        (10, [20.0, 40.0, 30.0], 0.1, [2, 4, 3], 1),
        (10, [9.0, 9.0, 19.0], 0.1, [0, 0, 1], 9),
        (3, [10.0, 0.0], 0.3, [3, 0], 0),
        (5, [2.0, 3.0], 1.0, [2, 3], 0),
        (0, [100.0], 0.5, [0], 0),
        (LOTS_MAX, [1e308], 1.0, [LOTS_MAX], 0),
    ],
)
def test_execution_planner_takes_its_part_of_the_volume(
    lots: int, volumes: list[float], rate: float, expected: list[int], left: int
) -> None:
    found = participation(lots, np.array(volumes), rate)
    assert found.slices.dtype == np.int64
    assert (found.slices.tolist(), found.left_lots) == (expected, left)


@given(lots=lots_of_orders, volumes=volumes_of_slices, rate=st.floats(0.0, 1.0, exclude_min=True))
def test_execution_planner_never_takes_more_than_its_part_and_flags_the_rest(lots: int, volumes: list[float], rate: float) -> None:
    found = participation(lots, np.array(volumes, np.float64), rate)
    slices = found.slices.tolist()
    assert sum(slices) + found.left_lots == lots
    assert found.left_lots >= 0
    assert all(0 <= size <= rate * volume for size, volume in zip(slices, volumes, strict=True))
    # Nothing is held back: what is below its part by a lot was the end of the order.
    short = [i for i, (size, volume) in enumerate(zip(slices, volumes, strict=True)) if size + 1 <= rate * volume]
    assert not short or (found.left_lots == 0 and not any(slices[short[0] + 1 :]))


def test_execution_planner_rounds_a_schedule_to_lots() -> None:
    # 54.2381, 29.0295, 14.8216 and 6.2303 of 100 are left.
    assert along(example_of(1e-6, DAILY), 100).tolist() == [46, 25, 14, 9, 6]
    assert along(example_of(1e-6, DAILY, -X), 100).tolist() == [46, 25, 14, 9, 6]
    assert along(example_of(1e-6, DAILY), 3).tolist() == [1, 1, 1, 0, 0]
    assert along(example_of(1e-6, DAILY), 0).tolist() == [0] * 5
    # Of a straight line in quarters, halves are ties: ahead of the schedule.
    assert along(example_of(0.0, quantity=-4.0, periods=4), 10).tolist() == [3, 2, 3, 2]
    assert along(example_of(1.0), LOTS_MAX).dtype == np.int64


@given(
    lots=lots_of_orders,
    quantity=st.floats(1e-9, 1e12),
    buys=st.booleans(),
    periods=st.integers(1, 60),
    lam=st.floats(0.0, 1e-4) | st.floats(0.0, 1.0),
)
def test_execution_planner_stays_within_half_a_lot_of_the_schedule(
    lots: int, quantity: float, buys: bool, periods: int, lam: float
) -> None:
    schedule = example_of(lam, quantity=-quantity if buys else quantity, periods=periods)
    slices = along(schedule, lots).tolist()
    assert len(slices) == periods
    assert sum(slices) == lots
    assert min(slices) >= 0
    left = lots
    for size, holding in zip(slices, schedule.holdings[1:].tolist(), strict=True):
        left -= size
        assert -1 <= 2 * (left - lots * Fraction(holding) / Fraction(schedule.holdings[0].item())) < 1


def test_execution_planner_divides_the_horizon() -> None:
    assert intervals(300.0, 4).tolist() == [0.0, 75.0, 150.0, 225.0, 300.0]
    assert intervals(1, 1).tolist() == [0.0, 1.0]


@given(horizon_s=st.floats(1e-9, 604_800.0), slices=st.integers(1, 2_000))
def test_execution_planner_divides_any_horizon_into_equal_parts(horizon_s: float, slices: int) -> None:
    times = intervals(horizon_s, slices)
    assert times.shape == (slices + 1,)
    assert (times[0], times[-1]) == (0.0, horizon_s)
    assert (np.diff(times) > 0.0).all()
    assert np.abs(np.diff(times) - horizon_s / slices).max() <= 4.0 * math.ulp(horizon_s)


ONES = np.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform(-1, 3), "lots as a whole number from 0 to 4,503,599,627,370,496, found -1"),
        (lambda: uniform(LOTS_MAX + 1, 3), "found 4503599627370497"),
        (lambda: uniform(1.5, 3), "found 1.5"),  # type: ignore[arg-type]
        (lambda: uniform(1, 0), "slices as a whole number from 1 to 100,000, found 0"),
        (lambda: uniform(1, PERIODS_MAX + 1), "found 100001"),
        (lambda: by_volume(-1, ONES), "lots as a whole number"),
        (lambda: by_volume(1, np.zeros(3)), "a weight above 0 among 3"),
        (lambda: by_volume(1, np.zeros(0)), "1 to 100,000 weights in one dimension, found shape (0,)"),
        (lambda: by_volume(1, np.ones((2, 2))), "found shape (2, 2)"),  # type: ignore[arg-type]
        (lambda: by_volume(1, np.ones(PERIODS_MAX + 1)), "found shape (100001,)"),
        (lambda: by_volume(1, np.array([1.0, -1.0])), "weights that are finite and not negative, found -1.0 to 1.0"),
        (lambda: by_volume(1, np.array([1.0, math.nan])), "weights that are finite"),
        (lambda: by_volume(1, np.array([1.0, math.inf])), "weights that are finite"),
        (lambda: participation(-1, ONES, 0.5), "lots as a whole number"),
        (lambda: participation(1, ONES, 0.0), "a rate above 0 and up to 1, found 0.0"),
        (lambda: participation(1, ONES, 1.5), "found 1.5"),
        (lambda: participation(1, ONES, math.nan), "found nan"),
        (lambda: participation(1, -ONES, 0.5), "volumes that are finite and not negative, found -1.0"),
        (lambda: participation(1, np.zeros(0), 0.5), "1 to 100,000 volumes"),
        (lambda: along(example_of(1e-6), -1), "lots as a whole number"),
        (lambda: along(example_of(1e-6, quantity=0.0), 1), "a schedule of a quantity other than 0"),
        (lambda: intervals(0.0, 3), "a horizon above 0 and up to 604,800 s, found 0.0"),
        (lambda: intervals(math.nan, 3), "found nan"),
        (lambda: intervals(604_801.0, 3), "found 604801.0"),
        (lambda: intervals(1.0, 0), "slices as a whole number"),
    ],
)
def test_execution_planner_refuses_slices_that_make_no_sense(call: object, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        call()  # type: ignore[operator]
    assert message in str(refused.value)
