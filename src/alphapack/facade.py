"""What notebooks and scripts call as ``ap.*``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alphapack import app
from alphapack.arrays import Float64Array2D, Int64Array2D
from alphapack.config import Settings
from alphapack.domain.readings import SymbolHealth
from alphapack.models import book
from alphapack.models.book import FEATURES

Row = np.void
"""One structured row: a scalar of ``ROW`` whose fields are read by name."""

ROW = np.dtype(
    [("seq", np.int64), ("ts_ns", np.int64), ("symbol", np.int32), ("state", np.int8), *((name, np.float64) for name in FEATURES)]
)
"""A row of ``Replay``; features are NaN where they are not known, ``state`` is a ``BookState``."""


class Replay:
    """A recording as feature rows, one a market-data message of the symbols asked for.

    Iterate over it, or take everything at once with ``to_numpy``; both may be repeated. The totals below are those of
    the last pass, and each makes one where there was none.
    """

    def __init__(self, paths: Sequence[Path], venue: str | None, symbols: Sequence[str] | None) -> None:
        self._paths, self._venue = list(paths), venue
        self._wanted = None if symbols is None else {symbol.upper() for symbol in symbols}
        self.symbols: list[str] = []
        """Full names; a row's ``symbol`` is an index into them."""
        self.complaints: list[str] = []
        """Lines that could not be used, with file, line and reason."""
        self._health: dict[str, SymbolHealth] | None = None
        self._digest = ""

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows one by one (scalars of ``ROW``)."""
        for chunk in self._chunks(1_024):
            yield from chunk

    def to_numpy(self) -> np.ndarray[Any, np.dtype[np.void]]:
        """Return all rows as a structured array of ``ROW``."""
        chunks = list(self._chunks(65_536))
        return np.concatenate(chunks) if chunks else np.empty(0, ROW)

    @property
    def gaps(self) -> int:
        """Breaks of the venue's chain of updates, over all symbols."""
        return sum(one.gaps for one in self.health().values())

    @property
    def crossed(self) -> int:
        """Times that a book was crossed."""
        return sum(one.crossed for one in self.health().values())

    @property
    def digest(self) -> str:
        """128-bit digest of all inputs and of all that was computed from them, in hex."""
        self.health()
        return self._digest

    def health(self) -> dict[str, SymbolHealth]:
        """Return how well each symbol's data held together, by full name."""
        if self._health is None:
            for _ in self._chunks(65_536):
                pass
        assert self._health is not None
        return self._health

    def _chunks(self, size: int) -> Iterator[np.ndarray[Any, np.dtype[np.void]]]:
        book.warm()
        engine, self.symbols, self.complaints = app.build(), [], []
        recording = app.record_of(self._paths, Settings(), self._venue, self.complaints.append)
        places: dict[str, int] = {}
        head, values, n = np.empty((size, 4), np.int64), np.empty((size, len(FEATURES))), 0
        for entry, _ in app.steps(engine, recording):
            market = engine.microstructure.touched
            if market is None:
                continue
            symbol = market.facts.symbol
            if self._wanted is not None and self._wanted.isdisjoint((symbol.upper(), symbol.partition(":")[2])):
                continue
            if symbol not in places:
                places[symbol] = len(places)
                self.symbols.append(symbol)
            head[n] = entry.seq, entry.ts_ns, places[symbol], market.facts.state
            values[n] = engine.microstructure.features(market)
            n += 1
            if n == size:
                yield _structured(head, values)
                n = 0
        if n:
            yield _structured(head[:n], values[:n])
        self._health = {name: engine.microstructure.health(name) for name in engine.microstructure.symbols()}
        self._digest = engine.hexdigest()


def _structured(head: Int64Array2D, values: Float64Array2D) -> np.ndarray[Any, np.dtype[np.void]]:
    rows = np.empty(len(head), ROW)
    for i, name in enumerate(("seq", "ts_ns", "symbol", "state")):
        rows[name] = head[:, i]
    for i, name in enumerate(FEATURES):
        rows[name] = values[:, i]
    return rows


def replay(path: str | Path | Sequence[str | Path], symbols: Sequence[str] | None = None, *, venue: str | None = None) -> Replay:
    """Return a recording (captures, or one journal) as feature rows.

    Parameters
    ----------
    path : path or paths
        Capture files, whose names begin with the venue, or the folder of a journal.
    symbols : names, optional
        ``"BTCUSDT"`` or ``"binance-usdm:BTCUSDT"``; all of them where left out.
    venue : str, optional
        Venue of the files where their names do not say it.

    Raises
    ------
    CaptureError
        Where a path or a venue is not one that can be read.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    return Replay([Path(one) for one in paths], venue, symbols)
