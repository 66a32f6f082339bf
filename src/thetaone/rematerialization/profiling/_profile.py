"""Profiles a model: its chain of blocks, each with measured seconds and bytes."""

import hashlib
import statistics
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, ProfileError
from thetaone.records import Chain, Stage
from thetaone.rematerialization.accounting import storage_bytes
from thetaone.rematerialization.blocks import (
    Blocks,
    Call,
    Watched,
    activation_of,
    as_written,
    conditions,
    describe_parameters,
    describe_tensor,
    dropped_tapes,
    find_blocks,
    label,
    like_output,
    own_cache,
    random_state,
    same_state,
    take_activation,
    unhooked,
    untouched,
    unwatched,
    written,
)
from thetaone.rematerialization.profiling._measure import (
    Sizes,
    Subject,
    attributes,
    cast_bytes,
    check_repeatable,
    copied_bytes,
    measure_region,
    measure_seconds,
    measure_sizes,
    measure_tail,
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
    with as_written(model), torch.enable_grad(), untouched(model, (inputs, kwargs)):
        found = find_blocks(model, blocks)
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
    blocks = [subject.block for subject in subjects]
    with unhooked(module for block in blocks for module in block.modules()):
        repeated = [check_repeatable(subjects[group[0]]) for group in groups]
        seconds = _seconds(subjects, groups, repeats)
        tails = [
            statistics.median(measure_tail(subjects[group[0]]) for _ in range(repeats))
            for group in groups
        ]
        sizes = [_sizes([subjects[index] for index in group]) for group in groups]
    copied = sum(
        copied_bytes(blocks[index], moving)
        for group, (_, moving) in zip(groups, repeated, strict=True)
        for index in group
    )
    # what is kept once for the whole chain, whatever the schedule; copies twice in a recomputation
    aside = cast_bytes(blocks) + 2 * copied
    stages: dict[int, Stage] = {}
    measured = zip(groups, sizes, seconds, tails, repeated, strict=True)
    for group, group_sizes, times, tail, (state, _) in measured:
        for index, size in zip(group, group_sizes, strict=True):
            stages[index] = _stage(subjects[index], size, times, tail, state, aside)
    first = subjects[0].activation
    context = describe(model, subjects)
    return Chain(
        input_bytes=first.untyped_storage().nbytes(),
        stages=tuple(stages[index] for index in range(len(subjects))),
        input_requires_grad=first.requires_grad,
        load_seconds=measure_region(subjects[0], 4 * repeats),
        separate=separate,
        moving=tuple(
            f"{subjects[index].name}.{name}"
            for group, (_, moving) in zip(groups, repeated, strict=True)
            for index in group
            for name in moving
        ),
        context=context,
        signature=hashlib.sha256(repr(sorted(context.items())).encode()).hexdigest()[:16],
    )


def _sizes(alike: list[Subject]) -> list[Sizes]:
    """Bytes of blocks that look alike: measured again where a plain attribute differs."""
    known: dict[str, Sizes] = {}
    found: list[Sizes] = []
    for subject in alike:
        look = attributes(subject.block)
        if look not in known:
            known[look] = measure_sizes(subject)
        found.append(known[look])
    return found


def describe(model: str, subjects: list[Subject]) -> dict[str, str]:
    """What a profile is of, for people and for the check that it still applies."""
    first = subjects[0]
    return {
        "model": model,
        "blocks": f"{first.name} … {subjects[-1].name}",
        "parameters": describe_parameters(subject.block for subject in subjects),
        "device": str(first.activation.device),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        **conditions(
            first.activation,
            first.call,
            [subject.block for subject in subjects],
        ),
    }


def capture(found: Blocks, run: Callable[[], Any]) -> tuple[list[Subject], str]:
    """Run a model forward once and note with what each block is called.

    Returns:
        The blocks, and why no region may span two of them; empty when one may.

    Raises:
        ProfileError: A block is not called exactly once, or not in order.
    """
    notes = _Notes(found)
    # a full backward hook would take what is watched for a tensor of the graph
    quiet = unhooked(found.modules, forward=False)
    with quiet, notes.taken(), dropped_tapes(), torch.enable_grad():
        result = run()
        notes.look_for_kept()
        del result
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
    """What is seen of the blocks during one forward.

    Every block's output but the last one's goes out as a watched tensor: a model that does more
    with it than hand it to the next block gets regions of one block.
    """

    def __init__(self, found: Blocks) -> None:
        self._found = found
        self.subjects: list[Subject] = []
        self.separate = ""
        self._kinds: dict[str, Subject] = {}
        self._before: tuple[str, Call, list[torch.Tensor]] | None = None  # the last one that ran
        self._out: list[tuple[str, weakref.ref[Watched]]] = []

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Watch the blocks by hooks."""
        handles: list[Any] = []
        for name, block in zip(self._found.names, self._found.modules, strict=True):
            before, after = partial(self._called, name), partial(self._returned, name)
            handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(block.register_forward_hook(after))
        try:
            yield
        finally:
            self._before = None
            for handle in handles:
                handle.remove()

    def look_for_kept(self, last: int = 0) -> None:
        """Blocks whose output is still held, the ``last`` ones apart."""
        for name, ref in self._out[: len(self._out) - last]:
            if ref() is not None:
                self._differs(f"the model keeps the output of {name}")

    def _called(
        self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        handed, call = take_activation(args, kwargs)
        activation = unwatched(handed)
        self.look_for_kept(last=2)
        self._compare(name, handed, call, activation)
        self._call = call
        self.subjects.append(note_subject(self._kinds, name, block, block, activation, call))
        # the model's own cache stays empty: the block that runs now appends to a copy
        own = [own_cache(unwatched(value)) for value in args]
        return tuple(own), {key: own_cache(unwatched(kwargs[key])) for key in kwargs}

    def _returned(self, name: str, block: nn.Module, args: Any, output: Any) -> Any:
        activation = activation_of(output, where=label(block, name))
        self._before = name, self._call, random_state(activation)
        last = len(self.subjects) == len(self._found.names)
        if last or self._found.container is not None:  # nobody but a container has it in hand
            return None
        return like_output(output, self._watched(name, activation))

    def _watched(self, name: str, activation: torch.Tensor) -> Watched:
        used = partial(self._differs, f"the model uses the output of {name} itself")
        watched = Watched(activation, used)
        self._out.append((name, weakref.ref(watched)))
        return watched

    def _differs(self, why: str) -> None:
        self.separate = self.separate or why

    def _compare(
        self, name: str, handed: torch.Tensor, call: Call, activation: torch.Tensor
    ) -> None:
        before, self._before = self._before, None
        if before is None or not self._out:
            return
        if handed is not self._out[-1][1]():
            self._differs(f"{name} is not called with the output of {before[0]}")
        elif not call.same_extra(before[1]):
            self._differs(f"{name} is called with other extra arguments than {before[0]}")
        elif not same_state(before[2], random_state(activation)):
            self._differs(f"random numbers are drawn between {before[0]} and {name}")


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
        noted[kind] = Subject(name, kind, block, run, leaf, call.detached())
    return replace(noted[kind], name=name, block=block, run_block=run)


def _kind(block: nn.Module, activation: torch.Tensor) -> str:
    """Equal for blocks that cost the same: same code, parameters and input."""
    parameters = [f"{describe_tensor(p)}{p.requires_grad}" for p in block.parameters()]
    flowing = f"{describe_tensor(activation)}{activation.requires_grad}{activation.stride()}"
    training = [module.training for module in block.modules()]
    return repr((written(block).__qualname__, repr(block), parameters, flowing, training))


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
    subject: Subject,
    size: Sizes,
    times: list[tuple[float, float]],
    tail: float,
    state: int,
    aside: int,
) -> Stage:
    """One stage of the chain.

    A region keeps, beside its input, the random ``state`` from which it is recomputed. Gradients of
    extra arguments are summed through the whole backward, the old sum and the new side by side
    with what is added. ``aside`` is there all the time.
    """
    forward = [time[0] for time in times]
    middle = statistics.median(forward)
    spread = statistics.quantiles(forward, n=4) if len(forward) > 1 else [middle] * 3
    sums = 2 * storage_bytes(one for one in subject.call.tensors if one.requires_grad)
    return Stage(
        name=subject.name,
        forward_seconds=max(middle, 1e-9),
        backward_seconds=statistics.median(time[1] for time in times),
        output_bytes=size.output + state,
        tape_bytes=size.tape + state,
        forward_scratch_bytes=size.forward_scratch + sums + aside,
        backward_scratch_bytes=size.backward_scratch + sums + aside,
        taping_scratch_bytes=size.taping_scratch + sums + aside,
        tail_seconds=tail * max(middle, 1e-9),
        seconds_spread=(spread[2] - spread[0]) / max(middle, 1e-9),
    )
