"""Advantages from a value network, with truncated told apart from terminated."""

import torch
from torch import Tensor

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators.policy._episodes import Episodes


def generalized_advantages(
    episodes: Episodes,
    values: Tensor,
    last_values: Tensor | float,
    *,
    discount: float = 1.0,
    trace: float = 1.0,
) -> Tensor:
    """A_t = Σ_l (γλ)^l δ_{t+l},  δ_t = r_t + γ V(s_{t+1}) − V(s_t).

    Behind a *terminated* end V is 0; behind a *truncated* one it is ``last_values`` (0.0 where the
    time limit belongs to the objective), never the value of a step that was not taken.

    λ = 1 gives G_t − V(s_t): V is a baseline that does not see the action, so that any V leaves the
    gradient unbiased. λ < 1 trades noise for the error of V: unbiased only for the policy's true V.

    Args:
        episodes: Episodes, K of them.
        values: V of each observation, ``[t, k]``; whatever lies behind an end is not used.
        last_values: V of ``episodes.last_observations``, ``[k]`` or one number; used for truncated
            episodes only.
        discount: γ in (0, 1].
        trace: λ in [0, 1].

    Returns:
        ``[t, k]``, without a graph, 0 behind an episode's end.

    Raises:
        InputError: γ or λ out of range.
        EstimatorError: Values in a shape that would broadcast.

    Source: Schulman et al. 2016, arXiv 1506.02438, eq. 16; Pardo et al. 2018, arXiv 1712.00378.

    Examples:
        >>> one = Episodes(
        ...     observations=torch.zeros(2, 1, 1), actions=torch.zeros(2, 1),
        ...     rewards=torch.ones(2, 1), alive=torch.ones(2, 1, dtype=torch.bool),
        ...     truncated=torch.tensor([True]), last_observations=torch.zeros(1, 1))
        >>> generalized_advantages(one, torch.full((2, 1), 0.5), 4.0, discount=0.5).flatten()
        tensor([2.0000, 2.5000])
    """
    if not 0 < discount <= 1 or not 0 <= trace <= 1:
        raise InputError(f"discount={discount}, trace={trace}: must lie in (0, 1] and in [0, 1]")
    alive, rewards = episodes.alive, episodes.rewards
    tail = torch.as_tensor(last_values, dtype=rewards.dtype, device=rewards.device).detach()
    if values.shape != rewards.shape or tail.shape not in ((), rewards.shape[1:]):
        raise EstimatorError(
            f"values {tuple(values.shape)}, last_values {tuple(tail.shape)}; expected "
            f"{tuple(rewards.shape)} and ({rewards.shape[1]},): use .squeeze(-1) on the column of "
            "a value network"
        )
    v = torch.where(alive, values.detach().to(rewards.dtype), torch.zeros_like(rewards))
    after = torch.zeros_like(rewards)
    after[:-1] = v[1:]
    last = (episodes.lengths - 1)[None]
    behind = torch.where(episodes.truncated, tail, torch.zeros_like(tail)).expand(rewards.shape[1])
    after = after.scatter(0, last, behind[None])
    delta = torch.where(alive, rewards + discount * after - v, torch.zeros_like(rewards))
    for t in range(len(delta) - 2, -1, -1):
        delta[t] += discount * trace * delta[t + 1]
    return delta
