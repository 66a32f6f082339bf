"""Trains one trial, in plain PyTorch, and says how it ended."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thetaone._contents import contents_digest
from thetaone.errors import TaskError
from thetaone.records import Task, TrainingLoop, Trial, TrialSpec, check_loss
from thetaone.sweeps._generators import seeded

MakeOptimizer = Callable[..., torch.optim.Optimizer]  # (model, width, lr, **axes)

EXPLOSION = 1e3  # a loss this far above the first one, in units of max(1, |first|), never returns
PLAIN = TrainingLoop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is trained, beside the spec of a trial.

    Attributes:
        task: Model family, batches, loss.
        make_optimizer: ``(model, width, lr, **axes) -> optimizer``; may rescale the model's
            weights.
        loop: Schedule, clipping, precision and accumulation.
        evaluated: Whether the task's ``evaluate`` judges each model at the end of its training.
    """

    task: Task
    make_optimizer: MakeOptimizer
    loop: TrainingLoop = PLAIN
    evaluated: bool = False

    def build(self, spec: TrialSpec) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Model and optimizer of a spec, drawn from the global generators as they are."""
        model = build_model(self.task, spec)
        return model, self.optimizer(model, spec, spec.lr)

    def optimizer(self, model: nn.Module, spec: TrialSpec, lr: float) -> torch.optim.Optimizer:
        """The optimizer of a spec's model at a rate."""
        return self.make_optimizer(model, spec.width, lr, **dict(spec.axes))

    def evaluation(self, model: nn.Module, spec: TrialSpec, reason: str) -> float | None:
        """The task's judgement of a trained model, where it is asked for and there is one."""
        evaluate = getattr(self.task, "evaluate", None)
        if not self.evaluated or evaluate is None or reason or spec.stop:
            return None
        with seeded(spec.seed), torch.no_grad():
            return float(evaluate(model))


def train_trial(work: Work, spec: TrialSpec) -> Trial:
    """Train one model from its seed and record the loss of every step.

    The initialization (and dropout, if any) draws from the global generators of torch, NumPy and
    Python, seeded with ``spec.seed`` and restored afterwards; the batches are
    ``task.batches(spec.seed)``. On one machine and thread count the losses are the same bits
    whichever process trains them.

    Returns:
        The trial: ``finished``, or ``diverged`` from the step whose loss is NaN, infinite or
        exploded. ``cost_flops`` is left at 0: counting would slow what is timed.

    Raises:
        TaskError: The task's batches end before the steps do.
    """
    losses: list[float] = []
    reason = ""
    started = time.perf_counter()
    with seeded(spec.seed):
        model, optimizer = work.build(spec)
        descent = Descent(work, model, optimizer, spec.n_steps)
        stream = Stream(work.task, spec)
        for batch in stream:
            losses.append(descent.step(batch))
            reason = divergence(losses)
            if reason:
                break
        evaluation = work.evaluation(model, spec, reason)
    return make_trial(
        spec, losses, reason=reason, wall_seconds=time.perf_counter() - started,
        n_parameters=count_parameters(model), evaluation=evaluation, batches=tuple(stream.digests),
    )  # fmt: skip


class Descent:
    """Steps a model down its loss as the loop says.

    In step t the rate of every group is its first rate times ``loop.factor(t)``; the loss is
    computed under autocast in bf16; the gradients of the parts of a batch are averaged and clipped
    to a global norm. A plain loop is forward, backward and the optimizer's step.

    Args:
        work: Task and loop.
        model: What is trained.
        optimizer: Its optimizer.
        n_steps: Steps of the whole training [count].
        n_done: Steps already taken, of a training that is resumed [count].

    Attributes:
        factor: Of the last step, on every rate.
        norm: Global norm of its gradients before they were clipped; None without clipping.
    """

    def __init__(
        self, work: Work, model: nn.Module, optimizer: torch.optim.Optimizer, n_steps: int,
        *, n_done: int = 0,
    ) -> None:  # fmt: skip
        self._work, self._model, self._optimizer = work, model, optimizer
        self._plain, self._unchecked = work.loop.plain, True
        self._n_steps, self.n_done = n_steps, n_done
        self._rates = [float(g.get("initial_lr", g["lr"])) for g in optimizer.param_groups]
        self.factor = 1.0
        self.norm: Tensor | None = None

    @property
    def kept(self) -> float:
        """Share that clipping left of the last step's gradients, in (0, 1]."""
        clip = self._work.loop.clip
        return 1.0 if clip is None or self.norm is None else min(1.0, clip / float(self.norm))

    def step(self, batch: Any) -> float:
        """Descend on one batch; the loss before it.

        Raises:
            TaskError: The loss is not a scalar, or the batch cannot be split as asked.
        """
        loss = self._plain_step(batch) if self._plain else self._step(batch)
        self.n_done += 1
        return loss

    def _plain_step(self, batch: Any) -> float:
        loss = self._work.task.loss(self._model, batch)
        if self._unchecked:
            self._check(loss)
            self._unchecked = False
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.item()

    def _step(self, batch: Any) -> float:
        loop = self._work.loop
        self.factor = loop.factor(self.n_done, self._n_steps)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.factor
        parts = split_batch(batch, loop.accumulate)
        losses = [self._loss(part) for part in parts] if len(parts) == 1 else []
        self._optimizer.zero_grad()
        if losses:
            losses[0].backward()
        else:
            losses = [self._part_backward(part, len(parts)) for part in parts]
        if loop.clip is not None:
            self.norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), loop.clip)
        self._optimizer.step()
        return sum(loss.item() for loss in losses) / len(losses)

    def loss(self, batch: Any) -> float:
        """The loss of a batch, split as a step would, without a step."""
        parts = split_batch(batch, self._work.loop.accumulate)
        return sum(self._loss(part).item() for part in parts) / len(parts)

    def _loss(self, batch: Any) -> Tensor:
        with precision(self._work.loop, self._model):
            return self._check(self._work.task.loss(self._model, batch))

    def _check(self, loss: Any) -> Tensor:
        return check_loss(loss, where=getattr(self._work.task, "name", "this sweep"))

    def _part_backward(self, part: Any, n_parts: int) -> Tensor:
        loss = self._loss(part)
        (loss / n_parts).backward()
        return loss.detach()


def precision(loop: TrainingLoop, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """What a loss is computed in: autocast to bf16, or the parameters' own precision."""
    if loop.precision == "fp32":
        return contextlib.nullcontext()
    device = next((p.device.type for p in model.parameters()), "cpu")
    return torch.autocast(device, dtype=torch.bfloat16)


def split_batch(batch: Any, n_parts: int, *, axis: int = 0, said: str = "accumulate") -> list[Any]:
    """The batch in equal parts along an axis of its tensors.

    Tensors and arrays without that axis, numbers and texts go to every part; so does a list that
    has no entry a row.

    Args:
        batch: Tensors in any nesting.
        n_parts: Parts [count].
        axis: Along which.
        said: What asks for the parts, for the message.

    Raises:
        TaskError: A tensor's axis does not divide.
    """
    if n_parts == 1:
        return [batch]
    leaves, form = pytree.tree_flatten(batch)
    sizes = {leaf.shape[axis] for leaf in leaves if _has_axis(leaf, axis)}
    if len(sizes) != 1 or min(sizes) % n_parts:
        raise TaskError(
            f"{said}={n_parts}: tensors of a batch have {sorted(sizes) or 'no'} rows; need "
            f"one size that {n_parts} divides. Change the batch, or this number"
        )
    (n_rows,) = sizes
    rows = n_rows // n_parts

    def is_column(value: Any) -> bool:
        whole = isinstance(value, (list, tuple)) and len(value) == n_rows and axis == 0
        return whole and not any(_has_axis(v, axis) for v in pytree.tree_leaves(value))

    leaves, form = pytree.tree_flatten(batch, is_leaf=is_column)
    columns = [
        _rows(leaf, axis, rows, n_parts)
        if _has_axis(leaf, axis) or is_column(leaf)
        else [leaf] * n_parts
        for leaf in leaves
    ]
    return [pytree.tree_unflatten(list(part), form) for part in zip(*columns, strict=True)]


def _has_axis(leaf: Any, axis: int) -> bool:
    return isinstance(leaf, (Tensor, np.ndarray)) and leaf.ndim > axis


def _rows(column: Any, axis: int, rows: int, n_parts: int) -> list[Any]:
    """The parts of a tensor, an array or a list, of so many rows each."""
    if isinstance(column, Tensor):
        return list(column.split(rows, dim=axis))
    places = [slice(start * rows, (start + 1) * rows) for start in range(n_parts)]
    return [column[(slice(None),) * axis + (place,) if axis else place] for place in places]


def build_model(task: Task, spec: TrialSpec) -> nn.Module:
    """The task's model of a spec's width, and depth when it has one."""
    if spec.depth is None:
        return task.model(spec.width)
    return task.model(spec.width, spec.depth)  # pyright: ignore[reportCallIssue]


def batches_of(task: Task, spec: TrialSpec) -> Iterator[Any]:
    """The spec's batches, one a step.

    Raises:
        TaskError: The task's batches end too early.
    """
    stream = iter(task.batches(spec.seed))
    for step in range(spec.n_planned):
        try:
            batch = next(stream)
        except StopIteration:
            raise TaskError(
                f"batches({spec.seed}) ended after {step} of {spec.n_planned} steps: "
                "make it endless (while True: yield ...) or ask for fewer steps"
            ) from None
        yield batch


class Stream:
    """The spec's batches, and digests of the first, second, fourth, eighth, … of them.

    So few cost nothing, and what two trainings draw apart in, they hardly agree in at all of these.
    """

    def __init__(self, task: Task, spec: TrialSpec) -> None:
        self._batches, self._n_drawn = batches_of(task, spec), 0
        self.digests: list[str] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._n_drawn += 1
        if self._n_drawn & (self._n_drawn - 1) == 0:
            self.digests.append(contents_digest(batch)[:12])
        return batch


def count_parameters(model: nn.Module) -> int:
    """Parameters that training moves [count]."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def divergence(losses: list[float]) -> str:
    """Why a training whose losses are ``losses`` counts as diverged; empty when it does not.

    Examples:
        >>> divergence([2.5, float("nan")])
        'loss nan at step 1'
        >>> divergence([2.5, 300.0])
        ''
    """
    first, last = losses[0], losses[-1]
    if not math.isfinite(last) or last - first > EXPLOSION * max(1.0, abs(first)):
        return f"loss {last:.3g} at step {len(losses) - 1}"
    return ""


def make_trial(spec: TrialSpec, losses: list[float], *, reason: str, **measured: Any) -> Trial:
    """The record of a training that was carried to its end, its divergence or its stop."""
    status = "diverged" if reason else "finished"
    if spec.stop and not reason:
        status, reason = "stopped", f"stopped after {spec.stop} of {spec.n_steps} steps"
    return Trial(spec=spec, losses=tuple(losses), status=status, reason=reason, **measured)


def failed_trial(spec: TrialSpec, reason: str) -> Trial:
    """The record of a training that an exception or a dead worker ended."""
    return Trial(spec=spec, losses=(), status="failed", reason=reason)
