"""Parameters that meet parameters before features, and numbers put on features: exact rules.

Expected factors are Table 3's, computed by hand for a width that grows four times.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import RoleError

N, W, R = 16, 64, 4  # narrow, wide, their ratio
X = torch.randn(3, 5)


class Net(nn.Module):
    """``last(use(model, relu(first(x))))`` with a few raw parameters."""

    def __init__(self, width: int, use: Callable[["Net", Tensor], Tensor], *names: str) -> None:
        super().__init__()
        self.use, self.first, self.last = use, nn.Linear(5, width), nn.Linear(width, 3)
        shapes = {
            "weight": (width, width), "mask": (width, width), "row": (1, width),
            "column": (width, 1), "u": (width,), "v": (width,), "few": (5, width),
            "up": (width, 2), "down": (2, width), "up2": (width, 2), "down2": (2, width),
            "left": (width, width // 4), "middle": (width // 4,), "right": (width // 4, width),
        }  # fmt: skip
        for name in names:
            setattr(self, name, nn.Parameter(torch.randn(shapes[name]) / width**0.5))

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.use(self, self.first(x).relu()))


def prescribed(use: Callable[[Net, Tensor], Tensor], *names: str) -> t1.Prescription:
    return t1.prescribe(
        Net(W, use, *names), base=lambda: Net(N, use, *names), sample=X, optimizer="SGD"
    )


GAIN, INPUT = ("vector", 1.0, R), ("input", 1.0, R)  # role, initial factor, SGD's rate
HIDDEN, LATENT = ("hidden", 0.5, 1.0), ("bottleneck", 0.25, 0.25)


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda m, x: x @ (m.weight * m.row), {"weight": HIDDEN, "row": GAIN}),
        (lambda m, x: x @ (m.weight * m.column), {"weight": HIDDEN, "column": GAIN}),
        (lambda m, x: x @ (m.weight * (1 + m.column)), {"weight": HIDDEN, "column": GAIN}),
        (
            lambda m, x: x @ (m.left * m.middle @ m.right),
            {"left": HIDDEN, "middle": GAIN, "right": HIDDEN},
        ),
        (lambda m, x: x * (m.u @ m.v).tanh(), {"u": LATENT, "v": GAIN}),
        (lambda m, x: x * (m.u * m.v).sum(-1).exp(), {"u": LATENT, "v": GAIN}),
        (lambda m, x: x * (m.few @ m.v)[:1], {"few": LATENT, "v": GAIN}),
        (lambda m, x: x + m.weight @ m.v, {"weight": HIDDEN, "v": GAIN}),
        (lambda m, x: x + m.few.sum(0), {"few": INPUT}),
        (lambda m, x: x * m.few.sum(1)[:1], {"few": LATENT}),
        (lambda m, x: x @ (m.weight - m.weight.mean(0)), {"weight": HIDDEN}),
    ],
)
def test_what_parameters_do_to_each_other(
    use: Callable[[Net, Tensor], Tensor], expected: dict[str, tuple[str, float, float]]
) -> None:
    rules = prescribed(use, *expected)
    read = {n: (rules[n].role, rules[n].init_factor, rules[n].lr_factor) for n in expected}
    assert read == expected


PENALTIES: dict[str, Callable[[nn.Module], Tensor]] = {
    "squares": lambda m: sum((p**2).sum() for p in m.parameters()),  # pyright: ignore
    "norm": lambda m: m[0].weight.norm(),  # pyright: ignore
    "entries": lambda m: torch.cat([p.flatten() for p in m.parameters()]).abs().sum(),
    "largest": lambda m: m[0].weight.abs().max(),  # pyright: ignore
    "rows": lambda m: F.relu(m[0].weight.norm(dim=0).sum() - 1),  # pyright: ignore
}


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("combine", [torch.add, torch.sub, lambda *terms: torch.stack(terms).sum()])
def test_a_penalty_added_to_a_loss_is_no_use_of_a_parameter(
    penalty: Callable[[nn.Module], Tensor], combine: Callable[[Tensor, Tensor], Tensor]
) -> None:
    class Penalized(nn.Sequential):
        penalized: bool

        def forward(self, input: Tensor) -> Tensor:
            loss = super().forward(input).square().mean()
            return combine(loss, penalty(self)) if self.penalized else loss

    def net(width: int, *, penalized: bool = True) -> nn.Module:
        torch.manual_seed(0)
        net = Penalized(nn.Linear(5, width), nn.Linear(width, width), nn.Linear(width, 3))
        net.penalized = penalized
        return net

    plain = t1.prescribe(net(W, penalized=False), base=net(N, penalized=False), sample=X)
    assert t1.prescribe(net(W), base=net(N), sample=X).rules == plain.rules


def test_a_number_of_a_parameter_that_features_meet_is_a_use() -> None:
    with pytest.raises(RoleError, match=r"v .* of a sum or norm of its entries"):
        prescribed(lambda m, x: x + m.v.norm(), "v")


def test_a_branch_may_ask_for_the_largest_entry_of_a_parameter() -> None:
    def use(m: Net, x: Tensor) -> Tensor:
        return x @ m.weight if bool(m.weight.abs().max() < 3) else x @ m.weight + 1

    assert prescribed(use, "weight")["weight"].role == "hidden"


@pytest.mark.parametrize(
    ("use", "names", "message"),
    [
        (lambda m, x: x @ (m.weight * m.mask), ("weight", "mask"), r"product, entry by entry"),
        (
            lambda m, x: x @ ((m.up @ m.down) * (m.up2 @ m.down2)),
            ("up", "down", "up2", "down2"),
            r"product, entry by entry",
        ),
        (
            lambda m, x: x @ m.u[(torch.arange(len(m.u)) - torch.arange(len(m.u))[:, None])],
            ("u",),
            r"holds each of its entries many times",
        ),
        (lambda m, x: x * m.v.norm(), ("v",), r"v .* of a sum or norm of its entries"),
        (
            lambda m, x: x @ (m.weight / m.weight.std(0)),
            ("weight",),
            r"of a function of its entries",
        ),
        (lambda m, x: torch.fft.fft(x).real, (), r"fft_r2c in the model runs over 16 -> 64"),
        (
            lambda m, x: torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(m.u), n=x.shape[-1]),
            ("u",),
            r"fft_r2c in the model runs over 9 -> 33",
        ),
        (
            lambda m, x: x + reduce(torch.add, x.unbind(-1))[:, None],
            (),
            r"adds 16 -> 64 terms one by one",
        ),
        (lambda m, x: x * torch.stack(x.unbind(-1)).sum(0)[:, None], (), r"adds 16 -> 64 terms"),
        (lambda m, x: x * torch.cat([x, x], -1).sum(-1, True), (), r"sum in .* over 32 -> 128"),
        (lambda m, x: torch.tanh(x / x.shape[-1] ** 0.5), (), r"features by 0.25 at the base"),
    ],
)
def test_what_no_rule_covers_is_refused_by_name(
    use: Callable[[Net, Tensor], Tensor], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RoleError, match=message):
        prescribed(use, *names)


@pytest.mark.parametrize(
    ("use", "fold"),
    [
        (lambda m, x: F.normalize(x, p=1.0), R),  # each entry 1/n
        (lambda m, x: x / x.abs().sum(-1, keepdim=True), R),
        (lambda m, x: x / x.norm(dim=-1, keepdim=True), R**0.5),
        (lambda m, x: x * x.square().sum(-1, keepdim=True).rsqrt(), R**0.5),
        (lambda m, x: x.square().sum(-1, keepdim=True).rsqrt() * x, R**0.5),
        (lambda m, x: x * F.cosine_similarity(x, x.flip(0))[:, None], 1.0),  # no norm of x
        (lambda m, x: x / x.abs().amax(-1, keepdim=True), 1.0),
    ],
)
def test_a_norm_leaves_entries_of_its_own_size(
    use: Callable[[Net, Tensor], Tensor], fold: float
) -> None:
    assert prescribed(use)["last.weight"].fold == pytest.approx(fold)


class Attention(nn.Module):
    """Two heads whose size grows; the query's weight is made as told; 1/√d unless learned."""

    up: Tensor
    down: Tensor
    scale: Tensor

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.how, self.emb, self.head = how, nn.Linear(5, width), nn.Linear(width, 3)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        if "LoRA" in how:
            self.up, self.down = (nn.Parameter(torch.randn(s)) for s in ((width, 2), (2, width)))
        if "spectral" in how:
            norm = nn.utils.parametrizations.spectral_norm
            self.q, self.k = norm(self.q), norm(self.k)
        if how == "learned scale":
            self.scale = nn.Parameter(torch.full((2, 1, 1), (width // 2) ** -0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.emb(x)
        weight: Any = self.q.weight
        if "LoRA" in self.how:
            weight = weight + self.up @ self.down
        q, k, v = (
            y.unflatten(-1, (2, -1)).transpose(1, 2)
            for y in (F.linear(x, weight), self.k(x), self.v(x))
        )
        scale = self.scale if self.how == "learned scale" else q.shape[-1] ** -0.5
        return self.head(((q @ k.mT * scale).softmax(-1) @ v).transpose(1, 2).flatten(2))


def attention(how: str) -> t1.Prescription:
    return t1.prescribe(
        Attention(W, how), base=lambda: Attention(N, how), sample=torch.randn(2, 4, 5)
    )


def test_a_factor_on_a_sum_of_weights_is_on_each_term_once() -> None:
    folds = {rule.name: rule.fold for rule in attention("LoRA merged").rules}
    assert (folds["q.weight"], folds["up"] * folds["down"]) == (R**-0.5, R**-0.5)


def test_a_weight_under_its_spectral_norm_takes_no_factor() -> None:
    with pytest.raises(RoleError, match=r"can be moved into no parameter"):
        attention("spectral")


def test_a_learned_number_starts_as_in_the_base() -> None:
    torch.manual_seed(0)
    model, base = Attention(W, "learned scale"), Attention(N, "learned scale")
    t1.parametrize(model, base=base, sample=torch.randn(2, 4, 5), lr=1e-3)
    assert torch.equal(model.scale, base.scale)
    assert attention("learned scale")["q.weight"].fold == 1 / R


class Twins(nn.Module):
    """Scores of two encodings by one encoder, called twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return (self.encode(x) * self.encode(x.flip(0))).sum(-1)


def test_both_sides_made_by_one_layer_take_the_root() -> None:
    rules = t1.prescribe(Twins(W), base=lambda: Twins(N), sample=X)
    assert rules["encode.2.weight"].fold == R**-0.5


class Query(nn.Module):
    """A learned query in the fused attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, width), nn.Linear(width, 3)
        self.key, self.query = nn.Linear(width, width), nn.Parameter(torch.randn(2, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)[None, None]
        return self.last(F.scaled_dot_product_attention(self.query[None, None], self.key(x), x))


def test_a_learned_query_is_a_weight_on_keys_and_nothing_more() -> None:
    rules = t1.prescribe(Query(W), base=lambda: Query(N), sample=X)
    assert rules["key.weight"].fold == 1.0
    assert rules["query"].init_factor == R**-0.5  # 1/r, and √r for the fused 1/√d


def test_both_spectral_norms_are_read_alike_and_keep_their_hooks() -> None:
    def rules(norm: Callable[[nn.Module], nn.Module]) -> list[tuple[str, float]]:
        def make(width: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(5, width), norm(nn.Linear(width, width)))

        model = make(W)
        before = len(model[1]._forward_pre_hooks)
        prescription = t1.prescribe(model, base=make(N), sample=X, optimizer="Adam")
        assert len(model[1]._forward_pre_hooks) == before
        return sorted((rule.role, rule.lr_factor) for rule in prescription.rules)

    of_hooks = rules(nn.utils.spectral_norm)
    assert of_hooks == rules(nn.utils.parametrizations.spectral_norm)
    assert ("hidden", 1 / R) in of_hooks


def test_the_pattern_in_a_refusal_is_of_that_problem_alone() -> None:
    def make(width: int) -> nn.Module:
        orthogonal = nn.utils.parametrizations.orthogonal
        return nn.Sequential(nn.Linear(5, width), orthogonal(nn.Linear(width, width)))

    with pytest.raises(RoleError, match=r"roles=\{'1.weight': …\}"):
        t1.prescribe(make(W), base=make(N), sample=X)


class Heads(nn.Module):
    """A raw weight for each head, of which there are more in a wider model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, width), nn.Linear(width, 3)
        self.each = nn.Parameter(torch.randn(width // 4, width, 4) / width**0.5)  # all to four
        self.block = nn.Parameter(torch.randn(width // 4, 4, 4))  # four to four

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu() @ self.each  # (heads, batch, 4)
        return self.last(torch.bmm(x, self.block).transpose(0, 1).flatten(1))


def test_matrices_side_by_side_make_features_together() -> None:
    rules = t1.prescribe(Heads(W), base=lambda: Heads(N), sample=X, optimizer="SGD")
    read = {n: (rules[n].role, rules[n].init_factor, rules[n].lr_factor) for n in ("each", "block")}
    assert read == {"each": HIDDEN, "block": INPUT}


@dataclass(slots=True)
class Output:
    """What a model may return instead of a tensor."""

    logits: Tensor
    loss: Tensor | None = None


class Returns(nn.Module):
    def __init__(self, width: int, how: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.how = nn.Sequential(nn.Linear(5, width), nn.Linear(width, 3)), how

    def forward(self, x: Tensor) -> Any:
        return self.how(self.net(x))


@pytest.mark.parametrize(
    "how", [Output, lambda y: SimpleNamespace(logits=y), lambda y: {"a": [None, y]}, lambda y: (y,)]
)
def test_tensors_are_found_in_whatever_is_returned(how: Callable[[Tensor], Any]) -> None:
    rules = t1.prescribe(Returns(W, how), base=lambda: Returns(N, how), sample=X)
    assert [rules[f"net.{i}.weight"].role for i in (0, 1)] == ["input", "output"]
