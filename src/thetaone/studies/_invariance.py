"""``coordinate_check`` for a task by object or by name: loads it, runs the check."""

from collections.abc import Sequence
from typing import Any, cast

import torch

from thetaone.parametrization import Optimizers
from thetaone.parametrization import coordinate_check as check_task
from thetaone.records import CoordinateCheck, Task
from thetaone.tasks import load_task


def coordinate_check(
    task: Any,
    *,
    widths: Sequence[int],
    lr: float,
    optimizer: Optimizers = torch.optim.AdamW,
    **options: Any,
) -> CoordinateCheck:
    """Whether every layer's features move as much in a wide model as in a narrow one.

    Args:
        task: An object or module with ``model``, ``batches`` and ``loss``, or its name: a file, a
            dotted module, or a bundled task.
        widths: At least two [features].
        lr: Learning rate at the base width (the smallest, unless ``base_width=`` is given).
        optimizer: A class, its name in ``torch.optim``, or a mapping from roles to classes.
        **options: ``depths=`` (then one width), ``parametrization=`` (``"mup"``, ``"sp"`` or a
            callable), ``seeds=``, ``steps=``, ``base_width=``, ``bands=``, choices of
            ``prescribe``, options of the optimizer.

    Returns:
        The verdict; ``.passed``, ``.failures``, ``print`` and ``.plot()``.

    Raises:
        TaskError: The task lacks a part, or a part returns the wrong thing.
        PrescriptionError: The optimizer or the model's parameters have no rule.

    Examples:
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
    name = task if isinstance(task, str) else getattr(task, "__name__", type(task).__name__)
    return check_task(
        cast(Task, load_task(task)), widths=widths, lr=lr, optimizer=optimizer, name=name, **options
    )
