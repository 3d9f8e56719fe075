"""Impact of every symbol: what its book, its tape and own executions have said of it, and what is made of that off the loop.

Every second each proven book is swept, every minute its tape closes a bar. A fit is asked for as soon as a source has said enough,
and every ten minutes again; what returns is an input. Between fits nothing changes.
"""

import math
from collections.abc import Callable, Iterable

import msgspec

from alphapack.domain.context import Context
from alphapack.domain.events import WorkFailed
from alphapack.domain.inputs import Result
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.kernels import marks
from alphapack.models import impact, impact_work
from alphapack.models.book import FeatureBook
from alphapack.models.history import History
from alphapack.models.impact import Impact
from alphapack.models.impact_work import WORK
from alphapack.models.sweep import SweepCosts

TIMER = "impact"
SAMPLE_NS = NANOS_PER_S
BAR_NS = 60 * NANOS_PER_S
"""A minute: flow's part of a move fades beside the noise as bars grow, and in bars of seconds quotes still lag behind the trades."""
BARS = 1_440
"""Bars that are kept: a day, if none is dropped."""
FILLS = 1_000
REFIT_NS = 600 * NANOS_PER_S
LOOK_NS = 60 * NANOS_PER_S
"""How often a symbol without a fit is looked at whether there is enough for one."""
DAY_S = 86_400.0
REASON_LENGTH_MAX = 300


class _Bar(msgspec.Struct, frozen=True, array_like=True):
    """Where an open bar began."""

    from_ns: int
    log_mid: float
    """Of twice the mid: what is told is a change."""
    net: float
    """Bought less sold, ever, in the unit of quantities."""


class _Facts(msgspec.Struct, array_like=True):
    """All of one symbol's state that is not in its rows."""

    symbol: str
    due_ns: int
    """When a fit is to be asked for, if there is enough for one."""
    adv: float | None = None
    """As it was told at the last whole minute."""
    bar: _Bar | None = None
    impact: Impact | None = None
    awaited: int = 0
    """The request whose result is awaited; 0: none."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    facts: list[_Facts]
    written: list[tuple[int, int]]


class _Symbol:
    """One symbol: what its sources have said."""

    def __init__(self, facts: _Facts) -> None:
        self.facts = facts
        self.sweeps = SweepCosts()
        self.bars = History(("volume", "move_bps"), BARS)
        self.fills = History(("share", "cost_bps", "duration_s", "sigma_1s_bps"), FILLS)


class Impacts:
    """Owns what is known of impact; books, volatility and volume are others', read through what it is given.

    Parameters
    ----------
    books
        Yields full symbol names and books, of all that are LIVE, in an order that a replay repeats.
    sigma_1d
        Volatility of a symbol's next day, a fraction; None where it is not known.
    adv
        Volume of a symbol's day in the unit of its quantities; None where it is not known. Asked once a minute.
    """

    def __init__(
        self,
        ctx: Context,
        books: Callable[[], Iterable[tuple[str, FeatureBook]]],
        sigma_1d: Callable[[str], float | None],
        adv: Callable[[str], float | None],
    ) -> None:
        self._ctx = ctx
        self._books = books
        self._sigma_1d = sigma_1d
        self._adv = adv
        self._symbols: dict[str, _Symbol] = {}

    # What enters

    def start(self) -> None:
        """Begin to look at books every second; once, when the engine is configured for the first time."""
        self._await_second()

    def on_timer(self, _: str) -> None:
        """Sweep every book, close bars at whole minutes, and have one fit made at most."""
        now = self._ctx.now_ns
        self._await_second()
        for symbol, book in self._books():
            one = self._symbols.get(symbol) or self._begin(symbol)
            if now % BAR_NS == 0:
                one.facts.adv = self._known_adv(symbol)
                self._close_bar(one, book)
            if one.facts.adv is not None:
                one.sweeps.note(now, book, one.facts.adv)
        for one in self._symbols.values():
            if not one.facts.awaited and one.facts.due_ns <= now and self._ask(one):
                break  # So that many symbols never ask at once.

    def on_fill(self, symbol: str, share: float, cost_bps: float, duration_s: float) -> bool:
        """Take in an own execution that is over; tells whether it says anything.

        Parameters
        ----------
        share
            Filled size as a share of a day's volume, above 0.
        cost_bps
            Mean price paid against the mid at arrival, without the half spread, of any sign.
        duration_s
            From arrival to the last fill, 0 to a day.

        Returns
        -------
        bool
            False, and nothing is kept, where the volatility that it is to be held against is not known or a number is out of the
            range that ``models.impact`` learns from.
        """
        sigma_1d = self._known_sigma(symbol)
        sized = impact.SHARE_MIN <= share <= impact.SHARE_MAX and abs(cost_bps) <= impact.BPS_MAX
        if sigma_1d is None or not sized or not 0.0 <= duration_s <= impact.DURATION_S_MAX:
            return False
        one = self._symbols.get(symbol) or self._begin(symbol)
        sigma_1s_bps = max(impact.SIGMA_1S_BPS_MIN, 1e4 * sigma_1d / math.sqrt(DAY_S))
        one.fills.note(self._ctx.now_ns // NANOS_PER_MS, [share, cost_bps, duration_s, sigma_1s_bps])
        return True

    def on_result(self, result: Result) -> None:
        """Take a fit; where it failed, the one before stays."""
        one = next((one for one in self._symbols.values() if one.facts.awaited == result.request_id), None)
        if one is None:
            return
        one.facts.awaited = 0
        try:
            if not result.ok:
                raise ValueError(result.body.decode(errors="replace").removeprefix("ValueError: "))
            one.facts.impact = impact_work.answer(result.body)
        except ValueError as error:
            self._ctx.emit(WorkFailed(result.request_id, WORK, one.facts.symbol, str(error)[:REASON_LENGTH_MAX]))

    def _await_second(self) -> None:
        self._ctx.after(SAMPLE_NS - self._ctx.now_ns % SAMPLE_NS, TIMER)

    def _begin(self, symbol: str) -> _Symbol:
        one = self._symbols[symbol] = _Symbol(_Facts(symbol, self._ctx.now_ns + LOOK_NS, self._known_adv(symbol)))
        return one

    def _close_bar(self, one: _Symbol, book: FeatureBook) -> None:
        """End a bar at a whole minute and begin the next; one that the book was not LIVE throughout is dropped."""
        ended, now = one.facts.bar, self._ctx.now_ns
        bid, ask = book.best()
        if bid is None or ask is None or book.tick is None or book.lot is None:
            return
        bought, sold, _ = book.flow
        net = (bought - sold) * book.lot.units / 10.0**book.lot.decimals
        begun = one.facts.bar = _Bar(now, math.log(book.tick.number(bid + ask)), net)
        if ended is not None and ended.from_ns == now - BAR_NS and book.marks[marks.LIVE_SINCE] <= ended.from_ns:
            one.bars.note(now // NANOS_PER_MS, [begun.net - ended.net, 1e4 * (begun.log_mid - ended.log_mid)])

    def _ask(self, one: _Symbol) -> bool:
        """Ask for a fit if there is enough for one."""
        facts = one.facts
        facts.due_ns = self._ctx.now_ns + LOOK_NS
        sigma_1d = self._known_sigma(facts.symbol)
        if sigma_1d is None or facts.adv is None:
            return False
        volumes, moves = one.bars.past()[:, 1:].T
        shares, costs, durations, sigmas = one.fills.past()[:, 1:].T
        bars, fills = (volumes / facts.adv, moves), (shares, costs, durations, sigmas)
        body = impact_work.request(facts.symbol, sigma_1d, one.sweeps.means(), bars, fills)
        if body is None:
            return False
        facts.awaited, facts.due_ns = self._ctx.request(WORK, body), self._ctx.now_ns + REFIT_NS
        return True

    def _known_sigma(self, symbol: str) -> float | None:
        sigma_1d = self._sigma_1d(symbol)
        return sigma_1d if sigma_1d is not None and impact.SIGMA_1D_MIN <= sigma_1d <= impact.SIGMA_1D_MAX else None

    def _known_adv(self, symbol: str) -> float | None:
        adv = self._adv(symbol)
        return adv if adv is not None and 0.0 < adv < math.inf else None

    # Answers

    def impact(self, symbol: str) -> Impact | None:
        """Return the last fit of a symbol; before the first, what its volatility says; None where that is not known either."""
        one = self._symbols.get(symbol)
        if one is not None and one.facts.impact is not None:
            return one.facts.impact
        sigma_1d = self._known_sigma(symbol)
        return impact.prior(sigma_1d) if sigma_1d is not None else None

    # State

    def save(self) -> list[memoryview]:
        """Return facts, then of each symbol the sweeps, the bars and the executions."""
        every = list(self._symbols.values())
        saved = _Saved(1, [one.facts for one in every], [(one.bars.written, one.fills.written) for one in every])
        rows = ((memoryview(one.sweeps.save()), one.bars.past().data, one.fills.past().data) for one in every)
        return [memoryview(msgspec.msgpack.encode(saved)), *(piece for pieces in rows for piece in pieces)]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        self._symbols = {}
        for i, (facts, (bars, fills)) in enumerate(zip(saved.facts, saved.written, strict=True)):
            one = self._symbols[facts.symbol] = _Symbol(facts)
            one.sweeps.load(pieces[3 * i + 1])
            one.bars.load(bars, pieces[3 * i + 2])
            one.fills.load(fills, pieces[3 * i + 3])
