import math
from pathlib import Path

import numpy as np
import pytest

import alphapack as ap
from alphapack import app, facade
from alphapack.config import Settings
from alphapack.domain.inputs import Frame
from alphapack.domain.market import BookState
from alphapack.facade import ROW, Replay
from alphapack.models.book import FEATURES
from alphapack.shell.captures import CaptureError
from alphapack.shell.journal import FileJournal
from rig import BTC, head, market_lines, recorded, spoil, stepped, write_capture

ETH = BTC.replace("BTC", "ETH")
NAMES = ("BTCUSDT", "ETHUSDT")
CAPTURE = "binance-usdm_BTCUSDT_20240808T2354.raw.gz"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path, spoil(market_lines(600, names=NAMES), every=60))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal to the bit, whatever is not a number."""
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def test_a_row_says_when_what_and_in_which_state() -> None:
    assert ROW.names == ("seq", "ts_ns", "symbol", "state", *FEATURES)
    assert {"bid", "ask", "mid", "obi", "ti", "micro_vol", "cancel_rate", "queue_rate", "spread_bps", "microprice"} <= set(ROW.names)


def test_there_is_a_row_for_each_market_message_as_the_engine_has_it(capture: Path) -> None:
    replay = ap.replay(capture)
    rows = replay.to_numpy()
    engine = app.build()
    at = 0
    for entry in recorded(capture):
        engine.step(entry)
        market = engine.microstructure.touched
        if not isinstance(entry, Frame) or market is None:
            continue
        row, symbol = rows[at], market.facts.symbol
        assert (row["seq"], row["ts_ns"], replay.symbols[row["symbol"]]) == (entry.seq, entry.ts_ns, symbol)
        now = engine.microstructure.microstructure(symbol)
        assert BookState(row["state"]).name == engine.microstructure.health(symbol).state
        if now is None:
            assert all(math.isnan(row[name]) for name in FEATURES)
        elif now.state == "LIVE":
            assert (row["bid"], row["ask"], row["mid"], row["ti_n"]) == (now.bid, now.ask, now.mid, now.ti_n)
            for name in ("obi", "ofi", "trade_rate", "microprice_stoikov"):
                assert (None if math.isnan(row[name]) else row[name]) == getattr(now, name)
        at += 1
    assert at == len(rows) > 500
    assert set(rows["state"].tolist()) >= {BookState.SYNCING, BookState.LIVE}


def test_iterating_gives_the_rows_of_the_array_and_both_may_be_repeated(capture: Path) -> None:
    replay = ap.replay(capture)
    rows = replay.to_numpy()
    assert same(np.array(list(replay), ROW), rows)
    assert same(replay.to_numpy(), rows)
    row = next(iter(replay))
    assert isinstance(row, np.void) and row["symbol"] == 0 and replay.symbols[0] == BTC


@pytest.mark.parametrize("size", [1, 7, 599, 10_000])
def test_rows_are_the_same_whatever_the_size_of_the_chunks(capture: Path, size: int) -> None:
    replay = Replay([capture], None, None)
    assert same(np.concatenate(list(replay._chunks(size))), ap.replay(capture).to_numpy())


def test_only_the_symbols_asked_for_and_the_digest_of_all(capture: Path) -> None:
    whole = ap.replay(capture)
    rows = whole.to_numpy()
    for wanted in ("ETHUSDT", "ethusdt", ETH, ETH.upper()):
        replay = ap.replay(capture, [wanted])
        part = replay.to_numpy()
        assert replay.symbols == [ETH] and set(part["symbol"].tolist()) == {0}
        expected = rows[rows["symbol"] == whole.symbols.index(ETH)]
        for name in ("seq", "ts_ns", "state", *FEATURES):
            assert part[name].tobytes() == expected[name].tobytes(), name
        assert replay.digest == whole.digest and replay.gaps == whole.gaps
    assert len(ap.replay(capture, ["SOLUSDT", "binance-spot:BTCUSDT"]).to_numpy()) == 0
    assert len(ap.replay(capture, []).to_numpy()) == 0
    assert len(ap.replay(capture, NAMES).to_numpy()) == len(rows)


def test_the_totals_come_without_asking_for_rows(capture: Path) -> None:
    engine, _ = stepped(recorded(capture))
    summary = app.replay(Settings(), [capture], complain=lambda text: None)
    for ask in ("gaps", "crossed", "digest"):
        assert getattr(ap.replay(capture), ask) == getattr(summary, ask), ask
    replay = ap.replay(capture)
    assert replay.health() == summary.symbols == {name: engine.microstructure.health(name) for name in (BTC, ETH)}
    assert replay.gaps == sum(one.gaps for one in summary.symbols.values()) > 0
    assert replay.digest == engine.hexdigest()


def test_a_pass_that_is_left_early_spoils_no_total(tmp_path: Path) -> None:
    replay = ap.replay(write_capture(tmp_path, spoil(market_lines(2_500, names=NAMES), every=60)))
    for _ in replay:
        break
    left = replay.digest, replay.gaps, replay.health()
    whole = ap.replay(replay._paths)
    assert left == (whole.digest, whole.gaps, whole.health())
    for _ in replay:
        break
    assert (replay.digest, replay.gaps, replay.health()) == left


def test_what_cannot_be_used_is_named(capture: Path) -> None:
    replay = ap.replay(capture)
    replay.to_numpy()
    told: list[str] = []
    app.replay(Settings(), [capture], complain=told.append)
    assert replay.complaints == told != []
    assert all(complaint.startswith(f"{capture}:") for complaint in told)
    replay.to_numpy()
    assert replay.complaints == told, "a second pass does not add to them"


def test_a_journal_is_a_recording_too(capture: Path, tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "engine" / "journal")
    journal.append(recorded(capture))
    journal.close()
    whole = ap.replay(capture)
    for path in (tmp_path / "engine" / "journal", tmp_path / "engine", str(tmp_path / "engine")):
        replay = ap.replay(path)
        assert same(replay.to_numpy(), whole.to_numpy())
        assert (replay.digest, replay.gaps, replay.symbols) == (whole.digest, whole.gaps, whole.symbols)


def test_several_files_merge_and_the_venue_may_be_stated(tmp_path: Path) -> None:
    lines = market_lines(400, names=NAMES)
    paths = []
    for name in NAMES:
        paths.append(write_capture(tmp_path, [line for line in lines if name.encode() in line[1]], f"{name}.raw.gz"))
    replay = ap.replay(paths, venue="binance-usdm")
    whole = ap.replay(write_capture(tmp_path, lines))
    for name in ("ts_ns", "state", *FEATURES):
        assert replay.to_numpy()[name].tobytes() == whole.to_numpy()[name].tobytes(), name
    with pytest.raises(CaptureError, match="begins with its venue"):
        ap.replay(paths).to_numpy()


def test_a_path_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="expected a capture file, found nothing at"):
        ap.replay(tmp_path / "binance-usdm_BTCUSDT_20240101.raw").to_numpy()


def test_a_recording_without_a_message_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "binance-usdm_BTCUSDT_20240101.raw"
    path.write_bytes(b"")
    replay = ap.replay(path)
    rows = replay.to_numpy()
    assert (len(rows), rows.dtype, list(replay), replay.gaps, replay.symbols) == (0, ROW, [], 0, [])


def test_a_real_recording_has_a_row_a_message(data: Path, tmp_path: Path) -> None:
    replay = ap.replay(head(data / "captures" / CAPTURE, 3_000, tmp_path))
    rows = replay.to_numpy()
    assert (len(rows), replay.gaps, replay.crossed, replay.complaints, replay.symbols) == (3_000, 0, 0, [], [BTC])
    live = rows[rows["state"] == BookState.LIVE]
    assert len(live) > 2_000 and (live["ask"] > live["bid"]).all()
    assert (np.diff(rows["seq"]) >= 1).all() and (np.diff(rows["ts_ns"]) >= 0).all()


def test_public_names_are_few_and_a_wrong_one_is_told_the_right_ones() -> None:
    assert set(ap.__all__) <= set(dir(ap)) and ap.replay is facade.replay
    with pytest.raises(AttributeError, match=r"no attribute 'reply'; public names: .*replay"):
        ap.reply  # type: ignore[attr-defined]  # noqa: B018 - the look-up is the test
