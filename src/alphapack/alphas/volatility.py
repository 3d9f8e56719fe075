"""Alphas in which the forecast volatility says how a move is to be read."""

from alphapack.plugin import AlphaContext, alpha, clip


@alpha(
    id="calm_trend",
    desc="with the move of 300 s, as far as the forecast is calm",
    inputs=("ret_300s_bps", "sigmaHAR"),
    weight_init=0.05,
    source="LeBaron 1992, Journal of Business 65, 199-219",
)
def calm_trend(ctx: AlphaContext) -> float:
    """Returns go on where volatility is low, and no longer where it is high: in calm markets news is absorbed slowly."""
    return clip(ctx.z("ret_300s_bps") / 3.0) * clip(0.5 - ctx.z("sigmaHAR") / 4.0, 0.0)


@alpha(
    id="stress_reversal",
    desc="against the move of the last minute, as far as the forecast is wild",
    inputs=("ret_60s_bps", "sigmaGARCH"),
    weight_init=0.05,
    group="reversal",
    source="Nagel 2012, Review of Financial Studies 25, 2005-2039",
)
def stress_reversal(ctx: AlphaContext) -> float:
    """Who provides liquidity asks more for it in turmoil: moves overshoot more, and more of them comes back."""
    return -clip(ctx.z("ret_60s_bps") / 3.0) * clip(0.5 + ctx.z("sigmaGARCH") / 4.0, 0.0)


@alpha(
    id="range_break",
    desc="out of the range of 300 s while volatility is above its forecast",
    inputs=("range_place", "vol_ratio"),
    weight_init=0.1,
    group="breakout",
    source="Brock, Lakonishok and LeBaron 1992, Journal of Finance 47, 1731-1764",
)
def range_break(ctx: AlphaContext) -> float:
    """A range that breaks sets off the stop orders beyond it; one that is only touched in a calm market does not break."""
    place = clip(ctx["range_place"])
    return place * place * place * clip(ctx.z("vol_ratio") / 2.0, 0.0)


@alpha(
    id="wild_trend",
    desc="with the move of 300 s, as far as volatility is above its forecast",
    inputs=("ret_300s_bps", "vol_ratio"),
    weight_init=0.05,
    group="breakout",
    source="Gao, Han, Li and Zhou 2018, Journal of Financial Economics 129, 394-414",
)
def wild_trend(ctx: AlphaContext) -> float:
    """Moves of the day carry on better on volatile days: much is being learned, and not by all at once."""
    return clip(ctx.z("ret_300s_bps") / 3.0) * clip(ctx.z("vol_ratio") / 2.0, 0.0)


@alpha(
    id="fresh_shock",
    desc="with the move of the last minute, as far as GARCH stands above HAR",
    inputs=("ret_60s_bps", "sigma_gap"),
    weight_init=0.05,
    group="breakout",
    source="the two memories: Corsi 2009, Journal of Financial Econometrics 7, 174-196",
)
def fresh_shock(ctx: AlphaContext) -> float:
    """GARCH answers to the last minutes, HAR to hours and days: a shock that only the first has seen is new to most."""
    return clip(ctx.z("ret_60s_bps") / 3.0) * clip(-ctx.z("sigma_gap") / 2.0, 0.0)
