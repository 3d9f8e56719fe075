"""Exact Shapley values of a game from the values of its coalitions, by folding the table in halves.

Of ``n`` players, coalition ``T`` is the integer whose bit ``i`` says whether player ``i`` is in it. The value of player i is the sum over
all S without i of ``w(|S|) (v(S + i) - v(S))`` with ``w(s) = s! (n - 1 - s)! / n!``. Let ``a(S) = w(|S|) v(S)`` and
``b(S) = w(|S| - 1) v(S)``: player i's is the sum of ``b(S + i) - a(S)``. The last player's is the upper half of b less the lower half of a.
Adding the upper halves to the lower ones then forgets that player, and the next one is the last: n halvings, about 2^n additions each of
a and b.
"""

from alphapack.arrays import Float64Array1D
from alphapack.jit import njit

VALUE_MAX = 1e300
"""Largest size of a coalition's value: no sum of them leaves the range of a float."""


@njit
def popcount(word: int) -> int:
    """Return how many bits of an integer from 0 to 2^31 - 1 are set."""
    word -= (word >> 1) & 0x55555555
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    word += word >> 8
    return (word + (word >> 16)) & 0x3F


@njit
def weigh(values: Float64Array1D, weights: Float64Array1D, without: Float64Array1D, joined: Float64Array1D) -> bool:
    """Write ``a`` and ``b`` of every coalition, for values less that of nobody, which cancels; False where a value is out of range.

    Parameters
    ----------
    values
        Shape (2^n,): v.
    weights
        Shape (n + 2,): 0, w(0), .., w(n - 1), 0.
    without, joined
        Shape (2^n,), written: a and b. a of all players and b of nobody are in no difference, and are 0.
    """
    nobody = values[0]
    for coalition in range(len(values)):
        value = values[coalition]
        if not abs(value) <= VALUE_MAX:  # NaN is not either.
            return False
        size = popcount(coalition)
        without[coalition] = weights[size + 1] * (value - nobody)
        joined[coalition] = weights[size] * (value - nobody)
    return True


@njit
def fold(without: Float64Array1D, joined: Float64Array1D, credits: Float64Array1D) -> None:
    """Write each player's Shapley value; one who adds nothing to any coalition gets exactly 0.

    The halves that are done with hold the differences, which are summed by halves too: rounding grows with n, not with 2^n.

    Parameters
    ----------
    without, joined
        Shape (2^n,): what ``weigh`` wrote; written over.
    credits
        Shape (n,), written, in the unit of the values.
    """
    half = len(without)
    for player in range(len(credits) - 1, -1, -1):
        half //= 2
        # Views, so that no index is taken for one that may be negative: the loops then run four floats at a time.
        low, high, near, far = without[:half], without[half : 2 * half], joined[:half], joined[half : 2 * half]
        for i in range(half):
            alone, grown = low[i], far[i]
            low[i] = alone + high[i]
            near[i] += grown
            high[i] = grown - alone
        width = half
        while width > 1:
            width //= 2
            left, right = high[:width], high[width : 2 * width]
            for i in range(width):
                left[i] += right[i]
        credits[player] = high[0]
