"""Blocks that can change nothing are not looked at after their forward; in doubt a block is."""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.rematerialization.models import Residual
from thetaone.rematerialization import plan, profile, rematerialize
from thetaone.rematerialization.blocks import Watch
from thetaone.rematerialization.blocks._quiet import is_quiet

LOG: list[float] = []
SCALE = 1.0


class Attention(nn.Module):
    """As models write it: parameters, options, torch's functions, a function beside the class."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.act = 2, nn.functional.gelu
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, self.heads, d // self.heads).unbind(2)
        y = rotated(q) @ k.transpose(-1, -2) / math.sqrt(d) @ v
        return x + self.drop(self.out(self.act(y.reshape(b, t, d)).to(x.dtype)))


def rotated(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


@pytest.mark.parametrize(
    "block", [Attention(), nn.Linear(4, 4), nn.TransformerEncoderLayer(8, 2, 16), Residual(8)]
)
def test_blocks_of_torch_layers_are_quiet(block: nn.Module) -> None:
    assert is_quiet(Watch("block", block))


def counts(block: Any, x: torch.Tensor) -> None:
    block.calls = 1


def counts_by_name(block: Any, x: torch.Tensor) -> None:
    vars(block).update(calls=1)


def sets_by_name(block: Any, x: torch.Tensor) -> None:
    setattr(block, "calls", 1)  # noqa: B010


def sets_past_the_module(block: Any, x: torch.Tensor) -> None:
    object.__setattr__(block, "calls", 1)


def appends(block: Any, x: torch.Tensor) -> None:
    LOG.append(float(x.sum()))


def writes_a_global(block: Any, x: torch.Tensor) -> None:
    global SCALE
    SCALE = 2.0


def switches_a_child(block: Any, x: torch.Tensor) -> None:
    block.linear.train(False)


def hooks_a_child(block: Any, x: torch.Tensor) -> None:
    block.linear.register_forward_hook(print)


def writes_to_the_class(block: Any, x: torch.Tensor) -> None:
    type(block).calls = 1


def replaces_a_child(block: Any, x: torch.Tensor) -> None:
    block.add_module("linear", nn.Linear(8, 8))


def evaluates(block: Any, x: torch.Tensor) -> None:
    exec("block.calls = 1")


@pytest.mark.parametrize(
    "act",
    [
        counts, counts_by_name, sets_by_name, sets_past_the_module, appends, writes_a_global,
        switches_a_child, hooks_a_child, writes_to_the_class, replaces_a_child, evaluates,
    ],
)  # fmt: skip
def test_blocks_whose_code_may_write_are_not(act: Callable[[Any, torch.Tensor], None]) -> None:
    class Acting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            act(self, x)
            return torch.tanh(self.linear(x))

    assert not is_quiet(Watch("block", Acting()))


@pytest.mark.parametrize(
    "hold",
    [
        lambda block: setattr(block, "kept", []),
        lambda block: setattr(block, "kept", torch.zeros(2)),
        lambda block: setattr(block, "act", functools.partial(torch.clamp, min=0.0)),
        lambda block: setattr(block, "act", LOG.append),
        lambda block: block.register_forward_hook(lambda *_: None),
        lambda block: setattr(block, "norm1", nn.BatchNorm1d(8)),
    ],
)
def test_blocks_that_hold_what_may_change_are_not(hold: Callable[[Any], Any]) -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16)
    watch = Watch("block", block)
    assert is_quiet(watch)
    hold(block)
    watch.now()
    assert not is_quiet(watch)


def test_an_argument_that_a_block_calls_may_write_to_it() -> None:
    class Calling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(16, 16), 1.0

        def forward(self, x: torch.Tensor, act: Callable[[Any], None]) -> torch.Tensor:
            act(self)
            return x + torch.tanh(self.linear(x)) * self.scale

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Calling() for _ in range(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x, halve)
            return x

    def halve(block: Any) -> None:
        block.scale /= 2

    x, plain = torch.randn(32, 16), Model()
    model = copy.deepcopy(plain)
    least = plan(profile(model, x), budget="1GiB").peak_bytes
    rematerialize(model, sample=x, budget=int(0.6 * least))
    for one in (plain, model):
        loss = one(x).sum()
        for block in one.blocks:
            setattr(block, "scale", 1.0)  # noqa: B010 - as before the forward, as if it had written nothing
        loss.backward()
    assert [block.scale for block in model.blocks] == [block.scale for block in plain.blocks]
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)  # pyright: ignore[reportArgumentType]
