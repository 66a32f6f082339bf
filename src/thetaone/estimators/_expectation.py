"""``expectation``: draws, evaluates f, and hands back a value that knows its gradient."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators._automatic import choose
from thetaone.estimators._first_order_only import once_only
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator, refusal_of
from thetaone.estimators._score_warning import warn_of_score
from thetaone.estimators.distributions import describe, trainable
from thetaone.records import parse_bytes, student_limit


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """An estimate of E f(x) that carries its standard error and its gradient.

    Attributes:
        value: The estimate, on the graph: put it in a loss, or call ``backward``. ``[*lead]``.
        n_samples: Samples drawn [count].
        evaluations: Evaluations of f [count].
        estimator: Name of the estimator.
        declared: ``unbiased``, or of what the gradient is the gradient instead.
        reason: Why this estimator, when it was chosen automatically.
        units: The independent numbers that the value is the mean of, without a graph.
            ``[units, *lead]``.
        exact: Whether the value has no randomness.

    Examples:
        >>> from torch.distributions import Bernoulli
        >>> p = torch.tensor(0.25, requires_grad=True)
        >>> e = expectation(lambda b: 8 * b, Bernoulli(p))
        >>> e.backward()
        >>> e.value.item(), e.stderr.item(), p.grad.item()
        (2.0, 0.0, 8.0)
    """

    value: Tensor
    n_samples: int
    evaluations: int
    estimator: str
    declared: str
    reason: str = ""
    units: Tensor = field(repr=False)
    exact: bool = False

    @property
    def n_units(self) -> int:
        """Independent numbers that the standard error is made of [count]."""
        return self.units.shape[0]

    @cached_property
    def stderr(self) -> Tensor:
        """Standard error of the value, NaN for a single unit, 0 when exact. ``[*lead]``."""
        if self.exact:
            return torch.zeros_like(self.units[0])
        if self.n_units < 2:
            return torch.full_like(self.units[0], float("nan"))
        return self.units.std(0) / self.n_units**0.5

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """Ends of Student's interval for E f, ``[*lead]`` each; NaN for a single unit."""
        value = self.value.detach()
        freedom = max(1, self.n_units - 1)
        half = self.stderr * student_limit(freedom, alarm=1 - confidence)
        return value - half, value + half

    def backward(self, gradient: Tensor | None = None, **options: Any) -> None:
        """Accumulate the gradient into the parameters and whatever produced them.

        Args:
            gradient: Weight of each expectation, ``[*lead]``; needed when there are several.
            options: ``retain_graph``, ``create_graph``, ``inputs`` of ``Tensor.backward``.
        """
        if gradient is None and self.value.dim():
            raise EstimatorError(
                f"{tuple(self.value.shape)} expectations: backward needs one number. Pass "
                "gradient=..., or use e.value.mean().backward()"
            )
        self.value.backward(gradient, **options)

    def __str__(self) -> str:
        by = f"{self.estimator}, {self.n_samples} samples, {self.declared}"
        if self.value.dim():
            return f"{tuple(self.value.shape)} expectations ({by})"
        return f"{self.value.item():.6g} ± {self.stderr.item():.2g} ({by})"


def expectation(
    f: Callable[..., Any],
    distribution: Distribution,
    *,
    estimator: Estimator | str = "auto",
    n_samples: int = 64,
    generator: torch.Generator | None = None,
    vectorized: bool = True,
    max_bytes: int | str | None = None,
    check: bool | None = None,
) -> Expectation:
    """E_{x∼pθ} f(x) with its standard error and an estimate of ∇θ.

    Args:
        f: Takes samples ``[n, *batch_shape, *event_shape]``, returns ``[n]`` for one expectation
            over the whole batch, or ``[n, *batch_shape[:k]]`` for separate ones (row b of the
            values may depend on row b of the sample only). It may hold parameters: their gradient
            is exact. It may be a black box unless the estimator differentiates it.
        distribution: Any torch distribution whose parameters require grad.
        estimator: An ``Estimator``, or ``"auto"``: chosen by what distribution and f allow.
        n_samples: Samples to draw [count].
        generator: Where randomness comes from; ``None`` for torch's global RNG.
        vectorized: ``False`` when f takes one sample at a time.
        max_bytes: Most bytes of samples handed to f at once, a number or ``"64MiB"``. What f keeps
            for its backward is recomputed chunk by chunk.
        check: Whether to test E ∇ log p = 0 first when the estimator relies on it (no evaluation of
            f; a warning names tensor, z and remedy). None: the first time that the process meets
            the distribution's class, shape and dtype, where it costs some 10 ms; True: now, with
            131 072 samples; False: never.

    Returns:
        The estimate; see ``Expectation``.

    Warns:
        EstimatorWarning: The score's mean is not 0: gradients from it are wrong.

    Raises:
        EstimatorError: The estimator does not apply, f returns the wrong thing, or nothing
            requires grad.

    Examples:
        >>> mu = torch.tensor(0.3, requires_grad=True)
        >>> e = expectation(lambda x: x**2, torch.distributions.Normal(mu, 1.0),
        ...                 n_samples=100_000, generator=torch.Generator().manual_seed(0))
        >>> e.backward()
        >>> abs(mu.grad.item() - 0.6) < 0.03
        True
    """
    integrand = make_integrand(f, distribution, vectorized=vectorized, max_bytes=max_bytes)
    chosen, reason = resolve(estimator, integrand, distribution, n_samples, generator)
    rows = surrogate_rows(integrand, distribution, chosen, n_samples, generator, check=check)
    _refuse_nothing_to_train(rows, distribution)
    return Expectation(
        value=rows.mean(0),
        n_samples=n_samples,
        evaluations=integrand.evaluations,
        estimator=chosen.name,
        declared=chosen.declared,
        reason=reason,
        units=rows.detach(),
        exact=chosen.exact,
    )


def make_integrand(
    f: Callable[..., Any],
    distribution: Distribution,
    *,
    vectorized: bool = True,
    max_bytes: int | str | None = None,
) -> Integrand:
    """An integrand with its checks; see ``expectation`` for the arguments."""
    if not isinstance(distribution, Distribution):
        raise EstimatorError(
            f"distribution is a {type(distribution).__name__}; pass a torch.distributions object"
        )
    limit = None if max_bytes is None else parse_bytes(max_bytes, where="max_bytes")
    return Integrand(f, distribution, vectorized=vectorized, max_bytes=limit)


def resolve(
    estimator: Estimator | str,
    f: Integrand,
    distribution: Distribution,
    n_samples: int,
    generator: torch.Generator | None,
) -> tuple[Estimator, str]:
    """The estimator to use, and why when it was chosen automatically."""
    if isinstance(estimator, Estimator):
        return estimator, ""
    if estimator != "auto":
        raise EstimatorError(
            f"estimator={estimator!r}: pass 'auto' or an estimator object such as LeaveOneOut()"
        )
    return choose(f, distribution, n_samples, generator)


def surrogate_rows(
    f: Integrand,
    distribution: Distribution,
    estimator: Estimator,
    n_samples: int,
    generator: torch.Generator | None,
    *,
    check: bool | None = False,
) -> Tensor:
    """The surrogate of each unit, ``[units, *lead]``: value an estimate, gradient an estimate.

    The one path from samples to gradients: ``expectation`` takes the mean of its rows,
    ``gradient_samples`` their derivatives, ``compare_estimators`` many of both.
    """
    refuse(estimator, distribution, n_samples)
    warn_of_score(estimator, distribution, f.checks, check=check)
    draws = estimator.draw(distribution, n_samples, generator)
    rows = estimator.surrogate(f, distribution, draws)
    f.checks.settle()
    if estimator.higher_order:
        return rows
    return once_only(rows, trainable(distribution), estimator.name)


def refuse(estimator: Estimator, distribution: Distribution, n_samples: int) -> None:
    """Raise when the estimator does not apply.

    Raises:
        InputError: No samples asked for.
        EstimatorError: Too few samples, or the estimator refuses the distribution.
    """
    if not isinstance(n_samples, int) or n_samples < 1:
        raise InputError(f"n_samples={n_samples!r}: need a whole number of at least 1")
    if n_samples < estimator.min_samples:
        raise EstimatorError(
            f"{estimator.name} with n_samples={n_samples}: it needs at least "
            f"{estimator.min_samples}, or there is no other sample to compare with. "
            f"Pass n_samples>={estimator.min_samples}, or use ScoreFunction()"
        )
    refusal = refusal_of(estimator, distribution)
    if refusal:
        raise EstimatorError(f"{estimator.name} does not apply: {refusal}")


def _refuse_nothing_to_train(rows: Tensor, distribution: Distribution) -> None:
    if rows.requires_grad or not torch.is_grad_enabled():
        return
    raise EstimatorError(
        f"no parameter of {describe(distribution)} requires grad, and f holds none: there is "
        "nothing to differentiate. Call requires_grad_() on a parameter before making the "
        "distribution, or wrap the call in torch.no_grad() for the value alone"
    )
