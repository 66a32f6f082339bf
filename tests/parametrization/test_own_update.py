"""The part of a feature update that a layer's own weights make, apart from what it inherits."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small_tasks import Batch, MlpTask, mlp
from test_modules import Conv1D as Transposed
from torch import Tensor, nn

import thetaone as t1
from thetaone.parametrization.checking._observe import matrices
from thetaone.parametrization.checking._through import through
from thetaone.records import FEATURE_UPDATE, OWN_UPDATE, UPDATE_NORM, CoordinateCheck

WIDTHS = (16, 32, 64, 128)


class Conv1D(Transposed):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class TopKRouter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Linear(8, 3), (5, 8)),
        (lambda: Conv1D(8, 3), (2, 5, 8)),
        (TopKRouter, (5, 8)),
        (lambda: nn.Conv1d(8, 4, 3, stride=2, padding=1, groups=2), (2, 8, 9)),
        (lambda: nn.Conv2d(8, 3, 3, padding="same", padding_mode="circular"), (2, 8, 6, 6)),
        (lambda: nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1, groups=2), (2, 8, 5, 5)),
    ],
)
def test_feature_update_is_own_plus_inherited(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    """Layer(W₁, h₁) − Layer(W₀, h₀) = ΔW h₁ + W₀ Δh, in float64, whatever the layer."""
    torch.manual_seed(0)
    layer = make().double()
    before, after = torch.randn(2, *shape, dtype=torch.float64)
    initial = matrices(layer)["weight"].weight.detach().clone()
    first = layer(before)
    with torch.no_grad():
        matrices(layer)["weight"].weight.add_(torch.randn_like(initial))
    update = matrices(layer)["weight"].weight.detach() - initial
    own, inherited = through(layer, update, after), through(layer, initial, after - before)
    assert own is not None
    assert inherited is not None
    torch.testing.assert_close(layer(after) - first, own + inherited)


def test_a_layer_of_unknown_use_has_no_own_update() -> None:
    assert through(nn.Bilinear(2, 2, 2), torch.ones(2, 2, 2), torch.ones(2)) is None


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
