import gzip
import lzma
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.inputs import AnyInput, Configure, CoreSettings, Frame, Heartbeat, History, SessionStart
from alphapack.shell import captures
from alphapack.shell.captures import Capture, CaptureError, Complaint, Line, inputs, open_inputs, source_name
from alphapack.shell.journal import FileJournal

MS, S = 1_000_000, 1_000_000_000
NAME = "binance-usdm_BTCUSDT_20240808T2354.raw"
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress, ".xz": lzma.compress}


def opened(folder: Path, **files: bytes) -> tuple[Capture, list[Complaint]]:
    paths = []
    for symbol, content in files.items():
        paths.append(folder / f"sim_{symbol}.raw")
        paths[-1].write_bytes(content)
    complaints: list[Complaint] = []
    return Capture(paths, report=complaints.append), complaints


def payloads(capture: Capture) -> list[bytes]:
    return [line.payload for line in capture]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("binance-usdm_BTCUSDT_20240808T2354.raw.gz", ("binance-usdm", "BTCUSDT")),
        ("binance-coinm_ETHUSD_PERP_20240808T2354.raw.gz", ("binance-coinm", "ETHUSD_PERP")),
        ("binance-coinm_BTCUSD_240927_20240808.raw.zst", ("binance-coinm", "BTCUSD_240927")),
        ("binance-spot_BTCUSDT_trades_20201101T09.raw.gz", ("binance-spot", "BTCUSDT")),
        ("binance-spot_btcusdt_2024-08-08.raw", ("binance-spot", "btcusdt")),
        ("kraken-v1_20210417.raw.gz", ("kraken-v1", "")),
        ("bitmex_multi_20210722.raw.gz", ("bitmex", "")),
        ("sim_X.jsonl.xz", ("sim", "X")),
    ],
)
def test_a_file_name_states_venue_and_symbol(name: str, expected: tuple[str, str]) -> None:
    assert source_name(Path(name)) == expected


@pytest.mark.parametrize("name", ["BTCUSDT.raw.gz", "recording.gz", "BTCUSDT_20240808.raw.gz", "20240808.gz", ".gz"])
def test_a_file_name_without_a_venue_is_refused_with_the_way_to_name_it(name: str) -> None:
    with pytest.raises(CaptureError, match="VENUE_SYMBOL_DATE"):
        source_name(Path(name))


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT.gz", "BTCUSDT"),
        ("BTCUSDT_20240808.gz", "BTCUSDT"),
        ("binance-usdm_BTCUSDT_20240808.gz", "BTCUSDT"),
        ("binance-spot_1.gz", "1"),
    ],
)
def test_a_stated_venue_overrides_the_name(name: str, symbol: str) -> None:
    assert source_name(Path(name), "binance-spot") == ("binance-spot", symbol)


def test_an_unknown_venue_names_the_nearest() -> None:
    with pytest.raises(CaptureError, match="nearest is 'binance-usdm'"):
        source_name(Path("binance-udsm_BTCUSDT.gz"), None, ("binance-spot", "binance-usdm"))


@pytest.mark.parametrize("suffix", PACK)
def test_every_packing_reads_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / (NAME + suffix)
    path.write_bytes(PACK[suffix](b'5 {"a": 1}\n7 [ ]\n'))
    capture = Capture([path], report=pytest.fail)
    expected = [Line(5, "binance-usdm", "BTCUSDT", b'{"a": 1}', 0, 1), Line(7, "binance-usdm", "BTCUSDT", b"[ ]", 0, 2)]
    assert list(capture) == expected
    assert list(capture) == expected, "a second reading begins at the start"
    assert capture.bytes_read == capture.bytes_total == path.stat().st_size
    assert capture.last_position == (path, 2)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_members_written_one_after_the_other_are_one_stream(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / (NAME + suffix)
    path.write_bytes(PACK[suffix](b"1 {}\n2 {") + PACK[suffix](b"}\n3 {}\n"))
    assert payloads(Capture([path], report=pytest.fail)) == [b"{}", b"{}", b"{}"]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_a_truncated_stream_keeps_what_it_held(tmp_path: Path, suffix: str) -> None:
    whole = b"".join(b'%d {"n": "%b"}\n' % (n, sha256(b"%d" % n).hexdigest().encode()) for n in range(20_000))
    path, complaints = tmp_path / (NAME + suffix), []
    packed = PACK[suffix](whole)
    path.write_bytes(packed[: len(packed) * 3 // 4])
    lines = list(Capture([path], report=complaints.append))
    assert 10_000 < len(lines) < 20_000
    assert [line.receive_ns for line in lines] == list(range(len(lines)))
    assert b"".join(b"%d %b\n" % (line.receive_ns, line.payload) for line in lines) == whole[: whole.index(b"\n%d " % len(lines)) + 1]
    stream, line = complaints
    assert (stream.line, "the file was cut" in stream.reason) == (0, True)
    assert (line.line, "line that was cut" in line.reason) == (len(lines) + 1, True)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_a_file_that_is_not_packed_as_its_name_says_is_a_complaint(tmp_path: Path, suffix: str) -> None:
    path, complaints = tmp_path / (NAME + suffix), []
    path.write_bytes(b"1 {}\n2 {}\n")
    assert list(Capture([path], report=complaints.append)) == []
    assert "stream" in complaints[0].reason
    assert complaints[0].line == 0


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (b"no time", "no time"),
        (b"{}", "receive_time_ns"),
        (b"12", "receive_time_ns"),
        (b"12 ", "receive_time_ns"),
        (b"", "receive_time_ns"),
        (b"-5 {}", "receive_time_ns"),
        (b"+5 {}", "receive_time_ns"),
        (b"1_0 {}", "receive_time_ns"),
        (b" 5 {}", "receive_time_ns"),
        ("٣ {}".encode(), "receive_time_ns"),
        (b"9999999999999999999 {}", "2100"),
        (b"1" * 5000 + b" {}", "2100"),
    ],
)
def test_a_bad_line_is_reported_and_the_rest_read(tmp_path: Path, bad: bytes, word: str) -> None:
    capture, complaints = opened(tmp_path, X=b"1 [1]\n" + bad + b"\n3 [3]\n")
    assert payloads(capture) == [b"[1]", b"[3]"]
    assert [(complaint.file, complaint.line) for complaint in complaints] == [(str(capture.paths[0]), 2)]
    assert word in complaints[0].reason
    assert capture.complaints == 1
    assert str(complaints[0]).startswith(f"{capture.paths[0]}:2: expected")


def test_a_time_that_runs_back_is_kept_at_the_time_before(tmp_path: Path) -> None:
    capture, complaints = opened(tmp_path, X=b"10 [1]\n9 [2]\n8 [3]\n11 [4]\n")
    assert [(line.receive_ns, line.payload) for line in capture] == [(10, b"[1]"), (10, b"[2]"), (10, b"[3]"), (11, b"[4]")]
    assert [complaint.line for complaint in complaints] == [2, 3]


def test_a_cut_last_line_is_left_out_and_a_whole_one_without_newline_kept(tmp_path: Path) -> None:
    capture, complaints = opened(tmp_path, X=b'1 {"a": 1}\n2 {"a": ')
    assert payloads(capture) == [b'{"a": 1}']
    assert [complaint.line for complaint in complaints] == [2]
    capture, complaints = opened(tmp_path, X=b'1 {"a": 1}\n2 {"a": 2}')
    assert payloads(capture) == [b'{"a": 1}', b'{"a": 2}']
    assert complaints == []


def test_an_empty_file_is_a_complaint(tmp_path: Path) -> None:
    capture, complaints = opened(tmp_path, X=b"", Y=b"1 {}\n")
    assert len(list(capture)) == 1
    assert "empty" in complaints[0].reason


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_beyond_the_bound_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(captures, "LINE_BYTES_MAX", 100_000)
    monkeypatch.setattr(captures, "_READ_BYTES", 1_000)
    last = b"" if not end else b"4 [4]\n"
    capture, complaints = opened(tmp_path, X=b"1 [1]\n2 " + b"x" * 99_000 + b"\n3 " + b"x" * 200_000 + end + last)
    assert [line.line for line in capture] == ([1, 2, 4] if end else [1, 2])
    assert [complaint.line for complaint in complaints] == [3]
    assert "at most 100000" in complaints[0].reason


def test_complaints_are_bounded_a_file_and_the_rest_counted(tmp_path: Path) -> None:
    capture, complaints = opened(tmp_path, X=b"bad\n" * 50, Y=b"bad\n" * 3)
    for _ in range(2):
        complaints.clear()
        assert list(capture) == []
        assert len(complaints) == 23
        assert (capture.complaints, capture.complaints_suppressed) == (53, 30)


@settings(max_examples=50)
@given(files=st.lists(st.lists(st.integers(0, 20), max_size=12), min_size=1, max_size=4), read_bytes=st.integers(1, 40))
def test_files_merge_by_time_then_file_then_line(tmp_path_factory: pytest.TempPathFactory, files: list[list[int]], read_bytes: int) -> None:
    folder = tmp_path_factory.mktemp("merge")
    named = {f"S{n}": b"".join(b"%d [%d,%d]\n" % (t, n, i) for i, t in enumerate(sorted(times))) for n, times in enumerate(files)}
    expected = sorted((t, n, i + 1) for n, times in enumerate(files) for i, t in enumerate(sorted(times)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captures, "_READ_BYTES", read_bytes)
        capture, _ = opened(folder, **named)
        lines = list(capture)
    assert [(line.receive_ns, line.file, line.line) for line in lines] == expected
    assert all(line.payload == b"[%d,%d]" % (line.file, line.line - 1) and line.symbol == f"S{line.file}" for line in lines)


def test_a_fingerprint_is_of_names_sizes_and_ends_in_order(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        for symbol in "XY":
            (tmp_path / folder / f"sim_{symbol}.raw").write_bytes(b"1 [%b]\n" % symbol.encode() * 40_000)

    def of(folder: str, symbols: str) -> str:
        return Capture([tmp_path / folder / f"sim_{symbol}.raw" for symbol in symbols], report=pytest.fail).fingerprint()

    first = of("a", "XY")
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert of("b", "XY") == first, "the folder does not matter"
    assert len({first, of("a", "YX"), of("a", "X"), of("a", "Y")}) == 4
    path = tmp_path / "b" / "sim_Y.raw"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"}\n")
    assert of("b", "XY") != first


def kinds(entries: list[AnyInput]) -> list[tuple[str, int]]:
    return [(type(entry).__name__, entry.ts_ns) for entry in entries]


def test_silences_are_filled_with_heartbeats_and_long_ones_begin_a_session(tmp_path: Path) -> None:
    times = [S, S + 100 * MS, S + 400 * MS, S + 501 * MS, 61 * S + 501 * MS, 121 * S + 502 * MS]
    capture, _ = opened(tmp_path, X=b"".join(b"%d {}\n" % time for time in times))
    core = CoreSettings(seed=3)
    found = list(inputs(capture, core))
    assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
    assert found[0] == Configure(1, S, core)
    assert found[1] == SessionStart(2, S, "capture")
    assert found[2] == Frame(3, S, "sim", "X", b"{}")
    assert kinds(found[2:9]) == [
        ("Frame", S),
        ("Frame", S + 100 * MS),
        ("Heartbeat", S + 200 * MS),
        ("Heartbeat", S + 300 * MS),
        ("Frame", S + 400 * MS),
        ("Heartbeat", S + 500 * MS),
        ("Frame", S + 501 * MS),
    ]
    assert sum(isinstance(entry, Heartbeat) for entry in found) == 3 + 599, "exactly 60 s is not yet a new session"
    assert kinds(found[-3:]) == [("Frame", times[4]), ("SessionStart", times[5]), ("Frame", times[5])]


@settings(max_examples=40)
@given(times=st.lists(st.integers(0, 2_000), min_size=1, max_size=30), beat=st.integers(1, 50), gap=st.integers(0, 400))
def test_inputs_are_a_total_order_without_long_silences(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], beat: int, gap: int
) -> None:
    capture, _ = opened(tmp_path_factory.mktemp("order"), X=b"".join(b"%d [%d]\n" % (time, n) for n, time in enumerate(times)))
    found = list(inputs(capture, CoreSettings(), heartbeat_ns=beat, session_gap_ns=beat + gap))
    assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
    assert [entry.payload for entry in found if isinstance(entry, Frame)] == [b"[%d]" % n for n in range(len(times))]
    for before, after in pairwise(found):
        assert after.ts_ns >= before.ts_ns
        assert after.ts_ns - before.ts_ns <= beat or isinstance(after, SessionStart)
        if isinstance(after, Heartbeat):
            assert after.ts_ns - before.ts_ns == beat
        if isinstance(before, Heartbeat):
            assert after.ts_ns > before.ts_ns
    assert found == list(inputs(capture, CoreSettings(), heartbeat_ns=beat, session_gap_ns=beat + gap))


def test_history_comes_after_the_first_session_start_and_before_the_first_frame(tmp_path: Path) -> None:
    capture, complaints = opened(tmp_path, X=b"bad\n%d [1]\n%d [2]\n" % (S, 99 * S), Y=b"%d [0]\n" % (S - 5))
    assert capture.start_ns() == S - 5 and complaints == [] and capture.complaints == 0 and capture.last_position is None
    pages = [History(0, 0, "sim:X", 60_000, b"a"), History(0, 0, "sim:Y", 0, b"b")]
    found, plain = list(inputs(capture, CoreSettings(), history=pages)), list(inputs(capture, CoreSettings()))
    assert found[:4] == [*plain[:2], History(3, S - 5, "sim:X", 60_000, b"a"), History(4, S - 5, "sim:Y", 0, b"b")]
    assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
    assert [(type(one), one.ts_ns) for one in found[4:]] == [(type(one), one.ts_ns) for one in plain[2:]]
    assert [type(one) for one in found].count(SessionStart) == 2, "a later session has no history of its own"
    recording = open_inputs(capture.paths, CoreSettings(), report=lambda complaint: None)
    recording.history = pages
    assert list(recording) == list(recording) == found


def test_a_recording_of_nothing_has_no_start(tmp_path: Path) -> None:
    capture, complaints = opened(tmp_path, X=b"bad\n")
    assert capture.start_ns() is None and complaints == []


def test_no_line_makes_no_input_and_bad_intervals_are_refused(tmp_path: Path) -> None:
    capture, _ = opened(tmp_path, X=b"bad\n")
    assert list(inputs(capture, CoreSettings())) == []
    with pytest.raises(ValueError, match="expected 0 < heartbeat_ns"):
        list(inputs(capture, CoreSettings(), heartbeat_ns=0))


def test_the_last_position_is_that_of_the_frame_in_hand(tmp_path: Path) -> None:
    capture, _ = opened(tmp_path, X=b"1 [1]\nbad\n900000000 [3]\n", Y=b"2 [1]\n")
    recording = open_inputs(capture.paths, CoreSettings(), report=lambda complaint: None)
    assert recording.last_position is None
    seen = [recording.last_position for entry in recording if isinstance(entry, Frame)]
    x, y = capture.paths
    assert seen == [(x, 1), (y, 1), (x, 3)]
    assert (recording.kind, recording.complaints) == ("capture", 1)
    assert recording.bytes_read == recording.bytes_total > 0


def test_a_journal_opens_by_the_same_door(tmp_path: Path) -> None:
    capture, _ = opened(tmp_path, X=b"1 [1]\n2 [2]\n")
    expected = list(inputs(capture, CoreSettings()))
    journal = FileJournal(tmp_path / "main" / "journal")
    journal.append(expected)
    journal.close()
    segment = next((tmp_path / "main" / "journal").glob("*.seg"))
    for path in (tmp_path / "main" / "journal", tmp_path / "main", segment):
        recording = open_inputs([path], CoreSettings(seed=99), report=pytest.fail)
        assert list(recording) == expected
        assert (recording.kind, recording.bytes_read, recording.bytes_total) == ("journal", 6, 0)
    with pytest.raises(CaptureError, match="one journal"):
        open_inputs([segment, capture.paths[0]], CoreSettings(), report=pytest.fail)


def test_a_torn_journal_is_a_complaint(tmp_path: Path) -> None:
    capture, complaints = opened(tmp_path, X=b"1 [1]\n2 [2]\n")
    expected = list(inputs(capture, CoreSettings()))
    journal = FileJournal(tmp_path / "journal")
    journal.append(expected[:2])
    journal.append(expected[2:])
    journal.close()
    segment = next((tmp_path / "journal").glob("*.seg"))
    segment.write_bytes(segment.read_bytes()[:-3])
    recording = open_inputs([tmp_path / "journal"], CoreSettings(), report=complaints.append)
    assert list(recording) == expected[:2]
    assert recording.complaints == len(complaints) == 1


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for paths, word in [([], "at least one"), ([tmp_path / "sim_X.raw"], "found nothing"), ([tmp_path], "found a folder")]:
        with pytest.raises(CaptureError, match=word):
            open_inputs(paths, CoreSettings(), report=pytest.fail)


def test_a_real_recording_reads_whole(data: Path) -> None:
    path = data / "captures" / "binance-coinm_ETHUSD_PERP_20240808T2354.raw.gz"
    capture = Capture([path], report=pytest.fail)
    first = last = None
    count = 0
    for line in capture:
        first, last, count = first or line, line, count + 1
    assert count == 78_314
    assert first is not None
    assert last is not None
    assert round((last.receive_ns - first.receive_ns) / S, 1) == 647.4
    assert (first.venue, first.symbol) == ("binance-coinm", "ETHUSD_PERP")
    assert capture.bytes_read == path.stat().st_size
