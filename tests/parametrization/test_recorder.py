"""What a pass shows: every spelling of a product, its norm, what its update does, every feature."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_modules import Conv1D as Transposed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from thetaone.laws import rms_operator_norm
from thetaone.parametrization.checking._observe import decomposed
from thetaone.parametrization.checking._recorder import GAIN, SHIFT, Record, Recorder
from thetaone.parametrization.checking._slack import linear_features

Apply = Callable[[Tensor, Tensor], Tensor]  # (weight, input) -> output


class Raw(nn.Module):
    """A module with one raw parameter and a way to use it."""

    def __init__(self, shape: tuple[int, ...], apply: Apply) -> None:
        super().__init__()
        self.w, self.apply_weight = nn.Parameter(torch.randn(shape)), apply

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_weight(self.w, x)


class HuggingFaceConv1D(Transposed):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


SPELLINGS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 4, bias=False),
    "transposed": lambda: HuggingFaceConv1D(6, 4),
    "left": lambda: Raw((4, 6), lambda w, x: (w @ x.unsqueeze(-1)).squeeze(-1)),
    "einsum": lambda: Raw((6, 2, 5), lambda w, x: torch.einsum("bd,dhk->bhk", x, w)),
    "broadcast": lambda: Raw((3, 6, 2), lambda w, x: (x[:, None, None] @ w).squeeze(-2)),
    "matrix": lambda: Raw((6, 4), lambda w, x: x @ w),
    "cast": lambda: Raw((6, 4), lambda w, x: x @ w.double().clone()),
}


def record(
    model: nn.Module, *inputs: Tensor, before: Record | None = None, loss: Any = None
) -> Record:
    with decomposed(model), Recorder(model, before.weights if before else None) as recorder:
        output = model(*inputs)
        (loss or (lambda y: y.square().mean()))(output)
    return recorder.record


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_norm_and_own_update_of_a_product_in_any_spelling(spelling: str) -> None:
    """Truth: the Jacobian of the module in one input, and the difference of two outputs."""
    torch.manual_seed(0)
    model, x = SPELLINGS[spelling]().double(), torch.randn(5, 6, dtype=torch.float64)
    first = record(model, x)
    parameter = next(model.parameters())
    jacobian = torch.autograd.functional.jacobian(lambda one: model(one[None])[0].flatten(), x[0])
    (uses,) = first.uses.values()
    (use,) = uses.values()
    assert use.norm == pytest.approx(float(rms_operator_norm(jacobian.detach())), rel=0.01)
    assert use.fans == (6, jacobian.shape[0])
    change = torch.randn_like(parameter)
    old = model(x).detach()
    with torch.no_grad():
        parameter.add_(change)
    truth = (model(x).detach() - old).square().mean().sqrt()
    (uses,) = record(model, x, before=first).uses.values()
    (use,) = uses.values()
    assert use.outputs == pytest.approx([float(truth)])
    assert use.inputs == pytest.approx([float(x.square().mean().sqrt())])


def test_blocks_with_inputs_of_their_own_are_not_one_matrix() -> None:
    """Two experts on different tokens: the norm is the larger one's, not that of both stacked."""
    model = Raw((2, 6, 4), lambda w, x: torch.bmm(x, w))
    (uses,) = record(model, torch.randn(2, 7, 6)).uses.values()
    (use,) = uses.values()
    norms = [float(rms_operator_norm(w.T.detach())) for w in model.w]
    assert use.norm == pytest.approx(max(norms), rel=0.01)
    assert use.fans == (6, 4)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Conv1d(8, 4, 3, stride=2, padding=1, groups=2, bias=False), (2, 8, 9)),
        (lambda: nn.Conv2d(8, 3, 3, padding_mode="circular", padding=1, bias=False), (2, 8, 6, 6)),
        (lambda: nn.ConvTranspose2d(8, 4, 3, stride=2, bias=False), (2, 8, 5, 5)),
    ],
)
def test_own_update_of_a_convolution(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model, x = make(), torch.randn(shape)
    first, old = record(model, x), model(x).detach()
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    truth = (model(x).detach() - old).square().mean().sqrt()
    (uses,) = record(model, x, before=first).uses.values()
    assert next(iter(uses.values())).outputs == pytest.approx([float(truth)], rel=1e-4)


def test_a_weight_made_by_a_parametrization_is_read_as_used() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(6, 4)))
    seen = record(model, torch.randn(3, 6))
    assert set(seen.uses) == {"0"}
    (use,) = seen.uses["0"].values()
    weight = torch.as_tensor(model[0].weight).detach()
    assert use.norm == pytest.approx(float(rms_operator_norm(weight)), rel=0.01)
    assert len(use.names) == 2
    assert set(seen.features) == {"0"}  # the module that makes the weight puts out no feature


def test_every_step_of_a_recurrent_layer_is_seen() -> None:
    model = nn.LSTM(3, 4, num_layers=2)
    inputs = torch.randn(5, 2, 3)
    seen = record(model, inputs, loss=lambda out: out[0].square().mean())
    assert set(seen.uses) == {f"weight_{way}_l{layer}" for way in ("ih", "hh") for layer in (0, 1)}
    first = seen
    with torch.no_grad():
        model.get_parameter("weight_hh_l0").add_(0.1)
    later = record(model, inputs, before=first, loss=lambda out: out[0].square().mean())
    (use,) = later.uses["weight_hh_l0"].values()
    assert len(use.outputs) == 5
    assert use.outputs[0] == 0  # the state before the first step is zero


class Attention(nn.Module):
    def __init__(self, fused_kernel: bool) -> None:
        super().__init__()
        self.qkv, self.norm, self.fused = nn.Linear(8, 24), nn.LayerNorm(8), fused_kernel
        self.cls = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        if self.fused:
            return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return (q @ k.mT / 8**0.5).softmax(-1) @ v


def test_attention_logits_are_seen_in_either_spelling() -> None:
    torch.manual_seed(0)
    plain, fused_ = Attention(False), Attention(True)
    fused_.load_state_dict(plain.state_dict())
    x = torch.randn(2, 5, 8)
    logits = [
        next(t for name, (t, *_) in record(m, x).features.items() if name.endswith("logits"))
        for m in (plain, fused_)
    ]
    torch.testing.assert_close(logits[0].flatten(), logits[1].flatten(), rtol=1e-4, atol=1e-5)


def test_vectors_are_told_by_what_they_do() -> None:
    seen = record(Attention(False), torch.randn(2, 5, 8))
    assert seen.vectors == {
        "cls": SHIFT,
        "norm.weight": GAIN,
        "norm.bias": SHIFT,
        "qkv.bias": SHIFT,
    }
    order = [label for label, _ in seen.order]
    assert order.index("cls") < order.index("norm") < order.index("qkv")
    assert order.index("qkv") < order.index("(model) logits") < order.index("(model) output")


class CalledAgain(nn.Module):
    """One layer before and after a norm, so that neither is first throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.norm = nn.Linear(8, 8, bias=False), nn.LayerNorm(8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.norm(self.shared(x))) + 1


def test_a_layer_called_again_stands_at_its_last_call_too() -> None:
    seen = record(CalledAgain(), torch.randn(2, 8))
    assert list(seen.order) == [
        ("shared", False),
        ("norm.weight", False),
        ("norm", False),
        ("shared", True),
        ("(model) output", False),
    ]


def test_the_loss_outside_the_model_is_seen() -> None:
    model = nn.Linear(4, 3)
    seen = record(
        model, torch.randn(5, 4), loss=lambda z: F.cross_entropy(z @ z.T, torch.arange(5))
    )
    (logits,) = seen.features["(loss) log_softmax"]
    assert logits.shape == (5, 5)


def test_a_pass_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model, x = Attention(True), torch.randn(2, 5, 8)
    plain = model(x).detach()
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        record(model, torch.randn(2, 5, 7))
    record(model, x)
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    assert torch.equal(model(x), plain)


def test_no_feature_is_taken_for_logits_that_are_gone() -> None:
    """A storage's address is used again: those of tensors computed on the side must not be kept."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
            mixed = F.scaled_dot_product_attention(q, k, v)
            return self.out(mixed.transpose(1, 2).reshape(2, 5, 8))

    model = nn.Sequential(Attention(), nn.Linear(8, 8), nn.ReLU())
    with Recorder(model) as recorder:
        model(torch.randn(2, 5, 8))
        features = recorder.record.features
        seen = len(recorder._features)
    others = [label for label in features if not label.endswith(" logits")]
    assert seen == sum(len(features[label]) for label in others)
    assert set(features) - set(others) == {"0 logits"}


class Router(nn.Module):
    """Scores by a raw matrix and a bias, and what is subtracted from them; softmax unnamed."""

    def __init__(self, minus: str) -> None:
        super().__init__()
        self.gate, self.bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.zeros(4))
        self.other, self.minus = nn.Linear(6, 4), minus

    def forward(self, x: Tensor) -> Tensor:
        scores, other = x @ self.gate.T / 2 + self.bias, self.other(x)
        before = ((x + 0.1) @ self.gate.T / 2).detach()
        return (scores - {"": 0.0, "itself": before, "another": other}[self.minus]).softmax(-1)


@pytest.mark.parametrize(("minus", "maker"), [("", "gate"), ("itself", "gate"), ("another", "")])
def test_features_are_known_by_the_weight_that_makes_them(minus: str, maker: str) -> None:
    """Through what is added and scaled; not where features of two weights are added."""
    makers = record(Router(minus), torch.randn(3, 6)).makers
    assert (makers["(model) logits"], makers["(model) output"]) == (maker, "")
    assert makers["other"] == "other"


class Stack(nn.Module):
    """Gains behind norms, one behind the other's nonlinearity; one dropout for both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.RMSNorm(6), nn.RMSNorm(6)
        self.mid, self.drop = nn.Linear(6, 6), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.mid(x).tanh())
        return self.drop(self.second(self.first(h).tanh()))


def test_what_carries_a_factor_is_found_behind_another_one_and_in_one_of_several_calls() -> None:
    class Task:
        def model(self, width: int) -> nn.Module:
            return Stack()

        def batches(self, seed: int) -> Any:
            yield torch.randn(3, 6)

        def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
            return model(batch).square().mean()

    model, names = Stack(), ["first.weight", "second.weight"]
    before = model.second.weight.detach().clone()
    together = linear_features(model, Task(), seed=0, groups=[names])
    assert "second" not in together
    apart = linear_features(model, Task(), seed=0, groups=[[name] for name in names])
    assert {"first", "second", "drop"} <= apart
    assert "mid" not in apart
    assert torch.equal(model.second.weight, before)


def test_a_sparse_batch_shows_what_a_dense_one_does() -> None:
    model, x = Raw((6, 4), lambda w, x: x @ w), torch.randn(5, 6)
    dense = record(model, x)
    seen = [record(model, one, before=dense).uses["w"].values() for one in (x, x.to_sparse())]
    (first,), (second,) = seen
    assert second.inputs == pytest.approx(first.inputs)
    assert second.outputs == first.outputs
