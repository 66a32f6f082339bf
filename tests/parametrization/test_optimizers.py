"""Every optimizer of the list, every way torch runs it, every schedule: the ratios hold."""

import copy
import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from pytorch_optimizer import Lion, SignSGD
from small_tasks import DeepTask, MlpTask, mlp
from torch import nn
from torch.optim import lr_scheduler as schedules
from torch.optim.swa_utils import SWALR

import thetaone as t1
from thetaone.errors import RoleError, UnknownOptimizerError
from thetaone.parametrization import (
    SIGN,
    FlattenedRatiosWarning,
    UpdateFamily,
    make_parametrization,
    optimizer_class,
    per_group,
    register_update_family,
)
from thetaone.parametrization.applying._mixed_optimizer import MixedOptimizer
from thetaone.parametrization.rules import _families as families

# optimizer -> (factor on the rate of an input, a hidden and an output matrix, ε factor of hidden)
FAMILIES: dict[Any, tuple[tuple[float, float, float], float]] = {
    torch.optim.SGD: ((4, 1, 1 / 4), 0),
    SignSGD: ((1, 1 / 4, 1 / 4), 0),
    Lion: ((1, 1 / 4, 1 / 4), 0),
    torch.optim.Adam: ((1, 1 / 4, 1 / 4), 1 / 4),
    torch.optim.AdamW: ((1, 1 / 4, 1 / 4), 1 / 4),
    torch.optim.NAdam: ((1, 1 / 4, 1 / 4), 1 / 4),
    torch.optim.RAdam: ((1, 1 / 4, 1 / 4), 1 / 4),
    torch.optim.Adamax: ((1, 1 / 4, 1 / 4), 1 / 4),
    torch.optim.RMSprop: ((1, 1 / 4, 1 / 4), 1 / 4),
    torch.optim.Adagrad: ((1, 1 / 4, 1 / 4), 1 / 4),
    # relative to the weight's own size: 1 over 1, 1/4 over 1/2, 1/4 over 1/4
    torch.optim.Adafactor: ((1, 1 / 2, 1), 1 / 4),
    # spectral norm √(out/in): torch has √max(1, out/in) already, from 64/32 to 256/32, and clips
    torch.optim.Muon: ((1, 1, 1 / 2), 0),
}


@pytest.mark.parametrize("cls", FAMILIES, ids=lambda cls: cls.__name__)
def test_rate_and_eps_of_each_optimizer_by_hand(cls: Any) -> None:
    expected, eps = FAMILIES[cls]
    p = t1.prescribe(mlp(256), base=mlp(64), optimizer=cls)
    assert [rule.lr_factor for rule in p.rules] == pytest.approx(expected)
    built = t1.parametrize(mlp(256), base=mlp(64), optimizer=cls, lr=0.01)
    hidden = next(
        g for g in built.param_groups if g["params"][0].shape[0] == 256 or len(g["params"]) > 1
    )
    if eps:
        plain = cls([nn.Parameter(torch.ones(1))], lr=0.01).param_groups[0]["eps"]
        small = plain if not isinstance(plain, tuple) else plain[0]
        found = hidden["eps"] if not isinstance(hidden["eps"], tuple) else hidden["eps"][0]
        assert found == (None if small is None else pytest.approx(small * eps))


def run(optimizer: torch.optim.Optimizer, model: nn.Module, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(4, 32)).square().mean().backward()
        optimizer.step()


IMPLEMENTATIONS: list[tuple[Any, dict[str, Any], Any]] = [
    (torch.optim.SGD, {"fused": True}, 0.01),
    (torch.optim.SGD, {"foreach": True}, torch.tensor(0.01)),
    (torch.optim.Adam, {"fused": True}, torch.tensor(0.01)),
    (torch.optim.AdamW, {"foreach": True}, 0.01),
    (torch.optim.AdamW, {"fused": True}, 0.01),
    (torch.optim.Adagrad, {"fused": True}, 0.01),
    (torch.optim.RMSprop, {"foreach": True}, 0.01),
    (torch.optim.Muon, {}, torch.tensor(0.01)),
]


@pytest.mark.parametrize(("cls", "options", "lr"), IMPLEMENTATIONS)
def test_implementations_and_tensor_rates_keep_the_ratios(
    cls: Any, options: dict[str, Any], lr: Any
) -> None:
    model = mlp(256)
    built = t1.parametrize(model, base=mlp(64), optimizer=cls, lr=lr, **options)
    kinds = {type(g["lr"]) for g in built.param_groups}
    assert kinds == {type(lr)}
    run(built, model)
    ratios = [float(g["lr"]) / g["lr_factor"] for g in built.param_groups]
    assert ratios == pytest.approx([0.01] * len(ratios))


def test_capturable_reaches_every_group() -> None:
    built = t1.parametrize(
        mlp(256), base=mlp(64), optimizer=torch.optim.Adam, lr=torch.tensor(0.5), capturable=True
    )
    assert [g["capturable"] for g in built.param_groups] == [True] * len(built.param_groups)
    assert [g["lr"].item() for g in built.param_groups][:2] == [0.5, 0.125]


def test_groups_do_not_share_a_tensor_rate() -> None:
    """ReduceLROnPlateau halves group after group: a shared tensor would be halved twice."""
    rate = torch.tensor(0.5)
    built = t1.parametrize(
        mlp(256, bias=True), base=mlp(64, bias=True), optimizer=torch.optim.Adam, lr=rate
    )
    plateau = schedules.ReduceLROnPlateau(built, patience=0, factor=0.5)
    for loss in (1.0, 2.0):
        plateau.step(loss)
    assert len(built.param_groups) == 4
    assert [float(g["lr"]) / g["lr_factor"] for g in built.param_groups] == [0.25] * 4
    assert rate.item() == 0.5


Optimizer = torch.optim.Optimizer
MULTIPLYING: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda _: 0.9),
    "StepLR": lambda o: schedules.StepLR(o, 2),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: schedules.ConstantLR(o),
    "LinearLR": lambda o: schedules.LinearLR(o),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, 8),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 8),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 4),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler(
        [schedules.ConstantLR(o), schedules.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o), schedules.CosineAnnealingLR(o, 8)], [3]
    ),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=0),
    # those that set rates, with the list they take
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, per_group(o, 0.1), total_steps=9),
    "CyclicLR": lambda o: schedules.CyclicLR(
        o, per_group(o, 0.01), per_group(o, 0.1), step_size_up=3, cycle_momentum=False
    ),
    "ReduceLROnPlateau, min_lr": lambda o: schedules.ReduceLROnPlateau(
        o, patience=0, min_lr=per_group(o, 0.05)
    ),
    "SWALR": lambda o: SWALR(o, cast(Any, per_group(o, 0.05)), anneal_epochs=3),
}
FLATTENING: dict[str, Callable[[Optimizer], Any]] = {
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.1, total_steps=9),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.1, cycle_momentum=False),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 8, eta_min=0.01),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=0, min_lr=0.05),
    "SWALR": lambda o: SWALR(o, 0.05, anneal_epochs=3),
}


def schedule(make: Callable[[Optimizer], Any], lr: Any = 0.1) -> Optimizer:
    model = mlp(64)
    optimizer = t1.parametrize(model, base=mlp(16), optimizer=torch.optim.Adam, lr=lr)
    scheduler = make(optimizer)
    for _ in range(7):
        run(optimizer, model, 1)
        waits = isinstance(scheduler, schedules.ReduceLROnPlateau)
        scheduler.step(1.0) if waits else scheduler.step()
    return optimizer


@pytest.mark.parametrize("name", MULTIPLYING)
def test_every_schedule_of_torch_keeps_the_ratios(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FlattenedRatiosWarning)
        optimizer = schedule(MULTIPLYING[name])
    rates = [g["lr"] / g["lr_factor"] for g in optimizer.param_groups]
    assert len(rates) > 1
    assert rates == pytest.approx([rates[0]] * len(rates), rel=1e-9)


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["float", "tensor"])
@pytest.mark.parametrize("name", FLATTENING)
def test_a_schedule_that_flattens_is_named(name: str, lr: Any) -> None:
    with pytest.warns(FlattenedRatiosWarning, match=r"not in the prescribed ratio.*per_group") as w:
        schedule(FLATTENING[name], lr)
    assert len([one for one in w if one.category is FlattenedRatiosWarning]) == 1


@pytest.fixture
def _own_families() -> Any:
    before = dict(families._REGISTERED)
    yield
    families._REGISTERED.clear()
    families._REGISTERED.update(before)


@pytest.mark.usefixtures("_own_families")
def test_a_family_of_ones_own() -> None:
    class Root(torch.optim.SGD):
        """Steps by the square root of the gradient."""

    register_update_family(
        Root,
        UpdateFamily(name="root", lr_factor=lambda s, _: s.size / s.gradient**0.5),
    )
    p = t1.prescribe(mlp(64), base=mlp(16), optimizer=Root)
    assert [rule.lr_factor for rule in p.rules] == pytest.approx([2, 1 / 2, 1 / 4])
    register_update_family(Root, SIGN)
    p = t1.prescribe(mlp(64), base=mlp(16), optimizer=Root)
    assert [rule.lr_factor for rule in p.rules] == pytest.approx([1, 1 / 4, 1 / 4])


MIXTURE: dict[str, Any] = {
    "hidden": (torch.optim.Muon, {"lr": 0.02}),
    "rest": (torch.optim.AdamW, {"weight_decay": 0.1}),
}


def stepped_by(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, str]:
    """Which optimizer steps each parameter."""
    assert isinstance(optimizer, MixedOptimizer)
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: type(member).__name__
        for member in optimizer.members
        for group in member.param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize("width", [32, 128])
def test_a_mixed_recipe_gives_muon_the_same_matrices_at_the_base_width(width: int) -> None:
    """At the base nothing grows: roles come from a wider model of the task."""
    recipe = make_parametrization("mup", MlpTask(), 32, MIXTURE)
    model = MlpTask().model(width)
    who = stepped_by(recipe(model, width, 0.01), model)
    assert who == {"0.weight": "AdamW", "2.weight": "Muon", "4.weight": "AdamW"}


def test_a_mixed_recipe_of_deeper_models_too() -> None:
    recipe = make_parametrization(
        "mup", DeepTask(), 16, MIXTURE, {"sample": torch.ones(2, 32)}, depth=2
    )
    model = DeepTask().model(16, 6)
    who = stepped_by(recipe(model, 16, 0.01), model)
    muon = {name for name, optimizer in who.items() if optimizer == "Muon"}
    assert muon == {f"blocks.{i}.{layer}.weight" for i in range(6) for layer in ("up", "down")}


@pytest.mark.parametrize("base", [mlp(64), None], ids=["one width", "no base"])
def test_a_mixture_that_shapes_cannot_place_says_how_to(base: Any) -> None:
    model = mlp(64)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RoleError, match=r"role 'hidden', which no parameter has.*Name them: roles"):
        t1.parametrize(model, base=base, optimizer=MIXTURE, lr=0.01)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    built = t1.parametrize(
        model, base=base, optimizer=MIXTURE, lr=0.01, roles={"2.weight": "hidden"}
    )
    assert stepped_by(built, model)["2.weight"] == "Muon"


@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
def test_a_muon_step_has_the_same_spectral_norm_at_every_width(adjust: str | None) -> None:
    """‖ΔW‖₂ = η·√(out/in) up to the few tens of percent that Newton-Schulz leaves."""
    mixture = {**MIXTURE, "hidden": (torch.optim.Muon, {"lr": 0.02, "adjust_lr_fn": adjust})}
    recipe = make_parametrization("mup", MlpTask(), 32, mixture, {"weight_decay": 0.0})
    norms: list[float] = []
    for width in (32, 128, 512):
        model = MlpTask().model(width)
        optimizer = recipe(model, width, 0.01)
        weight = model.get_parameter("2.weight")
        before = weight.detach().clone()
        weight.grad = torch.randn(width, width, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        norms.append(float((weight.detach() - before).square().mean().sqrt()) * width**0.5)
    assert norms == pytest.approx([norms[-1]] * 3, rel=0.25)


@pytest.mark.parametrize("parametrization", ["sp", "mup"])
def test_a_mixture_by_name_is_plain_torch_at_the_base_width(parametrization: str) -> None:
    """Muon on the one matrix between hidden layers, AdamW on the rest: written out by hand."""
    task = MlpTask()
    torch.manual_seed(0)
    plain = task.model(64)
    ours = copy.deepcopy(plain)
    hidden = plain.get_parameter("2.weight")
    rest = [p for p in plain.parameters() if p is not hidden]
    by_hand = [torch.optim.Muon([hidden], lr=0.01), torch.optim.AdamW(rest, lr=0.01)]
    optimizer = make_parametrization(parametrization, task, 64, "Muon+AdamW")(ours, 64, 0.01)
    for batch, _ in zip(task.batches(0), range(10), strict=False):
        for model, optimizers in ((plain, by_hand), (ours, [optimizer])):
            model.zero_grad()
            task.loss(model, batch).backward()
            for one in optimizers:
                one.step()
    assert all(map(torch.equal, plain.parameters(), ours.parameters()))


def test_names_reach_past_torch_and_say_what_they_know() -> None:
    import pytorch_optimizer

    assert optimizer_class("SignSGD") is pytorch_optimizer.SignSGD
    assert optimizer_class("Adam") is torch.optim.Adam  # torch's own comes first
    for name in ("Foo", "lr_scheduler"):
        with pytest.raises(UnknownOptimizerError, match=f"'{name}' is not in torch.optim"):
            optimizer_class(name)


def test_a_subclass_built_first_still_keeps_its_bases_step() -> None:
    class Quiet(torch.optim.SGD):
        """No step of its own; torch wraps the inherited one when the first is built."""

    Quiet.step = torch.optim.Optimizer.profile_hook_step(Quiet.step)
    assert families.update_family(Quiet).name == "gradient"


def test_options_that_a_subclass_leaves_to_its_base_are_scaled() -> None:
    class Brief(torch.optim.AdamW):
        def __init__(self, params: Any, lr: float = 1e-3, **options: Any) -> None:
            super().__init__(params, lr=lr, **{"weight_decay": 0.5, **options})

    def options(cls: Any, **options: Any) -> list[tuple[float, ...]]:
        built = t1.parametrize(mlp(256), base=mlp(64), optimizer=cls, lr=0.01, **options)
        return [(g["lr"], g["eps"], g["weight_decay"]) for g in built.param_groups]

    assert options(Brief) == options(torch.optim.AdamW, weight_decay=0.5)
    assert (0.0025, 2.5e-9, 2.0) in options(Brief)  # hidden, by hand
