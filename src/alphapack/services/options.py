"""Option smiles of every base asset: chains that are read and inverted off the loop, and what their newest one says.

A chain enters as it was posted or recorded. What is made of it returns as an input, so that a replay reads no chain twice.
One that was posted holds against all others for a while, and is no part of the past against which a skew is measured.
"""

import msgspec

from alphapack.domain import readings
from alphapack.domain.context import Context
from alphapack.domain.events import SmileChanged, WorkFailed
from alphapack.domain.inputs import POSTED, Chain, Result
from alphapack.domain.market import NANOS_PER_MS, NANOS_PER_S
from alphapack.models import chain
from alphapack.models.chain import WORK, Surface, Tenor
from alphapack.models.history import History
from alphapack.models.skew import SkewHistory

POSTED_HOLDS_NS = 900 * NANOS_PER_S
"""A posted chain is not replaced by a feed's before this."""
CONTEXT_MS = 12 * 3_600_000
"""A smile older than this says nothing to a decision."""
BASES_MAX = 500
HISTORY = ("atm_iv", "rr25", "fly25", "iv_term_slope", "skew_z", "ref_tenor_days", "posted")
HISTORY_ROWS = 1_440
REASON_LENGTH_MAX = 300


class NoSmile(Exception):
    """A base asset of which no chain was taken; the text says what is missing."""


class _Awaited(msgspec.Struct, frozen=True, array_like=True):
    """A chain that is being read."""

    base: str
    source: str


class _Facts(msgspec.Struct, array_like=True):
    """All of one base asset's state but its history."""

    base: str
    surface: Surface | None = None
    source: str = ""
    skew_z: float | None = None
    skew_n: int = 0
    taken_ms: int = 0
    held_until_ns: int = 0
    """A feed's chain does not replace the one that is there before this."""
    observations: list[tuple[int, float]] = []


class _Saved(msgspec.Struct, array_like=True):
    version: int
    facts: list[_Facts]
    awaited: dict[int, _Awaited]
    written: list[int]


class _Base:
    """One base asset: its newest smile, and its past."""

    def __init__(self, facts: _Facts) -> None:
        self.facts = facts
        self.skew = SkewHistory(facts.observations)
        self.history = History(HISTORY, HISTORY_ROWS)
        self.noted_ms = 0


class Options:
    """Owns the smiles."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._bases: dict[str, _Base] = {}
        self._awaited: dict[int, _Awaited] = {}

    # What enters

    def on_chain(self, entry: Chain) -> int:
        """Have a chain read; returns the request whose result it will be."""
        now_ms = self._ctx.now_ns // NANOS_PER_MS
        request = self._ctx.request(WORK, chain.request(now_ms, entry.base, entry.body, self._ctx.settings.delta_convention))
        self._awaited[request] = _Awaited(entry.base, entry.source)
        return request

    def on_result(self, result: Result) -> None:
        """Take what was made of a chain."""
        awaited = self._awaited.pop(result.request_id, None)
        if awaited is None:
            return
        try:
            if not result.ok:
                raise ValueError(result.body.decode(errors="replace").partition(": ")[2])
            surface = chain.answer(result.body)
            if not self.takes(awaited.base):
                raise ValueError(f"expected chains of at most {BASES_MAX:,} base assets, found one of another")
        except ValueError as error:
            self._ctx.emit(WorkFailed(result.request_id, WORK, awaited.base, str(error)[:REASON_LENGTH_MAX]))
            return
        if any(one.atm is not None for one in surface.tenors):  # A chain that says nothing replaces nothing.
            self._take(awaited, surface)

    def _take(self, awaited: _Awaited, surface: Surface) -> None:
        base = self._bases.get(awaited.base)
        if base is None:
            base = self._bases[awaited.base] = _Base(_Facts(awaited.base))
        facts, posted = base.facts, awaited.source == POSTED
        z = base.skew.z(surface.ts_ms, surface.rr25) if surface.rr25 is not None else None
        n = len(base.skew.before(surface.ts_ms))
        if not posted and surface.rr25 is not None:
            base.skew.note(surface.ts_ms, surface.rr25)
        older = facts.surface is not None and facts.source != POSTED and surface.ts_ms < facts.surface.ts_ms
        if not posted and (self._ctx.now_ns < facts.held_until_ns or older):
            return
        facts.surface, facts.source, facts.skew_z, facts.skew_n = surface, awaited.source, z, n
        facts.taken_ms = self._ctx.now_ns // NANOS_PER_MS
        facts.held_until_ns = self._ctx.now_ns + POSTED_HOLDS_NS if posted else 0
        values = (surface.atm, surface.rr25, surface.fly25, surface.iv_term_slope, z, surface.ref_tenor_days, float(posted))
        if surface.ts_ms >= base.noted_ms:  # A posted chain may be of any time; the past goes forward.
            base.noted_ms = surface.ts_ms
            base.history.note(surface.ts_ms, [float("nan") if value is None else value for value in values])
        self._ctx.emit(
            SmileChanged(
                symbol=facts.base,
                source=facts.source,
                venue_ms=surface.ts_ms,
                accepted=surface.accepted,
                rejected=surface.rejected_count,
                ref_tenor_days=surface.ref_tenor_days,
                atm_iv=surface.atm,
                rr25=surface.rr25,
                fly25=surface.fly25,
                iv_term_slope=surface.iv_term_slope,
                skew_z=z,
            )
        )

    # Answers

    def bases(self) -> list[str]:
        """Return the base assets of which there is a smile, in order of name."""
        return sorted(self._bases)

    def knows(self, base: str) -> bool:
        """Tell whether there is a smile of a base asset."""
        return base in self._bases

    def takes(self, base: str) -> bool:
        """Tell whether a smile of a base asset is kept, or would be."""
        return base in self._bases or len(self._bases) < BASES_MAX

    def context(self, base: str) -> dict[str, float]:
        """Return what a decision looks at: rr25, fly25, iv_term_slope, skew_z and atm_iv, as far as they are known and not too old."""
        known = self._bases.get(base)
        if known is None or known.facts.surface is None:
            return {}
        now_ms = self._ctx.now_ns // NANOS_PER_MS
        if now_ms - min(known.facts.surface.ts_ms, known.facts.taken_ms) > CONTEXT_MS:  # Whatever time a chain states, it was taken at one.
            return {}
        surface = known.facts.surface
        values = {
            "rr25": surface.rr25,
            "fly25": surface.fly25,
            "iv_term_slope": surface.iv_term_slope,
            "skew_z": known.facts.skew_z,
            "atm_iv": surface.atm,
        }
        return {name: value for name, value in values.items() if value is not None}

    def smile(self, symbol: str, base: str) -> readings.Smile:
        """Return the newest smile of a base asset, for ``symbol``; raises ``NoSmile``."""
        known = self._bases.get(base)
        if known is None or known.facts.surface is None:
            raise NoSmile(f"expected an option chain of {base}, found none yet: POST /api/options/chain/{symbol}, or replay a recorded one")
        facts, surface = known.facts, known.facts.surface
        return readings.Smile(
            symbol=symbol,
            base=base,
            ts_ms=surface.ts_ms,
            age_ms=self._age_ms(surface),
            source=facts.source,
            delta_convention=surface.delta_convention,
            ref_tenor_days=surface.ref_tenor_days,
            atm_iv=surface.atm,
            rr25=surface.rr25,
            fly25=surface.fly25,
            iv_term_slope=surface.iv_term_slope,
            skew_z=facts.skew_z,
            skew_n=facts.skew_n,
            tenors=[tenor_of(one) for one in surface.tenors],
        )

    def past(self, base: str, from_ms: int, limit: int) -> dict[str, list[int] | list[float | None]]:
        """Return the noted smiles by column, oldest first: the first ``limit`` rows at or after ``from_ms``."""
        known = self._bases.get(base) or _Base(_Facts(base))
        return known.history.columns(from_ms, limit)

    def _age_ms(self, surface: Surface) -> int:
        return self._ctx.now_ns // NANOS_PER_MS - surface.ts_ms

    # State

    def save(self) -> list[memoryview]:
        """Return facts, then the history of each base asset."""
        every = list(self._bases.values())
        for one in every:
            one.facts.observations = one.skew.observations
        saved = _Saved(1, [one.facts for one in every], self._awaited, [one.history.written for one in every])
        return [memoryview(msgspec.msgpack.encode(saved)), *(one.history.past().data for one in every)]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything by what ``save`` returned."""
        saved = msgspec.msgpack.decode(pieces[0], type=_Saved)
        self._bases, self._awaited = {}, saved.awaited
        for facts, written, past in zip(saved.facts, saved.written, pieces[1:], strict=True):
            one = self._bases[facts.base] = _Base(facts)
            one.history.load(written, past)
            rows = one.history.past()
            one.noted_ms = int(rows[-1, 0]) if len(rows) else 0


def taken(symbol: str, base: str, surface: Surface, seq: int, durable_seq: int) -> readings.ChainTaken:
    """Return what became of a posted chain."""
    return readings.ChainTaken(
        symbol=symbol,
        base=base,
        ts_ms=surface.ts_ms,
        accepted=surface.accepted,
        rejected=[readings.RejectedRow(row.index, row.reason) for row in surface.rejected],
        rejected_count=surface.rejected_count,
        iv_unit=surface.iv_unit,
        tenors=[tenor_of(one) for one in surface.tenors],
        seq=seq,
        durable_seq=durable_seq,
    )


def tenor_of(one: Tenor) -> readings.SmileTenor:
    """Return a tenor as it is answered."""
    svi = one.svi
    return readings.SmileTenor(
        tenor=one.tenor,
        t=one.t,
        expiry_ms=one.expiry_ms,
        forward=one.forward,
        forward_source=one.forward_source,
        atm_iv=one.atm,
        rr25=one.rr25,
        fly25=one.fly25,
        iv25c=one.iv25c,
        iv25p=one.iv25p,
        k25c=one.k25c,
        k25p=one.k25p,
        k_atm=one.k_atm,
        svi=readings.SviParameters(svi.a, svi.b, svi.rho, svi.m, svi.sigma) if svi is not None else None,
        points=one.points,
        quality=one.quality,
        reason=one.reason,
        butterfly_free=one.butterfly_free,
        calendar_free=one.calendar_free,
        strikes=one.strikes,
        ivs=one.ivs,
    )
