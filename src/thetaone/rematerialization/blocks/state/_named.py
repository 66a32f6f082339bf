"""What code names: globals, what is imported or read of modules, methods and members of classes."""

import functools
import os
import sys
import types
from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Any

from torch import nn

from thetaone.rematerialization.blocks.state._code import (
    functions,
    imported,
    is_member,
    origin,
    stored,
    written_classes,
)
from thetaone.rematerialization.blocks.state._generators import GENERATORS
from thetaone.rematerialization.blocks.state._holders import ClassMembers, Names
from thetaone.rematerialization.blocks.state._opaque import is_draw
from thetaone.rematerialization.blocks.state._reached import PLAIN, Reached

FUNCTIONS = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinMethodType,
    types.MethodWrapperType,
    functools.partial,
)
# with a text, they give a global or a module
_LOOKING_UP = frozenset(("globals", "modules", "import_module", "__import__", "vars", "__dict__"))
BUILT = ("__init__", "__new__", "__post_init__")
# what operators and statements call without naming it
_OPERATORS = (
    "call getattr getattribute setattr getitem setitem contains len iter next bool enter exit get "
    "set add radd sub rsub mul rmul truediv rtruediv matmul rmatmul pow neg iadd isub imul eq ne "
    "lt le gt ge float int index hash torch_function"
)
CALLED = tuple(f"__{name}__" for name in _OPERATORS.split())


def used() -> set[str]:
    """The scope of what code uses whatever the name."""
    return {""}


class Named:
    """Follows code; what it comes upon waits in ``pending``.

    Something that cannot be noted matters only if code names it, or what holds it: its scope is
    the names under which code would come upon it, ``""`` where it does.
    """

    def __init__(self) -> None:
        self.reached = Reached()
        self.pending: deque[tuple[Any, str, set[str]]] = deque()
        self.attributed: list[tuple[Any, str]] = []  # tensors and members of enumerations
        self.names = self.reached.names
        self.names.add("")
        self.stored: set[str] = set()  # attributes that code sets
        self.dynamic = False  # whether code of the user's looks names up as it runs
        self.whose = "own"  # the code that is followed now
        self.walked = self.reached.codes
        self.classes: dict[type, set[str]] = {}  # with the methods that they start with
        self.modules: dict[int, tuple[types.ModuleType, set[str]]] = {}  # with names followed
        self.started: set[tuple[type, str]] = set()
        self.members: set[type] = set()

    def _push(self, value: Any, path: str, scope: set[str]) -> None:
        if isinstance(value, Enum) and origin(type(value).__module__) == "own":
            self.attributed.append((value, path))
        elif not isinstance(value, PLAIN):
            self.pending.append((value, path, scope))

    def _code(self, code: types.CodeType, function: types.FunctionType) -> None:
        if code in self.walked:
            return
        self.walked.add(code)
        self.names.update(code.co_names)
        self.names.update(one for one in code.co_consts if isinstance(one, str))
        space = function.__globals__
        looked_up = [one for one in code.co_consts if isinstance(one, str)]
        looked_up = looked_up if not _LOOKING_UP.isdisjoint(code.co_names) else []
        named = [name for name in (*code.co_names, *looked_up) if name in space]
        path = function.__module__
        self.whose = origin(path)
        variables, attributes = stored(code)
        if self.whose == "own":
            self.stored |= attributes
            self.dynamic = self.dynamic or "getattr" in code.co_names
        watched = [
            name for name in named if self._global(space[name], f"{path}.{name}", code.co_names)
        ]
        loaded = [sys.modules[name] for name in looked_up if name in sys.modules]
        for module in (*imported(code, space), *loaded):
            self._namespace(module, code.co_names)
        if self.whose == "own":
            watched += sorted(variables.difference(watched))
            if watched:
                self.reached.holders.append(Names(path, space, watched))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, function)

    def _global(self, value: Any, path: str, names: Iterable[str]) -> bool:
        """Follow a global; whether its value is to be watched."""
        if isinstance(value, types.ModuleType):
            self._namespace(value, names)
            return False
        if isinstance(value, type):
            self._class(value, ("forward", "__call__", "apply"))
            if not issubclass(value, nn.Module):
                self.classes[value].update(BUILT)  # code may make one
            return False
        in_block = origin(path.rpartition(".")[0]) == "own"
        if in_block or isinstance(value, (*FUNCTIONS, *GENERATORS)):
            self._push(value, path, used())
        return in_block

    def _namespace(self, module: types.ModuleType, names: Iterable[str]) -> None:
        """Follow what code names of a module: ``settings.scale``, ``random.random``."""
        space, watched = vars(module), list[str]()
        whose = origin(module.__name__)
        for name in names:
            value = space.get(name)
            if whose == "closed":  # only to see whether it draws from a generator of that module
                inner = isinstance(value, types.ModuleType) and name == "random"
                if inner and isinstance(value, types.ModuleType):
                    self._namespace(value, names)
                elif isinstance(getattr(value, "__self__", None), GENERATORS) or (
                    value is os.environ or value is os.getenv or is_draw(value)
                ):
                    self._push(value, f"{module.__name__}.{name}", used())
            elif name in space and self._global(value, f"{module.__name__}.{name}", ()):
                watched.append(name)
        if whose == "own":
            watched += sorted(self.stored.intersection(names).difference(space))
        if watched and whose == "own":
            self.reached.holders.append(Names(module.__name__, module, watched))

    def _held_modules(self) -> bool:
        """Follow what code may read of modules that are held as values."""
        for module, done in self.modules.values():
            if names := (self.names & vars(module).keys() | self.stored) - done:
                done |= names
                self._namespace(module, sorted(names))
        return bool(self.pending)

    def _class(self, cls: type, start: Iterable[str]) -> None:
        """Follow methods of a class that code names, and those that it starts with."""
        self.classes.setdefault(cls, set()).update(start)
        meta, where = type(cls), type(cls).__module__
        if isinstance(where, str) and origin(where) == "own":
            self.classes.setdefault(meta, set())

    def _methods(self) -> bool:
        """Follow methods that reachable code names; whether there was one more."""
        for cls in list(self.classes):
            for one in written_classes(cls):
                every = self.dynamic and origin(one.__module__) == "own"
                some = (self.names | self.classes[cls]) & vars(one).keys()
                for name in vars(one) if every else some:
                    if (one, name) not in self.started:
                        self.started.add((one, name))
                        for function in functions(vars(one)[name]):
                            self._push(function, f"{one.__qualname__}.{name}", used())
        return bool(self.pending)

    def _class_members(self) -> bool:
        """Watch values that classes hold; whether there is more to visit."""
        for cls in list(self.classes):
            for one in written_classes(cls):
                if one in self.members:
                    continue
                self.members.add(one)
                members = {name: value for name, value in vars(one).items() if is_member(name)}
                own = origin(one.__module__) == "own"
                if own:
                    self.reached.holders.append(ClassMembers(one.__qualname__, one))
                for name, value in members.items():
                    # code is followed where it is named
                    if isinstance(value, GENERATORS) or (own and not functions(value)):
                        self._push(value, f"{one.__qualname__}.{name}", {name})
        return bool(self.pending)
