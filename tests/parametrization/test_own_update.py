"""The part of a feature update that a layer's own weights make, apart from what it inherits."""

from collections.abc import Iterator
from typing import Any

import torch
from small_tasks import Batch, MlpTask, mlp
from torch import nn

import thetaone as t1
from thetaone.records import FEATURE_UPDATE, OWN_UPDATE, UPDATE_NORM, CoordinateCheck

WIDTHS = (16, 32, 64, 128)


class LoudReadout(MlpTask):
    """An initial readout 10 times torch's: most of its feature update comes from W₀ Δh."""

    def model(self, width: int) -> nn.Module:
        model = mlp(width)
        with torch.no_grad():
            model.get_parameter("4.weight").mul_(10)
        return model

    def batches(self, seed: int) -> Iterator[Batch]:
        """Many examples: their shares of W₀ Δh do not line up."""
        generator = torch.Generator().manual_seed(seed)
        yield (
            torch.randn(512, 32, generator=generator),
            torch.randint(10, (512,), generator=generator),
        )


def lazy_readout(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    with torch.random.fork_rng():
        optimizer = t1.parametrize(
            model, base=LoudReadout().model(16), optimizer=torch.optim.Adam, lr=lr
        )
    groups: list[dict[str, Any]] = [
        {"params": [p], "lr": g["lr"] * ((16 / width) ** 0.5 if len(p) == 10 else 1)}
        for g in optimizer.param_groups
        for p in g["params"]
    ]
    return torch.optim.Adam(groups)


def verdicts(check: CoordinateCheck) -> dict[str, tuple[float, bool]]:
    return {
        row.quantity: (row.law.exponent, row.passed)
        for row in check.rows
        if row.layer == "4" and row.step in (0, 3) and row.law
    }


def test_what_a_readout_inherits_may_fall_but_not_its_own_update() -> None:
    """W₀ Δh falls as 1/√width in a readout; a lazy rate is told from that by ΔW h."""
    right = t1.coordinate_check(LoudReadout(), widths=WIDTHS, lr=2**-9, optimizer="Adam")
    found = verdicts(right)
    assert found[FEATURE_UPDATE][0] < -0.25, "test too weak: the readout is not loud enough"
    assert abs(found[OWN_UPDATE][0]) < 0.2
    assert right.passed, str(right)
    lazy = t1.coordinate_check(LoudReadout(), widths=WIDTHS, lr=2**-9, parametrization=lazy_readout)
    found = verdicts(lazy)
    assert [found[q][1] for q in (OWN_UPDATE, UPDATE_NORM)] == [False] * 2
    assert lazy.failed_layers == ("4",)
