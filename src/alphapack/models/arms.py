"""The context vector of an arm: what the posterior of one policy is about.

Signed features, signals and the blend enter times the side that the policy would take, so that a linear posterior can learn a policy that
follows a signal both ways: what it learns of a rising market it knows of a falling one. What has no sign enters as it is. What is missing
is 0, its mean, and an indicator of its family says so.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.domain.trading import RouterSettings
from alphapack.models.bandit import BanditSettings
from alphapack.models.features import FAMILIES, FEATURES

SIGNED = tuple(feature for feature in FEATURES if feature.routed and feature.signed)
UNSIGNED = tuple(feature for feature in FEATURES if feature.routed and not feature.signed)
BLEND_SCALE = 0.1
"""A blend is an expected return in volatilities to the horizon: few are beyond a tenth, which is made about as large as the others."""


def names(alphas: Sequence[str]) -> list[str]:
    """Return what stands at each place of the vector."""
    return [
        "intercept",
        *(feature.name for feature in SIGNED),
        *alphas,
        "blend",
        *(feature.name for feature in UNSIGNED),
        *(f"{family} missing" for family in FAMILIES),
    ]


def vector(standardised: Mapping[str, float], signals: Sequence[float | None], blend: float, side: int) -> Float64Array1D:
    """Return the context of an arm as float64[d], in the order of ``names``.

    Parameters
    ----------
    standardised
        Features by name, those that are known.
    signals
        Of every alpha, -1 to 1; None where it says nothing.
    blend
        What the policy's alphas say together.
    side
        +1 or -1 as the policy would buy or sell; 0 where it would do both alike, so that nothing signed is seen.
    """
    missing = {feature.family for feature in FEATURES if feature.routed and feature.name not in standardised}
    return np.array(
        [
            1.0,
            *(side * standardised.get(feature.name, 0.0) for feature in SIGNED),
            *(side * (signal or 0.0) for signal in signals),
            side * blend / BLEND_SCALE,
            *(standardised.get(feature.name, 0.0) for feature in UNSIGNED),
            *(1.0 if family in missing else 0.0 for family in FAMILIES),
        ]
    )


def prior_sd(alphas: int, edge: float, effect: float) -> tuple[float, ...]:
    """Return the believed standard deviations of the coefficients: of the intercept ``edge``, of all else ``effect``."""
    return (edge, *(effect,) * (len(names([""] * alphas)) - 1))


def beliefs(settings: RouterSettings, alphas: int) -> BanditSettings:
    """Return the settings of posteriors that so many alphas are part of."""
    return BanditSettings(scale=settings.scale, floor=settings.floor, prior_sd=prior_sd(alphas, settings.prior_edge, settings.prior_effect))


def shrunk(value: float, most: float) -> float:
    """Return a value cut to ``most`` on both sides."""
    return math.copysign(min(abs(value), most), value)
