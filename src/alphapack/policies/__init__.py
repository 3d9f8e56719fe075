"""The built-in policies, each in a file of its own."""

from alphapack.plugin import Policy, policies_of
from alphapack.policies import breakout, mean_reversion, momentum, smile_tilt, spread_capture

POLICIES: tuple[Policy, ...] = tuple(
    one for module in (momentum, mean_reversion, spread_capture, breakout, smile_tilt) for one in policies_of(module)
)
