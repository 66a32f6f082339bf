"""Antithetic pairs: a sample and its mirror image."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch import distributions as D
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import describe, elementary, sample, uniform
from thetaone.estimators.methods._pathwise import Pathwise
from thetaone.estimators.methods._score_function import ScoreFunction

_ABOUT_LOC = (
    D.Normal, D.Laplace, D.Cauchy, D.StudentT, D.MultivariateNormal, D.LowRankMultivariateNormal,
)  # fmt: skip


class Antithetic(Estimator):
    """ĝ = (1/S) Σ_i ½(ĝ(x_i) + ĝ(x_i')), x' the mirror image of x.

    Unbiased because x' has the law of x; removes the noise of the part of ĝ that is odd about the
    centre, and doubles that of the even part. Mirrors symmetric distributions about their centre
    and Bernoulli by u → 1 − u. A unit is a pair: 2 evaluations of f a sample.

    Args:
        of: What is mirrored: ``ScoreFunction`` or ``Pathwise``. Leave-one-out would use a sample's
            own mirror image as its baseline.

    Source: Hammersley & Morton 1956; Mohamed et al. 2020, arXiv 1906.10652, §3.

    Examples:
        >>> Antithetic(Pathwise()).name
        'Antithetic(Pathwise)'
    """

    higher_order: ClassVar[bool] = True

    def __init__(self, of: Estimator | None = None) -> None:
        of = ScoreFunction() if of is None else of
        if not isinstance(of, ScoreFunction | Pathwise):
            raise EstimatorError(
                f"Antithetic({of.name}): only ScoreFunction() and Pathwise() stay unbiased when "
                "samples come in dependent pairs"
            )
        self.of = of
        self.differentiates = of.differentiates
        self.uses_score = of.uses_score

    @property
    def name(self) -> str:
        """Name with what is mirrored."""
        return f"Antithetic({self.of.name})"

    def refusal(self, distribution: Distribution) -> str:
        """Refuse what has no known mirror image, and what the mirrored estimator refuses."""
        base = elementary(distribution)
        if not isinstance(base, (*_ABOUT_LOC, D.Uniform, D.Bernoulli)):
            return f"{describe(distribution)} has no known mirror image; use LeaveOneOut()"
        if isinstance(self.of, Pathwise) and not distribution.has_rsample:
            return f"{describe(distribution)} has no rsample; use Antithetic(ScoreFunction())"
        return self.of.refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Any:
        """Samples, then their mirror images; the rest is as for what is mirrored."""
        if isinstance(self.of, Pathwise):
            x = self.of.draw(distribution, n_samples, generator)
            return torch.cat([x, _mirror(distribution, x)])
        base = elementary(distribution)
        if isinstance(base, D.Bernoulli):
            u = uniform(base.probs, n_samples, generator)
            x = torch.cat([u < base.probs, 1 - u < base.probs]).to(base.probs.dtype)
        else:
            x = sample(distribution, n_samples, generator)
            x = torch.cat([x, _mirror(distribution, x).detach()])
        needs_pilot = self.of.baseline == "optimal"
        return x, sample(distribution, n_samples, generator) if needs_pilot else None

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Any) -> Tensor:
        """The mean over each pair."""
        rows = self.of.surrogate(f, distribution, draws)
        return rows.unflatten(0, (2, -1)).mean(0)


def _mirror(distribution: Distribution, x: Tensor) -> Tensor:
    base: Any = elementary(distribution)
    if isinstance(base, D.Uniform):
        return base.low + base.high - x
    return 2 * base.loc - x
