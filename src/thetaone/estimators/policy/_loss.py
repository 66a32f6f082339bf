"""The surrogate whose gradient is the policy gradient, and whose value is the return."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators._first_order_only import once_only
from thetaone.estimators.distributions import describe, magic_box, trainable
from thetaone.estimators.policy._baselines import per_time_leave_one_out
from thetaone.estimators.policy._episodes import Episodes, discount_weights
from thetaone.estimators.policy._returns import rewards_to_go, rewards_with_tail

Policy = Callable[[Tensor], Distribution]


def policy_gradient_loss(
    policy: Policy,
    episodes: Episodes,
    *,
    discount: float = 1.0,
    after_truncation: Tensor | float | None = None,
    entropy_weight: float = 0.0,
    baselines: Tensor | None = None,
) -> Tensor:
    """A scalar with value −mean return and gradient −ĝ.

    ĝ = (1/K) Σ_k Σ_t γ^t (G_{t,k} − b_{t,k}) ∇θ log πθ(a_{t,k} | s_{t,k})

    with reward-to-go G and the per-time leave-one-out baseline b. Unbiased for the gradient of
    E Σ_t γ^t r_t (for truncated episodes: of what ``rewards_to_go`` says). The factor γ^t belongs
    there: left out, as is often done, ĝ is no longer the gradient of any objective.

    ``entropy_weight`` β adds β (1/K) Σ_k Σ_t γ^t ∇ H(π(· | s_{t,k})): the policy is drawn toward
    randomness in the states it met. This term is biased *on purpose*: with β > 0 the loss no longer
    follows the return alone. Only its gradient is added; the value stays −mean return, so that
    losses can be compared. Without it the loss may be differentiated again (DiCE): its k-th
    derivative is unbiased for that of E Σ_t γ^t r_t; with it the second is refused.

    Args:
        policy: Observations ``[n, *observation]`` to a distribution with batch shape ``[n]``.
        episodes: Two or more, acted out by this policy.
        discount: γ in (0, 1].
        after_truncation: What follows a truncation; see ``rewards_to_go``.
        entropy_weight: β ≥ 0.
        baselines: b ``[t, k]``, of a value network for example: anything that does not see the
            action leaves the gradient unbiased. ``None`` for the per-time leave-one-out mean.

    Returns:
        The loss; descend on it.

    Raises:
        EstimatorError: Fewer than two episodes, a truncation that nothing explains, or a policy
            whose log_prob or entropy is not one finite number a step.

    Source: Williams 1992; Sutton et al. 1999, theorem 1; Kool et al. 2019; Thomas 2014 (γ^t);
    Foerster et al. 2018, arXiv 1802.05098 (DiCE).
    """
    rewards = rewards_with_tail(episodes, discount=discount, after_truncation=after_truncation)
    returns = rewards_to_go(episodes, discount=discount, after_truncation=after_truncation)
    weights = discount_weights(returns, discount).expand_as(returns)
    if baselines is None:
        baselines = per_time_leave_one_out(returns, episodes.alive)
    elif baselines.shape != returns.shape:
        raise EstimatorError(
            f"baselines have shape {tuple(baselines.shape)}; expected {tuple(returns.shape)}"
        )
    baselines = torch.where(episodes.alive, baselines.detach(), torch.zeros_like(returns))
    alive, count = episodes.alive, returns.shape[1]
    distribution = policy(episodes.observations[alive])  # padding never meets the policy
    log_probs = log_probs_of(distribution, episodes.actions[alive])
    steps = log_probs - log_probs.detach()  # 0 in value, the score in its gradient
    ratios = torch.zeros_like(returns, dtype=steps.dtype).masked_scatter(alive, steps)
    # exp(0) = 1 in value; a reward depends on every action up to its own (DiCE)
    gain = weights * (rewards * magic_box(ratios.cumsum(0)) - baselines * magic_box(ratios))
    surrogate = gain.sum() / count
    if entropy_weight:
        bonus = weights[alive] * entropies_of(distribution, len(steps))
        surrogate = once_only(
            surrogate + entropy_weight * bonus.sum() / count,
            trainable(distribution),
            "policy_gradient_loss with entropy_weight (states are held fixed in that term)",
        )
    return -(episodes.returns(discount).mean() + (surrogate - surrogate.detach()))


def log_probs_of(distribution: Distribution, actions: Tensor) -> Tensor:
    """Log π(a | s), one finite number a step, ``[n]``.

    Raises:
        EstimatorError: Not one number a step, or NaN or infinite ones.
    """
    if not isinstance(distribution, Distribution):
        raise EstimatorError(
            f"the policy returned a {type(distribution).__name__}; expected a torch.distributions "
            "object, such as Categorical(logits=net(observations))"
        )
    log_probs = distribution.log_prob(actions)
    _refuse_shape(log_probs, len(actions), "log_prob", distribution)
    if not bool(torch.isfinite(log_probs.detach()).all()):
        raise EstimatorError(
            f"log π of {int((~torch.isfinite(log_probs)).sum())} of {len(actions)} actions is NaN "
            "or infinite: the policy could not have taken them, or they were rounded to the edge "
            "of its support. Keep squashed actions off their limits, or use float64"
        )
    return log_probs


def entropies_of(distribution: Distribution, n_steps: int) -> Tensor:
    """H(π(· | s)), one number a step, ``[n]``.

    Raises:
        EstimatorError: torch does not know it, or another shape.
    """
    try:
        entropies = distribution.entropy()
    except NotImplementedError as error:
        raise EstimatorError(
            f"torch knows no entropy of {describe(distribution)}: pass entropy_weight=0, or a "
            "policy whose entropy is known"
        ) from error
    _refuse_shape(entropies, n_steps, "entropy", distribution)
    return entropies


def _refuse_shape(values: Tensor, n_steps: int, what: str, distribution: Distribution) -> None:
    if values.shape == (n_steps,):
        return
    raise EstimatorError(
        f"{what} of the policy's {describe(distribution)} has shape {tuple(values.shape)} for "
        f"{n_steps} steps; expected ({n_steps},), or advantages would broadcast against it. Wrap "
        "the action's own dimensions: Independent(Normal(...), 1)"
    )
