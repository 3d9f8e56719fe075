"""alphapack: a deterministic engine of microstructure and volatility signals for order-book markets."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alphapack.facade import (
        Bandit,
        almgren_chriss,
        backtest,
        chain,
        expected_shortfall,
        forecast_vol,
        garch,
        har,
        impact_cost,
        implied_vol,
        max_drawdown,
        off_policy,
        replay,
        shapley,
        smile,
    )

    __version__: str

__all__ = [
    "Bandit",
    "__version__",
    "almgren_chriss",
    "backtest",
    "chain",
    "expected_shortfall",
    "forecast_vol",
    "garch",
    "har",
    "impact_cost",
    "implied_vol",
    "max_drawdown",
    "off_policy",
    "replay",
    "shapley",
    "smile",
]

_HOMES = dict.fromkeys((name for name in __all__ if name != "__version__"), "alphapack.facade")

# Importing is light: a name loads its module, and with it the kernels, when it is first asked for. Hidden from type
# checkers, which would otherwise take every misspelt name for a public one.
if not TYPE_CHECKING:

    def __getattr__(name):
        """Load a public name on first use."""
        if name == "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                value = version("alphapack")
            except PackageNotFoundError:  # Run from a source tree that was never installed.
                value = "0+source"
        elif name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module 'alphapack' has no attribute {name!r}; public names: {', '.join(__all__)}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__})
