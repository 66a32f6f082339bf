"""Finds the chain in a model: an ``nn.Sequential``, or the blocks that its forward loops over."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from thetaone.errors import ProfileError


@dataclass(frozen=True)
class Blocks:
    """The links of a model's chain.

    Attributes:
        names: Qualified name of each block.
        modules: The blocks, in the order of the forward.
        container: The ``nn.Sequential`` that runs them; None when the model's own forward loops.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    container: nn.Sequential | None


def find_blocks(model: nn.Module, blocks: str | None = None) -> Blocks:
    """The chain of a model.

    Args:
        model: An ``nn.Sequential``, or a model with a ``ModuleList`` or ``Sequential`` of blocks.
        blocks: Qualified name of that list, e.g. ``"model.layers"``; None takes the model itself
            if it is sequential, else the list with the most parameters.

    Raises:
        ProfileError: There is no such list, or it holds fewer than two blocks, or one block twice.
    """
    if blocks is None:
        name, found = _guess(model)
    else:
        try:
            name, found = blocks, model.get_submodule(blocks)
        except AttributeError as error:
            raise ProfileError(f"blocks={blocks!r}: {error}; name a ModuleList") from error
    if not isinstance(found, nn.ModuleList | nn.Sequential):
        raise ProfileError(
            f"blocks={blocks!r} is a {type(found).__name__}; name a ModuleList or a Sequential"
        )
    children = dict(found.named_children())
    if len(children) != len(found):
        raise ProfileError(f"{name or 'the model'} holds the same block twice; give each its own")
    if not children:
        raise ProfileError(f"{name or 'the model'} has no blocks: nothing to rematerialize")
    prefix = f"{name}." if name else ""
    container = found if type(found).forward is nn.Sequential.forward else None
    if container is not None and "forward" in vars(container):
        raise ProfileError(
            f"{name or 'the model'} has a forward of its own on the instance (a wrapper put it "
            "there), which runs its blocks unseen: rematerialize before wrapping"
        )
    return Blocks(
        tuple(prefix + child for child in children),
        tuple(children.values()),
        container if isinstance(container, nn.Sequential) else None,
    )


def _guess(model: nn.Module) -> tuple[str, nn.Module]:
    if isinstance(model, nn.Sequential | nn.ModuleList):
        return "", model
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 1
    ]
    if not lists:
        lists = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, nn.Sequential) and len(module) > 1
        ]
    if not lists:
        raise ProfileError(
            f"{type(model).__name__} has no ModuleList or Sequential of two blocks or more; "
            "put its blocks in one, or name it: blocks='model.layers'"
        )
    return max(lists, key=lambda entry: _parameters(entry[1]))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def describe_tensor(tensor: torch.Tensor) -> str:
    """Kind of a tensor: ``float32[8, 64]``."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def describe_parameters(modules: Iterable[nn.Module]) -> str:
    """How many parameters some blocks have, and of which type: ``12,345 float32``."""
    parameters = {id(p): p for module in modules for p in module.parameters()}.values()
    types = sorted({str(p.dtype).removeprefix("torch.") for p in parameters})
    return f"{sum(p.numel() for p in parameters):,} {' and '.join(types)}".strip()
