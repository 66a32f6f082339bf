"""Reads parameters by the class of their module: what can be done without a forward pass.

Only exact classes of ``torch.nn`` are known; tensors may live on the meta device or be sharded.
"""

from collections.abc import Callable, Mapping
from functools import cache
from math import prod
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule

from thetaone.parametrization._names import canonical, canonical_module
from thetaone.records import (
    LOOKUP,
    MATRIX,
    RAW,
    VECTOR,
    FeatureProduct,
    FoldTarget,
    Site,
    Span,
    Use,
)

Leaf = tuple[str, nn.Module, str, nn.Parameter]
Fans = tuple[str, int, int]  # kind, fan_in, fan_out
Reader = Callable[[nn.Module, str, tuple[int, ...]], Fans]

_OLD_WEIGHT_NORM = {"weight_v": "weight", "weight_g": "bias"}


def class_name(module: type) -> str:
    """The user's class: ``fully_shard`` makes ``Linear`` an ``FSDPLinear``, a class of its own.

    A parametrization makes it a ``ParametrizedLinear``.
    """
    return _plain_class(module).__name__


def sites_by_class(
    model: nn.Module, leaves: Mapping[int, list[Leaf]], reason: str
) -> tuple[Site, ...]:
    """The sites of a model no forward pass of which could be run.

    Args:
        model: The model.
        leaves: Every name of every parameter.
        reason: Why there is no pass, for what is left open.
    """
    owners = {canonical_module(name): module for name, module in model.named_modules()}
    return tuple(_site(entries, owners, reason) for entries in leaves.values())


def attentions_by_class(model: nn.Module) -> tuple[FeatureProduct, ...]:
    """The logits of every ``nn.MultiheadAttention``."""
    return tuple(
        FeatureProduct(
            where=name,
            operation="multi_head_attention",
            order=i,
            size=module.head_dim,
            factor=module.head_dim**-0.5,
            sides=(_query(name, module),),
            attention=True,
        )
        for i, (name, module) in enumerate(model.named_modules())
        if isinstance(module, nn.MultiheadAttention)
    )


def _query(name: str, module: nn.MultiheadAttention) -> tuple[FoldTarget, ...]:
    rows = (Span(start=0, stop=module.embed_dim),)
    prefix = f"{canonical(name + '.')}"
    targets = [FoldTarget(parameter=f"{prefix}q_proj_weight")]
    if module.in_proj_weight is not None:
        targets = [FoldTarget(parameter=f"{prefix}in_proj_weight", spans=rows)]
    if module.in_proj_bias is not None:
        targets.append(FoldTarget(parameter=f"{prefix}in_proj_bias", spans=rows))
    return tuple(targets)


@cache
def _plain_class(module: type) -> type:
    return next(
        cls for cls in module.__mro__ if FSDPModule not in cls.__mro__ and not _of_parametrize(cls)
    )


def _of_parametrize(cls: type) -> bool:
    """Whether torch made a class to hold parametrized tensors of another class's module."""
    return cls.__name__ == f"Parametrized{cls.__base__.__name__ if cls.__base__ else ''}"


def _site(entries: list[Leaf], owners: Mapping[str, nn.Module], reason: str) -> Site:
    uses = [_use(*entry, owners) for entry in entries]
    name, module, _, parameter = entries[0]
    kinds = {use.kind for use in uses}
    lookup = next((use for use in uses if use.kind == LOOKUP), None)
    matrix = next((i for i, use in enumerate(uses) if use.kind == MATRIX), None)
    tied = kinds == {LOOKUP, MATRIX}
    problem = "" if RAW not in kinds else f"its class has no known rule, and {reason}"
    if len({(use.kind, use.fan_in, use.fan_out) for use in uses}) > 1 and not tied:
        ways = " and ".join(f"{e[0]} ({u.kind})" for e, u in zip(entries, uses, strict=True))
        problem = f"it is shared by {ways}, for which no single learning rate is right"
    first = lookup if tied and lookup else uses[0]
    readout = uses[matrix] if tied and matrix is not None else None
    return Site(
        name=name,
        aliases=tuple(entry[0] for entry in entries[1:]),
        kind=RAW if problem else first.kind,
        module=class_name(type(module)),
        shape=tuple(parameter.shape),
        fan_in=first.fan_in,
        fan_out=first.fan_out,
        fan_one=first.fan_one,
        trainable=parameter.requires_grad,
        problem=problem,
        readout=readout,
        readout_module=entries[matrix][0].rpartition(".")[0] if readout and matrix else "",
        **_norm(name, parameter, owners),
    )


def _use(
    name: str,
    module: nn.Module,
    local: str,
    parameter: nn.Parameter,
    owners: Mapping[str, nn.Module],
) -> Use:
    owner, used_as = _owner(name, module, local, owners)
    kind, fan_in, fan_out = RAW, 1, 1
    reader = _READERS.get(_plain_class(type(owner))) if owner is not None else None
    shape = tuple(parameter.shape)
    if reader is not None and owner is not None:
        bias = used_as.startswith("bias") or used_as.endswith("_bias")
        kind, fan_in, fan_out = (_vector if bias else reader)(owner, used_as, shape)
    fan_one = max(shape[1:]) if isinstance(owner, nn.Bilinear) and kind == MATRIX else 0
    return Use(kind=kind, fan_in=fan_in, fan_out=fan_out, fan_one=fan_one)


def _owner(
    name: str, module: nn.Module, local: str, owners: Mapping[str, nn.Module]
) -> tuple[nn.Module | None, str]:
    """The module and the name under which a parameter is used.

    ``weight_norm`` keeps a weight as ``parametrizations.weight.original1`` (its direction) and
    ``original0`` (its norms), the older one as ``weight_v`` and ``weight_g``: the first is used as
    the weight itself, the second as a vector. Any other parametrization is not known.
    """
    if local.endswith("_orig"):
        return None, local
    if local in _OLD_WEIGHT_NORM and "weight_v" in module._parameters:
        return module, _OLD_WEIGHT_NORM[local]
    if not isinstance(module, nn.utils.parametrize.ParametrizationList):
        return module, local
    if [type(step).__name__ for step in module.children()] != ["_WeightNorm"]:
        return None, local
    parent, _, weight = name.rpartition(".")[0].rpartition("parametrizations.")
    return owners.get(parent.removesuffix(".")), weight if local[-1] == "1" else "bias"


def _norm(name: str, parameter: nn.Parameter, owners: Mapping[str, nn.Module]) -> dict[str, Any]:
    for norm, direction in (("original0", "original1"), ("weight_g", "weight_v")):
        if name.endswith(norm):
            of = name.removesuffix(norm) + direction
            other = owners[name.rpartition(".")[0]]._parameters.get(direction)
            if other is not None:
                return {"norm_of": of, "norm_count": other.numel() // max(1, parameter.numel())}
    return {}


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
    if local.startswith("weight_hr"):  # projection of an LSTM's output
        return MATRIX, shape[1], shape[0]
    return MATRIX, shape[1], int(getattr(module, "hidden_size", shape[0]))


def _bilinear(_: nn.Module, local: str, shape: tuple[int, ...]) -> Fans:
    return MATRIX, shape[1] * shape[2], shape[0]


_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_VECTORS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.PReLU,
)
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)
_READERS: dict[type, Reader] = {
    nn.Linear: _linear,
    nn.modules.linear.NonDynamicallyQuantizableLinear: _linear,  # out_proj of an attention
    nn.Embedding: _lookup,
    nn.EmbeddingBag: _lookup,
    nn.MultiheadAttention: _attention,
    nn.Bilinear: _bilinear,
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_RECURRENT, _recurrent),
    **dict.fromkeys(_VECTORS, _vector),
}
