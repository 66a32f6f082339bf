"""The delta method: f's own second-order expansion as control variate of the score function."""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import describe, elementary
from thetaone.estimators.methods._control_variate import (
    Coefficient,
    Draws,
    controlled,
    draw_with_pilot,
    pilot_coefficient,
)
from thetaone.estimators.methods._pathwise import refuse_cut


class DeltaMethod(Estimator):
    """ControlVariate with h(x) = f(µ) + gᵀ(x − µ) + ½(x − µ)ᵀH(x − µ), for a Normal.

    E h = f(µ) + ½ Σ_j H_jj σ_j² is exact, so the estimate is unbiased for any f that has two
    derivatives at µ; where f is quadratic no noise is left. Costs 1 evaluation of f a sample, one
    at µ, and C backward passes through that one. Differentiable to any order (DiCE).

    Args:
        coefficient: β, or ``"regression"`` from as many independent samples.

    Source: Paisley, Blei & Jordan 2012, arXiv 1206.6430; Mohamed et al. 2020, §7.4.2.

    Examples:
        >>> DeltaMethod("regression").name
        'DeltaMethod(regression)'
    """

    higher_order: ClassVar[bool] = True
    uses_score: bool = True

    def __init__(self, coefficient: Coefficient = 1.0) -> None:
        self.coefficient: Coefficient = coefficient

    @property
    def name(self) -> str:
        """Name with the coefficient, unless it is 1."""
        if isinstance(self.coefficient, str):
            return f"DeltaMethod({self.coefficient})"
        return "DeltaMethod" if self.coefficient == 1 else f"DeltaMethod(β={self.coefficient:g})"

    def refusal(self, distribution: Distribution) -> str:
        """Refuse anything but Normal."""
        if type(elementary(distribution)) is Normal:
            return ""
        return f"{describe(distribution)} is not a Normal; use ControlVariate() or LeaveOneOut()"

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Draws:
        """Samples, and independent ones for the regression."""
        return draw_with_pilot(distribution, n_samples, generator, self.coefficient)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Draws) -> Tensor:
        """□ (f − β h) + β E h."""
        x, pilot = draws
        base = cast(Normal, elementary(distribution))
        values = f(x)
        taylor = _expand(f, base.loc.detach())
        beta = pilot_coefficient(f, taylor.value, pilot, self.coefficient)
        control = (taylor.value(x), taylor.mean(base), beta)
        return controlled(values, distribution, x, control=control)


@dataclass(frozen=True)
class _Taylor:
    """f(µ) ``[*lead]``, its gradient ``[*lead, C]`` and Hessian ``[*lead, C, C]`` at µ."""

    at: Tensor
    f: Tensor
    gradient: Tensor
    hessian: Tensor

    def value(self, x: Tensor) -> Tensor:
        """h(x), ``[n, *lead]``."""
        d = (x - self.at).reshape(x.shape[0], *self.gradient.shape)
        curved = torch.einsum("...i,...ij,...j->...", d, self.hessian, d)
        return self.f + (self.gradient * d).sum(-1) + curved / 2

    def mean(self, base: Normal) -> Tensor:
        """E h, ``[*lead]``, on the graph of the Normal."""
        spread = (base.scale**2).reshape(self.gradient.shape)
        diagonal = self.hessian.diagonal(dim1=-2, dim2=-1)
        return self.value(base.loc[None])[0] + (diagonal * spread).sum(-1) / 2


def _expand(f: Integrand, loc: Tensor) -> _Taylor:
    with torch.enable_grad():
        at = loc[None].clone().requires_grad_()
        value = f(at)
        refuse_cut(value, at)
        (slope,) = torch.autograd.grad(value.sum(), at, create_graph=True)
        slope = slope.reshape(*value.shape, -1)
        rows = [_second(slope[..., index], at, value) for index in range(slope.shape[-1])]
    hessian = torch.stack(rows, -2)
    return _Taylor(loc, value[0].detach(), slope[0].detach(), hessian[0])


def _second(slope: Tensor, at: Tensor, value: Tensor) -> Tensor:
    if not slope.requires_grad:  # f is affine
        return torch.zeros_like(at).reshape(*value.shape, -1)
    (row,) = torch.autograd.grad(
        slope.sum(), at, retain_graph=True, allow_unused=True, materialize_grads=True
    )  # a slope that only f's own parameters bend has no second derivative here
    return row.reshape(*value.shape, -1)
