"""A step other than the one that was measured: smaller, under autocast, or in need of more."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from tests.rematerialization.loops import peak
from tests.rematerialization.models import Residual, looping, nested, planned
from tests.rematerialization.test_executor import backward, batch, state
from thetaone.errors import ScheduleError
from thetaone.rematerialization import profile, rematerialize, store_all
from thetaone.rematerialization.planning._policies import judged, per_block
from thetaone.rematerialization.profiling import Modes


@pytest.mark.float32
def test_a_smaller_batch_runs_by_the_same_plan() -> None:
    model = looping(6, dropout=0.1)
    rematerialize(model, schedule := planned(model, batch(8, 16))[1])
    expected = state(looping(6, dropout=0.1), backward, batch(5, 16))
    for a, b in zip(expected, state(model, backward, batch(5, 16)), strict=True):
        assert torch.equal(a, b)
    assert schedule.conditions["input"] == "float32[8, 16]"
    assert peak(model, lambda m: m(batch(5, 16)).sum().backward()) <= schedule.peak_bytes


@pytest.mark.float32
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


def last_trains(model: nn.Module) -> None:
    model.eval()
    list(model.modules())[-1].train()


STEPS: dict[str, tuple[Callable[[nn.Module], object], Callable[[nn.Module], object], str]] = {
    "training": (lambda m: m.eval(), lambda m: m.train(), "training was no, is yes"),
    "some that train": (last_trains, lambda m: m.train(), "training was some .bits [0-9a-f]+., is"),
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


def test_modes_see_what_was_added_replaced_or_switched() -> None:
    block: Any = Residual(16)
    modes, seen = Modes([block]), set[tuple[str, str]]()
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: block.norm.eval(),
        lambda: block.up.requires_grad_(False),
        lambda: setattr(block, "up", nn.Linear(16, 64, bias=False)),
        lambda: block.down.add_module("adapter", nn.Linear(16, 2)),
        lambda: block.down.adapter.register_parameter("bias", None),
    ]
    for change in changes:
        change()
        seen.add(modes.now())
        assert modes.now() == Modes([block]).now()
    assert len(seen) == len(changes)


def test_statistics_that_a_forward_freezes_are_no_other_step() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.norm.eval()
            return x + self.norm(self.linear(x))

    model = nn.Sequential(*[Frozen() for _ in range(4)])
    rematerialize(model, per_block(profile(model, batch(), repeats=1)))
    model(batch()).sum().backward()
