"""Whose code a module of Python holds, and which of its classes and functions are followed."""

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

_FOLLOWED = {"collections", "types", "argparse", "_thread", "threading", "functools", "__main__"}
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


def is_member(name: str, value: Any) -> bool:
    """Whether a name of a class holds a value, not code and not what Python put there."""
    plumbing = name.startswith("__") or name in ("_abc_impl", "_specialized")
    return not plumbing and not callable(value) and not hasattr(type(value), "__get__")


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
