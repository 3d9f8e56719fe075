"""Names and units of the market: venues, symbols, book states, instruments."""

import enum
from fractions import Fraction
from typing import Literal

import msgspec

SIMULATOR = "sim"
"""The venue name of the market that comes with the engine."""
QUOTE_ASSETS = ("USDT", "USDC", "FDUSD", "USD", "EUR", "BTC", "ETH", "BNB")
"""What a pair ends in, the first that fits: the rest is its base asset."""
BinanceMarket = Literal["spot", "usdm", "coinm"]
"""The markets of Binance whose wire is spoken here: spot, futures in USD, futures in the coin."""
NAME_WITHIN = 256
"""Bytes within which the frames of every stream name their symbol."""
NANOS_PER_MS = 1_000_000
NANOS_PER_S = 1_000_000_000


class BookState(enum.IntEnum):
    """What is proven about a book; only LIVE feeds features."""

    SYNCING = 0
    LIVE = 1
    STALE = 2
    CORRUPT = 3


class Verdict(enum.IntEnum):
    """What a venue's continuity rule says of one depth difference."""

    APPLY = 0
    DUPLICATE = 1
    GAP = 2


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A grid of decimal numbers: multiples of ``units * 10**-decimals`` (a tick, a lot).

    A multiple is stored as an int64, so that sums over a window are exact.
    """

    units: int
    decimals: int

    @classmethod
    def parse(cls, text: str) -> "Step":
        """Return the step that a positive plain decimal such as ``"0.10"`` names."""
        whole, _, fraction = text.partition(".")
        fraction = fraction.rstrip("0")
        digits = whole + fraction
        if not digits.isascii() or not digits.isdigit() or int(digits) == 0 or len(digits) > 18:
            raise ValueError(f"expected a positive decimal step such as '0.01', found {text!r}")
        if fraction:
            return cls(int(digits), len(fraction))
        return cls(int(whole), 0)

    @property
    def size(self) -> Fraction:
        """The step as an exact number."""
        return Fraction(self.units, 10**self.decimals)

    def number(self, multiple: int) -> float:
        """Return ``multiple`` steps as the nearest float (one rounding, as parsing the text would give)."""
        return float(multiple * self.units / 10**self.decimals)

    def __str__(self) -> str:
        digits = str(self.units).rjust(self.decimals + 1, "0")
        return digits if self.decimals == 0 else f"{digits[: -self.decimals]}.{digits[-self.decimals :]}"


def symbol_id(venue: str, name: str) -> str:
    """Return the full name of a symbol, ``venue:NAME``."""
    return f"{venue}:{name.upper()}"


def venue_of(symbol: str) -> str:
    """Return the venue part of a full symbol name."""
    return symbol.partition(":")[0]


def name_of(symbol: str) -> str:
    """Return the venue's own name of a symbol."""
    return symbol.partition(":")[2]


def base_of(symbol: str) -> str:
    """Return the base asset by which options are kept: BTC of ``binance-usdm:BTCUSDT``, ``BTCUSD_PERP``, ``BTC-USD`` and ``BTC``."""
    pair = (name_of(symbol) or symbol).upper()
    for separator in "-_/":
        pair = pair.partition(separator)[0]
    quote = next((one for one in QUOTE_ASSETS if pair.endswith(one) and len(pair) > len(one)), "")
    return pair.removesuffix(quote)


def quote_of(symbol: str) -> str:
    """Return the asset that prices are in: USDT of ``binance-usdm:BTCUSDT``, USD of ``BTCUSD_PERP`` and ``BTC-USD``; empty: not known."""
    pair = (name_of(symbol) or symbol).upper()
    base = base_of(symbol)
    rest = pair.removeprefix(base).lstrip("-_/")
    return next((one for one in QUOTE_ASSETS if rest.startswith(one)), "")
