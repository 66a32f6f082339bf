"""Trains one trial, in plain PyTorch, and says how it ended."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from thetaone.errors import TaskError
from thetaone.records import Task, Trial, TrialSpec

MakeOptimizer = Callable[[nn.Module, int, float], torch.optim.Optimizer]

EXPLOSION = 1e3  # a loss this far above the first one, in units of max(1, |first|), never returns


def train_trial(task: Task, spec: TrialSpec, make_optimizer: MakeOptimizer) -> Trial:
    """Train one model from its seed and record the loss of every step.

    The initialization (and dropout, if any) draws from torch's global generator, seeded with
    ``spec.seed`` and restored afterwards; the batches are ``task.batches(spec.seed)``. On one
    machine and thread count the losses are the same bits whichever process trains them.

    Args:
        task: Model family, batches, loss.
        spec: What to train.
        make_optimizer: ``(model, width, lr) -> optimizer``; may rescale the model's weights.

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
        model = task.model(spec.width)
        optimizer = make_optimizer(model, spec.width, spec.lr)
        for batch in batches_of(task, spec):
            losses.append(train_step(task, model, optimizer, batch))
            reason = divergence(losses)
            if reason:
                break
    return make_trial(
        spec, losses, reason=reason, wall_seconds=time.perf_counter() - started,
        n_parameters=count_parameters(model),
    )  # fmt: skip


def train_step(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> float:
    """One step of descent on one batch; the loss before it."""
    loss = task.loss(model, batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def batches_of(task: Task, spec: TrialSpec) -> Iterator[Any]:
    """The spec's batches, one a step.

    Raises:
        TaskError: The task's batches end too early.
    """
    stream = iter(task.batches(spec.seed))
    for step in range(spec.n_steps):
        try:
            batch = next(stream)
        except StopIteration:
            raise TaskError(
                f"batches({spec.seed}) ended after {step} of {spec.n_steps} steps: "
                "make it endless (while True: yield ...) or ask for fewer steps"
            ) from None
        yield batch


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
    """The record of a training that was carried to its end or to its divergence."""
    status = "diverged" if reason else "finished"
    return Trial(spec=spec, losses=tuple(losses), status=status, reason=reason, **measured)


def failed_trial(spec: TrialSpec, reason: str) -> Trial:
    """The record of a training that an exception or a dead worker ended."""
    return Trial(spec=spec, losses=(), status="failed", reason=reason)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generators seeded inside, as they were outside."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
