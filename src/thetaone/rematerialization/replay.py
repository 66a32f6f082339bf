"""What a recomputation needs to be the first execution again, and what must not have changed."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import get_device_states, set_device_states

from thetaone.errors import RecomputationError
from thetaone.rematerialization.calls import Call, version_of

States = tuple[list[int], list[torch.Tensor]]
Moving = dict[nn.Module, set[str]]  # buffers that a module's own forward changes, once it has run


@dataclass(frozen=True)
class _Buffer:
    """A buffer as a region found it; ``value`` is a copy if the region changes it."""

    module: nn.Module
    name: str
    tensor: torch.Tensor
    version: int
    value: torch.Tensor | None

    @property
    def moved(self) -> bool:
        now = self.module._buffers.get(self.name)
        return now is not self.tensor or version_of(self.tensor) != self.version


class Moment:
    """The moment at which a region first ran.

    Its random state is kept only if the region draws random numbers, and its buffers only if it
    changes them. While it is recomputed, modules train or do not as they did then, buffers have the
    values of then, and the running statistics of normalization layers are copies, so that they see
    each batch once. Parameters and arguments are those of now: if one was changed in the meantime,
    the recomputation is refused.

    Args:
        blocks: Blocks of the region, by name.
        device: Where its activations are; other than the CPU it has a random state of its own.
        call: With what they are called.
        moving: What is known of the buffers that modules change; learned at their first execution.
    """

    def __init__(
        self,
        blocks: dict[str, nn.Module],
        device: torch.device,
        call: Call | None = None,
        moving: Moving | None = None,
    ) -> None:
        self.blocks, self.device, self.call = blocks, device, call
        self.moving = {} if moving is None else moving
        self.cpu: torch.Tensor | None = None
        self.devices: States = ([], [])
        self.modules: list[nn.Module] = []
        self.training: list[bool] = []
        self.parameters: list[tuple[nn.Module, str, nn.Parameter, int, int]] = []
        self.buffers: list[_Buffer] = []
        self.sharded = False

    def contexts(self) -> tuple["First", "Again"]:
        """Around the first execution, and around every recomputation."""
        return First(self), Again(self)

    def note(self) -> None:
        """Note how the region's modules are before they run."""
        self.modules = [one for block in self.blocks.values() for one in block.modules()]
        self.training = [module.training for module in self.modules]
        self.buffers = [buffer for module in self.modules for buffer in self._buffers_of(module)]
        self.sharded = _sharded()
        if not self.sharded:
            self.parameters = [
                (module, name, parameter, parameter._version, parameter.data_ptr())
                for module in self.modules
                for name, parameter in module._parameters.items()
                if parameter is not None
            ]

    def learn(self) -> None:
        """Keep, of the buffers, what the region has changed; the others must stay as they are."""
        kept: list[_Buffer] = []
        for buffer in self.buffers:
            moving, moved = self.moving.setdefault(buffer.module, set()), buffer.moved
            if moved:
                moving.add(buffer.name)
            value = buffer.value if moved or buffer.name in moving else None
            if moved and value is None and version_of(buffer.tensor) == buffer.version:
                value = buffer.tensor  # replaced, not changed in place
            kept.append(_Buffer(buffer.module, buffer.name, buffer.tensor, buffer.version, value))
        self.buffers = kept

    def require_unchanged(self) -> None:
        """Refuse to recompute with other parameters, arguments or buffers.

        Raises:
            RecomputationError: What changed, by name.
        """
        for module, name, parameter, version, place in self.parameters:
            now = module._parameters.get(name)
            if now is not parameter:
                self._refuse(module, name, "was replaced")
            if parameter._version != version or parameter.data_ptr() != place:
                self._refuse(module, name, "was changed")
        if not self.sharded:
            for buffer in self.buffers:
                if buffer.value is None and buffer.moved:
                    self._refuse(buffer.module, buffer.name, "was changed")
        if (
            self.call is not None
            and tuple(map(version_of, self.call.tensors)) != self.call.versions
        ):
            raise RecomputationError(
                f"an argument of {next(iter(self.blocks))} was changed in place between the "
                "forward and the backward: pass a copy, or change it after the backward"
            )

    def _buffers_of(self, module: nn.Module) -> Iterable[_Buffer]:
        if isinstance(module, _NormBase):
            return  # its statistics are not what it computes with while it trains
        moving = self.moving.get(module)  # unknown before the first execution: copy them all
        for name, buffer in module._buffers.items():
            if buffer is not None:
                copied = moving is None or name in moving
                value = buffer.detach().clone() if copied else None
                yield _Buffer(module, name, buffer, version_of(buffer), value)

    def _refuse(self, module: nn.Module, name: str, how: str) -> NoReturn:
        where = next(
            (
                ".".join(filter(None, (block, inner, name)))
                for block, root in self.blocks.items()
                for inner, one in root.named_modules()
                if one is module
            ),
            name,
        )
        raise RecomputationError(
            f"{where} {how} between the forward and the backward, which would recompute with what "
            "it is now: finish the backward first, or keep this block's tape"
        )


class First:
    """Notes the state before the first execution, and forgets what the region does not use."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.before: tuple[torch.Tensor, States] | None = None

    def __enter__(self) -> None:
        self.before = torch.get_rng_state(), _device_states(self.moment.device)
        self.moment.note()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before, self.before = self.before, None
        if before is None:
            return
        cpu, devices = before
        if not torch.equal(cpu, torch.get_rng_state()):
            self.moment.cpu = cpu
        if not all(map(torch.equal, devices[1], _device_states(self.moment.device)[1])):
            self.moment.devices = devices
        self.moment.learn()


class Again:
    """Restores the state; may be entered once for every backward (``retain_graph``)."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.open: list[ExitStack] = []

    def __enter__(self) -> None:
        moment = self.moment
        moment.require_unchanged()
        with ExitStack() as stack:
            stack.enter_context(training_as(moment.modules, moment.training))
            stack.enter_context(kept_statistics(moment.modules))
            stack.enter_context(_earlier(moment.buffers))
            if moment.cpu is not None or moment.devices[0]:
                stack.enter_context(torch.random.fork_rng(moment.devices[0]))
            if moment.cpu is not None:
                torch.set_rng_state(moment.cpu)
            if moment.devices[0]:
                set_device_states(*moment.devices, device_type=moment.device.type)
            self.open.append(stack.pop_all())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open.pop().close()


@contextmanager
def training_as(modules: list[nn.Module], training: list[bool]) -> Iterator[None]:
    """Modules train, or do not, as they did."""
    changed = [
        (module, module.training)
        for module, before in zip(modules, training, strict=True)
        if module.training is not before
    ]
    for module, now in changed:
        module.training = not now
    try:
        yield
    finally:
        for module, now in changed:
            module.training = now


@contextmanager
def kept_statistics(modules: list[nn.Module]) -> Iterator[None]:
    """Normalization layers update copies of their running statistics."""
    layers = [
        layer
        for layer in modules
        if isinstance(layer, _NormBase) and layer.training and layer.track_running_stats
    ]
    before = [dict(layer._buffers) for layer in layers]
    try:
        for layer in layers:
            for name, buffer in layer._buffers.items():
                if buffer is not None:
                    layer._buffers[name] = buffer.detach().clone()
        yield
    finally:
        for layer, buffers in zip(layers, before, strict=True):
            layer._buffers.update(buffers)


@contextmanager
def _earlier(buffers: list[_Buffer]) -> Iterator[None]:
    """Buffers that the region changes have copies of the values that it found."""
    changing = [
        (one, one.module._buffers.get(one.name)) for one in buffers if one.value is not None
    ]
    try:
        for buffer, _ in changing:
            assert buffer.value is not None
            buffer.module._buffers[buffer.name] = buffer.value.clone()
        yield
    finally:
        for buffer, now in changing:
            buffer.module._buffers[buffer.name] = now


def _sharded() -> bool:
    """Whether wrappers may move parameters about between forward and backward, as FSDP does."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _device_states(device: torch.device) -> States:
    if device.type == "cpu":
        return [], []
    devices, states = get_device_states(torch.empty(0, device=device))
    return list(devices), list(states)
