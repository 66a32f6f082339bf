"""The score function with a control variate whose expectation is known."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import (
    describe,
    elementary,
    log_ratio,
    magic_box,
    sample,
    sum_coordinates,
)
from thetaone.estimators.methods._score_function import score_refusal

Coefficient = float | Literal["regression"]
Draws = tuple[Tensor, Tensor | None]


class ControlVariate(Estimator):
    """ĝ = (1/S) Σ_i (f(x_i) − β h(x_i)) s_i + β ∇θ E h.

    Unbiased when E h is exact and β does not depend on x: with ``"regression"``
    β = Cov(f, h)/Var(h) comes from as many independent samples. Costs 1 evaluation of f a sample
    (2 with regression). Differentiable to any order (DiCE).

    Args:
        h: Takes samples, returns what f returns. ``None`` for the sum over coordinates.
        expected: Takes the distribution, returns E h, on its graph, ``[*lead]``. ``None`` for the
            sum of its mean.
        coefficient: β, or ``"regression"``.

    Source: Mohamed et al. 2020, arXiv 1906.10652, §7.4; Paisley et al. 2012, arXiv 1206.6430.

    Examples:
        >>> ControlVariate(coefficient=0.5).name
        'ControlVariate(β=0.5)'
    """

    higher_order: ClassVar[bool] = True
    uses_score: bool = True

    def __init__(
        self,
        h: Callable[[Tensor], Tensor] | None = None,
        expected: Callable[[Distribution], Tensor] | None = None,
        *,
        coefficient: Coefficient = "regression",
    ) -> None:
        if (h is None) != (expected is None):
            raise EstimatorError("pass h and expected together, or neither for the sample's sum")
        self.h, self.expected = h, expected
        self.coefficient: Coefficient = coefficient

    @property
    def name(self) -> str:
        """Name with the coefficient."""
        if isinstance(self.coefficient, str):
            return f"ControlVariate({self.coefficient})"
        return f"ControlVariate(β={self.coefficient:g})"

    def refusal(self, distribution: Distribution) -> str:
        """Refuse a support that moves with θ, or an unknown mean for the default h."""
        if self.h is None and elementary(distribution).event_shape:
            return f"{describe(distribution)} is not made of scalars; pass h and expected"
        if self.h is None and not _has_finite_mean(distribution):
            return f"{describe(distribution)} has no known finite mean; pass h and expected"
        return score_refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Draws:
        """Samples, and independent ones for the regression."""
        return draw_with_pilot(distribution, n_samples, generator, self.coefficient)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Draws) -> Tensor:
        """□ (f − β h) + β E h."""
        x, pilot = draws
        values = f(x)
        n_lead = f.lead(values)

        def h(x: Tensor) -> Tensor:
            return sum_coordinates(x, n_lead) if self.h is None else self.h(x)

        if self.expected is None:
            mean = sum_coordinates(distribution.mean[None], n_lead)[0]
        else:
            mean = self.expected(distribution)
        beta = pilot_coefficient(f, h, pilot, self.coefficient)
        return controlled(values, distribution, x, control=(h(x), mean, beta))


def _has_finite_mean(distribution: Distribution) -> bool:
    try:
        return bool(torch.isfinite(distribution.mean).all())
    except NotImplementedError:  # torch's word for a distribution whose mean it does not know
        return False


def draw_with_pilot(
    distribution: Distribution,
    n_samples: int,
    generator: torch.Generator | None,
    coefficient: Coefficient,
) -> Draws:
    """Samples, and as many independent ones when the coefficient is to be fitted."""
    x = sample(distribution, n_samples, generator)
    fitted = coefficient == "regression"
    return x, sample(distribution, n_samples, generator) if fitted else None


def pilot_coefficient(
    f: Integrand, h: Callable[[Tensor], Tensor], pilot: Tensor | None, coefficient: Coefficient
) -> Any:
    """β: the given number, or Cov(f, h)/Var(h) over independent samples (0 when h is constant)."""
    if pilot is None:
        return coefficient
    with torch.no_grad():
        values, controls = f(pilot), h(pilot)
        controls = controls - controls.mean(0)
        spread = (controls**2).sum(0)
        slope = (values * controls).sum(0) / spread.clamp_min(torch.finfo(spread.dtype).tiny)
        return torch.where(spread > 0, slope, torch.zeros_like(slope))


def controlled(
    values: Tensor, distribution: Distribution, x: Tensor, *, control: tuple[Tensor, Tensor, Any]
) -> Tensor:
    """Rows □ (f − β h) + β E h.

    Args:
        values: f(x), ``[n, *lead]``.
        distribution: pθ.
        x: Samples without a graph.
        control: (h(x) ``[n, *lead]``, E h ``[*lead]``, β).
    """
    h, mean, beta = control
    box = magic_box(log_ratio(distribution, x, values.dim() - 1))
    return box * (values - beta * h.detach()) + beta * mean
