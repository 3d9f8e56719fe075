"""Stoikov's micro-price: where the mid will settle, learnt from what followed each state of the top of the book.

State ``x = SPREADS * i + s`` of the best bid and ask, sizes ``b`` and ``a`` in whole lots:

- ``i = min(IMBALANCES - 1, 10 * b // (b + a))``, the imbalance bucket;
- ``s = min(SPREADS, spread in ticks) - 1``, the spread; the last one stands for that spread and all wider ones.

Seen from the other side of the book, ``(i, s)`` and a mid change ``d`` are ``(IMBALANCES - 1 - i, s)`` and ``-d``. Both views
are counted as data, so the adjustment is antisymmetric by construction and only half of the states are solved for. A size on
the very edge of two buckets (equal sizes are the common case) falls into the upper one; its mirror image counts in the lower.

References
----------
S. Stoikov, "The micro-price: a high-frequency estimator of future prices", Quantitative Finance 18(12), 2018.
"""

from typing import Annotated

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Float64Array2D, Int64Array1D, Int64Array2D

IMBALANCES = 10
SPREADS = 4
STATES = IMBALANCES * SPREADS
HALF = STATES // 2
"""States with more size on the ask than on the bid; the others mirror them."""

MIRROR = np.array([SPREADS * (IMBALANCES - 1 - x // SPREADS) + x % SPREADS for x in range(STATES)])
"""Of each state, the same top of the book seen from its other side."""

RAW_TICKS_MAX = 2.0**20
"""What a table may hold: more than any book settles away from its mid."""
HALF_SPREAD_TICKS = np.tile(np.array([0.5, 1.0, 1.5, RAW_TICKS_MAX]), IMBALANCES)
"""Of each state, the largest adjustment; the last spread is open-ended, so there nothing is cut."""

MOVES_MIN = 100
DEPARTURES_MIN = 30
"""Departures, both views together, from which a state's own frequencies are believed."""
ROUNDS_MAX = 1_000
TOLERANCE_TICKS = 1e-12
DECIMALS = 9
"""What is told of an adjustment, in ticks: coarser than the last bits in which linear algebra libraries differ."""

COUNT_MAX = 1 << 40
JUMP_MAX = 1 << 52
"""With both, every sum of counts is below 2^53, hence exact in floating point."""


class Fit(msgspec.Struct, frozen=True, eq=False):
    """A table of adjustments, and what it rests on. Arrays are read-only, finite and antisymmetric to the bit."""

    raw: Float64Array1D
    """Shape (STATES,): where the mid settles on average, in ticks from where it is; within ``RAW_TICKS_MAX``.

    This is what is served: cut to the quotes, it would lose most of what it says where a move is many ticks.
    """
    adjustment: Float64Array1D
    """Shape (STATES,): ``raw`` within ``HALF_SPREAD_TICKS``, so that the price stays within the quotes."""
    transitions: int
    """Changes of the top of the book that were counted."""
    moves: int
    """Those of them that changed the mid."""
    estimated: int
    """States with a value of their own; the others, too rarely seen or never followed by a move, have zero."""
    rounds: int
    """Mid changes ahead that were summed before what further ones add became negligible."""

    @property
    def clipped(self) -> int:
        """States whose raw value lies outside the quotes."""
        return int(np.count_nonzero(self.raw != self.adjustment))


_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
_Total = Annotated[int, msgspec.Meta(ge=0, le=2 * STATES * STATES * COUNT_MAX)]
_Jump = Annotated[int, msgspec.Meta(ge=-JUMP_MAX, le=JUMP_MAX)]
_Square = msgspec.Meta(min_length=STATES * STATES, max_length=STATES * STATES)
_Row = msgspec.Meta(min_length=STATES, max_length=STATES)


class _Counts(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The body of a request: row by row."""

    stay: Annotated[list[_Count], _Square]
    move: Annotated[list[_Count], _Square]
    jump: Annotated[list[_Jump], _Row]


class _Table(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The body of an answer."""

    raw: Annotated[list[float], _Row]
    transitions: _Total
    moves: _Total
    estimated: Annotated[int, msgspec.Meta(ge=0, le=STATES)]
    rounds: Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)]


_counts = msgspec.msgpack.Decoder(_Counts)
_table = msgspec.msgpack.Decoder(_Table)


def fit(stay: Int64Array2D, move: Int64Array2D, jump: Int64Array1D, rounds: int = ROUNDS_MAX) -> Fit:
    """Estimate the adjustment of the mid in every state from counted transitions of the top of the book.

    With ``Q`` and ``T`` the frequencies of transitions that keep and that change the mid, and ``r`` the mean mid change, all
    per departure: ``G1 = (I - Q)^-1 r`` is the mean of the next mid change, ``B = (I - Q)^-1 T`` leads from a state to the
    one after that change, and the adjustment is the sum of ``B^k G1`` over ``k = 0, 1, ...``. All of it is done on
    antisymmetric vectors, which each of the operators keeps antisymmetric.

    A state with fewer than ``DEPARTURES_MIN`` departures has the adjustment zero, and so has one from which no counted
    path leads to a move: nothing speaks for either direction, and a neighbour's value would be a guess where a spread that
    has just opened behaves unlike one that is at rest. It also ends the paths that come to it, so a corner of the book
    seen once cannot make the sum diverge.

    The raw sum may lie outside the quotes: it is a mean over a bucket and over all later moves, often many ticks in one
    direction, and nothing in it knows the quotes. There it says that a trade at the touch gains on average, fees aside, so
    ``adjustment`` cuts it to half of the spread. Where a tick is small against the usual move, nearly every state is cut and
    what is left is the touch of the shorter queue; ``raw`` keeps the rest.

    Parameters
    ----------
    stay, move
        Shape (STATES, STATES), int64 in [0, COUNT_MAX]: transitions from row to column with the mid unchanged, and changed.
    jump
        Shape (STATES,), int64 within JUMP_MAX: sum of the mid changes out of each state, in half ticks.
    rounds
        Most terms of the sum, at least 1.

    Raises
    ------
    ValueError
        The counts are none of a book, hold fewer than ``MOVES_MIN`` moves, or the sum has not converged: the mid would go
        on in one direction, or to and fro, for ever.
    """
    moves, transitions = _checked(stay, move, jump, rounds)
    stays, shifts = _pooled(stay), _pooled(move)
    departures = stays.sum(axis=1) + shifts.sum(axis=1)
    known = _known(stays, shifts, departures)

    # Zero rows for what is not known: there the solution is zero and every path ends.
    weights = np.divide(1.0, departures, out=np.zeros(HALF), where=known)[:, None]
    drift = 0.5 * (jump - jump[MIRROR])[:HALF, None]
    sides = np.concatenate((_folded(shifts), drift), axis=1) * weights
    solved: Float64Array2D = np.linalg.solve(np.eye(HALF) - _folded(stays) * weights, sides)
    onward, term = solved[:, :HALF], solved[:, HALF]

    half, summed = np.zeros(HALF), 0
    while summed == 0 or not np.abs(term).max() <= TOLERANCE_TICKS:  # A NaN never passes.
        if summed == rounds:
            raise ValueError(f"expected a sum that converges in {rounds} rounds, found {np.abs(term).max():.3g} ticks in the next")
        half += term
        term = onward @ term
        summed += 1

    raw = np.zeros(STATES)
    raw[:HALF] = np.round(np.clip(half, -RAW_TICKS_MAX, RAW_TICKS_MAX), DECIMALS)
    raw[MIRROR[:HALF]] = -raw[:HALF]
    return _fit(raw, transitions, moves, 2 * int(np.count_nonzero(known)), summed)


def _fit(raw: Float64Array1D, transitions: int, moves: int, estimated: int, rounds: int) -> Fit:
    """Return the fit with its bounded table; a negative zero becomes a plain one."""
    raw = raw + 0.0
    adjustment = np.clip(raw, -HALF_SPREAD_TICKS, HALF_SPREAD_TICKS)
    for table in (raw, adjustment):
        table.setflags(write=False)
    return Fit(raw, adjustment, transitions, moves, estimated, rounds)


def _checked(stay: Int64Array2D, move: Int64Array2D, jump: Int64Array1D, rounds: int) -> tuple[int, int]:
    """Return the number of moves and of all transitions; refuse what no book can have counted."""
    for name, counts, shape in (("stay", stay, (STATES, STATES)), ("move", move, (STATES, STATES)), ("jump", jump, (STATES,))):
        if counts.shape != shape or counts.dtype != np.int64:
            raise ValueError(f"expected {name} as int64 of shape {shape}, found {counts.dtype} of shape {counts.shape}")
        low, high = (-JUMP_MAX, JUMP_MAX) if name == "jump" else (0, COUNT_MAX)
        if counts.min() < low or counts.max() > high:
            raise ValueError(f"expected {name} from {low} to {high}, found {counts.min()} to {counts.max()}")
    impossible = np.flatnonzero((jump != 0) & ~move.any(axis=1))
    if impossible.size:
        raise ValueError(f"expected a jump only out of states with moves, found one without in state {impossible[0]}")
    if rounds < 1:
        raise ValueError(f"expected at least 1 round, found {rounds}")
    moves = int(move.sum())
    if moves < MOVES_MIN:
        raise ValueError(f"expected at least {MOVES_MIN} changes of the mid, found {moves}")
    return moves, moves + int(stay.sum())


def _pooled(counts: Int64Array2D) -> Int64Array2D:
    """Return the transitions out of the first half of the states, counted from both sides of the book; (HALF, STATES)."""
    pooled: Int64Array2D = (counts + counts[np.ix_(MIRROR, MIRROR)])[:HALF]
    return pooled


def _folded(pooled: Int64Array2D) -> Int64Array2D:
    """Return the operator on antisymmetric vectors, as their first half: a mirrored state counts negative; (HALF, HALF)."""
    return pooled[:, :HALF] - pooled[:, MIRROR[:HALF]]


def _known(stays: Int64Array2D, shifts: Int64Array2D, departures: Int64Array1D) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Tell which states are seen often enough and can lead to a move; without the latter ``I - Q`` would be singular."""
    thin = departures < DEPARTURES_MIN
    ends = thin | shifts.any(axis=1)
    links = (stays[:, :HALF] + stays[:, MIRROR[:HALF]]) > 0
    for _ in range(HALF):
        ends |= (links & ends).any(axis=1)
    return ends & ~thin


def work(body: bytes) -> bytes:
    """Fit what ``encode_counts`` wrote and return what ``decode_table`` reads; off the loop."""
    try:
        counts = _counts.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected the counts of {STATES} states, found: {error}") from None
    square = (STATES, STATES)
    stay, move = (np.array(flat, dtype=np.int64).reshape(square) for flat in (counts.stay, counts.move))
    return encode_table(fit(stay, move, np.array(counts.jump, dtype=np.int64)))


def encode_counts(stay: Int64Array2D, move: Int64Array2D, jump: Int64Array1D) -> bytes:
    """Return the body of a request; most counts are zeros, and a zero takes one byte."""
    return msgspec.msgpack.encode(_Counts(stay.ravel().tolist(), move.ravel().tolist(), jump.tolist()))


def encode_table(fitted: Fit) -> bytes:
    """Return the body of an answer; the bounded table follows from the raw one."""
    return msgspec.msgpack.encode(_Table(fitted.raw.tolist(), fitted.transitions, fitted.moves, fitted.estimated, fitted.rounds))


def decode_table(body: bytes) -> Fit:
    """Return the fit that an answer holds; raises ``ValueError`` where it is none, since answers come from outside the core."""
    try:
        table = _table.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected a table of {STATES} adjustments, found: {error}") from None
    raw = np.array(table.raw)
    if not (np.abs(raw) <= RAW_TICKS_MAX).all():  # Neither is a NaN.
        raise ValueError(f"expected adjustments of at most {RAW_TICKS_MAX:.0f} ticks, found {table.raw}")
    if (raw != -raw[MIRROR]).any():
        raise ValueError(f"expected adjustments that mirror each other, found {table.raw}")
    return _fit(raw, table.transitions, table.moves, table.estimated, table.rounds)
