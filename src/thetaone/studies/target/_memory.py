"""The large model: plans its memory, trains it within, compares its gradients with store-all."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from thetaone.errors import BudgetTooSmallError, ProfileError, ScheduleError
from thetaone.records import (
    Chain,
    GradientComparison,
    MemoryAccount,
    Schedule,
    TargetMemory,
    Task,
    TrialSpec,
)
from thetaone.rematerialization import (
    TrainingMemory,
    frontier,
    optimizer_tensors,
    plan,
    profile,
    rematerialize,
    require_current,
    simulate,
    storage_bytes,
    store_all,
)
from thetaone.sweeps import (
    Descent,
    Work,
    batches_of,
    seeded,
)

CALIBRATION_STEPS = 2  # the second one runs with the optimizer's state in place
TIMED_STEPS = 3  # after one to warm up
MAX_TRIES = 4  # schedules, each with what the one before left of the budget


@dataclass(frozen=True, kw_only=True)
class Target:
    """The large model's training: task, optimizer and loop, and its size, rate, seed and steps."""

    work: Work
    spec: TrialSpec

    @property
    def task(self) -> Task:
        """Model family, batches, loss."""
        return self.work.task

    def build(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Model and optimizer from the spec's seed, the same bits at every call."""
        with seeded(self.spec.seed):
            return self.work.build(self.spec)

    def descent(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Descent:
        """What steps the model."""
        return Descent(self.work, model, optimizer, self.spec.n_steps)

    def batches(self) -> Iterator[Any]:
        """The spec's batches, one a step."""
        return batches_of(self.task, self.spec)


def plan_memory(target: Target, budget_bytes: int | None) -> TargetMemory:
    """Give the target's chain what the budget leaves beside weights, gradients and state.

    budget = weights + gradients + optimizer state + outside + activations. What lies outside the
    chain is measured with real steps, at first under the floor schedule: the ones that fit if any
    do. Each next schedule takes what the steps before left of the budget, and is tried as well.

    Args:
        target: The large model's training.
        budget_bytes: For all of training; None: as much as store-all takes [bytes].

    Returns:
        The plan; ``measured_peak_bytes`` is that of the trial steps.

    Raises:
        ProfileError: The model has no chain of blocks.
        ScheduleError: Two batches make chains of different sizes.
        BudgetTooSmallError: Not even the floor schedule fits; names the least budget that does.
    """
    model, _ = target.build()
    with seeded(target.spec.seed):
        batches = target.batches()
        chain = profile(model, next(batches), forward=target.task.loss)
        for second in islice(batches, 1):
            _require_one_size(target, chain, model, second)
    line = frontier(chain)
    floor = plan(chain, budget=line.floor_bytes)
    parts, floor_peak = _measure(target, floor)
    if budget_bytes is not None and budget_bytes < floor_peak:
        raise BudgetTooSmallError(
            budget_bytes=budget_bytes, floor_bytes=floor_peak,
            where=simulate(chain, floor).peak_stage, option="memory",
        )  # fmt: skip
    schedule, spare, peak = _fit(target, chain, floor, floor_peak, budget_bytes)
    weights, gradients, state = parts
    outside = peak - sum(parts) - schedule.peak_bytes
    account = MemoryAccount(
        budget_bytes=budget_bytes, weights_bytes=weights, gradients_bytes=gradients,
        optimizer_bytes=state, outside_bytes=outside, activation_budget_bytes=spare,
        predicted_peak_bytes=peak, measured_peak_bytes=peak,
        store_all_bytes=sum(parts) + outside + line.store_all_bytes,
    )  # fmt: skip
    return TargetMemory(
        task=getattr(target.task, "name", ""), width=target.spec.width, chain=chain,
        frontier=frontier(chain, chosen=schedule), schedule=schedule,
        cost=simulate(chain, schedule), weight_bytes=weights, gradient_bytes=gradients,
        optimizer_bytes=state, account=account, gradients=compare_gradients(target, schedule),
    )  # fmt: skip


def _require_one_size(target: Target, chain: Chain, model: nn.Module, batch: Any) -> None:
    """A schedule made for one batch must do for the others: a later one may be larger."""
    try:
        require_current(chain, model, batch, forward=target.task.loss)
    except ProfileError as error:
        raise ScheduleError(f"two batches differ: {error}") from error


def step_seconds(target: Target, n_threads: int) -> float:
    """Median wall time of a plain step of the target on so many threads [s]."""
    model, optimizer = target.build()
    threads = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    times: list[float] = []
    descent = target.descent(model, optimizer)
    for batch, _ in zip(target.batches(), range(TIMED_STEPS + 1), strict=False):
        started = time.perf_counter()
        descent.step(batch)
        times.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return statistics.median(times[1:])


def compare_gradients(target: Target, schedule: Schedule) -> GradientComparison:
    """Gradients of the first batch, rematerialized against store-all, bit by bit."""
    plain, _ = target.build()
    other, _ = target.build()
    batch = next(target.batches())
    expected = _gradients(target, plain, batch)
    actual = _gradients(target, rematerialize(other, schedule), batch)
    pairs = [(expected[name], actual[name]) for name in expected]
    return GradientComparison(
        n_tensors=len(pairs),
        n_equal=sum(torch.equal(a, b) for a, b in pairs),
        largest_difference=max(float((a - b).abs().max()) for a, b in pairs),
    )


def _gradients(target: Target, model: nn.Module, batch: Any) -> dict[str, Tensor]:
    with seeded(target.spec.seed):
        target.task.loss(model, batch).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _measure(target: Target, schedule: Schedule) -> tuple[tuple[int, int, int], int]:
    """Bytes of weights, gradients and optimizer state, and the peak of real steps."""
    model, optimizer = target.build()
    run = rematerialize(model, schedule)
    with seeded(target.spec.seed), TrainingMemory(model, optimizer) as memory:
        descent = target.descent(run, optimizer)
        for batch, _ in zip(target.batches(), range(CALIBRATION_STEPS), strict=False):
            descent.step(batch)
    weights = storage_bytes([*model.parameters(), *model.buffers()])
    gradients = storage_bytes(p for p in model.parameters() if p.requires_grad)
    state = storage_bytes(optimizer_tensors(optimizer))
    return (weights, gradients, state), memory.total_peak_bytes


def _fit(
    target: Target, chain: Chain, floor: Schedule, floor_peak: int, budget_bytes: int | None
) -> tuple[Schedule, int, int]:
    """The fastest schedule found whose real steps fit, its budget, and their peak.

    What is left of the budget is offered to the next schedule. That one may not use it all, or use
    more: the gradients of the blocks are not all there when the activations are at their most, and
    when that is depends on the schedule. Hence the tries.
    """
    most = store_all(chain).peak_bytes
    if budget_bytes is None:
        schedule = plan(chain, budget=most)
        return schedule, most, _measure(target, schedule)[1]
    best, spare, peak = floor, floor.peak_bytes, floor_peak
    limit = min(most, spare + budget_bytes - peak)
    for _ in range(MAX_TRIES):
        schedule = plan(chain, budget=max(limit, spare))
        if schedule.regions == best.regions:
            break
        tried = _measure(target, schedule)[1]
        if tried <= budget_bytes:
            best, spare, peak = schedule, limit, tried
        below = most if tried <= budget_bytes else schedule.peak_bytes - 1
        limit = min(below, limit + budget_bytes - tried)
    return best, spare, peak
