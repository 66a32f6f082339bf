"""Steps of a check: Adam in one pass over memory, unless the user chose how."""

from typing import Any

import pytest
import torch
from torch import nn

from thetaone.parametrization.applying import parametrize
from thetaone.parametrization.checking._descent import fuse

ADAMS = (torch.optim.Adam, torch.optim.AdamW)


def trained(cls: type[torch.optim.Optimizer], dtype: torch.dtype, *, fused: bool) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    x = torch.randn(32, 8)
    model.to(dtype)
    optimizer = cls([{"params": [p]} for p in model.parameters()], lr=0.03, weight_decay=0.1)  # pyright: ignore
    if fused:
        fuse(optimizer)
        assert all(group["fused"] for group in optimizer.param_groups)
    for _ in range(20):
        optimizer.zero_grad()
        model(x.to(dtype)).square().mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("cls", ADAMS)
def test_fused_steps_are_adams(cls: type[torch.optim.Optimizer]) -> None:
    """As near to steps in double precision as those that are not fused."""
    truth = [p.detach() for p in trained(cls, torch.float64, fused=False).parameters()]
    for fused in (True, False):
        mine = trained(cls, torch.float32, fused=fused).parameters()
        for p, exact in zip(mine, truth, strict=True):
            assert torch.allclose(p.double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "choice", [{"foreach": True}, {"foreach": False}, {"fused": False}, {"differentiable": True}]
)
def test_a_users_choice_stays(choice: dict[str, Any]) -> None:
    optimizer = torch.optim.AdamW(nn.Linear(4, 4).parameters(), **choice)
    fuse(optimizer)
    assert optimizer.param_groups[0]["fused"] is choice.get("fused")


def test_other_types_and_classes_stay() -> None:
    class Own(torch.optim.AdamW):
        pass

    for cls, dtype in ((torch.optim.AdamW, torch.bfloat16), (Own, None), (torch.optim.SGD, None)):
        optimizer = cls(nn.Linear(4, 4, dtype=dtype).parameters(), lr=0.1)
        fuse(optimizer)
        assert not optimizer.param_groups[0].get("fused")


def test_of_a_mixture_adam_is_fused() -> None:
    wide, narrow = (nn.Sequential(nn.Linear(4, n), nn.Linear(n, n)) for n in (16, 8))
    mixed = parametrize(wide, base=narrow, optimizer="Muon+AdamW", lr=0.01)
    fuse(mixed)
    fused = [group.get("fused") for group in mixed.param_groups]
    assert fused.count(True) == sum("betas" in group for group in mixed.param_groups) > 0
