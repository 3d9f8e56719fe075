"""The paper exchange: orders travel to it, meet the real book, and what becomes of them travels back.

Three latencies are told apart. What the engine sees of a market is ``feed`` old; an order takes ``order`` to the exchange, and its
answer ``ack`` back. An order sent at t therefore meets the book that the engine sees at ``t + order + feed``, and what happened to
it there is known ``ack - feed`` after the engine has seen the market do it, or at once where answers are as quick as the feed.

An order meets no book that is not proven. A book that breaks ends the orders that rest in it, for their places in the queue are lost.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from alphapack.domain.context import Context
from alphapack.domain.events import Filled, OrderChanged
from alphapack.domain.market import NANOS_PER_MS, BookState
from alphapack.domain.money import fee, worth
from alphapack.domain.trading import Fill, Order, OrderKind, OrderState, Terms, side_of
from alphapack.models.book import FeatureBook
from alphapack.models.impact import SHARE_MAX, Impact, Shift
from alphapack.models.matching import Match, PaperBook, Refused

TIMER = "exchange"
ORDERS_OPEN_MAX = 1_000
ORDERS_KEPT = 1_000
"""Orders that ended, kept for readers and so that a client id is not taken twice."""
FILLS_KEPT = 2_000
LOTS_MAX = 1 << 52
SHIFT_BPS_MAX = 1e4
"""A charge is at most what the fill is worth: nothing is sold for less than nothing."""


class _Report(msgspec.Struct, array_like=True):
    """What the exchange has to tell: a fill, or that an order works or has ended."""

    order: int
    fill: Fill | None = None
    state: OrderState | None = None
    reason: str = ""
    ticks: int | None = None
    """The limit that it works at."""
    due_ns: int = 0
    """When the sender learns of it, if it has learnt of all that was before."""


class Listener(Protocol):
    """Who sent the orders."""

    def on_fill(self, order: Order, fill: Fill) -> None:
        """Some of an order was filled."""
        ...

    def on_ended(self, order: Order) -> None:
        """Nothing more will become of an order; told after its last fill."""
        ...


class _Saved(msgspec.Struct, array_like=True):
    version: int
    orders_n: int
    fills_n: int
    orders: dict[int, Order]
    ended: list[Order]
    fills: list[Fill]
    reports: list[_Report]
    moves: dict[int, int]
    shifts: dict[str, Shift]
    books: list[str]


class Exchange:
    """Owns every order; ``market`` and ``terms`` tell of a symbol's book, its state, and its rules."""

    def __init__(
        self,
        ctx: Context,
        market: Callable[[str], tuple[FeatureBook, BookState] | None],
        terms: Callable[[str], Terms | None],
        impact: Callable[[str], tuple[Impact, float] | None],
    ) -> None:
        """``impact`` returns what a fill does to the price of a symbol, and the lots of a day's volume; None: not known."""
        self._ctx, self._market, self._terms, self._impact = ctx, market, terms, impact
        self.listener: Listener | None = None
        self._orders_n = self._fills_n = 0
        self._orders: dict[int, Order] = {}
        self._by_client: dict[str, int] = {}
        self._ended: deque[Order] = deque(maxlen=ORDERS_KEPT)
        self._fills: deque[Fill] = deque(maxlen=FILLS_KEPT)
        self._reports: deque[_Report] = deque()
        self._moves: dict[int, int] = {}
        """Limits that are on their way, by order."""
        self._shifts: dict[str, Shift] = {}
        self._books: dict[str, PaperBook] = {}
        self.resting: set[str] = set()
        """Symbols in whose books orders rest: those whose messages ``on_market`` must see."""

    # Orders

    def submit(
        self, client_id: str, symbol: str, side: int, lots: int, ticks: int, kind: OrderKind, shares: dict[int, int] | None = None
    ) -> Order:
        """Send an order; one whose client id is known is returned as it is, and nothing is sent.

        Parameters
        ----------
        client_id
            The sender's own name of the order.
        side
            +1 to buy, -1 to sell.
        lots, ticks
            Size and limit, above 0 and up to 2**52.
        shares
            Signed lots by the decision that they are for; for readers alone.

        Raises
        ------
        ValueError
            An argument is out of its range, the symbol is unknown or takes no orders, the order is below the least that it takes, or
            too many orders are open. Nothing is sent then.
        """
        known = self._by_client.get(client_id)
        if known is not None:
            return self.order(known)
        if side not in (1, -1) or not 0 < lots <= LOTS_MAX or not 0 < ticks <= LOTS_MAX:
            raise ValueError(f"expected a side of 1 or -1, lots and ticks from 1 to 2**52, found {side}, {lots} and {ticks}")
        terms = self._terms(symbol)
        if terms is None:
            raise ValueError(f"expected a symbol with a book, found {symbol[:60]!r}")
        if terms.refusal:
            raise ValueError(f"{symbol} takes no orders: {terms.refusal}")
        value = worth(ticks, lots, terms.tick, terms.lot)
        if value < terms.min_notional:
            raise ValueError(f"expected an order worth at least {terms.min_notional} units of 1e-8, found {value}")
        if len(self._orders) >= ORDERS_OPEN_MAX:
            raise ValueError(f"expected at most {ORDERS_OPEN_MAX:,} open orders, found one more")
        self._orders_n += 1
        order = Order(self._orders_n, client_id, symbol, side, kind, ticks, lots, self._ctx.now_ns, shares or {})
        self._orders[order.id] = order
        self._by_client[client_id] = order.id
        self._tell(order)
        self._ctx.after(self._there_ns(), TIMER, f"arrive {order.id}")
        return order

    def cancel(self, order: int) -> bool:
        """Ask for an order's end; False where it has ended, as far as is known, or its end is asked for already."""
        one = self._orders.get(order)
        if one is None or one.cancelling:
            return False
        one.cancelling = True
        self._ctx.after(self._there_ns(), TIMER, f"cancel {order}")
        return True

    def replace(self, order: int, ticks: int) -> bool:
        """Ask for another limit of an order, which then stands last in its queue; False as in ``cancel``, or where one is on its way."""
        one = self._orders.get(order)
        if one is None or one.cancelling or order in self._moves or not 0 < ticks <= LOTS_MAX:
            return False
        self._moves[order] = ticks
        self._ctx.after(self._there_ns(), TIMER, f"replace {order}")
        return True

    def order(self, order: int) -> Order:
        """Return an order that is open or was kept. Raises ``KeyError``."""
        found = self._orders.get(order) or next((one for one in self._ended if one.id == order), None)
        if found is None:
            raise KeyError(order)
        return found

    def orders(self) -> list[Order]:
        """Return the orders that are kept, newest first."""
        return sorted((*self._orders.values(), *self._ended), key=lambda order: -order.id)

    def fills(self) -> list[Fill]:
        """Return the fills that are kept, newest first."""
        return list(reversed(self._fills))

    def open_orders(self, symbol: str) -> list[Order]:
        """Return the open orders of a symbol, oldest first."""
        return [order for order in self._orders.values() if order.symbol == symbol]

    def queue_ahead(self, order: int) -> int | None:
        """Return the lots that stand before an order in its queue; None where it does not rest."""
        one = self._orders.get(order)
        book = self._books.get(one.symbol) if one is not None else None
        return book.queue_ahead(order) if book is not None and order in book.orders else None

    # What happens

    def on_timer(self, argument: str) -> None:
        """Let what was on its way arrive."""
        what, _, number = argument.partition(" ")
        if what == "report":
            while self._reports and self._reports[0].due_ns <= self._ctx.now_ns:
                self._learn(self._reports.popleft())
            return
        order = self._orders.get(int(number))
        if order is None:
            return
        if what == "arrive":
            self._arrive(order)
        elif what == "cancel":
            # Where nothing rests it was too late, or overtook the order by a latency that became shorter: it may be asked for again.
            order.cancelling = self._end(order.symbol, order.id, "cancelled", "as asked")
        else:
            self._move(order, self._moves.pop(order.id))

    def on_market(self, symbol: str) -> None:
        """A message of a symbol with resting orders was taken."""
        found = self._market(symbol)
        book = self._books.get(symbol)
        if found is None or book is None:
            return
        if found[1] is BookState.LIVE:
            self._match(symbol, found[0], book.on_message(found[0], self._ctx.now_ns))
        else:
            book.pass_over(found[0])

    def on_broken(self, symbol: str) -> None:
        """The book of a symbol is no longer proven: its resting orders end."""
        book = self._books.get(symbol)
        for order in list(book.orders) if book is not None else []:
            self._end(symbol, order, "cancelled", "the book it rested in broke")
        if book is not None:
            book.clear()
        self._settle(symbol)

    def on_session(self) -> None:
        """A source began anew: every order ends, and whatever was on its way is lost."""
        while self._reports:
            self._learn(self._reports.popleft())
        self._books.clear()
        self.resting.clear()
        for order in list(self._orders.values()):
            self._learn(_Report(order.id, state="cancelled", reason="a session began"))

    def on_steps(self, symbol: str, by_price: int, by_lot: int) -> None:
        """Tick or lot of a symbol became finer: count everything in the new steps."""
        book = self._books.get(symbol)
        if book is not None:
            try:
                book.refine(by_price, by_lot)
            except ValueError:  # Steps so fine are nothing that is traded in.
                self.on_broken(symbol)
        of_symbol = {order.id for order in self._orders.values() if order.symbol == symbol}
        self._moves = {order: ticks * by_price if order in of_symbol else ticks for order, ticks in self._moves.items()}
        for report in self._reports:
            if report.order in of_symbol:
                report.fill = None if report.fill is None else _in_steps(report.fill, by_price, by_lot)
                report.ticks = None if report.ticks is None else report.ticks * by_price
        for order in (*self._orders.values(), *self._ended):
            if order.symbol == symbol:
                order.ticks *= by_price
                order.lots *= by_lot
                order.filled_lots *= by_lot
                order.shares = {decision: lots * by_lot for decision, lots in order.shares.items()}
                order.met_mid = None if order.met_mid is None else order.met_mid * by_price
        told = (_in_steps(fill, by_price, by_lot) if fill.symbol == symbol else fill for fill in self._fills)
        self._fills = deque(told, FILLS_KEPT)

    # Inside

    def _there_ns(self) -> int:
        """From the sender to the book that the engine will have seen when the order is there."""
        settings = self._ctx.settings.execution
        return round((settings.order_latency_ms + settings.feed_latency_ms) * NANOS_PER_MS)

    def _back_ns(self) -> int:
        settings = self._ctx.settings.execution
        return max(0, round((settings.ack_latency_ms - settings.feed_latency_ms) * NANOS_PER_MS))

    def _arrive(self, order: Order) -> None:
        found = self._market(order.symbol)
        state = found[1] if found is not None else None
        if found is None or state is not BookState.LIVE:
            said = state.name if state is not None else "not there"
            self._report(_Report(order.id, state="rejected", reason=f"expected a LIVE book, found it {said}"))
            return
        book = found[0]
        paper = self._books.get(order.symbol)
        if paper is None:
            paper = self._books[order.symbol] = PaperBook(self._ctx.settings.execution.queue)
        if self._place(order, paper, book, order.ticks, order.lots, "rejected"):
            self._report(_Report(order.id, state="working"))

    def _place(self, order: Order, paper: PaperBook, book: FeatureBook, ticks: int, lots: int, refused: OrderState) -> bool:
        """Let an order, or what is left of it, meet the book; ``refused`` is what becomes of one that is not taken. Tell if it rests."""
        order.met_mid = mid_half_ticks(book)
        try:
            if max(lots, ticks) > LOTS_MAX:  # Counted in steps that became finer meanwhile.
                raise ValueError(f"expected lots and ticks of at most 2**52, found {lots} and {ticks}")
            self._check_sale(order, book, lots)
            matches = paper.place(
                book,
                self._ctx.now_ns,
                order.id,
                order.side * ticks,
                lots,
                immediate=order.kind == "immediate",
                post_only=order.kind == "post_only",
            )
        except (Refused, ValueError) as error:
            self._settle(order.symbol)
            self._report(_Report(order.id, state=refused, reason=str(error)))
            return False
        self._match(order.symbol, book, matches)
        self._settle(order.symbol)
        rests = order.id in paper.orders
        if not rests and sum(match.lots for match in matches) < lots:
            self._report(_Report(order.id, state="cancelled", reason="what was displayed within its limit is filled"))
        return rests

    def _move(self, order: Order, ticks: int) -> None:
        paper, found = self._books.get(order.symbol), self._market(order.symbol)
        if paper is None or found is None or found[1] is not BookState.LIVE:
            return
        left = paper.cancel(order.id)
        if left:
            self._report(_Report(order.id, state="working", ticks=ticks))
            self._place(order, paper, found[0], ticks, left, "cancelled")

    def _check_sale(self, order: Order, book: FeatureBook, lots: int) -> None:
        """Raise ``ValueError`` where a sale may come to more money than can be counted; a purchase is bounded by its limit."""
        bid, _ = book.best()
        terms = self._terms(order.symbol)
        if order.side < 0 and bid is not None and terms is not None:
            worth(bid, lots, terms.tick, terms.lot)

    def _end(self, symbol: str, order: int, state: OrderState, reason: str) -> bool:
        """Take an order out of its book, and tell; False where it does not rest there."""
        paper = self._books.get(symbol)
        if paper is None or not paper.cancel(order):
            return False
        self._settle(symbol)
        self._report(_Report(order, state=state, reason=reason))
        return True

    def _settle(self, symbol: str) -> None:
        paper = self._books.get(symbol)
        if paper is not None and len(paper):
            self.resting.add(symbol)
        else:
            self.resting.discard(symbol)

    def _match(self, symbol: str, book: FeatureBook, matches: list[Match]) -> None:
        """Make fills of matches: their value, fee and charge, and the news of them."""
        if not matches:
            return
        terms = self._terms(symbol)
        assert terms is not None, "orders are of known symbols"
        mid, top = mid_half_ticks(book), book.best()
        shift = self._shift_bps(symbol)
        taken = 0
        for match in matches:
            order = self._orders[match.order]
            value = worth(match.ticks, match.lots, terms.tick, terms.lot)
            self._fills_n += 1
            fill = Fill(
                self._fills_n,
                order.id,
                symbol,
                order.side,
                match.ticks,
                match.lots,
                match.maker,
                match.cause,
                self._ctx.now_ns,
                value,
                fee(value, terms.maker_fee_bps if match.maker else terms.taker_fee_bps),
                # Only what hurts: own buying makes buying dearer, and no price for selling better that nobody could have had.
                fee(value, min(SHIFT_BPS_MAX, max(0.0, order.side * shift))),
                match.available,
                mid,
                top[1] if order.side > 0 else top[0],
                order.met_mid,
            )
            taken += 0 if match.maker else order.side * match.lots
            self._report(_Report(order.id, fill))
        if taken:
            self._push(symbol, taken)
        self._settle(symbol)

    def _shift_bps(self, symbol: str) -> float:
        shift = self._shifts.get(symbol)
        if shift is None or not self._ctx.settings.execution.self_impact:
            return 0.0
        return shift.at(self._ctx.now_ns / 1e9)

    def _push(self, symbol: str, taken: int) -> None:
        """Let what was taken shift the price of later fills."""
        known = self._impact(symbol)
        if known is None or not self._ctx.settings.execution.self_impact:
            return
        impact, day_lots = known
        now_s = self._ctx.now_ns / 1e9
        before = self._shifts.get(symbol) or Shift(now_s)
        share = max(-SHARE_MAX, min(SHARE_MAX, taken / day_lots))
        self._shifts[symbol] = before.after(now_s, share, impact.k, impact.a)

    def _report(self, report: _Report) -> None:
        delay_ns = self._back_ns()
        if delay_ns or self._reports:
            report.due_ns = self._ctx.now_ns + delay_ns
            self._reports.append(report)
            self._ctx.after(delay_ns, TIMER, "report")
        else:
            self._learn(report)

    def _learn(self, report: _Report) -> None:
        """The sender learns of it."""
        order = self._orders.get(report.order)
        if order is None:
            return
        fill = report.fill
        if fill is not None:
            order.filled_lots += fill.lots
            order.value += fill.value
            order.fees += fill.fee
            order.impact += fill.impact
            self._fills.append(fill)
            self._ctx.emit(_filled(fill))
            if self.listener is not None:
                self.listener.on_fill(order, fill)
        if order.filled_lots == order.lots:
            order.state, order.reason = "filled", ""
        elif report.state is not None:
            order.state, order.reason = report.state, report.reason
        order.ticks = report.ticks or order.ticks
        if fill is None or not order.is_open:
            self._tell(order)
        if not order.is_open:
            order.ended_ns = self._ctx.now_ns
            del self._orders[order.id]
            self._moves.pop(order.id, None)
            if len(self._ended) == ORDERS_KEPT:
                self._by_client.pop(self._ended[0].client_id, None)
            self._ended.append(order)
            if self.listener is not None:
                self.listener.on_ended(order)

    def _tell(self, order: Order) -> None:
        self._ctx.emit(
            OrderChanged(
                order.id,
                order.client_id,
                order.symbol,
                side_of(order.side),
                order.kind,
                order.ticks,
                order.lots,
                order.filled_lots,
                order.state,
                order.reason,
                order.shares,
            )
        )

    # State

    def save(self) -> list[memoryview]:
        """Return orders and fills, then the paper book of each symbol."""
        books = list(self._books.items())
        saved = _Saved(
            1,
            self._orders_n,
            self._fills_n,
            self._orders,
            list(self._ended),
            list(self._fills),
            list(self._reports),
            self._moves,
            self._shifts,
            [symbol for symbol, _ in books],
        )
        # JSON, for lots in finer steps may outgrow 64 bits.
        return [memoryview(msgspec.json.encode(saved)), *(memoryview(book.save()) for _, book in books)]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.json.decode(pieces[0], type=_Saved)
        self._orders_n, self._fills_n, self._orders = saved.orders_n, saved.fills_n, saved.orders
        self._moves, self._shifts = saved.moves, saved.shifts
        self._ended, self._fills = deque(saved.ended, ORDERS_KEPT), deque(saved.fills, FILLS_KEPT)
        self._reports = deque(saved.reports)
        self._by_client = {order.client_id: order.id for order in (*self._ended, *self._orders.values())}
        self._books = {}
        for symbol, piece in zip(saved.books, pieces[1:], strict=True):
            self._books[symbol] = PaperBook()
            self._books[symbol].load(piece)
        self.resting = {symbol for symbol, book in self._books.items() if len(book)}


def mid_half_ticks(book: FeatureBook) -> int | None:
    """Return the mid of a book in half ticks; None where a side is empty."""
    bid, ask = book.best()
    return bid + ask if bid is not None and ask is not None else None


def _in_steps(fill: Fill, by_price: int, by_lot: int) -> Fill:
    """Return a fill in finer steps."""
    return msgspec.structs.replace(
        fill,
        ticks=fill.ticks * by_price,
        lots=fill.lots * by_lot,
        available_lots=fill.available_lots * by_lot,
        mid=None if fill.mid is None else fill.mid * by_price,
        best=None if fill.best is None else fill.best * by_price,
        met_mid=None if fill.met_mid is None else fill.met_mid * by_price,
    )


def _filled(fill: Fill) -> Filled:
    return Filled(
        fill.id,
        fill.order,
        fill.symbol,
        side_of(fill.side),
        fill.ticks,
        fill.lots,
        fill.maker,
        fill.cause,
        fill.exchange_ns,
        fill.value,
        fill.fee,
        fill.impact,
        fill.available_lots,
    )
