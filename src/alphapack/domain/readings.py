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


class Sigmas(msgspec.Struct, frozen=True):
    """Standard deviations of a log return, as fractions."""

    sigma_har: float = msgspec.field(name="sigmaHAR")
    sigma_garch: float = msgspec.field(name="sigmaGARCH")
    sigma: float


class Blend(msgspec.Struct, frozen=True):
    """Weights of the models' variances, sum 1."""

    har: float
    garch: float


class HarModel(msgspec.Struct, frozen=True):
    """The HAR that is served: its variant, windows in minutes and parameters."""

    variant: str
    horizon: int
    """Minutes to which it was fitted; fewer than asked for where the forecast is extrapolated."""
    lags: list[int]
    params: dict[str, float]
    r2: float
    n: int


class PlainModel(msgspec.Struct, frozen=True):
    """The plain HAR of periods of length h, beside."""

    sigma: float | None
    """None where too little is known of its windows, which are the longest."""
    horizon: int
    lags: list[int]
    params: dict[str, float]
    stderr: dict[str, float]
    """Newey-West errors of the parameters."""
    r2: float
    n: int
    extrapolated: bool


class GarchModel(msgspec.Struct, frozen=True):
    """GARCH(1,1) of returns over the root of their diurnal factor; ``omega`` in squared fractions a minute."""

    omega: float
    alpha: float
    beta: float
    persistence: float
    converged: bool
    persistence_cap: float
    """Forecasts of more than one minute do not use a larger persistence."""
    next_variance: float


class VolModels(msgspec.Struct, frozen=True):
    """What the forecast was made with."""

    har: HarModel
    har_plain: PlainModel = msgspec.field(name="harPlain")
    garch: GarchModel


class VolForecast(msgspec.Struct, frozen=True):
    """Volatility of one symbol over the next ``h`` minutes; ``sigma*`` are standard deviations of the log return over all of them."""

    symbol: str
    venue: str
    h: int
    sigma_har: float = msgspec.field(name="sigmaHAR")
    sigma_garch: float = msgspec.field(name="sigmaGARCH")
    sigma: float
    """What ``rule`` makes of the two."""
    rule: str
    blend: Blend
    annualized: Sigmas
    """Times ``sqrt(525600 / h)``."""
    asof_ms: int
    """End of the newest minute that was looked at."""
    fitted_ms: int
    """End of the newest minute of the fit."""
    n_obs: int
    """Minute returns that were fitted."""
    extrapolated: bool
    candles: dict[str, int]
    """Where the candles came from: of the venue, made of the tape, from a file."""
    history_shift_ms: int | None
    """How far the candles of a file were moved in time; None where there are none."""
    models: VolModels


class VolScore(msgspec.Struct, frozen=True):
    """One model's forecasts of variance against what was realised."""

    qlike: float | None
    intercept: float | None
    intercept_stderr: float | None
    slope: float | None
    slope_stderr: float | None
    r2: float | None
    dm_t: float | None
    """Diebold and Mariano's t of its loss less that of the rolling variance; below zero: better."""


class VolScores(msgspec.Struct, frozen=True):
    """All models at one horizon."""

    h: int
    every_minutes: int
    n: int
    """Forecasts that came due and are kept."""
    unmoved: int
    """Of them, those after which no price moved: they have no loss, and count for the line."""
    seeded: int
    """Of all that came due, those made by a fit to what was before them when the engine first had enough candles."""
    dm_har_garch: float | None
    blend: Blend
    models: dict[str, VolScore]


class VolAccuracy(msgspec.Struct, frozen=True):
    """How good the forecasts of one symbol have been."""

    symbol: str
    venue: str
    asof_ms: int
    loss: str
    horizons: list[VolScores]


class SviParameters(msgspec.Struct, frozen=True):
    """Total variance ``a + b (rho (x - m) + sqrt((x - m)^2 + sigma^2))`` of ``x = ln(strike / forward)``."""

    a: float
    b: float
    rho: float
    m: float
    sigma: float


class SmileTenor(msgspec.Struct, frozen=True):
    """The smile of one expiry; volatilities are annualised fractions. See docs/OPTIONS.md."""

    tenor: str
    t: float
    """Years of 365 days from the chain's time to expiry."""
    expiry_ms: int | None
    forward: float | None
    forward_source: str | None
    """row, request, parity, spot or moneyness: where the forward came from."""
    atm_iv: float | None
    """Of the delta-neutral straddle."""
    rr25: float | None
    fly25: float | None
    iv25c: float | None
    iv25p: float | None
    k25c: float | None
    k25p: float | None
    k_atm: float | None
    svi: SviParameters | None
    points: int
    quality: str
    reason: str | None
    butterfly_free: bool | None
    calendar_free: bool | None
    strikes: list[float]
    ivs: list[float]


class Smile(msgspec.Struct, frozen=True):
    """What the newest option chain of a symbol's base asset says."""

    symbol: str
    base: str
    ts_ms: int
    """Time of the chain."""
    age_ms: int
    """Engine time less that of the chain."""
    source: str
    delta_convention: str
    ref_tenor_days: float | None
    """Maturity of the headline: 30 where tenors are on both sides of it, else the nearest tenor's."""
    atm_iv: float | None
    rr25: float | None
    fly25: float | None
    iv_term_slope: float | None
    skew_z: float | None
    skew_n: int
    """Observations of rr25 in the thirty days before, of the 20 that skew_z needs."""
    tenors: list[SmileTenor]


class RejectedRow(msgspec.Struct, frozen=True):
    """A row of a chain that could not be used: which one, counted from 0, and why."""

    index: int
    reason: str


class ChainTaken(msgspec.Struct, frozen=True):
    """What became of a posted chain; ``accepted + rejected_count`` are its rows."""

    symbol: str
    base: str
    ts_ms: int
    accepted: int
    rejected: list[RejectedRow]
    """The first thousand of them."""
    rejected_count: int
    iv_unit: str
    tenors: list[SmileTenor]
    seq: int
    durable_seq: int
    """At or beyond ``seq``: the chain and what was made of it are safe on disk."""
