"""Gradients that start small: attention whose heads grow, with its folded factor; bottlenecks."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from thetaone.records import UPDATE_NORM

VOCABULARY, LENGTH, HEADS, BASE = 24, 8, 2, 16


class Attention(nn.Module):
    """One layer; ``written`` divides the logits by what the rules want, else by √d."""

    def __init__(self, width: int, *, heads: int = HEADS, written: bool = False) -> None:
        super().__init__()
        self.heads, self.written = heads, written
        self.emb, self.pos = nn.Embedding(VOCABULARY, width), nn.Embedding(LENGTH, width)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.emb(tokens) + self.pos(torch.arange(LENGTH))
        h = self.ln_1(x)
        q, k, v = (
            f(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        d = q.shape[-1]
        scale = (BASE // HEADS) ** 0.5 / d if self.written else d**-0.5
        mixed = (q @ k.mT * scale).softmax(-1) @ v
        return self.head(self.ln_2(x + self.o(mixed.transpose(1, 2).flatten(2))))


class Encoder(nn.Module):
    """Scores of two encodings: the sum is what the model returns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, width), nn.Linear(6, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) @ self.second(x).T


def batch() -> tuple[Tensor, Tensor]:
    x = torch.randint(VOCABULARY, (16, LENGTH), generator=torch.Generator().manual_seed(1))
    return x, (x.roll(1, 1) * 5 + 1) % VOCABULARY


class TokenTask:
    def model(self, width: int) -> nn.Module:
        return Attention(width)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield batch()

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def losses(written: bool, optimizer: str, lr: float, options: dict[str, Any]) -> list[float]:
    """Losses of a model four times the base, its initial values those of one draw."""
    torch.manual_seed(0)
    model = Attention(4 * BASE, written=written).double()
    torch.manual_seed(1)
    base = Attention(BASE, written=written).double()
    x, y = batch()
    steps = t1.parametrize(model, base=base, optimizer=optimizer, lr=lr, sample=(x,), **options)
    values: list[float] = []
    for _ in range(8):
        steps.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        steps.step()
        values.append(loss.item())
    return values


@pytest.mark.parametrize(
    ("optimizer", "lr", "options"),
    [
        ("SGD", 2.0, {"momentum": 0.9}),
        ("Adam", 2**-6, {}),
        ("AdamW", 2**-6, {"weight_decay": 0.1}),
        ("Muon+AdamW", 2**-5, {"weight_decay": 0.1}),
    ],
)
def test_folded_trains_as_written_out(optimizer: str, lr: float, options: dict[str, Any]) -> None:
    """A factor in the forward pass, and the same in weights and rates, are one training."""
    folded = losses(False, optimizer, lr, options)
    assert folded[0] - folded[-1] > 0.3, "test too weak: nothing learnt"
    assert folded == pytest.approx(losses(True, optimizer, lr, options), rel=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "heads", "factor"),
    [("SGD", HEADS, 0.5), ("SGD", None, 1.0), ("AdamW", HEADS, 1.0)],
)
def test_gradients_through_growing_logits_start_smaller(
    optimizer: str, heads: int | None, factor: float
) -> None:
    """By √(head size over base's), felt by steps that follow the gradient's size alone."""
    wide, base = (Attention(w, heads=heads or w // 8) for w in (4 * BASE, BASE))
    rules = t1.prescribe(wide, base=base, optimizer=optimizer, sample=batch()[:1])
    early = {name: rules[f"{name}.weight"].early_factor for name in ("q", "k", "v", "o", "ln_1")}
    assert early == {"q": factor, "k": factor, "v": 1.0, "o": 1.0, "ln_1": 1.0}


class Fused(nn.Module):
    """Queries, keys and values from one projection; heads grow."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb, self.head = nn.Linear(6, width), nn.Linear(width, 5)
        self.attn = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.emb(x)
        return self.head(h + self.attn(h, h, h, need_weights=False)[0])


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_logits_of_a_fused_projection_start_smaller(optimizer: str) -> None:
    """Not so its weights, whose values' part is felt at once."""
    x = torch.randn(2, 4, 6)
    prescription = t1.prescribe(Fused(64), base=Fused(16), optimizer=optimizer, sample=(x,))
    assert prescription.early_logits == pytest.approx({"attn": 0.5})
    assert prescription["attn.in_proj_weight"].early_factor == 1.0


def test_the_gradient_of_returned_scores_is_the_loss_s_own() -> None:
    x = torch.randn(5, 6)
    rules = t1.prescribe(Encoder(64), base=Encoder(16), optimizer="SGD", sample=(x,)).rules
    assert {rule.early_factor for rule in rules} == {1.0}


def autoencoder(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3), nn.Linear(3, width), nn.ReLU(),
        nn.Linear(width, 5),
    )  # fmt: skip


def test_gradients_through_a_bottleneck_start_smaller() -> None:
    """What comes before a latent is felt through it alone; what comes after sees small inputs."""
    rules = t1.prescribe(
        autoencoder(64), base=autoencoder(16), optimizer="SGD", sample=(torch.randn(5, 6),)
    )
    early = {rule.name: rule.early_factor for rule in rules.rules if rule.name.endswith("weight")}
    assert early == {"0.weight": 0.5, "2.weight": 0.5, "3.weight": 0.5, "5.weight": 0.5}
    inputs = {rule.name: rule.early_input for rule in rules.rules if rule.early_input != 1.0}
    assert inputs == {"3.weight": 0.5, "5.weight": 0.5}


class TwoLatents(nn.Module):
    """A mean and a log variance, both from the same features."""

    def __init__(self, width: int, skip: bool) -> None:
        super().__init__()
        self.first, self.mean, self.spread = (
            nn.Linear(6, width), nn.Linear(width, 3), nn.Linear(width, 3),
        )  # fmt: skip
        self.up, self.last, self.skip = nn.Linear(3, width), nn.Linear(width, 5), skip

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        mean = self.mean(h)
        latent = mean + (self.spread(h) / 2).exp() * torch.randn_like(mean)
        return self.last(self.up(latent).relu() + (h if self.skip else 0))


@pytest.mark.parametrize(("skip", "factor"), [(False, 0.5), (True, 1.0)])
def test_what_is_felt_through_two_latents_alone_starts_smaller(skip: bool, factor: float) -> None:
    rules = t1.prescribe(
        TwoLatents(64, skip), base=TwoLatents(16, skip), optimizer="SGD", sample=torch.randn(5, 6)
    )
    assert rules["first.weight"].early_factor == factor


def narrowing(width: int) -> nn.Module:
    """A matrix whose features grow less than its inputs, as Mamba's for its time steps and states.

    From 8 + 4 to 8 + 16 of them.
    """
    return nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 8 + width // 4),
        nn.Linear(8 + width // 4, width), nn.ReLU(), nn.Linear(width, 5),
    )  # fmt: skip


def test_what_takes_in_features_that_grow_less_sees_smaller_inputs() -> None:
    """Their initial size is √(r_out/r_in), of the spectral condition."""
    rules = t1.prescribe(
        narrowing(64), base=narrowing(16), optimizer="AdamW", sample=(torch.randn(5, 6),)
    )
    inputs = {rule.name: rule.early_input for rule in rules.rules if rule.early_input != 1.0}
    assert inputs == pytest.approx(dict.fromkeys(["3.weight", "5.weight"], (24 / 12 / 4) ** 0.5))
    assert rules["2.weight"].init_factor * 4**0.5 == pytest.approx((24 / 12 / 4) ** 0.5)


def test_the_check_expects_it() -> None:
    check = t1.coordinate_check(
        TokenTask(), widths=(32, 64, 128), lr=0.25, optimizer="SGD", seeds=3
    )
    assert not check.failures
    low = {r.layer: r.band[0] for r in check.rows if r.quantity == UPDATE_NORM}
    assert low["q"] == low["k"] == pytest.approx(low["v"] - 0.5)


def slope(extra: float) -> float:
    """Exponent in width of what q's change does to its features, after 8 steps of SGD."""
    sizes: list[float] = []
    widths = (64, 128, 256, 512)
    for width in widths:
        total = 0.0
        for seed in range(3):
            torch.manual_seed(seed)
            model = Attention(width)
            x, y = batch()
            optimizer = t1.parametrize(
                model, base=lambda: Attention(64), optimizer="SGD", lr=3.0, sample=(x,)
            )
            before = model.q.weight.detach().clone()
            for _ in range(8):
                optimizer.zero_grad()
                F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
                for weight in (model.q.weight, model.k.weight):
                    assert weight.grad is not None
                    weight.grad *= (width / 64) ** extra
                optimizer.step()
            change = model.q.weight.detach() - before
            h = model.ln_1(model.emb(x) + model.pos(torch.arange(LENGTH))).detach()
            total += float((h @ change.T).square().mean().sqrt())
        sizes.append(total * (width / 64) ** 0.5)  # over the fold
    logs = torch.tensor(widths).double().log2()
    logs -= logs.mean()
    return float((logs * torch.tensor(sizes).double().log2()).sum() / logs.square().sum())


@pytest.mark.slow
def test_updates_are_of_one_size_once_features_are_learnt() -> None:
    """The rate of the symmetry is right; √r more, which evens the first step, grows with width."""
    assert abs(slope(0.0)) < 0.2
    assert slope(0.5) > 0.25
