"""FSDP2: meta device, ``fully_shard``, ``to_empty``, one call for the rates, a sharded checkpoint.

Run on two CPU processes: ``torchrun --standalone --nproc-per-node 2 examples/fsdp2.py``. With GPUs
the same lines run on NCCL.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

import thetaone as t1
from thetaone.parametrization import SpectralMonitor
from thetaone.tasks import lm


def build(width: int, base_width: int, lr: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A sharded model that never existed whole, and its optimizer."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.device("meta"):
        model = lm.model(width)
    prescription = t1.prescribe(model, base=lm.model(base_width), optimizer=torch.optim.AdamW)
    mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
    for block in model.get_submodule("blocks").children():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device=device)
    torch.manual_seed(dist.get_rank())  # each process draws its own shard
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    optimizer = t1.parametrize(model, base=prescription, optimizer=torch.optim.AdamW, lr=lr)
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: Sequence[int]) -> list[float]:
    """One step a batch; every process has its own batches."""
    losses: list[float] = []
    device = next(model.parameters()).device
    for seed in seeds:
        batch = next(lm.batches(dist.get_world_size() * seed + dist.get_rank()))
        loss = lm.loss(model, batch.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dist.all_reduce(total := loss.detach().clone())
        losses.append(total.item() / dist.get_world_size())
    return losses


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--base-width", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2**-7, help="tuned at the base width")
    given = parser.parse_args(arguments)

    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    model, optimizer = build(given.width, given.base_width, given.lr)
    with SpectralMonitor(model, optimizer, every=50) as monitor:
        losses = train(model, optimizer, range(given.steps))

    where = [tempfile.mkdtemp() if dist.get_rank() == 0 else ""]
    dist.broadcast_object_list(where)
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=where[0])
    expected = train(model, optimizer, [given.steps])

    again, its_optimizer = build(given.width, given.base_width, given.lr)
    weights, moments = get_state_dict(again, its_optimizer)
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=where[0])
    set_state_dict(again, its_optimizer, model_state_dict=weights, optim_state_dict=moments)
    resumed = train(again, its_optimizer, [given.steps])

    if dist.get_rank() == 0:
        print(f"rates {sorted({group['lr'] for group in optimizer.param_groups})}")
        print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}; faults {len(monitor.failures)}")
        print(f"resumed bit for bit: {resumed == expected}")
        shutil.rmtree(where[0])
    dist.barrier()  # no process leaves while another may still talk to it
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
