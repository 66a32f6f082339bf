"""The clipped ratio objective: several updates from one batch of episodes."""

from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators.policy._loss import entropies_of, log_probs_of
from thetaone.estimators.policy.objectives import Objective

OBJECTIVE = Objective(
    name="clipped ratio objective",
    formula="E_old[min(w·A, clip(w, 1−ε, 1+ε)·A)], w = π/π_old",
    exact=False,
    caveats=(
        "its gradient at π = π_old is Σ_t A_t ∇log π over the steps of the batch: that of the "
        "return but for γ^t, which is left out, and for what the advantages do not know",
        "further from π_old it is an approximation that the clipping keeps near",
    ),
)


def clipped_ratio_loss(
    distribution: Distribution,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    *,
    clip: float = 0.2,
    entropy_weight: float = 0.0,
) -> Tensor:
    """−mean min(w A, clip(w) A) − β mean H over steps; ``OBJECTIVE`` says what it ascends.

    Args:
        distribution: π at the steps, batch shape ``[n]``.
        actions: What was done, ``[n, *action]``.
        old_log_probs: log π_old of that, ``[n]``.
        advantages: ``[n]``.
        clip: ε > 0.
        entropy_weight: β ≥ 0.

    Raises:
        EstimatorError: A shape that would broadcast, or log π that is not finite.

    Source: Schulman et al. 2017, arXiv 1707.06347, eq. 7.

    Examples:
        >>> import torch
        >>> from torch.distributions import Categorical
        >>> pi, actions = Categorical(logits=torch.zeros(2, 2)), torch.tensor([0, 1])
        >>> advantages = torch.tensor([1.0, 0.5])
        >>> clipped_ratio_loss(pi, actions, pi.log_prob(actions), advantages).item()
        -0.75
    """
    n = len(actions)
    for name, tensor in (("old_log_probs", old_log_probs), ("advantages", advantages)):
        if tensor.shape != (n,):
            raise EstimatorError(f"{name} has shape {tuple(tensor.shape)}; expected ({n},)")
    ratio = (log_probs_of(distribution, actions) - old_log_probs.detach()).exp()
    gain = (ratio * advantages).minimum(ratio.clamp(1 - clip, 1 + clip) * advantages).mean()
    if entropy_weight:
        gain = gain + entropy_weight * entropies_of(distribution, n).mean()
    return -gain
