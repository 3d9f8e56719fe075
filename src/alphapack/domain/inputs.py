"""All that enters the engine. What is not here cannot influence a number.

Inputs are journaled as they stand, in order, and a replay of the journal steps the same inputs. ``seq`` orders
them; ``ts_ns`` explains when. ``INPUT_VERSION`` goes with every stored segment; an older one passes its upcaster.
"""

from typing import Literal

import msgspec

from alphapack.domain.market import Step
from alphapack.domain.trading import ExecutionSettings, RouterSettings

INPUT_VERSION = 3


class Input(msgspec.Struct, frozen=True, array_like=True, tag_field="kind"):
    """Base of every input: its place in the one order, and the engine's time."""

    seq: int
    ts_ns: int


class Configure(Input, frozen=True, tag="configure"):
    """Core configuration; the first input of every engine, and again whenever it changes."""

    settings: "CoreSettings"


class SessionStart(Input, frozen=True, tag="session"):
    """A source begins or begins again: what was known before may have changed unseen."""

    source: str


class Frame(Input, frozen=True, tag="frame", gc=False):
    """Bytes exactly as a venue sent them; ``symbol`` is the venue's name where the payload does not say it."""

    venue: str
    symbol: str
    payload: bytes


class Heartbeat(Input, frozen=True, tag="beat", gc=False):
    """Time passed and nothing came."""


class Shed(Input, frozen=True, tag="shed"):
    """The bounded intake gave up frames of one symbol before the journal; its book is no longer proven."""

    symbol: str
    frames: int


class Conflated(Input, frozen=True, tag="conflated"):
    """The bounded intake kept only the newest top-of-book ticker of a symbol."""

    symbol: str
    frames: int


class Halt(Input, frozen=True, tag="halt"):
    """What is decided from here on cannot be kept, so that trading stands still; or, with ``on`` false, it can again."""

    on: bool


class Result(Input, frozen=True, tag="result"):
    """The answer of work that the core asked for and that ran off the loop."""

    request_id: int
    work: str
    ok: bool
    body: bytes


HISTORY_ROWS_MAX = 5_000
"""Candles of one page of history: few enough to be stepped in a moment."""


class History(Input, frozen=True, tag="history", gc=False):
    """A page of a symbol's past that the user loads: one-minute candles, of which the venue's own are believed more.

    ``rows`` are at most ``HISTORY_ROWS_MAX`` rows of six little-endian float64: opening time in milliseconds, open, high,
    low, close, volume. They were moved by ``shift_ms``, a whole number of minutes, from where they stand in the file.
    """

    symbol: str
    shift_ms: int
    rows: bytes


class Chain(Input, frozen=True, tag="chain", gc=False):
    """Option quotes of a base asset, such as BTC, as the JSON body of a posted chain; ``source`` is one of ``CHAIN_SOURCES``."""

    base: str
    source: str
    body: bytes


class OutsideFill(Input, frozen=True, tag="outside_fill", gc=False):
    """A fill that an outside executor reports of a decision; once by ``client_fill_id``."""

    decision: int
    client_fill_id: str
    price: float
    size: float
    """In base units, below 0 where it was sold."""
    fee: float
    """In units of the settlement currency, paid below 0."""
    venue_ms: int


class Choose(Input, frozen=True, tag="choose", gc=False):
    """Somebody asks for advice about a full symbol name; ``context`` overrides what is known of its features."""

    symbol: str
    context: dict[str, float]


class Reward(Input, frozen=True, tag="reward", gc=False):
    """What came of a decision that was asked for as advice, in bps of the notional that it was followed with."""

    decision: int
    reward_bps: float


class Disable(Input, frozen=True, tag="disable"):
    """An alpha took longer than the engine can wait: it is asked no more."""

    name: str
    what: Literal["alpha", "policy"]
    reason: str


POSTED = "posted"
CHAIN_SOURCES = (POSTED, "recorded", "simulated")

FEE_BPS_MAX = 1_000.0


class CoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings that change what the core computes, so they are an input themselves."""

    seed: int = 7
    stale_after_ms: int = 3_000
    """Silence of a symbol's depth stream after which its book is STALE: three intervals of the slowest stream."""
    history_rows: int = 3_600
    """Feature rows kept in memory a symbol, one a second."""
    sync_buffer_frames: int = 10_000
    """Depth differences held while a snapshot is awaited; beyond it the oldest go and a new snapshot is asked for."""
    symbols: tuple[str, ...] = ()
    """Full symbol names to follow; empty: every symbol the source names, up to ``symbols_max``."""
    symbols_max: int = 500
    volatility_rule: Literal["max", "min", "blend"] = "max"
    """What is made of two forecasts of volatility where one number is wanted."""
    delta_convention: Literal["forward", "premium_adjusted"] = "forward"
    """Whose 25 a 25-delta option has; premium-adjusted: of options whose premium is paid in the coin."""
    instruments: tuple["InstrumentSettings", ...] = ()
    plugins: tuple[str, ...] = ()
    """Files of alphas and policies that are not built in, by name and digest: a replay needs the same."""
    router: RouterSettings = RouterSettings()
    execution: ExecutionSettings = ExecutionSettings()


class InstrumentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the user states about an instrument; everything left out is inferred from the wire."""

    symbol: str
    tick: str | None = None
    lot: str | None = None
    min_notional: float | None = None
    contract_value: float | None = None
    maker_fee_bps: float | None = None
    """Fee of a fill that rested in the book, in basis points of its value; negative for a rebate."""
    taker_fee_bps: float | None = None
    vpin_bucket: float | None = None
    """Size of a VPIN bucket in base units; left out: a fiftieth of the volume of 24 hours, once those have passed."""

    def __post_init__(self) -> None:
        for step in (self.tick, self.lot):
            if step is not None:
                Step.parse(step)  # Raises for one that is none, where the user can still be told.
        for name, value in (("contract_value", self.contract_value), ("vpin_bucket", self.vpin_bucket)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"expected a {name} above zero, found {value}")
        for name, fee in (("maker_fee_bps", self.maker_fee_bps), ("taker_fee_bps", self.taker_fee_bps)):
            if fee is not None and not abs(fee) <= FEE_BPS_MAX:
                raise ValueError(f"expected a {name} within {FEE_BPS_MAX} basis points, found {fee}")


AnyInput = (
    Configure
    | SessionStart
    | Frame
    | Heartbeat
    | Shed
    | Conflated
    | Halt
    | Result
    | History
    | Chain
    | OutsideFill
    | Choose
    | Reward
    | Disable
)
