"""Brings the user's own initial values to the prescribed size. Acts on the model."""

import re

import torch
from torch import Tensor, nn

from thetaone.errors import InputError, PrescriptionError
from thetaone.parametrization._scaling import (
    set_input_factor,
    set_output_factor,
    set_row_factors,
)
from thetaone.parametrization.reading import canonical, rms_of
from thetaone.parametrization.rules import FIXED, VECTOR
from thetaone.records import Prescription, Rule

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


def place_factors(model: nn.Module, prescription: Prescription) -> None:
    """Set the factors that stay in the forward pass; those set earlier are replaced.

    Args:
        model: Gets buffers, a parametrization of fused projections, hooks that read the buffers.
        prescription: Says which; at the base width there are none.
    """
    readouts = {rule.readout: rule.multiplier for rule in prescription.rules if rule.readout}
    rows = {rule.name: rule for rule in prescription.rules if rule.rows}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.utils.parametrize.ParametrizationList):
            continue
        called = canonical(name + ".")[:-1]
        set_input_factor(module, readouts.get(called, 1.0))
        outputs = prescription.outputs.items()
        set_output_factor(module, next((f for p, f in outputs if _numbered(p, called)), 1.0))
        scaled = list(getattr(module, "parametrizations", {}))
        for local in {*module._parameters, *scaled}:
            rule = rows.get(f"{called}.{local}".removeprefix("."))
            set_row_factors(module, local, None if rule is None else _factors(rule, module, local))


def _factors(rule: Rule, module: nn.Module, local: str) -> Tensor:
    parameter = getattr(module, local)
    factors = torch.ones(parameter.shape[rule.rows[0].axis], device=parameter.device)
    for row in rule.rows:
        factors[row.start : row.stop] *= row.factor
    shape = [1] * len(rule.shape)
    shape[rule.rows[0].axis] = len(factors)
    return factors.reshape(shape)


def _numbered(pattern: str, name: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"\d+"), name) is not None
