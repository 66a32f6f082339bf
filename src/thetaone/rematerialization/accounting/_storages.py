"""Which tensor storages are alive, seen from the operations that make them.

Each storage counts once, however many views share it. What an operation allocates and frees inside
itself (workspace of a library call) is not seen.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from thetaone._contents import dense_parts


class StorageTracker(TorchDispatchMode):
    """Counts the bytes of storages born while it is active, until they die.

    Attributes:
        live_bytes: Bytes of tracked storages alive now.
        peak_bytes: Most bytes alive at once since the start or ``reset_peak``.
        events: With ``record=True``, births ``(number, +bytes)`` and deaths ``(number, −bytes)``.
    """

    def __init__(self, *, record: bool = False) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self.events: list[tuple[int, int]] | None = [] if record else None
        self._seen: dict[int, tuple[weakref.ref[Any], int, int]] = {}
        self._born = 0

    def reset_peak(self) -> None:
        """Start the peak again from what is alive now."""
        self.peak_bytes = self.live_bytes

    def has_seen(self, tensor: torch.Tensor) -> bool:
        """Whether all storages of a tensor were born while it was active."""
        return all(key(part) in self._seen for part in dense_parts(tensor))

    def number(self, tensor: torch.Tensor) -> int | None:
        """The number under which the storage of a tensor was born; None if it was not seen."""
        entry = self._seen.get(key(tensor))
        return entry[1] if entry else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _parts_in(result):
            if key(tensor) not in self._seen:
                self._see(tensor, (args, kwargs))
        return result

    def _see(self, tensor: torch.Tensor, arguments: Any) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if size == 0 or tensor.device.type == "meta":
            return
        if any(key(other) == place for other in _parts_in(arguments)):
            return  # a view of something older than the tracker
        self._born += 1
        self._seen[place] = (
            weakref.ref(storage, self._death(place, self._born, size)),
            self._born,
            size,
        )
        self._change(self._born, size)

    def _death(self, place: int, number: int, size: int) -> Callable[[object], None]:
        def died(_: object) -> None:
            self._seen.pop(place, None)
            self._change(number, -size)

        return died

    def _change(self, number: int, size: int) -> None:
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if self.events is not None:
            self.events.append((number, size))


class AllocatorPeak:
    """The most bytes that CUDA's caching allocator had given out at once, on some devices.

    It sees what the storage tracker cannot: the workspace of a kernel, while the kernel runs. The
    devices' own peak statistics start again, for whoever else reads them.

    Args:
        devices: Those of type ``cuda`` count; a CPU has no such allocator.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self.devices = sorted({one for one in devices if one.type == "cuda"}, key=str)
        self.reset()

    def __bool__(self) -> bool:
        return bool(self.devices)

    def reset(self) -> None:
        """Start the peak again from what is given out now."""
        for device in self.devices:
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def now(self) -> int:
        """Given out now [bytes]."""
        return sum(torch.cuda.memory_allocated(device) for device in self.devices)

    @property
    def peak(self) -> int:
        """Most given out at once since the start or ``reset``, device by device [bytes]."""
        return sum(torch.cuda.max_memory_allocated(device) for device in self.devices)


def key(tensor: torch.Tensor) -> int:
    """What identifies the storage of a tensor while it lives."""
    return tensor.untyped_storage()._cdata


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of all storages of some tensors, each counted once; sparse ones have several."""
    parts = (part for tensor in tensors for part in dense_parts(tensor))
    return sum({key(part): part.untyped_storage().nbytes() for part in parts}.values())


def _parts_in(value: Any) -> list[torch.Tensor]:
    leaves = (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))
    return [part for leaf in leaves for part in dense_parts(leaf)]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """All that an optimizer keeps between steps; nothing before the first one."""
    return tensors_in([dict(state) for state in optimizer.state.values()])


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All dense tensors in nested tuples, lists, dicts and registered containers."""
    leaves = (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))
    return [leaf for leaf in leaves if leaf.layout == torch.strided]  # others have several
