"""Models in as many spellings as people use, small; each is built from one width."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY, LENGTH, FEATURES, CLASSES = 24, 8, 12, 6
HEADS, HEAD = 2, 16


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model of a width, whether it takes tokens, and the word that a refusal must hold."""

    make: Callable[[int], nn.Module]
    tokens: bool = True
    refused: str = ""


def heads(width: int, grow: bool) -> int:
    return HEADS if grow else width // HEAD


class Attention(nn.Module):
    """Self-attention in one of several spellings, heads growing or not."""

    def __init__(self, width: int, spelling: str, grow: bool) -> None:
        super().__init__()
        self.n, self.spelling = heads(width, grow), spelling
        self.proj = nn.Linear(width, width)
        if spelling == "module":
            self.inner = nn.MultiheadAttention(width, self.n, batch_first=True)
        elif spelling in ("fused", "fused sdpa", "interleaved"):
            self.c_attn = nn.Linear(width, 3 * width)
        else:
            self.wq, self.wk, self.wv = (nn.Linear(width, width, bias=False) for _ in range(3))

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "module":
            return self.proj(self.inner(x, x, x, need_weights=False)[0])
        if self.spelling == "interleaved":
            q, k, v = self.c_attn(x).unflatten(-1, (self.n, 3, -1)).permute(3, 0, 2, 1, 4)
        elif self.spelling.startswith("fused"):
            q, k, v = (self.split(z) for z in self.c_attn(x).chunk(3, -1))
        else:
            q, k, v = self.split(self.wq(x)), self.split(self.wk(x)), self.split(self.wv(x))
        d = q.shape[-1]
        if self.spelling.endswith("sdpa"):
            out = F.scaled_dot_product_attention(q, k, v)
        elif self.spelling == "own scale":
            out = F.scaled_dot_product_attention(q, k, v, scale=1 / d)
        elif self.spelling == "einsum":
            logits = torch.einsum("bhid,bhjd->bhij", q, k) * d**-0.5
            out = torch.einsum("bhij,bhjd->bhid", logits.softmax(-1), v)
        elif self.spelling == "cosine":
            out = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * 8).softmax(-1) @ v
        elif self.spelling == "tensor scale":
            out = (q @ k.mT / torch.sqrt(torch.tensor(float(d)))).softmax(-1) @ v
        else:
            out = (q * d**-0.25 @ (k * d**-0.25).mT).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).flatten(2))


RESIDUALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plus": lambda x, f: x + f,
    "in place": lambda x, f: x.clone().add_(f),
    "stack": lambda x, f: torch.stack([x, f]).sum(0),
    "lerp": lambda x, f: torch.lerp(x, f, 0.5),
    "addcmul": lambda x, f: torch.addcmul(x, f, torch.ones_like(f)),
    "damped": lambda x, f: 0.9 * x + f,
}


class Transformer(nn.Module):
    def __init__(
        self,
        width: int,
        spelling: str = "plain",
        grow: bool = True,
        tied: str = "",
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.emb, self.tied = nn.Embedding(VOCABULARY, width), tied
        self.attn, self.ln = Attention(width, spelling, grow), nn.LayerNorm(width)
        self.fc, self.out = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.last = nn.LayerNorm(width) if norm else nn.ReLU()
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        if tied == "module":
            self.head.weight = self.emb.weight
        elif tied in ("function", "matmul"):
            del self.head  # "beside" keeps a head that nothing uses

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.emb(tokens)
        x = x + self.attn(self.ln(x))
        x = self.last(x + self.out(F.gelu(self.fc(x))))
        if self.tied == "function":
            return x @ self.emb.weight.T
        if self.tied in ("matmul", "beside"):
            return F.linear(x, self.emb.weight)
        return self.head(x)


class Perceptron(nn.Module):
    """Features of one kind in the middle of a perceptron."""

    def __init__(self, width: int, middle: nn.Module, residual: str = "plus") -> None:
        super().__init__()
        self.first, self.middle = nn.Linear(FEATURES, width), middle
        self.add, self.last = RESIDUALS[residual], nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(self.add(x, self.middle(x)))


class Raw(nn.Module):
    """Weights as raw parameters, used by one operation."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.how, self.first = how, nn.Linear(FEATURES, width)
        w = torch.randn(width, width) / width**0.5
        self.w = nn.Parameter(
            w if how != "experts" else w.repeat(3, 1, 1) + 0 * torch.randn(3, 1, 1)
        )
        self.gain, self.unembed = (
            nn.Parameter(torch.ones(width)),
            nn.Parameter(torch.randn(width, CLASSES) / width**0.5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu() * self.gain
        if self.how == "experts":
            x = torch.einsum("bd,edk->bek", x, self.w).mean(1)
        elif self.how == "einsum":
            x = torch.einsum("bd,dk->bk", x, self.w)
        elif self.how == "product and sum":
            x = (x[:, None] * self.w).sum(-1)
        else:
            x = x @ self.w
        return x.relu() @ self.unembed


class Scores(nn.Module):
    """A score by a raw vector, used as a weight of wide features (graph attention)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.att = (
            nn.Linear(FEATURES, width),
            nn.Parameter(torch.randn(1, width) / width**0.5),
        )
        self.mix, self.last = nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last((self.mix(h) * (h * self.att).sum(-1, keepdim=True).sigmoid()).relu())


class Siamese(nn.Module):
    """Scores of two encodings by the same encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x) @ self.encoder(x.flip(0)).T


class Summed(nn.Module):
    """A sum over features as they are: refused."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, width), nn.Linear(1, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu().sum(-1, keepdim=True))


class Lora(nn.Module):
    def __init__(self, width: int, merged: bool) -> None:
        super().__init__()
        self.base, self.merged = nn.Linear(width, width), merged
        self.a = nn.Parameter(torch.randn(4, width) / width**0.5)
        self.b = nn.Parameter(torch.randn(width, 4) / 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return F.linear(x, self.base.weight + self.b @ self.a, self.base.bias)
        return self.base(x) + x @ self.a.T @ self.b.T


class Recurrent(nn.Module):
    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.emb = nn.Embedding(VOCABULARY, width)
        self.rnn = getattr(nn, kind)(width, width, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.emb(tokens))[0])


class Deep(nn.Module):
    """A stack of residual blocks."""

    def __init__(self, width: int, depth: int, residual: str) -> None:
        super().__init__()
        self.first, self.add = nn.Linear(FEATURES, width), RESIDUALS[residual]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
            )
            for _ in range(depth)
        )
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = self.add(x, block(x))
        return self.head(self.last(x))


def autoencoder(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, 3), nn.Linear(3, width), nn.ReLU(),
        nn.Linear(width, CLASSES),
    )  # fmt: skip


def middle(width: int, *, residual: str = "plus") -> nn.Module:
    inner = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    return Perceptron(width, inner, residual)


def weight_normed(width: int, dim: int | None) -> nn.Module:
    norm: Any = nn.utils.parametrizations.weight_norm  # torch types dim without its None
    return nn.Sequential(
        nn.Linear(FEATURES, width), nn.ReLU(), norm(nn.Linear(width, width), dim=dim), nn.ReLU(),
        nn.Linear(width, CLASSES),
    )  # fmt: skip


SPELLINGS = ("plain", "fused", "interleaved", "sdpa", "fused sdpa", "own scale", "einsum", "cosine",
             "tensor scale", "module")  # fmt: skip

ZOO: dict[str, Entry] = {
    **{
        f"attention, {spelling}, heads {'grow' if grow else 'in number'}": Entry(
            make=lambda w, s=spelling, g=grow: Transformer(w, s, g)
        )
        for spelling in SPELLINGS
        for grow in (True, False)
    },
    **{
        f"tied by {tied}{'' if norm else ', no norm'}": Entry(
            make=lambda w, t=tied, n=norm: Transformer(w, tied=t, norm=n),
            # past the relu of a sum x + f(x) no one layer can hold the readout's factor, and a
            # readout without a module has no input to hook
            refused="" if norm or tied == "module" else "can be moved into no layer before it",
        )
        for tied in ("module", "function", "matmul")
        for norm in (True, False)
    },
    "tied beside a head of no effect": Entry(
        make=lambda w: Transformer(w, tied="beside"), refused="head.weight .* has no effect on what"
    ),
    **{
        f"residual, {name}": Entry(make=lambda w, n=name: middle(w, residual=n), tokens=False)
        for name in RESIDUALS
    },
    **{
        f"raw, {how}": Entry(make=lambda w, h=how: Raw(w, h), tokens=False)
        for how in ("matmul", "einsum", "product and sum", "experts")
    },
    **{
        f"LoRA, {'merged' if merged else 'beside'}": Entry(
            make=lambda w, m=merged: Perceptron(w, Lora(w, m)), tokens=False
        )
        for merged in (True, False)
    },
    **{k: Entry(make=lambda w, k=k: Recurrent(w, k)) for k in ("RNN", "GRU", "LSTM")},
    **{
        f"weight_norm, dim {dim}": Entry(make=lambda w, d=dim: weight_normed(w, d), tokens=False)
        for dim in (0, 1, None)
    },
    "graph score": Entry(make=Scores, tokens=False),
    "bottleneck": Entry(make=autoencoder, tokens=False),
    "siamese": Entry(make=Siamese, tokens=False),
    "sum of features": Entry(make=Summed, tokens=False, refused="sum in the model runs over"),
}
