"""The alphas and policies that an engine asks: those built in, and those of plugins."""

from collections.abc import Sequence
from typing import NamedTuple

from alphapack.models.alpha import Alpha
from alphapack.models.features import nearest
from alphapack.models.policy import Policy


class Registry(NamedTuple):
    """What there is to ask, in a fixed order."""

    alphas: tuple[Alpha, ...]
    policies: tuple[Policy, ...]
    plugins: tuple[str, ...] = ()
    """Names and digests of the files that are not built in."""

    def listening(self, policy: Policy) -> list[int]:
        """Return the places of the alphas that a policy listens to."""
        return [place for place, alpha in enumerate(self.alphas) if alpha.group == policy.listens]

    def without(self, names: Sequence[str]) -> "Registry":
        """Return the same without some alphas and policies. Raises ``ValueError`` for a name that is none."""
        known = [*(alpha.id for alpha in self.alphas), *(policy.name for policy in self.policies)]
        for name in names:
            if name not in known:
                near = nearest(name, known)
                raise ValueError(f"expected an alpha or a policy, found {name!r}" + (f"; the nearest is {near!r}" if near else ""))
        if all(policy.name in names for policy in self.policies):
            raise ValueError("expected at least one policy to be left, found none: without them set execution.trade = false")
        return Registry(
            tuple(alpha for alpha in self.alphas if alpha.id not in names),
            tuple(policy for policy in self.policies if policy.name not in names),
            self.plugins,
        )
