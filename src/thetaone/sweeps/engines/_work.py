"""What a worker does, wherever it runs: train an item's trials, or measure how fast they go."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from thetaone.errors import STOPS, first_line
from thetaone.records import Trial, TrialSpec
from thetaone.sweeps._generators import seeded
from thetaone.sweeps._trials import (
    Descent,
    Work,
    batches_of,
    build_model,
    failed_trial,
    train_trial,
)
from thetaone.sweeps.engines._agreement import require_agreement
from thetaone.sweeps.engines._stacked import Stack, stackable, train_stack
from thetaone.sweeps.engines._stacked_update import NotStackableError

PROBE_STEPS = 8  # at most, after one to warm up
PROBE_SECONDS = 0.05  # a probe stops after this, once it has one measured step


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


def answers(work: Work, question: Item | Probe) -> Iterator[Trial | Measured]:
    """Train an item, trial by trial as they end, or measure a probe."""
    if isinstance(question, Probe):
        yield measure(work, question.specs)
    else:
        yield from train(work, question.specs)


def train(work: Work, specs: Sequence[TrialSpec]) -> Iterator[Trial]:
    """Train the specs, as a stack when there are several; what raises is recorded, not raised.

    Those that a stack has not brought to their end when it fails are trained one by one, so that
    one bad trial leaves the others alone; a ``RuntimeWarning`` says so, and why.
    """
    left = list(specs)
    if len(specs) > 1:
        try:
            for trial in train_stack(work, specs):
                left.remove(trial.spec)
                yield trial
        except (Exception, SystemExit) as error:  # the user's code; alone, a trial says what
            warnings.warn(
                f"a stack of {len(specs)} trainings ended with {_told(error)}: the "
                f"{len(left)} that were not done are trained one by one, which takes longer",
                RuntimeWarning,
                stacklevel=2,
            )
    for spec in left:
        yield _train_guarded(work, spec)


def measure(work: Work, specs: Sequence[TrialSpec]) -> Measured:
    """Time of a step of one trial, alone and in a stack of ``specs``."""
    single_seconds = _time_single(work, specs[0])
    if len(specs) == 1:
        return Measured(single_seconds=single_seconds)
    try:
        require_agreement(work, specs)
        stack_seconds = _time_stack(work, specs)
    except NotStackableError as error:
        return Measured(single_seconds=single_seconds, why_not=str(error))
    except (Exception, SystemExit) as error:  # a part of the task; its own trial will say so
        return Measured(single_seconds=single_seconds, why_not=_told(error))
    return Measured(single_seconds=single_seconds, stack_seconds=stack_seconds)


def count_flops(work: Work, spec: TrialSpec) -> float:
    """Floating-point operations of one step's forward and backward, as torch counts them [FLOP].

    Matrix products and convolutions; elementwise work, and attention kernels for which torch has
    no formula, are left out.
    """
    with seeded(spec.seed):
        model = build_model(work.task, spec)
        batch = next(iter(work.task.batches(spec.seed)))
        with _ProductCounter() as counter:
            work.task.loss(model, batch).backward()
    return float(counter.get_total_flops())


class _ProductCounter(FlopCounterMode):
    """torch's counter without its table by module.

    The table hangs hooks on every tensor, under which a loss that differentiates (a gradient
    penalty) raises.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker = _NoModules()


class _NoModules(contextlib.nullcontext[None]):
    """Everything happens in the root."""

    parents = frozenset({"Global"})


def _train_guarded(work: Work, spec: TrialSpec) -> Trial:
    try:
        return train_trial(work, spec)
    except STOPS:
        raise
    except BaseException as error:  # the user's code may raise anything; one bad trial ends alone
        return failed_trial(spec, _told(error))


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _time_single(work: Work, spec: TrialSpec) -> float:
    """Fastest step; infinite when the training raises."""
    try:
        with seeded(spec.seed):
            model, optimizer = work.build(spec)
            descent = Descent(work, model, optimizer, spec.n_steps)
            stream = batches_of(work.task, spec)
            return _fastest(lambda: descent.step(next(stream)), spec)
    except (Exception, SystemExit):  # its own trial will say what
        return float("inf")


def _time_stack(work: Work, specs: Sequence[TrialSpec]) -> float:
    """Fastest step divided by the models."""
    with stackable(), Stack(work, specs) as stack:
        return _fastest(lambda: float(stack.step()[0]), specs[0]) / len(specs)


def _fastest(step: Callable[[], float], spec: TrialSpec) -> float:
    """Fastest of a few steps after the first."""
    clock = _clock()
    times: list[float] = []
    for _ in range(min(spec.n_planned, 1 + PROBE_STEPS)):
        started = clock()
        step()
        times.append(clock() - started)
        if sum(times[1:]) > PROBE_SECONDS:
            break
    return min(times[1:] or times)


def _clock() -> Callable[[], float]:
    """What to measure with: processor time on one thread, which other programs do not stretch.

    With several threads, or an accelerator, waiting is part of the cost: the wall clock.
    """
    alone = torch.get_num_threads() == 1 and not torch.accelerator.is_available()
    return time.process_time if alone else time.perf_counter
