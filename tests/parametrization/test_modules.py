"""Roles of every module torch ships, and of what users write themselves, from two widths."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import PrescriptionError, RoleError
from thetaone.parametrization.reading import read_blueprint

R = 4.0  # growth of the width, 32 -> 128


class Conv1D(nn.Module):
    """As in Hugging Face's GPT-2: the weight is (in, out)."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class Experts(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(5, width)
        self.up = nn.Parameter(torch.randn(4, width, 2 * width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bd,edh->ebh", self.inputs(x), self.up)


class Positions(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(9, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.temperature = nn.Parameter(torch.ones(()))
        self.inputs = nn.Linear(5, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x[:, None].expand(-1, 8, -1)) * self.temperature
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding


# (module of a width, {parameter: (role, init factor, Adam factor, SGD factor)})
Expected = dict[str, tuple[str, float, float, float]]
HIDDEN = ("hidden", R**-0.5, 1 / R, 1.0)
INPUT = ("input", 1.0, 1.0, R)
OUTPUT = ("output", 1 / R, 1 / R, 1 / R)
BOTTLENECK = ("bottleneck", 1 / R, 1 / R, 1 / R)
VECTOR = ("vector", 1.0, 1.0, R)
FIXED = ("fixed", 1.0, 1.0, 1.0)

MODULES: dict[str, tuple[Callable[[int], nn.Module], Expected]] = {
    "linear": (lambda w: nn.Linear(w, w), {"weight": HIDDEN, "bias": VECTOR}),
    "readout": (lambda w: nn.Linear(w, 7), {"weight": OUTPUT, "bias": FIXED}),
    "embedding": (lambda w: nn.Embedding(9, w, padding_idx=0, max_norm=1.0), {"weight": INPUT}),
    "bag": (lambda w: nn.EmbeddingBag(9, w), {"weight": INPUT}),
    "conv1d-input": (lambda w: nn.Conv1d(3, w, 5), {"weight": INPUT, "bias": VECTOR}),
    "conv2d-hidden": (lambda w: nn.Conv2d(w, w, 3), {"weight": HIDDEN, "bias": VECTOR}),
    "conv3d-readout": (lambda w: nn.Conv3d(w, 3, 1), {"weight": OUTPUT, "bias": FIXED}),
    "depthwise": (lambda w: nn.Conv2d(w, w, 3, groups=w), {"weight": INPUT, "bias": VECTOR}),
    "grouped": (lambda w: nn.Conv2d(w, w, 3, groups=4), {"weight": HIDDEN}),
    "transposed-input": (lambda w: nn.ConvTranspose2d(3, w, 2), {"weight": INPUT}),
    "transposed-hidden": (lambda w: nn.ConvTranspose3d(w, w, 2), {"weight": HIDDEN}),
    "grouped-input": (lambda w: nn.Conv1d(4, w, 3, groups=2), {"weight": INPUT}),
    "grouped-readout": (lambda w: nn.Conv2d(w, 4, 3, groups=2), {"weight": OUTPUT, "bias": FIXED}),
    "groups-grow": (lambda w: nn.Conv1d(w, w, 3, groups=w // 8), {"weight": INPUT}),
    "instance-norm": (lambda w: nn.InstanceNorm1d(w, affine=True), {"weight": VECTOR}),
    "attention-bias": (
        lambda w: nn.MultiheadAttention(w, w // 8, add_bias_kv=True),
        {"bias_k": VECTOR, "bias_v": VECTOR},
    ),
    "transformer": (
        lambda w: nn.Transformer(w, w // 8, 1, 1, 2 * w, batch_first=True),
        {
            "encoder.layers.0.self_attn.in_proj_weight": HIDDEN,
            "decoder.layers.0.linear2.weight": HIDDEN,
            "decoder.norm.weight": VECTOR,
        },
    ),
    "bidirectional": (
        lambda w: nn.GRU(5, w, 2, bidirectional=True),
        {"weight_ih_l0_reverse": INPUT, "weight_ih_l1": HIDDEN, "weight_hh_l1_reverse": HIDDEN},
    ),
    "transposed-readout": (lambda w: nn.ConvTranspose1d(w, 3, 2), {"weight": OUTPUT}),
    "transposed-grouped": (lambda w: nn.ConvTranspose1d(w, w, 2, groups=4), {"weight": HIDDEN}),
    "attention": (
        lambda w: nn.MultiheadAttention(w, w // 8),
        {"in_proj_weight": HIDDEN, "in_proj_bias": VECTOR, "out_proj.weight": HIDDEN},
    ),
    "attention-separate": (
        lambda w: nn.MultiheadAttention(w, w // 8, kdim=6, vdim=7),
        {"q_proj_weight": HIDDEN, "k_proj_weight": INPUT, "v_proj_weight": INPUT},
    ),
    "encoder": (
        lambda w: nn.TransformerEncoderLayer(w, w // 8, 4 * w),
        {"linear1.weight": HIDDEN, "linear2.weight": HIDDEN, "norm1.weight": VECTOR},
    ),
    "decoder": (
        lambda w: nn.TransformerDecoderLayer(w, w // 8, 4 * w),
        {"multihead_attn.in_proj_weight": HIDDEN, "norm3.bias": VECTOR},
    ),
    "lstm": (
        lambda w: nn.LSTM(5, w, 2, proj_size=w // 2),
        {
            "weight_ih_l0": INPUT,
            "weight_hh_l0": HIDDEN,
            "weight_hr_l0": HIDDEN,
            "weight_ih_l1": HIDDEN,
            "bias_hh_l1": VECTOR,
        },
    ),
    "rnn": (lambda w: nn.RNN(5, w), {"weight_ih_l0": INPUT, "weight_hh_l0": HIDDEN}),
    "gru-cell": (lambda w: nn.GRUCell(w, w), {"weight_ih": HIDDEN, "bias_ih": VECTOR}),
    "bilinear": (
        lambda w: nn.Bilinear(w, w, w),
        {"weight": ("hidden", 1 / R, R**-2, 1 / R), "bias": VECTOR},
    ),
    "bilinear-readout": (
        lambda w: nn.Bilinear(w, w, 3),
        {"weight": ("output", R**-1.5, R**-2, R**-2), "bias": FIXED},
    ),
    "bilinear-input": (
        lambda w: nn.Bilinear(5, w, w),
        {"weight": HIDDEN, "bias": VECTOR},
    ),
    "layer-norm": (lambda w: nn.LayerNorm(w), {"weight": VECTOR, "bias": VECTOR}),
    "batch-norm": (lambda w: nn.BatchNorm2d(w), {"weight": VECTOR, "bias": VECTOR}),
    "group-norm": (lambda w: nn.GroupNorm(2, w), {"weight": VECTOR}),
    "rms-norm": (lambda w: nn.RMSNorm(w), {"weight": VECTOR}),
    "no affine": (lambda w: nn.LayerNorm(w, elementwise_affine=False), {}),
    "prelu": (lambda w: nn.PReLU(w), {"weight": VECTOR}),
    "positions": (
        Positions,
        {"pos_embedding": VECTOR, "cls_token": VECTOR, "temperature": FIXED},
    ),
    "adapter": (
        lambda w: nn.Sequential(nn.Linear(w, 2, bias=False), nn.Linear(2, w, bias=False)),
        {"0.weight": BOTTLENECK, "1.weight": INPUT},
    ),
    "experts": (Experts, {"up": HIDDEN}),
    "hugging face conv1d": (lambda w: Conv1D(w, 3 * w), {"weight": HIDDEN, "bias": VECTOR}),
    "hugging face readout": (lambda w: Conv1D(w, 7), {"weight": OUTPUT, "bias": FIXED}),
    "weight norm": (
        lambda w: nn.utils.parametrizations.weight_norm(nn.Linear(w, 7)),
        {
            "parametrizations.weight.original1": OUTPUT,
            "parametrizations.weight.original0": ("fixed", R**-0.5, R**-0.5, 1 / R),
        },
    ),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_the_older_weight_norm_is_read_like_the_newer() -> None:
    def make(width: int) -> nn.Module:
        return nn.utils.weight_norm(nn.Linear(width, 7))

    p = t1.prescribe(make(128), base=make(32), optimizer=torch.optim.Adam)
    assert (p["weight_v"].role, p["weight_v"].lr_factor) == ("output", 1 / R)
    assert (p["weight_g"].role, p["weight_g"].init_factor) == ("fixed", R**-0.5)
    with pytest.raises(RoleError, match=r"weight_orig .* holds its norm at 1 whatever the width"):
        t1.prescribe(
            nn.utils.spectral_norm(nn.Linear(128, 7)), base=nn.utils.spectral_norm(nn.Linear(32, 7))
        )


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", MODULES)
def test_roles_and_factors(name: str, device: str) -> None:
    make, expected = MODULES[name]
    target, base = make(128).to(device), make(32)
    adam = t1.prescribe(target, base=base, optimizer=torch.optim.Adam)
    sgd = t1.prescribe(target, base=base, optimizer=torch.optim.SGD)
    for parameter, (role, init, adam_rate, sgd_rate) in expected.items():
        rule = adam[parameter]
        assert rule.role == role
        assert rule.init_factor == pytest.approx(init, rel=1e-12)
        assert rule.lr_factor == pytest.approx(adam_rate, rel=1e-12)
        assert sgd[parameter].lr_factor == pytest.approx(sgd_rate, rel=1e-12)


def test_every_site_has_a_rule() -> None:
    for make, _ in MODULES.values():
        names = [name for name, _ in make(128).named_parameters()]
        rules = t1.prescribe(make(128), base=make(32)).rules
        assert sorted(rule.name for rule in rules) == sorted(names)


class Attention(nn.Module):
    """One head of the full width: heads grow."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return (self.query(x) @ self.key(x).mT * self.scale).softmax(-1) @ x


@pytest.mark.parametrize(
    ("exponent", "fold"), [(-0.5, R**-0.5), (0.0, 1 / R), (-1.0, 1.0)], ids=["1/sqrt d", "1", "1/d"]
)
def test_growing_heads_fold_into_the_query(exponent: float, fold: float) -> None:
    p = t1.prescribe(Attention(128, 128**exponent), base=Attention(32, 32**exponent))
    assert p["query.weight"].lr_factor == pytest.approx(fold / R)
    assert p["query.weight"].init_factor == pytest.approx(fold * R**-0.5)
    assert p["query.bias"].lr_factor == pytest.approx(fold)
    assert p["key.weight"].lr_factor == pytest.approx(1 / R)


def test_another_parametrization_is_refused() -> None:
    def make(width: int) -> nn.Module:
        return nn.utils.parametrizations.orthogonal(nn.Linear(width, width))

    with pytest.raises(RoleError, match=r"function of its entries"):
        t1.prescribe(make(64), base=make(16))


def test_two_uses_of_one_tensor_are_named() -> None:
    class Shared(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.a = nn.Linear(width, 4, bias=False)
            self.b = Conv1D(4, width)
            self.b.register_parameter("weight", self.a.get_parameter("weight"))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) + self.a.weight.flatten()[: x.shape[-1]]

    with pytest.raises(RoleError, match=r"a\.weight .*by mm \(matrix\) and add \(vector\)"):
        t1.prescribe(Shared(64), base=Shared(16))


def test_a_layer_used_twice_has_one_rule() -> None:
    class Twice(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first = nn.Linear(width, width)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    assert [r.name for r in t1.prescribe(Twice(64), base=Twice(16)).rules] == [
        "first.weight",
        "first.bias",
    ]


def test_a_meta_base_is_measured_by_its_own_initializer() -> None:
    def make(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(32, width), nn.LayerNorm(width), nn.Linear(width, width))

    with torch.device("meta"):
        meta = make(256)
    known = t1.prescribe(make(1024), base=make(256))
    found = t1.prescribe(make(1024), base=meta)
    for rule in known.rules:
        assert found[rule.name].init_std == pytest.approx(rule.init_std, rel=0.15)
    custom = make(1024)
    nn.init.normal_(custom.get_parameter("2.weight"), std=0.1)
    with pytest.raises(PrescriptionError, match=r"2\.weight: the base is on the meta device"):
        t1.prescribe(custom, base=meta)


@pytest.mark.parametrize(
    "wrap", [partial(torch.compile, backend="eager"), nn.DataParallel], ids=["compile", "wrapper"]
)
def test_wrappers_do_not_change_names(wrap: Any) -> None:
    wrapped = wrap(nn.Sequential(nn.Linear(64, 64)))
    assert [site.name for site in read_blueprint(wrapped).sites] == ["0.weight", "0.bias"]
    p = t1.prescribe(wrapped, base=nn.Sequential(nn.Linear(16, 16)))
    assert p["0.weight"].lr_factor == 0.25
