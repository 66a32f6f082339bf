"""Trained weights are not rescaled in silence; fresh values of any kind are not taken for such."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import PrescriptionError


def net(width: int, draw: Callable[[Tensor], object] | None = None) -> nn.Module:
    model = nn.Sequential(
        nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8)
    )
    for weight in model.parameters():
        if draw is not None and weight.dim() == 2:
            with torch.no_grad():
                draw(weight)
    return model


def trained(width: int, optimizer: type[torch.optim.Optimizer], lr: float, steps: int) -> nn.Module:
    torch.manual_seed(0)
    model, inputs = net(width), torch.randn(256, 16)
    labels = (inputs[:, :8] * inputs[:, 8:]).argmax(1)
    steps_of = optimizer(model.parameters(), lr=lr)  # pyright: ignore[reportCallIssue]
    for _ in range(steps):
        steps_of.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        steps_of.step()
    return model


@pytest.mark.parametrize("factory", [False, True])
@pytest.mark.parametrize(
    ("width", "base", "optimizer", "lr", "steps"),
    [
        (256, 32, torch.optim.SGD, 0.1, 30),
        (256, 32, torch.optim.AdamW, 2**-8, 5),
        (64, 256, torch.optim.AdamW, 2**-6, 40),
    ],
    ids=["SGD", "few steps", "wider base"],
)
def test_trained_weights_are_refused_and_left_alone(
    width: int, base: int, optimizer: type[torch.optim.Optimizer], lr: float, steps: int,
    factory: bool,
) -> None:  # fmt: skip
    model = trained(width, optimizer, lr, steps)
    before = [weight.clone() for weight in model.parameters()]
    with pytest.raises(PrescriptionError, match=r"beyond the bound of the base's uniform draws"):
        t1.parametrize(model, base=(lambda: net(base)) if factory else net(base), lr=0.01)
    assert all(map(torch.equal, model.parameters(), before))


def mimetic(weight: Tensor) -> None:
    weight.copy_(0.5 * torch.eye(*weight.shape) + 0.3 * torch.randn_like(weight) / len(weight))


def low_rank(weight: Tensor) -> None:
    rows, columns = weight.shape
    weight.copy_(torch.randn(rows, 4) @ torch.randn(4, columns) / (2 * columns**0.5))


DRAWS: dict[str, Callable[[Tensor], object]] = {
    "uniform": lambda w: nn.init.uniform_(w, -0.1, 0.1),
    "positive": lambda w: nn.init.uniform_(w, 0.0, 1 / w.shape[1]),
    "two values": lambda w: w.copy_(0.1 * torch.randint(0, 2, w.shape) - 0.05),
    "normal": lambda w: nn.init.normal_(w, std=0.02),
    "truncated": lambda w: nn.init.trunc_normal_(w, std=0.02, a=-0.04, b=0.04),
    "orthogonal": nn.init.orthogonal_,
    "sparse": lambda w: nn.init.sparse_(w, 0.5, 0.1),
    "identity": nn.init.eye_,
    "mimetic": mimetic,
    "low rank": lambda w: low_rank(w),
    "half precision": lambda w: w.copy_(w.bfloat16()),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize(("width", "base"), [(128, 32), (32, 128)])
def test_no_initial_values_are_taken_for_trained_ones(
    draw: Callable[[Tensor], object], width: int, base: int
) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        t1.parametrize(net(width, draw), base=lambda: net(base, draw), lr=0.01)


@pytest.mark.parametrize(("optimizer", "lr"), [(torch.optim.SGD, 0.1), (torch.optim.Adam, 2**-8)])
def test_weights_trained_from_a_draw_of_low_rank_are_refused(
    optimizer: type[torch.optim.Optimizer], lr: float
) -> None:
    torch.manual_seed(0)
    model = net(128, low_rank)
    stepped = optimizer(model.parameters(), lr=lr)  # pyright: ignore[reportCallIssue]
    for _ in range(5):
        stepped.zero_grad()
        model(torch.randn(64, 16)).square().mean().backward()
        stepped.step()
    with pytest.raises(PrescriptionError, match=r"looks trained: its spectral norm"):
        t1.parametrize(model, base=lambda: net(32, low_rank), lr=0.01)
