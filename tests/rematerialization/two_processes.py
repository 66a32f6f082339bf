"""One of two gloo processes: a rematerialized model and a plain one under DDP or FSDP2."""

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.rematerialization.models import Looping, looping, planned
from thetaone.rematerialization import rematerialize


def step(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output and gradients of two steps that accumulate."""
    found: list[torch.Tensor] = []
    for _ in range(2):
        torch.manual_seed(5)
        output = model(x)
        output.square().mean().backward()
        found.append(output.detach())
    grads: list[Any] = [p.grad for p in model.parameters()]
    return found + [g.full_tensor() if hasattr(g, "full_tensor") else g.clone() for g in grads]


def data_parallel(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def fully_sharded(model: nn.Module) -> nn.Module:
    assert isinstance(model, Looping)
    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)  # pyright: ignore[reportReturnType]


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DDP": data_parallel,
    "FSDP2": fully_sharded,
}


def main(rank: str, wrapper: str, order: str, store: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=store, rank=int(rank), world_size=2)
    wrap = WRAPPERS[wrapper]
    torch.manual_seed(10 + int(rank))
    x = torch.randn(4, 16)
    model = looping(3, dropout=0.2)
    schedule = planned(model, x)[1]
    plain, ours = wrap(copy.deepcopy(model)), copy.deepcopy(model)
    if order == "wrapped first":
        ours = wrap(ours)
        rematerialize(getattr(ours, "module", ours), schedule)
    else:
        ours = wrap(rematerialize(ours, schedule))
    pairs = list(zip(step(plain, x), step(ours, x), strict=True))
    sys.stdout.write(f"{sum(torch.equal(a, b) for a, b in pairs)} tensors equal\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
