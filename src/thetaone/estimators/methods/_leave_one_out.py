"""The score function with the mean of the other samples as baseline."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import log_ratio, sample, scored
from thetaone.estimators.methods._baselines import leave_one_out
from thetaone.estimators.methods._score_function import score_refusal


class LeaveOneOut(Estimator):
    """ĝ = (1/K) Σ_i (f_i − (1/(K−1)) Σ_{j≠i} f_j) s_i, the sample covariance of f and the score.

    Unbiased for any f: each baseline is independent of its sample. (The mean over *all* samples
    would scale the gradient by 1 − 1/K.) Costs 1 evaluation of f a sample. With f = f_θ its own
    gradient is added exactly. Differentiable to any order (DiCE).

    Source: Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!".

    Examples:
        >>> LeaveOneOut().min_samples
        2
    """

    higher_order: ClassVar[bool] = True
    min_samples: ClassVar[int] = 2
    uses_score: bool = True

    def refusal(self, distribution: Distribution) -> str:
        """Refuse a support that moves with θ."""
        return score_refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Samples without a graph."""
        return sample(distribution, n_samples, generator)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        """□ f − (□ − 1) b, b the mean of the others."""
        values = f(draws)
        ratio = log_ratio(distribution, draws, f.lead(values), f.checks)
        return scored(values, ratio, leave_one_out(values))
