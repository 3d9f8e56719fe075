"""The paper exchange by hand: what travels, what is met, what is told, what is paid, and that none of it depends on restarts."""

import heapq
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from alphapack import app
from alphapack.domain.events import Filled, OrderChanged, Record
from alphapack.domain.inputs import Configure, CoreSettings, Frame, InstrumentSettings, SessionStart
from alphapack.domain.market import BookState, Step
from alphapack.domain.trading import ExecutionSettings, Fill, Order, OrderKind, Terms
from alphapack.engine.engine import Engine
from alphapack.models.book import FeatureBook
from alphapack.models.impact import Impact
from alphapack.services.exchange import LOTS_MAX, ORDERS_KEPT, ORDERS_OPEN_MAX, TIMER, Exchange

MS, S = 1_000_000, 1_000_000_000
START_NS = 1_700_000_000 * S
BTC, ETH = "x:BTCUSDT", "x:ETHUSDT"
TICK, LOT = Step(1, 1), Step(1, 6)
"""Of a lot at a price of a tick: ten units of money."""
MEASURED = Impact(k=100.0, a=0.5, k_stderr=0.7, a_stderr=0.1, source="prior", n=0)


class FakeContext:
    """Time, timers and records of services that are alone in the world."""

    def __init__(self, **execution: Any) -> None:
        self.now_ns, self.seq = START_NS, 1
        self.settings = CoreSettings(execution=ExecutionSettings(**execution))
        self.records: list[Record] = []
        self.timers: list[tuple[int, int, str, str]] = []
        self.set = 0

    def emit(self, record: Record) -> None:
        self.records.append(record)

    def observe(self, values: bytes) -> None:
        raise AssertionError("nothing that is computed here is observed")

    def request(self, work: str, body: bytes) -> int:
        raise AssertionError("no work is asked for")

    def after(self, delay_ns: int, timer: str, argument: str = "") -> None:
        assert delay_ns >= 0
        self.set += 1
        heapq.heappush(self.timers, (self.now_ns + delay_ns, self.set, timer, argument))

    def draws(self, stream: str, symbol: str = "") -> Iterator[float]:
        raise AssertionError("nothing is left to chance")


class Sender:
    """Hears of fills and ends, and holds each against what was said before."""

    def __init__(self) -> None:
        self.fills: list[Fill] = []
        self.ended: list[int] = []

    def on_fill(self, order: Order, fill: Fill) -> None:
        assert order.id not in self.ended, "nothing comes after the end"
        assert fill.order == order.id and fill.lots > 0
        self.fills.append(fill)

    def on_ended(self, order: Order) -> None:
        assert order.id not in self.ended and not order.is_open
        assert order.filled_lots == sum(fill.lots for fill in self.fills if fill.order == order.id) <= order.lots
        self.ended.append(order.id)


class Desk:
    """A real book, and an exchange with nothing else around it; times are milliseconds from the start."""

    def __init__(self, **execution: Any) -> None:
        self.ctx = FakeContext(**{"feed_latency_ms": 0.0, "order_latency_ms": 0.0, "ack_latency_ms": 0.0, **execution})
        self.sender = Sender()
        self.states: dict[str, BookState] = {BTC: BookState.LIVE}
        self.refusal, self.least = "", 0
        self.impact: tuple[Impact, float] | None = None
        self.book = FeatureBook(TICK, LOT, None)
        self.book.snapshot(quoted({1000: 500, 999: 800}), quoted({1001: 100, 1003: 100, 1004: 10_000}))
        self.book.start(START_NS)
        self.book.live = True
        self.restart(None)

    def restart(self, state: list[memoryview] | None) -> None:
        self.exchange = Exchange(self.ctx, self.market, self.terms, lambda symbol: self.impact)
        self.exchange.listener = self.sender
        if state is not None:
            self.exchange.load(state)

    def market(self, symbol: str) -> tuple[FeatureBook, BookState] | None:
        return (self.book, self.states[symbol]) if symbol in self.states else None

    def terms(self, symbol: str) -> Terms | None:
        if symbol not in self.states:
            return None
        assert self.book.tick is not None and self.book.lot is not None
        fees = self.ctx.settings.execution
        return Terms(self.book.tick, self.book.lot, fees.maker_fee_bps, fees.taker_fee_bps, self.least, self.refusal)

    # Time

    def until(self, ms: float) -> None:
        """Let time pass, and timers fire, up to and with a moment."""
        end_ns = START_NS + round(ms * MS)
        while self.ctx.timers and self.ctx.timers[0][0] <= end_ns:
            self.ctx.now_ns, _, timer, argument = heapq.heappop(self.ctx.timers)
            assert timer == TIMER
            self.exchange.on_timer(argument)
        self.ctx.now_ns = end_ns

    @property
    def ms(self) -> float:
        return (self.ctx.now_ns - START_NS) / MS

    def settle(self) -> None:
        """Let whatever is on its way arrive."""
        while self.ctx.timers:
            self.until((self.ctx.timers[0][0] - START_NS) / MS)

    # The market

    def show(self, key: int, lots: int) -> None:
        """Let a level show so many lots: +ticks of a bid, -ticks of an ask."""
        bids, asks = ({key: lots}, {}) if key > 0 else ({}, {-key: lots})
        self.book.diff(self.ctx.now_ns, quoted(bids), quoted(asks))
        self.tell()

    def trade(self, key: int, lots: int) -> None:
        """Print a trade that hits a level."""
        text = b"%d.%d" % divmod(abs(key), 10), b"0.%06d" % lots
        self.book.trade(self.ctx.now_ns, *text, buyer_is_taker=key < 0)
        self.tell()

    def tell(self) -> None:
        if BTC in self.exchange.resting:
            self.exchange.on_market(BTC)

    def refine(self, by_price: int, by_lot: int) -> None:
        """Let prices and quantities appear that are so many times finer, far from the best ones."""
        fine = b'[["%b","%b"]]' % (finer(TICK, by_price), finer(LOT, by_lot))
        self.book.diff(self.ctx.now_ns, fine, b"[]")
        self.exchange.on_steps(BTC, by_price, by_lot)
        self.tell()

    # Orders

    def send(
        self, side: int, lots: int, ticks: int, kind: OrderKind = "limit", client: str = "", shares: dict[int, int] | None = None
    ) -> Order:
        return self.exchange.submit(client or f"c{self.ctx.set}-{self.ctx.now_ns}", BTC, side, lots, ticks, kind, shares)

    def met(self, side: int, lots: int, ticks: int, kind: OrderKind = "limit") -> Order:
        """Send an order and let all that follows arrive."""
        order = self.send(side, lots, ticks, kind)
        self.settle()
        return order

    def told(self) -> list[tuple[int, str]]:
        return [(one.order, one.state) for one in self.ctx.records if isinstance(one, OrderChanged)]

    def fills(self) -> list[tuple[int, int, int, str]]:
        """Order, ticks, lots and cause of every record of a fill."""
        return [(one.order, one.ticks, one.lots, one.cause) for one in self.ctx.records if isinstance(one, Filled)]


def quoted(levels: dict[int, int]) -> bytes:
    return b"[%b]" % b",".join(b'["%d.%d","%d.%06d"]' % (*divmod(ticks, 10), *divmod(lots, 10**6)) for ticks, lots in levels.items())


def finer(step: Step, by: int) -> bytes:
    """The decimal of which ``by``, a power of ten, make up a step."""
    decimals = step.decimals + len(str(by)) - 1
    return b"0.%0*d" % (decimals, step.units)


# Latencies


def test_execution_planner_three_latencies_are_told_apart() -> None:
    desk = Desk(feed_latency_ms=2.0, order_latency_ms=5.0, ack_latency_ms=12.0)
    order = desk.send(1, 50, 1001)
    assert desk.told() == [(1, "sent")]
    desk.until(6.999999)
    desk.show(-1001, 30)
    assert desk.exchange.queue_ahead(1) is None and desk.fills() == []
    desk.until(7.0)
    assert desk.exchange.queue_ahead(1) == 0, "it met the book that the engine sees 5 + 2 ms after it was sent"
    assert (order.state, order.filled_lots, desk.fills()) == ("sent", 0, []), "nobody knows of it yet"
    desk.until(16.999999)
    assert (order.state, order.filled_lots) == ("sent", 0)
    desk.until(17.0)
    assert (order.state, order.filled_lots, desk.fills()) == ("working", 30, [(1, 1001, 30, "swept")])
    assert desk.sender.fills[0].exchange_ns == START_NS + 7 * MS
    desk.until(20.0)
    assert desk.exchange.cancel(1)
    desk.until(26.0)
    desk.show(-1001, 40)
    desk.until(36.0)
    assert desk.fills()[1:] == [(1, 1001, 10, "crossed")], "what came before the cancel was there is known 10 ms after it happened"
    assert order.state == "working"
    desk.until(37.0)
    assert (order.state, order.filled_lots, order.ended_ns) == ("cancelled", 40, START_NS + 37 * MS)


def test_execution_planner_an_answer_quicker_than_the_feed_comes_at_once_and_no_sooner() -> None:
    desk = Desk(feed_latency_ms=4.0, order_latency_ms=1.0, ack_latency_ms=1.0)
    order = desk.send(1, 50, 1001, "immediate")
    desk.until(4.999999)
    assert order.state == "sent"
    desk.until(5.0)
    assert (order.state, desk.sender.fills[0].exchange_ns) == ("filled", START_NS + 5 * MS)


def test_execution_planner_without_latency_an_order_is_met_at_once_but_never_inside_its_sending() -> None:
    desk = Desk()
    order = desk.send(1, 50, 1001)
    assert order.state == "sent"
    desk.until(0.0)
    assert order.state == "filled" and desk.told() == [(1, "sent"), (1, "filled")]


def test_execution_planner_reports_keep_their_order_and_their_time_when_latencies_change() -> None:
    desk = Desk(ack_latency_ms=500.0)
    first = desk.send(1, 10, 1001)
    desk.until(0.0)
    desk.ctx.settings = CoreSettings(execution=ExecutionSettings(feed_latency_ms=0.0, order_latency_ms=0.0, ack_latency_ms=0.0))
    desk.until(100.0)
    second = desk.send(1, 10, 1001)
    desk.until(499.9)
    assert (first.state, second.state) == ("sent", "sent"), "what happened later is not known sooner"
    desk.until(500.0)
    assert (first.state, second.state) == ("filled", "filled")
    assert [fill.order for fill in desk.sender.fills] == [1, 2]


def test_execution_planner_what_was_on_its_way_before_a_session_hurries_nothing_after_it() -> None:
    desk = Desk(ack_latency_ms=500.0)
    desk.send(1, 10, 1001)
    desk.until(100.0)
    desk.exchange.on_session()
    order = desk.send(1, 10, 1003)
    desk.until(599.0)
    assert order.state == "sent", "the timers of reports that the session has ended are still to fire"
    desk.until(600.0)
    assert order.state == "filled"


def test_execution_planner_a_cancel_that_overtakes_its_order_may_be_asked_for_again() -> None:
    desk = Desk(order_latency_ms=1_000.0)
    order = desk.send(1, 10, 900)
    desk.ctx.settings = CoreSettings(execution=ExecutionSettings(feed_latency_ms=0.0, order_latency_ms=0.0, ack_latency_ms=0.0))
    assert desk.exchange.cancel(1)
    desk.until(1_000.0)
    assert order.state == "working"
    assert desk.exchange.cancel(1), "an order that nobody can cancel would rest for ever"
    desk.settle()
    assert order.state == "cancelled"


# The life of an order


def test_execution_planner_a_limit_order_takes_over_several_prices_and_rests_with_the_rest() -> None:
    desk = Desk()
    order = desk.met(1, 250, 1003)
    assert desk.fills() == [(1, 1001, 100, "swept"), (1, 1003, 100, "swept")]
    assert (order.state, order.filled_lots, order.left_lots) == ("working", 200, 50)
    assert order.value == 1001 * 100 * 10 + 1003 * 100 * 10
    assert desk.exchange.resting == {BTC} and desk.exchange.queue_ahead(1) == 0
    desk.show(-1001, 0)
    desk.show(-1003, 0)
    desk.trade(1003, 30)
    desk.trade(1002, 30)
    assert (order.state, desk.fills()[2:]) == ("filled", [(1, 1003, 30, "printed"), (1, 1003, 20, "through")])
    assert desk.exchange.resting == set() and desk.exchange.queue_ahead(1) is None
    assert desk.told() == [(1, "sent"), (1, "working"), (1, "filled")]
    assert desk.sender.ended == [1]


def test_execution_planner_value_and_fee_are_rounded_half_to_even_once_a_fill() -> None:
    desk = Desk(taker_fee_bps=5.0)
    order = desk.met(1, 200, 1003, "immediate")
    low, high = desk.sender.fills
    assert (low.value, low.fee) == (1_001_000, -500), "500.5 is halfway, and 500 is even"
    assert (high.value, high.fee) == (1_003_000, -502), "501.5 is halfway, and 502 is even"
    assert (order.value, order.fees, order.impact) == (2_004_000, -1_002, 0)
    assert (low.mid, low.best, low.met_mid, low.available_lots) == (2001, 1001, 2001, 100)


def test_execution_planner_makers_pay_their_own_fee_and_get_their_rebate() -> None:
    paid, given = Desk(maker_fee_bps=2.0), Desk(maker_fee_bps=-1.5)
    for desk in (paid, given):
        order = desk.met(1, 100, 1000, "post_only")
        assert (order.state, desk.exchange.queue_ahead(1)) == ("working", 500)
        desk.trade(1000, 550)
        desk.trade(999, 50)
        assert order.state == "filled"
    assert [(fill.value, fill.fee, fill.maker) for fill in paid.sender.fills] == [(500_000, -100, True)] * 2
    assert [fill.fee for fill in given.sender.fills] == [75, 75]


def test_execution_planner_an_immediate_order_never_rests() -> None:
    desk = Desk()
    order = desk.met(-1, 900, 1000, "immediate")
    assert desk.fills() == [(1, 1000, 500, "swept")]
    assert (order.state, order.left_lots, order.reason) == ("cancelled", 400, "what was displayed within its limit is filled")
    again = desk.met(-1, 10, 1000, "immediate")
    assert (again.state, again.filled_lots) == ("cancelled", 0), "what is displayed there is ours already"


def test_execution_planner_a_post_only_order_that_would_match_is_rejected_with_the_reason() -> None:
    desk = Desk()
    order = desk.met(1, 10, 1001, "post_only")
    assert (order.state, order.reason) == ("rejected", "expected an order that rests, it would match at once")
    assert desk.fills() == [] and desk.sender.ended == [1] and desk.exchange.resting == set()


def test_execution_planner_own_orders_never_meet() -> None:
    desk = Desk()
    resting = desk.met(-1, 10, 1001)
    order = desk.met(1, 10, 1004)
    assert order.state == "rejected" and "own order" in order.reason
    assert resting.state == "working"


def test_execution_planner_two_own_orders_share_no_lot_that_is_displayed() -> None:
    desk = Desk()
    desk.send(1, 70, 1001, "immediate")
    desk.send(1, 70, 1001, "immediate")
    desk.settle()
    assert desk.fills() == [(1, 1001, 70, "swept"), (2, 1001, 30, "swept")]
    assert [fill.available_lots for fill in desk.sender.fills] == [100, 30]


def test_execution_planner_a_replaced_order_keeps_its_id_and_stands_last() -> None:
    desk = Desk()
    order = desk.met(1, 100, 1000)
    desk.trade(1000, 400)
    assert desk.exchange.queue_ahead(1) == 100
    assert desk.exchange.replace(1, 1000)
    desk.settle()
    assert desk.exchange.queue_ahead(1) == 500, "at its own price too"
    assert desk.exchange.replace(1, 999)
    desk.settle()
    assert (order.id, order.ticks, order.state, desk.exchange.queue_ahead(1)) == (1, 999, "working", 800)
    assert desk.exchange.replace(1, 1001)
    desk.settle()
    assert (order.state, order.ticks, desk.fills()) == ("filled", 1001, [(1, 1001, 100, "swept")])
    limits = [one.ticks for one in desk.ctx.records if isinstance(one, OrderChanged)]
    assert limits == sorted(limits, key=[1000, 999, 1001].index), "each is told before what follows from it"


def test_execution_planner_one_change_of_an_order_is_on_its_way_at_once() -> None:
    desk = Desk(order_latency_ms=5.0)
    desk.met(1, 100, 990)
    assert desk.exchange.replace(1, 995)
    assert not desk.exchange.replace(1, 996), "a slow exchange is not flooded with what is overtaken"
    desk.settle()
    assert desk.exchange.replace(1, 996)
    desk.settle()
    assert desk.exchange.order(1).ticks == 996


def test_execution_planner_the_sender_learns_of_a_new_limit_no_sooner_than_of_anything_else() -> None:
    desk = Desk(order_latency_ms=5.0, ack_latency_ms=20.0)
    order = desk.met(1, 100, 990)
    sent_ms = desk.ms
    desk.exchange.replace(1, 995)
    desk.until(sent_ms + 24.999)
    assert order.ticks == 990
    desk.until(sent_ms + 25)
    assert order.ticks == 995


def test_execution_planner_a_limit_replaced_before_its_order_is_known_to_work_is_not_forgotten() -> None:
    desk = Desk(order_latency_ms=5.0, ack_latency_ms=20.0)
    order = desk.send(1, 100, 990)
    assert desk.exchange.replace(1, 995)
    desk.settle()
    assert (order.state, order.ticks) == ("working", 995)


def test_execution_planner_a_post_only_order_moved_into_the_book_is_cancelled_with_the_reason() -> None:
    desk = Desk()
    order = desk.met(1, 700, 1000, "post_only")
    desk.trade(1000, 600)
    assert order.filled_lots == 100
    desk.exchange.replace(1, 1001)
    desk.settle()
    assert (order.state, order.filled_lots) == ("cancelled", 100), "what was filled was not rejected"
    assert "would match at once" in order.reason and desk.exchange.resting == set()


def test_execution_planner_a_cancel_races_a_fill_and_loses_nothing() -> None:
    desk = Desk(order_latency_ms=5.0, ack_latency_ms=20.0)
    order = desk.met(1, 100, 1000)
    start_ms = desk.ms
    assert desk.exchange.cancel(1)
    assert not desk.exchange.cancel(1) and not desk.exchange.replace(1, 1001), "its end is asked for already"
    desk.until(start_ms + 4)
    desk.trade(999, 60)
    desk.until(start_ms + 5)
    desk.trade(999, 60)
    desk.settle()
    assert (order.state, order.filled_lots) == ("cancelled", 60)
    assert not desk.exchange.cancel(1) and not desk.exchange.replace(1, 1001)


def test_execution_planner_a_cancel_that_comes_after_the_last_fill_ends_nothing_twice() -> None:
    desk = Desk(order_latency_ms=5.0, ack_latency_ms=20.0)
    order = desk.met(1, 100, 1000)
    start_ms = desk.ms
    desk.trade(999, 100)
    assert desk.exchange.cancel(1), "nobody knows yet"
    desk.until(start_ms + 6)
    assert desk.exchange.cancel(1), "the first was too late, and nobody knows that either"
    desk.settle()
    assert (order.state, order.filled_lots, desk.sender.ended) == ("filled", 100, [1])
    assert not desk.exchange.cancel(1) and not desk.exchange.cancel(99)


# Client ids


def test_execution_planner_a_client_id_is_taken_once_also_after_the_end_and_after_a_restart() -> None:
    desk = Desk()
    order = desk.send(1, 50, 1001, client="a")
    assert desk.send(-1, 7, 1, "immediate", client="a") is order
    desk.settle()
    assert desk.send(1, 50, 1001, client="a") is order and order.state == "filled"
    desk.restart(desk.exchange.save())
    again = desk.send(1, 50, 1001, client="a")
    assert (again.id, again.state) == (1, "filled")
    assert not desk.ctx.timers and len(desk.fills()) == 1
    assert desk.send(1, 50, 1001, client="b").id == 2


def test_execution_planner_client_ids_are_kept_as_long_as_their_orders() -> None:
    desk = Desk()
    for i in range(ORDERS_KEPT + 1):
        desk.send(1, 1, 1, "immediate", client=f"c{i}")
        desk.settle()
    assert len(desk.exchange.orders()) == ORDERS_KEPT
    assert desk.send(1, 1, 1, client="c1").id == 2
    with pytest.raises(KeyError):
        desk.exchange.order(1)
    assert desk.send(1, 1, 1, client="c0").id == ORDERS_KEPT + 2


# What is refused


@pytest.mark.parametrize(
    ("side", "lots", "ticks"),
    [
        *((side, 1, 1000) for side in (0, 2, -2)),
        *((1, lots, 1000) for lots in (0, -1, LOTS_MAX + 1, 10**30)),
        *((1, 1, ticks) for ticks in (0, -1, LOTS_MAX + 1, 10**30)),
    ],
)
def test_execution_planner_an_order_out_of_range_is_refused_and_leaves_no_trace(side: int, lots: int, ticks: int) -> None:
    desk = Desk()
    with pytest.raises(ValueError, match="expected a side of 1 or -1"):
        desk.send(side, lots, ticks, client="a")
    assert desk.exchange.orders() == [] and desk.ctx.records == [] and desk.ctx.timers == []
    assert desk.send(1, 1, 1000, client="a").id == 1, "its client id is free"


def test_execution_planner_an_order_worth_more_than_money_counts_is_refused() -> None:
    desk = Desk()
    with pytest.raises(ValueError, match="expected a value of at most"):
        desk.send(1, LOTS_MAX, LOTS_MAX)
    order = desk.met(-1, 10**13, 1)
    assert (order.state, order.filled_lots) == ("working", 1_300), "its limit is low: it takes all bids and rests"
    desk.exchange.cancel(1)
    desk.settle()
    desk.book.snapshot(quoted({4 * 10**9: 10**6}), quoted({4 * 10**9 + 1: 1}))
    order = desk.met(-1, 10**13, 1)
    assert order.state == "rejected" and "value of at most" in order.reason, "at what is bid it might come to more"


def test_execution_planner_an_order_below_the_least_value_is_refused() -> None:
    desk = Desk()
    desk.least = 1_001_000
    with pytest.raises(ValueError, match="worth at least 1001000 units of 1e-8, found 1000990"):
        desk.send(1, 100_099, 1)
    assert desk.send(1, 100, 1001).id == 1


def test_execution_planner_symbols_that_are_unknown_or_take_no_orders_are_refused() -> None:
    desk = Desk()
    with pytest.raises(ValueError, match="expected a symbol with a book, found 'x:ETHUSDT'"):
        desk.exchange.submit("a", ETH, 1, 1, 1, "limit")
    desk.refusal = "it settles in what is not known"
    with pytest.raises(ValueError, match="takes no orders: it settles in"):
        desk.send(1, 1, 1000)


def test_execution_planner_too_many_open_orders_are_refused() -> None:
    desk = Desk()
    for i in range(ORDERS_OPEN_MAX):
        desk.send(1, 1, 900, client=f"c{i}")
    with pytest.raises(ValueError, match="at most 1,000 open orders"):
        desk.send(1, 1, 900, client="more")
    desk.settle()
    assert len(desk.exchange.open_orders(BTC)) == ORDERS_OPEN_MAX and desk.exchange.open_orders(ETH) == []
    desk.exchange.cancel(7)
    desk.settle()
    assert desk.send(1, 1, 900, client="more").id == ORDERS_OPEN_MAX + 1


def listed(**stated: Any) -> Engine:
    """An engine that was told of instruments, and has a book of two symbols a venue."""
    engine = app.build()
    instruments = tuple(InstrumentSettings(symbol, **stated) for symbol in ("binance-usdm:BTCUSDT", "binance-coinm:BTCUSD_PERP"))
    engine.step(Configure(1, START_NS, CoreSettings(instruments=instruments, execution=ExecutionSettings(min_notional=0.0))))
    engine.step(SessionStart(2, START_NS, "test"))
    for venue, name in (
        ("binance-usdm", "BTCUSDT"),
        ("binance-usdm", "BTCUSDC"),
        ("binance-coinm", "BTCUSD_PERP"),
        ("binance-usdm", "ODDNAME"),
    ):
        payload = b'{"lastUpdateId":5,"symbol":"%b","bids":[["100.0","2"]],"asks":[["101.0","1"]]}' % name.encode()
        engine.step(Frame(engine.seq + 1, START_NS, venue, "", payload))
    return engine


def test_execution_planner_inverse_contracts_and_other_settlements_take_no_orders() -> None:
    engine = listed()
    for symbol, why in (
        ("binance-coinm:BTCUSD_PERP", "an inverse contract"),
        ("binance-usdm:BTCUSDC", "it settles in USDC, the portfolio in USDT"),
        ("binance-usdm:ODDNAME", "it settles in what is not known"),
    ):
        with pytest.raises(ValueError, match=why):
            engine.exchange.submit("a", symbol, 1, 1, 1, "limit")
    with pytest.raises(ValueError, match="expected a symbol with a book"):
        engine.exchange.submit("a", "binance-usdm:NOTHING", 1, 1, 1, "limit")
    assert engine.exchange.submit("a", "binance-usdm:BTCUSDT", 1, 1, 1, "limit").id == 1


@pytest.mark.parametrize("least", [math.nan, math.inf, -1.0, 1e300, 1e11])
def test_execution_planner_a_least_value_that_is_no_money_takes_no_orders(least: float) -> None:
    engine = listed(min_notional=least)
    with pytest.raises(ValueError, match="takes no orders: its least order"):
        engine.exchange.submit("a", "binance-usdm:BTCUSDT", 1, 1, 1, "limit")


# Books that are not proven


@pytest.mark.parametrize("state", [BookState.SYNCING, BookState.STALE, BookState.CORRUPT])
def test_execution_planner_an_order_that_meets_no_proven_book_is_rejected_with_the_reason(state: BookState) -> None:
    desk = Desk(order_latency_ms=5.0)
    order = desk.send(1, 10, 1001)
    desk.states[BTC] = state
    desk.settle()
    assert (order.state, order.reason) == ("rejected", f"expected a LIVE book, found it {state.name}")
    assert desk.fills() == []


def test_execution_planner_nothing_is_filled_while_a_book_is_silent_and_a_cancel_comes_through() -> None:
    desk = Desk()
    order, other = desk.met(1, 10, 1000), desk.met(1, 10, 999)
    desk.states[BTC] = BookState.STALE
    desk.trade(998, 1_000)
    assert desk.fills() == []
    desk.exchange.replace(1, 1002)
    desk.exchange.cancel(2)
    desk.settle()
    assert (order.state, order.ticks, other.state) == ("working", 1000, "cancelled"), "a change that nobody saw arrive did not"


def test_execution_planner_a_book_that_breaks_ends_what_rests_in_it_and_keeps_what_was_filled() -> None:
    desk = Desk(ack_latency_ms=10.0)
    desk.states[ETH] = BookState.LIVE
    first, second = desk.met(1, 100, 1000), desk.met(1, 100, 999)
    desk.trade(998, 130)
    desk.states[BTC] = BookState.SYNCING
    desk.exchange.on_broken(BTC)
    assert desk.exchange.resting == set() and (first.state, second.state) == ("working", "working")
    desk.settle()
    assert (first.state, first.filled_lots) == ("filled", 100)
    assert (second.state, second.filled_lots, second.reason) == ("cancelled", 30, "the book it rested in broke")
    desk.states[BTC] = BookState.LIVE
    desk.tell()
    assert len(desk.fills()) == 2


def test_execution_planner_a_session_ends_every_order_and_loses_nothing_that_was_filled() -> None:
    desk = Desk(ack_latency_ms=50.0, order_latency_ms=5.0)
    resting, moved = desk.met(1, 100, 1000), desk.met(1, 100, 998)
    desk.trade(999, 40)
    travelling = desk.send(1, 10, 1001)
    desk.exchange.cancel(1)
    desk.exchange.replace(2, 999)
    desk.exchange.on_session()
    assert (resting.state, resting.filled_lots, resting.reason) == ("cancelled", 40, "a session began")
    assert (moved.state, travelling.state, travelling.filled_lots) == ("cancelled", "cancelled", 0)
    assert sorted(desk.sender.ended) == [1, 2, 3] and desk.exchange.open_orders(BTC) == [] and desk.exchange.resting == set()
    before = list(desk.ctx.records)
    desk.settle()
    desk.trade(990, 10_000)
    assert desk.ctx.records == before, "whatever was on its way is lost"


def test_execution_planner_another_queue_model_is_taken_with_the_next_session() -> None:
    desk = Desk()
    desk.met(1, 100, 1000)
    desk.ctx.settings = CoreSettings(
        execution=ExecutionSettings(feed_latency_ms=0.0, order_latency_ms=0.0, ack_latency_ms=0.0, queue="optimistic")
    )
    desk.exchange.on_session()
    desk.met(1, 100, 1000)
    desk.show(1000, 600)
    desk.show(1000, 400)
    assert desk.exchange.queue_ahead(2) == 300, "of 200 that went all stood before it; the other model says 400"


# Steps that become finer


def test_execution_planner_finer_steps_change_no_value_of_what_lives_travels_or_has_ended() -> None:
    desk = Desk(order_latency_ms=5.0, ack_latency_ms=20.0, taker_fee_bps=5.0)
    ended = desk.met(1, 100, 1001)
    resting = desk.send(1, 100, 1000, shares={3: 60, 4: 40})
    desk.until(desk.ms + 100)
    desk.trade(999, 30)
    moved = desk.send(1, 50, 990)
    desk.until(desk.ms + 100)
    desk.exchange.replace(moved.id, 991)
    travelling = desk.send(1, 10, 1003)
    values = [(one.ticks * 100, one.lots * 1_000, one.filled_lots * 1_000, one.value) for one in desk.exchange.orders()]
    kept = [(fill.ticks * 100, fill.lots * 1_000, fill.value, fill.available_lots * 1_000) for fill in desk.exchange.fills()]
    desk.refine(100, 1_000)
    assert [(one.ticks, one.lots, one.filled_lots, one.value) for one in desk.exchange.orders()] == values
    assert [(fill.ticks, fill.lots, fill.value, fill.available_lots) for fill in desk.exchange.fills()] == kept
    assert resting.shares == {3: 60_000, 4: 40_000}
    assert (ended.filled_lots, resting.filled_lots) == (100_000, 30_000)
    desk.settle()
    assert moved.ticks == 99_100, "a limit that travelled is the same price"
    assert (travelling.state, travelling.value, travelling.fees) == ("filled", 1003 * 10 * 10, -50)
    (fill,) = [one for one in desk.sender.fills if one.order == travelling.id]
    assert (fill.ticks, fill.lots, fill.best, fill.mid) == (100_300, 10_000, 100_100, 200_100), "what is at 1001 is ours"


def test_execution_planner_a_fill_that_travels_while_steps_become_finer_is_the_same_money() -> None:
    desk = Desk(ack_latency_ms=50.0)
    order = desk.send(1, 150, 1003, "immediate")
    desk.until(0)
    desk.refine(10, 10)
    desk.settle()
    assert (order.state, order.lots, order.filled_lots, order.value) == ("filled", 1_500, 1_500, 1_001_000 + 501_500)
    assert [(fill.ticks, fill.lots, fill.value) for fill in desk.sender.fills] == [(10_010, 1_000, 1_001_000), (10_030, 500, 501_500)]


def test_execution_planner_steps_too_fine_to_count_end_what_rests() -> None:
    desk = Desk()
    order = desk.met(1, LOTS_MAX // 1_000, 1000)
    assert order.state == "working"
    desk.exchange.on_steps(BTC, 1, 10**9)
    assert (order.state, desk.exchange.resting) == ("cancelled", set())
    assert order.lots == LOTS_MAX // 1_000 * 10**9 > 2**64
    state = desk.exchange.save()
    desk.restart(state)
    assert desk.exchange.order(1).lots == order.lots, "beyond 64 bits, and saved all the same"


@pytest.mark.parametrize(("by_price", "by_lot"), [(1, 10**8), (10**13, 1)])
def test_execution_planner_an_order_that_travels_into_steps_too_fine_for_it_is_rejected(by_price: int, by_lot: int) -> None:
    desk = Desk(order_latency_ms=5.0)
    order = desk.send(1, LOTS_MAX // 10**8 + 1, 1001)
    desk.until(1)
    desk.exchange.on_steps(BTC, by_price, by_lot)
    desk.settle()
    assert (order.state, desk.fills(), desk.sender.ended) == ("rejected", [], [order.id])
    assert "expected lots and ticks of at most 2**52, found" in order.reason


def test_execution_planner_a_limit_that_travels_into_steps_too_fine_for_it_ends_the_order() -> None:
    desk = Desk(order_latency_ms=5.0)
    order = desk.met(1, 10, 400)
    assert desk.exchange.replace(order.id, 500)
    desk.exchange.on_steps(BTC, 10**13, 1)
    desk.settle()
    assert (order.state, desk.fills(), desk.exchange.resting) == ("cancelled", [], set())
    assert order.ticks == 500 * 10**13 > LOTS_MAX > 400 * 10**13 and "of at most 2**52, found 10 and 5" in order.reason
    assert desk.told()[-2:] == [(order.id, "working"), (order.id, "cancelled")]


# What own trading does to the price


def test_execution_planner_own_taking_is_charged_to_what_follows_and_only_where_it_hurts() -> None:
    desk = Desk(taker_fee_bps=0.0, maker_fee_bps=0.0)
    desk.impact = (MEASURED, 40_000.0)
    desk.met(1, 100, 1001, "immediate")
    assert desk.sender.fills[0].impact == 0, "a fill does not pay for itself"
    desk.until(30_000)
    desk.met(1, 100, 1003, "immediate")
    first_bps = 100.0 * math.sqrt(100 / 40_000)
    shift_bps = first_bps * math.exp(-30 / 60)
    assert first_bps == 5.0 and shift_bps == pytest.approx(3.0326533)
    assert desk.sender.fills[1].impact == round(-1_003_000 * shift_bps / 1e4) == -304
    desk.met(-1, 100, 1000, "immediate")
    assert desk.sender.fills[2].impact == 0, "no price that nobody could have had"
    shift_bps = (shift_bps + 5.0 - 5.0) * math.exp(-60 / 60)
    desk.until(90_000)
    desk.met(1, 1_000, 1004, "immediate")
    (fill,) = desk.sender.fills[3:]
    assert fill.impact == round(-fill.value * shift_bps / 1e4) != 0


def test_execution_planner_a_makers_fill_pays_the_shift_but_makes_none() -> None:
    desk = Desk(maker_fee_bps=0.0)
    desk.impact = (MEASURED, 40_000.0)
    desk.met(-1, 100, 1000, "immediate")
    desk.met(-1, 100, 1001, "post_only")
    desk.trade(-1002, 100)
    desk.met(-1, 100, 1001, "post_only")
    desk.trade(-1002, 100)
    assert [fill.maker for fill in desk.sender.fills] == [False, True, True]
    assert [fill.impact for fill in desk.sender.fills] == [0, -500, -500], "5 bps of 1,001,000 are 500.5"


def test_execution_planner_own_impact_is_off_by_its_flag_and_none_where_nothing_is_known() -> None:
    for off, known in ((True, True), (False, False)):
        desk = Desk(self_impact=not off)
        desk.impact = (MEASURED, 40_000.0) if known else None
        desk.met(1, 100, 1001, "immediate")
        desk.met(1, 100, 1003, "immediate")
        assert [fill.impact for fill in desk.sender.fills] == [0, 0]


def test_execution_planner_a_day_of_hardly_any_volume_charges_all_and_breaks_nothing() -> None:
    desk = Desk()
    desk.impact = (Impact(k=1e100, a=1.0, k_stderr=1.0, a_stderr=1.0, source="prior", n=0), 1e-9)
    desk.met(1, 100, 1001, "immediate")
    desk.met(1, 100, 1003, "immediate")
    assert [fill.impact for fill in desk.sender.fills] == [0, -1_003_000]


# Restarts


def drive(seed: int, *, restarts: bool) -> Desk:
    """A random course of orders and market; with ``restarts`` the exchange is saved and loaded after every step of it."""
    chance = random.Random(seed)
    desk = Desk(
        feed_latency_ms=1.0, order_latency_ms=chance.choice((0.0, 3.0)), ack_latency_ms=chance.choice((0.0, 9.0)), queue="optimistic"
    )
    desk.impact = (MEASURED, 1e6)
    for i in range(250):
        what = chance.random()
        number = chance.randrange(max(1, i // 3 - 10), i // 3 + 5)
        if what < 0.3:
            kind: OrderKind = chance.choice(("limit", "post_only", "immediate"))
            desk.send(chance.choice((1, -1)), chance.randrange(1, 400), chance.randrange(997, 1006), kind, client=f"c{number}")
        elif what < 0.4:
            desk.exchange.cancel(number)
        elif what < 0.5:
            desk.exchange.replace(number, chance.randrange(997, 1004))
        elif what < 0.75:
            desk.show(chance.choice((1000, 999, -1001, -1003, -1004)), chance.randrange(1, 900))
        elif what < 0.97:
            desk.trade(chance.choice((1000, 999, -1001, -1003)), chance.randrange(1, 900))
        elif what < 0.985:
            desk.exchange.on_broken(BTC)
        else:
            desk.exchange.on_session()
        if restarts:
            desk.restart(desk.exchange.save())
        desk.until(desk.ms + chance.choice((0.0, 0.5, 2.0, 20.0)))
        if restarts and i % 3 == 0:
            desk.restart(desk.exchange.save())
    return desk


@pytest.mark.parametrize("seed", range(4))
def test_execution_planner_an_exchange_that_is_restarted_at_every_step_says_the_same(seed: int) -> None:
    plain, restarted = drive(seed, restarts=False), drive(seed, restarts=True)
    assert len(plain.fills()) > 15
    assert restarted.ctx.records == plain.ctx.records
    assert [bytes(one) for one in restarted.exchange.save()] == [bytes(one) for one in plain.exchange.save()]
    assert restarted.exchange.resting == plain.exchange.resting


@pytest.mark.parametrize("seed", range(4))
def test_execution_planner_records_of_an_order_add_up_to_it(seed: int) -> None:
    desk = drive(seed, restarts=False)
    desk.settle()
    desk.exchange.on_session()
    filled = [one for one in desk.ctx.records if isinstance(one, Filled)]
    assert len({one.fill for one in filled}) == len(filled)
    for order in desk.exchange.orders():
        own = [one for one in filled if one.order == order.id]
        assert not order.is_open and order.filled_lots <= order.lots
        assert sum(one.lots for one in own) == order.filled_lots
        assert [sum(getattr(one, name) for one in own) for name in ("value", "fee", "impact")] == [order.value, order.fees, order.impact]
        assert all(one.value == 10 * one.ticks * one.lots and one.lots <= one.available_lots and one.impact <= 0 for one in own)
        assert not any(one.maker for one in own if order.kind == "immediate") and all(one.maker for one in own if order.kind == "post_only")
        states = [one.state for one in desk.ctx.records if isinstance(one, OrderChanged) and one.order == order.id]
        assert states[0] == "sent" and states[-1] == order.state and order.state != "working"
        assert all(state == "working" for state in states[1:-1])
