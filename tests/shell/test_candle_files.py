"""Files of candles: taken whole, in order and once each, or refused with the line and what was expected of it."""

import builtins
import gzip
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from alphapack.domain.inputs import HISTORY_ROWS_MAX
from alphapack.models.candles import MINUTE_MS
from alphapack.shell import candle_files
from alphapack.shell.candle_files import CandleFileError, Past, load, read

T0 = 1_723_161_240_000
HEADER = b"ts_ms,open,high,low,close,volume\n"
BTC, ETH = "binance-usdm:BTCUSDT", "binance-usdm:ETHUSDT"


def line(minute: int, price: str = "100.5", **changed: str) -> bytes:
    """A row of a file; minutes are counted from ``T0``."""
    values = {"ts": str(T0 + minute * MINUTE_MS), "o": price, "h": "200", "l": "0.5", "c": price, "v": "12.25", **changed}
    return ",".join(values.values()).encode() + b"\n"


def written(folder: Path, *lines: bytes, name: str = "BTCUSDT_1m.csv", header: bytes = HEADER) -> Path:
    path = folder / name
    pack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(pack.get(path.suffix, bytes)(header + b"".join(lines)))
    return path


def minutes_of(path: Path) -> list[int]:
    return [int(ts - T0) // MINUTE_MS for ts in read(path)[:, 0]]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.xz", ".csv.zst", ".CSV.GZ"])
def test_a_text_is_read_plain_or_packed(tmp_path: Path, suffix: str) -> None:
    name = f"BTCUSDT_1m{suffix}"
    path = written(tmp_path, line(0), line(1, "101.25"), name=name.lower() if suffix.isupper() else name)
    rows = read(path.rename(tmp_path / name))
    assert rows.tolist() == [[T0, 100.5, 200.0, 0.5, 100.5, 12.25], [T0 + MINUTE_MS, 101.25, 200.0, 0.5, 101.25, 12.25]]
    assert rows.dtype == np.float64 and rows.flags.c_contiguous


def test_columns_may_stand_anywhere_among_others(tmp_path: Path) -> None:
    path = written(tmp_path, b"8,x,1,%d,7,4,9,\r\n" % T0, header=b"\xef\xbb\xbfclose,note,low,ts_ms,volume,open,high,\r\n")
    assert read(path).tolist() == [[T0, 4.0, 9.0, 1.0, 8.0, 7.0]]


@pytest.mark.parametrize("header", [b"", b"open_time,open,high,low,close,volume,close_time,quote_volume,count\n"])
@pytest.mark.parametrize("unit", [1, 1_000])
def test_a_table_of_klines_is_read_with_and_without_its_header_in_milli_and_microseconds(tmp_path: Path, header: bytes, unit: int) -> None:
    rows = [b"%d,1,2,0.5,1.5,3,%d,0,7\n" % (at * unit, (at + MINUTE_MS) * unit - 1) for at in (T0, T0 + MINUTE_MS)]
    assert minutes_of(written(tmp_path, *rows, header=header)) == [0, 1]


def test_candles_of_an_hour_are_refused(tmp_path: Path) -> None:
    hourly = [b"%d,1,2,0.5,1.5,3,%d\n" % (at, at + 60 * MINUTE_MS - 1) for at in (T0, T0 + 60 * MINUTE_MS)]
    with pytest.raises(CandleFileError, match=r"csv:1: expected candles of whole minutes"):
        read(written(tmp_path, *hourly, header=b""))
    with pytest.raises(CandleFileError, match=r"expected candles of one minute, found none that follows the one before within 3600000 ms"):
        read(written(tmp_path, line(0), line(60), line(120)))
    assert minutes_of(written(tmp_path, line(60))) == [60]


def test_rows_come_in_order_once_each_and_gaps_stay(tmp_path: Path) -> None:
    lines = [line(i, f"{100 + i}") for i in (*range(40), *range(50, 60))]
    shuffled = lines + lines[5:20]
    random.Random(1).shuffle(shuffled)
    whole, mixed = read(written(tmp_path, *lines)), read(written(tmp_path, *shuffled, name="BTCUSDT_1m_mixed.csv.gz"))
    assert whole.tobytes() == mixed.tobytes() and len(whole) == 50


def test_rows_of_one_minute_that_differ_are_refused_with_their_time(tmp_path: Path) -> None:
    path = written(tmp_path, line(0), line(1), line(0, "101"))
    with pytest.raises(CandleFileError, match=f"expected one candle a minute, found two that differ: ts_ms {T0}, open 100.5, .*open 101,"):
        read(path)


@pytest.mark.parametrize(
    "bad",
    [
        line(1, "nan"), line(1, "inf"), line(1, "-1"), line(1, "0"), line(1, "x"), line(1, ""), line(1, "1e400"), line(1, h="50"),
        line(1, l="150"), line(1, v="-0.1"), line(1, v="nan"), line(1, ts=str(T0 + 1)), line(1, ts="1.5"), line(1, ts=str(-T0)),
        line(1, ts="0"), line(1, ts="4102444800000"), line(1, "1_0"), line(1, " 1"), line(1, "0x1p3"),
        b"1,2,3\n", b",,,,,\n", b"\x00\xff\n",
    ],
    ids=lambda bad: bad.decode(errors="replace").strip(),
)  # fmt: skip
def test_what_is_no_candle_is_refused_with_file_and_line(tmp_path: Path, bad: bytes) -> None:
    path = written(tmp_path, line(0), bad, line(2))
    with pytest.raises(CandleFileError, match=r"BTCUSDT_1m\.csv:3: expected candles of whole minutes .*, found ") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header", [b"ts_ms,open,high,low,close\n", b"ts_ms,open,high,low,close,volume,volume\n", b"time,o,h,l,c,v\n", b"1,2,3\n", b"\n"]
)
def test_a_header_that_lacks_a_column_is_refused(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(CandleFileError, match=r"csv:1: expected a header with ts_ms,open,high,low,close,volume, each once, found '"):
        read(written(tmp_path, line(0), header=header))


@pytest.mark.parametrize("content", [b"", HEADER, HEADER + b"\n\r\n"])
def test_a_file_without_candles_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "BTCUSDT_1m.csv"
    path.write_bytes(content)
    with pytest.raises(CandleFileError, match="expected candles, found none"):
        read(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, found in ((tmp_path, "a folder"), (tmp_path / "none.csv", "nothing")):
        with pytest.raises(CandleFileError, match=f"expected a file of candles, found {found} at "):
            read(path)


@pytest.mark.parametrize("suffix", ["gz", "xz", "zst"])
def test_a_packed_file_that_was_cut_is_refused(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, *(line(i, f"{i + 1}") for i in range(99)), name=f"BTCUSDT_1m.csv.{suffix}")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CandleFileError, match=f"expected a whole {suffix} stream, found "):
        read(path)


def test_lines_and_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candle_files, "_READ_BYTES", 1_000)
    for endless in (b"9" * 50_000, b"1,2," + b"9" * 50_000 + b"\n"):
        with pytest.raises(CandleFileError, match=r"csv:3: expected at most .* lines of 4096 bytes, found more"):
            read(written(tmp_path, line(0), endless))
    monkeypatch.setattr(candle_files, "FILE_ROWS_MAX", 3)
    assert minutes_of(written(tmp_path, line(0), line(1), line(2))) == [0, 1, 2]
    with pytest.raises(CandleFileError, match="csv:5: expected at most 3 lines"):
        read(written(tmp_path, line(0), line(1), line(2), line(3)))


def test_blocks_of_any_size_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, *(line(i, f"{i + 1}") for i in range(60)))
    whole = read(path).tobytes()
    for size in (1, 7, 64, 1_000):
        monkeypatch.setattr(candle_files, "_READ_BYTES", size)
        assert read(path).tobytes() == whole


def test_the_recorded_files_are_read(data: Path) -> None:
    """Row counts as their description states them; the gaps of the third are outages, and stay."""
    rows = read(data / "candles" / "binance_BTCUSDT_1m_20210326-20210430_gaps.csv.gz")
    steps = np.diff(rows[:, 0])
    assert len(rows) == 50_000 and np.count_nonzero(steps > MINUTE_MS) == 2 and np.all(steps > 0)
    assert steps.max() == 17_100_000


# Parquet


def parquet(path: Path, **columns: Any) -> Path:
    import pyarrow
    from pyarrow import parquet as files

    stated = {"ts_ms": [T0 + MINUTE_MS, T0], "open": [1.5, 1], "high": [2.0, 2], "low": [1.0, 1], "close": [1.5, 2], "volume": [0, 3]}
    table = pyarrow.table({name: values for name, values in (stated | columns).items() if values is not None})
    files.write_table(table, path)
    return path


def test_parquet_is_read_with_columns_of_any_number_type(tmp_path: Path) -> None:
    path = parquet(tmp_path / "BTCUSDT.parquet", note=["a", "b"], volume=np.array([0, 3], np.int32))
    assert read(path).tolist() == [[T0, 1.0, 2.0, 1.0, 2.0, 3.0], [T0 + MINUTE_MS, 1.5, 2.0, 1.0, 1.5, 0.0]]


def test_parquet_that_is_none_or_says_no_candles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, said in (
        ({"open": [1.5, float("nan")]}, r"parquet:2: expected candles of whole minutes"),
        ({"close": [1.5, None]}, r"parquet:2: expected candles of whole minutes .* close nan"),
        ({"low": [3.0, 1]}, r"parquet:1: expected candles of whole minutes"),
        ({"volume": None}, "expected the columns ts_ms,open,high,low,close,volume, each once, found ts_ms,open,high,low,close"),
        ({"open": ["1", "2"]}, "expected numbers in the column open, found string"),
    ):
        with pytest.raises(CandleFileError, match=said):
            read(parquet(tmp_path / "BTCUSDT.parquet", **columns))
    (tmp_path / "BTCUSDT.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(CandleFileError, match="expected a Parquet file, found "):
        read(tmp_path / "BTCUSDT.parquet")
    monkeypatch.setattr(candle_files, "FILE_ROWS_MAX", 1)
    with pytest.raises(CandleFileError, match="expected at most 1 rows, found 2"):
        read(parquet(tmp_path / "BTCUSDT.parquet"))


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, imported = parquet(tmp_path / "BTCUSDT.parquet"), builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CandleFileError, match=r'pip install "alphapack\[parquet\]"'):
        read(path)


# Whose past it is


@pytest.mark.parametrize(
    "name",
    [
        "binance-spot_BTCUSDT_1m_20250520-20250818.csv.gz",
        "binance_BTCUSDT_1m_20210326_gaps.csv",
        "BTCUSDT-1m-2024-08.csv",
        "BTCUSDT_1m.csv.zst",
        "btc/BTCUSDT.csv",
        "=.csv",
        "minutes.csv",
    ],
)
def test_of_a_market_of_one_symbol_every_file_is_its_past_unless_its_name_says_another(tmp_path: Path, name: str) -> None:
    (tmp_path / "btc").mkdir()
    path = written(tmp_path, line(0), name=name)
    (past,) = load([str(path)], [BTC])
    assert past.symbol == BTC and len(past.rows) == 1
    stated = written(tmp_path, line(0), name="ETHUSDT_1m.csv")
    with pytest.raises(
        CandleFileError, match=f"expected history of {BTC}, found a name that says ETHUSDT: if it is, give --history SYMBOL="
    ):
        load([str(stated)], [BTC])
    assert load([f"btcusdt={stated}"], [BTC])[0].symbol == load([f"{BTC}={stated}"], [BTC])[0].symbol == BTC


def test_of_several_symbols_the_name_or_the_user_says_which(tmp_path: Path) -> None:
    btc, eth = written(tmp_path, line(0)), written(tmp_path, line(5), name="binance-spot_ETHUSDT_1m.csv")
    assert [past.symbol for past in load([str(eth), str(btc)], [BTC, ETH])] == [ETH, BTC]
    plain = written(tmp_path, line(0), name="minutes.csv")
    with pytest.raises(CandleFileError, match=f"expected one symbol that it is the history of, of {BTC}, {ETH}: give --history SYMBOL="):
        load([str(plain)], [BTC, ETH])
    assert load([f"ETHUSDT={plain}"], [BTC, ETH])[0].symbol == ETH
    with pytest.raises(CandleFileError, match=f"expected a symbol of {BTC}, {ETH}, found XRPUSDT"):
        load([f"XRPUSDT={plain}"], [BTC, ETH])
    with pytest.raises(CandleFileError, match="expected one symbol"):
        load([str(btc)], [BTC, "binance-spot:BTCUSDT"])
    assert load([f"binance-spot:btcusdt={btc}"], [BTC, "binance-spot:BTCUSDT"])[0].symbol == "binance-spot:BTCUSDT"


def test_a_recording_whose_name_says_no_symbol_may_have_any(tmp_path: Path) -> None:
    btc, plain = written(tmp_path, line(0)), written(tmp_path, line(0), name="minutes.csv")
    assert load([str(btc)], [], ["binance-usdm"])[0].symbol == BTC
    assert load([f"{ETH}={plain}"], [BTC], ["binance-usdm"])[0].symbol == ETH
    for text in (str(plain), f"binance-coinm:ETHUSD_PERP={plain}"):
        with pytest.raises(CandleFileError, match="expected"):
            load([text], [BTC], ["binance-usdm"])


def test_files_of_one_symbol_are_one_past_and_must_agree(tmp_path: Path) -> None:
    one, other = written(tmp_path, line(3), line(4)), written(tmp_path, line(0), line(1), line(3), name="BTCUSDT_1m_before.csv")
    (past,) = load([str(one), str(other)], [BTC])
    assert ((past.rows[:, 0] - T0) // MINUTE_MS).tolist() == [0, 1, 3, 4]
    contrary = written(tmp_path, line(4, "7"), name="BTCUSDT_1m_other.csv")
    with pytest.raises(CandleFileError, match=r"BTCUSDT_1m\.csv, .*BTCUSDT_1m_other\.csv: expected one candle a minute"):
        load([str(one), str(contrary)], [BTC])


# Before the market, or moved to where it begins


def past_of(*minutes: int) -> Past:
    return Past(BTC, np.array([(T0 + minute * MINUTE_MS, 1.0, 2.0, 1.0, 2.0, 3.0) for minute in minutes]))


def left(past: Past) -> list[int]:
    return ((past.rows[:, 0] - T0) // MINUTE_MS).astype(int).tolist()


def test_a_minute_in_which_the_market_begins_is_not_before_it() -> None:
    past = past_of(0, 1, 2, 3)
    assert left(past.before(T0 + 2 * MINUTE_MS)) == [0, 1] == left(past.before(T0 + 3 * MINUTE_MS - 1))
    assert left(past.before(T0)) == [] and left(past.before(T0 + 9 * MINUTE_MS, T0 + 2 * MINUTE_MS)) == [2, 3]
    assert left(past.without(np.array([T0, T0 + 3.0 * MINUTE_MS]))) == [1, 2] and past.shift_ms == 0


@pytest.mark.parametrize("minutes", [-90, 0, 1, 500_000])
@pytest.mark.parametrize("into_ms", [0, 1, 59_999])
def test_a_past_of_another_time_ends_where_the_minute_of_the_start_begins(minutes: int, into_ms: int) -> None:
    moved = past_of(0, 1, 3).shifted(T0 + minutes * MINUTE_MS + into_ms)
    assert moved.shift_ms == (minutes - 4) * MINUTE_MS
    assert left(moved) == [minutes - 4, minutes - 3, minutes - 1], "holes move along"
    assert left(moved.before(T0 + minutes * MINUTE_MS + into_ms)) == left(moved), "nothing of the market's own time is among it"


def test_pages_hold_the_newest_candles_that_an_engine_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candle_files, "ROWS_MAX", 12_000)
    past = past_of(*range(13_000))
    for used in (past.before(T0 + 10**12), past.shifted(T0 + 13_000 * MINUTE_MS)):
        pages = list(used.pages())
        rows = np.concatenate([np.frombuffer(page.rows).reshape(-1, 6) for page in pages])
        assert [len(page.rows) // 48 for page in pages] == [HISTORY_ROWS_MAX, HISTORY_ROWS_MAX, 2_000]
        assert rows.tobytes() == past.rows[1_000:].tobytes()
        assert {(page.symbol, page.shift_ms) for page in pages} == {(BTC, 0)}
