"""VIMCO: the multi-sample bound of variational inference, with a baseline for each particle."""

from functools import partial
from math import inf, log
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import log_ratio, sample
from thetaone.estimators.methods._score_function import score_refusal


class VIMCO(Estimator):
    """ĝ = Σ_i (L̂ − b_i) ∇log q(x_i) + Σ_i w̃_i ∇log w_i, L̂ = log (1/K) Σ_j w_j, f = log w.

    b_i = log (1/K)(Σ_{j≠i} w_j + exp mean_{j≠i} log w_j): w_i is replaced by the geometric mean of
    the others, so b_i does not depend on x_i and the gradient is unbiased **for E L̂**, the
    multi-sample bound, not for E f. f returns log weights (log p(x, h) − log q(h)) and may hold
    parameters of p and q. It may return −inf, a weight of 0: a group that has no other weight is
    refused, for there E L̂ is −inf. A unit is a group: K evaluations of f a sample.

    Args:
        particles: K ≥ 2.

    Source: Mnih & Rezende 2016, arXiv 1602.06725, eq. 9 and 10.

    Examples:
        >>> VIMCO(particles=4).declared
        'unbiased for E log mean exp f'
    """

    declared: str = "unbiased for E log mean exp f"
    objective: ClassVar[str] = "E log mean exp f"
    uses_score: bool = True

    def __init__(self, particles: int = 4) -> None:
        if particles < 2:
            raise InputError(f"particles={particles}: a baseline from the others needs at least 2")
        self.particles = particles

    @property
    def name(self) -> str:
        """Name with the number of particles."""
        return f"VIMCO({self.particles})"

    def refusal(self, distribution: Distribution) -> str:
        """Refuse a support that moves with θ."""
        return score_refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """``n_samples`` groups of K samples, groups outermost."""
        return sample(distribution, n_samples * self.particles, generator)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        """L̂ of each group, plus the score terms."""
        values = f(draws, allow_minus_inf=True)
        ratio = log_ratio(distribution, draws, f.lead(values), f.checks)
        log_w = values.unflatten(0, (-1, self.particles))
        bound = log_w.logsumexp(1) - log(self.particles)
        f.checks.add_finite(bound, partial(_refuse_infinite, bound))
        weight = (bound[:, None] - _without_each(log_w)).detach()
        return bound + (weight * ratio.unflatten(0, (-1, self.particles))).sum(1)


def _without_each(log_w: Tensor) -> Tensor:
    """b_i, ``[groups, K, *lead]``: the bound with log w_i replaced by the mean of the others.

    0 where all the others have weight 0: as good a baseline as any that does not see x_i, and
    finite.
    """
    k = log_w.shape[1]
    square = log_w[:, None].expand(-1, k, *log_w.shape[1:])  # [group, left out, particle, …]
    out = torch.eye(k, dtype=torch.bool, device=log_w.device)
    out = out.reshape(1, k, k, *(1,) * (log_w.dim() - 2))
    others = square.masked_fill(out, 0).sum(2, keepdim=True) / (k - 1)
    baseline = torch.where(out, others, square).logsumexp(2) - log(k)
    return baseline.masked_fill(baseline == -inf, 0)


def _refuse_infinite(bound: Tensor) -> None:
    bad = int((bound == -inf).sum())
    if bad:
        raise EstimatorError(
            f"all weights are 0 in {bad} of {bound.numel()} groups: the log of their mean is −inf, "
            "and so is E log mean w. Take more particles, or a proposal that reaches where the "
            "weights are not 0"
        )
