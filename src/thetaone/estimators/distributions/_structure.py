"""What a torch distribution is made of: its core, its tensors, its coordinates."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution
from torch.distributions.transforms import Transform


def elementary(distribution: Distribution) -> Distribution:
    """The distribution inside any number of ``Independent``."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def trainable(distribution: Distribution) -> list[Tensor]:
    """Tensors that the distribution holds and that require grad, inner distributions included."""
    return list(named_trainable(distribution).values())


def named_trainable(distribution: Distribution) -> dict[str, Tensor]:
    """As ``trainable``, each under the path of its attribute: ``loc``, ``transforms[0].scale``."""
    named: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, tensor in _tensors(distribution):
        if not tensor.requires_grad or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        name = path
        while name in named:  # an inner distribution may call its own tensor the same
            name = f"base_dist.{name}"
        named[name] = tensor
    return named


def held_numbers(distribution: Distribution) -> tuple[list[Tensor], list[float]]:
    """All that fixes a law: real tensors, trainable or not, and plain numbers."""
    tensors: dict[int, Tensor] = {}
    plain: list[float] = []
    for _, value in _numbers(distribution):
        if isinstance(value, Tensor):
            if value.numel() and not value.is_complex() and value.dtype is not torch.bool:
                tensors[id(value)] = value
        else:
            plain.append(float(value))
    return list(tensors.values()), plain


def roots(distribution: Distribution) -> dict[str, Tensor]:
    """Trainable tensors that are not computed from another one that the distribution holds.

    A ``ContinuousBernoulli`` made from ``probs`` holds ``logits`` too once they were asked for: a
    derivative by one with the other held still is that of no parameter.
    """
    held = named_trainable(distribution)
    nodes = {node_of(tensor) for tensor in held.values()}
    return {
        name: tensor
        for name, tensor in held.items()
        if not any(node in nodes for node in upstream(tensor))
    }


def node_of(tensor: Tensor) -> Any:
    """The node of the graph that a tensor is the output of."""
    return torch.autograd.graph.get_gradient_edge(tensor).node


def upstream(tensor: Tensor) -> Iterator[Any]:
    """Nodes of the graph that a tensor is computed from, its own left out."""
    seen = {node_of(tensor)}
    stack = [step for step, _ in node_of(tensor).next_functions]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(step for step, _ in node.next_functions)


def discrete(distribution: Distribution) -> bool:
    """Whether samples live on a discrete set, that of a transform's base carried along."""
    base = elementary(distribution)
    if isinstance(base, TransformedDistribution) and discrete(base.base_dist):
        return True  # its own support tells the codomain alone
    support: Any = base.support
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


def _tensors(distribution: Distribution) -> Iterator[tuple[str, Tensor]]:
    for path, value in _numbers(distribution):
        if isinstance(value, Tensor):
            yield path, value


def _numbers(
    node: Any, name: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, Tensor | float]]:
    """Tensors and plain numbers that a distribution and its parts hold, with their paths."""
    seen = set() if seen is None else seen
    if isinstance(node, int | float) and not isinstance(node, bool):
        yield name, node
        return
    if id(node) in seen:  # a transform and its inverse hold each other
        return
    seen.add(id(node))
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, torch.nn.Module):  # of a flow
        for part, tensor in node.named_parameters():
            yield f"{name}.{part}", tensor
    elif isinstance(node, Distribution | Transform):
        for part, value in vars(node).items():
            if part == "_cached_x_y" or isinstance(value, torch.Size):
                continue  # samples, and shapes: no part of the law
            inner = name if part == "base_dist" else f"{name}.{part}" if name else part
            yield from _numbers(value, inner, seen)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _numbers(value, f"{name}[{index}]", seen)
