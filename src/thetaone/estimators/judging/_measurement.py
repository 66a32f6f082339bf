"""One estimator on one problem: its gradients, its evaluations of f, its time."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from thetaone.estimators._expectation import make_integrand, surrogate_rows
from thetaone.estimators._parameters import Family
from thetaone.estimators._protocol import Estimator, refusal_of
from thetaone.estimators.judging._replicates import replicate_gradients, together_at_most

_WARM_UP = 2  # rounds of timing that do not count


@dataclass(frozen=True)
class Setting:
    """What every estimator is measured on.

    Attributes:
        f: The integrand.
        family: Makes the distribution.
        n_samples: Samples of one estimate [count].
        repeats: Estimates of each [count].
        generator: Where randomness comes from.
        vectorized: Whether f takes many samples at once.
        max_bytes: Most bytes of samples side by side [bytes].
        rounds: Timed estimates of each, warm-up included [count].
    """

    f: Callable[..., Any]
    family: Family
    n_samples: int
    repeats: int
    generator: torch.Generator | None
    vectorized: bool
    max_bytes: int
    rounds: int = 11

    @property
    def side_by_side(self) -> int:
        """Estimates that may be made at once [count]."""
        itemsize = self.family.tensors[0].element_size()
        return together_at_most(self.family, self.n_samples, elements=self.max_bytes // itemsize)


@dataclass(frozen=True)
class Candidate:
    """An estimator that applies, with what one estimate costs.

    Attributes:
        estimator: As its user made it; every measurement starts from a copy.
        evaluations: Evaluations of f for one estimate [count].
    """

    estimator: Estimator
    evaluations: int


@dataclass(frozen=True)
class Moments:
    """What repeated estimates say.

    Attributes:
        mean: Mean gradient, ``[P]``.
        stderr: Its standard error, 0 for an exact estimator, ``[P]``.
        count: Estimates made [count].
        furthest: Greatest deviation of an estimate from the mean, ``[P]``.
        variance: Variance of one estimate, summed over coordinates.
        variance_stderr: Its standard error.
    """

    mean: Tensor
    stderr: Tensor
    count: int
    furthest: Tensor
    variance: float
    variance_stderr: float


def candidates(
    estimators: Sequence[Estimator], setting: Setting, objective: str
) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """Estimators that make an estimate, and the others with the reason: one estimate each.

    Whatever one of them raises (f may not take relaxed samples) is its own reason, not the end of
    the comparison.
    """
    chosen: list[Candidate] = []
    skipped: list[tuple[str, str]] = []
    for estimator in estimators:
        if estimator.objective != objective:
            why = f"it differentiates {estimator.objective}; compare it by itself"
        else:
            why = refusal_of(estimator, setting.family.make())
        if not why:
            try:
                once = _gradients(copy.deepcopy(estimator), replace(setting, repeats=1), 1)
                chosen.append(Candidate(estimator, once[1]))
                continue
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
        skipped.append((estimator.name, why))
    return chosen, skipped


def moments(candidate: Candidate, setting: Setting) -> Moments:
    """Mean and variance of repeated estimates."""
    count = 1 if candidate.estimator.exact else setting.repeats
    gradients, _ = _gradients(copy.deepcopy(candidate.estimator), setting, count)
    mean = gradients.mean(0)
    spread = gradients.var(0) if count > 1 else torch.zeros_like(mean)
    variance, variance_stderr = _total_variance(gradients)
    # a sum of so many terms is known no better than this: rounding is no noise
    rounding = 16 * torch.finfo(mean.dtype).eps * (setting.n_samples * mean.numel()) ** 0.5
    if variance <= (rounding * float(mean.norm())) ** 2:
        variance = variance_stderr = 0.0
    furthest = (gradients - mean).abs().amax(0)
    return Moments(mean, (spread / count).sqrt(), count, furthest, variance, variance_stderr)


def _gradients(estimator: Estimator, setting: Setting, count: int) -> tuple[Tensor, int]:
    """Independent estimates ``[count, P]``, in equal blocks: a moving average has their shape."""
    block = max(1, min(count, setting.side_by_side))
    parts: list[Tensor] = []
    evaluations = 0
    for start in range(0, count, block):
        result = replicate_gradients(
            setting.f, setting.family, estimator, n_samples=setting.n_samples, replicates=block,
            generator=setting.generator, vectorized=setting.vectorized,
        )  # fmt: skip
        parts.append(result.gradients[: count - start])
        evaluations = result.evaluations
    return torch.cat(parts), evaluations


def _total_variance(gradients: Tensor) -> tuple[float, float]:
    """Variance summed over coordinates, and its standard error from the squared deviations."""
    count = gradients.shape[0]
    if count < 2:
        return 0.0, 0.0
    squares = ((gradients - gradients.mean(0)) ** 2).sum(1) * count / (count - 1)
    return float(squares.mean()), float(squares.std() / count**0.5)


def interleaved_seconds(chosen: Sequence[Candidate], setting: Setting) -> list[tuple[float, float]]:
    """Median seconds of one estimate with its backward pass, and the standard error of that.

    All take turns, so that a machine that slows down slows all of them alike.
    """
    copies = [copy.deepcopy(candidate.estimator) for candidate in chosen]
    seconds: list[list[float]] = [[] for _ in copies]
    for _ in range(setting.rounds):
        for estimator, times in zip(copies, seconds, strict=True):
            times.append(_once(estimator, setting))
    return [_median(times[min(_WARM_UP, len(times) - 1) :]) for times in seconds]


def _once(estimator: Estimator, setting: Setting) -> float:
    start = perf_counter()
    with torch.enable_grad():
        distribution = setting.family.make()
        f = make_integrand(setting.f, distribution, vectorized=setting.vectorized)
        rows = surrogate_rows(f, distribution, estimator, setting.n_samples, setting.generator)
        torch.autograd.grad(rows.mean(0).sum(), setting.family.tensors, allow_unused=True)
    return perf_counter() - start


def _median(times: list[float]) -> tuple[float, float]:
    middle = median(times)
    # 1.48 · MAD estimates a standard deviation; √(π/2n) turns it into that of a median
    deviation = 1.48 * median(abs(value - middle) for value in times)
    return middle, deviation * (3.1416 / 2 / len(times)) ** 0.5
