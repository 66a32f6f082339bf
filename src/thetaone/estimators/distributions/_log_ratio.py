"""log p(x; θ) − log p(x; θ₀) at θ₀ = θ: zero in value, the score in its gradient."""

from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from thetaone.errors import EstimatorError
from thetaone.estimators.distributions._host_checks import HostChecks
from thetaone.estimators.distributions._structure import (
    describe,
    elementary,
    sum_coordinates,
)


def log_ratio(
    distribution: Distribution, x: Tensor, n_lead: int, checks: HostChecks | None = None
) -> Tensor:
    """ℓ = log p(x; θ) − log p(x; θ₀), summed behind ``n_lead`` batch dimensions.

    Its value is exactly 0 and ∇θ ℓ is the score s = ∇θ log p(x; θ), so exp(ℓ) is the "magic box"
    of DiCE: 1 in value, and each differentiation brings down one more score.

    Args:
        distribution: pθ.
        x: Samples without a graph, ``[n, *batch_shape, *event_shape]``.
        n_lead: Batch dimensions to keep [count].
        checks: Where the check that log p is finite waits to be settled; None: it is made now.

    Returns:
        Zeros, ``[n, *batch_shape[:n_lead]]``.

    Raises:
        EstimatorError: log p is NaN or infinite at a sample.

    Source: Foerster et al. 2018, arXiv 1802.05098, eq. 4.
    """
    base = elementary(distribution)
    if type(base) is Normal:
        return _normal_log_ratio(x, base, n_lead)
    log_p = log_density(distribution, x, n_lead, checks)
    return log_p - log_p.detach()


def log_density(
    distribution: Distribution, x: Tensor, n_lead: int, checks: HostChecks | None = None
) -> Tensor:
    """Log p(x; θ), summed behind ``n_lead`` batch dimensions and finite, ``[n, *lead]``.

    Raises:
        EstimatorError: log p is not known, or NaN or infinite at a sample: one such value spoils
            the gradient. The latter when ``checks`` are settled, if any are passed.
    """
    try:
        log_p = sum_coordinates(distribution.log_prob(x), n_lead)
    except NotImplementedError as error:
        raise EstimatorError(
            f"log p of {describe(distribution)} is not known to torch: a part of it has no inverse "
            "or no density. Use Pathwise() if it has rsample"
        ) from error
    except ValueError as error:  # torch's own check of the support
        raise EstimatorError(
            f"{describe(distribution)} does not take its own samples for points of its support "
            f"({_first_line(error)}): they were rounded off it. Use float64, another "
            "parametrization (a transform in f), or Pathwise()"
        ) from error
    at_once = checks is None
    checks = HostChecks() if checks is None else checks
    checks.add_finite(log_p, partial(_refuse_not_finite, log_p, x, distribution))
    if at_once:
        checks.settle()
    return log_p


def _first_line(error: Exception) -> str:
    return str(error).partition(chr(10))[0][:120]


def _refuse_not_finite(log_p: Tensor, x: Tensor, distribution: Distribution) -> None:
    finite = torch.isfinite(log_p)
    if bool(finite.all()):
        return
    bad = ~finite.flatten(1).all(1) if log_p.dim() > 1 else ~finite
    first = x[int(bad.nonzero()[0, 0])].detach().flatten()[:4].tolist()
    raise EstimatorError(
        f"log p of {describe(distribution)} is NaN or infinite at {int(bad.sum())} of its own "
        f"{x.shape[0]} samples, first at one that starts with {first}: it was rounded to the "
        "edge of the support. Use float64, another parametrization (a transform in f), or "
        "Pathwise()"
    )


def magic_box(ratio: Tensor) -> Tensor:
    """exp(ℓ) at ℓ = 0: 1 in value; its k-th derivative is that of p(x; θ)/p(x; θ₀)."""
    return ratio.exp()


def scored(values: Tensor, ratio: Tensor, baseline: Tensor) -> Tensor:
    """□ f − (□ − 1) b, written f + (□ − 1)(f − b): f in value, bit for bit."""
    return torch.addcmul(values, ratio.expm1(), values - baseline)


def _normal_log_ratio(x: Tensor, base: Normal, n_lead: int) -> Tensor:
    """The Gaussian ℓ by its differences from θ₀: few operations, all of them torch's own.

    ℓ = u·r²e + ½u²·(1 − r²) + Σ (log r − ½r²e²), u = (x − µ₀)/σ₀, e = (µ − µ₀)/σ₀ and r = σ₀/σ.
    Each term is exactly 0 at θ₀, and nothing cancels in its derivatives of any order.
    """
    loc, scale = base.loc.detach(), base.scale.detach()
    centred, shift = x - loc, (base.loc - loc) / scale
    if not base.scale.requires_grad:
        constant = sum_coordinates((shift * shift / 2)[None], n_lead)
        return _inner(centred, shift / scale, n_lead) - constant
    ratio = scale / base.scale
    squared, noise = ratio * ratio, centred / scale
    pull = squared * shift
    return (
        _inner(noise, pull, n_lead)
        + _inner(noise * noise, (1 - squared) / 2, n_lead)
        + sum_coordinates((ratio.log() - pull * shift / 2)[None], n_lead)
    )


def _inner(rows: Tensor, weights: Tensor, n_lead: int) -> Tensor:
    """Σ of rows · weights behind the sample's and ``n_lead`` more dimensions, ``[n, *lead]``."""
    if n_lead == 0 and rows.dim() > 1:
        return torch.mv(rows.flatten(1), weights.flatten())
    return sum_coordinates(rows * weights, n_lead)
