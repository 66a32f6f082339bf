"""The parametrization on a device: the CPU's prescription, plain PyTorch at the base width."""

import pytest
import torch
from torch import nn

import thetaone as t1

pytestmark = pytest.mark.gpu


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
    )


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    x = torch.linspace(-1, 1, 8 * 16, device=next(model.parameters()).device).view(8, 16)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def test_at_the_base_width_it_trains_as_plain_torch(device: torch.device) -> None:
    torch.manual_seed(0)
    ours = mlp(32).to(device)
    plain = mlp(32).to(device)
    plain.load_state_dict(ours.state_dict())
    base = mlp(32).to(device)
    optimizer = t1.parametrize(ours, base=base, optimizer=torch.optim.AdamW, lr=0.01)
    beside = torch.optim.AdamW(plain.parameters(), lr=0.01)
    for a, b in zip(trained(ours, optimizer), trained(plain, beside), strict=True):
        assert a.device.type == device.type
        assert torch.equal(a, b)


def test_the_prescription_is_that_of_the_cpu(device: torch.device) -> None:
    def rules(place: torch.device) -> dict[str, tuple[float, ...]]:
        torch.manual_seed(0)
        target, base = mlp(128).to(place), mlp(32).to(place)
        prescription = t1.prescribe(target, base=base, optimizer=torch.optim.AdamW)
        return {
            rule.name: (rule.lr_factor, round(rule.init_factor, 5)) for rule in prescription.rules
        }

    assert rules(torch.device("cpu")) == rules(device)


def test_a_wider_model_trains_where_it_is(device: torch.device) -> None:
    torch.manual_seed(0)
    model = mlp(128).to(device)
    optimizer = t1.parametrize(model, base=mlp(32).to(device), optimizer=torch.optim.AdamW, lr=0.01)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    after = trained(model, optimizer)
    moved = [float((a - b).abs().max()) for a, b in zip(after, before, strict=True)]
    assert all(one.device.type == device.type for one in after)
    # three steps of Adam at rate 0.01: at full rate 0.03, the hidden and output matrices a quarter
    assert moved[0] == pytest.approx(0.03, rel=0.2)
    assert moved[2] == pytest.approx(0.03 / 4, rel=0.2)
