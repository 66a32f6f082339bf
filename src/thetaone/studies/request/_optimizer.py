"""The optimizer of a request and its options: the caller's, else the task's, else AdamW's own."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from thetaone.errors import InputError, TaskError
from thetaone.parametrization import optimizer_name, read_members
from thetaone.records import takes_option
from thetaone.tasks import LoadedTask

PARTS = ("beta1", "beta2")  # of betas, in this order
OPTIONS = ("weight_decay", "betas", *PARTS, "eps", "momentum")  # as a task may name them
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
    ``beta1`` and ``beta2`` are parts of ``betas``: each replaces that part of what stood before.
    """
    said = {name: value for name, value in task.training.items() if value is not None}
    layers: list[Mapping[str, Any]] = []
    if optimizer is None or "optimizer" not in said:
        default = said.get("optimizer", torch.optim.AdamW)
        default, first = default if isinstance(default, tuple) else (default, {})
        optimizer = default if optimizer is None else optimizer
        layers = _task_options(task, optimizer, {**said, "first": first})
    merged: dict[str, Any] = {}
    for layer in (*layers, options):
        merged = _over(merged, layer, optimizer)
    if "lr" in merged:
        raise InputError(
            f"lr={merged['lr']!r} among the optimizer's options: the rate is what is swept; pass "
            "lrs (or defaults = {'lrs': ...} in the task) and leave lr out"
        )
    return optimizer, merged


def _over(below: Mapping[str, Any], layer: Mapping[str, Any], optimizer: Any) -> dict[str, Any]:
    """Options with those of a layer in their place.

    An optimizer without ``betas`` gets the parts by their names, and refuses them.
    """
    merged = {**below, **{name: layer[name] for name in layer if name not in PARTS}}
    for place, name in enumerate(PARTS):
        betas = merged.get("betas", _betas(optimizer)) if name in layer else None
        if betas is not None and len(betas) == len(PARTS):
            merged["betas"] = tuple(layer[name] if i == place else b for i, b in enumerate(betas))
        elif name in layer:
            merged[name] = layer[name]
    return merged


def _task_options(
    task: LoadedTask, optimizer: Any, said: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Options of the optimizer that the task says: beside it, by a mapping, by themselves.

    Raises:
        TaskError: They are no mapping, or the optimizer takes none of that name.
    """
    options = said.get("options", {})
    if not isinstance(options, Mapping):
        raise TaskError(
            f"options of task {task.name} is {options!r}: write a mapping, e.g. "
            "options = {'eps': 1e-8}"
        )
    layers = [said["first"], options, {name: said[name] for name in OPTIONS if name in said}]
    classes = [member.cls for member in read_members(optimizer, {}).values()]
    for name, value in ((name, value) for layer in layers for name, value in layer.items()):
        argument = "betas" if name in PARTS else name
        if name != "lr" and not any(takes_option(cls, argument) for cls in classes):
            names = " or ".join(cls.__name__ for cls in classes)
            raise TaskError(
                f"task {task.name} says {name} = {value!r}, which {names} does not take: "
                "drop it, or name the optimizer that takes it"
            )
    return layers


def _betas(optimizer: Any) -> tuple[float, ...] | None:
    """Adam's β of the first optimizer that has some: those named beside it, else its default."""
    for member in read_members(optimizer, {}).values():
        parameter = inspect.signature(member.cls).parameters.get("betas")
        betas = member.options.get("betas", parameter and parameter.default)
        if isinstance(betas, tuple | list):
            return tuple(betas)
    return None
