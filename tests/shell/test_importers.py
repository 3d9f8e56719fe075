"""Files of other programs, made by hand, through the importers, the codecs and the engine."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import alphapack as ap
from alphapack.domain.events import Candle, DepthDiff, DepthSnapshot, TopOfBook, Trade
from alphapack.domain.market import BookState, Verdict
from alphapack.facade import Replay
from alphapack.shell import captures, tables
from alphapack.shell.captures import Complaint, Line
from alphapack.shell.convert import convert
from alphapack.shell.hftbacktest import BUY_EVENT, EVENT, LOCAL_EVENT, SELL_EVENT
from alphapack.shell.importers import Foreign, open_foreign
from alphapack.shell.tables import ForeignError
from alphapack.venues.binance import BinanceCodec

CODECS = {f"binance-{market}": BinanceCodec(market) for market in ("spot", "usdm", "coinm")}
EXCHANGES = {"binance-spot": "binance", "binance-usdm": "binance-futures", "binance-coinm": "binance-delivery"}
US = 1_723_104_000_000_000
"""2024-08-08 in microseconds."""
L2 = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount"
TRADES = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
AGG = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
BUY, SELL, BOTH = BUY_EVENT | LOCAL_EVENT, SELL_EVENT | LOCAL_EVENT, 1 << 31


def zipped(path: Path, text: str, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(path.with_suffix(".csv").name, text)
    return path


def written(path: Path, *rows: str) -> Path:
    content = "".join(f"{row}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def events(path: Path, rows: Sequence[tuple[int, int, int, float, float]], **arrays: Any) -> Path:
    data = np.zeros(len(rows), EVENT)
    for field, column in zip(("ev", "exch_ts", "local_ts", "px", "qty"), zip(*rows, strict=True), strict=True):
        data[field] = column
    np.savez_compressed(path, data=data, **arrays)
    return path


def opened(*paths: Path, venue: str | None = None, symbol: str | None = None, report: Callable[[Complaint], None] = pytest.fail) -> Foreign:
    foreign = open_foreign(paths, venue, symbol, report)
    assert foreign is not None
    return foreign


def decoded(lines: Sequence[Line]) -> list[Any]:
    """What the codecs read: an event a line."""
    return [event for line in lines for event in CODECS[line.venue].decode(line.payload, line.symbol)]


# Binance's archive


@pytest.mark.parametrize(
    ("name", "text", "venue", "receive_ns", "event"),
    [
        (
            "BTCUSDT-aggTrades-2024-08-08.zip",
            f"{AGG}\n7,55000.10,0.002,11,13,1723104000123,true\n",
            "binance-usdm",
            1723104000123_000_000,
            Trade("binance-usdm:BTCUSDT", 1723104000123_000_000, 11, 13, b'"55000.10"', b'"0.002"', False, 7),
        ),
        (
            "BTCUSDT-aggTrades-2025-01.zip",
            "7,55000.10000000,0.00200000,11,11,1735689600010866,False,True\r\n",
            "binance-spot",
            1735689600010866_000,
            Trade("binance-spot:BTCUSDT", 1735689600010866_000, 11, 11, b'"55000.10000000"', b'"0.00200000"', True, 7),
        ),
        (
            "BTCUSDT-trades-2024-08-08.zip",
            "9,1e-7,2,0.0000002,1723104000123,True,True\n",
            "binance-spot",
            1723104000123_000_000,
            Trade("binance-spot:BTCUSDT", 1723104000123_000_000, 9, 9, b'"0.0000001"', b'"2"', False),
        ),
        (
            "BTCUSD_PERP-trades-2024-08-08.zip",
            "id,price,qty,base_qty,time,is_buyer_maker\n9,55000.1,3,0.0005,1723104000123,false\n",
            "binance-coinm",
            1723104000123_000_000,
            Trade("binance-coinm:BTCUSD_PERP", 1723104000123_000_000, 9, 9, b'"55000.1"', b'"3"', True),
        ),
        (
            "BTCUSDT-bookTicker-2024-03-01.zip",
            "5,1.1,2,1.2,3,1723104000120,1723104000123\n",
            "binance-usdm",
            1723104000123_000_000,
            TopOfBook("binance-usdm:BTCUSDT", 1723104000123_000_000, 5, b'"1.1"', b'"2"', b'"1.2"', b'"3"'),
        ),
    ],
)
def test_a_row_of_the_archive_is_the_message_it_was(
    tmp_path: Path, name: str, text: str, venue: str, receive_ns: int, event: object
) -> None:
    foreign = opened(zipped(tmp_path / name, text), venue=venue)
    lines = list(foreign)
    assert [(line.receive_ns, line.venue, line.symbol) for line in lines] == [(receive_ns, venue, name.partition("-")[0])]
    assert decoded(lines) == [event]
    assert foreign.complaints == 0
    assert foreign.bytes_read == foreign.bytes_total


@pytest.mark.parametrize("scale", [1, 1_000], ids=["ms", "us"])
def test_a_kline_is_a_closed_candle_that_nobody_knew_before_its_end(tmp_path: Path, scale: int) -> None:
    begin, end = 1735689600000 * scale, 1735689660000 * scale - 1
    path = zipped(tmp_path / "BTCUSDT-1m-2025-01.zip", f"{begin},4.1,4.8,4.0,4.2,539.23,{end},2240.3,13,401.8,1669.9,0\n")
    (line,) = opened(path, venue="binance-spot")
    assert line.receive_ns == 1735689660000_000_000
    (candle,) = decoded([line])
    assert isinstance(candle, Candle)
    assert (candle.open_ms, candle.close_ms, candle.interval, candle.closed) == (1735689600000, 1735689659999, "1m", True)
    assert [float(value) for value in (candle.open, candle.high, candle.low, candle.close, candle.volume)] == [4.1, 4.8, 4.0, 4.2, 539.23]


def test_what_the_columns_settle_needs_no_venue(tmp_path: Path) -> None:
    spot = zipped(tmp_path / "BTCUSDT-trades-2024-08-08.zip", "9,1.5,2,3.0,1723104000123,True,True\n")
    assert next(iter(opened(spot))).venue == "binance-spot"
    with pytest.raises(ForeignError, match=r"expected --venue binance-spot for BTC.*found binance-usdm"):
        opened(spot, venue="binance-usdm")
    either = zipped(tmp_path / "ETHUSDT-trades-2024-08-08.zip", "9,1.5,2,3.0,1723104000123,true\n")
    with pytest.raises(ForeignError, match=r"expected --venue binance-spot or binance-usdm or binance-coinm for ETH.*found none"):
        opened(either)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("BTCUSDT-bookDepth-2024-08-08.zip", "timestamp,percentage,depth,notional\n2024-08-08 00:00:00,-5,1,2\n", "no order book"),
        ("BTCUSDT-metrics-2024-08-08.zip", "create_time,symbol\n", "metrics"),
        ("BTCUSDT-trades-2024-08-08.zip", "id,price\n1,2\n", r"expected the columns id,price,qty,.*found 'id,price'"),
        ("BTCUSDT-1m.zip", "1723104000000,1,1,1,1,1,1723104059999,1,1,1,1,0\n", "expected SYMBOL-aggTrades-DATE.*Tardis.*hftbacktest"),
        ("trades.zip", "id,price,qty,quote_qty,time,is_buyer_maker\n", "or --symbol"),
        ('A"B-trades-2024-08-08.zip', "9,1.5,2,3.0,1723104000123,true\n", "expected the name of a symbol"),
        ("other.csv", "a,b\n1,2\n", "expected SYMBOL-aggTrades-DATE"),
        ("empty.csv", "", "expected SYMBOL-aggTrades-DATE"),
        ("noise.zip", None, "expected SYMBOL-aggTrades-DATE"),
    ],
)
def test_what_is_none_of_the_forms_is_refused_by_name(tmp_path: Path, name: str, text: str | None, match: str) -> None:
    path = tmp_path / name
    if text is None:
        path.write_bytes(b"PK\3\4 and nothing more")
    elif path.suffix == ".zip":
        zipped(path, text)
    else:
        path.write_text(text)
    with pytest.raises(ForeignError, match=match):
        open_foreign([path], "binance-usdm", None, pytest.fail)


def test_recordings_are_left_to_others(tmp_path: Path) -> None:
    capture = tmp_path / "binance-usdm_BTCUSDT_20240808.raw.gz"
    capture.write_bytes(gzip.compress(b"1 {}\n"))
    broken = tmp_path / "binance-usdm_BTCUSDT_20240809.raw.gz"
    broken.write_bytes(b"\x1f\x8bnot gzip")
    assert open_foreign([capture, broken, tmp_path], None, None, pytest.fail) is None
    table = zipped(tmp_path / "BTCUSDT-trades-2024-08-08.zip", "9,1.5,2,3.0,1723104000123,True,True\n")
    with pytest.raises(ForeignError, match=r"alone.*raw\.gz"):
        open_foreign([table, capture], None, None, pytest.fail)


# Damage


def test_bad_rows_are_told_a_bounded_number_of_times_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = "{0},1.5,2,{0},{0},{1},true"
    rows = [AGG, good.format(1, 1723104000000), *["what,is,this"] * 50, "x" * (tables.LINE_BYTES_MAX * 8), good.format(2, 1723104000009)]
    rows += [good.format(3, 1723104000004), "4,1.5,2,9,8,1723104000009,true", "5,-1,2,5,5,1723104000009,true", "6,1.5,2,6,6,12,true"]
    told: list[Complaint] = []
    foreign = opened(zipped(tmp_path / "BTCUSDT-aggTrades-2024-08-08.zip", "\n".join(rows)), venue="binance-usdm", report=told.append)
    lines = list(foreign)
    assert [line.line for line in lines] == [2, 54, 55]
    assert [line.receive_ns for line in lines] == [1723104000000_000_000, 1723104000009_000_000, 1723104000009_000_000]
    assert len(told) == captures.COMPLAINTS_A_FILE
    assert foreign.complaints == 50 + 1 + 1 + 3
    assert "aggTrades-2024-08-08.zip:3: expected the columns agg_trade_id" in str(told[0])
    assert list(foreign) == lines, "each iteration begins at the start"
    assert foreign.complaints == 55


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_of_a_zip_that_was_cut_what_came_before_is_kept(tmp_path: Path, method: int) -> None:
    rows = "".join(f"{i},{i}.5,2,{i},{i},{1723104000000 + i},true\n" for i in range(1, 5_001))
    path = zipped(tmp_path / "BTCUSDT-aggTrades-2024-08-08.zip", rows, method)
    whole = path.read_bytes()
    assert len(list(opened(path, venue="binance-usdm"))) == 5_000
    path.write_bytes(whole[: len(whole) // 2])
    told: list[Complaint] = []
    lines = list(opened(path, venue="binance-usdm", report=told.append))
    assert 1_000 < len(lines) < 4_000
    assert [event.first_id for event in decoded(lines)] == list(range(1, len(lines) + 1))
    assert told[0].line == len(lines) + 1
    assert "a zip that was cut" in told[0].reason


def test_of_a_gzip_stream_that_was_cut_what_came_before_is_kept(tmp_path: Path) -> None:
    rows = [f"binance,BTCUSDT,{US + i},{US + i},{i},buy,{i}.5,2" for i in range(1, 5_001)]
    path = written(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv.gz", TRADES, *rows)
    path.write_bytes(path.read_bytes()[:-4_000])
    told: list[Complaint] = []
    lines = list(opened(path, report=told.append))
    assert [event.first_id for event in decoded(lines)] == list(range(1, len(lines) + 1))
    assert len(lines) > 1_000
    assert "a gzip stream that was cut" in told[0].reason


def test_a_table_that_was_cut_within_a_row_loses_that_row(tmp_path: Path) -> None:
    path = tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv"
    path.write_text(f"{TRADES}\nbinance,BTCUSDT,{US},{US},1,buy,1.5,2\nbinance,BTCUSDT,{US},{US},2,buy,1.5,2")
    told: list[Complaint] = []
    assert len(list(opened(path, report=told.append))) == 1
    assert "a newline at the end" in told[0].reason


def test_a_checksum_that_differs_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "BTCUSDT-aggTrades-2024-08-08.zip", "1,1.5,2,1,1,1723104000000,true\n", zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"1,1.5,2,", b"1,1.6,2,"))
    told: list[Complaint] = []
    assert len(list(opened(path, venue="binance-usdm", report=told.append))) == 1
    assert "checksum" in told[0].reason


def test_a_zip_written_as_a_stream_and_one_of_two_files(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise OSError("a pipe")

        def tell(self) -> int:
            raise OSError("a pipe")

    path = tmp_path / "BTCUSDT-aggTrades-2024-08-08.zip"
    for files in (1, 2):
        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
            for i in range(files):
                archive.writestr(f"{i}.csv", "1,1.5,2,1,1,1723104000000,true\n")
        path.write_bytes(pipe.getvalue())
        told: list[Complaint] = []
        assert len(list(opened(path, venue="binance-usdm", report=told.append))) == 1
        assert ["more than one file" in str(one) for one in told] == [True] * (files - 1)


@pytest.mark.parametrize("wrap", ["zip", "gz"])
def test_a_file_that_grows_without_end_is_given_up(tmp_path: Path, wrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_GROWTH_FROM_BYTES", 1 << 20)
    row, nothing = f"{TRADES}\nbinance,BTCUSDT,{US},{US},1,buy,1.5,2\n", "0" * (32 << 20)
    path = tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv.gz"
    if wrap == "zip":
        zipped(path, row + nothing)
    else:
        path.write_bytes(gzip.compress(f"{row}{nothing}".encode(), 9))
    told: list[Complaint] = []
    foreign = opened(path, report=told.append)
    assert len(list(foreign)) == 1
    assert "250 times its size" in told[0].reason
    assert len(told) <= 2


def test_a_zip_that_is_encrypted_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "BTCUSDT-aggTrades-2024-08-08.zip", "1,1.5,2,1,1,1723104000000,true\n")
    content = bytearray(path.read_bytes())
    content[6] |= 1
    path.write_bytes(content)
    with pytest.raises(ForeignError, match="encrypted"):
        open_foreign([path], "binance-usdm", None, pytest.fail)


# Tardis


def l2_rows(exchange: str, messages: Sequence[tuple[int, bool, dict[str, list[tuple[str, str]]]]]) -> list[str]:
    return [
        f"{exchange},BTCUSDT,{US + at - 5},{US + at},{str(whole).lower()},{side},{price},{amount}"
        for at, whole, sides in messages
        for side, levels in sides.items()
        for price, amount in levels
    ]


FIRST = {"bid": [("60000.0", "1.5"), ("59999.9", "2.0")], "ask": [("60000.1", "3"), ("60000.2", "0.000")]}


@pytest.mark.parametrize("venue", CODECS)
def test_rows_of_equal_times_are_one_message_of_the_book(tmp_path: Path, venue: str) -> None:
    exchange = EXCHANGES[venue]
    rows = l2_rows(exchange, [(0, True, FIRST), (100, False, {"bid": [("60000.0", "0")], "ask": [("60000.2", "4.25")]})])
    path = written(tmp_path / "x.csv.gz", L2, *rows)
    lines = list(opened(path))
    assert [(line.receive_ns, line.venue, line.symbol, line.line) for line in lines] == [
        (US * 1_000, venue, "BTCUSDT", 2),
        ((US + 100) * 1_000, venue, "BTCUSDT", 6),
    ]
    snapshot, diff = decoded(lines)
    assert isinstance(snapshot, DepthSnapshot) and isinstance(diff, DepthDiff)
    assert (snapshot.symbol, snapshot.venue_ns) == (f"{venue}:BTCUSDT", (US - 5) * 1_000)
    assert (snapshot.bids, snapshot.asks) == (b'[["60000.0","1.5"],["59999.9","2.0"]]', b'[["60000.1","3"]]')
    assert (diff.bids, diff.asks) == (b'[["60000.0","0"]]', b'[["60000.2","4.25"]]')
    assert CODECS[venue].verdict(diff, snapshot.last, first_after_snapshot=True) is Verdict.APPLY


STEPS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30)


@given(steps=STEPS, venue=st.sampled_from(sorted(CODECS)))
def test_every_market_takes_the_chain_and_sees_where_it_begins_anew(
    steps: list[tuple[int, bool]], venue: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    at, messages = 0, []
    for i, (ahead_us, whole) in enumerate(steps):
        at += ahead_us
        # Differing times of the exchange keep messages apart that were received within one microsecond.
        messages.append(f"{EXCHANGES[venue]},BTCUSDT,{US + i},{US + at},{str(whole).lower()},bid,{i + 1},1")
    lines = list(opened(written(tmp_path_factory.mktemp("chain") / "x.csv", L2, *messages)))
    assert len(lines) == len(steps)
    last: int | None = None
    fresh = False
    broken: int | None = None
    for event in decoded(lines):
        if isinstance(event, DepthSnapshot):
            assert last is None or event.last > last
            broken, last, fresh = (broken if fresh else last), event.last, True
            continue
        if last is not None:
            assert CODECS[venue].verdict(event, last, first_after_snapshot=fresh) is Verdict.APPLY
        if fresh and broken is not None:
            assert CODECS[venue].verdict(event, broken, first_after_snapshot=False) is Verdict.GAP
        last, fresh, broken = event.last, False, None


def replayed(tmp_path: Path, foreign: Foreign, name: str) -> Replay:
    out = tmp_path / name
    convert(foreign, out)
    return ap.replay(out)


@pytest.mark.parametrize("venue", CODECS)
def test_a_book_of_tardis_goes_live_and_begins_anew_with_a_snapshot(tmp_path: Path, venue: str) -> None:
    again = {"bid": [("60010.0", "1")], "ask": [("60010.4", "3")]}
    messages = [
        (0, True, FIRST),
        (100_000, False, {"ask": [("60000.2", "4.25")]}),
        (200_000, False, {"bid": [("60000.0", "0")]}),
        (300_000, True, again),
        *((at, False, {"bid": [("60010.1", "3")]}) for at in (400_000, 2_000_000, 4_000_000, 5_500_000)),
    ]
    path = written(tmp_path / "book.csv", L2, *l2_rows(EXCHANGES[venue], messages))
    trade = f"{EXCHANGES[venue]},BTCUSDT,{US + 4_390_000},{US + 4_450_000},77,sell,60010.0,0.5"
    trades = written(tmp_path / "trades.csv", TRADES, trade)
    replay = replayed(tmp_path, opened(path, trades), f"{venue}_BTCUSDT_20240808.raw.gz")
    rows = replay.to_numpy()
    assert replay.complaints == []
    assert (replay.gaps, replay.crossed) == (1, 0)
    assert [BookState(state).name for state in rows["state"]] == ["SYNCING", *["LIVE"] * 8]
    assert rows["mid"][1:5].tolist() == pytest.approx([60000.05, 60000.0, 60000.0, 60010.25])
    assert (rows["bid"][-1], rows["ask"][-1], rows["ti"][-1]) == (60010.1, 60010.4, -1.0)


def test_trades_and_quotes_of_tardis_keep_their_numbers(tmp_path: Path) -> None:
    trades = written(tmp_path / "t.csv", TRADES, f"binance-futures,BTCUSDT,{US},{US + 7},42,buy,60000.10,1.50")
    quotes = written(
        tmp_path / "q.csv",
        "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount",
        f"binance-futures,BTCUSDT,{US},{US + 3},4,60000.2,60000.1,5",
        f"binance-futures,BTCUSDT,{US},{US + 9},,,60000.1,5",
    )
    told: list[Complaint] = []
    lines = list(opened(trades, quotes, report=told.append))
    assert decoded(lines) == [
        TopOfBook("binance-usdm:BTCUSDT", US * 1_000, 0, b'"60000.1"', b'"5"', b'"60000.2"', b'"4"'),
        Trade("binance-usdm:BTCUSDT", US * 1_000, 42, 42, b'"60000.10"', b'"1.50"', True),
    ]
    assert [(one.file, one.line) for one in told] == [(str(quotes), 3)]


def test_quotes_are_held_against_no_book(tmp_path: Path) -> None:
    messages = [(0, True, FIRST), (100, False, {"ask": [("60000.2", "4")]}), (300, False, {"ask": [("60000.2", "5")]})]
    book = written(tmp_path / "b.csv", L2, *l2_rows("binance", messages))
    header = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount"
    quotes = written(tmp_path / "q.csv", header, *(f"binance,BTCUSDT,{US},{US + at},4,9,8,5" for at in (0, 100, 200)))
    replay = replayed(tmp_path, opened(book, quotes), "binance-spot_BTCUSDT.raw")
    assert replay.to_numpy()["state"][-1] == BookState.LIVE
    assert replay.health()["binance-spot:BTCUSDT"].ticker_mismatched == 0


def test_books_of_five_levels_become_a_book_and_its_changes(tmp_path: Path) -> None:
    header = L2[: L2.index("is_snapshot")] + ",".join(
        f"asks[{i}].price,asks[{i}].amount,bids[{i}].price,bids[{i}].amount" for i in range(5)
    )

    def row(at: int, levels: Sequence[str]) -> str:
        return ",".join([f"binance-futures,BTCUSDT,{US + at},{US + at}", *levels, *[",,,"] * (5 - len(levels))])

    path = written(
        tmp_path / "s.csv",
        header,
        row(0, ["101,1,100,2", "102,3,99,4"]),
        row(10, ["101,1,100,5", "102,3,98.5,1"]),
        row(20, ["101,1,100,"]),
        row(30, ["101,1,100,5", "102,3,98.5,1"]),
    )
    told: list[Complaint] = []
    lines = list(opened(path, report=told.append))
    first, changed, same = decoded(lines)
    assert (first.bids, first.asks) == (b'[["100","2"],["99","4"]]', b'[["101","1"],["102","3"]]')
    assert (changed.bids, changed.asks) == (b'[["100","5"],["98.5","1"],["99","0"]]', b"[]")
    assert (same.bids, same.asks) == (b"[]", b"[]")
    assert [one.line for one in told] == [4]


@pytest.mark.parametrize(
    ("name", "rows", "venue", "match"),
    [
        ("t.csv", [TRADES, f"bybit,BTCUSDT,{US},{US},1,buy,1,1"], None, "one of the exchanges binance, binance-futures.*'bybit'"),
        ("t.csv", [TRADES, f"binance,BTCUSDT,{US},{US},1,buy,1,1"], "binance-usdm", "expected --venue binance-spot or none.*binance-usdm"),
        (
            "t.csv",
            ["exchange,symbol,timestamp,local_timestamp,open_interest"],
            None,
            r"expected a table incremental_book_L2.*open_interest",
        ),
        ("binance_liquidations_2024-08-08_X.csv", [TRADES, f"binance,X,{US},{US},1,buy,1,1"], None, "liquidations"),
        ("t.csv", [TRADES], None, "expected rows after the header"),
    ],
)
def test_tables_of_tardis_that_are_not_read_are_refused(tmp_path: Path, name: str, rows: list[str], venue: str | None, match: str) -> None:
    with pytest.raises(ForeignError, match=match):
        open_foreign([written(tmp_path / name, *rows)], venue, None, pytest.fail)


def test_a_symbol_in_other_letters_and_one_that_is_none(tmp_path: Path) -> None:
    rows = [f"binance,{name},{US},{US},1,buy,1,1" for name in ("币安USDT", 'A"B', "A:B", "", "X" * 41)]
    told: list[Complaint] = []
    (line,) = opened(written(tmp_path / "t.csv", TRADES, *rows), report=told.append)
    assert decoded([line])[0].symbol == "binance-spot:币安USDT"
    assert len(told) == 4


def test_a_message_of_too_many_levels_goes_on_as_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphapack.shell.tardis.MESSAGE_LEVELS_MAX", 2)
    levels = [(str(100 - i), "1") for i in range(5)]
    lines = list(opened(written(tmp_path / "b.csv", L2, *l2_rows("binance", [(0, True, {"bid": levels})]))))
    found = decoded(lines)
    assert [type(event) for event in found] == [DepthSnapshot, DepthDiff, DepthDiff]
    assert b"".join(event.bids for event in found) == b'[["100","1"],["99","1"]][["98","1"],["97","1"]][["96","1"]]'


def test_days_follow_each_other_and_a_second_book_of_the_same_day_is_left_out(tmp_path: Path) -> None:
    one = written(tmp_path / "1.csv", L2, *l2_rows("binance", [(0, True, FIRST), (100, False, {"ask": [("60000.2", "4")]})]))
    two = written(tmp_path / "2.csv", L2, *l2_rows("binance", [(200, True, FIRST), (300, False, {"ask": [("60000.2", "4")]})]))
    same = written(tmp_path / "3.csv", L2, *l2_rows("binance", [(50, True, FIRST)]))
    assert len(list(opened(one, two))) == 4
    told: list[Complaint] = []
    assert len(list(opened(one, two, same, report=told.append))) == 4
    assert "one book of BTCUSDT at a time, found another while 1.csv goes on" in told[0].reason


# hftbacktest

NS = US * 1_000


def test_events_become_a_book_its_changes_and_trades(tmp_path: Path) -> None:
    rows = [
        (3 | BUY, NS, NS + 5_000, 99.0, 0.0),
        (4 | BUY, NS, NS + 5_000, 100.0, 2.5),
        (4 | BUY, NS, NS + 5_000, 99.0, 1e-05),
        (3 | SELL, NS, NS + 5_000, 101.0, 0.0),
        (4 | SELL, NS, NS + 5_000, 101.0, 1.0),
        (1 | BUY | BOTH, NS + 9_000, NS + 10_000, 100.5, 0.1 + 0.2),
        (1 | SELL | BOTH, NS + 9_000, NS + 10_000, 101.0, -0.0),
        (1 | BUY_EVENT | BOTH, NS + 9_000, NS + 10_000, 7.0, 7.0),
        (2 | SELL | BOTH, NS + 11_000, NS + 12_000, 100.5, 0.25),
        (2 | BUY | BOTH, NS + 11_000, NS + 12_000, 101.0, 3.0),
    ]
    lines = list(opened(events(tmp_path / "btcusdt_20240808.npz", rows), venue="binance-usdm"))
    assert [(line.receive_ns - NS, line.symbol, line.line) for line in lines] == [
        *((5_000, "BTCUSDT", 1), (10_000, "BTCUSDT", 6), (12_000, "BTCUSDT", 9), (12_000, "BTCUSDT", 10))
    ]
    snapshot, diff, sold, bought = decoded(lines)
    assert (snapshot.bids, snapshot.asks) == (b'[["100","2.5"],["99","0.00001"]]', b'[["101","1"]]')
    assert (diff.bids, diff.asks, diff.venue_ns) == (b'[["100.5","0.30000000000000004"]]', b'[["101","0"]]', NS + 9_000)
    assert CODECS["binance-usdm"].verdict(diff, snapshot.last, first_after_snapshot=True) is Verdict.APPLY
    assert [(one.price, one.quantity, one.buyer_is_taker) for one in (sold, bought)] == [
        (b'"100.5"', b'"0.25"', False),
        (b'"101"', b'"3"', True),
    ]
    assert bought.first_id == sold.first_id + 1


def test_a_snapshot_of_too_many_events_goes_on_as_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphapack.shell.hftbacktest.MESSAGE_LEVELS_MAX", 2)
    path = events(tmp_path / "X.npz", [(4 | BUY, NS, NS, float(100 - i), 1.0) for i in range(5)])
    found = decoded(list(opened(path, venue="binance-usdm")))
    assert [type(event) for event in found] == [DepthSnapshot, DepthDiff, DepthDiff]
    assert b"".join(event.bids for event in found) == b'[["100","1"],["99","1"]][["98","1"],["97","1"]][["96","1"]]'


def test_a_snapshot_without_a_time_begins_what_comes_beside_it(tmp_path: Path) -> None:
    start = events(tmp_path / "sod.npz", [(4 | BUY, 0, 0, 100.0, 2.0), (4 | SELL, 0, 0, 101.0, 1.0)])
    day = events(tmp_path / "day.npz", [(1 | SELL, NS, NS + 7, 100.5, 1.0), (1 | SELL, NS + 100, NS + 107_000, 100.5, 2.0)])
    for paths in ((start, day), (day, start)):
        replay = replayed(tmp_path, opened(*paths, venue="binance-usdm", symbol="BTCUSDT"), "binance-usdm_BTCUSDT.raw")
        rows = replay.to_numpy()
        assert rows["ts_ns"].tolist() == [NS + 7, NS + 7, NS + 107_000]
        assert (rows["state"][-1], rows["mid"][-1], replay.gaps) == (BookState.LIVE, 100.25, 0)
    told: list[Complaint] = []
    assert list(opened(start, venue="binance-usdm", symbol="BTCUSDT", report=told.append)) == []
    assert "a message with a time" in told[0].reason


def test_a_book_that_was_cleared_is_not_known_until_a_snapshot_comes(tmp_path: Path) -> None:
    rows = [
        *((4 | BUY, NS, NS, 100.0, 2.0), (4 | SELL, NS, NS, 101.0, 1.0), (1 | BUY, NS + 1, NS + 1, 100.0, 1.0)),
        *((3 | LOCAL_EVENT, NS + 2, NS + 2, 0.0, 0.0), (1 | BUY, NS + 3, NS + 3, 100.0, 3.0)),
    ]
    told: list[Complaint] = []
    path = events(tmp_path / "BTCUSDT.npz", rows)
    replay = replayed(tmp_path, opened(path, venue="binance-spot", report=told.append), "binance-spot_BTCUSDT.raw")
    assert [BookState(state).name for state in replay.to_numpy()["state"]] == ["SYNCING", "LIVE", "SYNCING"]
    assert [(one.line, "cleared" in one.reason) for one in told] == [(4, True)]


def test_events_that_cannot_be_told_are_left_out(tmp_path: Path) -> None:
    bad = [
        (10 | BUY, NS, NS, 1.0, 1.0),
        (1 | LOCAL_EVENT, NS, NS, 1.0, 1.0),
        (1 | BUY, NS, NS, float("nan"), 1.0),
        (1 | BUY, NS, NS, 1.0, float("inf")),
        (1 | BUY, NS, NS, 0.0, 1.0),
        (2 | BUY, 0, 0, 1.0, 1.0),
        (1 | BUY, US, US, 1.0, 1.0),
        (1 | BUY, NS, 1 << 62, 1.0, 1.0),
    ]
    told: list[Complaint] = []
    lines = list(opened(events(tmp_path / "X.npz", [*bad, (1 | BUY, NS, NS, 1.0, 1.0)]), venue="binance-spot", report=told.append))
    assert [line.line for line in lines] == [9]
    assert [one.line for one in told] == list(range(1, 9))


def array(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", content)
    return path


def header(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


DESCR = repr(EVENT.descr)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"cos\nsystem\n(S'true'\ntR.", r"\{'descr':'\|O'"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 6), }"), r"no array of events \(ev, exch_ts.*'<f8'"),
        (header("__import__('os')"), "but __import__"),
        (header("[" * 5_000), "no array of events"),
        (b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 31), "no header of an array"),
        (b"", "no header of an array"),
    ],
)
def test_hostile_arrays_are_refused_unread(tmp_path: Path, content: bytes, match: str) -> None:
    with pytest.raises(ForeignError, match=match):
        open_foreign([array(tmp_path / "X.npz", content)], "binance-spot", None, pytest.fail)


@pytest.mark.parametrize("shape", ["(1,)", "(1,), ", "(0,), ", "(99999999999999,), "])
def test_an_array_that_lies_about_its_length(tmp_path: Path, shape: str) -> None:
    row = np.array([(1 | BUY, NS, NS, 1.0, 1.0, 0, 0, 0.0)], EVENT).tobytes()
    path = array(tmp_path / "X.npz", header(f"{{'descr': {DESCR}, 'fortran_order': False, 'shape': {shape}}}") + row + row[:7])
    told: list[Complaint] = []
    assert len(list(opened(path, venue="binance-spot", report=told.append))) == (shape != "(0,), ")
    assert len(told) == ("9" in shape)


def test_events_need_a_venue_a_symbol_and_their_name(tmp_path: Path) -> None:
    path = events(tmp_path / "btcusd_perp_20240808.npz", [(1 | BUY, NS, NS, 1.0, 1.0)])
    with pytest.raises(ForeignError, match=r"expected --venue .* for btcusd_perp_20240808.npz.*found none"):
        open_foreign([path], None, None, pytest.fail)
    assert next(iter(opened(path, venue="binance-coinm"))).symbol == "BTCUSD_PERP"
    np.savez(tmp_path / "other.npz", other=np.zeros(1, EVENT))
    with pytest.raises(ForeignError, match="found the array 'other' first"):
        open_foreign([tmp_path / "other.npz"], "binance-spot", None, pytest.fail)
    with pytest.raises(ForeignError, match="expected a name such as"):
        open_foreign([path.rename(tmp_path / "_.npz")], "binance-spot", None, pytest.fail)


# All together


def test_forms_merge_by_time_and_keep_the_order_of_files(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", TRADES, *(f"binance-futures,ETHUSDT,{US},{US + at},{at + 1},buy,1,1" for at in (0, 1_000)))
    archive = zipped(tmp_path / "BTCUSDT-aggTrades-2024-08-08.zip", f"1,1.5,2,1,1,{US // 1_000},true\n2,1.5,2,2,2,{US // 1_000 + 1},true\n")
    day = events(tmp_path / "SOLUSDT.npz", [(2 | BUY, NS, NS, 1.0, 1.0)])
    lines = list(opened(table, archive, day, venue="binance-usdm"))
    assert [(line.receive_ns - NS, line.file, line.symbol) for line in lines] == [
        *((0, 0, "ETHUSDT"), (0, 1, "BTCUSDT"), (0, 2, "SOLUSDT"), (1_000_000, 0, "ETHUSDT"), (1_000_000, 1, "BTCUSDT"))
    ]


@given(
    form=st.sampled_from(["zip", "csv", "gz", "npz"]),
    damage=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 1 << 20),
)
def test_damage_anywhere_is_an_error_or_a_complaint(
    form: str, damage: list[tuple[int, int]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    rows = [f"binance,X,{US},{US + i},{str(i < 2).lower()},bid,{i + 1},1" for i in range(20)]
    if form == "zip":
        path = zipped(folder / "X-aggTrades-2024-08-08.zip", "".join(f"{i},1,1,{i},{i},{US // 1_000},true\n" for i in range(20)))
    elif form == "npz":
        path = events(folder / "X.npz", [(1 + i % 4 | BUY, NS, NS + i, 1.0, 1.0) for i in range(20)])
    else:
        path = written(folder / ("b.csv.gz" if form == "gz" else "b.csv"), L2, *rows)
    content = bytearray(path.read_bytes())
    for at, value in damage:
        content[at % len(content)] = value
    path.write_bytes(content[: max(1, len(content) - cut % 64)])
    try:
        foreign = open_foreign([path], None if form in ("gz", "csv") else "binance-usdm", None, lambda _: None)
    except ForeignError:
        return
    if foreign is None:
        return
    lines = list(foreign)
    assert all(line.receive_ns > 0 for line in lines)
    assert len(decoded(lines)) == len(lines)
    assert zlib.crc32(path.read_bytes()) and foreign.bytes_read <= foreign.bytes_total
