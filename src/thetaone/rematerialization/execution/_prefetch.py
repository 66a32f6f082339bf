"""Inputs of regions on their way to disk, and back ahead of the backward."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.checkpoint import _StopRecomputationError

from thetaone.rematerialization.disk import Boundary, DiskTier, Recover


class Prefetcher:
    """Writes the inputs of regions behind the forward and reads them ahead of the backward.

    Args:
        disk: Where they wait; None if nothing does.
    """

    def __init__(self, disk: DiskTier | None) -> None:
        self.disk = disk
        self.writing: list[Boundary] = []
        self.on_disk: list[weakref.ref[Boundary]] = []  # in the order of the forward

    def spill(self, activation: torch.Tensor, recover: Recover | None) -> Boundary:
        """Send an activation to disk; ``recover`` computes it again if the disk loses it."""
        assert self.disk is not None
        assert recover is not None  # the stage before ran in a region: see ``planning.tree``
        boundary = Boundary(activation, self.disk, recover)
        self.writing.append(boundary)
        self.on_disk = [*(ref for ref in self.on_disk if ref() is not None), weakref.ref(boundary)]
        return boundary

    def settle(self) -> None:
        """Wait for what is being written, and let go of its memory."""
        while self.writing:
            self.writing.pop().settle()

    def finish(self) -> None:
        """Drop what an exception left behind, and say what the disk did not take."""
        self.writing.clear()
        if self.disk is not None:
            self.disk.losses.tell()

    def prefetch_before(self, boundary: Boundary, spare: int) -> None:
        """Read ahead what the backward needs next, if that fits beside the plan's peak."""
        alive = [one for ref in self.on_disk if (one := ref()) is not None]
        place = alive.index(boundary) if boundary in alive else 0
        waiting = [one for one in alive[:place] if one.expected and not one.coming]
        ahead = sum(one.ahead for one in alive if one is not boundary)
        if waiting and ahead + waiting[-1].size <= spare:
            waiting[-1].prefetch()

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """A recomputation that stops before its end leaves no write behind."""
        try:
            yield
        except _StopRecomputationError:
            self.settle()
            raise
        finally:
            self.writing.clear()  # what an exception left behind
