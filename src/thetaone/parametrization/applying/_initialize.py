"""Brings the user's own initial values to the prescribed size. Acts on the model."""

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from thetaone.errors import InputError, PrescriptionError
from thetaone.parametrization._names import canonical_module
from thetaone.parametrization._scaling import (
    divide_rows,
    has_row_factors,
    input_factor,
    output_factor,
    set_input_factor,
    set_output_factor,
    set_row_factors,
    values_under_factors,
)
from thetaone.parametrization.reading import rms_of, trained_parameters
from thetaone.parametrization.rules import FIXED, VECTOR
from thetaone.records import Prescription, Rule

_ROUNDING = 1e-6  # relative; below this a rescaling would only add rounding


@torch.no_grad()
def initialize(model: nn.Module, prescription: Prescription) -> None:
    """Multiply each parameter so that its root mean square is the prescribed one.

    The direction of the initial values stays the user's own; zeros stay zeros, and a parameter
    whose rule has no ``init_std`` is not touched. Doing it twice changes nothing.

    Raises:
        PrescriptionError: A parameter is on the meta device, or holds NaN or inf; the model is
            left untouched.
    """
    parameters = trained_parameters(model)
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
    parameters = trained_parameters(model)
    for rule in prescription.rules:
        if len(rule.shape) < 2 or rule.role in (VECTOR, FIXED):
            continue
        if how == "orthogonal" and rule.fan_in > 1:
            nn.init.orthogonal_(parameters[rule.name], generator=generator)
        else:
            nn.init.normal_(parameters[rule.name], generator=generator)


def place_factors(model: nn.Module, prescription: Prescription, *, keep: bool = False) -> None:
    """Set the factors that stay in the forward pass; those set earlier are replaced.

    Args:
        model: Gets buffers, a parametrization of fused projections, hooks that read the buffers.
        prescription: Says which; at the base width there are none.
        keep: Divide the values by the factors on their rows, so that the same is computed.
    """
    for called, module in _modules(model):
        inner, outer = _around(called, prescription)
        set_input_factor(module, inner)
        set_output_factor(module, outer)
    for _, module, local, factors in _with_rows(model, prescription):
        if keep:
            divide_rows(module, local, factors)
        set_row_factors(module, local, factors)


def check_placeable(model: nn.Module, prescription: Prescription) -> None:
    """Refuse factors on rows that ``place_factors`` cannot set any more.

    Raises:
        PrescriptionError: The module is scripted, or its parameters are sharded.
    """
    for name, module, local, factors in _with_rows(model, prescription):
        if has_row_factors(module, local, factors):
            continue
        what = ""
        if isinstance(module, torch.jit.ScriptModule):
            what = "scripted or traced: parametrize the model first and script t1.export(model)"
        elif isinstance(values_under_factors(module, local), DTensor):
            what = (
                "sharded: parametrize the plain model first (base=prescription, on a device with "
                "memory), then shard it, then build the optimizer with parametrize(model, "
                "base=prescription, rescale=False)"
            )
        if what:
            raise PrescriptionError(
                f"{name} wants a factor on some of its rows (queries of a fused projection, whose "
                f"heads grow), which cannot be set on a module that is already {what}. With a "
                "weight of its own for queries and keys, no such factor is needed"
            )


def _with_rows(
    model: nn.Module, prescription: Prescription
) -> Iterator[tuple[str, nn.Module, str, Tensor | None]]:
    """Every parameter's name, module and name there, with the factors on its rows."""
    rows = {rule.name: rule for rule in prescription.rules if rule.rows}
    for called, module in _modules(model):
        scaled = list(getattr(module, "parametrizations", {}))
        plain = module.named_parameters(recurse=False, remove_duplicate=False)
        for local in dict.fromkeys([*(local for local, _ in plain), *scaled]):
            name = f"{called}.{local}".removeprefix(".")
            factors = _factors(rows[name], module, local) if name in rows else None
            yield name, module, local, factors


def unheld_factor(model: nn.Module, prescription: Prescription) -> str:
    """The first factor that ``place_factors`` changes and no values make up for, and its cure.

    Empty when there is none.
    """
    for called, module in _modules(model):
        inner, outer = _around(called, prescription)
        if not math.isclose(inner, input_factor(module), rel_tol=_ROUNDING):
            return f"{inner:.4g} on the input of {called} (a readout's own weight needs none)"
        if not math.isclose(outer, output_factor(module), rel_tol=_ROUNDING):
            return f"{outer:.4g} on the output of {called} (depth_exponent=None leaves it out)"
    return ""


def _modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that factors may be placed on, by canonical name."""
    lists = nn.utils.parametrize.ParametrizationList
    return [
        (canonical_module(name), module)
        for name, module in model.named_modules()
        if not isinstance(module, lists)
    ]


def _around(called: str, prescription: Prescription) -> tuple[float, float]:
    """The factors on a module's input and output."""
    readouts = {rule.readout: rule.multiplier for rule in prescription.rules if rule.readout}
    outputs = prescription.outputs.items()
    output = next((f for p, f in outputs if _numbered(p, called)), 1.0)
    return readouts.get(called, 1.0), output


def _factors(rule: Rule, module: nn.Module, local: str) -> Tensor:
    device = values_under_factors(module, local).device
    factors = torch.ones(rule.shape[rule.rows[0].axis], device=device)
    for row in rule.rows:
        factors[row.start : row.stop] *= row.factor
    shape = [1] * len(rule.shape)
    shape[rule.rows[0].axis] = len(factors)
    return factors.reshape(shape)


def _numbered(pattern: str, name: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"\d+"), name) is not None
