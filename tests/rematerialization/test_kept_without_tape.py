"""Blocks whose forward keeps tensors although it writes no tape: the budget covers them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from thetaone.errors import BudgetTooSmallError
from thetaone.rematerialization import TrainingMemory, rematerialize

ROWS = 1024


class OnContext(torch.autograd.Function):
    """Tanh that keeps its result on ``ctx``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore
        ctx.result = torch.tanh(x)
        return ctx.result.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # pyright: ignore
        return gradient * (1 - ctx.result * ctx.result)


def hooked(x: torch.Tensor) -> torch.Tensor:
    mask = torch.tanh(x.detach())
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * mask)
    return x.sin()


class Block(nn.Module):
    """Two linear maps around a function; ``keep`` gets what is between them."""

    def __init__(self, function: Any, keep: Callable[["Block", torch.Tensor], None]) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        self.function, self.keep, self.kept = function, keep, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.function(self.up(x))
        self.keep(self, hidden)
        return x + self.down(hidden)


def nothing(block: Block, hidden: torch.Tensor) -> None:
    pass


def in_closure(block: Any, hidden: torch.Tensor) -> None:
    block.kept = lambda: hidden


def in_dictionary(block: Any, hidden: torch.Tensor) -> None:
    block.kept = {"hidden": [hidden]}


KEEPING: dict[str, tuple[Any, Any]] = {
    "ctx": (OnContext.apply, nothing),
    "hook": (hooked, nothing),
    "closure": (torch.sin, in_closure),
    "dictionary": (torch.sin, in_dictionary),
}


def peak(model: nn.Module, x: torch.Tensor) -> int:
    with TrainingMemory(model) as memory:
        model(x).square().mean().backward()
    return memory.activation_peak_bytes


@pytest.mark.parametrize("name", KEEPING)
def test_a_budget_covers_what_a_forward_keeps(name: str) -> None:
    torch.manual_seed(0)
    function, keep = KEEPING[name]
    model, x = nn.Sequential(*(Block(function, keep) for _ in range(8))), torch.randn(ROWS, 16)
    with pytest.raises(BudgetTooSmallError, match="cheapest possible peak") as refused:
        rematerialize(model, sample=x, budget=1)
    rematerialize(model, sample=x, budget=refused.value.floor_bytes)
    peak(model, x)
    for block in model:
        block.__dict__["kept"] = None
    taken = peak(model, x)
    # what is left on a block its user asked for
    left = 0 if keep is nothing else 8 * ROWS * 64 * 4
    assert taken <= refused.value.floor_bytes + left + 3 * x.nbytes
