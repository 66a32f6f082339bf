"""Where factors go in spellings that share, slice or normalize: exact factors, computed by hand."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import RoleError

N, W, R, HEADS = 16, 64, 4, 2  # narrow, wide, their ratio; heads whose size grows


def prescribed(make: Callable[[int], nn.Module], *x: Tensor) -> t1.Prescription:
    return t1.prescribe(make(W), base=lambda: make(N), sample=x, optimizer="Adam")


def rows(prescription: t1.Prescription, name: str) -> list[tuple[int, int, float]]:
    return [(row.start, row.stop, row.factor) for row in prescription[name].rows]


class Shared(nn.Module):
    """One layer of attention, called several times; 1/√d in the forward pass."""

    def __init__(self, width: int, calls: int = 2, other: float = 1.0) -> None:
        super().__init__()
        self.emb, self.calls, self.other = nn.Linear(3, width), calls, other
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.head = nn.Linear(width, 5)

    def attend(self, x: Tensor, scale: float) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        return x + ((q @ k.mT * scale).softmax(-1) @ v).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.emb(x)
        size = x.shape[-1] // HEADS
        for call in range(self.calls):
            x = self.attend(x, size**-0.5 if call == 0 else size ** (-0.5 * self.other))
        return self.head(x)


def test_a_layer_called_several_times_is_folded_once() -> None:
    prescription = prescribed(lambda w: Shared(w, 3), torch.randn(2, 4, 3))
    folds = [prescription[f"{name}.weight"].fold for name in "qkv"]
    assert sorted(folds) == [R**-0.5, 1.0, 1.0]


def test_calls_of_one_layer_that_want_different_factors_are_refused() -> None:
    with pytest.raises(RoleError, match=r"wants a factor 1 more where another call .* wants 0.5"):
        prescribed(lambda w: Shared(w, 2, other=2.0), torch.randn(2, 4, 3))


class Cross(nn.Module):
    """Queries from one sequence, keys and values from another, one fused parameter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, width), nn.Linear(3, width)
        self.attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x.flip(1))
        return self.head(a + self.attn(a, b, b)[0])


def test_cross_attention_scales_the_rows_of_one_side() -> None:
    prescription = prescribed(Cross, torch.randn(2, 4, 3))
    for name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        assert rows(prescription, name) == [(0, W, R**-0.5)]


class Rotary(nn.Module):
    """Fused projection, rotated as complex numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb, self.qkv, self.head = (
            nn.Linear(3, width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, 5),
        )

    def turned(self, x: Tensor) -> Tensor:
        z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(z * torch.polar(torch.ones(4, 1), torch.rand(4, 1))).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.emb(x)
        q, k, v = (z.unflatten(-1, (HEADS, -1)).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        out = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v)
        return self.head(x + out.transpose(1, 2).flatten(2))


def test_rows_are_followed_through_complex_numbers() -> None:
    assert rows(prescribed(Rotary, torch.randn(2, 4, 3)), "qkv.weight") == [(0, W, R**-0.5)]


class Linear(nn.Module):
    """Linear attention, each sum over features divided by one like it, or not."""

    def __init__(self, width: int, normalized: bool, guard: float = 1e-6) -> None:
        super().__init__()
        self.emb, self.head = nn.Linear(3, width), nn.Linear(width, 5)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.normalized, self.guard = normalized, guard

    def forward(self, x: Tensor) -> Tensor:
        x = self.emb(x)
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        out = torch.einsum("btd,bde->bte", q, torch.einsum("btd,bte->bde", k, v))
        if self.normalized:
            out = out / (torch.einsum("btd,bd->bt", q, k.sum(1)) + self.guard)[..., None]
        return self.head(x + out)


def test_a_sum_that_is_divided_by_one_like_it_asks_for_nothing() -> None:
    prescription = prescribed(lambda w: Linear(w, True), torch.randn(2, 4, 3))
    assert {rule.fold for rule in prescription.rules} == {1.0}


def test_a_sum_that_is_not_divided_is_folded_into_the_values() -> None:
    prescription = prescribed(lambda w: Linear(w, False), torch.randn(2, 4, 3))
    folds = {rule.name: rule.fold for rule in prescription.rules if rule.fold != 1}
    assert folds == {"v.weight": 1 / R, "v.bias": 1 / R}


def test_a_guard_that_is_no_epsilon_does_not_cancel() -> None:
    with pytest.raises(RoleError, match="sums products of two features over 16 -> 64 of them"):
        prescribed(lambda w: Linear(w, True, guard=1.0), torch.randn(2, 4, 3))


class Contrast(nn.Module):
    """CLIP's score: both sides normalized, one times a learned temperature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, width), nn.Linear(3, width)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        a, b = a / a.norm(dim=-1, keepdim=True), b / b.norm(dim=-1, keepdim=True)
        return self.scale.exp() * a @ b.T


def test_a_learned_temperature_does_not_hide_a_norm() -> None:
    prescription = prescribed(Contrast, torch.randn(4, 3))
    assert {rule.fold for rule in prescription.rules} == {1.0}


class Distance(nn.Module):
    """A distance of two encodings, over a power of the width."""

    def __init__(self, width: int, power: float) -> None:
        super().__init__()
        self.a, self.b, self.power = nn.Linear(3, width), nn.Linear(3, width), power

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return torch.linalg.vector_norm(a - b, dim=-1, keepdim=True) * a.shape[-1] ** -self.power


def test_the_cure_that_a_refused_distance_names_is_accepted() -> None:
    with pytest.raises(RoleError, match=r"multiply it by \(base width / width\) to the power 0.5"):
        prescribed(lambda w: Distance(w, 0.0), torch.randn(4, 3))
    prescribed(lambda w: Distance(w, 0.5), torch.randn(4, 3))


def latent(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3),
        nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 5),
    )  # fmt: skip


def latent_change(width: int, power: float) -> float:
    """RMS of a latent's change after 4 steps of Adam, from initial values times r^power."""
    total = 0.0
    for seed in range(3):
        torch.manual_seed(seed)
        model, x = latent(width), torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
        optimizer = t1.parametrize(
            model, base=lambda: latent(64), optimizer="Adam", lr=2**-9, sample=(x,)
        )
        with torch.no_grad():
            model.get_parameter("4.weight").mul_((width / 64) ** power)
        encoder = nn.Sequential(*list(model.children())[:5])
        before = encoder(x).detach()
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(model(x), torch.arange(6) % 5).backward()
            optimizer.step()
        total += float((encoder(x) - before).detach().square().mean().sqrt()) / 3
    return total


def latent_slope(power: float) -> float:
    changes = torch.tensor([latent_change(width, power) for width in (64, 512)])
    return float(changes.log2().diff()) / 3


def test_a_latent_starts_small_so_that_its_change_keeps_its_size() -> None:
    """Initial values r^-1/2 let the aligned change before it add up to √r."""
    assert abs(latent_slope(0.0)) < 0.15
    assert latent_slope(0.5) > 0.25


class NormedLatent(nn.Module):
    """A latent of fixed size, with or without a norm, between wide features."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.inputs, self.down = nn.Linear(3, width), nn.Linear(width, 8)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()
        self.up, self.last = nn.Linear(8, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.norm(self.down(self.inputs(x).tanh())).tanh()).tanh())


def normed_change(width: int) -> float:
    """The change of what a norm makes of a latent, after steps of Adam, over seeds."""
    total = 0.0
    for seed in range(3):
        torch.manual_seed(seed)
        model, x, seen = NormedLatent(width, True), torch.randn(6, 3), list[Tensor]()
        optimizer = t1.parametrize(
            model, base=NormedLatent(64, True), lr=2**-9, sample=x, optimizer="Adam"
        )
        model.norm.register_forward_hook(lambda *taken, seen=seen: seen.append(taken[2].detach()))
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(model(x), torch.arange(6) % 5).backward()
            optimizer.step()
        total += float((seen[-1] - seen[0]).square().mean().sqrt())
    return total


def test_a_latent_before_a_norm_starts_as_large_at_every_width() -> None:
    """Its size is of no effect; started smaller, a change of the same size turned it further."""
    x = torch.randn(6, 3)
    plain, normed = (
        t1.prescribe(NormedLatent(256, norm), base=NormedLatent(64, norm), sample=x)["down.weight"]
        for norm in (False, True)
    )
    assert (plain.init_factor, normed.init_factor) == (1 / 4, 1 / 2)
    assert plain.lr_factor == normed.lr_factor == 1 / 4
    assert abs(math.log2(normed_change(512) / normed_change(64)) / 3) < 0.15


class Normalized(nn.Module):
    """Features over their norm, as they are, through relu, or times a gain and √width."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.first, self.last, self.how = nn.Linear(3, width), nn.Linear(width, 5), how
        self.gain = nn.Parameter(torch.ones(width)) if "gain" in how else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.normalize(self.first(x), dim=-1)
        if self.gain is not None:
            h = h * (self.gain + 1 if "1 +" in self.how else self.gain)
        if "root" in self.how:
            h = h * h.shape[-1] ** 0.5
        return self.last(h.relu() if "relu" in self.how else h)


@pytest.mark.parametrize(
    ("how", "folds"),
    [
        ("as they are", {"last.weight": R**0.5}),
        ("relu", {"last.weight": R**0.5}),
        ("root", {}),
        ("root relu", {}),
        ("gain root", {}),
        ("gain root relu", {}),
        ("gain", {"gain": R**0.5}),
    ],
)
def test_features_over_their_norm_are_worth_one_over_the_root_of_their_number(
    how: str, folds: dict[str, float]
) -> None:
    prescription = prescribed(lambda w: Normalized(w, how), torch.randn(4, 3))
    assert {rule.name: rule.fold for rule in prescription.rules if rule.fold != 1} == folds


class Pooled(nn.Module):
    """A score by a vector, as a product and a sum over √width, that weighs wide features."""

    def __init__(self, width: int, power: float) -> None:
        super().__init__()
        self.first, self.last, self.power = nn.Linear(3, width), nn.Linear(width, 5), power
        self.q = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        score = (h * self.q).sum(-1) * h.shape[-1] ** -self.power
        return self.last((score.softmax(1)[..., None] * h).sum(1))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_a_factor_after_a_product_and_its_sum_is_seen(power: float) -> None:
    """A score's vector starts and moves as 1/r in all, whatever the forward pass divides by."""
    rule = prescribed(lambda w: Pooled(w, power), torch.randn(2, 4, 3))["q"]
    assert rule.role == "bottleneck"
    assert rule.lr_factor * R**-power == pytest.approx(1 / R)
    assert rule.init_factor * R**-power == pytest.approx(1 / R)


class Tied(nn.Module):
    """A tied readout behind a norm whose gain is g, or Gemma's 1 + g."""

    def __init__(self, width: int, one: float, *, module: bool = True) -> None:
        super().__init__()
        self.emb, self.one = nn.Embedding(200, width), one
        self.gain = nn.Parameter(torch.full((width,), 1 - one))
        self.mid = nn.Linear(width, width)
        self.head = nn.Linear(width, 200, bias=False) if module else None
        if self.head is not None:
            self.head.weight = self.emb.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.mid(self.emb(x))
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6) * (self.gain + self.one)
        return h @ self.emb.weight.T if self.head is None else self.head(h)


@pytest.mark.parametrize("one", [0.0, 1.0])
def test_a_readouts_factor_is_there_whatever_the_gain_before_it_starts_from(one: float) -> None:
    """Logits of a tied readout start as width^-1/2; a factor on the g of 1 + g would be lost."""
    torch.manual_seed(0)
    narrow, wide, x = Tied(N, one), Tied(16 * N, one), torch.arange(200)
    t1.parametrize(wide, base=lambda: Tied(N, one), sample=(x,), lr=0.1)
    ratio = wide(x).square().mean() / narrow(x).square().mean()
    assert float(ratio.detach().sqrt()) == pytest.approx(16**-0.5, rel=0.15)
    assert float(wide.gain.detach()[0]) == (1 - one) * (1 if one else 1 / 16)


def test_what_cannot_be_moved_into_one_plus_a_gain_is_refused() -> None:
    with pytest.raises(RoleError, match="can be moved into no layer before it"):
        prescribed(lambda w: Tied(w, 1.0, module=False), torch.arange(5))
    with pytest.raises(RoleError, match=r"gain reaches the model through .* 1 \+ g"):
        prescribed(lambda w: Normalized(w, "1 + gain"), torch.randn(4, 3))


APPLIED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bmm": lambda m, h: torch.bmm(m, h[..., None])[..., 0],
    "product and sum": lambda m, h: (m * h[:, None]).sum(-1),
    "einsum": lambda m, h: torch.einsum("bij,bj->bi", m, h),
    "on the right": lambda m, h: (h[:, None] @ m)[:, 0],
}


@pytest.mark.parametrize("how", APPLIED)
def test_a_matrix_that_a_layer_makes_is_a_hidden_one(how: str) -> None:
    """It starts as r^-1/2 and changes as 1/r; scores of two features do both as 1/r."""

    class Fast(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.make = nn.Linear(5, width), nn.Linear(5, width * width)
            self.last, self.width = nn.Linear(width, 3), width

        def forward(self, x: Tensor) -> Tensor:
            matrix = self.make(x).relu().view(-1, self.width, self.width)
            return self.last(APPLIED[how](matrix, self.first(x)))

    rules = t1.prescribe(Fast(64), base=Fast(16), sample=(torch.ones(2, 5),))
    for name in ("make.weight", "make.bias"):
        assert (rules[name].init_factor, rules[name].lr_factor) == (0.5, 0.25)
    assert rules["first.weight"].lr_factor == 1.0


MIXED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "added": lambda h, g: F.normalize(h, dim=-1) * 8 + g,
    "by hand": lambda h, g: h * torch.rsqrt(h.pow(2).sum(-1, keepdim=True) + 1e-6) + g,
    "residual": lambda h, g: (h + h / h.norm(dim=-1, keepdim=True)) * g,
    "function": lambda h, g: F.gelu(F.normalize(h, dim=-1)) * g,
}
ALIKE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "RMS": lambda h, g: F.normalize(h, dim=-1) * h.shape[-1] ** 0.5 + g,
    "gain": lambda h, g: F.normalize(h, dim=-1) * g,
    "all of them": lambda h, g: (F.normalize(h, dim=-1) - F.normalize(h.tanh(), dim=-1)) * g,
    "of no effect": lambda h, g: F.layer_norm(F.normalize(h, dim=-1) + 1e-9, h.shape[-1:]) * g,
    "over samples": lambda h, g: h / h.norm(dim=0, keepdim=True) + g,
}


class Unit(nn.Module):
    """Features that a norm makes 1/√width each, and a vector."""

    def __init__(self, width: int, how: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.mid, self.last = (
            nn.Linear(5, width),
            nn.Linear(width, width),
            nn.Linear(width, 3),
        )
        self.vector, self.how = nn.Parameter(torch.ones(width)), how

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.how(self.mid(self.first(x).relu()), self.vector))


@pytest.mark.parametrize("name", MIXED)
def test_unit_norms_that_meet_features_of_another_size_are_refused(name: str) -> None:
    with pytest.raises(RoleError, match=r"divides features by their norm.*multiply them by √"):
        prescribed(lambda width: Unit(width, MIXED[name]), torch.randn(4, 5))


@pytest.mark.parametrize("name", ALIKE)
def test_unit_norms_that_meet_their_like_are_read(name: str) -> None:
    rules = prescribed(lambda width: Unit(width, ALIKE[name]), torch.randn(4, 5))
    assert rules["mid.weight"].lr_factor == 1 / R
