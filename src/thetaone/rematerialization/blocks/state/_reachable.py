"""What state a block can reach: attributes, containers, closures, globals, random generators.

Objects are followed from the block's modules (children, plain attributes, hooks) through
containers, attributes, closures and bound methods; code is followed from ``forward`` through the
functions and methods that it names, to the globals that it reads, and to modules and classes that
are held as values. Torch and NumPy are taken to keep no state of their own beside their generators,
the code of the standard library is not followed, its objects are; other installed packages are
followed for generators and functions, not for their globals. An object that hides a state in C is
refused where code names it.
"""

import functools
import os
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from gc import get_referents
from typing import Any

import numpy as np
import torch
from torch import nn

from thetaone.rematerialization.blocks.state._code import followed, members_of, origin
from thetaone.rematerialization.blocks.state._foreign import (
    Environment,
    Results,
    Variable,
    remembered,
)
from thetaone.rematerialization.blocks.state._generators import GENERATORS, replayable
from thetaone.rematerialization.blocks.state._holders import (
    HOOK_OPTIONS,
    HOOKS,
    INTERNAL,
    Cell,
    Items,
    Members,
    Slots,
    slot_names,
)
from thetaone.rematerialization.blocks.state._in_place import ARRAYS
from thetaone.rematerialization.blocks.state._named import CALLED, FUNCTIONS, Named, used
from thetaone.rematerialization.blocks.state._opaque import (
    hidden_state,
    is_draw,
    is_inert,
    is_library,
    is_view,
)
from thetaone.rematerialization.blocks.state._reached import PLAIN, Reached

LIMIT = 20_000  # objects that one block may reach
LARGE = 64  # entries of a container that is watched only if code names it
_CONTAINERS = (list, deque, set, dict)
DEFAULTS = ("__defaults__", "__kwdefaults__")


def reachable(name: str, block: nn.Module | Callable[..., Any]) -> Reached:
    """What a block can reach.

    Args:
        name: Qualified name of the block.
        block: The module, or a function.
    """
    return _Search(name, block).run()


class _Search(Named):
    """One walk over objects and code, breadth first."""

    def __init__(self, name: str, block: nn.Module | Callable[..., Any]) -> None:
        super().__init__()
        self.block = block
        self.registered = list(block.modules()) if isinstance(block, nn.Module) else []
        self.seen: dict[int, Any] = {}
        self.scopes: dict[int, set[str]] = {}  # of what was seen
        self.scope = used()  # of what is visited now
        self.pending.append((block, name, self.scope))
        self.large: list[tuple[Any, str, str]] = []
        self.hidden: list[tuple[str, str, set[str]]] = []

    def run(self) -> Reached:
        while (
            self.pending
            or self._methods()
            or self._class_members()
            or self._held_modules()
            or self._attributes_beside()
        ):
            value, path, self.scope = self.pending.popleft()
            if len(self.seen) > LIMIT:
                self.reached.refused[path] = f"one of more than {LIMIT:,} objects within reach"
                break
            self._visit(value, path)
            if not self.pending:
                self._named_containers()
        for path, what, scope in self.hidden:
            if self.dynamic or not scope.isdisjoint(self.names):
                self.reached.refused[path] = what
        return self.reached

    def _attributes_beside(self) -> bool:
        """Follow attributes that were put on tensors, parameters and members of enumerations."""
        pending, self.attributed = self.attributed, []
        for value, path in pending:
            if id(value) not in self.seen and (self.stored or vars(value)):
                self.seen[id(value)] = value
                self._attributes(value, path)
        return bool(self.pending)

    def _visit(self, value: Any, path: str) -> None:
        if isinstance(value, torch.Tensor):
            self.attributed.append((value, path))
        if isinstance(value, (*PLAIN, torch.Tensor)):
            return
        if id(value) in self.seen:
            self.scopes[id(value)] |= self.scope
            return
        self.seen[id(value)], self.scopes[id(value)] = value, self.scope
        if isinstance(value, ARRAYS):
            if isinstance(value, np.ndarray) and value.dtype.hasobject:
                self._all(value.flat, path)
        elif isinstance(value, type):
            if origin(value.__module__) != "closed":
                self._class(value, ())
        elif isinstance(value, types.ModuleType):
            self.modules[id(value)] = value, set[str]()
        elif value is os.environ or value is os.getenv:
            self.reached.holders.append(Environment())
        elif isinstance(value, GENERATORS):
            self._generator(value, path)
        elif isinstance(value, nn.Module):
            self._module(value, path)
        elif isinstance(value, FUNCTIONS) or "__wrapped__" in members_of(value):
            self._callable(value, path)
        elif isinstance(value, (*_CONTAINERS, tuple, frozenset, types.MappingProxyType)):
            self._container(value, path)
        elif isinstance(value, weakref.ref):
            self._push(value(), path, self.scope)
        elif isinstance(value, ContextVar):
            holder = Variable(path, value)
            self.reached.holders.append(holder)
            self._all(holder.contents().values(), path)
        elif is_view(value):
            self._all(get_referents(value), path)
        else:
            self._other(value, path)

    def _other(self, value: Any, path: str) -> None:
        """Any other object: its attributes, and whether it hides a state."""
        if is_inert(value):
            return
        if what := hidden_state(value):
            self.hidden.append((path, what, self.scope))
        if followed(type(value)):
            self._object(value, path)

    def _all(self, values: Iterable[Any], path: str) -> None:
        """Visit the contents of something, which code comes upon as it does upon that."""
        for place, one in enumerate(list(values)):
            self._push(one, f"{path}[{place}]", self.scope)

    def _generator(self, value: Any, path: str) -> None:
        if replayable(value):
            self.reached.generators.append(value)
        else:
            self.reached.refused[path] = f"a {type(value).__name__}, which has no state"

    def _module(self, module: nn.Module, path: str) -> None:
        members = vars(module)
        if isinstance(module, torch.jit.ScriptModule):
            what = (
                "compiled by TorchScript, which keeps its attributes where nobody can put them back"
            )
            self.reached.refused[path] = what
            return
        if type(module).__module__.startswith("torch.distributed"):
            return  # wrappers that shard move their own state about
        self.reached.holders.append(Members(path, members, module=True))
        for name, value in list(members.items()):
            if name not in INTERNAL:
                self._follow(value, f"{path}.{name}", name)
        for name, value in (*members["_parameters"].items(), *members["_buffers"].items()):
            if value is not None:
                self.attributed.append((value, f"{path}.{name}"))
        for name in HOOKS:
            self.reached.holders.append(Items(f"{path}.{name}", members[name]))
            for hook in members[name].values():
                self._push(hook, f"a hook of {path}", used())
        for name in HOOK_OPTIONS:
            if members[name]:
                self.reached.holders.append(Items(f"{path}.{name}", members[name]))
        if getattr(module, "max_norm", None) is not None:
            self.names.add("embedding_renorm_")  # torch's own code calls it
        self._class(type(module), ("forward", *CALLED))
        if module is not self.block and any(one is self.block for one in module.modules()):
            return  # around the block: what else it holds is not the block's
        registered = any(one is module for one in self.registered)
        tensors = () if registered else ("_parameters", "_buffers")
        for name in ("_modules", *tensors):
            if members[name]:
                self.reached.holders.append(Items(f"{path}", members[name]))
        for name, child in module._modules.items():
            self._push(child, f"{path}.{name}", used())

    def _follow(self, value: Any, path: str, name: str) -> None:
        """Visit what has a name; large containers only if some code uses that name."""
        if isinstance(value, (*_CONTAINERS, tuple)) and len(value) > LARGE:
            self.large.append((value, path, name))
        else:
            self._push(value, path, {name})

    def _named_containers(self) -> None:
        pending, self.large = self.large, []
        for value, path, name in pending:
            if name in self.names:
                self.pending.append((value, path, {name}))
            else:
                self.large.append((value, path, name))

    def _container(self, value: Any, path: str) -> None:
        if isinstance(value, _CONTAINERS):
            self.reached.holders.append(Items(path, value))
        if isinstance(value, dict | types.MappingProxyType):
            for key, one in list(value.items()):
                self._push(one, f"{path}[{key!r}]", self.scope)
        else:
            self._all(value, path)
        if origin(type(value).__module__) != "closed":
            self._object(value, path)

    def _object(self, value: Any, path: str) -> None:
        self._attributes(value, path)
        if names := slot_names(type(value)):
            holder = Slots(path, value, names)
            self.reached.holders.append(holder)
            self._held(value, holder.contents(), path)
        self._class(type(value), CALLED)

    def _attributes(self, value: Any, path: str) -> None:
        members = members_of(value)
        if isinstance(members, dict):
            self.reached.holders.append(Members(path, members, module=False))
            self._held(value, members, path)

    def _held(self, value: Any, members: dict[str, Any], path: str) -> None:
        """Visit attributes; what code of Python's own libraries reads nobody names."""
        for name, one in list(members.items()):
            if is_library(value):
                self._push(one, f"{path}.{name}", self.scope)
            else:
                self._follow(one, f"{path}.{name}", name)

    def _callable(self, value: Any, path: str) -> None:
        if isinstance(value, functools.partial):
            if value.keywords:
                self.reached.holders.append(Items(path, value.keywords))
            self._all((value.func, *value.args, *value.keywords.values()), path)
            return
        if is_draw(value):
            if self.whose == "own":
                what = "a draw from the operating system, made only once"
                self.hidden.append((path, what, self.scope))
            return
        owner = getattr(value, "__self__", None)
        if isinstance(value, types.MethodType):
            self._push(value.__func__, path, self.scope)
        if not isinstance(owner, types.ModuleType):
            self._push(owner, path, self.scope)
        if hasattr(value, "cache_clear") and origin(value.__module__) == "own":
            self._cache(value, path)
        self._push(members_of(value).get("__wrapped__"), path, self.scope)
        if isinstance(value, types.FunctionType):
            self._function(value, path)

    def _cache(self, function: Any, path: str) -> None:
        """Follow what a function remembers."""
        self.reached.caches.append(function)
        holder = remembered(path, function)
        self.reached.holders.append(holder)
        values = list(holder.contents().values())
        if isinstance(holder, Results) and any(isinstance(one, GENERATORS) for one in values):
            self.reached.refused[path] = (
                "a cache of a bounded size that makes random generators, and cannot be filled "
                "again as it was: use functools.cache"
            )
        self._all(values, path)

    def _function(self, function: types.FunctionType, path: str) -> None:
        if origin(function.__module__) == "closed":
            return
        if origin(function.__module__) == "own":
            if defaults := [name for name in DEFAULTS if getattr(function, name)]:
                self.reached.holders.append(Slots(path, function, defaults))
            self._attributes(function, path)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            if name != "__class__":  # the class that ``super()`` needs
                self._cell(cell, f"{name} in {function.__qualname__}")
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for value in defaults:
            self._push(value, f"a default of {function.__qualname__}", used())
        self._code(function.__code__, function)

    def _cell(self, cell: types.CellType, path: str) -> None:
        if id(cell) in self.seen:
            return
        self.seen[id(cell)] = cell
        holder = Cell(path, cell)
        self.reached.holders.append(holder)
        for value in holder.contents().values():
            self._push(value, path, used())
