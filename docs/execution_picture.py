"""Draw an hour of trading on paper in the simulated market as one SVG.

Usage: ``python docs/execution_picture.py [OUT]``. It needs no network and no recording, and gives the same bytes each time.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pictures
import structlog
from pictures import BOTTOM, COLUMN_PX, GAP, INK, LEFT, RIGHT, SOFT, WIDTH, Values

from alphapack import app
from alphapack.config import Settings
from alphapack.domain.inputs import AnyInput, CoreSettings, InstrumentSettings
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, SIMULATOR, BookState, base_of, symbol_id
from alphapack.domain.money import UNITS
from alphapack.domain.simulation import SimulatorSettings
from alphapack.domain.trading_readings import FillReading
from alphapack.engine.engine import Engine
from alphapack.shell.clock import SetClock
from alphapack.shell.runner import Runner
from alphapack.shell.simulated import SimulatedMarket

OUT = Path(__file__).parent / "pictures" / "execution.svg"
NAME, QUOTE, SEED = "BTCUSDT", "USDT", 7
SYMBOL = symbol_id(SIMULATOR, NAME)
END_NS, SPAN_NS = 1_795_003_200 * NANOS_PER_S, 3_600 * NANOS_PER_S
"""The end is a whole hour, so that the axis is easy to read."""
MAKER_BPS, TAKER_BPS = 0.0, 0.5
"""At the usual fees the router holds nothing for nine minutes in ten."""
FILLS_MAX = 2_000
"""All that an engine keeps."""

TOP = 104
HEIGHTS = (200, 120, 150, 72)
MID, BUY, SELL = "#0b63ce", "#0a7d62", "#a3214f"
POSITION, FEES, IMPACT = "#7a3fb5", "#b3541e", "#a3214f"
MARK_PX = 3.2
"""Half the width of a fill's triangle."""
LETTER_PX, SWATCH_PX = 6.5, 30
"""Width that a letter of size 11 is given, and what a legend's mark takes with the room around it."""
MARGIN = 0.06
FAINT = (4.5, 0.3)
"""Width and opacity of what stands behind another line."""


class Seen(NamedTuple):
    """One second: prices are NaN where the book is not LIVE, lots are signed, money is summed since the start."""

    ts_ns: float
    bid: float
    ask: float
    held: float
    wanted: float
    """By all sleeves together."""
    equity: float
    price: float
    fees: float
    impact: float


class Hour(NamedTuple):
    """What was traded and what came of it; ``seconds`` has a column for each field of ``Seen``."""

    seconds: dict[str, Values]
    fills: list[FillReading]
    lot: str
    capital: float
    edge: float
    """That is planted in the market."""
    interval_s: int
    horizon_s: int


def seen(engine: Engine) -> Seen:
    """Return how market and account stand now."""
    found, account = engine.known.market(SYMBOL), engine.execution.account(SYMBOL)
    bid = ask = np.nan
    if found is not None and found[1] is BookState.LIVE:
        book = found[0]
        best = book.best()
        assert book.tick is not None and best[0] is not None and best[1] is not None, "a simulated book has two sides"
        bid, ask = book.tick.number(best[0]), book.tick.number(best[1])
    if account is None:
        return Seen(engine.now_ns, bid, ask, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    wanted = sum(sleeve.target_lots for sleeve in account.sleeves.by_decision.values())
    equity = account.cash + account.exposure
    moved = equity - account.fees - account.impact - account.funding
    money = (one / UNITS for one in (equity, moved, account.fees, account.impact))
    return Seen(engine.now_ns, bid, ask, account.position_lots, wanted, *money)


async def traded() -> Hour:
    """Trade the simulated market for an hour of its own time, at fees so low that something is traded."""
    cheap = (InstrumentSettings(SYMBOL, maker_fee_bps=MAKER_BPS, taker_fee_bps=TAKER_BPS),)
    settings = Settings(core=CoreSettings(instruments=cheap), simulator=SimulatorSettings(seed=SEED, symbols=(NAME,)))
    runner = Runner(app.build(), source=SIMULATOR, config=dict)
    rows: list[Seen] = []

    def look(entry: AnyInput) -> None:
        if entry.ts_ns >= END_NS - SPAN_NS and (not rows or entry.ts_ns // NANOS_PER_S > rows[-1].ts_ns // NANOS_PER_S):
            rows.append(seen(runner.engine))

    runner.tap = look
    clock = SetClock(END_NS)
    market = SimulatedMarket(settings.simulator, settings.core, clock, app.WORKS, app.WORK_DELAY_NS, past_ns=SPAN_NS)
    await market.make(runner)
    rows.append(seen(runner.engine))
    portfolio, account = runner.portfolio(), runner.engine.execution.account(SYMBOL)
    if account is None:
        raise SystemExit(f"expected {NAME} to be traded, found no decision of it")
    if portfolio.equity - portfolio.capital != round(rows[-1].equity * UNITS) or portfolio.funding:
        raise SystemExit(f"expected price, fees and self-impact to be all of the equity's change, found {portfolio}")
    columns = dict(zip(Seen._fields, np.array(rows, np.float64).T, strict=True))
    page = runner.fills(SYMBOL, None, FILLS_MAX)
    if len(page.fills) >= FILLS_MAX:
        raise SystemExit(f"expected fewer than {FILLS_MAX:,} fills, found {len(page.fills):,}: the first ones are no longer kept")
    return Hour(
        columns,
        page.fills,
        str(account.sleeves.lot),
        portfolio.capital / UNITS,
        settings.simulator.edge,
        settings.router.interval_s,
        settings.router.horizon_s,
    )


def strip(top: float, height: float, label: str, colour: str, *values: Values) -> tuple[list[str], Callable[[Any], Any]]:
    """Return scale and label of a strip that holds all ``values``, and what gives the height of a value in it."""
    least, most = min(float(np.nanmin(one)) for one in values), max(float(np.nanmax(one)) for one in values)
    spare = MARGIN * (most - least) or 1.0
    least, most = least - spare, most + spare

    def y_of(value: Any) -> Any:
        return top + height * (most - value) / (most - least)

    title = pictures.text(LEFT, top - 8, label, colour=colour, weight="bold")
    return [*pictures.levels(pictures.ticks(least, most), y_of), title], y_of


def triangle(x: float, y: float, side: str, maker: bool) -> str:
    """Return the mark of a fill, its tip at (x, y): a buy stands below its price, a sale above."""
    down = 1.8 * MARK_PX * (1 if side == "buy" else -1)
    colour = BUY if side == "buy" else SELL
    fill = "#ffffff" if maker else colour
    outline = f"M{x:.1f} {y:.1f}l{MARK_PX:.1f} {down:.1f}h{-2 * MARK_PX:.1f}Z"
    return f'<path d="{outline}" fill="{fill}" fill-opacity="{0.6 if maker else 1}" stroke="{colour}" stroke-width="0.9"/>'


def stroke(outline: str, colour: str, width: float = 1.3, opacity: float = 1.0) -> str:
    """Return a line."""
    return f'<path d="M{outline}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}"/>'


def legend(top: float, entries: Sequence[tuple[str, str, Callable[[float, float], str]]]) -> list[str]:
    """Return what marks mean, in a row that ends at the right: words, their colour, and what draws the mark at a place."""
    parts, x = [], float(WIDTH - RIGHT)
    for words, colour, mark in reversed(entries):
        x -= LETTER_PX * len(words)
        parts.append(pictures.text(x, top - 8, words, size=11, colour=colour))
        parts.append(mark(x - 12, top - 12))
        x -= SWATCH_PX
    return parts


def swatch(colour: str, width: float = 2.0, opacity: float = 1.0) -> Callable[[float, float], str]:
    """Return what draws a short line for a legend."""
    return lambda x, y: stroke(f"{x - 7:.1f} {y:.1f}h14", colour, width, opacity)


def stairs(x: Values, y: Values) -> str:
    """Return a line that holds each value until the next one, as path text."""
    turns = np.flatnonzero(np.diff(y)) + 1
    steps = "".join(f"H{x[at]:.1f}V{y[at]:.1f}" for at in turns)
    return f"{x[0]:.1f} {y[0]:.1f}{steps}H{x[-1]:.1f}"


def picture(hour: Hour) -> str:
    """Return the SVG: mid and fills, position and targets, and what the equity's change is made of."""
    now = hour.seconds
    start_ns, end_ns = END_NS - SPAN_NS, END_NS
    width = WIDTH - LEFT - RIGHT
    x = LEFT + width * (now["ts_ns"] - start_ns) / SPAN_NS
    tops = [float(TOP + sum(HEIGHTS[:place]) + place * GAP) for place in range(len(HEIGHTS))]
    bottom = tops[-1] + HEIGHTS[-1]
    title = f"An hour of trading on paper: the simulator's {NAME}, seed {SEED}"
    ended = {name: float(now[name][-1]) for name in ("equity", "price", "fees", "impact")}
    makers = sum(fill.maker for fill in hour.fills)
    known = (
        f"Fees of {MAKER_BPS:g} and {TAKER_BPS:g} bps; the router decides every {hour.interval_s} s for {hour.horizon_s} s. "
        f"Planted edge {hour.edge:g}. {len(hour.fills)} fills, {makers} as maker."
    )
    result = (
        f"In all {ended['equity']:+,.2f} of {hour.capital:,.0f} {QUOTE}: price {ended['price']:+,.2f}, fees {ended['fees']:+,.2f}, "
        f"self-impact {ended['impact']:+,.2f}."
    )
    parts = [
        pictures.text(LEFT, 26, title, size=16, colour=INK, weight="bold"),
        pictures.text(LEFT, 46, known),
        pictures.text(LEFT, 64, result),
        *pictures.clock(start_ns, end_ns, TOP, bottom),
    ]

    count = int(width / COLUMN_PX)
    column = np.clip((now["ts_ns"] - start_ns) * count // SPAN_NS, 0, count - 1).astype(np.int64)
    mean, _, _ = pictures.by_column(column, 0.5 * (now["bid"] + now["ask"]), now["bid"], now["ask"], count)
    paid = np.array([fill.price for fill in hour.fills])
    scale, y_of = strip(tops[0], HEIGHTS[0], f"mid (mean of {SPAN_NS / NANOS_PER_S / count:.1g} s) and own fills, {QUOTE}", MID, mean, paid)
    parts += scale
    middle = LEFT + COLUMN_PX * (np.arange(count, dtype=np.float64) + 0.5)
    for first, end in pictures.runs(mean):
        parts.append(stroke(pictures.joined(middle[first:end], y_of(mean[first:end])), MID))
    for fill in reversed(hour.fills):
        at = LEFT + width * (fill.ts_ms * NANOS_PER_MS - start_ns) / SPAN_NS
        parts.append(triangle(at, float(y_of(fill.price)), fill.side, fill.maker))
    kinds = [(side, maker) for side in ("buy", "sell") for maker in (False, True)]
    parts += legend(
        tops[0],
        [
            (f"{side}, {'maker' if maker else 'taker'}", BUY if side == "buy" else SELL, partial(_mark, side, maker))
            for side, maker in kinds
        ],
    )

    scale, y_of = strip(tops[1], HEIGHTS[1], f"position, lots of {hour.lot} {base_of(SYMBOL)}", POSITION, now["held"], now["wanted"])
    targets, held = stroke(stairs(x, y_of(now["wanted"])), SOFT, *FAINT), stroke(stairs(x, y_of(now["held"])), POSITION)
    parts += [*scale, _zero(y_of), targets, held]
    parts += legend(tops[1], [("held", POSITION, swatch(POSITION)), ("targets of its sleeves, summed", SOFT, swatch(SOFT, *FAINT))])

    lines = [("price, spread paid included", "price", MID, 1.3), ("fees", "fees", FEES, 1.3), ("all of it", "equity", INK, 1.8)]
    scale, y_of = strip(tops[2], HEIGHTS[2], f"change of equity, {QUOTE}", INK, *(now[name] for _, name, _, _ in lines))
    parts += [*scale, _zero(y_of), *(stroke(_thinned(x, y_of(now[name])), colour, wide) for _, name, colour, wide in lines)]
    parts += legend(tops[2], [(words, colour, swatch(colour)) for words, _, colour, _ in lines])

    scale, y_of = strip(tops[3], HEIGHTS[3], f"of that, self-impact, {QUOTE}", IMPACT, now["impact"])
    parts += [*scale, _zero(y_of), stroke(stairs(x, y_of(now["impact"])), IMPACT)]
    parts.append(pictures.text(WIDTH - RIGHT, tops[3] - 8, "on a scale of its own: too little to be seen above", size=11, anchor="end"))
    return pictures.document(title, bottom + BOTTOM, parts)


def _mark(side: str, maker: bool, x: float, y: float) -> str:
    """Return a fill's triangle around a height, for a legend."""
    return triangle(x + 2, y - MARK_PX if side == "buy" else y + MARK_PX, side, maker)


def _zero(y_of: Callable[[Any], Any]) -> str:
    return f'<path d="M{LEFT} {y_of(0.0):.1f}H{WIDTH - RIGHT}" stroke="{SOFT}" stroke-opacity="0.5"/>'


def _thinned(x: Values, y: Values) -> str:
    """Return the last value of each column as path text."""
    last = np.flatnonzero(np.diff((x - LEFT) // COLUMN_PX, append=np.inf))
    return pictures.joined(x[last], y[last])


def main(arguments: list[str]) -> None:
    """Trade, and draw it into the file that is named, or the usual one."""
    out = Path(arguments[0]) if arguments else OUT
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    out.write_text(picture(asyncio.run(traded())), encoding="utf-8")
    print(f"{out.name}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
