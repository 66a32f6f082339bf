"""Calls of a task's parts whose errors name the task's file and line."""

from typing import Any

from torch import Tensor, nn

from thetaone.errors import TaskError, blamed_on_task
from thetaone.records import Task


def first_batch(task: Task, seed: int) -> Any:
    """The first batch of a seed.

    Raises:
        TaskError: There is none, or drawing it raises.
    """
    with blamed_on_task(f"task.batches(seed={seed})"):
        batch = next(iter(task.batches(seed)), None)
    if batch is None:
        raise TaskError(f"task.batches(seed={seed}) is empty: yield at least one batch")
    return batch


def scalar_loss(task: Task, model: nn.Module, batch: Any) -> Tensor:
    """``task.loss(model, batch)``.

    Raises:
        TaskError: It raises, or gives no scalar tensor.
    """
    with blamed_on_task("task.loss"):
        loss = task.loss(model, batch)
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TaskError(f"task.loss returned {what}: return a scalar tensor, e.g. loss.mean()")
    return loss
