"""Files of one-minute candles, as history of a symbol: CSV, plain or packed, and Parquet.

A file is taken whole or not at all: what is no candle is an error that names file and line, for a wrong price in the past
would be in every forecast. Rows, lines and what they grow to in memory are bounded.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.domain.inputs import HISTORY_ROWS_MAX, History
from alphapack.domain.market import name_of, symbol_id
from alphapack.models.candles import COLUMNS, EXPECTED, MINUTE_MS, named, whole
from alphapack.services.candles import ROWS_MAX
from alphapack.shell.inflation import DAMAGED, inflated

FILE_ROWS_MAX = 5_000_000
"""Rows of one file: nine years and a half."""
LINE_BYTES_MAX = 4_096
_TIME_MS_MIN, _TIME_MS_MAX = 10**11, 4_102_444_800_000  # 1973 to 2100, as recordings have it.
_MICROSECONDS_FROM = 10**14
_READ_BYTES = 1 << 18
_NAMES = ("ts_ms", *COLUMNS)
_KLINES = (*_NAMES, "close_time")
"""Columns of a file of data.binance.vision, which has no header on spot."""
_NUMBER = re.compile(rb"-?\d{1,40}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,3})?")
_STEM = re.compile(r"(?:[a-z][a-z0-9.-]*_)?([A-Z0-9][A-Z0-9_]*?)(?:[_-]1m(?:[_-].*)?)?")
_STATED = re.compile(r"((?:[a-z][a-z0-9.-]*:)?[A-Za-z0-9_]{1,40})=(.+)", re.DOTALL)
_SUFFIXES = frozenset({".csv", ".gz", ".xz", ".zst", ".parquet"})


class CandleFileError(ValueError):
    """A file that cannot be taken as history, or history that fits no market."""


class Past(NamedTuple):
    """Candles of a symbol from files, rows of ``(ts_ms, open, high, low, close, volume)``, oldest first, each minute once."""

    symbol: str
    rows: Float64Array2D
    shift_ms: int = 0

    def before(self, start_ms: int, since_ms: int = 0) -> "Past":
        """Return the newest candles that open at or after ``since_ms`` and had ended by ``start_ms``, as many as an engine keeps."""
        within = (self.rows[:, 0] >= since_ms) & (self.rows[:, 0] + MINUTE_MS <= start_ms)
        return self._replace(rows=self.rows[within][-ROWS_MAX:])

    def without(self, known_ms: Float64Array1D) -> "Past":
        """Return the candles of other minutes than these."""
        return self._replace(rows=self.rows[~np.isin(self.rows[:, 0], known_ms)])

    def shifted(self, start_ms: int) -> "Past":
        """Return the newest candles, moved by whole minutes so that the last one ends where the minute of ``start_ms`` begins."""
        shift_ms = start_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS - int(self.rows[-1, 0])
        rows = self.rows[-ROWS_MAX:].copy()
        rows[:, 0] += shift_ms
        return self._replace(rows=rows, shift_ms=shift_ms)

    def pages(self) -> Iterator[History]:
        """Yield these candles as inputs; place and time are for the source to stamp."""
        for start in range(0, len(self.rows), HISTORY_ROWS_MAX):
            page = self.rows[start : start + HISTORY_ROWS_MAX].astype("<f8")
            yield History(0, 0, self.symbol, self.shift_ms, page.tobytes())


def load(texts: Sequence[str], symbols: Sequence[str], venues: Sequence[str] = ()) -> list[Past]:
    """Read files given as ``FILE`` or ``SYMBOL=FILE`` for a market of ``symbols``, full names; files of one symbol are one past.

    Without ``SYMBOL`` it is the one that the file's name says, else the only one of the market. The venue in a file's name
    need not be the market's: spot is a fair past of a future. ``venues`` are those of which other symbols may come too.
    Raises ``CandleFileError``.
    """
    read_of: dict[str, list[tuple[Path, Float64Array2D]]] = {}
    for text in texts:
        stated = None if Path(text).exists() else _STATED.fullmatch(text)
        path = Path(stated[2] if stated is not None else text)
        symbol = _resolved(stated[1] if stated is not None else _symbol_in(path), path, symbols, venues, is_stated=stated is not None)
        read_of.setdefault(symbol, []).append((path, read(path)))
    return [Past(symbol, _joined(parts)) for symbol, parts in read_of.items()]


def read(path: Path) -> Float64Array2D:
    """Return the candles of a file, rows of ``(ts_ms, open, high, low, close, volume)``, oldest first, each minute once.

    CSV (``.csv``, also with ``.gz``, ``.xz`` or ``.zst``) has a header with those names, in any order and among others; or it
    is a table of klines of data.binance.vision, with or without its header. Parquet has columns of those names and needs
    pyarrow. Prices are in quote units and above zero, volume in base units; ``ts_ms`` is the opening time of a whole minute.
    Rows need not be in order; one that comes twice must say the same twice. Raises ``CandleFileError``.
    """
    if not path.is_file():
        raise CandleFileError(f"expected a file of candles, found {'a folder' if path.is_dir() else 'nothing'} at {path}")
    suffixes = {suffix.lower() for suffix in path.suffixes}
    parts = list(_of_parquet(path) if ".parquet" in suffixes else _of_csv(path))
    rows = np.concatenate(parts) if parts else np.empty((0, len(_NAMES)))
    if len(rows) == 0:
        raise CandleFileError(f"{path}: expected candles, found none")
    return _joined([(path, rows)])


def _joined(parts: Sequence[tuple[Path, Float64Array2D]]) -> Float64Array2D:
    """Return the rows of all parts in order of time, each minute once."""
    rows = np.concatenate([rows for _, rows in parts])
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    twice = np.flatnonzero(np.diff(rows[:, 0]) == 0)
    for at in twice[(rows[twice] != rows[twice + 1]).any(axis=1)][:1].tolist():
        names = ", ".join(str(path) for path, _ in parts)
        raise CandleFileError(f"{names}: expected one candle a minute, found two that differ: {named(rows[at])}; {named(rows[at + 1])}")
    rows = np.delete(rows, twice, axis=0)
    steps = np.diff(rows[:, 0])
    if len(steps) and steps.min() > MINUTE_MS:
        path, step_ms = parts[0][0], int(steps.min())
        raise CandleFileError(f"{path}: expected candles of one minute, found none that follows the one before within {step_ms} ms")
    return rows


def _symbol_in(path: Path) -> str:
    """Return the symbol that a file's name says, such as ``binance-spot_BTCUSDT_1m_2025.csv.gz``, or an empty string."""
    stem = path.name
    while (suffix := Path(stem).suffix).lower() in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    found = _STEM.fullmatch(stem)
    return found[1] if found is not None else ""


def _resolved(said: str, path: Path, symbols: Sequence[str], venues: Sequence[str], *, is_stated: bool) -> str:
    """Return the full name of the symbol that a file is a past of."""
    name = name_of(said) or said
    possible = [*symbols, *(symbol_id(venue, name) for venue in venues)] if said else symbols
    near = {symbol for symbol in possible if said.upper() in ("", symbol.upper(), name_of(symbol).upper())}
    if len(near) == 1 and (said or not venues):
        return near.pop()
    known = ", ".join((*symbols, *(f"{venue}:..." for venue in venues)))
    if near or not said:
        raise CandleFileError(f"{path}: expected one symbol that it is the history of, of {known}: give --history SYMBOL={path}")
    if is_stated:
        raise CandleFileError(f"{path}: expected a symbol of {known}, found {said}")
    raise CandleFileError(f"{path}: expected history of {known}, found a name that says {said}: if it is, give --history SYMBOL={path}")


# CSV


def _of_csv(path: Path) -> Iterator[Float64Array2D]:
    """Yield the rows of a text, a block at a time."""
    pick: Callable[[list[bytes]], tuple[float, ...] | None] | None = None
    number = 0
    try:
        for block in _lines(path):
            values: list[tuple[float, ...]] = []
            numbers: list[int] = []
            for line in block:
                number += 1
                text = line.rstrip(b"\r")
                if len(text) > LINE_BYTES_MAX or number > FILE_ROWS_MAX + 1:
                    raise CandleFileError(
                        f"{path}:{number}: expected at most {FILE_ROWS_MAX} lines of {LINE_BYTES_MAX} bytes, found more: {_shown(text)}"
                    )
                fields = text.split(b",")
                if pick is None:
                    pick = _picker(fields, path)
                    if not fields[0][:1].isdigit():
                        continue
                elif not text:
                    continue
                row = pick(fields)
                if row is None:
                    raise CandleFileError(f"{path}:{number}: expected {EXPECTED}, found {_shown(text)}")
                values.append(row)
                numbers.append(number)
            if values:
                rows = np.array(values, np.float64)
                _check(rows, path, numbers)
                yield rows
    except DAMAGED as error:
        raise CandleFileError(f"{path}:{number}: expected a whole {path.suffix[1:]} stream, found {error}") from None


def _lines(path: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a text in blocks; a line that is too long may come in pieces, each of which is too long."""
    rest = b""
    with path.open("rb") as stream:
        for chunk in inflated(path, iter(lambda: stream.read(_READ_BYTES), b"")):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if len(rest) > LINE_BYTES_MAX:
                lines.append(rest)
                rest = b""
            yield lines
    if rest:
        yield [rest]


def _picker(fields: list[bytes], path: Path) -> Callable[[list[bytes]], tuple[float, ...] | None]:
    """Return what reads a row, by the first line of a file: None for one that has no such numbers."""
    if fields[0][:1].isdigit():
        header = list(_KLINES[: len(fields)])
    else:
        header = [field.decode(errors="replace").strip('\ufeff "').replace("open_time", "ts_ms") for field in fields]
    missing = [name for name in _NAMES if header.count(name) != 1]
    if missing:
        found = _shown(b",".join(fields))
        raise CandleFileError(f"{path}:1: expected a header with {','.join(_NAMES)}, each once, found {found} ({', '.join(missing)})")
    places, end = [header.index(name) for name in _NAMES], header.index("close_time") if "close_time" in header else None
    wanted = max((*places, end or 0)) + 1

    def pick(texts: list[bytes]) -> tuple[float, ...] | None:
        if len(texts) < wanted:
            return None
        chosen = [texts[place] for place in places]
        if any(_NUMBER.fullmatch(text) is None for text in chosen):
            return None
        numbers = [float(text) for text in chosen]
        unit = 1_000 if numbers[0] >= _MICROSECONDS_FROM else 1
        if end is not None and (not texts[end].isdigit() or int(texts[end]) + 1 - int(numbers[0]) != MINUTE_MS * unit):
            return None
        return (numbers[0] / unit, *numbers[1:])

    return pick


def _check(rows: Float64Array2D, path: Path, numbers: Sequence[int]) -> None:
    """Raise where a row is no candle; ``numbers`` says where each stands."""
    good = whole(rows) & (rows[:, 0] >= _TIME_MS_MIN) & (rows[:, 0] < _TIME_MS_MAX)
    if not good.all():
        at = int(np.argmin(good))
        raise CandleFileError(f"{path}:{numbers[at]}: expected {EXPECTED} from 1973 to 2100, found {named(rows[at])}")


def _shown(line: bytes) -> str:
    return repr(line[:120].decode(errors="backslashreplace"))


# Parquet


def _of_parquet(path: Path) -> Iterator[Float64Array2D]:
    """Yield the rows of a Parquet file, a batch at a time."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise CandleFileError(f'{path}: Parquet needs pyarrow, which is not installed: pip install "alphapack[parquet]"') from error
    try:
        with parquet.ParquetFile(path) as source:
            _check_schema(source, pyarrow.types, path)
            row = 0
            for batch in source.iter_batches(columns=list(_NAMES)):
                columns = [batch.column(name).cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False) for name in _NAMES]
                rows = np.column_stack(columns)
                _check(rows, path, range(row + 1, row + len(rows) + 1))
                row += len(rows)
                yield rows
    except (pyarrow.ArrowException, OSError) as error:
        raise CandleFileError(f"{path}: expected a Parquet file, found {str(error).splitlines()[0][:200]}") from None


def _check_schema(source: Any, types: Any, path: Path) -> None:
    """Refuse a Parquet file without the columns, or with too many rows."""
    schema = source.schema_arrow
    missing = [name for name in _NAMES if schema.names.count(name) != 1]
    if missing:
        raise CandleFileError(f"{path}: expected the columns {','.join(_NAMES)}, each once, found {','.join(schema.names)[:200]}")
    for name in _NAMES:
        kind = schema.field(name).type
        if not (types.is_integer(kind) or types.is_floating(kind)):
            raise CandleFileError(f"{path}: expected numbers in the column {name}, found {kind}")
    if source.metadata.num_rows > FILE_ROWS_MAX:
        raise CandleFileError(f"{path}: expected at most {FILE_ROWS_MAX} rows, found {source.metadata.num_rows}")
