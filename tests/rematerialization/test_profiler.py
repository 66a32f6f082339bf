"""What a profile measures, leaves alone, and refuses."""

import time
from typing import Any

import pytest
import torch
from torch import nn

from tests.rematerialization.models import looping
from thetaone.errors import ProfileError, ScheduleError
from thetaone.records import Chain, Schedule
from thetaone.rematerialization import TrainingMemory, plan, profile, rematerialize
from thetaone.rematerialization.accounting import AllocatorPeak
from thetaone.rematerialization.blocks import Call, Flow, Watch, find_blocks
from thetaone.rematerialization.execution._attach import detach
from thetaone.rematerialization.profiling import Subject
from thetaone.rematerialization.profiling._measure import measure_sizes


@pytest.mark.float32
def test_bytes_of_a_perceptron_by_hand() -> None:
    """Linear 16→64, tanh, Linear 64→16 on 8 rows: the hidden layer twice, the output once."""
    block = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 16))
    chain = profile(nn.Sequential(block, nn.Tanh()), torch.zeros(8, 16))
    first, second = chain.stages
    assert (chain.input_bytes, chain.input_requires_grad) == (8 * 16 * 4, False)
    assert (first.output_bytes, second.output_bytes) == (8 * 16 * 4,) * 2
    assert first.tape_bytes == 8 * (64 + 16) * 4  # tanh keeps its output, the layers their inputs
    assert second.tape_bytes == 8 * 16 * 4
    assert second.backward_scratch_bytes == 0


def test_a_profile_leaves_everything_as_it_was() -> None:
    model = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(3)])
    x = torch.randn(8, 4)
    model(x).square().sum().backward()
    before = [tensor.clone() for tensor in [*model.state_dict().values(), torch.get_rng_state()]]
    grads = [p.grad for p in model.parameters()]
    copies = [grad.clone() for grad in grads if grad is not None]
    profile(model, x)
    after = [*model.state_dict().values(), torch.get_rng_state()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(copies, grads, strict=True) if b is not None)


@pytest.mark.float32
def test_equal_blocks_cost_the_same() -> None:
    chain = profile(looping(5), torch.zeros(4, 16), repeats=2)
    assert len({stage.costs for stage in chain.stages}) == 1
    assert chain.context["input"] == "float32[4, 16]"
    assert chain.input_requires_grad


class Waiting(nn.Module):
    """Waits before or after it saves what its backward needs."""

    def __init__(self, before: float, after: float) -> None:
        super().__init__()
        self.linear, self.before, self.after = nn.Linear(4, 4), before, after

    def extra_repr(self) -> str:
        return f"{self.before}, {self.after}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.before)
        y = torch.tanh(self.linear(x))
        time.sleep(self.after)
        return y


def test_the_tail_is_what_follows_the_last_saved_tensor() -> None:
    waits = [Waiting(0.0, 0.03), Waiting(0.03, 0.0), Waiting(0.03, 0.03)]
    chain = profile(nn.Sequential(*waits), torch.randn(2, 4), repeats=3)
    shares = [stage.tail_seconds / stage.forward_seconds for stage in chain.stages]
    assert shares[0] > 0.8
    assert shares[1] < 0.2
    assert 0.3 < shares[2] < 0.7


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + time.perf_counter_ns() % 10_000


class View(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 4)


class Mute(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[None, str]:
        return None, str(x.shape)


class Force(nn.Module):
    """A gradient step on an energy, within the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        place = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.energy(place).sum(), place, create_graph=True)
        return x - slope


class FunctionalForce(Force):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - torch.func.grad(lambda place: self.energy(place).sum())(x)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (FunctionalForce(), r"^1 \(FunctionalForce\) computes gradients within its own forward"),
        (Force(), r"^1 \(Force\) computes gradients within its own forward"),
        (Noisy(), r"1 \(Noisy\) is not deterministic"),
        (View(), r"1 \(View\) returns a view of its input"),
        (nn.ReLU(inplace=True), r"1 \(ReLU\) changes its input in place"),
    ],
)
def test_blocks_that_cannot_be_recomputed_are_named(block: nn.Module, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        profile(nn.Sequential(nn.Linear(4, 4), block, nn.Linear(4, 4)), torch.randn(2, 4))


def test_models_without_a_chain_are_refused() -> None:
    with pytest.raises(ProfileError, match="no ModuleList or Sequential"):
        profile(nn.Linear(4, 4), torch.zeros(2, 4))
    with pytest.raises(ProfileError, match="name a ModuleList"):
        profile(looping(), torch.zeros(2, 16), blocks="nowhere")
    with pytest.raises(ProfileError, match="is a Linear"):
        profile(looping(), torch.zeros(2, 16), blocks="inner")
    with pytest.raises(ProfileError, match="returns a tuple without a tensor in sight"):
        profile(Looped(), torch.zeros(2, 4))


def test_a_model_that_computes_gradients_in_its_forward_is_refused_for_that() -> None:
    class Forces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            place = energy = x.detach().requires_grad_()
            for block in self.blocks:
                energy = block(energy).tanh()
            return torch.autograd.grad(energy.sum(), place, create_graph=True)[0]

    with pytest.raises(ProfileError, match="the model, outside its blocks, computes gradients"):
        profile(Forces(), torch.zeros(2, 4))


class Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Mute(), Mute()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)[0]
        return x


@pytest.mark.float32
def test_tracker_counts_storages_once_and_forgets_the_dead() -> None:
    x = torch.zeros(256)
    with TrainingMemory() as memory:
        y = x + 1
        views = [y[:10], y.view(16, 16), y[1:]]
        assert memory.live_bytes == 1024
        z = y * 2
        assert memory.live_bytes == 2048
        del y, views
        assert memory.live_bytes == 1024
        del z
    assert (memory.live_bytes, memory.peak_bytes) == (0, 2048)


@pytest.mark.float32
def test_tracker_tells_gradients_and_state_from_activations() -> None:
    model = nn.Linear(64, 64, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    x = torch.zeros(4, 64)
    with TrainingMemory(model, optimizer, tensors=[x]) as memory:
        model(x).sum().backward()
        optimizer.step()
    weights = 64 * 64 * 4
    assert memory.resident_bytes == weights + 4 * 64 * 4
    assert memory.live_bytes == 3 * weights  # the gradient and two moments
    assert memory.activation_bytes == 0


class Allocator:
    """CUDA's allocator statistics, as far as they are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = self.most = 0
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.given)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.most)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)

    def reset(self, device: object) -> None:
        self.most = self.given

    def give(self, size: int) -> None:
        self.given += size
        self.most = max(self.most, self.given)


@pytest.mark.float32
def test_on_cuda_the_total_is_the_allocators(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its statistics in place of a device: what exists, comes, goes, and comes after."""
    allocator = Allocator(monkeypatch)
    allocator.give(1000)
    monkeypatch.setattr(
        "thetaone.rematerialization.accounting._training_memory.AllocatorPeak",
        lambda devices: AllocatorPeak([torch.device("cuda", 0)] if list(devices) else []),
    )
    memory = TrainingMemory(nn.Linear(8, 4, bias=False))
    allocator.give(5000)
    allocator.give(-5000)  # before: no part of it
    with memory:
        allocator.give(300)
        allocator.give(-200)
        assert memory.total_peak_bytes == 1300
        memory.reset_peak()
        assert memory.total_peak_bytes == 1100
        allocator.give(500)
    allocator.give(10_000)
    assert memory.total_peak_bytes == 1600
    assert (memory.resident_bytes, memory.peak_bytes) == (128, 0)


@pytest.mark.float32
def test_on_cuda_a_kernels_workspace_is_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block asks the allocator for bytes that no tensor holds, forward and backward."""
    allocator = Allocator(monkeypatch)

    class Working(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            allocator.give(7000)
            allocator.give(-7000)
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # pyright: ignore
            allocator.give(9000)
            allocator.give(-9000)
            return gradient * 2

    class Block(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Working.apply(x)  # pyright: ignore

    x = torch.zeros(8, requires_grad=True)
    block = Block()
    watch = Watch("0", block)
    subject = Subject("0", "", block, block, (x,), Call((Flow(0),), {}), watch, watch.now())
    plain = measure_sizes(subject)
    assert (plain.forward_scratch, plain.backward_scratch) == (0, 0)
    monkeypatch.setattr(
        "thetaone.rematerialization.profiling._measure.AllocatorPeak",
        lambda devices: AllocatorPeak([torch.device("cuda", 0)]),
    )
    sizes = measure_sizes(subject)
    assert (sizes.output, sizes.tape) == (plain.output, plain.tape)
    # the tensors themselves are not the allocator's here: they come off what it gave
    assert sizes.forward_scratch == 7000 - 32
    assert sizes.taping_scratch == 7000 - 32
    assert sizes.backward_scratch == 9000 - 32


@pytest.mark.float32
def test_a_profile_in_json_is_used_again_and_refused_when_stale() -> None:
    model, x = looping(4), torch.zeros(4, 16)
    chain = Chain.from_json(profile(model, x, repeats=1).to_json())
    rematerialize(model, sample=x, budget=0.8, chain=chain)
    detach(model, find_blocks(model))
    stale: dict[str, tuple[nn.Module, torch.Tensor]] = {
        r"input was float32\[4, 16\], is float32\[8, 16\]": (model, torch.zeros(8, 16)),
        r"blocks was blocks.0 … blocks.3, is blocks.0 … blocks.4": (looping(5), x),
        r"parameters was .* float32, is .* float64": (looping(4).double(), x.double()),
        r"training was yes, is no": (looping(4).eval(), x),
    }
    for message, (other, inputs) in stale.items():
        with pytest.raises(ProfileError, match=f"the profile is stale: .*{message}"):
            rematerialize(other, sample=inputs, budget=0.8, chain=chain)
    torch.set_num_threads(2)
    with pytest.raises(ProfileError, match=r"threads was 1, is 2. Profile this model anew"):
        rematerialize(model, sample=x, budget=0.8, chain=chain)
    wider = Schedule.from_json(
        plan(profile(looping(4, width=8), x[:, :8], repeats=1), 1.0).to_json()
    )
    with pytest.raises(ScheduleError, match=r"for blocks of .* float32 parameters and these have"):
        rematerialize(model, wider)
