"""Which tensors lie on the same memory: a write into one of them is a write into the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from thetaone.errors import PrescriptionError


@dataclass(frozen=True, slots=True)
class _Extent:
    """The stretch of memory from a tensor's first element to behind its last [bytes]."""

    owner: str
    tensor: Tensor
    memory: tuple[str, int]
    start: int
    stop: int


def overlaps(tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Pairs of names whose tensors have an element in common, in the order of the names.

    Views of one buffer that lie side by side have none.

    Args:
        tensors: By name.

    Examples:
        >>> flat = torch.zeros(6)
        >>> overlaps({"a": flat[:3], "b": flat[3:], "c": flat[2:4]})
        [('a', 'c'), ('b', 'c')]
    """
    extents = (one for name, tensor in tensors.items() for one in _extents(name, tensor))
    place = {name: i for i, name in enumerate(tensors)}
    pairs: list[tuple[int, int]] = []
    reach: list[_Extent] = []
    for later in sorted(extents, key=lambda one: (one.memory, one.start)):
        reach = [e for e in reach if e.memory == later.memory and e.stop > later.start]
        for earlier in reach:
            if _meet(earlier, later):
                first, second = sorted((place[earlier.owner], place[later.owner]))
                pairs.append((first, second))
        reach.append(later)
    names = list(tensors)
    return [(names[first], names[second]) for first, second in sorted(pairs)]


def check_apart(parameters: Mapping[str, Tensor]) -> None:
    """Refuse parameters that lie on the same memory and are not one parameter.

    Each has a size and a rate of its own by its name, and what is written last holds for both.

    Args:
        parameters: By name; one that is tied has one name.

    Raises:
        PrescriptionError: Names both, and how to tie them.
    """
    for first, second in overlaps(parameters):
        raise PrescriptionError(
            f"{second} is a parameter of its own on the memory of {first}: values and rates are "
            "set for each, and what is written into one changes the other. Tie the parameter "
            f"itself, not its data (model.{second} = model.{first}), or give {second} a copy "
            "(.clone())"
        )


def _extents(name: str, tensor: object) -> Iterator[_Extent]:
    """The memory of a tensor; of a wrapper (a sharded tensor), of the tensors it wraps."""
    if not isinstance(tensor, Tensor):
        return
    if is_traceable_wrapper_subclass(tensor):
        for attribute in tensor.__tensor_flatten__()[0]:
            yield from _extents(name, getattr(tensor, attribute))
        return
    if is_lazy(tensor) or tensor.layout != torch.strided or tensor.numel() == 0:
        return
    storage = tensor.untyped_storage()
    meta = storage.device.type == "meta"
    address = 0 if meta else storage.data_ptr()
    if not meta and address == 0:  # freed for now: a parameter of FSDP between uses
        return
    memory = ("meta", storage._cdata) if meta else (str(storage.device), 0)
    last = sum((size - 1) * stride for size, stride in _axes(tensor))
    start = address + int(tensor.storage_offset()) * tensor.element_size()
    yield _Extent(name, tensor, memory, start, start + (last + 1) * tensor.element_size())


def _axes(tensor: Tensor) -> Iterator[tuple[int, int]]:
    return zip(tensor.shape, tensor.stride(), strict=True)


def _meet(one: _Extent, other: _Extent) -> bool:
    """Whether two whose stretches meet have an element in common: columns of one matrix do not."""
    size = one.tensor.element_size()
    if other.tensor.element_size() != size or (other.start - one.start) % size:
        return True
    if one.tensor.is_contiguous() and other.tensor.is_contiguous():  # without gaps
        return True
    taken = torch.zeros((max(one.stop, other.stop) - one.start) // size, dtype=torch.bool)
    taken.as_strided(one.tensor.shape, one.tensor.stride()).fill_(value=True)
    offset = (other.start - one.start) // size
    return bool(taken.as_strided(other.tensor.shape, other.tensor.stride(), offset).any())
