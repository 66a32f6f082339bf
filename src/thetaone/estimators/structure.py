"""What a torch distribution is made of: its core, its tensors, its coordinates."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
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
    """Whether a bound of the support is a tensor that requires grad."""
    support: Any = distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    bounds = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return any(isinstance(bound, Tensor) and bound.requires_grad for bound in bounds)


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


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Distribution | Transform):
        for part in vars(node).values():
            yield from _tensors(part)
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _tensors(part)
