"""Losses that take derivatives of the model: they are read as what they are derivatives of."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_tasks import mlp
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import RoleError

# torch's own rules of forward derivatives are scripted
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
X = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)
Loss = Callable[[Any], Tensor]


def plain(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y)


def by_input(model: nn.Module, of: Callable[[Tensor], Tensor] = torch.sum) -> Tensor:
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(of(model(x)), x, create_graph=True)
    return gradient


def penalized(model: nn.Module) -> Tensor:
    """A gradient penalty, as of WGAN-GP or R1."""
    return plain(model) + 0.1 * by_input(model).square().sum(1).mean()


def forces(model: nn.Module) -> Tensor:
    """Of the derivative alone, as of potentials that are fitted to forces."""
    return (by_input(model, lambda out: out[:, 0].sum()) - 1).square().mean()


def tangent(model: nn.Module) -> Tensor:
    moved = torch.func.jvp(model, (X,), (torch.ones_like(X),))[1]
    return plain(model) + moved.square().mean()


def per_sample(model: nn.Module) -> Tensor:
    return F.cross_entropy(torch.vmap(model)(X), Y)


def laplacian(model: nn.Module) -> Tensor:
    """As of networks that solve differential equations."""

    def trace(x: Tensor) -> Tensor:
        return torch.func.hessian(lambda z: model(z).sum())(x).diagonal().sum()

    return plain(model) + torch.vmap(trace)(X).square().mean()


LOSSES: dict[str, Loss] = {
    one.__name__: one for one in (penalized, forces, tangent, per_sample, laplacian)
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_derivative_changes_no_rule(name: str) -> None:
    torch.manual_seed(0)
    target, base = mlp(128, bias=True), mlp(64, bias=True)
    rules = [t1.prescribe(target, base=base, sample=f).rules for f in (plain, LOSSES[name])]
    assert rules[0] == rules[1]


def test_a_sum_over_derivatives_by_features_is_refused_by_name() -> None:
    def loss(model: Any) -> Tensor:
        hidden = model[:2](X)
        (gradient,) = torch.autograd.grad(model[2:](hidden).sum(), hidden, create_graph=True)
        return plain(model) + gradient.square().sum(1).mean()

    with pytest.raises(RoleError, match="sum in the model runs over 64 -> 128 features as they"):
        t1.prescribe(mlp(128), base=mlp(64), sample=loss)


class Task:
    def __init__(self, loss: Loss) -> None:
        self.whole = loss

    def model(self, width: int) -> nn.Module:
        return mlp(width)

    def batches(self, seed: int) -> Iterator[int]:
        yield seed

    def loss(self, model: nn.Module, batch: int) -> Tensor:
        return self.whole(model)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "penalized" else pytest.mark.slow) for n in LOSSES]
)
def test_the_check_finds_no_fault_in_a_right_set_up(name: str) -> None:
    check = t1.coordinate_check(Task(LOSSES[name]), widths=[32, 64, 128], lr=2**-9, seeds=2)
    assert not check.failures, check


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
@pytest.mark.parametrize("name", LOSSES)
def test_features_move_alike_at_every_width(name: str, optimizer: str) -> None:
    """Own probe: the change of hidden features over widths 64 … 512 after four steps."""
    widths, rate = (64, 128, 256, 512), 2**-9 if optimizer == "AdamW" else 2**-5
    changes: list[float] = []
    for width in widths:
        squares = 0.0
        for seed in range(3):
            torch.manual_seed(seed)
            model = nn.Sequential(*(nn.Tanh() if type(m) is nn.ReLU else m for m in mlp(width)))
            stepped = t1.parametrize(
                model, base=lambda: mlp(64), lr=rate, optimizer=optimizer, sample=(X,)
            )
            first = model[:3](X).detach()
            for _ in range(4):
                stepped.zero_grad()
                LOSSES[name](model).backward()
                stepped.step()
            squares += float((model[:3](X).detach() - first).square().mean())
        changes.append(squares**0.5)
    x = torch.tensor(widths).double().log2()
    x -= x.mean()
    exponent = float((x * torch.tensor(changes).double().log2()).sum() / x.square().sum())
    assert abs(exponent) <= 0.15
