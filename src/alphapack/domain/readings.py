"""What a reader of the engine is answered: immutable values, ``None`` where a number is not known."""

import msgspec

from alphapack.domain.feeds import FeedHealth


class Depth(msgspec.Struct, frozen=True):
    """Size of the best five levels a side, in base units, and its value in quote units."""

    bid: float
    ask: float
    bid_quote: float
    ask_quote: float


class Windows(msgspec.Struct, frozen=True):
    """The features at their other depths and windows."""

    obi_1: float | None
    obi_10: float | None
    ti_1s: float | None
    ti_30s: float | None
    micro_vol_1s: float | None
    ofi_1: float | None
    """Order flow of the best level alone, in base units."""


class Microstructure(msgspec.Struct, frozen=True):
    """Features of one symbol at ``ts_ms``; see docs/MICROSTRUCTURE.md for the formulas."""

    symbol: str
    venue: str
    ts_ms: int
    """Engine time of these values: now for a LIVE book, the moment it ceased to be LIVE otherwise."""
    age_ms: int
    """Engine time since the last depth message of the symbol."""
    state: str
    seq: int
    bid: float | None
    ask: float | None
    mid: float | None
    microprice: float | None
    spread_bps: float | None
    obi: float | None
    obi_k: int
    ti: float | None
    ti_n: int
    micro_vol: float | None
    cancel_rate: float | None
    cancel_n: int
    queue_rate: float | None
    ofi: float | None
    vpin: float | None
    vpin_n: int
    """Full buckets so far, of the 50 that vpin needs."""
    kyle_lambda: float | None
    kyle_n: int
    """Seconds with trades among the last 300, of the 30 that kyle_lambda needs."""
    trade_rate: float | None
    microprice_stoikov: float | None
    depth: Depth | None
    windows: Windows


class Book(msgspec.Struct, frozen=True):
    """Best levels of one symbol, best first, as ``[price, quantity]``."""

    symbol: str
    venue: str
    ts_ms: int
    seq: int
    age_ms: int
    state: str
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]


class SymbolInfo(msgspec.Struct, frozen=True):
    """One symbol as the engine knows it; ``tick`` and ``lot`` are None until they are known."""

    symbol: str
    venue: str
    state: str
    tick: float | None
    lot: float | None
    min_notional: float | None
    contract_value: float | None
    maker_fee_bps: float | None
    taker_fee_bps: float | None
    has_options: bool


class SymbolHealth(msgspec.Struct, frozen=True):
    """How well one symbol's data holds together."""

    state: str
    age_ms: int | None
    """Engine time since the last depth message; None before the first."""
    lag_ms: float | None
    """Engine time minus venue time of the last message that says one; negative where the venue's clock is ahead."""
    messages: int
    gaps: int
    crossed: int
    resyncs: int
    duplicates: int
    ticker_checked: int
    ticker_mismatched: int
    rejected: int
    trades_missed: int
    """Trades whose ids show that they never came."""


class LedgerHealth(msgspec.Struct, frozen=True):
    """How far what happened is safe on disk."""

    ok: bool
    rows: int
    seq: int
    durable_seq: int
    backlog: int
    detail: str | None


class Health(msgspec.Struct, frozen=True):
    """The engine as a whole; ``status`` is starting, ready, degraded or ended."""

    status: str
    detail: str | None
    version: str
    source: str
    uptime_s: float
    ts_ms: int
    digest: str
    loop_lag_ms: float
    symbols: dict[str, SymbolHealth]
    ledger: LedgerHealth
    feeds: list[FeedHealth]
    """Of a live market, how each of its feeds stands; of any other, none."""
