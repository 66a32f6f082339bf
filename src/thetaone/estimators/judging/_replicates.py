"""Many independent estimates at once: the distribution expanded, f applied to all of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators._expectation import surrogate_rows
from thetaone.estimators._gradient_samples import jacobian_by_columns
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._parameters import Family
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import describe
from thetaone.estimators.methods import tensors_of_both


def replicate_gradients(
    f: Callable[..., Any],
    family: Family,
    estimator: Estimator,
    *,
    n_samples: int,
    replicates: int,
    generator: torch.Generator | None,
    vectorized: bool = True,
) -> tuple[Tensor, int]:
    """Independent estimates of the gradient, each from ``n_samples`` samples of its own.

    Args:
        f: Takes samples ``[n, *batch_shape, *event_shape]``, returns ``[n]``; separate expectations
            are summed.
        family: Makes the distribution.
        estimator: What is measured. Its state, if it has one, goes on between calls.
        n_samples: Samples of one estimate [count].
        replicates: Estimates [count].
        generator: Where randomness comes from.
        vectorized: As for ``expectation``.

    Returns:
        Gradients flattened and joined, ``[replicates, P]``; evaluations of f for one estimate.

    Raises:
        EstimatorError: The estimator does not apply, or the distribution has no ``expand``.
    """
    with torch.enable_grad():
        one = family.make()
        many = _expand(one, replicates)
        integrand = Integrand(_Flat(f, one, vectorized), many)
        rows = surrogate_rows(integrand, many, estimator, n_samples, generator)
        if not rows.requires_grad:
            raise EstimatorError(f"{describe(one)} does not depend on the parameters")
        gradients = jacobian_by_columns(rows.mean(0), family.tensors)
        if not gradients:
            gradients = _through_own_tensors(rows.mean(0), one, many, family)
    flat = torch.cat([gradient.reshape(replicates, -1) for gradient in gradients], 1)
    return flat.detach(), integrand.evaluations


class _Flat:
    """f on samples ``[n, replicates, …]``: flattened for f, folded back for the estimator."""

    def __init__(self, f: Callable[..., Any], one: Distribution, vectorized: bool) -> None:
        self.inner = Integrand(f, one, vectorized=vectorized)

    def __call__(self, x: Tensor) -> Tensor:
        values = self.inner(x.flatten(0, 1))
        if values.dim() > 1:
            values = values.flatten(1).sum(1)
        return values.unflatten(0, x.shape[:2])


def _through_own_tensors(
    estimates: Tensor, one: Distribution, many: Distribution, family: Family
) -> list[Tensor]:
    """Each replicate's gradient by tensors of its own, then back to the parameters."""
    pairs = dict(tensors_of_both(one, many))
    by_own = torch.autograd.grad(estimates.sum(), list(pairs.values()))
    parts = torch.autograd.grad(
        list(pairs), family.tensors, list(by_own), is_grads_batched=True, allow_unused=True
    )
    replicates = estimates.shape[0]
    return [
        tensor.new_zeros((replicates, *tensor.shape)) if part is None else part
        for part, tensor in zip(parts, family.tensors, strict=True)
    ]


def _expand(distribution: Distribution, replicates: int) -> Distribution:
    try:
        return distribution.expand(torch.Size((replicates, *distribution.batch_shape)))
    except NotImplementedError as error:
        raise EstimatorError(
            f"{describe(distribution)} does not implement expand, so independent estimates cannot "
            "be made side by side; implement expand, or use gradient_samples"
        ) from error
