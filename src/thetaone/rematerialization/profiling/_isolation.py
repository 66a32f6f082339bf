"""What measuring and planning anew leave as they were: gradients, hooks, buffers, random state."""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import is_
from typing import Any

import torch
from torch import nn

from thetaone.errors import ProfileError
from thetaone.rematerialization.blocks import (
    Ambient,
    Call,
    Snapshot,
    Watch,
    differs,
    global_generators,
    restored_generators,
    same_generator_state,
    sharded,
    version_of,
)


@dataclass(frozen=True)
class Surroundings:
    """What must not change between two blocks that a region spans.

    Attributes:
        generators: States of the global random generators.
        ambient: Context variables, flags, modes.
        states: Of what each block can reach, with its watch.
    """

    generators: list[Any]
    ambient: Ambient
    states: list[tuple[Watch, Snapshot]]

    def differences(self, now: "Surroundings", before: str, name: str) -> str:
        """What changed between the end of a block and the next call; empty when nothing did."""
        if not all(map(same_generator_state, self.generators, now.generators)):
            return f"random numbers are drawn between {before} and {name}"
        if names := self.ambient.differences(now.ambient):
            return f"{names[0]} changes between {before} and {name}"
        for (_, state), (_, later) in zip(self.states, now.states, strict=True):
            if later is not state and (changed := state.changes()):
                return f"{changed[0]} changes between {before} and {name}"
        return ""


@contextmanager
def dropped_tapes(seen: Callable[[torch.Tensor], None] = lambda _: None) -> Iterator[None]:
    """Drop what autograd would keep, ``seen`` first: the forward of a recomputed region.

    A tensor that such a hook handed on would hold its own graph, and neither would ever be freed.
    """
    with torch.autograd.graph.saved_tensors_hooks(seen, _never):
        yield


@contextmanager
def substituted_parameters(block: nn.Module, call: Call) -> Iterator[list[torch.Tensor]]:
    """Run a block on substitutes of its parameters, whose gradients exist already.

    No gradient of the user's changes and no hook on a parameter fires. Yields the substitutes and
    the extra arguments that need a gradient.
    """
    substitutes: dict[int, nn.Parameter] = {}
    bindings = [(module, dict(module._parameters)) for module in block.modules()]
    for _, parameters in bindings:
        for parameter in parameters.values():
            if parameter is not None and id(parameter) not in substitutes:
                leaf = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
                leaf.grad = torch.zeros_like(leaf) if leaf.requires_grad else None
                vars(leaf).update(vars(parameter))
                substitutes[id(parameter)] = leaf
    extra = [one for one in call.tensors if one.requires_grad]
    try:
        for module, parameters in bindings:
            for name, parameter in parameters.items():
                if parameter is not None:
                    module._parameters[name] = substitutes[id(parameter)]
        yield [*substitutes.values(), *extra]
    except KeyError as error:
        key = error.args[0] if error.args else None
        key = key() if isinstance(key, weakref.ref) else key
        sought = key if type(key) is int else id(key)
        if sought not in map(id, substitutes.values()):
            raise
        raise ProfileError(
            f"a {type(block).__name__} looks something up by a parameter: blocks are measured on "
            "substitutes of their parameters, so that no gradient or hook of yours is touched. "
            "Look things up by a parameter's name"
        ) from error
    finally:
        for module, parameters in bindings:
            module._parameters.update(parameters)
        for one in extra:
            one.grad = None


@contextmanager
def uncached_casts(device: torch.device) -> Iterator[None]:
    """Let an autocast that is on cast weights anew, so that a tape is measured with its casts."""
    kind = device.type
    if not torch.is_autocast_enabled(kind):
        yield
        return
    with torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), cache_enabled=False):
        yield


@contextmanager
def untouched(watches: Iterable[Watch], devices: Iterable[torch.device]) -> Iterator[None]:
    """Restore what blocks register or can reach otherwise, and random state, on exit."""
    watches = list(watches)
    generators = [one for device in devices for one in global_generators(device)]
    generators += [one for watch in watches for one in watch.generators]
    modules = [module for watch in watches for module in watch.modules]
    with restored_generators(generators), _restored_buffers(modules), ExitStack() as stack:
        stack.enter_context(_restored_parameters(watches))
        for watch in watches:
            stack.enter_context(watch.restored())
        yield


@contextmanager
def _restored_buffers(modules: list[nn.Module]) -> Iterator[None]:
    bindings = [(module, dict(module._buffers)) for module in modules]
    values = [
        (f"{type(module).__name__}.{name}", buffer, buffer.detach().clone(), version_of(buffer))
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    resized = ""
    try:
        yield
    finally:
        for module, buffers in bindings:
            if _differ(module._buffers, buffers):  # TorchScript binds nothing anew
                module._buffers.clear()
                module._buffers.update(buffers)
        for name, buffer, before, version in values:
            if buffer.shape != before.shape:
                resized, buffer.data = name, before
                continue
            dense = buffer.layout == torch.strided
            # batch_norm changes them without a trace; layouts that cannot be compared have one
            if not torch.equal(buffer, before) if dense else version_of(buffer) != version:
                buffer.data.copy_(before)
    if resized:
        raise ProfileError(
            f"a forward resizes the buffer {resized} in place, which a recomputation cannot undo: "
            "bind a new tensor instead (self.buffer = torch.cat([self.buffer, more])), or leave "
            "this block out with blocks=…"
        )


def _differ(members: dict[str, Any], before: dict[str, Any]) -> bool:
    now = dict(members.items())
    return now.keys() != before.keys() or not all(map(is_, now.values(), before.values()))


@contextmanager
def _restored_parameters(watches: list[Watch]) -> Iterator[None]:
    """Parameters are the same ones on exit; their values too, where a forward may change them."""
    modules = [] if sharded() else [module for watch in watches for module in watch.modules]
    bindings = [(module, dict(module._parameters)) for module in modules]
    moving = [] if sharded() else [watch.block for watch in watches if watch.reached.moves]
    parameters = {id(one): one for block in moving for one in block.parameters()}
    values = [(one, one.data, one.detach().clone()) for one in parameters.values()]
    try:
        yield
    finally:
        for module, before in bindings:
            if _differ(module._parameters, before):
                module._parameters.clear()
                module._parameters.update(before)
        for parameter, data, before in values:
            if differs(before, data):
                data.copy_(before)
            if parameter.data_ptr() != data.data_ptr():  # by ``parameter.data = …``
                parameter.data = data


@contextmanager
def unhooked(modules: Iterable[nn.Module], *, forward: bool = True) -> Iterator[None]:
    """Run modules without the user's backward and ``forward`` hooks, which see no training step.

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


class NoTapeError(ProfileError):
    """Something computes gradients within a forward that keeps no tape."""


def _never(_: object) -> torch.Tensor:
    raise NoTapeError(
        "gradients are computed within a forward that is to be recomputed (torch.autograd.grad, a "
        "backward): it keeps no tape for them"
    )


@contextmanager
def named_tapes(name: str) -> Iterator[None]:
    """Say who it is that needs a tape within its own forward.

    Raises:
        ProfileError: It does.
    """
    try:
        yield
    except (NoTapeError, RuntimeError) as error:
        if not isinstance(error, NoTapeError) and "support saved tensor hooks" not in str(error):
            raise
        raise ProfileError(
            f"{name} computes gradients within its own forward (torch.autograd.grad, a backward, "
            "torch.func.grad), "
            "for which it needs its tape at once: what keeps no tape and is recomputed later "
            "cannot. Compute them outside of what is rematerialized, on what the model returns, "
            "or name blocks without them: blocks=…"
        ) from error


@contextmanager
def noted_forwards(modules: Iterable[nn.Module]) -> Iterator[list[nn.Module]]:
    """Note the modules whose forward runs, whether they are called or it is."""
    ran: list[nn.Module] = []
    changed = [(module, vars(module).get("forward")) for module in modules]

    def noting(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        ran.append(module)
        return forward(*args, **kwargs)

    for module, _ in changed:
        vars(module)["forward"] = partial(noting, module, module.forward)
    try:
        yield ran
    finally:
        for module, forward in changed:
            del vars(module)["forward"]
            if forward is not None:
                vars(module)["forward"] = forward
