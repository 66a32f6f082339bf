"""A block's real output, which reports when a model does anything with it but hand it on."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch.utils import _pytree as pytree

from thetaone.errors import ProfileError
from thetaone.rematerialization.blocks import leaves_of


class WatchedOutput(torch.Tensor):
    """Reports the first thing that is done with it, and does it with the real tensor.

    Attributes:
        behind: The real tensor.
        stage: Which call of a block it comes from.
        place: Which of the tensors that the call returned.
    """

    behind: torch.Tensor
    stage: int
    place: int
    used: Callable[[], None]

    def __new__(
        cls, real: torch.Tensor, used: Callable[[], None], *, stage: int, place: int
    ) -> Self:
        """Watch a tensor."""
        watched = torch.Tensor._make_subclass(cls, torch.empty(0))
        watched.behind, watched.used, watched.stage, watched.place = real, used, stage, place
        return watched

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Report, and do what was asked for with the real tensor."""
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, WatchedOutput):
                leaf.used()
        args, kwargs = pytree.tree_map(unwatched, (args, kwargs or {}))
        return func(*args, **kwargs)


def unwatched(value: Any) -> Any:
    """The real tensor behind a watched one; anything else as it is."""
    return value.behind if isinstance(value, WatchedOutput) else value


def refuse_written(outputs: Sequence[torch.Tensor], arguments: Any, before: str, name: str) -> None:
    """Refuse an output that comes past the watch: in a container into which a block wrote it.

    Args:
        outputs: Of the block before.
        arguments: Positional and keyword ones of the next.
        before: Name of the block before.
        name: Of the next.

    Raises:
        ProfileError: It does; the model's own container would not have it.
    """
    args, kwargs = arguments
    outermost = {id(one) for one in (*args, *kwargs.values())}
    inner = [one for one in leaves_of(arguments) if id(one) not in outermost]
    if any(one is old for one in inner for old in outputs):
        raise ProfileError(
            f"{before} writes its output into a container that it is called with, from which "
            f"{name} reads it: what is recomputed runs on copies, and the model would not see it. "
            "Let blocks return what they computed: state = block(state)"
        )
