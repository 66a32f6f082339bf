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
