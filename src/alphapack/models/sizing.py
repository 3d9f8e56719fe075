"""Sizing: from an exposure to lots, by a volatility target and Kelly-lite, under limits, with every step kept.

With ``sigma`` the volatility to the horizon H, ``p`` the calibrated win probability and ``K`` the most sleeves open at once,

    z       = Phi^-1(p)                       p is that of a gain after costs: they are not subtracted again
    L_kelly = min(cap, fraction max(0, z) / sigma)
    L_vol   = target / (sigma sqrt(31,536,000 / H))
    raw     = |exposure| min(L_vol, L_kelly) equity / (mid K)

Kelly's leverage is mean over variance. A normal gain of standard deviation ``sigma`` that is above 0 with probability ``p`` has the mean
``sigma z``, so that the leverage is ``z / sigma``; of which a fraction, and at most a cap, is taken.

Limits follow: the brake multiplies, then every other one cuts to the room that it leaves. Whole lots are what is left, rounded down.

What is wanted and comes out under the least order trades one least order, a *probe*, unless a limit forbids that: a policy that is never
traded is never measured again.

What another exposure would have come to follows from the same numbers (``Sizing.lots_at``): all but the exposure is kept.

References
----------
J. Kelly, "A new interpretation of information rate", Bell System Technical Journal 35 (1956).
E. Thorp, "The Kelly criterion in blackjack, sports betting and the stock market" (2006), section 7.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import msgspec

from alphapack.domain.market import Step
from alphapack.domain.money import UNITS
from alphapack.models.schedules import LOTS_MAX
from alphapack.models.volatility import Rule, sigma

YEAR_S = 31_536_000
"""365 days: these markets never close."""
HORIZON_S_MAX = 86_400
SIGMA_MIN, SIGMA_MAX = 1e-9, 10.0
"""Volatility to the horizon: below it nothing moves, above it the forecast is broken."""
SLEEVES_MAX = 1_000_000
BRAKE = "brake"

_NORMAL = NormalDist()


class Kelly(msgspec.Struct, frozen=True):
    """Kelly-lite: what an edge is worth."""

    z: float
    """Standard normal quantile of the win probability."""
    edge: float
    """``sigma z``: mean return to the horizon, a fraction."""
    variance: float
    """``sigma^2``."""
    fraction: float
    cap: float
    leverage: float
    """0 to ``cap``, as a multiple of the capital of a sleeve."""


class Cap(msgspec.Struct, frozen=True):
    """A limit that made a size smaller, and what it left."""

    name: str
    limit: float
    """What it allows, in units of the settlement currency; of the brake: what it multiplies by."""
    size: float
    """In base units, never below 0."""


class Allowance(msgspec.Struct, frozen=True):
    """What makes lots of an exposure: all that a size follows from but the exposure itself."""

    full_lots: float
    """Of an exposure of 1, before limits."""
    factor: float
    """What the brake leaves, 0 to 1."""
    room_lots: float
    """The least of what the other limits leave."""
    least_lots: int
    """Of an order."""
    probes: bool
    """Whether what is too small trades one least order."""

    def before_lots(self, exposure: float) -> float:
        """Return the lots of an exposure of either sign as limits leave them, 0 or more, not yet whole."""
        return min(abs(exposure) * self.full_lots * self.factor, self.room_lots)

    def sides(self, bid_share: float, ask_share: float) -> tuple[int, int]:
        """Return the lots of both sides of a quote, 0 or more.

        A probe is one least order: the side with more of it has it, both where they have as much, and a lesser one that comes out under the
        least order shows nothing.
        """
        larger = max(bid_share, ask_share)
        bid, ask = (
            self.lots(share) if share == larger else whole if (whole := math.floor(self.before_lots(share))) >= self.least_lots else 0
            for share in (bid_share, ask_share)
        )
        return bid, ask

    def lots(self, exposure: float) -> int:
        """Return the lots of an exposure, signed: whole, and 0 or a probe where they are less than the least order; 0 of 0."""
        whole = math.floor(self.before_lots(exposure))
        if whole < self.least_lots:
            whole = self.least_lots if self.probes and exposure else 0
        return -whole if exposure < 0.0 else whole


class Sizing(msgspec.Struct, frozen=True):
    """Every step from an exposure to lots. Every number is finite; sizes are in base units, and only ``size`` and ``lots`` are signed."""

    decision: int
    ts_ns: int
    symbol: str
    exposure: float
    h: int
    """Horizon of the forecasts: the decision's, in minutes, rounded up."""
    sigma_har: float = msgspec.field(name="sigmaHAR")
    sigma_garch: float = msgspec.field(name="sigmaGARCH")
    sigma_used: float = msgspec.field(name="sigmaUsed")
    rule: Rule
    target_vol: float = msgspec.field(name="targetVol")
    vol_leverage: float
    kelly: Kelly
    win_probability: float = msgspec.field(name="winProb")
    equity: int
    """In money."""
    sleeves_max: int
    raw_size: float = msgspec.field(name="rawSize")
    """Before limits and whole lots."""
    caps: tuple[Cap, ...]
    """The limits that applied, in their order."""
    probe: bool
    size: float
    """Signed as the exposure; at most ``raw_size`` on either side, but for a probe."""
    lots: int
    """The same in whole lots."""
    reason: str
    """Why it is 0, or a probe; empty otherwise."""
    allowance: Allowance
    """What another exposure would have come to."""
    finer: int = 1
    """How many of the lots of now make up one in which it was counted."""

    def lots_at(self, exposure: float) -> int:
        """Return the lots that another exposure would have come to under the very same limits, signed, in lots of now.

        It is ``lots`` at the exposure that was sized, and odd: the room of the side that was sized stands for that of the other one.
        Raises ``ValueError`` where the exposure is not from -1 to 1.
        """
        return self.finer * self.allowance.lots(_within("exposure", exposure, -1.0, 1.0))

    def sides(self, bid_share: float, ask_share: float) -> tuple[int, int]:
        """Return the lots of both sides of a quote under the very same limits, 0 or more, in lots of now: see ``Allowance.sides``."""
        bid, ask = self.allowance.sides(_within("bid_share", bid_share, 0.0, 1.0), _within("ask_share", ask_share, 0.0, 1.0))
        return self.finer * bid, self.finer * ask

    def refined(self, by_lot: int) -> "Sizing":
        """Return the same in lots that are so many times finer."""
        return msgspec.structs.replace(self, lots=self.lots * by_lot, finer=self.finer * by_lot)


def sigma_used(rule: Rule, sigma_har: float, sigma_garch: float, har_weight: float) -> float:
    """Return the volatility that a rule makes of two; ``har_weight``, 0 to 1, is that of the HAR's variance in a blend.

    Raises ``ValueError`` where a number is out of its range.
    """
    for name, one in (("sigma_har", sigma_har), ("sigma_garch", sigma_garch)):
        _within(name, one, SIGMA_MIN, SIGMA_MAX)
    return sigma(rule, sigma_har * sigma_har, sigma_garch * sigma_garch, _within("har_weight", har_weight, 0.0, 1.0))


def size(
    *,
    decision: int,
    ts_ns: int,
    symbol: str,
    exposure: float,
    win_probability: float,
    horizon_s: int,
    sigma_har: float,
    sigma_garch: float,
    har_weight: float,
    rule: Rule,
    equity: int,
    lot_value: int,
    lot: Step,
    sleeves_max: int,
    target_vol: float,
    kelly_fraction: float,
    kelly_cap: float,
    room: Sequence[tuple[str, int]],
    size_factor: float,
    least_lots: int,
    probe: bool,
) -> Sizing:
    """Return the size of a decision with all that led to it.

    Parameters
    ----------
    decision, ts_ns, symbol
        What is sized; kept as they are.
    exposure
        -1 to 1: the share of the allowed size that is wanted, and its side.
    win_probability
        Calibrated probability of a gain after costs, above 0 and below 1.
    horizon_s
        1 to ``HORIZON_S_MAX``.
    sigma_har, sigma_garch, har_weight, rule
        Volatility of the log return over ``ceil(horizon_s / 60)`` minutes by two models, and what is made of them: see ``sigma_used``.
    equity, lot_value
        Money: capital, of any sign, and one lot at the mid, above 0.
    lot
        Base units of one lot.
    sleeves_max
        K: most sleeves open at once, 1 to ``SLEEVES_MAX``.
    target_vol
        Volatility of a year that is aimed at, above 0.
    kelly_fraction, kelly_cap
        Share of Kelly's leverage, above 0 and up to 1, and its cap, above 0.
    room
        Limits in order: name, and the money for which may be bought or sold yet, 0 or more.
    size_factor
        What the brake leaves, 0 to 1.
    least_lots
        Least order, 1 or more.
    probe
        Whether a probe may be traded.

    Raises
    ------
    ValueError
        A number is out of its range, or the size beyond ``LOTS_MAX`` lots.
    """
    _within("exposure", exposure, -1.0, 1.0)
    _within("horizon_s", horizon_s, 1, HORIZON_S_MAX)
    _within("sleeves_max", sleeves_max, 1, SLEEVES_MAX)
    _within("size_factor", size_factor, 0.0, 1.0)
    _within("least_lots", least_lots, 1, LOTS_MAX)
    if not 0.0 < win_probability < 1.0:
        raise ValueError(f"expected a win_probability above 0 and below 1, found {win_probability}")
    for name, value in (("lot_value", lot_value), ("target_vol", target_vol), ("kelly_cap", kelly_cap)):
        if not 0 < value < math.inf:
            raise ValueError(f"expected {name} above 0 and finite, found {value}")
    if not 0.0 < kelly_fraction <= 1.0:
        raise ValueError(f"expected a kelly_fraction above 0 and up to 1, found {kelly_fraction}")
    used = sigma_used(rule, sigma_har, sigma_garch, har_weight)
    z = _NORMAL.inv_cdf(win_probability)
    leverage = min(kelly_cap, kelly_fraction * max(0.0, z) / used)
    vol_leverage = target_vol / (used * math.sqrt(YEAR_S / horizon_s))
    full_lots = min(vol_leverage, leverage) * max(0, equity) / (lot_value * sleeves_max)
    raw_lots = abs(exposure) * full_lots
    if raw_lots > LOTS_MAX:
        raise ValueError(f"expected a size of at most {LOTS_MAX:,} lots, found {raw_lots:.4g}")
    caps = _limited(raw_lots, size_factor, room, lot_value, float(lot.size))
    forbidden = _forbidding(size_factor, room, least_lots * lot_value)
    allowance = Allowance(
        full_lots=full_lots,
        factor=size_factor,
        room_lots=min((money / lot_value for _, money in room), default=float(LOTS_MAX)),
        least_lots=least_lots,
        probes=probe and equity > 0 and not forbidden,
    )
    allowed, lots = allowance.before_lots(exposure), allowance.lots(exposure)
    probed, reason = allowed < least_lots and lots != 0, ""
    if allowed < least_lots:
        reason = _too_small(exposure, equity, z, allowed, least_lots)
        if exposure and equity > 0:
            reason += "; a probe" if probed else f"; no probe: {forbidden or 'probes are off'}"
    return Sizing(
        decision=decision,
        ts_ns=ts_ns,
        symbol=symbol,
        exposure=exposure,
        h=-(-horizon_s // 60),
        sigma_har=sigma_har,
        sigma_garch=sigma_garch,
        sigma_used=used,
        rule=rule,
        target_vol=target_vol,
        vol_leverage=vol_leverage,
        kelly=Kelly(z, used * z, used * used, kelly_fraction, kelly_cap, leverage),
        win_probability=win_probability,
        equity=equity,
        sleeves_max=sleeves_max,
        raw_size=raw_lots * float(lot.size),
        caps=caps,
        probe=probed,
        size=lot.number(lots),
        lots=lots,
        reason=reason,
        allowance=allowance,
    )


def _limited(lots: float, factor: float, room: Sequence[tuple[str, int]], lot_value: int, lot: float) -> tuple[Cap, ...]:
    """Return the limits that take from a size in lots, each with what it leaves."""
    caps = []
    for name, limit, most in [(BRAKE, factor, lots * factor), *((name, money / UNITS, money / lot_value) for name, money in room)]:
        if not most >= 0.0:
            raise ValueError(f"expected room of 0 or more by {name}, found {limit}")
        if most < lots:
            lots = most
            caps.append(Cap(name, limit, most * lot))
    return tuple(caps)


def _forbidding(factor: float, room: Sequence[tuple[str, int]], money: int) -> str:
    """Return the limit that leaves no room for so much money; empty where none does."""
    if factor == 0.0:
        return f"{BRAKE} is on"
    return next((f"{name} leaves less" for name, most in room if most < money), "")


def _too_small(exposure: float, equity: int, z: float, allowed: float, least_lots: int) -> str:
    if not exposure:
        return "the exposure is 0"
    if equity <= 0:
        return f"no equity is left: {equity / UNITS:.2f}"
    if z <= 0.0:
        return "the win probability is not above a half"
    return f"{math.floor(1e3 * allowed) / 1e3:g} lots are less than the least order of {least_lots}"


def _within(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"expected {name} from {low:g} to {high:g}, found {value}")
    return value
