"""What axes of a sweep beside the rate do to a set-up: options, initial values, factors."""

import fnmatch
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError
from thetaone.parametrization._names import wildcard
from thetaone.parametrization.applying._prescribe import Optimizers, read_members
from thetaone.parametrization.reading import parameters_of, rms_of
from thetaone.parametrization.rules import Member
from thetaone.records import Blueprint, Prescription

INIT_SCALE = "init_scale"
ATTENTION = "attention_multiplier"
MULTIPLIERS: Mapping[str, str] = {  # what it is a factor on: weights of a role, attention logits
    "readout_multiplier": "output", "embedding_multiplier": "input", ATTENTION: "attention",
}  # fmt: skip
_BETAS = ("beta1", "beta2")


def check_axes(rule: Any, optimizer: Optimizers, axes: Mapping[str, Sequence[float]]) -> None:
    """Refuse axes that nothing takes.

    Args:
        rule: ``"mup"``, ``"sp"``, or the caller's ``(model, width, lr, **axes) -> optimizer``.
        optimizer: Class, name or mapping.
        axes: Name to values.

    Raises:
        InputError: The optimizer has no such number, or the function no such argument.
    """
    if axes and callable(rule):
        _check_arguments(rule, axes)
    elif axes:
        _check_numbers(optimizer, axes)


def _check_arguments(rule: Callable[..., Any], axes: Iterable[str]) -> None:
    try:
        inspect.signature(rule).bind(None, 1, 1.0, **dict.fromkeys(axes, 1.0))
    except TypeError as error:
        raise InputError(
            f"axes {', '.join(axes)}: the parametrization takes none of that name ({error}); write "
            f"(model, width, lr, {', '.join(axes)}) -> optimizer"
        ) from None


def _check_numbers(optimizer: Optimizers, axes: Mapping[str, Sequence[float]]) -> None:
    members = read_members(optimizer, {})
    numbers = {name for member in members.values() for name in _numbers(member)}
    others = sorted({INIT_SCALE, *MULTIPLIERS, *numbers})
    for name, values in axes.items():
        if name not in others:
            raise InputError(
                f"axis {name}: neither a number among the optimizer's options nor a factor on "
                f"initial values or features; axes are {', '.join(others)}"
            )
        if name in (INIT_SCALE, *MULTIPLIERS) and min(values) <= 0:
            raise InputError(f"axis {name}={min(values)}: a factor must be > 0, e.g. 0.5,1,2")


def axis_options(
    optimizer: Optimizers, options: Mapping[str, Any], axes: Mapping[str, float]
) -> dict[str, Any]:
    """Options of the optimizer's constructor with the axes' values in their place.

    ``beta1`` and ``beta2`` are parts of ``betas``; a value is a whole number or a truth where the
    constructor's default is one.

    Examples:
        >>> axis_options("AdamW", {"eps": 1e-9}, {"beta2": 0.95, "weight_decay": 0.5})
        {'eps': 1e-09, 'betas': (0.9, 0.95), 'weight_decay': 0.5}
    """
    defaults = {
        name: value
        for member in read_members(optimizer, options).values()
        for name, value in _defaults(member).items()
    }
    merged = dict(options)
    for name, value in axes.items():
        if name in _BETAS:
            betas = list(merged.get("betas", defaults["betas"]))
            betas[_BETAS.index(name)] = value
            merged["betas"] = tuple(betas)
        elif name in defaults:
            kind = type(defaults[name])
            merged[name] = kind(value) if kind in (int, bool) and kind(value) == value else value
    return merged


def axis_value(optimizer: Optimizers, options: Mapping[str, Any], name: str) -> float:
    """The value that an option has, by the caller or by the constructor's default.

    Raises:
        InputError: No optimizer has such an option.

    Examples:
        >>> axis_value("AdamW", {"betas": (0.9, 0.95)}, "beta2")
        0.95
    """
    for member in read_members(optimizer, options).values():
        values = {**_defaults(member), **member.options}
        if name in _BETAS and "betas" in values:
            return float(values["betas"][_BETAS.index(name)])
        if name in values:
            return float(values[name])
    raise InputError(f"{name}: no optimizer of this set-up has such an option")


def axis_folds(parts: Mapping[str, Sequence[str]], axes: Mapping[str, float]) -> dict[str, float]:
    """Glob pattern of names to the forward factor that a multiplier puts on those weights.

    Args:
        parts: Multiplier to the patterns of its weights.
        axes: Values of the axes.
    """
    return {
        pattern: axes[name] for name, patterns in parts.items() if name in axes
        for pattern in patterns
    }  # fmt: skip


def multiplied(
    roles: Mapping[str, str], blueprint: Blueprint, axes: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Multiplier to the patterns of the weights that it is a factor on.

    Args:
        roles: Pattern to role.
        blueprint: Of the model.
        axes: Names of the axes.

    Raises:
        InputError: A factor on attention logits is asked for and cannot be folded.
    """
    parts = {
        name: tuple(pattern for pattern, its in roles.items() if its == role)
        for name, role in MULTIPLIERS.items()
    }
    return {**parts, ATTENTION: _of_attention(blueprint)} if ATTENTION in axes else parts


def _of_attention(blueprint: Blueprint) -> tuple[str, ...]:
    """Patterns of the parameters whose factor is one on the attention logits: those of q, or of k.

    Raises:
        InputError: There are no such logits, or a side of theirs is no parameter of its own.
    """
    logits = [product for product in blueprint.products if product.attention]
    if not logits:
        raise InputError(
            f"axis {ATTENTION}: this model has no attention logits, a softmax of sums q·k of "
            "features; leave the axis out"
        )
    trained = {site.name for site in blueprint.sites if site.trainable}
    names: set[str] = set()
    for product in logits:
        whole = [
            {target.parameter for target in side}
            for side in product.sides
            if all(not target.spans and target.parameter in trained for target in side)
        ]
        if product.same or not whole:
            raise InputError(
                f"axis {ATTENTION}: neither the queries nor the keys of "
                f"{product.where or 'the model'} are made by trained parameters of their own (rows "
                "of a fused projection have its one learning rate), so plain PyTorch cannot "
                "express the factor; give them a weight of their own, or leave the axis out"
            )
        names |= whole[0]
    return _patterns(names, [site.name for site in blueprint.sites])


def _patterns(names: Collection[str], others: Iterable[str]) -> tuple[str, ...]:
    """The names with stars for the numbers of blocks, where that matches no other name."""
    caught = {
        pattern: {name for name in others if fnmatch.fnmatchcase(name, pattern)}
        for pattern in map(wildcard, names)
    }
    return tuple(sorted({
        wildcard(name) if caught[wildcard(name)] <= set(names) else name for name in names
    }))  # fmt: skip


def require_parts(model: nn.Module, parts: Mapping[str, Sequence[str]], axes: Any) -> None:
    """Refuse a multiplier of weights that the model has not.

    Raises:
        InputError: The model has no readout, or no embedding, of its own.
    """
    names = [name for name, _ in model.named_parameters()]
    for axis in MULTIPLIERS.keys() & set(axes):
        patterns = parts.get(axis, ())
        if not any(fnmatch.fnmatchcase(n, pattern) for n in names for pattern in patterns):
            raise InputError(
                f"axis {axis}: this model has no weights in the role {MULTIPLIERS[axis]!r} alone "
                "(a readout tied to the embedding is both); leave the axis out"
            )


def scale_initial_values(model: nn.Module, factor: float, folds: Mapping[str, float]) -> None:
    """Multiply the initial values of matrices, kernels and embeddings.

    Args:
        model: Whose values are scaled in place.
        factor: On all of them; vectors stay.
        folds: Glob pattern to a further factor, on vectors too.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fold = math.prod(
                f for pattern, f in folds.items() if fnmatch.fnmatchcase(name, pattern)
            )
            scale = fold * (factor if parameter.ndim >= 2 else 1.0)
            if scale != 1.0:
                parameter.mul_(scale)


def scaled_initial(prescription: Prescription, model: nn.Module, factor: float) -> Prescription:
    """A prescription with the initial values of matrices, kernels and embeddings times a factor.

    Args:
        prescription: Of the model.
        model: Freshly initialized: says the size of what the prescription leaves as it is.
        factor: On the root mean square of each of them.
    """
    if factor == 1.0:
        return prescription
    sizes = {name: rms_of(p) for name, p in parameters_of(model).items() if p.ndim >= 2}
    rules = tuple(
        rule.model_copy(update={
            "init_factor": rule.init_factor * factor,
            "init_std": factor * (sizes[rule.name] if rule.init_std is None else rule.init_std),
        }) if rule.name in sizes else rule
        for rule in prescription.rules
    )  # fmt: skip
    return prescription.model_copy(update={"rules": rules})


def _numbers(member: Member) -> set[str]:
    """Options of an optimizer that are numbers, as an axis calls them."""
    defaults = _defaults(member)
    named = {
        name for name, value in defaults.items()
        if isinstance(value, int | float) and name != "lr"
    }  # fmt: skip
    betas = defaults.get("betas")
    return named | (set(_BETAS) if isinstance(betas, tuple) else set())


def _defaults(member: Member) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(member.cls).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
