"""Loops that do more than hand each output on: run block by block, or refused."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from tests.rematerialization.loops import ByLoop, Loop, Shifted, peak
from tests.rematerialization.models import Looping, Residual, planned
from tests.rematerialization.test_executor import assert_same, backward, batch, state
from thetaone.errors import ProfileError, RecomputationError
from thetaone.rematerialization import TrainingMemory, budget_bytes, plan, profile, rematerialize


def supervised(model: Looping, x: torch.Tensor) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    for block in model.blocks:
        x = block(x)
        kept.append(x)
    return torch.stack([model.outer(one) for one in kept])


def regularized(model: Looping, x: torch.Tensor) -> torch.Tensor:
    penalty = torch.zeros(())
    for block in model.blocks:
        x = block(x)
        penalty = penalty + x.square().mean()
    return model.outer(x) + penalty


def skipped_over(model: Looping, x: torch.Tensor) -> torch.Tensor:
    for block in model.blocks:
        if torch.rand(()) < 2:
            x = block(x)
    return model.outer(x)


def numbered(model: Looping, x: torch.Tensor) -> torch.Tensor:
    extra = {"shift": 0.0}
    for number, block in enumerate(model.blocks):
        extra["shift"] = float(number)
        x = block(x, extra)
    return model.outer(x)


def detached_later(model: Looping, x: torch.Tensor) -> torch.Tensor:
    bias = model.inner.bias
    for number, block in enumerate(model.blocks):
        x = block(x, bias if number == 0 else bias.detach())
    return model.outer(x)


def changed_in_place(model: Looping, x: torch.Tensor) -> torch.Tensor:
    shift = torch.zeros(16)
    for block in model.blocks:
        x = block(x, shift)
        shift += 1
    return model.outer(x)


def early(model: Looping, x: torch.Tensor) -> torch.Tensor:
    for block in model.blocks[:2]:
        x = block(x)
    return model.outer(x)


LOOPS: dict[str, tuple[Loop, str]] = {
    "every output is kept": (supervised, "the model keeps the output of blocks.0"),
    "an output is used": (regularized, "the model uses the output of blocks.0 itself"),
    "numbers are drawn between": (skipped_over, "random numbers are drawn between blocks.0"),
    "a dict changes": (numbered, "blocks.1 is called with other extra arguments"),
    "an extra loses its graph": (detached_later, "blocks.1 is called with other extra arguments"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_that_does_more_is_noticed_and_runs_right(name: str) -> None:
    loop, reason = LOOPS[name]
    torch.manual_seed(0)
    plain, x = ByLoop(loop, lambda: Shifted(16, 0.2)), batch(32, 16)
    with pytest.warns(RuntimeWarning, match=f"{reason}.*one by one"):
        ours = rematerialize(copy.deepcopy(plain), sample=x, budget=0.6)
    for a, b in zip(state(plain, backward, x), state(ours, backward, x), strict=True):
        assert torch.equal(a, b)


REFUSED: dict[str, tuple[Loop, str]] = {
    name: (loop, "uses the output of blocks.0|drawn between|other extra")
    for name, (loop, _) in LOOPS.items()
} | {"an extra changes in place": (changed_in_place, "other extra arguments")}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loop_that_does_more_later_is_refused(name: str) -> None:
    """The same loops, where the schedule was made for one that only hands on."""
    loop, message = REFUSED[name]
    torch.manual_seed(0)
    model = ByLoop(lambda model, x: handed_on(model, x), lambda: Shifted(16, 0.2))
    schedule = planned(model, batch())[1].model_copy(update={"conditions": {}})
    rematerialize(model, schedule)
    model.loop = loop
    with pytest.raises(RecomputationError, match=message):
        model(batch())


def handed_on(model: Looping, x: torch.Tensor) -> torch.Tensor:
    for block in model.blocks:
        x = block(x)
    return model.outer(x)


def test_a_loop_that_stops_early_is_refused() -> None:
    model = ByLoop(handed_on, lambda: Residual(16))
    rematerialize(model, planned(model, batch())[1])
    model.loop = early
    with pytest.raises(RecomputationError, match=r"uses the output of blocks\.1 itself"):
        model(batch())
    with pytest.raises(RecomputationError, match=r"uses the output of blocks\.0 itself"):
        model.blocks[0](batch()).sum()


def test_two_chains_of_one_model_stand_side_by_side() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.ModuleList(Residual(16, 0.1) for _ in range(4))
            self.decoder = nn.ModuleList(Shifted(16, 0.1) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            memory = x
            for block in self.encoder:
                memory = block(memory)
            for block in self.decoder:
                x = block(x, memory)
            return x

    torch.manual_seed(0)
    plain, x = Both(), batch(64, 16)
    ours = copy.deepcopy(plain)
    for name in ("encoder", "decoder"):
        rematerialize(ours, sample=x, budget=0.6, blocks=name)
    for block in (*ours.encoder, *ours.decoder):
        assert "_rematerialization" in vars(block)
    for a, b in zip(state(plain, backward, x), state(ours, backward, x), strict=True):
        assert torch.equal(a, b)


def test_an_exception_between_blocks_keeps_nothing() -> None:
    def stop(model: Looping, x: torch.Tensor) -> torch.Tensor:
        x = model.blocks[0](x)
        raise ValueError("between")

    model = ByLoop(handed_on, lambda: Residual(16))
    rematerialize(model, planned(model, batch())[1])
    backward(model, batch())
    model.loop = stop
    with TrainingMemory(model) as memory:
        with pytest.raises(ValueError, match="between"):
            model(batch())
        assert memory.activation_bytes == 0
    copy.deepcopy(model)


class Named(NamedTuple):
    hidden: torch.Tensor
    note: str


def test_named_tuples_pass_through() -> None:
    class Naming(Residual):
        def forward(self, x: torch.Tensor) -> Named:  # pyright: ignore
            return Named(super().forward(x), "a note")

    def loop(model: Looping, x: torch.Tensor) -> torch.Tensor:
        for block in model.blocks:
            x, note = block(x)
            assert note == "a note"
        return model.outer(x)

    assert_same(ByLoop(loop, lambda: Naming(16, 0.1)), backward, batch())


class Around(nn.Module):
    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.chain(x).tanh()


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 1, 2), (0, 0, 0, 0)], ids=["some", "all"])
@pytest.mark.parametrize("inner", [False, True], ids=["the model", "a child"])
def test_a_sequential_that_holds_one_block_several_times(
    order: tuple[int, ...], *, inner: bool
) -> None:
    torch.manual_seed(0)
    blocks = [Residual(16, 0.1) for _ in range(4)]
    chain = nn.Sequential(*[blocks[place] for place in order])
    assert_same(Around(chain) if inner else chain, backward, batch())


class Recurrent(nn.Module):
    """One block in a loop; ``fed`` hands each call an input of its own, as a recurrent cell has."""

    def __init__(self, depth: int, *, fed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(16, 16)
        self.inner: Any = nn.Module()
        self.inner.block = Shifted(16, 0.1)
        self.depth, self.fed = depth, fed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.first(x)
        for number in range(self.depth):
            state = self.inner.block(state, x[..., :1] * number if self.fed else None)
        return state


@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("blocks", [None, "inner.block"])
@pytest.mark.filterwarnings("ignore:.* is called with other extra arguments")
def test_a_block_that_a_loop_calls_many_times_is_a_chain(blocks: str | None, *, fed: bool) -> None:
    plain, x = Recurrent(8, fed=fed), batch(64, 16)
    chain = profile(plain, x, blocks=blocks, repeats=1)
    assert [one.name for one in chain.stages] == ["inner.block"] * 8
    for budget in (1.0, 0.7, 0.4):
        ours, same = copy.deepcopy(plain), copy.deepcopy(plain)
        rematerialize(ours, sample=x, budget=budget, blocks=blocks)
        for _ in range(2):
            for a, b in zip(state(same, backward, x), state(ours, backward, x), strict=True):
                assert torch.equal(a, b)
        beside = 4 * x.nbytes  # what the first layer and the loss hold
        limit = budget_bytes(chain, budget) + beside
        assert peak(ours, lambda m: m(x).sum().backward()) <= limit


def test_a_block_that_is_named_and_called_once_is_no_chain() -> None:
    with pytest.raises(ProfileError, match="block' is a Shifted, which the forward calls once"):
        profile(Recurrent(1), batch(), blocks="inner.block")
    with pytest.raises(ProfileError, match="its forward calls no block many times"):
        profile(Recurrent(1), batch())


class Skipping(Residual):
    """Leaves itself out at random, and returns its very input then."""

    def __init__(self, chance: float) -> None:
        super().__init__(16)
        self.chance = chance

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if torch.rand(()) < self.chance else super().forward(x)


class Same(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


INPUT_RETURNED: dict[str, Callable[[], nn.Module]] = {
    "left out at random": lambda: Skipping(0.5),
    "identity": nn.Identity,
    "a block of its own": Same,
    "dropout in evaluation": lambda: nn.Dropout().eval(),
}


@pytest.mark.parametrize("name", INPUT_RETURNED)
@pytest.mark.parametrize("loop", [True, False])
def test_a_block_that_returns_its_input_is_a_stage(name: str, *, loop: bool) -> None:
    torch.manual_seed(0)
    blocks = [block() for _ in range(3) for block in (lambda: Residual(16), INPUT_RETURNED[name])]
    model, x = Looping(0, nn.Identity) if loop else nn.Sequential(*blocks), batch(64, 16)
    if isinstance(model, Looping):
        model.blocks = nn.ModuleList(blocks)
    torch.manual_seed(0)  # by which the first draws, and those of measuring, leave blocks out
    chain = profile(model, x, repeats=1)
    assert all(stage.output_bytes >= x.nbytes for stage in chain.stages)
    if name == "left out at random":  # measured at work, whatever was drawn
        assert min(stage.tape_bytes for stage in chain.stages[1::2]) > 4 * x.nbytes
    for fraction in (1.0, 0.7):
        schedule = plan(chain, fraction)
        ours, same = copy.deepcopy(model), copy.deepcopy(model)
        rematerialize(ours, schedule)
        for _ in range(3):
            for a, b in zip(state(same, backward, x), state(ours, backward, x), strict=True):
                assert torch.equal(a, b)
        limit = schedule.peak_bytes + 4 * x.nbytes
        assert peak(ours, lambda m: m(x).square().mean().backward()) <= limit
