"""Baselines that leave the score function unbiased: none of them sees the sample it is used on."""

import torch
from torch import Tensor

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators.distributions import sum_coordinates


def leave_one_out(values: Tensor, dim: int = 0) -> Tensor:
    """b_i = mean of the other values: (Σ_j f_j − f_i) / (K − 1).

    Independent of sample i, so E[(f_i − b_i) s_i] = E[f s]. Works along any dimension, so a batch
    of K episodes gives a baseline for every time step of returns ``[K, T]``.

    Args:
        values: f of each sample, K ≥ 2 along ``dim``.
        dim: The dimension of samples.

    Returns:
        Baselines, same shape, without a graph.

    Raises:
        EstimatorError: Fewer than two samples.

    Source: Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!".

    Examples:
        >>> leave_one_out(torch.tensor([1.0, 2.0, 6.0]))
        tensor([4.0000, 3.5000, 1.5000])
    """
    count = values.shape[dim]
    if count < 2:
        raise EstimatorError(
            f"leave-one-out needs at least 2 samples, got {count}: there is no other sample "
            "to take the mean of. Pass n_samples>=2, or use ScoreFunction()"
        )
    values = values.detach()
    return (values.sum(dim, keepdim=True) - values) / (count - 1)


class MovingAverage:
    """An exponential moving average of f over *past* estimates.

    b_t = decay · b_{t−1} + (1 − decay) · mean f_{t−1}: it is read before f is evaluated and updated
    afterwards. Updated first, it would scale the gradient by ``decay``. Starts at the first mean,
    for which no baseline is used.

    Args:
        decay: Weight of the past, in [0, 1).

    Examples:
        >>> average = MovingAverage(0.5)
        >>> average.update(torch.tensor(4.0)); average.update(torch.tensor(2.0))
        >>> average.value
        tensor(3.)
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay={decay}: must lie in [0, 1); 0.9 remembers about 10 estimates")
        self.decay = decay
        self.value: Tensor | None = None

    def update(self, mean: Tensor) -> None:
        """Take in the mean of f over an estimate that is finished."""
        old = self.value
        self.value = mean if old is None else self.decay * old + (1 - self.decay) * mean

    def __repr__(self) -> str:
        return f"MovingAverage({self.decay})"


def optimal_baseline(values: Tensor, score: Tensor) -> Tensor:
    """b*_j = E[f s_j²] / E[s_j²], the constant of least variance for each coordinate.

    Args:
        values: f of samples that are independent of those it is used on, ``[n, *lead]``.
        score: Their scores, ``[n, *shape]``, ``lead`` a prefix of ``shape``.

    Returns:
        ``[*shape]``; 0 where the score vanishes.

    Source: Mohamed et al. 2020, arXiv 1906.10652, eq. 53 (per coordinate).
    """
    squared = score**2
    f = values.reshape(values.shape + (1,) * (score.dim() - values.dim()))
    total = squared.sum(0)
    return torch.where(total > 0, (f * squared).sum(0) / total, torch.zeros_like(total))


def tied(pairs: list[tuple[Tensor, Tensor]], n_lead: int) -> Tensor:
    """Rows of value 0 whose gradient with respect to each tensor φ is the given one.

    Args:
        pairs: (φ ``[*shape]``, per-sample gradient ``[n, *shape]``), at least one.
        n_lead: Batch dimensions to keep [count].

    Returns:
        Zeros, ``[n, *lead]``.
    """
    rows = [
        sum_coordinates(gradient.detach() * (phi - phi.detach()), n_lead) for phi, gradient in pairs
    ]
    return torch.stack(rows).sum(0)
