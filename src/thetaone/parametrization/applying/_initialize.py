"""Brings the user's own initial values to the prescribed size. Acts on the model."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from thetaone.errors import InputError, PrescriptionError
from thetaone.parametrization.reading import canonical, rms_of
from thetaone.parametrization.rules import FIXED, VECTOR
from thetaone.records import Prescription

_ROUNDING = 1e-6  # relative; below this a rescaling would only add rounding


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by canonical name."""
    return {canonical(name): p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def initialize(model: nn.Module, prescription: Prescription) -> None:
    """Multiply each parameter so that its root mean square is the prescribed one.

    The direction of the initial values stays the user's own; zeros stay zeros, and a parameter
    whose rule has no ``init_std`` is not touched. Doing it twice changes nothing.

    Raises:
        PrescriptionError: A parameter is on the meta device, or holds NaN or inf; the model is
            left untouched.
    """
    parameters = named(model)
    factors: list[tuple[Tensor, float]] = []
    for rule in prescription.rules:
        if rule.init_std is None:
            continue
        parameter = parameters[rule.name]
        if parameter.is_meta:
            raise PrescriptionError(
                f"{rule.name} is on the meta device and has no values to rescale: "
                "model.to_empty(device=...), initialize it, then parametrize"
            )
        size = rms_of(parameter)
        if not size < float("inf"):
            raise PrescriptionError(
                f"{rule.name} holds NaN or inf: initialize the model before parametrizing it"
            )
        if size > 0 and abs(rule.init_std / size - 1) > _ROUNDING:
            factors.append((parameter, rule.init_std / size))
    for parameter, factor in factors:
        parameter.mul_(factor)


@torch.no_grad()
def redraw(
    model: nn.Module,
    prescription: Prescription,
    how: str,
    generator: torch.Generator | None = None,
) -> None:
    """Draw matrices anew before they are brought to size.

    ``orthogonal``: √(fan_out/fan_in) times a semi-orthogonal matrix, spectral norm exactly that.
    ``gaussian``: independent normal entries. Their root mean square is the same.

    Args:
        model: Its parameters are overwritten.
        prescription: Names the matrices; vectors stay.
        how: ``orthogonal`` or ``gaussian``.
        generator: Source of randomness; torch's own unless given.

    Raises:
        InputError: Another word.
    """
    if how not in ("orthogonal", "gaussian"):
        raise InputError(f"init={how!r}: choose 'orthogonal' or 'gaussian', or None for your own")
    parameters = named(model)
    for rule in prescription.rules:
        if len(rule.shape) < 2 or rule.role in (VECTOR, FIXED):
            continue
        if how == "orthogonal" and rule.fan_in > 1:
            nn.init.orthogonal_(parameters[rule.name], generator=generator)
        else:
            nn.init.normal_(parameters[rule.name], generator=generator)


class ScaleInput:
    """Forward pre-hook that multiplies the first input of a tied readout.

    A class, not a closure: a model with it can be pickled, deep-copied and compiled.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """``(x, …) -> (factor · x, …)``."""
        return (inputs[0] * self.factor, *inputs[1:])


class ScaleOutput:
    """Forward hook that multiplies the first output of a module that ends a residual branch."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        """``y -> factor · y``; of a tuple, its first."""
        if isinstance(output, tuple):
            return (output[0] * self.factor, *output[1:])
        return output * self.factor


def scale_outputs(model: nn.Module, factors: dict[str, float]) -> None:
    """Set the factor on the output of every named module; earlier ones are replaced.

    Args:
        model: The model.
        factors: By name, ``*`` for a block's number; 1 removes the hook.
    """
    for name, module in model.named_modules():
        hooks = module._forward_hooks
        for key in [key for key, hook in hooks.items() if isinstance(hook, ScaleOutput)]:
            del hooks[key]
        named = canonical(name + ".")[:-1]
        factor = next((f for pattern, f in factors.items() if _numbered(pattern, named)), 1.0)
        if factor != 1.0:
            module.register_forward_hook(ScaleOutput(factor))


def _numbered(pattern: str, name: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"\d+"), name) is not None


def scale_tied_readouts(model: nn.Module, multipliers: dict[str, float]) -> None:
    """Set the input factor of every tied readout; the previous one is replaced.

    Args:
        model: The model.
        multipliers: Qualified name of the readout module to factor; 1 removes the hook.
    """
    for name, module in model.named_modules():
        factor = multipliers.get(canonical(name + ".").removesuffix("."))
        if factor is None:
            continue
        hooks = module._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if isinstance(hook, ScaleInput)]:
            del hooks[key]
        if factor != 1.0:
            module.register_forward_pre_hook(ScaleInput(factor))
