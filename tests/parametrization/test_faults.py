"""Planted faults: each is flagged, in its own layer, with its likely cause; right set-ups never."""

import re
from typing import Any

import pytest
import torch
from small_tasks import MlpTask, TiedTask, mlp
from torch import nn

import thetaone as t1
from thetaone.records import FEATURE_UPDATE, UPDATE_NORM, WEIGHT_NORM, CoordinateCheck

WIDTHS = (64, 128, 256, 512)
BASE = 64


def mup(model: nn.Module, lr: float, cls: Any = torch.optim.Adam) -> torch.optim.Optimizer:
    torch.manual_seed(0)
    return t1.parametrize(model, base=mlp(BASE), optimizer=cls, lr=lr)


def lazy(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    """η ∝ n^-3/2 for hidden weights."""
    optimizer = mup(model, lr)
    for group in optimizer.param_groups:
        if any(p.shape == (width, width) for p in group["params"]):
            group["lr"] = lr * (BASE / width) ** 1.5
    return torch.optim.Adam([{k: g[k] for k in ("params", "lr")} for g in optimizer.param_groups])


def spectral_rate_with_adam(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    """η ∝ fan_out/fan_in, the rule for SGD, given to Adam."""
    mup(model, lr)
    ratios = {32: width / BASE, width: 1.0}
    groups: list[dict[str, Any]] = [
        {"params": [p], "lr": lr * (ratios[p.shape[1]] if len(p) > 10 else BASE / width)}
        for p in model.parameters()
    ]
    return torch.optim.Adam(groups)


def readout_without_factor(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    optimizer = mup(model, lr)
    for group in list(optimizer.param_groups):
        for p in list(group["params"]):
            if p.shape[0] == 10 and p.shape[1] > BASE:
                group["params"] = [other for other in group["params"] if other is not p]
                optimizer.add_param_group({"params": [p], "lr": lr})
    return optimizer


def muon_matched_to_adamw(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    mup(model, lr)
    return torch.optim.Muon(model.parameters(), lr=lr, adjust_lr_fn="match_rms_adamw")


def growing_tied_embedding(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    base = TiedTask().model(BASE)
    optimizer = t1.parametrize(model, base=base, optimizer=torch.optim.Adam, lr=lr)
    with torch.no_grad():
        model.get_parameter("embedding.weight").mul_((width / BASE) ** 0.5)
    return optimizer


def run(fault: Any, task: Any = None, lr: float = 2**-9, **options: Any) -> CoordinateCheck:
    task = task or MlpTask()
    options = {"widths": WIDTHS, "seeds": 2, **options}
    return t1.coordinate_check(task, lr=lr, parametrization=fault, **options)


@pytest.mark.parametrize(
    ("fault", "layers", "quantity", "sign", "words"),
    [
        (lazy, {"2"}, UPDATE_NORM, -1, "falls too fast with width .lazy training."),
        (spectral_rate_with_adam, {"0", "2"}, UPDATE_NORM, 1, "must fall as 1/fan_in"),
        (readout_without_factor, {"4"}, UPDATE_NORM, 1, "readout without its factor"),
    ],
)
def test_fault_is_named(fault: Any, layers: set[str], quantity: str, sign: int, words: str) -> None:
    check = run(fault)
    own = {row.layer for row in check.failures if row.quantity == quantity}
    assert own == layers, str(check)
    for row in check.failures:
        if row.quantity == quantity:
            assert row.law is not None
            assert row.law.exponent * sign > 0.4
    assert any(re.search(words, row.cause) for row in check.failures)


def test_sp_is_named() -> None:
    check = run("sp")
    assert {"2", "4"} <= set(check.failed_layers)
    readout = [row for row in check.failures if (row.layer, row.quantity) == ("4", UPDATE_NORM)]
    assert "readout without its factor" in readout[0].cause


def test_growing_tied_embedding_is_named() -> None:
    check = run(growing_tied_embedding, TiedTask(), 2**-8)
    row = next(r for r in check.failures if r.quantity == WEIGHT_NORM)
    assert row.layer == "embedding"
    assert "wants a constant σ" in row.cause


def test_muon_matched_to_adamw_is_named() -> None:
    check = run(muon_matched_to_adamw, lr=2**-7, widths=(64, 128, 256), steps=(1,))
    flagged = {row.layer for row in check.failures if row.quantity == UPDATE_NORM}
    assert {"2", "4"} <= flagged, str(check)
    own = [r for r in check.failures if (r.layer, r.quantity) == ("2", UPDATE_NORM)]
    assert "Muon with a rate matched to AdamW's RMS" in own[0].cause


def test_what_only_inherits_says_from_whom() -> None:
    class Normed(MlpTask):
        def model(self, width: int) -> nn.Module:
            layers = list(mlp(width).children())
            return nn.Sequential(*layers[:3], nn.LayerNorm(width), *layers[3:])

    check = t1.coordinate_check(
        Normed(), widths=WIDTHS, lr=2**-9, optimizer="Adam", parametrization="sp", seeds=2
    )
    inherited = [r for r in check.failures if r.layer == "3" and r.quantity == FEATURE_UPDATE]
    assert inherited
    assert "inherits the change from 2" in inherited[0].cause


@pytest.mark.parametrize("lr", [2**-11, 2**-9, 2**-7])
@pytest.mark.parametrize("optimizer", ["Adam", "NAdam", "Adamax"])
def test_right_set_ups_are_never_flagged(optimizer: str, lr: float) -> None:
    check = t1.coordinate_check(MlpTask(), widths=WIDTHS, lr=lr, optimizer=optimizer, seeds=2)
    assert check.passed, str(check)
