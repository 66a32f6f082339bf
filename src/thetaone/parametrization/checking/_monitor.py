"""Watches a real training: weight norm, update norm and alignment, every so many steps."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from thetaone.errors import InputError
from thetaone.laws import rms_operator_norm
from thetaone.parametrization.checking._alignment import Listener, outputs_first
from thetaone.parametrization.checking._operands import NORM_TOLERANCE
from thetaone.parametrization.reading import canonical, rms_of
from thetaone.records import SpectralReading

_DEAD_AFTER = 2  # silent readings in a row: behind a zero matrix the first has no gradient
_SUMS = 256  # of a weight, by which it is known again at the next reading
_PARALLEL = 1e-3  # relative; what is off by more did not merely shrink, however it is rounded


class MonitorWarning(UserWarning):
    """A reading was left out; the training goes on."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """A matrix: its owner and name there, the module that reads it and its name from there."""

    layer: str
    module: nn.Module
    local: str
    reader: nn.Module
    read_as: str

    @property
    def weight(self) -> Tensor:
        """The weight as it is now; its shard under FSDP."""
        return getattr(self.module, self.local)


class SpectralMonitor:
    """Reads every matrix around one step in ``every``; between readings it does nothing.

    On a reading step it keeps a copy of the weights and a few rows of each layer's input. Sharded
    weights are gathered one at a time, so every process must have a monitor. In a compiled model
    the inputs are not seen and alignment is NaN. A reading that fails is left out with a
    ``MonitorWarning``: a monitor never ends a training.

    A layer is dead when two readings in a row found no gradient, or no update but decay: its
    parameter is in no group of the optimizer, or in one of rate 0, and nothing else moved it since
    the reading before. A parameter that needs no gradient any more is frozen, not dead.

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
        self._still: dict[str, int] = {}
        self._before: dict[str, Tensor] = {}
        self._gradients: dict[str, float | None] = {}
        self._optimizer = optimizer
        self._rates: dict[int, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._watched = _matrices(model)
        self._listeners = {id(one.reader): Listener(one.reader) for one in self._watched}
        self._hooks = [
            optimizer.register_step_pre_hook(self._guarded(self._before_step)),
            optimizer.register_step_post_hook(self._guarded(self._after_step)),
            *(h for one in self._listeners.values() for h in one.attach(self._is_due)),
        ]

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
        for hook in self._hooks:
            hook.remove()

    def _is_due(self) -> bool:
        return self._steps % self.every == 0

    def _guarded(self, act: Callable[[], None]) -> Callable[..., None]:
        """A hook that warns where it would raise: to watch must not be to interfere."""

        def hook(*_: Any) -> None:
            step = self._steps
            try:
                act()
            except Exception as error:
                self._before = {}
                warnings.warn(
                    f"step {step} could not be read ({type(error).__name__}: {error}); the "
                    "training goes on, without this reading",
                    MonitorWarning,
                    stacklevel=2,
                )

        return hook

    def _before_step(self) -> None:
        if self._is_due():
            self._before = {one.layer: one.weight.detach().clone() for one in self._watched}
            self._rates = {
                id(parameter): float(group.get("lr", 1.0))
                for group in self._optimizer.param_groups
                for parameter in group["params"]
            }

    def _after_step(self) -> None:
        try:
            if self._before:  # gradients are read now: a closure makes them inside the step
                self._gradients = {one.layer: _size(one.weight.grad) for one in self._watched}
                self._read()
        finally:
            self._before = {}
            for listener in self._listeners.values():
                listener.clear()
            self._steps += 1

    @torch.no_grad()
    def _read(self) -> None:
        for one in self._watched:
            before = _whole(self._before[one.layer])
            after = _whole(one.weight.detach())
            update = after - before
            size, moved = _norm(one.module, before), _norm(one.module, update)
            aligned = float("nan")
            if math.isfinite(moved) and moved > 0:
                listener = self._listeners[id(one.reader)]
                aligned = listener.alignment(one.read_as, update, moved)
            silent = self._is_silent(one, moved, _sums(before), _sums(after))
            self.readings.append(
                SpectralReading(
                    step=self._steps,
                    layer=one.layer,
                    weight_norm=size,
                    update_norm=moved,
                    alignment=aligned,
                    status=self._status(one.layer, size, moved, silent=silent),
                )
            )

    def _is_silent(self, one: _Watched, moved: float, before: Tensor, after: Tensor) -> bool:
        """Whether a layer does not learn: no gradient, or no step since the last reading.

        One that this optimizer does not step may be another's: then it moved in between.
        """
        earlier = self._sums.get(one.layer, before)
        self._sums[one.layer] = after
        if not one.weight.requires_grad:
            return False
        if self._gradients[one.layer] == 0:
            return True
        stepped = moved > 0 and self._rates.get(id(one.weight), 0.0) != 0
        rounding = torch.finfo(one.weight.dtype).eps * 8 * self.every**0.5
        return not stepped and _only_shrank(earlier, after, min(rounding, _PARALLEL))

    def _status(self, layer: str, size: float, moved: float, *, silent: bool) -> str:
        first = self._first.get(layer, 0.0) or size  # a matrix of zeros grows from its next value
        self._first[layer] = first
        if not math.isfinite(size + moved) or (first > 0 and size + moved > self.limit * first):
            return "exploding"
        self._still[layer] = self._still.get(layer, 0) + 1 if silent else 0
        return "dead" if self._still[layer] >= _DEAD_AFTER else "ok"


def _matrices(model: nn.Module) -> list[_Watched]:
    """The trained weights of two axes and more; a tied one by the name of its first owner."""
    watched: list[_Watched] = []
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for local, weight in module.named_parameters(recurse=False):
            if weight.dim() > 1 and weight.requires_grad and id(weight) not in seen:
                seen.add(id(weight))
                name = canonical(f"{prefix}.{local}").removeprefix(".")
                parent, _, part = prefix.rpartition(".")
                owner = model.get_submodule(parent) if prefix else module
                reads = isinstance(owner, nn.MultiheadAttention) and owner is not module
                reader, read_as = (owner, f"{part}.{local}") if reads else (module, local)
                layer = name.removesuffix(".weight")
                watched.append(_Watched(layer, module, local, reader, read_as))
    return watched


def _norm(module: nn.Module, weight: Tensor) -> float:
    """Induced RMS→RMS norm; the largest of a stack; of an embedding, the RMS of its rows."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or not math.isfinite(rms_of(weight)):
        return rms_of(weight)
    kernel = isinstance(module, nn.modules.conv._ConvNd)
    turned = outputs_first(module, weight).float()
    stacked = turned.dim() > 2 and not kernel
    return float(rms_operator_norm(turned, NORM_TOLERANCE, batched=stacked).max())


def _size(gradient: Tensor | None) -> float | None:
    """RMS of a gradient; ``None`` where there is none, or the step comes after it was used."""
    if gradient is None:
        return None
    return rms_of(gradient.coalesce().values() if gradient.is_sparse else gradient)


def _sums(weight: Tensor) -> Tensor:
    """Sums over parts of a weight: they shrink as it does, and change where any entry does."""
    flat = weight.flatten().to(torch.promote_types(weight.dtype, torch.float32))
    return torch.stack([part.sum() for part in flat.chunk(_SUMS)])


def _only_shrank(earlier: Tensor, later: Tensor, tolerance: float) -> bool:
    """Whether decay alone, or nothing, leads from one to the other."""
    if torch.equal(earlier, later):
        return True
    size = torch.linalg.vector_norm(earlier)
    left = torch.linalg.vecdot(earlier, later).real / size**2
    rest = torch.linalg.vector_norm(later - left * earlier)
    return bool((left >= 0) & (left < 1) & (rest <= tolerance * size))


def _whole(weight: Tensor) -> Tensor:
    """A weight that ``fully_shard`` sharded, gathered; one at a time, so that memory suffices."""
    gather = getattr(weight, "full_tensor", None)
    return weight if gather is None else gather()
