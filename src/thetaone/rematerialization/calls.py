"""How a model calls its blocks: which argument flows along the chain, which ones are extra."""

import copy
from dataclasses import dataclass
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
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    slot: int | str

    def run(self, block: Any, activation: torch.Tensor) -> Any:
        """Call ``block`` with the activation back in its place."""
        args = [own_cache(value) for value in self.args]
        kwargs = {name: own_cache(value) for name, value in self.kwargs.items()}
        if isinstance(self.slot, str):
            return block(*args, **{**kwargs, self.slot: activation})
        args[self.slot] = activation
        return block(*args, **kwargs)

    def same_extra(self, other: "Call") -> bool:
        """Whether two calls hand over the same arguments, the activation apart."""
        if self.slot != other.slot:
            return False
        mine, spec = pytree.tree_flatten((self.args, self.kwargs))
        others, other_spec = pytree.tree_flatten((other.args, other.kwargs))
        return spec == other_spec and all(map(_same, mine, others))


def take_activation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, Call]:
    """Split the arguments of a block into its activation (the first tensor) and the rest.

    Raises:
        ProfileError: No argument is a tensor.
    """
    for place, value in enumerate(args):
        if isinstance(value, torch.Tensor):
            rest = (*args[:place], None, *args[place + 1 :])
            return value, Call(rest, kwargs, place)
    for name, value in kwargs.items():
        if isinstance(value, torch.Tensor):
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


def like_output(output: Any, activation: torch.Tensor) -> Any:
    """``output`` with its tensor replaced by ``activation``."""
    if isinstance(output, tuple | list):
        return type(output)([activation, *output[1:]])
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
            and mine._version == other._version
        )
    return mine is other or (type(mine) is type(other) and bool(mine == other))
