"""Small tasks shared by the tests of this room."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


def mlp(width: int, *, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(32, width, bias=bias),
        nn.ReLU(),
        nn.Linear(width, width, bias=bias),
        nn.ReLU(),
        nn.Linear(width, 10, bias=bias),
    )


class MlpTask:
    """Three layers on random labels: the smallest model with an input, a hidden and a readout."""

    def model(self, width: int) -> nn.Module:
        return mlp(width)

    def batches(self, seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield (
                torch.randn(64, 32, generator=generator),
                torch.randint(10, (64,), generator=generator),
            )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])


class TiedModel(nn.Module):
    """An embedding whose weight is the readout's too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, width)
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.hidden = nn.Linear(width, width)
        self.readout = nn.Linear(width, 50, bias=False)
        self.readout.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.readout(torch.relu(self.hidden(self.embedding(tokens))))


class TiedTask:
    def model(self, width: int) -> nn.Module:
        return TiedModel(width)

    def batches(self, seed: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield torch.randint(50, (64,), generator=generator)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return F.cross_entropy(model(batch), (batch * 7 + 3) % 50)


class Block(nn.Module):
    """A residual perceptron on normalized features."""

    def __init__(self, width: int, factor: float = 1.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x + self.factor * self.down(F.relu(self.up(self.norm(x))))


class DeepModel(nn.Module):
    """An input of RMS 1, as an embedding has it, a stack of residual blocks, a norm, a readout."""

    def __init__(self, width: int, depth: int, factor: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Linear(32, width)
        nn.init.normal_(self.first.weight, std=32**-0.5)
        self.blocks = nn.ModuleList(Block(width, factor) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        return self.readout(self.norm(h))


class DeepTask(MlpTask):
    def model(self, width: int, depth: int = 4) -> nn.Module:
        return DeepModel(width, depth)
