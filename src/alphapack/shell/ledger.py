"""The ledger on disk: append-only rows about what people care for, each chained to the one before by a hash.

One SQLite file holds the ledger of one engine. The key (seq, ordinal) is packed into the integer primary key, so rows
lie in key order with no second index. ``heads`` holds the number of rows and the last hash, written in the same
transaction: a chain alone cannot tell that its end is missing. Every read verifies the chain as it goes, so a row that
was changed, moved or lost is refused, never served.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from alphapack.engine.ports import LedgerRow
from alphapack.shell.journal import sync_folder

ROW_VERSION = 1
ORDINAL_BITS = 16
SEQ_MAX = (1 << 47) - 1

UPCASTERS: dict[int, Callable[[LedgerRow], LedgerRow]] = {}
"""By stored row version: a row to the same row of the next version."""

_APPLICATION_ID = 0x41504C47  # "APLG": tells a ledger from any other SQLite file.
_SCHEMA_VERSION = 1
_SCHEMA = {
    "rows": """CREATE TABLE rows(
  key INTEGER PRIMARY KEY,
  seq INTEGER AS (key >> 16),
  ordinal INTEGER AS (key & 65535),
  version INTEGER NOT NULL,
  ts_ns INTEGER NOT NULL,
  kind TEXT NOT NULL,
  symbol TEXT NOT NULL,
  body BLOB NOT NULL,
  hash BLOB NOT NULL
) STRICT""",
    "heads": "CREATE TABLE heads(engine TEXT PRIMARY KEY, rows INTEGER NOT NULL, hash BLOB NOT NULL) STRICT, WITHOUT ROWID",
}
_PAGE_BYTES = 8192
_PAGE_ROWS = 1_000
_GENESIS = bytes(32)
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


class LedgerError(Exception):
    """A ledger that cannot be used as asked; the message says what to do."""


class LedgerDamaged(LedgerError):
    """A file that is not what was written."""


class LedgerMismatch(LedgerError):
    """A row that recovery computes otherwise than it was kept."""


class LedgerUnavailable(OSError):
    """The disk refuses for now (full, read-only, I/O error); nothing of the append was kept."""


class _Head(NamedTuple):
    rows: int
    key: int
    hash: bytes


class SqliteLedger:
    """The ledger of one engine; one thread appends, any thread reads (each read on a connection of its own)."""

    def __init__(self, path: Path, *, engine: str) -> None:
        self.path = path
        self.engine = engine
        self._lock = threading.Lock()
        self._unsure = False
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained("opening it"):
            self._writer = self._open()
            try:
                self._prepare()
                self._head = self._attempted = self._stored_head(self._writer)
                self._check_last(self._writer, self._head)
            except BaseException:
                self._writer.close()
                raise

    @classmethod
    def reader(cls, path: Path) -> "SqliteLedger":
        """Return the ledger of whatever engine a file holds, to be read as it is now; nothing is written or made."""
        ledger = cls.__new__(cls)
        ledger.path = path
        with ledger._explained("reading it"), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
                raise ledger._damaged("expected a ledger, found another file")
            ledger.engine = connection.execute("SELECT engine FROM heads").fetchone()[0]
            ledger._head = ledger._stored_head(connection)
        return ledger

    @property
    def count(self) -> int:
        """Rows held."""
        return self._head.rows

    @property
    def head(self) -> bytes:
        """Hash of the last row; it fixes every row before it."""
        return self._head.hash

    @property
    def last_key(self) -> tuple[int, int] | None:
        """``(seq, ordinal)`` of the last row, None while there is none."""
        return _unpacked(self._head.key) if self._head.rows else None

    def append(self, rows: Iterable[LedgerRow]) -> None:
        """Make the rows durable in one transaction before returning; their keys rise.

        Raises ``LedgerUnavailable`` (an ``OSError``) when the disk refuses: then none of the rows was kept.
        """
        batch = list(rows)
        if not batch:
            return
        with self._lock, self._explained("appending to it"):
            self._refresh()
            count, last, previous = self._head
            stored = []
            for row in batch:
                key = _packed(row.seq, row.ordinal)
                if key <= last:
                    raise ValueError(f"expected a key after {_unpacked(last)}, found {(row.seq, row.ordinal)} in {self.path}")
                previous = _chained(previous, self.engine, ROW_VERSION, row)
                stored.append((key, ROW_VERSION, row.ts_ns, row.kind, row.symbol, row.body, previous))
                last = key
            head = self._attempted = _Head(count + len(batch), last, previous)
            with self._transaction() as writer:
                self._check_sole_writer(writer)
                writer.executemany("INSERT INTO rows(key, version, ts_ns, kind, symbol, body, hash) VALUES (?, ?, ?, ?, ?, ?, ?)", stored)
                writer.execute("UPDATE heads SET rows = ?, hash = ? WHERE engine = ?", (head.rows, head.hash, self.engine))
            self._head = head

    def rows(self, after_seq: int = 0) -> Iterator[LedgerRow]:
        """Yield the rows with ``seq > after_seq`` that are durable now, in key order; the chain is verified on the way."""
        return self._read((after_seq + 1) << ORDINAL_BITS)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every row; raise ``LedgerDamaged`` naming the first bad one. ``progress`` is told (rows done, rows in all)."""
        head = self._head
        done = 0
        for _ in self._read(0):
            done += 1
            if progress is not None and done % _PAGE_ROWS == 0:
                progress(done, head.rows)
        if progress is not None:
            progress(done, head.rows)
        if done != head.rows:
            raise self._damaged(f"expected {head.rows} rows, found {done}")

    def reconcile(self, rows: Iterable[LedgerRow], *, after_seq: int | None = None) -> list[LedgerRow]:
        """Compare rows that recovery computed with those kept, and return the ones still to append.

        The rows kept from the first computed one on (or with ``seq > after_seq``) must be the beginning of the
        computed ones, equal in every byte. Raises ``LedgerMismatch`` for the first that is not, also for one that is
        kept and was not computed.
        """
        missing: list[LedgerRow] = []
        kept = None if after_seq is None else self.rows(after_seq)
        for row in rows:
            if kept is None:
                kept = self._read(_packed(row.seq, row.ordinal))
            found = next(kept, None)
            if found is None:
                missing.append(row)
            elif found != row:
                raise self._mismatch(row, found)
        extra = next(kept, None) if kept is not None else None
        if extra is not None:
            raise self._mismatch(None, extra)
        return missing

    def probe(self) -> None:
        """Raise ``OSError`` unless the file can be written durably again."""
        with self._lock, self._explained("probing it"):
            self._refresh()
            with self._transaction() as writer:
                writer.execute("UPDATE heads SET rows = ? WHERE engine = ?", (self._head.rows, self.engine))

    def close(self) -> None:
        """Give the file up; everything appended is already durable."""
        with self._lock:
            self._writer.close()

    def _open(self) -> sqlite3.Connection:
        existed = self.path.exists() and self.path.stat().st_size > 0
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            if not existed:
                connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")  # On macOS fsync alone leaves bytes in the drive's cache.
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA journal_size_limit = 67108864")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self) -> None:
        """Make the tables of a new file, or see that those of an old one are ours."""
        writer = self._writer
        names = ("application_id", "user_version", "page_count")
        found_id, found_version, pages = (writer.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        found = dict(writer.execute("SELECT name, sql FROM sqlite_master").fetchall())
        if not found and found_id == 0 and pages <= 1:
            with self._transaction():
                for statement in _SCHEMA.values():
                    writer.execute(statement)
                writer.execute("INSERT INTO heads VALUES (?, 0, ?)", (self.engine, _GENESIS))
                writer.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
                writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            sync_folder(self.path.parent)
            return
        if found_id != _APPLICATION_ID:
            raise self._damaged(f"expected a ledger (application id {_APPLICATION_ID:#x}), found id {found_id:#x}")
        if found_version != _SCHEMA_VERSION:
            raise LedgerError(
                f"{self.path}: expected ledger version {_SCHEMA_VERSION}, found {found_version}; open it with the alphapack that wrote it"
            )
        if found != _SCHEMA:
            raise self._damaged(f"expected the tables {', '.join(_SCHEMA)}, found {found}")

    def _stored_head(self, connection: sqlite3.Connection) -> _Head:
        heads = connection.execute("SELECT engine, rows, hash FROM heads").fetchall()
        if len(heads) != 1 or heads[0][0] != self.engine:
            raise LedgerError(
                f"{self.path}: expected the ledger of engine {self.engine!r}, found {[engine for engine, *_ in heads]}; "
                "name that engine or choose another --data-dir"
            )
        key = connection.execute("SELECT max(key) FROM rows").fetchone()[0]
        return _Head(heads[0][1], -1 if key is None else key, heads[0][2])

    def _check_last(self, connection: sqlite3.Connection, head: _Head) -> None:
        """See that the last row is whole and is the one that the head names: cheap, and done at every start."""
        if head.rows == 0 and head.key == -1 and head.hash == _GENESIS:
            return
        before = connection.execute("SELECT key FROM rows ORDER BY key DESC LIMIT 1 OFFSET 1").fetchone()
        if (before is None) != (head.rows == 1):
            raise self._damaged(f"expected {head.rows} rows, found fewer or more")
        for _ in self._read(head.key, head):
            pass

    def _read(self, from_key: int, head: _Head | None = None) -> Iterator[LedgerRow]:
        """Yield the rows from a packed key on, through the last one of ``head``, verifying each against the one before."""
        head = head or self._head
        if from_key > head.key:
            return
        with self._explained("reading it"), closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as reader:
            before = reader.execute("SELECT hash FROM rows WHERE key < ? ORDER BY key DESC LIMIT 1", (from_key,)).fetchone()
            previous = _GENESIS if before is None else before[0] if isinstance(before[0], bytes) else b""
            key = from_key - 1
            while key < head.key:
                page = reader.execute(
                    "SELECT key, version, ts_ns, kind, symbol, body, hash FROM rows WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
                    (key, head.key, _PAGE_ROWS),
                ).fetchall()
                if not page:
                    break
                for key, version, ts_ns, kind, symbol, body, found in page:
                    seq, ordinal = _unpacked(key)
                    row = LedgerRow(seq, ordinal, ts_ns, kind, symbol, body)
                    chained = _chained(previous, self.engine, version, row)
                    if chained != found:
                        raise self._damaged(
                            f"the row seq {seq} ordinal {ordinal} is not what was written, or rows before it are missing: "
                            f"expected hash {_short(chained)}, found {_short(found)}"
                        )
                    previous = chained
                    yield _upcast(version, row, self.path)
            if key != head.key or previous != head.hash:
                raise self._damaged(
                    f"the rows end at seq {max(key, 0) >> ORDINAL_BITS}: expected last hash {_short(head.hash)}, found {_short(previous)}"
                )

    def _refresh(self) -> None:
        """After a failed transaction ask the file whether it holds it all the same."""
        if self._unsure:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            stored = self._stored_head(self._writer)
            if stored not in (self._head, self._attempted):
                raise self._foreign(stored.rows)
            self._head = stored
            self._unsure = False

    def _check_sole_writer(self, writer: sqlite3.Connection) -> None:
        rows, last = writer.execute("SELECT rows, hash FROM heads").fetchone()
        if (rows, last) != (self._head.rows, self._head.hash):
            raise self._foreign(rows)

    def _foreign(self, rows: int) -> LedgerError:
        return LedgerError(
            f"{self.path}: expected the {self._head.rows} rows that this process left, found {rows}; stop the other process that writes it"
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._unsure = True
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self._unsure = False

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn SQLite's errors into ours: the disk refuses, or the file is not what was written."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is not None and code & 0xFF in _UNAVAILABLE:
                raise LedgerUnavailable(f"{self.path}: {doing} failed: {error}") from error
            raise self._damaged(f"{doing} failed: {error}") from error

    def _damaged(self, what: str) -> LedgerDamaged:
        return LedgerDamaged(
            f"{self.path}: {what}. Nothing was changed. Keep a copy of the file, then restore it from a backup "
            "or move it away to begin a new ledger"
        )

    def _mismatch(self, expected: LedgerRow | None, found: LedgerRow) -> LedgerMismatch:
        return LedgerMismatch(
            f"{self.path}: row seq {found.seq} ordinal {found.ordinal}: expected {_shown(expected)} as the replay computes it, "
            f"found {_shown(found)}. The journal, the settings or the program are not those that wrote the ledger; "
            "use the same ones, or another --data-dir"
        )


def _packed(seq: int, ordinal: int) -> int:
    if not (0 < seq <= SEQ_MAX and 0 <= ordinal < 1 << ORDINAL_BITS):
        raise ValueError(f"expected seq in 1..{SEQ_MAX} and ordinal in 0..{(1 << ORDINAL_BITS) - 1}, found {(seq, ordinal)}")
    return seq << ORDINAL_BITS | ordinal


def _unpacked(key: int) -> tuple[int, int]:
    return key >> ORDINAL_BITS, key & ((1 << ORDINAL_BITS) - 1)


def _chained(previous: bytes, engine: str, version: int, row: LedgerRow) -> bytes:
    content = _ENCODER.encode((engine, row.seq, row.ordinal, version, row.ts_ns, row.kind, row.symbol, row.body))
    return blake2b(previous + content, digest_size=32).digest()


_ENCODER = msgspec.msgpack.Encoder()


def _upcast(version: int, row: LedgerRow, path: Path) -> LedgerRow:
    for older in range(version, ROW_VERSION):
        row = UPCASTERS[older](row)
    if version > ROW_VERSION:
        raise LedgerError(f"{path}: expected rows of version {ROW_VERSION} or older, found {version}; upgrade alphapack to read it")
    return row


def _short(value: Any) -> str:
    return value.hex()[:16] if isinstance(value, bytes) else repr(value)[:40]


def _shown(row: LedgerRow | None) -> str:
    return "no row" if row is None else f"{row.kind} {row.symbol} {row.body[:200]!r} at {row.ts_ns} ns (key {row.seq}, {row.ordinal})"
