"""What a torch distribution is made of: its core, its tensors, its coordinates."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution, constraints
from torch.distributions.transforms import Transform


def elementary(distribution: Distribution) -> Distribution:
    """The distribution inside any number of ``Independent``."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def trainable(distribution: Distribution) -> list[Tensor]:
    """Tensors that the distribution holds and that require grad, inner distributions included."""
    found: dict[int, Tensor] = {}
    for tensor in _tensors(distribution):
        if tensor.requires_grad:
            found.setdefault(id(tensor), tensor)
    return list(found.values())


def moving_support(distribution: Distribution) -> bool:
    """Whether an edge of the support depends on a tensor that requires grad."""
    base = elementary(distribution)
    if (
        isinstance(base, TransformedDistribution)
        and type(base).support is TransformedDistribution.support  # it tells the codomain alone
    ):
        if moving_support(base.base_dist):
            return True
        return any(_moves(edge, base) for edge in _edges(base.base_dist.support))
    return any(isinstance(edge, Tensor) and edge.requires_grad for edge in _edges(base.support))


def _edges(support: Any) -> list[Any]:
    while hasattr(support, "base_constraint"):  # of Independent and of mixtures
        support = support.base_constraint
    bounds = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return [bound for bound in bounds if bound is not None]


def _moves(edge: Any, distribution: TransformedDistribution) -> bool:
    """Whether the image of an edge of the base's support moves with a parameter."""
    if any(part.domain.event_dim or part.codomain.event_dim for part in distribution.transforms):
        return False
    with torch.enable_grad():
        image: Any = torch.as_tensor(edge, dtype=torch.float64)
        for transform in distribution.transforms:
            onto_line = transform.codomain is constraints.real
            if onto_line and any(bool((image == end).all()) for end in _edges(transform.domain)):
                return False  # sent to infinity; torch clamps it to a large number
            image = transform(image)
        if not image.requires_grad or not bool(torch.isfinite(image).all()):
            return False
        gradients = torch.autograd.grad(image.sum(), trainable(distribution), allow_unused=True)
    return any(bool((g.nan_to_num() != 0).any()) for g in gradients if g is not None)


def discrete(distribution: Distribution) -> bool:
    """Whether samples live on a discrete set."""
    support: Any = distribution.support
    return bool(support.is_discrete)


def describe(distribution: Distribution) -> str:
    """Name of the distribution with its shapes, for messages."""
    base = elementary(distribution)
    shapes = f"batch {tuple(distribution.batch_shape)}, event {tuple(distribution.event_shape)}"
    return f"{type(base).__name__}({shapes})"


def sum_coordinates(values: Tensor, n_lead: int) -> Tensor:
    """Sum over all dimensions after the sample's and ``n_lead`` more."""
    return values.flatten(1 + n_lead).sum(-1) if values.dim() > 1 + n_lead else values


def widen(weight: Tensor, like: Tensor) -> Tensor:
    """A weight for each sample and batch row, shaped to multiply every coordinate of ``like``."""
    return weight.reshape(weight.shape + (1,) * (like.dim() - weight.dim()))


def _tensors(node: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    seen = set() if seen is None else seen
    if id(node) in seen:  # a transform and its inverse hold each other
        return
    seen.add(id(node))
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Distribution | Transform):
        for part in vars(node).values():
            yield from _tensors(part, seen)
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _tensors(part, seen)
