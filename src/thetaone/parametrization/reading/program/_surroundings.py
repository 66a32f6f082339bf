"""Around a traced pass: what it leaves as it was, what it cannot know, and its arguments."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, ValuesView
from math import prod
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from thetaone.parametrization._names import canonical_module
from thetaone.parametrization.reading.program._program import PARAMETER

SMALL = 4096  # entries of a constant that is worth knowing


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; attributes that the pass sets are taken back.

    A scripted or traced module keeps its state outside Python, where a pass sets none of it.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    before = [(m, dict(vars(m))) for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    registries = ("_buffers", "_parameters", "_modules")
    inner = [{key: dict(vars(m)[key]) for key in registries} for m, _ in before]
    try:
        for module in modules:  # not eval(): a user may have overridden it
            module.training = False
        yield
    finally:
        for (module, attributes), registered in zip(before, inner, strict=True):
            vars(module).clear()
            vars(module).update(attributes)
            for key, entries in registered.items():
                vars(module)[key].clear()
                vars(module)[key].update(entries)
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextlib.contextmanager
def decomposed() -> Iterator[None]:
    """Without fused kernels, so that the products of recurrent layers are seen; without logs."""
    before = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    log = logging.getLogger("torch._subclasses.fake_tensor")  # tells of every failed guess
    level, log.disabled = log.disabled, True
    torch._C._set_mkldnn_enabled(False)
    torch._C._set_cudnn_enabled(False)
    try:
        with torch.jit.optimized_execution(should_optimize=False):  # nor those of scripts
            yield
    finally:
        torch._C._set_mkldnn_enabled(before[0])
        torch._C._set_cudnn_enabled(before[1])
        log.disabled = level


class Unpacked(TorchFunctionMode):
    """Packs sequences as if none were shorter than the longest: lengths do not change roles."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Views of all steps in place of kernels that look at the numbers of their inputs."""
        name = getattr(func, "__name__", "")
        if name == "_pack_padded_sequence":
            features, _, batch_first = args
            by_step = features.transpose(0, 1) if batch_first else features
            with _disable_current_modes():  # recurrent layers look at these
                sizes = torch.full(by_step.shape[:1], by_step.shape[1])
            return by_step.flatten(0, 1), sizes
        if name == "_pad_packed_sequence":
            features, sizes, batch_first, _, total = args
            by_step = features.unflatten(0, (len(sizes), -1))
            lengths = torch.full(by_step.shape[1:2], len(sizes))
            if total > len(sizes):
                missing = (*(0, 0) * (by_step.dim() - 1), 0, total - len(sizes))
                by_step = nn.functional.pad(by_step, missing)
            return by_step.transpose(0, 1) if batch_first else by_step, lengths
        return func(*args, **(kwargs or {}))


class StandIns:
    """A fake tensor for each that an operation takes and must not touch."""

    def __init__(self) -> None:
        self._by_id: dict[int, Tensor] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets its id

    def of(self, tensor: Tensor, *, written: bool) -> Tensor:
        """A fake one, on the CPU for the meta device: its operations' results are remembered.

        Args:
            tensor: An argument of an operation; what is neither a parameter nor on the meta device
                stays as it is.
            written: Whether the operation writes: then not into a buffer either.
        """
        if isinstance(tensor, FakeTensor) or id(tensor) in self._by_id:
            return self._by_id.get(id(tensor), tensor)
        meta = tensor.device.type == "meta"
        kinds = (nn.Parameter, Tensor, nn.Buffer) if written else (nn.Parameter,)
        if not meta and (type(tensor) not in kinds or tensor.layout is not torch.strided):
            return tensor
        like = {"dtype": tensor.dtype, "device": "cpu" if meta else tensor.device}
        stand_in = torch.empty_strided(tensor.shape, tensor.stride(), **like)
        self._by_id[id(tensor)] = stand_in
        self._alive.append(tensor)
        return stand_in


def constant_of(tensor: Tensor, kind: str) -> Tensor | None:
    """What a leaf holds, where that is small and no parameter; NaN for a number on meta."""
    if kind == PARAMETER or isinstance(tensor, FakeTensor):
        return None
    if type(tensor) not in (Tensor, nn.Buffer):
        return None
    if tensor.numel() > (1 if tensor.is_meta else SMALL):
        return None
    with _disable_current_modes():
        if tensor.is_meta:  # a factor of the forward pass, unknown: NaN says so wherever it goes
            return torch.full(tensor.shape, torch.nan) if tensor.is_floating_point() else None
        return tensor.detach().cpu()


def spectral_hooks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules whose weight a hook of ``nn.utils.spectral_norm`` makes, and what to call that.

    Examples:
        >>> model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 2)))
        >>> [name for name, _ in spectral_hooks(model)]
        ['0 (spectral_norm)']
    """
    for name, module in model.named_modules():
        if any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values()):
            yield f"{canonical_module(name)} (spectral_norm)", module


def attribute_tensors(model: nn.Module) -> set[int]:
    """Buffers, and tensors that modules hold as plain attributes."""
    ids = {id(buffer) for buffer in model.buffers()}
    for module in model.modules():
        ids |= {id(entry) for entry in vars(module).values() if isinstance(entry, Tensor)}
    return ids


def _item(args: Any, real: Any) -> Any:
    if real is not None:
        return real
    dtype = args[0].dtype
    return False if dtype is torch.bool else 1.0 if dtype.is_floating_point else 0


def _nonzero(args: Any, real: Any) -> Any:
    mask = args[0]
    rows = len(real) if real is not None else (mask.shape[0] if mask.dim() else 1)
    return torch.zeros(rows, mask.dim(), dtype=torch.long, device=place_of(mask))


def _masked_select(args: Any, real: Any) -> Any:
    both = torch.broadcast_shapes(args[0].shape, args[1].shape)
    count = len(real) if real is not None else prod(both)
    return torch.empty(count, dtype=args[0].dtype, device=place_of(args[0]))


def _ctc_loss(args: Any, _: Any) -> Any:
    (steps, *batch, _classes), labels = args[0].shape, args[1].shape[-1]
    like = {"dtype": args[0].dtype, "device": place_of(args[0])}
    return torch.empty(batch, **like), torch.empty(*batch, steps, 2 * labels + 1, **like)


def assumed(name: str, args: Any) -> Tensor | None:
    """What an answer is taken to be where it depends on features: of a list, all are chosen.

    So that every expert of a router is called, whichever of them a batch would reach.
    """
    if name != "nonzero" or args[0].dim() != 1 or args[0].shape[0] > SMALL:
        return None
    with _disable_current_modes():
        return torch.arange(args[0].shape[0])[:, None]


def _equal(args: Any, real: Any) -> Any:
    return bool(real)


def _grouped_mm(args: Any, real: Any) -> Any:
    a, b = args[0], args[1]
    lead = (b.shape[0],) if a.dim() == b.dim() == 2 else ()
    return torch.empty(*lead, *a.shape[:-1], b.shape[-1], dtype=a.dtype, device=place_of(a))


# what asks for values, or has no rule for fake tensors
ANSWERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "_local_scalar_dense": _item,
    "nonzero": _nonzero,
    "masked_select": _masked_select,
    "_ctc_loss": _ctc_loss,
    "equal": _equal,
    "_grouped_mm": _grouped_mm,
}


def place_of(tensor: Tensor) -> torch.device:
    """Where a tensor's fake stands."""
    return torch.device("cpu") if tensor.device.type == "meta" else tensor.device


def entries(args: Any, kwargs: Any) -> int:
    """How many entries a factory such as ``zeros`` makes, at most."""
    total = 1
    for number in flat([args[0] if args else [], kwargs.get("size", [])]):
        total *= int(number) if isinstance(number, int) and number > 0 else 1
    return total


def bind(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by the schema's names, defaults included."""
    bound: dict[str, Any] = {}
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            bound[argument.name] = args[i]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound


def written_tensors(func: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes into."""
    if not func._schema.is_mutable:
        return []
    names = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
    return [leaf for leaf in flat(arguments.get(n) for n in names) if isinstance(leaf, Tensor)]


def replaced(entry: Any, by: Callable[[Tensor], Any]) -> Any:
    """An argument with another one for each tensor in it, and the CPU for the meta device."""
    if isinstance(entry, Tensor):
        return by(entry)
    if isinstance(entry, (list, tuple)):
        return [replaced(one, by) for one in entry]
    if isinstance(entry, dict):
        return {key: replaced(one, by) for key, one in entry.items()}
    if isinstance(entry, torch.device) and entry.type == "meta":
        return torch.device("cpu")
    return entry


def flat(entries: Any) -> Iterator[Any]:
    """The entries of nested lists and tuples."""
    for entry in entries:
        if isinstance(entry, (list, tuple)):
            yield from flat(entry)
        else:
            yield entry


def is_count(tensor: Tensor) -> bool:
    """Whether a tensor holds whole numbers or truths."""
    return not (tensor.is_floating_point() or tensor.is_complex())


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors of an operation's result."""
    entries = output if isinstance(output, (list, tuple)) else (output,)
    return [leaf for leaf in flat(entries) if isinstance(leaf, Tensor)]


def returned_tensors(output: Any) -> Iterator[Tensor]:
    """The tensors that a forward pass returns, in whatever holds them.

    Examples:
        >>> from types import SimpleNamespace
        >>> output = SimpleNamespace(logits=torch.ones(2), states=[torch.ones(1)])
        >>> [len(tensor) for tensor in returned_tensors(output)]
        [2, 1]
    """
    if isinstance(output, Tensor):
        yield output
        return
    if dataclasses.is_dataclass(output):
        output = [getattr(output, field.name) for field in dataclasses.fields(output)]
    elif isinstance(output, SimpleNamespace):
        output = vars(output)
    inner = output.values() if isinstance(output, Mapping) else output
    for one in inner if isinstance(inner, (list, tuple, ValuesView)) else ():
        yield from returned_tensors(one)
