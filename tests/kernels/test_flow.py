"""The rolling windows against naive sums over everything that ever happened, and compiled against interpreted, bit for bit."""

import gzip
import itertools
import math
import os
import random
import struct
import subprocess
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alphapack
from alphapack import app
from alphapack.domain.inputs import Configure, CoreSettings, Frame, SessionStart
from alphapack.domain.market import Step
from alphapack.kernels import book, flow, wire
from alphapack.models import book as books
from alphapack.models.book import FEATURES, CrossedBook, FeatureBook

MS = 1_000_000
SECOND = 1_000 * MS
START_NS = 1_723_161_255_030_314_667
LINES = 3_000

compiled = pytest.mark.skipif(not hasattr(flow.depth, "py_func"), reason="kernels are interpreted here")


def levels(pairs: list[tuple[int, int]]) -> bytes:
    """Return (ticks of 0.1, lots of 0.001) as a venue sends them."""
    return b"[" + b",".join(b'["%d.%d","%d.%03d"]' % (*divmod(p, 10), *divmod(q, 1_000)) for p, q in pairs) + b"]"


def opened(bids: list[tuple[int, int]], asks: list[tuple[int, int]], ts_ns: int = START_NS) -> FeatureBook:
    """Return a book that is LIVE with these levels."""
    one = FeatureBook(Step(1, 1), Step(1, 3), None)
    one.snapshot(levels(bids), levels(asks))
    one.start(ts_ns)
    return one


def features(one: FeatureBook, ts_ns: int) -> dict[str, float]:
    return dict(zip(FEATURES, one.features(ts_ns, np.zeros(len(FEATURES))).tolist(), strict=True))


class Naive:
    """A dict of levels a side and a list of all that ever happened; every feature is a sum over the whole list."""

    def __init__(self, bids: list[tuple[int, int]], asks: list[tuple[int, int]], ts_ns: int) -> None:
        self.sides = {1: {p: q for p, q in bids if q}, -1: {p: q for p, q in asks if q}}
        self.live_ns = ts_ns
        self.trades: list[tuple[int, int, int]] = []
        self.pending: list[list[int]] = []
        self.removals: list[tuple[int, int, int]] = []
        self.changes: list[int] = []
        self.mids: list[tuple[int, float]] = []
        self.note_mid(ts_ns)

    def best(self, sign: int) -> list[int]:
        return sorted(self.sides[sign], reverse=sign > 0)

    def note_mid(self, ts_ns: int) -> None:
        if self.sides[1] and self.sides[-1]:
            self.mids.append((ts_ns, math.log((self.best(1)[0] + self.best(-1)[0]) / 20)))

    def diff(self, ts_ns: int, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> bool:
        """Apply a difference; False where the book is crossed after it."""
        for sign, pairs in ((1, bids), (-1, asks)):
            side, inside = self.sides[sign], self.best(sign)[:5]
            edge = inside[-1] * sign if len(inside) == 5 else -(10**12)
            for price, quantity in pairs:
                old = side.get(price, 0)
                if old == quantity:
                    continue
                side[price] = quantity
                if quantity == 0:
                    del side[price]
                explained = sum(p[2] for p in self.pending if p[1] == sign * price and p[0] > ts_ns - 250 * MS)
                self.pending = [p for p in self.pending if p[1] != sign * price]
                if sign * price >= edge:
                    self.changes.append(ts_ns)
                    if quantity < old:
                        self.removals.append((ts_ns, old - quantity, max(0, old - quantity - explained)))
        if self.sides[1] and self.sides[-1] and self.best(1)[0] >= self.best(-1)[0]:
            return False
        self.note_mid(ts_ns)
        return True

    def trade(self, ts_ns: int, price: int, lots: int, buyer: bool) -> None:
        self.trades.append((ts_ns, lots if buyer else 0, 0 if buyer else lots))
        self.pending.append([ts_ns, -price if buyer else price, lots])

    def imbalance(self, ts_ns: int, seconds: int) -> float:
        within = [trade for trade in self.trades if trade[0] > ts_ns - seconds * SECOND]
        bought, sold = sum(one[1] for one in within), sum(one[2] for one in within)
        return (bought - sold) / (bought + sold) if within else 0.0

    def mid_at(self, ts_ns: int) -> float | None:
        after = bisect_right(self.mids, (ts_ns, math.inf))
        return self.mids[after - 1][1] if after else None

    def micro_vol(self, ts_ns: int, seconds: int) -> float:
        newest, squares = ts_ns // (100 * MS), []
        for instant in range(newest - 10 * seconds + 1, newest + 1):
            before, after = self.mid_at((instant - 1) * 100 * MS), self.mid_at(instant * 100 * MS)
            if before is not None and after is not None:
                squares.append((after - before) ** 2)
        return math.sqrt(math.fsum(squares))

    def check(self, found: dict[str, float], ts_ns: int) -> None:
        for name, seconds in (("ti_1s", 1), ("ti", 5), ("ti_30s", 30)):
            self.warm(found[name], self.imbalance(ts_ns, seconds), ts_ns, seconds)
        for name, seconds in (("micro_vol_1s", 1), ("micro_vol", 5)):
            self.warm(found[name], self.micro_vol(ts_ns, seconds), ts_ns, seconds, 1e-13)
        removals = [one for one in self.removals if one[0] > ts_ns - 5 * SECOND]
        removed = sum(one[1] for one in removals)
        self.warm(found["cancel_rate"], sum(one[2] for one in removals) / removed if removed else 0.0, ts_ns, 5)
        self.warm(found["queue_rate"], sum(at > ts_ns - 5 * SECOND for at in self.changes) / 5, ts_ns, 5)
        assert found["cancel_n"] == len(removals)
        assert found["ti_n"] == sum(one[0] > ts_ns - 5 * SECOND for one in self.trades)
        bids, asks = ([self.sides[sign][price] for price in self.best(sign)] for sign in (1, -1))
        for name, depth in (("obi_1", 1), ("obi", 5), ("obi_10", 10)):
            b, a = sum(bids[:depth]), sum(asks[:depth])
            assert math.isnan(found[name]) if not bids or not asks else found[name] == (b - a) / (b + a)

    def warm(self, found: float, wanted: float, ts_ns: int, seconds: int, room: float = 0.0) -> None:
        if ts_ns - self.live_ns < seconds * SECOND:
            assert math.isnan(found)
        else:
            assert abs(found - wanted) <= room


BIDS = [(1_000 - i, 5) for i in range(4)] + [(10, 900)]
ASKS = [(1_001 + i, 5) for i in range(6)] + [(99_999, 900)]
WAITS_MS = st.sampled_from([0, 0, 1, 30, 99, 100, 249, 250, 251, 700, 999, 1_000, 4_999, 5_000, 6_000, 31_000])
LOTS = st.sampled_from([0, 0, 0, 1, 5, 7])
# A few prices near the touch so that they meet again, one beyond all others, and one that exists nowhere.
BID_LEVELS = st.lists(st.tuples(st.sampled_from([1_000, 999, 998, 997, 990, 10, 3]), LOTS), max_size=4)
ASK_LEVELS = st.lists(st.tuples(st.sampled_from([1_001, 1_002, 1_003, 1_010, 99_999, 100_000]), LOTS), max_size=4)
OPERATIONS = st.one_of(
    st.tuples(st.just("diff"), WAITS_MS, BID_LEVELS, ASK_LEVELS),
    st.tuples(st.just("trade"), WAITS_MS, st.sampled_from([1_000, 999, 1_001, 1_002, 10]), st.booleans()),
    st.tuples(st.just("look"), WAITS_MS, st.none(), st.none()),
)


@settings(max_examples=40)
@given(st.lists(OPERATIONS, min_size=5, max_size=20), st.sampled_from([0, 1, 85_333, 99_999_999]))
def test_microstructure_features_are_sums_over_the_window_and_nothing_else(operations: list[Any], offset_ns: int) -> None:
    ts_ns = START_NS // (100 * MS) * (100 * MS) + offset_ns
    one, naive = opened(BIDS, ASKS, ts_ns), Naive(BIDS, ASKS, ts_ns)
    for kind, wait_ms, first, second in operations:
        ts_ns += wait_ms * MS
        if kind == "diff":
            one.diff(ts_ns, levels(first), levels(second))
            assert naive.diff(ts_ns, first, second)
        elif kind == "trade":
            one.trade(ts_ns, b'"%d.%d"' % divmod(first, 10), b'"0.002"', buyer_is_taker=second)
            naive.trade(ts_ns, first, 2, second)
        naive.check(features(one, ts_ns), ts_ns)
    assert [one.side(side, 99) for side in ("bids", "asks")] == [
        [(price / 10, naive.sides[sign][price] / 1_000) for price in naive.best(sign)] for sign in (1, -1)
    ]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 10**7), st.sampled_from([0, 1, 10**9])), max_size=60))
def test_deep_and_sparse_books_equal_a_dict(changes: list[tuple[bool, int, int]]) -> None:
    """Prices over seven decades, each side its own half, one message for all and one for each."""
    bids = [(price, lots) for is_bid, price, lots in changes if is_bid]
    asks = [(price + 10**7, lots) for is_bid, price, lots in changes if not is_bid]
    whole, single = opened([], []), opened([], [])
    whole.diff(START_NS, levels(bids), levels(asks))
    for pair in bids:
        single.diff(START_NS, levels([pair]), b"[]")
    for pair in asks:
        single.diff(START_NS, b"[]", levels([pair]))
    for which, pairs, best_first in (("bids", bids, True), ("asks", asks, False)):
        held = sorted(((price / 10, lots / 1_000) for price, lots in dict(pairs).items() if lots), reverse=best_first)
        assert whole.side(which, 99) == single.side(which, 99) == held


@given(st.sampled_from([1_000, 1_001, 1_002]), st.booleans())
def test_a_crossed_book_is_found_on_either_side(price: int, bid: bool) -> None:
    one = opened([(999, 1)], [(1_001, 1)])
    change = levels([(price if bid else 2_000 - price, 1)])
    if price >= 1_001:
        with pytest.raises(CrossedBook):
            one.diff(START_NS, change if bid else b"[]", b"[]" if bid else change)
    else:
        one.diff(START_NS, change if bid else b"[]", b"[]" if bid else change)


def test_a_trade_explains_one_fall_of_its_own_level_and_only_for_250_ms() -> None:
    def rate(age_ms: int, price: int = 1_000, fall: int = 2) -> float:
        one = opened(BIDS, ASKS, START_NS - 10 * SECOND)
        one.trade(START_NS, b'"%d.%d"' % divmod(price, 10), b'"0.002"', buyer_is_taker=False)
        one.diff(START_NS + age_ms * MS, levels([(1_000, 5 - fall)]), b"[]")
        return features(one, START_NS + age_ms * MS)["cancel_rate"]

    assert (rate(0), rate(249), rate(250)) == (0.0, 0.0, 1.0)
    assert (rate(10, price=999), rate(10, fall=4), rate(10, fall=1)) == (1.0, 0.5, 0.0)

    one = opened(BIDS, ASKS, START_NS - 10 * SECOND)
    one.trade(START_NS, b'"100.0"', b'"0.002"', buyer_is_taker=False)
    one.diff(START_NS, levels([(1_000, 3)]), b"[]")
    one.diff(START_NS, levels([(1_000, 1)]), b"[]")
    assert features(one, START_NS)["cancel_rate"] == 0.5, "the trade was used up by the first fall"


# Compiled and interpreted.


def bits(value: object) -> object:
    """Return what must be equal to the last bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple):
        return tuple(map(bits, value))
    if isinstance(value, float):
        return struct.pack("<d", value)
    return int(value) if isinstance(value, int | np.integer) else value


class Pair:
    """A kernel that runs compiled and interpreted on equal arguments and says where they differ; so do those that it calls."""

    def __init__(self, name: str, kernel: Any, calls: Counter[str]) -> None:
        self.name, self.kernel, self.calls = name, kernel, calls
        self.interpreted: Callable[..., object] = kernel.py_func

    def __call__(self, *arguments: object) -> object:
        self.calls[self.name] += 1
        copies = [one.copy() if isinstance(one, np.ndarray) else one for one in arguments]
        second = self.interpreted(*copies)
        first = self.kernel(*arguments)
        assert bits(first) == bits(second), self.name
        assert [bits(one) for one in arguments] == [bits(one) for one in copies], self.name
        return first


def pairs(calls: Counter[str], modules: tuple[ModuleType, ...] = (book, wire, flow)) -> dict[str, SimpleNamespace]:
    """Return the kernel modules once more, with every kernel a ``Pair``."""
    spaces = {}
    for module in modules:
        short = module.__name__.rpartition(".")[2]
        found = {name: Pair(f"{short}.{name}", one, calls) for name, one in vars(module).items() if hasattr(one, "py_func")}
        spaces[short] = SimpleNamespace(**{**vars(module), **found})
    for space in spaces.values():
        for one in [one for one in vars(space).values() if isinstance(one, Pair)]:
            one.interpreted = FunctionType(one.kernel.py_func.__code__, {**vars(space), **spaces}, one.name)
    return spaces


def kernels() -> set[str]:
    """Return the names of all kernels that there are."""
    modules = {"book": book, "wire": wire, "flow": flow}
    return {f"{short}.{name}" for short, module in modules.items() for name, one in vars(module).items() if hasattr(one, "py_func")}


@compiled
def test_every_kernel_gives_the_same_bits_compiled_and_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    books.warm()
    calls: Counter[str] = Counter()
    spaces = pairs(calls)
    for name in ("flow", "wire"):
        monkeypatch.setattr(books, name, spaces[name])
    draw = random.Random(7)
    for contract in (None, 10.0):
        one = FeatureBook(Step(1, 1), Step(1, 3), contract)
        one.snapshot(levels(BIDS), levels(ASKS))
        ts_ns = START_NS
        one.start(ts_ns)
        row = np.zeros(len(FEATURES))
        for step in range(250):
            ts_ns += draw.choice([0, 3, 40, 100, 260, 900, 6_000 if step % 50 == 0 else 1]) * MS
            if step % 3 == 0:
                price, quantity = b'"%d.%d"' % divmod(draw.randint(997, 1_004), 10), b'"%d.5"' % draw.randint(0, 9)
                one.trade(ts_ns, price, quantity, buyer_is_taker=draw.random() < 0.5)
            bids = [(draw.randint(990, 1_000), draw.choice([0, 0, 3, 777_777])) for _ in range(draw.randint(0, 5))]
            asks = [(draw.randint(1_001, 1_011), draw.choice([0, 0, 3, 777_777])) for _ in range(draw.randint(0, 5))]
            one.diff(ts_ns, levels(bids), levels(asks))
            one.features(ts_ns, row)
    assert kernels() <= set(calls), f"never called: {sorted(kernels() - set(calls))}"


def head_digest(path: Path, lines: int = LINES) -> str:
    """Return the engine's digest after the first lines of a capture."""
    engine = app.build()
    with gzip.open(path, "rb") as file:
        for i, line in enumerate(itertools.islice(file, lines)):
            stamp, _, payload = line.rstrip(b"\n").partition(b" ")
            if i == 0:
                engine.step(Configure(1, int(stamp), CoreSettings()))
                engine.step(SessionStart(2, int(stamp), "capture"))
            engine.step(Frame(engine.seq + 1, int(stamp), path.name.partition("_")[0], "BTCUSDT", payload))
    states = [engine.microstructure.health(symbol).state for symbol in engine.microstructure.symbols()]
    return f"{engine.seq} {states} {engine.hexdigest()}"


@compiled
def test_an_interpreted_engine_computes_the_same_digest_as_a_compiled_one(data: Path) -> None:
    path = data / "captures" / "binance-usdm_BTCUSDT_20240808T2354.raw.gz"
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(alphapack.__file__).parent.parent)])
    script = f"import pathlib, test_flow; print(test_flow.head_digest(pathlib.Path({str(path)!r})))"
    environ = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONHASHSEED": "1", "PYTHONPATH": places, "TZ": "Asia/Kathmandu"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == head_digest(path)
    assert "LIVE" in done.stdout
