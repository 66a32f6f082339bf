"""What state a block can reach: attributes, containers, closures, globals, random generators.

Objects are followed from the block's modules (children, plain attributes, hooks) through
containers, attributes, closures and bound methods; code is followed from ``forward`` through the
functions and methods that it names, to the globals that it reads. Torch, NumPy and the standard
library are taken to keep no state of their own beside their generators; other installed packages
are followed for generators and functions, not for their globals.
"""

import functools
import os
import re
import types
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from thetaone.rematerialization.blocks.state._code import (
    followed,
    functions,
    imported,
    is_member,
    members_of,
    origin,
    written_classes,
)
from thetaone.rematerialization.blocks.state._generators import GENERATORS, replayable
from thetaone.rematerialization.blocks.state._holders import (
    HOOK_OPTIONS,
    HOOKS,
    INTERNAL,
    Cell,
    Environment,
    Items,
    Members,
    Names,
    Slots,
    slot_names,
)
from thetaone.rematerialization.blocks.state._reached import ATOMS, Reached

LIMIT = 20_000  # objects that one block may reach
LARGE = 64  # entries of a container that is watched only if code names it
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinMethodType, functools.partial)
_CONTAINERS = (list, deque, set, dict)
DEFAULTS = ("__defaults__", "__kwdefaults__")


def reachable(name: str, block: nn.Module) -> Reached:
    """What a block can reach.

    Args:
        name: Qualified name of the block.
        block: The module.
    """
    return _Search(name, block).run()


class _Search:
    """One walk over objects and code, breadth first."""

    def __init__(self, name: str, block: nn.Module) -> None:
        self.block = block
        self.reached = Reached()
        self.seen: dict[int, Any] = {}
        self.pending: deque[tuple[Any, str]] = deque([(block, name)])
        self.names = self.reached.names
        self.dynamic = False  # whether code of the user's looks names up as it runs
        self.walked: set[types.CodeType] = set()
        self.classes: dict[type, str] = {}
        self.started: set[tuple[type, str]] = set()
        self.members: set[type] = set()
        self.large: list[tuple[Any, str, str]] = []
        self.iterators: list[tuple[Any, str, str]] = []

    def run(self) -> Reached:
        while self.pending or self._methods() or self._class_members():
            value, path = self.pending.popleft()
            if len(self.seen) > LIMIT:
                self.reached.refused[path] = f"one of more than {LIMIT:,} objects within reach"
                break
            self._visit(value, path)
            if not self.pending:
                self._named_containers()
        for value, path, attribute in self.iterators:
            if attribute in self.names:
                kind = type(value).__name__
                self.reached.refused[path] = f"a {kind}, whose position cannot be read"
        return self.reached

    def _push(self, value: Any, path: str) -> None:
        if not isinstance(value, ATOMS):
            self.pending.append((value, path))

    def _visit(self, value: Any, path: str) -> None:
        if isinstance(value, (*ATOMS, torch.Tensor)) or id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if isinstance(value, np.ndarray):
            for one in value.flat if value.dtype.hasobject else ():
                self._push(one, path)
        elif value is os.environ or value is os.getenv:
            self.reached.holders.append(Environment())
        elif isinstance(value, GENERATORS):
            self._generator(value, path)
        elif isinstance(value, nn.Module):
            self._module(value, path)
        elif isinstance(value, _FUNCTIONS) or "__wrapped__" in members_of(value):
            self._callable(value, path)
        elif isinstance(value, (*_CONTAINERS, tuple, frozenset, types.MappingProxyType)):
            self._container(value, path)
        elif isinstance(value, weakref.ref):
            self._push(value(), path)
        elif hasattr(type(value), "__next__"):
            self.iterators.append((value, path, _last(path)))
        elif followed(type(value)):
            self._object(value, path)

    def _generator(self, value: Any, path: str) -> None:
        if replayable(value):
            self.reached.generators.append(value)
        else:
            self.reached.refused[path] = f"a {type(value).__name__}, which has no state"

    def _module(self, module: nn.Module, path: str) -> None:
        members = vars(module)
        if type(module).__module__.startswith("torch.distributed"):
            return  # wrappers that shard move their own state about
        self.reached.holders.append(Members(path, members, module=True))
        for name, value in list(members.items()):
            if name not in INTERNAL:
                self._follow(value, f"{path}.{name}", name)
        for name in HOOKS:
            self.reached.holders.append(Items(f"{path}.{name}", members[name]))
            for hook in members[name].values():
                self._push(hook, f"a hook of {path}")
        for name in HOOK_OPTIONS:
            if members[name]:
                self.reached.holders.append(Items(f"{path}.{name}", members[name]))
        self._class(type(module), path, ("forward",))
        if module is not self.block and any(one is self.block for one in module.modules()):
            return  # around the block: what else it holds is not the block's
        registered = any(one is module for one in self.block.modules())
        tensors = () if registered else ("_parameters", "_buffers")
        for name in ("_modules", *tensors):
            if members[name]:
                self.reached.holders.append(Items(f"{path}", members[name]))
        for name, child in module._modules.items():
            self._push(child, f"{path}.{name}")

    def _follow(self, value: Any, path: str, name: str) -> None:
        """Visit what has a name; large containers only if some code uses that name."""
        if isinstance(value, (*_CONTAINERS, tuple)) and len(value) > LARGE:
            self.large.append((value, path, name))
        else:
            self._push(value, path)

    def _named_containers(self) -> None:
        pending, self.large = self.large, []
        for value, path, name in pending:
            if name in self.names:
                self.pending.append((value, path))
            else:
                self.large.append((value, path, name))

    def _container(self, value: Any, path: str) -> None:
        if isinstance(value, _CONTAINERS):
            self.reached.holders.append(Items(path, value))
        if isinstance(value, dict | types.MappingProxyType):
            for key, one in list(value.items()):
                self._push(one, f"{path}[{key!r}]")
        else:
            for place, one in enumerate(list(value)):
                self._push(one, f"{path}[{place}]")
        if origin(type(value).__module__) != "closed":
            self._object(value, path)

    def _object(self, value: Any, path: str) -> None:
        self._attributes(value, path)
        if names := slot_names(type(value)):
            holder = Slots(path, value, names)
            self.reached.holders.append(holder)
            for name, one in holder.contents().items():
                self._follow(one, f"{path}.{name}", name)
        self._class(type(value), path, ("__call__",))

    def _attributes(self, value: Any, path: str) -> None:
        members = members_of(value)
        if isinstance(members, dict):
            self.reached.holders.append(Members(path, members, module=False))
            for name, one in list(members.items()):
                self._follow(one, f"{path}.{name}", name)

    def _callable(self, value: Any, path: str) -> None:
        if isinstance(value, functools.partial):
            if value.keywords:
                self.reached.holders.append(Items(path, value.keywords))
            for one in (value.func, *value.args, *value.keywords.values()):
                self._push(one, path)
            return
        if isinstance(owner := getattr(value, "__self__", None), GENERATORS):
            self._push(owner, path)
        elif isinstance(value, types.MethodType):
            self._push(value.__self__, path)
            self._push(value.__func__, path)
        if hasattr(value, "cache_clear") and origin(value.__module__) == "own":
            self.reached.caches.append(value)
        self._push(members_of(value).get("__wrapped__"), path)
        if isinstance(value, types.FunctionType):
            self._function(value, path)

    def _function(self, function: types.FunctionType, path: str) -> None:
        if origin(function.__module__) == "closed":
            return
        if origin(function.__module__) == "own":
            defaults = [name for name in DEFAULTS if getattr(function, name)]
            self.reached.holders.append(Slots(path, function, defaults))
            self._attributes(function, path)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            self._cell(cell, f"{name} in {function.__qualname__}")
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for value in defaults:
            self._push(value, f"a default of {function.__qualname__}")
        self._code(function.__code__, function)

    def _cell(self, cell: types.CellType, path: str) -> None:
        if id(cell) in self.seen:
            return
        self.seen[id(cell)] = cell
        holder = Cell(path, cell)
        contents = holder.contents()
        if isinstance(contents.get(""), type):
            return  # the class that ``super()`` needs
        self.reached.holders.append(holder)
        for value in contents.values():
            self._push(value, path)

    def _code(self, code: types.CodeType, function: types.FunctionType) -> None:
        if code in self.walked:
            return
        self.walked.add(code)
        self.names.update(code.co_names)
        self.names.update(one for one in code.co_consts if isinstance(one, str))
        space = function.__globals__
        named = [name for name in code.co_names if name in space]
        path = function.__module__
        watched = [
            name for name in named if self._global(space[name], f"{path}.{name}", code.co_names)
        ]
        if origin(function.__module__) == "own":
            self.dynamic = self.dynamic or "getattr" in code.co_names
            for module in imported(code, space):
                self._namespace(module, code.co_names)
        if watched and origin(function.__module__) == "own":
            holder = Names(function.__module__, space, watched, space.__setitem__)
            self.reached.holders.append(holder)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, function)

    def _global(self, value: Any, path: str, names: Iterable[str]) -> bool:
        """Follow a global; whether its value is to be watched."""
        if isinstance(value, types.ModuleType):
            self._namespace(value, names)
            return False
        if isinstance(value, type):
            self._class(value, value.__qualname__, ("forward", "__call__", "apply"))
            return False
        in_block = origin(path.rpartition(".")[0]) == "own"
        if in_block or isinstance(value, (*_FUNCTIONS, *GENERATORS)):
            self._push(value, path)
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
                    value is os.environ or value is os.getenv
                ):
                    self._push(value, f"{module.__name__}.{name}")
            elif name in space and self._global(value, f"{module.__name__}.{name}", ()):
                watched.append(name)
        if watched and whose == "own":
            put = functools.partial(setattr, module)
            self.reached.holders.append(Names(module.__name__, space, watched, put))

    def _class(self, cls: type, path: str, start: Iterable[str]) -> None:
        self.classes.setdefault(cls, path)
        self.names.update(start)

    def _methods(self) -> bool:
        """Follow methods that reachable code names; whether there was one more."""
        for cls in list(self.classes):
            for one in written_classes(cls):
                every = self.dynamic and origin(one.__module__) == "own"
                for name in vars(one) if every else self.names & vars(one).keys():
                    if (one, name) not in self.started:
                        self.started.add((one, name))
                        for function in functions(vars(one)[name]):
                            self._push(function, f"{one.__qualname__}.{name}")
        return bool(self.pending)

    def _class_members(self) -> bool:
        """Watch values that classes hold; whether there is more to visit."""
        for cls in list(self.classes):
            for one in written_classes(cls):
                if one in self.members or origin(one.__module__) != "own":
                    continue
                self.members.add(one)
                names = list(filter(is_member, vars(one)))
                if names:
                    put = functools.partial(setattr, one)
                    self.reached.holders.append(Names(one.__qualname__, vars(one), names, put))
                    for name in names:
                        if not functions(vars(one)[name]):  # code is followed where it is named
                            self._push(vars(one)[name], f"{one.__qualname__}.{name}")
        return bool(self.pending)


def _last(path: str) -> str:
    return re.split(r"[.\[]", path.split(" in ")[0])[-1]
