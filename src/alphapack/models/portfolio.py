"""The portfolio: per symbol a position, its money and its sleeves; over all of them the equity, its drawdown, and what may be risked.

The law: equity = capital + cash + positions at the last LIVE mids, and the sleeves sum to every position and to all cash.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import msgspec

from alphapack.domain.market import NANOS_PER_S, Step
from alphapack.domain.money import UNITS, half_even, worth_at_half_ticks
from alphapack.models.history import History
from alphapack.models.sleeves import Share, Sleeves

ACCOUNTS_MAX = 1_000
BARS_KEPT = 20_000
FIRST_BAR_S, BAR_S = 10, 60
"""Seconds of an equity bar while there is less than a day of them, and from then on."""
_DAY_S = 86_400


class Limits(msgspec.Struct, frozen=True):
    """What may be risked; ``brake_release`` is at most ``brake_drawdown``."""

    gross_max: float
    """Exposure of all symbols together, times equity."""
    symbol_max: float
    """Exposure of one symbol, times equity."""
    vol_budget: float
    """Volatility of a year that all exposures together may have, as a fraction of equity."""
    brake_drawdown: float
    """Drawdown at which new sizes shrink, as a fraction of the highest equity."""
    brake_release: float
    """Drawdown at which they no longer do."""
    brake_factor: float
    """What they are multiplied by in between."""

    def __post_init__(self) -> None:
        for name in ("gross_max", "symbol_max", "vol_budget", "brake_drawdown"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"expected {name} above zero, found {value}")
        if not 0.0 <= self.brake_release <= self.brake_drawdown or not 0.0 <= self.brake_factor <= 1.0:
            raise ValueError(
                f"expected brake_release from 0 to {self.brake_drawdown} and brake_factor from 0 to 1, "
                f"found {self.brake_release} and {self.brake_factor}"
            )


class Cap(NamedTuple):
    """What one limit leaves for a new exposure, in money, zero or more."""

    name: str
    money: int


class Account(msgspec.Struct):
    """Position and money of one symbol; money is in units of 1e-8 and below zero where it is paid."""

    symbol: str
    sleeves: Sleeves
    position_lots: int = 0
    cash: int = 0
    """Of fills, fees, charges and funding together."""
    basis: int = 0
    """What the position cost on average, signed as the position."""
    fees: int = 0
    impact: int = 0
    funding: int = 0
    turnover: int = 0
    """Value of all fills, never below zero."""
    mid_half_ticks: int | None = None
    """Last mid of a LIVE book; None before there was one."""

    @property
    def exposure(self) -> int:
        """Value of the position at the last LIVE mid, signed."""
        return self.value(self.position_lots)

    @property
    def realised(self) -> int:
        """Profit of what was closed, with all fees, charges and funding."""
        return self.cash + self.basis

    @property
    def unrealised(self) -> int:
        """Profit that closing the position at the last LIVE mid would add."""
        return self.exposure - self.basis

    def value(self, lots: int) -> int:
        """Return the value of lots at the last LIVE mid. Raises ``ValueError`` where there was none and the lots are not 0."""
        if lots == 0:
            return 0
        if self.mid_half_ticks is None:
            raise ValueError(f"expected a mid of {self.symbol} before it has a value, found none")
        return worth_at_half_ticks(self.mid_half_ticks, lots, self.sleeves.tick, self.sleeves.lot)

    def committed(self, side: int) -> int:
        """Return the exposure on a side: held, or what the sleeves may come to hold, whichever is more; below zero on the other one."""
        sleeves = sum(sleeve.may_hold(side) for sleeve in self.sleeves.by_decision.values())
        return self.value(side * max(side * self.position_lots, sleeves)) * side

    def take(self, lots: int, value: int) -> None:
        """Add signed lots that were traded for ``value`` to the position and its average cost."""
        side, held = (1 if lots > 0 else -1), abs(self.position_lots)
        if side * self.position_lots >= 0:
            self.basis += side * value
        elif abs(lots) <= held:
            self.basis -= half_even(self.basis * abs(lots), held)
        else:
            self.basis = side * half_even(value * (abs(lots) - held), abs(lots))
        self.position_lots += lots


class _Saved(msgspec.Struct, array_like=True):
    version: int
    currency: str
    capital: int
    accounts: dict[str, Account]
    peak: int
    braked: bool
    bar_s: int
    first_bar_s: int | None
    bar: int
    bars_written: int


class Portfolio:
    """All accounts of one settlement currency."""

    def __init__(self, currency: str, capital: int, limits: Limits) -> None:
        """``capital`` is money above 0, what the equity begins with."""
        if capital <= 0:
            raise ValueError(f"expected a capital above 0, found {capital}")
        self.currency, self.capital, self.limits = currency, capital, limits
        self.accounts: dict[str, Account] = {}
        self.peak = capital
        """Highest equity that was noted."""
        self.braked = False
        """Whether new sizes are to be multiplied by ``brake_factor``."""
        self.bar_s = FIRST_BAR_S
        """Seconds from one row of ``bars`` to the next."""
        self.bars = History(("equity", "drawdown"), BARS_KEPT)
        self._first_bar_s: int | None = None
        self._bar = -1

    # What happens

    def add(self, symbol: str, tick: Step, lot: Step, long_only: bool = False) -> Account:
        """Begin the account of a symbol. Raises ``ValueError`` where it has one, or ``ACCOUNTS_MAX`` have one."""
        if symbol in self.accounts or len(self.accounts) >= ACCOUNTS_MAX:
            raise ValueError(f"expected a symbol without an account, one of at most {ACCOUNTS_MAX:,}, found {symbol[:60]!r}")
        account = self.accounts[symbol] = Account(symbol, Sleeves(tick, lot, long_only))
        return account

    def mark(self, symbol: str, mid_half_ticks: int) -> None:
        """Value a symbol at the mid of its LIVE book, in half ticks."""
        self.accounts[symbol].mid_half_ticks = mid_half_ticks

    def fill(self, symbol: str, order: int, lots: int, value: int, fee: int, impact: int) -> list[Share]:
        """Book a fill, as ``Sleeves.fill`` has it, and return what each sleeve has of it. A mid must have been marked before."""
        account = self.accounts[symbol]
        if account.mid_half_ticks is None:
            raise ValueError(f"expected a mid of {symbol} before its first fill, found none")
        shares = account.sleeves.fill(order, lots, value, fee, impact)
        account.take(sum(share.lots for share in shares), value)
        account.cash += sum(share.cash for share in shares) + fee + impact
        account.fees += fee
        account.impact += impact
        account.turnover += value
        return shares

    def fund(self, symbol: str, rate: Fraction, mark: Fraction) -> int:
        """Book a funding payment of ``-position * mark * rate``: a positive rate is paid by who is long. Return it, as money.

        Each sleeve pays or receives for its own lots; the house has what rounding leaves.
        """
        account = self.accounts[symbol]
        paid = account.sleeves.fund(-account.sleeves.lot.size * mark * rate * UNITS)
        account.cash += paid
        account.funding += paid
        return paid

    def refine(self, symbol: str, by_price: int, by_lot: int) -> None:
        """Count a symbol in ticks and lots that are so many times finer."""
        account = self.accounts[symbol]
        account.sleeves.refine(by_price, by_lot)
        account.position_lots *= by_lot
        if account.mid_half_ticks is not None:
            account.mid_half_ticks *= by_price

    def note(self, ts_ns: int) -> None:
        """Look at the equity, as is done every second: its peak, the brake, and a bar where one has ended."""
        equity = self.equity
        self.peak = max(self.peak, equity)
        drawdown = self.drawdown
        self.braked = drawdown > self.limits.brake_release if self.braked else drawdown >= self.limits.brake_drawdown
        ts_s = ts_ns // NANOS_PER_S
        if ts_s // self.bar_s > self._bar:
            self._write_bar(ts_s, equity, drawdown)

    def _write_bar(self, ts_s: int, equity: int, drawdown: float) -> None:
        self._bar = ts_s // self.bar_s
        at_s = self._bar * self.bar_s
        if self._first_bar_s is None:
            self._first_bar_s = at_s
        self.bars.note(at_s * 1_000, [float(equity), drawdown])
        if self.bar_s == FIRST_BAR_S and at_s - self._first_bar_s >= _DAY_S:
            self.bar_s, self._bar = BAR_S, at_s // BAR_S
            past = self.bars.past()
            kept = past[past[:, 0] % (BAR_S * 1_000) == 0]
            self.bars.load(len(kept), kept.data)

    # What it comes to

    @property
    def cash(self) -> int:
        """Capital and the cash of every symbol."""
        return self.capital + sum(account.cash for account in self.accounts.values())

    @property
    def equity(self) -> int:
        """Cash and the value of every position at the last LIVE mid."""
        return self.cash + sum(account.exposure for account in self.accounts.values())

    @property
    def gross(self) -> int:
        """Exposure of every symbol, long and short together."""
        return sum(abs(account.exposure) for account in self.accounts.values())

    @property
    def drawdown(self) -> float:
        """What is missing to the highest equity, as a fraction of it; above 1 where all is lost and more."""
        return max(0, self.peak - self.equity) / self.peak

    @property
    def size_factor(self) -> float:
        """What new sizes are to be multiplied by: 1, or ``brake_factor`` while the brake is on."""
        return self.limits.brake_factor if self.braked else 1.0

    def room(self, symbol: str, side: int, sigmas: Mapping[str, float]) -> list[Cap]:
        """Return what every limit leaves for a new sleeve.

        Of each symbol counts what is held or what its sleeves may come to hold, whichever is more; what stands on the other side of this
        one adds room. The volatility budget takes every symbol to move against its position at once: correlation 1, no hedge is believed.

        Parameters
        ----------
        side
            +1 to buy, -1 to sell.
        sigmas
            Volatility of a year, by symbol, as a fraction above 0. Where that of a committed symbol is missing the budget leaves nothing.

        Raises
        ------
        ValueError
            A volatility is not above 0, or the symbol never had a mid.
        """
        if not all(0.0 < sigma < math.inf for sigma in sigmas.values()):
            raise ValueError(f"expected volatilities above zero, found {dict(sigmas)}")
        account = self.accounts[symbol]
        equity, here = max(0, self.equity), account.committed(side)
        others = {one.symbol: max(one.committed(1), one.committed(-1)) for one in self.accounts.values() if one is not account}
        known = symbol in sigmas and all(name in sigmas for name, money in others.items() if money)
        risk = sum(sigmas[name] * money for name, money in others.items() if money) if known else 0.0
        left = {
            "gross": self.limits.gross_max * equity - sum(others.values()) - here,
            "symbol": self.limits.symbol_max * equity - here,
            "volatility": (self.limits.vol_budget * equity - risk) / sigmas[symbol] - here if known else 0.0,
        }
        if account.sleeves.long_only and side < 0:
            left["long only"] = 0.0
        return [Cap(name, max(0, math.floor(money))) for name, money in left.items()]

    def risk(self, sigmas: Mapping[str, float]) -> float:
        """Return the volatility of a year that the positions have at the worst, as money; every symbol held must be in ``sigmas``."""
        return sum(sigmas[account.symbol] * abs(account.exposure) for account in self.accounts.values() if account.position_lots)

    def check(self) -> None:
        """Raise ``AssertionError`` where the sleeves of a symbol do not sum to its position and cash."""
        for account in self.accounts.values():
            account.sleeves.check(account.position_lots, account.cash)

    # State

    def save(self) -> list[memoryview]:
        """Return all of it but the limits."""
        saved = _Saved(
            1,
            self.currency,
            self.capital,
            self.accounts,
            self.peak,
            self.braked,
            self.bar_s,
            self._first_bar_s,
            self._bar,
            self.bars.written,
        )
        # JSON, for a turnover may outgrow 64 bits.
        return [memoryview(msgspec.json.encode(saved)), self.bars.past().data]

    def load(self, pieces: list[memoryview]) -> None:
        """Replace everything but the limits by what ``save`` returned."""
        head, past = pieces
        saved = msgspec.json.decode(head, type=_Saved)
        self.currency, self.capital, self.accounts = saved.currency, saved.capital, saved.accounts
        self.peak, self.braked = saved.peak, saved.braked
        self.bar_s, self._first_bar_s, self._bar = saved.bar_s, saved.first_bar_s, saved.bar
        self.bars = History(("equity", "drawdown"), BARS_KEPT)
        self.bars.load(saved.bars_written, past)
