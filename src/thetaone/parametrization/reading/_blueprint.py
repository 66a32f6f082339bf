"""Reads a model into a blueprint: its parameters, their uses, their sizes. Changes nothing.

Uses come from one forward pass under fake tensors. Where none can be run, parameters of exact
``torch.nn`` classes are read by their class, and the rest is left open.
"""

from collections import defaultdict
from typing import cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils.parametrize import ParametrizationList

from thetaone.errors import PrescriptionError, RoleError
from thetaone.parametrization._names import canonical
from thetaone.parametrization._scaling import ScaleRows
from thetaone.parametrization.reading._branches import branches_of
from thetaone.parametrization.reading._modules import (
    attentions_by_class,
    class_name,
    sites_by_class,
)
from thetaone.parametrization.reading._parameters import parameters_of
from thetaone.parametrization.reading._sample_inputs import FirstBatch, Sample, passes
from thetaone.parametrization.reading._site import assemble
from thetaone.parametrization.reading._stored import Readings, Signature
from thetaone.parametrization.reading.paths import (
    Linearity,
    read_factors,
    read_products,
    read_reductions,
    read_side_by_side,
)
from thetaone.parametrization.reading.program import Program, read_uses, spectral_hooks, trace
from thetaone.records import Blueprint, Branch, Site

# what a forward pass raises that is given inputs it was not made for
_REFUSALS = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError,
    NotImplementedError, UnsupportedFakeTensorException,
)  # fmt: skip
_SMALL = 1024  # entries of what may be one number, such as a learned temperature for each head
_READ = Readings()


def read_blueprint(model: nn.Module, *, sample: Sample = None, measure: bool = True) -> Blueprint:
    """The blueprint of a model.

    The pass runs in evaluation mode, without arithmetic, with torch's RNG forked; nothing of the
    model is changed. Without a sample, a model read before, or one built alike, is not read again.

    Args:
        model: Any module; on the meta device nothing can be measured.
        sample: Inputs of one forward pass; guessed unless given (only their shapes matter).
        measure: Whether to read the root mean square of the values too.

    Returns:
        The blueprint, in the order of ``model.named_parameters()``.

    Raises:
        RoleError: The forward pass failed on ``sample``.
        PrescriptionError: A parameter holds NaN or inf.

    Examples:
        >>> read_blueprint(nn.Linear(3, 5)).sites[0].fan_in
        3
    """
    plain = _unwrapped(model)
    signature = Signature(plain)
    stored = _READ.find(plain, signature) if sample is None else None
    blueprint = stored or _read(plain, sample)
    if sample is None:
        _READ.keep(plain, signature, blueprint)
    return _measured(plain, blueprint) if measure else blueprint


def read_branches(model: nn.Module, sample: Sample = None) -> tuple[Branch, ...]:
    """The residual branches that a model's forward pass shows.

    Examples:
        >>> class Block(nn.Linear):
        ...     def forward(self, x):
        ...         return x + super().forward(x.tanh())
        >>> [b.ends for b in read_branches(nn.Sequential(Block(4, 4), Block(4, 4)))]
        [('0.weight', '0.bias'), ('1.weight', '1.bias')]
    """
    return read_blueprint(model, sample=sample, measure=False).branches


def rms_of(parameter: Tensor) -> float:
    """Root mean square of a tensor's values; of the whole tensor when it is sharded.

    Examples:
        >>> round(rms_of(torch.tensor([3.0, -3.0])), 6)
        3.0
    """
    if parameter.numel() == 0:
        return 0.0
    narrow = parameter.dtype in (torch.float16, torch.bfloat16)
    wide = torch.float32 if narrow else None
    norm = torch.linalg.vector_norm(parameter.detach(), dtype=wide)
    whole = getattr(norm, "full_tensor", None)  # DTensor: reduce over the mesh
    return float(whole() if whole is not None else norm) / parameter.numel() ** 0.5


def read_by_class(model: nn.Module, reason: str, *, measure: bool = True) -> Blueprint:
    """The blueprint of a model whose forward pass is not looked at.

    Args:
        model: Any module.
        reason: Why not, for messages.
        measure: Whether to read the root mean square of the values too.
    """
    plain = _unwrapped(model)
    blueprint = Blueprint(
        model=class_name(type(plain)),
        sites=sites_by_class(plain, _leaves(plain), reason),
        products=attentions_by_class(plain),
        unread=reason,
    )
    return _measured(plain, blueprint) if measure else blueprint


def _read(model: nn.Module, sample: Sample) -> Blueprint:
    program, reason = _program(model, sample)
    leaves = _leaves(model)
    if program is None:
        return read_by_class(model, reason, measure=False)
    uses = read_uses(program, _spectral(model))
    linearity = Linearity(program, uses)
    blueprint = Blueprint(
        model=class_name(type(model)),
        sites=assemble(model, leaves, linearity),
        products=read_products(linearity),
        reductions=read_reductions(linearity),
        branches=branches_of(linearity),
        joined=read_side_by_side(linearity),
    )
    rest = read_factors(linearity)  # what the records before leave
    return blueprint.model_copy(update={"reductions": (*blueprint.reductions, *rest)})


def _program(model: nn.Module, sample: Sample) -> tuple[Program | None, str]:
    """The program of the first pass that works, or why none does."""
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        if sample is not None:
            raise RoleError(
                "sample= cannot be run on a model whose parameters fully_shard has sharded: "
                "prescribe the plain model, shard it, and pass base=prescription"
            )
        return None, "its parameters are sharded: a pass gathers them into other tensors"
    reasons: list[str] = []
    for run in passes(model, sample):
        try:
            program = trace(model, run)
        except _REFUSALS as refusal:
            reasons.append(_in_words(refusal))
            continue
        if any(value.kind == "activation" for value in program.outputs):
            return program, ""
        reasons.append("the pass returns no tensor that depends on its inputs")
    tried = f" ({reasons[0]})" if reasons else ""
    if sample is not None and not isinstance(sample, FirstBatch):
        raise RoleError(
            f"the forward pass, read by shapes alone, failed on sample={tried}: pass inputs the "
            "model takes or, if it takes these, leave sample= out, to have layers read by class"
        )
    return None, f"the forward pass failed on guessed inputs{tried}"


def _in_words(refusal: Exception) -> str:
    """What a pass failed of, in one line."""
    first = (str(refusal).splitlines() or [""])[0]
    if isinstance(refusal, DynamicOutputShapeException):
        return (
            f"how many entries {first.split('.')[1].strip('_2')} returns depends on values, which "
            "are not computed here: loop over all there may be, `for k in range(experts)`, and "
            "take rows by torch.where(index == k), not by a mask"
        )
    return f"{type(refusal).__name__}: {first[:300]}"


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model under ``torch.compile``, DDP and ``DataParallel``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        parallel = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
        if inner is None and parallel:
            inner = model.module
        if inner is None:
            return model
        model = cast(nn.Module, inner)


def _leaves(model: nn.Module) -> dict[int, list[tuple[str, nn.Module, str, nn.Parameter]]]:
    """Every name of every parameter, with the module that owns it there.

    Rows that this library scales are read as in the plain model: owned by the module itself.
    """
    leaves: dict[int, list[tuple[str, nn.Module, str, nn.Parameter]]] = defaultdict(list)
    for prefix, holder in model.named_modules(remove_duplicate=False):
        scaled = isinstance(holder, ParametrizationList) and all(
            isinstance(step, ScaleRows) for step in holder
        )
        held = holder.named_parameters(recurse=False, remove_duplicate=False)
        for stored, parameter in held:
            name = canonical(f"{prefix}.{stored}" if prefix else stored)
            owner, _, local = prefix.rpartition("parametrizations.")
            module = model.get_submodule(owner.removesuffix(".")) if scaled else holder
            local = local if scaled else stored
            if name not in {entry[0] for entry in leaves[id(parameter)]}:
                leaves[id(parameter)].append((name, module, local, parameter))
    return leaves


def _spectral(model: nn.Module) -> frozenset[str]:
    """The modules that divide a weight by its spectral norm."""
    kind = nn.utils.parametrizations._SpectralNorm
    modules = (canonical(n) for n, m in model.named_modules() if isinstance(m, kind))
    return frozenset((*modules, *(name for name, _ in spectral_hooks(model))))


def _measured(model: nn.Module, blueprint: Blueprint) -> Blueprint:
    parameters = parameters_of(model)
    sites = [_with_size(site, parameters[site.name]) for site in blueprint.sites]
    return blueprint.unchecked_copy(sites=tuple(sites))


def _with_size(site: Site, parameter: Tensor) -> Site:
    if parameter.is_meta:
        return site
    value = rms_of(parameter)
    if not value < float("inf"):
        raise PrescriptionError(
            f"{site.name} holds NaN or inf (RMS {value}): initialize the model before prescribing"
        )
    small = 0 < parameter.numel() <= _SMALL
    constant = small and (value == 0 or _is_one_number(parameter))
    return site.unchecked_copy(rms=value, constant=constant)


def _is_one_number(parameter: Tensor) -> bool:
    if parameter.is_complex():
        return False
    low, high = torch.aminmax(parameter.detach())
    return bool(low == high)
