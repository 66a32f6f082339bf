"""What a gradient is judged against, and the words for the judgement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite

import torch
from torch import Tensor

from thetaone.estimators._protocol import Estimator, refusal_of
from thetaone.estimators.distributions import ScoreCheck, moving_support
from thetaone.estimators.judging._jumps import jump_along_paths
from thetaone.estimators.judging._measurement import Moments, Setting
from thetaone.estimators.judging._replicates import replicate_gradients
from thetaone.estimators.methods import Enumeration, LeaveOneOut, MeasureValued, Pathwise
from thetaone.records import EstimatorRow, Verdict, student_limit

PER_ESTIMATE = 100  # samples of one of the reference's estimates [count]
MISSING = 6.0  # furthest estimates that so many may lack by chance [count]
STILL = (
    193  # equal estimates after which an outcome of 1 in 16 would have shown, but once in 150 000
)


@dataclass(frozen=True)
class Reference:
    """The gradient that bias is judged against.

    Attributes:
        kind: Where it comes from; empty when there is none.
        mean: ``[P]``.
        error: Its standard error; ``None`` when exact.
        count: Estimates that the error is known from; 0 when exact [count].
        jump: What shows that f jumps, where pathwise was to be the reference; empty otherwise.
    """

    kind: str
    mean: Tensor
    error: Tensor | None = None
    count: int = 0
    jump: str = ""

    @property
    def stderr(self) -> Tensor:
        """Standard error of each coordinate, 0 when exact."""
        return torch.zeros_like(self.mean) if self.error is None else self.error


@dataclass(frozen=True)
class Judgement:
    """A verdict in words with its numbers.

    Attributes:
        verdict: In words.
        z: Of the coordinate that is furthest off; NaN without a reference.
        limit: |z| that chance exceeds once in 150 000 comparisons.
        resolution: The bias that could be seen, over the norm of the gradient; inf for 0.
    """

    verdict: Verdict
    z: float
    limit: float
    resolution: float


def reference_of(setting: Setting, score: ScoreCheck, *, samples: int) -> Reference:
    """Enumeration where the support is small and finite, else leave-one-out, else a path.

    Leave-one-out is no reference where E[score] is not 0: pathwise takes its place, unless f jumps,
    then measure-valued. Where none applies nothing can be judged, and the reference says so.
    """
    distribution = setting.family.make()
    if not refusal_of(Enumeration(), distribution):
        exact = _estimates(Enumeration(), replace(setting, n_samples=1), 1)
        return Reference("enumeration", exact[0].double())
    trusted: list[Estimator] = [Pathwise(), MeasureValued()]
    if score.passed:
        trusted.insert(0, LeaveOneOut())
    jump = ""
    for estimator in trusted:
        if refusal_of(estimator, distribution):
            continue
        if isinstance(estimator, Pathwise):
            jump = jump_along_paths(setting, samples // 8)
            samples -= 3 * (samples // 8)
            if jump:
                continue
        gradients = _estimates(
            estimator, replace(setting, n_samples=PER_ESTIMATE), max(2, samples // PER_ESTIMATE)
        ).double()
        count = gradients.shape[0]
        kind = f"{estimator.name}, {count * PER_ESTIMATE} samples"
        return Reference(kind, gradients.mean(0), gradients.std(0) / count**0.5, count, jump)
    size = sum(tensor.numel() for tensor in setting.family.tensors)
    return Reference("", torch.full((size,), float("nan"), dtype=torch.float64), jump=jump)


def _estimates(estimator: Estimator, setting: Setting, count: int) -> Tensor:
    block = max(1, min(count, setting.side_by_side, 1000))
    parts = [
        replicate_gradients(
            setting.f, setting.family, estimator, n_samples=setting.n_samples,
            replicates=min(block, count - start), generator=setting.generator,
            vectorized=setting.vectorized,
        ).gradients
        for start in range(0, count, block)
    ]  # fmt: skip
    return torch.cat(parts)


def judge(moments: Moments, truth: Reference, estimator: Estimator, score: ScoreCheck) -> Judgement:
    """The coordinate that is furthest off, by Student's quantile for the largest of P.

    A rare outcome that carries the gradient (a Bernoulli of probability 0.01, a step that samples
    seldom cross) makes estimates far from normal: the mean must lie ``MISSING`` times the furthest
    estimate further off, and where few estimates are all equal nothing is said.
    """
    mean, stderr = moments.mean.double(), moments.stderr.double()
    rounding = 1e-6 * truth.mean.abs().max() if moments.mean.dtype == torch.float32 else 0
    joint = (stderr**2 + truth.stderr**2).sqrt()
    room = MISSING * moments.furthest.double() / moments.count
    floor = rounding + 1e-9 * truth.mean.abs() + 1e-12
    scale = torch.maximum(joint, floor)
    off = mean - truth.mean
    z = off.sign() * (off.abs() - room).clamp(min=0) / scale
    freedom = _freedom(stderr, moments.count, truth)
    limit = student_limit(freedom, comparisons=mean.numel())
    few = (stderr <= floor) & (moments.count < STILL) & (not estimator.exact)
    unknown = few & (z.abs() > limit)
    z = torch.where(unknown, torch.zeros_like(z), z)
    size = float(truth.mean.norm())
    resolution = float((limit * joint + room).norm() / size) if size > 0 else inf
    worst = float(z[z.abs().argmax()])
    if estimator.uses_score and not score.passed:
        verdict: Verdict = "score not centred"
    elif not truth.kind and truth.jump and estimator.differentiates:
        verdict, worst = "biased" if estimator.unbiased else "biased as declared", float("nan")
    elif not truth.kind:
        verdict, worst = "no reference", float("nan")
    elif abs(worst) > limit:
        verdict = "biased" if estimator.unbiased else "biased as declared"
    elif bool(unknown.any()):
        verdict, resolution = "too noisy to tell", inf
    else:
        verdict = "agrees" if resolution <= 0.5 else "too noisy to tell"
    return Judgement(verdict, worst, limit, resolution)


def _freedom(stderr: Tensor, count: int, truth: Reference) -> float:
    """Fewest degrees of freedom of a coordinate's difference (Welch and Satterthwaite)."""
    of_mean = stderr**4 / (count - 1) if count > 1 else torch.zeros_like(stderr)
    of_truth = truth.stderr**4 / (truth.count - 1) if truth.count > 1 else torch.zeros_like(stderr)
    total = of_mean + of_truth
    freedom = (stderr**2 + truth.stderr**2) ** 2 / total
    freedom = torch.where(total > 0, freedom, torch.full_like(freedom, inf))
    return max(1.0, float(freedom.min())) if freedom.numel() else inf


def flags_of(
    rows: Sequence[EstimatorRow], setting: Setting, truth: Reference, score: ScoreCheck
) -> tuple[str, ...]:
    """What the user should know before trusting a gradient here."""
    flags: list[str] = []
    moves = moving_support(setting.family.make())
    if moves:
        flags.append(f"the support {moves}")
    if not score.passed:
        flags.append(
            f"{score.reason}: no estimator that relies on the score is believed here. Use float64, "
            "another parametrization, or Pathwise()"
        )
    if truth.jump:
        flags.append(f"{truth.jump}; no estimator that differentiates f is believed here")
    if truth.kind.startswith("Pathwise"):
        flags.append(
            "the reference here is not independent of pathwise: what a jump too small to be seen "
            "along the paths adds would be missing from both"
        )
    flags += [flag for row in rows if (flag := _flag_of_row(row, truth.kind))]
    return tuple(flags)


def _flag_of_row(row: EstimatorRow, kind: str) -> str:
    if row.unbiased and row.verdict == "biased" and kind:  # else the jump is told already
        if row.estimator.startswith(("Pathwise", "Antithetic(Pathwise")):
            return (
                f"{row.estimator} disagrees with {kind} by {abs(row.bias_z):.0f} standard errors: "
                "f jumps, or its derivative is cut off somewhere; do not use its gradient"
            )
        return (
            f"{row.estimator} claims to be unbiased and is off by {abs(row.bias_z):.0f} "
            "standard errors: a support that moves with a parameter, or a fault in f"
        )
    return "" if row.unbiased else f"{row.estimator} is {row.declared}"


def recommend(rows: Sequence[EstimatorRow]) -> tuple[str, str]:
    """The trusted estimator of greatest efficiency, and why; empty strings when there is none.

    Where no row can tell bias from noise (a gradient of 0), the variances alone still say which.
    """
    trusted = [row for row in rows if row.trusted]
    caveat = ""
    if not trusted:
        trusted = [row for row in rows if row.unbiased and row.verdict == "too noisy to tell"]
        caveat = "no bias can be told from noise here; by variance and time alone: "
    if not trusted:
        return "", ""
    best = max(trusted, key=lambda row: (row.efficiency, -row.seconds))
    if best.variance == 0:
        return best.estimator, f"{caveat}no noise at all"
    others = [row for row in trusted if row is not best]
    if not others:
        return best.estimator, f"{caveat}the only one that can be trusted here"
    second = max(others, key=lambda row: row.efficiency)
    ratio = best.efficiency / second.efficiency
    times = f"{ratio:.2g} times as efficient" if isfinite(ratio) else "more efficient"
    return best.estimator, f"{caveat}{times} (1 / (variance × time)) as {second.estimator}"
