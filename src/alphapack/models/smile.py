"""A smile from the implied volatilities of one expiry: deltas, the at-the-money volatility, 25-delta risk reversal and butterfly.

``x = ln K/F``, total variance ``w = iv^2 t``, volatilities are annualised fractions, ``t`` is in years of 365 days. Of a call (phi = 1)
or put (phi = -1) with ``d1, d2 = -x/sqrt(w) +- sqrt(w)/2`` the delta is

- ``forward``: phi N(phi d1); ``spot``: the same times the foreign discount factor;
- ``premium_adjusted``: phi (K/F) N(phi d2), a forward delta; ``premium_adjusted_spot``: the same times the foreign discount factor.

At the money is the delta-neutral straddle of the convention: K = F exp(w/2), premium-adjusted K = F exp(-w/2). On a smile w is that of
the strike itself. ``rr25 = iv25c - iv25p`` and ``fly25 = (iv25c + iv25p)/2 - atm`` are of the smile; a butterfly as FX markets quote it
is a ``market_strangle25``, and ``smile_strangle`` leads from one to the other. See docs/OPTIONS.md.

References
----------
D. Reiswich, U. Wystup, "FX volatility smile construction", CPQF Working Paper 20 (2010).
I. Clark, "Foreign Exchange Option Pricing" (2011), chapter 3.
A. Castagna, F. Mercurio, "Consistent pricing of FX options" (2006).
"""

import math
import sys
from bisect import bisect_right
from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D, Float64Array2D
from alphapack.kernels import smile as kernel
from alphapack.models import black
from alphapack.models import svi as slices

Convention = Literal["forward", "spot", "premium_adjusted", "premium_adjusted_spot"]
Quality = Literal["full", "extrapolated", "unfit", "sparse", "atm"]

ADJUSTED_SPOT: dict[str, tuple[bool, bool]] = {
    "forward": (False, False),
    "spot": (False, True),
    "premium_adjusted": (True, False),
    "premium_adjusted_spot": (True, True),
}
"""Of each convention: is the premium part of the delta, is it discounted."""

DELTA = 0.25
FIT_MIN = 5
"""Strikes from which on SVI, with its five parameters, is fitted."""
POINTS_MAX = 4096
PRICE_MIN, PRICE_MAX = kernel.PRICE_MIN, kernel.PRICE_MAX
SD_MIN, SD_MAX = kernel.SD_MIN, kernel.SD_MAX
"""Of iv sqrt(t)."""
T_MIN, T_MAX = 1e-9, 1e3
DISCOUNT_MAX = 2.0
MISS_MAX, MISS_RELATIVE_MAX = 0.005, 0.03
"""Greatest root mean square error of SVI that is no miss: in volatility, or relative to it, whichever allows more."""
STRANGLE_STEPS, HALVINGS = 64, 48
"""Of the at-the-money volatility, within which of the market's a smile strangle is looked for, and of one such step."""
_NONE = np.zeros(0)


class Pillars(msgspec.Struct, frozen=True):
    """The strikes that a market quotes by delta, in the order of strikes, and their volatilities."""

    k25p: float
    k_atm: float
    k25c: float
    iv25p: float
    atm: float
    iv25c: float


class Smile(msgspec.Struct, frozen=True):
    """The smile of one expiry. No number is NaN; what the quotes do not tell is None, and ``reason`` says why."""

    t: float
    forward: float
    delta: Convention
    discount_foreign: float
    points: int
    """Strikes quoted."""
    quality: Quality
    """"full": SVI, 25-delta strikes among those quoted. "extrapolated": SVI, but one lies beyond them or is missing. "unfit": five strikes
    or more that SVI misses, "sparse": two to four, both with total variance linear in x and flat volatility beyond. "atm": one."""
    reason: str | None
    """Which pillars are missing, and why."""
    atm: float | None
    rr25: float | None
    fly25: float | None
    iv25c: float | None
    iv25p: float | None
    k25c: float | None
    k25p: float | None
    k_atm: float | None
    svi: slices.Svi | None
    miss: float | None
    """Weighted root mean square error of SVI in volatility, where SVI was tried: also of one that was then not taken."""
    x: tuple[float, ...]
    """Log-moneyness of the quotes, ascending."""
    w: tuple[float, ...]
    """Their total variances."""

    @property
    def butterfly_free(self) -> bool | None:
        """Whether no butterfly of the SVI slice has a negative price; None without SVI."""
        return None if self.svi is None else self.svi.butterfly_free

    def total_variance(self, x: npt.ArrayLike) -> Float64Array1D:
        """Return total variance at log-moneynesses, shape (n,). One quote alone is flat.

        Raises
        ------
        ValueError
            ``x`` has more than one dimension or is not finite.
        """
        at = _numbers("log-moneynesses", x, -sys.float_info.max, sys.float_info.max)
        out = np.empty(len(at))
        kernel.variances(*self._curve(), at, out)
        return out

    def vol(self, strike: npt.ArrayLike) -> Float64Array1D:
        """Return volatilities at strikes, shape (n,); as ``total_variance``, and strikes are positive."""
        at = _numbers("strikes", strike, PRICE_MIN, PRICE_MAX)
        return np.sqrt(self.total_variance(np.log(at / self.forward)) / self.t)

    def strike_of(self, delta: float, call: bool) -> float:
        """Return the strike nearest the forward at which |delta| falls through ``|delta|`` on the way out of the money.

        In the smile's own convention. The sign of a put's delta may be written or left out.

        Raises
        ------
        ValueError
            The sign is wrong, or no strike within 12 standard deviations (and half a variance) of the forward has that delta.
        """
        adjusted, discount = _convention(self.delta, self.discount_foreign)
        kind, curve = self._curve()
        role = 1 if call else -1
        x = float(kernel.crossing(kind, curve, role, adjusted, _target(delta, call, adjusted, discount)))
        if math.isnan(x):
            raise ValueError(f"expected a delta that the smile has, found {delta}: {_range(kind, curve, role, adjusted, discount)}")
        return self.forward * math.exp(x)

    def _curve(self) -> tuple[int, Float64Array1D]:
        return _curve(self.svi, np.array(self.x), np.array(self.w))


def fit(
    strike: npt.ArrayLike,
    iv: npt.ArrayLike,
    t: float,
    forward: float = 1.0,
    delta: Convention = "forward",
    discount_foreign: float = 1.0,
    weights: npt.ArrayLike | None = None,
) -> Smile:
    """Return the smile of one expiry.

    Parameters
    ----------
    strike, iv
        Shape (n,), n from 1 to 4096, in any order: strikes, each once, in the unit of ``forward``, and implied volatilities.
    t, forward
        Years of 365 days to the expiry, and its forward price.
    delta, discount_foreign
        The convention, and the foreign discount factor in (0, 2], which forward deltas do not look at.
    weights
        Shape (n,), positive: of the squared errors of volatility that SVI minimises. By default squared vegas, relative to the greatest
        and at least .001, so that the strikes which say most about volatility count most.

    Raises
    ------
    ValueError
        Shapes differ, a strike comes twice, or a number is not finite, not positive or out of range: iv sqrt(t) from 1e-8 to 10.
    """
    adjusted, discount = _convention(delta, discount_foreign)
    t, forward = float(t), float(forward)
    _check_expiry(t, forward)
    strikes, ivs = _line("strikes", strike), _line("volatilities", iv)
    given = _NONE if weights is None else _line("weights", weights)
    n = len(strikes)
    if not 1 <= n == len(ivs) <= POINTS_MAX:
        raise ValueError(f"expected 1 to {POINTS_MAX} strikes and as many volatilities, found {n} and {len(ivs)}")
    if weights is not None and len(given) != n:
        raise ValueError(f"expected {n} weights, one a strike, found {len(given)}")
    root, quotes = math.sqrt(t), np.empty((4, n))
    if not kernel.prepare(strikes, ivs * root, given, np.argsort(strikes), float(forward), quotes):
        raise ValueError(_refusal(strikes, ivs, given, forward, root))
    slice_, missed = None, None
    if n >= FIT_MIN:
        slice_ = slices.fit(quotes[kernel.X], quotes[kernel.W], quotes[kernel.WEIGHT_W])
        missed, level = (one / root for one in kernel.miss(kernel.SVI, slice_.params, quotes))
        tolerance = max(MISS_MAX, MISS_RELATIVE_MAX * level)
        if missed > tolerance:
            slice_ = None
    x, w = quotes[: kernel.WEIGHT].tolist()
    kind, curve, out = _pillars(slice_, quotes, adjusted, DELTA / discount)
    if slice_ is not None and _is_apart(x, w, out.tolist(), 2.0 * tolerance * root):
        slice_ = None
        kind, curve, out = _pillars(None, quotes, adjusted, DELTA / discount)
    at, ws = out[:3].tolist(), out[3:].tolist()
    k25p, k_atm, k25c = (None if math.isnan(one) else forward * math.exp(one) for one in at)
    iv25p, atm, iv25c = (None if math.isnan(one) else math.sqrt(one / t) for one in ws)
    reason = None
    if n == 1:
        atm, reason = float(ivs[0]), "one strike has no slope"
    elif None in (k25p, k_atm, k25c):
        reason = _absent(kind, curve, adjusted, discount, at)
    return Smile(
        t=t,
        forward=forward,
        delta=delta,
        discount_foreign=float(discount_foreign),
        points=n,
        quality=_quality(n, slice_ is not None, x[0] <= at[0] and at[2] <= x[-1]),
        reason=reason,
        atm=atm,
        rr25=iv25c - iv25p if iv25p is not None and iv25c is not None else None,
        fly25=0.5 * (iv25c + iv25p) - atm if iv25p is not None and iv25c is not None and atm is not None else None,
        iv25c=iv25c,
        iv25p=iv25p,
        k25c=k25c,
        k25p=k25p,
        k_atm=k_atm,
        svi=slice_,
        miss=missed,
        x=tuple(x),
        w=tuple(w),
    )


def delta(
    strike: npt.ArrayLike,
    vol: npt.ArrayLike,
    t: float,
    forward: float = 1.0,
    call: npt.ArrayLike = True,
    convention: Convention = "forward",
    discount_foreign: float = 1.0,
) -> Float64Array1D:
    """Return signed deltas, shape (n,): ``strike``, ``vol`` and ``call`` (True or False) are broadcast to one length.

    Raises
    ------
    ValueError
        A number is out of range, as for ``fit``, or shapes do not go together.
    """
    adjusted, discount = _convention(convention, discount_foreign)
    _check_expiry(t, forward)
    strikes = _numbers("strikes", strike, PRICE_MIN, PRICE_MAX)
    vols = _vols(vol, t)
    broadcast = np.broadcast_arrays(np.log(strikes / forward), vols * math.sqrt(t), np.where(call, 1.0, -1.0))
    if broadcast[0].ndim != 1:
        raise ValueError(f"expected calls in one dimension, found shape {broadcast[0].shape}")
    x, s, role = (np.array(one, order="C") for one in broadcast)
    out = np.empty(len(x))
    kernel.deltas(x, s, role, adjusted, discount, out)
    return out


def strike_of_delta(
    delta: float,
    vol: float,
    t: float,
    forward: float = 1.0,
    call: bool = True,
    convention: Convention = "forward",
    discount_foreign: float = 1.0,
) -> float:
    """Return the strike that has a delta at one volatility; the sign of a put's delta may be written or left out.

    The premium-adjusted delta of a call rises with the strike and then falls: the strike is the greater of the two.

    Raises
    ------
    ValueError
        No strike within 12 standard deviations, and half a variance, of the forward has that delta, as where it exceeds the greatest
        that a premium-adjusted call reaches; or a number is out of range, as for ``fit``.
    """
    adjusted, discount = _convention(convention, discount_foreign)
    _check_expiry(t, forward)
    s = float(_vols(vol, t)[0]) * math.sqrt(t)
    reach = (kernel.WITHIN + 0.5 * s) * s
    role = 1 if call else -1
    inner = kernel.peak(s) if adjusted and call else -role * reach
    outer = role * reach
    target = _target(delta, call, adjusted, discount)
    greatest, least = (kernel.size(x, s, role, adjusted) for x in (inner, outer))
    if not least < target <= greatest:
        kind, found = f"{convention} delta of a {'call' if call else 'put'}", f"{least * discount:.6g} and up to {greatest * discount:.6g}"
        raise ValueError(f"expected the {kind} above {found} in size, found {delta}")
    x = kernel.halved(kernel.LINEAR, np.array((0.0, s * s)), role, adjusted, target, inner, outer)
    return forward * math.exp(x)


def atm_strike(vol: float, t: float, forward: float = 1.0, convention: Convention = "forward") -> float:
    """Return the strike of the delta-neutral straddle at one volatility; ValueError where a number is out of range, as for ``fit``."""
    adjusted, _ = _convention(convention, 1.0)
    _check_expiry(t, forward)
    variance = float(_vols(vol, t)[0]) ** 2 * t
    return forward * math.exp(-0.5 * variance if adjusted else 0.5 * variance)


def from_quotes(
    atm: float,
    rr25: float,
    fly25: float,
    t: float,
    forward: float = 1.0,
    convention: Convention = "forward",
    discount_foreign: float = 1.0,
) -> Pillars:
    """Return strikes and volatilities of a smile told by its own numbers: ``fly25`` is that of the smile, not a market strangle.

    Raises
    ------
    ValueError
        A volatility or another number is out of range, as for ``fit``, or there is no strike of that delta.
    """
    iv25c, iv25p = atm + fly25 + 0.5 * rr25, atm + fly25 - 0.5 * rr25
    return Pillars(
        k25p=strike_of_delta(-DELTA, iv25p, t, forward, False, convention, discount_foreign),
        k_atm=atm_strike(atm, t, forward, convention),
        k25c=strike_of_delta(DELTA, iv25c, t, forward, True, convention, discount_foreign),
        iv25p=iv25p,
        atm=atm,
        iv25c=iv25c,
    )


def strangle_strikes(
    atm: float,
    market_strangle25: float,
    t: float,
    forward: float = 1.0,
    convention: Convention = "forward",
    discount_foreign: float = 1.0,
) -> tuple[float, float]:
    """Return the strikes, put and call, of a market strangle: both have 25 delta at the one volatility ``atm + market_strangle25``."""
    vol = atm + market_strangle25
    put = strike_of_delta(-DELTA, vol, t, forward, False, convention, discount_foreign)
    return put, strike_of_delta(DELTA, vol, t, forward, True, convention, discount_foreign)


def smile_strangle(
    atm: float,
    rr25: float,
    market_strangle25: float,
    t: float,
    forward: float = 1.0,
    convention: Convention = "forward",
    discount_foreign: float = 1.0,
) -> float:
    """Return the ``fly25`` of the smile on which a market strangle costs what it costs at its one volatility.

    Between its three pillars, and beyond them, the smile's volatility is the parabola in x through them. Of several answers the one
    nearest ``market_strangle25`` is returned.

    Raises
    ------
    ValueError
        None is within the at-the-money volatility of ``market_strangle25``, or a number is out of range, as for ``fit``.
    """
    market = (t, forward, convention, discount_foreign)
    strikes = np.array(strangle_strikes(atm, market_strangle25, *market))
    calls = np.array((False, True))
    cost = float(black.price(forward, strikes, atm + market_strangle25, t, calls).sum())
    x = np.log(strikes / forward)

    def excess(fly25: float) -> float:
        """Return what the strangle costs on the smile beyond its cost in the market; NaN where there is no such smile."""
        try:
            pillars = from_quotes(atm, rr25, fly25, *market)
        except ValueError:
            return math.nan
        if not pillars.k25p < pillars.k_atm < pillars.k25c:
            return math.nan
        vols = np.maximum(_parabola(pillars, forward, x), SD_MIN / math.sqrt(t))
        return float(black.price(forward, strikes, vols, t, calls).sum()) - cost

    step = atm / STRANGLE_STEPS
    for i in range(STRANGLE_STEPS):
        for low in (market_strangle25 + i * step, market_strangle25 - (i + 1) * step):
            if excess(low) <= 0.0 <= excess(low + step):
                return _risen(excess, low, low + step)
    raise ValueError(f"expected quotes that some smile explains, found atm {atm}, rr25 {rr25}, market strangle {market_strangle25}")


def _quality(points: int, taken: bool, within: bool) -> Quality:
    """Return the word for what a smile is worth."""
    if points < FIT_MIN:
        return "atm" if points == 1 else "sparse"
    if not taken:
        return "unfit"
    return "full" if within else "extrapolated"


def _pillars(
    slice_: slices.Svi | None, quotes: Float64Array2D, adjusted: bool, target: float
) -> tuple[int, Float64Array1D, Float64Array1D]:
    """Return a smile as kernels take it, and its pillars as ``kernels.smile.pillars`` writes them."""
    kind, curve = _curve(slice_, quotes[kernel.X], quotes[kernel.W])
    out = np.full(6, math.nan)
    if quotes.shape[1] > 1:
        kernel.pillars(kind, curve, adjusted, target, out)
    return kind, curve, out


def _is_apart(x: list[float], w: list[float], pillars: list[float], tolerance: float) -> bool:
    """Tell whether a pillar lies between two quotes and not between their standard deviations, by more than the tolerance.

    A slice that fits all quotes may still dip where none is: so SVI does hours before an expiry.
    """
    for at, variance in zip(pillars[:3], pillars[3:], strict=True):
        after = bisect_right(x, at)
        if 0 < after < len(x):
            low, high = sorted((math.sqrt(w[after - 1]), math.sqrt(w[after])))
            if not low - tolerance <= math.sqrt(variance) <= high + tolerance:
                return True
    return False


def _curve(slice_: slices.Svi | None, x: Float64Array1D, w: Float64Array1D) -> tuple[int, Float64Array1D]:
    """Return a smile as kernels take it."""
    return (kernel.LINEAR, np.concatenate((x, w))) if slice_ is None else (kernel.SVI, slice_.params)


def _absent(kind: int, curve: Float64Array1D, adjusted: bool, discount: float, at: list[float]) -> str:
    """Say which pillars there are not."""
    told = []
    for role, name, x in zip((-1, 0, 1), ("no put of 25 delta", "no delta-neutral straddle", "no call of 25 delta"), at, strict=True):
        if math.isnan(x):
            told.append(f"{name}: {_range(kind, curve, role, adjusted, discount)}" if role else name)
    return "; ".join(told)


def _range(kind: int, curve: Float64Array1D, role: int, adjusted: bool, discount: float) -> str:
    """Say which deltas a smile has."""
    reach = kernel.WITHIN * math.sqrt(kernel.variance_at(kind, curve, 0.0))
    sizes = [discount * kernel.size_at(kind, curve, float(x), role, adjusted) for x in np.linspace(-reach, reach, 769)]
    return f"within {kernel.WITHIN:g} standard deviations of the forward they go from {min(sizes):.4g} to {max(sizes):.4g} in size"


def _parabola(pillars: Pillars, forward: float, x: Float64Array1D) -> Float64Array1D:
    """Return the volatilities, at x, of the parabola through three pillars."""
    a, b, c = (math.log(strike / forward) for strike in (pillars.k25p, pillars.k_atm, pillars.k25c))
    left, right = (pillars.atm - pillars.iv25p) / (b - a), (pillars.iv25c - pillars.atm) / (c - b)
    vols: Float64Array1D = pillars.iv25p + (x - a) * (left + (x - b) * (right - left) / (c - a))
    return vols


def _risen(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function passes from at most 0, at ``low``, to at least 0."""
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if function(middle) <= 0.0:
            low = middle
        else:
            high = middle
    return low


def _convention(convention: str, discount_foreign: float) -> tuple[bool, float]:
    """Return whether the premium is part of the delta, and what a forward delta is multiplied by."""
    if convention not in ADJUSTED_SPOT:
        raise ValueError(f"expected a delta convention of {', '.join(ADJUSTED_SPOT)}, found {convention!r}")
    if not 0.0 < discount_foreign <= DISCOUNT_MAX:
        raise ValueError(f"expected a foreign discount factor above 0 and up to {DISCOUNT_MAX:g}, found {discount_foreign}")
    adjusted, spot = ADJUSTED_SPOT[convention]
    return adjusted, float(discount_foreign) if spot else 1.0


def _check_expiry(t: float, forward: float) -> None:
    """Raise where an expiry or its forward price is out of range."""
    if not T_MIN <= t <= T_MAX:
        raise ValueError(f"expected t, in years, from {T_MIN:g} to {T_MAX:g}, found {t}")
    if not PRICE_MIN <= forward <= PRICE_MAX:
        raise ValueError(f"expected a forward from {PRICE_MIN:g} to {PRICE_MAX:g}, found {forward}")


def _vols(vol: npt.ArrayLike, t: float) -> Float64Array1D:
    """Return volatilities that are in range at this expiry."""
    return _numbers("volatilities", vol, SD_MIN / math.sqrt(t), SD_MAX / math.sqrt(t))


def _line(name: str, values: npt.ArrayLike) -> Float64Array1D:
    """Return numbers in one dimension."""
    line = np.ascontiguousarray(values, dtype=np.float64)
    if line.ndim != 1:
        raise ValueError(f"expected {name} in one dimension, found shape {line.shape}")
    return line


def _numbers(name: str, values: npt.ArrayLike, low: float, high: float) -> Float64Array1D:
    """Return numbers in one dimension, each from ``low`` to ``high``."""
    line = _line(name, values)
    within = (line >= low) & (line <= high)
    if not within.all():
        raise ValueError(f"expected {name} from {low:.6g} to {high:.6g}, found {line[~within][0]}")
    return line


def _refusal(strikes: Float64Array1D, ivs: Float64Array1D, weights: Float64Array1D, forward: float, root: float) -> str:
    """Say why quotes make no smile."""
    bounds = (
        ("strikes", strikes, 1.0, PRICE_MIN, PRICE_MAX),
        ("volatilities", ivs, root, SD_MIN, SD_MAX),
        ("weights", weights, 1.0, PRICE_MIN, PRICE_MAX),
    )
    for name, line, unit, low, high in bounds:
        beyond = ~((line * unit >= low) & (line * unit <= high))
        if beyond.any():
            return f"expected {name} from {low / unit:.6g} to {high / unit:.6g}, found {line[beyond][0]}"
    ascending = np.sort(strikes).tolist()
    x = [math.log(one / forward) for one in ascending]
    again = next(ascending[i] for i in range(1, len(x)) if x[i] <= x[i - 1])
    return f"expected every strike once, and farther apart than rounding, found {again} again"


def _target(delta: float, call: bool, adjusted: bool, discount: float) -> float:
    """Return the size, not discounted, of a delta that is written with its sign or, of a put, without."""
    if not (0.0 < delta < math.inf or (not call and -math.inf < delta < 0.0)):
        raise ValueError(f"expected a {'positive delta of a call' if call else 'delta of a put, not 0'}, found {delta}")
    if not adjusted and abs(delta) >= discount:
        raise ValueError(f"expected a delta below {discount:.6g} in size, found {delta}")
    return abs(delta) / discount
