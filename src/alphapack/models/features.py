"""The features of a decision's context: what each is called, what it may be, and how it is made comparable.

A *signed* feature changes its sign when buyers and sellers change places; its zero means something, so that standardising only scales it.
The centre and the scale of each are what is believed before any was seen: typical of a liquid perpetual.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Literal

import msgspec

Family = Literal["microstructure", "volatility", "smile"]


class Feature(msgspec.Struct, frozen=True):
    """One feature of the context."""

    name: str
    family: Family
    signed: bool
    centre: float
    """Believed median; 0 where it is signed."""
    scale: float
    """Believed standard deviation, above 0; what is measured is never taken to be below a thousandth of it."""
    low: float = -math.inf
    high: float = math.inf
    routed: bool = True
    """Whether the router sees it by itself; alphas may read all."""


def _flow(name: str, scale: float, low: float = -math.inf, high: float = math.inf, routed: bool = True) -> Feature:
    return Feature(name, "microstructure", True, 0.0, scale, low, high, routed)


FEATURES: tuple[Feature, ...] = (
    _flow("obi", 0.4, -1.0, 1.0),
    _flow("obi_1", 0.5, -1.0, 1.0, routed=False),
    _flow("obi_10", 0.3, -1.0, 1.0, routed=False),
    _flow("ti", 0.6, -1.0, 1.0),
    _flow("ti_1s", 0.7, -1.0, 1.0, routed=False),
    _flow("ti_30s", 0.4, -1.0, 1.0, routed=False),
    _flow("ofi", 1.0),
    _flow("ofi_1", 5.0, routed=False),
    _flow("micro_gap_bps", 0.1, -1e4, 1e4),
    _flow("stoikov_gap_bps", 0.1, -1e4, 1e4, routed=False),
    _flow("kyle_lambda", 1.0),
    _flow("ret_20s_bps", 2.0, -1e4, 1e4, routed=False),
    _flow("ret_60s_bps", 4.0, -1e4, 1e4, routed=False),
    _flow("ret_300s_bps", 8.0, -1e4, 1e4, routed=False),
    _flow("range_place", 0.6, -1.0, 1.0, routed=False),
    Feature("spread_bps", "microstructure", False, 0.5, 0.5, 0.0, 1e4),
    Feature("micro_vol", "microstructure", False, 1e-4, 1e-4, 0.0, 10.0),
    Feature("vpin", "microstructure", False, 0.3, 0.1, 0.0, 1.0),
    Feature("cancel_rate", "microstructure", False, 0.8, 0.1, 0.0, 1.0),
    Feature("queue_rate", "microstructure", False, 100.0, 50.0, 0.0, 1e9, False),
    Feature("trade_rate", "microstructure", False, 5.0, 5.0, 0.0, 1e9, False),
    Feature("tick_bps", "microstructure", False, 0.05, 0.05, 0.0, 1e4, False),
    Feature("maker_fee_bps", "microstructure", False, 2.0, 1.0, -1e3, 1e3, False),
    Feature("taker_fee_bps", "microstructure", False, 5.0, 1.0, -1e3, 1e3, False),
    Feature("sigmaHAR", "volatility", False, 2e-3, 1e-3, 0.0, 10.0),
    Feature("sigmaGARCH", "volatility", False, 2e-3, 1e-3, 0.0, 10.0),
    Feature("vol_ratio", "volatility", False, 1.0, 0.4, 0.0, 1e6, False),
    Feature("sigma_gap", "volatility", False, 0.0, 0.2, -10.0, 10.0, False),
    Feature("rr25", "smile", True, 0.0, 0.05, -10.0, 10.0),
    Feature("skew_z", "smile", True, 0.0, 1.0, -10.0, 10.0),
    Feature("fly25", "smile", False, 0.01, 0.01, -10.0, 10.0),
    Feature("iv_term_slope", "smile", False, 0.0, 0.2, -100.0, 100.0),
    Feature("atm_iv", "smile", False, 0.5, 0.2, 0.0, 100.0, False),
    Feature("iv_gap", "smile", False, 0.0, 0.1, -100.0, 100.0, False),
)
"""micro_gap_bps, stoikov_gap_bps: microprice, and Stoikov's, less the mid. ret_*: log return of the mid over so long. range_place: where
the mid stands in the range of the last 300 s, -1 at its low to 1 at its high. vol_ratio: realised volatility of the last 300 s over its
forecast. sigma_gap: log of sigmaHAR over sigmaGARCH. iv_gap: atm_iv less the forecast volatility of the horizon, annualised."""

BY_NAME: dict[str, Feature] = {feature.name: feature for feature in FEATURES}
NAMES: tuple[str, ...] = tuple(BY_NAME)
PLACE: dict[str, int] = {name: place for place, name in enumerate(NAMES)}
SIGNED: frozenset[str] = frozenset(feature.name for feature in FEATURES if feature.signed)
FAMILIES: tuple[Family, ...] = ("microstructure", "volatility", "smile")


def nearest(name: str, known: Iterable[str] = NAMES) -> str:
    """Return the known name that is most like one that is not known; empty where none is."""
    folded = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(name.casefold(), list(folded), 1, 0.5)
    return folded[found[0]] if found else ""
