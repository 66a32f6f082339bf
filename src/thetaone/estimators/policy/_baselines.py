"""The per-time baseline: what the other episodes still had to come at the same time."""

import torch
from torch import Tensor

from thetaone.errors import EstimatorError
from thetaone.estimators.methods import leave_one_out


def per_time_leave_one_out(returns_tk: Tensor, alive_tk: Tensor | None = None) -> Tensor:
    """b_{t,k} = mean of G_{t,j} over the *other* episodes j.

    It never sees episode k, so E[b_{t,k} ∇ log π(a_{t,k} | s_{t,k})] = 0 and the gradient stays
    unbiased. The mean over all episodes, own included, would scale it by 1 − 1/K. With ``alive``
    the mean is over those that have not ended at t (0 when none is left), which stays independent
    of episode k and is nearer to what an episode that is still alive can expect.

    Args:
        returns_tk: Rewards to go of K ≥ 2 independent episodes.
        alive_tk: Whether step t belongs to episode k; ``None`` counts ended episodes as 0.

    Returns:
        ``[t, k]``, without a graph.

    Raises:
        EstimatorError: Fewer than two episodes, or a shape that would broadcast.

    Examples:
        >>> import torch
        >>> returns = torch.tensor([[3.0, 6.0, 9.0], [0.0, 2.0, 4.0]])
        >>> per_time_leave_one_out(returns, torch.tensor([[True] * 3, [False, True, True]]))
        tensor([[7.5000, 6.0000, 4.5000],
                [3.0000, 4.0000, 2.0000]])
    """
    shape = tuple(returns_tk.shape)
    if len(shape) != 2 or (alive_tk is not None and tuple(alive_tk.shape) != shape):
        other = "" if alive_tk is None else f" and alive {tuple(alive_tk.shape)}"
        raise EstimatorError(f"returns {shape}{other}: expected [time, episode] of both")
    count = shape[1]
    if count < 2:
        raise EstimatorError(
            f"{count} episode has no other to take a baseline from: run at least 2 side by side"
        )
    if alive_tk is None:
        return leave_one_out(returns_tk, dim=1)
    # (Σ − G) / (n − 1) over the living: sums instead of means, for n differs from row to row
    alive = alive_tk.to(returns_tk.dtype)
    returns = torch.where(alive_tk.bool(), returns_tk.detach(), torch.zeros_like(returns_tk))
    others = alive.sum(1, keepdim=True) - alive
    return (returns.sum(1, keepdim=True) - returns) / others.clamp(min=1.0)
