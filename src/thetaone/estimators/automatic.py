"""``estimator="auto"``: what the distribution and f allow, cheapest trustworthy first."""

import torch
from torch.distributions import Distribution

from thetaone.estimators.disarm import DisARM
from thetaone.estimators.enumeration import Enumeration
from thetaone.estimators.integrand import Integrand
from thetaone.estimators.leave_one_out import LeaveOneOut
from thetaone.estimators.pathwise import Pathwise, reaches
from thetaone.estimators.protocol import Estimator
from thetaone.estimators.sampling import rsample
from thetaone.estimators.score_function import ScoreFunction


def choose(
    f: Integrand, distribution: Distribution, n_samples: int, generator: torch.Generator | None
) -> tuple[Estimator, str]:
    """An estimator and the reason for it.

    Pathwise when the distribution has rsample and f is on the graph (one probe of two samples
    tells, and is counted); enumeration when there are no more outcomes than samples; DisARM for
    Bernoulli; otherwise leave-one-out, or the score function for a single sample.
    A jump of f cannot be seen from the graph: ``compare_estimators`` finds it.
    """
    if not Pathwise().refusal(distribution) and distribution.has_rsample:
        if _differentiable(f, distribution, generator):
            return Pathwise(), (
                "the distribution has rsample and f is on the graph; a jump in f would go unseen, "
                "compare_estimators looks for one"
            )
        why = "f does not carry a gradient back to its sample"
    elif (
        not Enumeration(max_points=n_samples).refusal(distribution) and not distribution.batch_shape
    ):
        return Enumeration(), (
            "the distribution has no more joint outcomes than samples asked for: all are summed"
        )
    elif not DisARM().refusal(distribution):
        return DisARM(), "for Bernoulli, pairs leave the least noise for two evaluations of f"
    else:
        why = "the distribution has no rsample"
    if n_samples >= 2:
        return LeaveOneOut(), f"{why}; the other samples make a baseline"
    return ScoreFunction(), f"{why}, and a single sample leaves no other for a baseline"


def _differentiable(
    f: Integrand, distribution: Distribution, generator: torch.Generator | None
) -> bool:
    with torch.enable_grad():
        x = rsample(distribution, 2, generator)
        return not x.requires_grad or reaches(f(x), x)
