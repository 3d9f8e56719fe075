"""Smile tilt: takes the side of the underlying on which options are dear."""

from alphapack.plugin import AlphaContext, Target, clip, policy

FLAT_BELOW = 0.1
"""An exposure nearer to 0 is not worth a trade."""
FULL_BLEND = 0.1
"""A blend from which the exposure is whole, where options are dear."""


@policy(name="smile_tilt", desc="with the blend of smile, twice as much where options are dear", listens="smile")
def smile_tilt(ctx: AlphaContext, blend: float) -> Target:
    """Follow what level and news of the skew say, by half where implied volatility is not above its forecast."""
    if ctx.get("rr25") is None and ctx.get("skew_z") is None:
        return Target(0.0)
    dear = 0.5 + 0.5 * clip(ctx.z("iv_gap") / 2.0, 0.0)
    exposure = clip(dear * blend / FULL_BLEND)
    return Target(exposure if abs(exposure) >= FLAT_BELOW else 0.0, urgency=0.2)
