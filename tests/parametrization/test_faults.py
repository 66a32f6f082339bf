"""Planted faults: each is flagged, in its own layer, with its likely cause; right set-ups never."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_tasks import Batch, MlpTask, TiedTask, mlp
from torch import Tensor, nn

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


class NormedTask(MlpTask):
    """The perceptron with a norm and biases."""

    def model(self, width: int) -> nn.Module:
        layers = list(mlp(width, bias=True).children())
        return nn.Sequential(*layers[:3], nn.LayerNorm(width), *layers[3:])


Edit = Callable[[dict[str, Any], nn.Parameter, float], None]


def started(value: float | None) -> Edit:
    def edit(group: dict[str, Any], parameter: nn.Parameter, r: float) -> None:
        with torch.no_grad():
            (parameter if value is None else parameter.fill_(value)).mul_(r**0.5)

    return edit


def scaled(option: str, power: float, value: float | None = None) -> Edit:
    def edit(group: dict[str, Any], parameter: nn.Parameter, r: float) -> None:
        group[option] = (group[option] if value is None else value) * r**power

    return edit


def planted(name: str, edit: Edit | None) -> Any:
    """The prescription with one edit of one parameter."""

    def build(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        base = NormedTask().model(32)
        right = t1.parametrize(model, base=base, optimizer=torch.optim.AdamW, lr=lr)
        groups = [{**g, "params": [p]} for g in right.param_groups for p in g["params"]]
        optimizer = torch.optim.AdamW(groups, lr=lr)
        parameter = model.get_parameter(name)
        group = next(g for g in optimizer.param_groups if g["params"][0] is parameter)
        if edit is not None:
            edit(group, parameter, width / 32)
        return optimizer

    return build


PLANTED: dict[str, tuple[str, Edit, str]] = {
    "gain starts as √r": ("3.weight", started(None), "starts larger"),
    "gain rate falls": ("3.weight", scaled("lr", -1), "moves less"),
    "bias starts as √r": ("2.bias", started(0.1), "starts larger"),
    "bias rate grows": ("2.bias", scaled("lr", 1), "moves more"),
    "ε stays": ("2", scaled("eps", 0, 1e-2), "ε is not small"),
    "decay grows": ("2", scaled("weight_decay", 2, 2.0), "weight decay grows"),
    "input starts as √r": ("0", started(None), "wants a constant σ"),
    "hidden rate constant": ("2", scaled("lr", 1), "must fall as 1/fan_in"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_in_any_parameter_is_found_in_its_layer(fault: str) -> None:
    layer, edit, words = PLANTED[fault]
    name = layer if "." in layer else f"{layer}.weight"
    options: dict[str, Any] = {"widths": (32, 64, 128), "lr": 2**-9, "seeds": 3}
    right = t1.coordinate_check(NormedTask(), parametrization=planted(name, None), **options)
    assert right.verdict != "fails", str(right)
    assert right.passed, str(right)
    check = t1.coordinate_check(NormedTask(), parametrization=planted(name, edit), **options)
    assert not check.passed
    assert check.culprit is not None
    assert check.culprit.layer == layer, str(check)
    assert words in check.culprit.cause
    assert "µP" not in check.culprit.cause


class Siamese(nn.Module):
    """Two features that meet in a dot product, summed over width or averaged."""

    def __init__(self, width: int, power: float) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, width))
        self.factor = width**-power

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.f(x).chunk(2)
        return (a * b).sum(-1) * self.factor


class SiameseTask(MlpTask):
    """The product stands in the model, or in the loss, after a module without one."""

    def __init__(self, power: float, in_loss: bool) -> None:
        self.power, self.in_loss = power, in_loss

    def model(self, width: int) -> nn.Module:
        whole = Siamese(width, self.power)
        return whole.f if self.in_loss else whole

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        out = model(batch[0])
        if self.in_loss:
            a, b = out.chunk(2)
            out = (a * b).sum(-1) * a.shape[-1] ** -self.power
        return torch.nn.functional.binary_cross_entropy_with_logits(
            out, (batch[1][:32] > 4).float()
        )


def both_hidden(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    """Adam rates by hand, right for both layers."""
    hidden = [p for p in model.parameters() if tuple(p.shape) == (width, width)]
    rest = [p for p in model.parameters() if tuple(p.shape) != (width, width)]
    return torch.optim.Adam([{"params": hidden, "lr": lr * 32 / width}, {"params": rest}], lr=lr)


@pytest.mark.parametrize("in_loss", [False, True])
def test_a_product_of_features_is_seen_where_no_module_is(in_loss: bool) -> None:
    label = "(loss) binary_cross_entropy_with_logits" if in_loss else "(model) output"
    for power, right in ((1.0, True), (0.0, False)):
        check = t1.coordinate_check(
            SiameseTask(power, in_loss), widths=(32, 64, 128), lr=2**-9, parametrization=both_hidden
        )
        assert (label in check.failed_layers) is not right, str(check)
        assert check.passed is right, str(check)
