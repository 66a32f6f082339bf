"""A region's input on disk, and the ticket that stands for it in the autograd graph.

Checkpointing saves a region's input through whatever saved-tensor hooks surround it. Here it saves
a ticket, a tensor of one number, in its place: inside a region that runs without a tape the ticket
is dropped like any input, and a recomputation of the surrounding region saves a new one.
The file lives as long as the ticket's storage.
"""

import itertools
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import torch

from thetaone.errors import DiskTierError, RecomputationError
from thetaone.rematerialization.disk_tier import DiskTier, Spill

Recover = Callable[[], torch.Tensor]
_numbers = itertools.count(1)
_boundaries: dict[int, "Boundary"] = {}


class Boundary:
    """An activation that is written in the background, dropped, and read back when asked for.

    Args:
        tensor: The activation.
        tier: Where it goes.
        recover: Computes it again when the disk does not give it back; None if nothing can.
    """

    def __init__(self, tensor: torch.Tensor, tier: DiskTier, recover: Recover | None) -> None:
        self.tier, self.recover = tier, recover
        self.shape, self.stride = tensor.shape, tensor.stride()
        self.dtype, self.device = tensor.dtype, tensor.device
        self.requires_grad = tensor.requires_grad
        self.tensor: torch.Tensor | None = tensor.detach()
        self.version = tensor._version
        self.spill: Spill | None = None
        self.coming: Future[torch.Tensor] | None = None
        self.writing: Future[Spill] | None = None
        flat = _flat(self.tensor)
        if flat is not None:
            self.writing = tier.submit(tier.write, _bytes(flat.cpu()))

    @property
    def size(self) -> int:
        """Bytes of the activation."""
        return self.shape.numel() * self.dtype.itemsize

    def settle(self) -> None:
        """Wait for the write, then let go of the memory; keep it, and say so, if it failed."""
        writing, self.writing = self.writing, None
        if writing is None or self.tensor is None:
            return
        try:
            spill = writing.result()
        except OSError as error:
            warnings.warn(
                f"the disk tier in {self.tier.path} took no {self.size:,} bytes: {error}. They "
                "stay in memory, beyond the budget",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        if self.tensor._version != self.version:
            raise RecomputationError(
                f"the input of a recomputed region, {list(self.shape)}, was changed in place after "
                "it was kept: build the block without inplace=True"
            )
        self.spill, self.tensor = spill, None

    def prefetch(self) -> None:
        """Start to read in the background."""
        if self.spill is not None and self.tensor is None and self.coming is None:
            self.coming = self.tier.submit(self._read, self.spill)

    def fetch(self) -> torch.Tensor:
        """The activation, from memory, from disk, or computed again.

        Raises:
            DiskTierError: The disk does not give it back and it cannot be computed again.
        """
        return self._fetch().detach().requires_grad_(self.requires_grad)

    def _fetch(self) -> torch.Tensor:
        if self.tensor is not None and self.tensor._version == self.version:
            return self.tensor
        coming, self.coming = self.coming, None
        try:
            if self.spill is None:
                raise DiskTierError("an activation that stayed in memory was changed in place")
            return coming.result() if coming is not None else self._read(self.spill)
        except OSError as error:
            if self.recover is None:
                raise DiskTierError(
                    f"the disk tier in {self.tier.path} lost {self.size:,} bytes and nothing is "
                    f"kept from which to compute them again: {error}"
                ) from error
            warnings.warn(
                f"the disk tier in {self.tier.path} lost {self.size:,} bytes: {error}. They are "
                "computed again",
                RuntimeWarning,
                stacklevel=2,
            )
            return self.recover()

    def _read(self, spill: Spill) -> torch.Tensor:
        tensor = torch.empty_strided(self.shape, self.stride, dtype=self.dtype)
        flat = _flat(tensor)
        assert flat is not None
        self.tier.read(spill, _bytes(flat))
        return tensor.to(self.device)


def ticket_for(boundary: Boundary | None) -> torch.Tensor:
    """A tensor of one number that stands for a boundary and keeps it while its storage lives."""
    number = np.array([next(_numbers)])
    if boundary is not None:
        _boundaries[int(number[0])] = boundary
        weakref.finalize(number, _boundaries.pop, int(number[0]), None).atexit = False
    return torch.from_numpy(number)


def boundary_of(ticket: torch.Tensor) -> Boundary:
    """What a ticket stands for."""
    return _boundaries[int(ticket)]


def _flat(tensor: torch.Tensor) -> torch.Tensor | None:
    """The elements in the order of memory, as a view; None if they overlap or leave holes."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return None
        expected *= size
    return tensor.as_strided((tensor.numel(),), (1,))


def _bytes(flat: torch.Tensor) -> memoryview:
    return flat.view(torch.uint8).numpy().data
