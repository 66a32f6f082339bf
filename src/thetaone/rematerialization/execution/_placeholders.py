"""What stands for a block's output while the model's own loop has it in hand.

A section that runs as one nested tree has no output of a single block to give. A loop that only
hands it on does not notice; one that computes with it, keeps it or returns it must not get another.
"""

from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch.utils import _pytree as pytree

from thetaone.errors import RecomputationError
from thetaone.rematerialization.blocks import is_nested, leaves_of


class Placeholder:
    """Stands for a tensor that a block returned, to be handed to the next block and nothing else.

    Not a tensor, so that a compiler that traces the loop takes it for any object.

    Args:
        section: The running section that the block belongs to.
        stage: Which call of the chain returned it.
        place: Which of the tensors of that call.
        name: Of the block, for messages.
    """

    __slots__ = ("name", "place", "section", "stage")

    def __init__(self, section: object, stage: int, place: int, name: str) -> None:
        self.section, self.stage, self.place, self.name = section, stage, place, name

    def __repr__(self) -> str:
        return f"<placeholder for the output of {self.name}>"

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
        _refuse(next(leaf for leaf in leaves if isinstance(leaf, Placeholder)))


def _refuse(placeholder: Placeholder, *_: object) -> NoReturn:
    raise RecomputationError(
        f"the model uses the output of {placeholder.name} itself and does not only hand it to "
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
    setattr(Placeholder, f"__{_name}__", _refuse)


def placeholder_in(leaves: list[Any]) -> Placeholder | None:
    """The first placeholder among some arguments."""
    return next((leaf for leaf in leaves if type(leaf) is Placeholder), None)


def placeholder_among(arguments: Iterable[Any]) -> Placeholder | None:
    """The first placeholder among some arguments or in containers among them."""
    for one in arguments:
        if type(one) is Placeholder:
            return one
        if is_nested(one):
            inner = placeholder_in(leaves_of(one))
            if inner is not None:
                return inner
    return None


def is_running_transform() -> bool:
    """Whether a function transform, an export, a tracer or a mode of fake tensors runs the model.

    They see no saved-tensor hooks, or cannot follow them.
    """
    keys = torch._C._TorchDispatchModeKey
    return (
        torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore
        or torch.jit.is_tracing()
        or torch.compiler.is_exporting()
        or torch._C._get_dispatch_mode(keys.PROXY) is not None
        or torch._C._get_dispatch_mode(keys.FAKE) is not None
    )
