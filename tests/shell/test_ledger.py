import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.engine.ports import LedgerRow
from alphapack.shell.ledger import (
    LedgerDamaged,
    LedgerError,
    LedgerMismatch,
    LedgerUnavailable,
    SqliteLedger,
)


def row(seq: int, ordinal: int = 0, body: bytes = b'{"reason":"gap"}') -> LedgerRow:
    return LedgerRow(seq, ordinal, seq * 1_000, "book_state", "sim:BTCUSDT", body)


ROWS = [row(seq, ordinal, b"%d" % (seq * 10 + ordinal)) for seq in range(2, 40, 3) for ordinal in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(path, engine="main")
    yield ledger
    ledger.close()


def tampered(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def filled(path: Path, rows: list[LedgerRow]) -> None:
    ledger = SqliteLedger(path, engine="main")
    ledger.append(rows)
    ledger.close()


def test_rows_come_back_in_order_after_any_seq(path: Path, ledger: SqliteLedger) -> None:
    assert (ledger.count, ledger.last_key, list(ledger.rows())) == (0, None, [])
    for start in range(0, len(ROWS), 7):
        ledger.append(ROWS[start : start + 7])
    assert list(ledger.rows()) == ROWS
    for after in (1, 2, 3, 20, 38, 99):
        assert list(ledger.rows(after)) == [r for r in ROWS if r.seq > after]
    ledger.close()
    again = SqliteLedger(path, engine="main")
    assert (again.count, again.last_key, again.head) == (len(ROWS), (38, 2), ledger.head)
    told: list[tuple[int, int]] = []
    again.verify(lambda done, total: told.append((done, total)))
    assert told[-1] == (len(ROWS), len(ROWS))
    again.close()


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    st.lists(
        st.builds(LedgerRow, st.just(0), st.integers(0, 3), st.integers(-(2**63), 2**63 - 1), st.text(), st.text(), st.binary()), max_size=8
    )
)
def test_any_content_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[LedgerRow]) -> None:
    numbered = [msgspec.structs.replace(r, seq=place) for place, r in enumerate(rows, start=1)]
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    ledger = SqliteLedger(path, engine="main")
    ledger.append(numbered)
    assert list(ledger.rows()) == numbered
    ledger.close()


def test_the_head_depends_on_every_row_and_the_engine_and_not_on_the_batches(tmp_path: Path) -> None:
    heads = []
    for name, engine, rows, step in [
        ("a", "main", ROWS, 1),
        ("b", "main", ROWS, 50),
        ("c", "main", [*ROWS[:-1], row(38, 2, b"x")], 50),
        ("d", "other", ROWS, 50),
    ]:
        ledger = SqliteLedger(tmp_path / name, engine=engine)
        for start in range(0, len(rows), step):
            ledger.append(rows[start : start + step])
        heads.append(ledger.head)
        ledger.close()
    assert heads[0] == heads[1] and len(set(heads)) == 3


def test_keys_must_rise_and_a_refused_append_leaves_nothing(ledger: SqliteLedger) -> None:
    ledger.append([row(5, 1)])
    for wrong in ([row(5, 1)], [row(5, 0)], [row(4)], [row(6), row(6)], [row(0)], [row(7, 1 << 16)]):
        with pytest.raises(ValueError, match="expected"):
            ledger.append(wrong)
    assert list(ledger.rows()) == [row(5, 1)]
    ledger.append([row(5, 2), row(6)])
    ledger.verify()


@pytest.mark.parametrize(
    ("statement", "bad"),
    [
        ("UPDATE rows SET body = x'00' WHERE seq = 20 AND ordinal = 1", "seq 20 ordinal 1"),
        ("UPDATE rows SET ts_ns = ts_ns + 1 WHERE seq = 20 AND ordinal = 1", "seq 20 ordinal 1"),
        ("UPDATE rows SET symbol = 'sim:ETHUSDT' WHERE key = (SELECT min(key) FROM rows)", "seq 2 ordinal 0"),
        ("DELETE FROM rows WHERE seq = 20 AND ordinal = 1", "seq 20 ordinal 2"),
        ("DELETE FROM rows WHERE seq = 2 AND ordinal = 0", "seq 2 ordinal 1"),
        ("UPDATE rows SET key = key + 65536 WHERE seq = 20 AND ordinal = 2", "seq 21 ordinal 2"),
        (
            f"INSERT INTO rows(key, version, ts_ns, kind, symbol, body, hash) VALUES ({(21 << 16) + 1}, 1, 0, '', '', x'', zeroblob(32))",
            "seq 21 ordinal 1",
        ),
        ("DELETE FROM rows WHERE seq = 38 AND ordinal = 2", "expected last hash"),
        ("UPDATE heads SET rows = rows - 1", "expected 38 rows, found 39"),
        ("UPDATE heads SET hash = zeroblob(32)", "expected last hash"),
    ],
)
def test_a_changed_moved_removed_or_added_row_is_named(path: Path, statement: str, bad: str) -> None:
    filled(path, ROWS)
    tampered(path, statement)
    with pytest.raises(LedgerDamaged, match=f"{bad}.*[Rr]estore"):
        SqliteLedger(path, engine="main").verify()


def test_exchanged_rows_are_named(path: Path) -> None:
    filled(path, ROWS)
    first, second = (20 << 16) + 1, (20 << 16) + 2
    tampered(
        path,
        f"UPDATE rows SET key = 1 WHERE key = {first}",
        f"UPDATE rows SET key = {first} WHERE key = {second}",
        f"UPDATE rows SET key = {second} WHERE key = 1",
    )
    ledger = SqliteLedger(path, engine="main")
    with pytest.raises(LedgerDamaged, match="seq 20 ordinal 1"):
        ledger.verify()
    with pytest.raises(LedgerDamaged, match="seq 20 ordinal 1"):
        list(ledger.rows(10))
    ledger.close()


def test_a_random_bit_flip_is_noticed_and_never_served(path: Path) -> None:
    chance = random.Random(20)
    rows = [row(seq, 0, chance.randbytes(944)) for seq in range(1, 801)]  # Eight fill a page: few flips hit unused bytes.
    filled(path, rows)
    good = path.read_bytes()
    damaged_path = path.with_name("damaged.db")
    noticed = 0
    for _ in range(400):
        content = bytearray(good)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        damaged_path.write_bytes(content)
        served = None
        try:
            ledger = SqliteLedger(damaged_path, engine="main")
            try:
                ledger.verify()
                served = list(ledger.rows())
            finally:
                ledger.close()
        except (LedgerError, LedgerUnavailable):
            noticed += 1
        assert served in (None, rows), "a flip must be noticed or harmless"
        for left in path.parent.glob("damaged.db-*"):
            left.unlink()
    assert noticed >= 0.94 * 400


def test_what_is_no_ledger_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 500)
    with pytest.raises(LedgerDamaged, match="not a database"):
        SqliteLedger(path, engine="main")
    path.unlink()
    tampered(path, "CREATE TABLE other(x)")
    with pytest.raises(LedgerDamaged, match="expected a ledger"):
        SqliteLedger(path, engine="main")


def test_another_engine_or_a_newer_version_is_refused(path: Path) -> None:
    filled(path, ROWS)
    with pytest.raises(LedgerError, match=r"ledger of engine 'second'.*main"):
        SqliteLedger(path, engine="second")
    tampered(path, "PRAGMA user_version = 9")
    with pytest.raises(LedgerError, match="version 1, found 9"):
        SqliteLedger(path, engine="main")


def test_a_start_that_was_killed_before_the_tables_stood_is_made_good(path: Path) -> None:
    tampered(path, "PRAGMA journal_mode = WAL")
    filled(path, ROWS)
    ledger = SqliteLedger(path, engine="main")
    assert list(ledger.rows()) == ROWS
    ledger.close()


def test_reconcile_returns_the_missing_suffix(ledger: SqliteLedger) -> None:
    ledger.append(ROWS[:20])
    assert ledger.reconcile(ROWS) == ROWS[20:]
    assert ledger.reconcile([r for r in ROWS if r.seq > 11], after_seq=11) == ROWS[20:]
    assert ledger.reconcile(ROWS[10:]) == ROWS[20:]
    assert ledger.reconcile(ROWS[:20]) == []
    assert ledger.reconcile(ROWS[25:]) == ROWS[25:]
    assert ledger.reconcile([]) == []
    ledger.append(ledger.reconcile(ROWS[5:]))
    assert list(ledger.rows()) == ROWS


def test_reconcile_refuses_what_differs(ledger: SqliteLedger) -> None:
    ledger.append(ROWS[:20])
    changed = [*ROWS[:7], msgspec.structs.replace(ROWS[7], body=b"other"), *ROWS[8:]]
    with pytest.raises(
        LedgerMismatch, match=rf"seq {ROWS[7].seq} ordinal {ROWS[7].ordinal}: expected .*other.*found .*{ROWS[7].body.decode()}"
    ):
        ledger.reconcile(changed)
    with pytest.raises(LedgerMismatch, match=rf"seq {ROWS[7].seq} ordinal {ROWS[7].ordinal}"):
        ledger.reconcile([*ROWS[:7], *ROWS[8:]])
    with pytest.raises(LedgerMismatch, match="expected no row"):
        ledger.reconcile(ROWS[:19])
    with pytest.raises(LedgerMismatch, match="expected no row"):
        ledger.reconcile([], after_seq=ROWS[19].seq - 1)
    with pytest.raises(LedgerMismatch):
        ledger.reconcile([*ROWS[:3], row(3), *ROWS[3:]])


def test_a_second_writer_is_refused_and_goes_on_being_refused(path: Path, ledger: SqliteLedger) -> None:
    second = SqliteLedger(path, engine="main")
    ledger.append([row(1)])
    for _ in range(2):
        with pytest.raises(LedgerError, match="other process"):
            second.append([row(2)])
    second.close()
    ledger.append([row(2)])
    assert list(ledger.rows()) == [row(1), row(2)]


def test_a_disk_that_refuses_keeps_nothing_and_works_again_later(ledger: SqliteLedger) -> None:
    ledger.append([row(1)])
    pages = ledger._writer.execute("PRAGMA page_count").fetchone()[0]
    ledger._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerUnavailable, match="full"):
        ledger.append([row(2, 0, b"x" * 100_000)])
    assert (ledger.count, ledger.last_key, list(ledger.rows())) == (1, (1, 0), [row(1)])
    ledger._writer.execute("PRAGMA max_page_count = 100000")
    ledger.probe()
    ledger.append([row(2, 0, b"x" * 100_000)])
    ledger.verify()


def test_one_thread_appends_while_another_reads(ledger: SqliteLedger) -> None:
    failures: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                seqs = [r.seq for r in ledger.rows()]
                assert seqs == list(range(1, len(seqs) + 1))
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for seq in range(1, 60):
        ledger.append([row(seq)])
    done.set()
    reader.join()
    assert failures == [] and ledger.count == 59
