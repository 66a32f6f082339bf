"""What stands for a block's output while the model's own loop has it in hand.

A section that runs as one nested tree has no output of a single block to give. A loop that only
hands it on does not notice; one that computes with it, keeps it or returns it must not get another.
"""

from collections.abc import Iterable
from typing import Any

import torch

from thetaone.rematerialization.blocks import Refusing, is_nested, leaves_of


class Placeholder(Refusing):
    """Stands for a tensor that a block returned, to be handed to the next block and nothing else.

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

    def reason(self) -> str:
        """Why it cannot be read, and what to do."""
        return (
            f"the model uses the output of {self.name} itself and does not only hand it to "
            "the next block: regions span blocks only where nothing else happens to it. Call "
            "rematerialize again with a sample that is used like this: the blocks are then "
            "recomputed one by one"
        )


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

    They see no saved-tensor hooks, or cannot follow them; or hooks are disabled altogether.
    """
    keys = torch._C._TorchDispatchModeKey
    return (
        torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore
        or torch.jit.is_tracing()
        or torch.compiler.is_exporting()
        or torch._C._get_dispatch_mode(keys.PROXY) is not None
        or torch._C._get_dispatch_mode(keys.FAKE) is not None
        or not torch._C._autograd._saved_tensors_hooks_is_enabled()  # pyright: ignore
    )
