"""The features of order flow against two that share nothing with them: a public library, and the slow twin at every edge of time.

The library is wickra. What it defines alike, and where it differs:

- ``Vpin(V, n)``: the same buckets of fixed volume and the same split. It sums floats, so that a bucket full to the last lot may
  close a trade late; fed with whole numbers, which floats sum exactly, it is ours. It knows no day's volume.
- ``OrderFlowImbalance(n)``: the same event of the best level, summed over the last ``n`` books in place of the last second. It
  refuses a book with one side.
- ``Microprice``: the same.
- ``KylesLambda(n)``: the same slope with intercept, but of the change of mid between two trades on the size of the second, over
  the last ``n`` trades; no variance gives 0. Fed with seconds in place of trades, it is ours.
"""

import gzip
import json
import math
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import wickra

from alphapack.domain.market import Step
from alphapack.models.book import FEATURES, FeatureBook
from reference import MS, SECOND, Side, Twin, units

START_NS = 1_723_161_255 * SECOND
DAY_NS = 86_400 * SECOND


def values(book: FeatureBook, ts_ns: int) -> dict[str, float]:
    return dict(zip(FEATURES, book.features(ts_ns).tolist(), strict=True))


def messages(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Yield a capture's messages of one kind (``"snapshot"`` for what has no kind) without their stream's name."""
    with gzip.open(path, "rb") as lines:
        for line in lines:
            message = json.loads(line.partition(b" ")[2])
            message = message.get("data", message)
            if message.get("e", "snapshot" if "lastUpdateId" in message else "") == kind:
                yield message


def text(value: object) -> bytes:
    return json.dumps(value).encode()


# Against wickra.


@pytest.mark.parametrize(
    ("name", "kind", "step", "last"),
    [
        ("binance-usdm_BTCUSDT_20240808T2354", "trade", (Step(1, 1), Step(1, 3)), 0.698416),
        ("binance-spot_BTCUSDT_trades_20201101T09", "aggTrade", (Step(1, 2), Step(1, 6)), 0.39615576),
    ],
)
def test_vpin_of_recorded_trades_is_that_of_wickra(data: Path, name: str, kind: str, step: tuple[Step, Step], last: float) -> None:
    oracle, book = wickra.Vpin(float(units("10")), 50), FeatureBook(*step, None, vpin_bucket=10.0)
    book.snapshot(b'[["1","1"]]', b'[["999999","1"]]')
    book.start(START_NS)
    found, known = math.nan, 0
    for number, trade in enumerate(messages(data / "captures" / f"{name}.raw.gz", kind)):
        price, quantity, seller = trade["p"], trade["q"], trade["m"]
        book.trade(START_NS + number, text(price), text(quantity), buyer_is_taker=not seller)
        expected = oracle.update(float(price), float(units(quantity)), not seller)
        found = float(book.features(START_NS + number)[FEATURES.index("vpin")])
        if expected is None:
            assert math.isnan(found)
        else:
            known += 1
            assert math.isclose(found, expected, rel_tol=1e-12), f"trade {number}: {found} for {expected}"
    assert known > 5_000
    assert found == last


def test_order_flow_and_microprice_of_a_recorded_book_are_those_of_wickra(data: Path) -> None:
    path = data / "captures" / "binance-spot_BTCUSDT_20240808T2354.raw.gz"
    flow, microprice = wickra.OrderFlowImbalance(10), wickra.Microprice()
    book, sides = FeatureBook(Step(1, 2), Step(1, 5), None), {"bids": Side("bid"), "asks": Side("ask")}
    snapshot = next(messages(path, "snapshot"))
    book.snapshot(text(snapshot["bids"]), text(snapshot["asks"]))
    book.start(START_NS)
    updates = (one for one in messages(path, "depthUpdate") if one["u"] > snapshot["lastUpdateId"])
    known = moved = 0
    for number, update in enumerate([{"b": snapshot["bids"], "a": snapshot["asks"]}, *(next(updates) for _ in range(1_000))]):
        # One difference each 100 ms: the last second and the last ten books are then the same.
        ts_ns = START_NS + number * 100 * MS
        if number:
            book.diff(ts_ns, text(update["b"]), text(update["a"]))
        for which, letter in (("bids", "b"), ("asks", "a")):
            for price, quantity in update[letter]:
                sides[which].put(units(price), units(quantity))
        (bid, bid_size), (ask, ask_size) = ([part / 1e8 for part in sides[which].best(1)[0]] for which in ("bids", "asks"))
        row, top = values(book, ts_ns), ([bid], [bid_size], [ask], [ask_size])
        expected, central = flow.update(*top), microprice.update(*top)
        assert central is not None and math.isclose(row["microprice"], central, rel_tol=1e-14)
        assert math.isnan(row["ofi_1"]) == (expected is None)
        if expected is not None:
            known += 1
            moved += row["ofi_1"] != 0
            assert math.isclose(row["ofi_1"], expected, rel_tol=1e-9, abs_tol=1e-9), f"difference {number}: {row['ofi_1']} for {expected}"
    assert known == 1_000 - 9
    assert moved > 500


def test_kyle_lambda_is_the_slope_of_wickra_over_the_same_seconds() -> None:
    chance, oracle = random.Random(11), wickra.KylesLambda(300)
    book = FeatureBook(Step(1, 1), Step(1, 3), None)
    book.snapshot(b'[["60000.0","1"]]', b'[["60000.1","1"]]')
    book.start(START_NS)
    bid, log_mid, level, compared = 600_000, math.log(60_000.05), 1_000.0, 0
    oracle.update(1.0, 0.0, True, level)
    for second in range(400):
        begin_ns, signed = START_NS + second * SECOND, 0.0
        for at_ns in sorted(chance.sample(range(1, SECOND + 1), chance.choice((0, 0, 1, 4)))):
            price, lots, buys = bid + chance.randrange(2), chance.randrange(1, 90_000), chance.random() < 0.5
            book.trade(begin_ns + at_ns, b'"%.1f"' % (price / 10), b'"%.3f"' % (lots / 1_000), buyer_is_taker=buys)
            signed += (1 if buys else -1) * price * lots / 1e4 / 1e6
        moved = bid + (chance.randrange(0, 9) if signed > 0 else -chance.randrange(0, 9) if signed else chance.randrange(-2, 3))
        bids, asks = {bid: "0", moved: "1"}, {bid + 1: "0", moved + 1: "1"}
        pairs = [",".join(f'["{tick / 10:.1f}","{size}"]' for tick, size in side.items()).encode() for side in (bids, asks)]
        book.diff(begin_ns + SECOND, b"[%b]" % pairs[0], b"[%b]" % pairs[1])
        bid, before, log_mid = moved, log_mid, math.log(moved / 10 + 0.05)
        level += 1e4 * (log_mid - before)
        expected = oracle.update(1.0, abs(signed), signed > 0, level)
        found = values(book, begin_ns + SECOND + 1)["kyle_lambda"]
        assert math.isnan(found) == (expected is None), f"second {second}"
        if expected is not None:
            compared += 1
            assert found == pytest.approx(expected, rel=1e-7), f"second {second}"
    assert compared == 101


# Against the slow twin, where recordings seldom go.

NEAR = {"micro_vol": 2e-14, "micro_vol_1s": 2e-14, "kyle_lambda": 1e-8}
"""Absolute room of what is made of differences of logarithms, here over some 100 of quote volume; everything else has 1e-12 of itself."""
NEAR_INVERSE = 1e-9
"""Room of every feature, also in proportion, where contracts were converted: each size and trade is rounded by up to 5e-11 of itself."""


class Pair:
    """The book of the package and the twin, fed the same and compared after everything."""

    def __init__(self, ts_ns: int = START_NS, bucket: str | None = None, *, inverse: bool = False) -> None:
        bids, asks = [["99.0", "2"]], [["101.0", "1"], ["101.5", "2"]]
        self.inverse, self.update, self.number = inverse, 10, 0
        self.book = FeatureBook(Step(1, 1), Step(1, 3), 10.0 if inverse else None, None if bucket is None else float(bucket))
        self.twin = Twin(
            "binance-coinm" if inverse else "binance-spot",
            "X",
            stale_after_ms=10**9,
            vpin_bucket=None if bucket is None else Fraction(bucket),
        )
        self.twin.feed(ts_ns, text({"lastUpdateId": 10, "bids": bids, "asks": asks}))
        self.twin.feed(ts_ns, self.next_diff([], []))
        self.book.snapshot(text(bids), text(asks))
        self.book.start(ts_ns)

    def next_diff(self, bids: list[list[str]], asks: list[list[str]]) -> bytes:
        before, self.update = self.update, self.update + 1
        return text({"e": "depthUpdate", "s": "X", "U": self.update, "u": self.update, "pu": before, "b": bids, "a": asks})

    def diff(self, ts_ns: int, bids: list[list[str]], asks: list[list[str]]) -> None:
        self.twin.feed(ts_ns, self.next_diff(bids, asks))
        self.book.diff(ts_ns, text(bids), text(asks))
        self.compare(ts_ns)

    def trade(self, ts_ns: int, price: str, quantity: str, *, seller: bool) -> None:
        self.number += 1
        self.twin.feed(ts_ns, text({"e": "trade", "s": "X", "t": self.number, "p": price, "q": quantity, "m": seller}))
        self.book.trade(ts_ns, text(price), text(quantity), buyer_is_taker=not seller)
        self.compare(ts_ns)

    def compare(self, ts_ns: int) -> dict[str, float]:
        row, expected = values(self.book, ts_ns), self.twin.row(ts_ns)
        for feature, found in row.items():
            wanted = getattr(expected, feature)
            if wanted is None:
                assert math.isnan(found), f"{ts_ns - START_NS} {feature}: {found} where the twin knows nothing"
            else:
                relative, room = (NEAR_INVERSE, NEAR_INVERSE) if self.inverse else (1e-12, NEAR.get(feature, 0.0))
                assert math.isclose(found, wanted, rel_tol=relative, abs_tol=room), f"{ts_ns - START_NS} {feature}: {found} for {wanted}"
        return row


def some_levels(chance: random.Random, low: int, sizes: tuple[str, ...]) -> list[list[str]]:
    """Return up to three changed levels at seven prices from ``low`` on."""
    return [[f"{low + chance.randrange(7) / 2:.1f}", chance.choice(sizes)] for _ in range(chance.randrange(4))]


@pytest.mark.parametrize(("seed", "inverse"), [(0, False), (1, False), (2, True)])
def test_every_feature_equals_the_twin_at_the_edges_of_seconds_and_of_thin_books(seed: int, inverse: bool) -> None:
    chance = random.Random(seed)
    # Few prices, so that sides empty, cross the fifth place and come back; steps that meet the instants of the grids exactly.
    sizes, lots, bucket = (("0", "0", "1", "7", "400"), 1, "350") if inverse else (("0", "0", "1", "2.5", "0.001"), 1_000, "3.5")
    pair = Pair(START_NS + chance.choice((0, 1, 300 * MS)), bucket, inverse=inverse)
    ts_ns = START_NS + 300 * MS
    known: set[str] = set()
    for _ in range(1_500):
        ts_ns += chance.choice((0, 0, 1, 50 * MS, 100 * MS, 250 * MS, 700 * MS))
        if chance.random() < 0.25:
            ts_ns = -(-ts_ns // SECOND) * SECOND + chance.choice((0, 0, 1))
        if chance.random() < 0.5:
            price = chance.choice(("99.0", "99.5", "101.0", "101.5"))
            pair.trade(ts_ns, price, f"{chance.randrange(1, 3_000) / lots}", seller=chance.random() < 0.5)
        else:
            pair.diff(ts_ns, some_levels(chance, 97, sizes), some_levels(chance, 101, sizes))
        known |= {feature for feature, found in pair.compare(ts_ns).items() if not math.isnan(found)}
    assert known == set(FEATURES) - {"microprice_stoikov"}


def test_a_bucket_of_the_day_s_volume_follows_the_twin() -> None:
    chance = random.Random(5)
    pair = Pair()
    ts_ns, known = START_NS, 0
    while ts_ns < START_NS + 3 * DAY_NS:
        # By turns busy, quiet, and silent for hours; a trade of several buckets now and then.
        ts_ns += chance.choice((1, 30 * SECOND, 60 * SECOND, 600 * SECOND) if chance.random() < 0.995 else (5 * 3_600 * SECOND,))
        # Multiples of 50 lots: a fiftieth of the day is then a number of whole lots, to which the book rounds it down.
        size = 50 * (chance.randrange(1, 1_000) if chance.random() < 0.99 else 18_000)
        pair.trade(ts_ns, "101.0", f"{size / 1_000}", seller=chance.random() < 0.4)
        row = pair.compare(ts_ns)
        assert row["vpin_n"] == 0 or ts_ns - START_NS >= DAY_NS
        known += not math.isnan(row["vpin"])
    assert known > 100
