"""Several residual streams side by side: each branch of each is scaled with depth."""

import pytest
import torch
from torch import Tensor, nn

import thetaone as t1

WIDTH, SHALLOW, DEEP = 16, 2, 16


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.down = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(self.norm(x)).relu())


class Streams(nn.Module):
    """Two streams of blocks, and how one block goes on with them."""

    def __init__(self, depth: int, how: str) -> None:
        super().__init__()
        self.how, streams = how, 1 if how == "copied" else 2
        self.first, self.last = nn.Linear(8, streams * WIDTH), nn.Linear(2 * WIDTH, 4)
        self.f = nn.ModuleList(Branch() for _ in range(depth))
        self.g = nn.ModuleList(Branch() for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).repeat(1, 2).chunk(2, -1) if self.how == "copied" else (
            self.first(x).chunk(2, -1)
        )  # fmt: skip
        for f, g in zip(self.f, self.g, strict=True):
            if self.how == "joint":  # as attention over the tokens of both
                from_a, from_b = torch.cat([a, b]).softmax(0).chunk(2)
                a, b = a + f(from_a), b + g(from_b)
            else:  # reversible: Gomez et al. (2017), Reformer
                a = a + f(b)
                b = b + g(a)
        return self.last(torch.cat([a, b], -1))


@pytest.mark.parametrize("how", ["reversible", "copied", "joint"])
def test_what_each_branch_of_each_stream_adds_is_divided_by_the_growth_of_depth(how: str) -> None:
    torch.manual_seed(0)
    base, model = Streams(SHALLOW, how), Streams(DEEP, how)
    rules = t1.prescribe(model, base=base, sample=(torch.randn(5, 8),))
    for name in ("weight", "bias"):
        for block in (0, 7, DEEP - 1):
            ends = [rules[f"{stream}.{block}.down.{name}"] for stream in "fg"]
            insides = [rules[f"{stream}.{block}.up.{name}"] for stream in "fg"]
            assert [(rule.init_factor, rule.lr_factor) for rule in ends] == [(1 / 8, 1 / 8)] * 2
            assert [(rule.init_factor, rule.lr_factor) for rule in insides] == [(1.0, 1.0)] * 2
