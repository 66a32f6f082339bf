"""Probabilities of outcomes, exact on the edges too.

torch takes log p from probabilities that it clamps away from 0 and 1, which cuts the gradient
there; the probability itself, p or 1 − p, is linear in p everywhere.
"""

from typing import Any

import torch
from torch import Tensor
from torch import distributions as D
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid

from thetaone.errors import EstimatorError
from thetaone.estimators.distributions._structure import describe, elementary


def probabilities(distribution: Distribution, x: Tensor, n_lead: int) -> Tensor:
    """p(x; θ) of each outcome, multiplied over coordinates behind ``n_lead`` batch dimensions.

    Args:
        distribution: With a finite support.
        x: Outcomes, ``[points, *batch_shape, *event_shape]``.
        n_lead: Batch dimensions to keep [count].

    Returns:
        ``[points, *batch_shape[:n_lead]]``, on the graph of the parameters.

    Raises:
        EstimatorError: A distribution known by log p alone gives an outcome the probability 0.
    """
    base: Any = elementary(distribution)
    mass = _one_coordinate(base, x)
    return mass.flatten(1 + n_lead).prod(-1) if mass.dim() > 1 + n_lead else mass


def _one_coordinate(base: Any, x: Tensor) -> Tensor:
    if type(base) is D.Bernoulli:
        return torch.where(x > 0, _success(base), _complement(base))
    if type(base) is D.Binomial:
        n = base.total_count
        ways = torch.exp(torch.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1))
        return ways * _success(base) ** x * _complement(base) ** (n - x)
    if type(base) is D.Categorical:
        table = base.probs.expand(*x.shape, base.probs.shape[-1])
        return table.gather(-1, x[..., None].long()).squeeze(-1)
    if type(base) in (D.OneHotCategorical, D.OneHotCategoricalStraightThrough):
        return (base.probs * x).sum(-1)
    log_p = base.log_prob(x)
    if bool(torch.isinf(log_p).any()):
        raise EstimatorError(
            f"{describe(base)} gives an outcome the probability 0: its gradient cannot be taken "
            "from log p. Keep probabilities inside (0, 1), or use a torch distribution"
        )
    return log_p.exp()


def _success(base: Any) -> Tensor:
    """p, with its derivative where it rounds to 1."""
    return base.probs if _by_probs(base) else logsigmoid(base.logits).exp()


def _complement(base: Any) -> Tensor:
    """1 − p, without loss where the parameter is a logit."""
    return 1 - base.probs if _by_probs(base) else logsigmoid(-base.logits).exp()


def _by_probs(base: Any) -> bool:
    return "probs" in vars(base) and base._param is base.probs
