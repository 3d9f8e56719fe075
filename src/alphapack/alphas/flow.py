"""Alphas of order flow and of the book: who queues, who takes, and where the price stands."""

from alphapack.plugin import AlphaContext, alpha, clip


@alpha(
    id="book_imbalance",
    desc="deeper bids than asks over five levels",
    inputs=("obi",),
    weight_init=0.15,
    source="Gould and Bonart 2016, Market Microstructure and Liquidity 2, 1650006",
)
def book_imbalance(ctx: AlphaContext) -> float:
    """The longer queue is used up later: the price moves towards the thin side."""
    return clip(ctx.z("obi") / 2.0)


@alpha(
    id="taker_flow",
    desc="takers bought more than they sold in 30 s",
    inputs=("ti_30s",),
    weight_init=0.1,
    source="Chordia and Subrahmanyam 2004, Journal of Financial Economics 72, 485-518",
)
def taker_flow(ctx: AlphaContext) -> float:
    """Large orders are worked in parts: who has bought goes on buying, and pays for it."""
    return clip(ctx.z("ti_30s") / 2.0)


@alpha(
    id="order_flow",
    desc="what came, went and was taken at five levels in 1 s, net",
    inputs=("ofi",),
    weight_init=0.05,
    source="Cont, Kukanov and Stoikov 2014, Journal of Financial Econometrics 12, 47-88",
)
def order_flow(ctx: AlphaContext) -> float:
    """A price change is nearly linear in the net flow of orders; the flow lasts a little longer than the second it is measured in."""
    return clip(ctx.z("ofi") / 2.0)


@alpha(
    id="agreement",
    desc="book and takers lean the same way",
    inputs=("obi", "ti_30s"),
    weight_init=0.1,
    source="Cartea, Donnelly and Jaimungal 2018, Applied Mathematical Finance 25, 1-35",
)
def agreement(ctx: AlphaContext) -> float:
    """Quotes are cheap to show and trades cost money: where both say the same, the quotes are meant."""
    book, taken = clip(ctx.z("obi") / 2.0), clip(ctx.z("ti_30s") / 2.0)
    if book * taken <= 0.0:
        return 0.0
    return min(book, taken, key=abs)


@alpha(
    id="short_reversal",
    desc="against the move of the last minute",
    inputs=("ret_60s_bps",),
    weight_init=0.05,
    group="reversal",
    source="Lehmann 1990, Quarterly Journal of Economics 105, 1-28",
)
def short_reversal(ctx: AlphaContext) -> float:
    """Who wants to trade at once pays those who take the other side; the price comes back as they are paid."""
    return -clip(ctx.z("ret_60s_bps") / 3.0)


@alpha(
    id="range_edge",
    desc="away from the high or the low of 300 s",
    inputs=("range_place",),
    weight_init=0.05,
    group="reversal",
    source="Osler 2003, Journal of Finance 58, 1791-1819",
)
def range_edge(ctx: AlphaContext) -> float:
    """Orders that take profits rest where the price turned last; in the middle of the range there is nothing to say."""
    place = clip(ctx["range_place"])
    return -place * place * place


@alpha(
    id="crowded_move",
    desc="against a move of 20 s, as far as trading is brisk",
    inputs=("ret_20s_bps", "trade_rate"),
    weight_init=0.05,
    group="reversal",
    source="Campbell, Grossman and Wang 1993, Quarterly Journal of Economics 108, 905-939",
)
def crowded_move(ctx: AlphaContext) -> float:
    """A move on much volume is made by those who need liquidity, and is undone; one on little volume is news."""
    return -clip(ctx.z("ret_20s_bps") / 3.0) * clip(0.5 + ctx.z("trade_rate") / 4.0, 0.0)


@alpha(
    id="micro_lean",
    desc="Stoikov's microprice above the mid",
    inputs=("stoikov_gap_bps",),
    weight_init=0.05,
    group="making",
    source="Stoikov 2018, Quantitative Finance 18, 1959-1966",
)
def micro_lean(ctx: AlphaContext) -> float:
    """It is the mid to be expected from spread and imbalance: quotes belong around it, not around the mid."""
    return clip(ctx.z("stoikov_gap_bps") / 2.0)


@alpha(
    id="touch_imbalance",
    desc="more displayed at the best bid than at the best ask",
    inputs=("obi_1",),
    weight_init=0.1,
    group="making",
    source="Cartea, Donnelly and Jaimungal 2018, Applied Mathematical Finance 25, 1-35",
)
def touch_imbalance(ctx: AlphaContext) -> float:
    """The next market order comes from the side of the longer queue: do not stand in its way."""
    return clip(ctx.z("obi_1") / 2.0)


@alpha(
    id="toxic_flow",
    desc="with the takers of 5 s, as far as their flow is toxic",
    inputs=("ti", "vpin"),
    weight_init=0.1,
    group="making",
    source="Easley, Lopez de Prado and O'Hara 2012, Review of Financial Studies 25, 1457-1493",
)
def toxic_flow(ctx: AlphaContext) -> float:
    """Lopsided volume means that takers know something: then the side that they hit loses."""
    return clip(ctx.z("ti") / 2.0) * clip(0.5 + ctx.z("vpin") / 4.0, 0.0)
