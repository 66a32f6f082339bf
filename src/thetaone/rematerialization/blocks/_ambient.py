"""The ambient state of a computation: context variables, flags, function and dispatch modes.

A recomputation runs in the ambient state of its forward, not of the backward that asks for it.
Autocast and grad mode are left to torch's checkpoint, which replays them itself.
"""

import contextvars
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)

# whose dispatch modes record what runs, and belong to whoever runs it; or are a checkpoint's own
_RECORDING = (
    "thetaone.",
    "torch.autograd.graph",
    "torch.utils.checkpoint",
    "torch.utils.flop_counter",
    "torch.utils._debug_mode",
    "torch.distributed._tools",
    "torch.distributed.tensor.debug",
)


@dataclass(frozen=True)
class Flag:
    """One of torch's settings that decides what or how it computes.

    Attributes:
        name: As users write it.
        read: Returns its value.
        write: Sets it.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _attribute(module: Any, name: str, label: str, read: Callable[[], Any] | None = None) -> Flag:
    return Flag(label, read or partial(getattr, module, name), partial(setattr, module, name))


def _deterministic() -> tuple[bool, bool]:
    return (
        torch._C._get_deterministic_algorithms(),
        torch._C._get_deterministic_algorithms_warn_only(),
    )


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _attention_order() -> tuple[int, ...]:
    return tuple(torch._C._get_sdp_priority_order())


def _set_attention_order(order: tuple[int, ...]) -> None:
    torch._C._set_sdp_priority_order(list(order))


_read_precision = torch._C._get_fp32_precision_getter
_ALL_PRECISIONS = ("generic", "all")  # what other settings of a precision start from
_CPU_PRECISIONS = tuple(("mkldnn", operation) for operation in ("all", "matmul", "conv", "rnn"))


def _precisions() -> tuple[str | None, ...]:
    """Precisions of float32: the older setting, None where newer ones disagree; those in turn."""
    try:
        older = torch._C._get_float32_matmul_precision()
    except RuntimeError:
        older = None
    return (older, *[_read_precision(*one) for one in (_ALL_PRECISIONS, *_CPU_PRECISIONS)])


def _set_precisions(values: tuple[str | None, ...]) -> None:
    """Set what differs, the general before the particular: a setting changes those below it."""
    older, *newer = values
    if older is not None and _precisions()[0] != older:
        torch.set_float32_matmul_precision(older)
    for one, value in zip((_ALL_PRECISIONS, *_CPU_PRECISIONS), newer, strict=True):
        if _read_precision(*one) != value:
            torch._C._set_fp32_precision_setter(*one, value)  # pyright: ignore


_smallest = [2.0**-1074]  # a list, so that Python does not compute with it beforehand


def _flushes_denormals() -> bool:
    return _smallest[0] * 1.0 == 0.0


with warnings.catch_warnings():
    # torch 2.9 says once a process, even to whoever only reads it, that a newer setting exists
    warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
    torch.get_float32_matmul_precision()

_cuda, _cudnn, _mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
# read around every region: where Python wraps a function of C, that one
_EVERYWHERE = (
    Flag("torch.get_default_dtype()", torch.get_default_dtype, torch.set_default_dtype),
    Flag("torch.get_num_threads()", torch.get_num_threads, torch.set_num_threads),
    Flag("a precision of float32, torch.backends.….fp32_precision", _precisions, _set_precisions),
    Flag("torch.set_flush_denormal(…)", _flushes_denormals, torch.set_flush_denormal),
    Flag("torch.use_deterministic_algorithms(…)", _deterministic, _set_deterministic),
    Flag("flash attention", _cuda.flash_sdp_enabled, _cuda.enable_flash_sdp),
    Flag(
        "memory-efficient attention",
        _cuda.mem_efficient_sdp_enabled,
        _cuda.enable_mem_efficient_sdp,
    ),
    Flag("math attention", _cuda.math_sdp_enabled, _cuda.enable_math_sdp),
    Flag("cuDNN attention", _cuda.cudnn_sdp_enabled, _cuda.enable_cudnn_sdp),
    Flag("order of attention kernels", _attention_order, _set_attention_order),
    Flag(
        "half-precision reduction of math attention",
        _cuda.fp16_bf16_reduction_math_sdp_allowed,
        _cuda.allow_fp16_bf16_reduction_math_sdp,
    ),
    _attribute(_mkldnn, "enabled", "torch.backends.mkldnn.enabled", torch._C._get_mkldnn_enabled),
    _attribute(
        _mkldnn,
        "deterministic",
        "torch.backends.mkldnn.deterministic",
        torch._C._get_mkldnn_deterministic,
    ),
)
_ON_CUDA = (
    *(
        _attribute(_cudnn, name, f"torch.backends.cudnn.{name}")
        for name in ("enabled", "benchmark", "deterministic")
    ),
    *(
        _attribute(_cuda.matmul, name, f"torch.backends.cuda.matmul.{name}")
        for name in (
            "fp32_precision",
            "allow_fp16_reduced_precision_reduction",
            "allow_bf16_reduced_precision_reduction",
            "allow_fp16_accumulation",
        )
    ),
    _attribute(_cudnn.conv, "fp32_precision", "torch.backends.cudnn.conv.fp32_precision"),
    _attribute(_cudnn.rnn, "fp32_precision", "torch.backends.cudnn.rnn.fp32_precision"),
)

_WITH_CUDA = (*_EVERYWHERE, *_ON_CUDA)


@dataclass(frozen=True)
class Ambient:
    """The ambient state at one moment.

    Attributes:
        context: Values of all context variables.
        flags: Values of torch's settings, in the order of ``flags_of``.
        modes: Python's torch-function modes, outermost first.
        dispatch: Python's torch-dispatch modes that may change what is computed, likewise.
        cuda: Whether the settings of CUDA's libraries are among the flags.
    """

    context: contextvars.Context
    flags: tuple[Any, ...]
    modes: tuple[TorchFunctionMode, ...]
    dispatch: tuple[TorchDispatchMode, ...]
    cuda: bool

    def differences(self, other: "Ambient") -> list[str]:
        """Names of what differs from another moment."""
        flags = zip(flags_of(cuda=self.cuda), self.flags, other.flags, strict=True)
        names = [flag.name for flag, mine, theirs in flags if mine != theirs]
        if not same_context(self.context, other.context):
            names.append("a context variable")
        if self.modes != other.modes:
            names.append("a torch-function mode")
        if self.dispatch != other.dispatch:
            names.append("a torch-dispatch mode")
        return names

    def here(self) -> "Ambient":
        """The same with the context variables of now."""
        context = contextvars.copy_context()
        return Ambient(context, self.flags, self.modes, self.dispatch, self.cuda)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in this ambient state."""
        context = self.context.copy()  # one can be entered once at a time; a copy costs nothing
        flags = tuple([flag.read() for flag in flags_of(cuda=self.cuda)])
        modes = _modes()
        same_dispatch = _dispatch_modes() == self.dispatch
        if same_dispatch and flags == self.flags and modes == self.modes:
            return context.run(function, *arguments)
        try:
            _swap_modes(self.modes)
            self._set(self.flags)
            with nullcontext() if same_dispatch else _dispatching(self.dispatch):
                return context.run(function, *arguments)
        finally:
            self._set(flags)
            _swap_modes(modes)

    def _set(self, values: tuple[Any, ...]) -> None:
        for flag, value in zip(flags_of(cuda=self.cuda), values, strict=True):
            if flag.read() != value:
                flag.write(value)


def flags_of(*, cuda: bool) -> tuple[Flag, ...]:
    """The settings that matter on a device."""
    return _WITH_CUDA if cuda else _EVERYWHERE


def ambient(device: torch.device) -> Ambient:
    """The ambient state of this moment."""
    cuda = device.type == "cuda"
    flags = tuple([flag.read() for flag in flags_of(cuda=cuda)])
    return Ambient(contextvars.copy_context(), flags, _modes(), _dispatch_modes(), cuda)


def same_context(before: contextvars.Context, after: contextvars.Context) -> bool:
    """Whether context variables are the same objects, those of torch's compiler apart."""
    mine, theirs = _counted(before), _counted(after)
    return mine.keys() == theirs.keys() and all(theirs[key] is mine[key] for key in mine)


def _counted(context: contextvars.Context) -> dict[contextvars.ContextVar[Any], Any]:
    return {
        variable: value
        for variable, value in context.items()
        if not variable.name.startswith("torch.") and variable.name != "_vt_active_calls"
    }


def _modes() -> tuple[TorchFunctionMode, ...]:
    if not torch._C._len_torch_function_stack():
        return ()
    return tuple(_get_current_function_mode_stack())


def _swap_modes(modes: tuple[TorchFunctionMode, ...]) -> None:
    for _ in _modes():
        _pop_mode()
    for mode in modes:
        _push_mode(mode)


def _dispatch_modes() -> tuple[TorchDispatchMode, ...]:
    if not torch._C._len_torch_dispatch_stack():
        return ()
    return tuple([mode for mode in _get_current_dispatch_mode_stack() if not _records(mode)])


def _records(mode: TorchDispatchMode) -> bool:
    return type(mode).__module__.startswith(_RECORDING)


@contextmanager
def _dispatching(modes: tuple[TorchDispatchMode, ...]) -> Iterator[None]:
    """These dispatch modes inside, and outside of them those of now that record.

    What a mode's class does when its user enters or leaves it does not happen.
    """
    recording = [mode for mode in _get_current_dispatch_mode_stack() if _records(mode)]
    with ExitStack() as stack:
        stack.enter_context(_disable_current_modes())
        for mode in (*recording, *modes):
            TorchDispatchMode.__enter__(mode)
            stack.callback(TorchDispatchMode.__exit__, mode, None, None, None)
        yield
