"""DisARM, also known as U2G: ARM with its noise integrated out."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import uniform, widen
from thetaone.estimators.methods._baselines import tied
from thetaone.estimators.methods._bernoulli import bernoulli_logits, bernoulli_refusal


class DisARM(Estimator):
    """ĝ = ½(f(b) − f(b̃)) (−1)^{b̃} 1[b ≠ b̃] σ(|θ|), b = 1[1 − u < p], b̃ = 1[u < p].

    Unbiased for any f: it is the conditional mean of ARM given the pair (b, b̃), so its variance is
    never larger. A unit is a pair: 2 evaluations of f a sample, whatever the number of coordinates.

    Source: Dong, Mnih & Tucker 2020, arXiv 2006.10680, eq. 7; Yin et al. 2020, arXiv 2002.03936.

    Examples:
        >>> DisARM().unbiased
        True
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
        theta = logits.detach()
        p = theta.sigmoid()
        pair = torch.cat([1 - draws < p, draws < p]).to(logits.dtype)
        b, mirrored = pair.unflatten(0, (2, -1))
        first, second = f(pair).unflatten(0, (2, -1))
        weight = (b - mirrored) * theta.abs().sigmoid()  # (−1)^b̃ · 1[b ≠ b̃] = b − b̃
        gradient = widen((first - second).detach() / 2, weight) * weight
        return (first + second) / 2 + tied([(logits, gradient)], f.lead(first))
