"""Many independent estimates: side by side on the distribution expanded, or one after another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators._expectation import make_integrand, surrogate_rows
from thetaone.estimators._gradient_samples import adds_up, jacobian_by_columns, refuse_not_finite
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._parameters import Family
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import describe, expand_apart

_CALL = 300_000  # numbers that one call more is worth: a fixed cost of about 0.3 ms [count]


@dataclass(frozen=True)
class Replicates:
    """Independent estimates of one gradient.

    Attributes:
        gradients: Flattened and joined over parameters, ``[replicates, P]``.
        evaluations: Evaluations of f for one estimate [count].
    """

    gradients: Tensor
    evaluations: int


def replicate_gradients(
    f: Callable[..., Any],
    family: Family,
    estimator: Estimator,
    *,
    n_samples: int,
    replicates: int,
    generator: torch.Generator | None,
    vectorized: bool = True,
) -> Replicates:
    """Independent estimates of the gradient, each from ``n_samples`` samples of its own.

    The gradient is that of ``expectation``: through the samples, through log p, and through what f
    holds. Side by side where the distribution expands and the parameters are few (the gradients of
    R estimates by P parameters take P passes over all of them), else one after another.

    Args:
        f: Takes samples ``[n, *batch_shape, *event_shape]``, returns ``[n]``; separate expectations
            are summed.
        family: Makes the distribution.
        estimator: What is measured. Its state, if it has one, goes on between calls.
        n_samples: Samples of one estimate [count].
        replicates: Estimates [count].
        generator: Where randomness comes from.
        vectorized: As for ``expectation``.

    Raises:
        EstimatorError: The estimator does not apply, or a gradient is NaN or infinite.
    """
    options: dict[str, Any] = {"generator": generator, "vectorized": vectorized}
    together: Replicates | None = None
    with torch.enable_grad():
        if replicates > 1 and _cheaper_together(family, n_samples):
            together = _side_by_side(f, family, estimator, n_samples, replicates, **options)
        result = together or _one_by_one(f, family, estimator, n_samples, replicates, **options)
    sizes = [tensor.numel() for tensor in family.tensors]
    refuse_not_finite(result.gradients.split(sizes, 1), family.names)
    return result


def together_at_most(family: Family, n_samples: int, *, elements: int) -> int:
    """Estimates whose samples hold no more than so many numbers side by side [count]."""
    return max(1, elements // (n_samples * _numbers(family)))


def _numbers(family: Family) -> int:
    one = family.make()
    return max(1, torch.Size((*one.batch_shape, *one.event_shape)).numel())


def _cheaper_together(family: Family, n_samples: int) -> bool:
    parameters = sum(tensor.numel() for tensor in family.tensors)
    once = n_samples * _numbers(family)
    return parameters * once <= once + _CALL


def _one_by_one(
    f: Callable[..., Any], family: Family, estimator: Estimator, n_samples: int, replicates: int,
    *, generator: torch.Generator | None, vectorized: bool,
) -> Replicates:  # fmt: skip
    rows: list[Tensor] = []
    evaluations = 0
    for _ in range(replicates):
        distribution = family.make()
        integrand = make_integrand(f, distribution, vectorized=vectorized)
        units = surrogate_rows(integrand, distribution, estimator, n_samples, generator)
        _refuse_independent(units, distribution)
        parts = torch.autograd.grad(
            units.mean(0).sum(), family.tensors, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([part.detach().reshape(-1) for part in parts]))
        evaluations = integrand.evaluations
    return Replicates(torch.stack(rows), evaluations)


def _side_by_side(
    f: Callable[..., Any], family: Family, estimator: Estimator, n_samples: int, replicates: int,
    *, generator: torch.Generator | None, vectorized: bool,
) -> Replicates | None:  # fmt: skip
    """None where the distribution does not expand, or not into tensors of its own."""
    one = family.make()
    try:
        many, copies = _expand(one, replicates)
    except NotImplementedError:
        return None
    integrand = Integrand(_Flat(f, one, vectorized), many)
    estimates = surrogate_rows(integrand, many, estimator, n_samples, generator).mean(0)
    _refuse_independent(estimates, one)
    gradients = jacobian_by_columns(estimates, family.tensors)
    if not gradients:
        gradients = _through_copies(estimates, copies, family)
    if not gradients:
        return None
    flat = torch.cat([gradient.reshape(replicates, -1) for gradient in gradients], 1)
    return Replicates(flat.detach(), integrand.evaluations)


class _Flat:
    """f on samples ``[n, replicates, …]``: flattened for f, folded back for the estimator."""

    def __init__(self, f: Callable[..., Any], one: Distribution, vectorized: bool) -> None:
        self.inner = Integrand(f, one, vectorized=vectorized)

    def __call__(self, x: Tensor) -> Tensor:
        values = self.inner(x.flatten(0, 1))
        if values.dim() > 1:
            values = values.flatten(1).sum(1)
        return values.unflatten(0, x.shape[:2])


def _expand(one: Distribution, replicates: int) -> tuple[Distribution, dict[Tensor, Tensor]]:
    try:
        return expand_apart(one, replicates)
    except EstimatorError:  # no tensor of its own for each: columns may do without
        return one.expand(torch.Size((replicates, *one.batch_shape))), {}


def _through_copies(
    estimates: Tensor, copies: dict[Tensor, Tensor], family: Family
) -> list[Tensor]:
    """Each replicate's gradient by tensors of its own, then back to the parameters.

    Empty where these parts do not add up to the gradient of the sum: f holds the parameters too.
    """
    if not copies:
        return []
    options: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
    whole = torch.autograd.grad(estimates.sum(), family.tensors, materialize_grads=True, **options)
    by_copy = torch.autograd.grad(
        estimates.sum(), list(copies.values()), materialize_grads=True, **options
    )
    parts = torch.autograd.grad(
        list(copies), family.tensors, list(by_copy), is_grads_batched=True, allow_unused=True,
        retain_graph=True,
    )  # fmt: skip
    columns = [
        tensor.new_zeros((estimates.shape[0], *tensor.shape)) if part is None else part
        for part, tensor in zip(parts, family.tensors, strict=True)
    ]
    together = all(adds_up(column, total) for column, total in zip(columns, whole, strict=True))
    return columns if together else []


def _refuse_independent(rows: Tensor, distribution: Distribution) -> None:
    if not rows.requires_grad:
        raise EstimatorError(f"{describe(distribution)} does not depend on the parameters")
