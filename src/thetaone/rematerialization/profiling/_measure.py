"""Measures one block: seconds and bytes of its forward, its tape and its backward."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from thetaone.errors import ProfileError, RecomputationError
from thetaone.rematerialization.accounting import AllocatorPeak, StorageTracker, key, storage_bytes
from thetaone.rematerialization.blocks import (
    SMALL,
    Moment,
    Note,
    generator_state,
    global_generators,
    restored_generators,
    same_generator_state,
    size_of,
    version_of,
)
from thetaone.rematerialization.profiling._isolation import (
    dropped_tapes,
    substituted_parameters,
    uncached_casts,
)
from thetaone.rematerialization.profiling._subject import Subject

_PYTHON_STATE = 5_000  # bytes of the state of a Mersenne twister, the largest of them
VIEWS = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout)  # may hand on their input's storage


@dataclass(frozen=True)
class Sizes:
    """Bytes of one block, as in ``Stage``; ``passing`` flows in and out unchanged."""

    output: int
    tape: int
    forward_scratch: int
    taping_scratch: int
    backward_scratch: int
    passing: int


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
            size = storage_bytes(_born(outputs, flowing, subject))
            passing = storage_bytes(one for one in outputs if _among(one, flowing))
            plain_peak = high.peak
            del flowing, outputs
        with subject.as_called(), StorageTracker() as tracker:
            high = _Highest(tracker, device)
            flowing, outputs = subject.run()
            tape, taping_peak = tracker.live_bytes, high.peak
            outputs = [one for one in outputs if one.requires_grad]
            scratch = 0
            if outputs:
                gradients = list(map(torch.ones_like, outputs))
                high = _Highest(tracker, device)
                before = tracker.live_bytes + storage_bytes(
                    one for one in flowing if one.requires_grad
                )
                _backward(outputs, gradients, [*flowing, *leaves])
                scratch = max(0, high.peak - before)
    return Sizes(
        output=size,
        tape=tape,
        forward_scratch=max(0, plain_peak - size),
        taping_scratch=max(0, taping_peak - tape),
        backward_scratch=scratch,
        passing=passing,
    )


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


@dataclass(frozen=True)
class Repeated:
    """What is known of a block that was run twice.

    Attributes:
        random_bytes: Random state that a region keeps for it [bytes].
        moving: Names of large buffers that it changes, and of large tensors kept in attributes
            that it reads before it overwrites them.
    """

    random_bytes: int
    moving: tuple[str, ...]


def check_repeatable(subject: Subject) -> Repeated:
    """Run a block twice to see that it can be run again.

    Raises:
        ProfileError: It changes its input, hands it on as a view, holds a state that cannot be
            noted, or gives another result the second time.
    """
    subject.watch.require_readable(ProfileError)
    device = subject.device
    generators = [*global_generators(device), *subject.watch.generators]
    states = [generator_state(one) for one in generators]
    with subject.as_called():
        _check_in_place(subject)
    with subject.as_called(), dropped_tapes():
        buffers = subject.watch.buffers()
        note = Note(subject.watch.now())
        first = [one.detach().clone() for one in subject.run()[1]]
        drawn = [
            state
            for one, state in zip(generators, states, strict=True)
            if not same_generator_state(state, generator_state(one))
        ]
        moving = tuple(
            name
            for name, module, inner, tensor, version in buffers
            if size_of(tensor) > SMALL
            and (module._buffers.get(inner) is not tensor or version_of(tensor) != version)
        )
        note.lighten(subject.watch.now(), set())
    with subject.as_called(), dropped_tapes():
        leaves, second, read = _run_again(subject, note)
    for one in second:
        alone = len(second) == 1  # beside others, what is handed on unchanged is counted apart
        views = any(key(one) == key(leaf) and (alone or one is not leaf) for leaf in leaves)
        if views and not isinstance(subject.block, VIEWS):
            raise ProfileError(
                f"{subject.where} returns a view of its input: keeping its output would keep its "
                "input alive; join it with a neighbour, or return a new tensor"
            )
    if len(first) != len(second) or not all(map(_equal, first, second)):
        raise ProfileError(
            f"{subject.where} is not deterministic: run twice from the same input and random state "
            "it gives two results, so it cannot be recomputed; draw from generators that it holds "
            "or from the global ones, and see torch.use_deterministic_algorithms"
        )
    size = sum(one.nbytes if isinstance(one, torch.Tensor) else _PYTHON_STATE for one in drawn)
    return Repeated(size, (*moving, *read))


def _run_again(
    subject: Subject, note: Note
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[str]]:
    """Leaves and outputs of the second run, and which large tensors on the block it reads.

    It runs without those that the first run overwrote; a block that misses them gets them back.
    """
    generators = [*global_generators(subject.device), *subject.watch.generators]
    overwritten = note.forget()
    try:
        with restored_generators(generators), subject.watch.as_noted(note):
            leaves, outputs = subject.run()
            return leaves, outputs, []
    except RecomputationError:
        leaves, outputs = subject.run()
        return leaves, outputs, overwritten


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.is_floating_point() or first.is_complex():
        return torch.equal(first.nan_to_num(), second.detach().nan_to_num())
    return torch.equal(first, second)


def copied_bytes(subject: Subject, moving: Iterable[str]) -> int:
    """Bytes of the buffers and plain tensors of a block that a region copies."""
    changing = set(moving)
    buffers = sum(
        tensor.nbytes
        for name, module, _, tensor, _ in subject.watch.buffers()
        if subject.watch.copies(module) and (size_of(tensor) <= SMALL or name in changing)
    )
    return buffers + sum(
        one.nbytes
        for one in subject.watch.now().in_place
        if one.copy is not None or one.path in changing
    )


def _check_in_place(subject: Subject) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a block that checkpoints itself misses its gradients here
        probes = [one.detach().clone() for one in subject.flowing]
        subject.run_on(probes)
    if any(probe._version for probe in probes):
        raise ProfileError(
            f"{subject.where} changes its input in place, which could then not be recomputed from: "
            "build it without inplace=True, or join it with the block before it"
        )


def synchronize(device: torch.device) -> None:
    """Wait for a device, so that a clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
