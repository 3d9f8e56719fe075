"""Where things stand in a symbol's state: names of the indices of ``marks`` (int64) and ``reals`` (float64).

``marks`` begins with ``MARKS`` scalars; the rings lie behind them, each at the place that its own marks tell, as
``RINGS`` lists. ``reals`` ends with the feature row.
"""

NS_PER_S = 1_000_000_000
GRID_NS = 100_000_000
"""Spacing of the grid on which mids are compared for micro_vol."""
GRID_STEPS, GRID_RING = 50, 64
UNUSED_NS = 250_000_000
"""How long a trade may wait for the depth message that shows its effect."""
SUM_MAX = 1 << 62
"""Bound of the running sums: reached only by hostile quantities, and checked before it is passed."""
TALLY_MAX = 1 << 60
VOLUME_MAX = 1 << 56
"""Base volume of one trade or level beyond which it is not believed."""
FLOW_MAX = 1 << 61
"""Bound of the sums of order flow: one message adds less than as much again."""
NEVER = -(1 << 62)
"""A time or an id that has not been."""

# Steps: units and decimals of the tick, of the lot; base units a coin of an inverse instrument, 0 before they are fixed.
TICK_UNITS, TICK_DECIMALS, LOT_UNITS, LOT_DECIMALS, BASE_UNITS = range(5)
# What is proven, and the counts of messages by kind.
LIVE, LAST_UPDATE, DEPTH_NS, LIVE_SINCE, TRADE_ID, PLAIN_TRADES, LAG_NS = range(5, 12)
DEPTHS_SEEN, TRADES_SEEN, TICKERS_SEEN, TICKER_CHECKED = range(12, 16)
# The mid on the 100 ms grid, and the second of Kyle's lambda.
GRID_AT, GRID_HAS, MID_HAS, MID_TICKS = range(16, 20)
SECOND_AT, SECOND_HAS, SECONDS, KYLE_N = range(20, 24)
# Whether the part of the row that needs no window must be written anew.
TOUCHED = 24
# What the depth message in hand took away at the top: removed, unexplained, removals, changes.
TALLY = 25
# Traded volume of the last 24 h: first trade, newest ten-minute slot. Full buckets of VPIN: newest and oldest position.
TAPE_SINCE, SLOT_AT, BUCKETS_HEAD, BUCKETS_TAIL = range(29, 33)
# The id that the next aggregate of trades has, 0 before the first.
AGGREGATE_NEXT = 33
# Candles of the tape: oldest open minute (NEVER: none is followed), last minute that is not whole, venue time of the last trade
# that was taken, trades that came after their minute had closed.
MINUTE, MINUTE_CUT, TRADED_NS, TRADES_LATE = range(34, 38)
# State of the top of the book for Stoikov's microprice, and mid changes counted.
TOP_STATE, MOVES = 38, 39
# Levels of the frame in hand.
BIDS_N, ASKS_N = 40, 41

# Rings: place, mask, then the positions.
TRADES = 42  # head; of 1, 5 and 30 s: tail, bought, sold
TRADES_HEAD, TRADES_1S, TRADES_5S, TRADES_30S = 44, 45, 48, 51
DEPTHS = 54  # head; tail of 5 s and sums of removed, unexplained, removals, changes; tail of 1 s and sums of ofi at level 1, at all
DEPTHS_HEAD, DEPTHS_5S, DEPTHS_1S = 56, 57, 62
WAITING = 65
WAITING_HEAD, WAITING_TAIL = 67, 68
UNUSED, UNUSED_N = 69, 71
TICKERS = 72
TICKERS_HEAD, TICKERS_TAIL = 74, 75
MINUTE_LOTS = 76  # Traded in the open minutes, even and odd.
MINUTES_HEAD, MINUTES_TAIL = 78, 79  # Closed minutes: next and oldest position.
COUNTS, SCRATCH = 82, 84  # Not rings: fixed tables and the levels being read; their second mark is their size.
FORMAT, NAME_N, NAME, NAME_WORDS = 86, 87, 88, 5
NAME_MAX = 8 * NAME_WORDS
AGGREGATES_SEEN = NAME + NAME_WORDS
MINUTE_TICKS = AGGREGATES_SEEN + 1  # Open, high, low and close of the open minutes, even and odd; the last close before them.
MINUTE_CARRIED = MINUTE_TICKS + 8
# Trades taken, ever; key and lots of the last.
TRADES_TAKEN, LAST_KEY, LAST_LOTS = range(MINUTE_CARRIED + 1, MINUTE_CARRIED + 4)
FIELDS = LAST_LOTS + 1  # What the envelope of the frame in hand says, by the code of its one-letter key.
FIELDS_N = 128
MARKS = FIELDS + FIELDS_N

TRADES_WIDTH, DEPTHS_WIDTH, WAITING_WIDTH, UNUSED_WIDTH, TICKERS_WIDTH = 2, 7, 3, 3, 5
SLOTS_N, SLOT_NS = 144, 600 * NS_PER_S
BUCKETS_N, BUCKETS_RING = 50, 64
MINUTE_NS, MINUTE_DELAY_NS = 60 * NS_PER_S, 2 * NS_PER_S
"""Length of a candle, and how long after its end on the venue's clock it closes."""
OFFSET_NS_MAX = 60 * NS_PER_S
"""Venue clocks further from ours are not believed: one absurd time must not close the minutes of a day."""
MINUTES_RING, MINUTES_WIDTH = 8, 6
IMBALANCES, SPREADS, STATES = 10, 4, 40
COUNTS_N = 2 * STATES * STATES + STATES
"""Transitions that left the mid, those that moved it, and the sum of the moves out of each state in half ticks."""

# reals
(LOG_MID, GRID_LOG_MID, PRICE_UNITS, PRICE_SCALE, SIZE_UNITS, SIZE_SCALE, CONTRACT, VOL_5S, VOL_1S) = range(9)
(SECOND_LOG_MID, SECOND_QUOTE, SECOND_TRADES, KYLE, VPIN_NOW) = range(9, 14)
CHANGES = 14
KYLE_S, KYLE_RING = 300, 512
KYLE_MOVES = CHANGES + GRID_RING
KYLE_FLOWS = KYLE_MOVES + KYLE_RING
KYLE_TRADES = KYLE_FLOWS + KYLE_RING
SLOTS = KYLE_TRADES + KYLE_RING
BUCKET_GAPS = SLOTS + SLOTS_N
BUCKET_SIZES = BUCKET_GAPS + BUCKETS_RING
# Buckets of VPIN, in fiftieths of the unit of volume: size (0: not known), room left, filled by buyers and sellers, the user's.
BUCKET = BUCKET_SIZES + BUCKETS_RING
BUCKET_ROOM, BUCKET_BOUGHT, BUCKET_SOLD, BUCKET_FIXED = range(BUCKET + 1, BUCKET + 5)
STOIKOV_FITTED = BUCKET_FIXED + 1
STOIKOV = STOIKOV_FITTED + 1
# Closed minutes, as rows of candles.
CLOSED_MINUTES = STOIKOV + STATES
# Of all trades taken: lots bought and sold by their aggressors, and lots times ticks.
BOUGHT, SOLD, VALUE = range(CLOSED_MINUTES + MINUTES_RING * MINUTES_WIDTH, CLOSED_MINUTES + MINUTES_RING * MINUTES_WIDTH + 3)
ROW = VALUE + 1

K = 5
"""Levels of obi, depth, cancel_rate, queue_rate and ofi."""
(BID, ASK, MID, MICROPRICE, SPREAD_BPS, OBI, OBI_1, OBI_10, TI, TI_1S, TI_30S, TI_N, MICRO_VOL, MICRO_VOL_1S) = range(14)
(CANCEL_RATE, CANCEL_N, QUEUE_RATE, DEPTH_BID, DEPTH_ASK, DEPTH_BID_QUOTE, DEPTH_ASK_QUOTE) = range(14, 21)
(OFI, OFI_1, VPIN, VPIN_N, KYLE_LAMBDA, KYLE_SECONDS, TRADE_RATE, MICROPRICE_STOIKOV) = range(21, 29)
FEATURES = 29
REALS = ROW + FEATURES
