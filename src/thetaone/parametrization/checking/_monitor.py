"""Watches a real training: weight norm, update norm and alignment, every so many steps."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from thetaone.errors import InputError
from thetaone.parametrization.checking._observe import Matrix, matrices, own_update, weight_norm
from thetaone.parametrization.reading import canonical
from thetaone.records import SpectralReading

_ROWS = 256  # of a layer's input that alignment is measured on


class SpectralMonitor:
    """Reads every matrix around one step in ``every``; between readings it does nothing.

    On a reading step it keeps a copy of the weights and a few rows of each layer's input. Sharded
    weights are gathered one at a time, so every process must have a monitor. In a compiled model
    the inputs are not seen and alignment is NaN.

    Args:
        model: Being trained.
        optimizer: Its optimizer.
        every: Steps between readings [count].
        limit: A weight norm this many times its first reading counts as exploding.

    Attributes:
        readings: All readings so far.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with SpectralMonitor(model, optimizer, every=1) as monitor:
        ...     model(torch.ones(3, 4)).sum().backward()
        ...     optimizer.step()
        >>> round(monitor.readings[0].alignment, 3)
        1.0
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        every: int = 200,
        limit: float = 10.0,
    ) -> None:
        if every < 1 or limit <= 1:
            raise InputError(f"every={every}, limit={limit}: need every >= 1 and limit > 1")
        self.model, self.every, self.limit = model, every, limit
        self.readings: list[SpectralReading] = []
        self._steps = 0
        self._first: dict[str, float] = {}
        self._before: dict[str, Tensor] = {}
        self._matrices: dict[str, Matrix] = {}
        self._inputs: dict[str, Tensor] = {}
        self._forward_hooks: list[Any] = []
        self._step_hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def failures(self) -> list[SpectralReading]:
        """Readings of dead or exploding layers."""
        return [reading for reading in self.readings if reading.status != "ok"]

    def close(self) -> None:
        """Remove every hook."""
        for hook in [*self._step_hooks, *self._forward_hooks]:
            hook.remove()
        self._forward_hooks = []

    def _listen(self) -> None:
        """Keep inputs in the next forward passes, until the step is taken."""
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
                layer = canonical(name + ".").removesuffix(".")
                self._forward_hooks.append(module.register_forward_pre_hook(self._keep(layer)))

    def _keep(self, layer: str) -> Any:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if torch.compiler.is_compiling():  # a compiled graph would keep them at every step
                return
            rows = inputs[0].detach()
            self._inputs[layer] = rows.reshape(-1, rows.shape[-1])[:_ROWS].clone()

        return keep

    def _before_step(self, *_: Any) -> None:
        if self._steps % self.every == 0:
            self._matrices = matrices(self.model)
            self._before = {k: m.weight.detach().clone() for k, m in self._matrices.items()}

    def _after_step(self, *_: Any) -> None:
        if self._before:
            self._read()
            self._before, self._inputs, self._matrices = {}, {}, {}
            for hook in self._forward_hooks:
                hook.remove()
            self._forward_hooks = []
        self._steps += 1
        if self._steps % self.every == 0:
            self._listen()

    def _read(self) -> None:
        modules = {canonical(name): module for name, module in self.model.named_modules()}
        for layer, (weight, lookup, _) in self._matrices.items():
            before = _whole(self._before[layer])
            update = _whole(weight.detach()) - before
            size, moved = weight_norm(before, lookup=lookup), weight_norm(update, lookup=lookup)
            aligned = float("nan")
            if layer in self._inputs and math.isfinite(moved):
                _, aligned = own_update(modules[layer], update, moved, self._inputs[layer])
            first = self._first.setdefault(layer, size)
            self.readings.append(
                SpectralReading(
                    step=self._steps,
                    layer=layer,
                    weight_norm=size,
                    update_norm=moved,
                    alignment=aligned,
                    status=self._status(size, moved, first),
                )
            )

    def _status(self, size: float, moved: float, first: float) -> str:
        grown = first > 0 and size + moved > self.limit * first
        if not math.isfinite(size + moved) or grown:
            return "exploding"
        return "dead" if moved == 0 else "ok"


def _whole(weight: Tensor) -> Tensor:
    """A weight that ``fully_shard`` sharded, gathered; one at a time, so that memory suffices."""
    gather = getattr(weight, "full_tensor", None)
    return weight if gather is None else gather()
