"""A region's input on disk, and the ticket that stands for it in the autograd graph.

Checkpointing saves a region's input through whatever saved-tensor hooks surround it. Here it saves
a ticket, a tensor of one number, in its place: inside a region that runs without a tape the ticket
is dropped like any input, and a recomputation of the surrounding region saves a new one.
The file lives as long as the ticket's storage.
"""

import itertools
import weakref
from collections.abc import Callable

import numpy as np
import torch

from thetaone.errors import DiskTierError, RecomputationError
from thetaone.rematerialization.blocks import version_of
from thetaone.rematerialization.disk._background import Answer
from thetaone.rematerialization.disk._disk_tier import DiskTier, Spill

Recover = Callable[[], torch.Tensor]
_numbers = itertools.count(1)
_boundaries: dict[int, "Boundary"] = {}


class Boundary:
    """An activation that is written in the background, dropped, and read back when asked for.

    Args:
        tensor: The activation.
        tier: Where it goes.
        recover: Computes it again when the disk does not give it back.

    Attributes:
        expected: How often it will still be asked for, as far as is known [count].
    """

    def __init__(self, tensor: torch.Tensor, tier: DiskTier, recover: Recover) -> None:
        self.tier, self.recover = tier, recover
        self.requires_grad = tensor.requires_grad
        tensor = tensor.detach().resolve_conj().resolve_neg()
        self.shape, self.stride = tensor.shape, tensor.stride()
        self.dtype, self.device = tensor.dtype, tensor.device
        self.extent = _extent(self.shape, self.stride)
        self.tensor: torch.Tensor | None = tensor
        self.version = version_of(tensor)
        self.spill: Spill | None = None
        self.coming: tuple[Answer, torch.Tensor] | None = None
        self.writing: Answer | None = None
        self.expected = 0
        self.host: torch.Tensor | None = None
        if self.extent:
            flat = tensor.as_strided((self.extent,), (1,), tensor.storage_offset())
            self.host = flat.cpu()
            self.writing = tier.submit(_write, weakref.ref(self))

    @property
    def size(self) -> int:
        """Bytes that are written: from its first element to its last, holes included."""
        return self.extent * self.dtype.itemsize

    def settle(self) -> None:
        """Wait for the write, then let go of the memory; keep it if the write failed."""
        writing, self.writing = self.writing, None
        if writing is None or self.tensor is None:
            return
        try:
            spill = writing.result()
            self.host = None
        except OSError as error:
            self.tier.losses.note_refused(self.size, error)
            return
        if version_of(self.tensor) != self.version:
            raise RecomputationError(
                f"the input of a recomputed region, {list(self.shape)}, was changed in place after "
                "it was kept: build the block without inplace=True"
            )
        self.spill, self.tensor = spill, None

    @property
    def ahead(self) -> int:
        """Bytes that are read ahead and not fetched yet."""
        return 0 if self.coming is None else self.size

    def prefetch(self) -> None:
        """Start to read in the background what will be asked for."""
        if self.expected and self.spill is not None and self.tensor is None and not self.coming:
            flat = self._empty()  # here, where whoever counts memory sees it
            self.coming = self.tier.submit(self.tier.read, self.spill, _bytes(flat)), flat

    def fetch(self) -> torch.Tensor:
        """The activation, from memory, from disk, or computed again."""
        self.expected = max(0, self.expected - 1)
        return self._fetch().detach().requires_grad_(self.requires_grad)

    def _fetch(self) -> torch.Tensor:
        if self.tensor is not None and version_of(self.tensor) == self.version:
            return self.tensor
        coming, self.coming = self.coming, None
        try:
            if self.spill is None:
                raise DiskTierError("an activation that stayed in memory was changed in place")
            if coming is None:
                flat = self._empty()
                self.tier.read(self.spill, _bytes(flat))
            else:
                answer, flat = coming
                answer.result()
            return flat.to(self.device).as_strided(self.shape, self.stride)
        except OSError as error:
            self.tier.losses.note_lost(self.size, error)
        return self.recover()

    def _empty(self) -> torch.Tensor:
        return torch.empty(self.extent, dtype=self.dtype, device="cpu")


def _write(boundary: "weakref.ref[Boundary]") -> Spill | None:
    """Write what is still wanted when its turn comes."""
    alive = boundary()
    if alive is None or alive.host is None:
        return None
    tier, data = alive.tier, _bytes(alive.host)
    del alive
    return tier.write(data)


def ticket_for(boundary: Boundary | None) -> torch.Tensor:
    """A tensor of one number that stands for a boundary and keeps it while its storage lives."""
    number = np.array([next(_numbers)])
    if boundary is not None:
        boundary.expected += 1
        weakref.finalize(number, _boundaries.pop, int(number[0]), None).atexit = False
        _boundaries[int(number[0])] = boundary
    return torch.from_numpy(number)


def boundary_of(ticket: torch.Tensor) -> Boundary:
    """What a ticket stands for.

    Raises:
        RecomputationError: The ticket itself is gone and this is a copy.
    """
    boundary = _boundaries.get(int(ticket))
    if boundary is None:
        raise RecomputationError(
            "a saved-tensor hook around the step copied what stands for an activation on disk, and "
            "the activation went with the original: leave int64 tensors of one number as they are"
        )
    return boundary


def _extent(shape: torch.Size, stride: tuple[int, ...]) -> int:
    """Elements of memory from the first to the last, holes and overlaps included."""
    if not shape.numel():
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _bytes(flat: torch.Tensor) -> memoryview:
    return flat.view(torch.uint8).numpy().data
