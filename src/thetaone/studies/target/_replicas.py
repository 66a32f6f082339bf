"""One training on the processes of ``torchrun``: each takes its part of every batch.

Gradients are averaged over the processes, so that every one takes the step of the whole batch: on W
processes the training is that of one process which splits its batches into W parts
(``accumulate``), where W is a power of two bit for bit. ``ddp`` keeps the whole model on each
process, ``fsdp`` shares parameters, gradients and the optimizer's state out over them (FSDP2); the
norm that clips is then added up in another order, and equal to rounding. One process writes,
checkpoints of whole tensors whatever the processes hold: each kind goes on from any other's.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from thetaone.errors import InputError
from thetaone.sweeps import split_batch

PARALLEL = ("ddp", "fsdp")


@dataclass(frozen=True, slots=True)
class Replicas:
    """The processes of one training.

    Attributes:
        rank: Of this process; 0 writes and speaks.
        count: Processes [count].
        sharded: Whether they share out the parameters (``fsdp``).
    """

    rank: int = 0
    count: int = 1
    sharded: bool = False

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
        return model if self.count == 1 or self.sharded else _Replica(model)

    def shard(self, model: nn.Module) -> None:
        """Share out the parameters, those of each block of a list together, where that is asked."""
        if not self.sharded:
            return
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        mesh = dist.init_device_mesh(device, (self.count,))
        for block in _blocks(model):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)

    def whole(self, tree: Any) -> Any:
        """Nested values with every shared-out tensor put together; every process must call it."""
        return pytree.tree_map_only(DTensor, lambda shard: shard.full_tensor(), tree)

    def whole_model(self, model: nn.Module, build: Callable[[], nn.Module]) -> nn.Module:
        """The model itself, or where it is shared out a whole one with its values.

        Args:
            model: What was trained; every process must call it.
            build: Makes one like it.
        """
        if not self.sharded:
            return model
        state, plain = self.whole(model.state_dict()), build()
        plain.load_state_dict(state)
        for name, buffer in model.named_buffers():
            plain.get_buffer(name).copy_(buffer)
        return plain

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> None:
        """Load whole tensors into a model and its optimizer, each process its share."""
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # after a pass without a backward
        own = model.state_dict()
        model.load_state_dict({k: _share(v, own.get(k)) for k, v in state["model"].items()})
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        of_parameters = {
            index: {name: _share(value, parameters[index]) for name, value in entries.items()}
            for index, entries in state["optimizer"]["state"].items()
        }
        optimizer.load_state_dict({**state["optimizer"], "state": of_parameters})

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


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of lists whose parameters are theirs alone, outermost lists first."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    blocks = [
        block for stack in model.modules() if isinstance(stack, nn.ModuleList) for block in stack
    ]
    return [
        block
        for block in reversed(blocks)  # inner ones first, as fully_shard wants them
        if any(True for _ in block.parameters())
        and all(uses[id(p)] == 1 for p in block.parameters())
    ]


def _share(value: Any, like: Any) -> Any:
    """This process's share of a whole tensor, as another one is shared out."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


class _Replica(DistributedDataParallel):
    """DDP that has its model's attributes, so that a task's loss finds them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


@contextlib.contextmanager
def replicas(parallel: str = "ddp") -> Iterator[Replicas]:
    """The processes that ``torchrun`` started, joined; alone outside of it.

    Args:
        parallel: ``"ddp"``: each holds the whole model, or ``"fsdp"``: its share of it.

    Raises:
        InputError: Another word, or ``fsdp`` in a process alone.
    """
    if parallel not in PARALLEL:
        raise InputError(f"parallel={parallel!r}: choose {' or '.join(PARALLEL)}")
    if not dist.is_torchelastic_launched():
        if parallel != "ddp":
            raise InputError(
                f"parallel={parallel!r} in one process: start several, e.g. torchrun "
                "--nproc-per-node 2 -m thetaone train recipe.json --parallel fsdp"
            )
        yield Replicas()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Replicas(dist.get_rank(), dist.get_world_size(), parallel == "fsdp")
    finally:
        dist.destroy_process_group()
