"""The whole job: find the rate small, prove that it transfers, train the large model in memory."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from thetaone.errors import InputError, ProfileError, ScheduleError
from thetaone.laws import verify_laws
from thetaone.parametrization import Parametrization, build_model, prescribe
from thetaone.records import (
    CoordinateCheck,
    DirectSweepCost,
    Prescription,
    Progress,
    RateSchedule,
    SweepResult,
    TargetMemory,
    TransferResult,
    TrialSpec,
    hide_passwords,
    parse_bytes,
)
from thetaone.report import ensure_writable, write_report
from thetaone.studies._environment import environment
from thetaone.studies._invariance import coordinate_check
from thetaone.studies._request import Request, Size, settle
from thetaone.studies._sweep import run_sweep
from thetaone.studies._target import Target, plan_memory, step_seconds, train_target
from thetaone.studies._watch import Watch
from thetaone.sweeps import Work, check_task, count_flops

CHECK_STEPS = (1, 2, 4)


def transfer(
    task: Any,
    *,
    target: int,
    target_depth: int | None = None,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    memory: str | int | None = None,
    report: str | Path | None = None,
    lrs: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    base_width: int | None = None,
    optimizer: Any = None,
    schedule: RateSchedule | None = None,
    clip: float | None = None,
    precision: str | None = None,
    accumulate: int | None = None,
    roles: Mapping[str, str] | None = None,
    folds: Mapping[str, float] | None = None,
    decay: str = "shrinkage",
    decay_vectors: bool = True,
    depth_exponent: float | None = 1.0,
    branches: Sequence[str] = (),
    frozen: str = "error",
    sample: Any = None,
    engine: str = "auto",
    storage: str | None = None,
    command: str = "",
    progress: Progress | None = None,
    **options: Any,
) -> TransferResult:
    """Tune small, train large, in the memory you have.

    Sweeps learning rate × size × seed in µP and SP, takes the best rate of the largest small model
    (the least extrapolation), checks the feature updates of both parametrizations, plans the
    target's memory, trains it in that memory and writes a report. The target is the size at which
    nothing is rescaled: it is trained as plain PyTorch, bit for bit, and the small models are
    scaled to predict its rate.

    Args:
        task: A task: name, file, module or object.
        target: Width of the model trained at the end; at least the largest of ``widths``.
        target_depth: Its depth, where the task has one; None: the largest of ``depths``.
        widths: Widths to tune at; None: the task's own. Two sizes or more in all.
        depths: Depths to tune at; see ``sweep``.
        memory: Budget for *all* of the target's training: weights, gradients, optimizer state,
            activations (``"64MiB"``, bytes); None: store-all.
        report: Folder for ``index.html``, ``result.json`` and the sweep's journal.
        lrs: Learning rates of the target; None: the task's own.
        seeds: Seeds; None: the task's own.
        steps: Steps of every training; None: the task's own.
        base_width: Another width at which rates are meant and nothing is rescaled.
        optimizer: See ``sweep``, as for the arguments that follow.
        schedule: Of the learning rate.
        clip: Largest global norm of the gradients.
        precision: ``"fp32"`` or ``"bf16"``.
        accumulate: Parts into which each batch is split [count].
        roles: See ``t1.prescribe``, as for the arguments that follow.
        folds: Factors to fold into parameters.
        decay: Weight-decay policy.
        decay_vectors: Whether vectors are decayed.
        depth_exponent: Of the factor on residual branches.
        branches: What ends residual branches.
        frozen: What to do with parameters that need no gradient.
        sample: Inputs of one forward pass.
        engine: How the sweep is run; see ``sweep``.
        storage: Journal file or database URL of the sweeps; None: in ``report``, if given.
        command: How to get the result again, for the report.
        progress: Called with an event when a part of the job begins, goes on and ends.
        **options: Of the optimizer's constructor.

    Returns:
        Everything that the report shows.

    Raises:
        InputError: Fewer than two sizes, a target below them, or an option of no optimizer.
        TaskError: A part of the task is missing or wrong.
        BudgetTooSmallError: The target cannot be trained in ``memory``; names what it needs.
        ReportError: The report cannot be written; found out before anything is trained.

    Examples:
        >>> transfer("lm", widths=[32], target=64)
        Traceback (most recent call last):
        thetaone.errors.InputError: widths=[32]: need at least two to see the rate stay; ...
    """
    request = settle(
        task, call=transfer,
        axes={"widths": widths, "depths": depths, "lrs": lrs, "seeds": seeds, "steps": steps},
        training={"optimizer": optimizer, "schedule": schedule, "clip": clip,
                  "precision": precision, "accumulate": accumulate},
        choices={"roles": roles, "folds": folds, "decay": decay, "decay_vectors": decay_vectors,
                 "depth_exponent": depth_exponent, "branches": branches, "frozen": frozen,
                 "sample": sample},
        options=options,
        base=Size(target if base_width is None else base_width, target_depth),
    )  # fmt: skip
    existed = report is None or Path(report).exists()
    job = _Job.of(request, Size(target, request.base.depth), storage=storage, engine=engine,
                  report=report, watch=Watch(progress))  # fmt: skip
    budget = None if memory is None else parse_bytes(memory, where="memory")
    try:
        return job.run(budget, hide_passwords(command))
    except BaseException:
        if job.folder is not None and not existed:
            with contextlib.suppress(OSError):  # it holds something: a journal to resume from
                job.folder.rmdir()
        raise


def chosen_rate(result: SweepResult) -> float:
    """The best rate of the widest model swept: the least extrapolation to the target.

    Raises:
        InputError: Every training at every width diverged.
    """
    if not result.optima and any(trial.status == "finished" for trial in result.trials):
        raise InputError(
            f"task {result.task}: three or more rates whose trainings end well are needed to find "
            f"the best one; of {len(result.lrs)} some failed or diverged at every width"
        )
    if not result.optima:
        raise InputError(
            f"task {result.task}: every training diverged at rates {result.lrs[0]:.3g} to "
            f"{result.lrs[-1]:.3g}: pass smaller lrs"
        )
    return 2.0 ** result.optima[max(result.optima)].log2_lr


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A settled transfer: what is asked, and how it is run."""

    request: Request
    target: Size
    parametrization: Parametrization
    engine: str
    storage: str | None
    folder: Path | None
    watch: Watch

    @classmethod
    def of(
        cls,
        request: Request,
        target: Size,
        *,
        engine: str,
        storage: str | None,
        report: str | Path | None,
        watch: Watch,
    ) -> Self:
        """Check what can be wrong before anything is trained.

        Raises:
            InputError: Fewer than two sizes, or a target below them.
            ReportError: The report cannot be written.
        """
        sizes, axis = request.sizes, request.axis
        values = [getattr(size, axis) for size in sizes]
        if len(sizes) < 2:
            widths = sorted({size.width for size in sizes})
            raise InputError(
                f"widths={widths}: need at least two to see the rate stay; e.g. 32,64,128"
            )
        if target.width < sizes[-1].width or (target.depth or 0) < (sizes[-1].depth or 0):
            raise InputError(
                f"target={getattr(target, axis)} lies below the largest {axis} swept, "
                f"{values[-1]}: rates transfer upward. Raise the target or drop that {axis}"
            )
        if len(request.lrs) < 3:
            raise InputError(
                f"lrs={list(request.lrs)}: three or more are needed to find the best one"
            )
        parametrization = request.parametrization("mup")
        work = Work(task=request.task, make_optimizer=parametrization, loop=request.loop)
        check_task(work, request.specs("mup"), task_name=request.task.name, every_seed=False)
        folder = None if report is None else ensure_writable(report)
        if storage is None and folder is not None:
            storage = str(folder / "sweep.journal")
        return cls(
            request=request, target=target, parametrization=parametrization, engine=engine,
            storage=storage, folder=folder, watch=watch,
        )  # fmt: skip

    def run(self, budget: int | None, command: str) -> TransferResult:
        """The whole job, in order."""
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
        watch, task = self.watch, self.request.task
        # The target's memory comes first: a budget that cannot hold it is known before the sweeps.
        watch("memory", 0, 1, "profiling the target")
        plan, note = _plan(self, budget)
        watch("memory", 1, 1, note or "planned")
        sweeps = {rule: self.sweep(rule) for rule in ("mup", "sp")}
        lr = chosen_rate(sweeps["mup"])
        checks = {rule: _check(self, rule, lr) for rule in ("mup", "sp")}
        run = self.training(lr)
        trial, peak, model = train_target(
            run, plan.schedule if plan else None,
            on_step=lambda done, loss: watch(
                "target", done, self.request.steps, f"loss {loss:.3f}"
            ),
        )  # fmt: skip
        watch("laws", 0, 1, "measuring")
        laws = tuple(verify_laws())
        watch("laws", 1, 1, "measured")
        result = TransferResult(
            task=task.name, optimizer=self.parametrization.optimizer_name, command=command,
            base_width=self.request.base.width, target_width=self.target.width, chosen_lr=lr,
            mup=sweeps["mup"], sp=sweeps["sp"], check_mup=checks["mup"], check_sp=checks["sp"],
            prescription=self.prescription(),
            memory=None if plan is None else _with_peak(plan, peak), memory_note=note,
            target=trial, evaluation=None if task.evaluate is None else task.evaluate(model),
            cost=_cost(self, sweeps["mup"], run), laws=laws, environment=environment(),
            wall_seconds=time.perf_counter() - clock, started=started,
        )  # fmt: skip
        if self.folder is not None:
            write_report(result, self.folder)
        return result

    def sweep(self, rule: str) -> SweepResult:
        """The sweep of all sizes in one parametrization."""
        return run_sweep(
            self.request, rule, engine=self.engine, storage=self.storage,
            progress=self.watch.renamed(f"sweep {rule}"),
        )  # fmt: skip

    def training(self, lr: float) -> Target:
        """The target's training at a rate."""
        request = self.request
        spec = TrialSpec(
            width=self.target.width, depth=self.target.depth, lr=lr, seed=request.seeds[0],
            n_steps=request.steps, rule="mup",
        )  # fmt: skip
        return Target(task=request.task, spec=spec, recipe=self.parametrization, loop=request.loop)

    def prescription(self) -> Prescription:
        """What every parameter gets: of the target; where that is plain, of the smallest size."""
        request = self.request
        size = self.target if self.target != request.base else request.sizes[0]
        return prescribe(
            build_model(request.task, size.width, size.depth), base=self.parametrization.base,
            optimizer=request.optimizer, **self.parametrization.options,
        )  # fmt: skip


def _plan(job: _Job, budget: int | None) -> tuple[TargetMemory | None, str]:
    """The target's memory plan, or why there is none; with a budget there must be one."""
    request = job.request
    try:
        return plan_memory(job.training(lr=request.lrs[0]), budget), ""
    except ProfileError as error:
        if budget is not None:
            raise
        return None, f"no memory plan: {error}"
    except ScheduleError as error:  # a policy's episodes: each batch has a size of its own
        why = f"the batches of task {request.task.name} differ in size, so no one schedule fits"
        if budget is not None:
            raise ProfileError(f"memory={budget:,} bytes: {why}; leave memory out") from error
        return None, f"no memory plan: {why}"


def _with_peak(memory: TargetMemory, peak: int) -> TargetMemory:
    account = memory.account.model_copy(update={"measured_peak_bytes": peak})
    return memory.model_copy(update={"account": account})


def _check(job: _Job, rule: str, lr: float) -> CoordinateCheck:
    request, watch = job.request, job.watch
    watch(f"check {rule}", 0, 1, "measuring feature updates")
    sizes = sorted({*request.sizes, job.target})
    axes: dict[str, Any] = {"widths": sorted({size.width for size in sizes})}
    if request.axis == "depth":
        axes["depths"] = [size.depth for size in sizes]
    check = coordinate_check(
        request.task, **axes, optimizer=request.optimizer, lr=lr, parametrization=rule,
        seeds=len(request.seeds), steps=CHECK_STEPS, base_width=request.base.width,
        **request.choices, **request.options,
    )  # fmt: skip
    watch(f"check {rule}", 1, 1, "passed" if check.passed else "failed")
    return check


def _cost(job: _Job, result: SweepResult, target: Target) -> DirectSweepCost:
    """Counted FLOPs and measured seconds of the sweep, and the same grid at the target's size.

    The grid at the target is charged the steps that the largest size swept really ran: a diverged
    training stops there too. The target's step is timed as the sweep ran: on as many threads, and
    shared out over as many workers. Trials from the storage count with the time they once took.
    """
    engine, request = result.engine, job.request
    largest = request.sizes[-1]
    direct = [t for t in result.trials if (t.width, t.spec.depth) == (largest.width, largest.depth)]
    n_steps = sum(len(trial.losses) for trial in direct)
    work = Work(task=request.task, make_optimizer=job.parametrization, loop=request.loop)
    trained = sum(t.wall_seconds for t in result.trials) / engine.n_processes
    seconds = step_seconds(target, engine.n_threads)
    return DirectSweepCost(
        transfer_seconds=trained if result.n_reused else result.wall_seconds,
        transfer_flops=sum(trial.cost_flops for trial in result.trials),
        direct_seconds=seconds * n_steps / engine.n_processes,
        direct_flops=count_flops(work, target.spec) * n_steps, n_trials=len(direct),
    )  # fmt: skip
