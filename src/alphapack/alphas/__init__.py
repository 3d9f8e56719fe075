"""The built-in alphas, a family a file."""

from alphapack.alphas import flow, smile, volatility
from alphapack.plugin import Alpha, alphas_of

ALPHAS: tuple[Alpha, ...] = tuple(one for module in (flow, volatility, smile) for one in alphas_of(module))
