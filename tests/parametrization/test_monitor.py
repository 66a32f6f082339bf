"""The live monitor: exact on a known step, names dead and exploding layers, leaves no trace."""

import copy

import pytest
import torch
from small_tasks import mlp
from torch import nn

from thetaone.errors import InputError
from thetaone.parametrization import SpectralMonitor


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 32, generator=generator)).square().mean().backward()
        optimizer.step()


def test_readings_are_exact_and_training_is_unchanged() -> None:
    plain = mlp(64)
    watched = copy.deepcopy(plain)
    first = plain.get_parameter("2.weight").detach().clone()
    optimizer = torch.optim.SGD(watched.parameters(), lr=0.1)
    with SpectralMonitor(watched, optimizer, every=3) as monitor:
        train(watched, optimizer, 7)
    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    train(plain, other, 1)
    update = plain.get_parameter("2.weight").detach() - first
    reading = next(r for r in monitor.readings if r.layer == "2")
    assert reading.weight_norm == pytest.approx(torch.linalg.matrix_norm(first, 2).item(), rel=0.01)
    assert reading.update_norm == pytest.approx(
        torch.linalg.matrix_norm(update, 2).item(), rel=0.01
    )
    assert 0 < reading.alignment <= 1
    train(plain, other, 0)
    assert sorted({r.step for r in monitor.readings}) == [0, 3, 6]
    assert not any(m._forward_pre_hooks for m in watched.modules())


def test_dead_and_exploding_layers_are_named() -> None:
    model = mlp(64)
    nn.init.zeros_(model.get_parameter("4.weight"))  # lets no gradient through to 0 and 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SpectralMonitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 1)
        assert not monitor.failures  # behind a matrix of zeros the first step has no gradient
        train(model, optimizer, 1)
    assert {(r.layer, r.status) for r in monitor.failures} == {
        ("0", "dead"),
        ("2", "dead"),
        ("4", "dead"),
    }
    model = mlp(64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e4)
    with SpectralMonitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 3)
    assert any(r.status == "exploding" for r in monitor.failures)


def test_bad_interval() -> None:
    model = mlp(16)
    with pytest.raises(InputError, match=r"every=0.*need every >= 1"):
        SpectralMonitor(model, torch.optim.SGD(model.parameters()), every=0)
