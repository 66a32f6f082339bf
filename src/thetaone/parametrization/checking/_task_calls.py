"""Calls of a task's parts whose errors name the task's file and line."""

from typing import Any

import torch
from torch import Tensor, nn

from thetaone.errors import InputError, TaskError, blamed_on_task
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


def check_hooks(model: nn.Module) -> None:
    """Refuse a model whose modules cannot be looked at.

    Raises:
        InputError: One is scripted; a traced one takes hooks.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.RecursiveScriptModule):
            raise InputError(
                f"{name or 'the model'} is made by torch.jit.script, whose modules take no hooks, "
                "so that what they put out cannot be looked at: check the model before it is "
                "scripted (its prescription is the same)"
            )


def scalar_loss(task: Task, model: nn.Module, batch: Any) -> Tensor:
    """``task.loss(model, batch)``, which may take gradients itself, as of a gradient penalty.

    Raises:
        TaskError: It raises, or gives no scalar tensor.
    """
    with blamed_on_task("task.loss"), torch.enable_grad():
        loss = task.loss(model, batch)
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TaskError(f"task.loss returned {what}: return a scalar tensor, e.g. loss.mean()")
    return loss
