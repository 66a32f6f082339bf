"""Finds the chain in a model: an ``nn.Sequential``, or blocks that its forward calls in turn."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, ProfileError
from thetaone.rematerialization.blocks._specialize import written

LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
SHARE = 0.1  # of the parameters of the largest list, for another list to be part of the chain


@dataclass(frozen=True)
class Blocks:
    """The links of a model's chain.

    Attributes:
        names: Qualified name of each block.
        modules: The blocks, each once, in the order in which they are registered.
        container: The model, if it is an ``nn.Sequential`` that runs each once; None when another
            model's forward runs them, or when it holds one several times.
        lists: Names of the lists that hold them; empty is the model itself.
        guessed: Whether the lists were not named by the user.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    container: nn.Sequential | None
    lists: tuple[str, ...] = ()
    guessed: bool = False

    @property
    def pairs(self) -> list[tuple[str, nn.Module]]:
        """Names and blocks."""
        return list(zip(self.names, self.modules, strict=True))

    @property
    def single(self) -> bool:
        """Whether it is one block that was named itself, and is to be called many times."""
        return self.names == self.lists

    def name_of(self, module: nn.Module) -> str:
        """Qualified name of a block."""
        return next(name for name, one in self.pairs if one is module)


def find_blocks(
    model: nn.Module,
    blocks: str | Sequence[str] | None = None,
    called: Callable[[], Sequence[str]] = tuple,
) -> Blocks:
    """The chain of a model.

    Args:
        model: An ``nn.Sequential``, or a model with lists of blocks.
        blocks: Qualified name of a list of blocks, e.g. ``"model.layers"``, or several names, of
            lists or of single blocks, e.g. ``("encoder.block", "decoder.block")``; None takes the
            model itself if it is a list, else its lists with the most parameters.
        called: Names the blocks of a model without a list by the calls of its forward; asked only
            for such a one.

    Raises:
        InputError: ``blocks`` is neither a name nor names.
        ProfileError: There is no such list, or it holds no block, or ``blocks`` name one twice.
    """
    if blocks is None:
        lists, guessed = _guess(model, called), True
    else:
        alone = isinstance(blocks, str) or not hasattr(blocks, "__iter__")
        names: tuple[Any, ...] = (blocks,) if alone else tuple(blocks)
        if not names or not all(isinstance(name, str) for name in names):
            raise InputError(f"blocks={blocks!r}: need a name, or several, of lists of blocks")
        lists, guessed = {name: _named(model, name) for name in names}, False
    if len(lists) == 1:
        return _single(*next(iter(lists.items())), guessed=guessed)
    named: dict[str, nn.Module] = {}
    for name, module in lists.items():
        children = dict(module.named_children()) if isinstance(module, LISTS) else None
        named.update({name: module} if children is None else _prefixed(name, children))
    if len({id(module) for module in named.values()}) != len(named):
        raise ProfileError(f"blocks={blocks!r} name one block twice; name each list once")
    return Blocks(tuple(named), tuple(named.values()), None, tuple(lists), guessed)


def _single(name: str, module: nn.Module, *, guessed: bool) -> Blocks:
    if not isinstance(module, LISTS):
        return Blocks((name,), (module,), None, (name,), guessed)
    children = dict(module.named_children())
    if not children:
        raise ProfileError(f"{name or 'the model'} has no blocks: nothing to rematerialize")
    container = module if written(module).forward is nn.Sequential.forward else None
    if container is not None and "forward" in vars(container):
        raise ProfileError(
            f"{name or 'the model'} has a forward of its own on the instance (a wrapper put it "
            "there), which runs its blocks unseen: rematerialize before wrapping"
        )
    blocks = _prefixed(name, children)
    once = len(children) == len(module)  # of a block used several times each call is noticed
    # one within a model may be sliced, or its blocks be called in a loop: calls of blocks tell
    sequential = container if once and not name and isinstance(container, nn.Sequential) else None
    return Blocks(tuple(blocks), tuple(blocks.values()), sequential, (name,), guessed)


def _prefixed(name: str, children: dict[str, nn.Module]) -> dict[str, nn.Module]:
    return {f"{name}.{child}" if name else child: one for child, one in children.items()}


def _named(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise ProfileError(f"blocks={name!r}: {error}; name a ModuleList") from error


def _guess(model: nn.Module, called: Callable[[], Sequence[str]]) -> dict[str, nn.Module]:
    if isinstance(model, nn.Sequential | nn.ModuleList):
        return {"": model}
    for kinds, least in (((nn.ModuleList, nn.ModuleDict), 2), ((nn.Sequential,), 2)):
        if lists := _outermost(model, kinds, least):
            return _large(lists) if nn.ModuleList in kinds else _alike(lists)
    for parent in model.modules():
        alike = _alike_children(parent)
        if len(alike) > 1:
            prefix = next(name for name, one in model.named_modules() if one is parent)
            return _prefixed(prefix, alike)
    if lists := _outermost(model, (nn.ModuleList,), 1):  # one block that is used many times
        return _large(lists)
    if names := tuple(dict.fromkeys(called())):
        return {name: _named(model, name) for name in names}
    raise ProfileError(
        f"{type(model).__name__} has no ModuleList or Sequential of two blocks or more, and its "
        "forward calls no block many times; put its blocks in a list, or name it: "
        "blocks='model.layers'"
    )


def _outermost(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], least: int
) -> dict[str, nn.Module]:
    """Lists of at least so many entries that are not inside another such list."""
    lists: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, kinds) and len(module._modules) >= least and not inside:
            lists[name] = module
    return lists


def _large(lists: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The largest list and those that compare with it: an encoder and a decoder."""
    most = max(map(_parameters, lists.values()))
    return {name: one for name, one in lists.items() if _parameters(one) >= SHARE * most}


def _alike(lists: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The largest list and those with blocks of the same class: the stages of a ResNet."""
    largest = max(lists.values(), key=_parameters)
    classes = {type(block) for block in largest.children()}
    return {
        name: one
        for name, one in lists.items()
        if one is largest or {type(block) for block in one.children()} == classes
    }


def _alike_children(parent: nn.Module) -> dict[str, nn.Module]:
    """The largest group of a module's children that are of one class of the user's."""
    groups: dict[type, dict[str, nn.Module]] = {}
    for name, child in parent.named_children():
        if not type(child).__module__.startswith("torch.nn"):
            groups.setdefault(type(child), {})[name] = child
    return max(groups.values(), key=len, default={})


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
