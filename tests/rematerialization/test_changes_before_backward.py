"""Parameters and modes that change between forward and backward: named, or without effect."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from tests.rematerialization.models import Looping, Residual
from tests.rematerialization.test_executor import assert_same, backward, batch, state
from thetaone.errors import RecomputationError
from thetaone.rematerialization import profile, rematerialize
from thetaone.rematerialization.planning._policies import per_block


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


def test_a_parameter_that_was_replaced_since_the_forward_is_the_earlier_one_again() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(*[Residual(16) for _ in range(6)])
    ours = rematerialize(copy.deepcopy(plain), per_block(profile(plain, batch(), repeats=1)))
    gradients: list[torch.Tensor] = []
    for model in (plain, ours):
        weights = [block.up.weight for block in model]  # pyright: ignore
        loss = model(batch()).square().sum()
        replaced(model)
        now = [block.up.weight for block in model]  # pyright: ignore
        loss.backward()
        assert all(a.grad is None for a in now)
        assert all(a is block.up.weight for a, block in zip(now, model, strict=True))  # pyright: ignore
        gradients.append(torch.stack([weight.grad for weight in weights]))
    assert torch.equal(*gradients)


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


def test_freezing_since_the_forward_is_named() -> None:
    model = nn.Sequential(*[Residual(16) for _ in range(4)])
    rematerialize(model, per_block(profile(model, batch(), repeats=1)))
    loss = model(batch()).sum()
    model.requires_grad_(False)
    with pytest.raises(RecomputationError, match="was frozen or unfrozen between"):
        loss.backward()


def test_an_input_that_was_changed_in_place_is_named() -> None:
    """The blocks save nothing of it, so that the plain model trains."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + 1).sin() @ self.linear.weight

    model = nn.Sequential(*(Shifted() for _ in range(6)))
    rematerialize(model, per_block(profile(model, batch(), repeats=1)))
    x = batch().clone()
    loss = model(x).square().mean()
    x.add_(1)
    with pytest.raises(RecomputationError, match="what flows into 0 was changed in place"):
        loss.backward()
