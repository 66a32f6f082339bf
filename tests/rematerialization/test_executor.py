"""Bitwise the same training step, whatever PyTorch feature is used with it."""

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.rematerialization.models import Executions, Looping, Residual, looping, planned
from thetaone.errors import BudgetTooSmallError, InputError, RecomputationError, ScheduleError
from thetaone.records import DiskCost
from thetaone.rematerialization import (
    Planner,
    TrainingMemory,
    plan,
    profile,
    rematerialize,
    revolve,
)
from thetaone.rematerialization.planning._policies import per_block

Step = Callable[[nn.Module, torch.Tensor], Any]


def batch(*shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (4, 16)), generator=torch.Generator().manual_seed(1))


def backward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    output = model(x)
    output.square().mean().backward()
    return output.detach()


def state(model: nn.Module, step: Step, x: torch.Tensor) -> list[torch.Tensor]:
    """Everything a step leaves: its output, gradients, buffers, the random state."""
    torch.manual_seed(5)
    result = step(model, x)
    grads = [torch.zeros(0) if p.grad is None else p.grad for p in model.parameters()]
    found = [result, *grads, *model.buffers(), torch.get_rng_state()]
    return [tensor.detach().clone() for tensor in found]


def assert_same(model: nn.Module, step: Step, x: torch.Tensor, steps: int = 2) -> nn.Module:
    """Two steps by store-all and two by a nested schedule are bitwise equal."""
    plain, ours = copy.deepcopy(model), copy.deepcopy(model)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step is autocast):
        _, schedule = planned(ours, x)
    ours = rematerialize(ours, schedule)
    assert list(ours.state_dict()) == list(plain.state_dict())
    for _ in range(steps):
        expected, found = state(plain, step, x), state(ours, step, x)
        assert any(tensor.abs().sum() > 0 for tensor in expected[1:-1])
        for number, (a, b) in enumerate(zip(expected, found, strict=True)):
            assert torch.equal(a, b), number
    return ours


def normalized(width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())


MODELS: dict[str, Callable[[], nn.Module]] = {
    "loop": looping,
    "sequential": lambda: nn.Sequential(*[Residual(16) for _ in range(6)]),
    "dropout": lambda: looping(dropout=0.5),
    "batchnorm": lambda: nn.Sequential(*[normalized() for _ in range(6)]),
    "batchnorm in a loop": lambda: Looping(6, normalized),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_buffers_and_random_state_are_bitwise_equal(name: str) -> None:
    torch.manual_seed(3)
    assert_same(MODELS[name](), backward, batch())


def test_batchnorm_counts_each_batch_once() -> None:
    ours = assert_same(MODELS["batchnorm"](), backward, batch(), steps=3)
    counts = [b for name, b in ours.named_buffers() if name.endswith("num_batches_tracked")]
    assert len(counts) == 6
    assert all(count == 3 for count in counts)


def accumulated(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return sum((backward(model, part) for part in x.chunk(2)), torch.zeros(()))


def autograd_grad(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    grads = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    return torch.cat([grad.flatten() for grad in grads])


def two_forwards(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    first, second = model(x), model(2 * x)
    (first.square().mean() + second.square().mean()).backward()
    return second.detach()


def two_forwards_crossed(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    first, second = model(x), model(2 * x)
    first.square().mean().backward()
    second.square().mean().backward()
    return second.detach()


def autocast(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
    output.float().square().mean().backward()
    return output.detach()


def input_gradient(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    model(x).square().mean().backward()
    assert x.grad is not None
    return x.grad


STEPS: dict[str, Step] = {
    "autograd.grad": autograd_grad,
    "two forwards before one backward": two_forwards,
    "two forwards, two backwards": two_forwards_crossed,
    "autocast": autocast,
    "gradient of the input": input_gradient,
}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("name", STEPS)
def test_ways_to_ask_for_gradients(name: str, dropout: float) -> None:
    model = looping(dropout=dropout)
    if name == "autograd.grad":
        model.blocks[0].register_buffer("seen", torch.ones(1))  # the step itself leaves no .grad
    assert_same(model, STEPS[name], batch())


def test_accumulation_over_micro_batches() -> None:
    model = looping(dropout=0.2)
    plain, ours = model, copy.deepcopy(model)
    half = batch()[:2]
    ours = rematerialize(ours, planned(ours, half)[1])
    for a, b in zip(
        state(plain, accumulated, batch()), state(ours, accumulated, batch()), strict=True
    ):
        assert torch.equal(a, b)


def test_retain_graph_gives_the_same_gradients_twice() -> None:
    def twice(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        output = model(x).square().mean()
        output.backward(retain_graph=True)
        output.backward()
        return output.detach()

    assert_same(looping(dropout=0.5), twice, batch())


def test_tied_weights() -> None:
    model = looping()
    model.blocks[4].up.weight = model.blocks[1].up.weight  # pyright: ignore
    assert_same(model, backward, batch())


@pytest.mark.parametrize("frozen", [[0, 1, 2], [2], [5], list(range(6))])
def test_frozen_stages(frozen: list[int]) -> None:
    model = looping()
    for index in frozen:
        model.blocks[index].requires_grad_(False)
    model.inner.requires_grad_(0 not in frozen)
    assert_same(model, backward, batch())


# Griewank and Walther's t(L, s): forwards that write no tape, for each number of slots
SLOTS = (1, 2, 3, 4, 5, 6, 8, 10, 16, 20, 30)
ADVANCES = {
    10: (45, 20, 15, 14, 13, 12, 10, 9, 9, 9, 9),
    24: (276, 88, 61, 51, 44, 40, 38, 36, 30, 26, 23),
    32: (496, 140, 93, 75, 68, 60, 54, 52, 46, 42, 32),
    48: (1128, 267, 170, 136, 116, 108, 89, 84, 78, 74, 64),
    50: (1225, 285, 180, 144, 122, 114, 95, 88, 82, 78, 68),
    96: (4560, 793, 462, 354, 300, 264, 233, 210, 174, 170, 160),
    100: (4950, 845, 490, 374, 316, 280, 245, 222, 182, 178, 168),
}


@pytest.mark.parametrize(
    "length", [pytest.param(n, marks=pytest.mark.slow if n > 50 else ()) for n in ADVANCES]
)
def test_forward_calls_are_the_published_counts(length: int) -> None:
    """Counters inside the blocks, for the binomial schedule of every number of slots."""
    model = nn.Sequential(*[Counted() for _ in range(length)])
    chain = profile(model, batch(), repeats=1)
    for slots, advances in zip(SLOTS, ADVANCES[length], strict=True):
        schedule = revolve(chain, slots)
        rematerialize(model, schedule)
        with Executions(model) as executions:
            backward(model, batch())
        assert tuple(executions.counts) == schedule.executions
        assert sum(executions.counts) == advances + length


class Counted(nn.Module):
    """A linear layer, and a number of its own that is added where no backward needs it."""

    def __init__(self, number: int = 0) -> None:
        super().__init__()
        self.linear, self.number = nn.Linear(16, 16), number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x))


class Tailed(Counted):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.number


class Tails(Executions):
    """Counts also how often blocks get past the last tensor that their backward needs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.tails = [0] * len(self.counts)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.add.Tensor:
            self.tails[int(args[1])] += 1
        return super().__torch_dispatch__(func, types, args, kwargs)


def test_a_region_stops_where_its_backward_needs_nothing_more() -> None:
    """The last stage of a region skips its tail once a recomputation, as the judge has it."""
    model = nn.Sequential(*[Tailed(number) for number in range(8)])
    _, schedule = planned(model, batch())
    rematerialize(model, schedule)
    with Tails(model) as executions:
        backward(model, batch())
    ends = [any(region.stop == k + 1 for region in schedule.regions) for k in range(8)]
    skipped = [
        forwards - tails
        for forwards, tails in zip(executions.counts, executions.tails, strict=True)
    ]
    assert skipped == ends


def test_without_gradients_nothing_runs_twice() -> None:
    model = nn.Sequential(*[Counted() for _ in range(6)])
    rematerialize(model, planned(model, batch())[1])
    with Executions(model) as executions:
        with torch.no_grad():
            model(batch())
        model.eval()(batch())
    assert executions.counts == [2] * 6


def test_hooks_see_real_outputs_and_fire_at_every_execution() -> None:
    model = looping()
    seen: list[torch.Tensor] = []
    model.blocks[5].register_forward_hook(lambda *call: seen.append(call[2].detach().clone()))
    x = batch()
    model(x)
    expected = seen.pop()
    rematerialize(model, planned(model, x)[1])
    seen.clear()
    with pytest.warns(RuntimeWarning, match=r"blocks\.5 keeps .* or a forward hook keeps tensors"):
        model(x)
    assert len(seen) == 1
    assert torch.equal(seen[0], expected)


def test_deepcopy_and_pickle_run_their_own_blocks() -> None:
    model = looping()
    rematerialize(model, planned(model, batch())[1])
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        made.zero_grad()
        backward(made, batch())
        theirs, ours = made.blocks[2], model.blocks[2]
        assert isinstance(theirs, Residual)
        assert isinstance(ours, Residual)
        assert theirs.up.weight.grad is not None
        assert ours.up.weight.grad is None


def test_wrapping_twice_is_wrapping_once() -> None:
    model = looping()
    chain, schedule = planned(model, batch())
    rematerialize(rematerialize(model, schedule), per_block(chain))
    assert type(model.blocks[0]).__bases__ == (Residual,)
    backward(model, batch())


def test_one_call_with_sample_and_budget() -> None:
    model, x = looping(), batch()
    expected = state(copy.deepcopy(model), backward, x)
    ours = rematerialize(model, sample=x, budget=0.6)
    for a, b in zip(expected, state(ours, backward, x), strict=True):
        assert torch.equal(a, b)


def test_no_tensor_leaks_over_steps() -> None:
    model = looping(dropout=0.1)
    rematerialize(model, planned(model, batch())[1])
    backward(model, batch())
    gc.collect()
    gc.disable()
    try:
        with TrainingMemory(model) as memory:
            levels: list[int] = []
            for _ in range(100):
                backward(model, batch())
                levels.append(memory.live_bytes)
                model(batch())  # a forward that is never followed by its backward
    finally:
        gc.enable()
    assert len(set(levels)) == 1


def test_exception_in_the_forward_leaves_the_model_usable() -> None:
    model = looping()
    rematerialize(model, planned(model, batch())[1])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt("now")

    handle = model.blocks[3].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt, match="now"):
        model(batch())
    handle.remove()
    expected = state(looping(), backward, batch())
    for a, b in zip(expected, state(model, backward, batch()), strict=True):
        assert torch.equal(a, b)


def test_another_shape_is_planned_anew_within_the_same_bytes() -> None:
    model, x, more = looping(8), batch(32, 16), batch(40, 16)
    expected = [state(copy.deepcopy(model), backward, inputs) for inputs in (x, more)]
    limit = plan(profile(model, x, repeats=1), 0.7).budget_bytes
    assert limit is not None
    rematerialize(model, sample=x, budget=limit)
    for inputs, wanted in zip((x, more), expected, strict=True):
        model.zero_grad(set_to_none=True)
        for a, b in zip(wanted, state(model, backward, inputs), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(BudgetTooSmallError, match="no schedule fits"):
        model(batch(4000, 16))


def test_a_schedule_of_another_model_is_refused() -> None:
    _, schedule = planned(looping(6), batch())
    with pytest.raises(ScheduleError, match="6 stages and the model 5 blocks"):
        rematerialize(looping(5), schedule)


@pytest.mark.float32
def test_another_shape_is_refused() -> None:
    model = looping()
    rematerialize(model, planned(model, batch())[1])
    with pytest.raises(ScheduleError, match=r"input was float32\[4, 16\], is float32\[8, 16\]"):
        model(batch(8, 16))


class Scaled(Looping):
    """Something happens between the blocks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x) * 2
        return x


class Extra(Looping):
    """Every block is called with something of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x, scale=1.0 + number)
        return x


class Scaling(Residual):
    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return super().forward(x) * scale


LOOPS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "between": (lambda: Scaled(6, lambda: Residual(16, 0.2)), "uses the output of blocks.0 itself"),
    "extra": (
        lambda: Extra(6, lambda: Scaling(16, 0.2)),
        "blocks.1 is called with other extra arguments than blocks.0",
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_blocks_of_a_loop_that_does_more_are_recomputed_one_by_one(name: str) -> None:
    """The profile says so, and budgets hold all the same."""
    make, reason = LOOPS[name]
    torch.manual_seed(3)
    plain, x = make(), batch(32, 16)
    with pytest.warns(RuntimeWarning, match=f"{reason}.*one by one"):
        chain = profile(plain, x, repeats=1)
    assert reason in plan(chain, 1.0).policy
    with pytest.raises(InputError, match="nothing can wait on disk"):
        plan(chain, 1.0, disk=DiskCost(write_bytes_per_second=1.0, read_bytes_per_second=1.0))
    for fraction in (0.9, 0.6):
        ours, schedule = copy.deepcopy(plain), plan(chain, fraction)
        assert schedule.regions
        assert all(region.stop == region.start + 1 for region in schedule.regions)
        rematerialize(ours, schedule)
        for a, b in zip(
            state(copy.deepcopy(plain), backward, x), state(ours, backward, x), strict=True
        ):
            assert torch.equal(a, b)
        with pytest.raises(ScheduleError, match="Profile and plan for this one"):
            ours(batch(33, 16))


def test_a_spanning_schedule_is_refused_by_a_loop_that_does_more() -> None:
    model = Scaled(4, lambda: Residual(16))
    schedule = planned(looping(4), batch())[1]
    with pytest.raises(RecomputationError, match=r"uses the output of blocks\.0 itself"):
        rematerialize(model, schedule)(batch())


@pytest.mark.parametrize(
    "options",
    [{}, {"sample": torch.zeros(4, 16)}, {"budget": 100}],
    ids=["none", "sample", "budget"],
)
def test_half_a_call(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="either a schedule or both"):
        rematerialize(looping(), **options)


def test_floor_plan_trains() -> None:
    model, x = looping(8), batch()
    floor = Planner(profile(model, x, repeats=1)).floor
    assert max(floor.executions) > 2  # regions inside regions
    expected = state(model, backward, x)
    model.zero_grad()
    rematerialize(model, floor)
    for a, b in zip(expected, state(model, backward, x), strict=True):
        assert torch.equal(a, b)
