"""VPIN, Kyle's lambda, candles: buckets poured lot by lot, a slope as any textbook has it, minutes that nobody looked at."""

import math
import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.market import Step
from alphapack.kernels import flow, tape
from alphapack.kernels import marks as m
from alphapack.models.book import FEATURES, FeatureBook

S = m.NS_PER_S
START_NS = 1_723_161_255 * S + 30_314_667
DAY_NS = 144 * m.SLOT_NS


def opened(bucket: float | None = 0.05, ts_ns: int = START_NS) -> FeatureBook:
    """Return a LIVE book of ticks of 0.1 and lots of 0.001, 1000.0 to 1000.1; a bucket is 50 lots."""
    one = FeatureBook(Step(1, 1), Step(1, 3), None, bucket)
    one.snapshot(b'[["1000.0","2"]]', b'[["1000.1","1"]]')
    one.start(ts_ns)
    return one


def features(one: FeatureBook, ts_ns: int) -> dict[str, float]:
    return dict(zip(FEATURES, one.features(ts_ns).tolist(), strict=True))


def open_bucket(one: FeatureBook) -> list[float]:
    """Return the lots that buyers and sellers took of the bucket that is open."""
    return [lots / 50 for lots in one.reals[m.BUCKET_BOUGHT : m.BUCKET_SOLD + 1].tolist()]


def full_buckets(one: FeatureBook) -> list[list[float]]:
    """Return gap and size of the full buckets in lots, oldest first."""
    places = np.arange(one.marks[m.BUCKETS_TAIL], one.marks[m.BUCKETS_HEAD]) % m.BUCKETS_RING
    return [[one.reals[at + place] / 50 for at in (m.BUCKET_GAPS, m.BUCKET_SIZES)] for place in places.tolist()]


def trade(one: FeatureBook, ts_ns: int, lots: int, buyer: bool) -> None:
    one.trade(ts_ns, b'"1000.0"', b'"%d.%03d"' % divmod(lots, 1_000), buyer_is_taker=buyer)


# Buckets


class Buckets:
    """Full buckets, poured one lot after the other."""

    def __init__(self, size: int) -> None:
        self.size, self.gaps = size, list[int]()
        self.bought = self.sold = 0

    def pour(self, lots: int, buyer: bool) -> None:
        for _ in range(lots):
            self.bought += buyer
            self.sold += not buyer
            if self.bought + self.sold == self.size:
                self.gaps.append(abs(self.bought - self.sold))
                self.bought = self.sold = 0

    def check(self, found: dict[str, float]) -> None:
        kept = self.gaps[-50:]
        assert found["vpin_n"] == len(kept)
        assert math.isnan(found["vpin"]) if len(kept) < 50 else found["vpin"] == sum(kept) / (50 * self.size)


@settings(max_examples=40)
@given(st.sampled_from([1, 2, 7, 50]), st.lists(st.tuples(st.integers(1, 160), st.booleans()), max_size=80))
def test_buckets_are_those_poured_lot_by_lot(size: int, trades: list[tuple[int, bool]]) -> None:
    one, naive = opened(size / 1_000), Buckets(size)
    for i, (lots, buyer) in enumerate(trades):
        trade(one, START_NS + i, lots, buyer)
        naive.pour(lots, buyer)
        naive.check(features(one, START_NS + i))
        assert open_bucket(one) == [naive.bought, naive.sold]
        assert full_buckets(one) == [[gap, size] for gap in naive.gaps[-50:]]


def test_a_trade_is_split_at_the_edge_of_a_bucket() -> None:
    one = opened()
    trade(one, START_NS, 30, True)
    trade(one, START_NS, 45, False)
    assert full_buckets(one) == [[30 - 20, 50]]
    assert open_bucket(one) == [0, 25]
    trade(one, START_NS, 25, True)
    assert full_buckets(one) == [[10, 50], [0, 50]]
    assert features(one, START_NS)["vpin_n"] == 2


@pytest.mark.parametrize("lots", [1, 49, 50, 51, 2_499, 2_500, 2_501, 2_549, 2_550, 2_551, 5_075, 1_000_003])
@pytest.mark.parametrize("before", [0, 1, 49])
def test_a_trade_over_many_buckets_is_the_same_volume_in_many_trades(lots: int, before: int) -> None:
    whole, single = opened(), opened()
    for one in (whole, single):
        for i in range(60):
            trade(one, START_NS, 41, i % 3 == 0)
        if before:
            trade(one, START_NS, before, False)
    trade(whole, START_NS, lots, True)
    for part in [999] * (lots // 999) + ([lots % 999] if lots % 999 else []):
        tape.take_bucket(START_NS, float(part), 1, single.marks, single.reals)
    assert open_bucket(whole) == open_bucket(single)
    assert full_buckets(whole) == full_buckets(single)
    kept = [[one[name] for name in ("vpin", "vpin_n")] for one in (features(whole, START_NS), features(single, START_NS))]
    assert np.array_equal(kept[0], kept[1], equal_nan=True)


def test_a_volume_of_any_size_fills_buckets_of_any_size_in_no_time() -> None:
    one = opened(0.001)
    tape.take_bucket(START_NS, float(m.VOLUME_MAX - 1), 1, one.marks, one.reals)
    tape.take_bucket(START_NS, float(m.VOLUME_MAX - 1), 0, one.marks, one.reals)
    found = features(one, START_NS)
    assert (found["vpin"], found["vpin_n"]) == (1.0, 50)
    assert full_buckets(one) == [[1, 1]] * 50
    one = opened(1e9)
    for _ in range(3_000):
        tape.take_bucket(START_NS, float(m.VOLUME_MAX - 1), 1, one.marks, one.reals)
    assert features(one, START_NS)["vpin"] == 1.0


def test_buckets_outlive_a_resync() -> None:
    one = opened()
    for i in range(70):
        trade(one, START_NS, 37, i % 4 > 0)
    before = features(one, START_NS)
    assert before["vpin_n"] == 50 and 0 < before["vpin"] < 1
    one.clear()
    one.snapshot(b'[["1000.0","2"]]', b'[["1000.1","1"]]')
    one.start(START_NS + 5 * S)
    after = features(one, START_NS + 5 * S)
    assert (after["vpin"], after["vpin_n"]) == (before["vpin"], 50)


# Volume of a day


class Day:
    """Trades of a day in slots of ten minutes, as a list."""

    def __init__(self) -> None:
        self.trades: list[tuple[int, int]] = []

    def size(self, ts_ns: int) -> int:
        """Return a fiftieth of the day, in fiftieths of a lot."""
        if ts_ns - self.trades[0][0] < DAY_NS:
            return 0
        slot = ts_ns // m.SLOT_NS
        return sum(lots for at, lots in self.trades if slot - 144 < at // m.SLOT_NS <= slot)


WAITS_S = st.sampled_from([0, 1, 599, 600, 601, 3_600, 7_200, 43_200, 85_800, 86_399, 86_400, 86_401, 87_000, 200_000])


@settings(max_examples=100)
@given(st.lists(st.tuples(WAITS_S, st.integers(1, 10**6)), min_size=1, max_size=40))
def test_the_volume_of_a_day_is_the_sum_of_its_slots(trades: list[tuple[int, int]]) -> None:
    one, day, ts_ns = opened(None), Day(), START_NS
    for wait_s, lots in trades:
        ts_ns += wait_s * S
        tape.take_slot(ts_ns, float(lots), one.marks, one.reals)
        day.trades.append((ts_ns, lots))
        assert tape.bucket_size(ts_ns, one.marks, one.reals) == day.size(ts_ns)


def test_a_bucket_opens_once_a_day_is_known_and_keeps_its_size_until_it_is_full() -> None:
    one = opened(None)
    for hour in range(24):
        trade(one, START_NS + hour * 3_600 * S, 1_000, True)
    assert one.reals[m.BUCKET] == 0 and features(one, START_NS + DAY_NS - 1)["vpin_n"] == 0
    trade(one, START_NS + DAY_NS - 1, 100, True)
    assert one.reals[m.BUCKET] == 0
    trade(one, START_NS + DAY_NS, 410, False)  # The first hour's slot has left: 23 x 1000, 100 and 410 are the day.
    assert one.reals[m.BUCKET] / 50 == 23_510 / 50 == 470.2
    assert open_bucket(one) == [0, 410], "the trade that opens it is poured into it"
    trade(one, START_NS + DAY_NS + 3_600 * S, 100, True)  # A second thousand has left.
    (bucket,) = full_buckets(one)
    assert bucket == pytest.approx([410 - 60.2, 470.2])
    assert one.reals[m.BUCKET] / 50 == (22_000 + 610) / 50
    assert open_bucket(one) == pytest.approx([39.8, 0])


def test_buckets_of_different_sizes_weigh_what_they_hold() -> None:
    one = opened(None)
    one.reals[m.BUCKET_FIXED] = 50 * 10
    for i in range(30):
        tape.take_bucket(START_NS, float(10), i % 2, one.marks, one.reals)
    one.reals[m.BUCKET_FIXED] = 50 * 30
    tape.take_bucket(START_NS, float(10), 1, one.marks, one.reals)  # The bucket that is open keeps its size.
    for _ in range(25):
        tape.take_bucket(START_NS, float(20), 1, one.marks, one.reals)
        tape.take_bucket(START_NS, float(10), 0, one.marks, one.reals)
    # 50 are kept: 25 of 30 with a gap of 10, and before them 25 of 10 with a gap of 10.
    assert features(one, START_NS)["vpin"] == (25 * 10 + 25 * 10) / (25 * 30 + 25 * 10)


# Kyle's lambda

Event = tuple[int, str, int, bool]


def market(seed: int, seconds: int) -> list[Event]:
    """Return mids that move with the flow and trades, at times within the seconds and on their very edges."""
    chance = random.Random(seed)
    found: list[Event] = []
    for second in range(seconds):
        at = (START_NS // S + 1 + second) * S
        for _ in range(chance.randrange(4)):
            offset = chance.choice([0, 1, 250_000_000, 999_999_999, chance.randrange(S)])
            found.append((at + offset, chance.choice(["trade", "trade", "mid"]), chance.randrange(1, 9_000), chance.random() < 0.5))
    return sorted(found)


def play(one: FeatureBook, events: list[Event]) -> None:
    for ts_ns, what, lots, up in events:
        if what == "trade":
            trade(one, ts_ns, lots, up)
        else:
            bid = one.best()[0]
            assert bid is not None
            new = max(10, bid + (1 if up else -1) * (1 + lots % 4))
            book_of(one, ts_ns, bid, new)


def book_of(one: FeatureBook, ts_ns: int, old: int, new: int) -> None:
    """Move best bid and ask, a tick apart, from one price to another."""

    def level(ticks: int, lots: int) -> bytes:
        return b'["%d.%d","%d"]' % (*divmod(ticks, 10), lots)

    bids, asks = b"[%b,%b]" % (level(old, 0), level(new, 2)), b"[%b,%b]" % (level(old + 1, 0), level(new + 1, 1))
    one.diff(ts_ns, bids, asks)


def observations(events: list[Event], until_ns: int) -> tuple[list[float], list[float], list[bool]]:
    """Return moves in bps, signed flows in millions and whether there were trades, of each whole second since LIVE."""
    first = START_NS // S + 1
    mids: list[tuple[int, float]] = [(START_NS, math.log(1_000.05))]
    bid = 10_000
    for ts_ns, what, lots, up in events:
        if what == "mid":
            bid = max(10, bid + (1 if up else -1) * (1 + lots % 4))
            mids.append((ts_ns, math.log((2 * bid + 1) / 20)))

    def mid_at(ts_ns: int) -> float:
        return [mid for at, mid in mids if at <= ts_ns][-1]

    moves, flows, traded = [], [], []
    for second in range(first + 1, (until_ns - 1) // S + 1):
        within = [event for event in events if event[1] == "trade" and (second - 1) * S < event[0] <= second * S]
        moves.append(1e4 * (mid_at(second * S) - mid_at((second - 1) * S)))
        flows.append(sum((1 if up else -1) * lots * 1_000.0 / 1_000 for _, _, lots, up in within) / 1e6)
        traded.append(bool(within))
    return moves[-300:], flows[-300:], traded[-300:]


@pytest.mark.parametrize(("seed", "seconds"), [(1, 301), (2, 302), (3, 305), (4, 450), (5, 700)])
@pytest.mark.parametrize("offset_ns", [0, 1, -1, 400_000_000])
def test_kyles_lambda_is_the_slope_of_least_squares(seed: int, seconds: int, offset_ns: int) -> None:
    one, events = opened(), market(seed, seconds)
    play(one, events)
    until_ns = max(events[-1][0], (START_NS // S + 1 + seconds) * S + offset_ns)
    moves, flows, traded = observations(events, until_ns)
    found = features(one, until_ns)
    assert found["kyle_n"] == sum(traded) >= 30
    wanted = np.polyfit(flows, moves, 1)[0]
    assert found["kyle_lambda"] == pytest.approx(wanted, rel=1e-9, abs=1e-9 * float(np.std(moves)) / float(np.std(flows)))


def test_kyles_lambda_by_hand() -> None:
    """Every million that buyers take moves the mid by a known number of bps, over 300 seconds."""
    one = opened()
    first = START_NS // S + 1
    bid = 10_000
    moves, flows = [], []
    for i in range(310):
        at = (first + i) * S + S // 2
        lots = (i * 37) % 11 * 10
        if lots:
            trade(one, at, lots, i % 3 > 0)
        new = bid + (1 if i % 3 > 0 else -1) * (lots // 10)
        if new != bid:
            book_of(one, at + 1, bid, new)
        moves.append(1e4 * math.log((2 * new + 1) / (2 * bid + 1)))
        flows.append((1 if i % 3 > 0 else -1) * lots / 1e6)
        bid = new
        if i == 20:
            assert math.isnan(features(one, at + 2)["kyle_lambda"])
    now = (first + 310) * S + 1
    found, x, y = features(one, now), np.array(flows[-300:]), np.array(moves[-300:])
    assert found["kyle_n"] == np.count_nonzero(x)
    assert found["kyle_lambda"] == pytest.approx(float(np.cov(x, y)[0, 1] / np.var(x, ddof=1)), rel=1e-9)


def test_kyles_lambda_is_null_before_300_s_under_30_seconds_with_trades_and_without_variance() -> None:
    def rows(seconds: int, every: int, *, lots: int = 10, until_s: int = 302) -> dict[str, float]:
        one, bid = opened(), 10_000
        for i in range(seconds):
            at = (START_NS // S + 1 + i) * S + S // 2
            if i % every == 0:
                trade(one, at, lots + (0 if lots == 7 else i % 5), True)
            book_of(one, at, bid, bid := 10_000 + i % 7)
        return features(one, START_NS + until_s * S)

    assert math.isfinite(rows(299, 1, until_s=300)["kyle_lambda"])
    assert math.isnan(rows(298, 1, until_s=299)["kyle_lambda"])
    few = rows(302, 11)
    assert few["kyle_n"] < 30 and math.isnan(few["kyle_lambda"])
    same = rows(302, 1, lots=7)
    assert same["kyle_n"] >= 299 and math.isnan(same["kyle_lambda"]), "each second has the same flow"


def test_a_read_in_between_changes_nothing() -> None:
    events = market(9, 400)
    one, other = opened(), opened()
    play(one, events)
    for i, event in enumerate(events):
        play(other, [event])
        if i % 3 == 0:
            other.features(event[0])
            other.roll(event[0])
    end = events[-1][0] + S
    assert one.features(end).tobytes() == other.features(end).tobytes()
    assert one.save() == other.save()


@pytest.mark.parametrize("silence_s", [0, 1, 5, 299, 300, 301, 302, 599, 600, 601, 36_000, 10**6])
def test_a_long_silence_is_as_many_seconds_without_trades(silence_s: int) -> None:
    events = market(11, 350)
    at_once, step_by_step = opened(), opened()
    play(at_once, events)
    play(step_by_step, events)
    end = events[-1][0] + silence_s * S + 5
    for ts_ns in range(events[-1][0], end, max(S // 10, (end - events[-1][0]) // 900)):
        step_by_step.roll(ts_ns)
    for one in (at_once, step_by_step):
        one.roll(end)
    assert at_once.features(end).tobytes() == step_by_step.features(end).tobytes()
    # Afterwards both go on alike, from the same last second.
    later = [(end + S + at - events[0][0], what, lots, up) for at, what, lots, up in market(12, 20)]
    for one in (at_once, step_by_step):
        play(one, later)
    assert at_once.features(later[-1][0] + S).tobytes() == step_by_step.features(later[-1][0] + S).tobytes()


def test_flows_that_are_all_alike_are_no_variance_though_sums_round() -> None:
    one = opened()
    one.marks[m.SECONDS], one.marks[m.SECOND_AT] = m.KYLE_S, 10**9
    for place in range(m.KYLE_RING):
        one.reals[m.KYLE_FLOWS + place], one.reals[m.KYLE_MOVES + place] = 0.1 + 1e-17 * (place % 2), (-1) ** place
        one.reals[m.KYLE_TRADES + place] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tape.fit_slope(one.marks, one.reals)
    assert math.isnan(one.reals[m.KYLE]) and one.marks[m.KYLE_N] == 300


def test_a_one_sided_book_keeps_its_last_mid_and_one_that_never_had_a_mid_observes_nothing() -> None:
    one = FeatureBook(Step(1, 1), Step(1, 3), None, 0.05)
    one.snapshot(b'[["1000.0","2"]]', b"[]")
    one.start(START_NS)
    for i in range(320):
        trade(one, START_NS + i * S, 5 + i % 3, True)
    assert features(one, START_NS + 320 * S)["kyle_n"] == 0
    one.diff(START_NS + 320 * S, b"[]", b'[["1000.1","1"]]')
    for i in range(321, 660):
        trade(one, START_NS + i * S, 5 + i % 3, True)
        one.diff(START_NS + i * S, b"[]", b'[["1000.1","%d"]]' % (i % 2))
    found = features(one, START_NS + 660 * S)
    assert (found["kyle_n"], found["kyle_lambda"]) == (300, 0.0)


def test_inverse_contracts_count_their_value() -> None:
    """100 contracts of 10 are 1000 of the quote currency whatever the price."""
    one = FeatureBook(Step(1, 1), Step(1, 0), 10.0)
    one.snapshot(b'[["1000.0","2"]]', b'[["1000.1","1"]]')
    one.start(START_NS)
    for price in (b'"1000.0"', b'"10.0"'):
        flow.roll(START_NS, one.marks, one.reals)
        before = float(one.reals[m.SECOND_QUOTE])
        one.trade(START_NS, price, b'"100"', buyer_is_taker=True)
        assert one.reals[m.SECOND_QUOTE] - before == 1_000.0


# Minutes


def minute(one: FeatureBook, number: int, ts_ns: int, lots: int = 1_000) -> None:
    """A trade of a minute counted from the whole one before the start, which comes at ``ts_ns``."""
    venue_ns = (START_NS // m.MINUTE_NS + number) * m.MINUTE_NS + 30 * S
    one.trade(ts_ns, b'"1000.0"', b'"%d.%03d"' % divmod(lots, 1_000), buyer_is_taker=True, venue_ns=venue_ns)


def at(number: int) -> int:
    return (START_NS // m.MINUTE_NS + number) * m.MINUTE_NS + 30 * S


def test_of_minutes_that_nobody_asked_for_the_newest_are_kept() -> None:
    one = opened()
    for number in range(1, 31):
        minute(one, number, at(number), number)
    rows = one.minutes(at(30))
    assert rows is not None and rows[:, 5].tolist() == [number / 1_000 for number in range(22, 30)]
    assert one.minutes(at(30)) is None


@pytest.mark.parametrize("lull", [m.MINUTES_RING, m.MINUTES_RING + 1])
def test_a_tape_that_nobody_looked_at_for_longer_is_cut(lull: int) -> None:
    one = opened()
    minute(one, 1, at(1))
    minute(one, 2, at(2))
    minute(one, 2 + lull, at(2 + lull))
    minute(one, 3 + lull, at(3 + lull))
    minute(one, 4 + lull, at(4 + lull))
    rows = one.minutes(at(4 + lull))
    assert rows is not None
    numbers = (rows[:, 0] * 1_000_000 // m.MINUTE_NS - START_NS // m.MINUTE_NS).astype(int).tolist()
    assert numbers == ([*range(4, 4 + lull)] if lull == m.MINUTES_RING else [3 + lull])


def test_minutes_outlive_a_save_and_a_finer_lot() -> None:
    one = opened()
    for number in (1, 2):
        minute(one, number, at(number), 250)
    other = FeatureBook(None, None, None)
    other.load(one.save())
    for book in (one, other):
        book.trade(at(2) + S, b'"1000.05"', b'"0.00001"', buyer_is_taker=True, venue_ns=at(2) + S)
        minute(book, 3, at(3))
    assert other.save() == one.save()
    for book in (one, other):
        rows = book.minutes(at(3))
        assert rows is not None and rows[:, 1:].tolist() == [[1000.0, 1000.05, 1000.0, 1000.05, 0.25001]]


def test_a_lot_so_fine_that_the_volume_cannot_be_counted_in_it_gives_up_the_minute_alone() -> None:
    one = opened()
    for number in (1, 2):
        minute(one, number, at(number), 10**12)
    one.marks[m.MINUTE_LOTS + (START_NS // m.MINUTE_NS) % 2] = m.SUM_MAX // 2
    one.trade(at(2) + S, b'"1000.0"', b'"0.0001"', buyer_is_taker=True, venue_ns=at(2) + S)
    for number in (3, 4):
        minute(one, number, at(number))
    rows = one.minutes(at(4))
    assert rows is not None and rows[:, 5].tolist() == [1.0]
