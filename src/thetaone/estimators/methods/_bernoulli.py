"""What the estimators for binary variables share: logits, and the relaxation z = θ + logit u."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from thetaone.estimators.distributions import describe, elementary


def bernoulli_refusal(distribution: Distribution) -> str:
    """Why an estimator for Bernoulli does not apply; empty when it does."""
    if isinstance(elementary(distribution), Bernoulli):
        return ""
    return f"{describe(distribution)} is not Bernoulli; use LeaveOneOut()"


def bernoulli_logits(distribution: Distribution) -> Tensor:
    """θ = log p/(1 − p) of a (possibly independent) Bernoulli, on its graph."""
    base: Any = elementary(distribution)
    return base.logits


def logistic(u: Tensor) -> Tensor:
    """Logit u, log u − log(1 − u), with u kept away from 0 and 1 by one rounding step."""
    edge = torch.finfo(u.dtype).eps
    return u.clamp(torch.finfo(u.dtype).tiny, 1 - edge).logit()


def relaxed(theta: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Relaxation z = θ + logit u and b = 1[z > 0], a Bernoulli(σ(θ)) sample."""
    z = theta + logistic(u)
    return z, (z > 0).to(theta.dtype).detach()


def relaxed_given(theta: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """Relaxation z̃ = θ + logit ũ with the law of z given b; ũ depends on θ and is differentiated.

    ũ = (1 − p) + p v for b = 1, (1 − p) v for b = 0.
    """
    p, q = theta.sigmoid(), (-theta).sigmoid()
    return theta + logistic(torch.where(b > 0, q + p * v, q * v))
