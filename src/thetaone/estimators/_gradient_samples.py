"""``gradient_samples``: the gradient of every single sample, to see bias and spread."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators._expectation import make_integrand, resolve, surrogate_rows
from thetaone.estimators._parameters import Parameters, family
from thetaone.estimators._protocol import Estimator


def gradient_samples(
    f: Callable[..., Any],
    make_distribution: Callable[..., Distribution],
    params: Parameters,
    *,
    estimator: Estimator | str = "auto",
    n_samples: int = 64,
    generator: torch.Generator | None = None,
    vectorized: bool = True,
    max_bytes: int | str | None = None,
    check: bool | None = None,
) -> Any:
    """The estimate of ∇θ E f(x) that each unit of the estimator gives by itself.

    The mean over rows is the gradient that ``expectation`` gives from the same draws; the spread
    is its noise. A unit is a sample, an antithetic pair, or a group of K. Rows of an estimator that
    shares a baseline (leave-one-out) are not independent of each other. Separate expectations are
    summed.

    Args:
        f: As for ``expectation``.
        make_distribution: Makes the distribution of the parameters; see ``params``.
        params: A tensor (the one argument), a sequence (positional arguments), a mapping (by name,
            or whole), or the tensors that a ``make_distribution`` without arguments holds.
        estimator: As for ``expectation``.
        n_samples: Samples to draw [count].
        generator: Where randomness comes from; ``None`` for torch's global RNG.
        vectorized: ``False`` when f takes one sample at a time.
        max_bytes: As for ``expectation``.
        check: As for ``expectation``.

    Returns:
        The structure of ``params``, each ``[units, *parameter.shape]``.

    Raises:
        EstimatorError: As ``expectation``, or a parameter that cannot have a gradient.

    Examples:
        >>> s = gradient_samples(lambda x: x**2, lambda mu: torch.distributions.Normal(mu, 1.0),
        ...                      torch.tensor(0.3), n_samples=1000,
        ...                      generator=torch.Generator().manual_seed(0))
        >>> s.shape
        torch.Size([1000])
    """
    bound = family(make_distribution, params)
    with torch.enable_grad():
        distribution = bound.make()
        integrand = make_integrand(f, distribution, vectorized=vectorized, max_bytes=max_bytes)
        chosen, _ = resolve(estimator, integrand, distribution, n_samples, generator)
        rows = surrogate_rows(integrand, distribution, chosen, n_samples, generator, check=check)
        if not rows.requires_grad:
            raise EstimatorError(
                f"the distribution does not depend on {', '.join(bound.names)}: check that "
                "make_distribution uses its arguments without detaching them"
            )
        columns = jacobian(rows.flatten(1).sum(1) if rows.dim() > 1 else rows, bound.tensors)
    refuse_not_finite(columns, bound.names)
    return bound.rebuild(columns)


def refuse_not_finite(gradients: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raise when a gradient is NaN or infinite though f and log p are finite.

    Raises:
        EstimatorError: Names the parameter.
    """
    for name, gradient in zip(names, gradients, strict=True):
        bad = int((~torch.isfinite(gradient)).sum())
        if bad:
            raise EstimatorError(
                f"{bad} of {gradient.numel()} entries of the gradient by {name} are NaN or "
                "infinite, though f is finite: its derivative, or that of log p, is not. Use "
                "float64, or keep samples off the edge of the support"
            )


def jacobian(rows: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """∂rows/∂tensor for each tensor, ``[units, *tensor.shape]``.

    By columns when there are fewer parameters than rows: vᵀJ is linear in v, so its derivative with
    respect to v is J, one pass a parameter entry, each over all rows at once. Otherwise by rows.
    """
    if sum(tensor.numel() for tensor in tensors) > rows.shape[0]:
        return _by_rows(rows, tensors)
    return jacobian_by_columns(rows, tensors) or _by_rows(rows, tensors)


def jacobian_by_columns(rows: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """As ``jacobian``, one pass a parameter entry; empty when a backward hides its linearity.

    A backward marked once-differentiable (the Dirichlet's, in torch) cuts vᵀJ off from v, wholly or
    in one of its terms: the columns must add up to vᵀJ at v = 1.
    """
    v = torch.ones_like(rows, requires_grad=True)
    products = torch.autograd.grad(rows, tensors, v, create_graph=True, allow_unused=True)
    columns: list[Tensor] = []
    for product, tensor in zip(products, tensors, strict=True):
        column = v.new_zeros((v.shape[0], tensor.numel()))
        for index, entry in enumerate([] if product is None else product.flatten()):
            if not entry.requires_grad:
                return []
            (part,) = torch.autograd.grad(entry, v, retain_graph=True, allow_unused=True)
            if part is None:
                return []
            column[:, index] = part
        if product is not None and not adds_up(column, product.detach().flatten()):
            return []
        columns.append(column.view(v.shape[0], *tensor.shape))
    return columns


def adds_up(rows: Tensor, total: Tensor) -> bool:
    """Whether rows sum to a total within the rounding of their dtype."""
    room = 1e-3 if rows.dtype == torch.float32 else 1e-8
    return bool(((rows.sum(0) - total).abs() <= room * rows.abs().sum(0) + 1e-12).all())


def _by_rows(rows: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    out = [tensor.new_zeros((rows.shape[0], *tensor.shape)) for tensor in tensors]
    for index, row in enumerate(rows):
        gradients = torch.autograd.grad(row, tensors, retain_graph=True, allow_unused=True)
        for column, gradient in zip(out, gradients, strict=True):
            if gradient is not None:
                column[index] = gradient
    return out
