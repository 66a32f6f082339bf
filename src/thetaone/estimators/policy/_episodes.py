"""Whole episodes side by side: what a policy gradient is made of.

Shapes: t time, k episode; time comes first, and rewards behind an episode's end are zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from thetaone.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """K independent episodes from their first step, padded to the longest.

    An episode ends in one of two ways. *Terminated*: the task ended, nothing more can be earned.
    *Truncated*: somebody stopped looking (a time limit), and what would have come is unknown.

    Attributes:
        observations: What the policy saw before each action, ``[t, k, *observation]``.
        actions: What it did, ``[t, k, *action]``.
        rewards: What that earned, ``[t, k]``; whatever lies behind the end is set to 0.
        alive: Whether step t belongs to episode k, ``[t, k]``, bool.
        truncated: Whether episode k was cut off rather than ended, ``[k]``, bool.
        last_observations: What was seen after the last step, ``[k, *observation]``.
        n_simulated: Environment steps that were paid for, those of environments that had finished
            and waited for the longest included [count].
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    alive: Tensor
    truncated: Tensor
    last_observations: Tensor
    n_simulated: int = 0

    def __post_init__(self) -> None:
        shape = self.rewards.shape
        if len(shape) != 2 or self.alive.shape != shape or self.truncated.shape != shape[1:]:
            raise InputError(
                f"rewards {tuple(shape)}, alive {tuple(self.alive.shape)}, truncated "
                f"{tuple(self.truncated.shape)}: expected [time, episode] twice, then [episode]"
            )
        if self.alive.dtype is not torch.bool or self.truncated.dtype is not torch.bool:
            raise InputError(
                f"alive is {self.alive.dtype}, truncated {self.truncated.dtype}: both must be "
                "torch.bool"
            )
        if not bool(self.alive[0].all()) or bool((self.alive[1:] & ~self.alive[:-1]).any()):
            raise InputError(
                "alive is not a run from step 0 in every column: an episode has a first step and "
                "cannot come back"
            )
        for name, tensor in (("observations", self.observations), ("actions", self.actions)):
            if tensor.shape[:2] != shape:
                raise InputError(
                    f"{name} has shape {tuple(tensor.shape)}; expected "
                    f"[time, episode, …] = {(*shape, '…')}"
                )
        if self.last_observations.shape[:1] != shape[1:]:
            raise InputError(
                f"last_observations has shape {tuple(self.last_observations.shape)}; expected one "
                f"row an episode, {shape[1]} of them"
            )
        # what a buffer holds behind an end belongs to another episode
        inside = torch.where(self.alive, self.rewards, torch.zeros_like(self.rewards))
        if not bool(torch.isfinite(inside).all()):
            step, episode = (~torch.isfinite(inside)).nonzero()[0].tolist()
            raise InputError(
                f"the reward of step {step} of episode {episode} is "
                f"{float(inside[step, episode])}: it would spoil the gradient of all. Drop that "
                "episode, or end it before that step (alive)"
            )
        object.__setattr__(self, "rewards", inside)

    @property
    def lengths(self) -> Tensor:
        """Steps of each episode [count], ``[k]``."""
        return self.alive.sum(0)

    @property
    def n_steps(self) -> int:
        """Steps of all episodes together [count]."""
        return int(self.alive.sum())

    def returns(self, discount: float = 1.0) -> Tensor:
        """Σ_t γ^t r_t of what was seen of each episode, ``[k]``."""
        return (discount_weights(self.rewards, discount) * self.rewards).sum(0)


def discount_weights(rewards_tk: Tensor, discount: float) -> Tensor:
    """γ^t as a column, ``[t, 1]``, in the dtype of the rewards.

    Raises:
        InputError: The discount does not lie in (0, 1].

    Examples:
        >>> discount_weights(torch.zeros(3, 1), 0.5).flatten()
        tensor([1.0000, 0.5000, 0.2500])
    """
    if not 0 < discount <= 1:
        raise InputError(f"discount={discount}: must lie in (0, 1]; 1 counts all rewards alike")
    times = torch.arange(len(rewards_tk), dtype=rewards_tk.dtype, device=rewards_tk.device)
    return (discount**times)[:, None]
