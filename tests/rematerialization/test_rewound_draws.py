"""Draws that leave a generator where it was: its state tells nothing of them."""

# ruff: noqa: NPY002  what a model may draw from

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.rematerialization.models import Residual
from tests.rematerialization.test_executor import batch
from tests.rematerialization.test_purity import rematerialized

SHARED = torch.Generator()


def forked(x: torch.Tensor) -> Any:
    with torch.random.fork_rng(devices=[]):
        return torch.rand_like(x)


def put_back(x: torch.Tensor) -> Any:
    state = torch.get_rng_state()
    drawn = torch.rand_like(x)
    torch.set_rng_state(state)
    return drawn


def shared_put_back(x: torch.Tensor) -> Any:
    state = SHARED.get_state()
    drawn = torch.rand(x.shape, generator=SHARED)
    SHARED.set_state(state)
    return drawn


def python_put_back(_: torch.Tensor) -> Any:
    state = random.getstate()
    drawn = random.random()
    random.setstate(state)
    return drawn


def numpy_put_back(_: torch.Tensor) -> Any:
    state = np.random.get_state()
    drawn = np.random.rand()
    np.random.set_state(state)
    return drawn


DRAWS: dict[str, Callable[[torch.Tensor], Any]] = {
    "fork_rng": forked,
    "global": put_back,
    "shared": shared_put_back,
    "Python": python_put_back,
    "NumPy": numpy_put_back,
    "cloned": lambda x: torch.rand(x.shape, generator=SHARED.clone_state()),
    "seed of the global one": lambda x: torch.rand(
        x.shape, generator=torch.Generator().manual_seed(torch.initial_seed())
    ),
}


class Drawing(Residual):
    """Scales its branch by a draw."""

    def __init__(self, draw: Callable[[torch.Tensor], Any]) -> None:
        super().__init__(16)
        self.draw = draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (super().forward(x) - x) * self.draw(x)


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_that_is_put_back_is_repeated(name: str) -> None:
    def gradients(*, ours: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(*(Drawing(DRAWS[name]) for _ in range(6)))
        if ours:
            rematerialized(model)
        SHARED.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        loss = model(batch()).square().mean()
        torch.manual_seed(2)  # others draw before the backward
        torch.rand(1, generator=SHARED)
        random.random()
        np.random.rand()
        loss.backward()
        return [one.grad.clone() for one in model.parameters() if one.grad is not None]

    assert all(map(torch.equal, gradients(ours=False), gradients(ours=True)))
