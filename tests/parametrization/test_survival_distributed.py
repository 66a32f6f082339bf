"""FSDP2 and DDP on two gloo processes: the same rates and the same training as on one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from small_tasks import mlp
from test_survival import rates, train
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import thetaone as t1
from thetaone.errors import PrescriptionError, RoleError


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return mlp(64)


def base() -> nn.Module:
    torch.manual_seed(1)
    return mlp(16)


def work(rank: int, wrapper: str, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = fresh()
    if wrapper == "ddp":
        wrapped: Any = DistributedDataParallel(model)
    else:
        for layer in model.children():
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=dist.init_device_mesh("cpu", (2,)))
        wrapped = fully_shard(model, mesh=dist.init_device_mesh("cpu", (2,)))
    optimizer = t1.parametrize(wrapped, base=base(), lr=0.01)
    losses = train(wrapped, optimizer)
    if rank == 0:
        torch.save({"losses": losses, "rates": rates(optimizer)}, f"{folder}/found.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="gloo on a file store is tested on POSIX")
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp2"])
def test_two_processes_train_as_one(wrapper: str, tmp_path: Path) -> None:
    model = fresh()
    optimizer = t1.parametrize(model, base=base(), lr=0.01)
    expected = train(model, optimizer)
    mp.spawn(work, args=(wrapper, str(tmp_path)), nprocs=2)
    found = torch.load(tmp_path / "found.pt")
    assert found["rates"] == rates(optimizer)
    assert found["losses"] == pytest.approx(expected, rel=1e-5)


class Fused(nn.Module):
    """Heads that grow, with one projection: the queries' factor is one on rows of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.qkv = nn.Linear(16, width), nn.Linear(width, 3 * width)
        self.last = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        q, k, v = self.qkv(h).unflatten(-1, (3, 2, -1)).unbind(1)
        attended = F.scaled_dot_product_attention(q[None], k[None], v[None])[0].flatten(1)
        return self.last(h + attended)


@pytest.fixture
def mesh() -> Iterator[Any]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def step(model: Any, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.arange(len(x))).backward()
        optimizer.step()


@pytest.mark.skipif(os.name == "nt", reason="gloo is tested on POSIX")
def test_factors_on_rows_are_set_before_sharding(mesh: Any) -> None:
    """The order that the refusal names trains as the plain model does."""
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    plain, late, early = Fused(128), Fused(128), Fused(128)
    prescription = t1.prescribe(plain, base=Fused(64), sample=(x,))
    step(plain, t1.parametrize(plain, base=prescription, lr=0.01), x)

    fully_shard(late, mesh=mesh)
    with pytest.raises(PrescriptionError, match="already sharded: parametrize the plain model"):
        t1.parametrize(late, base=prescription, lr=0.01)
    with pytest.raises(RoleError, match="prescribe the plain model, shard it, and pass base=pre"):
        t1.prescribe(late, base=Fused(64), sample=(x,))

    t1.parametrize(early, base=prescription, lr=0.01)
    sharded: Any = fully_shard(early, mesh=mesh)
    step(sharded, t1.parametrize(sharded, base=prescription, lr=0.01, rescale=False), x)
    torch.testing.assert_close(sharded(x), plain(x))
