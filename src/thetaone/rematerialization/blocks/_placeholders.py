"""What stands for a block's output while the model's own loop has it in hand.

A chain that runs as one nested tree has no output of a single block to give. A loop that only
hands it on does not notice; one that computes with it, keeps it or returns it must not get another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import torch
from torch.utils import _pytree as pytree

from thetaone.errors import RecomputationError
from thetaone.rematerialization.blocks._calls import Call


@dataclass(frozen=True)
class Passage:
    """How far a chain that ran at once has been handed through the loop.

    Attributes:
        chain: What ran it.
        index: The block whose output this stands for.
        name: Its name.
        output: Of the whole chain.
        call: With what the block was called.
        random: Random state when the chain had run.
    """

    chain: object
    index: int
    name: str
    output: torch.Tensor
    call: Call
    random: list[torch.Tensor]


class Handed:
    """Stands for a block's output, to be handed to the next block and for nothing else.

    Not a tensor, so that a compiler that traces the loop takes it for any object.
    """

    __slots__ = ("passage",)

    def __init__(self, passage: Passage) -> None:
        self.passage = passage

    def __repr__(self) -> str:
        return f"<what stands for the output of {self.passage.name}>"

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse to be looked at.

        Raises:
            RecomputationError: Always; AttributeError where Python asks for a protocol.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse(self)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> NoReturn:
        """Refuse to be computed with.

        Raises:
            RecomputationError: Always.
        """
        leaves = pytree.tree_leaves((args, kwargs))
        _refuse(next(leaf for leaf in leaves if isinstance(leaf, Handed)))


def _refuse(handed: Handed, *_: object) -> NoReturn:
    raise RecomputationError(
        f"the model uses the output of {handed.passage.name} itself and does not only hand it to "
        "the next block: regions span blocks only where nothing else happens to it. Call "
        "rematerialize again with a sample that is used like this: the blocks are then recomputed "
        "one by one"
    )


_OPERATORS = (
    "add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv floordiv mod pow rpow "
    "matmul rmatmul neg pos abs invert and or xor eq ne lt le gt ge getitem setitem len iter "
    "contains bool int float index complex"
)
for _name in _OPERATORS.split():
    setattr(Handed, f"__{_name}__", _refuse)


class Watched(torch.Tensor):
    """A block's real output, which reports when anything is done with it."""

    used: Callable[[], None]
    behind: torch.Tensor

    def __new__(cls, real: torch.Tensor, used: Callable[[], None]) -> Self:
        """Watch a tensor."""
        made = torch.Tensor._make_subclass(cls, torch.empty(0))
        made.behind, made.used = real, used
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Report, and do what was asked for with the real tensor."""
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, Watched):
                leaf.used()
        args, kwargs = pytree.tree_map(unwatched, (args, kwargs or {}))
        return func(*args, **kwargs)


def unwatched(value: Any) -> Any:
    """The real tensor behind a watched one; anything else as it is."""
    return value.behind if isinstance(value, Watched) else value
