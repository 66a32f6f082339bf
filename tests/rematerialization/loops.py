"""Models, loops and measures that the tests of silent faults share."""

from collections.abc import Callable
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn

from tests.rematerialization.models import Looping, Residual
from thetaone.rematerialization import TrainingMemory

Loop = Callable[[Looping, torch.Tensor], torch.Tensor]


class ByLoop(Looping):
    """A loop that is given from outside."""

    def __init__(self, loop: Loop, block: Callable[[], nn.Module]) -> None:
        super().__init__(6, block)
        self.loop = loop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.loop(self, self.inner(x))


class Shifted(Residual):
    """Takes one more argument."""

    def forward(self, x: torch.Tensor, extra: Any = None) -> torch.Tensor:
        given = extra["shift"] if isinstance(extra, dict) else extra
        return super().forward(x) + (0 if given is None else given)


def peak(model: nn.Module, step: Callable[[nn.Module], object]) -> int:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with TrainingMemory(model) as memory:
        step(model)
    return memory.activation_peak_bytes
