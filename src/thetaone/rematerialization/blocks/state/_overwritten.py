"""Stand-ins for tensors that are not at hand, such as large ones that an execution overwrote."""

from collections.abc import Callable
from typing import Any, NoReturn
from weakref import ref

import torch
from torch import nn
from torch.utils import _pytree as pytree

from thetaone.errors import RecomputationError
from thetaone.rematerialization.blocks.state._in_place import SMALL, InPlace, with_leaves


class Refusing:
    """Stands for a tensor that is not at hand: whatever would read it is refused.

    Not a tensor, so that a compiler that traces a loop takes it for any object.
    """

    __slots__ = ()

    def reason(self) -> str:
        """Why it cannot be read, and what to do."""
        raise NotImplementedError

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
        _refuse(next(leaf for leaf in leaves if isinstance(leaf, Refusing)))


def _refuse(one: Refusing, *_: object) -> NoReturn:
    raise RecomputationError(one.reason())


_OPERATORS = (
    "add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv floordiv mod pow rpow "
    "matmul rmatmul neg pos abs invert and or xor eq ne lt le gt ge getitem setitem len iter "
    "contains bool int float index complex"
)
for _name in _OPERATORS.split():
    setattr(Refusing, f"__{_name}__", _refuse)


class Overwritten(Refusing):
    """Stands for a large tensor that the first execution overwrote, and that nobody keeps."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def reason(self) -> str:
        """Why it cannot be read, and what to do."""
        return (
            f"{self.path} is read by the block and overwritten: a recomputation "
            "needs the earlier value, which is large and was not kept. Register it as a "
            "buffer, or keep this block's tape"
        )


class Faded:
    """A tensor that may have gone, or of which each recomputation gets a copy."""

    __slots__ = ("path", "reference")

    def __init__(self, reference: Callable[[], Any], path: str) -> None:
        self.reference, self.path = reference, path

    def forget(self) -> bool:
        """Let go of a tensor that others may keep; whether there was one."""
        large = type(self.reference) is ref
        if large:
            self.reference = _gone
        return large


def light(value: torch.Tensor, path: str, record: InPlace, keep: set[str]) -> Any:
    """What is kept of a tensor that an execution overwrote."""
    if isinstance(value, nn.Parameter):
        return value
    if record.changed:  # in place, before it was overwritten
        return Faded(_gone if record.copy is None else record.copy.clone, path)
    if value.nbytes > SMALL and path not in keep:
        return Faded(ref(value), path)
    return value.detach().requires_grad_(value.requires_grad) if value.grad_fn else value


def earlier(value: Any, fresh: dict[int, Any]) -> Any:
    """What a recomputation finds: ``fresh`` copies of what was changed in place since."""

    def leaf(one: Any) -> Any:
        if isinstance(one, Faded):
            tensor = one.reference()
            return Overwritten(one.path) if tensor is None else tensor
        return fresh.get(id(one), one)

    return with_leaves(value, leaf)


def _gone() -> None:
    return None
