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
    Listing,
    TopOfBook,
    Trade,
    TradesMissed,
    WireEvent,
    WorkFailed,
)
from alphapack.domain.inputs import CoreSettings, InstrumentSettings, Result
from alphapack.domain.market import NAME_WITHIN, NANOS_PER_MS, NANOS_PER_S, BookState, Step, Verdict, name_of, venue_of
from alphapack.models import book, microprice
from alphapack.models.book import FEATURES, CrossedBook, FeatureBook
from alphapack.models.candles import MINUTE_MS
from alphapack.models.history import History

TICK_NS = 100 * NANOS_PER_MS
"""How often silence is looked for; also the spacing of heartbeats."""
HISTORY_NS = NANOS_PER_S
FIT_NS = 60 * NANOS_PER_S
"""How often Stoikov's microprice is fitted anew, where the mid has moved often enough since."""
FIT_MOVES = 100
BUFFER_BYTES_MAX = 1 << 26
"""Bytes of differences that wait for one symbol's snapshot."""
SNAPSHOT = "snapshot"
"""Work requested of the shell: fetch a symbol's REST snapshot and submit it as a frame."""

MICROPRICE = "microprice"
"""Work requested of the shell: fit Stoikov's microprice to the transitions counted."""
REASON_LENGTH_MAX = 300

Judge = Callable[[DepthDiff, int, bool], Verdict]
"""A venue's continuity rule: difference, last update id of the book, whether it is the first after a snapshot."""

HISTORY = (
    *("mid", "spread_bps", "obi", "ti", "micro_vol", "cancel_rate", "queue_rate", "microprice", "depth_bid", "depth_ask"),
    *("ofi", "trade_rate", "vpin", "kyle_lambda"),
)
WINDOWS = ("obi_1", "obi_10", "ti_1s", "ti_30s", "micro_vol_1s", "ofi_1")
_HISTORY_COLUMNS = [FEATURES.index(name) for name in HISTORY]


class _Facts(msgspec.Struct):
    """All of one symbol's state that is not in its arrays."""

    symbol: str
    state: BookState = BookState.SYNCING
    has_snapshot: bool = False
    frozen_ns: int = 0
    """Engine time of the frozen values of a STALE book."""
    buffer: list[DepthDiff] = []
    buffer_bytes: int = 0
    spare: DepthSnapshot | None = None
    """Newest snapshot that came while the book needed none: the next one may never be sent."""
    snapshots: int = 0
    others: int = 0
    gaps: int = 0
    crossed: int = 0
    resyncs: int = 0
    duplicates: int = 0
    trades_missed: int = 0
    ticker_mismatched: int = 0
    rejected: int = 0
    fitted_moves: int = 0
    """Mid changes that had been counted when the microprice was last sent to be fitted."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    facts: list[_Facts]
    stated: list[InstrumentSettings]
    rows: list[bytes]
    written: list[int]
    """Rows of history ever written."""
    fits: dict[int, tuple[str, str]]
    listed: dict[str, InstrumentSettings]


class Market:
    """One symbol: its book, what is proven of it, and its recent past."""

    def __init__(self, symbol: str, book: FeatureBook, stated: InstrumentSettings, history_rows: int) -> None:
        self.facts = _Facts(symbol)
        self.book = book
        self.stated = stated
        self.history = History(HISTORY, history_rows)

    @property
    def row(self) -> Float64Array1D:
        """Features when they were last computed; frozen while STALE, NaN while nothing is proven."""
        return self.book.row


class Microstructure:
    """Owns every book, from the frames' events to the answers of the API."""

    def __init__(
        self,
        ctx: Context,
        judges: Mapping[str, Judge],
        contract_values: Mapping[str, Callable[[str], float | None]],
        frame_formats: Mapping[str, int],
    ) -> None:
        self._ctx = ctx
        self._judges = judges
        self._contract_values = contract_values
        self._frame_formats = frame_formats
        self._markets: dict[str, Market] = {}
        self._by_name: dict[str, dict[bytes, Market]] = {venue: {} for venue in frame_formats}
        """Of each venue, by the name in its frames."""
        self._fits: dict[int, tuple[str, str]] = {}
        """Fits that are awaited: symbol and tick of the counts, by request."""
        self._look_ns = 0
        """Before it no book can have been silent for long enough: a book that goes LIVE later has just had a message."""
        self._stated: dict[str, InstrumentSettings] = {}
        """What the user says of instruments."""
        self._listed: dict[str, InstrumentSettings] = {}
        """What their venues say of them."""
        self._wanted: frozenset[str] = frozenset()
        self._handlers: dict[type, Callable[[Market, Any], None]] = {
            DepthDiff: self._on_diff,
            Trade: self._on_trade,
            TopOfBook: self._on_ticker,
            DepthSnapshot: self._on_snapshot,
        }
        self.touched: Market | None = None
        """The market that the last frame was about."""
        self.minutes_closed: Callable[[str, Float64Array2D], None] = lambda symbol, rows: None
        """Told of the candles that a symbol's tape has closed, ``(ts_ms, open, high, low, close, volume)``, oldest first."""
        self.minutes_refuted: Callable[[str, int], None] = lambda symbol, from_ms: None
        """Told that trades of a symbol are missing: its tape's candles that open at or after this time are not whole."""
        self.broke: Callable[[str], None] = lambda symbol: None
        """Told of a symbol whose book was proven and is no longer."""
        self.refined: Callable[[str], None] = lambda symbol: None
        """Told of a symbol whose tick or lot has changed."""

    # Inputs

    def on_configure(self, settings: CoreSettings) -> None:
        """Take the settings of the core. What is known of books stays; what is stated of instruments is for those met from now on."""
        self._look_ns = 0
        self._wanted = frozenset(settings.symbols)
        self._stated = {one.symbol: one for one in settings.instruments}
        for market in self._markets.values():
            market.history.keep(settings.history_rows)

    def on_session(self) -> None:
        """A source began anew: nothing is known of what passed in between, until a difference links up."""
        for market in self._markets.values():
            market.book.plain_trades, market.book.trade_id, market.book.aggregate_id = False, -1, -1
            if market.facts.state is BookState.LIVE:
                self._freeze(market, "a session began")
            elif market.facts.state is BookState.SYNCING:  # Whoever was asked for a snapshot before is gone.
                self._ctx.request(SNAPSHOT, market.facts.symbol.encode())

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
            self._close_minutes(market)
        if now < self._look_ns and not sample:
            return
        self._look_ns = now + silence_ns
        for market in self._markets.values():
            facts, depth_ns = market.facts, market.book.depth_ns
            if facts.state is BookState.LIVE and depth_ns is not None and now - depth_ns >= silence_ns:
                self._freeze(market, f"no depth message for {(now - depth_ns) // NANOS_PER_MS} ms")
            elif facts.state is BookState.LIVE and depth_ns is not None:
                self._look_ns = min(self._look_ns, depth_ns + silence_ns)
            if sample and facts.state is BookState.LIVE:
                market.history.note(now // NANOS_PER_MS, self.features(market)[_HISTORY_COLUMNS])
            if now % FIT_NS == 0:
                self._request_fit(market)

    def _close_minutes(self, market: Market) -> None:
        rows = market.book.minutes(self._ctx.now_ns)
        if rows is not None:
            self._ctx.observe(rows.tobytes())
            self.minutes_closed(market.facts.symbol, rows)

    def on_result(self, result: Result) -> None:
        """Take a fitted microprice; one in ticks that are no longer the book's is of no use."""
        symbol, tick = self._fits.pop(result.request_id, ("", ""))
        market = self._markets.get(symbol)
        if market is None or tick != str(market.book.tick):
            return
        try:
            if not result.ok:
                raise ValueError(result.body.decode(errors="replace"))
            market.book.take_fit(microprice.decode_table(result.body).raw)
        except ValueError as error:
            self._ctx.emit(WorkFailed(result.request_id, MICROPRICE, symbol, str(error)[:REASON_LENGTH_MAX]))

    def on_frame(self, venue: str, payload: bytes) -> bool:
        """Take a frame in one kernel call, where it leaves no question; False: it is for the codec, and nothing has happened."""
        start = payload.find(b'"s":"', 0, NAME_WITHIN) + 5
        market = self._by_name[venue].get(payload[start : payload.find(b'"', start, start + NAME_WITHIN)])
        if market is None:
            return False
        status = market.book.frame(self._ctx.now_ns, payload)
        if status == book.DECLINED:
            return False
        self.touched = market
        if status == book.TAKEN:
            self._ctx.observe(market.book.row.tobytes())
        elif status != book.QUIET:
            self._on_fault(market, status)
        return True

    def on_event(self, event: WireEvent) -> None:
        """Handle what a codec read: find the market, apply, and let the digest see the features that follow."""
        self.touched = None
        if type(event) is Listing:
            self._on_listing(event)
            return
        market = self._markets.get(event.symbol) or self._admit(event)
        if market is None:
            return
        self.touched = market
        facts = market.facts
        self._count(market, event)
        if event.venue_ns:
            market.book.lag_ns = self._ctx.now_ns - event.venue_ns
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

    def _on_listing(self, listing: Listing) -> None:
        """Take what a venue says of an instrument. A book that was begun keeps its tick and lot, which may be finer."""
        symbol = listing.symbol
        if self._wanted and symbol not in self._wanted:
            return
        if symbol not in self._listed and len(self._listed) >= self._ctx.settings.symbols_max:
            return  # More instruments than may ever be followed.
        self._listed[symbol] = InstrumentSettings(
            symbol,
            tick=listing.tick,
            lot=listing.lot,
            min_notional=listing.min_notional,
            contract_value=listing.contract_value,
            maker_fee_bps=listing.maker_fee_bps,
            taker_fee_bps=listing.taker_fee_bps,
        )
        market = self._markets.get(symbol)
        if market is not None:
            market.stated = self._instrument(symbol)

    def features(self, market: Market) -> Float64Array1D:
        """Return the row of a market now: frozen while STALE, NaN while nothing is proven; it is reused by the next call."""
        if market.facts.state is BookState.LIVE:
            market.book.features(self._ctx.now_ns)
        return market.row

    def _count(self, market: Market, event: WireEvent) -> None:
        kind = type(event)
        if kind is Trade:
            market.book.count(book.AGGREGATE if event.aggregate else book.TRADE)  # type: ignore[attr-defined]
        elif kind is DepthDiff:
            market.book.count(book.DEPTH)
        elif kind is TopOfBook:
            market.book.count(book.TICKER)
        elif kind is DepthSnapshot:
            market.facts.snapshots += 1
        else:
            market.facts.others += 1

    def _request_fit(self, market: Market) -> None:
        """Have Stoikov's microprice fitted, once the mid has moved often enough since the last time."""
        facts, moves = market.facts, market.book.moves
        if moves < facts.fitted_moves:  # The tick became finer, and the counts began anew.
            facts.fitted_moves = 0
        awaited = any(symbol == facts.symbol for symbol, _ in self._fits.values())
        if moves - facts.fitted_moves >= FIT_MOVES and not awaited:
            facts.fitted_moves = moves
            request = self._ctx.request(MICROPRICE, microprice.encode_counts(*market.book.counts()))
            self._fits[request] = (facts.symbol, str(market.book.tick))

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
        market = self._market(symbol)
        self._ctx.request(SNAPSHOT, symbol.encode())
        return market

    def _market(self, symbol: str) -> Market:
        """Follow a symbol: a market with nothing in it but what is stated of its instrument."""
        stated = self._instrument(symbol)
        tick = Step.parse(stated.tick) if stated.tick else None
        lot = Step.parse(stated.lot) if stated.lot else None
        contract = stated.contract_value or self._contract_values[venue_of(symbol)](name_of(symbol))
        venue, name = venue_of(symbol), name_of(symbol)
        market = Market(symbol, FeatureBook(tick, lot, contract, stated.vpin_bucket), stated, self._ctx.settings.history_rows)
        market.book.listen(name, self._frame_formats[venue])
        self._markets[symbol] = self._by_name[venue][name.encode()] = market
        return market

    def _instrument(self, symbol: str) -> InstrumentSettings:
        """Return what is said of an instrument: by the user, else by its venue."""
        listed, stated = self._listed.get(symbol), self._stated.get(symbol)
        if listed is None or stated is None:
            return stated or listed or InstrumentSettings(symbol)
        said = {name: value for name, value in msgspec.structs.asdict(stated).items() if value is not None}
        return msgspec.structs.replace(listed, **said)

    def _on_diff(self, market: Market, diff: DepthDiff) -> None:
        facts, now, last_update = market.facts, self._ctx.now_ns, market.book.last_update
        if facts.state is BookState.SYNCING:
            market.book.depth_ns = now
            self._wait(market, diff)
            return
        verdict = self._judges[venue_of(facts.symbol)](diff, last_update, False)
        silence_ns = now - (market.book.depth_ns or now)
        if verdict is Verdict.DUPLICATE:
            facts.duplicates += 1
            if facts.state is BookState.STALE and silence_ns >= 2 * self._ctx.settings.stale_after_ms * NANOS_PER_MS:
                facts.spare = None
                self._resync(market, f"nothing but updates at or before {last_update} for {silence_ns // NANOS_PER_MS} ms")
                self._wait(market, diff)
        elif verdict is Verdict.GAP:
            facts.gaps += 1
            self._resync(market, f"update {diff.first}..{diff.last} (previous {diff.previous}) does not follow {last_update}")
            spare, facts.spare, market.book.depth_ns = facts.spare, None, now
            self._wait(market, diff)
            if spare is not None and spare.last >= last_update:
                self._on_snapshot(market, spare)
        elif self._apply(market, diff):
            if facts.state is BookState.STALE:
                self._go_live(market, "a difference that links up ended the silence")
            self._compare(market)

    def _wait(self, market: Market, diff: DepthDiff) -> None:
        """Keep a difference until a snapshot links up with it."""
        facts = market.facts
        while facts.buffer and facts.buffer[-1].first > diff.last:  # Ids never fall: one of the two is not what it says,
            facts.buffer_bytes -= len(facts.buffer[-1].bids) + len(facts.buffer[-1].asks)
            facts.buffer.pop()  # and an id far ahead would keep every snapshot from linking.
        facts.buffer.append(diff)
        facts.buffer_bytes += len(diff.bids) + len(diff.asks)
        if facts.has_snapshot:
            self._link(market)
        elif len(facts.buffer) > self._ctx.settings.sync_buffer_frames or facts.buffer_bytes > BUFFER_BYTES_MAX:
            del facts.buffer[: (len(facts.buffer) + 1) // 2]
            facts.buffer_bytes = sum(len(one.bids) + len(one.asks) for one in facts.buffer)
            self._ctx.request(SNAPSHOT, facts.symbol.encode())

    def _on_ticker(self, market: Market, ticker: TopOfBook) -> None:
        proven = market.facts.state in (BookState.LIVE, BookState.STALE)
        if proven and ticker.update < market.book.last_update:
            return
        market.book.hold_ticker(ticker.update, ticker.bid, ticker.bid_quantity, ticker.ask, ticker.ask_quantity)
        if proven:
            self._compare(market)

    def _on_snapshot(self, market: Market, snapshot: DepthSnapshot) -> None:
        facts = market.facts
        if facts.state is not BookState.SYNCING:  # A book that is proven needs none, but may break before the next is sent.
            if snapshot.last >= market.book.last_update:
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
        facts.has_snapshot, market.book.last_update, market.book.depth_ns = True, snapshot.last, self._ctx.now_ns
        self._link(market)

    def _link(self, market: Market) -> None:
        """Judge the buffered differences against the snapshot; the first that links makes the book LIVE."""
        facts = market.facts
        judge = self._judges[venue_of(facts.symbol)]
        linked = False
        waiting, facts.buffer, facts.buffer_bytes = facts.buffer, [], 0
        for i, diff in enumerate(waiting):
            verdict = judge(diff, market.book.last_update, not linked)
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
            self._go_live(market, f"snapshot and differences link up at update {market.book.last_update}")
            self._compare(market)

    def _apply(self, market: Market, diff: DepthDiff) -> bool:
        """Fold a difference into the book; False where that showed the book to be wrong."""
        facts = market.facts
        try:
            market.book.diff(self._ctx.now_ns, diff.bids, diff.asks)
        except CrossedBook as error:
            facts.crossed += 1
            self._resync(market, str(error))
            return False
        except FrameError as error:
            self._resync(market, f"an unreadable difference: {error}")
            raise
        market.book.last_update, market.book.depth_ns = diff.last, self._ctx.now_ns
        return True

    def _compare(self, market: Market) -> None:
        """Hold the book's top against the venue's own ticker of the same update."""
        fault = market.book.compare()
        if fault is not None:
            market.facts.ticker_mismatched += 1
            self._resync(market, fault)

    def _on_fault(self, market: Market, status: int) -> None:
        """Do what follows where a frame that the kernel took has shown the book to be wrong."""
        if status == book.CONTRADICTED:
            market.facts.ticker_mismatched += 1
        else:
            market.facts.crossed += 1
        self._resync(market, market.book.fault(status))

    def _on_trade(self, market: Market, trade: Trade) -> None:
        """Take a trade of the symbol's one trade stream: single trades, or aggregates where there are no single ones.

        Each is judged by the ids of its own stream: trades that are never aggregated have ids too.
        """
        facts, ids = market.facts, market.book
        if trade.aggregate and ids.plain_trades:
            return
        known, first, last = ids.trade_id, trade.first_id, trade.last_id
        if trade.aggregate:
            known, first, last = ids.aggregate_id, trade.aggregate_id, trade.aggregate_id
        if known >= 0 and max(last - known, trade.last_id - ids.trade_id) > book.TRADE_ID_JUMP_MAX:
            raise FrameError(f"expected a trade id near {ids.trade_id}, of an aggregate near {known}, found {trade.last_id} and {last}")
        if not trade.aggregate:
            ids.plain_trades = True
        if last <= known:
            facts.duplicates += 1
            return
        missed = trade.first_id - ids.trade_id - 1 if known >= 0 and first > known + 1 else 0
        if missed > 0:
            self._refute_minutes(market)
        if facts.state is BookState.LIVE:
            ids.trade(self._ctx.now_ns, trade.price, trade.quantity, buyer_is_taker=trade.buyer_is_taker, venue_ns=trade.venue_ns)
        if missed > 0:  # Told once: one that cannot be read is among those that are missed.
            facts.trades_missed += missed
            self._ctx.emit(TradesMissed(facts.symbol, ids.trade_id + 1, trade.first_id - 1))
        ids.trade_id = trade.last_id
        if trade.aggregate:
            ids.aggregate_id = trade.aggregate_id

    def _refute_minutes(self, market: Market) -> None:
        """Trades after the last one were missed: no minute from its own on is whole, and the next trade's is not either."""
        self._close_minutes(market)
        market.book.cut_tape()
        traded_ns = market.book.traded_ns
        if traded_ns is not None:
            self.minutes_refuted(market.facts.symbol, traded_ns // NANOS_PER_MS // MINUTE_MS * MINUTE_MS)

    # States

    def _change(self, market: Market, state: BookState, reason: str) -> None:
        before, market.facts.state = market.facts.state, state
        market.book.live = state is BookState.LIVE
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
            self.broke(market.facts.symbol)
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
            self.refined(market.facts.symbol)

    # Answers

    def symbols(self) -> list[str]:
        """Return every symbol met, in order of name."""
        return sorted(self._markets)

    def knows(self, symbol: str) -> bool:
        """Tell whether there is a book of a symbol, proven or not."""
        return symbol in self._markets

    def market(self, symbol: str) -> tuple[FeatureBook, BookState] | None:
        """Return the book of a symbol and what is proven of it; it is not to be written to."""
        market = self._markets.get(symbol)
        return (market.book, market.facts.state) if market is not None else None

    def live(self) -> list[tuple[str, FeatureBook]]:
        """Return the LIVE books with their symbols, in order of name; they are not to be written to."""
        return [(name, one.book) for name, one in sorted(self._markets.items()) if one.facts.state is BookState.LIVE]

    def instrument(self, symbol: str) -> InstrumentSettings:
        """Return what is stated of an instrument, by the user or by its venue."""
        return self._markets[symbol].stated

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
            maker_fee_bps=stated.maker_fee_bps,
            taker_fee_bps=stated.taker_fee_bps,
            has_options=False,
        )

    def context(self, symbol: str) -> dict[str, float]:
        """Return the features that a decision looks at, as far as they are known; only a LIVE book has any."""
        market = self._markets.get(symbol)
        if market is None or market.facts.state is not BookState.LIVE:
            return {}
        return {name: value for name, value in zip(FEATURES, self.features(market).tolist(), strict=True) if value == value}

    def health(self, symbol: str) -> readings.SymbolHealth:
        """Return how well a symbol's data holds together."""
        market = self._markets[symbol]
        facts, lag_ns = market.facts, market.book.lag_ns
        return readings.SymbolHealth(
            state=facts.state.name,
            age_ms=self._age_ms(market),
            lag_ms=None if lag_ns is None else lag_ns / NANOS_PER_MS,
            messages=sum(self.kinds(symbol).values()),
            gaps=facts.gaps,
            crossed=facts.crossed,
            resyncs=facts.resyncs,
            duplicates=facts.duplicates,
            ticker_checked=market.book.ticker_checked,
            ticker_mismatched=facts.ticker_mismatched,
            rejected=facts.rejected,
            trades_missed=facts.trades_missed,
        )

    def kinds(self, symbol: str) -> dict[str, int]:
        """Return how many messages of each kind came, those that never came left out."""
        market = self._markets[symbol]
        counts = {
            "aggTrade": market.book.seen(book.AGGREGATE),
            "bookTicker": market.book.seen(book.TICKER),
            "depth": market.book.seen(book.DEPTH),
            "other": market.facts.others,
            "snapshot": market.facts.snapshots,
            "trade": market.book.seen(book.TRADE),
        }
        return {kind: count for kind, count in counts.items() if count}

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
            age_ms=self._age_ms(market) or 0,
            state=facts.state.name,
            seq=self._ctx.seq,
            bid=value["bid"],
            ask=value["ask"],
            mid=value["mid"],
            microprice=value["microprice"],
            spread_bps=value["spread_bps"],
            obi=value["obi"],
            obi_k=book.K,
            ti=value["ti"],
            ti_n=int(value["ti_n"] or 0),
            micro_vol=value["micro_vol"],
            cancel_rate=value["cancel_rate"],
            cancel_n=int(value["cancel_n"] or 0),
            queue_rate=value["queue_rate"],
            ofi=value["ofi"],
            vpin=value["vpin"],
            vpin_n=int(value["vpin_n"] or 0),
            kyle_lambda=value["kyle_lambda"],
            kyle_n=int(value["kyle_n"] or 0),
            trade_rate=value["trade_rate"],
            microprice_stoikov=value["microprice_stoikov"],
            depth=readings.Depth(*sizes),
            windows=readings.Windows(*(value[name] for name in WINDOWS)),
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
            ts_ms=(market.book.depth_ns or 0) // NANOS_PER_MS,
            seq=self._ctx.seq,
            age_ms=self._age_ms(market) or 0,
            state=facts.state.name,
            bids=market.book.side("bids", depth),
            asks=market.book.side("asks", depth),
        )

    def history(self, symbol: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]]:
        """Return the noted features by column, oldest first: the first ``limit`` rows at or after ``from_ms``."""
        return self._markets[symbol].history.columns(from_ms, limit)

    def _age_ms(self, market: Market) -> int | None:
        depth_ns = market.book.depth_ns
        return None if depth_ns is None else (self._ctx.now_ns - depth_ns) // NANOS_PER_MS

    # State

    def save(self) -> list[memoryview]:
        """Return all that is known of every book, then every book, then the history of each."""
        markets = list(self._markets.values())
        frozen = [market.row.tobytes() if market.facts.state is BookState.STALE else b"" for market in markets]
        stated, written = [market.stated for market in markets], [market.history.written for market in markets]
        saved = _Saved(4, [market.facts for market in markets], stated, frozen, written, self._fits, self._listed)
        books = (memoryview(market.book.save()) for market in markets)
        return [memoryview(msgspec.msgpack.encode(saved)), *books, *(market.history.past().data for market in markets)]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned; the settings must have been given before."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        books, histories = pieces[1 : 1 + len(saved.facts)], pieces[1 + len(saved.facts) :]
        self._markets, self._fits, self._listed = {}, saved.fits, saved.listed
        for known in self._by_name.values():
            known.clear()
        for facts, kept_book, stated, row, written, past in zip(
            saved.facts, books, saved.stated, saved.rows, saved.written, histories, strict=True
        ):
            market = self._market(facts.symbol)
            market.facts, market.stated = facts, stated
            market.book.load(kept_book)
            if row:
                market.row[:] = np.frombuffer(row)
            market.history.load(written, past)
