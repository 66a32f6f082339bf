"""Checks of numbers that live on a device: the host waits for it once a call, not once a check."""

from collections.abc import Callable, Sequence
from math import isfinite

import torch
from torch import Tensor

_MOST = 4  # checks that wait: what a refusal would name stays in memory until they are read [count]


class HostChecks:
    """Numbers that Python must branch on, collected and read back in one transfer.

    Examples:
        >>> checks = HostChecks()
        >>> checks.add((torch.tensor(2.0), torch.tensor(True)), print)
        >>> checks.settle()
        [2.0, 1.0]
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Sequence[Tensor], Callable[[Sequence[float]], None]]] = []

    def add(self, numbers: Sequence[Tensor], act: Callable[[Sequence[float]], None]) -> None:
        """Have ``act`` called with the numbers, tensors of one element each, when they are read."""
        self._pending.append((numbers, act))

    def add_finite(self, values: Tensor, refuse: Callable[[], None]) -> None:
        """Have ``refuse`` called when a value is NaN or infinite; it may find that none is.

        One pass: the sum is read, which may overflow though no value is infinite.
        """

        def act(total: Sequence[float]) -> None:
            if not isfinite(total[0]):
                refuse()

        if len(self._pending) >= _MOST:
            self.settle()
        self._pending.append(((values.detach().sum(),), act))

    def settle(self) -> None:
        """Read all numbers and act on them, in the order in which they were added."""
        pending, self._pending = self._pending, []
        numbers = [number for some, _ in pending for number in some]
        read = _numbers(torch.stack(numbers)) if len(numbers) > 1 else [n.item() for n in numbers]
        start = 0
        for some, act in pending:
            act(read[start : start + len(some)])
            start += len(some)


def _numbers(promoted: Tensor) -> list[float]:
    """The entries of a vector, in one read: stacked numbers share one dtype."""
    try:
        return promoted.tolist()
    except RuntimeError:  # what torch.func wraps has no storage to list before torch 2.10
        return [one.item() for one in promoted]
