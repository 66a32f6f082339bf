"""Estimators on a device: draws, values and gradients stay there, and are unbiased."""

import pytest
import torch
from torch import distributions as D

import thetaone as t1
from thetaone import estimators

pytestmark = [pytest.mark.gpu, pytest.mark.statistical]

N = 20_000
CONTINUOUS = ("ScoreFunction", "LeaveOneOut", "Antithetic", "Pathwise", "MeasureValued")
DISCRETE = ("ScoreFunction", "LeaveOneOut", "ARM", "DisARM", "REBAR", "MeasureValued")


def judge(rows: torch.Tensor, truth: torch.Tensor, resolution: float) -> None:
    """First that the sample sees a bias that matters, then |z| ≤ 4.5."""
    stderr = rows.std(0) / len(rows) ** 0.5
    assert float(stderr.max()) <= resolution
    assert float(((rows.mean(0) - truth) / stderr.clamp_min(1e-12)).abs().max()) <= 4.5


@pytest.mark.parametrize("name", CONTINUOUS)
def test_gradient_of_a_normals_mean(device: torch.device, name: str) -> None:
    """F = E[(x − 1)³], x ∼ N(µ, 1): F' = 3((µ − 1)² + 1)."""
    mu = torch.tensor([0.3, -0.2], device=device, requires_grad=True)
    rows = t1.gradient_samples(
        lambda x: (x - 1).pow(3).sum(-1), lambda m: D.Independent(D.Normal(m, 1.0), 1), mu,
        estimator=getattr(estimators, name)(), n_samples=N,
        generator=torch.Generator(device).manual_seed(0),
    )  # fmt: skip
    assert rows.device.type == device.type
    judge(rows, 3 * ((mu - 1) ** 2 + 1).detach(), 0.2)


@pytest.mark.parametrize("name", DISCRETE)
def test_gradient_of_a_bernoullis_logit(device: torch.device, name: str) -> None:
    """F = E[(b − t)²], b ∼ Bernoulli(σ(θ)): F' = σ(1 − σ)(1 − 2t)."""
    logit, t = torch.tensor([0.4], device=device, requires_grad=True), 0.2
    rows = t1.gradient_samples(
        lambda b: (b - t).pow(2).sum(-1), lambda o: D.Independent(D.Bernoulli(logits=o), 1), logit,
        estimator=getattr(estimators, name)(), n_samples=N,
        generator=torch.Generator(device).manual_seed(0),
    )  # fmt: skip
    assert rows.device.type == device.type
    p = logit.detach().sigmoid()
    judge(rows, p * (1 - p) * (1 - 2 * t), 0.02)


def test_the_gradient_lands_on_the_parameter(device: torch.device) -> None:
    mu = torch.zeros(3, device=device, requires_grad=True)
    e = t1.expectation(
        lambda x: x.square().sum(-1), D.Independent(D.Normal(mu, 1.0), 1), n_samples=64,
        estimator=estimators.LeaveOneOut(), generator=torch.Generator(device).manual_seed(0),
    )  # fmt: skip
    e.backward()
    assert mu.grad is not None
    assert {mu.grad.device.type, e.value.device.type} == {device.type}
    assert bool(mu.grad.isfinite().all())
