"""The z-test that every registered estimator passes, and that planted faults fail."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from thetaone.errors import EstimatorError
from thetaone.estimators._expectation import refuse
from thetaone.estimators._parameters import Family, family
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.judging._problems import Problem
from thetaone.estimators.judging._replicates import replicate_gradients
from thetaone.records import Z_LIMIT

RESOLUTION = 0.02  # of the gradient: a bias of this size is five standard errors
_BLOCK = 20_000  # estimates made side by side [count]


@dataclass(frozen=True)
class Conformance:
    """Result of a test of one estimator on one problem.

    Attributes:
        z: (mean − truth) / stderr of each coordinate.
        resolution: Five standard errors of each parameter's gradient over its norm, the largest.
        estimates: Independent estimates made [count].
        passed: Whether the test could see a bias of 2 % and saw none.
    """

    z: tuple[float, ...]
    resolution: float
    estimates: int

    @property
    def passed(self) -> bool:
        """Whether the test had the power, and every |z| is within ``Z_LIMIT``."""
        return self.resolution <= RESOLUTION and all(abs(z) <= Z_LIMIT for z in self.z)

    @property
    def worst(self) -> float:
        """The z-score that is furthest from 0."""
        return max(self.z, key=abs)


def inapplicable(estimator: Estimator, problem: Problem) -> str:
    """Why the pair is not claimed to be unbiased; empty when it is."""
    if not estimator.unbiased:
        return estimator.declared
    if estimator.objective != problem.objective:
        return f"differentiates {estimator.objective}, not {problem.objective}"
    if estimator.differentiates and not problem.continuous:
        return "a jump of f goes unseen"
    try:
        bound = family(problem.make, problem.params)
        refuse(estimator, bound.make(), 4)
        replicate_gradients(
            problem.f, bound, estimator, n_samples=4, replicates=2, generator=_seeded(0)
        )
    except EstimatorError as refusal:
        return str(refusal)
    return ""


def conform(
    estimator: Estimator,
    problem: Problem,
    *,
    seed: int = 0,
    n_samples: int = 4,
    max_estimates: int = 4_000_000,
) -> Conformance:
    """Test that an estimator is unbiased on a problem.

    The number of estimates is fixed beforehand, from a pilot with another seed, so that five
    standard errors are at most 2 % of the gradient of every parameter. Few samples an estimate,
    so that a bias of order 1/n_samples (a baseline that has seen its sample) is large.

    Args:
        estimator: What is tested.
        problem: With its exact gradient.
        seed: Of the test; the pilot uses the next.
        n_samples: Samples of one estimate [count].
        max_estimates: Give up beyond this [count]; the test then fails for lack of resolution.

    Returns:
        z-scores and resolution.
    """  # fmt: skip
    bound = family(problem.make, problem.params)
    truth = problem.truth
    pilot = _seeded(seed + 1)
    _moments(estimator, problem, bound, n_samples, _BLOCK, pilot)  # lets a baseline settle
    _, spread = _moments(estimator, problem, bound, n_samples, _BLOCK, pilot)
    needed = (5 * _relative(spread.sqrt(), problem) / RESOLUTION) ** 2
    count = _BLOCK * ceil(min(max(1.3 * needed, 2 * _BLOCK), max_estimates) / _BLOCK)
    mean, spread = _moments(estimator, problem, bound, n_samples, count, _seeded(seed))
    stderr = (spread / count).sqrt()
    rounding = 1e-10 * truth.abs() + 1e-13
    z = (mean - truth) / torch.maximum(stderr, rounding)
    resolution = 5 * _relative(stderr, problem)
    return Conformance(tuple(z.tolist()), resolution, count)


def _moments(
    estimator: Estimator, problem: Problem, bound: Family, n_samples: int, count: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean and variance of one estimate, from ``count`` of them in equal blocks."""
    blocks, size = ceil(count / _BLOCK), _BLOCK  # equal blocks: a baseline's state has their shape
    total = square = torch.zeros_like(problem.truth)
    for _ in range(blocks):
        result = replicate_gradients(
            problem.f, bound, estimator, n_samples=n_samples, replicates=size, generator=generator
        )
        centred = result.gradients - problem.truth
        total, square = total + centred.sum(0), square + (centred**2).sum(0)
    n = blocks * size
    mean = total / n
    return mean + problem.truth, (square / n - mean**2).clamp_min(0)


def _relative(error: Tensor, problem: Problem) -> float:
    """The largest, over parameters, of the norm of the error over the norm of the gradient."""
    sizes = [problem.gradient[name].numel() for name in problem.params]
    parts = zip(error.split(sizes), problem.truth.split(sizes), strict=True)
    return max(float(part.norm() / truth.norm()) for part, truth in parts)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
