"""``compare_estimators``: bias, variance and cost of every estimator that applies, side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators._parameters import Family, Parameters, family
from thetaone.estimators._protocol import Estimator
from thetaone.estimators._score_warning import THOROUGH, THOROUGH_ELEMENTS
from thetaone.estimators.distributions import ScoreCheck, affordable_samples, check_score
from thetaone.estimators.judging._catalogue import CATALOGUE
from thetaone.estimators.judging._grouped import grouped
from thetaone.estimators.judging._measurement import (
    Candidate,
    Setting,
    candidates,
    interleaved_seconds,
    moments,
)
from thetaone.estimators.judging._trust import Reference, flags_of, judge, recommend, reference_of
from thetaone.estimators.methods import VIMCO
from thetaone.records import (
    EstimatorComparison,
    EstimatorRow,
    Progress,
    ProgressEvent,
    parse_bytes,
)

DEFAULT = (
    "score", "score-optimal", "leave-one-out", "antithetic-score", "pathwise", "measure-valued",
    "enumeration", "control-variate", "delta-method", "es-antithetic", "arm", "disarm", "rebar",
    "relax", "straight-through", "gumbel-softmax",
)  # fmt: skip


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
    budget: int | None = None,
    max_bytes: int | str = "128MiB",
    generator: torch.Generator | None = None,
    vectorized: bool = True,
    problem: str = "expectation",
    progress: Progress | None = None,
) -> EstimatorComparison:
    """Measure every estimator on one gradient and say which to take.

    First E ∇ log p = 0 is tested, without one evaluation of f: where it fails no estimator that
    relies on the score is believed, as a row or as the reference. Then each makes ``repeats``
    independent estimates of ``n_samples`` samples. Bias is judged against ``reference``, else
    against exact enumeration of a small finite support, else against leave-one-out with
    ``reference_samples`` samples, whose own error is taken into account, else (where the support
    moves, or the score is not centred) against pathwise or measure-valued. The limit is Student's
    quantile for so many repeats and coordinates: chance exceeds it once in 150 000 comparisons.

    Args:
        f: As for ``expectation``; separate expectations are summed.
        make_distribution: As for ``gradient_samples``.
        params: As for ``gradient_samples``.
        estimators: Which; ``None`` for all that there are. ``VIMCO`` is judged by itself, on its
            bound.
        n_samples: Samples of one estimate [count].
        repeats: Estimates of each [count].
        reference: The exact gradient, in the structure of ``params``.
        reference_samples: Samples of a reference that has to be estimated [count].
        budget: Most evaluations of f over everything; repeats, reference and timings shrink to fit
            it [count].
        max_bytes: Most bytes of samples held side by side, a number or ``"128MiB"``.
        generator: Where randomness comes from.
        vectorized: ``False`` when f takes one sample at a time.
        problem: A name for the table.
        progress: Called after each estimator.

    Returns:
        A record: print it, ``plot()`` it, write it with ``to_json()``.

    Raises:
        InputError: Fewer than 2 repeats, or a budget that leaves no room for 2.
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
    bound = family(make_distribution, params)
    chosen = [CATALOGUE[name]() for name in DEFAULT] if estimators is None else list(estimators)
    limit = parse_bytes(max_bytes, where="max_bytes")
    setting = Setting(f, bound, n_samples, repeats, generator, vectorized, limit)
    score = _score(bound)
    objective = chosen[0].objective if len({e.objective for e in chosen}) == 1 else "E f"
    applying, skipped = candidates(chosen, setting, objective)
    if not applying:
        raise EstimatorError("no estimator applies: " + "; ".join(why for _, why in skipped))
    if budget is not None:
        sampled = reference is None
        setting, reference_samples = _within(
            setting, budget, applying, reference_samples if sampled else 0
        )
    truth = _reference(setting, applying[0].estimator, score, reference, reference_samples)
    rows = _rows(applying, setting, truth, score, progress)
    name, reason = recommend(rows)
    return EstimatorComparison(
        problem=problem,
        coordinates=bound.coordinates(),
        reference=tuple(truth.mean.tolist()),
        reference_stderr=tuple(truth.stderr.tolist()),
        reference_kind=truth.kind or "none",
        n_samples=n_samples,
        repeats=setting.repeats,
        rows=tuple(rows),
        skipped=tuple(skipped),
        flags=flags_of(rows, setting, truth, score),
        recommendation=name,
        reason=reason,
        score_check=score.reason or "E[score] = 0 within its error",
        budget=budget or 0,
    )


def _score(bound: Family) -> ScoreCheck:
    """E ∇ log p = 0 by the user's own parameters, and by what the distribution holds."""
    distribution = bound.make()
    n_samples = affordable_samples(distribution, THOROUGH, THOROUGH_ELEMENTS)
    named = dict(zip(bound.names, bound.tensors, strict=True))
    verdict = check_score(distribution, n_samples=max(64, n_samples), parameters=named)
    if not verdict.passed:
        return verdict
    held = check_score(
        distribution, n_samples=max(64, n_samples)
    )  # it knows which are probabilities
    return held if not held.passed else verdict


def _rows(
    applying: Sequence[Candidate], setting: Setting, truth: Reference, score: ScoreCheck,
    progress: Progress | None,
) -> list[EstimatorRow]:  # fmt: skip
    rows: list[EstimatorRow] = []
    seconds = interleaved_seconds(applying, setting)
    for index, (candidate, times) in enumerate(zip(applying, seconds, strict=True)):
        rows.append(_row(candidate, setting, truth, score, times))
        if progress is not None:
            progress(
                ProgressEvent(
                    phase="compare", n_done=index + 1, n_total=len(applying),
                    message=f"{candidate.estimator.name}: {rows[-1].verdict}",
                )
            )  # fmt: skip
    return rows


def _row(
    candidate: Candidate, setting: Setting, truth: Reference, score: ScoreCheck,
    times: tuple[float, float],
) -> EstimatorRow:  # fmt: skip
    estimator, (seconds, seconds_stderr) = candidate.estimator, times
    measured = moments(candidate, setting)
    judgement = judge(measured, truth, estimator, score)
    cost = measured.variance * seconds
    relative = (seconds_stderr / seconds) ** 2
    relative += (measured.variance_stderr / measured.variance) ** 2 if measured.variance > 0 else 0
    efficiency = 1 / cost if cost > 0 else float("inf")
    return EstimatorRow(
        estimator=estimator.name,
        declared=estimator.declared,
        unbiased=estimator.unbiased,
        mean=tuple(measured.mean.tolist()),
        mean_stderr=tuple(measured.stderr.tolist()),
        bias_z=judgement.z,
        bias_limit=judgement.limit,
        resolution=judgement.resolution,
        variance=measured.variance,
        variance_stderr=measured.variance_stderr,
        evaluations=candidate.evaluations,
        seconds=seconds,
        seconds_stderr=seconds_stderr,
        efficiency=efficiency,
        efficiency_stderr=efficiency * relative**0.5 if cost > 0 else 0.0,
        verdict=judgement.verdict,
        repeats=measured.count,
    )


def _within(
    setting: Setting, budget: int, applying: Sequence[Candidate], reference_samples: int
) -> tuple[Setting, int]:
    """The setting and the reference's samples, shrunk to so many evaluations of f.

    One estimate of each is already spent. At most half of the rest goes to the reference and a
    tenth to timings.
    """
    one_each = sum(candidate.evaluations for candidate in applying)
    left = budget - one_each
    reference_samples = min(reference_samples, left // 2)
    rounds = max(1, min(setting.rounds, left // (10 * one_each)))
    repeats = min(setting.repeats, (left - reference_samples - rounds * one_each) // one_each)
    if repeats < 2:
        least = 8 * one_each
        raise InputError(
            f"budget={budget}: {len(applying)} estimators of {setting.n_samples} samples take "
            f"{one_each} evaluations of f once. Pass budget>={least}, or fewer of them"
        )
    return replace(setting, repeats=repeats, rounds=rounds), reference_samples


def _reference(
    setting: Setting, first: Estimator, score: ScoreCheck, reference: Any, samples: int
) -> Reference:
    if reference is not None:
        return Reference("exact", _flatten(reference, setting.family))
    if isinstance(first, VIMCO):
        f, groups = grouped(
            setting.f, setting.family, first.particles, vectorized=setting.vectorized
        )
        setting = replace(setting, f=f, family=groups, vectorized=True)
        samples = samples // first.particles
    return reference_of(setting, score, samples=samples)


def _flatten(reference: Any, bound: Family) -> Tensor:
    if isinstance(reference, Mapping):
        parts = [reference[name] for name in bound.names]
    else:
        parts = [reference] if isinstance(reference, Tensor | float | int) else list(reference)
    flat = torch.cat([torch.as_tensor(part).detach().reshape(-1).double() for part in parts])
    expected = sum(tensor.numel() for tensor in bound.tensors)
    if flat.numel() != expected:
        raise InputError(f"reference has {flat.numel()} entries; the parameters have {expected}")
    return flat
