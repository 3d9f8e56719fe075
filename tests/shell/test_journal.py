import struct
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.inputs import (
    INPUT_VERSION,
    AnyInput,
    Choose,
    Configure,
    Conflated,
    CoreSettings,
    Disable,
    Frame,
    Heartbeat,
    History,
    InstrumentSettings,
    Result,
    Reward,
    SessionStart,
    Shed,
)
from alphapack.domain.trading import ExecutionSettings, RouterSettings
from alphapack.shell import journal as journal_module
from alphapack.shell.journal import (
    FileJournal,
    JournalDamaged,
    JournalError,
    JournalLocked,
    JournalTooNew,
    is_journal,
    read_journal,
)

PLACE = {"seq": st.just(0), "ts_ns": st.integers(0, 2**62)}
NAME = st.text(max_size=12)
COUNT = st.integers(0, 2**40)
INPUTS = st.one_of(
    st.builds(Frame, **PLACE, venue=NAME, symbol=NAME, payload=st.binary(max_size=300)),
    st.builds(Heartbeat, **PLACE),
    st.builds(SessionStart, **PLACE, source=NAME),
    st.builds(Shed, **PLACE, symbol=NAME, frames=COUNT),
    st.builds(Conflated, **PLACE, symbol=NAME, frames=COUNT),
    st.builds(History, **PLACE, symbol=NAME, shift_ms=st.integers(-(2**50), 2**50), rows=st.binary(max_size=300)),
    st.builds(Result, **PLACE, request_id=COUNT, work=NAME, ok=st.booleans(), body=st.binary(max_size=300)),
    st.builds(Choose, **PLACE, symbol=NAME, context=st.dictionaries(NAME, st.floats(allow_nan=False), max_size=4)),
    st.builds(Reward, **PLACE, decision=COUNT, reward_bps=st.floats(-1e6, 1e6)),
    st.builds(Disable, **PLACE, name=NAME, what=st.sampled_from(["alpha", "policy"]), reason=NAME),
    st.builds(
        Configure,
        **PLACE,
        settings=st.builds(
            CoreSettings,
            seed=COUNT,
            symbols=st.tuples(NAME),
            plugins=st.tuples(NAME),
            router=st.builds(RouterSettings, floor=st.floats(0.0, 0.05), without=st.tuples(NAME)),
            instruments=st.tuples(st.builds(InstrumentSettings, symbol=NAME, min_notional=st.none() | st.floats(0, 1e9))),
        ),
    ),
)


def frame(seq: int, size: int = 20) -> Frame:
    return Frame(seq, seq * 1000, "sim", "BTCUSDT", bytes((seq + i) % 251 for i in range(size)))


def frames(first: int, last: int, size: int = 20) -> list[AnyInput]:
    return [frame(seq, size) for seq in range(first, last + 1)]


def filled(folder: Path, *batches: tuple[int, int], **options: Any) -> None:
    journal = FileJournal(folder, **options)
    for first, last in batches:
        journal.append(frames(first, last))
    journal.close()


def only_segment(folder: Path) -> Path:
    (path,) = folder.glob("*.seg")
    return path


def flip(path: Path, offset: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def block_offsets(path: Path) -> list[int]:
    content = path.read_bytes()
    offsets, at = [], content.index(b"\n") + 1
    while at < len(content):
        offsets.append(at)
        at += 36 + struct.unpack_from("<I", content, at)[0]
    return offsets


@settings(deadline=None, derandomize=True, max_examples=40)
@given(batches=st.lists(st.lists(INPUTS, min_size=1, max_size=6), min_size=1, max_size=6), segment_bytes=st.sampled_from([1, 900, 1 << 20]))
def test_what_is_appended_is_read_whatever_the_batches_and_segments(batches: list[list[AnyInput]], segment_bytes: int) -> None:
    numbered, seq = [], 0
    for batch in batches:
        numbered.append([msgspec.structs.replace(entry, seq=seq + place) for place, entry in enumerate(batch, start=1)])
        seq += len(batch)
    written = [entry for batch in numbered for entry in batch]
    with tempfile.TemporaryDirectory() as name:
        journal = FileJournal(Path(name), segment_bytes=segment_bytes)
        for batch in numbered:
            journal.append(batch)
        assert list(journal.read()) == written
        journal.close()
        reports: list[str] = []
        again = FileJournal(Path(name), report=reports.append)
        assert (again.first_seq, again.last_seq, again.gaps(), reports) == (1, seq, [], [])
        for after in range(seq + 2):
            assert list(again.read(after)) == written[after:]
        assert list(read_journal(Path(name), seq // 2)) == written[seq // 2 :]
        assert again.size_bytes == sum(path.stat().st_size for path in Path(name).glob("*.seg"))
        again.close()


def test_a_tail_torn_at_any_byte_of_the_last_block_is_cut_and_the_journal_goes_on(tmp_path: Path) -> None:
    filled(tmp_path / "whole", (1, 3), (4, 5))
    whole = only_segment(tmp_path / "whole").read_bytes()
    last_block = block_offsets(only_segment(tmp_path / "whole"))[-1]
    for length in range(last_block, len(whole)):
        folder = tmp_path / str(length)
        folder.mkdir()
        path = folder / only_segment(tmp_path / "whole").name
        path.write_bytes(whole[:length])
        reports: list[str] = []
        assert [entry.seq for entry in read_journal(folder, report=reports.append)] == [1, 2, 3]
        assert path.stat().st_size == length, "a read-only reader cuts nothing"
        assert len(reports) == (length > last_block)
        journal = FileJournal(folder, report=reports.append)
        assert journal.last_seq == 3
        if length > last_block:
            told = reports[-1]
            assert str(path) in told and f"byte {last_block}" in told and f"{length - last_block} bytes" in told and "seq 3" in told
        journal.append(frames(4, 6))
        assert list(journal.read()) == frames(1, 6)
        journal.close()


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\xff" * 36, b"\x28\xb5\x2f\xfd" * 40])
def test_garbage_behind_the_last_block_is_cut(tmp_path: Path, tail: bytes) -> None:
    filled(tmp_path, (1, 3))
    with only_segment(tmp_path).open("ab") as file:
        file.write(tail)
    reports: list[str] = []
    journal = FileJournal(tmp_path, report=reports.append)
    assert list(journal.read()) == frames(1, 3)
    assert len(reports) == 1 and f"{len(tail)} bytes" in reports[0]
    journal.close()


def test_every_bit_flip_before_the_last_block_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path, (1, 3), (4, 4), (5, 6))
    path = only_segment(tmp_path)
    last_block = block_offsets(path)[-1]
    good = path.read_bytes()
    for offset in range(last_block):
        flip(path, offset, offset % 8)
        damaged = path.read_bytes()
        with pytest.raises((JournalDamaged, JournalTooNew)) as caught:
            FileJournal(tmp_path)
        assert str(path) in str(caught.value)
        with pytest.raises((JournalDamaged, JournalTooNew)):
            list(read_journal(tmp_path))
        assert path.read_bytes() == damaged
        path.write_bytes(good)


def test_damage_names_file_and_offset_and_the_next_step(tmp_path: Path) -> None:
    filled(tmp_path, (1, 3), (4, 4), (5, 6))
    path = only_segment(tmp_path)
    second = block_offsets(path)[1]
    flip(path, second + 40)
    with pytest.raises(JournalDamaged, match=rf"{path}: damaged at byte {second}: .*checksum.*Restore"):
        FileJournal(tmp_path)


def test_damage_of_an_older_segment_is_refused_even_at_its_tail(tmp_path: Path) -> None:
    filled(tmp_path, (1, 3), (4, 6), segment_bytes=1)
    older = min(tmp_path.glob("*.seg"))
    older.write_bytes(older.read_bytes()[:-1])
    journal = FileJournal(tmp_path)
    with pytest.raises(JournalDamaged, match=older.name):
        list(journal.read())
    with pytest.raises(JournalDamaged, match=older.name):
        list(read_journal(tmp_path))
    assert list(journal.read(3)) == frames(4, 6), "what does not touch the damage can be read"
    journal.close()


def test_a_segment_that_lost_a_whole_block_or_is_missing_is_noticed(tmp_path: Path) -> None:
    filled(tmp_path, (1, 2), (3, 4), (5, 6), segment_bytes=1)
    _, middle, newest = sorted(tmp_path.glob("*.seg"))
    middle.unlink()
    with pytest.raises(JournalDamaged, match=f"{newest.name}.*after seq 2.*after seq 4"):
        list(read_journal(tmp_path))


def test_a_segment_whose_first_block_was_torn_is_set_aside(tmp_path: Path) -> None:
    filled(tmp_path, (1, 2), (3, 4), segment_bytes=1)
    newest = max(tmp_path.glob("*.seg"))
    content = newest.read_bytes()
    for length in (0, 10, content.index(b"\n") + 1, len(content) - 1):
        newest.write_bytes(content[:length])
        reports: list[str] = []
        journal = FileJournal(tmp_path, segment_bytes=1, report=reports.append)
        assert (journal.last_seq, len(reports)) == (2, 1) and newest.name in reports[0]
        journal.append(frames(3, 4))
        assert list(journal.read()) == frames(1, 4)
        journal.close()


def test_a_hole_is_refused_unless_allowed_and_then_on_record(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    journal.append(frames(1, 3))
    for wrong in (frames(5, 6), frames(3, 4), [frame(4), frame(6)]):
        with pytest.raises(ValueError, match="expected seq"):
            journal.append(wrong)
    journal.append(frames(10, 11), allow_gap=True)
    journal.append(frames(12, 12))
    journal.close()
    again = FileJournal(tmp_path)
    assert again.gaps() == [(4, 9)] and again.last_seq == 12
    assert list(again.read()) == frames(1, 3) + frames(10, 12)
    assert list(again.read(5)) == frames(10, 12)
    assert len(list(tmp_path.glob("*.seg"))) == 2
    again.close()


def test_only_whole_covered_segments_are_dropped_and_never_the_newest(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, segment_bytes=1)
    for first in (1, 3, 5):
        journal.append(frames(first, first + 1))
    journal.drop_through(1)
    assert journal.first_seq == 1
    journal.drop_through(3)
    assert journal.first_seq == 3 and list(journal.read()) == frames(3, 6)
    journal.drop_through(99)
    assert (journal.first_seq, journal.last_seq, journal.gaps()) == (5, 6, [])
    journal.close()
    assert list(read_journal(tmp_path)) == frames(5, 6)


def test_a_reader_sees_only_what_was_durable_when_it_began(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    journal.append(frames(1, 2))
    reading = journal.read()
    assert next(reading).seq == 1
    journal.append(frames(3, 4))
    assert [entry.seq for entry in reading] == [2]
    journal.close()


def test_a_large_batch_is_written_as_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "BLOCK_BYTES", 1000)
    journal = FileJournal(tmp_path)
    journal.append(frames(1, 50, size=100))
    assert len(block_offsets(only_segment(tmp_path))) >= 5
    assert list(journal.read(17)) == frames(18, 50, size=100)
    journal.close()


def test_a_failed_write_is_taken_back_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    journal = FileJournal(tmp_path)
    journal.append(frames(1, 3))
    with monkeypatch.context() as disk:
        disk.setattr(journal_module, "sync_file", refuse)
        with pytest.raises(OSError, match="No space"):
            journal.append(frames(4, 5))
        with pytest.raises(OSError, match="No space"):
            journal.probe()
        with pytest.raises(OSError, match="No space"):
            journal.append(frames(9, 9), allow_gap=True)
        assert journal.last_seq == 3
    journal.probe()
    journal.append(frames(10, 11), allow_gap=True)
    journal.close()
    reports: list[str] = []
    again = FileJournal(tmp_path, report=reports.append)
    assert list(again.read()) == frames(1, 3) + frames(10, 11) and reports == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000000000000000001.seg", "00000000000000000010.seg", "lock"]
    again.close()


def test_an_older_input_version_passes_its_upcaster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as past:
        past.setattr(journal_module, "INPUT_VERSION", 0)
        filled(tmp_path, (1, 3))
    with pytest.raises(JournalError, match="upcaster of input version 0"):
        list(read_journal(tmp_path))
    monkeypatch.setitem(journal_module.UPCASTERS, 0, lambda record: [*record[:3], "binance-usdm", *record[4:]])
    journal = FileJournal(tmp_path)
    journal.append(frames(4, 4))
    assert [(entry.seq, entry.venue) for entry in journal.read() if isinstance(entry, Frame)] == [
        (1, "binance-usdm"),
        (2, "binance-usdm"),
        (3, "binance-usdm"),
        (4, "sim"),
    ]
    journal.close()


class OlderConfigure(msgspec.Struct, array_like=True, tag_field="kind", tag="configure"):
    """``Configure`` with what settings there were when it was written."""

    seq: int
    ts_ns: int
    settings: dict[str, object]


@pytest.mark.parametrize(
    ("version", "settings", "expected"),
    [
        (1, {"seed": 7}, CoreSettings(seed=7, execution=ExecutionSettings(trade=False))),
        (2, {"seed": 7}, CoreSettings(seed=7)),
        (
            2,
            {"router": {"interval_s": 30, "horizon_s": 60}, "execution": {"trade": True, "capital": 5e4}},
            CoreSettings(router=RouterSettings(30, 60), execution=ExecutionSettings(capital=5e4)),
        ),
    ],
)
def test_router_alpha_aware_settings_of_older_journals_are_read_with_the_defaults_of_what_they_knew_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, settings: dict[str, object], expected: CoreSettings
) -> None:
    with monkeypatch.context() as past:
        past.setattr(journal_module, "INPUT_VERSION", version)
        journal = FileJournal(tmp_path)
        journal.append([OlderConfigure(1, 1_000, settings), *frames(2, 3)])  # type: ignore[list-item]
        journal.close()
    assert list(read_journal(tmp_path)) == [Configure(1, 1_000, expected), *frames(2, 3)]
    assert sorted(journal_module.UPCASTERS) == list(range(1, INPUT_VERSION)), "every version that was ever written can be read"


def test_a_newer_input_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as future:
        future.setattr(journal_module, "INPUT_VERSION", INPUT_VERSION + 1)
        filled(tmp_path, (1, 3))
    with pytest.raises(JournalTooNew, match="upgrade alphapack"):
        FileJournal(tmp_path)
    with pytest.raises(JournalTooNew, match="upgrade alphapack"):
        list(read_journal(tmp_path))


def test_one_process_writes_while_others_read(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    journal.append(frames(1, 2))
    with pytest.raises(JournalLocked, match="in use by process"):
        FileJournal(tmp_path)
    assert list(read_journal(tmp_path)) == frames(1, 2)
    journal.close()
    FileJournal(tmp_path).close()


def test_a_journal_is_known_by_its_content(tmp_path: Path) -> None:
    other = tmp_path / "capture.jsonl"
    other.write_text('{"a": 1}\n')
    assert not is_journal(tmp_path) and not is_journal(other) and not is_journal(tmp_path / "absent")
    filled(tmp_path / "journal", (1, 2))
    copy = tmp_path / "copied"
    copy.write_bytes(only_segment(tmp_path / "journal").read_bytes())
    assert is_journal(tmp_path / "journal") and is_journal(copy)
    assert list(read_journal(copy, 1)) == frames(2, 2)
    with pytest.raises(JournalError, match="expected a journal"):
        list(read_journal(tmp_path / "absent"))
