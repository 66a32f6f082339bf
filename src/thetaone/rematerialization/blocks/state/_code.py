"""Whose code a module of Python holds, and which of its classes and functions are followed."""

import dis
import functools
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import resolve_name
from threading import local
from typing import Any

_FOLLOWED = (
    "torch.distributions",
    "torch.quasirandom",
    "torch.utils.data",
)  # these hold what they compute with
_CLOSED = ("torch", "numpy", "thetaone", "pytest", "_pytest")


def written_classes(cls: type) -> Iterator[type]:
    """The classes of an ancestry whose code is followed."""
    return (one for one in cls.__mro__ if origin(one.__module__) != "closed")


def functions(member: Any) -> list[Any]:
    """Functions behind a member of a class."""
    if isinstance(member, property):
        return [one for one in (member.fget,) if one is not None]
    if isinstance(member, staticmethod | classmethod):
        return [member.__func__]
    if isinstance(member, functools.cached_property):
        return [member.func]
    return [member] if isinstance(member, types.FunctionType) else []


def is_member(name: str) -> bool:
    """Whether a name of a class is the user's, not what Python or a schedule put there."""
    return not name.startswith("__") and name not in ("_abc_impl", "_specialized")


def members_of(value: Any) -> Mapping[str, Any]:
    """The ``__dict__`` of a value, past any ``__getattr__``; empty if it has none."""
    try:
        read = local if isinstance(value, local) else object
        members = read.__getattribute__(value, "__dict__")
    except AttributeError:
        return types.MappingProxyType({})
    return members if isinstance(members, dict) else types.MappingProxyType({})


def imported(code: types.CodeType, space: dict[str, Any]) -> list[types.ModuleType]:
    """Modules that a function imports as it runs, those that are loaded."""
    names: list[str] = []
    for level, name in _names(code).imports:
        if level and not space.get("__package__"):
            continue
        names.append(resolve_name("." * level + name, space.get("__package__")))
    return [sys.modules[name] for name in names if name in sys.modules]


def stored(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Globals, and attributes, that a function sets or deletes."""
    names = _names(code)
    return names.globals, names.attributes


@dataclass(frozen=True)
class _Names:
    """What the instructions of a function name.

    Attributes:
        imports: Modules that it imports, each with how many packages up it starts.
        globals: Globals that it sets or deletes.
        attributes: Attributes that it sets or deletes.
    """

    imports: tuple[tuple[int, str], ...]
    globals: frozenset[str]
    attributes: frozenset[str]


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> _Names:
    steps = list(dis.get_instructions(code))
    imports = tuple(
        (int(steps[place - 2].argval or 0), step.argval)
        for place, step in enumerate(steps)
        if step.opname == "IMPORT_NAME"
    )

    def operands(kind: str) -> frozenset[str]:
        names = (f"STORE_{kind}", f"DELETE_{kind}")
        return frozenset(step.argval for step in steps if step.opname in names)

    return _Names(imports, operands("GLOBAL"), operands("ATTR"))


def followed(cls: type) -> bool:
    """Whether the attributes of an object are followed: all but those of trusted libraries."""
    module = cls.__module__ or "builtins"
    return module.startswith(_FOLLOWED) or module.partition(".")[0] not in _CLOSED


@functools.cache
def origin(module: str | None) -> str:
    """``own`` for a user's code, ``installed`` for a package's, ``closed`` for what is trusted."""
    root = (module or "builtins").partition(".")[0]
    if root in _CLOSED or root in sys.stdlib_module_names:
        return "own" if root == "__main__" else "closed"
    file = str(getattr(sys.modules.get(module or ""), "__file__", None) or "")
    return "installed" if "site-packages" in file or "dist-packages" in file else "own"
