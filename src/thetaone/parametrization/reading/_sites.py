"""Reads a model: how each parameter is used, its fans, its size. Changes nothing.

Shapes come from the module that owns the parameter, so tensors may live on the meta device, be
sharded, or be wrapped by DDP, FSDP or ``torch.compile``.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from math import prod

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from thetaone.errors import PrescriptionError, RoleError
from thetaone.parametrization.reading._attention import read_attentions
from thetaone.parametrization.reading._forward_factors import lookup_scale, readout_scale
from thetaone.records import LOOKUP, MATRIX, RAW, VECTOR, Blueprint, Site

Fans = tuple[str, int, int]  # kind, fan_in, fan_out
Reader = Callable[[nn.Module, str, tuple[int, ...]], Fans]

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_ADDED_WORDS = ("position", "pos_emb", "cls", "embed", "token", "gamma", "layer_scale", "a_log")


_OLD_WEIGHT_NORM = {"weight_v": "weight", "weight_g": "bias"}


def canonical(name: str) -> str:
    """A parameter's name without the prefixes that DDP, FSDP and ``torch.compile`` add.

    Examples:
        >>> canonical("module._orig_mod.layers.0.weight")
        'layers.0.weight'
    """
    for wrapper in _WRAPPERS:
        if wrapper in name:
            name = name.replace(wrapper, "")
    return name.removeprefix("module.")


def read_blueprint(model: nn.Module, *, measure: bool = True) -> Blueprint:
    """The sites of every parameter.

    Args:
        model: Any module; on the meta device nothing can be measured.
        measure: Whether to read the root mean square of the values too.

    Returns:
        The blueprint, in the order of ``model.named_parameters()``.

    Raises:
        RoleError: A shared parameter is used in two ways that do not go together.
        PrescriptionError: A parameter holds NaN or inf.

    Examples:
        >>> read_blueprint(nn.Linear(3, 5)).sites[0].fan_in
        3
    """
    found: dict[int, list[Site]] = defaultdict(list)
    for prefix, module in model.named_modules(remove_duplicate=False):
        for local, parameter in module._parameters.items():
            if parameter is None:
                continue
            name = canonical(f"{prefix}.{local}" if prefix else local)
            owner, used_as = _owner(model, prefix, module, local)
            uses = found[id(parameter)]
            if name not in {other.name for other in uses}:
                rms = _measured(parameter, name) if measure and not uses else None
                uses.append(_site(owner, used_as, name, parameter, rms))
    sites = [_merge(uses) for uses in found.values()]
    scale = readout_scale(model)
    if scale != 1.0:
        sites = [s.model_copy(update={"readout_scale": scale}) if s.readout else s for s in sites]
    attentions = tuple(read_attentions(model))
    return Blueprint(model=type(model).__name__, sites=tuple(sites), attentions=attentions)


def rms_of(parameter: Tensor) -> float:
    """Root mean square of a tensor's values; of the whole tensor when it is sharded.

    Examples:
        >>> round(rms_of(torch.tensor([3.0, -3.0])), 6)
        3.0
    """
    if parameter.numel() == 0:
        return 0.0
    norm = torch.linalg.vector_norm(parameter.detach(), dtype=_wide(parameter))
    whole = getattr(norm, "full_tensor", None)  # DTensor: reduce over the mesh
    return float(whole() if whole is not None else norm) / parameter.numel() ** 0.5


def _wide(parameter: Tensor) -> torch.dtype | None:
    return torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else None


def _measured(tensor: Tensor, name: str) -> float | None:
    if tensor.is_meta:
        return None
    value = rms_of(tensor)
    if not value < float("inf"):
        raise PrescriptionError(
            f"{name} holds NaN or inf (RMS {value}): initialize the model before prescribing"
        )
    return value


def _owner(model: nn.Module, prefix: str, module: nn.Module, local: str) -> tuple[nn.Module, str]:
    """The module and the name under which a parameter is used.

    ``weight_norm`` keeps a weight as ``parametrizations.weight.original1`` (its direction) and
    ``original0`` (one norm a row), the older one as ``weight_v`` and ``weight_g``: the first is
    used as the weight itself, the second as a vector.

    Raises:
        RoleError: Another parametrization, which makes the weight by a rule that is not known.
    """
    if local.endswith("_orig") and hasattr(module, local.replace("_orig", "_u")):
        raise RoleError(
            f"{prefix} has spectral_norm, whose effect on the weight's size is not known: only "
            "weight_norm's is. Prescribe before adding it"
        )
    if local in _OLD_WEIGHT_NORM and "weight_v" in module._parameters:
        return module, _OLD_WEIGHT_NORM[local]
    if not isinstance(module, nn.utils.parametrize.ParametrizationList):
        return module, local
    steps = [type(step).__name__ for step in module.children()]
    if steps != ["_WeightNorm"]:
        raise RoleError(
            f"{prefix} is made by the parametrization {', '.join(steps)}, whose effect on the "
            "weight's size is not known: only weight_norm is. Prescribe before adding it"
        )
    parent, _, weight = prefix.partition("parametrizations.")
    return model.get_submodule(parent.removesuffix(".")), weight if local[-1] == "1" else "bias"


def _site(module: nn.Module, local: str, name: str, parameter: Tensor, rms: float | None) -> Site:
    shape = tuple(parameter.shape)
    kind, fan_in, fan_out = _fans(module, local, shape)
    return Site(
        name=name,
        kind=kind,
        module=_class_name(type(module)),
        shape=shape,
        fan_in=fan_in,
        fan_out=fan_out,
        rms=rms,
        trainable=parameter.requires_grad,
        fan_one=max(shape[1:]) if kind == MATRIX and isinstance(module, nn.Bilinear) else 0,
        lookup_scale=lookup_scale(module) if kind == LOOKUP else 1.0,
    )


@cache
def _class_name(module: type) -> str:
    """The user's class: ``fully_shard`` makes ``Linear`` an ``FSDPLinear``, a class of its own."""
    classes = (cls for cls in module.__mro__ if FSDPModule not in cls.__mro__)
    return next(classes).__name__


def _merge(uses: list[Site]) -> Site:
    """One site of a tensor that several modules own; the first of them carries its size."""
    first, rest = uses[0], uses[1:]
    if not rest:
        return first
    aliases = tuple(site.name for site in rest)
    kinds = {site.kind for site in uses}
    if kinds == {LOOKUP, MATRIX}:
        lookup = next(site for site in uses if site.kind == LOOKUP)
        readout = next(site for site in uses if site.kind == MATRIX)
        return lookup.model_copy(
            update={
                "name": first.name,
                "aliases": aliases,
                "readout": readout.name.rpartition(".")[0],
                "readout_fan_in": readout.fan_in,
                "rms": first.rms,
            }
        )
    if len({(site.kind, site.fan_in, site.fan_out) for site in uses}) > 1:
        used = " and ".join(f"{s.name} ({s.kind}, {s.fan_in} -> {s.fan_out})" for s in uses)
        raise RoleError(
            f"one tensor is shared by {used}: no single learning rate fits both uses. "
            "Untie them, or override its role: roles={" + repr(first.name) + ": 'hidden'}"
        )
    return first.model_copy(update={"aliases": aliases})


def _fans(module: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    if local.startswith("bias") or local.endswith("_bias"):
        return _vector(module, local, shape)
    reader = _reader(type(module))
    if reader is not None:
        return reader(module, local, shape)
    if _class_name(type(module)) == "Conv1D" and len(shape) == 2:  # Hugging Face: (in, out)
        return MATRIX, shape[0], shape[1]
    if _class_name(type(module)).endswith("Router") and local == "weight" and len(shape) == 2:
        return _linear(module, local, shape)  # of experts, by F.linear
    return _raw(module, local, shape)


@cache
def _reader(module: type) -> Reader | None:
    return next((_READERS[owner] for owner in module.__mro__ if owner in _READERS), None)


def _vector(_: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    return VECTOR, 1, prod(shape)


def _linear(_: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    return MATRIX, shape[1], shape[0]


def _lookup(_: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    return LOOKUP, 1, shape[1]


def _convolution(module: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    taps = prod(shape[2:])
    if getattr(module, "transposed", False):  # (in, out / groups, *kernel)
        groups = int(getattr(module, "groups", 1))
        return MATRIX, shape[0] // groups * taps, shape[1] * groups * taps
    return MATRIX, shape[1] * taps, shape[0] * taps  # (out, in / groups, *kernel)


def _attention(module: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    if local == "in_proj_weight":  # query, key and value stacked along the outputs
        return MATRIX, shape[1], shape[0] // 3
    return MATRIX, shape[1], shape[0]


def _recurrent(module: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    if local.startswith("bias"):
        return VECTOR, 1, shape[0]
    if local.startswith("weight_hr"):  # projection of an LSTM's output
        return MATRIX, shape[1], shape[0]
    return MATRIX, shape[1], int(getattr(module, "hidden_size", shape[0]))


def _bilinear(_: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    return MATRIX, shape[1] * shape[2], shape[0]


def _raw(module: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    """A parameter of an unknown module: a vector if it can only be one, else left open."""
    long = [size for size in shape if size > 1]
    named = any(word in local.lower() for word in _ADDED_WORDS)
    if len(long) <= 1 or named:
        return _vector(module, local, shape)
    return RAW, 1, 1


_READERS: dict[type, Reader] = {
    nn.Linear: _linear,
    nn.Embedding: _lookup,
    nn.EmbeddingBag: _lookup,
    nn.modules.conv._ConvNd: _convolution,
    nn.MultiheadAttention: _attention,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent,
    nn.Bilinear: _bilinear,
    nn.LayerNorm: _vector,
    nn.RMSNorm: _vector,
    nn.GroupNorm: _vector,
    nn.modules.batchnorm._NormBase: _vector,
    nn.PReLU: _vector,
}
