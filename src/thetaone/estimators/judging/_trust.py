"""What a gradient is judged against, and the words for the judgement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.estimators._parameters import Family
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import moving_support
from thetaone.estimators.judging._replicates import replicate_gradients
from thetaone.estimators.methods import Enumeration, LeaveOneOut, Pathwise
from thetaone.records import EstimatorRow, Verdict

Z_LIMIT = 4.5
_PER_ESTIMATE = 100  # samples of one of the reference's estimates [count]


@dataclass(frozen=True)
class Reference:
    """The gradient that bias is judged against.

    Attributes:
        kind: Where it comes from.
        mean: ``[P]``.
        error: Its standard error; ``None`` when exact.
    """

    kind: str
    mean: Tensor
    error: Tensor | None

    @property
    def stderr(self) -> Tensor:
        """Standard error of each coordinate, 0 when exact."""
        return torch.zeros_like(self.mean) if self.error is None else self.error

    def resolution(self, stderr: Tensor) -> float:
        """Five joint standard errors over the norm of the gradient; inf for a gradient of 0."""
        joint = (stderr.double() ** 2 + self.stderr**2).sqrt().norm()
        return float(5 * joint / self.mean.norm()) if self.mean.norm() > 0 else float("inf")


def reference_of(
    f: Callable[..., Any],
    made: Family,
    *,
    samples: int,
    generator: torch.Generator | None,
    vectorized: bool,
) -> Reference:
    """Enumeration where the support is small and finite, else leave-one-out, else pathwise.

    Raises:
        EstimatorError: None of the three applies.
    """  # fmt: skip
    options: dict[str, Any] = {"generator": generator, "vectorized": vectorized}
    distribution = made.make()
    if not Enumeration().refusal(distribution):
        exact, _ = replicate_gradients(f, made, Enumeration(), n_samples=1, replicates=1, **options)
        return Reference("enumeration", exact[0].double(), None)
    trusted: Estimator = LeaveOneOut()
    if trusted.refusal(distribution):
        trusted = Pathwise()
    blocks, size = _split(samples)
    parts = [
        replicate_gradients(f, made, trusted, n_samples=_PER_ESTIMATE, replicates=size, **options)
        for _ in range(blocks)
    ]
    gradients = torch.cat([gradient for gradient, _ in parts]).double()
    kind = f"{trusted.name}, {gradients.shape[0] * _PER_ESTIMATE} samples"
    return Reference(kind, gradients.mean(0), gradients.std(0) / gradients.shape[0] ** 0.5)


def _split(samples: int) -> tuple[int, int]:
    estimates = max(2, samples // _PER_ESTIMATE)
    size = min(estimates, 1000)
    return max(1, estimates // size), size


def verdict(
    mean: Tensor, stderr: Tensor, truth: Reference, *, unbiased: bool
) -> tuple[Verdict, float]:
    """In words, and the z-score of the coordinate that is furthest off."""
    rounding = 1e-6 * truth.mean.abs().max() if mean.dtype == torch.float32 else 0
    joint = (stderr.double() ** 2 + truth.stderr**2).sqrt()
    scale = torch.maximum(joint, rounding + 1e-9 * truth.mean.abs() + 1e-12)
    z = (mean.double() - truth.mean) / scale
    worst = float(z[z.abs().argmax()])
    if abs(worst) > Z_LIMIT:
        return ("biased" if unbiased else "biased as declared"), worst
    if truth.resolution(stderr) > 0.5:
        return "too noisy to tell", worst
    return "agrees", worst


def flags_of(
    rows: Sequence[EstimatorRow], distribution: Distribution, kind: str
) -> tuple[str, ...]:
    """What the user should know before trusting a gradient here."""
    flags: list[str] = []
    if moving_support(distribution):
        flags.append(
            "the support moves with a parameter: estimators from the score do not apply, and the "
            "reference here is not independent of pathwise"
        )
    for row in rows:
        if (
            row.estimator.startswith(("Pathwise", "Antithetic(Pathwise"))
            and row.verdict == "biased"
        ):
            flags.append(
                f"{row.estimator} disagrees with {kind} by {abs(row.bias_z):.0f} standard errors: "
                "f jumps, or its derivative is cut off somewhere; do not use its gradient"
            )
        elif row.unbiased and row.verdict == "biased":
            flags.append(
                f"{row.estimator} claims to be unbiased and is off by {abs(row.bias_z):.0f} "
                "standard errors: a support that moves with a parameter, or a fault in f"
            )
        elif not row.unbiased:
            flags.append(f"{row.estimator} is {row.declared}")
    return tuple(flags)


def recommend(rows: Sequence[EstimatorRow]) -> tuple[str, str]:
    """The trusted estimator of greatest efficiency, and why; empty strings when there is none."""
    trusted = [row for row in rows if row.trusted]
    if not trusted:
        return "", ""
    best = max(trusted, key=lambda row: (row.efficiency, -row.seconds))
    if best.variance == 0:
        return best.estimator, "no noise at all"
    others = [row for row in trusted if row is not best]
    if not others:
        return best.estimator, "the only one that can be trusted here"
    second = max(others, key=lambda row: row.efficiency)
    ratio = best.efficiency / second.efficiency
    return best.estimator, (
        f"{ratio:.2g} times as efficient (1 / (variance × time)) as {second.estimator}"
    )
