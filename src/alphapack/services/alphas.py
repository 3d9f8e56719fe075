"""Alphas of every symbol: what each says of a context, and the weights that what followed has taught.

Every ``GRID_S`` seconds each symbol that may be traded is looked at, traded or not: features are standardised by what was learnt before,
each alpha says its signal, and a horizon later the return of the mid, in volatilities, teaches the weights. Weights change once a minute.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Protocol

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.domain.context import Context
from alphapack.domain.events import AlphaDisabled, WeightsLearnt
from alphapack.domain.inputs import Disable
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.models.alpha import Alpha, AlphaContext, AlphaFailed, evaluate
from alphapack.models.features import FEATURES, NAMES, PLACE
from alphapack.models.history import History
from alphapack.models.prediction import Fit, rank_ic
from alphapack.models.registry import Registry
from alphapack.models.standardise import Standardiser
from alphapack.models.weights import Weights

TIMER = "alphas"
WEIGH = "weigh"
GRID_S = 20
GRID_NS = GRID_S * NANOS_PER_S
SPACING_NS = 2 * NANOS_PER_MS
"""Between two symbols' looks, so that the market goes on meanwhile."""
PAST_S = 300
PAST = PAST_S // GRID_S
"""Grid steps of which the mids are kept: moves and the range are over as many."""
WEIGH_NS = 60 * NANOS_PER_S
ROWS = 2_160
"""Looks kept a symbol, to judge the alphas by: half a day."""
SYMBOLS_MAX = 500
YEAR_S = 31_536_000
TARGET_MAX = 6.0
REASON_LENGTH_MAX = 300


class Watch(Protocol):
    """Times what alphas do, from outside; what it finds comes back as an input, or not at all."""

    def __call__(self, name: str, what: str, ask: Callable[[], float | None]) -> float | None:
        """Return what ``ask`` returns."""
        ...


class Look(msgspec.Struct, frozen=True):
    """A context, and what the alphas say of it."""

    symbol: str
    ts_ns: int
    raw: dict[str, float]
    """All that is known."""
    sources: dict[str, str]
    """Of each feature of the table: live, request or missing."""
    standardised: dict[str, float]
    """Of the table, as far as it is known."""
    standardiser: int
    signals: list[float | None]
    """In the order of the registry."""
    weights: list[float]
    sigma: float | None
    """Volatility to the horizon; None: not known."""


class Judged(msgspec.Struct, frozen=True):
    """What the kept looks say of one alpha."""

    ic: float | None
    """Rank correlation with the return of the mid to the horizon."""
    ic_t: float | None
    half_life_s: float | None
    """Time in which the correlation of its signal with itself falls to a half."""
    turnover: float | None
    """Mean change of its signal from one look to the next."""
    n: int


class _Waiting(msgspec.Struct, array_like=True):
    """A look whose horizon has not come."""

    due_ns: int
    mid: float
    sigma: float
    signals: list[float]
    """NaN where an alpha said nothing."""


class _SavedSymbol(msgspec.Struct, array_like=True):
    name: str
    mids: list[tuple[int, float]]
    waiting: list[_Waiting]
    written: int


class _Saved(msgspec.Struct, array_like=True):
    version: int
    registry: list[str]
    symbols: list[_SavedSymbol]
    disabled: dict[str, str]
    observations: int
    told: int
    in_force: list[float]
    groups: list[str]
    learnt_s: int


class _Symbol:
    def __init__(self, name: str, alphas: int) -> None:
        self.name = name
        self.standardiser = Standardiser()
        self.mids: deque[tuple[int, float]] = deque(maxlen=PAST + 1)
        """Time and mid of the newest looks."""
        self.waiting: deque[_Waiting] = deque()
        self.rows = History((*(f"signal {place}" for place in range(alphas)), "target"), ROWS)


class Alphas:
    """Owns standardisers, signals and weights."""

    def __init__(
        self,
        ctx: Context,
        registry: Registry,
        symbols: Callable[[], Iterable[str]],
        context: Callable[[str], dict[str, float]],
        sigma: Callable[[str, Mapping[str, float]], float | None],
    ) -> None:
        """``symbols`` may be traded now; ``context`` is what is known of one, raw; ``sigma`` its volatility to the horizon by a context."""
        self._ctx, self._symbols, self._context, self._sigma = ctx, symbols, context, sigma
        self.watch: Watch = lambda name, what, ask: ask()
        self._known: dict[str, _Symbol] = {}
        self.disabled: dict[str, str] = {}
        """Alphas that are asked no more, and why."""
        self.observations = 0
        self._told = 0
        self.take(registry)

    def take(self, registry: Registry) -> None:
        """Begin anew with these alphas."""
        self.registry = registry
        self._places = {alpha.id: place for place, alpha in enumerate(registry.alphas)}
        groups = dict.fromkeys(alpha.group for alpha in registry.alphas)
        self._groups = {group: [alpha for alpha in registry.alphas if alpha.group == group] for group in groups}
        self._weights = {
            group: Weights([alpha.id for alpha in alphas], np.array([alpha.weight_init for alpha in alphas]))
            for group, alphas in self._groups.items()
        }
        self.in_force = self._solved()
        """The weight of each alpha now, in the order of the registry."""
        self._known = {}
        self.disabled = {}
        self.observations = self._told = 0
        self._learnt_s = self._horizon_s
        """The horizon of all that was learnt."""

    def on_configure(self) -> None:
        """Take the settings: what followed over another horizon says nothing of this one."""
        if self._horizon_s != self._learnt_s:
            self.take(self.registry)

    def start(self) -> None:
        """Set the first timers; done once in an engine's life."""
        self._wait()
        self._ctx.after(WEIGH_NS - self._ctx.now_ns % WEIGH_NS, TIMER, WEIGH)

    def _wait(self) -> None:
        self._ctx.after(GRID_NS - self._ctx.now_ns % GRID_NS, TIMER)

    # Looks

    def look(self, symbol: str, overrides: Mapping[str, float] | None = None) -> Look:
        """Return a symbol's context now, with ``overrides`` in place of what is known, and what the alphas say of it."""
        live, stated = self._context(symbol), overrides or {}
        known, sigma = self._known.get(symbol), self._sigma(symbol, {**live, **stated})
        sigma_s = None if sigma is None else sigma / math.sqrt(self._horizon_s)
        raw = {**live, **_derived(live, known.mids if known is not None else (), sigma_s, self._ctx.now_ns), **stated}
        sources = {name: "live" if name in raw else "missing" for name in NAMES} | dict.fromkeys(stated, "request")
        values = np.array([raw.get(name, math.nan) for name in NAMES])
        standardiser = known.standardiser if known is not None else Standardiser()
        z = standardiser.z(values).tolist()
        standardised = {name: one for name, one in zip(NAMES, z, strict=True) if one == one}
        signals = [self._signal(alpha, symbol, raw, standardised, overrides is not None) for alpha in self.registry.alphas]
        return Look(symbol, self._ctx.now_ns, raw, sources, standardised, standardiser.version, signals, list(self.in_force), sigma)

    @property
    def _horizon_s(self) -> int:
        return self._ctx.settings.router.horizon_s

    def _signal(
        self, alpha: Alpha, symbol: str, raw: Mapping[str, float], standardised: Mapping[str, float], is_asked: bool
    ) -> float | None:
        """Return what an alpha says; where somebody asks what it would say of numbers of his own, failing is saying nothing."""
        if alpha.id in self.disabled or not all(name in standardised for name in alpha.inputs):
            return None
        seen = AlphaContext(symbol, self._ctx.now_ns, raw, standardised, alpha.inputs)
        try:
            return evaluate(alpha, seen) if is_asked else self.watch(alpha.id, "alpha", lambda: evaluate(alpha, seen))
        except AlphaFailed as failed:
            if not is_asked:
                self._disable(alpha.id, str(failed))
            return None

    def on_disable(self, entry: Disable) -> None:
        """Ask an alpha no more."""
        if entry.name in self._places:
            self._disable(entry.name, entry.reason)

    def _disable(self, name: str, reason: str) -> None:
        if name in self.disabled:
            return
        self.disabled[name] = reason[:REASON_LENGTH_MAX]
        alpha = self.registry.alphas[self._places[name]]
        self._weights[alpha.group].disable(name)
        self._ctx.emit(AlphaDisabled(name, "alpha", self.disabled[name]))
        self._put_in_force()

    # Every step of the grid

    def on_timer(self, argument: str) -> None:
        """Look at a symbol; with none named, begin with the first and set the timers of the others; or put what was learnt in force."""
        if argument == WEIGH:
            self._ctx.after(WEIGH_NS - self._ctx.now_ns % WEIGH_NS, TIMER, WEIGH)
            self._weigh()
            return
        if argument:
            self._note(argument)
            return
        self._wait()
        for place, symbol in enumerate(self._symbols()):
            if place == 0:
                self._note(symbol)
            else:
                self._ctx.after(place * SPACING_NS, TIMER, symbol)

    def _note(self, symbol: str) -> None:
        """Take what has come due, look, and learn how to standardise."""
        now = self._ctx.now_ns
        known = self._known.get(symbol)
        if known is None:
            if len(self._known) >= SYMBOLS_MAX:
                return
            known = self._known[symbol] = _Symbol(symbol, len(self.registry.alphas))
        found = self.look(symbol)
        mid = found.raw.get("mid")
        if mid is None or not mid > 0.0:
            return
        while known.waiting and known.waiting[0].due_ns <= now:
            self._learn(known, known.waiting.popleft(), mid)
        known.mids.append((now, mid))
        if found.sigma is not None:
            signals = [math.nan if signal is None else signal for signal in found.signals]
            horizon_ns = self._horizon_s * NANOS_PER_S
            known.waiting.append(_Waiting(now + horizon_ns - min(GRID_NS, horizon_ns) // 2, mid, found.sigma, signals))
        known.standardiser.learn(np.array([found.raw.get(name, math.nan) for name in NAMES]), now)

    def _learn(self, known: _Symbol, waiting: _Waiting, mid: float) -> None:
        """Hold what the alphas said against what the mid has done since; a look that came too late says nothing of its horizon."""
        if self._ctx.now_ns - waiting.due_ns > GRID_NS:
            return
        target = math.log(mid / waiting.mid) / waiting.sigma
        target = max(-TARGET_MAX, min(TARGET_MAX, target))
        known.rows.note(waiting.due_ns // NANOS_PER_MS, [*waiting.signals, target])
        self.observations += 1
        for group, alphas in self._groups.items():
            signals = np.array([waiting.signals[self._places[alpha.id]] for alpha in alphas])
            self._weights[group].learn(np.nan_to_num(signals, nan=0.0), target)

    def _weigh(self) -> None:
        if self.observations == self._told:
            return
        self._put_in_force()

    def _put_in_force(self) -> None:
        self._told = self.observations
        self.in_force = self._solved()
        self._ctx.emit(
            WeightsLearnt({alpha.id: one for alpha, one in zip(self.registry.alphas, self.in_force, strict=True)}, self.observations)
        )

    def _solved(self) -> list[float]:
        values = {
            alpha.id: value
            for group, alphas in self._groups.items()
            for alpha, value in zip(alphas, self._weights[group].values.tolist(), strict=True)
        }
        return [values[alpha.id] for alpha in self.registry.alphas]

    # Answers

    def judged(self) -> list[Judged]:
        """Return what the kept looks say of each alpha, over all symbols one after the other, in the order of the registry."""
        n = len(self.registry.alphas)
        past = [known.rows.past()[:, 1:] for known in self._known.values()]
        gap = np.full((self._horizon_s // GRID_S + 1, n + 1), math.nan)
        parts = [part for rows in past for part in (rows, gap)]
        rows = np.concatenate(parts) if parts else gap
        return [_judged(rows[:, place], rows[:, n], max(1, self._horizon_s // GRID_S)) for place in range(n)]

    # State

    def save(self) -> list[memoryview]:
        """Return all that was learnt."""
        saved = _Saved(
            1,
            [alpha.id for alpha in self.registry.alphas],
            [_SavedSymbol(one.name, list(one.mids), list(one.waiting), one.rows.written) for one in self._known.values()],
            self.disabled,
            self.observations,
            self._told,
            self.in_force,
            list(self._weights),
            self._learnt_s,
        )
        pieces = [msgspec.msgpack.encode(saved), *(one.save() for one in self._weights.values())]
        for known in self._known.values():
            pieces += [known.standardiser.save(), known.rows.past().tobytes()]
        return [memoryview(piece) for piece in pieces]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned; of other alphas than there are now nothing is taken."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        if saved.registry != [alpha.id for alpha in self.registry.alphas]:
            self.take(self.registry)
            return
        self.disabled, self.observations, self._told, self.in_force = saved.disabled, saved.observations, saved.told, saved.in_force
        self._learnt_s = saved.learnt_s
        rest = iter(pieces[1:])
        self._weights = {group: Weights.load(bytes(next(rest))) for group in saved.groups}
        self._known = {}
        for one in saved.symbols:
            known = self._known[one.name] = _Symbol(one.name, len(self.registry.alphas))
            known.mids.extend(one.mids)
            known.waiting.extend(one.waiting)
            known.standardiser = Standardiser.load(bytes(next(rest)))
            known.rows.load(one.written, next(rest))


def _derived(live: Mapping[str, float], mids: Iterable[tuple[int, float]], sigma_s: float | None, now_ns: int) -> dict[str, float]:
    """Return the features that follow from others, from the mids of the last looks and from the volatility of a second's square root."""
    found: dict[str, float] = {}
    mid = live.get("mid")
    if mid is None or not mid > 0.0:
        return found
    for name, source in (("micro_gap_bps", "microprice"), ("stoikov_gap_bps", "microprice_stoikov")):
        if source in live:
            found[name] = 1e4 * (live[source] / mid - 1.0)
    if "sigmaHAR" in live and "sigmaGARCH" in live:
        found["sigma_gap"] = math.log(live["sigmaHAR"] / live["sigmaGARCH"])
    if "atm_iv" in live and sigma_s is not None:
        found["iv_gap"] = live["atm_iv"] - sigma_s * math.sqrt(YEAR_S)
    past = [one for one in mids if now_ns - one[0] <= (PAST_S + GRID_S // 2) * NANOS_PER_S]
    for name, seconds in (("ret_20s_bps", 20), ("ret_60s_bps", 60), ("ret_300s_bps", 300)):
        near = [one for one in past if abs(now_ns - one[0] - seconds * NANOS_PER_S) <= GRID_NS // 2]
        if near:
            found[name] = 1e4 * math.log(mid / near[-1][1])
    if past and now_ns - past[0][0] >= (PAST_S - GRID_S) * NANOS_PER_S:
        every = [*(one[1] for one in past), mid]
        low, high = min(every), max(every)
        found["range_place"] = 2.0 * (mid - low) / (high - low) - 1.0 if high > low else 0.0
        if sigma_s is not None:
            squares = sum(math.log(after / before) ** 2 for before, after in pairwise(every))
            found["vol_ratio"] = math.sqrt(squares / (now_ns - past[0][0]) * NANOS_PER_S) / sigma_s
    return found


def _judged(signals: Float64Array1D, targets: Float64Array1D, overlap: int) -> Judged:
    known = signals[~np.isnan(signals)]
    n = int(np.sum(~np.isnan(signals) & ~np.isnan(targets)))
    fit: Fit | None = rank_ic(signals, targets, overlap) if n >= 2 * overlap else None
    if fit is None or not math.isfinite(fit.slope):
        return Judged(None, None, None, _turnover(signals), n)
    t = fit.t
    return Judged(
        fit.slope, t if math.isfinite(t) else None, _half_life_s(signals) if len(known) > overlap else None, _turnover(signals), n
    )


def _turnover(signals: Float64Array1D) -> float | None:
    steps = np.abs(np.diff(signals))
    steps = steps[~np.isnan(steps)]
    return float(np.mean(steps)) if len(steps) else None


def _half_life_s(signals: Float64Array1D) -> float | None:
    """Return the half-life of a first-order autoregression; None where a signal does not fade, or has no memory."""
    before, after = signals[:-1], signals[1:]
    both = ~np.isnan(before) & ~np.isnan(after)
    if int(np.sum(both)) < 30:
        return None
    x, y = before[both] - np.mean(before[both]), after[both] - np.mean(after[both])
    power = float(np.sum(x * x))
    phi = float(np.sum(x * y)) / power if power > 0.0 else 0.0
    return GRID_S * math.log(0.5) / math.log(phi) if 0.0 < phi < 1.0 else None


assert len(PLACE) == len(FEATURES), "names are unique"
