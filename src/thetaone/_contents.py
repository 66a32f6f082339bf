"""A digest of what a value is: the code that it runs and the state that it holds.

Text is not followed but what the interpreter holds: code objects, closures, the globals that the
code loads, base classes, attributes. So a class typed in a notebook, a recipe made by a factory and
a helper imported beside the task are told apart as they are run. Of libraries (the standard one,
``site-packages``, this package) only names count.
"""

import dis
import enum
import functools
import hashlib
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

MOST_PARTS = 200_000  # of one value; beyond it only the types of its parts count

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), range, slice)
_BY_REPR = (Path, torch.dtype, torch.device, torch.Size, np.generic, np.dtype)
_SILENT = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__annotate__"}
_LIBRARY_FOLDERS = tuple(
    str(Path(folder).resolve())
    for folder in {
        *(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parent),
    }
)

Parts = tuple[str, Iterable[Any]]  # what it is in a word, and what it consists of


def contents_digest(*values: Any) -> str:
    """Digest of code and state, the same in every process that holds the same.

    Args:
        *values: Anything; what cannot be looked into (a lock, an open file) counts by its type.

    Examples:
        >>> def scaled(factor):
        ...     return lambda x: factor * x
        >>> contents_digest(scaled(2)) == contents_digest(scaled(2))
        True
        >>> contents_digest(scaled(2)) == contents_digest(scaled(3))
        False
    """
    walk = _Walk()
    return hashlib.sha256(";".join(walk.digest(value) for value in values).encode()).hexdigest()


@dataclass(slots=True)
class _Open:
    """A value whose parts are being read."""

    address: int
    hash: Any
    parts: Iterator[Any]


class _Walk:
    """Digests values from their leaves up, each once; a way back up counts by its length."""

    def __init__(self) -> None:
        self._done: dict[int, str] = {}
        self._alive: list[Any] = []  # an address stands for one value only while that value lives
        self._path: list[_Open] = []
        self._level: dict[int, int] = {}

    def digest(self, value: Any) -> str:
        """Digest of a value and all that it holds."""
        digest = self._enter(value)
        while digest is None:
            top = self._path[-1]
            for part in top.parts:
                digest = self._enter(part)
                if digest is None:
                    break
                top.hash.update(digest.encode())
            else:
                digest = self._leave()
                if self._path:
                    self._path[-1].hash.update(digest.encode())
                    digest = None
        return digest

    def _enter(self, value: Any) -> str | None:
        """The digest of a plain or a known value; None after opening another one."""
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__} {value!r};"
        address = id(value)
        if address in self._done:
            return self._done[address]
        if address in self._level:
            return f"up {len(self._path) - self._level[address]};"
        word, parts = _describe(value)
        if len(self._alive) > MOST_PARTS:
            parts = ()
        self._alive.append(value)
        self._level[address] = len(self._path)
        self._path.append(_Open(address, hashlib.sha256(f"{word}:".encode()), iter(list(parts))))
        return None

    def _leave(self) -> str:
        top = self._path.pop()
        del self._level[top.address]
        self._done[top.address] = top.hash.hexdigest()
        return self._done[top.address]


def dense_parts(tensor: Tensor) -> list[Tensor]:
    """The dense tensors that a tensor is made of: itself, or indices and values of a sparse one."""
    if tensor.layout == torch.strided:
        return [tensor]
    tensor = tensor.detach()
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return []  # a library's own format, whose memory torch does not show


def tensor_digest(tensor: Tensor) -> str:
    """Digest of dtype, shape and bytes; of a tensor without storage, dtype and shape alone."""
    if tensor.is_nested:
        return " ".join(["nested", *map(tensor_digest, tensor.unbind())])
    head = f"{tensor.dtype} {tuple(tensor.shape)}"
    if tensor.device.type == "meta":
        return head
    if tensor.layout != torch.strided:
        parts = map(tensor_digest, dense_parts(tensor))
        return " ".join([f"{head} {tensor.layout}", *parts])
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
    return f"{head} {hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()}"


def _describe(value: Any) -> Parts:
    for kind, describe in _DESCRIBERS:
        if isinstance(value, kind):
            return describe(value)
    return _describe_object(value)


def _describe_text(value: Any) -> Parts:
    return f"{type(value).__name__} {value!r}", ()


def _describe_array(value: Any) -> Parts:
    if value.dtype == object:
        return f"array {value.shape}", value.ravel().tolist()
    return f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}", ()


def _describe_mapping(value: Mapping[Any, Any]) -> Parts:
    return type(value).__qualname__, [part for item in value.items() for part in item]


def _describe_set(value: Iterable[Any]) -> Parts:
    return type(value).__qualname__, sorted(contents_digest(item) for item in value)


def _describe_code(code: types.CodeType) -> Parts:
    constants = [c for c in code.co_consts if not isinstance(c, types.CodeType)]
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    word = f"code {code.co_code.hex()} {code.co_names} {code.co_freevars} {code.co_flags}"
    return word, [constants, inner]


def _describe_function(function: types.FunctionType) -> Parts:
    name = f"function {function.__module__}.{function.__qualname__}"
    if _in_library(function.__code__.co_filename):
        return name, _cells(function)
    return "function", [
        function.__code__, function.__defaults__, function.__kwdefaults__, *_cells(function),
        [_global(function, name) for name in _global_names(function.__code__)], vars(function),
    ]  # fmt: skip


def _cells(function: types.FunctionType) -> list[Any]:
    values: list[Any] = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not yet filled
            values.append("empty cell")
    return values


def _global(function: types.FunctionType, name: str) -> Any:
    return function.__globals__.get(name, "not a global")


def _global_names(code: types.CodeType) -> list[str]:
    """Names that the code loads from its module, those of nested functions included."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_global_names(constant))
    return sorted(names)


def _describe_wrapper(wrapper: Any) -> Parts:
    return type(wrapper).__name__, [wrapper.__wrapped__]


def _describe_property(value: property) -> Parts:
    return "property", [value.fget, value.fset, value.fdel]


def _describe_class(cls: type) -> Parts:
    name = f"class {cls.__module__}.{cls.__qualname__}"
    if _is_library(cls.__module__, _file_of(cls.__module__)):
        return name, ()
    members = [
        (key, member)
        for key, member in sorted(vars(cls).items())
        if key not in _SILENT and (callable(member) or not key.startswith("__"))
    ]
    return f"class {cls.__qualname__}", [cls.__bases__, members]


def _describe_module(module: types.ModuleType) -> Parts:
    """A module of the user's: its bytes, and what its names hold; a library's: its name."""
    file = getattr(module, "__file__", None) or ""
    if module.__name__ == "__main__" or _is_library(module.__name__, file):
        return f"module {module.__name__}", ()
    return f"module {module_digest(module)}", [
        (key, value) for key, value in sorted(vars(module).items()) if not key.startswith("__")
    ]


def module_digest(module: types.ModuleType) -> str:
    """Digest of the bytes that were compiled, else of the file as it is now."""
    loader = getattr(module.__spec__, "loader", None)
    compiled = getattr(loader, "digest", None)
    if isinstance(compiled, str):
        return compiled
    file = getattr(module, "__file__", None)  # a module made by hand has none: its names count
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else module.__name__
    except OSError:
        return module.__name__


def _describe_object(value: Any) -> Parts:
    """Type and attributes; of a library's object the public ones, since caches are private."""
    kind = cast(type[Any], type(value))
    named = dict(getattr(value, "__dict__", {}))
    for slot in (s for base in kind.__mro__ for s in _slots(base)):
        if hasattr(value, slot):
            named[slot] = getattr(value, slot)
    library = _is_library(kind.__module__, _file_of(kind.__module__))
    if library and not isinstance(value, nn.Module):
        named = {key: part for key, part in named.items() if not key.startswith("_")}
    return "object", [kind, *(part for item in sorted(named.items()) for part in item)]


def _slots(base: type) -> Iterable[str]:
    slots = vars(base).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return [name for name in names if not name.startswith("__")]


def _by_type(value: Any) -> Parts:
    return f"some {type(value).__module__}.{type(value).__qualname__}", ()


def _file_of(module: str) -> str:
    return getattr(sys.modules.get(module), "__file__", None) or ""


def _is_library(module: str, file: str) -> bool:
    """Whether a module comes with Python, from ``site-packages`` or with this package."""
    root = module.partition(".")[0]
    return (root in sys.stdlib_module_names and root != "__main__") or _in_library(file)


@functools.lru_cache(maxsize=4096)
def _in_library(file: str) -> bool:
    return file.startswith("<frozen ") or (
        bool(file) and str(Path(file).resolve()).startswith(_LIBRARY_FOLDERS)
    )


_Describer = Callable[[Any], Parts]
_DESCRIBERS: list[tuple[Any, _Describer]] = [
    ((enum.Enum, *_PLAIN, *_BY_REPR), _describe_text),
    (Tensor, lambda value: (f"tensor {tensor_digest(value)}", ())),
    (np.ndarray, _describe_array),
    ((list, tuple, deque), lambda value: (type(value).__qualname__, value)),
    (Mapping, _describe_mapping),
    ((set, frozenset), _describe_set),
    (types.CodeType, _describe_code),
    (types.FunctionType, _describe_function),
    (types.MethodType, lambda value: ("method", [value.__func__, value.__self__])),
    (functools.partial, lambda value: ("partial", [value.func, value.args, value.keywords])),
    ((staticmethod, classmethod, functools._lru_cache_wrapper), _describe_wrapper),
    (property, _describe_property),
    (types.BuiltinFunctionType, lambda value: (f"builtin {value.__qualname__}", ())),
    (type, _describe_class),
    (types.ModuleType, _describe_module),
    ((Iterator, types.FrameType, torch.Generator), _by_type),
]
