"""Breakout: waits for the price at the edge of its range while volatility expands, then goes with its blend."""

from alphapack.plugin import AlphaContext, Target, clip, policy

EDGE = 0.8
"""How far out in the range of 300 s the mid must stand, 1 being its high or its low."""
EXPANSION_Z = 0.5
"""How far volatility must be above its forecast, in standard deviations."""
FLAT_BELOW = 0.02
FULL_BLEND = 0.1


@policy(
    name="breakout",
    desc="with the blend of breakout, only at the edge of a range while volatility expands",
    listens="breakout",
    horizon_s=120,
)
def breakout(ctx: AlphaContext, blend: float) -> Target:
    """Hold the blend's side at once: a range that breaks is left quickly."""
    place = ctx.get("range_place")
    if place is None or abs(place) < EDGE or ctx.z("vol_ratio") < EXPANSION_Z or abs(blend) < FLAT_BELOW:
        return Target(0.0)
    return Target(clip(blend / FULL_BLEND), urgency=0.9)
