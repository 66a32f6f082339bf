"""Reward-to-go, with truncated told apart from terminated."""

import torch
from torch import Tensor

from thetaone.errors import EstimatorError
from thetaone.estimators.policy._episodes import Episodes


def rewards_to_go(
    episodes: Episodes, *, discount: float = 1.0, after_truncation: Tensor | float | None = None
) -> Tensor:
    """G_t = Σ_{u ≥ t} γ^{u−t} r_u, continued behind a truncation by the value given for it.

    An action cannot change rewards that came before it, so G_t in place of the whole return leaves
    the gradient unbiased and takes variance away.

    A *terminated* episode earns nothing more: its G_t is complete. A *truncated* one would have
    earned more, and there are two honest ways to say so:

    - ``after_truncation=0.0``: the time limit belongs to the objective, J_H = E Σ_{t<H} γ^t r_t.
      The gradient of J_H is then estimated without bias (if the limit H does not depend on what
      the policy did). As an estimate of the gradient of the unlimited J it is biased.
    - ``after_truncation=V(s_H)``: the rewards behind the cut are replaced by a value. With V the
      policy's true value, every E[G_t | s_t, a_t] is the true action value; what is estimated
      without bias is the gradient with respect to the first H decisions, ∇J − γ^H E[∇V(s_H)].
      With another V, γ^{H−t}(V − V^π) is added to each G_t.

    Leaving truncated episodes out is a third way, and a wrong one: it selects by outcome (on
    CartPole it would drop precisely the successes).

    Args:
        episodes: Episodes, K of them.
        discount: γ in (0, 1].
        after_truncation: Value of what follows the cut, one number or ``[k]`` (of
            ``episodes.last_observations``); used for truncated episodes only.

    Returns:
        ``[t, k]``, zero behind an episode's end.

    Raises:
        EstimatorError: An episode was truncated and nothing says what follows, or in a shape that
            would broadcast.

    Source: Pardo et al. 2018, arXiv 1712.00378, §2.1 and §2.2.

    Examples:
        >>> two = Episodes(
        ...     observations=torch.zeros(3, 2, 1), actions=torch.zeros(3, 2),
        ...     rewards=torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]]),
        ...     alive=torch.tensor([[True, True], [True, True], [False, True]]),
        ...     truncated=torch.tensor([False, True]), last_observations=torch.zeros(2, 1))
        >>> rewards_to_go(two, discount=0.5, after_truncation=8.0)
        tensor([[1.5000, 2.7500],
                [1.0000, 3.5000],
                [0.0000, 5.0000]])
    """
    returns = rewards_with_tail(episodes, discount=discount, after_truncation=after_truncation)
    if discount == 1.0:
        return returns.flip(0).cumsum(0).flip(0) * episodes.alive
    for t in range(len(returns) - 2, -1, -1):
        returns[t] += discount * returns[t + 1]
    return returns


def rewards_with_tail(
    episodes: Episodes, *, discount: float = 1.0, after_truncation: Tensor | float | None = None
) -> Tensor:
    """Rewards, that of a truncated episode's last step with what follows the cut, ``[t, k]``.

    Raises:
        EstimatorError: As ``rewards_to_go``.
    """
    rewards = episodes.rewards.clone()
    n_truncated = int(episodes.truncated.sum())
    if not n_truncated:
        return rewards
    if after_truncation is None:
        raise EstimatorError(
            f"{n_truncated} of {rewards.shape[1]} episodes were truncated: what they would "
            "have earned is unknown. Pass after_truncation=0.0 if the time limit belongs to "
            "the objective, or the value of episodes.last_observations"
        )
    tail = torch.as_tensor(after_truncation, dtype=rewards.dtype, device=rewards.device).detach()
    if tail.shape not in ((), rewards.shape[1:]):
        raise EstimatorError(
            f"after_truncation has shape {tuple(tail.shape)}; expected one number or one an "
            f"episode, {tuple(rewards.shape[1:])}: it would broadcast. Use .squeeze(-1) on the "
            "column of a value network"
        )
    if not bool(torch.isfinite(tail).all()):
        raise EstimatorError("after_truncation holds NaN or infinite values")
    last = (episodes.lengths - 1)[None]
    return rewards.scatter_add(0, last, torch.where(episodes.truncated, discount * tail, 0.0)[None])
