"""Modules whose calls go through a schedule: each takes a subclass of its own class.

The object stays the same, with its parameters, hooks and state_dict. What it needs to run by a
schedule sits in its ``__dict__``, so that it is copied and pickled with it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

ENTRY = "_rematerialization"  # in a module's __dict__: (executor, index of the block)


def specialize(module: nn.Module, members: dict[str, Any], entry: tuple[Any, int]) -> None:
    """Give a module a class of its own with these members."""
    module.__class__ = _subclass(type(module), members)
    module.__dict__[ENTRY] = entry


def written(module: nn.Module) -> type[nn.Module]:
    """The class that a module was written with."""
    found = _special(module)
    return type(module) if found is None else found.__bases__[0]


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
    """Inside, every module of a model runs as its own class says."""
    special = [
        (module, type(module), module.__dict__[ENTRY])
        for module in model.modules()
        if ENTRY in module.__dict__
    ]
    plain(module for module, _, _ in special)
    try:
        yield
    finally:
        for module, cls, entry in special:
            module.__class__ = cls
            module.__dict__[ENTRY] = entry


def _special(module: nn.Module) -> type[nn.Module] | None:
    return next((cls for cls in type(module).__mro__ if "_specialized" in vars(cls)), None)


def _subclass(original: type[nn.Module], members: dict[str, Any]) -> type[nn.Module]:
    named = {"__module__": original.__module__, "__qualname__": original.__qualname__}
    special = {"_specialized": members, "__reduce_ex__": _reduce}
    return _named(original.__name__, (original,), {**members, **named, **special})


def _named(name: str, bases: tuple[type, ...], members: dict[str, Any]) -> type[nn.Module]:
    made: Any = type(name, bases, members)
    return made


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
