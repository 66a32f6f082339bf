"""What a search of a block's reach comes back with."""

import re
import types
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from thetaone.rematerialization.blocks.state._code import origin
from thetaone.rematerialization.blocks.state._generators import REWINDING
from thetaone.rematerialization.blocks.state._holders import Holder

ATOMS = (
    type(None), bool, int, float, complex, str, bytes, type, Enum, range, slice, re.Pattern,
    PurePath, types.ModuleType, types.EllipsisType, np.generic, np.dtype, torch.dtype, torch.device,
    torch.Size, torch.layout, torch.memory_format,
)  # fmt: skip
# of those, a class and a module hold values that code may change
PLAIN = tuple(one for one in ATOMS if one not in (type, types.ModuleType))

MOVING = frozenset(("data", "numpy", "no_grad", "inference_mode", "update_parameters"))
_IN_PLACE = re.compile(r"[a-z]\w*[a-z0-9]_")


@dataclass
class Reached:
    """What some code can reach.

    Attributes:
        holders: All whose contents may change.
        generators: Random generators.
        refused: Paths of what has a state that cannot be read back, with what it is.
        caches: Functions that remember their results, as ``functools.cache`` makes them.
        names: All that reachable code names.
        codes: That code.
    """

    holders: list[Holder] = field(default_factory=list[Holder])
    generators: list[Any] = field(default_factory=list[Any])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    caches: list[Any] = field(default_factory=list[Any])
    names: set[str] = field(default_factory=set[str])
    codes: set[types.CodeType] = field(default_factory=set[types.CodeType])

    @property
    def rewinds(self) -> bool:
        """Whether a generator may be drawn from and be put back, so that no draw is seen of it."""
        return not REWINDING.isdisjoint(self.names)

    @cached_property
    def moves(self) -> bool:
        """Whether code names what may change a tensor in place: ``weight.data``, ``mul_``."""
        return not MOVING.isdisjoint(self.names) or any(map(_IN_PLACE.fullmatch, self.names))


def is_shallow(value: Any) -> bool:
    """Whether a value holds nothing that could change unseen, or is a tensor or array."""
    if isinstance(value, (*PLAIN, torch.Tensor)):
        return True
    if isinstance(value, type | types.ModuleType):
        return origin(getattr(value, "__module__", None) or value.__name__) == "closed"
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    return isinstance(value, tuple | frozenset) and all(map(is_shallow, value))
