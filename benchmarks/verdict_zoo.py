"""Small tasks in many spellings, right under the prescription, and faults to plant in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import thetaone as t1

BASE = 32
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ZooTask:
    """A task whose models and data are those of a family of seeds.

    Attributes:
        make: Width to model.
        tokens: Whether inputs are token ids (6 × 12 of 48), else 64 × 16 numbers.
        classes: Of the random labels.
        family: Shifts every seed, so that two families share nothing.
    """

    make: Callable[[int], nn.Module]
    tokens: bool = False
    classes: int = 10
    family: int = 0

    def model(self, width: int) -> nn.Module:
        torch.rand(self.family)
        return self.make(width)

    def batches(self, seed: int) -> Iterator[Batch]:
        g = torch.Generator().manual_seed(seed + 1000 * self.family)
        while True:
            x = torch.randint(48, (6, 12), generator=g) if self.tokens else None
            size = (6, 12) if self.tokens else (64,)
            yield (
                torch.randn(64, 16, generator=g) if x is None else x,
                torch.randint(self.classes, size, generator=g),
            )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())


def perceptron(width: int, norm: bool = False, zero: bool = False) -> nn.Module:
    model = nn.Sequential()
    for name, fan_in in (("first", 16), ("mid", width)):
        model.add_module(name, nn.Linear(fan_in, width))
        if norm:
            model.add_module(f"{name}_norm", nn.LayerNorm(width))
        model.add_module(f"{name}_relu", nn.ReLU())
    readout = nn.Linear(width, 10)
    if zero:
        nn.init.zeros_(readout.weight)
        nn.init.zeros_(readout.bias)
    model.add_module("readout", readout)
    return model


def normed_weights(width: int) -> nn.Module:
    layers = nn.Linear(16, width), nn.Linear(width, width), nn.Linear(width, 10)
    a, b, c = (weight_norm(layer) for layer in layers)
    return nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)


class Block(nn.Module):
    """A block of a transformer; ``heads`` of growing size or growing in number."""

    def __init__(self, width: int, fused: bool, growing: bool) -> None:
        super().__init__()
        self.size, self.fused = (width // 2 if growing else 8), fused
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln_1(x)
        q, k, v = (
            f(h).unflatten(2, (-1, self.size)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        if self.fused:
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            logits = q @ k.mT / self.size**0.5
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            a = logits.masked_fill(mask, -torch.inf).softmax(-1) @ v
        x = x + self.o(a.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class Transformer(nn.Module):
    def __init__(
        self, width: int, *, fused: bool = True, growing: bool = False, tied: bool = False,
        std: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.wte, self.wpe = nn.Embedding(48, width), nn.Embedding(12, width)
        self.blocks = nn.ModuleList([Block(width, fused, growing)])
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, 48, bias=False)
        for module in self.modules():
            if std and isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=std)
        if tied:
            nn.init.normal_(self.wte.weight, std=0.05)
            self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


class TokenModel(nn.Module):
    """An embedding, a body of any kind, a readout."""

    def __init__(self, width: int, body: nn.Module) -> None:
        super().__init__()
        self.emb, self.body, self.head = nn.Embedding(48, width), body, nn.Linear(width, 48)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.body(self.emb(tokens))
        return self.head(h[0] if isinstance(h, tuple) else h)


class MultiHead(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.attn(h, h, h, need_weights=False)[0]


class RawEinsum(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(width, width // 8, 8) / width**0.5)
        self.w2 = nn.Parameter(torch.randn(width // 8, 8, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("btd,dhk->bthk", x, self.w1).relu()
        return x + torch.einsum("bthk,hkd->btd", h, self.w2)


class Convolutional(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(1, width, 3, padding=1), nn.GroupNorm(4, width)
        self.mid, self.readout = nn.Conv1d(width, width, 3, padding=1), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x[:, None])).relu()
        return self.readout(self.mid(h).relu().mean(-1))


class Gated(nn.Module):
    """Two experts and a soft router."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.router = nn.Linear(16, width), nn.Linear(width, 2)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.readout = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        gates = self.router(h).softmax(-1)
        mixed = sum(gates[:, i, None] * expert(h) for i, expert in enumerate(self.experts))
        return self.readout(torch.as_tensor(mixed).relu())


class Residual(nn.Module):
    """Branches with LayerScale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(16, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale, self.readout = nn.Parameter(torch.full((width,), 0.5)), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.readout((h + self.scale * self.down(self.up(self.norm(h)).relu())).relu())


class Mixing(nn.Module):
    """Tokens of fixed number mixed by a fixed matrix, then channels: a graph network's step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("adjacency", torch.full((12, 12), 1 / 12))
        self.mine, self.neighbours = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.mine(x) + self.neighbours(self.get_buffer("adjacency") @ x)).relu()


TASKS: dict[str, Callable[[int], ZooTask]] = {
    "perceptron": lambda f: ZooTask(perceptron, family=f),
    "normed": lambda f: ZooTask(lambda w: perceptron(w, norm=True), family=f),
    "zero readout": lambda f: ZooTask(lambda w: perceptron(w, zero=True), family=f),
    "weight norm": lambda f: ZooTask(normed_weights, family=f),
    "convolution": lambda f: ZooTask(Convolutional, family=f),
    "experts": lambda f: ZooTask(Gated, family=f),
    "LayerScale": lambda f: ZooTask(Residual, family=f),
    "nanoGPT": lambda f: ZooTask(lambda w: Transformer(w, std=0.02), True, 48, f),
    "transformer": lambda f: ZooTask(Transformer, True, 48, f),
    "growing heads": lambda f: ZooTask(lambda w: Transformer(w, growing=True), True, 48, f),
    "plain attention": lambda f: ZooTask(lambda w: Transformer(w, fused=False), True, 48, f),
    "growing, plain": lambda f: ZooTask(
        lambda w: Transformer(w, fused=False, growing=True), True, 48, f
    ),
    "tied": lambda f: ZooTask(lambda w: Transformer(w, tied=True), True, 48, f),
    "multi-head": lambda f: ZooTask(lambda w: TokenModel(w, MultiHead(w)), True, 48, f),
    "einsum": lambda f: ZooTask(lambda w: TokenModel(w, RawEinsum(w)), True, 48, f),
    "LSTM": lambda f: ZooTask(
        lambda w: TokenModel(w, nn.LSTM(w, w, batch_first=True)), True, 48, f
    ),
    "graph": lambda f: ZooTask(lambda w: TokenModel(w, Mixing(w)), True, 48, f),
}

Edit = Callable[[nn.Module, torch.optim.Optimizer, float], None]


def rate(layer: str, power: float) -> Edit:
    """Multiply the rate of a parameter with r^power."""

    def edit(model: nn.Module, optimizer: torch.optim.Optimizer, r: float) -> None:
        of(optimizer, model.get_parameter(layer))["lr"] *= r**power

    return edit


def option(layer: str, name: str, value: float, power: float = 0.0) -> Edit:
    """Give a parameter ``value · r^power`` for an option of its group."""

    def edit(model: nn.Module, optimizer: torch.optim.Optimizer, r: float) -> None:
        of(optimizer, model.get_parameter(layer))[name] = value * r**power

    return edit


def initial(layer: str, power: float, to: float | None = None) -> Edit:
    """Multiply initial values with r^power, of values set to ``to`` where it is given."""

    @torch.no_grad()
    def edit(model: nn.Module, optimizer: torch.optim.Optimizer, r: float) -> None:
        parameter = model.get_parameter(layer)
        if to is not None:
            parameter.fill_(to)
        parameter.mul_(r**power)

    return edit


def of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Any]:
    """The group of a parameter."""
    return next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))


def planted(task: ZooTask, cls: Any, edit: Edit, **options: Any) -> Any:
    """A parametrization that is right but for one edit: ``(model, width, lr) -> optimizer``."""

    def build(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        with torch.random.fork_rng():
            base = task.model(BASE)
        right = t1.parametrize(model, base=base, optimizer=cls, lr=lr, **options)
        groups = [{**g, "params": [p]} for g in right.param_groups for p in g["params"]]
        optimizer = cls([{k: v for k, v in g.items() if k != "lr_factor"} for g in groups], lr=lr)
        edit(model, optimizer, width / BASE)
        return optimizer

    return build


def faults(
    first: str, mid: str, readout: str, gain: str, shift: str
) -> dict[str, tuple[str, Edit]]:
    """Faults by name: the parameter at fault, and the edit.

    Args:
        first: An input matrix or embedding.
        mid: A hidden matrix.
        readout: The readout.
        gain: A gain.
        shift: A bias.
    """
    return {
        "input starts as √r": (first, initial(first, 0.5)),
        "input rate grows": (first, rate(first, 1)),
        "hidden starts as √r": (mid, initial(mid, 0.5)),
        "hidden rate constant": (mid, rate(mid, 1)),
        "hidden rate lazy": (mid, rate(mid, -0.75)),
        "readout starts as in SP": (readout, initial(readout, 0.5)),
        "readout rate constant": (readout, rate(readout, 1)),
        "readout rate lazy": (readout, rate(readout, -1)),
        "gain starts as √r": (gain, initial(gain, 0.5)),
        "gain rate falls": (gain, rate(gain, -1)),
        "bias starts as √r": (shift, initial(shift, 0.5, to=0.1)),
        "bias rate grows": (shift, rate(shift, 1)),
        "ε not scaled": (mid, option(mid, "eps", 1e-2)),
        "decay grows": (mid, option(mid, "weight_decay", 2.0, 2)),
    }


PLACES = {
    "normed": ("first.weight", "mid.weight", "readout.weight", "mid_norm.weight", "mid.bias"),
    "convolution": ("first.weight", "mid.weight", "readout.weight", "norm.weight", "mid.bias"),
    "LayerScale": ("first.weight", "up.weight", "readout.weight", "norm.weight", "up.bias"),
    "transformer": (
        "wte.weight", "blocks.0.up.weight", "head.weight", "blocks.0.ln_2.weight",
        "blocks.0.up.bias",
    ),
    "nanoGPT": (
        "wte.weight", "blocks.0.down.weight", "head.weight", "ln_f.weight", "blocks.0.up.bias",
    ),
}  # fmt: skip
