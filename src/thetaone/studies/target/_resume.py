"""``thetaone train``: the target of a recipe, from its file, in any process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from thetaone.errors import InputError
from thetaone.records import Recipe, Trial, TrialSpec, local_path
from thetaone.studies.target._checkpoints import MINUTES, Checkpoints
from thetaone.studies.target._observe import CURVE, Observing
from thetaone.studies.target._recipe import RecipeOptimizer
from thetaone.studies.target._replicas import replicas
from thetaone.studies.target._train import WEIGHTS, OnStep, save_weights, train
from thetaone.sweeps import Work
from thetaone.tasks import load_task

TRIAL = "target.json"


def train_recipe(
    path: str | Path,
    *,
    task: Any = None,
    folder: str | Path | None = None,
    checkpoint_minutes: float = MINUTES,
    evaluate_every: int = 0,
    monitor_every: int = 0,
    parallel: str = "ddp",
    on_step: Callable[[Recipe], OnStep],
) -> tuple[Trial, float | None] | None:
    """Train a recipe's target to the end and keep its weights; resume where it was stopped.

    Under ``torchrun`` its processes share every batch, and the first one writes.

    Args:
        path: Of ``recipe.json``.
        task: The task, when the recipe was made from an object; None: the one it names.
        folder: For ``model.safetensors``, ``target.json`` and the checkpoint; None: the recipe's.
        checkpoint_minutes: Between two checkpoints [min].
        evaluate_every: Steps between two evaluations by the task, written to ``curve.jsonl`` in the
            folder; 0 never [count].
        monitor_every: Steps between two readings of every layer's norms, written there too and
            warned of where one is dead or explodes; 0 never [count].
        parallel: Under ``torchrun``: ``"ddp"``, or ``"fsdp"``: parameters, gradients and the
            optimizer's state are shared out (FSDP2).
        on_step: Makes what is called after every step.

    Returns:
        The trial, and the task's evaluation of the trained model where it has one; None in all
        processes but the first.

    Raises:
        InputError: The recipe names no task and none is passed, or the task has no evaluation.
        MismatchError: The task's model is not the recipe's; names what differs.
        CheckpointError: A checkpoint is of another recipe, or cannot be written.
    """
    recipe = Recipe.load(path)
    reference = task if task is not None else recipe.reference
    if reference is None:
        raise InputError(
            f"{path} was made from a task that is an object of a program: pass it, or put the task "
            "into a file and run transfer on that"
        )
    loaded = load_task(reference)
    target = local_path(path).resolve().parent if folder is None else local_path(folder)
    target.mkdir(parents=True, exist_ok=True)
    work = Work(task=loaded, make_optimizer=RecipeOptimizer(recipe), loop=recipe.loop)
    spec = TrialSpec(
        width=recipe.width, depth=recipe.depth, lr=recipe.lr, seed=recipe.seed,
        n_steps=recipe.n_steps, rule="recipe",
    )  # fmt: skip
    observing = Observing(
        path=target / CURVE, evaluate=loaded.evaluate, evaluate_every=evaluate_every,
        monitor_every=monitor_every,
    )  # fmt: skip
    if parallel == "fsdp" and (evaluate_every or monitor_every):
        raise InputError(
            "evaluate_every and monitor_every look at a whole model, and with parallel='fsdp' no "
            "process holds one: leave them out, or use ddp"
        )
    with replicas(parallel) as processes:
        trained = train(
            work, spec, schedule=recipe.memory, memory=False, replicas=processes,
            observing=observing,
            on_step=on_step(recipe) if processes.first else _silent,
            checkpoints=Checkpoints(
                folder=target, recipe=recipe.fingerprint, minutes=checkpoint_minutes
            ),
        )  # fmt: skip
        if not processes.first:
            return None
        save_weights(trained.model, target / WEIGHTS)
    trained.trial.to_json(target / TRIAL)
    evaluate = loaded.evaluate
    return trained.trial, None if evaluate is None else float(evaluate(trained.model))


def _silent(*_: Any) -> None:
    """The first process speaks."""
