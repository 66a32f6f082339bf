"""``estimator="auto"``: what the distribution and f allow, cheapest trustworthy first."""

import torch
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator, refusal_of
from thetaone.estimators.distributions import implicit_sample, rsample, sample
from thetaone.estimators.methods import (
    DisARM,
    Enumeration,
    LeaveOneOut,
    Pathwise,
    ScoreFunction,
    reaches,
)


def choose(
    f: Integrand, distribution: Distribution, n_samples: int, generator: torch.Generator | None
) -> tuple[Estimator, str]:
    """An estimator and the reason for it.

    Pathwise when a path leads from every parameter to a sample (rsample, or a cdf) and f is on the
    graph (one probe of two samples tells, and is counted); enumeration when there are no more
    outcomes than samples (of each row, where f keeps the rows of a batch apart: one more probe);
    DisARM for Bernoulli; otherwise leave-one-out, or the score function for a single sample. A jump
    of f cannot be seen from the graph: ``compare_estimators`` finds it.
    """
    why = refusal_of(Pathwise(), distribution)
    if not why:
        path, why = _why_no_path(f, distribution, generator)
        if not why:
            return Pathwise(), (
                f"{path} and f is on the graph; a jump in f would go unseen, "
                "compare_estimators looks for one"
            )
    elif _few_outcomes(f, distribution, n_samples, generator):
        return Enumeration(), (
            "the distribution has no more joint outcomes than samples asked for: all are summed"
        )
    elif not refusal_of(DisARM(), distribution):
        return DisARM(), "for Bernoulli, pairs leave the least noise for two evaluations of f"
    if n_samples >= 2:
        return LeaveOneOut(), f"{why}; the other samples make a baseline"
    return ScoreFunction(), f"{why}; a single sample leaves no other for a baseline"


def _few_outcomes(
    f: Integrand, distribution: Distribution, n_samples: int, generator: torch.Generator | None
) -> bool:
    """Whether enumeration costs no more evaluations than sampling."""
    if refusal_of(Enumeration(max_points=n_samples), distribution):
        return False
    if not distribution.batch_shape:
        return True
    with torch.no_grad():
        kept_apart = f.lead(f(sample(distribution, 1, generator)))
    return kept_apart == len(distribution.batch_shape)


def _why_no_path(
    f: Integrand, distribution: Distribution, generator: torch.Generator | None
) -> tuple[str, str]:
    """What makes the path, and why there is none after all; the second empty when there is one."""
    with torch.enable_grad():
        if distribution.has_rsample:
            path, x = "the distribution has rsample", rsample(distribution, 2, generator)
        else:
            path = "the distribution has a cdf to reparameterize it by"
            try:
                x = implicit_sample(distribution, sample(distribution, 2, generator))
            except (EstimatorError, NotImplementedError) as refusal:
                return path, str(refusal)
        if x.requires_grad and not reaches(f(x), x):
            return path, "f does not carry a gradient back to its sample"
    return path, ""
