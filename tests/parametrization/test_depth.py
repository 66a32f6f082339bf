"""Depth: branches are found, the folded factor is the multiplier exactly, depth 4 to 64 agree."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, require_names
from small_tasks import Block, DeepModel, DeepTask
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import InputError, MismatchError, RoleError, TaskError
from thetaone.parametrization._names import wildcard
from thetaone.parametrization._scaling import ScaleOutput
from thetaone.parametrization.reading import read_branches
from thetaone.records import FEATURE_UPDATE, UPDATE_NORM, WEIGHT_NORM

WIDTH, SHALLOW, DEEP = 16, 2, 8
R = DEEP / SHALLOW
ENDS = ("blocks.*.down.weight", "blocks.*.down.bias")
X = torch.randn(12, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[float]:
    losses: list[float] = []
    for _ in range(steps):
        loss = F.cross_entropy(model(X), torch.arange(12) % 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# what each parameter of a branch gets when the forward pass multiplies it: factor on (rate, ε)
MULTIPLIED: dict[str, Callable[[float], tuple[float, float]]] = {
    "SGD": lambda a: (R ** (2 * a - 1), 1.0),
    "Adam": lambda a: (R ** (a - 1), R**-a),
    "AdamW": lambda a: (R ** (a - 1), R**-a),
    "RMSprop": lambda a: (R ** (a - 1), R**-a),
}


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("name", MULTIPLIED)
def test_folding_is_exactly_the_multiplier_of_completep(name: str, exponent: float) -> None:
    """x + r^-α F(x) with the published rates and ε, against plain code with folded weights."""
    torch.manual_seed(0)
    cls: Any = getattr(torch.optim, name)
    ours = DeepModel(WIDTH, DEEP).double()
    eps: dict[str, Any] = {} if name == "SGD" else {"eps": 1e-3}  # large, so that a wrong ε shows
    built = t1.parametrize(
        ours,
        base=DeepModel(WIDTH, SHALLOW).double(),
        optimizer=cls,
        lr=0.01,
        depth_exponent=exponent,
        **eps,
    )
    theirs = DeepModel(WIDTH, DEEP, factor=R**-exponent).double()
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        for block in theirs.blocks:
            for p in block.get_submodule("down").parameters():
                p.mul_(R**exponent)
    rate, epsilon = MULTIPLIED[name](exponent)
    inside = list(theirs.blocks.parameters())
    rest = [p for k, p in theirs.named_parameters() if not k.startswith("blocks")]
    scaled: dict[str, Any] = {"params": inside, "lr": 0.01 * rate}
    scaled |= {"eps": eps["eps"] * epsilon} if eps else {}
    decay = {"weight_decay": 0.0} if name == "AdamW" else {}
    other = cls([{"params": rest}, scaled], lr=0.01, **eps, **decay)
    for group in built.param_groups:
        group.update(decay)
    torch.testing.assert_close(train(ours, built), train(theirs, other), rtol=1e-9, atol=0)


def test_decay_shrinks_a_folded_weight_as_fast_as_any() -> None:
    optimizer = t1.parametrize(
        DeepModel(WIDTH, DEEP), base=DeepModel(WIDTH, SHALLOW), lr=0.5, weight_decay=0.1
    )
    assert {round(g["lr"] * g["weight_decay"], 12) for g in optimizer.param_groups} == {0.05}


def test_only_the_ends_change_for_adam_and_the_rest_is_as_it_was() -> None:
    p = t1.prescribe(DeepModel(4 * WIDTH, DEEP), base=DeepModel(WIDTH, SHALLOW))
    assert p["blocks.5.down.weight"].lr_factor == pytest.approx(1 / 4 / R)
    assert p["blocks.5.down.weight"].init_factor == pytest.approx(0.5 / R)
    assert p["blocks.5.down.bias"].lr_factor == pytest.approx(1 / R)
    assert p["blocks.5.up.weight"].lr_factor == pytest.approx(1 / 4)
    assert p["blocks.5.up.weight"].eps_factor == pytest.approx(1 / 4 / R)
    assert p["blocks.5.norm.weight"].lr_factor == 1.0
    assert [p[n].lr_factor for n in ("first.weight", "norm.weight")] == [1.0, 1.0]
    left = t1.prescribe(DeepModel(WIDTH, DEEP), base=DeepModel(WIDTH, SHALLOW), depth_exponent=None)
    assert {rule.lr_factor for rule in left.rules} == {1.0}


class Gated(nn.Module):
    """A branch that is linear in none of its parameters: its output is hooked."""

    def __init__(self, width: int, depth: int, factor: float = 1.0) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Sigmoid()) for _ in range(depth)
        )
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = x + self.factor * branch(x)
        return x


def test_a_branch_that_ends_in_no_parameter_is_hooked() -> None:
    x = torch.randn(3, 32)
    model, base = Gated(32, 8), Gated(32, 2)
    t1.parametrize(model, base=base, lr=0.1)
    by_hand = Gated(32, 8, factor=0.25)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*output_factor"):  # not another model
        by_hand.load_state_dict(model.state_dict())
    by_hand.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(model(x), by_hand(x))
    t1.parametrize(model, base=base, lr=0.1)  # twice is once
    torch.testing.assert_close(copy.deepcopy(model)(x), by_hand(x))
    t1.parametrize(model, base=Gated(32, 8), lr=0.1)
    assert not any(
        isinstance(h, ScaleOutput) for m in model.modules() for h in m._forward_hooks.values()
    )


def test_a_factor_that_the_model_has_already_is_not_applied_twice() -> None:
    def make(depth: int) -> DeepModel:
        return DeepModel(WIDTH, depth, factor=1 / depth)

    p = t1.prescribe(make(DEEP), base=make(SHALLOW))
    assert p["blocks.0.down.weight"].init_factor == pytest.approx(1.0)
    assert p["blocks.0.down.weight"].lr_factor == pytest.approx(1.0)
    assert p["blocks.0.down.weight"].eps_factor == pytest.approx(1 / R)


def test_names_do_what_finding_does() -> None:
    found = t1.prescribe(DeepModel(WIDTH, DEEP), base=DeepModel(WIDTH, SHALLOW))
    for patterns in (["blocks.*.down"], ["*.down.weight", "*.down.bias"]):
        named = t1.prescribe(
            DeepModel(WIDTH, DEEP), base=DeepModel(WIDTH, SHALLOW), branches=patterns
        )
        assert [r.lr_factor for r in named.rules] == [r.lr_factor for r in found.rules]
        assert [r.eps_factor for r in named.rules] == [r.eps_factor for r in found.rules]
    hooked = t1.prescribe(Gated(32, 8), base=Gated(32, 2), branches=["branches.*.1"])
    assert hooked.outputs == {"branches.*.1": 0.25}


# architecture -> modules that end a branch, written down by hand
HUGGING_FACE = {
    "Llama": {"model.layers.*.self_attn.o_proj", "model.layers.*.mlp.down_proj"},
    "GPT-2": {"transformer.h.*.attn.c_proj", "transformer.h.*.mlp.c_proj"},
    "GPT-NeoX": {"gpt_neox.layers.*.attention.dense", "gpt_neox.layers.*.mlp.dense_4h_to_h"},
    "Mixtral": {"model.layers.*.self_attn.o_proj", "model.layers.*.mlp.experts"},
    "BERT": {"bert.encoder.layer.*.attention.output.dense", "bert.encoder.layer.*.output.dense"},
    "T5": {  # its shared position bias is added in every layer, and is no stream
        "encoder.block.*.layer.*.SelfAttention.o",
        "encoder.block.*.layer.*.DenseReluDense.wo",
        "decoder.block.*.layer.*.SelfAttention.o",
        "decoder.block.*.layer.*.EncDecAttention.o",
        "decoder.block.*.layer.*.DenseReluDense.wo",
    },
    "ViT": {"vit.layers.*.attention.o_proj", "vit.layers.*.mlp.fc2"},
    "Whisper": {
        "model.encoder.layers.*.self_attn.out_proj",
        "model.encoder.layers.*.fc2",
        "model.decoder.layers.*.self_attn.out_proj",
        "model.decoder.layers.*.encoder_attn.out_proj",
        "model.decoder.layers.*.fc2",
    },
    "Mamba": {"backbone.layers.*.mixer.out_proj"},
}


@pytest.mark.parametrize("name", HUGGING_FACE)
@pytest.mark.float32
def test_branches_of_hugging_face_models_are_found_without_a_sample(name: str) -> None:
    require_names(name)
    branches = read_branches(ARCHITECTURES[name].model(64))
    ends = {wildcard(end) for branch in branches for end in branch.ends}
    assert {end.rpartition(".")[0] for end in ends} == HUGGING_FACE[name]
    if name in ("T5", "Whisper"):  # cross-attention needs the encoder, which is no part of it
        decoder = [b for b in branches if any("decoder" in end for end in b.ends)]
        assert not any("encoder.b" in n or "encoder.l" in n for b in decoder for n in b.inside)


def torch_stack(width: int, depth: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


class Convolutions(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.mark.parametrize(
    ("make", "ends"),
    [
        (torch_stack, {"layers.*.self_attn.out_proj.weight", "layers.*.linear2.weight"}),
        (Convolutions, {"blocks.*.2.weight"}),
    ],
)
def test_branches_of_torchs_own_layers(make: Any, ends: set[str]) -> None:
    model = make(16, 3)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(1)
    expected = torch.randn(2)
    torch.manual_seed(1)
    branches = read_branches(model)
    found = {end for branch in branches for end in branch.ends if end.endswith("weight")}
    assert found == {end.replace("*", str(i)) for i in range(3) for end in ends}
    assert torch.equal(torch.randn(2), expected)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # BatchNorm's too
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks for m in model.modules())


class Plain(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x


class TwoInputs(DeepModel):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # pyright: ignore
        return super().forward(x + y)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (Plain, {}, RoleError, r"layers\.\*\..* is found 3 times as often .* no residual branch"),
        (lambda d: TwoInputs(8, d), {}, RoleError, r"failed on guessed inputs .*Pass sample="),
        (lambda d: DeepModel(8, d), {"sample": X[:, :3].float()}, RoleError, r"failed on sample="),
        (lambda d: DeepModel(8, d), {"branches": ["*.out"]}, RoleError, r"'\*\.out' matches no"),
        (lambda d: DeepModel(8, d), {"depth_exponent": 2}, InputError, r"depth_exponent=2: choose"),
        (
            lambda d: nn.Sequential(*(Block(8) if i % 2 else Swapped(8) for i in range(2 * d))),
            {},
            MismatchError,
            r"ends one residual branch and lies inside another",
        ),
    ],
)
def test_what_cannot_be_decided_says_what_to_do(
    make: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    target = make(6)
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(error, match=message):
        t1.parametrize(target, base=make(2), lr=0.1, **options)
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


class Swapped(Block):
    """Names ``up`` what ``Block`` names ``down``."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.relu(self.down(self.norm(x))))


def test_the_advice_works() -> None:
    inputs = (torch.randn(2, 32), torch.randn(2, 32))
    by_tuple = t1.prescribe(TwoInputs(8, 6), base=TwoInputs(8, 2), sample=inputs)
    by_call = t1.prescribe(TwoInputs(8, 6), base=TwoInputs(8, 2), sample=lambda m: m(*inputs))
    assert [r.lr_factor for r in by_tuple.rules] == [r.lr_factor for r in by_call.rules]
    assert by_tuple["blocks.0.down.weight"].lr_factor == pytest.approx(1 / 3)
    left = t1.prescribe(Plain(6), base=Plain(2), depth_exponent=None)
    assert {rule.lr_factor for rule in left.rules} == {1.0}


@pytest.mark.slow
def test_the_check_over_depths_passes_completep_and_names_an_unscaled_branch() -> None:
    options: dict[str, Any] = {"widths": [32], "depths": (2, 8, 32), "lr": 2**-9, "seeds": 2}
    right = t1.coordinate_check(DeepTask(), optimizer="Adam", **options)
    assert right.passed, str(right)
    assert (right.axis, right.sizes) == ("depth", (2, 8, 32))
    for parametrization in ("sp", lambda m, w, lr: torch.optim.Adam(m.parameters(), lr=lr)):
        wrong = t1.coordinate_check(
            DeepTask(), optimizer="Adam", parametrization=parametrization, **options
        )
        own = {(r.layer, r.quantity) for r in wrong.failures if r.quantity != FEATURE_UPDATE}
        assert {("blocks.*.down", WEIGHT_NORM), ("blocks.*.down", UPDATE_NORM)} <= own
        assert "residual branch without its factor" in str(wrong)
        assert "blocks.*" in wrong.failed_layers  # the stream itself


class OwnFactor(DeepTask):
    """A model whose own code multiplies with 1/depth is right under plain torch, but for ε."""

    def model(self, width: int, depth: int = 4) -> nn.Module:
        return DeepModel(width, depth, factor=4 / depth)


def test_a_models_own_factor_is_right_as_it_is() -> None:
    check = t1.coordinate_check(
        OwnFactor(),
        widths=[32],
        depths=(4, 16, 64),
        lr=2**-9,
        optimizer="Adam",
        parametrization="sp",
        seeds=2,
    )
    assert check.passed, str(check)


class InFront(nn.Module):
    """A block whose model's own 1/depth stands in front of its last layer."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.up, self.down, self.depth = nn.Linear(8, 8), nn.Linear(8, 8), depth

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu() / self.depth)


def test_a_factor_in_front_of_a_branchs_end_is_not_applied_twice() -> None:
    deep, shallow = (nn.Sequential(*(InFront(n) for _ in range(n))) for n in (8, 2))
    rules = t1.prescribe(deep, base=shallow, sample=torch.randn(3, 8), optimizer="Adam")
    assert (rules["5.down.weight"].fold, rules["5.down.bias"].fold) == (1.0, 1 / 4)


class Adds(nn.Module):
    """A residual connection in one spelling."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.up, self.down, self.how = nn.Linear(8, 8), nn.Linear(8, 8), how

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x).relu()
        if self.how == "addmm":
            return torch.addmm(x, h, self.down.weight.T) + self.down.bias
        if self.how == "addmm, scaled":
            return torch.addmm(x, h, self.down.weight.T, alpha=0.5) + 0.5 * self.down.bias
        if self.how == "where":
            return torch.where(x > 0, x + self.down(h), x)
        if self.how == "cat":
            return torch.cat([x[..., None], self.down(h)[..., None]], -1).sum(-1)
        x = x.clone()
        x[:, :] += self.down(h)
        return x


@pytest.mark.parametrize("how", ["addmm", "addmm, scaled", "where", "cat", "write"])
def test_spellings_of_a_residual_connection(how: str) -> None:
    deep, shallow = (nn.Sequential(*(Adds(how) for _ in range(n))) for n in (8, 2))
    rules = t1.prescribe(deep, base=shallow, sample=torch.randn(3, 8), optimizer="Adam")
    folds = {rule.name[2:]: rule.fold for rule in rules.rules}
    assert folds == {"up.weight": 1, "up.bias": 1, "down.weight": 1 / 4, "down.bias": 1 / 4}


def test_bad_depths() -> None:
    with pytest.raises(InputError, match=r"depths=\[2, 4, 8\]: pass one width .* or one depth for"):
        t1.coordinate_check(DeepTask(), widths=[16, 32], depths=[2, 4, 8], lr=0.1)
    with pytest.raises(InputError, match=r"at least 2 different depths"):
        t1.coordinate_check(DeepTask(), widths=[16], depths=[2], lr=0.1)

    class Flat(DeepTask):
        def model(self, width: int) -> nn.Module:  # pyright: ignore
            return DeepModel(width, 2)

    with pytest.raises(TaskError, match=r"define model\(width, depth\)"):
        t1.coordinate_check(Flat(), widths=[16], depths=[2, 4], lr=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "lr"), [("Adam", 2**-7), ("AdamW", 2**-7), ("SGD", 2**-3)])
def test_update_exponents_from_depth_4_to_64(optimizer: str, lr: float) -> None:
    options: dict[str, Any] = {"widths": [128], "depths": (4, 8, 16, 32, 64), "steps": (3, 8)}
    for parametrization in ("mup", "sp"):
        check = t1.coordinate_check(
            DeepTask(), lr=lr, optimizer=optimizer, parametrization=parametrization, **options
        )
        found = {
            row.layer: row.law
            for row in check.rows
            if row.quantity == FEATURE_UPDATE and row.step == 8
        }
        stream, normed = found["blocks.*"], found["norm"]
        assert stream is not None
        assert normed is not None
        if parametrization == "sp":
            assert stream.exponent > 0.4
            assert not check.passed
            continue
        assert stream.stderr < 0.04, "test too weak"
        assert {k: v for k, v in found.items() if v is None or abs(v.exponent) > 0.08} == {}
