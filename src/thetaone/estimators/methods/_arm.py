"""ARM: augment, REINFORCE, merge — for Bernoulli."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import uniform, widen
from thetaone.estimators.methods._baselines import tied
from thetaone.estimators.methods._bernoulli import bernoulli_logits, bernoulli_refusal


class ARM(Estimator):
    """ĝ = (f(b) − f(b'))(u − ½), b = 1[u > 1 − p], b' = 1[u < p], for the logits.

    Unbiased for any f: both b and b' are Bernoulli(p), and the score in u-space of the pair is
    merged by its symmetry. A unit is a pair: 2 evaluations of f a sample, whatever the number of
    coordinates.

    Source: Yin & Zhou 2019, arXiv 1807.11143, theorem 1.

    Examples:
        >>> ARM().higher_order
        False
    """

    uses_score: bool = True

    def refusal(self, distribution: Distribution) -> str:
        """Anything but Bernoulli."""
        return bernoulli_refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Uniform noise u."""
        return uniform(bernoulli_logits(distribution), n_samples, generator)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        """The mean of f over the pair."""
        logits = bernoulli_logits(distribution)
        p = logits.detach().sigmoid()
        pair = torch.cat([draws > 1 - p, draws < p]).to(logits.dtype)
        first, second = f(pair).unflatten(0, (2, -1))
        gradient = widen((first - second).detach(), draws) * (draws - 0.5)
        return (first + second) / 2 + tied([(logits, gradient)], f.lead(first))
