"""What measuring and planning anew leave as they were: gradients, hooks, buffers, random state."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from thetaone.errors import ProfileError
from thetaone.rematerialization.accounting import tensors_in
from thetaone.rematerialization.blocks._calls import Call, version_of
from thetaone.rematerialization.blocks._replay import sharded


@contextmanager
def dropped_tapes() -> Iterator[None]:
    """Autograd on, but what it would keep is dropped: the forward of a recomputed region."""
    with torch.autograd.graph.saved_tensors_hooks(lambda _: None, _never):
        yield


@contextmanager
def standing_in(block: nn.Module, call: Call) -> Iterator[list[torch.Tensor]]:
    """The block runs on leaves of its own, with gradients that exist already.

    No gradient of the user's changes and none of his hooks fires. Yields the leaves.
    """
    made: dict[int, nn.Parameter] = {}
    swapped: list[tuple[nn.Module, str, nn.Parameter, nn.Parameter]] = []
    for module in block.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in made:
                own = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
                own.grad = torch.zeros_like(own) if own.requires_grad else None
                made[id(parameter)] = own
            swapped.append((module, name, parameter, made[id(parameter)]))
    extra = [one for one in call.tensors if one.requires_grad]
    try:
        for module, name, _, own in swapped:
            module._parameters[name] = own
        yield [*made.values(), *extra]
    finally:
        for module, name, parameter, _ in swapped:
            module._parameters[name] = parameter
        for one in extra:
            one.grad = None


@contextmanager
def own_casts(device: torch.device) -> Iterator[None]:
    """An autocast that is on casts weights anew, so that a tape is measured with its casts."""
    kind = device.type
    if not torch.is_autocast_enabled(kind):
        yield
        return
    with torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), cache_enabled=False):
        yield


@contextmanager
def untouched(model: nn.Module, inputs: Any) -> Iterator[None]:
    """Whatever happens inside, buffers and random state are afterwards what they were."""
    bindings = [(module, dict(module._buffers)) for module in model.modules()]
    values = [(one, one.detach().clone(), version) for *_, one, version in buffers_of(model)]
    devices = {t.device for t in tensors_in(inputs) if t.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(device.index or 0 for device in devices)):
        try:
            yield
        finally:
            for module, buffers in bindings:
                module._buffers.clear()
                module._buffers.update(buffers)
            for buffer, before, version in values:
                dense = buffer.layout == torch.strided
                # batch_norm changes them without a trace; layouts that cannot be compared have one
                if not torch.equal(buffer, before) if dense else version_of(buffer) != version:
                    buffer.data.copy_(before)


@contextmanager
def unhooked(modules: Iterable[nn.Module], *, forward: bool = True) -> Iterator[None]:
    """Modules run without the user's backward and ``forward`` hooks, which see no training step.

    Pre-hooks stay, as older parametrizations are some; wrappers that shard need all of theirs.
    """
    names = ["_backward_hooks", "_backward_pre_hooks", *(["_forward_hooks"] if forward else [])]
    modules = [] if sharded() else list(modules)
    before = [(vars(module), {name: vars(module)[name] for name in names}) for module in modules]
    for members, _ in before:
        members.update({name: OrderedDict[int, Any]() for name in names})
    try:
        yield
    finally:
        for members, hooks in before:
            members.update(hooks)


def random_state(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Random state of the CPU and of the tensor's device."""
    states = [torch.get_rng_state()]
    if tensor.device.type == "cuda":
        states.append(torch.cuda.get_rng_state(tensor.device))
    return states


def restore_random(states: list[torch.Tensor]) -> None:
    """Set the state that ``random_state`` read."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])


def same_state(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    """Whether no random number was drawn between two states."""
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def buffers_of(block: nn.Module) -> list[tuple[str, nn.Module, str, torch.Tensor, int]]:
    """Every buffer: name of its module, module, its own name, tensor, version."""
    return [
        (inner, module, name, buffer, version_of(buffer))
        for inner, module in block.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]


def _never(_: object) -> torch.Tensor:
    raise ProfileError("a tape that was dropped is asked for: this forward has no backward")
