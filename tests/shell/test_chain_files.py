"""Recorded chains come out as bodies of posted ones, in order of time."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import zstandard

from alphapack.models import chain
from alphapack.shell import chain_files
from alphapack.shell.chain_files import ChainFileError, is_chain_file, snapshots

FIRST_MS, SECOND_MS = 1_770_370_516_484, 1_770_393_081_085
TABLE = f"""snapshot_ms,instrument_name,underlying_price,index_price,bid_price,ask_price,mark_price,mark_iv,delta,open_interest
{SECOND_MS},BTC-27MAR26-70000-C,66076.86,65706.87,,,0.05,0.5626,0.4,0.0
{FIRST_MS},BTC-27MAR26-70000-C,66070.5,65706.87,0.049,0.051,0.05,0.5626,0.4,0.0
{SECOND_MS},BTC-27MAR26-60000-P,66076.86,65706.87,0.049,0.051,1e-05,.61,0.4,0.0
{SECOND_MS},ETH-27MAR26-2000-P,1950.2,1949.0,0.049,0.051,0.05,junk,0.4,nan
"""
PLAIN = f"""ts_ms,k,tenor,type,iv,spot
{FIRST_MS},60000,30d,put,0.6,66000
{FIRST_MS},72000,30d,call,0.5,66000
"""


def put(path: Path, text: str) -> Path:
    """Write a file as its name says, packed or not."""
    raw = text.encode()
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}.get(path.suffix)
    path.write_bytes(raw if pack is None else pack(raw))
    return path


def read(path: Path, base: str | None = None) -> list[tuple[int, str, dict[str, Any]]]:
    return [(ts_ms, of, json.loads(body)) for ts_ms, of, body in snapshots(path, base)]


def surfaces(path: Path) -> list[chain.Surface]:
    found = []
    for ts_ms, base, raw in snapshots(path):
        body = chain.read(raw)
        found.append(chain.build(body.chain, ts_ms, base=base, spot=body.spot, forward=body.forward))
    return found


@pytest.mark.parametrize("name", ["chains.csv", "chains.csv.gz", "chains.csv.xz", "chains.csv.zst"])
def test_options_smile_a_table_is_gathered_by_time_and_underlying(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / name, TABLE)
    assert is_chain_file(path)
    found = read(path)
    assert [(ts_ms, base, len(body["chain"])) for ts_ms, base, body in found] == [
        *((FIRST_MS, "BTC", 1), (SECOND_MS, "BTC", 2), (SECOND_MS, "ETH", 1))
    ]
    assert [body["ts_ms"] for *_, body in found] == [FIRST_MS, SECOND_MS, SECOND_MS]
    named = {"instrument_name": "BTC-27MAR26-70000-C", "underlying_price": 66076.86, "index_price": 65706.87}
    assert found[1][2]["chain"][0] == named | {"mark_price": 0.05, "mark_iv": 0.5626}
    assert found[1][2]["chain"][1]["mark_iv"] == 0.61 and found[1][2]["chain"][1]["mark_price"] == 1e-05
    assert found[2][2]["chain"][0]["mark_iv"] == "junk"
    assert surfaces(path)[2].rejected[0].reason == "expected mark_iv as a number, found 'junk'"


def test_options_smile_a_body_is_what_a_user_would_post(tmp_path: Path) -> None:
    (*_, (ts_ms, base, raw)) = snapshots(put(tmp_path / "BTC_chain.csv", PLAIN))
    rows = '[{"k":60000,"tenor":"30d","type":"put","iv":0.6},{"k":72000,"tenor":"30d","type":"call","iv":0.5}]'
    assert (ts_ms, base, raw.decode()) == (FIRST_MS, "BTC", f'{{"chain":{rows},"spot":66000,"ts_ms":{FIRST_MS}}}')
    assert chain.read(raw).spot == 66_000.0


@pytest.mark.parametrize(("name", "base"), [("BTC.csv", "BTC"), ("deribit_ETH_20260206.csv.gz", "ETH"), ("SOL-chains.csv", "SOL")])
def test_options_smile_rows_without_a_name_are_of_the_underlying_in_the_file_s(tmp_path: Path, name: str, base: str) -> None:
    path = put(tmp_path / name, PLAIN)
    assert [of for _, of, _ in snapshots(path)] == [base]
    assert [of for _, of, _ in snapshots(path, "xrp")] == ["XRP"]


def test_options_smile_an_underlying_that_nobody_states_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChainFileError, match=r"expected the underlying, given or in the file's name, such as BTC_chain.csv, found 'chain"):
        list(snapshots(put(tmp_path / "chain.csv", PLAIN)))


def test_options_smile_what_holds_for_a_chain_must_be_alike_in_its_rows(tmp_path: Path) -> None:
    path = put(tmp_path / "BTC.csv", PLAIN.replace("0.5,66000", "0.5,66001"))
    with pytest.raises(ChainFileError, match=r"BTC.csv:3: expected spot, .* alike in all rows of a chain, found"):
        list(snapshots(path))


@pytest.mark.parametrize(
    "time",
    ["2026-02-06T09:35:16.484631+00:00", "2026-02-06 09:35:16.484", "2026-02-06T10:35:16.484+01:00", "1770370516484631", "1770370516484"],
)
def test_options_smile_times_are_iso_or_numbers(tmp_path: Path, time: str) -> None:
    text = f"timestamp,instrument_name,underlying,implied_volatility\n{time},BTC-27MAR26-70000-C,66076.86,0.56\n"
    ((ts_ms, base, body),) = read(put(tmp_path / "x.csv", text))
    assert (ts_ms, base) == (FIRST_MS, "BTC")
    assert body["chain"] == [{"instrument_name": "BTC-27MAR26-70000-C", "underlying_price": 66076.86, "mark_iv": 0.56}]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "expected a table with the columns instrument_name or k"),
        ("a,b\n1,2\n", "expected a table with the columns .*, found 'a,b'"),
        (
            "snapshot_ms,instrument_name\nyesterday,BTC-27MAR26-70000-C\n",
            "x.csv:2: expected a time from 1973 to 2100, .*, found 'yesterday'",
        ),
        ("snapshot_ms,instrument_name\n17,BTC-27MAR26-70000-C\n", "x.csv:2: expected a time"),
        (f"snapshot_ms,instrument_name\n{FIRST_MS}\n", "x.csv:2: expected 2 values, found 1"),
        (f"snapshot_ms,instrument_name\n{FIRST_MS},\n", "x.csv:2: expected the name of an option such as BTC-27MAR26-70000-C, found ''"),
        ("snapshot_ms,instrument_name,bid,bid\n1,2,3,4\n", "expected one column for each field, found more for bid"),
        ("snapshot_ms,instrument_name,mark_iv,implied_volatility\n", "expected one column for each field, found more for mark_iv"),
        ("snapshot_ms,instrument_name\n" + "x" * 20_000 + "\n", "expected lines of at most 16,384 bytes"),
        ("{", "expected the JSON of one chain, found"),
        ("[]", "expected the JSON of a chain with its time, found a list"),
        ('{"chain":[]}', "expected a time from 1973 to 2100"),
        ('{"rows":[]}', "found the fields rows"),
        ("[" * 100_000, "expected the JSON of one chain, found"),
    ],
)
def test_options_smile_what_cannot_be_placed_is_an_error(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ChainFileError, match=match):
        list(snapshots(put(tmp_path / "x.csv", text)))


def test_options_smile_rows_and_chains_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "x.csv", TABLE)
    monkeypatch.setattr(chain_files, "ROWS_MAX", 1)
    with pytest.raises(ChainFileError, match="expected at most 1 rows in a chain, found more at"):
        list(snapshots(path))
    monkeypatch.setattr(chain_files, "FILE_ROWS_MAX", 2)
    monkeypatch.setattr(chain_files, "ROWS_MAX", 9)
    with pytest.raises(ChainFileError, match="expected at most 2 rows, found more"):
        list(snapshots(path))
    monkeypatch.setattr(chain_files, "JSON_BYTES_MAX", 20)
    with pytest.raises(ChainFileError, match="expected at most 20 bytes of JSON"):
        list(snapshots(put(tmp_path / "x.json", json.dumps({"chain": [], "ts_ms": FIRST_MS}))))


def test_options_smile_a_file_that_was_cut_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv.gz", TABLE)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ChainFileError, match="expected a whole gz stream, found"):
        list(snapshots(path))
    with pytest.raises(ChainFileError, match="expected a file of option chains, found nothing at"):
        list(snapshots(tmp_path / "none.csv"))
    with pytest.raises(ChainFileError, match="found a folder"):
        list(snapshots(tmp_path))


def test_options_smile_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    text = TABLE.replace("junk", "0.7")
    table = csv.read_csv(pyarrow.BufferReader(text.encode()))
    parquet.write_table(table, tmp_path / "x.parquet")
    assert is_chain_file(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == read(put(tmp_path / "x.csv", text))
    stamped = table.append_column("timestamp", table["snapshot_ms"].cast(pyarrow.timestamp("ms", "UTC"))).drop_columns("snapshot_ms")
    parquet.write_table(stamped, tmp_path / "y.parquet")
    assert read(tmp_path / "y.parquet") == read(tmp_path / "x.csv")


def test_options_smile_a_parquet_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    assert not is_chain_file(tmp_path / "x.parquet")
    with pytest.raises(ChainFileError, match="expected a Parquet file, found"):
        list(snapshots(tmp_path / "x.parquet"))
    parquet.write_table(pyarrow.table({"ts_ms": [[1]], "instrument_name": ["BTC-27MAR26-70000-C"]}), tmp_path / "y.parquet")
    with pytest.raises(ChainFileError, match="expected columns of plain values, found ts_ms of lists or records"):
        list(snapshots(tmp_path / "y.parquet"))


ROW = {"instrument_name": "BTC-27MAR26-70000-C", "underlying_price": 66076.86, "mark_iv": 0.56, "state": "open"}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("document", "rows", "envelope"),
    [
        ({"chain": [ROW], "spot": 66_000.0, "ts_ms": FIRST_MS}, [ROW], {"spot": 66_000.0}),
        ({"jsonrpc": "2.0", "result": [ROW], "usOut": FIRST_MS * 1_000 + 631}, [ROW], {}),
        (
            {"captured_at_utc": "2026-02-06T09:35:16.484631+00:00", "expiries": {"27MAR26": {"spot_price": 66_000.0, "options": [ROW]}}},
            [{name: value for name, value in ROW.items() if name != "state"}],
            {"spot": 66_000.0},
        ),
    ],
)
def test_options_smile_json_is_a_chain_in_three_forms(
    tmp_path: Path, document: dict[str, Any], rows: list[Any], envelope: dict[str, Any], indent: int | None
) -> None:
    path = put(tmp_path / "x.json.gz", json.dumps(document, indent=indent))
    assert is_chain_file(path)
    assert read(path) == [(FIRST_MS, "BTC", {"chain": rows, **envelope, "ts_ms": FIRST_MS})]


def test_options_smile_a_posted_chain_may_hold_bad_rows_and_moneyness(tmp_path: Path) -> None:
    document = {"chain": [{"k": 0.9, "tenor": "7d", "type": "call", "iv": 0.6}, 5], "k_unit": "moneyness", "ts_ms": FIRST_MS}
    assert read(put(tmp_path / "BTC.json", json.dumps(document))) == [(FIRST_MS, "BTC", document)]


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n\n", "a,b,c\n1,2,3\n", "ts_ms,open,high,low,close,volume\n1,2,3,4,5,6\n", '[{"name":"x"}]', '{"chains":1}'),
        '1770370516484000000 {"chain":1,"instrument_name":"BTC-27MAR26-70000-C"}\n',
        '{"result":1,"instrument_name":"x"}\n{"result":1,"instrument_name":"x"}\n',
    ],
)
def test_options_smile_other_files_are_no_chains(tmp_path: Path, text: str) -> None:
    assert not is_chain_file(put(tmp_path / "x.csv", text))
    assert not is_chain_file(tmp_path) and not is_chain_file(tmp_path / "none")


def test_options_smile_recordings_are_told_apart(data: Path) -> None:
    chains = {path.name for path in (data / "options").iterdir() if is_chain_file(path)}
    assert chains == {path.name for path in (data / "options").iterdir() if path.name.startswith("deribit")} and len(chains) == 3
    others = [path for folder in ("captures", "candles") for path in (data / folder).iterdir()]
    assert others and not any(is_chain_file(path) for path in others)


def test_options_smile_a_recorded_table_holds_both_underlyings_at_one_time(data: Path) -> None:
    found = read(data / "options" / "deribit_chain_full_20260206T093516Z.csv.gz")
    assert [(ts_ms, base, len(body["chain"])) for ts_ms, base, body in found] == [(FIRST_MS, "BTC", 850), (FIRST_MS, "ETH", 870)]
    known = {"instrument_name", "underlying_price", "index_price", "bid_price", "ask_price", "mark_price", "mark_iv"}
    assert all(set(row) <= known for *_, body in found for row in body["chain"])


def test_options_smile_a_nested_recording_is_one_chain(data: Path) -> None:
    ((ts_ms, base, body),) = read(data / "options" / "deribit_BTC_8expiries_20260207.json.gz")
    assert (ts_ms, base, len(body["chain"]), body["spot"]) == (1_770_489_563_889, "BTC", 536, 69_430.2)
    assert len({row["instrument_name"].split("-")[1] for row in body["chain"]}) == 8


@pytest.mark.parametrize(
    "content",
    [b"\x00\x01\r\x02\r\xff", b"a,b\rc\nd", bytes(range(256)) * 20, b"\r\r\r\n", b'"unclosed\r', b"", b"\xef\xbb\xbf\r"],
    ids=["binary", "bare return", "all bytes", "returns", "quote", "empty", "mark"],
)
def test_options_smile_no_file_is_taken_for_chains_by_mistake_or_ends_the_question(tmp_path: Path, content: bytes) -> None:
    for suffix in (".raw", ".csv", ".bin", ".json", ".gz"):
        path = tmp_path / f"some{suffix}"
        path.write_bytes(content)
        assert not is_chain_file(path)


def test_options_smile_of_all_recorded_files_three_are_chains(data: Path) -> None:
    found = {path.name for path in data.rglob("*") if is_chain_file(path)}
    assert found == {
        "deribit_BTC_8expiries_20260207.json.gz",
        "deribit_chain_full_20260206T093516Z.csv.gz",
        "deribit_chains_20260115-20260315.csv.xz",
    }


def test_options_smile_rows_without_a_chain_around_them_are_told_so(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.json", '[{"instrument_name":"BTC-27MAR26-70000-C"}]')
    assert is_chain_file(path)
    with pytest.raises(ChainFileError, match="expected the JSON of a chain with its time, found a list"):
        list(snapshots(path))
