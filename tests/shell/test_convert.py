import builtins
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapack.domain.inputs import CoreSettings, Frame, Heartbeat
from alphapack.shell import convert as module
from alphapack.shell.captures import Capture, Line, open_inputs
from alphapack.shell.convert import ConversionError, convert, lines_of, packed
from alphapack.shell.journal import FileJournal

LINES = [Line(5, "sim", "X", b'{"a": 1}', 0, 1), Line(7, "sim", "X", b"[\xff]", 0, 2), Line(7, "sim", "X", b"{}", 0, 3)]


@pytest.mark.parametrize("suffix", [".raw", ".raw.gz", ".raw.zst"])
def test_a_capture_written_reads_back(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"sim_X_20240808{suffix}"
    assert convert(iter(LINES), out) == 3
    assert list(Capture([out], report=pytest.fail)) == LINES
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    first = out.read_bytes()
    convert(iter(LINES), out)
    assert out.read_bytes() == first, "equal messages make equal files"


@pytest.mark.parametrize("suffix", [".raw", ".raw.gz", ".raw.zst"])
def test_parts_that_are_packed_read_as_one_file(tmp_path: Path, suffix: str) -> None:
    parts = [b"%d %b\n" % (line.receive_ns, line.payload) for line in LINES]
    out = tmp_path / f"sim_X{suffix}"
    out.write_bytes(b"".join(packed(part, out.suffix) for part in parts))
    assert list(Capture([out], report=lambda one: pytest.fail(str(one)))) == LINES
    assert [packed(part, out.suffix) for part in parts] == [packed(part, out.suffix) for part in parts]


def test_several_captures_merge_into_one(tmp_path: Path) -> None:
    (tmp_path / "sim_X.raw").write_bytes(b"1 [1]\n5 [5]\n")
    (tmp_path / "sim_X_trades.raw.gz").write_bytes(gzip.compress(b"1 [2]\n3 [3]\n"))
    source = open_inputs([tmp_path / "sim_X.raw", tmp_path / "sim_X_trades.raw.gz"], CoreSettings(), report=pytest.fail)
    out = tmp_path / "sim_X_merged.raw"
    assert convert(lines_of(source), tmp_path / "sim_X_20240808.raw") == 4
    assert not out.exists()
    assert (tmp_path / "sim_X_20240808.raw").read_bytes() == b"1 [1]\n1 [2]\n3 [3]\n5 [5]\n"


def test_a_journal_becomes_the_capture_of_its_frames(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal")
    journal.append([Frame(1, 10, "sim", "X", b"[1]"), Heartbeat(2, 20), Frame(3, 30, "sim", "X", b"[2]")])
    journal.close()
    source = open_inputs([tmp_path / "journal"], CoreSettings(), report=pytest.fail)
    out = tmp_path / "sim_X.raw"
    assert convert(lines_of(source), out) == 2
    assert out.read_bytes() == b"10 [1]\n30 [2]\n"


def test_parquet_holds_every_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(module, "BATCH_ROWS", 2)
    lines = [*LINES, Line(9, "other", "Y", b"", 1, 1)]
    out = tmp_path / "all.parquet"
    assert convert(iter(lines), out) == 4
    table = parquet.read_table(out)
    assert table.column_names == ["receive_ns", "venue", "symbol", "payload"]
    found = [tuple(row.values()) for row in table.to_pylist()]
    assert found == [(line.receive_ns, line.venue, line.symbol, line.payload) for line in lines]
    assert str(table.schema.field("receive_ns").type) == "int64"
    assert parquet.ParquetFile(out).num_row_groups == 2


def test_no_message_makes_an_empty_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert convert(iter([]), tmp_path / "none.parquet") == 0
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_without_pyarrow_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError(name)
        return load(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConversionError, match=r'pip install "alphapack\[parquet\]"'):
        convert(iter(LINES), tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "lines", [[*LINES, Line(9, "sim", "Y", b"{}", 1, 1)], [Line(9, "other", "X", b"{}", 1, 1)]], ids=["symbol", "venue"]
)
def test_a_capture_never_mixes_what_its_name_cannot_say(tmp_path: Path, lines: list[Line]) -> None:
    with pytest.raises(ConversionError, match=r"as 'sim_X\.raw' says, found one of (sim_Y|other_X)"):
        convert(iter(lines), tmp_path / "sim_X.raw")
    assert list(tmp_path.iterdir()) == []


def test_an_output_of_no_known_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"\*\.parquet"):
        convert(iter(LINES), tmp_path / "sim_X.csv")


@pytest.mark.parametrize("name", ["sim_X.raw.gz", "x.parquet"])
def test_a_failure_on_the_way_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    out.write_bytes(b"before")

    def failing() -> Iterator[Line]:
        yield LINES[0]
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        convert(failing(), out)
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == [name]
