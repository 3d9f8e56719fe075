"""What alphas and policies import, built-in ones and those of third parties: everything here, and nothing else of the package."""

from alphapack.domain.trading import Quote, Target
from alphapack.models.alpha import Alpha, AlphaContext, alpha, alphas_of, clip
from alphapack.models.policy import Policy, policies_of, policy

__all__ = ["Alpha", "AlphaContext", "Policy", "Quote", "Target", "alpha", "alphas_of", "clip", "policies_of", "policy"]
