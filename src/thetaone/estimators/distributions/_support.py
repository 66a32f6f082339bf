"""Whether the set of possible samples moves with a parameter: then ∇ log p misses what crosses it.

For x = T(z; θ) an edge or a lattice point z₀ of the base moves if and only if its preimage does: at
x₀ = T(z₀; θ) held fixed, the coordinate of T⁻¹(x₀; θ) that is pinned to the edge has a derivative
by θ. That is asked at every bounded edge, coordinate by coordinate, and at every point of a
lattice.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution, constraints

from thetaone.estimators.distributions._sampling import probe_generator, sample
from thetaone.estimators.distributions._structure import elementary, trainable

_POINTS = 8  # samples that an edge is looked at from [count]
_COORDINATES = 512  # most coordinates of an event that are put on an edge [count]
_STILL = 1e-4  # of an interior point's speed: what a clamped infinity moves by in float32


def moving_support(distribution: Distribution) -> str:
    """How the support moves with a parameter, or why that cannot be told; empty when it stays."""
    base = elementary(distribution)
    if (
        isinstance(base, TransformedDistribution)
        and type(base).support is TransformedDistribution.support  # it tells the codomain alone
    ):
        return moving_support(base.base_dist) or _image_moves(base)
    try:
        limits = _edges(base.support)
    except NotImplementedError:
        return ""  # no support is declared: log p is its own word, and E[score] = 0 is its test
    if any(isinstance(edge, Tensor) and edge.requires_grad for edge in limits):
        return "moves with a parameter: an edge of it does"
    return ""


def _image_moves(distribution: TransformedDistribution) -> str:
    """Whether transforms with parameters move an edge or a lattice point of the base."""
    base = distribution.base_dist
    parameters = trainable(distribution)
    try:
        support: Any = base.support
        if not parameters or _unbounded(support):
            return ""
        with torch.enable_grad():
            z = sample(base, _POINTS, probe_generator(parameters[0].device))
            image = _forward(distribution, z)
            if not image.requires_grad:
                return ""
            if support.is_discrete:
                points = {"a point of its lattice": (z, torch.ones_like(z, dtype=torch.bool))}
            else:
                points = _on_edges(support, distribution, z)
            inside = _speed(distribution, z.to(image.dtype), torch.ones_like(z, dtype=torch.bool))
            for what, (z_pinned, pinned) in points.items():
                speed = _speed(distribution, z_pinned, pinned)
                if speed > (0.0 if support.is_discrete else _STILL * inside):
                    return f"moves with a parameter of its transforms: {what} does"
    except (NotImplementedError, RuntimeError, ValueError, TypeError) as error:
        return f"may move with a parameter, which cannot be told ({error})"
    return ""


def _on_edges(
    support: Any, distribution: TransformedDistribution, z: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Base samples with a coordinate put on an edge, and which coordinate that is."""
    edges = _edges(support)
    if not edges:
        raise NotImplementedError(f"the edges of {support} are not known")
    elementwise = not any(
        part.domain.event_dim or part.codomain.event_dim for part in _flat(distribution.transforms)
    )
    points: dict[str, tuple[Tensor, Tensor]] = {}
    rows, pinned = (z, torch.ones_like(z, dtype=torch.bool)) if elementwise else _one_each(z)
    for side, edge in zip(("lower", "upper"), edges, strict=False):
        where = torch.as_tensor(edge, dtype=z.dtype, device=z.device)
        points[f"the image of its base's {side} edge"] = (torch.where(pinned, where, rows), pinned)
    return points


def _one_each(z: Tensor) -> tuple[Tensor, Tensor]:
    """One row a coordinate of the event, and that coordinate marked."""
    size = z[0].numel()
    chosen = torch.linspace(0, size - 1, min(size, _COORDINATES)).round().long()
    pinned = torch.zeros((len(chosen), size), dtype=torch.bool, device=z.device)
    pinned[torch.arange(len(chosen)), chosen] = True
    return z[torch.arange(len(chosen)) % len(z)], pinned.view(-1, *z.shape[1:])


def _speed(distribution: TransformedDistribution, z: Tensor, pinned: Tensor) -> float:
    """Largest derivative by a parameter of the pinned coordinates of T⁻¹(x; θ) at x = T(z; θ)."""
    x = _forward(distribution, z).detach()
    back: Any = x
    for transform in reversed(distribution.transforms):
        back = transform.inv(back)
    if not back.requires_grad:
        return 0.0
    finite = torch.isfinite(x).expand_as(z) if x.shape == z.shape else torch.ones_like(pinned)
    weights = torch.rand(z.shape, generator=probe_generator(z.device), device=z.device) + 0.5
    weighted = torch.where(pinned & finite, back * weights, torch.zeros_like(back))
    parts = torch.autograd.grad(weighted.sum(), trainable(distribution), allow_unused=True)
    return max((float(g.nan_to_num().abs().max()) for g in parts if g is not None), default=0.0)


def _forward(distribution: TransformedDistribution, z: Tensor) -> Tensor:
    x: Any = z
    for transform in distribution.transforms:
        x = transform(x)
    return x


def _flat(transforms: Sequence[Any]) -> list[Any]:
    return [
        inner
        for part in transforms
        for inner in (_flat(part.parts) if hasattr(part, "parts") else [part])
    ]


def _edges(support: Any) -> list[Any]:
    support = _innermost(support)
    bounds = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return [bound for bound in bounds if bound is not None]


def _unbounded(support: Any) -> bool:
    return _innermost(support) is constraints.real


def _innermost(support: Any) -> Any:
    while hasattr(support, "base_constraint"):  # of Independent and of mixtures
        support = support.base_constraint
    return support
