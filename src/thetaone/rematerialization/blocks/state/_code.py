"""Whose code a module of Python holds, and which of its classes and functions are followed."""

import dis
import functools
import sys
import types
from collections.abc import Iterator, Mapping
from threading import local
from typing import Any

_FOLLOWED = {
    "collections",
    "types",
    "argparse",
    "_thread",
    "threading",
    "functools",
    "weakref",
    "__main__",
}
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
    names = [one.argval for one in dis.get_instructions(code) if one.opname == "IMPORT_NAME"]
    names += [f"{space.get('__package__')}.{name}" for name in names]
    return [sys.modules[name] for name in names if name in sys.modules]


def followed(cls: type) -> bool:
    root = (cls.__module__ or "").partition(".")[0]
    return root in _FOLLOWED or origin(cls.__module__) != "closed"


@functools.cache
def origin(module: str | None) -> str:
    """``own`` for a user's code, ``installed`` for a package's, ``closed`` for what is trusted."""
    root = (module or "builtins").partition(".")[0]
    if root in _CLOSED or root in sys.stdlib_module_names:
        return "own" if root == "__main__" else "closed"
    file = str(getattr(sys.modules.get(module or ""), "__file__", None) or "")
    return "installed" if "site-packages" in file or "dist-packages" in file else "own"
