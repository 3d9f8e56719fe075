"""Power-law impact: what observed costs say of ``k x^a``, in sums over the observations.

Both kernels write ``sums`` about the parameters ``u = log k`` and ``a``. With ``L = log x``, an observation has a standardised residual
``r``, a pull (how many standard deviations of it a unit of u moves the model) and a weight, which is less than 1 for an outlier.
Sums run from the first observation to the last, so that their order is part of the result.
"""

import math

from alphapack.arrays import Float64Array1D
from alphapack.jit import njit

LOSS, SCORE, CURVATURE, INFORMATION, OUTER, SQUARES, SUMS = 0, 1, 3, 6, 9, 12, 13
"""Places of the sums: the loss; minus its gradient by (u, a); its curvature (uu, ua, aa), which may be negative; the information, which is
about what curvature to expect; the products of scores, which are their variance; the squares of r; how many places there are."""


@njit
def levels(
    log_shares: Float64Array1D,
    costs: Float64Array1D,
    noise: Float64Array1D,
    scale: float,
    log_k: float,
    a: float,
    threshold: float,
    sums: Float64Array1D,
) -> None:
    """Add up for costs that are ``k x^a`` plus noise, ``r = (cost - k x^a) / (scale noise)``, under Huber's loss.

    Parameters
    ----------
    log_shares, costs, noise
        Shape (n,): L; costs in bps, of any sign; standard deviations of the noise up to ``scale``, above 0.
    scale, threshold
        Above 0. An ``|r|`` above ``threshold`` counts linearly; with an infinite one this is least squares.
    sums
        Shape (SUMS,), written.
    """
    for place in range(len(sums)):
        sums[place] = 0.0
    for i in range(len(log_shares)):
        deviation = scale * noise[i]
        impact = math.exp(log_k + a * log_shares[i])
        residual = (costs[i] - impact) / deviation
        size = abs(residual)
        pull = impact / deviation
        if size <= threshold:
            sums[LOSS] += 0.5 * residual * residual
            add(sums, log_shares[i], pull, 1.0, residual, pull * (pull - residual))
        else:
            weight = threshold / size
            sums[LOSS] += threshold * (size - 0.5 * threshold)
            add(sums, log_shares[i], pull, weight, residual, -weight * residual * pull)


@njit
def proportions(log_shares: Float64Array1D, costs: Float64Array1D, scale: float, log_k: float, a: float, sums: Float64Array1D) -> None:
    """Add up for costs that miss ``k x^a`` in proportion to it, ``r = (cost / (k x^a) - 1) / scale``, under the gamma quasi-likelihood.

    Its loss ``(cost / impact + log impact) / scale^2`` is convex in (u, a), is least where the mean cost is met, and takes a cost of 0.

    Parameters
    ----------
    log_shares, costs
        Shape (n,): L; costs in bps, at least 0.
    scale
        Standard deviation of a cost as a share of the impact, above 0.
    sums
        Shape (SUMS,), written.
    """
    for place in range(len(sums)):
        sums[place] = 0.0
    pull = 1.0 / scale
    for i in range(len(log_shares)):
        log_impact = log_k + a * log_shares[i]
        ratio = costs[i] * math.exp(-log_impact)
        sums[LOSS] += pull * pull * (ratio + log_impact)
        add(sums, log_shares[i], pull, 1.0, pull * (ratio - 1.0), pull * pull * ratio)


@njit
def add(sums: Float64Array1D, log_share: float, pull: float, weight: float, residual: float, curvature: float) -> None:
    """Add an observation to all sums but the loss."""
    score = weight * residual * pull
    information = weight * pull * pull
    sums[SCORE] += score
    sums[SCORE + 1] += score * log_share
    sums[CURVATURE] += curvature
    sums[CURVATURE + 1] += curvature * log_share
    sums[CURVATURE + 2] += curvature * log_share * log_share
    sums[INFORMATION] += information
    sums[INFORMATION + 1] += information * log_share
    sums[INFORMATION + 2] += information * log_share * log_share
    sums[OUTER] += score * score
    sums[OUTER + 1] += score * score * log_share
    sums[OUTER + 2] += score * score * log_share * log_share
    sums[SQUARES] += residual * residual
