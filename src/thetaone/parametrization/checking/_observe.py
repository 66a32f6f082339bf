"""Watches one small training: how far features, weights and vectors of every layer move."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from thetaone.errors import InputError
from thetaone.parametrization.checking._descent import MakeDescent
from thetaone.parametrization.checking._recorder import GAIN, SHIFT, Moment, Record, Recorder, Use
from thetaone.parametrization.checking._task_calls import first_batch, scalar_loss
from thetaone.parametrization.checking.verdict import ALIGNED_NORM, Layer, Taken
from thetaone.parametrization.reading import rms_of, trained_parameters
from thetaone.records import (
    ALIGNMENT,
    DECAY,
    FEATURE_SIZE,
    FEATURE_UPDATE,
    LOOKUP,
    MATRIX,
    OWN_UPDATE,
    UPDATE_NORM,
    WEIGHT_NORM,
    Task,
)

Key = tuple[str, str, int]  # layer, quantity, step
ROUNDING = 1e-5  # a gradient this far below the others' is what rounding leaves of zero
MATERIAL_DECAY = 0.01  # of an update; less decay than this is no part of what is compared


@dataclass(frozen=True, slots=True)
class Observation:
    """What one training showed.

    Attributes:
        values: Every quantity measured.
        layers: The layers with weights, by label; features are not listed.
        order: Labels in order of execution; ``True`` is at the last of several calls.
        silent: Trained parameters that the loss does not depend on.
        taken: What the steps until each moment were taken with.
        makers: Label of features to that of the weight that makes them.
    """

    values: dict[Key, float]
    layers: dict[str, Layer]
    order: Mapping[Moment, None]
    silent: tuple[str, ...] = ()
    taken: Mapping[int, Taken] = field(default_factory=dict[int, Taken])
    makers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class _Training:
    """A training in progress, compared with its first pass."""

    model: nn.Module
    task: Task
    batch: Any
    seed: int
    values: dict[Key, float] = field(default_factory=dict[Key, float])
    first: Record = field(default_factory=Record)
    initial: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def loss(self, *, recorded: bool, last: bool) -> tuple[Tensor, Record | None]:
        """The loss of a pass with the random numbers of the first; recorded or not.

        What updates do to features is recorded in the last one.
        """
        seed_forward(self.seed)
        if not recorded:
            return scalar_loss(self.task, self.model, self.batch), None
        recorder = Recorder(self.model, self.first.weights or None, effects=last)
        with decomposed(self.model), recorder:
            loss = scalar_loss(self.task, self.model, self.batch)
        return loss, recorder.record

    def start(self, record: Record) -> None:
        """Enter initial sizes."""
        self.first = record
        parameters = trained_parameters(self.model)
        self.initial = {name: parameters[name].detach().clone() for name in record.vectors}
        for label, tensors in record.features.items():
            self.values[label, FEATURE_SIZE, 0] = pooled(tensors)
        for label, uses in record.uses.items():
            self.values[label, WEIGHT_NORM, 0] = _norm(uses.values())
        for name, value in self.initial.items():
            self.values[name, WEIGHT_NORM, 0] = rms_of(value)

    def enter(self, record: Record | None, step: int, taken: Taken) -> None:
        """Enter a recorded pass; none where nothing can have moved yet."""
        if record is not None and step == 0:
            self.start(record)
        elif record is not None and taken.rate:
            self.compare(record, step)

    def compare(self, record: Record, step: int) -> None:
        """Enter what has moved since the first pass."""
        for label, now in record.features.items():
            if label in self.first.features:
                moved = moved_size(self.first.features[label], now)
                self.values[label, FEATURE_UPDATE, step] = moved
        for label, uses in record.uses.items():
            norm = _norm(uses.values())
            self.values[label, UPDATE_NORM, step] = norm
            sizes = [use.aligned for use in uses.values()]
            self.values[label, ALIGNED_NORM, step] = _pooled_sizes(sizes)
            outputs = [size for use in uses.values() for size in use.outputs]
            inputs = _pooled_sizes([size for use in uses.values() for size in use.inputs])
            if outputs and norm > 0:
                self.values[label, OWN_UPDATE, step] = _pooled_sizes(outputs)
                if inputs > 0:
                    self.values[label, ALIGNMENT, step] = _pooled_sizes(outputs) / (norm * inputs)
        parameters = trained_parameters(self.model)
        for name, initial in self.initial.items():
            self.values[name, UPDATE_NORM, step] = rms_of(parameters[name].detach() - initial)


def train_and_observe(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    *,
    seed: int,
    steps: Sequence[int],
    descend: MakeDescent | None = None,
) -> Observation:
    """Train on one batch and measure every layer.

    The batch and the RNG state of every forward pass are the same, so that a feature moves only
    because weights do, and dropout drops the same units. What is measured is computed in the
    parameters' own precision, whatever the steps are taken in: updates would drown in rounding.

    Args:
        model: To be trained.
        optimizer: Its optimizer.
        task: Gives the batch and the loss.
        seed: Of the batch and of the forward passes.
        steps: Steps after which everything is compared with its first values; ascending.
        descend: Makes what takes the steps; ``None``: backward and the optimizer's update.

    Returns:
        Sizes at step 0, updates at every one of ``steps``.

    Raises:
        TaskError: ``batches`` or ``loss`` raises, no batch, or a loss that is not a scalar.
        InputError: The schedule keeps the rate at 0 through all of ``steps``.
    """
    batch = first_batch(task, seed)
    training = _Training(model, task, batch, seed)
    rates = _rates(optimizer, model)
    descent = None if descend is None else descend(model, optimizer)
    gradients, taken, now = dict[str, float](), dict[int, Taken](), Taken()
    for step in range(steps[-1] + 1):
        trains, looks = step < steps[-1], step == 0 or step in steps
        loss = None
        if looks or descent is None:
            loss, record = training.loss(recorded=looks, last=not trains)
            training.enter(record, step, now)
        if trains and descent is not None:
            seed_forward(seed)
            descent.step(batch)
            now = now.step(descent.factor, descent.kept)
        elif trains and loss is not None:
            optimizer.zero_grad()
            loss.backward()
            now = now.step(1.0, 1.0)
        if step + 1 == steps[-1]:
            gradients = _gradients(model)
        if trains and descent is None:
            optimizer.step()
        if step + 1 in steps:
            taken[step + 1] = now
    if not now.rate:
        raise InputError(
            f"steps={list(steps)}: the schedule's factor is 0 in all of them, so that nothing "
            "moves; pass later steps, e.g. those after its warm-up"
        )
    layers = _layers(training.first)
    training.values |= _decays(rates, layers, training.values, steps[-1], now.rate)
    _drop_rounding(training.values, layers, gradients)
    first = training.first
    silent = tuple(name for name in trained_parameters(model) if name not in gradients)
    return Observation(training.values, layers, first.order, silent, taken, first.makers)


def seed_forward(seed: int) -> None:
    """``torch.manual_seed`` without what it queues for accelerators that nobody uses."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def decomposed(model: nn.Module) -> Iterator[None]:
    """Recurrent layers as the products they are made of, not as one fused operation."""
    if not any(isinstance(module, nn.RNNBase) for module in model.modules()):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's flags speak of unrelated ones
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield


def _gradients(model: nn.Module) -> dict[str, float]:
    """RMS of the gradient of each parameter that the loss depends on."""
    return {n: rms_of(p.grad) for n, p in trained_parameters(model).items() if p.grad is not None}


def _layers(record: Record) -> dict[str, Layer]:
    layers = {name: Layer(frozenset({name}), (1, 1), kind) for name, kind in record.vectors.items()}
    for label, uses in record.uses.items():
        use = next(iter(uses.values()))
        names = frozenset[str]().union(*(one.names for one in uses.values()))
        layers[label] = Layer(names, use.fans, LOOKUP if use.lookup else MATRIX)
    return layers


def _rates(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Weight decay and learning rate of each parameter."""
    names = {id(p): name for name, p in trained_parameters(model).items()}
    return {
        names[id(p)]: (float(group.get("weight_decay") or 0.0), float(group["lr"]))
        for group in optimizer.param_groups
        for p in group["params"]
        if id(p) in names
    }


def _decays(
    rates: Mapping[str, tuple[float, float]],
    layers: Mapping[str, Layer],
    values: Mapping[Key, float],
    last: int,
    factors: float,
) -> dict[Key, float]:
    """Weight decay of each layer of one parameter, where it is a part of what is compared.

    Args:
        rates: Decay and learning rate of each parameter.
        layers: The layers with weights.
        values: Sizes and updates.
        last: Step at which updates are looked up.
        factors: Sum of the schedule's factors until then.
    """
    decays: dict[Key, float] = {}
    for label, layer in layers.items():
        if len(layer.names) > 1 or layer.names.isdisjoint(rates):
            continue
        decay, rate = rates[next(iter(layer.names))]
        shrunk = rate * decay * factors * values.get((label, WEIGHT_NORM, 0), 0.0)
        if shrunk > MATERIAL_DECAY * values.get((label, UPDATE_NORM, last), 0.0):
            decays[label, DECAY, 0] = decay
    return decays


def _drop_rounding(
    values: dict[Key, float], layers: Mapping[str, Layer], gradients: Mapping[str, float]
) -> None:
    """Leave out updates whose gradient is only rounding: a key's bias, a shift before a norm."""
    sizes = [size for size in gradients.values() if size > 0 and math.isfinite(size)]
    if not sizes:
        return
    least = ROUNDING * median(sizes)
    for key in list(values):
        layer = layers.get(key[0], Layer())
        mine = [gradients.get(name, 0.0) for name in layer.names]
        moves = key[1] in (UPDATE_NORM, OWN_UPDATE, ALIGNMENT)
        if moves and layer.kind in (GAIN, SHIFT) and mine and 0 < max(mine) < least:
            del values[key]


def _norm(uses: Any) -> float:
    """Norm of a layer's weight: of several slices, their root mean square."""
    listed: list[Use] = list(uses)
    return _pooled_sizes([use.norm for use in listed])


def _pooled_sizes(sizes: Sequence[float]) -> float:
    return math.sqrt(sum(s * s for s in sizes) / len(sizes)) if sizes else 0.0


def pooled(tensors: Sequence[Tensor]) -> float:
    """RMS over all entries of several tensors that are finite: a mask's are not."""
    squares = sum(_squares(tensor.float(), tensor) for tensor in tensors)
    count = sum(tensor.numel() for tensor in tensors)
    return math.sqrt(squares / count) if count else float("nan")


def moved_size(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """RMS of the change over all calls of a layer in one pass; masked entries do not change."""
    pairs = [(old, new) for old, new in zip(before, after, strict=False) if old.shape == new.shape]
    squares = sum(_squares((new - old).float(), new) for old, new in pairs)
    count = sum(new.numel() for _, new in pairs)
    return math.sqrt(squares / count) if count else float("nan")


def _squares(change: Tensor, features: Tensor) -> float:
    """Sum of squares of what is not masked: a mask of attention logits is below any of them."""
    if float(features.amin()) < -1e30:
        change = change.masked_fill(features < -1e30, 0.0)
    return float(torch.linalg.vector_norm(change.double())) ** 2
