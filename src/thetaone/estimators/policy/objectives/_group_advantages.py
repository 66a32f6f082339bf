"""Advantages inside groups of completions of one prompt."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators.methods import leave_one_out
from thetaone.estimators.policy.objectives._objective import (
    AdvantageKind,
    Objective,
    ObjectiveSettings,
    objective_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAdvantages:
    """Advantages with the objective that they ascend.

    Attributes:
        values: Advantages, ``[groups, G]``, without a graph.
        kind: How they were made.
        objective: What Σ A ∇log π ascends.
        degenerate: Groups whose rewards are all alike, ``[groups]``, bool: they teach nothing.
        epsilon: What was added to a standard deviation.

    Examples:
        >>> from thetaone.estimators.policy import group_advantages
        >>> advantages = group_advantages(torch.tensor([[1.0, 0.0, 0.0]]))
        >>> advantages.kind, advantages.values.tolist()
        ('leave-one-out', [[1.0, -0.5, -0.5]])
    """

    values: Tensor
    kind: AdvantageKind
    objective: Objective
    degenerate: Tensor
    epsilon: float = 0.0

    @property
    def warning(self) -> str:
        """Which groups teach nothing; empty when all teach."""
        count = int(self.degenerate.sum())
        if not count or self.kind == "none":
            return ""
        first = int(self.degenerate.nonzero()[0, 0])
        return (
            f"{count} of {len(self.degenerate)} groups have equal rewards, first group {first}: "
            "their advantages are 0 and they teach nothing; drop them before they are paid for, or "
            "take prompts of other difficulty"
        )


def group_advantages(
    rewards: Tensor, kind: AdvantageKind = "leave-one-out", *, epsilon: float = 1e-4
) -> GroupAdvantages:
    """Advantages of each completion against the others of its group.

    - ``leave-one-out``: R_i − mean of the others. Ascends E[R] exactly.
    - ``mean``: R_i − mean of all, own included: (G−1)/G of that.
    - ``group-std``: the same over (standard deviation of the group + ε), GRPO's: 2·arcsin√p for
      0/1 rewards and many completions, C_G(p) at G.
    - ``batch-std``: over the standard deviation of the whole batch.
    - ``none``: R_i. Exact, and as noisy as can be.

    Args:
        rewards: ``[groups, G]``.
        kind: One of the above.
        epsilon: ε of the standard deviations.

    Raises:
        EstimatorError: Rewards that are not ``[groups, G]`` and finite, or groups of one where a
            group is needed.

    Examples:
        >>> advantages = group_advantages(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
        >>> advantages.values[0]
        tensor([ 1.0000, -0.5000, -0.5000])
        >>> advantages.degenerate
        tensor([False,  True])
    """
    _check_rewards(rewards, kind)
    rewards = rewards.detach()
    group_size = rewards.shape[1]
    used = epsilon if kind in ("group-std", "batch-std") else 0.0
    settings = ObjectiveSettings(advantage=kind, group_size=group_size, epsilon=used)
    centred = rewards - rewards.mean(1, keepdim=True)
    if kind == "none":
        values = rewards
    elif kind == "leave-one-out":
        values = rewards - leave_one_out(rewards, dim=1)
    elif kind == "mean":
        values = centred
    else:
        spread = rewards.std(1, keepdim=True) if kind == "group-std" else rewards.std()
        values = torch.where(spread > 0, centred / (spread + epsilon), torch.zeros_like(centred))
    return GroupAdvantages(
        values=values,
        kind=kind,
        objective=objective_of(settings),
        degenerate=(rewards == rewards[:, :1]).all(1),
        epsilon=used,
    )


def _check_rewards(rewards: Tensor, kind: str) -> None:
    if rewards.dim() != 2:
        raise EstimatorError(
            f"rewards have shape {tuple(rewards.shape)}; expected [groups, completions a group]: "
            "use rewards.view(-1, G)"
        )
    if not bool(torch.isfinite(rewards).all()):
        raise EstimatorError("rewards hold NaN or infinite values: drop those completions first")
    if kind != "none" and rewards.shape[1] < 2:
        raise EstimatorError(
            f"groups of {rewards.shape[1]}: kind={kind!r} compares a completion with the others of "
            "its group. Sample at least 2 a prompt, or pass kind='none'"
        )
    if rewards.numel() == 0:
        raise InputError("rewards are empty")
