"""Stacked training on a device: the losses are those of one-by-one training."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from thetaone.sweeps import Work, grid
from thetaone.sweeps.engines._stacked import train_stack

pytestmark = pytest.mark.gpu


class OnDevice:
    """Regression whose models and batches live on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def model(self, width: int) -> nn.Module:
        layers = [nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1)]
        return nn.Sequential(*layers).to(self.device)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator(self.device).manual_seed(seed)
        while True:
            x = torch.randn(32, 4, generator=generator, device=self.device)
            yield x, x.sum(dim=1, keepdim=True).sin()

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean()


def adam(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def test_a_stack_trains_as_one_by_one(device: torch.device) -> None:
    task = OnDevice(device)
    specs = grid(
        widths=[32], lrs=[2.0**-k for k in range(4, 9)], seeds=[0, 1], n_steps=20,
        parametrization="sp", base_width=32,
    )  # fmt: skip
    stacked = list(train_stack(Work(task=task, make_optimizer=adam), specs))
    for spec, trial in zip(specs, stacked, strict=True):
        torch.manual_seed(spec.seed)
        model = task.model(32)
        optimizer, stream = adam(model, 32, spec.lr), task.batches(spec.seed)
        losses: list[float] = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = task.loss(model, next(stream))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert trial.losses == pytest.approx(losses, rel=1e-3)
