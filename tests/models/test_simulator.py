"""The simulated market as whoever reads its wire sees it, against plain twins of book and candles."""

import gzip
import json
import math
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.events import DepthDiff, TopOfBook, Trade
from alphapack.domain.market import BinanceMarket, Verdict
from alphapack.domain.simulation import SimulatorSettings
from alphapack.kernels import wire
from alphapack.models import simulator
from alphapack.models.book import FEATURES, FeatureBook
from alphapack.models.prediction import rank_ic
from alphapack.models.simulator import Simulator
from alphapack.venues.binance import BinanceCodec

S = 1_000_000_000
MS = 1_000_000
MINUTE_MS = 60_000
START_NS = 1_760_000_013 * S + 123_456_789
MARKETS: list[tuple[BinanceMarket, tuple[str, ...]]] = [
    ("spot", ("BTCUSDT", "SOLUSDT", "PEPEUSDC")),
    ("usdm", ("BTCUSDT", "ETHUSDT", "WIFUSDT")),
    ("coinm", ("BTCUSD_PERP", "ETHUSD_PERP")),
]
markets = pytest.mark.parametrize(("market", "symbols"), MARKETS)
Levels = dict[Decimal, Decimal]


def opened(market: BinanceMarket = "usdm", symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT"), **more: Any) -> Simulator:
    history = more.pop("history_minutes", 3)
    return Simulator(SimulatorSettings(symbols=symbols, **more), START_NS, market=market, history_minutes=history)


def data_of(payload: bytes) -> tuple[str, dict[str, Any]]:
    whole = json.loads(payload)
    assert set(whole) == {"stream", "data"}
    return whole["stream"], whole["data"]


def put(side: Levels, levels: list[list[str]]) -> None:
    for price, quantity in levels:
        side.pop(Decimal(price), None)
        if Decimal(quantity):
            side[Decimal(price)] = Decimal(quantity)


def truth(one: Simulator, symbol: str) -> tuple[Levels, Levels]:
    terms = one.terms(symbol)
    tick, lot = (Decimal(step.units).scaleb(-step.decimals) for step in (terms.tick, terms.lot))
    bids, asks = one.levels(symbol)
    assert bids == sorted(bids, reverse=True) and asks == sorted(asks)
    return {price * tick: lots * lot for price, lots in bids}, {price * tick: lots * lot for price, lots in asks}


@markets
def test_snapshot_and_differences_are_the_true_book(market: BinanceMarket, symbols: tuple[str, ...]) -> None:
    """By the venue's rules, through the real codec; tickers, trades and times hold along the way."""
    one, codec = opened(market, symbols), BinanceCodec(market)
    for symbol in symbols:
        now_ns = one.now_ns
        snapshot = json.loads(one.snapshot(symbol, 5_000))
        bids: Levels = {}
        asks: Levels = {}
        put(bids, snapshot["bids"])
        put(asks, snapshot["asks"])
        assert (bids, asks) == truth(one, symbol)
        assert min(len(bids), len(asks)) >= 500
        last, first, top, at_ns = snapshot["lastUpdateId"], True, None, now_ns
        trade_id, trade_ns = -1, 0
        counts = {"depth": 0, "trade": 0, "ticker": 0}
        for step in (0.05, 0.3, 1, 2.5, 7, 20):
            for ts_ns, payload in one.advance(one.now_ns + int(step * S)):
                assert at_ns <= ts_ns <= one.now_ns and now_ns < ts_ns
                at_ns = ts_ns
                stream, data = data_of(payload)
                (event,) = codec.decode(payload, "")
                assert stream.split("@")[0] == data["s"].lower()
                assert data.get("E", ts_ns // MS) == data.get("T", ts_ns // MS) == ts_ns // MS
                if data["s"] != symbol:
                    continue
                if isinstance(event, DepthDiff):
                    verdict = codec.verdict(event, last, first_after_snapshot=first)
                    if first and verdict is Verdict.DUPLICATE:
                        continue
                    assert verdict is Verdict.APPLY
                    last, first = event.last, False
                    put(bids, data["b"])
                    put(asks, data["a"])
                    assert max(bids) < min(asks)
                    counts["depth"] += 1
                    if top is not None:
                        assert top == (max(bids), bids[max(bids)], min(asks), asks[min(asks)]), "the ticker is the top of the book"
                elif isinstance(event, TopOfBook):
                    assert top is None or data["u"] > last
                    top = tuple(Decimal(data[key]) for key in "bBaA")
                    counts["ticker"] += 1
                else:
                    assert isinstance(event, Trade)
                    assert trade_id in (-1, data["t"] - 1)
                    if top is not None and trade_ns != ts_ns:
                        assert Decimal(data["p"]) == top[0 if data["m"] else 2], "an order takes the best first"
                        assert 0 < Decimal(data["q"]) <= top[1 if data["m"] else 3]
                    trade_id, trade_ns = data["t"], ts_ns
                    counts["trade"] += 1
        assert min(counts.values()) > 20


@markets
def test_what_was_sent_is_the_true_book_at_any_depth_update(market: BinanceMarket, symbols: tuple[str, ...]) -> None:
    one = opened(market, symbols)
    twin = opened(market, symbols)
    symbol = symbols[-1]
    bids, asks = truth(one, symbol)
    frames = one.advance(one.now_ns + 40 * S)
    depths = [
        (ts_ns, data) for ts_ns, payload in frames for stream, data in [data_of(payload)] if "@depth" in stream and data["s"] == symbol
    ]
    assert len(depths) > 200
    for i, (ts_ns, data) in enumerate(depths):
        put(bids, data["b"])
        put(asks, data["a"])
        if i % 23 == 0:
            twin.advance(ts_ns)
            assert (bids, asks) == truth(twin, symbol)
            body = json.loads(twin.snapshot(symbol, 100))
            assert body["lastUpdateId"] == data["u"]
            assert [[Decimal(p), Decimal(q)] for p, q in body["bids"]] == [[p, bids[p]] for p in sorted(bids, reverse=True)[:100]]
            assert [[Decimal(p), Decimal(q)] for p, q in body["asks"]] == [[p, asks[p]] for p in sorted(asks)[:100]]


def test_the_engines_fast_path_takes_every_frame_and_finds_no_contradiction() -> None:
    one = opened(symbols=("BTCUSDT",))
    terms = one.terms("BTCUSDT")
    book = FeatureBook(terms.tick, terms.lot, None)
    book.listen("BTCUSDT", wire.BINANCE_FUTURES)
    frames = one.advance(one.now_ns + S)
    frames = frames[max(i for i, (_, payload) in enumerate(frames) if b"@depth" in payload) + 1 :]  # Those after the last update.
    while not frames or b"@depth" not in frames[-1][1]:
        frames = one.advance(one.now_ns + MS)
    snapshot = json.loads(one.snapshot("BTCUSDT", 5_000), parse_float=str)
    book.snapshot(json.dumps(snapshot["bids"]).encode(), json.dumps(snapshot["asks"]).encode())
    book.start(one.now_ns)
    book.last_update, book.live = snapshot["lastUpdateId"], True
    frames = one.advance(one.now_ns + 300 * S)
    rows = np.empty((len(frames), len(FEATURES)))
    statuses = np.empty(len(frames), np.int64)
    raw, ends = b"".join(payload for _, payload in frames), np.cumsum([len(payload) for _, payload in frames])
    assert book.frames(np.array([ts_ns for ts_ns, _ in frames]), raw, ends, rows, statuses) == len(frames)
    assert (statuses >= 0).all()
    cancelled = rows[2_000:, FEATURES.index("cancel_rate")]
    assert 0.85 < np.nanmean(cancelled) < 0.995


def sent(one: Simulator, cuts: list[int]) -> list[tuple[int, bytes]]:
    return [frame for cut in cuts for frame in one.advance(START_NS + cut)]


REFERENCE_NS = 64 * S
whole: list[tuple[int, bytes]] = []


@settings(max_examples=12)
@given(st.lists(st.integers(0, REFERENCE_NS), max_size=40).map(sorted))
def test_slices_change_nothing(cuts: list[int]) -> None:
    if not whole:
        whole.extend(sent(opened(), [REFERENCE_NS]))
    one = opened()
    assert sent(one, [*cuts, REFERENCE_NS]) == whole
    assert len(whole) > 1_500


def test_reading_and_short_buffers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = opened()
    wanted = sent(reference, [REFERENCE_NS])
    monkeypatch.setattr(simulator, "LOG_ROOM", 2_000)
    monkeypatch.setattr(simulator, "KLINES_AT_ONCE", 2)
    one = opened()
    found = []
    for second in range(1, 65):
        found += one.advance(START_NS + second * S)
        one.snapshot("BTCUSDT", 10)
        one.levels("ETHUSDT")
        one.klines("BTCUSDT", 0, 2**50, 10)
        one.exchange_info()
    assert found == wanted
    assert one.snapshot("ETHUSDT") == reference.snapshot("ETHUSDT")
    assert one.klines("ETHUSDT", 0, 2**50, 1_000) == reference.klines("ETHUSDT", 0, 2**50, 1_000)
    assert one.advance(one.now_ns) == []


def test_symbols_do_not_depend_on_each_other_and_seeds_and_starts_differ() -> None:
    both, alone = opened(), opened(symbols=("ETHUSDT",))
    until_ns = START_NS + 5 * S
    frames = both.advance(until_ns)
    assert [frame for frame in frames if b"ethusdt" in frame[1]] == alone.advance(until_ns)
    other = opened(seed=8).advance(until_ns)
    assert not set(frames) & set(other)


@markets
def test_a_later_sessions_ids_lie_above_an_earlier_ones(market: BinanceMarket, symbols: tuple[str, ...]) -> None:
    first = opened(market, symbols, activity=20.0)
    last = {}
    for _, payload in first.advance(START_NS + 5 * S):
        stream, data = data_of(payload)
        last[data["s"], "trade" in stream] = data.get("t") or data["u"]
    later = Simulator(SimulatorSettings(symbols=symbols), START_NS + 5 * S, market=market)
    for _, payload in later.advance(START_NS + 8 * S):
        stream, data = data_of(payload)
        assert (data.get("t") or data.get("U") or data["u"]) > last[data["s"], "trade" in stream]


@markets
def test_messages_have_the_shape_of_recorded_ones(data: Path, market: BinanceMarket, symbols: tuple[str, ...]) -> None:
    file = {
        "spot": "binance-spot_BTCUSDT_20240808T2354",
        "usdm": "binance-usdm_BTCUSDT_20240808T2354",
        "coinm": "binance-coinm_ETHUSD_PERP_20240808T2354",
    }[market]
    symbol = "ETHUSD_PERP" if market == "coinm" else "BTCUSDT"

    def shapes(payloads: Iterable[bytes]) -> dict[str, Any]:
        """Keys in their order, types of values, and decimals of a price and a quantity, of each kind of message."""
        found: dict[str, Any] = {}
        for payload in payloads:
            whole = json.loads(payload)
            body = whole.get("data", whole)
            kind = whole.get("stream", "@snapshot").split("@")[1]
            levels = [*body.get("bids", body.get("b", "")), *body.get("asks", body.get("a", ""))] if kind in ("depth", "snapshot") else []
            price, quantity = levels[0] if levels else (body.get("p", body.get("b")), body.get("q", body.get("B")))
            if isinstance(price, str):
                decimals = [len(text.partition(".")[2]) for text in (price, quantity)]
                found.setdefault(kind, (list(whole), list(body), [type(value) for value in body.values()], decimals))
            if len(found) == 4:
                break
        return found

    with gzip.open(data / "captures" / f"{file}.raw.gz") as lines:
        recorded = shapes(line.partition(b" ")[2] for line in lines)
    one = opened(market, (symbol,))
    made = shapes([one.snapshot(symbol), *(payload for _, payload in one.advance(START_NS + 5 * S))])
    assert made == recorded


@markets
def test_candles_are_whole_and_those_of_the_flow_are_its_trades(market: BinanceMarket, symbols: tuple[str, ...]) -> None:
    one = opened(market, symbols, history_minutes=2_000)
    first_ms = START_NS // MS // MINUTE_MS * MINUTE_MS
    trades = [
        (ts_ns, data) for ts_ns, payload in one.advance(START_NS + 130 * S) for stream, data in [data_of(payload)] if "trade" in stream
    ]
    for symbol in symbols:
        rows = json.loads(one.klines(symbol, 0, one.now_ns // MS, 50_000))
        opens = [row[0] for row in rows]
        assert opens == list(range(first_ms - 2_000 * MINUTE_MS, one.now_ns // MS // MINUTE_MS * MINUTE_MS, MINUTE_MS))
        assert all(row[6] == row[0] + MINUTE_MS - 1 and len(row) == 12 and row[8] > 0 for row in rows)
        for row, before in zip(rows[1:2_000], rows, strict=False):
            start, high, low, end = map(Decimal, row[1:5])
            assert low <= min(start, end) and max(start, end) <= high
            assert start == Decimal(before[4])
            assert 0 <= Decimal(row[9]) <= Decimal(row[5]) and 0 <= Decimal(row[10]) <= Decimal(row[7]) and Decimal(row[5]) > 0
        tick = one.terms(symbol).tick
        sigma = one.terms(symbol).minute_bps
        assert (
            abs(math.log(float(rows[2_000][1]) / float(rows[1_999][4]))) * 1e4 < 6 * sigma + 20 * float(tick.size) / float(rows[0][4]) * 1e4
        )
        row = rows[2_001]  # The first minute of which every trade was seen.
        seen = [data for ts_ns, data in trades if data["s"] == symbol and row[0] <= ts_ns // MS <= row[6]]
        prices, lots = [Decimal(data["p"]) for data in seen], [Decimal(data["q"]) for data in seen]
        bought = [quantity for data, quantity in zip(seen, lots, strict=True) if not data["m"]]
        assert [*map(Decimal, row[1:5])] == [prices[0], max(prices), min(prices), prices[-1]]
        assert (Decimal(row[5]), row[8], Decimal(row[9])) == (sum(lots), len(seen), sum(bought))
        value = one.terms(symbol).contract
        worth = sum(q * value / p if value else q * p for p, q in zip(prices, lots, strict=True))
        assert float(row[7]) == pytest.approx(float(worth), rel=1e-12 if not value else 1e-5)


def test_klines_are_pages_of_closed_minutes() -> None:
    one = opened(history_minutes=50)
    rows = json.loads(one.klines("BTCUSDT", 0, 2**50, 1_000))
    assert len(rows) == 50
    assert json.loads(one.klines("BTCUSDT", rows[7][0], 2**50, 3)) == rows[7:10]
    assert json.loads(one.klines("BTCUSDT", rows[7][0] + 1, rows[10][0], 30)) == rows[8:11]
    assert json.loads(one.klines("BTCUSDT", rows[49][0] + 1, 2**50, 30)) == []
    assert json.loads(one.klines("BTCUSDT", 0, rows[0][0] - 1, 30)) == []
    one.advance((START_NS // (60 * S) + 1) * 60 * S - 1)
    assert json.loads(one.klines("BTCUSDT", 0, 2**50, 1_000)) == rows
    one.advance(one.now_ns + 1)
    assert json.loads(one.klines("BTCUSDT", 0, 2**50, 1_000))[:50] == rows
    assert len(json.loads(one.klines("BTCUSDT", 0, 2**50, 1_000))) == 51


def test_old_minutes_are_forgotten_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "FLOW_MINUTES_KEPT", 2)
    one = opened(symbols=("ETHUSDT",), history_minutes=3)
    before = json.loads(one.klines("ETHUSDT", 0, 2**50, 100))
    one.advance(START_NS + 240 * S)
    after = json.loads(one.klines("ETHUSDT", 0, 2**50, 100))
    assert [row[0] for row in after] == [before[0][0] + i * MINUTE_MS for i in range(2, 7)]
    assert after[0] == before[2]


def test_prices_begin_where_they_are_told_and_go_on_from_candles() -> None:
    one = Simulator(SimulatorSettings(symbols=("BTCUSDT", "ETHUSDT")), START_NS, history_minutes=10, prices={"ETHUSDT": 4_000.0})
    assert json.loads(one.klines("ETHUSDT", 0, 2**50, 1))[0][1] == "4000.00"
    assert json.loads(one.klines("BTCUSDT", 0, 2**50, 1))[0][1] == "60000.00"
    bid = float(json.loads(one.snapshot("ETHUSDT", 1))["bids"][0][0])
    assert abs(math.log(bid / float(json.loads(one.klines("ETHUSDT", 0, 2**50, 10))[-1][4]))) < 0.005


@markets
def test_exchange_info_says_what_the_wire_shows(market: BinanceMarket, symbols: tuple[str, ...]) -> None:
    one = opened(market, symbols)
    listed = json.loads(one.exchange_info())["symbols"]
    assert [entry["symbol"] for entry in listed] == list(symbols)
    for entry in listed:
        filters = {row["filterType"]: row for row in entry["filters"]}
        tick, lot = Decimal(filters["PRICE_FILTER"]["tickSize"]), Decimal(filters["LOT_SIZE"]["stepSize"])
        body = json.loads(one.snapshot(entry["symbol"]))
        for price, quantity in body["bids"] + body["asks"]:
            assert Decimal(price) % tick == 0 and Decimal(quantity) % lot == 0
        maker, taker = Decimal(entry["makerCommission"]), Decimal(entry["takerCommission"])
        assert (maker, taker) == ((Decimal("0.001"),) * 2 if market == "spot" else (Decimal("0.0002"), Decimal("0.0005")))
        if market != "spot":
            assert entry["contractType"] == "PERPETUAL"
        assert (
            market == "coinm"
            or Decimal(filters["NOTIONAL" if market == "spot" else "MIN_NOTIONAL"]["minNotional" if market == "spot" else "notional"]) > 0
        )


def test_a_hundred_names_are_taken_and_always_mean_the_same() -> None:
    names = (*(f"C{i}XUSDT" for i in range(98)), "1000PEPE", "Q0")
    one = Simulator(SimulatorSettings(symbols=names), START_NS)
    frames = one.advance(START_NS + S)
    assert {data_of(payload)[1]["s"] for _, payload in frames} == set(names)
    assert [ts_ns for ts_ns, _ in frames] == sorted(ts_ns for ts_ns, _ in frames)
    ratios = [float(terms.tick.size) / terms.price * 1e4 for terms in map(one.terms, names)]
    assert 0.09 < min(ratios) <= max(ratios) < 1.1
    assert one.terms("Q0") == opened(symbols=("Q0",)).terms("Q0")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": -1}, "seed from 0"),
        ({"seed": 2**63}, "seed from 0"),
        ({"symbols": ()}, "1 to 100 symbols"),
        ({"symbols": tuple(f"C{i}" for i in range(101))}, "1 to 100 symbols"),
        ({"symbols": ("btcusdt",)}, "capital letters"),
        ({"symbols": ("A",)}, "capital letters"),
        ({"symbols": ("A" * 21,)}, "capital letters"),
        ({"symbols": ('BTC"',)}, "capital letters"),
        ({"symbols": ("BTCUSDT\n",)}, "capital letters"),
        ({"symbols": ("BTCUSDT", "BTCUSDT")}, "each symbol once"),
        ({"edge": -0.1}, "edge from 0 to 10"),
        ({"edge": math.nan}, "edge from 0 to 10"),
        ({"activity": 0.0}, "activity from 0.05 to 20"),
        ({"activity": math.inf}, "activity from 0.05 to 20"),
        ({"depth_ms": 0}, "multiple of 50 from 50 to 1000"),
        ({"depth_ms": 120}, "multiple of 50 from 50 to 1000"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SimulatorSettings(**wrong)
    with pytest.raises(msgspec.ValidationError, match=f"{said}|float"):
        msgspec.convert(wrong, SimulatorSettings, strict=False)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"speed": 1}, SimulatorSettings)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"market": "options"}, "one of the markets spot, usdm, coinm"),
        ({"market": "coinm"}, "perpetual of COIN-M"),
        ({"symbols": ("BTCUSD_PERP",)}, "a symbol such as BTCUSDT"),
        ({"history_minutes": -1}, "0 to 100000 minutes"),
        ({"history_minutes": 100_001}, "0 to 100000 minutes"),
        ({"history_minutes": 3, "start_ns": 179 * S}, "3 minutes after 1970"),
        ({"start_ns": -1}, "minutes after 1970"),
        ({"start_ns": 1 << 62}, "minutes after 1970"),
        ({"prices": {"SOLUSDT": 1.0}}, "prices of the symbols followed"),
        ({"prices": {"BTCUSDT": 0.0}}, "price of BTCUSDT from 100 to"),
        ({"prices": {"BTCUSDT": math.nan}}, "price of BTCUSDT from 100 to"),
        ({"prices": {"BTCUSDT": 1e12}}, "price of BTCUSDT from 100 to"),
        ({"symbols": tuple(f"C{i}" for i in range(100)), "history_minutes": 100_000}, "at most 10000000 candles"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any], said: str) -> None:
    rest = {"symbols": ("BTCUSDT",), "start_ns": START_NS, **wrong}
    asked = SimulatorSettings(symbols=rest.pop("symbols"))
    with pytest.raises(ValueError, match=said):
        Simulator(asked, rest.pop("start_ns"), **rest)


def test_questions_out_of_range_are_refused() -> None:
    one = opened()
    for ask, said in (
        (lambda: one.advance(START_NS - 1), "a time from"),
        (lambda: one.advance(START_NS + 86_400 * S + 1), "to a day later"),
        (lambda: one.snapshot("SOLUSDT"), "one of BTCUSDT, ETHUSDT"),
        (lambda: one.snapshot("BTCUSDT", 0), "limit from 1"),
        (lambda: one.snapshot("BTCUSDT", 5_001), "limit from 1"),
        (lambda: one.klines("BTCUSDT", 0, 1, 0), "limit from 1"),
        (lambda: one.klines("SOLUSDT", 0, 1, 1), "one of BTCUSDT, ETHUSDT"),
        (lambda: one.levels(""), "one of BTCUSDT, ETHUSDT"),
    ):
        with pytest.raises(ValueError, match=said):
            ask()
    assert one.now_ns == START_NS


@pytest.mark.parametrize("price", [100.0, 9e7])
def test_extreme_prices_stay_whole(price: float) -> None:
    one = Simulator(SimulatorSettings(symbols=("BTCUSDT",), activity=20.0, depth_ms=1_000), START_NS, prices={"BTCUSDT": price})
    bids, asks = truth(one, "BTCUSDT")
    snapshot_id = json.loads(one.snapshot("BTCUSDT"))["lastUpdateId"]
    for _, payload in one.advance(START_NS + 30 * S):
        stream, data = data_of(payload)
        if "@depth" in stream and data["u"] > snapshot_id:
            put(bids, data["b"])
            put(asks, data["a"])
            assert min(bids) > 0 and max(bids) < min(asks)


def moves_and_flow(edge: float) -> tuple[Any, Any]:
    """Return, of 2 hours of three symbols, each 20 s, buys less sells of the last minute and the return over the next 300 s."""
    one = Simulator(SimulatorSettings(edge=edge, seed=3, depth_ms=1_000), START_NS)
    symbols = one.settings.symbols
    flows: dict[str, list[float]] = {name: [] for name in symbols}
    mids: dict[str, list[float]] = {name: [] for name in symbols}
    recent: dict[str, list[float]] = {name: [0.0] * 3 for name in symbols}
    for _ in range(360):
        signs, tickers = dict.fromkeys(symbols, 0), {}
        for _, payload in one.advance(one.now_ns + 20 * S):
            name = payload[11:18].decode().upper()
            if payload[19:24] == b"trade":
                signs[name] += 1 if payload.endswith(b"false}}") else -1
            elif payload[19:24] == b"bookT":
                tickers[name] = payload
        for name in symbols:
            recent[name] = [*recent[name][1:], signs[name]]
            flows[name].append(sum(recent[name]))
            ticker = data_of(tickers[name])[1]
            mids[name].append(math.log(float(ticker["b"]) + float(ticker["a"])))
    flow = np.concatenate([np.array(flows[name][:-15]) for name in symbols])
    move = np.concatenate([np.array(mids[name][15:]) - np.array(mids[name][:-15]) for name in symbols])
    return flow, move


def test_flow_predicts_the_next_300_s_by_the_planted_edge_alone() -> None:
    strong, null = (rank_ic(*moves_and_flow(edge), overlap=15) for edge in (10.0, 0.0))
    assert strong.slope > 0.3 and strong.t > 4
    assert abs(null.t) < 2.5 and abs(null.slope) < 0.15


def test_facts_of_the_market() -> None:
    one = Simulator(SimulatorSettings(), START_NS, history_minutes=14_400)
    for name in one.settings.symbols:
        closes = np.array([float(row[4]) for row in json.loads(one.klines(name, 0, 2**50, 14_400))])
        moves = 1e4 * np.diff(np.log(closes))
        sizes = np.abs(moves)
        assert 0.6 < moves.std() / one.terms(name).minute_bps < 1.6
        assert 5 < np.mean(moves**4) / np.var(moves) ** 2 < 150
        for lag, least in ((1, 0.15), (20, 0.08), (60, 0.05)):
            assert np.corrcoef(sizes[:-lag], sizes[lag:])[0, 1] > least
        assert abs(np.corrcoef(moves[:-1], moves[1:])[0, 1]) < 0.06
    counts: dict[tuple[str, str], int] = {}
    spreads = []
    for _, payload in one.advance(START_NS + 600 * S):
        stream, data = data_of(payload)
        counts[data["s"], stream.split("@")[1]] = counts.get((data["s"], stream.split("@")[1]), 0) + 1
        if stream == "btcusdt@bookTicker":
            spreads.append(round((float(data["a"]) - float(data["b"])) * 10))
    for name in one.settings.symbols:
        assert 9 <= counts[name, "depth"] / 600 <= 10
        assert 1.5 <= counts[name, "trade"] / 600 <= 10
        assert 4 <= counts[name, "bookTicker"] / 600 <= 15
    assert min(spreads) >= 1
    assert np.mean(np.array(spreads) <= 3) > 0.9
