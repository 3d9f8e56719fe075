"""One symbol's order book with the rolling features that follow from it."""

from decimal import Decimal
from fractions import Fraction

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Int64Array1D, Int64Array2D
from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.kernels import flow, wire
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
)
"""Columns of a feature row, in order."""

CONTRACT_UNITS_MIN = 10**10
"""Base volume of inverse contracts is a whole number of ``10**-k`` coins, so that sums over a window stay exact. ``k`` is the
least that makes one contract this many at the price where the book became LIVE: rounding moves a trade by at most 5e-11 of
itself, and nine hundred million contracts fit in a window."""
LEVELS_MAX = 20_000
"""Levels a side of one difference; Binance's whole snapshots have 5,000."""
BOOK_LEVELS_MAX = 200_000
"""Levels kept a side: a hostile stream must not fill the memory, nor make an insert cost milliseconds."""


class CrossedBook(ValueError):
    """Best bid at or above best ask: differences were lost or are wrong."""


class _Saved(msgspec.Struct, array_like=True):
    tick: Step | None
    lot: Step | None
    contract: str
    base_units: int
    marks: bytes
    reals: bytes
    levels: bytes
    trades: bytes
    cancels: bytes
    pending: bytes


class FeatureBook:
    """Book in int64 ticks and lots, any depth, no price range assumed, and its feature windows.

    ``contract_value`` is the quote value of one contract of an inverse instrument; None means a lot is base currency.
    ``tick`` and ``lot`` may be unknown at first and become finer when the wire shows it; that changes no value served.
    """

    def __init__(self, tick: Step | None, lot: Step | None, contract_value: float | None) -> None:
        self.tick, self.lot = tick, lot
        self.contract = Decimal(str(contract_value)) if contract_value else None
        self.base_units = CONTRACT_UNITS_MIN
        """Of an inverse instrument: units in one coin."""
        self.marks: Int64Array1D = np.zeros(flow.MARKS, np.int64)
        self.reals: Float64Array1D = np.zeros(flow.REALS)
        self.levels: Int64Array2D = np.zeros((4, 1024), np.int64)
        self.scratch: Int64Array2D = np.zeros((4, 1024), np.int64)
        self.trades: Int64Array2D = np.zeros((1024, 2), np.int64)
        self.cancels: Int64Array2D = np.zeros((256, 5), np.int64)
        self.pending: Int64Array2D = np.zeros((256, 3), np.int64)
        self._publish_steps()

    # Steps

    def _publish_steps(self) -> None:
        tick, lot = self.tick or Step(1, 0), self.lot or Step(1, 0)
        self.marks[flow.TICK : flow.TICK + 2] = tick.units, tick.decimals
        self.marks[flow.LOT : flow.LOT + 2] = lot.units, lot.decimals
        self.reals[flow.PRICE_UNITS : flow.PRICE_SCALE + 1] = tick.units, 10.0**tick.decimals
        self.reals[flow.LOT_UNITS : flow.LOT_SCALE + 1] = lot.units, 10.0**lot.decimals
        self.reals[flow.CONTRACT] = float(self.contract or 0)

    def refine(self, prices: list[Decimal], quantities: list[Decimal]) -> None:
        """Make tick and lot fine enough for these numbers; what is stored is counted in the new steps."""
        tick, lot = steps.common(prices, self.tick), steps.common(quantities, self.lot)
        by_price = 1 if self.tick is None or tick is None else tick_ratio(self.tick, tick)
        by_lot = 1 if self.lot is None or lot is None else tick_ratio(self.lot, lot)
        marks, n, m = self.marks, int(self.marks[flow.BIDS]), int(self.marks[flow.ASKS])
        waiting = np.arange(marks[flow.PENDING_TAIL], marks[flow.PENDING_HEAD]) & (len(self.pending) - 1)
        keys = largest(self.levels[0, :n], self.levels[2, :m], self.pending[waiting, 1]) * by_price
        lots = largest(self.levels[1, :n], self.levels[3, :m], self.pending[waiting, 2]) * by_lot
        sums = int(marks[flow.CANCEL_SUMS]) * by_lot
        if self.contract is None:
            sums = max(sums, int(marks[flow.TRADE_30S + 1 : flow.TRADE_30S + 3].max()) * by_lot)
        if max(keys, lots, by_price, by_lot) > wire.LARGEST or sums > flow.SUM_MAX:
            raise FrameError(f"expected prices and quantities on one grid, found steps {tick} and {lot} far below those before")
        for numbers, step in ((prices, tick), (quantities, lot)):  # Refused before anything is changed.
            for number in numbers:
                if step is not None:
                    steps.multiple(number, step)
        self.levels[0, :n] *= by_price
        self.levels[2, :m] *= by_price
        self.levels[1, :n] *= by_lot
        self.levels[3, :m] *= by_lot
        marks[flow.MID_TICKS] *= by_price
        self.pending[waiting, 1] *= by_price
        self.pending[waiting, 2] *= by_lot
        self.cancels[:, 1:3] *= by_lot
        marks[flow.CANCEL_SUMS : flow.CANCEL_SUMS + 2] *= by_lot
        if self.contract is None:
            self.trades[:, 1] *= by_lot
            for window in (flow.TRADE_1S, flow.TRADE_5S, flow.TRADE_30S):
                marks[window + 1 : window + 3] *= by_lot
        self.tick, self.lot = tick, lot
        self._publish_steps()

    # What happens to the book

    def roll(self, ts_ns: int) -> None:
        """Bring the windows to ``ts_ns``: before anything that looks at their sums, so that a read in between changes nothing."""
        flow.roll(ts_ns, self.marks, self.reals, self.trades, self.cancels)
        flow.expire_pending(ts_ns, self.marks, self.pending)

    def clear(self) -> None:
        """Drop all levels."""
        self.marks[flow.BIDS] = self.marks[flow.ASKS] = 0

    def forget(self) -> None:
        """Empty the windows of trades and cancels: those of a book that is not LIVE have no say in what it takes."""
        self.marks[flow.TRADE_HEAD : flow.MARKS] = 0

    def start(self, ts_ns: int) -> None:
        """Begin every window anew: the book is LIVE from ``ts_ns`` on."""
        marks = self.marks
        marks[flow.LIVE_SINCE] = ts_ns
        marks[flow.GRID_AT] = (ts_ns - 1) // flow.GRID_NS
        marks[flow.GRID_HAS] = marks[flow.MID_HAS] = 0
        self.forget()
        self.reals[flow.CHANGES :] = 0.0
        best = next((ticks for ticks in self.best() if ticks is not None), None)
        if self.contract is not None and self.tick is not None and best is not None:
            self.base_units = 1
            while Fraction(self.contract) * self.base_units < CONTRACT_UNITS_MIN * best * self.tick.size:
                self.base_units *= 10
        flow.observe_mid(marks, self.reals, self.levels)

    def snapshot(self, bids: bytes, asks: bytes) -> None:
        """Replace the whole book. Raises ``FrameError`` or ``CrossedBook``, and the book is empty then."""
        self.clear()
        self.forget()
        sides = steps.pairs(bids), steps.pairs(asks)
        check_levels(max(map(len, sides)), BOOK_LEVELS_MAX)
        every = sides[0] + sides[1]
        prices, quantities = [price for price, _ in every], [quantity for _, quantity in every]
        try:
            self.refine(prices, quantities)
        except FrameError:  # The steps learnt so far may be what is wrong, and nothing is counted in them now.
            self.tick = self.lot = None
            self.refine(prices, quantities)
        for row, side, sign in ((0, sides[0], 1), (2, sides[1], -1)):
            held = {sign * self._ticks(price): self._lots(quantity) for price, quantity in side}
            kept = sorted((key, lots) for key, lots in held.items() if lots)
            self._make_room(len(kept))
            if kept:
                self.levels[row : row + 2, : len(kept)] = np.array(kept, np.int64).T
            self.marks[flow.BIDS if row == 0 else flow.ASKS] = len(kept)
        best_bid, best_ask = self.best()
        if best_bid is not None and best_ask is not None and best_bid >= best_ask:
            self.clear()
            raise CrossedBook(f"best bid {best_bid} ticks at or above best ask {best_ask} ticks in a snapshot")

    def diff(self, ts_ns: int, bids: bytes, asks: bytes) -> None:
        """Apply absolute quantities at changed prices. A ``FrameError`` changes nothing; after a ``CrossedBook`` all is void."""
        self.roll(ts_ns)
        counts = flow.parse(bids, asks, self.marks, self.scratch) if self.tick and self.lot else wire.UNFAMILIAR
        if counts < 0:
            counts = self._parse_slowly(bids, asks)
        check_levels(max(counts >> 32, counts & 0xFFFFFFFF), LEVELS_MAX)
        while True:
            status = flow.depth(ts_ns, counts, self.scratch, self.levels, self.marks, self.reals, self.cancels, self.pending)
            if status == flow.OK:
                return
            if status == wire.NO_ROOM and int(self.marks[:2].max()) > BOOK_LEVELS_MAX:
                raise CrossedBook(f"more than {BOOK_LEVELS_MAX} levels on one side")
            if status == wire.NO_ROOM:
                self._make_room(int(self.marks[:2].max()) + max(counts >> 32, counts & 0xFFFFFFFF))
            elif status == flow.RING_FULL:
                self.cancels = doubled(self.cancels, int(self.marks[flow.CANCEL_TAIL]), int(self.marks[flow.CANCEL_HEAD]))
            elif status == flow.CROSSED:
                raise CrossedBook(f"best bid {self.best()[0]} ticks at or above best ask {self.best()[1]} ticks")
            else:
                raise CrossedBook("more lots left the book within five seconds than can be counted")

    def trade(self, ts_ns: int, price: bytes, quantity: bytes, *, buyer_is_taker: bool) -> None:
        """Take one trade into the windows. A ``FrameError`` changes nothing."""
        self.roll(ts_ns)
        ticks, lots = self.ticks(price), self.lots(quantity)
        if lots == 0 or ticks == 0:
            raise FrameError(f"expected a trade of more than nothing, found price {price!r} quantity {quantity!r}")
        volume = lots if self.contract is None else self._base_volume(ticks, lots)
        if volume == 0:
            return
        if volume > flow.SUM_MAX:
            raise FrameError(f"expected a credible traded volume, found quantity {quantity!r} at price {price!r}")
        key = -ticks if buyer_is_taker else ticks
        status = flow.trade(ts_ns, key, lots, volume, self.marks, self.trades, self.pending)
        if status == flow.RING_FULL:
            tail, head = int(self.marks[flow.TRADE_30S]), int(self.marks[flow.TRADE_HEAD])
            if head - tail == len(self.trades):
                self.trades = doubled(self.trades, tail, head)
            tail, head = int(self.marks[flow.PENDING_TAIL]), int(self.marks[flow.PENDING_HEAD])
            if head - tail == len(self.pending):
                self.pending = doubled(self.pending, tail, head)
            status = flow.trade(ts_ns, key, lots, volume, self.marks, self.trades, self.pending)
        if status == wire.TOO_LARGE:
            raise FrameError(f"expected a credible traded volume, found quantity {quantity!r} on top of a full window")

    # What is known of it

    def features(self, ts_ns: int, row: Float64Array1D) -> Float64Array1D:
        """Write the features (``FEATURES``) at ``ts_ns`` into ``row``, NaN where unknown, and return it."""
        flow.features(ts_ns, self.levels, self.marks, self.reals, self.trades, self.cancels, row)
        return row

    def best(self) -> tuple[int | None, int | None]:
        """Return best bid and ask in ticks."""
        n, m = self.marks[flow.BIDS], self.marks[flow.ASKS]
        return (int(self.levels[0, n - 1]) if n else None), (-int(self.levels[2, m - 1]) if m else None)

    def top(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Return best bid and best ask as (ticks, lots)."""
        n, m = self.marks[flow.BIDS], self.marks[flow.ASKS]
        bid = (int(self.levels[0, n - 1]), int(self.levels[1, n - 1])) if n else None
        return bid, ((-int(self.levels[2, m - 1]), int(self.levels[3, m - 1])) if m else None)

    def side(self, which: str, depth: int) -> list[tuple[float, float]]:
        """Return up to ``depth`` levels of ``"bids"`` or ``"asks"``, best first, as (price, quantity) in the venue's units."""
        row, n = (0, int(self.marks[flow.BIDS])) if which == "bids" else (2, int(self.marks[flow.ASKS]))
        tick, lot = self.tick or Step(1, 0), self.lot or Step(1, 0)
        chosen = self.levels[row : row + 2, max(n - depth, 0) : n][:, ::-1]
        return [(tick.number(abs(int(key))), lot.number(int(lots))) for key, lots in chosen.T]

    def ticks(self, price: bytes) -> int:
        """Return a quoted price in ticks, making the tick finer where it must be."""
        value, _ = wire.multiple(price, 0, int(self.marks[flow.TICK]), int(self.marks[flow.TICK + 1]))
        if value >= 0 and self.tick is not None:
            return int(value)
        exact = steps.single(price)
        self.refine([exact], [])
        return self._ticks(exact)

    def lots(self, quantity: bytes) -> int:
        """Return a quoted quantity in lots, making the lot finer where it must be."""
        value, _ = wire.multiple(quantity, 0, int(self.marks[flow.LOT]), int(self.marks[flow.LOT + 1]))
        if value >= 0 and self.lot is not None:
            return int(value)
        exact = steps.single(quantity)
        self.refine([], [exact])
        return self._lots(exact)

    # State

    def save(self) -> bytes:
        """Return everything that later values depend on."""
        n, m = int(self.marks[flow.BIDS]), int(self.marks[flow.ASKS])
        levels = self.levels[:, : max(n, m)].copy()
        levels[:2, n:] = levels[2:, m:] = 0  # Beyond a side's end lie levels of the past, which are not state.
        arrays = (self.marks, self.reals, levels, self.trades, self.cancels, self.pending)
        return msgspec.msgpack.encode(
            _Saved(self.tick, self.lot, str(self.contract or ""), self.base_units, *(array.tobytes() for array in arrays))
        )

    def load(self, state: bytes) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(state, type=_Saved)
        self.tick, self.lot = saved.tick, saved.lot
        self.contract = Decimal(saved.contract) if saved.contract else None
        self.base_units = saved.base_units
        self.marks = np.frombuffer(saved.marks, np.int64).copy()
        self.reals = np.frombuffer(saved.reals, np.float64).copy()
        levels = np.frombuffer(saved.levels, np.int64).reshape(4, -1)
        self._make_room(levels.shape[1])
        self.levels[:, : levels.shape[1]] = levels
        self.trades = np.frombuffer(saved.trades, np.int64).reshape(-1, 2).copy()
        self.cancels = np.frombuffer(saved.cancels, np.int64).reshape(-1, 5).copy()
        self.pending = np.frombuffer(saved.pending, np.int64).reshape(-1, 3).copy()

    # Inside

    def _ticks(self, price: Decimal) -> int:
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

    def _base_volume(self, ticks: int, lots: int) -> int:
        """Return the base currency in ``lots`` contracts at ``ticks``, in ``base_units`` a coin, rounded half-even once."""
        assert self.contract is not None and self.tick is not None and self.lot is not None
        value, scale = self.contract.as_integer_ratio()
        above: int = lots * self.lot.units * 10**self.tick.decimals * value * self.base_units
        below: int = ticks * self.tick.units * 10**self.lot.decimals * scale
        quotient, rest = divmod(above, below)
        return quotient + (2 * rest > below or (2 * rest == below and quotient % 2 == 1))

    def _parse_slowly(self, bids: bytes, asks: bytes) -> int:
        sides = steps.pairs(bids), steps.pairs(asks)
        check_levels(max(map(len, sides)), LEVELS_MAX)  # Before room is made for them.
        every = sides[0] + sides[1]
        self.refine([price for price, _ in every], [quantity for _, quantity in every])
        self._make_room(0, max(len(sides[0]), len(sides[1])))
        for row, side, sign in ((0, sides[0], 1), (2, sides[1], -1)):
            for i, (price, quantity) in enumerate(side):
                self.scratch[row, i] = sign * self._ticks(price)
                self.scratch[row + 1, i] = self._lots(quantity)
        return len(sides[0]) << 32 | len(sides[1])

    def _make_room(self, levels: int, scratch: int = 0) -> None:
        if levels > self.levels.shape[1]:
            wider: Int64Array2D = np.zeros((4, 1 << (levels - 1).bit_length()), np.int64)
            wider[:, : self.levels.shape[1]] = self.levels
            self.levels = wider
        if scratch > self.scratch.shape[1]:
            self.scratch = np.zeros((4, 1 << (scratch - 1).bit_length()), np.int64)


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


def doubled(ring: Int64Array2D, tail: int, head: int) -> Int64Array2D:
    """Return the ring at twice its size, elements ``tail..head`` at their new places."""
    wider: Int64Array2D = np.zeros((2 * ring.shape[0], ring.shape[1]), np.int64)
    positions = np.arange(tail, head)
    wider[positions & (wider.shape[0] - 1)] = ring[positions & (ring.shape[0] - 1)]
    return wider


def warm() -> None:
    """Compile, or load from the cache, every kernel a book needs."""
    book = FeatureBook(None, None, None)
    book.snapshot(b'[["10.0","1.0"]]', b'[["11.0","2.5"]]')
    book.start(0)
    book.diff(1, b'[["10.1","1.0"]]', b"[]")
    book.trade(2, b'"10.1"', b'"0.5"', buyer_is_taker=False)
    book.features(flow.NS_PER_S, np.zeros(flow.FEATURES))
