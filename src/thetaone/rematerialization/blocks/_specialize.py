"""Modules whose calls go through a schedule: each takes a subclass of its own class.

The object stays the same, with its parameters, hooks and state_dict. What it needs to run by a
schedule sits in its ``__dict__``, so that it is copied and pickled with it. Blocks of one class
share one subclass, so that a compiler that guards on classes compiles their code once.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

import torch
from torch import nn

ENTRY = "_rematerialization"  # in a module's __dict__
REASON = (
    "thetaone runs the blocks of a rematerialized model by its schedule, which is Python: a "
    "compiled model breaks into graphs there. Compile it without fullgraph=True, or compile its "
    "blocks, block.compile(fullgraph=True), before or after rematerialize"
)
_specials: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


class Runner(Protocol):
    """Runs blocks in place of their own calls."""

    def call_block(
        self, block: nn.Module, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What happens when a model calls a block."""
        ...


class Entry(NamedTuple):
    """What runs a block in its place, and which block it is there."""

    runner: Runner
    place: int


def specialize(module: nn.Module, members: dict[str, Any], entry: tuple[Any, int]) -> None:
    """Give a module a class of its own with these members."""
    special = _special(module)
    if special is not None and vars(special)["_specialized"] is not members:
        plain([module])
        special = None
    if special is None:
        module.__class__ = _subclass(type(module), members)
    module.__dict__[ENTRY] = Entry(*entry)


def route_calls(blocks: Iterable[nn.Module], runner: Runner) -> None:
    """Let a runner take the calls of blocks from now on."""
    for index, block in enumerate(blocks):
        specialize(block, CALL, (runner, index))


@contextmanager
def specialized_calls(blocks: Iterable[nn.Module], runner: Runner) -> Iterator[None]:
    """Let a runner take the calls of blocks inside; afterwards they run as before."""
    blocks = list(blocks)
    before = [(block, block.__dict__.get(ENTRY), _special(block)) for block in blocks]
    route_calls(blocks, runner)
    try:
        yield
    finally:
        for block, entry, special in before:
            if entry is not None:
                block.__dict__[ENTRY] = entry
            else:
                block.__dict__.pop(ENTRY, None)
            if special is None:
                plain([block])


def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    entry = self.__dict__.get(ENTRY)
    if entry is None:
        return written(self).__call__(self, *args, **kwargs)
    return in_python(entry.runner.call_block, self, entry.place, args, kwargs)


def in_python(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function that a compiler which traces the model leaves to Python."""
    return _python(function, *args)


def _plain_call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


_python = _plain_call


def _leave_to_python() -> None:
    """Tell torch's compiler, once a model needs it: this imports it."""
    global _python
    if _python is _plain_call:
        _python = torch.compiler.disable(_plain_call, reason=REASON)


CALL: dict[str, Any] = {"__call__": _call}


def written(module: nn.Module) -> type[nn.Module]:
    """The class that a module was written with."""
    cls = type(module)
    if getattr(cls, "_specialized", None) is None:  # asked before each call of a block
        return cls
    special = _special(module)
    return cls if special is None else special.__bases__[0]


def plain(modules: Iterable[nn.Module]) -> None:
    """Let modules run as their own classes say."""
    for module in modules:
        special = _special(module)
        if special is None:
            continue
        module.__dict__.pop(ENTRY, None)
        if type(module) is special:
            module.__class__ = special.__bases__[0]
        else:  # something specialized it further, as parametrizations do
            top: Any = type(module)
            bases = (special.__bases__[0] if base is special else base for base in top.__bases__)
            module.__class__ = _named(top.__name__, tuple(bases), dict(vars(top)))


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """Run every module of a model as its own class says, inside."""
    entries = [
        (module, module.__dict__.pop(ENTRY))
        for module in list(model.modules())
        if ENTRY in module.__dict__
    ]
    try:
        yield
    finally:
        for module, entry in entries:
            module.__dict__[ENTRY] = entry


def _special(module: nn.Module) -> type[nn.Module] | None:
    return next((cls for cls in type(module).__mro__ if "_specialized" in vars(cls)), None)


def _subclass(original: type[nn.Module], members: dict[str, Any]) -> type[nn.Module]:
    key = (original, *members.values())
    if (special_class := _specials.get(key)) is not None:
        return special_class
    _leave_to_python()
    named = {"__module__": original.__module__, "__qualname__": original.__qualname__}
    special = {"_specialized": members, "__reduce_ex__": _reduce}
    kind = _forwarding(type(original))
    cls = kind(original.__name__, (original,), {**members, **named, **special})
    _specials[key] = cls
    return cls


def _named(name: str, bases: tuple[type, ...], members: dict[str, Any]) -> type[nn.Module]:
    cls: Any = type(name, bases, members)
    return cls


@cache
def _forwarding(kind: type[type]) -> Any:
    """A metaclass: what a block writes to its class, it writes to the class it was written with."""

    def target(cls: type, name: str) -> type:
        special = "_specialized" in vars(cls) and not name.startswith(("__", "_abc_"))
        return cls.__bases__[0] if special else cls

    def write(cls: type, name: str, value: object) -> None:
        kind.__setattr__(target(cls, name), name, value)

    def delete(cls: type, name: str) -> None:
        kind.__delattr__(target(cls, name), name)

    return type(kind.__name__, (kind,), {"__setattr__": write, "__delattr__": delete})


def _reduce(self: Any, protocol: Any) -> Any:
    """Pickle and deepcopy as the original class would, specialized again on arrival."""
    special = _special(self)
    assert special is not None
    original: Any = special.__bases__[0]
    rebuild, arguments, *state = original.__reduce_ex__(self, protocol)
    if type(self) is not special:  # specialized further: that class knows how to come back
        return rebuild, arguments, *state
    arguments = tuple(original if value is special else value for value in arguments)
    return _rebuild, (special.__dict__["_specialized"], rebuild, arguments), *state


def _rebuild(members: dict[str, Any], rebuild: Any, arguments: tuple[Any, ...]) -> nn.Module:
    module = rebuild(*arguments)
    module.__class__ = _subclass(type(module), members)
    return module
