"""Evolution strategies: the gradient of a Gaussian-smoothed black box."""

from typing import Literal, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from thetaone.errors import EstimatorError
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import describe, elementary, widen
from thetaone.estimators.methods._baselines import tied

Kind = Literal["plain", "antithetic", "forward"]


class EvolutionStrategies(Estimator):
    """ĝ of the smoothed objective F_σ(µ) = E f(µ + σε), with its 1/σ.

    ``plain``: f(µ+σε) ε/σ. ``antithetic``: [f(µ+σε) − f(µ−σε)] ε/(2σ). ``forward``:
    [f(µ+σε) − f(µ)] ε/σ. Each is unbiased for ∇F_σ (E[ε] = 0 makes the subtracted terms harmless
    or equal), which is **not** ∇f: for f = x⁴, µ = 1, σ = ½ it is 7, not 4. f may be a black box.
    A sample costs 1, 2 or 1 evaluations of f (``forward`` has one more for f(µ)). Only the location
    of a Normal has a gradient.

    Args:
        kind: Which difference.

    Source: Salimans et al. 2017, arXiv 1703.03864; Nesterov & Spokoiny 2017, eq. 26 and 30.

    Examples:
        >>> EvolutionStrategies("forward").name
        'EvolutionStrategies(forward)'
    """

    def __init__(self, kind: Kind = "antithetic") -> None:
        if kind not in ("plain", "antithetic", "forward"):
            raise EstimatorError(f"kind={kind!r}: choose plain, antithetic or forward")
        self.kind = kind

    @property
    def name(self) -> str:
        """Name with the kind."""
        return f"EvolutionStrategies({self.kind})"

    def refusal(self, distribution: Distribution) -> str:
        """Refuse anything but a Normal, and a scale that is to be learnt."""
        base = elementary(distribution)
        if type(base) is not Normal:
            return f"{describe(distribution)} is not a Normal; use LeaveOneOut()"
        if base.scale.requires_grad:
            return "the scale requires grad, and only the location is perturbed; use LeaveOneOut()"
        return ""

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Standard normal noise ε."""
        loc: Tensor = elementary(distribution).loc  # pyright: ignore[reportAttributeAccessIssue]
        shape = (n_samples, *loc.shape)
        return torch.randn(shape, generator=generator, dtype=loc.dtype, device=loc.device)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        """Values of f; their gradient is the difference times ε/σ."""
        base = cast(Normal, elementary(distribution))
        loc, scale = base.loc.detach(), base.scale
        step = scale * draws
        if self.kind == "antithetic":
            above, below = f(torch.cat([loc + step, loc - step])).unflatten(0, (2, -1))
            values, difference = (above + below) / 2, (above - below) / 2
        else:
            values = f(loc + step)
            difference = values - f(loc[None]) if self.kind == "forward" else values
        gradient = widen(difference.detach(), draws) * draws / scale
        return values + tied([(base.loc, gradient)], f.lead(values))
