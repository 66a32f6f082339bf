"""The sweep: a task's best learning rate at every width, and whether it stays put."""

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from thetaone._contents import contents_digest
from thetaone.errors import blamed_on_task
from thetaone.parametrization import Parametrization
from thetaone.records import (
    Combination,
    EngineDecision,
    Progress,
    RateSchedule,
    SearchCost,
    SweepResult,
    Trial,
    TrialSpec,
    comparable,
)
from thetaone.studies._watch import logged
from thetaone.studies.request import (
    Request,
    Rule,
    Size,
    require_class,
    require_trained,
    settle,
)
from thetaone.sweeps import (
    After,
    TrialRuns,
    Work,
    check_task,
    combine,
    find_drift,
    loss_curves,
    nearest_optimum,
    open_store,
    require_engine,
    require_storage,
    run_trials,
    search_trials,
    seeded,
    transfer_penalties,
)
from thetaone.version import __version__

Callback = Callable[[SweepResult, Trial], Any]
NOTHING = Combination(loss=math.inf, log2_lr=math.nan)


def sweep(
    task: Any,
    *,
    widths: Iterable[int] | None = None,
    depths: Iterable[int] | None = None,
    lrs: Iterable[float] | None = None,
    seeds: Iterable[int] | None = None,
    axes: Mapping[str, Iterable[float]] | None = None,
    steps: int | None = None,
    parametrization: Rule = "mup",
    target: int | None = None,
    target_depth: int | None = None,
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
    search: str = "grid",
    choose: str = "loss",
    engine: str = "auto",
    n_processes: int | None = None,
    storage: str | Path | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> SweepResult:
    """Train every (size, learning rate, seed), find each size's best rate, and its drift.

    What ``widths``, ``lrs``, ``seeds`` and ``steps`` leave open, ``task.defaults`` fills; failing
    that, the octaves 2^-12 to 2^-2, seeds 0 and 1, and 100 steps. What says how a model is trained
    (``optimizer`` to ``accumulate``, ``options``) the task's own attributes fill; failing that,
    AdamW at a constant rate.

    Args:
        task: Name of a bundled task, path of a file, dotted module, or an object with ``model``,
            ``batches`` and ``loss``.
        widths: Widths to train.
        depths: Depths of ``task.model(width, depth)``: several at one width, or one a width.
        lrs: Learning rates at the base width; octaves suffice.
        seeds: Seeds of initialization and batches; two or more give an interval.
        axes: Further axes, trained as a full product: ``{"weight_decay": [0, 0.1]}``. Any number
            among the optimizer's options, ``beta1``, ``beta2``, ``init_scale`` (on the initial
            values of matrices), ``readout_multiplier``, ``embedding_multiplier``,
            ``attention_multiplier`` (factors of the forward pass, folded into weights and rates).
            Your own parametrization is called with them by keyword.
        steps: Steps of each training [count].
        parametrization: ``"mup"``, ``"sp"`` (plain PyTorch), or your own
            ``(model, width, lr) -> optimizer``.
        target: Width of the large model that the sweep is for: the width at which rates are meant
            and nothing is rescaled, so that the large model stays plain PyTorch.
        target_depth: Its depth.
        base_width: Another width at which rates are meant; None: ``target``, else the smallest.
        optimizer: Class of ``torch.optim``, or whatever else ``t1.prescribe`` takes.
        schedule: Of the learning rate: a name (``"warmup-cosine:0.1"``, ``"warmup-linear"``,
            ``"wsd"``, ``"constant"``) or ``schedule(step, steps) -> factor``.
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
        search: ``"grid"`` trains every rate; ``"auto"`` finds the best one of each size with fewer
            trainings, a stopped part of a training at every octave first, and goes beyond the
            rates of the grid where the best lies on its edge.
        choose: What trials are compared by: ``"loss"`` of training, or the task's ``"evaluate"``.
        engine: ``"auto"`` measures which mix of processes, threads and stacked models is fastest;
            ``"serial"``, ``"processes"``, ``"stacked"``, ``"ray"`` decide it.
        n_processes: Workers; the cores at hand when None [count].
        storage: Path of a journal file, or a database URL; trials found there are not trained
            again, so a killed sweep resumes. None keeps nothing.
        fresh: Train anew what is stored; the new trials are kept beside the old ones.
        progress: Called with a ``ProgressEvent`` when planned, decided, and after every trial.
        callbacks: Each called as ``f(result_so_far, trial)`` after every trial trained; one that
            returns something true stops the sweep, which then gives what it has. Adapters to
            TensorBoard, W&B and MLflow are in ``thetaone.integrations.trackers``.
        **options: Of the optimizer's constructor.

    Returns:
        All trials with every step's loss, optima, drift, penalties, and how they were run.

    Raises:
        TaskError: A part of the task is missing or its loss is not a scalar.
        InputError: An empty or out-of-range axis, an unknown engine or parametrization, an option
            that no optimizer takes.
        MismatchError: The model's width does not change.
        StorageError: The storage cannot be read or written.

    Examples:
        >>> result = sweep("digits", widths=[16, 32], lrs=[2**-8, 2**-6, 2**-4], seeds=[0],
        ...                steps=5)
        >>> len(result.trials), sorted(result.optima)
        (6, [16, 32])
    """
    width = target if base_width is None else base_width
    request = settle(
        task, call=sweep,
        axes={"widths": widths, "depths": depths, "lrs": lrs, "seeds": seeds, "steps": steps,
              "axes": axes},
        training={"optimizer": optimizer, "schedule": schedule, "clip": clip,
                  "precision": precision, "accumulate": accumulate},
        choices={"roles": roles, "folds": folds, "decay": decay, "decay_vectors": decay_vectors,
                 "depth_exponent": depth_exponent, "branches": branches, "frozen": frozen,
                 "sample": sample},
        options=options, base=None if width is None else Size(width, target_depth),
        search=search, choose=choose,
    )  # fmt: skip
    require_trained(parametrization, (*options, *request.choices))
    if callable(parametrization) and optimizer is not None:
        rule = request.parametrization(parametrization)
        work, spec = Work(task=request.task, make_optimizer=rule), request.specs(rule.label)[0]
        with seeded(spec.seed), blamed_on_task(f"the optimizer of {rule.label} at {spec.width}"):
            built = work.build(spec)[1]
        require_class(built, optimizer)
    return run_sweep(
        request, parametrization, engine=engine, n_processes=n_processes, storage=storage,
        fresh=fresh, progress=logged(progress), callbacks=callbacks,
    )  # fmt: skip


def run_sweep(
    request: Request,
    rule: Rule = "mup",
    *,
    engine: str = "auto",
    n_processes: int | None = None,
    storage: str | Path | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
) -> SweepResult:
    """The sweep of a settled request, in one parametrization.

    Args:
        request: What to train.
        rule: The parametrization.
        engine: See ``sweep``, as for the arguments that follow.
        n_processes: Workers [count].
        storage: Where trials are kept.
        fresh: Whether what is stored is trained anew.
        progress: Who is told.
        callbacks: Who sees each trial and may stop the sweep.
    """
    started = time.perf_counter()
    parametrization = request.parametrization(rule)
    specs = request.specs(parametrization.label)
    require_engine(engine)
    require_storage(storage)
    work = Work(
        task=request.task, make_optimizer=parametrization, loop=request.loop,
        evaluated=request.choose == "evaluate",
    )  # fmt: skip
    starts = check_task(work, specs, task_name=request.task.name, every_seed=storage is not None)
    store = open_store(
        storage, experiment=_experiment(request, parametrization), starts=starts, fresh=fresh
    )
    conclude = functools.partial(_conclude, request, parametrization, started)
    train = functools.partial(
        run_trials, work, store=store, engine=engine, n_processes=n_processes,
        after=_after(callbacks, conclude, parametrization.label),
    )  # fmt: skip
    if request.search == "auto":
        runs, cost = search_trials(
            specs, train, loop=request.loop, choose=request.choose, progress=progress
        )
    else:
        runs, cost = train(specs, progress=progress), None
    return conclude(runs, search=cost)


def _after(
    callbacks: Sequence[Callback], conclude: Callable[..., SweepResult], label: str
) -> After | None:
    """Calls every callback after a trial; true when one of them says stop."""
    if not callbacks:
        return None
    trained = 0
    there: dict[TrialSpec, Trial] = {}  # of a search, those of its earlier parts too

    def after(trials: Sequence[Trial], trial: Trial) -> bool:
        nonlocal trained
        trained += 1
        there.update((one.spec, one) for one in trials)
        so_far = TrialRuns(
            trials=dict(sorted(there.items())),
            decision=EngineDecision(engine="running", reason="the sweep goes on"),
            n_trained=trained,
        )
        result, named = conclude(so_far), _labelled(trial, label)
        answers = [callback(result, named) for callback in callbacks]  # each sees every trial
        return any(answers)

    return after


def _experiment(request: Request, parametrization: Parametrization) -> str:
    """What makes stored trials comparable: task, recipe, and this version's rules."""
    digest = contents_digest(
        __version__, request.task.fingerprint, request.options, request.choices,
        request.optimizer, request.loop.model_dump_json(indent=2), parametrization.builder,
        *(["evaluated"] if request.choose == "evaluate" else []),
    )  # fmt: skip
    return f"{request.task.name}, {parametrization.optimizer_name}, {digest[:12]}"


def _labelled(trial: Trial, label: str) -> Trial:
    """The trial under its parametrization's name, in place of the rule that it is stored by."""
    return trial.model_copy(update={"spec": replace(trial.spec, rule=label)})


def _conclude(
    request: Request,
    parametrization: Parametrization,
    started: float,
    runs: TrialRuns,
    *,
    search: SearchCost | None = None,
) -> SweepResult:
    """The result: optima, drift and penalties of the trials."""
    label, axis, choose, base = parametrization.label, request.axis, request.choose, request.base
    trials = [_labelled(trial, label) for trial in runs.trials.values()]
    ended = comparable(trials)
    combinations = combine(ended, getattr(base, axis), axis, choose)
    chosen = min(combinations, key=lambda one: one.loss, default=NOTHING)
    curves = loss_curves([t for t in ended if t.axes == chosen.values], axis, choose)
    optima = chosen.optima
    best = nearest_optimum(optima, getattr(base, axis))
    drift = find_drift(curves, optima)
    return SweepResult(
        task=request.task.name, parametrization=label, optimizer=parametrization.optimizer_name,
        trials=tuple(trials), engine=runs.decision, base_width=base.width, base_depth=base.depth,
        axis=axis, axes=request.axes, combinations=combinations if request.axes else (),
        choose=choose, search=search, optima=optima,
        drift=None if drift is None else drift.model_copy(update={"axis": axis}),
        penalties=transfer_penalties(curves, optima, best.log2_lr) if best else {},
        n_trained=runs.n_trained, n_reused=len(trials) - runs.n_trained, notes=runs.notes,
        wall_seconds=time.perf_counter() - started,
    )  # fmt: skip
