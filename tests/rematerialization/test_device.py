"""Rematerialization on a device: bitwise gradients under every schedule, peaks as planned."""

import copy

import pytest
import torch
from torch import nn

from tests.rematerialization.models import Residual, looping, nested
from tests.rematerialization.test_executor import backward
from thetaone.records import Chain, Schedule
from thetaone.rematerialization import Planner, TrainingMemory, profile, rematerialize, store_all
from thetaone.rematerialization.planning._policies import judged, per_block

pytestmark = pytest.mark.gpu


def schedules(chain: Chain) -> dict[str, Schedule]:
    return {
        "per block": per_block(chain),
        "nested": judged(chain, nested(chain.length), policy="nested"),
        "floor": Planner(chain).floor,
    }


@pytest.mark.parametrize("kind", ["per block", "nested", "floor"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_bitwise_those_of_store_all(
    device: torch.device, kind: str, dropout: float
) -> None:
    plain = looping(6, dropout=dropout).to(device)
    ours, x = copy.deepcopy(plain), torch.randn(32, 16, device=device)
    rematerialize(ours, schedules(profile(ours, x, repeats=1))[kind])
    for model in (plain, ours):
        torch.manual_seed(5)  # seeds every device
        backward(model, x)
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.device.type == device.type
        assert torch.equal(a.grad, b.grad)


def measured_peak(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes of one training step above weights and gradients, by the device's own allocator."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weights = torch.ones_like(x)  # so that the first gradient takes its bytes
    if x.device.type != "cuda":
        with TrainingMemory(model) as memory:
            (model(x) * weights).sum().backward()
        return memory.activation_peak_bytes
    (model(x) * weights).sum().backward()  # workspaces of the libraries stay allocated
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    (model(x) * weights).sum().backward()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("kind", ["store-all", "per block", "floor"])
def test_the_peak_is_the_plans(device: torch.device, kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[Residual(64) for _ in range(12)]).to(device)
    x = torch.randn(512, 64, device=device)
    chain = profile(model, x, repeats=1)
    schedule = (schedules(chain) | {"store-all": store_all(chain)})[kind]
    rematerialize(model, schedule)
    peak, activation = measured_peak(model, x), x.numel() * x.element_size()
    # The plan holds the chain's output through the backward; this step hands it on at once.
    assert schedule.peak_bytes - activation - 0.02 * peak <= peak <= 1.02 * schedule.peak_bytes
