"""What would train otherwise in silence: it is run one by one, replayed right, or refused."""

import copy
import random
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from tests.rematerialization.models import Looping, Residual, looping, nested, planned
from tests.rematerialization.test_executor import assert_same, backward, batch, state
from thetaone.errors import BudgetTooSmallError, ProfileError, RecomputationError, ScheduleError
from thetaone.records import Chain, Schedule
from thetaone.rematerialization import Planner, TrainingMemory, profile, rematerialize, store_all
from thetaone.rematerialization.planning._policies import judged, per_block

Loop = Callable[[Looping, torch.Tensor], torch.Tensor]


class ByLoop(Looping):
    """A loop that is given from outside."""

    def __init__(self, loop: Loop, block: Callable[[], nn.Module]) -> None:
        super().__init__(6, block)
        self.loop = loop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.loop(self, self.inner(x))


class Shifted(Residual):
    """Takes one more argument."""

    def forward(self, x: torch.Tensor, extra: Any = None) -> torch.Tensor:
        given = extra["shift"] if isinstance(extra, dict) else extra
        return super().forward(x) + (0 if given is None else given)


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
    for block in model.blocks[:3]:
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


def floor(chain: Chain) -> Schedule:
    """The deepest nests."""
    return Planner(chain).floor


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
    with pytest.raises(RecomputationError, match=r"uses the output of blocks\.2 itself"):
        model(batch())
    with pytest.raises(RecomputationError, match=r"uses the output of blocks\.0 itself"):
        model.blocks[0](batch()).sum()


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


@torch.no_grad()
def stepped(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.mul_(0.9)


def replaced(model: nn.Module) -> None:
    for block in model:  # pyright: ignore[reportGeneralTypeIssues]
        block.up.weight = nn.Parameter(block.up.weight * 2)


def reassigned(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 2


def buffered(model: nn.Module) -> None:
    for block in model:  # pyright: ignore[reportGeneralTypeIssues]
        block.scale.mul_(2)


CHANGES: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "an optimizer's step": (stepped, r"norm\.weight was changed between"),
    "another parameter": (replaced, r"up\.weight was replaced between"),
    "other data": (reassigned, r"norm\.weight was changed between"),
    "a buffer": (buffered, r"scale is a large buffer and was changed between"),
}


class Scaled(Residual):
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__(16)
        self.register_buffer("scale", torch.ones(2**15))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale[:16]


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_since_the_forward_is_named(name: str) -> None:
    change, message = CHANGES[name]
    model = nn.Sequential(*[Scaled() for _ in range(6)])
    rematerialize(model, per_block(profile(model, batch(), repeats=1)))
    loss = model(batch()).sum()
    change(model)
    with pytest.raises(RecomputationError, match=message):
        loss.backward()


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


def evaluated_between(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    output = model(x)
    model.eval()
    with torch.no_grad():
        model(x)
    output.square().mean().backward()
    model.train()
    return output.detach()


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.3))


def test_evaluation_between_forward_and_backward_changes_nothing() -> None:
    torch.manual_seed(0)
    assert_same(Looping(6, normalized), evaluated_between, batch())


class Counting(Residual):
    """A buffer that counts executions, and that the output depends on."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__(16, 0.1)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return super().forward(x) * (1 + self.count / 8)


class Averaging(Residual):
    """A running mean that is bound anew each time."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__(16, 0.1)
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return super().forward(x) + self.mean


def spectral() -> nn.Module:
    block = Residual(16, 0.1)
    nn.utils.parametrizations.spectral_norm(block.up)
    return block


class Late(Residual):
    """A buffer that is None, or not there, until the first forward."""

    cache: torch.Tensor | None

    def __init__(self, *, registered: bool) -> None:
        super().__init__(16, 0.1)
        if registered:
            self.register_buffer("cache", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if getattr(self, "cache", None) is None:
            if "cache" not in self._buffers:
                self.register_buffer("cache", torch.zeros(()))
            self.cache = torch.zeros(())
        assert self.cache is not None
        self.cache.add_(1)
        return super().forward(x) * (1 + self.cache / 8)


class Third(Residual):
    """A buffer that moves at every third execution."""

    count: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__(16, 0.1)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count = self.count + 1
        if self.count % 3 == 0:
            self.scale.mul_(1.5)
        return super().forward(x) * self.scale.clone()


class Codebook(Residual):
    """A large buffer that every execution changes."""

    book: torch.Tensor

    def __init__(self) -> None:
        super().__init__(16, 0.1)
        self.register_buffer("book", torch.ones(2**15))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.book.mul_(0.9).add_(x.detach().mean())
        return super().forward(x) * self.book[:16].clone()


COMMON = torch.zeros(())


def sharing() -> nn.Module:
    block = Counting()
    block.register_buffer("count", COMMON)
    return block


BUFFERS: dict[str, Callable[[], nn.Module]] = {
    "counter": Counting,
    "running mean": Averaging,
    "spectral norm": spectral,
    "None at first": lambda: Late(registered=True),
    "registered late": lambda: Late(registered=False),
    "every third time": Third,
    "large": Codebook,
    "one for all blocks": sharing,
}


def two_forwards(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    first, second = model(x), model(2 * x)
    first.square().mean().backward()
    second.square().mean().backward()
    return second.detach()


@pytest.mark.parametrize("step", [backward, two_forwards])
@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_that_a_block_changes_are_replayed(
    name: str, step: Callable[[nn.Module, torch.Tensor], torch.Tensor]
) -> None:
    torch.manual_seed(0)
    COMMON.zero_()
    if name == "spectral norm" and step is two_forwards:
        pytest.skip("store-all itself refuses it: the second forward changes what the first saved")
    assert_same(Looping(6, BUFFERS[name]), step, batch(), steps=5)


def evaluated_first(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """An evaluation with gradients, a training step, and only then the backward of the first."""
    model.eval()
    output = model(x)
    model.train()
    with torch.no_grad():
        model(3 * x)
    output.square().mean().backward()
    return output.detach()


def test_statistics_of_an_evaluation_are_those_of_its_forward() -> None:
    """Store-all saves the statistics themselves, so it is compared where they stay as they were."""
    torch.manual_seed(0)
    plain, x = Looping(6, normalized), batch()
    ours = copy.deepcopy(plain)
    rematerialize(ours, per_block(profile(ours, x, repeats=1)))
    found = state(ours, evaluated_first, x)
    plain.eval()
    expected = state(plain, backward, x)
    count = 1 + len(list(plain.parameters()))
    for a, b in zip(expected[:count], found[:count], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("schedule", [per_block, floor])
def test_copies_of_buffers_are_in_the_budget_from_the_first_step(
    schedule: Callable[[Chain], Schedule],
) -> None:
    """Constant large ones are not copied, small and changing ones once, whatever the nesting."""

    class Holding(Codebook):
        count: torch.Tensor
        mask: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.ones(2**18))
            self.register_buffer("count", torch.zeros(2**12))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return super().forward(x) + self.mask[0] * self.count.sum()

    model, x = nn.Sequential(*[Holding() for _ in range(8)]), batch(64, 16)
    model(x).sum().backward()  # plain: nothing of ours has run
    torch.utils.checkpoint.checkpoint(model[0], x, use_reentrant=False)  # imports its compiler
    found = schedule(profile(model, x, repeats=1))
    rematerialize(model, found)
    for _ in range(2):
        assert peak(model, lambda m: m(x).sum().backward()) <= found.peak_bytes


def test_planning_anew_fires_no_hook() -> None:
    model, seen = looping(6), list[int]()
    for block in model.blocks:
        block.register_forward_hook(lambda *_: seen.append(1))
        block.register_full_backward_hook(lambda *_: seen.append(2))
    rematerialize(model, sample=batch(), budget=0.8)
    assert seen == [1] * 6  # one forward of the whole model finds out how it calls its blocks
    seen.clear()
    model(batch(7, 16))
    assert seen == [1] * 6


def test_a_smaller_batch_runs_by_the_same_plan() -> None:
    model = looping(6, dropout=0.1)
    rematerialize(model, schedule := planned(model, batch(8, 16))[1])
    expected = state(looping(6, dropout=0.1), backward, batch(5, 16))
    for a, b in zip(expected, state(model, backward, batch(5, 16)), strict=True):
        assert torch.equal(a, b)
    assert schedule.conditions["input"] == "float32[8, 16]"
    assert peak(model, lambda m: m(batch(5, 16)).sum().backward()) <= schedule.peak_bytes


class Checkpointed(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        run = super().forward
        return torch.utils.checkpoint.checkpoint(run, x, use_reentrant=True)  # pyright: ignore


def test_blocks_that_checkpoint_themselves() -> None:
    torch.manual_seed(0)
    assert_same(Looping(6, lambda: Checkpointed(16, 0.1)), backward, batch())


class Aside(Residual):
    """Reaches a weight by another name as well."""

    def __init__(self) -> None:
        super().__init__(16)
        self.others = [nn.Parameter(torch.ones(2**16))]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.others[0].mean()


def test_a_weight_by_another_name_is_measured_and_left_alone() -> None:
    model, x = nn.Sequential(*[Aside() for _ in range(4)]), batch(64, 16)
    chain = profile(model, x, repeats=1)
    others = [block.others[0] for block in model if isinstance(block, Aside)]
    assert all(one.grad is None for one in others)
    assert chain.stages[0].backward_scratch_bytes >= 2**18


def test_a_sparse_buffer_is_left_alone() -> None:
    class Graph(Residual):
        def __init__(self) -> None:
            super().__init__(16, 0.1)
            self.register_buffer("adjacency", torch.eye(4).to_sparse())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.sparse.mm(self.adjacency, x))  # pyright: ignore

    torch.manual_seed(0)
    model = Looping(6, Graph)
    plain, x = copy.deepcopy(model), batch()
    rematerialize(model, planned(model, x)[1])
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        torch.manual_seed(5)
        assert torch.equal(a, b)
    torch.manual_seed(5)
    expected = plain(x)
    torch.manual_seed(5)
    assert torch.equal(model(x), expected)


def test_freezing_since_the_forward_is_named() -> None:
    model = nn.Sequential(*[Residual(16) for _ in range(4)])
    rematerialize(model, per_block(profile(model, batch(), repeats=1)))
    loss = model(batch()).sum()
    model.requires_grad_(False)
    with pytest.raises(RecomputationError, match="was frozen or unfrozen between"):
        loss.backward()


def test_measuring_fires_no_hook_and_leaves_weights_alone() -> None:
    model, fired = looping(6), list[str]()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: fired.append(name))
        parameter.register_hook(lambda _, name=name: fired.append(name))
    rematerialize(model, sample=batch(), budget=0.8)
    assert fired == []
    assert all(p.grad is None for p in model.parameters())
    backward(model, batch(7, 16))  # planned anew within the step
    assert len(fired) == 2 * len(list(model.parameters()))


class Elsewhere(nn.Module):
    """Decides by another generator than torch's."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.linear, self.draw = nn.Linear(16, 16), draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) if self.draw() < 2 else x + 1


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_a_block_that_draws_from_elsewhere_is_named(draw: Callable[[], float]) -> None:
    model = nn.Sequential(*[Elsewhere(draw) for _ in range(3)])
    with pytest.raises(ProfileError, match=r"0 \(Elsewhere\) draws from Python's or NumPy's"):
        profile(model, batch())


class Heads(nn.Module):
    """Attention whose number of heads no parameter and no ``repr`` shows."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.qkv, self.heads = nn.Linear(64, 192), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts
        return ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)


def peak(model: nn.Module, step: Callable[[nn.Module], object]) -> int:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with TrainingMemory(model) as memory:
        step(model)
    return memory.activation_peak_bytes


def test_blocks_that_print_alike_may_cost_otherwise() -> None:
    model = nn.Sequential(*[Heads(heads) for heads in (2, 32, 2, 32)])
    x = torch.randn(2, 64, 64)
    chain = profile(model, x, repeats=1)
    assert chain.stages[1].tape_bytes > 2 * chain.stages[0].tape_bytes
    rematerialize(model, schedule := per_block(chain))
    assert peak(model, lambda m: m(x).sum().backward()) <= schedule.peak_bytes


def test_an_autocast_is_measured_with_the_weights_that_it_casts() -> None:
    """Few rows and wide weights, so that casts are most of what is held."""

    def step(model: nn.Module) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(x).float().sum()
        loss.backward()

    torch.manual_seed(0)
    model = nn.Sequential(*[Residual(128) for _ in range(6)])
    x = torch.randn(4, 128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        schedule = per_block(profile(model, x, repeats=1))
    rematerialize(model, schedule)
    step(model)  # torch's first checkpoint imports its compiler
    casts = sum(p.numel() * 2 for p in model.parameters())
    assert casts < peak(model, step) <= schedule.peak_bytes
    with pytest.raises(ScheduleError, match="autocast was bfloat16, is no"):
        model(x)


def unfrozen(model: nn.Module) -> None:
    model.requires_grad_(True)


STEPS: dict[str, tuple[Callable[[nn.Module], object], Callable[[nn.Module], object], str]] = {
    "training": (lambda m: m.eval(), lambda m: m.train(), "training was no, is yes"),
    "trainable": (lambda m: m.requires_grad_(False), unfrozen, "trainable was 0, is"),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_needs_more_is_planned_anew_or_refused(name: str) -> None:
    before, after, message = STEPS[name]
    model, x = nn.Sequential(*[Residual(16, 0.5) for _ in range(6)]), batch(512, 16)
    x.requires_grad_()
    before(model)
    chain = profile(model, x, repeats=1)
    rematerialize(model, judged(chain, nested(6), policy="nested"))
    model(x)
    after(model)
    with pytest.raises(ScheduleError, match=message):
        model(x)
    before(model)
    rematerialize(model, sample=x, budget=1.0)
    limit = store_all(profile(model, x, repeats=1)).peak_bytes
    after(model)
    assert peak(model, lambda m: m(x).sum().backward()) <= limit


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


def test_a_call_that_fails_leaves_what_was_there() -> None:
    model, x = looping(6), batch()
    rematerialize(model, planned(model, x)[1])
    with pytest.raises(BudgetTooSmallError, match="no schedule fits"):
        rematerialize(model, sample=x, budget=1)
    assert all("_rematerialization" in vars(block) for block in model.blocks)


def test_a_rematerialized_model_can_be_profiled() -> None:
    model, x = looping(6), batch()
    before = profile(model, x, repeats=1)
    rematerialize(model, planned(model, x)[1])
    after = profile(model, x, repeats=1)
    assert [one.tape_bytes for one in after.stages] == [one.tape_bytes for one in before.stages]
    assert after.context == before.context


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
