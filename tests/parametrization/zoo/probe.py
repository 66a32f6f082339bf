"""A probe of its own: how sizes and their changes move with width, by hooks and function modes.

A module's output is looked at where the module owns parameters, and the pass's result; a factor
that is folded into a module's parameters is taken off its output again. What goes into softmax,
sigmoid and their like is looked at where it goes in, attention logits of the fused operation too:
no factor can have been folded into those.

Two draws are taken out, which differ from width to width whatever the factors are. The loss is of
what the model's result has changed by: the first result falls as r^-1/2, and with it what it adds
to the first gradients. And which experts ``topk`` picks is said once for all widths: the logits
of a router fall too, so that some tokens change their expert at the first steps, more of them
the wider it is, and each such change is Θ(1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from torch.overrides import TorchFunctionMode

import thetaone as t1
from tests.parametrization.zoo.attention_models import C, T

WIDTHS = (64, 128, 256, 512)
STEPS = (4, 14)
RATES = {"Adam": 2**-9, "AdamW": 2**-9, "SGD": 2**-5, "Muon+AdamW": 2**-9}
INIT = "init"
FUNCTIONS = ("softmax", "sigmoid", "tanh", "exp", "silu", "gelu", "softplus")
Sizes = dict[tuple[str, Any], float]


def inputs(kind: str) -> tuple[Tensor, ...]:
    """Few different samples, so that gradients are of low rank at small widths already."""
    g = torch.Generator().manual_seed(1)
    tokens = torch.randint(6, (3, T), generator=g)
    features = torch.randn(6, C, generator=g)
    ids = torch.randint(3, (6, 3), generator=g)
    image = torch.randn(2, 3, 8, 8, generator=g)
    sequence = torch.randn(3, 5, C, generator=g)
    edges = torch.randint(6, (2, 12), generator=g)
    times, labels = torch.rand(2, generator=g) * 10, torch.randint(10, (2,), generator=g)
    return {
        "tokens": (tokens,), "tokens+seq": (tokens, sequence), "image": (image,), "ids": (ids,),
        "features": (features,), "pair": (features, features.flip(0) + 1), "seq": (sequence,),
        "image+t+y": (image, times, labels), "features+ids": (features, ids),
        "graph": (features, edges),
    }[kind]  # fmt: skip


def loss_of(out: Tensor) -> Tensor:
    g = torch.Generator().manual_seed(2)
    if out.shape[-1] == 1:
        return F.mse_loss(out, torch.randn(out.shape, generator=g))
    flat = out.flatten(0, -2)
    return F.cross_entropy(flat, torch.randint(out.shape[-1], (len(flat),), generator=g))


class Arguments(TorchFunctionMode):
    """Keeps what goes into functions that have a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        argument: Tensor | None = None
        if name == "scaled_dot_product_attention":
            q, k = (one.detach() for one in args[:2])
            k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
            argument = q @ k.mT * (kwargs.get("scale") or q.shape[-1] ** -0.5)
        elif name in FUNCTIONS and _is_plain(args[0]):
            argument = args[0].detach()
        elif name == "topk":
            return _picked(*args, **kwargs)
        if argument is not None:
            count = sum(key.startswith(f"<{name} ") for key in self.seen)
            self.seen[f"<{name} {count}>"] = torch.nan_to_num(argument, 0, 0, 0)
        return func(*args, **kwargs)


def _picked(scores: Tensor, k: int, dim: int = -1) -> tuple[Tensor, Tensor]:
    """As ``topk``: each of as many tokens, whatever the scores."""
    count = scores.shape[dim]
    picked = torch.arange(scores.shape[0])[:, None] + count // k * torch.arange(k)
    return scores.gather(dim, picked % count), picked % count


def _is_plain(value: Tensor) -> bool:
    """No scalar, whose steps may cancel; not inside ``vmap``, where values cannot be kept."""
    return value.numel() > 1 and not is_batchedtensor(value)


@dataclass(frozen=True)
class Watched:
    """A model under its prescription, with hooks."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    x: tuple[Tensor, ...]
    outputs: dict[str, Tensor]

    def look(self) -> tuple[Tensor, dict[str, Tensor]]:
        self.outputs.clear()
        torch.manual_seed(7)
        with Arguments() as arguments:
            out = self.model(*self.x)
        return out, {**self.outputs, **arguments.seen}


def watched(
    make: Callable[[int], nn.Module], kind: str, width: int, optimizer: str, rate: float
) -> Watched:
    model, x = make(width), inputs(kind)
    owners = [
        (name, module) for name, module in model.named_modules()
        if not name or (list(module.parameters(recurse=False)) and "parametrizations" not in name)
    ]  # fmt: skip
    frozen = "skip" if any(not p.requires_grad for p in model.parameters()) else "error"
    roles: dict[str, str] = {}
    if "+" in optimizer:  # at the base width nothing tells them
        wide = t1.prescribe(make(WIDTHS[1]), base=lambda: make(WIDTHS[0]), sample=x, frozen=frozen)
        roles = {rule.name: rule.role for rule in wide.rules if rule.role == "hidden"}
    prescription = t1.prescribe(
        model, base=lambda: make(WIDTHS[0]), sample=x, optimizer=optimizer, frozen=frozen,
        roles=roles,
    )  # fmt: skip
    stepped = t1.parametrize(model, base=prescription, lr=rate, optimizer=optimizer, frozen=frozen)
    folds: dict[str, Tensor] = {}
    for rule in prescription.rules:
        owner, _, local = rule.name.rpartition(".")
        if local != "weight":
            continue  # raw: its module's output may be anything
        folds[owner] = torch.full(rule.shape[:1] if rule.rows else (), rule.fold)
        for row in rule.rows:
            folds[owner][row.start : row.stop] *= row.factor
    outputs: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, taken: object, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if not is_batchedtensor(first):
                outputs[name or "(out)"] = first.detach() / (folds.get(name, 1.0) if name else 1.0)

        return hook

    for name, module in owners:
        module.register_forward_hook(note(name))
    return Watched(model, stepped, x, outputs)


def sizes(one: Watched) -> tuple[Sizes, dict[str, int]]:
    """Sizes at first and of the changes, and the numbers of entries."""
    result, first = one.look()
    initial = result.detach()
    measured: Sizes = {(name, INIT): rms(value) for name, value in first.items()}
    for step in range(1, max(STEPS) + 1):
        one.optimizer.zero_grad()
        loss_of(one.look()[0] - initial).backward()
        one.optimizer.step()
        if step in STEPS:
            _, now = one.look()
            pairs = [(name, now[name], first[name]) for name in first if name in now]
            measured |= {(n, step): rms(a - b) for n, a, b in pairs if a.shape == b.shape}
    return measured, {name: value.numel() for name, value in first.items()}


def rms(value: Tensor) -> float:
    return max(float(value.double().square().mean().sqrt()), 1e-30)


def slopes(
    make: Callable[[int], nn.Module],
    kind: str,
    optimizer: str,
    *,
    slower: float = 1.0,
    seeds: int = 2,
) -> tuple[dict[tuple[str, Any], float], set[str]]:
    """Exponents in width of the seeds' geometric means, and what has as many entries everywhere."""
    torch.set_num_threads(1)
    rows: dict[int, list[Sizes]] = {width: [] for width in WIDTHS}
    counts: list[dict[str, int]] = []
    for width in WIDTHS:
        for seed in range(seeds):
            torch.manual_seed(seed)
            measured, entries = sizes(
                watched(make, kind, width, optimizer, RATES[optimizer] * slower)
            )
            rows[width].append(measured)
            counts.append(entries)
    x = torch.tensor(WIDTHS).double().log2()
    x -= x.mean()
    exponents: dict[tuple[str, Any], float] = {}
    for key in rows[WIDTHS[0]][0]:
        if all(key in one for row in rows.values() for one in row):  # an expert may be idle
            logs = [sum(math.log2(one[key]) for one in row) / seeds for row in rows.values()]
            exponents[key] = float((x * torch.tensor(logs).double()).sum() / x.square().sum())
    fixed = {n for n in counts[0] if len({entries.get(n) for entries in counts}) == 1}
    return exponents, fixed
