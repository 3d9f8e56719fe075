"""From what is on disk to the engine as it was: newest valid checkpoint, then the tail of the journal.

Ledger rows are a function of the inputs, so the tail makes them again: those that exist must be equal to the byte, those
that a crash kept from being written are appended. A mismatch means that the files or the code are not what they were, and
then nothing is started.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from alphapack.domain.events import Record, WorkRequested
from alphapack.domain.inputs import AnyInput
from alphapack.engine.engine import Engine
from alphapack.engine.ports import LedgerRow
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.journal import FileJournal
from alphapack.shell.ledger import SqliteLedger

_encode = msgspec.json.Encoder().encode


class RecoveryError(Exception):
    """State on disk that cannot be taken up again."""


def ledger_rows(entry: AnyInput, records: Sequence[Record]) -> list[LedgerRow]:
    """Return the records that people care about as rows; requests for work are not among them."""
    return [
        LedgerRow(entry.seq, ordinal, entry.ts_ns, str(record.__struct_config__.tag), getattr(record, "symbol", ""), _encode(record))
        for ordinal, record in enumerate(records)
        if type(record) is not WorkRequested
    ]


def recover(
    build: Callable[[], Engine],
    journal: FileJournal,
    ledger: SqliteLedger,
    checkpoints: FileCheckpoints,
    report: Callable[[str], None],
) -> Engine:
    """Return the engine after every input of the journal, and the ledger with every row of them."""
    engine = _restored(build, journal, checkpoints, report)
    last_key = ledger.last_key
    if last_key is not None and last_key[0] > max(journal.last_seq, engine.seq):
        raise RecoveryError(
            f"the ledger reaches seq {last_key[0]}, the journal only {journal.last_seq}: inputs that were acknowledged are missing; "
            "restore the journal folder from a backup, or erase the state with: alphapack reset"
        )
    lacking = engine.records_kept - (ledger.count - sum(1 for _ in ledger.rows(engine.seq)))
    if lacking > 0:
        if journal.first_seq == 1 and not journal.gaps():
            report(f"the ledger lacks {lacking} rows from before the checkpoint at seq {engine.seq}: replaying from the first input")
            engine = build()
        else:
            report(
                f"the ledger lacks {lacking} rows from before seq {engine.seq}, and the journal no longer holds all inputs that caused them"
            )
    started = engine.seq
    for first, last in journal.gaps():
        if started < last:
            raise RecoveryError(
                f"the journal lacks seq {first} to {last}, which the checkpoint at seq {started} does not cover: "
                "restore the checkpoints folder from a backup, or erase the state with: alphapack reset"
            )

    def tail() -> Iterator[LedgerRow]:
        for entry in journal.read(started):
            yield from ledger_rows(entry, engine.step(entry))

    ledger.append(ledger.reconcile(tail(), after_seq=started))
    if engine.seq:
        report(f"recovered to seq {engine.seq}: checkpoint at {started}, {engine.seq - started} inputs replayed")
    return engine


def _restored(build: Callable[[], Engine], journal: FileJournal, checkpoints: FileCheckpoints, report: Callable[[str], None]) -> Engine:
    """Return a fresh engine, or one from the newest checkpoint that loads and saves to the same bytes."""
    before: int | None = None
    while (newest := checkpoints.newest(before_seq=before)) is not None:
        before, state = newest
        engine = build()
        try:
            engine.load(state)
            if engine.relearns:
                report("the plugins are others than before: what was learnt of alphas and policies begins anew")
                return engine
            if engine.save() == state:
                return engine
        except (ValueError, KeyError, OverflowError, AssertionError, msgspec.MsgspecError) as error:
            report(f"checkpoint at seq {before} does not load ({error}); trying the one before")
            continue
        report(f"checkpoint at seq {before} does not save to what it was loaded from; trying the one before")
    if journal.first_seq > 1:
        raise RecoveryError(
            f"no usable checkpoint, and the journal begins only at seq {journal.first_seq}: "
            "restore the checkpoints folder from a backup, or erase the state with: alphapack reset"
        )
    return build()
