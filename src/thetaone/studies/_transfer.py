"""The whole job: find the rate small, prove that it transfers, train the large model in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thetaone.errors import BudgetTooSmallError, InputError
from thetaone.records import (
    Progress,
    RateSchedule,
    TransferResult,
    hide_passwords,
    parse_bytes,
    written_like,
)
from thetaone.studies._job import Confirm, Job
from thetaone.studies._tune import TRIALS, check_names
from thetaone.studies._watch import Watch, logged
from thetaone.studies.request import Size, settle
from thetaone.studies.target import (
    MINUTES,
)


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
    search: str = "grid",
    choose: str = "loss",
    tune: Sequence[str] = (),
    tune_trials: int = TRIALS,
    engine: str = "auto",
    storage: str | None = None,
    target_steps: int | None = None,
    checkpoint_minutes: float = MINUTES,
    confirm: Confirm | None = None,
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
        report: Folder for the page (``index.html``, ``result.json``), the sweep's journal, and what
            goes on from there: ``recipe.json``, ``run.toml``, ``model.safetensors`` and the
            checkpoint from which a killed training of the target resumes.
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
        search: ``"grid"`` or ``"auto"``; see ``sweep``.
        choose: What trials are compared by: ``"loss"`` of training, or the task's ``"evaluate"``.
        tune: What to tune on the proxies with the rate: ``weight_decay``, ``beta1``, ``beta2``,
            ``momentum``, ``eps`` of the optimizer; ``init``, a factor on the initial values of
            matrices; ``readout`` and ``embedding``, factors on what those put out; ``attention``,
            one on the logits q·k. Another value is kept where it is better by more than its
            standard error, at every proxy, and does not move with size. With a factor that is kept
            the target has parameter groups.
        tune_trials: Trainings of proxies that this may take [count].
        engine: How the sweep is run; see ``sweep``.
        storage: Journal file or database URL of the sweeps; None: in ``report``, if given.
        target_steps: Steps of the target's training; None: ``steps`` [count].
        checkpoint_minutes: Between two checkpoints of the target [min].
        confirm: Asked before the target is trained when the check of µP failed; None goes on.
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
        search=search, choose=choose,
    )  # fmt: skip
    if target_steps is not None and target_steps < 1:
        raise InputError(f"target_steps={target_steps}: need at least 1 step of training")
    check_names(request, tune, tune_trials)
    budget = None if memory is None else parse_bytes(memory, where="memory")
    job = Job.of(
        request, Size(target, request.base.depth), storage=storage, engine=engine, report=report,
        watch=Watch(logged(progress)), budget=budget, target_steps=target_steps or request.steps,
        minutes=checkpoint_minutes, tune=tuple(tune),
    )  # fmt: skip
    try:
        return job.run(hide_passwords(command), confirm)
    except BudgetTooSmallError as error:
        if memory is None:
            raise
        enough = written_like(error.floor_bytes, str(memory))
        raise error.as_asked(str(memory), enough) from None
