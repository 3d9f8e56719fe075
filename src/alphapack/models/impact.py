"""Price impact as a power of size: what an order costs, how the cost fades, and how its parameters are learnt.

``cost = half spread + k x^a`` in bps, with ``x = |Q| / ADV`` the share of a day's volume; k is the impact in bps of one day's volume,
a the exponent. Before anything is seen, log k ~ N(log(.9e4 sigma_1d), .7^2) and a ~ N(.5, .1^2) on (.2, 1). Three sources follow,
each starting from what the one before it left: displayed depth, the tape, own fills.

**One estimate.** Each source gives the mode of prior times likelihood in (log k, a). The exponent leaves its prior only where the
source alone, k unknown, tells it to better than ``A_STDERR_MAX``; else a rests and k is estimated at that a. Then the cost is right
at the sizes seen and off by ``(x / pivot)^(true a - a)`` at others: for .1 of a and two decades of size, by a factor of 1.6.

**What is told of errors.** log k and a are tied together, for k is an extrapolation to a whole day's volume. ``pivot_share`` is the
size at which the impact does not depend on a, about the mean size of what was seen; ``k_stderr`` is the error of log k at the a
told, which is that of log impact at the pivot; ``Impact.log_stderr`` is the error of log impact at any size, and at 1 that of log k
with a unknown. Errors are the larger of what the noise implies and of what the scatter of the scores shows, so that noise which
grows with size is seen. They hold for independent observations: overlapping bars, and the points of one book, tell less than as many.

**Three impacts.** A displayed book, everyone's flow and own fills do not have one and the same impact. A prior that comes from
another source is therefore widened by half of what was unknown at first, or a thousand points of a displayed book would leave
nothing to be said by fills.

References
----------
R. Almgren, C. Thum, E. Hauptmann, H. Li, "Direct estimation of equity market impact", Risk 18(7) (2005).
J. Donier, J. Bonart, "A million metaorder analysis of market impact on the Bitcoin", arXiv 1412.4503 (2014).
P. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35 (1964).
H. White, "A heteroskedasticity-consistent covariance matrix estimator", Econometrica 48 (1980).
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D
from alphapack.kernels import impact as kernel

Source = Literal["prior", "sweeps", "bars", "fills"]
"""What an impact rests on, in the order of identification."""

LOG_K_SD, A_MEAN, A_SD = 0.7, 0.5, 0.1
K_PRIOR_BPS = 0.9e4
"""Impact of one day's volume, in bps, as a multiple of the daily volatility."""
A_MIN, A_MAX = 0.2, 1.0
A_STDERR_MAX = 0.1
"""Error of a, from a source alone and with k unknown, under which a leaves its prior."""
WIDENING = 0.5
"""What another source's impact may differ by, as a share of the first standard deviations."""

SHARE_MIN, SHARE_MAX = 1e-12, 1e3
K_MAX, BPS_MAX = 1e100, 1e5
"""Bounds of k, which extrapolates, and of all else that is in bps."""
SIGMA_1D_MIN, SIGMA_1D_MAX = 1e-6, 10.0
SIGMA_1S_BPS_MIN = 1e-2
"""Noise of one second, at least: below any tick."""
DURATION_S_MIN, DURATION_S_MAX = 1e-3, 86_400.0
AT_ONCE_S = 1.0
OBSERVATIONS_MAX = 1 << 22
SWEEPS_MIN, BARS_MIN = 3, 20
MISFIT_MIN = 0.1
"""A displayed book follows no power of size more closely: as a share of its cost."""
HUBER = 1.345
"""Standard deviations: 95 % efficient under normal noise."""
HUBER_EVEN = 1.352
"""E[weight] / E[score^2] of that under normal noise, which puts both kinds of error on one footing."""

POINTS_MAX = 1_000
"""Points at which the likelihood is taken, for one mode; a few are needed."""
SCALE_ROUNDS = 20
LOOSE = 10.0
"""How much wider than the prior is what holds a curve while the noise about it is estimated."""
U_STEP_MAX, A_STEP_MAX = 1.0, 0.1
TOLERANCE, STEP_MIN = 1e-6, 1e-7
"""A mode is found where the next step would be so few standard errors, or so little of log impact and of a."""
TOLERANCE_AT_END = 1e-2
"""What is still taken after ``POINTS_MAX``: nobody will see it."""
ROUNDING = 1e-12
"""Share of a loss that its sum may have lost."""
ENOUGH = 0.1
"""Share of the gain that the gradient promises, which a step must bring (Armijo)."""
COLLINEAR = 1e-10
"""Share of the information on a that k leaves, under which all sizes are one size."""


class Impact(msgspec.Struct, frozen=True):
    """Impact ``k x^a`` in bps with its errors; every number is finite."""

    k: float
    """Impact of one day's volume, in bps."""
    a: float
    """Exponent, from ``A_MIN`` to ``A_MAX``."""
    k_stderr: float
    """Standard error of log k at the a told."""
    a_stderr: float
    """Standard error of a; the prior's as long as a rests."""
    source: Source
    """The last source that it rests on."""
    n: int
    """Observations of that source."""
    pivot_share: float = 1.0
    """Share of a day's volume at which the impact does not depend on a."""

    def __post_init__(self) -> None:
        """Refuse what is no impact: it may come from a file."""
        if not (0.0 < self.k <= K_MAX and A_MIN <= self.a <= A_MAX):
            raise ValueError(f"expected k above 0 and up to {K_MAX:g} bps, a from {A_MIN} to {A_MAX}, found {self.k} and {self.a}")
        if not (0.0 < self.k_stderr < math.inf and 0.0 < self.a_stderr < math.inf):
            raise ValueError(f"expected errors that are positive and finite, found {self.k_stderr} and {self.a_stderr}")
        if not SHARE_MIN <= self.pivot_share <= SHARE_MAX:
            raise ValueError(f"expected a pivot from {SHARE_MIN:g} to {SHARE_MAX:g} of a day's volume, found {self.pivot_share}")
        if self.source not in get_args(Source) or self.n < 0:
            raise ValueError(f"expected a source {', '.join(get_args(Source))} and a count, found {self.source!r} and {self.n}")

    def log_stderr(self, share: float) -> float:
        """Return the standard error of log impact at a share of a day's volume; at 1 that of log k with a unknown."""
        distance = math.log(_within("share", share, SHARE_MIN, SHARE_MAX) / self.pivot_share)
        return math.hypot(self.k_stderr, distance * self.a_stderr)


class Athl(msgspec.Struct, frozen=True):
    """Impact of an order by Almgren, Thum, Hauptmann and Li, in bps, as costs: positive on either side."""

    permanent_bps: float
    """I: what stays in the price."""
    temporary_bps: float
    """J - I/2: what is paid besides while trading."""

    @property
    def cost_bps(self) -> float:
        """J: the expected cost, half of what stays and all of what does not."""
        return 0.5 * self.permanent_bps + self.temporary_bps


class Shift(msgspec.Struct, frozen=True):
    """What own fills have done to the price and is not gone yet: all of the past in one number.

    Every fill's ``k x^a`` decays at one rate, whatever its power was taken of, so the sum of all decays at that rate too. A fill costs
    one power and one exponential, however many came before. k and a may change from fill to fill; tau may not.
    """

    t_s: float = 0.0
    """Time of the last fill, in seconds from any origin that is near: seconds since 1970 keep 2e-7 of a second."""
    bps: float = 0.0
    """Shift of the price just after it, positive after buying."""

    def __post_init__(self) -> None:
        """Refuse what is no shift."""
        if not (math.isfinite(self.t_s) and math.isfinite(self.bps)):
            raise ValueError(f"expected a finite time and shift, found {self.t_s} s and {self.bps} bps")

    def at(self, t_s: float, tau_s: float = 60.0) -> float:
        """Return the shift in bps at a time not before the last fill, all fills up to then counted."""
        if not self.t_s <= t_s < math.inf:
            raise ValueError(f"expected a time from {self.t_s} s on, found {t_s}")
        return self.bps * math.exp(-(t_s - self.t_s) / _positive("tau_s", tau_s))

    def after(self, t_s: float, share: float, k: float, a: float, tau_s: float = 60.0) -> "Shift":
        """Return the shift with one more fill, of a signed share of a day's volume; its own price is not shifted by it: ask first."""
        size = _within("the size of a fill", abs(share), 0.0, SHARE_MAX)
        return Shift(t_s, self.at(t_s, tau_s) + math.copysign(_power(size, k, a), share))


def cost_bps(share: float, k: float, a: float, half_spread_bps: float) -> float:
    """Return the expected cost ``half_spread_bps + k share^a`` in bps.

    Parameters
    ----------
    share
        Size as a share of a day's volume, 0 to ``SHARE_MAX``; in any other unit where k is of that unit.
    k
        Impact of a share of 1, in bps, 0 to ``K_MAX``.
    a
        Exponent, above 0 and up to 2.
    half_spread_bps
        Half of the quoted spread, 0 to ``BPS_MAX``.

    Raises
    ------
    ValueError
        A number is out of its range.
    """
    return _within("half_spread_bps", half_spread_bps, 0.0, BPS_MAX) + _power(_within("share", share, 0.0, SHARE_MAX), k, a)


def athl(
    quantity: float,
    daily_volume: float,
    shares_outstanding: float,
    sigma_1d: float,
    horizon_days: float,
    *,
    gamma: float = 0.314,
    eta: float = 0.142,
    delta: float = 0.25,
    beta: float = 0.6,
) -> Athl:
    """Return the impact of an order traded evenly over a horizon, as Almgren, Thum, Hauptmann and Li (2005) have it for shares.

    ``I = gamma sigma (X/V) (Theta/V)^delta`` and ``J = I/2 + eta sigma (X/(V T))^beta``; the defaults are the published ones.

    Parameters
    ----------
    quantity, daily_volume, shares_outstanding
        X, V and Theta, above 0 and in one unit.
    sigma_1d
        Volatility of a day, a fraction, above 0.
    horizon_days
        T, in days of trading, above 0.
    gamma, eta, delta, beta
        Coefficients and exponents, above 0.

    Raises
    ------
    ValueError
        A number is not positive and finite, or the impact exceeds what a float holds.
    """
    for name, value in (
        ("quantity", quantity),
        ("daily_volume", daily_volume),
        ("shares_outstanding", shares_outstanding),
        ("sigma_1d", sigma_1d),
        ("horizon_days", horizon_days),
        ("gamma", gamma),
        ("eta", eta),
        ("delta", delta),
        ("beta", beta),
    ):
        _positive(name, value)
    sigma_bps, share = 1e4 * sigma_1d, quantity / daily_volume
    try:
        permanent = gamma * sigma_bps * share * (shares_outstanding / daily_volume) ** delta
        temporary = eta * sigma_bps * (share / horizon_days) ** beta
    except OverflowError:
        permanent = temporary = math.inf
    if not (permanent < math.inf and temporary < math.inf):
        raise ValueError(f"expected an impact that a float holds, found one beyond it at {share:g} of a day's volume")
    return Athl(permanent, temporary)


def propagator(
    times_s: Float64Array1D, shares: Float64Array1D, k: float, a: float, tau_s: float = 60.0, at_s: Float64Array1D | None = None
) -> Float64Array1D:
    """Return what own fills shift the price by: the sum over fills i up to t of ``sign_i k |x_i|^a exp(-(t - t_i) / tau)``, in bps.

    An order cut in n equal fills at once shifts by ``n^(1 - a)`` times as much as in one: slicing is not free, waiting pays.

    Parameters
    ----------
    times_s, shares
        Shape (n,), n up to ``OBSERVATIONS_MAX``: times of the fills, not decreasing, see ``Shift.t_s``; signed shares of a day's
        volume, positive where bought.
    k, a
        As in ``cost_bps``.
    tau_s
        Time in which a shift falls to 1/e, above 0.
    at_s
        Shape (m,), not decreasing: times to tell it for. A fill at that very time counts. By default the times of the fills.

    Raises
    ------
    ValueError
        Shapes differ, times decrease or are not finite, or a number is out of its range.
    """
    times = _column("times_s", times_s, (-math.inf, math.inf))
    signed = _column("shares", shares, (-SHARE_MAX, SHARE_MAX), len(times))
    asked = times if at_s is None else _column("at_s", at_s, (-math.inf, math.inf))
    for name, column in (("times_s", times), ("at_s", asked)):
        back = np.flatnonzero(column[1:] < column[:-1])
        if back.size:
            raise ValueError(f"expected {name} that do not decrease, found {column[back[0]]} before {column[back[0] + 1]}")
    fills = list(zip(times.tolist(), signed.tolist(), strict=True))
    shifts, state, place = np.zeros(len(asked)), None, 0
    for j, t_s in enumerate(asked.tolist()):
        while place < len(fills) and fills[place][0] <= t_s:
            at, share = fills[place]
            state = (state or Shift(at)).after(at, share, k, a, tau_s)
            place += 1
        if state is not None:
            shifts[j] = state.at(t_s, tau_s)
    return shifts


def prior(sigma_1d: float) -> Impact:
    """Return what is believed of a market of which only the volatility of a day is known, a fraction from 1e-6 to 10."""
    return Impact(K_PRIOR_BPS * _within("sigma_1d", sigma_1d, SIGMA_1D_MIN, SIGMA_1D_MAX), A_MEAN, LOG_K_SD, A_SD, "prior", 0)


def from_sweeps(shares: Float64Array1D, costs_bps: Float64Array1D, prior: Impact) -> Impact:
    """Learn from what sweeping the displayed book would cost at a grid of sizes.

    The mean of a cost is ``k x^a``, and it scatters in proportion to that: a cost of 0, inside the best level, is evidence like any
    other, which it would not be in logarithms. The scatter is estimated and taken to be at least ``MISFIT_MIN``. Points of one book
    move together, so give one mean cost a size over many books. Hidden and returning liquidity make true impact smaller, orders that
    flee make it larger.

    Parameters
    ----------
    shares, costs_bps
        Shape (n,), n from ``SWEEPS_MIN`` on: sizes as shares of a day's volume, above 0; mean price paid against the best quote, without
        the half spread, at least 0.
    prior
        What was believed before.

    Raises
    ------
    ValueError
        Too few or too many observations, numbers out of their ranges, a prior of a later source, or no cost above 0.
    """
    sizes = _column("shares", shares, (SHARE_MIN, SHARE_MAX), at_least=SWEEPS_MIN)
    costs = _column("costs_bps", costs_bps, (0.0, BPS_MAX), len(sizes))
    if not costs.any():
        raise ValueError(f"expected a cost above 0, found {len(costs)} sweeps that all stay inside the best level")

    def likelihood(logs: Float64Array1D, scale: float, log_k: float, a: float, sums: Float64Array1D) -> None:
        kernel.proportions(logs, costs, scale, log_k, a, sums)

    return _learnt(likelihood, np.log(sizes), _handed_on(prior, "sweeps"), "sweeps", MISFIT_MIN)


def from_bars(shares: Float64Array1D, moves_bps: Float64Array1D, prior: Impact, durations_s: Float64Array1D | None = None) -> Impact:
    """Learn from the tape: the move of the mid over a bar against the net volume of its aggressors.

    Moves are signed. Told in the direction of the flow, a move is ``k x^a`` plus noise of mean 0, by least squares; the absolute move
    would be the noise's own size in a quiet bar, and would say that small flow moves the price. The variance of the noise grows
    with the duration and is estimated. Nothing is clipped, for the mean is what counts where most moves are 0 and few are a tick.
    Bars without net volume say nothing here and are left out. Flow that chases the price, or that others send the same way, counts
    as impact: k is too large for a lone order.

    Parameters
    ----------
    shares, moves_bps
        Shape (n,), at least ``BARS_MIN`` of them with net volume, on both sides: bought less sold volume of a bar, as a share of a
        day's; change of the log mid over the bar, in bps.
    prior
        What was believed before.
    durations_s
        Shape (n,): lengths of the bars, from ``DURATION_S_MIN`` to a day; None where all are alike.

    Raises
    ------
    ValueError
        Too few or too many observations, numbers out of their ranges, flow of one side alone, or a prior of a later source.
    """
    signed = _column("shares", shares, (-SHARE_MAX, SHARE_MAX), at_least=BARS_MIN)
    moves = _column("moves_bps", moves_bps, (-BPS_MAX, BPS_MAX), len(signed))
    durations = np.ones(len(signed)) if durations_s is None else durations_s
    durations = _column("durations_s", durations, (DURATION_S_MIN, DURATION_S_MAX), len(signed))
    flowing = np.abs(signed) >= SHARE_MIN
    signed, moves, durations = signed[flowing], moves[flowing], durations[flowing]
    bought = int(np.count_nonzero(signed > 0.0))
    if len(signed) < BARS_MIN or bought in (0, len(signed)):
        found = f"{bought} that bought and {len(signed) - bought} that sold"
        raise ValueError(f"expected at least {BARS_MIN} bars with net volume, on both sides and signed, found {found}")
    along, noise = np.where(signed > 0.0, moves, -moves), np.sqrt(durations)

    def likelihood(logs: Float64Array1D, scale: float, log_k: float, a: float, sums: Float64Array1D) -> None:
        kernel.levels(logs, along, noise, scale, log_k, a, math.inf, sums)

    return _learnt(likelihood, np.log(np.abs(signed)), _handed_on(prior, "bars"), "bars", SIGMA_1S_BPS_MIN)


def from_fills(
    shares: Float64Array1D,
    costs_bps: Float64Array1D,
    durations_s: Float64Array1D,
    sigma_1s_bps: float | Float64Array1D,
    prior: Impact,
) -> Impact:
    """Learn from own executions: what each cost beyond the half spread.

    A cost is ``k x^a`` plus the price's own move, of standard deviation ``sigma sqrt(max(T, 1 s))``, which is given and not estimated: an
    order that fills at once still meets a book that varies. Huber's loss: a move of many deviations pulls no harder than one of 1.3.
    Unbiased where the size of an order does not depend on where the price is about to go: an order that follows a signal pays the
    signal's move as impact.

    Parameters
    ----------
    shares, costs_bps
        Shape (n,), n from 1 on: sizes as shares of a day's volume, above 0; mean price paid against the mid at arrival, without the half
        spread, in bps of any sign.
    durations_s
        Shape (n,): from arrival to the last fill, 0 to a day.
    sigma_1s_bps
        Standard deviation of the mid over one second, from ``SIGMA_1S_BPS_MIN`` on: one number, or shape (n,).
    prior
        What was believed before.

    Raises
    ------
    ValueError
        No or too many observations, or numbers out of their ranges.
    """
    sizes = _column("shares", shares, (SHARE_MIN, SHARE_MAX), at_least=1)
    n = len(sizes)
    costs = _column("costs_bps", costs_bps, (-BPS_MAX, BPS_MAX), n)
    sigmas = np.full(n, sigma_1s_bps) if np.ndim(sigma_1s_bps) == 0 else sigma_1s_bps
    durations = _column("durations_s", durations_s, (0.0, DURATION_S_MAX), n)
    noise = _column("sigma_1s_bps", sigmas, (SIGMA_1S_BPS_MIN, BPS_MAX), n) * np.sqrt(np.maximum(durations, AT_ONCE_S))

    def likelihood(logs: Float64Array1D, scale: float, log_k: float, a: float, sums: Float64Array1D) -> None:
        kernel.levels(logs, costs, noise, scale, log_k, a, HUBER, sums)
        sums[kernel.OUTER : kernel.SQUARES] *= HUBER_EVEN

    return _learnt(likelihood, np.log(sizes), _handed_on(prior, "fills"), "fills")


_Likelihood = Callable[[Float64Array1D, float, float, float, Float64Array1D], None]
"""Write a likelihood's sums, given log shares, the scale of the noise, log k and a."""


class _Square(msgspec.Struct, frozen=True):
    """A symmetric matrix over (u, a), u being log impact at some one size."""

    uu: float
    ua: float
    aa: float

    def __add__(self, other: "_Square") -> "_Square":
        return _Square(self.uu + other.uu, self.ua + other.ua, self.aa + other.aa)

    @property
    def determinant(self) -> float:
        return self.uu * self.aa - self.ua * self.ua

    def u_variance(self, scores: "_Square") -> float:
        """Return the variance of u at a given a: the larger of what this information implies and of what the scores' variance does."""
        return max(1.0 / self.uu, scores.uu / self.uu / self.uu)

    def a_variance(self, scores: "_Square", least: float = 0.0) -> float:
        """Return the same of a, with u unknown; ``least`` is known of a's precision, should rounding lose it."""
        slope = self.ua / self.uu
        precision = max(least, self.aa - slope * self.ua)
        return max(1.0 / precision, (slope * slope * scores.uu - 2.0 * slope * scores.ua + scores.aa) / precision / precision)


class _Belief(NamedTuple):
    """A prior, normal in a and, apart from that, in ``u + lean a``, which is the log impact at its pivot."""

    u: float
    a: float
    lean: float
    u_precision: float
    a_precision: float

    @property
    def precision(self) -> _Square:
        """Inverse of the covariance of (u, a)."""
        pull = self.u_precision * self.lean
        return _Square(self.u_precision, pull, pull * self.lean + self.a_precision)

    def loosened(self, by: float) -> "_Belief":
        """Return a belief of the same mean whose standard deviations are so many times as large."""
        return self._replace(u_precision=self.u_precision / by / by, a_precision=self.a_precision / by / by)

    def off(self, u: float, a: float) -> tuple[float, float]:
        """Return what lies between the prior's mean and a point: of log impact at the pivot, and of a."""
        return u - self.u + self.lean * (a - self.a), a - self.a


def _learnt(likelihood: _Likelihood, logs: Float64Array1D, prior: Impact, source: Source, scale_min: float | None = None) -> Impact:
    """Return the posterior; a scale of the noise is estimated where a least one is given."""
    # About the mean size u and a are hardly tied together, so that no digits are lost; u is the log impact there.
    n, centre = len(logs), float(logs.mean())
    centred, belief, sums = logs - centre, _belief(prior, centre), np.zeros(kernel.SUMS)

    def settled(fixed: float | None) -> tuple[float, float]:
        """Return the mode, at an a if one is given, and leave its sums."""
        if scale_min is None:
            return _mode(likelihood, centred, 1.0, belief, fixed, sums)
        # Where a is free the noise is what the source's own curve leaves: about the prior's it would hold all that speaks against it,
        # and a prior that is wrong would stay because it is wrong.
        scale, held = 1.0, belief if fixed is not None else belief.loosened(LOOSE)
        likelihood(centred, scale, belief.u, belief.a, sums)
        for _ in range(SCALE_ROUNDS):
            before, scale = scale, max(scale_min, scale * math.sqrt(float(sums[kernel.SQUARES]) / (n - 2)))
            mode = _mode(likelihood, centred, scale, held, fixed, sums)
            if abs(scale - before) <= TOLERANCE * scale:
                break
        return mode if fixed is not None else _mode(likelihood, centred, scale, belief, None, sums)

    u, a = settled(None)
    information, scores = _square(sums, kernel.INFORMATION), _square(sums, kernel.OUTER)
    apart = information.determinant > COLLINEAR * information.uu * information.aa
    moved = apart and information.a_variance(scores) < A_STDERR_MAX * A_STDERR_MAX
    if not moved or not A_MIN <= a <= A_MAX:
        u, a = settled(min(max(a, A_MIN), A_MAX) if moved else prior.a)
        information, scores = _square(sums, kernel.INFORMATION), _square(sums, kernel.OUTER)
    information, scores = belief.precision + information, belief.precision + scores
    pivot = math.exp(information.ua / information.uu + centre)
    return Impact(
        k=math.exp(u - a * centre),
        a=a,
        k_stderr=math.sqrt(information.u_variance(scores)),
        a_stderr=math.sqrt(information.a_variance(scores, belief.a_precision)) if moved else prior.a_stderr,
        source=source,
        n=n,
        pivot_share=min(max(pivot, SHARE_MIN), SHARE_MAX),  # A mean of sizes within bounds, but for its rounding.
    )


def _mode(
    likelihood: _Likelihood, logs: Float64Array1D, scale: float, belief: _Belief, fixed: float | None, sums: Float64Array1D
) -> tuple[float, float]:
    """Return where prior times likelihood is greatest, uphill from the prior's mean, at an a if one is given; leave the sums there.

    Newton's steps, or those of Gauss-Newton, bounded, and halved until they lead uphill.
    """
    prior = belief.precision

    def loss(u: float, a: float) -> float:
        likelihood(logs, scale, u, a, sums)
        off_u, off_a = belief.off(u, a)
        return 0.5 * (belief.u_precision * off_u * off_u + belief.a_precision * off_a * off_a) + float(sums[kernel.LOSS])

    u, a = belief.u, belief.a if fixed is None else fixed
    least, left, points, reach = loss(u, a), math.inf, 1, 1.0
    while points < POINTS_MAX:
        off_u, off_a = belief.off(u, a)
        up_u = float(sums[kernel.SCORE]) - belief.u_precision * off_u
        up_a = float(sums[kernel.SCORE + 1]) - belief.u_precision * off_u * belief.lean - belief.a_precision * off_a
        curved = prior + _square(sums, kernel.CURVATURE)
        # Newton's step is quick near the mode. Far from it the curvature may be negative; the information never is.
        convex = curved.uu > 0.0 and (fixed is not None or curved.determinant > COLLINEAR * curved.uu * curved.aa)
        if convex:
            reach = min(reach, 1.0)
        else:
            curved = prior + _square(sums, kernel.INFORMATION)
        slope = curved.ua / curved.uu
        step_a = (up_a - slope * up_u) / max(curved.aa - slope * curved.ua, 0.0 if convex else belief.a_precision) if fixed is None else 0.0
        step_u = up_u / curved.uu - slope * step_a
        left = math.sqrt(max(0.0, step_u * up_u + step_a * up_a))
        if left <= TOLERANCE or max(abs(step_u), abs(step_a)) <= STEP_MIN:
            return u, a
        # A model that is far too low has hardly a slope, and its full step would be out of all bounds.
        part = 1.0 / max(1.0 / reach, abs(step_u) / U_STEP_MAX, abs(step_a) / A_STEP_MAX)
        reach = 2.0 * part
        while points < POINTS_MAX:
            points += 1
            trial = loss(u + part * step_u, a + part * step_a)
            if trial <= least - ENOUGH * part * left * left + ROUNDING * (1.0 + abs(least)):
                u, a, least = u + part * step_u, a + part * step_a, trial
                break
            part *= 0.5
            reach = part
    if left <= TOLERANCE_AT_END:
        loss(u, a)
        return u, a
    raise ValueError(f"expected a mode within {POINTS_MAX} points, found a step of {left:.3g} standard errors left")


def _square(sums: Float64Array1D, place: int) -> _Square:
    return _Square(*sums[place : place + 3].tolist())


def _belief(prior: Impact, centre: float) -> _Belief:
    """Return a prior, u being log impact at a log size."""
    lean = math.log(prior.pivot_share) - centre
    return _Belief(math.log(prior.k) + prior.a * centre, prior.a, lean, prior.k_stderr**-2.0, prior.a_stderr**-2.0)


def _handed_on(prior: Impact, source: Source) -> Impact:
    """Return a belief as the next source takes it up: wider where it comes from another one, never wider than at first."""
    order = get_args(Source)
    if order.index(prior.source) > order.index(source):
        raise ValueError(f"expected a prior from {source} or before ({', '.join(order)}), found one from {prior.source}")
    if prior.source in ("prior", source):
        return prior
    return msgspec.structs.replace(
        prior,
        k_stderr=max(prior.k_stderr, min(LOG_K_SD, math.hypot(prior.k_stderr, WIDENING * LOG_K_SD))),
        a_stderr=max(prior.a_stderr, min(A_SD, math.hypot(prior.a_stderr, WIDENING * A_SD))),
    )


def _power(size: float, k: float, a: float) -> float:
    """Return ``k size^a`` of a size within bounds: then no float overflows."""
    if not (0.0 <= k <= K_MAX and 0.0 < a <= 2.0):
        raise ValueError(f"expected k from 0 to {K_MAX:g} bps and a above 0 and up to 2, found {k} and {a}")
    return float(k * size**a)


def _within(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"expected {name} from {low:g} to {high:g}, found {value}")
    return float(value)


def _positive(name: str, value: float) -> float:
    if not 0.0 < value < math.inf:
        raise ValueError(f"expected {name} positive and finite, found {value}")
    return float(value)


def _column(name: str, values: npt.ArrayLike, bounds: tuple[float, float], length: int | None = None, at_least: int = 0) -> Float64Array1D:
    """Return finite numbers within bounds, of a length if one is given."""
    column = np.array(values, dtype=np.float64, order="C")
    if column.ndim != 1 or (length is not None and len(column) != length) or not at_least <= len(column) <= OBSERVATIONS_MAX:
        wanted = f"{at_least} to {OBSERVATIONS_MAX}" if length is None else f"{length}"
        raise ValueError(f"expected {name} of {wanted} numbers in one dimension, found shape {column.shape}")
    wrong = np.flatnonzero(~(np.isfinite(column) & (column >= bounds[0]) & (column <= bounds[1])))
    if wrong.size:
        raise ValueError(f"expected {name} finite and from {bounds[0]:g} to {bounds[1]:g}, found {column[wrong[0]]} at {wrong[0]}")
    return column
