"""One weight used in several ways: by several readouts, or as keys and values of a memory."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1

VOCABULARY, BASE, WIDE = 24, 32, 128
TOKENS = torch.arange(12).reshape(2, 6)


class Exits(nn.Module):
    """Logits after each of two blocks, by the embedding's own weight."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.emb, self.how = nn.Embedding(VOCABULARY, width), how
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.early = nn.LayerNorm(width)
        self.late = self.early if how == "one norm" else nn.LayerNorm(width)
        if how == "one module":
            self.head = nn.Linear(width, VOCABULARY, bias=False)
            self.head.weight = self.emb.weight

    def read(self, x: Tensor) -> Tensor:
        if self.how == "one module":
            return self.head(x)
        if self.how == "chunks":
            return torch.cat([x @ rows.T for rows in self.emb.weight.split(8)], -1)
        return F.linear(x, self.emb.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.emb(tokens)
        if self.how == "mixed rows":
            x = x + self.first(x).mean(-1, keepdim=True).expand(-1, -1, VOCABULARY) @ (
                self.emb.weight
            )
        x = x + self.first(x).relu()
        exits = [self.read(self.early(x))]
        x = x + self.second(x).relu()
        exits.append(self.read(self.late(x)) / (x.shape[-1] if self.how == "one divides" else 1))
        return torch.stack(exits)


def parametrized(make: Callable[[int], nn.Module], width: int, sample: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = make(width)
    t1.parametrize(model, base=lambda: make(BASE), lr=0.01, sample=(sample,))
    return model


@pytest.mark.parametrize("how", ["two norms", "one norm", "one module", "chunks"])
def test_each_readout_of_an_embedding_gets_its_factor(how: str) -> None:
    """Logits of other tokens than the one put in start as r^-1/2, at every exit."""
    other = F.one_hot(TOKENS, VOCABULARY) == 0
    narrow, wide = (
        parametrized(lambda w: Exits(w, how), width, TOKENS)(TOKENS)[:, other].std(1)
        for width in (BASE, WIDE)
    )
    assert (wide / narrow).tolist() == pytest.approx([0.5, 0.5], rel=0.15)


def test_rows_weighted_by_features_are_features_as_rows_looked_up_are() -> None:
    """Soft tokens: the embedding is still one that a readout is tied to."""
    mixed, plain = (
        t1.prescribe(
            Exits(WIDE, how), base=lambda how=how: Exits(BASE, how), optimizer="SGD",
            sample=(TOKENS,),
        )
        for how in ("mixed rows", "two norms")
    )  # fmt: skip
    assert mixed["emb.weight"].lr_factor == plain["emb.weight"].lr_factor == WIDE / BASE


def test_readouts_that_want_different_factors_are_refused() -> None:
    with pytest.raises(t1.ThetaOneError, match=r"several readouts .* want different factors"):
        parametrized(lambda w: Exits(w, "one divides"), WIDE, TOKENS)


class Memory(nn.Module):
    """Slots that are keys and values, the keys first."""

    def __init__(self, width: int, slots: int) -> None:
        super().__init__()
        self.first, self.query = nn.Linear(8, width), nn.Linear(width, width)
        self.slots, self.last = nn.Parameter(torch.randn(slots, width)), nn.Linear(width, 5)
        self.recalled = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(self.first(x).relu())
        scores = (query @ self.slots.T / query.shape[-1] ** 0.5).softmax(-1)
        return self.last(self.recalled(scores @ self.slots))


@pytest.mark.parametrize("slots", [10, BASE])  # as many as features at the base
@pytest.mark.parametrize("width", [WIDE, 8])
def test_slots_that_are_keys_and_values_keep_the_values_size(slots: int, width: int) -> None:
    """And change at the rate of what makes wide features; the query takes the scores' factor."""
    rules = t1.prescribe(
        Memory(width, slots), base=lambda: Memory(BASE, slots), sample=(torch.ones(3, 8),)
    )
    assert (rules["slots"].init_factor, rules["slots"].lr_factor) == (1.0, 1.0)
    ratio = width / BASE
    assert rules["query.weight"].fold == pytest.approx(ratio**-0.5)  # 1/r with the pass's own √


class Recall(nn.Module):
    """A memory under a skip connection, as a Hopfield layer has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb, self.query = nn.Embedding(VOCABULARY, width), nn.Linear(width, width)
        self.slots = nn.Parameter(torch.randn(12, width))
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.last = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.emb(tokens)
        query = self.query(self.before(x))
        scores = (query @ self.slots.T / query.shape[-1] ** 0.5).softmax(-1)
        return self.last(self.after(x + scores @ self.slots))


class RecallTask:
    def model(self, width: int) -> nn.Module:
        return Recall(width)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            tokens = torch.randint(VOCABULARY, (8, 12), generator=generator)
            yield tokens, (5 * tokens + 1) % VOCABULARY

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


@pytest.mark.parametrize(("optimizer", "lr"), [("AdamW", 2**-9), ("SGD", 2**-4)])
def test_the_check_judges_keys_and_values_apart(optimizer: str, lr: float) -> None:
    """By the fans that each use has; the prescription passes, planted faults do not."""
    widths = (128, 256, 512)
    options: dict[str, Any] = {"lr": lr, "optimizer": optimizer, "seeds": 2}
    right = t1.coordinate_check(RecallTask(), widths=widths, **options)
    assert right.passed, str(right)
    wrong = t1.coordinate_check(RecallTask(), widths=widths, roles={"slots": "output"}, **options)
    assert {"slots", "slots transposed"} <= set(wrong.failed_layers), str(wrong)


class TwoUses(nn.Module):
    """One table, looked up twice; the second time a number is put on what comes."""

    def __init__(self, width: int, power: float) -> None:
        super().__init__()
        self.emb, self.number = nn.Embedding(VOCABULARY, width), 3 * width**power
        self.mid, self.last = nn.Linear(width, width), nn.Linear(width, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.emb(tokens) + self.number * self.emb(tokens.roll(1, 1))
        return self.last(self.mid(x).relu())


def test_uses_whose_numbers_change_differently_with_width_are_refused() -> None:
    """As an embedding that an encoder takes times √d and a decoder as it is."""
    with pytest.raises(t1.ThetaOneError, match=r"emb\.weight is used times 1 and times 16\.97 at"):
        parametrized(lambda w: TwoUses(w, 0.5), WIDE, TOKENS)
    rules = t1.prescribe(TwoUses(WIDE, 0), base=lambda: TwoUses(BASE, 0), sample=(TOKENS,))
    assert (rules["emb.weight"].init_factor, rules["emb.weight"].fold) == (1.0, 1.0)
