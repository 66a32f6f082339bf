"""log p(x; θ) − log p(x; θ₀) at θ₀ = θ: zero in value, the score in its gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.distributions import Distribution, Normal

from thetaone.errors import EstimatorError
from thetaone.estimators.distributions._structure import (
    describe,
    elementary,
    sum_coordinates,
    widen,
)


def log_ratio(distribution: Distribution, x: Tensor, n_lead: int) -> Tensor:
    """ℓ = log p(x; θ) − log p(x; θ₀), summed behind ``n_lead`` batch dimensions.

    Its value is exactly 0 and ∇θ ℓ is the score s = ∇θ log p(x; θ), so exp(ℓ) is the "magic box"
    of DiCE: 1 in value, and each differentiation brings down one more score.

    Args:
        distribution: pθ.
        x: Samples without a graph, ``[n, *batch_shape, *event_shape]``.
        n_lead: Batch dimensions to keep [count].

    Returns:
        Zeros, ``[n, *batch_shape[:n_lead]]``.

    Raises:
        EstimatorError: log p is NaN or infinite at a sample.

    Source: Foerster et al. 2018, arXiv 1802.05098, eq. 4.
    """
    base = elementary(distribution)
    if type(base) is Normal:
        zeros: Any = _NormalLogRatio.apply(x, base.loc, base.scale, n_lead)
        return zeros
    log_p = log_density(distribution, x, n_lead)
    return log_p - log_p.detach()


def log_density(distribution: Distribution, x: Tensor, n_lead: int) -> Tensor:
    """Log p(x; θ), summed behind ``n_lead`` batch dimensions and finite, ``[n, *lead]``.

    Raises:
        EstimatorError: log p is not known, or NaN or infinite at a sample: one such value spoils
            the gradient.
    """
    try:
        log_p = sum_coordinates(distribution.log_prob(x), n_lead)
    except NotImplementedError as error:
        raise EstimatorError(
            f"log p of {describe(distribution)} is not known to torch: a part of it has no inverse "
            "or no density. Use Pathwise() if it has rsample"
        ) from error
    finite = torch.isfinite(log_p)
    if not bool(finite.all()):
        bad = ~finite.flatten(1).all(1) if log_p.dim() > 1 else ~finite
        first = x[int(bad.nonzero()[0, 0])].detach().flatten()[:4].tolist()
        raise EstimatorError(
            f"log p of {describe(distribution)} is NaN or infinite at {int(bad.sum())} of its own "
            f"{x.shape[0]} samples, first at one that starts with {first}: it was rounded to the "
            "edge of the support. Use float64, another parametrization (a transform in f), or "
            "Pathwise()"
        )
    return log_p


def magic_box(ratio: Tensor) -> Tensor:
    """exp(ℓ) at ℓ = 0: 1 in value; its k-th derivative is that of p(x; θ)/p(x; θ₀)."""
    box: Any = _MagicBox.apply(ratio)
    return box


class _MagicBox(torch.autograd.Function):
    """The exponential of zeros: ones, whose derivative is the box again."""

    @staticmethod
    def forward(ctx: FunctionCtx, ratio: Tensor) -> Tensor:
        ctx.save_for_backward(ratio)
        return torch.ones_like(ratio)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (ratio,) = ctx.saved_tensors
        return grads[0] * magic_box(ratio)


class _NormalLogRatio(torch.autograd.Function):
    """The Gaussian score in closed form: one pass over the samples instead of six.

    ∂ℓ/∂µ = (x − µ)/σ²; ∂ℓ/∂σ = (x − µ)²/σ³ − 1/σ. The backward is written in torch operations on
    saved inputs, so autograd differentiates it again.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, loc: Tensor, scale: Tensor, n_lead: int) -> Tensor:
        ctx.save_for_backward(x, loc, scale)
        return x.new_zeros(x.shape[: 1 + n_lead])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, loc, scale = ctx.saved_tensors
        (weight,) = grads
        centred = x - loc
        for_loc = for_scale = None
        if ctx.needs_input_grad[1]:
            for_loc = _weighted_sum(weight, centred) / scale**2
        if ctx.needs_input_grad[2]:
            second = _weighted_sum(weight, centred**2) / scale**3
            for_scale = second - widen(weight.sum(0), loc) / scale
        return None, for_loc, for_scale, None


def _weighted_sum(weight: Tensor, x: Tensor) -> Tensor:
    """Σ_i w_i x_i over samples; w has the leading dimensions of x."""
    if weight.dim() == 1:
        return (weight @ x.flatten(1)).view(x.shape[1:]) if x.dim() > 1 else weight @ x
    return (widen(weight, x) * x).sum(0)
