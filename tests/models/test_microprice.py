"""The micro-price: it is what simulated books do in the long run, exactly mirrored, and says so or refuses."""

import gzip
import json
import math
import random
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D, Int64Array2D
from alphapack.models import microprice
from alphapack.models.microprice import DEPARTURES_MIN, MOVES_MIN, STATES, Fit, decode_table, encode_counts, encode_table, fit, work

Counts = tuple[Int64Array2D, Int64Array2D, Int64Array1D]
Top = tuple[int, int, float, float]
"""Best bid and ask in ticks, and their sizes."""


def mirrored(x: int) -> int:
    imbalance, spread = divmod(x, 4)
    return 4 * (9 - imbalance) + spread


def state(bid: int, ask: int, bid_size: float, ask_size: float) -> int:
    return 4 * min(9, int(10 * bid_size // (bid_size + ask_size))) + min(4, ask - bid) - 1


def counted(tops: list[Top]) -> Counts:
    """Count as a book does: each change of the top, by the states before and after it."""
    stay, move, jump = none()
    for old, new in pairwise(tops):
        x, y, halves = state(*old), state(*new), new[0] + new[1] - old[0] - old[1]
        if halves:
            move[x, y] += 1
            jump[x] += halves
        elif old != new:
            stay[x, y] += 1
    return stay, move, jump


def none() -> Counts:
    return np.zeros((STATES, STATES), np.int64), np.zeros((STATES, STATES), np.int64), np.zeros(STATES, np.int64)


def flipped(counts: Counts) -> Counts:
    """The same data seen from the other side of the book."""
    order = [mirrored(x) for x in range(STATES)]
    stay, move, jump = counts
    return stay[order][:, order], move[order][:, order], -jump[order]


def planted(seed: int, states: list[int]) -> Counts:
    """A symmetric chain of which every state leads to every other, drifting on where the imbalance points."""
    chance = random.Random(seed)
    stay, move, jump = none()
    for x in states:
        for y in states:
            stay[x, y] = chance.randint(1, 40)
            move[x, y] = chance.randint(1, 8) * (8 if (x < 20) == (y < 20) else 1)
        # A whole number of half ticks a move on average, so that a simulation can draw it.
        jump[x] = int(move[x].sum()) * chance.choice([-1, 0, 1, 1, 2]) if x // 4 >= 5 else 0
    other = flipped((stay, move, jump))
    return stay + other[0], move + other[1], jump + other[2]


def kernel(counts: Counts) -> tuple[Float64Array2D, Float64Array2D, Float64Array1D]:
    """Frequencies of both kinds of transition and the mean mid change in ticks, over all states and both views, one by one."""
    stay, move, jump = counts
    still, moving, mean = np.zeros((STATES, STATES)), np.zeros((STATES, STATES)), np.zeros(STATES)
    for x in range(STATES):
        seen = [(stay[x, y] + stay[mirrored(x), mirrored(y)], move[x, y] + move[mirrored(x), mirrored(y)], y) for y in range(STATES)]
        total = sum(s + m for s, m, _ in seen)
        if total >= DEPARTURES_MIN:
            for s, m, y in seen:
                still[x, y], moving[x, y] = s / total, m / total
            mean[x] = (jump[x] - jump[mirrored(x)]) / 2 / total
    return still, moving, mean


def twin(counts: Counts, rounds: int) -> Float64Array1D:
    """The paper's recursion on all states, with the next move found by following every path of the book."""
    still, moving, mean = kernel(counts)
    first, onward, path = np.zeros(STATES), np.zeros((STATES, STATES)), np.eye(STATES)
    while (path @ moving).max() > 1e-17:  # (I - Q)^-1 as what it means: any number of changes that keep the mid.
        first, onward, path = first + path @ mean, onward + path @ moving, path @ still
    total = np.zeros(STATES)
    for _ in range(rounds):
        total, first = total + first, onward @ first
    return total


EVERY = list(range(STATES))
NARROW = [x for x in range(STATES) if x % 4 < 2]


@pytest.mark.parametrize("states", [EVERY, NARROW, [4 * i for i in range(10)]], ids=["all", "narrow", "one tick"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_the_papers_recursion_and_its_limit(states: list[int], seed: int) -> None:
    counts = planted(seed, states)
    fitted = fit(*counts)
    np.testing.assert_allclose(fitted.raw, twin(counts, 200), rtol=0, atol=2e-9)
    # Where the sum exists it solves g = (Q + T) g + r, which fixes g up to a constant on the states that meet.
    still, moving, mean = kernel(counts)
    solved = np.zeros(STATES)
    system = (np.eye(STATES) - still - moving)[np.ix_(states, states)]
    solved[states] = np.linalg.lstsq(np.vstack([system, np.ones(len(states))]), np.append(mean[states], 0.0), rcond=None)[0]
    np.testing.assert_allclose(fitted.raw, solved, rtol=0, atol=2e-9)
    assert np.abs(fitted.raw).max() > 0.01
    assert fitted.estimated == len(states)
    assert (fitted.transitions, fitted.moves) == (int(counts[0].sum() + counts[1].sum()), int(counts[1].sum()))


def test_it_is_where_simulated_mids_settle() -> None:
    counts = planted(4, NARROW)
    still, moving, mean = kernel(counts)
    cumulated = np.cumsum(np.concatenate((still, moving), axis=1), axis=1)
    share = moving.sum(axis=1)
    per_move = np.divide(mean, share, out=np.zeros(STATES), where=share > 0)
    raw = fit(*counts).raw
    draws = np.random.default_rng(5)
    for start in np.argsort(raw)[[0, 1, -3]]:
        paths = 20_000
        at, moved = np.full(paths, start), np.zeros(paths)
        for _ in range(60):
            chosen = np.minimum((cumulated[at] < draws.random(paths)[:, None]).sum(axis=1), 2 * STATES - 1)
            moved += np.where(chosen >= STATES, per_move[at], 0.0)
            at = chosen % STATES
        error = moved.std(ddof=1) / math.sqrt(paths)
        assert abs(moved.mean() - raw[start]) < 4 * error
        assert abs(raw[start]) > 8 * error  # Zero, or the wrong sign, would not pass.


@given(st.integers(0, 10_000), st.sampled_from([EVERY, NARROW]))
@settings(max_examples=20)
def test_it_is_a_martingale_of_the_fitted_chain(seed: int, states: list[int]) -> None:
    counts = planted(seed, states)
    still, moving, mean = kernel(counts)
    raw = fit(*counts).raw
    change = mean + (still + moving) @ raw - raw
    np.testing.assert_allclose(change, 0.0, rtol=0, atol=3e-9)


def test_more_size_on_the_bid_means_a_higher_price_where_queues_decide() -> None:
    chance = random.Random(6)
    tops: list[Top] = []
    bid, sizes = 1_000, [chance.uniform(1, 8), chance.uniform(1, 8)]
    for _ in range(60_000):
        tops.append((bid, bid + 1, sizes[0], sizes[1]))
        side = chance.randrange(2)
        sizes[side] += chance.choice([-1, 1])
        if sizes[side] <= 0:  # The queue is used up: the price goes there, and both queues are new.
            bid += 1 if side else -1
            sizes = [chance.uniform(1, 8), chance.uniform(1, 8)]
    fitted = fit(*counted(tops))
    one_tick = fitted.raw[0::4]
    assert (np.diff(one_tick) > 0).all()
    assert one_tick[9] > 0.3
    assert fitted.estimated == 10
    assert not fitted.raw.reshape(10, 4)[:, 1:].any()


def check(fitted: Fit) -> None:
    """What holds of every fit, whatever was counted."""
    for table in (fitted.raw, fitted.adjustment):
        assert table.shape == (STATES,)
        assert table.dtype == np.float64
        assert not table.flags.writeable
        assert np.isfinite(table).all()
        for x in range(STATES):
            assert table[x] == -table[mirrored(x)]
            assert table[x] != 0 or math.copysign(1.0, table[x]) == 1.0
            assert table[x] == round(table[x], 9)
    for x in range(STATES):
        bound = (x % 4 + 1) / 2 if x % 4 < 3 else math.inf
        assert fitted.adjustment[x] == max(-bound, min(bound, fitted.raw[x]))
    assert fitted.clipped == sum(a != b for a, b in zip(fitted.raw, fitted.adjustment, strict=True))


@st.composite
def counts_of_any_book(draw: st.DrawFn) -> Counts:
    """Sparse or dense, with states that lead nowhere, that are seen once, that only move."""
    stay, move, jump = none()
    low, high = draw(st.sampled_from([(0, 3), (0, 200), (5, 500), (1, microprice.COUNT_MAX)]))
    states = draw(st.lists(st.integers(0, STATES - 1), min_size=2, max_size=12, unique=True))
    numbers = draw(st.lists(st.integers(low, high), min_size=2 * len(states) ** 2, max_size=2 * len(states) ** 2))
    for number, (x, y, counts) in zip(numbers, ((x, y, c) for x in states for y in states for c in (stay, move)), strict=True):
        counts[x, y] = number
    for x in states:
        if move[x].any():
            jump[x] = draw(st.one_of(st.integers(-50, 50), st.sampled_from([-microprice.JUMP_MAX, microprice.JUMP_MAX])))
    return stay, move, jump


def test_any_counts_give_a_sound_table_or_a_refusal() -> None:
    told: list[bool] = []

    @given(counts_of_any_book())
    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    def sound(counts: Counts) -> None:
        try:
            fitted = fit(*counts)
        except ValueError as error:
            assert str(error).startswith("expected ")
            assert counts[1].sum() < MOVES_MIN or "converges" in str(error)
            return
        check(fitted)
        other = fit(*flipped(counts))  # Counted from the other side of the book, it is the same book.
        np.testing.assert_array_equal(fitted.raw, other.raw)
        told.append(bool(fitted.raw.any()))
        assert work(encode_counts(*counts)) == encode_table(fitted)

    sound()
    assert sum(told) > 20


def test_a_state_without_moves_of_its_own_is_worth_what_it_leads_to() -> None:
    stay, move, jump = planted(7, [4 * i for i in range(10)])
    for x, y in ((4 * 8 + 1, 4 * 1 + 2), (4 * 8 + 2, 4 * 9)):  # The first crosses to the other half.
        stay[x, y] = 10 * DEPARTURES_MIN
    fitted = fit(stay, move, jump)
    assert -fitted.raw[4 * 8 + 1] == fitted.raw[4 * 8 + 2] == fitted.raw[4 * 9] != 0
    assert fitted.estimated == 14


def test_what_is_rarely_seen_or_never_moves_has_no_adjustment_and_ends_the_paths() -> None:
    stay, move, jump = planted(7, [4 * i for i in range(10)])
    plain = fit(stay, move, jump)
    rare, mute = 4 * 9 + 1, 4 * 9 + 3
    stay[rare, rare], move[rare, 36], jump[rare] = DEPARTURES_MIN - 2, 1, 5
    stay[mute, mute] = 10 * DEPARTURES_MIN  # Without its escape to a move, I - Q would be singular.
    fitted = fit(stay, move, jump)
    check(fitted)
    assert fitted.raw[rare] == fitted.raw[mute] == 0
    assert fitted.estimated == plain.estimated == 10
    np.testing.assert_array_equal(fitted.raw, plain.raw)
    stay[rare, rare] += 1
    assert fit(stay, move, jump).raw[rare] != 0

    stay[36, mute] += 10_000  # Most paths now end there, and what came after is gone.
    ending = fit(stay, move, jump)
    check(ending)
    assert abs(ending.raw[36]) < abs(plain.raw[36]) / 2
    np.testing.assert_allclose(ending.raw, twin((stay, move, jump), 200), rtol=0, atol=2e-9)


def test_what_lies_outside_the_quotes_is_cut_and_counted() -> None:
    stay, move, jump = none()
    for spread in range(4):
        up, down = 4 * 9 + spread, spread
        move[up, up] = move[down, down] = 90
        move[up, down] = move[down, up] = 10
        jump[up], jump[down] = 200, -200
    fitted = fit(stay, move, jump)
    check(fitted)
    # One tick a move, nine times in ten again in the same direction: 1 / (1 - (0.9 - 0.1)) ticks.
    np.testing.assert_array_equal(fitted.raw[36:], 5.0)
    np.testing.assert_array_equal(fitted.adjustment[36:], [0.5, 1.0, 1.5, 5.0])
    assert fitted.clipped == 6
    assert fitted.estimated == 8


@pytest.mark.parametrize("onto", [36, 0], ids=["on in one direction", "to and fro"])
def test_a_sum_that_goes_on_for_ever_is_refused(onto: int) -> None:
    stay, move, jump = none()
    move[36, onto], jump[36] = 200, 200
    with pytest.raises(ValueError, match=r"^expected a sum that converges in 1000 rounds, found 0\.5 ticks in the next$"):
        fit(stay, move, jump)


def test_the_number_of_rounds_is_bounded_by_the_caller() -> None:
    counts = planted(8, EVERY)
    needed = fit(*counts).rounds
    assert 1 < needed < 100
    assert fit(*counts, rounds=needed).rounds == needed
    with pytest.raises(ValueError, match=f"converges in {needed - 1} rounds"):
        fit(*counts, rounds=needed - 1)
    with pytest.raises(ValueError, match="expected at least 1 round, found 0"):
        fit(*counts, rounds=0)


def test_counts_of_no_book_are_refused() -> None:
    good = planted(9, EVERY)
    check(fit(*good))

    def refused(reason: str, **changed: np.ndarray) -> None:
        with pytest.raises(ValueError, match=f"^expected {reason}"):
            fit(*({"stay": good[0], "move": good[1], "jump": good[2]} | changed).values())

    refused(r"stay as int64 of shape \(40, 40\), found int64 of shape \(39, 40\)", stay=good[0][1:])
    refused(r"move as int64 of shape \(40, 40\), found float64", move=good[1] * 1.0)
    refused(r"jump as int64 of shape \(40,\), found int64 of shape \(40, 1\)", jump=good[2][:, None])
    refused(r"stay from 0 to \d+, found -1 to", stay=np.where(np.eye(STATES, dtype=bool), -1, good[0]))
    refused(r"move from 0 to \d+", move=good[1] + microprice.COUNT_MAX)
    refused(r"jump from -\d+ to \d+", jump=np.full(STATES, np.iinfo(np.int64).min))
    still = good[1].copy()
    still[7] = 0
    refused("a jump only out of states with moves, found one without in state 7", move=still, jump=np.ones(STATES, np.int64))
    few, jump = np.zeros((STATES, STATES), np.int64), np.zeros(STATES, np.int64)
    few[0, 36] = MOVES_MIN - 1
    refused(f"at least {MOVES_MIN} changes of the mid, found {MOVES_MIN - 1}", move=few, jump=jump)
    few[0, 36] = MOVES_MIN
    check(fit(good[0], few, jump))


def test_a_request_and_its_answer_come_back_as_they_were() -> None:
    counts = planted(10, EVERY)
    fitted = fit(*counts)
    answer = work(encode_counts(*counts))
    assert answer == encode_table(fitted)
    read = decode_table(answer)
    check(read)
    assert encode_table(read) == answer
    np.testing.assert_array_equal(read.raw, fitted.raw)
    np.testing.assert_array_equal(read.adjustment, fitted.adjustment)
    assert (read.transitions, read.moves, read.estimated, read.rounds, read.clipped) == (
        fitted.transitions,
        fitted.moves,
        fitted.estimated,
        fitted.rounds,
        fitted.clipped,
    )
    assert len(encode_counts(*none())) < 3_300


PAIR = [0.25] * 20 + [-0.25] * 20
TAIL = [1_000, 100, 40, 80]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        msgspec.msgpack.encode(None),
        msgspec.msgpack.encode([PAIR]),
        msgspec.msgpack.encode([PAIR, *TAIL, 0]),
        msgspec.msgpack.encode([PAIR, *TAIL]) + b"\x00",
        msgspec.msgpack.encode([PAIR, *TAIL])[:-1],
        msgspec.msgpack.encode([PAIR[1:], *TAIL]),
        msgspec.msgpack.encode([[*PAIR, 0.0], *TAIL]),
        msgspec.msgpack.encode([[None, *PAIR[1:]], *TAIL]),
        msgspec.msgpack.encode([["0.25", *PAIR[1:]], *TAIL]),
        msgspec.msgpack.encode([[2**64 - 1, *PAIR[1:]], *TAIL]),
        *(msgspec.msgpack.encode([[x, *PAIR[1:36], -x, *PAIR[37:]], *TAIL]) for x in (math.nan, math.inf, -math.inf, 1e300, 1048577.0)),
        msgspec.msgpack.encode([[0.2500001, *PAIR[1:]], *TAIL]),
        msgspec.msgpack.encode([[0.25] * 40, *TAIL]),
        *(msgspec.msgpack.encode([PAIR, *TAIL[:n], bad, *TAIL[n + 1 :]]) for n in range(4) for bad in (-1, 1.5, 2**63, True, None)),
        msgspec.msgpack.encode([PAIR, 1_000, 100, 41, 80]),
    ],
    ids=lambda answer: answer[-12:].hex(),
)
def test_an_answer_that_is_no_table_is_refused(answer: bytes) -> None:
    check(decode_table(msgspec.msgpack.encode([PAIR, *TAIL])))
    with pytest.raises(ValueError, match=r"^expected "):
        decode_table(answer)


FLAT = [0] * (STATES * STATES)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        msgspec.msgpack.encode([FLAT, FLAT]),
        msgspec.msgpack.encode([FLAT, FLAT, [0] * 39]),
        msgspec.msgpack.encode([FLAT[1:], FLAT, [0] * 40]),
        msgspec.msgpack.encode([FLAT, [*FLAT, 0], [0] * 40]),
        msgspec.msgpack.encode([[-1, *FLAT[1:]], FLAT, [0] * 40]),
        msgspec.msgpack.encode([[2**64 - 1, *FLAT[1:]], FLAT, [0] * 40]),
        msgspec.msgpack.encode([[1.0, *FLAT[1:]], FLAT, [0] * 40]),
        msgspec.msgpack.encode([FLAT, FLAT, [-(2**63)] + [0] * 39]),
        msgspec.msgpack.encode([FLAT, FLAT, [0] * 40]),
    ],
    ids=lambda body: f"{len(body)} bytes {body[:4].hex()}",
)
def test_a_request_without_usable_counts_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        work(body)


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_no_bytes_make_another_error_or_an_unsound_table(noise: bytes, place: int, byte: int) -> None:
    good = msgspec.msgpack.encode([PAIR, *TAIL])
    for answer in (noise, good[:place] + bytes([byte]) + good[place + 1 :], good[:place]):
        try:
            fitted = decode_table(answer)
        except ValueError as error:
            assert str(error).startswith("expected ")
            continue
        for table in (fitted.raw, fitted.adjustment):
            assert np.isfinite(table).all()
            assert (table == [-table[mirrored(x)] for x in range(STATES)]).all()


def digits(number: str) -> int:
    return int(number.replace(".", ""))


@pytest.fixture(scope="module")
def tops(data: Path) -> list[Top]:
    """The top of the recorded book at each of its changes, in ticks of 0.1 and lots of 0.001."""
    found: list[Top] = []
    with gzip.open(data / "captures" / "binance-usdm_BTCUSDT_20240808T2354.raw.gz") as lines:
        for line in lines:
            if b'"bookTicker"' in line:
                book = json.loads(line.split(b" ", 1)[1])["data"]
                assert digits(book["b"]) % 10 == digits(book["a"]) % 10 == 0
                found.append((digits(book["b"]) // 10, digits(book["a"]) // 10, digits(book["B"]), digits(book["A"])))
    return found


def test_it_foretells_the_recorded_mid_out_of_sample(tops: list[Top]) -> None:
    middle = len(tops) // 2
    counts = counted(tops[:middle])
    fitted = fit(*counts)
    check(fitted)
    np.testing.assert_allclose(fitted.raw, twin(counts, 300), rtol=0, atol=1e-8)
    assert fitted.moves > 500

    bid, ask, bid_size, ask_size = np.array(tops[middle:]).T
    mid, states = (bid + ask) / 2, np.array([state(*top) for top in tops[middle:]])
    quoted = {
        "mid": mid,
        "microprice": (bid * ask_size + ask * bid_size) / (bid_size + ask_size),
        "adjusted": mid + fitted.adjustment[states],
        "raw": mid + fitted.raw[states],
    }

    # A hundred changes of the top ahead: the micro-price tells of the long run.
    later = {name: np.mean((mid[100:] - price[:-100]) ** 2) for name, price in quoted.items()}
    assert later["raw"] < later["adjusted"] < later["microprice"] < later["mid"]
    assert later["raw"] < 0.985 * later["mid"]

    # To the next change of the mid, where the quotes are near; a wide spread closes first and goes on only then.
    changes = np.flatnonzero(np.diff(mid)) + 1
    near = np.flatnonzero((ask - bid < 4) & (np.arange(len(mid)) < changes[-1]))
    following = mid[changes[np.searchsorted(changes, near, side="right")]]
    soon = {name: np.mean((following - price[near]) ** 2) for name, price in quoted.items()}
    assert soon["adjusted"] < soon["mid"]
