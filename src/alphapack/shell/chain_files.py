"""Recorded option chains as the bodies that a user would post, in order of time.

Tables (CSV, plain or packed, and Parquet) have a row an option and a column of times; JSON is a whole chain: as it is posted, as
Deribit answers, or nested by expiry. A file is taken whole or not at all. What a row says is for ``models/chain.py`` to judge, so
that a bad row is rejected there with its reason; what cannot be placed in time or by underlying is an error here.
"""

import contextlib
import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from alphapack.domain.market import base_of
from alphapack.models.chain import ROWS_MAX
from alphapack.shell.inflation import DAMAGED, inflated

FILE_ROWS_MAX = 3_000_000
"""Rows of one table, all of which are held: it need not be in order of time."""
JSON_BYTES_MAX = 64_000_000
LINE_BYTES_MAX = 1 << 14
HEAD_BYTES = 1 << 16
"""How far into a file its form must show."""
Snapshot = tuple[int, str, bytes]
"""Time in ms, underlying and body."""

_READ_BYTES = 1 << 18
_TIME_MS_MIN, _TIME_MS_MAX = 10**11, 4_102_444_800_000  # 1973 to 2100, as recordings have it.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = ("ts_ms", "snapshot_ms", "timestamp")
_NAMED = (
    *("instrument_name", "underlying_price", "index_price", "mark_iv", "bid_iv", "ask_iv"),
    *("bid_price", "ask_price", "mark_price", "best_bid_price", "best_ask_price", "bid", "ask", "mark"),
)
_PLAIN = ("k", "tenor", "type", "iv", "bid", "ask", "mark")
_ENVELOPE = ("spot", "forward", "k_unit", "iv_unit")
"""Columns that hold for a whole chain."""
_TEXTS = frozenset({"instrument_name", "tenor", "type", "k_unit", "iv_unit"})
_RECORDED_AS = {"underlying": "underlying_price", "implied_volatility": "mark_iv"}
"""Names that recordings have for fields of Deribit."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,2})?").fullmatch
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_BASE = re.compile(r"[A-Z0-9]{1,20}")
_STEM = re.compile(r"(?:[a-z][a-z0-9-]*_)?([A-Z0-9]{1,20})(?:[_.-].*)?")
_EXPECTED = (
    f"a table with the columns instrument_name or k, tenor and type, and one of {', '.join(_TIMES)}; "
    "or the JSON of a chain with its time and instrument_name in its rows"
)


class ChainFileError(ValueError):
    """A file that cannot be taken as recorded chains."""


def is_chain_file(path: Path) -> bool:
    """Tell by its head whether a file holds recorded option chains; what cannot be read does not."""
    try:
        if not path.is_file():
            return False
        if path.suffix.lower() == ".parquet":
            return _is_table(_parquet_names(path))
        head = _head(path)
        first, _, rest = head.lstrip().partition(b"\n")
        if not first.startswith((b"{", b"[")):
            return _is_table(_header(first.decode(errors="replace")))
    except (*DAMAGED, OSError, csv.Error, ChainFileError):
        return False
    if rest.strip() and _is_json(first):  # One document a line, as logs have it.
        return False
    if first.startswith(b"["):
        return b'"instrument_name"' in head
    return b'"chain"' in head or (b'"instrument_name"' in head and (b'"result"' in head or b'"expiries"' in head))


def snapshots(path: Path, base: str | None = None) -> Iterator[Snapshot]:
    """Yield the chains of a file, oldest first and then by underlying: when, of what, and the body as it would be posted.

    ``base`` is the underlying of rows that name no instrument; where left out, the file's name says it (``BTC_chain.csv``).
    Raises ``ChainFileError``.
    """
    if not path.is_file():
        raise ChainFileError(f"expected a file of option chains, found {'a folder' if path.is_dir() else 'nothing'} at {path}")
    if path.suffix.lower() == ".parquet":
        yield from _grouped(path, _parquet_names(path), _parquet_rows(path), base)
        return
    try:
        if _head(path).lstrip().startswith((b"{", b"[")):
            yield from _of_json(path, base)
        else:
            lines = _lines(path)
            yield from _grouped(path, _header(next(lines, "")), csv.reader(lines), base)
    except DAMAGED as error:
        raise ChainFileError(f"{path}: expected a whole {path.suffix[1:]} stream, found {error}") from None
    except csv.Error as error:
        raise ChainFileError(f"{path}: expected a table, found {error}") from None


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


# Tables


def _header(line: str) -> list[str]:
    names = next(csv.reader([line.lstrip("\ufeff")]), [])
    return [name.strip() for name in names]


def _is_table(names: Sequence[str]) -> bool:
    """Tell whether a table of such columns holds option chains."""
    found = set(names)
    return bool(found & set(_TIMES)) and ("instrument_name" in found or found >= {"k", "tenor", "type"})


def _grouped(path: Path, names: Sequence[str], rows: Iterator[Sequence[Any]], base: str | None) -> Iterator[Snapshot]:
    """Gather the rows of a table by time and underlying."""
    if not _is_table(names):
        raise ChainFileError(f"{path}: expected {_EXPECTED}, found {','.join(names)[:200]!r}")
    time_at = min(names.index(name) for name in _TIMES if name in names)
    name_at = names.index("instrument_name") if "instrument_name" in names else None
    known = _NAMED if name_at is not None else _PLAIN
    fields = [(at, field, f'"{field}":') for at, field in enumerate(_RECORDED_AS.get(name, name) for name in names) if field in known]
    envelope = [(at, name, f'"{name}":') for at, name in enumerate(names) if name in _ENVELOPE]
    twice = {field for _, field, _ in fields if sum(field == other for _, other, _ in fields) > 1}
    if twice:
        raise ChainFileError(f"{path}: expected one column for each field, found more for {', '.join(sorted(twice))}")
    stated_base = None if name_at is not None else _base_of(path, base)
    chains: dict[tuple[int, str], _Chain] = {}
    times: dict[object, int] = {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            if not row:
                continue
            raise ChainFileError(f"{path}:{number}: expected {len(names)} values, found {len(row)}")
        if number > FILE_ROWS_MAX + 1:
            raise ChainFileError(f"{path}: expected at most {FILE_ROWS_MAX:,} rows, found more")
        ts_ms = times.get(time := row[time_at])
        if ts_ms is None:
            ts_ms = times[time] = _time_ms(time, path, number)
        key = ts_ms, stated_base or _underlying(row[name_at or 0], path, number)
        facts = _fields(row, envelope) if envelope else ""
        chain = chains.get(key)
        if chain is None:
            chain = chains[key] = _Chain(facts)
        elif chain.facts != facts:
            raise ChainFileError(f"{path}:{number}: expected {', '.join(_ENVELOPE)} alike in all rows of a chain, found {facts}")
        if chain.n == ROWS_MAX:
            raise ChainFileError(f"{path}:{number}: expected at most {ROWS_MAX:,} rows in a chain, found more at {time}")
        chain.add(f"{{{_fields(row, fields)}}}")
    for key in sorted(chains):
        yield *key, chains.pop(key).body(key[0])


class _Chain:
    """The rows of one chain, as JSON in one buffer: those of a whole file are held at once."""

    def __init__(self, facts: str) -> None:
        self.facts, self.n = facts, 0
        self._rows = bytearray()

    def add(self, row: str) -> None:
        """Append a row."""
        if self.n:
            self._rows += b","
        self._rows += row.encode()
        self.n += 1

    def body(self, ts_ms: int) -> bytes:
        """Return the chain as it would be posted."""
        return b'{"chain":[%b],%b"ts_ms":%d}' % (bytes(self._rows), f"{self.facts},".encode() if self.facts else b"", ts_ms)


def _fields(row: Sequence[Any], fields: Sequence[tuple[int, str, str]]) -> str:
    """Return the inside of an object of a row's cells; those that are empty are left out."""
    return ",".join([name + text for at, field, name in fields if (text := _json(row[at], field))])


def _json(cell: object, field: str) -> str:
    """Return a cell as JSON, nothing for one that is empty; a text that is no number stays one, for the chain to reject its row."""
    if cell is None or cell == "":
        return ""
    if field in _TEXTS:
        return f'"{cell}"' if isinstance(cell, str) and _PLAIN_TEXT(cell) else _encoded(str(cell))
    if isinstance(cell, str):
        if _NUMBER(cell):
            return cell
        try:
            cell = float(cell)
        except ValueError:
            return _encoded(cell)
    return _encoded(cell) if not isinstance(cell, float) or math.isfinite(cell) else ""


def _encoded(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _time_ms(value: object, path: Path, number: int) -> int:
    """Return a time, given as ISO 8601 or in milli-, micro- or nanoseconds, in milliseconds."""
    ms = -1
    if isinstance(value, str):
        if value.isascii() and value.isdigit() and len(value) < 20:
            value = int(value)
        else:
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        ms = ((value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)
    elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        ms = int(value)
        while ms >= _TIME_MS_MAX:
            ms //= 1_000
    if not _TIME_MS_MIN <= ms < _TIME_MS_MAX:
        raise ChainFileError(f"{path}:{number}: expected a time from 1973 to 2100, in ISO 8601 or milliseconds, found {str(value)[:60]!r}")
    return ms


def _underlying(name: object, path: Path, number: int) -> str:
    """Return the underlying of an instrument's name; the rest of the name is for the chain to judge."""
    base = str(name).partition("-")[0].partition("_")[0]
    if _BASE.fullmatch(base) is None:
        raise ChainFileError(f"{path}:{number}: expected the name of an option such as BTC-27MAR26-70000-C, found {str(name)[:60]!r}")
    return base


def _base_of(path: Path, base: str | None) -> str:
    """Return the underlying of rows that do not say it."""
    if base is None:
        found = _STEM.fullmatch(path.name)
        base = found[1] if found is not None else ""
    if _BASE.fullmatch(base.upper()) is None:
        raise ChainFileError(f"{path}: expected the underlying, given or in the file's name, such as BTC_chain.csv, found {path.name!r}")
    return base_of(base)


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text."""
    rest = b""
    for chunk in _blocks(path):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if len(line) > LINE_BYTES_MAX:
                rest = line
                break
            yield line.decode(errors="backslashreplace")
        if len(rest) > LINE_BYTES_MAX:
            raise ChainFileError(f"{path}: expected lines of at most {LINE_BYTES_MAX:,} bytes, found a longer one: {rest[:60]!r}")
    if rest:
        yield rest.decode(errors="backslashreplace")


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from inflated(path, iter(lambda: stream.read(_READ_BYTES), b""))


def _head(path: Path) -> bytes:
    """Return the beginning of a file, decompressed."""
    head = b""
    for block in _blocks(path):
        head += block[: HEAD_BYTES - len(head)]
        if len(head) >= HEAD_BYTES:
            break
    return head


# Parquet


def _parquet_names(path: Path) -> list[str]:
    with _parquet(path) as source:
        return list(source.schema_arrow.names)


def _parquet_rows(path: Path) -> Iterator[Sequence[Any]]:
    """Yield the rows of a Parquet file, a batch at a time."""
    from pyarrow import ArrowException, types

    try:
        with _parquet(path) as source:
            nested = [field.name for field in source.schema_arrow if types.is_nested(field.type)]
            if nested:
                raise ChainFileError(f"{path}: expected columns of plain values, found {nested[0]} of lists or records")
            for batch in source.iter_batches(batch_size=8_192):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except (ArrowException, OSError) as error:
        raise ChainFileError(f"{path}: expected a whole Parquet file, found {str(error).splitlines()[0][:200]}") from None


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ChainFileError(f'{path}: Parquet needs pyarrow, which is not installed: pip install "alphapack[parquet]"') from error
    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise ChainFileError(f"{path}: expected a Parquet file, found {str(error).splitlines()[0][:200]}") from None


# JSON


def _of_json(path: Path, base: str | None) -> Iterator[Snapshot]:
    """Yield the chains of a JSON document, one an underlying."""
    raw = bytearray()
    for block in _blocks(path):
        raw += block
        if len(raw) > JSON_BYTES_MAX:
            raise ChainFileError(f"{path}: expected at most {JSON_BYTES_MAX:,} bytes of JSON, found more")
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ChainFileError(f"{path}: expected the JSON of one chain, found {error}") from None
    if not isinstance(document, Mapping):
        raise ChainFileError(f"{path}: expected the JSON of a chain with its time, found a list")
    time, rows, envelope = _chain_of(document, path)
    ts_ms = _time_ms(time, path, 1)
    facts = ",".join([f'"{name}":{_encoded(value)}' for name, value in envelope.items()])
    chains: dict[str, _Chain] = {}
    for row in rows:
        is_named = isinstance(row, Mapping) and "instrument_name" in row
        of = _underlying(row["instrument_name"], path, 1) if is_named else _base_of(path, base)
        chains.setdefault(of, _Chain(facts)).add(_encoded(row))
    for of in sorted(chains):
        yield ts_ms, of, chains[of].body(ts_ms)


def _chain_of(document: Mapping[str, Any], path: Path) -> tuple[object, list[Any], dict[str, Any]]:
    """Return the time, rows and envelope of a document: as posted, as Deribit answers, or nested by expiry."""
    if isinstance(rows := document.get("chain"), list):
        envelope = {name: document[name] for name in document if name not in ("chain", "ts_ms")}
        return document.get("ts_ms"), rows, envelope
    if isinstance(rows := document.get("result"), list):
        return document.get("usOut"), rows, {}
    expiries = document.get("expiries")
    if isinstance(expiries, Mapping) and all(
        isinstance(one, Mapping) and isinstance(one.get("options"), list) for one in expiries.values()
    ):
        rows = [_of_deribit(row) for one in expiries.values() for row in one["options"]]
        spots = {one.get("spot_price") for one in expiries.values()} - {None}
        envelope = {"spot": spots.pop()} if len(spots) == 1 else {}
        return document.get("captured_at_utc", document.get("ts_ms")), rows, envelope
    raise ChainFileError(f"{path}: expected {_EXPECTED}, found the fields {', '.join(map(str, document))[:200]}")


def _of_deribit(row: Any) -> Any:
    """Return the fields of a row that Deribit has too."""
    return {name: row[name] for name in _NAMED if name in row} if isinstance(row, Mapping) else row
