"""The slow twin: Binance books and features once more, written from the definitions alone.

Nothing here is shared with the package, so that a mistake in one is not a mistake in both. Prices and quantities are
integers of 1e-8 (parsed exactly) or ``Fraction``; a float appears only where a number leaves for a ``Row``.
"""

import gzip
import json
import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

SCALE = 10**8
MS = 1_000_000
SECOND = 1_000 * MS
GRID_NS = 100 * MS
TRADE_HOLD_NS = 250 * MS
SLOT_NS = 600 * SECOND
DAY_SLOTS = 144
VPIN_BUCKETS = 50
KYLE_SECONDS = 300
KYLE_SECONDS_WITH_TRADES = 30
LOG_SCALE = 2**120
"""Changes of log mid are kept in these parts, so that the logarithm's float is an integer of them."""
TOP = 5
SIDES = ("bid", "ask")


@dataclass(slots=True)
class Row:
    """The features at ``ts_ns``; None where the definition gives null."""

    ts_ns: int
    state: str
    bid: float | None = None
    ask: float | None = None
    mid: float | None = None
    microprice: float | None = None
    spread_bps: float | None = None
    obi: float | None = None
    obi_1: float | None = None
    obi_10: float | None = None
    ti: float | None = None
    ti_1s: float | None = None
    ti_30s: float | None = None
    ti_n: int | None = None
    micro_vol: float | None = None
    micro_vol_1s: float | None = None
    cancel_rate: float | None = None
    cancel_n: int | None = None
    queue_rate: float | None = None
    depth_bid: float | None = None
    depth_ask: float | None = None
    depth_bid_quote: float | None = None
    depth_ask_quote: float | None = None
    ofi: float | None = None
    ofi_1: float | None = None
    vpin: float | None = None
    vpin_n: int | None = None
    kyle_lambda: float | None = None
    kyle_n: int | None = None
    trade_rate: float | None = None
    microprice_stoikov: float | None = None
    buy_volume: Fraction | None = None
    """Base volume of buying aggressors over 5 s, exact; with ``sell_volume`` also before 5 s of LIVE have passed."""
    sell_volume: Fraction | None = None
    removed: Fraction | None = None
    """Quantity that left inside levels over 5 s, exact (contracts for inverse symbols)."""
    unexplained: Fraction | None = None
    changes: int | None = None
    """Changed inside entries over 5 s: ``queue_rate`` times 5."""


@dataclass(slots=True, frozen=True)
class Diff:
    """One ``depthUpdate``: absolute quantities as (side, price, quantity), in the order sent."""

    first: int
    last: int
    previous: int | None
    entries: tuple[tuple[str, int, int], ...]


@dataclass(slots=True, frozen=True)
class Adjustment:
    """What was fitted for ``microprice_stoikov``: the shift of the mid, in ticks, by state of the best levels."""

    tick: Fraction
    shift: Sequence[Sequence[float]]
    """By imbalance bucket (0 to 9), then by spread in ticks (1 to 4, so one less as an index)."""


@lru_cache(maxsize=2**17)
def units(text: str) -> int:
    """Return a decimal text as an integer of 1e-8, exactly."""
    value = Fraction(text) * SCALE
    if value.denominator != 1:
        raise ValueError(f"expected a decimal of at most 8 places, found {text!r}")
    return value.numerator


def ratio(numerator: int | Fraction, denominator: int | Fraction) -> float:
    """Return the quotient rounded once, 0 for an empty window."""
    return float(numerator / denominator) if denominator else 0.0


class Side:
    """Quantities by price, and the prices in order of badness: bids are kept negated, so the best is always first."""

    def __init__(self, name: str) -> None:
        self.sign = -1 if name == "bid" else 1
        self.quantity: dict[int, int] = {}
        self.keys: list[int] = []

    def get(self, price: int) -> int:
        """Return the quantity at a price, 0 if there is none."""
        return self.quantity.get(price, 0)

    def put(self, price: int, quantity: int) -> None:
        """Make ``quantity`` what stands at ``price``; 0 deletes."""
        key = self.sign * price
        if price in self.quantity and quantity == 0:
            del self.quantity[price]
            del self.keys[bisect_left(self.keys, key)]
        elif quantity:
            if price not in self.quantity:
                insort(self.keys, key)
            self.quantity[price] = quantity

    def best(self, count: int) -> list[tuple[int, int]]:
        """Return up to ``count`` levels (price, quantity), best first."""
        return [(self.sign * key, self.quantity[self.sign * key]) for key in self.keys[:count]]

    def inside_limit(self) -> int | None:
        """Return the key of the ``TOP``-th level; None when there are fewer and every price is inside."""
        return self.keys[TOP - 1] if len(self.keys) >= TOP else None

    def inside(self, price: int, limit: int | None) -> bool:
        """Tell whether a price is at or better than the limit."""
        return limit is None or self.sign * price <= limit


class Tape:
    """Base volume of every trade taken, by ten-minute slot of the epoch, the newest ``DAY_SLOTS`` of them: a day."""

    def __init__(self) -> None:
        self.since_ns: int | None = None
        self.slots: dict[int, int | Fraction] = {}

    def add(self, ts_ns: int, volume: int | Fraction) -> None:
        """Put one trade on the tape."""
        if self.since_ns is None:
            self.since_ns = ts_ns
        slot = ts_ns // SLOT_NS
        self.slots = {held: total for held, total in self.slots.items() if held > slot - DAY_SLOTS}
        self.slots[slot] = self.slots.get(slot, 0) + volume

    def day_volume(self, ts_ns: int) -> int | Fraction | None:
        """Return what was traded in the day up to now; None until the tape is a day old."""
        if self.since_ns is None or ts_ns - self.since_ns < DAY_SLOTS * SLOT_NS:
            return None
        return sum(total for slot, total in self.slots.items() if slot > ts_ns // SLOT_NS - DAY_SLOTS)


class VolumeClock:
    """Buckets of equal volume, filled by trades in their order; a trade is split at the edge."""

    def __init__(self, fixed: Fraction | None) -> None:
        self.fixed = fixed
        self.tape = Tape()
        self.size: Fraction | None = None
        """Volume of the open bucket; None while none is open."""
        self.bought = self.sold = Fraction()
        self.full: deque[tuple[Fraction, Fraction]] = deque(maxlen=VPIN_BUCKETS)
        """(|bought - sold|, size) of the newest full buckets."""
        self.vpin: float | None = None

    def fill(self, ts_ns: int, volume: int | Fraction, *, seller: bool) -> None:
        """Pour one trade, which is on the tape, into the buckets."""
        if self.size is None:
            self.size = self._next_size(ts_ns)
        while volume and self.size is not None:
            part = min(volume, self.size - self.bought - self.sold)
            volume -= part
            if seller:
                self.sold += part
            else:
                self.bought += part
            if self.bought + self.sold == self.size:
                self.full.append((abs(self.bought - self.sold), self.size))
                self.size, self.bought, self.sold = self._next_size(ts_ns), Fraction(), Fraction()
                if len(self.full) == VPIN_BUCKETS:
                    imbalance = sum((one for one, _ in self.full), Fraction())
                    self.vpin = float(imbalance / sum((size for _, size in self.full), Fraction()))

    def _next_size(self, ts_ns: int) -> Fraction | None:
        """Return the size of a bucket that opens now; one opens as soon as the one before is full."""
        day = self.tape.day_volume(ts_ns)
        return self.fixed if self.fixed is not None else None if day is None else Fraction(day, VPIN_BUCKETS)


class Window:
    """What happened in (t - length, t], with exact running sums of its two quantities."""

    def __init__(self, length_ns: int) -> None:
        self.length_ns = length_ns
        self.entries: deque[tuple[int, int | Fraction, int | Fraction]] = deque()
        self.a: int | Fraction = 0
        self.b: int | Fraction = 0

    def add(self, ts_ns: int, a: int | Fraction, b: int | Fraction) -> None:
        """Append one entry."""
        self.entries.append((ts_ns, a, b))
        self.a += a
        self.b += b

    def roll(self, ts_ns: int) -> None:
        """Drop what is at or before ``ts_ns - length``."""
        while self.entries and self.entries[0][0] <= ts_ns - self.length_ns:
            _, a, b = self.entries.popleft()
            self.a -= a
            self.b -= b

    def __len__(self) -> int:
        return len(self.entries)


class Twin:
    """One symbol's book and features; time must not go back.

    ``vpin_bucket`` is the fixed size of a bucket in base units; left out, it is a 50th of the day's volume.
    """

    def __init__(self, venue: str, symbol: str, *, stale_after_ms: int = 3_000, vpin_bucket: Fraction | None = None) -> None:
        if venue not in ("binance-spot", "binance-usdm", "binance-coinm"):
            raise ValueError(f"expected binance-spot, binance-usdm or binance-coinm, found {venue!r}")
        self.venue = venue
        self.symbol = symbol
        self.contract_value = None if venue != "binance-coinm" else 100 if symbol.startswith("BTCUSD_") else 10
        self.stale_after_ns = stale_after_ms * MS

        self.gaps = 0
        self.crossed = 0
        self.duplicates = 0
        """Depth differences at or below the last update id of an established chain."""
        self.dropped = 0
        """Depth differences that the snapshot already held."""
        self.trade_duplicates = 0
        self.ticker_checked = 0
        self.ticker_mismatched = 0
        self.live_entries = 0
        self.messages: Counter[str] = Counter()

        self.now_ns = 0
        self.state = "SYNCING"
        self.buffer: list[Diff] = []
        self.last: int | None = None
        """Last update id in the book; None while there is no snapshot."""
        self.last_depth_ns = 0
        """When a depth message last told something new."""
        self.spare: dict[str, Any] | None = None
        """Newest snapshot that came while the book needed none."""
        self.tickers: dict[int, tuple[int, int, int, int]] = {}
        """Newest top of book by update id, of those that the book has not passed."""
        self.trade_stream = "aggTrade"
        self.last_trade_id = -1
        self.clock = VolumeClock(None if vpin_bucket is None else vpin_bucket * SCALE)
        self.adjustment: Adjustment | None = None
        self.frozen: Row | None = None
        self.top: Row | None = None
        self.depth = Fraction()
        """The best ``TOP`` levels of both sides in 1e-8 of the base currency, as of ``top``."""
        self._drop_book()
        self._reset_windows(0)

    # What may be asked.

    def adjust(self, adjustment: Adjustment | None) -> None:
        """Take what was fitted for ``microprice_stoikov``."""
        self.adjustment, self.top = adjustment, None

    def feed(self, ts_ns: int, payload: bytes) -> Row:
        """Take one venue message received at ``ts_ns`` and return the row after it."""
        self.tick(ts_ns)
        message = json.loads(payload)
        message = message.get("data", message)
        kind = self._kind(message)
        self.messages[kind] += 1
        if kind == "depthUpdate":
            self._on_diff(ts_ns, self._diff(message))
        elif kind == "snapshot":
            self._on_snapshot(ts_ns, message)
        elif kind == "bookTicker":
            top = (units(message["b"]), units(message["B"]), units(message["a"]), units(message["A"]))
            if self.last is None or message["u"] >= self.last:
                self.tickers[message["u"]] = top
                self._check_ticker()
        elif kind in ("trade", "aggTrade"):
            self._on_trade(ts_ns, kind, message)
        return self.row(ts_ns)

    def tick(self, ts_ns: int) -> None:
        """Let time pass; a LIVE book becomes STALE at the first grid instant that is late enough."""
        if ts_ns < self.now_ns:
            raise ValueError(f"expected time not to go back from {self.now_ns}, found {ts_ns}")
        if self.state == "LIVE":
            due_ns = -(-(self.last_depth_ns + self.stale_after_ns) // GRID_NS) * GRID_NS
            if due_ns <= ts_ns:
                self.frozen = replace(self._live_row(due_ns), state="STALE")
                self.state = "STALE"
        self.now_ns = ts_ns

    def row(self, ts_ns: int) -> Row:
        """Return the features at ``ts_ns``, which is now or later."""
        self.tick(ts_ns)
        if self.state == "LIVE":
            return self._live_row(ts_ns)
        if self.state == "STALE":
            assert self.frozen is not None
            return replace(self.frozen, ts_ns=ts_ns)
        return Row(ts_ns, self.state)

    def levels(self, side: str) -> list[tuple[Fraction, Fraction]]:
        """Return all levels of ``"bid"`` or ``"ask"`` as (price, quantity), best first."""
        book = self.sides[side]
        return [(Fraction(price, SCALE), Fraction(quantity, SCALE)) for price, quantity in book.best(len(book.keys))]

    # The wire.

    def _kind(self, message: dict[str, Any]) -> str:
        if message.get("s", message.get("symbol", self.symbol)) != self.symbol:
            return "other symbol"
        if "e" in message:
            return str(message["e"])
        if "lastUpdateId" in message:
            return "snapshot"
        if {"u", "b", "B", "a", "A"} <= message.keys():
            return "bookTicker"
        return "other"

    def _diff(self, message: dict[str, Any]) -> Diff:
        entries = [("bid", units(p), units(q)) for p, q in message["b"]] + [("ask", units(p), units(q)) for p, q in message["a"]]
        return Diff(message["U"], message["u"], message.get("pu"), tuple(entries))

    # The chain of update ids.

    def _first_verdict(self, diff: Diff, last: int) -> str:
        if self.venue == "binance-spot":
            if diff.last <= last:
                return "drop"
            return "apply" if diff.first <= last + 1 <= diff.last else "unbridgeable"
        if diff.last < last:
            return "drop"
        return "apply" if diff.first <= last <= diff.last or diff.previous == last else "unbridgeable"

    def _steady_verdict(self, diff: Diff, last: int) -> str:
        if diff.last <= last:
            return "duplicate"
        if self.venue == "binance-spot":
            return "gap" if diff.first > last + 1 else "apply"
        return "apply" if diff.previous == last else "gap"

    def _on_snapshot(self, ts_ns: int, message: dict[str, Any]) -> None:
        if self.state != "SYNCING":
            assert self.last is not None
            if message["lastUpdateId"] >= self.last:
                self.spare = message
            return
        self.last_depth_ns = ts_ns
        self._drop_book()
        for side, levels in (("bid", message["bids"]), ("ask", message["asks"])):
            for price, quantity in levels:
                self.sides[side].put(units(price), units(quantity))
        self.last = message["lastUpdateId"]
        if self._is_crossed():
            self.crossed += 1
            self._resync([])
            return
        waiting, self.buffer = self.buffer, []
        self._judge_all(ts_ns, waiting, replayed=True)

    def _on_diff(self, ts_ns: int, diff: Diff) -> None:
        if self.state == "SYNCING":
            self.last_depth_ns = ts_ns
        if self.last is None:
            while self.buffer and self.buffer[-1].first > diff.last:  # An id ahead of those after it is not to be believed.
                self.buffer.pop()
            self.buffer.append(diff)
        else:
            self._judge_all(ts_ns, [diff], replayed=False)

    def _judge_all(self, ts_ns: int, diffs: list[Diff], *, replayed: bool) -> None:
        """Judge differences in order, from the buffer (``replayed``) or the wire, and do what the verdicts say."""
        for index, diff in enumerate(diffs):
            assert self.last is not None
            judge = self._first_verdict if self.state == "SYNCING" else self._steady_verdict
            verdict = judge(diff, self.last)
            if verdict == "drop":
                self.dropped += 1
            elif verdict == "duplicate":
                self.duplicates += 1
                if self.state == "STALE" and ts_ns - self.last_depth_ns >= 2 * self.stale_after_ns:
                    self.spare = None
                    self._resync(diffs[index:])
                    self.last_depth_ns = ts_ns
                    return
            elif verdict in ("gap", "unbridgeable"):
                self.gaps += verdict == "gap"
                spare = self.spare if self.state != "SYNCING" else None
                self._resync(diffs[index:])
                if spare is not None:
                    self.spare = None
                    self._on_snapshot(ts_ns, spare)
                return
            else:
                self._apply(ts_ns, diff, counted=self.state == "LIVE" and not replayed)
                if self.last is None:  # Crossed, or contradicted by a ticker: the rest is given up with the book.
                    return

    def _apply(self, ts_ns: int, diff: Diff, *, counted: bool) -> None:
        limits = {side: self.sides[side].inside_limit() for side in SIDES}
        before = self._ladders()
        for side, price, quantity in diff.entries:
            old = self.sides[side].get(price)
            if quantity == old:
                continue
            self.sides[side].put(price, quantity)
            pending = self.pending.pop((side, price), [])
            if counted and self.sides[side].inside(price, limits[side]):
                self.changed.add(ts_ns, 1, 0)
                removed = max(0, old - quantity)
                if removed:
                    traded = sum(size for traded_ns, size in pending if traded_ns > ts_ns - TRADE_HOLD_NS)
                    self.removals.add(ts_ns, removed, removed - min(removed, traded))
        self.last, self.last_depth_ns = diff.last, ts_ns
        if self.spare is not None and self.spare["lastUpdateId"] < diff.last:
            self.spare = None
        if self._is_crossed():
            self.crossed += 1
            self._resync([])
            return
        if self.state != "LIVE":
            self.state = "LIVE"
            self.live_entries += 1
            self.frozen = None
            self._reset_windows(ts_ns)
        elif counted:
            self._note_flow(ts_ns, before)
        self.top = None
        self._note_mid(ts_ns)
        self._check_ticker()

    def _check_ticker(self) -> None:
        """Compare the ticker of the book's update id with the book, whichever came second."""
        if self.state not in ("LIVE", "STALE") or self.last is None:
            return
        stated = self.tickers.get(self.last)
        self.tickers = {update: top for update, top in self.tickers.items() if update > self.last}
        if stated is None:
            return
        bid, ask = ((self.sides[side].best(1) or [(0, 0)])[0] for side in SIDES)
        self.ticker_checked += 1
        if stated != (*bid, *ask):
            self.ticker_mismatched += 1
            self._resync([])

    def _is_crossed(self) -> bool:
        bids, asks = self.sides["bid"].best(1), self.sides["ask"].best(1)
        return bool(bids and asks and bids[0][0] >= asks[0][0])

    def _resync(self, kept: list[Diff]) -> None:
        """Give the book up (CORRUPT, at once SYNCING); ``kept`` differences await the next snapshot."""
        self.state = "SYNCING"
        self.frozen = None
        self.buffer = list(kept)
        self._drop_book()

    def _drop_book(self) -> None:
        self.last = None
        self.sides = {side: Side(side) for side in SIDES}
        self.top = None

    # The windows.

    def _reset_windows(self, ts_ns: int) -> None:
        self.live_since_ns = ts_ns
        self.trades = {seconds: Window(seconds * SECOND) for seconds in (1, 5, 30)}
        self.removals = Window(5 * SECOND)
        self.changed = Window(5 * SECOND)
        self.pending: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self.flow = Window(SECOND)
        """Order flow: that of the five levels together, and that of the best one."""
        self.mid_ns: list[int] = []
        self.mid_log: list[float] = []
        self.mid_double: list[int] = []
        self.signed_ns: list[int] = []
        self.signed_quote: list[int] = []
        """Quote volume of each trade in units of 1e-16, below 0 where the seller took."""
        self.seconds: dict[int, tuple[int, int, int] | None] = {}
        self.kyle_memo: tuple[int, float | None, int] | None = None
        self.vol_memo: dict[int, tuple[tuple[int, int], float]] = {}

    def _note_mid(self, ts_ns: int) -> None:
        """Remember the mid; while a side is empty there is none and the previous one goes on."""
        bids, asks = self.sides["bid"].best(1), self.sides["ask"].best(1)
        if bids and asks:
            self.mid_ns.append(ts_ns)
            self.mid_log.append(math.log((bids[0][0] + asks[0][0]) / (2 * SCALE)))
            self.mid_double.append(bids[0][0] + asks[0][0])

    def _ladders(self) -> dict[str, list[tuple[int, int]]]:
        """Return the best ``TOP`` levels of both sides."""
        return {side: self.sides[side].best(TOP) for side in SIDES}

    def _note_flow(self, ts_ns: int, before: dict[str, list[tuple[int, int]]]) -> None:
        """Compare the best levels with those before the message, place by place, as Cont, Kukanov and Stoikov do."""
        after = self._ladders()
        total: int | Fraction = 0
        best: int | Fraction = 0
        for side, sign in (("bid", 1), ("ask", -1)):
            for place in range(TOP):
                old = before[side][place] if place < len(before[side]) else None
                new = after[side][place] if place < len(after[side]) else None
                if old == new:
                    continue
                event: int | Fraction = 0
                if new is not None and (old is None or sign * new[0] >= sign * old[0]):
                    event += self._volume(*new)
                if old is not None and (new is None or sign * new[0] <= sign * old[0]):
                    event -= self._volume(*old)
                total += sign * event
                if place == 0:
                    best += sign * event
        if total or best:
            self.flow.add(ts_ns, total, best)

    def _volume(self, price: int, quantity: int) -> int | Fraction:
        """Return a quantity in 1e-8 of the base currency."""
        if self.contract_value is None:
            return quantity
        return Fraction(SCALE * quantity * self.contract_value, price)  # Both texts carry 1e8, which cancels.

    def _on_trade(self, ts_ns: int, kind: str, message: dict[str, Any]) -> None:
        if kind == "trade":
            self.trade_stream = "trade"
        if kind != self.trade_stream:
            return
        trade_id = message["t"] if kind == "trade" else message["l"]
        if trade_id <= self.last_trade_id:
            self.trade_duplicates += 1
            return
        self.last_trade_id = trade_id
        price, quantity, seller = units(message["p"]), units(message["q"]), message["m"]
        volume = self._volume(price, quantity)
        if self.state != "LIVE":
            return
        self.clock.tape.add(ts_ns, volume)
        self.clock.fill(ts_ns, volume, seller=seller)
        self.signed_ns.append(ts_ns)
        quote = price * quantity if self.contract_value is None else self.contract_value * SCALE * quantity
        self.signed_quote.append(-quote if seller else quote)
        for window in self.trades.values():
            window.add(ts_ns, 0 if seller else volume, volume if seller else 0)
        self.pending.setdefault(("bid" if seller else "ask", price), []).append((ts_ns, quantity))

    def _imbalance(self, seconds: int, ts_ns: int) -> float | None:
        if not self._is_warm(seconds, ts_ns):
            return None
        window = self.trades[seconds]
        return ratio(window.a - window.b, window.a + window.b)

    def _flow_share(self) -> float | None:
        """Return the mean flow of a level over the mean depth of a side."""
        return float((Fraction(self.flow.a) / TOP) / (self.depth / 2)) if self.depth else None

    def _is_warm(self, seconds: int, ts_ns: int) -> bool:
        return ts_ns - self.live_since_ns >= seconds * SECOND

    def _micro_vol(self, seconds: int, ts_ns: int) -> float | None:
        if not self._is_warm(seconds, ts_ns):
            return None
        newest_ns = ts_ns // GRID_NS * GRID_NS
        key = (newest_ns, bisect_right(self.mid_ns, newest_ns))
        if seconds not in self.vol_memo or self.vol_memo[seconds][0] != key:
            squares = []
            instant_ns = newest_ns
            while instant_ns > ts_ns - seconds * SECOND:
                before, after = bisect_right(self.mid_ns, instant_ns - GRID_NS), bisect_right(self.mid_ns, instant_ns)
                if before > 0:
                    squares.append((self.mid_log[after - 1] - self.mid_log[before - 1]) ** 2)
                instant_ns -= GRID_NS
            self.vol_memo[seconds] = (key, math.sqrt(math.fsum(squares)))
        return self.vol_memo[seconds][1]

    def _second(self, instant: int) -> tuple[int, int, int] | None:
        """Return (change of log mid, signed quote volume, trades) of the second that ends at an epoch second.

        None where no mid was known when it began. The change is exact but for the roundings of a quotient and its logarithm.
        """
        begin_ns, end_ns = (instant - 1) * SECOND, instant * SECOND
        known = bisect_right(self.mid_ns, begin_ns)
        if not known:
            return None
        before, after = self.mid_double[known - 1], self.mid_double[bisect_right(self.mid_ns, end_ns) - 1]
        change = int(Fraction(math.log1p((after - before) / before)) * LOG_SCALE)
        first, last = bisect_right(self.signed_ns, begin_ns), bisect_right(self.signed_ns, end_ns)
        return change, sum(self.signed_quote[first:last]), last - first

    def _kyle(self, ts_ns: int) -> tuple[float | None, int]:
        """Return the slope of log-mid changes on signed quote volume, and the number of its seconds with trades."""
        closed = -(-ts_ns // SECOND) - 1  # The newest epoch second that time has passed.
        if self.kyle_memo is None or self.kyle_memo[0] != closed:
            base = -(-self.live_since_ns // SECOND)
            instants = range(max(base, closed - KYLE_SECONDS) + 1, closed + 1)
            for instant in instants:
                if instant not in self.seconds:
                    self.seconds[instant] = self._second(instant)
            seen = [one for one in map(self.seconds.__getitem__, instants) if one is not None]
            with_trades = sum(trades > 0 for _, _, trades in seen)
            self.kyle_memo = (closed, self._slope(seen) if with_trades >= KYLE_SECONDS_WITH_TRADES else None, with_trades)
        _, slope, with_trades = self.kyle_memo
        return slope if self._is_warm(KYLE_SECONDS, ts_ns) else None, with_trades

    def _slope(self, seen: list[tuple[int, int, int]]) -> float | None:
        """Return the least-squares slope with intercept, in bps per million of quote volume, rounded once."""
        n, sum_x = len(seen), sum(x for _, x, _ in seen)
        spread = n * sum(x * x for _, x, _ in seen) - sum_x * sum_x
        if spread == 0:
            return None
        rise = n * sum(y * x for y, x, _ in seen) - sum(y for y, _, _ in seen) * sum_x
        return float(Fraction(rise, spread) * 10_000 * SCALE * SCALE * 1_000_000 / LOG_SCALE)

    def _stoikov(self, bid: tuple[int, int], ask: tuple[int, int]) -> float | None:
        """Return the mid shifted by what was fitted for the state of the best levels."""
        if self.adjustment is None:
            return None
        if bid[1] == ask[1]:  # The table is antisymmetric: a balanced book has no side to lean to.
            return float(Fraction(bid[0] + ask[0], 2 * SCALE))
        tick = self.adjustment.tick
        bucket = min(10 * bid[1] // (bid[1] + ask[1]), 9)
        spread = min(int(Fraction(ask[0] - bid[0], SCALE) / tick), 4)
        return float(Fraction(bid[0] + ask[0], 2 * SCALE) + tick * Fraction(self.adjustment.shift[bucket][spread - 1]))

    def _base(self, price: int, quantity: int) -> Fraction:
        """Return the base size of a level."""
        return Fraction(quantity, SCALE) if self.contract_value is None else Fraction(quantity * self.contract_value, price)

    def _quote(self, price: int, quantity: int) -> Fraction:
        """Return the quote value of a level."""
        return Fraction(price, SCALE) * self._base(price, quantity)

    def _top_row(self) -> Row:
        """Return what depends on the book alone."""
        bids, asks = self.sides["bid"].best(10), self.sides["ask"].best(10)
        bid_size, ask_size = [self._base(*level) for level in bids], [self._base(*level) for level in asks]
        held, offered = ({k: sum(sizes[:k], Fraction()) for k in (1, TOP, 10)} for sizes in (bid_size, ask_size))
        self.depth = (held[TOP] + offered[TOP]) * SCALE
        row = Row(
            0,
            "LIVE",
            bid=bids[0][0] / SCALE if bids else None,
            ask=asks[0][0] / SCALE if asks else None,
            depth_bid=float(held[TOP]),
            depth_ask=float(offered[TOP]),
            depth_bid_quote=float(sum(self._quote(*level) for level in bids[:TOP])),
            depth_ask_quote=float(sum(self._quote(*level) for level in asks[:TOP])),
        )
        if not bids or not asks:
            return row

        def obi(k: int) -> float:
            return float((held[k] - offered[k]) / (held[k] + offered[k]))

        bid, ask = Fraction(bids[0][0], SCALE), Fraction(asks[0][0], SCALE)
        mid = (bid + ask) / 2
        return replace(
            row,
            mid=float(mid),
            microprice=float((bid * ask_size[0] + ask * bid_size[0]) / (ask_size[0] + bid_size[0])),
            spread_bps=float(10_000 * (ask - bid) / mid),
            obi=obi(TOP),
            obi_1=obi(1),
            obi_10=obi(10),
            microprice_stoikov=self._stoikov(bids[0], asks[0]),
        )

    def _live_row(self, ts_ns: int) -> Row:
        for window in (*self.trades.values(), self.removals, self.changed, self.flow):
            window.roll(ts_ns)
        top = self.top = self.top or self._top_row()
        warm = self._is_warm(5, ts_ns)
        trades, removals = self.trades[5], self.removals
        kyle_lambda, kyle_n = self._kyle(ts_ns)
        return replace(
            top,
            ts_ns=ts_ns,
            ti=self._imbalance(5, ts_ns),
            ti_1s=self._imbalance(1, ts_ns),
            ti_30s=self._imbalance(30, ts_ns),
            ti_n=len(trades),
            micro_vol=self._micro_vol(5, ts_ns),
            micro_vol_1s=self._micro_vol(1, ts_ns),
            cancel_rate=ratio(removals.b, removals.a) if warm else None,
            cancel_n=len(removals),
            queue_rate=len(self.changed) / 5 if warm else None,
            ofi=self._flow_share() if self._is_warm(1, ts_ns) else None,
            ofi_1=float(Fraction(self.flow.b) / SCALE) if self._is_warm(1, ts_ns) else None,
            vpin=self.clock.vpin,
            vpin_n=len(self.clock.full),
            kyle_lambda=kyle_lambda,
            kyle_n=kyle_n,
            trade_rate=len(trades) / 5 if warm else None,
            buy_volume=Fraction(trades.a, SCALE),
            sell_volume=Fraction(trades.b, SCALE),
            removed=Fraction(removals.a, SCALE),
            unexplained=Fraction(removals.b, SCALE),
            changes=len(self.changed),
        )


def twin_of(path: Path, vpin_bucket: Fraction | None = None) -> Twin:
    """Return the twin that a capture's name (``venue_SYMBOL_...``) asks for."""
    venue, _, rest = path.name.partition("_")
    symbol = rest.split("_2", 1)[0].removesuffix("_trades")
    return Twin(venue, symbol, vpin_bucket=vpin_bucket)


def twin_rows(path: Path, twin: Twin | None = None) -> Iterator[Row]:
    """Yield a capture's rows, one a message, with the heartbeats that a quiet engine gives itself."""
    twin = twin or twin_of(path)
    with gzip.open(path, "rb") as lines:
        for line in lines:
            stamp, _, payload = line.partition(b" ")
            ts_ns = int(stamp)
            while twin.now_ns and twin.now_ns + GRID_NS < ts_ns:
                twin.tick(twin.now_ns + GRID_NS)
            yield twin.feed(ts_ns, payload)
