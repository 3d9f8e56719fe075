"""The features against the slow twin, and the book against a plain one, on whole recordings."""

import gzip
import json
import math
import operator
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from sortedcontainers import SortedDict  # type: ignore[import-untyped]

import rig
from alphapack import app
from alphapack.config import Settings
from alphapack.domain.inputs import CoreSettings, InstrumentSettings, Result
from alphapack.domain.readings import SymbolHealth
from alphapack.engine.engine import Engine
from alphapack.models import microprice
from alphapack.models.book import FEATURES
from reference import Adjustment, Twin, twin_of, twin_rows

CAPTURES = (
    # file, frames, depth messages whose top was compared with the venue's ticker of the same update, bucket of vpin
    ("binance-usdm_BTCUSDT_20240808T2354", 93_954, 503, "5"),
    ("binance-spot_BTCUSDT_20240808T2354", 99_574, 1_072, "2"),
    ("binance-spot_ETHUSDT_20240808T2354", 79_744, 1_056, "15"),
    ("binance-coinm_ETHUSD_PERP_20240808T2354", 78_314, 2_278, "5"),
    ("binance-spot_ETHBTC_20201101T09", 5_337, 0, "3"),
    ("binance-spot_NKNUSDT_20211012", 227, 19, "1"),
    ("binance-spot_BTCUSDT_trades_20201101T09", 18_054, 0, "10"),
)
BOOKS = (
    # file, messages after which there is a book
    ("binance-usdm_BTCUSDT_20240808T2354", 93_900),
    ("binance-spot_BTCUSDT_20240808T2354", 99_567),
    ("binance-spot_ETHUSDT_20240808T2354", 79_738),
    ("binance-coinm_ETHUSD_PERP_20240808T2354", 78_288),
    ("binance-spot_ETHBTC_20201101T09", 5_333),
    ("binance-spot_NKNUSDT_20211012", 225),
)
EXACT = {
    *("bid", "ask", "obi", "obi_1", "obi_10", "ti", "ti_1s", "ti_30s", "ti_n", "cancel_rate", "cancel_n", "queue_rate"),
    *("ofi", "ofi_1", "vpin", "vpin_n", "kyle_n", "trade_rate"),
}
"""One correctly rounded operation on exact integers (or the parse of a decimal): equal to the last bit where a lot is base currency."""
ROOM = {
    **dict.fromkeys(("obi", "obi_1", "obi_10"), 1e-15),
    **dict.fromkeys(("ti", "ti_1s", "ti_30s"), 5e-11),
    **{"ofi": 1e-13, "ofi_1": 1e-12, "vpin": 5e-13},
}
"""Absolute room of those that hold contracts converted to coins. The imbalance is a quotient near 0 of such sums; for the others
each trade or size was rounded to a whole number of units, 5e-11 of itself at the most. Found at the most: 3.4e-16, 8.4e-12, 5.7e-14,
3.8e-13 and 1.1e-13."""
RELATIVE = 1e-15
"""Room of what is a few operations on exact numbers; found at the most: 4.4e-16."""
RELATIVE_SLOPE = 2e-9
"""Room of ``kyle_lambda``: a change is a difference of rounded logarithms, and the slope may be near 0; found at the most: 1.0e-9 where it
is a 400th of its usual size, 1.2e-12 elsewhere."""


def touched(path: Path, core: CoreSettings, fitted: Callable[[Engine, Result], None] | None = None) -> Iterator[tuple[Engine, Any]]:
    """Step an engine through a capture; yields it, and the market that was touched, after each market-data message.

    ``fitted`` is told of every fit that came in.
    """
    engine, complaints = app.build(), list[str]()
    for entry, _ in app.steps(engine, app.record_of([path], Settings(core=core), None, complaints.append)):
        if fitted is not None and isinstance(entry, Result) and entry.ok:
            fitted(engine, entry)
        if engine.microstructure.touched is not None:
            yield engine, engine.microstructure.touched
    assert complaints == []


def agree(path: Path, twin: Twin, vpin_bucket: str) -> tuple[int, SymbolHealth]:
    """Compare every feature after every message of a capture; return the number of messages, and how well the engine's data held."""
    symbol = f"{twin.venue}:{twin.symbol}"
    core = CoreSettings(instruments=(InstrumentSettings(symbol=symbol, vpin_bucket=float(vpin_bucket)),))
    exact = EXACT if twin.contract_value is None else EXACT - ROOM.keys()

    def fitted(engine: Engine, result: Result) -> None:
        tick, table = Fraction(str(engine.microstructure.info(symbol).tick)), microprice.decode_table(result.body).raw
        twin.tick(result.ts_ns)
        twin.adjust(Adjustment(tick, table.reshape(microprice.IMBALANCES, microprice.SPREADS).tolist()))

    n = 0
    for n, ((engine, market), expected) in enumerate(zip(touched(path, core, fitted), twin_rows(path, twin), strict=True), 1):
        assert (engine.now_ns, market.facts.state.name) == (expected.ts_ns, expected.state), f"row {n}"
        for feature, found in zip(FEATURES, engine.microstructure.features(market).tolist(), strict=True):
            wanted = getattr(expected, feature)
            if wanted is None:
                assert math.isnan(found), f"row {n} {feature}: {found} where the twin knows nothing"
            elif feature in exact:
                assert found == wanted, f"row {n} {feature}: {found} for {wanted}"
            else:
                relative, room = RELATIVE_SLOPE if feature == "kyle_lambda" else RELATIVE, ROOM.get(feature, 0.0)
                assert math.isclose(found, wanted, rel_tol=relative, abs_tol=room), f"row {n} {feature}: {found} for {wanted}"
    return n, engine.microstructure.health(symbol)


@pytest.mark.parametrize(("name", "frames", "compared", "bucket"), CAPTURES, ids=[name for name, *_ in CAPTURES])
def test_microstructure_features_equal_the_slow_twin_on_a_whole_capture(
    data: Path, name: str, frames: int, compared: int, bucket: str
) -> None:
    path = data / "captures" / f"{name}.raw.gz"
    twin = twin_of(path, Fraction(bucket))
    found, health = agree(path, twin, bucket)
    assert found == frames
    assert (twin.gaps, twin.crossed, twin.ticker_mismatched) == (0, 0, 0)
    assert (health.gaps, health.crossed, health.rejected) == (0, 0, 0)
    assert (health.ticker_checked, health.ticker_mismatched) == (twin.ticker_checked, 0)
    assert health.ticker_checked >= compared


def test_microstructure_features_equal_the_slow_twin_through_gaps_and_silences(tmp_path: Path) -> None:
    """Windows begin anew with each time that the book is LIVE; the buckets of ``vpin`` go on."""
    chance, late_ns, lines = random.Random(3), 0, list[rig.Line]()
    for ts_ns, payload in rig.market_lines(4_000, seed=3):
        late_ns += chance.choice((3_000, 3_500, 9_000)) * rig.MS if chance.random() < 0.003 else 0
        lines += [(ts_ns + late_ns, payload)] * chance.choices((0, 1, 2), (1, 118, 1))[0]
    path = rig.write_capture(tmp_path, lines, "binance-usdm_BTCUSDT_20240101.raw.gz")
    twin = twin_of(path, Fraction("0.25"))
    _, health = agree(path, twin, "0.25")
    assert (health.gaps, health.duplicates) == (twin.gaps, twin.duplicates + twin.trade_duplicates)
    assert twin.gaps > 5
    assert twin.live_entries > 20
    assert twin.row(twin.now_ns).vpin is not None


Levels = list[tuple[float, float]]


def plain_tops(path: Path) -> Iterator[tuple[Levels, Levels]]:
    """Yield the five best bids and asks after each line: floats as JSON's texts say them, in sorted maps.

    Made for a capture without a gap: every difference beyond the first snapshot is taken as it comes.
    """
    sides = {"b": SortedDict(operator.neg), "a": SortedDict()}
    last: int | None = None
    waiting: list[dict[str, Any]] = []
    with gzip.open(path, "rb") as lines:
        for line in lines:
            message = json.loads(line.partition(b" ")[2])
            message = message.get("data", message)
            if message.get("e") == "depthUpdate":
                waiting.append(message)
            elif last is None and "lastUpdateId" in message:
                last = message["lastUpdateId"]
                for side, levels in (("b", message["bids"]), ("a", message["asks"])):
                    sides[side].update((float(price), float(size)) for price, size in levels)
            if last is not None:
                for update in waiting:
                    for side, held in sides.items() if update["u"] > last else ():
                        for price, size in update[side]:
                            held[float(price)] = float(size)
                            if not float(size):
                                del held[float(price)]
                waiting = []
            yield list(islice(sides["b"].items(), 5)), list(islice(sides["a"].items(), 5))


@pytest.mark.parametrize(("name", "books"), BOOKS, ids=[name for name, _ in BOOKS])
def test_the_best_five_levels_equal_those_of_a_plain_book_after_every_message(data: Path, name: str, books: int) -> None:
    path = data / "captures" / f"{name}.raw.gz"
    n = found = 0
    for n, ((engine, market), (bids, asks)) in enumerate(zip(touched(path, CoreSettings()), plain_tops(path), strict=True), 1):
        book = engine.microstructure.book(market.facts.symbol, 5)
        if book is not None:
            found += 1
            assert (book.bids, book.asks) == (bids, asks), f"message {n}"
    assert found == books
