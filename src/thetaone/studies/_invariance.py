"""``coordinate_check`` for a task by object or by name: loads it, runs the check."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from thetaone.parametrization import Optimizers, read_members
from thetaone.parametrization import coordinate_check as check_task
from thetaone.records import CoordinateCheck, RateSchedule, Task, TrainingLoop, training_loop
from thetaone.studies.request import (
    DEFAULTS,
    Rule,
    choose_optimizer,
    made_choices,
    require_trained,
    settled_training,
)
from thetaone.sweeps import Descent, Work, whole_numbers
from thetaone.tasks import load_task

WIDTHS = (64, 128, 256)  # for a task that names none
LR = 2.0**-7


def coordinate_check(
    task: Any,
    *,
    widths: Sequence[int] | None = None,
    lr: float | None = None,
    depths: Sequence[int] = (),
    optimizer: Optimizers | None = None,
    parametrization: Rule = "mup",
    seeds: int | Sequence[int] = 3,
    max_seeds: int = 8,
    steps: Sequence[int] | None = None,
    schedule: RateSchedule | None = None,
    clip: float | None = None,
    precision: str | None = None,
    accumulate: int | None = None,
    training_steps: int | None = None,
    target: int | None = None,
    base_width: int | None = None,
    roles: Mapping[str, str] | None = None,
    folds: Mapping[str, float] | None = None,
    decay: str = "shrinkage",
    decay_vectors: bool = True,
    depth_exponent: float | None = 1.0,
    branches: Sequence[str] = (),
    frozen: str = "error",
    sample: Any = None,
    bands: Mapping[str, tuple[float, float]] | None = None,
    **options: Any,
) -> CoordinateCheck:
    """Whether every layer's features move as much in a wide model as in a narrow one.

    Args:
        task: An object or module with ``model``, ``batches`` and ``loss``, or its name: a file, a
            dotted module, or a bundled task.
        widths: At least two [features]; None: the task's own, else 64, 128, 256.
        lr: Learning rate at ``base_width``; None: the middle one of the task's own, else 2⁻⁷.
        depths: Depths to compare, then at one width; with several widths, the depth of each, and
            both grow together [blocks].
        optimizer: A class, its name in ``torch.optim``, or a mapping from roles to classes; None:
            the task's own, else AdamW.
        parametrization: ``"mup"``, ``"sp"``, or ``(model, width, lr) -> optimizer``.
        seeds: Trainings at each size to begin with: how many [count], or their seeds.
        max_seeds: Limit to which seeds are added while a row is undecided that they may decide
            [count].
        steps: Steps after which features are compared with their first values; None: 1 and 3,
            or as many after those in which the optimizer does not step as it will (RAdam) [count].
        schedule: Of the learning rate, as for the arguments that follow: None: the task's own. What
            is trained are the first steps of a training.
        clip: Largest global norm of the gradients. Steps that shrink with them (SGD's) are compared
            without what clipping took; whether that grows with size is a row of its own.
        precision: ``"fp32"`` or ``"bf16"``: of the steps; what is measured is computed in fp32.
        accumulate: Parts into which each batch is split [count].
        training_steps: Steps that the schedule spans; None: the task's own, else 100 [count].
        target: Width of the large model that the check is for: compared too, and where ``lr`` is
            meant and nothing is rescaled.
        base_width: Another width for that; None: ``target``, else the smallest width.
        roles: See ``t1.prescribe``, as for the arguments that follow.
        folds: Factors to fold into parameters.
        decay: Weight-decay policy.
        decay_vectors: Whether vectors are decayed.
        depth_exponent: Of the factor on residual branches.
        branches: What ends residual branches.
        frozen: What to do with parameters that need no gradient.
        sample: Inputs of one forward pass.
        bands: Exponents that count as Θ(1), by quantity.
        **options: Of the optimizer's constructor.

    Returns:
        The verdict; ``.passed``, ``.failures``, ``print`` and ``.plot()``.

    Raises:
        TaskError: The task lacks a part, or a part returns the wrong thing.
        PrescriptionError: The optimizer or the model's parameters have no rule.
        InputError: A number out of its range, or a schedule that is 0 in all of ``steps``.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> class Regression:
        ...     def model(self, width):
        ...         return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))
        ...     def batches(self, seed):
        ...         yield torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))
        ...     def loss(self, model, batch):
        ...         return (model(batch) - batch.sum(1, keepdim=True)).square().mean()
        >>> coordinate_check(Regression(), widths=[16, 64, 256], lr=2**-7).passed
        True
    """
    loaded = load_task(task)
    chosen, taken = choose_optimizer(loaded, optimizer, options)
    members = read_members(chosen, taken, call=coordinate_check)
    settles = max(member.family.settles for member in members.values())
    if callable(parametrization):  # the optimizer and the choices say what is expected
        require_trained(parametrization, options)
    choices = made_choices({
        "roles": roles, "folds": folds, "decay": decay, "decay_vectors": decay_vectors,
        "depth_exponent": depth_exponent, "branches": branches, "frozen": frozen, "sample": sample,
    })  # fmt: skip
    sizes: Sequence[int] = loaded.defaults.get("widths", WIDTHS) if widths is None else widths
    lr = _middle(loaded.defaults.get("lrs", (LR,))) if lr is None else lr
    sizes = _each("widths", sizes, least=1)
    compared = sizes if target is None else sorted({*sizes, *_each("target", [target], least=1)})
    steps = (settles + 1, settles + 3) if steps is None else steps
    moments = _each("steps", steps, least=1)
    loop = settled_training(loaded, {
        "schedule": schedule, "clip": clip, "precision": precision, "accumulate": accumulate,
    })  # fmt: skip
    asked = (
        loaded.defaults.get("steps", DEFAULTS["steps"])
        if training_steps is None
        else training_steps
    )
    n_steps = max(*_each("steps", [asked], least=1), *moments)
    return check_task(
        cast(Task, loaded), widths=compared, lr=lr, depths=_each("depths", depths, least=1),
        optimizer=chosen, parametrization=parametrization, seeds=_seeds(seeds),
        max_seeds=max_seeds, steps=moments, descend=descending(loaded, loop, n_steps),
        base_width=target if base_width is None else base_width,
        bands=bands, name=loaded.name, options={**choices, **taken},
    )  # fmt: skip


@dataclass(frozen=True)
class Descending:
    """Makes what steps a model as a loop says."""

    work: Work
    n_steps: int

    @property
    def loop(self) -> TrainingLoop:
        """What a step does beside the optimizer's update."""
        return self.work.loop

    def __call__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Descent:
        """What steps this model."""
        return Descent(self.work, model, optimizer, self.n_steps)


def descending(task: Any, training: Mapping[str, Any], n_steps: int) -> Descending | None:
    """What takes the steps of a check; None for a plain loop.

    Args:
        task: The loaded task.
        training: Arguments of ``training_loop``.
        n_steps: Steps that the schedule spans [count].
    """
    loop = training_loop(n_steps=n_steps, **training)
    if loop.plain:
        return None
    return Descending(Work(task=task, make_optimizer=_built_before, loop=loop), n_steps)


def _built_before(*_: Any, **__: Any) -> Any:
    """A check builds its optimizers itself, by what it prescribes."""
    raise AssertionError("a descent is handed its optimizer")


def _each(name: str, values: Any, *, least: int) -> list[int]:
    """Whole numbers in the order in which they stand: widths and depths may grow in pairs."""
    values = values if isinstance(values, Iterable) else [values]
    return [whole_numbers(name, [value], least=least)[0] for value in values]


def _seeds(seeds: Any) -> list[int]:
    """The seeds to begin with, from their number or as they are."""
    try:
        listed = list(seeds)
    except TypeError:  # a number, NumPy's and torch's included
        (count,) = whole_numbers("seeds", [seeds], least=1)
        return list(whole_numbers("seeds", range(count), least=0))
    return _each("seeds", listed, least=0)


def _middle(lrs: Sequence[float]) -> float:
    ordered = sorted(lrs)
    return ordered[(len(ordered) - 1) // 2]
