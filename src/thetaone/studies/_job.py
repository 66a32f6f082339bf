"""A settled transfer, run in order: memory, sweeps, checks, recipe, target, levels, laws."""

import functools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from thetaone.errors import InputError, ProfileError, ScheduleError
from thetaone.laws import verify_laws
from thetaone.parametrization import Parametrization, build_model
from thetaone.records import (
    CoordinateCheck,
    DirectSweepCost,
    Optimum,
    Prescription,
    Recipe,
    Schedule,
    SweepResult,
    TargetMemory,
    TransferResult,
    TrialSpec,
    TunedOption,
)
from thetaone.report import ensure_writable, write_report
from thetaone.studies._environment import environment
from thetaone.studies._invariance import coordinate_check
from thetaone.studies._sweep import run_sweep
from thetaone.studies._tune import tune, typed
from thetaone.studies._watch import Watch
from thetaone.studies.request import Request, Size, write_run_file
from thetaone.studies.target import (
    WEIGHTS,
    Checkpoints,
    RecipeOptimizer,
    Target,
    Trained,
    levels,
    plan_memory,
    require_plain_weights,
    save_weights,
    step_seconds,
    train,
    write_recipe,
)
from thetaone.sweeps import Work, check_task, count_flops, grid_steps, require_storage

CHECK_STEPS = (1, 2, 4)
RECIPE = "recipe.json"

Confirm = Callable[[CoordinateCheck], bool]


def chosen_optimum(result: SweepResult) -> Optimum:
    """The best rate of the largest model swept: the least extrapolation to the target.

    Raises:
        InputError: Every training at every size diverged, or fewer than three rates were trained.
    """
    if not result.optima and any(trial.status == "finished" for trial in result.trials):
        raise InputError(
            f"task {result.task}: three or more rates whose trainings end well are needed to find "
            f"the best one; of {len(result.lrs)} some failed or diverged at every size"
        )
    if not result.optima:
        raise InputError(
            f"task {result.task}: every training diverged at rates {result.lrs[0]:.3g} to "
            f"{result.lrs[-1]:.3g}: pass smaller lrs"
        )
    return result.optima[max(result.optima)]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A settled transfer: what is asked, and how it is run."""

    request: Request
    target: Size
    parametrization: Parametrization
    engine: str
    storage: str | None
    folder: Path | None
    watch: Watch
    budget: int | None
    target_steps: int
    minutes: float
    tune: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        request: Request,
        target: Size,
        *,
        storage: str | None,
        report: str | Path | None,
        **run: Any,
    ) -> Self:
        """Check what can be wrong before anything is trained.

        Raises:
            InputError: Fewer than two sizes, a target below them, or a storage that is no place.
            ReportError: The report cannot be written.
        """
        require_storage(storage)
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
        job = cls(
            request=request, target=target, parametrization=parametrization, storage=storage,
            folder=folder, **run,
        )  # fmt: skip
        if folder is not None:
            require_plain_weights(job.training(request.lrs[0]).build()[0])
        return job

    def run(self, command: str, confirm: Confirm | None) -> TransferResult:
        """The whole job, in order."""
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
        task = self.request.task
        # The target's memory comes first: a budget that cannot hold it is known before the sweeps.
        with self.watch.phase("memory", "profiling the target"):
            plan, note = _plan(self)
        sweeps = {rule: self.sweep(rule) for rule in ("mup", "sp")}
        job, tuned = self.tuned(chosen_optimum(sweeps["mup"]))
        if any(option.kept for option in tuned):
            sweeps["mup"] = job.sweep("mup")
        optimum = chosen_optimum(sweeps["mup"])
        lr = 2.0**optimum.log2_lr
        checks = {rule: _check(job, rule, lr) for rule in ("mup", "sp")}
        if confirm is not None and not checks["mup"].passed and not confirm(checks["mup"]):
            raise InputError(
                f"the coordinate check {checks['mup'].outcome}, so the target was not "
                "trained; what was swept is kept. Mend the model, or use force"
            )
        recipe = job.recipe(optimum, plan.schedule if plan else None, sweeps["mup"])
        trained = job.train(recipe)
        with job.watch.phase("laws", "measuring"):
            laws = tuple(verify_laws())
        result = TransferResult(
            task=task.name, optimizer=job.parametrization.optimizer_name, command=command,
            base_width=job.request.base.width, target_width=job.target.width, chosen_lr=lr,
            mup=sweeps["mup"], sp=sweeps["sp"], check_mup=checks["mup"], check_sp=checks["sp"],
            prescription=job.prescription(), recipe=recipe,
            tuned=tuned, levels=levels(sweeps["mup"], sweeps["sp"], lr, trained.trial),
            memory=None if plan is None else _with_peak(plan, trained.peak_bytes),
            memory_note=note, target=trained.trial,
            evaluation=None if task.evaluate is None else float(task.evaluate(trained.model)),
            cost=_cost(job, sweeps["mup"], lr), laws=laws, environment=environment(),
            wall_seconds=time.perf_counter() - clock, started=started,
        )  # fmt: skip
        if job.folder is not None:
            write_report(result, job.folder)
        return result

    def tuned(self, best: Optimum) -> tuple[Self, tuple[TunedOption, ...]]:
        """This job with the options that tuning keeps, and what was seen of each."""
        if not self.tune:
            return self, ()
        sweep = functools.partial(
            run_sweep, rule="mup", engine=self.engine, storage=self.storage,
            progress=self.watch.renamed("tune"),
        )  # fmt: skip
        request, seen = tune(self.request, self.tune, best, sweep)
        return replace(self, request=request, parametrization=request.parametrization("mup")), seen

    def recipe(self, optimum: Optimum, memory: Schedule | None, swept: SweepResult) -> Recipe:
        """The answer, written before the target is trained so that its training can be resumed."""
        measured_on = {
            "sizes": "; ".join(map(str, self.request.sizes)), "steps": str(self.request.steps),
            "rates": f"{swept.lrs[0]:.3g} … {swept.lrs[-1]:.3g}",
            "seeds": ", ".join(map(str, self.request.seeds)), **environment(),
        }  # fmt: skip
        recipe = write_recipe(
            self.request, self.parametrization, self.target, optimum, n_steps=self.target_steps,
            memory=memory, measured_on=measured_on,
        )  # fmt: skip
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            recipe.to_json(self.folder / RECIPE)
            named = {
                "memory": self.budget and str(self.budget), "target_steps": self.target_steps,
                "tune": ",".join(typed(self.request.fixed)) or None,
            }  # fmt: skip
            write_run_file(self.folder, self.request, self.target, named)
        return recipe

    def train(self, recipe: Recipe) -> Trained:
        """Train the target by its recipe; with a folder its weights are kept."""
        target, folder = self.training(recipe.lr), self.folder
        if self.request.fixed:  # multipliers stand in the recipe alone
            target = replace(
                target, work=replace(target.work, make_optimizer=RecipeOptimizer(recipe))
            )
        checkpoints = None
        if folder is not None:
            checkpoints = Checkpoints(
                folder=folder, recipe=recipe.fingerprint, minutes=self.minutes
            )
            if (kept := checkpoints.set_aside()) is not None:
                warnings.warn(
                    f"{checkpoints.path} is damaged or of another recipe: kept as "
                    f"{kept.name}, and the target is trained from the start",
                    stacklevel=2,
                )
        trained = train(
            target.work, target.spec, schedule=recipe.memory, checkpoints=checkpoints,
            on_step=self.watch.steps("target", target.spec.n_steps),
        )  # fmt: skip
        if folder is not None:
            save_weights(trained.model, folder / WEIGHTS)
        return trained

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
            n_steps=self.target_steps, rule="mup",
        )  # fmt: skip
        work = Work(
            task=request.task, make_optimizer=self.parametrization,
            loop=request.loop_of(self.target_steps),
        )  # fmt: skip
        return Target(work=work, spec=spec)

    def prescription(self) -> Prescription:
        """What every parameter gets: of the target; where that is plain, of the smallest size."""
        request = self.request
        size = self.target if self.target != request.base else request.sizes[0]
        model = build_model(request.task, size.width, size.depth)
        prescription = self.parametrization.prescription(model)
        assert prescription is not None  # that of µP
        return prescription


def _plan(job: Job) -> tuple[TargetMemory | None, str]:
    """The target's memory plan, or why there is none; with a budget there must be one."""
    request, budget = job.request, job.budget
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


def _check(job: Job, rule: str, lr: float) -> CoordinateCheck:
    request = job.request
    sizes = sorted({*request.sizes, job.target})
    widths = sorted({size.width for size in sizes})
    # exponents are those of small steps: no width's hidden matrices move faster than the target's
    lr *= min(1.0, widths[0] / request.base.width)
    axes: dict[str, Any] = {"widths": widths}
    if request.axis == "depth":
        axes["depths"] = [size.depth for size in sizes]
    with job.watch.phase(f"check {rule}", "measuring feature updates"):
        return coordinate_check(
            request.task, **axes, optimizer=request.optimizer, lr=lr, parametrization=rule,
            seeds=len(request.seeds), steps=CHECK_STEPS, base_width=request.base.width,
            training_steps=request.steps, **request.training,
            **request.choices, **request.options,
        )  # fmt: skip


def _cost(job: Job, result: SweepResult, lr: float) -> DirectSweepCost:
    """Counted FLOPs and measured seconds of the sweep, and the same grid at the target's size.

    The grid at the target is charged the steps that the largest size swept really ran: a diverged
    training stops there too. The target's step is timed as the sweep ran: on as many threads, and
    shared out over as many workers. Trials from the storage count with the time they once took.
    """
    engine, largest, target = result.engine, job.request.sizes[-1], job.training(lr)
    direct = [t for t in result.trials if (t.width, t.depth) == (largest.width, largest.depth)]
    n_steps, n_trials = sum(len(trial.losses) for trial in direct), len(direct)
    if result.search is not None:
        grid = [lr for lr in job.request.lrs for _ in job.request.seeds]
        n_steps, n_trials = grid_steps(direct, grid, job.request.steps), len(grid)
    trained = sum(t.wall_seconds for t in result.trials) / engine.n_processes
    return DirectSweepCost(
        transfer_seconds=trained if result.n_reused else result.wall_seconds,
        transfer_flops=sum(trial.cost_flops for trial in result.trials),
        direct_seconds=step_seconds(target, engine.n_threads) * n_steps / engine.n_processes,
        direct_flops=count_flops(target.work, target.spec) * n_steps, n_trials=n_trials,
    )  # fmt: skip
