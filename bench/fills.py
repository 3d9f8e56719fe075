"""Paper fills beside those of hftbacktest: the same orders, the same messages, the same latencies.

Orders are sent by a fixed rule, whatever becomes of them. For hftbacktest a message is at the exchange ``FEED_MS`` before the capture
received it, so that an order meets the same book on both sides. A twin of its rules follows each quote beside a paper book in
which that quote is alone. Where both end with other quantities, the first fill that differs is the cause, or what had moved the
queues apart before it. The twin must end as hftbacktest did, or the run stops.

``python bench/fills.py`` prints the tables of docs/FILLS.md.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import msgspec
import numpy as np
from peers import BID, LOT, LOTS, PRICES, TICK, TICKS, TRADE, Outcome, Peer, hftbacktest_events, real, walked
from report import Row

from alphapack import app
from alphapack.domain.events import Filled, OrderChanged
from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Frame, Heartbeat, InstrumentSettings, SessionStart
from alphapack.domain.market import BookState
from alphapack.domain.trading import ExecutionSettings, OrderKind, Queue
from alphapack.kernels.matching import displayed
from alphapack.models import book, matching
from alphapack.models.book import FeatureBook
from alphapack.models.matching import Match, PaperBook, Refused
from alphapack.services.exchange import Exchange

VENUE, NAME = "binance-usdm", "BTCUSDT"
SYMBOL = f"{VENUE}:{NAME}"
MS, S = 1_000_000, 1_000_000_000
FEED_MS, ORDER_MS, ACK_MS = 1, 5, 1
THERE_NS = (FEED_MS + ORDER_MS) * MS
QUOTES_LOTS, QUOTE_EVERY_NS, LIFE_NS = (500, 5_000), 2 * S, 10 * S
TAKE_LOTS, TAKE_EVERY_NS, TAKE_TICKS = 5_000, 5 * S, 20
BEGIN_NS, END_NS = 2 * S, 15 * S
"""From the first message to the first order, and from the last order to the last message."""
WAIT_NS = 250 * MS
POWER = 3.0
QUEUES: tuple[Queue, ...] = ("risk_averse", "power", "log")
PARTS, WHOLE = "partial_fill_exchange", "no_partial_fill_exchange"
GTX, IOC, EXPIRED = 1, 3, 2
SPARE = 0.7
"""Lots more in a quote for hftbacktest: a print that fills just what is left would make an order that it goes on filling, and it stops."""


HFTBACKTEST = Peer("exchange with partial fills", ("hftbacktest",), lambda data: Outcome(0.0, 0))


@dataclass(frozen=True)
class Asked:
    """An order that is sent at ``sent_ns`` and called back at ``back_ns``; ``key`` is +ticks of a buy, -ticks of a sale."""

    id: int
    kind: OrderKind
    sent_ns: int
    back_ns: int
    key: int
    lots: int


@dataclass
class Filling:
    """What of an order was filled: lots, ticks times lots that were paid, and lots as maker; or whether it was refused."""

    lots: int = 0
    worth: int = 0
    maker: int = 0
    refused: bool = False

    def add(self, lots: int, ticks: int, maker: bool) -> None:
        self.lots += lots
        self.worth += lots * ticks
        self.maker += lots if maker else 0


Event = tuple[int, int, int]
"""Side, key and lots, as in ``peers.Real``."""
Fillings = list[Filling]
"""One an order, in the order of their ids."""


@cache
def orders() -> dict[str, list[Asked]]:
    """Return quotes of both sizes at the best prices, and orders that take up to ``TAKE_TICKS`` beyond them, now a buy, now a sale."""
    data = real()
    last_ns = int(data.stamps_ns[-1]) - END_NS
    quotes: list[Asked] = []
    takes: list[Asked] = []
    quote_ns = take_ns = int(data.stamps_ns[0]) + BEGIN_NS
    bid = ask = 0
    for stamp_ns, (bids, _, asks, _) in zip(data.stamps_ns.tolist(), walked(data), strict=True):
        while quote_ns < min(stamp_ns, last_ns):
            for key in (bid, ask):
                quotes.append(Asked(len(quotes) + 1, "post_only", quote_ns, quote_ns + LIFE_NS, key, 0))
            quote_ns += QUOTE_EVERY_NS
        while take_ns < min(stamp_ns, last_ns):
            key = TAKE_TICKS - (ask if len(takes) % 2 == 0 else bid)
            takes.append(Asked(len(takes) + 1, "immediate", take_ns, take_ns + LIFE_NS, key, TAKE_LOTS))
            take_ns += TAKE_EVERY_NS
        bid, ask = bids[-1], asks[-1]
    sized = {f"quotes of {btc(lots)}": [replace(one, lots=lots) for one in quotes] for lots in QUOTES_LOTS}
    return {**sized, f"takers of {btc(TAKE_LOTS)}": takes}


def btc(lots: float) -> str:
    return f"{lots / LOTS:,.3f}".rstrip("0").rstrip(".") + " BTC"


# Here: the paper exchange of an engine


def inputs(asked: Sequence[Asked], queue: Queue) -> list[AnyInput]:
    """Return the capture as inputs, with a heartbeat where an order is sent or called back."""
    data = real()
    trading = ExecutionSettings(False, feed_latency_ms=FEED_MS, order_latency_ms=ORDER_MS, ack_latency_ms=ACK_MS, queue=queue)
    core = CoreSettings(instruments=(InstrumentSettings(SYMBOL, TICK, LOT),), execution=trading)
    start_ns = int(data.stamps_ns[0])
    found: list[AnyInput] = [
        Configure(1, start_ns, core),
        SessionStart(2, start_ns, "bench"),
        Frame(3, start_ns, VENUE, NAME, data.snapshot),
    ]
    beats = sorted({ns for one in asked for ns in (one.sent_ns, one.back_ns)}, reverse=True)
    for stamp_ns, payload in zip(data.stamps_ns.tolist(), data.frames, strict=True):
        while beats and beats[-1] < stamp_ns:
            found.append(Heartbeat(len(found) + 1, beats.pop()))
        found.append(Frame(len(found) + 1, stamp_ns, VENUE, NAME, payload))
    return found


def schedule(asked: Sequence[Asked]) -> dict[int, list[Callable[[Exchange], object]]]:
    """Return what is done to the exchange, by the time at which it is."""
    due: dict[int, list[Callable[[Exchange], object]]] = {}
    for one in asked:
        due.setdefault(one.sent_ns, []).append(partial(send, one))
        due.setdefault(one.back_ns, []).append(partial(Exchange.cancel, order=one.id))
    return due


def send(one: Asked, exchange: Exchange) -> None:
    sent = exchange.submit(f"{one.id}", SYMBOL, 1 if one.key > 0 else -1, one.lots, abs(one.key), one.kind)
    assert sent.id == one.id, "orders are numbered as they are sent"


# There: hftbacktest


@cache
def driver() -> Any:
    from numba import njit

    @njit
    def drive(backtest: Any, when: Any, what: Any, keys: Any, prices: Any, sizes: Any, force: int, told: Any) -> int:
        """Do what is due when it is due; ``told``: what is left of each order, the price last paid, whether as maker, its status."""
        answer = backtest.wait_next_feed(False, 1 << 60)  # Before the first message it has no time.
        for i in range(len(when) + 1):
            until = when[i] if i < len(when) else 1 << 62
            while answer in (0, 2, 3) and backtest.current_timestamp < until:
                answer = backtest.wait_next_feed(True, until - backtest.current_timestamp)
                if answer == 3:
                    seen = backtest.orders(0).values()
                    while seen.has_next():
                        order = seen.get()
                        told[order.order_id, 0] = order.leaves_qty
                        told[order.order_id, 1] = order.exec_price_tick
                        told[order.order_id, 2] = order.arr[0].maker
                        told[order.order_id, 3] = order.arr[0].status
            if i < len(when) and answer in (0, 2, 3):
                id_ = abs(what[i])
                if what[i] < 0:
                    answer = backtest.cancel(0, id_, False)
                elif keys[i] > 0:
                    answer = backtest.submit_buy_order(0, id_, prices[i], sizes[i], force, 0, False)
                else:
                    answer = backtest.submit_sell_order(0, id_, prices[i], sizes[i], force, 0, False)
        return answer

    return drive


def at_receipt() -> Any:
    """Return the messages as its events: at the exchange ``FEED_MS`` before they were received."""
    data = real()
    events = hftbacktest_events(data)[1].copy()
    events["local_ts"][:-1] = np.repeat(data.stamps_ns, np.diff(data.starts))
    events["local_ts"][-1] = data.stamps_ns[-1] + 1
    events["exch_ts"] = events["local_ts"] - FEED_MS * MS
    return events


def at_venue() -> Any:
    """Return them at the times that the venue states, the fastest ``FEED_MS`` before it was received, in both orders."""
    from hftbacktest.data import correct_event_order

    data, events = real(), at_receipt()
    stated = np.array([msgspec.json.decode(frame)["data"]["T"] for frame in data.frames], np.int64) * MS
    stated += int((data.stamps_ns - stated).min()) - FEED_MS * MS
    events["exch_ts"][:-1] = np.repeat(stated, np.diff(data.starts))
    return correct_event_order(events, np.argsort(events["exch_ts"], kind="stable"), np.argsort(events["local_ts"], kind="stable"))


def prepared(asked: Sequence[Asked], queue: Queue, exchange: str, events: Any) -> tuple[Any, Any, tuple[Any, ...]]:
    """Return what drives a backtest, the backtest, and what it is driven by."""
    import hftbacktest as hbt

    snapshot, _ = hftbacktest_events(real())
    asset = hbt.BacktestAsset().data(events).initial_snapshot(snapshot).linear_asset(1.0).trading_value_fee_model(0.0, 0.0)
    # An answer that comes at the instant of a message would not be told of.
    asset = asset.constant_order_latency(ORDER_MS * MS, ACK_MS * MS + 1).tick_size(float(TICK)).lot_size(float(LOT))
    asset = asset.roi_lb(PRICES[0]).roi_ub(PRICES[1])
    asset = getattr(asset, exchange)()
    if queue == "power":
        asset = asset.power_prob_queue_model(POWER)
    else:
        asset = asset.log_prob_queue_model() if queue == "log" else asset.risk_adverse_queue_model()
    due = sorted([(one.sent_ns, one.id, one) for one in asked] + [(one.back_ns, -one.id, one) for one in asked], key=lambda do: do[:2])
    spare = SPARE if asked[0].kind == "post_only" else 0.0
    told = np.zeros((len(asked) + 1, 4))
    told[1:, 0] = [(one.lots + spare) / LOTS for one in asked]
    arrays = (
        np.array([do[0] for do in due]),
        np.array([do[1] for do in due]),
        np.array([do[2].key for do in due]),
        np.array([abs(do[2].key) / TICKS for do in due]),
        np.array([(do[2].lots + spare) / LOTS for do in due]),
        GTX if spare else IOC,
        told,
    )
    return driver(), hbt.ROIVectorMarketDepthBacktest([asset]), arrays


def hftbacktest(asked: Sequence[Asked], queue: Queue, exchange: str, events: Any) -> Fillings:
    """Run its backtest over the events; a fill has the last price that it tells of, for it tells of no other."""
    drive, backtest, arrays = prepared(asked, queue, exchange, events)
    answer = drive(backtest, *arrays)
    backtest.close()
    if answer != 1:
        raise AssertionError(f"expected hftbacktest to come to the end of its data, it answered {answer}")
    found = []
    for one, (left, ticks, maker, status) in zip(asked, arrays[-1][1:].tolist(), strict=True):
        filling = Filling(refused=one.kind == "post_only" and status == EXPIRED)
        filling.add(one.lots - math.floor(left * LOTS + 0.1), round(ticks), bool(maker))
        found.append(filling)
    return found


class Twin:
    """What hftbacktest's exchange with partial fills does to one order that rests; quantities in lots."""

    def __init__(self, order: Asked, queue: Queue, shown: int) -> None:
        self.key, self.left, self.queue = order.key, order.lots, queue
        self.front, self.shown, self.printed = float(shown), float(shown), 0.0

    def on_event(self, side: int, key: int, lots: int) -> tuple[int, str] | None:
        """Return lots that are filled by an event, and why."""
        if not self.left:
            return None
        if side == TRADE:
            return self._on_trade(key, lots) if (key > 0) == (self.key > 0) and key <= self.key else None
        if (side == BID) == (self.key > 0):
            if key == self.key:
                self._on_level(lots)
        elif lots and key >= -self.key:
            return self._fill(self.left, "crossed")
        return None

    def _on_trade(self, key: int, lots: int) -> tuple[int, str] | None:
        if key < self.key:
            return self._fill(self.left, "through")
        self.front -= lots
        self.printed += lots
        beyond = math.floor(0.5 - self.front)
        if beyond <= 0:
            return None
        self.front = 0.0
        return self._fill(beyond, "printed")

    def _fill(self, lots: int, cause: str) -> tuple[int, str]:
        lots = min(lots, self.left)
        self.left -= lots
        return lots, cause

    def _on_level(self, lots: int) -> None:
        before, self.shown = self.shown, float(lots)
        if self.queue == "risk_averse":
            self.front = min(self.front, lots)
            return
        change, self.printed = before - lots - self.printed, 0.0
        if change >= 0.0:
            behind = before - self.front
            ahead_weight, behind_weight = self._weight(self.front), self._weight(behind)
            # Where the two weigh nothing together the share is no number, and of a minimum with none the other is taken.
            if ahead_weight + behind_weight == 0.0 or math.isnan(ahead_weight + behind_weight):
                self.front = float(lots)
                return
            share = behind_weight / (behind_weight + ahead_weight)
            self.front += min(behind - share * change, 0.0) - (1.0 - share) * change
        self.front = min(self.front, lots)

    def _weight(self, lots: float) -> float:
        units = lots / LOTS
        if self.queue == "power":
            return units**POWER
        return math.log(1.0 + units) if units > -1.0 else math.nan


# The two side by side


@dataclass
class Followed:
    """One order in three places: in the exchange among the others, alone in a paper book, and in the twin."""

    order: Asked
    here: Filling = field(default_factory=Filling)
    alone: Filling = field(default_factory=Filling)
    twin: Twin | None = None
    paper: PaperBook = field(default_factory=PaperBook)
    shared: str = ""
    """How the first fill came about that differs between the exchange and the order alone."""
    first: str = ""
    """Why the first fill differs between the order alone and the twin."""
    moved: dict[str, float] = field(default_factory=dict)
    """Lots by which the queues were moved apart, by what did it."""
    gap: float = 0.0
    print_ns: int = -WAIT_NS

    @property
    def peer_lots(self) -> int:
        return self.order.lots - self.twin.left if self.twin is not None else 0

    def arrive(self, market: FeatureBook, ts_ns: int, queue: Queue) -> None:
        one, self.paper = self.order, PaperBook(queue, POWER)
        try:
            immediate = one.kind == "immediate"
            taken = self.paper.place(market, ts_ns, one.id, one.key, one.lots, immediate=immediate, post_only=not immediate)
        except Refused:
            self.alone.refused = True
            return
        self._take(taken)
        if not immediate:
            self.twin = Twin(one, queue, displayed(one.key, market.levels))

    def on_message(self, market: FeatureBook, ts_ns: int, events: Sequence[Event], exchanged: Sequence[Filled]) -> None:
        """Let both see a message of which the exchange made fills; note what it does to one and not to the other."""
        assert self.twin is not None
        pending = self.twin.printed > 0.0 or ts_ns - self.print_ns < WAIT_NS
        theirs = [fill for event in events if (fill := self.twin.on_event(*event)) is not None]
        ours = self.paper.on_message(market, ts_ns)
        self._take(ours)
        lots = sum(match.lots for match in ours)
        if lots != sum(fill.lots for fill in exchanged) and not self.shared:
            self.shared = ours[0].cause if ours else exchanged[0].cause
        if lots != sum(lots for lots, _ in theirs) and not self.first:
            self.first = self._cause({match.cause for match in ours} | {cause for _, cause in theirs})
        if len(self.paper):
            self._compare(self.paper.queue_ahead(self.order.id), ts_ns, events[0], pending)

    def _cause(self, causes: set[str]) -> str:
        for cause in ("through", "crossed"):
            if cause in causes:
                return cause
        return max(self.moved, key=self.moved.__getitem__) if self.moved else "unknown"

    def _compare(self, ahead: int, ts_ns: int, event: Event, pending: bool) -> None:
        assert self.twin is not None
        side, key, _ = event
        if side == TRADE:
            what = "fall, then print"
            if key == self.order.key:
                self.print_ns = ts_ns
        elif self.twin.front < 0.0:
            what = "below 0"
        else:
            what = "print, then fall" if pending else "share"
        gap = ahead - self.twin.front
        if gap != self.gap:
            self.moved[what] = self.moved.get(what, 0.0) + abs(gap - self.gap)
            self.gap = gap

    def _take(self, matches: Sequence[Match]) -> None:
        for match in matches:
            self.alone.add(match.lots, match.ticks, match.maker)


def followed(asked: Sequence[Asked], queue: Queue) -> list[Followed]:
    """Step the capture through an engine whose exchange gets the orders, and follow each of them alone beside it."""
    data, found, entries = real(), [Followed(one) for one in asked], inputs(asked, queue)
    events: list[Event] = list(zip(data.sides.tolist(), data.keys.tolist(), data.lots.tolist(), strict=True))
    starts, message = data.starts.tolist(), 0
    engine = app.build()
    engine.exchange.listener = None  # Nobody here holds positions.
    due = schedule(asked)
    coming, there = found[::-1], list[Followed]()
    for entry in entries:
        while coming and coming[-1].order.sent_ns + THERE_NS <= entry.ts_ns:
            one = coming.pop()
            one.arrive(market_of(engine), one.order.sent_ns + THERE_NS, queue)
            there += [one] if one.twin is not None else []
        there = [one for one in there if entry.ts_ns < one.order.back_ns + THERE_NS]
        made: dict[int, list[Filled]] = {}
        for record in engine.step(entry):
            if type(record) is Filled:
                found[record.order - 1].here.add(record.lots, record.ticks, record.maker)
                made.setdefault(record.order, []).append(record)
            elif type(record) is OrderChanged and record.state == "rejected":
                found[record.order - 1].here.refused = True
        if type(entry) is Heartbeat:
            for do in due[entry.ts_ns]:
                do(engine.exchange)
        elif type(entry) is Frame and entry.payload is not data.snapshot:
            for one in there:
                one.on_message(market_of(engine), entry.ts_ns, events[starts[message] : starts[message + 1]], made.get(one.order.id, ()))
            message += 1
    return found


def market_of(engine: Any) -> FeatureBook:
    market, state = engine.known.market(SYMBOL)
    if state is not BookState.LIVE:
        raise AssertionError(f"expected a LIVE book, found it {state.name}")
    return market


# What comes of it


@dataclass(frozen=True)
class Compared:
    """One rule's orders with one queue model: what was filled here, and there by each exchange; ``late`` at the venue's own times."""

    what: str
    queue: Queue
    orders: list[Followed]
    parts: Fillings
    whole: Fillings
    late: Fillings

    @property
    def here(self) -> Fillings:
        return [one.here for one in self.orders]


def compare() -> Iterator[Compared]:
    """Run both sides; raises ``AssertionError`` where a twin does not end as hftbacktest did."""
    received, stated = at_receipt(), at_venue()
    for what, asked in orders().items():
        for queue in QUEUES if asked[0].kind == "post_only" else QUEUES[:1]:
            ran = [
                hftbacktest(asked, queue, exchange, events) for exchange, events in ((PARTS, received), (WHOLE, received), (PARTS, stated))
            ]
            found = Compared(what, queue, followed(asked, queue), *ran)
            for one, told in zip(found.orders, found.parts, strict=True):
                if one.twin is not None and one.peer_lots != told.lots:
                    raise AssertionError(f"expected {told.lots} lots of {one.order} as of hftbacktest, the twin has {one.peer_lots}")
            yield found


def average(asked: Sequence[Asked], fillings: Fillings, side: int) -> str:
    """Return the average price of the buys (+1) or of the sales (-1)."""
    chosen = [one for order, one in zip(asked, fillings, strict=True) if order.key * side > 0]
    lots = sum(one.lots for one in chosen)
    return f"{sum(one.worth for one in chosen) / lots / TICKS:,.2f}" if lots else "-"


def line(name: str, asked: Sequence[Asked], fillings: Fillings) -> str:
    """Return a row of a table: orders, refused, filled, filled whole, quantity, prices, share of makers."""
    lots = sum(one.lots for one in fillings)
    whole = sum(one.lots == order.lots for order, one in zip(asked, fillings, strict=True))
    counts = (len(asked), sum(one.refused for one in fillings), sum(one.lots > 0 for one in fillings), whole)
    maker = f"{100 * sum(one.maker for one in fillings) / max(1, lots):.0f} %"
    cells = (name, *map(str, counts), f"{lots / LOTS:,.3f}", average(asked, fillings, 1), average(asked, fillings, -1), maker)
    return f"| {' | '.join(cells)} |"


def differing(ours: Fillings, theirs: Fillings) -> tuple[int, int]:
    """Return how many orders end with other quantities, and the lots that the first has less."""
    gaps = [other.lots - one.lots for one, other in zip(ours, theirs, strict=True)]
    return sum(gap != 0 for gap in gaps), sum(gaps)


def causes(found: Compared) -> list[str]:
    """Return a line a cause: how many orders end otherwise for it, the lots that are less here, and the first of them."""
    counted: dict[str, list[tuple[int, int]]] = {}
    for one in found.orders:
        if one.here.lots != one.alone.lots:
            own = "refused" if one.here.refused else one.shared or "swept"
            counted.setdefault(f"own orders: {own}", []).append((one.order.id, one.alone.lots - one.here.lots))
        if one.twin is not None and one.alone.lots != one.peer_lots:
            counted.setdefault(one.first, []).append((one.order.id, one.peer_lots - one.alone.lots))
    return [
        f"| {found.what}, `{found.queue}` | {cause} | {len(ones)} | {sum(less for _, less in ones) / LOTS:+.3f} | {ones[0][0]} |"
        for cause, ones in sorted(counted.items())
    ]


def run() -> list[Row]:
    """Return a row for each rule and queue model, beside hftbacktest's exchange with partial fills."""
    book.warm()
    matching.warm()
    if HFTBACKTEST.missing():
        return [Row("fills", "paper fills of the same orders", "", "-", None, "not installed")]
    rows = []
    for found in compare():
        ours, theirs = (sum(one.lots for one in fillings) for fillings in (found.here, found.parts))
        count, _ = differing(found.here, found.parts)
        what = f"{found.what}, {found.queue}: {len(found.orders)} orders, {count} of them end otherwise"
        rows.append(Row("fills", what, f"{btc(ours)} filled", "-", None, f"{btc(theirs)} ({HFTBACKTEST.label()})", f"{ours / theirs:.3f}x"))
    return rows


def main() -> None:
    book.warm()
    matching.warm()
    traced, rule, head = [], "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", "orders | refused | filled | whole | BTC"
    for found in compare():
        asked, alone = [one.order for one in found.orders], [one.alone for one in found.orders]
        print(f"\n| {found.what}, `{found.queue}` | {head} | bought at | sold at | makers |\n{rule}")
        print(line("here", asked, found.here))
        print(line("here, each order alone", asked, alone))
        print(line("hftbacktest, partial fills", asked, found.parts))
        print(line("hftbacktest, no partial fills", asked, found.whole))
        print(line("hftbacktest, partial fills, venue's times", asked, found.late))
        pairs = {"here": found.here, "no partial fills": found.whole, "venue's times": found.late}
        print("\notherwise than with partial fills, and lots less:", {name: differing(one, found.parts) for name, one in pairs.items()})
        told = sum(one.lots == peer.lots and one.worth != peer.worth for one, peer in zip(alone, found.parts, strict=True))
        print(f"as many lots, told at another price than was paid: {told}")
        traced += causes(found)
    for what, asked in orders().items():
        print(line(f"here, {what}, `optimistic`", asked, [one.here for one in followed(asked, "optimistic")]))
    print("\n| orders | cause | number | BTC less here | for one |\n| --- | --- | ---: | ---: | ---: |")
    print("\n".join(traced))


if __name__ == "__main__":
    main()
