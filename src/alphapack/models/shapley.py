"""What each player adds to a game: Shapley values, exact or sampled, and the same in whole units of money.

A coalition of ``n`` players is an integer whose bit ``i`` says whether player ``i`` is in it; a game gives each coalition a value. The
Shapley value of a player is what they add when all arrive one after the other, as the mean over all orders (Shapley 1953). The values of
all players add up to what all of them together are worth less what nobody is.
"""

import math
import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D
from alphapack.kernels import shapley as kernel

PLAYERS_MAX = 20
"""A million coalitions; their tables take 24 MB."""
SAMPLED_PLAYERS_MAX = 62
PERMUTATIONS_MIN, PERMUTATIONS_MAX = 4, 1_000_000
MONEY_MAX = 2**53
"""Whole numbers up to here are floats too."""


def shapley(value: npt.ArrayLike, n: int) -> Float64Array1D:
    """Return the exact Shapley values of ``n`` players.

    Parameters
    ----------
    value : float[2**n]
        Value of each coalition (bit i = player i), finite, sizes up to 1e300; the first is that of nobody.
    n : int
        Players, 1 to 20.

    Returns
    -------
    float64[n]
        In the unit of ``value``. A player who adds nothing to any coalition has exactly 0. The sum differs from ``value[-1] - value[0]``
        by rounding alone; see ``in_money`` for one that does not.

    Raises
    ------
    ValueError
        Of a wrong n, a wrong shape, or a value out of range.
    """
    table = _table(value, n)
    size = len(table)
    weights = np.array([0.0, *(1.0 / (n * math.comb(n - 1, others)) for others in range(n)), 0.0])
    # One array, since of two large ones the system takes the memory back after each call, and giving it anew costs more than the fold.
    (without, joined), credits = np.empty((2, size)), np.empty(n)
    if not kernel.weigh(table, weights, without, joined):
        at = int(np.flatnonzero(~(np.abs(table) <= kernel.VALUE_MAX))[0])
        raise ValueError(f"expected finite values up to {kernel.VALUE_MAX:g}, found {table[at]} of coalition {at}")
    kernel.fold(without, joined, credits)
    return credits


def leave_one_out(value: npt.ArrayLike, n: int) -> Float64Array1D:
    """Return what all players are worth less what they are without each one; unlike Shapley values these do not add up to anything.

    Parameters and errors are those of ``shapley``, and so is the shape of what is returned; of the values only these n + 1 are looked at.
    """
    table = _table(value, n)
    everyone = len(table) - 1
    read = table[[everyone, *(everyone ^ (1 << player) for player in range(n))]]
    if not np.all(np.abs(read) <= kernel.VALUE_MAX):
        raise ValueError(f"expected finite values up to {kernel.VALUE_MAX:g}, found {read[~(np.abs(read) <= kernel.VALUE_MAX)][0]}")
    lost: Float64Array1D = read[0] - read[1:]
    return lost


def sampled(value: Callable[[int], float], n: int, permutations: int, uniforms: Iterator[float]) -> tuple[Float64Array1D, Float64Array1D]:
    """Return Shapley values estimated from random orders of arrival, and their standard errors.

    Orders come in pairs, each with its reverse: who came early then comes late, so that the errors of the two cancel in part
    (antithetic sampling; Mitchell, Cooper, Frank and Holmes 2022, Journal of Machine Learning Research 23(43)). Estimates add up as
    exact values do, since every order hands out everything.

    Parameters
    ----------
    value
        Gives a coalition (bit i = player i) its value, finite, sizes up to 1e150; asked ``permutations * (n - 1) + 2`` times.
    n
        Players, 2 to 62.
    permutations
        Orders, even, 4 to 1,000,000.
    uniforms
        Floats in [0, 1): ``n - 1`` are taken for each pair of orders.

    Returns
    -------
    float64[n], float64[n]
        Both in the unit of the value. Errors are those of means over pairs, which are independent.

    Raises
    ------
    ValueError
        Of a count out of range, uniforms that end or are none, or a value out of range.
    """
    if not 2 <= operator.index(n) <= SAMPLED_PLAYERS_MAX:
        raise ValueError(f"expected from 2 to {SAMPLED_PLAYERS_MAX} players, found {n}")
    if not PERMUTATIONS_MIN <= operator.index(permutations) <= PERMUTATIONS_MAX or permutations % 2:
        raise ValueError(f"expected an even number of permutations from {PERMUTATIONS_MIN} to {PERMUTATIONS_MAX}, found {permutations}")
    everyone = (1 << n) - 1
    ends = _finite(value, 0), _finite(value, everyone)
    mean, squares = np.zeros(n), np.zeros(n)
    order = list(range(n))
    for pair in range(1, permutations // 2 + 1):
        _shuffle(order, uniforms)
        added = 0.5 * (_arrivals(value, order, ends) + _arrivals(value, order[::-1], ends))
        away = added - mean
        mean += away / pair
        squares += away * (added - mean)  # Welford's update: sums of squares about a mean that is still moving.
    pairs = permutations // 2
    return mean, np.sqrt(squares / (pairs * (pairs - 1)))


def in_money(values: Sequence[float] | Float64Array1D, total: int) -> list[int]:
    """Return whole numbers that add up to ``total`` exactly, each within one of its value: the method of the largest remainder.

    Every value is rounded down, and what is then missing goes to those that lost most, one each; of equals to the larger value, then to
    the earlier one.

    Parameters
    ----------
    values : float[n]
        Finite, sizes up to 2**53, in the unit of ``total``, with the sum ``total`` but for rounding.
    total : int
        Size up to 2**53.

    Raises
    ------
    ValueError
        Of a value or a total out of range, or where no whole numbers within one of the values have this sum.
    """
    if not abs(operator.index(total)) <= MONEY_MAX:
        raise ValueError(f"expected a total of at most {MONEY_MAX}, found {total}")
    exact = [float(value) for value in values]
    for value in exact:
        if not abs(value) <= MONEY_MAX:
            raise ValueError(f"expected finite values of at most {MONEY_MAX}, found {value}")
    units = [math.floor(value) for value in exact]
    lost = [value - unit for value, unit in zip(exact, units, strict=True)]
    missing = total - sum(units)
    if missing >= 0:
        order = sorted(range(len(exact)), key=lambda i: (-lost[i], -abs(exact[i]), i))
        step = 1
    else:  # Only where floats are so large that their sum is off by a whole unit: then some of them are whole numbers.
        order = sorted((i for i in range(len(exact)) if lost[i] == 0.0), key=lambda i: (-abs(exact[i]), i))
        step = -1
    if abs(missing) > len(order):
        raise ValueError(f"expected values that add up to {total} within one unit each, found a sum of {math.fsum(exact)}")
    for i in order[: abs(missing)]:
        units[i] += step
    return units


def warm() -> None:
    """Compile, or load from the cache, the kernels."""
    shapley(np.zeros(2), 1)


def _table(value: npt.ArrayLike, n: int) -> Float64Array1D:
    if not 1 <= operator.index(n) <= PLAYERS_MAX:
        raise ValueError(f"expected from 1 to {PLAYERS_MAX} players, found {n}")
    found = np.asarray(value)
    if found.dtype.kind not in "fiu" or found.shape != (2**n,):
        raise ValueError(f"expected {2**n} numbers, one a coalition of {n} players, found {found.dtype} of shape {found.shape}")
    return np.ascontiguousarray(found, np.float64)


def _finite(value: Callable[[int], float], coalition: int) -> float:
    """Return a coalition's value, of a size whose squares can be added up."""
    found = float(value(coalition))
    if not abs(found) <= 1e150:
        raise ValueError(f"expected finite values up to 1e150, found {found} of coalition {coalition}")
    return found


def _shuffle(order: list[int], uniforms: Iterator[float]) -> None:
    """Shuffle in place (Fisher and Yates), a uniform for every place but the first."""
    for last in range(len(order) - 1, 0, -1):
        uniform = next(uniforms, math.nan)
        if not 0.0 <= uniform < 1.0:
            raise ValueError(f"expected {len(order) - 1} uniforms in [0, 1) for each pair of permutations, found {uniform}")
        chosen = int(uniform * (last + 1))
        order[last], order[chosen] = order[chosen], order[last]


def _arrivals(value: Callable[[int], float], order: Sequence[int], ends: tuple[float, float]) -> Float64Array1D:
    """Return what each player adds when all arrive in this order; ``ends`` are the values of nobody and of everyone."""
    added = np.empty(len(order))
    coalition, before = 0, ends[0]
    for place, player in enumerate(order):
        coalition |= 1 << player
        after = ends[1] if place == len(order) - 1 else _finite(value, coalition)
        added[player] = after - before
        before = after
    return added
