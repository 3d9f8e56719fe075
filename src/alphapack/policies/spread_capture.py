"""Spread capture: quotes both sides as far out as fees demand, leaning with its blend, and steps back from wild or lopsided markets."""

from math import ceil

from alphapack.plugin import AlphaContext, Quote, clip, policy

FULL_BLEND = 0.2
"""A blend from which the side against it is not quoted at all."""
GONE_Z = 2.0
"""At so many standard deviations of micro_vol or vpin above usual nothing is quoted."""
MARGIN = 1.25
"""What a round trip on both quotes is to earn, as a multiple of the two fees that it pays."""
OFFSET_TICKS_MAX = 10_000


@policy(name="spread_capture", desc="quotes on both sides, skewed by the blend of making; none in wild or toxic markets", listens="making")
def spread_capture(ctx: AlphaContext, blend: float) -> Quote:
    """Quote less the wilder the last seconds and the more lopsided the volume; and less on the side that the blend speaks against.

    Where the spread is less than the fees of both sides, quotes at the best prices lose however often they are met: these stand so far
    behind that two fills pay for themselves.
    """
    spread_bps, tick_bps, fee_bps = ctx.get("spread_bps"), ctx.get("tick_bps"), ctx.get("maker_fee_bps")
    if spread_bps is None or tick_bps is None or fee_bps is None or not tick_bps or ctx.get("micro_vol") is None:
        return Quote(0.0, 0.0)
    offset = max(0.0, MARGIN * fee_bps - 0.5 * spread_bps) / tick_bps
    if not offset <= OFFSET_TICKS_MAX:
        return Quote(0.0, 0.0)
    share = 1.0 - clip(max(ctx.z("micro_vol"), ctx.z("vpin")) / GONE_Z, 0.0)
    lean = clip(blend / FULL_BLEND)
    return Quote(share * min(1.0, 1.0 + lean), share * min(1.0, 1.0 - lean), ceil(offset))
