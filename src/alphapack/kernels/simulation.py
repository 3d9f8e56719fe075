"""A simulated market: latent prices, a book of levels, orders that come and go, and all of it as a venue's bytes.

A symbol lives in steps of 50 ms, each at one instant of its own within the step. In a step news may come, market orders take
from the book, the efficient price moves by both, orders that it has passed are cancelled and new ones placed, and what changed is
said. Symbols share nothing but draws that depend on the time alone, so each can be run by itself.

A market order moves the efficient price by ``side - E[side]`` times a scale, so that signs have memory and the price has none: at
edge 0 it is a martingale, whatever is known of the orders and of the book. At an edge above 0 it drifts with the pressure of buyers,
which order signs and quantities lean with at any edge.

As in ``kernels.book`` a key is +ticks of a bid and -ticks of an ask, and the best level of a side has the highest key. A side is
a ring of quantities at ``key & (WINDOW - 1)``; no level lies further than ``DEPTH + MARGIN`` from the best.

All chance comes from ``word``: 32 bits that depend on a key and a counter and on nothing else.
"""

import math
from typing import cast

import numpy as np

from alphapack.arrays import Float64Array1D, Int64Array1D
from alphapack.jit import njit

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]

NS_PER_MS = 1_000_000
STEP_NS = 50_000_000
STEP_S = 0.05
STEPS_S = 20
STEPS_MINUTE = 60 * STEPS_S
MINUTE_NS = 60_000_000_000
MINUTES_DAY = 1_440
QUARTERS = 4
"""Parts of a minute in which candles of the past are made."""
QUARTER_S = 15.0

# The book

BID, ASK = 0, 1
WINDOW = 1 << 13
DEPTH = 1_500
"""Ticks from the best level down to which a side is filled."""
MARGIN = 512
"""Ticks beyond it that levels may lie when the price has left them, so that a price that comes and goes changes nothing there."""
CHASE = 200.0
"""Ticks that quotes follow the efficient price in a step. DEPTH + MARGIN and the way of a second stay below WINDOW."""
OCCUPIED = 0.45
"""Share of the levels of a new stretch of the book that hold something."""
WALK_MAX = 32
"""Trades of one market order at most."""
ORDERS_STEP_MAX = 32
FAIR_MIN, FAIR_MAX = 500.0, 1e10

# A symbol's whole numbers: chance and time,

KEY, DRAWN, CLOCK, COMMON, COMMON_STEPS = 0, 1, 2, 3, 4
"""Keys of the symbol's own draws (with their counter), of its instants, and of what all symbols share by minutes and by steps."""
STEP, MINUTE, JUMP_S = 5, 6, 7
"""The next step, the minute that runs, and the second of it at which the price jumps (60: none)."""
# the book,
BEST, END = 8, 10
"""Keys of the best level, and of the last one that was filled, a side each."""
UPDATE, SENT, TRADE = 12, 13, 14
"""The last update id, the one at the last depth update, and the last trade's id."""
GENERATION, TOUCHED_N, DEPTH_STEPS = 15, 16, 18
QUOTED = 19
"""Keys and lots of the best levels as the last ticker said."""
# the candle of the running minute, as it is stored: ticks, lots, and products of both (or 1e-8 coins of inverse contracts),
CANDLE = 24
OPEN, HIGH, LOW, CLOSE, LOTS, WORTH, COUNT, BOUGHT, BOUGHT_WORTH = 0, 1, 2, 3, 4, 5, 6, 7, 8
CANDLE_WIDTH = 9
FIRST_MINUTE = 33
# what numbers look like,
PRICE_UNITS, PRICE_DECIMALS, LOT_UNITS, LOT_DECIMALS, WORTH_UNITS, WORTH_DECIMALS = 34, 35, 36, 37, 38, 39
# what has been said,
LOGGED, RECORDS, TEXTS = 40, 41, 42
"""Words and records in the log; where each template begins and ends."""
# and rings of both sides: quantities, when they were touched last, and the keys touched since the last depth update.
QUANTITIES = 64
STAMPS = QUANTITIES + 2 * WINDOW
TOUCHED = STAMPS + 2 * WINDOW
INTS = TOUCHED + 2 * WINDOW

# A symbol's real numbers.

FAIR, QUOTES_AT = 0, 1
"""Efficient price in ticks, and the price around which quotes stand."""
BASE_SIGMA, LEVEL, FAST, SIGMA = 2, 3, 4, 5
"""Volatility of the return of a second: on average; by the minute; log of its fast part; as it is."""
SLOW = 6
PRESSURE, LEANING, IMBALANCE, TILTS = 9, 10, 13, 15
"""Slow pressure of buyers (standard deviation 1); three memories of order signs; the book's own leaning; factors of quantities a side."""
JUMP, INTENSITY, LEAN = 17, 18, 19
EDGE, ACTIVITY, INVERSE = 20, 21, 22
LEVEL_LOTS, ORDER_LOTS, ORDER_LOTS_MEAN, ORDER_FACTOR = 23, 24, 25, 26
COMMON_LOAD, OWN_LOAD = 27, 28
EXCITED = 29
"""Market orders a step that the last ones bring about."""
REALS = 30

# The log: what was said, in records of HEAD words, each followed by the price and the quantity of every level that it lists.

TEXT, AT_NS, LISTED, SLOTS = 0, 1, 2, 4
"""The template; the time; how many levels are listed a side; and the values that the template's slots stand for:"""
FIRST_ID, LAST_ID, PREVIOUS_ID, TRADES_N = 0, 1, 2, 3
PRICES, QUANTITY, WORTHS = 4, 8, 10
HEAD = 16
MS, MS_END, SIDES = 12, 13, 14
"""Slots of the time, of a minute's end, and of the levels listed: they have no value of their own."""
DEPTH_TEXT, TICKER_TEXT, SOLD_TEXT, BOUGHT_TEXT, CANDLE_TEXT, SNAPSHOT_TEXT = 0, 1, 2, 3, 4, 5
"""Templates; a trade has one for each side that it can take from, in their order."""
SLOT = 128
"""Bytes of a template from here on are slots."""
LOG_STEP_MAX = HEAD * (WALK_MAX * (ORDERS_STEP_MAX + 1) + 2) + 4 * WINDOW
"""Words that a step may say."""
WORD_BYTES_MAX = 25
"""Bytes on the wire for each word of the log: 50 a level, 400 beside."""

# Parameters of the model. The first are time constants in seconds or minutes, and standard deviations of logs.

SLOW_PHI = (math.exp(-1 / 20), math.exp(-1 / 360), math.exp(-1 / 5_760))
SLOW_SD = (0.30, 0.30, 0.25)
SLOW_SHARED, SLOW_OWN = 0.8, 0.6
FAST_S, FAST_SD = 60.0, 0.30
LEVEL_SHIFT = 0.30**2 + 0.30**2 + 0.25**2 + 0.05
"""Keeps the mean variance at the base's: the slow parts' variance, and the day's."""
DAY, HALF_DAY, PEAK_MINUTE = 0.30, 0.10, 15 * 60
JUMPS_SHARED, JUMPS_OWN = 1.0 / MINUTES_DAY, 2.0 / MINUTES_DAY
JUMP_LEAST, JUMP_MORE, JUMP_STEPS = 2.5, 2.5, 40
"""Sizes of jumps, in standard deviations of a minute: the least, and what comes on top on average; and the steps that one takes."""
SHARED_DRAWS, SETTLED, JUMPED = 16, 4, 8
"""Draws of a minute that all symbols share: how many have a number, and where those of the first minute and of jumps begin."""
PRESSURE_S = 300.0
DRIFT = 0.024
"""Drift by a pressure of 1 at edge 1, in standard deviations of a second's return a second."""
LEANING_PHI = (math.exp(-1 / 3), math.exp(-1 / 30), math.exp(-1 / 300), math.exp(-1 / 15))
LEANING_WEIGHTS = (0.50, 0.30, 0.20)
LEAN_PRESSURE, LEAN_MAX = 0.32, 0.9
TILT_PRESSURE, TILT_OWN = 0.20, 0.30
MOVE_P = 0.08
"""Chance that a step brings news that all symbols share: prices move in bursts. What moves a symbol alone are its market orders."""
HIT_P = 0.5
"""Chance that news is traded on before the quotes follow."""
INTENSITY_POWER, SIZE_POWER = 0.7, 0.7
"""How rates and sizes of orders follow the volatility."""
ORDERS_S = 2.0
"""Market orders a second beside those on news."""
EXCITED_SHARE, EXCITED_KEPT = 0.5, math.exp(-0.05 / 0.5)
"""Share of them that earlier ones bring about, and what is left of an order's effect after a step."""
SPLIT_P, TRADES_ORDER = 0.45, 2.1
"""Chance that an order takes only a part of what it could from a level, as one trade of several; and trades of an order on average."""
PLACED_S, CANCELLED_S = 13.0, 20.0
"""Limit orders a second and side, and cancels, of which those that find no level do nothing."""
CANCEL_WHOLE = 0.8
GAP_ORDERS = 6
"""Orders that fill in behind a new best quote, and one more for every four ticks."""
SPREAD_TICKS = 0.3
QUOTE_FACTOR = 8.0
"""Size of a quote that becomes the best over that of another limit order."""
LEVEL_SD, ORDER_SD = 0.8, 1.7
LOG_DEPTH = math.log(DEPTH)

ZERO = cast(int, np.int64(0))
"""No literal, for which numba would compile what is called with it once more."""
_LOW = 0xFFFFFFFF
_OPEN, _CLOSE, _COMMA, _MARK, _POINT, _DIGIT = b'[],".0'
_UNIT = 2.0**-32


@njit
def word(key: int, n: int) -> int:
    """Return 32 random bits: the ``n``-th of those that belong to ``key`` (both 0 to 2**62 - 1)."""
    x, more = n ^ key, (key >> 32) + 0x5BD1E995 * (n >> 32)
    for _ in range(2):  # Factors below 2**31: no product leaves an int64, and interpreted numbers give the same.
        x = (x + more) & _LOW
        x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _LOW
        x = ((x ^ (x >> 15)) * 0x735A2D97) & _LOW
        x ^= x >> 15
    return x


@njit
def uniform(key: int, n: int) -> float:
    """Return a uniform number in (0, 1)."""
    return (word(key, 2 * n) + 0.5) * _UNIT


@njit
def normal(key: int, n: int) -> float:
    """Return a number of mean 0 and variance 1, nearly normal: the sum of four uniform ones.

    It ends at 3.46 standard deviations. Fat tails are the model's own, by its volatility and its jumps.
    """
    a, b = word(key, 2 * n), word(key, 2 * n + 1)
    return ((a & 0xFFFF) + (a >> 16) + (b & 0xFFFF) + (b >> 16) - 131_070.0) / 37_837.227


@njit
def chance(ints: Int64Array1D) -> float:
    """Draw a uniform number in (0, 1) of the symbol's own."""
    ints[DRAWN] += 1
    return uniform(ints[KEY], ints[DRAWN])


@njit
def shock(ints: Int64Array1D) -> float:
    """Draw a normal number of the symbol's own."""
    ints[DRAWN] += 1
    return normal(ints[KEY], ints[DRAWN])


# The latent process


@njit
def begin_minute(ints: Int64Array1D, reals: Float64Array1D) -> None:
    """Move the slow parts of the volatility on by a minute, and say whether and when the price jumps in it."""
    minute, at = ints[MINUTE], SHARED_DRAWS * ints[MINUTE]
    log_level = -LEVEL_SHIFT
    for j in range(3):
        both = SLOW_SHARED * normal(ints[COMMON], at + j) + SLOW_OWN * shock(ints)
        reals[SLOW + j] = SLOW_PHI[j] * reals[SLOW + j] + SLOW_SD[j] * math.sqrt(1.0 - SLOW_PHI[j] * SLOW_PHI[j]) * both
        log_level += reals[SLOW + j]
    angle = 2.0 * math.pi * ((minute - PEAK_MINUTE) % MINUTES_DAY) / MINUTES_DAY
    log_level += DAY * math.cos(angle) + HALF_DAY * math.cos(2.0 * angle)
    reals[LEVEL] = reals[BASE_SIGMA] * math.exp(log_level)
    reals[INTENSITY] = reals[ACTIVITY] * min(max(math.exp(INTENSITY_POWER * log_level), 0.2), 4.0)
    ints[JUMP_S] = 60
    shared = uniform(ints[COMMON], at + JUMPED) < JUMPS_SHARED
    if not shared and chance(ints) >= JUMPS_OWN:
        return
    when, how, where = chance(ints), chance(ints), chance(ints)
    if shared:
        when, how, where = (
            uniform(ints[COMMON], at + JUMPED + 1),
            uniform(ints[COMMON], at + JUMPED + 2),
            uniform(ints[COMMON], at + JUMPED + 3),
        )
    ints[JUMP_S] = int(58.0 * when)
    reals[JUMP] = (JUMP_LEAST - JUMP_MORE * math.log(how)) * reals[LEVEL] * math.sqrt(60.0)
    if where < 0.5:
        reals[JUMP] = -reals[JUMP]


@njit
def breathe(seconds: float, ints: Int64Array1D, reals: Float64Array1D) -> None:
    """Move the fast part of the volatility and the pressure on by so many seconds."""
    kept = math.exp(-seconds / FAST_S)
    reals[FAST] = kept * reals[FAST] + FAST_SD * math.sqrt(1.0 - kept * kept) * shock(ints)
    reals[SIGMA] = reals[LEVEL] * math.exp(reals[FAST] - FAST_SD * FAST_SD)
    reals[ORDER_FACTOR] = math.exp(SIZE_POWER * math.log(reals[SIGMA] / reals[BASE_SIGMA]))
    kept = math.exp(-seconds / PRESSURE_S)
    reals[PRESSURE] = kept * reals[PRESSURE] + math.sqrt(1.0 - kept * kept) * shock(ints)


@njit
def move_fair(move: float, reals: Float64Array1D) -> None:
    """Move the efficient price by a log return."""
    reals[FAIR] = min(max(reals[FAIR] * math.exp(move), FAIR_MIN), FAIR_MAX)


@njit
def history(minutes: int, ints: Int64Array1D, reals: Float64Array1D, candles: Int64Array1D) -> None:
    """Make candles of so many minutes from ``MINUTE`` on, which moves; the last one's end is where order flow begins."""
    for _ in range(minutes):
        begin_minute(ints, reals)
        high = low = reals[FAIR]
        factor = 0.0
        for quarter in range(QUARTERS):
            breathe(QUARTER_S, ints, reals)
            factor += reals[ORDER_FACTOR] / QUARTERS
            sd = reals[SIGMA] * math.sqrt(QUARTER_S)
            both = reals[COMMON_LOAD] * normal(ints[COMMON_STEPS], QUARTERS * ints[MINUTE] + quarter) + reals[OWN_LOAD] * shock(ints)
            move = sd * both + reals[EDGE] * DRIFT * reals[SIGMA] * QUARTER_S * reals[PRESSURE]
            if ints[JUMP_S] // 15 == quarter:
                move += reals[JUMP]
            # Extremes of a Brownian bridge between the two ends.
            up = 0.5 * (move + math.sqrt(move * move - 2.0 * sd * sd * math.log(chance(ints))))
            down = 0.5 * (move - math.sqrt(move * move - 2.0 * sd * sd * math.log(chance(ints))))
            high, low = max(high, reals[FAIR] * (1.0 + up)), min(low, reals[FAIR] * (1.0 + down))
            move_fair(move, reals)
        close = int(reals[FAIR] + 0.5)
        at = CANDLE
        ints[at + HIGH] = max(int(high + 0.5), ints[at + OPEN], close)
        ints[at + LOW] = min(int(low + 0.5), ints[at + OPEN], close)
        ints[at + CLOSE] = close
        orders = 60.0 * (ORDERS_S * reals[INTENSITY] + STEPS_S * MOVE_P * HIT_P)
        orders *= math.exp(0.25 * shock(ints))
        ints[at + COUNT] = int(TRADES_ORDER * orders) + 1
        ints[at + LOTS] = int(orders * factor * reals[ORDER_LOTS_MEAN]) + 1
        share = min(max(0.5 + 0.1 * shock(ints) + 0.1 * reals[PRESSURE], 0.05), 0.95)
        ints[at + BOUGHT] = int(share * ints[at + LOTS])
        middle = (ints[at + HIGH] + ints[at + LOW] + close) // 3
        ints[at + WORTH] = worth(middle, ints[at + LOTS], reals)
        ints[at + BOUGHT_WORTH] = worth(middle, ints[at + BOUGHT], reals)
        end_minute(ints, candles)


@njit
def worth(ticks: int, lots: int, reals: Float64Array1D) -> int:
    """Return what lots are worth: ticks times lots, or of inverse contracts 1e-8 coins."""
    if reals[INVERSE] == 0.0:
        return ticks * lots
    return int(reals[INVERSE] * lots / ticks + 0.5)


@njit
def end_minute(ints: Int64Array1D, candles: Int64Array1D) -> None:
    """Store the running minute's candle and begin the next one's at its close."""
    rows = len(candles) // CANDLE_WIDTH
    at = (ints[MINUTE] - ints[FIRST_MINUTE]) % rows * CANDLE_WIDTH
    close = ints[CANDLE + CLOSE]
    for i in range(CANDLE_WIDTH):
        candles[at + i] = ints[CANDLE + i]
        ints[CANDLE + i] = close if i <= CLOSE else 0
    ints[MINUTE] += 1


# The book


@njit
def put(side: int, key: int, lots: int, ints: Int64Array1D) -> None:
    """Make ``lots`` the quantity of a level, zero to remove it; ``BEST`` only rises by it."""
    place = side * WINDOW + (key & (WINDOW - 1))
    if ints[QUANTITIES + place] == lots:
        return
    ints[QUANTITIES + place] = lots
    ints[UPDATE] += 1
    if ints[STAMPS + place] != ints[GENERATION]:
        ints[STAMPS + place] = ints[GENERATION]
        ints[TOUCHED + side * WINDOW + ints[TOUCHED_N + side]] = key
        ints[TOUCHED_N + side] += 1
    if lots > 0 and key > ints[BEST + side]:
        ints[BEST + side] = key


@njit
def lower_best(side: int, ints: Int64Array1D, reals: Float64Array1D) -> None:
    """Bring the best level of a side down to where there is one; a side that is empty gets one."""
    key = ints[BEST + side]
    while ints[QUANTITIES + side * WINDOW + (key & (WINDOW - 1))] == 0:
        key -= 1
        if key < ints[END + side]:
            put(side, ints[END + side], size(side, 1.0, ints, reals), ints)
            key = ints[END + side]
    ints[BEST + side] = key


@njit
def size(side: int, factor: float, ints: Int64Array1D, reals: Float64Array1D) -> int:
    """Draw the quantity of a limit order."""
    return max(1, int(factor * reals[LEVEL_LOTS] * reals[TILTS + side] * math.exp(LEVEL_SD * shock(ints))))


@njit
def distance(ints: Int64Array1D) -> int:
    """Draw how many ticks behind the best an order is placed or cancelled: 0 to DEPTH - 1, nearer ones more often."""
    return int(math.exp(chance(ints) * LOG_DEPTH)) - 1


@njit
def extend(side: int, ints: Int64Array1D, reals: Float64Array1D) -> None:
    """Fill the far end of a side down to DEPTH below its best, and drop what lies beyond the margin."""
    low = ints[BEST + side] - DEPTH
    if side == BID:
        low = max(low, 1)
    while ints[END + side] > low:
        ints[END + side] -= 1
        if chance(ints) < OCCUPIED:
            put(side, ints[END + side], size(side, 2.0, ints, reals), ints)
    while ints[END + side] < low - MARGIN:
        put(side, ints[END + side], ZERO, ints)
        ints[END + side] += 1


@njit
def tend(side: int, limit: int, ints: Int64Array1D, reals: Float64Array1D) -> None:
    """Cancel what the price has passed, place and cancel orders, and quote anew; ``limit`` is the best key a quote may have."""
    if ints[BEST + side] > limit:
        for key in range(ints[BEST + side], limit, -1):
            put(side, key, ZERO, ints)
        ints[BEST + side] = limit
        lower_best(side, ints, reals)
    for _ in range(int(PLACED_S * STEP_S * reals[INTENSITY] + chance(ints))):
        key = limit - distance(ints)
        if key >= ints[END + side]:
            there = ints[QUANTITIES + side * WINDOW + (key & (WINDOW - 1))]
            put(side, key, there + size(side, 1.0, ints, reals), ints)
    for _ in range(int(CANCELLED_S * STEP_S * reals[INTENSITY] + chance(ints))):
        key = ints[BEST + side] - distance(ints)
        there = ints[QUANTITIES + side * WINDOW + (key & (WINDOW - 1))]
        if key >= ints[END + side] and there > 0:
            put(side, key, 0 if chance(ints) < CANCEL_WHOLE else int(there * chance(ints)), ints)
            lower_best(side, ints, reals)
    gap = limit - ints[BEST + side]
    if gap > 0:
        behind = int(-SPREAD_TICKS * math.log(chance(ints)))
        if behind < gap:
            put(side, limit - behind, size(side, QUOTE_FACTOR, ints, reals), ints)
        for _ in range(min(gap - 1, GAP_ORDERS + gap // 4)):
            put(side, limit - int(math.exp(chance(ints) * math.log(gap))), size(side, 1.0, ints, reals), ints)
    extend(side, ints, reals)


# Bytes


@njit
def number(value: int, decimals: int, out: Bytes, at: int) -> int:
    """Write ``value * 10**-decimals``, not below zero, with all its decimals; returns where it ends."""
    digits, rest = 0, value
    while rest > 0 or digits <= decimals:
        rest //= 10
        digits += 1
    end = at + digits
    if decimals > 0:
        end += 1
    place, rest = end, value
    for i in range(digits):
        if i == decimals and i > 0:
            place -= 1
            out[place] = _POINT
        place -= 1
        out[place] = _DIGIT + rest % 10
        rest //= 10
    return end


@njit
def level(ticks: int, lots: int, ints: Int64Array1D, out: Bytes, at: int) -> int:
    """Write a level as ``["price","quantity"],``; returns where it ends."""
    out[at], out[at + 1] = _OPEN, _MARK
    at = number(ticks * ints[PRICE_UNITS], ints[PRICE_DECIMALS], out, at + 2)
    out[at], out[at + 1], out[at + 2] = _MARK, _COMMA, _MARK
    at = number(lots * ints[LOT_UNITS], ints[LOT_DECIMALS], out, at + 3)
    out[at], out[at + 1], out[at + 2] = _MARK, _CLOSE, _COMMA
    return at + 3


@njit
def write(records: int, log: Int64Array1D, ints: Int64Array1D, texts: Bytes, out: Bytes, frames: Int64Array1D) -> int:
    """Write so many records of the log as messages, one after the other; returns how many bytes they are.

    Parameters
    ----------
    log : int64[n]
    ints : int64[INTS]
        Tells what numbers look like and where the templates lie.
    texts : uint8[n]
        The templates.
    out : uint8[n]
        Has room for WORD_BYTES_MAX a word.
    frames : int64[2 * n]
        Receives time and end of each message.
    """
    at = record = ZERO
    for n in range(records):
        pair = record + HEAD
        for i in range(ints[TEXTS + 2 * log[record]], ints[TEXTS + 2 * log[record] + 1]):
            slot = int(texts[i]) - SLOT
            if slot < 0:
                out[at] = texts[i]
                at += 1
                continue
            if slot >= SIDES:
                listed = log[record + LISTED + slot - SIDES]
                for _ in range(listed):
                    at = level(abs(log[pair]), log[pair + 1], ints, out, at)
                    pair += 2
                at -= listed > 0  # The last one's comma.
                continue
            value, units, decimals = log[record + SLOTS + slot], 1, 0
            if slot >= MS:
                value = (log[record + AT_NS] + (slot - MS) * (MINUTE_NS - 1)) // NS_PER_MS
            elif slot >= WORTHS:
                units, decimals = ints[WORTH_UNITS], ints[WORTH_DECIMALS]
            elif slot >= QUANTITY:
                units, decimals = ints[LOT_UNITS], ints[LOT_DECIMALS]
            elif slot >= PRICES:
                units, decimals = ints[PRICE_UNITS], ints[PRICE_DECIMALS]
            at = number(value * units, decimals, out, at)
        frames[2 * n] = log[record + AT_NS]
        frames[2 * n + 1] = at
        record = pair
    return at


# Order flow


@njit
def say(text: int, ts_ns: int, ints: Int64Array1D, log: Int64Array1D) -> int:
    """Begin a record; returns where it lies."""
    at = int(ints[LOGGED])
    log[at + TEXT], log[at + AT_NS] = text, ts_ns
    log[at + LISTED + BID] = log[at + LISTED + ASK] = 0
    ints[LOGGED] += HEAD
    ints[RECORDS] += 1
    return at


@njit
def take(ts_ns: int, side: int, ints: Int64Array1D, reals: Float64Array1D, log: Int64Array1D) -> None:
    """Let a market order take from a side, level by level, in one trade or several each."""
    left = max(1, int(reals[ORDER_LOTS] * reals[ORDER_FACTOR] * math.exp(ORDER_SD * shock(ints))))
    for _ in range(WALK_MAX):
        key = ints[BEST + side]
        there = ints[QUANTITIES + side * WINDOW + (key & (WINDOW - 1))]
        lots, ticks = min(left, there), abs(key)
        if chance(ints) < SPLIT_P:
            lots = max(1, int(lots * chance(ints)))
        put(side, key, there - lots, ints)
        ints[TRADE] += 1
        at = say(SOLD_TEXT + side, ts_ns, ints, log) + SLOTS
        log[at + FIRST_ID], log[at + PRICES], log[at + QUANTITY] = ints[TRADE], ticks, lots
        if ints[CANDLE + COUNT] == 0:
            ints[CANDLE + OPEN] = ints[CANDLE + HIGH] = ints[CANDLE + LOW] = ticks
        ints[CANDLE + HIGH] = max(ints[CANDLE + HIGH], ticks)
        ints[CANDLE + LOW] = min(ints[CANDLE + LOW], ticks)
        ints[CANDLE + CLOSE] = ticks
        ints[CANDLE + COUNT] += 1
        value = worth(ticks, lots, reals)
        ints[CANDLE + LOTS] += lots
        ints[CANDLE + WORTH] += value
        if side == ASK:
            ints[CANDLE + BOUGHT] += lots
            ints[CANDLE + BOUGHT_WORTH] += value
        left -= lots
        if lots == there:
            lower_best(side, ints, reals)
        if left == 0:
            return


@njit
def begin_second(ints: Int64Array1D, reals: Float64Array1D) -> None:
    """Move on what changes by the second: volatility, pressure, and the leanings of orders and of the book."""
    breathe(1.0, ints, reals)
    for j in range(4):
        reals[LEANING + j] = LEANING_PHI[j] * reals[LEANING + j] + math.sqrt(1.0 - LEANING_PHI[j] * LEANING_PHI[j]) * shock(ints)
    lean = LEAN_PRESSURE * reals[PRESSURE]
    for j in range(3):
        lean += LEANING_WEIGHTS[j] * reals[LEANING + j]
    reals[LEAN] = min(max(lean, -LEAN_MAX), LEAN_MAX)
    tilt = math.exp(TILT_PRESSURE * reals[PRESSURE] + TILT_OWN * reals[IMBALANCE])
    reals[TILTS + BID], reals[TILTS + ASK] = tilt, 1.0 / tilt


@njit
def news(step: int, ints: Int64Array1D, reals: Float64Array1D) -> float:
    """Return the log return that news brings in a step: what all symbols share, and jumps."""
    move = 0.0
    if uniform(ints[COMMON_STEPS], 2 * step) < MOVE_P:
        move = reals[SIGMA] * math.sqrt(STEP_S / MOVE_P) * reals[COMMON_LOAD] * normal(ints[COMMON_STEPS], 2 * step + 1)
    if 0 <= step % STEPS_MINUTE - STEPS_S * ints[JUMP_S] < JUMP_STEPS:
        move += reals[JUMP] / JUMP_STEPS
    return float(move)


@njit
def say_quotes(ts_ns: int, step: int, ints: Int64Array1D, log: Int64Array1D) -> None:
    """Say what the best levels are where they changed, and which levels changed where a depth update is due."""
    changed = False
    for at in range(4):
        key = ints[BEST + at // 2]
        found = key if at % 2 == 0 else ints[QUANTITIES + at // 2 * WINDOW + (key & (WINDOW - 1))]
        changed = changed or ints[QUOTED + at] != found
        ints[QUOTED + at] = found
    due = step % ints[DEPTH_STEPS] == 0 and ints[UPDATE] > ints[SENT]
    for text in (TICKER_TEXT, DEPTH_TEXT):
        if not (changed if text == TICKER_TEXT else due):
            continue
        record = say(text, ts_ns, ints, log)
        at = record + SLOTS
        log[at + FIRST_ID], log[at + LAST_ID], log[at + PREVIOUS_ID] = ints[SENT] + 1, ints[UPDATE], ints[SENT]
        for side in range(2):
            log[at + PRICES + side], log[at + QUANTITY + side] = abs(ints[QUOTED + 2 * side]), ints[QUOTED + 2 * side + 1]
            if text == DEPTH_TEXT:
                first = ints[LOGGED]
                for i in range(ints[TOUCHED_N + side]):  # Best first.
                    key = ints[TOUCHED + side * WINDOW + i]
                    to = first + 2 * i
                    while to > first and log[to - 2] < key:
                        log[to], log[to + 1] = log[to - 2], log[to - 1]
                        to -= 2
                    log[to], log[to + 1] = key, ints[QUANTITIES + side * WINDOW + (key & (WINDOW - 1))]
                log[record + LISTED + side] = ints[TOUCHED_N + side]
                ints[LOGGED] += 2 * ints[TOUCHED_N + side]
                ints[TOUCHED_N + side] = 0
    if due:
        ints[SENT] = ints[UPDATE]
        ints[GENERATION] += 1


@njit
def flow(until_ns: int, ints: Int64Array1D, reals: Float64Array1D, log: Int64Array1D, candles: Int64Array1D) -> bool:
    """Run a symbol until ``until_ns``, or until there is no room for another step; returns whether it came to the end.

    Parameters
    ----------
    until_ns : int
        The last instant to run.
    ints : int64[INTS]
    reals : float64[REALS]
        The symbol's state.
    log : int64[n]
        Receives what is said, ``ints[RECORDS]`` records of ``ints[LOGGED]`` words.
    candles : int64[CANDLE_WIDTH * n]
        The ring of closed minutes.
    """
    ints[LOGGED] = ints[RECORDS] = 0
    while True:
        step = ints[STEP]
        ts_ns = step * STEP_NS + int(uniform(ints[CLOCK], step) * STEP_NS)
        while (ints[MINUTE] + 1) * MINUTE_NS <= min(ts_ns, until_ns):
            end_minute(ints, candles)
        if ts_ns > until_ns or ints[LOGGED] + LOG_STEP_MAX > len(log):
            return bool(ts_ns > until_ns)
        if step % STEPS_MINUTE == 0:
            begin_minute(ints, reals)
        if step % STEPS_S == 0:
            begin_second(ints, reals)
        move = news(step, ints, reals)
        informed = int(move != 0.0 and chance(ints) < HIT_P)
        # What an order's side tells beyond what was to be expected moves the price for good: signs have memory, prices have none.
        expected = (1.0 - EXCITED_SHARE) * ORDERS_S * STEP_S * reals[INTENSITY] + reals[EXCITED]
        lean, expected = reals[LEAN], min(expected, ORDERS_STEP_MAX - 1.0)
        impact = reals[SIGMA] * reals[OWN_LOAD] * math.sqrt(STEP_S / (expected * (1.0 - lean * lean)))
        orders = int(expected + chance(ints))
        for i in range(informed + orders):
            buys = int(move > 0.0 if i < informed else chance(ints) < 0.5 + 0.5 * lean)
            take(ts_ns, buys, ints, reals, log)
            if i >= informed:
                move += impact * (2.0 * buys - 1.0 - lean)
        reals[EXCITED] = EXCITED_KEPT * reals[EXCITED] + EXCITED_SHARE * (1.0 - EXCITED_KEPT) * orders
        move_fair(move + reals[EDGE] * DRIFT * reals[SIGMA] * STEP_S * reals[PRESSURE], reals)
        reals[QUOTES_AT] += min(max(reals[FAIR] - reals[QUOTES_AT], -CHASE), CHASE)
        floor = int(reals[QUOTES_AT])
        for side in range(2):
            tend(side, floor if side == BID else -floor - 1, ints, reals)
        say_quotes(ts_ns, step, ints, log)
        ints[STEP] = step + 1
