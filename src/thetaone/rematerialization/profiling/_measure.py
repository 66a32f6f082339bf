"""Measures one block: seconds and bytes of its forward, its tape and its backward."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from thetaone.rematerialization.accounting import AllocatorPeak, StorageTracker, storage_bytes
from thetaone.rematerialization.blocks import (
    Moment,
)
from thetaone.rematerialization.profiling._isolation import (
    dropped_tapes,
    substituted_parameters,
    uncached_casts,
)
from thetaone.rematerialization.profiling._subject import Subject


@dataclass(frozen=True)
class Sizes:
    """Bytes of one block, as in ``Stage``.

    ``passing`` flows in and out unchanged. A forward that writes no tape keeps ``left`` on what the
    block reaches, for whoever wants it, and ``hidden`` where nobody sees it: on the ``ctx`` of an
    autograd.Function, in what a tensor's hook closes over, in a cycle.
    """

    output: int
    tape: int
    forward_scratch: int
    taping_scratch: int
    backward_scratch: int
    passing: int
    left: int
    hidden: int


def measure_sizes(subject: Subject) -> Sizes:
    """Bytes by storage: what the forward leaves, what it and the backward need meanwhile.

    On CUDA a peak is the allocator's where that is higher: it sees the workspace of kernels.
    """
    device = subject.device
    # no compiler traces what a tracker sees, and one that was asked for a full graph would raise
    eager = torch.compiler.set_stance("force_eager")
    substituted = substituted_parameters(subject.block, subject.call)
    with eager, substituted as leaves, uncached_casts(device):
        with subject.as_called(), dropped_tapes(), StorageTracker() as tracker:
            high = _Highest(tracker, device)
            flowing, outputs = subject.run()
            alone = len(outputs) == 1  # then what is handed on takes a place of its own in a plan
            size = storage_bytes(outputs if alone else _born(outputs, flowing, subject))
            through = [one for one in outputs if not alone and _among(one, flowing)]
            passing = storage_bytes(through)
            returned = storage_bytes(_born(outputs, flowing, subject))
            left, hidden = _kept(subject, tracker, returned)
            plain_peak = high.peak
            del flowing, outputs
        with subject.as_called(), StorageTracker() as tracker:
            high = _Highest(tracker, device)
            before = subject.watch.now()
            flowing, outputs = subject.run()
            tape, taping_peak = tracker.live_bytes, high.peak
            outputs = [one for one in outputs if one.requires_grad]
            outputs += subject.watch.left_since(before)  # a loss of its own, which is trained too
            scratch = 0
            if outputs:
                gradients = list(map(torch.ones_like, outputs))
                high = _Highest(tracker, device)
                arrived = storage_bytes(one for one in flowing if one.requires_grad)
                held = tracker.live_bytes + arrived
                _backward(outputs, gradients, [*flowing, *leaves])
                scratch = max(0, high.peak - held)
    return Sizes(
        output=size,
        tape=tape,
        forward_scratch=max(0, plain_peak - size),
        taping_scratch=max(0, taping_peak - tape),
        backward_scratch=scratch,
        passing=passing,
        left=left,
        hidden=hidden,
    )


def _kept(subject: Subject, tracker: StorageTracker, returned: int) -> tuple[int, int]:
    """Bytes that a forward left on what the block reaches, and others beside what it returned."""
    alive = tracker.live_bytes  # before the look at the state, which copies what is small
    reached = [one.value for one in subject.watch.now().in_place]
    reached += [buffer for _, _, _, buffer, _ in subject.watch.buffers()]
    left = storage_bytes(
        one for one in reached if isinstance(one, torch.Tensor) and tracker.has_seen(one)
    )
    return left, max(0, alive - returned - left)


def _among(tensor: torch.Tensor, others: Iterable[torch.Tensor]) -> bool:
    return any(tensor is one for one in others)


def _born(
    outputs: list[torch.Tensor], flowing: list[torch.Tensor], subject: Subject
) -> list[torch.Tensor]:
    """Outputs that are not simply handed on."""
    return [one for one in outputs if not _among(one, [*flowing, *subject.call.tensors])]


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
    device = subject.device
    with (
        subject.as_called(),
        substituted_parameters(subject.block, subject.call) as leaves,
    ):
        synchronize(device)
        start = time.perf_counter()
        flowing, outputs = subject.run()
        synchronize(device)
        middle = time.perf_counter()
        outputs = [one for one in outputs if one.requires_grad]
        if not outputs:
            return middle - start, 0.0
        gradients = list(map(torch.ones_like, outputs))
        synchronize(device)
        resumed = time.perf_counter()
        _backward(outputs, gradients, [*flowing, *leaves])
        synchronize(device)
        return middle - start, time.perf_counter() - resumed


def _backward(
    outputs: list[torch.Tensor], gradients: list[torch.Tensor], leaves: list[torch.Tensor]
) -> None:
    """Backward; a parameter that the block reaches by another name keeps the gradient it had."""
    expected = {id(leaf) for leaf in leaves}
    strangers = [(one, one.grad) for one in _accumulating(outputs) if id(one) not in expected]
    for stranger, _ in strangers:
        stranger.grad = torch.zeros_like(stranger)
    try:
        torch.autograd.backward(outputs, gradients)
    finally:
        for stranger, before in strangers:
            stranger.grad = before


def _accumulating(outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The leaves that a backward gives a gradient."""
    leaves: list[torch.Tensor] = []
    pending: list[Any] = [output.grad_fn for output in outputs]
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        pending += [following for following, _ in node.next_functions]
    return leaves


def measure_tail(subject: Subject) -> float:
    """The share of the forward that follows the last tensor saved for the backward."""
    last, device = [0.0], subject.device

    def note(_: torch.Tensor) -> None:
        synchronize(device)
        last[0] = time.perf_counter()

    with subject.as_called():
        synchronize(device)
        start = last[0] = time.perf_counter()
        with substituted_parameters(subject.block, subject.call), dropped_tapes(note):
            subject.run()
        synchronize(device)
        end = time.perf_counter()
    return (end - last[0]) / (end - start)


def measure_region(subject: Subject, rounds: int) -> float:
    """Seconds that a recomputed region takes beside its blocks: contexts, hooks, its own graph.

    The difference of a tiny function run as a region of this block, and run as it is, medians of
    ``rounds``: what is noted of the block's modules is part of it.
    """
    device = subject.device
    weight = torch.ones(4, device=device, requires_grad=True)
    moment = Moment([subject.watch], device, subject.call)

    def plain() -> torch.Tensor:
        return torch.tanh(weight * 2)

    def region() -> torch.Tensor:
        output = checkpoint(
            plain, use_reentrant=False, preserve_rng_state=False, context_fn=moment.contexts
        )
        assert isinstance(output, torch.Tensor)
        return output

    times: dict[Callable[[], torch.Tensor], list[float]] = {plain: [], region: []}
    for turn in range(rounds + 2):
        for run, seconds in times.items():
            synchronize(device)
            start = time.perf_counter()
            torch.autograd.grad(run().sum(), weight)
            synchronize(device)
            if turn > 1:  # torch's first checkpoint imports its compiler
                seconds.append(time.perf_counter() - start)
    return max(0.0, statistics.median(times[region]) - statistics.median(times[plain]))


def synchronize(device: torch.device) -> None:
    """Wait for a device, so that a clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
