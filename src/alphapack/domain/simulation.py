"""What a simulated market is asked to be."""

import math
import re

import msgspec

SEED_MAX = 2**63 - 1
SYMBOLS_MAX = 100
EDGE_MAX = 10.0
ACTIVITY_MIN, ACTIVITY_MAX = 0.05, 20.0
DEPTH_MS_MIN, DEPTH_MS_MAX, DEPTH_MS_STEP = 50, 1_000, 50
_NAME = re.compile(r"[A-Z0-9]{2,20}(_PERP)?")


class SimulationRefused(ValueError):
    """A market that cannot be simulated as it was asked for."""


class SimulatorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the simulated market.

    Attributes
    ----------
    seed : int
        Names the market, 0 to 2**63 - 1: equal settings and times give equal bytes.
    symbols : tuple[str, ...]
        1 to 100 different names of 2 to 20 capital letters and digits. Names that the simulator does not know are given price,
        tick, lot and volatility by their letters. Those of COIN-M end in ``_PERP``.
    edge : float
        Strength of the planted edge, 0 to 10. At 0 order flow says nothing about later prices.
    activity : float
        Scales the rates of orders, .05 to 20.
    depth_ms : int
        Interval of depth updates in milliseconds, a multiple of 50 from 50 to 1,000.

    Raises
    ------
    ValueError
        Where a value is out of its range.
    """

    seed: int = 7
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    edge: float = 1.0
    activity: float = 1.0
    depth_ms: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= SEED_MAX:
            raise ValueError(f"expected a seed from 0 to 2**63 - 1, found {self.seed}")
        if not 1 <= len(self.symbols) <= SYMBOLS_MAX:
            raise ValueError(f"expected 1 to {SYMBOLS_MAX} symbols, found {len(self.symbols)}")
        for name in self.symbols:
            if not _NAME.fullmatch(name):
                raise ValueError(f"expected a symbol of 2 to 20 capital letters and digits, such as BTCUSDT, found {name[:60]!r}")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"expected each symbol once, found {', '.join(self.symbols)}")
        if not (math.isfinite(self.edge) and 0.0 <= self.edge <= EDGE_MAX):
            raise ValueError(f"expected an edge from 0 to {EDGE_MAX:g}, found {self.edge}")
        if not (math.isfinite(self.activity) and ACTIVITY_MIN <= self.activity <= ACTIVITY_MAX):
            raise ValueError(f"expected an activity from {ACTIVITY_MIN:g} to {ACTIVITY_MAX:g}, found {self.activity}")
        if not DEPTH_MS_MIN <= self.depth_ms <= DEPTH_MS_MAX or self.depth_ms % DEPTH_MS_STEP:
            raise ValueError(
                f"expected depth_ms to be a multiple of {DEPTH_MS_STEP} from {DEPTH_MS_MIN} to {DEPTH_MS_MAX}, found {self.depth_ms}"
            )
