"""The linear posterior of each arm under several memories.

A *memory* of an arm is a row of floats: its weight, the count n, sum y^2, sum x y and the lower triangle of sum x x', each sum discounted
by the memory's own factor and beginning at 0; and, made of these and of the prior alone, the rate b of the noise, the mean of the
coefficients and the Cholesky factor of prior precision + sum x x'. Formulas stand in docs/BANDIT.md.

``terms`` holds what is set: a0, b0, ``scale``, the greatest dof of a reward, ``switching``, a discount for each memory, the longest
first, then the prior's precision of each coefficient.
"""

import math

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.jit import njit
from alphapack.kernels.student import settle
from alphapack.kernels.thompson import Float64Array3D

WEIGHT, COUNT, SQUARES, CROSS = 0, 1, 2, 3
SHAPE_0, RATE_0, SCALE, DOF_MAX, SWITCHING, DISCOUNTS = 0, 1, 2, 3, 4, 5
REWARD_MAX = 1e9
"""Of rewards, offsets and features, by size: their squares still add up."""
SCALE_MIN = 1e-12
"""Below which no distribution is narrowed: what is expected at a context of zeros is as good as known."""


def triangle(features: int) -> int:
    """Return how many entries the lower triangle of a square matrix has."""
    return features * (features + 1) // 2


def data_width(features: int) -> int:
    """Return how many floats of a memory are data: the rest follows from them."""
    return CROSS + features + triangle(features)


def width(features: int) -> int:
    """Return the floats of a memory."""
    return data_width(features) + 1 + features + triangle(features)


@njit
def fit(row: Float64Array1D, d: int, memories: int, terms: Float64Array1D) -> None:
    """Renew what follows from the data of a memory: Cholesky factor, mean and rate."""
    gram, rate = CROSS + d, CROSS + d + d * (d + 1) // 2
    mean, factor = rate + 1, rate + 1 + d
    explained = 0.0
    for i in range(d):
        at = factor + i * (i + 1) // 2
        for j in range(i + 1):
            other = factor + j * (j + 1) // 2
            left = row[gram + i * (i + 1) // 2 + j]
            if i == j:
                left += terms[DISCOUNTS + memories + i]
            for m in range(j):
                left -= row[at + m] * row[other + m]
            row[at + j] = math.sqrt(left) if i == j else left / row[other + j]
        left = row[CROSS + i]
        for m in range(i):
            left -= row[at + m] * row[mean + m]
        row[mean + i] = left / row[at + i]
        explained += row[mean + i] * row[mean + i]
    for i in range(d - 1, -1, -1):
        at = factor + i * (i + 1) // 2
        row[mean + i] /= row[at + i]
        for m in range(i):
            row[mean + m] -= row[at + m] * row[mean + i]
    row[rate] = terms[RATE_0] + 0.5 * max(0.0, row[SQUARES] - explained)


@njit
def spread(row: Float64Array1D, x: Float64Array1D, work: Float64Array1D) -> float:
    """Return x' (prior precision + sum x x')^-1 x, 0 or more; ``work``: float64[d or more]."""
    d = len(x)
    factor = CROSS + d + d * (d + 1) // 2 + 1 + d
    total = 0.0
    for i in range(d):
        at = factor + i * (i + 1) // 2
        left = x[i]
        for m in range(i):
            left -= row[at + m] * work[m]
        work[i] = left / row[at + i]
        total += work[i] * work[i]
    return total


@njit
def are_within(values: Float64Array1D) -> bool:
    """Tell whether all are numbers of at most ``REWARD_MAX`` in size."""
    sound = True
    for i in range(len(values)):
        sound = sound and abs(values[i]) <= REWARD_MAX
    return sound


@njit
def predict(
    memories: Float64Array2D, x: Float64Array1D, offset: float, noise: int, terms: Float64Array1D, out: Float64Array2D, work: Float64Array1D
) -> bool:
    """Put the distribution of an arm's expected reward at ``x`` into ``out``, or where ``noise`` is 1 that of the reward.

    Parameters
    ----------
    memories : float64[J, width]
    x : float64[d]
    offset : float
        Is added to the locations.
    noise : int
        0 or 1.
    terms : float64
    out : float64[J, 4 or more]
        Rows of weight, location, scale, dof.
    work : float64[d or more]

    Returns
    -------
    bool
        Whether the features are numbers that can be; where not, ``out`` is left as it was.
    """
    if not are_within(x):
        return False
    d = len(x)
    rate = CROSS + d + d * (d + 1) // 2
    for j in range(len(memories)):
        row = memories[j]
        location = offset
        for i in range(d):
            location += x[i] * row[rate + 1 + i]
        dof = 2.0 * terms[SHAPE_0] + row[COUNT]
        variance = row[rate] / (0.5 * dof) * (noise + spread(row, x, work))
        if noise == 0:
            variance *= terms[SCALE] * terms[SCALE]
        elif dof > terms[DOF_MAX]:
            # As wide as it was, with tails as heavy as rewards have them.
            variance *= dof / (dof - 2.0) * (terms[DOF_MAX] - 2.0) / terms[DOF_MAX]
            dof = terms[DOF_MAX]
        out[j, 0], out[j, 1], out[j, 2], out[j, 3] = row[WEIGHT], location, max(math.sqrt(variance), SCALE_MIN), dof
    return True


@njit
def predict_each(state: Float64Array3D, x: Float64Array1D, terms: Float64Array1D, out: Float64Array3D, work: Float64Array1D) -> bool:
    """Put the distribution of each arm's expected reward at one ``x`` into ``out``, float64[K, J, 4]; tell whether ``x`` can be."""
    offset, noise, sound = 0.0, 0, True
    for k in range(len(state)):
        sound = predict(state[k], x, offset, noise, terms, out[k], work) and sound
    return sound


@njit
def learn(memories: Float64Array2D, x: Float64Array1D, y: float, terms: Float64Array1D, work: Float64Array2D) -> bool:
    """Let an arm's memories learn a reward ``y`` at ``x``: weigh them, discount their data, add it, and renew what follows.

    ``work``: float64[J + 1, max(d, ``TERMS``)]. It returns False, and learns nothing, where ``x`` cannot be.
    """
    d, count = len(x), len(memories)
    offset, noise = 0.0, 1
    if not predict(memories, x, offset, noise, terms, work, work[count]):
        return False
    reweigh(memories, y, work)
    gram = CROSS + d
    if count > 1:
        switch(memories, gram + d * (d + 1) // 2, terms[SWITCHING])
    for j in range(count):
        row, kept = memories[j], terms[DISCOUNTS + j]
        row[COUNT] = kept * row[COUNT] + 1.0
        row[SQUARES] = kept * row[SQUARES] + y * y
        for i in range(d):
            row[CROSS + i] = kept * row[CROSS + i] + x[i] * y
            at = gram + i * (i + 1) // 2
            for m in range(i + 1):
                row[at + m] = kept * row[at + m] + x[i] * x[m]
        fit(row, d, count, terms)
    return True


@njit
def reweigh(memories: Float64Array2D, y: float, predicted: Float64Array2D) -> None:
    """Multiply the weights by how likely each memory held ``y``; of ``predicted``, float64[J + 1, ...], the last row is used up."""
    count = len(memories)
    best = -math.inf
    for j in range(count):
        scale, dof = predicted[j, 2], predicted[j, 3]
        u = (y - predicted[j, 1]) / scale
        peak = settle(dof, predicted[count])
        predicted[j, 0] = math.log(peak / scale) - 0.5 * (dof + 1.0) * math.log1p(u * u / dof)
        best = max(best, predicted[j, 0])
    total = 0.0
    for j in range(count):
        memories[j, WEIGHT] *= math.exp(predicted[j, 0] - best)
        total += memories[j, WEIGHT]
    for j in range(count):
        memories[j, WEIGHT] /= total


@njit
def switch(memories: Float64Array2D, data: int, switching: float) -> None:
    """Let each memory give way to another one with probability ``switching``.

    A shorter memory that was right of late hands its data, the first ``data`` floats, to the longer ones, which begin anew with them;
    longer ones hand nothing down, as what a shorter one has forgotten is to stay forgotten.
    """
    count = len(memories)
    share = switching / (count - 1)
    for j in range(count):  # The longest first: those behind it are still as they were.
        own = (1.0 - switching) * memories[j, WEIGHT]
        total = own
        for other in range(j + 1, count):
            total += share * memories[other, WEIGHT]
        if total > 0.0:
            for i in range(COUNT, data):
                memories[j, i] *= own / total
            for other in range(j + 1, count):
                part = share * memories[other, WEIGHT] / total
                for i in range(COUNT, data):
                    memories[j, i] += part * memories[other, i]
    for j in range(count):
        memories[j, WEIGHT] = (1.0 - switching) * memories[j, WEIGHT] + share * (1.0 - memories[j, WEIGHT])


@njit
def refit(state: Float64Array3D, d: int, terms: Float64Array1D) -> None:
    """Renew what follows from the data of every memory of every arm."""
    for k in range(state.shape[0]):
        for j in range(state.shape[1]):
            fit(state[k, j], d, state.shape[1], terms)
