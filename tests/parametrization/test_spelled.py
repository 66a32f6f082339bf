"""The same computation in other words: what the reader must not lose on the way."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from thetaone.records import Rule

BASE, WIDE, HEADS = 32, 128, 2


class KernelAsWide(nn.Module):
    """A convolution over all features at once, as of a text by Kim (2014), or a linear layer."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.first, self.how = nn.Linear(6, width), how
        self.mid = (
            nn.Conv2d(1, width, (2, width)) if how == "kernel" else nn.Conv1d(width, width, 2)
        )
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = self.mid(h[:, None])[..., 0] if self.how == "kernel" else self.mid(h.mT)
        return self.last(h.relu().amax(-1))


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_a_kernel_as_wide_as_the_features_is_that_of_a_layer(optimizer: str) -> None:
    kernel, layer = (
        t1.prescribe(
            KernelAsWide(WIDE, how), base=lambda how=how: KernelAsWide(BASE, how),
            optimizer=optimizer, sample=(torch.ones(2, 5, 6),),
        )["mid.weight"]
        for how in ("kernel", "layer")
    )  # fmt: skip
    assert (kernel.init_factor, kernel.lr_factor) == (layer.init_factor, layer.lr_factor)


class OneKey(nn.Module):
    """Queries of several heads and one key and one value, fused: taken by index or by slice."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.how, self.head = how, width // HEADS
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)
        self.fused = nn.Linear(width, width + 2 * self.head)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.fused(self.first(x)).unflatten(-1, (HEADS + 2, self.head)).transpose(1, 2)
        query = heads[:, :-2]
        key = heads[:, [-2]] if self.how == "index" else heads[:, -2:-1]
        value = heads[:, [-1]] if self.how == "index" else heads[:, -1:]
        logits = query @ key.mT / self.head**0.5
        return self.last((logits.softmax(-1) @ value).transpose(1, 2).flatten(2))


def test_rows_are_followed_through_an_index_of_constants() -> None:
    index, by_slice = (
        t1.prescribe(
            OneKey(WIDE, how), base=lambda how=how: OneKey(BASE, how),
            sample=(torch.ones(2, 5, 6),),
        )["fused.weight"]
        for how in ("index", "slice")
    )  # fmt: skip
    assert [(row.start, row.stop) for row in by_slice.rows] == [(0, WIDE)]
    assert index.rows == by_slice.rows


def plain(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4))


def rules_under(loss: str) -> tuple[Rule, ...]:
    x, labels = torch.randn(7, 2, 6), torch.tensor([[1, 2], [3, -1]])

    def run(model: nn.Module) -> Tensor:
        scores = model(x).log_softmax(-1)
        if loss == "ctc":
            return F.ctc_loss(scores, labels, torch.tensor([7, 7]), torch.tensor([2, 1]))
        if loss == "chosen":
            return scores.masked_select(x[..., :4] > 0).mean()
        return scores.mean()

    torch.manual_seed(0)
    base = plain(BASE)
    return t1.prescribe(plain(WIDE), base=base, sample=run).rules


@pytest.mark.parametrize("loss", ["ctc", "chosen"])
def test_a_loss_whose_shapes_depend_on_values_is_read(loss: str) -> None:
    """What has no rule for fake tensors: a loss over alignments, entries chosen by a mask."""
    assert rules_under(loss) == rules_under("mean")
