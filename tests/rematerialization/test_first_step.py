"""The first real step is held against the bytes of its plan; a difference is said by name."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.rematerialization.models import Looping
from tests.rematerialization.test_executor import backward, batch, state
from thetaone.records import Schedule, format_bytes
from thetaone.rematerialization import plan, profile, rematerialize


class Changeable(nn.Module):
    """A block that keeps more once an attribute changes, with the same arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.turns, self.mixed = 1, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            hidden = torch.tanh(self.up(x))
            for _ in range(self.turns - 1):
                hidden = torch.tanh(1.01 * hidden)
            return x + self.down(hidden).float()


def longer(block: Changeable) -> None:
    block.turns = 3


def cast(block: Changeable) -> None:
    block.mixed = True


def model(*, loop: bool) -> nn.Module:
    torch.manual_seed(0)
    if loop:
        return Looping(6, Changeable, width=32)
    return nn.Sequential(*[Changeable() for _ in range(6)])


def change(changed: nn.Module, how: Callable[[Changeable], None]) -> None:
    for block in changed.modules():
        if isinstance(block, Changeable):
            how(block)


@pytest.mark.float32
@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("how", [longer, cast])
@pytest.mark.parametrize("budget", [1.0, 0.7, 0.45])
def test_a_step_that_keeps_more_than_planned_is_named_once(
    budget: float, how: Callable[[Changeable], None], *, loop: bool
) -> None:
    ours, plain, x = model(loop=loop), model(loop=loop), batch(16, 32)
    rematerialize(ours, sample=x, budget=budget)
    change(ours, how)
    change(plain, how)
    measured = format_bytes(profile(model(loop=loop), x, repeats=1).stages[0].tape_bytes)
    with pytest.warns(RuntimeWarning, match=f"keeps .* where {measured} were measured") as seen:
        first = state(ours, backward, x)
    assert len(seen) == 1
    assert all(map(torch.equal, state(plain, backward, x), first))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backward(ours, x)


def test_the_bytes_that_are_named_are_those_of_a_new_profile() -> None:
    ours, x = model(loop=True), batch(16, 32)
    rematerialize(ours, sample=x, budget=1.0)
    change(ours, longer)
    kept = profile(ours, x, repeats=1).stages[0]
    where = rf"{kept.name} keeps {format_bytes(kept.tape_bytes)} for its backward"
    with pytest.warns(RuntimeWarning, match=where):
        backward(ours, x)


def test_a_block_that_alone_keeps_more_is_the_one_that_is_named() -> None:
    ours, x = nn.Sequential(*[Changeable() for _ in range(6)]), batch(16, 32)
    rematerialize(ours, sample=x, budget=0.7)
    longer(ours[4])  # pyright: ignore[reportArgumentType]
    with pytest.warns(RuntimeWarning, match="^4 keeps"):
        backward(ours, x)


@pytest.mark.parametrize("budget", [1.0, 0.6])
def test_a_stored_schedule_holds_the_bytes_of_its_stages(budget: float) -> None:
    ours, x = model(loop=False), batch(16, 32)
    chain = profile(ours, x, repeats=1)
    schedule = Schedule.from_json(plan(chain, budget).to_json())
    assert schedule.tapes == tuple(stage.tape_bytes for stage in chain.stages)
    twin = copy.deepcopy(ours)
    rematerialize(ours, schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backward(ours, x)
    change(twin, longer)
    with pytest.warns(RuntimeWarning, match="keeps"):
        backward(rematerialize(twin, schedule), x)


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("budget", [0.6, 1.0])
def test_what_changes_after_the_first_step_is_named_too(budget: float, *, loop: bool) -> None:
    ours, x = model(loop=loop), batch(16, 32)
    rematerialize(ours, sample=x, budget=budget)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backward(ours, x)
    change(ours, longer)
    with pytest.warns(RuntimeWarning, match="keeps .* were measured"):
        backward(ours, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backward(ours, x)
