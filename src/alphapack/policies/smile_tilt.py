"""Smile tilt: takes the side of the underlying on which options are dear."""

from alphapack.plugin import AlphaContext, Target, clip, policy

FLAT_BELOW = 0.1
"""An exposure nearer to 0 is not worth a trade."""
LEAN_SHARE = 0.5
"""Of the whole exposure, what the skew alone may ask for."""
FULL_BLEND = 0.2
"""A blend that moves the exposure by a whole."""


@policy(name="smile_tilt", desc="with the skew, more where options are dear, and with the blend of smile", listens="smile")
def smile_tilt(ctx: AlphaContext, blend: float) -> Target:
    """Lean with level and news of the skew, by half where implied volatility is not above its forecast; the blend comes on top."""
    if ctx.get("rr25") is None and ctx.get("skew_z") is None:
        return Target(0.0)
    skew = clip((ctx.z("rr25") + ctx.z("skew_z")) / 4.0)
    dear = 0.5 + 0.5 * clip(ctx.z("iv_gap") / 2.0, 0.0)
    exposure = clip(LEAN_SHARE * dear * skew + blend / FULL_BLEND)
    return Target(exposure if abs(exposure) >= FLAT_BELOW else 0.0, urgency=0.2)
