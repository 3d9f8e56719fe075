"""Draw the features of a recording as one SVG.

Usage: ``python docs/pictures.py [CAPTURE] [OUT]``. Without a capture the one below ``ALPHAPACK_DATA`` is drawn.
"""

import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import alphapack as ap
from alphapack.domain.market import NANOS_PER_S, BookState

CAPTURE = Path("captures", "binance-usdm_BTCUSDT_20240808T2354.raw.gz")
OUT = Path(__file__).parent / "pictures" / "microstructure.svg"

WIDTH, LEFT, RIGHT, TOP, BOTTOM, GAP = 900, 76, 30, 82, 32, 32
COLUMN_PX = 2.0
"""Width over which values are drawn as their mean and their range."""
INK, SOFT, GRID = "#1f2430", "#5b6472", "#e3e6eb"
TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
TICKS_MAX = 9

Values = np.ndarray[Any, np.dtype[np.float64]]


class Strip(NamedTuple):
    """One feature over time: field, what the axis says, its height, its colour, a factor, fixed limits if it has them."""

    name: str
    unit: str
    height: int
    colour: str
    factor: float = 1.0
    limits: tuple[float, float] | None = None


STRIPS = (
    Strip("mid", "quote currency", 190, "#0b63ce"),
    Strip("obi", "top 5 levels, -1 to 1", 84, "#7a3fb5", limits=(-1.0, 1.0)),
    Strip("ti", "5 s, -1 to 1", 84, "#0a7d62", limits=(-1.0, 1.0)),
    Strip("micro_vol", "5 s, bps", 84, "#b3541e", factor=1e4),
    Strip("cancel_rate", "5 s, 0 to 1", 84, "#a3214f", limits=(0.0, 1.0)),
)


def by_column(column: Any, values: Values, low_of: Values, high_of: Values, count: int) -> tuple[Values, Values, Values]:
    """Return mean of ``values``, least of ``low_of`` and greatest of ``high_of`` in each column.

    A column without a message shows what the one before it does; NaN where nothing is known.
    """
    shown = np.maximum.accumulate(np.where(np.bincount(column, minlength=count) > 0, np.arange(count), 0))
    known = np.isfinite(values)
    column, values = column[known], values[known]
    total, number = np.zeros(count), np.zeros(count)
    np.add.at(total, column, values)
    np.add.at(number, column, 1.0)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, column, low_of[known])
    np.maximum.at(high, column, high_of[known])
    empty = number == 0.0
    low[empty] = high[empty] = np.nan
    with np.errstate(invalid="ignore"):
        return (total / number)[shown], low[shown], high[shown]


def runs(values: Values) -> list[tuple[int, int]]:
    """Return the stretches (first, end) of known values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.isfinite(values).astype(np.int8), [0]))))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def joined(x: Values, y: Values) -> str:
    """Return points as path text."""
    return "L".join(f"{a:.0f} {b:.1f}" for a, b in zip(x, y, strict=True))


def ticks(low: float, high: float) -> list[float]:
    """Return three to six round numbers between the limits."""
    step = 10.0 ** np.floor(np.log10(high - low))
    while (high - low) / step < 3.0:
        step /= 2.0
    return [float(k * step) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def text(x: float, y: float, what: str, *, size: int = 12, anchor: str = "start", colour: str = SOFT, weight: str = "normal") -> str:
    """Return a line of text."""
    look = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:.0f}" y="{y:.1f}" {look}>{escape(what)}</text>'


def levels(marks: Iterable[float], y_of: Callable[[float], float]) -> list[str]:
    """Return a line across and its number for each value of ``marks``."""
    parts = []
    for mark in marks:
        y = float(y_of(mark))
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        parts.append(text(LEFT - 6, y + 4, f"{mark:,.10g}", size=11, anchor="end"))
    return parts


def clock(start_ns: int, end_ns: int, top: float, bottom: float) -> list[str]:
    """Return a line from ``top`` to ``bottom`` and its time for at most ``TICKS_MAX`` round times."""
    span_s, parts = (end_ns - start_ns) / NANOS_PER_S, []
    step_s = next((step for step in TICK_STEPS_S if span_s / step <= TICKS_MAX), 7_200)
    for second in range(-(-start_ns // (step_s * NANOS_PER_S)) * step_s, end_ns // NANOS_PER_S + 1, step_s):
        x = LEFT + (WIDTH - LEFT - RIGHT) * (second * NANOS_PER_S - start_ns) / (end_ns - start_ns)
        parts.append(f'<path d="M{x:.1f} {top:.0f}V{bottom:.1f}" stroke="{GRID}"/>')
        parts.append(text(x, bottom + 18, datetime.fromtimestamp(second, UTC).strftime("%H:%M:%S"), size=11, anchor="middle"))
    starts_with_one = start_ns % (step_s * NANOS_PER_S) == 0
    return [*parts, text(LEFT - (32 if starts_with_one else 6), bottom + 18, "UTC", size=11, anchor="end")]


def document(title: str, height: float, parts: Iterable[str]) -> str:
    """Return the parts as an SVG on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" role="img">'
    )
    return "\n".join((head, f"<title>{escape(title)}</title>", '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>\n"))


def drawn(strip: Strip, top: float, column: Any, rows: Any, count: int) -> list[str]:
    """Return the elements of one strip, its top at ``top``."""
    values = np.where(rows["state"] == BookState.LIVE, rows[strip.name] * strip.factor, np.nan)
    is_price = strip.name == "mid"
    mean, low, high = by_column(column, values, rows["bid"] if is_price else values, rows["ask"] if is_price else values, count)
    least, most = strip.limits or (float(np.nanmin(low)), float(np.nanmax(high)))
    if strip.limits is None:
        margin = 0.06 * (most - least) or 1.0
        least, most = (least - margin if is_price else 0.0), most + margin

    def y_of(value: Any) -> Any:
        return top + strip.height * (most - value) / (most - least)

    parts = levels(ticks(least, most) if strip.limits is None else (least, 0.5 * (least + most), most), y_of)
    x = LEFT + COLUMN_PX * (np.arange(count, dtype=np.float64) + 0.5)
    for first, end in runs(mean):
        there = slice(first, end)
        outline = joined(x[there], y_of(high[there])) + "L" + joined(x[there][::-1], y_of(low[there])[::-1])
        parts.append(f'<path d="M{outline}Z" fill="{strip.colour}" fill-opacity="0.22"/>')
        parts.append(f'<path d="M{joined(x[there], y_of(mean[there]))}" fill="none" stroke="{strip.colour}" stroke-width="1.3"/>')
    label = "mid (band: least best bid to greatest best ask)" if is_price else strip.name
    parts.append(text(LEFT, top - 8, label, colour=strip.colour, weight="bold"))
    parts.append(text(WIDTH - RIGHT, top - 8, strip.unit, size=11, anchor="end"))
    return parts


def picture(capture: Path) -> str:
    """Return the SVG of a recording's first symbol from the time its book is LIVE; other states leave a hole."""
    replay = ap.replay(capture)
    rows = replay.to_numpy()
    rows = rows[rows["symbol"] == 0]
    live = np.flatnonzero(rows["state"] == BookState.LIVE)
    if len(live) < 2:
        raise SystemExit(f"expected a recording with a LIVE book, found none in {capture.name}")
    rows = rows[live[0] :]
    start_ns, end_ns = int(rows["ts_ns"][0]), int(rows["ts_ns"][-1])
    count = int((WIDTH - LEFT - RIGHT) / COLUMN_PX)
    column = np.minimum(count - 1, (rows["ts_ns"] - start_ns) * count // (end_ns - start_ns))

    span_s = (end_ns - start_ns) / NANOS_PER_S
    bottom = float(TOP + sum(strip.height + GAP for strip in STRIPS) - GAP)
    known = f"{replay.symbols[0]}, {len(rows):,} messages in {span_s:,.0f} s. Line: mean of {span_s / count:.2g} s; band: its range."
    parts = [text(LEFT, 26, capture.name, size=16, colour=INK, weight="bold"), text(LEFT, 46, known)]
    parts += clock(start_ns, end_ns, TOP, bottom)
    top = float(TOP)
    for strip in STRIPS:
        parts += drawn(strip, top, column, rows, count)
        top += strip.height + GAP
    return document(capture.name, bottom + BOTTOM, parts)


def main(arguments: list[str]) -> None:
    """Draw the capture that is named, or the usual one, into the file that is named, or the usual one."""
    data = os.environ.get("ALPHAPACK_DATA")
    if not arguments and not data:
        raise SystemExit("expected a capture, found none: name one, or set ALPHAPACK_DATA to the folder of recorded data")
    capture = Path(arguments[0]) if arguments else Path(data or "") / CAPTURE
    out = Path(arguments[1]) if len(arguments) > 1 else OUT
    out.parent.mkdir(exist_ok=True)
    out.write_text(picture(capture), encoding="utf-8")
    print(f"{out.name}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
