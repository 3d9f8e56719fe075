"""What the displayed book of one symbol costs to sweep: mean costs over many books, one a second, of which old ones fade."""

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D
from alphapack.domain.market import NANOS_PER_S, Step
from alphapack.kernels import sweep as kernel
from alphapack.models.book import FeatureBook

SHARES: Float64Array1D = np.array([10.0 ** (i / 2) for i in range(-12, -3)])
"""Sizes as shares of a day's volume: .0001 % to 1 %. Closer ones would say the same again."""
SHARES.setflags(write=False)
HALF_LIFE_NS = 3_600 * NANOS_PER_S
"""Time in which a book comes to count half."""
BOOKS_MIN = 30.0
"""Books, faded, that must have filled a size before its mean is told."""
FILLED_MIN = 0.9
"""Share of the books that must have: else the mean is that of the deepest alone, and too low."""


class _Saved(msgspec.Struct, array_like=True):
    at_ns: int
    sums: bytes


class SweepCosts:
    """Mean cost of each of ``SHARES`` beyond the half spread, in bps of the mid, buying and selling alike."""

    def __init__(self) -> None:
        self._at_ns = 0
        self._sums: Float64Array2D = np.zeros((kernel.ROWS, len(SHARES)))
        self._scratch: Int64Array1D = np.zeros(2 * kernel.DEPTH, np.int64)

    def note(self, ts_ns: int, book: FeatureBook, adv: float) -> bool:
        """Take in a book that is proven.

        Parameters
        ----------
        ts_ns
            Its time, not before that of the book before.
        book
            Where a side is empty nothing is done, and False is returned.
        adv
            Volume of a day, above 0, in the unit of the book's quantities.
        """
        if book.lot is None:
            return False
        kept = 0.5 ** ((ts_ns - self._at_ns) / HALF_LIFE_NS)
        day_lots = adv * 10.0**book.lot.decimals / book.lot.units
        if not kernel.sample(book.levels, SHARES, day_lots, kept, self._scratch, self._sums):
            return False
        self._at_ns = ts_ns
        return True

    @property
    def books(self) -> float:
        """Books that count, each by what it has kept: of the size that was filled most often."""
        return float(self._sums[kernel.WEIGHT].max())

    def means(self) -> tuple[Float64Array1D, Float64Array1D]:
        """Return sizes and mean costs in bps, shape (n,) each, of the sizes that nearly all books filled; none before there are enough."""
        weights, means = self._sums[kernel.WEIGHT], self._sums[kernel.MEAN]
        told = weights >= max(BOOKS_MIN, FILLED_MIN * self.books)
        return SHARES[told], means[told]

    def save(self) -> bytes:
        """Return everything that later values depend on."""
        return msgspec.msgpack.encode(_Saved(self._at_ns, self._sums[: kernel.COST].tobytes()))

    def load(self, state: bytes | memoryview) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(state, type=_Saved)
        self._at_ns = saved.at_ns
        self._sums[: kernel.COST] = np.frombuffer(saved.sums).reshape(kernel.COST, len(SHARES))


def warm() -> None:
    """Compile, or load from the cache, what a book is swept with."""
    SweepCosts().note(0, FeatureBook(Step(1, 0), Step(1, 0), None), 1.0)
