"""Containers and blocks that were edited, sliced, parametrized or copied afterwards."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from tests.rematerialization.loops import peak
from tests.rematerialization.models import Looping, Residual, looping, planned
from tests.rematerialization.test_executor import assert_same, backward, batch, state
from thetaone.errors import BudgetTooSmallError, ProfileError, ScheduleError
from thetaone.rematerialization import profile, rematerialize

EDITS: dict[str, Callable[[nn.Sequential], object]] = {
    "replaced": lambda model: model.__setitem__(2, Residual(16)),
    "removed": lambda model: model.__delitem__(5),
    "added": lambda model: model.append(Residual(16)),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_container_that_was_edited_is_refused(name: str) -> None:
    model = nn.Sequential(*[Residual(16) for _ in range(6)])
    rematerialize(model, planned(model, batch())[1])
    EDITS[name](model)
    with torch.no_grad():
        expected = batch()
        for block in model:
            expected = block(expected)
        assert torch.equal(model(batch()), expected)
    with pytest.raises(ScheduleError, match="added to, removed or replaced"):
        model(batch())


def test_a_slice_of_a_container_runs_as_written() -> None:
    model = nn.Sequential(*[Residual(16) for _ in range(6)])
    expected = model[:3](batch())
    rematerialize(model, planned(model, batch())[1])
    assert torch.equal(model[:3](batch()), expected)


def test_a_container_with_a_forward_of_its_own_is_refused() -> None:
    model: Any = nn.Sequential(*[Residual(16) for _ in range(3)])
    model.forward = lambda x: model[1](x)
    with pytest.raises(ProfileError, match="forward of its own on the instance"):
        profile(model, batch())


class Checkpointed(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        run = super().forward
        return torch.utils.checkpoint.checkpoint(run, x, use_reentrant=True)  # pyright: ignore


def test_blocks_that_checkpoint_themselves() -> None:
    torch.manual_seed(0)
    assert_same(Looping(6, lambda: Checkpointed(16, 0.1)), backward, batch())


def test_a_call_that_fails_leaves_what_was_there() -> None:
    model, x = looping(6), batch()
    rematerialize(model, planned(model, x)[1])
    with pytest.raises(BudgetTooSmallError, match="no schedule fits"):
        rematerialize(model, sample=x, budget=1)
    assert all("_rematerialization" in vars(block) for block in model.blocks)


def test_parametrizing_a_rematerialized_block() -> None:
    """A parametrization of the block itself puts a class of its own on top of ours."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x @ self.weight)

    class Doubled(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    def parametrized(model: nn.Sequential) -> nn.Sequential:
        for block in model:
            nn.utils.parametrize.register_parametrization(block, "weight", Doubled())
        return model

    plain, x = Looping(6, Weighted), batch()
    ours = copy.deepcopy(plain)
    rematerialize(ours, planned(ours, x)[1])
    parametrized(plain.blocks)  # pyright: ignore[reportArgumentType]
    parametrized(ours.blocks)  # pyright: ignore[reportArgumentType]
    rematerialize(ours, planned(ours, x)[1])
    for a, b in zip(state(plain, backward, x), state(ours, backward, x), strict=True):
        assert torch.equal(a, b)


def test_a_block_with_a_state_of_its_own_is_copied_as_it_asks() -> None:
    class Locked(Residual):
        def __init__(self) -> None:
            super().__init__(16)
            self.lock = threading.Lock()

        def __getstate__(self) -> dict[str, Any]:
            return {name: value for name, value in self.__dict__.items() if name != "lock"}

    model = Looping(6, Locked)
    rematerialize(model, planned(model, batch())[1])
    made = copy.deepcopy(model)
    backward(made, batch())
    assert made.blocks[0].up.weight.grad is not None  # pyright: ignore
    assert model.blocks[0].up.weight.grad is None  # pyright: ignore


@pytest.mark.parametrize("kind", [nn.ModuleList, lambda blocks: nn.Sequential(*blocks)])
def test_a_forward_that_runs_a_slice_of_its_list(kind: Any) -> None:
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.start = kind([Residual(16) for _ in range(10)]), 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks[self.start : -1]:
                x = block(x)
            return x

    x, plain = batch(), Sliced()

    def step(one: nn.Module) -> None:
        one(x).sum().backward()

    model = copy.deepcopy(plain)
    full = peak(plain, step)
    rematerialize(model, sample=x, budget=int(0.6 * full))
    assert peak(model, step) <= 0.6 * full
    plain.zero_grad()
    model.zero_grad()
    step(plain)
    step(model)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad)  # pyright: ignore[reportArgumentType]
    model.start = 1
    with pytest.raises(ScheduleError, match=r"blocks\.1 runs, which the forward that was measured"):
        model(x)


def test_a_sequential_whose_blocks_a_loop_calls_keeps_to_the_budget() -> None:
    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*[Residual(16) for _ in range(8)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return self.blocks[:0](x)

    x, model = batch(), Looped()

    def step(one: nn.Module) -> None:
        one(x).sum().backward()

    full = peak(model, step)
    rematerialize(model, sample=x, budget=int(0.6 * full))
    assert peak(model, step) <= 0.6 * full
