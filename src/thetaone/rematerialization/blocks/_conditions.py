"""Under which conditions a chain was measured, and whether a step keeps to them."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from thetaone.records import CONDITIONS
from thetaone.rematerialization.blocks._calls import Call
from thetaone.rematerialization.blocks._chain_blocks import describe_tensor

_SIZES = re.compile(r"(?<=[\[ ])\d+(?=[,\]])")  # in float32[4, 16]


def conditions(activation: torch.Tensor, call: Call, blocks: Iterable[nn.Module]) -> dict[str, str]:
    """What decides the bytes of a step, beside the blocks themselves.

    Args:
        activation: What flows into the first block.
        call: With what else it is called.
        blocks: Those of the chain.
    """
    training, trainable = False, set[torch.Tensor]()
    for module in (module for block in blocks for module in block.modules()):
        training = training or module.training
        trainable.update(
            p for p in module._parameters.values() if p is not None and p.requires_grad
        )
    extra = [describe_tensor(one) + _gradient(one) for one in call.tensors]
    device = activation.device.type
    autocast = torch.is_autocast_enabled(device)
    found = (
        describe_tensor(activation),
        _yes(activation.requires_grad),
        ", ".join(extra) or "none",
        _yes(training),
        f"{sum(p.numel() for p in trainable):,}",
        str(torch.get_autocast_dtype(device)).removeprefix("torch.") if autocast else "no",
    )
    return dict(zip(CONDITIONS, found, strict=True))


def differences(planned: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Why a step may need more than what was planned; empty when it does not.

    Evaluating, freezing, an input that needs no gradient and a smaller batch take no more.
    """
    less = {
        "input": _smaller(planned.get("input", ""), now["input"]),
        "input gradient": now["input gradient"] == "no",
        "extra tensors": _smaller(planned.get("extra tensors", ""), now["extra tensors"]),
        "training": now["training"] == "no",
        "trainable": _count(now["trainable"]) <= _count(planned.get("trainable", "0")),
    }
    return "; ".join(
        f"{name} was {planned.get(name, 'not noted')}, is {value}"
        for name, value in now.items()
        if planned.get(name) != value and not less.get(name, False)
    )


def _smaller(planned: str, now: str) -> bool:
    """Whether described tensors differ in their sizes alone, and none of these is larger."""
    if now == "none":
        return True
    numbers, before = (list(map(int, _SIZES.findall(text))) for text in (now, planned))
    alike = _SIZES.sub("", now) == _SIZES.sub("", planned)
    return alike and all(a <= b for a, b in zip(numbers, before, strict=True))


def _gradient(tensor: torch.Tensor) -> str:
    return " with gradient" if tensor.requires_grad else ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _count(text: str) -> int:
    return int(text.replace(",", ""))
