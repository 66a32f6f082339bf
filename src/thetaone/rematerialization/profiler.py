"""Profiles a model: its chain of blocks, each with measured seconds and bytes."""

import hashlib
import statistics
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, ProfileError
from thetaone.records.chain import Chain, Stage
from thetaone.rematerialization.blocks import (
    Blocks,
    describe_parameters,
    describe_tensor,
    find_blocks,
)
from thetaone.rematerialization.calls import (
    Call,
    activation_of,
    label,
    own_cache,
    take_activation,
)
from thetaone.rematerialization.measure import (
    Sizes,
    Subject,
    check_repeatable,
    dropped_tapes,
    measure_region,
    measure_seconds,
    measure_sizes,
    measure_tail,
    untouched,
)


def profile(
    model: nn.Module,
    *inputs: Any,
    blocks: str | None = None,
    repeats: int = 5,
    forward: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> Chain:
    """Measure the chain of a model's blocks.

    Blocks that are equal (type, parameters, input) are measured as one: their times are pooled, so
    that a planner sees equal costs. Weights, gradients, buffers and random state stay as they were.

    Args:
        model: An ``nn.Sequential``, or a model whose forward loops over a list of blocks.
        inputs: What the model is called with, at the size of a training step.
        blocks: Qualified name of the list of blocks; None finds it.
        repeats: Timed rounds over all kinds of blocks [count], after one warm-up.
        forward: Called as ``forward(model, *inputs)`` instead of ``model(*inputs)``; a task's loss.
        kwargs: Keyword arguments of the model.

    Returns:
        The chain; ``context`` names what was measured, ``signature`` is its hash.

    Raises:
        ProfileError: No chain is found, a block is not called exactly once, or a block cannot be
            recomputed: it changes its input, returns a view of it, or is not deterministic.

    Examples:
        >>> layers = [torch.nn.Linear(4, 4) for _ in range(3)]
        >>> chain = profile(torch.nn.Sequential(*layers), torch.zeros(2, 4))
        >>> chain.length, chain.input_bytes, chain.stages[0].output_bytes
        (3, 32, 32)
    """
    if repeats < 1:
        raise InputError(f"repeats={repeats}: need at least one timed round")
    found = find_blocks(model, blocks)
    with torch.enable_grad(), untouched(model, (inputs, kwargs)):
        subjects, separate = capture(found, lambda: (forward or _call)(model, *inputs, **kwargs))
        if separate:
            warnings.warn(
                f"{separate}: no region will span two blocks, they are recomputed one by one",
                RuntimeWarning,
                stacklevel=2,
            )
        return measured_chain(subjects, repeats, model=type(model).__name__, separate=separate)


def measured_chain(
    subjects: list[Subject], repeats: int, *, model: str, separate: str = ""
) -> Chain:
    """Measure captured blocks, equal ones as one."""
    kinds: dict[str, list[int]] = {}
    for index, subject in enumerate(subjects):
        kinds.setdefault(subject.kind, []).append(index)
    groups = list(kinds.values())
    random = [check_repeatable(subjects[group[0]]) for group in groups]
    sizes = [measure_sizes(subjects[group[0]]) for group in groups]
    seconds = _seconds(subjects, groups, repeats)
    tails = [
        statistics.median(measure_tail(subjects[group[0]]) for _ in range(repeats))
        for group in groups
    ]
    stages: dict[int, Stage] = {}
    measured = zip(groups, sizes, seconds, tails, random, strict=True)
    for group, size, times, tail, draws in measured:
        for index in group:
            stages[index] = _stage(subjects[index], size, times, tail, draws=draws)
    first = subjects[0].activation
    context = describe(model, subjects)
    return Chain(
        input_bytes=first.untyped_storage().nbytes(),
        stages=tuple(stages[index] for index in range(len(subjects))),
        input_requires_grad=first.requires_grad,
        load_seconds=measure_region(first.device, 4 * repeats),
        separate=separate,
        context=context,
        signature=hashlib.sha256(repr(sorted(context.items())).encode()).hexdigest()[:16],
    )


def describe(model: str, subjects: list[Subject]) -> dict[str, str]:
    """What a profile is of, for people and for the check that it still applies."""
    first = subjects[0]
    return {
        "model": model,
        "blocks": f"{first.name} … {subjects[-1].name}",
        "parameters": describe_parameters(subject.block for subject in subjects),
        "input": describe_tensor(first.activation),
        "device": str(first.activation.device),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        "training": str(first.block.training),
    }


def capture(found: Blocks, run: Callable[[], Any]) -> tuple[list[Subject], str]:
    """Run a model forward once and note with what each block is called.

    Returns:
        The blocks, and why no region may span two of them; empty when one may.

    Raises:
        ProfileError: A block is not called exactly once, or not in order.
    """
    notes = _Notes()
    with notes.taken(found), dropped_tapes(), torch.enable_grad():
        run()
    subjects = notes.subjects
    called = [subject.name for subject in subjects]
    if called != list(found.names):
        raise ProfileError(
            f"the forward calls the blocks {', '.join(called) or '(none)'}; a chain calls "
            f"{found.names[0]} … {found.names[-1]} once each, in this order"
        )
    return subjects, notes.separate


def _call(model: nn.Module, *inputs: Any, **kwargs: Any) -> Any:
    return model(*inputs, **kwargs)


class _Notes:
    """What is seen of the blocks during one forward."""

    def __init__(self) -> None:
        self.subjects: list[Subject] = []
        self.separate = ""
        self._kinds: dict[str, Subject] = {}
        self._before: tuple[str, torch.Tensor, Call] | None = None  # the block before, its output

    @contextmanager
    def taken(self, found: Blocks) -> Iterator[None]:
        """Watch the blocks by hooks."""
        handles: list[Any] = []
        for name, block in zip(found.names, found.modules, strict=True):
            before, after = partial(self._called, name), partial(self._returned, name)
            handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(block.register_forward_hook(after))
        try:
            yield
        finally:
            self._before = None
            for handle in handles:
                handle.remove()

    def _called(
        self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        activation, call = take_activation(args, kwargs)
        self._compare(name, activation, call)
        self._call = call
        self.subjects.append(note_subject(self._kinds, name, block, block, activation, call))
        # the model's own cache stays empty: the block that runs now appends to a copy
        return tuple(map(own_cache, args)), {key: own_cache(kwargs[key]) for key in kwargs}

    def _returned(self, name: str, block: nn.Module, args: Any, output: Any) -> None:
        self._before = name, activation_of(output, where=label(block, name)), self._call

    def _compare(self, name: str, activation: torch.Tensor, call: Call) -> None:
        before, self._before = self._before, None
        if before is None or self.separate:
            return
        if before[1] is not activation:
            self.separate = f"{name} is not called with the output of {before[0]}"
        elif not call.same_extra(before[2]):
            self.separate = f"{name} is called with other extra arguments than {before[0]}"


def note_subject(
    noted: dict[str, Subject],
    name: str,
    block: nn.Module,
    run: Any,
    activation: torch.Tensor,
    call: Call,
) -> Subject:
    """A block with its call; equal blocks share one activation, so that few are held."""
    kind = _kind(block, activation)
    if kind not in noted:
        leaf = activation.detach().requires_grad_(activation.requires_grad)
        noted[kind] = Subject(name, kind, block, run, leaf, call)
    return replace(noted[kind], name=name, block=block, run_block=run)


def _kind(block: nn.Module, activation: torch.Tensor) -> str:
    """Equal for blocks that cost the same: same code, parameters and input."""
    parameters = [f"{describe_tensor(p)}{p.requires_grad}" for p in block.parameters()]
    flowing = f"{describe_tensor(activation)}{activation.requires_grad}{activation.stride()}"
    return repr((type(block).__qualname__, repr(block), parameters, flowing, block.training))


def _seconds(
    subjects: list[Subject], groups: list[list[int]], repeats: int
) -> list[list[tuple[float, float]]]:
    """Forward and backward times of each kind, rounds interleaved so that drift hits all alike."""
    times: list[list[tuple[float, float]]] = [[] for _ in groups]
    for turn in range(repeats + 1):
        for number, group in enumerate(groups):
            measured = measure_seconds(subjects[group[turn % len(group)]])
            if turn:  # the first round warms up
                times[number].append(measured)
    return times


def _stage(
    subject: Subject, size: Sizes, times: list[tuple[float, float]], tail: float, *, draws: bool
) -> Stage:
    forward = [time[0] for time in times]
    middle = statistics.median(forward)
    spread = statistics.quantiles(forward, n=4) if len(forward) > 1 else [middle] * 3
    # a region that draws random numbers keeps the generator's state beside its input
    state = torch.get_rng_state().nbytes if draws else 0
    return Stage(
        name=subject.name,
        forward_seconds=max(middle, 1e-9),
        backward_seconds=statistics.median(time[1] for time in times),
        output_bytes=size.output + state,
        tape_bytes=size.tape + state,
        forward_scratch_bytes=size.forward_scratch,
        backward_scratch_bytes=size.backward_scratch,
        taping_scratch_bytes=size.taping_scratch,
        tail_seconds=tail * max(middle, 1e-9),
        seconds_spread=(spread[2] - spread[0]) / max(middle, 1e-9),
    )
