"""What a task is: the only thing a user has to bring."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Task(Protocol):
    """A family of models, one per width, with data and a loss.

    Any object or module with these three callables is a task. Optional:
    ``evaluate(model) -> float`` (lower is better), a second argument ``depth`` of ``model``, and a
    mapping ``defaults`` with what to use when the caller gives none: ``widths``, ``lrs``,
    ``seeds`` (sequences) and ``steps`` (count).
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
