"""The sweep: a task's best learning rate at every width, and whether it stays put."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from thetaone.errors import InputError, MismatchError, TaskError
from thetaone.parametrization import Parametrization, make_parametrization
from thetaone.records import (
    EngineDecision,
    Progress,
    SweepResult,
    Trial,
    TrialSpec,
    check_loss,
)
from thetaone.sweeps import (
    Work,
    find_drift,
    find_optima,
    grid,
    loss_curves,
    open_store,
    run_trials,
    seeded,
    transfer_penalties,
)
from thetaone.tasks import LoadedTask, load_task, source_text
from thetaone.version import __version__

# For a task that says nothing: every octave that an Adam-like optimizer may want.
DEFAULTS: Mapping[str, Any] = {
    "lrs": tuple(2.0**power for power in range(-12, -1)),
    "seeds": (0, 1),
    "steps": 100,
}


def sweep(
    task: Any,
    *,
    widths: Iterable[int] | None = None,
    lrs: Iterable[float] | None = None,
    seeds: Iterable[int] | None = None,
    steps: int | None = None,
    parametrization: str | Callable[[Any, int, float], torch.optim.Optimizer] = "mup",
    optimizer: Any = torch.optim.AdamW,
    base_width: int | None = None,
    engine: str = "auto",
    n_processes: int | None = None,
    storage: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> SweepResult:
    """Train every (width, learning rate, seed), find each width's best rate, and its drift.

    What ``widths``, ``lrs``, ``seeds`` and ``steps`` leave open, ``task.defaults`` fills; failing
    that, the octaves 2^-12 to 2^-2, seeds 0 and 1, and 100 steps.

    Args:
        task: Name of a bundled task, path of a file, dotted module, or an object with ``model``,
            ``batches`` and ``loss``.
        widths: Widths to train, none below ``base_width``.
        lrs: Learning rates at the base width; octaves suffice.
        seeds: Seeds of initialization and batches; two or more give an interval.
        steps: Steps of each training [count].
        parametrization: ``"mup"``, ``"sp"`` (plain PyTorch), or your own
            ``(model, width, lr) -> optimizer``.
        optimizer: Class of ``torch.optim``, or whatever else ``t1.prescribe`` takes.
        base_width: Width at which rates are meant; the smallest when None.
        engine: ``"auto"`` measures which mix of processes, threads and stacked models is fastest;
            ``"serial"``, ``"processes"``, ``"stacked"``, ``"ray"`` decide it.
        n_processes: Workers; the cores at hand when None [count].
        storage: Path of a journal file, or a database URL; trials found there are not trained
            again, so a killed sweep resumes. None keeps nothing.
        progress: Called with a ``ProgressEvent`` when planned, decided, and after every trial.
        **options: Passed on to the prescription and to the optimizer's constructor.

    Returns:
        All trials with every step's loss, optima, drift, penalties, and how they were run.

    Raises:
        TaskError: A part of the task is missing or its loss is not a scalar.
        InputError: An empty or out-of-range axis, an unknown engine or parametrization.
        MismatchError: The model's width does not change.
        StorageError: The storage cannot be read or written.

    Examples:
        >>> result = sweep("digits", widths=[16, 32], lrs=[2**-8, 2**-6, 2**-4], seeds=[0],
        ...                steps=5)
        >>> len(result.trials), sorted(result.optima)
        (6, [16, 32])
    """
    started = time.perf_counter()
    loaded = load_task(task)
    axes = settle_axes(loaded, widths=widths, lrs=lrs, seeds=seeds, steps=steps)
    base = min(axes["widths"]) if base_width is None else base_width
    recipe = make_parametrization(parametrization, loaded, base, optimizer, options)
    specs = grid(
        widths=axes["widths"], lrs=axes["lrs"], seeds=axes["seeds"], n_steps=axes["steps"],
        parametrization=recipe.label, base_width=base,
    )  # fmt: skip
    check_widths(loaded, recipe, specs)
    name = recipe.optimizer_name
    store = open_store(storage, experiment=_experiment(loaded, recipe, name, options))
    work = Work(task=loaded, make_optimizer=recipe)
    found, decision, n_reused = run_trials(
        work, specs, store=store, engine=engine, n_processes=n_processes, progress=progress
    )
    trials = [
        found[spec].model_copy(update={"spec": replace(spec, rule=recipe.label)}) for spec in specs
    ]
    return _conclude(
        trials, decision, task=loaded.name, parametrization=recipe.label, optimizer=name,
        base_width=base, n_reused=n_reused, wall_seconds=time.perf_counter() - started,
    )  # fmt: skip


def settle_axes(
    task: LoadedTask,
    *,
    widths: Iterable[int] | None,
    lrs: Iterable[float] | None,
    seeds: Iterable[int] | None,
    steps: int | None,
) -> dict[str, Any]:
    """The four axes: from the caller, else from the task's defaults, else from ``DEFAULTS``.

    Raises:
        InputError: An empty axis, or no widths at all.
    """
    axes: dict[str, Any] = {"widths": widths, "lrs": lrs, "seeds": seeds, "steps": steps}
    for name, given in axes.items():
        found = task.defaults.get(name, DEFAULTS.get(name)) if given is None else given
        if found is None:
            raise InputError(
                f"{name} is not given and task {task.name} has no default for it: "
                f"pass {name}=, or set defaults = {{{name!r}: ...}} in the task"
            )
        axes[name] = found if name == "steps" else list(found)
        if axes[name] == []:
            raise InputError(f"{name}=[]: need at least one")
    return axes


def check_widths(task: LoadedTask, recipe: Parametrization, specs: Sequence[TrialSpec]) -> None:
    """Build each width once, with its optimizer and first loss, before anything is trained.

    What is wrong with the task or the optimizer is an error here; later it fails one trial.
    """
    seen: dict[tuple[torch.Size, ...], int] = {}
    for spec in {spec.width: spec for spec in specs}.values():
        with seeded(spec.seed):
            model = task.model(spec.width)
            batch = next(iter(task.batches(spec.seed)), None)
            if batch is None:
                raise TaskError(f"batches({spec.seed}) of task {task.name} yields nothing")
            check_loss(task.loss(model, batch), where=task.name)
            shapes = tuple(p.shape for p in model.parameters())
            if shapes in seen:
                raise MismatchError(
                    f"model(width={spec.width}) of task {task.name} has the same shapes as "
                    f"model(width={seen[shapes]}): make model use its width argument"
                )
            seen[shapes] = spec.width
            recipe(model, spec.width, spec.lr)


def _experiment(task: LoadedTask, recipe: Parametrization, optimizer: str, options: object) -> str:
    """What makes stored trials comparable: task, optimizer, options, and this version's rules."""
    digest = hashlib.sha256(f"{__version__} {task.fingerprint} {options!r}".encode())
    digest.update(repr(recipe.optimizer).encode())
    if recipe.builder is not None:
        digest.update(source_text(recipe.builder))
    return f"{task.name}, {optimizer}, {digest.hexdigest()[:12]}"


def _conclude(
    trials: Sequence[Trial],
    decision: EngineDecision,
    *,
    n_reused: int,
    base_width: int,
    **named: Any,
) -> SweepResult:
    """The result: optima, drift and penalties of the trials."""
    curves = loss_curves(trials)
    optima = find_optima(curves)
    best = optima.get(base_width)
    return SweepResult(
        trials=tuple(trials), engine=decision, base_width=base_width, optima=optima,
        drift=find_drift(curves, optima),
        penalties=transfer_penalties(curves, optima, best.log2_lr) if best else {},
        n_trained=len(trials) - n_reused, n_reused=n_reused, **named,
    )  # fmt: skip
