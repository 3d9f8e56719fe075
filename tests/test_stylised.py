"""The comparison of simulated and recorded markets: facts by hand, the engine's view of a few messages, the page filled and whole."""

import importlib
import json
import math
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.domain.simulation import SimulatorSettings
from alphapack.models import prediction

PROJECT = Path(__file__).parent.parent
sys.path.append(str(PROJECT / "bench"))  # The command and what it shares with its neighbours are no package.
stylised = importlib.import_module("stylised")
START_NS = 1_000 * NANOS_PER_S
PAGE = (PROJECT / "docs" / "SIMULATOR.md").read_text()


def flow_of(seed: int, name: str, seconds: int = 700, step_s: float = 0.1) -> stylised.Flow:
    """Return a market in which ``obi`` alone tells of the next steps."""
    draws = np.random.default_rng(seed)
    n, trades = round(seconds / step_s), 4 * seconds
    columns = {column: draws.uniform(0.1, 1.0, n) for column in stylised.COLUMNS}
    moves = 1e-5 * (columns["obi"] - 0.55 + draws.standard_normal(n))
    columns["mid"] = 100.0 * np.exp(np.concatenate(([0.0], np.cumsum(moves)[:-1])))
    columns["bid"] = np.floor(100.0 * columns["mid"]) / 100.0
    columns["ask"] = columns["bid"] + 0.01 * draws.integers(1, 4, n)
    times_s = np.sort(draws.uniform(0.0, seconds, trades))
    return stylised.Flow(
        name=name,
        step_s=step_s,
        tick=0.01,
        rates={"depth": 10.0, "trade": 4.0, "bookTicker": 8.0},
        columns=columns,
        profile=np.full(stylised.LEVELS, 0.05),
        reach_ticks=30.0,
        touch=5.0,
        cancel_share=0.9,
        trade_s=times_s,
        trade_ms=(1_000.0 * times_s).astype(np.int64),
        sizes=draws.pareto(2.0, trades) + 0.1,
        signs=np.where(draws.uniform(size=trades) < 0.5, 1.0, -1.0),
    )


def candles_of(seed: int, name: str) -> stylised.Candles:
    draws, n = np.random.default_rng(seed), 20 * 1_440
    close = 100.0 * np.exp(np.cumsum(1e-4 * draws.standard_t(4, n)))
    return stylised.Candles(name, 60_000 * np.arange(n), close, draws.uniform(1.0, 2.0, n))


@pytest.fixture(scope="module")
def facts() -> stylised.Facts:
    markets = [flow_of(seed, f"made {seed}") for seed in range(1, 4)]
    slow = [flow_of(seed, f"made {seed}", 4_000, 1.0) for seed in range(2, 4)]
    candles = [candles_of(seed, f"made {seed}") for seed in range(2)]
    edges = [stylised.edge_of(strength, 1.0, slow) for strength in stylised.EDGES]
    return stylised.Facts(markets[:1], markets[1:], candles[:1], candles[1:], edges, 7, 0.2)


def test_autocorrelations_are_those_of_the_definition() -> None:
    values = np.cumsum(np.random.default_rng(1).standard_normal(500))
    apart = values - values.mean()
    found = stylised.autocorrelation(values, 5)
    assert found == pytest.approx([np.sum(apart[lag:] * apart[:-lag]) / np.sum(apart * apart) for lag in range(1, 6)])
    assert np.isnan(stylised.autocorrelation(np.ones(100), 5)).all()
    assert np.isnan(stylised.autocorrelation(np.arange(5.0), 5)).all()


def test_means_over_lags_hold_every_lag_once() -> None:
    values = np.arange(1.0, 101.0)
    found = stylised.binned(values, 12)
    assert found[0] == (1.0, 1.0)
    assert found[-1][1] <= 100.0 and len(found) == len({place for place, _ in found})
    assert np.all(np.diff([value for _, value in found]) > 0.0)


def test_tails_and_kurtosis_of_known_distributions() -> None:
    n = 20_000
    pareto = (np.arange(1, n + 1) / n) ** (-1.0 / 3.0)
    assert stylised.tail_exponent(pareto) == pytest.approx(3.0, rel=0.02)
    assert math.isnan(stylised.tail_exponent(pareto[:100]))
    assert stylised.kurtosis(np.tile([-1.0, 1.0], 50)) == 1.0
    assert stylised.kurtosis(np.random.default_rng(2).standard_normal(100_000)) == pytest.approx(3.0, abs=0.1)
    assert math.isnan(stylised.kurtosis(np.ones(100)))


def test_a_price_that_jumps_to_and_fro_is_calmer_the_less_often_one_looks() -> None:
    flow = flow_of(3, "made")
    flow.columns["mid"][:] = np.tile([1.0, math.exp(1e-4)], len(flow.columns["mid"]) // 2)
    assert stylised.volatility(flow, 0.1) == pytest.approx(math.sqrt(10.0))
    assert stylised.volatility(flow, 0.2) == pytest.approx(0.0, abs=1e-9)


def test_trades_of_one_millisecond_and_side_are_one_order() -> None:
    flow = stylised.replace(
        flow_of(4, "made"),
        trade_ms=np.array([1, 1, 1, 2, 3]),
        signs=np.array([1.0, 1.0, -1.0, -1.0, -1.0]),
        sizes=np.array([1.0, 2.0, 4.0, 8.0, 16.0]),
    )
    signs, sizes = stylised.orders(flow)
    assert (signs.tolist(), sizes.tolist()) == ([1.0, -1.0, -1.0, -1.0], [3.0, 4.0, 8.0, 16.0])
    assert stylised.waits(flow).tolist() == [1.0, 1.0]


def test_pieces_are_as_long_as_a_recording_and_keep_their_trades() -> None:
    whole = flow_of(5, "made", 1_900)
    pieces = whole.pieces()
    assert [piece.span_s for piece in pieces] == pytest.approx([600.0] * 3)
    within = [int(np.sum((whole.trade_s >= first) & (whole.trade_s < first + 600.0))) for first in (0.0, 600.0, 1_200.0)]
    assert [len(piece.sizes) for piece in pieces] == within
    short = flow_of(5, "made", 300)
    assert short.pieces() == [short]


def test_markets_that_move_as_one_count_as_one() -> None:
    pair = stylised.forecast(flow_of(6, "made", 2_000), "obi", 1.0)
    alone, twice = prediction.rank_ic(*pair, 10), stylised.pooled([pair, pair], 10)
    assert (twice.slope, twice.t, twice.n) == pytest.approx((alone.slope, alone.t, 2 * alone.n))
    other = stylised.forecast(flow_of(7, "made", 2_000), "obi", 1.0)
    assert stylised.pooled([pair, other], 10).error == pytest.approx(alone.error / math.sqrt(2.0), rel=0.2)


def test_what_is_planted_is_found_and_nothing_else(facts: stylised.Facts) -> None:
    fits = facts.edges[0].fits
    assert fits["obi", "", 1].is_significant and fits["obi", "", 1].slope > 0.1
    assert [name for name in stylised.FORECASTERS if name != "obi" and abs(fits[name, "", 1].t) > 4.0] == []


@pytest.mark.parametrize(
    ("recorded", "simulated", "verdict", "is_far"),
    [
        ([1.0, 2.0], [1.5, 9.0], "", False),
        ([1.0, 2.0], [3.0, 9.0], "1.5x", False),
        ([1.0, 2.0], [8.0, 9.0], "4.0x", True),
        ([1.0, 2.0], [0.1, 0.2], "0.20x", True),
        ([-1.0, -0.5], [0.5, 0.6], "above", True),
        ([0.5, 1.0], [-0.2, -0.1], "below", True),
        ([1.0, 2.0], [math.nan], "", False),
    ],
)
def test_what_is_beyond_the_recorded_range(recorded: list[float], simulated: list[float], verdict: str, is_far: bool) -> None:
    line = stylised.Line(stylised.Fact("made", lambda _: 0.0), recorded, simulated)
    assert (line.verdict, line.is_far) == (verdict, is_far)


def session() -> list[stylised.Message]:
    """Return seven seconds of one book: a snapshot, a difference each 100 ms, two trades, a ticker."""

    def line(ms: int, kind: str, **data: object) -> stylised.Message:
        payload = json.dumps({"stream": f"btcusdt@{kind}", "data": data}, separators=(",", ":")).encode()
        return START_NS + ms * NANOS_PER_MS, "binance-usdm", "", payload

    bids, asks = [["100.0", "2.000"], ["99.9", "4.000"]], [["100.2", "3.000"], ["100.3", "4.000"]]
    snapshot = json.dumps({"lastUpdateId": 10, "bids": bids, "asks": asks}).encode()
    messages = [(START_NS, "binance-usdm", "BTCUSDT", snapshot)]
    for i in range(70):
        ms, size = 50 + 100 * i, {20: "1.500", 30: "0.500"}.get(i, "1.500" if 20 < i < 30 else "2.000" if i < 20 else "0.500")
        depth = {"e": "depthUpdate", "E": ms, "T": ms, "s": "BTCUSDT", "U": 11 + i, "u": 11 + i, "pu": 10 + i}
        messages.append(line(ms, "depth@100ms", **depth, b=[["100.0", size]], a=[]))
    trades = [(2_040, "0.5", True), (2_045, "0.125", False)]
    for i, (ms, size, is_sale) in enumerate(trades):
        at = {"E": ms, "T": ms, "s": "BTCUSDT", "t": 5 + i, "p": "100.0" if is_sale else "100.2"}
        messages.append(line(ms, "trade", e="trade", **at, q=size, X="MARKET", m=is_sale))
    messages.append(line(2_048, "bookTicker", e="bookTicker", u=1, s="BTCUSDT", b="100.0", B="1", a="100.2", A="1", T=1, E=1))
    return sorted(messages)


def test_the_engine_is_looked_at_on_a_grid() -> None:
    (flow,) = stylised.observed(session())
    assert (flow.name, flow.tick, flow.step_s) == ("usdm BTCUSDT", pytest.approx(0.1), 0.1)
    assert flow.columns["mid"] == pytest.approx(np.full(69, 100.1))
    assert stylised.spread_ticks(flow).tolist() == [2] * 69
    assert flow.columns["obi"][[0, 20, 30]] == pytest.approx([-1 / 13, -1.5 / 12.5, -2.5 / 11.5])
    assert (flow.sizes.tolist(), flow.signs.tolist(), flow.trade_ms.tolist()) == ([0.5, 0.125], [-1.0, 1.0], [2_040, 2_045])
    assert flow.trade_s == pytest.approx([1.94, 1.945])
    assert flow.rates == pytest.approx({"depth": 69 / 6.9, "trade": 2 / 6.9, "bookTicker": 1 / 6.9})
    assert flow.cancel_share == pytest.approx(1.0 / 1.5)  # 0.5 left with a trade, 1.0 without one.
    assert np.isnan(flow.profile).all()  # There are fewer than twenty levels.


def test_a_message_that_cannot_be_read_is_refused() -> None:
    messages = [*session()[:5], (START_NS + NANOS_PER_S, "binance-usdm", "", b'{"e":"depthUpdate","s":"BTCUSDT"}')]
    with pytest.raises(ValueError, match="expected messages that can be read"):
        stylised.observed(messages)


def test_candles_with_a_gap_are_refused() -> None:
    rows = np.column_stack((60_000.0 * np.array([0, 1, 3]), *(np.ones((5, 3)))))
    with pytest.raises(ValueError, match="expected candles of one minute without a gap"):
        stylised.candles_of("made", rows)


def test_the_simulator_holds_together_in_the_engine() -> None:
    hours: list[float] = []
    flows = stylised.observed(stylised.simulated(SimulatorSettings(), 1.0 / 60.0, hours.append))
    assert [flow.name for flow in flows] == [f"sim {symbol}" for symbol in stylised.SYMBOLS]
    assert hours == [pytest.approx(1.0 / 60.0)]
    for flow in flows:
        assert flow.span_s > 55.0 and np.isfinite(flow.profile).all()
        assert (stylised.spread_ticks(flow) >= 1).all()
    two = stylised.simulated_candles(SimulatorSettings(symbols=("BTCUSDT", "ETHUSDT")), 2_500)
    assert [(one.name, len(one.close)) for one in two] == [("sim BTCUSDT", 2_500), ("sim ETHUSDT", 2_500)]


def test_page_and_pictures_are_whole_and_the_same_every_time(facts: stylised.Facts, tmp_path: Path) -> None:
    written = stylised.write(facts, tmp_path)
    assert {path.name for path in written} == {"SIMULATOR.md", *stylised.PICTURES}
    before = {path: path.read_bytes() for path in written}
    stylised.write(facts, tmp_path)
    assert {path: path.read_bytes() for path in written} == before
    for path, content in before.items():
        assert not re.search(rb"\bnan\b|\binf\b", content), path.name
        if path.suffix == ".svg":
            ElementTree.fromstring(content)
    page = before[tmp_path / "SIMULATOR.md"].decode()
    bare = [re.sub(r"(<!-- .+? -->\n).*?(<!-- end -->)", r"\1\2", text, flags=re.S) for text in (page, PAGE)]
    assert bare[0] == bare[1]
    assert "| spread of one tick, share of time | 0.3" in page


def test_a_page_without_one_of_its_sections_is_refused(facts: stylised.Facts) -> None:
    with pytest.raises(ValueError, match=r"expected the sections findings, .* found findings"):
        stylised.page(PAGE.replace("<!-- rates -->\n", ""), facts, stylised.SECTIONS)


def test_the_page_shows_the_model_s_parameters(facts: stylised.Facts) -> None:
    assert [line for line in stylised.parameters_section(facts) if line not in PAGE.splitlines()] == []


def test_the_page_shows_what_the_command_measures(data: Path) -> None:
    """One recording stands for all."""
    name = stylised.FOUR[-1].name
    (flow,) = stylised.observed(stylised.recorded(data / "captures" / name))
    table = [re.split(r" *\| *", line) for line in PAGE.partition("## What differs")[0].splitlines() if line.startswith("| ")]
    place = next(cells for cells in table if cells[1] == "fact").index(flow.name)
    rows = {cells[1]: cells for cells in table}
    for fact in (*stylised.BOOK_FACTS, *stylised.RATE_FACTS, *stylised.TRADE_FACTS, *stylised.MOVE_FACTS):
        assert rows[fact.name][place] == stylised.number(fact.of(flow), fact.decimals), fact.name


def test_the_command_says_what_it_expected(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert stylised.main(["--hours", "0"]) == 2
    assert "expected 0.5 to 48 hours" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        stylised.main(["--help"])
    assert "example: python bench/stylised.py" in capsys.readouterr().out
    monkeypatch.setattr(stylised, "CANDLES", [Path("nowhere.csv.gz")])
    assert stylised.main([]) == 2
    assert "expected a recording, found none at nowhere.csv.gz" in capsys.readouterr().err
