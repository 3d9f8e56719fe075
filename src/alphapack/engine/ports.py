"""What the core and its shell ask of each other, drawn so that other stores can stand behind the same words."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from alphapack.domain.events import AnyRecord, AnyWireEvent, DepthDiff
from alphapack.domain.inputs import AnyInput
from alphapack.domain.market import Verdict
from alphapack.domain.readings import Book, Health, Microstructure, SymbolInfo


class Codec(Protocol):
    """A venue's wire format and continuity rule; holds no connection, clock or file."""

    venue: str
    frame_format: int
    """The format of ``kernels.wire`` in which this venue's frames may be taken whole by a kernel."""

    def decode(self, payload: bytes, symbol: str) -> tuple[AnyWireEvent, ...]:
        """Return what the frame says; ``symbol`` is the venue's name where the payload has none.

        Raises ``FrameError`` with one line on what was expected and what came.
        """
        ...

    def verdict(self, diff: DepthDiff, last: int, *, first_after_snapshot: bool) -> Verdict:
        """Judge a difference against the book's last update id by the venue's rule."""
        ...

    def contract_value(self, symbol: str) -> float | None:
        """Return the quote value of one contract of an inverse instrument, None for a linear one."""
        ...


class Service(Protocol):
    """Owner of one slice of state; the engine saves, loads and feeds it."""

    def save(self) -> bytes:
        """Return the whole state, versioned."""
        ...

    def load(self, state: bytes) -> None:
        """Replace the whole state by one that ``save`` returned."""
        ...


class Journal(Protocol):
    """Append-only inputs; what is in it is what happened."""

    @property
    def last_seq(self) -> int:
        """The last durable seq; 0 while there is none."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes held."""
        ...

    def append(self, entries: Iterable[AnyInput], *, allow_gap: bool = False) -> None:
        """Make the entries durable before returning; only with ``allow_gap`` may their first seq leave a hole."""
        ...

    def read(self, after_seq: int = 0) -> Iterator[AnyInput]:
        """Yield the inputs with ``seq > after_seq`` in order."""
        ...

    def drop_through(self, seq: int) -> None:
        """Delete what is wholly at or before ``seq``, as far as that is cheap."""
        ...

    def probe(self) -> None:
        """Raise ``OSError`` unless it can be written."""
        ...


class LedgerRow(msgspec.Struct, frozen=True):
    """One record as it is kept: keyed (engine, seq, ordinal)."""

    seq: int
    ordinal: int
    ts_ns: int
    kind: str
    symbol: str
    body: bytes
    """The record as JSON."""


class Ledger(Protocol):
    """Append-only, hash-chained rows about what people care for."""

    def append(self, rows: Iterable[LedgerRow]) -> None:
        """Make the rows durable before returning."""
        ...

    def rows(self, after_seq: int = 0) -> Iterator[LedgerRow]:
        """Yield the rows with ``seq > after_seq`` in key order."""
        ...

    def reconcile(self, rows: Iterable[LedgerRow]) -> list[LedgerRow]:
        """Return those of the rows that are not kept yet; raise where a kept one differs."""
        ...

    def probe(self) -> None:
        """Raise ``OSError`` unless it can be written."""
        ...


class CheckpointStore(Protocol):
    """Whole engine states, newest last; each is verified when written and when read."""

    @property
    def oldest_kept(self) -> int:
        """The seq of the oldest one; 0 where there is none."""
        ...

    def write(self, seq: int, state: bytes) -> None:
        """Keep a state durably, verify it by reading it back, and drop all but the newest three."""
        ...

    def newest(self, *, before_seq: int | None = None) -> tuple[int, bytes] | None:
        """Return the newest readable state (with ``seq < before_seq`` where given), skipping damaged ones."""
        ...


class Executor(Protocol):
    """Does what the core requested, off the loop, and hands the answer to the runner as an input."""

    def start(self, request: AnyRecord) -> None:
        """Begin the work and return at once."""
        ...


class Host(Protocol):
    """What the HTTP layer may ask of the running engine; every method is called on the engine's loop and returns at once."""

    def health(self) -> Health:
        """Return the state of the whole."""
        ...

    def resolve(self, text: str) -> str | None:
        """Return the full name of the symbol that ``BTCUSDT`` or ``venue:SYMBOL`` (any case) names, None if unknown."""
        ...

    def symbols(self) -> list[SymbolInfo]:
        """Return every known symbol in order of name."""
        ...

    def microstructure(self, symbol: str) -> Microstructure | None:
        """Return the features of a full symbol name, None while its book has never been LIVE."""
        ...

    def book(self, symbol: str, depth: int) -> Book | None:
        """Return the best ``depth`` levels, None while the book has never been LIVE."""
        ...

    def history(self, kind: str, symbol: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]] | None:
        """Return columns, oldest row first: the first ``limit`` rows with ``ts_ms >= from_ms``; None for an unknown kind."""
        ...

    def sequence(self) -> tuple[int, int]:
        """Return ``(seq, durable_seq)``."""
        ...

    def config(self) -> dict[str, object]:
        """Return the effective settings, secrets masked."""
        ...

    def counters(self) -> dict[str, float]:
        """Return monotonic totals and gauges by Prometheus metric name without prefix."""
        ...
