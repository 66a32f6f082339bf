"""Under which conditions a chain was measured, and whether a step keeps to them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from thetaone.records import CONDITIONS
from thetaone.rematerialization.blocks import Call, Flow, describe_tensor, leaves_of

_SIZES = re.compile(r"(?<=[\[ ])\d+(?=[,\]])")  # in float32[4, 16]
_SOME = re.compile(r"some \(bits ([0-9a-f]+)\)")
_TRAINED = re.compile(r"[\d,]+ \(bits ([0-9a-f]+)\)")


class Modes:
    """Which modules of some blocks train, and which parameters are trained, as text.

    It is asked at every step: what it says is written anew only where something differs.

    Args:
        blocks: Those of the chain.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        self.blocks = list(blocks)
        self._search()

    def _search(self) -> None:
        self.modules = [module for block in self.blocks for module in block.modules()]
        self.children = [module._modules for module in self.modules]
        # forwards themselves freeze running statistics, and these keep but a few bytes
        self.told = [module for module in self.modules if not isinstance(module, _NormBase)]
        self.held = [module._parameters for module in self.modules]
        self.structure = list(chain.from_iterable(map(dict.values, self.children)))
        self.state: Any = None
        self.texts = ("", "")

    def now(self) -> tuple[str, str]:
        """The modules that train, and the parameters that are trained."""
        structure = list(chain.from_iterable(map(dict.values, self.children)))
        if len(structure) != len(self.structure) or not all(map(is_, structure, self.structure)):
            self._search()
        parameters = list(chain.from_iterable(map(dict.values, self.held)))
        state = (
            list(map(attrgetter("training"), self.told)),
            list(map(id, parameters)),
            [one is not None and one.requires_grad for one in parameters],
        )
        if state != self.state:
            self.state, self.texts = state, (_training_text(state[0]), _trained_text(parameters))
        return self.texts


def _training_text(flags: list[bool]) -> str:
    if all(flags) or not any(flags):
        return _yes(any(flags))
    return f"some (bits {sum(flag << place for place, flag in enumerate(flags)):x})"


def _trained_text(parameters: Iterable[nn.Parameter | None]) -> str:
    trained, count, seen = 0, 0, set[int]()
    for parameter in parameters:
        if parameter is None or id(parameter) in seen:
            continue
        if parameter.requires_grad:
            trained |= 1 << len(seen)
            count += parameter.numel()
        seen.add(id(parameter))
    return f"{count:,} (bits {trained:x})" if count else "0"


def conditions(flowing: Sequence[torch.Tensor], call: Call, modes: Modes) -> dict[str, str]:
    """What decides the bytes of a step, beside the blocks themselves.

    Args:
        flowing: What flows into the first block.
        call: With what else it is called.
        modes: Of the chain's blocks.
    """
    training, trained = modes.now()
    device = flowing[0].device.type
    autocast = torch.is_autocast_enabled(device)
    values = (
        ", ".join(map(describe_tensor, flowing)),
        _yes(any(one.requires_grad for one in flowing)),
        ", ".join(describe_tensor(one) + _gradient(one) for one in call.tensors) or "none",
        ", ".join(_value(one) for one in leaves_of(call.before) if _matters(one)) or "none",
        training,
        trained,
        str(torch.get_autocast_dtype(device)).removeprefix("torch.") if autocast else "no",
    )
    return dict(zip(CONDITIONS, values, strict=True))


def differences(planned: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Why a step may need more than what was planned; empty when it does not.

    Evaluating, freezing, an input that needs no gradient and a smaller batch take no more.
    """
    less = {
        "input": _smaller(planned.get("input", ""), now["input"]),
        "input gradient": now["input gradient"] == "no",
        "extra tensors": _smaller(planned.get("extra tensors", ""), now["extra tensors"]),
        "extra values": "extra values" not in planned,
        "training": not _training(now["training"]) & ~_training(planned.get("training", "no")),
        "trainable": not _trained(now["trainable"]) & ~_trained(planned.get("trainable", "0")),
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


def _training(text: str) -> int:
    """Which modules train, one bit each in the order of the blocks."""
    match = _SOME.fullmatch(text)
    return int(match.group(1), 16) if match else -(text == "yes")


def _trained(text: str) -> int:
    """Which parameters are trained, one bit each in the order of the blocks."""
    match = _TRAINED.fullmatch(text)
    return int(match.group(1), 16) if match else 0


def _matters(leaf: Any) -> bool:
    return leaf is not None and not isinstance(leaf, torch.Tensor | Flow)


def _value(leaf: Any) -> str:
    """The text of a plain value; of another object only its class is told."""
    if isinstance(leaf, bool | int | float | str | torch.dtype | torch.device | Enum):
        return repr(leaf)
    name = getattr(leaf, "__qualname__", None)
    return name if isinstance(name, str) else type(leaf).__qualname__


def _gradient(tensor: torch.Tensor) -> str:
    return " with gradient" if tensor.requires_grad else ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"
