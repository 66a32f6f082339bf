"""Measures one block: seconds and bytes of its forward, its tape and its backward."""

import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from thetaone.errors import ProfileError
from thetaone.rematerialization.accounting import AllocatorPeak, StorageTracker, key, storage_bytes
from thetaone.rematerialization.blocks import (
    SMALL,
    Call,
    Moment,
    activation_of,
    buffers_of,
    copied,
    dropped_tapes,
    label,
    own_casts,
    random_state,
    restore_random,
    same_state,
    size_of,
    standing_in,
    untouched,
    version_of,
)

VIEWS = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout)  # may hand on their input's storage


@dataclass(frozen=True)
class Subject:
    """A block as its model calls it.

    Attributes:
        name: Qualified name.
        kind: Equal for blocks that cost the same.
        block: The module.
        run_block: What to call; the module itself, or its own forward when it is specialized.
        activation: What flows in; detached, same requires_grad as in the model.
        call: The other arguments.
    """

    name: str
    kind: str
    block: nn.Module
    run_block: Any
    activation: torch.Tensor
    call: Call

    @property
    def where(self) -> str:
        """Name and type, for messages."""
        return label(self.block, self.name)

    def run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Run forward from a fresh leaf; the leaf and the activation that comes out."""
        leaf = self.activation.detach().requires_grad_(self.activation.requires_grad)
        call = self.call.again()  # every run finds its lists and dicts as the first one did
        return leaf, activation_of(call.run(self.run_block, leaf), where=self.where)


@dataclass(frozen=True)
class Sizes:
    """Bytes of one block, as in ``Stage``."""

    output: int
    tape: int
    forward_scratch: int
    taping_scratch: int
    backward_scratch: int
    backward: bool


def measure_sizes(subject: Subject) -> Sizes:
    """Bytes by storage: what the forward leaves, what it and the backward need meanwhile.

    On CUDA a peak is the allocator's where that is higher: it sees the workspace of kernels.
    """
    device = subject.activation.device
    with standing_in(subject.block, subject.call) as leaves, own_casts(device):
        with dropped_tapes(), StorageTracker() as tracker:
            high = _Highest(tracker, device)
            output = subject.run()[1]
            size = storage_bytes([output])
            plain_peak = high.peak
            del output
        with StorageTracker() as tracker:
            high = _Highest(tracker, device)
            leaf, output = subject.run()
            tape, taping_peak = tracker.live_bytes, high.peak
            needs_backward = output.requires_grad
            scratch = 0
            if needs_backward:
                gradient = torch.ones_like(output)
                high = _Highest(tracker, device)
                before = tracker.live_bytes + (storage_bytes([leaf]) if leaf.requires_grad else 0)
                _backward(output, gradient, [leaf, *leaves])
                scratch = max(0, high.peak - before)
    return Sizes(
        output=size,
        tape=tape,
        forward_scratch=max(0, plain_peak - size),
        taping_scratch=max(0, taping_peak - tape),
        backward_scratch=scratch,
        backward=needs_backward,
    )


class _Highest:
    """The peak from here on, in the tracker's own count of what is alive."""

    def __init__(self, tracker: StorageTracker, device: torch.device) -> None:
        self.tracker, self.allocator = tracker, AllocatorPeak([device])
        tracker.reset_peak()
        self.others = self.allocator.now - tracker.live_bytes  # given out for what is not tracked

    @property
    def peak(self) -> int:
        if not self.allocator:
            return self.tracker.peak_bytes
        return max(self.tracker.peak_bytes, self.allocator.peak - self.others)


def measure_seconds(subject: Subject) -> tuple[float, float]:
    """Seconds of one forward that writes its tape, and of its backward."""
    with standing_in(subject.block, subject.call) as leaves:
        synchronize(subject.activation)
        start = time.perf_counter()
        leaf, output = subject.run()
        synchronize(output)
        middle = time.perf_counter()
        if not output.requires_grad:
            return middle - start, 0.0
        gradient = torch.ones_like(output)
        synchronize(output)
        resumed = time.perf_counter()
        _backward(output, gradient, [leaf, *leaves])
        synchronize(output)
        return middle - start, time.perf_counter() - resumed


def _backward(output: torch.Tensor, gradient: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    """Backward; a parameter that the block reaches by another name keeps the gradient it had."""
    own = {id(leaf) for leaf in leaves}
    strangers = [(one, one.grad) for one in _accumulating(output) if id(one) not in own]
    for stranger, _ in strangers:
        stranger.grad = torch.zeros_like(stranger)
    try:
        output.backward(gradient)
    finally:
        for stranger, before in strangers:
            stranger.grad = before


def _accumulating(output: torch.Tensor) -> list[torch.Tensor]:
    """The leaves that a backward gives a gradient."""
    found: list[torch.Tensor] = []
    pending: list[Any] = [output.grad_fn]
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        pending += [following for following, _ in node.next_functions]
    return found


def measure_tail(subject: Subject) -> float:
    """The share of the forward that follows the last tensor saved for the backward."""
    last = [0.0]

    def note(tensor: torch.Tensor) -> torch.Tensor:
        synchronize(tensor)
        last[0] = time.perf_counter()
        return tensor

    synchronize(subject.activation)
    start = last[0] = time.perf_counter()
    with (
        standing_in(subject.block, subject.call),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        _, output = subject.run()
    synchronize(output)
    end = time.perf_counter()
    return (end - last[0]) / (end - start)


def measure_region(subject: Subject, rounds: int) -> float:
    """Seconds that a recomputed region takes beside its blocks: contexts, hooks, its own graph.

    The difference of a tiny function run as a region of this block, and run as it is, medians of
    ``rounds``: what is noted of the block's modules is part of it.
    """
    device = subject.activation.device
    weight = torch.ones(4, device=device, requires_grad=True)
    moment = Moment({subject.name: subject.block}, device, subject.call)

    def plain() -> torch.Tensor:
        return torch.tanh(weight * 2)

    def region() -> torch.Tensor:
        made = checkpoint(
            plain, use_reentrant=False, preserve_rng_state=False, context_fn=moment.contexts
        )
        assert isinstance(made, torch.Tensor)
        return made

    times: dict[Callable[[], torch.Tensor], list[float]] = {plain: [], region: []}
    for turn in range(rounds + 2):
        for run, seconds in times.items():
            synchronize(weight)
            start = time.perf_counter()
            torch.autograd.grad(run().sum(), weight)
            synchronize(weight)
            if turn > 1:  # torch's first checkpoint imports its compiler
                seconds.append(time.perf_counter() - start)
    return max(0.0, statistics.median(times[region]) - statistics.median(times[plain]))


def check_repeatable(subject: Subject) -> tuple[int, list[str]]:
    """Run a block twice to see that it can be run again.

    Returns:
        Bytes of random state that a region keeps for it, and the names of large buffers that it
        changes.

    Raises:
        ProfileError: It changes its input, hands it on, draws from another generator than torch's,
            or gives another result the second time.
    """
    drawn = random_state(subject.activation)
    others = _other_generators()
    with untouched(subject.block, ()):
        _check_in_place(subject)
    restore_random(drawn)
    with dropped_tapes():
        with untouched(subject.block, ()):
            before = buffers_of(subject.block)
            first = subject.run()[1].detach().clone()
            draws = not same_state(drawn, random_state(subject.activation))
            moving = [
                ".".join(filter(None, (inner, name)))
                for inner, module, name, tensor, version in before
                if size_of(tensor) > SMALL
                and (module._buffers.get(name) is not tensor or version_of(tensor) != version)
            ]
        restore_random(drawn)
        with untouched(subject.block, ()):
            leaf, second = subject.run()
    if others != _other_generators():
        raise ProfileError(
            f"{subject.where} draws from Python's or NumPy's generator, which a recomputation does "
            "not replay: draw from torch's"
        )
    if key(second) == key(leaf) and not isinstance(subject.block, VIEWS):
        raise ProfileError(
            f"{subject.where} returns a view of its input: keeping its output would keep its input "
            "alive; join it with a neighbour, or return a new tensor"
        )
    if not torch.equal(first.nan_to_num(), second.detach().nan_to_num()):
        raise ProfileError(
            f"{subject.where} is not deterministic: run twice from the same input and random state "
            "it gives two results, so it cannot be recomputed; draw from torch's own generators, "
            "and see torch.use_deterministic_algorithms"
        )
    return (sum(one.nbytes for one in drawn) if draws else 0), moving


def copied_bytes(block: nn.Module, moving: list[str]) -> int:
    """Bytes of the buffers of a block that a region copies."""
    return sum(
        tensor.nbytes
        for inner, module, name, tensor, _ in buffers_of(block)
        if copied(module)
        and (size_of(tensor) <= SMALL or ".".join(filter(None, (inner, name))) in moving)
    )


def _other_generators() -> tuple[Any, ...]:
    state: Any = np.random.get_state()  # noqa: NPY002  a block may draw from the legacy generator
    return random.getstate(), state[1].tobytes(), state[2:]


def attributes(block: nn.Module) -> str:
    """Plain attributes of a block's modules: blocks that print alike may differ in one."""
    plain = (bool, int, float, str, tuple)
    return repr([
        [item for item in vars(module).items() if isinstance(item[1], plain)]
        for module in block.modules()
    ])  # fmt: skip


def cast_bytes(blocks: Iterable[nn.Module]) -> int:
    """Most that an autocast, if one is on, keeps of the weights in its own type until its end.

    A block's tape holds its casts as well: they are counted twice rather than not at all.
    """
    parameters = {id(p): p for block in blocks for p in block.parameters() if p.requires_grad}
    found = list(parameters.values())
    if not found or not torch.is_autocast_cache_enabled():
        return 0
    device = found[0].device.type
    if not torch.is_autocast_enabled(device):
        return 0
    size = torch.get_autocast_dtype(device).itemsize
    return sum(p.numel() * size for p in found if p.dtype == torch.float32)


def _check_in_place(subject: Subject) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a block that checkpoints itself misses its gradients here
        probe = subject.activation.detach().clone()
        subject.call.again().run(subject.run_block, probe)
    if probe._version:
        raise ProfileError(
            f"{subject.where} changes its input in place, which could then not be recomputed from: "
            "build it without inplace=True, or join it with the block before it"
        )


def synchronize(tensor: torch.Tensor) -> None:
    """Wait for the device of a tensor, so that a clock tells the truth."""
    if tensor.device.type == "cuda":
        torch.cuda.synchronize(tensor.device)
