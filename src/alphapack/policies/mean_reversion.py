"""Mean reversion: against moves that went too far, unless a range is just breaking."""

from alphapack.plugin import AlphaContext, Target, clip, policy

FLAT_BELOW = 0.03
"""A blend nearer to 0 asks for nothing."""
FULL_BLEND = 0.12
"""A blend from which the exposure is whole; these alphas are believed less than those of momentum."""
STAND_ASIDE_Z = 2.0
"""A volatility so far above its forecast, in standard deviations, is no time to lean against a move."""


@policy(name="mean_reversion", desc="with the blend of reversal, less as volatility expands, patiently", listens="reversal", horizon_s=180)
def mean_reversion(ctx: AlphaContext, blend: float) -> Target:
    """Hold the blend's side, the less the more volatility is above its forecast; who provides liquidity need not hurry."""
    calm = 1.0 - clip(ctx.z("vol_ratio") / STAND_ASIDE_Z, 0.0)
    if abs(blend) < FLAT_BELOW or calm == 0.0:
        return Target(0.0)
    return Target(calm * clip(blend / FULL_BLEND), urgency=0.2)
