"""The optimizer of a request and its options: the caller's, else the task's, else AdamW's own."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from thetaone.errors import InputError, TaskError
from thetaone.parametrization import optimizer_name, read_members
from thetaone.records import takes_option
from thetaone.tasks import LoadedTask

OPTIONS = ("weight_decay", "betas", "beta2", "eps", "momentum")  # as a task may name them
SCALING = (
    "decay",
    "decay_vectors",
    "depth_exponent",
    "branches",
)  # choices that plain torch ignores


def require_trained(rule: Any, names: Iterable[str]) -> None:
    """Refuse what a parametrization would leave out in silence.

    Args:
        rule: ``"mup"``, ``"sp"``, or the caller's callable.
        names: What the caller chose: options of the optimizer, choices of ``prescribe``.

    Raises:
        InputError: A callable builds the optimizer by itself; plain torch scales nothing.
    """
    chosen = list(names)
    if callable(rule) and chosen:
        raise InputError(
            f"{', '.join(chosen)}: your own parametrization builds the optimizer and would not see "
            "this; say it there, or make a number an axis: axes={'weight_decay': [0.1]}"
        )
    scaling = [name for name in chosen if name in SCALING]
    if rule == "sp" and scaling:
        raise InputError(
            f"{', '.join(scaling)}: a choice of what µP prescribes, and parametrization='sp' "
            "prescribes nothing; leave it out, or use 'mup'"
        )


def require_class(built: torch.optim.Optimizer, optimizer: Any) -> None:
    """Refuse an optimizer that is not what the caller's own parametrization builds.

    Args:
        built: By the callable.
        optimizer: What the caller named beside it.

    Raises:
        InputError: It is none of the optimizers built.
    """
    classes = tuple(member.cls for member in read_members(optimizer, {}).values())
    members = getattr(built, "members", [built])
    if not any(isinstance(member, classes) for member in members):
        raise InputError(
            f"optimizer={optimizer_name(optimizer)}: your own parametrization builds "
            f"{' and '.join(type(member).__name__ for member in members)}; leave optimizer out"
        )


def choose_optimizer(
    task: LoadedTask, optimizer: Any, options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Optimizer and options: the caller's, else the task's, else AdamW's own.

    The task's options are those of the task's optimizer, so another one leaves them behind.
    ``beta2`` alone is a ``betas`` with the optimizer's own first one.
    """
    said = {name: value for name, value in task.training.items() if value is not None}
    if optimizer is None or "optimizer" not in said:
        default = said.get("optimizer", torch.optim.AdamW)
        default, first = default if isinstance(default, tuple) else (default, {})
        optimizer = default if optimizer is None else optimizer
        options = {**_task_options(task, optimizer, {**said, "first": first}), **options}
    options = dict(options)
    if "lr" in options:
        raise InputError(
            f"lr={options['lr']!r} among the optimizer's options: the rate is what is swept; pass "
            "lrs (or defaults = {'lrs': ...} in the task) and leave lr out"
        )
    if "beta2" in options and (beta1 := _beta1(optimizer)) is not None:
        options["betas"] = (beta1, options.pop("beta2"))
    return optimizer, options


def _task_options(task: LoadedTask, optimizer: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the optimizer that the task says.

    Raises:
        TaskError: They are no mapping, or the optimizer takes none of that name.
    """
    options = said.get("options", {})
    if not isinstance(options, Mapping):
        raise TaskError(
            f"options of task {task.name} is {options!r}: write a mapping, e.g. "
            "options = {'eps': 1e-8}"
        )
    named = {name: said[name] for name in OPTIONS if name in said}
    options = {**said["first"], **options, **named}
    classes = [member.cls for member in read_members(optimizer, {}).values()]
    for name in options:
        argument = "betas" if name == "beta2" else name
        if name != "lr" and not any(takes_option(cls, argument) for cls in classes):
            names = " or ".join(cls.__name__ for cls in classes)
            raise TaskError(
                f"task {task.name} says {name} = {options[name]!r}, which {names} does not take: "
                "drop it, or name the optimizer that takes it"
            )
    return options


def _beta1(optimizer: Any) -> float | None:
    """The default of Adam's first β, of the first optimizer that has one."""
    for member in read_members(optimizer, {}).values():
        betas = inspect.signature(member.cls).parameters.get("betas")
        if betas is not None:
            return float(betas.default[0])
    return None
