"""The rows of a raw option chain by column: which of them are good, and the implied volatility of each.

A row is good or it is rejected with its reason; no row makes a chain fail. See docs/OPTIONS.md.
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

TENORS_MAX = 64
IV_MAX = 10.0
"""As a fraction: a thousand percent."""
MONEYNESS_MAX = 100.0
"""A strike that many times above or below the forward is one in another unit."""
YEAR_DAYS = 365.0
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

Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
Row = Mapping[str, object] | msgspec.Raw


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
    iv: float | None = None
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


class QuoteTable:
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
        joined = [np.concatenate(part) if len(part) > 1 else part[0] for part in zip(*self._parts, strict=True)] or [np.empty(0)] * (n + 5)
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
        absences = {name: column.count(None) for name, column in fields.items() if name not in _TEXTS}
        numbers = {name: _column(fields[name], absent) for name, absent in absences.items() if absent < n}
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
        nothing = np.full(n, np.nan)
        facts = (indices.astype(np.float64), tenors, calls, np.full(n, float(kind is _Named)), coins)
        self._parts.append((*(numbers.get(name, nothing) for name in _NUMBERS), *facts))

    def _calls_of(self, indices: Int64Array1D, texts: Sequence[str | None]) -> Float64Array1D:
        call_of = {text: _CALLS.get((text or "").lower(), -1) for text in set(texts)}
        if -1 in call_of.values():
            for index, text in zip(indices.tolist(), texts, strict=True):
                if call_of[text] < 0:
                    self.reasons[index] = f"expected type as call or put, found {shown(text)}"
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
        self._base = self._base or found.base
        if found.base != self._base:
            return self._no_tenor(f"expected an option on {self._base}, found {name}"), 1.0, False, False
        tenor = self._tenor_at.get(found.expiry_ms)
        if tenor is None:
            tenor = self._add_tenor(name.split("-")[1], (found.expiry_ms - self._ts_ms) / YEAR_MS, found.expiry_ms)
            self._tenor_at[found.expiry_ms] = tenor
        return tenor, found.strike, found.call, found.quote is None

    def _add_tenor(self, label: str, years: float, expiry_ms: int | None) -> int:
        if years <= 0.0:
            past = f", which expired {-years * YEAR_DAYS:.2f} days before" if expiry_ms is not None else ""
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
        if "underlying_price" in self.present:
            own = _known(self.numbers["underlying_price"][rows])
            if len(own):
                return median(own), "row"
        if forward is not None:
            return forward, "request"
        parity = self._parity(rows)
        if parity is not None:
            return parity, "parity"
        if spot is None:
            index = _known(self.numbers["index_price"][rows])
            spot = median(index) if len(index) else None
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
        return median(positive) if len(positive) else None

    # Implied volatilities

    def set_ivs(self, stated: IvUnit | None) -> IvUnit:
        """Find the implied volatility of every good row, a fraction, and leave out those that have none; return the rows' unit."""
        numbers = self.numbers
        quoted = 0.5 * (numbers["bid_iv"] + numbers["ask_iv"])
        given = np.where(np.isnan(numbers["iv"]), quoted, numbers["iv"])
        self.reject(given <= 0.0, lambda at: f"expected iv above zero, found {given[at]:.12g}")
        unit = stated or self._unit(given)
        self.iv = iv = np.where(self.named | (stated is not None), given / 100.0, given) if unit == "percent" else given
        self._reject_mixed(given, unit, self.named | (stated is not None))
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
                return "percent" if median(ratio) > _UNIT_APART else "fraction"
        return "percent" if median(given[having]) > _PERCENT_FROM else "fraction"

    def _reject_mixed(self, given: Float64Array1D, unit: IvUnit, where: Bools) -> None:
        """Leave out volatilities that are in the other unit: by their price where that can be read, else by their size."""
        having = where & self.alive & ~np.isnan(given)
        if not having.any():
            return
        relative = given / median(given[having])
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
            found: list[Any] = _plains.decode(joined) if kind is _Plain else _nameds.decode(joined)
            return found if len(found) == len(block) else None
        return msgspec.convert(list(block), list[kind])  # type: ignore[valid-type]
    except (ValueError, TypeError, RecursionError):
        return None


def _single(row: Row) -> _Plain | _Named:
    """Return a row whose block has an odd one; raises ``ValueError`` with what is odd in it."""
    fields: object = msgspec.json.decode(row) if isinstance(row, msgspec.Raw) else row
    if not isinstance(fields, Mapping):
        raise ValueError(f"expected a row of named fields, found {shown(fields)}")
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in fields.items()}
    kind: _Kind = _Named if "instrument_name" in plain else _Plain
    for name, value in plain.items():
        if name not in _FIELDS[kind]:
            if kind is _Plain:
                raise ValueError(f"expected fields of {', '.join(_FIELDS[kind])}, found {shown(name)}")
        elif name in _TEXTS:
            if not (isinstance(value, str) or (value is None and kind is _Plain)):
                raise ValueError(f"expected {name} as text, found {shown(value)}")
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"expected {name} as a number, found {shown(value)}")
    return msgspec.convert({name: plain[name] for name in _FIELDS[kind] if name in plain}, kind)


def shown(value: object) -> str:
    """Return a value as a reason names it, never longer than a line."""
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a number of more than 18 digits"
    return repr(value)[:60] if isinstance(value, str | int | float) else f"a value of the type {type(value).__name__}"


def _column(values: Sequence[Any], absent: int) -> Float64Array1D:
    """Return numbers of which some are absent, NaN for those."""
    return np.array(values, np.float64) if absent else np.fromiter(values, np.float64, len(values))


def _found(found: str, column: Float64Array1D, at: int) -> str:
    return f"{found} {column[at]:.12g}"


def _crossed(low: str, bids: Float64Array1D, high: str, asks: Float64Array1D, at: int) -> str:
    return f"expected {low} at or below {high}, found {bids[at]:.12g} above {asks[at]:.12g}: crossed"


def _known(values: Float64Array1D) -> Float64Array1D:
    known: Float64Array1D = values[~np.isnan(values)]
    return known


def median(values: Float64Array1D) -> float:
    """Return the median of some numbers; a sort of a handful is faster than numpy's own."""
    ordered = np.sort(values)
    n = len(ordered)
    return 0.5 * float(ordered[(n - 1) // 2]) + 0.5 * float(ordered[n // 2])
