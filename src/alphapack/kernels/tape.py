"""What the tape tells: VPIN in the clock of volume, Kyle's lambda in seconds, candles in minutes of the venue's clock.

VPIN: Easley, Lopez de Prado, O'Hara, "Flow toxicity and liquidity in a high-frequency world" (2012), with the true aggressor in
place of bulk classification. Kyle's lambda: the slope of price changes on signed flow (Kyle 1985), by least squares.

A candle is made of a minute only if no trade was missed from before its start until it closed. The tape is followed from a
trade on, in whose minute others may have come before; that minute is cut, and so is each one in which the tape broke.
"""

import math

from alphapack.arrays import Float64Array1D, Int64Array1D
from alphapack.jit import njit
from alphapack.kernels import marks as m


@njit
def take_slot(ts_ns: int, volume: float, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Add a trade to the volume of the last 24 h, held in ten-minute slots."""
    slot = ts_ns // m.SLOT_NS
    if marks[m.TAPE_SINCE] == m.NEVER:
        marks[m.TAPE_SINCE] = ts_ns
        marks[m.SLOT_AT] = slot
    for passed in range(max(marks[m.SLOT_AT], slot - m.SLOTS_N) + 1, slot + 1):
        reals[m.SLOTS + passed % m.SLOTS_N] = 0.0
    marks[m.SLOT_AT] = slot
    reals[m.SLOTS + slot % m.SLOTS_N] += volume


@njit
def bucket_size(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D) -> float:
    """Return the size of a bucket that opens now, 0 while 24 h of volume are not known and the user has fixed none.

    In fiftieths of the unit of volume, so that a fiftieth of a day is a whole number of them, and exact up to 2**53.
    """
    if reals[m.BUCKET_FIXED] > 0.0:
        return float(reals[m.BUCKET_FIXED])
    if ts_ns - marks[m.TAPE_SINCE] < m.SLOTS_N * m.SLOT_NS:
        return 0.0
    total = 0.0
    for i in range(m.SLOTS_N):
        total += reals[m.SLOTS + i]
    return total


@njit
def push_bucket(gap: float, size: float, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Take a full bucket; the one before the last 50 leaves."""
    place = marks[m.BUCKETS_HEAD] & (m.BUCKETS_RING - 1)
    reals[m.BUCKET_GAPS + place] = gap
    reals[m.BUCKET_SIZES + place] = size
    marks[m.BUCKETS_HEAD] += 1
    if marks[m.BUCKETS_HEAD] - marks[m.BUCKETS_TAIL] > m.BUCKETS_N:
        marks[m.BUCKETS_TAIL] += 1
    gaps = sizes = 0.0
    for position in range(marks[m.BUCKETS_TAIL], marks[m.BUCKETS_HEAD]):
        gaps += reals[m.BUCKET_GAPS + (position & (m.BUCKETS_RING - 1))]
        sizes += reals[m.BUCKET_SIZES + (position & (m.BUCKETS_RING - 1))]
    reals[m.VPIN_NOW] = gaps / sizes


@njit
def take_bucket(ts_ns: int, volume: float, bought: int, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Pour a trade into the buckets, split at their edges; ``bought`` is 1 where the buyer took."""
    if reals[m.BUCKET] == 0.0:
        reals[m.BUCKET] = reals[m.BUCKET_ROOM] = bucket_size(ts_ns, marks, reals)
        if reals[m.BUCKET] == 0.0:
            return
    side = m.BUCKET_BOUGHT if bought == 1 else m.BUCKET_SOLD
    left = m.BUCKETS_N * volume
    while True:
        part = min(left, reals[m.BUCKET_ROOM])
        reals[side] += part
        reals[m.BUCKET_ROOM] -= part
        left -= part
        if reals[m.BUCKET_ROOM] > 0.0:
            return
        push_bucket(abs(reals[m.BUCKET_BOUGHT] - reals[m.BUCKET_SOLD]), reals[m.BUCKET], marks, reals)
        reals[m.BUCKET_BOUGHT] = reals[m.BUCKET_SOLD] = 0.0
        reals[m.BUCKET] = reals[m.BUCKET_ROOM] = bucket_size(ts_ns, marks, reals)
        whole = math.floor(left / reals[m.BUCKET])
        if whole > m.BUCKETS_N:  # Of buckets all alike, those that would leave again at once need not come.
            left -= (whole - m.BUCKETS_N) * reals[m.BUCKET]


@njit
def close_seconds(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Close the seconds of the epoch that ended before ``ts_ns``, and fit the slope anew where one did."""
    last = (ts_ns - 1) // m.NS_PER_S
    at = marks[m.SECOND_AT]
    if last - at > m.KYLE_S:  # Nothing happened for longer than the window: only the newest seconds matter.
        if marks[m.SECOND_HAS] == 1:
            marks[m.SECONDS] += last - at - m.KYLE_S
        if marks[m.MID_HAS] == 1:
            marks[m.SECOND_HAS] = 1
            reals[m.SECOND_LOG_MID] = reals[m.LOG_MID]
        reals[m.SECOND_QUOTE] = reals[m.SECOND_TRADES] = 0.0
        at = last - m.KYLE_S
    while at < last:
        at += 1
        place = at & (m.KYLE_RING - 1)
        if marks[m.SECOND_HAS] == 1:
            reals[m.KYLE_MOVES + place] = 10_000.0 * (reals[m.LOG_MID] - reals[m.SECOND_LOG_MID])
            reals[m.KYLE_FLOWS + place] = reals[m.SECOND_QUOTE] / 1_000_000.0
            reals[m.KYLE_TRADES + place] = reals[m.SECOND_TRADES]
            marks[m.SECONDS] += 1
        if marks[m.MID_HAS] == 1:
            reals[m.SECOND_LOG_MID] = reals[m.LOG_MID]
            marks[m.SECOND_HAS] = 1
        reals[m.SECOND_QUOTE] = reals[m.SECOND_TRADES] = 0.0
    marks[m.SECOND_AT] = at
    fit_slope(marks, reals)


@njit
def fit_slope(marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Regress the closed seconds' moves on their flows, with an intercept."""
    n = min(marks[m.SECONDS], m.KYLE_S)
    last = marks[m.SECOND_AT]
    moves = flows = 0.0
    traded = 0
    for second in range(last - n + 1, last + 1):
        place = second & (m.KYLE_RING - 1)
        moves += reals[m.KYLE_MOVES + place]
        flows += reals[m.KYLE_FLOWS + place]
        traded += reals[m.KYLE_TRADES + place] > 0.0
    products = squares = 0.0
    for second in range(last - n + 1, last + 1):
        place = second & (m.KYLE_RING - 1)
        flow = reals[m.KYLE_FLOWS + place] - flows / n
        products += flow * (reals[m.KYLE_MOVES + place] - moves / n)
        squares += flow * flow
    marks[m.KYLE_N] = traded
    # Flows that are all alike leave rounding errors in place of a variance.
    reals[m.KYLE] = products / squares + 0.0 if squares > 1e-24 * flows * flows else math.nan


@njit
def clear_seconds(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Forget the seconds so far; the first to be observed begins at the next whole second."""
    marks[m.SECOND_AT] = (ts_ns - 1) // m.NS_PER_S
    marks[m.SECOND_HAS] = marks[m.SECONDS] = marks[m.KYLE_N] = 0
    reals[m.SECOND_QUOTE] = reals[m.SECOND_TRADES] = 0.0
    reals[m.KYLE] = math.nan


@njit
def cut_minutes(marks: Int64Array1D) -> None:
    """Give up the open minutes: trades of theirs may be missing. The next trade begins anew."""
    marks[m.MINUTE] = m.NEVER
    marks[m.MINUTE_LOTS] = marks[m.MINUTE_LOTS + 1] = 0


@njit
def close_minute(marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Close the oldest open minute, and keep its candle if it is whole; one without trades carries the last close."""
    minute = marks[m.MINUTE]
    slot = minute & 1
    ticks, lots = m.MINUTE_TICKS + 4 * slot, marks[m.MINUTE_LOTS + slot]
    if lots == 0:
        for i in range(4):
            marks[ticks + i] = marks[m.MINUTE_CARRIED]
    if minute > marks[m.MINUTE_CUT]:
        row = m.CLOSED_MINUTES + m.MINUTES_WIDTH * (marks[m.MINUTES_HEAD] & (m.MINUTES_RING - 1))
        reals[row] = minute * (m.MINUTE_NS // 1_000_000)
        for i in range(4):
            reals[row + 1 + i] = marks[ticks + i] * reals[m.PRICE_UNITS] / reals[m.PRICE_SCALE]
        reals[row + 5] = lots * reals[m.SIZE_UNITS] / reals[m.SIZE_SCALE]
        marks[m.MINUTES_HEAD] += 1
        if marks[m.MINUTES_HEAD] - marks[m.MINUTES_TAIL] > m.MINUTES_RING:
            marks[m.MINUTES_TAIL] += 1
    marks[m.MINUTE_CARRIED] = marks[ticks + 3]
    marks[m.MINUTE_LOTS + slot] = 0
    marks[m.MINUTE] = minute + 1


@njit
def close_minutes(venue_ns: int, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Close the minutes that had ended for long enough at ``venue_ns``; a tape that nobody looked at for longer is cut."""
    due = (venue_ns - m.MINUTE_DELAY_NS) // m.MINUTE_NS
    if marks[m.MINUTE] == m.NEVER or marks[m.MINUTE] >= due:
        return
    if due - marks[m.MINUTE] > m.MINUTES_RING:
        cut_minutes(marks)
        return
    while marks[m.MINUTE] < due:
        close_minute(marks, reals)


@njit
def minutes(ts_ns: int, marks: Int64Array1D, reals: Float64Array1D) -> int:
    """Close the minutes that are due at ``ts_ns`` by the venue's clock as it was told last; returns how many wait to be taken."""
    if abs(marks[m.LAG_NS]) <= m.OFFSET_NS_MAX:
        close_minutes(ts_ns - marks[m.LAG_NS], marks, reals)
    return int(marks[m.MINUTES_HEAD] - marks[m.MINUTES_TAIL])


@njit
def take_minute(ts_ns: int, venue_ns: int, price: int, lots: int, marks: Int64Array1D, reals: Float64Array1D) -> None:
    """Take a trade into the candle of its minute by the venue's clock; one whose minute has closed is late, and counted."""
    if venue_ns <= 0 or abs(ts_ns - venue_ns) > m.OFFSET_NS_MAX:  # It belongs to some minute, and nobody knows which.
        cut_minutes(marks)
        return
    marks[m.TRADED_NS] = venue_ns
    minute = venue_ns // m.MINUTE_NS
    if minute > marks[m.MINUTE]:
        close_minutes(venue_ns, marks, reals)
    if marks[m.MINUTE] == m.NEVER:
        marks[m.MINUTE] = marks[m.MINUTE_CUT] = minute
    if minute < marks[m.MINUTE]:
        marks[m.TRADES_LATE] += 1
        return
    slot = minute & 1
    traded = marks[m.MINUTE_LOTS + slot]
    if traded > m.SUM_MAX - lots:
        cut_minutes(marks)
        return
    ticks = m.MINUTE_TICKS + 4 * slot
    if traded == 0:
        marks[ticks] = marks[ticks + 1] = marks[ticks + 2] = price
    elif price > marks[ticks + 1]:
        marks[ticks + 1] = price
    elif price < marks[ticks + 2]:
        marks[ticks + 2] = price
    marks[ticks + 3] = price
    marks[m.MINUTE_LOTS + slot] = traded + lots
