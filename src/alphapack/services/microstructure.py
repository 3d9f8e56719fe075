"""Books that are proven continuous, and the features that only such books may feed.

    SYNCING -> LIVE <-> STALE
       ^         |        |
       +-- CORRUPT <------+

A book is LIVE once a snapshot and the differences since it link up by the venue's rule. Silence makes it STALE: its last
values are frozen until a difference that links shows that nothing was missed. A gap, a crossed book or a ticker of the
same update that disagrees makes it CORRUPT, which drops it and asks for a new snapshot at once.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.domain import readings
from alphapack.domain.context import Context
from alphapack.domain.events import (
    BookStateChanged,
    DepthDiff,
    DepthSnapshot,
    FrameError,
    InstrumentChanged,
    TopOfBook,
    Trade,
    WireEvent,
)
from alphapack.domain.inputs import CoreSettings, InstrumentSettings
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S, BookState, Step, Verdict, name_of, venue_of
from alphapack.kernels import flow
from alphapack.models.book import FEATURES, CrossedBook, FeatureBook

TICK_NS = 100 * NANOS_PER_MS
"""How often silence is looked for; also the spacing of heartbeats."""
HISTORY_NS = NANOS_PER_S
TICKERS_MAX = 4_096
BUFFER_BYTES_MAX = 1 << 26
"""Bytes of differences that wait for one symbol's snapshot."""
TRADE_ID_JUMP_MAX = 10**9
"""No venue skips so many trades: one absurd id must not make duplicates of all that follow."""
SNAPSHOT = "snapshot"
"""Work requested of the shell: fetch a symbol's REST snapshot and submit it as a frame."""

Judge = Callable[[DepthDiff, int, bool], Verdict]
"""A venue's continuity rule: difference, last update id of the book, whether it is the first after a snapshot."""

HISTORY = ("mid", "spread_bps", "obi", "ti", "micro_vol", "cancel_rate", "queue_rate", "microprice", "depth_bid", "depth_ask")
_HISTORY_COLUMNS = [FEATURES.index(name) for name in HISTORY]


class _Facts(msgspec.Struct):
    """All of one symbol's state that is not in its arrays."""

    symbol: str
    state: BookState = BookState.SYNCING
    has_snapshot: bool = False
    last_update: int = 0
    depth_ns: int | None = None
    """Engine time of the last depth message that told something new."""
    frozen_ns: int = 0
    """Engine time of the frozen values of a STALE book."""
    lag_ns: int | None = None
    buffer: list[DepthDiff] = []
    buffer_bytes: int = 0
    spare: DepthSnapshot | None = None
    """Newest snapshot that came while the book needed none: the next one may never be sent."""
    tickers: list[TopOfBook] = []
    """Tickers of updates that the book has not reached; depth may be sent at a tenth of their pace."""
    plain_trades: bool = False
    """Single trades have been seen, so aggregates say nothing new."""
    trade_id: int = -1
    messages: int = 0
    gaps: int = 0
    crossed: int = 0
    resyncs: int = 0
    duplicates: int = 0
    ticker_checked: int = 0
    ticker_mismatched: int = 0
    rejected: int = 0
    history_at: int = 0
    """Rows ever written to the history; the ring holds the newest of them."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    facts: list[_Facts]
    books: list[bytes]
    stated: list[InstrumentSettings]
    rows: list[bytes]
    history: list[bytes]


class Market:
    """One symbol: its book, what is proven of it, and its recent past."""

    def __init__(self, symbol: str, book: FeatureBook, stated: InstrumentSettings, history_rows: int) -> None:
        self.facts = _Facts(symbol)
        self.book = book
        self.stated = stated
        self.row: Float64Array1D = np.full(flow.FEATURES, np.nan)
        """Features when they were last computed; frozen while STALE, NaN while nothing is proven."""
        self.history: Float64Array2D = np.full((history_rows, 1 + len(HISTORY)), np.nan)
        """Ring of noted features, a column each, after a column of times in milliseconds."""

    def past(self) -> Float64Array2D:
        """Return the noted features, oldest first."""
        at, size = self.facts.history_at, len(self.history)
        return self.history[np.arange(max(0, at - size), at) % size]

    def keep(self, history_rows: int, past: Float64Array2D | None = None) -> None:
        """Make the history's ring ``history_rows`` long and put the newest of ``past`` (by default its own) into it."""
        if past is None and history_rows == len(self.history):
            return
        rows = (self.past() if past is None else past)[-history_rows:]
        self.history = np.full((history_rows, 1 + len(HISTORY)), np.nan)
        self.history[np.arange(self.facts.history_at - len(rows), self.facts.history_at) % history_rows] = rows


class Microstructure:
    """Owns every book, from the frames' events to the answers of the API."""

    def __init__(self, ctx: Context, judges: Mapping[str, Judge], contract_values: Mapping[str, Callable[[str], float | None]]) -> None:
        self._ctx = ctx
        self._judges = judges
        self._contract_values = contract_values
        self._markets: dict[str, Market] = {}
        self._stated: dict[str, InstrumentSettings] = {}
        self._wanted: frozenset[str] = frozenset()
        self._handlers: dict[type, Callable[[Market, Any], None]] = {
            DepthDiff: self._on_diff,
            Trade: self._on_trade,
            TopOfBook: self._on_ticker,
            DepthSnapshot: self._on_snapshot,
        }
        self.touched: Market | None = None
        """The market that the last frame was about."""

    # Inputs

    def on_configure(self, settings: CoreSettings) -> None:
        """Take the settings of the core. What is known of books stays; what is stated of instruments is for those met from now on."""
        self._wanted = frozenset(settings.symbols)
        self._stated = {one.symbol: one for one in settings.instruments}
        for market in self._markets.values():
            market.keep(settings.history_rows)

    def on_session(self) -> None:
        """A source began anew: nothing is known of what passed in between, until a difference links up."""
        for market in self._markets.values():
            market.facts.plain_trades, market.facts.trade_id = False, -1
            if market.facts.state is BookState.LIVE:
                self._freeze(market, "a session began")

    def on_shed(self, symbol: str, frames: int) -> None:
        """Frames of a symbol were given up before the journal."""
        market = self._markets.get(symbol)
        if market is not None:
            self._resync(market, f"{frames} frames were shed under overload")

    def on_rejected(self, symbol: str) -> None:
        """Count a frame that could not be used, where its symbol is known."""
        market = self._markets.get(symbol)
        if market is not None:
            market.facts.rejected += 1

    def on_tick(self) -> None:
        """Every 100 ms of engine time: look for silence; once a second, note the features."""
        now = self._ctx.now_ns
        silence_ns = self._ctx.settings.stale_after_ms * NANOS_PER_MS
        sample = now % HISTORY_NS == 0
        for market in self._markets.values():
            facts = market.facts
            if facts.state is BookState.LIVE and facts.depth_ns is not None and now - facts.depth_ns >= silence_ns:
                self._freeze(market, f"no depth message for {(now - facts.depth_ns) // NANOS_PER_MS} ms")
            if sample and facts.state is BookState.LIVE:
                self._note(market, now)

    def on_event(self, event: WireEvent) -> None:
        """Handle what a codec read: find the market, apply, and let the digest see the features that follow."""
        self.touched = None
        market = self._markets.get(event.symbol) or self._admit(event)
        if market is None:
            return
        self.touched = market
        facts = market.facts
        facts.messages += 1
        if event.venue_ns:
            facts.lag_ns = self._ctx.now_ns - event.venue_ns
        tick, lot = market.book.tick, market.book.lot
        try:
            handle = self._handlers.get(type(event))
            if handle is not None:
                handle(market, event)
        except FrameError:
            facts.rejected += 1
            raise
        finally:
            if market.book.tick is not tick or market.book.lot is not lot:
                self._tell_steps(market, (tick, lot))
            # A ticker moves no window, and the digest has its bytes: features after it are computed for those who ask.
            if facts.state is BookState.LIVE and type(event) is not TopOfBook:
                self._ctx.observe(self.features(market).tobytes())

    def features(self, market: Market) -> Float64Array1D:
        """Return the row of a market now: frozen while STALE, NaN while nothing is proven; it is reused by the next call."""
        if market.facts.state is BookState.LIVE:
            market.book.features(self._ctx.now_ns, market.row)
        return market.row

    # Books

    def _admit(self, event: WireEvent) -> Market | None:
        """Begin to follow a symbol, if it is one to follow."""
        if type(event) not in self._handlers:
            return None
        symbol, settings = event.symbol, self._ctx.settings
        if self._wanted and symbol not in self._wanted:
            return None
        if len(self._markets) >= settings.symbols_max:
            raise FrameError(f"expected at most {settings.symbols_max} symbols (core.symbols_max), found one more: {symbol}")
        market = self._markets[symbol] = self._market(symbol)
        self._ctx.request(SNAPSHOT, symbol.encode())
        return market

    def _market(self, symbol: str) -> Market:
        """Return a market with nothing in it but what is stated of its instrument."""
        stated = self._stated.get(symbol) or InstrumentSettings(symbol)
        tick = Step.parse(stated.tick) if stated.tick else None
        lot = Step.parse(stated.lot) if stated.lot else None
        contract = stated.contract_value or self._contract_values[venue_of(symbol)](name_of(symbol))
        return Market(symbol, FeatureBook(tick, lot, contract), stated, self._ctx.settings.history_rows)

    def _on_diff(self, market: Market, diff: DepthDiff) -> None:
        facts, now = market.facts, self._ctx.now_ns
        if facts.state is BookState.SYNCING:
            facts.depth_ns = now
            self._wait(market, diff)
            return
        verdict = self._judges[venue_of(facts.symbol)](diff, facts.last_update, False)
        silence_ns = now - (facts.depth_ns or now)
        if verdict is Verdict.DUPLICATE:
            facts.duplicates += 1
            if facts.state is BookState.STALE and silence_ns >= 2 * self._ctx.settings.stale_after_ms * NANOS_PER_MS:
                facts.spare = None
                self._resync(market, f"nothing but updates at or before {facts.last_update} for {silence_ns // NANOS_PER_MS} ms")
                self._wait(market, diff)
        elif verdict is Verdict.GAP:
            facts.gaps += 1
            self._resync(market, f"update {diff.first}..{diff.last} (previous {diff.previous}) does not follow {facts.last_update}")
            spare, facts.spare, facts.depth_ns = facts.spare, None, now
            self._wait(market, diff)
            if spare is not None:
                self._on_snapshot(market, spare)
        elif self._apply(market, diff):
            if facts.state is BookState.STALE:
                self._go_live(market, "a difference that links up ended the silence")
            self._compare_at(market, diff.last)

    def _wait(self, market: Market, diff: DepthDiff) -> None:
        """Keep a difference until a snapshot links up with it."""
        facts = market.facts
        facts.buffer.append(diff)
        facts.buffer_bytes += len(diff.bids) + len(diff.asks)
        if facts.has_snapshot:
            self._link(market)
        elif len(facts.buffer) > self._ctx.settings.sync_buffer_frames or facts.buffer_bytes > BUFFER_BYTES_MAX:
            del facts.buffer[: (len(facts.buffer) + 1) // 2]
            facts.buffer_bytes = sum(len(one.bids) + len(one.asks) for one in facts.buffer)
            self._ctx.request(SNAPSHOT, facts.symbol.encode())

    def _on_ticker(self, market: Market, ticker: TopOfBook) -> None:
        facts = market.facts
        if facts.state in (BookState.LIVE, BookState.STALE) and ticker.update <= facts.last_update:
            if ticker.update == facts.last_update:
                self._compare(market, ticker)
            return
        facts.tickers.append(ticker)
        if len(facts.tickers) > TICKERS_MAX:
            del facts.tickers[: TICKERS_MAX // 2]

    def _on_snapshot(self, market: Market, snapshot: DepthSnapshot) -> None:
        facts = market.facts
        if facts.state is not BookState.SYNCING:  # A book that is proven needs none, but may break before the next is sent.
            if snapshot.last >= facts.last_update:
                facts.spare = snapshot
            return
        facts.has_snapshot = False  # Whatever becomes of this one, the book before it is gone.
        try:
            market.book.snapshot(snapshot.bids, snapshot.asks)
        except (CrossedBook, FrameError) as error:
            self._ctx.request(SNAPSHOT, facts.symbol.encode())
            if isinstance(error, FrameError):
                raise
            facts.crossed += 1
            raise FrameError(f"expected a snapshot that is not crossed: {error}") from None
        facts.has_snapshot, facts.last_update, facts.depth_ns = True, snapshot.last, self._ctx.now_ns
        self._link(market)

    def _link(self, market: Market) -> None:
        """Judge the buffered differences against the snapshot; the first that links makes the book LIVE."""
        facts = market.facts
        judge = self._judges[venue_of(facts.symbol)]
        linked = False
        waiting, facts.buffer, facts.buffer_bytes = facts.buffer, [], 0
        for i, diff in enumerate(waiting):
            verdict = judge(diff, facts.last_update, not linked)
            if verdict is Verdict.GAP:
                if linked:
                    facts.gaps += 1
                self._drop_book(market)  # The snapshot is older than what is buffered, or that has a hole itself.
                facts.buffer = waiting[i:]
                facts.buffer_bytes = sum(len(one.bids) + len(one.asks) for one in facts.buffer)
                self._ctx.request(SNAPSHOT, facts.symbol.encode())
                return
            if verdict is Verdict.APPLY:
                if not self._apply(market, diff):
                    return
                market.book.forget()
                linked = True
        if linked:
            self._go_live(market, f"snapshot and differences link up at update {facts.last_update}")
            self._compare_at(market, facts.last_update)

    def _apply(self, market: Market, diff: DepthDiff) -> bool:
        """Fold a difference into the book; False where that showed the book to be wrong."""
        book, facts = market.book, market.facts
        try:
            book.diff(self._ctx.now_ns, diff.bids, diff.asks)
        except CrossedBook as error:
            facts.crossed += 1
            self._resync(market, str(error))
            return False
        except FrameError as error:
            self._resync(market, f"an unreadable difference: {error}")
            raise
        facts.last_update, facts.depth_ns = diff.last, self._ctx.now_ns
        if facts.spare is not None and facts.spare.last < diff.last:
            facts.spare = None
        return True

    def _compare_at(self, market: Market, update: int) -> None:
        """Compare with the ticker of this update if it came before, and forget those that the book has passed."""
        facts = market.facts
        if facts.tickers:
            same = [ticker for ticker in facts.tickers if ticker.update == update]
            facts.tickers = [ticker for ticker in facts.tickers if ticker.update > update]
            try:
                if same:
                    self._compare(market, same[-1])
            except FrameError:  # The ticker's fault, long ago: not one of the difference that is in hand.
                facts.rejected += 1

    def _compare(self, market: Market, ticker: TopOfBook) -> None:
        """Hold the book's top against the venue's own ticker of the same update."""
        book, facts = market.book, market.facts
        book.roll(self._ctx.now_ns)
        bid, ask = (book.ticks(ticker.bid), book.lots(ticker.bid_quantity)), (book.ticks(ticker.ask), book.lots(ticker.ask_quantity))
        stated = bid if bid[1] else None, ask if ask[1] else None  # Zeros stand for a side without orders.
        facts.ticker_checked += 1
        if stated != book.top():
            facts.ticker_mismatched += 1
            self._resync(market, f"at update {ticker.update} the venue's top is {stated}, the book's {book.top()} (ticks, lots)")

    def _on_trade(self, market: Market, trade: Trade) -> None:
        """Take a trade of the symbol's one trade stream: single trades, or aggregates where there are no single ones."""
        facts = market.facts
        if trade.aggregate and facts.plain_trades:
            return
        if facts.trade_id >= 0 and trade.last_id > facts.trade_id + TRADE_ID_JUMP_MAX:
            raise FrameError(f"expected a trade id near {facts.trade_id}, found {trade.last_id}")
        if not trade.aggregate:
            facts.plain_trades = True
        if trade.last_id <= facts.trade_id:
            facts.duplicates += 1
            return
        if facts.state is BookState.LIVE:
            market.book.trade(self._ctx.now_ns, trade.price, trade.quantity, buyer_is_taker=trade.buyer_is_taker)
        facts.trade_id = trade.last_id

    # States

    def _change(self, market: Market, state: BookState, reason: str) -> None:
        before, market.facts.state = market.facts.state, state
        self._ctx.emit(BookStateChanged(market.facts.symbol, before, state, reason))

    def _go_live(self, market: Market, reason: str) -> None:
        market.book.start(self._ctx.now_ns)
        self._change(market, BookState.LIVE, reason)

    def _freeze(self, market: Market, reason: str) -> None:
        self.features(market)
        market.facts.frozen_ns = self._ctx.now_ns
        self._change(market, BookState.STALE, reason)

    def _resync(self, market: Market, reason: str) -> None:
        if market.facts.state is not BookState.SYNCING:
            self._change(market, BookState.CORRUPT, reason)
            self._change(market, BookState.SYNCING, "a new snapshot is needed")
        market.facts.resyncs += 1
        market.facts.buffer, market.facts.buffer_bytes = [], 0
        self._drop_book(market)
        self._ctx.request(SNAPSHOT, market.facts.symbol.encode())

    def _drop_book(self, market: Market) -> None:
        market.facts.has_snapshot = False
        market.book.clear()
        market.row[:] = np.nan

    def _tell_steps(self, market: Market, before: tuple[Step | None, Step | None]) -> None:
        book = market.book
        if (book.tick, book.lot) != before:
            self._ctx.emit(InstrumentChanged(market.facts.symbol, str(book.tick or ""), str(book.lot or "")))

    def _note(self, market: Market, now_ns: int) -> None:
        at = market.facts.history_at % len(market.history)
        market.history[at, 0] = now_ns // NANOS_PER_MS
        market.history[at, 1:] = self.features(market)[_HISTORY_COLUMNS]
        market.facts.history_at += 1

    # Answers

    def symbols(self) -> list[str]:
        """Return every symbol met, in order of name."""
        return sorted(self._markets)

    def info(self, symbol: str) -> readings.SymbolInfo:
        """Return what is known about an instrument."""
        market = self._markets[symbol]
        book, stated = market.book, market.stated
        return readings.SymbolInfo(
            symbol=name_of(symbol),
            venue=venue_of(symbol),
            state=market.facts.state.name,
            tick=book.tick.number(1) if book.tick else None,
            lot=book.lot.number(1) if book.lot else None,
            min_notional=stated.min_notional,
            contract_value=float(book.contract) if book.contract else None,
            has_options=False,
        )

    def health(self, symbol: str) -> readings.SymbolHealth:
        """Return how well a symbol's data holds together."""
        facts = self._markets[symbol].facts
        return readings.SymbolHealth(
            state=facts.state.name,
            age_ms=self._age_ms(facts),
            lag_ms=None if facts.lag_ns is None else facts.lag_ns / NANOS_PER_MS,
            messages=facts.messages,
            gaps=facts.gaps,
            crossed=facts.crossed,
            resyncs=facts.resyncs,
            duplicates=facts.duplicates,
            ticker_checked=facts.ticker_checked,
            ticker_mismatched=facts.ticker_mismatched,
            rejected=facts.rejected,
        )

    def microstructure(self, symbol: str) -> readings.Microstructure | None:
        """Return the features now, the frozen ones of a STALE book, or None while nothing is proven."""
        market = self._markets[symbol]
        facts = market.facts
        if facts.state not in (BookState.LIVE, BookState.STALE):
            return None
        live = facts.state is BookState.LIVE
        value = dict(zip(FEATURES, (None if x != x else x for x in self.features(market).tolist()), strict=True))
        sizes = (value[name] or 0.0 for name in ("depth_bid", "depth_ask", "depth_bid_quote", "depth_ask_quote"))
        return readings.Microstructure(
            symbol=name_of(symbol),
            venue=venue_of(symbol),
            ts_ms=(self._ctx.now_ns if live else facts.frozen_ns) // NANOS_PER_MS,
            age_ms=self._age_ms(facts) or 0,
            state=facts.state.name,
            seq=self._ctx.seq,
            bid=value["bid"],
            ask=value["ask"],
            mid=value["mid"],
            microprice=value["microprice"],
            spread_bps=value["spread_bps"],
            obi=value["obi"],
            obi_k=flow.K,
            ti=value["ti"],
            ti_n=int(value["ti_n"] or 0),
            micro_vol=value["micro_vol"],
            cancel_rate=value["cancel_rate"],
            cancel_n=int(value["cancel_n"] or 0),
            queue_rate=value["queue_rate"],
            depth=readings.Depth(*sizes),
            windows=readings.Windows(value["obi_1"], value["obi_10"], value["ti_1s"], value["ti_30s"], value["micro_vol_1s"]),
        )

    def book(self, symbol: str, depth: int) -> readings.Book | None:
        """Return the best levels, or None while nothing is proven."""
        market = self._markets[symbol]
        facts = market.facts
        if facts.state not in (BookState.LIVE, BookState.STALE):
            return None
        return readings.Book(
            symbol=name_of(symbol),
            venue=venue_of(symbol),
            ts_ms=(facts.depth_ns or 0) // NANOS_PER_MS,
            seq=self._ctx.seq,
            age_ms=self._age_ms(facts) or 0,
            state=facts.state.name,
            bids=market.book.side("bids", depth),
            asks=market.book.side("asks", depth),
        )

    def history(self, symbol: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]]:
        """Return the noted features by column, oldest first: the first ``limit`` rows at or after ``from_ms``."""
        rows = self._markets[symbol].past()
        rows = rows[rows[:, 0] >= from_ms][:limit]
        columns: dict[str, list[int] | list[float | None]] = {"ts_ms": [int(ts) for ts in rows[:, 0]]}
        for i, name in enumerate(HISTORY):
            columns[name] = [None if x != x else x for x in rows[:, 1 + i].tolist()]
        return columns

    def _age_ms(self, facts: _Facts) -> int | None:
        return None if facts.depth_ns is None else (self._ctx.now_ns - facts.depth_ns) // NANOS_PER_MS

    # State

    def save(self) -> bytes:
        """Return every book and all that is known of it."""
        markets = list(self._markets.values())
        frozen = [market.row.tobytes() if market.facts.state is BookState.STALE else b"" for market in markets]
        history = [market.past().tobytes() for market in markets]
        saved = _Saved(1, [m.facts for m in markets], [m.book.save() for m in markets], [m.stated for m in markets], frozen, history)
        return msgspec.msgpack.encode(saved)

    def load(self, state: bytes) -> None:
        """Replace everything by what ``save`` returned; the settings must have been given before."""
        saved = msgspec.msgpack.decode(state, type=_Saved)
        self._markets = {}
        for facts, book, stated, row, history in zip(saved.facts, saved.books, saved.stated, saved.rows, saved.history, strict=True):
            market = self._market(facts.symbol)
            market.facts, market.stated = facts, stated
            market.book.load(book)
            if row:
                market.row[:] = np.frombuffer(row)
            market.keep(self._ctx.settings.history_rows, np.frombuffer(history).reshape(-1, 1 + len(HISTORY)))
            self._markets[facts.symbol] = market
