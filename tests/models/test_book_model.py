"""One symbol's book as a value: saved and taken up again, refined on the way, grown, and proof against what a venue may send."""

import contextlib
import itertools
import math
import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.kernels import book as kernels_book
from alphapack.kernels import flow, wire
from alphapack.kernels import marks as m
from alphapack.models import book as book_module
from alphapack.models.book import BASE_UNITS_MAX, BOOK_LEVELS_MAX, CONTRACT_UNITS_MIN, FEATURES, QUIET, TAKEN, CrossedBook, FeatureBook

MS = 1_000_000
SECOND = 1_000 * MS
START_NS = 1_723_161_255_030_314_667
STATED = (Step(1, 1), Step(1, 3))
NONE = b"[]"


def opened(tick: Step | None = STATED[0], lot: Step | None = STATED[1], contract: float | None = None) -> FeatureBook:
    book = FeatureBook(tick, lot, contract)
    book.snapshot(b'[["100.0","2"],["99.0","3"],["98","1"]]', b'[["101.0","1"],["102.0","5"]]')
    book.start(START_NS)
    return book


def row(book: FeatureBook, ts_ns: int) -> bytes:
    return book.features(ts_ns).tobytes()


def values(book: FeatureBook, ts_ns: int) -> dict[str, float]:
    return dict(zip(FEATURES, book.features(ts_ns).tolist(), strict=True))


def base_units(book: FeatureBook) -> int:
    """Return base units a coin of an inverse instrument."""
    return int(book.marks[m.BASE_UNITS])


def served(book: FeatureBook, ts_ns: int) -> tuple[object, ...]:
    """Return all that a reader can see."""
    return row(book, ts_ns), book.side("bids", 50), book.side("asks", 50)


Event = tuple[str, int, bytes, bytes, bool]


def stream(seed: int, events: int, decimals: int = 1) -> list[Event]:
    """Return random events about ``opened()`` whose numbers have up to so many decimals."""
    draw = random.Random(seed)
    found: list[Event] = []

    def number(low: int, high: int) -> str:
        return f"{draw.randint(low, high)}.{draw.randint(0, 10**decimals - 1):0{decimals}d}"

    for _ in range(events):
        wait_ns = draw.choice([0, 7, 60, 130, 251, 1_300]) * MS
        if draw.random() < 0.4:
            found.append(
                (
                    "trade",
                    wait_ns,
                    b'"%b"' % number(98, 102).encode(),
                    b'"%b"' % f"0.{draw.randint(1, 999):03d}".encode(),
                    draw.random() < 0.5,
                )
            )
            continue
        sides = []
        for low, high in ((90, 99), (101, 110)):
            pairs = [f'["{number(low, high)}","{draw.choice(["0", "0.000", "2.5", "0.007"])}"]' for _ in range(draw.randint(0, 3))]
            sides.append(f"[{','.join(pairs)}]".encode())
        found.append(("diff", wait_ns, sides[0], sides[1], False))
    return found


def play(book: FeatureBook, events: list[Event], ts_ns: int = START_NS) -> list[tuple[object, ...]]:
    """Apply events and return what was served after each."""
    seen = []
    for kind, wait_ns, first, second, buyer in events:
        ts_ns += wait_ns
        if kind == "trade":
            book.trade(ts_ns, first, second, buyer_is_taker=buyer)
        else:
            book.diff(ts_ns, first, second)
        seen.append(served(book, ts_ns))
    return seen


# Saved and loaded


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(0, 40), st.sampled_from([None, 10.0]), st.booleans())
def test_a_loaded_book_goes_on_as_the_saved_one(seed: int, cut: int, contract: float | None, stated: bool) -> None:
    events = stream(seed, 80)
    book = opened(*STATED, contract) if stated else opened(None, None, contract)
    play(book, events[:cut])
    state = book.save()
    other = FeatureBook(None, None, contract)
    other.load(state)
    assert other.save() == state
    ts_ns = START_NS + sum(event[1] for event in events[:cut])
    assert play(other, events[cut:], ts_ns) == play(book, events[cut:], ts_ns)
    assert other.save() == book.save()


def test_a_loaded_book_forgets_what_it_held_before() -> None:
    book, other = opened(), FeatureBook(None, None, None)
    other.snapshot(b"[" + b",".join(b'["%d","1"]' % price for price in range(1, 3_000)) + b"]", b'[["9000","1"]]')
    other.load(book.save())
    assert served(other, START_NS) == served(book, START_NS)
    assert other.save() == book.save()


# Steps that become finer on the way


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([None, 10.0]))
def test_refining_steps_changes_no_value_served(seed: int, decimals: int, contract: float | None) -> None:
    events = stream(seed, 60, decimals)
    knowing, learning = opened(Step(1, 3), Step(1, 3), contract), opened(None, None, contract)
    assert learning.tick == Step(1, 0)
    for first, second in zip(play(knowing, events), play(learning, events), strict=True):
        assert first == second
    assert learning.tick is not None and learning.tick.decimals == decimals


def test_a_finer_step_is_learnt_from_every_kind_of_number() -> None:
    book = opened(None, None)
    book.diff(START_NS, b'[["99.5","1"]]', NONE)
    assert (book.tick, book.lot) == (Step(5, 1), Step(1, 0))
    book.trade(START_NS, b'"100.1"', b'"0.25"', buyer_is_taker=True)
    assert (book.tick, book.lot) == (Step(1, 1), Step(25, 2))
    assert (book.ticks(b'"100.05"'), book.lots(b'"0.1"'), book.tick, book.lot) == (2_001, 2, Step(5, 2), Step(5, 2))
    assert book.side("bids", 9) == [(100.0, 2.0), (99.5, 1.0), (99.0, 3.0), (98.0, 1.0)]


def test_a_book_that_began_empty_is_counted_in_the_steps_it_learns() -> None:
    """Whole numbers read before any step is known must not be taken for multiples of a later one."""
    book = FeatureBook(None, None, None)
    book.snapshot(NONE, NONE)
    book.start(START_NS)
    book.diff(START_NS, b'[["100","3"]]', b'[["101","2"]]')
    book.diff(START_NS, b'[["100.5","1.5"]]', NONE)
    assert book.side("bids", 9) == [(100.5, 1.5), (100.0, 3.0)]
    assert book.side("asks", 9) == [(101.0, 2.0)]


def test_a_snapshot_of_zeros_alone_teaches_no_lot() -> None:
    book = FeatureBook(None, None, None)
    book.snapshot(b'[["100","0"]]', b'[["101.5","0"]]')
    book.start(START_NS)
    book.diff(START_NS, b'[["100","3"]]', NONE)
    book.diff(START_NS, b'[["99","0.5"]]', NONE)
    assert book.side("bids", 9) == [(100.0, 3.0), (99.0, 0.5)]


# Growth


@pytest.mark.parametrize("contract", [None, 10.0])
def test_microstructure_features_hold_thousands_of_trades_in_one_window(contract: float | None) -> None:
    book, volume = opened(*STATED, contract), {True: Fraction(0), False: Fraction(0)}
    for i in range(6_000):
        price, quantity, buyer = f"{98 + i % 5}.{i % 10}", f"{i % 7}.{i % 1_000:03d}", i % 3 == 0
        if float(quantity):
            book.trade(START_NS + 6 * SECOND + i, b'"%b"' % price.encode(), b'"%b"' % quantity.encode(), buyer_is_taker=buyer)
            size = Fraction(quantity) if contract is None else Fraction(quantity) * 10 / Fraction(price)
            volume[buyer] += size if contract is None else Fraction(round(size * base_units(book)), base_units(book))
    found = values(book, START_NS + 6 * SECOND + 6_000)
    assert found["ti_n"] == sum(1 for i in range(6_000) if i % 7 or i % 1_000)
    assert found["ti"] == found["ti_1s"] == float((volume[True] - volume[False]) / (volume[True] + volume[False]))
    assert values(book, START_NS + 12 * SECOND)["ti_n"] == 0
    other = FeatureBook(None, None, contract)
    other.load(book.save())
    assert served(other, START_NS + 13 * SECOND) == served(book, START_NS + 13 * SECOND)


def test_microstructure_features_hold_thousands_of_depth_messages_in_one_window() -> None:
    book = opened()
    for i in range(3_000):
        book.diff(START_NS + 6 * SECOND + i, b'[["%d.0","%d"]]' % (99 + i % 2, 9_000 - i if i % 3 else 10_000), NONE)
    found = values(book, START_NS + 6 * SECOND + 3_000)
    assert (found["cancel_n"], found["cancel_rate"], found["queue_rate"]) == (1_999, 1.0, 600.0)
    assert values(book, START_NS + 12 * SECOND)["cancel_n"] == 0


def test_a_book_of_any_number_of_levels_is_held() -> None:
    book = opened()
    for i in range(4):
        many = b",".join(b'["%d.%d","1"]' % divmod(5_000 + 3_000 * i + at, 10) for at in range(3_000))
        book.diff(START_NS, NONE, b"[" + many + b"]")
    asks = book.side("asks", 99_999)
    assert (len(asks), asks[-1]) == (12_002, (1_699.9, 1.0))
    assert asks == sorted(asks)


# Volume of inverse contracts


@settings(max_examples=150)
@given(
    st.integers(1, 10**7),
    st.integers(1, 10**6),
    st.sampled_from([10.0, 100.0, 0.1, 0.5]),
    st.sampled_from([Step(1, 2), Step(5, 1), Step(1, 0)]),
)
def test_inverse_volume_is_rounded_once_to_a_whole_base_unit(ticks: int, lots: int, contract: float, tick: Step) -> None:
    book = opened(tick, Step(1, 0), contract)
    price = Decimal(ticks * tick.units).scaleb(-tick.decimals)
    exact = Fraction(lots) * Fraction(str(contract)) / Fraction(price) * base_units(book)
    found = flow.base_volume(ticks, lots, book.marks, book.reals)
    assert found == flow.base_volume(-ticks, lots, book.marks, book.reals)
    if exact < m.VOLUME_MAX / 2:
        assert abs(found - exact) <= Fraction(1, 2) + exact / 2**49, "half a unit, and what a float64 leaves out"
    sold = flow.base_volume(book.ticks(b'"100"'), 1, book.marks, book.reals)
    book.start(START_NS - SECOND)
    try:
        book.trade(START_NS, b'"%b"' % str(price).encode(), b'"%d"' % lots, buyer_is_taker=True)
    except FrameError:
        assert exact > m.VOLUME_MAX / 2
        return
    book.trade(START_NS, b'"100.00"', b'"1"', buyer_is_taker=False)
    assert values(book, START_NS)["ti_n"] == 2
    assert values(book, START_NS)["ti_1s"] == (found - sold) / (found + sold)


@pytest.mark.parametrize("contract", [10.0, 100.0, 0.1, 12.5])
@pytest.mark.parametrize("price", ["0.00001", "0.5", "98", "61734.5", "12345678", "1000000000000000"])
def test_base_units_make_one_contract_enough_of_them_and_stay_as_they_are(contract: float, price: str) -> None:
    book = FeatureBook(None, None, contract)
    book.snapshot(f'[["{price}","2"]]'.encode(), b"[]")
    assert base_units(book) == 0, "not known before the book is LIVE"
    book.start(START_NS)
    units, one = base_units(book), Fraction(str(contract)) / Fraction(price)
    assert one * units >= CONTRACT_UNITS_MIN or units == BASE_UNITS_MAX
    assert one * units / 10 < CONTRACT_UNITS_MIN or units == 1
    assert str(units).strip("0") == "1"
    book.snapshot(b'[["0.000001","2"]]', b'[["99999999","1"]]')
    book.start(START_NS + SECOND)
    other = FeatureBook(None, None, contract)
    other.load(book.save())
    assert base_units(book) == base_units(other) == units


# Hostile numbers

NUMBERS = [
    '"1e308"', '"1e999999999"', "1e999999999", '"nan"', '"inf"', '"-1"', "-1", '"0x10"', '"1e18"', '"1e17"', '"1e-5"', '"1e-18"', '"1e-19"',
    *(f'"{"1" * digits}"' for digits in (20, 30, 40)), "1.5", "100", '" 100"', '"100 "', '"0"', '""', "null", "true", '"0.00000000001"',
    '"100.000000000000000001"', '"1.8446744073709551616"', '"4503599627370496"', '"4503599627370497"', '"9999999999999999999"',
    '"92233720368547758080"', '"99999999999999999999999999999999"',
]  # fmt: skip


def attempts(number: str) -> dict[str, Callable[[FeatureBook], object]]:
    n = number.encode()
    return {
        "bid price": lambda book: book.diff(START_NS, b'[[%b,"1"]]' % n, NONE),
        "ask price": lambda book: book.diff(START_NS, NONE, b'[["200","1"],[%b,"1"]]' % n),
        "bid quantity": lambda book: book.diff(START_NS, b'[["99.5","1"],["98",%b]]' % n, NONE),
        "ask quantity": lambda book: book.diff(START_NS, NONE, b'[["101",%b]]' % n),
        "trade price": lambda book: book.trade(START_NS, n, b'"1"', buyer_is_taker=True),
        "trade quantity": lambda book: book.trade(START_NS, b'"100"', n, buyer_is_taker=False),
        "snapshot price": lambda book: book.snapshot(b'[["98","1"],[%b,"1"]]' % n, NONE),
        "snapshot quantity": lambda book: book.snapshot(NONE, b'[["101",%b]]' % n),
        "ticker price": lambda book: book.ticks(n),
        "ticker quantity": lambda book: book.lots(n),
    }


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("contract", [None, 10.0])
@pytest.mark.parametrize("stated", [True, False])
def test_microstructure_features_survive_hostile_numbers(number: str, contract: float | None, stated: bool) -> None:
    """Taken exactly or refused, every row finite where it is known, and the book still of use afterwards."""
    for what, attempt in attempts(number).items():
        book = opened(*STATED, contract) if stated else opened(None, None, contract)
        book.take_fit(np.linspace(-0.4, 0.4, m.STATES))
        before, tick = served(book, START_NS), book.tick
        try:
            attempt(book)
        except FrameError as error:
            assert len(str(error)) < 300
            if not what.startswith("snapshot"):
                assert served(book, START_NS) == before, f"{what}: a FrameError changes nothing"
        except CrossedBook:
            pass
        else:
            exact = {Fraction(n.strip('" ')) for n in (number, "100", "99", "98", "101", "102", "200", "99.5", "1", "2", "3", "5")}
            for price, quantity in book.side("bids", 9) + book.side("asks", 9):
                assert price in map(float, exact) and quantity in map(float, exact), what
            found = values(book, START_NS + 40 * SECOND)
            one_sided = {"mid", "microprice", "spread_bps", "obi", "obi_1", "obi_10", "bid", "ask", "microprice_stoikov"}
            unknown = {"vpin", "kyle_lambda"} | (set() if book.side("bids", 1) and book.side("asks", 1) else one_sided)
            if not book.side("bids", 1) and not book.side("asks", 1):
                unknown.add("ofi")
            if book.tick != tick:  # A finer tick asks for a new fit.
                unknown.add("microprice_stoikov")
            for name, value in found.items():
                assert math.isfinite(value) or (name in unknown and math.isnan(value)), f"{what}: {name} {value}"
            for name in ("obi", "obi_1", "obi_10", "ti", "ti_30s", "cancel_rate"):
                assert math.isnan(found[name]) or -1 <= found[name] <= 1, f"{what}: {name} {found[name]}"
        # A venue that recovers is followed again: one bad number must not close the symbol for ever.
        book.snapshot(b'[["100.0","2"]]', b'[["101.5","1.5"]]')
        book.start(START_NS)
        book.diff(START_NS, b'[["99.5","0.5"]]', NONE)
        assert book.side("bids", 9) == [(100.0, 2.0), (99.5, 0.5)], what


@pytest.mark.parametrize(
    "first",
    ['["60000","1"],["0.000000000000000001","1"]', '["123456789012345678901234567890","1"]', '["1","123456789012345678901234567890"]'],
)
def test_a_first_snapshot_that_fits_no_grid_is_refused_and_forgotten(first: str) -> None:
    book = FeatureBook(None, None, None)
    with pytest.raises(FrameError):
        book.snapshot(f"[{first}]".encode(), NONE)
    book.snapshot(b'[["60000.5","1"]]', b'[["60001","0.001"]]')
    assert (book.side("bids", 9), book.side("asks", 9)) == ([(60_000.5, 1.0)], [(60_001.0, 0.001)])


def test_lots_that_no_sum_can_hold_are_refused_rather_than_wrapped() -> None:
    book = FeatureBook(None, None, None)
    book.snapshot(b'[["1","4000000000000000"],["2","4000000000000000"],["3","4000000000000001"]]', b'[["4","4000000000000000"]]')
    book.start(START_NS)
    try:
        book.diff(START_NS, b'[["1","0.001"]]', NONE)
    except FrameError:
        return
    assert values(book, START_NS)["obi"] == pytest.approx(1 / 3)


def test_what_a_book_once_held_does_not_decide_what_it_takes() -> None:
    """Only what is saved may matter, or a restarted engine would differ from one that went on."""
    book = FeatureBook(Step(1, 0), Step(1, 0), None)
    book.snapshot(b'[["1","1"],["2","4000000000000000"]]', b'[["4","1"]]')
    book.start(START_NS)
    book.diff(START_NS, b'[["2","0"]]', NONE)
    row(book, START_NS + 6 * SECOND)  # The removal has left its window too.
    other = FeatureBook(None, None, None)
    other.load(book.save())
    outcomes = []
    for one in (book, other):
        try:
            one.diff(START_NS + 6 * SECOND, NONE, b'[["4","0.0001"]]')
            outcomes.append(served(one, START_NS + 6 * SECOND))
        except FrameError as error:
            outcomes.append((str(error),))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("attempt", ["trade", "ticker", "diff"])
def test_one_number_far_below_the_grid_does_not_close_the_book_for_all_that_follow(attempt: str) -> None:
    """Either the number is refused, or what the venue sends afterwards still fits beside it."""
    book, number = FeatureBook(None, None, None), b'"0.00000000001"'
    book.snapshot(b'[["61734.1","1.5"]]', b'[["61734.2","1"]]')
    book.start(START_NS)
    with contextlib.suppress(FrameError):
        if attempt == "trade":
            book.trade(START_NS, number, b'"1"', buyer_is_taker=True)
        elif attempt == "ticker":
            book.ticks(number)
        else:
            book.diff(START_NS, b"[[" + number + b',"1"]]', NONE)
    book.diff(START_NS, b'[["61734.1","2"]]', NONE)
    assert book.side("bids", 1) == [(61_734.1, 2.0)]


@pytest.mark.parametrize("bids", [b'[["100","1"],["99","-1"]]', b'[["100","1"],["x","1"]]', b'[["100","1"]', b'{"100":"1"}', b"null"])
def test_an_unreadable_side_leaves_both_as_they_were(bids: bytes) -> None:
    book = opened()
    before = book.save()
    for sides in ((bids, b'[["101","9"]]'), (b'[["100","9"]]', bids)):
        with pytest.raises(FrameError):
            book.diff(START_NS, *sides)
        assert book.save() == before


def test_a_crossed_snapshot_leaves_an_empty_book() -> None:
    book = opened()
    for ask in ("100", "99"):
        with pytest.raises(CrossedBook):
            book.snapshot(b'[["100","1"]]', f'[["{ask}","1"]]'.encode())
        assert (book.side("bids", 9), book.side("asks", 9)) == ([], [])


def test_a_level_that_a_snapshot_names_twice_or_as_zero_is_kept_once_or_not() -> None:
    book = FeatureBook(None, None, None)
    book.snapshot(b'[["100","1"],["100.0","2"],["99","0"]]', b'[["101","0.0"]]')
    assert (book.side("bids", 9), book.side("asks", 9)) == ([(100.0, 2.0)], [])


def test_the_bound_on_levels_does_not_depend_on_how_large_a_difference_was_seen_before() -> None:
    def levels(n: int) -> bytes:
        return b"[" + b",".join(b'["%d.0","1"]' % (200 + i) for i in range(n)) + b"]"

    seen = opened()
    seen.diff(START_NS, NONE, levels(20_000))
    restored = FeatureBook(None, None, None)
    restored.load(seen.save())
    for book in (seen, restored):
        with pytest.raises(FrameError, match="at most 20000 levels"):
            book.diff(START_NS, NONE, levels(20_001))
    assert seen.save() == restored.save()


@pytest.mark.parametrize("way", ["diff", "frame"])
@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), min_size=1, max_size=5), st.integers(0, 4))
@example(messages=[(28, 0), (0, 75)], restored_at=1)
@example(messages=[(0, 30), (80, 0), (0, 60)], restored_at=1)
def test_whether_a_book_takes_a_message_does_not_depend_on_the_room_it_has(
    way: str, messages: list[tuple[int, int]], restored_at: int
) -> None:
    """A book that was loaded has room for little more than it holds; one that lived has the room that it once needed."""
    tenths = itertools.count()

    def side(count: int, low: int) -> bytes:
        return b"[" + b",".join(b'["%d.%d","1"]' % divmod(10 * low + next(tenths) % 900, 10) for _ in range(count)) + b"]"

    def outcome(book: FeatureBook, number: int, bids: bytes, asks: bytes) -> object:
        try:
            if way == "frame":
                return book.frame(START_NS, text_of(number, START_NS, "diff", (bids, asks)))
            book.diff(START_NS, bids, asks)
        except CrossedBook as error:
            return str(error)
        return TAKEN

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book_module, "BOOK_LEVELS_MAX", 100)
        patch.setattr(book_module, "LEVELS_FIRST", 100)
        lived = restored = listening(None)
        patch.setattr(book_module, "LEVELS_FIRST", 4)
        for i, (bids_n, asks_n) in enumerate(messages):
            if i == restored_at or restored is lived:
                restored = FeatureBook(*STATED, None, 3.0)
                restored.listen("BTCUSDT", wire.BINANCE_SPOT)
                restored.load(lived.save())
            bids, asks = side(bids_n, 1), side(asks_n, 200)
            fits = max(lived._count(kernels_book.BID) + bids_n, lived._count(kernels_book.ASK) + asks_n) <= 100
            found = outcome(lived, i + 1, bids, asks)
            assert outcome(restored, i + 1, bids, asks) == found
            assert (found == TAKEN) == fits
            if found != TAKEN:
                return
            assert served(restored, START_NS) == served(lived, START_NS)
        assert restored.save() == lived.save()


# Whole frames


def frames_of(seed: int, count: int, contract: float | None) -> list[tuple[int, str, tuple[bytes, ...]]]:
    """Return times, kinds and numbers of messages, each next in its chain."""
    draw, ts_ns, found = random.Random(seed), START_NS, []
    size = "{}" if contract else "{}.5"
    for i in range(count):
        ts_ns += draw.choice([0, 1, 40, 100, 260, 1_100]) * MS
        kind = draw.choice(["diff", "diff", "trade", "trade", "ticker"])
        if kind == "diff":
            sides = []
            for low, high in ((90, 100), (101, 110)):
                sizes = [size.format(draw.randint(0, 9)) if i % 3 else "0" for _ in range(draw.randint(0, 4))]
                pairs = [f'["{draw.randint(low, high)}.0","{one}"]' for one in sizes]
                sides.append(f"[{','.join(pairs)}]".encode())
            found.append((ts_ns, kind, tuple(sides)))
        elif kind == "trade":
            quantity = f'"{size.format(draw.randint(1, 9))}"'.encode()
            found.append((ts_ns, kind, (b'"%d.0"' % draw.randint(98, 103), quantity, draw.choice([b"true", b"false"]))))
        else:
            found.append((ts_ns, kind, (b'"97.5"', b'"1"', b'"104.5"', b'"1"')))
    return found


def text_of(number: int, ts_ns: int, kind: str, parts: tuple[bytes, ...]) -> bytes:
    ms = ts_ns // MS - 30
    if kind == "diff":
        return b'{"e":"depthUpdate","E":%d,"s":"BTCUSDT","U":1,"u":%d,"b":%b,"a":%b,"Z":"%b"}' % (ms, number, *parts, b"." * 60)
    if kind == "trade":
        return b'{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,"p":%b,"q":%b,"T":%d,"m":%b}' % (ms, number, parts[0], parts[1], ms, parts[2])
    return b'{"e":"bookTicker","u":%d,"s":"BTCUSDT","b":%b,"B":%b,"a":%b,"A":%b,"E":%d}' % (number + 10**6, *parts, ms)


def numbers_of(messages: list[tuple[int, str, tuple[bytes, ...]]]) -> list[int]:
    """Ids that follow each other: of trades among themselves, of the rest by their place."""
    trades = itertools.accumulate(kind == "trade" for _, kind, _ in messages)
    return [count if kind == "trade" else i for i, (count, (_, kind, _)) in enumerate(zip(trades, messages, strict=True), 1)]


def apply(book: FeatureBook, number: int, ts_ns: int, kind: str, parts: tuple[bytes, ...]) -> None:
    """Do with one message what the state machine does, by the general way."""
    book.lag_ns = ts_ns - (ts_ns // MS - 30) * MS
    if kind == "diff":
        book.count(m.DEPTHS_SEEN)
        book.diff(ts_ns, parts[0], parts[1])
        book.last_update, book.depth_ns = number, ts_ns
        assert book.compare() is None
        book.features(ts_ns)
    elif kind == "trade":
        book.count(m.TRADES_SEEN)
        book.trade(ts_ns, parts[0], parts[1], buyer_is_taker=parts[2] == b"false", venue_ns=(ts_ns // MS - 30) * MS)
        book.trade_id, book.plain_trades = number, True
        book.features(ts_ns)
    else:
        book.count(m.TICKERS_SEEN)
        book.hold_ticker(number + 10**6, *parts)
        assert book.compare() is None


def listening(contract: float | None, bucket: float | None = 3.0) -> FeatureBook:
    book = FeatureBook(STATED[0], Step(1, 0) if contract else STATED[1], contract, bucket)
    book.listen("BTCUSDT", wire.BINANCE_SPOT)
    book.snapshot(b'[["100.0","2"],["99.0","3"]]', b'[["101.0","1"],["102.0","5"]]')
    book.start(START_NS)
    book.last_update, book.live = 0, True
    book.take_fit(np.linspace(-0.4, 0.4, m.STATES))
    return book


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([None, 10.0]), st.integers(0, 60))
def test_frames_taken_whole_leave_what_their_parts_leave(seed: int, contract: float | None, cut: int) -> None:
    """One call a frame, one call for all of them, and the general way: the same rows and the same state, to the bit."""
    messages = frames_of(seed, 60, contract)
    numbers = numbers_of(messages)
    texts = [text_of(number, *message) for number, message in zip(numbers, messages, strict=True)]
    single, whole, slow = listening(contract), listening(contract), listening(contract)
    rows = np.zeros((60, len(FEATURES)))
    times, ends = np.array([message[0] for message in messages]), np.cumsum([len(text) for text in texts])
    raw = b"".join(texts)
    start = int(ends[cut - 1]) if cut else 0
    assert whole.frames(times[:cut], raw, ends[:cut], rows[:cut]) == cut
    assert whole.frames(times[cut:], raw[start:], ends[cut:] - start, rows[cut:]) == 60 - cut
    for i, message, text, row_of_all in zip(numbers, messages, texts, rows, strict=True):
        assert single.frame(message[0], text) == (QUIET if message[1] == "ticker" else TAKEN)
        apply(slow, i, *message)
        assert single.row.tobytes() == slow.row.tobytes() == row_of_all.tobytes()
        assert single.save() == slow.save()
    assert whole.save() == slow.save()


@pytest.mark.parametrize("contract", [None, 10.0])
def test_rings_grow_alike_whichever_way_a_message_came(contract: float | None) -> None:
    """More trades, depth messages, tickers and levels within seconds than there is room for at first."""
    single, whole, slow = (listening(contract) for _ in range(3))
    messages = []
    for i in range(1, 5_001):
        kind = ("diff", "trade", "trade", "ticker")[i % 4]
        parts: tuple[bytes, ...] = (b'[["%d.0","%d"]]' % (98 + i % 3, i), b'[["%d.0","1"]]' % (1_000 + i * 4))
        if kind == "trade":
            parts = (b'"%d.0"' % (90 + i % 20), b'"%d"' % (i % 7 + 1), b"true" if i % 3 else b"false")
        elif kind == "ticker":
            parts = (b'"97.5"', b'"1"', b'"104.5"', b'"1"')
        messages.append((START_NS + i * 1_000, kind, parts))
    numbers = numbers_of(messages)
    texts = [text_of(number, *message) for number, message in zip(numbers, messages, strict=True)]
    times, ends = np.array([message[0] for message in messages]), np.cumsum([len(text) for text in texts])
    whole.frames(times, b"".join(texts), ends, np.zeros((5_000, len(FEATURES))))
    for i, message, text in zip(numbers, messages, texts, strict=True):
        assert single.frame(message[0], text) in (TAKEN, QUIET)
        apply(slow, i, *message)
    assert single.save() == whole.save() == slow.save()
    assert values(slow, START_NS + SECOND)["ti_n"] == 2_500
    assert served(single, START_NS + 6 * SECOND) == served(slow, START_NS + 6 * SECOND)


def test_a_live_book_needs_steps_and_a_name() -> None:
    book = FeatureBook(None, None, None)
    book.snapshot(NONE, NONE)
    book.live = True
    assert not book.live
    book.listen("BTCUSDT", wire.BINANCE_SPOT)
    book.live = True
    assert not book.live, "no step is known"
    book.snapshot(b'[["100.5","2"]]', NONE)
    book.live = True
    assert book.live
    other = FeatureBook(None, None, None)
    other.load(book.save())
    assert other.live


# Single orders


def test_a_level_that_an_order_book_knows_counts_what_was_traded_and_what_was_cancelled() -> None:
    book = opened()
    book.start(START_NS - 10 * SECOND)
    changes = ((1_000, 1_500, 500), (1_000, 900, 0), (1_000, 1_200, 0), (-1_010, 0, 1_000), (990, 3_000, 0), (-5_000, 7, 0))
    for ticks, lots, explained in changes:
        book.order(START_NS, ticks, lots, explained)
    found = values(book, START_NS)
    # Falls at the top: 500 traded, 600 cancelled, 1000 traded; a rise, no change, and a new level in reach of the top.
    assert (found["cancel_n"], found["cancel_rate"]) == (3, 600 / 2_100)
    assert found["queue_rate"] == 5 / 5
    assert book.side("bids", 9) == [(100.0, 1.2), (99.0, 3.0), (98.0, 1.0)]
    assert book.side("asks", 9) == [(102.0, 5.0), (500.0, 0.007)]
    with pytest.raises(CrossedBook, match="at or above"):
        book.order(START_NS, 1_020, 1, 0)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(985, 1_000), st.integers(0, 3), st.booleans(), st.sampled_from([0, 30, 700])), max_size=60))
def test_levels_set_one_by_one_are_differences_of_one_level(changes: list[tuple[int, int, bool, int]]) -> None:
    single, diffs, ts_ns = opened(), opened(), START_NS
    for ticks, lots, bid, wait_ms in changes:
        ts_ns += wait_ms * MS
        price = ticks if bid else 2_003 - ticks
        single.order(ts_ns, price if bid else -price, lots * 1_000, 0)
        level = b'[["%d.%d","%d"]]' % (*divmod(price, 10), lots)
        diffs.diff(ts_ns, *((level, NONE) if bid else (NONE, level)))
        assert served(single, ts_ns) == served(diffs, ts_ns)
    assert single.save() == diffs.save()


def test_an_order_book_of_any_depth_and_pace_is_held() -> None:
    book = opened()
    book.start(START_NS - 10 * SECOND)
    for i in range(12_000):
        book.order(START_NS + i, -(1_020 + 7 * i), 5, 0)
    for i in range(3_000):
        book.order(START_NS + 12_000 + i, 1_000, 9_000 - i, 0)
    assert len(book.side("asks", 99_999)) == 12_001
    assert values(book, START_NS + 20_000)["cancel_n"] == 3_000, "the first ask and each but the first of the bids"


# Buckets of VPIN


def test_a_fixed_bucket_is_counted_in_lots_whenever_they_are_known() -> None:
    for tick, lot in (STATED, (None, None)):
        book = FeatureBook(tick, lot, None, 2.5)
        book.snapshot(b'[["100","2"]]', b'[["101","1"]]')
        book.start(START_NS)
        for _ in range(125):
            book.trade(START_NS, b'"100"', b'"1"', buyer_is_taker=True)
        found = values(book, START_NS)
        assert (found["vpin"], found["vpin_n"]) == (1.0, 50)
        assert int(book.reals[m.BUCKET_FIXED]) * book.lot.size == 50 * Fraction(5, 2)
        book.trade(START_NS, b'"100"', b'"0.0001"', buyer_is_taker=True)
        assert int(book.reals[m.BUCKET_FIXED]) * book.lot.size == 50 * Fraction(5, 2)
        assert values(book, START_NS)["vpin"] == 1.0


@pytest.mark.parametrize("contract", [None, 10.0])
@pytest.mark.parametrize("bucket", [None, 0.75])
def test_buckets_are_saved_and_refined_with_all_else(contract: float | None, bucket: float | None) -> None:
    def fed(tick: Step | None, lot: Step | None) -> FeatureBook:
        book = FeatureBook(tick, lot, contract, bucket)
        book.snapshot(b'[["100.0","2"],["99.0","3"]]', b'[["101.0","1"]]')
        book.start(START_NS)
        for i in range(200):
            ts_ns = START_NS + i * 900 * SECOND
            book.trade(ts_ns, b'"100"', b'"%d"' % (i % 4 + 2), buyer_is_taker=i % 3 == 0)
            if i == 150:
                book.trade(ts_ns, b'"100.25"', b'"0.125"', buyer_is_taker=True)
                other = FeatureBook(None, None, contract, None)
                other.load(book.save())
                book = other
        return book

    book, end_ns = fed(None, None), START_NS + 200 * 900 * SECOND
    found = values(book, end_ns)
    assert 0 < found["vpin"] < 1 and found["vpin_n"] == 50
    if contract is None:
        for name, value in values(fed(Step(1, 2), Step(1, 3)), end_ns).items():
            assert found[name] == value or math.isnan(value), name


def test_a_bucket_of_inverse_contracts_is_in_coins() -> None:
    book = FeatureBook(Step(1, 1), Step(1, 0), 10.0, 0.5)
    book.snapshot(b'[["100.0","2"]]', b'[["101.0","1"]]')
    book.start(START_NS)
    for _ in range(9):
        book.trade(START_NS, b'"100"', b'"1"', buyer_is_taker=True)  # A tenth of a coin each.
    assert values(book, START_NS)["vpin_n"] == 1
    book.trade(START_NS, b'"100"', b'"1"', buyer_is_taker=True)
    assert values(book, START_NS)["vpin_n"] == 2


@pytest.mark.parametrize("bucket", [None, 20_000.0, 10.0**9])
def test_no_inverse_market_is_too_busy(bucket: float | None) -> None:
    """Contracts of 10 at 2,680 and billions of them a day: every trade is taken, and VPIN knows the day."""
    book = FeatureBook(Step(1, 2), Step(1, 0), 10.0, bucket)
    book.snapshot(b'[["2680.00","5"]]', b'[["2680.01","5"]]')
    book.start(START_NS)
    for i in range(1_500):
        book.trade(START_NS + i * 120 * SECOND, b'"2680.00"', b'"1000000"', buyer_is_taker=i % 4 > 0)
    found = values(book, START_NS + 1_500 * 120 * SECOND)
    buckets = {None: 50, 20_000.0: 50, 10.0**9: 0}
    assert found["vpin_n"] == buckets[bucket]
    assert math.isnan(found["vpin"]) if bucket == 10.0**9 else found["vpin"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("lot", "bucket"), [(Step(1, 18), 10.0), (Step(1, 0), 1e-9), (Step(1, 8), 1e12), (Step(7, 0), 10.0)])
def test_a_bucket_that_fits_no_lot_stops_nothing(lot: Step, bucket: float) -> None:
    book = FeatureBook(Step(1, 2), lot, None, bucket)
    book.snapshot(b'[["100.00","0"]]', b'[["101.00","0"]]')
    book.start(START_NS)
    assert values(book, START_NS)["vpin_n"] == 0


# The fitted microprice


def test_a_fit_is_served_from_when_it_comes_and_with_the_state_of_the_top() -> None:
    book = opened()
    assert math.isnan(values(book, START_NS)["microprice_stoikov"])
    table = np.arange(m.STATES) / 100
    book.take_fit(table)
    state = 4 * (10 * 2_000 // 3_000) + 3  # 2 against 1, ten ticks apart.
    assert values(book, START_NS)["microprice_stoikov"] == pytest.approx(100.5 + table[state] / 10)
    table[:] = 7  # What was given is copied.
    other = FeatureBook(None, None, None)
    other.load(book.save())
    assert served(other, START_NS) == served(book, START_NS)
    book.diff(START_NS, b'[["100.0","1"]]', NONE)
    assert values(book, START_NS)["microprice_stoikov"] == 100.5, "sizes that are alike favour no side"
    book.diff(START_NS, b'[["100.0","0"],["99.0","0"],["98","0"]]', NONE)
    assert math.isnan(values(book, START_NS)["microprice_stoikov"])


def test_a_finer_tick_asks_for_a_new_fit_and_a_finer_lot_does_not() -> None:
    book = opened()
    book.take_fit(np.linspace(-0.4, 0.4, m.STATES))
    book.diff(START_NS, b'[["100.1","2"]]', NONE)
    before = values(book, START_NS)["microprice_stoikov"]
    assert math.isfinite(before) and book.moves == 1
    book.diff(START_NS, b'[["98.0","0.0001"]]', NONE)
    assert (values(book, START_NS)["microprice_stoikov"], book.moves) == (before, 1)
    book.diff(START_NS, b'[["98.05","1"]]', NONE)
    assert math.isnan(values(book, START_NS)["microprice_stoikov"]) and book.moves == 0
    assert not any(table.any() for table in book.counts())


def test_more_levels_than_a_book_may_hold_are_refused() -> None:
    book = opened()
    with pytest.raises(CrossedBook, match=f"more than {BOOK_LEVELS_MAX} levels"):
        for i in range(12):
            book.diff(START_NS, NONE, b"[" + b",".join(b'["%d","1"]' % (10**6 - 20_000 * i - j) for j in range(20_000)) + b"]")
    assert len(book.side("asks", 10**6)) <= BOOK_LEVELS_MAX
    with pytest.raises(FrameError, match=f"at most {BOOK_LEVELS_MAX} levels"):
        book.snapshot(NONE, b"[" + b",".join(b'["%d","1"]' % (1 + i) for i in range(BOOK_LEVELS_MAX + 1)) + b"]")


def test_a_gap_is_no_transition_of_the_microprice() -> None:
    book = FeatureBook(Step(1, 1), Step(1, 0), None)
    for price in (100, 200):
        book.clear()
        book.snapshot(b'[["%d.0","1"]]' % price, b'[["%d.1","1"]]' % price)
        book.diff(START_NS, b'[["%d.0","2"]]' % price, b"[]")
        book.start(START_NS)
    stay, move, jump = book.counts()
    assert (int(stay.sum()), int(move.sum()), int(np.abs(jump).sum())) == (0, 0, 0)


@pytest.mark.parametrize(("bucket", "full"), [(1e-19, 50), (33.333333333333336, 0), (0.1 + 0.2, 4), (8230.446666666667, 0), (1e300, 0)])
def test_a_bucket_of_any_size_leaves_the_lot_alone(bucket: float, full: int) -> None:
    book = FeatureBook(None, None, None, bucket)
    book.snapshot(b'[["100.0","1.5"]]', b'[["101.0","2"]]')
    book.start(START_NS)
    book.trade(START_NS + 1, b'"100.0"', b'"1.5"', buyer_is_taker=True)
    assert str(book.lot) == "0.5"
    assert book.features(START_NS + 2)[FEATURES.index("vpin_n")] == full


def spot_book() -> FeatureBook:
    book = FeatureBook(Step(1, 1), Step(1, 0), None)
    book.listen("XUSDT", wire.BINANCE_SPOT)
    book.snapshot(b'[["100.0","1"]]', b'[["101.0","1"]]')
    book.last_update = 10
    book.start(START_NS)
    book.live = True
    return book


def spot(first: int, bids: bytes) -> bytes:
    return b'{"e":"depthUpdate","E":1700000000000,"s":"XUSDT","U":%d,"u":%d,"b":%b,"a":[]}' % (first, first, bids)


def test_frames_stop_after_the_one_that_shows_the_book_to_be_wrong() -> None:
    frames = [spot(11, b'[["100.1","1"]]'), spot(12, b'[["102.0","1"]]'), spot(13, b"[]")]
    ends, times = np.cumsum([len(one) for one in frames]), np.full(3, START_NS, np.int64)
    statuses = np.full(3, -6, np.int64)  # What is found there says nothing.
    book = spot_book()
    assert book.frames(times, b"".join(frames), ends, np.empty((3, len(FEATURES))), statuses) == 2
    assert statuses[0] == 0 and statuses[1] < 0 and statuses[2] == -6
    assert "at or above best ask" in book.fault(int(statuses[1]))


@pytest.mark.parametrize("ends", [[200, 100], [-1, 100], [100, 10_000]])
def test_frames_beyond_their_buffer_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="expected ends that rise"):
        spot_book().frames(np.zeros(2, np.int64), bytes(300), np.array(ends), np.empty((2, len(FEATURES))))
    with pytest.raises(ValueError, match="rows"):
        spot_book().frames(np.zeros(2, np.int64), bytes(300), np.array([1, 2]), np.empty((1, len(FEATURES))))


def test_an_inverse_book_that_goes_live_empty_learns_its_units_from_the_first_price() -> None:
    book = FeatureBook(None, None, 10.0)
    book.snapshot(b"[]", b"[]")
    book.start(START_NS)
    assert not np.isfinite(book.features(START_NS + 60 * SECOND)[FEATURES.index("mid")])
    book.diff(START_NS + 60 * SECOND, b'[["100.0","5"]]', b'[["100.1","5"]]')
    book.trade(START_NS + 60 * SECOND, b'"100.0"', b'"2"', buyer_is_taker=True)
    found = dict(zip(FEATURES, book.features(START_NS + 60 * SECOND).tolist(), strict=True))
    assert int(book.marks[m.BASE_UNITS]) == 10**11
    assert (found["ti"], found["ofi_1"]) == (1.0, pytest.approx(0.5 - 10 * 5 / 100.1))


def test_the_first_ticker_of_all_is_held_in_the_step_that_its_ask_needs() -> None:
    book = FeatureBook(None, None, None, None)
    book.hold_ticker(7, b'"150.00"', b'"2.0"', b'"150.02"', b'"0.5"')
    book.snapshot(b'[["150.00","2.0"]]', b'[["150.02","0.5"]]')
    book.last_update = 7
    assert book.compare() is None
    assert book.ticker_checked == 1


def test_a_ticker_that_cannot_be_read_refines_nothing() -> None:
    book = FeatureBook(None, None, None, None)
    with pytest.raises(FrameError):
        book.hold_ticker(7, b'"150.00"', b'"2.0"', b'"150.0x"', b'"0.5"')
    assert book.tick is None and book.lot is None
