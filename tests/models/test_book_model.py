"""One symbol's book as a value: saved and taken up again, refined on the way, grown, and proof against what a venue may send."""

import contextlib
import math
import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.domain.events import FrameError
from alphapack.domain.market import Step
from alphapack.models.book import FEATURES, CrossedBook, FeatureBook

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
    return book.features(ts_ns, np.zeros(len(FEATURES))).tobytes()


def values(book: FeatureBook, ts_ns: int) -> dict[str, float]:
    return dict(zip(FEATURES, book.features(ts_ns, np.zeros(len(FEATURES))).tolist(), strict=True))


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
            volume[buyer] += size if contract is None else Fraction(round(size * book.base_units), book.base_units)
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
def test_inverse_volume_is_rounded_half_to_even_once(ticks: int, lots: int, contract: float, tick: Step) -> None:
    book = opened(tick, Step(1, 0), contract)
    price = Decimal(ticks * tick.units).scaleb(-tick.decimals)
    wanted = round(Fraction(lots) * Fraction(str(contract)) / Fraction(price) * book.base_units)
    book.trade(START_NS, b'"%b"' % str(price).encode(), b'"%d"' % lots, buyer_is_taker=True)
    book.trade(START_NS, b'"100.00"', b'"1"', buyer_is_taker=False)
    sold = round(Fraction(str(contract)) / 100 * book.base_units)
    assert values(book, START_NS + SECOND - 1)["ti_n"] == (2 if wanted else 1)
    book.start(START_NS - SECOND)
    book.trade(START_NS, b'"%b"' % str(price).encode(), b'"%d"' % lots, buyer_is_taker=True)
    book.trade(START_NS, b'"100.00"', b'"1"', buyer_is_taker=False)
    assert values(book, START_NS)["ti_1s"] == (wanted - sold) / (wanted + sold)


def test_a_tie_goes_to_the_even_neighbour() -> None:
    # 1 contract of 0.1 at 0.8e7 and at 2.4e7...: 1.25 and 0.41 units of 1e-8; the halves are the cases that matter.
    for price, units in (("20000000", 0), ("6666666.5", 2), ("4000000", 2), ("2857142.5", 4)):
        exact = Fraction(1, 10) / Fraction(price) * 10**8
        book = FeatureBook(Step(1, 1), Step(1, 0), 0.1)
        book.base_units = 10**8
        volume = book._base_volume(int(Fraction(price) * 10), 1)
        assert volume == round(exact) == units


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
        before = served(book, START_NS)
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
            one_sided = {"mid", "microprice", "spread_bps", "obi", "obi_1", "obi_10", "bid", "ask"}
            both = bool(book.side("bids", 1)) and bool(book.side("asks", 1))
            for name, value in found.items():
                assert math.isfinite(value) or (not both and name in one_sided and math.isnan(value)), f"{what}: {name} {value}"
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
