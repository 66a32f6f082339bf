"""What takes the steps of a check when they are those of a training loop, and whom clipping holds.

The loop itself is of another room; here stands only what a check asks of it.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from thetaone.errors import UnknownOptimizerError
from thetaone.parametrization.reading import parameters_of
from thetaone.parametrization.rules import GRADIENT, update_family
from thetaone.records import TrainingLoop

_FUSED = (torch.optim.Adam, torch.optim.AdamW)  # they refuse sparse gradients in any case


class Descends(Protocol):
    """What steps a model down its loss as a training loop says.

    Attributes:
        factor: Of the last step, on every rate.
    """

    factor: float

    @property
    def kept(self) -> float:
        """Share that clipping left of the last step's gradients."""
        ...

    def step(self, batch: Any, /) -> float:
        """Step on a batch; the loss before it."""
        ...


class MakeDescent(Protocol):
    """Makes what steps a model, from a loop."""

    @property
    def loop(self) -> TrainingLoop:
        """What a step does beside the optimizer's update."""
        ...

    def __call__(self, model: nn.Module, optimizer: torch.optim.Optimizer, /) -> Descends:
        """What steps this model."""
        ...


def gradient_followers(model: nn.Module, optimizer: torch.optim.Optimizer) -> frozenset[str]:
    """The parameters whose step shrinks as their gradient does: those that SGD takes.

    Of any other family the step forgets the gradient's size, and clipping does not change it.

    Args:
        model: Whose parameters are named.
        optimizer: Its optimizer, perhaps of several members.
    """
    names = {id(p): name for name, p in parameters_of(model).items()}
    followers: set[str] = set()
    for member in getattr(optimizer, "members", [optimizer]):
        try:
            follows = update_family(type(member)) is GRADIENT
        except UnknownOptimizerError:  # of the user's own callable: nothing is known of its steps
            continue
        if follows:
            followers |= {names[id(p)] for g in member.param_groups for p in g["params"]}
    return frozenset(followers)


def fuse(optimizer: torch.optim.Optimizer) -> None:
    """Let Adam's steps on the CPU pass over memory once, not seven times: the formula is the same.

    Where the user asked for one of torch's implementations, that one runs.

    Args:
        optimizer: Of torch's own class, perhaps with several members; others are left alone.
    """
    for member in getattr(optimizer, "members", [optimizer]):
        for group in member.param_groups if type(member) in _FUSED else ():
            chosen = group["fused"] is not None or group["foreach"] is not None
            others = group["capturable"] or group["differentiable"]
            if not chosen and not others and all(map(_is_plain, group["params"])):
                group["fused"] = True


def _is_plain(p: Tensor) -> bool:
    return type(p) is nn.Parameter and p.device.type == "cpu" and p.dtype is torch.float32
