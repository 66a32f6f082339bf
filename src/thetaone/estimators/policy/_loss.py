"""The surrogate whose gradient is the policy gradient, and whose value is the return."""

from collections.abc import Callable

from torch import Tensor
from torch.distributions import Distribution

from thetaone.estimators.policy._baselines import per_time_leave_one_out
from thetaone.estimators.policy._episodes import Episodes, discount_weights
from thetaone.estimators.policy._returns import rewards_to_go

Policy = Callable[[Tensor], Distribution]


def policy_gradient_loss(
    policy: Policy,
    episodes: Episodes,
    *,
    discount: float = 1.0,
    after_truncation: Tensor | float | None = None,
    entropy_weight: float = 0.0,
) -> Tensor:
    """A scalar with value −mean return and gradient −ĝ.

    ĝ = (1/K) Σ_k Σ_t γ^t (G_{t,k} − b_{t,k}) ∇θ log πθ(a_{t,k} | s_{t,k})

    with reward-to-go G and the per-time leave-one-out baseline b. Unbiased for the gradient of
    E Σ_t γ^t r_t (for truncated episodes: of what ``rewards_to_go`` says). The factor γ^t belongs
    there: left out, as is often done, ĝ is no longer the gradient of any objective.

    ``entropy_weight`` β adds β (1/K) Σ_k Σ_t γ^t ∇ H(π(· | s_{t,k})): the policy is drawn toward
    randomness in the states it met. This term is biased *on purpose*: with β > 0 the loss no longer
    follows the return alone. Only its gradient is added; the value stays −mean return, so that
    losses can be compared.

    Args:
        policy: Observations ``[n, *observation]`` to a distribution with batch shape ``[n]``.
        episodes: Two or more, acted out by this policy.
        discount: γ in (0, 1].
        after_truncation: What follows a truncation; see ``rewards_to_go``.
        entropy_weight: β ≥ 0.

    Returns:
        The loss; descend on it.

    Raises:
        EstimatorError: Fewer than two episodes, or a truncation that nothing explains.

    Source: Williams 1992; Sutton et al. 1999, theorem 1; Kool et al. 2019; Thomas 2014 (γ^t).
    """
    returns = rewards_to_go(episodes, discount=discount, after_truncation=after_truncation)
    advantages = returns - per_time_leave_one_out(returns, episodes.alive)
    weights = discount_weights(returns, discount).expand_as(returns)
    alive, count = episodes.alive, returns.shape[1]
    distribution = policy(episodes.observations[alive])  # padding never meets the policy
    log_probs = distribution.log_prob(episodes.actions[alive])
    gain = (weights * advantages)[alive] * log_probs
    if entropy_weight:
        gain = gain + entropy_weight * weights[alive] * distribution.entropy()
    surrogate = gain.sum() / count
    return -(episodes.returns(discount).mean() + (surrogate - surrogate.detach()))
