"""Charts as inline SVG whose text keeps its size at any width.

The box of a picture is its plot. Places in it are percentages, so that it stretches with the page; only curves have units of
their own, in a box inside that stretches without regard to its shape. What stands beside the plot, such as the numbers of an axis, is
shifted out of it by pixels. ``STYLE`` and ``DEFINITIONS`` belong on the page once. Texts are escaped here, and a number that is not
finite is refused, so that no picture is ever silently wrong.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import NamedTuple

STYLE = """
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: 6px; }
figcaption small, .legend { color: var(--soft); font-weight: 400; font-size: 13px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 4px; padding: 0; list-style: none; }
.legend i { display: inline-block; width: 18px; height: 0; border-top: 3px solid; margin-right: 6px; vertical-align: middle; }
.legend svg { width: 12px; height: 12px; margin-right: 5px; vertical-align: -2px; overflow: visible; }
.plot { display: block; overflow: visible; width: calc(100% - 86px); margin: 12px 14px 30px 72px; }
.plot.rows { width: calc(100% - 248px); margin: 4px 104px 26px 144px; }
.plot text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.plot .name { fill: var(--ink); }
.plot .end { text-anchor: end; }
.plot .middle { text-anchor: middle; }
.plot .grid { stroke: var(--grid); }
.plot .zero { stroke: var(--soft); }
.plot .dash { stroke: var(--soft); stroke-dasharray: 4 4; fill: none; }
.plot path, .plot line { vector-effect: non-scaling-stroke; }
.plot path { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.plot path.area { stroke: none; fill-opacity: .16; }
.one { color: var(--one); } .two { color: var(--two); }
.up { color: var(--up); } .down { color: var(--down); } .still { color: var(--ink); }
.plot path.one, .plot path.two { stroke: currentColor; }
.plot path.area.one, .plot path.area.two { stroke: none; fill: currentColor; }
.plot rect { fill: currentColor; }
.plot text.up, .plot text.down, .plot text.still { fill: currentColor; }
.mark { stroke: currentColor; stroke-width: 1.4; fill: var(--card); }
.mark.full { fill: currentColor; }
.empty { border: 1px dashed var(--grid); border-radius: 6px; color: var(--soft); padding: 28px 16px; text-align: center; }
@media (max-width: 640px) {
  .plot { width: calc(100% - 70px); margin-left: 62px; margin-right: 8px; }
  .plot.rows { width: calc(100% - 202px); margin-left: 112px; margin-right: 90px; }
  .plot text { font-size: 11px; }
  .plot .other { display: none; }
}
"""

SHAPES = {"buy": "M0 -5L4.6 3.2H-4.6Z", "sell": "M0 5L4.6 -3.2H-4.6Z"}
"""Triangles that point to where the position goes."""
DEFINITIONS = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    + "".join(f'<path id="mark-{name}" d="{path}"/>' for name, path in SHAPES.items())
    + "</defs></svg>"
)

WIDE, HIGH = 4_000, 1_000
"""Units of the box that curves are drawn in."""
COLUMNS = 600
"""Points of a curve that are told apart by their time."""
VALUE_MAX = 1e100
"""Above anything that is drawn; a span of it is still finite."""
MARKS_MAX = 300
ROW_PX = 26
NAME_MAX = 20
_MARGIN = 0.06
_APART = 0.15
"""Part of a plot's width that two numbers below it need between them."""
_TIMES_MAX = 7
_UNITS = ((1e10, 1e9, "B"), (1e7, 1e6, "M"))
"""From when on an axis counts in billions or millions, its numbers being too long else."""
_DAY_S = 86_400
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200)
_STEPS_D = (1, 2, 7, 14, 30, 91, 182, 365)


class Axis(NamedTuple):
    """Values from one end of a plot to the other, and the round ones in between."""

    low: float
    high: float
    marks: tuple[float, ...]
    decimals: int
    unit: float = 1.0
    suffix: str = ""

    def at(self, value: float) -> float:
        """Return where a value is, 0 at the low end and 1 at the high one."""
        return (value - self.low) / (self.high - self.low)

    def text(self, value: float) -> str:
        """Return a value as the axis writes it."""
        return f"{value / self.unit:,.{self.decimals}f}{self.suffix}"


class Curve(NamedTuple):
    """Values through time; ``look`` is ``one`` or ``two``."""

    name: str
    ts_ms: Sequence[int]
    values: Sequence[float]
    look: str = "one"
    area: bool = False
    """Whether what is between it and zero is shaded."""


class Mark(NamedTuple):
    """Something that happened at a time and a value."""

    ts_ms: int
    value: float
    shape: str
    """A key of ``SHAPES``."""
    full: bool
    title: str


class Bar(NamedTuple):
    """A row of a chart: from one value to another, with a text at its end."""

    name: str
    start: float
    end: float
    text: str
    title: str
    look: str
    """up, down, still or one."""


class Dot(NamedTuple):
    """A share that was foretold and one that came, with its bounds, all in [0, 1], and of how many."""

    foretold: float
    came: float
    low: float
    high: float
    n: int


def axis_of(values: Iterable[float], margin: float = _MARGIN) -> Axis:
    """Return an axis on which all values are, with three to six round marks. Raises ``ValueError`` where one is not finite."""
    known = list(values)
    if strange := [one for one in known if not abs(one) <= VALUE_MAX]:
        raise ValueError(f"expected finite values to draw, found {strange[:5]}")
    low, high = min(known, default=0.0), max(known, default=0.0)
    # Below this floats and their texts would no longer tell the marks apart.
    least = max(1e-9, 1e-9 * max(abs(low), abs(high)))
    room = margin * (high - low) if high - low > least else max(1.0, 1e-3 * abs(high))
    low, high = low - room, high + room
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(power * factor for factor in (2.0, 1.0, 0.5, 0.2) if high - low >= 3.0 * power * factor)
    marks = tuple(k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1))
    unit, suffix = next((one[1:] for one in _UNITS if max(-low, high) >= one[0]), (1.0, ""))
    decimals = next((n for n in range(12) if abs(round(step / unit, n) - step / unit) < 1e-6 * step / unit), 12)
    return Axis(low, high, marks, decimals, unit, suffix)


def thinned(ts_ms: Sequence[int], values: Sequence[float], start_ms: int, end_ms: int) -> list[tuple[int, float]]:
    """Return the points of a curve that its picture needs: of each of ``COLUMNS`` the first, the least, the greatest and the last."""
    columns: dict[int, list[int]] = {}
    for i, (ts, value) in enumerate(zip(ts_ms, values, strict=True)):
        column = max(0, min(COLUMNS, (ts - start_ms) * COLUMNS // (end_ms - start_ms)))
        kept = columns.setdefault(column, [i] * 4)
        kept[1] = i if value < values[kept[1]] else kept[1]
        kept[2] = i if value > values[kept[2]] else kept[2]
        kept[3] = i
    return [(ts_ms[i], values[i]) for kept in columns.values() for i in sorted(set(kept))]


def through_time(
    title: str,
    unit: str,
    curves: Sequence[Curve],
    span_ms: tuple[int, int],
    *,
    height: int = 220,
    level: float | None = None,
    marks: Sequence[Mark] = (),
    legend: str = "",
    zero: bool = False,
) -> str:
    """Return curves and marks over time, ``height`` pixels high.

    ``level`` is dashed across; ``zero`` keeps 0 on the axis; ``legend`` is HTML put above, after the names of the curves where there are
    several. Raises ``ValueError`` where a value is not finite, or a shape is not one.
    """
    start_ms, end_ms = span_ms[0], max(span_ms[0] + 1, span_ms[1])
    also = [level] if level is not None else []
    seen = [value for curve in curves for value in curve.values] + [mark.value for mark in marks] + also + [0.0] * zero
    axis = axis_of(seen)

    def x_of(ts_ms: int) -> float:
        return min(1.0, max(0.0, (ts_ms - start_ms) / (end_ms - start_ms)))

    parts = [*_levels(axis), *_times(start_ms, end_ms)]
    if level is not None:
        parts.append(_line(0.0, axis.at(level), 1.0, axis.at(level), "dash"))
    paths = []
    for curve in curves:
        points = [(x_of(ts), axis.at(value)) for ts, value in thinned(curve.ts_ms, curve.values, start_ms, end_ms)]
        if not points:
            continue
        path = "M" + "L".join(f"{WIDE * x:.0f} {HIGH * (1.0 - y):.0f}" for x, y in points)
        if curve.area:
            base, first, last = HIGH * (1.0 - axis.at(0.0)), WIDE * points[0][0], WIDE * points[-1][0]
            paths.append(f'<path class="area {curve.look}" d="{path}L{last:.0f} {base:.0f}L{first:.0f} {base:.0f}Z"/>')
        paths.append(f'<path class="{curve.look}" d="{path}"/>')
    parts.append(f'<svg width="100%" height="100%" viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none">{"".join(paths)}</svg>')
    for mark in _apart(marks, x_of, axis.at):
        if mark.shape not in SHAPES:
            raise ValueError(f"expected a mark of {list(SHAPES)}, found {mark.shape[:40]!r}")
        side = "up" if mark.shape == "buy" else "down"
        place = f'x="{100 * x_of(mark.ts_ms):.2f}%" y="{100 * (1.0 - axis.at(mark.value)):.2f}%"'
        look = f'class="mark {side}{" full" * mark.full}"'
        parts.append(f'<use href="#mark-{mark.shape}" {place} {look}><title>{escape(mark.title)}</title></use>')
    names = "".join(f'<li><i class="{curve.look}"></i>{escape(curve.name)}</li>' for curve in curves if len(curves) > 1)
    return _figure(title, unit, "".join(parts), height, legend=names + legend)


def in_rows(title: str, unit: str, bars: Sequence[Bar], *, linked: bool = False) -> str:
    """Return bars below each other; ``linked`` joins the end of each to the next, as parts of a sum are."""
    axis = axis_of([value for bar in bars for value in (bar.start, bar.end)] + [0.0], margin=0.0)
    n = len(bars)
    parts = [_line(axis.at(mark), 0.0, axis.at(mark), 1.0, "zero" if mark == 0.0 else "grid") for mark in axis.marks]
    ends = {axis.marks[0], axis.marks[-1]}
    written = ends | ({0.0} if min(abs(axis.at(0.0) - axis.at(end)) for end in ends) > _APART else set())
    parts += [_text(axis.at(mark), 0.0, axis.text(mark), "middle", dy=16) for mark in sorted(written)]
    for i, bar in enumerate(bars):
        low, high = sorted((axis.at(bar.start), axis.at(bar.end)))
        middle = 1.0 - (i + 0.5) / n
        parts.append(
            f'<rect class="{bar.look}" x="{_percent(low)}" width="{_percent(max(high - low, 0.004))}" y="{_percent((i + 0.18) / n)}" '
            f'height="{_percent(0.64 / n)}"><title>{escape(bar.title)}</title></rect>'
        )
        if linked and i + 1 < n:
            parts.append(_line(axis.at(bar.end), middle, axis.at(bar.end), 1.0 - (i + 1.5) / n, "dash"))
        parts.append(_text(0.0, middle, clipped(bar.name, NAME_MAX), "end name", dx=-8, dy=4))
        parts.append(_text(1.0, middle, bar.text, f"end {bar.look}", dx=88, dy=4))
    return _figure(title, unit, "".join(parts), ROW_PX * max(1, n), kind=" rows")


def reliability(title: str, unit: str, dots: Sequence[Dot]) -> str:
    """Return what came over what was foretold, both in percent, with a dashed line where they are equal, and n where there is room."""
    across = axis_of([100.0 * dot.foretold for dot in dots])
    axis = axis_of([100.0 * bound for dot in dots for bound in (dot.came, dot.low, dot.high)])
    parts = _levels(axis)
    for mark in across.marks:
        parts.append(_line(across.at(mark), 0.0, across.at(mark), 1.0, "grid"))
        parts.append(_text(across.at(mark), 0.0, across.text(mark), "middle", dy=18))
    low, high = max(axis.low, across.low), min(axis.high, across.high)
    if low < high:
        parts.append(_line(across.at(low), axis.at(low), across.at(high), axis.at(high), "dash"))
    written = -1.0
    for dot in dots:
        x, y, top = across.at(100.0 * dot.foretold), axis.at(100.0 * dot.came), axis.at(100.0 * dot.high)
        said = f"{dot.n:,} outcomes: {100 * dot.foretold:.1f}% foretold, {100 * dot.came:.1f}% came"
        parts.append(_line(x, axis.at(100.0 * dot.low), x, top, "zero"))
        parts.append(f'<circle class="mark full one" cx="{_percent(x)}" cy="{_percent(1.0 - y)}" r="4"><title>{said}</title></circle>')
        if x - written > _APART:
            parts.append(_text(x, top, f"{dot.n:,}", "middle", dy=-5))
            written = x
    return _figure(title, unit, "".join(parts), 300)


def empty(title: str, reason: str) -> str:
    """Return what stands in place of a picture that has too little to show."""
    return f'<figure><figcaption>{escape(title)}</figcaption><div class="empty">Not enough data: {escape(reason)}</div></figure>'


def legend_of_marks(names: Mapping[str, tuple[str, bool]]) -> str:
    """Return the legend of marks: by its name, the shape of each and whether it is filled."""
    return "".join(
        f'<li><svg viewBox="-6 -6 12 12" aria-hidden="true"><use href="#mark-{shape}" '
        f'class="mark {"up" if shape == "buy" else "down"}{" full" * full}"/></svg>{escape(name)}</li>'
        for name, (shape, full) in names.items()
    )


def clipped(text: str, most: int) -> str:
    """Return a text of at most so many letters, with dots where some are missing."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _figure(title: str, unit: str, body: str, height: int, *, legend: str = "", kind: str = "") -> str:
    above = f'<ul class="legend">{legend}</ul>' if legend else ""
    name = escape(f"{title}, {unit}")
    return (
        f"<figure><figcaption>{escape(title)} <small>{escape(unit)}</small></figcaption>{above}"
        f'<svg class="plot{kind}" height="{height}" role="img" aria-label="{name}"><title>{name}</title>{body}</svg></figure>'
    )


def _levels(axis: Axis) -> list[str]:
    """Return a line across and its number for each mark."""
    parts = []
    for mark in axis.marks:
        parts.append(_line(0.0, axis.at(mark), 1.0, axis.at(mark), "zero" if mark == 0.0 else "grid"))
        parts.append(_text(0.0, axis.at(mark), axis.text(mark), "end", dx=-8, dy=4))
    return parts


def _times(start_ms: int, end_ms: int) -> list[str]:
    """Return a line up and its time for at most a few round times; every other one may be left out where there is little room."""
    span_s = (end_ms - start_ms) / 1_000
    years = math.ceil(span_s / (365 * _DAY_S * _TIMES_MAX))
    steps_s = (*_STEPS_S, *(days * _DAY_S for days in _STEPS_D), 365 * _DAY_S * years)
    step_s = next(step for step in steps_s if span_s <= step * _TIMES_MAX)
    parts = []
    for i, second in enumerate(range(-(-start_ms // (step_s * 1_000)) * step_s, end_ms // 1_000 + 1, step_s)):
        place = (second * 1_000 - start_ms) / (end_ms - start_ms)
        at = datetime.fromtimestamp(second, UTC)
        form = "%d %b" if second % _DAY_S == 0 else "%H:%M" if step_s >= 60 else "%H:%M:%S"
        parts.append(_line(place, 0.0, place, 1.0, "grid"))
        parts.append(_text(place, 0.0, at.strftime(form if step_s < 365 * _DAY_S else "%b %Y"), "middle" + " other" * (i % 2), dy=18))
    return parts


def _apart(marks: Sequence[Mark], x_of: Callable[[int], float], y_of: Callable[[float], float]) -> list[Mark]:
    """Return one mark of each shape in each cell of a grid, so coarse that there are at most ``MARKS_MAX``."""
    cells = 256
    while True:
        kept = {(int(cells * x_of(mark.ts_ms)), int(cells * y_of(mark.value) / 4), mark.shape, mark.full): mark for mark in marks}
        if len(kept) <= MARKS_MAX:
            return list(kept.values())
        cells //= 2


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    """Return a line between two places, each from 0 to 1, upwards."""
    ends = f'x1="{_percent(x1)}" y1="{_percent(1.0 - y1)}" x2="{_percent(x2)}" y2="{_percent(1.0 - y2)}"'
    return f'<line class="{look}" {ends}/>'


def _text(x: float, y: float, what: str, look: str, *, dx: int = 0, dy: int = 0) -> str:
    """Return a text at a place, shifted by pixels."""
    return f'<text class="{look}" x="{_percent(x)}" y="{_percent(1.0 - y)}" dx="{dx}" dy="{dy}">{escape(what)}</text>'


def _percent(place: float) -> str:
    return f"{100.0 * place:.2f}%"
