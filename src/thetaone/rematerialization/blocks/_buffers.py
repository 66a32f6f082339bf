"""Buffers of a region: copies of those that may change, shared by the regions of a chain."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from thetaone.rematerialization.blocks._calls import version_of
from thetaone.rematerialization.blocks._holders import SMALL


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

    def of(self, buffer: torch.Tensor) -> torch.Tensor:
        """A copy that nobody changes; the one made before, if the buffer is still the same."""
        known = self._known.get(id(buffer))
        if known is not None and known[0]() is buffer and known[1] == version_of(buffer):
            value = known[2]()
            if value is not None:
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


def copied(module: nn.Module) -> bool:
    """Whether a region notes the buffers of a module.

    A normalization layer that trains does not compute with its statistics.
    """
    return not (isinstance(module, _NormBase) and module.training)


def size_of(buffer: torch.Tensor) -> int:
    """Bytes of a dense buffer; of another layout, more than are copied unasked."""
    return buffer.nbytes if buffer.layout == torch.strided else SMALL + 1


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
                    layer._buffers[name] = buffer.detach().clone()
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
                    fresh[id(value)] = copy = value.clone()
                    copies.note(copy, value)  # a region inside needs no other copy
                earlier[name] = fresh[id(value)]
            one.module._buffers.clear()
            one.module._buffers.update(earlier)
        yield
    finally:
        for one, now in changed:
            one.module._buffers.clear()
            one.module._buffers.update(now)
