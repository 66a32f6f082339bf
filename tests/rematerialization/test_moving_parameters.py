"""Blocks whose forward changes their own parameters: codebooks, teachers, max_norm."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tests.rematerialization.models import Residual
from tests.rematerialization.test_purity import rematerialized, steps


def through_data(code: nn.Module) -> None:
    code.weight.data.mul_(0.9)  # pyright: ignore


def without_gradient(code: nn.Module) -> None:
    with torch.no_grad():
        code.weight.mul_(0.9)  # pyright: ignore


def through_numpy(code: nn.Module) -> None:
    values = code.weight.detach().numpy()  # pyright: ignore
    values *= 0.9


def other_data(code: nn.Module) -> None:
    code.weight.data = code.weight.data * 0.9  # pyright: ignore


def bound_anew(code: nn.Module) -> None:
    code.weight = nn.Parameter(code.weight.detach() * 0.9, requires_grad=False)  # pyright: ignore


MOVES: dict[str, Callable[[nn.Module], None]] = {
    "data": through_data,
    "no_grad": without_gradient,
    "NumPy": through_numpy,
    "other data": other_data,
    "bound anew": bound_anew,
}


class Code(Residual):
    """Scales its branch by an entry of a codebook, which it moves."""

    def __init__(self, move: Callable[[Any], None]) -> None:
        super().__init__(16)
        self.code, self.move = nn.Embedding(1, 4).requires_grad_(False), move

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.code.weight[0, 0].item()
        self.move(self.code)
        return x + (super().forward(x) - x) * scale


class Teacher(Residual):
    """Adds what an average of its linear map says."""

    def __init__(self) -> None:
        super().__init__(16)
        self.student = nn.Linear(16, 16)
        self.teacher = AveragedModel(nn.Linear(16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.teacher.update_parameters(self.student)
        return super().forward(x) + self.student(x) * self.teacher(x).detach()


class Bounded(Residual):
    """Adds rows whose norm is bounded as they are looked up."""

    def __init__(self) -> None:
        super().__init__(16)
        self.rows = nn.Embedding(4, 16, max_norm=0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.rows(torch.arange(len(x)) % 4)


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    **{name: (lambda name=name: Code(MOVES[name])) for name in MOVES},
    "teacher": Teacher,
    "max_norm": Bounded,
}


@pytest.mark.parametrize("name", BLOCKS)
def test_parameters_that_a_forward_moves_move_once_a_step(name: str) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(*(BLOCKS[name]() for _ in range(6)))
    ours = copy.deepcopy(plain)
    held = list(ours.parameters())
    rematerialized(ours)
    assert all(map(torch.equal, plain.parameters(), ours.parameters()))
    assert all(one is other for one, other in zip(held, ours.parameters(), strict=True))
    assert all(map(torch.equal, steps(plain), steps(ours)))
    assert all(map(torch.equal, plain.parameters(), ours.parameters()))
