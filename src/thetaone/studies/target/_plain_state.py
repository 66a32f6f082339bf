"""What a training moves and no state dict holds: plain attributes of modules, and generators.

A warm-up counter, a running list, a generator for drop path: an interrupted training that goes on
without them is another training.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thetaone._contents import contents_digest

_OF_ANY_MODULE = frozenset(vars(nn.Module()))
_OURS = ("thetaone", "torch")  # what these put on a module they put there again
_GENERATOR = "state of a generator"
_STATES: tuple[tuple[type, Callable[[Any], Any], Callable[[Any, Any], None]], ...] = (
    (torch.Generator, lambda g: g.get_state(), lambda g, state: g.set_state(state)),
    (random.Random, lambda g: g.getstate(), lambda g, state: g.setstate(state)),
    (
        np.random.Generator,
        lambda g: g.bit_generator.state,
        lambda g, state: setattr(g.bit_generator, "state", state),
    ),
)


class _UnstorableError(Exception):
    """A value that ``torch.load`` does not take with ``weights_only``."""


@dataclass(frozen=True)
class PlainState:
    """Plain attributes of a model's modules, and how they were before its training.

    Attributes:
        model: Whose.
        before: Digest of each, by name.
    """

    model: nn.Module
    before: dict[str, str]

    @classmethod
    def of(cls, model: nn.Module) -> "PlainState":
        """The state of a model that is about to be trained."""
        return cls(model, {name: _digest(value) for name, _, _, value in _attributes(model)})

    def moved(self) -> tuple[dict[str, Any], list[str]]:
        """What has changed, as a checkpoint holds it, and names of what none can hold."""
        kept: dict[str, Any] = {}
        lost: list[str] = []
        for name, _, _, value in _attributes(self.model):
            if _digest(value) == self.before.get(name):
                continue
            try:
                kept[name] = _stored(value)
            except _UnstorableError:
                lost.append(name)
        return kept, lost

    @torch.no_grad()
    def restore(self, kept: dict[str, Any]) -> None:
        """Put back what ``moved`` gave."""
        modules = dict(self.model.named_modules())
        for name, stored in kept.items():
            prefix, _, local = name.rpartition(".")
            owner = vars(modules[prefix])
            owner[local] = _put(owner.get(local), stored)


def task_digest(source: Any) -> str:
    """Digest of what a task holds beside its code: its attributes, or its module's globals."""
    return contents_digest({
        name: value for name, value in vars(source).items()
        if not (name.startswith("__") or callable(value) or isinstance(value, ModuleType))
    } if hasattr(source, "__dict__") else None)  # fmt: skip


def _attributes(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    for prefix, module in model.named_modules():
        for local, value in list(vars(module).items()):
            root = type(value).__module__.partition(".")[0]
            known = local in _OF_ANY_MODULE or isinstance(value, nn.Module)
            if known or (root in _OURS and not isinstance(value, (Tensor, torch.Generator))):
                continue
            yield f"{prefix}.{local}", module, local, value


def _digest(value: Any) -> str:
    try:
        return contents_digest(_stored(value))
    except _UnstorableError:
        return contents_digest(value)


def _stored(value: Any) -> Any:
    """The value in types that ``torch.load`` takes; a generator by its state.

    Raises:
        _UnstorableError: It has a part of another type.
    """
    for kind, read, _ in _STATES:
        if isinstance(value, kind):
            return {_GENERATOR: _stored(read(value))}
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple, set):
        return type(value)(_stored(part) for part in value)
    if type(value) is dict:
        return {_stored(key): _stored(part) for key, part in value.items()}
    if type(value) in (bool, int, float, str, type(None)):
        return value
    raise _UnstorableError


def _put(old: Any, stored: Any) -> Any:
    """The stored value, in the old one's place where others may hold that too."""
    if isinstance(stored, dict) and _GENERATOR in stored:
        for kind, _, write in _STATES:
            if isinstance(old, kind):
                write(old, stored[_GENERATOR])
        return old
    if type(old) is dict and type(stored) is dict:
        values = {key: _put(old.get(key), part) for key, part in stored.items()}
        old.clear()
        old.update(values)
        return old
    if type(stored) in (list, tuple) and type(old) is type(stored):
        olds = [*old, *[None] * len(stored)]
        values = [_put(one, part) for one, part in zip(olds, stored, strict=False)]
        if isinstance(old, tuple):
            return tuple(values)
        old[:] = values
        return old
    if isinstance(old, Tensor) and isinstance(stored, Tensor):
        alike = old.shape == stored.shape and old.dtype == stored.dtype and old.grad_fn is None
        return old.copy_(stored) if alike else stored
    return stored
