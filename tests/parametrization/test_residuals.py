"""Residual connections in many spellings: read as what they add, or refused with the reason."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import RoleError

SHALLOW, DEEP, WIDTH = 2, 8, 8
R = DEEP / SHALLOW
ONES = (1.0, 1.0)


class Block(nn.Module):
    """``how(x, F(x), w)`` with F two layers and w two learned weights."""

    def __init__(self, how: Callable[[Tensor, Tensor, Tensor], Tensor], learned: bool) -> None:
        super().__init__()
        self.up, self.down, self.how = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), how
        self.weights = nn.Parameter(torch.ones(2)) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.tensor(ONES) if self.weights is None else self.weights
        return self.how(x, self.down(self.up(x).relu()), weights)


def lerp_of_difference(x: Tensor, f: Tensor, w: Tensor) -> Tensor:
    y = x + f
    return x + 0.5 * (y - x)


NUMBERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "lerp to the sum": lambda x, f, w: torch.lerp(x, x + f, 0.5),
    "lerp from the sum": lambda x, f, w: torch.lerp(x + f, x, 0.5),
    "lerp with a tensor": lambda x, f, w: torch.lerp(x, x + f, torch.tensor(0.5)),
    "lerp written out": lerp_of_difference,
    "scaled sum in a sum": lambda x, f, w: x + 0.5 * (f + x) - 0.5 * x,
    "mean of a stack": lambda x, f, w: torch.stack([x, f]).mean(0),
    "scaled stack": lambda x, f, w: (w[:, None, None] * torch.stack([x, f])).sum(0),
}
STACKS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "einsum": lambda x, f, w: torch.einsum("l,lbd->bd", w, torch.stack([x, f])),
    "einsum, last axis": lambda x, f, w: torch.einsum("bdl,l->bd", torch.stack([x, f], -1), w),
    "tensordot": lambda x, f, w: torch.tensordot(w, torch.stack([x, f]), dims=1),
    "matrix times vector": lambda x, f, w: torch.stack([x, f], -1) @ w,
    "sum of products": lambda x, f, w: (torch.stack([x, f], 1) * w[:, None]).sum(1),
}


def folds(make: Callable[[int], nn.Module]) -> dict[str, float]:
    """What is folded into each parameter of a target R times as deep as its base."""
    x = torch.randn(3, WIDTH)
    rules = t1.prescribe(make(DEEP), base=make(SHALLOW), sample=x, optimizer="Adam").rules
    return {rule.name: rule.fold for rule in rules}


def outputs(make: Callable[[int], nn.Module]) -> dict[str, float]:
    """The same of modules' outputs."""
    x = torch.randn(3, WIDTH)
    return t1.prescribe(make(DEEP), base=make(SHALLOW), sample=x, optimizer="Adam").outputs


@pytest.mark.parametrize("name", [*NUMBERS, *STACKS])
def test_a_sum_with_numbers_is_read_by_its_terms(name: str) -> None:
    how = {**NUMBERS, **STACKS}[name]
    read = folds(lambda depth: nn.Sequential(*(Block(how, False) for _ in range(depth))))
    for parameter, fold in read.items():
        assert fold == (1 / R if ".down." in parameter else 1), parameter


def viewed(block: Any, x: Tensor, h: Tensor) -> Tensor:
    total = x + h @ block.down.weight.T
    return (total.view(-1, 2, WIDTH // 2) + block.down.bias.view(2, -1)).flatten(1)


def batched(block: Any, x: Tensor, h: Tensor) -> Tensor:
    return torch.baddbmm(x[None], h[None], block.down.weight.T[None])[0] + block.down.bias


def halved(block: Any, x: Tensor, h: Tensor) -> Tensor:
    return ((x + h @ block.down.weight.T).mul(0.5)[None] + block.down.bias).squeeze(0)


def joined(x: Tensor, f: Tensor, w: Tensor) -> Tensor:
    parts = [a + b for a, b in zip(x.chunk(2, -1), f.chunk(2, -1), strict=True)]
    return torch.cat(parts, -1)


UNREAD: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "index_add": lambda x, f, w: x.index_add(0, torch.arange(len(x)), f),
    "scatter_add": lambda x, f, w: x.scatter_add(0, torch.arange(len(x))[:, None].expand_as(x), f),
    "foreach": lambda x, f, w: torch._foreach_add([x], [f])[0],
    "cumsum": lambda x, f, w: torch.stack([x, f]).cumsum(0)[-1],
    "maximum": lambda x, f, w: torch.maximum(x + f, x - f),
    "joined parts": joined,
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_sum_that_is_not_read_is_refused_as_that(name: str) -> None:
    message = r"read as a sum x \+ f\(x\): .* joined again are not read\. Write the sum as x \+"
    with pytest.raises(RoleError, match=message):
        folds(lambda depth: nn.Sequential(*(Block(UNREAD[name], False) for _ in range(depth))))


@pytest.mark.parametrize("total", [viewed, batched, halved])
def test_a_bias_added_after_a_view_of_the_sum_belongs_to_the_branch(
    total: Callable[[Any, Tensor, Tensor], Tensor],
) -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return total(self, x, self.up(x).relu())

    for parameter, fold in folds(lambda d: nn.Sequential(*(Viewed() for _ in range(d)))).items():
        assert fold == (1 / R if ".down." in parameter else 1), parameter


@pytest.mark.parametrize("name", STACKS)
def test_learned_weights_on_the_stream_itself_are_refused_and_the_cure_works(name: str) -> None:
    def make(depth: int) -> nn.Module:
        return nn.Sequential(*(Block(STACKS[name], True) for _ in range(depth)))

    message = r"learned weights \d\.weights not only .* what it is added to: add .* as it is"
    with pytest.raises(RoleError, match=message):
        folds(make)
    cured = folds(
        lambda depth: nn.Sequential(
            *(Block(lambda x, f, w: x + w[0] * f, True) for _ in range(depth))
        )
    )
    assert {name for name, fold in cured.items() if fold != 1} == {
        f"{i}.weights" for i in range(DEEP)
    }


class Parallel(nn.Module):
    """``x + mix(F_1(x), …, F_L(x))``; the mixture may have weights, and each block a gain."""

    def __init__(self, depth: int, mix: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
        self.gains = nn.ParameterList(torch.ones(WIDTH) for _ in range(depth))
        self.weights, self.mix = nn.Parameter(torch.ones(depth)), mix

    def forward(self, x: Tensor) -> Tensor:
        outs = [g * block(x).relu() for g, block in zip(self.gains, self.blocks, strict=True)]
        if self.mix == "mean":
            return self.weights.mean() * (x + torch.stack(outs).mean(0))
        if self.mix == "loop":
            return x + sum(w * out for w, out in zip(self.weights, outs, strict=True))
        return x + torch.einsum("l,lbd->bd", self.weights, torch.stack(outs))


@pytest.mark.parametrize("mix", ["einsum", "loop"])
def test_one_weight_for_all_blocks_cannot_carry_the_factor_of_each(mix: str) -> None:
    with pytest.raises(RoleError, match=r"end in weights, which is one for all blocks: give each"):
        folds(lambda depth: Parallel(depth, mix))


class Stack(nn.Module):
    """Blocks ``h + g * F(h)``, whose gains stand in a list of their own, under a long skip."""

    def __init__(self, depth: int, skip: str) -> None:
        super().__init__()
        self.head, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
        self.gains = nn.ParameterList(torch.ones(WIDTH) for _ in range(depth))
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        h = x = self.head(x)
        outs: list[Tensor] = []
        for gain, block in zip(self.gains, self.blocks, strict=True):
            out = gain * block(h).relu()
            outs.append(out)
            h = torch.lerp(x, h + out, 0.5) if self.skip == "to the start" else h + out
        if self.skip == "mean of all":
            return self.last(x) + self.last(h) + torch.stack(outs).mean(0)
        return x + h if self.skip == "sum" else x + self.last(h)


@pytest.mark.parametrize("skip", ["layer", "sum"])
def test_blocks_under_a_long_skip_are_branches_of_their_own(skip: str) -> None:
    read = folds(lambda depth: Stack(depth, skip))
    for parameter, fold in read.items():
        assert fold == (1 / R if parameter.startswith("gains") else 1), parameter


class Mean(nn.Module):
    """A model whose own mean over its blocks is the factor that depth asks for."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.stack([block(x) for block in self.blocks]).mean(0)


def test_a_mean_over_the_branches_is_not_applied_twice() -> None:
    assert set(folds(Mean).values()) == {1.0}


class Groups(nn.Module):
    """Blocks in groups, each group under a skip connection of its own, all under another."""

    def __init__(self, groups: int, blocks: int) -> None:
        super().__init__()
        self.groups = nn.ModuleList(Stack(blocks, "layer") for _ in range(groups))
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for group in self.groups:
            h = h + group(h)
        return x + self.last(h)


def test_the_branches_that_grow_in_number_are_those_multiplied() -> None:
    more_blocks = folds(lambda depth: Groups(2, depth))
    more_groups = folds(lambda depth: Groups(depth, 2))
    assert {name.split(".")[2] for name, fold in more_blocks.items() if fold != 1} == {"gains"}
    assert set(more_groups.values()) == {1}  # a group is no linear map: its output is multiplied
    assert outputs(lambda depth: Groups(depth, 2)) == {"groups.*": 1 / R}


class BothTerms(nn.Module):
    """``(x + h + G(h)) / 2`` with ``h = x + F(x)``: both F and G are added to x."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.first(x.tanh())
        return torch.lerp(x, h + self.second(h.tanh()), 0.5)


def test_a_stream_inside_another_term_is_taken_apart() -> None:
    read = folds(lambda depth: nn.Sequential(*(BothTerms() for _ in range(depth))))
    assert set(read.values()) == {1 / R}
