"""Small models that the tests of this room share."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from thetaone.records import Chain, Region, Schedule
from thetaone.rematerialization import profile
from thetaone.rematerialization.planning._policies import judged


class Residual(nn.Module):
    """x + down(dropout(gelu(up(norm(x)))))."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.down, self.dropout = nn.Linear(4 * width, width), nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.dropout(nn.functional.gelu(self.up(self.norm(x)))))


class Executions(TorchDispatchMode):
    """Counts the forwards of linear layers by their weights, in the forward and in the backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        layers = [one for one in model.modules() if isinstance(one, nn.Linear)]
        self.places = {layer.weight.data_ptr(): place for place, layer in enumerate(layers)}
        self.counts = [0] * len(layers)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.addmm.default:
            self.counts[self.places[args[2].data_ptr()]] += 1
        return func(*args, **(kwargs or {}))


class Looping(nn.Module):
    """Its own forward loops over its blocks, with something before and after."""

    def __init__(self, depth: int, block: Callable[[], nn.Module], width: int = 16) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.blocks = nn.ModuleList(block() for _ in range(depth))
        self.outer = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        for block in self.blocks:
            x = block(x)
        return self.outer(x)


def looping(depth: int = 6, *, dropout: float = 0.0, width: int = 16) -> Looping:
    torch.manual_seed(0)
    return Looping(depth, lambda: Residual(width, dropout), width)


def transformer(depth: int = 24, width: int = 64) -> nn.Sequential:
    """Pre-norm blocks of attention and perceptron."""
    torch.manual_seed(0)
    return nn.Sequential(
        *[
            nn.TransformerEncoderLayer(
                width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        ]
    )


def shrinking_cnn() -> nn.Sequential:
    """Activations shrink four times a stage, to a vector."""
    torch.manual_seed(0)
    channels = [3, 16, 16, 16, 16]
    stages = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.AvgPool2d(2))
        for a, b in pairwise(channels)
    ]
    return nn.Sequential(*stages, nn.Flatten(), nn.Linear(16 * 4 * 4, 10))


def nested(length: int) -> list[Region]:
    """Two levels of nesting: the executor's whole grammar in one schedule."""
    half = length // 2
    spans = [(0, half), (0, half - 1), (0, 1), (half, length - 1), (half + 1, length - 1)]
    return [Region(start=a, stop=b) for a, b in set(spans) if a < b]


def planned(model: nn.Module, *inputs: object) -> tuple[Chain, Schedule]:
    """A profile and the nested schedule for it."""
    chain = profile(model, *inputs, repeats=1)
    return chain, judged(chain, nested(chain.length), policy="nested")
