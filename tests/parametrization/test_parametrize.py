"""What ``parametrize`` does to values and groups, against plain torch and hand-computed figures."""

import copy
import io
import re
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from pytorch_optimizer import (
    SOAP,
    Lamb,
    Lion,
    ScheduleFreeAdamW,
    ScheduleFreeRAdam,
    ScheduleFreeSGD,
    SignSGD,
)
from small_tasks import TiedModel, mlp
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import (
    InputError,
    MismatchError,
    PrescriptionError,
    RoleError,
    UnknownOptimizerError,
)
from thetaone.parametrization._scaling import ScaleInput
from thetaone.parametrization.applying._mixed_optimizer import MixedOptimizer
from thetaone.parametrization.reading import rms_of
from thetaone.records import Prescription

OPTIMIZERS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (torch.optim.Adam, {"weight_decay": 0.01}),
    (torch.optim.AdamW, {"betas": (0.8, 0.9)}),
    (torch.optim.NAdam, {}),
    (torch.optim.RAdam, {}),
    (torch.optim.Adamax, {}),
    (torch.optim.RMSprop, {"momentum": 0.5}),
    (torch.optim.Adagrad, {"initial_accumulator_value": 0.1}),
    (torch.optim.Adafactor, {}),
    (torch.optim.Muon, {}),
    (torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"}),
    (Lion, {"weight_decay": 0.01}),
    (SignSGD, {}),
    (Lamb, {}),
    (SOAP, {}),
    (ScheduleFreeSGD, {}),
    (ScheduleFreeAdamW, {}),
    (ScheduleFreeRAdam, {}),
]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 10) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    losses: list[float] = []
    for _ in range(steps):
        x = torch.randn(16, 32, generator=generator)
        loss = F.cross_entropy(model(x), torch.arange(16) % 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("cls", "options"), OPTIMIZERS, ids=lambda v: getattr(v, "__name__", ""))
def test_base_width_is_bit_identical_to_plain_torch(cls: Any, options: dict[str, Any]) -> None:
    plain = mlp(48)
    ours = copy.deepcopy(plain)
    expected = train(plain, cls(plain.parameters(), lr=0.01, **options))
    built = t1.parametrize(ours, base=mlp(48), optimizer=cls, lr=0.01, **options)
    assert type(built) is cls
    assert train(ours, built) == expected
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_rates_by_hand() -> None:
    model, base = mlp(256, bias=True), mlp(64, bias=True)
    p = t1.prescribe(model, base=base, optimizer=torch.optim.AdamW)
    roles = [rule.role for rule in p.rules]
    assert roles == ["input", "vector", "hidden", "vector", "output", "fixed"]
    assert [rule.lr_factor for rule in p.rules] == [1, 1, 0.25, 1, 0.25, 1]
    assert [rule.eps_factor for rule in p.rules] == [0.25, 0.25, 0.25, 0.25, 1, 1]
    sgd = t1.prescribe(model, base=base, optimizer=torch.optim.SGD)
    assert [rule.lr_factor for rule in sgd.rules] == [4, 4, 1, 4, 0.25, 1]


def test_groups_are_few_and_carry_rates_eps_and_decay() -> None:
    optimizer = t1.parametrize(
        mlp(256, bias=True),
        base=mlp(64, bias=True),
        optimizer=torch.optim.AdamW,
        lr=0.5,
        eps=1e-6,
        weight_decay=0.1,
    )
    seen = [
        (g["lr"], g["eps"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups
    ]
    assert seen == [
        (0.5, pytest.approx(2.5e-7), 0.1, 3),
        (0.125, pytest.approx(2.5e-7), pytest.approx(0.4), 1),
        (0.125, 1e-6, pytest.approx(0.4), 1),
        (0.5, 1e-6, 0.1, 1),
    ]


def test_initial_sizes_follow_the_base_whatever_the_initializer() -> None:
    def constant(width: int) -> nn.Module:
        torch.manual_seed(width)
        model = mlp(width)
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.02)
        return model

    for make in (mlp, constant):
        base, model = make(64), make(1024)
        before = [weight.detach().clone() for weight in model.parameters()]
        t1.parametrize(model, base=base, lr=0.1)
        sizes = [
            rms_of(new) / rms_of(old)
            for new, old in zip(model.parameters(), base.parameters(), strict=True)
        ]
        assert sizes == pytest.approx([1, 1 / 4, 1 / 16], rel=1e-5)
        for old, new in zip(before, model.parameters(), strict=True):
            cosine = F.cosine_similarity(old.flatten(), new.detach().flatten(), dim=0)
            assert cosine.item() == pytest.approx(1, abs=1e-4)


def test_twice_is_once() -> None:
    model, base = TiedModel(64), TiedModel(16)
    t1.parametrize(model, base=base, lr=0.1)
    once = copy.deepcopy(model.state_dict())
    t1.parametrize(model, base=base, lr=0.1)
    assert all(torch.allclose(v, once[k], rtol=1e-6) for k, v in model.state_dict().items())
    assert not model.readout._forward_pre_hooks


def test_a_tied_readouts_factor_is_folded_into_the_layer_before_it() -> None:
    model, base = TiedModel(64), TiedModel(16)
    plain = copy.deepcopy(model)
    p = t1.prescribe(model, base=base, optimizer=torch.optim.Adam)
    assert [(r.role, r.fold, r.lr_factor) for r in p.rules] == [
        ("input", 1.0, 1.0),
        ("hidden", 0.25, 0.0625),
        ("vector", 0.25, 0.25),
    ]
    assert {r.multiplier for r in p.rules} == {1.0}
    t1.parametrize(model, base=base, lr=0.1)
    plain.load_state_dict(model.state_dict())
    tokens = torch.arange(50)
    assert torch.allclose(model(tokens), plain(tokens), atol=1e-6)
    same = t1.parametrize(base, base=TiedModel(16), lr=0.1)
    assert not base.readout._forward_pre_hooks
    assert len(same.param_groups) == 1


def test_nothing_is_stored_on_parameters_and_no_layer_is_replaced() -> None:
    model = mlp(128)
    layers = [type(m) for m in model.modules()]
    before = [set(vars(p)) for p in model.parameters()]
    t1.parametrize(model, base=mlp(32), lr=0.1)
    assert [type(m) for m in model.modules()] == layers
    assert [set(vars(p)) for p in model.parameters()] == before
    assert not any(isinstance(h, ScaleInput) for m in model for h in m._forward_pre_hooks.values())


def test_state_dict_and_pickle_round_trip() -> None:
    model, base = mlp(128), mlp(32)
    optimizer = t1.parametrize(model, base=base, lr=0.01)
    train(model, optimizer, 3)
    buffer = io.BytesIO()
    torch.save({"model": model, "optimizer": optimizer.state_dict()}, buffer)
    expected = train(model, optimizer, 3)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=False)
    again = t1.parametrize(saved["model"], base=base, lr=0.01, rescale=False)
    again.load_state_dict(saved["optimizer"])
    assert train(saved["model"], again, 3) == expected


def test_a_factory_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    target = nn.Linear(64, 64, device="meta")
    t1.prescribe(target, base=lambda: nn.Linear(16, 16))
    assert torch.equal(torch.randn(4), expected)


def test_a_saved_prescription_is_a_base() -> None:
    model, base = mlp(128), mlp(32)
    saved = Prescription.from_json(t1.prescribe(model, base=base).to_json())
    one = t1.parametrize(copy.deepcopy(model), base=base, lr=0.1)
    other = t1.parametrize(model, base=saved, lr=0.1)
    assert [g["lr"] for g in one.param_groups] == [g["lr"] for g in other.param_groups]


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "Muon+AdamW"])
def test_from_wide_to_narrow_is_the_way_back(optimizer: str) -> None:
    """Either width may be the base: the factors of one way are the inverses of the other's."""
    roles = {"2.weight": "hidden"} if optimizer == "Muon+AdamW" else {}
    up = t1.prescribe(mlp(128), base=mlp(32), optimizer=optimizer, roles=roles)
    down = t1.prescribe(mlp(32), base=mlp(128), optimizer=optimizer, roles=roles)
    for one, other in zip(up.rules, down.rules, strict=True):
        assert (one.role, one.name) == (other.role, other.name)
        for factor in ("init_factor", "lr_factor", "eps_factor", "decay_factor"):
            assert getattr(one, factor) * getattr(other, factor) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("model", "base", "error", "message"),
    [
        (
            lambda: nn.Linear(32, 64),
            lambda: nn.Linear(64, 32),
            MismatchError,
            r"one axis grows and another shrinks",
        ),
        (
            lambda: nn.Embedding(60, 64),
            lambda: nn.Embedding(50, 64),
            MismatchError,
            r"50 rows in the base and 60 in the target",
        ),
        (
            lambda: nn.Linear(64, 64),
            lambda: nn.Linear(16, 16, bias=False),
            MismatchError,
            r"bias \(64,\) has no counterpart",
        ),
        (
            lambda: nn.Linear(64, 64, bias=False),
            lambda: nn.Linear(16, 16),
            MismatchError,
            r"bias \(16,\) of the base is missing",
        ),
        (
            lambda: nn.Sequential(*(nn.Linear(64, 64) for _ in range(3)), nn.Linear(64, 10)),
            lambda: nn.Sequential(*(nn.Linear(16, 16) for _ in range(2)), nn.Linear(16, 10)),
            MismatchError,
            r"cannot be told apart",
        ),
    ],
)
def test_bad_pairs(model: Any, base: Any, error: type[Exception], message: str) -> None:
    target = model()
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(error, match=message):
        t1.parametrize(target, base=base(), lr=0.1)
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


class Raw(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs, self.mixing = nn.Linear(5, width), nn.Parameter(torch.randn(8, width))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.inputs(x)[:1, :3].expand(8, 3).reshape(1, 8, 3)
        return F.conv1d(self.mixing[None], kernel)


def test_an_open_role_names_the_override_and_the_override_works() -> None:
    with pytest.raises(
        RoleError, match=r"mixing .*its axes allow input, .*vector.*roles=\{'mixing'"
    ):
        t1.prescribe(Raw(64), base=Raw(16))
    for role, factor in {"vector": 1.0, "output": 0.25}.items():
        p = t1.prescribe(Raw(64), base=Raw(16), roles={"mix*": role})
        assert (p["mixing"].role, p["mixing"].lr_factor) == (role, factor)


def test_frozen_nan_and_foreign() -> None:
    frozen = mlp(64)
    frozen.get_parameter("0.weight").requires_grad_(False)
    with pytest.raises(PrescriptionError, match=r"0\.weight is frozen.*frozen='skip'"):
        t1.parametrize(frozen, base=mlp(16), lr=0.1)
    optimizer = t1.parametrize(frozen, base=mlp(16), lr=0.1, frozen="skip")
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 2

    broken = mlp(64)
    with torch.no_grad():
        broken.get_parameter("4.weight")[0, 0] = float("nan")
    before = broken.get_parameter("0.weight").detach().clone()
    with pytest.raises(PrescriptionError, match=r"4\.weight holds NaN or inf"):
        t1.parametrize(broken, base=mlp(16), lr=0.1)
    assert torch.equal(broken.get_parameter("0.weight"), before)

    saved = t1.prescribe(mlp(64), base=mlp(16))
    with pytest.raises(MismatchError, match=r"0\.weight is \(128, 32\) and the presc"):
        t1.parametrize(mlp(128), base=saved, lr=0.1)
    grown = mlp(64)
    grown.append(nn.Linear(10, 10))
    with pytest.raises(MismatchError, match=r"5\.weight .* has no rule.*added later"):
        t1.parametrize(grown, base=saved, lr=0.1)


def test_optimizer_mistakes() -> None:
    with pytest.raises(UnknownOptimizerError, match=r"'Adamm' is not in torch\.optim"):
        t1.prescribe(mlp(64), base=mlp(16), optimizer="Adamm")
    with pytest.raises(UnknownOptimizerError, match=r"LBFGS belongs to no known update family"):
        t1.prescribe(mlp(64), base=mlp(16), optimizer=torch.optim.LBFGS)
    built = torch.optim.AdamW(mlp(64).parameters())
    with pytest.raises(UnknownOptimizerError, match=r"pass the class"):
        t1.prescribe(mlp(64), base=mlp(16), optimizer=built)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "option", "meant"),
    [
        (t1.prescribe, {"role": {}}, "roles"),
        (t1.prescribe, {"beta": (0.9, 0.99)}, "betas"),
        (t1.parametrize, {"fold": {}}, "folds"),
        (t1.parametrize, {"depth": 1.0}, "depth_exponent"),
        (t1.parametrize, {"weight_decays": 0.1}, "weight_decay"),
    ],
)
def test_a_misspelt_option_names_the_argument_meant(call, option, meant) -> None:
    rate = {"lr": 0.1} if call is t1.parametrize else {}
    name = f"{call.__name__}.. has no argument {next(iter(option))!r}.*did you mean {meant!r}"
    with pytest.raises(InputError, match=name):
        call(mlp(64), base=mlp(32), **rate, **option)


def test_an_option_of_a_mixture_goes_to_the_class_that_takes_it() -> None:
    mixture = {"hidden": torch.optim.Muon, "rest": torch.optim.AdamW}
    options = {"roles": {"2.weight": "hidden"}, "momentum": 0.8, "betas": (0.8, 0.5)}
    optimizer = t1.parametrize(mlp(64), base=mlp(32), optimizer=mixture, lr=0.1, **options)
    muon, adam = cast(MixedOptimizer, optimizer).members
    assert muon.param_groups[0]["momentum"] == 0.8
    assert adam.param_groups[0]["betas"] == (0.8, 0.5)


def test_at_the_base_width_one_number_stays_too() -> None:
    """A readout of one output draws its bias: a single number, and no constant."""
    model, base = (nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)) for _ in range(2))
    before = [p.detach().clone() for p in model.parameters()]
    t1.parametrize(model, base=base, optimizer=torch.optim.Adam, lr=0.01)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class SummedLayers(nn.Module):
    """Alike layers, of which some are also summed into what comes out."""

    def __init__(self, width: int, summed: tuple[int, ...]) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(16, width), nn.Linear(width, 8)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.summed = summed

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for layer in self.layers:
            x = layer(x).relu()
        sums = [cast(nn.Linear, self.layers[index]).weight.sum() for index in self.summed]
        return self.out(x) + sum(sums)


@pytest.mark.parametrize(("summed", "pattern"), [((2,), "layers.2"), ((0, 1, 2, 3), "layers.*")])
def test_a_cure_names_only_parameters_with_its_problem(
    summed: tuple[int, ...], pattern: str
) -> None:
    wide, narrow = SummedLayers(64, summed), SummedLayers(16, summed)
    cure = re.escape(f"roles={{'{pattern}.weight': …}}")
    with pytest.raises(RoleError, match=f"grow differently with width.*{cure}"):
        t1.prescribe(wide, base=narrow, sample=(torch.randn(2, 16),))
