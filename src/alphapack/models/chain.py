"""From the rows of a raw option chain to a smile a tenor and the four numbers that quants name.

A row is good or it is rejected with its reason; no row makes a chain fail. Good rows become one implied volatility a strike, one
forward and one smile a tenor, and the surface's risk reversal, butterfly and term slope at constant maturity. See docs/OPTIONS.md.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np

from alphapack.arrays import Float64Array1D, Int64Array1D
from alphapack.models import black, smile
from alphapack.models.instruments import YEAR_MS, instrument, tenor_years
from alphapack.models.smile import Convention, Smile
from alphapack.models.svi import Svi, calendar_free

ROWS_MAX = 200_000
TENORS_MAX = 64
STRIKES_MAX = 1_000
REJECTED_MAX = 1_000
"""Rejected rows that a surface names; it counts them all."""
IV_MAX = 10.0
"""As a fraction: a thousand percent."""
MONEYNESS_MAX = 100.0
"""A strike that many times above or below the forward is one in another unit."""
DAYS_SHORT, DAYS = 7.0, 30.0
"""Maturities of the term slope; the second is the headline's."""
WORK = "chain"
"""Work requested of the shell: read a chain and make its surface."""
KUnit = Literal["strike", "moneyness"]
IvUnit = Literal["fraction", "percent"]
ForwardSource = Literal["row", "request", "parity", "spot", "moneyness"]

_BLOCK_ROWS = 1_024
_INVERTED_ROWS = 4_096
"""Prices inverted in one call, which holds the interpreter's lock for a millisecond."""
_PAIRS = 5
_NEAREST = 32
_PERCENT_FROM = 5.0
_UNIT_APART = 10.0
"""Halfway, in logarithms, between two units that differ by a hundred."""
_SUSPECT, _OTHER = 20.0, 50.0
"""Times the chain's median from which on a volatility is looked at, and taken for one in the other unit."""
_SAME = 1.0 + 1e-12
"""Strikes nearer to each other than that are one."""
_YEAR_DAYS = 365.0
_GRID: Float64Array1D = np.linspace(0.0, 1.0, 65)
_TIME_MS_MIN, _TIME_MS_MAX = 10**11, 4_102_444_800_000  # 1973 to 2100, as recordings have it.

Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
Row = Mapping[str, object] | msgspec.Raw


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
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if value is not None and not (is_number and 0.0 < value < math.inf):
            raise ValueError(f"expected {name} as a finite number above zero, found {_shown(value)}")
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
        Underlying that named instruments must have.
    spot, forward
        Of the underlying, in quote units. A forward holds for every tenor whose rows give none.
    k_unit
        What ``k`` is. Where left out: a strike if spot, forward or an instrument's name is there, else moneyness K/F.
    iv_unit
        What implied volatilities are. Where left out: fractions, and for Deribit's rows what their prices say.
    delta
        Convention of the 25-delta strikes.

    Raises
    ------
    ValueError
        Too many rows, a spot or forward that is no price, an unknown unit or convention. Never for a row.
    """
    _check_envelope(len(rows), spot, forward)
    spot, forward = (None if value is None else float(value) for value in (spot, forward))
    for name, value, known in (("k_unit", k_unit, KUnit), ("iv_unit", iv_unit, IvUnit), ("delta", delta, Convention)):
        words = known.__args__  # type: ignore[attr-defined]  # Of a Literal, which mypy takes for a form without parts.
        if value not in words and (value is not None or name == "delta"):
            raise ValueError(f"expected {name} as one of {', '.join(words)}, found {value!r}")
    table = _Table(rows, int(ts_ms), base.upper() if base is not None else None)
    is_moneyness = k_unit == "moneyness" or (k_unit is None and spot is None and forward is None and not table.named.any())
    with np.errstate(all="ignore"):  # A number beyond all bounds costs its own row, and is told there.
        table.check(is_moneyness)
        table.set_forwards(spot, forward, is_moneyness)
        found_unit = table.set_ivs(iv_unit)
    tenors = _tenors(table, delta)
    rejected = [Rejected(index, table.reasons[index]) for index in sorted(table.reasons)]
    return _surface(int(ts_ms), int(table.alive.sum()), rejected, tenors, delta, found_unit)


# Rows


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A row as the API documents it."""

    k: float | None = None
    tenor: str | None = None
    type: str | None = None
    iv: float | None = None
    bid: float | None = None
    ask: float | None = None
    mark: float | None = None


class _Named(msgspec.Struct, gc=False):
    """A row of Deribit; what else it has is of no use here."""

    instrument_name: str
    underlying_price: float | None = None
    index_price: float | None = None
    mark_iv: float | None = None
    bid_iv: float | None = None
    ask_iv: float | None = None
    bid_price: float | None = None
    best_bid_price: float | None = None
    bid: float | None = None
    ask_price: float | None = None
    best_ask_price: float | None = None
    ask: float | None = None
    mark_price: float | None = None
    mark: float | None = None


_Kind = type[_Plain] | type[_Named]
_TEXTS = frozenset({"tenor", "type", "instrument_name"})
_FIELDS = {kind: tuple(field.name for field in msgspec.structs.fields(kind)) for kind in (_Plain, _Named)}
_CALLS = {"c": 1, "call": 1, "p": 0, "put": 0}
_NUMBERS = ("k", "iv", "bid_iv", "ask_iv", "bid", "ask", "mark", "underlying_price", "index_price")
"""Columns of a table."""
_SYNONYMS = {"bid": ("bid_price", "best_bid_price"), "ask": ("ask_price", "best_ask_price"), "mark": ("mark_price",), "iv": ("mark_iv",)}
_plains = msgspec.json.Decoder(list[_Plain])
_nameds = msgspec.json.Decoder(list[_Named])


class _Terms(dict[str | None, int]):
    """The tenor of each text, worked out when it first comes."""

    def __init__(self, work: Callable[[str | None], int]) -> None:
        super().__init__()
        self._work = work

    def __missing__(self, text: str | None) -> int:
        found = self[text] = self._work(text)
        return found


class _Table:
    """The rows of a chain by column; ``alive`` are those that are good so far, ``reasons`` says why the others are not."""

    def __init__(self, rows: Sequence[Row], ts_ms: int, base: str | None) -> None:
        self.reasons: dict[int, str] = {}
        self.labels: list[str] = []
        self.expiries_ms: list[int | None] = []
        self.years: list[float] = []
        self.present: set[str] = set()
        """Columns in which anything stands."""
        self._ts_ms, self._base = ts_ms, base
        self._tenor_of: dict[float, int] = {}
        self._wrong: list[str] = []
        """Reasons of texts that name no tenor; a row has the complement of an index as its tenor."""
        self._terms = _Terms(self._term)
        self._tenor_at: dict[int, int] = {}
        self._parts: list[tuple[Float64Array1D, ...]] = []
        for start in range(0, len(rows), _BLOCK_ROWS):
            self._take(start, rows[start : start + _BLOCK_ROWS])
        n = len(_NUMBERS)
        joined = [np.concatenate(part) for part in zip(*self._parts, strict=True)] or [np.empty(0)] * (n + 5)
        self.numbers = dict(zip(_NUMBERS, joined, strict=False))
        self.index, self.tenor, self.call = (column.astype(np.int64) for column in joined[n : n + 3])
        self.named, self.coin = (column.astype(np.bool_) for column in joined[n + 3 :])
        self.alive: Bools = np.ones(len(self.index), np.bool_)
        self.forwards: list[tuple[float | None, ForwardSource | None]] = []

    def reject(self, where: Bools, reason: Callable[[int], str]) -> None:
        """Leave out the rows of ``where`` that are good so far."""
        for at in np.flatnonzero(where & self.alive).tolist():
            self.reasons[int(self.index[at])] = reason(at)
            self.alive[at] = False

    # From rows to columns

    def _take(self, start: int, block: Sequence[Row]) -> None:
        """Take rows of one kind at once; where one of them is odd, all of the block one by one."""
        for kind in (_Plain, _Named):
            found = _whole(block, kind)
            if found is not None:
                self._add(kind, np.arange(start, start + len(block)), found)
                return
        sorted_out: dict[_Kind, tuple[list[int], list[Any]]] = {_Plain: ([], []), _Named: ([], [])}
        for index, row in enumerate(block, start):
            try:
                one = _single(row)
            except (ValueError, RecursionError) as error:
                self.reasons[index] = str(error)
                continue
            sorted_out[type(one)][0].append(index)
            sorted_out[type(one)][1].append(one)
        for kind, (indices, ones) in sorted_out.items():
            if ones:
                self._add(kind, np.array(indices), ones)

    def _add(self, kind: _Kind, indices: Int64Array1D, rows: Sequence[Any]) -> None:
        """Append the columns of rows of one kind."""
        fields = dict(zip(_FIELDS[kind], zip(*map(msgspec.structs.astuple, rows), strict=True), strict=True))
        n = len(rows)
        numbers = {name: _column(column, n) for name, column in fields.items() if name not in _TEXTS and column.count(None) < n}
        for name, others in _SYNONYMS.items():
            for first in (numbers.pop(other) for other in others if other in numbers):
                numbers[name] = np.where(np.isnan(first), numbers[name], first) if name in numbers else first
        if kind is _Named:
            said = zip(*map(self._instrument, fields["instrument_name"]), strict=True)
            tenors, numbers["k"], calls, coins = (np.fromiter(column, np.float64, n) for column in said)
        else:
            tenors = np.fromiter(map(self._terms.__getitem__, fields["tenor"]), np.float64, n)
            calls, coins = self._calls_of(indices, fields["type"]), np.zeros(n)
        self.present |= numbers.keys()
        absent = np.full(n, np.nan)
        facts = (indices.astype(np.float64), tenors, calls, np.full(n, float(kind is _Named)), coins)
        self._parts.append((*(numbers.get(name, absent) for name in _NUMBERS), *facts))

    def _calls_of(self, indices: Int64Array1D, texts: Sequence[str | None]) -> Float64Array1D:
        call_of = {text: _CALLS.get((text or "").lower(), -1) for text in set(texts)}
        if -1 in call_of.values():
            for index, text in zip(indices.tolist(), texts, strict=True):
                if call_of[text] < 0:
                    self.reasons[index] = f"expected type as call or put, found {_shown(text)}"
        return np.fromiter(map(call_of.__getitem__, texts), np.float64, len(texts))

    def _term(self, text: str | None) -> int:
        """Return the tenor of a text, the complement of a reason's index where it names none."""
        try:
            if text is None:
                raise ValueError("expected a tenor such as 7d or 27MAR26, found none")
            years, expiry_ms = tenor_years(text, self._ts_ms)
        except ValueError as error:
            return self._no_tenor(str(error))
        return self._add_tenor(text, years, expiry_ms)

    def _instrument(self, name: str) -> tuple[int, float, bool, bool]:
        """Return tenor, strike, whether it is a call, and whether its premium is in coin."""
        try:
            found = instrument(name)
        except ValueError as error:
            return self._no_tenor(str(error)), 1.0, False, False
        if self._base is not None and found.base != self._base:
            return self._no_tenor(f"expected an option on {self._base}, found {name}"), 1.0, False, False
        tenor = self._tenor_at.get(found.expiry_ms)
        if tenor is None:
            tenor = self._add_tenor(name.split("-")[1], (found.expiry_ms - self._ts_ms) / YEAR_MS, found.expiry_ms)
            self._tenor_at[found.expiry_ms] = tenor
        return tenor, found.strike, found.call, found.quote is None

    def _add_tenor(self, label: str, years: float, expiry_ms: int | None) -> int:
        if years <= 0.0:
            past = f", which expired {-years * _YEAR_DAYS:.2f} days before" if expiry_ms is not None else ""
            return self._no_tenor(f"expected a tenor that ends after ts_ms {self._ts_ms}, found {label}{past}")
        tenor = self._tenor_of.setdefault(years, len(self.labels))
        if tenor == TENORS_MAX:
            del self._tenor_of[years]
            return self._no_tenor(f"expected at most {TENORS_MAX} tenors, found {label} beyond them")
        if tenor == len(self.labels):
            self.labels.append(label)
            self.years.append(years)
            self.expiries_ms.append(expiry_ms)
        elif self.expiries_ms[tenor] is None:
            self.expiries_ms[tenor] = expiry_ms
        return tenor

    def _no_tenor(self, reason: str) -> int:
        self._wrong.append(reason)
        return ~(len(self._wrong) - 1)

    # What makes a row good

    def check(self, is_moneyness: bool) -> None:
        """Leave out the rows that are wrong by themselves, and forget the zeros that venues write for prices they do not have."""
        k = self.numbers["k"]
        self.alive &= self.call >= 0
        self.reject(self.tenor < 0, lambda at: self._wrong[~int(self.tenor[at])])
        present = {name: self.numbers[name] for name in _NUMBERS if name in self.present}
        for name, column in present.items():
            self.reject(np.isinf(column), partial(_found, f"expected {name} as a finite number, found", column))
        self.reject(np.isnan(k), lambda at: "expected k, the strike or its moneyness, found none")
        self.reject(k <= 0.0, partial(_found, "expected k above zero, found", k))
        if is_moneyness:
            self.reject(self.named, partial(_found, "expected k as moneyness, as stated, found an instrument", k))
        for name in [name for name in ("underlying_price", "index_price") if name in present]:
            self.reject(present[name] <= 0.0, partial(_found, f"expected {name} above zero, found", present[name]))
        for name in [name for name in ("bid", "ask", "mark", "bid_iv", "ask_iv") if name in present]:
            self.reject(present[name] < 0.0, partial(_found, f"expected {name} of zero or above, found", present[name]))
            present[name][present[name] == 0.0] = np.nan
        for low, high in (("bid", "ask"), ("bid_iv", "ask_iv")):
            if low in present and high in present:
                self.reject(present[low] > present[high], partial(_crossed, low, present[low], high, present[high]))

    def set_forwards(self, spot: float | None, forward: float | None, is_moneyness: bool) -> None:
        """Find a forward for each tenor, and what follows from it: strikes, and in what prices are counted."""
        self.middle = 0.5 * self.numbers["bid"] + 0.5 * self.numbers["ask"]
        order = np.flatnonzero(self.alive)
        order = order[np.argsort(self.tenor[order], kind="stable")]
        bounds = np.searchsorted(self.tenor[order], np.arange(len(self.labels) + 1)).tolist()
        for start, end in pairwise(bounds):
            rows = order[start:end]
            if is_moneyness:
                source: ForwardSource = "request" if forward is not None else "spot" if spot is not None else "moneyness"
                self.forwards.append((forward or spot or 1.0, source))
            else:
                self.forwards.append(self._forward(rows, spot, forward))
        found = np.array([one if one is not None else np.nan for one, _ in self.forwards] + [np.nan])
        self.forward = found[np.where(self.alive, self.tenor, -1)]
        own = self.numbers["underlying_price"]
        self.own = np.where(np.isnan(own), self.forward, own)
        self.t = np.array([*self.years, np.nan])[np.where(self.alive, self.tenor, -1)]
        self.strike = self.numbers["k"] * self.forward if is_moneyness else self.numbers["k"]
        self.premium_unit = np.where(self.coin, self.own, self.forward if is_moneyness else 1.0)
        ratio = self.strike / self.forward
        self.reject(
            (ratio > MONEYNESS_MAX) | (ratio < 1.0 / MONEYNESS_MAX),
            lambda at: (
                f"expected k as moneyness of .01 to 100, found {ratio[at]:.12g}: for strikes give spot, forward or k_unit"
                if is_moneyness
                else f"expected a strike within a hundredfold of the forward {self.forward[at]:.12g}, found {self.strike[at]:.12g}: "
                "for moneyness give k_unit"
            ),
        )

    def _forward(self, rows: Int64Array1D, spot: float | None, forward: float | None) -> tuple[float | None, ForwardSource | None]:
        """Return the forward of a tenor's good rows, and where it is from."""
        own = _known(self.numbers["underlying_price"][rows])
        if len(own):
            return _median(own), "row"
        if forward is not None:
            return forward, "request"
        parity = self._parity(rows)
        if parity is not None:
            return parity, "parity"
        if spot is None:
            index = _known(self.numbers["index_price"][rows])
            spot = _median(index) if len(index) else None
        return spot, "spot" if spot is not None else None

    def _parity(self, rows: Int64Array1D) -> float | None:
        """Return the forward at which calls and puts of one strike agree: the median of the strikes where they differ least."""
        price = np.where(np.isnan(self.middle), self.numbers["mark"], self.middle)[rows]
        sides: tuple[dict[tuple[float, bool], float], ...] = ({}, {})
        known = ~np.isnan(price)
        facts = (self.call[rows], self.numbers["k"][rows], self.coin[rows], price)
        for call, strike, coin, value in zip(*(column[known].tolist() for column in facts), strict=True):
            sides[call].setdefault((strike, coin), value)
        puts, calls = sides
        apart = sorted((abs(calls[one] - puts[one]), *one, calls[one] - puts[one]) for one in calls.keys() & puts.keys())
        found = [
            strike / (1.0 - difference) if coin else strike + difference
            for _, strike, coin, difference in apart[:_PAIRS]
            if difference < 1.0 or not coin
        ]
        positive = np.array([one for one in found if 0.0 < one < math.inf])
        return _median(positive) if len(positive) else None

    # Implied volatilities

    def set_ivs(self, stated: IvUnit | None) -> IvUnit:
        """Find the implied volatility of every good row, a fraction, and leave out those that have none; return the rows' unit."""
        numbers = self.numbers
        quoted = 0.5 * (numbers["bid_iv"] + numbers["ask_iv"])
        given = np.where(np.isnan(numbers["iv"]), quoted, numbers["iv"])
        self.reject(given <= 0.0, lambda at: f"expected iv above zero, found {given[at]:.12g}")
        unit = stated or self._unit(given)
        self.iv = iv = np.where(self.named | (stated is not None), given / 100.0, given) if unit == "percent" else given
        if stated is None:
            self._reject_mixed(given, unit)
        self.reject(
            iv > IV_MAX,
            lambda at: (
                f"expected iv as a fraction of at most {IV_MAX:g}, found {given[at]:.12g}: it looks like percent"
                if given[at] == iv[at]
                else f"expected iv of at most {100 * IV_MAX:g} percent, found {given[at]:.12g}"
            ),
        )
        self._invert(np.flatnonzero(np.isnan(iv) & self.alive))
        least, most = smile.SD_MIN / np.sqrt(self.t), smile.SD_MAX / np.sqrt(self.t)
        out = (iv < least) | (iv > most)
        self.reject(out, lambda at: f"expected iv from {least[at]:.3g} to {most[at]:.3g} for its tenor, found {iv[at]:.12g}")
        return unit

    def _invert(self, rows: Int64Array1D) -> None:
        """Read implied volatilities from prices."""
        if len(rows) == 0:
            return
        mark, bid, ask = (self.numbers[name] for name in ("mark", "bid", "ask"))
        price = np.where(np.isnan(self.middle), mark, self.middle)
        expected, missing = "expected iv, mark, or both bid and ask above zero", np.isnan(self.iv) & np.isnan(price)
        self.reject(missing & (ask > 0.0), partial(_found, f"{expected}, found no bid and an ask", ask))
        self.reject(missing & (bid > 0.0), partial(_found, f"{expected}, found no ask and a bid", bid))
        self.reject(missing, lambda at: f"{expected}, found none")
        self.reject(
            np.isnan(self.iv) & np.isnan(self.forward),
            lambda at: "expected a forward to read a price by, found no underlying_price, forward, spot, or call and put of one strike",
        )
        rows = rows[self.alive[rows]]
        status = np.zeros(len(self.iv), np.uint8)
        for start in range(0, len(rows), _INVERTED_ROWS):
            part = rows[start : start + _INVERTED_ROWS]
            self.iv[part], status[part] = self._implied(part, price)
        self.reject(
            status != black.Status.OK,
            lambda at: f"expected a price that has an implied volatility, found {price[at]:.12g}: {black.Status(int(status[at])).text}",
        )
        self.reject(
            self.iv > IV_MAX, lambda at: f"expected a price of at most {IV_MAX:g} implied, found {price[at]:.12g}: {self.iv[at]:.6g}"
        )

    def _implied(self, rows: Int64Array1D, price: Float64Array1D) -> tuple[Float64Array1D, np.ndarray[Any, Any]]:
        """Return the implied volatilities of some rows' prices, by each row's own forward, and how that went."""
        quote = price[rows] * self.premium_unit[rows]
        return black.implied_vol(quote, self.own[rows], self.strike[rows], self.t[rows], self.call[rows] == 1)

    def _marks(self) -> Float64Array1D:
        """Return marks, and middles where there are none: a mark belongs to the volatility that a venue states."""
        mark = self.numbers["mark"]
        return np.where(np.isnan(mark), self.middle, mark)

    def _unit(self, given: Float64Array1D) -> IvUnit:
        """Return the unit of the instruments' volatilities: the one that prices nearest the money agree with, else by their size."""
        having = np.flatnonzero(self.named & self.alive & ~np.isnan(given))
        if len(having) == 0:
            return "fraction"
        price = self._marks()
        priced = having[~np.isnan(price[having]) & ~np.isnan(self.own[having])]
        away = np.abs(np.log(self.strike[priced] / self.own[priced]))
        nearest = priced[np.argsort(away, kind="stable")[:_NEAREST]]
        if len(nearest):
            ratio = _known(given[nearest] / self._implied(nearest, price)[0])
            if len(ratio):
                return "percent" if _median(ratio) > _UNIT_APART else "fraction"
        return "percent" if _median(given[having]) > _PERCENT_FROM else "fraction"

    def _reject_mixed(self, given: Float64Array1D, unit: IvUnit) -> None:
        """Leave out instruments' volatilities that are in the other unit: by their price where that can be read, else by their size."""
        having = self.named & self.alive & ~np.isnan(given)
        if not having.any():
            return
        relative = given / _median(given[having])
        other = 1.0 / relative if unit == "percent" else relative
        suspects = np.flatnonzero(having & (other > _SUSPECT))
        if len(suspects) == 0:
            return
        apart = np.full(len(given), np.nan)
        apart[suspects] = np.abs(np.log(self.iv[suspects] / self._implied(suspects, self._marks())[0]))
        wrong = np.where(np.isnan(apart), other > _OTHER, apart > math.log(_UNIT_APART))
        self.reject(wrong, partial(_found, f"expected iv in the unit of the chain, {unit}, found mixed units:", given))


def _whole(block: Sequence[Row], kind: _Kind) -> list[Any] | None:
    """Return rows that are all of one kind, None where any is not."""
    try:
        if isinstance(block[0], msgspec.Raw):
            joined = b"[" + b",".join(block) + b"]"  # type: ignore[arg-type]  # Raw JSON gives its bytes; others raise below.
            return _plains.decode(joined) if kind is _Plain else _nameds.decode(joined)
        return msgspec.convert(list(block), list[kind])  # type: ignore[valid-type]
    except (ValueError, TypeError, RecursionError):
        return None


def _single(row: Row) -> _Plain | _Named:
    """Return a row whose block has an odd one; raises ``ValueError`` with what is odd in it."""
    fields: object = msgspec.json.decode(row) if isinstance(row, msgspec.Raw) else row
    if not isinstance(fields, Mapping):
        raise ValueError(f"expected a row of named fields, found {_shown(fields)}")
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in fields.items()}
    kind: _Kind = _Named if "instrument_name" in plain else _Plain
    for name, value in plain.items():
        if name not in _FIELDS[kind]:
            if kind is _Plain:
                raise ValueError(f"expected fields of {', '.join(_FIELDS[kind])}, found {_shown(name)}")
        elif name in _TEXTS:
            if not (isinstance(value, str) or (value is None and kind is _Plain)):
                raise ValueError(f"expected {name} as text, found {_shown(value)}")
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"expected {name} as a number, found {_shown(value)}")
    return msgspec.convert({name: plain[name] for name in _FIELDS[kind] if name in plain}, kind)


def _shown(value: object) -> str:
    """Return a value as a reason names it, never longer than a line."""
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a number of more than 18 digits"
    return repr(value)[:60] if isinstance(value, str | int | float) else f"a value of the type {type(value).__name__}"


def _column(values: Sequence[float | None], n: int) -> Float64Array1D:
    """Return numbers of which some are absent, NaN for those."""
    return np.array(values, np.float64) if None in values else np.fromiter(values, np.float64, n)


def _found(found: str, column: Float64Array1D, at: int) -> str:
    return f"{found} {column[at]:.12g}"


def _crossed(low: str, bids: Float64Array1D, high: str, asks: Float64Array1D, at: int) -> str:
    return f"expected {low} at or below {high}, found {bids[at]:.12g} above {asks[at]:.12g}: crossed"


def _known(values: Float64Array1D) -> Float64Array1D:
    known: Float64Array1D = values[~np.isnan(values)]
    return known


def _median(values: Float64Array1D) -> float:
    """Return the median of some numbers; a sort of a handful is faster than numpy's own."""
    ordered = np.sort(values)
    n = len(ordered)
    return 0.5 * float(ordered[(n - 1) // 2]) + 0.5 * float(ordered[n // 2])


# Tenors


def _tenors(table: _Table, delta: Convention) -> list[Tenor]:
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


def _quotes(table: _Table, by_time: Sequence[int]) -> list[tuple[Float64Array1D, Float64Array1D]]:
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
    for at in np.flatnonzero(twice).tolist():
        first = at - 1
        while twice[first]:
            first -= 1
        row = order[at]
        table.reasons[int(table.index[row])] = f"expected one row a tenor, strike and type, found row {table.index[order[first]]} again"
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


def _nearest(table: _Table, tenor: int, chosen: Int64Array1D) -> Int64Array1D:
    """Return the rows of the strikes nearest the forward, and leave out the others."""
    forward, _ = table.forwards[tenor]
    away = np.abs(np.log(table.strike[chosen] / (forward or _median(table.strike[chosen]))))
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
    smiled, level = at_maturity(pillars, DAYS / _YEAR_DAYS), at_maturity(levels, DAYS / _YEAR_DAYS)  # type: ignore[arg-type]
    near = at_maturity(levels, DAYS_SHORT / _YEAR_DAYS)
    slope = rr25 = fly25 = None
    if smiled is not None:
        call, put, middle = smiled[1]
        rr25, fly25 = call - put, 0.5 * (call + put) - middle
    if level is not None and near is not None and level[0] > near[0]:
        slope = (level[1][0] - near[1][0]) / (math.sqrt(level[0]) - math.sqrt(near[0]))
    reference = smiled or level
    return Surface(
        ts_ms=ts_ms,
        accepted=accepted,
        rejected=list(rejected[:REJECTED_MAX]),
        rejected_count=len(rejected),
        tenors=tenors,
        delta_convention=delta,
        iv_unit=iv_unit,
        ref_tenor_days=None if reference is None else reference[0] * _YEAR_DAYS,
        rr25=rr25,
        fly25=fly25,
        atm=None if level is None else level[1][0],
        iv_term_slope=slope,
    )


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
