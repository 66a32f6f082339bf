"""The peak that a storage tracker sees is the plan's, and never above the budget."""

import pytest
import torch
from torch import nn

from tests.rematerialization.loops import peak
from tests.rematerialization.models import shrinking_cnn, transformer
from thetaone.rematerialization import Planner, TrainingMemory, plan, profile, rematerialize

MIB = 2**20


def measured(model: nn.Module, x: torch.Tensor) -> int:
    """Peak of one training step with gradients in place."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weights = torch.ones_like(model(x).detach())
    with TrainingMemory(model) as memory:
        (model(x) * weights).sum().backward()  # nobody holds the chain's output meanwhile
    return memory.activation_peak_bytes


@pytest.mark.parametrize("kind", ["transformer", "cnn"])
@pytest.mark.float32
def test_twenty_budgets(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "transformer":
        model, x = transformer(24, 64), torch.randn(4, 64, 64)
    else:
        model, x = shrinking_cnn(), torch.randn(8, 3, 64, 64)
    chain = profile(model, x, repeats=1)
    known = Planner(chain)
    low, high = known.floor.peak_bytes, known.store_all.peak_bytes
    for step in range(20):
        budget = int(low * (high / low) ** (step / 19)) if step < 19 else high
        schedule = known.plan(max(low, budget))
        rematerialize(model, schedule)
        peak = measured(model, x)
        assert peak <= max(low, budget), (step, peak, schedule.peak_bytes)
        slack = max(MIB, schedule.peak_bytes // 100)
        assert schedule.peak_bytes - slack <= peak <= schedule.peak_bytes, (step, schedule)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("compressed", [True, False])
def test_sparse_tensors_count_with_their_indices_and_values(*, compressed: bool) -> None:
    model, places, values = nn.Linear(8, 8, bias=False), torch.arange(8), torch.ones(8)
    links = torch.sparse_coo_tensor(torch.stack([places, places]), values, (8, 8))
    if compressed:
        links = torch.sparse_csr_tensor(torch.arange(9), places, values, (8, 8))
    model.register_buffer("links", links)
    indices = (9 + 8 if compressed else 2 * 8) * places.itemsize
    with TrainingMemory(model) as memory:
        doubled = links * 2
        assert memory.live_bytes >= values.nbytes
    assert memory.resident_bytes == model.weight.nbytes + values.nbytes + indices
    assert doubled.layout == links.layout


class Balanced(nn.Module):
    """Leaves a loss of its own on itself, as the routers of mixtures do."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        self.loss = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.gelu(self.up(x))
        self.loss = hidden.square().mean()
        return x + self.down(hidden)


@pytest.mark.parametrize("fraction", [0.6, 1.0])
def test_losses_that_blocks_leave_on_themselves_are_in_the_plan(fraction: float) -> None:
    torch.manual_seed(0)
    blocks = [Balanced() for _ in range(6)]
    model, x = nn.Sequential(*blocks), torch.randn(256, 16)
    rematerialize(model, schedule := plan(profile(model, x, repeats=1), fraction))

    def step(model: nn.Module) -> None:
        loss = model(x).sum()
        (loss + sum(block.loss for block in blocks)).backward()

    step(model)
    assert peak(model, step) <= schedule.peak_bytes + x.nbytes
