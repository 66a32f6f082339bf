"""``compare_estimators``: bias, variance and cost of every estimator that applies, side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators._expectation import make_integrand, surrogate_rows
from thetaone.estimators._parameters import Family, Parameters, family
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.judging._catalogue import CATALOGUE
from thetaone.estimators.judging._replicates import replicate_gradients
from thetaone.estimators.judging._trust import Reference, flags_of, recommend, reference_of, verdict
from thetaone.records import EstimatorComparison, EstimatorRow

DEFAULT = (
    "score", "score-optimal", "leave-one-out", "antithetic-score", "pathwise", "measure-valued",
    "enumeration", "control-variate", "delta-method", "es-antithetic", "arm", "disarm", "rebar",
    "relax", "straight-through", "gumbel-softmax",
)  # fmt: skip


@dataclass(frozen=True)
class _Setting:
    """What every estimator is measured on."""

    f: Callable[..., Any]
    family: Family
    n_samples: int
    repeats: int
    generator: torch.Generator | None
    vectorized: bool


def compare_estimators(
    f: Callable[..., Any],
    make_distribution: Callable[..., Distribution],
    params: Parameters,
    *,
    estimators: Sequence[Estimator] | None = None,
    n_samples: int = 64,
    repeats: int = 1000,
    reference: Any = None,
    reference_samples: int = 1_000_000,
    generator: torch.Generator | None = None,
    vectorized: bool = True,
    problem: str = "expectation",
) -> EstimatorComparison:
    """Measure every estimator on one gradient and say which to take.

    Each makes ``repeats`` independent estimates of ``n_samples`` samples. Bias is judged against
    ``reference``, else against exact enumeration of a small finite support, else against
    leave-one-out with ``reference_samples`` samples, whose own error is taken into account, else
    (where the support moves and leave-one-out refuses) against pathwise.

    Args:
        f: As for ``expectation``; separate expectations are summed.
        make_distribution: As for ``gradient_samples``.
        params: As for ``gradient_samples``.
        estimators: Which; ``None`` for all that there are.
        n_samples: Samples of one estimate [count].
        repeats: Estimates of each [count].
        reference: The exact gradient, in the structure of ``params``.
        reference_samples: Samples of a reference that has to be estimated [count].
        generator: Where randomness comes from.
        vectorized: ``False`` when f takes one sample at a time.
        problem: A name for the table.

    Returns:
        A record: print it, ``plot()`` it, write it with ``to_json()``.

    Raises:
        InputError: Fewer than 2 repeats.
        EstimatorError: f returns the wrong thing, or no estimator applies.

    Examples:
        >>> c = compare_estimators(
        ...     lambda b: (b - 0.45)**2, torch.distributions.Bernoulli, torch.tensor(0.3),
        ...     n_samples=8, repeats=200, generator=torch.Generator().manual_seed(0))
        >>> c.reference_kind, c.passed
        ('enumeration', True)
    """
    if repeats < 2:
        raise InputError(f"repeats={repeats}: need at least 2 to know a variance; 1000 is usual")
    made = family(make_distribution, params)
    setting = _Setting(f, made, n_samples, repeats, generator, vectorized)
    truth = _reference(setting, reference, reference_samples)
    chosen = [CATALOGUE[name]() for name in DEFAULT] if estimators is None else list(estimators)
    rows: list[EstimatorRow] = []
    skipped: list[tuple[str, str]] = []
    for estimator in chosen:
        reason = _reason_to_skip(estimator, made)
        if reason:
            skipped.append((estimator.name, reason))
            continue
        try:
            rows.append(_measure(estimator, setting, truth))
        except EstimatorError as refusal:
            skipped.append((estimator.name, str(refusal)))
    if not rows:
        raise EstimatorError("no estimator applies: " + "; ".join(why for _, why in skipped))
    name, reason = recommend(rows)
    return EstimatorComparison(
        problem=problem,
        coordinates=made.coordinates(),
        reference=tuple(truth.mean.tolist()),
        reference_stderr=tuple(truth.stderr.tolist()),
        reference_kind=truth.kind,
        n_samples=n_samples,
        repeats=repeats,
        rows=tuple(rows),
        skipped=tuple(skipped),
        flags=flags_of(rows, made.make(), truth.kind),
        recommendation=name,
        reason=reason,
    )


def _reason_to_skip(estimator: Estimator, made: Family) -> str:
    if estimator.objective != "E f":
        return f"it differentiates {estimator.objective}"
    return estimator.refusal(made.make())


def _measure(estimator: Estimator, setting: _Setting, truth: Reference) -> EstimatorRow:
    count = 1 if estimator.exact else setting.repeats
    gradients, evaluations = _gradients(estimator, setting, count)
    seconds, seconds_stderr = _time(estimator, setting)
    mean = gradients.mean(0)
    spread = gradients.var(0) if count > 1 else torch.zeros_like(mean)
    stderr = (spread / count).sqrt()
    variance, variance_stderr = _total_variance(gradients)
    # a sum of so many terms is known no better than this: rounding is no noise
    rounding = 16 * torch.finfo(mean.dtype).eps * (setting.n_samples * mean.numel()) ** 0.5
    if variance <= (rounding * float(mean.norm())) ** 2:
        variance = variance_stderr = 0.0
    found, z = verdict(mean, stderr, truth, unbiased=estimator.unbiased)
    cost = variance * seconds
    efficiency = 1 / cost if cost > 0 else float("inf")
    relative = (seconds_stderr / seconds) ** 2
    relative += (variance_stderr / variance) ** 2 if variance > 0 else 0.0
    return EstimatorRow(
        estimator=estimator.name,
        declared=estimator.declared,
        unbiased=estimator.unbiased,
        mean=tuple(mean.tolist()),
        mean_stderr=tuple(stderr.tolist()),
        bias_z=z,
        bias_limit=4.5,
        resolution=truth.resolution(stderr),
        variance=variance,
        variance_stderr=variance_stderr,
        evaluations=evaluations,
        seconds=seconds,
        seconds_stderr=seconds_stderr,
        efficiency=efficiency,
        efficiency_stderr=efficiency * relative**0.5 if cost > 0 else 0.0,
        verdict=found,
    )


def _gradients(estimator: Estimator, setting: _Setting, count: int) -> tuple[Tensor, int]:
    """Independent estimates ``[count, P]``, in blocks of at most a million samples."""
    block = max(1, min(count, 1_000_000 // setting.n_samples))
    parts: list[Tensor] = []
    evaluations = 0
    while (done := sum(part.shape[0] for part in parts)) < count:
        # whole blocks: a moving average has the block's shape
        gradients, evaluations = replicate_gradients(
            setting.f, setting.family, estimator, n_samples=setting.n_samples, replicates=block,
            generator=setting.generator, vectorized=setting.vectorized,
        )  # fmt: skip
        parts.append(gradients[: count - done])
    return torch.cat(parts), evaluations


def _total_variance(gradients: Tensor) -> tuple[float, float]:
    """Variance summed over coordinates, and its standard error from the squared deviations."""
    count = gradients.shape[0]
    if count < 2:
        return 0.0, 0.0
    squares = ((gradients - gradients.mean(0)) ** 2).sum(1) * count / (count - 1)
    return float(squares.mean()), float(squares.std() / count**0.5)


def _time(estimator: Estimator, setting: _Setting, times: int = 9) -> tuple[float, float]:
    """Median seconds of one estimate with its backward pass, and the standard error of that."""
    seconds: list[float] = []
    for _ in range(times + 2):
        start = perf_counter()
        with torch.enable_grad():
            distribution = setting.family.make()
            f = make_integrand(setting.f, distribution, vectorized=setting.vectorized)
            rows = surrogate_rows(f, distribution, estimator, setting.n_samples, setting.generator)
            torch.autograd.grad(rows.mean(0).sum(), setting.family.tensors, allow_unused=True)
        seconds.append(perf_counter() - start)
    kept = seconds[2:]  # the first two warm up
    middle = median(kept)
    # 1.48 · MAD estimates a standard deviation; √(π/2n) turns it into that of a median
    deviation = 1.48 * median(abs(value - middle) for value in kept)
    return middle, deviation * (3.1416 / 2 / times) ** 0.5


def _reference(setting: _Setting, given: Any, samples: int) -> Reference:
    if given is not None:
        return Reference("exact", _flatten(given, setting.family), None)
    return reference_of(
        setting.f, setting.family, samples=samples, generator=setting.generator,
        vectorized=setting.vectorized,
    )  # fmt: skip


def _flatten(given: Any, made: Family) -> Tensor:
    if isinstance(given, Mapping):
        parts = [given[name] for name in made.names]
    else:
        parts = [given] if isinstance(given, Tensor | float | int) else list(given)
    flat = torch.cat([torch.as_tensor(part).detach().reshape(-1).double() for part in parts])
    expected = sum(tensor.numel() for tensor in made.tensors)
    if flat.numel() != expected:
        raise InputError(f"reference has {flat.numel()} entries; the parameters have {expected}")
    return flat
