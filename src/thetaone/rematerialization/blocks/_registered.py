"""What modules of a region register: parameters, and buffers with copies of those that may change.

Copies are shared by the regions of a chain.
"""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter, eq, is_
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from thetaone.rematerialization.blocks.state import SMALL, version_of

_PARAMETERS = attrgetter("_parameters")


class Registered(NamedTuple):
    """A parameter, the module that has it, and its name there."""

    module: nn.Module
    name: str
    parameter: nn.Parameter


class Parameters:
    """The parameters of some modules at one moment, in flat lists that are compared in C.

    Args:
        modules: All of the region's blocks.
    """

    __slots__ = ("counts", "modules", "names", "state", "tensors")

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        held = list(map(_PARAMETERS, modules))
        self.counts, self.names = list(map(len, held)), list(chain.from_iterable(held))
        self.tensors = list(chain.from_iterable(map(dict.values, held)))
        self.state = _state(self.tensors)

    def changed(self, apart: Iterable[Registered] = ()) -> tuple[Registered, str] | None:
        """The first that was changed in place, frozen or unfrozen, and what happened to it."""
        known = {id(one.parameter) for one in apart}
        now = _state(self.tensors)
        if now == self.state:
            return None
        alike = (map(eq, before, after) for before, after in zip(self.state, now, strict=True))
        for one, version, place, trained in zip(self.named(), *alike, strict=True):
            if not (version and place) and id(one.parameter) not in known:
                return one, "was changed"
            if not trained:
                return one, "was frozen or unfrozen"
        return None

    def replaced(self) -> list[Registered]:
        """Those that their modules no longer have."""
        held = map(_PARAMETERS, self.modules)
        now = list(chain.from_iterable(map(dict.values, held)))
        if len(now) == len(self.tensors) and all(map(is_, now, self.tensors)):
            return []
        return [
            one for one in self.named() if one.module._parameters.get(one.name) is not one.parameter
        ]

    def named(self) -> Iterator[Registered]:
        """Each with its module and its name there."""
        owners = chain.from_iterable(map(repeat, self.modules, self.counts))
        for module, name, tensor in zip(owners, self.names, self.tensors, strict=True):
            if tensor is not None:
                yield Registered(module, name, tensor)


def copied(one: Registered, value: torch.Tensor) -> Registered:
    """The same with a parameter of its own that holds a copy of a value."""
    copy = nn.Parameter(value.clone(), requires_grad=one.parameter.requires_grad)
    _with_attributes(copy, one.parameter)
    return one._replace(parameter=copy)


def _with_attributes(copy: torch.Tensor, original: torch.Tensor | None) -> torch.Tensor:
    """A copy that also has what others put on the original: ``weight.calls``."""
    if original is not None and (attributes := vars(original)):
        vars(copy).update(attributes)
    return copy


@contextmanager
def earlier_parameters(replaced: Sequence[Registered]) -> Iterator[None]:
    """Give modules the parameters that the region found, as ``functional_call`` replaces them."""
    now = [one.module._parameters.get(one.name) for one in replaced]
    for one in replaced:
        one.module._parameters[one.name] = one.parameter
    try:
        yield
    finally:
        for one, parameter in zip(replaced, now, strict=True):
            if parameter is None:
                del one.module._parameters[one.name]
            else:
                one.module._parameters[one.name] = parameter


def _state(tensors: Iterable[nn.Parameter | None]) -> tuple[list[int], list[int], list[bool]]:
    """Version, address and requires_grad of each parameter that is there."""
    parameters = [one for one in tensors if one is not None]
    return (
        list(map(attrgetter("_version"), parameters)),
        list(map(torch.Tensor.data_ptr, parameters)),
        list(map(attrgetter("requires_grad"), parameters)),
    )


@dataclass
class ModuleBuffers:
    """Buffers of a module as a region found them; ``values`` are copies of those it may change."""

    module: nn.Module
    tensors: dict[str, torch.Tensor | None]
    versions: dict[str, int]
    values: dict[str, torch.Tensor]

    def moved(self, name: str) -> bool:
        """Whether a buffer is another one now, or was changed in place."""
        before = self.tensors.get(name)
        if self.module._buffers.get(name) is not before:
            return True
        return before is not None and version_of(before) != self.versions[name]

    @property
    def replayed(self) -> bool:
        """Whether a recomputation gives the module its earlier buffers."""
        now = self.module._buffers
        return (
            bool(self.values)
            or any(now.get(k) is not t for k, t in self.tensors.items())
            or (now.keys() != self.tensors.keys())
        )


class Copies:
    """Copies of buffers that the regions of a chain have made, so that nested ones share them.

    Args:
        moving: Names of large buffers that blocks change; another is added when it does.
    """

    def __init__(self, moving: Iterable[str] = ()) -> None:
        self.moving = set(moving)
        self._known: dict[int, tuple[weakref.ref[Any], int, weakref.ref[Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of a step under way."""
        return {"moving": set(self.moving), "_known": {}}

    def of(self, buffer: torch.Tensor, *, compared: bool = False) -> torch.Tensor:
        """A copy that nobody changes; the one made before, if the buffer is still the same.

        A change through ``.data`` or a NumPy view moves no version: ``compared`` looks at contents.
        """
        known = self._known.get(id(buffer))
        if known is not None and known[0]() is buffer and known[1] == version_of(buffer):
            value = known[2]()
            if value is not None and not (compared and differs(value, buffer)):
                return value
        value = buffer.detach().clone()
        self.note(buffer, value)
        return value

    def note(self, buffer: torch.Tensor, value: torch.Tensor) -> None:
        """A buffer has this value now."""
        place, known = id(buffer), self._known

        def died(_: object) -> None:
            known.pop(place, None)

        known[place] = weakref.ref(buffer, died), version_of(buffer), weakref.ref(value)


def size_of(buffer: torch.Tensor) -> int:
    """Bytes of a dense buffer; of another layout, more than are copied unasked."""
    return buffer.nbytes if buffer.layout == torch.strided else SMALL + 1


def differs(before: torch.Tensor, now: torch.Tensor) -> bool:
    """Whether dense tensors differ in a bit that counts; NaN equals itself."""
    return before.layout == torch.strided and not torch.equal(
        before.reshape(-1).view(torch.uint8), now.reshape(-1).view(torch.uint8)
    )


@contextmanager
def kept_statistics(modules: list[nn.Module]) -> Iterator[None]:
    """Normalization layers update copies of their running statistics."""
    layers = [
        layer
        for layer in modules
        if isinstance(layer, _NormBase) and layer.training and layer.track_running_stats
    ]
    before = [dict(layer._buffers) for layer in layers]
    try:
        for layer in layers:
            for name, buffer in layer._buffers.items():
                if buffer is not None:
                    layer._buffers[name] = _with_attributes(buffer.detach().clone(), buffer)
        yield
    finally:
        for layer, buffers in zip(layers, before, strict=True):
            layer._buffers.update(buffers)


@contextmanager
def earlier_buffers(buffers: list[ModuleBuffers], copies: Copies) -> Iterator[None]:
    """Modules have the buffers that the region found: copies of those that it may change."""
    changed = [(one, dict(one.module._buffers)) for one in buffers if one.replayed]
    fresh: dict[int, torch.Tensor] = {}
    try:
        for one, _ in changed:
            earlier: dict[str, torch.Tensor | None] = dict(one.tensors)
            for name, value in one.values.items():
                if id(value) not in fresh:
                    copy = _with_attributes(value.clone(), one.tensors[name])
                    fresh[id(value)] = copy
                    copies.note(copy, value)  # a region inside needs no other copy
                earlier[name] = fresh[id(value)]
            one.module._buffers.clear()
            one.module._buffers.update(earlier)
        yield
    finally:
        for one, now in changed:
            one.module._buffers.clear()
            one.module._buffers.update(now)
