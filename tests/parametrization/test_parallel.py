"""Blocks side by side are one layer in pieces; packed sequences are sequences."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import thetaone as t1
from tests.parametrization.zoo.probe import slopes
from thetaone.records import Prescription

FEATURES, CLASSES, HEAD = 12, 8, 16
X = torch.randn(3, 5, FEATURES, generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, HEAD) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))


class Heads(nn.Module):
    """An attention whose heads, ever more of them, are modules in a list."""

    def __init__(self, width: int, how: str = "cat") -> None:
        super().__init__()
        self.heads, self.how = nn.ModuleList(Head(width) for _ in range(width // HEAD)), how
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        outs = [head(x) for head in self.heads]
        if self.how == "stack":
            return self.out(torch.stack(outs, -2).flatten(-2))
        return self.out(torch.cat(outs, -1))


class Fused(nn.Module):
    """The same with one layer for all heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (-1, HEAD)).transpose(-2, -3)
            for layer in (self.q, self.k, self.v)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2))


class Net(nn.Module):
    def __init__(self, width: int, attention: Callable[[int], nn.Module], depth: int = 1) -> None:
        super().__init__()
        self.inputs, self.readout = nn.Linear(FEATURES, width), nn.Linear(width, CLASSES)
        self.layers = nn.ModuleList(attention(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.readout(x)


def prescribed(attention: Callable[[int], nn.Module], optimizer: str) -> Prescription:
    wide, narrow = Net(128, attention), Net(32, attention)
    return t1.prescribe(wide, base=narrow, sample=X, optimizer=optimizer)


@pytest.mark.parametrize("how", ["cat", "stack"])
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_heads_in_a_list_are_prescribed_as_one_layer_of_all(how: str, optimizer: str) -> None:
    pieces, whole = prescribed(lambda w: Heads(w, how), optimizer), prescribed(Fused, optimizer)
    for name in ("q", "k", "v"):
        for local in ("weight", "bias"):
            ours = pieces[f"layers.0.heads.7.{name}.{local}"]
            theirs = whole[f"layers.0.{name}.{local}"]
            assert (ours.role, ours.init_factor, ours.lr_factor, ours.eps_factor) == (
                theirs.role, theirs.init_factor, theirs.lr_factor, theirs.eps_factor,
            )  # fmt: skip


def test_each_head_is_orthogonalized_alone() -> None:
    """A semi-orthogonal (16, n) update makes features of √(n / 16) times their input's size."""
    rule = prescribed(Heads, "Muon+AdamW")["layers.0.heads.0.q.weight"]
    assert rule.lr_factor == pytest.approx((32 / 128) ** 0.5)


def test_heads_and_depth_grow_together() -> None:
    deep, shallow = Net(128, Heads, 6), Net(32, Heads, 2)
    folds = {rule.name: rule.fold for rule in t1.prescribe(deep, base=shallow, sample=X).rules}
    assert {name.split(".")[2] for name, fold in folds.items() if fold != 1} == {"out"}
    assert folds["layers.5.out.weight"] == pytest.approx(1 / 3)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "Muon+AdamW"])
def test_changes_keep_their_size_as_heads_grow_in_number(optimizer: str) -> None:
    exponents, fixed = slopes(lambda width: Net(width, Heads), "seq", optimizer)
    wrong = {k: v for k, v in exponents.items() if v > 0.15 or (v < -0.15 and k[0] not in fixed)}
    assert wrong == {}


class Recurrent(nn.Module):
    """Recurrent layers on sequences of several lengths, packed or not."""

    def __init__(self, width: int, kind: str, packed: bool) -> None:
        super().__init__()
        self.inputs = nn.Linear(FEATURES, width)
        self.rnn = getattr(nn, kind)(width, width, num_layers=2, batch_first=True)
        self.readout, self.packed = nn.Linear(width, CLASSES), packed

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x)
        if not self.packed:
            return self.readout(self.rnn(x)[0])
        lengths = torch.tensor([2, 5, 3])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=6)
        return self.readout(out)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_packed_sequences_change_no_rule(kind: str) -> None:
    def rules(packed: bool) -> list[tuple[str, str, float, float]]:
        wide, narrow = Recurrent(64, kind, packed), Recurrent(16, kind, packed)
        read = t1.prescribe(wide, base=narrow, sample=X).rules
        return [(r.name, r.role, r.init_factor, r.lr_factor) for r in read]

    assert rules(True) == rules(False)
