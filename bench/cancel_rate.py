"""How far the cancel rate read from levels (L2) is from the exact one that orders (L3) tell, and why.

Both rates come from the same order events: the exact one from the events themselves, the estimate from the levels a feed would have
shown every so often, with its trade prints beside them.
"""

import argparse
import gzip
import lzma
import os
import sys
from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.models.orders import ASK, BID, LevelChange, OrderBook, OrderEvent, OrderKind
from alphapack.venues import bitstamp, lobster

PROJECT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ALPHAPACK_DATA") or PROJECT.parent / "shared" / "data")
LOBSTER_DAY = "lobster_AMZN_2012-06-21"
LOBSTER_MIDNIGHT_NS = 1_340_251_200 * NANOS_PER_S
"""21 June 2012 in New York, four hours behind UTC."""
FEEDS = [f"binance-{name}_20240808T2354.raw.gz" for name in ("usdm_BTCUSDT", "spot_BTCUSDT", "spot_ETHUSDT", "coinm_ETHUSD_PERP")]
"""Feeds of levels and trades, without the orders behind them."""
BITSTAMP_LOG = "bitstamp_BTCUSD_20150501.log.xz"
PAGE = PROJECT / "docs" / "CANCEL_RATE.md"
PICTURE = PROJECT / "docs" / "pictures" / "cancel_rate.svg"

WINDOW_NS = 5 * NANOS_PER_S
HOLD_NS = 250 * NANOS_PER_MS
PRINT_LAG_NS = 3 * NANOS_PER_S
INTERVALS_MS = (0, 100, 250, 1_000)

Values = np.ndarray[Any, np.dtype[np.float64]]


# The recordings


@dataclass
class Print:
    """A trade: where it hit, whether the order that rested was hidden, and whether the recording has its print."""

    key: int
    size: int
    hidden: bool
    recorded: bool = True


class Moment(NamedTuple):
    """One order event: what it did, what the venue's own levels showed beside it, and the trade it was."""

    ts_ns: int
    changes: list[LevelChange]
    shown: list[LevelChange]
    print: Print | None


@dataclass
class Recording:
    """Order events replayed through ``OrderBook``; ``depth`` levels a side are known in it."""

    name: str
    depth: int
    lot: float
    """What a lot is, in shares or coins."""
    start: list[LevelChange] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    checks: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    book: OrderBook = field(default_factory=OrderBook)

    def take(self, event: OrderEvent, shown: list[LevelChange]) -> None:
        changes = self.book.apply(event)
        key, size = event.side * event.price, event.size
        traded = None
        if event.kind is OrderKind.EXECUTE_HIDDEN:
            traded = Print(key, size, True)
        elif executed := sum(change.executed for change in changes):
            traded = Print(next(change.key for change in changes if change.executed), executed, False)
        self.moments.append(Moment(event.ts_ns, changes, shown, traded))


def drop_better(book: OrderBook, ts_ns: int, side: int, price: int) -> list[LevelChange]:
    """Empty the levels better than a price."""
    changes: list[LevelChange] = []
    while (best := book.levels(side, 1)) and side * (best[0][0] - price) > 0:
        changes += book.set_level(ts_ns, side, best[0][0], 0)
    return changes


def agree(book: OrderBook, levels: list[tuple[int, int, int]]) -> bool:
    """Tell whether the touch is what the levels (side, price, size) say."""
    return all(book.levels(side, 1) == [(price, size)] for side, price, size in levels)


def read_lobster(data: Path) -> Recording:
    """Replay the NASDAQ day; the row of levels beside each event restates the touch after it was compared."""
    recording = Recording("NASDAQ AMZN, 21 June 2012", 1, 1.0, book=OrderBook(partial=True))
    book, checks = recording.book, recording.checks
    alone = OrderBook(partial=True)
    with (
        gzip.open(data / "l3" / f"{LOBSTER_DAY}_message_1.csv.gz") as messages,
        gzip.open(data / "l3" / f"{LOBSTER_DAY}_orderbook_1.csv.gz") as rows,
    ):
        for message, row in zip(messages, rows, strict=True):
            event, levels = lobster.decode(message, LOBSTER_MIDNIGHT_NS), lobster.levels(row)
            if event is None or levels is None:
                continue
            shown: list[LevelChange] = []
            recording.take(event, shown)
            # All events are at the touch, so a better level of that side, or one that a new order would cross, is gone unseen.
            if event.kind is OrderKind.ADD:
                drop_better(alone, event.ts_ns, -event.side, event.price + event.side)
            elif event.kind is not OrderKind.EXECUTE_HIDDEN:
                drop_better(alone, event.ts_ns, event.side, event.price)
            alone.apply(event)
            emptied = any(change.new == 0 for change in recording.moments[-1].changes)
            checks["rows"] += 1
            checks["rows equal, levels from messages alone"] += agree(alone, levels)
            if agree(book, levels):
                checks["rows equal"] += 1
            else:
                checks["first row" if checks["rows"] == 1 else "touch emptied, next level not in the file" if emptied else "other"] += 1
            for side, price, _ in levels:
                shown += drop_better(book, event.ts_ns, side, price)
            for side, price, size in levels:
                shown += book.set_level(event.ts_ns, side, price, size)
    checks["events of unknown orders"] = book.unknown
    return recording


def orders_before(lines: list[OrderEvent | bitstamp.Print | bitstamp.Levels]) -> list[OrderEvent]:
    """Return, as new orders, those that the log speaks of and that began before it.

    What was cancelled names its size; what was filled had the size of the next print at its price.
    """
    begun = {one.order_id for one in lines if isinstance(one, OrderEvent) and one.kind is OrderKind.ADD}
    found = []
    for i, one in enumerate(lines):
        if not isinstance(one, OrderEvent) or one.order_id in begun:
            continue
        begun.add(one.order_id)
        size = one.size
        if one.kind is OrderKind.EXECUTE:
            size += next(other.size for other in lines[i:] if isinstance(other, bitstamp.Print) and other.price == one.price)
        found.append(OrderEvent(lines[0].ts_ns, OrderKind.ADD, one.order_id, one.side, one.price, size))
    return found


def read_binance(path: Path) -> Recording:
    """Replay a recorded feed of levels: each depth message and each trade a moment, as they came."""
    recording = Recording(path.name.removesuffix(".raw.gz").rsplit("_", 1)[0], 5, 1e-8)
    opened = False
    with gzip.open(path) as lines:
        for line in lines:
            stamp, _, body = line.partition(b" ")
            message = msgspec.json.decode(body)
            message = message.get("data", message)
            if "lastUpdateId" in message and not opened:
                opened, last = True, message["lastUpdateId"]
                recording.start = levels_changed(0, message["bids"], message["asks"])
            elif message.get("e") == "depthUpdate" and opened and message["u"] > last:
                recording.moments.append(Moment(int(stamp), [], levels_changed(int(stamp), message["b"], message["a"]), None))
            elif message.get("e") == "trade" and recording.moments:
                side = BID if message["m"] else ASK
                traded = Print(side * round(float(message["p"]) * 1e8), round(float(message["q"]) * 1e8), False)
                recording.moments.append(Moment(int(stamp), [], [], traded))
    return recording


def levels_changed(ts_ns: int, bids: list[list[str]], asks: list[list[str]]) -> list[LevelChange]:
    """Return absolute sizes at prices as changes, of which a feed of levels tells the new size alone."""
    sides = ((BID, bids), (ASK, asks))
    return [
        LevelChange(ts_ns, side * round(float(p) * 1e8), 0, round(float(q) * 1e8), 0, 0)
        for side, side_levels in sides
        for p, q in side_levels
    ]


def read_bitstamp(data: Path) -> Recording:
    """Replay the Bitstamp log; its lists of levels are looked for among the tops of the 5 s before them."""
    recording = Recording("Bitstamp BTCUSD, 1 May 2015", 5, 1e-8, book=OrderBook(takers_shown=True))
    book, checks = recording.book, recording.checks
    with lzma.open(data / "l3" / BITSTAMP_LOG) as log:
        lines = [bitstamp.decode(line) for line in log]
    for order in orders_before(lines):
        recording.start += book.apply(order)
        checks["orders from before the log"] += 1
    recent: deque[tuple[int, list[tuple[int, int]], list[tuple[int, int]]]] = deque()
    prints: list[bitstamp.Print] = []
    for one in lines:
        if isinstance(one, OrderEvent):
            recording.take(one, [])
            recent.append((one.ts_ns, book.levels(BID, 5), book.levels(ASK, 5)))
            while recent[0][0] < one.ts_ns - 5 * NANOS_PER_S:
                recent.popleft()
        elif isinstance(one, bitstamp.Levels):
            checks["lists of levels"] += 1
            checks["lists whose top 5 was the book's in the 5 s before"] += any(
                bids == one.bids[:5] and asks == one.asks[:5] for _, bids, asks in recent
            )
            checks["lists whose best was the book's in the 5 s before"] += any(
                bids[:1] == one.bids[:1] and asks[:1] == one.asks[:1] for _, bids, asks in recent
            )
        else:
            prints.append(one)
    checks["prints"] = len(prints)
    executed = [(moment.ts_ns, moment.print) for moment in recording.moments if moment.print]
    checks["executions of resting orders"] = len(executed)
    for _, execution in executed:
        execution.recorded = False
    for one in prints:
        near = (execution for ts_ns, execution in executed if abs(ts_ns - one.ts_ns) < PRINT_LAG_NS and not execution.recorded)
        found = next((execution for execution in near if (abs(execution.key), execution.size) == (one.price, one.size)), None)
        if found:
            found.recorded = True
            checks["prints with their execution"] += 1
    checks["events of unknown orders"] = book.unknown
    return recording


# The rates


class Tally:
    """Sizes by 5 s window, the windows counted from the first event's."""

    def __init__(self, recording: Recording) -> None:
        self.first = -(-recording.moments[0].ts_ns // WINDOW_NS)
        count = -(-recording.moments[-1].ts_ns // WINDOW_NS) - self.first + 2
        self.removed, self.cancelled, self.risen, self.traded = (np.zeros(count) for _ in range(4))

    def window(self, ts_ns: int) -> int:
        """Return the window (t - 5 s, t] that holds a time."""
        return -(-ts_ns // WINDOW_NS) - self.first


def exact(recording: Recording) -> Tally:
    """Return what the order events say: every fall of a level in the top k before the event, and what of it was cancelled."""
    tally = Tally(recording)
    for moment in recording.moments:
        at = tally.window(moment.ts_ns)
        for change in moment.changes:
            if change.rank < recording.depth:
                tally.removed[at] += change.removed
                tally.cancelled[at] += change.cancelled
                tally.risen[at] += max(0, change.new - change.old)
                tally.traded[at] += change.executed
    return tally


@dataclass(frozen=True)
class View:
    """What a feed of levels shows, and, for each cause of error, whether it is at work."""

    interval_ns: int
    late: bool
    """Prints come after the depth message that shows them, not when they happen."""
    hold_ns: int = HOLD_NS
    """How long a print may wait for its fall."""
    netted: bool = True
    """A message shows what a level came to, not each of its falls."""
    by_message: bool = True
    """A level counts by its place before the message, not before each event."""
    hidden: bool = True
    """The tape has executions of hidden orders too."""
    recorded: bool = False
    """The tape has only those prints that the recording has."""
    patience_ns: int = 0
    """How long a fall may wait for its print."""

    def prints(self, one: Print) -> bool:
        """Tell whether the tape has a print."""
        return (self.hidden or not one.hidden) and (one.recorded or not self.recorded)

    def waiting(self) -> "View":
        """Return the rule that waits: a fall for its print, and a print for the depth message that is due."""
        return replace(self, hold_ns=HOLD_NS + self.interval_ns, patience_ns=HOLD_NS)


class Shown:
    """The levels a feed has shown."""

    def __init__(self, start: Iterable[LevelChange]) -> None:
        self.sizes: dict[int, int] = {}
        self.keys: dict[int, list[int]] = {BID: [], ASK: []}
        for change in start:
            self.put(change.key, change.new)

    def put(self, key: int, size: int) -> None:
        keys = self.keys[BID if key > 0 else ASK]
        if size and key not in self.sizes:
            insort(keys, key)
        elif not size and key in self.sizes:
            del keys[bisect_left(keys, key)]
        if size:
            self.sizes[key] = size
        else:
            self.sizes.pop(key, None)

    def limit(self, side: int, depth: int) -> int | None:
        """Return the key of the last of the top levels, None where every level is one."""
        keys = self.keys[side]
        return keys[-depth] if len(keys) >= depth else None


def messages(recording: Recording, interval_ns: int) -> Iterator[tuple[int, list[Moment]]]:
    """Return the times of the depth messages and what happened since the one before: each event, or every so often."""
    due_ns, waiting = 0, []
    for moment in recording.moments:
        if not interval_ns:
            yield moment.ts_ns, [moment]
            continue
        if waiting and moment.ts_ns > due_ns:
            yield due_ns, waiting
            waiting = []
        due_ns = -(-moment.ts_ns // interval_ns) * interval_ns
        waiting.append(moment)
    if waiting:
        yield due_ns, waiting


class Rule:
    """The project's rule, and what it needs to remember: levels shown, prints without a fall, falls without a print."""

    def __init__(self, recording: Recording, view: View) -> None:
        self.tally = Tally(recording)
        self._view, self._depth = view, recording.depth
        self._shown = Shown(recording.start)
        self._prints: dict[int, list[tuple[int, int]]] = defaultdict(list)
        """Key to (time, size)."""
        self._falls: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        """Key to (time, size, window)."""

    def take_print(self, ts_ns: int, one: Print) -> None:
        """Let a print explain falls that wait for it, the newest first, and keep the rest of it."""
        left, falls = one.size, self._falls.get(one.key, [])
        while falls and left:
            fell_ns, size, at = falls.pop()
            if fell_ns <= ts_ns - self._view.patience_ns:
                falls.clear()
                break
            used = min(left, size)
            left -= used
            self.tally.cancelled[at] -= used
            if used < size:
                falls.append((fell_ns, size - used, at))
        if left:
            self._prints[one.key].append((ts_ns, left))

    def take_depth(self, ts_ns: int, moments: list[Moment]) -> None:
        """Let a depth message tell what its levels came to since the one before."""
        view, depth, at = self._view, self._depth, self.tally.window(ts_ns)
        limits = {side: self._shown.limit(side, depth) for side in (BID, ASK)}
        sizes, falls, tops = {}, defaultdict(int), set()
        for moment in moments:
            for change in (*moment.changes, *moment.shown):
                sizes[change.key] = change.new
            for change in moment.changes:
                if view.by_message or change.rank < depth:
                    falls[change.key] += change.removed
                if change.removed and change.rank < depth:
                    tops.add(change.key)
        for moment in moments:
            one = moment.print
            if one and view.prints(one) and (one.key in self._shown.sizes or one.key in sizes):
                self.tally.traded[at] += one.size
        for key, size in sizes.items():
            old = self._shown.sizes.get(key, 0)
            if old == size and (view.netted or not falls[key]):
                continue
            limit = limits[BID if key > 0 else ASK]
            removed = max(0, old - size) if view.netted else falls[key]
            traded = sum(lots for print_ns, lots in self._prints.pop(key, ()) if print_ns > ts_ns - view.hold_ns)
            if (limit is None or key >= limit) if view.by_message else key in tops:
                self.tally.removed[at] += removed
                self.tally.cancelled[at] += max(0, removed - traded)
                self.tally.risen[at] += max(0, size - old)
                if removed > traded and view.patience_ns:
                    self._falls[key].append((ts_ns, removed - traded, at))
            self._shown.put(key, size)


def estimate(recording: Recording, view: View) -> Tally:
    """Return what the project's rule makes of the levels and prints that a feed shows."""
    rule = Rule(recording, view)
    for ts_ns, moments in messages(recording, view.interval_ns):
        prints = [(moment.ts_ns, moment.print) for moment in moments if moment.print and view.prints(moment.print)]
        if not view.late:
            for print_ns, one in prints:
                rule.take_print(print_ns, one)
        rule.take_depth(ts_ns, moments)
        if view.late:
            for _, one in prints:
                rule.take_print(ts_ns, one)
    return rule.tally


# The comparison


class Score(NamedTuple):
    """An estimate against the exact rate over 5 s windows in which both saw a fall; ``blind``: only the exact one did."""

    share: float
    seen: float
    windows: int
    blind: int
    bias: float
    error: float
    correlation: float


def rates(tally: Tally, cancelled: Values | None = None, removed: Values | None = None) -> Values:
    """Return the rate of each window, NaN where nothing fell."""
    top, below = tally.cancelled if cancelled is None else cancelled, tally.removed if removed is None else removed
    return np.divide(top, below, out=np.full(len(below), np.nan), where=below > 0)


def score(truth: Tally, estimated: Values, share: float = np.nan, seen: float = np.nan, first: int = 0) -> Score:
    """Compare the windows from ``first`` on."""
    wanted, found = rates(truth)[first:], estimated[first:]
    both = np.isfinite(wanted) & np.isfinite(found)
    a, b = wanted[both], found[both]
    correlation = float(np.corrcoef(a, b)[0, 1]) if b.std() > 0 else np.nan
    blind = int((np.isfinite(wanted) & ~np.isfinite(found)).sum())
    return Score(share, seen, len(a), blind, float((b - a).mean()), float(abs(b - a).mean()), correlation)


def scored(truth: Tally, tally: Tally, first: int = 0) -> Score:
    """Compare an estimate as it is."""
    removed = tally.removed[first:].sum()
    return score(truth, rates(tally), tally.cancelled[first:].sum() / removed, removed / truth.removed[first:].sum(), first)


NO_END_NS = 1 << 62
CAUSES: dict[str, dict[str, Any]] = {
    "late prints": {"late": False},
    "short hold": {"hold_ns": NO_END_NS},
    "netting": {"netted": False},
    "place by message": {"by_message": False},
    "hidden executions": {"hidden": False},
}
"""Each cause of error and how a view is without it."""


class Gains(NamedTuple):
    """A correction: cancelled = ``cancelled`` x what the estimate saw cancelled + ``risen`` x what it saw added; executed = the tape."""

    cancelled: float
    risen: float

    def rates(self, tally: Tally) -> Values:
        """Return the corrected rate of each window in which a fall was seen."""
        cancelled = self.cancelled * tally.cancelled + self.risen * tally.risen
        return np.where(tally.removed > 0, rates(tally, cancelled, cancelled + tally.traded), np.nan)


TAPE = Gains(1.0, 0.0)
"""Nothing fitted: only the executed size is that of the tape, not of the falls it explains."""
GRID = [Gains(a, b) for a in np.linspace(0.5, 4.0, 36) for b in np.linspace(0.0, 1.0, 21)]


def fitted(truth: Tally, tally: Tally, end: int) -> Gains:
    """Return the gains with the least mean absolute error over the windows before ``end``."""
    wanted = rates(truth)[:end]

    def error(gains: Gains) -> float:
        found = gains.rates(tally)[:end]
        both = np.isfinite(wanted) & np.isfinite(found)
        return float(abs(found[both] - wanted[both]).mean())

    return min(GRID, key=error)


@dataclass
class Study:
    """Everything measured on one recording, by interval in milliseconds."""

    recording: Recording
    truth: Tally
    tallies: dict[tuple[int, str], Tally] = field(default_factory=dict)
    without: dict[tuple[int, str], Score] = field(default_factory=dict)
    """Prints before; one cause switched off."""
    left: dict[tuple[int, str], Score] = field(default_factory=dict)
    """Prints after; this cause switched off as well as those before it in ``CAUSES``."""

    @property
    def half(self) -> int:
        """The first window of the second half."""
        return len(self.truth.removed) // 2


def studied(recording: Recording) -> Study:
    """Measure one recording at every interval, with the prints before and after."""
    study = Study(recording, exact(recording))
    for ms in INTERVALS_MS:
        before, after = (View(ms * NANOS_PER_MS, late) for late in (False, True))
        for name, view in (("before", before), ("after", after), ("waiting", after.waiting()), ("waiting, before", before.waiting())):
            study.tallies[ms, name] = estimate(recording, view)
        for cause, without in CAUSES.items():
            after = replace(after, **without)
            study.left[ms, cause] = scored(study.truth, estimate(recording, after))
            if cause != "late prints":
                study.without[ms, cause] = scored(study.truth, estimate(recording, replace(before, **without)))
    for name, view in (("recorded", View(0, True, recorded=True)), ("recorded, waiting", View(0, True, recorded=True).waiting())):
        study.tallies[0, name] = estimate(recording, view)
    return study


# What is published


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    ruler = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows))


def number(value: float, digits: int = 3, sign: str = "") -> str:
    """Return a number, a dash where there is none; nothing is shown as minus zero."""
    return "-" if np.isnan(value) else f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def message_name(ms: int) -> str:
    """Return how often the depth messages come, in words."""
    return f"{ms:,} ms" if ms else "each event"


def tables(studies: Sequence[Study]) -> dict[str, str]:
    """Return the page's tables by name."""
    exact_rows, rule_rows, without_rows, left_rows, gain_rows = [], [], [], [], []
    for study in studies:
        name, truth, other = study.recording.name, study.truth, next(one for one in studies if one is not study)
        removed, cancelled = truth.removed.sum(), truth.cancelled.sum()
        sizes = (f"{lots * study.recording.lot:,.0f}" for lots in (removed, cancelled, removed - cancelled))
        windows = f"{(truth.removed > 0).sum():,}"
        exact_rows.append([name, str(study.recording.depth), *sizes, number(cancelled / removed, 4), windows])
        for ms in INTERVALS_MS:
            start = [name, message_name(ms)]
            for kind in ("before", "after"):
                one = scored(truth, study.tallies[ms, kind])
                errors = number(one.bias, 4, "+"), number(one.error, 4), number(one.correlation)
                rule_rows.append([*start, kind, number(one.share, 4), number(one.seen), f"{one.windows:,}", str(one.blind), *errors])
            plain = {kind: scored(truth, study.tallies[ms, kind]).error for kind in ("before", "after")}
            alone = (study.without[ms, cause].error for cause in CAUSES if cause != "late prints")
            without_rows.append([*start, *(number(error, 4) for error in (plain["before"], *alone))])
            left_rows.append(
                [*start, *(number(error, 4) for error in (plain["after"], *(study.left[ms, cause].error for cause in CAUSES)))]
            )
            waiting = study.tallies[ms, "waiting"]
            own, others = fitted(truth, waiting, study.half), fitted(other.truth, other.tallies[ms, "waiting"], other.half)
            scores = [scored(truth, study.tallies[ms, kind], study.half) for kind in ("after", "before", "waiting", "waiting, before")]
            scores += [score(truth, gains.rates(waiting), first=study.half) for gains in (TAPE, own, others)]
            gain_rows.append([*start, *(number(one.error, 4) for one in scores), f"{own.cancelled:.1f}, {own.risen:.2f}"])
    both = ["recording", "messages"]
    return {
        "exact": table([*both[:1], "k", "removed", "cancelled", "executed", "cancel share", "windows"], exact_rows),
        "rule": table([*both, "prints", "share", "removed seen", "windows", "blind", "bias", "MAE", "correlation"], rule_rows),
        "without": table([*both, "all causes", *(f"no {cause}" for cause in CAUSES if cause != "late prints")], without_rows),
        "left": table([*both, "all causes", *(f"- {cause}" for cause in CAUSES)], left_rows),
        "gains": table(
            [*both, "rule, after", "rule, before", "waiting, after", "waiting, before", "+ tape", "+ gains", "+ other's gains", "gains"],
            gain_rows,
        ),
    }


def feeds(data: Path) -> str:
    """Return the table of what waiting changes on feeds of which the truth is not known."""
    rows = []
    for name in FEEDS:
        recording = read_binance(data / "captures" / name)
        rule, waiting = (estimate(recording, view) for view in (View(0, False), View(0, False, patience_ns=HOLD_NS)))
        removed, early = rule.removed.sum(), (rule.removed - rule.cancelled).sum()
        late = (rule.cancelled - waiting.cancelled).sum()
        shares = (rule.cancelled.sum() / removed, waiting.cancelled.sum() / removed)
        known = rule.removed > 0
        windows = float((rates(rule) - rates(waiting))[known].mean())
        rows.append([recording.name, *(number(share, 4) for share in shares), f"{late / (early + late):.0%}", number(windows, 4, "+")])
    return table(["feed", "rule", "waiting", "of what trades explain, late", "mean difference of 5 s windows"], rows)


def published(page: str, found: dict[str, str]) -> str:
    """Return the page with its tables in place, each between its marks."""
    for name, rows in found.items():
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if page.count(marks[0]) != 1 or page.count(marks[1]) != 1:
            raise SystemExit(f"expected {marks[0]} and {marks[1]} once each in {PAGE.name}, found otherwise")
        before, rest = page.split(marks[0])
        page = f"{before}{marks[0]}\n{rows}\n{marks[1]}{rest.split(marks[1])[1]}"
    return page


WIDTH, LEFT, RIGHT = 900, 62, 24
INK, SOFT, GRID_INK = "#1f2430", "#5b6472", "#e3e6eb"
COLOURS = {"after": "#a3214f", "before": "#b3541e", "waiting": "#0b63ce", "gains": "#0a7d62"}
WORDS = {
    "after": "rule, prints after the depth message",
    "before": "rule, prints before it",
    "waiting": "waiting, prints after",
    "gains": "waiting, tape and gains fitted on the first half",
}
STRIP_WINDOWS = 240


def text(x: float, y: float, what: str, *, size: int = 12, anchor: str = "start", colour: str = SOFT, weight: str = "normal") -> str:
    """Return a line of text."""
    look = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(what)}</text>'


def bars(study: Study, left: float, width: float, top: float, height: float) -> list[str]:
    """Return the errors of one recording's second half: a group of bars for each interval."""
    groups = []
    for ms in INTERVALS_MS:
        waiting = study.tallies[ms, "waiting"]
        corrected = fitted(study.truth, waiting, study.half).rates(waiting)
        errors = [scored(study.truth, study.tallies[ms, kind], study.half).error for kind in ("after", "before", "waiting")]
        groups.append((message_name(ms), [*errors, score(study.truth, corrected, first=study.half).error]))
    most = 1.12 * max(max(errors) for _, errors in groups)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1) if most / step < 6)
    parts = [text(left, top - 10, study.recording.name, size=13, colour=INK, weight="bold")]
    for i in range(int(most / step) + 1):
        y = top + height * (1 - i * step / most)
        parts.append(f'<path d="M{left:.1f} {y:.1f}H{left + width:.1f}" stroke="{GRID_INK}"/>')
        parts.append(text(left - 6, y + 4, f"{i * step:.2f}", size=11, anchor="end"))
    each = width / len(groups)
    for i, (label, errors) in enumerate(groups):
        for j, (error, colour) in enumerate(zip(errors, COLOURS.values(), strict=True)):
            x, tall = left + each * (i + 0.06 + 0.22 * j), height * error / most
            parts.append(f'<rect x="{x:.1f}" y="{top + height - tall:.1f}" width="{0.2 * each:.1f}" height="{tall:.1f}" fill="{colour}"/>')
            parts.append(text(x + 0.1 * each, top + height - tall - 3, number(error).lstrip("0"), size=9, anchor="middle", colour=colour))
        parts.append(text(left + each * (i + 0.5), top + height + 16, label, size=11, anchor="middle"))
    return parts


def strip(study: Study, top: float, height: float) -> list[str]:
    """Return the rates of some minutes from the middle of the recording on, messages every 100 ms."""
    first, width = study.half, WIDTH - LEFT - RIGHT
    parts = []
    for i in range(5):
        y = top + height * (1 - i / 4)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID_INK}"/>')
        parts.append(text(LEFT - 6, y + 4, f"{i / 4:.2f}", size=11, anchor="end"))
    lines = (
        (rates(study.tallies[100, "after"]), COLOURS["after"], 1.3),
        (rates(study.truth), INK, 2.4),
        (rates(study.tallies[100, "waiting"]), COLOURS["waiting"], 1.3),
    )
    for values, colour, thick in lines:
        known = [(at, value) for at, value in enumerate(values[first : first + STRIP_WINDOWS]) if np.isfinite(value)]
        points = "L".join(f"{LEFT + width * at / STRIP_WINDOWS:.1f} {top + height * (1 - value):.1f}" for at, value in known)
        parts.append(f'<path d="M{points}" fill="none" stroke="{colour}" stroke-width="{thick}" stroke-linejoin="round"/>')
    for minutes in range(0, STRIP_WINDOWS // 12 + 1, 5):
        x = LEFT + width * minutes * 12 / STRIP_WINDOWS
        parts.append(text(x, top + height + 16, f"{minutes} min", size=11, anchor="middle"))
    return parts


def picture(studies: Sequence[Study]) -> str:
    """Return the SVG: the errors of both recordings, and some minutes of the first."""
    gap = 60
    panel = (WIDTH - LEFT - RIGHT - gap) / 2
    parts = [text(LEFT, 28, "The cancel rate read from levels against the exact one", size=16, colour=INK, weight="bold")]
    parts.append(
        text(LEFT, 48, "Mean absolute error over the 5 s windows of the second half, by how often depth messages come. Scales differ.")
    )
    for i, (name, colour) in enumerate(COLOURS.items()):
        x, y = LEFT + (i % 2) * 400, 72 + 18 * (i // 2)
        parts.append(f'<rect x="{x}" y="{y - 10}" width="11" height="11" fill="{colour}"/>')
        parts.append(text(x + 17, y, WORDS[name]))
    for i, study in enumerate(studies):
        parts += bars(study, LEFT + i * (panel + gap), panel, 136, 220)
    study, top = studies[0], 440
    minutes = STRIP_WINDOWS * WINDOW_NS // NANOS_PER_S // 60
    parts.append(
        text(LEFT, top - 32, f"{study.recording.name}: {minutes} minutes, messages every 100 ms", size=13, colour=INK, weight="bold")
    )
    for x, words, colour in ((0, "exact", INK), (80, WORDS["after"], COLOURS["after"]), (340, WORDS["waiting"], COLOURS["waiting"])):
        parts.append(f'<path d="M{LEFT + x} {top - 16}h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(text(LEFT + x + 24, top - 12, words))
    parts += strip(study, top, 150)
    height = top + 150 + 34
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" role="img">'
    )
    title = "<title>Cancel rate: the estimate against the truth</title>"
    return "\n".join((head, title, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>\n"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the recorded data, with l3/ in it (ALPHAPACK_DATA)")
    parser.add_argument("--print", action="store_true", help="print the tables alone; write neither the page nor the picture")
    arguments = parser.parse_args()
    if not (arguments.data / "l3").is_dir():
        print(f"error: expected order recordings in {arguments.data / 'l3'}, found no such folder; set ALPHAPACK_DATA", file=sys.stderr)
        return 2
    studies = []
    for read in (read_lobster, read_bitstamp):
        recording = read(arguments.data)
        print(f"{recording.name}: {len(recording.moments):,} events")
        for what, count in recording.checks.items():
            print(f"  {what}: {count:,}")
        studies.append(studied(recording))
    found = {**tables(studies), "feeds": feeds(arguments.data)}
    for name, rows in found.items():
        print(f"\n{name}\n{rows}")
    study = studies[1]
    for kind in ("recorded", "recorded, waiting"):
        one = scored(study.truth, study.tallies[0, kind])
        print(f"\n{study.recording.name}, prints as {kind}: share {one.share:.4f}, bias {one.bias:+.4f}, MAE {one.error:.4f}")
    if not arguments.print:
        PAGE.write_text(published(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
        PICTURE.write_text(picture(studies), encoding="utf-8")
        print(f"written: {PAGE.name}, {PICTURE.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
