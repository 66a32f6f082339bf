"""What a task is: the only thing a user has to bring; and what its loss has to be."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from thetaone.errors import TaskError


@runtime_checkable
class Task(Protocol):
    """A family of models, one per width, with data and a loss.

    Any object or module with these three callables is a task. Optional:
    ``evaluate(model) -> float`` (lower is better), a second argument ``depth`` of ``model``, and a
    mapping ``defaults`` with what to use when the caller gives none: ``widths``, ``lrs``,
    ``seeds`` (sequences) and ``steps`` (count). How it is trained it may say by attributes:
    ``optimizer`` (class or name), ``options`` of its constructor (or ``weight_decay``, ``betas``,
    ``eps``, ``momentum``), ``schedule(step, steps) -> factor`` or a name, ``clip``, ``precision``,
    ``accumulate``, ``depth``, ``steps``.
    """

    def model(self, width: int, /) -> Any:
        """A freshly initialized ``torch.nn.Module`` of this width, from torch's global RNG."""
        ...

    def batches(self, seed: int, /) -> Iterator[Any]:
        """An endless or long iterator of batches, the same for the same seed."""
        ...

    def loss(self, model: Any, batch: Any, /) -> Any:
        """A scalar tensor to descend on."""
        ...


def check_loss(value: Any, *, where: str) -> Any:
    """The loss itself, when it is a real scalar that can be descended on.

    Args:
        value: What ``loss(model, batch)`` returned; a ``torch.Tensor``, told by what it can do.
        where: The task's name.

    Raises:
        TaskError: Not a tensor, not a scalar, not floating-point, or without a gradient.

    Examples:
        >>> import torch
        >>> check_loss(torch.ones((), requires_grad=True) * 2, where="mine").item()
        2.0
    """
    if not all(hasattr(value, name) for name in ("ndim", "is_floating_point", "requires_grad")):
        raise TaskError(
            f"loss of task {where} returned a {type(value).__name__}, not a tensor: "
            "return a scalar torch.Tensor (without .item())"
        )
    if value.ndim != 0:
        raise TaskError(
            f"loss of task {where} has shape {tuple(value.shape)}, not a scalar: "
            "reduce it, e.g. with .mean()"
        )
    if not value.is_floating_point():
        raise TaskError(f"loss of task {where} has dtype {value.dtype}: return a real loss")
    if not value.requires_grad:
        raise TaskError(
            f"loss of task {where} does not depend on the model's parameters: compute it from "
            "model(...) without detach() or no_grad()"
        )
    return value
