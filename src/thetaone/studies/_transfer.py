"""The whole job: find the rate small, prove that it transfers, train the large model in memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils.flop_counter import FlopCounterMode

from thetaone.errors import InputError, ProfileError, ScheduleError
from thetaone.laws import verify_laws
from thetaone.parametrization import Parametrization, make_parametrization, prescribe
from thetaone.records import (
    CoordinateCheck,
    DirectSweepCost,
    Progress,
    ProgressEvent,
    SweepResult,
    TargetMemory,
    TransferResult,
    TrialSpec,
    parse_bytes,
)
from thetaone.report import ensure_writable, write_report
from thetaone.studies._environment import environment
from thetaone.studies._invariance import coordinate_check
from thetaone.studies._sweep import check_widths, settle_axes, sweep
from thetaone.studies._target import Target, plan_memory, step_seconds, train_target
from thetaone.sweeps import grid
from thetaone.tasks import LoadedTask, load_task

CHECK_STEPS = (1, 2, 4)


def transfer(
    task: Any,
    *,
    target: int,
    widths: Sequence[int] | None = None,
    memory: str | int | None = None,
    report: str | Path | None = None,
    optimizer: Any = torch.optim.AdamW,
    lrs: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    base_width: int | None = None,
    engine: str = "auto",
    storage: str | None = None,
    command: str = "",
    progress: Progress | None = None,
    **options: Any,
) -> TransferResult:
    """Tune small, train large, in the memory you have.

    Sweeps learning rate × width × seed in µP and SP, takes the best rate of the widest small model
    (the least extrapolation), checks the feature updates of both parametrizations, plans the
    target's memory, trains it in that memory and writes a report.

    Args:
        task: A task: name, file, module or object.
        target: Width of the model trained at the end; at least the largest of ``widths``.
        widths: Widths to tune at, two or more; None: the task's own.
        memory: Budget for *all* of the target's training: weights, gradients, optimizer state,
            activations (``"64MiB"``, bytes); None: store-all.
        report: Folder for ``index.html``, ``result.json`` and the sweep's journal.
        optimizer: Class or name of the optimizer.
        lrs: Learning rates at the base width; None: the task's own.
        seeds: Seeds; None: the task's own.
        steps: Steps of every training; None: the task's own.
        base_width: Width at which rates are meant; None: the smallest.
        engine: How the sweep is run; see ``sweep``.
        storage: Journal file or database URL of the sweeps; None: in ``report``, if given.
        command: How to get the result again, for the report.
        progress: Called with an event when a part of the job begins, goes on and ends.
        **options: For the optimizer's constructor.

    Returns:
        Everything that the report shows.

    Raises:
        InputError: Fewer than two widths, or a target below them.
        TaskError: A part of the task is missing or wrong.
        BudgetTooSmallError: The target cannot be trained in ``memory``; names what it needs.
        ReportError: The report cannot be written; found out before anything is trained.

    Examples:
        >>> transfer("lm", widths=[32], target=64)
        Traceback (most recent call last):
        thetaone.errors.InputError: widths=[32]: need at least two to see the rate stay; ...
    """
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    loaded = load_task(task)
    job = _Job.of(
        loaded, target=target, base_width=base_width, optimizer=optimizer, options=options,
        widths=widths, lrs=lrs, seeds=seeds, steps=steps,
    )  # fmt: skip
    budget = None if memory is None else parse_bytes(memory, where="memory")
    folder = None if report is None else ensure_writable(report)
    if storage is None and folder is not None:
        storage = str(folder / "sweep.journal")
    watch = _Watch(progress)

    # The target's memory comes first: a budget that cannot hold it is known before the sweeps.
    watch("memory", 0, 1, "profiling the target")
    plan, note = _plan(job, budget)
    watch("memory", 1, 1, note or "planned")
    sweeps = {
        rule: _sweep(job, rule, engine=engine, storage=storage, watch=watch)
        for rule in ("mup", "sp")
    }
    lr = chosen_rate(sweeps["mup"])
    checks = {rule: _check(job, rule, lr, watch) for rule in ("mup", "sp")}
    run = job.target(lr)
    trial, peak, model = train_target(
        run, plan.schedule if plan else None,
        on_step=lambda done, loss: watch("target", done, job.steps, f"loss {loss:.3f}"),
    )  # fmt: skip
    watch("laws", 0, 1, "measuring")
    laws = tuple(verify_laws())
    watch("laws", 1, 1, "measured")
    result = TransferResult(
        task=loaded.name, optimizer=job.optimizer_name, command=command,
        base_width=job.base_width, target_width=target, chosen_lr=lr,
        mup=sweeps["mup"], sp=sweeps["sp"], check_mup=checks["mup"], check_sp=checks["sp"],
        prescription=prescribe(
            loaded.model(target), base=loaded.model(job.base_width),
            optimizer=job.optimizer, **options,
        ),
        memory=None if plan is None else _with_peak(plan, peak), memory_note=note,
        target=trial, evaluation=None if loaded.evaluate is None else loaded.evaluate(model),
        cost=_cost(job, sweeps["mup"], run), laws=laws, environment=environment(),
        wall_seconds=time.perf_counter() - clock, started=started,
    )  # fmt: skip
    if folder is not None:
        write_report(result, folder)
    return result


def chosen_rate(result: SweepResult) -> float:
    """The best rate of the widest model swept: the least extrapolation to the target.

    Raises:
        InputError: Every training at every width diverged.
    """
    if not result.optima:
        raise InputError(
            f"task {result.task}: every training diverged at rates {result.lrs[0]:.3g} to "
            f"{result.lrs[-1]:.3g}: pass smaller lrs"
        )
    return 2.0 ** result.optima[max(result.optima)].log2_lr


@dataclass(frozen=True)
class _Watch:
    """Tells the caller's callback, if there is one, how far each phase is."""

    progress: Progress | None

    def __call__(self, phase: str, done: int, total: int, message: str) -> None:
        if self.progress is not None:
            self.progress(ProgressEvent(phase=phase, n_done=done, n_total=total, message=message))

    def renamed(self, phase: str) -> Progress:
        """The callback of a part of the job, whose events carry this job's phase."""

        def tell(event: ProgressEvent) -> None:
            if self.progress is not None:
                self.progress(event.model_copy(update={"phase": phase}))

        return tell


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The settled question: every default filled in."""

    task: LoadedTask
    widths: tuple[int, ...]
    target_width: int
    base_width: int
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int
    optimizer: Any
    options: dict[str, Any]
    recipe: Parametrization

    @property
    def optimizer_name(self) -> str:
        return self.recipe.optimizer_name

    @classmethod
    def of(cls, task: LoadedTask, *, target: int, base_width: int | None, optimizer: Any,
           options: dict[str, Any], **axes: Any) -> Self:  # fmt: skip
        """Fill in what the task's defaults and the widths imply.

        Raises:
            InputError: Fewer than two widths, or a target below them; see ``sweep`` for the rest.
        """
        settled = settle_axes(task, **axes)
        widths = sorted(settled["widths"])
        if len(set(widths)) < 2:
            raise InputError(
                f"widths={widths}: need at least two to see the rate stay; e.g. 32,64,128"
            )
        if target < widths[-1]:
            raise InputError(
                f"target={target} lies below the largest width swept, {widths[-1]}: "
                "rates transfer upward. Raise the target or drop that width"
            )
        base = min(widths) if base_width is None else base_width
        specs = grid(
            widths=widths,
            lrs=settled["lrs"],
            seeds=settled["seeds"],
            n_steps=settled["steps"],
            parametrization="mup",
            base_width=base,
        )
        recipe = make_parametrization("mup", task, base, optimizer=optimizer, options=options)
        check_widths(task, recipe, specs)
        return cls(
            task=task, widths=tuple(widths), target_width=target,
            base_width=base, recipe=recipe,
            lrs=tuple(settled["lrs"]), seeds=tuple(settled["seeds"]), steps=settled["steps"],
            optimizer=optimizer, options=options,
        )  # fmt: skip

    def target(self, lr: float) -> Target:
        spec = TrialSpec(
            width=self.target_width, lr=lr, seed=self.seeds[0], n_steps=self.steps, rule="mup"
        )
        return Target(task=self.task, spec=spec, recipe=self.recipe)


def _plan(job: _Job, budget: int | None) -> tuple[TargetMemory | None, str]:
    """The target's memory plan, or why there is none; with a budget there must be one."""
    try:
        return plan_memory(job.target(lr=job.lrs[0]), budget), ""
    except ProfileError as error:
        if budget is not None:
            raise
        return None, f"no memory plan: {error}"
    except ScheduleError as error:  # a policy's episodes: each batch has a size of its own
        why = f"the batches of task {job.task.name} differ in size, so no one schedule fits them"
        if budget is not None:
            raise ProfileError(f"memory={budget:,} bytes: {why}; leave memory out") from error
        return None, f"no memory plan: {why}"


def _with_peak(memory: TargetMemory, peak: int) -> TargetMemory:
    account = memory.account.model_copy(update={"measured_peak_bytes": peak})
    return memory.model_copy(update={"account": account})


def _sweep(job: _Job, rule: str, *, engine: str, storage: str | None, watch: _Watch) -> SweepResult:
    return sweep(
        job.task, widths=job.widths, lrs=job.lrs, seeds=job.seeds, parametrization=rule,
        optimizer=job.optimizer, base_width=job.base_width, steps=job.steps, engine=engine,
        storage=storage, progress=watch.renamed(f"sweep {rule}"), **job.options,
    )  # fmt: skip


def _check(job: _Job, rule: str, lr: float, watch: _Watch) -> CoordinateCheck:
    watch(f"check {rule}", 0, 1, "measuring feature updates")
    check = coordinate_check(
        job.task, widths=sorted({*job.widths, job.target_width}), optimizer=job.optimizer, lr=lr,
        parametrization=rule, seeds=len(job.seeds), steps=CHECK_STEPS, base_width=job.base_width,
        **job.options,
    )  # fmt: skip
    watch(f"check {rule}", 1, 1, "passed" if check.passed else "failed")
    return check


def _cost(job: _Job, result: SweepResult, target: Target) -> DirectSweepCost:
    """Counted FLOPs and measured seconds of the sweep, and the same grid at the target's width.

    The target's step is timed as the sweep ran: on as many threads, and shared out over as many
    workers. Trials found in the storage count with the time that they took when they were trained.
    """
    engine, n_trials = result.engine, len(job.lrs) * len(job.seeds)
    flops = {width: _step_flops(job, width) for width in (*job.widths, job.target_width)}
    spent = sum(flops[t.width] * len(t.losses) for t in result.trials)
    trained = sum(t.wall_seconds for t in result.trials) / engine.n_processes
    seconds = step_seconds(target, engine.n_threads)
    return DirectSweepCost(
        transfer_seconds=trained if result.n_reused else result.wall_seconds,
        transfer_flops=spent,
        direct_seconds=seconds * job.steps * n_trials / engine.n_processes,
        direct_flops=flops[job.target_width] * job.steps * n_trials, n_trials=n_trials,
    )  # fmt: skip


def _step_flops(job: _Job, width: int) -> float:
    """Floating-point operations of one forward and backward at a width, counted by torch."""
    model = job.task.model(width)
    with FlopCounterMode(display=False) as counter:
        job.task.loss(model, next(iter(job.task.batches(job.seeds[0])))).backward()
    return float(counter.get_total_flops())
