"""Thompson sampling: draws from mixtures of Student t, and with which probability each of them is the greatest.

A mixture, float64[J, 4], has rows of weight, location, scale and degrees of freedom. Formulas stand in docs/BANDIT.md.
"""

import math

import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.jit import njit
from alphapack.kernels.student import DOF_MAX, DOF_MIN, deviate, reach, settle, tail

Float64Array3D = np.ndarray[tuple[int, int, int], np.dtype[np.float64]]
BoolArray1D = np.ndarray[tuple[int], np.dtype[np.bool_]]

NODES = 16
"""Of Gauss and Legendre, in each cell of an integral."""
MASS_MIN = 1e-12
"""What is left out of each distribution at either end."""
CELL_ERROR_MAX = 1e-11
"""Of the probabilities of a cell together; where it is more, the cell is halved."""
RESOLUTION = 1e-12
"""Least scale, as a share of how far apart the locations are: the nodes in a cell still differ."""
CORE, CORE_DOF, GROWTH = 4.6, 1.8, 1.75
"""How wide a cell may be: in scales at the centre, less where the dof are few (times their root), and as a share of the distance to it."""
DOF_LOG = 1e4
"""Below as many, log(1 + v) loses less than 1e-12 against log1p(v), which takes twice as long."""
ARM, SHARE, PLACE, WIDTH, DOF, PEAK, FROM, TO = range(8)
"""Columns of a part: one arm's one memory."""


@njit
def draw(mixtures: Float64Array3D, enabled: BoolArray1D, uniforms: Float64Array1D, flat: bool, scores: Float64Array1D) -> int:
    """Draw a score of each enabled arm from its mixture; return the best one, K where ``flat`` and none is above 0.

    ``uniforms``: float64[2 K or more] in [0, 1), two an arm. ``scores``: float64[K], NaN where an arm is not enabled.
    """
    chosen, best = -1, -math.inf
    if flat:
        chosen, best = len(mixtures), 0.0
    for k in range(len(mixtures)):
        scores[k] = math.nan
        if not enabled[k]:
            continue
        j, rest = 0, uniforms[2 * k]
        while j < mixtures.shape[1] - 1 and rest >= mixtures[k, j, 0]:
            rest -= mixtures[k, j, 0]
            j += 1
        # What is left of a uniform, given which memory it fell to, is a uniform again.
        first = min(rest / mixtures[k, j, 0], 1.0 - 1.1e-16) if mixtures[k, j, 0] > 0.0 else 0.0
        scores[k] = mixtures[k, j, 1] + mixtures[k, j, 2] * deviate(first, uniforms[2 * k + 1], mixtures[k, j, 3])
        if scores[k] > best or chosen < 0:
            chosen, best = k, scores[k]
    return chosen


@njit
def step(x: float, part: Float64Array1D) -> float:
    """Return how wide a cell that begins at ``x`` may be for the density of ``part``."""
    core, away = part[WIDTH] * min(CORE, CORE_DOF * math.sqrt(part[DOF])), abs(x - part[PLACE])
    if x >= part[TO]:
        return math.inf
    if x >= part[PLACE]:
        return math.sqrt(core * core + GROWTH * GROWTH * away * away)
    until: float = max(core, away * GROWTH / (1.0 + GROWTH), part[FROM] - x)
    return until


@njit
def below(x: float, part: Float64Array1D, terms: Float64Array1D) -> float:
    """Return the share of ``part`` below ``x``; its peak is renewed, and ``terms`` are used up."""
    part[PEAK] = settle(part[DOF], terms)
    if x <= part[FROM]:
        return 0.0
    share: float = part[SHARE]
    return share if x >= part[TO] else share * tail((part[PLACE] - x) / part[WIDTH], part[DOF], part[PEAK], terms)


@njit
def spell_out(mixtures: Float64Array3D, enabled: BoolArray1D, flat: bool, parts: Float64Array2D) -> tuple[int, float]:
    """Put what there is of the enabled mixtures into ``parts``, float64[K J, ...]; return how many, and where 0 lies for them.

    Places are counted from that of the first part, so that narrow distributions far from 0 keep their digits.
    """
    count, span, origin = 0, 0.0, 0.0
    for k in range(mixtures.shape[0]):
        for j in range(mixtures.shape[1]):
            share = mixtures[k, j, 0]
            if enabled[k] and share > 2.0 * MASS_MIN:
                part = parts[count]
                if count == 0:
                    origin = mixtures[k, j, 1]
                    span = abs(origin) if flat else 0.0
                part[ARM], part[SHARE], part[DOF] = k, share, mixtures[k, j, 3]
                part[PLACE], part[WIDTH] = mixtures[k, j, 1] - origin, mixtures[k, j, 2]
                span = max(span, abs(part[PLACE]))
                count += 1
    for n in range(count):
        part = parts[n]
        part[WIDTH] = max(part[WIDTH], RESOLUTION * span)
        half = part[WIDTH] * reach(MASS_MIN / part[SHARE], part[DOF])
        part[FROM], part[TO] = part[PLACE] - half, part[PLACE] + half
    return count, -origin


@njit
def propensities(
    mixtures: Float64Array3D, enabled: BoolArray1D, flat: bool, rule: Float64Array2D, work: Float64Array2D, out: Float64Array1D
) -> int:
    """Integrate with which probability each arm's draw is the greatest, and with ``flat`` above 0 too.

    P(k) = integral of f_k prod_{j != k} F_j, from 0 on where ``flat``, and P(flat) = prod_j F_j(0). Cells are as wide as the sharpest
    density in them allows; in each of them f is exact at the nodes, and F its integral.

    Parameters
    ----------
    mixtures : float64[K, J, 4]
        Rows of weight, location, scale, dof.
    enabled : bool[K]
        The others have probability 0.
    flat : bool
    rule : float64[NODES + 2, NODES]
        Nodes in (0, 1), weights, and for each node what its density adds to the integral up to each node.
    work : float64[K J + 3 K + 1, max(``TERMS``, ``NODES`` + 2)]
    out : float64[K + 1]
        The probabilities, that of ``flat`` last.

    Returns
    -------
    int
        Cells, or -1 where there were more than any sound mixture needs.
    """
    arms = len(mixtures)
    parts, own = work, arms * mixtures.shape[1]
    upto = own + arms
    scratch = work[upto + 2 * arms]
    count, zero = spell_out(mixtures, enabled, flat, parts)
    start, end = (zero, zero) if flat else (-math.inf, -math.inf)
    for k in range(arms):
        first = math.inf
        for n in range(count):
            if parts[n, ARM] == k:
                first = min(first, parts[n, FROM])
                end = max(end, parts[n, TO])
        if first < math.inf:
            start = max(start, first)
    for k in range(arms + 1):
        out[k] = 0.0
    for k in range(arms):
        work[upto + k, 0] = work[upto + k, NODES] = 0.0 if enabled[k] else 1.0
    for n in range(count):
        row = work[upto + int(parts[n, ARM])]
        row[NODES] += below(start, parts[n], scratch)
        if flat:
            row[0] += below(zero, parts[n], scratch)
    if flat:
        out[arms] = 1.0
        for k in range(arms):
            out[arms] *= work[upto + k, 0]

    x, cells, shrunk = start, 0, 1.0
    while x < end:
        wide = end - x
        for n in range(count):
            wide = min(wide, step(x, parts[n]))
        after = x + shrunk * wide
        wide = after - x  # What it is once rounded: cells leave no gap where distributions are narrow.
        cells += 1
        if not wide > 0.0 or cells > 64 * (count + 4):
            return -1
        for k in range(arms):
            for i in range(NODES):
                work[own + k, i] = 0.0
        for n in range(count):
            if parts[n, FROM] < after and parts[n, TO] > x:
                add_densities(x - parts[n, PLACE], wide, parts[n], rule, work[own + int(parts[n, ARM])])
        if abs(integrate(arms, own, rule, work)) > CELL_ERROR_MAX:
            shrunk *= 0.5
            continue
        for k in range(arms):
            out[k] += work[own + k, NODES]
            work[upto + k, NODES] = work[upto + k, NODES + 1]
        x, shrunk = after, 1.0
    return cells


@njit
def add_densities(away: float, wide: float, part: Float64Array1D, rule: Float64Array2D, row: Float64Array1D) -> None:
    """Add the density of ``part`` at the nodes of a cell, times the cell's width, to ``row``; the cell begins ``away`` from its place."""
    first, slope, power = away / part[WIDTH], wide / part[WIDTH], -0.5 * (part[DOF] + 1.0)
    height, inverse = part[SHARE] * part[PEAK] * slope, 1.0 / part[DOF]
    if part[DOF] < DOF_LOG:
        for i in range(NODES):
            u = first + slope * rule[0, i]
            row[i] += height * math.exp(power * math.log(1.0 + u * u * inverse))
    else:
        for i in range(NODES):
            u = first + slope * rule[0, i]
            row[i] += height * math.exp(power * math.log1p(u * u * inverse))


@njit
def integrate(arms: int, own: int, rule: Float64Array2D, work: Float64Array2D) -> float:
    """Integrate a cell; return what its probabilities are more than the growth of prod F, which they are to be.

    Rows of ``work`` from ``own`` on: densities of the arms at the nodes, times the cell's width, and then each arm's probability;
    distribution functions at the nodes, at the cell's beginning, which is given, and at its end; room for products.
    """
    upto, others = own + arms, own + 2 * arms
    before, now = 1.0, 1.0
    for k in range(arms):
        row = work[upto + k]
        row[NODES + 1] = row[NODES]
        for i in range(NODES):
            row[i] = row[NODES]
        for j in range(NODES):
            height = work[own + k, j]
            row[NODES + 1] += height * rule[1, j]
            for i in range(NODES):
                row[i] += height * rule[2 + j, i]
        before *= row[NODES]
        now *= row[NODES + 1]
    for i in range(NODES):
        work[others, i] = rule[1, i]
    for k in range(1, arms):
        for i in range(NODES):
            work[others + k, i] = work[others + k - 1, i] * work[upto + k - 1, i]
    after = work[others + arms]
    for i in range(NODES):
        after[i] = 1.0
    excess = before - now
    for k in range(arms - 1, -1, -1):
        total = 0.0
        for i in range(NODES):
            total += work[own + k, i] * work[others + k, i] * after[i]
            after[i] *= work[upto + k, i]
        work[own + k, NODES] = total
        excess += total
    return excess


@njit
def exceedance(mixture: Float64Array2D, threshold: float, work: Float64Array1D) -> float:
    """Return the probability that a mixture, rows of weight, location, scale and dof, is above a threshold; ``work``: float64[TERMS]."""
    total = 0.0
    for j in range(len(mixture)):
        peak = settle(mixture[j, 3], work)
        total += mixture[j, 0] * tail((threshold - mixture[j, 1]) / mixture[j, 2], mixture[j, 3], peak, work)
    return total


@njit
def are_mixtures(mixtures: Float64Array3D, size: float) -> bool:
    """Tell whether rows are sound.

    Weights from 0 on, those of an arm with sum 1; locations, and scales above 0, of at most ``size``; degrees of freedom that are known.
    """
    for k in range(mixtures.shape[0]):
        total = 0.0
        for j in range(mixtures.shape[1]):
            total += mixtures[k, j, 0]
            if not (mixtures[k, j, 0] >= 0.0 and abs(mixtures[k, j, 1]) <= size and 0.0 < mixtures[k, j, 2] <= size):
                return False
            if not DOF_MIN <= mixtures[k, j, 3] <= DOF_MAX:
                return False
        if not abs(total - 1.0) <= 1e-12:
            return False
    return True


@njit
def are_uniform(values: Float64Array1D) -> bool:
    """Tell whether all are from 0 on and below 1."""
    sound = True
    for i in range(len(values)):
        sound = sound and 0.0 <= values[i] < 1.0
    return sound


@njit
def lift(enabled: BoolArray1D, flat: bool, floor: float, out: Float64Array1D) -> int:
    """Scale probabilities, float64[K + 1], to 1 less the floor's part, and add ``floor`` to each option; return how many there are.

    Where the floors take more than all there is, nothing is changed.
    """
    options, total = int(flat), 0.0
    for k in range(len(enabled)):
        options += int(enabled[k])
    for k in range(len(out)):
        total += out[k]
    if floor * options > 1.0:
        return options
    for k in range(len(out)):
        out[k] *= (1.0 - floor * options) / total
    for k in range(len(enabled)):
        if enabled[k]:
            out[k] += floor
    if flat:
        out[len(enabled)] += floor
    return options
