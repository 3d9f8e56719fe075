"""How an order is traded: its style and schedule by a table, its slices, and what it is expected to cost.

Four questions, each with few answers, pick one of 24 cells:

- *urgency*: low, medium or high, by thirds of 0 to 1.
- *spread*: tight where it is small beside fees or cannot be smaller, and the order does not itself widen it; else wide.
- *depth*: deep where the order is a small part of what is displayed on the side that it takes, else thin.
- *micro_vol*: calm where the last seconds moved about as forecast, else rough.

``TABLE`` follows from three sentences. Who is urgent and finds a tight spread takes at once. Else a deep book is traded by the clock and a
thin one by volume, for slices that are large in their book need others who trade. And an order hurries where waiting is dear (urgent, or
rough) or taking is cheap (tight, at medium urgency): by the clock that is Almgren and Chriss's schedule in place of an even one, by
volume a fixed part of it until the order is done (POV) in place of all of the horizon's (VWAP). Slices by volume are equal, and as far
apart as the market takes to trade equal volumes.

So more urgency never leaves more to be traded later: at every time at least as much is due, but for what whole lots round.

The cost is ``half spread + k x^a`` at ``x = size / ADV`` whatever the style, as though everything were taken; what rests and is filled
saves spread and fee, and is told afterwards. The risk of waiting is a standard deviation and no part of it.

References
----------
R. Almgren, N. Chriss, "Optimal execution of portfolio transactions", Journal of Risk 3(2) (2000).
"""

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.models import schedules
from alphapack.models.impact import Impact, cost_bps

Style = Literal["IMMEDIATE", "TWAP", "VWAP", "POV"]
Scheduled = Literal["uniform", "volume", "almgren_chriss"]

TIGHT_BPS = 1.0
"""Half of it is a tenth of a usual taker's fee, 5 bps."""
TIGHT_TICKS = 1.5
"""One tick is the least there is, however coarse; a half is for rounding."""
DEEP_SHARE = 0.25
"""Part of the best five levels: the best level alone holds about that in recorded books."""
ROUGH = 2.0
"""Multiple of the forecast. Volatility comes in clusters, and a coarse tick bounces: recorded and simulated markets are calm 77 to 100
percent of the time by this."""
MICRO_VOL_S = 5.0
"""``micro_vol`` is the standard deviation of a return over this."""
AVERSION_PER_BPS = 0.1
"""Cost in bps that a variance of one squared bps is worth at urgency 1; below it in proportion, nothing at 0."""
PARTICIPATION = 0.1
"""Part of the volume that POV takes: as usual, and within what the law of impact was measured on."""
DAY_SHARE_MAX = 1.0
"""Largest order, in volumes of a day: a larger one is a slip of the keyboard, and no impact is known for it."""
SLICES_MAX = 60
SLICE_S = 5.0
"""Slices are this far apart at least, in the mean: an order and its fill go to and fro in between."""
HORIZON_S_MIN, HORIZON_S_MAX = 1.0, 86_400.0
DAY_S, MINUTE_S = 86_400.0, 60.0


class Cell(NamedTuple):
    """A row of the table."""

    urgency: Literal["low", "medium", "high"]
    spread: Literal["tight", "wide"]
    depth: Literal["deep", "thin"]
    micro_vol: Literal["calm", "rough"]


TABLE: dict[Cell, tuple[Style, Scheduled]] = {
    Cell("low", "tight", "deep", "calm"): ("TWAP", "uniform"),
    Cell("low", "tight", "deep", "rough"): ("TWAP", "almgren_chriss"),
    Cell("low", "tight", "thin", "calm"): ("VWAP", "volume"),
    Cell("low", "tight", "thin", "rough"): ("POV", "volume"),
    Cell("low", "wide", "deep", "calm"): ("TWAP", "uniform"),
    Cell("low", "wide", "deep", "rough"): ("TWAP", "almgren_chriss"),
    Cell("low", "wide", "thin", "calm"): ("VWAP", "volume"),
    Cell("low", "wide", "thin", "rough"): ("POV", "volume"),
    Cell("medium", "tight", "deep", "calm"): ("TWAP", "almgren_chriss"),
    Cell("medium", "tight", "deep", "rough"): ("TWAP", "almgren_chriss"),
    Cell("medium", "tight", "thin", "calm"): ("POV", "volume"),
    Cell("medium", "tight", "thin", "rough"): ("POV", "volume"),
    Cell("medium", "wide", "deep", "calm"): ("TWAP", "uniform"),
    Cell("medium", "wide", "deep", "rough"): ("TWAP", "almgren_chriss"),
    Cell("medium", "wide", "thin", "calm"): ("VWAP", "volume"),
    Cell("medium", "wide", "thin", "rough"): ("POV", "volume"),
    Cell("high", "tight", "deep", "calm"): ("IMMEDIATE", "uniform"),
    Cell("high", "tight", "deep", "rough"): ("IMMEDIATE", "uniform"),
    Cell("high", "tight", "thin", "calm"): ("IMMEDIATE", "uniform"),
    Cell("high", "tight", "thin", "rough"): ("IMMEDIATE", "uniform"),
    Cell("high", "wide", "deep", "calm"): ("TWAP", "almgren_chriss"),
    Cell("high", "wide", "deep", "rough"): ("TWAP", "almgren_chriss"),
    Cell("high", "wide", "thin", "calm"): ("POV", "volume"),
    Cell("high", "wide", "thin", "rough"): ("POV", "volume"),
}
WITHOUT_VOLUME: tuple[Style, Scheduled] = ("TWAP", "almgren_chriss")
"""In place of VWAP and POV where no volume is foreseen; even at urgency 0."""
_WHY: dict[tuple[Style, Scheduled], str] = {
    ("IMMEDIATE", "uniform"): "taken at once: waiting would save little",
    ("TWAP", "uniform"): "even slices by the clock: waiting is cheap",
    ("TWAP", "almgren_chriss"): "slices by the clock, more of it first: waiting is a risk",
    ("VWAP", "volume"): "spread as the volume of the horizon is foreseen: waiting is cheap",
    ("POV", "volume"): "a part of the volume until it is done: waiting is a risk, the book is thin",
}


class Market(msgspec.Struct, frozen=True):
    """What a plan is made of. Raises ``ValueError`` where a number is out of its range."""

    mid: float
    spread_bps: float
    tick: float
    lot: float
    """In base units."""
    depth: float
    """Base size of the best five levels of the side that is taken; 0 or more."""
    micro_vol: float
    """Standard deviation of a return over 5 s, a fraction, as of now; 0 or more."""
    sigma: float
    """Forecast of that over the plan's horizon, above 0."""
    adv: float
    """Base volume of a day, above 0."""
    volume_profile: tuple[float, ...] | None
    """Base volume foreseen for each minute from the start on, to the end of the horizon at least; None: not known."""
    least_lots: int
    """Least order, 1 or more."""
    taker_fee_bps: float
    """Below 0 where takers are paid."""

    def __post_init__(self) -> None:
        """Refuse what is no market."""
        for name in ("mid", "tick", "lot", "sigma", "adv"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"expected {name} above 0 and finite, found {getattr(self, name)}")
        for name in ("spread_bps", "depth", "micro_vol"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"expected {name} of 0 or more and finite, found {getattr(self, name)}")
        if not math.isfinite(self.taker_fee_bps):
            raise ValueError(f"expected a finite taker_fee_bps, found {self.taker_fee_bps}")
        if not 1 <= self.least_lots <= schedules.LOTS_MAX:
            raise ValueError(f"expected least_lots from 1 to {schedules.LOTS_MAX:,}, found {self.least_lots}")
        if not all(0.0 <= volume < math.inf for volume in self.volume_profile or ()):
            raise ValueError(f"expected volumes of 0 or more and finite, found {min(self.volume_profile or ())} among them")


class Cost(msgspec.Struct, frozen=True):
    """What an order is expected to cost, above 0 where it is paid; ``bps = half_spread_bps + impact_bps``."""

    bps: float
    quote: float
    """The same in units of the settlement currency, to 8 decimals."""
    half_spread_bps: float
    impact_bps: float
    fees_bps: float
    """Beside it: of a taker."""
    timing_risk_bps: float
    """Standard deviation of the cost by the price's own moves until the order is done; no part of it."""


class Slice(msgspec.Struct, frozen=True):
    """A part of an order."""

    t_s: float
    """When it is due, in seconds from the start."""
    lots: int


class Plan(msgspec.Struct, frozen=True):
    """How an order is traded. The slices are in order of time, from 0 on and before the horizon, and add up to it."""

    side: int
    lots: int
    urgency: float
    horizon_s: float
    cell: Cell
    style: Style
    schedule: Scheduled
    reason: str
    """In words: the cell, what it means, and what else decided."""
    participation: float
    """Size over the volume foreseen within the horizon; above 1 where it is more than all others trade."""
    cost: Cost
    slices: tuple[Slice, ...]
    market: Market
    impact: Impact

    @property
    def aggressive(self) -> bool:
        """Whether slices take what is displayed at once; else they rest at the best price first."""
        return self.style == "IMMEDIATE"


def plan(*, side: int, lots: int, urgency: float, horizon_s: float, market: Market, impact: Impact) -> Plan:
    """Return how an order is to be traded.

    Parameters
    ----------
    side
        +1 to buy, -1 to sell.
    lots
        From ``market.least_lots`` up to a day's volume.
    urgency
        0 to 1.
    horizon_s
        Time that it may take, ``HORIZON_S_MIN`` to ``HORIZON_S_MAX``.
    market, impact
        What is known now.

    Raises
    ------
    ValueError
        An argument is out of its range, or the volumes foreseen end before the horizon.
    """
    if side not in (1, -1):
        raise ValueError(f"expected side +1 or -1, found {side}")
    if not 0.0 <= urgency <= 1.0:
        raise ValueError(f"expected an urgency from 0 to 1, found {urgency}")
    if not HORIZON_S_MIN <= horizon_s <= HORIZON_S_MAX:
        raise ValueError(f"expected a horizon_s from {HORIZON_S_MIN:g} to {HORIZON_S_MAX:g}, found {horizon_s}")
    base = lots * market.lot
    if not (market.least_lots <= lots <= schedules.LOTS_MAX and base <= DAY_SHARE_MAX * market.adv):
        least = market.least_lots * market.lot
        raise ValueError(
            f"expected a size from {least:g}, the least order, to {DAY_SHARE_MAX * market.adv:g}, the volume of a day, found {base:g}"
        )
    impact_bps = cost_bps(base / market.adv, impact.k, impact.a, 0.0)
    clock = _clock(market, horizon_s)
    foreseen = clock.total if clock is not None else market.adv * horizon_s / DAY_S
    cell = cell_of(base, urgency, horizon_s, market)
    style, schedule = TABLE[cell]
    notes = [_seen(cell, base, urgency, horizon_s, market)]
    if schedule == "volume" and clock is None:
        notes.append(f"no volume is foreseen, so not {style}")
        style, schedule = WITHOUT_VOLUME
    notes.append(_WHY[style, schedule])
    slices = _cut(style, schedule, lots, urgency, horizon_s, market, impact_bps, clock)
    participation = base / foreseen
    if style != "IMMEDIATE" and len(slices) == 1:
        notes.append("in one, for the least order or the horizon allows no more")
    elif style != "IMMEDIATE" and participation > PARTICIPATION:
        notes.append(f"to be done by the horizon it is {participation:.3g} of the volume foreseen, more than {PARTICIPATION:g}")
    half_bps = 0.5 * market.spread_bps
    bps = half_bps + impact_bps
    risk_bps = _timing_risk_bps(slices, lots, horizon_s, market.sigma)
    cost = Cost(bps, round(bps / 1e4 * base * market.mid, 8), half_bps, impact_bps, market.taker_fee_bps, risk_bps)
    return Plan(side, lots, urgency, horizon_s, cell, style, schedule, "; ".join(notes), participation, cost, slices, market, impact)


def due(plan: Plan, elapsed_s: float) -> int:
    """Return the lots that should have been ordered by ``elapsed_s`` seconds from the start: of all slices up to then."""
    return sum(one.lots for one in plan.slices if one.t_s <= elapsed_s)


def refined(plan: Plan, by_lot: int) -> Plan:
    """Return the same plan where a lot became ``by_lot`` lots."""
    if by_lot < 1:
        raise ValueError(f"expected by_lot of 1 or more, found {by_lot}")
    market = msgspec.structs.replace(plan.market, lot=plan.market.lot / by_lot, least_lots=plan.market.least_lots * by_lot)
    slices = tuple(Slice(one.t_s, one.lots * by_lot) for one in plan.slices)
    return msgspec.structs.replace(plan, lots=plan.lots * by_lot, slices=slices, market=market)


def cell_of(base: float, urgency: float, horizon_s: float, market: Market) -> Cell:
    """Return the cell of an order of ``base`` units."""
    return Cell(
        "low" if urgency < 1 / 3 else "medium" if urgency < 2 / 3 else "high",
        # All that is displayed, and more, is not to be had at that spread.
        "tight" if _is_narrow(market) and base <= market.depth else "wide",
        "deep" if base <= DEEP_SHARE * market.depth else "thin",
        "calm" if market.micro_vol <= ROUGH * _expected_micro_vol(horizon_s, market) else "rough",
    )


def _seen(cell: Cell, base: float, urgency: float, horizon_s: float, market: Market) -> str:
    """Return a cell in words, with the numbers that it was judged by."""
    displayed = f"{base / market.depth:.3g} of what is displayed" if market.depth > 0.0 else "nothing is displayed"
    ratio = market.micro_vol / _expected_micro_vol(horizon_s, market)
    widened = " until the order widens it" if cell.spread == "wide" and _is_narrow(market) else ""
    return (
        f"urgency {cell.urgency} ({urgency:g}), spread {cell.spread} ({market.spread_bps:.3g} bps{widened}), "
        f"depth {cell.depth} ({displayed}), micro_vol {cell.micro_vol} ({ratio:.3g} of the forecast)"
    )


def _is_narrow(market: Market) -> bool:
    return market.spread_bps <= TIGHT_BPS or market.spread_bps / 1e4 * market.mid <= TIGHT_TICKS * market.tick


def _expected_micro_vol(horizon_s: float, market: Market) -> float:
    return market.sigma * math.sqrt(MICRO_VOL_S / horizon_s)


class _Clock(NamedTuple):
    """Time told by volume."""

    traded: Float64Array1D
    """Base volume up to the beginning of each minute and, last, to their end; not decreasing."""
    total: float
    """Up to the horizon."""

    def time(self, volume: float) -> float:
        """Return the last time, in seconds, up to which no more than ``volume`` is traded; less than all of it."""
        minute = int(np.searchsorted(self.traded, volume, "right")) - 1
        before, after = self.traded[minute : minute + 2].tolist()
        return MINUTE_S * float(minute + (volume - before) / (after - before))


def _clock(market: Market, horizon_s: float) -> _Clock | None:
    """Return the clock of the volume foreseen; None where less than a lot is."""
    if market.volume_profile is None:
        return None
    minutes = len(market.volume_profile)
    if minutes * MINUTE_S < horizon_s:
        raise ValueError(f"expected volumes of {math.ceil(horizon_s / MINUTE_S)} minutes to the horizon, found {minutes}")
    traded = np.concatenate(([0.0], np.cumsum(market.volume_profile)))
    total = float(np.interp(horizon_s / MINUTE_S, np.arange(minutes + 1), traded))
    return _Clock(traded, total) if total >= market.lot else None


def _cut(
    style: Style,
    schedule: Scheduled,
    lots: int,
    urgency: float,
    horizon_s: float,
    market: Market,
    impact_bps: float,
    clock: "_Clock | None",
) -> tuple[Slice, ...]:
    if style == "IMMEDIATE":
        return (Slice(0.0, lots),)
    if schedule == "volume" and clock is not None:
        base, duration_s, until = lots * market.lot, horizon_s, clock.total
        if style == "POV" and base < PARTICIPATION * clock.total:
            until = base / PARTICIPATION
            duration_s = clock.time(until)
        n = _slices(lots, duration_s, market)
        return _equal([clock.time(until * i / n) for i in range(n)], lots)
    n = _slices(lots, horizon_s, market)
    times = schedules.intervals(horizon_s, n)[:-1].tolist()
    if schedule == "almgren_chriss":
        return _ahead(times, lots, urgency, horizon_s, market, impact_bps)
    return _equal(times, lots)


def _slices(lots: int, duration_s: float, market: Market) -> int:
    return max(1, min(SLICES_MAX, math.floor(duration_s / SLICE_S), lots // market.least_lots))


def _equal(times: list[float], lots: int) -> tuple[Slice, ...]:
    return tuple(map(Slice, times, schedules.uniform(lots, len(times)).tolist()))


def _ahead(times: list[float], lots: int, urgency: float, horizon_s: float, market: Market, impact_bps: float) -> tuple[Slice, ...]:
    """Return Almgren and Chriss's slices, found for an order of size 1, in bps and seconds.

    Temporary impact is linear and costs an even pace just what ``k x^a`` says of the whole order. With sigma_T the volatility to the
    horizon in bps, ``(kappa T)^2`` is about ``aversion sigma_T^2 / impact``: what is large in its market is spread more evenly.

    A slice under the least order draws later ones to its time; the last joins the one before it.
    """
    n, sigma_bps, aversion = len(times), 1e4 * market.sigma / math.sqrt(horizon_s), AVERSION_PER_BPS * urgency
    optimum = schedules.almgren_chriss(1.0, n, sigma_bps, 0.0, impact_bps * horizon_s, 0.0, aversion, horizon_s / n)
    slices: list[Slice] = []
    for t_s, count in zip(times, schedules.along(optimum, lots).tolist(), strict=True):
        if slices and slices[-1].lots < market.least_lots:
            slices[-1] = Slice(slices[-1].t_s, slices[-1].lots + count)
        elif count:
            slices.append(Slice(t_s, count))
    if len(slices) > 1 and slices[-1].lots < market.least_lots:
        last = slices.pop()
        slices[-1] = Slice(slices[-1].t_s, slices[-1].lots + last.lots)
    return tuple(slices)


def _timing_risk_bps(slices: tuple[Slice, ...], lots: int, horizon_s: float, sigma: float) -> float:
    """Return ``sigma_1s sqrt(sum of left^2 dt)`` in bps, with the shares that are left between one slice and the next."""
    left, squares = lots, 0.0
    for one, after in pairwise(slices):
        left -= one.lots
        squares += (left / lots) ** 2 * (after.t_s - one.t_s)
    # What comes before the first slice is waited for in full.
    squares += slices[0].t_s
    return 1e4 * sigma * math.sqrt(squares / horizon_s)
