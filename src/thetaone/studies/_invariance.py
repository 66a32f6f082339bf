"""``coordinate_check`` for a task by object or by name: loads it, runs the check."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from thetaone.parametrization import Optimizers, read_members
from thetaone.parametrization import coordinate_check as check_task
from thetaone.records import CoordinateCheck, Task
from thetaone.studies.request import Rule, choose_optimizer, made_choices
from thetaone.sweeps import whole_numbers
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
    steps: Sequence[int] = (1, 3),
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
        max_seeds: Limit to which seeds are added while a row is undecided [count].
        steps: Steps after which features are compared with their first values [count].
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
    read_members(chosen, taken, call=coordinate_check)
    choices = made_choices({
        "roles": roles, "folds": folds, "decay": decay, "decay_vectors": decay_vectors,
        "depth_exponent": depth_exponent, "branches": branches, "frozen": frozen, "sample": sample,
    })  # fmt: skip
    sizes: Sequence[int] = loaded.defaults.get("widths", WIDTHS) if widths is None else widths
    lr = _middle(loaded.defaults.get("lrs", (LR,))) if lr is None else lr
    sizes = _each("widths", sizes, least=1)
    compared = sizes if target is None else sorted({*sizes, *_each("target", [target], least=1)})
    return check_task(
        cast(Task, loaded), widths=compared, lr=lr, depths=_each("depths", depths, least=1),
        optimizer=chosen, parametrization=parametrization, seeds=_seeds(seeds),
        max_seeds=max_seeds, steps=_each("steps", steps, least=1),
        base_width=target if base_width is None else base_width,
        bands=bands, name=loaded.name, options={**choices, **taken},
    )  # fmt: skip


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
