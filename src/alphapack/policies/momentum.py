"""Momentum: goes with the flow of orders while that lasts."""

from alphapack.plugin import AlphaContext, Target, clip, policy

FLAT_BELOW = 0.05
"""A blend nearer to 0 is noise: it asks for nothing."""
FULL_BLEND = 0.25
"""A blend from which the exposure is whole."""


@policy(name="momentum", desc="with the blend of continuation, from a threshold on", listens="continuation")
def momentum(ctx: AlphaContext, blend: float) -> Target:
    """Hold the blend's side, in proportion to it; what is to go on for minutes is worth being early."""
    if abs(blend) < FLAT_BELOW:
        return Target(0.0)
    exposure = clip(blend / FULL_BLEND)
    return Target(exposure, urgency=0.4 + 0.4 * abs(exposure))
