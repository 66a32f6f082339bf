"""Watches one small training: how far features and weights of every layer move."""

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from thetaone.errors import TaskError
from thetaone.laws import rms_operator_norm
from thetaone.parametrization.checking._through import through
from thetaone.parametrization.reading import canonical, read_blueprint, rms_of
from thetaone.records import (
    ALIGNMENT,
    FEATURE_UPDATE,
    LOOKUP,
    OWN_UPDATE,
    UPDATE_NORM,
    VECTOR,
    WEIGHT_NORM,
    Task,
)

NORM_TOLERANCE = 0.1  # of the operator norms, which err downwards alike at every width
Key = tuple[str, str, int]  # layer, quantity, step


class Matrix(NamedTuple):
    """A weight as (out, in, …), whether it only picks rows, and the parameter it is."""

    weight: Tensor
    lookup: bool
    parameter: nn.Parameter


@dataclass(slots=True)
class Capture(AbstractContextManager["Capture"]):
    """Outputs of every layer that owns trained parameters, in one forward pass.

    In-place activations would overwrite an output, so what is kept is a copy.

    Attributes:
        model: Is watched while the context lasts.
        blocks: Also of numbered blocks that own no parameter themselves: the residual stream.
        outputs: Layer to its outputs in one pass, in order of the calls.
        own: Layer to ``‖ΔW h‖_RMS`` and to its alignment, for the updates given to ``apply``.
    """

    model: nn.Module
    blocks: bool = False
    outputs: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    own: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    _updates: dict[int, tuple[Tensor, float]] = field(default_factory=dict)  # pyright: ignore
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        for name, module in self.model.named_modules():
            owns = any(p.requires_grad for p in module.parameters(recurse=False))
            if owns or (self.blocks and name.rpartition(".")[2].isdigit() and _trains(module)):
                handle = module.register_forward_hook(self._hook(canonical(name + ".")[:-1]))
                self._stack.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def apply(self, updates: dict[int, tuple[Tensor, float]]) -> None:
        """In the next pass, also measure what these updates (ΔW, norm) of parameters do alone."""
        self._updates = updates

    def take(self) -> dict[str, list[Tensor]]:
        """The outputs captured since the last call."""
        taken, self.outputs = dict(self.outputs), defaultdict(list)
        return taken

    def _hook(self, layer: str) -> Any:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            tensor = _first_tensor(output)
            if tensor is not None and tensor.is_floating_point():
                self.outputs[layer].append(tensor.detach().clone())
            change = self._updates.get(id(getattr(module, "weight", None)))
            if change is not None and inputs and layer not in self.own:
                self.own[layer] = own_update(module, *change, inputs[0])

        return record


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, dict) else output
    if isinstance(parts, (tuple, list)) or isinstance(output, dict):
        return next((part for part in parts if isinstance(part, Tensor)), None)
    return None


@torch.no_grad()
def own_update(
    module: nn.Module, update: Tensor, norm: float, inputs: Tensor
) -> tuple[float, float]:
    """``‖ΔW h‖_RMS``, and the same over ``‖ΔW‖_RMS→RMS ‖h‖_RMS``, its alignment.

    The first is the part of a layer's feature update that its own weights make; the other part,
    W₀ Δh, comes from the layers before. The alignment is 1 for a rank-one update aligned with h.
    Both are NaN for a layer whose use of its weight is not known.

    Args:
        module: The layer.
        update: ΔW as (out, in, …).
        norm: Its induced norm; NaN for a tied embedding, which has none.
        inputs: h.
    """
    moved = through(module, update, inputs.detach())
    if moved is None:
        return float("nan"), float("nan")
    size = norm * rms_of(inputs)
    return rms_of(moved), rms_of(moved) / size if size else float("nan")


def weight_norm(weight: Tensor, *, lookup: bool) -> float:
    """Induced RMS→RMS norm; of an embedding, the RMS of its rows (its input is one-hot)."""
    if lookup:
        return rms_of(weight)
    if not math.isfinite(rms_of(weight)):
        return float("nan")
    return float(rms_operator_norm(weight.detach(), NORM_TOLERANCE))


def matrices(model: nn.Module) -> dict[str, Matrix]:
    """Weights of two axes and more, by layer.

    Positions and the like, which are added, count as lookups: their size is their RMS.

    A weight called ``weight`` goes by the name of its module, any other by its own; a tied one by
    the name of its first owner.
    """
    kinds = {site.name: site.kind for site in read_blueprint(model, measure=False).sites}
    found: dict[str, Matrix] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for local, weight in module.named_parameters(recurse=False):
            if weight.dim() < 2 or not weight.requires_grad or id(weight) in seen:
                continue
            seen.add(id(weight))
            name = canonical(f"{prefix}.{local}").removeprefix(".")
            layer = name.removesuffix(".weight")
            lookup = kinds[name] in (LOOKUP, VECTOR)
            found[layer] = Matrix(_outputs_first(module, local, weight), lookup, weight)
    return found


def _outputs_first(module: nn.Module, local: str, weight: Tensor) -> Tensor:
    """The weight as (out, in, …), as norms expect it; a stack of experts shows its first."""
    if getattr(module, "transposed", False) or type(module).__name__ == "Conv1D":
        return weight.transpose(0, 1)
    return weight[0] if weight.dim() > 2 and local != "weight" else weight


def train_and_observe(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    *,
    seed: int,
    steps: Sequence[int],
    blocks: bool = False,
) -> dict[Key, float]:
    """Train on one batch and measure every layer.

    The batch and the RNG state of every forward pass are the same, so that a feature moves only
    because weights do, and dropout drops the same units.

    Args:
        model: To be trained.
        optimizer: Its optimizer.
        task: Gives the batch and the loss.
        seed: Of the batch and of the forward passes.
        steps: Steps after which features are compared with their first values; ascending.
        blocks: Also watch the outputs of numbered blocks.

    Returns:
        ``{(layer, quantity, step): value}``; weight norms at step 0, the rest after training;
        feature updates at every one of ``steps``.

    Raises:
        TaskError: No batch, or a loss that is not a scalar.
    """
    batch = next(iter(task.batches(seed)), None)
    if batch is None:
        raise TaskError(f"task.batches(seed={seed}) is empty: yield at least one batch")
    weights = matrices(model)
    initial = {layer: matrix.weight.detach().clone() for layer, matrix in weights.items()}
    found = {
        (layer, WEIGHT_NORM, 0): weight_norm(matrix.weight, lookup=matrix.lookup)
        for layer, matrix in weights.items()
    }
    with Capture(model, blocks) as capture:
        first = dict[str, list[Tensor]]()
        for step in range(steps[-1] + 1):
            if step == steps[-1]:
                capture.apply(_updates(weights, initial, found, step))
            _seed_forward(seed)
            with torch.set_grad_enabled(step < steps[-1]):
                loss = scalar_loss(task, model, batch)
            outputs = capture.take()
            first = first or outputs
            if step in steps:
                found |= {
                    (layer, FEATURE_UPDATE, step): _moved(first[layer], now)
                    for layer, now in outputs.items()
                    if layer in first
                }
            if step < steps[-1]:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    for layer, (own, aligned) in capture.own.items():
        found |= {(layer, OWN_UPDATE, steps[-1]): own, (layer, ALIGNMENT, steps[-1]): aligned}
    return found


def scalar_loss(task: Task, model: nn.Module, batch: Any) -> Tensor:
    """``task.loss(model, batch)``.

    Raises:
        TaskError: Not a scalar tensor.
    """
    loss = task.loss(model, batch)
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TaskError(f"task.loss returned {what}: return a scalar tensor, e.g. loss.mean()")
    return loss


def _seed_forward(seed: int) -> None:
    """``torch.manual_seed`` without what it queues for accelerators that nobody uses."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _updates(
    weights: dict[str, Matrix],
    initial: dict[str, Tensor],
    found: dict[Key, float],
    step: int,
) -> dict[int, tuple[Tensor, float]]:
    """ΔW and its norm by parameter; the norms are also written to ``found`` by layer.

    ΔW takes the place of the initial values, which are not needed any more.
    """
    updates: dict[int, tuple[Tensor, float]] = {}
    for layer, (weight, lookup, parameter) in weights.items():
        update = initial[layer].neg_().add_(weight.detach())
        norm = weight_norm(update, lookup=lookup)
        found[layer, UPDATE_NORM, step] = norm
        if norm > 0:
            updates[id(parameter)] = (update, float("nan") if lookup else norm)
    return updates


def _moved(before: list[Tensor], after: list[Tensor]) -> float:
    """RMS of the change over all calls of a layer in one pass."""
    pairs = list(zip(before, after, strict=False))
    squares = sum(rms_of(b - a) ** 2 * a.numel() for a, b in pairs if a.shape == b.shape)
    count = sum(a.numel() for a, b in pairs if a.shape == b.shape)
    return (squares / count) ** 0.5 if count else float("nan")
