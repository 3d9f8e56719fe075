"""The engine's step rate, in memory and with everything durable behind it."""

import tempfile
import time
from pathlib import Path

from report import USDM, Row, median

from alphapack import app
from alphapack.config import Settings
from alphapack.domain.inputs import AnyInput, Frame
from alphapack.models import book
from alphapack.shell.checkpoints import FileCheckpoints
from alphapack.shell.committer import Committer
from alphapack.shell.journal import FileJournal
from alphapack.shell.ledger import SqliteLedger
from alphapack.shell.recovery import ledger_rows

RUNS = 5
BACKLOG_MAX = 20_000


def real_mix() -> list[AnyInput]:
    """Return the capture without its tickers: depth, trades, one snapshot, numbered anew."""
    kept: list[AnyInput] = []
    for entry in app.record_of([USDM], Settings(), None, print):
        if not (isinstance(entry, Frame) and b'"bookTicker"' in entry.payload):
            kept.append(type(entry)(len(kept) + 1, *(getattr(entry, name) for name in entry.__struct_fields__[1:])))
    return kept


def stepped(inputs: list[AnyInput]) -> tuple[float, str]:
    engine = app.build()
    start = time.perf_counter()
    for entry in inputs:
        engine.step(entry)
    return time.perf_counter() - start, engine.hexdigest()


def durable(inputs: list[AnyInput], folder: Path) -> tuple[float, str]:
    engine = app.build()
    journal = FileJournal(folder / "journal")
    ledger = SqliteLedger(folder / "ledger.sqlite", engine="bench")
    nothing = {"published": lambda seq: None, "degraded": print, "recovered": lambda: None}
    committer = Committer(journal, ledger, FileCheckpoints(folder / "checkpoints"), **nothing)
    start = time.perf_counter()
    for entry in inputs:
        committer.put(entry, ledger_rows(entry, engine.step(entry)))
        while committer.backlog > BACKLOG_MAX:
            time.sleep(0.0005)
    assert committer.flush(60)
    seconds = time.perf_counter() - start
    committer.close(10)
    journal.close()
    ledger.close()
    return seconds, engine.hexdigest()


def run() -> list[Row]:
    book.warm()
    rows = []
    whole = list(app.record_of([USDM], Settings(), None, print))
    for name, inputs in (("depth and trades", real_mix()), ("all frames", whole)):
        in_memory, on_disk, digests = [], [], set()
        for _ in range(RUNS):  # Alternating, so that the machine's drift falls on both alike.
            seconds, digest = stepped(inputs)
            in_memory.append(len(inputs) / seconds)
            digests.add(digest)
            with tempfile.TemporaryDirectory() as folder:
                seconds, digest = durable(inputs, Path(folder))
            on_disk.append(len(inputs) / seconds)
            digests.add(digest)
        assert len(digests) == 1, "every run of one recording gives one digest"
        what = f"{len(inputs):,} inputs of the USD-M capture ({name}), median of {RUNS}"
        rows.append(Row("step", f"Engine.step: {what}", f"{median(in_memory):,.0f} /s", "-", None))
        ratio = f"{median(on_disk) / median(in_memory):.2f}"
        rows.append(Row("durable", "  the same, journaled and durable to the end", f"{median(on_disk):,.0f} /s", "-", None, "step", ratio))
    return rows
