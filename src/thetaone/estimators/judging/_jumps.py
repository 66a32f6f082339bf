"""Whether f jumps along the paths of its samples: what a pathwise reference cannot see itself.

A sample moves by ε v when the parameters do, v = ∂x/∂θ·u for a random direction u. Where f is
smooth, (f(x + εv) − f(x − εv)) / 2ε is ∇f·v but for ε²; a jump adds its height times the density of
samples beside it to the mean, and nothing to ∇f·v.
"""

import torch
from torch import Tensor

from thetaone.errors import EstimatorError
from thetaone.estimators._expectation import make_integrand
from thetaone.estimators.distributions import affordable_samples, probe_generator, rsample
from thetaone.estimators.judging._measurement import Setting
from thetaone.records import student_limit

MOST, ELEMENTS = 20_000, 2**22  # samples, and numbers in them
LEAST = 200  # samples that say something [count]
STEP = 0.03  # of the samples' standard deviation
CURVED = 0.02  # of mean |∇f·v|: what the curvature of f may add


def jump_along_paths(setting: Setting, samples: int) -> str:
    """What shows a jump, in words; empty when nothing does, or nothing can be told.

    Args:
        setting: f and the family, whose distribution has ``rsample``.
        samples: Most samples to take; f is evaluated three times on each [count].
    """
    distribution = setting.family.make()
    count = affordable_samples(distribution, min(samples, MOST), ELEMENTS)
    if count < LEAST or not distribution.has_rsample:
        return ""
    f = make_integrand(setting.f, distribution, vectorized=setting.vectorized)
    with torch.enable_grad():
        x = rsample(distribution, count, setting.generator)
        velocity = _velocity(x, setting.family.tensors)
        if velocity is None:
            return ""
        at = x.detach().requires_grad_()
        values = f(at)
        (slope,) = torch.autograd.grad(values.sum(), at, allow_unused=True)
    if slope is None:
        return ""
    linear = (slope * velocity).flatten(1).sum(1) if at.dim() > 1 else slope * velocity
    size = velocity.square().mean().sqrt()
    if not bool(size > 0):
        return ""
    step = STEP * x.detach().std() / size
    try:
        with torch.no_grad():
            ahead, behind = f(x + step * velocity), f(x - step * velocity)
        f.checks.settle()
    except EstimatorError:
        return ""  # f is not defined beside the samples
    gap = ((ahead - behind) / (2 * step)).reshape(count, -1).sum(1) - linear
    mean, stderr = float(gap.mean()), float(gap.std()) / count**0.5
    room = CURVED * float(linear.abs().mean())
    if abs(mean) <= student_limit(count - 1) * stderr + room:
        return ""
    return (
        f"f jumps along the paths of its samples: differences of f exceed its derivative by "
        f"{abs(mean) / stderr:.0f} standard errors over {count} samples"
    )


def _velocity(x: Tensor, tensors: tuple[Tensor, ...]) -> Tensor | None:
    """∂x/∂θ·u for a random u: wᵀ∂x/∂θ·u is linear in w. None where a backward hides that."""
    if not x.requires_grad:
        return None
    w = torch.zeros_like(x, requires_grad=True)
    pulled = torch.autograd.grad(x, tensors, w, create_graph=True, allow_unused=True)
    generator = probe_generator(x.device)
    along = [
        (part * torch.randn(part.shape, generator=generator, device=x.device)).sum()
        for part in pulled
        if part is not None and part.requires_grad
    ]
    if not along:
        return None
    (velocity,) = torch.autograd.grad(torch.stack(along).sum(), w, allow_unused=True)
    return None if velocity is None else velocity.detach()
