"""Throughput of stacked training at widths 64 to 256 beside one-by-one training, and one sweep."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from row import interleaved, median_ms, paired_ratio, run
from torch import Tensor, nn

import thetaone as t1
from thetaone.sweeps import Work, grid
from thetaone.sweeps.engines._stacked import train_stack


class Products:
    """Which of eight products of pairs of inputs is largest; models and batches on one device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def model(self, width: int) -> nn.Module:
        layers = [nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, 8)).to(self.device)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator(self.device).manual_seed(seed)
        while True:
            x = torch.randn(64, 16, generator=generator, device=self.device)
            yield x, (x[:, :8] * x[:, 8:]).argmax(1)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


def adam(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def one_by_one(task: Products, specs: list[Any]) -> None:
    for spec in specs:
        torch.manual_seed(spec.seed)
        model = task.model(spec.width)
        optimizer = adam(model, spec.width, spec.lr)
        losses: list[float] = []
        for batch in islice(task.batches(spec.seed), spec.n_steps):
            optimizer.zero_grad()
            loss = task.loss(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())


def measure(device: torch.device, *, toy: bool) -> dict[str, Any]:
    task, steps = Products(str(device)), 5 if toy else 50
    work = Work(task=task, make_optimizer=adam)
    lrs = [2.0**power for power in range(-10, -2)]
    figures: dict[str, Any] = {}
    for width in (64,) if toy else (64, 128, 256):
        specs = grid(
            widths=[width], lrs=lrs, seeds=[0, 1], n_steps=steps, parametrization="sp",
            base_width=width,
        )  # fmt: skip
        seconds = interleaved(
            {
                "stacked": lambda specs=specs: list(train_stack(work, specs)),
                "one by one": lambda specs=specs: one_by_one(task, specs),
            },
            device, rounds=3, warmups=1,
        )  # fmt: skip
        figures[f"width {width}"] = {
            "trials": len(specs), "steps": steps, "stacked_ms": median_ms(seconds["stacked"]),
            "one_by_one_ms": median_ms(seconds["one by one"]),
            "times_faster": paired_ratio(seconds["one by one"], seconds["stacked"]),
        }  # fmt: skip
    result = t1.sweep(
        task, widths=[64, 128], lrs=lrs, seeds=[0, 1], steps=steps, engine="stacked",
        n_processes=1, optimizer=torch.optim.Adam,
    )  # fmt: skip
    statuses = sorted({trial.status for trial in result.trials})
    figures["t1.sweep"] = {"trials": len(result.trials), "statuses": statuses,
                           "wall_seconds": round(result.wall_seconds, 2)}  # fmt: skip
    return figures


if __name__ == "__main__":
    run(measure)
