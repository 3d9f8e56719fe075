"""What another policy would have earned, from the log of one whose propensities are known.

A row of a log has a reward ``r``, the propensity ``p`` with which the logged policy took its action, and the propensity ``q`` with which
the target policy would have taken the same one. With ``w = q / p``: inverse propensity scoring is the mean of ``w r``, and has no bias;
the self-normalised one divides by the mean of ``w`` (Swaminathan and Joachims 2015), and wanders less; the doubly robust one applies
weights to what a model of rewards leaves (Dudik, Langford and Li 2011). Each is a mean of independent parts to first order, so that its
interval follows from their variance.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D

ESS_MIN = 50.0
"""With fewer effective rows the estimate is that of a handful of weights, and so is its interval."""
PROPENSITY_MIN, REWARD_MAX = 1e-50, 1e50
"""Squares of weighted rewards then stay in the range of a float."""
Z95 = 1.959963984540054
"""97.5% point of the normal distribution."""


class TooLittle(ValueError):
    """The log has too few rows that the target policy might have made."""


class OffPolicy(msgspec.Struct, frozen=True):
    """Estimates of a target policy's mean reward, with 95% intervals; in the unit of the rewards.

    With ``refuse=False`` what cannot be told is NaN: intervals of a single part, ``snips`` where no weight is above 0.
    """

    n: int
    ess: float
    """Effective rows, ``(sum w)^2 / sum w^2``, 0 to n: so many rows of equal weight would tell as much."""
    ips: float
    ips_low: float
    ips_high: float
    snips: float
    snips_low: float
    snips_high: float


class DoublyRobust(msgspec.Struct, frozen=True):
    """A doubly robust estimate, with its 95% interval; in the unit of the rewards."""

    n: int
    ess: float
    dr: float
    dr_low: float
    dr_high: float


def off_policy(
    rewards: npt.ArrayLike,
    logged_propensities: npt.ArrayLike,
    target_propensities: npt.ArrayLike,
    *,
    blocks: npt.ArrayLike | None = None,
    refuse: bool = True,
) -> OffPolicy:
    """Estimate a target policy's mean reward by inverse propensities.

    Parameters
    ----------
    rewards : float[n]
        Finite, sizes up to 1e50, n at least 1.
    logged_propensities : float[n]
        Of the logged action under the policy that took it, above 0 (at least 1e-50) and up to 1.
    target_propensities : float[n]
        Of the same action under the target policy, 0 to 1.
    blocks : int[n], optional
        Rows with one number depend on each other, as rewards of spans that overlap do; those of different numbers do not. Intervals
        then follow from the sums of the blocks: have at least 20 of them. Where left out, every row stands alone.
    refuse : bool
        Whether fewer than 50 effective rows are an error.

    Raises
    ------
    TooLittle
        A ValueError: there are fewer than 50 effective rows.
    ValueError
        Of a wrong length or a number out of range.
    """
    log = _log(rewards, logged_propensities, target_propensities, blocks, refuse)
    weighted = log.weights * log.rewards
    ips, ips_error = _mean(weighted, log.blocks)
    weight = float(np.mean(log.weights))
    snips = snips_error = math.nan
    if weight > 0.0:
        snips = ips / weight
        _, snips_error = _mean(log.weights * (log.rewards - snips), log.blocks)
        snips_error /= weight
    return OffPolicy(len(weighted), log.ess, ips, *_interval(ips, ips_error), snips, *_interval(snips, snips_error))


def doubly_robust(
    rewards: npt.ArrayLike,
    logged_propensities: npt.ArrayLike,
    target_propensities: npt.ArrayLike,
    predicted_logged: npt.ArrayLike,
    predicted_target: npt.ArrayLike,
    *,
    blocks: npt.ArrayLike | None = None,
    refuse: bool = True,
) -> DoublyRobust:
    """Estimate a target policy's mean reward from a model of rewards and from what the model leaves.

    The estimate has no bias whatever the model says, as long as it has not seen the row's own reward; the better the model, the narrower
    the interval. Other parameters and errors are those of ``off_policy``.

    Parameters
    ----------
    predicted_logged : float[n]
        The model's reward of the logged action, sizes up to 1e50.
    predicted_target : float[n]
        The model's mean reward of the target policy: over all actions, the propensity times the model's reward.
    """
    log = _log(rewards, logged_propensities, target_propensities, blocks, refuse)
    n = len(log.rewards)
    left = log.rewards - _column("predicted_logged", predicted_logged, -REWARD_MAX, REWARD_MAX, n)
    parts = _column("predicted_target", predicted_target, -REWARD_MAX, REWARD_MAX, n) + log.weights * left
    dr, error = _mean(parts, log.blocks)
    return DoublyRobust(n, log.ess, dr, *_interval(dr, error))


class _Log(NamedTuple):
    """A log that was checked."""

    rewards: Float64Array1D
    weights: Float64Array1D
    blocks: npt.NDArray[np.intp] | None
    """Numbers from 0 on without a gap."""
    ess: float


def _log(rewards: npt.ArrayLike, logged: npt.ArrayLike, target: npt.ArrayLike, blocks: npt.ArrayLike | None, refuse: bool) -> _Log:
    earned = _column("rewards", rewards, -REWARD_MAX, REWARD_MAX, None)
    n = len(earned)
    weights = _column("target_propensities", target, 0.0, 1.0, n) / _column("logged_propensities", logged, PROPENSITY_MIN, 1.0, n)
    total, squares = float(np.sum(weights)), float(np.sum(weights * weights))
    ess = min(float(n), total * total / squares) if squares > 0.0 else 0.0
    if refuse and ess < ESS_MIN:
        raise TooLittle(
            f"expected at least {ESS_MIN:g} effective rows, found {ess:.1f} of {n}: the target takes other actions than the log"
        )
    return _Log(earned, weights, None if blocks is None else _numbered(blocks, n), ess)


def _column(name: str, values: npt.ArrayLike, low: float, high: float, n: int | None) -> Float64Array1D:
    """Return one column of a log; ``n`` None: it may have any length but 0."""
    found = np.asarray(values)
    if found.dtype.kind not in "fiub" or found.ndim != 1 or len(found) == 0 or (n is not None and len(found) != n):
        wanted = "numbers" if n is None else f"{n} numbers"
        raise ValueError(f"expected {name} to be {wanted} in one dimension, found {found.dtype} of shape {found.shape}")
    column: Float64Array1D = np.ascontiguousarray(found, np.float64)
    if not (low <= float(np.min(column)) and float(np.max(column)) <= high):  # NaN fails both.
        at = int(np.flatnonzero(~((column >= low) & (column <= high)))[0])
        raise ValueError(f"expected {name} from {low:g} to {high:g}, found {column[at]} in row {at}")
    return column


def _numbered(blocks: npt.ArrayLike, n: int) -> npt.NDArray[np.intp]:
    found = np.asarray(blocks)
    if found.dtype.kind not in "iu" or found.shape != (n,):
        raise ValueError(f"expected {n} whole numbers of blocks, found {found.dtype} of shape {found.shape}")
    return np.unique(found, return_inverse=True)[1]


def _mean(parts: Float64Array1D, blocks: npt.NDArray[np.intp] | None) -> tuple[float, float]:
    """Return the mean and its standard error, NaN where there is but one independent part."""
    n = len(parts)
    mean = float(np.mean(parts))
    away = parts - mean
    if blocks is not None:
        away = np.bincount(blocks, away).astype(np.float64, copy=False)
    count = len(away)
    if count < 2:
        return mean, math.nan
    return mean, math.sqrt(float(np.sum(away * away)) * count / (count - 1)) / n


def _interval(centre: float, error: float) -> tuple[float, float]:
    return centre - Z95 * error, centre + Z95 * error
