"""The large model: plans its memory, trains it within, compares its gradients with store-all."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thetaone.errors import BudgetTooSmallError, ProfileError
from thetaone.records.chain import Chain
from thetaone.records.schedule import Schedule
from thetaone.records.sweep import Trial
from thetaone.records.transfer import GradientComparison, MemoryAccount, MemoryPlan
from thetaone.rematerialization.execute import rematerialize
from thetaone.rematerialization.frontier import frontier
from thetaone.rematerialization.memory import TrainingMemory
from thetaone.rematerialization.plan import plan
from thetaone.rematerialization.policies import store_all
from thetaone.rematerialization.profiler import profile
from thetaone.rematerialization.simulator import simulate
from thetaone.sweeps.space import TrialSpec
from thetaone.sweeps.trials import (
    MakeOptimizer,
    batches_of,
    count_parameters,
    divergence,
    make_trial,
    seeded,
    train_step,
)
from thetaone.tasks.load import LoadedTask

CALIBRATION_STEPS = 2  # the second one runs with the optimizer's state in place
TIMED_STEPS = 3  # after one to warm up
MAX_CORRECTIONS = 4  # of the activation budget, when a trial step shows bytes that it missed


@dataclass(frozen=True, kw_only=True)
class Target:
    """The large model's training: what to build, and how its optimizer is made."""

    task: LoadedTask
    spec: TrialSpec
    recipe: MakeOptimizer

    def build(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Model and optimizer from the spec's seed, the same bits at every call."""
        with seeded(self.spec.seed):
            model = self.task.model(self.spec.width)
            return model, self.recipe(model, self.spec.width, self.spec.lr)

    def batches(self) -> Iterator[Any]:
        """The spec's batches, one a step."""
        return batches_of(self.task, self.spec)


def plan_memory(target: Target, budget_bytes: int | None) -> MemoryPlan:
    """Give the target's chain what the budget leaves beside weights, gradients and state.

    budget = weights + gradients + optimizer state + outside + activations. What lies outside the
    chain is measured with real steps under the floor schedule: the ones that fit if any do. The
    chosen schedule is then tried for real, and its budget lowered by whatever it exceeds.

    Args:
        target: The large model's training.
        budget_bytes: For all of training; None: as much as store-all takes [bytes].

    Returns:
        The plan; ``measured_peak_bytes`` is that of the trial steps.

    Raises:
        ProfileError: The model has no chain of blocks.
        BudgetTooSmallError: Not even the floor schedule fits; names the least budget that does.
    """
    model, _ = target.build()
    with seeded(target.spec.seed):
        chain = profile(model, next(target.batches()), forward=target.task.loss)
    line = frontier(chain)
    floor = plan(chain, budget=line.floor_bytes)
    parts, floor_peak = _measure(target, floor)
    static = sum(parts)
    outside = max(0, floor_peak - static - floor.peak_bytes)
    least = max(floor_peak, static + outside + floor.peak_bytes)
    if budget_bytes is not None and budget_bytes < least:
        raise BudgetTooSmallError(
            budget_bytes=budget_bytes, floor_bytes=least, where=simulate(chain, floor).peak_stage
        )
    schedule, spare, measured = _fit(target, chain, static + outside, budget_bytes)
    weights, gradients, state = parts
    account = MemoryAccount(
        budget_bytes=budget_bytes, weights_bytes=weights, gradients_bytes=gradients,
        optimizer_bytes=state, outside_bytes=outside, activation_budget_bytes=spare,
        predicted_peak_bytes=static + outside + schedule.peak_bytes,
        measured_peak_bytes=measured,
        store_all_bytes=static + outside + line.store_all_bytes,
    )  # fmt: skip
    return MemoryPlan(
        chain=chain, frontier=frontier(chain, chosen=schedule), schedule=schedule,
        cost=simulate(chain, schedule), account=account,
        gradients=compare_gradients(target, schedule),
    )  # fmt: skip


def train_target(
    target: Target, schedule: Schedule | None, *, on_step: Callable[[int, float], None]
) -> tuple[Trial, int, nn.Module]:
    """Train the target under its schedule and watch every storage.

    Args:
        target: The large model's training.
        schedule: How its chain is rematerialized; None leaves the model as it is.
        on_step: Called with steps done and the last loss.

    Returns:
        The trial, the largest sum of live storages over the whole run [bytes], the trained model.
    """
    model, optimizer = target.build()
    run = model if schedule is None else rematerialize(model, schedule)
    losses: list[float] = []
    reason = ""
    started = time.perf_counter()
    with seeded(target.spec.seed), TrainingMemory(model, optimizer) as memory:
        for batch in target.batches():
            losses.append(train_step(target.task, run, optimizer, batch))
            on_step(len(losses), losses[-1])
            reason = divergence(losses)
            if reason:
                break
    trial = make_trial(
        target.spec, losses, reason=reason, wall_seconds=time.perf_counter() - started,
        n_parameters=count_parameters(model),
    )  # fmt: skip
    return trial, memory.total_peak_bytes, model


def step_seconds(target: Target, n_threads: int) -> float:
    """Median wall time of a plain step of the target on so many threads [s]."""
    model, optimizer = target.build()
    threads = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    times: list[float] = []
    for batch, _ in zip(target.batches(), range(TIMED_STEPS + 1), strict=False):
        started = time.perf_counter()
        train_step(target.task, model, optimizer, batch)
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
        for batch, _ in zip(target.batches(), range(CALIBRATION_STEPS), strict=False):
            train_step(target.task, run, optimizer, batch)
    weights = _bytes([*model.parameters(), *model.buffers()])
    gradients = _bytes([p for p in model.parameters() if p.requires_grad])
    state = _bytes([v for s in optimizer.state.values() for v in s.values()])
    return (weights, gradients, state), memory.total_peak_bytes


def _fit(
    target: Target, chain: Chain, taken: int, budget_bytes: int | None
) -> tuple[Schedule, int, int]:
    """The schedule, its budget, and the peak of real steps under it."""
    if budget_bytes is None:
        schedule = plan(chain, budget=store_all(chain).peak_bytes)
        return schedule, schedule.peak_bytes, _measure(target, schedule)[1]
    spare, measured = budget_bytes - taken, budget_bytes
    for _ in range(MAX_CORRECTIONS + 1):
        schedule = plan(chain, budget=spare)
        measured = _measure(target, schedule)[1]
        if measured <= budget_bytes:
            return schedule, spare, measured
        spare -= measured - budget_bytes
    raise ProfileError(
        f"the target's steps took {measured:,} bytes under a plan for {budget_bytes:,}, also after "
        f"{MAX_CORRECTIONS} corrections: the bytes outside its blocks vary from step to step"
    )


def _bytes(values: list[Any]) -> int:
    """Bytes of distinct storages."""
    storages = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes()
                for v in values if isinstance(v, Tensor)}  # fmt: skip
    return sum(storages.values())
