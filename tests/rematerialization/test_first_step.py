"""The first real step is held against the bytes of its plan; a difference is said by name."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.rematerialization.loops import peak
from tests.rematerialization.models import Looping
from tests.rematerialization.test_executor import backward, batch, state
from thetaone.errors import BudgetTooSmallError
from thetaone.records import Schedule, format_bytes
from thetaone.rematerialization import budget_bytes, plan, profile, rematerialize
from thetaone.rematerialization.execution._first_step import AGAIN


class Changeable(nn.Module):
    """A block that keeps more once an attribute changes, with the same arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(128, 256), nn.Linear(256, 128)
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
        return Looping(6, Changeable, width=128)
    return nn.Sequential(*[Changeable() for _ in range(6)])


def change(changed: nn.Module, how: Callable[[Changeable], None]) -> None:
    for block in changed.modules():
        if isinstance(block, Changeable):
            how(block)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("budget", "how", "loop"),
    [(0.5, longer, False), (0.5, longer, True), (1.0, cast, True), (0.5, cast, False)],
)
def test_a_step_that_keeps_more_is_named_once_and_the_next_is_planned_anew(
    budget: float, how: Callable[[Changeable], None], *, loop: bool
) -> None:
    ours, plain, heavier, x = (*(model(loop=loop) for _ in range(3)), batch(128, 128))
    change(heavier, how)
    limit = budget_bytes(profile(heavier, x, repeats=1), budget)
    rematerialize(ours, sample=x, budget=limit)
    backward(ours, x)
    ours.zero_grad()
    change(ours, how)
    change(plain, how)
    measured = format_bytes(profile(model(loop=loop), x, repeats=1).stages[0].tape_bytes)
    with pytest.warns(RuntimeWarning, match=f"keeps .* where {measured} were measured") as seen:
        first = state(ours, backward, x)
    assert len(seen) == 1
    assert all(map(torch.equal, state(plain, backward, x), first))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beside = (3 if loop else 1) * x.nbytes  # of the layers around the blocks, and the loss
        assert peak(ours, lambda m: m(x).sum().backward()) <= limit + beside
        assert peak(ours, lambda m: m(x).sum().backward()) <= limit + beside
    ours.zero_grad()
    plain.zero_grad()
    assert all(map(torch.equal, state(plain, backward, x), state(ours, backward, x)))


@pytest.mark.parametrize("loop", [True, False])
def test_a_step_that_has_outgrown_its_budget_is_refused(*, loop: bool) -> None:
    ours, x = model(loop=loop), batch(128, 128)
    rematerialize(ours, sample=x, budget=0.45)
    change(ours, longer)
    with pytest.warns(RuntimeWarning, match="keeps"):
        backward(ours, x)
    with pytest.raises(BudgetTooSmallError, match="no schedule fits"):
        backward(ours, x)


class Counting(nn.Module):
    """Knows which call of a pass it is: later ones keep eight times more."""

    def __init__(self, shared: dict[str, int]) -> None:
        super().__init__()
        self.linear, self.shared = nn.Linear(16, 16), shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shared["calls"] = self.shared["calls"] % 8 + 1
        hidden = self.linear(x)
        turns = 8 if self.shared["calls"] > 4 else 1
        return torch.stack([(hidden * turn).tanh() for turn in range(turns)]).sum(0)


def test_a_block_is_measured_in_the_state_in_which_it_is_called() -> None:
    shared, x = {"calls": 0}, batch(64, 16)
    ours = nn.Sequential(*[Counting(shared) for _ in range(8)])
    light, heavy = [profile(ours, x, repeats=1).stages[place].tape_bytes for place in (3, 4)]
    assert heavy > 4 * light
    assert shared == {"calls": 0}
    rematerialize(ours, sample=x, budget=0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backward(ours, x)


@pytest.mark.parametrize("loop", [True, False])
def test_a_step_that_keeps_more_is_seen_after_many_harmless_changes(*, loop: bool) -> None:
    ours, x = model(loop=loop), batch(128, 128)
    rematerialize(ours, sample=x, budget=0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(2 * AGAIN):
            change(ours, lambda block, number=number: setattr(block, "number", number))
            backward(ours, x)
    change(ours, longer)
    with pytest.warns(RuntimeWarning, match="keeps"):
        backward(ours, x)


def test_the_bytes_that_are_named_are_those_of_a_new_profile() -> None:
    ours, x = model(loop=True), batch(128, 128)
    rematerialize(ours, sample=x, budget=1.0)
    change(ours, longer)
    kept = profile(ours, x, repeats=1).stages[0]
    where = rf"{kept.name} keeps {format_bytes(kept.tape_bytes)} for its backward"
    with pytest.warns(RuntimeWarning, match=where):
        backward(ours, x)


def test_a_block_that_alone_keeps_more_is_the_one_that_is_named() -> None:
    ours, x = nn.Sequential(*[Changeable() for _ in range(6)]), batch(128, 128)
    rematerialize(ours, sample=x, budget=0.7)
    longer(ours[4])  # pyright: ignore[reportArgumentType]
    with pytest.warns(RuntimeWarning, match="^4 keeps"):
        backward(ours, x)


@pytest.mark.parametrize("budget", [1.0, 0.6])
def test_a_stored_schedule_holds_the_bytes_of_its_stages(budget: float) -> None:
    ours, x = model(loop=False), batch(128, 128)
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
