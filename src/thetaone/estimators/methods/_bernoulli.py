"""What the estimators for binary variables share: logits, pairs of samples, a relaxation."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import describe, elementary, uniform, widen
from thetaone.estimators.methods._baselines import tied


@dataclass(frozen=True, slots=True)
class WeightedPair:
    """Samples b and b', and the weight of f(b) − f(b'), ``[n, *batch_shape]`` each."""

    first: Tensor
    second: Tensor
    weight: Tensor


class BernoulliPair(Estimator):
    """ĝ = (f(b) − f(b')) w for the logits: two samples b and b' from one uniform u, and a weight w.

    A unit is a pair: 2 evaluations of f a sample, whatever the number of coordinates.
    """

    uses_score: bool = True

    @abstractmethod
    def pair(self, theta: Tensor, u: Tensor) -> WeightedPair:
        """The samples and their weight for the logits θ, from u."""

    def refusal(self, distribution: Distribution) -> str:
        """Refuse anything but Bernoulli."""
        return bernoulli_refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Uniform noise u."""
        return uniform(bernoulli_logits(distribution), n_samples, generator)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        """The mean of f over the pair."""
        logits = bernoulli_logits(distribution)
        pair = self.pair(logits.detach(), draws)
        first, second = f(torch.cat([pair.first, pair.second])).unflatten(0, (2, -1))
        gradient = widen((first - second).detach(), pair.weight) * pair.weight
        return (first + second) / 2 + tied([(logits, gradient)], f.lead(first))


def bernoulli_refusal(distribution: Distribution) -> str:
    """Why an estimator for Bernoulli does not apply; empty when it does."""
    if isinstance(elementary(distribution), Bernoulli):
        return ""
    return f"{describe(distribution)} is not Bernoulli; use LeaveOneOut()"


def bernoulli_logits(distribution: Distribution) -> Tensor:
    """θ = log p/(1 − p) of a (possibly independent) Bernoulli, on its graph."""
    base: Any = elementary(distribution)
    return base.logits


def logistic(u: Tensor) -> Tensor:
    """Logit u, log u − log(1 − u), with u kept away from 0 and 1 by one rounding step."""
    edge = torch.finfo(u.dtype).eps
    return u.clamp(torch.finfo(u.dtype).tiny, 1 - edge).logit()


def relaxed(theta: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Relaxation z = θ + logit u and b = 1[z > 0], a Bernoulli(σ(θ)) sample."""
    z = theta + logistic(u)
    return z, (z > 0).to(theta.dtype).detach()


def relaxed_given(theta: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """Relaxation z̃ = θ + logit ũ with the law of z given b; ũ depends on θ and is differentiated.

    ũ = (1 − p) + p v for b = 1, (1 − p) v for b = 0.
    """
    p, q = theta.sigmoid(), (-theta).sigmoid()
    return theta + logistic(torch.where(b > 0, q + p * v, q * v))
