"""Factors that stay in the forward pass, held in the model's state so that they travel with it.

A state dict with such a factor has an entry more than the plain model's, so that loading it there
fails aloud instead of giving another model.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

_UNSCALED: ContextVar[bool] = ContextVar("unscaled", default=False)
INPUT_FACTOR, OUTPUT_FACTOR = "input_factor", "output_factor"  # names of buffers


@contextlib.contextmanager
def unscaled() -> Iterator[None]:
    """Take every factor of this module as 1: the model as its code says."""
    token = _UNSCALED.set(True)
    try:
        yield
    finally:
        _UNSCALED.reset(token)


class ScaleRows(nn.Module):
    """Parametrization that multiplies rows of a parameter.

    Args:
        factors: To multiply with, of a shape that broadcasts with the parameter's.
    """

    factors: Tensor

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", factors)

    def forward(self, weight: Tensor) -> Tensor:
        """``w -> factors · w``."""
        return weight if _UNSCALED.get() else weight * self.factors.to(weight.dtype)


class ScaleInput:
    """Forward pre-hook that multiplies a module's first input by its buffer ``input_factor``.

    A class, not a closure: a model with it can be pickled, deep-copied and compiled.
    """

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """``(x, …) -> (factor · x, …)``."""
        if _UNSCALED.get():
            return inputs
        return (inputs[0] * module.get_buffer(INPUT_FACTOR).to(inputs[0].dtype), *inputs[1:])


class ScaleOutput:
    """Forward hook that multiplies a module's first output by its buffer ``output_factor``."""

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        """``y -> factor · y``; of a tuple, its first."""
        if _UNSCALED.get():
            return output
        factor = module.get_buffer(OUTPUT_FACTOR)
        if isinstance(output, tuple):
            return (output[0] * factor.to(output[0].dtype), *output[1:])
        return output * factor.to(output.dtype)


def set_input_factor(module: nn.Module, factor: float) -> None:
    """Multiply a module's first input; an earlier factor is replaced, 1 takes it away."""
    _drop(module, module._forward_pre_hooks, ScaleInput, INPUT_FACTOR)
    if factor != 1.0:
        module.register_buffer(INPUT_FACTOR, _scalar(module, factor))
        module.register_forward_pre_hook(ScaleInput())


def set_output_factor(module: nn.Module, factor: float) -> None:
    """Multiply a module's first output; an earlier factor is replaced, 1 takes it away."""
    _drop(module, module._forward_hooks, ScaleOutput, OUTPUT_FACTOR)
    if factor != 1.0:
        module.register_buffer(OUTPUT_FACTOR, _scalar(module, factor))
        module.register_forward_hook(ScaleOutput())


def input_factor(module: nn.Module) -> float:
    """What ``set_input_factor`` set, 1 where it set nothing."""
    return _present(module, module._forward_pre_hooks, ScaleInput, INPUT_FACTOR)


def output_factor(module: nn.Module) -> float:
    """What ``set_output_factor`` set, 1 where it set nothing."""
    return _present(module, module._forward_hooks, ScaleOutput, OUTPUT_FACTOR)


def row_factors(module: nn.Module, name: str) -> Tensor:
    """What ``set_row_factors`` set, ones where it set nothing; on a parameter's device."""
    parametrize, factors = nn.utils.parametrize, torch.ones(())
    if parametrize.is_parametrized(module, name):
        for step in module.parametrizations[name]:  # pyright: ignore
            factors = step.factors if isinstance(step, ScaleRows) else factors
    return factors


@torch.no_grad()
def divide_rows(module: nn.Module, name: str, factors: Tensor | None) -> None:
    """Change a parameter so that ``set_row_factors`` with these factors leaves what is computed."""
    present = row_factors(module, name)
    target = torch.ones(()) if factors is None else factors
    ratio = present.to(target.device) / target
    if bool((ratio == 1).all()):
        return
    values = values_under_factors(module, name)
    values.mul_(ratio.to(values.device, values.dtype))


def values_under_factors(module: nn.Module, name: str) -> Tensor:
    """A parameter itself, without what a parametrization does to it."""
    lists: Any = getattr(module, "parametrizations", {})
    return lists[name].original if name in lists else getattr(module, name)


def has_row_factors(module: nn.Module, name: str, factors: Tensor | None) -> bool:
    """Whether ``set_row_factors`` with these factors would change nothing."""
    present = row_factors(module, name)
    target = torch.ones(()) if factors is None else factors
    same = present.shape == target.shape
    return same and bool((present == target.to(present.device, present.dtype)).all())


def set_row_factors(module: nn.Module, name: str, factors: Tensor | None) -> None:
    """Multiply rows of a module's parameter; ``None`` takes factors away."""
    if has_row_factors(module, name, factors):
        return
    parametrize = nn.utils.parametrize
    if parametrize.is_parametrized(module, name):
        steps = list(module.parametrizations[name])  # pyright: ignore[reportIndexIssue, reportArgumentType]
        if any(isinstance(step, ScaleRows) for step in steps):
            original = module.parametrizations[name].original  # pyright: ignore
            with_class_alone(module)
            with torch.no_grad():
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)
                setattr(module, name, original)
    if factors is not None:
        parametrize.register_parametrization(module, name, ScaleRows(factors), unsafe=True)


def with_class_alone(module: nn.Module) -> None:
    """Give a parametrized module a class of its own.

    Its parametrized tensors are properties of its class, which ``deepcopy`` shares: taken from the
    copy, they would be gone from the original too.
    """
    cls = type(module)
    body = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
    copy: Any = type(cls.__name__, cls.__bases__, body)
    module.__class__ = copy


def _drop(module: nn.Module, hooks: dict[int, Any], kind: type, buffer: str) -> None:
    for key in [key for key, hook in hooks.items() if isinstance(hook, kind)]:
        del hooks[key]
        del module._buffers[buffer]


def _present(module: nn.Module, hooks: dict[int, Any], kind: type, buffer: str) -> float:
    placed = any(isinstance(hook, kind) for hook in hooks.values())
    return float(module.get_buffer(buffer)) if placed else 1.0


def _scalar(module: nn.Module, factor: float) -> Tensor:
    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else None
    return torch.tensor(factor, device=device)
