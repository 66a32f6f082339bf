"""Exact enumeration of a finite support."""

from itertools import product
from math import prod
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import describe, elementary, probabilities, sample


class Enumeration(Estimator):
    """∇θ Σ_x pθ(x) f(x), summed over every joint outcome.

    Exact, at probabilities of 0 and 1 too: no randomness, standard error 0, right to any order. A
    batch whose expectations f keeps apart is enumerated row by row, k outcomes each. Costs k^C
    evaluations of f for C coordinates of k outcomes, plus one probe when the distribution is a
    batch.

    Args:
        max_points: Most joint outcomes to enumerate [count].

    Examples:
        >>> from torch.distributions import Bernoulli
        >>> p = torch.tensor(0.3, requires_grad=True)
        >>> from thetaone.estimators import expectation
        >>> e = expectation(lambda b: (b - 0.5)**2 + b, Bernoulli(p), estimator=Enumeration())
        >>> e.backward(); round(p.grad.item(), 6)
        1.0
    """

    higher_order: ClassVar[bool] = True
    exact: ClassVar[bool] = True

    def __init__(self, max_points: int = 2**16) -> None:
        self.max_points = max_points

    def refusal(self, distribution: Distribution) -> str:
        """Refuse a support that is not finite, or has too many outcomes even for one batch row."""
        base = elementary(distribution)
        if not base.has_enumerate_support:
            return f"the support of {describe(distribution)} is not finite; use LeaveOneOut()"
        batch = len(distribution.batch_shape)
        try:
            return self._too_many(distribution, base.batch_shape[batch:])
        except NotImplementedError as error:  # torch: a Binomial of different total counts
            return f"{describe(distribution)} cannot list its outcomes ({error}); use LeaveOneOut()"

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """One sample, for the probe that tells how many expectations f keeps apart."""
        return sample(distribution, 1, generator)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        """Σ_x p(x) f(x): a single row."""
        n_lead = f.lead(f(draws)) if distribution.batch_shape else 0
        refusal = self._too_many(distribution, elementary(distribution).batch_shape[n_lead:])
        if refusal:
            raise EstimatorError(refusal)
        x = outcomes(distribution, n_lead)
        return (probabilities(distribution, x, n_lead) * f(x)).sum(0, keepdim=True)

    def _too_many(self, distribution: Distribution, coordinates: tuple[int, ...]) -> str:
        base = elementary(distribution)
        points = base.enumerate_support(expand=False).shape[0] ** prod(coordinates)
        if points <= self.max_points:
            return ""
        return (
            f"{describe(distribution)} has {points:.3g} joint outcomes, more than "
            f"max_points={self.max_points}; use LeaveOneOut(), or DisARM() for Bernoulli"
        )


def outcomes(distribution: Distribution, n_lead: int) -> Tensor:
    """Every joint outcome, ``[points, *batch_shape, *event_shape]``; batch rows in lockstep."""
    base = elementary(distribution)
    values = base.enumerate_support(expand=False)
    values = values.reshape(values.shape[0], *base.event_shape)
    coordinates = base.batch_shape[n_lead:]
    grid = torch.tensor(
        list(product(range(values.shape[0]), repeat=prod(coordinates))), device=values.device
    ).long()
    joint = values[grid].reshape(-1, *(1,) * n_lead, *coordinates, *base.event_shape)
    return joint.expand(-1, *base.batch_shape, *base.event_shape)
