"""What a recomputation needs to be the first execution again: random state and buffers."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import get_device_states, set_device_states

States = tuple[list[int], list[torch.Tensor]]


class Moment:
    """The moment at which a region first ran.

    Its random state is kept only if the region draws random numbers. While it is recomputed, the
    running statistics of its normalization layers are copies, so that they see each batch once.

    Args:
        modules: Blocks of the region.
        device: Where its activations are; other than the CPU it has a random state of its own.
    """

    def __init__(self, modules: list[nn.Module], device: torch.device) -> None:
        self.modules = modules
        self.device = device
        self.cpu: torch.Tensor | None = None
        self.devices: States = ([], [])

    def contexts(self) -> tuple["First", "Again"]:
        """Around the first execution, and around every recomputation."""
        return First(self), Again(self)


class First:
    """Notes the random state, and forgets it again when no random number was drawn."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.before: tuple[torch.Tensor, States] | None = None

    def __enter__(self) -> None:
        self.before = torch.get_rng_state(), _device_states(self.moment.device)

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


class Again:
    """Restores the random state; may be entered once for every backward (``retain_graph``)."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.open: list[ExitStack] = []

    def __enter__(self) -> None:
        moment = self.moment
        with ExitStack() as stack:
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
def kept_statistics(modules: list[nn.Module]) -> Iterator[None]:
    """Normalization layers update copies of their running statistics."""
    layers = [
        layer
        for module in modules
        for layer in module.modules()
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


def _device_states(device: torch.device) -> States:
    if device.type == "cpu":
        return [], []
    devices, states = get_device_states(torch.empty(0, device=device))
    return list(devices), list(states)
