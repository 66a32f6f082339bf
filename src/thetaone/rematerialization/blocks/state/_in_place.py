"""What changes in place, without being bound anew: tensors, arrays, bytes; alone or in tuples."""

from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

SMALL = 2**16  # bytes of a tensor that is always copied, as it may change at any execution
ARRAYS = (np.ndarray, array, bytearray)


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


class InPlace:
    """A tensor or an array that may be changed in place, as it was.

    Small tensors and all arrays are copied; of large tensors the version is noted.
    """

    __slots__ = ("copy", "path", "value", "version")

    def __init__(self, value: Any, path: str) -> None:
        self.value, self.path = value, path
        self.copy: Any = None
        if isinstance(value, torch.Tensor):
            self.version = version_of(value)
            dense = value.layout == torch.strided and not isinstance(value, nn.Parameter)
            if dense and value.nbytes <= SMALL:
                self.copy = value.detach().clone()
        else:
            self.version, self.copy = -1, cloned(value)

    @property
    def nbytes(self) -> int:
        """Bytes of the contents."""
        if isinstance(self.value, torch.Tensor):
            return self.value.nbytes
        return memoryview(self.value).nbytes

    @property
    def changed(self) -> bool:
        """Whether it is no longer what was noted."""
        if isinstance(self.value, torch.Tensor):
            return version_of(self.value) != self.version
        return _raw(self.copy) != _raw(self.value)


def changeable(value: Any) -> Iterator[Any]:
    """The tensors and arrays that a value is, or holds in tuples."""
    if isinstance(value, (torch.Tensor, *ARRAYS)):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from changeable(one)


def with_leaves(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A value with what it holds in tuples replaced; the same one where nothing is."""
    if not isinstance(value, tuple):
        return leaf(value)
    items = [with_leaves(one, leaf) for one in value]
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    kind: Any = type(value)
    return kind(*items) if hasattr(kind, "_fields") else kind(items)


def cloned(value: Any) -> Any:
    """A copy of a tensor or an array."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value[:]


def fill(array: Any, contents: Any) -> None:
    """Write the contents of an array."""
    if isinstance(array, np.ndarray):
        np.copyto(array, contents)
    else:
        array[:] = contents


def _raw(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytearray) else value.tobytes()
