"""What a recomputation needs to be the first execution again, and what must not have changed."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import get_device_states, set_device_states

from thetaone.errors import RecomputationError
from thetaone.rematerialization.blocks._calls import Call, version_of

States = tuple[list[int], list[torch.Tensor]]
SMALL = 2**16  # bytes of a buffer that is always copied, as it may change at any execution


@dataclass
class _Buffers:
    """Buffers of a module as a region found them; ``values`` are copies of those it may change."""

    module: nn.Module
    tensors: dict[str, torch.Tensor | None]
    versions: dict[str, int]
    values: dict[str, torch.Tensor]

    def moved(self, name: str) -> bool:
        """Whether a buffer is another one now, or was changed in place."""
        before = self.tensors.get(name)
        if self.module._buffers.get(name) is not before:
            return True
        return before is not None and version_of(before) != self.versions[name]

    @property
    def replayed(self) -> bool:
        """Whether a recomputation gives the module its earlier buffers."""
        now = self.module._buffers
        return (
            bool(self.values)
            or any(now.get(k) is not t for k, t in self.tensors.items())
            or (now.keys() != self.tensors.keys())
        )


class Copies:
    """Copies of buffers that the regions of a chain have made, so that nested ones share them.

    Args:
        moving: Names of large buffers that blocks change; one that is found to is added.
    """

    def __init__(self, moving: Iterable[str] = ()) -> None:
        self.moving = set(moving)
        self._known: dict[int, tuple[weakref.ref[Any], int, weakref.ref[Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of a step under way."""
        return {"moving": set(self.moving), "_known": {}}

    def of(self, buffer: torch.Tensor) -> torch.Tensor:
        """A copy that nobody changes; the one made before, if the buffer is still the same."""
        known = self._known.get(id(buffer))
        if known is not None and known[0]() is buffer and known[1] == version_of(buffer):
            value = known[2]()
            if value is not None:
                return value
        value = buffer.detach().clone()
        self.note(buffer, value)
        return value

    def note(self, buffer: torch.Tensor, value: torch.Tensor) -> None:
        """A buffer has this value now."""
        place, known = id(buffer), self._known

        def died(_: object) -> None:
            known.pop(place, None)

        known[place] = weakref.ref(buffer, died), version_of(buffer), weakref.ref(value)


class Moment:
    """The moment at which a region first ran.

    Its random state is kept only if the region draws random numbers, and copies of its buffers if
    they are small or known to change. While it is recomputed, modules train or do not as they did
    then, buffers have the values of then, and the running statistics of normalization layers are
    copies, so that they see each batch once. Parameters and arguments are those of now: if one was
    changed in the meantime, the recomputation is refused.

    Args:
        blocks: Blocks of the region, by name.
        device: Where its activations are; other than the CPU it has a random state of its own.
        call: With what they are called.
        copies: Of buffers, shared by the regions of a chain.
    """

    def __init__(
        self,
        blocks: dict[str, nn.Module],
        device: torch.device,
        call: Call | None = None,
        copies: Copies | None = None,
    ) -> None:
        self.blocks, self.device, self.call = blocks, device, call
        self.copies = copies or Copies()
        self.cpu: torch.Tensor | None = None
        self.devices: States = ([], [])
        self.modules: list[nn.Module] = []
        self.training: list[bool] = []
        self.parameters: list[tuple[nn.Module, str, nn.Parameter, int, int, bool]] = []
        self.buffers: list[_Buffers] = []
        self.sharded = False

    def contexts(self) -> tuple["First", "Again"]:
        """Around the first execution, and around every recomputation."""
        return First(self), Again(self)

    def note(self) -> None:
        """Note how the region's modules are before they run."""
        self.modules = [one for block in self.blocks.values() for one in block.modules()]
        self.training = [module.training for module in self.modules]
        self.buffers = [
            self._noted(module) for module in self.modules if module._buffers and copied(module)
        ]
        self.sharded = sharded()
        if not self.sharded:
            self.parameters = [
                (module, name, p, p._version, p.data_ptr(), p.requires_grad)
                for module in self.modules
                for name, p in module._parameters.items()
                if p is not None
            ]

    def learn(self) -> None:
        """Note what the region has changed: buffers that it made, and large ones, by name."""
        noted = {id(one.module) for one in self.buffers}
        for module in self.modules:
            if module._buffers and id(module) not in noted and not isinstance(module, _NormBase):
                self.buffers.append(_Buffers(module, {}, {}, {}))  # it had none before
        for one in self.buffers:
            for name, tensor in one.tensors.items():
                if tensor is not None and name not in one.values and one.moved(name):
                    self.copies.moving.add(self._where(one.module, name))
                    if version_of(tensor) == one.versions[name]:
                        one.values[name] = tensor  # replaced, not changed in place

    def require_unchanged(self) -> None:
        """Refuse to recompute with other parameters, arguments or buffers.

        Raises:
            RecomputationError: What changed, by name.
        """
        for module, name, parameter, version, place, trained in self.parameters:
            if module._parameters.get(name) is not parameter:
                self._refuse(module, name, "was replaced")
            if parameter._version != version or parameter.data_ptr() != place:
                self._refuse(module, name, "was changed")
            if parameter.requires_grad is not trained:
                self._refuse(module, name, "was frozen or unfrozen")
        if not self.sharded:
            for one in self.buffers:
                for name, tensor in one.tensors.items():
                    if name in one.values or tensor is None:
                        continue
                    if version_of(tensor) != one.versions[name]:
                        self._refuse(one.module, name, "is a large buffer and was changed")
        if (
            self.call is not None
            and tuple(map(version_of, self.call.tensors)) != self.call.versions
        ):
            raise RecomputationError(
                f"an argument of {next(iter(self.blocks))} was changed in place between the "
                "forward and the backward: pass a copy, or change it after the backward"
            )

    def _noted(self, module: nn.Module) -> _Buffers:
        tensors, moving = dict(module._buffers), self.copies.moving
        versions = {name: version_of(one) for name, one in tensors.items() if one is not None}
        values: dict[str, torch.Tensor] = {}
        for name, one in tensors.items():
            if one is not None and (
                size_of(one) <= SMALL or (moving and self._where(module, name) in moving)
            ):
                # normalization changes its statistics without a trace: those are no one else's
                untraced = isinstance(module, _NormBase)
                values[name] = one.detach().clone() if untraced else self.copies.of(one)
        return _Buffers(module, tensors, versions, values)

    def _where(self, module: nn.Module, name: str) -> str:
        return next(
            (
                ".".join(filter(None, (block, inner, name)))
                for block, root in self.blocks.items()
                for inner, one in root.named_modules()
                if one is module
            ),
            name,
        )

    def _refuse(self, module: nn.Module, name: str, how: str) -> NoReturn:
        raise RecomputationError(
            f"{self._where(module, name)} {how} between the forward and the backward, which would "
            "recompute with what it is now: finish the backward first, or keep this block's tape"
        )


def copied(module: nn.Module) -> bool:
    """Whether a region notes the buffers of a module.

    A normalization layer that trains does not compute with its statistics.
    """
    return not (isinstance(module, _NormBase) and module.training)


def size_of(buffer: torch.Tensor) -> int:
    """Bytes of a dense buffer; of another layout, more than are copied unasked."""
    return buffer.nbytes if buffer.layout == torch.strided else SMALL + 1


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
            stack.enter_context(_earlier(moment.buffers, moment.copies))
            stack.enter_context(kept_statistics(moment.modules))
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
def _earlier(buffers: list[_Buffers], copies: Copies) -> Iterator[None]:
    """Modules have the buffers that the region found: copies of those that it may change."""
    changed = [(one, dict(one.module._buffers)) for one in buffers if one.replayed]
    fresh: dict[int, torch.Tensor] = {}
    try:
        for one, _ in changed:
            earlier: dict[str, torch.Tensor | None] = dict(one.tensors)
            for name, value in one.values.items():
                if id(value) not in fresh:
                    fresh[id(value)] = made = value.clone()
                    copies.note(made, value)  # a region inside needs no other copy
                earlier[name] = fresh[id(value)]
            one.module._buffers.clear()
            one.module._buffers.update(earlier)
        yield
    finally:
        for one, now in changed:
            one.module._buffers.clear()
            one.module._buffers.update(now)


def sharded() -> bool:
    """Whether wrappers may move parameters about between forward and backward, as FSDP does."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _device_states(device: torch.device) -> States:
    if device.type == "cpu":
        return [], []
    devices, states = get_device_states(torch.empty(0, device=device))
    return list(devices), list(states)
