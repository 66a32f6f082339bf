"""Gumbel-softmax (concrete): the gradient of a relaxed objective."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from thetaone.errors import InputError
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import elementary, uniform
from thetaone.estimators.methods._bernoulli import logistic
from thetaone.estimators.methods._pathwise import refuse_cut
from thetaone.estimators.methods._straight_through import relaxable_refusal


class GumbelSoftmax(Estimator):
    """ĝ = ∇θ f(y), y = softmax((logits + Gumbel)/τ); for Bernoulli y = σ((θ + logit u)/τ).

    **Biased**: it is the exact pathwise gradient of E f(y), the relaxed objective; the bias falls
    and the variance grows as τ → 0. With ``hard`` f sees the hard sample and the gradient of y.
    f must be differentiable between the corners. Costs 1 evaluation of f a sample.

    Args:
        temperature: τ > 0.
        hard: Whether f sees hard samples (straight-through Gumbel-softmax).

    Source: Jang, Gu & Poole 2017, arXiv 1611.01144; Maddison, Mnih & Teh 2017, arXiv 1611.00712.

    Examples:
        >>> GumbelSoftmax(0.5, hard=True).name
        'GumbelSoftmax(τ=0.5, hard)'
    """

    unbiased = False
    differentiates = True

    def __init__(self, temperature: float = 1.0, *, hard: bool = False) -> None:
        if not temperature > 0:
            raise InputError(f"temperature={temperature}: must be > 0; 1 is usual")
        self.temperature, self.hard = temperature, hard
        what = "relaxed gradient at a hard sample" if hard else "gradient of the relaxed objective"
        self.declared = f"biased: {what}"

    @property
    def name(self) -> str:
        """Name with temperature and hardness."""
        return f"GumbelSoftmax(τ={self.temperature:g}{', hard' if self.hard else ''})"

    def refusal(self, distribution: Distribution) -> str:
        """Refuse anything but Bernoulli and OneHotCategorical."""
        return relaxable_refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Uniform noise, one for each logit."""
        return uniform(_logits(distribution), n_samples, generator)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        """f(y), y on the graph."""
        logits = _logits(distribution)
        if isinstance(elementary(distribution), Bernoulli):
            z = logits + logistic(draws)
            soft, hard = (z / self.temperature).sigmoid(), (z > 0).to(z.dtype)
        else:
            gumbel = -(-draws.clamp_max(1 - torch.finfo(draws.dtype).eps).log()).log()
            z = logits + gumbel
            soft = (z / self.temperature).softmax(-1)
            hard = torch.nn.functional.one_hot(z.argmax(-1), z.shape[-1]).to(z.dtype)
        y = hard + (soft - soft.detach()) if self.hard else soft
        values = f(y)
        refuse_cut(values, y)
        return values


def _logits(distribution: Distribution) -> Tensor:
    base: Any = elementary(distribution)
    return base.logits
