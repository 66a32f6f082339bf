"""FSDP2 and DDP on two gloo processes: the same rates and the same training as on one."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_tasks import mlp
from test_survival import rates, train
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import thetaone as t1


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
