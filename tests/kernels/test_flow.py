"""The rolling windows against naive sums over everything that ever happened, and compiled against interpreted, bit for bit."""

import gzip
import importlib
import itertools
import math
import os
import random
import subprocess
import sys
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alphapack
from alphapack import app
from alphapack.domain.inputs import Configure, CoreSettings, Frame, SessionStart
from alphapack.domain.market import Step
from alphapack.kernels import flow, wire
from alphapack.kernels import marks as m
from alphapack.models import book as books
from alphapack.models.book import FEATURES, CrossedBook, FeatureBook
from interpreted import NAMES, bits, kernels, modules

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
    return dict(zip(FEATURES, one.features(ts_ns).tolist(), strict=True))


class Naive:
    """A dict of levels a side and a list of all that ever happened; every feature is a sum over the whole list."""

    def __init__(self, bids: list[tuple[int, int]], asks: list[tuple[int, int]], ts_ns: int) -> None:
        self.sides = {1: {p: q for p, q in bids if q}, -1: {p: q for p, q in asks if q}}
        self.live_ns = ts_ns
        self.trades: list[tuple[int, int, int]] = []
        self.pending: list[list[int]] = []
        self.removals: list[tuple[int, int, int]] = []
        self.changes: list[int] = []
        self.flows: list[tuple[int, list[int]]] = []
        self.tops: list[tuple[int, int] | None] = [self.top_state()]
        self.mids: list[tuple[int, float]] = []
        self.note_mid(ts_ns)

    def best(self, sign: int) -> list[int]:
        return sorted(self.sides[sign], reverse=sign > 0)

    def note_mid(self, ts_ns: int) -> None:
        if self.sides[1] and self.sides[-1]:
            self.mids.append((ts_ns, math.log((self.best(1)[0] + self.best(-1)[0]) / 20)))

    def top(self, sign: int) -> list[tuple[float, int]]:
        """Return five levels as (price, lots), best first; one that is absent has the worst price and no size."""
        held = [(float(price), self.sides[sign][price]) for price in self.best(sign)[:5]]
        return held + [(-sign * math.inf, 0)] * (5 - len(held))

    def top_state(self) -> tuple[int, int] | None:
        """Return the state of the best quotes and twice the mid, None for a one-sided book."""
        if not self.sides[1] or not self.sides[-1]:
            return None
        bid, ask = self.best(1)[0], self.best(-1)[0]
        b, a = self.sides[1][bid], self.sides[-1][ask]
        return 4 * min(9, math.floor(10 * b / (b + a))) + min(4, ask - bid) - 1, bid + ask

    def note_flow(self, ts_ns: int, before: dict[int, list[tuple[float, int]]]) -> None:
        """Note e_n of each level (Cont, Kukanov, Stoikov): what came to it and what left it."""
        flows = []
        for level in range(5):
            e = 0
            for sign in (1, -1):
                (old_price, old), (new_price, new) = before[sign][level], self.top(sign)[level]
                if new_price * sign > old_price * sign:
                    e += sign * new
                elif new_price * sign < old_price * sign:
                    e -= sign * old
                else:
                    e += sign * (new - old)
            flows.append(e)
        self.flows.append((ts_ns, flows))

    def counted(self) -> tuple[Counter[tuple[int, int]], Counter[tuple[int, int]], Counter[int]]:
        """Return transitions that left the mid, those that moved it, and the moves out of each state in half ticks."""
        stay, move, jumps = Counter[tuple[int, int]](), Counter[tuple[int, int]](), Counter[int]()
        for old, new in itertools.pairwise(self.tops):
            if old is not None and new is not None:
                (stay if old[1] == new[1] else move)[old[0], new[0]] += 1
                jumps[old[0]] += new[1] - old[1]
        return stay, move, jumps

    def diff(self, ts_ns: int, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> bool:
        """Apply a difference; False where the book is crossed after it."""
        before = {sign: self.top(sign) for sign in (1, -1)}
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
        self.note_flow(ts_ns, before)
        if (self.top(1)[0], self.top(-1)[0]) != (before[1][0], before[-1][0]):
            self.tops.append(self.top_state())
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
        self.warm(found["trade_rate"], sum(one[0] > ts_ns - 5 * SECOND for one in self.trades) / 5, ts_ns, 5)
        flows = [sum(one[1][level] for one in self.flows if one[0] > ts_ns - SECOND) for level in range(5)]
        size = sum(lots for sign in (1, -1) for _, lots in self.top(sign))
        self.warm(found["ofi_1"], flows[0] / 1_000, ts_ns, 1)
        if size:
            self.warm(found["ofi"], (sum(flows) / 5) / (size / 2), ts_ns, 1, 1e-15 * abs(sum(flows)))
        else:
            assert math.isnan(found["ofi"])
        for name, sign in (("depth_bid", 1), ("depth_ask", -1)):
            assert found[name] == pytest.approx(sum(lots for _, lots in self.top(sign)) / 1_000, rel=1e-14)
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
    stay, move, jumps = naive.counted()
    for found, wanted in zip(one.counts(), (stay, move, jumps), strict=True):
        places = {tuple(place) if len(place) > 1 else place[0]: found[tuple(place)] for place in np.argwhere(found).tolist()}
        assert places == {place: count for place, count in wanted.items() if count}
    assert one.moves == move.total()


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


# Order flow and states of the top, by hand


def ofi(before: tuple[Any, Any], after: tuple[Any, Any]) -> tuple[float, float]:
    """Return ofi_1 in lots and ofi right after one message, 2 s after the book became LIVE."""
    one = opened(*before, START_NS - 2 * SECOND)
    one.diff(START_NS, levels(after[0]), levels(after[1]))
    found = features(one, START_NS)
    return found["ofi_1"] * 1_000, found["ofi"]


def test_order_flow_by_hand() -> None:
    plain = ([(1_000, 5), (999, 7)], [(1_001, 4), (1_002, 6)])
    assert ofi(plain, ([], [])) == (0.0, 0.0)
    assert ofi(plain, ([(1_000, 8)], [])) == (3.0, 2 * 3 / (5 * 25)), "more at the best bid"
    assert ofi(plain, ([], [(1_001, 9)])) == (-5.0, 2 * -5 / (5 * 27)), "more at the best ask"
    # A new best bid of 2: level 1 +2, level 2 (999 -> 1000) +5, level 3 (none -> 999) +7.
    wide = ([(1_000, 5), (999, 7)], [(1_005, 4)])
    assert ofi(wide, ([(1_001, 2)], [])) == (2.0, 2 * (2 + 5 + 7) / (5 * 18))
    # The best ask of 4 is gone: level 1 rose, -(-4); level 2 (1002 -> none) -(-6): both push up.
    assert ofi(plain, ([], [(1_001, 0)])) == (4.0, 2 * (4 + 6) / (5 * 18))
    # The best bid of 5 is gone: level 1 fell -5, level 2 -7.
    assert ofi(plain, ([(1_000, 0)], [])) == (-5.0, 2 * (-5 - 7) / (5 * 17))
    # A sixth level says nothing.
    deep = ([(1_000 - i, 5) for i in range(6)], [(1_001, 4)])
    assert ofi(deep, ([(995, 9)], [])) == (0.0, 0.0)


def test_order_flow_is_of_the_last_second_and_not_before_one() -> None:
    one = opened([(1_000, 5)], [(1_001, 4)])
    one.diff(START_NS + 1, levels([(1_000, 8)]), b"[]")
    assert math.isnan(features(one, START_NS + SECOND - 1)["ofi_1"])
    assert features(one, START_NS + SECOND)["ofi_1"] == 0.003
    assert features(one, START_NS + SECOND + 1)["ofi_1"] == 0.0
    one.diff(START_NS + 2 * SECOND, levels([(1_000, 0)]), levels([(1_001, 0)]))
    found = features(one, START_NS + 2 * SECOND)
    assert found["ofi_1"] == -0.008 + 0.004 and math.isnan(found["ofi"]), "both sides are empty"
    assert features(one, START_NS + 3 * SECOND)["ofi_1"] == 0.0


def test_order_flow_of_inverse_contracts_is_in_coins() -> None:
    one = FeatureBook(Step(1, 1), Step(1, 0), 100.0)
    one.snapshot(b'[["500.0","10"]]', b'[["501.0","10"]]')
    one.start(START_NS - 2 * SECOND)
    one.diff(START_NS, b'[["500.0","15"]]', b"[]")
    found = features(one, START_NS)
    assert found["ofi_1"] == pytest.approx(5 * 100 / 500, rel=1e-9)
    coins = 15 * 100 / 500 + 10 * 100 / 501
    assert found["ofi"] == pytest.approx(2 * 1.0 / (5 * coins), rel=1e-9)
    one.diff(START_NS, b'[["499.0","1"],["500.0","0"]]', b"[]")
    assert features(one, START_NS)["ofi_1"] == pytest.approx(1.0 - 15 * 100 / 500, rel=1e-9), "what fell is worth its old price"


def test_states_of_the_top_by_hand() -> None:
    def state(bid: int, bid_lots: int, ask: int, ask_lots: int) -> int:
        return int(flow.top_state(opened([(bid, bid_lots)], [(ask, ask_lots)]).levels))

    assert [state(100, b, 101, a) for b, a in ((1, 99), (1, 9), (10, 90), (5, 5), (9, 1), (99, 1), (199, 801))] == [
        4 * bucket for bucket in (0, 1, 1, 5, 9, 9, 1)
    ]
    assert [state(100, 1, 100 + spread, 1) - 20 for spread in (1, 2, 3, 4, 5, 1_000)] == [0, 1, 2, 3, 3, 3]
    assert flow.top_state(opened([], [(101, 1)]).levels) == -1


def test_transitions_are_counted_by_hand() -> None:
    one = opened([(1_000, 5)], [(1_001, 5)])
    one.diff(START_NS, levels([(1_000, 5)]), b"[]")  # Nothing changed.
    one.diff(START_NS, levels([(1_000, 45)]), b"[]")  # 20 -> 36, the mid stays.
    one.diff(START_NS, levels([(990, 4)]), levels([(1_009, 4)]))  # Not the best quotes.
    one.diff(START_NS, levels([(1_000, 5)]), levels([(1_002, 5), (1_001, 0)]))  # 36 -> 21, half a tick up.
    one.diff(START_NS, levels([(1_000, 0), (990, 0)]), b"[]")  # One side is empty: known of neither way.
    one.diff(START_NS, levels([(1_001, 5)]), b"[]")
    one.diff(START_NS, levels([(1_001, 6)]), b"[]")  # 20 -> 20.
    stay, move, jump = one.counts()
    assert {(x, y): int(stay[x, y]) for x, y in np.argwhere(stay).tolist()} == {(20, 36): 1, (20, 20): 1}
    assert {(x, y): int(move[x, y]) for x, y in np.argwhere(move).tolist()} == {(36, 21): 1}
    assert {x: int(jump[x]) for (x,) in np.argwhere(jump).tolist()} == {36: 1}
    assert one.moves == 1


# Trades that wait


class Waiting:
    """Trades that wait, as a list."""

    def __init__(self) -> None:
        self.trades: list[tuple[int, int, int]] = []

    def explain(self, ts_ns: int, key: int, removed: int) -> int:
        traded = sum(lots for at, one, lots in self.trades if one == key and at > ts_ns - 250 * MS)
        self.trades = [one for one in self.trades if one[1] != key]
        return min(traded, removed)


def colliding(count: int, mask: int) -> list[int]:
    """Return keys whose place in the table of what waits is one and the same."""
    found = [key for key in range(1, 400_000) if (key ^ (key >> 11)) & mask == 77]
    return found[:count] + [-key - 1 for key in found[:3]]


@pytest.mark.parametrize(
    ("keys", "trades", "wait_ns"),
    [
        (range(1, 4), 2_000, 20 * MS),  # Few keys, each used up again and again.
        (range(-3_000, 3_000), 6_000, MS // 4),  # More keys than fit: the table is made anew on the way, and grows.
        (range(1, 100_000), 9_000, MS),  # Ever new keys, most of which expire.
        (colliding(25, 4_095), 3_000, MS // 2),  # All at one place.
    ],
)
def test_what_waits_is_a_list_of_trades(keys: Any, trades: int, wait_ns: int) -> None:
    one, naive, ts_ns, draw = opened(BIDS, ASKS), Waiting(), START_NS, random.Random(len(keys))
    keys = [key for key in keys if key != 0]
    recent = [keys[0]]
    for i in range(trades):
        ts_ns += draw.choice([0, wait_ns, wait_ns, 2 * wait_ns])
        flow.roll(ts_ns, one.marks, one.reals)
        key, lots = draw.choice(keys), draw.randint(1, 9)
        while flow.trade(ts_ns, key, lots, one.marks, one.reals) == flow.RING_FULL:
            one._make_room()
        naive.trades.append((ts_ns, key, lots))
        recent = [*recent[-60:], key]
        if i % 3 == 0:
            asked, removed = draw.choice([draw.choice(recent), recent[-1], draw.choice(keys)]), draw.randint(0, 30)
            assert flow.explain(asked, removed, one.marks) == naive.explain(ts_ns, asked, removed)
        if i % 500 == 0:
            flow.tidy_waiting(one.marks)
            naive.trades = [trade for trade in naive.trades if trade[0] > ts_ns - 250 * MS]
    assert 2 * one.marks[m.UNUSED_N] <= one.marks[m.UNUSED + 1] + 1, "the table is never more than half full"
    flow.roll(ts_ns + SECOND, one.marks, one.reals)
    for key in [*recent, *keys[:50]]:
        assert flow.explain(key, 99, one.marks) == 0


# Compiled and interpreted


class Pairs:
    """A kernel module of which each function runs compiled and interpreted on equal arguments; says where they differ."""

    def __init__(self, name: str, plain: Any) -> None:
        self._name, self._plain, self._own = name, plain, importlib.import_module(f"alphapack.kernels.{name}")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._own, name)
        if not hasattr(found, "py_func"):
            return found

        def both(*arguments: Any) -> Any:
            arrays = {id(one): one.copy() for one in arguments if isinstance(one, np.ndarray)}  # One that is given twice stays one.
            copies = [arrays.get(id(one), one) for one in arguments]
            second = getattr(self._plain, name)(*copies)
            first = found(*arguments)
            assert bits(first) == bits(second), f"{self._name}.{name}"
            for one, other in zip(arguments, copies, strict=True):
                assert bits(one) == bits(other), f"{self._name}.{name}"
            return first

        return both


def frame_of(update: int, bids: bytes, asks: bytes) -> bytes:
    return b'{"e":"depthUpdate","E":1723161256299,"s":"BTCUSDT","U":%d,"u":%d,"b":%b,"a":%b}' % (update, update, bids, asks)


@compiled
def test_every_kernel_gives_the_same_bits_compiled_and_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    books.warm()
    calls: Counter[str] = Counter()
    plain = modules(calls)
    for name in ("book", "wire", "tape", "flow", "frames"):
        monkeypatch.setattr(books, name, Pairs(name, plain[name]))
    monkeypatch.setattr(books, "_take_frame", books.frames.frame)
    monkeypatch.setattr(books, "LEVELS_FIRST", 64)
    draw = random.Random(7)
    for contract in (None, 10.0):
        one = FeatureBook(Step(1, 1), Step(1, 3), contract, 0.02)
        one.listen("BTCUSDT", wire.BINANCE_SPOT)
        one.snapshot(levels(BIDS), levels(ASKS))
        ts_ns = START_NS // (100 * MS) * 100 * MS
        one.start(ts_ns)
        one.live = True
        one.take_fit(np.linspace(-0.4, 0.4, m.STATES))
        for step in range(120):
            ts_ns += draw.choice([0, 3, 40, 100, 260, 900, 6_000 if step % 50 == 0 else 1]) * MS
            bids = [(draw.randint(990, 1_000), draw.choice([0, 0, 3, 777_777])) for _ in range(draw.randint(0, 5))]
            asks = [(draw.randint(1_001, 1_011), draw.choice([0, 0, 3, 777_777])) for _ in range(draw.randint(0, 5))]
            raw = frame_of(step + 1, levels(bids), levels(asks))
            if step % 3 == 0:
                price, quantity = b'"%d.%d"' % divmod(draw.randint(997, 1_004), 10), b'"%d.5"' % draw.randint(0, 9)
                one.trade(ts_ns, price, quantity, buyer_is_taker=draw.random() < 0.5, venue_ns=ts_ns + draw.randint(-3_000, 40) * MS)
                taker = (ts_ns // MS, step, *divmod(draw.randint(997, 1_004), 10), draw.randint(1, 9))
                one.frame(ts_ns, b'{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,"p":"%d.%d","q":"0.0%d0","m":true,"M":true}' % taker)
                ticker = b'{"u":%d,"s":"BTCUSDT","b":"99.5","B":"1.0","a":"102.0","A":"1.0"}' % (step + 400)
                one.frame(ts_ns, b'{"stream":"btcusdt@bookTicker","data":%b}' % ticker)
            elif step % 3 == 1:
                one.diff(ts_ns, levels(bids), levels(asks))
                one.last_update = step + 1
                one.compare()
            elif step % 2:
                one.frames(np.array([ts_ns]), raw, np.array([len(raw)]), np.zeros((1, len(FEATURES))))
            else:
                one.frame(ts_ns, raw)
            if step % 10 == 0:
                one.order(ts_ns, 990, step, 0)
                one.hold_ticker(step + 9, b'"99.5"', b'"1"', b'"102"', b'"2"')
            one.features(ts_ns)
            one.minutes(ts_ns)
        assert one.minutes(ts_ns + 120_000 * MS) is not None
        one.order(ts_ns, 10**7, 0, 0)
        one.diff(ts_ns, b"[]", levels([(10**8 + i, 5) for i in range(70)] + [(price, 0) for price in range(1_001, 1_012)]))
        one.trade(ts_ns, b'"100.0"', b'"1"', buyer_is_taker=True)
        one.trade(ts_ns, b'"100.03"', b'"1"', buyer_is_taker=True)
        other = FeatureBook(None, None, contract)
        other.load(one.save())
        assert other.features(ts_ns).tobytes() == one.features(ts_ns).tobytes()
        other.snapshot(levels([(1_000, 1)]), levels([(10**9, 1)]))
        other.diff(ts_ns, levels([(10**8, 1)]), b"[]")
    every = {f"{name}.{one}" for name in NAMES for one in kernels(importlib.import_module(f"alphapack.kernels.{name}"))}
    assert every <= set(calls), f"never called: {sorted(every - set(calls))}"


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
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent), str(Path(alphapack.__file__).parent.parent)])
    script = f"import pathlib, test_flow; print(test_flow.head_digest(pathlib.Path({str(path)!r})))"
    environ = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONHASHSEED": "1", "PYTHONPATH": places, "TZ": "Asia/Kathmandu"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == head_digest(path)
    assert "LIVE" in done.stdout
