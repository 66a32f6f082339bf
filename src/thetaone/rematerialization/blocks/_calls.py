"""How a model calls its blocks: which tensors flow along the chain, which arguments are extra."""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from thetaone.errors import ProfileError, RecomputationError
from thetaone.rematerialization.blocks._nested import (
    Flow,
    is_frozen,
    is_nested,
    is_record,
    leaves_of,
    mapped,
    members_of,
    replaced,
    shape_of,
)
from thetaone.rematerialization.blocks.state import version_of

_ATOMIC = (type(None), bool, int, float, str)
_NO_CACHE = (torch.Tensor, bool, int, float, str, tuple)  # asking a tensor takes a microsecond


@dataclass(frozen=True)
class Call:
    """One call of a block, with what flows along the chain taken out.

    Attributes:
        args: Positional arguments; a ``Flow`` stands where a tensor flows in.
        kwargs: Keyword arguments likewise.
        earlier: What calls further back had among theirs, by stage, where later ones use it.
        before: Both as they were at the call: lists and dicts may change later.
        tensors: Those among them.
        versions: Of these: they may be changed in place.
        simple: Whether arguments are tensors, numbers, texts and tuples of tensors alone.
        recalled: Tensors in ``earlier``, with their versions.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    earlier: Mapping[int, list[Any]] = field(default_factory=dict[int, list[Any]])
    before: tuple[tuple[Any, ...], dict[str, Any]] = field(init=False)
    tensors: list[torch.Tensor] = field(init=False)
    versions: tuple[int, ...] = field(init=False)
    simple: bool = field(init=False)
    recalled: list[tuple[torch.Tensor, int]] = field(init=False)

    def __post_init__(self) -> None:
        tensors: list[torch.Tensor] = []
        before = self.args, self.kwargs
        simple = _is_simple(before, tensors)
        if not simple:
            tensors.clear()
            before = mapped(before, partial(_noted, tensors))
        object.__setattr__(self, "simple", simple)
        object.__setattr__(self, "before", before)
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "versions", tuple(map(version_of, tensors)))
        leaves = itertools.chain.from_iterable(self.earlier.values()) if self.earlier else ()
        recalled = [(one, version_of(one)) for one in leaves if isinstance(one, torch.Tensor)]
        object.__setattr__(self, "recalled", recalled)

    @property
    def changed(self) -> bool:
        """Whether a tensor among the arguments was changed in place since."""
        return tuple(map(version_of, self.tensors)) != self.versions or any(
            version_of(one) != version for one, version in self.recalled
        )

    def run(self, block: Any, flowing: Sequence[torch.Tensor]) -> Any:
        """Call ``block`` with the flowing tensors back in their places."""
        if self.simple:
            args = [flowing[one.index] if type(one) is Flow else one for one in self.args]
            return block(*args, **self.kwargs)
        args = [_argument(one, flowing) for one in self.args]
        kwargs = {name: _argument(one, flowing) for name, one in self.kwargs.items()}
        return block(*args, **kwargs)

    def again(self) -> "Call":
        """The same call for a recomputation: what a block puts into a list, it put there before."""
        args, kwargs = self.before
        if self.simple or not any(map(_changeable, (*args, *kwargs.values()))):
            return self
        args, kwargs = mapped(self.before, lambda leaf: leaf)  # it will put it there again
        return Call(args, kwargs, self.earlier)

    def after(self, earlier: Mapping[int, list[Any]]) -> "Call":
        """The same call, after others whose arguments later calls may have too."""
        return Call(self.args, self.kwargs, earlier)

    def detached(self) -> "Call":
        """The same call with tensors that belong to no graph."""
        copies: dict[int, torch.Tensor] = {}

        def leaf(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) not in copies:
                copies[id(value)] = value.detach().requires_grad_(value.requires_grad)
            return copies[id(value)]

        return Call(*mapped((self.args, self.kwargs), leaf))

    def differs_from(self, other: "Call") -> bool:
        """Whether two calls hand over other arguments, what flows apart."""
        mine, theirs = leaves_of(self.before), leaves_of(other.before)
        return (
            self.versions != other.versions
            or shape_of(self.before) != shape_of(other.before)
            or not all(map(same_argument, mine, theirs))
        )


def take_flow(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: Callable[[Any], int | None]
) -> Call:
    """A call with markers where ``place`` knows which flowing tensor an argument is."""

    def leaf(value: Any) -> Any:
        index = place(value)
        return value if index is None else Flow(index)

    return Call(*replaced((args, kwargs), leaf))


def first_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, Call]:
    """Split the arguments of a chain's first block: its first tensor, which flows, and the rest.

    Raises:
        ProfileError: No argument is a tensor, or it is one that no region can start from.
    """
    if args and isinstance(args[0], torch.Tensor):  # as nearly all models call their blocks
        _require_savable(args[0])
        return args[0], Call((Flow(0), *args[1:]), kwargs)
    outermost = itertools.chain(args, kwargs.values())
    flowing = next((leaf for leaf in outermost if isinstance(leaf, torch.Tensor)), None)
    if flowing is None:
        leaves = leaves_of((args, kwargs))
        flowing = next((leaf for leaf in leaves if isinstance(leaf, torch.Tensor)), None)
    if flowing is None:
        kinds = [type(one).__name__ for one in (*args, *kwargs.values())]
        raise ProfileError(
            f"a block is called with {', '.join(kinds) or 'nothing'}, without a tensor in sight: "
            "blocks take tensors, alone or in tuples, named tuples, lists, dicts and dataclasses "
            "(not in other objects). Hand the tensors over in one of these, or name other "
            "blocks: blocks='model.layers'"
        )
    _require_savable(flowing)
    taken = False

    def place(leaf: Any) -> int | None:
        nonlocal taken
        if leaf is not flowing or taken:
            return None
        taken = True
        return 0

    return flowing, take_flow(args, kwargs, place)


def _require_savable(tensor: torch.Tensor) -> None:
    """Refuse a tensor from which no region can start.

    Raises:
        ProfileError: It is nested, or was made in inference mode.
    """
    if tensor.is_nested:
        raise ProfileError(
            "a nested tensor flows into the blocks, whose bytes torch does not show: run them on "
            "padded tensors, or on the values of one with its offsets as another argument"
        )
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise ProfileError(
            "a tensor that was made in inference mode flows into the blocks, and torch saves none "
            "for a backward: make it under torch.no_grad(), or pass x.clone()"
        )


def own_cache(value: Any) -> Any:
    """A copy of an empty key-value cache: a recomputed block would append to a shared one again.

    The block runs the same operations as with the model's own cache, which stays empty; a training
    step has no use for what it would hold.

    Raises:
        RecomputationError: The cache is not empty.
    """
    if not is_cache(value):
        return value
    if value.get_seq_length() > 0:
        raise RecomputationError(
            f"a {type(value).__name__} with {value.get_seq_length()} positions is passed to the "
            "blocks: what is recomputed would append to it twice. Train with an empty cache, or "
            "use_cache=False"
        )
    return copy.deepcopy(value)


def is_cache(value: Any) -> bool:
    """Whether a value is a key-value cache, as those of transformers."""
    if value is None or isinstance(value, _NO_CACHE):
        return False
    return hasattr(type(value), "update") and hasattr(type(value), "get_seq_length")


def output_tensors(output: Any, *, where: str) -> list[torch.Tensor]:
    """The tensors of a block's output, each once, in order.

    Raises:
        ProfileError: There is none in sight.
    """
    if isinstance(output, torch.Tensor):
        return [output]
    leaves = [one for leaf in leaves_of(output) for one in pytree.tree_leaves(leaf)]
    tensors = {id(one): one for one in leaves if isinstance(one, torch.Tensor)}
    if not tensors:
        raise ProfileError(
            f"{where} returns a {type(output).__name__} without a tensor in sight; a block returns "
            "tensors, alone or in tuples, lists, dicts, dataclasses and registered containers"
        )
    return list(tensors.values())


def with_tensors(output: Any, tensors: Sequence[Any], replacements: Sequence[Any]) -> Any:
    """``output`` with some of its tensors replaced."""
    if len(tensors) == 1 and output is tensors[0]:
        return replacements[0]
    table = {id(old): new for old, new in zip(tensors, replacements, strict=True)}
    return with_leaves(output, lambda leaf: table.get(id(leaf), leaf))


def with_leaves(output: Any, leaf: Callable[[Any], Any]) -> Any:
    """A copy of ``output`` with ``leaf`` of what its containers hold, those of pytree too."""
    return mapped(output, partial(pytree.tree_map, leaf))


def label(module: nn.Module, name: str) -> str:
    """``layers.3 (Block)``."""
    return f"{name or 'model'} ({type(module).__name__})"


def same_argument(mine: Any, other: Any) -> bool:
    """Whether two arguments are one: the same object, equal values, or one view of one tensor."""
    if mine is other:
        return True
    if isinstance(mine, torch.Tensor) and isinstance(other, torch.Tensor):
        return (
            mine.data_ptr() == other.data_ptr()
            and mine.shape == other.shape
            and mine.stride() == other.stride()
            and mine.dtype == other.dtype
            and mine.is_conj() == other.is_conj()
            and mine.is_neg() == other.is_neg()
            and not (mine.requires_grad or other.requires_grad)
        )
    try:
        return type(mine) is type(other) and bool(mine == other)
    except (TypeError, ValueError, RuntimeError):  # things that have no single answer differ
        return False


def _is_simple(call: tuple[tuple[Any, ...], dict[str, Any]], tensors: list[torch.Tensor]) -> bool:
    """Whether nothing of a call can hold another thing; its tensors are noted on the way."""
    args, kwargs = call
    for one in args:
        if isinstance(one, torch.Tensor):
            tensors.append(one)
        elif type(one) is not Flow and not isinstance(one, _ATOMIC):
            return False
    for one in kwargs.values():
        if isinstance(one, torch.Tensor):
            tensors.append(one)
        elif type(one) is tuple:
            if not all(isinstance(inner, torch.Tensor) for inner in one):
                return False
            tensors.extend(one)
        elif not isinstance(one, _ATOMIC):
            return False
    return True


def _changeable(value: Any) -> bool:
    """Whether a block may put something into an argument."""
    if type(value) in (list, dict) or (is_record(value) and not is_frozen(value)):
        return True
    return is_nested(value) and any(map(_changeable, members_of(value)))


def _argument(value: Any, flowing: Sequence[torch.Tensor]) -> Any:
    """An argument with flowing tensors in their places."""
    if is_nested(value):
        return replaced(value, partial(_placed, flowing))
    return own_cache(_placed(flowing, value))


def _placed(flowing: Sequence[torch.Tensor], leaf: Any) -> Any:
    return flowing[leaf.index] if type(leaf) is Flow else leaf


def _noted(tensors: list[torch.Tensor], leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        tensors.append(leaf)
    elif isinstance(leaf, tuple):  # of a class of its own, which nothing changes
        tensors.extend(one for one in leaf if isinstance(one, torch.Tensor))
    return leaf
