"""From the rows of a raw option chain to a smile a tenor and the four numbers that quants name.

A row is good or it is rejected with its reason; no row makes a chain fail. Good rows become one implied volatility a strike, one
forward and one smile a tenor, and the surface's risk reversal, butterfly and term slope at constant maturity. See docs/OPTIONS.md.
"""

import math
import sys
from collections.abc import Sequence
from typing import get_args

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Int64Array1D
from alphapack.models import black, smile
from alphapack.models.quotes import YEAR_DAYS, ForwardSource, IvUnit, KUnit, QuoteTable, Row, median, shown
from alphapack.models.smile import Convention, Smile
from alphapack.models.svi import Svi, calendar_free

ROWS_MAX = 200_000
VALUE_BYTES = 8
"""What a value takes on average at least, with its name."""
CONVENTIONS: tuple[Convention, ...] = ("forward", "premium_adjusted")
"""Spot deltas would need a discount factor a tenor."""
STRIKES_MAX = 1_000
REJECTED_MAX = 1_000
"""Rejected rows that a surface names; it counts them all."""
DAYS_SHORT, DAYS = 7.0, 30.0
"""Maturities of the term slope; the second is the headline's."""
WORK = "chain"
"""Work requested of the shell: read a chain and make its surface."""

_SAME = 1.0 + 1e-12
"""Strikes nearer to each other than that are one."""
_GRID: Float64Array1D = np.linspace(0.0, 1.0, 65)
_TIME_MS_MIN, _TIME_MS_MAX = 10**11, 4_102_444_800_000  # 1973 to 2100, as recordings have it.


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """A chain as it is posted and recorded."""

    chain: list[msgspec.Raw]
    spot: float | None = None
    forward: float | None = None
    k_unit: KUnit | None = None
    iv_unit: IvUnit | None = None
    ts_ms: int | None = None


class Rejected(msgspec.Struct, frozen=True, array_like=True):
    """A row that was left out: its place in the chain, from 0, and why."""

    index: int
    reason: str


class Tenor(msgspec.Struct, frozen=True, array_like=True):
    """One expiry of a chain. Volatilities are annualised fractions; what is not known is None."""

    tenor: str
    """As the first row gave it: ``7d``, ``27MAR26``."""
    expiry_ms: int | None
    """None where the rows give a span."""
    t: float
    """Years of 365 days."""
    forward: float | None
    forward_source: ForwardSource | None
    atm: float | None
    rr25: float | None
    fly25: float | None
    iv25c: float | None
    iv25p: float | None
    k25c: float | None
    k25p: float | None
    k_atm: float | None
    svi: Svi | None
    points: int
    quality: str
    """A smile's quality, or ``none`` where no smile could be made."""
    reason: str | None
    """Why there is none."""
    butterfly_free: bool | None
    calendar_free: bool | None
    """Whether total variance is nowhere below that of the tenor before, between the quotes that both have; None where they share
    none."""
    strikes: list[float]
    """Those of the smile, from the lowest."""
    ivs: list[float]


class Surface(msgspec.Struct, frozen=True, array_like=True):
    """What a chain says: its tenors, the nearest first, and the headline at constant maturity."""

    ts_ms: int
    accepted: int
    rejected: list[Rejected]
    """The first ``REJECTED_MAX``."""
    rejected_count: int
    tenors: list[Tenor]
    delta_convention: Convention
    iv_unit: IvUnit
    """In which the rows were: as stated, or as found."""
    ref_tenor_days: float | None
    """Maturity of the headline: 30, or that of the nearest tenor where none bracket it."""
    rr25: float | None
    fly25: float | None
    atm: float | None
    iv_term_slope: float | None
    """Change of at-the-money volatility from 7 to 30 days over the change of the root of time in years."""


_body = msgspec.json.Decoder(Body)


def read(raw: bytes) -> Body:
    """Return the envelope of a chain, its rows still as they came. Raises ``ValueError`` for one that is none."""
    # Decoding holds the interpreter's lock. What has more rows or values than a chain can have is refused before.
    if raw.count(b"{") > ROWS_MAX + 1:
        raise ValueError(f"expected at most {ROWS_MAX:,} rows in a chain, found more")
    if raw.count(b",") > len(raw) // VALUE_BYTES + 1_000:
        raise ValueError(f"expected rows of named fields, found values of less than {VALUE_BYTES} bytes each")
    try:
        body = _body.decode(raw)
    except RecursionError:
        raise ValueError("expected rows of plain values, found JSON that is nested too deep") from None
    _check_envelope(len(body.chain), body.spot, body.forward)
    if body.ts_ms is not None and not _TIME_MS_MIN <= body.ts_ms < _TIME_MS_MAX:
        raise ValueError(f"expected ts_ms in milliseconds from 1973 to 2100, found {body.ts_ms}")
    return body


def _check_envelope(rows: int, spot: float | None, forward: float | None) -> None:
    for name, value in (("spot", spot), ("forward", forward)):
        is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if value is not None and not (is_number and 0.0 < value <= sys.float_info.max):
            raise ValueError(f"expected {name} as a finite number above zero, found {shown(value)}")
    if rows > ROWS_MAX:
        raise ValueError(f"expected at most {ROWS_MAX:,} rows in a chain, found {rows:,}")


def build(
    rows: Sequence[Row],
    ts_ms: int,
    *,
    base: str | None = None,
    spot: float | None = None,
    forward: float | None = None,
    k_unit: KUnit | None = None,
    iv_unit: IvUnit | None = None,
    delta: Convention = "forward",
) -> Surface:
    """Make the surface of a chain.

    Parameters
    ----------
    rows
        Mappings or raw JSON. ``{k, tenor, type, iv}`` with ``bid``, ``ask``, ``mark`` instead of or beside ``iv``, in the unit of
        the forward; or rows of Deribit, which have an ``instrument_name``. NaN and None are absent; numpy's scalars are welcome.
    ts_ms
        When the chain was, UTC.
    base
        Underlying that named instruments must have; left out, that of the first of them.
    spot, forward
        Of the underlying, in quote units. A forward holds for every tenor whose rows give none.
    k_unit
        What ``k`` is. Where left out: a strike if spot, forward or an instrument's name is there, else moneyness K/F.
    iv_unit
        What implied volatilities are. Where left out: fractions, and for Deribit's rows what their prices say.
    delta
        Convention of the 25-delta strikes, one of ``CONVENTIONS``.

    Raises
    ------
    ValueError
        Too many rows, a spot or forward that is no price, an unknown unit or convention. Never for a row.
    """
    _check_envelope(len(rows), spot, forward)
    spot, forward = (None if value is None else float(value) for value in (spot, forward))
    for name, value, words in (("k_unit", k_unit, get_args(KUnit)), ("iv_unit", iv_unit, get_args(IvUnit)), ("delta", delta, CONVENTIONS)):
        if value not in words and (value is not None or name == "delta"):
            raise ValueError(f"expected {name} as one of {', '.join(words)}, found {value!r}")
    table = QuoteTable(rows, int(ts_ms), base.upper() if base is not None else None)
    is_named = bool((table.named & (table.tenor >= 0)).any())
    is_moneyness = k_unit == "moneyness" or (k_unit is None and spot is None and forward is None and not is_named)
    with np.errstate(all="ignore"):  # A number beyond all bounds costs its own row, and is told there.
        table.check(is_moneyness)
        table.set_forwards(spot, forward, is_moneyness)
        found_unit = table.set_ivs(iv_unit)
    tenors = _tenors(table, delta)
    rejected = [Rejected(index, table.reasons[index]) for index in sorted(table.reasons)]
    return _surface(int(ts_ms), int(table.alive.sum()), rejected, tenors, delta, found_unit)


# Tenors


def _tenors(table: QuoteTable, delta: Convention) -> list[Tenor]:
    """Return the tenors of a table, the nearest first, each with the smile of its out-of-the-money quotes."""
    by_time = sorted(range(len(table.labels)), key=table.years.__getitem__)
    quotes = _quotes(table, by_time)
    tenors: list[Tenor] = []
    before: Smile | None = None
    for tenor, (strikes, ivs) in zip(by_time, quotes, strict=True):
        forward, source = table.forwards[tenor]
        made, reason = _smile(strikes, ivs, table.years[tenor], forward, delta)
        free: bool | None = None
        if made is not None:
            free = True if before is None else _calendar_free(before, made)
            before = made
        tenors.append(
            Tenor(
                tenor=table.labels[tenor],
                expiry_ms=table.expiries_ms[tenor],
                t=table.years[tenor],
                forward=forward,
                forward_source=source,
                atm=made.atm if made else None,
                rr25=made.rr25 if made else None,
                fly25=made.fly25 if made else None,
                iv25c=made.iv25c if made else None,
                iv25p=made.iv25p if made else None,
                k25c=made.k25c if made else None,
                k25p=made.k25p if made else None,
                k_atm=made.k_atm if made else None,
                svi=made.svi if made else None,
                points=len(strikes),
                quality=made.quality if made else "none",
                reason=reason,
                butterfly_free=made.butterfly_free if made else None,
                calendar_free=free,
                strikes=strikes.tolist(),
                ivs=ivs.tolist(),
            )
        )
    return tenors


def _quotes(table: QuoteTable, by_time: Sequence[int]) -> list[tuple[Float64Array1D, Float64Array1D]]:
    """Return strikes and volatilities of each tenor: one quote a strike, that out of the money where there are two."""
    rank_of = np.empty(len(by_time) + 1, np.int64)
    rank_of[np.array(by_time, np.int64)] = np.arange(len(by_time))
    rows = np.flatnonzero(table.alive)
    is_in = (table.strike[rows] >= table.forward[rows]) != (table.call[rows] == 1)
    order = rows[np.lexsort((table.index[rows], is_in, table.strike[rows], rank_of[table.tenor[rows]]))]
    rank, strike, call = rank_of[table.tenor[order]], table.strike[order], table.call[order]
    again = np.zeros(len(order), np.bool_)
    again[1:] = (rank[1:] == rank[:-1]) & (strike[1:] <= strike[:-1] * _SAME)
    twice = again.copy()
    twice[1:] &= call[1:] == call[:-1]
    firsts = np.maximum.accumulate(np.where(twice, 0, np.arange(len(order))))
    for at in np.flatnonzero(twice).tolist():
        row = order[at]
        table.reasons[int(table.index[row])] = (
            f"expected one row a tenor, strike and type, found row {table.index[order[firsts[at]]]} again"
        )
        table.alive[row] = False
    smiles = order[~again]
    bounds = np.searchsorted(rank[~again], np.arange(len(by_time) + 1)).tolist()
    found = []
    for tenor, start, end in zip(by_time, bounds, bounds[1:], strict=False):
        chosen = smiles[start:end]
        if len(chosen) > STRIKES_MAX:
            chosen = _nearest(table, tenor, chosen)
        found.append((table.strike[chosen], table.iv[chosen]))
    return found


def _nearest(table: QuoteTable, tenor: int, chosen: Int64Array1D) -> Int64Array1D:
    """Return the rows of the strikes nearest the forward, and leave out the others."""
    forward, _ = table.forwards[tenor]
    away = np.abs(np.log(table.strike[chosen] / (forward or median(table.strike[chosen]))))
    order = np.argsort(away, kind="stable")
    beyond = table.strike[chosen[order[STRIKES_MAX:]]]
    table.reject(
        (table.tenor == tenor) & np.isin(table.strike, beyond),
        lambda at: f"expected at most {STRIKES_MAX:,} strikes a tenor, found {len(chosen):,}: those nearest the forward are kept",
    )
    kept: Int64Array1D = chosen[np.sort(order[:STRIKES_MAX])]
    return kept


def _smile(
    strikes: Float64Array1D, ivs: Float64Array1D, t: float, forward: float | None, delta: Convention
) -> tuple[Smile | None, str | None]:
    """Return a tenor's smile, or None and why there is none."""
    if len(strikes) == 0:
        return None, "expected at least one good row, found none"
    if forward is None:
        return None, "expected a forward, found no underlying_price, forward, spot, or prices of a call and a put of one strike"
    try:
        made = smile.fit(strikes, ivs, t, forward, delta)
    except ValueError as error:
        return None, str(error)
    return made, made.reason


def _calendar_free(earlier: Smile, later: Smile) -> bool | None:
    """Tell whether a smile lies nowhere below the one before, between the quotes that both have; None where they share none."""
    low, high = max(earlier.x[0], later.x[0]), min(earlier.x[-1], later.x[-1])
    if low > high:
        return None
    at = low + (high - low) * _GRID
    least = float(((later.svi or later).total_variance(at) - (earlier.svi or earlier).total_variance(at)).min())
    # Between two points of the grid the difference falls at most by its steepest slope: mostly that settles it.
    if least >= (_steepest(earlier) + _steepest(later)) * 0.5 * (high - low) / (len(_GRID) - 1):
        return True
    return calendar_free(earlier, later, low, high) if low < high else False


def _steepest(made: Smile) -> float:
    """Return a bound of the slope of total variance between the quotes."""
    if made.svi is not None:
        return made.svi.b * (1.0 + abs(made.svi.rho))
    x, w = made.x, made.w
    return max((abs((w[i] - w[i - 1]) / (x[i] - x[i - 1])) for i in range(1, len(x))), default=0.0)


# The surface


def at_maturity(curve: Sequence[tuple[float, Sequence[float]]], t: float) -> tuple[float, list[float]] | None:
    """Return the volatilities at a maturity, and which maturity that is.

    Parameters
    ----------
    curve
        Years and volatilities of each tenor, the nearest first, each maturity once.
    t
        Years. Between two tenors total variances are linear in time and the maturity is ``t``; outside of them all it is that of the
        nearest tenor, whose volatilities are returned as they are.

    Returns
    -------
    tuple or None
        None where there is no tenor.
    """
    if not curve:
        return None
    after = next((place for place, (years, _) in enumerate(curve) if years >= t), len(curve))
    if after == len(curve) or after == 0 or curve[after][0] == t:
        years, vols = curve[min(after, len(curve) - 1)]
        return years, list(vols)
    (early, low), (late, high) = curve[after - 1], curve[after]
    share = (t - early) / (late - early)
    return t, [math.sqrt(((1.0 - share) * a * a * early + share * b * b * late) / t) for a, b in zip(low, high, strict=True)]


def _surface(ts_ms: int, accepted: int, rejected: Sequence[Rejected], tenors: list[Tenor], delta: Convention, iv_unit: IvUnit) -> Surface:
    whole = [(one.t, (one.iv25c, one.iv25p, one.atm)) for one in tenors]
    pillars = [(t, vols) for t, vols in whole if None not in vols]
    levels = [(one.t, (one.atm,)) for one in tenors if one.atm is not None]
    smiled, level = at_maturity(pillars, DAYS / YEAR_DAYS), at_maturity(levels, DAYS / YEAR_DAYS)  # type: ignore[arg-type]
    near = at_maturity(levels, DAYS_SHORT / YEAR_DAYS)
    slope = rr25 = fly25 = None
    atm = None if level is None else level[1][0]
    if smiled is not None:
        call, put, middle = smiled[1]
        rr25, fly25, atm = call - put, 0.5 * (call + put) - middle, middle
    if level is not None and near is not None and level[0] > near[0]:
        slope = (level[1][0] - near[1][0]) / (math.sqrt(DAYS / YEAR_DAYS) - math.sqrt(DAYS_SHORT / YEAR_DAYS))
    reference = smiled or level
    return Surface(
        ts_ms=ts_ms,
        accepted=accepted,
        rejected=list(rejected[:REJECTED_MAX]),
        rejected_count=len(rejected),
        tenors=tenors,
        delta_convention=delta,
        iv_unit=iv_unit,
        ref_tenor_days=None if reference is None else reference[0] * YEAR_DAYS,
        rr25=rr25,
        fly25=fly25,
        atm=atm,
        iv_term_slope=slope,
    )


def warm() -> None:
    """Compile, or load from the cache, every kernel that a chain needs: prices, their inversion, SVI and its checks, deltas."""
    strikes = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    prices = black.price(1.0, np.array(strikes), np.array([0.7, 0.6, 0.55, 0.57, 0.62, 0.7]), 0.1, False).tolist()
    rows = [
        {"k": k, "tenor": tenor, "type": "put", "mark": mark} for tenor in ("36d", "37d") for k, mark in zip(strikes, prices, strict=True)
    ]
    build([*rows, {"k": 1.0, "tenor": "90d", "type": "call", "iv": 0.5}, {"k": 1.1, "tenor": "90d", "type": "call", "iv": 0.6}], 0)


# Off the loop


class Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a request."""

    ts_ms: int
    base: str
    body: bytes
    delta: Convention


_request = msgspec.msgpack.Decoder(Request)
_answer = msgspec.msgpack.Decoder(Surface)


def request(ts_ms: int, base: str, body: bytes, delta: Convention) -> bytes:
    """Return the body of a request for a surface; ``ts_ms`` holds where the chain itself states no time."""
    return msgspec.msgpack.encode(Request(ts_ms, base, body, delta))


def work(body: bytes) -> bytes:
    """Make the surface that ``request`` asked for and return what ``answer`` reads; off the loop."""
    asked = _request.decode(body)
    chain = read(asked.body)
    made = build(
        chain.chain,
        asked.ts_ms if chain.ts_ms is None else chain.ts_ms,
        base=asked.base,
        spot=chain.spot,
        forward=chain.forward,
        k_unit=chain.k_unit,
        iv_unit=chain.iv_unit,
        delta=asked.delta,
    )
    return msgspec.msgpack.encode(made)


def answer(body: bytes) -> Surface:
    """Return the surface that a result holds; raises ``ValueError`` where it is none, since answers come from outside the core."""
    try:
        found = _answer.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected the surface of a chain, found: {error}") from None
    numbers: list[float | None] = [found.ref_tenor_days, found.rr25, found.fly25, found.atm, found.iv_term_slope]
    for one in found.tenors:
        numbers += [one.t, one.forward, one.atm, one.rr25, one.fly25, one.iv25c, one.iv25p, one.k25c, one.k25p, one.k_atm]
        numbers += [*one.strikes, *one.ivs]
        numbers += one.svi.params.tolist() if one.svi is not None else []
    if not all(number is None or math.isfinite(number) for number in numbers):
        raise ValueError("expected the surface of a chain in finite numbers, found one without")
    return found
