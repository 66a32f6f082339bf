"""A task small enough to train hundreds of times in a test, and its faulty variants."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from thetaone.records import TrialSpec
from thetaone.sweeps import grid

Batch = tuple[Tensor, Tensor]


class Toy:
    """Regression of a fixed function; counts its models in a file that workers share."""

    def __init__(self, counter: Path | None = None) -> None:
        self.counter = counter

    def model(self, width: int) -> nn.Module:
        if self.counter is not None:
            with self.counter.open("a") as file:
                file.write(f"{width}\n")
        return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))

    def batches(self, seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(16, 4, generator=generator)
            yield x, x.sum(dim=1, keepdim=True).sin()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        x, y = batch
        return (model(x) - y).square().mean()

    @property
    def n_built(self) -> int:
        assert self.counter is not None
        return len(self.counter.read_text().splitlines()) if self.counter.exists() else 0


def _first_width(model: nn.Module) -> int:
    return next(model.parameters()).shape[-2]  # the same under vmap and outside


class Dropping(Toy):
    def model(self, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.Dropout(0.5), nn.Linear(width, 1))


class Normalizing(Toy):
    def model(self, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


class Raising(Toy):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if _first_width(model) == 8:
            raise RuntimeError("no room\nfor eight")
        return super().loss(model, batch)


class Dying(Toy):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if _first_width(model) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(model, batch)


class Slow(Toy):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        time.sleep(0.01)
        return super().loss(model, batch)


class Short(Toy):
    def batches(self, seed: int) -> Iterator[Batch]:
        return islice(super().batches(seed), 3)


def adam(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def toy_grid(
    widths: Sequence[int] = (4, 8),
    powers: Sequence[int] = (-8, -6, -4),
    seeds: Sequence[int] = (0, 1),
    n_steps: int = 10,
) -> tuple[TrialSpec, ...]:
    return grid(
        widths=widths, lrs=[2.0**power for power in powers], seeds=seeds, n_steps=n_steps,
        parametrization="sp", base_width=min(widths),
    )  # fmt: skip
