"""One symbol's order book with the rolling features that follow from it."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D, Int64Array2D
from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.kernels import book, flow, frames, tape, wire
from alphapack.kernels import marks as m
from alphapack.models import steps

FEATURES = (
    "bid",
    "ask",
    "mid",
    "microprice",
    "spread_bps",
    "obi",
    "obi_1",
    "obi_10",
    "ti",
    "ti_1s",
    "ti_30s",
    "ti_n",
    "micro_vol",
    "micro_vol_1s",
    "cancel_rate",
    "cancel_n",
    "queue_rate",
    "depth_bid",
    "depth_ask",
    "depth_bid_quote",
    "depth_ask_quote",
    "ofi",
    "ofi_1",
    "vpin",
    "vpin_n",
    "kyle_lambda",
    "kyle_n",
    "trade_rate",
    "microprice_stoikov",
)
"""Columns of a feature row, in order."""

TAKEN, QUIET, DECLINED = flow.OK, frames.QUIET, frames.DECLINED
"""What ``FeatureBook.frame`` did: the feature row is new; nothing moved but time; nothing at all."""

CONTRADICTED = flow.CONTRADICTED
K = m.K
TRADE_ID_JUMP_MAX = frames.TRADE_ID_JUMP_MAX

CONTRACT_UNITS_MIN = 10**10
"""Base volume of inverse contracts is a whole number of ``10**-k`` coins, so that sums over a window stay exact. ``k`` is the
least that makes one contract this many at the price where the book first became LIVE: rounding moves a trade by at most 5e-11
of itself."""
BASE_UNITS_MAX = 10**18
LEVELS_MAX = 20_000
"""Levels a side of one difference; Binance's whole snapshots have 5,000."""
LEVELS_FIRST = 8_192
"""Room a side at first: venues send up to 5,000, and books grow beyond that within minutes."""
BOOK_LEVELS_MAX = 200_000
"""Levels kept a side: a hostile stream must not fill the memory, nor make an insert cost milliseconds."""

_RINGS = (  # Marks of the place; elements at first, and their width; marks of the oldest and of the next position.
    (m.TRADES, 4_096, m.TRADES_WIDTH, m.TRADES_30S, m.TRADES_HEAD),
    (m.DEPTHS, 256, m.DEPTHS_WIDTH, m.DEPTHS_5S, m.DEPTHS_HEAD),
    (m.WAITING, 1_024, m.WAITING_WIDTH, m.WAITING_TAIL, m.WAITING_HEAD),
    (m.UNUSED, 4_096, m.UNUSED_WIDTH, None, None),
    (m.TICKERS, 1_024, m.TICKERS_WIDTH, m.TICKERS_TAIL, m.TICKERS_HEAD),
    (m.COUNTS, m.COUNTS_N, 1, None, None),
    (m.SCRATCH, 1_024, 5, None, None),  # Last: it is no state.
)
_take_frame = frames.frame
_ROOM_WANTED = (wire.NO_ROOM, flow.RING_FULL)
_MASKED = frozenset((m.TRADES, m.DEPTHS, m.WAITING, m.UNUSED, m.TICKERS))
_UNUSED_TIMES = 4
"""Places in the table of what waits for each that may wait: half of them stay free."""


class CrossedBook(ValueError):
    """The book is shown to be wrong: differences were lost or are not what was meant."""


class _Saved(msgspec.Struct, array_like=True):
    tick: Step | None
    lot: Step | None
    contract: str
    bucket: str
    sizes: list[int]
    marks: bytes
    reals: bytes
    bids: bytes
    asks: bytes


class FeatureBook:
    """Book in int64 ticks and lots, any depth, no price range assumed, and its feature windows.

    ``contract_value`` is the quote value of one contract of an inverse instrument; None means a lot is base currency.
    ``vpin_bucket`` fixes the size of a VPIN bucket in base units; None: a fiftieth of the volume of 24 hours.
    ``tick`` and ``lot`` may be unknown at first and become finer when the wire shows it; that changes no value served.
    """

    def __init__(self, tick: Step | None, lot: Step | None, contract_value: float | None, vpin_bucket: float | None = None) -> None:
        self.tick, self.lot = tick, lot
        self.contract = Decimal(str(contract_value)) if contract_value else None
        self.bucket = Decimal(str(vpin_bucket)) if vpin_bucket else None
        self._lay_out([elements for _, elements, *_ in _RINGS])
        self.marks[m.LAG_NS] = self.marks[m.DEPTH_NS] = self.marks[m.TAPE_SINCE] = self.marks[m.MINUTE] = self.marks[m.TRADED_NS] = m.NEVER
        self.marks[m.TRADE_ID] = self.marks[m.TOP_STATE] = -1
        self.reals: Float64Array1D = np.zeros(m.REALS)
        self.reals[m.KYLE] = np.nan
        self.row: Float64Array1D = self.reals[m.ROW :]
        """The features (``FEATURES``) when they were last computed; NaN where unknown."""
        self.row[:] = np.nan
        self._make_levels(LEVELS_FIRST)
        self._publish_steps()

    # Room

    def _lay_out(self, sizes: list[int]) -> None:
        """Give every ring its place; what an older state holds is not kept."""
        self._sizes = sizes
        places = np.cumsum([m.MARKS, *(n * width for n, (_, _, width, *_) in zip(sizes, _RINGS, strict=True))])
        self.marks: Int64Array1D = np.zeros(places[-1], np.int64)
        for place, n, (ring, *_) in zip(places[:-1], sizes, _RINGS, strict=True):
            self.marks[ring] = place
            self.marks[ring + 1] = n - 1 if ring in _MASKED else n
        self._scratch_at = int(places[-2])
        flow.clear_unused(self.marks)

    def _resize(self, wanted: dict[int, int]) -> None:
        """Make rings as long as wanted, by their marks, with everything in them at its place."""
        flow.tidy_waiting(self.marks)
        old, old_sizes = self.marks, self._sizes
        self._lay_out([wanted.get(ring, n) for n, (ring, *_) in zip(old_sizes, _RINGS, strict=True)])
        places = {ring: self.marks[ring : ring + 2].copy() for ring, *_ in _RINGS}
        self.marks[: m.MARKS] = old[: m.MARKS]
        for ring, place in places.items():
            self.marks[ring : ring + 2] = place
        for (ring, _, width, tail, head), n, n_old in zip(_RINGS, self._sizes, old_sizes, strict=True):
            if ring == m.UNUSED:
                continue
            begin, end = (0, min(n, n_old)) if tail is None or head is None else (int(old[tail]), int(old[head]))
            positions = np.arange(begin, end)
            to, source = self._ring(self.marks, ring, n, width), self._ring(old, ring, n_old, width)
            to[positions % n] = source[positions % n_old]
        flow.fill_unused(self.marks)

    def _widen_scratch(self, levels: int) -> None:
        """Make room to read so many levels a side; nothing else is touched, for the scratch stands last and is no state."""
        self._sizes[-1] = levels
        self.marks = np.concatenate((self.marks[: self._scratch_at], np.zeros(_RINGS[-1][2] * levels, np.int64)))
        self.marks[m.SCRATCH + 1] = levels

    def _ring(self, marks: Int64Array1D, ring: int, n: int, width: int) -> Int64Array2D:
        return marks[marks[ring] : marks[ring] + n * width].reshape(n, width)

    def _held(self, ring: int) -> Int64Array2D:
        """Return the elements of a ring, oldest first."""
        for (one, _, width, tail, head), n in zip(_RINGS, self._sizes, strict=True):
            if one == ring and tail is not None and head is not None:
                positions = np.arange(self.marks[tail], self.marks[head])
                held: Int64Array2D = self._ring(self.marks, ring, n, width)[positions % n]
                return held
        raise AssertionError(f"no ring has the mark {ring}")

    def _make_room(self) -> None:
        """Double the rings that are full."""
        wanted = {}
        for (ring, _, _, tail, head), n in zip(_RINGS, self._sizes, strict=True):
            if tail is not None and head is not None and self.marks[head] - self.marks[tail] >= n:
                wanted[ring] = 2 * n
        if m.WAITING in wanted:
            wanted[m.UNUSED] = _UNUSED_TIMES * wanted[m.WAITING]
        self._resize(wanted)

    def _make_levels(self, room: int) -> None:
        """Lay out an empty book with room for so many far levels a side."""
        self.levels: Int64Array1D = np.zeros(book.FAR_FROM + 4 * room, np.int64)
        for side, at in ((book.BID, book.FAR_FROM), (book.ASK, book.FAR_FROM + 2 * room)):
            self.levels[side + book.FAR_AT : side + book.ROOM + 1] = at, room
            book.clear(self.levels, side)

    def _make_levels_room(self, bids: int, asks: int) -> None:
        """See to room for so many more bids and asks; each side is counted for itself, so that the room there is decides nothing."""
        count = max(self._count(book.BID) + bids, self._count(book.ASK) + asks)
        if count > BOOK_LEVELS_MAX:
            raise CrossedBook(f"more than {BOOK_LEVELS_MAX} levels on one side")
        if count > self.levels[book.ROOM]:
            sides = self._pairs(book.BID), self._pairs(book.ASK)
            self._make_levels(min(BOOK_LEVELS_MAX, 2 << (count - 1).bit_length()))
            self._fill(*sides)

    def _count(self, side: int) -> int:
        return int(self.levels[side + book.NEAR] + self.levels[side + book.FAR])

    def _pairs(self, side: int, depth: int | None = None) -> Int64Array2D:
        """Return keys and lots of a side in two rows, best first."""
        n = self._count(side) if depth is None else min(depth, self._count(side))
        out: Int64Array1D = np.empty(2 * n, np.int64)
        book.collect(self.levels, side, n, out, 0, n)
        return out.reshape(2, n)

    def _fill(self, bids: Int64Array2D, asks: Int64Array2D) -> None:
        """Replace both sides by keys and lots, best first; the caller has seen to the room."""
        for side, pairs in ((book.BID, bids), (book.ASK, asks)):
            book.fill(self.levels, side, np.ascontiguousarray(pairs[:, ::-1]).ravel(), pairs.shape[1])
        self.marks[m.TOUCHED] = 1

    # Steps

    def _publish_steps(self) -> None:
        tick, lot = self.tick or Step(1, 0), self.lot or Step(1, 0)
        self.marks[m.TICK_UNITS : m.LOT_DECIMALS + 1] = tick.units, tick.decimals, lot.units, lot.decimals
        self.reals[m.PRICE_UNITS : m.PRICE_SCALE + 1] = tick.units, 10.0**tick.decimals
        self.reals[m.SIZE_UNITS : m.SIZE_SCALE + 1] = lot.units, 10.0**lot.decimals
        self.reals[m.CONTRACT] = float(self.contract or 0)
        if self.bucket is not None and self.contract is None and self.lot is not None:
            self.reals[m.BUCKET_FIXED] = bucket_units(self.bucket, 1 / self.lot.size)

    def refine(self, prices: list[Decimal], quantities: list[Decimal]) -> None:
        """Make tick and lot fine enough for these numbers; what is stored is counted in the new steps."""
        tick, lot = steps.common(prices, self.tick), steps.common(quantities, self.lot)
        by_price = 1 if self.tick is None or tick is None else tick_ratio(self.tick, tick)
        by_lot = 1 if self.lot is None or lot is None else tick_ratio(self.lot, lot)
        if (tick, lot) == (self.tick, self.lot):
            self._check_grid(prices, quantities, tick, lot)
            return
        self._check_scaling(tick, lot, by_price, by_lot)
        self._check_grid(prices, quantities, tick, lot)  # Refused before anything is changed.
        flow.tidy_waiting(self.marks)
        marks = self.marks
        sides = self._pairs(book.BID), self._pairs(book.ASK)
        for pairs in sides:
            pairs[0] *= by_price
            pairs[1] *= by_lot
        self._fill(*sides)
        mid_ticks = int(marks[m.MID_TICKS]) * by_price
        marks[m.MID_TICKS] = mid_ticks if mid_ticks <= m.SUM_MAX else 0  # Of levels long gone; what comes next is another mid.
        rings = {ring: self._ring(marks, ring, n, width) for (ring, _, width, *_), n in zip(_RINGS, self._sizes, strict=True)}
        rings[m.WAITING][:, 1] *= by_price
        rings[m.WAITING][:, 2] *= by_lot
        rings[m.TICKERS][:, 1::2] *= by_price
        rings[m.TICKERS][:, 2::2] *= by_lot
        rings[m.DEPTHS][:, 1:3] *= by_lot
        marks[m.DEPTHS_5S + 1 : m.DEPTHS_5S + 3] *= by_lot
        if self.contract is None:
            rings[m.DEPTHS][:, 5:] *= by_lot
            marks[m.DEPTHS_1S + 1 : m.DEPTHS_1S + 3] *= by_lot
            rings[m.TRADES][:, 1] *= by_lot
            for window in (m.TRADES_1S, m.TRADES_5S, m.TRADES_30S):
                marks[window + 1 : window + 3] *= by_lot
            self.reals[m.SLOTS : m.BUCKET_FIXED + 1] *= by_lot
        self._scale_minutes(by_price, by_lot)
        self.reals[m.BOUGHT : m.SOLD + 1] *= by_lot
        self.reals[m.VALUE] *= by_price * by_lot
        if by_price != 1:  # Spreads and moves were counted in the ticks of before.
            rings[m.COUNTS][:] = 0
            marks[m.TOP_STATE], marks[m.MOVES] = -1, 0
            self.reals[m.STOIKOV_FITTED] = 0.0
        flow.fill_unused(marks)
        self.tick, self.lot = tick, lot
        self._publish_steps()

    def _check_scaling(self, tick: Step | None, lot: Step | None, by_price: int, by_lot: int) -> None:
        """Refuse steps so much finer that what is stored could not be counted in them."""
        marks = self.marks
        sides = [self._pairs(book.BID), self._pairs(book.ASK)]
        waiting, tickers = self._held(m.WAITING), self._held(m.TICKERS)
        keys = largest(*(pairs[0] for pairs in sides), waiting[:, 1], tickers[:, 1::2]) * by_price
        lots = largest(*(pairs[1] for pairs in sides), waiting[:, 2], tickers[:, 2::2]) * by_lot
        sums = int(marks[m.DEPTHS_5S + 1]) * by_lot
        if self.contract is None:
            held = [int(marks[at]) for at in (m.TRADES_30S + 1, m.TRADES_30S + 2)]
            flows = [2 * abs(int(marks[at])) for at in (m.DEPTHS_1S + 1, m.DEPTHS_1S + 2)]
            sums = max(sums, max(held + flows) * by_lot)
        if max(keys, lots, by_price, by_lot) > wire.LARGEST or sums > m.SUM_MAX:
            raise FrameError(f"expected prices and quantities on one grid, found steps {tick} and {lot} far below those before")

    def _scale_minutes(self, by_price: int, by_lot: int) -> None:
        """Count prices and volume of the open minutes in finer steps; where that is too much to count, they are given up."""
        ticks, lots = self.marks[m.MINUTE_TICKS : m.MINUTE_CARRIED + 1], self.marks[m.MINUTE_LOTS : m.MINUTE_LOTS + 2]
        if max(int(ticks.max()) * by_price, int(lots.max()) * by_lot) > m.SUM_MAX:
            self.cut_tape()
            ticks[:] = 0
        else:
            ticks *= by_price
            lots *= by_lot

    def _check_grid(self, prices: list[Decimal], quantities: list[Decimal], tick: Step | None, lot: Step | None) -> None:
        for numbers, step in ((prices, tick), (quantities, lot)):
            for number in numbers:
                if step is not None:
                    steps.multiple(number, step)

    # What happens to the book

    def frame(self, ts_ns: int, raw: bytes) -> int:
        """Take one frame in one kernel call: ``TAKEN``, ``QUIET`` or ``DECLINED``; any other status is ``fault``'s to explain."""
        status = _take_frame(ts_ns, raw, self.marks, self.reals, self.levels)
        while status < 0 and status in _ROOM_WANTED:
            if not self._made_room(status):
                return DECLINED
            status = _take_frame(ts_ns, raw, self.marks, self.reals, self.levels)
        return status

    def frames(
        self, ts_ns: Int64Array1D, raw: bytes, ends: Int64Array1D, rows: Float64Array2D, statuses: Int64Array1D | None = None
    ) -> int:
        """Take recorded frames in one kernel call; returns how many are done before one that is not taken.

        Parameters
        ----------
        ts_ns : int64[n]
            Receive times, never falling.
        raw : bytes
            The frames one after the other; the i-th ends at ``ends[i]``.
        ends : int64[n]
        rows : float64[n, len(FEATURES)]
            Filled with the feature row after each frame.
        statuses : int64[n], optional
            Filled with what ``frame`` would return; below zero for the last one done where it shows the book to be wrong.

        Raises
        ------
        ValueError
            Where lengths differ or the ends do not rise within ``raw``.
        """
        told = np.empty(len(ends), np.int64) if statuses is None else statuses
        if not len(ts_ns) == len(rows) == len(told) == len(ends) or rows.shape[1:] != (m.FEATURES,):
            raise ValueError(
                f"expected {len(ends)} times, rows of {m.FEATURES} and statuses, found {len(ts_ns)}, {rows.shape}, {len(told)}"
            )
        if len(ends) and not (ends[0] >= 0 and np.all(ends[1:] >= ends[:-1]) and ends[-1] <= len(raw)):
            raise ValueError(f"expected ends that rise from 0 to {len(raw)} at most, found {ends[0]} to {ends[-1]}")
        done = 0
        while True:
            done = frames.frames(ts_ns, raw, ends, done, self.marks, self.reals, self.levels, rows, told)
            if done and told[done - 1] < 0:  # What comes after it is not for this book.
                return done
            if done == len(ends) or told[done] not in _ROOM_WANTED or not self._made_room(told[done]):
                return done

    def _made_room(self, status: int) -> bool:
        """Make the room that the message in hand needs; False where the book may not become so large."""
        if status == flow.RING_FULL:
            self._make_room()
            return True
        try:
            self._make_levels_room(*self.marks[m.BIDS_N : m.ASKS_N + 1].tolist())
        except CrossedBook:
            return False
        return True

    def fault(self, status: int) -> str:
        """Return what a status below zero says of the book."""
        if status == flow.CROSSED:
            return f"best bid {self.best()[0]} ticks at or above best ask {self.best()[1]} ticks"
        if status == flow.CONTRADICTED:
            at, mask = int(self.marks[m.TICKERS]), int(self.marks[m.TICKERS + 1])
            row = at + m.TICKERS_WIDTH * ((int(self.marks[m.TICKERS_TAIL]) - 1) & mask)
            update, bid, bid_lots, ask, ask_lots = self.marks[row : row + m.TICKERS_WIDTH].tolist()
            stated = ((bid, bid_lots) if bid_lots else None, (-ask, ask_lots) if ask_lots else None)
            return f"at update {update} the venue's top is {stated}, the book's {self.top()} (ticks, lots)"
        return "more lots came or went within seconds than can be counted"

    def roll(self, ts_ns: int) -> None:
        """Bring the windows to ``ts_ns``: before anything that looks at their sums, so that a read in between changes nothing."""
        flow.roll(ts_ns, self.marks, self.reals)

    def clear(self) -> None:
        """Drop all levels."""
        book.clear(self.levels, book.BID)
        book.clear(self.levels, book.ASK)
        self.marks[m.TOUCHED] = 1
        self.marks[m.TOP_STATE], self.marks[m.MID_HAS] = -1, 0  # What comes next is no transition from what was.

    def forget(self) -> None:
        """Empty the windows of trades and of depth: those of a book that is not LIVE have no say in what it takes."""
        self.marks[m.TRADES_HEAD : m.DEPTHS] = 0
        self.marks[m.DEPTHS_HEAD : m.WAITING] = 0
        self.marks[m.WAITING_HEAD : m.WAITING_TAIL + 1] = 0
        flow.clear_unused(self.marks)

    def start(self, ts_ns: int) -> None:
        """Begin every window anew: the book is LIVE from ``ts_ns`` on. VPIN's buckets, a clock of volume, go on."""
        marks = self.marks
        marks[m.LIVE_SINCE] = ts_ns
        marks[m.GRID_AT] = (ts_ns - 1) // m.GRID_NS
        marks[m.GRID_HAS] = marks[m.MID_HAS] = 0
        self.forget()
        self.reals[m.CHANGES : m.CHANGES + m.GRID_RING] = 0.0
        self.reals[m.VOL_5S : m.VOL_1S + 1] = 0.0
        tape.clear_seconds(ts_ns, marks, self.reals)
        self._fix_base_units(next((ticks for ticks in self.best() if ticks is not None), 0))
        flow.observe_mid(marks, self.reals, self.levels)
        marks[m.TOP_STATE] = flow.top_state(self.levels)
        marks[m.TOUCHED] = 1
        self.row[:] = np.nan

    def _fix_base_units(self, ticks: int) -> None:
        """Choose the unit of base volume of an inverse instrument, once and for all, by the first price that there is."""
        if self.contract is None or self.tick is None or ticks == 0 or self.marks[m.BASE_UNITS] > 0:
            return
        units = 1
        while Fraction(self.contract) * units < CONTRACT_UNITS_MIN * ticks * self.tick.size and units < BASE_UNITS_MAX:
            units *= 10
        self.marks[m.BASE_UNITS] = units
        if self.bucket is not None:
            self.reals[m.BUCKET_FIXED] = bucket_units(self.bucket, Fraction(units))

    def snapshot(self, bids: bytes, asks: bytes) -> None:
        """Replace the whole book. Raises ``FrameError`` or ``CrossedBook``, and the book is empty then."""
        self.clear()
        self.forget()
        sides = self._parse_whole(bids, asks)
        self._make_levels_room(*map(len, sides))
        kept = []
        for side in sides:
            pairs = sorted(((key, lots) for key, lots in dict(side).items() if lots), reverse=True)
            kept.append(np.array(pairs, np.int64).reshape(-1, 2).T)
        self._fill(*kept)
        best_bid, best_ask = self.best()
        if best_bid is not None and best_ask is not None and best_bid >= best_ask:
            self.clear()
            raise CrossedBook(f"best bid {best_bid} ticks at or above best ask {best_ask} ticks in a snapshot")

    def diff(self, ts_ns: int, bids: bytes, asks: bytes) -> None:
        """Apply absolute quantities at changed prices. A ``FrameError`` changes nothing; after a ``CrossedBook`` all is void."""
        self.roll(ts_ns)
        counts = self._parse(bids, asks)
        check_levels(max(counts), LEVELS_MAX)
        at, room = int(self.marks[m.SCRATCH]), int(self.marks[m.SCRATCH + 1])
        self._fix_base_units(abs(int(self.marks[at if counts[0] else at + 2 * room])) if max(counts) else 0)
        self.marks[m.BIDS_N], self.marks[m.ASKS_N] = counts
        self._settle(lambda: flow.depth(ts_ns, self.marks, self.reals, self.levels), counts)

    def order(self, ts_ns: int, key: int, lots: int, explained: int) -> None:
        """Set one level as an order book of single orders knows it.

        Parameters
        ----------
        key : int
            +ticks of a bid, -ticks of an ask.
        lots : int
            The level's quantity now.
        explained : int
            Lots of its fall that were traded: here it is known, not guessed.
        """
        self.roll(ts_ns)
        self._fix_base_units(abs(key))
        self._settle(lambda: flow.order(ts_ns, key, lots, explained, self.marks, self.reals, self.levels), (1, 1))

    def _settle(self, change: Callable[[], int], more: tuple[int, int]) -> None:
        """Do a change of the book, which brings at most so many bids and asks, making the room that it asks for."""
        while (status := change()) != flow.OK:
            if status == wire.NO_ROOM:
                self._make_levels_room(*more)
            elif status == flow.RING_FULL:
                self._make_room()
            else:
                raise CrossedBook(self.fault(status))

    def trade(self, ts_ns: int, price: bytes, quantity: bytes, *, buyer_is_taker: bool, venue_ns: int = 0) -> None:
        """Take one trade into the windows, and by its venue's time (0: unknown) into a candle. A ``FrameError`` changes nothing."""
        self.roll(ts_ns)
        self._check_trade(price, quantity)
        ticks, lots = self.ticks(price), self.lots(quantity)
        self._fix_base_units(ticks)
        key = -ticks if buyer_is_taker else ticks
        while (status := flow.trade(ts_ns, key, lots, self.marks, self.reals)) == flow.RING_FULL:
            self._make_room()
        if status != flow.OK:
            raise FrameError(f"expected a credible traded volume, found quantity {quantity!r} at price {price!r}")
        tape.take_minute(ts_ns, venue_ns, ticks, lots, self.marks, self.reals)

    def cut_tape(self) -> None:
        """Trades were missed, or will be: no minute that is open becomes a candle, nor that of the next trade."""
        tape.cut_minutes(self.marks)

    def minutes(self, ts_ns: int) -> Float64Array2D | None:
        """Return the candles that the tape has closed by ``ts_ns`` and that were not returned before; None where there are none.

        Rows of ``(ts_ms, open, high, low, close, volume)``, oldest first, shape ``(n, 6)``. A minute closes two seconds
        after its end on the venue's clock, or when a later trade shows that it is so late; looked for often enough
        (``MINUTES_RING`` minutes), none is lost.
        """
        waiting = tape.minutes(ts_ns, self.marks, self.reals)
        if waiting == 0:
            return None
        head = int(self.marks[m.MINUTES_HEAD])
        ring = self.reals[m.CLOSED_MINUTES : m.BOUGHT].reshape(m.MINUTES_RING, m.MINUTES_WIDTH)
        self.marks[m.MINUTES_TAIL] = head
        rows: Float64Array2D = ring[np.arange(head - waiting, head) % m.MINUTES_RING]
        return rows

    def _check_trade(self, price: bytes, quantity: bytes) -> None:
        """Refuse a trade of nothing, or of more than can be believed, before a step becomes finer for it."""
        exact_price, exact_quantity = steps.single(price), steps.single(quantity)
        if exact_price == 0 or exact_quantity == 0:
            raise FrameError(f"expected a trade of more than nothing, found price {price!r} quantity {quantity!r}")
        if self.contract is not None:
            coins = Fraction(exact_quantity) * Fraction(self.contract) / Fraction(exact_price)
            if coins * int(self.marks[m.BASE_UNITS]) >= m.VOLUME_MAX:
                raise FrameError(f"expected a credible traded volume, found quantity {quantity!r} at price {price!r}")

    def hold_ticker(self, update: int, bid: bytes, bid_quantity: bytes, ask: bytes, ask_quantity: bytes) -> None:
        """Keep the venue's own top of book of an update until ``compare``. A ``FrameError`` changes nothing."""
        self.refine_for((bid, ask), (bid_quantity, ask_quantity))  # All at once: a step that one makes finer is the others' too.
        stated = self.ticks(bid), self.lots(bid_quantity), self.ticks(ask), self.lots(ask_quantity)
        row = flow.put_ticker(update, self.marks)
        self.marks[row + 1 : row + m.TICKERS_WIDTH] = stated[0], stated[1], -stated[2], stated[3]

    def compare(self) -> str | None:
        """Hold the book against the ticker of its update, if one was kept, and drop those it has passed; returns what is wrong."""
        status = flow.compare_tickers(self.marks, self.levels)
        return None if status == flow.OK else self.fault(status)

    # The fitted microprice

    @property
    def moves(self) -> int:
        """Mid changes counted for the fit of Stoikov's microprice since the tick last changed."""
        return int(self.marks[m.MOVES])

    def counts(self) -> tuple[Int64Array2D, Int64Array2D, Int64Array1D]:
        """Return the counted transitions that left the mid, those that moved it, and the moves out of each state in half ticks."""
        at, n = int(self.marks[m.COUNTS]), m.STATES * m.STATES
        stay, move = (self.marks[at + i * n : at + (i + 1) * n].reshape(m.STATES, m.STATES).copy() for i in range(2))
        return stay, move, self.marks[at + 2 * n : at + 2 * n + m.STATES].copy()

    def take_fit(self, adjustment: Float64Array1D) -> None:
        """Serve ``microprice_stoikov`` by this table: ticks to add to the mid in each state."""
        self.reals[m.STOIKOV : m.STOIKOV + m.STATES] = adjustment
        self.reals[m.STOIKOV_FITTED] = 1.0
        self.marks[m.TOUCHED] = 1

    # What is known of it

    def features(self, ts_ns: int) -> Float64Array1D:
        """Bring ``row`` up to ``ts_ns`` and return it; the next call writes into the same array."""
        flow.roll(ts_ns, self.marks, self.reals)
        flow.features(ts_ns, self.marks, self.reals, self.levels)
        return self.row

    def best(self) -> tuple[int | None, int | None]:
        """Return best bid and ask in ticks."""
        bid, ask = self.top()
        return (bid[0] if bid else None), (ask[0] if ask else None)

    def top(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Return best bid and best ask as (ticks, lots)."""
        bid, ask = self._pairs(book.BID, 1).T.tolist(), self._pairs(book.ASK, 1).T.tolist()
        return ((bid[0][0], bid[0][1]) if bid else None), ((-ask[0][0], ask[0][1]) if ask else None)

    def side(self, which: str, depth: int) -> list[tuple[float, float]]:
        """Return up to ``depth`` levels of ``"bids"`` or ``"asks"``, best first, as (price, quantity) in the venue's units."""
        tick, lot = self.tick or Step(1, 0), self.lot or Step(1, 0)
        pairs = self._pairs(book.BID if which == "bids" else book.ASK, depth)
        return [(tick.number(abs(key)), lot.number(lots)) for key, lots in pairs.T.tolist()]

    def refine_for(self, prices: Iterable[bytes], quantities: Iterable[bytes]) -> None:
        """Make tick and lot fine enough for quoted numbers, where they are not."""
        marks = self.marks
        tick, lot = marks[m.TICK_UNITS : m.TICK_UNITS + 2].tolist(), marks[m.LOT_UNITS : m.LOT_UNITS + 2].tolist()
        known = self.tick is not None and self.lot is not None
        if not known or any(
            wire.multiple(text + b"}", 0, len(text) + 1, *step)[0] < 0
            for texts, step in ((prices, tick), (quantities, lot))
            for text in texts
        ):
            self.refine([steps.single(text) for text in prices], [steps.single(text) for text in quantities])

    def ticks(self, price: bytes) -> int:
        """Return a quoted price in ticks, making the tick finer where it must be."""
        value, _ = wire.multiple(price + b"}", 0, len(price) + 1, int(self.marks[m.TICK_UNITS]), int(self.marks[m.TICK_DECIMALS]))
        if value >= 0 and self.tick is not None:
            return int(value)
        exact = steps.single(price)
        self.refine([exact], [])
        return self._ticks(exact)

    def lots(self, quantity: bytes) -> int:
        """Return a quoted quantity in lots, making the lot finer where it must be."""
        value, _ = wire.multiple(quantity + b"}", 0, len(quantity) + 1, int(self.marks[m.LOT_UNITS]), int(self.marks[m.LOT_DECIMALS]))
        if value >= 0 and self.lot is not None:
            return int(value)
        exact = steps.single(quantity)
        self.refine([], [exact])
        return self._lots(exact)

    def listen(self, name: str, frame_format: int) -> None:
        """Let ``frame`` take what frames of this format (``kernels.wire``) say of this venue name."""
        if len(name) <= m.NAME_MAX and name.isascii() and name.replace("_", "").isalnum():
            words = np.frombuffer(name.encode().ljust(8 * m.NAME_WORDS, b"\0"), np.int64)
            self.marks[m.NAME : m.NAME + m.NAME_WORDS] = words
            self.marks[m.NAME_N], self.marks[m.FORMAT] = len(name), frame_format

    @property
    def live(self) -> bool:
        """Whether the book is proven: only then does ``frame`` take anything."""
        return bool(self.marks[m.LIVE])

    @live.setter
    def live(self, value: bool) -> None:
        if not value:
            self.cut_tape()
        known = self.tick is not None and self.lot is not None and (self.contract is None or self.marks[m.BASE_UNITS] > 0)
        self.marks[m.LIVE] = value and known and self.marks[m.NAME_N] > 0

    @property
    def last_update(self) -> int:
        """Id of the newest update in the book."""
        return int(self.marks[m.LAST_UPDATE])

    @last_update.setter
    def last_update(self, value: int) -> None:
        self.marks[m.LAST_UPDATE] = value

    @property
    def depth_ns(self) -> int | None:
        """Engine time of the last depth message that told something new."""
        return self._time(m.DEPTH_NS)

    @depth_ns.setter
    def depth_ns(self, value: int) -> None:
        self.marks[m.DEPTH_NS] = value

    @property
    def lag_ns(self) -> int | None:
        """Engine time minus venue time of the last message that says one."""
        return self._time(m.LAG_NS)

    @lag_ns.setter
    def lag_ns(self, value: int) -> None:
        self.marks[m.LAG_NS] = value

    def _time(self, mark: int) -> int | None:
        value = int(self.marks[mark])
        return None if value == m.NEVER else value

    @property
    def trade_id(self) -> int:
        """Id of the newest trade taken; -1 before the first."""
        return int(self.marks[m.TRADE_ID])

    @trade_id.setter
    def trade_id(self, value: int) -> None:
        self.marks[m.TRADE_ID] = value

    @property
    def aggregate_id(self) -> int:
        """Id of the newest aggregate of trades taken; -1 before the first."""
        return int(self.marks[m.AGGREGATE_NEXT]) - 1

    @aggregate_id.setter
    def aggregate_id(self, value: int) -> None:
        self.marks[m.AGGREGATE_NEXT] = value + 1

    @property
    def plain_trades(self) -> bool:
        """Whether single trades have been seen, so that aggregates say nothing new."""
        return bool(self.marks[m.PLAIN_TRADES])

    @plain_trades.setter
    def plain_trades(self, value: bool) -> None:
        self.marks[m.PLAIN_TRADES] = value

    @property
    def traded_ns(self) -> int | None:
        """Venue time of the last trade that was taken; None before the first."""
        return self._time(m.TRADED_NS)

    @property
    def trades_taken(self) -> int:
        """Trades taken into the windows, ever."""
        return int(self.marks[m.TRADES_TAKEN])

    @property
    def last_trade(self) -> tuple[int, int]:
        """Key of the level that the last trade hit (+ticks of a bid, -ticks of an ask), and its lots."""
        return int(self.marks[m.LAST_KEY]), int(self.marks[m.LAST_LOTS])

    @property
    def flow(self) -> tuple[float, float, float]:
        """Of all trades ever taken: lots bought and lots sold by their aggressors, and the sum of lots times ticks."""
        bought, sold, value = self.reals[m.BOUGHT : m.VALUE + 1].tolist()
        return bought, sold, value

    @property
    def trades_late(self) -> int:
        """Trades that came after their minute had closed: candles of the tape lack them."""
        return int(self.marks[m.TRADES_LATE])

    @property
    def ticker_checked(self) -> int:
        """Tickers that were held against the book."""
        return int(self.marks[m.TICKER_CHECKED])

    def count(self, kind: int) -> None:
        """Count a message of a kind: ``DEPTH``, ``TRADE``, ``AGGREGATE`` or ``TICKER``."""
        self.marks[kind] += 1

    def seen(self, kind: int) -> int:
        """Return how many messages of a kind were counted, by ``count`` or by ``frame``."""
        return int(self.marks[kind])

    # State

    def save(self) -> bytes:
        """Return everything that later values depend on."""
        marks, reals = self.marks[: self._scratch_at].copy(), self.reals[: m.ROW]
        marks[m.FIELDS : m.MARKS] = marks[m.TALLY : m.TALLY + 4] = 0  # Of a message that is done with.
        marks[m.BIDS_N] = marks[m.ASKS_N] = marks[m.SCRATCH] = marks[m.SCRATCH + 1] = 0
        marks[m.TOUCHED] = 1
        saved = _Saved(
            self.tick,
            self.lot,
            str(self.contract or ""),
            str(self.bucket or ""),
            self._sizes[:-1],
            marks.tobytes(),
            reals.tobytes(),
            self._pairs(book.BID).tobytes(),
            self._pairs(book.ASK).tobytes(),
        )
        return msgspec.msgpack.encode(saved)

    def load(self, state: bytes | memoryview) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(state, type=_Saved)
        self.tick, self.lot = saved.tick, saved.lot
        self.contract = Decimal(saved.contract) if saved.contract else None
        self.bucket = Decimal(saved.bucket) if saved.bucket else None
        self._lay_out([*saved.sizes, _RINGS[-1][1]])
        scratch = self.marks[m.SCRATCH : m.SCRATCH + 2].copy()
        self.marks[: self._scratch_at] = np.frombuffer(saved.marks, np.int64)
        self.marks[m.SCRATCH : m.SCRATCH + 2] = scratch
        self.reals[: m.ROW] = np.frombuffer(saved.reals, np.float64)
        self.row[:] = np.nan
        bids, asks = (np.frombuffer(side, np.int64).reshape(2, -1) for side in (saved.bids, saved.asks))
        self._make_levels(LEVELS_FIRST)
        self._make_levels_room(bids.shape[1], asks.shape[1])
        self._fill(bids, asks)

    # Inside

    def _ticks(self, price: Decimal) -> int:
        if price == 0:  # How a ticker states the price of an empty side.
            return 0
        assert self.tick is not None, "refined before"
        found = steps.multiple(price, self.tick)
        assert found is not None, "refined before"
        return found

    def _lots(self, quantity: Decimal) -> int:
        if quantity == 0:
            return 0
        assert self.lot is not None, "refined before"
        found = steps.multiple(quantity, self.lot)
        assert found is not None, "refined before"
        return found

    def _parse(self, bids: bytes, asks: bytes) -> tuple[int, int]:
        """Read both level lists into the scratch and return how many levels they have."""
        counts = self._parse_quickly(bids, asks) if self.tick and self.lot else None
        return counts or self._parse_slowly(bids, asks)

    def _parse_quickly(self, bids: bytes, asks: bytes) -> tuple[int, int] | None:
        """Do the same in the kernel; None where the lists are not plain, not on the known steps, or longer than the scratch."""
        marks, at, room = self.marks, int(self.marks[m.SCRATCH]), int(self.marks[m.SCRATCH + 1])
        n, after = wire.levels(bids + b"}", 0, len(bids) + 1, 1, marks, marks, at, room)
        k, after_asks = wire.levels(asks + b"}", 0, len(asks) + 1, -1, marks, marks, at + 2 * room, room)
        return (n, k) if n >= 0 and k >= 0 and after == len(bids) and after_asks == len(asks) else None

    def _parse_whole(self, bids: bytes, asks: bytes) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Read the two sides of a snapshot as keys and lots, in the venue's order, making the steps finer where they must be."""
        most = max(bids.count(b"["), asks.count(b"["))
        if self.tick and self.lot and most <= LEVELS_MAX:  # A thousand levels in decimals would take as long as a hundred frames.
            if most > self.marks[m.SCRATCH + 1]:
                self._widen_scratch(min(LEVELS_MAX, 1 << (most - 1).bit_length()))
            counts = self._parse_quickly(bids, asks)
            if counts is not None:
                marks, at, room = self.marks, int(self.marks[m.SCRATCH]), int(self.marks[m.SCRATCH + 1])
                starts = (at, at + 2 * room)
                whole = [
                    list(zip(marks[i : i + n].tolist(), marks[i + room : i + room + n].tolist(), strict=True))
                    for i, n in zip(starts, counts, strict=True)
                ]
                return whole[0], whole[1]
        sides = steps.pairs(bids), steps.pairs(asks)
        check_levels(max(map(len, sides)), BOOK_LEVELS_MAX)
        every = sides[0] + sides[1]
        prices, quantities = [price for price, _ in every], [quantity for _, quantity in every]
        try:
            self.refine(prices, quantities)
        except FrameError:  # The steps learnt so far may be what is wrong: nothing that is counted in them is worth more.
            self._reset_steps()
            self.refine(prices, quantities)
        signed = [
            [(sign * self._ticks(price), self._lots(lots)) for price, lots in side] for side, sign in zip(sides, (1, -1), strict=True)
        ]
        return signed[0], signed[1]

    def _parse_slowly(self, bids: bytes, asks: bytes) -> tuple[int, int]:
        check_levels(max(bids.count(b"["), asks.count(b"[")) - 1, LEVELS_MAX)  # Before a second goes into reading them.
        sides = steps.pairs(bids), steps.pairs(asks)
        most = max(map(len, sides))
        check_levels(most, LEVELS_MAX)  # Before room is made for them.
        every = sides[0] + sides[1]
        self.refine([price for price, _ in every], [quantity for _, quantity in every])
        if most > self.marks[m.SCRATCH + 1]:
            self._widen_scratch(min(LEVELS_MAX, 1 << (most - 1).bit_length()))
        at, room = int(self.marks[m.SCRATCH]), int(self.marks[m.SCRATCH + 1])
        for start, side, sign in ((at, sides[0], 1), (at + 2 * room, sides[1], -1)):
            for i, (price, quantity) in enumerate(side, start):
                self.marks[i] = sign * self._ticks(price)
                self.marks[i + room] = self._lots(quantity)
        return len(sides[0]), len(sides[1])

    def _reset_steps(self) -> None:
        """Forget tick and lot and all that is counted in them; the book is empty."""
        marks = self.marks
        self.cut_tape()
        marks[m.TICKERS_HEAD : m.TICKERS_TAIL + 1] = marks[m.BUCKETS_HEAD : m.BUCKETS_TAIL + 1] = 0
        marks[m.TAPE_SINCE], marks[m.SLOT_AT] = m.NEVER, 0
        marks[marks[m.COUNTS] : marks[m.COUNTS] + m.COUNTS_N] = 0
        self.reals[m.SLOTS : m.BUCKET_FIXED] = 0.0
        marks[m.TOP_STATE], marks[m.MOVES] = -1, 0
        self.reals[m.STOIKOV_FITTED] = 0.0
        self.tick = self.lot = None


DEPTH, TRADE, AGGREGATE, TICKER = m.DEPTHS_SEEN, m.TRADES_SEEN, m.AGGREGATES_SEEN, m.TICKERS_SEEN
"""Kinds of messages that are counted."""


def bucket_units(bucket: Decimal, units: Fraction) -> float:
    """Return a bucket of VPIN in fiftieths of the unit of volume, of which a base unit has ``units``; at least one."""
    return float(min(max(m.BUCKETS_N * Fraction(bucket) * units, Fraction(1)), Fraction(10**300)))


def check_levels(found: int, most: int) -> None:
    """Refuse more levels a side than a venue sends."""
    if found > most:
        raise FrameError(f"expected at most {most} levels a side, found {found}")


def largest(*numbers: Int64Array1D) -> int:
    """Return the largest magnitude in all these, 0 where there is none."""
    return max(int(np.abs(one).max()) if one.size else 0 for one in numbers)


def tick_ratio(coarse: Step, fine: Step) -> int:
    """Return how many ``fine`` steps a ``coarse`` one is."""
    scale: int = 10 ** (fine.decimals - coarse.decimals)
    return coarse.units * scale // fine.units


def warm() -> None:
    """Compile, or load from the cache, every kernel a book needs."""
    warm_general()
    warm_frame()


def warm_general() -> None:
    """Make ready the kernels that stand behind the general decoder, and the features."""
    one = FeatureBook(None, None, None)
    one.snapshot(b'[["10.0","1.0"]]', b'[["11.0","2.5"]]')
    one.start(0)
    one.diff(1, b'[["10.1","1.0"]]', b"[]")
    one.trade(2, b'"10.1"', b'"0.5"', buyer_is_taker=False)
    one.hold_ticker(1, b'"10.1"', b'"1.0"', b'"11.0"', b'"2.5"')
    one.compare()
    one.minutes(2)
    one.features(m.NS_PER_S)


def warm_frame() -> None:
    """Make ready the kernel that takes whole frames: about half of all that there is to compile."""
    FeatureBook(None, None, None).frame(m.NS_PER_S, b"{}")
