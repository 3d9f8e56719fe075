"""A backtest as one HTML page: no network, no script, nothing beside it.

The same result gives the same bytes. Every text that comes from outside is escaped, and the page forbids itself to load or run anything.
Its size is bounded however long the backtest was: curves and marks are thinned to what can be seen, lists are cut, and each says how
much of how much it shows.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from alphapack.domain.backtest import Backtest, Bin, Equity, Fill, Interval, PolicyPnl, Trade
from alphapack.domain.market import NANOS_PER_MS
from alphapack.domain.money import UNITS, half_even
from alphapack.shell import charts
from alphapack.shell.charts import Bar, Curve, Dot, Mark

TRADES_MAX, ROWS_MAX, SYMBOLS_MAX, TEXTS_MAX = 200, 20, 4, 60
"""Trades, alphas or policies, pictures of fills, and paths, settings or notes that are shown."""
TEXT_MAX, NAME_MAX = 300, 60
"""Letters of a text, and of one in a long table."""
UNKNOWN = "\u2013"
CRITICAL = 1.959964
"""97.5% point of the normal."""

PAGE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1b2330; --soft: #5a6474; --grid: #e2e6ec;
  --one: #0b5fc4; --two: #a85312; --up: #0a7558; --down: #b0264a; --warn: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --ground: #10141b; --card: #181e27; --ink: #e7ebf1; --soft: #9ba6b6; --grid: #2b3441;
  --one: #63a7ff; --two: #f0a761; --up: #45c39d; --down: #ff8198; --warn: #453714; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial,
  sans-serif; overflow-wrap: anywhere; }
main, header, footer { max-width: 1200px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 30px 0 10px; }
p { margin: 0 0 8px; }
.soft, small { color: var(--soft); }
.lead { font-size: 17px; margin-top: 12px; }
.card { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 16px 18px; min-width: 0; }
.card + .card { margin-top: 14px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 14px; align-items: start; }
.pair > .card + .card { margin-top: 0; } .pair + .card { margin-top: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 205px), 1fr)); gap: 10px; margin: 0; }
.tiles div { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 10px 14px; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; }
dd small { display: block; font-size: 12.5px; font-weight: 400; line-height: 1.4; }
.warn { background: var(--warn); border-radius: 8px; padding: 10px 14px 10px 32px; margin: 12px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
h3 { font-size: 15px; margin: 0 0 6px; }
details { margin-top: 6px; }
summary { color: var(--soft); cursor: pointer; margin-bottom: 6px; }
th, td { padding: 4px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
thead th { white-space: normal; overflow-wrap: normal; }
.texts-1 :is(th, td):nth-child(-n+1), .texts-4 :is(th, td):nth-child(-n+4), .texts-9 :is(th, td) { text-align: left; }
.texts-9 :is(th, td) { white-space: normal; vertical-align: top; }
tfoot td { font-weight: 600; border-bottom: 0; }
code { font-size: 13px; }
footer { padding-top: 18px; padding-bottom: 40px; }
@media (max-width: 640px) { main, header, footer { padding-left: 12px; padding-right: 12px; } .card { padding: 12px; }
  h1 { font-size: 22px; } dd { font-size: 17px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); } .tiles div { padding: 8px 10px; } }
@media print { body { background: none; } .card, .tiles div { break-inside: avoid; } }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What the page lets itself load: its own style and nothing else."""


def html(result: Backtest) -> str:
    """Return the page of a backtest, of at most about 1 MB.

    Raises ``ValueError`` where a number to be shown is not finite, or lists that belong together differ in length.
    """
    title = _text(result.title)
    sections = (
        ("Summary", _summary(result)),
        ("Equity", _equity(result)),
        ("Where the profit comes from", _profit(result)),
        ("Policies", _policies(result)),
        ("Costs and win probability", f'<div class="pair">{_costs(result)}{_calibration(result)}</div>'),
        ("Fills", _fills(result)),
        ("Trades", _trades(result)),
        ("Inputs and settings", _inputs(result)),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{PAGE}{charts.STYLE}</style>\n</head>\n<body>\n{charts.DEFINITIONS}\n"
        f"<header>\n<h1>{title}</h1>\n{_head(result)}\n</header>\n<main>\n"
        + "\n".join(f"<section>\n<h2>{name}</h2>\n{body}\n</section>" for name, body in sections)
        + f"\n</main>\n<footer>\n<p>Digest <code>{_text(result.digest)}</code>: the same inputs, settings and code give the same one. "
        "Paper trading: no order of this backtest was ever sent.</p>\n</footer>\n</body>\n</html>\n"
    )


# The head


def _head(result: Backtest) -> str:
    """Return what was tested, what came of it in one sentence, and what to know before believing it."""
    change, traded = result.change, "Nothing was traded."
    equity = "Equity did not change. "
    if change:
        by = _percent(abs(change) / result.capital, 3)
        went = "rose" if change > 0 else "fell"
        equity = f"Equity {went} by {_money(result, abs(change))} {_text(result.currency)}, {by} of the capital. "
    if result.trades:
        before = _money(result, result.total - result.fees, sign=True)
        fees = _money(result, result.fees, sign=True)
        traded = f"{_count(len(result.trades), 'closed trade')} made {before} before fees of {fees}."
    symbols = _listed(result.symbols, ROWS_MAX, ", ") or "no symbols"
    span = f"{_clock(result.from_ms)} to {_clock(result.to_ms)} UTC, {_duration(result.to_ms - result.from_ms)}"
    notes = [f"<li>{_text(note)}</li>" for note in result.notes[:TEXTS_MAX]]
    if result.unexplained:
        missing = f"{_money(result, result.unexplained, sign=True)} {_text(result.currency)}"
        notes.insert(0, f"<li><strong>Parts and total of the profit differ by {missing}. Do not trust the parts.</strong></li>")
    if len(result.notes) > TEXTS_MAX:
        notes.append(f"<li>{len(result.notes) - TEXTS_MAX:,} more notes are not shown.</li>")
    warning = f'\n<ul class="warn">{"".join(notes)}</ul>' if notes else ""
    return f'<p class="soft">{symbols}<br>{span}</p>\n<p class="lead">{equity}{traded}</p>{warning}'


def _summary(result: Backtest) -> str:
    risk, currency, bounds = result.risk, _text(result.currency), result.bounds[:ROWS_MAX]
    bars = f"{_count(risk.n, 'return')} of {risk.bar_s:,} s"
    tiles = [("Change of equity", _money(result, result.change, sign=True), f"{currency}; capital {_money(result, result.capital)}")]
    for bound in bounds:
        traded = f"{currency}; {_count(bound.trades, 'trade')}, {_count(bound.fills, 'fill')}"
        tiles.append((f"PnL, queue {_text(bound.queue).replace('_', ' ')}", _money(result, bound.pnl, sign=True), traded))
    if len(bounds) > 1:
        apart = max(one.pnl for one in bounds) - min(one.pnl for one in bounds)
        tiles.append(("Between the bounds", _money(result, apart), f"{currency} hang on what is believed of queues"))
    probes = sum(trade.probe for trade in result.trades)
    tiles += [
        ("Trades closed", f"{len(result.trades):,}", f"{_count(result.decisions.n, 'decision')}; {_count(probes, 'least order')} to probe"),
        ("Fees", _money(result, result.fees, sign=True), currency),
        ("Sharpe ratio, annualised", _known(risk.sharpe, 2), _between(risk.sharpe_ci, 1) or bars),
        ("Maximum drawdown", _percent(risk.max_drawdown, 3), "of the highest equity before"),
        ("CVaR 95%, a bar", _percent(risk.cvar95, 4), _between(risk.cvar_ci, 4, percent=True) or bars),
        ("CVaR 99%, a bar", _percent(risk.cvar99, 4), "mean loss of the worst 1% of bars"),
        ("Volatility, annualised", _percent(risk.realized_vol, 2), bars),
        ("Turnover", _known(risk.turnover, 2), "traded notional over mean equity"),
        ("Brier score", _known(result.calibration.brier, 4), f"{_count(result.calibration.n, 'outcome')}; 0.25 is a coin"),
    ]
    return '<dl class="tiles">' + "".join(f"<div><dt>{a}</dt><dd>{b}<small>{c}</small></dd></div>" for a, b, c in tiles) + "</dl>"


# Pictures


def _equity(result: Backtest) -> str:
    """Return equity and drawdown: at both queue bounds where those have curves, else of the backtest itself."""
    known = [(bound.queue, bound.equity) for bound in result.bounds if bound.equity is not None and len(bound.equity.ts_ms) > 1]
    curves: list[tuple[str, Equity]] = known[:2] or [("equity", result.equity)]
    n = len(curves[0][1].ts_ms)
    if n < 2:
        return _card(charts.empty("Equity and drawdown", f"a curve needs two bars, found {n}."))
    span_ms = min(one.ts_ms[0] for _, one in curves), max(one.ts_ms[-1] for _, one in curves)
    worth, fall = [], []
    for (name, one), look in zip(curves, ("one", "two"), strict=False):
        name = _clean(name).replace("_", " ")
        worth.append(Curve(name, one.ts_ms, [money / UNITS for money in one.equity], look))
        fall.append(Curve(name, one.ts_ms, [-100.0 * part for part in one.drawdown], look, area=True))
    unit = f"{_clean(result.currency)} over UTC; dashed: the capital"
    return _card(charts.through_time("Equity", unit, worth, span_ms, level=result.capital / UNITS)) + _card(
        charts.through_time("Drawdown", "% of the highest equity before, over UTC", fall, span_ms, height=130, zero=True)
    )


def _profit(result: Backtest) -> str:
    """Return the parts that add up to the change of equity, and the alphas as a table."""
    if not result.trades and not result.change:
        return _card(charts.empty("Parts of the change of equity", "nothing was traded, so there is no profit to share out."))
    alphas = sorted(result.alpha_pnl, key=lambda one: (-abs(one.pnl), one.id))
    parts = [("base", result.base), *((one.id, one.pnl) for one in alphas[:ROWS_MAX])]
    if alphas[ROWS_MAX:]:
        parts.append((f"{len(alphas) - ROWS_MAX} more alphas", sum(one.pnl for one in alphas[ROWS_MAX:])))
    parts += [("execution", result.execution), ("fees", result.fees)]
    if result.unexplained:
        parts.append(("unexplained", result.unexplained))
    bars = _steps(result, parts, "closed trades", 0)
    bars += _steps(result, [("not closed yet", result.open_pnl_change), ("house", result.house)], "change of equity", result.total)
    unit = f"{_clean(result.currency)}; each part begins where the one above ended"
    picture = _card(charts.in_rows("Parts of the change of equity", unit, bars, linked=True))
    if not alphas:
        return picture + _card(charts.empty("Alphas", "no alpha had a part in a trade."))
    rows = [
        [_text(one.id, NAME_MAX), f"{one.trades:,}", _money(result, one.pnl, sign=True), _percent(one.share, 1)]
        for one in alphas[:TRADES_MAX]
    ]
    heads = ["alpha", "trades", f"PnL, {_text(result.currency)}", "share of sum |PnL|"]
    foot = ["all alphas", "", _money(result, sum(one.pnl for one in alphas), sign=True), ""]
    return f'<div class="pair">{picture}{_card(_table(_some("Alphas", len(rows), len(alphas)), heads, rows, foot))}</div>'


def _policies(result: Backtest) -> str:
    """Return what each policy made, and how often each was chosen."""
    by_name = {one.policy: one for one in result.policies}
    chosen = {one.policy: one.decisions for one in result.policies} | result.decisions.by_policy
    names = sorted(chosen, key=lambda name: (-chosen[name], name))
    if not names:
        return _card(charts.empty("Policies", "nothing was decided."))
    n, shown = result.decisions.n, names[:ROWS_MAX]
    often = [
        Bar(_clean(name), 0.0, chosen[name], f"{chosen[name]:,}", f"{_clean(name)}: {chosen[name]:,} of {n:,}", "one") for name in shown
    ]
    made = [_bar(result, name, 0, by_name[name].pnl) for name in shown if name in by_name and by_name[name].trades]
    pictures = [charts.empty("PnL by policy", "no policy has closed a trade."), charts.in_rows("Decisions by policy", f"of {n:,}", often)]
    if made:
        pictures[0] = charts.in_rows("PnL by policy", f"{_clean(result.currency)}, closed trades", made)
    rows = []
    for name in names[:TRADES_MAX]:
        one = by_name.get(name, PolicyPnl(name, 0, 0, chosen[name]))
        mean = _money(result, half_even(one.pnl, one.trades), sign=True) if one.trades else ""
        pnl = _money(result, one.pnl, sign=True) if one.trades else ""
        rows.append(
            [_text(name, NAME_MAX), f"{chosen[name]:,}", _percent(chosen[name] / n if n else None, 1), f"{one.trades:,}", pnl, mean]
        )
    heads = ["policy", "decisions", "of all", "trades", f"PnL, {_text(result.currency)}", "PnL a trade"]
    table = _card(_table(_some("Policies", len(rows), len(names)), heads, rows))
    return f'<div class="pair">{"".join(map(_card, pictures))}</div>{table}'


def _costs(result: Backtest) -> str:
    """Return what trading cost: the parts of the slippage, and what was paid in money."""
    costs = result.costs
    parts = {"delay": costs.delay_bps, "spread": costs.spread_bps, "impact": costs.impact_bps, "opportunity": costs.opportunity_bps}
    bars, at = [], 0.0
    for name, bps in parts.items():
        if bps is not None:
            bars.append(Bar(name, at, at + bps, f"{bps:+.2f}", f"{name}: {bps:+.4f} bps", "down" if bps > 0.0 else "up"))
            at += bps
    if costs.mean_bps is not None:
        bars.append(Bar("slippage", 0.0, costs.mean_bps, f"{costs.mean_bps:+.2f}", f"slippage: {costs.mean_bps:+.4f} bps", "still"))
    picture = charts.empty("Slippage", "nothing was traded.")
    if bars:
        picture = charts.in_rows("Slippage", "bps of notional; paid above zero", bars, linked=True)
    paid = {"fees": costs.fees, "own impact": costs.self_impact, "funding": costs.funding}
    rows = [[name, _money(result, money, sign=True)] for name, money in paid.items()]
    return _card(picture + _table("Charges", ["", f"{_text(result.currency)}; paid below zero"], rows))


def _calibration(result: Backtest) -> str:
    """Return what came of what was foretold."""
    found = result.calibration
    dots = [Dot(one.p, one.won, *_wilson(one), one.n) for one in found.bins[:TEXTS_MAX] if one.n > 0]
    if not dots:
        return _card(charts.empty("Win probability", "no outcome of a decision is known."))
    floor = "" if found.ece_floor is None else f"; chance alone would make {_percent(found.ece_floor, 2)}"
    said = f"{_count(found.n, 'outcome')}. Expected calibration error {_percent(found.ece, 2)}{floor}."
    picture = charts.reliability("Win probability", "% that won over % foretold; bars: 95% interval; numbers: outcomes", dots)
    rows = [
        [_percent(one.foretold, 1), _percent(one.came, 1), _between((one.low, one.high), 1, percent=True), f"{one.n:,}"] for one in dots
    ]
    table = _table("Bins", ["foretold", "won", "interval", "outcomes"], rows)
    return _card(f'{picture}<p class="soft">{said}</p><details><summary>As a table</summary>{table}</details>')


def _fills(result: Backtest) -> str:
    """Return the fills of each symbol on its mid."""
    by_symbol: dict[str, list[Fill]] = {}
    for fill in result.fills:
        by_symbol.setdefault(fill.symbol, []).append(fill)
    if not by_symbol:
        return _card(charts.empty("Fills", "nothing was filled."))
    mids = {one.symbol: one for one in result.mids}
    looks = {
        "bought as taker": ("buy", True),
        "bought as maker": ("buy", False),
        "sold as taker": ("sell", True),
        "sold as maker": ("sell", False),
    }
    legend, pictures = charts.legend_of_marks(looks), []
    for symbol, fills in sorted(by_symbol.items(), key=lambda one: (-len(one[1]), one[0]))[:SYMBOLS_MAX]:
        marks = [Mark(one.ts_ns // NANOS_PER_MS, one.price, one.side, not one.maker, _filled(one)) for one in fills]
        known = mids.get(symbol)
        curves = [Curve("mid", known.ts_ms, known.mid)] if known is not None and len(known.ts_ms) > 1 else []
        unit = f"price over UTC; {_count(len(fills), 'fill')}, those that would cover each other drawn once"
        times = [result.from_ms, result.to_ms, *(mark.ts_ms for mark in marks)]
        span_ms = min(times), max(times)
        pictures.append(_card(charts.through_time(_clean(symbol), unit, curves, span_ms, marks=marks, legend=legend)))
    more = len(by_symbol) - len(pictures)
    return "".join(pictures) + (f'<p class="soft">{_count(more, "more symbol")} with fewer fills not drawn.</p>' if more else "")


# Tables


def _trades(result: Backtest) -> str:
    """Return the last trades, newest first."""
    if not result.trades:
        return _card(charts.empty("Trades", "no trade was closed."))
    heads = ["closed, UTC", "symbol", "policy", "side", "held", "size", "notional", "PnL", "base", "alphas", "execution", "fees"]
    heads += ["win probability", "reward, bps"]
    shown = sorted(result.trades, key=lambda one: (one.closed_ns, one.decision))[-TRADES_MAX:][::-1]
    caption = _some("Trades", len(shown), len(result.trades), f", newest first; money in {_text(result.currency)}")
    return _card(_table(caption, heads, [_trade(result, one) for one in shown], texts=4))


def _trade(result: Backtest, trade: Trade) -> list[str]:
    parts = [_money(result, one, sign=True) for one in (trade.pnl, trade.base, trade.alphas, trade.execution, trade.fees)]
    return [
        f'<span title="decision {trade.decision:d}">{_clock(trade.closed_ns // NANOS_PER_MS)}</span>',
        _text(trade.symbol, NAME_MAX),
        _text(trade.policy, NAME_MAX),
        _text(trade.side, NAME_MAX) + " (probe)" * bool(trade.probe),
        _duration((trade.closed_ns - trade.opened_ns) // NANOS_PER_MS),
        f"{_finite(trade.size):,.8g}",
        _money(result, trade.notional),
        *parts,
        _percent(trade.win_probability, 1),
        _known(trade.reward_bps, 2, sign=True),
    ]


def _inputs(result: Backtest) -> str:
    rate = f", {result.inputs / result.seconds:,.0f} a second" if result.seconds > 0.0 else ""
    rows = [
        ["recordings", _listed(result.paths, TEXTS_MAX, "<br>") or "none"],
        ["inputs", f"{result.inputs:,} in {_finite(result.seconds):,.1f} s{rate}"],
        *([_text(name), _text(value)] for name, value in list(result.settings.items())[:TEXTS_MAX]),
    ]
    more = len(result.settings) - TEXTS_MAX
    rows += [["", f"{more:,} more settings not shown"]] if more > 0 else []
    return _card(_table("What was run", ["name", "value"], rows, texts=9))


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], foot: Sequence[str] = (), *, texts: int = 1) -> str:
    """Return a table of HTML cells, of which the first ``texts`` of a row are texts."""
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    last = f"<tfoot><tr>{''.join(f'<td>{cell}</td>' for cell in foot)}</tr></tfoot>" if foot else ""
    return (
        f'<h3>{caption}</h3><div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table class="texts-{texts}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>{last}</table></div>"
    )


# Bars


def _steps(result: Backtest, parts: Sequence[tuple[str, int]], total: str, start: int) -> list[Bar]:
    """Return the bars of parts that begin at ``start`` and add up to a total, and its own."""
    bars, at = [], start
    for name, money in parts:
        bars.append(_bar(result, name, at, at + money))
        at += money
    return [*bars, _bar(result, total, 0, at)._replace(look="still")]


def _bar(result: Backtest, name: str, start: int, end: int) -> Bar:
    name, shown = _clean(name), _cents(end - start, sign=True)
    title = f"{name}: {_exact(end - start)} {_clean(result.currency)}"
    return Bar(name, start / UNITS, end / UNITS, shown, title, _look(shown))


def _wilson(one: Bin) -> tuple[float, float]:
    """Return the interval of 95% of a share of n (Wilson 1927)."""
    z = CRITICAL * CRITICAL / one.n
    middle, half = one.won + 0.5 * z, CRITICAL * math.sqrt((one.won * (1.0 - one.won) + 0.25 * z) / one.n)
    return max(0.0, (middle - half) / (1.0 + z)), min(1.0, (middle + half) / (1.0 + z))


def _filled(fill: Fill) -> str:
    how = f"{'maker' if fill.maker else 'taker'}, {_clean(fill.cause)}"
    return f"{_clock(fill.ts_ns // NANOS_PER_MS)} {fill.side} {fill.size:.8g} at {fill.price:.10g}, {how}"


# Texts


def _clean(text: str, most: int = TEXT_MAX) -> str:
    """Return a text without what no page can show, and not too long."""
    return charts.clipped("".join(one if one.isprintable() else "\ufffd" for one in text[: most + 1]), most)


def _text(text: str, most: int = TEXT_MAX) -> str:
    """Return a text as HTML."""
    return escape(_clean(text, most))


def _listed(texts: Sequence[str], most: int, between: str) -> str:
    more = [f"and {len(texts) - most:,} more"] if len(texts) > most else []
    return between.join([*map(_text, texts[:most]), *more])


def _card(body: str) -> str:
    return f'<div class="card">{body}</div>'


def _some(what: str, shown: int, of: int, more: str = "") -> str:
    return f"{what}: {shown:,} of {of:,}{more}" if shown < of else f"{what}: {of:,}{more}"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _cents(money: int, *, sign: bool = False) -> str:
    """Return money to the cent, halves to the even one."""
    cents = half_even(money, UNITS // 100)
    return f"{'-' if cents < 0 else '+' if sign and cents > 0 else ''}{abs(cents) // 100:,}.{abs(cents) % 100:02d}"


def _exact(money: int) -> str:
    return f"{'-' * (money < 0)}{abs(money) // UNITS:,}.{abs(money) % UNITS:08d}"


def _money(result: Backtest, money: int, *, sign: bool = False) -> str:
    """Return money to the cent, all of it in its title; with ``sign`` as a gain or a loss."""
    shown = _cents(money, sign=sign)
    look = f' class="{_look(shown)}"' if sign else ""
    return f'<span{look} title="{_exact(money)} {_text(result.currency)}">{shown}</span>'


def _look(shown: str) -> str:
    """Return how a gain or a loss looks, by the sign that is shown."""
    return {"+": "up", "-": "down"}.get(shown[0], "still")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers to show, found {value}")
    return value


def _known(value: float | None, decimals: int, *, sign: bool = False) -> str:
    """Return a number, or a dash where it is not known."""
    return UNKNOWN if value is None else f"{_finite(value):{'+' if sign else ''},.{decimals}f}"


def _percent(fraction: float | None, decimals: int) -> str:
    return UNKNOWN if fraction is None else f"{100.0 * _finite(fraction):,.{decimals}f}%"


def _between(interval: Interval | None, decimals: int, *, percent: bool = False) -> str:
    if interval is None:
        return ""
    low, high = (_percent(one, decimals) if percent else _known(one, decimals) for one in interval)
    return f"95% interval {low} to {high}"


def _clock(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms // 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _duration(span_ms: int) -> str:
    """Return a time in its two largest units."""
    seconds = max(0, span_ms) // 1_000
    for name, above, unit, below in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= above:
            return f"{seconds // above:,} {name} {seconds % above // below} {unit}"
    return f"{span_ms / 1_000:.1f} s" if span_ms < 10_000 else f"{seconds} s"
