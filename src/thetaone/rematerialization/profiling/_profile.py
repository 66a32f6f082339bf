"""Profiles a model: its chain of blocks, each with measured seconds and bytes."""

import hashlib
import inspect
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from thetaone.errors import InputError
from thetaone.records import Chain, Stage, whole_number
from thetaone.rematerialization.accounting import storage_bytes, tensors_in
from thetaone.rematerialization.blocks import (
    Blocks,
    Watch,
    as_written,
    describe_parameters,
    find_blocks,
)
from thetaone.rematerialization.profiling._capture import called_again, capture
from thetaone.rematerialization.profiling._conditions import Modes, conditions
from thetaone.rematerialization.profiling._isolation import unhooked, untouched
from thetaone.rematerialization.profiling._joints import (
    kept_bytes,
    list_starts,
    warn_of_joints,
    why_separate,
    with_joints,
)
from thetaone.rematerialization.profiling._measure import (
    Sizes,
    measure_region,
    measure_seconds,
    measure_sizes,
    measure_tail,
)
from thetaone.rematerialization.profiling._repeatable import Repeated, at_work, copied_bytes
from thetaone.rematerialization.profiling._subject import Subject

MOST_REPEATS = 10_000  # timed rounds


def profile(
    model: nn.Module,
    *inputs: Any,
    blocks: str | Sequence[str] | None = None,
    repeats: int = 5,
    forward: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> Chain:
    """Measure the chain of a model's blocks.

    Bytes are measured for each block; times are pooled over blocks of which all agrees (code,
    attributes, parameters, input), so that a planner sees equal costs. Weights, gradients, buffers,
    plain attributes and random state stay as they were.

    Args:
        model: An ``nn.Sequential``, or a model whose forward calls blocks in turn.
        inputs: What the model is called with, at the size of a training step.
        blocks: Qualified name of the list of blocks, or several names; None finds them.
        repeats: Timed rounds over all kinds of blocks [count], after one warm-up.
        forward: Called as ``forward(model, *inputs)`` instead of ``model(*inputs)``; a task's loss.
        kwargs: Keyword arguments of the model.

    Returns:
        The chain; ``context`` names what was measured, ``signature`` is its hash.

    Raises:
        InputError: No model, inputs that are fake or that its forward does not take, or no number
            of rounds.
        ProfileError: No chain is found, a block is never called, or a block cannot be recomputed:
            it changes its input, returns a view of it, holds a state that cannot be noted, or is
            not deterministic.

    Examples:
        >>> layers = [torch.nn.Linear(4, 4) for _ in range(3)]
        >>> chain = profile(torch.nn.Sequential(*layers), torch.zeros(2, 4))
        >>> chain.length, chain.input_bytes, chain.stages[0].output_bytes
        (3, 32, 32)
    """
    repeats = whole_number(repeats, where="repeats", least=1, most=MOST_REPEATS)
    require_call(model, forward, inputs, kwargs)
    _require_contents(model, (inputs, kwargs))
    with as_written(model), isolated(model, (inputs, kwargs)):
        run = partial(forward or _call, model, *inputs, **kwargs)
        chosen = find_blocks(model, blocks, partial(called_again, model, run))
        subjects = captured(chosen, run)
        warn_of_joints(chosen, subjects)
        return measured_chain(subjects, repeats, model=type(model).__name__)


def require_call(
    model: nn.Module,
    forward: Callable[..., Any] | None,
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Refuse what is no model, or inputs that its forward does not take.

    Raises:
        InputError: Names the argument that is missing or too many.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}: need an nn.Module")
    if forward is None and model._forward_pre_hooks:
        return  # they may call it with something else
    arguments = inputs if forward is None else (model, *inputs)
    try:
        signature = inspect.signature(forward or model.forward)
    except (TypeError, ValueError):
        return  # a forward in C tells nothing
    try:
        signature.bind(*arguments, **kwargs)
    except TypeError as error:
        raise InputError(
            f"{type(model).__name__} cannot be called with this sample: {error}. Give the inputs "
            "of one training step: a tensor, a tuple of arguments or a dict of keywords"
        ) from error


def _require_contents(model: nn.Module, inputs: Any) -> None:
    """Refuse what has no bytes to measure.

    Raises:
        InputError: A tensor is on the meta device or fake.
    """
    fake = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
    for one in (*tensors_in(inputs), *model.parameters(), *model.buffers()):
        if fake or one.is_meta or isinstance(one, FakeTensor):
            raise InputError(
                f"{type(model).__name__} and its sample are measured, and "
                f"{'a meta tensor' if one.is_meta else 'a fake tensor'} has no contents: profile a "
                "model and a sample with real tensors, outside of FakeTensorMode"
            )


def isolated(model: nn.Module, inputs: Any) -> Any:
    """Everything that a model can reach is on exit as it was; autograd is on inside."""
    devices = {torch.device("cpu"), *(one.device for one in tensors_in(inputs))}
    return untouched([Watch("the model", model)], devices)


def captured(blocks: Blocks, run: Callable[[], Any]) -> list[Subject]:
    """The blocks as a model calls them."""
    watches = {
        id(block): Watch(name, block)
        for name, block in zip(blocks.names, blocks.modules, strict=True)
    }
    return capture(blocks, watches, run)


def _call(model: nn.Module, *inputs: Any, **kwargs: Any) -> Any:
    return model(*inputs, **kwargs)


@dataclass(frozen=True)
class Times:
    """Measured times of blocks of one kind.

    Attributes:
        forward: Of each timed round [s].
        backward: Likewise [s].
        tail: Share of the forward that follows the last saved tensor.
    """

    forward: list[float]
    backward: list[float]
    tail: float


def measured_chain(subjects: list[Subject], repeats: int, *, model: str) -> Chain:
    """Measure captured blocks, those of one kind as one."""
    with unhooked(module for subject in subjects for module in subject.watch.modules):
        checked = [at_work(subject) for subject in subjects]
        subjects, repeated = [one for one, _ in checked], [one for _, one in checked]
        kinds: dict[Hashable, list[Subject]] = {}
        for subject in subjects:
            kinds.setdefault((subject.kind, subject.seed), []).append(subject)
        times = dict(zip(kinds, _times(list(kinds.values()), repeats), strict=True))
        sizes = [measure_sizes(subject) for subject in subjects]
    blocks = list({id(one.block): one.block for one in subjects}.values())
    unique = {id(s.block): (s, r) for s, r in zip(subjects, repeated, strict=True)}.values()
    copied = sum(copied_bytes(subject, one.moving) for subject, one in unique)
    passing = _passing(subjects, sizes)
    # what is kept once for the whole chain, whatever the schedule; copies twice in a recomputation
    aside = cast_bytes(blocks) + 2 * copied + passing + kept_bytes(sizes)
    aside += sum(one.held for one in subjects)
    subjects = with_joints(subjects, sizes)
    pending = _pending_gradients(subjects)
    arrivals = [*(one.arrives for one in subjects[1:]), 0]
    stages = [
        _stage(subject, size, times[subject.kind, subject.seed], state, aside + gradients, arrives)
        for subject, size, state, gradients, arrives in zip(
            subjects, sizes, repeated, pending, arrivals, strict=True
        )
    ]
    context = describe(model, subjects)
    flowing = subjects[0].flowing
    return Chain(
        input_bytes=storage_bytes(flowing),
        stages=tuple(stages),
        input_requires_grad=any(one.requires_grad for one in flowing),
        load_seconds=measure_region(subjects[0], 4 * repeats),
        separate=why_separate(subjects),
        lists=list_starts(subjects),
        links=tuple(one.link for one in subjects) if any(one.link for one in subjects) else (),
        moving=tuple(dict.fromkeys(name for one in repeated for name in one.moving)),
        context=context,
        signature=hashlib.sha256(repr(sorted(context.items())).encode()).hexdigest()[:16],
    )


def cast_bytes(blocks: Iterable[nn.Module]) -> int:
    """Most that an autocast, if one is on, keeps of the weights in its own type until its end.

    A block's tape holds its casts as well: they are counted twice rather than not at all.
    """
    parameters = {id(p): p for block in blocks for p in block.parameters() if p.requires_grad}
    if not parameters or not torch.is_autocast_cache_enabled():
        return 0
    device = next(iter(parameters.values())).device.type
    if not torch.is_autocast_enabled(device):
        return 0
    size = torch.get_autocast_dtype(device).itemsize
    return sum(p.numel() * size for p in parameters.values() if p.dtype == torch.float32)


def _passing(subjects: list[Subject], sizes: list[Sizes]) -> int:
    """Most bytes that flow through a block unchanged, with the gradient that is summed for them."""
    return max(
        size.passing * (3 if any(one.requires_grad for one in subject.flowing) else 1)
        for subject, size in zip(subjects, sizes, strict=True)
    )


def _pending_gradients(subjects: list[Subject]) -> list[int]:
    """Bytes of gradients of extra arguments that are alive while each block runs backward.

    A gradient is summed from the last block that uses the argument back to the call that returned
    it; where a block adds to it, the old sum and the new one are side by side with what is added.
    """
    last: dict[int, int] = {}
    for place, subject in enumerate(subjects):
        last.update((one.tensor, place) for one in subject.extra)
    pending = [0] * len(subjects)
    for tensor, stop in last.items():
        gradient = next(one for one in subjects[stop].extra if one.tensor == tensor)
        for place in range(gradient.origin + 1, stop + 1):
            used = any(one.tensor == tensor for one in subjects[place].extra)
            pending[place] += (2 if used else 1) * gradient.size
    return pending


def describe(model: str, subjects: list[Subject]) -> dict[str, str]:
    """What a profile is of, for people and for the check that it still applies."""
    first = subjects[0]
    return {
        "model": model,
        "blocks": f"{first.name} … {subjects[-1].name}",
        "parameters": describe_parameters(subject.block for subject in subjects),
        "device": str(first.device),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        **conditions(
            first.flowing, first.call, Modes({one.name: one.block for one in subjects}.values())
        ),
    }


def _times(groups: list[list[Subject]], repeats: int) -> list[Times]:
    """Times of each kind, rounds interleaved so that drift hits all alike."""
    rounds: list[list[tuple[float, float]]] = [[] for _ in groups]
    for turn in range(repeats + 1):
        for number, group in enumerate(groups):
            measured = measure_seconds(group[turn % len(group)])
            if turn:  # the first round warms up
                rounds[number].append(measured)
    return [
        Times(
            [forward for forward, _ in pairs],
            [backward for _, backward in pairs],
            statistics.median(measure_tail(group[0]) for _ in range(repeats)),
        )
        for pairs, group in zip(rounds, groups, strict=True)
    ]


def _stage(
    subject: Subject, size: Sizes, times: Times, repeated: Repeated, aside: int, arrives: int
) -> Stage:
    """One stage of the chain.

    A region keeps, beside its input, the random state from which it is recomputed. ``aside`` is
    there all the time. ``arrives`` flows into the next block from elsewhere and waits beside this
    one's output.
    """
    middle = statistics.median(times.forward)
    several = len(times.forward) > 1
    spread = statistics.quantiles(times.forward, n=4) if several else [middle] * 3
    beside = repeated.random_bytes + arrives
    return Stage(
        name=subject.name,
        forward_seconds=max(middle, 1e-9),
        backward_seconds=statistics.median(times.backward),
        output_bytes=size.output + beside,
        tape_bytes=size.tape + beside,
        forward_scratch_bytes=size.forward_scratch + aside,
        backward_scratch_bytes=size.backward_scratch + aside,
        taping_scratch_bytes=size.taping_scratch + aside,
        tail_seconds=times.tail * max(middle, 1e-9),
        seconds_spread=(spread[2] - spread[0]) / max(middle, 1e-9),
    )
