"""Readings that need not be done again: of a model unchanged since, or of another one built alike.

A reading depends on classes, shapes, what is shared, hooks, and plain attributes. Two models that
agree in all of them are read once, if nothing else hangs on them; a model with attributes of other
kinds (a config object) is read once by itself.
"""

import weakref
from collections import OrderedDict
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from thetaone.records import Blueprint

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_SIMPLE = frozenset((bool, int, float, str, type(None)))
_HASHED = (FunctionType, BuiltinFunctionType, type, torch.dtype, torch.device)
_SMALL = 4096  # entries of a constant whose value may matter
_KEPT = 32  # readings of models built alike


class Readings:
    """Blueprints by what they depend on."""

    def __init__(self) -> None:
        self._by_contents: OrderedDict[Any, Blueprint] = OrderedDict()
        self._by_model: weakref.WeakKeyDictionary[nn.Module, tuple[Any, Blueprint]] = (
            weakref.WeakKeyDictionary()
        )

    def find(self, model: nn.Module, signature: "Signature") -> Blueprint | None:
        """The reading of a model, or of one like it; ``None`` where there is none."""
        if signature.whole:
            return self._by_contents.get(signature.contents)
        contents, blueprint = self._by_model.get(model, (None, None))
        return blueprint if contents == signature.contents else None

    def keep(self, model: nn.Module, signature: "Signature", blueprint: Blueprint) -> None:
        """Store a reading; the oldest is forgotten."""
        if not signature.whole:
            self._by_model[model] = (signature.contents, blueprint)
            return
        self._by_contents[signature.contents] = blueprint
        if len(self._by_contents) > _KEPT:
            self._by_contents.popitem(last=False)


class Signature:
    """What a reading of a model depends on.

    Attributes:
        contents: Hashable; equal for models built alike.
        whole: Whether it says all that is there; otherwise it holds for one model alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self.whole = True
        self._numbers: dict[int, int] = {}
        modules = model.named_modules(remove_duplicate=False)
        self.contents = tuple(self._module(name, module) for name, module in modules)

    def _module(self, name: str, module: nn.Module) -> tuple[Any, ...]:
        held = vars(module)
        hooks = (*held["_forward_hooks"], *held["_forward_pre_hooks"])
        if hooks:
            self.whole = False
        own = module.named_parameters(recurse=False, remove_duplicate=False)
        parameters = tuple((local, self._parameter(p)) for local, p in own)
        if isinstance(module, torch.jit.ScriptModule):  # its code is no Python that says the rest
            self.whole = False
            return name, type(module), self._number(module), parameters, hooks
        buffers = tuple((local, self._value(b)) for local, b in held["_buffers"].items())
        rest = tuple(
            (key, value if type(value) in _SIMPLE else self._value(value))
            for key, value in held.items()
            if key not in _OF_EVERY_MODULE
        )
        return name, type(module), self._number(module), parameters, buffers, rest, hooks

    def _number(self, thing: Any) -> int:
        """The same for the same thing: what is shared is known by it."""
        return self._numbers.setdefault(id(thing), len(self._numbers))

    def _parameter(self, parameter: Tensor) -> tuple[Any, ...]:
        return self._number(parameter), parameter.shape, parameter.requires_grad, parameter.is_meta

    def _value(self, value: Any) -> Any:
        closed = getattr(value, "__closure__", None) is not None  # may hold a model
        if type(value) in _SIMPLE or (isinstance(value, _HASHED) and not closed):
            return value
        if isinstance(value, (tuple, list)):
            return type(value), tuple(self._value(entry) for entry in value)
        if isinstance(value, dict):
            return tuple((self._value(k), self._value(v)) for k, v in value.items())
        if isinstance(value, weakref.ReferenceType):
            return self._value(value())
        if isinstance(value, nn.Module):
            return type(value), self._number(value)
        if isinstance(value, nn.Parameter):
            return self._parameter(value)
        if isinstance(value, Tensor) and type(value) in (Tensor, nn.Buffer):
            return self._tensor(value)
        self.whole = False
        return type(value)

    def _tensor(self, value: Tensor) -> tuple[Any, ...]:
        known = not value.is_meta and value.numel() <= _SMALL and value.layout is torch.strided
        contents = tuple(value.detach().flatten().tolist()) if known else None
        return value.shape, value.dtype, value.is_meta, contents
