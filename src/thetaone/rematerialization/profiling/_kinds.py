"""Which blocks may share one measurement: those of which everything that may matter agrees.

What cannot be compared is different: an object without visible state equals itself alone.
"""

import functools
import types
from collections import deque
from collections.abc import Hashable, Iterable
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn

from thetaone.rematerialization.blocks import (
    ATOMS,
    GENERATORS,
    INTERNAL,
    describe_tensor,
    leaves_of,
    slot_names,
    written,
)


def kind_of(block: nn.Module, flowing: Iterable[torch.Tensor], arguments: Any) -> Hashable:
    """Equal for blocks that cost the same: same code, state, parameters and input.

    Args:
        block: The module.
        flowing: What flows in.
        arguments: Its other arguments.
    """
    inputs = [
        _tensor(one) if isinstance(one, torch.Tensor) else state_of(one)
        for one in (*flowing, *leaves_of(arguments))
    ]
    return state_of(block), tuple(inputs)


def state_of(value: Any) -> Hashable:
    """A description of a value with all that it holds; equal descriptions mean equal behaviour."""
    return _describe(value, {})


def _describe(value: Any, seen: dict[int, tuple[int, Any]]) -> Hashable:
    if isinstance(value, Enum | type | types.ModuleType):
        return type(value).__name__, id(value)
    if isinstance(value, ATOMS):
        return type(value).__name__, repr(value)
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, GENERATORS):
        return "generator", type(value).__name__
    if id(value) in seen:
        return "seen", seen[id(value)][0]
    seen[id(value)] = len(seen), value  # held, so that no other object takes its id
    if isinstance(value, nn.Module):
        return _module(value, seen)
    if isinstance(value, dict | types.MappingProxyType):
        items = [(_describe(key, seen), _describe(one, seen)) for key, one in value.items()]
        return type(value).__name__, tuple(items)
    if isinstance(value, list | tuple | deque):
        return type(value).__name__, tuple(_describe(one, seen) for one in value)
    if isinstance(value, set | frozenset):
        return type(value).__name__, frozenset(_describe(one, {}) for one in value)
    return _callable(value, seen) or _object(value, seen)


def _module(module: nn.Module, seen: dict[int, tuple[int, Any]]) -> Hashable:
    plain = {name: one for name, one in vars(module).items() if name not in INTERNAL}
    return (
        id(written(module)),
        *(
            _describe(members, seen)
            for members in (
                plain,
                dict(module._parameters),
                dict(module._buffers),
                dict(module._modules),
                dict(module._forward_hooks),
                dict(module._forward_pre_hooks),
            )
        ),
    )


def _callable(value: Any, seen: dict[int, tuple[int, Any]]) -> Hashable:
    if isinstance(value, functools.partial):
        return "partial", _describe([value.func, value.args, value.keywords], seen)
    if isinstance(value, types.MethodType):
        return "method", _describe([value.__func__, value.__self__], seen)
    if isinstance(value, types.FunctionType):
        cells = [_cell(cell) for cell in value.__closure__ or ()]
        held = [*cells, value.__defaults__, value.__kwdefaults__]
        return "function", id(value.__code__), _describe(held, seen)
    return None


def _object(value: Any, seen: dict[int, tuple[int, Any]]) -> Hashable:
    slots = slot_names(type(value))
    if not hasattr(value, "__dict__") and not slots:
        return "itself", id(value)
    members = {**getattr(value, "__dict__", {})}
    members.update((name, getattr(value, name)) for name in slots if hasattr(value, name))
    return id(type(value)), _describe(members, seen)


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _tensor(tensor: torch.Tensor) -> Hashable:
    strides = tensor.stride() if tensor.layout == torch.strided else ()
    return describe_tensor(tensor), str(tensor.device), tensor.requires_grad, strides
