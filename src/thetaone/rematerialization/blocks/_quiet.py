"""Which blocks can change nothing that is watched: their code has no instruction or name to do so.

Such a block need not be looked at again after its forward. In doubt it is: code that is not known,
a container or an object within reach, a name that is not one of torch's functions on tensors.
What changes in place (parameters, buffers) and random generators are looked at in any case.
"""

import builtins
import dis
import types
from functools import cache, lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from thetaone.rematerialization.blocks._ambient import Ambient
from thetaone.rematerialization.blocks._specialize import written
from thetaone.rematerialization.blocks.state import (
    HOOKS,
    PLAIN,
    ClassMembers,
    Items,
    Members,
    Names,
    Slots,
    Watch,
)

# modules of torch.nn whose layers compute with parameters and options and keep nothing
_NAMES = (
    "activation container conv distance dropout flatten linear normalization padding pixelshuffle "
    "pooling sparse transformer upsampling"
)
_LAYERS = frozenset(f"torch.nn.modules.{name}" for name in _NAMES.split())
_INSTRUCTIONS = (
    "STORE_ATTR DELETE_ATTR STORE_GLOBAL DELETE_GLOBAL STORE_NAME DELETE_NAME STORE_SUBSCR "
    "DELETE_SUBSCR STORE_SLICE IMPORT_NAME IMPORT_STAR LOAD_BUILD_CLASS"
)
_WRITING = frozenset(_INSTRUCTIONS.split())
_PYTHON = (
    "torch nn F functional math pi inf abs bool enumerate float int isinstance len list max min "
    "range round sum super tuple zip"
)
# of tensors and of modules alike; on a module they move its parameters, which are watched
_BOTH = "bfloat16 cpu cuda double float forward half to training type"
_CONVERSIONS = frozenset(_BOTH.split())
_TORCH: Any = getattr(torch.add, "__self__", None)
_CONSTANT = (ClassMembers, Members, Names, Slots)  # whose contents are looked at one by one


def is_quiet(watch: Watch) -> bool:
    """Whether nothing that a block does can change what is watched of it."""
    if watch.quiet is None:
        watch.quiet = _is_quiet(watch)
    return watch.quiet


def overheard(ambient: Ambient) -> bool:
    """Whether code of others runs within forwards: hooks on all modules, modes."""
    hooks = torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks
    return bool(hooks or ambient.modes or ambient.dispatch)


def _is_quiet(watch: Watch) -> bool:
    if watch.known.in_place or watch.generators or watch.reached.caches:
        return False
    if not all(map(_keeps_nothing, watch.modules)):
        return False
    children = {id(one._modules) for one in watch.modules}
    hooks = {id(vars(one)[name]) for one in watch.modules for name in HOOKS}
    own = {name for one in watch.modules for name in (*one._parameters, *one._buffers)}
    for holder in watch.reached.holders:
        contents = holder.contents()
        if isinstance(holder, Items):
            place = id(holder.container)
            if place not in children and (contents or place not in hooks):
                return False
        elif not isinstance(holder, _CONSTANT) or not all(map(_is_constant, contents.values())):
            return False
        own |= {name for name in contents if isinstance(name, str)}
    own -= _module_names() - _CONVERSIONS
    return all(_is_quiet_code(code, own) for code in watch.reached.codes)


def _keeps_nothing(module: nn.Module) -> bool:
    """Whether a module is a plain layer of torch's, or of a class whose code is followed."""
    kind: Any = written(module)
    if type(kind) is not type or module._compiled_call_impl is not None:
        return False
    return all(
        cls in (nn.Module, object) or cls.__module__ in _LAYERS
        for cls in kind.__mro__
        if cls.__module__.partition(".")[0] in ("torch", "builtins")
    )


def _is_constant(value: Any) -> bool:
    """Whether a value is a number, a text or a function, alone or in tuples."""
    if type(value) is tuple:
        return all(map(_is_constant, value))
    if isinstance(value, types.BuiltinFunctionType):  # not a bound method: ``some_list.append``
        owner: Any = getattr(value, "__self__", None)
        return owner is None or isinstance(owner, types.ModuleType) or owner is _TORCH
    return isinstance(value, (*PLAIN, types.FunctionType, staticmethod, property))


def _is_quiet_code(code: types.CodeType, own: set[str]) -> bool:
    return not _writes(code) and all(name in own or name in _reading() for name in code.co_names)


@lru_cache(maxsize=4096)
def _writes(code: types.CodeType) -> bool:
    return any(step.opname in _WRITING for step in dis.get_instructions(code))


@cache
def _module_names() -> frozenset[str]:
    """What every module and its containers offer, much of which changes them."""
    kinds = (nn.Module, nn.ModuleList, nn.ModuleDict, nn.Sequential, nn.ParameterList)
    return frozenset(name for kind in kinds for name in dir(kind)) | {"data", "grad", "__dict__"}


@cache
def _reading() -> frozenset[str]:
    """Names of functions on tensors, and of what Python computes with."""
    functional = nn.functional
    functions = torch._C._VariableFunctions  # pyright: ignore[reportAttributeAccessIssue]
    names = {*dir(torch.Tensor), *dir(functions), *torch.functional.__all__}
    names |= {name for name, one in vars(functional).items() if callable(one)}
    names |= {name for name, one in vars(torch).items() if isinstance(one, torch.dtype)}
    names = {name for name in names if not name.startswith(("_", "set_", "register"))}
    names -= {"apply_", "backward", "map_", "map2_", "retain_grad"}
    names -= vars(builtins).keys() | _module_names()
    return frozenset(names) | _CONVERSIONS | frozenset(_PYTHON.split())
