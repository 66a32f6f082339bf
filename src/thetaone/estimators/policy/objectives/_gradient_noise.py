"""How well a policy gradient is known, and how many groups would be enough."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from thetaone.errors import EstimatorError


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNoise:
    """A policy gradient with its doubt.

    Attributes:
        norm: ‖ĝ‖ of the mean over groups.
        stderr: Root of the summed variances of that mean's entries: ‖ĝ − g‖ that is usual.
        squared_norm: ‖ĝ‖² − stderr², unbiased for ‖g‖²; ≤ 0 where noise is all there is.
        noise_scale: tr Σ/‖g‖², groups at which noise and signal are equal; inf where no signal is
            seen [groups].
        n_groups: Independent groups [count].

    Examples:
        >>> from thetaone.estimators.policy import gradient_noise
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> noise = gradient_noise(torch.stack([w.sum(), w.sum() + w[0]]), [w])
        >>> noise.n_groups
        2
    """

    norm: float
    stderr: float
    squared_norm: float
    noise_scale: float
    n_groups: int

    def __str__(self) -> str:
        return (
            f"‖ĝ‖ = {self.norm:.3g} ± {self.stderr:.2g} from {self.n_groups} groups, "
            f"noise scale {self.noise_scale:.3g} groups"
        )


def gradient_noise(per_group: Tensor, parameters: Iterable[Tensor]) -> GradientNoise:
    """Standard error and noise scale of a policy gradient, from each group's own gradient.

    Groups are independent, completions of one group are not (they share a baseline): the group is
    the unit. One backward pass a group; memory of two copies of the parameters.

    Args:
        per_group: Losses of the groups whose mean is descended on, on the graph, ``[groups]``.
        parameters: What to differentiate by.

    Raises:
        EstimatorError: Fewer than two groups.

    Source: McCandlish et al. 2018, arXiv 1812.06162, appendix A.1.

    Examples:
        >>> theta = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> print(gradient_noise(torch.stack([theta[0], theta[0] + 0.1 * theta[1]]), [theta]))
        ‖ĝ‖ = 1 ± 0.05 from 2 groups, noise scale 0.005 groups
    """
    tensors = [tensor for tensor in parameters if tensor.requires_grad]
    count = per_group.numel()
    if per_group.dim() != 1 or count < 2:
        raise EstimatorError(
            f"per_group has shape {tuple(per_group.shape)}: need the losses of at least 2 groups"
        )
    total = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in tensors]
    squares = 0.0
    for loss in per_group:
        parts = torch.autograd.grad(
            loss, tensors, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for whole, part in zip(total, parts, strict=True):
            whole += part
        squares += sum(float((part.double() ** 2).sum()) for part in parts)
    norm_squared = sum(float((whole**2).sum()) for whole in total) / count**2
    trace = max(0.0, (squares - count * norm_squared) / (count - 1))
    signal = norm_squared - trace / count
    return GradientNoise(
        norm=norm_squared**0.5,
        stderr=(trace / count) ** 0.5,
        squared_norm=signal,
        noise_scale=trace / signal if signal > 0 else float("inf"),
        n_groups=count,
    )
