"""Alphas of the option smile: what those who buy protection or upside pay for it."""

from alphapack.plugin import AlphaContext, alpha, clip


@alpha(
    id="smirk",
    desc="calls dearer than puts",
    inputs=("rr25",),
    weight_init=0.05,
    group="smile",
    source="Xing, Zhang and Zhao 2010, Journal of Financial and Quantitative Analysis 45, 641-662",
)
def smirk(ctx: AlphaContext) -> float:
    """Who knows of trouble buys puts first: the steeper the smirk, the worse the underlying does."""
    return clip(ctx.z("rr25") / 2.0)


@alpha(
    id="skew_news",
    desc="skew above its own last thirty days",
    inputs=("skew_z",),
    weight_init=0.05,
    group="smile",
    source="An, Ang, Bali and Cakici 2014, Journal of Finance 69, 2279-2337",
)
def skew_news(ctx: AlphaContext) -> float:
    """The level of a skew is habit, its change is news: calls that got dearer go before a rise."""
    return clip(ctx.z("skew_z") / 3.0)


@alpha(
    id="dear_skew",
    desc="with the skew, as far as options are dear against the forecast",
    inputs=("rr25", "iv_gap"),
    weight_init=0.05,
    group="smile",
    source="Bali and Hovakimian 2009, Management Science 55, 1797-1812",
)
def dear_skew(ctx: AlphaContext) -> float:
    """Implied above realised volatility is demand for options: the side on which it falls shows what is expected."""
    return clip(ctx.z("rr25") / 2.0) * clip(0.5 + ctx.z("iv_gap") / 4.0, 0.0)


@alpha(
    id="panic_fade",
    desc="against an unusual skew, as far as the term structure is inverted",
    inputs=("skew_z", "iv_term_slope"),
    weight_init=0.05,
    group="smile",
    source="Johnson 2017, Journal of Financial and Quantitative Analysis 52, 2461-2490",
)
def panic_fade(ctx: AlphaContext) -> float:
    """Near options above far ones are panic or greed, and both are paid for: what follows is the other way."""
    return -clip(ctx.z("skew_z") / 3.0) * clip(-ctx.z("iv_term_slope") / 2.0, 0.0)
