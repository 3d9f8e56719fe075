"""How the cost of a message grows: with symbols, with the depth of the book, with the trades in the windows.

Time of the processor, so that what else runs on the machine is left out.

``python bench/curves.py [FILE]`` measures and draws ``docs/pictures/cost_curves.svg``.
"""

import gc
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from peers import clock, one_core, real
from report import PROJECT, Row, median
from wire import begin, new_book

from alphapack.domain.market import NANOS_PER_S
from alphapack.models.book import DEPTH, TRADE, FeatureBook, warm

OUT = PROJECT / "docs" / "pictures" / "cost_curves.svg"
RUNS = 3
SYMBOLS = (1, 20, 200)
MESSAGES = 5_000
"""Messages of the recording that every symbol gets; frames made at a time, whatever the number of symbols."""
CALLS_MIN = 100_000
"""Calls timed for a point at the least."""
DEPTHS = (100, 1_000, 10_000, 100_000)
UPDATES = 8_000
LEVELS = 5
"""Levels a side that a message changes."""
NEAR = 10
"""Levels from the touch that changes near it are among."""
TRADES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
LOOKS, LOOKS_BEFORE, LOOK_NS = 10_000, 20_000, 30_000
"""Depth messages that are timed, those before them for which the rings grow, and their spacing, whatever the windows hold."""
WINDOW_NS = 30 * NANOS_PER_S
SEEN_MIN = 100
"""Timed messages below which no cost is stated."""
MID = 1_000_000
"""Ticks."""
START_NS = 1_700_000_000 * NANOS_PER_S

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Curve:
    """Nanoseconds a message over what grows; a line for each series."""

    title: str
    axis: str
    series: dict[str, Points]


# Frames as the venue sends them


def side(levels: list[tuple[int, int]]) -> str:
    """Return levels, of (ticks, lots), as JSON."""
    return "[" + ",".join(f'["{ticks // 10}.{ticks % 10}","{lots // 1000}.{lots % 1000:03d}"]' for ticks, lots in levels) + "]"


def difference(name: str, update: int, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> bytes:
    """Return the difference next after ``update - 1``."""
    return (
        f'{{"stream":"{name.lower()}@depth@0ms","data":{{"e":"depthUpdate","E":1700000000000,"T":1700000000000,"s":"{name}",'
        f'"U":{update},"u":{update},"pu":{update - 1},"b":{side(bids)},"a":{side(asks)}}}}}'
    ).encode()


def trade(name: str, id_: int, ticks: int, lots: int, maker: bool) -> bytes:
    return (
        f'{{"stream":"{name.lower()}@trade","data":{{"e":"trade","E":1700000000000,"T":1700000000000,"s":"{name}","t":{id_},'
        f'"p":"{ticks // 10}.{ticks % 10}","q":"{lots // 1000}.{lots % 1000:03d}","X":"MARKET","m":{str(maker).lower()}}}}}'
    ).encode()


def live(levels: int, ts_ns: int) -> FeatureBook:
    """Return a LIVE book with so many levels a side, a tick apart, its last update 0."""
    book = new_book()
    book.snapshot(*(side([(MID + sign * i, 1_000) for i in range(1, levels + 1)]).encode() for sign in (-1, 1)))
    book.start(ts_ns)
    book.last_update, book.live = 0, True
    return book


def taken(book: FeatureBook, ts_ns: int, frame: bytes) -> None:
    status = book.frame(ts_ns, frame)
    if status < 0:
        raise AssertionError(f"expected {frame[:60]!r} to be taken, found status {status}")


# What grows


def by_symbols(count: int) -> dict[str, float]:
    """Return the cost of the recording's messages, each for every symbol in turn, under its own name."""
    passes = -(-CALLS_MIN // (MESSAGES * count))
    return {"recorded messages": 1e9 * sum(round_robin(count) for _ in range(passes)) / (passes * MESSAGES * count)}


def round_robin(count: int) -> float:
    """Return the seconds for so many symbols; frames are made in between, fresh for each."""
    data = real()
    names = [b"S%03dUSD" % i for i in range(count)]
    books = [new_book(name.decode()) for name in names]
    for book in books:
        begin(book, data, int(data.stamps_ns[0]))
    calls = [book.frame for book in books]
    seconds, at_once = 0.0, max(1, MESSAGES // count)
    for first in range(0, MESSAGES, at_once):
        chosen = range(first, min(first + at_once, MESSAGES))
        stamps = [int(data.stamps_ns[i]) for i in chosen]
        frames = [[data.frames[i].replace(b"BTCUSDT", name).replace(b"btcusdt", name.lower()) for name in names] for i in chosen]
        start = clock()
        for ts_ns, same in zip(stamps, frames, strict=True):
            for call, frame in zip(calls, same, strict=True):
                call(ts_ns, frame)
        seconds += clock() - start
    kinds = {book.row.tobytes() for book in books}
    if len(kinds) != 1 or books[0].seen(DEPTH) + books[0].seen(TRADE) != MESSAGES:
        raise AssertionError(f"expected {MESSAGES} messages taken and one feature row for all, found {len(kinds)} rows")
    return seconds


def toggled(chance: random.Random, held: set[int], ticks: list[int]) -> list[tuple[int, int]]:
    """Return changes that remove the levels that are there and put back those that are not."""
    changes = []
    for price in dict.fromkeys(ticks):
        there = price in held
        changes.append((price, 0 if there else chance.randrange(1, 5_000)))
        (held.discard if there else held.add)(price)
    return changes


def by_depth(levels: int) -> dict[str, float]:
    """Return the cost of changes near the touch and anywhere in a book of so many levels a side."""
    cost = {}
    for where, most in (("among the best 10", NEAR), ("anywhere in the book", levels)):
        chance, book = random.Random(levels), live(levels, START_NS)
        bids, asks = ({MID + sign * i for i in range(1, levels + 1)} for sign in (-1, 1))
        frames = []
        for update in range(1, UPDATES + 1):
            far = [[MID + sign * chance.randrange(1, most + 1) for _ in range(LEVELS)] for sign in (-1, 1)]
            frames.append(difference("BTCUSDT", update, toggled(chance, bids, far[0]), toggled(chance, asks, far[1])))
        stamps = [START_NS + 1_000_000 * i for i in range(1, UPDATES + 1)]
        start = clock()
        for ts_ns, frame in zip(stamps, frames, strict=True):
            book.frame(ts_ns, frame)
        cost[where] = 1e9 * (clock() - start) / UPDATES
        if book.last_update != UPDATES or book.best() != (max(bids), min(asks)):
            raise AssertionError(f"expected the best levels {max(bids)} and {min(asks)} ticks, found {book.best()}")
    return cost


def prints(count: int) -> Iterator[tuple[int, bytes]]:
    """Yield trades without end, so many in 30 s."""
    step_ns, id_ = WINDOW_NS // count, 0
    while True:
        id_ += 1
        is_buy = id_ * 7 % 3 == 0
        yield START_NS + id_ * step_ns, trade("BTCUSDT", id_, MID + (1 if is_buy else -1), 1 + id_ % 50, not is_buy)


def by_content(count: int) -> dict[str, float]:
    """Return the median cost of a depth message and of a trade when the longest window holds so many trades."""
    book, tape = live(1_000, START_NS), prints(count)
    for _ in range(count):
        taken(book, *next(tape))
    chance = random.Random(count)
    bids, asks = ({MID + sign * i for i in range(1, 1_001)} for sign in (-1, 1))
    entries, due = [], next(tape)
    for update in range(1, LOOKS_BEFORE + LOOKS + 1):
        ts_ns = START_NS + WINDOW_NS + update * LOOK_NS
        while due[0] <= ts_ns:
            entries.append((*due, update, 1))
            due = next(tape)
        far = [[MID + sign * chance.randrange(1, NEAR + 1)] for sign in (-1, 1)]
        entries.append((ts_ns, difference("BTCUSDT", update, toggled(chance, bids, far[0]), toggled(chance, asks, far[1])), update, 0))
    spent: tuple[list[int], list[int]] = [], []
    call, now = book.frame, time.perf_counter_ns
    for ts_ns, frame, update, kind in entries:
        start = now()
        call(ts_ns, frame)
        if update > LOOKS_BEFORE:
            spent[kind].append(now() - start)
    if book.last_update != LOOKS_BEFORE + LOOKS:
        raise AssertionError(f"expected {LOOKS_BEFORE + LOOKS} updates, found {book.last_update}")
    return {name: median(costs) for name, costs in zip(("depth message", "trade"), spent, strict=True) if len(costs) >= SEEN_MIN}


# Measured and shown


def measured(of: Callable[[int], dict[str, float]], grows: tuple[int, ...]) -> dict[str, Points]:
    """Return the median cost by series, every size in turn again and again."""
    found: dict[str, dict[int, list[float]]] = {}
    for _ in range(RUNS):
        for x in grows:
            gc.collect()
            gc.freeze()
            for name, cost in of(x).items():
                found.setdefault(name, {}).setdefault(x, []).append(cost)
            gc.unfreeze()
    return {name: [(x, median(costs)) for x, costs in points.items()] for name, points in found.items()}


def curves() -> list[Curve]:
    warm()
    with one_core():
        return [
            Curve("symbols", "symbols, round robin", measured(by_symbols, SYMBOLS)),
            Curve("depth of the book", "levels a side", measured(by_depth, DEPTHS)),
            Curve("content of the windows", "trades in the 30 s window", measured(by_content, TRADES)),
        ]


def run() -> list[Row]:
    rows = []
    for curve in curves():
        for name, points in curve.series.items():
            what = f"cost a call, {name}: {' / '.join(f'{x:,}' for x, _ in points)} {curve.axis}"
            said = " / ".join(f"{ns / 1_000:.2f}" for _, ns in points) + " us"
            rows.append(Row("curve", what, said, "-", None, ratio=f"{points[-1][1] / points[0][1]:.2f}x"))
    return rows


# Drawn

WIDTH, HEIGHT, TOP, BOTTOM, LEFT, PANEL, PLOT = 900, 330, 74, 56, 60, 290, 226
COLOURS = ("first", "second")
STYLE = """
text{fill:#5b6472;font-size:12px}.ink{fill:#1f2430;font-weight:bold}.small{font-size:11px}.grid{stroke:#e3e6eb}.page{fill:#ffffff}
.first{stroke:#0b63ce;fill:#0b63ce}.second{stroke:#b3541e;fill:#b3541e}text.first,text.second{stroke:none}path.first,path.second{fill:none}
@media (prefers-color-scheme:dark){text{fill:#a5adba}.ink{fill:#e8eaee}.grid{stroke:#2d333d}.page{fill:#14171c}
.first{stroke:#6ea8ff;fill:#6ea8ff}.second{stroke:#f0975c;fill:#f0975c}text.first,text.second{stroke:none}path.first,path.second{fill:none}}
"""


def text(x: float, y: float, what: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(what)}</text>'


def short(x: int) -> str:
    return f"{x // 1_000_000}M" if x >= 1_000_000 else f"{x // 1_000}k" if x >= 1_000 else str(x)


def panel(curve: Curve, left: float, least_us: float, most_us: float) -> list[str]:
    """Return the elements of one curve, both of its axes logarithmic."""
    xs = sorted({x for points in curve.series.values() for x, _ in points})
    height = HEIGHT - TOP - BOTTOM

    def at(x: int, us: float) -> tuple[float, float]:
        across, up = math.log(x / xs[0], xs[-1] / xs[0]), math.log(us / least_us, most_us / least_us)
        return left + PLOT * across, TOP + height * (1.0 - up)

    parts = [text(left, TOP - 28, curve.title, "ink"), text(left + PLOT / 2, HEIGHT - 14, curve.axis, "small", "middle")]
    for i in range(round(math.log10(most_us / least_us)) + 1):
        us = least_us * 10**i
        y = at(xs[0], us)[1]
        parts.append(f'<path class="grid" d="M{left:.0f} {y:.1f}H{left + PLOT:.0f}"/>')
        parts.append(text(left - 6, y + 4, f"{us:g}", "small", "end"))
    parts += [text(at(x, most_us)[0], HEIGHT - BOTTOM + 18, short(x), "small", "middle") for x in xs]
    legend = left
    for colour, (name, points) in zip(COLOURS, curve.series.items(), strict=False):
        places = [at(x, ns / 1_000) for x, ns in points]
        parts.append(f'<path class="{colour}" stroke-width="2" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>')
        parts += [f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
        parts.append(text(legend, TOP - 10, name, f"small {colour}"))
        legend += 16 + 6 * len(name)
    return parts


def picture(found: list[Curve]) -> str:
    """Return the curves side by side as one SVG, on one scale, for light and dark pages."""
    costs = [ns / 1_000 for curve in found for points in curve.series.values() for _, ns in points]
    least_us, most_us = 10.0 ** math.floor(math.log10(min(costs))), 10.0 ** math.ceil(math.log10(max(costs)))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" role="img">'
    )
    parts = [head, "<title>Cost of a message</title>", f"<style>{STYLE}</style>", '<rect class="page" width="100%" height="100%"/>']
    parts.append(text(LEFT, 26, "Microseconds a message: from raw bytes to book and every feature, one call from Python", "ink"))
    for i, curve in enumerate(found):
        parts += panel(curve, LEFT + PANEL * i, least_us, most_us)
    return "\n".join((*parts, "</svg>\n"))


def main(arguments: list[str]) -> None:
    out = Path(arguments[0]) if arguments else OUT
    found = curves()
    out.write_text(picture(found), encoding="utf-8")
    for curve in found:
        for name, points in curve.series.items():
            print(f"{curve.title}, {name}: " + "  ".join(f"{x:,} {ns / 1_000:.2f} us" for x, ns in points))
    print(f"{out.name}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
