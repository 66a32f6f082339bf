"""What blocks get beside the activation: lists, learned tensors, tensors that change or grow."""

import copy
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from tests.rematerialization.loops import ByLoop, Shifted, peak
from tests.rematerialization.models import Looping, Residual, planned
from tests.rematerialization.test_executor import backward, batch, state
from thetaone.errors import BudgetTooSmallError, RecomputationError, ScheduleError
from thetaone.records import Schedule
from thetaone.rematerialization import TrainingMemory, plan, profile, rematerialize
from thetaone.rematerialization.planning._policies import per_block


def collected(model: Looping, x: torch.Tensor) -> torch.Tensor:
    found: list[torch.Tensor] = []
    for block in model.blocks:
        x = block(x, found)
    return model.outer(x) + torch.stack(found).sum()


class Collecting(Residual):
    """Puts something into a list that it is given."""

    def forward(self, x: torch.Tensor, found: list[torch.Tensor] | None = None) -> torch.Tensor:
        y = super().forward(x)
        if found is not None:
            found.append(y.square().mean())
        return y


def test_what_blocks_put_into_a_list_is_there_once() -> None:
    torch.manual_seed(0)
    plain, x = ByLoop(collected, lambda: Collecting(16, 0.2)), batch(32, 16)
    with pytest.warns(RuntimeWarning, match="other extra arguments"):
        ours = rematerialize(copy.deepcopy(plain), sample=x, budget=0.8)
    for a, b in zip(state(plain, backward, x), state(ours, backward, x), strict=True):
        assert torch.equal(a, b)


class Reading(Residual):
    """Depends on how many others have put something into its list."""

    def forward(self, x: torch.Tensor, found: Any = None) -> torch.Tensor:
        found.append(1)
        return super().forward(x) * len(found)


def backward_twice(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    loss = model(x).square().mean()
    loss.backward(retain_graph=True)
    loss.backward()
    return loss.detach()


def test_a_list_is_as_it_was_in_every_recomputation() -> None:
    def loop(model: Looping, x: torch.Tensor) -> torch.Tensor:
        found: list[int] = []
        for block in model.blocks:
            x = block(x, found)
        return model.outer(x)

    torch.manual_seed(0)
    plain, x = ByLoop(loop, lambda: Reading(16, 0.2)), batch(32, 16)
    with pytest.warns(RuntimeWarning, match="other extra arguments"):
        ours = rematerialize(copy.deepcopy(plain), sample=x, budget=0.6)
    for a, b in zip(state(plain, backward_twice, x), state(ours, backward_twice, x), strict=True):
        assert torch.equal(a, b)


class Biased(Looping):
    """Every block is handed a learned tensor and one of a living graph."""

    def __init__(self) -> None:
        super().__init__(6, lambda: Shifted(16, 0.2))
        self.bias = nn.Parameter(torch.ones(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        shift = self.bias * 2
        for block in self.blocks:
            x = block(x, shift)
        return self.outer(x)


def test_extra_arguments_get_their_gradient_and_no_more() -> None:
    torch.manual_seed(0)
    plain = Biased()
    ours = rematerialize(copy.deepcopy(plain), sample=batch(), budget=0.8)
    assert ours.bias.grad is None
    for x in (batch(), batch(5, 16)):  # the second is planned within the step
        for a, b in zip(state(plain, backward, x), state(ours, backward, x), strict=True):
            assert torch.equal(a, b)


def test_gradients_of_extra_arguments_are_in_the_budget() -> None:
    class Wide(Shifted):
        def forward(self, x: torch.Tensor, extra: Any = None) -> torch.Tensor:
            return super().forward(x) + extra.mean()

    class Model(Looping):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x, self.wide)
            return x

    torch.manual_seed(0)
    model, x = Model(6, lambda: Wide(16)), batch(256, 16)
    model.wide = nn.Parameter(torch.ones(2**16))
    chain = profile(model, x, repeats=1)
    schedule = per_block(chain)
    rematerialize(model, schedule)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with TrainingMemory(model) as memory:
        model(x).sum().backward()
    assert 3 * 2**18 < memory.activation_peak_bytes <= schedule.peak_bytes


def test_an_argument_that_changed_since_the_forward_is_refused() -> None:
    model = Looping(6, lambda: Shifted(16))
    shift = torch.ones(16)
    model.forward = lambda x: chained(model, x, shift)  # pyright: ignore
    rematerialize(model, planned(model, batch())[1])
    loss = model(batch()).sum()
    shift.fill_(3)
    with pytest.raises(RecomputationError, match=r"an argument of blocks.* was changed in place"):
        loss.backward()


def chained(model: Looping, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    for block in model.blocks:
        x = block(x, shift)
    return x


@pytest.mark.float32
def test_an_extra_argument_that_grew_is_refused() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
            return x + torch.softmax(self.linear(x) @ memory.mT, -1) @ memory

    model: Any = Looping(4, Attending)
    model.forward = lambda x, memory: chained(model, x, memory)
    schedule = planned(model, batch(), batch(6, 16))[1]
    rematerialize(model, schedule)
    model(batch(), batch(6, 16))
    with pytest.raises(ScheduleError, match=r"extra tensors was float32\[6, 16\], is float32\[99"):
        model(batch(), batch(99, 16))


class TwoMasks(Looping):
    """Blocks take turns with two tensors, as sliding and full attention masks do."""

    def __init__(self, every: int, *, trained: bool) -> None:
        super().__init__(12, lambda: Shifted(16, 0.1))
        self.every, self.shift = every, nn.Parameter(torch.ones(16), requires_grad=trained)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        one, other = 0.1 * self.shift, 0.2 * self.shift
        for number, block in enumerate(self.blocks):
            x = block(x, other if number % self.every == self.every - 1 else one)
        return self.outer(x)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("every", [2, 6])
@pytest.mark.filterwarnings("ignore:.* is called with other extra arguments")
def test_regions_span_blocks_that_take_turns_with_two_arguments(
    every: int, *, trained: bool
) -> None:
    torch.manual_seed(0)
    model, x = TwoMasks(every, trained=trained), batch(64, 16)
    chain = profile(model, x, repeats=1)
    assert chain.lists == (every - 1,)  # there the second one is seen first
    schedule = Schedule.from_json(plan(chain, 0.35).to_json())
    assert any(region.stop - region.start > 1 for region in schedule.regions)
    ours = rematerialize(copy.deepcopy(model), schedule)
    for _ in range(2):
        for a, b in zip(state(model, backward, x), state(ours, backward, x), strict=True):
            assert torch.equal(a, b)
    assert peak(ours, lambda m: m(x).sum().backward()) <= schedule.peak_bytes + 4 * x.nbytes


@pytest.mark.filterwarnings("ignore:.* is called with other extra arguments")
def test_an_argument_of_an_earlier_section_that_changes_is_refused() -> None:
    torch.manual_seed(0)
    model, x = Handed(), batch(64, 16)
    rematerialize(model, schedule := plan(profile(model, x, repeats=1), 0.35))
    assert any(region.start > 1 and region.stop - region.start > 1 for region in schedule.regions)
    loss = model(x).sum()
    model.shifts[0].add_(1)
    with pytest.raises(RecomputationError, match="was changed in place between"):
        loss.backward()


class Handed(Looping):
    """As ``TwoMasks``; the tensors are there to be changed."""

    def __init__(self) -> None:
        super().__init__(12, lambda: Shifted(16))
        self.shifts = [torch.zeros(16), torch.ones(16)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        for number, block in enumerate(self.blocks):
            x = block(x, self.shifts[number % 2])
        return self.outer(x)


@pytest.mark.filterwarnings("ignore:.*one by one:RuntimeWarning")
@pytest.mark.parametrize("fresh", [True, False], ids=["made anew", "views of one"])
def test_arguments_that_regions_alone_keep_count_in_the_plan(*, fresh: bool) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Shifted(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inputs = None if fresh else torch.stack([x] * 12)
            hidden = x
            for time in range(12):
                hidden = self.cell(hidden, x * time if inputs is None else inputs[time])
            return hidden

    def step(one: nn.Module) -> None:
        one(x).square().mean().backward()

    model, x = Recurrent(), batch(256, 16)
    chain = profile(model, x, blocks="cell", repeats=1)
    with pytest.raises(BudgetTooSmallError, match="no schedule fits") as caught:
        plan(chain, 1)
    budget = caught.value.floor_bytes
    assert budget is not None
    rematerialize(model, sample=x, budget=int(budget), blocks="cell")
    assert peak(model, step) <= int(budget) + 2 * x.nbytes  # the loss
