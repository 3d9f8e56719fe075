"""The research command: samples and labels by hand, planted relations found and only those, the page filled and as it was written."""

import gzip
import importlib
import math
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from alphapack.domain.market import NANOS_PER_S, BookState
from alphapack.facade import ROW
from alphapack.models.book import FEATURES

PROJECT = Path(__file__).parent.parent
sys.path.append(str(PROJECT / "bench"))  # The command and what it shares with its neighbours are no package.
research = importlib.import_module("research")
START_NS = 1_000 * NANOS_PER_S
PAGE = (PROJECT / "docs" / "RESEARCH.md").read_text()


def rows_of(times_s: list[float], mids: list[float], states: list[BookState] | None = None) -> research.Rows:
    """Return rows of known mids; all else is zero."""
    rows = np.zeros(len(times_s), ROW)
    rows["ts_ns"] = [START_NS + round(time_s * NANOS_PER_S) for time_s in times_s]
    rows["mid"], rows["state"] = mids, states or [BookState.LIVE] * len(mids)
    return rows


def market(seed: int, seconds: int, pull: float) -> research.Rows:
    """Return rows, ten a second, whose mid moves on by ``pull`` bps for each unit of ``obi_1``; nothing else tells anything."""
    draws = np.random.default_rng(seed)
    n = 10 * seconds
    rows = rows_of([0.1 * i for i in range(n)], [1.0] * n)
    for name in FEATURES:
        rows[name] = draws.uniform(0.1, 1.0, n)
    rows["obi_1"] = draws.uniform(-1.0, 1.0, n)
    for name in ("obi", "obi_10", "ti", "ti_1s", "ti_30s"):
        rows[name] = draws.uniform(-1.0, 1.0, n)
    moves = pull * rows["obi_1"] + draws.standard_normal(n)
    rows["mid"] = 100.0 * np.exp(1e-4 * np.concatenate(([0.0], np.cumsum(moves)[:-1])))
    rows["bid"], rows["ask"] = np.floor(100.0 * rows["mid"]) / 100.0, np.floor(100.0 * rows["mid"]) / 100.0 + 0.01
    return rows


@pytest.fixture(scope="module")
def planted() -> research.Research:
    samples = [research.sample_of(f"made_{seed}", f"made-spot:{seed}", market(seed, 200, 0.4)) for seed in (1, 2)]
    return research.Research([research.study_of(sample, lambda: None) for sample in samples])


def test_an_instant_shows_the_last_row_at_or_before_it() -> None:
    rows = rows_of([0.05, 0.1, 0.2, 0.25, 0.29, 0.41], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    sample = research.sample_of("made", "made", rows)
    assert (sample.start_ns, sample.step_ns) == (START_NS + 100_000_000, 100_000_000)
    assert np.exp(sample.mid_log) == pytest.approx([2.0, 3.0, 5.0, 5.0])


def test_a_recording_of_few_messages_is_looked_at_once_a_second() -> None:
    sample = research.sample_of("made", "made", rows_of([0.0, 0.5, 1.5, 2.1, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0]))
    assert sample.step_ns == NANOS_PER_S
    assert np.exp(sample.mid_log) == pytest.approx([1.0, 2.0, 3.0, 5.0])
    assert sample.steps(0.5) == 0


def test_a_label_never_reaches_over_a_book_that_is_not_live() -> None:
    states = [BookState.LIVE] * 4 + [BookState.STALE] + [BookState.LIVE] * 4
    times_s = [0.0, 0.1, 0.2, 0.3, 0.35, 0.38, 0.5, 0.6, 0.7]
    sample = research.sample_of("made", "made", rows_of(times_s, [math.exp(i) for i in range(9)], states))
    moves = sample.move(0.1) / research.BPS
    assert moves == pytest.approx([1, 1, 1, math.nan, 1, 1, 1, math.nan], nan_ok=True)
    assert np.isnan(sample.move(0.3)[1:4]).all()


def test_slices_add_up_to_the_whole_move() -> None:
    sample = research.sample_of("made", "made", market(3, 20, 0.0))
    parts = sample.move(0.2) + sample.move(0.3, after_s=0.2) + sample.move(0.5, after_s=0.5)
    assert parts[: -sample.steps(1.0)] == pytest.approx(sample.move(1.0)[: -sample.steps(1.0)], abs=1e-6)


def test_what_is_planted_is_found_and_little_else(planted: research.Research) -> None:
    for study in planted.studies:
        cell = study.cells["obi_1", 0.1]
        assert cell.line.slope == pytest.approx(0.4 / math.sqrt(3.0), abs=0.05)
        assert planted.is_significant(("obi_1", 0.1), cell)
    others = [planted.is_significant(key, cell) for study in planted.studies for key, cell in study.cells.items() if key[0] != "obi_1"]
    assert np.mean(others) < 0.1
    shifted = [fit.is_significant for study in planted.studies for cell in study.cells.values() for fit in cell.shifted]
    assert len(shifted) > 1_000
    assert np.mean(shifted) == pytest.approx(0.05, abs=0.03)


def test_a_cell_must_exceed_what_labels_of_another_time_give() -> None:
    def fit(t: float) -> research.Fit:
        return research.Fit(n=100, lag=0, slope=0.1 * t, error=0.1, r2=0.1, critical=2.0, n_effective=100.0)

    def cell(t: float, *shifted: float) -> research.Cell:
        return research.Cell(fit(t), fit(t), 30, tuple(map(fit, shifted)))

    sample = research.sample_of("made", "made", rows_of([0.0, 0.1], [1.0, 2.0]))
    cells = {
        ("obi", 1.0): cell(3.0, 1.0, -1.0, 1.5),
        ("ti", 1.0): cell(3.0, 1.0, -4.0, -4.0),
        ("ti", 2.0): cell(-9.0, 4.0),
        ("obi", 2.0): cell(9.0),
        ("obi", 5.0): cell(1.9, 0.1),
    }
    found = research.Research([research.Study(sample, cells)])
    assert [found.is_significant(key, one) for key, one in cells.items()] == [True, False, True, False, False]


def test_a_short_recording_is_shown_and_not_judged() -> None:
    study = research.study_of(research.sample_of("made", "made", market(4, 90, 0.4)), lambda: None)
    assert study.cells["obi_1", 1.0].is_judged
    assert not study.cells["obi_1", 5.0].is_judged and study.cells["obi_1", 5.0].shifted == ()
    assert not research.Research([study]).is_significant(("obi_1", 5.0), study.cells["obi_1", 5.0])


def test_a_line_that_turns_over_is_worse_than_none_and_was_fitted_on_the_first_half_alone() -> None:
    rows = market(5, 400, 1.0)
    turned = rows.copy()
    half = len(rows) // 2
    turned["mid"][half:] = rows["mid"][half - 1] ** 2 / rows["mid"][half:]
    before, after = (research.sample_of("made", "made", one) for one in (rows, turned))
    assert research.out_of_sample(before, ["obi_1"], 0.1) == pytest.approx((0.25, 0.25), abs=0.06)
    assert research.out_of_sample(after, ["obi_1"], 0.1)[1] < -0.2
    (within, beyond), (within_turned, beyond_turned) = (research.out_of_sample(one, ["obi_1"], 10.0) for one in (before, after))
    assert within == within_turned and beyond != beyond_turned


def test_order_flow_of_tickers_is_counted_by_hand(tmp_path: Path) -> None:
    def ticker(bid: str, bid_size: str, ask: str, ask_size: str) -> str:
        return f'{{"stream":"x@bookTicker","data":{{"u":1,"b":"{bid}","B":"{bid_size}","a":"{ask}","A":"{ask_size}"}}}}'

    lines = [
        (0.00, ticker("10", "5", "11", "5")),
        (0.05, ticker("10", "7", "11", "5")),  # Two more to buy: +2.
        (0.15, ticker("10.5", "3", "11", "4")),  # A better bid of 3, one less to sell: +4.
        (0.18, '{"stream":"x@trade","data":{"q":"1.5","m":false}}'),
        (0.25, ticker("10", "6", "10.5", "2")),  # The bid of 3 gone, a better ask of 2: -5.
        (0.28, '{"stream":"x@trade","data":{"q":"2.5","m":true}}'),
    ]
    path = tmp_path / "binance-spot_X_1.raw.gz"
    path.write_bytes(gzip.compress("".join(f"{START_NS + round(at * NANOS_PER_S)} {line}\n" for at, line in lines).encode()))
    sample = research.sample_of("made", "made", rows_of([0.0, 0.1, 0.2, 0.3], [1.0] * 4))
    found = research.ticker_of(path, sample)
    assert found.flow == pytest.approx([0, 2, 6, 1])
    assert found.volume == pytest.approx([0, 0, 1.5, -1.0])
    assert np.exp(found.mid_log) == pytest.approx([10.5, 10.5, 10.75, 10.25])
    assert found.imbalance == pytest.approx([0, 2 / 12, -1 / 7, 4 / 8])
    gains, states = (research.phases(found.flow, np.arange(4.0) ** 2, 1, is_state=is_state) for is_state in (False, True))
    assert gains == states == []  # Too few windows say nothing.
    path.write_bytes(gzip.compress(b'1 {"e":"depthUpdate"}\n'))
    assert research.ticker_of(path, sample) is None


def test_windows_side_by_side_are_tried_on_every_grid() -> None:
    draws = np.random.default_rng(8)
    total = np.cumsum(draws.standard_normal(401))
    gains = research.phases(total, 2.0 * total, 4, is_state=False)
    assert [(fit.n, fit.slope, fit.r2) for fit in gains] == [pytest.approx((100, 2.0, 1.0))] + [pytest.approx((99, 2.0, 1.0))] * 3
    state = draws.standard_normal(401)
    (ahead,) = research.phases(state, np.concatenate(([0.0], np.cumsum(3.0 * state[:-1]))), 1, is_state=True)
    assert (ahead.slope, ahead.r2) == pytest.approx((3.0, 1.0))


def test_page_and_pictures_are_whole_and_the_same_every_time(planted: research.Research, tmp_path: Path) -> None:
    written = research.write(planted, tmp_path)
    assert {path.name for path in written} == {"RESEARCH.md", *research.PICTURES}
    before = {path: path.read_bytes() for path in written}
    research.write(planted, tmp_path)
    assert {path: path.read_bytes() for path in written} == before
    for path, content in before.items():
        assert not re.search(rb"\bnan\b|\binf\b", content), path.name
        if path.suffix == ".svg":
            ElementTree.fromstring(content)
    page = before[tmp_path / "RESEARCH.md"].decode()
    assert re.sub(r"(<!-- .+? -->\n).*?(<!-- end -->)", r"\1\2", page, flags=re.S) == re.sub(
        r"(<!-- .+? -->\n).*?(<!-- end -->)", r"\1\2", PAGE, flags=re.S
    )
    assert "| `obi_1` | **+0.2" in page


def test_a_page_without_one_of_its_sections_is_refused(planted: research.Research) -> None:
    with pytest.raises(ValueError, match=r"expected the sections data, .* found data"):
        research.page(PAGE.replace("<!-- cost -->\n", ""), planted)


def test_every_feature_is_accounted_for() -> None:
    measured = {*research.SIGNED, *research.UNSIGNED}
    assert [name for name in FEATURES if name not in measured and f"`{name}`" not in PAGE] == []
    assert [name for name in measured if f"`{name}`" not in PAGE] == []


def test_the_page_shows_what_the_command_measures(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One recording stands for all; what is bold in it rests on the others too."""
    monkeypatch.setattr(research, "SHIFTS", 0)
    study = research.study_of(research.read(data / "captures" / research.CAPTURES[-1].name), lambda: None)
    lines = [line.replace("*", "") for line in research.study_section(research.Research([study]), study)]
    assert len(lines) > 30
    stated = PAGE.replace("*", "").splitlines()
    assert [line for line in lines if line not in stated] == []


def test_a_recording_that_cannot_be_measured_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thin = data / "captures" / "binance-spot_NKNUSDT_20211012.raw.gz"
    assert research.main(["--captures", str(thin), "--out", str(tmp_path)]) == 2
    assert "expected 120 s of a LIVE book, found 30 s" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert research.main(["--captures", str(tmp_path / "none.raw.gz"), "--out", str(tmp_path)]) == 2
    assert "expected a capture, found none" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        research.main(["--help"])
    assert "example: python bench/research.py" in capsys.readouterr().out
