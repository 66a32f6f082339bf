"""The memory that training really takes: true peaks, by storage."""

from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch

from thetaone._contents import dense_parts
from thetaone.records import format_bytes
from thetaone.rematerialization.accounting._storages import (
    AllocatorPeak,
    StorageTracker,
    key,
    optimizer_tensors,
    storage_bytes,
    tensors_in,
)


class TrainingMemory(StorageTracker):
    """Reports the most bytes alive at once while training steps run inside it.

    Exact on CPU for tensors: every storage born inside counts once, from birth to death, also
    inside backward. Workspace that a kernel allocates and frees by itself is not seen. Where the
    model lives on CUDA, the total is that of the caching allocator, which sees it. Running under
    it costs time: never time a step inside.

    Args:
        model: Its parameters, buffers and gradients count as resident, and gradients born inside
            leave ``activation_peak_bytes`` once they sit in ``.grad``.
        optimizer: Its state likewise.
        tensors: More tensors that exist already and should count as resident (a batch).

    Attributes:
        peak_bytes: Most bytes alive at once of everything born inside.
        live_bytes: Bytes of everything born inside that is alive now.
        activation_peak_bytes: The same peak without gradients of parameters and optimizer state.
        resident_bytes: What existed before: parameters, buffers, gradients, state, ``tensors``.
        total_peak_bytes: ``resident_bytes + peak_bytes``; for a model on CUDA the most that the
            allocator of its devices had given out at once, whoever asked for it.

    Examples:
        >>> model = torch.nn.Linear(8, 4, bias=False)
        >>> with TrainingMemory(model) as memory:
        ...     model(torch.zeros(2, 8)).sum().backward()
        >>> memory.resident_bytes, memory.live_bytes
        (128, 128)
    """

    def __init__(
        self,
        model: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        tensors: Any = (),
    ) -> None:
        super().__init__()
        self.resident_bytes = 0
        self.activation_peak_bytes = 0
        self._model, self._optimizer, self._tensors = model, optimizer, tensors
        self._allocator = AllocatorPeak(())
        self._allocator_peak: int | None = None
        self._state_bytes = 0
        self._state: set[int] = set()
        self._hooks = ExitStack()

    @property
    def activation_bytes(self) -> int:
        """Bytes born inside and alive now, apart from gradients and optimizer state."""
        return self.live_bytes - self._state_bytes

    @property
    def total_peak_bytes(self) -> int:
        """Most bytes alive at once, with what existed before."""
        if self._allocator_peak is not None:  # left
            return self._allocator_peak
        return self._allocator.peak if self._allocator else self.resident_bytes + self.peak_bytes

    def reset_peak(self) -> None:
        """Start the peaks again from what is alive now."""
        super().reset_peak()
        self._allocator.reset()
        self.activation_peak_bytes = self.activation_bytes

    def __enter__(self) -> Self:
        resident = [*self._resident(), *tensors_in(self._tensors)]
        self.resident_bytes = storage_bytes(resident)
        self._allocator = AllocatorPeak(tensor.device for tensor in resident)
        self._allocator_peak = None
        if self._model is not None:
            for parameter in self._model.parameters():
                if parameter.requires_grad:
                    hook = parameter.register_post_accumulate_grad_hook(self._became_gradient)
                    self._hooks.callback(hook.remove)
        if self._optimizer is not None:
            hook = self._optimizer.register_step_post_hook(self._stepped)
            self._hooks.callback(hook.remove)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hooks.close()
        if self._allocator:
            self._allocator_peak = self._allocator.peak
        super().__exit__(kind, error, trace)

    def __str__(self) -> str:
        return (
            f"peak {format_bytes(self.total_peak_bytes)}: {format_bytes(self.resident_bytes)} were "
            f"there, {format_bytes(self.peak_bytes)} came as tensors, of which activations "
            f"{format_bytes(self.activation_peak_bytes)}"
        )

    def _resident(self) -> Iterable[torch.Tensor]:
        if self._model is not None:
            yield from self._model.parameters()
            yield from self._model.buffers()
            yield from (p.grad for p in self._model.parameters() if p.grad is not None)
        if self._optimizer is not None:
            yield from optimizer_tensors(self._optimizer)

    def _became_gradient(self, parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            self._mark([parameter.grad])

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._mark(optimizer_tensors(optimizer))

    def _mark(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count these as state from now on, not as activations."""
        for part in (part for tensor in tensors for part in dense_parts(tensor)):
            entry = self._seen.get(key(part))
            if entry is not None and entry[1] not in self._state:
                self._state.add(entry[1])
                self._state_bytes += entry[2]

    def _change(self, number: int, size: int) -> None:
        if size < 0 and number in self._state:
            self._state.discard(number)
            self._state_bytes += size
        super()._change(number, size)
        self.activation_peak_bytes = max(self.activation_peak_bytes, self.activation_bytes)
