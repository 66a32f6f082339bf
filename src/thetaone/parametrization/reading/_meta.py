"""Initial sizes of a base on the meta device: from its modules' own initializers."""

import copy

import torch
from torch import nn

from thetaone.errors import PrescriptionError
from thetaone.parametrization._names import canonical
from thetaone.parametrization.reading._blueprint import rms_of
from thetaone.parametrization.reading._parameters import parameters_of
from thetaone.records import Blueprint, Site

_RESETS = ("reset_parameters", "_reset_parameters")  # attention has the second
_AGREES = 0.2  # relative; sampling noise of small tensors against the √2 of one width doubling


def measure_meta(
    base: nn.Module, blueprint: Blueprint | None, target: nn.Module
) -> Blueprint | None:
    """Fill in the sizes that a meta base cannot show.

    Each module is copied to the CPU, one at a time, and initialized by its ``reset_parameters``.
    That is only right if the target was initialized so too, which is checked on the target.

    Args:
        base: On the meta device, wholly or in part.
        blueprint: Of ``base``.
        target: The model to be trained.

    Returns:
        The blueprint with sizes; unchanged when nothing was on the meta device.

    Raises:
        PrescriptionError: A parameter of the target has an initializer of its own.
    """
    if blueprint is None or all(site.rms is not None for site in blueprint.sites):
        return blueprint
    parameters = parameters_of(target)
    drawn, drawn_target = _reset_sizes(base), _reset_sizes(target)
    sites: list[Site] = []
    for site in blueprint.sites:
        parameter = parameters.get(site.name)
        if site.rms is None and parameter is not None and not parameter.is_meta:
            expected, actual = drawn_target.get(site.name), rms_of(parameter)
            if expected is None or abs(actual - expected) > _AGREES * max(actual, expected):
                raise PrescriptionError(
                    f"{site.name}: the base is on the meta device and the target was not "
                    "initialized by its modules' reset_parameters, so the base's initial size is "
                    "unknown. Pass a base with values, or a factory of one"
                )
        rms = site.rms if site.rms is not None else drawn.get(site.name)
        sites.append(site.model_copy(update={"rms": rms}))
    return blueprint.model_copy(update={"sites": tuple(sites)})


def _reset_sizes(model: nn.Module) -> dict[str, float]:
    sizes: dict[str, float] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for prefix, module in model.named_modules():
            reset = next((key for key in _RESETS if hasattr(module, key)), None)
            if reset is None or next(module.parameters(recurse=False), None) is None:
                continue
            fresh = copy.deepcopy(module).to_empty(device="cpu")
            getattr(fresh, reset)()
            for local, parameter in fresh.named_parameters(recurse=False):
                sizes[canonical(f"{prefix}.{local}").removeprefix(".")] = rms_of(parameter)
    return sizes
