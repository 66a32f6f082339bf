"""Multi-sample bounds as expectations: K samples are one, f is the log of the mean of exp f."""

from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Any

from torch import Size, Tensor
from torch.distributions import Distribution, Independent

from thetaone.estimators._expectation import make_integrand
from thetaone.estimators._parameters import Family


def grouped(
    f: Callable[..., Any], family: Family, particles: int, *, vectorized: bool
) -> tuple[Callable[[Tensor], Tensor], Family]:
    """Log mean exp f over K independent samples, and the distribution of K samples as one event.

    E log (1/K) Σ_k exp f(x_k) is then an expectation like any other, which leave-one-out and
    enumeration can judge VIMCO by.
    """

    def make() -> Distribution:
        one = family.make()
        many = one.expand(Size((particles, *one.batch_shape)))
        return Independent(many, 1 + len(one.batch_shape))

    def bound(x: Tensor) -> Tensor:
        values = make_integrand(f, family.make(), vectorized=vectorized)(x.flatten(0, 1))
        summed = values.flatten(1).sum(1) if values.dim() > 1 else values
        return summed.unflatten(0, (-1, particles)).logsumexp(1) - log(particles)

    return bound, replace(family, make=make)
