"""What a worker does, wherever it runs: train an item's trials, or measure how fast they go."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from thetaone.records import Task, Trial, TrialSpec
from thetaone.sweeps._trials import (
    MakeOptimizer,
    batches_of,
    failed_trial,
    seeded,
    train_step,
    train_trial,
)
from thetaone.sweeps.engines._stacked import Stack, batch_source, stackable, train_stack
from thetaone.sweeps.engines._stacked_update import NotStackableError

PROBE_STEPS = 8  # at most, after one to warm up
PROBE_SECONDS = 0.05  # a probe stops after this, once it has one measured step
AGREEMENT = 1e-3  # relative: a stack's first losses against those of one-by-one training


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Trials of one width that one worker trains at a time: one, or a stack."""

    specs: tuple[TrialSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question: how long is a step of one trial, one by one and in a stack of these specs?

    With a single spec only one-by-one training is measured.
    """

    specs: tuple[TrialSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Answer to a probe.

    Attributes:
        single_seconds: A step of one trial, one by one [s].
        stack_seconds: A step of one trial of the stack: its share [s]; None when not stackable.
        why_not: Why it is not stackable.
    """

    single_seconds: float
    stack_seconds: float | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything a worker needs beside the question: task and optimizer."""

    task: Task
    make_optimizer: MakeOptimizer

    def answer(self, question: Item | Probe) -> list[Trial] | Measured:
        """Train an item or measure a probe."""
        if isinstance(question, Probe):
            return measure(self, question.specs)
        return train(self, question.specs)


def train(work: Work, specs: Sequence[TrialSpec]) -> list[Trial]:
    """Train the specs, as a stack when there are several; what raises is recorded, not raised.

    A stack that fails is trained one by one, so that one bad trial leaves the others alone.
    """
    if len(specs) > 1:
        try:
            return train_stack(work.task, specs, work.make_optimizer)
        except NotStackableError:
            pass
    return [_train_guarded(work, spec) for spec in specs]


def measure(work: Work, specs: Sequence[TrialSpec]) -> Measured:
    """Time of a step of one trial, alone and in a stack of ``specs``."""
    single_seconds, alone = _time_single(work, specs[0])
    if len(specs) == 1:
        return Measured(single_seconds=single_seconds)
    try:
        stack_seconds, together = _time_stack(work, specs)
    except NotStackableError as error:
        return Measured(single_seconds=single_seconds, why_not=str(error))
    for one, other in zip(alone[:3], together[:3], strict=False):
        if abs(other - one) > AGREEMENT * max(1.0, abs(one)):
            why = f"a stack's loss {other:.6g} is not that of one model, {one:.6g}"
            return Measured(single_seconds=single_seconds, why_not=why)
    return Measured(single_seconds=single_seconds, stack_seconds=stack_seconds)


def count_flops(work: Work, spec: TrialSpec) -> float:
    """Floating-point operations of one step's forward and backward, as torch counts them [FLOP].

    Matrix products and convolutions; elementwise work, and attention kernels for which torch has
    no formula, are left out.
    """
    with seeded(spec.seed):
        model = work.task.model(spec.width)
        batch = next(iter(work.task.batches(spec.seed)))
        with FlopCounterMode(display=False) as counter:
            work.task.loss(model, batch).backward()
    return float(counter.get_total_flops())


def _train_guarded(work: Work, spec: TrialSpec) -> Trial:
    try:
        return train_trial(work.task, spec, work.make_optimizer)
    except Exception as error:  # the user's code may raise anything; one bad trial ends alone
        first = (str(error).strip() or "no message").splitlines()[0]
        return failed_trial(spec, f"{type(error).__name__}: {first}")


def _time_single(work: Work, spec: TrialSpec) -> tuple[float, list[float]]:
    """Fastest step, and the first losses."""
    with seeded(spec.seed):
        model = work.task.model(spec.width)
        optimizer = work.make_optimizer(model, spec.width, spec.lr)
        stream = batches_of(work.task, spec)
        return _fastest(lambda: train_step(work.task, model, optimizer, next(stream)), spec)


def _time_stack(work: Work, specs: Sequence[TrialSpec]) -> tuple[float, list[float]]:
    """Fastest step divided by the models, and the first model's first losses."""
    with stackable(), torch.random.fork_rng(devices=[]):
        stack = Stack(work.task, specs, work.make_optimizer)
        shared, draw = batch_source(work.task, specs)
        seconds, losses = _fastest(lambda: float(stack.step(draw(), shared=shared)[0]), specs[0])
    return seconds / len(specs), losses


def _fastest(step: Callable[[], float], spec: TrialSpec) -> tuple[float, list[float]]:
    """Fastest of a few steps after the first, and the losses of all."""
    clock = _clock()
    times: list[float] = []
    losses: list[float] = []
    for _ in range(min(spec.n_steps, 1 + PROBE_STEPS)):
        started = clock()
        losses.append(step())
        times.append(clock() - started)
        if sum(times[1:]) > PROBE_SECONDS:
            break
    return min(times[1:] or times), losses


def _clock() -> Callable[[], float]:
    """What to measure with: processor time on one thread, which other programs do not stretch.

    With several threads, or an accelerator, waiting is part of the cost: the wall clock.
    """
    alone = torch.get_num_threads() == 1 and not torch.accelerator.is_available()
    return time.process_time if alone else time.perf_counter
