"""How a model calls its blocks: which argument flows along the chain, which ones are extra."""

import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from thetaone.errors import ProfileError, RecomputationError


@dataclass(frozen=True)
class Call:
    """One call of a block, with the activation taken out.

    Attributes:
        args: Positional arguments; the activation's place holds None if it is ``slot``.
        kwargs: Keyword arguments likewise.
        slot: Position or keyword of the activation.
        before: Both as they were at the call: lists and dicts may change later.
        tensors: Those among them.
        versions: Of these: they may be changed in place.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    slot: int | str
    before: tuple[tuple[Any, ...], dict[str, Any]] = field(init=False)
    tensors: list[torch.Tensor] = field(init=False)
    versions: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        tensors: list[torch.Tensor] = []
        before = _mapped((self.args, self.kwargs), partial(_noted, tensors))
        object.__setattr__(self, "before", before)
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "versions", tuple(map(version_of, tensors)))

    def run(self, block: Any, activation: torch.Tensor) -> Any:
        """Call ``block`` with the activation back in its place."""
        args = [own_cache(value) for value in self.args]
        kwargs = {name: own_cache(value) for name, value in self.kwargs.items()}
        if isinstance(self.slot, str):
            return block(*args, **{**kwargs, self.slot: activation})
        args[self.slot] = activation
        return block(*args, **kwargs)

    def again(self) -> "Call":
        """The same call for a recomputation: what a block puts into a list, it put there before."""
        args, kwargs = self.before
        if not any(isinstance(value, list | dict | tuple) for value in (*args, *kwargs.values())):
            return self
        args, kwargs = _mapped(self.before, lambda leaf: leaf)  # it will put it there again
        return Call(args, kwargs, self.slot)

    def detached(self) -> "Call":
        """The same call with tensors that belong to no graph."""
        made: dict[int, torch.Tensor] = {}

        def leaf(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) not in made:
                made[id(value)] = value.detach().requires_grad_(value.requires_grad)
            return made[id(value)]

        args, kwargs = _mapped((self.args, self.kwargs), leaf)
        return Call(args, kwargs, self.slot)

    def same_extra(self, other: "Call") -> bool:
        """Whether two calls hand over the same arguments, the activation apart."""
        if self.slot != other.slot:
            return False
        mine, spec = pytree.tree_flatten(self.before)
        others, other_spec = pytree.tree_flatten(other.before)
        unchanged = self.versions == other.versions
        return unchanged and spec == other_spec and all(map(_same, mine, others))


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def take_activation(args: tuple[Any, ...], kwargs: dict[str, Any], *also: type) -> tuple[Any, Call]:
    """Split the arguments of a block into its activation (the first tensor) and the rest.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        also: What else may stand for an activation.

    Raises:
        ProfileError: No argument is a tensor.
    """
    kinds = (torch.Tensor, *also)
    for place, value in enumerate(args):
        if isinstance(value, kinds):
            rest = (*args[:place], None, *args[place + 1 :])
            return value, Call(rest, kwargs, place)
    for name, value in kwargs.items():
        if isinstance(value, kinds):
            return value, Call(args, {**kwargs, name: None}, name)
    raise ProfileError("a block is called without a tensor; name the blocks: blocks='model.layers'")


def own_cache(value: Any) -> Any:
    """A copy of an empty key-value cache: a recomputed block would append to a shared one again.

    The block runs the same operations as with the model's own cache, which stays empty; a training
    step has no use for what it would hold.

    Raises:
        RecomputationError: The cache is not empty.
    """
    if not (hasattr(value, "update") and hasattr(value, "get_seq_length")):
        return value
    if value.get_seq_length() > 0:
        raise RecomputationError(
            f"a {type(value).__name__} with {value.get_seq_length()} positions is passed to the "
            "blocks: what is recomputed would append to it twice. Train with an empty cache, or "
            "use_cache=False"
        )
    return copy.deepcopy(value)


def activation_of(output: Any, *, where: str) -> torch.Tensor:
    """The tensor that flows on: the output itself, or the first of a tuple without other tensors.

    Raises:
        ProfileError: Another kind of output.
    """
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, tuple | list) and output and isinstance(output[0], torch.Tensor):
        rest = pytree.tree_leaves(list(output[1:]))
        if not any(isinstance(leaf, torch.Tensor) for leaf in rest):
            return output[0]
    raise ProfileError(
        f"{where} returns a {type(output).__name__}; a link of a chain returns one tensor, or a "
        "tuple with one tensor first and no other"
    )


def like_output(output: Any, activation: Any) -> Any:
    """``output`` with its tensor replaced by ``activation``."""
    if isinstance(output, tuple | list):
        rest = [activation, *output[1:]]
        return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)
    return activation


def label(module: nn.Module, name: str) -> str:
    """``layers.3 (Block)``."""
    return f"{name or 'model'} ({type(module).__name__})"


def _same(mine: Any, other: Any) -> bool:
    if isinstance(mine, torch.Tensor) and isinstance(other, torch.Tensor):
        return mine is other or (
            mine.data_ptr() == other.data_ptr()
            and mine.shape == other.shape
            and mine.stride() == other.stride()
            and mine.dtype == other.dtype
            and mine.is_conj() == other.is_conj()
            and mine.is_neg() == other.is_neg()
            and not (mine.requires_grad or other.requires_grad)
        )
    if mine is other:
        return True
    try:
        return type(mine) is type(other) and bool(mine == other)
    except (TypeError, ValueError, RuntimeError):  # things that have no single answer differ
        return False


def _noted(tensors: list[torch.Tensor], leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        tensors.append(leaf)
    elif isinstance(leaf, tuple):  # a named one, which nothing changes
        tensors.extend(one for one in leaf if isinstance(one, torch.Tensor))
    return leaf


def _mapped(value: Any, leaf: Any) -> Any:
    """A copy of plain tuples, lists and dicts, with ``leaf`` of what they hold."""
    if type(value) in (tuple, list):
        return type(value)(_mapped(one, leaf) for one in value)
    if type(value) is dict:
        return {name: _mapped(one, leaf) for name, one in value.items()}
    return leaf(value)
