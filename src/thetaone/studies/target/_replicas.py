"""One training on the processes of ``torchrun``: each takes its part of every batch.

Gradients are averaged by DDP, so that every process takes the step of the whole batch: on W
processes the training is that of one process which splits its batches into W parts
(``accumulate``), where W is a power of two bit for bit. One process writes.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from thetaone.sweeps import split_batch


@dataclass(frozen=True, slots=True)
class Replicas:
    """The processes of one training.

    Attributes:
        rank: Of this process; 0 writes and speaks.
        count: Processes [count].
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def part(self, batch: Any) -> Any:
        """This process's rows of a batch.

        Raises:
            TaskError: The rows cannot be shared out equally.
        """
        return split_batch(batch, self.count, said="processes")[self.rank]

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward averages gradients over the processes."""
        return model if self.count == 1 else _Replica(model)

    def agree(self, loss: float, save: bool) -> tuple[float, bool]:
        """Mean loss of the processes, and whether the first one wants a checkpoint now."""
        if self.count == 1:
            return loss, save
        shared = torch.tensor([loss / self.count, float(save and self.first)], dtype=torch.float64)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        dist.all_reduce(shared := shared.to(device))
        return shared[0].item(), bool(shared[1].item())

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, by rank; every process must call it."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values


class _Replica(DistributedDataParallel):
    """DDP that has its model's attributes, so that a task's loss finds them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


@contextlib.contextmanager
def replicas() -> Iterator[Replicas]:
    """The processes that ``torchrun`` started, joined; alone outside of it."""
    if not dist.is_torchelastic_launched():
        yield Replicas()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Replicas(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
