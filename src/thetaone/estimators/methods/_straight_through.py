"""The straight-through estimator: a biased gradient that treats a sample as its mean."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, OneHotCategorical

from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import describe, elementary, sample
from thetaone.estimators.methods._pathwise import refuse_cut


def relaxable_refusal(distribution: Distribution) -> str:
    """Why a relaxation does not apply; empty for Bernoulli and OneHotCategorical."""
    if isinstance(elementary(distribution), Bernoulli | OneHotCategorical):
        return ""
    return f"{describe(distribution)} is neither Bernoulli nor OneHotCategorical; use LeaveOneOut()"


class StraightThrough(Estimator):
    """ĝ = f'(b) ∂p/∂θ at a hard sample b.

    **Biased**, exact only when f is affine: for f = (b − t)² the sign can be wrong. f must be
    differentiable at 0 and 1. Costs 1 evaluation of f a sample.

    Source: Bengio, Léonard & Courville 2013, arXiv 1308.3432.

    Examples:
        >>> StraightThrough().declared
        'biased: exact only for affine f'
    """

    declared: str = "biased: exact only for affine f"
    unbiased: ClassVar[bool] = False
    differentiates: bool = True

    def refusal(self, distribution: Distribution) -> str:
        """Refuse anything but Bernoulli and OneHotCategorical."""
        return relaxable_refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Hard samples."""
        return sample(distribution, n_samples, generator)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        """f(b + p − p₀): b in value, p in gradient."""
        p: Tensor = elementary(distribution).probs  # pyright: ignore[reportAttributeAccessIssue]
        x = draws + (p - p.detach())
        values = f(x)
        refuse_cut(values, x)
        return values
