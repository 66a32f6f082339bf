"""Runs a model forward once and notes how it calls its blocks.

Every output of a block goes out as a watched tensor: what a model does with it, beside handing it
to the next block, decides whether a region may span the two.
"""

import random
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from thetaone.errors import ProfileError
from thetaone.rematerialization.accounting import storage_bytes
from thetaone.rematerialization.blocks import (
    Blocks,
    Call,
    Flow,
    Remembered,
    Watch,
    ambient,
    first_call,
    generator_state,
    global_generators,
    label,
    leaves_of,
    link,
    output_tensors,
    own_cache,
    replaced,
    restored_generators,
    specialized_calls,
    take_flow,
    with_tensors,
    written,
)
from thetaone.rematerialization.profiling._isolation import (
    Surroundings,
    dropped_tapes,
    named_tapes,
    noted_forwards,
    unhooked,
)
from thetaone.rematerialization.profiling._subject import (
    ExtraArguments,
    ExtraGradient,
    Subject,
    seed_all,
    subject_of,
)
from thetaone.rematerialization.profiling._watched_output import (
    WatchedOutput,
    refuse_written,
    unwatched,
)

TRIES, MOST_TRIES = 12, 100  # forwards with other random numbers; most where blocks are left out


def capture(blocks: Blocks, watches: dict[int, Watch], run: Callable[[], Any]) -> list[Subject]:
    """Run a model forward and note with what each block is called.

    Args:
        blocks: Those of the chain.
        watches: Of each block, by its id.
        run: Runs the model.

    Returns:
        One subject for each call of a block, in order; ``joint`` says where no region may span two.

    Raises:
        ProfileError: No block is called, or one not through the module itself.
    """
    notes = _Notes(blocks, watches)
    with specialized_calls(blocks.modules, notes):
        notes.run(run)
        if len(notes.called) < len(blocks.modules):
            _complete(notes, run)
        idle = {name: one for name, one in blocks.pairs if name not in notes.called}
        past = idle and _runs_otherwise(idle.values(), notes, run)
    if blocks.single and len(notes.subjects) == 1:
        raise ProfileError(
            f"blocks={blocks.names[0]!r} is a {type(blocks.modules[0]).__name__}, which the "
            "forward calls once; name a ModuleList, a ModuleDict or a Sequential, several blocks, "
            "or a block that is called many times"
        )
    if past or not notes.subjects:
        order = ", ".join(subject.name for subject in notes.subjects) or "(none)"
        raise ProfileError(
            f"the forward calls the blocks {order}; it never calls {', '.join(idle)}. Blocks "
            "are noticed when the module itself is called, block(x): block.forward(x) passes hooks "
            "by, and this library too. Name the blocks that are called: blocks='model.layers'"
        )
    return notes.subjects


def called_again(model: nn.Module, run: Callable[[], Any]) -> tuple[str, ...]:
    """The module that a forward calls more than once, if there is one: a block in a loop.

    Of several, that which runs the most weights: its parameters times its calls.
    """
    calls = Counter[str]()

    def count(name: str, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        tensors = [one for one in leaves_of((args, kwargs)) if isinstance(one, torch.Tensor)]
        if any(map(torch.is_floating_point, tensors)):  # an embedding is no block
            calls.update((name,))

    hooks = [
        module.register_forward_pre_hook(partial(count, name), with_kwargs=True)
        for name, module in model.named_modules()
        if name and next(module.parameters(), None) is not None
    ]
    try:
        with torch.compiler.set_stance("force_eager"), dropped_tapes(), torch.enable_grad():
            copy_context().run(run)
    finally:
        for hook in hooks:
            hook.remove()

    def weights(name: str) -> int:
        return calls[name] * sum(one.numel() for one in model.get_submodule(name).parameters())

    repeated = [name for name, count in calls.items() if count > 1]
    return (max(repeated, key=weights),) if repeated else ()


def _runs_otherwise(idle: Iterable[nn.Module], notes: "_Notes", run: Callable[[], Any]) -> bool:
    """Whether blocks that are not called run all the same: ``block.forward(x)``, or a part."""
    subjects, called = notes.subjects, notes.called
    used = {part for one in subjects for part in one.block.modules()}
    with noted_forwards({part for one in idle for part in one.modules()} - used) as ran:
        notes.run(run)
    now = {part for one in notes.subjects for part in one.block.modules()}  # left out at random
    notes.subjects, notes.called = subjects, called
    return not now.issuperset(ran)


def _complete(notes: "_Notes", run: Callable[[], Any]) -> None:
    """Run again with other random numbers until no block is left out."""
    before, subjects = set(notes.called), notes.subjects
    always, count = len(before), len(notes.blocks.names)
    with restored_generators([random._inst, np.random.mtrand._rand]):  # pyright: ignore
        for seed in range(MOST_TRIES):
            seed_all(seed)
            notes.run(run)
            subjects += [one for one in notes.subjects if one.name not in before]
            before |= notes.called
            if len(before) == count or (seed >= TRIES and len(before) == always):
                break
    notes.called, notes.subjects = before, subjects
    if len(before) == always:  # a slice of a list, an early exit
        return
    subjects.sort(key=lambda subject: notes.blocks.names.index(subject.name))
    why = "the model leaves blocks out at random"
    notes.subjects = [replace(one, joint=why if at else "") for at, one in enumerate(subjects)]


class _Notes:
    """What is seen of the blocks during one forward; stands where the executor will stand."""

    def __init__(self, blocks: Blocks, watches: dict[int, Watch]) -> None:
        self.blocks, self.watches = blocks, watches
        self.kinds: dict[Hashable, Subject] = {}
        self._reset()

    def _reset(self) -> None:
        self.subjects: list[Subject] = []
        self.breaks: dict[int, str] = {}  # why no region spans a call and the one before it
        self.call: Call | None = None  # the last one
        self.earlier = Remembered()  # arguments of calls that begin a section
        self.called: set[str] = set()
        self.outputs: list[list[weakref.ref[WatchedOutput]]] = []
        self.real: list[weakref.ref[torch.Tensor]] = []  # what the last call returned
        self.returned_bytes = 0
        self.after: Surroundings | None = None
        self.extra = ExtraArguments()
        self.inside, self.graph = 0, True  # the last call had gradients
        # where tensors come from, by id: which call returned one, or -1
        self.origins: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}

    def run(self, run: Callable[[], Any]) -> None:
        """One forward of the model."""
        self._reset()
        # a full backward hook would take what is watched for a tensor of the graph
        quiet = unhooked(self.blocks.modules, forward=False)
        eager = torch.compiler.set_stance("force_eager")
        inside = named_tapes("the model, outside its blocks,")
        with quiet, eager, inside, dropped_tapes(), torch.enable_grad():
            result = copy_context().run(run)
            self._look_for_kept(0)
            del result
        self.call = None
        held = self.extra.held(self.subjects)
        self.subjects = [
            replace(subject, joint=self.breaks.get(place, "") if place else "", held=held[place])
            for place, subject in enumerate(self.subjects)
        ]

    def call_block(
        self, block: nn.Module, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Note a call, run the block, and hand out watched outputs."""
        call_written = partial(written(block).__call__, block)
        # a block within a block is part of it; a copy of one is not the chain's
        if self.inside or id(block) not in self.watches:
            return call_written(*args, **kwargs)
        name = self.blocks.names[index]
        stage = len(self.subjects)
        self._look_for_kept(2)
        subject = self._subject(stage, name, block, args, kwargs)
        self.called.add(name)
        self.subjects.append(subject)
        self.graph = torch.is_grad_enabled()
        # the model's own cache stays empty: the block that runs now appends to a copy
        real_args, real_kwargs = replaced((args, kwargs), unwatched)
        with self._within(), named_tapes(label(block, name)):
            output = call_written(
                *map(own_cache, real_args),
                **{key: own_cache(value) for key, value in real_kwargs.items()},
            )
        tensors = output_tensors(output, where=label(block, name))
        self.after = self._surroundings(tensors[0].device)
        self.real = [weakref.ref(one) for one in tensors]
        self.returned_bytes = storage_bytes(tensors)
        self.origins.update((id(one), (weakref.ref(one), stage)) for one in tensors)
        if self.blocks.container is not None:  # nobody but the container has it in hand
            self.outputs.append([])
            return output
        watched = [self._watched(stage, place, name, one) for place, one in enumerate(tensors)]
        self.outputs.append([weakref.ref(one) for one in watched])
        return with_tensors(output, tensors, watched)

    @contextmanager
    def _within(self) -> Iterator[None]:
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def _subject(
        self, stage: int, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Subject:
        """A block with its call; equal blocks share one input, so that few are held."""
        previous = [one for ref in self.real if (one := ref()) is not None]
        if stage and self.blocks.container is None:
            refuse_written(previous, (args, kwargs), self.subjects[-1].name, name)
        call = take_flow(args, kwargs, partial(self._place, stage, previous))
        # what comes from further back is extra
        call = Call(*replaced((call.args, call.kwargs), unwatched))
        if stage and (why := self._broken(call, previous, name)):
            self.breaks.setdefault(stage, why)
        description = ""
        if stage and stage not in self.breaks:
            assert self.call is not None
            flowing = previous
            description = link(call, self.call, self.earlier.now()) or ""
        else:
            tensor, call = first_call(*replaced((args, kwargs), unwatched))
            flowing = [tensor]
            self.earlier.note(stage, call)
        self.call = call
        arrives = storage_bytes(one for one in flowing if all(one is not old for old in previous))
        if not previous:  # what arrives takes the place of what was returned
            arrives = max(0, arrives - self.returned_bytes)
        run = partial(written(block).__call__, block)
        subject = subject_of(self.kinds, name, run, tuple(flowing), call, self.watches[id(block)])
        self.extra.note(stage, (one for one in call.tensors if not self._is_returned(one)))
        return replace(subject, extra=self._extra(call), arrives=arrives, link=description)

    def _place(self, stage: int, previous: list[torch.Tensor], leaf: Any) -> int | None:
        """Which output of the call before an argument is."""
        if isinstance(leaf, WatchedOutput):
            return leaf.place if leaf.stage == stage - 1 else None
        if not isinstance(leaf, torch.Tensor) or self.blocks.container is None:
            return None
        return next((index for index, one in enumerate(previous) if one is leaf), None)

    def _broken(self, call: Call, previous: list[torch.Tensor], name: str) -> str:
        """Why a region may not span a call and the one before; empty when it may."""
        before = self.subjects[-1].name
        if torch.is_grad_enabled() != self.graph:
            return f"the model turns gradients on or off between {before} and {name}"
        if not any(isinstance(leaf, Flow) for leaf in leaves_of(call.before)):
            return f"{name} is not called with the output of {before}"
        assert self.call is not None
        assert self.after is not None
        if link(call, self.call, self.earlier.now()) is None:
            return f"{name} is called with other extra arguments than {before}"
        return self.after.differences(self._surroundings(previous[0].device), before, name)

    def _extra(self, call: Call) -> tuple[ExtraGradient, ...]:
        """Which extra arguments need a gradient, and where each comes from."""
        extra: list[ExtraGradient] = []
        for one in call.tensors:
            if one.requires_grad:
                origin = self.origins.get(id(one))
                if origin is None or origin[0]() is not one:
                    origin = self.origins[id(one)] = weakref.ref(one), -1
                extra.append(ExtraGradient(id(one), origin[1], storage_bytes([one])))
        return tuple(extra)

    def _is_returned(self, tensor: torch.Tensor) -> bool:
        """Whether a call returned a tensor."""
        origin = self.origins.get(id(tensor))
        return origin is not None and origin[1] >= 0 and origin[0]() is tensor

    def _watched(self, stage: int, place: int, name: str, tensor: torch.Tensor) -> WatchedOutput:
        used = partial(self._used, stage, f"the model uses the output of {name} itself")
        return WatchedOutput(tensor, used, stage=stage, place=place)  # pyright: ignore[reportCallIssue] # torch types __init__, not __new__

    def _used(self, stage: int, why: str) -> None:
        """Something is done with the output of a call: the joint after it is broken."""
        if not self.inside:
            self.breaks.setdefault(stage + 1, why)

    def _look_for_kept(self, last: int) -> None:
        """Calls whose output is still held, the ``last`` ones apart."""
        for stage in range(len(self.outputs) - last):
            if any(ref() is not None for ref in self.outputs[stage]):
                why = f"the model keeps the output of {self.subjects[stage].name}"
                self.breaks.setdefault(stage + 1, why)

    def _surroundings(self, device: torch.device) -> Surroundings:
        return Surroundings(
            [generator_state(one) for one in global_generators(device)],
            ambient(device),
            [(watch, watch.now()) for watch in self.watches.values()],
        )
