"""Implicit reparameterization: the path of a sample through its cdf, without knowing its inverse.

F(x; θ) = u with u held fixed gives ∂x/∂θ = −∂θF(x; θ)/p(x; θ). In several dimensions the
conditional cdfs F(x_d | x_<d; θ) = u_d are solved one after the other.

Source: Figurnov, Mohamed & Mnih 2018, arXiv 1805.08498, eq. 5 and §3 (mixtures: appendix).
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily

from thetaone.errors import EstimatorError
from thetaone.estimators.distributions._structure import describe, discrete, elementary, trainable


def has_implicit(distribution: Distribution) -> bool:
    """Whether a continuous scalar cdf is known: its own, or that of a mixture's coordinates."""
    base = elementary(distribution)
    inner = elementary(base.component_distribution) if isinstance(base, MixtureSameFamily) else base
    has_cdf = type(inner).cdf is not Distribution.cdf
    coordinates = len(inner.batch_shape) - len(base.batch_shape)
    product = isinstance(base, MixtureSameFamily) and coordinates == 1 + len(base.event_shape)
    scalar = not base.event_shape or (product and len(base.event_shape) == 1)
    return has_cdf and scalar and not inner.event_shape and not discrete(base)


def implicit_sample(distribution: Distribution, x: Tensor) -> Tensor:
    """A sample, x in value, whose first derivative is that of the path.

    Args:
        distribution: pθ, for which ``has_implicit``.
        x: Samples without a graph.

    Raises:
        EstimatorError: torch cannot differentiate the cdf by a parameter.
    """
    base: Any = elementary(distribution)
    _refuse_flat_cdf(distribution, x[:1])
    if base.event_shape:
        return _coordinate_by_coordinate(base, x)
    return _solved(x, base.cdf(x), base.log_prob(x).exp())


def _solved(x: Tensor, cdf: Tensor, density: Tensor) -> Tensor:
    """X − (F − F₀)/p: x in value, −∂F/p in derivative."""
    return x - (cdf - cdf.detach()) / density.detach()


def _coordinate_by_coordinate(mixture: MixtureSameFamily, x: Tensor) -> Tensor:
    """The path of a mixture of products, Σ_k w_k Π_d p_kd(x_d).

    F(x_d | x_<d) = Σ_k r_k F_kd(x_d) with r_k ∝ w_k Π_{j<d} p_kj(x_j), which moves with θ both
    directly and through the coordinates before it.
    """
    component = elementary(mixture.component_distribution)
    wide = x.unsqueeze(-2).expand(*x.shape[:-1], *component.batch_shape[-2:])  # [n, …, k, d]
    cdf = component.cdf(wide)
    at = wide.detach().clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(component.log_prob(at).sum(), at)
    log_p = component.log_prob(wide)
    log_r: Any = mixture.mixture_distribution.logits
    columns: list[Tensor] = []
    for d in range(x.shape[-1]):
        r = log_r.softmax(-1)
        density = (r * log_p[..., d].exp()).sum(-1)
        columns.append(_solved(x[..., d], (r * cdf[..., d]).sum(-1), density))
        moved = (columns[-1] - x[..., d]).unsqueeze(-1)  # 0 in value
        log_r = log_r + log_p[..., d] + slope[..., d] * moved
    return torch.stack(columns, -1)


def _refuse_flat_cdf(distribution: Distribution, x: Tensor) -> None:
    """Raise now, with a way out, what torch would raise in the backward pass."""
    base: Any = elementary(distribution)
    part: Any = base.component_distribution if isinstance(base, MixtureSameFamily) else base
    while isinstance(part, Independent):
        part = part.base_dist
    at = x.unsqueeze(-1 - len(base.event_shape)) if part is not base else x
    try:
        cdf = part.cdf(at).sum()
    except NotImplementedError as error:
        raise EstimatorError(
            f"the cdf of {describe(distribution)} is not known to torch; use LeaveOneOut()"
        ) from error
    if not cdf.requires_grad:
        return
    try:
        torch.autograd.grad(cdf, trainable(distribution), allow_unused=True)
    except NotImplementedError as error:
        raise EstimatorError(
            f"torch cannot differentiate the cdf of {describe(distribution)} ({error}); "
            "use LeaveOneOut()"
        ) from error
